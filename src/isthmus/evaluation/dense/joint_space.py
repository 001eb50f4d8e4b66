"""What a joint pairwise space makes of a prediction and a label: the pictures of Figure 3 of MTPSL.

For an ordered pair (s, t) the mapping network takes the prediction of s and the label of t to one space. Shown are its
feature maps before the last pooling (the paper: "output of the mapping function's last second layer"), reduced to their
first principal component, which both maps of a pair share so that equal colours mean equal features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.losses.joint_space import cosine_distance
from isthmus.losses.pairs import pair_code
from isthmus.methods.mtpsl import MTPSL

PERCENTILES = (1.0, 99.0)
BORDER = 2


@dataclass(frozen=True)
class JointMaps:
    """The maps of one ordered pair of tasks for one image.

    Attributes:
        source: the task whose prediction is mapped.
        target: the task whose label is mapped.
        prediction: the mapped prediction, ``(H', W')`` in [0, 1].
        label: the mapped label, likewise and on the same scale.
        similarity: the cosine that training raises, in [-1, 1].
    """

    source: str
    target: str
    prediction: np.ndarray
    label: np.ndarray
    similarity: float


@torch.no_grad()
def joint_space_maps(method: MTPSL, batch: Batch) -> list[JointMaps]:
    """The maps of every ordered pair of tasks whose target has a label.

    Args:
        method: in evaluation mode. Segmentations are mapped as probabilities, also where training draws samples.
        batch: a single image with its labels, where the method's parameters lie.
    """
    tasks, mapping, options = method.tasks, method.mapping, method.options
    outputs = method.predict(batch.inputs)
    predicted = {name: mapping.embed(name, task.prediction_map(outputs[name])) for name, task in tasks.items()}
    labelled = {
        name: mapping.embed(name, task.label_map(batch.labels[name], batch.valid[name]).float())
        for name, task in tasks.items()
        if name in batch.labels and bool(batch.present[name][0])
    }
    found = []
    for first, source in enumerate(tasks):
        for second, target in enumerate(tasks):
            if source == target or target not in labelled:
                continue
            pair = torch.tensor([[first, second], [second, first]], device=predicted[source].device)
            codes = pair_code(pair[:, 0], pair[:, 1], len(tasks))
            if options.condition == "pair":
                codes = codes[:1].expand(2)
            code = None if options.condition == "none" else codes
            both = torch.cat([predicted[source], labelled[target]])
            mapped = mapping(both, code)
            similarity = 1 - float(cosine_distance(mapped[:1], mapped[1:], options.joint_space))
            maps = first_component(mapping.features(both, code).float())
            found.append(JointMaps(source, target, maps[0], maps[1], similarity))
    return found


def first_component(features: Tensor) -> np.ndarray:
    """The first principal component over all places of all maps, spread over [0, 1].

    Places at the border, where the padding of convolutions outweighs everything else, have no say in it. Its sign is
    that of the mean over channels. Shape: ``(n, C, H, W)`` to ``(n, H, W)`` float32.
    """
    places = features.permute(0, 2, 3, 1).double()
    height, width = places.shape[1:3]
    edge = BORDER if min(height, width) > 4 * BORDER else 0
    inner = places[:, edge : height - edge, edge : width - edge].flatten(0, 2)
    centred = inner - inner.mean(dim=0)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    if (centred @ direction * centred.mean(dim=1)).sum() < 0:
        direction = -direction
    low, high = np.percentile((inner @ direction).numpy(force=True), PERCENTILES)
    spread = (places @ direction - low) / max(high - low, 1e-12)
    return spread.clamp(0, 1).numpy(force=True).astype(np.float32)
