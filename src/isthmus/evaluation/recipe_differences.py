"""In which fields recipes differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from isthmus.training.recipe import Recipe


def differences(ours: Recipe, theirs: Recipe) -> list[tuple[str, str, str]]:
    """Fields in which two recipes differ: dotted name, ours, theirs."""
    left, right = (recipe.model_dump(mode="json", exclude={"name", "engine"}) for recipe in (ours, theirs))
    return list(_differing(left, right, ""))


def _differing(ours: Any, theirs: Any, name: str) -> Iterator[tuple[str, str, str]]:
    """Walk two recipes; where one lacks a group of fields, or the kind differs, the group is one difference."""
    if ours == theirs:
        return
    if _grouped(ours) and _grouped(theirs):
        left, right = (dict(value if isinstance(value, dict) else enumerate(value)) for value in (ours, theirs))
        if left.get("kind") == right.get("kind"):
            for key in dict.fromkeys([*left, *right]):
                yield from _differing(left.get(key), right.get(key), f"{name}.{key}" if name else str(key))
            return
    yield name, _short(ours), _short(theirs)


def _grouped(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind") or value.get("name") or value)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "–" if value is None else str(value)
