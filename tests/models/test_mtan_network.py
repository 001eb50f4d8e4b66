from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from dense_tester import CHANNELS, DenseTester
from torch import Tensor, nn

from isthmus.models.mtan import AttentionModule, MTANet
from isthmus.models.segnet import SegNet


class TestMTAN(DenseTester):
    FACTOR = 16
    EXPORTED: ClassVar[dict[str, int]] = {"stages": 2}

    def build(
        self, width: float = 0.125, channels: dict[str, int] = CHANNELS, stages: int = 4, **own: object
    ) -> MTANet:
        return MTANet(channels, width=width, stages=stages, **own)

    def test_shared_part_is_a_segnet(self):
        network, segnet = self.trained(), SegNet(CHANNELS, width=0.125, stages=4).eval()
        own = {k: v for k, v in network.state_dict().items() if k.startswith(("encoder.", "decoder."))}
        assert segnet.load_state_dict(own, strict=False).unexpected_keys == []
        image = self.image()
        torch.testing.assert_close(segnet.encode(image), network.encode(image))

    @pytest.mark.parametrize("stages", [1, 3])
    def test_equals_a_plain_loop_over_torch_layers(self, stages):
        network, image = self.trained(stages=stages).double(), self.image(2, 24, 40).double()

        def norm(features: Tensor, layer: nn.BatchNorm2d) -> Tensor:
            return F.batch_norm(features, layer.running_mean, layer.running_var, layer.weight, layer.bias)

        def convolve(features: Tensor, layer: nn.Module) -> Tensor:
            padding = layer.conv.kernel_size[0] // 2
            return norm(F.conv2d(features, layer.conv.weight, padding=padding), layer.norm).relu()

        def attend(module: AttentionModule, first: Tensor, last: Tensor, passed: list[Tensor]) -> Tensor:
            hidden = convolve(torch.cat([first, *passed], dim=1), module.reduce)
            return norm(F.conv2d(hidden, module.conv.weight), module.norm).sigmoid() * last

        features, indices, own, passed = image, [], {}, {task: [] for task in CHANNELS}
        for number, stage in enumerate(network.encoder.stages):
            first = last = convolve(features, stage[0])
            for layer in stage[1:]:
                last = convolve(last, layer)
            for task in CHANNELS:
                own[task] = attend(network.attention[task][number], first, last, passed[task])
                passed[task] = [convolve(own[task], network.passing[number])]
                if number < stages - 1:
                    passed[task] = [F.max_pool2d(passed[task][0], 2)]
            features, index = F.max_pool2d(last, 2, return_indices=True)
            indices.append(index)
        torch.testing.assert_close(network(image).bottleneck, features)
        for number, stage in enumerate(network.decoder.stages, start=stages):
            first = last = convolve(F.max_unpool2d(features, indices.pop(), 2), stage[0])
            for layer in stage[1:]:
                last = convolve(last, layer)
            for task in CHANNELS:
                own[task] = attend(network.attention[task][number], first, last, passed[task])
                if number < 2 * stages - 1:
                    passed[task] = [
                        F.interpolate(convolve(own[task], network.passing[number]), scale_factor=2.0, mode="bilinear")
                    ]
            features = last
        for task, output in network(image).outputs.items():
            torch.testing.assert_close(output, network.heads[task](own[task]))

    def test_parts_are_named_for_freezing(self):
        parts = {name.split(".")[0] for name, _ in self.build().named_parameters()}
        assert parts == {"encoder", "decoder", "passing", "attention", "heads"}


def test_masks_lie_between_zero_and_one():
    torch.manual_seed(0)
    module, last = AttentionModule(8, 4), torch.rand(2, 8, 6, 6) + 1
    mask = module(torch.randn(2, 8, 6, 6), last, torch.randn(2, 4, 6, 6)) / last
    assert 0 < mask.min() < 0.4 and 0.6 < mask.max() < 1
