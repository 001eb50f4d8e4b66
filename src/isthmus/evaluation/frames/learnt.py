"""What a run on frames has learnt, without the data that it learnt it from."""

from __future__ import annotations

import numpy as np

from isthmus.methods.base import Method
from isthmus.training.frames.build import build_method
from isthmus.training.frames.problem import FrameProblem
from isthmus.training.frames.recipe import FrameRun


def learnt_classes(run: FrameRun) -> tuple[str, ...]:
    """Names of the classes, from ``run.json`` or, where it has not noted them, from the data."""
    noted = run.state.get("classes")
    return FrameProblem(run.recipe).source.classes if noted is None else tuple(noted)


def learnt_size(run: FrameRun) -> tuple[int, int]:
    """Height and width of the images that the run was measured on; (0, 0) for sweeps alone."""
    noted = run.state.get("size")
    height, width = FrameProblem(run.recipe).target.size if noted is None else noted
    return int(height), int(width)


def build_empty(run: FrameRun) -> Method:
    """The method of a run, to be filled with its weights."""
    classes = learnt_classes(run)
    # Weights of classes and their shares are buffers, which come with the other weights.
    return build_method(run.recipe, classes, np.ones(len(classes), dtype=np.int64), pretrained=False)
