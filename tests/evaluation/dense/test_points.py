import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from isthmus.evaluation.dense.gallery import Pick, _block
from isthmus.evaluation.dense.pictures import Look, has_points, label_values, pixel_values
from isthmus.evaluation.dense.points import SIDES, point_colours, with_points
from isthmus.evaluation.dense.preview import Panel, preview
from isthmus.tasks.build_dense import dense_task

NAMES = ("left_eye", "right_eye", "chin")


def opened(address: str) -> np.ndarray:
    """The picture that an address holds. Shape: ``(H, W, 3)``."""
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_colours_say_the_side_of_the_person() -> None:
    np.testing.assert_array_equal(point_colours(NAMES), list(SIDES.values()))


def test_points_are_where_their_shares_say() -> None:
    grey = np.full((40, 80, 3), 100, dtype=np.uint8)
    points = np.array([[0.25, 0.5, 0], [0.75, 0.25, 0], [0.5, 0.875, 0]])
    drawn = with_points(grey, points, NAMES)
    for (u, v, _), colour in zip(points, SIDES.values()):
        np.testing.assert_array_equal(drawn[int(40 * v), int(80 * u)], colour)
    changed = (drawn != grey).any(axis=2)
    assert changed.sum() < 3 * 64 and not changed[:, :15].any()
    # The middle of a disc is its point, whichever the size.
    rows, columns = np.nonzero((with_points(grey, points[:1], NAMES[:1]) != grey).any(axis=2))
    assert columns.mean() + 0.5 == pytest.approx(20, abs=0.5) and rows.mean() + 0.5 == pytest.approx(20, abs=0.5)


def test_points_without_a_label_are_not_drawn() -> None:
    grey = np.full((30, 30, 3), 100, dtype=np.uint8)
    points = np.array([[0.5, 0.5, 0], [np.nan] * 3, [0.2, 0.2, 0]])
    drawn = with_points(grey, points, NAMES, np.array([True, True, False]))
    np.testing.assert_array_equal(drawn, with_points(grey, points[:1], NAMES[:1]))
    np.testing.assert_array_equal(with_points(grey, points, NAMES, np.zeros(3, dtype=bool)), grey)


class TestPictures:
    task = dense_task("keypoints", NAMES)

    def test_only_keypoints_are_points(self) -> None:
        assert has_points(self.task)
        assert not has_points(dense_task("segmentation", NAMES)) and not has_points(dense_task("depth"))

    def test_values_are_the_points_themselves(self) -> None:
        points = torch.rand(2, 3, 3)
        for values in (pixel_values(self.task, points), label_values(self.task, points)):
            np.testing.assert_array_equal(values, points.numpy())

    def test_gallery_draws_truth_and_prediction_onto_the_image(self) -> None:
        image = np.full((24, 32, 3), 90, dtype=np.uint8)
        truth = np.array([[[0.2, 0.3, 0], [0.8, 0.3, 0], [0.5, 0.9, 0]]], dtype=np.float32)
        valid, predicted = np.array([[True, True, False]]), truth + 0.05
        scores = np.array([[0.05]])
        block = _block(self.task, ["a"], [Pick(0, "")], [image], truth, valid, [predicted], scores)
        assert [name for name, _ in block.classes] == list(SIDES) and not block.bars
        row = block.rows[0]
        assert row.errors == [None] and row.truth.caption == ""
        prediction = row.predictions[0]
        assert prediction is not None and prediction.caption.startswith("NME 5.0")
        shown = opened(row.truth.picture)
        assert shown.shape == (120, 160, 3)  # enlarged five times before the points are drawn
        np.testing.assert_allclose(shown[36, 32], SIDES["person's left"], atol=12)
        np.testing.assert_allclose(shown[108, 80], (90, 90, 90), atol=12)  # not labelled
        np.testing.assert_allclose(opened(prediction.picture)[42, 40], SIDES["person's left"], atol=12)

    def test_preview_has_the_points_and_what_their_colours_mean(self) -> None:
        image = np.full((60, 60, 3), 90, dtype=np.uint8)
        points = np.array([[0.25, 0.5, 0], [0.75, 0.5, 0], [0.5, 0.9, 0]], dtype=np.float32)
        sheet = preview(image, [Panel(Look.of(self.task, points), points)])
        for colour in list(SIDES.values())[:2]:
            assert (sheet == colour).all(axis=2).sum() > 150  # in the picture and in the key
