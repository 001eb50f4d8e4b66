"""Commands that train: the demo, and one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from isthmus.cli.app import ANY_FIELD, app
from isthmus.cli.common import changed, find_recipe, parse_changes, resumable
from isthmus.cli.console import Bar, console
from isthmus.cli.tables import show
from isthmus.errors import RecipeError


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Where the runs and the report go; what is finished is not repeated.")
    ] = Path("runs/demo"),
) -> None:
    """Adapt from simulated CAD models to simulated scans: three methods, one report, within ten minutes."""
    from isthmus.evaluation.points.compare import collect, table
    from isthmus.evaluation.points.report import write_report
    from isthmus.evaluation.tables import write
    from isthmus.training.engine import train as train_recipe
    from isthmus.training.presets import named
    from isthmus.training.run import Run

    hosts = ("source-only", "defrec-pcm", "sm-dsb")
    recipes = {host: named(f"sim/{host}") for host in hosts}
    expected = sum(stage.steps for recipe in recipes.values() for stage in recipe.stages)
    runs = []
    with resumable("run the same command again"), Bar(expected, "demo") as bar:
        for host, recipe in recipes.items():
            folder = out / host
            if (folder / "recipe.yaml").exists() and Run.open(folder).finished:
                bar.skip(sum(stage.steps for stage in recipe.stages))
                runs.append(Run.open(folder))
                continue
            bar.message(f"{recipe.name} into {folder}")
            runs.append(train_recipe(recipe, folder, resume=(folder / "recipe.yaml").exists(), reporter=bar))
    result = table(collect(runs))
    write(result, out, overwrite=True)
    show(result)
    page = write_report([runs[2], runs[1], runs[0]], out / "report.html")
    console.print(f"\nReport: [bold]{page.resolve()}[/bold]", soft_wrap=True, highlight=False)


@app.command(context_settings=ANY_FIELD)
def train(
    context: typer.Context,
    recipe: Annotated[Optional[str], typer.Argument(help="A named recipe or a YAML file.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="A new folder for the run.")] = None,  # noqa: UP045
    resume: Annotated[Optional[Path], typer.Option(help="A run folder to go on with.")] = None,  # noqa: UP045
) -> None:
    """Train RECIPE into the folder OUT; any field of the recipe can be set: --stages.0.steps 500.

    After an interruption, a crash or a kill: isthmus train --resume DIR.
    """
    if recipe is not None and recipe.startswith("--"):  # without RECIPE the first field is taken for it
        context.args.insert(0, recipe)
        recipe = None
    changes = parse_changes(context.args)
    if resume is not None:
        from isthmus.training.run import Run

        if out is not None or recipe is not None:
            raise RecipeError(
                "train: --resume goes on with its own recipe in its own folder: leave out RECIPE and --out"
            )
        found = Run.open(resume).recipe
        wished = changed(found, changes)
        chosen, folder = found.model_copy(update={"engine": wished.engine}), resume
        if wished.model_dump(exclude={"engine"}) != found.model_dump(exclude={"engine"}):
            raise RecipeError("train --resume: only engine fields (devices, precision...) may change in a started run")
    else:
        if recipe is None or out is None:
            raise RecipeError("train: expected RECIPE and --out DIR (or --resume DIR); see: isthmus recipes list")
        chosen, folder = changed(find_recipe(recipe), changes), out
    from isthmus.training.engine import train as train_recipe  # torch, only once the recipe is known to be good
    from isthmus.training.run import is_main_process

    with resumable(f"isthmus train --resume {folder}"), Bar(title=chosen.name) as bar:
        run = train_recipe(chosen, folder, resume=resume is not None, reporter=bar)
    if is_main_process():
        console.print(
            f"Run: [bold]{run.path}[/bold]. Next: isthmus evaluate {run.path}", highlight=False, soft_wrap=True
        )
