import numpy as np
import pytest

from isthmus.data.simulators.lowpoly import blob, limb
from isthmus.data.simulators.people import BODY_PARTS, person, riding, standing, walking
from isthmus.data.simulators.vehicles import HEADLIGHT, RUBBER, TAILLIGHT, bicycle, bus, car, lorry, van

SEEDS = range(12)


def middle(pieces: list, part: str) -> np.ndarray:
    own = [piece.mesh.vertices for piece in pieces if piece.part == BODY_PARTS.index(part)]
    return np.concatenate(own).mean(axis=0)


@pytest.mark.parametrize("pose", [walking, standing])
def test_people_stand_on_the_ground_with_all_parts_in_order(pose) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        pieces = person(rng, 5, pose(rng))
        corners = np.concatenate([piece.mesh.vertices for piece in pieces])
        assert {piece.part for piece in pieces} == set(range(1, 7)) and {piece.label for piece in pieces} == {5}
        assert corners[:, 2].min() == pytest.approx(0, abs=1e-9)
        assert 1.0 < corners[:, 2].max() < 2.2
        assert np.ptp(corners[:, 0]) < 1.3 and np.ptp(corners[:, 1]) < 1.8
        heights = [middle(pieces, part)[2] for part in ("head", "torso", "upper_leg", "lower_leg")]
        assert heights == sorted(heights, reverse=True)


def test_a_walker_swings_arms_against_legs_and_faces_minus_y() -> None:
    rng = np.random.default_rng(3)
    pose = walking(rng)._replace(
        hips=(30.0, -30.0), knees=(4.0, 30.0), shoulders=(-30.0, 30.0), elbows=(10, 10), lean=0
    )
    pieces = person(rng, 5, pose)
    arm, leg = BODY_PARTS.index("lower_arm"), BODY_PARTS.index("upper_leg")
    left_leg, right_leg = (p.mesh.vertices.mean(axis=0) for p in pieces if p.part == leg and len(p.mesh.vertices) == 42)
    hands = [p.mesh.vertices.mean(axis=0) for p in pieces if p.part == arm]
    left_hand, right_hand = hands[1], hands[3]
    assert left_leg[0] > 0 > right_leg[0]
    assert left_leg[1] < 0 < right_leg[1]
    assert right_hand[1] < 0 < left_hand[1]


def test_a_rider_sits_at_the_given_height_and_leans_forward() -> None:
    rng = np.random.default_rng(0)
    pieces = person(rng, 5, riding(rng), seat=0.98)
    assert middle(pieces, "upper_leg")[2] == pytest.approx(0.9, abs=0.15)
    assert middle(pieces, "head")[1] < middle(pieces, "torso")[1] < 0.0


@pytest.mark.parametrize(
    ("maker", "longest", "tallest"), [(car, 5.2, 1.9), (van, 6.4, 2.7), (bus, 12.6, 3.4), (lorry, 9, 3.6)]
)
def test_vehicles_stand_on_their_wheels_and_face_minus_y(maker, longest: float, tallest: float) -> None:
    for seed in SEEDS:
        parts = maker(np.random.default_rng(seed))
        corners = np.concatenate([mesh.vertices for mesh, _ in parts])
        low, high = corners.min(axis=0), corners.max(axis=0)
        assert low[2] == pytest.approx(0, abs=0.03)
        assert (
            3.5 < high[1] - low[1] < longest and 1.3 < high[2] < tallest and high[0] == pytest.approx(-low[0], abs=0.05)
        )
        tyres = np.concatenate([mesh.vertices for mesh, paint in parts if paint is RUBBER])
        assert tyres[:, 2].min() == pytest.approx(low[2], abs=1e-9)
        front = np.mean([mesh.vertices[:, 1].mean() for mesh, paint in parts if paint is HEADLIGHT])
        rear = np.mean([mesh.vertices[:, 1].mean() for mesh, paint in parts if paint is TAILLIGHT])
        assert front < -1.5 and rear > 1.5


def test_a_bicycle_is_narrow_and_stands_on_two_wheels() -> None:
    corners = np.concatenate([mesh.vertices for mesh, _ in bicycle(np.random.default_rng(0))])
    assert corners[:, 2].min() == pytest.approx(0, abs=0.03)
    assert np.ptp(corners[:, 0]) < 0.7 and 1.5 < np.ptp(corners[:, 1]) < 2.0


@pytest.mark.parametrize("end", [(0, 0, 2), (0, 0, -1), (1, 0, 0), (0.3, -0.4, 0.5), (0, 1e-3, 1)])
def test_a_limb_lies_around_its_axis(end: tuple[float, float, float]) -> None:
    start, end_ = np.array([0.2, -0.1, 0.5]), np.array([0.2, -0.1, 0.5]) + end
    mesh = limb(start, end_, 0.1, 0.05)
    along = (end_ - start) / np.linalg.norm(end_ - start)
    offset = mesh.vertices - start
    t = offset @ along
    away = np.linalg.norm(offset - t[:, None] * along, axis=1)
    assert t.min() == pytest.approx(-0.04) and t.max() == pytest.approx(np.linalg.norm(end) + 0.02)
    np.testing.assert_allclose(away[np.isclose(t, 0)], 0.1)
    np.testing.assert_allclose(away[np.isclose(t, np.linalg.norm(end))], 0.05)


def test_a_blob_is_an_ellipsoid_on_its_place() -> None:
    mesh = blob((2.0, 4.0, 6.0), (1.0, 1.0, 1.0), segments=12, rows=7)
    unit = (mesh.vertices - [1, 1, 4]) / [1, 2, 3]
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    fuller = blob((2.0, 4.0, 6.0), (1.0, 1.0, 1.0), segments=12, rows=7, power=0.6)
    assert np.linalg.norm((fuller.vertices - [1, 1, 4]) / [1, 2, 3], axis=1).max() > 1.2
    np.testing.assert_allclose(
        [fuller.vertices.min(axis=0), fuller.vertices.max(axis=0)],
        [mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)],
    )
