"""The command that looks at the machine."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table as RichTable

from isthmus.cli.app import app
from isthmus.cli.console import console


@app.command()
def doctor() -> None:
    """Versions, devices, and what is missing."""
    from isthmus.evaluation.environment import report_environment

    colours = {"ok": "green", "missing": "yellow", "problem": "red"}
    grid = RichTable()
    for heading in ("", "state", "found", "advice"):
        grid.add_column(heading, overflow="fold")
    checks = report_environment()
    for check in checks:
        grid.add_row(check.name, f"[{colours[check.state]}]{check.state}[/]", escape(check.found), escape(check.advice))
    console.print(grid)
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(1)
