import pytest

from isthmus.methods.xmuda import XMUDA
from stream_testing import (
    CLASSES,
    PROGRESS,
    batch,
    distributions,
    mean,
    mean_divergence,
    method,
    network,
    pair,
    touched,
)

OTHER = {"2D": "3D", "3D": "2D"}


def test_each_mimicry_head_is_asked_for_the_other_streams_prediction():
    """By a slow loop: KL(the other's main prediction || own mimicry), on both domains with weights of their own."""
    model, batches = method("xmuda"), pair()
    losses = model(batches, PROGRESS)
    assert losses.keys() == {
        "2D/source", "3D/source",
        "mimicry 2D/source", "mimicry 3D/source", "mimicry 2D/target", "mimicry 3D/target",
    }  # fmt: skip
    for domain, weight in (("source", 0.9), ("target", 0.2)):
        found, present = model.network(batches[domain].inputs), batches[domain].inputs["present_points"]
        for student, teacher in OTHER.items():
            loss = losses[f"mimicry {student}/{domain}"]
            expected = mean_divergence(
                distributions(found.logits[teacher], present), distributions(found.mimicry[student], present)
            )
            assert mean(loss) == pytest.approx(expected, rel=1e-4) and loss.coefficient == weight
            assert int(loss.weight) == int(present.any(dim=1).sum())


@pytest.mark.parametrize("domain", ["source", "target"])
@pytest.mark.parametrize("student", ["2D", "3D"])
def test_the_teacher_gets_no_gradient_and_neither_does_the_students_own_classifier(student, domain):
    model = method("xmuda")
    loss = model(pair(), PROGRESS)[f"mimicry {student}/{domain}"]
    assert touched(model, loss.sum) == {f"network.networks.{student}", f"network.mimicry.{student}"}


def test_a_stage_on_one_domain_imitates_there():
    losses = method("xmuda")({"source": batch()}, PROGRESS)
    assert losses.keys() == {"2D/source", "3D/source", "mimicry 2D/source", "mimicry 3D/source"}


@pytest.mark.parametrize("streams", [network(), network(("2D",), mimicry=True)])
def test_both_streams_need_mimicry_heads(streams):
    with pytest.raises(ValueError, match="mimicry heads of both streams"):
        XMUDA(streams, CLASSES, source_weight=1.0, target_weight=0.1)
