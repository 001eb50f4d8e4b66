import json

import numpy as np
import pytest

from isthmus.data.clouds import PARTS, POINTDA_CLASSES, Sample
from isthmus.data.simulators import depth_sensor
from isthmus.data.simulators.objects import DOMAINS, POINTDA_COUNTS, Domain, SimulatedObjects
from isthmus.errors import DataError


@pytest.fixture(scope="module", params=DOMAINS)
def made(request: pytest.FixtureRequest) -> tuple[SimulatedObjects, list[Sample]]:
    reader = SimulatedObjects(request.param, train=60, val=4, test=24, points=512)
    return reader, list(reader.samples())


def test_samples_are_finite_clouds_of_the_right_type_and_size(made: tuple[SimulatedObjects, list[Sample]]) -> None:
    reader, samples = made
    assert len(samples) == 88
    for sample in samples:
        assert sample.points.dtype == np.float32
        assert sample.points.ndim == 2 and sample.points.shape[1] == 3
        assert np.isfinite(sample.points).all()
        assert np.ptp(sample.points, axis=0).max() > 0.1
        if reader.domain == "scan":
            assert 64 <= len(sample.points) <= 512
        else:
            assert len(sample.points) == 512


def test_names_are_unique_and_say_domain_part_index_and_class(made: tuple[SimulatedObjects, list[Sample]]) -> None:
    reader, samples = made
    assert len({sample.name for sample in samples}) == len(samples)
    assert [sample.part for sample in samples] == ["train"] * 60 + ["val"] * 4 + ["test"] * 24
    last = samples[-1]
    assert last.name == f"{reader.domain}/test/00023-{POINTDA_CLASSES[last.label]}"


def test_every_class_occurs_in_less_than_a_hundred_samples(made: tuple[SimulatedObjects, list[Sample]]) -> None:
    reader, samples = made
    assert reader.classes == POINTDA_CLASSES
    assert {sample.label for sample in samples} == set(range(10))


def test_no_cloud_occurs_twice(made: tuple[SimulatedObjects, list[Sample]]) -> None:
    _, samples = made
    centred = [np.sort(np.linalg.norm(s.points - s.points.mean(axis=0), axis=1))[[5, 30, 60]] for s in samples]
    assert len({tuple(np.round(c, 6)) for c in centred}) == len(samples)


def test_a_sample_is_the_same_bit_for_bit_however_many_others_are_made(
    made: tuple[SimulatedObjects, list[Sample]],
) -> None:
    reader, samples = made
    fewer = list(SimulatedObjects(reader.domain, train=2, val=0, test=5, points=512).samples())
    for alone, among in zip(fewer, samples[:2] + samples[64:69]):
        assert alone.name == among.name
        assert alone.points.tobytes() == among.points.tobytes()
    single = reader.sample("test", 23)
    assert single.points.tobytes() == samples[-1].points.tobytes()


@pytest.mark.parametrize("domain", DOMAINS)
def test_another_seed_part_or_domain_gives_another_cloud(domain: Domain) -> None:
    reader = SimulatedObjects(domain, 1, 1, 1, points=128)
    clouds = [reader.sample(part, 0).points for part in PARTS]
    clouds.append(SimulatedObjects(domain, 1, 1, 1, seed=1, points=128).sample("train", 0).points)
    clouds += [SimulatedObjects(d, 1, 1, 1, points=128).sample("train", 0).points for d in DOMAINS if d != domain]
    assert all(not np.array_equal(a, b) for i, a in enumerate(clouds) for b in clouds[:i])


@pytest.mark.parametrize("domain", DOMAINS)
def test_classes_follow_the_square_root_of_pointda_frequencies(domain: Domain) -> None:
    reader = SimulatedObjects(domain, 1, 0, 0, points=64)
    labels = [reader.label("train", index) for index in range(400)]
    expected = np.sqrt(POINTDA_COUNTS[domain])
    found = np.bincount(labels, minlength=10) / 400
    assert np.abs(found - expected / expected.sum()).max() < 0.01


def test_objects_stand_upright(made: tuple[SimulatedObjects, list[Sample]]) -> None:
    _, samples = made
    shelves = [s.points for s in samples if POINTDA_CLASSES[s.label] == "bookshelf"]
    depth = [np.sqrt(np.linalg.eigvalsh(np.cov(p[:, :2].T))[0]) for p in shelves]
    assert np.median([p[:, 2].std() / d for p, d in zip(shelves, depth)]) > 1.5, "bookshelves lie on the floor"


def test_scans_see_one_side_where_models_show_all() -> None:
    def off_centre(domain: Domain) -> float:
        reader = SimulatedObjects(domain, 1, 0, 0, points=256)
        cabinets = [i for i in range(120) if POINTDA_CLASSES[reader.label("train", i)] == "cabinet"]
        found = []
        for points in (reader.sample("train", i).points for i in cabinets):
            upper = points[points[:, 2] > np.median(points[:, 2])]
            middle = (points.min(axis=0) + points.max(axis=0))[:2] / 2
            found.append(np.linalg.norm(upper[:, :2].mean(axis=0) - middle) / np.ptp(points, axis=0).max())
        assert len(found) > 5
        return float(np.mean(found))

    assert off_centre("scan") > 2 * off_centre("web")


def test_scans_also_work_without_embree(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = SimulatedObjects("scan", 1, 0, 0, points=64)
    fast = reader.sample("train", 3)
    monkeypatch.setattr(depth_sensor, "EmbreeScene", None)
    slow = reader.sample("train", 3)
    assert slow.label == fast.label
    assert abs(len(slow.points) - len(fast.points)) <= 2
    assert np.abs(slow.points.mean(axis=0) - fast.points.mean(axis=0)).max() < 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [("domain", "lidar"), ("train", -1), ("val", 1.5), ("test", True), ("seed", -1), ("points", 10)],
)
def test_senseless_arguments_are_refused_by_name(field: str, value: object) -> None:
    good: dict[str, object] = {"domain": "cad", "train": 1, "val": 1, "test": 1}
    with pytest.raises(DataError, match=rf"SimulatedObjects\.{field}: expected .*found"):
        SimulatedObjects(**{**good, field: value})  # type: ignore[arg-type]


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        SimulatedObjects("cad", 0, 0, 0)


def test_the_fingerprint_is_json_and_changes_with_every_field() -> None:
    base = SimulatedObjects("cad", 1, 2, 3).fingerprint()
    assert json.loads(json.dumps(base)) == base
    others = [
        SimulatedObjects("web", 1, 2, 3),
        SimulatedObjects("cad", 2, 2, 3),
        SimulatedObjects("cad", 1, 3, 3),
        SimulatedObjects("cad", 1, 2, 4),
        SimulatedObjects("cad", 1, 2, 3, seed=1),
        SimulatedObjects("cad", 1, 2, 3, points=1024),
    ]
    assert all(other.fingerprint() != base for other in others)
