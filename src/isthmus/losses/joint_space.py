"""Predictions and labels of task pairs in their joint spaces, all pairs and images of a batch in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.losses.pairs import Pairs, pair_code
from isthmus.models.mapping import MappingNetwork
from isthmus.tasks.dense import DenseTask

Condition = Literal["input-and-pair", "pair", "none"]


def embed_pairs(
    mapping: MappingNetwork,
    tasks: Mapping[str, DenseTask],
    outputs: Mapping[str, Tensor],
    batch: Batch,
    pairs: Pairs,
    *,
    condition: Condition = "input-and-pair",
    uniform: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The source's prediction and the target's label of every pair. Shape: ``(P, C, H', W')`` each.

    ``condition`` says what the mapping is told: ``input-and-pair`` gives A[s, t] for the prediction of s and A[t, s]
    for the label of t (the paper's asymmetric matrix), ``pair`` gives A[s, t] for both (released), ``none`` nothing. A
    map that takes part in several pairs goes through its input layer once. ``uniform`` draws ``(B, C, H, W)`` by task
    turn predictions into Gumbel samples.
    """
    predicted = _embedded(mapping, tasks, outputs, batch, pairs, uniform)
    first, second = pair_code(pairs.source, pairs.target, len(tasks)), pair_code(pairs.target, pairs.source, len(tasks))
    code = None if condition == "none" else torch.cat([first, second if condition == "input-and-pair" else first])
    mapped = mapping(predicted, code)
    return mapped[: len(pairs)], mapped[len(pairs) :]


def _embedded(
    mapping: MappingNetwork,
    tasks: Mapping[str, DenseTask],
    outputs: Mapping[str, Tensor],
    batch: Batch,
    pairs: Pairs,
    uniform: Mapping[str, Tensor] | None,
) -> Tensor:
    """Inputs of all pairs behind their task's input layer: P predictions, then P labels. Shape: ``(2P, C0, H, W)``."""
    pieces, entry_of = [], torch.empty(2 * len(pairs), dtype=torch.int64, device=pairs.sample.device)
    filled = 0
    for position, (name, task) in enumerate(tasks.items()):
        here_source, here_target = pairs.source == position, pairs.target == position
        predicted_rows, of_source = pairs.sample[here_source].unique(return_inverse=True)
        labelled_rows, of_target = pairs.sample[here_target].unique(return_inverse=True)
        maps = []
        if len(predicted_rows):
            draws = None if uniform is None else uniform[name][predicted_rows]
            maps.append(task.prediction_map(outputs[name][predicted_rows], draws))
        if len(labelled_rows):
            label, valid = batch.labels[name][labelled_rows], batch.valid[name][labelled_rows]
            maps.append(task.label_map(label, valid).to(outputs[name].dtype))
        if not maps:
            continue
        pieces.append(mapping.embed(name, torch.cat(maps)))
        entry_of[: len(pairs)][here_source] = filled + of_source
        entry_of[len(pairs) :][here_target] = filled + len(predicted_rows) + of_target
        filled += len(predicted_rows) + len(labelled_rows)
    return torch.cat(pieces)[entry_of]


def cosine_distance(first: Tensor, second: Tensor, space: Literal["vector", "map"] = "vector") -> Tensor:
    """1 - cosine of two maps. Shape: ``(P, C, H, W)`` twice to ``(P,)``, in [0, 2].

    ``vector`` takes the whole map as one vector of R^D, as the paper writes it; ``map`` compares the channels at every
    place and averages over places, as the released code does.
    """
    if space == "vector":
        return 1 - F.cosine_similarity(first.flatten(1).float(), second.flatten(1).float(), dim=1)
    return 1 - F.cosine_similarity(first.float(), second.float(), dim=1).flatten(1).mean(dim=1)
