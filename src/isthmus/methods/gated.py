"""What every host of SM-DSB's gate has in common: classification, a self-supervised loss per sample, and the gate.

A host works out its losses; this class asks the gate which samples carry a score, ranks them, and keeps the records.
In stage 1 only source samples carry labels and so scores, in stage 2 pseudo-labelled target samples do as well, ranked
per domain, or with ``pooled_threshold`` together. Beyond the paper, ``unlabelled="prediction"`` scores samples without
a label by the saliency of the class that the network predicts for them, so that the target is gated in stage 1 as well.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.gates.base import Evidence, Gate
from isthmus.gates.memory import SkewnessMemory
from isthmus.methods.base import GateRecord, Method
from isthmus.models.classifier import PointClassifier
from isthmus.models.dgcnn_segmentation import PointSegmenter
from isthmus.models.modes import evaluating
from isthmus.tasks.classification import Classification
from isthmus.tasks.shape_parts import ShapeParts


@dataclass(frozen=True)
class GatingOptions:
    """How a gate is asked and obeyed; the texts of the methods explain each."""

    saliency: Literal["coupled", "eval"] = "coupled"
    saliency_view: Literal["clean", "mixed"] = "clean"
    drop: Literal["forward", "loss"] = "forward"
    normaliser: Literal["batch", "kept"] = "batch"
    pooled_threshold: bool = False
    perturbation_mean: float = 0.1
    perturbation_std: float = 0.0
    unlabelled: Literal["pass", "prediction"] = "pass"


DEFAULT_GATING = GatingOptions()


class GatedMethod(Method):
    """A classifier with a self-supervised loss that a gate may restrict.

    With a ``memory`` the gate ranks remembered scores instead of those of this step alone, and ``refresh_every=k``
    takes new ones in every k-th step of a stage only: the other steps cost what they do without a gate, and samples
    that never had a score take part.
    """

    def __init__(
        self,
        network: PointClassifier | PointSegmenter,
        task: Classification | ShapeParts,
        *,
        gate: Gate | None = None,
        gating: GatingOptions = DEFAULT_GATING,
        memory: SkewnessMemory | None = None,
        refresh_every: int = 1,
    ) -> None:
        super().__init__()
        if memory is not None and (gate is None or not gate.uses_gradient):
            raise ValueError("memory: expected a gate that ranks by a gradient's score, found none to remember")
        if refresh_every < 1 or (refresh_every > 1 and memory is None):
            raise ValueError(
                f"refresh_every: expected 1, or more with a memory, found {refresh_every} "
                f"{'with' if memory is not None else 'without'} one"
            )
        self.network = network
        self.task = task
        self.tasks = {task.name: task}
        self.gate = gate
        self.gating = gating
        self.memory = memory
        self.refresh_every = refresh_every

    @abstractmethod
    def self_supervised(self, batch: Batch, rows: Tensor, progress: Progress) -> Tensor:
        """The self-supervised loss of some rows of a batch, ungated, with this step's random numbers.

        Shape: ``(R,)`` int64, or ``(B,)`` bool with R set, to ``(R,)``.
        """

    def classified(self, batch: Batch, progress: Progress) -> Tensor:
        """The clouds that classification sees in this step, before any mixing: the saliency is theirs.

        Shape: ``(B, N, 3)``.
        """
        return batch.inputs["points"]

    def needs_gradient(self, progress: Progress) -> bool:
        """Whether the gate wants the gradient of the classification loss by the points in this step."""
        return self.gate is not None and self.gate.uses_gradient and progress.step % self.refresh_every == 0

    def scored(self, batch: Batch) -> Tensor:
        """Which samples get a score. Shape: ``(B,)`` bool."""
        present = batch.labelled(self.task.name)
        return torch.ones_like(present) if self.gating.unlabelled == "prediction" else present

    def scores(self, batch: Batch, batches: dict[str, Batch], evidence: Evidence, progress: Progress) -> Tensor:
        """Scores of one domain's samples, NaN for those that get none. Shape: ``(B,)``."""
        scored = self.scored(batch)
        scores = torch.full((len(batch),), torch.nan, device=scored.device)
        if self.gate is None:
            return scores
        if scored.any() and (self.memory is None or self.needs_gradient(progress)):
            if self.gate.uses_target_labels:
                agreement = self.agreement(batch, batches, progress)
                evidence = Evidence(evidence.points, evidence.random, agreement=agreement)
            scores = torch.where(scored, self.gate.measure(evidence), scores)
        if self.memory is not None:
            if self.needs_gradient(progress):
                self.memory.update(batch.domain, batch.sample_id, scores)
            scores = torch.where(scored, self.memory.recall(batch.domain, batch.sample_id), torch.nan)
        if batch.domain == "target" and self.gate.uses_gradient:
            noise = progress.random("perturbation", batch.sample_id.tolist()).normal().to(scores.device)
            scores = scores + self.gating.perturbation_mean + self.gating.perturbation_std * noise
        return scores

    def participation(self, scores: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        """Weight of each sample in the self-supervised loss, by domain. Shape: ``(B,)`` to ``(B,)``."""
        if self.gate is None:
            return {domain: torch.ones_like(score) for domain, score in scores.items()}
        if not self.gating.pooled_threshold:
            return {domain: self.gate.participation(s, progress.fraction) for domain, s in scores.items()}
        together = self.gate.participation(torch.cat(list(scores.values())), progress.fraction)
        return dict(zip(scores, together.split([len(score) for score in scores.values()])))

    def record(self, batches: dict[str, Batch], scores: dict[str, Tensor], participation: dict[str, Tensor]) -> None:
        """Keep what the gate saw and decided in this step, for the log."""
        self.gate_records = {}
        if self.gate is None:
            return
        for domain, batch in batches.items():
            nothing = torch.full_like(batch.sample_id, -1)
            labels = nothing if self.task.name in batch.valid else batch.labels.get(self.task.name, nothing)
            self.gate_records[domain] = GateRecord(scores[domain], participation[domain] > 0, labels)

    def agreement(self, batch: Batch, batches: dict[str, Batch], progress: Progress) -> Tensor:
        """Cosine of each sample's self-supervised gradient with the oracle gradient. ANALYSIS: uses target labels.

        Gradients by the shared encoder, one sample at a time with every layer in eval mode, so that they are exact per
        sample; a pretext that mixes clouds (GAST) mixes each with itself then. The oracle gradient is that of the mean
        classification loss on the target batch's true labels, which an analysis run carries under ``class (oracle)``.
        Shape: ``(B,)``.
        """
        target = batches["target"]
        truth = f"{self.task.name} (oracle)"
        known = target.labelled(truth)
        if not known.any():
            raise ValueError(f"agreement: the target batch carries no {truth!r} labels")
        shared = [p for p in self.network.encoder.parameters() if p.requires_grad]
        with evaluating(self):
            logits = self.network(target.inputs["points"][known])
            valid = target.valid[truth][known] if truth in target.valid else None
            oracle = flat_gradient(self.task.loss(logits, target.labels[truth][known], valid).mean(), shared)
            cosines = []
            for row in torch.arange(len(batch), device=batch.sample_id.device).split(1):
                own = flat_gradient(self.self_supervised(batch, row, progress).sum(), shared)
                cosines.append(nn.functional.cosine_similarity(own, oracle, dim=0))
        return torch.stack(cosines)

    def shared_parameters(self) -> list[nn.Parameter]:
        """The encoder's: where classification and the self-supervised loss meet."""
        return list(self.network.encoder.parameters())

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """``class``: logits ``(B, K)``."""
        return {self.task.name: self.network(inputs["points"])}

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Pooled features of the encoder. Shape: ``(B, D)``."""
        pooled: Tensor = self.network.encoder(inputs["points"]).pooled
        return pooled


def flat_gradient(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """Gradient of ``loss`` by all parameters as one vector; zeros where it does not depend on one."""
    if not loss.requires_grad:
        return torch.zeros(sum(p.numel() for p in parameters), device=loss.device)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, gradients)]
    )
