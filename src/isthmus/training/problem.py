"""What the engine has to know about what is learnt: its data, its method, and what is looked at in training.

The engine is one loop for every kind of recipe. Point clouds, images and whatever comes later meet it here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.methods.base import Method
from isthmus.training.recipe import PseudoLabelSpec, Recipe
from isthmus.training.run import Run

Predict = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Inputs by modality to outputs by task, in evaluation mode and without gradients."""


Embed = Callable[[dict[str, Tensor]], Tensor]
"""Inputs by modality to the method's embeddings ``(B, D)``, in evaluation mode and without gradients."""


class BatchStream(Protocol):
    """Training batches of one domain; batch t is a pure function of (seed, t)."""

    def batch(self, progress: Progress, position: int, *, rank: int = 0, world: int = 1) -> Batch:
        """The batch of global step ``position`` on this process."""
        ...


class Monitor(ABC):
    """Evaluates a method in training and remembers the best score of each selection rule, stage by stage.

    Equal scores go to the later step.
    """

    def __init__(self) -> None:
        self.best: dict[str, float] = {}

    @abstractmethod
    def evaluate(
        self, predict: Predict, stage: str, step: int, *, last: bool, measures: Mapping[str, float]
    ) -> dict[str, float]:
        """Scores after ``step`` steps of ``stage``; writes what was measured into the run.

        ``measures`` are the method's own (:meth:`isthmus.methods.base.Method.measures`).
        """

    @abstractmethod
    def candidates(self, scores: Mapping[str, float]) -> dict[str, float]:
        """What each selection rule would choose by, higher is better; without the rules that veto this step.

        Names that are no rule of the recipe keep a checkpoint for a later stage to start from.
        """

    @abstractmethod
    def summary(self, scores: Mapping[str, float]) -> str:
        """The scores in one line, for people."""

    def improved(self, scores: Mapping[str, float]) -> list[str]:
        """The selection rules for which these scores are the best of the stage so far."""
        candidates = self.candidates(scores)
        better = [rule for rule, score in candidates.items() if score >= self.best.get(rule, -np.inf)]
        self.best.update({rule: candidates[rule] for rule in better})
        return better


class Problem(ABC):
    """A recipe with its prepared data."""

    recipe: Recipe

    @property
    @abstractmethod
    def stores(self) -> dict[str, tuple[str, ...]]:
        """What the prepared data of each domain is known by: a run belongs to these rows."""

    @abstractmethod
    def accounts(self) -> list[str]:
        """A line for each domain: what was prepared, and where it lies."""

    def check(self) -> None:
        """Raises IsthmusError where the data is there but nothing can be learnt from it."""
        return

    def left_out(self) -> list[str]:
        """A line for each domain of which something could not be used, with the first reason."""
        return []

    def description(self) -> dict[str, Any]:
        """What the run folder has to know of the data so that predicting needs no data set, as JSON values."""
        return {}

    @abstractmethod
    def build_method(self) -> Method:
        """The method with freshly initialised networks, the same for the same seed."""

    def adopt(self, method: Method) -> None:
        """Give a method of the user's own what the recipe says about all methods."""
        return

    @abstractmethod
    def streams(self, method: Method) -> dict[str, BatchStream]:
        """Training batches by domain."""

    @abstractmethod
    def monitor(self, run: Run) -> Monitor:
        """What evaluates the run while it trains."""

    def initialise(self, method: Method) -> str | None:
        """Load weights of the user's own into a fresh method; returns an account of what was loaded."""
        return None

    def write_pseudo_labels(self, predict: Predict, spec: PseudoLabelSpec, file: Path) -> str:
        """Label the target with the model's predictions; returns an account."""
        raise NotImplementedError(f"{type(self).__name__} has no pseudo-labels")

    def refresh_pseudo_labels(
        self, predict: Predict, embed: Embed, spec: PseudoLabelSpec, before: Path, file: Path, *, progress: Progress
    ) -> str:
        """Label the target anew within a stage, from the labels in ``before`` on; returns an account.

        The same for the same weights and ``progress``: a resumed run comes past it again.
        """
        return self.write_pseudo_labels(predict, spec, file)

    def use_pseudo_labels(self, file: Path, streams: Mapping[str, BatchStream]) -> None:
        """Let the target's stream carry the labels that were written to ``file``."""
        raise NotImplementedError(f"{type(self).__name__} has no pseudo-labels")


def open_problem(recipe: Recipe, *, progress: bool = False) -> Problem:
    """Prepare (once) and open the data of a recipe."""
    from isthmus.training.dense.recipe import DenseRecipe
    from isthmus.training.frames.recipe import FrameRecipe
    from isthmus.training.points.recipe import PointRecipe

    match recipe:
        case PointRecipe():
            from isthmus.training.points.problem import PointProblem

            return PointProblem(recipe, progress=progress)
        case DenseRecipe():
            from isthmus.training.dense.problem import DenseProblem

            return DenseProblem(recipe, progress=progress)
        case FrameRecipe():
            from isthmus.training.frames.problem import FrameProblem

            return FrameProblem(recipe, progress=progress)
        case _:
            raise TypeError(f"expected one of the known kinds of recipe, found {type(recipe).__name__}")
