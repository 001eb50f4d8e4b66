"""Whatever happens to a sweep and to its image, a point stays on its pixel."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.batch import Batch
from isthmus.data.frame_augment import FrameAugment
from isthmus.data.randomness import Progress
from isthmus.geometry.pixels import sample_pixels

HEIGHT, WIDTH, POINTS = 9, 14, 40


def batch(seed: int = 0, frames: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(frames, POINTS, generator=generator) < 0.8
    pixels = torch.rand(frames, POINTS, 2, generator=generator) * torch.tensor([HEIGHT, WIDTH])
    pixels[:, 0] = torch.tensor([HEIGHT - 1e-6, WIDTH - 1e-6])
    pixels[:, 1] = 0.0
    pixels[:, 2:10] = pixels[:, 2:10].floor()
    inputs = {
        "points": torch.randn(frames, POINTS, 3, generator=generator) * present[..., None],
        "present_points": present,
        "pixels": pixels.clamp(max=torch.tensor([math.nextafter(HEIGHT, 0), math.nextafter(WIDTH, 0)]).float()),
        "image": torch.rand(frames, 3, HEIGHT, WIDTH, generator=generator),
    }
    labels = torch.randint(0, 3, (frames, 1, POINTS), generator=generator)
    present_labels = torch.ones(frames, dtype=torch.bool)
    valid = present[:, None].clone()
    return Batch("source", inputs, {"segmentation": labels}, {"segmentation": present_labels}, torch.arange(frames),
                 {"segmentation": valid})  # fmt: skip


def random(step: int = 0):  # type: ignore[no-untyped-def]
    return Progress(0, 0, step, 10).random("augment/source", [0, 1, 2])


@given(seed=st.integers(0, 10_000), rows=st.integers(3, HEIGHT), columns=st.integers(3, WIDTH), flip=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_sampling_an_augmented_image_gives_what_the_image_had_there(
    seed: int, rows: int, columns: int, flip: float
) -> None:
    before = batch(seed)
    after = FrameAugment(crop=(rows, columns), flip=flip, mirror="y", rotation=math.pi)(before, random(seed))
    kept = after.inputs["present_points"]
    assert not (kept & ~before.inputs["present_points"]).any()
    seen = sample_pixels(after.inputs["image"], after.inputs["pixels"], kept)
    there = sample_pixels(before.inputs["image"], before.inputs["pixels"], before.inputs["present_points"])
    torch.testing.assert_close(seen[kept], there[kept], rtol=0, atol=0)
    assert (after.inputs["pixels"][kept] < torch.tensor([rows, columns])).all() and (after.inputs["pixels"] >= 0).all()
    # what is lost lies above the crop or beside it
    row = before.inputs["pixels"][..., 0]
    inside_rows = (row >= HEIGHT - rows) & before.inputs["present_points"]
    if columns == WIDTH:
        assert torch.equal(kept, inside_rows)
    assert not (kept & ~inside_rows).any()
    assert torch.equal(after.valid["segmentation"], before.valid["segmentation"] & kept[:, None])


def test_sweeps_are_turned_mirrored_and_shifted_as_one_body() -> None:
    before = batch()
    after = FrameAugment(mirror="x", rotation=math.pi, shift=2.0)(before, random())
    for one, other, mask in zip(before.inputs["points"], after.inputs["points"], before.inputs["present_points"]):
        distances = [(each[mask][:, None] - each[mask]).norm(dim=2) for each in (one, other)]
        torch.testing.assert_close(*distances, rtol=0, atol=1e-4)
        rise = other[mask][:, 2] - one[mask][:, 2]
        torch.testing.assert_close(rise, rise[:1].expand_as(rise), rtol=0, atol=1e-5)
        assert 0 <= float(rise[0]) <= 2
        assert not other[~mask].any()
    torch.testing.assert_close(after.inputs["image"], before.inputs["image"], rtol=0, atol=0)


def test_matrix_noise_is_a_linear_map_of_the_sweep() -> None:
    before = batch()
    after = FrameAugment(matrix_noise=0.1)(before, random())
    for one, other, mask in zip(before.inputs["points"], after.inputs["points"], before.inputs["present_points"]):
        matrix = torch.linalg.lstsq(one[mask], other[mask]).solution
        torch.testing.assert_close(one[mask] @ matrix, other[mask], rtol=0, atol=1e-4)
        assert 0.01 < float((matrix - torch.eye(3)).std()) < 0.3


def test_colours_change_and_stay_in_range() -> None:
    before = batch()
    after = FrameAugment(colour=0.4)(before, random())
    assert after.inputs["image"].min() >= 0 and after.inputs["image"].max() <= 1
    assert (after.inputs["image"] - before.inputs["image"]).abs().mean() > 0.02
    grey = Batch(**{**vars(before), "inputs": {**before.inputs, "image": torch.full((3, 3, 4, 4), 0.5)}})
    shades = FrameAugment(colour=0.4)(grey, random()).inputs["image"]
    torch.testing.assert_close(shades, shades[:, :1, :1, :1].expand_as(shades))


def test_nothing_asked_changes_nothing_and_a_crop_must_fit() -> None:
    before = batch()
    after = FrameAugment()(before, random())
    for name, tensor in before.inputs.items():
        mask = before.inputs["present_points"]
        if name == "pixels":
            torch.testing.assert_close(after.inputs[name][mask], tensor[mask])
        else:
            torch.testing.assert_close(after.inputs[name], tensor)
    with pytest.raises(ValueError, match="crop: expected at most the image's 9 x 14, found 10 x 14"):
        FrameAugment(crop=(10, 14))(before, random())


def test_a_frame_depends_on_itself_and_the_step_only() -> None:
    augment = FrameAugment(matrix_noise=0.1, mirror="y", rotation=1.0, shift=1.0, flip=0.5, colour=0.3, crop=(5, 9))
    whole = augment(batch(), random())
    alone = augment(batch(), random())
    again = augment(batch(), random(1))
    for name in whole.inputs:
        assert torch.equal(whole.inputs[name], alone.inputs[name])
    assert not torch.equal(whole.inputs["points"], again.inputs["points"])
