import math

import pytest
import torch

from dense_testing import LETTERS, NAMES, batch, channels, poisoned, rows, tasks, total
from isthmus.data.batch import Batch
from isthmus.losses.supervised import presence, supervised_losses

MIXED = ("S", "DN", "", "SDN", "N", "SD")


def outputs(like: Batch) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    height, width = like.inputs["image"].shape[2:]
    return {
        name: torch.randn(len(like), count, height, width, generator=generator).requires_grad_()
        for name, count in channels().items()
    }


def by_hand(task: str, output: torch.Tensor, label: torch.Tensor, valid: torch.Tensor) -> float:
    """The loss of one image, pixel by pixel, from its definition."""
    terms = []
    for y, x in valid.nonzero().tolist():
        found = output[:, y, x].double().tolist()
        if task == "segmentation":
            terms.append(math.log(sum(math.exp(value) for value in found)) - found[int(label[y, x])])
        elif task == "depth":
            terms.append(abs(found[0] - float(label[0, y, x])))
        else:
            truth = label[:, y, x].double().tolist()
            inner = sum(a * b for a, b in zip(found, truth))
            terms.append(1 - inner / math.sqrt(sum(a * a for a in found) * sum(b * b for b in truth)))
    return sum(terms) / len(terms) if terms else 0.0


def equation_1(like: Batch, out: dict[str, torch.Tensor], reduction: str, weights: dict[str, float]) -> float:
    images, result = 0, 0.0
    for n in range(len(like)):
        labelled = [name for name in NAMES if like.present[name][n]]
        if not labelled:
            continue
        images += 1
        image = 0.0
        for name in labelled:
            loss = by_hand(name, out[name][n].detach(), like.labels[name][n], like.valid[name][n])
            image += weights.get(name, 1.0) * loss
        result += image / len(labelled) if reduction == "mean" else image
    return result / images


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kept", [MIXED, ("SDN", "SDN"), ("S", "S", ""), ("D", "N", "S")])
def test_the_losses_add_up_to_equation_1(kept: tuple[str, ...], reduction: str) -> None:
    data = batch(kept)
    out = outputs(data)
    weights = {"depth": 3.0, "normals": 0.5}
    losses = supervised_losses(tasks(), out, data, reduction=reduction, task_weights=weights)  # type: ignore[arg-type]
    assert list(losses) == [f"{name}/source" for name in NAMES]
    assert float(total(losses).detach()) == pytest.approx(equation_1(data, out, reduction, weights), rel=1e-5)


def test_each_loss_counts_its_labels_and_divides_by_the_images_with_any() -> None:
    losses = supervised_losses(tasks(), outputs(batch(MIXED)), batch(MIXED))
    assert {name.split("/")[0]: int(loss.taking_part) for name, loss in losses.items()} == dict.fromkeys(NAMES, 3)
    assert all(loss.weight == 5 for loss in losses.values())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_whatever_an_absent_label_holds_changes_nothing_to_the_last_bit(reduction: str) -> None:
    found = []
    for data in (batch(MIXED), poisoned(batch(MIXED))):
        out = outputs(data)
        losses = supervised_losses(tasks(), out, data, reduction=reduction)  # type: ignore[arg-type]
        total(losses).backward()
        found.append([*(loss.sum for loss in losses.values()), *(out[name].grad for name in NAMES)])
    assert poisoned(batch(MIXED)).labels["depth"].isnan().any()
    for clean, other in zip(*found, strict=True):
        assert torch.equal(clean, other)


def test_gradients_reach_labelled_pixels_of_labelled_images_and_nothing_else() -> None:
    data = batch(MIXED)
    out = outputs(data)
    total(supervised_losses(tasks(), out, data)).backward()
    for name in NAMES:
        gradient = out[name].grad
        assert gradient is not None and gradient.isfinite().all()
        reached = gradient.ne(0).any(dim=1)
        assert torch.equal(reached, data.valid[name] & data.present[name][:, None, None]), name


def test_a_label_that_is_there_without_a_valid_pixel_is_zero_and_counts_among_the_labels_of_its_image() -> None:
    data = batch(["SD", "S"])
    data.valid["depth"][0] = False
    out = outputs(data)
    losses = supervised_losses(tasks(), out, data)
    total(losses).backward()
    assert losses["depth/source"].sum == 0 and losses["depth/source"].taking_part == 1
    assert out["depth"].grad is None or not out["depth"].grad.any()
    first, second = (
        by_hand("segmentation", out["segmentation"][n].detach(), data.labels["segmentation"][n],
                data.valid["segmentation"][n]) for n in (0, 1)
    )  # fmt: skip
    assert float(losses["segmentation/source"].sum.detach()) == pytest.approx(first / 2 + second, rel=1e-5)


def test_a_task_that_no_image_is_labelled_for_has_no_gradient_but_divides_by_the_same_images() -> None:
    data = batch(["S", "SD", ""])
    out = outputs(data)
    losses = supervised_losses(tasks(), out, data)
    total(losses).backward()
    absent = losses["normals/source"]
    assert not absent.sum.requires_grad and absent.taking_part == 0 and absent.weight == 2
    assert out["normals"].grad is None


def test_an_image_without_any_label_changes_nothing() -> None:
    data = batch(MIXED)
    kept = [n for n, names in enumerate(MIXED) if names]
    without = Batch(
        "source",
        {"image": data.inputs["image"][kept]},
        {name: label[kept] for name, label in data.labels.items()},
        {name: mask[kept] for name, mask in data.present.items()},
        data.sample_id[kept],
        {name: mask[kept] for name, mask in data.valid.items()},
    )
    out = outputs(data)
    whole = supervised_losses(tasks(), out, data)
    part = supervised_losses(tasks(), {name: o[kept] for name, o in out.items()}, without)
    for name in whole:
        assert torch.equal(whole[name].sum, part[name].sum) and whole[name].weight == part[name].weight


def test_a_batch_without_any_label_has_losses_that_vanish() -> None:
    losses = supervised_losses(tasks(), outputs(batch(["", ""])), batch(["", ""]))
    assert all(loss.weight == 0 and not loss.sum.requires_grad for loss in losses.values())


def test_two_halves_of_a_batch_add_up_to_the_batch() -> None:
    data = batch(MIXED)
    out = outputs(data)
    whole = supervised_losses(tasks(), out, data)
    halves = [
        supervised_losses(tasks(), {name: o[part] for name, o in out.items()}, rows(data, part))
        for part in (slice(0, 3), slice(3, 6))
    ]
    for name in whole:
        torch.testing.assert_close(sum(half[name].sum for half in halves), whole[name].sum)
        assert sum(half[name].weight for half in halves) == whole[name].weight


def test_presence_has_a_column_for_each_task_in_their_order() -> None:
    expected = [[letter in names for letter in LETTERS] for names in MIXED]
    assert presence(tasks(), batch(MIXED)).tolist() == expected


def test_presence_of_a_task_that_the_batch_does_not_know_is_none() -> None:
    data = batch(["SD", "S"])
    del data.labels["normals"], data.present["normals"], data.valid["normals"]
    assert presence(tasks(), data)[:, 2].tolist() == [False, False]
    losses = supervised_losses(tasks(), outputs(data), data)
    assert losses["normals/source"].taking_part == 0
