"""Does skewness foretell conflict? Scores of samples against the cosine of their gradients with the oracle gradient.

The claim behind SM-DSB (Tang et al., Section I and Figure 1) is a negative correlation. Figure 1 correlates over
training steps, where both quantities also change with time; what a gate needs is the correlation *within* a step,
between samples. Both are measured here, with the second kind of conflict (Section V-B), that with the gradient of
classification. ANALYSIS: uses target labels.

Gradients are by the shared encoder and, unless said otherwise, per sample with every layer in eval mode, so that they
are exact per sample. The oracle gradient is that of the mean classification loss on the target batch's true labels.
A pretext that mixes clouds (GAST) has no partner in a batch of one and mixes the cloud with itself: its numbers here
are of a task that training does not quite use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.gates.input_gradient import separate
from isthmus.gates.saliency import saliency, skewness
from isthmus.gates.skewness import SkewnessGate
from isthmus.methods.gated import GatedMethod, flat_gradient
from isthmus.models.modes import evaluating

ALPHAS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Exponents of the radius at which the skewness is taken besides the gate's own."""

Table = dict[str, np.ndarray]
"""Columns of one length."""


@dataclass(frozen=True)
class Step:
    """One measured step.

    ``samples`` has a row for each sample of each domain, NaN where something is not defined:

    - ``domain``, ``id``; ``label`` that training knows (a pseudo-label on the target) and ``truth``, -1 for none
    - ``loss``, the self-supervised one, and ``class_loss``, of the known label
    - ``coupled`` and ``separate``, the two kinds of skewness with the known label; ``coupled_truth`` and
      ``separate_truth`` with the true one; ``alpha_<a>``, the coupled one at other exponents
    - ``cosine_oracle`` and ``cosine_class``, of the sample's self-supervised gradient with the oracle gradient and
      with the classification gradient of the labelled samples of this step; ``norm``, the length of that gradient
    - ``score`` and ``taking_part``: what the gate saw and chose in this step

    ``cosines`` are of whole gradients: ``ssl`` (the sum over all samples), ``kept`` (over those that took part),
    ``class``, ``oracle`` and ``step`` (what the step's backward pass left in ``.grad``: all losses with their weights,
    in the mode of training).
    """

    samples: Table
    cosines: dict[str, float]


def observe(method: GatedMethod, batches: dict[str, Batch], truth: Tensor, progress: Progress) -> Step:
    """Measure a step against the oracle gradient of ``truth``, the target's true labels ``(B,)``, -1 for unknown.

    The coupled skewness is taken in the mode that the method is in, as a step does. The method is left as it was.
    Raises ValueError where the encoder is frozen or no target sample has a label.
    """
    shared = [p for p in method.shared_parameters() if p.requires_grad]
    if not shared:
        raise ValueError("conflicts: expected an encoder that is trained, found all of it frozen")
    if not (truth >= 0).any():
        raise ValueError("conflicts: expected target samples with true labels in the batch, found none")
    stepped = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in shared])
    with _generator_kept(progress):
        target = batches["target"].inputs["points"]
        oracle = _classification_gradient(
            method, [(target, truth, torch.ones(len(truth), device=truth.device))], shared
        )
        learnt = {domain: _known(method, batch) for domain, batch in batches.items()}
        seen = [(method.classified(batch, progress), learnt[domain]) for domain, batch in batches.items()]
        weighed = [(*pair, _weights(method, batch)) for pair, batch in zip(seen, batches.values())]
        classification = _classification_gradient(method, weighed, shared)
        tables, sums, kept = [], torch.zeros_like(oracle), torch.zeros_like(oracle)
        for (domain, batch), (clouds, labels) in zip(batches.items(), seen):
            true = truth if domain == "target" else labels
            table = {"domain": np.full(len(batch), domain), "id": batch.sample_id.cpu().numpy()}
            table |= {"label": labels.cpu().numpy(), "truth": true.cpu().numpy()}
            table |= _skewness(method, clouds, labels, true, progress)
            table |= _gate(method, domain, len(batch))
            found, domain_sum, domain_kept = _gradients(
                method, batch, progress, shared, oracle, classification, table["taking_part"]
            )
            if domain == "target" or getattr(method, "pretext_on", "both") == "both":
                sums, kept = sums + domain_sum, kept + domain_kept
            tables.append(table | found)
    whole = {"ssl": sums, "kept": kept, "class": classification, "oracle": oracle, "step": stepped}
    names = list(whole)
    cosines = {
        f"{first}_{second}": _cosine(whole[first], whole[second])
        for index, first in enumerate(names)
        for second in names[index + 1 :]
    }
    return Step({name: np.concatenate([table[name] for table in tables]) for name in tables[0]}, cosines)


def _known(method: GatedMethod, batch: Batch) -> Tensor:
    """Labels that training knows, -1 for none. Shape: ``(B,)``."""
    present = batch.labelled(method.task.name)
    if not present.any():
        return torch.full_like(batch.sample_id, -1)
    return torch.where(present, batch.labels[method.task.name], -1)


def _losses(method: GatedMethod, clouds: Tensor, labels: Tensor) -> Tensor:
    """Classification loss of each sample, 0 without a label. Shape: ``(B, N, 3)``, ``(B,)`` to ``(B,)``."""
    return torch.where(labels >= 0, method.task.loss(method.network(clouds), labels.clamp(min=0)), 0.0)


def _weights(method: GatedMethod, batch: Batch) -> Tensor:
    """Weight of each label in training: a pseudo-label may count for less, where its stage says so. Shape: ``(B,)``."""
    name = f"{method.task.name} (weight)"
    ones = torch.ones(len(batch), device=batch.sample_id.device)
    return torch.where(batch.present[name], batch.labels[name].float(), ones) if name in batch.labels else ones


def _classification_gradient(
    method: GatedMethod, parts: list[tuple[Tensor, Tensor, Tensor]], shared: list[nn.Parameter]
) -> Tensor:
    """Gradient of the classification loss over the labelled samples of several domains, by weight, in eval mode."""
    with evaluating(method):
        total = sum(((_losses(method, clouds, y) * weight).sum() for clouds, y, weight in parts), torch.zeros(()))
        assert isinstance(total, Tensor)
        return flat_gradient(total / sum(int((labels >= 0).sum()) for _, labels, _ in parts), shared)


def _skewness(method: GatedMethod, clouds: Tensor, labels: Tensor, true: Tensor, progress: Progress) -> Table:
    """Both kinds of skewness with the known and with the true labels, and the loss that goes with the known ones.

    Dropout draws the same numbers for both labels, so that nothing but the labels makes them differ.
    """
    gate = method.gate if isinstance(method.gate, SkewnessGate) else SkewnessGate()

    def coupled(labels: Tensor) -> Tensor:
        leaf = clouds.detach().requires_grad_()
        torch.manual_seed(progress.torch_seed(0))
        with _buffers_kept(method):
            (gradient,) = torch.autograd.grad(_losses(method, leaf, labels).sum(), leaf)
        return gradient

    def alone(labels: Tensor) -> Tensor:
        return separate(method.network, clouds, lambda leaf: _losses(method, leaf, labels).sum())

    def column(values: Tensor, labels: Tensor) -> np.ndarray:
        return torch.where(labels >= 0, values, torch.nan).cpu().numpy()

    own = coupled(labels) if (labels >= 0).any() else torch.zeros_like(clouds)
    table = {"coupled": column(gate.scores(clouds, own), labels)}
    for alpha in ALPHAS:
        table[f"alpha_{alpha:g}"] = column(skewness(saliency(clouds, own, alpha=alpha, centre=gate.centre)), labels)
    table["separate"] = column(gate.scores(clouds, alone(labels)), labels)
    if torch.equal(labels, true):
        table |= {"coupled_truth": table["coupled"], "separate_truth": table["separate"]}
    else:
        table["coupled_truth"] = column(gate.scores(clouds, coupled(true)), true)
        table["separate_truth"] = column(gate.scores(clouds, alone(true)), true)
    with evaluating(method), torch.no_grad():
        table["class_loss"] = column(_losses(method, clouds, labels), labels)
    return table


def _gate(method: GatedMethod, domain: str, size: int) -> Table:
    """What the gate saw and chose in this step; NaN where there is none."""
    record = method.gate_records.get(domain)
    if record is None:
        return {name: np.full(size, np.nan) for name in ("score", "taking_part")}
    return {"score": record.scores.double().cpu().numpy(), "taking_part": record.taking_part.double().cpu().numpy()}


def _gradients(
    method: GatedMethod,
    batch: Batch,
    progress: Progress,
    shared: list[nn.Parameter],
    oracle: Tensor,
    classification: Tensor,
    taking_part: np.ndarray,
) -> tuple[Table, Tensor, Tensor]:
    """Loss and gradient of each sample of a domain; and the sums over all, and over those that took part."""
    columns: dict[str, list[float]] = {name: [] for name in ("loss", "cosine_oracle", "cosine_class", "norm")}
    total, kept = torch.zeros_like(oracle), torch.zeros_like(oracle)
    with evaluating(method):
        for index, row in enumerate(torch.arange(len(batch), device=batch.sample_id.device).split(1)):
            loss = method.self_supervised(batch, row, progress).sum()
            own = flat_gradient(loss, shared)
            columns["loss"].append(float(loss.detach()))
            columns["cosine_oracle"].append(_cosine(own, oracle))
            columns["cosine_class"].append(_cosine(own, classification))
            columns["norm"].append(float(own.norm()))
            total += own
            if taking_part[index] != 0:  # NaN: no gate, everybody does
                kept += own
    return {name: np.array(values) for name, values in columns.items()}, total, kept


def _cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of two gradients; NaN where one is zero."""
    first, second = first.double(), second.double()
    length = float(first.norm() * second.norm())
    return float(first @ second) / length if length > 0 else float("nan")


@contextmanager
def _buffers_kept(method: GatedMethod) -> Iterator[None]:
    """BatchNorm's statistics, and its count of batches, are afterwards what they were."""
    saved = {name: buffer.clone() for name, buffer in method.network.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in method.network.named_buffers():
                buffer.copy_(saved[name])


@contextmanager
def _generator_kept(progress: Progress) -> Iterator[None]:
    """Dropout draws the numbers of the step, and torch's generator is afterwards what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(progress.torch_seed(0))
        yield


@dataclass(frozen=True)
class Correlation:
    """Mean Spearman correlation over steps and its two-sided p-value, see :func:`within_steps`.

    NaN where no step has three samples that differ.
    """

    rho: float
    p_value: float
    steps: int


def within_steps(
    scores: list[np.ndarray],
    cosines: list[np.ndarray],
    samples: list[np.ndarray] | None = None,
    *,
    permutations: int = 2000,
) -> Correlation:
    """Correlate scores with cosines sample by sample, within each step.

    Samples in which either is not finite are left out, and then steps in which either is constant.

    ``samples`` are their ids, as a sample that comes again in other steps is no new evidence: both of its values last.
    What each sample adds to the correlation, over all its visits together, then changes sign at random instead of
    samples being permuted. Without ids every value is taken for another sample.
    """
    ids = samples or [np.zeros(len(values)) for values in scores]
    pairs, members = [], []
    for score, cosine, own in zip(scores, cosines, ids):
        known = np.isfinite(score) & np.isfinite(cosine)
        pair = _standard_ranks(score[known], cosine[known])
        if pair is not None:
            pairs.append(pair)
            members.append(own[known])
    if not pairs:
        return Correlation(float("nan"), float("nan"), 0)
    random = np.random.default_rng(0)
    observed = float(np.mean([a @ b for a, b in pairs]))
    if samples is None:
        null = np.zeros(permutations)
        for a, b in pairs:
            null += random.permuted(np.broadcast_to(a, (permutations, len(a))), axis=1) @ b
    else:
        # Of permuted ranks the variance is 1 / (n - 1); of signs alone it would be 1 / n.
        added = np.concatenate([a * b * np.sqrt(len(a) / (len(a) - 1)) for a, b in pairs])
        added = np.bincount(np.unique(np.concatenate(members), return_inverse=True)[1], added)
        null = random.choice([-1.0, 1.0], (permutations, len(added))) @ added
    null /= len(pairs)
    # Values that differ by rounding only are equal.
    p_value = (1 + (np.abs(null) >= abs(observed) - 1e-12).sum()) / (1 + permutations)
    return Correlation(observed, float(p_value), len(pairs))


def step_correlation(scores: np.ndarray, cosines: np.ndarray) -> float:
    """Spearman's correlation within one step; NaN where it is not defined. Shape: ``(n,)`` twice."""
    known = np.isfinite(scores) & np.isfinite(cosines)
    pair = _standard_ranks(scores[known], cosines[known])
    return float("nan") if pair is None else float(pair[0] @ pair[1])


def _standard_ranks(scores: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Ranks of both with mean 0 and length 1, so that their product is Spearman's correlation."""
    if len(scores) < 3:
        return None
    ranks = [stats.rankdata(values) for values in (scores, cosines)]
    centred = [values - values.mean() for values in ranks]
    lengths = [float(np.linalg.norm(values)) for values in centred]
    if min(lengths) == 0:
        return None
    return centred[0] / lengths[0], centred[1] / lengths[1]
