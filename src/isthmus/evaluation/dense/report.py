"""One self-contained HTML page of a run of dense predictions: what it reached, on which classes, and how it looks.

The page needs no network. Everything on it is worked out from the run folder and the prepared images, so that the same
run gives the same page; the only thing written is the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from isthmus.data.batch import Batch
from isthmus.data.image_store import ImageStore
from isthmus.data.image_stream import read_batch
from isthmus.errors import RunError
from isthmus.evaluation.dense import features, figures, gallery
from isthmus.evaluation.dense.compare import significant
from isthmus.evaluation.dense.evaluate import class_scores
from isthmus.evaluation.dense.figures import Evaluation, Shown
from isthmus.evaluation.dense.gallery import Pick, Predictor, address, picks
from isthmus.evaluation.dense.joint_space import JointMaps, joint_space_maps
from isthmus.evaluation.dense.label_counts import labels_section
from isthmus.evaluation.dense.pictures import Look, colour_map, label_values, pixel_values
from isthmus.evaluation.dense.preview import title
from isthmus.evaluation.dense.scores import (
    COLUMNS,
    NOT_USABLE,
    Column,
    Measured,
    image_key,
    mean_relative_gain,
    only,
    score_gain,
    select,
    shared_tasks,
)
from isthmus.evaluation.dense.words import (
    data_words,
    frozen_words,
    method_words,
    network_words,
    stage_words,
    task_words,
)
from isthmus.evaluation.figures import class_gains as class_gains_figure
from isthmus.evaluation.figures import loss_curves, run_colours, signed
from isthmus.evaluation.load import load_method
from isthmus.evaluation.page import (
    NAN,
    Section,
    by_chance,
    check_finished,
    figure_html,
    gain_cells,
    hurt_and_helped,
    logged_losses,
    page_path,
    percent,
    recipe_section,
    render,
    run_labels,
)
from isthmus.evaluation.statistics import Interval
from isthmus.methods.base import Method
from isthmus.methods.mtpsl import MTPSL
from isthmus.methods.multi_task import MultiTask
from isthmus.tasks.dense import DenseTask
from isthmus.training.dense.monitor import headlines
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import DenseRun
from isthmus.training.recipe import Rule
from isthmus.training.run import read_arrays, write_atomically

GALLERY_RUNS = 4
"""Only the first runs are in the gallery: beyond them its pictures are too small, and the page too large."""
JOINT_IMAGES = 2

SCORES = {
    "mean_iou": "mIoU: mean intersection over union of the classes",
    "pixel_accuracy": "share of pixels with the right class",
    "abs_error": "aErr: mean absolute error",
    "rel_error": "mean error relative to the truth",
    "rmse": "root of the mean squared error",
    "delta1": "share of pixels within a factor of 1.25",
    "mean_error": "mErr: mean angle to the truth",
    "median_error": "median angle to the truth",
    "within_11.25": "share of pixels within 11.25°",
    "within_22.5": "share of pixels within 22.5°",
    "within_30": "share of pixels within 30°",
    "max_iou": "maxIoU: mean IoU at the best threshold",
    "iou_at_0.5": "mean IoU at threshold 0.5",
    "ods_f": "odsF: F-measure at the best threshold",
    "nme": "NME: mean distance as a share of the box around the points",
    "depth_error": "mean error of the points' depth, as a share of the image's width",
}
"""Scores in words."""

SHORT = {
    "pixel_accuracy": "pixel accuracy",
    "rel_error": "relative error",
    "rmse": "RMSE",
    "delta1": "δ < 1.25",
    "median_error": "median",
    "within_11.25": "< 11.25°",
    "within_22.5": "< 22.5°",
    "within_30": "< 30°",
    "iou_at_0.5": "IoU at 0.5",
    "depth_error": "depth error",
}
"""Scores as headings of columns."""

FEATURE_RUNS = 2
DEFAULT_BOUNDARY = "up2"
"""Where TADA cuts the network; features are shown there unless the subject freezes behind another boundary."""


def write_report(runs: Sequence[DenseRun], out: Path | None = None, *, rule: Rule | None = None) -> Path:
    """Write the page of ``runs[0]``, with the others beside it, and return its path.

    Gains are those over the run of single tasks, where one is shown, otherwise over the first of the others.

    Args:
        runs: finished runs on the same test images; the first is the subject.
        out: the HTML file; ``report.html`` in the subject's folder by default.
        rule: which checkpoint of the last stage stands for a run wherever one has to; by default the recipe's own way.

    Raises:
        RunError: no run, one that is not finished, one that ``rule`` chose no measured checkpoint of, or one measured
            on other test images or classes than the first.
    """
    check_finished(runs)
    chosen: Rule = rule or runs[0].recipe.rules[0]
    subjects = _open(runs, chosen)
    path = page_path(runs[0], out)
    write_atomically(path, _page(subjects, chosen).encode())
    return path


@dataclass(frozen=True)
class _Subject:
    """A run with its data, what was measured of it, and its method (None where it is of the user's own making)."""

    run: DenseRun
    problem: DenseProblem
    shown: Shown
    selected: Mapping[Column, Measured]
    measured: Measured
    method: Method | None


@dataclass(frozen=True)
class _Images:
    """How many test images, how large, and which."""

    count: int
    size: tuple[int, int]
    key: str


class _Gain(NamedTuple):
    """What one class gained over another run."""

    name: str
    gain: Interval
    verdict: str


def _open(runs: Sequence[DenseRun], rule: Rule) -> list[_Subject]:
    subjects: list[_Subject] = []
    for run, label, colour in zip(runs, run_labels(runs), run_colours(len(runs))):
        problem = DenseProblem(run.recipe)
        selected: Mapping[Any, Measured] = select(run, problem=problem)
        if rule not in selected:
            raise RunError(
                f"{run.path}: expected a measured checkpoint of one of {', '.join(selected)}, found {rule!r}"
            )
        if subjects:
            _check_same_images(subjects[0], run, problem)
        stages = tuple((stage_words(stage), stage.steps) for stage in run.recipe.stages)
        shown = Shown(
            label=label,
            colour=colour,
            stages=stages,
            losses=logged_losses(run),
            evaluations=tuple(_evaluations(run, problem.tasks)),
            chosen=sum(steps for _, steps in stages[:-1]) + selected[rule].step,
        )
        method = None if run.recipe.method.kind == "custom" else load_method(run, rule)
        subjects.append(_Subject(run, problem, shown, selected, selected[rule], method))
    return subjects


def _check_same_images(first: _Subject, run: DenseRun, problem: DenseProblem) -> None:
    """Runs are compared on the same images at the same size, and on the same classes of the tasks that both have."""
    expected, found = (_test_images(each) for each in (first.problem, problem))
    if found != expected:
        raise RunError(
            f"{run.path}: expected the {expected.count} test images of {first.run.path} at {expected.size[0]} x "
            f"{expected.size[1]}, found {found.count} at {found.size[0]} x {found.size[1]}, others among them"
        )
    common = [name for name in first.problem.tasks if name in problem.tasks]
    if not common or any(first.problem.tasks[name].classes != problem.tasks[name].classes for name in common):
        raise RunError(f"{run.path}: expected tasks and classes of {first.run.path}, found {', '.join(problem.tasks)}")


def _test_images(problem: DenseProblem) -> _Images:
    store, rows = problem.tested, problem.tested.indices("test")
    return _Images(len(rows), store.size, image_key(store, rows))


def _evaluations(run: DenseRun, tasks: Mapping[str, DenseTask]) -> list[Evaluation]:
    found, before = [], 0
    for stage in run.recipe.stages:
        for file in run.evaluations(stage.name):
            arrays = read_arrays(file)
            parts = {}
            for part in ("val", "test"):
                there = {name: task for name, task in tasks.items() if f"{part}/{name}" in arrays}
                parts[part] = headlines(there, {name: arrays[f"{part}/{name}"] for name in there})
            step = before + int(arrays["step"])
            found.append(Evaluation(step, float(arrays["source_val"]), parts["val"], parts["test"]))
        before += stage.steps
    return found


def _page(subjects: Sequence[_Subject], rule: Rule) -> str:
    subject = subjects[0]
    chosen = picks(subject.measured)
    shown = [each.shown for each in subjects]
    sections = [
        _results(subjects, rule),
        _scores(subjects),
        *_classes(subjects),
        _gallery(subjects, chosen),
        *_joint_spaces(subjects, chosen),
        _training(subjects),
        *_features(subjects),
        labels_section(subject.problem, data_words(subject.run.recipe)),
        recipe_section([each.run for each in subjects], shown),
    ]
    return render(
        "isthmus.evaluation.dense",
        title=f"{subject.shown.label}, {data_words(subject.run.recipe)}",
        sentence=_sentence(subject),
        baselines=shown[1:],
        subject=subject.shown,
        rule=rule,
        sections=sections,
        version=subject.run.state.get("versions", {}).get("isthmus", ""),
    )


def _sentence(subject: _Subject) -> str:
    recipe, tasks = subject.run.recipe, subject.problem.tasks
    groups = len(np.unique(subject.measured.groups))
    height, width = subject.problem.tested.size
    stages = []
    for stage in recipe.stages:
        frozen = frozen_words(stage)
        stages.append(f"{stage.steps} steps ({stage.name}{f': {frozen} is frozen' if frozen else ''})")
    where = " of the target" if recipe.target is not None else ""
    oracle = f" It learns from the target's labels of {task_words(recipe, [])}: an oracle." * recipe.uses_target_labels
    return (
        f"{method_words(recipe, len(tasks))}; {task_words(recipe, list(tasks))} on {data_words(recipe)}, with a "
        f"{network_words(recipe)} on images of {height} × {width} pixels, seed {recipe.seed}, for "
        f"{' then '.join(stages)}, and measured on {len(subject.measured.groups)} test images{where}, of {groups} "
        f"groups (rooms, streets, persons).{oracle}"
    )


def _reference(subjects: Sequence[_Subject]) -> _Subject | None:
    """The run that gains are measured against."""
    single = [each for each in subjects if each.run.recipe.method.kind == "single-task"]
    return None if len(subjects) < 2 else single[0] if single else subjects[1]


def _results(subjects: Sequence[_Subject], rule: Rule) -> Section:
    tasks, reference = subjects[0].measured.tasks, _reference(subjects)
    details = _details(subjects[0].measured)
    rows = []
    for each in subjects:
        for number, column in enumerate(COLUMNS):
            if column in each.selected:
                theirs = None if reference in (None, each) else reference.selected.get(column)
                ours = each.selected[column]
                rows.append(
                    {
                        "run": each.shown,
                        "first": number == 0,
                        "rule": NOT_USABLE if column == "test-selected" else column,
                        "unusable": column == "test-selected",
                        "shown": column == rule,
                        "step": ours.step,
                        "scores": [_headline(ours, theirs, name) for name in tasks],
                        "details": _detail_cells(ours, details, next(iter(tasks))),
                        "gain": None if theirs is None else _relative_gain(ours, theirs),
                    }
                )
    values = {
        "headings": [(title(t).lower(), f"{t.heading} {_arrow(t.higher_is_better)}") for t in tasks.values()],
        "details": [
            f"{SHORT.get(score, score.replace('_', ' '))} {_arrow(better)}" for score, better in details.items()
        ],
        "main": subjects[0].run.recipe.main is not None,
        "rows": rows,
        "rules": [column for column in COLUMNS if any(column in each.selected for each in subjects)],
        "reference": None if reference is None else reference.shown,
        "images": len(subjects[0].measured.groups),
        "groups": len(np.unique(subjects[0].measured.groups)),
        "seeds": sorted({each.run.recipe.seed for each in subjects}),
    }
    return Section("results", "Results", values)


def _arrow(higher_is_better: bool) -> str:
    return "↑" if higher_is_better else "↓"


def _details(measured: Measured) -> dict[str, bool]:
    """Further scores of the only task, and whether more of them is better; none where there are several tasks."""
    if len(measured.tasks) != 1:
        return {}
    ((name, task),) = measured.tasks.items()
    found = [score for score in measured.scores(name) if "/" not in score and score != task.headline]
    return {score: not (score.endswith("error") or score == "rmse") for score in found}


def _detail_cells(measured: Measured, details: Iterable[str], task: str) -> list[str]:
    scores = measured.scores(task) if task in measured.tasks else {}
    return [_number(scores.get(score, math.nan)) for score in details]


def _headline(ours: Measured, theirs: Measured | None, task: str) -> dict[str, Any]:
    if task not in ours.tasks:
        return {"value": NAN, "gain": None}
    compared = theirs is not None and task in theirs.tasks
    value = ours.tasks[task].display_factor * ours.headline(task)
    gain = _relative_gain(only(ours, [task]), only(theirs, [task])) if compared and theirs is not None else None
    return {"value": _number(value), "gain": gain}


def _relative_gain(ours: Measured, theirs: Measured) -> dict[str, str]:
    """The mean relative gain over the tasks that both have, and its interval, in percent."""
    gain = mean_relative_gain(*([each] for each in shared_tasks(ours, theirs)))
    interval = f"[{signed(100 * gain.low)}, {signed(100 * gain.high)}]" if math.isfinite(gain.low) else ""
    verdict = "noise" if not gain.excludes_zero else "helped" if gain.estimate > 0 else "hurt"
    return {
        "text": NAN if math.isnan(gain.estimate) else signed(100 * gain.estimate),
        "interval": interval,
        "verdict": verdict,
    }


def _scores(subjects: Sequence[_Subject]) -> Section:
    tables = []
    for name, task in subjects[0].measured.tasks.items():
        found = [each.measured.scores(name) if name in each.measured.tasks else {} for each in subjects]
        rows = [
            {
                "name": SCORES.get(score, score.replace("_", " ")),
                "headline": score == task.headline,
                "values": [_number(each.get(score, math.nan)) for each in found],
            }
            for score in found[0]
            if "/" not in score
        ]
        tables.append({"task": title(task), "rows": rows})
    return Section("scores", "All scores", {"runs": [each.shown for each in subjects], "tables": tables})


def _classes(subjects: Sequence[_Subject]) -> list[Section]:
    ours = subjects[0].measured
    tables = []
    for name, task in ours.tasks.items():
        others = [each for each in subjects[1:] if name in each.measured.tasks]
        scores = [each for each in class_scores(only(ours, [name]))]
        if not scores:
            continue
        gains, before = [], []
        for other in others:
            compared = class_scores(only(ours, [name]), only(other.measured, [name]))
            gains.append([_Gain(each.name, each.gain, each.verdict) for each in compared if each.gain is not None])
            before.append([each.baseline for each in compared])
        counts = _images_with(ours, name)
        tables.append(
            {
                "title": title(task),
                "rows": [
                    {
                        "name": each.name,
                        "count": counts[index],
                        "score": percent(each.iou),
                        "against": [gain_cells(old[index] or 0.0, line[index]) for old, line in zip(before, gains)],
                        "verdicts": {line[index].verdict for line in gains},
                    }
                    for index, each in enumerate(scores)
                ],
                "total": _total(ours, name, others),
                "summaries": [{"baseline": other.shown, **hurt_and_helped(line)} for other, line in zip(others, gains)],
                "by_chance": by_chance(sum(count > 0 for count in counts)),
                "figure": figure_html(
                    class_gains_figure([(o.shown.label, line) for o, line in zip(others, gains)], "IoU"),
                    f"gains-{name}-figure",
                )
                if others
                else None,
            }
        )
    return [Section("classes", "Per class", {"tables": tables})] if tables else []


def _total(ours: Measured, task: str, others: Sequence[_Subject]) -> dict[str, Any]:
    """The last row of a table of classes: the task's headline score."""
    headline = ours.tasks[task].headline
    against = []
    for other in others:
        gain = score_gain([only(ours, [task])], [only(other.measured, [task])], task, headline)
        verdict = "within noise" if not gain.excludes_zero else "helped" if gain.estimate > 0 else "hurt"
        against.append(gain_cells(other.measured.headline(task), _Gain("mean", gain, verdict)))
    return {"name": "mean", "count": len(ours.groups), "score": percent(ours.headline(task)), "against": against}


def _images_with(measured: Measured, task: str) -> list[int]:
    """In how many images each class occurs, from the rows of their confusion matrices."""
    classes = len(measured.tasks[task].classes)
    confusion = measured.statistics[task].reshape(-1, classes, classes)
    counts: list[int] = (confusion.sum(axis=2) > 0).sum(axis=0).tolist()
    return counts


def _gallery(subjects: Sequence[_Subject], chosen: Sequence[Pick]) -> Section:
    subject, shown = subjects[0], subjects[:GALLERY_RUNS]
    rows = subject.problem.tested.indices("test")
    runs = [Predictor(each.method, each.measured) for each in shown]
    found = gallery.blocks(subject.problem.tested, rows, chosen, runs)
    values = {
        "blocks": [{"title": title(block.task), "block": block} for block in found],
        "runs": [each.shown for each in shown],
        "left_out": [each.shown.label for each in subjects[GALLERY_RUNS:]],
        "width": min(176, 1030 // (2 + len(shown)) - 10),
        "per_image": [title(b.task).lower() for b in found if b.task.name in ("edges", "saliency")],
    }
    return Section("gallery", "Images, truth and predictions", values)


def _joint_spaces(subjects: Sequence[_Subject], chosen: Sequence[Pick]) -> list[Section]:
    """The joint spaces of the first run that has them."""
    for each in subjects:
        if isinstance(each.method, MTPSL):
            store, rows = each.problem.tested, each.problem.tested.indices("test")
            present = {name: store.present[:, list(store.tasks).index(name)] for name in each.problem.tasks}
            shown, images = rows[[pick.position for pick in chosen]], []
            for row in shown[:JOINT_IMAGES]:
                batch = read_batch(store, np.array([row]), present, "test")
                others = read_batch(store, shown[shown != row], present, "test") if len(shown) > 1 else None
                images.append(
                    {
                        "name": store.names[row],
                        "image": address(np.asarray(store.images[row]), photograph=True),
                        **_joint_space(each.method, batch, others),
                    }
                )
            values = {
                "run": each.shown,
                "images": images,
                "width": min(150, 1000 // (1 + len(each.problem.tasks)) - 10),
            }
            return [Section("joint", "Joint pairwise spaces", values)]
    return []


@torch.no_grad()
def _joint_space(method: MTPSL, batch: Batch, others: Batch | None) -> dict[str, Any]:
    """A table of one image: predictions down the side, labels along the top, both of their maps in the cells."""
    outputs = method.predict(batch.inputs)
    maps = {(pair.source, pair.target): pair for pair in joint_space_maps(method, batch, others)}
    predicted, labelled = {}, {}
    for name, task in method.tasks.items():
        truth, valid = label_values(task, batch.labels[name])[0], batch.valid[name][0].numpy()
        look = Look.of(task, truth, valid)
        labelled[name] = address(look.picture(truth, valid))
        predicted[name] = address(look.picture(pixel_values(task, task.activate(outputs[name]))[0]))
    rows = [
        {
            "title": title(source),
            "prediction": predicted[source],
            "cells": [_mapped(maps.get((source, target))) for target in method.tasks],
        }
        for source in method.tasks
    ]
    return {"columns": [{"title": title(name), "label": labelled[name]} for name in method.tasks], "rows": rows}


def _mapped(pair: JointMaps | None) -> dict[str, str] | None:
    if pair is None:
        return None
    return {
        "prediction": address(colour_map(pair.prediction, "cividis")),
        "label": address(colour_map(pair.label, "cividis")),
        "similarity": f"{pair.similarity:.3f}",
        "elsewhere": NAN if math.isnan(pair.elsewhere) else f"{pair.elsewhere:.3f}",
    }


def _training(subjects: Sequence[_Subject]) -> Section:
    shown, problem = [each.shown for each in subjects], subjects[0].problem
    domains = ("", "") if problem.target is None else (" of the source", " of the target")
    accuracies = figures.accuracy_curves(shown)
    return Section(
        "training",
        "Training",
        {
            "losses": figure_html(loss_curves(shown), "losses-figure"),
            "scores": figure_html(figures.score_curves(shown, problem.tasks, problem.tested_tasks), "scores-figure"),
            "scores_note": f"Solid: the validation part{domains[0]}. Dashed: the test part{domains[1]}, which decided "
            "nothing.",
            "freezing": [line for each in subjects for line in _freezing(each)],
            "accuracies": None if accuracies is None else figure_html(accuracies, "accuracies-figure"),
            "confused": [line for each in subjects for line in _confused(each.shown)],
            "threshold": f"{100 * figures.CONFUSED:g}",
        },
    )


def _freezing(subject: _Subject) -> list[dict[str, Any]]:
    """What each stage of a run freezes, and from which weights it starts."""
    lines, stages = [], subject.run.recipe.stages
    for before, stage in zip((None, *stages), stages):
        frozen = frozen_words(stage)
        if not frozen:
            continue
        parts: tuple[str, ...] = ()
        if stage.frozen_after is not None and subject.method is not None:
            parts = tuple(part.removeprefix("network.") for part in subject.method.after(stage.frozen_after))
        start = ""
        if before is not None and stage.start_from == "before-overfit":
            step = subject.run.weights_before_overfit(before.name)[1]
            start = f"the weights of step {step} of {before.name}, before either task overfits on the validation part"
        elif before is not None and stage.start_from == "scratch":
            start = "the weights that the run began with"
        elif before is not None:
            start = f"the weights of {before.name} that {stage.start_from} chose"
        lines.append(
            {"run": subject.shown, "stage": stage.name, "frozen": frozen, "parts": list(parts), "start": start}
        )
    return lines


def _confused(run: Shown) -> list[dict[str, Any]]:
    """How often each discriminator's running accuracy was below the paper's mark."""
    lines = []
    for name in figures.accuracy_names([run]):
        values = np.array([row[name] for row in run.losses if name in row], dtype=float)
        values = values[np.isfinite(values)]
        if len(values):
            lines.append(
                {
                    "run": run,
                    "tap": name.removeprefix("accuracy/"),
                    "below": int((values < figures.CONFUSED).sum()),
                    "of": len(values),
                    "last": percent(float(values[-1])),
                }
            )
    return lines


def _features(subjects: Sequence[_Subject]) -> list[Section]:
    """Features of both domains in the plane of their first two principal components, of the first runs."""
    shown = [each for each in subjects if each.problem.target is not None and features.has_taps(each.method)]
    shown = shown[:FEATURE_RUNS]
    first = subjects[0].problem
    if not shown or first.target is None:
        return []
    names = features.location_names(first.source, first.target)
    boundary = next((s.frozen_after for s in subjects[0].run.recipe.stages if s.frozen_after), DEFAULT_BOUNDARY)
    rows = []
    for each in shown:
        assert isinstance(each.method, MultiTask)
        taps = list(dict.fromkeys(tap for tap in ("layer4", boundary) if tap in _taps(each.method)))
        found = [_sampled(each.method, store, names, taps) for store in (each.problem.source, each.problem.target)]
        for tap in taps:
            planes = [features.plane(found[0][tap][:, i], found[1][tap][:, i]) for i in range(len(names))]
            rows.append(figures.FeatureRow(each.shown.label, tap, planes))
    known = [plane for row in rows for plane in row.planes if plane is not None]
    if not known:
        return []
    values = {
        "figure": figure_html(figures.feature_planes(rows, [title(name) for name in names]), "features-figure"),
        "runs": [each.shown for each in shown],
        "images": (max(len(plane.source) for plane in known), max(len(plane.target) for plane in known)),
        "keypoints": not set(names) <= features.FIXED.keys(),
        "chance": f"{max(plane.chance for plane in known):.2f}",
        "taps": list(dict.fromkeys(row.tap for row in rows)),
    }
    return [Section("features", "Features of both domains", values)]


def _taps(method: MultiTask) -> tuple[str, ...]:
    boundaries: tuple[str, ...] = method.network.boundaries  # type: ignore[assignment]
    return tuple(name for name in boundaries if name not in ("stem", "heads"))


def _sampled(
    method: MultiTask, store: ImageStore | None, names: Sequence[str], taps: Sequence[str]
) -> dict[str, np.ndarray]:
    assert store is not None
    rows = features.shown_rows(store)
    return features.sampled_features(method, store, rows, features.places(store, rows, names), taps)


def _number(value: float) -> str:
    return NAN if math.isnan(value) else f"{value:.{significant(value)}f}"
