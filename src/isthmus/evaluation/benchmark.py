"""A suite of recipes and seeds as one resumable command that ends in tables.

A suite is a YAML file: ``recipes`` (names or files), ``seeds``, ``set`` (fields to override in all of them),
``baseline`` (the method that gains are measured against). What is finished is skipped; what was interrupted goes on.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from isthmus.errors import RecipeError, RunError
from isthmus.evaluation.compare import comparison
from isthmus.evaluation.tables import Table, write
from isthmus.training.presets import named
from isthmus.training.readers import readers
from isthmus.training.recipe import Recipe, Spec, explain, load, override, parse
from isthmus.training.run import Run, is_main_process, write_atomically


class Suite(Spec):
    """What a benchmark runs."""

    name: str
    recipes: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    set: dict[str, Any] = Field(default_factory=dict)
    baseline: str | None = None

    def cells(self) -> Iterator[tuple[str, Recipe]]:
        """Every run of the suite: its folder below the output folder, and its recipe."""
        for seed in self.seeds:
            for name in self.recipes:
                recipe = load(Path(name)) if name.endswith((".yaml", ".yml")) else named(name)
                changes = [(field, yaml.safe_dump(value)) for field, value in {**self.set, "seed": seed}.items()]
                values = override(recipe.model_dump(mode="json"), _applicable(changes, recipe))
                yield f"{recipe.name}/seed{seed}", parse(values, where=f"suite {self.name}: {name}")


def _applicable(changes: list[tuple[str, str]], recipe: Recipe) -> list[tuple[str, str]]:
    """Without the fields of stages that a shorter recipe of the suite does not have."""
    kept = []
    for field, text in changes:
        parts = field.split(".")
        if parts[0] == "stages" and parts[1].isdigit() and int(parts[1]) >= len(recipe.stages):
            continue
        kept.append((field, text))
    return kept


def load_suite(name: str) -> Suite:
    """A suite file, or one of the suites that come with the package."""
    shipped = {file.stem: file for file in sorted((Path(__file__).parent / "suites").glob("*.yaml"))}
    file = shipped.get(name, Path(name))
    if not file.is_file():
        close = difflib.get_close_matches(name, shipped, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise RecipeError(f"suite: no file and no suite {name!r}{hint} (known: {', '.join(shipped)})")
    try:
        return Suite.model_validate(yaml.safe_load(file.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        problems = error.errors() if isinstance(error, ValidationError) else []
        text = "\n".join(explain(problem) for problem in problems) or str(error)
        raise RecipeError(f"{file}: {text}") from None


def execute(suite: Suite, out: Path, train: Callable[[list[tuple[str, Recipe]]], list[Run[Any]]]) -> dict[str, Table]:
    """Train what is missing, then write the tables (``table.md``, ``.csv``, ``.tex``...) into ``out``.

    All recipes are built and all data is looked for before the first is trained. ``train`` starts the runs, or goes on
    with them, in folders of these names below ``out``.
    """
    cells = list(suite.cells())
    _check(suite, cells, out)
    stored, text = out / "suite.yaml", yaml.safe_dump(suite.model_dump(mode="json"), sort_keys=False)
    if stored.exists() and stored.read_text() != text:
        raise RunError(f"{stored}: expected the suite that this folder was started with, found another")
    if is_main_process():
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(stored, text.encode())
    tables = comparison(train(cells), suite.baseline)
    if is_main_process():
        for name, table in tables.items():
            write(table, out, name, overwrite=True)
    return tables


def _check(suite: Suite, cells: list[tuple[str, Recipe]], out: Path) -> None:
    """Folders of their own below ``out``, and data that is there."""
    folders = [folder for folder, _ in cells]
    for folder in folders:
        if folders.count(folder) > 1 or not (out / folder).resolve().is_relative_to(out.resolve()):
            raise RecipeError(
                f"suite {suite.name}: expected a folder of its own inside {out} for every run, found {folder}"
            )
    for _, recipe in cells:
        for reader in readers(recipe).values():
            reader.fingerprint()
