"""Multi-task learning with adversaries: feature-level (DANN), output-space (AdaptSegNet) and entropy maps (ADVENT).

Whatever the tasks learn from (:mod:`isthmus.methods.multi_task`), maps of source and target at named taps are made
alike. A tap is a part of the network (``layer4``, ``up3``: its feature map; ``bottleneck``), ``output/<task>`` (the
activated prediction: probabilities, unit normals, as TADA's supplement has them), or ``<part>/<task>``: the prediction
of an auxiliary head on that part's feature map, which is AdaptSegNet's second level and learns with the weight 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.adversary import Adversary, region, self_information
from isthmus.losses.supervised import supervised_losses
from isthmus.losses.weighted import Loss
from isthmus.methods.multi_task import MultiTask
from isthmus.models.dense import DenseFeatures
from isthmus.tasks.dense import DenseTask

AUXILIARY_WEIGHT = 0.1


@dataclass(frozen=True)
class Tap:
    """What an adversary is shown: ``self_information`` turns probabilities into ADVENT's maps; ``mask`` names a task
    whose labels say where the object is (all else is set to zero)."""

    name: str
    self_information: bool = False
    mask: str | None = None

    @property
    def part(self) -> str:
        """The part of the network, or ``output``."""
        return self.name.split("/")[0]

    @property
    def task(self) -> str | None:
        """The task whose prediction is shown, or None for a feature map."""
        return self.name.split("/")[1] if "/" in self.name else None


class Adversarial(MultiTask):
    """Eq. 1 plus one game for every tap; the target's labels that are there are learnt from as well.

    Args:
        network: gives :class:`isthmus.models.dense.DenseFeatures` for images ``(B, 3, H, W)``.
        tasks: by name.
        adversaries: what is shown, and the game.
        tap_channels: channels of the network's parts that have an auxiliary head.
    """

    uses_target: ClassVar[bool] = True

    def __init__(
        self,
        network: nn.Module,
        tasks: Mapping[str, DenseTask],
        adversaries: Sequence[tuple[Tap, Adversary]],
        tap_channels: Mapping[str, int],
        *,
        reduction: Literal["mean", "sum"] = "mean",
        task_weights: Mapping[str, float] | None = None,
        joint_batches: bool = False,
    ) -> None:
        super().__init__(network, tasks, reduction=reduction, task_weights=task_weights, joint_batches=joint_batches)
        self.taps = tuple(tap for tap, _ in adversaries)
        self.adversaries = nn.ModuleList(adversary for _, adversary in adversaries)
        parts = dict.fromkeys(tap.part for tap in self.taps if tap.task is not None and tap.part != "output")
        self.auxiliary = nn.ModuleDict(
            {
                part: nn.ModuleDict({n: nn.Conv2d(tap_channels[part], t.channels, 1) for n, t in self.tasks.items()})
                for part in parts
            }
        )

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """Losses of the tasks, of auxiliary heads ``<task>@<part>/<domain>``, and of the games."""
        features = self.features(batches)
        losses = self.task_losses(features, batches, progress)
        auxiliary = {domain: self._auxiliary(found, batches[domain]) for domain, found in features.items()}
        for part in self.auxiliary:
            for domain, batch in batches.items():
                outputs = {task: auxiliary[domain][part, task] for task in self.tasks}
                found = supervised_losses(self.tasks, outputs, batch, reduction=self.reduction)
                for name, loss in found.items():
                    task = name.removesuffix(f"/{domain}")
                    weight = AUXILIARY_WEIGHT * self.task_weights.get(task, 1.0)
                    losses[f"{task}@{part}/{domain}"] = loss._replace(coefficient=weight)
        if batches.keys() >= {"source", "target"}:
            ids = (batches["source"].sample_id.tolist(), batches["target"].sample_id.tolist())
            for tap, adversary in zip(self.taps, self.adversaries):
                shown = [self._shown(tap, features[d], auxiliary[d], batches[d]) for d in ("source", "target")]
                losses |= adversary(*shown, progress, ids)
        return losses

    def _auxiliary(self, features: DenseFeatures, batch: Batch) -> dict[tuple[str, str], Tensor]:
        size = batch.inputs["image"].shape[2:]
        return {
            (part, task): F.interpolate(head(features.taps[part]), size, mode="bilinear", align_corners=False)
            for part, heads in self.auxiliary.items()
            for task, head in heads.items()  # type: ignore[operator]
        }

    def _shown(
        self, tap: Tap, features: DenseFeatures, auxiliary: Mapping[tuple[str, str], Tensor], batch: Batch
    ) -> Tensor:
        if tap.task is None:
            values = features.bottleneck if tap.part == "bottleneck" else features.taps[tap.part]
        else:
            raw = features.outputs[tap.task] if tap.part == "output" else auxiliary[tap.part, tap.task]
            # Keypoints are read off their heat maps by an argmax; the maps themselves carry a gradient.
            task = self.tasks[tap.task]
            values = task.prediction_map(raw) if tap.task == "keypoints" else task.activate(raw)
            if tap.self_information:
                values = self_information(values)
        if tap.mask is not None:
            values = values * region(batch, tap.mask, (values.shape[2], values.shape[3])).to(values)
        return values

    def after(self, boundary: str) -> tuple[str, ...]:
        """Everything behind a boundary of the network, with the auxiliary heads that hang on it or behind it."""
        behind = super().after(boundary)
        parts = {boundary, *(name.removeprefix("network.") for name in behind)}
        return (*behind, *(f"auxiliary.{part}" for part in self.auxiliary if part in parts))

    def measures(self) -> dict[str, float]:
        """``accuracy/<tap>`` of each discriminator."""
        return {f"accuracy/{each.name}": float(each.accuracy) for each in self.adversaries}  # type: ignore[arg-type]
