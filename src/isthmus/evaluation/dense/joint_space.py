"""What a joint pairwise space makes of a prediction and a label: the pictures of Figure 3 of MTPSL.

For an ordered pair (s, t) the mapping network takes the prediction of s and the label of t to one space. Shown are its
feature maps before the last pooling (the paper: "output of the mapping function's last second layer"), reduced to their
first principal component, which both maps of a pair share so that equal colours mean equal features. Where other images
are at hand, the mean of their labels' maps is taken away first: what all images have in common at a place (the padding
of convolutions, floors below and ceilings above) would be all that is seen otherwise.
"""

from __future__ import annotations

import math
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
        elsewhere: the mean cosine of the prediction with labels of other images, NaN without any. A space that tells
            nothing of the image, because everything is mapped to one place, has the same cosine there.
    """

    source: str
    target: str
    prediction: np.ndarray
    label: np.ndarray
    similarity: float
    elsewhere: float = math.nan


@torch.no_grad()
def joint_space_maps(method: MTPSL, batch: Batch, others: Batch | None = None) -> list[JointMaps]:
    """The maps of every ordered pair of tasks whose target has a label.

    Args:
        method: in evaluation mode. Segmentations are mapped as probabilities, also where training draws samples.
        batch: a single image with its labels, where the method's parameters lie.
        others: other images, whose labels the prediction is compared with as well; without them maps show what is
            common to all images too.
    """
    tasks, mapping, options = method.tasks, method.mapping, method.options
    outputs = method.predict(batch.inputs)
    predicted = {name: mapping.embed(name, task.prediction_map(outputs[name])) for name, task in tasks.items()}
    labelled = {name: _embedded_labels(method, name, batch) for name in tasks}
    foreign = {name: _embedded_labels(method, name, others) for name in tasks} if others is not None else {}
    found = []
    for first, source in enumerate(tasks):
        for second, target in enumerate(tasks):
            if source == target or not len(labelled[target]):
                continue
            labels = torch.cat([labelled[target], foreign[target]]) if foreign else labelled[target]
            pair = torch.tensor([[first, second], [second, first]], device=labels.device)
            codes = pair_code(pair[:, 0], pair[:, 1], len(tasks))
            if options.condition == "pair":
                codes = codes[:1].expand(2)
            code = None if options.condition == "none" else torch.cat([codes[:1], codes[1:].expand(len(labels))])
            inputs = torch.cat([predicted[source], labels])
            mapped = mapping(inputs, code)
            prediction = mapped[:1].expand(len(labels), -1, -1, -1)
            cosines = 1 - cosine_distance(prediction, mapped[1:], options.joint_space)
            features = mapping.features(inputs, code).float()
            usual = features[1:].mean(dim=0) if foreign else torch.zeros_like(features[0])
            maps = first_component(features[:2] - usual)
            elsewhere = float(cosines[1:].mean()) if len(cosines) > 1 else math.nan
            found.append(JointMaps(source, target, maps[0], maps[1], float(cosines[0]), elsewhere))
    return found


def _embedded_labels(method: MTPSL, name: str, batch: Batch) -> Tensor:
    """Labels of one task, of the images that have one, as inputs of the mapping network."""
    carried = batch.present[name]
    label, valid = batch.labels[name][carried], batch.valid[name][carried]
    return method.mapping.embed(name, method.tasks[name].label_map(label, valid).float())


def first_component(features: Tensor) -> np.ndarray:
    """The first principal component over all places of all maps, spread over [0, 1].

    Places at the border, where the padding of convolutions outweighs everything else, have no say in it. Its sign is
    that of the mean over channels. Shape: ``(n, C, H, W)`` to ``(n, H, W)`` float32.
    """
    places = features.permute(0, 2, 3, 1).double()
    height, width = places.shape[1:3]
    edge = min(BORDER, (min(height, width) - 1) // 4)
    inner = places[:, edge : height - edge, edge : width - edge].flatten(0, 2)
    centred = inner - inner.mean(dim=0)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    if (centred @ direction * centred.mean(dim=1)).sum() < 0:
        direction = -direction
    low, high = np.percentile((inner @ direction).numpy(force=True), PERCENTILES)
    spread = (places @ direction - low) / max(high - low, 1e-12)
    return spread.clamp(0, 1).numpy(force=True).astype(np.float32)
