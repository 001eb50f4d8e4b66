from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from dense_tester import CHANNELS, DenseTester
from torch import Tensor, nn

from isthmus.errors import DataError
from isthmus.models.dense import DenseFeatures, check_channels
from isthmus.models.resnet import ResNet
from isthmus.models.unet_resnet import UNetResNet


class WithHeads(nn.Module):
    """The network with a linear head for each task, as the shared tester wants it."""

    def __init__(self, channels: dict[str, int], width: float, **own: object) -> None:
        super().__init__()
        self.channels = check_channels(channels)
        self.network = UNetResNet(**{"layers": 18, "width": width, **own})
        self.bottleneck_channels = self.network.bottleneck_channels
        self.heads = nn.ModuleDict(
            {task: nn.Conv2d(self.network.out_channels, count, 1) for task, count in channels.items()}
        )

    def forward(self, image: Tensor) -> DenseFeatures:
        features = self.network(image)
        return DenseFeatures({task: head(features) for task, head in self.heads.items()}, self.encode(image))

    def encode(self, image: Tensor) -> Tensor:
        return self.network.encode(image)


class TestUNetResNet(DenseTester):
    FACTOR = 16

    def build(self, width: float = 0.125, channels: dict[str, int] = CHANNELS, **own: object) -> WithHeads:
        return WithHeads(channels, width, **own)

    def image(self, batch: int = 3, height: int = 48, width: int = 64) -> Tensor:
        return super().image(batch, height, width)


@pytest.mark.parametrize("size", [(16, 32), (17, 31), (50, 45)])
@pytest.mark.parametrize("layers", [18, 34, 50])
def test_features_have_the_size_of_the_image(size, layers):
    network = UNetResNet(layers, width=0.125).train()
    features = network(torch.rand(2, 3, *size))
    assert features.shape == (2, network.out_channels, *size) and network.out_channels == 8
    features.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def by_hand(network: UNetResNet, image: Tensor) -> Tensor:
    """The U-Net for sizes that are multiples of 16, written out: what xMUDA's does."""
    encoder = network.encoder
    if encoder.normalise:
        image = (image - encoder.mean) / encoder.std
    stem = F.relu(encoder.bn1(F.conv2d(image, encoder.conv1.weight, stride=1, padding=3)))
    skips, features = [stem], F.max_pool2d(stem, 3, 2, 1)
    for layer in (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
        features = layer(features)
        skips.append(features)
    for level, skip in zip((network.up4, network.up3, network.up2, network.up1), skips[-2::-1]):
        features = F.relu(level.enlarge_norm(F.conv_transpose2d(features, level.enlarge.weight, stride=2)))
        features = F.conv2d(torch.cat([skip, features], dim=1), level.mix.weight, level.mix.bias, padding=1)
        if level is not network.up1:
            features = F.relu(level.mix_norm(features))
    return features


def test_it_is_the_unet_written_out():
    torch.manual_seed(0)
    network = UNetResNet(width=0.125)
    network(torch.rand(4, 3, 64, 64))
    image = torch.rand(2, 3, 48, 64)
    torch.testing.assert_close(network.eval()(image), by_hand(network, image))


def test_the_network_of_the_paper_has_its_sizes():
    with torch.device("meta"):
        network = UNetResNet()
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()}
    assert counts["encoder"] == 21_284_672, "ResNet-34 without its classifier"

    def level(below: int, out: int, last: bool = False) -> int:
        end = out if last else 2 * out
        return below * out * 4 + 2 * out + 2 * out * out * 9 + end

    assert counts["up4"] == level(512, 256) and counts["up3"] == level(256, 128)
    assert counts["up2"] == level(128, 64) and counts["up1"] == level(64, 64, last=True)
    assert network.out_channels == 64 and network.bottleneck_channels == 512
    assert network.encoder.conv1.stride == (1, 1)


def test_dropout_acts_behind_the_last_two_layers_in_training_only():
    torch.manual_seed(0)
    network, image = UNetResNet(18, 0.125, dropout=0.9), torch.rand(2, 3, 64, 64)
    dropped = network.encode(image)
    assert float((dropped == 0).float().mean()) > 0.85
    with torch.no_grad():
        assert torch.equal(network.eval().encode(image), network.encode(image))
    sizes = []
    network.train().dropout.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    network(image)
    assert sizes == [(32, 8, 8), (64, 4, 4)]


def test_weights_of_a_resnet_file_fit(tmp_path: Path):
    torch.manual_seed(0)
    encoder = ResNet(34, 0.125, dilated=False)
    torch.save(encoder.state_dict() | {"fc.weight": torch.zeros(10, 64)}, tmp_path / "resnet.pth")
    network = UNetResNet(34, 0.125, weights=tmp_path / "resnet.pth").eval()
    own = network.encoder.state_dict()
    assert all(torch.equal(own[name], value) for name, value in encoder.state_dict().items())
    assert network.encoder.normalise
    plain = UNetResNet(34, 0.125, weights=tmp_path / "resnet.pth", normalise=False).eval()
    plain.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 32, 32)
    normed = (image - network.encoder.mean) / network.encoder.std
    torch.testing.assert_close(network(image), plain(normed))
    with pytest.raises(DataError, match=r"resnet\.pth: expected the weights of a ResNet-18 of this width, found"):
        UNetResNet(18, 0.125, weights=tmp_path / "resnet.pth")


def test_prefix_of_the_encoder_names_all_pretrained_parameters():
    names = [name for name, _ in UNetResNet(18, 0.125).named_parameters()]
    assert {name.split(".")[0] for name in names} == {"encoder", "up4", "up3", "up2", "up1"}
