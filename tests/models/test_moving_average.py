import pytest
import torch
from torch import nn

from isthmus.models.dgcnn import DGCNN
from isthmus.models.moving_average import MovingAverage
from isthmus.models.pointnet import PointNet


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def disturb(network: nn.Module) -> None:
    with torch.no_grad():
        for value in network.state_dict().values():
            value.add_(1 if not value.is_floating_point() else torch.rand_like(value))


def test_it_averages_parameters_and_float_buffers_and_copies_counts() -> None:
    network = small()
    average = MovingAverage(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    disturb(network)
    average.follow(network, 0.75)
    for name, value in average.network.state_dict().items():
        now = network.state_dict()[name]
        expected = 0.75 * before[name] + 0.25 * now if value.is_floating_point() else now
        torch.testing.assert_close(value, expected)


def test_no_momentum_copies_exactly() -> None:
    network = small()
    average = MovingAverage(network)
    disturb(network)
    average.follow(network, 0.0)
    for name, value in average.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_it_has_no_parameters_stays_in_eval_mode_and_leaves_the_network_alone() -> None:
    network = small().train()
    average = MovingAverage(network)
    outer = nn.ModuleList([network, average]).train()
    assert not list(average.parameters()) and len(list(network.parameters())) == 5
    assert not any(module.training for module in average.modules()) and network.training
    assert {n.removeprefix("1.network.") for n in outer.state_dict() if n.startswith("1.")} == set(network.state_dict())
    before = {name: value.clone() for name, value in average.state_dict().items()}
    average.network(torch.randn(6, 3))
    assert all(torch.equal(value, before[name]) for name, value in average.state_dict().items())
    disturb(network)
    assert all(torch.equal(value, before[name]) for name, value in average.state_dict().items())


@pytest.mark.parametrize("encoder", [PointNet(width=0.125), DGCNN(k=4, width=0.125)], ids=["pointnet", "dgcnn"])
def test_the_copy_of_an_encoder_computes_what_the_encoder_does(encoder: nn.Module) -> None:
    points = torch.randn(2, 16, 3)
    encoder.eval()
    torch.testing.assert_close(MovingAverage(encoder).network(points).pooled, encoder(points).pooled)


def test_its_state_is_saved_and_loaded() -> None:
    network = small()
    average = MovingAverage(network)
    disturb(network)
    average.follow(network, 0.5)
    other = MovingAverage(small())
    other.load_state_dict(average.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(value, average.state_dict()[name])
