import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretext_tester import PretextTester, draws, small_encoder, some_clouds
from scipy.spatial import cKDTree
from torch import Tensor, nn

from isthmus.models.pointnet import PointNet
from isthmus.models.pretext_heads import QueryHead
from isthmus.pretexts.implicit_distance import ImplicitDistance, unsigned_distance


def even_sphere(size: int) -> Tensor:
    """Evenly spread points of the unit sphere, along a spiral."""
    step = torch.arange(size, dtype=torch.float64)
    height, angle = 1 - (2 * step + 1) / size, step * torch.pi * (3 - 5**0.5)
    radius = (1 - height**2).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1)[None].float()


class Sphere(nn.Module):
    """A decoder that knows the unit sphere."""

    def forward(self, pooled: Tensor, places: Tensor) -> Tensor:
        return (places.norm(dim=-1) - 1).abs() + 0 * pooled.sum()


class TestImplicitDistance(PretextTester):
    def build(self, encoder: PointNet, **options: object) -> ImplicitDistance:
        options = {"queries": 32, **options}
        return ImplicitDistance(QueryHead(encoder.pooled_channels, width=0.125), **options)  # type: ignore[arg-type]

    def test_the_loss_is_the_mean_absolute_error_at_the_places_drawn(self):
        encoder, task = self.pair(queries=50, neighbours=2, widest=5)
        points = some_clouds()
        places = draws().uniform(50, 3) * 2 - 1
        target = unsigned_distance(points, places, neighbours=2, widest=5)
        expected = (task.head(encoder(points).pooled, places) - target).abs().mean(1)
        torch.testing.assert_close(task.loss(encoder, points, draws()), expected)

    def test_places_fill_the_cube(self):
        places = []

        class Record(nn.Module):
            def forward(self, pooled: Tensor, where: Tensor) -> Tensor:
                places.append(where)
                return where.sum(-1)

        ImplicitDistance(Record()).loss(small_encoder().eval(), some_clouds(), draws())  # type: ignore[arg-type]
        assert places[0].shape == (3, 2048, 3)
        assert ((places[0] >= -1) & (places[0] <= 1)).all()
        octants = (places[0] > 0).long() @ torch.tensor([4, 2, 1])
        assert (torch.bincount(octants[0], minlength=8) > 180).all()  # 256 are expected


@given(st.integers(0, 500), st.integers(4, 50), st.integers(1, 3), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_targets_are_the_definition(seed: int, size: int, neighbours: int, widest: int) -> None:
    points = some_clouds(2, size, seed)
    places = torch.rand(2, 9, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    found = unsigned_distance(points, places, neighbours=neighbours, widest=widest)
    for b in range(2):
        tree = cKDTree(points[b].numpy())
        local = tree.query(points[b].numpy(), k=neighbours + 1)[0][:, 1:].mean(1)
        gap = np.sort(local)[::-1][:widest].mean()
        expected = np.clip(tree.query(places[b].numpy())[0] - gap / 2, 0, None)
        np.testing.assert_allclose(found[b].numpy(), expected, atol=1e-5)


def test_a_dense_sphere_gives_the_distance_from_the_sphere() -> None:
    places = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    truth = (places.norm(dim=-1) - 1).abs()
    assert (unsigned_distance(even_sphere(20_000), places) - truth).abs().max() < 0.02  # points are 0.025 apart


def test_who_knows_the_surface_pays_no_more_than_half_a_gap() -> None:
    task = ImplicitDistance(Sphere())  # type: ignore[arg-type]
    assert task.loss(small_encoder().eval(), even_sphere(1024), draws((0,))).item() < 0.11 / 2


def test_a_place_on_a_point_is_at_distance_zero() -> None:
    points = some_clouds()
    assert (unsigned_distance(points, points) == 0).all()


@pytest.mark.parametrize("size", [2, 16])
def test_a_cloud_that_repeats_one_point_has_no_gaps(size: int) -> None:
    points = torch.full((1, size, 3), 0.5)
    distance = unsigned_distance(points, torch.tensor([[[0.5, 0.5, -0.5]]]))
    torch.testing.assert_close(distance, torch.tensor([[1.0]]))
