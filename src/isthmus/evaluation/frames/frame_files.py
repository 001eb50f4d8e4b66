"""LiDAR files with an image and a calibration beside them, as ``isthmus predict`` takes them.

An item is a LiDAR file; what belongs to it has the same stem and lies in the same folder:

=================================== ===================================================================================
``000008.bin``                      float32 x, y, z, intensity (KITTI), or with a fifth number, the ring (nuScenes);
                                    the fifth is recognised by the size of the file and whole numbers up to 255
``000008.npz``, ``000008.npy``      an array ``points`` (or the array) ``(N, 3 or more)`` of numbers, x, y, z first
``000008.png``, ``.jpg``, ``.jpeg`` the image
``000008.txt``                      KITTI's calibration: ``P2`` with ``R0_rect`` and ``Tr_velo_to_cam``, or with ``Tr``
``000008.json``                     ``{"projection": [[...], [...], [...]]}``, 3 x 4, from homogeneous LiDAR metres to
                                    (column * depth, row * depth, depth) in pixels of the image
=================================== ===================================================================================

Where a frame has no calibration of its own, ``calib.txt`` or ``calib.json`` in its folder serves for all frames there.
Points are expected in the axes of the data that the run was trained on (KITTI: x forward, y left, z up).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isthmus.data.image_files import read_image
from isthmus.data.readers.kitti import read_calibration
from isthmus.data.readers.lidar_files import check_finite, read_arrays, read_json, read_sweep
from isthmus.errors import DataError

SWEEPS = (".bin", ".npz", ".npy")
IMAGES = (".png", ".jpg", ".jpeg")
CALIBRATIONS = (".json", ".txt")
LARGEST_RING = 255


@dataclass(frozen=True)
class FrameFiles:
    """A LiDAR file and what lies beside it; None for what does not."""

    sweep: Path
    image: Path | None
    calibration: Path | None


def is_sweep(path: Path) -> bool:
    """Whether a path has the ending of a LiDAR file."""
    return path.suffix.lower() in SWEEPS


def stem_of(sweep: Path) -> str:
    """The name that belonging files share: ``a`` of ``a.bin`` and of ``a.pcd.bin``."""
    return sweep.name[: -len(sweep.suffix)].removesuffix(".pcd")


def files_of(sweep: Path) -> FrameFiles:
    """What belongs to a LiDAR file.

    Raises:
        DataError: two images of the same stem.
    """
    folder, stem = sweep.parent, stem_of(sweep)
    found = [folder / f"{stem}{ending}" for ending in IMAGES if (folder / f"{stem}{ending}").is_file()]
    if len(found) > 1:
        raise DataError(f"{sweep}: expected one image beside it, found {', '.join(path.name for path in found)}")
    own = [folder / f"{name}{ending}" for name in (stem, "calib") for ending in CALIBRATIONS]
    calibration = next((path for path in own if path.is_file()), None)
    return FrameFiles(sweep, found[0] if found else None, calibration)


def read_points(sweep: Path) -> np.ndarray:
    """The points of a LiDAR file. Shape: ``(N, 3)`` float32, metres.

    Raises:
        DataError: not such a file, no point, or numbers that are not finite.
    """
    ending = sweep.suffix.lower()
    if ending == ".bin":
        points = _read_bin(sweep)
    elif ending == ".npz":
        points = _checked(read_arrays(sweep, ["points"])["points"], sweep)
    else:
        try:
            points = _checked(np.load(sweep, allow_pickle=False), sweep)
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"{sweep}: expected an array of points, found {error}") from error
    if not len(points):
        raise DataError(f"{sweep}: expected at least one point, found none")
    return points


def _read_bin(sweep: Path) -> np.ndarray:
    size = sweep.stat().st_size
    fifth = size % 20 == 0 and (size % 16 != 0 or sweep.name.endswith(".pcd.bin") or _has_rings(sweep))
    return np.ascontiguousarray(read_sweep(sweep, 5 if fifth else 4)[:, :3])


def _has_rings(sweep: Path) -> bool:
    """Whether a file of five numbers for each point has a whole number as the fifth of all of them."""
    rings = np.fromfile(sweep, "<f4").reshape(-1, 5)[:, 4]
    return bool(np.isfinite(rings).all() and (rings == np.rint(rings)).all() and np.ptp(rings) > 0
                and rings.min() >= 0 and rings.max() <= LARGEST_RING)  # fmt: skip


def _checked(values: np.ndarray, path: Path) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[1] < 3 or values.dtype.kind not in "fiu":
        found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else "an archive"
        raise DataError(f"{path}: points: expected numbers of shape (N, 3 or more), found {found}")
    points = np.ascontiguousarray(values[:, :3], dtype=np.float32)
    check_finite(points, f"{path}: points")
    return points


def read_picture(files: FrameFiles) -> tuple[np.ndarray, np.ndarray]:
    """The image ``(H, W, 3)`` uint8 and the projection ``(3, 4)`` float64 into it.

    Raises:
        DataError: one of them is missing or broken.
    """
    stem = files.sweep.parent / stem_of(files.sweep)
    if files.image is None:
        raise DataError(f"{files.sweep}: expected an image {stem.name}.png or .jpg beside it, found none")
    if files.calibration is None:
        raise DataError(
            f"{files.sweep}: expected a calibration {stem.name}.txt or .json (or calib.txt) beside it, found none"
        )
    return read_image(files.image), read_projection(files.calibration)


def read_projection(path: Path) -> np.ndarray:
    """A projection from KITTI's text or from JSON. Shape: ``(3, 4)`` float64.

    Raises:
        DataError: the file is neither.
    """
    if path.suffix.lower() == ".txt":
        return read_calibration(path)
    content = read_json(path)
    try:
        projection = np.array(content["projection"], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: projection: expected 3 x 4 numbers, found none") from None
    if projection.shape != (3, 4) or not np.isfinite(projection).all():
        raise DataError(f"{path}: projection: expected 3 x 4 finite numbers, found shape {projection.shape}")
    return projection
