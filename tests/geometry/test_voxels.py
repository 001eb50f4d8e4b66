import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.geometry.voxels import keys_of, unique_cells, voxelise


def scene(samples: int = 3, size: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(samples, size, 3, generator=generator) * 0.1
    return points, torch.rand(samples, size, generator=generator) < 0.8


def by_hand(points: Tensor, present: Tensor, size: float) -> dict[tuple[int, ...], list[tuple[int, int]]]:
    found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for sample, row in present.nonzero().tolist():
        cell = (sample, *(int(np.floor(float(c) / size)) for c in points[sample, row]))
        found.setdefault(cell, []).append((sample, row))
    return dict(sorted(found.items()))


def test_voxels_are_those_of_a_loop_over_points():
    points, present = scene()
    voxels, expected = voxelise(points, present, 0.05), by_hand(points, present, 0.05)
    assert [tuple(cell) for cell in voxels.coordinates.tolist()] == list(expected)
    assert voxels.counts.tolist() == [len(rows) for rows in expected.values()]
    grouped = voxels.points.rows.split(voxels.counts.tolist())
    assert [sorted(divmod(row, 60) for row in rows.tolist()) for rows in grouped] == [*map(sorted, expected.values())]


def test_mean_and_spread_are_those_of_a_loop_over_points():
    points, present = scene()
    features = torch.randn(3, 60, 5, dtype=torch.float64)
    features[~present] = torch.nan
    voxels, expected = voxelise(points, present, 0.05), by_hand(points, present, 0.05)
    mean = voxels.mean(features)
    slow = torch.stack([torch.stack([features[at] for at in rows]).mean(dim=0) for rows in expected.values()])
    torch.testing.assert_close(mean, slow)
    spread = voxels.spread(mean)
    for number, rows in enumerate(expected.values()):
        assert all(torch.equal(spread[at], mean[number]) for at in rows)
    assert not spread[~present].any()


def test_gradients_of_mean_and_spread():
    points, present = scene(2, 12)
    voxels = voxelise(points, present, 0.1)
    features = torch.randn(2, 12, 3, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(len(voxels.counts), 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(voxels.mean, features)
    assert torch.autograd.gradcheck(voxels.spread, rows)


def test_a_point_just_below_a_border_is_in_the_lower_voxel_though_float32_rounds_up():
    near = torch.arange(1, 400, dtype=torch.float64).mul(0.05).float()
    exact = (near.double() / 0.05).floor()
    rounded = (near / 0.05).floor()
    near, exact = near[rounded > exact], exact[rounded > exact].long()
    assert len(near) > 10
    points = near[None, :, None].expand(1, -1, 3)
    found = voxelise(points, torch.ones(points.shape[:2], dtype=torch.bool), 0.05).coordinates
    assert found[:, 1].tolist() == exact.tolist()


def test_a_point_on_a_border_is_in_the_upper_voxel():
    points = torch.tensor([[[0.5, -0.5, 0.0]]])
    assert voxelise(points, torch.ones(1, 1, dtype=torch.bool), 0.25).coordinates.tolist() == [[0, 2, -2, 0]]


@pytest.mark.parametrize("shape", [(2, 7), (2, 0), (0, 7)])
def test_no_point_at_all_gives_no_voxel(shape):
    voxels = voxelise(torch.full((*shape, 3), torch.nan), torch.zeros(shape, dtype=torch.bool), 0.05)
    assert voxels.coordinates.shape == (0, 4)
    assert voxels.mean(torch.ones(*shape, 2)).shape == (0, 2)
    assert torch.equal(voxels.spread(torch.empty(0, 2)), torch.zeros(*shape, 2))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_a_present_point_that_is_nowhere_is_an_error(value):
    points, present = scene()
    points[0, present[0].nonzero()[0]] = value
    with pytest.raises(ValueError, match="finite"):
        voxelise(points, present, 0.05)


def test_bad_arguments_are_named():
    points, present = scene()
    with pytest.raises(ValueError, match="present must be bool"):
        voxelise(points, present.float(), 0.05)
    with pytest.raises(ValueError, match="present must be bool"):
        voxelise(points, present[:1], 0.05)
    with pytest.raises(ValueError, match=r"points must be floating \(B, N, 3\)"):
        voxelise(points[0], present[0], 0.05)
    with pytest.raises(ValueError, match="voxel_size"):
        voxelise(points, present, 0.0)


CELL = st.tuples(st.integers(0, 3), *[st.one_of(st.integers(-3, 3), st.integers(-(2**60), 2**60))] * 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(CELL, min_size=1, max_size=40))
def test_cells_however_far_apart_are_told_apart_and_sorted(cells):
    rows = torch.tensor(cells)
    found, order, offsets = unique_cells(rows)
    expected, counts = np.unique(rows.numpy(), axis=0, return_counts=True)
    assert found.numpy().tolist() == expected.tolist()
    assert offsets.diff().tolist() == counts.tolist()
    assert torch.equal(rows[order], found.repeat_interleave(offsets.diff(), dim=0))


@settings(max_examples=60, deadline=None)
@given(st.lists(CELL, min_size=1, max_size=25, unique=True), st.booleans())
def test_keys_differ_as_a_step_does_only_between_neighbours(cells, dense):
    rows = torch.tensor([(c[0], *(v % 3 for v in c[1:])) for c in cells] if dense else cells)
    keys, (step_x, step_y) = keys_of(rows)
    index = {key: cell for key, cell in zip(keys.tolist(), map(tuple, rows.tolist()), strict=True)}
    for key, (sample, x, y, z) in index.items():
        for dx, dy, dz in np.ndindex(3, 3, 3):
            step = (dx - 1) * step_x + (dy - 1) * step_y + dz - 1
            neighbour = (sample, x + dx - 1, y + dy - 1, z + dz - 1)
            assert index.get(key + step) == (neighbour if neighbour in index.values() else None)


def test_cells_that_no_key_can_tell_apart_are_an_error(monkeypatch):
    monkeypatch.setattr("isthmus.geometry.voxels.MAX_KEY", 100)
    with pytest.raises(ValueError, match="too many"):
        keys_of(torch.arange(40).view(10, 4) * 10)
