from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from isthmus.data.clouds import Sample, Unreadable
from isthmus.data.readers.folder import Folder
from isthmus.errors import DataError

POINTS = np.arange(60.0).reshape(20, 3)


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, POINTS)
        else:
            path.write_text("\n".join("1 2 3 # row" for _ in range(20)))
    return root


def read(reader: Folder) -> dict[str, Sample]:
    return {entry.name: entry for entry in reader.samples() if isinstance(entry, Sample)}


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_split_folders_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    put(tmp_path, "cup/train/a.npy", f"cup/{name}/b.xyz", "cup/test/c.npy", "mug/train/d.npy")
    reader = Folder(tmp_path)
    samples = read(reader)
    assert reader.classes == ("cup", "mug")
    assert {n: (s.label, s.part) for n, s in samples.items()} == {
        "cup/train/a.npy": (0, "train"),
        f"cup/{name}/b.xyz": (0, "val"),
        "cup/test/c.npy": (0, "test"),
        "mug/train/d.npy": (1, "train"),
    }


def test_without_a_validation_folder_two_in_ten_of_training_validate(tmp_path: Path) -> None:
    put(tmp_path, *(f"cup/train/{index:02}.npy" for index in range(12)), "cup/test/00.npy")
    parts = Counter((name, sample.part) for name, sample in read(Folder(tmp_path)).items())
    assert [name for name, part in parts if part == "val"] == ["cup/train/08.npy", "cup/train/09.npy"]


def test_an_unreadable_training_file_keeps_its_place_in_the_split(tmp_path: Path) -> None:
    put(tmp_path, *(f"cup/train/{index:02}.npy" for index in range(12)), "cup/test/00.npy")
    (tmp_path / "cup/train/03.npy").write_bytes(b"broken")
    validation = [name for name, sample in read(Folder(tmp_path)).items() if sample.part == "val"]
    assert validation == ["cup/train/08.npy", "cup/train/09.npy"]


def test_without_split_folders_a_clouds_own_name_decides(tmp_path: Path) -> None:
    put(tmp_path, *(f"cup/{index}.xyz" for index in range(400)))
    before = {name: sample.part for name, sample in read(Folder(tmp_path)).items()}
    shares = Counter(before.values())
    # 64, 16 and 20 % of 400, give or take three standard deviations of a fair draw.
    assert abs(shares["train"] - 256) < 29 and abs(shares["val"] - 64) < 22 and abs(shares["test"] - 80) < 24
    put(tmp_path, "cup/0000.xyz", "mug/1.xyz")
    after = {name: sample.part for name, sample in read(Folder(tmp_path)).items()}
    assert {name: after[name] for name in before} == before


def test_other_files_are_passed_over_and_every_readable_kind_is_read(tmp_path: Path) -> None:
    put(tmp_path, "cup/a.npy", "cup/b.xyz", "cup/c.TXT", "cup/d.mtl", "cup/.hidden.xyz", ".git/x.npy", "notes.txt")
    with h5py.File(tmp_path / "cup" / "e.h5", "w") as file:
        file["data"] = np.stack([POINTS, POINTS + 1])
    assert list(read(Folder(tmp_path))) == ["cup/a.npy", "cup/b.xyz", "cup/c.TXT", "cup/e.h5[0]", "cup/e.h5[1]"]


def test_up_and_points_reach_the_files(tmp_path: Path) -> None:
    put(tmp_path, "cup/a.xyz")
    (tmp_path / "cup" / "b.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    samples = read(Folder(tmp_path, up="y", points=30))
    assert samples["cup/a.xyz"].points[0].tolist() == [1, -3, 2]
    assert samples["cup/b.off"].points.shape == (30, 3)
    assert samples["cup/b.off"].points[:, 2].max() > 0


def test_given_classes_fix_the_labels_and_an_unknown_folder_names_the_nearest(tmp_path: Path) -> None:
    put(tmp_path, "cup/a.npy", "sofa/b.npy")
    reader = Folder(tmp_path, classes=("sofa", "plant", "cup"))
    assert {name: sample.label for name, sample in read(reader).items()} == {"cup/a.npy": 2, "sofa/b.npy": 0}
    with pytest.raises(DataError, match=r"sofa: expected a folder of one of .* did you mean 'sofas'"):
        Folder(tmp_path, classes=("cup", "sofas"))


def test_a_broken_file_among_good_ones_is_listed(tmp_path: Path) -> None:
    put(tmp_path, "cup/a.npy", "cup/c.npy")
    (tmp_path / "cup" / "b.xyz").write_text("one two three")
    entries = list(Folder(tmp_path).samples())
    assert [entry.name for entry in entries] == ["cup/a.npy", "cup/b.xyz", "cup/c.npy"]
    assert isinstance(entries[1], Unreadable)
    assert "b.xyz: expected" in entries[1].reason


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cup/trian/a.npy",), "found 'trian'; did you mean 'train'"),
        (("cup/train/a.npy", "cup/b.npy"), r"b\.npy: expected a split folder around it"),
        (("cup/train/a.npy", "mug/b.npy"), r"b\.npy: expected a split folder around it"),
        (("cup/a.mtl",), "found none"),
    ],
)
def test_a_layout_that_cannot_be_meant_is_an_error(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(Folder(put(tmp_path, *names)).samples())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/cup/a.npy",), "found the split 'train' where classes belong"),
        (("a.npy",), "one folder per class, found no folder"),
    ],
)
def test_a_root_without_classes_is_an_error(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        Folder(put(tmp_path, *names))
    with pytest.raises(DataError, match="one folder per class, found none"):
        Folder(tmp_path / "none")


def test_every_setting_and_file_is_in_the_fingerprint(tmp_path: Path) -> None:
    put(tmp_path, "cup/a.npy", "mug/b.npy")
    prints = [
        Folder(tmp_path).fingerprint(),
        Folder(tmp_path, classes=("mug", "cup")).fingerprint(),
        Folder(tmp_path, points=64).fingerprint(),
        Folder(tmp_path, seed=1).fingerprint(),
        Folder(tmp_path, up="y").fingerprint(),
        Folder(put(tmp_path, "mug/c.npy")).fingerprint(),
    ]
    assert all(a != b for index, a in enumerate(prints) for b in prints[:index])
