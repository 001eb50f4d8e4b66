from pathlib import Path

import h5py
import numpy as np
import pytest

from isthmus.data.clouds import POINTDA_CLASSES, Sample, Unreadable
from isthmus.data.readers.pointda import PointDA
from isthmus.data.store import prepare
from isthmus.errors import DataError

RIGHT = np.array([1.0, 0, 0])
TOP = np.array([0.0, 1, 0])
FRONT = np.array([0.0, 0, 1])


def write_npy(root: Path, name: str, points: np.ndarray) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, points)
    return path


def write_h5(path: Path, data: np.ndarray, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["data"] = data
        file["label"] = labels


def tree(root: Path, domain: str, training: int = 12) -> Path:
    """A domain of mesh clouds: ``training`` chairs and one of every other class, all with three known points."""
    points = np.stack([RIGHT, TOP, FRONT])
    for index in range(training):
        write_npy(root, f"{domain}/chair/train/chair_{index:04}.npy", points + index)
    for name in POINTDA_CLASSES:
        write_npy(root, f"{domain}/{name}/test/{name}_0900.npy", points)
    write_npy(root, f"{domain}/plant/train/plant_0001.npy", points)
    return root


def read(reader: PointDA) -> dict[str, Sample]:
    samples = list(reader.samples())
    assert all(isinstance(sample, Sample) for sample in samples)
    return {sample.name: sample for sample in samples if isinstance(sample, Sample)}


@pytest.mark.parametrize(
    ("domain", "name", "expected"),
    [
        # Row by row where the points to the right (x), at the top (y) and in front (z) of a y-up cloud must go.
        ("modelnet", "chair", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ("modelnet", "plant", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ("shapenet", "chair", [[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
        ("shapenet", "plant", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    ],
)
def test_y_up_domains_are_turned_but_shapenets_plants_are_not(
    domain: str, name: str, expected: list[list[float]], tmp_path: Path
) -> None:
    samples = read(PointDA(tree(tmp_path, domain), domain))  # type: ignore[arg-type]
    np.testing.assert_array_equal(samples[f"{name}/test/{name}_0900.npy"].points, expected)


def test_scannet_is_turned_and_read_in_the_order_of_its_list(tmp_path: Path) -> None:
    folder = tmp_path / "scannet"
    rows = np.zeros((13, 3, 6))
    rows[:, :, :3] = [RIGHT, TOP, FRONT]
    rows[:, :, 3:] = 0.5
    rows[:, 0, 0] = np.arange(13)
    write_h5(folder / "train_0.h5", rows[:7], np.arange(7, dtype=np.int32))
    write_h5(folder / "train_1.h5", rows[7:], np.full(6, 9, np.int32))
    write_h5(folder / "test_0.h5", rows[:2], np.array([[7], [8]]))
    (folder / "train_files.txt").write_text("./data/scannet/train_1.h5\n./data/scannet/train_0.h5\n")
    (folder / "test_files.txt").write_text("test_0.h5")
    samples = list(read(PointDA(tmp_path, "scannet")).values())
    assert [sample.name for sample in samples[:7]] == [*(f"train_1.h5/{row}" for row in range(6)), "train_0.h5/0"]
    assert [sample.label for sample in samples] == [9] * 6 + list(range(7)) + [7, 8]
    # Positions 8 and 9 of the concatenated order validate: rows 2 and 3 of the second file.
    assert [s.name for s in samples if s.part == "val"] == ["train_0.h5/2", "train_0.h5/3"]
    assert [s.name for s in samples if s.part == "test"] == ["test_0.h5/0", "test_0.h5/1"]
    np.testing.assert_array_equal(samples[1].points, [[8, 0, 0], [0, 0, 1], [0, -1, 0]])


def test_two_in_ten_of_the_sorted_training_files_validate(tmp_path: Path) -> None:
    root = tree(tmp_path, "modelnet", training=12)
    # Strings sort "chair_0010" after "chair_0009" but "bed_10" before "bed_9", and "bed" before "chair".
    for index in (9, 10):
        write_npy(root, f"modelnet/bed/train/bed_{index}.npy", np.eye(3))
    training = [s for s in read(PointDA(root, "modelnet")).values() if s.part != "test"]
    assert [s.name for s in training][:3] == [
        "bed/train/bed_10.npy",
        "bed/train/bed_9.npy",
        "chair/train/chair_0000.npy",
    ]
    assert [index for index, s in enumerate(training) if s.part == "val"] == [8, 9]
    assert training[8].name == "chair/train/chair_0006.npy"
    assert training[-1].name == "plant/train/plant_0001.npy"


def test_labels_are_the_grandparents_folder(tmp_path: Path) -> None:
    for sample in read(PointDA(tree(tmp_path, "shapenet"), "shapenet")).values():
        assert POINTDA_CLASSES[sample.label] == sample.name.split("/")[0]


def test_an_unreadable_file_is_listed_and_keeps_its_place_in_the_split(tmp_path: Path) -> None:
    root = tree(tmp_path, "modelnet")
    whole = {sample.name: sample.part for sample in read(PointDA(root, "modelnet")).values()}
    broken = root / "modelnet/chair/train/chair_0003.npy"
    broken.write_bytes(broken.read_bytes()[:-5])
    entries = list(PointDA(root, "modelnet").samples())
    bad = [entry for entry in entries if isinstance(entry, Unreadable)]
    assert [entry.name for entry in bad] == ["chair/train/chair_0003.npy"]
    assert str(broken) in bad[0].reason
    assert all(whole[e.name] == e.part for e in entries if isinstance(e, Sample))


@pytest.mark.parametrize("count", [20, 1024, 2048, 5000])
def test_any_number_of_points_is_accepted(count: int, tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(count, 6))
    for part in ("train", "test"):
        write_npy(tmp_path, f"shapenet/lamp/{part}/{part}.npy", points)
    prepared = prepare(PointDA(tmp_path, "shapenet"), tmp_path / "cache", 64)
    assert prepared.points.shape == (2, 64, 3)
    assert prepared.skipped == ()


def test_an_unknown_class_folder_names_the_nearest(tmp_path: Path) -> None:
    root = tree(tmp_path, "modelnet")
    write_npy(root, "modelnet/bath_tub/train/a.npy", np.eye(3))
    with pytest.raises(DataError, match=r"bath_tub: expected .* did you mean 'bathtub'"):
        list(PointDA(root, "modelnet").samples())


def test_missing_folders_files_and_lists_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="domain: expected one of modelnet, shapenet, scannet, found 'kitti'"):
        PointDA(tmp_path, "kitti")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="root must name the folder PointDA_data"):
        list(PointDA(tmp_path, "modelnet").samples())
    (tmp_path / "modelnet" / "bed").mkdir(parents=True)
    with pytest.raises(DataError, match=r"<class>/train/\*\.npy, found none"):
        list(PointDA(tmp_path, "modelnet").samples())
    (tmp_path / "scannet").mkdir()
    with pytest.raises(DataError, match=r"train_files\.txt: expected a list"):
        list(PointDA(tmp_path, "scannet").samples())


def test_a_broken_h5_is_an_error_because_it_holds_thousands(tmp_path: Path) -> None:
    path = tmp_path / "scannet" / "train_0.h5"
    write_h5(path, np.zeros((5, 20, 6)), np.zeros(5, np.int32))
    path.write_bytes(path.read_bytes()[:-200])
    for part in ("train", "test"):
        (path.parent / f"{part}_files.txt").write_text("train_0.h5")
    with pytest.raises(DataError, match=r"train_0\.h5: expected a whole HDF5 file"):
        list(PointDA(tmp_path, "scannet").samples())


def test_the_fingerprint_changes_when_a_file_does(tmp_path: Path) -> None:
    root = tree(tmp_path, "modelnet")
    before = PointDA(root, "modelnet").fingerprint()
    assert PointDA(root, "modelnet").fingerprint() == before
    write_npy(root, "modelnet/chair/train/chair_0000.npy", np.ones((9, 3)))
    assert PointDA(root, "modelnet").fingerprint() != before
