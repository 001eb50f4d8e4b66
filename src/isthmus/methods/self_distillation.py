r"""Self-distillation beside classification: the main host of SM-DSB's tables, with or without its gate.

Cardace et al., "Self-Distillation for Unsupervised 3D Domain Adaptation" (WACV 2023). A student sees a strongly changed
view of each cloud, its teacher, a moving average of the student's encoder, a weakly changed one; the student's
embedding learns the teacher's (:mod:`isthmus.losses.distillation`). Classification is on the strong view, so one pass
of the student through a domain serves both:

.. math:: L = L_{class} + w(t)\,L_{distillation}, \qquad w(t) = \exp(-5 (1 - t)^2),

where t is the share of the stage that is done.

With a gate (Tang et al., SM-DSB, Eq. 6) the distillation of a labelled sample counts if the gate lets it through. The
student's pass is shared and happens anyway; the teacher, whose layers are in eval mode, skips the samples that are left
out, which changes nothing for the others (``drop="loss"`` passes all of them). The saliency is that of the strong view,
on which classification is: ``saliency="coupled"`` takes the gradient of the classification loss by the points alone
from the graph of the step, before the step's one backward pass by the parameters.

Where the sources are silent, or a difference is meant:

- ``reduction="together"`` takes one mean over the samples of both domains for each of the two losses, as the released
  code does with one loader of source and pseudo-labelled clouds; ``"domains"`` is Eq. 1 of SM-DSB, a mean for each
  domain, added up.
- The teacher follows once per optimiser step, at the beginning of the next one: it then equals what the released code
  has after the step. Its momentum ``min(1 - 1/t, momentum)`` starts anew with each stage, from the student.
- Pseudo-labels may carry weights (``class (weight)`` beside ``class``): each sample's loss is multiplied by its own
  before the mean. The released code multiplies the mean of the losses by the mean of the weights.
- There is one stream of target clouds, for distillation and, once they carry pseudo-labels, for classification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.data.views import StrongView, View, WeakView
from isthmus.gates.base import Evidence, Gate
from isthmus.gates.input_gradient import separate
from isthmus.gates.memory import SkewnessMemory
from isthmus.losses.distillation import STUDENT_TEMPERATURE, TEACHER_TEMPERATURE, distillation
from isthmus.losses.weighted import Loss
from isthmus.methods.gated import DEFAULT_GATING, GatedMethod, GatingOptions
from isthmus.models.classifier import PointClassifier
from isthmus.models.modes import running_statistics_kept
from isthmus.models.moving_average import MovingAverage
from isthmus.tasks.classification import Classification

WEAK_VIEW: View = WeakView()
STRONG_VIEWS: dict[str, View] = {"source": StrongView(rotate=True), "target": StrongView()}
"""As released: only the source is rotated."""


class _Pass(NamedTuple):
    """What one pass of the student through a domain gives: embeddings ``(B, D)``, classification, and evidence."""

    embedding: Tensor
    classification: Loss
    evidence: Evidence


class SelfDistillation(GatedMethod):
    """A student and its teacher.

    Args:
        network: the student.
        task: its classification.
        weak: view of the teacher.
        strong: view of the student in each domain.
        weight: of the distillation, times the ramp.
        student_temperature, teacher_temperature: of the two softmaxes.
        momentum: of the teacher, reached after ``1 / (1 - momentum)`` steps of a stage.
        reduction: over the domains, see the module's text.
        gate, gating, memory, refresh_every: see :class:`isthmus.methods.gated.GatedMethod`.
    """

    def __init__(
        self,
        network: PointClassifier,
        task: Classification,
        *,
        weak: View = WEAK_VIEW,
        strong: Mapping[str, View] = STRONG_VIEWS,
        weight: float = 1.0,
        student_temperature: float = STUDENT_TEMPERATURE,
        teacher_temperature: float = TEACHER_TEMPERATURE,
        momentum: float = 0.999,
        reduction: Literal["together", "domains"] = "together",
        gate: Gate | None = None,
        gating: GatingOptions = DEFAULT_GATING,
        memory: SkewnessMemory | None = None,
        refresh_every: int = 1,
    ) -> None:
        super().__init__(network, task, gate=gate, gating=gating, memory=memory, refresh_every=refresh_every)
        if gating.saliency_view == "mixed":
            raise ValueError("saliency_view: expected 'clean', as self-distillation mixes no clouds, found 'mixed'")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"teacher momentum: expected a number in [0, 1), found {momentum}")
        self.teacher = MovingAverage(network.encoder)
        self.weak = weak
        self.strong = dict(strong)
        self.weight = weight
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.momentum = momentum
        self.reduction = reduction

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``class/<domain>`` and ``distillation/<domain>`` for each batch."""
        self.teacher.follow(self.network.encoder, teacher_momentum(progress.step, self.momentum))
        labelled = {domain: batch.labelled(self.task.name).sum().float() for domain, batch in batches.items()}
        counted = self._counted(labelled)
        passes: dict[str, _Pass] = {}
        scores: dict[str, Tensor] = {}
        for domain, batch in batches.items():
            passes[domain] = self._study(batch, counted[domain], progress)
            scores[domain] = self.scores(batch, batches, passes[domain].evidence, progress)
        participation = self.participation(scores, progress)
        self.record(batches, scores, participation)
        own = {
            domain: share.sum() if self.gating.normaliser == "kept" else torch.tensor(float(len(share)))
            for domain, share in participation.items()
        }
        counted = self._counted(own)
        losses = {f"{self.task.name}/{domain}": passed.classification for domain, passed in passes.items()}
        for domain, batch in batches.items():
            per_sample = self._distil(batch, passes[domain].embedding, participation[domain], progress)
            losses[f"distillation/{domain}"] = Loss.of(
                per_sample, counted[domain], self.weight * ramp(progress.fraction), own[domain], own[domain]
            )
        return losses

    def _counted(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the sum over each domain is divided by."""
        if self.reduction == "domains":
            return own
        return dict.fromkeys(own, torch.stack(list(own.values())).sum())

    def _study(self, batch: Batch, counted: Tensor, progress: Progress) -> _Pass:
        """The student's pass through the strong view of a domain."""
        ids = batch.sample_id.tolist()
        points = self.classified(batch, progress)
        evidence = Evidence(points, progress.random(f"gate/{batch.domain}", ids))
        present, scored = batch.labelled(self.task.name), self.scored(batch)
        asked = self.needs_gradient(progress) and bool(scored.any())
        follow = asked and self.gating.saliency == "coupled"
        leaf = points.detach().requires_grad_() if follow else points
        embedding: Tensor = self.network.encoder(leaf).pooled
        if not (asked or present.any()):
            return _Pass(embedding, Loss.absent(points.device, weight=counted), evidence)
        # A domain without labels is scored, not learnt from: the head's statistics stay those of what it learns from.
        with nullcontext() if present.any() else running_statistics_kept(self.network.head):
            logits = self.network.head(embedding)
        labels = logits.detach().argmax(dim=1)  # of samples that are scored without a label
        if present.any():
            labels = torch.where(present, batch.labels[self.task.name], labels)

        def cross_entropy(logits: Tensor) -> Tensor:
            return torch.where(scored, self.task.loss(logits, labels), 0.0)

        per_sample = cross_entropy(logits)
        if follow:
            # By the points alone: the parameters are differentiated once, with the distillation, in the step.
            (gradient,) = torch.autograd.grad(per_sample.sum(), leaf, retain_graph=True)
            evidence = Evidence(points, evidence.random, gradient)
        elif asked:
            gradient = separate(self.network, points, lambda leaf: cross_entropy(self.network(leaf)).sum())
            evidence = Evidence(points, evidence.random, gradient)
        if not present.any():
            return _Pass(embedding, Loss.absent(points.device, weight=counted), evidence)
        weights = self._label_weights(batch)
        loss = Loss.of(per_sample * weights, counted, samples=present.sum(), mass=weights.sum())
        return _Pass(embedding, loss, evidence)

    def _label_weights(self, batch: Batch) -> Tensor:
        """Weight of each sample's label, 0 without a label, 1 where nothing is said. Shape: ``(B,)``."""
        present, name = batch.labelled(self.task.name), f"{self.task.name} (weight)"
        ones = present.float()
        if name not in batch.labels:
            return ones
        return torch.where(present & batch.present[name], batch.labels[name].float(), ones)

    def _distil(self, batch: Batch, embedding: Tensor, participation: Tensor, progress: Progress) -> Tensor:
        """The distillation of each sample times its participation. Shape: ``(R,)``, R the samples that are passed."""
        rows = participation > 0 if self.gating.drop == "forward" else torch.ones_like(participation, dtype=torch.bool)
        if not rows.any():  # a zero, but one that counts in a batch mean over all processes
            return embedding.new_zeros(1)
        return self._compare(embedding[rows], batch, rows, progress) * participation[rows]

    def _compare(self, embedding: Tensor, batch: Batch, rows: Tensor, progress: Progress) -> Tensor:
        """How far the student's embeddings of some rows are from the teacher's. Shape: ``(R, D)`` to ``(R,)``."""
        random = progress.random(f"weak/{batch.domain}", batch.sample_id[rows].tolist())
        with torch.no_grad():
            taught: Tensor = self.teacher.network(self.weak(batch.inputs["points"][rows], random)).pooled
        return distillation(
            embedding,
            taught,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
        )

    def _seen(self, batch: Batch, rows: Tensor, progress: Progress) -> Tensor:
        """The student's view of some rows. Shape: ``(R, N, 3)``."""
        random = progress.random(f"strong/{batch.domain}", batch.sample_id[rows].tolist())
        with torch.no_grad():
            return self.strong[batch.domain](batch.inputs["points"][rows], random)

    def classified(self, batch: Batch, progress: Progress) -> Tensor:
        """The student's view. Shape: ``(B, N, 3)``."""
        return self._seen(batch, torch.ones_like(batch.sample_id, dtype=torch.bool), progress)

    def self_supervised(self, batch: Batch, rows: Tensor, progress: Progress) -> Tensor:
        """The distillation of some rows in a pass of their own. Shape: ``(R,)`` or ``(B,)`` bool to ``(R,)``."""
        embedding: Tensor = self.network.encoder(self._seen(batch, rows, progress)).pooled
        return self._compare(embedding, batch, rows, progress)


def teacher_momentum(step: int, limit: float) -> float:
    """How much of itself the teacher keeps at the beginning of this step of a stage, in [0, ``limit``].

    ``min(1 - 1 / t, limit)``: after t steps the plain mean of the student after each of them, until the limit is
    reached. At steps 0 and 1 it is the student itself.
    """
    return min(1 - 1 / max(step, 1), limit)


def ramp(fraction: float) -> float:
    """Weight of the distillation when ``fraction`` of a stage is done: from 0.0067 to 1."""
    return math.exp(-5 * (1 - fraction) ** 2)
