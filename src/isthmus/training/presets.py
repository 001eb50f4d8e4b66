"""The named recipes: plain functions in one plain dict.

``isthmus recipes list`` names them, ``isthmus recipes show NAME`` prints one; the printed YAML is a starting point
for a file of one's own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from isthmus.errors import RecipeError
from isthmus.training.dense.anchor_presets import anchor_recipes
from isthmus.training.dense.presets import dense_recipes
from isthmus.training.frames.presets import frame_recipes
from isthmus.training.points.presets import point_recipes
from isthmus.training.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {**point_recipes(), **dense_recipes(), **anchor_recipes(), **frame_recipes()}


def families() -> dict[str, tuple[str, ...]]:
    """The names in short: what stands before or after the slash that many share, and what stands at its place.

    ``sim/*`` has the methods for simulated clouds, ``*/rooms-onelabel`` the rows for simulated rooms; settings with the
    same members share an entry.
    """
    members: dict[str, list[str]] = {}
    by_data = {*dense_recipes(), *anchor_recipes(), *frame_recipes()}
    for name in RECIPES:
        before, _, after = name.rpartition("/")
        family, member = (f"*/{after}", before) if name in by_data else (f"{before}/*" if before else "*", after)
        members.setdefault(family, []).append(member)
    alike: dict[tuple[str, ...], list[str]] = {}
    for family, found in members.items():
        alike.setdefault(tuple(found), []).append(family)
    return {", ".join(names): found for found, names in alike.items()}


def named(name: str) -> Recipe:
    """The recipe called ``name``; raises RecipeError with the nearest names."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=3)
        hint = f"; did you mean {', '.join(map(repr, close))}?" if close else ""
        raise RecipeError(f"recipe: no file and no named recipe {name!r}{hint} (see: isthmus recipes list)")
    return RECIPES[name]()
