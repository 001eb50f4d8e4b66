"""Equations 1 to 3, 5 to 8 and 10 of DsCML's paper against slow loops."""

import pytest
import torch

from isthmus.methods.dscml import DsCML, game_name
from isthmus.methods.xmuda import XMUDA
from isthmus.models.deformable_patch import DeformablePatch
from stream_testing import (
    CLASSES,
    HEIGHT,
    IMAGE_CHANNELS,
    PROGRESS,
    WIDTH,
    batch,
    cmal,
    distributions,
    mean,
    mean_divergence,
    moved_patch,
    network,
    pair,
    touched,
)

CROSSED = (("2D", "3D"), ("3D", "2D"))
SAME = (("2D", "2D"), ("3D", "3D"))


def square() -> DeformablePatch:
    return DeformablePatch(IMAGE_CHANNELS, 3, "zero")


def taps_of(streams, found) -> list[list[list[torch.Tensor]]]:
    """The values of a patch's places in an image of features, frame by frame, point by point, mixed by hand."""
    maps = streams.networks["2D"](found.inputs["image"])
    places = streams.patch.places(maps, found.inputs["pixels"], found.inputs["present_points"])
    result = []
    for image, there, rows in zip(maps, found.inputs["present_points"], places):
        frame = []
        for present, patch in zip(there, rows):
            if present:
                frame.append([(image, place) for place in patch])
        result.append(frame)
    return result


def value(image: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Bilinear between pixel centres, the border repeated."""
    row = min(max(float(place[0]) - 0.5, 0.0), HEIGHT - 1.0)
    column = min(max(float(place[1]) - 0.5, 0.0), WIDTH - 1.0)
    total = torch.zeros(image.shape[0])
    for y in {int(row), min(int(row) + 1, HEIGHT - 1)}:
        for x in {int(column), min(int(column) + 1, WIDTH - 1)}:
            total = total + (1 - abs(row - y)) * (1 - abs(column - x)) * image[:, y, x]
    return total


def extremes_by_hand(model: DsCML, found) -> dict[str, list[list[torch.Tensor]]]:
    """Probabilities of the extremes of the features, and of the mean, of each patch."""
    classifier, head = model.network.classifiers["2D"], model.network.mimicry["2D"]
    result = {"max": [], "min": [], "mean": []}
    for frame in taps_of(model.network, found):
        pooled = [torch.stack([value(*tap) for tap in patch]) for patch in frame]
        result["max"].append([classifier(each.max(dim=0).values).softmax(dim=0) for each in pooled])
        result["min"].append([classifier(each.min(dim=0).values).softmax(dim=0) for each in pooled])
        result["mean"].append([head(each.mean(dim=0)).softmax(dim=0) for each in pooled])
    return result


@pytest.mark.parametrize("domain", ["source", "target"])
@pytest.mark.parametrize("patch", [square, moved_patch])
@torch.no_grad()
def test_equations_2_and_3_the_extremes_of_a_patch_imitate_the_point(patch, domain):
    model = DsCML(network(patch=patch(), mimicry=True), CLASSES, source_weight=0.9, target_weight=0.2)
    batches = pair()
    losses, found = model(batches, PROGRESS), batches[domain]
    present = found.inputs["present_points"]
    points = distributions(model.network(found.inputs).logits["3D"], present)
    hand = extremes_by_hand(model, found)
    for name in ("max", "min"):
        loss = losses[f"{name}/{domain}"]
        assert mean(loss) == pytest.approx(mean_divergence(points, hand[name]), rel=1e-4)
        assert loss.coefficient == {"source": 0.9, "target": 0.2}[domain]  # the sum of both, as printed
    # the other direction: the 3D mimicry head is asked for what the mean of the patch says
    outputs = model.network(found.inputs)
    back = mean_divergence(distributions(outputs.logits["2D"], present), distributions(outputs.mimicry["3D"], present))
    assert mean(losses[f"mimicry 3D/{domain}"]) == pytest.approx(back, rel=1e-4)
    assert {name for name in losses if domain in name} == {
        *(f"{name}/{domain}" for name in ("max", "min", "mimicry 3D")),
        *({"2D/source", "3D/source"} if domain == "source" else ()),
    }


@torch.no_grad()
def test_equation_10_is_of_the_mean_of_the_patch():
    model = DsCML(network(patch=moved_patch(), mimicry=True), CLASSES, terms="mean")
    found = batch()
    losses = model({"source": found}, PROGRESS)
    points = distributions(model.network(found.inputs).logits["3D"], found.inputs["present_points"])
    expected = mean_divergence(points, extremes_by_hand(model, found)["mean"])
    assert mean(losses["mean/source"]) == pytest.approx(expected, rel=1e-4)
    assert losses.keys() == {"2D/source", "3D/source", "mean/source", "mimicry 3D/source"}


@torch.no_grad()
def test_equation_1_is_of_the_pixel_of_the_point():
    model, found = DsCML(network(mimicry=True), CLASSES), batch()
    losses, present = model({"source": found}, PROGRESS), found.inputs["present_points"]
    assert losses.keys() == {"2D/source", "3D/source", "mimicry 2D/source", "mimicry 3D/source"}
    maps = model.network.networks["2D"](found.inputs["image"])
    pixels = [
        [
            model.network.mimicry["2D"](maps[frame, :, int(row), int(column)]).softmax(dim=0)
            for (row, column), there in zip(places, present[frame])
            if there
        ]
        for frame, places in enumerate(found.inputs["pixels"])
    ]
    points = distributions(model.network(found.inputs).logits["3D"], present)
    assert mean(losses["mimicry 2D/source"]) == pytest.approx(mean_divergence(points, pixels), rel=1e-4)


@torch.no_grad()
def test_the_letter_of_equation_3_pools_probabilities_and_makes_distributions_of_them():
    model = DsCML(network(patch=square(), mimicry=True, pooled="probabilities"), CLASSES)
    found = batch()
    losses, present = model({"source": found}, PROGRESS), found.inputs["present_points"]
    points = distributions(model.network(found.inputs).logits["3D"], present)
    classifier = model.network.classifiers["2D"]
    for name, end in (("max", torch.amax), ("min", torch.amin)):
        pooled = [
            [end(torch.stack([classifier(value(*tap)).softmax(dim=0) for tap in patch]), dim=0) for patch in frame]
            for frame in taps_of(model.network, found)
        ]
        ends = [[each / each.sum() for each in frame] for frame in pooled]
        assert mean(losses[f"{name}/source"]) == pytest.approx(mean_divergence(points, ends), rel=1e-4)


def test_released_is_the_mean_of_the_terms_each_with_a_classifier_of_its_own():
    streams = network(patch=square(), mimicry=True, extremes="own")
    model = DsCML(streams, CLASSES, halved=True, source_weight=0.8)
    losses = model({"source": batch()}, PROGRESS)
    assert losses["max/source"].coefficient == losses["min/source"].coefficient == pytest.approx(0.4)
    assert losses["mimicry 3D/source"].coefficient == pytest.approx(0.8)
    for name in ("max", "min"):
        assert touched(model, losses[f"{name}/source"].sum) == {"network.networks.2D", f"network.extremes.{name}"}


@pytest.mark.parametrize("patch", [None, square, moved_patch])
def test_no_gradient_crosses_from_one_modality_to_the_other(patch):
    model = DsCML(network(patch=patch() if patch else None, mimicry=True), CLASSES)
    losses = model(pair(), PROGRESS)
    for name, loss in losses.items():
        reached = touched(model, loss.sum)
        student = "3D" if name.startswith(("mimicry 3D", "3D")) else "2D"
        assert reached and not any(("3D" if student == "2D" else "2D") in each for each in reached), name
        assert not (student == "2D" and "network.mimicry.3D" in reached)
    # the teacher is held fixed: its classifier is not taught by its student
    assert "network.classifiers.3D" not in touched(model, losses["mimicry 3D/target"].sum)


def test_offsets_learn_from_the_extremes_and_from_the_labels():
    model = DsCML(network(patch=DeformablePatch(IMAGE_CHANNELS), mimicry=True), CLASSES)
    losses = model(pair(), PROGRESS)
    for name in ("2D/source", "max/target", "min/source"):
        assert "network.patch.offset" in touched(model, losses[name].sum)


def test_without_terms_only_the_games_are_left():
    model = cmal(terms="none")
    games = {f"{side}/{game_name(*each)}" for side in ("discriminator", "adversary") for each in CROSSED}
    assert model(pair(), PROGRESS).keys() == {"2D/source", "3D/source", *games}


@pytest.mark.parametrize(("alignment", "pairs"), [("crossed", CROSSED), ("same", SAME), ("both", CROSSED + SAME)])
def test_discriminators_see_the_streams_that_the_paper_says(alignment, pairs):
    model, batches = cmal(alignment), pair()
    outputs = {domain: model.network(each.inputs) for domain, each in batches.items()}
    shown = model.shown(outputs["source"], outputs["target"])
    assert list(shown) == [game_name(*each) for each in pairs] == list(model.adversaries)
    for source, target in pairs:
        for domain, stream, seen in zip(outputs, (source, target), shown[game_name(source, target)]):
            present = batches[domain].inputs["present_points"]
            for frame, there, expected in zip(seen, present, distributions(outputs[domain].logits[stream], present)):
                for point, row in zip(frame[there], expected, strict=True):
                    torch.testing.assert_close(point, row)


def test_non_saturating_moves_the_targets_stream_alone():
    """Equations 7 and 8 in the released form: the network is asked on the target, the source's predictions rest."""
    model = cmal()
    losses = model(pair(), PROGRESS)
    for source, target in CROSSED:
        name = game_name(source, target)
        reached = touched(model, losses[f"adversary/{name}"].sum)
        assert f"network.networks.{target}" in reached and f"network.classifiers.{target}" in reached
        assert not any(source in each for each in reached if each.startswith("network.networks"))
        assert not any(each.startswith("adversaries") for each in reached)
        reached = touched(model, losses[f"discriminator/{name}"].sum)
        assert reached and all(each.startswith("adversaries") and name in each for each in reached)
        assert losses[f"adversary/{name}"].coefficient == 0.3


def test_literal_moves_both_streams_against_their_discriminator():
    """Equations 5 to 8: max over the network, min over the discriminator, of one and the same number."""
    model = cmal(game="literal", weight=0.3)
    losses = model(pair(), PROGRESS)
    assert not any(name.startswith("adversary") for name in losses)
    source, target = CROSSED[0]
    name = game_name(source, target)
    reached = touched(model, losses[f"discriminator/{name}"].sum)
    assert {f"network.networks.{source}", f"network.networks.{target}"} <= reached
    weights = model.network.classifiers[target].weight
    (reversed_one,) = torch.autograd.grad(losses[f"discriminator/{name}"].sum, weights)
    plain = cmal(game="literal", weight=-1.0)
    plain.load_state_dict(model.state_dict())
    theirs = plain(pair(), PROGRESS)[f"discriminator/{name}"].sum
    (own,) = torch.autograd.grad(theirs, plain.network.classifiers[target].weight)
    torch.testing.assert_close(reversed_one, -0.3 * own)


def test_mimicry_heads_are_shown_after_the_classifiers_as_the_released_code_does():
    model, batches = cmal(mimicry_shown=True), pair()
    outputs = {domain: model.network(each.inputs) for domain, each in batches.items()}
    shown = model.shown(outputs["source"], outputs["target"])
    for name, (source, target) in zip(shown, CROSSED):
        for domain, stream, seen in zip(outputs, (source, target), shown[name]):
            heads = outputs[domain].logits[stream], outputs[domain].mimicry[stream]
            for part, logits in zip(seen.chunk(2), heads):
                torch.testing.assert_close(part, logits.softmax(dim=1)[:, :, 0].transpose(1, 2))
    losses = model(batches, PROGRESS)
    for name, (_, target) in zip(shown, CROSSED):
        reached = touched(model, losses[f"adversary/{name}"].sum)
        assert {f"network.classifiers.{target}", f"network.mimicry.{target}"} <= reached
    # only points that are there count: others may be anything
    for each in batches.values():
        each.inputs["points"][~each.inputs["present_points"]] = 1e3
    again = model(batches, PROGRESS)
    for name in losses:
        assert again[name].sum.item() == pytest.approx(losses[name].sum.item(), rel=1e-5), name


@pytest.mark.parametrize(("patch", "terms", "name"), [(None, "max-min", "mimicry 2D"), (moved_patch, "mean", "mean")])
def test_the_letter_of_equations_1_and_10_has_the_classifier_itself_imitate(patch, terms, name):
    made = network(patch=patch() if patch else None, mimicry=True)
    model, found = DsCML(made, CLASSES, terms=terms, student="classifier"), batch()
    losses, present = model({"source": found}, PROGRESS), found.inputs["present_points"]
    said = {stream: distributions(logits, present) for stream, logits in made(found.inputs).logits.items()}
    for loss, teacher, student in ((name, "3D", "2D"), ("mimicry 3D", "2D", "3D")):
        expected = mean_divergence(said[teacher], said[student])
        assert mean(losses[f"{loss}/source"]) == pytest.approx(expected, rel=1e-4)
        reached = touched(model, losses[f"{loss}/source"].sum)
        assert f"network.classifiers.{student}" in reached and f"network.classifiers.{teacher}" not in reached
        assert not any("mimicry" in each for each in reached)


def test_cml_through_mimicry_heads_is_xmuda():
    weights = {"source_weight": 0.9, "target_weight": 0.2}
    ours, theirs = (kind(network(mimicry=True), CLASSES, **weights) for kind in (DsCML, XMUDA))
    theirs.load_state_dict(ours.state_dict())
    found = [model(pair(), PROGRESS) for model in (ours, theirs)]
    assert list(found[0]) == list(found[1])
    for name, loss in found[0].items():
        assert torch.equal(loss.sum, found[1][name].sum) and loss.coefficient == found[1][name].coefficient


def test_games_need_both_domains():
    assert not any("discriminator" in name for name in cmal()({"source": batch()}, PROGRESS))


def test_mimicry_heads_are_needed():
    with pytest.raises(ValueError, match="mimicry heads of both streams"):
        DsCML(network(), CLASSES)
