import io
import struct
import zlib

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage.color import rgb2lab

from isthmus.data.readers.class_names import CITYSCAPES7, CITYSCAPES19, HUMAN_PARTS7, NYU13
from isthmus.evaluation.dense.pictures import (
    HATCH,
    Look,
    _oklab,
    enlarged,
    error_picture,
    errors,
    hatched,
    label_values,
    palette,
    pixel_values,
    png,
)
from isthmus.evaluation.dense.png16 import png16
from isthmus.tasks.build_dense import dense_task


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {index}" for index in range(count))


class TestPalette:
    def test_customary_colours(self) -> None:
        nyu, streets = dict(zip(NYU13, palette(NYU13).tolist())), dict(zip(CITYSCAPES7, palette(CITYSCAPES7).tolist()))
        assert (nyu["bed"], nyu["wall"], nyu["window"]) == ([0, 0, 255], [249, 139, 0], [225, 228, 194])
        assert (streets["flat"], streets["sky"]) == ([128, 64, 128], [70, 130, 180])
        voc = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128]]
        assert palette(HUMAN_PARTS7).tolist() == voc

    @pytest.mark.parametrize(
        "classes", [NYU13, CITYSCAPES7, CITYSCAPES19, HUMAN_PARTS7, names(3), names(40), names(255)]
    )
    def test_every_class_has_a_colour_of_its_own(self, classes: tuple[str, ...]) -> None:
        colours = palette(classes)
        assert colours.shape == (len(classes), 3) and colours.dtype == np.uint8
        assert len({tuple(colour) for colour in colours.tolist()}) == len(classes)
        assert not {tuple(colour) for colour in colours.tolist()} & set(HATCH)

    def test_twenty_classes_are_far_apart_in_lab(self) -> None:
        lab = rgb2lab(palette(names(20))[None] / 255.0)[0]
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e9 * np.eye(20)
        assert apart.min() > 23

    def test_more_classes_keep_the_colours_of_fewer(self) -> None:
        np.testing.assert_array_equal(palette(names(60))[:8], palette(names(8)))

    def test_oklab_of_known_colours(self) -> None:
        found = _oklab(np.array([[255.0, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]))
        known = [[1, 0, 0], [0.62796, 0.22486, 0.12585], [0.86644, -0.23389, 0.17950], [0.45201, -0.03246, -0.31153]]
        np.testing.assert_allclose(found, known, atol=2e-5)


class TestLook:
    def test_classes_have_the_colours_of_the_palette(self) -> None:
        look = Look(dense_task("segmentation", NYU13))
        values = np.array([[0, 12], [11, 255]], dtype=np.uint8)
        found = look.picture(values, values != 255)
        np.testing.assert_array_equal(found[0], palette(NYU13)[[0, 12]])
        assert tuple(found[1, 1]) in HATCH

    def test_farther_is_darker_and_both_ends_are_clipped(self) -> None:
        look = Look(dense_task("depth"), 1.0, 5.0)
        lightness = rgb2lab(look.picture(np.linspace(1, 5, 50, dtype=np.float32)[None]))[0, :, 0]
        assert (np.diff(lightness) < 0).all()
        np.testing.assert_array_equal(*look.picture(np.array([[0.1, 1.0]]))[0])
        np.testing.assert_array_equal(*look.picture(np.array([[9.0, 5.0]]))[0])

    def test_near_is_light_in_inverse_depth_as_well(self) -> None:
        light = rgb2lab(Look(dense_task("inverse_depth"), 0, 1).picture(np.array([[0.1, 0.9]])))[0, :, 0]
        assert light[1] > light[0]

    def test_range_is_that_of_the_labelled_pixels(self) -> None:
        values = np.linspace(2, 4, 100).reshape(10, 10)
        values[0] = 99.0
        valid = np.ones((10, 10), dtype=bool)
        valid[0] = False
        look = Look.of(dense_task("depth"), values, valid)
        assert (look.low, look.high) == tuple(np.percentile(values[valid], [1, 99]))

    @pytest.mark.parametrize("task", ["depth", "normals", "edges"])
    def test_map_without_a_label_is_all_hatched(self, task: str) -> None:
        values = np.zeros((6, 6, 3) if task == "normals" else (6, 6), dtype=np.float32)
        nothing = np.zeros((6, 6), dtype=bool)
        found = Look.of(dense_task(task), values, nothing).picture(values, nothing)
        assert {tuple(colour) for colour in found.reshape(-1, 3).tolist()} == set(HATCH)

    @pytest.mark.parametrize("forward", [False, True])
    def test_what_faces_the_camera_is_blue_whichever_way_z_points(self, forward: bool) -> None:
        z = -1.0 if forward else 1.0
        values = np.array([[[0, 0, z], [1, 0, 0], [0, 1, 0], [0, -1, 0]]], dtype=np.float32)
        look = Look.of(dense_task("normals"), np.array([[[0, 0, z]]], dtype=np.float32))
        assert look.forward == forward
        expected = [[128, 128, 255], [255, 128, 128], [128, 255, 128], [128, 0, 128]]
        np.testing.assert_array_equal(look.picture(values)[0], expected)

    def test_probabilities_are_grey(self) -> None:
        found = Look(dense_task("saliency")).picture(np.array([[0.0, 0.5, 1.0]]))
        np.testing.assert_array_equal(found[0], [[0] * 3, [128] * 3, [255] * 3])


class TestErrors:
    def test_depth(self) -> None:
        found = errors(dense_task("depth"), np.array([[1.0, 4.0]]), np.array([[3.0, 4.0]]))
        np.testing.assert_allclose(found, [[2.0, 0.0]])

    def test_normals_against_the_arc_cosine(self) -> None:
        a, b = np.random.default_rng(0).normal(size=(2, 5, 7, 3))
        a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, b))
        expected = np.degrees(np.arccos((a * b).sum(axis=-1).clip(-1, 1)))
        np.testing.assert_allclose(errors(dense_task("normals"), a, b), expected, atol=1e-4)

    def test_none_is_black_and_more_is_lighter(self) -> None:
        found = error_picture(np.linspace(0, 2, 30)[None], 2.0)[0]
        assert found[0].sum() < 10
        assert (np.diff(rgb2lab(found[None])[0, :, 0]) > 0).all()
        np.testing.assert_allclose(found[-1], 255 * np.array(matplotlib.colormaps["inferno"](1.0)[:3]), atol=0.51)


@pytest.mark.parametrize("name", ["segmentation", "depth", "normals"])
def test_values_of_predictions_and_labels(name: str) -> None:
    classes = ("a", "b", "c") if name == "segmentation" else ()
    task, channels = dense_task(name, classes), {"segmentation": 3, "depth": 1, "normals": 3}[name]
    activated = torch.rand(2, channels, 4, 5, generator=torch.Generator().manual_seed(0))
    found = pixel_values(task, activated)
    if classes:
        np.testing.assert_array_equal(found, activated.numpy().argmax(axis=1))
        label = activated.argmax(dim=1)
    else:
        for channel in range(channels):
            np.testing.assert_array_equal(
                found if channels == 1 else found[..., channel], activated[:, channel].numpy()
            )
        label = activated
    np.testing.assert_array_equal(label_values(task, label), found)


def test_hatch_stays_off_labelled_pixels() -> None:
    rgb = np.random.default_rng(0).integers(0, 200, (9, 9, 3), dtype=np.uint8)
    valid = np.random.default_rng(1).random((9, 9)) < 0.5
    found = hatched(rgb, valid)
    np.testing.assert_array_equal(found[valid], rgb[valid])
    assert (found[~valid] >= 214).all()


class TestSizes:
    def test_enlarging_repeats_pixels(self) -> None:
        rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        found = enlarged(rgb, 20)
        np.testing.assert_array_equal(found, np.kron(rgb, np.ones((3, 3, 1), dtype=np.uint8)))

    def test_shrinking_a_map_of_classes_invents_no_colour(self) -> None:
        rgb = palette(NYU13)[np.random.default_rng(0).integers(0, 13, (90, 120))]
        found = enlarged(rgb, 50)
        assert found.shape == (38, 50, 3)
        assert {tuple(c) for c in found.reshape(-1, 3).tolist()} <= {tuple(c) for c in palette(NYU13).tolist()}


def test_png_is_the_picture_and_fewer_colours_are_close() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(rgb)))), rgb)
    reduced = Image.open(io.BytesIO(png(rgb, colours=64)))
    assert reduced.mode == "P" and len(reduced.getcolors()) <= 64
    assert len(png(rgb, colours=64)) < len(png(rgb)) / 2


class TestPng16:
    @settings(max_examples=40, deadline=None)
    @given(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.booleans()).flatmap(
            lambda s: arrays(np.uint16, (s[0], s[1], 3) if s[2] else (s[0], s[1]))
        )
    )
    def test_a_decoder_by_the_book_gets_the_numbers_back(self, values: np.ndarray) -> None:
        np.testing.assert_array_equal(decoded(png16(values)), values)

    def test_pillow_reads_grey_exactly_and_the_upper_bytes_of_colours(self) -> None:
        values = np.random.default_rng(0).integers(0, 65536, (31, 17, 3), dtype=np.uint16)
        grey = np.asarray(Image.open(io.BytesIO(png16(np.ascontiguousarray(values[..., 0])))))
        np.testing.assert_array_equal(grey, values[..., 0])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png16(values)))), values >> 8)

    @pytest.mark.parametrize("wrong", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint16), np.zeros(3, np.uint16)])
    def test_other_arrays_are_refused(self, wrong: np.ndarray) -> None:
        with pytest.raises(ValueError, match="must be uint16"):
            png16(wrong)


def decoded(content: bytes) -> np.ndarray:
    """A PNG of 16 bits per channel, decoded byte by byte as the specification says (sections 5, 9 and 10)."""
    assert content[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + data),)
        chunks.append((kind, data))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert depth == 16 and rest == [0, 0, 0]
    channels = {0: 1, 2: 3}[colour]
    step, raw = 2 * channels, zlib.decompress(chunks[1][1])
    assert len(raw) == height * (1 + step * width)
    numbers = []
    for row in range(height):
        line = raw[row * (1 + step * width) : (row + 1) * (1 + step * width)]
        assert line[0] == 1
        bytes_of_row: list[int] = []
        for index, byte in enumerate(line[1:]):
            left = bytes_of_row[index - step] if index >= step else 0
            bytes_of_row.append((byte + left) % 256)
        numbers.append([256 * bytes_of_row[i] + bytes_of_row[i + 1] for i in range(0, len(bytes_of_row), 2)])
    values = np.array(numbers, dtype=np.uint16)
    return values if channels == 1 else values.reshape(height, width, 3)
