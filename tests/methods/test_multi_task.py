"""Vanilla multi-task learning, and what every method of dense prediction has to stand."""

import pytest
import torch
from dense_methods import METHODS

from dense_testing import NAMES, PROGRESS, batch, gradients, poisoned, tasks, total
from isthmus.data.batch import Batch
from isthmus.losses.supervised import supervised_losses

MIXED = ("S", "DN", "", "SDN", "N", "S")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_step_is_equation_1_of_the_networks_outputs(reduction: str) -> None:
    model, data = METHODS["multi-task"](reduction=reduction, task_weights={"depth": 2.0}), batch(MIXED)
    losses = model({"source": data}, PROGRESS)
    expected = supervised_losses(
        tasks(), model.network(data.inputs["image"]).outputs, data, reduction=reduction, task_weights={"depth": 2.0}  # type: ignore[arg-type]
    )  # fmt: skip
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss.sum, expected[name].sum)
        assert loss.weight == expected[name].weight and loss.coefficient == expected[name].coefficient


def test_everything_but_the_heads_is_shared() -> None:
    model = METHODS["multi-task"]()
    shared = {id(parameter) for parameter in model.shared_parameters()}
    alone = {name for name, parameter in model.named_parameters() if id(parameter) not in shared}
    assert alone == {name for name, _ in model.named_parameters() if name.startswith("network.heads.")} != set()


@pytest.mark.parametrize("kind", METHODS)
def test_whatever_an_absent_label_holds_changes_no_bit_of_a_step(kind: str) -> None:
    found = []
    for data in (batch(MIXED), poisoned(batch(MIXED))):
        model = METHODS[kind]()
        losses = model({"source": data}, PROGRESS)
        total(losses).backward()
        found.append((losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (one, clean), (other, poison) = found
    assert one.keys() == other.keys() and clean.keys() == poison.keys()
    for name, loss in one.items():
        assert torch.equal(loss.sum, other[name].sum) and torch.equal(loss.weight, other[name].weight)
    for name, gradient in clean.items():
        assert gradient.isfinite().all() and torch.equal(gradient, poison[name]), name


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("stage", [0, 1])
def test_a_label_that_is_there_without_a_valid_pixel_gives_no_nan_and_teaches_its_task_nothing(
    kind: str, stage: int
) -> None:
    """A stream calls such a label absent; a method that is handed one must stand it."""
    data = batch(("SD", "D", "DN", "SDN"))
    data.valid["depth"][:] = False
    data.labels["depth"][:] = 0
    model = METHODS[kind]()
    losses = model({"source": data}, PROGRESS._replace(stage=stage))
    parameters = [p for p in model.parameters() if p.requires_grad]
    for name, loss in losses.items():
        assert loss.sum.isfinite(), name
        if not loss.sum.requires_grad:
            continue
        found = torch.autograd.grad(loss.sum, parameters, retain_graph=True, allow_unused=True)
        assert all(gradient is None or gradient.isfinite().all() for gradient in found), name
        if name.startswith("depth/") or "to_depth/" in name:
            assert float(loss.sum.detach()) == 0 and not any(g is not None and g.any() for g in found), name


@pytest.mark.parametrize("kind", METHODS)
def test_the_names_of_the_losses_do_not_depend_on_what_the_batch_carries(kind: str) -> None:
    names = [
        list(METHODS[kind]()({"source": batch(kept)}, PROGRESS))
        for kept in (MIXED, ("S", "S", "S"), ("SDN", "SDN"), ("", ""), ("N", "D"))
    ]
    assert all(each == names[0] for each in names)
    assert all(name.endswith("/source") for name in names[0])


@pytest.mark.parametrize("kind", METHODS)
def test_a_batch_without_any_label_teaches_no_head_and_breaks_nothing(kind: str) -> None:
    model = METHODS[kind]()
    losses = model({"source": batch(["", ""])}, PROGRESS)
    for name, loss in losses.items():
        if loss.sum.requires_grad and loss.weight > 0:
            assert kind == "semi-supervised" and name == "consistency/source"
    step = total(losses)
    if kind != "semi-supervised":
        assert float(step) == 0


@pytest.mark.parametrize("kind", [kind for kind in METHODS if kind not in ("semi-supervised", "single-task")])
def test_a_head_whose_task_is_absent_and_has_no_pair_gets_no_gradient(kind: str) -> None:
    """Every image carries the same single label, so the other heads learn only from what compares tasks."""
    data = batch(["S", "S"])
    model = METHODS[kind]()
    total({n: loss for n, loss in model({"source": data}, PROGRESS).items() if n.split("/")[0] in NAMES}).backward()
    learnt = gradients(model)
    assert not [name for name in learnt if name.startswith(("network.heads.depth", "network.heads.normals"))]
    assert any(name.startswith("network.heads.segmentation") for name in learnt)


@pytest.mark.parametrize("kind", METHODS)
def test_predictions_are_raw_maps_of_every_task_at_the_size_of_the_image(kind: str) -> None:
    model = METHODS[kind]().eval()
    image = batch(["S", "D"]).inputs["image"]
    with torch.no_grad():
        found = model.predict({"image": image})
    assert {name: tuple(out.shape) for name, out in found.items()} == {
        name: (2, task.channels, *image.shape[2:]) for name, task in tasks().items()
    }
    assert not torch.allclose(found["normals"].norm(dim=1), torch.ones(2, *image.shape[2:]), atol=0.01)  # raw


def test_each_domain_has_losses_of_its_own() -> None:
    model, one = METHODS["multi-task"](), batch(["S", "D"])
    other = batch(["N"], seed=1)
    other = Batch("other", other.inputs, other.labels, other.present, other.sample_id, other.valid)
    losses = model({"source": one, "other": other}, PROGRESS)
    assert set(losses) == {f"{name}/{domain}" for name in NAMES for domain in ("source", "other")}
    assert losses["normals/other"].weight == 1 and losses["normals/source"].weight == 2


def test_an_embedding_is_the_mean_of_the_bottleneck() -> None:
    model, image = METHODS["multi-task"](), batch(["S", "D"]).inputs["image"]
    expected = model.network(image).bottleneck
    torch.testing.assert_close(model.embed({"image": image}), torch.einsum("bchw->bc", expected) / (4 * 6))
