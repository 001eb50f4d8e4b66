import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models import sparse_conv
from isthmus.models.sparse_conv import SparseConv
from isthmus.models.sparse_unet import SparseUNet, VoxelNorm

SIZE = 0.5


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def trained(dtype: torch.dtype = torch.float64, **arguments: int) -> SparseUNet:
    """A network whose norms are no longer at their start."""
    network = SparseUNet(**{"channels": 4, "levels": 3, "voxel_size": SIZE, **arguments})
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.5)
    network.train()
    for _ in range(3):
        network(*scene(), torch.randn(2, 80, network.in_channels))
    return network.eval().to(dtype)


def scene(samples: int = 2, size: int = 80, side: float = 4.0) -> tuple[Tensor, Tensor]:
    return torch.rand(samples, size, 3) * side, torch.rand(samples, size) < 0.9


class Dense:
    """The same network on dense grids of 8 x 8 x 8 voxels and a mask: every site is computed, few are looked at."""

    def __init__(self, network: SparseUNet) -> None:
        self.network = copy.deepcopy(network)

    def norm(self, norm: VoxelNorm, grid: Tensor, mask: Tensor) -> Tensor:
        plain = nn.BatchNorm1d(norm.num_features, eps=1e-4).to(grid.dtype).train(norm.training)
        plain.load_state_dict(norm.state_dict())
        out = torch.zeros_like(grid).permute(0, 2, 3, 4, 1)
        out[mask] = plain(grid.permute(0, 2, 3, 4, 1)[mask]).relu()
        return out.permute(0, 4, 1, 2, 3)

    def same(self, conv: SparseConv, grid: Tensor, mask: Tensor) -> Tensor:
        weight = conv.weight.permute(2, 1, 0).unflatten(2, (3, 3, 3))
        return F.conv3d(grid, weight, padding=1) * mask[:, None]

    def level(self, level: nn.Module, grid: Tensor, mask: Tensor) -> Tensor:
        for block in level.before:
            grid = self.same(block.conv, self.norm(block.norm, grid, mask), mask)
        if level.below is None:
            return grid
        down = level.down.weight.permute(2, 1, 0).unflatten(2, (2, 2, 2))
        up = level.up.weight.permute(1, 2, 0).unflatten(2, (2, 2, 2))
        below = F.max_pool3d(mask[:, None].double(), 2)[:, 0] > 0
        deep = self.level(level.below, F.conv3d(self.norm(level.down_norm, grid, mask), down, stride=2), below)
        back = F.conv_transpose3d(self.norm(level.up_norm, deep, below), up, stride=2) * mask[:, None]
        grid = torch.cat([grid, back], dim=1)
        for block in level.after:
            grid = self.same(block.conv, self.norm(block.norm, grid, mask), mask)
        return grid

    def __call__(self, points: Tensor, present: Tensor, features: Tensor) -> Tensor:
        total = features.new_zeros(len(points), 8, 8, 8, features.shape[2])
        count = features.new_zeros(len(points), 8, 8, 8, 1)
        cells = (points / SIZE).floor().long()
        for sample, row in present.nonzero().tolist():
            at = (sample, *cells[sample, row].tolist())
            total[at] = total[at] + features[sample, row]
            count[at] += 1
        mask = count[..., 0] > 0
        grid = self.same(self.network.first, (total / count.clamp(min=1)).permute(0, 4, 1, 2, 3), mask)
        grid = self.norm(self.network.last, self.level(self.network.trunk, grid, mask), mask)
        out = features.new_zeros(*points.shape[:2], grid.shape[1])
        for sample, row in present.nonzero().tolist():
            out[sample, row] = grid[(sample, slice(None), *cells[sample, row].tolist())]
        return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("repetitions", [1, 2])
def test_values_and_gradients_are_those_of_a_dense_unet(training, dtype, tolerance, repetitions):
    network = trained(dtype, in_channels=2, repetitions=repetitions).train(training)
    dense = Dense(network)
    points, present = scene()
    features = torch.randn(2, 80, 2, dtype=dtype)
    results = []
    for run in (network, dense):
        own = features.clone().requires_grad_()
        value = run(points, present, own)
        parameters = (run if run is network else run.network).parameters()
        value.square().sum().backward()
        results.append([value.detach(), own.grad, *(p.grad for p in parameters if p.ndim == 3)])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


def test_the_default_is_the_network_of_the_papers():
    network = SparseUNet()
    planes = [16 * (level + 1) for level in range(7)]
    convolutions = 27 * 16 + 27 * planes[-1] ** 2
    norms = 2 * (16 + planes[-1])
    for own, below in pairwise(planes):
        convolutions += 27 * own**2 + 2 * 8 * own * below + 27 * 2 * own**2
        norms += 2 * (own + own + below + 2 * own)
    assert network.out_channels == 16
    assert sum(p.numel() for p in network.parameters()) == convolutions + norms


def test_order_of_points_moves_the_rows_and_nothing_else():
    network, (points, present) = trained(torch.float32), scene()
    order = torch.randperm(80)
    expected = network(points, present)[:, order]
    assert torch.equal(network(points[:, order], present[:, order]), expected)


@pytest.mark.parametrize("shift", [(4, 0, 0), (-8, 12, -400), (4096, -4096, 2**20)])
def test_a_shift_by_whole_voxels_of_the_coarsest_level_changes_nothing(shift):
    network, (points, present) = trained(), scene()
    points = (points.double() / SIZE).floor() * SIZE + SIZE / 2
    moved = points + torch.tensor(shift) * SIZE
    assert torch.equal(network(moved, present), network(points, present))


def test_a_shift_of_one_sample_leaves_the_others():
    network, (points, present) = trained(), scene()
    moved = points.clone()
    moved[0] += 1000.3
    found, expected = network(moved, present)[1], network(points, present)[1]
    torch.testing.assert_close(found, expected)


def test_absent_rows_are_zero_get_no_gradient_and_may_hold_anything():
    network, (points, present) = trained(torch.float32).train(), scene()
    points[~present] = torch.nan
    features = torch.randn(2, 80, 1)
    features[~present] = torch.inf
    features.requires_grad_()
    out = network(points, present, features)
    assert out.isfinite().all() and not out[~present].any()
    (out * torch.randn_like(out)).sum().backward()
    assert features.grad.isfinite().all() and features.grad[present].any() and not features.grad[~present].any()


def test_a_sample_without_points_leaves_the_others():
    network, (points, present) = trained(), scene(3)
    present[1] = False
    out = network(points, present)
    assert not out[1].any()
    torch.testing.assert_close(out[[0, 2]], network(points[[0, 2]], present[[0, 2]]))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "there"), [((2, 5), False), ((2, 0), False), ((1, 1), True)])
def test_none_and_one_voxel_go_forward_and_backward_and_leave_running_statistics(training, shape, there):
    network = trained(torch.float32).train(training)
    before = copy.deepcopy(network.state_dict())
    out = network(torch.rand(*shape, 3), torch.full(shape, there))
    out.sum().backward()
    assert out.shape == (*shape, 4) and out.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_norm_with_one_voxel_uses_the_running_statistics():
    norm = VoxelNorm(3).train()
    norm(torch.randn(50, 3) * 2 + 1)
    row = torch.randn(1, 3)
    alone = norm(row)
    assert torch.equal(alone, norm.eval()(row))


def test_the_coarsest_level_alone_may_have_one_voxel():
    network = trained(torch.float32).train()
    before = copy.deepcopy(network.state_dict())
    points = torch.tensor([[[0.1, 0.1, 0.1], [0.6, 0.1, 0.1], [1.1, 0.1, 0.1]]])
    network(points, torch.ones(1, 3, dtype=torch.bool)).sum().backward()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert any("trunk.before" in name for name in moved)
    assert not any("trunk.below.below" in name for name in moved)


def test_the_constant_1_stands_for_missing_features():
    network, (points, present) = trained(), scene()
    assert torch.equal(network(points, present), network(points, present, torch.ones(2, 80, 1)))


def test_maps_are_built_once_for_each_level_and_batch(monkeypatch):
    built = []
    original = sparse_conv.submanifold_map
    monkeypatch.setattr(sparse_conv, "submanifold_map", lambda c: built.append(len(c)) or original(c))
    trained()  # three batches
    assert len(built) == 9


def test_bf16_autocast_comes_near():
    network, (points, present) = trained(torch.float32), scene()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = network(points, present)
    torch.testing.assert_close(inside.float(), network(points, present), atol=0.1, rtol=0.1)


def test_bad_arguments_are_named():
    points, present = scene()
    with pytest.raises(ValueError, match="must be at least 1, found 0"):
        SparseUNet(levels=0)
    with pytest.raises(ValueError, match="voxel_size must be greater than 0, found -1"):
        SparseUNet(voxel_size=-1)
    with pytest.raises(ValueError, match=r"features must be \(2, 80, 3\): only"):
        SparseUNet(in_channels=3, levels=1)(points, present)
    with pytest.raises(ValueError, match=r"features must be \(2, 80, 3\), found \(2, 80, 2\)"):
        SparseUNet(in_channels=3, levels=1)(points, present, torch.ones(2, 80, 2))
