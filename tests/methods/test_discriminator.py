import math

import pytest
import torch
from dense_methods import METHODS

from dense_testing import NAMES, PROGRESS, batch, gradients, total
from isthmus.methods.discriminator import Discriminator, another_image

MIXED = ("S", "DN", "", "SDN", "S", "S", "N")
OFF_DIAGONAL = [(i, j) for i in range(3) for j in range(3) if i != j]


def by_hand(model: Discriminator, kept: tuple[str, ...]) -> float:
    """Mean of the cross-entropies of a positive pair and of the pair with the next image's label, one at a time."""
    data = batch(kept)
    outputs = model.network(data.inputs["image"]).outputs
    by_kind: dict[tuple[int, int], list] = {}
    images = 0
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
                    a = model.mapping(model.mapping.embed(one, prediction), codes[0])
                    b = model.mapping(model.mapping.embed(other, label), codes[1])
                    by_kind.setdefault((s, t), []).append((a, b, len(sources)))
    result = 0.0
    for members in by_kind.values():
        for index, (a, b, sources) in enumerate(members):
            if len(members) > 1:
                negative = members[(index + 1) % len(members)][1]
                positive, other = (float(model.discriminator(a, each).detach()) for each in (b, negative))
                term = 0.5 * (math.log1p(math.exp(-positive)) + math.log1p(math.exp(other)))
                result += term / sources if model.reduction == "mean" else term
    return result / images


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_both_terms_are_the_cross_entropy_of_positive_and_negative_pairs(reduction: str) -> None:
    model = METHODS["discriminator"](reduction=reduction, weight=0.7)
    torch.nn.init.normal_(model.discriminator.logit.weight)
    losses = model({"source": batch(MIXED)}, PROGRESS)
    expected = by_hand(model, MIXED)
    for name, coefficient in (("matching", 0.7), ("discriminator", 1.0)):
        loss = losses[f"{name}/source"]
        assert float(loss.sum.detach() / loss.weight) == pytest.approx(expected, rel=1e-4)
        assert loss.coefficient == coefficient and loss.weight == 6


def test_the_discriminator_learns_on_detached_maps_and_the_network_through_a_fixed_discriminator() -> None:
    model = METHODS["discriminator"]()
    losses = model({"source": batch(MIXED)}, PROGRESS)
    total({"": losses["discriminator/source"]}).backward(retain_graph=True)
    learnt = gradients(model)
    assert learnt and all(name.startswith("discriminator.") for name in learnt)
    model.zero_grad()
    total({"": losses["matching/source"]}).backward()
    learnt = gradients(model)
    assert not [name for name in learnt if name.startswith("discriminator.")]
    for part in ("network.encoder", "network.heads.depth", "mapping.film", "mapping.body"):
        assert any(name.startswith(part) for name in learnt), part


def test_without_a_negative_both_terms_vanish() -> None:
    for kept in (("S", "D", "N"), ("", ""), ("S",)):
        losses = METHODS["discriminator"]()({"source": batch(kept)}, PROGRESS)
        for name in ("matching/source", "discriminator/source"):
            assert losses[name].taking_part == 0 and not losses[name].sum.requires_grad


def test_the_other_image_is_the_next_that_compares_the_same_two_tasks() -> None:
    assert another_image(torch.tensor([4, 7, 4, 1, 7, 4])).tolist() == [2, 4, 5, -1, 1, 0]
    assert another_image(torch.empty(0, dtype=torch.int64)).tolist() == []
