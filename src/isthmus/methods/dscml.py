r"""DsCML (Peng et al., ICCV 2021): a point and a patch of pixels learn from each other; with CMAL, across domains.

The 2D stream sees the mean of a patch around each point (:mod:`isthmus.models.deformable_patch`); the maximum and the
minimum over the patch, classified as well, imitate the 3D prediction: constraining both ends of a set constrains all of
it. Eq. 3:

.. math:: L_{std} = \frac1N \sum_n K(\Phi^n_{max}(P_{2D}), P^n_{3D}) + K(\Phi^n_{min}(P_{2D}), P^n_{3D})

*CML* (Eq. 1) is this at a single pixel, *sCML* (Eq. 2) on a fixed square, *DsCML* (Eq. 3) on a deformed one.

What the paper leaves open, and the choice here (all are options):

- the order of K and what is held fixed: KL(3D prediction, held fixed || 2D extremes), as xMUDA and the released code;
- the other direction is not printed: the 3D mimicry head imitates the 2D prediction, as in the released code;
- the sum of max and min, as printed (``paper``), or their mean (``released``);
- features are pooled, then classified (Fig. 4), by the classifier of the mean (``paper``) or each by its own
  (``released``); or probabilities are pooled and made to add up to one again (the letter of Eq. 3: a maximum of
  probabilities, class by class, is no distribution);
- which prediction imitates at a single pixel, for the mean (Eq. 10) and in 3D: a mimicry head beside the classifier, as
  in xMUDA and the released code (``mimicry``), or, as the equations have it, the classifier's own (``classifier``);
- the released code has no deformed patches at all, a correlation term without gradient, and an L1 term between global
  predictions of both streams; the latter two are left out.

*CMAL* (Eq. 5 to 8) adds two discriminators of points: one is shown the source's 2D and the target's 3D predictions, the
other the source's 3D and the target's 2D predictions (``crossed``); ``same`` compares like with like and ``both`` has
all four (Table 4). ``literal``: generator and discriminator play the printed saturating game; ``non-saturating``: the
target's predictions are to be called source, as in the released code, which shows each discriminator the mimicry heads'
predictions as well (``mimicry_shown``; with the terms ``max-min`` no imitation trains the 2D head, there as here).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.cross_modal import mimicry
from isthmus.losses.point_adversary import PointAdversary
from isthmus.losses.weighted import Loss
from isthmus.methods.stream_adversaries import StreamAdversaries, probabilities
from isthmus.models.two_streams import IMAGE, POINTS, StreamOutputs, TwoStreams

Alignment = Literal["crossed", "same", "both"]
ALIGNED: dict[Alignment, tuple[tuple[str, str], ...]] = {
    "crossed": ((IMAGE, POINTS), (POINTS, IMAGE)),
    "same": ((IMAGE, IMAGE), (POINTS, POINTS)),
    "both": ((IMAGE, POINTS), (POINTS, IMAGE), (IMAGE, IMAGE), (POINTS, POINTS)),
}
"""Which stream of the source is compared with which stream of the target."""


def game_name(source: str, target: str) -> str:
    """The name of the adversary between a stream of the source and one of the target."""
    return f"source {source} and target {target}"


class DsCML(StreamAdversaries):
    """Labels, sparse-to-dense imitation in both directions and, with adversaries, CMAL.

    Args:
        network: the streams, with mimicry heads and, but for CML, a patch.
        classes: names of the classes.
        adversaries: by :func:`game_name`, for the pairs of ``alignment``; none for DsCML alone.
        terms: what imitates the 3D prediction: "max-min" (Eq. 3), "mean" (Eq. 10), "none".
        halved: the mean of the two terms in place of their sum.
        source_weight: of the imitation on the source.
        target_weight: of the imitation on the target.
        alignment: see the module.
        student: what imitates where no extremes do, see the module.
        mimicry_shown: whether discriminators see the mimicry heads' predictions beside the classifiers'.
        options: of :class:`isthmus.methods.cross_modal.CrossModal`.

    Raises:
        ValueError: the network lacks mimicry heads.
    """

    def __init__(
        self,
        network: TwoStreams,
        classes: tuple[str, ...],
        adversaries: Mapping[str, PointAdversary] | None = None,
        *,
        terms: Literal["max-min", "mean", "none"] = "max-min",
        halved: bool = False,
        source_weight: float = 1.0,
        target_weight: float = 0.1,
        alignment: Alignment | None = None,
        student: Literal["mimicry", "classifier"] = "mimicry",
        mimicry_shown: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(network, classes, adversaries or {}, **options)
        if set(network.mimicry) != {IMAGE, POINTS}:
            raise ValueError("network: expected mimicry heads of both streams")
        self.terms = terms
        self.halved = halved
        self.weights = {"source": source_weight, "target": target_weight}
        self.alignment = alignment
        self.student = student
        self.mimicry_shown = mimicry_shown

    def shown(self, source: StreamOutputs, target: StreamOutputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Probabilities of the streams that each discriminator compares, the mimicry heads' after the classifiers'."""
        pairs = ALIGNED[self.alignment] if self.alignment is not None else ()

        def said(found: StreamOutputs, stream: str) -> Tensor:
            heads = [found.logits[stream]] + ([found.mimicry[stream]] if self.mimicry_shown else [])
            return torch.cat([probabilities(logits) for logits in heads])

        return {game_name(ours, theirs): (said(source, ours), said(target, theirs)) for ours, theirs in pairs}

    def adaptation(
        self, outputs: Mapping[str, StreamOutputs], batches: Mapping[str, Batch], progress: Progress
    ) -> dict[str, Loss]:
        """``max``, ``min`` or ``mean/<domain>``, ``mimicry 3D/<domain>``, and CMAL's games."""
        losses: dict[str, Loss] = {}
        for domain, found in outputs.items():
            present = batches[domain].inputs["present_points"]
            frames = present.any(dim=1)
            students = self._students(found)
            share = 1 / len(students) if self.halved and students else 1.0
            for name, logits in students.items():
                per_frame = mimicry(logits, found.logits[POINTS], present)[frames]
                losses[f"{name}/{domain}"] = Loss.of(per_frame, frames.sum(), share * self.weights[domain])
            if self.terms != "none":
                per_frame = mimicry(self._own(found)[POINTS], found.logits[IMAGE], present)[frames]
                losses[f"mimicry 3D/{domain}"] = Loss.of(per_frame, frames.sum(), self.weights[domain])
        return losses | super().adaptation(outputs, batches, progress)

    def _students(self, found: StreamOutputs) -> dict[str, Tensor]:
        """What imitates the 3D prediction."""
        if self.terms == "none":
            return {}
        if not found.extremes:
            return {"mimicry 2D": self._own(found)[IMAGE]}
        return found.extremes if self.terms == "max-min" else {"mean": self._own(found)[IMAGE]}

    def _own(self, found: StreamOutputs) -> dict[str, Tensor]:
        """The prediction by which each stream imitates the other."""
        return found.mimicry if self.student == "mimicry" else found.logits
