"""Finished runs, sorted into rows of a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from isthmus.errors import RunError
from isthmus.training.recipe import Recipe
from isthmus.training.run import Run


def run_folders(paths: Iterable[Path]) -> list[Path]:
    """All runs in these folders, or these runs, in order; none that lies within another run."""
    found = []
    for path in paths:
        for file in sorted(path.rglob("recipe.yaml")):
            within = [parent for parent in file.parent.parents if parent.is_relative_to(path)]
            if not any((parent / "recipe.yaml").exists() for parent in within):
                found.append(file.parent)
    return found


def once(runs: Iterable[Run[Any]]) -> tuple[list[Run[Any]], list[Run[Any]]]:
    """The first run of each recipe and seed, and the others: a run that several suites have is one run."""
    first: dict[tuple[str, int], Run[Any]] = {}
    again = []
    for run in runs:
        if first.setdefault((without_seed(run.recipe), run.recipe.seed), run) is not run:
            again.append(run)
    return list(first.values()), again


def grouped(runs: Sequence[Run[Any]], key: Callable[[Recipe], str] | None = None) -> list[list[Run[Any]]]:
    """Runs that differ in their seed only, together; in the order of their first.

    ``key`` says what else must agree: everything but seed and logging by default.

    Raises RunError for a run that is not finished, and for a seed that comes twice.
    """
    groups: dict[str, list[Run[Any]]] = {}
    for run in runs:
        if not run.finished:
            raise RunError(f"{run.path}: expected a finished run, found status {run.state.get('status')!r}")
        groups.setdefault((key or without_seed)(run.recipe), []).append(run)
    for members in groups.values():
        for first, second in combinations(members, 2):
            if without_seed(first.recipe) == without_seed(second.recipe) and first.recipe.seed == second.recipe.seed:
                raise RunError(
                    f"{first.path} and {second.path}: expected different seeds, found {first.recipe.seed} twice"
                )
    return list(groups.values())


def without_seed(recipe: Recipe) -> str:
    """Everything that a result depends on but the seed, as text."""
    skipped = {"seed", "engine", "log_every", "checkpoint_every"}
    return json.dumps(recipe.model_dump(mode="json", exclude=skipped), sort_keys=True)
