"""What every network of dense predictions has to stand, written once; a network's own test derives from it."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from isthmus.models.dense import DenseFeatures

CHANNELS = {"segmentation": 5, "depth": 1}


class Exportable(nn.Module):
    """The tensors alone: an exported program returns plain containers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.network(image)
        return (*features.outputs.values(), features.bottleneck)


class DenseTester:
    """Derive, and say how to build the network and by what its bottleneck is smaller than the image."""

    FACTOR: int
    EXPORTED: ClassVar[dict[str, int]] = {}
    """Arguments that make a network quick to export."""

    def build(self, width: float = 0.125, **own: object) -> nn.Module:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def seeded(self) -> None:
        torch.manual_seed(0)

    @pytest.fixture
    def deterministic_algorithms(self) -> Iterator[None]:
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(False)

    def image(self, batch: int = 3, height: int = 32, width: int = 48) -> Tensor:
        return torch.rand(batch, 3, height, width)

    def trained(self, **own: object) -> nn.Module:
        """A network whose norms are no longer at their start: weights of both signs, running statistics moved."""
        network = self.build(**own)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                sign = torch.randn(module.num_features).sign()
                module.weight.data = sign * torch.empty_like(sign).uniform_(0.7, 1.3)
                nn.init.normal_(module.bias, std=0.3)
                module.momentum = 1.0  # at once the statistics of the images, or features would shrink to nothing
        network.train()(self.image())
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1
        return network.eval()

    @pytest.mark.parametrize("size", [(60, 80), (96, 128), (32, 32), (33, 47), (1, 70)])
    @pytest.mark.parametrize("batch", [1, 2])
    def test_images_of_any_size_give_the_promised_shapes(self, size, batch):
        network = self.build().eval()
        features = network(self.image(batch, *size))
        outputs, bottleneck = features.outputs, features.bottleneck
        assert network.channels == CHANNELS
        assert {task: output.shape for task, output in outputs.items()} == {
            task: (batch, count, *size) for task, count in CHANNELS.items()
        }
        expected = (batch, network.bottleneck_channels, *(math.ceil(side / self.FACTOR) for side in size))
        assert bottleneck.shape == expected
        assert network.encode(self.image(batch, *size)).shape == expected

    def test_images_of_a_batch_do_not_touch_each_other_in_eval_mode(self):
        network, image = self.trained().double(), self.image().double()
        alone, together = network(image[1:2]), network(image)
        torch.testing.assert_close(alone.bottleneck, together.bottleneck[1:2])
        for task, output in alone.outputs.items():
            torch.testing.assert_close(output, together.outputs[task][1:2])

    def test_tasks_have_heads_of_their_own_and_share_the_rest(self):
        network = self.trained()
        network(self.image()).outputs["depth"].square().mean().backward()
        reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert all(name in reached for name in self.shared(network))
        assert any("depth" in name for name in reached) and not any("segmentation" in name for name in reached)

    def shared(self, network: nn.Module) -> list[str]:
        return [name for name, _ in network.named_parameters() if not any(task in name for task in CHANNELS)]

    def test_every_parameter_learns(self):
        network = self.trained().train()
        outputs = network(self.image()).outputs
        sum(output.square().mean() for output in outputs.values()).backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_encode_is_the_bottleneck(self):
        network, image = self.trained(), self.image()
        assert torch.equal(network.encode(image), network(image).bottleneck)

    def test_saved_and_loaded_weights_give_the_same_features(self, tmp_path: Path):
        network, image = self.trained(), self.image()
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        other = self.build().eval()
        other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        self.assert_equal(other(image), network(image))

    def test_eval_mode_is_deterministic_and_changes_nothing(self):
        network, image = self.trained(), self.image()
        before = copy.deepcopy(network.state_dict())
        self.assert_equal(network(image), network(image))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    @pytest.mark.usefixtures("deterministic_algorithms")
    def test_training_step_is_the_same_bit_for_bit(self):
        states = []
        for _ in range(2):
            torch.manual_seed(1)
            network, image = self.build().train(), self.image()
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
            for _ in range(2):
                optimizer.zero_grad()
                features = network(image)
                loss = sum(output.square().mean() for output in features.outputs.values())
                (loss + features.bottleneck.square().mean()).backward()
                optimizer.step()
            states.append(network.state_dict())
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())

    @pytest.mark.parametrize("place", ["start", "end"])
    def test_layout_of_the_image_in_memory_does_not_matter(self, place):
        network, image = self.trained(), self.image()
        if place == "start":
            self.assert_equal(network(image.contiguous(memory_format=torch.channels_last)), network(image))
        else:
            network.to(memory_format=torch.contiguous_format)
            plain = network(image).bottleneck
            torch.testing.assert_close(network.to(memory_format=torch.channels_last)(image).bottleneck, plain)

    def test_exported_program_takes_other_batches(self):
        network = self.trained(**self.EXPORTED)
        program = torch.export.export(
            Exportable(network), (self.image(),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        for batch in (2, 5):
            image = self.image(batch)
            for found, expected in zip(program.module()(image), Exportable(network)(image), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    def test_bfloat16_autocast_stays_near_float32(self):
        network, image = self.trained(), self.image()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(image).bottleneck
        expected = network(image).bottleneck
        assert (found - expected).norm() < 0.1 * expected.norm()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = network.train()(image).outputs
        sum(output.float().square().mean() for output in outputs.values()).backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients and all(gradient.isfinite().all() for gradient in gradients)

    def test_gradient_with_respect_to_the_image_is_the_slope_of_the_output(self):
        network, image = self.trained().double(), self.image(1, 16, 24).double().requires_grad_()
        weight = torch.randn(16, 24, dtype=torch.float64)
        (slope,) = torch.autograd.grad((network(image).outputs["depth"] * weight).sum(), image)
        step = 1e-7 * slope / slope.norm()
        with torch.no_grad():
            above, below = network(image + step).outputs["depth"], network(image - step).outputs["depth"]
        torch.testing.assert_close(2 * (slope * step).sum(), ((above - below) * weight).sum(), rtol=1e-4, atol=0)

    def test_width_scales_the_channels(self):
        narrow, wide = self.build(width=0.125), self.build(width=0.25)
        assert (narrow.bottleneck_channels, wide.bottleneck_channels) == (64, 128)

    @pytest.mark.parametrize("shape", [(3, 32, 32), (2, 4, 32, 32)])
    def test_wrong_shapes_are_named(self, shape):
        with pytest.raises(ValueError, match=r"image must be \(B, 3, H, W\), found shape"):
            self.build()(torch.zeros(shape))

    @pytest.mark.parametrize("channels", [{}, {"depth": 0}])
    def test_impossible_channels_are_named(self, channels):
        with pytest.raises(ValueError, match="channels must name at least one task"):
            self.build(channels=channels)

    def assert_equal(self, found: DenseFeatures, expected: DenseFeatures) -> None:
        assert torch.equal(found.bottleneck, expected.bottleneck)
        assert found.outputs.keys() == expected.outputs.keys()
        assert all(torch.equal(found.outputs[task], expected.outputs[task]) for task in expected.outputs)
