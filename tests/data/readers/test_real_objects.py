import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.data.clouds import POINTDA_CLASSES
from isthmus.data.readers.real_objects import RealObjects
from isthmus.data.store import CloudStore, prepare
from isthmus.errors import DataError

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="real objects: set ISTHMUS_DATA to the data directory")


def write(root: Path, file: str, **arrays: Any) -> Path:
    (root / "objects").mkdir(exist_ok=True)
    np.savez(root / "objects" / file, **arrays)
    return root


def some_points(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 20, 3)).astype(np.float16)


def modelnet10(root: Path) -> Path:
    """Sixteen models: 0 is a test model, 1 has a doubtful pose, 2 is of no class, the rest trains."""
    return write(
        root,
        "modelnet10_1024.npz",
        points=some_points(16),
        pointda_label=np.array([4, 4, -1, *range(10), 0, 1, 2], np.int8),
        name=np.array([f"m{index}" for index in range(16)]),
        split=np.array(["test"] + ["train"] * 15),
        align_ok=np.arange(16) != 1,
    )


def test_doubtful_poses_and_foreign_classes_are_left_out_and_the_official_test_part_kept(tmp_path: Path) -> None:
    samples = list(RealObjects("modelnet10", modelnet10(tmp_path)).samples())
    assert [s.name for s in samples] == ["m0", *(f"m{index}" for index in range(3, 16))]
    assert [s.label for s in samples] == [4, *range(10), 0, 1, 2]
    assert [s.name for s in samples if s.part == "test"] == ["m0"]
    # Positions 8 and 9 among the thirteen training models that are used.
    assert [s.name for s in samples if s.part == "val"] == ["m11", "m12"]
    assert samples[0].points.dtype == np.float32
    np.testing.assert_array_equal(samples[0].points, some_points(16)[0].astype(np.float32))


def test_rooms_are_never_torn_apart(tmp_path: Path) -> None:
    rooms = ["r0"] * 5 + ["r1"] * 25 + ["r2"] * 20 + ["r3"] * 20 + ["r4"] * 30
    root = write(
        tmp_path,
        "realscan_1024.npz",
        points=some_points(100),
        pointda_label=np.zeros(100, np.int8),
        scan=np.array([f"{room}_00" for room in rooms]),
        instance=np.arange(100),
        room=np.array(rooms),
    )
    samples = list(RealObjects("realscan", root).samples())
    parts = {(s.group, s.part) for s in samples}
    # By hand: r4 and r1 to train (60, then 30 lacking), r2 and r3 to val and test, r0 to train.
    assert parts == {("r0", "train"), ("r1", "train"), ("r2", "val"), ("r3", "test"), ("r4", "train")}
    assert samples[30].name == "r2_00/30"


def test_the_environment_variable_names_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_DATA", str(modelnet10(tmp_path)))
    assert RealObjects("modelnet10").path == tmp_path / "objects" / "modelnet10_1024.npz"
    with pytest.raises(DataError, match=r"webcad_2048\.npz: expected the set 'webcad', found no file"):
        list(RealObjects("webcad").samples())
    monkeypatch.delenv("ISTHMUS_DATA")
    with pytest.raises(DataError, match="expected the environment variable ISTHMUS_DATA"):
        RealObjects("webcad").fingerprint()
    with pytest.raises(DataError, match="name: expected one of modelnet10, webcad, realscan, found 'cad'"):
        RealObjects("cad")  # type: ignore[arg-type]


def test_a_file_that_is_not_the_set_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "objects" / "webcad_2048.npz"
    write(tmp_path, path.name, points=some_points(2))
    with pytest.raises(DataError, match=r"webcad_2048\.npz: expected the arrays points, .*pointda_label"):
        list(RealObjects("webcad", tmp_path).samples())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"webcad_2048\.npz: expected the arrays"):
        list(RealObjects("webcad", tmp_path).samples())
    write(tmp_path, path.name, points=np.array([{}], dtype=object), pointda_label=np.zeros(1, int))
    with pytest.raises(DataError, match="allow_pickle"):
        list(RealObjects("webcad", tmp_path).samples())


@needs_data
def test_the_real_sets_have_the_documented_numbers_of_objects() -> None:
    # Numbers of all objects and of those with a sure pose, from the data's own description.
    for name, all_objects, sure in (("modelnet10", 4899, 4734), ("webcad", 506, 490), ("realscan", 164, 164)):
        reader = RealObjects(name)  # type: ignore[arg-type]
        with np.load(reader.path, allow_pickle=False) as archive:
            labels = archive["pointda_label"]
            flags = [archive[flag] for flag in ("align_ok", "up_ok") if flag in archive.files]
        usable = np.logical_and.reduce(flags) if flags else np.ones(len(labels), bool)
        samples = list(reader.samples())
        assert (len(labels), usable.sum()) == (all_objects, sure)
        assert len(samples) == (usable & (labels >= 0)).sum()
        assert len({sample.name for sample in samples}) == len(samples)
        assert {sample.part for sample in samples} == {"train", "val", "test"}


@needs_data
@pytest.mark.parametrize(("name", "lacks"), [("webcad", {"bathtub"}), ("realscan", {"bathtub", "plant"})])
def test_real_sets_are_prepared_without_a_skip(name: Any, lacks: set[str], tmp_path: Path) -> None:
    prepared = prepare(RealObjects(name), tmp_path, 256)
    assert prepared.skipped == ()
    present = {prepared.classes[label] for label in prepared.labels}
    assert present == set(POINTDA_CLASSES) - lacks
    np.testing.assert_allclose(np.linalg.norm(prepared.points, axis=2).max(axis=1), 1, atol=1e-5)
    assert np.array_equal(CloudStore(prepared.path).points, prepared.points)


@needs_data
def test_real_scans_are_split_by_room_into_like_shares() -> None:
    samples = list(RealObjects("realscan").samples())
    assert len({(s.group, s.part) for s in samples}) == len({s.group for s in samples}) == 18
    shares = Counter(s.part for s in samples)
    assert abs(shares["train"] - 98) <= 5 and abs(shares["val"] - 33) <= 5 and abs(shares["test"] - 33) <= 5
