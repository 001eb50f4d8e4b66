import pytest
import torch
import torch.nn.functional as F
from dense_methods import built
from torch import Tensor

from dense_testing import HEIGHT, NAMES, PROGRESS, WIDTH, batch, gradients, segnet, tasks, total
from isthmus.data.image_augment import ImageAugment
from isthmus.losses.supervised import supervised_losses
from isthmus.methods.semi_supervised import SemiSupervised

MIXED = ("S", "DN", "", "SDN", "N", "D")
AUGMENT = ImageAugment(scales=(1.0, 1.2, 2.0), flip=0.5)


def method(augment: ImageAugment = AUGMENT, names: tuple[str, ...] = NAMES, **options: object) -> SemiSupervised:
    chosen = {name: task for name, task in tasks().items() if name in names}
    wanted = {name: task.channels for name, task in chosen.items()}
    return built(lambda: SemiSupervised(segnet(wanted), chosen, augment, **options))


def cropped(maps: Tensor, box: tuple[int, int, int, int], flipped: bool) -> Tensor:
    """The box (top, left, height, width) at full size, corners on corners. Shape: ``(1, C, H, W)``."""
    top, left, height, width = box
    part = maps[:, :, top : top + height, left : left + width]
    part = part.flip(-1) if flipped else part
    return F.interpolate(part, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=True)


def equation_2(model: SemiSupervised, kept: tuple[str, ...]) -> Tensor:
    """The mean over images of the sum over U_n, one image and one crop at a time."""
    data = batch(kept)
    window = model.augment.window(
        PROGRESS.random("view/source", data.sample_id.tolist()), HEIGHT, WIDTH, torch.device("cpu")
    )
    result = torch.zeros(())
    for n in range(len(data)):
        image = data.inputs["image"][n : n + 1]
        zoom, flipped = float(window.scale[n]), bool(window.flipped[n])
        box = (int(window.top[n]), int(window.left[n]), int(HEIGHT / zoom + 1e-6), int(WIDTH / zoom + 1e-6))
        whole = model.network(image).outputs
        part = model.network(cropped(image, box, flipped)).outputs
        unlabelled = [name for name in model.tasks if not data.present[name][n]]
        for name in unlabelled:
            before = cropped(model.tasks[name].activate(whole[name]), box, flipped)
            if name == "depth":
                before = before / zoom
            if name == "normals":
                before = before * torch.tensor([-1.0 if flipped else 1.0, 1.0, 1.0])[:, None, None]
                before = before / before.norm(dim=1, keepdim=True)
            term = (before - model.tasks[name].activate(part[name])).square().mean()
            result = result + (term / len(unlabelled) if model.reduction == "mean" else term)
    return result / len(data)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_term_is_that_of_equation_2(reduction: str) -> None:
    model = method(reduction=reduction, weight=0.7)
    draws = PROGRESS.random("view/source", range(6))
    window = AUGMENT.window(draws, HEIGHT, WIDTH, torch.device("cpu"))
    assert window.flipped.any() and not window.flipped.all() and len(window.scale.unique()) > 1
    loss = model({"source": batch(MIXED)}, PROGRESS)["consistency/source"]
    expected = equation_2(model, MIXED)
    assert loss.coefficient == 0.7 and loss.weight == 6 and loss.taking_part == 5
    torch.testing.assert_close(loss.sum / loss.weight, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_each_task_is_moved_with_its_crop(name: str) -> None:
    """Depths are divided by the zoom, normals mirrored: with one task alone, an error cannot hide behind others."""
    model = method(names=(name,))
    kept = ("",) * 6
    loss = model({"source": batch(kept)}, PROGRESS)["consistency/source"]
    torch.testing.assert_close(loss.sum / loss.weight, equation_2(model, kept), rtol=1e-4, atol=1e-7)


def test_the_gradient_flows_through_both_predictions() -> None:
    found, expected = method(), method()
    loss = found({"source": batch(MIXED)}, PROGRESS)["consistency/source"]
    (loss.sum / loss.weight).backward()
    equation_2(expected, MIXED).backward()
    wanted = gradients(expected)
    assert gradients(found).keys() == wanted.keys()
    for name, gradient in gradients(found).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-6)


def test_the_same_view_has_nothing_to_say() -> None:
    model = method(ImageAugment(scales=(1.0,), flip=0.0))
    loss = model({"source": batch(MIXED)}, PROGRESS)["consistency/source"]
    assert float(loss.sum.detach()) == pytest.approx(0, abs=1e-8)


def test_labelled_tasks_are_left_alone() -> None:
    model = method()
    losses = model({"source": batch(("SDN", "SDN"))}, PROGRESS)
    assert losses["consistency/source"].sum == 0 and losses["consistency/source"].taking_part == 0
    total({"": losses["consistency/source"]}).backward()
    assert not gradients(model)
    one_left = model({"source": batch(("SD", "SDN"))}, PROGRESS)["consistency/source"]
    model.zero_grad()
    total({"": one_left}).backward()
    heads = {name.split(".")[2] for name in gradients(model) if "heads" in name}
    assert heads == {"normals"} and one_left.taking_part == 1


def test_the_supervised_part_is_equation_1_of_the_whole_view() -> None:
    model, data = method(), batch(MIXED)
    losses = model({"source": data}, PROGRESS)
    expected = supervised_losses(model.tasks, model.network(data.inputs["image"]).outputs, data)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name].sum, loss.sum)
