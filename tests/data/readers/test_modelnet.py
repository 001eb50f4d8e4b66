from pathlib import Path

import numpy as np
import pytest
import trimesh

from isthmus.data.clouds import Sample, Unreadable
from isthmus.data.readers.modelnet import ModelNet
from isthmus.errors import DataError


def tree(root: Path) -> Path:
    box = trimesh.creation.box(extents=(2, 2, 2))
    for name, training, test in (("sofa", 3, 1), ("bed", 9, 2)):
        for part, count in (("train", training), ("test", test)):
            folder = root / name / part
            folder.mkdir(parents=True)
            for index in range(count):
                box.export(folder / f"{name}_{index:04}.off")
    (root / "README.txt").write_text("not a class")
    return root


def test_official_test_part_and_two_in_ten_of_training_for_validation(tmp_path: Path) -> None:
    reader = ModelNet(tree(tmp_path), points=64)
    samples = [sample for sample in reader.samples() if isinstance(sample, Sample)]
    assert reader.classes == ("bed", "sofa")
    assert [s.name for s in samples if s.part == "val"] == ["bed/train/bed_0008.off", "sofa/train/sofa_0000.off"]
    assert [s.name for s in samples if s.part == "test"] == [
        "bed/test/bed_0000.off",
        "bed/test/bed_0001.off",
        "sofa/test/sofa_0000.off",
    ]
    assert [s.label for s in samples] == [0] * 9 + [1] * 3 + [0, 0, 1]


def test_points_lie_on_the_mesh_and_are_the_same_at_every_reading(tmp_path: Path) -> None:
    tree(tmp_path)
    first, again, other = (
        [s.points for s in ModelNet(tmp_path, points=64, seed=seed).samples() if isinstance(s, Sample)]
        for seed in (0, 0, 1)
    )
    for points, same, different in zip(first, again, other):
        assert points.shape == (64, 3)
        np.testing.assert_allclose(np.abs(points).max(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(points, same)
        assert not np.array_equal(points, different)
    assert not np.array_equal(first[0], first[1])


def test_header_and_counts_on_one_line_and_a_broken_mesh(tmp_path: Path) -> None:
    tree(tmp_path)
    joined = tmp_path / "bed/train/bed_0000.off"
    joined.write_text(joined.read_text().replace("OFF\n", "OFF", 1))
    broken = tmp_path / "bed/train/bed_0001.off"
    broken.write_text("OFF\n8 12 0\n0 0")
    entries = list(ModelNet(tmp_path, points=64).samples())
    assert isinstance(entries[0], Sample) and entries[0].points.shape == (64, 3)
    assert isinstance(entries[1], Unreadable) and entries[1].name == "bed/train/bed_0001.off"
    assert next(e.name for e in entries if isinstance(e, Sample) and e.part == "val") == "bed/train/bed_0008.off"


def test_settings_and_files_are_in_the_fingerprint(tmp_path: Path) -> None:
    tree(tmp_path)
    prints = [
        ModelNet(tmp_path).fingerprint(),
        ModelNet(tmp_path, points=64).fingerprint(),
        ModelNet(tmp_path, seed=1).fingerprint(),
    ]
    (tmp_path / "bed/train/bed_0000.off").unlink()
    prints.append(ModelNet(tmp_path).fingerprint())
    assert all(a != b for index, a in enumerate(prints) for b in prints[:index])


def test_a_missing_or_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected the folder of ModelNet"):
        list(ModelNet(tmp_path / "none").samples())
    with pytest.raises(DataError, match="<class>/train and <class>/test"):
        list(ModelNet(tmp_path).samples())
    (tmp_path / "bed" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"<class>/train/\*\.off, found none"):
        list(ModelNet(tmp_path).samples())
