import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from isthmus.data.clouds import Sample
from isthmus.errors import DataError, IsthmusError, RecipeError, RunError
from isthmus.evaluation.load import load_method
from isthmus.evaluation.points import predict
from isthmus.evaluation.points.predict import Predicted, check_output, predict_files, predict_store, write_predictions
from isthmus.training.points.build import build_method, domain_reader, open_domains
from isthmus.training.recipe import override, parse
from isthmus.training.run import Run, read_arrays

TOUCHED: list[str] = []


class Trap:
    """Leaves a trace if it is ever unpickled."""

    def __reduce__(self) -> tuple:
        return (TOUCHED.append, ("unpickled",))


@pytest.fixture(scope="module")
def raw(tiny_run: Run, cache: Path) -> dict[str, np.ndarray]:
    """The target's clouds by name, as its reader gives them: not yet prepared."""
    recipe = tiny_run.recipe
    samples = domain_reader(recipe.target, recipe.classes, source=False).samples()
    return {sample.name: sample.points for sample in samples if isinstance(sample, Sample)}


@pytest.fixture
def some(raw: dict[str, np.ndarray]) -> np.ndarray:
    return next(iter(raw.values()))


def write(path: Path, points: np.ndarray) -> Path:
    """A cloud in the format of the suffix, without any loss."""
    lines = [" ".join(f"{value:.9g}" for value in point) for point in points]
    if path.suffix == ".npy":
        np.save(path, points)
    elif path.suffix == ".npz":
        np.savez(path, points=points)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["data"] = points[None]
    elif path.suffix == ".ply":
        header = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
        header += [f"property double {axis}" for axis in "xyz"] + ["end_header"]
        path.write_text("\n".join(header + lines) + "\n")
    elif path.suffix == ".pcd":
        header = ["VERSION 0.7", "FIELDS x y z", "SIZE 4 4 4", "TYPE F F F", "COUNT 1 1 1", f"WIDTH {len(points)}"]
        path.write_text("\n".join([*header, "HEIGHT 1", f"POINTS {len(points)}", "DATA ascii", *lines]) + "\n")
    else:
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".ply", ".xyz", ".txt", ".pcd", ".h5"])
def test_a_file_is_predicted_as_the_run_s_own_evaluation_predicts_its_cloud(
    suffix: str, tiny_run: Run, raw: dict[str, np.ndarray], tmp_path: Path
) -> None:
    recipe, evaluation = tiny_run.recipe, read_arrays(tiny_run.evaluations()[-1])
    names = [open_domains(recipe).target.names[row] for row in evaluation["rows"]]
    assert len(names) == 24
    files = [write(tmp_path / f"{number}{suffix}", raw[name]) for number, name in enumerate(names)]
    found = predict_files(tiny_run, files, rule="last")
    expected = softmax(evaluation["logits"].astype(np.float64), axis=1)
    assert np.ptp(expected, axis=0).min() > 1e-3, "alike for all clouds, so nothing is compared"
    assert not found.broken
    assert [item.file for item in found.items] == files
    assert [item.name for item in found.items] == [file.name for file in files]
    np.testing.assert_allclose(np.stack([item.probabilities for item in found.items]), expected, atol=1e-5)
    assert [item.predicted for item in found.items] == [recipe.classes[label] for label in expected.argmax(axis=1)]
    np.testing.assert_allclose([item.probability for item in found.items], expected.max(axis=1), atol=1e-5)
    uncertain = entropy(expected, axis=1) / np.log(len(recipe.classes))
    np.testing.assert_allclose([item.confidence for item in found.items], 1 - uncertain, atol=1e-5)


def test_rows_of_a_store_give_the_logits_of_the_run_s_evaluation(tiny_run: Run) -> None:
    evaluation = read_arrays(tiny_run.evaluations()[-1])
    store = open_domains(tiny_run.recipe).target
    logits = predict_store(load_method(tiny_run, "last"), store, evaluation["rows"], tiny_run.recipe.points)
    np.testing.assert_allclose(logits, evaluation["logits"], atol=1e-5)
    nothing = predict_store(load_method(tiny_run, "last"), store, np.array([], np.int64), tiny_run.recipe.points)
    assert nothing.shape == (0, 10)


def test_more_files_than_a_batch_keep_their_order(
    tiny_run: Run, raw: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds = list(raw.values())[:7]
    files = [write(tmp_path / f"{number}.npy", cloud) for number, cloud in enumerate(clouds)]
    together = predict_files(tiny_run, files)
    monkeypatch.setattr(predict, "BATCH", 3)
    in_parts = predict_files(tiny_run, files)
    assert [item.file for item in in_parts.items] == files
    for one, other in zip(together.items, in_parts.items, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


@pytest.mark.parametrize("count", [16, 47, 300, 5000])
def test_any_number_of_points_is_predicted(count: int, tiny_run: Run, tmp_path: Path) -> None:
    cloud = np.random.default_rng(0).standard_normal((count, 3)) * (300.0, 200.0, 100.0) + 5000.0
    found = predict_files(tiny_run, [write(tmp_path / "cloud.npy", cloud)])
    assert not found.broken
    (item,) = found.items
    assert item.predicted in tiny_run.recipe.classes
    assert item.probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize("repeated", [1, 100])
def test_too_few_distinct_points_are_reported(repeated: int, tiny_run: Run, tmp_path: Path) -> None:
    cloud = np.tile(np.random.default_rng(0).standard_normal((5, 3)), (repeated, 1))
    found = predict_files(tiny_run, [write(tmp_path / "five.npy", cloud)])
    assert not found.items
    assert "five.npy: expected at least 16" in found.broken[0].reason
    assert "found 5" in found.broken[0].reason


def test_position_scale_and_repetition_do_not_change_a_prediction(
    tiny_run: Run, some: np.ndarray, tmp_path: Path
) -> None:
    files = [
        write(tmp_path / "as-it-is.npy", some),
        write(tmp_path / "elsewhere.npy", some.astype(np.float64) * 128 + (64, -32, 16)),
        write(tmp_path / "twice.npy", np.concatenate([some, some])),
    ]
    first, *others = predict_files(tiny_run, files).items
    for other in others:
        np.testing.assert_allclose(other.probabilities, first.probabilities, atol=1e-4)


def test_y_up_files_are_turned(tiny_run: Run, some: np.ndarray, tmp_path: Path) -> None:
    upright = predict_files(tiny_run, [write(tmp_path / "z.npy", some)]).items[0]
    lying = write(tmp_path / "y.npy", np.stack([some[:, 0], some[:, 2], -some[:, 1]], axis=1))
    turned = predict_files(tiny_run, [lying], up="y").items[0]
    np.testing.assert_allclose(turned.probabilities, upright.probabilities, atol=1e-5)
    not_turned = predict_files(tiny_run, [lying]).items[0]
    assert np.abs(not_turned.probabilities - upright.probabilities).max() > 1e-4
    with pytest.raises(IsthmusError, match="up: expected 'z' or 'y', found 'x'"):
        predict_files(tiny_run, [lying], up="x")


def test_meshes_are_predicted(tiny_run: Run, tmp_path: Path) -> None:
    corners = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n"
    (tmp_path / "a.off").write_text(f"OFF\n4 4 0\n{corners}3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n")
    assert len(predict_files(tiny_run, [tmp_path / "a.off"]).items) == 1


def test_broken_files_are_named_and_the_others_predicted(tiny_run: Run, some: np.ndarray, tmp_path: Path) -> None:
    good = [write(tmp_path / "first.npy", some), write(tmp_path / "last.xyz", some)]
    (tmp_path / "empty.ply").touch()
    whole = write(tmp_path / "cut.h5", some).read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    spoilt = some.copy()
    spoilt[3, 1] = np.nan
    write(tmp_path / "nan.npy", spoilt)
    np.save(tmp_path / "pickle.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    (tmp_path / "notes.docx").write_text("no cloud")
    (tmp_path / "nothing-inside").mkdir()
    broken = ["empty.ply", "cut.h5", "nan.npy", "pickle.npy", "notes.docx", "nothing-inside", "missing.npy"]
    found = predict_files(tiny_run, [good[0], *(tmp_path / name for name in broken), good[1]])
    assert [item.file for item in found.items] == good
    reasons = {each.file.name: each.reason for each in found.broken}
    assert reasons.keys() == set(broken)
    assert all(str(tmp_path / name) in reason for name, reason in reasons.items())
    assert "found an empty file" in reasons["empty.ply"]
    assert "whole HDF5 file" in reasons["cut.h5"]
    assert "NaN" in reasons["nan.npy"]
    assert "never loaded" in reasons["pickle.npy"]
    assert "found .docx" in reasons["notes.docx"]
    assert "found none" in reasons["nothing-inside"]
    assert "nothing there" in reasons["missing.npy"]
    assert TOUCHED == []


def test_one_broken_cloud_does_not_spoil_the_others_in_its_file(
    tiny_run: Run, some: np.ndarray, tmp_path: Path
) -> None:
    data = np.stack([some, some, some[::-1]])
    data[1, 0, 0] = np.inf
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["data"] = data
    found = predict_files(tiny_run, [tmp_path / "set.h5"])
    assert [item.name for item in found.items] == ["set.h5[0]", "set.h5[2]"]
    assert [each.name for each in found.broken] == ["set.h5[1]"]
    assert "set.h5[1]: expected finite coordinates" in found.broken[0].reason


def test_folders_are_searched_and_nothing_is_predicted_twice(tiny_run: Run, some: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / ".hidden").mkdir()
    b = write(tmp_path / "in" / "b.npy", some)
    a = write(tmp_path / "in" / "deep" / "a.xyz", some)
    write(tmp_path / "in" / ".hidden" / "c.npy", some)
    (tmp_path / "in" / "picture.png").touch()
    told: list[tuple[int, int]] = []
    found = predict_files(tiny_run, [tmp_path / "in", b, a], on_progress=lambda done, total: told.append((done, total)))
    assert [item.file for item in found.items] == [b, a]
    assert not found.broken
    assert told == [(1, 2), (2, 2)]


def test_below_the_threshold_no_class_is_given(tiny_run: Run, raw: dict[str, np.ndarray], tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}.npy", cloud) for number, cloud in enumerate(list(raw.values())[:20])]
    plain = predict_files(tiny_run, files).items
    limit = float(np.median([item.probability for item in plain]))
    strict = predict_files(tiny_run, files, abstain_below=limit).items
    assert not any(item.abstained for item in plain)
    assert 0 < sum(item.abstained for item in strict) < 20
    for before, after in zip(plain, strict, strict=True):
        assert after.abstained == (before.probability < limit)
        assert after.predicted == ("" if after.abstained else before.predicted)
        assert after.probability == before.probability
    with pytest.raises(IsthmusError, match=r"abstain_below: expected a probability from 0 to 1, found 1\.5"):
        predict_files(tiny_run, files, abstain_below=1.5)


@pytest.fixture
def predicted(tiny_run: Run, raw: dict[str, np.ndarray], tmp_path: Path) -> Predicted:
    files = [write(tmp_path / f"{number}, ü.npy", cloud) for number, cloud in enumerate(list(raw.values())[:5])]
    once = predict_files(tiny_run, files).items
    limit = sorted(item.probability for item in once)[2]
    return predict_files(tiny_run, [*files, tmp_path / "missing.npy"], abstain_below=limit)


def test_csv_holds_what_was_predicted(predicted: Predicted, tmp_path: Path) -> None:
    write_predictions(predicted, tmp_path / "new" / "table.csv")
    with (tmp_path / "new" / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    leading = ["file", "item", "class", "probability", "confidence", "abstained"]
    assert list(rows[0]) == [*leading, *(f"p_{name}" for name in predicted.classes), "error"]
    assert len(rows) == 6
    for row, item in zip(rows, predicted.items, strict=False):
        assert (row["file"], row["item"], row["class"]) == (str(item.file), item.name, item.predicted)
        assert row["abstained"] == str(int(item.abstained))
        assert float(row["probability"]) == pytest.approx(item.probability, rel=1e-5)
        assert float(row["confidence"]) == pytest.approx(item.confidence, rel=1e-5)
        shares = [float(row[f"p_{name}"]) for name in predicted.classes]
        assert shares == pytest.approx(item.probabilities.tolist(), rel=1e-5)
        assert row["error"] == ""
    assert sum(row["abstained"] == "1" for row in rows) == 2
    assert rows[-1]["file"].endswith("missing.npy")
    assert "nothing there" in rows[-1]["error"]
    assert {rows[-1][column] for column in [*leading[1:], "p_chair"]} == {""}


def test_npz_holds_what_was_predicted_and_needs_no_pickle(predicted: Predicted, tmp_path: Path) -> None:
    write_predictions(predicted, tmp_path / "table.npz")
    with np.load(tmp_path / "table.npz", allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    assert found["classes"].tolist() == list(predicted.classes)
    assert found["files"].tolist() == [str(item.file) for item in predicted.items]
    assert found["items"].tolist() == [item.name for item in predicted.items]
    assert found["predicted"].tolist() == [item.predicted for item in predicted.items]
    assert found["probability"].tolist() == [item.probability for item in predicted.items]
    assert found["confidence"].tolist() == [item.confidence for item in predicted.items]
    assert found["abstained"].tolist() == [item.abstained for item in predicted.items]
    np.testing.assert_array_equal(found["probabilities"], [item.probabilities for item in predicted.items])
    assert found["errors"].tolist() == [predicted.broken[0].reason]
    assert found["broken_files"].tolist() == [str(tmp_path / "missing.npy")]


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_a_table_is_written_even_if_every_file_is_broken(suffix: str, tiny_run: Run, tmp_path: Path) -> None:
    found = predict_files(tiny_run, [tmp_path / "missing.npy"])
    write_predictions(found, tmp_path / f"table{suffix}")
    if suffix == ".npz":
        with np.load(tmp_path / "table.npz", allow_pickle=False) as archive:
            assert archive["probabilities"].shape == (0, 10)
    else:
        assert len((tmp_path / "table.csv").read_text().splitlines()) == 2


def test_an_existing_table_is_kept_unless_asked(predicted: Predicted, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    out.write_text("mine")
    with pytest.raises(DataError, match=r"table\.csv: expected a new file, found one that exists"):
        write_predictions(predicted, out)
    assert out.read_text() == "mine"
    write_predictions(predicted, out, overwrite=True)
    assert out.read_text().startswith("file,item,class")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="found a folder"):
        check_output(tmp_path / "folder.csv", overwrite=True)


@pytest.mark.parametrize(("name", "found"), [("table.xlsx", ".xlsx"), ("table", "no suffix")])
def test_an_unknown_kind_of_table_is_an_error(name: str, found: str, predicted: Predicted, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name}: expected a file .csv or .npz to write, found {found}"):
        write_predictions(predicted, tmp_path / name)


def test_the_method_has_the_weights_of_the_rule_and_stage_asked_for(tiny_run: Run) -> None:
    for rule, stage in (("last", None), ("source-val", "stage1"), ("label-free", "stage2")):
        method = load_method(tiny_run, rule, stage=stage)
        weights = tiny_run.weights(rule, stage)
        assert all(torch.equal(value, weights[name]) for name, value in method.state_dict().items())
        assert not any(module.training for module in method.modules())


def test_a_custom_method_is_filled_where_it_is_given(tiny_run: Run) -> None:
    own = build_method(tiny_run.recipe)
    values = tiny_run.recipe.model_dump(mode="json") | {"method": {"kind": "custom", "name": "mine"}}
    run = Run(tiny_run.path, parse(values))
    assert load_method(run, "last", own) is own
    assert torch.equal(own.state_dict()["network.head.logits.bias"], run.weights()["network.head.logits.bias"])
    with pytest.raises(RecipeError, match="of your own making"):
        load_method(run, "last")


def test_weights_of_another_network_are_an_error_that_names_the_file(tiny_run: Run) -> None:
    values = override(tiny_run.recipe.model_dump(mode="json"), [("network.width", "0.25")])
    last = tiny_run.recipe.stages[-1].name
    with pytest.raises(RunError, match=rf"{last}\.last\.pt: expected weights of the recipe's network"):
        load_method(Run(tiny_run.path, parse(values)), "last")


def test_a_network_that_gives_no_numbers_is_an_error(tiny_run: Run, some: np.ndarray, tmp_path: Path) -> None:
    class Spoilt(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * torch.nan

    method = build_method(tiny_run.recipe)
    method.network.head.logits = Spoilt(method.network.head.logits.in_features, 10)
    with pytest.raises(RunError, match="expected finite logits"):
        predict_files(tiny_run, [write(tmp_path / "a.npy", some)], method=method)
