import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.data.image_store import prepare_images
from isthmus.data.readers.camvid import CLASSES, CamVid
from isthmus.errors import DataError

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="CamVid's photographs: set ISTHMUS_DATA to the data directory")

DUSK = 10


def arrays() -> dict[str, Any]:
    """Ten photographs at dusk and three by day of 4 x 6 pixels."""
    g = np.random.default_rng(0)
    count = DUSK + 3
    return {
        "rgb": g.integers(0, 256, (count, 4, 6, 3), dtype=np.uint8),
        "seg": g.integers(0, 12, (count, 4, 6), dtype=np.uint8),
        "class_names": np.array([*CLASSES, "unlabelled"]),
        "name": np.array([f"0001TP_{i:04d}" for i in range(DUSK)] + ["a_0", "a_1", "b_0"]),
        "sequence": np.array(["0001TP"] * DUSK + ["a", "a", "b"]),
        "domain": np.array(["dusk"] * DUSK + ["day"] * 3),
        "split": np.array(["train"] * DUSK + ["train", "val", "test"]),
    }


def write(folder: Path, **changed: Any) -> Path:
    np.savez(
        folder / "camvid.npz", **{name: array for name, array in (arrays() | changed).items() if array is not None}
    )
    return folder / "camvid.npz"


def test_days_keep_their_parts_and_dusk_is_cut_in_time(tmp_path: Path) -> None:
    path = write(tmp_path)
    day, dusk, every = (list(CamVid(light, path).samples()) for light in ("day", "dusk", "all"))  # type: ignore[arg-type]
    assert [(s.name, s.part, s.group) for s in day] == [
        ("a_0", "train", "a"),
        ("a_1", "val", "a"),
        ("b_0", "test", "b"),
    ]
    assert [s.part for s in dusk] == ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    assert Counter(s.group for s in dusk)["0001TP/train 0"] == 4
    assert all(len({s.part for s in dusk if s.group == group}) == 1 for group in {s.group for s in dusk})
    assert [s.name for s in every] == [s.name for s in dusk] + [s.name for s in day]


def test_labels_follow_the_file_whatever_the_order_of_its_classes(tmp_path: Path) -> None:
    raw = arrays()
    expected = np.where(raw["seg"] == 11, 255, raw["seg"])
    order = np.random.default_rng(1).permutation(12)
    path = write(tmp_path, seg=np.argsort(order)[raw["seg"]].astype(np.uint8), class_names=raw["class_names"][order])
    for row, sample in enumerate(CamVid(path=path).samples()):
        np.testing.assert_array_equal(sample.labels["segmentation"], expected[row])
        np.testing.assert_array_equal(sample.image, raw["rgb"][row])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seg": None}, r"camvid\.npz: expected the arrays rgb, .*"),
        ({"rgb": np.zeros((13, 4, 6), np.uint8)}, r"rgb: expected uint8 \(13, 4, 6, 3\), found uint8 \(13, 4, 6\)"),
        ({"seg": np.full((13, 4, 6), 12, np.uint8)}, r"seg\[0\]: expected 0 to 11, found 12"),
        ({"class_names": np.array(["sky", "house"])}, "class_names: expected sky, .*found 'house'"),
        ({"domain": np.array(["night"] * 13)}, "domain: expected day, dusk, found 'night'"),
        ({"split": np.array(["training"] * 13)}, "split: expected train, val, test, found 'training'"),
        ({"name": np.array(["a"])}, "name: expected 13 names"),
    ],
)
def test_a_file_that_is_not_camvid_is_an_error(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(CamVid(path=write(tmp_path, **changed)).samples())


def test_no_file_and_no_such_light_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="light: expected one of day, dusk, all, found 'night'"):
        CamVid("night")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected the file of CamVid's photographs, found no file"):
        CamVid(path=tmp_path / "none").fingerprint()
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    with pytest.raises(DataError, match="expected the environment variable ISTHMUS_DATA"):
        CamVid().fingerprint()


@needs_data
def test_the_real_photographs_are_prepared_and_dusk_is_darker(tmp_path: Path) -> None:
    stores = {light: prepare_images(CamVid(light), tmp_path, None) for light in ("day", "dusk")}  # type: ignore[arg-type]
    assert {light: len(store) for light, store in stores.items()} == {"day": 273, "dusk": 31}
    assert all(store.skipped == () and store.size == (120, 160) for store in stores.values())
    assert [len(stores["dusk"].indices(part)) for part in ("train", "val", "test")] == [19, 6, 6]
    assert stores["dusk"].images.mean() < 0.8 * stores["day"].images.mean()
    labels = stores["day"].labels("segmentation")
    sky = np.asarray(labels == CLASSES.index("sky"))
    road = np.asarray(labels == CLASSES.index("road"))
    rows = np.arange(120)[:, None]
    assert (sky * rows).sum() / sky.sum() < 40 < 80 < (road * rows).sum() / road.sum()
