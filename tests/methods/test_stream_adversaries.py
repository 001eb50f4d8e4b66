"""AdaptSegNet, CyCADA's feature level, FCNs in the Wild and CLAN at the points."""

import pytest
import torch

from isthmus.losses.class_statistics import class_statistics
from isthmus.methods.clan import CLAN
from isthmus.methods.cross_modal import LABEL, weighted_cross_entropy
from stream_testing import (
    CLASSES,
    PROGRESS,
    STREAMS,
    WEIGHTS,
    adversaries,
    batch,
    distributions,
    mean,
    method,
    network,
    pair,
    shares,
    touched,
)

ROWS = ("adapt-segnet", "cycada", "fcns-in-the-wild", "clan")
GAMES = {f"{side}/{stream}" for side in ("discriminator", "adversary") for stream in STREAMS}
OWN = {
    "fcns-in-the-wild": {f"shares {stream}/target" for stream in STREAMS},
    "clan": {f"{name} {stream}/source" for name in ("second", "difference") for stream in STREAMS},
}


def outputs_of(model, batches):
    return {domain: model.network(each.inputs) for domain, each in batches.items()}


@pytest.mark.parametrize("name", ROWS)
def test_each_stream_has_a_game_of_its_own(name):
    model = method(name)
    losses = model(pair(), PROGRESS)
    assert losses.keys() == {"2D/source", "3D/source", *GAMES, *OWN.get(name, ())}
    for stream in STREAMS:
        own = {"network.networks." + stream}
        reached = touched(model, losses[f"adversary/{stream}"].sum)
        assert own <= reached and all(stream in each for each in reached)
        assert not any(each.startswith("adversaries") for each in reached)
        judged = touched(model, losses[f"discriminator/{stream}"].sum)
        assert judged and all(each.startswith(f"adversaries.{stream}") for each in judged)
    assert model.measures().keys() == {"accuracy/2D", "accuracy/3D"}
    assert all(0 <= value <= 1 for value in model.measures().values())


@pytest.mark.parametrize("name", ROWS)
def test_a_stage_on_one_domain_has_no_game(name):
    model = method(name)
    assert not model({"source": batch()}, PROGRESS).keys() & GAMES
    alone = model({"target": batch("target", labels=())}, PROGRESS)
    assert alone.keys() == (OWN[name] if name == "fcns-in-the-wild" else set())


def test_adapt_segnet_shows_probabilities():
    model, batches = method("adapt-segnet"), pair()
    outputs = outputs_of(model, batches)
    for stream, seen in model.shown(outputs["source"], outputs["target"]).items():
        for domain, values in zip(outputs, seen):
            present = batches[domain].inputs["present_points"]
            for frame, there, expected in zip(values, present, distributions(outputs[domain].logits[stream], present)):
                for point, row in zip(frame[there], expected, strict=True):
                    torch.testing.assert_close(point, row)


@pytest.mark.parametrize("name", ["cycada", "fcns-in-the-wild"])
def test_cycada_shows_features(name):
    model = method(name)
    outputs = outputs_of(model, pair())
    for stream, (ours, theirs) in model.shown(outputs["source"], outputs["target"]).items():
        assert ours is outputs["source"].features[stream] and theirs is outputs["target"].features[stream]


def test_shares_of_classes_are_bounded_in_every_target_frame_that_has_points():
    model, batches = method("fcns-in-the-wild"), pair()
    losses, found = model(batches, PROGRESS), model.network(batches["target"].inputs)
    present = batches["target"].inputs["present_points"]
    for stream in STREAMS:
        per_frame = class_statistics(found.logits[stream], present, shares())
        loss = losses[f"shares {stream}/target"]
        assert mean(loss) == pytest.approx(float(per_frame[:2].mean()), rel=1e-5) and int(loss.weight) == 2
        assert loss.coefficient == 0.7 and mean(loss) > 0
        assert touched(model, loss.sum) == {f"network.networks.{stream}", f"network.classifiers.{stream}"}
    assert {"shares_lower", "shares_mean", "shares_upper"} <= model.state_dict().keys()


def test_both_classifiers_of_clan_learn_and_are_kept_different():
    model, batches = method("clan"), pair()
    losses, source = model(batches, PROGRESS), batches["source"]
    found = model.network(source.inputs)
    rows = [0, 2, 3]
    for stream in STREAMS:
        per_frame = weighted_cross_entropy(
            found.mimicry[stream][rows], source.labels[LABEL][rows], source.valid[LABEL][rows], WEIGHTS
        )
        assert mean(losses[f"second {stream}/source"]) == pytest.approx(float(per_frame.mean()), rel=1e-5)
        one, two = (torch.cat([head.weight.flatten(), head.bias]) for head in (
            model.network.classifiers[stream], model.network.mimicry[stream]
        ))  # fmt: skip
        cosine = sum(float(a) * float(b) for a, b in zip(one, two)) / float(one.norm() * two.norm())
        difference = losses[f"difference {stream}/source"]
        assert mean(difference) == pytest.approx(1 + cosine, rel=1e-4) and difference.coefficient == 0.01


def test_clan_weighs_target_points_by_the_disagreement_of_the_classifiers():
    """Against a loop over points: (10 (1 - cos(p1, p2)) + 0.4) times the adversarial loss of the mean of both."""
    model, batches = method("clan"), pair()
    losses, target = model(batches, PROGRESS), batches["target"]
    present, found = target.inputs["present_points"], model.network(target.inputs)
    for stream in STREAMS:
        frames = []
        both = zip(distributions(found.logits[stream], present), distributions(found.mimicry[stream], present))
        for ones, twos in both:
            lost = []
            for one, two in zip(ones, twos, strict=True):
                factor = 10 * (1 - float(one @ two / one.norm() / two.norm())) + 0.4
                shown = ((one + two) / 2)[None, None]
                told = model.adversaries[stream].discriminator(shown, torch.ones(1, 1, dtype=torch.bool))
                lost.append(-factor * float(torch.sigmoid(told.logits).log().sum()))
            frames += [sum(lost) / len(lost)] if lost else []
        assert mean(losses[f"adversary/{stream}"]) == pytest.approx(sum(frames) / len(frames), rel=1e-4)


def test_the_factor_of_clan_has_no_gradient():
    model = method("clan")
    target = batch("target", labels=())
    factors = model.factors(model.network(target.inputs), target.inputs["present_points"])
    assert factors.keys() == set(STREAMS) and not any(each.requires_grad for each in factors.values())


def test_clan_without_a_label_still_keeps_its_classifiers_different():
    losses = method("clan")({"source": batch(unlabelled=(0, 1, 2, 3)), "target": batch("target", labels=())}, PROGRESS)
    for stream in STREAMS:
        assert int(losses[f"second {stream}/source"].weight) == 0
        assert int(losses[f"difference {stream}/source"].weight) == 1


@pytest.mark.parametrize("game", ["literal", "non-saturating"])
def test_a_game_that_cannot_weigh_points_is_refused(game):
    kind = "points" if game == "literal" else "chunks"
    games = adversaries(STREAMS, len(CLASSES), kind=kind, game=game)
    model = CLAN(network(mimicry=True), CLASSES, games, local=10.0, discrepancy=0.01)
    with pytest.raises(ValueError, match="factor: expected"):
        model(pair(), PROGRESS)
