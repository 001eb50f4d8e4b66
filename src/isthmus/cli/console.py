"""What a person sees while something long runs: a bar with honest remaining time, or plain lines in a log."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

# A pipe or a log has no width: tables are written in full there.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
console = Console(width=_WIDTH)
errors = Console(stderr=True)


class Bar:
    """Progress of one or several runs: pass it as the reporter of each, in turn.

    ``expected`` is the number of steps of all runs together. The remaining time extrapolates all of this
    session, evaluations included, since runs differ in cost; steps done before a resume do not count as fast ones.
    """

    def __init__(self, expected: int | None = None, title: str = "training") -> None:
        self.expected = expected
        self.title = title
        self.done_before = 0
        self.done_here = 0
        self._session_steps = 0
        self._session_start: float | None = None
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(title, total=expected, left="")
        self._said = time.monotonic()

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def start(self, done: int, total: int) -> None:
        """A run begins, or goes on after ``done`` of its steps."""
        self.done_before += self.done_here
        self.done_here = done
        if self.expected is None:
            self._bar.update(self._task, total=total)
        if self._session_start is None:
            self._session_start = time.monotonic()
        self._show()

    def advance(self) -> None:
        """One more step is done."""
        self.done_here += 1
        self._session_steps += 1
        self._show()

    def skip(self, steps: int) -> None:
        """A run was finished already."""
        self.done_before += steps
        self._show()

    def message(self, text: str) -> None:
        """A line above the bar."""
        (self._bar.console if console.is_terminal else console).print(text, highlight=False, markup=False)

    def _show(self) -> None:
        total, done, left = self.expected or self._bar.tasks[0].total, self.done_before + self.done_here, ""
        if total and self._session_start is not None and self._session_steps > 0:
            pace = (time.monotonic() - self._session_start) / self._session_steps
            left = f"{_clock(pace * (total - done))} left"
        self._bar.update(self._task, completed=done, left=left)
        if not console.is_terminal and left and time.monotonic() - self._said > 30:
            self._said = time.monotonic()
            console.print(f"{self.title}: {done}/{int(total or 0)} steps, {left}", highlight=False)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
