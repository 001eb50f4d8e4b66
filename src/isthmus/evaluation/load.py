"""The method of a finished run, with the weights that a selection rule chose."""

from __future__ import annotations

from typing import Any

import torch

from isthmus.errors import RunError
from isthmus.methods.base import Method
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.frames.recipe import FrameRecipe
from isthmus.training.points.recipe import PointRecipe
from isthmus.training.recipe import Recipe, Rule
from isthmus.training.run import Run


def load_method(
    run: Run[Any], rule: Rule | None = None, method: Method | None = None, *, stage: str | None = None
) -> Method:
    """The method of a run with the weights that ``rule`` chose in ``stage`` (the last by default), to predict with.

    Args:
        run: a run with that stage finished.
        rule: which checkpoint; by default the recipe's own way.
        method: the object to fill, needed where the recipe's method is of the user's own making.
        stage: name of a stage.

    Returns:
        The method in eval mode, on the CPU unless ``method`` lies elsewhere.

    Raises:
        RunError: no such weights, or weights of another network.
        RecipeError: the recipe's method is custom and ``method`` is not given.
    """
    rule = rule or run.recipe.rules[0]
    method = method or _fresh(run)
    weights = run.weights(rule, stage)
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        file = run.weights_file(stage or run.recipe.stages[-1].name, rule)
        raise RunError(f"{file}: expected weights of the recipe's network, found others: {error}") from None
    return method.eval()


def _fresh(run: Run[Any]) -> Method:
    """The recipe's method, built without the data that it was trained on where that can be."""
    match run.recipe:
        case PointRecipe():
            from isthmus.training.points.build import build_method

            return build_method(run.recipe)
        case DenseRecipe():
            from isthmus.evaluation.dense.learnt import learnt
            from isthmus.training.dense.build import build_method as build_dense_method

            return build_dense_method(run.recipe, learnt(run)[0], pretrained=False)
        case FrameRecipe():
            from isthmus.evaluation.frames.learnt import build_empty

            return build_empty(run)
        case _:
            raise TypeError(f"expected one of the known kinds of recipe, found {type(run.recipe).__name__}")


def device_of(recipe: Recipe) -> torch.device:
    """Where a run's method predicts: on a GPU where there is one, unless the recipe forbids it."""
    return torch.device("cuda" if recipe.engine.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
