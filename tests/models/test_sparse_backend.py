import sys
from importlib.util import find_spec

import pytest
import torch

from isthmus.errors import RecipeError
from isthmus.models import sparse_backend
from isthmus.models.sparse_backend import backend, spconv_levels
from isthmus.models.sparse_unet import SparseUNet

needs_spconv = pytest.mark.skipif(find_spec("spconv") is None, reason="spconv is not installed")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pair(**arguments: int) -> tuple[SparseUNet, SparseUNet]:
    ours, theirs = (SparseUNet(channels=8, levels=4, backend=name, **arguments) for name in ("torch", "spconv"))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def scene():
    points = torch.rand(3, 400, 3) * torch.tensor([2, 2, 0.5]) - 1
    present = torch.rand(3, 400) < 0.9
    present[1] = False
    return points, present


def test_an_unknown_name_is_an_error():
    with pytest.raises(RecipeError, match='"torch" or "spconv", found \'minkowski\''):
        backend("minkowski")


def test_asking_for_what_is_not_installed_is_an_error_that_says_what_to_install(monkeypatch):
    sparse_backend._spconv.cache_clear()
    monkeypatch.setitem(sys.modules, "spconv", None)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", None)
    with pytest.raises(RecipeError, match="pip install spconv"):
        backend("spconv")
    sparse_backend._spconv.cache_clear()


@needs_spconv
@pytest.mark.parametrize("training", [True, False])
def test_values_and_gradients_are_those_of_torch(training):
    results = []
    for network in pair(in_channels=2):
        torch.manual_seed(1)
        points, present = scene()
        features = torch.randn(3, 400, 2, requires_grad=True)
        out = network.train(training)(points, present, features)
        (out * torch.randn(8)).square().sum().backward()
        results.append([out.detach(), features.grad, *(p.grad for p in network.parameters())])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm()


@needs_spconv
def test_no_point_at_all_works():
    points, present = scene()
    assert not pair()[1](points, present & False).any()


@needs_spconv
def test_a_field_too_large_for_its_keys_is_refused():
    corners = torch.tensor([[0, 0, 0, 0], [0, 4095, 4095, 4095]])
    with pytest.raises(ValueError, match=r"cannot tell the 68719476736 voxels"):
        spconv_levels(corners, 7)


@needs_spconv
def test_levels_can_be_convolved_down_again_and_not_before():
    levels = spconv_levels(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 5]]), 2)
    with pytest.raises(RuntimeError, match="level 1 has no voxels"):
        levels[1].same(torch.ones(2, 3), torch.ones(27, 3, 3))
    for _ in range(2):
        down = levels[0].down(torch.ones(2, 3), torch.ones(8, 3, 3))
        assert down.tolist() == [[3.0] * 3] * 2
        assert levels[1].same(down, torch.ones(27, 3, 3)).shape == (2, 3)
