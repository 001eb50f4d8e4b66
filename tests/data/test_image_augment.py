from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_testing import HEIGHT, NAMES, PROGRESS, WIDTH, batch, poisoned, rows
from isthmus.data.batch import Batch
from isthmus.data.image_augment import ImageAugment, Window
from isthmus.data.randomness import SampleRandom

KEPT = ("SDN", "SD", "N", "")


def window(top: float = 0, left: float = 0, scale: float = 1, flipped: bool = False, size: int = 1) -> Window:
    return Window(*(torch.full((size,), float(v)) for v in (top, left, scale)), torch.full((size,), flipped))


def box(seen: Window, n: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[slice, slice]:
    top, left, scale = int(seen.top[n]), int(seen.left[n]), float(seen.scale[n])
    return slice(top, top + int(height / scale + 1e-6)), slice(left, left + int(width / scale + 1e-6))


def random(ids: range | list[int], step: int = 0) -> SampleRandom:
    return PROGRESS._replace(step=step).random("augment/source", list(ids))


def of(name: str, label: torch.Tensor, valid: torch.Tensor | None = None) -> Batch:
    """A batch of one with one label and an image of zeros."""
    height, width = label.shape[-2:]
    mask = torch.ones(1, height, width, dtype=torch.bool) if valid is None else valid
    return Batch(
        "source", {"image": torch.zeros(1, 3, height, width)}, {name: label}, {name: torch.tensor([True])},
        torch.tensor([0]), {name: mask},
    )  # fmt: skip


def close_where_valid(found: torch.Tensor, expected: torch.Tensor, valid: torch.Tensor) -> None:
    assert valid.any()
    mask = valid[:, None].expand_as(found)
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-5)


def test_looking_at_everything_changes_nothing() -> None:
    data = batch(KEPT)
    seen = ImageAugment().through(data, window(size=4))
    # bilinear weights are computed, so values of images and normals may differ in the last bits; what lies at a pixel
    # without a normal is nobody's business, and a trace of its neighbours is brought to unit length there
    torch.testing.assert_close(seen.inputs["image"], data.inputs["image"], rtol=0, atol=1e-5)
    close_where_valid(seen.labels["normals"], data.labels["normals"], data.valid["normals"])
    for name in ("segmentation", "depth"):
        assert torch.equal(seen.labels[name], data.labels[name])
    for name in NAMES:
        assert torch.equal(seen.valid[name], data.valid[name]) and torch.equal(seen.present[name], data.present[name])
    assert torch.equal(seen.sample_id, data.sample_id)


@pytest.mark.parametrize("scale", [1.0, 1.2, 1.5, 2.0])
@pytest.mark.parametrize("flipped", [False, True])
def test_an_image_is_its_window_brought_back_to_full_size(scale: float, flipped: bool) -> None:
    data, seen = batch(("S",)), window(2, 3, scale, flipped) if scale > 1 else window(flipped=flipped)
    found = ImageAugment().through(data, seen).inputs["image"]
    part = data.inputs["image"][(..., *box(seen, 0))]
    expected = F.interpolate(part.flip(-1) if flipped else part, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pure_flip_mirrors_labels_and_the_first_component_of_normals() -> None:
    data = batch(KEPT)
    seen = ImageAugment().through(data, window(flipped=True, size=4))
    for name in ("segmentation", "depth"):
        assert torch.equal(seen.labels[name], data.labels[name].flip(-1))
    mirrored = data.labels["normals"].flip(-1) * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    close_where_valid(seen.labels["normals"], mirrored, data.valid["normals"].flip(-1))
    for name in NAMES:
        assert torch.equal(seen.valid[name], data.valid[name].flip(-1))


@pytest.mark.parametrize("scale", [1.2, 1.5, 2.0])
def test_metric_depth_is_divided_by_the_zoom_and_inverse_depth_multiplied(scale: float) -> None:
    flat = torch.full((1, 1, HEIGHT, WIDTH), 3.0)
    seen = window(scale=scale)
    for name, option, expected in (
        ("depth", "multiply", 3 / scale),
        ("depth", "divide", 3 / scale),
        ("inverse_depth", "multiply", 3 * scale),
        ("inverse_depth", "divide", 3 / scale),
    ):
        found = ImageAugment(inverse_depth=option).through(of(name, flat), seen).labels[name]  # type: ignore[arg-type]
        torch.testing.assert_close(found, torch.full_like(flat, expected))


def test_depth_and_inverse_depth_stay_inverse_to_each_other() -> None:
    depth = 0.5 + 4 * torch.rand(1, 1, HEIGHT, WIDTH)
    seen = window(1, 2, 1.5, True)
    one, other = (
        ImageAugment().through(of(name, label), seen).labels[name]
        for name, label in (("depth", depth), ("inverse_depth", 1 / depth))
    )
    torch.testing.assert_close(one * other, torch.ones_like(one))


def test_normals_are_unit_vectors_again_after_the_interpolation_unless_asked() -> None:
    data, seen = batch(("N",)), window(1, 1, 1.5)
    data.valid["normals"][:] = True
    data.labels["normals"] = F.normalize(
        torch.randn(1, 3, HEIGHT, WIDTH) + torch.tensor([0.0, 0, 1])[:, None, None], dim=1
    )
    lengths = ImageAugment().through(data, seen).labels["normals"].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    plain = ImageAugment(normals="interpolate").through(data, seen).labels["normals"]
    expected = F.interpolate(
        data.labels["normals"][(..., *box(seen, 0))], (HEIGHT, WIDTH), mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-5)
    assert plain.norm(dim=1).min() < 0.9


@given(seed=st.integers(0, 1000), values=st.lists(st.integers(0, 254), min_size=1, max_size=5, unique=True))
@settings(max_examples=30, deadline=None)
def test_class_maps_hold_only_values_that_were_there(seed: int, values: list[int]) -> None:
    generator = np.random.default_rng(seed)
    label = torch.from_numpy(generator.choice(values, size=(1, HEIGHT, WIDTH)).astype(np.int64))
    found = ImageAugment()(of("parts", label), SampleRandom([seed], seed=0, stage=0, step=0, purpose="augment"))
    assert set(found.labels["parts"].unique().tolist()) <= set(values)
    assert found.labels["parts"].dtype == torch.int64


def test_image_and_labels_stay_aligned() -> None:
    """The image shows its own coordinates; a label is the coordinate of the pixel nearest to where it was looked at."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    image = torch.stack([x / WIDTH, y / HEIGHT, torch.zeros_like(x)]).float().expand(32, -1, -1, -1)
    number = (y * WIDTH + x).expand(32, -1, -1)
    valid = (x % 5 != 0).expand(32, -1, -1)
    labels = {"segmentation": number, "depth": 1.0 + number[:, None], "edges": number}
    data = Batch(
        "source", {"image": image}, labels, {name: torch.ones(32, dtype=torch.bool) for name in labels},
        torch.arange(32), {name: valid for name in labels},
    )  # fmt: skip
    augment = ImageAugment()
    view = augment.window(random(range(32)), HEIGHT, WIDTH, torch.device("cpu"))
    seen = augment(data, random(range(32)))
    at_x, at_y = seen.inputs["image"][:, 0] * WIDTH, seen.inputs["image"][:, 1] * HEIGHT
    for name, found in seen.labels.items():
        place = (found[:, 0] * view.scale[:, None, None] - 1 if name == "depth" else found).round().long()
        assert ((place % WIDTH - at_x).abs() <= 0.5 + 1e-3).all(), name
        assert ((place // WIDTH - at_y).abs() <= 0.5 + 1e-3).all(), name
        assert torch.equal(seen.valid[name], place % WIDTH % 5 != 0), name
    assert view.flipped.any() and not view.flipped.all() and len(view.scale.unique()) == 3


def test_windows_lie_inside_the_image_and_reach_all_of_it() -> None:
    for height, width in ((HEIGHT, WIDTH), (17, 31), (288, 384)):
        view = ImageAugment().window(random(range(400)), height, width, torch.device("cpu"))
        assert sorted(view.scale.unique().tolist()) == pytest.approx([1.0, 1.2, 1.5])
        assert 0.4 < view.flipped.float().mean() < 0.6
        for n in range(400):
            down, right = box(view, n, height, width)
            assert down.start >= 0 and down.stop <= height and right.start >= 0 and right.stop <= width
        grid = view.grid(height, width)
        assert grid.abs().max() <= 1 + 1e-5 and grid.min() == pytest.approx(-1) and grid.max() == pytest.approx(1)


@pytest.mark.parametrize("size", [24, 32, 48, 64, 96, 128, 256, 288, 384, 512])
def test_a_crop_has_as_many_pixels_as_the_released_code_takes(size: int) -> None:
    for scale in (1.0, 1.2, 1.25, 1.5, 2.0):
        edge = window(scale=scale).grid(size, size)[0, -1, -1]
        last = (float(edge[1]) + 1) / 2 * (size - 1)
        assert last == pytest.approx(int(size / scale) - 1, abs=1e-3), (size, scale)


def test_a_view_depends_on_seed_step_and_sample_and_not_on_its_neighbours() -> None:
    data = batch(KEPT, first=10)
    augment = ImageAugment()
    together = augment(data, random(range(10, 14)))
    for n in range(4):
        alone = augment(rows(data, slice(n, n + 1)), random([10 + n]))
        assert torch.equal(alone.inputs["image"][0], together.inputs["image"][n])
        for name in NAMES:
            assert torch.equal(alone.labels[name][0], together.labels[name][n])
            assert torch.equal(alone.valid[name][0], together.valid[name][n])
    other = augment(data, random(range(10, 14), step=1))
    assert not torch.equal(other.inputs["image"], together.inputs["image"])


def test_a_label_without_a_valid_pixel_in_the_window_becomes_absent() -> None:
    data = batch(("SD", "SD"))
    data.valid["segmentation"][0] = False
    data.valid["segmentation"][0, -1, -1] = True
    seen = ImageAugment().through(data, window(scale=2.0, size=2))
    assert seen.present["segmentation"].tolist() == [False, True] and not seen.valid["segmentation"][0].any()
    assert seen.present["depth"].tolist() == [True, True]
    kept = ImageAugment().through(data, window(HEIGHT // 2, WIDTH // 2, 2.0, size=2))
    assert kept.present["segmentation"].tolist() == [True, True]


def test_an_absent_label_stays_absent_and_spoils_nothing() -> None:
    one, other = (ImageAugment()(data, random(range(4))) for data in (batch(KEPT), replace(poisoned(batch(KEPT)))))
    for name in NAMES:
        assert torch.equal(one.present[name], other.present[name])
        carried = one.present[name]
        assert torch.equal(one.labels[name][carried], other.labels[name][carried])
        assert torch.equal(one.valid[name][carried], other.valid[name][carried])


def test_what_came_in_is_left_as_it_was() -> None:
    data, copy = batch(KEPT), batch(KEPT)
    ImageAugment()(data, random(range(4)))
    for name in NAMES:
        assert torch.equal(data.labels[name], copy.labels[name]) and torch.equal(data.valid[name], copy.valid[name])
    assert torch.equal(data.inputs["image"], copy.inputs["image"])


def test_a_colour_shift_adds_one_number_per_channel_and_leaves_labels_and_windows_alone() -> None:
    data = batch(KEPT)
    still, shifted = (ImageAugment(flip=0.5, colour_shift=s)(data, random(range(4))) for s in (0.0, 0.2))
    inside = (still.inputs["image"] > 0.2) & (still.inputs["image"] < 0.8)
    added = shifted.inputs["image"] - still.inputs["image"]
    numbers = []
    for row in range(4):
        for channel in range(3):
            values = added[row, channel][inside[row, channel]]
            torch.testing.assert_close(values, values[:1].expand_as(values), rtol=0, atol=1e-6)
            numbers.append(float(values[0]))
    assert len({round(n, 5) for n in numbers}) == 12 and all(abs(n) <= 0.2 for n in numbers)
    assert max(numbers) > 0.05 and min(numbers) < -0.05
    assert shifted.inputs["image"].min() >= 0 and shifted.inputs["image"].max() <= 1
    for name in NAMES:
        assert torch.equal(shifted.labels[name], still.labels[name])
