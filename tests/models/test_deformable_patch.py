import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.geometry.pixels import sample_pixels
from isthmus.models.deformable_patch import DeformablePatch, PatchPools


def link(batch: int, points: int, size: tuple[int, int], channels: int = 4, seed: int = 0) -> tuple:
    torch.manual_seed(seed)
    features = torch.randn(batch, channels, *size, dtype=torch.float64)
    pixels = torch.rand(batch, points, 2, dtype=torch.float64) * torch.tensor(size)
    return features, pixels, torch.rand(batch, points) < 0.7


def moved_patch(size: int = 5, channels: int = 4, strength: float = 0.1) -> DeformablePatch:
    """A patch whose offsets are far from zero."""
    torch.manual_seed(7)
    patch = DeformablePatch(channels, size).double()
    torch.nn.init.normal_(patch.offset.weight, std=strength)
    torch.nn.init.normal_(patch.offset.bias, std=10 * strength)
    return patch


def by_hand(patch: DeformablePatch, features: Tensor, pixels: Tensor, present: Tensor) -> PatchPools:
    """Offsets of the whole map by a convolution, then point by point, tap by tap, corner by corner."""
    batch, channels, height, width = features.shape
    offsets = torch.zeros(batch, 2 * patch.size**2, height, width, dtype=features.dtype)
    if patch.offset is not None:
        offsets = F.conv2d(features, patch.offset.weight, patch.offset.bias, padding=1)
    pools = [features.new_zeros(batch, pixels.shape[1], channels) for _ in range(3)]
    for b in range(batch):
        for n in range(pixels.shape[1]):
            if not present[b, n]:
                continue
            row, column = (int(place) for place in pixels[b, n])
            taps = []
            for i in range(patch.size):
                for j in range(patch.size):
                    down, right = offsets[b].view(-1, 2, height, width)[i * patch.size + j, :, row, column]
                    y = (row + i - patch.size // 2 + down).clamp(0, height - 1)
                    x = (column + j - patch.size // 2 + right).clamp(0, width - 1)
                    value = 0
                    for near_y in {int(y), min(int(y) + 1, height - 1)}:
                        for near_x in {int(x), min(int(x) + 1, width - 1)}:
                            weight = (1 - (y - near_y).abs()) * (1 - (x - near_x).abs())
                            value = value + weight * features[b, :, near_y, near_x]
                    taps.append(value)
            stacked = torch.stack(taps)
            pools[0][b, n], pools[1][b, n] = stacked.max(dim=0).values, stacked.min(dim=0).values
            pools[2][b, n] = stacked.mean(dim=0)
    return PatchPools(*pools)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**16), st.integers(1, 2), st.integers(0, 5), st.integers(1, 7), st.integers(1, 7),
       st.sampled_from([1, 3, 5]), st.booleans())  # fmt: skip
def test_pools_are_those_of_slow_loops(seed, batch, points, height, width, size, learned):
    features, pixels, present = link(batch, points, (height, width), seed=seed)
    patch = moved_patch(size) if learned else DeformablePatch(4, size, "zero")
    for found, expected in zip(patch(features, pixels, present), by_hand(patch, features, pixels, present)):
        torch.testing.assert_close(found, expected)


def dense(features: Tensor, size: int = 5) -> PatchPools:
    """Pools of every pixel of the map; beyond the border it is repeated."""
    padded = F.pad(features, [size // 2] * 4, mode="replicate")
    maximum = F.max_pool2d(features, size, 1, size // 2)
    return PatchPools(maximum, -F.max_pool2d(-features, size, 1, size // 2), F.avg_pool2d(padded, size, 1))


@pytest.mark.parametrize("offsets", ["learned", "zero"])
def test_without_offsets_it_is_the_fixed_patch_also_at_the_border(offsets):
    features, pixels, present = link(2, 60, (7, 9))
    pools = DeformablePatch(4, 5, offsets).double()(features, pixels, present)
    for found, expected in zip(pools, dense(features)):
        torch.testing.assert_close(found, sample_pixels(expected, pixels, present))
    assert torch.equal(pools.maximum, sample_pixels(dense(features).maximum, pixels, present))


def test_inside_of_the_image_the_mean_does_not_depend_on_what_lies_beyond():
    features, pixels, present = link(2, 60, (9, 9))
    inside = present & ((pixels >= 2) & (pixels < 7)).all(dim=2)
    own = DeformablePatch(4, 5, "zero")(features, pixels, inside).mean
    plain = F.avg_pool2d(features, 5, 1, 2, count_include_pad=False)
    torch.testing.assert_close(own, sample_pixels(plain, pixels, inside))


def test_the_released_form_counts_zeros_beyond_the_border():
    features, pixels, present = link(2, 60, (4, 6))
    found = DeformablePatch(4, 5, "zero", border="zeros")(features, pixels, present)
    expected = PatchPools(dense(features).maximum, dense(features).minimum, F.avg_pool2d(features, 5, 1, 2))
    for own, map_ in zip(found, expected):
        torch.testing.assert_close(own, sample_pixels(map_, pixels, present))


def test_gradients_of_the_fixed_patch_are_those_of_the_dense_form():
    features, pixels, present = link(2, 60, (5, 7))
    # Ties between pixels: few different values.
    features = features.round().requires_grad_()
    weights = torch.randn(3, 2, 60, 4, dtype=torch.float64)
    for border in ("replicate", "zeros"):
        whole = dense(features)
        if border == "zeros":
            whole = whole._replace(mean=F.avg_pool2d(features, 5, 1, 2))
        expected = sum((sample_pixels(m, pixels, present) * w).sum() for m, w in zip(whole[::2], weights))
        expected = expected + (sample_pixels(whole.minimum, pixels, present) * weights[2]).sum()
        pools = DeformablePatch(4, 5, "zero", border=border)(features, pixels, present)
        found = (pools.maximum * weights[0] + pools.mean * weights[1] + pools.minimum * weights[2]).sum()
        (own,), (slow,) = (torch.autograd.grad(each, features) for each in (found, expected))
        torch.testing.assert_close(own, slow)


def test_the_largest_patch_still_tells_its_taps_apart():
    features, pixels, present = link(1, 20, (20, 20))
    patch, weight = DeformablePatch(4, 15, "zero"), torch.randn(1, 20, 4, dtype=torch.float64)
    features.requires_grad_()
    (own,) = torch.autograd.grad((patch(features, pixels, present).maximum * weight).sum(), features)
    slow = sample_pixels(F.max_pool2d(features, 15, 1, 7), pixels, present)
    torch.testing.assert_close(own, torch.autograd.grad((slow * weight).sum(), features)[0])


def test_gradients_of_learned_offsets_against_the_loops():
    features, pixels, present = link(2, 5, (6, 7))
    patch = moved_patch(3)
    slow_patch, slow = copy.deepcopy(patch), features.clone().requires_grad_()
    features.requires_grad_()
    weights = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    for net, values, pools in (
        (patch, features, patch(features, pixels, present)),
        (slow_patch, slow, by_hand(slow_patch, slow, pixels, present)),
    ):
        sum((pool * weight).sum() for pool, weight in zip(pools, weights)).backward()
        assert net.offset.weight.grad.abs().sum() > 0 and values.grad.any()
    torch.testing.assert_close(features.grad, slow.grad)
    torch.testing.assert_close(patch.offset.weight.grad, slow_patch.offset.weight.grad)
    torch.testing.assert_close(patch.offset.bias.grad, slow_patch.offset.bias.grad)


def test_gradcheck():
    features, pixels, present = link(1, 4, (5, 5), channels=2)
    patch = moved_patch(3, channels=2)
    inputs = (features.requires_grad_(), patch.offset.weight, patch.offset.bias)

    def through(features: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        parameters = {"offset.weight": weight, "offset.bias": bias}
        return tuple(torch.func.functional_call(patch, parameters, (features, pixels, present)))

    assert torch.autograd.gradcheck(through, inputs)


def test_offsets_learn_from_their_zero_start():
    features, pixels, present = link(1, 30, (9, 9))
    patch = DeformablePatch(4).double()
    assert not any(p.any() for p in patch.parameters())
    patch(features, pixels, present).maximum.square().sum().backward()
    assert patch.offset.weight.grad.any() and patch.offset.bias.grad.any()


def test_offsets_find_what_lies_beside_the_patch():
    """One bright pixel right of a single tap's reach: descent moves the tap there along a slope."""
    column = torch.arange(9.0).expand(1, 1, 9, 9).clone()
    patch = DeformablePatch(1, 1)
    pixels, there = torch.tensor([[[4.5, 3.5]]]), torch.ones(1, 1, dtype=torch.bool)
    optimizer = torch.optim.SGD([patch.offset.bias], lr=0.5)
    for _ in range(6):
        optimizer.zero_grad()
        (-patch(column, pixels, there).mean).sum().backward()
        optimizer.step()
    assert patch(column, pixels, there).mean.item() == pytest.approx(6.0)
    assert patch.places(column, pixels, there).flatten().tolist() == pytest.approx([4.5, 6.5])


def test_other_maps_are_pooled_at_the_places_of_the_features_offsets():
    features, pixels, present = link(2, 6, (6, 7))
    values, patch = torch.randn(2, 3, 6, 7, dtype=torch.float64), moved_patch()
    found = patch(features, pixels, present, values)
    places = patch.places(features, pixels, present)
    assert places.shape == (2, 6, 25, 2) and not places[~present].any()
    taps = sample_pixels(values, places.flatten(1, 2), present.repeat_interleave(25, dim=1), "bilinear")
    taps = taps.view(2, 6, 25, 3)
    for own, expected in zip(found, (taps.amax(dim=2), taps.amin(dim=2), taps.mean(dim=2))):
        torch.testing.assert_close(own, expected)
    square = DeformablePatch(4, 3, "zero").places(features, pixels, present)
    expected = (pixels.floor() + 0.5)[present]
    torch.testing.assert_close(square[present].mean(dim=1), expected)
    torch.testing.assert_close(square[present][:, 0], expected - 1)
    torch.testing.assert_close(square[present][:, 1], expected + torch.tensor([-1.0, 0.0]))


@pytest.mark.parametrize("offsets", ["learned", "zero"])
def test_absent_points_are_zero_and_not_read_and_nobody_may_be_there(offsets):
    features, pixels, present = link(2, 6, (6, 7))
    features.requires_grad_()
    patch = DeformablePatch(4, 5, offsets).double()
    present[0], pixels[0] = False, torch.nan
    pools = patch(features, pixels, present)
    assert all(not pool[~present].any() and pool.isfinite().all() for pool in pools)
    sum(pool.sum() for pool in pools).backward()
    assert not features.grad[0].any() and features.grad[1].any()
    features.grad = None
    nobody = patch(features, pixels, torch.zeros_like(present))
    sum(pool.sum() for pool in nobody).backward()
    assert all(pool.shape == (2, 6, 4) and not pool.any() for pool in nobody) and not features.grad.any()
    assert all(pool.shape == (2, 0, 4) for pool in patch(features, pixels[:, :0], present[:, :0]))


def test_only_taps_at_points_are_gathered():
    """What autograd keeps for a large map and few points is far from 25 copies of the map; it is not even one."""
    features = torch.randn(1, 16, 128, 128).contiguous(memory_format=torch.channels_last).requires_grad_()
    pixels, there = 128 * torch.rand(1, 50, 2), torch.ones(1, 50, dtype=torch.bool)
    patch = DeformablePatch(16)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        patch(features, pixels, there)
    kept.pop(features.untyped_storage().data_ptr(), None)
    assert sum(kept.values()) < features.untyped_storage().nbytes() / 4


@pytest.mark.parametrize("offsets", ["learned", "zero"])
def test_gradient_is_the_same_bit_for_bit_and_layout_does_not_matter(offsets):
    features, pixels, present = link(2, 300, (5, 5))
    features = features.float().requires_grad_()
    patch = DeformablePatch(4, 5, offsets)
    found = []
    torch.use_deterministic_algorithms(True)
    try:
        for layout in (torch.contiguous_format, torch.contiguous_format, torch.channels_last):
            pools = patch(features.contiguous(memory_format=layout), pixels.float(), present)
            found.append(torch.autograd.grad(sum(pool.sin().sum() for pool in pools), features)[0])
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_places_keep_their_precision_under_autocast():
    features, pixels, present = link(1, 20, (200, 300))
    features, pixels, patch = features.float(), pixels.float(), moved_patch().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = patch.places(features, pixels, present)
        pools = patch(features.bfloat16(), pixels, present)
    torch.testing.assert_close(inside, patch.places(features, pixels, present))
    assert all(pool.dtype == torch.bfloat16 for pool in pools)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", ["learned", "zero", "zeros"])
def test_the_mean_alone_is_bit_for_bit_that_of_all_pools(form, kind):
    features, pixels, present = link(2, 60, (7, 9))
    patch = moved_patch(strength=0.5) if form == "learned" else DeformablePatch(4, 5, "zero")
    if form == "zeros":
        patch = DeformablePatch(4, 5, "zero", border="zeros")
    features = features.to(kind)
    alone = patch.mean(features, pixels, present)
    assert alone.dtype == kind and torch.equal(alone, patch(features, pixels, present).mean)
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), \(B, N, 2\), \(B, N\)"):
        patch.mean(features, pixels[:, :2], present)


def test_not_a_number_in_the_patch_is_not_hidden():
    features = torch.zeros(1, 1, 5, 5)
    features[0, 0, 1, 1] = torch.nan
    pools = DeformablePatch(1, 3, "zero")(features, torch.tensor([[[2.5, 2.5]]]), torch.ones(1, 1, dtype=torch.bool))
    assert all(pool.isnan().all() for pool in pools)


def test_impossible_options_and_shapes_are_named():
    with pytest.raises(ValueError, match="size must be odd and at most 15, found 4"):
        DeformablePatch(4, 4)
    with pytest.raises(ValueError, match="size must be odd and at most 15, found 17"):
        DeformablePatch(4, 17)
    with pytest.raises(ValueError, match="offsets must be learned or zero"):
        DeformablePatch(4, 5, "fixed")
    with pytest.raises(ValueError, match='needs offsets="zero"'):
        DeformablePatch(4, 5, border="zeros")
    features, pixels, present = link(2, 3, (6, 7))
    with pytest.raises(ValueError, match=r"values must be maps .* found \(2, 4, 6, 6\) for \(2, 4, 6, 7\)"):
        DeformablePatch(4, 5, "zero")(features, pixels, present, features[..., :6])
    with pytest.raises(ValueError, match=r"\(B, C, H, W\), \(B, N, 2\), \(B, N\)"):
        DeformablePatch(4, 5, "zero")(features, pixels[:, :2], present)
