import errno
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from isthmus.data.image_files import (
    class_map,
    normal_map,
    read_binary,
    read_class_map,
    read_depth,
    read_image,
    read_inverse_depth,
    read_normals,
    read_npy,
    unit_range_image,
)
from isthmus.errors import DataError

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="real images: set ISTHMUS_DATA to the data directory")


def colours(size: tuple[int, int] = (5, 7), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        image = Image.fromarray(array)
        (image.convert(mode) if mode else image).save(path, **options)
    return path


def rgb16_png(path: Path, array: np.ndarray) -> Path:
    """A PNG of 16 bits per channel, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_colours_come_back_exactly_from_lossless_files(suffix: str, tmp_path: Path) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    np.testing.assert_array_equal(read_image(save(tmp_path / f"a{suffix}", colours(), **options)), colours())


def test_a_jpeg_is_read(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], (16, 24, 3))
    found = read_image(save(tmp_path / "a.jpg", smooth, quality=95))
    assert found.shape == (16, 24, 3) and np.abs(found.astype(int) - smooth).max() < 8


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, np.rot90),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_exif_orientation_is_applied(orientation: int, turned: Any, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"a{suffix}", colours(), exif=exif, **options)
    np.testing.assert_array_equal(read_image(path), turned(colours()))


def test_grey_and_palette_and_bits_become_rgb(tmp_path: Path) -> None:
    grey = colours()[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", grey)), expected)
    deep = grey.astype(np.uint16) * 257 + 100
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", deep)), expected)
    assert (read_image(save(tmp_path / "c.png", np.full((2, 2), 65535, np.uint16))) == 255).all()
    bits = grey > 99
    np.testing.assert_array_equal(read_image(save(tmp_path / "d.png", bits)), np.repeat(bits[..., None] * 255, 3, 2))
    palette = Image.fromarray(np.uint8([[0, 1], [2, 1]]))
    palette.putpalette([5, 6, 7, 10, 200, 30, 255, 0, 9])
    palette.save(tmp_path / "e.png")
    assert read_image(tmp_path / "e.png").tolist() == [[[5, 6, 7], [10, 200, 30]], [[255, 0, 9], [10, 200, 30]]]


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    array = np.zeros((2, 2, 4), np.uint8)
    array[..., 3] = [[255, 0], [128, 255]]
    found = read_image(save(tmp_path / "a.png", array))[..., 0]
    assert found[0].tolist() == [0, 255] and abs(int(found[1, 0]) - 127) <= 1
    grey = Image.fromarray(np.uint8([[7, 9]]))
    grey.save(tmp_path / "b.png", transparency=9)
    assert read_image(tmp_path / "b.png")[0, :, 0].tolist() == [7, 255]


def test_numbers_that_are_no_picture_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match=r"a\.tif: expected a picture of 8 or 16 bits, found Pillow's mode 'F'"):
        read_image(path)


def test_class_maps_are_the_numbers_in_the_file(tmp_path: Path) -> None:
    classes = np.uint8([[0, 1, 2], [20, 254, 255]])
    palette = Image.fromarray(classes)
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "p.png")
    files = [
        save(tmp_path / "a.png", classes),
        tmp_path / "p.png",
        save(tmp_path / "a.tif", classes),
        save(tmp_path / "b.png", classes.astype(np.uint16)),
        save(tmp_path / "a.npy", classes),
        save(tmp_path / "b.npy", classes.astype(np.float64)[..., None]),
        save(tmp_path / "c.npy", np.where(classes == 255, -1, classes.astype(np.int64))),
    ]
    for path in files:
        found = read_class_map(path)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, classes, err_msg=path.name)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.png", np.zeros((2, 2, 3), np.uint8), "one channel of 8 bits, found Pillow's mode 'RGB'"),
        ("a.png", np.full((2, 2), 256, np.uint16), "expected -1 to 255, found 256 to 256"),
        ("a.npy", np.full((2, 2), -2), "expected -1 to 255, found -2 to -2"),
        ("a.npy", np.full((2, 2), 300), "found 300 to 300"),
        ("a.npy", np.full((2, 2), 0.5), "expected whole numbers"),
        ("a.npy", np.full((2, 2), np.nan), "expected whole numbers"),
        ("a.npy", np.zeros((2, 2, 2)), r"shape \(H, W\) or \(H, W, 1\), found float64 \(2, 2, 2\)"),
    ],
)
def test_other_class_maps_are_refused(name: str, array: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        read_class_map(save(tmp_path / name, array))


def test_depth_is_metres_whatever_the_file(tmp_path: Path) -> None:
    metres = np.float32([[0, 0.001, 1.5], [2.75, 10, 65.535]])
    millimetres = np.rint(metres * 1000).astype(np.uint16)
    for path in (
        save(tmp_path / "a.png", millimetres),
        save(tmp_path / "a.tif", millimetres),
        save(tmp_path / "b.tif", metres),
        save(tmp_path / "a.npy", metres),
        save(tmp_path / "b.npy", metres[..., None].astype(np.float64)),
    ):
        found = read_depth(path)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, metres, atol=1e-6, err_msg=path.name)
    with pytest.raises(DataError, match=r"expected depth as 16-bit millimetres .* found Pillow's mode 'L'"):
        read_depth(save(tmp_path / "c.png", np.zeros((2, 2), np.uint8)))
    for suffix in (".npy", ".tif"):
        np.testing.assert_array_equal(read_inverse_depth(save(tmp_path / f"i{suffix}", metres)), metres)
    with pytest.raises(DataError, match="expected floating-point inverse depth"):
        read_inverse_depth(save(tmp_path / "d.png", millimetres))


def test_normals_of_8_and_16_bits_and_floats_agree(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    vectors = g.normal(size=(9, 11, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[0, 0] = 0
    coded = (vectors + 1) / 2
    eight = np.rint(coded * 255).astype(np.uint8)
    sixteen = np.rint(coded * 65535).astype(np.uint16)
    eight[0, 0] = sixteen[0, 0] = 0
    for path, tolerance in (
        (save(tmp_path / "a.npy", vectors), 1e-3),
        (save(tmp_path / "a.png", eight), 5e-3),
        (rgb16_png(tmp_path / "b.png", sixteen), 1e-2),
        (save(tmp_path / "a.tif", eight), 5e-3),
    ):
        found = read_normals(path)
        assert found.dtype == np.float16 and not found[0, 0].any()
        np.testing.assert_allclose(found.astype(float), vectors, atol=tolerance, err_msg=path.name)
    with pytest.raises(DataError, match="expected normals as RGB"):
        read_normals(save(tmp_path / "g.png", eight[..., 0]))
    with pytest.raises(DataError, match=r"expected floats of shape \(H, W, 3\), found float64 \(2, 2\)"):
        read_normals(save(tmp_path / "g.npy", np.zeros((2, 2))))
    with pytest.raises(DataError, match=r"expected components in \[-1, 1\], found one of 1e\+06"):
        normal_map(np.full((1, 1, 3), 1e6), "g")


def test_maps_of_yes_and_no_have_no_other_numbers(tmp_path: Path) -> None:
    for values in ([0, 255], [0, 1], [0, 1, 255]):
        array = np.array([values], np.uint8)
        np.testing.assert_array_equal(read_binary(save(tmp_path / "a.png", array)), array)
    np.testing.assert_array_equal(read_binary(save(tmp_path / "a.npy", np.array([[True, False]]))), [[1, 0]])
    with pytest.raises(DataError, match=r"a\.png: expected 0 and 255, or 0 and 1, found 7 among 2 other"):
        read_binary(save(tmp_path / "a.png", np.uint8([[0, 7, 9]])))


def test_floats_in_the_unit_range_are_rounded_to_the_nearest_of_256() -> None:
    values = np.random.default_rng(0).random((20, 20, 3), dtype=np.float32)
    found = unit_range_image(values, "a")
    assert np.abs(found / 255 - values).max() <= 1 / 510 + 1e-6
    exact = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(unit_range_image(exact.astype(np.float32) / np.float32(255), "a"), exact)
    edges = np.array([[[-0.0005, 1.0005, 0.5]]])
    assert unit_range_image(edges, "a").tolist() == [[[0, 255, 128]]]
    for wrong in (np.full((1, 1, 3), 1.01), np.full((1, 1, 3), -0.1), np.full((1, 1, 3), np.nan), np.zeros((2, 2))):
        with pytest.raises(DataError, match="a: expected"):
            unit_range_image(wrong, "a")
    with pytest.raises(DataError, match="found uint8"):
        unit_range_image(exact, "a")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


READERS = [read_image, read_class_map, read_depth, read_inverse_depth, read_normals, read_binary]


@pytest.mark.parametrize("read", READERS)
def test_broken_empty_and_missing_files_are_named(read: Any, tmp_path: Path) -> None:
    good = save(tmp_path / "good.png", colours((40, 40))).read_bytes()
    path = tmp_path / "a.png"
    for content in (b"", b"text", good[:20], good[:-400], b"\x89PNG\r\n\x1a\n" + bytes(range(200))):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.png: expected a whole image, found one that cannot be read"):
            read(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.png: expected an image, found no file"):
        read(path)


@pytest.mark.parametrize("read", READERS[1:])
def test_broken_arrays_are_named_and_never_unpickled(read: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", np.zeros((6, 6)))
    good = path.read_bytes()
    for content in (b"", b"text", good[:20], good[:-1], b"\x93NUMPY\x01\x00\x05\x00{{{{{" + good):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npy: expected a whole \.npy file"):
            read(path)
    trace = tmp_path / "trace"
    np.save(path, np.array([Trap(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy: expected a whole \.npy file"):
        read(path)
    path.write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(DataError, match=r"a\.npy: expected a whole \.npy file"):
        read(path)
    assert not trace.exists()
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    (tmp_path / "b.npz").rename(path)
    with pytest.raises(DataError, match="expected one array, found an archive"):
        read(path)
    np.save(path, np.array([["text"]]))
    with pytest.raises(DataError, match="expected numbers, found <U4"):
        read_npy(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.npy: expected an array, found no file"):
        read(path)


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "drive gone"), MemoryError()])
def test_what_is_no_fault_of_the_file_is_not_put_down_to_it(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.zeros(3))
    monkeypatch.setattr(Image, "open", fail)
    monkeypatch.setattr(np, "load", fail)
    for read, name in ((read_image, "a.png"), (read_npy, "a.npy")):
        with pytest.raises(type(fault)) as caught:
            read(tmp_path / name)
        assert caught.value is fault


def test_a_class_map_of_booleans_is_zeros_and_ones() -> None:
    assert class_map(np.array([[True, False]]), "a").tolist() == [[1, 0]]


@needs_data
def test_a_real_cityscapes_label_and_a_real_depth_image_are_read() -> None:
    root = Path(DATA or ".")
    depth = read_depth(root / "dense" / "sunrgbd_esanet_sample" / "sample_depth.png")
    picture = read_image(root / "dense" / "sunrgbd_esanet_sample" / "sample_rgb.png")
    assert picture.shape[:2] == depth.shape and picture.std() > 10
    assert depth.min() >= 0 and np.median(depth[depth > 0]) < 66
    street = root / "raw" / "cityscapes_one_sample"
    classes = read_class_map(street / "frankfurt_000000_000294_gtFine_labelTrainIds.png")
    official = read_class_map(street / "frankfurt_000000_000294_gtFine_labelIds.png")
    picture = read_image(street / "frankfurt_000000_000294_leftImg8bit.png")
    assert classes.shape == picture.shape[:2]
    # Cityscapes' road is 7 among its labels and 0 in training, sky 23 and 10; both maps were shrunk, each for itself.
    assert ((classes == 0) == (official == 7)).mean() > 0.99
    assert ((classes == 10) == (official == 23)).mean() > 0.99
    assert np.nonzero(classes == 0)[0].mean() > np.nonzero(classes == 10)[0].mean()
