import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from isthmus.data.clouds import Unreadable
from isthmus.data.image_store import prepare_images
from isthmus.data.images import ImageSample
from isthmus.data.readers.class_names import HUMAN_PARTS7, VOC21
from isthmus.data.readers.pascal_context import NORMALS_KNOWN, PascalContext, boundaries, read_human_parts
from isthmus.errors import DataError

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="NYUv2's class names: set ISTHMUS_DATA to the data directory")

SIZE = (20, 30)
CHAIR, SKY, TV = 72, 360, 427


def rectangle(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def structs(*entries: dict[str, Any]) -> np.ndarray:
    """A struct array of MATLAB's, 1 x n."""
    fields = list(entries[0])
    out = np.empty((1, len(entries)), dtype=[(name, object) for name in fields])
    for index, entry in enumerate(entries):
        out[0, index] = tuple(entry[name] for name in fields)
    return out


def thing(kind: str, index: int, parts: dict[str, np.ndarray]) -> dict[str, Any]:
    mask = np.maximum.reduce([np.zeros(SIZE, np.uint8), *parts.values()])
    made = [{"part_name": name, "mask": part} for name, part in parts.items()]
    return {
        "class": kind,
        "class_ind": np.uint8(index),
        "mask": mask,
        "parts": structs(*made) if made else np.empty((0, 0)),
    }


def annotation(path: Path, *objects: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"anno": structs({"imname": path.stem, "objects": structs(*objects)})})
    return path


PERSON = thing("person", 15, {"torso": rectangle(5, 10, 5, 10), "lhand": rectangle(9, 12, 9, 12)})
DOG = thing("dog", 12, {"head": rectangle(0, 20, 0, 30)})


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def context_map() -> np.ndarray:
    return np.hstack([np.full((20, 10), CHAIR), np.full((20, 10), SKY), np.full((20, 10), TV)]).astype(np.uint16)


def normals_image() -> np.ndarray:
    image = np.full((*SIZE, 3), 127, np.uint8)
    image[..., 2] = 0
    image[3] = 0
    return image


def write(root: Path, train: int = 3, val: int = 2) -> Path:
    g = np.random.default_rng(0)
    for own, count in (("train", train), ("val", val)):
        ids = [f"200{8 + (own == 'val')}_{index:06d}" for index in range(count)]
        (root / "ImageSets" / "Context").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Context" / f"{own}.txt").write_text("".join(f"{name}\n" for name in ids))
        for name in ids:
            put(root / "JPEGImages" / f"{name}.jpg", g.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
            put(root / "semseg" / "VOC12" / f"{name}.png", rectangle(0, 5, 0, 5) * 15)
            put(root / "semseg" / "pascal-context" / f"{name}.png", rectangle(0, 5, 0, 5) * 7)
            put(root / "normals_distill" / f"{name}.png", normals_image())
            put(root / "sal_distill" / f"{name}.png", np.uint8([[127] * 15 + [128] * 15] * 20))
            annotation(root / "human_parts" / f"{name}.mat", DOG, PERSON)
            (root / "pascal-context" / "trainval").mkdir(parents=True, exist_ok=True)
            savemat(root / "pascal-context" / "trainval" / f"{name}.mat", {"LabelMap": context_map()})
    return root


def first(root: Path) -> ImageSample:
    sample = next(iter(PascalContext(root).samples()))
    assert isinstance(sample, ImageSample), sample.reason
    return sample


def test_five_tasks_are_read_from_their_files(tmp_path: Path) -> None:
    reader = PascalContext(write(tmp_path))
    assert list(reader.tasks) == ["segmentation", "parts", "normals", "saliency", "edges"]
    assert reader.tasks["segmentation"] == VOC21 and reader.tasks["parts"] == HUMAN_PARTS7
    sample = first(tmp_path)
    assert sample.name == "2008_000000" and set(sample.labels) == set(reader.tasks)
    np.testing.assert_array_equal(sample.labels["segmentation"], rectangle(0, 5, 0, 5) * 15)
    np.testing.assert_array_equal(sample.labels["saliency"], np.uint8([[0] * 15 + [1] * 15] * 20))
    expected = rectangle(5, 10, 5, 10) * HUMAN_PARTS7.index("torso")
    expected[9:12, 9:12] = HUMAN_PARTS7.index("lower_arm")
    np.testing.assert_array_equal(sample.labels["parts"], expected)
    store = prepare_images(reader, tmp_path / "cache", (10, 15))
    assert store.present.all() and store.skipped == () and len(store) == 5


def test_normals_count_only_on_classes_that_nyuv2_has_as_well(tmp_path: Path) -> None:
    normals = first(write(tmp_path)).labels["normals"]
    valid = (normals != 0).any(axis=-1)
    expected = (context_map() != SKY) & (np.arange(20) != 3)[:, None]
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_allclose(normals[0, 0].astype(float), [-1 / 255, -1 / 255, -1], atol=1e-3)
    (tmp_path / "pascal-context" / "trainval" / "2008_000000.mat").unlink()
    sample = first(tmp_path)
    assert "edges" not in sample.labels
    np.testing.assert_array_equal((sample.labels["normals"] != 0).any(axis=-1).all(axis=1), np.arange(20) != 3)


@needs_data
def test_the_known_classes_have_names_of_nyuv2() -> None:
    mapping = loadmat(Path(DATA or ".") / "dense" / "nyuv2_labels" / "classMapping40.mat", simplify_cells=True)
    names = set(mapping["allClassName"])
    # Spot checks by the numbers of PASCAL-Context's own list of 459 classes.
    context = {
        18: "bed",
        68: "ceiling",
        72: "chair",
        158: "floor",
        284: "person",
        368: "sofa",
        397: "table",
        440: "wall",
    }
    context |= {2: "aeroplane", 25: "bird", 31: "boat", 98: "cow", 187: "grass", 360: "sky", 420: "tree", 445: "water"}
    for number, name in context.items():
        assert (number in NORMALS_KNOWN) == (name in names), name
    assert len(set(NORMALS_KNOWN)) == len(NORMALS_KNOWN) == 170 and max(NORMALS_KNOWN) <= 459


def test_voc_is_preferred_and_context_taken_where_it_is_missing(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "semseg" / "VOC12" / "2008_000000.png").unlink()
    np.testing.assert_array_equal(first(tmp_path).labels["segmentation"], rectangle(0, 5, 0, 5) * 7)
    (tmp_path / "semseg" / "pascal-context" / "2008_000000.png").unlink()
    assert "segmentation" not in first(tmp_path).labels


@pytest.mark.parametrize(
    "objects",
    [
        (DOG,),
        (DOG, DOG),
        (thing("person", 15, {}),),
        (thing("person", 15, {"head": np.zeros(SIZE, np.uint8)}),),
    ],
)
def test_without_a_part_of_a_person_there_is_no_label_of_parts(objects: tuple[Any, ...], tmp_path: Path) -> None:
    annotation(write(tmp_path) / "human_parts" / "2008_000000.mat", *objects)
    assert "parts" not in first(tmp_path).labels


def test_all_24_parts_go_where_they_belong(tmp_path: Path) -> None:
    groups = {
        "head": "head hair lear rear lebrow rebrow leye reye nose mouth",
        "torso": "torso neck",
        "upper_arm": "luarm ruarm",
        "lower_arm": "llarm rlarm lhand rhand",
        "upper_leg": "luleg ruleg",
        "lower_leg": "llleg rlleg lfoot rfoot",
    }
    names = [name for group in groups.values() for name in group.split()]
    assert len(names) == 24
    person = thing("person", 15, {name: rectangle(0, 1, index, index + 1) for index, name in enumerate(names)})
    label = read_human_parts(annotation(tmp_path / "a.mat", person))
    assert label is not None
    expected = [HUMAN_PARTS7.index(group) for group, members in groups.items() for _ in members.split()]
    assert label[0].tolist() == expected + [0] * 6


def test_two_persons_share_one_map(tmp_path: Path) -> None:
    other = thing("person", 15, {"head": rectangle(0, 3, 20, 25)})
    label = read_human_parts(annotation(tmp_path / "a.mat", PERSON, DOG, other))
    assert label is not None
    assert set(label[0:3, 20:25].ravel()) == {1} and set(label[5:9, 5:9].ravel()) == {2}


def test_boundaries_are_thin_lines_between_classes() -> None:
    found = boundaries(context_map())
    # Each border is two pixels wide before thinning; one of them stays, though thinning may eat a line's end.
    assert found.dtype == np.uint8 and set(found.ravel()) == {0, 1}
    assert (found[1:-1, 8:12].sum(axis=1) == 1).all() and (found[1:-1, 18:22].sum(axis=1) == 1).all()
    assert not found[:, :8].any() and not found[:, 12:18].any() and not found[:, 22:].any()
    assert not boundaries(np.full(SIZE, 7)).any()


def test_boundaries_equal_the_thinned_laplacian_of_scikit_image() -> None:
    morphology = pytest.importorskip("skimage.morphology")
    g = np.random.default_rng(0)
    labels = np.kron(g.integers(0, 4, (6, 8)), np.ones((7, 5), int))
    labels[g.random(labels.shape) < 0.02] = 9
    padded = np.pad(labels, 1, mode="reflect").astype(float)
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * padded[1:-1, 1:-1]
    np.testing.assert_array_equal(boundaries(labels), morphology.thin(laplacian != 0))


def test_labels_of_another_size_are_brought_to_the_image(tmp_path: Path) -> None:
    write(tmp_path)
    put(tmp_path / "sal_distill" / "2008_000000.png", np.uint8([[0, 255]]))
    put(tmp_path / "normals_distill" / "2008_000000.png", np.full((10, 15, 3), 200, np.uint8))
    put(tmp_path / "semseg" / "VOC12" / "2008_000000.png", np.kron(rectangle(0, 5, 0, 5), np.ones((2, 2), np.uint8)))
    sample = first(tmp_path)
    np.testing.assert_array_equal(sample.labels["saliency"], np.uint8([[0] * 15 + [1] * 15] * 20))
    np.testing.assert_array_equal(sample.labels["segmentation"], rectangle(0, 5, 0, 5))
    valid = (sample.labels["normals"] != 0).any(axis=-1)
    np.testing.assert_array_equal(valid, context_map() != SKY)


def test_lists_make_the_parts_and_train_is_carved(tmp_path: Path) -> None:
    samples = list(PascalContext(write(tmp_path, train=10, val=3), validation_share=0.2).samples())
    parts: list[Any] = [sample.part for sample in samples if isinstance(sample, ImageSample)]
    assert parts == (["train"] * 4 + ["val"]) * 2 + ["test"] * 3
    assert samples[-1].name == "2009_000002"


BROKEN = {
    "JPEGImages/2008_000000.jpg": "expected a whole image",
    "semseg/VOC12/2008_000000.png": "expected a whole image",
    "human_parts/2008_000000.mat": r"expected a whole \.mat file",
    "pascal-context/trainval/2008_000000.mat": r"expected a whole \.mat file",
    "sal_distill/2008_000000.png": "expected a whole image",
    "normals_distill/2008_000000.png": "expected a whole image",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_costs_only_its_image(name: str, tmp_path: Path) -> None:
    path = write(tmp_path) / name
    os.truncate(path, path.stat().st_size // 2)
    samples = list(PascalContext(tmp_path).samples())
    assert len(samples) == 5
    (broken,) = [sample for sample in samples if isinstance(sample, Unreadable)]
    assert broken.name == "2008_000000"
    with pytest.raises(AssertionError, match=rf"{name.replace('.', '[.]')}: .*{BROKEN[name]}"):
        raise AssertionError(broken.reason)


def test_mat_files_of_another_content_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    context = tmp_path / "pascal-context" / "trainval" / "2008_000000.mat"
    parts = tmp_path / "human_parts" / "2008_000000.mat"
    good = (context.read_bytes(), parts.read_bytes())
    wrong_size = thing("person", 15, {"head": rectangle(0, 3, 0, 3)})
    wrong_size["parts"] = structs(
        {"part_name": "head", "mask": rectangle(0, 3, 0, 3)},
        {"part_name": "neck", "mask": rectangle(0, 3, 0, 3, (9, 9))},
    )
    cases: list[tuple[Any, str]] = [
        (lambda: savemat(context, {"Labels": context_map()}), "LabelMap: expected numbers of shape .* found NoneType"),
        (lambda: savemat(context, {"LabelMap": np.zeros((2, 2, 2))}), r"LabelMap: .* found uint8 \(2, 2, 2\)|float64"),
        (lambda: savemat(parts, {"x": 1}), "anno: expected a struct with objects, found NoneType"),
        (lambda: savemat(parts, {"anno": 3}), "anno: expected a struct with objects, found int"),
        (
            lambda: annotation(parts, thing("person", 15, {"tail": rectangle(0, 3, 0, 3)})),
            "part_name: expected one of head, .* found 'tail'",
        ),
        (lambda: annotation(parts, wrong_size), r"neck: expected a mask of the image's shape"),
    ]
    for damage, message in cases:
        context.write_bytes(good[0])
        parts.write_bytes(good[1])
        damage()
        sample = next(iter(PascalContext(tmp_path).samples()))
        assert isinstance(sample, Unreadable)
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(sample.reason)


def test_missing_folders_and_lists_are_errors(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "sal_distill").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="sal_distill: expected the folder of saliency, found none; root must name"):
        PascalContext(tmp_path).fingerprint()
    (tmp_path / "elsewhere").rename(tmp_path / "sal_distill")
    (tmp_path / "ImageSets" / "Context" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"Context/val\.txt: expected a list of image ids"):
        list(PascalContext(tmp_path).samples())
    with pytest.raises(DataError, match="validation_share"):
        PascalContext(tmp_path, validation_share=1.5)


def test_an_image_that_is_listed_but_missing_is_listed(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "JPEGImages" / "2008_000001.jpg").unlink()
    store = prepare_images(PascalContext(tmp_path), tmp_path / "cache", (10, 15))
    assert [name for name, _ in store.skipped] == ["2008_000001"] and len(store) == 4


def test_the_fingerprint_follows_files_lists_and_share(tmp_path: Path) -> None:
    found = PascalContext(write(tmp_path)).fingerprint()
    assert PascalContext(tmp_path).fingerprint() == found
    assert PascalContext(tmp_path, validation_share=0.4).fingerprint() != found
    (tmp_path / "ImageSets" / "Context" / "val.txt").write_text("2009_000001\n2009_000000\n")
    second = PascalContext(tmp_path).fingerprint()
    assert second != found
    os.utime(tmp_path / "human_parts" / "2008_000002.mat", (1, 1))
    assert PascalContext(tmp_path).fingerprint() != second
