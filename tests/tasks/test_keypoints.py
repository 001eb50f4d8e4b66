import math

import numpy as np
import pytest
import torch
from dense_task_tester import SIZE, DenseTaskTester, example
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.tasks.keypoints import Keypoints

NAMES = ("left_eye", "nose", "right_eye")
TASK = Keypoints(NAMES, sigma=1.5, depth_weight=0.5, size=SIZE)


class TestKeypoints(DenseTaskTester):
    task = TASK

    def activated(self, output: torch.Tensor) -> torch.Size:
        return torch.Size([len(output), 3, 3])


def bells(points: np.ndarray, height: int, width: int, sigma: float) -> np.ndarray:
    """Heat maps by the formula, pixel by pixel."""
    maps = np.zeros((len(points), height, width))
    for k, (u, v, _) in enumerate(points):
        for i in range(height):
            for j in range(width):
                squared = (j + 0.5 - u * width) ** 2 + (i + 0.5 - v * height) ** 2
                maps[k, i, j] = math.exp(-squared / (2 * sigma**2))
    return maps


def perfect(label: torch.Tensor, height: int, width: int, sigma: float = 1.5) -> torch.Tensor:
    """What a network would put out that knows everything."""
    heat = np.stack([bells(points, height, width, sigma) for points in label.double().numpy()])
    depth = label[..., 2, None, None].expand(*label.shape[:2], height, width)
    return torch.cat([torch.from_numpy(heat).float(), depth], dim=1)


def test_loss_equals_the_slow_form():
    output, label, valid = example(TASK)
    output[:, 3:] = torch.randn(5, 3, 1, 1)
    valid[2] = torch.tensor([True, False, True])
    found = TASK.loss(output, label, valid).tolist()
    for b in range(5):
        target, errors = bells(label[b].double().numpy(), *SIZE, 1.5), []
        for k in valid[b].nonzero()[:, 0].tolist():
            heat = np.square(output[b, k].double().numpy() - target[k]).mean()
            depth = (float(output[b, 3 + k, 0, 0]) - float(label[b, k, 2])) ** 2
            errors.append(heat + 0.5 * depth)
        assert found[b] == pytest.approx(np.mean(errors) if errors else 0, rel=1e-5)


def test_points_outside_the_map_and_maps_of_any_size_are_compared_at_pixel_centres():
    label = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.9, 0.1, 0.0]]])
    for height, width in ((12, 16), (30, 42), (1, 3)):
        assert float(TASK.loss(perfect(label, height, width), label)[0]) == pytest.approx(0, abs=1e-12)


def test_no_gradient_reaches_points_without_a_label():
    output, label, valid = example(TASK)
    valid[:, 1], valid[:, 0] = False, True
    label[:, 1] = torch.nan
    output.requires_grad_()
    TASK.loss(output, label, valid).sum().backward()
    assert output.grad[:, [1, 4]].count_nonzero() == 0
    assert output.grad[:, 0].any() and output.grad[:, 3].any() and output.grad.isfinite().all()


def test_an_output_without_depths_is_judged_by_its_heat_maps():
    output, label, valid = example(TASK)
    only = output[:, :3]
    without = Keypoints(NAMES, sigma=1.5, depth_weight=0.0)
    torch.testing.assert_close(TASK.loss(only, label, valid), without.loss(output, label, valid))
    scores = TASK.scores(TASK.statistics(only, label, valid).sum(dim=0))
    assert scores["depth_error"].isnan()
    assert scores["nme"] == TASK.scores(TASK.statistics(output, label, valid).sum(dim=0))["nme"]
    assert not TASK.activate(only)[..., 2].any()
    with pytest.raises(ValueError, match=r"expected 6 channels \(or 3 heat maps\), found 4"):
        TASK.loss(output[:, :4], label, valid)


@settings(max_examples=60, deadline=None)
@given(
    u=st.floats(0.12, 0.88), v=st.floats(0.12, 0.88), z=st.floats(-1, 1),
    height=st.integers(10, 33), width=st.integers(10, 33),
)  # fmt: skip
def test_a_point_is_found_within_a_twentieth_of_a_pixel(u, v, z, height, width):
    label = torch.tensor([[[u, v, z]] * 3])
    found = TASK.activate(perfect(label, height, width))[0, 1]
    assert abs(float(found[0]) - u) * width <= 0.05
    assert abs(float(found[1]) - v) * height <= 0.05
    assert float(found[2]) == pytest.approx(z, abs=1e-6)


def test_a_maximum_is_moved_to_the_top_of_a_parabola_and_not_on_the_border():
    heat = torch.zeros(1, 3, 4, 8)
    # Along the row (0, 1, 1/2), along the column (1/5, 1, 0): tops at 0.5 (1/2) / (3/2) = 1/6 and -0.5 (1/5) / (9/5).
    heat[0, 0, 1, 3], heat[0, 0, 1, 4], heat[0, 0, 0, 3] = 1.0, 0.5, 0.2
    heat[0, 1, 0, 7], heat[0, 1, 0, 6], heat[0, 1, 1, 7] = 1.0, 0.5, 0.5  # in a corner
    heat[0, 2] = 1.0  # flat: the first pixel, which is a corner too
    found = TASK.activate(heat)[0, :, :2] * torch.tensor([8.0, 4.0])
    torch.testing.assert_close(found, torch.tensor([[3.5 + 1 / 6, 1.5 - 1 / 18], [7.5, 0.5], [0.5, 0.5]]))
    plateau = torch.zeros(1, 3, 5, 5)
    plateau[..., 1:4, 1:4] = 2.0  # (0, 2, 2) along both: half a pixel inwards
    torch.testing.assert_close(TASK.activate(plateau)[..., :2], torch.full((1, 3, 2), 2 / 5))


def test_scores_by_hand():
    # Points at pixels (10, 10), (30, 10) and (20, 40) of 60 x 80 (height x width); the box is 20 x 30.
    pixels = torch.tensor([[10.5, 10.5], [30.5, 10.5], [20.5, 40.5]])
    label = torch.cat([pixels / torch.tensor([80.0, 60.0]), torch.tensor([[0.1], [0.0], [-0.1]])], dim=1)[None]
    moved = label.clone()
    moved[0, 0, 0] += 3 / 80
    moved[0, 0, 1] += 4 / 60
    moved[0, 2, 2] += 0.06
    output, valid = perfect(moved, 60, 80), torch.ones(1, 3, dtype=torch.bool)
    scores = TASK.scores(TASK.statistics(output, label, valid)[0])
    assert float(scores["nme"]) == pytest.approx(5 / math.sqrt(600) / 3, rel=1e-4)
    assert float(scores["depth_error"]) == pytest.approx(0.06 / 3, rel=1e-5)
    # Without the third point the box is a line: distances have no measure, depths have.
    valid[0, 2] = False
    statistics = TASK.statistics(output, label, valid)[0]
    assert statistics.tolist() == pytest.approx([0, 0, 0, 2], abs=1e-6)
    assert TASK.scores(statistics)["nme"].isnan()


def test_scores_weigh_points_not_images():
    output, label, valid = example(TASK, batch=2)
    valid[:] = torch.tensor([[True, True, True], [True, True, False]])
    each = TASK.statistics(output, label, valid)
    means = [float(TASK.scores(row)["nme"]) for row in each]
    assert float(TASK.scores(each.sum(dim=0))["nme"]) == pytest.approx((3 * means[0] + 2 * means[1]) / 5)


def test_maps_are_heat_maps_and_bells():
    output, label, valid = example(TASK)
    assert torch.equal(TASK.prediction_map(output), output[:, :3].clamp(0, 1))
    maps = TASK.label_map(label, valid)
    for b in range(5):
        expected = bells(label[b].double().numpy(), *SIZE, 1.5) * valid[b].numpy()[:, None, None]
        np.testing.assert_allclose(maps[b].numpy(), expected, atol=1e-5)
    with pytest.raises(ValueError, match="expected the size of the heat maps"):
        Keypoints(NAMES).label_map(label, valid)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"classes": ()}, "expected names"), ({"sigma": 0.0}, "more than 0"), ({"depth_weight": -1.0}, "at least 0")],
)
def test_impossible_options_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        Keypoints(**{"classes": NAMES, **options})
