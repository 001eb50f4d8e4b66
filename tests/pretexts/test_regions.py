import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.randomness import Progress, SampleRandom
from isthmus.pretexts.regions import ball_region, feature_region, sampled_region, voxel_region


def random(step: int = 0, ids: int = 4) -> SampleRandom:
    return Progress(0, 0, step, 10).random("region", list(range(ids)))


def ball(seed: int, batch: int = 4, size: int = 200) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(batch, size, 3, generator=generator)
    return points / points.norm(dim=-1).amax(1)[:, None, None]


@given(st.integers(0, 1000), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_a_voxel_region_is_all_points_of_one_voxel_that_has_enough(seed: int, least: int) -> None:
    points = ball(seed)
    mask, centre = voxel_region(points, random(seed), min_points=least)
    for b in range(len(points)):
        if not mask[b].any():
            continue
        # independent reading: membership by distance to the centre in the maximum norm
        inside = (points[b] - centre[b]).abs().amax(-1) < 1 / 3 - 1e-6
        assert mask[b].sum() >= least
        assert not (inside & ~mask[b]).any()
        assert ((points[b] - centre[b]).abs().amax(-1)[mask[b]] < 1 / 3 + 1e-6).all()


def test_no_voxel_with_enough_points_gives_an_empty_mask() -> None:
    assert not voxel_region(ball(0, size=50), random(), min_points=51).mask.any()


def test_points_on_the_surface_of_the_cube_belong_to_the_outermost_voxel() -> None:
    points = torch.full((1, 64, 3), 1.0)
    mask, centre = voxel_region(points, random(ids=1), min_points=64)
    assert mask.all() and torch.allclose(centre, torch.tensor(2 / 3))


def test_voxel_order_is_per_sample_or_per_batch() -> None:
    points = (torch.rand(1, 3000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1).expand(16, -1, -1)
    own = voxel_region(points, random(ids=16), min_points=1).centre
    shared = voxel_region(points, random(ids=16), min_points=1, order="batch").centre
    assert len({tuple(c) for c in own.tolist()}) > 4 and len({tuple(c) for c in shared.tolist()}) == 1


def test_a_ball_region_is_every_point_within_its_radius() -> None:
    points = ball(3)
    mask, centre = ball_region(points, random(), radius=0.5, min_points=5)
    assert mask.any(1).all()
    assert torch.equal(mask, (points - centre[:, None]).norm(dim=-1) <= 0.5)


def test_a_feature_region_is_compact_in_feature_space() -> None:
    points = ball(4)
    features = torch.stack([points[..., 2] * 10, torch.zeros_like(points[..., 2])], dim=-1)
    mask, _ = feature_region(points, features, random(), share=0.1)
    assert mask.sum(1).tolist() == [20] * 4
    for b in range(4):
        heights = points[b, :, 2]
        low, high = heights[mask[b]].min(), heights[mask[b]].max()
        assert ((heights >= low) & (heights <= high)).sum() == 20  # consecutive in the only feature


@pytest.mark.parametrize("protocol", ["split", "gradient", "lambertian"])
def test_sampled_regions_have_the_share_and_go_to_their_mean(protocol: str) -> None:
    points = ball(5)
    mask, centre = sampled_region(points, random(), protocol=protocol, share=0.1)
    assert mask.sum(1).tolist() == [20] * 4
    for b in range(4):
        torch.testing.assert_close(centre[b], points[b][mask[b]].mean(0))


def test_a_split_takes_one_side_of_a_vertical_plane() -> None:
    _, centre = sampled_region(ball(6, size=2000), random(), protocol="split", share=0.1)
    assert (centre[:, :2].norm(dim=1) > 0.1).all()  # far from the axis, where an unbiased draw would be
