import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from dense_tester import CHANNELS, DenseTester
from torch import nn

from isthmus.errors import DataError
from isthmus.models.dense import DenseFeatures, split_features
from isthmus.models.resnet import ResNet
from isthmus.models.resnet_fpn import ResNetFPN

WITH_POINTS = {"normals": 3, "keypoints": 4}
SIZES = [(60, 80), (96, 84), (97, 65)]
TAPS = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32, "up1": 16, "up2": 8, "up3": 4}
"""By how much a feature map is smaller than the image."""


def points_network(**own: object) -> ResNetFPN:
    torch.manual_seed(0)
    return ResNetFPN(WITH_POINTS, {"keypoints": 4}, **{"layers": 18, "width": 0.125, **own})


class TestResNetFPN(DenseTester):
    FACTOR = 32

    def build(self, width: float = 0.125, channels: dict[str, int] = CHANNELS, **own: object) -> ResNetFPN:
        return ResNetFPN(channels, layers=18, width=width, **own)

    def image(self, batch: int = 3, height: int = 64, width: int = 96) -> torch.Tensor:
        return super().image(batch, height, width)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layers", [18, 50])
def test_outputs_taps_and_vectors_have_the_promised_shapes(size, layers):
    network = points_network(layers=layers).train()
    features = network(torch.rand(2, 3, *size))
    assert features.outputs["normals"].shape == (2, 3, *size)
    assert features.outputs["keypoints"].shape == (2, 8, *size)
    assert {name: tap.shape[2:] for name, tap in features.taps.items()} == {
        name: tuple(math.ceil(side / factor) for side in size) for name, factor in TAPS.items()
    }
    assert list(features.taps) == list(TAPS) == list(network.boundaries[1:-1])
    assert features.taps["layer4"] is features.bottleneck
    assert network.bottleneck_channels == features.bottleneck.shape[1] == (64 if layers == 18 else 256)
    sum(output.square().mean() for output in features.outputs.values()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("size", SIZES)
def test_outputs_at_half_size_are_those_that_are_enlarged(size):
    whole = points_network().eval()
    half = points_network(output_size="half").eval()
    half.load_state_dict(whole.state_dict())
    image = torch.rand(2, 3, *size)
    for task, output in half(image).outputs.items():
        assert output.shape[2:] == (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
        expected = F.interpolate(output, scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(whole(image).outputs[task], expected[..., : size[0], : size[1]])


def test_a_vector_is_a_perceptron_on_the_mean_of_the_second_level_and_constant_over_the_map():
    network = points_network().eval()
    features = network(torch.rand(2, 3, 60, 80))
    first, _, second = network.vectors["keypoints"]
    assert (first.out_features, second.out_features) == (32, 4)
    pooled = features.taps["up2"].mean(dim=(2, 3))
    vector = F.relu(pooled @ first.weight.T + first.bias) @ second.weight.T + second.bias
    depth = features.outputs["keypoints"][:, 4:]
    torch.testing.assert_close(depth, vector[..., None, None].expand_as(depth))
    assert points_network(width=1.0).vectors["keypoints"][0].weight.shape == (256, 256)


@pytest.mark.parametrize("boundary", ["stem", *TAPS, "heads"])
@pytest.mark.parametrize("vectors", [{}, {"keypoints": 4}])
def test_after_a_boundary_lies_exactly_what_it_does_not_depend_on(boundary, vectors):
    torch.manual_seed(0)
    network = ResNetFPN(WITH_POINTS, vectors, layers=18, width=0.125).train()
    image = torch.rand(2, 3, 64, 64)
    if boundary in TAPS:
        loss = network(image).taps[boundary].square().sum()
    elif boundary == "stem":
        loss = network.stem(image).square().sum()
    else:
        loss = sum(output.square().sum() for output in network(image).outputs.values())
    loss.backward()
    behind = tuple(f"{name}." for name in network.after(boundary))
    for name, parameter in network.named_parameters():
        if name.startswith(behind):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
    names = [name for name, _ in network.named_parameters()]
    assert all(any(name.startswith(prefix) for name in names) for prefix in behind)
    children = [name for name, child in network.named_children() if any(True for _ in child.parameters())]
    assert set(network.after(boundary)) <= set(children)


def test_boundaries_are_named_in_forward_order():
    network = points_network()
    assert network.boundaries == ("stem", "layer1", "layer2", "layer3", "layer4", "up1", "up2", "up3", "heads")
    assert network.after("up2") == ("up3", "heads", "vectors")
    assert network.after("up3") == ("heads", "vectors") and network.after("heads") == ()
    assert network.after("layer4") == ("up1", "up2", "up3", "heads", "vectors")
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {*network.boundaries, "vectors"}
    with pytest.raises(ValueError, match=r"boundary must be one of stem, .*, heads, found 'up4'"):
        network.after("up4")


def test_a_level_is_the_sum_of_both_ways_smoothed():
    network = points_network().eval()
    taps = network(torch.rand(1, 3, 97, 65)).taps
    level = network.up1
    narrow = F.conv2d(taps["layer4"], level.narrow.weight, level.narrow.bias)
    enlarged = torch.empty(1, narrow.shape[1], *taps["layer3"].shape[2:])
    (height, width), (small_height, small_width) = taps["layer3"].shape[2:], narrow.shape[2:]
    for i in range(height):
        for j in range(width):
            enlarged[..., i, j] = narrow[..., i * small_height // height, j * small_width // width]
    joined = enlarged + F.conv2d(taps["layer3"], level.lateral.weight, level.lateral.bias)
    smooth = F.conv2d(joined, level.conv.weight, padding=1)
    torch.testing.assert_close(F.relu(level.norm(smooth)), taps["up1"])
    assert isinstance(network.up2.narrow, nn.Identity) and isinstance(network.up3.narrow, nn.Identity)


@pytest.mark.parametrize("layers", [18, 50])
def test_the_encoder_is_the_resnet_whose_weights_are_loaded(tmp_path: Path, layers):
    torch.manual_seed(0)
    encoder = ResNet(layers, 0.125, dilated=False)
    encoder(torch.rand(4, 3, 64, 64))
    torch.save(encoder.state_dict(), tmp_path / "resnet.pth")
    network = points_network(layers=layers, weights=tmp_path / "resnet.pth").eval()
    image = torch.rand(2, 3, 60, 80)
    expected = (image - encoder.mean) / encoder.std
    torch.testing.assert_close(network.encode(image), encoder.eval()(expected))
    plain = points_network(layers=layers, weights=tmp_path / "resnet.pth", normalise=False).eval()
    torch.testing.assert_close(plain.encode(image), encoder(image))
    other = 50 if layers == 18 else 18
    with pytest.raises(DataError, match=rf"resnet\.pth: expected the weights of a ResNet-{other} of this width, found"):
        points_network(layers=other, weights=tmp_path / "resnet.pth")
    with pytest.raises(DataError, match=r"nowhere\.pth: expected a file of weights, found none"):
        points_network(weights=tmp_path / "nowhere.pth")


def test_the_network_of_the_paper_has_its_sizes():
    with torch.device("meta"):
        network = ResNetFPN(WITH_POINTS, {"keypoints": 4})
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()}
    assert sum(counts[name] for name in ("stem", "layer1", "layer2", "layer3", "layer4")) == 23_508_032
    smooth = 256 * 256 * 9 + 512
    assert counts["up1"] == 2048 * 256 + 256 + 1024 * 256 + 256 + smooth
    assert counts["up2"] == 512 * 256 + 256 + smooth and counts["up3"] == 256 * 256 + 256 + smooth
    assert counts["heads"] == 256 * 16 * (3 + 4) + 3 + 4
    assert counts["vectors"] == 256 * 256 + 256 + 256 * 4 + 4


def test_new_layers_keep_the_size_of_features():
    """He's initialisation: the second moment of a layer's output is that of its (rectified) input times two halves."""
    torch.manual_seed(0)
    network = ResNetFPN({"normals": 64}, {"normals": 64}, layers=18, width=1.0)
    features = torch.randn(2, 256, 20, 20).relu()
    network.requires_grad_(False)
    inner = network.heads["normals"](features)[..., 2:-2, 2:-2]
    assert float(inner.square().mean() / features.square().mean()) == pytest.approx(2.0, rel=0.1)
    biases = [p for n, p in network.named_parameters() if n.endswith("bias") and "norm" not in n and "bn" not in n]
    assert not any(p.any() for p in biases if p.dim() == 1 and p.shape[0] in (64, 256))
    linear = network.vectors["normals"][0].weight
    assert float(linear.var()) == pytest.approx(2 / 256, rel=0.05)


def test_vectors_and_maps_may_be_bfloat16():
    network = points_network().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = network(torch.rand(2, 3, 60, 80)).outputs
    sum(output.float().square().mean() for output in outputs.values()).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_features_of_a_joint_batch_are_split_by_domain():
    network = points_network().eval()
    image = torch.rand(5, 3, 60, 80)
    first, second = split_features(network(image), [2, 3])
    for part, rows in ((first, slice(0, 2)), (second, slice(2, 5))):
        alone = network(image[rows])
        torch.testing.assert_close(part.bottleneck, alone.bottleneck)
        for found, expected in ((part.outputs, alone.outputs), (part.taps, alone.taps)):
            assert found.keys() == expected.keys()
            for name in found:
                torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="must add up to 5 images"):
        split_features(network(image), [2, 2])
    assert DenseFeatures({}, image).taps == {}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"output_size": "quarter"}, 'output_size must be "input" or "half", found \'quarter\''),
        ({"layers": 101}, "layers must be one of 18, 34, 50, found 101"),
    ],
)
def test_impossible_options_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        points_network(**options)
    with pytest.raises(ValueError, match="vectors must be numbers for tasks among depth"):
        ResNetFPN({"depth": 1}, {"keypoints": 4}, layers=18, width=0.125)
