import math

import pytest
import torch

from isthmus.losses.correlation import coral, log_coral
from stream_testing import (
    PROGRESS,
    STREAMS,
    batch,
    distributions,
    mean,
    method,
    pair,
    rows,
    touched,
)


def test_the_entropy_is_that_of_a_slow_loop():
    model, batches = method("min-entropy"), pair()
    losses, target = model(batches, PROGRESS), batches["target"]
    assert losses.keys() == {"2D/source", "3D/source", "entropy 2D/target", "entropy 3D/target"}
    logits, present = model.network(target.inputs).logits, target.inputs["present_points"]
    for stream in STREAMS:
        frames = [
            sum(-float((p * p.log()).sum()) / math.log(4) for p in frame) / len(frame)
            for frame in distributions(logits[stream], present)
            if frame
        ]
        loss = losses[f"entropy {stream}/target"]
        assert mean(loss) == pytest.approx(sum(frames) / len(frames), rel=1e-5)
        assert int(loss.weight) == 2 and loss.coefficient == 0.7
        assert touched(model, loss.sum) == {f"network.networks.{stream}", f"network.classifiers.{stream}"}


@pytest.mark.parametrize("name", ["min-entropy", "deep-coral"])
def test_source_alone_is_learnt_from_as_ever(name):
    assert method(name)({"source": batch()}, PROGRESS).keys() == {"2D/source", "3D/source"}


@pytest.mark.parametrize(("name", "distance"), [("deep-coral", coral), ("log-coral", log_coral)])
def test_covariances_of_all_points_of_a_batch_are_compared(name, distance):
    model, batches = method(name), pair()
    losses = model(batches, PROGRESS)
    found = [model.network(batches[domain].inputs).features for domain in ("source", "target")]
    masks = [batches[domain].inputs["present_points"] for domain in ("source", "target")]
    for stream in STREAMS:
        loss = losses[f"coral {stream}/target"]
        expected = distance(*(each[stream] for each in found), *masks)
        torch.testing.assert_close(loss.sum, expected[0])
        assert int(loss.weight) == 1 and loss.coefficient == 0.7
        assert touched(model, loss.sum) == {f"network.networks.{stream}"}


def test_deep_coral_by_hand():
    model, batches = method("deep-coral", ("3D",)), pair()
    loss = model(batches, PROGRESS)["coral 3D/target"]
    covariances = []
    for each in batches.values():
        features = model.network(each.inputs).features["3D"][each.inputs["present_points"]].detach()
        covariances.append(torch.cov(features.T))
    expected = (covariances[0] - covariances[1]).square().sum() / (4 * features.shape[1] ** 2)
    torch.testing.assert_close(loss.sum.detach(), expected)


@pytest.mark.parametrize("name", ["deep-coral", "log-coral"])
def test_a_domain_of_less_than_two_points_has_no_covariance(name):
    batches = {"source": batch(), "target": rows(pair()["target"], [2])}
    losses = method(name)(batches, PROGRESS)
    assert all(int(losses[f"coral {stream}/target"].weight) == 0 for stream in STREAMS)
