r"""MTPSL: cross-task consistency in joint pairwise spaces (Li, Liu, Bilen, CVPR 2022, Eq. 3 and 4).

For an image with labelled tasks T_n and unlabelled tasks U_n,

.. math:: \frac1{|U_n|} \sum_{s \in U_n, t \in T_n}
    L_{ct}(m^{s \to st}(\hat y^s), m^{t \to st}(y^t)) + R(f, m^{s \to st}(\hat y^s)) + R(f, m^{t \to st}(y^t))

with the cosine distance for both, f the encoder's feature of the image and one mapping network m, told the pair through
FiLM. An image with all labels compares all ordered pairs (the paper's Table 5). All pairs of all images go through the
mapping network in one pass, so its BatchNorm sees the whole step; the released code maps one sample at a time.

Paper and released code differ. Each difference is an option, the defaults are the paper's where it says something:

=========================  ==========================  =============================================
option                     paper                       released
=========================  ==========================  =============================================
``reduction``              means over T_n and U_n      sums
``condition``              A[s, t] and A[t, s]         A[s, t] for both inputs
``film_inputs`` (mapping)  yes, a layer like others    task input layers are not conditioned
``joint_space``            a vector of R^D             cosine at every place of the map, averaged
``detach_feature``         not said: as released       f is detached
``weight, regulariser``    1, 1                        2 (NYUv2) or 1 (Cityscapes), 0.5
``encoding``               not said: softmax           hard Gumbel sample of a segmentation
``second_view``            not said: the same view     a second crop of the crop
=========================  ==========================  =============================================

R is there to keep the *mapping* from forgetting the image. With ``detach_feature=False`` (recipes ``mtpsl-attached``) f
learns from R as well, and encoder and mapping then agree on nearly the same feature for every image: ``results`` has
the numbers. The released FiLM layers also have a schedule of their own (halved every 30 epochs); here they share the
stage's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.image_augment import ImageAugment
from isthmus.data.randomness import Progress
from isthmus.losses.joint_space import Condition, cosine_distance, embed_pairs
from isthmus.losses.pairs import cross_task_pairs
from isthmus.losses.supervised import presence
from isthmus.losses.weighted import Loss
from isthmus.methods.multi_task import MultiTask
from isthmus.models.dense import DenseFeatures
from isthmus.models.mapping import MappingNetwork
from isthmus.tasks.dense import DenseTask


@dataclass(frozen=True)
class JointSpaceOptions:
    """The readings that the module's table lists; ``weight=0`` or ``regulariser=0`` leaves that term out."""

    weight: float = 1.0
    regulariser: float = 1.0
    condition: Condition = "input-and-pair"
    joint_space: Literal["vector", "map"] = "vector"
    detach_feature: bool = True
    encoding: Literal["softmax", "gumbel"] = "softmax"
    second_view: bool = False


class MTPSL(MultiTask):
    """Eq. 1 plus consistency between predictions of unlabelled tasks and labels of the others.

    Args:
        network: gives outputs and a bottleneck ``(B, C, H', W')``.
        tasks: by name.
        mapping: its output has the shape of the bottleneck.
        augment: makes the second view, where one is asked for.
        options: see the table above.
        reduction: over T_n and over U_n.
        task_weights: constant factors of the supervised losses.
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: Mapping[str, DenseTask],
        mapping: MappingNetwork,
        augment: ImageAugment,
        options: JointSpaceOptions | None = None,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        task_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(network, tasks, reduction=reduction, task_weights=task_weights)
        self.mapping = mapping
        self.augment = augment
        self.options = options or JointSpaceOptions()

    def forward(self, batches: dict[str, Batch], progress: Progress) -> dict[str, Loss]:
        """``<task>/<domain>``, ``consistency/<domain>`` and ``regulariser/<domain>``."""
        if not self.options.second_view:
            return super().forward(batches, progress)
        losses: dict[str, Loss] = {}
        for domain, batch in batches.items():
            second = self.augment(batch, progress.random(f"view/{domain}", batch.sample_id.tolist()))
            both = self.network(torch.cat([batch.inputs["image"], second.inputs["image"]]))
            size = len(batch)
            seen = DenseFeatures({name: out[size:] for name, out in both.outputs.items()}, both.bottleneck[size:])
            losses |= self.supervised({name: out[:size] for name, out in both.outputs.items()}, batch)
            losses |= self.unsupervised(seen, second, progress)
        return losses

    def unsupervised(self, features: DenseFeatures, batch: Batch, progress: Progress) -> dict[str, Loss]:
        """The terms of Eq. 4 beyond Eq. 1."""
        options = self.options
        present = presence(self.tasks, batch)
        pairs = cross_task_pairs(present)
        images = present.any(dim=1).sum()
        coefficients = {"consistency": options.weight, "regulariser": options.weight * options.regulariser}
        coefficients = {name: value for name, value in coefficients.items() if value > 0}
        if not coefficients or not len(pairs):
            absent = {name: Loss.absent(images.device, value, images) for name, value in coefficients.items()}
            return {f"{name}/{batch.domain}": loss for name, loss in absent.items()}
        first, second = embed_pairs(
            self.mapping,
            self.tasks,
            features.outputs,
            batch,
            pairs,
            condition=options.condition,
            uniform=self._uniform(features.outputs, batch, progress) if options.encoding == "gumbel" else None,
        )
        feature = features.bottleneck.detach() if options.detach_feature else features.bottleneck
        feature = feature[pairs.sample]
        terms = {"consistency": cosine_distance(first, second, options.joint_space)}
        if "regulariser" in coefficients:
            terms["regulariser"] = sum(
                (cosine_distance(feature, mapped, options.joint_space) for mapped in (first, second)),
                start=torch.zeros_like(terms["consistency"]),
            )
        share = 1 / pairs.sources if self.reduction == "mean" else torch.ones_like(pairs.sources)
        taking_part = len(pairs.sample.unique())
        return {
            f"{name}/{batch.domain}": Loss.of(terms[name] * share, images, value, samples=taking_part)
            for name, value in coefficients.items()
        }

    def _uniform(self, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Draws for the Gumbel samples; a sample's do not depend on its neighbours or its process."""
        random = progress.random(f"gumbel/{batch.domain}", batch.sample_id.tolist())
        drawn = {name: task for name, task in self.tasks.items() if getattr(task, "classes", ())}
        return {
            name: random.uniform(*outputs[name].shape[1:]).to(outputs[name].device)
            if name in drawn
            else torch.zeros_like(outputs[name])
            for name in self.tasks
        }
