import numpy as np
import pytest
import torch
from scipy import stats

from isthmus.data.randomness import Progress
from isthmus.evaluation.points.conflict import observe, within_steps
from isthmus.training.points.build import build_method, build_streams, open_domains
from isthmus.training.recipe import Recipe, override, parse


def test_a_planted_correlation_is_found_and_its_absence_too() -> None:
    random = np.random.default_rng(0)
    cosines = [random.normal(size=32) for _ in range(12)]
    planted = within_steps([-c + random.normal(size=32) for c in cosines], cosines, permutations=300)
    assert planted.rho < -0.5 and planted.p_value < 0.01 and planted.steps == 12
    absent = within_steps([random.normal(size=32) for _ in range(12)], cosines, permutations=300)
    assert abs(absent.rho) < 0.15 and absent.p_value > 0.01


def test_differences_between_steps_do_not_count() -> None:
    """What confounds the correlation over steps: both quantities drift, but within a step they are unrelated."""
    random = np.random.default_rng(1)
    drift = np.linspace(0, 20, 10)
    scores = [random.normal(size=20) - d for d in drift]
    cosines = [random.normal(size=20) + d for d in drift]
    assert stats.spearmanr(np.concatenate(scores), np.concatenate(cosines)).statistic < -0.9
    assert abs(within_steps(scores, cosines, permutations=100).rho) < 0.2


def test_the_mean_is_of_scipys_spearman() -> None:
    random = np.random.default_rng(2)
    scores, cosines = ([random.normal(size=9) for _ in range(4)] for _ in range(2))
    expected = np.mean([stats.spearmanr(a, b).statistic for a, b in zip(scores, cosines)])
    assert within_steps(scores, cosines, permutations=10).rho == pytest.approx(expected)


def test_observing_changes_nothing(tiny: Recipe) -> None:
    labelled = parse(override(tiny.model_dump(mode="json"), [("method.gate", "cosine")]))
    method = build_method(tiny)
    method.train()
    streams = build_streams(labelled, open_domains(labelled), method)
    progress = Progress(0, 0, 0, 10)
    batches = {name: stream.batch(progress, 0) for name, stream in streams.items()}
    before = {name: value.clone() for name, value in method.state_dict().items() if "num_batches" not in name}
    step = observe(method, batches, progress)
    assert all(torch.equal(value, method.state_dict()[name]) for name, value in before.items())
    assert method.training and all(p.grad is None for p in method.parameters())
    assert step.cosine.shape == step.coupled.shape == step.separate.shape == (8,)
    assert np.abs(step.cosine).max() <= 1 + 1e-6 and -1 <= step.step_cosine <= 1
