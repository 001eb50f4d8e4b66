"""Parts of shapes in files: what is written, and that it is what the run's own evaluation says."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from typer.testing import CliRunner

from isthmus.cli.main import app
from isthmus.data.clouds import Sample
from isthmus.errors import DataError
from isthmus.evaluation.load import load_method
from isthmus.evaluation.points.predict_parts import part_colours, predict_shapes
from isthmus.training.points.build import domain_reader, open_domains
from isthmus.training.run import Run, read_arrays


@pytest.fixture(scope="module")
def run(part_runs: list[Run]) -> Run:
    return part_runs[0]


@pytest.fixture(scope="module")
def raw(run: Run) -> dict[str, np.ndarray]:
    """The target's test shapes as the reader gives them, by name."""
    samples = domain_reader(run.recipe.target, run.recipe.classes, source=False).samples()
    return {each.name: each.points for each in samples if isinstance(each, Sample) and each.part == "test"}


def saved(folder: Path, raw: dict[str, np.ndarray], count: int = 2) -> list[Path]:
    folder.mkdir(exist_ok=True, parents=True)
    files = []
    for number, points in enumerate(list(raw.values())[:count]):
        files.append(folder / f"body{number}.npy")
        np.save(files[-1], points)
    return files


def test_points_have_the_parts_of_the_run_s_evaluation_and_others_those_of_the_nearest(
    run: Run, raw: dict[str, np.ndarray], tmp_path: Path
) -> None:
    files = saved(tmp_path / "in", raw, 8)
    found = predict_shapes(run, files, tmp_path / "out", rule="last")
    assert not found.broken and [item.file for item in found.items] == files
    store, arrays = open_domains(run.recipe).target, read_arrays(run.evaluations("stage1")[-1])
    said = {store.names[r]: each for r, each in zip(arrays["rows"], arrays["logits"].argmax(axis=1)[:, 0])}
    for item, (name, points) in zip(found.items, raw.items(), strict=True):
        rows = np.load(item.files[0], allow_pickle=False)
        assert rows.shape == (len(points), 4) and rows.dtype == np.float32
        np.testing.assert_allclose(rows[:, :3], points, atol=1e-6)
        seen = np.asarray(store.points[store.names.index(name), :48], dtype=np.float64)
        unit = points - points.mean(axis=0, dtype=np.float64)
        unit /= np.linalg.norm(unit, axis=1).max()
        distance = ((unit[:, None] - seen[None]) ** 2).sum(axis=-1)
        clear = np.partition(distance, 1, axis=1)[:, 1] - distance.min(axis=1) > 1e-6  # no tie
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(rows[clear, 3], said[name][distance.argmin(axis=1)][clear])
        assert item.shares == pytest.approx((np.bincount(rows[:, 3].astype(int), minlength=8) / len(rows)).tolist())


def test_a_viewer_reads_the_points_in_the_colours_of_the_legend(
    run: Run, raw: dict[str, np.ndarray], tmp_path: Path
) -> None:
    item = predict_shapes(run, saved(tmp_path / "in", raw, 1), tmp_path / "out").items[0]
    rows, cloud = np.load(item.files[0]), trimesh.load(item.files[1])
    np.testing.assert_allclose(cloud.vertices, rows[:, :3], atol=1e-6)
    with (tmp_path / "out" / "parts.csv").open() as file:
        legend = list(csv.DictReader(file))
    assert [row["part"] for row in legend] == list(run.recipe.classes)
    colours = np.array([[int(row[name]) for name in ("red", "green", "blue")] for row in legend])
    np.testing.assert_array_equal(cloud.colors[:, :3], colours[rows[:, 3].astype(int)])
    data = cloud.metadata["_ply_raw"]["vertex"]["data"]
    assert data["label"].tolist() == rows[:, 3].tolist() and 0 < data["probability"].min() <= 1


def test_what_is_unsure_is_left_out(run: Run, raw: dict[str, np.ndarray], tmp_path: Path) -> None:
    files = saved(tmp_path / "in", raw, 1)
    plain = predict_shapes(run, files, tmp_path / "plain").items[0]
    data = trimesh.load(plain.files[1]).metadata["_ply_raw"]["vertex"]["data"]
    found = np.unique(data["probability"].astype(np.float64))
    limit = found[len(found) // 2 - 1 :][:2].mean()
    strict = np.load(predict_shapes(run, files, tmp_path / "strict", abstain_below=limit).items[0].files[0])
    unsure = data["probability"] < limit
    assert 0 < unsure.sum() < len(unsure)
    assert (strict[unsure, 3] == 255).all() and (strict[~unsure, 3] == data["label"][~unsure]).all()


def test_files_with_y_up_keep_their_coordinates_and_get_the_parts_of_the_upright_shape(
    run: Run, raw: dict[str, np.ndarray], tmp_path: Path
) -> None:
    points = next(iter(raw.values()))
    lying = np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1)
    np.save(tmp_path / "z.npy", points)
    np.save(tmp_path / "y.npy", lying)
    upright = np.load(predict_shapes(run, [tmp_path / "z.npy"], tmp_path / "z").items[0].files[0])
    turned = np.load(predict_shapes(run, [tmp_path / "y.npy"], tmp_path / "y", up="y").items[0].files[0])
    np.testing.assert_allclose(turned[:, :3], lying, atol=1e-6)
    np.testing.assert_array_equal(turned[:, 3], upright[:, 3])


def test_broken_files_are_named_and_folders_keep_their_places(
    run: Run, raw: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    good = [*saved(folder, raw, 1), *saved(folder / "deep", raw, 1)]
    np.savetxt(folder / "body0.xyz", next(iter(raw.values())))
    (folder / "empty.ply").touch()
    np.save(folder / "few.npy", np.zeros((5, 3)))
    result = CliRunner().invoke(app, ["predict", str(run.path), str(folder), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1 and "3 predicted, 2 broken" in result.output
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npy")}
    assert written == {"body0.npy.parts.npy", "body0.xyz.parts.npy", "deep/body0.parts.npy"}
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert rows[str(good[0])]["points"] == str(len(next(iter(raw.values())))) and rows[str(good[0])]["error"] == ""
    assert "found an empty file" in rows[str(folder / "empty.ply")]["error"]
    assert "expected at least 16" in rows[str(folder / "few.npy")]["error"]


def test_nothing_is_replaced_or_written_among_the_input_unless_asked(
    run: Run, raw: dict[str, np.ndarray], tmp_path: Path
) -> None:
    files = saved(tmp_path / "in", raw, 1)
    with pytest.raises(DataError, match="expected a folder outside of"):
        predict_shapes(run, [tmp_path / "in"], tmp_path / "in" / "out")
    (tmp_path / "table.csv").touch()
    with pytest.raises(DataError, match=r"table\.csv: expected a folder to write, found a file"):
        predict_shapes(run, files, tmp_path / "table.csv")
    predict_shapes(run, files, tmp_path / "out")
    with pytest.raises(DataError, match="expected a new or empty folder, found files"):
        predict_shapes(run, files, tmp_path / "out")
    predict_shapes(run, files, tmp_path / "out", overwrite=True)


def test_no_label_is_needed_or_opened(
    run: Run, raw: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isthmus.data.store import CloudStore

    monkeypatch.setattr(CloudStore, "point_labels", property(lambda self: pytest.fail("a label was opened")))
    assert len(predict_shapes(run, saved(tmp_path / "in", raw), tmp_path / "out").items) == 2


def test_any_number_of_parts_has_its_colours() -> None:
    for count in (1, 8, 10, 11, 30):
        assert len(set(part_colours(count))) == count


def test_an_exported_network_labels_points_like_the_original(run: Run, tmp_path: Path) -> None:
    from isthmus.evaluation.points.export import TOLERANCE, export_run

    report = export_run(run, tmp_path, rule="last", formats=("pt2",))
    assert max(report.differences.values()) <= TOLERANCE
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    points = torch.randn(3, 61, 3, generator=torch.Generator().manual_seed(0)) * 0.4
    with torch.no_grad():
        expected = load_method(run, "last").predict({"points": points})["parts"]
    assert loaded(points).shape == expected.shape == (3, 8, 1, 61)
    assert ((loaded(points) - expected).abs().amax(dim=1) <= TOLERANCE).float().mean() > 0.9
    assert '"points"' in (tmp_path / "model.json").read_text().split('"output"')[1]


def test_like_names_in_two_folders_are_refused_before_one_replaces_the_other(
    run: Run, raw: dict[str, np.ndarray], tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        saved(tmp_path / folder, raw, 1)
    with pytest.raises(DataError, match=r"names that differ below the given folders.*body0\.npy 2 times"):
        predict_shapes(run, [tmp_path / "a", tmp_path / "b"], tmp_path / "out", rule="last")
    assert not list((tmp_path / "out").rglob("*.ply"))
