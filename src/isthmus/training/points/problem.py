"""Classification of point clouds, or of their points, carried from a labelled source to a target without labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch

from isthmus.data.clouds import NO_POINT_LABEL
from isthmus.data.publish import known_as, left_out
from isthmus.data.randomness import Progress
from isthmus.data.stream import KnownLabels, KnownPointLabels, Stream, clouds
from isthmus.methods.base import Method
from isthmus.training import pseudo_labels
from isthmus.training.points.build import build_method, build_streams, open_domains, part_rows
from isthmus.training.points.graph_refinement import label_weights, merge, refine
from isthmus.training.points.monitor import PointMonitor, logits
from isthmus.training.points.recipe import PointRecipe
from isthmus.training.problem import BatchStream, Embed, Predict, Problem
from isthmus.training.recipe import PseudoLabelSpec
from isthmus.training.run import Run, read_arrays, write_arrays
from isthmus.training.weights import load_encoder


class PointProblem(Problem):
    """A source and a target of clouds."""

    def __init__(self, recipe: PointRecipe, *, progress: bool = False) -> None:
        self.recipe: PointRecipe = recipe
        self.domains = open_domains(recipe, progress=progress)

    @property
    def stores(self) -> dict[str, tuple[str, ...]]:
        """``source`` and ``target``."""
        return {"source": known_as(self.domains.source.path), "target": known_as(self.domains.target.path)}

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
        return build_method(
            self.recipe, {"source": len(self.domains.source.points), "target": len(self.domains.target.points)}
        )

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
        if self.recipe.predicts == "parts":
            return self._write_point_labels(predict, spec, file, rows)
        known = pseudo_labels.choose(
            logits(predict, store, rows, self.recipe).numpy(),
            rows,
            len(store),
            min_confidence=spec.min_confidence,
            class_share=spec.class_share,
        )
        weights = {}
        if spec.graph is not None:  # no label is confident before the first refinement
            weights["weights"] = np.full(len(store), spec.graph.others, dtype=np.float32)
        write_arrays(file, labels=known.labels, present=known.present, **weights)
        return f"{known.present.sum()} of {len(rows)} pseudo-labels"

    def refresh_pseudo_labels(
        self, predict: Predict, embed: Embed, spec: PseudoLabelSpec, before: Path, file: Path, *, progress: Progress
    ) -> str:
        """Predictions as before the stage, or what a graph network makes of them."""
        graph = spec.graph
        if graph is None:
            return self.write_pseudo_labels(predict, spec, file)
        store, rows = self.domains.target, part_rows(self.domains.target, self.recipe.target.train_on)
        embeddings = torch.cat([embed({"points": each}).float() for each in clouds(store, rows, self.recipe.points)])
        scores = logits(predict, store, rows, self.recipe).softmax(dim=1).to(embeddings.device)
        refined = refine(
            embeddings,
            scores,
            seed=progress.torch_seed(0),
            steps=graph.steps,
            hidden=graph.hidden,
            threshold=graph.threshold,
            at_most=graph.at_most,
            hide=graph.hide,
            batch=graph.batch,
        )
        saved = read_arrays(before)
        merged = merge(torch.from_numpy(saved["labels"][rows]).to(refined.labels.device), refined, progress.fraction)
        changed = (merged.labels.cpu().numpy() != saved["labels"][rows]).sum()
        saved["labels"][rows] = merged.labels.cpu().numpy()
        saved["present"][rows] |= merged.confident.cpu().numpy()
        saved["weights"][rows] = label_weights(merged.confident, graph.others).cpu().numpy()
        write_arrays(file, **saved)
        return f"{merged.confident.sum()} of {len(rows)} pseudo-labels are confident, {changed} changed"

    def use_pseudo_labels(self, file: Path, streams: Mapping[str, BatchStream]) -> None:
        """They become labels of the target stream; their weights, where they have any, labels of their own."""
        saved, known = read_arrays(file), cast(Stream, streams["target"]).known
        if self.recipe.predicts == "parts":
            known["parts"] = KnownPointLabels(saved["labels"])
            return
        known["class"] = KnownLabels(saved["labels"], saved["present"])
        if "weights" in saved:
            known["class (weight)"] = KnownLabels(saved["weights"], saved["present"])

    def _write_point_labels(self, predict: Predict, spec: PseudoLabelSpec, file: Path, rows: np.ndarray) -> str:
        """The same choice among points, balanced over the parts."""
        store, size = self.domains.target, self.recipe.points
        found = logits(predict, store, rows, self.recipe)[:, :, 0].transpose(1, 2).flatten(0, 1).numpy()
        places = (rows[:, None] * size + np.arange(size)).ravel()
        known = pseudo_labels.choose(
            found, places, len(store) * size, min_confidence=spec.min_confidence, class_share=spec.class_share
        )
        labels = np.where(known.present, known.labels, NO_POINT_LABEL).astype(np.uint8)
        write_arrays(file, labels=labels.reshape(len(store), size))
        return f"{known.present.sum()} of {len(places)} pseudo-labels of points"
