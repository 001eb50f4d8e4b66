"""Tiny runs on simulated streets and on frames made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import yaml
from frame_testing import Frames

from isthmus.training.frames import problem
from isthmus.training.frames.recipe import FrameRecipe
from isthmus.training.presets import named
from isthmus.training.recipe import override, parse


def changed(recipe: FrameRecipe, **changes: object) -> FrameRecipe:
    """The recipe with fields set, dots written as two underscores."""
    pairs = [(name.replace("__", "."), yaml.safe_dump(value)) for name, value in changes.items()]
    result = parse(override(recipe.model_dump(mode="json"), pairs))
    assert isinstance(result, FrameRecipe)
    return result


def small(name: str, steps: Sequence[int] = (4, 3), **changes: object) -> FrameRecipe:
    """A named recipe on eight small frames per domain and small networks."""
    recipe = named(name)
    assert isinstance(recipe, FrameRecipe)
    values: dict[str, object] = {
        "image_network__width": 0.125, "point_network__channels": 4, "point_network__levels": 3,
        "point_network__voxel_size": 0.4, "batch_size": 2, "log_every": 1, "evaluate_every": 2, "checkpoint_every": 2,
    }  # fmt: skip
    if recipe.source.data.kind == "lidar-streets":
        for domain in ("source", "target"):
            values |= {f"{domain}__data__{part}": count for part, count in (("train", 4), ("val", 2), ("test", 2))}
            values[f"{domain}__data__size"] = [24, 40]
    for index, _ in enumerate(recipe.stages):
        values[f"stages__{index}__steps"] = steps[index]
    return changed(recipe, **{**values, **changes})


def by_hand(monkeypatch: pytest.MonkeyPatch, source: Frames, target: Frames) -> None:
    """Problems read these frames, whatever data the recipe names; a source has seed 0."""
    monkeypatch.setattr(problem, "build_reader", lambda spec: (source, target)[spec.seed])
