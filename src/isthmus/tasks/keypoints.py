"""Named points of an object in three dimensions: a heat map for each point's place, and a vector of depths.

The representation of Bulat & Tzimiropoulos, "How far are we from solving the 2D & 3D face alignment problem?", ICCV
2017, which TADA (Li et al., 2020) takes for its anchor task on faces ("a heatmap regression for the 2D positions, and a
vector regression for depth"). TADA says neither how wide Gaussians are nor how the two are balanced; both are options.
"""

from __future__ import annotations

import torch
from torch import Tensor

from isthmus.tasks.dense import DenseTask
from isthmus.tasks.pixels import ratio


class Keypoints(DenseTask):
    """K points of one object per image.

    Labels are ``(B, K, 3)`` float32 (u, v, z as in ``isthmus.data.images``: shares of the image's width, height and
    width), ``valid`` is ``(B, K)``. Raw outputs are ``(B, 2K, h, w)``: K heat maps of any size, and K channels that
    hold the depths; a network makes the latter from a vector and keeps them constant over the map, and of whatever else
    stands there the mean is taken. An output of K channels is one without depths: it has no loss or score for them, so
    that networks without a non-spatial branch, and maps from other tasks, may predict places alone.

    A pixel's heat is compared at its centre: column j of a map of w columns lies at u = (j + 0.5) / w.

    Args:
        classes: names of the points, in the order of the channels.
        sigma: standard deviation of the Gaussians, in pixels of the heat map.
        depth_weight: of the depth's error in the loss. With sigma = 2 on 96 x 84 pixels, an empty heat map has a mean
            squared error of 0.0016, and so have depths that are wrong by 4 % of the image's width.
        size: height and width of the maps that :meth:`label_map` makes; only cross-task methods need it.

    Raises:
        ValueError: without names, or if a number is out of range.
    """

    name = "keypoints"
    headline = "nme"
    higher_is_better = False
    heading = "NME [%]"
    display_factor = 100.0

    def __init__(
        self,
        classes: tuple[str, ...],
        *,
        sigma: float = 2.0,
        depth_weight: float = 1.0,
        size: tuple[int, int] | None = None,
    ) -> None:
        if not classes:
            raise ValueError("classes: expected names of points, found none")
        if not sigma > 0:
            raise ValueError(f"sigma: expected more than 0 pixels, found {sigma}")
        if not depth_weight >= 0:
            raise ValueError(f"depth_weight: expected at least 0, found {depth_weight}")
        self.classes = tuple(classes)
        self.channels = self.vector_channels = len(self.classes)
        self.sigma = sigma
        self.depth_weight = depth_weight
        self.size = size

    def loss(self, output: Tensor, label: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean over labelled points of the heat maps' mean squared error and ``depth_weight`` times the depth's.

        The squared error (not a smooth L1, which equals half of it for errors below 1, and depths are far below 1).
        """
        heat, depth = self._parts(output)
        label, valid = _known(label, valid)
        target = self._gaussians(label, heat.shape[-2], heat.shape[-1])
        error = (heat - target).square().mean(dim=(2, 3))
        if depth is not None:
            error = error + self.depth_weight * (depth - label[..., 2]).square()
        return torch.where(valid, error, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)

    def activate(self, output: Tensor) -> Tensor:
        """The points u, v, z; z is 0 where the output has no depths. Shape: ``(B, 2K, h, w)`` to ``(B, K, 3)``.

        A point lies at its heat map's maximum (the first of several), moved in its row and in its column to the top of
        the parabola through the maximum and its two neighbours, which is at most half a pixel away; on the border it is
        not moved. Of a Gaussian with sigma >= 1 this finds the place within 0.05 pixels. (Usual since Newell et al.,
        ECCV 2016, is a quarter of a pixel towards the higher neighbour: within 0.25, and it jumps with the last bits of
        neighbours that are equal.) There is no gradient to the heat maps.
        """
        heat, depth = self._parts(output)
        height, width = heat.shape[-2:]
        flat = heat.detach().flatten(2)
        place = flat.argmax(dim=2, keepdim=True)
        row, column = place // width, place % width

        def offset(position: Tensor, size: int, step: int) -> Tensor:
            """Of the parabola's top in pixels, in [-0.5, 0.5]."""
            before, top, after = (flat.gather(2, (place + by).clamp(0, height * width - 1)) for by in (-step, 0, step))
            bend = 2 * top - before - after
            curved = (position > 0) & (position < size - 1) & (bend > 0)
            return torch.where(curved, (after - before) / (2 * bend.where(curved, 1.0)), 0.0)

        u = (column + 0.5 + offset(column, width, 1)) / width
        v = (row + 0.5 + offset(row, height, width)) / height
        z = torch.zeros_like(u) if depth is None else depth[..., None]
        return torch.cat([u, v, z], dim=2)

    def statistics(self, output: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """Sum of normalised distances and their number, sum of absolute errors of depth and theirs. Shape: ``(B, 4)``.

        Distances are taken in pixels of the heat map, which has the shape of the image, and divided by the geometric
        mean of width and height of the box around the image's labelled points. Points of an image whose box has no area
        (fewer than two points) have no normalised distance.
        """
        _, depth = self._parts(output)
        found = self.activate(output).double()
        truth, valid = _known(label.double(), valid)
        pixels = truth.new_tensor([output.shape[-1], output.shape[-2]])
        place = truth[..., :2] * pixels
        highest = torch.where(valid[..., None], place, -torch.inf).amax(dim=1)
        lowest = torch.where(valid[..., None], place, torch.inf).amin(dim=1)
        box = torch.where(valid.any(dim=1), (highest - lowest).prod(dim=1), 0.0).sqrt()
        distance = (found[..., :2] * pixels - place).square().sum(dim=2).sqrt()
        scored = valid & (box > 0)[:, None]
        normalised = torch.where(scored, distance / box.where(box > 0, 1.0)[:, None], 0.0)
        if depth is None:
            scored_depth, error = torch.zeros_like(valid), torch.zeros_like(distance)
        else:
            scored_depth, error = valid, torch.where(valid, (found[..., 2] - truth[..., 2]).abs(), 0.0)
        sums = [normalised, scored.double(), error, scored_depth.double()]
        return torch.stack([each.sum(dim=1) for each in sums], dim=1)

    def scores(self, statistics: Tensor) -> dict[str, Tensor]:
        """``nme``, the mean distance as a share of the box, and ``depth_error``, as a share of the image's width.

        Both are means over points, so an image with more labelled points counts more.
        """
        distance, scored, depth, scored_depth = statistics.unbind(dim=-1)
        return {"nme": ratio(distance, scored), "depth_error": ratio(depth, scored_depth)}

    def prediction_map(self, output: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Heat maps in [0, 1], without the depths. Shape: ``(B, K, h, w)``."""
        return self._parts(output)[0].clamp(0, 1)

    def label_map(self, label: Tensor, valid: Tensor) -> Tensor:
        """Gaussians, all zero where a point has no label. Shape: ``(B, K, *size)``.

        Raises:
            ValueError: the task was built without ``size``: a list of points does not say how large its image is.
        """
        if self.size is None:
            raise ValueError("keypoints: expected the size of the heat maps (Keypoints(..., size=)), found none")
        label, valid = _known(label, valid)
        return torch.where(valid[..., None, None], self._gaussians(label, *self.size), 0.0)

    def _parts(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Heat maps ``(B, K, h, w)`` and depths ``(B, K)`` or None, both float32."""
        count = len(self.classes)
        if output.shape[1] not in (count, 2 * count):
            raise ValueError(
                f"keypoints: expected {2 * count} channels (or {count} heat maps), found {output.shape[1]}"
            )
        heat = output[:, :count].float()
        return heat, output[:, count:].float().mean(dim=(2, 3)) if output.shape[1] > count else None

    def _gaussians(self, label: Tensor, height: int, width: int) -> Tensor:
        """Bells of height 1 around the points, wherever they are. Shape: ``(B, K, 3)`` to ``(B, K, height, width)``."""
        sides = []
        for place, size in ((label[..., 1], height), (label[..., 0], width)):
            centres = torch.arange(size, device=label.device, dtype=label.dtype) + 0.5
            sides.append((-((centres - place[..., None] * size) / self.sigma).square() / 2).exp())
        rows, columns = sides
        return rows[..., :, None] * columns[..., None, :]


def _known(label: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """The label with zeros where there is none, whatever was there (also NaN), and which points have one."""
    if valid is None:
        valid = torch.ones(label.shape[:2], dtype=torch.bool, device=label.device)
    return torch.where(valid[..., None], label, 0.0), valid
