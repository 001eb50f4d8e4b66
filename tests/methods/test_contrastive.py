import pytest
import torch
from dense_methods import METHODS

from dense_testing import NAMES, PROGRESS, batch, gradients, total
from isthmus.methods.contrastive import Contrastive

MIXED = ("S", "DN", "", "SDN", "S", "S", "N")
OFF_DIAGONAL = [(i, j) for i in range(3) for j in range(3) if i != j]


def by_hand(model: Contrastive, kept: tuple[str, ...]) -> float:
    """max(0, d+ - d- + margin) for every pair and every other image that compares the same two tasks."""
    data = batch(kept)
    outputs = model.network(data.inputs["image"]).outputs
    pairs, images = [], 0
    for n in range(len(data)):
        labelled = [t for t in range(3) if data.present[NAMES[t]][n]]
        images += bool(labelled)
        sources = [s for s in range(3) if s not in labelled] or [0, 1, 2]
        for s in sources:
            for t in labelled:
                if s != t:
                    one, other = NAMES[s], NAMES[t]
                    prediction = model.tasks[one].prediction_map(outputs[one][n : n + 1])
                    label = model.tasks[other].label_map(data.labels[other][n : n + 1], data.valid[other][n : n + 1])
                    codes = [torch.tensor([OFF_DIAGONAL.index(pair)]) for pair in ((s, t), (t, s))]
                    a = model.mapping(model.mapping.embed(one, prediction), codes[0]).flatten().double()
                    b = model.mapping(model.mapping.embed(other, label), codes[1]).flatten().double()
                    pairs.append((n, (s, t), a.detach(), b.detach(), len(sources)))

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return 1 - float(a @ b) / float(a.norm() * b.norm())

    result = 0.0
    for n, kind, a, b, sources in pairs:
        hinges = [
            max(0.0, distance(a, b) - distance(a, other) + model.margin)
            for m, same, _, other, _ in pairs
            if m != n and same == kind
        ]
        if hinges:
            term = sum(hinges) / len(hinges)
            result += term / sources if model.reduction == "mean" else term
    return result / images


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_term_is_a_hinge_between_positive_and_negative_pairs(reduction: str, margin: float) -> None:
    model = METHODS["contrastive"](reduction=reduction, weight=0.7, margin=margin)
    loss = model({"source": batch(MIXED)}, PROGRESS)["contrastive/source"]
    expected = by_hand(model, MIXED)
    assert expected > 0
    assert float(loss.sum.detach() / loss.weight) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert loss.coefficient == 0.7 and loss.weight == 6 and loss.taking_part == 6


def test_pairs_without_a_negative_add_nothing() -> None:
    model = METHODS["contrastive"]()
    loss = model({"source": batch(("S", "N", ""))}, PROGRESS)["contrastive/source"]
    assert loss.sum == 0 and loss.weight == 2
    total({"": loss}).backward()
    assert not gradients(model)


def test_without_a_pair_the_term_vanishes() -> None:
    loss = METHODS["contrastive"]()({"source": batch(("", ""))}, PROGRESS)["contrastive/source"]
    assert loss.weight == 0 and not loss.sum.requires_grad


def test_network_and_mapping_learn_from_the_term() -> None:
    model = METHODS["contrastive"]()
    total({"": model({"source": batch(MIXED)}, PROGRESS)["contrastive/source"]}).backward()
    learnt = gradients(model)
    for part in ("network.encoder", "network.heads.depth", "mapping.film", "mapping.body"):
        assert any(name.startswith(part) for name in learnt), part


def test_a_batch_without_a_pair_is_still_a_step_in_training_mode() -> None:
    model = METHODS["contrastive"]()
    model.train()
    assert total(model({"source": batch(("S", "S"))}, PROGRESS)).isfinite()
    assert total(model({"source": batch(("", ""))}, PROGRESS)) == 0
