import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.randomness import Progress, shuffled


@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=6, unique=True), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_sample_draws_the_same_whoever_is_beside_it(ids: list[int], step: int) -> None:
    progress = Progress(7, 1, step, 1001)
    together, alone = progress.random("x", ids), progress.random("x", ids[1:2])
    for draw in ("uniform", "normal"):
        assert torch.equal(getattr(together, draw)(3, 2)[1], getattr(alone, draw)(3, 2)[0])
    assert torch.equal(together.permutation(9)[1], alone.permutation(9)[0])


def test_seed_stage_step_purpose_sample_and_call_all_matter() -> None:
    base = Progress(0, 0, 0, 10)
    draws = [
        base.random("a", [0]).uniform(4),
        base.random("b", [0]).uniform(4),
        base.random("a", [1]).uniform(4),
        base._replace(seed=1).random("a", [0]).uniform(4),
        base._replace(stage=1).random("a", [0]).uniform(4),
        base._replace(step=1).random("a", [0]).uniform(4),
    ]
    again = base.random("a", [0])
    again.uniform(4)
    draws.append(again.uniform(4))
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws)


def test_draws_have_the_right_moments_over_samples() -> None:
    random = Progress(3, 0, 5, 10).random("x", range(4000))
    normal, uniform = random.normal(2), random.uniform(2)
    assert abs(normal.mean().item()) < 0.05 and abs(normal.std().item() - 1) < 0.05
    assert abs(uniform.mean().item() - 0.5) < 0.02 and uniform.min() >= 0 and uniform.max() < 1
    assert abs(np.corrcoef(normal.numpy().T)[0, 1]) < 0.06


def test_every_epoch_is_another_permutation_of_everything() -> None:
    first, second = (shuffled(50, seed=0, epoch=epoch, purpose="source") for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first.tolist() != second.tolist()
