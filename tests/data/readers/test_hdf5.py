from pathlib import Path

import h5py
import numpy as np
import pytest

from isthmus.data.readers.hdf5 import HDF5
from isthmus.data.store import prepare
from isthmus.errors import DataError


def write(path: Path, data: np.ndarray, labels: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = data
        file["label"] = labels


@pytest.fixture
def modelnet(tmp_path: Path) -> Path:
    """ModelNet40's layout: two training files, one test file, labels of shape (n, 1), names beside."""
    data = np.random.default_rng(0).normal(size=(12, 20, 3)).astype(np.float32)
    write(tmp_path / "ply_data_train0.h5", data[:7], np.arange(7, dtype=np.uint8)[:, None] % 2)
    write(tmp_path / "ply_data_train1.h5", data[7:], np.ones((5, 1), np.uint8))
    write(tmp_path / "ply_data_test0.h5", data[:3], np.zeros((3, 1), np.uint8))
    listed = (f"data/modelnet40_ply_hdf5_2048/ply_data_train{index}.h5\n" for index in (0, 1))
    (tmp_path / "train_files.txt").write_text("".join(listed))
    (tmp_path / "test_files.txt").write_text("data/modelnet40_ply_hdf5_2048/ply_data_test0.h5\n")
    (tmp_path / "shape_names.txt").write_text("airplane\nbathtub\n")
    return tmp_path


def test_modelnet40s_layout_is_read_from_its_lists_and_names(modelnet: Path) -> None:
    reader = HDF5(modelnet)
    samples = list(reader.samples())
    assert reader.classes == ("airplane", "bathtub")
    assert [s.label for s in samples] == [0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0]
    assert [s.name for s in samples if s.part == "val"] == ["ply_data_train1.h5/1", "ply_data_train1.h5/2"]
    assert [s.part for s in samples[12:]] == ["test"] * 3
    with h5py.File(modelnet / "ply_data_train1.h5") as file:
        np.testing.assert_array_equal(samples[7].points, file["data"][0])


def test_scanobjectnns_layout_is_read_from_named_files_and_turned(tmp_path: Path) -> None:
    write(tmp_path / "training_objectdataset.h5", np.full((2, 20, 3), [1.0, 2, 3]), np.array([1, 0]))
    write(tmp_path / "test_objectdataset.h5", np.full((1, 20, 3), [1.0, 2, 3]), np.array([1]))
    reader = HDF5(tmp_path, ("training_objectdataset.h5",), ("test_objectdataset.h5",), classes=("bag", "bin"), up="y")
    samples = list(reader.samples())
    assert [(s.label, s.part) for s in samples] == [(1, "train"), (0, "train"), (1, "test")]
    assert samples[0].points[0].tolist() == [1, -3, 2]


def test_a_cloud_with_nan_is_skipped_by_the_store_and_not_by_the_reader(modelnet: Path) -> None:
    with h5py.File(modelnet / "ply_data_train0.h5", "r+") as file:
        file["data"][2, 5] = np.nan
    prepared = prepare(HDF5(modelnet), modelnet / "cache", 16)
    assert [entry.name for entry in prepared.skipped] == ["ply_data_train0.h5/2"]
    assert len(prepared) == 14


def test_a_label_beyond_the_classes_is_an_error(modelnet: Path) -> None:
    with pytest.raises(DataError, match=r"ply_data_train0\.h5/1: label: expected -1 to 0, found 1"):
        prepare(HDF5(modelnet, classes=("airplane",)), modelnet / "cache", 16)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(4, int), r"label: expected whole numbers of shape \(5,\) or \(5, 1\), found int64 \(4,\)"),
        (np.zeros((5, 2), int), r"found int64 \(5, 2\)"),
        (np.zeros(5), "found float64"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(labels: np.ndarray, message: str, modelnet: Path) -> None:
    write(modelnet / "ply_data_train1.h5", np.zeros((5, 20, 3)), labels)
    with pytest.raises(DataError, match=message):
        list(HDF5(modelnet).samples())


def test_a_missing_label_file_or_list_of_names_is_an_error(modelnet: Path) -> None:
    with h5py.File(modelnet / "ply_data_train1.h5", "r+") as file:
        del file["label"]
    with pytest.raises(DataError, match="expected a dataset 'label', found data"):
        list(HDF5(modelnet).samples())
    with pytest.raises(DataError, match=r"none\.h5: expected an HDF5 file, found no file"):
        list(HDF5(modelnet, train=("none.h5",)).samples())
    (modelnet / "shape_names.txt").write_text("\n")
    with pytest.raises(DataError, match=r"shape_names\.txt: .*found an empty file"):
        HDF5(modelnet)
    (modelnet / "shape_names.txt").unlink()
    with pytest.raises(DataError, match=r"shape_names\.txt: .*found no file"):
        HDF5(modelnet)


def test_which_part_a_file_is_and_every_setting_are_in_the_fingerprint(modelnet: Path) -> None:
    files = ("ply_data_train0.h5",), ("ply_data_test0.h5",)
    prints = [
        HDF5(modelnet).fingerprint(),
        HDF5(modelnet, *files).fingerprint(),
        HDF5(modelnet, *reversed(files)).fingerprint(),
        HDF5(modelnet, up="y").fingerprint(),
        HDF5(modelnet, classes=("a", "b")).fingerprint(),
    ]
    assert all(a != b for index, a in enumerate(prints) for b in prints[:index])
