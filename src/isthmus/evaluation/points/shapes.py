"""What a report shows of single clouds: the ones with the lowest and highest skewness, and a map of both domains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.manifold import TSNE
from torch import Tensor, nn

from isthmus.data.store import CloudStore
from isthmus.data.stream import clouds
from isthmus.gates.input_gradient import separate
from isthmus.gates.saliency import saliency, skewness
from isthmus.methods.base import Method
from isthmus.tasks.classification import Classification
from isthmus.training.points.build import Domains, part_rows
from isthmus.training.points.method_specs import GatedSpec, SkewnessGateSpec
from isthmus.training.points.recipe import PointRecipe

MEASURED = 256
"""At most this many clouds, evenly spread over the source's training part, are searched for extreme skewness."""

EMBEDDED = 300
"""At most this many clouds of each domain, evenly spread over its evaluation part, are mapped."""

BATCH = 64
"""Clouds in one pass."""


@dataclass(frozen=True)
class Shape:
    """A cloud with its saliency: points ``(N, 3)`` in the unit sphere, saliency ``(N,)``, and that one's skewness."""

    name: str
    class_name: str
    points: np.ndarray
    saliency: np.ndarray
    skewness: float


@dataclass(frozen=True)
class Embedding:
    """A map of clouds: positions ``(n, 2)``; ``domains`` "source" or "target"; labels -1 where there is none."""

    positions: np.ndarray
    domains: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def source_shapes(recipe: PointRecipe, method: Method, store: CloudStore) -> list[Shape]:
    """Labelled training clouds of the source by ascending skewness; those without a finite one are left out.

    Input gradients are per sample, with every layer in eval mode; alpha and centre are those of the recipe's gate. An
    empty list when the method has no ``network`` that classifies clouds.
    """
    network, task = getattr(method, "network", None), next(iter(method.tasks.values()))
    if not isinstance(network, nn.Module) or not isinstance(task, Classification):
        return []
    spec = recipe.method.gate if isinstance(recipe.method, GatedSpec) else None
    gate = spec if isinstance(spec, SkewnessGateSpec) else SkewnessGateSpec()
    rows = part_rows(store, recipe.source.train_on)
    rows = evenly(rows[store.labels[rows] >= 0], MEASURED)
    found = []
    for start, points in enumerate(clouds(store, rows, recipe.points, BATCH)):
        chunk = rows[start * BATCH : start * BATCH + len(points)]
        labels = torch.from_numpy(store.labels[chunk])

        def loss_of(leaf: Tensor, labels: Tensor = labels) -> Tensor:
            return task.loss(network(leaf), labels).sum()

        values = saliency(points, separate(network, points, loss_of), alpha=gate.alpha, centre=gate.centre)
        for row, cloud, value, skew in zip(chunk.tolist(), points, values, skewness(values).tolist()):
            if np.isfinite(skew):
                name = store.classes[store.labels[row]]
                found.append(Shape(store.names[row], name, cloud.numpy(), value.numpy(), skew))
    return sorted(found, key=lambda shape: shape.skewness)


def embed(recipe: PointRecipe, method: Method, domains: Domains) -> Embedding | None:
    """t-SNE (van der Maaten and Hinton, 2008) of the method's features of both domains; needs target labels to colour.

    ``None`` when the method offers no features, or when they are too few or all alike.
    """
    features, parts, labels, names = [], [], [], []
    for domain, store, spec in (
        ("source", domains.source, recipe.source),
        ("target", domains.target, recipe.target),
    ):
        rows = part_rows(store, spec.evaluate_on)
        rows = evenly(rows if len(rows) else part_rows(store, spec.train_on), EMBEDDED)
        try:
            with torch.no_grad():
                features += [method.embed({"points": points}) for points in clouds(store, rows, recipe.points)]
        except TypeError:
            return None
        parts += [domain] * len(rows)
        labels.append(store.labels[rows])
        names += [store.names[row] for row in rows]
    values = torch.cat(features).double().numpy() if features else np.zeros((0, 1))
    if len(values) < 8 or not values.std(axis=0).max() > 0:
        return None
    perplexity = min(30.0, (len(values) - 1) / 3)
    positions = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(values)
    return Embedding(positions, np.array(parts), np.concatenate(labels), tuple(names))


def evenly(rows: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of ``rows``, evenly spread over their order, the first and the last among them."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
