import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from isthmus.errors import RunError
from isthmus.evaluation.load import load_method
from isthmus.evaluation.points import figures
from isthmus.evaluation.points.accuracy import Predictions
from isthmus.evaluation.points.figures import Evaluation, GateLog, Shown
from isthmus.evaluation.points.report import write_report
from isthmus.evaluation.points.shapes import source_shapes
from isthmus.training.engine import train
from isthmus.training.points.build import open_domains
from isthmus.training.recipe import Recipe, parse
from isthmus.training.run import Run, read_arrays
from page_reader import read


def recipe(name: str, method: dict[str, Any], stages: list[dict[str, Any]], clouds: int = 30) -> Recipe:
    def domain(kind: str) -> dict[str, Any]:
        return {"data": {"kind": "simulated", "domain": kind, "train": 24, "val": 10, "test": clouds}}

    return parse(
        {
            "name": name,
            "source": domain("cad"),
            "target": domain("scan"),
            "points": 64,
            "batch_size": 8,
            "network": {"kind": "pointnet", "width": 0.125},
            "method": method,
            "stages": stages,
            "log_every": 1,
            "evaluate_every": 2,
        }
    )


@dataclass
class Runs:
    gated: Run
    baseline: Run
    oracle: Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(folder / "cache"))
        gated = recipe(
            "<img src=x>gated",
            {"kind": "self-supervised", "gate": "skewness"},
            [{"name": "first", "steps": 6}, {"name": "second", "steps": 4, "pseudo_labels": {}}],
        )
        baseline = recipe("source-only", {"kind": "source-only"}, [{"name": "only", "steps": 5}])
        oracle = recipe("oracle", {"kind": "oracle"}, [{"steps": 2}], clouds=6)
        yield Runs(*(train(each, folder / f"run{i}") for i, each in enumerate((gated, baseline, oracle))))


@pytest.fixture(scope="module")
def written(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([runs.gated, runs.baseline], tmp_path_factory.mktemp("page") / "page.html", rule="last")


def accuracies(run: Run, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Whether each target test cloud is right, and its label, worked out from the files alone."""
    target = open_domains(run.recipe).target.path
    arrays = np.load(file)
    labels = np.load(target / "labels.npy")[arrays["rows"]]
    return arrays["logits"].argmax(axis=1) == labels, labels


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


class TestPage:
    def test_nothing_is_loaded_from_anywhere(self, written: Path) -> None:
        page, source = read(written), written.read_text()
        for tag, name, value in page.attributes:
            assert tag not in ("link", "iframe", "img", "object", "base"), (tag, name, value)
            assert name not in ("src", "srcset", "data", "action"), (tag, name, value)
            if name == "href":
                assert value.startswith("#"), value
        style = source[source.index("<style>") : source.index("</style>")]
        assert "url(" not in style and "@import" not in style
        assert source.count("* plotly.js v") == 1
        assert "cdn.plot.ly/plotly" not in source

    def test_all_sections_and_their_figures_are_there_in_order(self, written: Path) -> None:
        assert read(written).sections == [
            "results", "classes", "confusion", "training", "gate", "shapes", "embedding", "selection", "data", "recipe",
        ]  # fmt: skip
        source = written.read_text()
        for name in (
            "gains", "confusion", "losses", "scores", "gate-scores", "gate-shares", "lowest", "highest", "embedding",
            "selection",
        ):  # fmt: skip
            assert re.search(rf'Plotly\.newPlot\(\s*"{name}-figure"', source), name

    def test_class_table_equals_what_files_and_labels_say(self, runs: Runs, written: Path) -> None:
        ours, labels = accuracies(runs.gated, runs.gated.evaluations()[-1])
        theirs, same = accuracies(runs.baseline, runs.baseline.evaluations()[-1])
        assert (labels == same).all()
        rows = {row[0]: row for row in read(written).tables["classes"] if len(row) > 3}
        for label, name in enumerate(runs.gated.recipe.classes):
            members = labels == label
            count, accuracy, before, gain = rows[name][1:5]
            assert count == str(members.sum())
            if not members.any():
                assert (accuracy, before, gain, rows[name][6]) == ("–", "–", "–", "no sample")
                continue
            difference = 100 * (ours[members].mean() - theirs[members].mean())
            assert (accuracy, before) == (percent(ours[members].mean()), percent(theirs[members].mean()))
            assert float(gain.replace("−", "-")) == pytest.approx(difference, abs=0.051)
        assert rows["all"][1:4] == [str(len(labels)), percent(ours.mean()), percent(theirs.mean())]

    def test_result_table_shows_what_each_rule_chooses(self, runs: Runs, written: Path) -> None:
        rows = [row for row in read(written).tables["results"] if "first" in row]
        files = runs.gated.evaluations("first")
        right = [accuracies(runs.gated, file)[0].mean() for file in files]
        arrays = [np.load(file) for file in files]
        source_val = max(range(len(files)), key=lambda i: (float(arrays[i]["source_val"]), i))
        open_ones = [i for i in range(len(files)) if not arrays[i]["collapsed"]] or [len(files) - 1]
        label_free = max(open_ones, key=lambda i: (float(arrays[i]["im"]), i))
        shown = [re.match(r"[\d.]+", cell)[0] for cell in rows[0][2:]]  # type: ignore[index]
        expected = [right[source_val], right[label_free], right[-1], max(right)]
        assert shown == [percent(value) for value in expected]

    def test_pseudo_label_table_counts_the_right_ones(self, runs: Runs, written: Path) -> None:
        arrays = np.load(runs.gated.path / "pseudo_labels.second.npz")
        target = open_domains(runs.gated.recipe).target
        train = target.indices("train")
        right = (arrays["labels"] == np.load(target.path / "labels.npy"))[train].mean()
        rows = read(written).tables["data"]
        assert ["all", str(len(train)), percent(right)] in rows

    def test_names_from_a_recipe_are_text(self, written: Path) -> None:
        assert not any(tag == "img" for tag, _, _ in read(written).attributes)
        assert "<img src=x>" not in written.read_text()

    def test_same_runs_give_the_same_page(self, runs: Runs, written: Path, tmp_path: Path) -> None:
        again = write_report([runs.gated, runs.baseline], tmp_path / "again.html", rule="last")
        assert again.read_bytes() == written.read_bytes()

    def test_one_run_without_gate_has_a_page_without_gate_and_gains(self, runs: Runs, tmp_path: Path) -> None:
        page = read(write_report([runs.baseline], tmp_path / "page.html"))
        assert "gate" not in page.sections
        assert {"results", "classes", "shapes", "embedding", "recipe"} <= set(page.sections)
        assert page.tables["classes"][0] == ["class", "clouds", "accuracy"]
        assert "hurt" not in page.text

    def test_class_without_clouds_has_a_dash(self, runs: Runs, tmp_path: Path) -> None:
        page = read(write_report([runs.oracle], tmp_path / "page.html"))
        _, labels = accuracies(runs.oracle, runs.oracle.evaluations()[-1])
        missing = set(range(10)) - set(labels.tolist())
        assert missing, "six clouds cannot be of ten classes"
        rows = {row[0]: row for row in page.tables["classes"]}
        for label in missing:
            assert rows[runs.oracle.recipe.classes[label]][1:] == ["0", "–"]

    def test_banner_appears_for_an_oracle_and_nobody_else(self, runs: Runs, written: Path, tmp_path: Path) -> None:
        oracle = write_report([runs.oracle], tmp_path / "oracle.html")
        assert ("div", "role", "alert") in read(oracle).attributes
        assert "Uses target labels" in read(oracle).text
        assert ("div", "role", "alert") not in read(written).attributes
        assert "Uses target labels" not in read(written).text

    def test_run_folder_gains_the_page_and_no_labels(self, runs: Runs) -> None:
        folder = runs.gated.path
        before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        page = write_report([runs.gated])
        after = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        assert page == folder / "report.html"
        assert after.pop(page) and after == before
        page.unlink()
        target = open_domains(runs.gated.recipe).target
        truth = np.load(target.path / "labels.npy")
        for file in folder.rglob("*.npz"):
            for array in read_arrays(file).values():
                for part in (truth, *(truth[target.indices(name)] for name in ("train", "val", "test"))):
                    assert not (array.shape == part.shape and (array == part).all()), file


class TestRefusals:
    def test_no_run(self) -> None:
        with pytest.raises(RunError, match="at least one run"):
            write_report([])

    def test_run_that_is_not_finished(self, tmp_path: Path) -> None:
        unfinished = Run.create(tmp_path / "run", recipe("new", {"kind": "source-only"}, [{"steps": 2}]))
        with pytest.raises(RunError, match="expected a finished run, found status 'new'"):
            write_report([unfinished])

    def test_baseline_measured_on_other_clouds(self, runs: Runs, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"run2: expected the same 30 target clouds .* found 6"):
            write_report([runs.gated, runs.oracle], tmp_path / "page.html")
        assert not (tmp_path / "page.html").exists()


def shown(labels: list[int], predicted: list[int], classes: int = 3) -> Shown:
    names = tuple(str(i) for i in range(len(labels)))
    logits = np.eye(classes, dtype=np.float32)[predicted]
    predictions = Predictions(tuple("abc"[:classes]), logits, np.array(labels), np.array(names), names)
    evaluation = Evaluation("s", 10, 10, 0.5, -1.0, False, 0.25)
    losses = tuple({"global_step": i + 1, "stage": "s", "loss/class": float(i)} for i in range(10))
    return Shown("run", "#000000", (("s", 10),), losses, (evaluation,), predictions, 10)


def gate_log(taking_part: list[float], labels: list[int], scores: list[float]) -> GateLog:
    count = len(scores)
    return GateLog(
        "source",
        np.arange(count) + 1,
        np.array(["s"] * count),
        np.array(scores),
        np.array(taking_part),
        np.array(labels),
    )


class TestFigures:
    def test_confusion_is_normalised_by_row_and_keeps_counts(self) -> None:
        figure = figures.confusion_matrices([shown([0, 0, 0, 0, 1], [0, 0, 0, 1, 0])])
        heat = figure.data[0]
        np.testing.assert_allclose(heat.z, [[75, 25, 0], [100, 0, 0], [np.nan] * 3])
        assert heat.customdata[0, 0].tolist() == [3, 4]

    def test_gate_shares_are_per_class_and_skip_unknown_ones(self) -> None:
        log = gate_log([1, 0, 1, 1, 0, 1], [0, 0, 0, 1, -1, -1], [0.0] * 6)
        figure = figures.gate_shares([log], [("s", 6)], ("a", "b", "c"))
        np.testing.assert_allclose(figure.data[0].y, [200 / 3, 100, np.nan])
        assert figure.layout.shapes[0].y0 == pytest.approx(400 / 6)

    @pytest.mark.parametrize("scores", [np.random.default_rng(0).normal(size=400).tolist(), [0.0] * 400])
    def test_gate_histogram_counts_every_sample_once(self, scores: list[float]) -> None:
        figure = figures.gate_scores([gate_log([1] * 400, [0] * 400, scores)], [("s", 400)], "score")
        heat, mean = figure.data
        assert heat.z.shape[1] == 4
        np.testing.assert_allclose(heat.z.sum(axis=0), 100)
        np.testing.assert_allclose(mean.y, np.array(scores).reshape(4, 100).mean(axis=1), atol=1e-12)

    @pytest.mark.parametrize("count", [3, 10, 40])
    def test_every_class_has_a_colour_of_its_own(self, count: int) -> None:
        assert len(set(figures.class_colours(count))) == count

    def test_signed_numbers(self) -> None:
        assert [figures.signed(value) for value in (1.25, -0.04, -3.0)] == ["+1.2", "0.0", "−3.0"]


def test_shapes_are_ordered_by_the_skewness_of_their_saliency(runs: Runs) -> None:
    store = open_domains(runs.gated.recipe).source
    method = load_method(runs.gated, "last")
    shapes = source_shapes(runs.gated.recipe, method, store)
    assert len(shapes) == 24
    assert [shape.skewness for shape in shapes] == sorted(shape.skewness for shape in shapes)
    for shape in shapes:
        assert shape.skewness == pytest.approx(stats.skew(shape.saliency.astype(np.float64)), abs=1e-3)
    row = store.names.index(shapes[0].name)
    points = torch.from_numpy(np.array(store.points[row : row + 1, :64])).requires_grad_()
    assert method.training is False
    logits = method.predict({"points": points})["class"]
    torch.nn.functional.cross_entropy(logits, torch.tensor(store.labels[row : row + 1])).backward()
    offset = points.detach() - points.detach().quantile(0.5, dim=1, keepdim=True, interpolation="midpoint")
    expected = -(points.grad * offset).sum(-1) * offset.norm(dim=-1)
    np.testing.assert_allclose(shapes[0].saliency, expected[0].numpy(), rtol=1e-3, atol=1e-7)
