import math

import pytest
import torch
import torch.nn.functional as F
from point_rivals import TASK, at, batch, classifier, gradients, mean, pair, parts, total, value

from isthmus.methods.dann import DANN
from isthmus.models.point_discriminator import PointDiscriminator


def method(kind: str = "pointnet", weight: float = 1.0) -> DANN:
    torch.manual_seed(0)
    network = classifier(kind)
    return DANN(network, TASK, PointDiscriminator(network.encoder.pooled_channels, hidden=(8,)), weight=weight)


@pytest.mark.parametrize("kind", ["pointnet", "dgcnn"])
def test_losses_are_those_of_the_source_and_of_the_discriminator(kind):
    model, batches = method(kind).eval(), pair()
    losses = model(batches, at(0.5))
    assert losses.keys() == {"class/source", "class/target", "discriminator/pooled"}
    logits = model.network(batches["source"].inputs["points"])
    expected = F.cross_entropy(logits, batches["source"].labels["class"])
    assert value(mean(losses["class/source"])) == pytest.approx(value(expected), rel=1e-5)
    assert losses["class/target"].weight == 0
    told = []
    for domain, right in (("source", 1.0), ("target", 0.0)):
        pooled = model.network.encoder(batches[domain].inputs["points"]).pooled
        rows = F.leaky_relu(model.adversary.discriminator.layers[0](pooled), 0.2)
        logit = model.adversary.discriminator.logit(rows)[:, 0]
        told.append(value(F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, right))))
    assert value(mean(losses["discriminator/pooled"])) == pytest.approx(sum(told) / 2, rel=1e-5)


def test_the_encoder_goes_against_the_discriminator_along_the_published_ramp():
    def game(fraction: float, weight: float) -> dict[str, torch.Tensor]:
        model = method(weight=weight).eval()
        return gradients(model, mean(model(pair(), at(fraction))["discriminator/pooled"]))

    plain = method().eval()
    batches = pair()
    pooled = [plain.network.encoder(batches[d].inputs["points"]).pooled for d in ("source", "target")]
    logits = [
        plain.adversary.discriminator(each[:, None], torch.ones(len(each), 1, dtype=torch.bool)).logits[:, 0]
        for each in pooled
    ]
    loss = sum(F.binary_cross_entropy_with_logits(x, torch.full_like(x, y)) / 2 for x, y in zip(logits, (1.0, 0.0)))
    along = gradients(plain, loss)
    for fraction, weight in ((0.1, 1.0), (0.5, 0.3)):
        found = game(fraction, weight)
        strength = weight * (2 / (1 + math.exp(-10 * fraction)) - 1)
        assert {"adversary.discriminator", "network.encoder"} == parts(found)
        for name, gradient in found.items():
            factor = 1.0 if name.startswith("adversary") else -strength
            torch.testing.assert_close(gradient, factor * along[name], atol=1e-6, rtol=1e-4)
    assert parts(game(0.0, 1.0)) == {"adversary.discriminator"}  # at the start only the discriminator learns


def test_domains_weigh_the_same_whatever_their_sizes():
    model = method().eval()
    few, many = batch("source", size=2), batch("target", size=6)
    loss = mean(model({"source": few, "target": many}, at(0.5))["discriminator/pooled"])
    alone = []
    for domain, each in (("source", few), ("target", many)):
        logits = model.adversary.discriminator(
            model.network.encoder(each.inputs["points"]).pooled[:, None], torch.ones(len(each), 1, dtype=torch.bool)
        ).logits
        right = torch.full_like(logits, float(domain == "source"))
        alone.append(value(F.binary_cross_entropy_with_logits(logits, right)))
    assert value(loss) == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_a_single_domain_has_no_game_and_labels_of_the_target_count():
    model = method()
    assert model({"source": batch("source")}, at(0.5)).keys() == {"class/source"}
    losses = model(pair(labelled=4), at(0.5))
    assert losses["class/target"].weight == 4 and losses["class/source"].weight == 4


def test_the_head_sees_labelled_domains_only():
    model = method()
    before = model.network.head.layer1.norm.num_batches_tracked.clone()
    model(pair(), at(0.5))
    assert model.network.head.layer1.norm.num_batches_tracked == before + 1


@pytest.mark.parametrize("size", [2, 5])
def test_a_training_step_is_finite_and_reaches_every_part(size):
    model = method()
    losses = model(pair(size=size, points=16), at(0.9))
    found = gradients(model, total(losses))
    assert all(each.isfinite().all() for each in found.values())
    assert parts(found) == {"network.encoder", "network.head", "adversary.discriminator"}


def test_predictions_embeddings_and_measures():
    model = method().eval()
    inputs = batch("target").inputs
    assert torch.equal(model.predict(inputs)["class"], model.network(inputs["points"]))
    assert model.embed(inputs).shape == (6, model.network.encoder.pooled_channels)
    assert {id(p) for p in model.shared_parameters()} == {id(p) for p in model.network.encoder.parameters()}
    assert math.isnan(model.measures()["accuracy/pooled"])
    model(pair(), at(0.5))
    assert 0 <= model.measures()["accuracy/pooled"] <= 1


def test_both_domains_share_the_statistics_of_batch_norm_unless_asked_otherwise():
    points = torch.cat([each.inputs["points"] for each in pair().values()])
    for joint in (True, False):
        model = method()
        model.joint_batches = joint
        found = model._pooled(pair())
        network = classifier_as(model)
        if joint:
            expected = network.encoder(points).pooled.split(6)
        else:
            expected = [network.encoder(each).pooled for each in points.split(6)]
        torch.testing.assert_close(found, dict(zip(("source", "target"), expected)))


def classifier_as(model: DANN):
    """The network of a fresh method, whose running statistics have not moved."""
    fresh = method().network
    fresh.load_state_dict({k: v for k, v in model.network.state_dict().items()}, strict=True)
    return fresh


def test_the_discriminator_tells_clear_domains_apart_when_the_encoder_does_not_resist():
    model = method(weight=0.0)
    batches = pair(size=8)
    batches["target"].inputs["points"] = batches["target"].inputs["points"] * torch.tensor([3.0, 0.1, 1.0])
    optimizer = torch.optim.Adam(model.adversary.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        loss = mean(model(batches, at(0.5))["discriminator/pooled"])
        loss.backward()
        optimizer.step()
    assert value(loss) < 0.1


def test_half_precision_gives_finite_losses_and_gradients():
    model = method()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(pair(), at(0.5))
    found = gradients(model, total(losses))
    assert found and all(each.isfinite().all() for each in found.values())
