from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch

from dense_testing import NAMES, PROGRESS, batch, channels, mapping, poisoned, settled, tasks
from isthmus.data.batch import Batch
from isthmus.losses.joint_space import Condition, cosine_distance, embed_pairs
from isthmus.losses.pairs import cross_task_pairs
from isthmus.losses.supervised import presence
from isthmus.models.mapping import MappingNetwork

KEPT = ("S", "DN", "", "SDN", "N")


@pytest.fixture(scope="module")
def networks() -> dict[str, MappingNetwork]:
    torch.manual_seed(0)
    codes = {"input-and-pair": 6, "pair": 6, "none": None}
    return {c: settled(mapping(count, film_inputs=count is not None)) for c, count in codes.items()}


def outputs(data: Batch) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    height, width = data.inputs["image"].shape[2:]
    return {
        name: (torch.randn(len(data), count, height, width, generator=generator) + 0.5).requires_grad_()
        for name, count in channels().items()
    }


def code(condition: str, s: int, t: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Position among the off-diagonal entries of A, counted row by row; the prediction's and the label's."""
    off_diagonal = [(i, j) for i in range(3) for j in range(3) if i != j]
    one, other = (torch.tensor([off_diagonal.index(pair)]) for pair in ((s, t), (t, s)))
    return {"input-and-pair": (one, other), "pair": (one, one), "none": (None, None)}[condition]


def one_by_one(
    network: MappingNetwork, data: Batch, out: dict[str, torch.Tensor], condition: str, uniform: dict | None
) -> tuple[torch.Tensor, torch.Tensor]:
    firsts, seconds = [], []
    for n in range(len(data)):
        labelled = [t for t, name in enumerate(NAMES) if data.present[name][n]]
        sources = list(range(3)) if len(labelled) == 3 else [s for s in range(3) if s not in labelled]
        for s in sources:
            for t in labelled:
                if s == t:
                    continue
                this, other = NAMES[s], NAMES[t]
                draws = None if uniform is None else uniform[this][n : n + 1]
                predicted = tasks()[this].prediction_map(out[this][n : n + 1], draws)
                label = tasks()[other].label_map(data.labels[other][n : n + 1], data.valid[other][n : n + 1])
                first, second = code(condition, s, t)
                firsts.append(network(network.embed(this, predicted), first))
                seconds.append(network(network.embed(other, label), second))
    return torch.cat(firsts), torch.cat(seconds)


@pytest.mark.parametrize("gumbel", [False, True])
@pytest.mark.parametrize("condition", get_args(Condition))
def test_one_pass_equals_a_loop_over_pairs(
    condition: Condition, gumbel: bool, networks: dict[str, MappingNetwork]
) -> None:
    data = batch(KEPT)
    out = outputs(data)
    uniform = {name: torch.rand(o.shape) for name, o in out.items()} if gumbel else None
    pairs = cross_task_pairs(presence(tasks(), data))
    found = embed_pairs(networks[condition], tasks(), out, data, pairs, condition=condition, uniform=uniform)
    expected = one_by_one(networks[condition], data, out, condition, uniform)
    assert len(found[0]) == 2 + 2 + 6 + 2
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    got, wanted = (
        torch.autograd.grad(first.square().sum() - second.sum(), list(out.values()), allow_unused=True)
        for first, second in (found, expected)
    )
    for one, other in zip(got, wanted):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_conditions_tell_pairs_apart_as_they_say(networks: dict[str, MappingNetwork]) -> None:
    """The same label under two pairs: other features with a condition, the same without one."""
    data = batch(["S"])
    out, pairs = outputs(data), cross_task_pairs(presence(tasks(), batch(["S"])))
    assert pairs.source.tolist() == [1, 2] and pairs.target.tolist() == [0, 0]
    for condition in get_args(Condition):
        _, label = embed_pairs(networks[condition], tasks(), out, data, pairs, condition=condition)
        assert torch.allclose(label[0], label[1], atol=1e-5) == (condition == "none")


def test_gumbel_draws_change_segmentations_and_nothing_else(networks: dict[str, MappingNetwork]) -> None:
    data = batch(["S", "D"])
    out, pairs = outputs(data), cross_task_pairs(presence(tasks(), batch(["S", "D"])))
    results = [
        embed_pairs(networks["pair"], tasks(), out, data, pairs, condition="pair", uniform=uniform)[0]
        for uniform in (None, {name: torch.rand(o.shape) for name, o in out.items()})
    ]
    segmented = pairs.source == 0
    assert segmented.sum() == 1 and not torch.allclose(results[0][segmented], results[1][segmented])
    torch.testing.assert_close(results[0][~segmented], results[1][~segmented])


def test_a_map_in_several_pairs_goes_through_its_input_layer_once(networks: dict[str, MappingNetwork]) -> None:
    data = batch(["SDN", "S"])
    network, seen = networks["pair"], {name: [] for name in NAMES}

    def remember(name: str) -> Callable[..., None]:
        return lambda layer, given: seen[name].append(len(given[0]))

    hooks = [layer.register_forward_pre_hook(remember(name)) for name, layer in network.inputs.items()]
    embed_pairs(network, tasks(), outputs(data), data, cross_task_pairs(presence(tasks(), data)), condition="pair")
    for hook in hooks:
        hook.remove()
    # first image: three predictions and three labels; second: predictions of depth and normals, label of segmentation
    assert seen == {"segmentation": [1 + 2], "depth": [2 + 1], "normals": [2 + 1]}


def test_absent_labels_are_never_read(networks: dict[str, MappingNetwork]) -> None:
    clean, other = batch(KEPT), poisoned(batch(KEPT))
    pairs = cross_task_pairs(presence(tasks(), clean))
    network, out = networks["input-and-pair"], outputs(clean)
    for one, two in zip(*(embed_pairs(network, tasks(), out, data, pairs) for data in (clean, other))):
        assert torch.equal(one, two)


def test_a_gradient_reaches_the_predictions_that_are_compared_only(networks: dict[str, MappingNetwork]) -> None:
    data = batch(["S", "", "DN"])
    out = outputs(data)
    first, second = embed_pairs(
        networks["input-and-pair"], tasks(), out, data, cross_task_pairs(presence(tasks(), data))
    )
    (first * second).sum().backward()
    reached = {name: o.grad.flatten(1).ne(0).any(dim=1).tolist() for name, o in out.items() if o.grad is not None}
    assert reached == {
        "segmentation": [False, False, True], "depth": [True, False, False], "normals": [True, False, False]
    }  # fmt: skip


def test_draws_are_those_of_the_sample_whoever_is_beside_it() -> None:
    together = PROGRESS.random("gumbel/source", [5, 9]).uniform(4, 2, 2)
    assert torch.equal(together[1:], PROGRESS.random("gumbel/source", [9]).uniform(4, 2, 2))


@pytest.mark.parametrize("space", ["vector", "map"])
def test_cosine_distances_are_numpys(space: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 7, 3, 4)), rng.normal(size=(5, 7, 3, 4))
    a[1], b[2] = -2 * b[1], 3 * a[2]
    expected = []
    for one, other in zip(a, b):
        if space == "vector":
            cosines = [one.ravel() @ other.ravel() / np.linalg.norm(one) / np.linalg.norm(other)]
        else:
            places = [(y, x) for y in range(3) for x in range(4)]
            cosines = [
                one[:, y, x] @ other[:, y, x] / np.linalg.norm(one[:, y, x]) / np.linalg.norm(other[:, y, x])
                for y, x in places
            ]
        expected.append(1 - np.mean(cosines))
    found = cosine_distance(torch.from_numpy(a), torch.from_numpy(b), space)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert found[1] == pytest.approx(2, abs=1e-5) and found[2] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("space", ["vector", "map"])
def test_a_map_that_is_zero_everywhere_is_at_distance_one_with_a_finite_gradient(space: str) -> None:
    dead = torch.zeros(1, 4, 2, 2, requires_grad=True)
    distance = cosine_distance(dead, torch.rand(1, 4, 2, 2), space)  # type: ignore[arg-type]
    distance.sum().backward()
    assert distance.item() == 1 and dead.grad is not None and dead.grad.isfinite().all()
