"""Classification of point clouds, carried from a labelled source to a target without labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from isthmus.data.publish import left_out
from isthmus.data.stream import KnownLabels, Stream
from isthmus.methods.base import Method
from isthmus.training import pseudo_labels
from isthmus.training.points.build import build_method, build_streams, open_domains, part_rows
from isthmus.training.points.monitor import PointMonitor, logits
from isthmus.training.points.recipe import PointRecipe
from isthmus.training.problem import BatchStream, Predict, Problem
from isthmus.training.recipe import PseudoLabelSpec
from isthmus.training.run import Run, read_arrays, write_arrays
from isthmus.training.weights import load_encoder


class PointProblem(Problem):
    """A source and a target of clouds."""

    def __init__(self, recipe: PointRecipe, *, progress: bool = False) -> None:
        self.recipe: PointRecipe = recipe
        self.domains = open_domains(recipe, progress=progress)

    @property
    def stores(self) -> dict[str, str]:
        """``source`` and ``target``."""
        return {"source": self.domains.source.path.name, "target": self.domains.target.path.name}

    def accounts(self) -> list[str]:
        """Clouds of both domains."""
        stores = {"source": self.domains.source, "target": self.domains.target}
        return [f"{n}: {len(s)} clouds, {len(s.skipped)} left out, {s.path}" for n, s in stores.items()]

    def left_out(self) -> list[str]:
        """How many clouds of each domain were left out, and why the first."""
        domains = self.domains
        return left_out("source", domains.source.skipped) + left_out("target", domains.target.skipped)

    def build_method(self) -> Method:
        """The recipe's method."""
        return build_method(self.recipe)

    def streams(self, method: Method) -> dict[str, BatchStream]:
        """The source with its labels, the target without."""
        return dict(build_streams(self.recipe, self.domains, method))

    def monitor(self, run: Run) -> PointMonitor:
        """Source validation and label-free scores."""
        return PointMonitor(self.recipe, run, self.domains)

    def initialise(self, method: Method) -> str | None:
        """Load ``encoder_weights``."""
        if self.recipe.encoder_weights is None:
            return None
        return str(load_encoder(method.get_submodule("network.encoder"), self.recipe.encoder_weights))

    def write_pseudo_labels(self, predict: Predict, spec: PseudoLabelSpec, file: Path) -> str:
        """Predictions on the target's training clouds that are sure enough."""
        store, rows = self.domains.target, part_rows(self.domains.target, self.recipe.target.train_on)
        known = pseudo_labels.choose(
            logits(predict, store, rows, self.recipe).numpy(),
            rows,
            len(store),
            min_confidence=spec.min_confidence,
            class_share=spec.class_share,
        )
        write_arrays(file, labels=known.labels, present=known.present)
        return f"{known.present.sum()} of {len(rows)} pseudo-labels"

    def use_pseudo_labels(self, file: Path, streams: Mapping[str, BatchStream]) -> None:
        """They become the target stream's class labels."""
        cast(Stream, streams["target"]).known["class"] = KnownLabels(**read_arrays(file))
