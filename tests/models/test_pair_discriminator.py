import pytest
import torch

from isthmus.models.pair_discriminator import PairDiscriminator


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (8, 2)])
def test_pairs_of_any_size_have_one_logit_each(size):
    torch.manual_seed(0)
    network = PairDiscriminator(8, hidden=16)
    first, second = torch.randn(5, 8, *size), torch.randn(5, 8, *size)
    logits = network(first, second)
    assert logits.shape == (5,)
    torch.testing.assert_close(network(first[2:3], second[2:3]), logits[2:3])


def test_learns_to_tell_equal_maps_from_others():
    torch.manual_seed(0)
    network = PairDiscriminator(4, hidden=16)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        maps = torch.randn(32, 4, 2, 2)
        second = torch.cat([maps[:16], torch.randn(16, 4, 2, 2)])
        same = torch.arange(32) < 16
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(maps, second), same.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    maps = torch.randn(400, 4, 2, 2)
    right = (network(maps[:200], maps[:200]) > 0).float().mean() + (network(maps[:200], maps[200:]) < 0).float().mean()
    assert right / 2 > 0.8


def test_maps_of_two_shapes_are_named():
    with pytest.raises(ValueError, match=r"one shape, found \(1, 4, 2, 2\) and \(1, 4, 2, 3\)"):
        PairDiscriminator(4)(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 3))
