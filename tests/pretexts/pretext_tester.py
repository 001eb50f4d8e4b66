"""What every self-supervised task has to stand, written once; a task's own test derives from it."""

import pytest
import torch
from torch import Tensor

from isthmus.data.randomness import Progress, SampleRandom
from isthmus.models.heads import ClassificationHead
from isthmus.models.pointnet import PointNet
from isthmus.pretexts.base import Pretext


def small_encoder() -> PointNet:
    torch.manual_seed(0)
    return PointNet(width=0.125, input_transform=False, feature_transform=False)


def classifier(encoder: PointNet, classes: int) -> ClassificationHead:
    return ClassificationHead(encoder.pooled_channels, classes, width=0.125, slope=encoder.slope)


def some_clouds(batch: int = 3, size: int = 64, seed: int = 0) -> Tensor:
    """Points on the surfaces of ellipsoids within the unit sphere."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.nn.functional.normalize(torch.randn(batch, size, 3, generator=generator), dim=-1)
    return points * (0.3 + 0.7 * torch.rand(batch, 1, 3, generator=generator))


def draws(ids: tuple[int, ...] = (0, 1, 2), step: int = 0) -> SampleRandom:
    return Progress(0, 0, step, 1000).random("pretext/source", list(ids))


class PretextTester:
    """Derive, and say how to build the task: ``build(encoder, **options)``."""

    MIXES = False
    """Whether a sample's loss depends on other samples of the batch by the task's definition."""

    def build(self, encoder: PointNet, **options: object) -> Pretext:
        raise NotImplementedError

    def pair(self, *, training: bool = False, **options: object) -> tuple[PointNet, Pretext]:
        encoder = small_encoder()
        return encoder.train(training), self.build(encoder, **options).train(training)

    @pytest.mark.parametrize(
        ("batch", "size", "distinct"), [(1, 16, 16), (1, 16, 1), (2, 17, 2), (5, 40, 3), (3, 33, 33), (64, 16, 5)]
    )
    def test_any_clouds_give_one_finite_loss_per_sample(self, batch, size, distinct):
        encoder, task = self.pair()
        points = some_clouds(batch, size)
        points[0] = points[0, torch.arange(size) % min(distinct, size)]  # repeated points, down to a single one
        before = points.clone()
        loss = task.loss(encoder, points, draws(tuple(range(batch))))
        assert loss.shape == (batch,) and loss.dtype == torch.float32
        assert loss.isfinite().all() and (loss >= -1e-6).all() and torch.equal(points, before)
        if loss.requires_grad:
            loss.sum().backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())

    def test_training_reaches_the_whole_encoder_and_all_heads(self):
        encoder, task = self.pair(training=True)
        task.loss(encoder, some_clouds(), draws()).sum().backward()
        for name, parameter in [*encoder.named_parameters(), *task.named_parameters()]:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), name

    def test_random_numbers_are_those_of_the_step_and_not_torchs(self):
        encoder, task = self.pair()
        state = torch.get_rng_state()
        first, again = (task.loss(encoder, some_clouds(), draws()) for _ in range(2))
        other = task.loss(encoder, some_clouds(), draws(step=1))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)

    def test_samples_do_not_leak_into_each_other(self):
        if self.MIXES:
            pytest.skip("this task mixes samples")
        encoder, task = self.pair()
        points = some_clouds()
        together, alone = task.loss(encoder, points, draws()), task.loss(encoder, points[1:2], draws((1,)))
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)

    def test_autocast_leaves_targets_and_losses_in_float32(self):
        encoder, task = self.pair()
        exact = task.loss(encoder, some_clouds(), draws())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = task.loss(encoder, some_clouds(), draws())
        assert inside.dtype == torch.float32
        torch.testing.assert_close(inside, exact, rtol=0.1, atol=0.1)
