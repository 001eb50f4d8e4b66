import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isthmus.errors import IsthmusError, RunError
from isthmus.evaluation.load import load_method
from isthmus.evaluation.points import export
from isthmus.evaluation.points.export import TOLERANCE, export_run
from isthmus.training.points.build import build_method
from isthmus.training.recipe import override, parse
from isthmus.training.run import Run, write_checkpoint

SHAPES = [(1, 48), (1, 11), (2, 49), (3, 30), (6, 100)]


@pytest.fixture(scope="module")
def dgcnn_run(tiny_values: dict, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a DGCNN whose weights are drawn: what an export has to keep is not how well they were trained."""
    network = "{kind: dgcnn, width: 0.125, k: 7}"
    recipe = parse(override(tiny_values, [("network", network), ("method.gate", "null")]))
    run = Run.create(tmp_path_factory.mktemp("dgcnn") / "run", recipe)
    method = build_method(recipe)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in method.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif value.is_floating_point():
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
    for rule in ("last", "label-free"):
        write_checkpoint(run.weights_file("stage2", rule), {"weights": method.state_dict(), "step": 0})
    return run


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(request.param)


def clouds(batch: int, points: int) -> Tensor:
    drawn = torch.randn(batch, points, 3, generator=torch.Generator().manual_seed(batch * points))
    return drawn / drawn.norm(dim=2, keepdim=True).amax(dim=1, keepdim=True)


@pytest.mark.parametrize("run", ["tiny_run", "dgcnn_run"], indirect=True)
def test_both_files_give_the_network_s_logits_for_any_batch_and_number_of_points(run: Run, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    report = export_run(run, tmp_path / "out", rule="last")
    assert report.folder == tmp_path / "out"
    names = {"model.pt2", "model.onnx", "model.json"}
    assert {file.name for file in report.files} == {file.name for file in report.folder.iterdir()} == names
    assert report.differences.keys() == {report.folder / "model.pt2", report.folder / "model.onnx"}
    assert all(0 <= value <= TOLERANCE for value in report.differences.values())
    assert set(report.other_neighbours.values()) == {0}
    method = load_method(run, "last")
    loaded = torch.export.load(report.folder / "model.pt2").module()
    session = onnxruntime.InferenceSession(report.folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(each.name, each.shape) for each in session.get_inputs()] == [("points", ["batch", "points", 3])]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("logits", ["batch", 10])]
    for batch, points in SHAPES:
        inputs = clouds(batch, points)
        with torch.no_grad():
            expected = method.predict({"points": inputs})["class"].numpy()
            found = loaded(inputs).numpy()
        assert expected.shape == (batch, 10)
        assert expected.std() > 1e-2
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
        np.testing.assert_allclose(session.run(None, {"points": inputs.numpy()})[0], expected, atol=TOLERANCE)


def test_the_description_says_what_a_caller_needs(dgcnn_run: Run, tmp_path: Path) -> None:
    report = export_run(dgcnn_run, tmp_path, formats=("pt2",))
    text = (tmp_path / "model.json").read_text()
    description = json.loads(text)
    assert description["classes"] == list(dgcnn_run.recipe.classes)
    assert description["trained_with_points"] == 48
    assert description["least_points"] == 7
    assert description["rule"] == "label-free"
    assert description["input"]["up"] == "z"
    assert "unit sphere" in description["input"]["normalisation"]
    assert (description["input"]["name"], description["output"]["name"]) == ("points", "logits")
    compared = description["compared_with_the_original"]
    assert compared["model.pt2"]["largest_difference"] == report.differences[tmp_path / "model.pt2"]
    assert compared["model.pt2"]["clouds"] == report.compared == 16
    assert str(tmp_path) not in text


def test_pt2_alone_needs_no_onnx_and_onnx_says_what_to_install(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    message = r"onnx, onnxscript, onnxruntime, found not installed: pip install 'isthmus\[onnx\]'"
    with pytest.raises(IsthmusError, match=message):
        export_run(tiny_run, tmp_path)
    assert not list(tmp_path.iterdir())
    export_run(tiny_run, tmp_path, formats=("pt2",))
    assert {file.name for file in tmp_path.iterdir()} == {"model.pt2", "model.json"}


def test_an_earlier_export_is_kept_unless_asked(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(IsthmusError, match=r"expected no earlier export, found model\.onnx"):
        export_run(tiny_run, tmp_path, formats=("pt2",))
    assert (tmp_path / "model.onnx").read_text() == "mine"
    export_run(tiny_run, tmp_path, formats=("pt2",), overwrite=True)
    assert {file.name for file in tmp_path.iterdir()} == {"model.pt2", "model.json"}, (
        "the old model is no longer told of"
    )


@pytest.mark.parametrize("formats", [("pt2", "jit"), ()])
def test_an_unknown_format_is_an_error(formats: tuple[str, ...], tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(IsthmusError, match="formats: expected pt2 or onnx, found"):
        export_run(tiny_run, tmp_path, formats=formats)


def test_a_file_that_differs_is_refused_and_not_left_behind(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_write_pt2", lambda program, file: lambda points: program.module()(points) + 2e-4)
    with pytest.raises(RunError, match=r"model\.pt2: expected logits within 1e-04 of the original, found .* 2\.0e-04"):
        export_run(tiny_run, tmp_path, formats=("pt2",))
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_traced_is_a_clear_error(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = build_method(tiny_run.recipe)
    plain = method.predict
    monkeypatch.setattr(method, "predict", lambda inputs: plain(inputs) if inputs["points"].mean().item() > 0 else {})
    with pytest.raises(RunError, match=r"expected a network that torch\.export can trace"):
        export_run(tiny_run, tmp_path, formats=("pt2",), method=method)
    assert not list(tmp_path.iterdir())


class Sum(nn.Module):
    def forward(self, points: Tensor) -> Tensor:
        return points.sum(dim=1)


def test_single_clouds_with_other_neighbours_are_counted_and_many_are_refused(tiny_run: Run) -> None:
    def differing_on(rows: int):
        def exported(points: Tensor) -> Tensor:
            sums = points.sum(dim=1)
            sums[: rows if len(points) > 1 else 0] += 0.5
            return sums

        return exported

    shapes = ((1, 20), (5, 30))
    result = export._compare(tiny_run, "model.pt2", Sum(), differing_on(2), shapes, neighbours=True)
    assert result == (0.0, 10, 2)
    with pytest.raises(RunError, match=r"up to 5\.0e-01, in batches of 5 clouds of 30 points"):
        export._compare(tiny_run, "model.pt2", Sum(), differing_on(3), shapes, neighbours=True)
    with pytest.raises(RunError, match=r"up to 5\.0e-01"):
        export._compare(tiny_run, "model.pt2", Sum(), differing_on(1), shapes, neighbours=False)


def test_a_shape_that_is_refused_and_logits_that_are_no_numbers_are_errors(tiny_run: Run) -> None:
    def fixed(points: Tensor) -> Tensor:
        assert len(points) > 1, "Guard failed"
        return points.sum(dim=1)

    with pytest.raises(
        RunError, match=r"model\.pt2: expected to take 1 clouds of 20 points, found AssertionError: Guard"
    ):
        export._compare(tiny_run, "model.pt2", Sum(), fixed, ((2, 20), (1, 20)), neighbours=True)
    with pytest.raises(RunError, match="up to nan"):
        export._compare(tiny_run, "model.pt2", Sum(), lambda p: p.sum(dim=1) * torch.nan, ((2, 20),), neighbours=True)
