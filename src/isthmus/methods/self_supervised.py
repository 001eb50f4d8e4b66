"""Classification and a self-supervised pretext on a shared encoder, on both domains, with a gate: SM-DSB on any host.

The multi-task framework of Tang et al. (SM-DSB), Eq. 1: ``L_class^s + L_ssl^s + L_ssl^t``. Without a gate this is the
host (with :class:`~isthmus.pretexts.defrec.DefRec` and ``mixup=True`` it is DefRec+PCM). With a gate, the loss of
Eq. 6 counts, of the samples that carry a label, only those the gate lets through: in stage 1 source samples, in stage
2 pseudo-labelled target samples as well, ranked per domain, or with ``pooled_threshold`` together.

Where the paper is silent or contradicts itself:

- The pretext is applied to both domains, as the paper says of its hosts (IV-B); released DefRec is target-only
  (``pretext_on="target"``), where a gate on the source would do nothing.
- ``drop="forward"`` gives a dropped sample no pretext pass at all; ``drop="loss"`` passes all samples and masks the
  loss, which is Algorithm 1 to the letter. They differ by BatchNorm's batch statistics, and for a pretext that mixes
  clouds (GAST) by which clouds can be partners.
- ``normaliser="batch"`` divides Eq. 6's sum by B, so that a gate also shrinks the loss, as zeroing entries of a batch
  mean does; ``"kept"`` divides by the number of samples that take part.
- ``saliency``: see :mod:`isthmus.gates.input_gradient`. With mixup a cloud holds two shapes: ``saliency_view="clean"``
  takes the gradient at the unmixed cloud in a pass of its own, ``"mixed"`` reads it off the mixed classification at
  the unmixed points, leaving those that no mix contains out of the skewness.
- In stage 2 the scores of pseudo-labelled samples are perturbed by Gaussian noise of mean 0.1 (V-D); its spread is
  not given. The mean changes nothing while thresholds are per domain; ``perturbation_std`` does.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.gates.base import Evidence, Gate
from isthmus.gates.input_gradient import coupled, separate
from isthmus.gates.memory import SkewnessMemory
from isthmus.losses.weighted import Loss
from isthmus.methods.gated import DEFAULT_GATING, GatedMethod, GatingOptions, flat_gradient
from isthmus.models.classifier import PointClassifier
from isthmus.models.dgcnn_segmentation import PointSegmenter
from isthmus.models.modes import running_statistics_kept
from isthmus.pretexts.base import Pretext
from isthmus.pretexts.pcm import Mix, draw_mix
from isthmus.tasks.classification import Classification
from isthmus.tasks.shape_parts import ShapeParts

__all__ = ["GatingOptions", "SelfSupervised", "flat_gradient"]


class SelfSupervised(GatedMethod):
    """A pretext beside classification; ``weight`` w gives the pretext w and classification 1 - w, as DefRec does.

    ``class_weight`` gives classification a weight of its own (GAST: 0.5 beside tasks of 0.5 and 0.2).
    """

    def __init__(
        self,
        network: PointClassifier | PointSegmenter,
        task: Classification | ShapeParts,
        pretext: Pretext,
        *,
        weight: float = 0.5,
        class_weight: float | None = None,
        mixup: bool = False,
        pretext_on: Literal["both", "target"] = "both",
        gate: Gate | None = None,
        gating: GatingOptions = DEFAULT_GATING,
        memory: SkewnessMemory | None = None,
        refresh_every: int = 1,
    ) -> None:
        super().__init__(network, task, gate=gate, gating=gating, memory=memory, refresh_every=refresh_every)
        if gating.unlabelled != "pass":
            raise ValueError("unlabelled: expected 'pass', as only self-distillation passes all samples, found others")
        self.pretext = pretext
        self.weight = weight
        self.class_weight = 1.0 - weight if class_weight is None else class_weight
        self.mixup = mixup
        self.pretext_on = pretext_on

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``class/<domain>`` and ``<pretext>/<domain>`` for each batch."""
        losses: dict[str, Loss] = {}
        scores: dict[str, Tensor] = {}
        for domain, batch in batches.items():
            losses[f"{self.task.name}/{domain}"], evidence = self._classify(batch, progress)
            scores[domain] = self.scores(batch, batches, evidence, progress)
        participation = self.participation(scores, progress)
        self.record(batches, scores, participation)
        for domain, batch in batches.items():
            if self.pretext_on == "both" or domain == "target":
                losses[f"{self.pretext.name}/{domain}"] = self._self_supervise(batch, participation[domain], progress)
        return losses

    def _classify(self, batch: Batch, progress: Progress) -> tuple[Loss, Evidence]:
        """The classification loss of one domain, and what the gate wants to know of its samples."""
        points, present = batch.inputs["points"], batch.labelled(self.task.name)
        evidence = Evidence(points, progress.random(f"gate/{batch.domain}", batch.sample_id.tolist()))
        coefficient = self.class_weight
        if not present.any():
            return Loss.absent(points.device, coefficient), evidence
        labels, known_points = batch.labels[self.task.name], batch.valid.get(self.task.name)
        mix = draw_mix(batch.sample_id, points.shape[1], progress, batch.domain) if self.mixup else None

        def summed(leaf: Tensor, mix: Mix | None) -> Tensor:
            logits = self.network(leaf if mix is None else mix.clouds(leaf))
            if known_points is not None:  # a class per point; absent samples have no valid point and loss 0
                both = (labels, known_points)
                return self.task.loss(logits, *(both if mix is None else map(mix.point_labels, both))).sum()
            own = torch.where(present, self.task.loss(logits, labels.where(present, 0)), 0.0)
            if mix is None:
                return own.sum()
            partner, known = labels[mix.partner], present[mix.partner]
            other = torch.where(known, self.task.loss(logits, partner.where(known, 0)), 0.0)
            return mix.loss(own, other).sum()

        if not self.needs_gradient(progress):
            return Loss(summed(points, mix), present.sum().float(), coefficient), evidence
        viewed = mix if self.gating.saliency_view == "mixed" else None
        if self.gating.saliency == "coupled" and viewed is mix:
            leaf = points.detach().requires_grad_()
            total, gradient = coupled(summed(leaf, mix), leaf, self.network.parameters())
        else:
            total = summed(points, mix)
            if self.gating.saliency == "eval":
                gradient = separate(self.network, points, lambda leaf: summed(leaf, viewed))
            else:
                with running_statistics_kept(self.network):
                    leaf = points.detach().requires_grad_()
                    (gradient,) = torch.autograd.grad(summed(leaf, viewed), leaf)
        valid = None if viewed is None else viewed.used(points.shape[1])
        evidence = Evidence(points, evidence.random, gradient, valid)
        return Loss(total, present.sum().float(), coefficient), evidence

    def _self_supervise(self, batch: Batch, participation: Tensor, progress: Progress) -> Loss:
        """The pretext's loss over the samples that take part, Eq. 6."""
        taking_part = participation > 0
        weight = participation.sum() if self.gating.normaliser == "kept" else float(len(batch))
        # BatchNorm cannot normalise over a single cloud: then all are passed, and masked.
        if self.gating.drop == "forward" and taking_part.sum() != 1:
            if not taking_part.any():  # a zero, but one that counts in a batch mean over all processes
                return Loss.of(batch.inputs["points"].new_zeros(1), weight, self.weight)
            per_sample = self.self_supervised(batch, taking_part, progress) * participation[taking_part]
        else:
            per_sample = self.self_supervised(batch, torch.ones_like(taking_part), progress)
            per_sample = torch.where(taking_part, per_sample * participation, 0.0)
        return Loss.of(per_sample, weight, self.weight)

    def measures(self) -> dict[str, float]:
        """Those of the pretext."""
        return self.pretext.measures()

    def self_supervised(self, batch: Batch, rows: Tensor, progress: Progress) -> Tensor:
        """The pretext's loss. Shape: ``(R,)`` int64, or ``(B,)`` bool with R set, to ``(R,)``."""
        random = progress.random(f"{self.pretext.name}/{batch.domain}", batch.sample_id[rows].tolist())
        return self.pretext.loss(self.network.encoder, batch.inputs["points"][rows], random)
