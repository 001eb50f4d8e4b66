import math

import pytest
import torch
import torch.nn.functional as F
from point_rivals import TASK, at, batch, classifier, gradients, head_of, mean, pair, parts, total, value

from isthmus.losses.mmd import mmd
from isthmus.methods.pointdan import PointDAN, discrepancy, sine_ramp
from isthmus.models.node_attention import NodeAttention, SelfAdaptiveNodes


def method(kind: str = "pointnet", **options: float) -> PointDAN:
    torch.manual_seed(0)
    network = classifier(kind, more=8)
    nodes = SelfAdaptiveNodes(network.encoder.local_channels, 8, nodes=4, neighbours=8)
    second = head_of(network.encoder, 8)
    return PointDAN(network, second, nodes, NodeAttention(4, 8), TASK, **options)


@pytest.mark.parametrize("kind", ["pointnet", "dgcnn"])
def test_losses_are_those_of_the_equation(kind):
    model, batches = method(kind, mmd_weight=0.5, discrepancy_weight=0.25).eval(), pair()
    losses = model(batches, at(0.5))
    assert losses.keys() == {
        *(f"{name}/{domain}" for name in ("class", "second") for domain in ("source", "target")),
        "mmd/target", "discrepancy/target",
    }  # fmt: skip
    source, target = (model.describe(batches[d].inputs["points"]) for d in ("source", "target"))
    for name, head in (("class", model.network.head), ("second", model.second_head)):
        expected = F.cross_entropy(head(source.joint), batches["source"].labels["class"])
        assert value(mean(losses[f"{name}/source"])) == pytest.approx(value(expected), rel=1e-5)
        assert losses[f"{name}/target"].weight == 0
    expected = 0.5 * mmd(source.nodes.flatten(1), target.nodes.flatten(1))
    assert value(mean(losses["mmd/target"])) == pytest.approx(value(expected), rel=1e-5)
    first, second = (head(target.joint).softmax(dim=1) for head in (model.network.head, model.second_head))
    by_hand = sum(abs(a - b) for x, y in zip(first.tolist(), second.tolist()) for a, b in zip(x, y)) / (6 * 3)
    assert value(mean(losses["discrepancy/target"])) == pytest.approx(-0.25 * by_hand, rel=1e-5)


def test_classifiers_drift_apart_and_everything_below_brings_them_together_along_the_sine_ramp():
    fraction, weight = 0.3, 0.7
    model, batches = method(discrepancy_weight=weight).eval(), pair()
    torch.nn.init.normal_(model.nodes.offset.weight)
    found = gradients(model, mean(model(batches, at(fraction))["discrepancy/target"]))
    apart = discrepancy(*model.classify(model.describe(batches["target"].inputs["points"]).joint)).mean()
    along = gradients(model, apart)
    assert found.keys() == along.keys()
    for name, gradient in found.items():
        head = name.startswith(("network.head", "second_head"))
        factor = -weight if head else weight * math.sin(fraction * math.pi / 2)
        torch.testing.assert_close(gradient, factor * along[name], atol=1e-6, rtol=1e-4)
    below = {name.split(".")[0] for name in found if not name.startswith(("network.head", "second_head"))}
    assert below == {"network", "nodes", "attention"}


def test_the_ramp_goes_from_nothing_to_all():
    assert sine_ramp(0.0) == 0.0 and sine_ramp(1.0) == 1.0 and sine_ramp(1 / 3) == pytest.approx(0.5)
    model = method().eval()
    found = parts(gradients(model, mean(model(pair(), at(0.0))["discrepancy/target"])))
    assert all(part.startswith(("network.head", "second_head")) for part in found)


def test_the_discrepancy_of_nodes_leaves_the_classifiers_alone():
    model = method()
    torch.nn.init.normal_(model.nodes.offset.weight)
    found = gradients(model, mean(model(pair(), at(0.5))["mmd/target"]))
    assert {name.split(".")[0] for name in found} == {"network", "nodes", "attention"}
    assert not any(name.startswith("network.head") for name in found)


def test_a_single_domain_is_classified_and_labels_of_the_target_count():
    model = method()
    assert model({"source": batch("source")}, at(0.5)).keys() == {"class/source", "second/source"}
    losses = model(pair(labelled=4), at(0.5))
    assert losses["class/target"].weight == 4 and losses["second/target"].weight == 4


@pytest.mark.parametrize(("size", "points"), [(2, 16), (5, 33)])
def test_a_training_step_is_finite_and_reaches_every_part(size, points):
    model = method()
    found = gradients(model, total(model(pair(size=size, points=points), at(0.9))))
    assert all(each.isfinite().all() for each in found.values())
    assert {name.split(".")[0] for name in found} == {"network", "second_head", "nodes", "attention"}
    assert any(name.startswith("nodes.offset") for name in found)


def test_the_prediction_is_the_mean_of_both_classifiers_and_single_clouds_are_predicted_alike():
    model = method().eval()
    inputs = batch("target").inputs
    joint = model.embed(inputs)
    assert joint.shape == (6, model.network.encoder.pooled_channels + 8)
    expected = (model.network.head(joint) + model.second_head(joint)) / 2
    torch.testing.assert_close(model.predict(inputs)["class"], expected)
    alone = model.predict({"points": inputs["points"][2:3]})["class"]
    torch.testing.assert_close(alone, expected[2:3], atol=1e-5, rtol=1e-5)


def test_alternating_sides_in_one_step_lowers_the_discrepancy_that_a_fixed_pair_of_classifiers_sees():
    model, batches = method().eval(), pair()

    def apart() -> float:
        return value(discrepancy(*model.classify(model.describe(batches["target"].inputs["points"]).joint)).mean())

    below = [p for n, p in model.named_parameters() if not n.startswith(("network.head", "second_head"))]
    before = apart()
    optimizer = torch.optim.SGD(below, lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        mean(model(batches, at(0.99))["discrepancy/target"]).backward()
        optimizer.step()
    assert apart() < before


def test_discrepancy_is_the_mean_difference_of_probabilities():
    first, second = torch.tensor([[100.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 100.0], [0.0, 0.0]])
    torch.testing.assert_close(discrepancy(first, second), torch.tensor([1.0, 0.0]))


def test_half_precision_gives_finite_losses_and_gradients():
    model = method()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(pair(), at(0.5))
    found = gradients(model, total(losses))
    assert found and all(each.isfinite().all() for each in found.values())
