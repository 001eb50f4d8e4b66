import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.transform import Rotation

from isthmus.gates.saliency import saliency, skewness


def clouds(seed: int, batch: int = 3, size: int = 33) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, size, 3, generator=generator), torch.randn(batch, size, 3, generator=generator)


def slow_saliency(points: np.ndarray, gradient: np.ndarray, alpha: float) -> np.ndarray:
    """Eq. 4 as it is written: the derivative by the radius, times r^(1 + alpha), point by point."""
    centre = np.median(points, axis=0)
    result = []
    for point, slope in zip(points, gradient):
        offset = point - centre
        radius = math.sqrt(sum(x * x for x in offset))
        by_radius = sum(s * x / radius for s, x in zip(slope, offset))
        result.append(-by_radius * radius ** (1 + alpha))
    return np.array(result)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 6.0])
@pytest.mark.parametrize("size", [32, 33])
def test_saliency_is_equation_4(alpha: float, size: int) -> None:
    points, gradient = clouds(0, size=size)
    ours = saliency(points, gradient, alpha=alpha)
    for row in range(len(points)):
        expected = slow_saliency(points[row].double().numpy(), gradient[row].double().numpy(), alpha)
        np.testing.assert_allclose(ours[row].numpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_point_at_the_centre_has_saliency_zero_not_nan() -> None:
    points = torch.tensor([[[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]]])
    assert saliency(points, torch.ones_like(points))[0].tolist() == [1.0, 0.0, -1.0]


def test_centres_differ_as_documented() -> None:
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 0, 0]]])
    gradient = torch.zeros_like(points)
    gradient[..., 0] = 1.0
    # alpha -> 0 leaves -(x - centre)
    centre = {
        c: saliency(points, gradient, alpha=1e-9, centre=c)[0, 0].item() for c in ("median", "lower_median", "mean")
    }
    assert centre == pytest.approx({"median": 1.5, "lower_median": 1.0, "mean": 3.0}, rel=1e-5)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_skewness_is_scipys(seed: int) -> None:
    values = torch.randn(4, 50, generator=torch.Generator().manual_seed(seed)).exp()
    np.testing.assert_allclose(
        skewness(values).numpy(), stats.skew(values.double().numpy(), axis=1), rtol=1e-3, atol=1e-4
    )


@given(st.integers(0, 10_000), st.sampled_from([1e-30, 1e-12, 1e-3, 1e3, 1e15, 1e30]))
@settings(max_examples=40, deadline=None)
def test_skewness_does_not_depend_on_the_scale_of_the_loss(seed: int, scale: float) -> None:
    points, gradient = clouds(seed)
    torch.testing.assert_close(
        skewness(saliency(points, gradient * scale)), skewness(saliency(points, gradient)), rtol=1e-3, atol=1e-4
    )


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_order_of_points_does_not_matter(seed: int) -> None:
    points, gradient = clouds(seed)
    order = torch.randperm(points.shape[1], generator=torch.Generator().manual_seed(seed + 1))
    torch.testing.assert_close(saliency(points[:, order], gradient[:, order]), saliency(points, gradient)[:, order])
    torch.testing.assert_close(
        skewness(saliency(points[:, order], gradient[:, order])),
        skewness(saliency(points, gradient)),
        rtol=1e-4,
        atol=1e-5,
    )


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_rotating_cloud_and_gradient_about_the_centroid_changes_nothing(seed: int) -> None:
    points, gradient = clouds(seed)
    rotation = torch.from_numpy(Rotation.random(rng=seed).as_matrix()).float()
    torch.testing.assert_close(
        saliency(points @ rotation.T, gradient @ rotation.T, centre="mean"),
        saliency(points, gradient, centre="mean"),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_sign_flip_of_the_gradient_negates_skewness() -> None:
    points, gradient = clouds(5)
    torch.testing.assert_close(skewness(saliency(points, -gradient)), -skewness(saliency(points, gradient)))


def test_only_valid_points_count() -> None:
    values = torch.tensor([[1.0, 2.0, 10.0, torch.nan, 1e9]])
    valid = torch.tensor([[True, True, True, False, False]])
    assert skewness(values, valid).item() == pytest.approx(stats.skew([1.0, 2.0, 10.0]), rel=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-20, 3.7e8])
def test_no_spread_is_skewness_zero(value: float) -> None:
    assert skewness(torch.full((1, 100), value)).item() == 0.0


@pytest.mark.parametrize("broken", [torch.inf, -torch.inf, torch.nan])
def test_a_gradient_that_overflowed_gives_no_score(broken: float) -> None:
    points, gradient = clouds(1)
    gradient[1, 7, 2] = broken
    scores = skewness(saliency(points, gradient))
    assert scores.isnan().tolist() == [False, True, False]


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(B, N, 3\).*\(2, 5, 3\) and \(2, 4, 3\)"):
        saliency(torch.zeros(2, 5, 3), torch.zeros(2, 4, 3))
