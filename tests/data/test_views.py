import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import uniform_filter

from isthmus.data.randomness import SampleRandom
from isthmus.data.views import StrongView, View, WeakView, elastically_distorted, jittered, occluded


def random(*ids: int, step: int = 0) -> SampleRandom:
    return SampleRandom(ids, seed=0, stage=0, step=step, purpose="view")


def clouds(count: int, points: int = 50) -> torch.Tensor:
    return torch.rand(count, points, 3, generator=torch.Generator().manual_seed(points)) * 1.4 - 0.7


VIEWS: list[View] = [WeakView(), StrongView(), StrongView(rotate=True, occlusion=0.3), StrongView(elastic=())]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_sample_does_not_depend_on_its_neighbours(view: View) -> None:
    points = clouds(3)
    together = view(points, random(7, 3, 11))
    for row, sample in enumerate((7, 3, 11)):
        torch.testing.assert_close(view(points[row : row + 1], random(sample))[0], together[row])
    assert not torch.allclose(view(points, random(7, 3, 11, step=1)), together)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("count", "size"), [(1, 16), (2, 33)])
def test_a_view_keeps_the_shape_of_any_cloud_and_its_input(view: View, count: int, size: int) -> None:
    points = clouds(count, size)
    points[:, 5:] = points[:, :1]  # repeated points
    before = points.clone()
    seen = view(points, random(*range(count)))
    assert seen.shape == points.shape and seen.dtype == points.dtype and seen.isfinite().all()
    assert torch.equal(points, before)


def test_jitter_is_clipped_noise() -> None:
    noise = jittered(torch.zeros(1, 4000, 3), random(0), 0.01, 0.015)
    assert noise.abs().max() == pytest.approx(0.015) and (noise.abs() >= 0.015).float().mean() < 0.2
    assert jittered(torch.zeros(1, 4000, 3), random(0), 0.01, 1.0).std() == pytest.approx(0.01, rel=0.05)
    points = clouds(1)
    assert jittered(points, random(0), 0.0, 0.05) is points


def reference_distortion(points: np.ndarray, noise: np.ndarray, granularity: float, magnitude: float) -> np.ndarray:
    """A slow form: box filters along each axis, scipy's interpolation, border values beyond the grid."""
    for _ in range(2):
        noise = np.stack([uniform_filter(each, 3, mode="constant")[1:-1, 1:-1, 1:-1] for each in noise])
    nodes = (np.arange(noise.shape[1]) - (noise.shape[1] - 1) / 2) * granularity
    inside = points.clip(nodes[0], nodes[-1])
    moved = [RegularGridInterpolator((nodes,) * 3, each)(inside) for each in noise]
    return points + magnitude * np.stack(moved, axis=-1)


@pytest.mark.parametrize(("granularity", "magnitude", "nodes"), [(0.2, 0.4, 11), (0.8, 1.6, 4), (3.0, 1.0, 2)])
def test_elastic_distortion_is_smoothed_noise_between_nodes(granularity: float, magnitude: float, nodes: int) -> None:
    points = torch.cat([clouds(2, 30), torch.tensor([[[3.0, -2.0, 0.1]]] * 2)], dim=1)  # and one beyond the grid
    noise = random(4, 9).normal(3, nodes + 4, nodes + 4, nodes + 4).double().numpy()
    found = elastically_distorted(points, random(4, 9), granularity, magnitude)
    for row in range(2):
        expected = reference_distortion(points[row].double().numpy(), noise[row], granularity, magnitude)
        np.testing.assert_allclose(found[row].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_elastic_distortion_moves_neighbours_alike_and_by_its_magnitude() -> None:
    points = clouds(40, 64)
    close = points + 1e-3
    moved = elastically_distorted(points, random(*range(40)), 0.8, 1.6) - points
    assert (elastically_distorted(close, random(*range(40)), 0.8, 1.6) - close - moved).abs().max() < 5e-3
    assert 0.7 * 1.6 / 8.8 < moved.std() < 1.6 / 8.8  # between nodes the interpolation smooths further


def test_each_part_of_the_strong_view_can_be_asked_for_alone() -> None:
    points = clouds(200, 16)
    nothing = StrongView(elastic=(), scale=(1.0, 1.0), jitter=0.0)
    ids = range(200)
    assert torch.equal(nothing(points, random(*ids)), points)
    turned = StrongView(rotate=True, elastic=(), scale=(1.0, 1.0), jitter=0.0)(points, random(*ids))
    torch.testing.assert_close(turned[..., 2], points[..., 2])
    torch.testing.assert_close(turned.norm(dim=-1), points.norm(dim=-1))
    angle = torch.atan2(turned[:, 0, 1], turned[:, 0, 0]) - torch.atan2(points[:, 0, 1], points[:, 0, 0])
    assert angle.remainder(2 * math.pi).histc(4, 0, 2 * math.pi).min() > 25
    factor = (StrongView(elastic=(), jitter=0.0)(points, random(*ids)) / points)[:, 0, 0]
    assert 0.7 <= factor.min() < 0.75 and 1.45 < factor.max() <= 1.5
    distorted = StrongView(elastic_probability=0.5, scale=(1.0, 1.0), jitter=0.0)(points, random(*ids))
    untouched = (distorted == points).all(dim=(1, 2)).float().mean()
    assert 0.35 < untouched < 0.65


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(16, 60), st.floats(0.0, 0.95), st.booleans())
def test_occlusion_keeps_what_lies_before_the_plane(count: int, size: int, share: float, repeated: bool) -> None:
    points = clouds(count, size)
    if repeated:
        points[:, size // 2 :] = points[:, :1]
    kept = size - round(share * size)
    seen = occluded(points, random(*range(count)), share)
    direction = random(*range(count)).normal(1, 3)
    for row in range(count):
        along = (points[row] * direction[row]).sum(dim=-1)
        stays = set(along.argsort(stable=True)[:kept].tolist())
        here = {tuple(points[row, index].tolist()) for index in stays}
        for index in range(size):
            if index in stays:
                assert torch.equal(seen[row, index], points[row, index])
            else:
                assert tuple(seen[row, index].tolist()) in here


def test_a_cut_off_row_repeats_any_of_the_points_that_stay() -> None:
    points = torch.arange(100.0).reshape(1, 100, 1).repeat(1, 1, 3)
    repeats = [occluded(points, random(each), 0.5)[0, :, 0].unique(return_counts=True)[1] for each in range(20)]
    assert all(len(counts) == 50 for counts in repeats)
    assert torch.cat(repeats).max() <= 8  # 50 draws from 50: no point is drawn very often


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_cutting_off_everything_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="expected a share in"):
        occluded(clouds(1), random(0), share)


def test_a_grid_without_spacing_is_refused() -> None:
    with pytest.raises(ValueError, match="granularity must be greater than 0, found 0"):
        elastically_distorted(clouds(1), random(0), 0.0, 1.0)
