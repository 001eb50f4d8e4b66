import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretext_tester import PretextTester, draws, some_clouds
from torch import Tensor

from isthmus.models.pointnet import PointNet
from isthmus.models.pretext_heads import PointHead
from isthmus.pretexts.distortion_location import distort
from isthmus.pretexts.masked_structure import BINS, OUT_CHANNELS, MaskedStructure, cardinality_loss


def slow_cardinality_loss(
    logits: np.ndarray, number: float, absolute_weight: float, width: float = 2.0, shift: float = 0.0
) -> float:
    """The definition for one point: the target's two bins written out, the divergence as a sum over bins."""
    p = np.exp(logits - logits.max())
    p /= p.sum()
    bins = shift + width * np.arange(16)
    number = min(max(number, bins[0]), bins[-1])
    target = np.clip(1 - np.abs(number - bins) / width, 0, None)
    divergence = sum(t * math.log(t / q) for t, q in zip(target, p) if t > 0)
    return divergence + absolute_weight * abs(float(p @ bins) - number)


class TestMaskedStructure(PretextTester):
    def build(self, encoder: PointNet, **options: object) -> MaskedStructure:
        head = PointHead(encoder.local_channels, encoder.pooled_channels, OUT_CHANNELS, width=0.125)
        return MaskedStructure(head, **options)  # type: ignore[arg-type]

    @pytest.mark.parametrize("match", ["index", "nearest"])
    def test_the_loss_is_the_definition_point_by_point(self, match):
        weights = {"position_weight": 0.3, "normal_weight": 0.7, "cardinality_weight": 0.2, "absolute_weight": 0.1}
        cardinality = {"radius": 0.1, "radius_points": 512, "bin_width": 3.0, "shift": 4}
        encoder, task = self.pair(match=match, mask_weight=5.0, neighbours=6, **cardinality, **weights)
        points = some_clouds()
        loss = task.loss(encoder, points, draws())
        masked, region = distort(points, draws(), min_points=40, variance=0.001)
        answer = task.head(encoder(masked)).detach()
        for b in range(3):
            cloud, hidden = points[b].double().numpy(), region.mask[b].numpy()
            distance = np.linalg.norm(cloud[:, None] - cloud[None], axis=-1)
            number = (distance <= 0.1 * math.sqrt(512 / 64)).sum(1) - 1
            guess = answer[b, :, :3].double().numpy()
            square = ((guess[hidden][:, None] - cloud[hidden][None]) ** 2).sum(-1)
            position = 20 * (square.min(0).mean() + square.min(1).mean())
            of_normal = of_number = 0.0
            weight = np.where(hidden, 5.0, 1.0)
            for n in range(64):
                true = n
                if hidden[n] and match == "nearest":
                    true = int(np.flatnonzero(hidden)[((cloud[hidden] - guess[n]) ** 2).sum(-1).argmin()])
                near = cloud[distance[true].argsort()[:6]]
                axis = np.linalg.eigh(np.cov(near.T))[1][:, 0]
                said = answer[b, n, 3:6].double().numpy()
                of_normal += weight[n] * (1 - abs(said @ axis) / np.linalg.norm(said)) / weight.sum()
                logits = answer[b, n, 6:].double().numpy()
                of_number += weight[n] * slow_cardinality_loss(logits, number[true], 0.1, 3.0, 4) / weight.sum()
            expected = 0.3 * position + 0.7 * of_normal + 0.2 * of_number
            assert loss[b].item() == pytest.approx(expected, rel=2e-3)

    def test_a_cloud_without_a_voxel_counts_nothing(self):
        encoder, task = self.pair(min_points=10_000)
        loss = task.loss(encoder, some_clouds(), draws())
        loss.sum().backward()
        assert loss.tolist() == [0.0] * 3
        assert all(p.grad is None or (p.grad == 0).all() for p in encoder.parameters())

    def test_points_without_a_normal_take_no_part_in_that_term(self):
        encoder, task = self.pair(position_weight=0.0, cardinality_weight=0.0)
        line = torch.linspace(-1, 1, 64)[None, :, None] * torch.tensor([0.5, 0.3, 0.2])
        assert task.loss(encoder, line, draws((0,))).tolist() == [0.0]

    def test_defaults_are_the_published_ones(self):
        _, task = self.pair()
        numbers = (task.position_weight, task.normal_weight, task.cardinality_weight, task.absolute_weight)
        assert numbers == (0.5, 0.5, 0.05, 0.05)
        assert (task.mask_weight, task.neighbours, task.radius, task.min_points) == (27.0, 20, 0.13, 40)
        assert (task.radius_points, task.bin_width, task.shift, task.match) == (1024, 2.0, 0, "index")

    def test_a_head_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match="head: expected 22 numbers for a point, found 21"):
            MaskedStructure(PointHead(8, 8, 21, width=0.01))


@given(st.integers(0, 1000), st.floats(0, 100), st.floats(0, 1), st.sampled_from([5.0, 2.0]), st.sampled_from([0, 10]))
@settings(max_examples=60, deadline=None)
def test_the_cardinality_loss_is_its_definition(
    seed: int, number: float, weight: float, width: float, shift: int
) -> None:
    logits = torch.randn(BINS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    given_number = torch.tensor(number, dtype=torch.float64)
    ours = cardinality_loss(logits, given_number, absolute_weight=weight, bin_width=width, shift=shift)
    expected = slow_cardinality_loss(logits.numpy(), number, weight, width, shift)
    assert ours.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_fewer_neighbours_than_the_shift_count_as_that_many() -> None:
    logits = torch.randn(BINS)
    few, least, more = (cardinality_loss(logits, torch.tensor(n), shift=10) for n in (3, 10, 15))
    assert few == least and more == cardinality_loss(logits, torch.tensor(5))


@pytest.mark.parametrize(("number", "bins"), [(7, {1: 0.6, 2: 0.4}), (75, {15: 1.0}), (200, {15: 1.0}), (0, {0: 1.0})])
def test_the_right_two_bins_cost_nothing(number: int, bins: dict[int, float]) -> None:
    share = torch.zeros(BINS)
    for place, value in bins.items():
        share[place] = value
    logits: Tensor = (share + 1e-12).log().requires_grad_()
    loss = cardinality_loss(logits, torch.tensor(number), bin_width=5.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-4)
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_the_radius_follows_the_density() -> None:
    encoder = PointNet(width=0.125)
    task = TestMaskedStructure().build(encoder)
    many = some_clouds(2, 1024)
    for size in (1024, 256):
        median = task.structure(many[:, :size])[1].float().median()
        assert 8 <= median <= 16
