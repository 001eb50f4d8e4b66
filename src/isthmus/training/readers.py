"""The readers of a recipe's domains, before anything is prepared."""

from __future__ import annotations

from isthmus.data.clouds import Reader
from isthmus.data.frames import FrameReader
from isthmus.data.images import ImageReader
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.frames.recipe import FrameRecipe
from isthmus.training.points.recipe import PointRecipe
from isthmus.training.recipe import Recipe


def cloud_readers(recipe: PointRecipe) -> dict[str, Reader]:
    """Readers of clouds by domain, behind class map and virtual sensor."""
    from isthmus.training.points.build import domain_reader

    return {
        name: domain_reader(spec, recipe.classes, source=name == "source")
        for name, spec in (("source", recipe.source), ("target", recipe.target))
    }


def image_readers(recipe: DenseRecipe) -> dict[str, ImageReader]:
    """Readers of images by domain."""
    from isthmus.training.dense.build import build_reader

    domains = {"source": recipe.source, "target": recipe.target}
    return {name: build_reader(domain.data) for name, domain in domains.items() if domain is not None}


def frame_readers(recipe: FrameRecipe) -> dict[str, FrameReader]:
    """Readers of LiDAR and camera frames by domain."""
    from isthmus.training.frames.build import build_reader

    return {name: build_reader(domain.data) for name, domain in (("source", recipe.source), ("target", recipe.target))}


def readers(recipe: Recipe) -> dict[str, Reader] | dict[str, ImageReader] | dict[str, FrameReader]:
    """Readers by domain, whatever the recipe learns."""
    match recipe:
        case PointRecipe():
            return dict(cloud_readers(recipe))
        case DenseRecipe():
            return dict(image_readers(recipe))
        case FrameRecipe():
            return frame_readers(recipe)
        case _:
            raise TypeError(f"expected one of the known kinds of recipe, found {type(recipe).__name__}")
