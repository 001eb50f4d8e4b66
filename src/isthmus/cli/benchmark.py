"""The command that runs a whole suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.app import app
from isthmus.cli.common import resumable, show
from isthmus.cli.console import Bar, console

if TYPE_CHECKING:
    from isthmus.training.recipe import Recipe
    from isthmus.training.run import Run


@app.command()
def benchmark(
    suite: Annotated[str, typer.Argument(help="A suite that comes with the package, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and tables; run again to go on.")],
) -> None:
    """Methods x directions x seeds as one resumable command that ends in tables."""
    from isthmus.evaluation.benchmark import execute, load_suite
    from isthmus.training.engine import train as train_recipe
    from isthmus.training.run import Run

    chosen = load_suite(suite)
    expected = sum(stage.steps for _, recipe in chosen.cells() for stage in recipe.stages)
    with resumable("run the same command again"), Bar(expected, chosen.name) as bar:

        def run_one(recipe: Recipe, folder: Path) -> Run:
            if (folder / "recipe.yaml").exists() and Run.open(folder).finished:
                bar.skip(sum(stage.steps for stage in recipe.stages))
            else:
                bar.message(f"{recipe.name} seed {recipe.seed}")
            return train_recipe(recipe, folder, resume=True, reporter=bar)

        result = execute(chosen, out, run_one)
    show(result)
    console.print(f"written: {out}/table.md, .csv, .tex", highlight=False, soft_wrap=True)
