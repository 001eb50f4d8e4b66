from dataclasses import replace

import pytest
import torch
from torch import nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.gates import CosineGate, Gate, RandomGate, ScaledWeight, SkewnessGate
from isthmus.losses.weighted import Loss
from isthmus.methods.self_supervised import GatingOptions, SelfSupervised
from isthmus.models.classifier import PointClassifier
from isthmus.models.heads import ClassificationHead, PointReconstructionHead
from isthmus.models.pointnet import PointNet
from isthmus.pretexts.defrec import DefRec
from isthmus.tasks.classification import Classification

CLASSES = ("chair", "lamp", "table")
PROGRESS = Progress(0, 0, 3, 10)


def method(gate: Gate | None = None, *, dropout: float = 0.0, mixup: bool = False, **gating: object) -> SelfSupervised:
    torch.manual_seed(0)
    encoder = PointNet(width=0.125)
    head = ClassificationHead(encoder.pooled_channels, 3, width=0.125, dropout=dropout, slope=0.0)
    pretext = DefRec(PointReconstructionHead(encoder.local_channels, encoder.pooled_channels, width=0.125))
    return SelfSupervised(
        PointClassifier(encoder, head), Classification(CLASSES), pretext, gate=gate, mixup=mixup, weight=0.3,
        gating=GatingOptions(**gating),  # type: ignore[arg-type]
    )  # fmt: skip


def batch(domain: str, size: int = 8, labelled: bool = True, first: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(first + (domain == "target"))
    points = torch.randn(size, 64, 3, generator=generator) * 0.4
    present = torch.full((size,), labelled)
    return Batch(
        domain, {"points": points}, {"class": torch.arange(size) % 3}, {"class": present}, torch.arange(size) + first
    )


def stage1() -> dict[str, Batch]:
    return {"source": batch("source"), "target": batch("target", labelled=False)}


def stage2() -> dict[str, Batch]:
    return {"source": batch("source"), "target": batch("target")}


def total(losses: dict[str, Loss]) -> torch.Tensor:
    return sum(
        (each.coefficient * each.sum / each.weight for each in losses.values() if each.weight > 0), torch.zeros(())
    )


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def frozen_norm(model: nn.Module) -> nn.Module:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    return model


def test_stage_1_gates_the_source_only_and_stage_2_both() -> None:
    model = method(SkewnessGate(0.5))
    model(stage1(), PROGRESS)
    assert model.gate_records["source"].taking_part.sum() == 4
    assert model.gate_records["target"].taking_part.all() and model.gate_records["target"].scores.isnan().all()
    model(stage2(), PROGRESS)
    assert [model.gate_records[d].taking_part.sum().item() for d in ("source", "target")] == [4, 4]


def test_losses_of_the_host_are_those_of_equation_1() -> None:
    model = frozen_norm(method())
    batches = stage1()
    losses = model(batches, PROGRESS)
    assert set(losses) == {"class/source", "class/target", "defrec/source", "defrec/target"}
    assert losses["class/target"].weight == 0
    source = batches["source"]
    expected = nn.functional.cross_entropy(model.network(source.inputs["points"]), source.labels["class"])
    torch.testing.assert_close(losses["class/source"].sum / losses["class/source"].weight, expected)
    assert losses["class/source"].coefficient == pytest.approx(0.7) and losses["defrec/source"].coefficient == 0.3
    random = PROGRESS.random("defrec/target", range(8))
    reconstruction = model.pretext.loss(model.network.encoder, batches["target"].inputs["points"], random)
    torch.testing.assert_close(losses["defrec/target"].sum, reconstruction.sum())


@pytest.mark.parametrize("normaliser", ["batch", "kept"])
def test_dropping_the_forward_pass_equals_masking_the_loss_with_batch_norm_in_eval_mode(normaliser: str) -> None:
    results = []
    for drop in ("forward", "loss"):
        model = frozen_norm(method(SkewnessGate(0.5), drop=drop, normaliser=normaliser))
        losses = model(stage2(), PROGRESS)
        total(losses).backward()
        results.append((losses, gradients(model)))
    (first, g1), (second, g2) = results
    for name in first:
        torch.testing.assert_close(first[name].sum, second[name].sum, rtol=1e-4, atol=1e-5)
        assert first[name].weight == second[name].weight
    for name in g1:
        torch.testing.assert_close(g1[name], g2[name], rtol=1e-3, atol=1e-5)


def test_a_dropped_sample_has_no_pretext_pass() -> None:
    model = method(SkewnessGate(0.25))
    seen: list[int] = []
    original = model.pretext.loss
    model.pretext.loss = lambda encoder, points, random: (seen.append(len(points)), original(encoder, points, random))[
        1
    ]
    model(stage2(), PROGRESS)
    assert seen == [2, 2]


@pytest.mark.parametrize(("normaliser", "weight"), [("batch", 8.0), ("kept", 4.0)])
def test_the_normaliser_is_the_batch_or_what_takes_part(normaliser: str, weight: float) -> None:
    losses = method(SkewnessGate(0.5), normaliser=normaliser)(stage2(), PROGRESS)
    assert losses["defrec/source"].weight == weight


def test_coupled_saliency_changes_no_gradient_of_the_host() -> None:
    """With keep = 1 the gate drops nothing, so the step must be the host's, up to the order of additions."""
    host, gated = method(), method(SkewnessGate(1.0))
    for model in (host, gated):
        total(model(stage2(), PROGRESS)).backward()
    expected, found = gradients(host), gradients(gated)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6)


def test_coupled_and_eval_saliency_agree_when_nothing_couples_samples() -> None:
    scores = []
    for saliency in ("coupled", "eval"):
        model = frozen_norm(method(SkewnessGate(0.5), saliency=saliency))
        model(stage1(), PROGRESS)
        scores.append(model.gate_records["source"].scores)
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("saliency", ["coupled", "eval"])
@pytest.mark.parametrize("view", ["clean", "mixed"])
def test_every_saliency_view_of_a_mixing_host_gates_and_trains(saliency: str, view: str) -> None:
    model = method(SkewnessGate(0.5), mixup=True, saliency=saliency, saliency_view=view)
    before = {n: b.clone() for n, b in model.network.head.named_buffers() if "running" in n}
    losses = model(stage1(), PROGRESS)
    total(losses).backward()
    record = model.gate_records["source"]
    assert record.taking_part.sum() == 4 and record.scores.isfinite().all()
    assert all(g.isfinite().all() for g in gradients(model).values())
    # one training-mode classification pass only: a separate saliency pass must not move running statistics again
    host = method(mixup=True)
    host(stage1(), PROGRESS)
    for name, buffer in host.network.head.named_buffers():
        if "running" in name:
            assert not torch.equal(before[name], buffer)
            torch.testing.assert_close(dict(model.network.head.named_buffers())[name], buffer)


def test_samples_without_a_pseudo_label_take_part_and_cost_no_classification_loss() -> None:
    target = batch("target")
    target.present["class"][[1, 4]] = False
    model = frozen_norm(method(SkewnessGate(0.0)))
    losses = model({"source": batch("source"), "target": target}, PROGRESS)
    assert model.gate_records["target"].taking_part.nonzero().flatten().tolist() == [1, 4]
    assert losses["class/target"].weight == 6
    logits = model.network(target.inputs["points"])
    per_sample = nn.functional.cross_entropy(logits, target.labels["class"], reduction="none")
    torch.testing.assert_close(losses["class/target"].sum, per_sample[target.present["class"]].sum())


def test_labels_of_absent_samples_are_never_read() -> None:
    target = batch("target")
    target.present["class"][2] = False
    results = []
    for poison in (0, 10**9):
        target.labels["class"][2] = poison
        model = method(SkewnessGate(0.5), mixup=True)
        results.append(total(model({"source": batch("source"), "target": target}, PROGRESS)))
    assert torch.equal(*results)


def test_a_single_sample_that_takes_part_does_not_break_batch_norm() -> None:
    losses = method(SkewnessGate(1 / 8))(stage1(), PROGRESS)
    assert losses["defrec/source"].sum.isfinite() and losses["defrec/source"].weight == 8


@pytest.mark.parametrize("drop", ["forward", "loss"])
def test_keeping_nothing_still_counts_in_the_batch_mean_over_processes(drop: str) -> None:
    loss = method(SkewnessGate(0.0), drop=drop)(stage1(), PROGRESS)["defrec/source"]
    assert loss.weight == 8 and loss.sum == 0


@pytest.mark.parametrize("gate", [RandomGate(0.5), ScaledWeight(0.5)])
def test_controls_are_not_perturbed(gate: Gate) -> None:
    model = method(gate, perturbation_mean=50.0, perturbation_std=50.0)
    model(stage2(), PROGRESS)
    assert model.gate_records["target"].scores.abs().max() <= 1


def test_keeping_nothing_makes_the_loss_vanish() -> None:
    losses = method(SkewnessGate(0.0), normaliser="kept")(stage1(), PROGRESS)
    assert losses["defrec/source"].weight == 0 and losses["defrec/source"].sum == 0
    assert losses["defrec/target"].weight == 8


def test_the_perturbation_mean_changes_no_choice_per_domain_but_does_when_pooled() -> None:
    def chosen(mean: float, pooled: bool, std: float = 0.0) -> list[bool]:
        model = frozen_norm(
            method(SkewnessGate(0.5), pooled_threshold=pooled, perturbation_mean=mean, perturbation_std=std)
        )
        model(stage2(), PROGRESS)
        return model.gate_records["target"].taking_part.tolist()

    assert chosen(0.0, pooled=False) == chosen(100.0, pooled=False)
    assert chosen(0.0, pooled=True) != chosen(100.0, pooled=True)
    assert not any(chosen(100.0, pooled=True))
    assert chosen(0.0, pooled=False) != chosen(0.0, pooled=False, std=50.0)


def test_scaled_weight_is_the_host_with_a_smaller_pretext_weight() -> None:
    host, scaled = (frozen_norm(method(gate))(stage1(), PROGRESS) for gate in (None, ScaledWeight(0.7)))
    torch.testing.assert_close(scaled["defrec/source"].sum, 0.7 * host["defrec/source"].sum)
    torch.testing.assert_close(scaled["defrec/target"].sum, host["defrec/target"].sum)
    assert scaled["defrec/source"].weight == host["defrec/source"].weight


def test_random_gate_needs_no_gradient_and_keeps_its_share() -> None:
    model = method(RandomGate(0.5))
    model(stage2(), PROGRESS)
    assert [r.taking_part.sum().item() for r in model.gate_records.values()] == [4, 4]


def test_agreement_is_the_cosine_of_per_sample_gradients() -> None:
    batches = stage1()
    target = batches["target"]
    truth = {"class (oracle)": torch.arange(8) % 3}
    known = {"class (oracle)": torch.ones(8, dtype=torch.bool)}
    batches["target"] = replace(target, labels={**target.labels, **truth}, present={**target.present, **known})
    model = method(CosineGate(0.5))
    found = model.agreement(batches["source"], batches, PROGRESS)
    model.eval()
    points = [p for p in model.network.encoder.parameters()]
    loss = nn.functional.cross_entropy(model.network(target.inputs["points"]), truth["class (oracle)"])
    oracle = torch.cat([g.flatten() for g in torch.autograd.grad(loss, points)])
    for row in (0, 5):
        random = PROGRESS.random("defrec/source", [row])
        own = model.pretext.loss(model.network.encoder, batches["source"].inputs["points"][row : row + 1], random)
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(own.sum(), points)])
        expected = (flat @ oracle) / (flat.norm() * oracle.norm())
        assert found[row].item() == pytest.approx(expected.item(), abs=1e-4)
    frozen_norm(model)  # else the classification pass moves the statistics that the cosine is taken with
    model(batches, PROGRESS)
    kept = model.gate_records["source"].taking_part
    assert found[kept].min() >= found[~kept].max()


def test_agreement_without_target_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="carries no 'class \\(oracle\\)' labels"):
        method(CosineGate(0.5))(stage1(), PROGRESS)


def test_the_target_only_pretext_is_an_option() -> None:
    torch.manual_seed(0)
    model = method()
    model.pretext_on = "target"
    assert "defrec/source" not in model(stage1(), PROGRESS)
