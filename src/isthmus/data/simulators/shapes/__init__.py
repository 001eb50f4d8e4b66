"""Parametric meshes of the ten PointDA classes."""

from isthmus.data.simulators.shapes.build import build_shape
from isthmus.data.simulators.shapes.draw import Parts

__all__ = ["Parts", "build_shape"]
