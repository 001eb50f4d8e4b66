import math

import pytest
import torch
from torch import Tensor

from dense_testing import total
from isthmus.losses.adversary import MEMORY
from isthmus.losses.point_adversary import PointAdversary
from isthmus.models.point_discriminator import ChunkDiscriminator, PointDiscriminator

CHANNELS = 3


def values() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Sweeps of different lengths; one frame of each domain has no point."""
    torch.manual_seed(1)
    source = torch.randn(3, 6, CHANNELS).requires_grad_(), torch.arange(6) < torch.tensor([6, 0, 4])[:, None]
    target = torch.randn(3, 8, CHANNELS).requires_grad_(), torch.arange(8) < torch.tensor([8, 3, 0])[:, None]
    return source, target


def game(kind: str = "points", batch_norm: bool = False, **options: object) -> PointAdversary:
    torch.manual_seed(0)
    judge = (
        PointDiscriminator(CHANNELS, hidden=(5,), batch_norm=batch_norm)
        if kind == "points"
        else ChunkDiscriminator(CHANNELS, chunks=2, batch_norm=batch_norm)
    )
    return PointAdversary("2D", judge, **{"game": "non-saturating", "weight": 0.3, **options})


def chances(judge: PointDiscriminator, domain: tuple[Tensor, Tensor]) -> list[list[float]]:
    """rho of every point of the frames that have one, point by point."""
    found = []
    for frame, there in zip(*domain):
        logits = []
        for point in frame[there].detach():
            for layer in judge.layers:
                hidden = layer(point)
                point = torch.where(hidden > 0, hidden, 0.2 * hidden)
            logits.append(float(judge.logit(point).detach()))
        if logits:
            found.append([1 / (1 + math.exp(-logit)) for logit in logits])
    return found


def over_frames(frames: list[list[float]]) -> float:
    return sum(sum(frame) / len(frame) for frame in frames) / len(frames)


@pytest.mark.parametrize("sides", [(0.5, 0.5), (0.1, 0.2)])
@pytest.mark.parametrize("rule", ["literal", "non-saturating"])
def test_the_discriminators_loss_is_that_of_equation_5_weighted(rule, sides):
    """-log rho(S) - log(1 - rho(T)), the mean over points, then over frames with points."""
    adversary, (source, target) = game(game=rule, sides=sides), values()
    losses = adversary(source, target)
    judge = adversary.discriminator
    ours = over_frames([[-math.log(chance) for chance in frame] for frame in chances(judge, source)])
    theirs = over_frames([[-math.log(1 - chance) for chance in frame] for frame in chances(judge, target)])
    loss = losses["discriminator/2D"]
    assert float(loss.sum / loss.weight) == pytest.approx(sides[0] * ours + sides[1] * theirs, rel=1e-5)
    assert losses.keys() == ({"discriminator/2D"} if rule == "literal" else {"discriminator/2D", "adversary/2D"})


def test_the_networks_loss_calls_the_target_source():
    adversary, (source, target) = game(), values()
    loss = adversary(source, target)["adversary/2D"]
    expected = over_frames([[-math.log(each) for each in frame] for frame in chances(adversary.discriminator, target)])
    assert float(loss.sum / loss.weight) == pytest.approx(expected, rel=1e-5) and loss.coefficient == 0.3


@pytest.mark.parametrize("kind", ["points", "chunks"])
def test_literal_gives_the_network_minus_weight_times_the_discriminators_gradient(kind):
    (source, target), adversary = values(), game(kind, game="literal", weight=0.7)
    plain = game(kind, game="literal", weight=-1.0)  # minus one reverses nothing
    found, expected = [
        torch.autograd.grad(total(each(source, target)), [source[0], target[0], *each.discriminator.parameters()])
        for each in (adversary, plain)
    ]
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(one, -0.7 * other if index < 2 else other)
        assert other.any()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("kind", ["points", "chunks"])
def test_non_saturating_gives_the_sources_values_nothing_and_the_discriminator_its_own_loss_alone(kind, batch_norm):
    (source, target), adversary = values(), game(kind, batch_norm)
    losses = adversary(source, target)
    parameters = list(adversary.discriminator.parameters())
    ours = torch.autograd.grad(losses["adversary/2D"].sum, [source[0], target[0], *parameters], allow_unused=True)
    assert ours[0] is None and ours[1].any() and all(each is None for each in ours[2:])
    theirs = torch.autograd.grad(losses["discriminator/2D"].sum, [source[0], target[0], *parameters], allow_unused=True)
    assert theirs[0] is None and theirs[1] is None and all(each is not None for each in theirs[2:])
    assert not ours[1][~target[1]].any()


def test_both_games_pull_the_target_the_same_way_without_batch_norm():
    """-log rho falls where -log(1 - rho) grows."""
    source, target = values()
    (moved,) = torch.autograd.grad(game()(source, target)["adversary/2D"].sum, target[0])
    (literal,) = torch.autograd.grad(total(game(game="literal")(source, target)), target[0])
    assert float((moved * literal).sum()) > 0


@pytest.mark.parametrize("rule", ["literal", "non-saturating"])
@pytest.mark.parametrize("kind", ["points", "chunks"])
def test_batch_norm_does_not_hide_a_shift_of_the_target(kind, rule):
    """Normalised on its own, a target whose values are all too great would look like any other, and never be moved."""
    adversary = game(kind, True, game=rule)
    torch.manual_seed(1)
    source, there = torch.randn(3, 6, CHANNELS), torch.ones(3, 6, dtype=torch.bool)
    shift = torch.tensor(2.0, requires_grad=True)
    losses = adversary((source, there), (source + shift, there))
    (gradient,) = torch.autograd.grad(
        losses["adversary/2D" if rule == "non-saturating" else "discriminator/2D"].sum, shift
    )
    assert abs(float(gradient)) > 1e-4


def test_running_statistics_are_those_of_the_pass_from_which_the_discriminator_learns():
    adversary, plain = game("chunks", True), game("chunks", True)
    source, target = values()
    adversary(source, target)
    longer = torch.nn.functional.pad(source[0], (0, 0, 0, 2)), torch.nn.functional.pad(source[1], (0, 2))
    plain.discriminator(torch.cat([longer[0], target[0]]), torch.cat([longer[1], target[1]]))
    for (name, one), other in zip(adversary.discriminator.named_buffers(), plain.discriminator.buffers(), strict=True):
        if "running" in name:
            torch.testing.assert_close(one, other, msg=name)


def test_a_factor_weighs_the_targets_points_on_the_networks_side():
    (source, target), adversary = values(), game()
    factor = torch.rand(3, 8)
    loss = adversary(source, target, factor)["adversary/2D"]
    weighed = [
        [-float(w) * math.log(chance) for w, chance in zip(row[there], frame, strict=True)]
        for row, there, frame in zip(factor, target[1], chances(adversary.discriminator, target))
    ]
    assert float(loss.sum / loss.weight) == pytest.approx(over_frames(weighed), rel=1e-5)
    plain = game()(source, target)["discriminator/2D"].sum
    torch.testing.assert_close(adversary(source, target, factor)["discriminator/2D"].sum, plain)
    swapped = game()(target, source, torch.ones(3, 6))["adversary/2D"]  # the shorter sweeps, padded
    torch.testing.assert_close(swapped.sum, game()(target, source)["adversary/2D"].sum)


@pytest.mark.parametrize("options", [{"game": "literal"}, {"kind": "chunks"}])
def test_a_factor_that_would_be_ignored_is_refused(options):
    with pytest.raises(ValueError, match="factor: expected a non-saturating game with PointDiscriminator"):
        game(**options)(*values(), torch.ones(3, 8))


def test_accuracy_is_the_mean_of_the_domains_shares():
    adversary, (source, target) = game(), values()
    assert adversary.accuracy.isnan()
    adversary(source, target)
    shares = []
    for domain, is_source in ((source, True), (target, False)):
        told = [chance > 0.5 for frame in chances(adversary.discriminator, domain) for chance in frame]
        shares.append(sum(each == is_source for each in told) / len(told))
    first = sum(shares) / 2
    assert float(adversary.accuracy) == pytest.approx(first)
    adversary(target, source)  # everything that was right is wrong now
    assert float(adversary.accuracy) == pytest.approx(MEMORY * first + (1 - MEMORY) * (1 - first), abs=1e-6)


@pytest.mark.parametrize("rule", ["literal", "non-saturating"])
@pytest.mark.parametrize("kind", ["points", "chunks"])
def test_domains_without_a_point(kind, rule):
    (source, target), adversary = values(), game(kind, game=rule)
    nothing = target[0], torch.zeros_like(target[1])
    losses = adversary(source, nothing)
    half = losses["discriminator/2D"]
    full = game(kind, game=rule)(source, source)["discriminator/2D"]
    assert torch.isfinite(half.sum) and int(half.weight) == 2 and full.sum > 0
    if rule == "non-saturating":
        assert int(losses["adversary/2D"].weight) == 0
    none = adversary((source[0], torch.zeros_like(source[1])), nothing)
    assert all(float(loss.weight) == 0 and float(loss.sum.detach()) == 0 for loss in none.values())
    assert adversary.accuracy.isfinite()
