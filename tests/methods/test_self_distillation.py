import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress, SampleRandom
from isthmus.data.views import StrongView, WeakView
from isthmus.gates import CosineGate, Gate, RandomGate, ScaledWeight, SkewnessGate
from isthmus.gates.memory import SkewnessMemory
from isthmus.losses.distillation import distillation
from isthmus.losses.weighted import Loss
from isthmus.methods.gated import GatingOptions
from isthmus.methods.self_distillation import SelfDistillation, ramp, teacher_momentum
from isthmus.models.classifier import PointClassifier
from isthmus.models.heads import ClassificationHead
from isthmus.models.pointnet import PointNet
from isthmus.tasks.classification import Classification

PROGRESS = Progress(0, 0, 4, 10)
GATINGS = {
    "saliency",
    "saliency_view",
    "drop",
    "normaliser",
    "pooled_threshold",
    "perturbation_mean",
    "perturbation_std",
    "unlabelled",
}


def method(gate: Gate | None = None, *, dropout: float = 0.0, **options: object) -> SelfDistillation:
    torch.manual_seed(0)
    encoder = PointNet(width=0.125, input_transform=False, feature_transform=False)
    head = ClassificationHead(encoder.pooled_channels, 3, width=0.125, dropout=dropout, slope=0.0)
    gating = GatingOptions(**{key: options.pop(key) for key in GATINGS & options.keys()})  # type: ignore[arg-type]
    task = Classification(("chair", "lamp", "table"))
    return SelfDistillation(PointClassifier(encoder, head), task, gate=gate, gating=gating, **options)  # type: ignore[arg-type]


def batch(domain: str, size: int = 8, labelled: bool = True, first: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(first + (domain == "target"))
    points = torch.randn(size, 24, 3, generator=generator) * 0.4
    present = torch.full((size,), labelled)
    labels = torch.arange(size) % 3
    return Batch(domain, {"points": points}, {"class": labels}, {"class": present}, torch.arange(size) + first)


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


def frozen_norm(model: SelfDistillation) -> SelfDistillation:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    return model


def views(each: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What the student and the teacher see of a batch."""
    ids = each.sample_id.tolist()
    strong = StrongView(rotate=each.domain == "source")(
        each.inputs["points"], PROGRESS.random(f"strong/{each.domain}", ids)
    )
    return strong, WeakView()(each.inputs["points"], PROGRESS.random(f"weak/{each.domain}", ids))


@pytest.mark.parametrize("reduction", ["together", "domains"])
@pytest.mark.parametrize("batches", [stage1(), stage2()], ids=["stage1", "stage2"])
def test_the_host_s_losses_are_classification_and_distillation_of_two_views(
    batches: dict[str, Batch], reduction: str
) -> None:
    model = frozen_norm(method(reduction=reduction, weight=0.7))
    losses = model(batches, PROGRESS)
    assert set(losses) == {"class/source", "class/target", "distillation/source", "distillation/target"}
    distilled, classified = {}, {}
    for domain, each in batches.items():
        strong, weak = views(each)
        student = model.network.encoder(strong).pooled
        distilled[domain] = distillation(student, model.teacher.network(weak).pooled)
        cross_entropy = nn.functional.cross_entropy(model.network.head(student), each.labels["class"], reduction="none")
        classified[domain] = cross_entropy[each.present["class"]]
    if reduction == "together":
        expected = torch.cat(list(classified.values())).mean()
        expected = expected + 0.7 * ramp(0.4) * torch.cat(list(distilled.values())).mean()
    else:
        expected = sum(values.mean() for values in classified.values() if len(values))
        expected = expected + 0.7 * ramp(0.4) * sum(values.mean() for values in distilled.values())
    torch.testing.assert_close(total(losses), expected)
    # what is logged is the mean of a domain's own samples
    for domain in batches:
        loss = losses[f"distillation/{domain}"]
        torch.testing.assert_close(loss.sum / loss.entering, distilled[domain].mean())
        assert losses[f"class/{domain}"].taking_part == len(classified[domain])


def test_the_ramp_and_the_momentum_are_the_published_ones() -> None:
    assert ramp(0.0) == pytest.approx(math.exp(-5)) and ramp(0.5) == pytest.approx(math.exp(-1.25)) and ramp(1.0) == 1
    # the released teacher is updated after step t (from 0) with min(1 - 1/(t + 1), 0.999), here before step t + 1
    for t in range(3000):
        assert teacher_momentum(t + 1, 0.999) == min(1 - 1 / (t + 1), 0.999)
    assert teacher_momentum(0, 0.999) == 0


def step(model: SelfDistillation, optimizer: torch.optim.Optimizer, number: int) -> None:
    progress = Progress(0, 0, number, 10)
    total(model(stage2(), progress)).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_the_teacher_is_the_mean_of_the_students_after_each_step() -> None:
    model = method(momentum=0.75).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    students, teachers = [], []
    for number in range(7):
        step(model, optimizer, number)
        students.append({n: v.clone() for n, v in model.network.encoder.state_dict().items()})
        teachers.append({n: v.clone() for n, v in model.teacher.network.state_dict().items()})
    for name, value in teachers[1].items():
        torch.testing.assert_close(value, students[0][name])
    for name, value in teachers[4].items():  # up to step 4 momentum is below its limit
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack([each[name] for each in students[:4]]).mean(dim=0))
    for name, value in teachers[6].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * teachers[5][name] + 0.25 * students[5][name])
    step(model, optimizer, 0)  # a new stage
    for name, value in model.teacher.network.state_dict().items():
        assert torch.equal(value, students[6][name])


def test_a_run_goes_on_from_saved_weights_bit_for_bit() -> None:
    def fresh(seed: int) -> tuple[SelfDistillation, torch.optim.Optimizer]:
        memory = SkewnessMemory({"source": 8, "target": 8})
        model = method(SkewnessGate(0.5), memory=memory, refresh_every=2).train()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(seed)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    whole, optimizer = fresh(0)
    for number in range(6):
        if number == 3:
            saved = copy.deepcopy((whole.state_dict(), optimizer.state_dict()))
        step(whole, optimizer, number)
    resumed, optimizer = fresh(1)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    for number in range(3, 6):
        step(resumed, optimizer, number)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0, equal_nan=True)


def test_the_teacher_gets_no_gradient_and_is_no_business_of_optimisers_or_modes() -> None:
    model = method().train()
    total(model(stage1(), PROGRESS)).backward()
    assert not any(name.startswith("teacher") for name, _ in model.named_parameters())
    assert not any(module.training for module in model.teacher.modules())
    assert {name.split(".")[1] for name in gradients(model)} == {"encoder", "head"}
    assert any(name.startswith("teacher.network.layer1") for name in model.state_dict())


def test_one_pass_of_the_student_per_domain_and_no_teacher_for_what_is_left_out() -> None:
    for drop, taught in (("forward", [2, 8]), ("loss", [8, 8])):
        model = method(SkewnessGate(0.25), drop=drop).train()
        students: list[int] = []
        teachers: list[int] = []
        model.network.encoder.register_forward_hook(lambda m, inputs, out: students.append(len(inputs[0])))  # noqa: B023
        model.teacher.network.register_forward_hook(lambda m, inputs, out: teachers.append(len(inputs[0])))  # noqa: B023
        model(stage1(), PROGRESS)
        assert students == [8, 8] and teachers == taught


def test_skipping_the_teacher_equals_masking_the_loss() -> None:
    results = []
    for drop in ("forward", "loss"):
        model = method(SkewnessGate(0.5), drop=drop).train()
        losses = model(stage2(), PROGRESS)
        total(losses).backward()
        results.append((losses, gradients(model)))
    (first, g1), (second, g2) = results
    for name in first:
        torch.testing.assert_close(first[name].sum, second[name].sum)
        assert first[name].weight == second[name].weight
    for name in g1:
        torch.testing.assert_close(g1[name], g2[name], rtol=1e-4, atol=1e-6)


def test_the_coupled_saliency_is_that_of_classification_alone() -> None:
    model = method(SkewnessGate(0.5)).train()
    other = copy.deepcopy(model)
    batches = stage2()
    model(batches, PROGRESS)
    for domain, each in batches.items():
        leaf = views(each)[0].requires_grad_()
        loss = nn.functional.cross_entropy(other.network(leaf), each.labels["class"])
        (gradient,) = torch.autograd.grad(loss, leaf)
        expected = SkewnessGate(0.5).scores(leaf.detach(), gradient) + (0.1 if domain == "target" else 0.0)
        torch.testing.assert_close(model.gate_records[domain].scores, expected, rtol=1e-3, atol=1e-3)
        assert torch.equal(model.gate_records[domain].taking_part, SkewnessGate(0.5).select(expected))


@pytest.mark.parametrize("saliency", ["coupled", "eval"])
def test_scoring_samples_without_labels_leaves_the_heads_statistics_alone(saliency: str) -> None:
    plain, scoring = method().train(), method(SkewnessGate(0.5), saliency=saliency, unlabelled="prediction").train()
    for model in (plain, scoring):
        model(stage1(), PROGRESS)
    for name, buffer in plain.network.head.named_buffers():
        if "running" in name:
            torch.testing.assert_close(scoring.network.head.get_buffer(name), buffer, rtol=0, atol=0)


@pytest.mark.parametrize("saliency", ["coupled", "eval"])
def test_samples_without_a_label_can_be_ranked_by_the_class_that_is_predicted(saliency: str) -> None:
    model = frozen_norm(method(SkewnessGate(0.5), saliency=saliency, unlabelled="prediction"))
    batches = stage1()
    losses = model(batches, PROGRESS)
    leaf = views(batches["target"])[0].requires_grad_()
    logits = model.network(leaf)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, logits.argmax(dim=1)), leaf)
    expected = SkewnessGate(0.5).scores(leaf.detach(), gradient) + 0.1
    torch.testing.assert_close(model.gate_records["target"].scores, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(model.gate_records["target"].taking_part, SkewnessGate(0.5).select(expected))
    # The prediction ranks; it teaches nothing.
    own = frozen_norm(method(SkewnessGate(0.5), saliency=saliency))
    without = own(batches, PROGRESS)
    assert own.gate_records["target"].taking_part.all()
    assert losses["class/target"].sum == 0 and losses["class/target"].weight == without["class/target"].weight
    torch.testing.assert_close(losses["class/source"].sum, without["class/source"].sum)
    torch.testing.assert_close(losses["distillation/source"].sum, without["distillation/source"].sum)


def test_asking_the_gate_changes_no_gradient_of_the_host() -> None:
    """With keep = 1 nothing is left out, so the step must be the host's."""
    host, gated = method(dropout=0.3).train(), method(SkewnessGate(1.0), dropout=0.3).train()
    for model in (host, gated):
        torch.manual_seed(1)
        total(model(stage2(), PROGRESS)).backward()
    expected, found = gradients(host), gradients(gated)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize("normaliser", ["batch", "kept"])
@pytest.mark.parametrize("reduction", ["together", "domains"])
def test_only_samples_that_take_part_are_distilled(normaliser: str, reduction: str) -> None:
    model = frozen_norm(method(SkewnessGate(0.5), normaliser=normaliser, reduction=reduction))
    batches = stage1()
    losses = model(batches, PROGRESS)
    kept = {domain: record.taking_part for domain, record in model.gate_records.items()}
    assert [kept[domain].sum() for domain in ("source", "target")] == [4, 8]
    counts = {"source": 4.0 if normaliser == "kept" else 8.0, "target": 8.0}
    for domain, each in batches.items():
        strong, weak = views(each)
        per_sample = distillation(model.network.encoder(strong).pooled, model.teacher.network(weak).pooled)
        torch.testing.assert_close(losses[f"distillation/{domain}"].sum, per_sample[kept[domain]].sum())
        expected = sum(counts.values()) if reduction == "together" else counts[domain]
        assert losses[f"distillation/{domain}"].weight == expected


def test_coupled_and_eval_saliency_agree_when_nothing_couples_samples_and_differ_otherwise() -> None:
    def scores(prepare: bool, saliency: str) -> torch.Tensor:
        model = method(SkewnessGate(0.5), saliency=saliency)
        model = frozen_norm(model) if prepare else model.train()
        model(stage1(), PROGRESS)
        return model.gate_records["source"].scores

    torch.testing.assert_close(scores(True, "coupled"), scores(True, "eval"), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(scores(False, "coupled"), scores(False, "eval"), atol=0.05)


def test_every_sample_s_own_weight_multiplies_its_own_loss() -> None:
    batches = stage2()
    target = batches["target"]
    weights = torch.where(torch.arange(8) < 5, 0.2, 1.0)
    present = torch.arange(8) != 6
    batches["target"] = replace(
        target,
        labels={**target.labels, "class (weight)": weights},
        present={"class": present, "class (weight)": torch.ones(8, dtype=torch.bool)},
    )
    model = frozen_norm(method())
    losses = model(batches, PROGRESS)
    logits = model.network(views(target)[0]).detach()
    per_sample = nn.functional.cross_entropy(logits, target.labels["class"], reduction="none")
    expected = sum(float(per_sample[i]) * float(weights[i]) for i in range(8) if i != 6)
    assert losses["class/target"].sum.item() == pytest.approx(expected, rel=1e-5)
    assert losses["class/target"].weight == 15 and losses["class/target"].taking_part == 7
    assert losses["class/target"].entering.item() == pytest.approx(5 * 0.2 + 2)
    released = float(per_sample[present].sum() * weights[present].mean())
    assert abs(expected - released) > 1e-3  # a mean times a mean is another number


def test_labels_of_absent_samples_are_never_read() -> None:
    results = []
    for poison in (0, 10**9):
        batches = stage2()
        batches["target"].present["class"][2] = False
        batches["target"].labels["class"][2] = poison
        results.append(total(method(SkewnessGate(0.5)).train()(batches, PROGRESS)))
    assert torch.equal(*results)


@pytest.mark.parametrize("reduction", ["together", "domains"])
def test_two_processes_with_half_the_batch_each_add_up_to_one(reduction: str) -> None:
    """Also where only one of them has pseudo-labels: sums and weights add up, as the engine adds them."""
    batches = stage2()
    batches["target"].present["class"][4:] = False

    def part(each: Batch, rows: slice) -> Batch:
        halves = {
            name: {k: v[rows] for k, v in getattr(each, name).items()} for name in ("inputs", "labels", "present")
        }
        return replace(each, sample_id=each.sample_id[rows], **halves)

    whole = frozen_norm(method(reduction=reduction))(batches, PROGRESS)
    halves = [
        frozen_norm(method(reduction=reduction))({n: part(b, rows) for n, b in batches.items()}, PROGRESS)
        for rows in (slice(4), slice(4, 8))
    ]
    for name, loss in whole.items():
        torch.testing.assert_close(loss.sum, halves[0][name].sum + halves[1][name].sum)
        for field in ("weight", "taking_part", "entering"):
            assert getattr(loss, field) == sum(getattr(half[name], field) for half in halves)


@pytest.mark.parametrize("gate", [RandomGate(0.5), ScaledWeight(0.5)])
def test_the_controls_work_without_a_gradient(gate: Gate) -> None:
    model = frozen_norm(method(gate))
    losses = model(stage2(), PROGRESS)
    if isinstance(gate, ScaledWeight):
        host = frozen_norm(method())(stage2(), PROGRESS)
        torch.testing.assert_close(losses["distillation/source"].sum, 0.5 * host["distillation/source"].sum)
    else:
        assert [r.taking_part.sum().item() for r in model.gate_records.values()] == [4, 4]


@pytest.mark.parametrize("drop", ["forward", "loss"])
def test_keeping_nothing_still_trains(drop: str) -> None:
    model = method(SkewnessGate(0.0), drop=drop).train()
    losses = model(stage2(), PROGRESS)
    assert losses["distillation/source"].sum == 0 and losses["distillation/source"].weight == 16
    total(losses).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


def test_the_oracle_cosine_ranks_by_per_sample_gradients() -> None:
    batches = stage1()
    truth = {"class (oracle)": torch.arange(8) % 3}
    known = {"class (oracle)": torch.ones(8, dtype=torch.bool)}
    target = batches["target"]
    batches["target"] = replace(target, labels=target.labels | truth, present=target.present | known)
    model = frozen_norm(method(CosineGate(0.5)))
    found = model.agreement(batches["source"], batches, PROGRESS)
    model(batches, PROGRESS)
    kept = model.gate_records["source"].taking_part
    assert kept.sum() == 4 and found[kept].min() >= found[~kept].max()
    points = list(model.network.encoder.parameters())
    loss = nn.functional.cross_entropy(model.network(target.inputs["points"]), truth["class (oracle)"])
    oracle = torch.cat([g.flatten() for g in torch.autograd.grad(loss, points)])
    strong, weak = views(batches["source"])
    per_sample = distillation(model.network.encoder(strong).pooled, model.teacher.network(weak).pooled)
    own = torch.cat([g.flatten() for g in torch.autograd.grad(per_sample[5], points)])
    assert found[5].item() == pytest.approx(nn.functional.cosine_similarity(own, oracle, dim=0).item(), abs=1e-4)


def test_scores_are_taken_every_k_steps_and_remembered_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SkewnessMemory({"source": 12, "target": 12}, momentum=0.0)
    model = method(SkewnessGate(0.5), memory=memory, refresh_every=3, perturbation_mean=0.0).train()
    asked: list[int] = []
    measure = model.gate.measure
    monkeypatch.setattr(
        model.gate, "measure", lambda evidence: (asked.append(len(evidence.points)), measure(evidence))[1]
    )
    model(stage1(), Progress(0, 0, 3, 10))
    taken = model.gate_records["source"].scores
    assert asked == [8] and taken.isfinite().all()
    other = {"source": batch("source", first=4), "target": batch("target", labelled=False)}
    model(other, Progress(0, 0, 4, 10))
    record = model.gate_records["source"]
    assert asked == [8]
    assert torch.equal(record.scores[:4], taken[4:]) and record.scores[4:].isnan().all()
    assert record.taking_part[4:].all() and record.taking_part[:4].sum() == 2
    assert model.gate_records["target"].taking_part.all() and memory.recall("target", torch.arange(12)).isnan().all()
    model(other, Progress(0, 0, 6, 10))
    assert asked == [8, 8] and model.gate_records["source"].scores.isfinite().all()


def test_a_memory_ranks_by_the_average_of_what_it_saw() -> None:
    memory = SkewnessMemory({"source": 8, "target": 8}, momentum=0.5)
    model, plain = method(SkewnessGate(0.5), memory=memory).train(), method(SkewnessGate(0.5)).train()
    seen = []
    for number in (0, 1):
        progress = Progress(0, 0, number, 10)
        plain(stage1(), progress)
        seen.append(plain.gate_records["source"].scores)
        model(stage1(), progress)
    torch.testing.assert_close(model.gate_records["source"].scores, (seen[0] + seen[1]) / 2, rtol=1e-3, atol=1e-3)


def test_views_are_drawn_for_each_step_and_sample() -> None:
    seen: list[torch.Tensor] = []

    def watched(points: torch.Tensor, random: SampleRandom) -> torch.Tensor:
        seen.append(random.uniform())
        return points

    model = method(weak=watched, strong={"source": watched, "target": watched}).train()
    for number in (0, 1):
        model(stage1(), Progress(0, 0, number, 10))
    assert len(torch.cat(seen).unique()) == 2 * 4 * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": SkewnessGate(0.5), "refresh_every": 2}, "expected 1, or more with a memory, found 2 without one"),
        ({"gate": RandomGate(0.5), "memory": SkewnessMemory({"source": 1})}, "found none to remember"),
        ({"saliency_view": "mixed"}, "expected 'clean'"),
        ({"momentum": 1.0}, "expected a number in"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**options)  # type: ignore[arg-type]


def test_it_trains_under_autocast_and_on_larger_and_smaller_clouds() -> None:
    model = method(SkewnessGate(0.5)).train()
    for size, points in ((2, 16), (5, 40)):
        batches = stage2()
        small = {
            name: Batch(name, {"points": torch.randn(size, points, 3)}, {"class": torch.zeros(size, dtype=torch.long)},
                        {"class": torch.ones(size, dtype=torch.bool)}, torch.arange(size))
            for name in batches
        }  # fmt: skip
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = model(small, PROGRESS)
        total(losses).backward()
        assert all(loss.sum.isfinite() and loss.sum.dtype == torch.float32 for loss in losses.values())
    assert model.predict({"points": torch.randn(2, 16, 3)})["class"].shape == (2, 3)
    assert model.embed({"points": torch.randn(2, 16, 3)}).shape == (2, model.network.encoder.pooled_channels)
