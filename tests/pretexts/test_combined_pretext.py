import pytest
import torch
from pretext_tester import PretextTester, classifier, draws, some_clouds
from torch import Tensor, nn

from isthmus.data.randomness import SampleRandom
from isthmus.models.pointnet import PointNet
from isthmus.pretexts.base import Pretext
from isthmus.pretexts.combined import GAST_WEIGHTS, Combined
from isthmus.pretexts.distortion_location import LOCATIONS, DistortionLocation
from isthmus.pretexts.mixed_rotation import TURNS, MixedRotation


class Fixed(Pretext):
    def __init__(self, name: str, values: list[float]) -> None:
        super().__init__()
        self.name = name
        self.values = nn.Parameter(torch.tensor(values))

    def loss(self, encoder: nn.Module, points: Tensor, random: SampleRandom) -> Tensor:
        self.drawn = random.uniform()
        return self.values


class TestGAST(PretextTester):
    MIXES = True

    def build(self, encoder: PointNet, **options: object) -> Combined:
        distortion = DistortionLocation(classifier(encoder, LOCATIONS))
        rotation = MixedRotation(classifier(encoder, TURNS), classifier(encoder, TURNS))
        return Combined("gast", [(part, GAST_WEIGHTS[part.name]) for part in (distortion, rotation)])

    def test_the_loss_is_the_weighted_sum_in_the_order_of_the_parts(self):
        encoder, task = self.pair()
        random, points = draws(), some_clouds()
        distortion, rotation = task.parts.values()
        expected = 0.5 * distortion.loss(encoder, points, random) + 0.2 * rotation.loss(encoder, points, random)
        torch.testing.assert_close(task.loss(encoder, points, draws()), expected)


def test_parts_are_weighted_sample_by_sample_and_their_means_are_kept() -> None:
    parts = Fixed("a", [1.0, 2.0]), Fixed("b", [10.0, 30.0])
    task = Combined("both", [(parts[0], 0.5), (parts[1], 0.2)])
    loss = task.loss(nn.Identity(), torch.zeros(2, 16, 3), draws((0, 1)))
    torch.testing.assert_close(loss, torch.tensor([2.5, 7.0]))
    assert {name: mean.item() for name, mean in task.means.items()} == {"a": 1.5, "b": 20.0}
    assert not any(mean.requires_grad for mean in task.means.values())
    assert task.measures() == {"both/a": 1.5, "both/b": 20.0}
    loss.sum().backward()
    assert parts[0].values.grad is not None and parts[0].values.grad.tolist() == [0.5, 0.5]
    assert parts[1].values.grad is not None
    torch.testing.assert_close(parts[1].values.grad, torch.tensor([0.2, 0.2]))
    assert not torch.equal(parts[0].drawn, parts[1].drawn)  # numbers of their own


def test_heads_of_all_parts_are_trained_and_saved_under_their_names() -> None:
    task = Combined("both", [(Fixed("a", [1.0]), 0.5), (Fixed("b", [1.0]), 0.2)])
    assert task.name == "both" and sorted(task.state_dict()) == ["parts.a.values", "parts.b.values"]


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_no_parts_or_two_of_one_name_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="parts: expected at least one, with names of their own"):
        Combined("c", [(Fixed(name, [1.0]), 1.0) for name in names])
