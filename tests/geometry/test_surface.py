import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from isthmus.geometry import surface as surface_module
from isthmus.geometry.surface import cardinality, normals, spacing, surface


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def alignment(a: Tensor, b: Tensor) -> Tensor:
    """|cos| of directions, 1 where they agree up to their sign."""
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).abs()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_and_curvature_are_those_of_numpy_point_by_point(dtype):
    points = torch.randn(2, 50, 3, dtype=dtype)
    found = surface(points, 9)
    assert found.normals.dtype == dtype and found.curvature.shape == (2, 50)
    for b in range(2):
        cloud = points[b].double().numpy()
        for n, near in enumerate(cKDTree(cloud).query(cloud, k=9)[1]):
            values, vectors = np.linalg.eigh(np.cov(cloud[near].T))
            assert abs(found.normals[b, n].numpy() @ vectors[:, 0]) == pytest.approx(1, abs=1e-3)
            assert found.curvature[b, n].item() == pytest.approx(values[0] / values.sum(), abs=1e-5)


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_normals_turn_with_the_cloud_and_do_not_move_with_it(seed: int) -> None:
    points = torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turn = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
    moved = normals(points @ turn.T + 3.0, 10)
    torch.testing.assert_close(alignment(moved, normals(points, 10) @ turn.T), torch.ones(1, 40, dtype=torch.float64))


def test_a_tilted_plane_has_one_normal_and_no_curvature():
    flat = torch.cat([torch.rand(1, 200, 2), torch.zeros(1, 200, 1)], dim=-1)
    turn = torch.from_numpy(Rotation.from_euler("xyz", [0.3, 1.1, 2.0]).as_matrix()).float()
    found = surface(flat @ turn.T, 20)
    torch.testing.assert_close(alignment(found.normals, turn[:, 2].expand(1, 200, 3)), torch.ones(1, 200))
    assert found.curvature.max() < 1e-5


def test_normals_of_a_sphere_point_from_its_centre():
    points = torch.nn.functional.normalize(torch.randn(1, 4000, 3), dim=-1)
    assert alignment(normals(points, 20), points).median() > 0.99


def test_lines_and_repeated_points_have_no_normal():
    line = torch.linspace(-1, 1, 30)[:, None] * torch.tensor([0.5, 0.2, 0.8])
    places = torch.stack([line, torch.full((30, 3), 0.7), torch.rand(1, 3).expand(30, -1)])
    found = surface(places, 8)
    assert (found.normals == 0).all() and (found.curvature == 0).all()


def test_a_cloud_that_is_not_finite_says_so_and_leaves_the_others_alone():
    points = torch.randn(3, 30, 3)
    points[1, 4] = torch.nan
    found, without = surface(points, 5), surface(points[[0, 2]], 5)
    assert found.normals[1].isnan().all() and found.curvature[1].isnan().all()
    torch.testing.assert_close(found.normals[[0, 2]], without.normals)


def test_more_neighbours_than_points_are_all_points():
    points = torch.randn(2, 16, 3)
    torch.testing.assert_close(normals(points, 20), normals(points, 16))


def test_solving_in_blocks_and_autocast_change_nothing(monkeypatch):
    points = torch.randn(2, 33, 3)
    whole = surface(points, 7)
    monkeypatch.setattr(surface_module, "MAX_MATRICES", 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = surface(points, 7)
    torch.testing.assert_close(inside, whole)


def test_no_gradient_flows():
    points = torch.randn(1, 20, 3, requires_grad=True)
    assert not any(t.requires_grad for t in (*surface(points), cardinality(points, 0.5), spacing(points)))


@given(st.integers(1, 3), st.integers(1, 40), st.floats(0.05, 3.0), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_cardinality_counts_the_others_within_the_radius(batch: int, size: int, radius: float, seed: int) -> None:
    points = torch.randn(batch, size, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = cardinality(points, radius)
    assert found.dtype == torch.int64
    for b in range(batch):
        tree = cKDTree(points[b].numpy())
        assert found[b].tolist() == [len(near) - 1 for near in tree.query_ball_point(points[b].numpy(), radius)]


@pytest.mark.parametrize("limit", [1, 50, 1000])
def test_counting_in_blocks_and_autocast_change_nothing(monkeypatch, limit):
    points = torch.randn(3, 23, 3)
    whole = cardinality(points, 0.7)
    monkeypatch.setattr(surface_module, "MAX_BLOCK", limit)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cardinality(points, 0.7), whole)


def test_copies_of_a_point_are_its_neighbours():
    points = torch.tensor([[[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [5, 0, 0]]])
    assert cardinality(points, 0.1).tolist() == [[2, 2, 2, 0]]
    assert spacing(points, 3)[0].tolist() == pytest.approx([5 / 3, 5 / 3, 5 / 3, 5])


@given(st.integers(2, 30), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_spacing_is_the_mean_distance_of_the_nearest_others(size: int, k: int, seed: int) -> None:
    points = torch.randn(2, size, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = spacing(points, k)
    for b in range(2):
        distance = (points[b][:, None] - points[b][None]).norm(dim=-1).fill_diagonal_(torch.inf)
        torch.testing.assert_close(found[b], distance.sort(dim=1).values[:, : min(k, size - 1)].mean(dim=1))


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 2), (2, 0, 3)])
def test_other_shapes_are_refused(shape):
    for function in (surface, spacing, lambda points: cardinality(points, 1.0)):
        with pytest.raises(ValueError, match=r"points must be \(B, N, 3\) with at least one point"):
            function(torch.zeros(shape))


def test_bad_numbers_are_refused():
    points = torch.zeros(1, 5, 3)
    with pytest.raises(ValueError, match="radius must be greater than 0, found 0"):
        cardinality(points, 0)
    with pytest.raises(ValueError, match="k must be between 1"):
        surface(points, 0)
    with pytest.raises(ValueError, match="spacing needs at least 2 points and k at least 1, found 5 and 0"):
        spacing(points, 0)
