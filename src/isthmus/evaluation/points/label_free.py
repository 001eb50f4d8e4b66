"""What can be said of a run's accuracy on clouds without opening their labels: for a person, and as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.errors import RunError
from isthmus.evaluation.points.accuracy import check_classifies
from isthmus.evaluation.points.estimate_errors import shipped
from isthmus.evaluation.points.estimates import NAMES, Estimates, agreement, estimate
from isthmus.evaluation.points.outputs import Outputs, outputs_on, source_validation
from isthmus.evaluation.runs import without_seed
from isthmus.evaluation.tables import Table
from isthmus.training.points.build import Domains
from isthmus.training.points.recipe import PointRun
from isthmus.training.run import Rule


@dataclass(frozen=True)
class Estimated:
    """A run on some clouds: what it says of them, and how often that seems to be right."""

    run: PointRun
    outputs: Outputs
    estimates: Estimates


def estimated(
    run: PointRun,
    outputs: Outputs,
    rule: Rule,
    stage: str | None = None,
    others: Sequence[Outputs] = (),
    domains: Domains | None = None,
) -> Estimated:
    """Estimates of one run; ``others`` are what runs of other seeds say of the same clouds.

    Raises RunError for a run that labels points, or for other clouds.
    """
    check_classifies(run)
    source = source_validation(run, rule, stage, domains)
    for other in others:
        if not other.is_of(outputs):
            raise RunError(f"{run.path}: expected other seeds on the same {len(outputs.rows)} clouds, found others")
    found = estimate(source.logits, source.labels(), outputs.logits, [each.logits for each in others])
    return Estimated(run, outputs, found)


def other_seeds(run: PointRun, runs: Sequence[PointRun]) -> list[PointRun]:
    """``runs`` without the run itself, each checked to differ from it in its seed and in nothing else."""
    kept = [each for each in runs if each.path.resolve() != run.path.resolve()]
    for each in kept:
        if without_seed(each.recipe) != without_seed(run.recipe):
            raise RunError(f"{each.path}: expected the recipe of {run.path} with another seed, found another recipe")
        if each.recipe.seed == run.recipe.seed:
            raise RunError(f"{each.path}: expected another seed than that of {run.path}, found {run.recipe.seed} twice")
    if runs and not kept:
        raise RunError(f"--seeds: expected runs beside {run.path}, found none")
    return kept


def of_seeds(runs: Sequence[PointRun], data: str, rule: Rule, stage: str | None, labelled: bool) -> list[Outputs]:
    """What each run says of ``data``, of its labelled clouds where asked."""
    found = [outputs_on(each, data, rule, stage) for each in runs]
    return [each.labelled() for each in found] if labelled else found


def estimates_section(
    ours: Estimated, theirs: Estimated | None = None, *, accuracy: float | None = None, baseline: float | None = None
) -> tuple[list[str | Table], dict[str, Any]]:
    """Estimates of a run and, beside ``theirs``, of the gain; with their errors where true accuracies are given.

    Args:
        ours: the run.
        theirs: one to compare with, on the same clouds.
        accuracy, baseline: the true accuracies of both, in [0, 1], where labels are known.

    Returns:
        Lines and a table for a person, and the same as JSON values.
    """
    known = accuracy is not None
    headings = ["estimate", "accuracy", *(["error"] if known else [])]
    if theirs is not None:
        headings += ["of the other", "gain", *(["gain error"] if known else [])]
    usual = shipped()
    headings += ["usual error", "usual bias"] if usual else []
    rows = []
    if accuracy is not None:
        gain = [] if theirs is None or baseline is None else [_share(baseline), _points(accuracy - baseline), ""]
        rows.append(("truth, from the labels", _share(accuracy), "", *gain, *(["", ""] if usual else [])))
    other = {} if theirs is None else vars(theirs.estimates)
    values: dict[str, Any] = {}
    for field, name in NAMES.items():
        value = getattr(ours.estimates, field)
        if value is None:
            continue
        cells = [name, _share(value)]
        entry: dict[str, float | None] = {"accuracy": value}
        if accuracy is not None:
            entry["error"] = value - accuracy
            cells.append(_points(value - accuracy))
        if theirs is not None:
            against = other[field]
            entry |= {"against": against, "gain": None if against is None else value - against}
            cells += ["–", "–"] if against is None else [_share(against), _points(value - against)]
            if accuracy is not None and baseline is not None:
                wrong = None if against is None else value - against - (accuracy - baseline)
                entry["gain_error"] = wrong
                cells.append("–" if wrong is None else _points(wrong))
        if usual:
            measured = usual.get(field)
            cells += ["–", "–"] if measured is None else [f"{measured.error:.1f}", f"{measured.bias:+.1f}"]
        values[field] = entry
        rows.append(tuple(cells))
    parts: list[str | Table] = [
        "Estimates of the accuracy that read no target label, in %:",
        Table(tuple(headings), tuple(rows)),
    ]
    if usual:
        count = max(each.runs for each in usual.values())
        parts.append(
            f"usual error, bias: mean absolute and mean error, in points, on {count} finished runs whose labels are "
            "known (isthmus estimates); yours may differ more"
        )
    result: dict[str, Any] = {"estimates": values}
    if theirs is not None:
        same = agreement(ours.outputs.logits, theirs.outputs.logits)
        result["agreement"] = same
        parts.append(
            f"both runs predict the same on {_share(same)} % of the clouds: whatever the labels, their accuracies "
            f"differ by {_share(1 - same)} points at most"
        )
    return parts, result


def counts_table(outputs: Outputs) -> Table:
    """How many clouds are taken for each class."""
    counts = np.bincount(outputs.logits.argmax(axis=1), minlength=outputs.logits.shape[1])
    rows = [(name, str(count), _share(count / len(outputs.rows))) for name, count in zip(outputs.store.classes, counts)]
    return Table(("class", "predicted clouds", "%"), tuple(rows))


def counts_values(outputs: Outputs) -> dict[str, Any]:
    """The same as JSON values."""
    counts = np.bincount(outputs.logits.argmax(axis=1), minlength=outputs.logits.shape[1])
    classes = outputs.store.classes
    return {"clouds": len(outputs.rows), "labels": False, "predicted": dict(zip(classes, counts.tolist()))}


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"
