"""The readers of a recipe's domains, before anything is prepared."""

from __future__ import annotations

from isthmus.data.clouds import Reader
from isthmus.data.images import ImageReader
from isthmus.training.dense.recipe import DenseRecipe
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


def readers(recipe: Recipe) -> dict[str, Reader] | dict[str, ImageReader]:
    """Readers by domain, whatever the recipe learns."""
    if isinstance(recipe, PointRecipe):
        return dict(cloud_readers(recipe))
    assert isinstance(recipe, DenseRecipe)
    return dict(image_readers(recipe))
