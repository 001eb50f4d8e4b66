import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isthmus.models.film import FiLM, modulate
from isthmus.models.mapping import MappingNetwork
from isthmus.models.resnet import ResNet
from isthmus.models.segnet import SegNet

CHANNELS = {"segmentation": 5, "depth": 1, "normals": 3}
BACKBONES = ["segnet", "resnet"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def build(backbone: str = "segnet", codes: int | None = 6, **own: object) -> MappingNetwork:
    return MappingNetwork(CHANNELS, codes=codes, width=0.125, backbone=backbone, **own)


def trained(network: MappingNetwork) -> MappingNetwork:
    """With scales and shifts that differ from code to code, and running statistics moved."""
    for film in network.film:
        nn.init.normal_(film.gamma, 1, 0.3)
        nn.init.normal_(film.beta, 0, 0.3)
    network.train()
    for _ in range(3):
        call(network, torch.rand(4, 3, 32, 48))
    return network.eval()


def call(network: MappingNetwork, maps: Tensor, code: int = 0) -> Tensor:
    codes = None if network.codes is None else torch.full((len(maps),), code)
    return network(network.embed("normals", maps), codes)


@pytest.mark.parametrize("size", [(60, 80), (96, 128), (32, 32), (33, 47)])
@pytest.mark.parametrize("stages", [3, 4, 5])
def test_output_has_the_shape_of_segnets_bottleneck(size, stages):
    segnet = SegNet(CHANNELS, width=0.125, stages=stages).eval()
    network = build(stages=stages).eval()
    expected = segnet.encode(torch.rand(2, 3, *size))
    for task, count in CHANNELS.items():
        embedded = network.embed(task, torch.rand(2, count, *size))
        assert embedded.shape == (2, network.embedding_channels, *size)
        assert network(embedded, torch.tensor([0, 5])).shape == expected.shape
    assert network.bottleneck_channels == segnet.bottleneck_channels


@pytest.mark.parametrize("size", [(60, 80), (96, 128), (33, 47), (1, 9)])
def test_output_has_the_shape_of_the_resnets_features(size):
    encoder, network = ResNet(18, 0.125).eval(), build("resnet").eval()
    found = call(network, torch.rand(2, 3, *size))
    assert found.shape == encoder(torch.rand(2, 3, *size)).shape
    assert network.bottleneck_channels == encoder.out_channels


@pytest.mark.parametrize("film_inputs", [True, False])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_new_network_does_not_depend_on_the_code_and_a_trained_one_does(backbone, film_inputs):
    network, maps = build(backbone, film_inputs=film_inputs).eval(), torch.rand(2, 3, 32, 48)
    without = build(backbone, codes=None).eval()
    without.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("film.")})
    for code in range(6):
        assert torch.equal(call(network, maps, code), call(without, maps))
    trained(network)
    assert not torch.allclose(call(network, maps, 0), call(network, maps, 1))


@pytest.mark.parametrize("film_inputs", [True, False])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_one_pass_over_pairs_equals_a_loop_over_samples(backbone, film_inputs):
    network = trained(build(backbone, film_inputs=film_inputs)).double()
    maps = {task: torch.rand(3, count, 40, 24).double() for task, count in CHANNELS.items()}
    pairs = [("depth", 0, 1), ("normals", 2, 1), ("segmentation", 0, 4), ("depth", 2, 5), ("depth", 0, 2)]
    embedded = {task: network.embed(task, values) for task, values in maps.items()}
    rows = torch.stack([embedded[task][sample] for task, sample, _ in pairs])
    found = network(rows, torch.tensor([code for *_, code in pairs]))
    for row, (task, sample, code) in zip(found, pairs, strict=True):
        alone = network(network.embed(task, maps[task][sample : sample + 1]), torch.tensor([code]))
        torch.testing.assert_close(row, alone[0])


@pytest.mark.parametrize("film_inputs", [True, False])
def test_equals_a_plain_loop_over_the_layers(film_inputs):
    network = trained(build(film_inputs=film_inputs, stages=2)).double()
    maps, code = torch.rand(3, 5, 8, 12).double(), torch.tensor([4, 0, 4])
    one_hot = F.one_hot(code, 6).double()

    def norm(features: Tensor, layer: nn.BatchNorm2d) -> Tensor:
        mean, variance, weight, bias = (
            values[:, None, None] for values in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
        )
        return (features - mean) / (variance + layer.eps).sqrt() * weight + bias

    def film(features: Tensor, table: FiLM) -> Tensor:
        return (one_hot @ table.gamma)[:, :, None, None] * features + (one_hot @ table.beta)[:, :, None, None]

    tables = iter(network.film)
    first = network.inputs["segmentation"]
    features = norm(F.conv2d(maps, first[0].weight, padding=1), first[1])
    torch.testing.assert_close(network.embed("segmentation", maps), features)
    features = F.relu(film(features, next(tables)) if film_inputs else features)
    for stage in network.body.stages:
        for layer in stage:
            features = F.relu(film(norm(F.conv2d(features, layer.conv.weight, padding=1), layer.norm), next(tables)))
        before, features = features, F.max_pool2d(features, 2)
    assert next(tables, None) is None
    embedded = network.embed("segmentation", maps)
    torch.testing.assert_close(network(embedded, code), features)
    torch.testing.assert_close(network.features(embedded, code), before)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_norm_is_followed_by_a_table_and_every_table_is_used(backbone):
    network = trained(build(backbone, film_inputs=True)).train()
    norms = [module for module in network.body.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(network.film) == len(norms) + 1
    code = torch.tensor([3, 1])
    network(network.embed("normals", torch.rand(2, 3, 32, 48)), code).square().mean().backward()
    for film in network.film:
        for table in (film.gamma, film.beta):
            assert table.grad[code].abs().sum(dim=1).all()
            assert not table.grad[[0, 2, 4, 5]].any()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_learns(backbone):
    network = trained(build(backbone, codes=2)).train()
    embedded = [network.embed(task, torch.rand(2, count, 32, 48)) for task, count in CHANNELS.items()]
    network(torch.cat(embedded), torch.tensor([0, 1, 0, 1, 0, 1])).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_tables_have_a_prefix_of_their_own():
    names = [name for name, parameter in build().named_parameters() if parameter.shape[0] == 6]
    assert names and all(name.startswith("film.") for name in names)
    assert not any(name.startswith("film") for name in build(codes=None).state_dict())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_feature_maps_for_pictures_lie_before_the_last_step(backbone):
    network, maps = trained(build(backbone)), torch.rand(2, 3, 64, 96)
    embedded, code = network.embed("normals", maps), torch.tensor([1, 2])
    features, output = network.features(embedded, code), network(embedded, code)
    if backbone == "segnet":
        assert torch.equal(F.max_pool2d(features, 2), output)
    else:
        assert features.shape == (2, output.shape[1] // 2, *output.shape[2:])


def test_gradients_reach_the_maps():
    network, maps = trained(build()), torch.rand(2, 3, 32, 48).requires_grad_()
    (gradient,) = torch.autograd.grad(call(network, maps).square().sum(), maps)
    assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_training_step_is_the_same_bit_for_bit(backbone):
    torch.use_deterministic_algorithms(True)
    try:
        states = []
        for _ in range(2):
            torch.manual_seed(1)
            network = build(backbone).train()
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
            call(network, torch.rand(3, 3, 40, 48)).square().mean().backward()
            optimizer.step()
            states.append(network.state_dict())
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_bfloat16_autocast_stays_near_float32(backbone):
    network, maps = trained(build(backbone)), torch.rand(2, 3, 32, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = call(network, maps, 1)
    expected = call(network, maps, 1)
    assert (found - expected).norm() < 0.1 * expected.norm()


def test_film_table_by_hand():
    film = FiLM(2, 1)
    film.gamma.data, film.beta.data = torch.tensor([[2.0], [3.0]]), torch.tensor([[10.0], [20.0]])
    found = modulate(torch.ones(3, 1, 1, 2), film(torch.tensor([1, 0, 1])))
    assert found.flatten().tolist() == [23, 23, 12, 12, 23, 23]


def test_mistakes_are_named():
    network = build()
    with pytest.raises(ValueError, match="task must be one of segmentation, depth, normals, found 'edges'"):
        network.embed("edges", torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"depth must be \(n, 1, H, W\), found shape \(1, 8, 8\)"):
        network.embed("depth", torch.rand(1, 8, 8))
    embedded = network.embed("depth", torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="code must be given exactly where"):
        network(embedded)
    with pytest.raises(ValueError, match="code must be given exactly where"):
        build(codes=None)(embedded, torch.tensor([0]))
    with pytest.raises(IndexError):
        network(embedded, torch.tensor([6]))
    with pytest.raises(ValueError, match="codes must be at least 1, found 0"):
        build(codes=0)
    with pytest.raises(ValueError, match="film_inputs needs codes, found None"):
        build(codes=None, film_inputs=True)
    with pytest.raises(ValueError, match='"segnet" or "resnet", found \'vgg\''):
        build("vgg")
