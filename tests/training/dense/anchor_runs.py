"""Tiny runs of anchor-task recipes, and prepared data that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dense_testing import changed
from isthmus.data.image_store import ImageStore
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.engine import Silent
from isthmus.training.presets import named

BEHIND_UP2 = ("network.up3.", "network.heads.", "network.vectors.")


def small(name: str, steps: tuple[int, ...] = (2, 2), **changes: object) -> DenseRecipe:
    """A named recipe on a dozen small images per domain; games begin early in a stage and are played by few channels.

    ``steps`` are those of the stages, as many as the recipe has.
    """
    recipe = named(name)
    assert isinstance(recipe, DenseRecipe)
    size = [32, 32] if "faces" in name else [24, 32]
    values: dict[str, object] = {
        "network__width": 0.125, "network__decoder_channels": 64, "batch_size": 4, "log_every": 1,
        "evaluate_every": 2, "checkpoint_every": 2,
    }  # fmt: skip
    for domain in ("source", "target"):
        values |= {f"{domain}__data__{part}": count for part, count in {"train": 12, "val": 6, "test": 4}.items()}
        values |= {f"{domain}__data__size": size, f"{domain}__size": size}
    for index, _ in enumerate(recipe.stages):
        values[f"stages__{index}__steps"] = steps[index]
    for index, _ in enumerate(getattr(recipe.method, "adversaries", ())):
        values[f"method__adversaries__{index}__hidden"] = 4
        values[f"method__adversaries__{index}__start"] = 0.2
    return changed(recipe, **{**values, **changes})


class Keeping(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def copied(recipe: DenseRecipe, folder: Path) -> Path:
    """A copy of the target's prepared data, beside one of the source's, in a cache of its own."""
    problem = DenseProblem(recipe)
    assert problem.target is not None
    for store in (problem.source, problem.target):
        if not (folder / store.path.name).exists():
            shutil.copytree(store.path, folder / store.path.name)
    return folder / problem.target.path.name


def rewrite(file: Path, change: Any, rows: Any = slice(None)) -> None:
    """Change rows of an array on disk."""
    array = np.load(file, mmap_mode="r+")
    array[rows] = change(array[rows])
    array.flush()


def another_class(label: np.ndarray) -> np.ndarray:
    return np.where(label == 255, label, (label + 1) % 13)


def part_of(store: ImageStore, *parts: str) -> np.ndarray:
    return np.concatenate([store.indices(part) for part in parts])


def split_state(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What lies behind the second upsampling, buffers too, and the rest of the network."""
    behind = {key: value for key, value in state.items() if key.startswith(BEHIND_UP2)}
    before = {key: value for key, value in state.items() if key.startswith("network.") and key not in behind}
    return behind, before
