import math
from dataclasses import replace

import pytest
import torch
from dense_methods import METHODS, mtpsl

from dense_testing import NAMES, PROGRESS, batch, gradients, rows, total
from isthmus.data.batch import Batch
from isthmus.data.randomness import SampleRandom
from isthmus.losses.supervised import supervised_losses
from isthmus.methods.mtpsl import MTPSL
from isthmus.models.dense import DenseFeatures

MIXED = ("S", "DN", "", "SDN", "N")
OFF_DIAGONAL = [(i, j) for i in range(3) for j in range(3) if i != j]


def distance(a: torch.Tensor, b: torch.Tensor, space: str) -> float:
    """1 - cosine of two maps (C, H, W): as vectors, or place by place and averaged."""
    a, b = a.double().detach(), b.double().detach()
    if space == "vector":
        return 1 - float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())
    terms = []
    for y in range(a.shape[1]):
        for x in range(a.shape[2]):
            u, v = a[:, y, x], b[:, y, x]
            norm = math.sqrt(float(u @ u)) * math.sqrt(float(v @ v))
            terms.append(1 - float(u @ v) / norm if norm > 0 else 1.0)
    return sum(terms) / len(terms)


def equation_4(model: MTPSL, data: Batch, features: DenseFeatures) -> dict[str, float]:
    """Means over images of the two sums beyond Eq. 1, without their weights; one map at a time."""
    options, tasks = model.options, model.tasks
    uniform = PROGRESS.random("gumbel/source", data.sample_id.tolist()).uniform(4, *data.inputs["image"].shape[2:])
    images, sums = 0, {"consistency": 0.0, "regulariser": 0.0}
    for n in range(len(data)):
        labelled = [t for t in range(3) if data.present[NAMES[t]][n]]
        images += bool(labelled)
        unlabelled = [t for t in range(3) if t not in labelled] or [0, 1, 2]
        for s in unlabelled:
            for t in labelled:
                if s == t:
                    continue
                codes = [OFF_DIAGONAL.index((s, t)), OFF_DIAGONAL.index((t, s))]
                if options.condition == "pair":
                    codes = [codes[0]] * 2
                codes = [None if options.condition == "none" else torch.tensor([c]) for c in codes]
                one, other = NAMES[s], NAMES[t]
                draws = uniform[n : n + 1] if options.encoding == "gumbel" and s == 0 else None
                prediction = tasks[one].prediction_map(features.outputs[one][n : n + 1], draws)
                label = tasks[other].label_map(data.labels[other][n : n + 1], data.valid[other][n : n + 1])
                first = model.mapping(model.mapping.embed(one, prediction), codes[0])[0]
                second = model.mapping(model.mapping.embed(other, label), codes[1])[0]
                f = features.bottleneck[n]
                share = 1 / len(unlabelled) if model.reduction == "mean" else 1.0
                sums["consistency"] += share * distance(first, second, options.joint_space)
                for mapped in (first, second):
                    sums["regulariser"] += share * distance(f, mapped, options.joint_space)
    return {name: value / images for name, value in sums.items()}


READINGS = {
    "paper": {},
    "sum": {"reduction": "sum"},
    "pair": {"condition": "pair"},
    "no condition": {"codes": None, "condition": "none"},
    "map": {"joint_space": "map"},
    "gumbel": {"encoding": "gumbel"},
    "weights": {"weight": 2.0, "regulariser": 0.25},
}


@pytest.mark.parametrize("reading", READINGS)
def test_the_terms_are_those_of_equation_4(reading: str) -> None:
    model, data = mtpsl(**READINGS[reading]), batch(MIXED)
    losses = model({"source": data}, PROGRESS)
    expected = equation_4(model, data, model.network(data.inputs["image"]))
    for name, value in expected.items():
        loss = losses[f"{name}/source"]
        assert float(loss.sum.detach() / loss.weight) == pytest.approx(value, rel=1e-4), name
        assert loss.weight == 4 and loss.taking_part == 4  # images with any label; all of them have a pair
    options = model.options
    assert losses["consistency/source"].coefficient == options.weight
    assert losses["regulariser/source"].coefficient == options.weight * options.regulariser
    supervised = supervised_losses(
        model.tasks, model.network(data.inputs["image"]).outputs, data, reduction=model.reduction
    )
    for name, loss in supervised.items():
        torch.testing.assert_close(losses[name].sum, loss.sum)


def test_the_released_options_are_equation_4_of_the_second_view() -> None:
    model, data = METHODS["mtpsl-released"](), batch(MIXED)
    losses = model({"source": data}, PROGRESS)
    second = model.augment(data, PROGRESS.random("view/source", data.sample_id.tolist()))
    assert not torch.equal(second.inputs["image"], data.inputs["image"])
    expected = equation_4(model, second, model.network(second.inputs["image"]))
    for name, value in expected.items():
        loss = losses[f"{name}/source"]
        assert float(loss.sum.detach() / loss.weight) == pytest.approx(value, rel=1e-4), name
    assert losses["consistency/source"].coefficient == 2 and losses["regulariser/source"].coefficient == 1
    supervised = supervised_losses(model.tasks, model.network(data.inputs["image"]).outputs, data, reduction="sum")
    for name, loss in supervised.items():
        torch.testing.assert_close(losses[name].sum, loss.sum)


class Second:
    """A view whose image is dark and whose labels are others."""

    def __init__(self, kept: tuple[str, ...]) -> None:
        self.kept = kept

    def __call__(self, seen: Batch, random: SampleRandom) -> Batch:
        other = batch(self.kept, seed=9)
        return replace(seen, inputs={"image": 0.1 * seen.inputs["image"]}, labels=other.labels,
                       present=other.present, valid=other.valid)  # fmt: skip


def test_both_views_go_through_the_network_in_one_pass() -> None:
    model, data = METHODS["mtpsl-released"](), batch(MIXED)
    seen: list[torch.Tensor] = []
    model.augment = Second(MIXED)  # type: ignore[assignment]
    model.network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model({"source": data}, PROGRESS)
    image = data.inputs["image"]
    assert len(seen) == 1 and torch.equal(seen[0], torch.cat([image, 0.1 * image]))


def test_the_terms_read_the_labels_and_the_presence_of_the_second_view() -> None:
    model, data = METHODS["mtpsl-released"](), batch(["S", "D"])
    model.augment = Second(("", "N"))  # type: ignore[assignment]
    losses = model({"source": data}, PROGRESS)
    assert losses["consistency/source"].weight == 1 and losses["consistency/source"].taking_part == 1
    assert losses["segmentation/source"].weight == 2 and losses["normals/source"].taking_part == 0
    model.augment = Second(("", ""))  # type: ignore[assignment]
    losses = model({"source": data}, PROGRESS)
    assert losses["consistency/source"].weight == 0 and losses["segmentation/source"].taking_part == 1


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("space", ["vector", "map"])
def test_the_feature_learns_from_the_regulariser_unless_it_is_detached(detach: bool, space: str) -> None:
    model, data = mtpsl(detach_feature=detach, joint_space=space), batch(MIXED)
    made = model.network(data.inputs["image"])
    leaf = DenseFeatures(
        {name: out.detach().requires_grad_() for name, out in made.outputs.items()},
        made.bottleneck.detach().requires_grad_(),
    )
    losses = model.unsupervised(leaf, data, PROGRESS)
    losses["consistency/source"].sum.backward(retain_graph=True)
    assert leaf.bottleneck.grad is None  # the consistency term does not look at the feature
    losses["regulariser/source"].sum.backward()
    if detach:
        assert leaf.bottleneck.grad is None
    else:
        reached = leaf.bottleneck.grad.flatten(1).ne(0).any(dim=1)
        assert reached.tolist() == [True, True, False, True, True]
    assert all(out.grad is not None and out.grad.any() for out in leaf.outputs.values())


def test_a_prediction_of_an_unlabelled_task_learns_and_one_of_a_labelled_task_does_not() -> None:
    model, data = mtpsl(), batch(["S", "DN"])
    made = model.network(data.inputs["image"])
    outputs = {name: out.detach().requires_grad_() for name, out in made.outputs.items()}
    total(model.unsupervised(DenseFeatures(outputs, made.bottleneck.detach()), data, PROGRESS)).backward()
    reached = {name: out.grad.flatten(1).ne(0).any(dim=1).tolist() for name, out in outputs.items()}
    assert reached == {"segmentation": [False, True], "depth": [True, False], "normals": [True, False]}


def test_weight_zero_leaves_both_terms_out_and_regulariser_zero_leaves_out_one() -> None:
    data = {"source": batch(MIXED)}
    supervised = {f"{name}/source" for name in NAMES}
    assert set(mtpsl(weight=0.0)(data, PROGRESS)) == supervised
    assert set(mtpsl(regulariser=0.0)(data, PROGRESS)) == supervised | {"consistency/source"}
    model = mtpsl(weight=0.0)
    total(model(data, PROGRESS)).backward()
    assert not [name for name in gradients(model) if name.startswith("mapping.")]


def test_full_supervision_compares_all_ordered_pairs() -> None:
    model, data = mtpsl(reduction="sum"), batch(["SDN"])
    made = model.network(data.inputs["image"])
    asked: list[int] = []
    model.mapping.register_forward_pre_hook(lambda module, given: asked.extend(given[1].tolist()))
    losses = model.unsupervised(made, data, PROGRESS)
    assert sorted(asked) == sorted(2 * list(range(6)))  # every pair, from its prediction and from its label
    assert losses["consistency/source"].taking_part == 1


def test_a_batch_without_a_pair_has_losses_that_vanish() -> None:
    losses = mtpsl()({"source": batch(["", ""])}, PROGRESS)
    for name in ("consistency/source", "regulariser/source"):
        assert losses[name].weight == 0 and not losses[name].sum.requires_grad


def test_two_halves_of_a_batch_add_up_to_the_batch() -> None:
    for kind in ("mtpsl", "mtpsl-released"):
        model, data = METHODS[kind](), batch((*MIXED, "D"))
        whole = model({"source": data}, PROGRESS)
        halves = [model({"source": rows(data, part)}, PROGRESS) for part in (slice(0, 3), slice(3, 6))]
        for name, loss in whole.items():
            torch.testing.assert_close(sum(half[name].sum for half in halves), loss.sum, rtol=1e-4, atol=1e-5)
            assert sum(half[name].weight for half in halves) == loss.weight


def test_a_step_teaches_network_mapping_and_film() -> None:
    model = mtpsl()
    total({n: loss for n, loss in model({"source": batch(MIXED)}, PROGRESS).items() if n.startswith("cons")}).backward()
    learnt = gradients(model)
    for part in ("network.encoder", "network.heads.depth", "mapping.film", "mapping.body", "mapping.inputs.normals"):
        assert any(name.startswith(part) for name in learnt), part
