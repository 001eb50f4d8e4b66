import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from isthmus.data.images import ENCODINGS, ImageSample, valid_pixels
from isthmus.data.simulators.people import BODY_PARTS
from isthmus.data.simulators.street_furniture import CITYSCAPES7, label
from isthmus.data.simulators.street_layout import Sky
from isthmus.data.simulators.streets import SimulatedStreets, salient
from isthmus.errors import DataError

COUNTS = {"train": 14, "val": 3, "test": 3}


@pytest.fixture(scope="module")
def made() -> list[ImageSample]:
    return list(SimulatedStreets(**COUNTS, views=2).samples())


def digest(sample: ImageSample) -> bytes:
    return sample.image.tobytes() + b"".join(sample.labels[task].tobytes() for task in sorted(sample.labels))


def test_counts_parts_names_and_groups(made: list[ImageSample]) -> None:
    assert [sample.part for sample in made] == ["train"] * 14 + ["val"] * 3 + ["test"] * 3
    assert len({sample.name for sample in made}) == len(made)
    assert made[2].group == "street-00003" and made[2].name == "train/street-00003-0"
    by_group: dict[str, set[str]] = {}
    for sample in made:
        by_group.setdefault(sample.group, set()).add(sample.part)
    assert len(by_group) == 7 + 2 + 2
    assert all(len(parts) == 1 for parts in by_group.values())


def test_labels_have_their_encoding_and_range(made: list[ImageSample]) -> None:
    for sample in made:
        assert sample.image.shape == (96, 128, 3) and sample.image.dtype == np.uint8
        for task, map_ in sample.labels.items():
            assert map_.dtype == ENCODINGS[task].dtype, task
            assert map_.shape == ((96, 128, 3) if task == "normals" else (96, 128)), task
        assert sample.labels["segmentation"].max() < 7
        assert set(np.unique(sample.labels["edges"])) == {0, 1}
        assert set(np.unique(sample.labels["saliency"])) <= {0, 1}
        assert sample.labels["inverse_depth"].max() < 0.49


def test_only_the_sky_has_no_depth_and_no_normals(made: list[ImageSample]) -> None:
    assert any((sample.labels["segmentation"] == label("sky")).any() for sample in made)
    for sample in made:
        sky = sample.labels["segmentation"] == label("sky")
        np.testing.assert_array_equal(valid_pixels("inverse_depth", sample.labels["inverse_depth"]), ~sky)
        np.testing.assert_array_equal(valid_pixels("normals", sample.labels["normals"]), ~sky)
        assert (sample.labels["inverse_depth"][sky] == 0).all() and not sample.labels["normals"][sky].any()
        lengths = np.linalg.norm(sample.labels["normals"][~sky].astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, 1, atol=2e-3)


def test_parts_are_there_exactly_where_people_are(made: list[ImageSample]) -> None:
    with_people = [sample for sample in made if "parts" in sample.labels]
    assert 0 < len(with_people) < len(made)
    for sample in made:
        human = sample.labels["segmentation"] == label("human")
        assert human.any() == ("parts" in sample.labels)
        if human.any():
            np.testing.assert_array_equal(sample.labels["parts"] > 0, human)
    seen = np.unique(np.concatenate([sample.labels["parts"].ravel() for sample in with_people]))
    np.testing.assert_array_equal(seen, np.arange(len(BODY_PARTS)))


def test_heads_are_above_torsos_and_those_above_legs(made: list[ImageSample]) -> None:
    rows = np.arange(96)[:, None] * np.ones((1, 128))
    checked = 0
    for sample in made:
        parts = sample.labels.get("parts")
        if parts is None or (parts > 0).sum() < 150:
            continue
        # Columns of one person at a time would be exact; over a picture the order of the means holds as well.
        means = [
            rows[parts == BODY_PARTS.index(n)].mean()
            for n in ("head", "torso", "lower_leg")
            if (parts == BODY_PARTS.index(n)).any()
        ]
        assert means == sorted(means)
        checked += 1
    assert checked


def test_the_ground_is_level_and_below_the_horizon(made: list[ImageSample]) -> None:
    normals = np.concatenate([s.labels["normals"][s.labels["segmentation"] == label("flat")] for s in made])
    assert np.median(normals[:, 1]) < -0.98
    for sample in made:
        flat = sample.labels["segmentation"] == label("flat")
        assert not flat[:24].any()


def test_streets_show_all_classes_and_no_class_covers_everything(made: list[ImageSample]) -> None:
    classes = np.stack([sample.labels["segmentation"] for sample in made])
    share = np.bincount(classes.ravel(), minlength=7) / classes.size
    assert (share > 0.003).all() and share.max() < 0.6
    assert 0.02 < np.mean([sample.labels["edges"].mean() for sample in made]) < 0.2


def test_every_salient_pixel_is_a_person_or_a_vehicle(made: list[ImageSample]) -> None:
    movable = [label("human"), label("vehicle")]
    assert any(sample.labels["saliency"].any() for sample in made)
    for sample in made:
        assert np.isin(sample.labels["segmentation"][sample.labels["saliency"] == 1], movable).all()


def test_saliency_takes_the_most_prominent_and_its_equals() -> None:
    thing, candidate = np.zeros((60, 80), dtype=int), np.zeros((60, 80), dtype=bool)

    def put(name: int, rows: slice, columns: slice) -> None:
        thing[rows, columns], candidate[rows, columns] = name, True

    put(1, slice(25, 35), slice(35, 45))  # 100 pixels in the middle: prominence 100.
    put(2, slice(25, 35), slice(50, 56))  # 60 pixels, 13 of 50 away: 60 * 0.87 = 52.2.
    put(3, slice(0, 10), slice(0, 6))  # 60 pixels near a corner: 60 * (1 - 0.5 * 44.7 / 50) = 33.2.
    put(4, slice(50, 52), slice(40, 44))  # 8 pixels: below 0.2 % of 4800.
    thing[40:60, 60:80] = 9  # Large, but neither a person nor a vehicle.
    np.testing.assert_array_equal(salient(thing, candidate) == 1, (thing == 1) | (thing == 2))
    assert not salient(thing, np.zeros_like(candidate)).any()
    assert not salient(thing, candidate & (thing == 4)).any()


def test_the_sky_is_clear_without_clouds_and_brightest_at_the_sun() -> None:
    sun = (0.6, 0.0, 0.8)
    sky = Sky((0.1, 0.2, 0.5), (0.8, 0.8, 0.8), (1, 1, 1), 0.0, sun, (1.0, 0.9, 0.7), 3)
    look = np.array([(0, 0, 1), (0.0, 1, 0), sun, (-0.6, 0, 0.8)])
    zenith, horizon, bright, away = sky.colours(look)
    assert bright.sum() > away.sum() + 1
    np.testing.assert_allclose(horizon, 0.8, atol=1e-6)
    assert zenith[2] > zenith[0]


def test_an_image_does_not_depend_on_how_many_are_made(made: list[ImageSample]) -> None:
    alone = SimulatedStreets(train=1, val=0, test=0, views=2)
    assert digest(alone.sample("train", 3)) == digest(made[3])
    assert digest(alone.sample("test", 2)) == digest(made[-1])


def test_an_image_is_the_same_bit_for_bit_in_another_process(made: list[ImageSample]) -> None:
    code = (
        "import hashlib; from isthmus.data.simulators.streets import SimulatedStreets as S;"
        "s = S(train=9, val=0, test=0, views=2).sample('train', 5);"
        "whole = s.image.tobytes() + b''.join(s.labels[t].tobytes() for t in sorted(s.labels));"
        "print(hashlib.sha256(whole).hexdigest())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == hashlib.sha256(digest(made[5])).hexdigest()


def test_views_streets_seeds_and_parts_differ(made: list[ImageSample]) -> None:
    images = [made[0], made[1], made[2], made[14], made[17]]
    images.append(SimulatedStreets(train=1, val=0, test=0, views=2, seed=1).sample("train", 0))
    assert len({digest(sample) for sample in images}) == len(images)


def test_fingerprint_is_json_and_changes_with_every_argument() -> None:
    base = {"train": 3, "val": 2, "test": 1, "seed": 0, "size": (96, 128), "views": 4}
    others = {"train": 4, "val": 3, "test": 2, "seed": 1, "size": (48, 64), "views": 2}
    prints = [json.dumps(SimulatedStreets(**base).fingerprint())]
    prints += [json.dumps(SimulatedStreets(**{**base, field: value}).fingerprint()) for field, value in others.items()]
    assert len(set(prints)) == len(prints)


def test_tasks_name_their_classes() -> None:
    tasks = SimulatedStreets(train=1, val=0, test=0).tasks
    assert list(tasks) == ["segmentation", "inverse_depth", "normals", "parts", "saliency", "edges"]
    assert tasks["segmentation"] == CITYSCAPES7 and tasks["parts"] == BODY_PARTS
    assert CITYSCAPES7 == ("flat", "construction", "object", "nature", "sky", "human", "vehicle")


@pytest.mark.parametrize(("field", "value"), [("train", -1), ("seed", True), ("views", 0), ("size", (8, 128))])
def test_bad_arguments_are_named(field: str, value: object) -> None:
    with pytest.raises(DataError, match=field):
        SimulatedStreets(**{"train": 1, "val": 1, "test": 1, field: value})
