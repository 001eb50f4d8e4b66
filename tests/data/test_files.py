import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import trimesh

from isthmus.data.files import SUFFIXES, listed_files, read_cloud, read_clouds, stamp, z_up
from isthmus.errors import DataError

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=float)
SQUARE_OFF = "4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n"


def cloud(count: int = 20, columns: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, columns)).astype(np.float32)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Meshes


@pytest.mark.parametrize("header", ["OFF\n", "OFF", "OFF ", "\nOFF\n# made by hand\n"])
def test_off_is_read_also_with_its_counts_on_the_first_line(header: str, tmp_path: Path) -> None:
    points = read_cloud(written(tmp_path / "square.off", header + SQUARE_OFF), points=500)
    assert points.shape == (500, 3) and points.dtype == np.float32
    assert (points[:, :2] >= 0).all() and (points[:, :2] <= 1).all() and (points[:, 2] == 0).all()


@pytest.mark.parametrize("kind", ["off", "ply", "obj", "stl"])
def test_every_kind_of_mesh_gives_points_on_its_surface(kind: str, tmp_path: Path) -> None:
    trimesh.creation.box(extents=(2, 4, 6)).export(tmp_path / f"box.{kind}")
    points = read_cloud(tmp_path / f"box.{kind}", points=3000)
    np.testing.assert_allclose(np.abs(points / [1, 2, 3]).max(axis=1), 1, atol=1e-5)
    # Areas of the pairs of faces across x, y, z: 4*6, 2*6, 2*4.
    across = np.abs(points / [1, 2, 3]).argmax(axis=1)
    np.testing.assert_allclose(np.bincount(across) / 3000, np.array([24, 12, 8]) / 44, atol=0.03)


def test_points_are_uniform_within_a_triangle(tmp_path: Path) -> None:
    path = written(tmp_path / "one.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    points = read_cloud(path, points=20000)
    np.testing.assert_allclose(points.mean(axis=0), [1 / 3, 1 / 3, 0], atol=0.005)
    # The corner triangle x + y < 1/2 has a quarter of the area.
    assert (points.sum(axis=1) < 0.5).mean() == pytest.approx(0.25, abs=0.01)


def test_a_meshs_points_depend_on_seed_and_file_name_but_not_on_its_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    paths = [tmp_path / "one.off", tmp_path / "b" / "one.off", tmp_path / "two.off"]
    here, there, other = (read_cloud(written(path, "OFF\n" + SQUARE_OFF)) for path in paths)
    np.testing.assert_array_equal(here, there)
    assert not np.array_equal(here, other)
    assert not np.array_equal(here, read_cloud(paths[0], seed=1))


@pytest.mark.parametrize("kind", ["ply", "obj"])
def test_a_file_without_faces_gives_its_vertices(kind: str, tmp_path: Path) -> None:
    points = cloud()
    if kind == "ply":
        trimesh.PointCloud(points).export(tmp_path / "scan.ply")
    else:
        written(tmp_path / "scan.obj", "".join(f"v {x} {y} {z}\n" for x, y, z in points))
    np.testing.assert_allclose(read_cloud(tmp_path / f"scan.{kind}"), points, atol=1e-6)


def test_an_obj_of_several_objects_and_polygons_is_read_whole(tmp_path: Path) -> None:
    text = "mtllib none.mtl\n" + "".join(
        f"o part{z}\nusemtl m{z}\nv 0 0 {z}\nv 1 0 {z}\nv 1 1 {z}\nv 0 1 {z}\nf {at} {at + 1} {at + 2} {at + 3}\n"
        for z, at in ((0, 1), (5, 5))
    )
    points = read_cloud(written(tmp_path / "two.obj", text), points=1000)
    assert (points[:, 2] == 5).mean() == pytest.approx(0.5, abs=0.06)
    assert set(np.unique(points[:, 2])) == {0, 5}


# Arrays and text


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_npy_keeps_the_first_three_columns(dtype: type, tmp_path: Path) -> None:
    array = (cloud(columns=6) * 10).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    points = read_cloud(tmp_path / "a.npy")
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, array[:, :3].astype(np.float32))


def test_npz_takes_points_or_the_only_fitting_array(tmp_path: Path) -> None:
    points, path = cloud(), tmp_path / "a.npz"
    np.savez(path, points=points, normals=points + 1)
    np.testing.assert_array_equal(read_cloud(path), points)
    np.savez_compressed(path, scan=points, label=np.arange(20))
    np.testing.assert_array_equal(read_cloud(path), points)
    np.savez(path, scan=points, normals=points)
    with pytest.raises(DataError, match=r"a\.npz: expected an array 'points'.*scan \(20, 3\), normals \(20, 3\)"):
        read_cloud(path)


@pytest.mark.parametrize("separator", [" ", ",", ", ", "\t"])
@pytest.mark.parametrize("suffix", ["xyz", "txt"])
def test_text_is_read_with_blanks_or_commas_and_comments(separator: str, suffix: str, tmp_path: Path) -> None:
    points = cloud(columns=6)
    lines = [separator.join(map(str, row)) for row in points.tolist()]
    path = written(tmp_path / f"a.{suffix}", "# x y z\n" + "\n".join(lines) + "\n\n")
    np.testing.assert_array_equal(read_cloud(path), points[:, :3])


# PCD


def pcd(points: np.ndarray, encoding: str, kind: str = "<f4") -> bytes:
    """A PCD 0.7 file of x, an intensity, y, two padding bytes and z, packed by hand."""
    record = np.dtype([("x", kind), ("i", "<u2"), ("y", kind), ("_", "u1", (2,)), ("z", kind)])
    rows = np.zeros(len(points), record)
    for axis, name in enumerate("xyz"):
        rows[name] = points[:, axis]
    rows["i"] = 513
    size = record["x"].itemsize
    header = (
        f"# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x intensity y _ z\n"
        f"SIZE {size} 2 {size} 1 {size}\nTYPE F U F U F\nCOUNT 1 1 1 2 1\nWIDTH {len(points)}\nHEIGHT 1\n"
        f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA {encoding}\n"
    ).encode()
    if encoding == "ascii":
        body = "".join(f"{r['x']!s} 513 {r['y']!s} 0 0 {r['z']!s}\n" for r in rows).encode()
    elif encoding == "binary":
        body = rows.tobytes()
    else:
        columns = b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in record.names or ())
        packed = literal_lzf(columns)
        body = struct.pack("<II", len(packed), len(columns)) + packed
    return header + body


def literal_lzf(data: bytes) -> bytes:
    """LZF with literal runs only, but a run of one byte as a copy from one byte before where there are many."""
    out, at = bytearray(), 0
    while at < len(data):
        run = 1
        while at + run < len(data) and data[at + run] == data[at] and run < 200:
            run += 1
        if run >= 12:
            # One literal byte, then a copy of run - 1 bytes (2 + 7 + rest) from distance 1.
            out += bytes([0, data[at], 7 << 5, run - 1 - 9, 0])
            at += run
        elif run >= 4:
            out += bytes([0, data[at], (run - 1 - 2) << 5, 0])
            at += run
        else:
            chunk = data[at : at + min(run, 32)]
            out += bytes([len(chunk) - 1]) + chunk
            at += len(chunk)
    return bytes(out)


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd_is_read_in_every_encoding_with_fields_in_between(encoding: str, kind: str, tmp_path: Path) -> None:
    points = cloud(50)
    np.testing.assert_array_equal(read_cloud(written(tmp_path / "a.pcd", pcd(points, encoding, kind))), points)


def test_compressed_pcd_follows_copies_from_farther_back(tmp_path: Path) -> None:
    # 16 bytes: "abcd" literal, then 12 bytes copied from 4 before; every coordinate is the float of b"abcd".
    packed = b"\x03abcd" + bytes([7 << 5, 12 - 9, 3])
    header = b"FIELDS x y z r\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nPOINTS 1\nDATA binary_compressed\n"
    path = written(tmp_path / "a.pcd", header + struct.pack("<II", len(packed), 16) + packed)
    assert read_cloud(path).tolist() == [[struct.unpack("<f", b"abcd")[0]] * 3]


def test_compressed_pcd_follows_copies_from_beyond_256_bytes(tmp_path: Path) -> None:
    # 300 literal bytes, then 300 copied from 300 before: the high bits of the distance are in the control byte.
    data = cloud(25).tobytes()
    literals = b"".join(bytes([len(data[at : at + 30]) - 1]) + data[at : at + 30] for at in range(0, 300, 30))
    packed = literals + bytes([7 << 5 | (299 >> 8), 255, 299 & 255, 7 << 5 | (299 >> 8), 300 - 264 - 9, 299 & 255])
    header = b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 50\nDATA binary_compressed\n"
    path = written(tmp_path / "a.pcd", header + struct.pack("<II", len(packed), 600) + packed)
    columns = np.frombuffer(data + data, np.float32).reshape(3, 50)
    np.testing.assert_array_equal(read_cloud(path), columns.T)


# HDF5


def test_h5_gives_one_or_many_named_clouds(tmp_path: Path) -> None:
    data = np.random.default_rng(1).normal(size=(3, 20, 6))
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file["data"] = data
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["data"] = data[:1]
    many = read_clouds(tmp_path / "many.h5")
    assert [name for name, _ in many] == ["many.h5[0]", "many.h5[1]", "many.h5[2]"]
    np.testing.assert_array_equal(np.stack([points for _, points in many]), data[:, :, :3].astype(np.float32))
    assert [name for name, _ in read_clouds(tmp_path / "one.h5")] == ["one.h5"]
    assert read_cloud(tmp_path / "one.h5").shape == (20, 3)
    with pytest.raises(DataError, match=r"many\.h5: data: expected one cloud, found 3"):
        read_cloud(tmp_path / "many.h5")


# What can be wrong


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def h5(**datasets: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, value in datasets.items():
            file[name] = value
    return buffer.getvalue()


PLY_OF_BAD_FACE = (
    "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n"
)
PCD = pcd(cloud(), "binary")

BROKEN = {
    "npy of too few columns": ("a.npy", npy(cloud(columns=2)), r"points: expected shape \(n, 3\).*found \(20, 2\)"),
    "flat npy": ("a.npy", npy(np.arange(9.0)), r"found \(9,\)"),
    "npy of text": ("a.npy", npy(np.full((20, 3), "x")), "expected numbers, found <U1"),
    "npy with NaN": ("a.npy", npy(np.where(cloud() > 1, np.nan, cloud())), "expected finite.*found NaN or inf"),
    "npy beyond float32": ("a.npy", npy(np.full((20, 3), 1e300)), "found NaN or infinity in 20 of 20 points"),
    "npy of no points": ("a.npy", npy(np.empty((0, 3))), "expected at least one point, found none"),
    "truncated npy": ("a.npy", npy(cloud())[:-7], r"expected a whole \.npy file"),
    "npy without magic": ("a.npy", b"garbage" * 9, "never loaded, or no array at all"),
    "npz called npy": ("a.npy", npz(points=cloud()), "expected one array, found an archive"),
    "npy called npz": ("a.npz", npy(cloud()), r"expected an \.npz archive, found another kind"),
    "truncated npz": ("a.npz", npz(points=cloud())[:-30], r"expected an \.npz archive, found another kind"),
    "npz of nothing fitting": ("a.npz", npz(a=np.arange(3)), r"array 'points'.*found a \(3,\)"),
    "empty npz": ("a.npz", npz(), "found no array"),
    "text that is no number": ("a.xyz", "1 2 3\n4 five 6\n", r"whole \.xyz file.*'five'"),
    "text of uneven lines": ("a.txt", "1 2 3\n4 5\n", r"whole \.txt file"),
    "text of two columns": ("a.txt", "1 2\n4 5\n", r"found \(2, 2\)"),
    "text of blank lines": ("a.xyz", " \n\n", "found only blank lines"),
    "text of comments": ("a.xyz", "# nothing\n", "found only blank lines and comments"),
    "binary called text": ("a.xyz", b"\xff\xfe\x00\x01" * 9, r"whole \.xyz file.*UnicodeDecodeError"),
    "off without a word": ("a.off", "4 2 0\n0 0 0\n", r"whole \.off file"),
    "truncated off": ("a.off", "OFF\n" + SQUARE_OFF[:20], r"a\.off: .*expected"),
    "off with a wrong vertex": ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "vertex numbers|face index"),
    "ply with a wrong vertex": ("a.ply", PLY_OF_BAD_FACE, "vertex numbers 0 to 2, found 0 to 7|face"),
    "off without faces": ("a.off", "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "faces|whole .off"),
    "off without area": ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", r"positive, finite area, found 0\.0"),
    "off with NaN": ("a.off", "OFF\n3 1 0\n0 0 0\nnan 0 0\n2 0 0\n3 0 1 2\n", "finite area, found nan"),
    "ply of text": ("a.ply", "hello\nworld\n", r"whole \.ply file"),
    "stl of text": ("a.stl", "hello\nworld\n", r"a\.stl: .*expected"),
    "obj without vertices": ("a.obj", "# nothing\n", r"a\.obj: .*expected"),
    "pcd without header": ("a.pcd", "hello\n", "PCD header with FIELDS, found none"),
    "pcd without z": ("a.pcd", PCD.replace(b" z\n", b" w\n"), "FIELDS: expected x, y and z, found x intensity y _ w"),
    "truncated pcd": ("a.pcd", PCD[:-1], "expected 20 points of 16 bytes, found 319 bytes"),
    "pcd of an unknown encoding": ("a.pcd", PCD.replace(b"DATA binary", b"DATA base64"), "DATA: expected ascii"),
    "pcd of too few lines": ("a.pcd", pcd(cloud(), "ascii")[:-20], r"a\.pcd"),
    "pcd of damaged lzf": ("a.pcd", pcd(cloud(), "binary_compressed")[:-9], r"whole \.pcd file.*LZF|IndexError"),
    "truncated h5": ("a.h5", h5(data=np.zeros((2, 20, 3)))[:-100], r"expected a whole HDF5 file"),
    "text called h5": ("a.h5", "hello", "expected a whole HDF5 file"),
    "h5 without data": ("a.h5", h5(other=[1]), "expected a dataset 'data', found other"),
    "h5 of two columns": ("a.h5", h5(data=np.zeros((2, 20, 2))), r"data: expected numbers of shape \(n, N, >= 3\)"),
    "h5 of no clouds": ("a.h5", h5(data=np.zeros((0, 20, 3))), r"found float64 \(0, 20, 3\)"),
    "h5 with NaN": ("a.h5", h5(data=np.full((2, 20, 3), np.nan)), r"data\[0\]: expected finite"),
    "unknown kind": ("a.dwg", "x", r"expected a file of kind \.off.*found \.dwg"),
    "no suffix": ("a", "x", "found no suffix"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_a_data_error_that_names_it(kind: str, tmp_path: Path) -> None:
    name, content, message = BROKEN[kind]
    path = written(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_clouds(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_or_missing_file_of_any_kind_is_a_data_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(DataError, match="expected a file, found nothing there"):
        read_cloud(path)
    path.touch()
    with pytest.raises(DataError, match="expected a cloud, found an empty file"):
        read_cloud(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="expected a file, found a folder"):
        read_cloud(path)


class Trap:
    """Unpickling it creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pickle", "object npy", "object npz"])
def test_a_pickle_where_an_array_is_expected_is_refused_and_runs_no_code(kind: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / ("a.npz" if kind == "object npz" else "a.npy")
    objects = np.array([Trap(trace)], dtype=object)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap(trace)))
    elif kind == "object npy":
        path.write_bytes(npy(objects, allow_pickle=True))
    else:
        path.write_bytes(npz(points=objects))
    with pytest.raises(DataError, match="found pickled Python objects, which are never loaded"):
        read_cloud(path)
    assert not trace.exists()
    # The same bytes do run code in a reader that unpickles, so the test would notice.
    pickle.loads(pickle.dumps(Trap(trace)))
    assert trace.exists()


def test_an_obj_opens_no_file_that_it_refers_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "a.mtl", "newmtl m\nmap_Kd picture.png\n")
    path = written(tmp_path / "a.obj", "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    opened: list[str] = []
    real = io.open

    def watched(file: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(str(file))
        return real(file, *arguments, **options)

    monkeypatch.setattr("builtins.open", watched)
    monkeypatch.setattr("io.open", watched)
    read_cloud(path)
    assert [name for name in opened if str(tmp_path) in name and name != str(path)] == []


# Axes, lists, stamps


def test_y_up_becomes_z_up(tmp_path: Path) -> None:
    written(tmp_path / "a.xyz", "1 2 3\n4 5 6\n")
    assert read_cloud(tmp_path / "a.xyz", up="y").tolist() == [[1, -3, 2], [4, -6, 5]]
    assert read_cloud(tmp_path / "a.xyz").tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(DataError, match="up: expected 'z' or 'y', found 'x'"):
        z_up(CORNERS, "x")  # type: ignore[arg-type]


def test_drawing_no_point_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.off", "OFF\n" + SQUARE_OFF)
    with pytest.raises(DataError, match="points: expected at least 1"):
        read_cloud(path, points=0)


def test_a_list_gives_the_files_beside_it_in_its_order(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).touch()
    listing = written(tmp_path / "files.txt", "/home/author/b.h5\r\ndata\\a.h5\n\n")
    assert listed_files(listing) == [tmp_path / "b.h5", tmp_path / "a.h5"]
    with pytest.raises(DataError, match=r"expected c\.h5 beside the list"):
        listed_files(written(listing, "c.h5"))
    with pytest.raises(DataError, match="at least one file, found none"):
        listed_files(written(listing, "\n"))
    with pytest.raises(DataError, match="expected a list of files, found no file"):
        listed_files(tmp_path / "none.txt")


def test_a_stamp_changes_with_name_size_and_time_only(tmp_path: Path) -> None:
    path = written(tmp_path / "a", "1")
    os.utime(path, (1, 1))
    before = stamp([path], tmp_path)
    os.utime(path, (9, 1))
    assert stamp([path], tmp_path) == before
    os.utime(path, (1, 2))
    assert stamp([path], tmp_path) != before
    os.utime(written(path, "12"), (1, 1))
    assert stamp([path], tmp_path) != before
    os.utime(written(path, "1"), (1, 1))
    assert stamp([path], tmp_path) == before
    assert stamp([path.rename(tmp_path / "b")], tmp_path) != before


# Real files

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="real files: set ISTHMUS_DATA to the data directory")


@needs_data
def test_real_meshes_are_read() -> None:
    raw = Path(DATA or "") / "raw"
    paths = sorted([*raw.rglob("*.off"), *raw.rglob("*.obj")])
    assert len(paths) >= 18
    for path in paths:
        points = read_cloud(path, 1024)
        mesh = trimesh.load(path, process=False, force="mesh")
        assert points.shape == (1024, 3)
        assert (points >= mesh.bounds[0] - 1e-4).all() and (points <= mesh.bounds[1] + 1e-4).all()
        for point in points[:5]:
            nearest = trimesh.triangles.closest_point(mesh.triangles, np.tile(point, (len(mesh.faces), 1)))
            assert np.linalg.norm(nearest - point, axis=1).min() < 1e-5 * mesh.scale


@needs_data
def test_real_files_of_something_else_are_data_errors() -> None:
    raw = Path(DATA or "") / "raw"
    for name in ("lpsb_human/1_labels.txt", "scannet_votenet/scene0000_00_sem_label.npy", "aflw2000_3dmm.npz"):
        with pytest.raises(DataError, match=Path(name).name):
            read_cloud(raw / name)
