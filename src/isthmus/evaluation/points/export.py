"""A trained network as a file that runs without Isthmus: ``model.pt2`` (``torch.export``) and ``model.onnx``.

Both take ``points`` ``(batch, points, 3)`` float32 and give ``logits`` ``(batch, K)``, or where points are labelled
``(batch, K, 1, points)``; batch and points are free.
``model.json`` beside them says what a caller has to know: the classes, how many points the network was trained with,
how clouds have to be prepared, and how far each file was found from the original network. ``model.pt2`` is loaded with
``torch.export.load(file).module()``.

Neighbours of DGCNN: the original finds those of the coordinates with a k-d tree on the CPU, the exported files all of
them by a matrix product and ``topk``, each with its own rounding. Where two points are equally far up to rounding, they
may take different ones, as two devices may, and the logits of that cloud then differ by some hundredths (seen on one
cloud in a hundred to one in ten, more with more points). So a network with neighbours passes the check if of the clouds
of every shape more than half agree, and the others are counted in the report; any other network must agree on all.
Where points are labelled, a cloud agrees if of its points at least 95 in a hundred do: a tie is felt by few of them.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.errors import IsthmusError, RunError
from isthmus.evaluation.load import load_method
from isthmus.geometry.transforms import unit_sphere
from isthmus.methods.base import Method
from isthmus.models.dgcnn import DGCNN
from isthmus.models.dgcnn_segmentation import SegmentationDGCNN
from isthmus.models.node_attention import SelfAdaptiveNodes
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import Rule, versions

FORMATS = ("pt2", "onnx")
TOLERANCE = 1e-4
"""Largest difference to a logit of the original network at which the two agree on a cloud."""

POINTS_AGREEING = 0.95
"""Share of a cloud's points whose labels agree where the cloud is said to."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        folder: where.
        files: all files, ``model.json`` the last.
        differences: for each exported model, its largest difference to a logit of the original network, on the clouds
            on which they agree.
        other_neighbours: for each exported model, on how many clouds it does not agree; 0 but for DGCNN.
        compared: how many random clouds were compared.
        shapes: (batch, points) of these clouds.
    """

    folder: Path
    files: tuple[Path, ...]
    differences: dict[Path, float]
    other_neighbours: dict[Path, int]
    compared: int
    shapes: tuple[tuple[int, int], ...]


def export_run(
    run: PointRun,
    out: Path | None = None,
    *,
    rule: Rule = "label-free",
    formats: Sequence[str] = FORMATS,
    method: Method | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write the network of a run into the folder ``out``, and check what was written against the original.

    Args:
        run: a finished run.
        out: folder, made if needed; ``export`` in the run's folder by default.
        rule: which checkpoint.
        formats: "pt2", "onnx" or both; "onnx" needs ``pip install 'isthmus[onnx]'``.
        method: as in :func:`isthmus.evaluation.load.load_method`.
        overwrite: replace an earlier export in ``out``.

    Raises:
        IsthmusError: an unknown format, packages are missing, or an earlier export is in the way.
        RunError: no such weights, a network that cannot be exported, or a file that differs from the original on
            random clouds (see the module's text). Nothing is written then.
    """
    formats = tuple(dict.fromkeys(formats))
    if not formats or not set(formats) <= set(FORMATS):
        raise IsthmusError(f"formats: expected {' or '.join(FORMATS)}, found {', '.join(formats) or 'none'}")
    missing = [name for name in ONNX_PACKAGES if "onnx" in formats and find_spec(name) is None]
    if missing:
        raise IsthmusError(
            f"formats: onnx needs {', '.join(missing)}, found not installed: pip install 'isthmus[onnx]' "
            "(pt2 alone needs nothing more)"
        )
    folder = run.path / "export" if out is None else Path(out)
    possible = [folder / f"model.{suffix}" for suffix in (*FORMATS, "json")]
    present = [file.name for file in possible if file.exists()]
    if present and not overwrite:
        raise IsthmusError(f"{folder}: expected no earlier export, found {', '.join(present)}; choose another folder")

    method = load_method(run, rule, method).cpu()
    network = _Network(method)
    grouped = [
        module for module in method.modules() if isinstance(module, DGCNN | SegmentationDGCNN | SelfAdaptiveNodes)
    ]
    least = max((max(each.k, getattr(each, "nodes", 1)) for each in grouped), default=1)
    points = max(run.recipe.points, least)
    shapes = ((1, points), (4, least + 30), (7, least + points // 2))
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the final place, so that the renaming cannot fail half-way for lack of room.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".exporting-") as temporary, _quiet():
        made = {f"model.{kind}": Path(temporary) / f"model.{kind}" for kind in formats}
        program = _traced(network, points, least, run)
        loaded: dict[str, Function] = {}
        for name, file in made.items():
            loaded[name] = _write_pt2(program, file) if name == "model.pt2" else _write_onnx(program, file, run)
        found = {name: _compare(run, name, network, function, shapes, least > 1) for name, function in loaded.items()}
        for file in possible:
            file.unlink(missing_ok=True)
        for name, file in made.items():
            os.replace(file, folder / name)
        description = _description(run, rule, least, found, shapes)
        (Path(temporary) / "model.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
        os.replace(Path(temporary) / "model.json", folder / "model.json")
    return ExportReport(
        folder,
        (*(folder / name for name in made), folder / "model.json"),
        {folder / name: result.largest for name, result in found.items()},
        {folder / name: result.apart for name, result in found.items()},
        next(iter(found.values())).clouds,
        shapes,
    )


class _Network(nn.Module):
    """Points to logits: what remains of a method when training is over."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.task = next(iter(method.tasks))
        self.eval()

    def forward(self, points: Tensor) -> Tensor:
        """Logits. Shape: ``(B, N, 3)`` to ``(B, K)``, or ``(B, K, 1, N)`` of points."""
        return self.method.predict({"points": points})[self.task]


def _traced(network: nn.Module, points: int, least: int, run: PointRun) -> torch.export.ExportedProgram:
    # 1 would be taken for a constant, and so would two sizes that are equal.
    example = _random_clouds(2, points + 1, seed=0)
    free = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("points", min=least)}
    try:
        with torch.no_grad():
            return torch.export.export(network, (example,), dynamic_shapes={"points": free})
    except Exception as error:
        # The tracer has errors of many kinds, and a method of the user's own can raise any.
        raise RunError(
            f"{run.path}: expected a network that torch.export can trace with a free number of clouds and points, "
            f"found {type(error).__name__}: {error}"
        ) from error


def _write_pt2(program: torch.export.ExportedProgram, file: Path) -> Function:
    torch.export.save(program, file)
    module: Function = torch.export.load(file).module()
    return module


def _write_onnx(program: torch.export.ExportedProgram, file: Path, run: PointRun) -> Function:
    try:
        torch.onnx.export(
            program,
            f=file,
            dynamo=True,
            input_names=["points"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch", 1: "points"},),
            external_data=False,
            verbose=False,
        )
    except Exception as error:
        # As for tracing: a network may use anything that has no counterpart in ONNX.
        raise RunError(
            f"{run.path}: expected a network that ONNX can express, found {type(error).__name__}: {error}"
        ) from error

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda points: torch.from_numpy(session.run(["logits"], {"points": points.numpy()})[0])


class _Comparison(NamedTuple):
    """Largest difference where two networks agree, number of clouds, and on how many of them they do not agree."""

    largest: float
    clouds: int
    apart: int


@torch.no_grad()
def _compare(
    run: PointRun,
    name: str,
    original: nn.Module,
    exported: Function,
    shapes: Sequence[tuple[int, int]],
    neighbours: bool,
) -> _Comparison:
    """On at least four random clouds of every shape; raises if too many are apart."""
    agreeing, clouds, apart = 0.0, 0, 0
    for batch, points in shapes:
        parts = []
        for repetition in range(max(1, 5 // batch)):
            inputs = _random_clouds(batch, points, seed=1 + repetition)
            try:
                outputs = exported(inputs)
            except Exception as error:
                # onnxruntime's errors have no class of their own, and a guard of torch.export is an AssertionError.
                raise RunError(
                    f"{run.path}: {name}: expected to take {batch} clouds of {points} points, "
                    f"found {type(error).__name__}: {error}"
                ) from error
            parts.append(_apart(outputs, original(inputs)))
        difference = torch.cat(parts)
        same = difference <= TOLERANCE
        if not (same.float().mean() > 0.5 if neighbours else same.all()):
            raise RunError(
                f"{run.path}: {name}: expected logits within {TOLERANCE:.0e} of the original, found differences up to "
                f"{float(difference.max()):.1e}, in batches of {batch} clouds of {points} points"
            )
        agreeing = max(agreeing, float(difference[same].max()))
        clouds += len(difference)
        apart += int((~same).sum())
    return _Comparison(agreeing, clouds, apart)


def _apart(exported: Tensor, original: Tensor) -> Tensor:
    """How far the logits of each cloud are apart; of points, the most but for the twentieth that is farthest apart.

    Shape: ``(B, K)`` or ``(B, K, 1, N)`` to ``(B,)``.
    """
    furthest = (exported - original).abs().amax(dim=1)
    if furthest.ndim == 1:
        return furthest
    of_points = furthest.flatten(1)
    return of_points.kthvalue(math.ceil(POINTS_AGREEING * of_points.shape[1]), dim=1).values


def _random_clouds(clouds: int, points: int, seed: int) -> Tensor:
    """Clouds on the unit sphere, from flat to round. Shape: ``(clouds, points, 3)``."""
    generator = np.random.default_rng(seed)
    drawn = generator.standard_normal((clouds, points, 3)) * generator.uniform(0.1, 1, (clouds, 1, 3))
    return torch.from_numpy(np.stack([unit_sphere(cloud) for cloud in drawn]))


def _description(
    run: PointRun, rule: Rule, least: int, found: dict[str, _Comparison], shapes: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    return {
        "recipe": run.recipe.name,
        "stage": run.recipe.stages[-1].name,
        "rule": rule,
        "versions": versions(),
        "classes": list(run.recipe.classes),
        "trained_with_points": run.recipe.points,
        "least_points": least,
        "input": {
            "name": "points",
            "dtype": "float32",
            "shape": ["batch", "points", 3],
            "up": "z",
            "normalisation": "unit sphere: subtract the mean of the points, divide by the largest radius",
        },
        "output": {
            "name": "logits",
            "dtype": "float32",
            "shape": ["batch", len(run.recipe.classes), *([1, "points"] if run.recipe.predicts == "parts" else [])],
            "meaning": "softmax over the second axis gives the probabilities of the classes in their order",
        },
        "compared_with_the_original": {
            name: {"clouds": each.clouds, "largest_difference": each.largest, "other_neighbours": each.apart}
            for name, each in found.items()
        },
        "compared_shapes": [list(shape) for shape in shapes],
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporters' notes on their own affairs (operators of torchvision, folding of constants) to them."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
