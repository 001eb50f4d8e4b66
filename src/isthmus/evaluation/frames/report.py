"""One self-contained HTML page of a run on LiDAR and camera: what it reached, on which classes, and how it looks.

The page needs no network. Everything on it is worked out from the run folder and the prepared frames, so that the same
run gives the same page; the only thing written is the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from isthmus.data.clouds import PARTS
from isthmus.data.frame_store import FrameStore
from isthmus.errors import RunError
from isthmus.evaluation.dense.evaluate import class_scores
from isthmus.evaluation.dense.figures import accuracy_curves
from isthmus.evaluation.dense.gallery import picks
from isthmus.evaluation.dense.scores import COLUMNS, NOT_USABLE, Column, Measured, image_key, only, select
from isthmus.evaluation.figures import class_gains as class_gains_figure
from isthmus.evaluation.figures import loss_curves, run_colours
from isthmus.evaluation.frames import figures, gallery
from isthmus.evaluation.frames.evaluate import prediction_gains
from isthmus.evaluation.frames.figures import Evaluation, Shown
from isthmus.evaluation.frames.pictures import NO_CLASS, class_colours
from isthmus.evaluation.frames.words import data_words, method_words, network_words
from isthmus.evaluation.load import load_method
from isthmus.evaluation.page import (
    LISTED,
    Section,
    by_chance,
    check_finished,
    figure_html,
    gain_cells,
    hurt_and_helped,
    interval_text,
    logged_losses,
    page_path,
    percent,
    points,
    recipe_section,
    render,
    run_labels,
)
from isthmus.evaluation.statistics import Interval
from isthmus.methods.base import Method
from isthmus.training.frames.monitor import mean_ious
from isthmus.training.frames.problem import FrameProblem
from isthmus.training.frames.recipe import FrameRun, data_name
from isthmus.training.recipe import Rule
from isthmus.training.run import read_arrays, write_atomically

FRAMES = 4
GALLERY_RUNS = 3
"""Only the first runs are in the gallery: beyond them the page gets too large."""
GUESSING = 0.5


def write_report(runs: Sequence[FrameRun], out: Path | None = None, *, rule: Rule | None = None) -> Path:
    """Write the page of ``runs[0]``, with the others beside it, and return its path.

    Gains are those over the run that learnt from source labels alone, where one is shown, otherwise over the first of
    the others.

    Args:
        runs: finished runs on the same test frames; the first is the subject.
        out: the HTML file; ``report.html`` in the subject's folder by default.
        rule: which checkpoint of the last stage stands for a run wherever one has to; by default the recipe's own way.

    Raises:
        RunError: no run, one that is not finished, one that ``rule`` chose no measured checkpoint of, or one measured
            on other test frames or classes than the first.
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

    run: FrameRun
    problem: FrameProblem
    shown: Shown
    selected: Mapping[Column, Measured]
    measured: Measured
    method: Method | None


class _Gain(NamedTuple):
    """What one class gained over another run."""

    name: str
    gain: Interval
    verdict: str


def _open(runs: Sequence[FrameRun], rule: Rule) -> list[_Subject]:
    subjects: list[_Subject] = []
    for run, label, colour in zip(runs, run_labels(runs), run_colours(len(runs))):
        problem = FrameProblem(run.recipe)
        selected: Mapping[Any, Measured] = select(run, problem=problem)
        if rule not in selected:
            raise RunError(
                f"{run.path}: expected a measured checkpoint of one of {', '.join(selected)}, found {rule!r}"
            )
        if subjects:
            _check_same_frames(subjects[0], run, problem)
        stages = tuple((stage.name, stage.steps) for stage in run.recipe.stages)
        shown = Shown(
            label=label,
            colour=colour,
            stages=stages,
            losses=logged_losses(run),
            evaluations=tuple(_evaluations(run, problem)),
            chosen=sum(steps for _, steps in stages[:-1]) + selected[rule].step,
        )
        method = None if run.recipe.method.kind == "custom" else load_method(run, rule)
        subjects.append(_Subject(run, problem, shown, selected, selected[rule], method))
    return subjects


def _check_same_frames(first: _Subject, run: FrameRun, problem: FrameProblem) -> None:
    """Runs are compared on the same frames at the same size, with the same classes."""
    expected, found = (_test_frames(each) for each in (first.problem, problem))
    if found != expected:
        raise RunError(
            f"{run.path}: expected the {expected[0]} test frames of {first.run.path}, found {found[0]}, others among "
            "them"
        )
    if problem.target.classes != first.problem.target.classes:
        raise RunError(
            f"{run.path}: expected the classes {', '.join(first.problem.target.classes)}, found "
            f"{', '.join(problem.target.classes)}"
        )


def _test_frames(problem: FrameProblem) -> tuple[int, str]:
    rows = problem.target.indices("test")
    return len(rows), image_key(problem.target, rows)


def _evaluations(run: FrameRun, problem: FrameProblem) -> list[Evaluation]:
    found, before = [], 0
    for stage in run.recipe.stages:
        for file in run.evaluations(stage.name):
            arrays = read_arrays(file)
            validation, test = (
                mean_ious(problem.tasks, {name: arrays[f"{part}/{name}"] for name in problem.tasks})
                for part in ("val", "test")
            )
            found.append(
                Evaluation(
                    before + int(arrays["step"]),
                    float(arrays["source_val"]),
                    float(arrays["label_free"]),
                    validation,
                    test,
                    bool(arrays["collapsed"]),
                )
            )
        before += stage.steps
    return found


def _page(subjects: Sequence[_Subject], rule: Rule) -> str:
    subject = subjects[0]
    store = subject.problem.target
    chosen = picks(subject.measured, FRAMES)
    rows = store.indices("test")
    shown = [each.shown for each in subjects]
    sections = [
        _results(subjects, rule),
        _classes(subjects),
        _gallery(subjects, rows, chosen),
        *_turnable(subject, int(rows[chosen[0].position])),
        *_patches(subjects, int(rows[chosen[0].position])),
        _training(subjects),
        _data(subject),
        recipe_section([each.run for each in subjects], shown),
    ]
    return render(
        "isthmus.evaluation.frames",
        title=f"{subject.shown.label}, {data_words(subject.run.recipe)}",
        sentence=_sentence(subject),
        baselines=shown[1:],
        subject=subject.shown,
        oracles=[each.shown for each in subjects if each.run.recipe.uses_target_labels],
        rule=rule,
        sections=sections,
        version=subject.run.state.get("versions", {}).get("isthmus", ""),
    )


def _sentence(subject: _Subject) -> str:
    recipe, store = subject.run.recipe, subject.problem.target
    stages = " then ".join(f"{stage.steps} steps ({stage.name})" for stage in recipe.stages)
    height, width = store.size
    images = f" with images of {height} × {width} pixels" if any(store.size) else " without images"
    groups = len(np.unique(subject.measured.groups))
    return (
        f"{method_words(recipe)}; {len(store.classes)} classes of points on {data_words(recipe)}{images}, with "
        f"{network_words(recipe)}, seed {recipe.seed}, for {stages}, and measured on {len(subject.measured.groups)} "
        f"test frames of the target, of {groups} group{'s' if groups != 1 else ''} (streets, sequences)."
    )


def _reference(subjects: Sequence[_Subject]) -> _Subject | None:
    """The run that gains are measured against."""
    plain = [each for each in subjects[1:] if each.run.recipe.method.kind == "source-only"]
    return None if len(subjects) < 2 else plain[0] if plain else subjects[1]


def _results(subjects: Sequence[_Subject], rule: Rule) -> Section:
    names, reference = _names(subjects), _reference(subjects)
    rows = []
    for each in subjects:
        there = [column for column in COLUMNS if column in each.selected]
        for column in there:
            theirs = None if reference is None or reference is each else reference.selected.get(column)
            ours = each.selected[column]
            gains = {} if theirs is None else prediction_gains(ours, theirs)
            rows.append(
                {
                    "run": each.shown,
                    "first": column == there[0],
                    "oracle": each.run.recipe.uses_target_labels,
                    "rule": NOT_USABLE if column == "test-selected" else column,
                    "unusable": column == "test-selected",
                    "shown": column == rule,
                    "step": ours.step,
                    "scores": [percent(ours.headline(name)) if name in ours.tasks else "–" for name in names],
                    "gains": [_gain(gains.get(name)) for name in names],
                }
            )
    values = {
        "names": names,
        "rows": rows,
        "reference": None if reference is None else reference.shown,
        "frames": len(subjects[0].measured.groups),
        "groups": len(np.unique(subjects[0].measured.groups)),
        "seeds": sorted({each.run.recipe.seed for each in subjects}),
    }
    return Section("results", "Results", values)


def _names(subjects: Sequence[_Subject]) -> list[str]:
    """Predictions of any run, in the order of the papers' tables."""
    return [name for name in ("2D", "3D", "average") if any(name in each.measured.tasks for each in subjects)]


def _gain(gain: Interval | None) -> dict[str, str] | None:
    if gain is None:
        return None
    verdict = "noise" if not gain.excludes_zero else "helped" if gain.estimate > 0 else "hurt"
    interval = interval_text(gain) if np.isfinite(gain.low) else ""
    return {"text": points(gain.estimate), "interval": interval, "verdict": verdict}


def _classes(subjects: Sequence[_Subject]) -> Section:
    """A table of all predictions, and for each of them the gains over the other runs."""
    ours = subjects[0].measured
    counts = _frames_with(ours)
    tables = []
    for name in ours.tasks:
        others = [each for each in subjects[1:] if name in each.measured.tasks]
        scores = class_scores(only(ours, [name]))
        gains, before, totals = [], [], []
        for other in others:
            compared = class_scores(only(ours, [name]), only(other.measured, [name]))
            gains.append([_Gain(each.name, each.gain, each.verdict) for each in compared if each.gain is not None])
            before.append([each.baseline for each in compared])
            overall = prediction_gains(ours, other.measured)[name]
            verdict = "within noise" if not overall.excludes_zero else "helped" if overall.estimate > 0 else "hurt"
            totals.append(gain_cells(other.measured.headline(name), _Gain("mean", overall, verdict)))
        figure = None
        if others:
            titled = [(other.shown.label, line) for other, line in zip(others, gains)]
            figure = figure_html(class_gains_figure(titled, "IoU"), f"gains-{name}-figure")
        tables.append(
            {
                "title": name,
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
                "total": {
                    "name": "mean",
                    "count": len(ours.groups),
                    "score": percent(ours.headline(name)),
                    "against": totals,
                },
                "summaries": [{"baseline": other.shown, **hurt_and_helped(line)} for other, line in zip(others, gains)],
                "by_chance": by_chance(sum(count > 0 for count in counts)),
                "figure": figure,
            }
        )
    return Section("classes", "Per class", {"tables": tables, "overview": _overview(subjects, counts)})


def _overview(subjects: Sequence[_Subject], counts: Sequence[int]) -> dict[str, Any]:
    """IoU of every class by run and prediction."""
    classes = subjects[0].problem.target.classes
    columns = [(each, name) for each in subjects for name in each.measured.tasks]
    scores = [each.measured.scores(name) for each, name in columns]
    rows: list[dict[str, Any]] = [
        {"name": name, "count": counts[index], "values": [percent(found[f"iou/{name}"]) for found in scores]}
        for index, name in enumerate(classes)
    ]
    total = [percent(found["mean_iou"]) for found in scores]
    return {
        "runs": [(each.shown, len(each.measured.tasks)) for each in subjects],
        "columns": [name for _, name in columns],
        "firsts": [name == next(iter(each.measured.tasks)) for each, name in columns],
        "rows": rows,
        "total": total,
        "frames": len(subjects[0].measured.groups),
    }


def _frames_with(measured: Measured) -> list[int]:
    """In how many frames each class occurs, from the rows of their confusion matrices."""
    name, task = next(iter(measured.tasks.items()))
    confusion = measured.statistics[name].reshape(-1, len(task.classes), len(task.classes))
    counts: list[int] = (confusion.sum(axis=2) > 0).sum(axis=0).tolist()
    return counts


def _gallery(subjects: Sequence[_Subject], rows: np.ndarray, chosen: Sequence[Any]) -> Section:
    store, shown = subjects[0].problem.target, subjects[:GALLERY_RUNS]
    names = _names(shown)
    runs = [gallery.Predictor(each.method, each.measured) for each in shown]
    values = {
        "frames": gallery.frames(store, rows, chosen, runs, names),
        "names": names,
        "runs": [each.shown for each in shown],
        "left_out": [each.shown.label for each in subjects[GALLERY_RUNS:]],
        "classes": _swatches(store.classes),
        "images": any(store.size),
        "sweeps": store.has_sweeps,
    }
    return Section("gallery", "Frames, truth and predictions", values)


def _swatches(classes: Sequence[str]) -> list[tuple[str, str]]:
    colours = [*class_colours(classes).tolist(), list(NO_CLASS)]
    return [(name, f"rgb({r}, {g}, {b})") for name, (r, g, b) in zip((*classes, "no label"), colours)]


def _turnable(subject: _Subject, row: int) -> list[Section]:
    """Of a frame that has a sweep."""
    store = subject.problem.target
    if not store.has_sweeps:
        return []
    view = gallery.view(store, row, subject.method, list(subject.measured.tasks))
    values = {
        "name": view.name,
        "points": len(view.points),
        "most": figures.MOST_POINTS,
        "run": subject.shown,
        "classes": _swatches(store.classes),
        "figure": figure_html(figures.turnable(view, store.classes), "turnable-figure"),
    }
    return [Section("turnable", "A sweep to be turned", values)]


def _patches(subjects: Sequence[_Subject], row: int) -> list[Section]:
    """Of every run that has a patch."""
    store = subjects[0].problem.target
    found = [(each.shown, gallery.patches(each.method, store, row)) for each in subjects[:GALLERY_RUNS]]
    shown = [{"run": run, "patches": patches} for run, patches in found if patches is not None]
    if not shown:
        return []
    return [Section("patches", "Where the 2D stream looks", {"shown": shown, "name": store.names[row]})]


def _training(subjects: Sequence[_Subject]) -> Section:
    shown = [each.shown for each in subjects]
    accuracies = accuracy_curves(shown, GUESSING)
    values = {
        "losses": figure_html(loss_curves(shown), "losses-figure"),
        "scores": figure_html(figures.score_curves(shown, subjects[0].problem.tasks), "scores-figure"),
        "scores_note": "Solid: the source's validation part. Dashed: the target's test part, which decided nothing. A "
        "cross: predictions on the target had collapsed onto few classes.",
        "accuracies": None if accuracies is None else figure_html(accuracies, "accuracies-figure"),
    }
    return Section("training", "Training", values)


def _data(subject: _Subject) -> Section:
    recipe, problem = subject.run.recipe, subject.problem
    tables = [
        _domain("source", problem.source, data_name(recipe.source.data)),
        _domain("target", problem.target, data_name(recipe.target.data)),
    ]
    return Section("data", "Data", {"tables": tables, "oracle": recipe.uses_target_labels})


def _domain(domain: str, store: FrameStore, name: str) -> dict[str, Any]:
    counts = np.stack([point_counts(store, store.indices(part)) for part in PARTS], axis=1)
    share = 100 * counts / np.maximum(counts.sum(axis=0), 1)
    rows = [
        (title, [f"{value:.1f}" if counts[:, part].any() else "–" for part, value in enumerate(share[index])])
        for index, title in enumerate((*store.classes, "no label"))
    ]
    return {
        "domain": domain,
        "name": name,
        "parts": PARTS,
        "frames": [len(store.indices(part)) for part in PARTS],
        "labelled": [int(store.present[store.indices(part)].sum()) for part in PARTS],
        "points": counts.sum(axis=0).tolist(),
        "rows": rows,
        "skipped": store.skipped[:LISTED],
        "skipped_count": len(store.skipped),
    }


def point_counts(store: FrameStore, rows: np.ndarray) -> np.ndarray:
    """Points of each class in some frames, and last those without a label. Shape: ``(K + 1,)`` int64."""
    counts = np.zeros(256, dtype=np.int64)
    for row in rows:
        counts += np.bincount(store.labels[store.offsets[row] : store.offsets[row + 1]], minlength=256)
    classes = len(store.classes)
    return np.append(counts[:classes], counts[classes:].sum())
