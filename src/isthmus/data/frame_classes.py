"""Which points of a LiDAR data set belong to which class: protocols with names.

The same scans are scored in the literature under label sets that have nothing to do with each other, some with the very
same class names: nuScenes' five classes are taken from annotated boxes in one (every point in a box, whatever it hit)
and from point labels in another, and results differ by several points of IoU. So a protocol has a name
that is part of a reader's fingerprint, and a *label space*: two data sets can be compared, adapted or put in one table
only if their label spaces are the same (``isthmus.data.class_protocol.check_one_space``).

A protocol says for each class of the data set what becomes of it and refuses to guess: one that is neither merged nor
ignored is an error.

===================== ============= ============================ ===================================================
name                  data set      label space                  classes
===================== ============= ============================ ===================================================
nuscenes-box5         nuScenes      nuscenes-box5                vehicle, pedestrian, bike, traffic_boundary,
                                                                 background
nuscenes-seg5         lidarseg      nuscenes-seg5                the same names, of point labels
nuscenes-seg6         lidarseg      nuscenes-seg6                vehicle, driveable_surface, sidewalk, terrain,
                                                                 manmade, vegetation
semantickitti-seg6    SemanticKITTI nuscenes-seg6                the same six
a2d2-10               A2D2          a2d2-semantickitti-10        car, truck, bike, person, road, parking, sidewalk,
                                                                 building, nature, other-objects
semantickitti-10      SemanticKITTI a2d2-semantickitti-10        the same ten
virtualkitti-6        VirtualKITTI  virtualkitti-semantickitti-6 vegetation_terrain, building, road, object, truck,
                                                                 car
semantickitti-vkitti6 SemanticKITTI virtualkitti-semantickitti-6 the same six
sweeps-nuscenes       small sets of lidar-sweeps-7               road, sidewalk, manmade, vegetation, person,
sweeps-ika            sweeps        lidar-sweeps-7               two-wheeler, vehicle
sweeps-semantickitti                lidar-sweeps-7
rellis3d-19           RELLIS-3D     rellis3d-19                  its own classes without void
===================== ============= ============================ ===================================================

Sources: xMUDA (Jaritz et al., CVPR 2020) for ``nuscenes-box5`` and the ten classes; its journal version (PAMI 2022) for
``nuscenes-seg6`` and both sets of six; ``nuscenes-seg5`` is what DsCML (ICCV 2021) calls "Lidarseg", recovered from the
preprocessing of later work that reports the same baselines.
"""

from __future__ import annotations

from isthmus.data.class_map import nearest
from isthmus.data.class_protocol import ClassProtocol
from isthmus.errors import DataError

_VEHICLES = ("car", "truck", "bus", "trailer", "construction_vehicle")
_FIVE = {
    "vehicle": _VEHICLES,
    "pedestrian": ("pedestrian",),
    "bike": ("motorcycle", "bicycle"),
    "traffic_boundary": ("traffic_cone", "barrier"),
    "background": ("background",),
}

NUSCENES_BOX5 = ClassProtocol("nuscenes-box5", "nuscenes", "nuscenes-box5", _FIVE)
"""Points inside annotated boxes; every other point is background."""

NUSCENES_SEG5 = ClassProtocol("nuscenes-seg5", "nuscenes-lidarseg", "nuscenes-seg5", _FIVE)
"""Point labels merged to the classes of the boxes; all that is flat, static or unknown is background."""

NUSCENES_SEG6 = ClassProtocol(
    "nuscenes-seg6",
    "nuscenes-lidarseg",
    "nuscenes-seg6",
    {
        "vehicle": (*_VEHICLES, "bicycle", "motorcycle"),
        "driveable_surface": ("driveable_surface",),
        "sidewalk": ("sidewalk",),
        "terrain": ("terrain",),
        "manmade": ("manmade",),
        "vegetation": ("vegetation",),
    },
    ("ignore", "barrier", "pedestrian", "traffic_cone", "other_flat"),
)
"""Point labels of the lidarseg challenge merged to six."""

A2D2_10 = ClassProtocol(
    "a2d2-10",
    "a2d2",
    "a2d2-semantickitti-10",
    {
        "car": ("Car 1", "Car 2", "Car 3", "Car 4", "Ego car"),
        "truck": ("Truck 1", "Truck 2", "Truck 3"),
        "bike": (
            *(f"Bicycle {number}" for number in range(1, 5)),
            *(f"Small vehicles {number}" for number in range(1, 4)),
        ),
        "person": ("Pedestrian 1", "Pedestrian 2", "Pedestrian 3"),
        "road": (
            "RD normal street",
            "Zebra crossing",
            "Solid line",
            "RD restricted area",
            "Slow drive area",
            "Drivable cobblestone",
            "Dashed line",
            "Painted driv. instr.",
        ),
        "parking": ("Parking area",),
        "sidewalk": ("Sidewalk", "Curbstone"),
        "building": ("Buildings",),
        "nature": ("Nature object",),
        "other-objects": (
            "Poles",
            *(f"Traffic signal {number}" for number in range(1, 4)),
            *(f"Traffic sign {number}" for number in range(1, 4)),
            "Sidebars",
            "Speed bumper",
            "Irrelevant signs",
            "Road blocks",
            "Obstacles / trash",
            "Animals",
            "Signal corpus",
            "Electronic traffic",
            "Traffic guide obj.",
            "Grid structure",
        ),
    },
    (
        *("Sky", "Utility vehicle 1", "Utility vehicle 2", "Tractor", "Non-drivable street", "Blurred area"),
        *("Rain dirt", "unknown"),
    ),
)
"""A2D2's 55 classes and "unknown", a colour that is none of theirs."""

_KITTI_BIKES = ("bicycle", "motorcycle", "bicyclist", "motorcyclist", "moving-bicyclist", "moving-motorcyclist")
_KITTI_NEVER = (
    *("unlabeled", "outlier", "bus", "on-rails", "other-vehicle", "other-ground", "other-structure"),
    *("moving-on-rails", "moving-bus", "moving-other-vehicle"),
)
_KITTI_OBJECTS = ("pole", "traffic-sign", "other-object")

SEMANTICKITTI_10 = ClassProtocol(
    "semantickitti-10",
    "semantickitti",
    "a2d2-semantickitti-10",
    {
        "car": ("car", "moving-car"),
        "truck": ("truck", "moving-truck"),
        "bike": _KITTI_BIKES,
        "person": ("person", "moving-person"),
        "road": ("road", "lane-marking"),
        "parking": ("parking",),
        "sidewalk": ("sidewalk",),
        "building": ("building",),
        "nature": ("vegetation", "trunk", "terrain"),
        "other-objects": ("fence", *_KITTI_OBJECTS),
    },
    _KITTI_NEVER,
)
"""SemanticKITTI in the classes it shares with A2D2."""

SEMANTICKITTI_VKITTI6 = ClassProtocol(
    "semantickitti-vkitti6",
    "semantickitti",
    "virtualkitti-semantickitti-6",
    {
        "vegetation_terrain": ("vegetation", "trunk", "terrain"),
        "building": ("building",),
        "road": ("road", "lane-marking"),
        "object": ("fence", *_KITTI_OBJECTS),
        "truck": ("truck", "moving-truck"),
        "car": ("car", "moving-car"),
    },
    (*_KITTI_NEVER, *_KITTI_BIKES, "person", "moving-person", "parking", "sidewalk"),
)
"""SemanticKITTI in the classes it shares with VirtualKITTI."""

SEMANTICKITTI_SEG6 = ClassProtocol(
    "semantickitti-seg6",
    "semantickitti",
    "nuscenes-seg6",
    {
        "vehicle": ("truck", "car", "moving-truck", "moving-car", *_KITTI_BIKES),
        "driveable_surface": ("road", "lane-marking", "parking"),
        "sidewalk": ("sidewalk",),
        "terrain": ("terrain",),
        "manmade": ("building", "fence", *_KITTI_OBJECTS),
        "vegetation": ("vegetation", "trunk"),
    },
    (*_KITTI_NEVER, "person", "moving-person"),
)
"""SemanticKITTI in the classes of ``nuscenes-seg6``."""

VIRTUALKITTI_6 = ClassProtocol(
    "virtualkitti-6",
    "virtualkitti",
    "virtualkitti-semantickitti-6",
    {
        "vegetation_terrain": ("Terrain", "Tree", "Vegetation"),
        "building": ("Building",),
        "road": ("Road",),
        "object": ("TrafficSign", "TrafficLight", "Pole", "Misc"),
        "truck": ("Truck",),
        "car": ("Car",),
    },
    ("GuardRail", "Van", "Don't care"),
)
"""VirtualKITTI 1.3.1; vans and guard rails have no counterpart in the classes shared with SemanticKITTI."""

_SWEEPS = ("road", "sidewalk", "manmade", "vegetation", "person", "two-wheeler", "vehicle")
_ROAD_VEHICLES = ("car", "truck", "bus")

SWEEPS_NUSCENES = ClassProtocol(
    "sweeps-nuscenes",
    "sweeps-nuscenes",
    "lidar-sweeps-7",
    dict(
        zip(
            _SWEEPS,
            (("road",), ("sidewalk",), ("building",), ("vegetation",), ("person",), ("two-wheeler",), _ROAD_VEHICLES),
        )
    ),
    ("pole", "none"),
)
"""nuScenes knows no poles (they are "manmade", here "building"); the few points called so are low, so traffic cones."""

SWEEPS_IKA = ClassProtocol(
    "sweeps-ika",
    "sweeps-ika",
    "lidar-sweeps-7",
    {**SWEEPS_NUSCENES.merge, "manmade": ("building", "pole")},
    ("none",),
)
"""The ika sensor, with the same names but real poles."""

SWEEPS_SEMANTICKITTI = ClassProtocol(
    "sweeps-semantickitti",
    "sweeps-semantickitti",
    "lidar-sweeps-7",
    dict(
        zip(
            _SWEEPS,
            (
                ("road", "parking"),
                ("sidewalk",),
                ("building", "fence", "pole", "traffic-sign"),
                ("vegetation", "trunk", "terrain"),
                ("person",),
                ("bicycle", "motorcycle", "bicyclist", "motorcyclist"),
                ("car", "truck", "other-vehicle"),
            ),
        )
    ),
    ("unlabeled", "other-ground"),
)
"""SemanticKITTI's training classes. Terrain is vegetation, as much of nuScenes' vegetation lies on the ground."""

RELLIS3D = ClassProtocol(
    "rellis3d-19",
    "rellis3d",
    "rellis3d-19",
    {
        name: (name,)
        for name in (
            *("dirt", "grass", "tree", "pole", "water", "sky", "vehicle", "object", "asphalt", "building"),
            *("log", "person", "fence", "bush", "concrete", "barrier", "puddle", "mud", "rubble"),
        )
    },
    ("void",),
)
"""RELLIS-3D's own classes."""

PROTOCOLS: dict[str, ClassProtocol] = {
    given.name: given
    for given in (
        NUSCENES_BOX5,
        NUSCENES_SEG5,
        NUSCENES_SEG6,
        SEMANTICKITTI_SEG6,
        A2D2_10,
        SEMANTICKITTI_10,
        VIRTUALKITTI_6,
        SEMANTICKITTI_VKITTI6,
        SWEEPS_NUSCENES,
        SWEEPS_IKA,
        SWEEPS_SEMANTICKITTI,
        RELLIS3D,
    )
}
"""All protocols by name."""


def protocol(name: str, dataset: str | None = None) -> ClassProtocol:
    """The protocol of a name.

    Args:
        name: one of :data:`PROTOCOLS`.
        dataset: if given, the protocol must be one of this data set.

    Raises:
        DataError: there is none.
    """
    known = [own for own, given in PROTOCOLS.items() if dataset in (None, given.dataset)]
    if name not in known:
        raise DataError(f"protocol: expected one of {', '.join(known)}, found {name!r}{nearest(name, known)}")
    return PROTOCOLS[name]
