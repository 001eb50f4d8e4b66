from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.evaluation.points.conflict import ALPHAS, observe, step_correlation, within_steps
from isthmus.gates.skewness import SkewnessGate
from isthmus.losses.weighted import Loss
from isthmus.methods.gated import GatedMethod
from isthmus.training.points.build import build_method, build_streams, open_domains
from isthmus.training.recipe import Recipe, override, parse

SELF_DISTILLATION = [("method", "{kind: self-distillation, gate: {kind: skewness, keep: 0.5}}")]


def test_a_planted_correlation_is_found_and_its_absence_too() -> None:
    random = np.random.default_rng(0)
    cosines = [random.normal(size=32) for _ in range(12)]
    planted = within_steps([-c + random.normal(size=32) for c in cosines], cosines, permutations=300)
    assert planted.rho < -0.5 and planted.p_value < 0.01 and planted.steps == 12
    absent = within_steps([random.normal(size=32) for _ in range(12)], cosines, permutations=300)
    assert abs(absent.rho) < 0.15 and absent.p_value > 0.01


def test_a_sample_that_comes_again_is_no_new_evidence() -> None:
    """Score and cosine are unrelated, but both last: few samples in many steps look like a correlation."""

    def rejected(trial: int, known: bool) -> bool:
        random = np.random.default_rng(trial)
        score, cosine = random.normal(size=(2, 48))
        visits = [random.choice(48, 16, replace=False) for _ in range(40)]
        scores = [score[ids] + 0.5 * random.normal(size=16) for ids in visits]
        cosines = [cosine[ids] + 0.5 * random.normal(size=16) for ids in visits]
        return within_steps(scores, cosines, visits if known else None, permutations=199).p_value < 0.05

    assert np.mean([rejected(trial, known=True) for trial in range(60)]) < 0.15
    assert np.mean([rejected(trial, known=False) for trial in range(60)]) > 0.25
    random = np.random.default_rng(3)
    visits = [random.choice(48, 16, replace=False) for _ in range(40)]
    lasting = random.normal(size=48)
    scores, cosines = ([sign * lasting[ids] + random.normal(size=16) for ids in visits] for sign in (1, -1))
    assert within_steps(scores, cosines, visits, permutations=199).p_value < 0.01


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
    assert step_correlation(scores[0], cosines[0]) == pytest.approx(stats.spearmanr(scores[0], cosines[0]).statistic)


def test_samples_without_a_score_and_steps_without_a_difference_are_left_out() -> None:
    scores = [np.array([1.0, 2.0, np.nan, 3.0]), np.ones(4), np.array([np.nan, np.nan, 1.0, 2.0])]
    cosines = [np.array([3.0, 2.0, 9.0, 1.0]), np.arange(4.0), np.arange(4.0)]
    found = within_steps(scores, cosines, permutations=200)
    assert found.steps == 1 and found.rho == pytest.approx(-1)
    assert found.p_value == pytest.approx(1 / 3, abs=0.1)  # 2 of 6 orders of three samples are as extreme
    nothing = within_steps([np.ones(4)], [np.arange(4.0)])
    assert nothing.steps == 0 and np.isnan(nothing.rho) and np.isnan(nothing.p_value)


def step_of(recipe: Recipe, *, pseudo_labels: bool = False) -> tuple[GatedMethod, dict[str, Batch], torch.Tensor]:
    """A method in the middle of its first step, its batches, and the target's true labels."""
    method, domains = build_method(recipe), open_domains(recipe)
    method.train()
    streams = build_streams(recipe, domains, method)
    progress = Progress(0, 0, 0, 10)
    batches = {name: stream.batch(progress, 0) for name, stream in streams.items()}
    truth = torch.from_numpy(domains.target.labels[batches["target"].sample_id.numpy()])
    if pseudo_labels:
        wrong = (truth + torch.arange(len(truth)) % 2) % 10  # every second one
        labels, present = {"class": wrong}, {"class": torch.arange(len(truth)) != 3}
        batches["target"] = replace(batches["target"], labels=labels, present=present)
    torch.manual_seed(progress.torch_seed(0))
    losses: dict[str, Loss] = method(batches, progress)
    sum((each.coefficient * each.sum / each.weight for each in losses.values()), torch.zeros(())).backward()
    return method, batches, truth


@pytest.mark.parametrize("changes", [[("method.gate", "none")], SELF_DISTILLATION])
def test_observing_changes_nothing(tiny: Recipe, changes: list[tuple[str, str]]) -> None:
    method, batches, truth = step_of(parse(override(tiny.model_dump(mode="json"), changes)))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in method.parameters()]
    generator, modes = torch.get_rng_state(), [module.training for module in method.modules()]
    observe(method, batches, truth, Progress(0, 0, 0, 10))
    assert all(torch.equal(value, method.state_dict()[name]) for name, value in before.items())
    assert modes == [module.training for module in method.modules()]
    assert torch.equal(generator, torch.get_rng_state())
    for old, parameter in zip(gradients, method.parameters()):
        assert (old is None) == (parameter.grad is None)
        assert old is None or torch.equal(old, parameter.grad)


def test_scores_are_those_that_the_gate_of_this_step_saw(tiny: Recipe) -> None:
    changes = [*SELF_DISTILLATION, ("network.dropout", "0.3")]
    method, batches, truth = step_of(parse(override(tiny.model_dump(mode="json"), changes)))
    samples = observe(method, batches, truth, Progress(0, 0, 0, 10)).samples
    source = samples["domain"] == "source"
    np.testing.assert_allclose(samples["coupled"][source], samples["score"][source], rtol=1e-3, atol=1e-3)
    assert samples["taking_part"][source].sum() == 4 and (samples["taking_part"][~source] == 1).all()
    assert np.isnan(samples["coupled"][~source]).all() and np.isfinite(samples["coupled_truth"]).all()
    np.testing.assert_array_equal(samples["alpha_1"], samples["coupled"])
    assert all(f"alpha_{alpha:g}" in samples for alpha in ALPHAS)


@pytest.mark.parametrize("changes", [[("method.pretext_on", "target")], SELF_DISTILLATION])
def test_cosines_are_those_of_a_plain_backward_pass(tiny: Recipe, changes: list[tuple[str, str]]) -> None:
    """One sample, and the whole step, by ``backward`` on a copy in eval mode."""
    method, batches, truth = step_of(parse(override(tiny.model_dump(mode="json"), changes)), pseudo_labels=True)
    progress = Progress(0, 0, 0, 10)
    found = observe(method, batches, truth, progress)
    encoder = list(method.network.encoder.parameters())
    stepped = torch.cat([p.grad.flatten() for p in encoder if p.grad is not None])
    method.eval()

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        method.zero_grad(set_to_none=False)
        loss.backward()
        return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in encoder])

    target, source = batches["target"], batches["source"]
    oracle = gradient(torch.nn.functional.cross_entropy(method.network(target.inputs["points"]), truth))
    row = 5
    own = gradient(method.self_supervised(target, torch.tensor([row]), progress).sum())
    cosine = torch.nn.functional.cosine_similarity
    line = np.flatnonzero(found.samples["domain"] == "target")[row]
    assert found.samples["cosine_oracle"][line] == pytest.approx(float(cosine(own, oracle, dim=0)), abs=1e-5)
    assert found.samples["norm"][line] == pytest.approx(float(own.norm()), rel=1e-4)
    known = target.present["class"]

    def summed(batch: Batch, rows: torch.Tensor) -> torch.Tensor:
        logits = method.network(method.classified(batch, progress))[rows]
        return torch.nn.functional.cross_entropy(logits, batch.labels["class"][rows], reduction="sum")

    losses = [summed(source, torch.arange(8)), summed(target, known.nonzero().flatten())]
    classification = gradient(sum(losses, torch.zeros(())) / 15)
    assert found.samples["cosine_class"][line] == pytest.approx(float(cosine(own, classification, dim=0)), abs=1e-5)
    trained = [target] if changes[0][0] == "method.pretext_on" else [source, target]
    everybody = torch.ones(8, dtype=torch.bool)
    ssl = sum((gradient(method.self_supervised(b, everybody, progress).sum()) for b in trained), torch.zeros(()))
    assert found.cosines["ssl_oracle"] == pytest.approx(float(cosine(ssl, oracle, dim=0)), abs=1e-4)
    assert found.cosines["oracle_step"] == pytest.approx(float(cosine(stepped, oracle, dim=0)), abs=1e-4)
    taking = found.samples["taking_part"].astype(bool)
    kept = torch.zeros(())
    for batch in trained:
        rows = torch.from_numpy(taking[found.samples["domain"] == batch.domain])
        kept = kept + gradient(method.self_supervised(batch, rows, progress).sum())
    assert found.cosines["kept_class"] == pytest.approx(float(cosine(kept, classification, dim=0)), abs=1e-4)


def test_pseudo_labels_and_true_labels_give_two_skewnesses(tiny: Recipe) -> None:
    method, batches, truth = step_of(tiny, pseudo_labels=True)
    samples = observe(method, batches, truth, Progress(0, 0, 0, 10)).samples
    target = samples["domain"] == "target"
    pseudo, true = samples["separate"][target], samples["separate_truth"][target]
    right = samples["label"][target] == samples["truth"][target]
    assert right.sum() == 4 and np.isnan(pseudo[3]) and samples["label"][target][3] == -1
    np.testing.assert_allclose(pseudo[right], true[right], rtol=1e-3, atol=1e-4)
    wrong = ~right & np.isfinite(pseudo)
    assert wrong.sum() == 3 and (np.abs(pseudo[wrong] - true[wrong]) > 1e-3).all()
    points = batches["target"].inputs["points"].requires_grad_()
    method.eval()
    loss = torch.nn.functional.cross_entropy(method.network(points), truth, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, points)
    np.testing.assert_allclose(true, SkewnessGate().scores(points, gradient), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_measured_is_said(tiny: Recipe) -> None:
    method, batches, truth = step_of(tiny)
    with pytest.raises(ValueError, match="true labels"):
        observe(method, batches, torch.full_like(truth, -1), Progress(0, 0, 0, 10))
    method.network.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        observe(method, batches, truth, Progress(0, 0, 0, 10))
