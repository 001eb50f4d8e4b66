"""One object in one file: meshes, arrays, text and PCD, all read to a cloud.

============ =================================================================================================
suffix       what is read
============ =================================================================================================
.off .stl    mesh; ``points`` are drawn uniformly from its surface
.ply .obj    mesh as above, or the vertices themselves if there is no face
.npy         array of ``(n, >= 3)`` numbers
.npz         the array "points", or the only array of ``(n, >= 3)`` numbers
.xyz .txt    a point per line, numbers separated by blanks or commas, "#" starts a comment
.pcd         Point Cloud Data 0.7 with fields x, y, z: ascii, binary or binary_compressed
.h5          dataset "data" of ``(n, N, >= 3)`` numbers: n clouds
============ =================================================================================================

Everything after the third column is left aside (normals, colours). Nothing is ever unpickled, and no file but
the one named is opened (the materials of an ``.obj`` stay where they are). Every way a file can be wrong ends
in a ``DataError`` that names it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import trimesh

from isthmus.data.pcd import read_pcd
from isthmus.errors import DataError

Up = Literal["z", "y"]

MESH_SUFFIXES = (".off", ".stl", ".ply", ".obj")
SUFFIXES = (*MESH_SUFFIXES, ".npy", ".npz", ".xyz", ".txt", ".pcd", ".h5")


def read_cloud(path: Path, points: int = 2048, seed: int = 0, up: Up = "z") -> np.ndarray:
    """The one cloud in a file.

    Args:
        path: the file; its suffix says how it is read.
        points: how many points to draw from the surface of a mesh with faces; other files give what they
            have.
        seed: with the file's name (without its folder) this fixes which points of a mesh are drawn.
        up: the file's upward axis; "y" is turned to z up by (x, y, z) -> (x, -z, y), "z" left as it is.

    Returns:
        ``(n, 3)`` float32, z up, in the file's unit.

    Raises:
        DataError: not a kind of file read here, not exactly one cloud, or anything wrong inside.
    """
    clouds = read_clouds(path, points, seed, up)
    if len(clouds) != 1:
        raise DataError(f"{path}: data: expected one cloud, found {len(clouds)}; read_clouds gives them all")
    return clouds[0][1]


def read_clouds(path: Path, points: int = 2048, seed: int = 0, up: Up = "z") -> list[tuple[str, np.ndarray]]:
    """All clouds of a file with their names: ``"chair.off"`` for one; for many ``"set.h5[0]"`` and so on.

    Arguments, values and errors are those of :func:`read_cloud`; only an ``.h5`` file has more than one
    cloud.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a file of kind {', '.join(SUFFIXES)}, found {path.suffix or 'no suffix'}")
    if not path.is_file():
        raise DataError(f"{path}: expected a file, found {'a folder' if path.is_dir() else 'nothing there'}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: expected a cloud, found an empty file")
    try:
        if suffix == ".h5":
            data, _ = read_h5(path, labels=False)
            if len(data) != 1:
                return [
                    (f"{path.name}[{row}]", z_up(_checked(cloud, path, f"data[{row}]"), up))
                    for row, cloud in enumerate(data)
                ]
            cloud = data[0]
        elif suffix in MESH_SUFFIXES:
            cloud = _read_mesh(path, points, seed)
        elif suffix == ".npy":
            cloud = np.load(path, allow_pickle=False)
            # np.load goes by the content, whatever the suffix says.
            if not isinstance(cloud, np.ndarray):
                raise DataError(f"{path}: expected one array, found an archive of arrays")
        elif suffix == ".npz":
            cloud = _read_npz(path)
        elif suffix == ".pcd":
            cloud = read_pcd(path)
        else:
            cloud = _read_text(path)
    except DataError:
        raise
    except Exception as error:
        # Parsers fail on broken input in any way at all: IndexError, struct.error, KeyError.
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: expected an array of numbers, found pickled Python objects, which are never loaded, "
                f"or no array at all"
            ) from error
        raise DataError(
            f"{path}: expected a whole {suffix} file, found one that cannot be read ({type(error).__name__}: {error})"
        ) from error
    return [(path.name, z_up(_checked(cloud, path, "points"), up))]


def z_up(points: np.ndarray, up: Up) -> np.ndarray:
    """Points ``(..., 3)`` with z up: (x, -z, y) of y-up points, or the points as they are.

    Raises:
        DataError: ``up`` is neither "z" nor "y".
    """
    if up == "z":
        return points
    if up == "y":
        return np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1)
    raise DataError(f"up: expected 'z' or 'y', found {up!r}")


def domain_folder(root: Path, domain: str, top: str) -> Path:
    """The folder of a domain in a data set of several, whose own folder is called ``top``.

    Raises:
        DataError: it is not there.
    """
    folder = Path(root) / domain
    if not folder.is_dir():
        raise DataError(f"{folder}: expected the domain's folder, found none; root must name the folder {top}")
    return folder


def stamp(paths: Iterable[Path], root: Path) -> dict[str, Any]:
    """For fingerprints: how many files, and a hash of names below ``root``, sizes and modification times."""
    digest = hashlib.sha256()
    count = 0
    for path in paths:
        status = path.stat()
        digest.update(f"{path.relative_to(root).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        count += 1
    return {"count": count, "sha256": digest.hexdigest()}


def read_h5(path: Path, *, labels: bool) -> tuple[np.ndarray, np.ndarray]:
    """The clouds of an HDF5 file in the layout of ModelNet40, ScanObjectNN and PointDA-10's ScanNet.

    Args:
        path: the file, with a dataset "data" ``(n, N, >= 3)`` and, if asked for, "label" ``(n,)`` or ``(n,
            1)``.
        labels: whether "label" must be there.

    Returns:
        ``(n, N, 3)`` float32 as stored (not checked for NaN), and ``(n,)`` int64, empty if not asked for.

    Raises:
        DataError: not a readable HDF5 file, or a dataset is missing, empty or of another shape.
    """
    try:
        with h5py.File(path, "r") as file:
            data = _h5_dataset(file, "data", path)
            if data.ndim != 3 or data.shape[2] < 3 or 0 in data.shape or data.dtype.kind not in "fiu":
                raise DataError(
                    f"{path}: data: expected numbers of shape (n, N, >= 3), found {data.dtype} {data.shape}"
                )
            clouds = data[:, :, :3].astype(np.float32)
            if not labels:
                return clouds, np.empty(0, np.int64)
            label = _h5_dataset(file, "label", path)
            if label.shape not in ((len(clouds),), (len(clouds), 1)) or label.dtype.kind not in "iu":
                raise DataError(
                    f"{path}: label: expected whole numbers of shape ({len(clouds)},) or ({len(clouds)}, 1), "
                    f"found {label.dtype} {label.shape}"
                )
            return clouds, label[:].astype(np.int64).reshape(-1)
    except DataError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(f"{path}: expected a whole HDF5 file, found one that cannot be read ({error})") from error


def listed_files(listing: Path) -> list[Path]:
    """The files that a list names, one per line, in its order.

    Published lists give the paths of their authors' machines, so only the names count: the files lie beside
    the list.

    Raises:
        DataError: the list or a file it names is missing, or it is empty.
    """
    if not listing.is_file():
        raise DataError(f"{listing}: expected a list of files, found no file")
    lines = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines()]
    paths = [listing.parent / line.replace("\\", "/").rsplit("/", 1)[-1] for line in lines if line]
    if not paths:
        raise DataError(f"{listing}: expected the name of at least one file, found none")
    for path in paths:
        if not path.is_file():
            raise DataError(f"{listing}: expected {path.name} beside the list, found no such file")
    return paths


def _h5_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{path}: expected a dataset {name!r}, found {', '.join(sorted(file)) or 'none'}")
    return found


def _checked(cloud: np.ndarray, path: Path, field: str) -> np.ndarray:
    """The first three columns as finite float32, or the error that says what else was found."""
    if cloud.dtype.kind not in "fiu":
        raise DataError(f"{path}: {field}: expected numbers, found {cloud.dtype}")
    if cloud.ndim != 2 or cloud.shape[1] < 3:
        raise DataError(f"{path}: {field}: expected shape (n, 3) or with more columns, found {cloud.shape}")
    if len(cloud) == 0:
        raise DataError(f"{path}: {field}: expected at least one point, found none")
    with np.errstate(over="ignore"):
        xyz = np.ascontiguousarray(cloud[:, :3], dtype=np.float32)
    bad = ~np.isfinite(xyz).all(axis=1)
    if bad.any():
        raise DataError(
            f"{path}: {field}: expected finite coordinates, found NaN or infinity in {int(bad.sum())} of "
            f"{len(xyz)} points, the first at row {int(bad.argmax())}"
        )
    return xyz


def _read_npz(path: Path) -> np.ndarray:
    # np.load goes by the content, whatever the suffix says.
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: expected an .npz archive, found another kind of file")
    with np.load(path, allow_pickle=False) as archive:
        if "points" in archive.files:
            return archive["points"]
        arrays = {name: archive[name] for name in archive.files}
    fitting = [name for name, array in arrays.items() if array.ndim == 2 and array.shape[1] >= 3]
    if len(fitting) != 1:
        raise DataError(
            f"{path}: expected an array 'points', or one array of shape (n, >= 3), found "
            + (", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no array")
        )
    return arrays[fitting[0]]


def _read_text(path: Path) -> np.ndarray:
    text = path.read_text(encoding="utf-8-sig").replace(",", " ")
    if not any(line.partition("#")[0].strip() for line in text.splitlines()):
        raise DataError(f"{path}: expected a point per line, found only blank lines and comments")
    return np.loadtxt(io.StringIO(text), ndmin=2)


def _read_mesh(path: Path, points: int, seed: int) -> np.ndarray:
    kind = path.suffix.lower()[1:]
    # Leading blank lines are stripped because trimesh looks for the magic word at the very start.
    content = path.read_bytes().lstrip() if kind == "off" else path.read_bytes()
    # Without a resolver trimesh cannot follow the file's references to materials and images.
    loaded = trimesh.load(io.BytesIO(content), file_type=kind, process=False, skip_materials=True)
    geometries: list[Any] = list(loaded.dump()) if isinstance(loaded, trimesh.Scene) else [loaded]
    vertices, faces, offset = [], [], 0
    for geometry in geometries:
        vertices.append(np.asarray(geometry.vertices, dtype=np.float64).reshape(-1, 3))
        faces.append(np.asarray(getattr(geometry, "faces", ()), dtype=np.int64).reshape(-1, 3) + offset)
        offset += len(vertices[-1])
    if not offset:
        raise DataError(f"{path}: vertices: expected at least one, found none")
    corners, triangles = np.concatenate(vertices), np.concatenate(faces)
    if not len(triangles):
        if kind in ("off", "stl"):
            raise DataError(f"{path}: faces: expected at least one to draw points from, found none")
        return corners
    if triangles.min() < 0 or triangles.max() >= offset:
        raise DataError(
            f"{path}: faces: expected vertex numbers 0 to {offset - 1}, found {triangles.min()} to {triangles.max()}"
        )
    return _drawn(corners[triangles], path, points, seed)


def _drawn(triangles: np.ndarray, path: Path, count: int, seed: int) -> np.ndarray:
    """``count`` points uniform on the surface of ``(t, 3, 3)`` triangles, the same for the same file name.

    A triangle is drawn by its area and a point in it by reflecting the unit square onto its lower half.
    """
    if count < 1:
        raise DataError(f"points: expected at least 1 to draw from a mesh, found {count}")
    corner = triangles[:, 0]
    first, second = triangles[:, 1] - corner, triangles[:, 2] - corner
    cumulative = np.linalg.norm(np.cross(first, second), axis=1).cumsum()
    if not np.isfinite(cumulative[-1]) or cumulative[-1] <= 0:
        raise DataError(f"{path}: faces: expected a positive, finite area, found {cumulative[-1] / 2}")
    name = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], "big")
    generator = np.random.default_rng([seed, name])
    chosen = np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right")
    along = generator.random((count, 2))
    along = np.where(along.sum(axis=1, keepdims=True) > 1, 1 - along, along)
    return corner[chosen] + along[:, :1] * first[chosen] + along[:, 1:] * second[chosen]
