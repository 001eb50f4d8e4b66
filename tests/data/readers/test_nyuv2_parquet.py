import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.data.clouds import Unreadable
from isthmus.data.image_store import prepare_images
from isthmus.data.images import ImageSample
from isthmus.data.readers.class_names import NYU13
from isthmus.data.readers.nyuv2_parquet import NYUv2Parquet
from isthmus.errors import DataError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SIZE = (4, 6)


def row(seed: int) -> dict[str, np.ndarray]:
    g = np.random.default_rng(seed)
    vectors = g.normal(size=(3, *SIZE))
    vectors /= np.linalg.norm(vectors, axis=0)
    return {
        "image": g.random((3, *SIZE)).astype(np.float32),
        "segmentation": g.integers(-1, 13, SIZE),
        "depth": g.random((1, *SIZE)).astype(np.float32),
        "normal": vectors.astype(np.float32),
        "noise": g.random((1, *SIZE)).astype(np.float32),
    }


def column(name: str, rows: list[dict[str, Any]], fixed: bool) -> Any:
    kind = pa.int64() if name == "segmentation" else pa.float32()
    for length in reversed(np.shape(rows[0][name])):
        kind = pa.list_(kind, length) if fixed else pa.list_(kind)
    cells = [None if r[name] is None else np.asarray(r[name]).tolist() for r in rows]
    return pa.array(cells, type=kind)


def save(path: Path, rows: list[dict[str, Any]], *, fixed: bool = False, drop: tuple[str, ...] = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: column(name, rows, fixed) for name in rows[0] if name not in drop})
    parquet.write_table(table, path, row_group_size=7)
    return path


def write(root: Path, fixed: bool = False) -> Path:
    """Twenty-two training rows in two files and four others."""
    save(root / "data" / "train-00000-of-00002-abc.parquet", [row(i) for i in range(20)], fixed=fixed)
    save(root / "data" / "train-00001-of-00002-def.parquet", [row(i) for i in range(20, 22)], fixed=fixed)
    save(root / "data" / "val-00000-of-00001.parquet", [row(i) for i in range(100, 104)], fixed=fixed)
    return root


@pytest.mark.parametrize("fixed", [False, True])
def test_rows_become_samples_as_mtan_has_them(fixed: bool, tmp_path: Path) -> None:
    reader = NYUv2Parquet(write(tmp_path, fixed), validation_share=0.5, block=5)
    assert reader.tasks == {"segmentation": NYU13, "depth": (), "normals": ()}
    samples = list(reader.samples())
    assert [s.name for s in samples] == [f"train/{i}" for i in range(22)] + [f"val/{i}" for i in range(4)]
    for sample, seed in zip(samples, [*range(22), *range(100, 104)]):
        assert isinstance(sample, ImageSample)
        raw = row(seed)
        assert np.abs(sample.image.transpose(2, 0, 1) / 255 - raw["image"]).max() <= 1 / 510 + 1e-6
        expected = np.where(raw["segmentation"] < 0, 255, raw["segmentation"])
        np.testing.assert_array_equal(sample.labels["segmentation"], expected)
        np.testing.assert_array_equal(sample.labels["depth"], raw["depth"][0])
        np.testing.assert_allclose(sample.labels["normals"].transpose(2, 0, 1).astype(float), raw["normal"], atol=1e-3)
    parts: list[Any] = [sample.part for sample in samples if isinstance(sample, ImageSample)]
    assert parts == (["train"] * 5 + ["val"] * 5) * 2 + ["train"] * 2 + ["test"] * 4
    assert samples[21].group == "train/block 4"  # type: ignore[union-attr]
    store = prepare_images(reader, tmp_path / "cache", None)
    assert len(store) == 26 and store.present.all()


def test_an_arrow_extension_type_around_the_lists_is_seen_through(tmp_path: Path) -> None:
    class Wrapped(pa.ExtensionType):
        def __init__(self, storage: Any) -> None:
            super().__init__(storage, "isthmus.test")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: Any, _: bytes) -> Any:
            return cls(storage)

    rows = [row(0), row(1)]
    columns = {name: column(name, rows, False) for name in rows[0]}
    depth = columns["depth"]
    columns["depth"] = pa.ExtensionArray.from_storage(Wrapped(depth.type), depth)
    pa.register_extension_type(Wrapped(depth.type))
    try:
        for folder in ("train", "val"):
            parquet.write_table(pa.table(columns), tmp_path / f"{folder}-0.parquet")
        samples = [s for s in NYUv2Parquet(tmp_path).samples() if isinstance(s, ImageSample)]
        assert len(samples) == 4
        np.testing.assert_array_equal(samples[1].labels["depth"], row(1)["depth"][0])
    finally:
        pa.unregister_extension_type("isthmus.test")


BROKEN: dict[str, tuple[str, Any, str]] = {
    "image of 255": ("image", np.full((3, *SIZE), 255.0), r"image: expected numbers in \[0, 1\]"),
    "image with NaN": ("image", np.full((3, *SIZE), np.nan), "image: expected finite"),
    "nothing": ("depth", None, "depth: expected numbers, found nothing"),
    "ragged": ("segmentation", [[1, 2], [3]], "segmentation: expected lists of one length"),
    "empty": ("segmentation", [], "segmentation: expected lists of one length"),
    "a missing number": ("normal", [[[None]]], "normal: expected numbers, found 1 missing"),
    "grey": ("image", np.zeros((1, *SIZE)), r"image: expected floats of shape \(H, W, 3\)"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_row_with_unusable_values_costs_only_itself(kind: str, tmp_path: Path) -> None:
    name, value, message = BROKEN[kind]
    write(tmp_path)
    rows: list[Any] = [row(0), row(1), row(2)]
    cells = [rows[0][name].tolist(), value.tolist() if isinstance(value, np.ndarray) else value, rows[2][name].tolist()]
    columns = {own: column(own, rows, False) for own in rows[0]}
    columns[name] = pa.array(cells, type=columns[name].type)
    parquet.write_table(pa.table(columns), tmp_path / "data" / "train-00001-of-00002-def.parquet")
    samples = list(NYUv2Parquet(tmp_path).samples())
    assert len(samples) == 27
    (broken,) = [sample for sample in samples if isinstance(sample, Unreadable)]
    assert broken.name == "train/21"
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(broken.reason)


def test_broken_and_missing_files_are_errors(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "data" / "val-00000-of-00001.parquet"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[100:3000] = bytes(2900)
    for content in (b"", b"text", whole[:-10], whole[: len(whole) // 2], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"val-00000-of-00001\.parquet: expected a whole Parquet file"):
            list(NYUv2Parquet(tmp_path).samples())
    save(path, [row(0)], drop=("normal",))
    with pytest.raises(DataError, match=r"expected the columns image, .* found image, segmentation, depth, noise"):
        list(NYUv2Parquet(tmp_path).samples())
    path.unlink()
    with pytest.raises(DataError, match=r"expected files val-\*\.parquet in it or below, found none"):
        NYUv2Parquet(tmp_path).fingerprint()


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = NYUv2Parquet(write(tmp_path))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert reader.fingerprint()["reader"] == "nyuv2_parquet"
    with pytest.raises(DataError, match=r"pip install 'isthmus\[parquet\]'"):
        list(reader.samples())


def nested(array: np.ndarray) -> Any:
    """Nested lists of an array, without a detour over Python's numbers."""
    values, count = pa.array(array.ravel()), array.size
    for length in reversed(array.shape[1:]):
        count //= length
        values = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * length), values)
    return values


def test_only_a_few_rows_of_a_large_row_group_are_in_memory(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    count, size = 300, (60, 80)
    table = pa.table(
        {
            "image": nested(g.random((count, 3, *size), dtype=np.float32)),
            "segmentation": nested(g.integers(0, 13, (count, *size))),
            "depth": nested(g.random((count, 1, *size), dtype=np.float32)),
            "normal": nested(np.zeros((count, 3, *size), np.float32)),
        }
    )
    parquet.write_table(table, tmp_path / "train-0.parquet", row_group_size=1000)
    save(tmp_path / "val-0.parquet", [row(0)])
    whole = table.nbytes
    del table
    before, most = pa.total_allocated_bytes(), 0
    for _ in NYUv2Parquet(tmp_path).samples():
        most = max(most, pa.total_allocated_bytes() - before)
    # A row group read as a whole would be 100 %.
    assert most < 0.4 * whole


def test_the_fingerprint_follows_files_and_settings(tmp_path: Path) -> None:
    first = NYUv2Parquet(write(tmp_path)).fingerprint()
    assert NYUv2Parquet(tmp_path, block=3).fingerprint() != first
    assert NYUv2Parquet(tmp_path, validation_share=0).fingerprint() != first
    os.utime(tmp_path / "data" / "val-00000-of-00001.parquet", (1, 1))
    assert NYUv2Parquet(tmp_path).fingerprint() != first
