from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.geometry.kernel_maps import strided_map, submanifold_map
from isthmus.models import sparse_conv
from isthmus.models.sparse_conv import SparseConv, sparse_convolution, torch_levels

SIDE = 6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def voxels(kind: str) -> Tensor:
    every = torch.tensor(list(product((0, 1), *[range(SIDE)] * 3)))
    return every if kind == "full" else every[torch.rand(len(every)) < 0.3]


def dense(coordinates: Tensor, rows: Tensor, side: int) -> Tensor:
    grid = rows.new_zeros(2, side, side, side, rows.shape[1])
    grid[tuple(coordinates.T)] = rows
    return grid.permute(0, 4, 1, 2, 3)


def at(grid: Tensor, coordinates: Tensor) -> Tensor:
    return grid.permute(0, 2, 3, 4, 1)[tuple(coordinates.T)]


def kernel(weight: Tensor, side: int) -> Tensor:
    return weight.permute(2, 1, 0).unflatten(2, (side, side, side))


@pytest.mark.parametrize("kind", ["full", "sparse"])
@pytest.mark.parametrize("channels", [(1, 4), (5, 3), (16, 32)])
def test_submanifold_equals_dense_convolution_at_the_voxels(kind, channels):
    where = voxels(kind)
    # Weights of the size they start with, so that 1e-5 is a share of values about 1.
    features, weight = torch.randn(len(where), channels[0]), SparseConv(*channels, 27).weight.detach()
    expected = at(F.conv3d(dense(where, features, SIDE), kernel(weight, 3), padding=1), where)
    found = sparse_convolution(features, weight, submanifold_map(where))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["full", "sparse"])
def test_strided_equals_dense_convolution_of_stride_2(kind):
    where = voxels(kind)
    features, weight = torch.randn(len(where), 5), torch.randn(8, 5, 7)
    coarse, pairs = strided_map(where)
    expected = F.conv3d(dense(where, features, SIDE), kernel(weight, 2), stride=2)
    torch.testing.assert_close(sparse_convolution(features, weight, pairs), at(expected, coarse), atol=1e-5, rtol=1e-5)
    # Where nothing was written, there is nothing to write.
    assert at(dense(coarse, features.new_ones(len(coarse), 1), SIDE // 2), coarse).sum() == len(coarse)
    assert expected.abs().sum(dim=1).count_nonzero() == len(coarse)


@pytest.mark.parametrize("kind", ["full", "sparse"])
def test_inverse_equals_dense_transposed_convolution_at_the_voxels(kind):
    where = voxels(kind)
    coarse, pairs = strided_map(where)
    features, weight = torch.randn(len(coarse), 5), torch.randn(8, 5, 7)
    transposed = weight.permute(1, 2, 0).unflatten(2, (2, 2, 2))
    expected = at(F.conv_transpose3d(dense(coarse, features, SIDE // 2), transposed, stride=2), where)
    torch.testing.assert_close(sparse_convolution(features, weight, pairs.inverse()), expected, atol=1e-5, rtol=1e-5)


def maps(where: Tensor) -> dict:
    coarse, pairs = strided_map(where)
    same = submanifold_map(where)
    return {"same": (same, len(where)), "down": (pairs, len(where)), "up": (pairs.inverse(), len(coarse))}


@pytest.mark.parametrize("name", ["same", "down", "up"])
def test_gradients(name):
    where = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 2], [0, 9, 0, 0], [1, 0, 0, 0]])
    pairs, rows = maps(where)[name]
    features = torch.randn(rows, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(pairs.volume, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: sparse_convolution(x, w, pairs), (features, weight))
    assert torch.autograd.gradcheck(lambda x: sparse_convolution(x, weight.detach(), pairs), features)
    assert torch.autograd.gradcheck(lambda w: sparse_convolution(features.detach(), w, pairs), weight)


@pytest.mark.parametrize("name", ["same", "down", "up"])
def test_values_and_gradients_repeat_bit_for_bit_where_only_deterministic_algorithms_are_allowed(name):
    pairs, rows = maps(voxels("sparse"))[name]
    features, weight = torch.randn(rows, 16), torch.randn(pairs.volume, 16, 8)
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        for _ in range(2):
            own = [features.clone().requires_grad_(), weight.clone().requires_grad_()]
            value = sparse_convolution(*own, pairs)
            value.square().sum().backward()
            results.append([value.detach(), *(tensor.grad for tensor in own)])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_memory_layout_of_features_and_gradients_does_not_matter():
    where = voxels("sparse")
    pairs = submanifold_map(where)
    wide = torch.randn(len(where), 8)
    weight = torch.randn(27, 4, 4)
    expected = sparse_convolution(wide[:, ::2].contiguous(), weight, pairs)
    assert torch.equal(sparse_convolution(wide[:, ::2], weight, pairs), expected)
    grads = []
    for gradient in (torch.ones(len(where), 1).expand(-1, 4), torch.ones(len(where), 4)):
        own = wide[:, :4].clone().requires_grad_()
        sparse_convolution(own, weight, pairs).backward(gradient)
        grads.append(own.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("shape", [(8, 3, 4), (27, 4, 4), (27, 3)])
def test_a_weight_that_does_not_fit_is_named(shape):
    where = voxels("sparse")
    with pytest.raises(ValueError, match=r"weight must be \(27, 3, C_out\)"):
        sparse_convolution(torch.ones(len(where), 3), torch.ones(shape), submanifold_map(where))


def test_autocast_leaves_the_type_of_the_weight():
    where = voxels("sparse")
    features, weight, pairs = torch.randn(len(where), 4), torch.randn(27, 4, 4), submanifold_map(where)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sparse_convolution(features, weight, pairs)
    assert torch.equal(inside, sparse_convolution(features, weight, pairs))


def test_each_map_is_built_once_for_all_layers(monkeypatch):
    built = []
    for name in ("submanifold_map", "strided_map"):
        original = getattr(sparse_conv, name)
        monkeypatch.setattr(sparse_conv, name, lambda c, f=original, n=name: built.append(n) or f(c))
    levels = torch_levels(voxels("sparse"), 3)
    assert sorted(built) == ["strided_map"] * 2 + ["submanifold_map"] * 3
    assert levels[2].down is None and levels[2].up is None


def test_weights_start_with_the_variance_of_sparseconvnet():
    layer = SparseConv(64, 64, 27)
    assert layer.weight.std().item() == pytest.approx((2 / (27 * 64)) ** 0.5, rel=0.02)
    assert abs(layer.weight.mean().item()) < 1e-3
