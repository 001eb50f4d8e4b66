"""A network for images and one for sweeps whose predictions meet at the points.

The two of xMUDA (Jaritz et al., CVPR 2020) and of everything built on it: features of the image are taken where the
points are seen, so that both streams give a feature, and a linear classifier a prediction, for every point. ::

    image  -> image network -> (B, C, H, W) -> link -> (B, N, C) -> classifier -> 2D (B, K, 1, N)
    points -> point network ----------------------->  (B, N, D) -> classifier -> 3D (B, K, 1, N)

The link is the pixel in which a point lies, or a patch around it (:mod:`isthmus.models.deformable_patch`), whose mean
is what the 2D classifier sees. Second classifiers (*mimicry heads*) can be put beside the first, so that a stream can
imitate the other without giving up its own prediction.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from isthmus.geometry.pixels import sample_pixels
from isthmus.models.deformable_patch import DeformablePatch, PatchPools

IMAGE, POINTS = "2D", "3D"


class StreamOutputs(NamedTuple):
    """What the streams say of a batch, by stream (``2D``, ``3D``; one of them where the other is not there).

    ``logits`` and ``mimicry`` are ``(B, K, 1, N)``, ``features`` ``(B, N, C)``. Where the link is a patch, ``extremes``
    holds the logits of the maximum and the minimum over the patch. Rows of absent points hold the logits of zero
    features: they belong to nobody.
    """

    logits: dict[str, Tensor]
    features: dict[str, Tensor]
    mimicry: dict[str, Tensor]
    extremes: dict[str, Tensor]


class TwoStreams(nn.Module):
    """Both streams with their classifiers.

    Args:
        classes: K.
        image_network: ``(B, 3, H, W)`` to ``(B, C, H, W)`` with an attribute ``out_channels``; None for sweeps alone.
        point_network: ``(B, N, 3)`` and ``(B, N)`` bool to ``(B, N, D)``, with ``out_channels``; None for images alone.
        patch: a patch in place of the point's pixel.
        extremes: how the maximum and the minimum of a patch are classified: by the classifier of the mean
            ("shared", as DsCML's Fig. 4 has one classifier), or each by its own ("own", as its released code does).
        pooled: what the maximum and the minimum are of: features, which are then classified, or the classifier's
            probabilities, class by class, which are made to add up to 1 again (``extremes`` then plays no part).
        mimicry: whether each stream has a second classifier.

    Raises:
        ValueError: no stream at all, or a patch without images.
    """

    def __init__(
        self,
        classes: int,
        image_network: nn.Module | None,
        point_network: nn.Module | None,
        *,
        patch: DeformablePatch | None = None,
        extremes: Literal["shared", "own"] = "shared",
        pooled: Literal["features", "probabilities"] = "features",
        mimicry: bool = False,
    ) -> None:
        super().__init__()
        networks = {IMAGE: image_network, POINTS: point_network}
        present = {name: network for name, network in networks.items() if network is not None}
        if not present:
            raise ValueError("expected an image network or a point network, found neither")
        if patch is not None and image_network is None:
            raise ValueError("patch: expected an image network, found none")
        self.networks = nn.ModuleDict(present)
        self.patch = patch
        self.pooled = pooled
        widths = {name: int(network.out_channels) for name, network in present.items()}  # type: ignore[arg-type]
        self.widths = widths
        self.classifiers = nn.ModuleDict({name: nn.Linear(width, classes) for name, width in widths.items()})
        self.mimicry = nn.ModuleDict(
            {name: nn.Linear(width, classes) for name, width in widths.items()} if mimicry else {}
        )
        own = patch is not None and extremes == "own"
        self.extremes = nn.ModuleDict(
            {name: nn.Linear(widths[IMAGE], classes) for name in ("max", "min")} if own else {}
        )

    @property
    def streams(self) -> tuple[str, ...]:
        """Those that are there, 2D first."""
        return tuple(self.networks)

    def forward(self, inputs: dict[str, Tensor]) -> StreamOutputs:
        """Predictions of both streams for the inputs of :func:`isthmus.data.frame_stream.read_frames`."""
        present = inputs["present_points"]
        features: dict[str, Tensor] = {}
        extremes: dict[str, Tensor] = {}
        if IMAGE in self.networks:
            maps = self._maps(inputs)
            if self.patch is None:
                features[IMAGE] = sample_pixels(maps, inputs["pixels"], present)
            else:
                pooled = self.patch(maps, inputs["pixels"], present)
                features[IMAGE] = pooled.mean
                extremes = self._extremes(maps, pooled, inputs["pixels"], present)
        if POINTS in self.networks:
            features[POINTS] = self.networks[POINTS](inputs["points"], present)
        mimicry = {name: as_map(head(features[name])) for name, head in self.mimicry.items()}
        return StreamOutputs(self._classified(features), features, mimicry, extremes)

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The ``logits`` of :meth:`forward`, bit for bit, without what only losses ask for: extremes and mimicry."""
        present = inputs["present_points"]
        features: dict[str, Tensor] = {}
        if IMAGE in self.networks:
            linked = sample_pixels if self.patch is None else self.patch.mean
            features[IMAGE] = linked(self._maps(inputs), inputs["pixels"], present)
        if POINTS in self.networks:
            features[POINTS] = self.networks[POINTS](inputs["points"], present)
        return self._classified(features)

    def _maps(self, inputs: dict[str, Tensor]) -> Tensor:
        """Features of the images. Shape: (B, C, H, W)."""
        if "image" not in inputs:
            raise ValueError("image: the 2D stream expected images with the sweeps, found none")
        maps: Tensor = self.networks[IMAGE](inputs["image"])
        return maps

    def _classified(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Logits (B, K, 1, N) by stream, of features (B, N, C)."""
        return {name: as_map(self.classifiers[name](values)) for name, values in features.items()}

    def _extremes(self, maps: Tensor, pooled: PatchPools, pixels: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Logits of the maximum and the minimum over each patch."""
        classifier = self.classifiers[IMAGE]
        if self.pooled == "probabilities":
            scores = classifier(maps.permute(0, 2, 3, 1)).float().softmax(dim=3).permute(0, 3, 1, 2)
            assert self.patch is not None
            ends = self.patch(maps, pixels, present, scores)
            return {
                "max": log_renormalised(as_map(ends.maximum)),
                "min": log_renormalised(as_map(ends.minimum)),
            }
        heads = self.extremes or {"max": classifier, "min": classifier}
        return {"max": as_map(heads["max"](pooled.maximum)), "min": as_map(heads["min"](pooled.minimum))}


def as_map(values: Tensor) -> Tensor:
    """Values of points as an image of height 1. Shape: ``(B, N, K)`` to ``(B, K, 1, N)``."""
    return values.transpose(1, 2)[:, :, None]


def average(logits: dict[str, Tensor]) -> Tensor:
    """The ensemble of xMUDA: the mean of the streams' probabilities, as logarithms. Shape: ``(B, K, 1, N)``."""
    log_probabilities = torch.stack([values.float().log_softmax(dim=1) for values in logits.values()])
    return log_probabilities.logsumexp(dim=0) - torch.log(torch.tensor(float(len(logits))))


def log_renormalised(scores: Tensor, least: float = 1e-6) -> Tensor:
    """Logarithms of scores that are divided by their sum over the classes: pooled probabilities as distributions.

    Args:
        scores: (B, K, ...), not negative.
        least: what scores are raised to, so that logarithms and their slopes stay finite; raised ones get no gradient.

    Shape:
        - output: that of the scores
    """
    raised = scores.to(torch.promote_types(scores.dtype, torch.float32)).clamp(min=least)
    return raised.log() - raised.sum(dim=1, keepdim=True).log()
