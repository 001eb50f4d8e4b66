import pytest
import torch
from dense_methods import METHODS

from dense_testing import NAMES, PROGRESS, batch, gradients, total
from isthmus.data.randomness import Progress

MIXED = ("SD", "DN", "", "SDN", "N")
FIRST = Progress(3, 0, 4, 10)


def test_the_first_stage_learns_maps_between_labels_and_nothing_else() -> None:
    model, data = METHODS["x-task"](), batch(MIXED)
    losses = model({"source": data}, FIRST)
    assert set(losses) == {f"{s}_to_{t}/source" for s in NAMES for t in NAMES if s != t}
    for s in NAMES:
        for t in NAMES:
            if s == t:
                continue
            terms = []
            for n in range(len(data)):
                if data.present[s][n] and data.present[t][n]:
                    one = slice(n, n + 1)
                    label = model.tasks[s].label_map(data.labels[s][one], data.valid[s][one])
                    mapped = model.maps[f"{s}_to_{t}"](label).outputs[t]
                    terms.append(model.tasks[t].loss(mapped, data.labels[t][one], data.valid[t][one]).sum())
            loss = losses[f"{s}_to_{t}/source"]
            torch.testing.assert_close(loss.sum / loss.weight, sum(terms) / len(terms), rtol=1e-4, atol=1e-6)
    total(losses).backward()
    learnt = gradients(model)
    assert {name.split(".")[1] for name in learnt} == set(model.maps) and all(n.startswith("maps.") for n in learnt)


def test_images_with_one_label_teach_no_map() -> None:
    losses = METHODS["x-task"]()({"source": batch(("S", "D", "N", ""))}, FIRST)
    assert all(loss.weight == 0 and not loss.sum.requires_grad for loss in losses.values())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_later_stages_are_those_of_the_perceptual_maps_without_their_learning(reduction: str) -> None:
    model = METHODS["x-task"](reduction=reduction, weight=0.5)
    other = METHODS["perceptual-map"](reduction=reduction, weight=0.5)
    other.load_state_dict(model.state_dict())
    found, expected = model({"source": batch(MIXED)}, PROGRESS), other({"source": batch(MIXED)}, PROGRESS)
    assert set(found) == set(expected) - {"maps/source"}
    for name, loss in found.items():
        torch.testing.assert_close(loss.sum, expected[name].sum)
        assert loss.coefficient == expected[name].coefficient and loss.weight == expected[name].weight
    total(found).backward()
    assert all(name.startswith("network.") for name in gradients(model))
