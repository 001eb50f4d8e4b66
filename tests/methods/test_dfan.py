import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from point_rivals import TASK, at, batch, classifier, gradients, mean, pair, parts, total, value

from isthmus.methods.dfan import DFAN
from isthmus.models.node_attention import SelfAdaptiveNodes
from isthmus.models.point_discriminator import PointDiscriminator

LEVELS = ("points", "nodes", "cloud")
LOSSES = {"class/source", "class/target", "mmd/target", *(f"discriminator/{level}" for level in LEVELS)}


def method(kind: str = "pointnet", **options: float) -> DFAN:
    torch.manual_seed(0)
    network = classifier(kind, more=8)
    nodes = SelfAdaptiveNodes(network.encoder.local_channels, 8, nodes=4, neighbours=8)
    channels = {"points": network.encoder.local_channels, "nodes": 8, "cloud": 8}
    discriminators = {level: PointDiscriminator(channels[level], hidden=(16,)) for level in LEVELS}
    return DFAN(network, nodes, TASK, discriminators, **options)


def slow_mmd(source: np.ndarray, target: np.ndarray) -> float:
    def kernel(rows: np.ndarray, columns: np.ndarray) -> float:
        square = ((rows[:, None] - columns[None]) ** 2).sum(-1)
        return float(np.mean(sum(np.exp(-square / (2 * sigma**2)) for sigma in (0.01, 0.1, 1, 10, 100))))

    return kernel(source, source) + kernel(target, target) - 2 * kernel(source, target)


@pytest.mark.parametrize("kind", ["pointnet", "dgcnn"])
def test_losses_are_those_of_the_equation(kind):
    model, batches = method(kind, global_weight=0.5, local_weight=0.3).eval(), pair()
    losses = model(batches, at(0.5))
    assert losses.keys() == LOSSES
    source, target = (model.describe(batches[d].inputs["points"]) for d in ("source", "target"))
    logits = model.network.head(torch.cat([source.pooled, source.levels["nodes"].amax(dim=1)], dim=1))
    expected = F.cross_entropy(logits, batches["source"].labels["class"])
    assert value(mean(losses["class/source"])) == pytest.approx(value(expected), rel=1e-5)
    assert losses["class/target"].weight == 0
    apart = slow_mmd(*(each.pooled.detach().double().numpy() for each in (source, target)))
    assert value(mean(losses["mmd/target"])) == pytest.approx(0.5 * apart, rel=1e-4)
    for level in LEVELS:
        judge = model.adversaries[level].discriminator
        said = [judge(e.levels[level], torch.ones(e.levels[level].shape[:2]).bool()).logits for e in (source, target)]
        right = [F.binary_cross_entropy_with_logits(x, torch.full_like(x, y)) for x, y in zip(said, (1.0, 0.0))]
        assert value(mean(losses[f"discriminator/{level}"])) == pytest.approx(value(sum(right) / 2), rel=1e-5)


def test_levels_are_points_regions_and_the_strongest_regions():
    model = method().eval()
    described = model.describe(batch("target").inputs["points"])
    shapes = {level: tuple(values.shape) for level, values in described.levels.items()}
    assert shapes == {"points": (6, 32, model.network.encoder.local_channels), "nodes": (6, 4, 8), "cloud": (6, 1, 8)}
    assert torch.equal(described.levels["cloud"][:, 0], described.levels["nodes"].max(dim=1).values)
    assert described.joint.shape == (6, model.network.encoder.pooled_channels + 8)


@pytest.mark.parametrize("level", LEVELS)
def test_a_discriminator_learns_and_all_below_it_deceives_it_along_the_ramp(level):
    fraction, weight = 0.3, 0.6
    model, batches = method(local_weight=weight).eval(), pair()
    torch.nn.init.normal_(model.nodes.offset.weight)
    name = f"discriminator/{level}"
    found = gradients(model, mean(model(batches, at(fraction))[name]))
    plain = method(local_weight=3.0).eval()  # a weight of 1 for each level
    plain.load_state_dict(model.state_dict())
    along = gradients(plain, mean(plain(batches, at(1.0))[name]))
    ramp, whole = (2 / (1 + math.exp(-10 * p)) - 1 for p in (fraction, 1.0))
    assert found.keys() == along.keys()
    for parameter, gradient in found.items():
        own = parameter.startswith("adversaries")
        factor = 1.0 if own else ramp * (weight / 3) / whole
        torch.testing.assert_close(gradient, factor * along[parameter], atol=1e-7, rtol=1e-4)
    reached = {parameter.split(".")[0] for parameter in found}
    assert reached == ({"network", "adversaries"} if level == "points" else {"network", "nodes", "adversaries"})


def test_the_sign_of_a_game_is_turned_below_the_discriminator():
    """Following the step's gradient, the encoder makes its discriminator worse and the discriminator itself better."""
    for side, better in (("adversaries", True), ("network.encoder", False)):
        model, batches = method().eval(), pair()
        own = [p for name, p in model.named_parameters() if name.startswith(side)]
        before = mean(model(batches, at(1.0))["discriminator/points"])
        before.backward()
        with torch.no_grad():
            for parameter in own:
                if parameter.grad is not None:
                    parameter -= 1e-2 * parameter.grad
        after = mean(model(batches, at(1.0))["discriminator/points"])
        assert (value(after) < value(before)) == better


def test_the_discrepancy_is_of_the_global_branch_alone():
    model = method()
    torch.nn.init.normal_(model.nodes.offset.weight)
    found = parts(gradients(model, mean(model(pair(), at(0.5))["mmd/target"])))
    assert found == {"network.encoder"}


def test_before_the_ramp_nothing_below_the_discriminators_plays():
    model = method().eval()
    losses = model(pair(), at(0.0))
    played = total({name: loss for name, loss in losses.items() if name.startswith("discriminator")})
    assert {part.split(".")[0] for part in parts(gradients(model, played))} == {"adversaries"}


def test_a_single_domain_is_classified_and_labels_of_the_target_count():
    model = method()
    assert model({"source": batch("source")}, at(0.5)).keys() == {"class/source"}
    assert model(pair(labelled=4), at(0.5))["class/target"].weight == 4


def test_levels_can_be_left_out():
    model = method(local_weight=0.5)
    fewer = DFAN(
        model.network, model.nodes, TASK, {"nodes": model.adversaries["nodes"].discriminator}, local_weight=0.5
    )
    assert fewer(pair(), at(0.5)).keys() == {"class/source", "class/target", "mmd/target", "discriminator/nodes"}
    assert fewer.adversaries["nodes"].weight == 0.5 and model.adversaries["nodes"].weight == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(("size", "points"), [(2, 16), (5, 33)])
def test_a_training_step_is_finite_and_reaches_every_part(size, points):
    model = method()
    found = gradients(model, total(model(pair(size=size, points=points), at(0.9))))
    assert all(each.isfinite().all() for each in found.values())
    assert {name.split(".")[0] for name in found} == {"network", "nodes", "adversaries"}


def test_predictions_embeddings_and_measures():
    model = method().eval()
    inputs = batch("target").inputs
    joint = model.embed(inputs)
    torch.testing.assert_close(model.predict(inputs)["class"], model.network.head(joint))
    alone = model.predict({"points": inputs["points"][2:3]})["class"]
    torch.testing.assert_close(alone, model.network.head(joint)[2:3], atol=1e-5, rtol=1e-5)
    model(pair(), at(0.5))
    assert model.measures().keys() == {f"accuracy/{level}" for level in LEVELS}
    assert all(0 <= each <= 1 for each in model.measures().values())


def test_half_precision_gives_finite_losses_and_gradients():
    model = method()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(pair(), at(0.5))
    found = gradients(model, total(losses))
    assert found and all(each.isfinite().all() for each in found.values())
