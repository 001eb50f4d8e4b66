"""Where the files of the data directory are looked for, and what is said where they are not."""

from pathlib import Path

import pytest

from isthmus.data.data_directory import data_file
from isthmus.errors import DataError

RELATIVE = Path("objects") / "scans.npz"


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A data directory with the file in it, which nothing names yet."""
    (tmp_path / "objects").mkdir()
    (tmp_path / RELATIVE).touch()
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    return tmp_path


def test_the_variable_names_the_directory(directory, monkeypatch):
    monkeypatch.setenv("ISTHMUS_DATA", str(directory))
    assert data_file(RELATIVE, "scans") == directory / RELATIVE


def test_a_root_goes_before_the_variable(directory, monkeypatch):
    monkeypatch.setenv("ISTHMUS_DATA", str(directory / "elsewhere"))
    assert data_file(RELATIVE, "scans", root=directory) == directory / RELATIVE


def test_a_file_goes_before_both(directory, tmp_path):
    other = tmp_path / "other.npz"
    other.touch()
    assert data_file(RELATIVE, "scans", file=other, root=directory) == other


@pytest.mark.parametrize("value", [None, ""])
def test_nothing_says_where(directory, monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("ISTHMUS_DATA", value)
    message = (
        r"^scans\.npz: expected the environment variable ISTHMUS_DATA to name the data directory, found it not set"
    )
    with pytest.raises(DataError, match=message):
        data_file(RELATIVE, "scans")


def test_a_wrong_directory_is_told_from_a_wrong_file(directory):
    with pytest.raises(DataError, match=r"expected scans, found no file; the data directory is .* has 'objects' in it"):
        data_file(RELATIVE, "scans", root=directory / "objects")
    with pytest.raises(DataError, match=r"none\.npz: expected scans, found no file$"):
        data_file(RELATIVE, "scans", file=directory / "none.npz")
