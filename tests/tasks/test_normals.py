import math

import numpy as np
import pytest
import torch
from dense_task_tester import DenseTaskTester, example
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.tasks.normals import Normals

TASK = Normals()


def tilted(degrees: list[float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions tilted against the truth by known angles, one pixel each, in one image."""
    radians = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    output = torch.stack([radians.sin(), torch.zeros_like(radians), radians.cos()])[None, :, None]
    label = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, 1, len(degrees))
    return output, label, torch.ones(1, 1, len(degrees), dtype=torch.bool)


class TestNormals(DenseTaskTester):
    task = TASK


def test_loss_is_one_minus_the_mean_cosine():
    output, label, valid = example(TASK, batch=3)
    for sample, loss in enumerate(TASK.loss(output, label, valid).tolist()):
        cosines = []
        for i, j in valid[sample].nonzero().tolist():
            a, b = output[sample, :, i, j].double().numpy(), label[sample, :, i, j].double().numpy()
            cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert loss == pytest.approx(1 - np.mean(cosines), rel=1e-5)


def test_lengths_of_outputs_and_labels_do_not_matter():
    output, label, valid = example(TASK)
    stretched, shrunk = output * 7.0, label * 0.6
    torch.testing.assert_close(TASK.loss(stretched, shrunk, valid), TASK.loss(output, label, valid))
    scores, others = (
        TASK.scores(TASK.statistics(a, b, valid).sum(dim=0)) for a, b in ((output, label), (stretched, shrunk))
    )
    assert {name: float(v) for name, v in scores.items()} == pytest.approx({n: float(v) for n, v in others.items()})


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-6, 1.0, 1e15])
def test_the_gradient_is_finite_for_vectors_of_any_length(length):
    output = torch.zeros(1, 3, 2, 2)
    output[:, 0] = length
    output.requires_grad_()
    label = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, 2, 2)
    TASK.loss(output, label).sum().backward()
    assert output.grad.isfinite().all() and output.grad.abs().max() <= 1e4


def test_scores_of_known_angles():
    angles = [0.0, 5.0, 11.0, 12.0, 22.0, 25.0, 29.0, 60.0, 180.0]
    scores = {name: float(value) for name, value in TASK.scores(TASK.statistics(*tilted(angles))[0]).items()}
    assert scores["mean_error"] == pytest.approx(np.mean(angles), abs=1e-9)
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(angles))), abs=1e-9)
    assert scores["rmse"] != pytest.approx(scores["mean_error"])
    assert scores["median_error"] == pytest.approx(22.0, abs=0.1)
    assert [scores[f"within_{limit}"] for limit in ("11.25", "22.5", "30")] == pytest.approx([3 / 9, 5 / 9, 7 / 9])


@pytest.mark.parametrize("angle", [0.0, 1e-5, 1e-3, 179.999, 180.0])
def test_angles_are_exact_where_the_arc_cosine_is_not(angle):
    assert float(TASK.scores(TASK.statistics(*tilted([angle]))[0])["mean_error"]) == pytest.approx(angle, abs=1e-9)


def test_a_prediction_of_zero_is_not_perfect():
    output, label, valid = tilted([0.0, 0.0])
    scores = TASK.scores(TASK.statistics(output * 0, label, valid)[0])
    assert float(scores["mean_error"]) == 90.0 and float(scores["within_30"]) == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 179.99), min_size=1, max_size=40), st.integers(0, 40))
def test_the_median_is_as_exact_as_a_bin_and_sums_over_any_split(angles, cut):
    output, label, valid = tilted(angles)
    whole = TASK.statistics(output, label, valid)[0]
    cut = min(cut, len(angles))
    parts = sum(
        TASK.statistics(output[..., s], label[..., s], valid[..., s])[0] for s in (slice(cut), slice(cut, None))
    )
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-9)
    lower_median = sorted(angles)[(len(angles) - 1) // 2]
    assert float(TASK.scores(whole)["median_error"]) == pytest.approx(lower_median, abs=0.1 + 1e-9)


def test_the_median_of_a_data_set_is_that_of_all_its_pixels():
    generator = np.random.default_rng(0)
    images = [np.abs(generator.normal(mean, 8, size=count)) for mean, count in ((5, 900), (40, 30), (90, 500))]
    total = sum(TASK.statistics(*tilted(list(angles)))[0] for angles in images)
    everything = np.concatenate(images)
    scores = {name: float(value) for name, value in TASK.scores(total).items()}
    assert scores["median_error"] == pytest.approx(np.median(everything), abs=0.1)
    assert abs(scores["median_error"] - np.mean([np.median(angles) for angles in images])) > 10
    assert scores["rmse"] == pytest.approx(np.sqrt(np.square(everything).mean()), rel=1e-9)
    assert scores["within_30"] == pytest.approx((everything < 30).mean())


def test_statistics_kept_with_wider_bins_are_understood():
    sums = torch.tensor([30.0, 350.0, 1, 3, 3, 3], dtype=torch.float64)
    histogram = torch.zeros(720, dtype=torch.float64)
    histogram[[20, 40, 60]] = 1.0  # 5, 10 and 15 degrees in bins of 0.25
    assert float(TASK.scores(torch.cat([sums, histogram]))["median_error"]) == pytest.approx(10.125)


def test_maps_are_shifted_unit_vectors_and_a_half_where_there_is_no_label():
    output = torch.tensor([2.0, 0.0, 0.0])[None, :, None, None]
    assert TASK.prediction_map(output).flatten().tolist() == [1.0, 0.5, 0.5]
    label, valid = torch.tensor([[0.0, 9.0], [-1.0, 9.0], [0.0, 9.0]])[None, :, None], torch.tensor([[[True, False]]])
    assert TASK.label_map(label, valid)[0, :, 0].T.tolist() == [[0.5, 0.0, 0.5], [0.5, 0.5, 0.5]]
