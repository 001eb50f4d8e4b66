import re
from pathlib import Path

import numpy as np
import pytest

from isthmus.data.class_protocol import ClassProtocol, apply_table, check_one_space
from isthmus.data.frame_classes import PROTOCOLS, protocol
from isthmus.data.readers.nuscenes import BOX_CLASSES, SEG5_CLASSES, SEG6_CLASSES
from isthmus.data.readers.rellis3d import LABELS as RELLIS_LABELS
from isthmus.data.readers.semantickitti import LABELS as KITTI_LABELS
from isthmus.data.readers.virtualkitti import CLASSES as VIRTUAL_CLASSES
from isthmus.errors import DataError

# The 32 categories of lidarseg in the order of their numbers.
LIDARSEG = [
    "noise",
    "animal",
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.barrier",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.car",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.motorcycle",
    "vehicle.trailer",
    "vehicle.truck",
    "flat.driveable_surface",
    "flat.other",
    "flat.sidewalk",
    "flat.terrain",
    "static.manmade",
    "static.other",
    "static.vegetation",
    "vehicle.ego",
]


def test_names_are_unique_and_spaces_agree_on_their_classes() -> None:
    by_space: dict[str, set[tuple[str, ...]]] = {}
    for name, given in PROTOCOLS.items():
        assert given.name == name
        by_space.setdefault(given.space, set()).add(given.classes)
    assert all(len(classes) == 1 for classes in by_space.values()), by_space


def test_the_five_classes_of_boxes_and_of_points_can_never_be_mixed() -> None:
    box, seg = protocol("nuscenes-box5"), protocol("nuscenes-seg5")
    assert box.classes == seg.classes
    with pytest.raises(DataError, match=r"found nuscenes-box5 \(nuscenes-box5\) and nuscenes-seg5 \(nuscenes-seg5\)"):
        check_one_space([box, seg])
    assert check_one_space([protocol("a2d2-10"), protocol("semantickitti-10")]) == "a2d2-semantickitti-10"
    assert check_one_space([protocol("nuscenes-seg6"), protocol("semantickitti-seg6")]) == "nuscenes-seg6"
    with pytest.raises(DataError, match="at least one"):
        check_one_space([])


def test_every_class_of_every_data_set_has_a_place() -> None:
    fine = {
        "nuscenes": [*BOX_CLASSES.values(), "background"],
        "semantickitti": list(KITTI_LABELS.values()),
        "virtualkitti": list(VIRTUAL_CLASSES),
        "rellis3d": list(RELLIS_LABELS.values()),
    }
    for given in PROTOCOLS.values():
        for name in fine.get(given.dataset, ()):
            assert given.label(name) in (*range(len(given.classes)), 255)
    # And every class named in a protocol is one of the data set's.
    for given in PROTOCOLS.values():
        if given.dataset in fine and given.dataset != "nuscenes":
            named = {*given.ignored, *(name for group in given.merge.values() for name in group)}
            assert named == set(fine[given.dataset])


def test_lidarsegs_five_classes_are_those_of_the_recovered_table() -> None:
    # Numbers of the eleven classes by number of the category, as recovered from later work's preprocessing.
    published = [10, 10, 5, 5, 5, 5, 5, 5, 5, 9, 10, 10, 8, 10, 7, 2, 2, 0, 4, 2, 0, 6, 3, 1, *[10] * 7, 0]
    eleven = ["car", "truck", "bus", "trailer", "construction_vehicle", "pedestrian", "motorcycle", "bicycle"]
    eleven += ["traffic_cone", "barrier", "background"]
    assert [SEG5_CLASSES[name] for name in LIDARSEG] == [eleven[number] for number in published]
    seg5 = protocol("nuscenes-seg5")
    merged = [0, 0, 0, 0, 0, 1, 2, 2, 3, 3, 4]
    table = seg5.table({number: SEG5_CLASSES[name] for number, name in enumerate(LIDARSEG)}, 32)
    assert table.tolist() == [merged[number] for number in published]


def test_lidarsegs_six_classes_leave_out_what_moves_slowly() -> None:
    seg6 = protocol("nuscenes-seg6")
    labels = {name: seg6.label(SEG6_CLASSES[name]) for name in LIDARSEG}
    assert [labels[name] for name in ("vehicle.car", "vehicle.bicycle", "vehicle.motorcycle")] == [0, 0, 0]
    flat = ("flat.driveable_surface", "flat.sidewalk", "flat.terrain", "static.manmade", "static.vegetation")
    assert [labels[name] for name in flat] == [1, 2, 3, 4, 5]
    assert {labels[name] for name in LIDARSEG if name.startswith(("human", "movable"))} == {255}
    assert {labels[name] for name in ("noise", "flat.other", "static.other", "vehicle.ego")} == {255}
    assert labels["vehicle.emergency.police"] == 255 and labels["static_object.bicycle_rack"] == 255


def test_semantickittis_three_merges_differ_where_they_should() -> None:
    ten, virtual, six = (protocol(f"semantickitti-{name}") for name in ("10", "vkitti6", "seg6"))
    expected = {
        "moving-car": ("car", "car", "vehicle"),
        "bicyclist": ("bike", None, "vehicle"),
        "person": ("person", None, None),
        "parking": ("parking", None, "driveable_surface"),
        "terrain": ("nature", "vegetation_terrain", "terrain"),
        "trunk": ("nature", "vegetation_terrain", "vegetation"),
        "fence": ("other-objects", "object", "manmade"),
        "building": ("building", "building", "manmade"),
        "bus": (None, None, None),
        "unlabeled": (None, None, None),
    }
    for name, classes in expected.items():
        for given, wanted in zip((ten, virtual, six), classes):
            assert given.label(name) == (255 if wanted is None else given.classes.index(wanted))


def test_a_class_that_nobody_named_is_an_error() -> None:
    with pytest.raises(
        DataError, match=r"semantickitti-10: expected a class of semantickitti, found 'cars'; did you mean"
    ):
        protocol("semantickitti-10").label("cars")
    with pytest.raises(DataError, match="found 'a' twice"):
        ClassProtocol("x", "y", "z", {"one": ("a",), "two": ("b", "a")})
    with pytest.raises(DataError, match=r"found 'a' twice"):
        ClassProtocol("x", "y", "z", {"one": ("a",)}, ("a",))
    with pytest.raises(
        DataError, match=r"protocol: expected one of .*, found 'nuscenes-box'; did you mean 'nuscenes-box5'"
    ):
        protocol("nuscenes-box")
    with pytest.raises(DataError, match=re.escape("expected one of a2d2-10, found 'nuscenes-box5'")):
        protocol("nuscenes-box5", "a2d2")


def test_numbers_that_are_no_class_are_an_error() -> None:
    table = ClassProtocol("x", "y", "z", {"one": ("a",), "two": ("b",)}, ("c",)).table({0: "c", 2: "a", 5: "b"}, 6)
    assert table.tolist() == [255, -1, 0, -1, -1, 1]
    labels = apply_table(table, np.array([5, 2, 0, 2]), "file")
    assert labels.dtype == np.uint8 and labels.tolist() == [1, 0, 255, 0]
    assert apply_table(table, np.zeros(0, np.uint32), "file").shape == (0,)
    for wrong in (1, 6, -1, 2**31):
        with pytest.raises(DataError, match=rf"{Path('a.label')}: labels: .*found {wrong} \(of 2 points\)"):
            apply_table(table, np.array([2, wrong, wrong]), Path("a.label"))
    with pytest.raises(DataError, match="from 0 to 3, found 4"):
        ClassProtocol("x", "y", "z", {"one": ("a",)}).table({4: "a"}, 4)
