import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from torch import Tensor

from isthmus.geometry import knn as knn_module
from isthmus.geometry.knn import knn, nearest


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def distances_to(points: Tensor, neighbours: Tensor) -> Tensor:
    rows = torch.arange(len(points))[:, None, None]
    return (points[rows, neighbours] - points[:, :, None]).norm(dim=-1)


def sorted_distances(points: Tensor) -> Tensor:
    return (points[:, :, None] - points[:, None]).norm(dim=-1).sort(dim=-1).values


@pytest.mark.parametrize("channels", [2, 3, 17])
def test_neighbours_are_the_k_smallest_distances_in_order(channels):
    points = torch.randn(3, 40, channels, dtype=torch.float64)
    found = knn(points, 7)
    assert found.shape == (3, 40, 7) and found.dtype == torch.int64
    torch.testing.assert_close(distances_to(points, found), sorted_distances(points)[..., :7])


def test_trees_and_matrix_product_agree_where_nothing_ties(monkeypatch):
    points = torch.randn(4, 100, 3)
    by_tree = knn(points, 20)
    monkeypatch.setattr(knn_module, "_trees_pay", lambda *clouds: False)
    assert torch.equal(by_tree, knn(points, 20))


@pytest.mark.parametrize("limit", [1, 50, 10**6])
def test_blocks_do_not_change_the_answer(monkeypatch, limit):
    points = torch.randn(3, 23, 5)
    whole = knn(points, 4)
    monkeypatch.setattr(knn_module, "MAX_BLOCK", limit)
    assert torch.equal(whole, knn(points, 4))


def test_matrix_product_keeps_its_digits_far_from_the_origin(monkeypatch):
    monkeypatch.setattr(knn_module, "_trees_pay", lambda *clouds: False)
    near = torch.randn(1, 50, 3).mul(1024).round().div(1024)  # exact in float32 after the shift
    assert torch.equal(knn(near, 5), knn(near + 4096, 5))


def test_autocast_does_not_round_distances():
    points = torch.randn(2, 60, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = knn(points, 5)
    assert torch.equal(inside, knn(points, 5))


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 30), seed=st.integers(0, 10**6), data=st.data())
def test_knn_follows_a_permutation_of_the_points(size, seed, data):
    k = data.draw(st.integers(1, size))
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(1, size, 3, generator=generator)
    order = torch.randperm(size, generator=generator)
    assert torch.equal(order[knn(points[:, order], k)[0]], knn(points, k)[0, order])


def test_a_point_is_its_own_first_neighbour():
    points = torch.randn(2, 30, 3)
    assert torch.equal(knn(points, 3)[..., 0], torch.arange(30).expand(2, -1))


@pytest.mark.parametrize("k", [0, 6])
def test_impossible_k_is_refused(k):
    with pytest.raises(ValueError, match=f"between 1 and the 5 points .* found {k}"):
        knn(torch.zeros(1, 5, 3), k)


def test_not_finite_points_do_not_crash():
    points = torch.randn(1, 9, 3)
    points[0, 4] = torch.nan
    assert knn(points, 3).max() < 9
    assert nearest(points, points).max() < 9


@pytest.mark.parametrize("trees", [True, False])
def test_nearest_finds_the_nearest_point_offered(monkeypatch, trees):
    monkeypatch.setattr(knn_module, "_trees_pay", lambda *clouds: trees)
    query, reference = torch.randn(3, 20, 3), torch.randn(3, 15, 3)
    mask = torch.rand(3, 15) < 0.5
    mask[:, 3] = True
    found = nearest(query, reference, mask)
    for i in range(3):
        offered = np.flatnonzero(mask[i].numpy())
        expected = offered[cKDTree(reference[i].numpy()[offered]).query(query[i].numpy())[1]]
        assert found[i].tolist() == expected.tolist()


@pytest.mark.parametrize("trees", [True, False])
def test_nearest_in_an_empty_mask_is_index_zero(monkeypatch, trees):
    monkeypatch.setattr(knn_module, "_trees_pay", lambda *clouds: trees)
    mask = torch.zeros(1, 5, dtype=torch.bool)
    assert nearest(torch.randn(1, 4, 3), torch.randn(1, 5, 3), mask).tolist() == [[0, 0, 0, 0]]


def test_nearest_names_the_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="reference_mask must be bool"):
        nearest(torch.zeros(1, 4, 3), torch.zeros(1, 5, 3), torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 clouds, reference 1"):
        nearest(torch.zeros(2, 4, 3), torch.zeros(1, 5, 3))
    with pytest.raises(ValueError, match="no points"):
        nearest(torch.zeros(1, 4, 3), torch.zeros(1, 0, 3))
