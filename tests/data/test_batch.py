import pytest
import torch

from isthmus.data.batch import Batch


def make(**changes: object) -> Batch:
    fields = {
        "domain": "source",
        "inputs": {"points": torch.zeros(3, 5, 3)},
        "labels": {"class": torch.zeros(3, dtype=torch.long)},
        "present": {"class": torch.ones(3, dtype=torch.bool)},
        "sample_id": torch.arange(3),
    }
    return Batch(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"inputs": {"points": torch.zeros(2, 5, 3)}}, r"inputs\['points'\]: expected 3 rows, found 2"),
        ({"present": {}}, "labels are \\['class'\\] but presence is \\[\\]"),
        ({"present": {"class": torch.ones(3)}}, "expected bool, found torch.float32"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make(**changes)


def test_a_batch_moves_as_a_whole() -> None:
    moved = make().to("meta")
    tensors = [moved.inputs["points"], moved.labels["class"], moved.present["class"], moved.sample_id]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
