"""All benchmarks: ratios of both sides from one run, printed and written to ``benchmarks/latest.json``.

``python benchmarks/run.py [name ...]`` runs those whose function is named; the others keep their last rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anchor
import deformable
import dense
import frame_loading
import hosts
import kernels
import loading
import sparse
import steps
from rich.console import Console
from rich.table import Table

LATEST = Path(__file__).with_name("latest.json")


def main() -> None:
    """Run, print as rows arrive, write."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    modules = (kernels, steps, hosts, loading, dense, anchor, sparse, deformable, frame_loading)
    chosen = [benchmark for module in modules for benchmark in module.BENCHMARKS]
    if sys.argv[1:]:
        chosen = [benchmark for benchmark in chosen if benchmark.__name__ in sys.argv[1:]]
    rows = {row["name"]: row for row in (json.loads(LATEST.read_text()) if LATEST.exists() else [])}
    for benchmark in chosen:
        console.print(f"[bold]{benchmark.__name__}[/bold]: {benchmark.__doc__}", highlight=False)
        table = Table("what", "ours s", "reference s", "ratio", "ours MiB", "reference MiB", "note")
        for row in benchmark():
            rows[row["name"]] = row
            numbers = (row[key] for key in ("ours_s", "reference_s", "ratio", "ours_mib", "reference_mib"))
            table.add_row(row["name"], *("" if n is None else f"{n:.3g}" for n in numbers), row["note"])
            LATEST.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
        console.print(table)


if __name__ == "__main__":
    main()
