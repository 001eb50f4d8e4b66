from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from dense_tester import CHANNELS, DenseTester
from torch import nn

from isthmus.errors import DataError
from isthmus.models.aspp import PooledNorm
from isthmus.models.resnet import IMAGENET_MEAN, IMAGENET_STD, ResNet
from isthmus.models.resnet_aspp import ResNetASPP


class TestResNetASPP(DenseTester):
    FACTOR = 8

    def build(self, width: float = 0.125, channels: dict[str, int] = CHANNELS, **own: object) -> ResNetASPP:
        return ResNetASPP(channels, width=width, rates=(2, 4), **own)

    def test_parts_are_named_for_freezing(self):
        assert {name.split(".")[0] for name, _ in self.build().named_parameters()} == {"encoder", "heads"}

    def test_outputs_are_the_heads_enlarged_bilinearly(self):
        network, image = self.trained(), self.image(2, 64, 48)
        features = network(image)
        for task, head in network.heads.items():
            small = head(features.bottleneck)
            assert small.shape[-2:] == (8, 6)
            expected = F.interpolate(small, size=(64, 48), mode="bilinear", align_corners=False)
            torch.testing.assert_close(features.outputs[task], expected)

    def test_head_is_that_of_the_literature(self):
        head = ResNetASPP({"segmentation": 21}).heads["segmentation"]
        layers = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
        assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.dilation[0]) for m in layers] == [
            (512, 256, 1, 1), (512, 256, 3, 12), (512, 256, 3, 24), (512, 256, 3, 36), (512, 256, 1, 1),
            (1280, 256, 1, 1), (256, 256, 3, 1), (256, 21, 1, 1),
        ]  # fmt: skip
        assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.5]

    def test_training_batch_of_one_image_uses_running_statistics_in_the_pooled_branch(self):
        network = self.trained(dropout=0.0).train()
        pooled = [module for module in network.modules() if isinstance(module, PooledNorm)]
        before = [norm.running_mean.clone() for norm in pooled]
        outputs = network(self.image(1)).outputs
        sum(output.square().mean() for output in outputs.values()).backward()
        assert all(torch.equal(norm.running_mean, old) for norm, old in zip(pooled, before, strict=True))
        assert all(p.grad.isfinite().all() for p in network.parameters())
        network(self.image(2))
        assert not any(torch.equal(norm.running_mean, old) for norm, old in zip(pooled, before, strict=True))


def reference(network: ResNet, image: torch.Tensor) -> torch.Tensor:
    """The textbook's ResNet without dilation, at output stride 32, from a state dict with torchvision's names."""
    state = network.state_dict()

    def norm(features: torch.Tensor, name: str) -> torch.Tensor:
        values = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(features, *values)

    def conv(features: torch.Tensor, name: str, **options: int) -> torch.Tensor:
        return F.conv2d(features, state[f"{name}.weight"], **options)

    features = norm(conv(image, "conv1", stride=2, padding=3), "bn1").relu()
    features = F.max_pool2d(features, 3, 2, padding=1)
    for layer in (1, 2, 3, 4):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in state:
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            if f"{name}.conv3.weight" in state:  # a bottleneck
                hidden = norm(conv(features, f"{name}.conv1"), f"{name}.bn1").relu()
                hidden = norm(conv(hidden, f"{name}.conv2", stride=stride, padding=1), f"{name}.bn2").relu()
                hidden = norm(conv(hidden, f"{name}.conv3"), f"{name}.bn3")
            else:
                hidden = norm(conv(features, f"{name}.conv1", stride=stride, padding=1), f"{name}.bn1").relu()
                hidden = norm(conv(hidden, f"{name}.conv2", padding=1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in state:
                features = norm(conv(features, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            features, block = (hidden + features).relu(), block + 1
    return features


@pytest.fixture
def encoder() -> ResNet:
    torch.manual_seed(0)
    network = ResNet(18, 0.125).double()
    network(torch.rand(4, 3, 64, 96).double())
    return network.eval()


@pytest.mark.parametrize("layers", [18, 34, 50])
def test_dilation_sees_what_the_strides_saw(layers):
    torch.manual_seed(0)
    network, image = ResNet(layers, 0.125).double(), torch.rand(2, 3, 128, 96).double()
    network(image)
    network.eval()
    dilated, strided = network(image), reference(network, image)
    assert dilated.shape[-2:] == (16, 12) and strided.shape[-2:] == (4, 3)
    torch.testing.assert_close(dilated[..., ::4, ::4], strided)


@pytest.mark.parametrize("layers", [18, 50])
@pytest.mark.parametrize("size", [(60, 80), (97, 65)])
def test_without_dilation_it_is_the_network_of_the_textbook(layers, size):
    torch.manual_seed(0)
    network, image = ResNet(layers, 0.125, dilated=False).double(), torch.rand(2, 3, *size).double()
    network(image)
    found = network.eval()(image)
    assert found.shape == (2, network.out_channels, *(-(-side // 32) for side in size))
    torch.testing.assert_close(found, reference(network, image))


def test_resnet_50_has_the_published_number_of_parameters():
    # By hand. Stem: 64 * 3 * 49 + 128. A block of width c on i channels: i c + 9 c c + 4 c c + 2 (c + c + 4 c); a
    # shortcut: 4 c i + 8 c. The classifier of 2048 * 1000 + 1000 is what is missing from the published 25,557,032.
    expected, inputs = 64 * 3 * 49 + 128, 64
    for c, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            expected += inputs * c + 13 * c * c + 12 * c + (4 * c * inputs + 8 * c if block == 0 else 0)
            inputs = 4 * c
    assert expected == 25_557_032 - 2_049_000 == 23_508_032
    network = ResNet(50, dilated=False)
    assert sum(p.numel() for p in network.parameters()) == expected
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert len(shapes) == 318  # torchvision's resnet50 has 320, two of them of its classifier
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer4.2.conv3.weight"] == (2048, 512, 1, 1) and shapes["layer3.5.bn2.bias"] == (256,)
    strides = {n: m.stride for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)}
    assert {n for n in strides if "conv" in n} == {"conv1", *(f"layer{i}.0.conv2" for i in (2, 3, 4))}


def test_names_and_shapes_are_those_of_torchvision():
    shapes = {name: tuple(value.shape) for name, value in ResNet(18).state_dict().items()}
    assert len(shapes) == 120  # torchvision's resnet18 has 122, two of them of its classifier
    assert shapes["conv1.weight"] == (64, 3, 7, 7) and shapes["bn1.num_batches_tracked"] == ()
    assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert shapes["layer4.1.bn2.running_var"] == (512,)
    assert sum(p.numel() for p in ResNet(18).parameters()) == 11_689_512 - 513_000
    assert sum(p.numel() for p in ResNet(34).parameters()) == 21_797_672 - 513_000


def saved(encoder: ResNet, path: Path, **changes: object) -> Path:
    state: dict[str, object] = {name: value.float() for name, value in encoder.state_dict().items()}
    state |= {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)} | changes
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    return path


def test_weights_of_a_file_are_loaded_and_images_normalised(encoder, tmp_path):
    loaded = ResNet(18, 0.125, weights=saved(encoder, tmp_path / "resnet.pth")).eval()
    image = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = encoder(((image - mean) / std).double())
    torch.testing.assert_close(loaded(image), expected.float(), rtol=1e-3, atol=1e-4)
    assert loaded.state_dict().keys() == encoder.state_dict().keys()
    plain = ResNet(18, 0.125, weights=tmp_path / "resnet.pth", normalise=False).eval()
    torch.testing.assert_close(plain(image), encoder(image.double()).float(), rtol=1e-3, atol=1e-4)


def test_old_files_without_counters_fit(encoder, tmp_path):
    counters = dict.fromkeys(name for name in encoder.state_dict() if name.endswith("num_batches_tracked"))
    ResNet(18, 0.125, weights=saved(encoder, tmp_path / "resnet.pth", **counters))


def test_safetensors_fit(encoder, tmp_path):
    files = pytest.importorskip("safetensors.torch")
    files.save_file({k: v.float().contiguous() for k, v in encoder.state_dict().items()}, tmp_path / "w.safetensors")
    loaded = ResNet(18, 0.125, weights=tmp_path / "w.safetensors")
    torch.testing.assert_close(loaded.conv1.weight, encoder.conv1.weight.float())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bn1.weight": None}, r"missing: bn1\.weight"),
        ({"stem.weight": torch.zeros(1)}, r"unknown: stem\.weight"),
        ({"bn1.weight": torch.zeros(9)}, r"of another shape: bn1\.weight \(expected \(8,\), found \(9,\)\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(encoder, tmp_path, changes, message):
    path = saved(encoder, tmp_path / "resnet.pth", **changes)
    with pytest.raises(
        DataError, match=rf"resnet\.pth: expected the weights of a ResNet-18 of this width, .*{message}"
    ):
        ResNetASPP(CHANNELS, width=0.125, weights=path)


def test_wrong_width_is_one_line(encoder, tmp_path):
    with pytest.raises(DataError) as raised:
        ResNet(18, 0.25, weights=saved(encoder, tmp_path / "resnet.pth"))
    assert "layer1.0.conv1.weight (expected (16, 16, 3, 3), found (8, 8, 3, 3))" in str(raised.value)
    assert "more" in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 700


class Unsafe:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize("content", ["nothing", "noise", "pickle", "list"])
def test_files_without_weights_are_named_and_never_run(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content == "noise":
        path.write_bytes(b"not a file of weights")
    elif content != "nothing":
        torch.save({"a": Unsafe()} if content == "pickle" else [1, 2], path)
    with pytest.raises(DataError, match=r"weights\.pth: expected a (file|state dict) of"):
        ResNet(18, 0.125, weights=path)


def test_unknown_depth_is_named():
    with pytest.raises(ValueError, match="layers must be one of 18, 34, 50, found 101"):
        ResNet(101)
