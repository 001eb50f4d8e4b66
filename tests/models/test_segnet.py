import copy
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from dense_tester import CHANNELS, DenseTester
from torch import nn

from isthmus.models.segnet import ConvLayer, SegNet


class TestSegNet(DenseTester):
    FACTOR = 32
    EXPORTED: ClassVar[dict[str, int]] = {"stages": 3}

    def build(self, width: float = 0.125, channels: dict[str, int] = CHANNELS, **own: object) -> SegNet:
        return SegNet(channels, width=width, **own)

    def test_sizes_are_those_of_the_literature(self):
        network = SegNet({"segmentation": 13})
        convolutions = [m for part in (network.encoder, network.decoder) for m in part.modules()]
        convolutions = [(m.in_channels, m.out_channels) for m in convolutions if isinstance(m, nn.Conv2d)]
        encoder = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
        encoder += [(256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512)]
        assert convolutions[:13] == encoder  # VGG-16
        # Deepest stage first; the first convolution of each changes the number of channels.
        decoder = [(512, 512)] * 3 + [(512, 256), (256, 256), (256, 256), (256, 128), (128, 128), (128, 128)]
        assert convolutions[13:] == [*decoder, (128, 64), (64, 64), (64, 64), (64, 64)]
        assert network.bottleneck_channels == 512

    def test_equals_a_plain_loop_over_torch_layers(self):
        network, image = self.trained(stages=3), self.image(2, 24, 40)

        def convolve(stage: nn.Module, features: torch.Tensor) -> torch.Tensor:
            for layer in stage:
                norm = layer.norm
                mapped = F.conv2d(features, layer.conv.weight, padding=1)
                features = F.relu(
                    F.batch_norm(
                        mapped, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0, norm.eps
                    )
                )
            return features

        features, indices = image, []
        for stage in network.encoder.stages:
            features, index = F.max_pool2d(convolve(stage, features), 2, return_indices=True)
            indices.append(index)
        found = network(image)
        torch.testing.assert_close(found.bottleneck, features)
        for stage, index in zip(network.decoder.stages, indices[::-1], strict=True):
            features = convolve(stage, F.max_unpool2d(features, index, 2))
        for task, (first, second) in network.heads.items():
            hidden = F.conv2d(features, first.weight, first.bias, padding=1)
            torch.testing.assert_close(found.outputs[task], F.conv2d(hidden, second.weight, second.bias))

    @pytest.mark.parametrize("stages", [1, 2, 3, 4, 5])
    def test_fewer_stages_keep_more_of_the_bottleneck(self, stages):
        network = self.build(stages=stages).eval()
        features = network(self.image(1, 60, 80))
        assert features.bottleneck.shape[-2:] == (-(-60 // 2**stages), -(-80 // 2**stages))
        assert features.outputs["depth"].shape == (1, 1, 60, 80)

    def test_filling_up_is_zeros_at_the_right_and_bottom_cut_off_again(self):
        network, image = self.trained(), self.image(2, 50, 70)
        filled = torch.zeros(2, 3, 64, 96)
        filled[..., :50, :70] = image
        found, expected = network(image), network(filled)
        assert torch.equal(found.bottleneck, expected.bottleneck)
        for task in CHANNELS:
            assert torch.equal(found.outputs[task], expected.outputs[task][..., :50, :70])

    def test_parts_are_named_for_freezing(self):
        assert {name.split(".")[0] for name, _ in self.build().named_parameters()} == {"encoder", "decoder", "heads"}

    def test_initialisation_is_xavier_normal(self):
        network = SegNet(CHANNELS, width=0.5)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
                fan = module.kernel_size[0] ** 2 * (module.in_channels + module.out_channels)
                assert module.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)
                assert module.weight.abs().max() > 2.5 * (2 / fan) ** 0.5  # uniform draws end at 1.73
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                assert not module.bias.any()
            if isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all() and not module.bias.any()

    def test_other_inputs_than_colours(self):
        network = self.build(in_channels=1)
        assert network(torch.rand(2, 1, 32, 32)).outputs["depth"].shape == (2, 1, 32, 32)

    @pytest.mark.parametrize("stages", [0, 6])
    def test_impossible_stages_are_named(self, stages):
        with pytest.raises(ValueError, match=f"stages must be between 1 and 5, found {stages}"):
            self.build(stages=stages)

    def test_frozen_norms_keep_their_statistics_while_the_rest_trains(self):
        network = self.trained().train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        before = copy.deepcopy(network.state_dict())
        network(self.image())
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_layer_keeps_the_size():
    assert ConvLayer(3, 8)(torch.rand(2, 3, 5, 7)).shape == (2, 8, 5, 7)
