"""Does skewness foretell conflict? Scores of samples against the cosine of their gradients with the oracle gradient.

The claim behind SM-DSB (Tang et al., Section I and Figure 1) is a negative correlation. Figure 1 correlates over
training steps, where both quantities also change with time; what a gate needs is the correlation *within* a step,
between samples. Both are measured here. ANALYSIS: uses target labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.gates.input_gradient import separate
from isthmus.gates.skewness import SkewnessGate
from isthmus.methods.self_supervised import SelfSupervised, flat_gradient
from isthmus.models.modes import evaluating, running_statistics_kept


@dataclass(frozen=True)
class Step:
    """One step's samples: cosines with the oracle and both kinds of skewness, each ``(B,)``, and the whole step's."""

    cosine: np.ndarray
    coupled: np.ndarray
    separate: np.ndarray
    step_cosine: float
    """Cosine of the batch's summed self-supervised gradient with the oracle gradient."""


def observe(method: SelfSupervised, batches: dict[str, Batch], progress: Progress) -> Step:
    """Measure one source batch against the oracle gradient of the target batch's true labels.

    Gradients are per sample with BatchNorm in eval mode; the coupled skewness is taken in training mode, as in a step.
    The method is left as it was.
    """
    source, target = batches["source"], batches["target"]
    points, labels = source.inputs["points"], source.labels[method.task.name]
    gate = SkewnessGate()
    cosine = method.agreement(source, batches, progress)

    def loss_of(leaf: Tensor) -> Tensor:
        return method.task.loss(method.network(leaf), labels).sum()

    alone = gate.scores(points, separate(method.network, points, loss_of))
    with evaluating(method):
        method.train()
        with running_statistics_kept(method.network):
            leaf = points.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss_of(leaf), leaf)
        together = gate.scores(points, gradient)
    with evaluating(method):
        shared = [p for p in method.network.encoder.parameters() if p.requires_grad]
        random = progress.random(f"{method.pretext.name}/source", source.sample_id.tolist())
        own = flat_gradient(method.pretext.loss(method.network.encoder, points, random).sum(), shared)
        truth = target.labels[f"{method.task.name} (oracle)"]
        oracle = flat_gradient(method.task.loss(method.network(target.inputs["points"]), truth).mean(), shared)
    return Step(
        cosine.detach().numpy(),
        together.numpy(),
        alone.numpy(),
        float(torch.nn.functional.cosine_similarity(own, oracle, dim=0)),
    )


@dataclass(frozen=True)
class Correlation:
    """Mean Spearman correlation over steps and its two-sided p-value by permuting samples within each step."""

    rho: float
    p_value: float
    steps: int


def within_steps(scores: list[np.ndarray], cosines: list[np.ndarray], *, permutations: int = 2000) -> Correlation:
    """Correlate scores with cosines sample by sample, within each step."""
    ranks = [(stats.rankdata(s), stats.rankdata(c)) for s, c in zip(scores, cosines)]
    random = np.random.default_rng(0)

    def mean(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))

    observed = mean(ranks)
    null = np.array([mean([(random.permutation(a), b) for a, b in ranks]) for _ in range(permutations)])
    return Correlation(observed, float((1 + (np.abs(null) >= abs(observed)).sum()) / (1 + permutations)), len(ranks))
