"""Combined gradients against loops of ``torch.autograd.grad``, one task and one fresh forward pass at a time."""

import copy
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from scipy.optimize import minimize
from torch import Tensor, nn

from dense_testing import NAMES, PROGRESS, batch, mapping, segnet, settled, tasks
from isthmus.data.batch import Batch
from isthmus.data.image_augment import ImageAugment
from isthmus.losses.weighted import Loss
from isthmus.losses.weightings.base import Weighting
from isthmus.losses.weightings.gradnorm import GradNorm
from isthmus.losses.weightings.mgda import MGDA
from isthmus.methods.base import Method
from isthmus.methods.mtpsl import MTPSL
from isthmus.methods.multi_task import MultiTask
from isthmus.training.gradients import combined_gradients

MIXED = ("S", "DN", "", "SDN", "N", "D")
FABRIC = Fabric(accelerator="cpu", devices=1)


class Recorded(Weighting):
    """A rule that no sum could stand for, and that remembers what it was shown."""

    needs_gradients = True

    def combine(self, jacobian: Tensor, tasks: tuple[str, ...], means: Tensor, shares: Tensor | None = None) -> Tensor:
        self.seen = (jacobian.clone(), tasks, means.clone())
        self.shares = shares
        return self.rule(jacobian, means)

    @staticmethod
    def rule(jacobian: Tensor, means: Tensor) -> Tensor:
        factors = torch.arange(2.0, 2 + len(means)) * means
        return (factors[:, None] * jacobian).sum(dim=0) + jacobian.abs().amax(dim=0)


def method(kind: str) -> Method:
    torch.manual_seed(0)
    if kind == "multi-task":
        return settled(MultiTask(segnet(), tasks(), task_weights={"depth": 2.0}))
    return settled(MTPSL(segnet(), tasks(), mapping(), ImageAugment()))


def shares(model: Method, data: Batch, wanted: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Mean losses of a fresh forward pass, as the engine hands them over on a single process."""
    losses: dict[str, Loss] = model({"source": data}, PROGRESS)
    if model.weighting is not None:
        losses = model.weighting(losses)
    found = {name: loss.coefficient * loss.sum / loss.weight.clamp(min=1) for name, loss in losses.items()}
    return {name: share for name, share in found.items() if wanted is None or name.split("/")[0] in wanted}


def slow(model: Method, data: Batch, wanted: Iterable[str]) -> dict[str, Tensor]:
    """The gradient of some losses alone, by parameter name; zeros where they do not reach."""
    named = dict(model.named_parameters())
    total = sum(shares(model, data, wanted).values(), torch.zeros(()))
    if not total.requires_grad:
        return {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found)}


def rest(model: Method, data: Batch) -> list[str]:
    return [name.split("/")[0] for name in shares(model, data) if name.split("/")[0] not in NAMES]


def flat(gradients: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in names])


def is_shared(name: str) -> bool:
    return name.startswith("network.") and not name.startswith("network.heads.")


def close(found: Tensor, expected: Tensor, name: str) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("kept", [MIXED, ("S", "S", "N", "")])
@pytest.mark.parametrize("kind", ["multi-task", "mtpsl"])
def test_the_rule_decides_on_shared_parameters_and_everything_else_adds_up(kind: str, kept: tuple[str, ...]) -> None:
    model, data = method(kind), batch(kept)
    model.weighting = Recorded(NAMES)
    combined_gradients(model, model.weighting, shares(model, data), FABRIC)
    names = [name for name, _ in model.named_parameters() if is_shared(name)]
    present = sorted(name for name in NAMES if data.present[name].any())
    alone = {task: slow(model, data, [task]) for task in present}
    others = slow(model, data, rest(model, data))

    jacobian, seen_tasks, means = model.weighting.seen
    assert seen_tasks == tuple(present)
    rows = torch.stack([flat(alone[task], names) for task in present])
    close(jacobian, rows, "jacobian")
    values = torch.stack([sum(shares(model, data, [task]).values(), torch.zeros(())).detach() for task in present])
    close(means, values, "means")

    direction = Recorded.rule(jacobian, means) + flat(others, names)
    pieces = dict(zip(names, direction.split([dict(model.named_parameters())[name].numel() for name in names])))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape
        if is_shared(name):
            close(parameter.grad, pieces[name].view_as(parameter), name)
        else:
            close(parameter.grad, sum((alone[task][name] for task in present), others[name].clone()), name)


@pytest.mark.parametrize("kind", ["multi-task", "mtpsl"])
def test_a_rule_that_adds_up_is_an_ordinary_backward_pass(kind: str) -> None:
    model, data = method(kind), batch(MIXED)
    plain = copy.deepcopy(model)
    sum(shares(plain, data).values(), torch.zeros(())).backward()
    combined_gradients(model, Weighting(NAMES), shares(model, data), FABRIC)
    for (name, one), other in zip(model.named_parameters(), plain.parameters()):
        assert one.grad is not None
        close(one.grad, torch.zeros_like(other) if other.grad is None else other.grad, name)


def test_gradients_of_an_earlier_step_are_replaced_and_frozen_parameters_left_alone() -> None:
    model, data = method("multi-task"), batch(MIXED)
    frozen = dict(model.named_parameters())["network.heads.depth.1.bias"].requires_grad_(False)
    combined_gradients(model, Weighting(NAMES), shares(model, data), FABRIC)
    first = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    combined_gradients(model, Weighting(NAMES), shares(model, data), FABRIC)
    assert frozen.grad is None and sum(gradient is None for gradient in first) == 1
    for before, parameter in zip(first, model.parameters()):
        assert before is None or torch.equal(before, parameter.grad)


def test_a_batch_without_any_label_asks_no_rule_and_moves_nothing() -> None:
    model = method("mtpsl")
    model.weighting = Recorded(NAMES)
    combined_gradients(model, model.weighting, shares(model, batch(("", ""))), FABRIC)
    assert not hasattr(model.weighting, "seen")
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_the_losses_of_a_task_in_two_domains_are_one_row() -> None:
    model, one, other = method("multi-task"), batch(("S", "D")), batch(("S", "N"), seed=1)
    other = Batch("other", other.inputs, other.labels, other.present, other.sample_id, other.valid)
    model.weighting = Recorded(NAMES)
    losses = model({"source": one, "other": other}, PROGRESS)
    means = {name: loss.coefficient * loss.sum / loss.weight for name, loss in losses.items()}
    combined_gradients(model, model.weighting, means, FABRIC)
    assert model.weighting.seen[1] == ("depth", "normals", "segmentation")
    expected = means["segmentation/source"] + means["segmentation/other"]
    assert float(model.weighting.seen[2][2]) == pytest.approx(float(expected.detach()))


def test_the_rule_is_told_how_much_of_the_batch_carries_each_task() -> None:
    """By task, whatever the order of the losses; a task that is absent has no entry."""
    model, data = method("mtpsl"), batch(("S", "S", "N", ""))
    model.weighting = Recorded(NAMES)
    labelled = {"normals/source": torch.tensor(0.25), "segmentation/source": torch.tensor(0.5)}
    labelled |= {name: torch.tensor(0.0) for name in shares(model, data) if name not in labelled}
    combined_gradients(model, model.weighting, shares(model, data), FABRIC, labelled)
    assert model.weighting.seen[1] == ("normals", "segmentation") and model.weighting.shares.tolist() == [0.25, 0.5]


def test_mgda_takes_the_point_of_least_norm_of_the_slow_gradients() -> None:
    """The weights from scipy's constrained minimiser, the gradients from the loops."""
    model, data = method("multi-task"), batch(MIXED)
    model.weighting = MGDA(NAMES, normalisation="none")
    names = [name for name, _ in model.named_parameters() if is_shared(name)]
    rows = torch.stack([flat(slow(model, data, [task]), names) for task in sorted(NAMES)]).double().numpy()
    rows_size = np.abs(rows).max()
    best = minimize(
        lambda a: float(np.square(a @ (rows / rows_size)).sum()), np.full(3, 1 / 3), bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1}, tol=1e-14,
    )  # fmt: skip
    combined_gradients(model, model.weighting, shares(model, data), FABRIC)
    found = flat({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, names)
    expected = 3 * best.x @ rows
    assert np.linalg.norm(found.numpy() - expected) < 1e-3 * np.linalg.norm(expected)
    assert np.linalg.norm(expected - rows.sum(axis=0)) > 0.1 * np.linalg.norm(expected)  # not what a sum would give


def test_gradnorm_sees_the_norms_of_scaled_gradients() -> None:
    model, data = method("multi-task"), batch(MIXED)
    weighting = GradNorm(NAMES, alpha=0.0, learning_rate=0.05)
    weighting.weights.copy_(torch.tensor([0.5, 1.5, 1.0]))
    model.weighting = weighting
    names = [name for name, _ in model.named_parameters() if is_shared(name)]
    norms = {task: float(flat(slow(model, data, [task]), names).norm()) for task in NAMES}
    before = dict(zip(NAMES, weighting.weights.tolist()))
    combined_gradients(model, weighting, shares(model, data), FABRIC)
    mean = sum(norms.values()) / 3
    moved = {t: before[t] - 0.05 * np.sign(norms[t] - mean) * norms[t] / mean / before[t] for t in NAMES}
    expected = [moved[task] * 3 / sum(moved.values()) for task in NAMES]
    assert weighting.weights.tolist() == pytest.approx(expected, rel=1e-3)


def test_a_method_may_name_all_of_its_parameters_as_shared() -> None:
    class Everything(MultiTask):
        def shared_parameters(self) -> list[nn.Parameter]:
            return list(self.parameters())

    torch.manual_seed(0)
    model, data = settled(Everything(segnet(), tasks())), batch(MIXED)
    combined_gradients(model, Weighting(NAMES), shares(model, data), FABRIC)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        close(parameter.grad, slow(model, data, NAMES)[name], name)
