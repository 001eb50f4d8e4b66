import pytest
import torch
from dense_methods import METHODS

from dense_testing import NAMES, PROGRESS, batch, gradients, total
from isthmus.methods.perceptual_map import PerceptualMap

MIXED = ("S", "DN", "", "SDN", "N")


def perceptual(model: PerceptualMap, kept: tuple[str, ...]) -> torch.Tensor:
    data = batch(kept)
    outputs = model.network(data.inputs["image"]).outputs
    images, result = 0, torch.zeros(())
    for n in range(len(data)):
        labelled = [name for name in NAMES if data.present[name][n]]
        images += bool(labelled)
        for s in labelled:
            mask = data.valid[s][n : n + 1, None]
            prediction = model.tasks[s].prediction_map(outputs[s][n : n + 1]) * mask
            label = model.tasks[s].label_map(data.labels[s][n : n + 1], data.valid[s][n : n + 1]) * mask
            for t in NAMES:
                if t != s:
                    through, task = model.maps[f"{s}_to_{t}"], model.tasks[t]
                    seen, wanted = (task.activate(through(each).outputs[t]) for each in (prediction, label))
                    term = (seen - wanted.detach()).square().mean()
                    result = result + (term / len(labelled) if model.reduction == "mean" else term)
    return result / images


def learning(model: PerceptualMap, kept: tuple[str, ...]) -> torch.Tensor:
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
                    prediction = model.tasks[s].prediction_map(outputs[s][n : n + 1].detach())
                    mapped = model.maps[f"{s}_to_{t}"](prediction).outputs[t]
                    term = model.tasks[t].loss(mapped, data.labels[t][n : n + 1], data.valid[t][n : n + 1]).sum()
                    result = result + (term / len(sources) if model.reduction == "mean" else term)
    return result / images


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_terms_are_those_of_a_loop_over_images_and_tasks(reduction: str) -> None:
    model = METHODS["perceptual-map"](reduction=reduction, weight=0.5)
    losses = model({"source": batch(MIXED)}, PROGRESS)
    for name, expected in (("perceptual", perceptual(model, MIXED)), ("maps", learning(model, MIXED))):
        loss = losses[f"{name}/source"]
        torch.testing.assert_close(loss.sum / loss.weight, expected, rtol=1e-4, atol=1e-6)
        assert loss.weight == 4
    assert losses["perceptual/source"].coefficient == 0.5 and losses["maps/source"].coefficient == 1


def test_a_perfect_prediction_has_no_perceptual_loss() -> None:
    model, data = METHODS["perceptual-map"](), batch(("SDN",))
    features = model.network(data.inputs["image"])
    logits = 50.0 * torch.nn.functional.one_hot(data.labels["segmentation"], 4).permute(0, 3, 1, 2)
    outputs = {"segmentation": logits, "depth": data.labels["depth"], "normals": data.labels["normals"]}
    loss = model.unsupervised(features._replace(outputs=outputs), data, PROGRESS)["perceptual/source"]
    # depths are relative to the largest of the image in both, so the maps see the same
    assert float(loss.sum.detach()) == pytest.approx(0, abs=1e-9)


def test_the_maps_learn_nothing_from_the_perceptual_term_and_the_network_nothing_from_the_maps_term() -> None:
    model = METHODS["perceptual-map"]()
    losses = model({"source": batch(MIXED)}, PROGRESS)
    total({"": losses["perceptual/source"]}).backward(retain_graph=True)
    learnt = gradients(model)
    assert learnt and all(name.startswith("network.") for name in learnt)
    assert {name.split(".")[2] for name in learnt if ".heads." in name} == set(NAMES)
    model.zero_grad()
    total({"": losses["maps/source"]}).backward()
    learnt = gradients(model)
    assert learnt and all(name.startswith("maps.") for name in learnt)


def test_only_predictions_of_labelled_tasks_learn_from_the_perceptual_term() -> None:
    model = METHODS["perceptual-map"]()
    total({"": model({"source": batch(("D",))}, PROGRESS)["perceptual/source"]}).backward()
    assert {name.split(".")[2] for name in gradients(model) if ".heads." in name} == {"depth"}


def test_the_perceptual_term_normalises_by_the_batch_and_moves_no_running_statistics() -> None:
    kept = ("D", "D")
    model = METHODS["perceptual-map"]()
    model.train()  # BatchNorm too
    before = {name: buffer.clone() for name, buffer in model.maps.named_buffers() if "running" in name}
    model({"source": batch(kept)}, PROGRESS)
    after = dict(model.maps.named_buffers())
    moved = {name.split(".")[0] for name, buffer in before.items() if not torch.equal(buffer, after[name])}
    assert moved == {"segmentation_to_depth", "normals_to_depth"}  # those that learn, not those that are looked through
    assert all(module.momentum == 0.1 for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
