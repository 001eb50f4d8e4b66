import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isthmus.data.clouds import Unreadable
from isthmus.data.image_store import prepare_images
from isthmus.data.partial_labels import read_partial_labels
from isthmus.data.readers.class_names import CITYSCAPES7, CITYSCAPES19, NYU13
from isthmus.data.readers.mtan import MTAN, block_parts
from isthmus.errors import DataError

SIZE = (4, 6)


def arrays(dataset: str, seed: int, flat: bool = False, classes: int = 13) -> dict[str, np.ndarray]:
    """One image with its labels as the files have them."""
    g = np.random.default_rng(seed)
    last = () if flat else (1,)
    vectors = g.normal(size=(*SIZE, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[0] = 0
    label = g.integers(-1, classes, SIZE).astype(np.float32 if flat else np.int64)
    depth = (g.random((*SIZE, *last)) * (g.random((*SIZE, *last)) < 0.8)).astype(np.float32)
    found = {"image": g.random((*SIZE, 3)).astype(np.float32), "depth": depth}
    if dataset == "nyuv2":
        return found | {"label": label, "normal": vectors.astype(np.float32)}
    return found | {"label_7": g.integers(-1, 7, SIZE), "label_19": g.integers(-1, 19, (*SIZE, 1))}


def write(root: Path, dataset: str = "nyuv2", train: int = 5, val: int = 3, flat: bool = False) -> Path:
    for folder, count in (("train", train), ("val", val)):
        for number in range(count):
            for kind, array in arrays(dataset, number + 100 * (folder == "val"), flat).items():
                path = root / folder / kind / f"{number}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, array)
    return root


@pytest.mark.parametrize("flat", [False, True])
def test_nyuv2_follows_the_files(flat: bool, tmp_path: Path) -> None:
    reader = MTAN(write(tmp_path, flat=flat), "nyuv2")
    assert reader.tasks == {"segmentation": NYU13, "depth": (), "normals": ()}
    samples = list(reader.samples())
    assert [s.name for s in samples] == [f"train/{i}" for i in range(5)] + [f"val/{i}" for i in range(3)]
    assert [s.part for s in samples] == ["train"] * 5 + ["test"] * 3
    for sample, seed in zip(samples, (0, 1, 2, 3, 4, 100, 101, 102)):
        raw = arrays("nyuv2", seed, flat)
        assert np.abs(sample.image / 255 - raw["image"]).max() <= 1 / 510 + 1e-6
        label = sample.labels["segmentation"]
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(np.where(label == 255, -1, label.astype(int)), raw["label"])
        np.testing.assert_array_equal(sample.labels["depth"], raw["depth"].reshape(SIZE))
        np.testing.assert_allclose(sample.labels["normals"].astype(float), raw["normal"], atol=1e-3)
        assert not sample.labels["normals"][0].any()


@pytest.mark.parametrize(("label", "classes"), [("label_7", CITYSCAPES7), ("label_19", CITYSCAPES19)])
def test_cityscapes_has_inverse_depth_and_the_labels_asked_for(label: str, classes: Any, tmp_path: Path) -> None:
    reader = MTAN(write(tmp_path, "cityscapes"), "cityscapes", label=label)
    assert reader.tasks == {"segmentation": classes, "inverse_depth": ()}
    first = next(iter(reader.samples()))
    raw = arrays("cityscapes", 0)
    expected = raw[label].reshape(SIZE)
    np.testing.assert_array_equal(first.labels["segmentation"], np.where(expected < 0, 255, expected))
    np.testing.assert_array_equal(first.labels["inverse_depth"], raw["depth"][..., 0])
    assert set(first.labels) == set(reader.tasks)


def test_a_store_takes_every_sample(tmp_path: Path) -> None:
    store = prepare_images(MTAN(write(tmp_path / "data"), "nyuv2"), tmp_path / "cache", None)
    assert len(store) == 8 and store.skipped == () and store.present.all()
    assert store.indices("test").tolist() == [5, 6, 7]


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    samples = list(MTAN(write(tmp_path, train=11, val=1), "nyuv2").samples())
    assert [s.name for s in samples][8:] == ["train/8", "train/9", "train/10", "val/0"]
    np.testing.assert_array_equal(samples[10].labels["depth"], arrays("nyuv2", 10)["depth"][..., 0])


def test_validation_takes_whole_blocks_evenly_spread() -> None:
    parts = block_parts("train", 795, 0.1, 20)
    validating = [index for index, part in enumerate(parts) if part == "val"]
    # Blocks 9, 19, 29 and 39 of forty; the last one has fifteen files.
    assert validating == [*range(180, 200), *range(380, 400), *range(580, 600), *range(780, 795)]
    assert set(block_parts("val", 654, 0.1, 20)) == {"test"}
    assert "val" not in block_parts("train", 795, 0, 20)
    for share in (0.05, 0.1, 0.2, 0.29, 0.5, 0.9):
        found = np.array(block_parts("train", 2000, share, 10)) == "val"
        assert found.sum() == round(share * 2000)
        assert (found.reshape(-1, 10).all(1) == found.reshape(-1, 10).any(1)).all()


def test_parts_and_groups_keep_neighbours_together(tmp_path: Path) -> None:
    reader = MTAN(write(tmp_path, train=12, val=3), "nyuv2", validation_share=0.5, block=3)
    samples = [sample for sample in reader.samples() if not isinstance(sample, Unreadable)]
    assert [s.part for s in samples] == (["train"] * 3 + ["val"] * 3) * 2 + ["test"] * 3
    assert [s.group for s in samples[:7:3]] == ["train/block 0", "train/block 1", "train/block 2"]
    assert samples[-1].group == "val/block 0"
    assert len({(s.group, s.part) for s in samples}) == len({s.group for s in samples})


def test_rows_of_published_partial_labels_find_their_images(tmp_path: Path) -> None:
    store = prepare_images(MTAN(write(tmp_path / "data"), "nyuv2", validation_share=0.5, block=1), tmp_path, None)
    weights = torch.eye(3)[[0, 1, 2, 0, 1]]
    torch.save({"labels_weights": weights}, tmp_path / "one.pth", _use_new_zipfile_serialization=False)
    rows = np.flatnonzero(store.parts != 2)
    names = [store.names[row] for row in rows]
    kept = read_partial_labels(tmp_path / "one.pth", names, tuple(store.tasks))
    np.testing.assert_array_equal(kept, weights.bool())


BROKEN: dict[str, tuple[str, Any, str]] = {
    "image out of range": ("image", np.full((*SIZE, 3), 200.0), r"expected numbers in \[0, 1\]"),
    "image with NaN": ("image", np.full((*SIZE, 3), np.nan), "expected finite numbers"),
    "grey image": ("image", np.zeros(SIZE), r"expected floats of shape \(H, W, 3\)"),
    "label of halves": ("label", np.full(SIZE, 0.5), "expected whole numbers"),
    "label too large": ("label", np.full(SIZE, 1000), "expected -1 to 255, found 1000"),
    "depth of three": ("depth", np.zeros((*SIZE, 3)), r"\(H, W\) or \(H, W, 1\), found float64 \(4, 6, 3\)"),
    "normals of 255": ("normal", np.full((*SIZE, 3), 255.0), r"components in \[-1, 1\]"),
    "objects": ("depth", np.array([{}]), "expected a whole .npy file"),
    "cut off": ("normal", None, "expected a whole .npy file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_costs_only_its_image(kind: str, tmp_path: Path) -> None:
    folder, array, message = BROKEN[kind]
    write(tmp_path)
    path = tmp_path / "train" / folder / "2.npy"
    if array is None:
        os.truncate(path, path.stat().st_size - 5)
    else:
        np.save(path, array, allow_pickle=True)
    samples = list(MTAN(tmp_path, "nyuv2").samples())
    assert len(samples) == 8
    (broken,) = [sample for sample in samples if isinstance(sample, Unreadable)]
    assert broken.name == "train/2"
    with pytest.raises(AssertionError, match=rf"{folder}/2\.npy: .*{message}"):
        raise AssertionError(broken.reason)


def test_a_missing_folder_and_unequal_counts_are_one_error(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "val" / "depth" / "1.npy").unlink()
    message = r"val: expected the same files .* found image 3, label 3, depth 2, normal 3; depth lacks 1\.npy"
    for action in (MTAN(tmp_path, "nyuv2").fingerprint, lambda: list(MTAN(tmp_path, "nyuv2").samples())):
        with pytest.raises(DataError, match=message):
            action()
    with pytest.raises(DataError, match=r"train/label_7: expected a folder of \.npy files, found none; root must name"):
        MTAN(tmp_path, "cityscapes").fingerprint()
    with pytest.raises(DataError, match="expected a folder of"):
        MTAN(tmp_path / "nowhere", "nyuv2").fingerprint()
    for kind in ("image", "label", "depth", "normal"):
        for path in (tmp_path / "train" / kind).iterdir():
            path.unlink()
    with pytest.raises(DataError, match=r"train: expected the same files .* found image 0"):
        MTAN(tmp_path, "nyuv2").fingerprint()


def test_arguments_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset: expected one of nyuv2, cityscapes, found 'nyu'"):
        MTAN(tmp_path, "nyu")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="label: expected one of label_7"):
        MTAN(tmp_path, "cityscapes", label="label_8")
    with pytest.raises(DataError, match="validation_share: expected at least 0 and less than 1, found 1"):
        MTAN(tmp_path, "nyuv2", validation_share=1)
    with pytest.raises(DataError, match="block: expected at least 1 file, found 0"):
        MTAN(tmp_path, "nyuv2", block=0)


def test_the_fingerprint_follows_files_and_settings(tmp_path: Path) -> None:
    first = MTAN(write(tmp_path), "nyuv2").fingerprint()
    assert MTAN(tmp_path, "nyuv2", label="label_19").fingerprint() == first, "NYUv2 has one kind of labels"
    assert MTAN(tmp_path, "nyuv2", block=5).fingerprint() != first
    assert MTAN(tmp_path, "nyuv2", validation_share=0.2).fingerprint() != first
    os.utime(tmp_path / "val" / "normal" / "2.npy", (1, 1))
    assert MTAN(tmp_path, "nyuv2").fingerprint() != first
