"""What the reports of all kinds of runs share: the page itself, names of runs, gains in words, how to repeat a run.

A report is one HTML file that loads nothing: plotly.js lies within, once. Each kind of run has a template that extends
``page.html`` and says how its sections are written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from isthmus.errors import RunError
from isthmus.evaluation.figures import Gain, ShownRun, signed
from isthmus.evaluation.recipe_differences import differences
from isthmus.evaluation.statistics import Interval
from isthmus.training.run import Run

LISTED = 20
"""At most this many entries of a long list are on the page."""
NAN = "–"


@dataclass
class Section:
    """A part of the page: paragraphs, tables and figures by the names that the template asks for."""

    anchor: str
    title: str
    values: dict[str, Any] = field(default_factory=dict)


def render(package: str, *, template: str = "report.html", **values: Any) -> str:
    """The page that a template in ``templates`` of a package describes."""
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("isthmus.evaluation")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(plotlyjs=Markup(get_plotlyjs()), **values)


def check_finished(runs: Sequence[Run[Any]]) -> None:
    """Raises RunError where there is no run, or one that is not finished."""
    if not runs:
        raise RunError("report: expected at least one run, found none")
    for run in runs:
        if not run.finished:
            raise RunError(f"{run.path}: expected a finished run, found status {run.state.get('status')!r}")


def page_path(run: Run[Any], out: Path | None) -> Path:
    """Where the page goes: ``report.html`` in the run's folder by default. Makes the folder."""
    path = out or run.path / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def run_labels(runs: Sequence[Run[Any]]) -> list[str]:
    """A name for each run, as short as tells them apart: its method, its seed, its folder."""
    names = [run.recipe.method_name for run in runs]
    for more in ([f"seed {run.recipe.seed}" for run in runs], [run.path.resolve().name for run in runs]):
        counts = Counter(names)
        names = [f"{name} ({extra})" if counts[name] > 1 else name for name, extra in zip(names, more)]
    counts = Counter(names)
    return [f"{name} [{index}]" if counts[name] > 1 else name for index, name in enumerate(names, start=1)]


def logged_losses(run: Run[Any]) -> tuple[dict[str, Any], ...]:
    """The rows of the log that hold losses."""
    return tuple(row for row in run.rows("metrics") if any(key.startswith("loss/") for key in row))


def percent(value: float) -> str:
    """A share in percent."""
    return NAN if math.isnan(value) else f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed."""
    return NAN if math.isnan(value) else signed(100 * value)


def interval_text(interval: Interval) -> str:
    """The ends of an interval of shares in percentage points; a dash where it cannot be had."""
    return f"[{points(interval.low)}, {points(interval.high)}]" if math.isfinite(interval.low) else NAN


def gain_cells(baseline: float, gain: Gain) -> dict[str, str]:
    """A baseline's share, the gain over it and its interval as text."""
    return {
        "baseline": percent(baseline),
        "gain": points(gain.gain.estimate),
        "interval": interval_text(gain.gain),
        "verdict": "within noise" if "noise" in gain.verdict else gain.verdict,
    }


def hurt_and_helped(gains: Sequence[Gain]) -> dict[str, list[str]]:
    """The classes whose gains exclude zero, the most hurt and the most helped first."""
    ordered = sorted((each for each in gains if each.verdict in ("hurt", "helped")), key=lambda g: g.gain.estimate)
    named = {gain.name: f"{gain.name} ({points(gain.gain.estimate)})" for gain in ordered}
    return {
        "hurt": [named[gain.name] for gain in ordered if gain.verdict == "hurt"],
        "helped": [named[gain.name] for gain in ordered[::-1] if gain.verdict == "helped"],
    }


def by_chance(comparisons: int) -> str:
    """In how many percent of tables of so many classes chance alone would call at least one hurt or helped."""
    return f"{100 * (1 - 0.95**comparisons):.0f}"


def recipe_section(runs: Sequence[Run[Any]], shown: Sequence[ShownRun]) -> Section:
    """The subject's recipe (that of the first run), what differs in the others, and how to repeat it."""
    own = runs[0]
    return Section(
        "recipe",
        "Recipe and how to repeat it",
        {
            "yaml": own.recipe.dump(),
            "versions": own.state.get("versions", {}),
            "seconds": own.state.get("seconds"),
            "subject": shown[0],
            "differences": [
                {"baseline": other, "rows": _first(differences(own.recipe, run.recipe))}
                for run, other in zip(runs[1:], shown[1:])
            ],
            "report_command": "isthmus report " + " ".join(_folders(runs)),
        },
    )


def _first(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return rows if len(rows) <= LISTED else [*rows[:LISTED], (f"and {len(rows) - LISTED} more fields", "", "")]


def _folders(runs: Sequence[Run[Any]]) -> list[str]:
    """The folders of the runs as they were named; absolute ones by as few of their parts as tell them apart."""
    if not any(run.path.is_absolute() for run in runs):
        return [run.path.as_posix() for run in runs]
    paths = [run.path.resolve().parts for run in runs]
    depth = 1
    while len({parts[-depth:] for parts in paths}) < len(set(paths)):
        depth += 1
    return [Path(*parts[-depth:]).as_posix() for parts in paths]


def figure_html(figure: go.Figure, name: str) -> Markup:
    """A figure as a ``div`` that draws itself with the page's plotly.js."""
    # Named one by one: the default set has a button that sends the figure to a server.
    buttons = [["toImage", "resetCameraDefault3d" if "scene" in figure.layout else "resetScale2d"]]
    config = {"displaylogo": False, "responsive": True, "modeBarButtons": buttons}
    return Markup(figure.to_html(config, full_html=False, include_plotlyjs=False, div_id=name))
