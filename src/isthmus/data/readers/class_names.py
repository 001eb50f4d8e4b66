"""Names of the label sets that several readers share, in the order of their indices."""

from __future__ import annotations

NYU13 = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)
"""NYUv2's thirteen classes (Couprie et al., "Indoor Semantic Segmentation using depth information", ICLR 2013)."""

CITYSCAPES7 = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
"""Cityscapes' categories (Cordts et al., CVPR 2016), without void."""

CITYSCAPES19 = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
"""Cityscapes' training classes in the order of their ``trainId``."""

VOC21 = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""PASCAL VOC 2012's classes, background first."""

HUMAN_PARTS7 = ("background", "head", "torso", "upper_arm", "lower_arm", "upper_leg", "lower_leg")
"""PASCAL-Part's persons in six parts, background first (ASTMT, Maninis et al., CVPR 2019)."""
