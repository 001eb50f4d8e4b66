import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.losses.adversary import Adversary, cross_entropy, region, self_information
from isthmus.losses.reversal import dann_ramp
from isthmus.losses.weighted import Loss
from isthmus.models.patch_discriminator import PatchDiscriminator

HALF = Progress(seed=0, stage=0, step=50, steps=100)
IDS = ([0, 1, 2], [3, 4])


def total(losses: dict[str, Loss]) -> Tensor:
    return sum((loss.coefficient * loss.sum / loss.weight for loss in losses.values()), torch.zeros(()))


def maps() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return (torch.randn(3, 2, 6, 5).requires_grad_(), torch.randn(2, 2, 6, 5).requires_grad_())


def adversary(**options: object) -> Adversary:
    torch.manual_seed(0)
    settings = {"game": "reversal", "weight": 0.3, **options}
    return Adversary("up1", PatchDiscriminator(2, layers=2, hidden=3), **settings)  # type: ignore[arg-type]


def by_hand(net: PatchDiscriminator, source: Tensor, target: Tensor) -> tuple[float, float]:
    """Mean cross-entropies of the two domains, patch by patch."""
    found = []
    for values, label in ((source, 1), (target, 0)):
        logits = net(values).flatten().tolist()
        right = [1 / (1 + math.exp(-logit)) if label else 1 - 1 / (1 + math.exp(-logit)) for logit in logits]
        found.append(-sum(math.log(p) for p in right) / len(right))
    return found[0], found[1]


def test_the_discriminators_loss_is_the_mean_over_both_domains() -> None:
    for game in ("reversal", "non-saturating"):
        game_on, (source, target) = adversary(game=game), maps()
        losses = game_on(source, target, HALF, IDS)
        first, second = by_hand(game_on.discriminator, source, target)
        loss = losses["discriminator/up1"]
        assert float(loss.sum / loss.weight) == pytest.approx(0.5 * first + 0.5 * second, rel=1e-5)


def test_reversal_pushes_the_maps_against_the_discriminator_and_the_discriminator_along() -> None:
    game, (source, target) = adversary(), maps()
    total(game(source, target, HALF, IDS)).backward()
    reversed_gradients = [source.grad.clone(), target.grad.clone()]
    learnt = [p.grad.clone() for p in game.discriminator.parameters()]
    plain, (source, target) = adversary(), maps()
    logits = [plain.discriminator(each) for each in (source, target)]
    told = 0.5 * cross_entropy(logits[0], torch.ones(3)).mean() + 0.5 * cross_entropy(logits[1], torch.zeros(2)).mean()
    told.backward()
    for ours, theirs in zip(reversed_gradients, (source.grad, target.grad)):
        torch.testing.assert_close(ours, -0.3 * theirs)
    for ours, parameter in zip(learnt, plain.discriminator.parameters()):
        torch.testing.assert_close(ours, parameter.grad)


def test_non_saturating_moves_target_maps_towards_source_and_nothing_else() -> None:
    game, (source, target) = adversary(game="non-saturating"), maps()
    losses = game(source, target, HALF, IDS)
    assert list(losses) == ["discriminator/up1", "adversary/up1"]
    total({"adversary/up1": losses["adversary/up1"]}).backward()
    assert source.grad is None and all(p.grad is None for p in game.discriminator.parameters())
    with torch.no_grad():
        before = game.discriminator(target).mean()
        after = game.discriminator(target - 0.5 * target.grad / target.grad.abs().max()).mean()
    assert after > before
    target.grad = None
    total({"discriminator/up1": losses["discriminator/up1"]}).backward()
    assert source.grad is None and target.grad is None
    assert all(p.grad is not None for p in game.discriminator.parameters())


def test_one_step_of_the_discriminator_tells_the_domains_better_apart() -> None:
    game, (source, target) = adversary(game="non-saturating"), maps()
    before = game(source, target, HALF, IDS)["discriminator/up1"]
    (before.sum / before.weight).backward()
    with torch.no_grad():
        for parameter in game.discriminator.parameters():
            parameter -= 0.1 * parameter.grad
    after = game(source, target, HALF, IDS)["discriminator/up1"]
    assert after.sum < before.sum


def test_a_late_start_and_the_ramp() -> None:
    game, (source, target) = adversary(start=0.6, game="non-saturating"), maps()
    early = game(source, target, HALF, IDS)
    assert list(early) == ["discriminator/up1", "adversary/up1"]
    assert all(float(loss.taking_part) == 0 and not loss.sum.requires_grad for loss in early.values())
    assert game.accuracy.isnan()
    ramped = adversary(start=0.2, ramp=True, game="non-saturating")
    loss = ramped(source, target, HALF, IDS)["adversary/up1"]
    assert loss.coefficient == pytest.approx(0.3 * dann_ramp(0.3 / 0.8))


def test_before_the_start_there_is_no_accuracy_not_even_of_an_earlier_stage() -> None:
    game, (source, target) = adversary(start=0.4), maps()
    game(source, target, HALF, IDS)
    assert game.accuracy.isfinite()
    game(source, target, HALF._replace(stage=1, step=39), IDS)
    assert game.accuracy.isnan()


def test_batch_norm_of_a_discriminator_sees_both_domains_on_both_sides_of_the_game() -> None:
    """Normalised on their own, target maps that are too bright would look like any other, and never be moved."""
    torch.manual_seed(0)
    judge = PatchDiscriminator(2, layers=2, hidden=3, batch_norm=True)
    game = Adversary("up1", judge, game="non-saturating", weight=1.0)
    torch.manual_seed(1)
    source, shift = torch.randn(3, 2, 6, 5), torch.tensor(3.0, requires_grad=True)
    target = torch.randn(2, 2, 6, 5) + shift
    statistics = {name: buffer.clone() for name, buffer in judge.norms.named_buffers() if "running" in name}
    loss = game(source, target, HALF, IDS)["adversary/up1"]
    expected = cross_entropy(judge(torch.cat([source, target]))[3:], torch.ones(2)).sum()
    torch.testing.assert_close(loss.sum, expected)
    (gradient,) = torch.autograd.grad(loss.sum, shift)
    assert abs(float(gradient)) > 1e-3
    assert all(not torch.equal(buffer, statistics[n]) for n, buffer in judge.norms.named_buffers() if n in statistics)
    judge.eval()
    fixed = Adversary("up1", judge, game="non-saturating", weight=1.0)(source, target, HALF, IDS)["adversary/up1"]
    torch.testing.assert_close(fixed.sum, cross_entropy(judge(target), torch.ones(2)).sum())


def test_the_networks_side_leaves_the_running_statistics_alone() -> None:
    """They are those of the one pass from which the discriminator learns."""
    torch.manual_seed(0)
    ours, plain = (PatchDiscriminator(2, layers=2, hidden=3, batch_norm=True) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    source, target = maps()
    Adversary("up1", ours, game="non-saturating", weight=1.0)(source, target, HALF, IDS)
    plain(torch.cat([source, target]))
    for name, buffer in plain.norms.named_buffers():
        if "running" in name:
            torch.testing.assert_close(dict(ours.norms.named_buffers())[name], buffer)


def test_noise_on_labels_and_inputs_depends_on_the_samples_alone() -> None:
    source, target = maps()
    noisy = adversary(input_noise=0.5, label_noise=0.3)
    first = noisy(source, target, HALF, IDS)["discriminator/up1"].sum
    again = noisy(source, target, HALF, IDS)["discriminator/up1"].sum
    later = noisy(source, target, HALF._replace(step=51), IDS)["discriminator/up1"].sum
    assert torch.equal(first, again) and not torch.equal(first, later)
    wrong = adversary(label_noise=0.5)
    draws = torch.cat([HALF.random(f"adversary/up1/{d}", ids).uniform() for d, ids in zip(("source", "target"), IDS)])
    flipped = draws < 0.5
    assert flipped.any() and not flipped.all()
    logits = torch.cat([wrong.discriminator(each) for each in (source, target)])
    labels = torch.where(flipped, 1 - torch.tensor([1.0, 1, 1, 0, 0]), torch.tensor([1.0, 1, 1, 0, 0]))
    share = torch.tensor([1 / 3] * 3 + [1 / 2] * 2) / 2
    expected = (share * cross_entropy(logits, labels)).sum()
    loss = wrong(source, target, HALF, IDS)["discriminator/up1"]
    torch.testing.assert_close(loss.sum / loss.weight, expected)


def test_accuracy_is_a_running_mean_of_patches_told_right() -> None:
    game, (source, target) = adversary(), maps()
    game(source, target, HALF, IDS)
    right = 0.5 * float((game.discriminator(source) > 0).float().mean())
    right += 0.5 * float((game.discriminator(target) <= 0).float().mean())
    assert float(game.accuracy) == pytest.approx(right)
    game(target, source, HALF, (IDS[1], IDS[0]))
    swapped = 0.5 * float((game.discriminator(target) > 0).float().mean())
    swapped += 0.5 * float((game.discriminator(source) <= 0).float().mean())
    assert float(game.accuracy) == pytest.approx(0.98 * right + 0.02 * swapped)


def test_self_information_is_advents() -> None:
    probabilities = torch.softmax(torch.randn(2, 5, 3, 3), dim=1)
    expected = -probabilities * torch.log2(probabilities) / math.log2(5)
    torch.testing.assert_close(self_information(probabilities), expected)
    assert not self_information(F.one_hot(torch.tensor([[0]]), 5).permute(0, 2, 1)[..., None].float()).any()
    with pytest.raises(ValueError, match="at least 2 classes"):
        self_information(torch.ones(1, 1, 2, 2))


def test_regions_follow_labels_and_are_everywhere_without_one() -> None:
    labels = torch.tensor([[[0, 1], [2, 0]], [[0, 0], [0, 0]]])
    points = torch.tensor([[[0.1, 0.1, 0.0], [0.6, 0.4, 0.0], [0.0, 0.0, 0.0]]]).repeat(2, 1, 1)
    batch = Batch(
        "target",
        {"image": torch.zeros(2, 3, 2, 2)},
        {"segmentation": labels, "keypoints": points},
        {"segmentation": torch.tensor([True, False]), "keypoints": torch.tensor([True, False])},
        torch.arange(2),
        {
            "segmentation": torch.ones(2, 2, 2, dtype=torch.bool),
            "keypoints": torch.tensor([[True, True, False]]).repeat(2, 1),
        },
    )
    by_class = region(batch, "segmentation", (4, 4))
    assert by_class[0, 0, :2, 2:].all() and by_class[0, 0, 2:, :2].all() and by_class[0].sum() == 8
    assert by_class[1].all()
    box = region(batch, "keypoints", (10, 10))
    assert box[1].all() and box[0].sum() == 3 * 5  # rows 1 to 3, columns 1 to 5 have their centres inside
    assert box[0, 0, 1, 1] == 1 and box[0, 0, 0, 1] == 0 and box[0, 0, 1, 6] == 0
