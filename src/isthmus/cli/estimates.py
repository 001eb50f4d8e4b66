"""``isthmus estimates``: how far estimates of accuracy without labels were off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from isthmus.cli.app import app
from isthmus.cli.common import chosen_rule
from isthmus.cli.console import console, errors
from isthmus.cli.tables import show
from isthmus.errors import RunError


@app.command()
def estimates(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs with labelled targets, or folders that hold runs.")],
    baseline: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Method over which gains are estimated too, such as source-only."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for table.* and, run by run, runs.*.")] = None,  # noqa: UP045
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace tables in OUT.")] = False,
    with_oracles: Annotated[
        bool, typer.Option("--with-oracles", help="Also runs that learnt from target labels.")
    ] = False,
    select: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Which checkpoint: label-free, source-val or last; the recipe's own way by default."),
    ] = None,
) -> None:
    """How wrong label-free estimates of accuracy were on runs whose target labels are known.

    The same estimates, with these errors beside them, are what evaluate shows where there are no labels.
    """
    from rich.progress import track

    from isthmus.evaluation.points.estimate_errors import cases, cases_table, table, usable
    from isthmus.evaluation.runs import run_folders
    from isthmus.evaluation.tables import write
    from isthmus.training.run import Run

    names = ("table", "runs")
    existing = [file for name in names for file in (out.glob(f"{name}.*") if out is not None else ())]
    if existing and not overwrite:
        raise RunError(f"{existing[0]}: expected no such file, found one; --overwrite replaces it")
    folders = run_folders(runs)
    kept, left_out = usable([Run.open(folder) for folder in folders], with_target_labels=with_oracles)
    for line in left_out:
        errors.print(line, highlight=False, soft_wrap=True)
    if not kept:
        raise RunError(f"estimates: expected finished runs that classify clouds in {', '.join(map(str, runs))}")
    rules = {chosen_rule(run, select) for run in kept}  # type: ignore[arg-type]
    steps = iter(track(range(len(kept)), "runs", console=errors, transient=True))
    next(steps)
    found = cases(kept, rules.pop() if select else None, lambda: next(steps, None))
    if baseline is not None and baseline not in {each.method for each in found}:
        methods = ", ".join(sorted({each.method for each in found}))
        raise RunError(f"--baseline: expected one of {methods}, found {baseline!r}")
    result = table(found, baseline)
    show(result, "errors and bias in points of accuracy, right sign in %")
    if out is not None:
        write(result, out, names[0], overwrite=overwrite)
        write(cases_table(found), out, names[1], overwrite=overwrite)
        console.print(f"written: {out}/table.md, .csv, .tex and runs.md, .csv, .tex", highlight=False, soft_wrap=True)
