"""The command line: one thin function per command; nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from isthmus.cli.console import Bar, console, errors
from isthmus.errors import IsthmusError, RecipeError, RunError

if TYPE_CHECKING:
    from isthmus.evaluation.tables import Table
    from isthmus.training.recipe import Recipe
    from isthmus.training.run import Run

RuleName = Literal["label-free", "source-val", "last"]
Rule = Annotated[
    Optional[RuleName],  # noqa: UP045
    typer.Option("--select", help="Which checkpoint, chosen without target labels; the recipe's own way by default."),
]
Stage = Annotated[Optional[str], typer.Option(help="Name of a stage; the last one by default.")]  # noqa: UP045

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Carry 3D-vision models across domains when labels are missing.\n\nStart with: isthmus demo",
)
recipes_app = typer.Typer(no_args_is_help=True, help="The named recipes that train and benchmark take.")
data_app = typer.Typer(no_args_is_help=True, help="Data sets: list, check and prepare them.")
app.add_typer(recipes_app, name="recipes")
app.add_typer(data_app, name="data")

SHORT_FIELDS = {
    "gate": "method.gate",
    "keep": "method.gate.keep",
    "devices": "engine.devices",
    "strategy": "engine.strategy",
    "accelerator": "engine.accelerator",
    "precision": "engine.precision",
    "num_nodes": "engine.num_nodes",
    "compile": "engine.compile",
}
"""Fields that may be written without their group."""


@app.callback()
def _isthmus() -> None:
    pass


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
    with _resumable("run the same command again"), Bar(expected, "demo") as bar:
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
    _show(result)
    page = write_report([runs[2], runs[1], runs[0]], out / "report.html")
    console.print(f"\nReport: [bold]{page.resolve()}[/bold]", soft_wrap=True, highlight=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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
        changed = _changed(found, changes)
        chosen, folder = found.model_copy(update={"engine": changed.engine}), resume
        if changed.model_dump(exclude={"engine"}) != found.model_dump(exclude={"engine"}):
            raise RecipeError("train --resume: only engine fields (devices, precision...) may change in a started run")
    else:
        if recipe is None or out is None:
            raise RecipeError("train: expected RECIPE and --out DIR (or --resume DIR); see: isthmus recipes list")
        chosen, folder = _changed(_recipe(recipe), changes), out
    from isthmus.training.engine import train as train_recipe  # torch, only once the recipe is known to be good
    from isthmus.training.run import is_main_process

    with _resumable(f"isthmus train --resume {folder}"), Bar(title=chosen.name) as bar:
        run = train_recipe(chosen, folder, resume=resume is not None, reporter=bar)
    if is_main_process():
        console.print(
            f"Run: [bold]{run.path}[/bold]. Next: isthmus evaluate {run.path}", highlight=False, soft_wrap=True
        )


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
    select: Rule = None,
    stage: Stage = None,
) -> None:
    """Scores of a run in detail, per-class table; against another run, which classes were hurt."""
    import json

    from isthmus.evaluation.evaluate import evaluation
    from isthmus.training.run import Run, write_atomically

    opened = Run.open(run)
    rule = _rule(opened, select)
    found = evaluation(opened, None if against is None else Run.open(against), data, rule, stage)
    for part in found.parts:
        if isinstance(part, str):
            console.print(part, highlight=False, markup=False, soft_wrap=True)
        else:
            _show(part)
    asked = {"run": str(run), "data": data, "select": rule, "stage": stage, "against": against and str(against)}
    words = [data, rule, stage or "", "against-" + against.name if against else ""]
    name = ".".join("".join(c if c.isalnum() else "-" for c in word) for word in words if word)
    file = run / f"evaluation.{name}.json"
    write_atomically(file, json.dumps({**asked, **found.values}, indent=1).encode())
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
    out: Annotated[Path, typer.Option(help="Clouds: predictions.csv or .npz. Images, LiDAR: a folder.")],
    up: Annotated[Literal["z", "y"], typer.Option(help="Upward axis of clouds.")] = "z",
    abstain_below: Annotated[float, typer.Option(min=0, max=1, help="No class below this probability (clouds).")] = 0.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    select: Rule = None,
) -> None:
    """Predictions for unlabelled objects, photographs or LiDAR frames; exit status 1 if a file could not be read."""
    from isthmus.training.run import Run

    opened = Run.open(run)
    rule = _rule(opened, select)
    if opened.recipe.kind == "dense":
        from isthmus.evaluation.dense.predict import predict_images

        written = predict_images(opened, files, out, rule=rule, overwrite=overwrite)
        done, broken = len(written.images), [each.reason for each in written.broken]
    elif opened.recipe.kind == "frames":
        from isthmus.evaluation.frames.predict import predict_frames

        found = predict_frames(opened, files, out, rule=rule, overwrite=overwrite)
        done, broken = len(found.frames), [each.reason for each in found.broken]
    else:
        from isthmus.evaluation.points.predict import check_output, predict_files, write_predictions

        check_output(out, overwrite=overwrite)
        predicted = predict_files(opened, files, rule=rule, up=up, abstain_below=abstain_below)
        write_predictions(predicted, out, overwrite=overwrite)
        done, broken = len(predicted.items), [each.reason for each in predicted.broken]
    console.print(f"{done} predicted, {len(broken)} broken: {out}", highlight=False, soft_wrap=True)
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
    page = write_report(opened, out, rule=_rule(opened[0], select))
    console.print(f"Report: [bold]{page.resolve()}[/bold]", highlight=False, soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Runs, or folders that hold runs.")],
    baseline: Annotated[Optional[str], typer.Option(help="Method that gains are measured against.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Folder for table.md, .csv and .tex.")] = None,  # noqa: UP045
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace tables in OUT.")] = False,
) -> None:
    """A table over methods and directions, mean and spread over seeds, with four selection columns."""
    from isthmus.evaluation.compare import comparison
    from isthmus.evaluation.tables import write
    from isthmus.training.run import Run

    folders = [file.parent for path in runs for file in sorted(path.rglob("recipe.yaml"))]
    if not folders:
        raise IsthmusError(f"compare: expected run folders in {', '.join(map(str, runs))}, found none")
    result = comparison([Run.open(folder) for folder in folders], baseline)
    _show(result)
    if out is not None:
        write(result, out, overwrite=overwrite)
        console.print(f"written: {out}/table.md, .csv, .tex", highlight=False, soft_wrap=True)


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
    with _resumable("run the same command again"), Bar(expected, chosen.name) as bar:

        def run_one(recipe: Recipe, folder: Path) -> Run:
            if (folder / "recipe.yaml").exists() and Run.open(folder).finished:
                bar.skip(sum(stage.steps for stage in recipe.stages))
            else:
                bar.message(f"{recipe.name} seed {recipe.seed}")
            return train_recipe(recipe, folder, resume=True, reporter=bar)

        result = execute(chosen, out, run_one)
    _show(result)
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
    written = export_run(opened, out, rule=_rule(opened, select), formats=chosen, overwrite=overwrite)
    for file, difference in written.differences.items():
        other = written.other_neighbours[file]
        text = f"{file}: largest difference {difference:.1e} on {written.compared - other} of {written.compared} clouds"
        near = f"; {other} have other nearest neighbours, by near ties" if other else ""
        console.print(text + near, highlight=False, soft_wrap=True)


@app.command()
def doctor() -> None:
    """Versions, devices, and what is missing."""
    from isthmus.evaluation.environment import report_environment

    colours = {"ok": "green", "missing": "yellow", "problem": "red"}
    grid = RichTable("", "state", "found", "advice")
    checks = report_environment()
    for check in checks:
        grid.add_row(check.name, f"[{colours[check.state]}]{check.state}[/]", escape(check.found), escape(check.advice))
    console.print(grid)
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(1)


@recipes_app.command("list")
def recipes_list(
    text: Annotated[str, typer.Argument(help="Names that hold this, one per line, such as rooms or mtpsl/.")] = "",
) -> None:
    """Names of recipes: all of them in short, or one per line those that hold a text."""
    from isthmus.training.presets import RECIPES, families

    if text:
        for name in RECIPES:
            if text in name:
                console.print(name, highlight=False)
        return
    for title, members in families().items():
        console.print(f"{title}: {', '.join(members)}", highlight=False, soft_wrap=True)


@recipes_app.command("show", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def recipes_show(
    context: typer.Context, recipe: Annotated[str, typer.Argument(help="A named recipe or a file.")]
) -> None:
    """A whole recipe as YAML, with the given fields set: the start of a file of one's own."""
    sys.stdout.write(_changed(_recipe(recipe), parse_changes(context.args)).dump())


@data_app.command("list")
def data_list() -> None:
    """The kinds of data set a recipe can name, with their fields."""
    from typing import get_args

    from isthmus.training.dense.recipe import ImageDataSpec
    from isthmus.training.frames.recipe import FrameDataSpec
    from isthmus.training.points.data_specs import DataSpec

    unions = (("point clouds", DataSpec), ("labelled images", ImageDataSpec), ("LiDAR and camera", FrameDataSpec))
    for title, union in unions:
        grid = RichTable("kind", "what", "fields", title=title)
        for spec in get_args(get_args(union)[0]):
            fields = ", ".join(name for name in spec.model_fields if name != "kind")
            grid.add_row(spec.model_fields["kind"].default, (spec.__doc__ or "").splitlines()[0], fields)
        console.print(grid)


@data_app.command("check", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def data_check(
    context: typer.Context, recipe: Annotated[str, typer.Argument(help="A named recipe or a file.")]
) -> None:
    """Read all data of a recipe completely: counts per class and part, and every sample that is left out.

    Fields of the recipe can be set as in training, such as --source.data "{kind: images, root: mine}".
    """
    from isthmus.evaluation.data_check import check_data

    chosen = _changed(_recipe(recipe), parse_changes(context.args))
    tables, problems, notes = check_data(chosen)
    for title, table in tables.items():
        _show(table, title)
    for problem in problems:
        errors.print(f"{problem.name}: {problem.reason}", highlight=False, soft_wrap=True, markup=False)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"{len(problems)} left out", highlight=False)


@data_app.command("prepare", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def data_prepare(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            help="A named recipe or a file; or a raw data set: nuscenes, nuscenes-lidarseg, a2d2, semantickitti, "
            "virtualkitti."
        ),
    ],
    root: Annotated[Optional[Path], typer.Option(help="Folder of a raw data set.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Folder for the prepared raw data set.")] = None,  # noqa: UP045
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Processes that read LiDAR and camera; one for each CPU, at most 8, by default."),
    ] = None,
) -> None:
    """Prepare all data of a recipe now, so that training starts at once.

    Or read a raw data set of LiDAR and camera into a folder: isthmus data prepare nuscenes --root DIR --out DIR, with
    fields such as --domain day or --size "[225, 400]". Frames of LiDAR and camera are read by several processes, and
    the same command goes on where it was interrupted; other data starts again.
    """
    from isthmus.data.frame_reading import reading_workers
    from isthmus.evaluation.frames.data_check import RAW

    wanted = reading_workers(8) if workers is None else workers
    if recipe in RAW or root is not None or out is not None:
        _prepare_raw(recipe, root, out, parse_changes(context.args), wanted)
        return
    from isthmus.training.frames.problem import open_frames
    from isthmus.training.frames.recipe import FrameRecipe
    from isthmus.training.problem import open_problem

    chosen = _changed(_recipe(recipe), parse_changes(context.args))
    if isinstance(chosen, FrameRecipe):
        with _resumable("run the same command again"):
            for domain in (chosen.source, chosen.target):
                open_frames(domain, workers=wanted, progress=True)
    elif workers is not None:
        raise RecipeError(f"data prepare: --workers goes with LiDAR and camera, found the recipe {chosen.name!r}")
    problem = open_problem(chosen, progress=True)
    for account in problem.accounts():
        console.print(account, highlight=False, soft_wrap=True)


def _prepare_raw(name: str, root: Path | None, out: Path | None, changes: list[tuple[str, str]], workers: int) -> None:
    from isthmus.evaluation.frames.data_check import RAW, prepare_raw

    if name not in RAW:
        raise RecipeError(f"data prepare: --root and --out go with one of {', '.join(RAW)}, found {name!r}")
    if root is None or out is None:
        raise RecipeError(f"data prepare {name}: expected --root DIR and --out DIR")
    with _resumable("run the same command again"):
        store = prepare_raw(name, root, out, changes, workers=workers)
    counts = ", ".join(f"{len(store.indices(part))} {part}" for part in ("train", "val", "test"))
    console.print(
        f"{len(store)} frames ({counts}), {len(store.points)} points, {len(store.skipped)} left out: {store.path}",
        highlight=False,
        soft_wrap=True,
    )
    for problem in store.skipped[:20]:
        errors.print(f"{problem.name}: {problem.reason}", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"A recipe that names the same data, size and root finds it with ISTHMUS_CACHE={out}",
        highlight=False,
        soft_wrap=True,
    )


@data_app.command("labels", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def data_labels(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A named recipe or a file: its data set and tasks.")],
    out: Annotated[Path, typer.Option(help="The file to write, .json; an existing one is not overwritten.")],
    setting: Annotated[str, typer.Option(help="one, random, full, or ratio=9:1 (in the order of the tasks).")] = "one",
    seed: Annotated[int, typer.Option(help="Another seed keeps other labels.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Draw which image keeps which task's label, as a file that a recipe can name (--labels.setting file).

    Fields of the recipe can be set as in training (--source.data.train 80): the file belongs to the very same images.
    """
    from isthmus.evaluation.data_check import write_label_file

    name, _, ratio = setting.partition("=")
    if name not in ("one", "random", "full", "ratio") or (name == "ratio") != bool(ratio):
        raise RecipeError(f"--setting: expected one, random, full or ratio=9:1 (a number per task), found {setting!r}")
    labels = {"setting": name, "seed": seed, **({"ratio": ratio} if ratio else {})}
    chosen = _changed(_recipe(recipe), [*parse_changes(context.args), ("source.labels", str(labels))])
    table = write_label_file(chosen, out, overwrite=overwrite)
    _show(table)
    console.print(
        f"written: {out}. To train with it: --labels.setting file --labels.file {out}", highlight=False, soft_wrap=True
    )


def parse_changes(arguments: list[str]) -> list[tuple[str, str]]:
    """``--a.b value`` and ``--a.b=value`` as pairs of dotted field and text."""
    changes, rest = [], list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--"):
            raise RecipeError(f"expected --field value, found {name!r}")
        field, equals, value = name[2:].partition("=")
        if not equals:
            if not rest:
                raise RecipeError(f"--{field}: expected a value after it, found nothing")
            value = rest.pop(0)
        changes.append((SHORT_FIELDS.get(field.replace("-", "_"), field), value))
    return changes


def _recipe(name: str) -> Recipe:
    from isthmus.training.presets import named
    from isthmus.training.recipe import load

    return load(Path(name)) if Path(name).is_file() else named(name)


def _rule(run: Run[Any], select: RuleName | None) -> RuleName:
    """The rule that was asked for, or the usual one of the run's recipe."""
    rules = run.recipe.rules
    if select is not None and select not in rules:
        raise RecipeError(f"--select: expected one of {', '.join(rules)}, found {select!r}")
    return select or rules[0]


def _changed(recipe: Recipe, changes: list[tuple[str, str]]) -> Recipe:
    from isthmus.training.recipe import override, parse

    changes = [(_with_group(field, recipe.short_fields), text) for field, text in changes]
    return parse(override(recipe.model_dump(mode="json"), changes), where=recipe.name) if changes else recipe


def _with_group(field: str, short: Mapping[str, str]) -> str:
    first, *rest = field.split(".")
    return ".".join([short.get(first, first), *rest])


def _show(table: Table, title: str | None = None) -> None:
    grid = RichTable(title=title)
    for heading in table.headings:
        grid.add_column(escape(heading), overflow="fold")
    for row in table.rows:
        grid.add_row(*map(escape, row))
    console.print(grid)


@contextmanager
def _resumable(command: str) -> Iterator[None]:
    """Say how to go on where a person stops what runs within."""
    try:
        yield
    except KeyboardInterrupt as stop:
        errors.print(
            f"{str(stop) or 'interrupted'}. To go on: {command}", highlight=False, soft_wrap=True, markup=False
        )
        raise typer.Exit(130) from None


import isthmus.cli.analyse  # noqa: E402, F401


def main() -> None:
    """Run the command line; a user's mistake is one message and exit status 2."""
    try:
        app()
    except IsthmusError as error:
        errors.print(str(error), style="red", highlight=False, soft_wrap=True, markup=False)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
