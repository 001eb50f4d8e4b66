"""Classification and a self-supervised pretext on a shared encoder, on both domains, with a gate: SM-DSB on any host.

The multi-task framework of Tang et al. (SM-DSB), Eq. 1: ``L_class^s + L_ssl^s + L_ssl^t``. Without a gate this is the
host (with :class:`~isthmus.pretexts.defrec.DefRec` and ``mixup=True`` it is DefRec+PCM). With a gate, the loss of
Eq. 6 counts, of the samples that carry a label, only those the gate lets through: in stage 1 source samples, in stage
2 pseudo-labelled target samples as well, ranked per domain, or with ``pooled_threshold`` together.

Where the paper is silent or contradicts itself:

- The pretext is applied to both domains, as the paper says of its hosts (IV-B); released DefRec is target-only
  (``pretext_on="target"``), where a gate on the source would do nothing.
- ``drop="forward"`` gives a dropped sample no pretext pass at all; ``drop="loss"`` passes all samples and masks the
  loss, which is Algorithm 1 to the letter. They differ by BatchNorm's batch statistics only.
- ``normaliser="batch"`` divides Eq. 6's sum by B, so that a gate also shrinks the loss, as zeroing entries of a batch
  mean does; ``"kept"`` divides by the number of samples that take part.
- ``saliency``: see :mod:`isthmus.gates.input_gradient`. With mixup a cloud holds two shapes: ``saliency_view="clean"``
  takes the gradient at the unmixed cloud in a pass of its own, ``"mixed"`` reads it off the mixed classification at
  the unmixed points, leaving those that no mix contains out of the skewness.
- In stage 2 the scores of pseudo-labelled samples are perturbed by Gaussian noise of mean 0.1 (V-D); its spread is
  not given. The mean changes nothing while thresholds are per domain; ``perturbation_std`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.gates.base import Evidence, Gate
from isthmus.gates.input_gradient import coupled, separate
from isthmus.losses.weighted import Loss
from isthmus.methods.base import GateRecord, Method
from isthmus.models.classifier import PointClassifier
from isthmus.models.modes import evaluating, running_statistics_kept
from isthmus.pretexts.base import Pretext
from isthmus.pretexts.pcm import Mix, draw_mix
from isthmus.tasks.classification import Classification


@dataclass(frozen=True)
class GatingOptions:
    """How a gate is asked and obeyed; the module's text explains each."""

    saliency: Literal["coupled", "eval"] = "coupled"
    saliency_view: Literal["clean", "mixed"] = "clean"
    drop: Literal["forward", "loss"] = "forward"
    normaliser: Literal["batch", "kept"] = "batch"
    pooled_threshold: bool = False
    perturbation_mean: float = 0.1
    perturbation_std: float = 0.0


class SelfSupervised(Method):
    """A pretext beside classification; ``weight`` w gives the pretext w and classification 1 - w, as DefRec does."""

    def __init__(
        self,
        network: PointClassifier,
        task: Classification,
        pretext: Pretext,
        *,
        weight: float = 0.5,
        mixup: bool = False,
        pretext_on: Literal["both", "target"] = "both",
        gate: Gate | None = None,
        gating: GatingOptions = GatingOptions(),
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.tasks = {task.name: task}
        self.pretext = pretext
        self.weight = weight
        self.mixup = mixup
        self.pretext_on = pretext_on
        self.gate = gate
        self.gating = gating

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``class/<domain>`` and ``<pretext>/<domain>`` for each batch."""
        losses: dict[str, Loss] = {}
        scores: dict[str, Tensor] = {}
        for domain, batch in batches.items():
            losses[f"{self.task.name}/{domain}"], evidence = self._classify(batch, progress)
            scores[domain] = self._measure(batch, batches, evidence, progress)
        participation = self._participation(scores, progress)
        self.gate_records = {}
        for domain, batch in batches.items():
            if self.gate is not None:
                labels = batch.labels.get(self.task.name, torch.full_like(batch.sample_id, -1))
                self.gate_records[domain] = GateRecord(scores[domain], participation[domain] > 0, labels)
            if self.pretext_on == "both" or domain == "target":
                losses[f"{self.pretext.name}/{domain}"] = self._self_supervise(batch, participation[domain], progress)
        return losses

    def _classify(self, batch: Batch, progress: Progress) -> tuple[Loss, Evidence]:
        """The classification loss of one domain, and what the gate wants to know of its samples."""
        points, present = batch.inputs["points"], batch.labelled(self.task.name)
        evidence = Evidence(points, progress.random(f"gate/{batch.domain}", batch.sample_id.tolist()))
        coefficient = 1.0 - self.weight
        if not present.any():
            return Loss.absent(points.device, coefficient), evidence
        labels = batch.labels[self.task.name]
        mix = draw_mix(batch.sample_id, points.shape[1], progress, batch.domain) if self.mixup else None

        def summed(leaf: Tensor, mix: Mix | None) -> Tensor:
            logits = self.network(leaf if mix is None else mix.clouds(leaf))
            own = torch.where(present, self.task.loss(logits, labels.where(present, 0)), 0.0)
            if mix is None:
                return own.sum()
            partner, known = labels[mix.partner], present[mix.partner]
            other = torch.where(known, self.task.loss(logits, partner.where(known, 0)), 0.0)
            return mix.loss(own, other).sum()

        if self.gate is None or not self.gate.uses_gradient:
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

    def _measure(self, batch: Batch, batches: dict[str, Batch], evidence: Evidence, progress: Progress) -> Tensor:
        """Scores of one domain's samples, NaN for those without a label. Shape: ``(B,)``."""
        present = batch.labelled(self.task.name)
        nothing = torch.full((len(batch),), torch.nan, device=present.device)
        if self.gate is None or not present.any():
            return nothing
        if self.gate.uses_target_labels:
            evidence = Evidence(evidence.points, evidence.random, agreement=self.agreement(batch, batches, progress))
        scores = self.gate.measure(evidence)
        if batch.domain == "target" and self.gate.uses_gradient:
            noise = progress.random("perturbation", batch.sample_id.tolist()).normal().to(scores.device)
            scores = scores + self.gating.perturbation_mean + self.gating.perturbation_std * noise
        return torch.where(present, scores, nothing)

    def _participation(self, scores: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        if self.gate is None:
            return {domain: torch.ones_like(score) for domain, score in scores.items()}
        if not self.gating.pooled_threshold:
            return {domain: self.gate.participation(s, progress.fraction) for domain, s in scores.items()}
        together = self.gate.participation(torch.cat(list(scores.values())), progress.fraction)
        return dict(zip(scores, together.split([len(score) for score in scores.values()])))

    def _self_supervise(self, batch: Batch, participation: Tensor, progress: Progress) -> Loss:
        """The pretext's loss over the samples that take part, Eq. 6."""
        points = batch.inputs["points"]
        taking_part = participation > 0
        weight = participation.sum() if self.gating.normaliser == "kept" else float(len(batch))
        purpose = f"{self.pretext.name}/{batch.domain}"
        # BatchNorm cannot normalise over a single cloud: then all are passed, and masked.
        if self.gating.drop == "forward" and taking_part.sum() != 1:
            if not taking_part.any():  # a zero, but one that counts in a batch mean over all processes
                return Loss.of(points.new_zeros(1), weight, self.weight)
            random = progress.random(purpose, batch.sample_id[taking_part].tolist())
            per_sample = self.pretext.loss(self.network.encoder, points[taking_part], random)
            per_sample = per_sample * participation[taking_part]
        else:
            random = progress.random(purpose, batch.sample_id.tolist())
            per_sample = self.pretext.loss(self.network.encoder, points, random)
            per_sample = torch.where(taking_part, per_sample * participation, 0.0)
        return Loss.of(per_sample, weight, self.weight)

    def agreement(self, batch: Batch, batches: dict[str, Batch], progress: Progress) -> Tensor:
        """Cosine of each sample's self-supervised gradient with the oracle gradient. ANALYSIS: uses target labels.

        Gradients by the shared encoder, one sample at a time with every layer in eval mode, so that they are exact per
        sample. The oracle gradient is that of the mean classification loss on the target batch's true labels, which
        an analysis run carries under ``class (oracle)``. Shape: ``(B,)``.
        """
        target = batches["target"]
        truth = f"{self.task.name} (oracle)"
        known = target.labelled(truth)
        if not known.any():
            raise ValueError(f"agreement: the target batch carries no {truth!r} labels")
        shared = [p for p in self.network.encoder.parameters() if p.requires_grad]
        with evaluating(self):
            logits = self.network(target.inputs["points"][known])
            oracle = flat_gradient(self.task.loss(logits, target.labels[truth][known]).mean(), shared)
            cosines = []
            for row in range(len(batch)):
                random = progress.random(f"{self.pretext.name}/{batch.domain}", [int(batch.sample_id[row])])
                loss = self.pretext.loss(self.network.encoder, batch.inputs["points"][row : row + 1], random)
                own = flat_gradient(loss.sum(), shared)
                cosines.append(nn.functional.cosine_similarity(own, oracle, dim=0))
        return torch.stack(cosines)

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
