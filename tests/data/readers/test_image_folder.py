import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isthmus.data.clouds import Unreadable
from isthmus.data.image_store import prepare_images
from isthmus.data.images import ImageSample
from isthmus.data.readers.image_folder import ImageFolder, UnlabelledImages
from isthmus.errors import DataError

SIZE = (4, 6)


def put(path: Path, array: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def classes(seed: int = 0, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, SIZE, dtype=np.uint8)


def read(reader: ImageFolder) -> dict[str, ImageSample]:
    samples = list(reader.samples())
    assert not [sample for sample in samples if isinstance(sample, Unreadable)]
    return {sample.name: sample for sample in samples if isinstance(sample, ImageSample)}


def plain(root: Path, count: int = 10) -> Path:
    for index in range(count):
        put(root / "images" / f"{index:02d}.png", picture(index))
        put(root / "segmentation" / f"{index:02d}.png", classes(index))
    return root


def test_every_task_is_read_from_its_folder_and_any_file_may_be_missing(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).integers(0, 9000, SIZE, dtype=np.uint16)
    normals = np.zeros((*SIZE, 3), np.float32)
    normals[1:, :, 2] = -1
    yes_no = np.uint8([[0, 255, 0, 255, 0, 255]] * 4)
    for name in ("a", "b", "c"):
        put(tmp_path / "images" / f"{name}.png", picture())
    (tmp_path / "images" / "b.png").rename(tmp_path / "images" / "b.PNG")
    put(tmp_path / "segmentation" / "a.png", classes())
    put(tmp_path / "parts" / "a.npy", np.where(classes() == 2, -1, classes().astype(int)))
    put(tmp_path / "depth" / "a.png", depth)
    put(tmp_path / "depth" / "b.npy", np.full(SIZE, 1.5))
    put(tmp_path / "inverse_depth" / "b.npy", np.full(SIZE, 0.25))
    put(tmp_path / "normals" / "b.npy", normals)
    put(tmp_path / "saliency" / "a.png", yes_no)
    put(tmp_path / "edges" / "b.png", yes_no // 255)
    (tmp_path / "segmentation" / "notes.txt").write_text("by hand")
    reader = ImageFolder(tmp_path)
    assert reader.tasks == {
        "segmentation": ("0", "1", "2"),
        "parts": ("0", "1"),
        "depth": (),
        "inverse_depth": (),
        "normals": (),
        "saliency": (),
        "edges": (),
    }
    found = read(reader)
    assert {name: set(sample.labels) for name, sample in found.items()} == {
        "a": {"segmentation", "parts", "depth", "saliency"},
        "b": {"depth", "inverse_depth", "normals", "edges"},
        "c": set(),
    }
    np.testing.assert_array_equal(found["c"].image, picture())
    np.testing.assert_allclose(found["a"].labels["depth"], depth / 1000, atol=1e-6)
    assert (found["b"].labels["depth"] == 1.5).all()
    np.testing.assert_array_equal(found["a"].labels["parts"], np.where(classes() == 2, 255, classes()))
    np.testing.assert_array_equal(found["a"].labels["saliency"], yes_no // 255)
    np.testing.assert_array_equal(found["b"].labels["edges"], yes_no // 255)
    store = prepare_images(reader, tmp_path / "cache", None)
    assert store.skipped == () and store.present.sum() == 8


def test_255_beside_ones_anywhere_in_the_folder_is_no_label(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / "images" / f"{name}.png", picture())
    put(tmp_path / "edges" / "a.png", np.uint8([[0, 1, 255, 0, 0, 0]] * 4))
    put(tmp_path / "edges" / "b.png", np.uint8([[0, 0, 255, 0, 0, 0]] * 4))
    found = read(ImageFolder(tmp_path))
    assert found["a"].labels["edges"][0].tolist() == [0, 1, 255, 0, 0, 0]
    assert found["b"].labels["edges"][0].tolist() == [0, 0, 255, 0, 0, 0]


def test_class_names_come_from_the_argument_then_the_file_then_the_largest_index(tmp_path: Path) -> None:
    root = plain(tmp_path / "data")
    put(root / "segmentation" / "03.png", np.full(SIZE, 255, np.uint8))
    put(root / "parts" / "03.png", np.full(SIZE, 4, np.uint8))
    assert ImageFolder(root).tasks == {"segmentation": ("0", "1", "2"), "parts": ("0", "1", "2", "3", "4")}
    (root / "classes.txt").write_text("\ufeffbed\n  sofa \n\nwall\n", encoding="utf-8")
    (root / "parts.txt").write_text("body\n")
    assert ImageFolder(root).tasks == {"segmentation": ("bed", "sofa", "wall"), "parts": ("body",)}
    given = ImageFolder(root, classes=("a", "b", "c"), parts=("d", "e"))
    assert given.tasks == {"segmentation": ("a", "b", "c"), "parts": ("d", "e")}
    store = prepare_images(given, tmp_path / "cache", None)
    assert [name for name, reason in store.skipped if "parts: expected 0 to 1 or 255, found 4" in reason] == ["03"]
    for text in ("", "bed\nbed\n"):
        (root / "classes.txt").write_text(text)
        with pytest.raises(DataError, match=r"classes\.txt: expected different classes"):
            ImageFolder(root)


def test_without_split_folders_the_sorted_list_is_cut(tmp_path: Path) -> None:
    found = read(ImageFolder(plain(tmp_path, 25)))
    assert list(found) == [f"{index:02d}" for index in range(25)]
    # 64 % of 25 are 16, 80 % are 20.
    assert [sample.part for sample in found.values()] == ["train"] * 16 + ["val"] * 4 + ["test"] * 5
    assert {sample.group for sample in found.values()} == {""}


def test_sub_folders_are_groups_and_stay_whole(tmp_path: Path) -> None:
    for room, count in (("attic", 6), ("bath", 5), ("cellar", 5), ("den", 4)):
        for index in range(count):
            put(tmp_path / "images" / room / f"{index}.png", picture(index))
    put(tmp_path / "depth" / "bath" / "2.npy", np.ones(SIZE))
    found = read(ImageFolder(tmp_path))
    parts = {(sample.group, sample.part) for sample in found.values()}
    # By hand, of 20: first images at 0, 6, 11 and 16; limits at 12.8 and 16.
    assert parts == {("attic", "train"), ("bath", "train"), ("cellar", "train"), ("den", "test")}
    assert [name for name, sample in found.items() if sample.labels] == ["bath/2"]


def test_split_folders_are_followed(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        put(tmp_path / split / "images" / "a.png", picture())
        put(tmp_path / split / "images" / "street" / "b.png", picture())
        put(tmp_path / split / "segmentation" / "street" / "b.png", classes())
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    found = read(ImageFolder(tmp_path))
    assert {name: (s.part, s.group, set(s.labels)) for name, s in found.items()} == {
        "train/a": ("train", "", set()),
        "train/street/b": ("train", "train/street", {"segmentation"}),
        "validation/a": ("val", "", set()),
        "validation/street/b": ("val", "validation/street", {"segmentation"}),
        "test/a": ("test", "", set()),
        "test/street/b": ("test", "test/street", {"segmentation"}),
    }
    assert [s.part for s in found.values()] == ["train", "train", "val", "val", "test", "test"]


def test_without_a_val_folder_the_end_of_train_validates(tmp_path: Path) -> None:
    for index in range(10):
        put(tmp_path / "train" / "images" / f"{index}.png", picture())
    put(tmp_path / "test" / "images" / "0.png", picture())
    assert [s.part for s in read(ImageFolder(tmp_path)).values()] == ["train"] * 8 + ["val"] * 2 + ["test"]


def test_a_broken_file_costs_only_its_image(tmp_path: Path) -> None:
    plain(tmp_path)
    put(tmp_path / "depth" / "04.png", np.zeros(SIZE, np.uint8))
    put(tmp_path / "saliency" / "05.png", np.full(SIZE, 9, np.uint8))
    os.truncate(tmp_path / "images" / "02.png", 40)
    os.truncate(tmp_path / "segmentation" / "03.png", 40)
    samples = list(ImageFolder(tmp_path).samples())
    reasons = {sample.name: sample.reason for sample in samples if isinstance(sample, Unreadable)}
    assert list(reasons) == ["02", "03", "04", "05"] and len(samples) == 10
    for name, message in (("02", "images/02.png"), ("03", "segmentation/03"), ("04", "16-bit"), ("05", "found 9")):
        assert message in reasons[name]


def test_labels_of_another_size_are_skipped_by_the_store(tmp_path: Path) -> None:
    plain(tmp_path)
    put(tmp_path / "segmentation" / "01.png", np.zeros((2, 2), np.uint8))
    ((name, reason),) = prepare_images(ImageFolder(tmp_path), tmp_path / "cache", (4, 4)).skipped
    assert name == "01" and "expected shape (4, 6) as the image has it, found (2, 2)" in reason


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "expected a folder of images, found none"),
        (["images/readme.txt"], r"images: expected images \.png.*found none"),
        (["images/a.png", "segmentatoin/a.png"], "found 'segmentatoin'; did you mean 'segmentation'"),
        (["images/a.png", "depth/a_depth.npy"], r"a_depth\.npy: expected an image of the same name in .*found none$"),
        (["images/a.png", "depth/b.npy", "depth/c.npy"], r"b\.npy: .* \(so it is for 2 files in .*depth\)"),
        (["images/a.png", "images/a.jpg"], r"a\.png: expected one file of this name, found a\.jpg as well"),
        (["images/a.png", "depth/a.npy", "depth/a.png"], r"a\.png: expected one file of this name, found a\.npy"),
        (
            ["images/a.png", "train/images/a.png"],
            "expected either 'images' or split folders, found 'images' and 'train'",
        ),
        (["train/images/a.png", "tset/images/a.png"], "found 'tset'; did you mean 'test'"),
        (["train/depth/a.png"], "train/images: expected a folder of images"),
    ],
)
def test_a_folder_of_another_layout_is_an_error(paths: list[str], message: str, tmp_path: Path) -> None:
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    with pytest.raises(DataError, match=message):
        ImageFolder(tmp_path)
    with pytest.raises(DataError, match="nowhere: expected a folder with 'images' in it"):
        ImageFolder(tmp_path / "nowhere")


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    plain(tmp_path, 3)
    (tmp_path / "images" / ".DS_Store.png").touch()
    (tmp_path / ".git").mkdir()
    assert len(read(ImageFolder(tmp_path))) == 3


def test_the_fingerprint_follows_files_and_classes(tmp_path: Path) -> None:
    plain(tmp_path)
    first = ImageFolder(tmp_path).fingerprint()
    assert ImageFolder(tmp_path).fingerprint() == first
    assert ImageFolder(tmp_path, classes=("a", "b", "c")).fingerprint() != first
    put(tmp_path / "depth" / "01.npy", np.ones(SIZE))
    second = ImageFolder(tmp_path).fingerprint()
    assert second != first
    os.utime(tmp_path / "depth" / "01.npy", (1, 1))
    assert ImageFolder(tmp_path).fingerprint() != second


def test_unlabelled_pictures_of_all_kinds_and_sizes_are_read(tmp_path: Path) -> None:
    put(tmp_path / "a.png", picture())
    put(tmp_path / "more" / "b.bmp", picture(1)[:2])
    put(tmp_path / "more" / "c.webp", picture(2))
    put(tmp_path / "d.JPG".replace("JPG", "jpg"), picture(3)).rename(tmp_path / "d.JPG")
    put(tmp_path / "e.tif", picture(4)[..., 0])
    (tmp_path / "f.png").write_bytes(b"broken")
    (tmp_path / "notes.txt").touch()
    reader = UnlabelledImages((tmp_path,))
    assert reader.tasks == {}
    samples = list(reader.samples())
    names = [Path(sample.name).relative_to(tmp_path).as_posix() for sample in samples]
    assert names == ["a.png", "d.JPG", "e.tif", "f.png", "more/b.bmp", "more/c.webp"]
    (broken,) = [sample for sample in samples if isinstance(sample, Unreadable)]
    assert broken.name.endswith("f.png")
    good = {Path(s.name).name: s for s in samples if isinstance(s, ImageSample)}
    assert all(s.labels == {} and s.part == "test" and s.image.dtype == np.uint8 for s in good.values())
    np.testing.assert_array_equal(good["a.png"].image, picture())
    np.testing.assert_array_equal(good["e.tif"].image[..., 2], picture(4)[..., 0])
    assert good["b.bmp"].image.shape == (2, 6, 3)


def test_unlabelled_pictures_keep_the_order_given_and_come_once(tmp_path: Path) -> None:
    for name in ("x/b.png", "x/a.png", "c.png"):
        put(tmp_path / name, picture())
    reader = UnlabelledImages((tmp_path / "c.png", tmp_path / "x", tmp_path / "x" / "b.png"))
    assert [path.name for path in reader.files] == ["c.png", "a.png", "b.png"]
    store = prepare_images(reader, tmp_path / "cache", (2, 3))
    assert store.images.shape == (3, 2, 3, 3) and store.tasks == {}
    first = reader.fingerprint()
    os.utime(tmp_path / "c.png", (1, 1))
    assert reader.fingerprint() != first


def test_paths_that_are_no_pictures_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"a\.txt: expected a folder or a picture .* found another file"):
        UnlabelledImages((tmp_path / "a.txt",))
    with pytest.raises(DataError, match="found nothing there"):
        UnlabelledImages((tmp_path / "b.png",))
    with pytest.raises(DataError, match=r"expected pictures \.png.* found none"):
        UnlabelledImages((tmp_path,))


POINTS = ("left_eye", "nose", "right_eye")


def face(root: Path, name: str, points: Any) -> Path:
    put(root / "images" / f"{name}.png", picture())
    return put(root / "keypoints" / f"{name}.npy", points)


def points(seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).uniform(0.1, 0.9, (3, 3))
    found[:, 2] -= found[:, 2].mean()
    return found


def test_keypoints_are_read_where_there_are_any_and_missing_files_are_missing_labels(tmp_path: Path) -> None:
    root = tmp_path / "data"
    missing = points(1)
    missing[1] = np.nan
    face(root, "a", points())
    face(root, "b", missing.astype(np.float32))
    put(root / "images" / "c.png", picture())
    put(root / "depth" / "c.npy", np.ones(SIZE))
    (root / "keypoints.txt").write_text("left_eye\nnose\nright_eye\n")
    reader = ImageFolder(root)
    assert reader.tasks == {"depth": (), "keypoints": POINTS}
    found = read(reader)
    assert [set(sample.labels) for sample in found.values()] == [{"keypoints"}, {"keypoints"}, {"depth"}]
    np.testing.assert_array_equal(found["a"].labels["keypoints"], points().astype(np.float32))
    np.testing.assert_array_equal(found["b"].labels["keypoints"], missing.astype(np.float32))
    store = prepare_images(reader, tmp_path / "cache", (2, 3))
    assert store.skipped == () and store.present.tolist() == [[False, True], [False, True], [True, False]]
    np.testing.assert_allclose(store.labels("keypoints")[0], points(), atol=1e-6)
    first = reader.fingerprint()
    given = ImageFolder(root, keypoints=("right_eye", "nose", "left_eye"))
    assert given.tasks["keypoints"] == ("right_eye", "nose", "left_eye") and given.fingerprint() != first


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, r"keypoints\.txt: expected the name of a point in each line, found no such file"),
        ("", r"keypoints\.txt: expected different classes"),
        ("nose\nnose\n", r"keypoints\.txt: expected different classes, one in each line, found nose, nose"),
        ("left_eye\nnose\nchin\n", r"keypoints\.txt: expected a partner 'right_eye' of 'left_eye'"),
    ],
)
def test_keypoints_without_proper_names_are_an_error(names: str | None, message: str, tmp_path: Path) -> None:
    face(tmp_path, "a", points())
    if names is not None:
        (tmp_path / "keypoints.txt").write_text(names)
    with pytest.raises(DataError, match=message) as raised:
        ImageFolder(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_bad_file_of_keypoints_is_named_in_one_line_and_costs_only_its_image(tmp_path: Path) -> None:
    root = tmp_path / "data"
    face(root, "good", points())
    face(root, "long", np.zeros((4, 3)))
    face(root, "flat", np.zeros(9))
    face(root, "whole", np.zeros((3, 3), np.int64))
    os.truncate(face(root, "torn", points()), 90)
    put(root / "images" / "picture.png", picture())
    put(root / "keypoints" / "picture.png", picture())
    face(root, "pixels", points() * 200)
    (root / "keypoints.txt").write_text("\n".join(POINTS))
    samples = list(ImageFolder(root).samples())
    reasons = {sample.name: sample.reason for sample in samples if isinstance(sample, Unreadable)}
    for name, message in (
        ("long", "long.npy: expected 3 rows, one for each name in keypoints.txt, found 4"),
        ("flat", "flat.npy: expected floats of shape (K, 3), found float64 (9,)"),
        ("whole", "whole.npy: expected floats of shape (K, 3), found int64 (3, 3)"),
        ("torn", "torn.npy: expected a whole .npy file"),
        ("picture", "picture.png: expected a whole .npy file"),
    ):
        assert message in reasons[name] and "\n" not in reasons[name]
    assert len(reasons) == 5
    skipped = dict(prepare_images(ImageFolder(root), tmp_path / "cache", None).skipped)
    assert skipped.keys() == {*reasons, "pixels"} and "expected shares of the image's width" in skipped["pixels"]
