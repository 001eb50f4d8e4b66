"""``isthmus audit``: which few target samples to label to decide between two runs, and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from isthmus.cli.app import app
from isthmus.cli.common import chosen_rule
from isthmus.cli.console import console
from isthmus.cli.tables import show
from isthmus.errors import RecipeError


@app.command()
def audit(
    first: Annotated[Path, typer.Argument(metavar="A", help="A finished run that classifies clouds.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one, on the same target.")],
    labels: Annotated[Optional[int], typer.Option(help="How many clouds you are ready to label.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="The labelling sheet to write, a new .csv.")] = None,  # noqa: UP045
    sheet: Annotated[Optional[Path], typer.Option(help="The filled sheet, for the verdict.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other clouds.")] = 0,
    draw: Annotated[
        Literal["equal", "decisive"],
        typer.Option(help="decisive: rather those on which one of the two is probably right."),
    ] = "equal",
    data: Annotated[str, typer.Option(help="'target', or other clouds, as evaluate takes them.")] = "target",
    width: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="With --sheet: how many labels an interval of ± so many points would need."),
    ] = None,
    select: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Which checkpoint: label-free, source-val or last; the recipe's own way by default."),
    ] = None,
) -> None:
    """Which N target clouds to label to decide between two runs; then which run is better, with an interval.

    First: isthmus audit A B --labels N --out sheet.csv. Fill in the labels. Then: isthmus audit A B --sheet sheet.csv.
    """
    from isthmus.evaluation.points.audit_files import conclude, draw_sheet
    from isthmus.training.run import Run

    runs = (Run.open(first), Run.open(second))
    if sheet is not None:
        if labels is not None or out is not None:
            raise RecipeError(
                "audit: --labels and --out draw a sheet, --sheet reads a filled one: give one or the other"
            )
        shown = conclude(*runs, sheet, width=width)
    else:
        if labels is None or out is None:
            raise RecipeError("audit: expected --labels N and --out SHEET.csv, or a filled --sheet SHEET.csv")
        rules = tuple(chosen_rule(run, select) for run in runs)  # type: ignore[arg-type]
        shown = draw_sheet(*runs, labels, out, seed=seed, draw=draw, data=data, rules=rules)  # type: ignore[arg-type]
    for part in shown:
        if isinstance(part, str):
            console.print(part, highlight=False, markup=False, soft_wrap=True)
        else:
            show(part)
