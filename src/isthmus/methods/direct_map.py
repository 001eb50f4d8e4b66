"""Direct-Map: cross-task consistency in the labelled task's own space (MTPSL, "alternative mapping strategies").

For s unlabelled and t labelled, the prediction of s goes through a network m^{s->t} of its own and is compared with the
label of t. The map and the network that predicts s learn from the same term, as the paper describes it ("learning
mappings from prediction of one task to another task's ground truth"). Nothing was released. The paper writes the
generic L_ct; here it is task t's own loss, which is defined on t's labels and their invalid pixels. The maps are
SegNets as in the paper; K (K - 1) of them are kept, and the pair's number grows with the square of the tasks. Each map
sees only the images of its pair: in small batches its BatchNorm may have a single one to go by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.pairs import Pairs, cross_task_pairs
from isthmus.losses.supervised import presence
from isthmus.losses.weighted import Loss
from isthmus.methods.multi_task import MultiTask
from isthmus.models.dense import DenseFeatures
from isthmus.tasks.dense import DenseTask

BuildMap = Callable[[int, dict[str, int]], nn.Module]
"""Input channels and output channels by task to a dense network."""


def cross_task_maps(build: BuildMap, tasks: Mapping[str, DenseTask]) -> nn.ModuleDict:
    """A network for every ordered pair, under the name ``s_to_t``."""
    return nn.ModuleDict(
        {
            f"{s}_to_{t}": build(source.channels, {t: target.channels})
            for s, source in tasks.items()
            for t, target in tasks.items()
            if s != t
        }
    )


class DirectMap(MultiTask):
    """Eq. 1 plus the mapped predictions of unlabelled tasks against the labels of the others."""

    def __init__(
        self,
        network: nn.Module,
        tasks: Mapping[str, DenseTask],
        build_map: BuildMap,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        weight: float = 1.0,
        task_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(network, tasks, reduction=reduction, task_weights=task_weights)
        self.maps = cross_task_maps(build_map, tasks)
        self.weight = weight

    def unsupervised(self, features: DenseFeatures, batch: Batch, progress: Progress) -> dict[str, Loss]:
        """``direct/<domain>``."""
        present = presence(self.tasks, batch)
        pairs = cross_task_pairs(present)
        per_pair = mapped_losses(self.maps, self.tasks, features.outputs, batch, pairs)
        return {f"direct/{batch.domain}": pair_loss(per_pair, pairs, present, self.weight, self.reduction)}


def mapped_losses(
    maps: nn.ModuleDict,
    tasks: Mapping[str, DenseTask],
    outputs: Mapping[str, Tensor],
    batch: Batch,
    pairs: Pairs,
) -> Tensor:
    """Loss of every pair: the source's prediction through m^{s->t} against the target's label. Shape: ``(P,)``."""
    names = list(tasks)
    result = torch.zeros(len(pairs), device=pairs.sample.device)
    for s, source in enumerate(names):
        for t, target in enumerate(names):
            here = (pairs.source == s) & (pairs.target == t)
            if s == t or not here.any():
                continue
            rows = pairs.sample[here]
            mapped = maps[f"{source}_to_{target}"](tasks[source].prediction_map(outputs[source][rows])).outputs[target]
            losses = tasks[target].loss(mapped, batch.labels[target][rows], batch.valid[target][rows])
            result = result.index_put((here.nonzero()[:, 0],), losses)
    return result


def pair_loss(per_pair: Tensor, pairs: Pairs, present: Tensor, weight: float, reduction: str) -> Loss:
    """Terms of pairs ``(P,)``, over 1 / |U_n| or summed, as a mean over the images with any label."""
    images = present.any(dim=1).sum()
    if not len(pairs):
        return Loss.absent(images.device, weight, images)
    share = 1 / pairs.sources if reduction == "mean" else torch.ones_like(pairs.sources)
    return Loss.of(per_pair * share, images, weight, samples=len(pairs.sample.unique()))
