"""Parametric meshes of the ten PointDA classes.

Everything stands in metres with z up, on or above ``z = 0``, and faces ``-y``. A shape is a list of parts (a
leg, a cushion, a leaf); :func:`build_shape` draws one and hands out its parts,
:func:`~isthmus.geometry.meshes.join` makes a single mesh of them. Every class is one function and has several
structural variants, not only other proportions of one of them, and some variants sit deliberately between two
classes (a cabinet with open shelves, a desk with drawers, a day bed, an armchair).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isthmus.data.simulators.shapes.draw import Draw, Parts
from isthmus.data.simulators.shapes.fixtures import bathtub, lamp, monitor, plant
from isthmus.data.simulators.shapes.seats_and_beds import bed, chair, sofa
from isthmus.data.simulators.shapes.shelves_and_tables import bookshelf, cabinet, table
from isthmus.geometry.meshes import moved

_BUILDERS: dict[str, Callable[[Draw], Parts]] = {
    builder.__name__: builder
    for builder in (bathtub, bed, bookshelf, cabinet, chair, lamp, monitor, plant, sofa, table)
}


def build_shape(name: str, rng: np.random.Generator, wide: bool) -> Parts:
    """Return the parts of a random shape of the class ``name``.

    Args:
        name: one of ``POINTDA_CLASSES``.
        rng: source of all choices.
        wide: draw from wider ranges, and the rare variants half of the time.

    Returns:
        At least one part; metres, z up, facing ``-y``, the lowest vertex at ``z = 0``.

    Raises:
        KeyError: the class is not known.
    """
    parts = _BUILDERS[name](Draw(rng, wide))
    lowest = min(part.vertices[:, 2].min() for part in parts)
    return [moved(part, (0, 0, -lowest)) for part in parts]
