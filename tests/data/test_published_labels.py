import json
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isthmus.data.published_labels import MTPSL_PASCAL, read_mtpsl_npy, read_mtpsl_pth
from isthmus.errors import DataError

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="published lists: set ISTHMUS_DATA to the data directory")
MASKS = Path(DATA or ".") / "dense" / "mtpsl_partial_labels"

NYU = ("segmentation", "depth", "normals")
CITYSCAPES = ("segmentation", "inverse_depth")
PASCAL = {
    "semseg": ["2008_000008", "2008_000015"],
    "human_parts": ["2008_000023"],
    "sal": ["2008_000008"],
    "normals": [],
    "edge": ["2008_000023", "2008_000015"],
}


class Trap:
    """Unpickling it creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def save_pth(path: Path, content: Any, *, legacy: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def save_npy(path: Path, content: Any) -> Path:
    np.save(path, content, allow_pickle=True)
    return path


@pytest.mark.parametrize("legacy", [True, False])
def test_rows_of_a_pth_are_mtans_training_files(legacy: bool, tmp_path: Path) -> None:
    weights = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.float32)
    path = save_pth(tmp_path / "onelabel.pth", {"labels_weights": weights}, legacy=legacy)
    assert path.read_bytes().startswith(b"PK") is not legacy
    labels = read_mtpsl_pth(path, "nyuv2")
    assert labels.images == {"train/0": ("segmentation",), "train/1": ("depth", "normals"), "train/2": ()}
    np.testing.assert_array_equal(labels.matrix(NYU, ["train/0", "train/1", "train/2"]), weights.bool())
    with pytest.raises(DataError, match=r"onelabel\.pth: images: .*1 that it does not have \('train/2'\)"):
        labels.matrix(NYU, ["train/0", "train/1"])


@needs_data
@pytest.mark.parametrize(
    ("name", "dataset", "tasks", "totals", "numbers"),
    [
        ("nyuv2_onelabel", "nyuv2", NYU, [265, 265, 265], {1: 795}),
        ("nyuv2_randomlabels", "nyuv2", NYU, [392, 408, 385], {1: 405, 2: 390}),
        ("cityscapes_onelabel", "cityscapes", CITYSCAPES, [1487, 1488], {1: 2975}),
    ],
)
def test_the_published_lists_in_their_own_format_have_their_known_totals(
    name: str, dataset: Any, tasks: tuple[str, ...], totals: list[int], numbers: dict[int, int], tmp_path: Path
) -> None:
    with np.load(MASKS / "mtpsl_masks.npz", allow_pickle=False) as archive:
        weights = archive[name]
    path = save_pth(tmp_path / "list.pth", {"labels_weights": torch.from_numpy(weights)})
    names = [f"train/{row}" for row in range(len(weights))]
    kept = read_mtpsl_pth(path, dataset).matrix(tasks, names)
    np.testing.assert_array_equal(kept, weights == 1)
    assert kept.sum(axis=0).tolist() == totals
    assert Counter(kept.sum(axis=1).tolist()) == numbers


@needs_data
@pytest.mark.parametrize(
    ("name", "totals", "numbers"),
    [
        (
            "pascal_onelabel",
            {"parts": 999, "edges": 999, "segmentation": 1000, "normals": 1000, "saliency": 1000},
            [4998],
        ),
        (
            "pascal_randomlabels",
            {"parts": 847, "edges": 2557, "segmentation": 2450, "normals": 2480, "saliency": 2445},
            [1538, 1529, 1541, 390],
        ),
    ],
)
def test_the_published_pascal_lists_have_their_known_totals(
    name: str, totals: dict[str, int], numbers: list[int], tmp_path: Path
) -> None:
    lists = json.loads((MASKS / f"{name}.json").read_text())
    labels = read_mtpsl_npy(save_npy(tmp_path / "list.npy", lists))
    assert Counter(task for kept in labels.images.values() for task in kept) == totals
    counted = Counter(len(kept) for kept in labels.images.values())
    assert [counted[size] for size in range(1, len(numbers) + 1)] == numbers and sum(numbers) == len(labels.images)
    for key, ids in lists.items():
        assert {image for image, kept in labels.images.items() if MTPSL_PASCAL[key] in kept} == set(ids)


def test_an_npy_dictionary_is_turned_round(tmp_path: Path) -> None:
    labels = read_mtpsl_npy(save_npy(tmp_path / "a.npy", PASCAL))
    assert labels.images == {
        "2008_000008": ("segmentation", "saliency"),
        "2008_000015": ("segmentation", "edges"),
        "2008_000023": ("parts", "edges"),
    }
    assert labels.tasks == ("segmentation", "parts", "saliency", "normals", "edges")


def test_ids_may_be_texts_of_numpy(tmp_path: Path) -> None:
    expected = read_mtpsl_npy(save_npy(tmp_path / "a.npy", PASCAL)).images
    texts = {key: [np.str_(name) for name in ids] for key, ids in PASCAL.items()}
    assert read_mtpsl_npy(save_npy(tmp_path / "b.npy", texts)).images == expected
    arrays = {key: np.array(ids, dtype="U11") for key, ids in PASCAL.items()}
    assert read_mtpsl_npy(save_npy(tmp_path / "c.npy", arrays)).images == expected
    objects = {key: np.array(ids, dtype=object) for key, ids in PASCAL.items()}
    assert read_mtpsl_npy(save_npy(tmp_path / "d.npy", objects)).images == expected


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_older_numpy_are_read(protocol: int, tmp_path: Path) -> None:
    path = save_npy(tmp_path / "a.npy", PASCAL)
    header = path.read_bytes()[:128]
    assert header.endswith(b"\n")
    content = pickle.dumps(np.array(PASCAL, dtype=object), protocol=protocol)
    for old in (False, True):
        # NumPy 2 renamed the module; a text in a pickle carries its length, so only the plain form is changed.
        body = content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n") if old else content
        path.write_bytes(header + body)
        assert len(read_mtpsl_npy(path).images) == 3


def trapped(trace: Path) -> dict[str, Any]:
    return {
        "as a value": PASCAL | {"sal": Trap(trace)},
        "in a list": PASCAL | {"sal": [Trap(trace)]},
        "as the content": Trap(trace),
        "beside the lists": PASCAL | {"more": Trap(trace)},
    }


@pytest.mark.parametrize("kind", ["as a value", "in a list", "as the content", "beside the lists"])
def test_code_in_an_npy_is_refused_and_does_not_run(kind: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = np.empty((), dtype=object)
    content[()] = trapped(trace)[kind]
    path = save_npy(tmp_path / "a.npy", content)
    with pytest.raises(DataError, match=r"a\.npy: expected a dictionary .*the name \w+\.mkdir, which is not allowed"):
        read_mtpsl_npy(path)
    assert not trace.exists()
    # The trap is real: NumPy itself would fall into it.
    np.load(path, allow_pickle=True)
    assert trace.exists()


GADGETS = {
    # Each names what an unpickler of NumPy arrays might let through.
    "builtins": b"cbuiltins\neval\n(S'1'\ntR.",
    "dotted": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__class__\x93.",
    "numpy function": b"cnumpy\nload\n(S'x'\ntR.",
    "numpy module": b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pabc\n.",
}


@pytest.mark.parametrize("kind", GADGETS)
def test_other_names_and_opcodes_are_refused(kind: str, tmp_path: Path) -> None:
    path = save_npy(tmp_path / "a.npy", PASCAL)
    path.write_bytes(path.read_bytes()[:128] + GADGETS[kind])
    with pytest.raises(DataError, match=r"a\.npy: expected a dictionary saved by numpy\.save, found "):
        read_mtpsl_npy(path)


def test_a_pickle_cannot_change_what_the_next_file_is_read_with(tmp_path: Path) -> None:
    good = save_npy(tmp_path / "good.npy", PASCAL)
    expected = read_mtpsl_npy(good).images
    # BUILD with slots sets attributes on the class that stands for numpy.ndarray.
    attack = b"\x80\x02cnumpy\nndarray\nN}U\x08elementsK\x01s\x86b."
    path = tmp_path / "bad.npy"
    path.write_bytes(good.read_bytes()[:128] + attack)
    with pytest.raises(DataError, match=r"bad\.npy"):
        read_mtpsl_npy(path)
    assert read_mtpsl_npy(good).images == expected


def test_forged_array_states_never_reach_numpy(tmp_path: Path) -> None:
    # An object array whose pointers are given as bytes would crash NumPy's own __setstate__.
    path = save_npy(tmp_path / "a.npy", PASCAL)
    content = path.read_bytes()[128:]
    assert pickle.loads(content)[()] == PASCAL
    forged = pickle.dumps(np.array("x" * 8, dtype="U8"))
    path.write_bytes(path.read_bytes()[:128] + forged)
    with pytest.raises(DataError, match="found something else in it"):
        read_mtpsl_npy(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"semseg": []}, "expected the keys semseg, human_parts, sal, normals, edge, found"),
        (PASCAL | {"depth": []}, "expected the keys"),
        (PASCAL | {"sal": "2008_000008"}, "sal: expected a list of different image ids"),
        (PASCAL | {"sal": [2008]}, "sal: expected a list of different image ids"),
        (PASCAL | {"sal": ["a", "a"]}, r"sal: expected a list of different image ids, found \['a', 'a'\]"),
        (PASCAL | {"sal": np.zeros(3)}, "expected a dictionary saved by numpy.save"),
        ([1, 2], "expected a dictionary saved by numpy.save"),
        (np.zeros(3), r"found an array float64 \(3,\)"),
    ],
)
def test_an_npy_of_something_else_is_an_error(content: Any, message: str, tmp_path: Path) -> None:
    path = save_npy(tmp_path / "a.npy", content)
    with pytest.raises(DataError, match=rf"a\.npy: .*{message}"):
        read_mtpsl_npy(path)


def test_a_cut_off_or_missing_npy_is_an_error(tmp_path: Path) -> None:
    path = save_npy(tmp_path / "a.npy", PASCAL)
    whole = path.read_bytes()
    for length in (0, 5, 60, 128, 150, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.npy: expected a dictionary saved by numpy\.save"):
            read_mtpsl_npy(path)
    path.unlink()
    with pytest.raises(DataError, match="found no file"):
        read_mtpsl_npy(path)


@pytest.mark.parametrize("legacy", [True, False])
def test_code_in_a_pth_is_refused_and_does_not_run(legacy: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = save_pth(tmp_path / "a.pth", {"labels_weights": Trap(trace)}, legacy=legacy)
    with pytest.raises(DataError, match=r"a\.pth: expected a \.pth file of tensors only"):
        read_mtpsl_pth(path, "nyuv2")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": torch.zeros(2, 3)}, r"labels_weights: expected a tensor of shape \(N, 3\) .*found NoneType"),
        ({"labels_weights": torch.zeros(2, 2)}, r"found \(2, 2\)"),
        ({"labels_weights": torch.zeros(3)}, r"found \(3,\)"),
        ({"labels_weights": torch.full((2, 3), 0.5)}, "expected zeros and ones, found 0.5"),
        ({"labels_weights": torch.full((2, 3), float("nan"))}, "expected zeros and ones, found nan"),
        (torch.zeros(2, 3), "found NoneType"),
    ],
)
def test_a_pth_of_something_else_is_an_error(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"a\.pth: .*{message}"):
        read_mtpsl_pth(save_pth(tmp_path / "a.pth", content), "nyuv2")


def test_a_broken_or_missing_pth_or_an_unknown_data_set_is_an_error(tmp_path: Path) -> None:
    path = save_pth(tmp_path / "a.pth", {"labels_weights": torch.zeros(2, 3)})
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-7], whole[:100]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.pth: expected a \.pth file of tensors only"):
            read_mtpsl_pth(path, "nyuv2")
    with pytest.raises(DataError, match="found no file"):
        read_mtpsl_pth(tmp_path / "b.pth", "nyuv2")
    with pytest.raises(DataError, match="dataset: expected one of nyuv2, cityscapes, found 'nyu'"):
        read_mtpsl_pth(path, "nyu")  # type: ignore[arg-type]
