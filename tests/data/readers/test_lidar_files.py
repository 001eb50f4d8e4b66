import errno
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.data.readers import lidar_files
from isthmus.data.readers.lidar_files import (
    json_rows,
    read_arrays,
    read_json,
    read_numbers,
    read_point_labels,
    read_sweep,
)
from isthmus.errors import DataError


def test_a_sweep_and_its_labels(tmp_path: Path) -> None:
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    values.tofile(tmp_path / "a.bin")
    np.testing.assert_array_equal(read_sweep(tmp_path / "a.bin", 5), values)
    np.array([1, 2, 3, 70000], "<u4").tofile(tmp_path / "a.label")
    assert read_point_labels(tmp_path / "a.label", 4).tolist() == [1, 2, 3, 70000]
    (tmp_path / "none.bin").write_bytes(b"")
    assert read_sweep(tmp_path / "none.bin", 4).shape == (0, 4)


def test_sizes_that_do_not_fit_and_missing_files_are_errors(tmp_path: Path) -> None:
    values = np.zeros((4, 5), np.float32)
    values.tofile(tmp_path / "a.bin")
    with pytest.raises(DataError, match=r"a\.bin: expected points of 6 float32 \(24 bytes each\), found 80 bytes"):
        read_sweep(tmp_path / "a.bin", 6)
    with pytest.raises(DataError, match=r"a\.bin: expected labels of 3 points \(12 bytes\), found 80 bytes"):
        read_point_labels(tmp_path / "a.bin", 3)
    values[1, 2] = np.nan
    values.tofile(tmp_path / "a.bin")
    with pytest.raises(DataError, match=r"a\.bin: points: expected finite numbers, found 1 others"):
        read_sweep(tmp_path / "a.bin", 5)
    for read in (lambda p: read_sweep(p, 4), lambda p: read_point_labels(p, 4), read_json, lambda p: [*json_rows(p)]):
        with pytest.raises(DataError, match=r"none: expected .*, found no file"):
            read(tmp_path / "none")


def test_numbers_by_name(tmp_path: Path) -> None:
    path = tmp_path / "calib.txt"
    path.write_text("P2: 1 2 3e0\n\nTr: 4 nan\nwords\nR: a b\n")
    assert read_numbers(path, [("P2", 3)])["P2"].tolist() == [1, 2, 3]
    for name, count, message in (
        ("P3", 3, "expected a line 'P3', found P2, Tr, R"),
        ("P2", 4, "P2: expected 4 numbers, found 3"),
        ("Tr", 2, "Tr: expected finite numbers, found 1 others"),
        ("R", 2, "R: expected 2 numbers, found could not convert"),
    ):
        with pytest.raises(DataError, match=rf"calib\.txt: {message}"):
            read_numbers(path, [(name, count)])
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"calib\.txt: expected text"):
        read_numbers(path, [("P2", 3)])


def test_arrays_of_an_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.arange(3), b=np.zeros(2))
    assert set(read_arrays(tmp_path / "a.npz", ("a",), ("b", "c"))) == {"a", "b"}
    with pytest.raises(DataError, match=r"a\.npz: expected the arrays a, c, found"):
        read_arrays(tmp_path / "a.npz", ("a", "c"))
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="allow_pickle"):
        read_arrays(tmp_path / "a.npz", ("a",))


rows = st.lists(
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9) | st.lists(st.floats(0, 1)), max_size=3)
)


@given(rows, st.sampled_from([None, 2]), st.integers(1, 40))
def test_rows_are_those_of_the_whole_file(rows: list, indent: int | None, chunk: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(rows, indent=indent) + "\n")
        before = lidar_files._CHUNK
        lidar_files._CHUNK = chunk
        try:
            assert list(json_rows(path)) == rows
        finally:
            lidar_files._CHUNK = before


@pytest.mark.parametrize(
    "content", ["", "{}", '[{"a": 1}', '[{"a": 1} {"a": 2}]', '[{"a": 1},]', "[1, 2]", '[{"a": }]', "[,]", '[{"a"', "x"]
)
def test_what_is_no_list_of_objects_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json: expected"):
        list(json_rows(tmp_path / "a.json"))


def test_what_is_no_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: expected JSON, found"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(DataError, match=r"a\.json: expected"):
        list(json_rows(tmp_path / "a.json"))


def test_a_drive_that_drops_out_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path) -> bytes:
        raise OSError(errno.EIO, "drive gone")

    (tmp_path / "0.bin").write_bytes(bytes(16))
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="drive gone"):
        read_sweep(tmp_path / "0.bin", 4)
