"""The command line as a whole; the files of commands add theirs to it."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

ORDER = ("demo", "train", "evaluate", "predict", "report", "compare", "benchmark", "export", "doctor")
"""The order of the commands in the help; what is not named comes after them."""

ANY_FIELD = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Settings of a command that takes fields of a recipe as options."""


class _Ordered(TyperGroup):
    """Lists its commands in ORDER, in whatever order their files were imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=_Ordered,
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


@app.callback()
def _isthmus() -> None:
    pass
