"""Labels and pseudo-labels in both streams; and what holds for every method on frames."""

import math

import pytest
import torch
from torch import nn

from isthmus.methods.cross_modal import AVERAGE, LABEL, CrossModal, pseudo_label, weighted_cross_entropy
from isthmus.models.deformable_patch import DeformablePatch
from isthmus.models.sparse_unet import SparseUNet
from isthmus.models.two_streams import TwoStreams
from isthmus.models.unet_resnet import UNetResNet
from stream_testing import (
    CLASSES,
    METHODS,
    ONE_STREAM,
    PROGRESS,
    WEIGHTS,
    assert_same_step,
    batch,
    distributions,
    longer,
    mean,
    method,
    network,
    pair,
    poisoned,
    rows,
    step,
)


def by_hand(logits, batch, label=LABEL, weights=WEIGHTS) -> float:
    """Frame by frame and point by point; the mean over frames that have a label."""
    frames = []
    for frame in range(len(batch)):
        lost = weight = 0.0
        for n in range(logits.shape[3]):
            if batch.valid[label][frame, 0, n]:
                right = int(batch.labels[label][frame, 0, n])
                scores = [float(value) for value in logits[frame, :, 0, n]]
                chance = math.exp(scores[right]) / sum(math.exp(score) for score in scores)
                lost -= float(weights[right]) * math.log(chance)
                weight += float(weights[right])
        if weight:
            frames.append(lost / weight)
    return sum(frames) / len(frames)


@pytest.mark.parametrize("unlabelled", [(), (2,)])
def test_the_loss_is_that_of_a_slow_loop_over_frames_and_points(unlabelled):
    model, found = method("source-only"), batch(unlabelled=unlabelled)
    losses = model({"source": found}, PROGRESS)
    outputs = model.network(found.inputs).logits
    assert losses.keys() == {"2D/source", "3D/source"}
    for stream in ("2D", "3D"):
        loss = losses[f"{stream}/source"]
        assert mean(loss) == pytest.approx(by_hand(outputs[stream], found), rel=1e-5)
        assert int(loss.weight) == 3 - len(unlabelled) and loss.coefficient == 1.0


def test_weights_of_classes_are_ones_unless_given():
    model, found = CrossModal(network(), CLASSES), batch()
    loss = model({"source": found}, PROGRESS)["3D/source"]
    expected = by_hand(model.network(found.inputs).logits["3D"], found, weights=torch.ones(4))
    assert mean(loss) == pytest.approx(expected, rel=1e-5)


def test_a_frame_whose_labelled_points_all_weigh_nothing_loses_nothing():
    logits, labels = torch.randn(1, 2, 1, 3), torch.zeros(1, 1, 3, dtype=torch.long)
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    assert weighted_cross_entropy(logits, labels, valid, torch.tensor([0.0, 1.0])).tolist() == [0.0]


def test_frames_without_any_label_take_no_part():
    losses = method("source-only")({"source": batch(unlabelled=(0, 1, 2, 3))}, PROGRESS)
    assert all(float(loss.weight) == 0 and float(loss.sum) == 0 for loss in losses.values())
    assert losses.keys() == {"2D/source", "3D/source"}


def test_each_stream_learns_from_its_own_pseudo_labels():
    names = (pseudo_label("2D"), pseudo_label("3D"))
    target = batch("target", labels=names)
    model = CrossModal(network(), CLASSES, class_weights=WEIGHTS, pseudo_weight=0.4)
    losses = model({"source": batch(), "target": target}, PROGRESS)
    outputs = model.network(target.inputs).logits
    assert losses.keys() == {"2D/source", "3D/source", "pseudo 2D/target", "pseudo 3D/target"}
    for stream in ("2D", "3D"):
        loss = losses[f"pseudo {stream}/target"]
        expected = by_hand(outputs[stream], target, pseudo_label(stream))
        assert mean(loss) == pytest.approx(expected, rel=1e-5) and loss.coefficient == 0.4
    parts = torch.autograd.grad(losses["pseudo 2D/target"].sum, list(model.parameters()), allow_unused=True)
    touched = {name for (name, _), part in zip(model.named_parameters(), parts) if part is not None}
    assert touched and all("2D" in name for name in touched)


def test_a_target_without_labels_does_not_pass_through_a_network_that_has_no_use_for_it():
    """A recipe with pseudo-labels has a target stream from the start, which must not move BatchNorm's statistics."""
    image = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6))
    image.out_channels = 6
    streams = TwoStreams(len(CLASSES), image, None)
    seen = []
    image.register_forward_hook(lambda *_: seen.append(1))
    losses = CrossModal(streams, CLASSES)(pair(), PROGRESS)
    assert len(seen) == 1 and losses.keys() == {"2D/source"}


def test_the_average_is_the_mean_of_the_probabilities():
    model, found = method("source-only"), batch()
    outputs = model.predict(found.inputs)
    assert tuple(outputs) == ("2D", "3D", AVERAGE) == tuple(model.tasks)
    present = found.inputs["present_points"]
    one, two, both = (distributions(outputs[name], present) for name in outputs)
    for frames in zip(one, two, both):
        for first, second, middle in zip(*frames, strict=True):
            torch.testing.assert_close(middle, (first + second) / 2)
    assert float(outputs[AVERAGE].exp().sum(dim=1).sub(1).abs().max()) < 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_a_prediction_is_what_the_streams_say_in_training_without_heads_that_only_losses_need(name):
    model, found = method(name), batch()
    expected = model.network(found.inputs).logits
    heads = [*model.network.mimicry.values(), *model.network.extremes.values(), model.network.patch]
    for head in heads:
        if head is not None:
            head.register_forward_pre_hook(lambda *_: pytest.fail("a head that only losses need took part"))
    outputs = model.predict(found.inputs)
    assert all(torch.equal(outputs[stream], expected[stream]) for stream in ("2D", "3D"))


@pytest.mark.parametrize("stream", ["2D", "3D"])
@pytest.mark.parametrize("name", ONE_STREAM)
def test_one_stream_alone_trains_as_it_does_beside_the_other(name, stream):
    """Streams meet in methods that say so, and nowhere else."""
    alone, both = method(name, (stream,)), method(name)
    state = both.state_dict()
    alone.load_state_dict({key: state[key] for key in alone.state_dict()})
    batches = pair()
    if stream == "3D":
        for each in batches.values():
            del each.inputs["image"], each.inputs["pixels"]
    assert tuple(alone.predict(batches["source"].inputs)) == (stream,) == tuple(alone.tasks)
    (losses, gradients), (all_losses, all_gradients) = step(alone, batches), step(both, pair())
    assert losses == pytest.approx({key: all_losses[key] for key in losses}, rel=1e-5)
    assert {key.replace(stream, "") for key in losses} == {
        key.replace(stream, "") for key in all_losses if stream in key
    }
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, all_gradients[key])


@pytest.mark.parametrize("name", METHODS)
def test_what_absent_points_hold_moves_nothing(name):
    batches, model = pair(), method(name).eval()
    plain = step(model, batches)
    assert all(math.isfinite(value) for value in plain[0].values())
    assert_same_step(plain, step(model, {domain: poisoned(each) for domain, each in batches.items()}), rtol=0, atol=0)
    assert_same_step(
        plain, step(model, {domain: longer(each) for domain, each in batches.items()}), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_frame_without_points_changes_nothing(name):
    batches, kept = pair(), {"source": [0, 2, 3], "target": [0, 1]}
    model = method(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    whole = step(model, batches)
    model.load_state_dict(state)
    assert_same_step(whole, step(model, {d: rows(each, kept[d]) for d, each in batches.items()}), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("counts", [(1,), (3,), (0,)])
@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_one_frame_with_hardly_a_point_works(name, counts):
    batches = {"source": batch("source", (4,)), "target": batch("target", counts, labels=())}
    if counts == (0,):
        batches["target"] = rows(batch("target", (2, 0), labels=()), [1])
    losses, gradients = step(method(name), batches)
    without = [key for key, value in losses.items() if math.isnan(value)]
    assert all("target" in key or key.startswith(("adversary", "coral")) for key in without)
    assert all(gradient.isfinite().all() for gradient in gradients.values()) and gradients


@pytest.mark.parametrize("name", METHODS)
def test_every_method_names_the_same_losses_whatever_the_labels(name):
    """Processes add them up by name."""
    model = method(name)
    batches = pair()
    names = model(batches, PROGRESS).keys()
    bare = {"source": batch(unlabelled=(0, 1, 2, 3)), "target": rows(batches["target"], [2])}
    assert model(bare, PROGRESS).keys() == names


def test_nothing_of_absent_points_reaches_the_real_networks():
    torch.manual_seed(0)
    image, points = UNetResNet(18, 0.125, dropout=0.0), SparseUNet(channels=4, levels=2, voxel_size=0.5)
    streams = TwoStreams(len(CLASSES), image, points, patch=DeformablePatch(image.out_channels), mimicry=True).eval()
    model = CrossModal(streams, CLASSES, class_weights=WEIGHTS).eval()
    found = batch()
    assert_same_step(step(model, {"source": found}), step(model, {"source": poisoned(found)}), rtol=0, atol=0)
