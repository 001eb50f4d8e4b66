import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretext_tester import PretextTester, classifier, draws, small_encoder, some_clouds
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from isthmus.models.pointnet import PointNet
from isthmus.pretexts.mixed_rotation import TURNS, MixedRotation, quarter_turns, turned_mix


class Answer(nn.Module):
    """A head that is sure of what it was told."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.logits = 100.0 * torch.nn.functional.one_hot(labels, TURNS).float()

    def forward(self, pooled: Tensor) -> Tensor:
        return self.logits + 0 * pooled.sum()


class TestMixedRotation(PretextTester):
    MIXES = True

    def build(self, encoder: PointNet, **options: object) -> MixedRotation:
        return MixedRotation(classifier(encoder, TURNS), classifier(encoder, TURNS), **options)  # type: ignore[arg-type]

    def test_the_loss_weighs_both_cross_entropies_by_their_share(self):
        encoder, task = self.pair()
        points = some_clouds()
        mix = turned_mix(points, draws())
        pooled = encoder(mix.points).pooled
        first, second = task.first(pooled).log_softmax(-1), task.second(pooled).log_softmax(-1)
        loss = task.loss(encoder, points, draws())
        for b in range(3):
            share = float(mix.share[b])
            expected = -share * first[b, mix.first[b]] - (1 - share) * second[b, mix.second[b]]
            torch.testing.assert_close(loss[b], expected)

    def test_each_head_learns_the_turns_of_its_own_part(self):
        encoder, points = small_encoder().eval(), some_clouds(8)
        ids = tuple(range(8))
        mix = turned_mix(points, draws(ids))
        assert not torch.equal(mix.first, mix.second)
        right = MixedRotation(Answer(mix.first), Answer(mix.second))  # type: ignore[arg-type]
        aliased = MixedRotation(Answer(mix.second), Answer(mix.second))  # type: ignore[arg-type]
        assert right.loss(encoder, points, draws(ids)).max() < 1e-6
        wrong = aliased.loss(encoder, points, draws(ids))
        differs = mix.first != mix.second
        torch.testing.assert_close(wrong, 100 * mix.share * differs)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_quarter_turns_are_exact_rotations_about_the_axis(axis: str) -> None:
    points = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    turns = torch.tensor([0, 1, 2, 3, 5])
    turned = quarter_turns(points, turns, axis)
    for b, turn in enumerate(turns.tolist()):
        expected = Rotation.from_euler(axis, 90 * turn, degrees=True).apply(points[b].numpy())
        np.testing.assert_allclose(turned[b].numpy(), expected, atol=1e-6)
        assert sorted(turned[b].abs().flatten().tolist()) == sorted(points[b].abs().flatten().tolist())  # no rounding


@given(st.integers(1, 6), st.integers(16, 40), st.integers(0, 900), st.sampled_from(["batch", "sample"]))
@settings(max_examples=40, deadline=None)
def test_a_mix_is_a_turned_prefix_of_each_of_two_clouds(batch: int, size: int, step: int, share_per: str) -> None:
    points = some_clouds(batch, size, step)
    mix = turned_mix(points, draws(tuple(range(batch)), step), share_per=share_per)
    assert mix.points.shape == points.shape and ((mix.share >= 0) & (mix.share < 1)).all()
    assert (len(set(mix.share.tolist())) == 1) or share_per == "sample"
    partners = []
    for b in range(batch):
        kept = round(float(mix.share[b]) * size)
        own = quarter_turns(points[b : b + 1, :kept], mix.first[b : b + 1], "x")[0]
        assert torch.equal(mix.points[b, :kept], own)
        others = quarter_turns(points[:, : size - kept], mix.second[b].expand(batch), "y")
        partners.append([p for p in range(batch) if torch.equal(others[p], mix.points[b, kept:])])
    if min(len(found) for found in partners) == 1 == max(len(found) for found in partners):
        assert sorted(found[0] for found in partners) == list(range(batch))  # everybody is somebody's partner
    assert all(partners)


def test_shares_and_turns_are_drawn_evenly() -> None:
    points, shares, turns = some_clouds(4, 16), [], torch.zeros(2, TURNS)
    for step in range(100):
        mix = turned_mix(points, draws((0, 1, 2, 3), step))
        shares.append(float(mix.share[0]))
        turns[0] += torch.bincount(mix.first, minlength=TURNS)
        turns[1] += torch.bincount(mix.second, minlength=TURNS)
    assert abs(np.mean(shares) - 0.5) < 0.1 and min(shares) < 0.1 and max(shares) > 0.9
    assert (turns > 65).all() and (turns < 135).all()  # 100 each are expected


def test_a_share_for_every_sample_is_an_option() -> None:
    mix = turned_mix(some_clouds(), draws(), share_per="sample")
    assert len(set(mix.share.tolist())) == 3
