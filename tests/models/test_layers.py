import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from isthmus.models.layers import MatrixHead, PointLayer, PooledPointLayer, moments, scaled


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_moments_are_the_mean_and_covariance_of_all_rows():
    rows = torch.randn(3, 50, 6).mul(torch.arange(1.0, 7)) + 1000
    found = moments(rows)
    flat = rows.double().flatten(0, 1)
    torch.testing.assert_close(found.mean, flat.mean(0), rtol=1e-7, atol=0)
    torch.testing.assert_close(found.covariance, torch.cov(flat.T, correction=0), rtol=1e-5, atol=1e-5)
    assert found.rows == 150


def pooled_pair(momentum: float | None = 0.1) -> tuple[PooledPointLayer, nn.Sequential]:
    layer = PooledPointLayer(5, 7, slope=0.2)
    layer.norm.momentum = momentum
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    twin = copy.deepcopy(layer)
    return layer.double(), nn.ModuleDict({"linear": twin.linear, "norm": twin.norm}).double()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_pooled_layer_equals_layer_then_maximum(momentum, training):
    ours, usual = pooled_pair(momentum)
    ours.train(training), usual.train(training)
    for _ in range(2):
        points = torch.randn(4, 11, 5, dtype=torch.float64)
        weight = torch.randn(4, 7, dtype=torch.float64)
        mine, theirs = points.clone().requires_grad_(), points.clone().requires_grad_()
        found = ours(mine)
        expected = F.leaky_relu(usual["norm"](usual["linear"](theirs).transpose(1, 2)), 0.2).amax(dim=2)
        torch.testing.assert_close(found, expected)
        (found * weight).sum().backward()
        (expected * weight).sum().backward()
        torch.testing.assert_close(mine.grad, theirs.grad)
    for name, parameter in usual.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad)
    for name, buffer in usual.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)


def test_layer_as_matrix_product_equals_layer_as_convolution():
    layer = PointLayer(4, 8, slope=0.2).double()
    features = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    as_convolution = copy.deepcopy(layer).convolve(features.permute(0, 3, 1, 2))
    torch.testing.assert_close(layer(features), as_convolution.permute(0, 2, 3, 1))


def test_statistics_across_processes_are_refused_rather_than_wrong():
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(PooledPointLayer(5, 7))
    with pytest.raises(TypeError, match="SyncBatchNorm"):
        layer(torch.randn(2, 6, 5))


def test_matrix_head_starts_at_the_identity():
    head = MatrixHead(16, 3, width=0.1)
    assert torch.equal(head(torch.randn(4, 16)), torch.eye(3).expand(4, 3, 3))


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_width_must_be_positive(width):
    with pytest.raises(ValueError, match="width must be greater than 0"):
        scaled(64, width)
