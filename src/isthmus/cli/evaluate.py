"""Commands on finished runs: scores, predictions, comparison, the page of a run, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from isthmus.cli.app import app
from isthmus.cli.common import Rule, Stage, chosen_rule
from isthmus.cli.console import console, errors
from isthmus.cli.tables import show, show_tables
from isthmus.errors import IsthmusError, RunError


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    data: Annotated[
        str,
        typer.Option(
            help="'target' (the recipe's test part), 'source', a folder (clouds: root/class/file; images: "
            "images/ and labels beside it), or a data set such as '{kind: objects, name: realscan}'."
        ),
    ] = "target",
    against: Annotated[Optional[Path], typer.Option(help="A run to compare with, on the same data.")] = None,  # noqa: UP045
    seeds: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="A run that differs in its seed alone, or a folder of such; may be repeated (clouds)."),
    ] = None,
    select: Rule = None,
    stage: Stage = None,
) -> None:
    """Scores of a run in detail, per-class table; against another run, which classes were hurt.

    For classifiers of clouds also estimates of the accuracy that read no labels, also where there are none.
    """
    import json

    from isthmus.evaluation.evaluate import evaluation
    from isthmus.evaluation.runs import run_folders
    from isthmus.training.run import Run, write_atomically

    opened = Run.open(run)
    rule = chosen_rule(opened, select)
    others = [Run.open(folder) for folder in run_folders(seeds or ())]
    if seeds and not others:
        raise RunError(f"--seeds: expected runs in {', '.join(map(str, seeds))}, found none")
    found = evaluation(opened, None if against is None else Run.open(against), data, rule, stage, others)
    for part in found.parts:
        if isinstance(part, str):
            console.print(part, highlight=False, markup=False, soft_wrap=True)
        else:
            show(part)
    asked = {"run": str(run), "data": data, "select": rule, "stage": stage, "against": against and str(against)}
    words = [data, rule, stage or "", "against-" + against.name if against else ""]
    name = ".".join("".join(c if c.isalnum() else "-" for c in word) for word in words if word)
    file = run / f"evaluation.{name}.json"
    seeds_asked = {"seeds": [str(each.path) for each in others]}
    write_atomically(file, json.dumps({**asked, **seeds_asked, **found.values}, indent=1).encode())
    console.print(f"written: {file}", highlight=False, soft_wrap=True)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Files or folders, without labels: clouds and meshes, images, or LiDAR files (.bin, .npz, .npy) with "
            "an image and a calibration of the same stem beside them (a.bin, a.png, a.txt or a.json)."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Clouds: predictions.csv or .npz. Parts of clouds, images, LiDAR: a folder.")
    ],
    up: Annotated[Literal["z", "y"], typer.Option(help="Upward axis of clouds.")] = "z",
    abstain_below: Annotated[float, typer.Option(min=0, max=1, help="No class below this probability (clouds).")] = 0.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    select: Rule = None,
) -> None:
    """Predictions for unlabelled objects, photographs or LiDAR frames; exit status 1 if a file could not be read."""
    from isthmus.training.run import Run

    opened = Run.open(run)
    rule = chosen_rule(opened, select)
    if opened.recipe.kind == "dense":
        from isthmus.evaluation.dense.predict import predict_images

        written = predict_images(opened, files, out, rule=rule, overwrite=overwrite)
        done, broken = len(written.images), [each.reason for each in written.broken]
    elif opened.recipe.kind == "frames":
        from isthmus.evaluation.frames.predict import predict_frames

        found = predict_frames(opened, files, out, rule=rule, overwrite=overwrite)
        done, broken = len(found.frames), [each.reason for each in found.broken]
    elif opened.recipe.predicts == "parts":
        from isthmus.evaluation.points.predict_parts import predict_shapes

        shapes = predict_shapes(opened, files, out, rule=rule, up=up, abstain_below=abstain_below, overwrite=overwrite)
        done, broken = len(shapes.items), [each.reason for each in shapes.broken]
    else:
        from isthmus.evaluation.points.predict import check_output, predict_files, write_predictions

        check_output(out, overwrite=overwrite)
        predicted = predict_files(opened, files, rule=rule, up=up, abstain_below=abstain_below)
        if predicted.items:
            write_predictions(predicted, out, overwrite=overwrite)
        done, broken = len(predicted.items), [each.reason for each in predicted.broken]
    where = out if out.exists() else "nothing written"
    console.print(f"{done} predicted, {len(broken)} broken: {where}", highlight=False, soft_wrap=True)
    for reason in broken:
        errors.print(reason, style="red", highlight=False, soft_wrap=True, markup=False)
    if broken:
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="The run, then those to show beside it.")],
    out: Annotated[Optional[Path], typer.Option(help="HTML file; RUN/report.html by default.")] = None,  # noqa: UP045
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    select: Rule = None,
) -> None:
    """One self-contained HTML page of a run."""
    if out is not None and out.exists() and not overwrite:
        raise RunError(f"{out}: expected no such file, found one; --overwrite replaces it")
    from isthmus.evaluation.report import write_report
    from isthmus.training.run import Run

    opened = [Run.open(path) for path in runs]
    page = write_report(opened, out, rule=chosen_rule(opened[0], select))
    console.print(f"Report: [bold]{page.resolve()}[/bold]", highlight=False, soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Runs, or folders that hold runs.")],
    baseline: Annotated[Optional[str], typer.Option(help="Method that gains are measured against.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Folder for table.md, .csv and .tex.")] = None,  # noqa: UP045
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace tables in OUT.")] = False,
) -> None:
    """A table over methods and directions, mean and spread over seeds, with four selection columns.

    Runs in a folder that are not finished, or of the recipe and seed of another, are left out, and named.
    """
    from isthmus.evaluation.compare import comparison
    from isthmus.evaluation.runs import once, run_folders
    from isthmus.evaluation.tables import write
    from isthmus.training.run import Run

    folders = run_folders(runs)
    if not folders:
        raise IsthmusError(f"compare: expected run folders in {', '.join(map(str, runs))}, found none")
    opened = [Run.open(folder) for folder in folders]
    left_out = [run for run in opened if not run.finished and run.path not in runs]
    for run in left_out:
        errors.print(f"left out, not finished: {run.path}", highlight=False, soft_wrap=True, markup=False)
    # Runs that were named one by one are all meant; grouping says what is wrong with them.
    named = [run for run in opened if run.path in runs]
    _, again = once([*named, *(run for run in opened if run not in named and run not in left_out)])
    again = [run for run in again if run not in named]
    for run in again:
        errors.print(
            f"left out, a run of the same recipe and seed is there: {run.path}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    tables = comparison([run for run in opened if run not in left_out and run not in again], baseline)
    show_tables(tables)
    if out is not None:
        for name, table in tables.items():
            write(table, out, name, overwrite=overwrite)
        console.print(f"written: {out}/table.md, .csv, .tex", highlight=False, soft_wrap=True)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    out: Annotated[Optional[Path], typer.Option(help="Folder; RUN/export by default.")] = None,  # noqa: UP045
    formats: Annotated[Optional[list[str]], typer.Option("--format", help="pt2, onnx; both by default.")] = None,  # noqa: UP045
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    select: Rule = None,
) -> None:
    """Write the model for torch.export and ONNX, with dynamic batch and points, checked against the original."""
    from isthmus.evaluation.points.export import export_run
    from isthmus.training.run import Run

    chosen = tuple(formats or ("pt2", "onnx"))
    opened = Run.open(run)
    if opened.recipe.kind != "points":
        raise RunError(f"{run}: export is offered for runs on point clouds, found kind {opened.recipe.kind!r}")
    written = export_run(opened, out, rule=chosen_rule(opened, select), formats=chosen, overwrite=overwrite)
    for file, difference in written.differences.items():
        other = written.other_neighbours[file]
        text = f"{file}: largest difference {difference:.1e} on {written.compared - other} of {written.compared} clouds"
        near = f"; {other} have other nearest neighbours, by near ties" if other else ""
        console.print(text + near, highlight=False, soft_wrap=True)
