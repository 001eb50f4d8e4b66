from pathlib import Path

import numpy as np
import pytest

from isthmus.data.clouds import Sample, Unreadable
from isthmus.data.readers.pointsegda import DOMAINS, PUBLISHED, PointSegDA
from isthmus.data.store import prepare
from isthmus.errors import DataError


def rows(count: int = 2048, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=(count, 3)) * 40 + 7, rng.integers(1, 9, count)])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """PointSegDA's layout with two files in each part of each domain."""
    root = tmp_path / "PointSegDAdataset"
    seed = 0
    for domain in DOMAINS:
        for part in ("train", "val", "test"):
            folder = root / domain / part
            folder.mkdir(parents=True)
            for name in ("10", "2"):
                np.save(folder / f"{name}.npy", rows(seed=seed))
                seed += 1
    return root


def samples(root: Path, **options: object) -> list[Sample | Unreadable]:
    return list(PointSegDA(root, "mit", **options).samples())  # type: ignore[arg-type]


def test_every_file_is_a_sample_of_its_part_in_the_order_of_names(tree: Path) -> None:
    found = samples(tree)
    assert [sample.name for sample in found] == [f"{p}/{n}.npy" for p in ("train", "val", "test") for n in ("10", "2")]
    assert [sample.part for sample in found if isinstance(sample, Sample)] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    array = np.load(tree / "mit/val/2.npy")
    sample = found[3]
    assert isinstance(sample, Sample) and sample.label == -1 and sample.point_labels is not None
    np.testing.assert_array_equal(sample.points, array[:, :3].astype(np.float32))
    np.testing.assert_array_equal(sample.point_labels, array[:, 3] - 1)
    assert sample.points.dtype == np.float32 and sample.point_labels.dtype == np.uint8
    assert sample.point_labels.min() == 0 and sample.point_labels.max() == 7


def test_the_store_scales_what_the_published_loader_leaves(tree: Path, tmp_path: Path) -> None:
    store = prepare(PointSegDA(tree, "scape"), tmp_path / "cache", 2048)
    assert len(store) == 6 and np.linalg.norm(store.points, axis=2).max() == pytest.approx(1, abs=1e-6)
    array = np.load(tree / "scape/train/10.npy")
    np.testing.assert_array_equal(np.bincount(store.point_labels[0]), np.bincount(array[:, 3].astype(int) - 1))


def test_axes_and_names_of_parts_can_be_given(tree: Path) -> None:
    names = tuple("abcdefgh")
    reader = PointSegDA(tree, "mit", classes=names, up="y")
    turned, plain = next(iter(reader.samples())), samples(tree)[0]
    assert reader.classes == names and isinstance(turned, Sample) and isinstance(plain, Sample)
    x, y, z = plain.points.T
    np.testing.assert_array_equal(turned.points, np.stack([x, -z, y], axis=1))
    assert reader.fingerprint() != PointSegDA(tree, "mit").fingerprint()


def test_an_incomplete_download_is_told_and_read(tree: Path) -> None:
    lines = PointSegDA(tree, "adobe").differences()
    assert len(lines) == 3
    assert lines[0] == f"{tree / 'adobe' / 'train'}: expected the 29 files of the published data set, found 2"
    for part, count in zip(("train", "val", "test"), PUBLISHED["adobe"]):
        for number in range(100, 100 + count - 2):
            (tree / "adobe" / part / f"{number}.npy").touch()
    assert PointSegDA(tree, "adobe").differences() == []


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 3)), r"expected numbers of shape \(n, 4\), found float64 of shape \(5, 3\)"),
        (np.ones((5, 4)) * [1, 1, 1, 0], "column 3: expected labels 1 to 8, found 0.0"),
        (np.ones((5, 4)) * [1, 1, 1, 9], "column 3: expected labels 1 to 8, found 9.0"),
        (np.ones((5, 4)) * [1, 1, 1, 1.5], "found 1.5"),
        (np.ones((5, 4)) * [1, 1, 1, np.nan], "found nan"),
        (np.array([{"no": 1}] * 5, dtype=object), "expected an array of numbers"),
    ],
)
def test_a_bad_file_is_unreadable_and_the_others_are_not(tree: Path, array: np.ndarray, message: str) -> None:
    np.save(tree / "mit/train/10.npy", array, allow_pickle=True)
    bad, *others = samples(tree)
    assert isinstance(bad, Unreadable) and bad.name == "train/10.npy"
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(bad.reason)
    assert len(others) == 5 and all(isinstance(sample, Sample) for sample in others)


def test_a_truncated_file_is_unreadable(tree: Path) -> None:
    path = tree / "mit/test/2.npy"
    path.write_bytes(path.read_bytes()[:1000])
    assert isinstance(samples(tree)[-1], Unreadable)


def test_what_is_wrong_with_the_whole_is_an_error(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="domain: expected one of adobe, faust, mit, scape, found 'shrec'"):
        PointSegDA(tree, "shrec")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected the domain's folder, found none; root must name the folder"):
        list(PointSegDA(tmp_path / "nowhere", "mit").samples())
    with pytest.raises(DataError, match="classes: expected 8 different names, found a, b"):
        PointSegDA(tree, "mit", classes=("a", "b"))
    with pytest.raises(DataError, match="up: expected one of z, y, found 'x'"):
        PointSegDA(tree, "mit", up="x")  # type: ignore[arg-type]
    for path in (tree / "mit/val").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"expected files \*.npy, found none"):
        list(PointSegDA(tree, "mit").samples())


def test_the_fingerprint_changes_with_a_file(tree: Path) -> None:
    before = PointSegDA(tree, "mit").fingerprint()
    np.save(tree / "mit/train/3.npy", rows())
    assert PointSegDA(tree, "mit").fingerprint() != before
