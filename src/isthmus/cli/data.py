"""Commands on data sets: their kinds, checks, preparation, drawn labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table as RichTable

from isthmus.cli.app import ANY_FIELD, data_app
from isthmus.cli.common import changed, find_recipe, parse_changes, resumable
from isthmus.cli.console import console, errors
from isthmus.cli.tables import show
from isthmus.errors import RecipeError


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
            grid.add_row(spec.model_fields["kind"].default, _plain(spec.__doc__ or ""), fields)
        console.print(grid)


def _plain(text: str) -> str:
    """The first line of a docstring without markup."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text.splitlines()[0]).replace("``", "") if text else ""


@data_app.command("check", context_settings=ANY_FIELD)
def data_check(
    context: typer.Context, recipe: Annotated[str, typer.Argument(help="A named recipe or a file.")]
) -> None:
    """Read all data of a recipe completely: counts per class and part, and every sample that is left out.

    Fields of the recipe can be set as in training, such as --source.data "{kind: images, root: mine}".
    """
    from isthmus.evaluation.data_check import check_data

    chosen = changed(find_recipe(recipe), parse_changes(context.args))
    tables, problems, notes = check_data(chosen)
    for title, table in tables.items():
        show(table, title)
    for problem in problems:
        errors.print(f"{problem.name}: {problem.reason}", highlight=False, soft_wrap=True, markup=False)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"{len(problems)} left out", highlight=False)


@data_app.command("prepare", context_settings=ANY_FIELD)
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

    chosen = changed(find_recipe(recipe), parse_changes(context.args))
    if isinstance(chosen, FrameRecipe):
        with resumable("run the same command again"):
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
    with resumable("run the same command again"):
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


@data_app.command("labels", context_settings=ANY_FIELD)
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
    chosen = changed(find_recipe(recipe), [*parse_changes(context.args), ("source.labels", str(labels))])
    table = write_label_file(chosen, out, overwrite=overwrite)
    show(table)
    console.print(
        f"written: {out}. To train with it: --labels.setting file --labels.file {out}", highlight=False, soft_wrap=True
    )
