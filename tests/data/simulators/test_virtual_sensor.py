from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from isthmus.data.clouds import Sample, Unreadable
from isthmus.data.simulators.virtual_sensor import VirtualSensor
from isthmus.errors import DataError


def directions(count: int, rng: np.random.Generator) -> np.ndarray:
    rays = rng.normal(size=(count, 3))
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


@dataclass(frozen=True)
class Balls:
    count: int = 12
    grouped: bool = False
    first: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        return ("ball", "egg")

    def fingerprint(self) -> dict[str, Any]:
        return {"balls": self.count}

    def samples(self) -> Iterator[Sample | Unreadable]:
        for i in range(self.first, self.count):
            points = directions(1024, np.random.default_rng(i)) * [1, 1, 1 + i % 2] + [5.0, -3.0, 2.0]
            group = f"room{i // 4}" if self.grouped else ""
            yield Sample(points.astype(np.float32), i % 2, f"ball{i:05d}", "train", group)


def seen(reader: VirtualSensor) -> list[Sample]:
    return [sample for sample in reader.samples() if isinstance(sample, Sample)]


def test_virtual_scans_are_partial_noisy_views_in_the_units_of_the_cloud() -> None:
    for sample, scan in zip(Balls().samples(), seen(VirtualSensor(Balls()))):
        assert isinstance(sample, Sample)
        assert (scan.name, scan.label, scan.part, scan.group) == (sample.name, sample.label, sample.part, "")
        assert scan.points.dtype == np.float32
        assert scan.points.shape[1] == 3
        assert np.isfinite(scan.points).all()
        assert 64 <= len(scan.points) < 1400
        assert np.abs(scan.points - [5.0, -3.0, 2.0]).max() < 3.0
        assert not set(map(tuple, scan.points)) & set(map(tuple, sample.points)), "every point carries noise"


def test_virtual_scans_see_about_one_half_of_a_ball() -> None:
    share = []
    for scan in seen(VirtualSensor(Balls())):
        if scan.label == 0:
            offset = scan.points - [5.0, -3.0, 2.0]
            own = offset[np.abs(np.linalg.norm(offset, axis=1) - 1) < 0.05]
            middle = own.mean(axis=0)
            share.append((own @ middle > 0).mean())
    assert np.mean(share) > 0.85, "points of a whole sphere would give one half"


def test_a_virtual_scan_depends_on_seed_name_and_points_only() -> None:
    whole = {scan.name: scan.points for scan in seen(VirtualSensor(Balls()))}
    late = seen(VirtualSensor(Balls(first=7)))
    assert len(late) == 5
    for scan in late:
        assert np.array_equal(whole[scan.name], scan.points)
    other = seen(VirtualSensor(Balls(), seed=1))
    assert all(not np.array_equal(whole[scan.name], scan.points) for scan in other)


def test_parts_are_dealt_anew_in_the_shares_asked_for_whatever_the_seed() -> None:
    reader = VirtualSensor(Balls(count=1), test_share=0.5)
    names = [Sample(np.zeros((1, 3), np.float32), 0, f"model_{i}", "train") for i in range(4000)]
    parts = np.array([reader._part(sample) for sample in names])
    assert (parts == "test").mean() == pytest.approx(0.5, abs=0.025)
    assert (parts == "train").mean() == pytest.approx(0.4, abs=0.025)
    assert (parts == "val").mean() == pytest.approx(0.1, abs=0.025)
    again = VirtualSensor(Balls(count=2), seed=5, test_share=0.5)
    assert [again._part(sample) for sample in names] == list(parts)


def test_a_group_is_never_torn_apart() -> None:
    parts: dict[str, set[str]] = {}
    for scan in seen(VirtualSensor(Balls(count=40, grouped=True), test_share=0.4)):
        parts.setdefault(scan.group, set()).add(scan.part)
    assert all(len(found) == 1 for found in parts.values())
    assert len(set.union(*parts.values())) > 1


@dataclass(frozen=True)
class Broken(Balls):
    def samples(self) -> Iterator[Sample | Unreadable]:
        yield Unreadable("gone", "no such file")
        yield Sample(np.full((100, 3), np.nan, np.float32), 0, "nan", "train")
        yield Sample(np.ones((100, 3), np.float32), 0, "one point", "train")
        yield Sample(np.ones((100, 2), np.float32), 0, "two columns", "train")
        flat = np.random.default_rng(0).random((300, 3)).astype(np.float32) * np.float32([1, 1, 0])
        yield Sample(flat, 0, "flat", "train")


def test_bad_clouds_pass_through_for_the_store_to_refuse_and_flat_ones_are_scanned() -> None:
    given, found = list(Broken().samples()), list(VirtualSensor(Broken()).samples())
    assert found[0] == given[0]
    for before, after in zip(given[1:4], found[1:4]):
        assert isinstance(before, Sample) and isinstance(after, Sample)
        assert np.array_equal(before.points, after.points, equal_nan=True)
    assert isinstance(found[4], Sample)
    assert np.isfinite(found[4].points).all()
    assert len(found[4].points) >= 16


@pytest.mark.parametrize(
    ("field", "value"), [("seed", -1), ("test_share", 0.0), ("test_share", 1.0), ("exponent", 0.0), ("exponent", 9.0)]
)
def test_the_virtual_sensor_refuses_senseless_arguments(field: str, value: float) -> None:
    with pytest.raises(DataError, match=rf"VirtualSensor\.{field}: expected .*found"):
        VirtualSensor(Balls(), **{field: value})


def test_the_fingerprint_tells_readers_seeds_and_shares_apart() -> None:
    prints = [
        VirtualSensor(Balls()).fingerprint(),
        VirtualSensor(Balls(), seed=1).fingerprint(),
        VirtualSensor(Balls(), test_share=0.5).fingerprint(),
        VirtualSensor(Balls(count=3)).fingerprint(),
        VirtualSensor(Balls(), exponent=2.0).fingerprint(),
    ]
    assert all(a != b for i, a in enumerate(prints) for b in prints[:i])
