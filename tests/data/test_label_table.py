import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.label_table import LabelTable, read_table, write_table
from isthmus.errors import DataError

NYU = ("segmentation", "depth", "normals")
NAMES = ["train/0", "train/1", "büro/2", 'quote"d']
KEPT = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]], bool)


def test_a_file_survives_reordering_of_images_and_tasks(tmp_path: Path) -> None:
    path = tmp_path / "new" / "labels.json"
    write_table(path, LabelTable.of(NYU, NAMES, KEPT), note={"setting": "one", "seed": 0})
    assert [file.name for file in path.parent.iterdir()] == ["labels.json"]
    labels = read_table(path)
    assert labels.tasks == NYU
    np.testing.assert_array_equal(labels.matrix(NYU, NAMES), KEPT)
    np.testing.assert_array_equal(labels.matrix(NYU[::-1], NAMES[::-1]), KEPT[::-1, ::-1])
    np.testing.assert_array_equal(labels.matrix(NYU, NAMES[:2], known=NAMES), KEPT[:2])
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["images"]["train/1"] == ["depth", "normals"] and content["note"]["seed"] == 0


@settings(max_examples=30, deadline=None)
@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), unique=True, max_size=8),
    seed=st.integers(0, 100),
)
def test_any_names_come_back(names: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = np.random.default_rng(seed).random((len(names), 3)) < 0.6
    path = tmp_path_factory.mktemp("labels") / "a.json"
    write_table(path, LabelTable.of(NYU, names, kept))
    np.testing.assert_array_equal(read_table(path).matrix(NYU, names), kept)


def test_a_file_is_replaced_only_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    write_table(path, LabelTable.of(NYU, NAMES, KEPT))
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"labels\.json: expected no file to be there, found one"):
        write_table(path, LabelTable.of(NYU, NAMES, ~KEPT))
    assert path.read_bytes() == before
    write_table(path, LabelTable.of(NYU, NAMES, ~KEPT), overwrite=True)
    np.testing.assert_array_equal(read_table(path).matrix(NYU, NAMES), ~KEPT)
    assert [file.name for file in tmp_path.iterdir()] == ["labels.json"]


def test_without_hard_links_a_file_is_still_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    path = tmp_path / "labels.json"
    write_table(path, LabelTable.of(NYU, NAMES, KEPT))
    with pytest.raises(DataError, match="expected no file to be there"):
        write_table(path, LabelTable.of(NYU, NAMES, ~KEPT))
    np.testing.assert_array_equal(read_table(path).matrix(NYU, NAMES), KEPT)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_table(tmp_path / "labels.json", LabelTable.of(NYU, NAMES, KEPT))
    assert list(tmp_path.iterdir()) == []


def test_tasks_and_names_that_do_not_fit_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    write_table(path, LabelTable.of(NYU, NAMES, KEPT))
    labels = read_table(path)
    with pytest.raises(
        DataError,
        match=r"labels\.json: tasks: expected segmentation, depths, found segmentation, depth, normals; "
        r"not a task here: depth, normals; did you mean 'depths'\?; missing: depths",
    ):
        labels.matrix(("segmentation", "depths"), NAMES)
    with pytest.raises(DataError, match="missing: edges"):
        labels.matrix((*NYU, "edges"), NAMES)
    with pytest.raises(
        DataError,
        match=r"labels\.json: images: expected the 4 images of the data set, found 2 of them missing "
        r"\('x', 'y'\) and 2 that it does not have \('büro/2', 'quote\"d'\)",
    ):
        labels.matrix(NYU, ["x", "train/1", "y", "train/0"])
    with pytest.raises(DataError, match=r"found 1 of them missing \('x'\)$"):
        labels.matrix(NYU, [*NAMES, "x"])


def test_of_refuses_what_is_no_table() -> None:
    with pytest.raises(DataError, match=r"kept: expected bool of shape \(4, 3\), found bool \(3, 4\)"):
        LabelTable.of(NYU, NAMES, KEPT.T)
    with pytest.raises(DataError, match="names: expected every name once, found 1 repeated"):
        LabelTable.of(NYU, ["a", "b", "c", "a"], KEPT)


GOOD: dict[str, Any] = {
    "format": "isthmus partial labels",
    "version": 1,
    "note": {},
    "tasks": ["depth", "normals"],
    "images": {"a": ["depth"], "b": []},
}


def test_a_file_written_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({key: value for key, value in GOOD.items() if key != "note"}))
    assert read_table(tmp_path / "a.json").images == {"a": ("depth",), "b": ()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("[]", 'expected a JSON object with "format"'),
        ("[" * 100000, "expected JSON"),
        (json.dumps(GOOD | {"format": "x"}), "expected a JSON object with"),
        (json.dumps(GOOD | {"version": 2}), "version: expected 1, found 2"),
        (json.dumps(GOOD | {"seed": 2}), "expected the fields tasks and images, found 'seed' as well"),
        (json.dumps(GOOD | {"tasks": "depth"}), "tasks: expected a list of different names, found 'depth'"),
        (json.dumps(GOOD | {"tasks": ["depth", "depth"]}), "tasks: expected a list of different names"),
        (json.dumps(GOOD | {"images": ["a"]}), "images: expected an object"),
        (
            json.dumps(GOOD | {"images": {"a": ["dept"]}}),
            r"images: a: expected some of depth, normals, found \['dept'\]",
        ),
        (json.dumps(GOOD | {"images": {"a": ["depth", "depth"]}}), "images: a: expected some of"),
        (json.dumps(GOOD | {"images": {"a": [0, 1]}}), "images: a: expected some of"),
        (json.dumps(GOOD).replace('"b"', '"a"'), "without repeated names, found 'a' twice"),
    ],
)
def test_a_file_of_another_form_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"labels\.json: .*{message}"):
        read_table(path)


def test_a_file_that_is_no_text_or_not_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    with pytest.raises(DataError, match="expected a file of partial labels, found No such file"):
        read_table(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="expected JSON"):
        read_table(path)
