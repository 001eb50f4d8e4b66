import pytest
import torch
from torch import nn

from isthmus.models.patch_discriminator import PatchDiscriminator


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 7), (60, 80)])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_every_size_gives_a_logit(height: int, width: int, layers: int) -> None:
    net = PatchDiscriminator(3, layers=layers, hidden=4)
    logits = net(torch.randn(2, 3, height, width))
    for _ in range(layers - 1):
        height, width = -(-height // 2), -(-width // 2)
    assert logits.shape == (2, 1, height, width)


def test_layers_are_those_of_adaptsegnet() -> None:
    net = PatchDiscriminator(13)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (13, 64),
        (64, 128),
        (128, 256),
        (256, 512),
        (512, 1),
    ]
    assert not [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def test_batch_norm_lies_between_the_layers_and_noise_only_acts_where_it_is_given() -> None:
    net = PatchDiscriminator(2, layers=2, hidden=4, batch_norm=True, activation_noise=1.0).eval()
    values = torch.randn(3, 2, 8, 8)
    assert torch.equal(net(values), net(values))
    noisy = net(values, lambda shape: torch.ones(3, *shape))
    assert not torch.allclose(net(values), noisy)
    assert torch.equal(noisy, net(values, lambda shape: torch.ones(3, *shape)))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == 1


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="found 0, 64, 2"):
        PatchDiscriminator(3, layers=0)
