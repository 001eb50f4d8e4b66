import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from isthmus.data.images import ENCODINGS, ImageSample, valid_pixels
from isthmus.data.readers.class_names import NYU13
from isthmus.data.simulators.furniture import label
from isthmus.data.simulators.rooms import SimulatedRooms
from isthmus.errors import DataError

COUNTS = {"train": 12, "val": 3, "test": 5}


@pytest.fixture(scope="module")
def made() -> list[ImageSample]:
    return list(SimulatedRooms(**COUNTS, views=2).samples())


def digest(sample: ImageSample) -> bytes:
    return sample.image.tobytes() + b"".join(sample.labels[task].tobytes() for task in sorted(sample.labels))


def test_counts_parts_names_and_groups(made: list[ImageSample]) -> None:
    assert [sample.part for sample in made] == ["train"] * 12 + ["val"] * 3 + ["test"] * 5
    assert len({sample.name for sample in made}) == len(made)
    assert made[2].group == "room-00003" and made[2].name == "train/room-00003-0"
    by_group: dict[str, set[str]] = {}
    for sample in made:
        by_group.setdefault(sample.group, set()).add(sample.part)
    assert len(by_group) == 6 + 2 + 3
    assert all(len(parts) == 1 for parts in by_group.values())
    assert made[0].group == made[1].group != made[2].group


def test_every_pixel_has_every_label_in_its_encoding(made: list[ImageSample]) -> None:
    for sample in made:
        assert sample.image.shape == (96, 128, 3) and sample.image.dtype == np.uint8
        assert list(sample.labels) == ["segmentation", "depth", "normals", "edges"]
        for task, map_ in sample.labels.items():
            assert map_.dtype == ENCODINGS[task].dtype
            assert map_.shape == ((96, 128, 3) if task == "normals" else (96, 128))
            assert valid_pixels(task, map_).all(), task
        assert sample.labels["segmentation"].max() < 13
        assert set(np.unique(sample.labels["edges"])) == {0, 1}
        assert sample.labels["depth"].min() > 0.05 and sample.labels["depth"].max() < 9.5
        lengths = np.linalg.norm(sample.labels["normals"].astype(np.float64), axis=2)
        np.testing.assert_allclose(lengths, 1, atol=2e-3)


def test_floors_face_up_ceilings_down_and_walls_sideways() -> None:
    reader = SimulatedRooms(train=8, val=0, test=0, views=1)
    up, down = [], []
    for sample in reader.samples():
        classes, normals = sample.labels["segmentation"], sample.labels["normals"].astype(np.float64)
        up.append(normals[classes == label("floor")][:, 1])
        down.append(normals[classes == label("ceiling")][:, 1])
    # The camera looks at most 0.6 down: y points down, so a floor's normal has a negative y.
    assert np.median(np.concatenate(up)) < -0.7
    assert np.median(np.concatenate(down)) > 0.7


def test_rooms_are_full_of_things(made: list[ImageSample]) -> None:
    classes = np.stack([sample.labels["segmentation"] for sample in made])
    share = np.bincount(classes.ravel(), minlength=13) / classes.size
    assert share[label("wall")] < 0.5
    assert (
        share[[label(n) for n in ("bed", "chair", "floor", "furniture", "objects", "table", "window")]] > 0.003
    ).all()
    assert np.mean([len(np.unique(c)) for c in classes]) >= 6
    assert 0.02 < np.mean([sample.labels["edges"].mean() for sample in made]) < 0.15


def test_no_image_is_black_or_white_or_shows_only_one_thing(made: list[ImageSample]) -> None:
    for sample in made:
        assert 25 < sample.image.mean() < 215
        assert sample.image.std() > 10


def test_colour_alone_does_not_tell_depth(made: list[ImageSample]) -> None:
    brightness = np.concatenate([s.image.mean(axis=2).ravel() for s in made])
    depth = np.concatenate([s.labels["depth"].ravel() for s in made])
    assert abs(np.corrcoef(brightness, depth)[0, 1]) < 0.5


def test_an_image_does_not_depend_on_how_many_are_made(made: list[ImageSample]) -> None:
    alone = SimulatedRooms(train=1, val=0, test=0, views=2)
    assert digest(alone.sample("train", 3)) == digest(made[3])
    assert digest(alone.sample("test", 4)) == digest(made[-1])


def test_an_image_is_the_same_bit_for_bit_in_another_process(made: list[ImageSample]) -> None:
    code = (
        "import hashlib; from isthmus.data.simulators.rooms import SimulatedRooms as R;"
        "s = R(train=9, val=0, test=0, views=2).sample('train', 5);"
        "whole = s.image.tobytes() + b''.join(s.labels[t].tobytes() for t in sorted(s.labels));"
        "print(hashlib.sha256(whole).hexdigest())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == hashlib.sha256(digest(made[5])).hexdigest()


def test_views_of_a_room_and_rooms_of_another_seed_or_part_differ(made: list[ImageSample]) -> None:
    images = [made[0], made[1], made[2], made[12], made[15]]
    images.append(SimulatedRooms(train=1, val=0, test=0, views=2, seed=1).sample("train", 0))
    assert len({digest(sample) for sample in images}) == len(images)


def test_style_changes_pixels_but_not_labels(made: list[ImageSample]) -> None:
    reader = SimulatedRooms(**COUNTS, views=2, style="camera")
    for index in (0, 5):
        other = reader.sample("train", index)
        for task, map_ in made[index].labels.items():
            np.testing.assert_array_equal(other.labels[task], map_)
        assert np.abs(other.image.astype(int) - made[index].image).mean() > 5
        assert digest(other) == digest(reader.sample("train", index))


def test_size_sets_the_shape_and_shows_the_same_view(made: list[ImageSample]) -> None:
    small = SimulatedRooms(**COUNTS, views=2, size=(48, 64)).sample("train", 0)
    assert small.image.shape == (48, 64, 3)
    far = made[0].labels["depth"].reshape(48, 2, 64, 2)
    assert np.median(np.abs(small.labels["depth"] - far.mean(axis=(1, 3)))) < 0.02


def test_fingerprint_is_json_and_changes_with_every_argument() -> None:
    base = {"train": 3, "val": 2, "test": 1, "seed": 0, "size": (96, 128), "views": 4, "style": "synthetic"}
    others = {"train": 4, "val": 3, "test": 2, "seed": 1, "size": (48, 64), "views": 2, "style": "camera"}
    prints = [json.dumps(SimulatedRooms(**base).fingerprint())]
    prints += [json.dumps(SimulatedRooms(**{**base, field: value}).fingerprint()) for field, value in others.items()]
    assert len(set(prints)) == len(prints)


def test_tasks_are_those_of_nyu() -> None:
    tasks = SimulatedRooms(train=1, val=0, test=0).tasks
    assert tasks == {"segmentation": NYU13, "depth": (), "normals": (), "edges": ()}
    assert len(NYU13) == 13 and list(NYU13) == sorted(NYU13)


@pytest.mark.parametrize(
    ("field", "value"),
    [("train", -1), ("seed", -1), ("views", 0), ("size", (8, 128)), ("size", (96,)), ("style", "oil"), ("val", 1.5)],
)
def test_bad_arguments_are_named(field: str, value: object) -> None:
    with pytest.raises(DataError, match=field):
        SimulatedRooms(**{"train": 1, "val": 1, "test": 1, field: value})


def test_no_images_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one"):
        SimulatedRooms(train=0, val=0, test=0)
