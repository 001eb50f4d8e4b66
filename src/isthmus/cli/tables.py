"""Tables on a terminal: whole cells wherever it is wide enough for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table as RichTable

from isthmus.cli.console import console

if TYPE_CHECKING:
    from isthmus.evaluation.tables import Table

Column = tuple[str, ...]
"""A heading and the cells below it."""


def show_tables(tables: Mapping[str, Table]) -> None:
    """Print the tables of a comparison; the first goes without a title."""
    for name, table in tables.items():
        show(table, None if name == "table" else f"{name} over directions and seeds")


def show(table: Table, title: str | None = None) -> None:
    """Print a table.

    Of one that is wider than the terminal, columns that say the same in every row are said above, and what does not fit
    goes on below, beside the columns that tell the rows apart. Cells are broken only where a single column does not fit
    beside those.
    """
    columns = list(zip(table.headings, *table.rows))
    if len(set(table.rows)) > 1 and not _fits(columns):
        same = [column for column in columns if len(set(column[1:])) == 1]
        columns = [column for column in columns if column not in same]
        said = [f"{heading} {cell}".strip() for heading, cell, *_ in same if cell]
        if said:
            console.print(escape(f"in every row: {'; '.join(said)}"), highlight=False)
    for part in _parts(columns):
        grid = RichTable(title=title)
        for (heading, *_), width in zip(part, _widths(part)):
            grid.add_column(escape(heading), overflow="fold", width=width)
        for row in zip(*(cells for _, *cells in part)):
            grid.add_row(*map(escape, row))
        console.print(grid)


def _parts(columns: list[Column]) -> Iterator[list[Column]]:
    """The columns, in as many parts as they need; each begins with those that tell the rows apart."""
    if _fits(columns):
        yield columns
        return
    rows = list(zip(*(column[1:] for column in columns)))
    leading = next(n for n in range(1, len(columns) + 1) if len({row[:n] for row in rows}) == len(set(rows)))
    part = columns[:leading]
    for column in columns[leading:]:
        if len(part) > leading and not _fits([*part, column]):
            yield part
            part = columns[:leading]
        part = [*part, column]
    yield part


def _fits(columns: list[Column]) -> bool:
    """Whether the terminal is wide enough for whole cells; headings may be broken between words."""
    return sum(_width(column) + 3 for column in columns) + 1 <= console.width


def _widths(columns: list[Column]) -> list[int | None]:
    """Of columns with whole cells, and as many whole headings as there is room for; none where the cells do not fit."""
    if not _fits(columns):
        return [None] * len(columns)
    room = console.width - 1 - sum(_width(column) + 3 for column in columns)
    widths: list[int | None] = []
    for heading, *cells in columns:
        least = _width((heading, *cells))
        more = min(room, max(0, cell_len(heading) - least))
        widths.append(least + more)
        room -= more
    return widths


def _width(column: Column) -> int:
    heading, *cells = column
    return max(map(cell_len, (*heading.split(), *cells)), default=0)
