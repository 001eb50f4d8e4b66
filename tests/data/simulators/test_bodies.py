import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from isthmus.data.clouds import HUMAN_PARTS, Sample
from isthmus.data.simulators.bodies import DOMAINS, SimulatedBodies
from isthmus.data.simulators.body_shape import FOOT, HAND, HEAD, LOWER_LEG, TORSO, UPPER_LEG, Build, Pose, body
from isthmus.data.simulators.rounded import union_points
from isthmus.data.store import check, prepare
from isthmus.errors import DataError


def some(domain: str, count: int = 12, points: int = 512) -> list[Sample]:
    return list(SimulatedBodies(domain, train=count, val=0, test=0, points=points).samples())  # type: ignore[arg-type]


def centre(sample: Sample, part: int) -> np.ndarray:
    return sample.points[sample.point_labels == part].mean(axis=0)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_body_has_all_parts_and_stands_on_the_ground(domain: str) -> None:
    for sample in some(domain):
        assert sample.points.shape == (512, 3) and sample.points.dtype == np.float32
        assert sample.point_labels is not None and sample.point_labels.dtype == np.uint8 and sample.label == -1
        assert set(sample.point_labels.tolist()) == set(range(8)), sample.name
        assert abs(sample.points[:, 2].min()) < 0.05
        assert 0.4 < np.ptp(sample.points[:, 2]) < 1.5


@pytest.mark.parametrize("domain", ["standing", "stocky", "scan"])
def test_parts_are_where_a_body_has_them_and_it_faces_the_front(domain: str) -> None:
    for sample in some(domain):
        heights = [centre(sample, part)[2] for part in (HEAD, TORSO, UPPER_LEG, LOWER_LEG, FOOT)]
        assert heights == sorted(heights, reverse=True), sample.name
    toes = np.mean([centre(s, FOOT)[1] - centre(s, LOWER_LEG)[1] for s in some("standing")])
    assert toes < -0.02


def test_left_is_at_positive_x() -> None:
    raised = body(Build(), Pose(raise_=(90.0, 10.0)))
    surface = union_points(raised, 2000, np.random.default_rng(0))
    hands = surface.points[surface.part == HAND]
    assert hands[hands[:, 0] > 0][:, 2].mean() > hands[hands[:, 0] < 0][:, 2].mean() + 0.2


@pytest.mark.parametrize(
    ("pose", "part", "axis", "sign"),
    [
        (Pose(hips=(60.0, 60.0)), FOOT, 1, -1),
        (Pose(knees=(90.0, 90.0)), FOOT, 1, 1),
        (Pose(shoulders=(80.0, 80.0)), HAND, 1, -1),
        (Pose(elbows=(100.0, 100.0)), HAND, 1, -1),
        (Pose(lean=50.0), HEAD, 1, -1),
        (Pose(bend=30.0), HEAD, 0, 1),
        (Pose(raise_=(80.0, 80.0)), HAND, 2, 1),
    ],
)
def test_joints_bend_the_way_they_say(pose: Pose, part: int, axis: int, sign: int) -> None:
    surfaces = [union_points(body(Build(), p), 1500, np.random.default_rng(0)) for p in (Pose(), pose)]
    rest, moved = (surface.points[surface.part == part].mean(axis=0) for surface in surfaces)
    assert sign * (moved - rest)[axis] > 0.05


def test_a_sample_depends_on_seed_domain_part_and_index_only() -> None:
    few, many = SimulatedBodies("posed", train=2, val=1, test=0), SimulatedBodies("posed", train=5, val=3, test=2)
    for part, index in (("train", 1), ("val", 0)):
        one, other = few.sample(part, index), many.sample(part, index)
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.point_labels, other.point_labels)
    listed = list(few.samples())
    assert [sample.name for sample in listed] == ["posed/train/00000", "posed/train/00001", "posed/val/00000"]
    np.testing.assert_array_equal(listed[1].points, few.sample("train", 1).points)
    others = [
        few.sample("train", 0),
        few.sample("val", 0),
        SimulatedBodies("posed", 1, 0, 0, seed=1).sample("train", 0),
    ]
    for one, other in combinations([*others, few.sample("train", 1)], 2):
        assert not np.array_equal(one.points, other.points)


def test_domains_differ_as_they_say() -> None:
    bodies = {domain: some(domain) for domain in DOMAINS}
    share = {d: np.mean([(s.point_labels == HEAD).mean() for s in bodies[d]]) for d in DOMAINS}
    assert share["stocky"] > 1.5 * share["standing"]
    spread = {d: np.std([np.ptp(s.points[:, 2]) for s in bodies[d]]) for d in DOMAINS}
    assert spread["posed"] > 2 * spread["standing"]
    nearest = {}
    for domain in ("standing", "scan"):
        gaps = []
        for sample in bodies[domain]:
            distance = np.linalg.norm(sample.points[:, None] - sample.points, axis=2) + 9 * np.eye(512)
            gaps.append(distance.min(axis=1).std() / distance.min(axis=1).mean())
        nearest[domain] = np.mean(gaps)
    assert nearest["scan"] > nearest["standing"]


def test_a_body_takes_milliseconds() -> None:
    reader = SimulatedBodies("standing", train=1, val=0, test=0)
    reader.sample("train", 0)
    times = []
    for index in range(12):
        start = time.process_time()
        reader.sample("train", index)
        times.append(time.process_time() - start)
    assert min(times) < 0.02  # 0.01 and below on an idle core; shared cores double it


def test_the_store_keeps_the_labels(tmp_path: Path) -> None:
    reader = SimulatedBodies("standing", train=3, val=1, test=1, points=128)
    store = prepare(reader, tmp_path, 64)
    assert store.classes == HUMAN_PARTS and store.point_labels.shape == (5, 64)
    assert check(reader).counts["train"] == [3] * 8 and check(reader).unlabelled == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": "thin"}, "domain: expected one of standing, posed, stocky, scan, found 'thin'"),
        ({"train": -1}, "train: expected a whole number from 0, found -1"),
        ({"points": 10}, "points: expected a whole number from 64, found 10"),
        ({"train": 0}, "expected at least one sample"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        SimulatedBodies(**{"domain": "scan", "train": 1, "val": 0, "test": 0, **change})  # type: ignore[arg-type]
