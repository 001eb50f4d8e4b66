"""What several commands share: recipes with changed fields, rules of choice, how to go on after a stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from isthmus.cli.console import errors
from isthmus.errors import RecipeError

if TYPE_CHECKING:
    from isthmus.training.recipe import Recipe
    from isthmus.training.run import Run

RuleName = Literal["label-free", "source-val", "last"]
Rule = Annotated[
    Optional[RuleName],  # noqa: UP045
    typer.Option("--select", help="Which checkpoint, chosen without target labels; the recipe's own way by default."),
]
Stage = Annotated[Optional[str], typer.Option(help="Name of a stage; the last one by default.")]  # noqa: UP045

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


def find_recipe(name: str) -> Recipe:
    """The recipe of a file, or a named one."""
    from isthmus.training.presets import named
    from isthmus.training.recipe import load

    return load(Path(name)) if Path(name).is_file() else named(name)


def chosen_rule(run: Run[Any], select: RuleName | None) -> RuleName:
    """The rule that was asked for, or the usual one of the run's recipe."""
    rules = run.recipe.rules
    if select is not None and select not in rules:
        raise RecipeError(f"--select: expected one of {', '.join(rules)}, found {select!r}")
    return select or rules[0]


def changed(recipe: Recipe, changes: list[tuple[str, str]]) -> Recipe:
    """The recipe with the fields set that :func:`parse_changes` found."""
    from isthmus.training.recipe import override, parse

    changes = [(_with_group(field, recipe.short_fields), text) for field, text in changes]
    return parse(override(recipe.model_dump(mode="json"), changes), where=recipe.name) if changes else recipe


def _with_group(field: str, short: Mapping[str, str]) -> str:
    first, *rest = field.split(".")
    return ".".join([short.get(first, first), *rest])


@contextmanager
def resumable(command: str) -> Iterator[None]:
    """Say how to go on where a person stops what runs within."""
    try:
        yield
    except KeyboardInterrupt as stop:
        errors.print(
            f"{str(stop) or 'interrupted'}. To go on: {command}", highlight=False, soft_wrap=True, markup=False
        )
        raise typer.Exit(130) from None
