import numpy as np
import pytest
from scipy.stats import kstest

from isthmus.data.simulators.rounded import PieceList, Surface, lowest, outside, union_points


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def two_balls(gap: float) -> PieceList:
    """Two balls of radius 1, that far apart."""
    solid = PieceList()
    solid.add(3, [0, 0, -1e-6], [0, 0, 1e-6], (1.0, 1.0))
    solid.add(7, [gap, 0, -1e-6], [gap, 0, 1e-6], (1.0, 1.0))
    return solid


def slow_outside(start, end, radii, stretch, lateral, point):
    """One point, one piece, by a fine search along the segment in the stretched space."""
    along = (end - start) / np.linalg.norm(end - start)
    axes = np.stack([lateral / stretch[0], np.cross(along, lateral) / stretch[1], along])
    own = axes @ (point - start)
    height = min(max(own[2], 0), np.linalg.norm(end - start))
    share = height / np.linalg.norm(end - start)
    return np.linalg.norm(own - [0, 0, height]) - (radii[0] * (1 - share) + radii[1] * share)


def test_distance_equals_a_plain_loop() -> None:
    rng = generator()
    solid = PieceList()
    for _ in range(4):
        solid.add(0, rng.normal(size=3), rng.normal(size=3), (0.2, 0.5), rng.normal(size=3), (1.5, 0.6))
    pieces, points = solid.pieces(), rng.normal(size=(20, 3))
    found = outside(pieces, points)
    for i in range(20):
        for j in range(4):
            rows = (values[j] for values in (pieces.start, pieces.end, pieces.radii, pieces.stretch, pieces.lateral))
            assert found[i, j] == pytest.approx(slow_outside(*rows, points[i]), abs=1e-9)


@pytest.mark.parametrize("gap", [0.5, 1.2, 3.0])
def test_points_lie_on_the_union_and_nowhere_inside(gap: float) -> None:
    pieces = two_balls(gap).pieces()
    surface = union_points(pieces, 2000, generator())
    centres = np.array([[0, 0, 0], [gap, 0, 0]])
    distance = np.linalg.norm(surface.points[:, None] - centres, axis=2)
    assert distance.min(axis=1) == pytest.approx(np.ones(2000), abs=1e-5)
    np.testing.assert_array_equal(surface.part, np.where(distance.argmin(axis=1) == 0, 3, 7))
    own = centres[distance.argmin(axis=1)]
    np.testing.assert_allclose(surface.normals, surface.points - own, atol=1e-5)


def test_points_are_spread_by_area() -> None:
    solid = PieceList()
    solid.add(0, [0, 0, -1e-6], [0, 0, 1e-6], (1.0, 1.0))
    solid.add(1, [5, 0, 0], [5, 0, 6], (0.5, 0.5))
    surface = union_points(solid.pieces(), 20000, generator())
    ball, capsule = 4 * np.pi, 2 * np.pi * 0.5 * 6 + 4 * np.pi * 0.25
    assert (surface.part == 0).mean() == pytest.approx(ball / (ball + capsule), abs=0.02)
    # Archimedes: heights on a ball are uniform.
    assert kstest(surface.points[surface.part == 0, 2], "uniform", (-1, 2)).statistic < 0.03


def test_of_two_coinciding_surfaces_the_earlier_piece_keeps_the_points() -> None:
    surface = union_points(two_balls(0.0).pieces(), 500, generator())
    assert set(surface.part.tolist()) == {3}


def test_a_taper_and_a_stretch_show_in_the_points() -> None:
    solid = PieceList()
    solid.add(0, [0, 0, 0], [0, 0, 4], (0.2, 0.6), (1, 0, 0), (2.0, 1.0))
    points = union_points(solid.pieces(), 4000, generator()).points
    assert points[:, 2].min() == pytest.approx(-0.2, abs=0.03) and points[:, 2].max() == pytest.approx(4.6, abs=0.03)
    middle = points[np.abs(points[:, 2] - 2) < 0.1]
    assert np.abs(middle[:, 0]).max() == pytest.approx(0.8, abs=0.03)
    assert np.abs(middle[:, 1]).max() == pytest.approx(0.4, abs=0.02)
    assert lowest(solid.pieces()) == pytest.approx(-0.2, abs=1e-6)


def test_chance_thins_where_it_says() -> None:
    def upper(surface: Surface) -> np.ndarray:
        return (surface.normals[:, 2] > 0).astype(float)

    assert union_points(two_balls(3.0).pieces(), 300, generator(), upper).points[:, 2].min() >= 0
    with pytest.raises(ValueError, match="300 points can be found, found 0"):
        union_points(two_balls(3.0).pieces(), 300, generator(), lambda surface: np.zeros(len(surface.part)))
