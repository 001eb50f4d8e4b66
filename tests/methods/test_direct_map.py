import pytest
import torch
from dense_methods import METHODS

from dense_testing import NAMES, PROGRESS, batch, gradients, total
from isthmus.methods.direct_map import DirectMap

MIXED = ("S", "DN", "", "SDN", "N")


def by_hand(model: DirectMap, kept: tuple[str, ...]) -> torch.Tensor:
    data = batch(kept)
    outputs = model.network(data.inputs["image"]).outputs
    images, result = 0, torch.zeros(())
    for n in range(len(data)):
        labelled = [name for name in NAMES if data.present[name][n]]
        images += bool(labelled)
        sources = [name for name in NAMES if name not in labelled] or list(NAMES)
        for s in sources:
            for t in labelled:
                if s != t:
                    prediction = model.tasks[s].prediction_map(outputs[s][n : n + 1])
                    mapped = model.maps[f"{s}_to_{t}"](prediction).outputs[t]
                    term = model.tasks[t].loss(mapped, data.labels[t][n : n + 1], data.valid[t][n : n + 1]).sum()
                    result = result + (term / len(sources) if model.reduction == "mean" else term)
    return result / images


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_term_compares_mapped_predictions_with_labels(reduction: str) -> None:
    model = METHODS["direct-map"](reduction=reduction, weight=0.5)
    loss = model({"source": batch(MIXED)}, PROGRESS)["direct/source"]
    torch.testing.assert_close(loss.sum / loss.weight, by_hand(model, MIXED), rtol=1e-4, atol=1e-6)
    assert loss.coefficient == 0.5 and loss.weight == 4 and loss.taking_part == 4


def test_there_is_a_map_for_every_ordered_pair() -> None:
    maps = METHODS["direct-map"]().maps
    assert set(maps) == {f"{s}_to_{t}" for s in NAMES for t in NAMES if s != t}
    assert maps["depth_to_normals"].in_channels == 1 and maps["depth_to_normals"].channels == {"normals": 3}


def test_map_and_network_learn_from_the_term_and_maps_of_other_pairs_do_not() -> None:
    model = METHODS["direct-map"]()
    losses = model({"source": batch(("S",))}, PROGRESS)
    total({"": losses["direct/source"]}).backward()
    learnt = gradients(model)
    maps = {name.split(".")[1] for name in learnt if name.startswith("maps.")}
    heads = {name.split(".")[2] for name in learnt if name.startswith("network.heads.")}
    assert maps == {"depth_to_segmentation", "normals_to_segmentation"} and heads == {"depth", "normals"}
    assert any(name.startswith("network.encoder") for name in learnt)


def test_without_a_pair_the_term_vanishes() -> None:
    loss = METHODS["direct-map"]()({"source": batch(("", ""))}, PROGRESS)["direct/source"]
    assert loss.weight == 0 and not loss.sum.requires_grad
