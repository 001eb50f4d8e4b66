"""What every encoder of clouds has to stand, written once; a network's own test derives from it."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from isthmus.models.layers import PointFeatures


class Exportable(nn.Module):
    """The pooled features alone: an exported program returns tensors, not our tuple."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(self.encoder(points))


class EncoderTester:
    """Derive, and say how to build the network: ``build(width=..., **own)``."""

    MINIMUM_POINTS = 1

    def build(self, width: float = 0.125) -> nn.Module:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def seeded(self) -> None:
        torch.manual_seed(0)

    def points(self, clouds: int = 4, size: int = 24) -> Tensor:
        return torch.randn(clouds, size, 3)

    def trained(self, **arguments: object) -> nn.Module:
        """A network whose norms are no longer at their start: weights of both signs, running statistics moved."""
        network = self.build(**arguments)
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 or "offset" in name:
                nn.init.normal_(parameter, std=0.5 if parameter.ndim == 1 else 0.05)
        network.train()
        network(self.points())
        return network.eval()

    @pytest.mark.parametrize("size", [0, 1, 40])
    def test_any_number_of_points_gives_the_promised_shapes(self, size):
        size += self.MINIMUM_POINTS
        network = self.build().eval()
        local, pooled = network(self.points(3, size))
        assert local.shape == (3, size, network.local_channels)
        assert pooled.shape == (3, network.pooled_channels)

    def test_order_of_points_moves_local_and_leaves_pooled(self):
        network, points = self.trained().double(), self.points().double()
        order = torch.randperm(points.shape[1])
        features, shuffled = network(points), network(points[:, order])
        torch.testing.assert_close(shuffled.local, features.local[:, order])
        torch.testing.assert_close(shuffled.pooled, features.pooled)

    def test_clouds_of_a_batch_do_not_touch_each_other_in_eval_mode(self):
        network, points = self.trained().double(), self.points().double()
        torch.testing.assert_close(network(points[1:2]).pooled, network(points).pooled[1:2])

    def test_saved_and_loaded_weights_give_the_same_features(self, tmp_path: Path):
        network, points = self.trained(), self.points()
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        other = self.build().eval()
        other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        assert torch.equal(other(points).pooled, network(points).pooled)

    def test_eval_mode_is_deterministic_and_changes_nothing(self):
        network, points = self.trained(), self.points()
        before = copy.deepcopy(network.state_dict())
        assert torch.equal(network(points).pooled, network(points).pooled)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    @pytest.mark.parametrize("training", [True, False])
    def test_compiled_network_gives_the_same_features_and_gradients(self, training):
        network, points = self.trained().train(training), self.points()
        twin = copy.deepcopy(network)
        compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
        expected, found = network(points), compiled(points)
        torch.testing.assert_close(found.local, expected.local, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.pooled, expected.pooled, rtol=1e-4, atol=1e-4)
        expected.pooled.square().mean().backward()
        found.pooled.square().mean().backward()
        for ours, theirs in zip(network.parameters(), twin.parameters(), strict=True):
            if ours.grad is not None:
                torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-2, atol=1e-4)
        for ours, theirs in zip(network.buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)

    def test_exported_program_takes_other_batches_and_sizes(self):
        network = self.trained()
        dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("size", min=max(2, self.MINIMUM_POINTS), max=4096)}
        with torch.no_grad():
            program = torch.export.export(Exportable(network), (self.points(),), dynamic_shapes=(dims,))
            for points in (self.points(3, 31), self.points(5, 16)):
                local, pooled = program.module()(points)
                torch.testing.assert_close(PointFeatures(local, pooled), network(points), rtol=1e-4, atol=1e-4)

    def test_bfloat16_autocast_stays_near_float32(self):
        network, points = self.trained(), self.points()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(points).pooled
        expected = network(points).pooled
        assert (found - expected).norm() < 0.1 * expected.norm()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            network.train()(points).pooled.float().square().mean().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients and all(gradient.isfinite().all() for gradient in gradients)

    def test_gradient_with_respect_to_points_is_the_slope_of_the_output(self):
        network, points = self.trained().double(), self.points(1, 24).double().requires_grad_()
        weight = torch.randn(network.pooled_channels, dtype=torch.float64)
        step = 1e-7 * torch.randn_like(points)
        (slope,) = torch.autograd.grad((network(points).pooled @ weight).sum(), points)
        with torch.no_grad():
            change = ((network(points + step).pooled - network(points - step).pooled) @ weight).sum()
        assert slope.isfinite().all()
        torch.testing.assert_close(2 * (slope * step).sum(), change, rtol=1e-5, atol=0)

    def test_every_parameter_learns(self):
        network = self.trained().train()
        local, pooled = network(self.points())
        (local.square().mean() + pooled.square().mean()).backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_width_scales_the_channels(self):
        narrow, wide = self.build(width=0.125), self.build(width=0.25)
        assert wide.pooled_channels == 2 * narrow.pooled_channels == 256
        assert wide(self.points()).local.shape[-1] == wide.local_channels == 2 * narrow.local_channels

    @pytest.mark.parametrize("shape", [(24, 3), (2, 24, 4)])
    def test_wrong_shapes_are_named(self, shape):
        with pytest.raises(ValueError, match=r"points must be \(B, N, 3\)"):
            self.build()(torch.zeros(shape))
