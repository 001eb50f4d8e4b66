from pathlib import Path

import numpy as np
import pytest
import torch
from frame_testing import Frames, frame
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.frame_store import FrameStore, prepare_frames
from isthmus.data.frames import NO_LABEL
from isthmus.training.frames.pseudo_labels import predicted, refined

XMUDA = {"min_confidence": 0.0, "class_share": 0.5, "sure": 0.9}


def by_hand(labels: np.ndarray, confidence: np.ndarray) -> list[int]:
    """xMUDA: of each class, what is at least as sure as the lower of its median and 0.9."""
    medians = {}
    for each in set(labels.tolist()) - {NO_LABEL}:
        values = sorted(float(c) for label, c in zip(labels, confidence) if label == each)
        half = len(values) // 2
        medians[each] = values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
    return [
        label if label != NO_LABEL and value >= min(medians[label], 0.9) - 1e-7 else NO_LABEL
        for label, value in zip(labels.tolist(), confidence.tolist())
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 4, NO_LABEL]), st.integers(20, 100)), max_size=40))
def test_kept_is_the_surer_half_of_each_class_and_all_above_the_cap(points: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in points], dtype=np.uint8)
    confidence = np.array([value / 100 for _, value in points], dtype=np.float32)
    assert refined(labels, confidence, **XMUDA).tolist() == by_hand(labels, confidence)


def test_the_cap_keeps_a_class_that_is_sure_as_a_whole() -> None:
    labels, confidence = np.zeros(4, np.uint8), np.array([0.91, 0.95, 0.97, 0.99], np.float32)
    assert refined(labels, confidence, **XMUDA).tolist() == [0, 0, 0, 0]
    assert refined(labels, confidence, **{**XMUDA, "sure": 1.0}).tolist() == [NO_LABEL, NO_LABEL, 0, 0]
    assert refined(labels, np.array([0.9, 0.95, 0.97, 0.89], np.float32), **XMUDA).tolist() == [0, 0, 0, NO_LABEL]


def test_classes_have_medians_of_their_own() -> None:
    """A threshold for all would leave nothing of the class that is never sure."""
    labels = np.array([0, 0, 0, 3, 3, 3], np.uint8)
    confidence = np.array([0.8, 0.85, 0.88, 0.3, 0.4, 0.5], np.float32)
    assert refined(labels, confidence, **XMUDA).tolist() == [NO_LABEL, 0, 0, NO_LABEL, 3, 3]
    least = refined(labels, confidence, **{**XMUDA, "min_confidence": 0.6})
    assert least.tolist() == [NO_LABEL, 0, 0, NO_LABEL, NO_LABEL, NO_LABEL]


def test_everything_and_nothing() -> None:
    labels, confidence = np.array([1, 2, 2], np.uint8), np.array([0.4, 0.5, 0.6], np.float32)
    assert refined(labels, confidence, min_confidence=0.0, class_share=1.0, sure=1.0).tolist() == [1, 2, 2]
    assert refined(labels[:0], confidence[:0], **XMUDA).tolist() == []


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    """More frames than go through the network at once, of different lengths."""
    return prepare_frames(Frames(tuple(frame(index, 3 + 5 * (index % 3)) for index in range(11))), tmp_path, None)


def test_predictions_come_back_to_their_points_stream_by_stream(store: FrameStore) -> None:
    calls = []

    def predict(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Class by the sign of x and y; absent points would be class 3, and very sure."""
        calls.append(len(inputs["points"]))
        points = torch.where(inputs["present_points"][..., None], inputs["points"], torch.nan)
        logits = torch.stack([points[..., 0], points[..., 1], points[..., 2], torch.zeros(points.shape[:2])], dim=1)
        logits = torch.where(logits.isnan(), 50.0, logits)[:, :, None]
        return {"2D": logits, "3D": -logits, "average": logits}

    rows = np.array([0, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    (store.path / "labels.npy").unlink()
    found = predicted(predict, store, rows, ("2D", "3D"))
    assert calls == [8, 2] and found.keys() == {"2D", "3D"}
    for name, sign in (("2D", 1), ("3D", -1)):
        labels, confidence = found[name]
        assert labels.dtype == np.uint8 and len(labels) == len(store.points)
        for row in range(11):
            span = slice(store.offsets[row], store.offsets[row + 1])
            if row == 1:
                assert (labels[span] == NO_LABEL).all() and not confidence[span].any()
                continue
            for point, label, chance in zip(store.points[span], labels[span], confidence[span]):
                scores = np.exp(sign * np.array([*point.tolist(), 0.0]))
                assert label == scores.argmax() and chance == pytest.approx(scores.max() / scores.sum(), rel=1e-5)
