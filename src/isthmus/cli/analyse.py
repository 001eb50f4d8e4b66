"""``isthmus analyse``: gradient conflicts of a run over its training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from isthmus.cli.app import app
from isthmus.cli.common import Rule, chosen_rule, resumable
from isthmus.cli.console import Bar, console
from isthmus.errors import RunError


@app.command()
def analyse(
    run: Annotated[Path, typer.Argument(help="A finished run of clouds with a self-supervised loss.")],
    out: Annotated[Optional[Path], typer.Option(help="Folder; RUN/analysis by default.")] = None,  # noqa: UP045
    against: Annotated[Optional[Path], typer.Option(help="A run to show beside it: the one without the gate.")] = None,  # noqa: UP045
    sweep: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of finished runs that differ in method.gate.keep, method.gate.alpha and the seed."),
    ] = None,
    every: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Measure every so many steps; about 60 steps in all by default."),
    ] = None,
    stages: Annotated[Optional[str], typer.Option(help="Names of stages, with commas; all by default.")] = None,  # noqa: UP045
    causality: Annotated[bool, typer.Option(help="Run the additive-noise tests (minutes).")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an analysis in OUT.")] = False,
    select: Rule = None,
) -> None:
    """Gradient conflicts over the training of a run: the figures of SM-DSB's analysis. USES TARGET LABELS.

    The training is repeated to look into it, so this takes longer than it took. Interrupted, it goes on when it is run
    again.
    """
    from isthmus.training.run import Run

    opened = Run.open(run)
    if opened.recipe.kind != "points":
        raise RunError(f"{run}: expected a run on point clouds to analyse, found kind {opened.recipe.kind!r}")
    beside = None if against is None else Run.open(against)
    if beside is not None and beside.recipe.kind != "points":
        raise RunError(f"{against}: expected a run on point clouds to analyse, found kind {beside.recipe.kind!r}")
    from isthmus.evaluation.points.analysis import analyse as analyse_run

    chosen = tuple(name.strip() for name in (stages or "").split(",") if name.strip())
    expected = sum(stage.steps for each in (opened, beside) if each is not None for stage in each.recipe.stages)
    with resumable("run the same command again"), Bar(expected, "trained again") as bar:
        page = analyse_run(
            opened,
            out,
            against=beside,
            sweep=sweep,
            every=every,
            stages=chosen,
            rule=chosen_rule(opened, select),
            causality=causality,
            overwrite=overwrite,
            reporter=bar,
        )
    console.print("ANALYSIS: every number in it uses target labels.", highlight=False, soft_wrap=True)
    console.print(f"Analysis: [bold]{page.resolve()}[/bold]", highlight=False, soft_wrap=True)
