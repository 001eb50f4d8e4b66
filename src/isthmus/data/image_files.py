"""One image or one label map in one file, read to the form of ``isthmus.data.images``.

================ ========================== ============================================================================
what             file                       how it is read
================ ========================== ============================================================================
image            .png .jpg .bmp .tif .webp  8 bits RGB; see :func:`read_image`
class map        .png .tif                  one channel or palette indices, 8 bits (or 16 bits of numbers up to 255)
                 .npy                       whole numbers, or floats that are whole
depth            .png .tif                  16 bits, millimetres; a floating-point .tif is in metres
                 .npy                       metres
inverse depth    .npy, float .tif           as it is
normals          .png .tif                  RGB, x = 2 v / 255 - 1; black is "no label"
                 .npy                       floats in [-1, 1]; the zero vector is "no label"
================ ========================== ============================================================================

An ``.npy`` map may be ``(H, W)`` or ``(H, W, 1)``. Nothing is ever unpickled. Every way a file can be wrong ends in a
``DataError`` that names it.
"""

from __future__ import annotations

import errno
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from isthmus.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
LABEL_SUFFIXES = (".png", ".npy", ".tif", ".tiff")

NO_CLASS = 255
MILLIMETRES = 1000.0

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B")


def read_image(path: Path) -> np.ndarray:
    """An ordinary picture. Shape: ``(H, W, 3)`` uint8 RGB.

    It is turned as its EXIF orientation says. Grey becomes three equal channels, 16 bits of grey become 8 by rounding
    ``v / 257``, what is transparent is laid on white, and other colour models are converted. Of several frames the
    first is taken.

    Raises:
        DataError: the file cannot be read, or holds 32-bit or floating-point numbers.
    """
    picture = ImageOps.exif_transpose(_opened(path))
    if picture.mode in _SIXTEEN_BITS:
        grey = (np.asarray(picture).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode in ("I", "F"):
        raise DataError(f"{path}: expected a picture of 8 or 16 bits, found {_what(picture)}")
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB"))


def read_class_map(path: Path) -> np.ndarray:
    """Class indices. Shape: ``(H, W)`` uint8; -1 in an ``.npy`` becomes 255, "no class".

    Raises:
        DataError: the file cannot be read, has several channels, or a number that is none of -1 and 0 to 255.
    """
    if path.suffix.lower() == ".npy":
        return class_map(read_npy(path), path)
    picture = _opened(path)
    if picture.mode not in ("1", "L", "P", *_SIXTEEN_BITS):
        raise DataError(f"{path}: expected class indices in one channel of 8 bits, found {_what(picture)}")
    return class_map(np.asarray(picture).astype(np.int64), path)


def read_depth(path: Path) -> np.ndarray:
    """Depth in metres, 0 where there is none. Shape: ``(H, W)`` float32.

    Raises:
        DataError: the file cannot be read or is of another kind than the module says.
    """
    if path.suffix.lower() == ".npy":
        return number_map(read_npy(path), path)
    picture = _opened(path)
    # Older Pillow opens 16-bit PNGs as 32 bits, which no depth image has of its own.
    if picture.mode in (*_SIXTEEN_BITS, "I"):
        return (np.asarray(picture) / MILLIMETRES).astype(np.float32)
    if picture.mode == "F":
        return np.array(picture, dtype=np.float32)
    raise DataError(f"{path}: expected depth as 16-bit millimetres or floating-point metres, found {_what(picture)}")


def read_inverse_depth(path: Path) -> np.ndarray:
    """Inverse depth in its own unit, 0 where there is none. Shape: ``(H, W)`` float32.

    Raises:
        DataError: the file cannot be read or does not hold floating-point numbers.
    """
    if path.suffix.lower() == ".npy":
        return number_map(read_npy(path), path)
    picture = _opened(path)
    if picture.mode != "F":
        raise DataError(f"{path}: expected floating-point inverse depth, found {_what(picture)}")
    return np.array(picture, dtype=np.float32)


def read_normals(path: Path) -> np.ndarray:
    """Normals, not made unit vectors yet, zero where there is none. Shape: ``(H, W, 3)`` float16.

    Of a PNG with 16 bits per channel Pillow reads the upper 8, which is exact to about half a degree.

    Raises:
        DataError: the file cannot be read or is of another kind than the module says.
    """
    if path.suffix.lower() == ".npy":
        return normal_map(read_npy(path), path)
    picture = _opened(path)
    if picture.mode != "RGB":
        raise DataError(f"{path}: expected normals as RGB, found {_what(picture)}")
    colours = np.asarray(picture)
    vectors = colours.astype(np.float32) * (2 / 255) - 1
    vectors[(colours == 0).all(axis=-1)] = 0
    return normal_map(vectors, path)


def read_binary(path: Path) -> np.ndarray:
    """A map of yes and no as it is in the file. Shape: ``(H, W)`` uint8, of 0, 1 and 255 only.

    What 255 means is not known from one file: yes beside 0, "no label" beside 1.

    Raises:
        DataError: the file cannot be read or has other numbers.
    """
    found = read_class_map(path)
    wrong = found[(found > 1) & (found != NO_CLASS)]
    if len(wrong):
        raise DataError(f"{path}: expected 0 and 255, or 0 and 1, found {wrong[0]} among {len(wrong)} other pixels")
    return found


def read_npy(path: Path) -> np.ndarray:
    """An array of numbers or booleans.

    Raises:
        DataError: the file cannot be read or holds something else.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected an array, found no file")
    try:
        array = np.load(path, allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EACCES):
            raise
        # A broken header fails in any way at all: ValueError, EOFError, SyntaxError, tokenize errors.
        raise DataError(f"{path}: expected a whole .npy file, found one that cannot be read ({error})") from error
    # np.load goes by the content, whatever the suffix says.
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: expected one array, found an archive of arrays")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{path}: expected numbers, found {array.dtype}")
    return array


def unit_range_image(array: np.ndarray, path: Path | str) -> np.ndarray:
    """A picture of numbers in [0, 1] as ``(H, W, 3)`` uint8: ``round(255 v)``, so it is off by at most 1 / 510.

    Raises:
        DataError: another shape, a number that is not finite or farther than 0.001 outside.
    """
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind != "f":
        raise DataError(f"{path}: expected floats of shape (H, W, 3), found {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: expected finite numbers, found {int((~np.isfinite(array)).sum())} others")
    if array.size and not -0.001 <= array.min() <= array.max() <= 1.001:
        raise DataError(f"{path}: expected numbers in [0, 1], found {array.min():g} to {array.max():g}")
    return np.rint(array.clip(0, 1) * 255).astype(np.uint8)


def class_map(array: np.ndarray, path: Path | str) -> np.ndarray:
    """Whole numbers from -1 ("no class") to 255 as ``(H, W)`` uint8 with 255 for "no class".

    Raises:
        DataError: another shape or other numbers.
    """
    flat = _flat(array, path)
    if flat.dtype.kind == "f" and not (np.isfinite(flat).all() and (flat == np.rint(flat)).all()):
        raise DataError(f"{path}: expected whole numbers, found others")
    if flat.size and not -1 <= flat.min() <= flat.max() <= NO_CLASS:
        raise DataError(f"{path}: expected -1 to {NO_CLASS}, found {flat.min():g} to {flat.max():g}")
    return np.where(flat < 0, NO_CLASS, flat).astype(np.uint8)


def number_map(array: np.ndarray, path: Path | str) -> np.ndarray:
    """Numbers as ``(H, W)`` float32.

    Raises:
        DataError: another shape.
    """
    return _flat(array, path).astype(np.float32)


def normal_map(array: np.ndarray, path: Path | str) -> np.ndarray:
    """Vectors as ``(H, W, 3)`` float16.

    Raises:
        DataError: another shape, or a component outside [-1.01, 1.01] (which float16 might lose).
    """
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind != "f":
        raise DataError(f"{path}: expected floats of shape (H, W, 3), found {array.dtype} {array.shape}")
    largest = np.abs(array, where=np.isfinite(array), out=np.zeros_like(array)).max(initial=0)
    if largest > 1.01:
        raise DataError(f"{path}: expected components in [-1, 1], found one of {largest:g}")
    return array.astype(np.float16)


def _flat(array: np.ndarray, path: Path | str) -> np.ndarray:
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if flat.ndim != 2 or flat.dtype.kind not in "fiub":
        raise DataError(f"{path}: expected numbers of shape (H, W) or (H, W, 1), found {array.dtype} {array.shape}")
    return flat


def _opened(path: Path) -> Image.Image:
    if not path.is_file():
        raise DataError(f"{path}: expected an image, found no file")
    try:
        with warnings.catch_warnings():
            # A picture of more than 89 megapixels is a warning for Pillow; only one of twice that size is an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.load()
                return picture
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EACCES):
            raise  # a drive that drops out is no fault of the file
        # Decoders fail on broken input in any way at all: OSError, SyntaxError, struct.error, zlib.error.
        raise DataError(
            f"{path}: expected a whole image, found one that cannot be read ({type(error).__name__}: {error})"
        ) from error


def _what(picture: Image.Image) -> str:
    return f"Pillow's mode {picture.mode!r}"
