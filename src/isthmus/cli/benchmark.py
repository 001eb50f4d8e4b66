"""The command that runs a whole suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from isthmus.cli.app import app
from isthmus.cli.common import resumable
from isthmus.cli.console import Bar, console
from isthmus.cli.tables import show_tables

if TYPE_CHECKING:
    from isthmus.training.recipe import Recipe
    from isthmus.training.run import Run


@app.command()
def benchmark(
    suite: Annotated[str, typer.Argument(help="A suite that comes with the package, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and tables; run again to go on.")],
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time; the CPUs are shared out among them.")] = 1,
    ray: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="ADDRESS",
            help="Use the machines of a running Ray cluster (ray start --head): HOST:PORT or auto. All of them must "
            "see OUT under the same path.",
        ),
    ] = None,
) -> None:
    """Methods x directions x seeds as one resumable command that ends in tables.

    A suite of one's own is a YAML file: name, recipes (names or files), seeds, baseline (the method that gains are
    measured against) and, if wanted, set: fields and values that all runs get, such as "target.data.test: 2000".
    """
    from isthmus.evaluation.benchmark import execute, load_suite

    chosen = load_suite(suite)
    expected = sum(stage.steps for _, recipe in chosen.cells() for stage in recipe.stages)
    with resumable("run the same command again"), Bar(expected, chosen.name) as bar:

        def train(cells: list[tuple[str, Recipe]]) -> list[Run[Any]]:
            if workers == 1 and ray is None:
                return [_train_here(recipe, out / name, bar) for name, recipe in cells]
            from isthmus.evaluation.spread import Cell, train_spread

            return train_spread([Cell(*cell) for cell in cells], out, workers=workers, address=ray, reporter=bar)

        tables = execute(chosen, out, train)
    show_tables(tables)
    console.print(f"written: {out}/table.md, .csv, .tex", highlight=False, soft_wrap=True)


def _train_here(recipe: Recipe, folder: Path, bar: Bar) -> Run[Any]:
    from isthmus.training.engine import train
    from isthmus.training.run import Run

    if (folder / "recipe.yaml").exists() and Run.open(folder).finished:
        bar.skip(sum(stage.steps for stage in recipe.stages))
    else:
        bar.message(f"{recipe.name} seed {recipe.seed}")
    return train(recipe, folder, resume=True, reporter=bar)
