import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.randomness import Progress
from isthmus.pretexts.pcm import Mix, draw_mix


@given(st.integers(2, 9), st.integers(16, 40), st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_a_mix_takes_a_prefix_of_each_cloud_and_keeps_the_size(batch: int, size: int, step: int) -> None:
    points = torch.randn(batch, size, 3)
    mix = draw_mix(torch.arange(batch), size, Progress(0, 0, step, 501), "source")
    assert sorted(mix.partner.tolist()) == list(range(batch)) and 0 <= mix.share < 1
    mixed = mix.clouds(points)
    assert mixed.shape == points.shape and mix.kept == round(mix.share * size)
    for b in range(batch):
        assert torch.equal(mixed[b, : mix.kept], points[b, : mix.kept])
        assert torch.equal(mixed[b, mix.kept :], points[mix.partner[b], : size - mix.kept])


def test_points_that_no_mix_contains_get_no_gradient_and_are_not_used() -> None:
    mix = Mix(0.3, torch.tensor([1, 2, 0]), 3)
    leaf = torch.randn(3, 10, 3, requires_grad=True)
    mix.clouds(leaf).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad.ne(0).any(-1), mix.used(10))
    assert mix.used(10)[0].tolist() == [True] * 7 + [False] * 3


def test_the_loss_weighs_both_labels_by_their_share() -> None:
    mix = Mix(0.25, torch.tensor([0]), 4)
    assert mix.loss(torch.tensor([1.0]), torch.tensor([2.0])).item() == 1.75
