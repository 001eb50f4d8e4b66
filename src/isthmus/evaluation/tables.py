"""Tables of text, written in the formats people paste."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from isthmus.errors import RunError


@dataclass(frozen=True)
class Table:
    """Headings and rows of text, written in any of the formats people paste."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """A GitHub table."""
        lines = [self.headings, tuple("---" for _ in self.headings), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def csv(self) -> str:
        """Comma-separated values."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.headings, *self.rows])
        return out.getvalue()

    def latex(self) -> str:
        """A booktabs tabular."""

        def line(cells: tuple[str, ...]) -> str:
            text = " & ".join(cells).replace("%", r"\%").replace("_", r"\_")
            return text.replace("±", r"$\pm$").replace("→", r"$\to$") + r" \\"

        body = "\n".join(line(row) for row in self.rows)
        columns = "l" * len(self.headings)
        return (
            f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(self.headings)}\n\\midrule\n{body}\n"
            "\\bottomrule\n\\end{tabular}\n"
        )


def write(table: Table, folder: Path, name: str = "table", *, overwrite: bool = False) -> list[Path]:
    """Write Markdown, CSV and LaTeX beside each other; raises RunError before it would replace one."""
    folder.mkdir(parents=True, exist_ok=True)
    existing = [folder / f"{name}{suffix}" for suffix in (".md", ".csv", ".tex")]
    if not overwrite and any(file.exists() for file in existing):
        raise RunError(f"{folder}: expected no {name}.md, .csv or .tex, found one; --overwrite replaces them")
    files = []
    for suffix, text in ((".md", table.markdown()), (".csv", table.csv()), (".tex", table.latex())):
        (folder / f"{name}{suffix}").write_text(text)
        files.append(folder / f"{name}{suffix}")
    return files
