"""Commands on recipes: their names, and one in full."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from isthmus.cli.app import ANY_FIELD, recipes_app
from isthmus.cli.common import changed, find_recipe, parse_changes
from isthmus.cli.console import console
from isthmus.errors import IsthmusError


@recipes_app.command("list")
def recipes_list(
    text: Annotated[str, typer.Argument(help="Names that hold this, one per line, such as rooms or mtpsl/.")] = "",
) -> None:
    """Names of recipes: all of them in short, or one per line those that hold a text."""
    from isthmus.training.presets import RECIPES, families

    if text:
        found = [name for name in RECIPES if text in name]
        if not found:
            raise IsthmusError(f"recipes list: expected names that hold {text!r}, found none of {len(RECIPES)}")
        console.print("\n".join(found), highlight=False)
        return
    whole_lines = not console.is_terminal
    for title, members in families().items():
        first, *others = title.split(", ")
        console.print(f"[bold]{first}[/bold]: {', '.join(members)}", highlight=False, soft_wrap=whole_lines)
        if others:
            console.print(f"[dim]  also {', '.join(others)}[/dim]", highlight=False, soft_wrap=whole_lines)
    if console.is_terminal:
        console.print("Those of one family, line by line: isthmus recipes list rooms", highlight=False)


@recipes_app.command("show", context_settings=ANY_FIELD)
def recipes_show(
    context: typer.Context, recipe: Annotated[str, typer.Argument(help="A named recipe or a file.")]
) -> None:
    """A whole recipe as YAML, with the given fields set: the start of a file of one's own."""
    sys.stdout.write(changed(find_recipe(recipe), parse_changes(context.args)).dump())
