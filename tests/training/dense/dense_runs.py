"""Tiny runs of dense prediction, and what it means that two of them are the same."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dense_testing import changed, tiny
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.engine import Silent
from isthmus.training.run import Run, read_arrays, read_checkpoint


def recipes() -> dict[str, DenseRecipe]:
    """Everything that has a state of its own to lose: optimisers, schedules, weightings, second views, stages."""
    film = {"mapping.film": 10.0}
    step = {"stages__0__schedule": "step", "stages__0__decay_every": 2}
    two_stages = [
        {"name": "maps", "steps": 3, "frozen": ["network"]},
        {"name": "stage1", "steps": 4, "frozen": ["maps"]},
    ]
    return {
        "multi-task": tiny("multi-task/rooms-onelabel"),
        "mtpsl-released": tiny("mtpsl-released/rooms-random", stages__0__learning_rate_scale=film),
        # so fast that it gets worse after the first step, whose weights stay chosen
        "choosing": changed(tiny("multi-task/rooms-onelabel", stages__0__learning_rate=0.3), evaluate_every=1),
        "x-task": changed(tiny("x-task/rooms-full"), tasks=["segmentation", "depth"], stages=two_stages),
        "mtpsl": tiny("mtpsl/rooms-onelabel", stages__0__learning_rate_scale=film, ema=0.9),
        "uncertainty": tiny("uncertainty/rooms-random"),
        "gradnorm": tiny("gradnorm/rooms-random"),
        "dwa": tiny("dwa/rooms-random", weighting__interval=3),
        "mgda": tiny("mgda/rooms-onelabel"),
        "step": tiny("multi-task/rooms-random", **step, stages__0__optimizer="sgd"),
        "poly": tiny("multi-task/rooms-random", stages__0__schedule="poly", stages__0__clip_norm=1.0),
    }


def torchjd_recipe(rule: str) -> DenseRecipe:
    return tiny(f"{rule}/rooms-random")


class Stopping(Silent):
    """Interrupts the training after some steps, the way a crash does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("power cut")


class StoppingAtEvaluation(Silent):
    """Interrupts right after an evaluation, before the checkpoint that knows of it."""

    def message(self, text: str) -> None:
        if "validation" in text:
            raise RuntimeError("power cut")


def another_process() -> None:
    """Global random state as a resumed process would find it: anything but what it was."""
    seed = random.SystemRandom().randrange(2**31)
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def assert_same(first: Run, second: Run) -> None:
    """Two runs are the same to the last bit: all weights, the optimiser, the log, what was measured."""
    files = [sorted(p.name for p in (run.path / "checkpoints").iterdir()) for run in (first, second)]
    assert files[0] == files[1] and len(files[0]) >= 3
    for name in files[0]:
        one, other = (read_checkpoint(run.path / "checkpoints" / name) for run in (first, second))
        assert_same_values({**one, "seconds": 0}, {**other, "seconds": 0}, name)
    assert list(first.rows("metrics")) == list(second.rows("metrics"))
    assert (first.path / "metrics.csv").read_text() == (second.path / "metrics.csv").read_text()
    for one, other in zip(first.evaluations(), second.evaluations(), strict=True):
        arrays, others = read_arrays(one), read_arrays(other)
        assert arrays.keys() == others.keys()
        assert all(np.array_equal(array, others[name], equal_nan=True) for name, array in arrays.items())


def assert_same_values(one: Any, other: Any, where: str) -> None:
    """Nested containers of tensors and numbers, compared without any tolerance."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one.nan_to_num(7.25), other.nan_to_num(7.25)), where
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same_values(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other)):
            assert_same_values(left, right, f"{where}/{index}")
    else:
        assert one == other, where
