import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.geometry.pixels import containing_pixels, corners, pixel_rows, sample_pixels


def link(seed: int, batch: int, points: int, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> tuple:
    """Features, places (some beyond the border) and who is present, never nobody at all if there are points."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, 3, *size, generator=generator, dtype=dtype)
    pixels = torch.rand(batch, points, 2, generator=generator, dtype=dtype) * (torch.tensor(size) + 2) - 1
    present = torch.rand(batch, points, generator=generator) < 0.7
    return features, pixels, present


def nearest_by_hand(features: Tensor, pixels: Tensor, present: Tensor) -> Tensor:
    batch, channels, height, width = features.shape
    found = features.new_zeros(batch, pixels.shape[1], channels)
    for b in range(batch):
        for n in range(pixels.shape[1]):
            if present[b, n]:
                row, column = (math.floor(place) for place in pixels[b, n].tolist())
                found[b, n] = features[b, :, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
    return found


def bilinear_by_hand(features: Tensor, pixels: Tensor, present: Tensor) -> Tensor:
    """A tent around every pixel centre, in four loops, with the place first moved onto the outermost centres."""
    batch, channels, height, width = features.shape
    found = features.new_zeros(batch, pixels.shape[1], channels)
    for b in range(batch):
        for n in range(pixels.shape[1]):
            if not present[b, n]:
                continue
            row, column = pixels[b, n].tolist()
            row, column = min(max(row, 0.5), height - 0.5), min(max(column, 0.5), width - 0.5)
            for i in range(height):
                for j in range(width):
                    weight = max(0.0, 1 - abs(row - i - 0.5)) * max(0.0, 1 - abs(column - j - 0.5))
                    found[b, n] += weight * features[b, :, i, j]
    return found


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**16), st.integers(1, 3), st.integers(0, 7), st.integers(1, 5), st.integers(1, 5),
    st.sampled_from(["nearest", "bilinear"]), st.booleans(),
)  # fmt: skip
def test_samples_are_those_of_slow_loops(seed, batch, points, height, width, mode, channels_last):
    features, pixels, present = link(seed, batch, points, (height, width))
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)
    by_hand = nearest_by_hand if mode == "nearest" else bilinear_by_hand
    torch.testing.assert_close(sample_pixels(features, pixels, present, mode), by_hand(features, pixels, present))


def test_every_pixel_is_found_at_its_centre_and_everywhere_within_it():
    features = torch.arange(12.0).view(1, 1, 3, 4)
    grid = torch.stack(torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij"), dim=2).view(1, 12, 2)
    there = torch.ones(1, 12, dtype=torch.bool)
    for place in (0.0, 0.5, 0.999):
        assert sample_pixels(features, grid + place, there).flatten().tolist() == list(range(12))
    assert sample_pixels(features, grid + 0.5, there, "bilinear").flatten().tolist() == list(range(12))


def test_the_far_border_belongs_to_the_last_pixel():
    features = torch.arange(6.0).view(1, 1, 2, 3)
    for mode in ("nearest", "bilinear"):
        far = torch.tensor([[[2.0, 3.0], [1e30, torch.inf], [-1e30, -torch.inf]]])
        assert sample_pixels(features, far, torch.ones(1, 3, dtype=torch.bool), mode).flatten().tolist() == [5, 5, 0]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_absent_points_are_zero_and_not_read_and_get_no_gradient(mode):
    features, pixels, present = link(1, 2, 8, (4, 5))
    present[0], pixels[~present] = False, torch.nan
    features.requires_grad_()
    pixels.requires_grad_()
    sampled = sample_pixels(features, pixels, present, mode)
    assert not sampled[~present].any() and sampled[present].any()
    sampled.sum().backward()
    assert features.grad.isfinite().all() and not features.grad[0].any()
    assert float(features.grad.sum()) == pytest.approx(3 * int(present.sum()))
    if mode == "bilinear":
        assert not pixels.grad[~present].any() and pixels.grad[present].any()


def test_gradients_to_features_and_places():
    features, _, present = link(2, 2, 6, (4, 5))
    # Off pixel centres, where bilinear values have a kink.
    pixels = torch.rand(2, 6, 2, dtype=torch.float64) * 0.8 + 0.6 + torch.randint(0, 3, (2, 6, 2))
    inputs = (features.requires_grad_(), pixels.requires_grad_())
    assert torch.autograd.gradcheck(lambda f, p: sample_pixels(f, p, present, "bilinear"), inputs)
    assert torch.autograd.gradcheck(lambda f: sample_pixels(f, pixels, present), inputs[:1])


def test_a_place_on_the_last_centre_has_the_slope_towards_the_inside():
    features = torch.tensor([[[[1.0, 2.0], [5.0, 7.0]]]], dtype=torch.float64)
    place = torch.tensor([[[1.5, 1.5]]], dtype=torch.float64, requires_grad=True)
    value = sample_pixels(features, place, torch.ones(1, 1, dtype=torch.bool), "bilinear")
    value.backward()
    assert value.item() == 7 and place.grad.flatten().tolist() == [5, 2]


def test_resizing_places_with_the_image_keeps_what_they_see():
    features, pixels, present = link(3, 2, 9, (4, 6))
    doubled = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(sample_pixels(features, pixels, present), sample_pixels(doubled, 2 * pixels, present))


def test_half_precision_is_kept_and_mixed_in_single():
    features, pixels, present = link(4, 1, 9, (4, 6), torch.float32)
    half = sample_pixels(features.bfloat16(), pixels, present, "bilinear")
    assert half.dtype == torch.bfloat16
    expected = sample_pixels(features.bfloat16().float(), pixels, present, "bilinear")
    assert torch.equal(half, expected.bfloat16())


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_gradient_is_the_same_bit_for_bit_where_many_points_share_a_pixel(mode):
    features, pixels, present = link(5, 2, 500, (3, 3), torch.float32)
    features.requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        gradients = [
            torch.autograd.grad(sample_pixels(features, pixels, present, mode).sin().sum(), features)[0]
            for _ in range(2)
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*gradients)


def test_rows_of_pixels_need_no_copy_where_channels_lie_innermost():
    features = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    rows = pixel_rows(features)
    assert rows.data_ptr() == features.data_ptr() and torch.equal(rows[1 * 20 + 2 * 5 + 3], features[1, :, 2, 3])


def test_helpers_by_hand():
    pixels, present = torch.tensor([[[1.7, 9.0], [0.0, 0.0]]]), torch.tensor([[True, False]])
    row, column = containing_pixels(pixels, present, (3, 4))
    assert row.tolist() == [[1, 0]] and column.tolist() == [[3, 0]] and row.dtype == torch.int64
    around = corners(torch.tensor([[1.25, 3.0]]), torch.tensor([2]), (3, 4))
    assert around.first.tolist() == [2 * 12 + 1 * 4 + 2] and (around.down, around.right) == (4, 1)
    torch.testing.assert_close(around.fraction, torch.tensor([[0.25, 1.0]]))
    line = corners(torch.tensor([[0.0, 1.5]]), torch.tensor([0]), (1, 4))
    assert (line.first.tolist(), line.down, line.right) == ([1], 0, 1)


def test_wrong_shapes_and_modes_are_named():
    features, pixels, present = link(0, 2, 3, (4, 5))
    with pytest.raises(ValueError, match=r"found \(2, 3, 4, 5\), \(2, 3, 2\), \(2, 2\)"):
        sample_pixels(features, pixels, present[:, :2])
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\), \(B, N, 2\), \(B, N\)"):
        sample_pixels(features[:1], pixels, present)
    with pytest.raises(ValueError, match="at least one pixel"):
        sample_pixels(features[:, :, :0], pixels, present)
    with pytest.raises(ValueError, match='mode must be "nearest" or "bilinear", found \'cubic\''):
        sample_pixels(features, pixels, present, "cubic")
