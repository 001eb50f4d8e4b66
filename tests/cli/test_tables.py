import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from isthmus.cli import tables
from isthmus.evaluation.tables import Table

LINE = "│"
RESULTS = Path(__file__).parents[2] / "results"


def printed(table: Table, width: int, title: str | None = None) -> str:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "console", Console(file=out, width=width))
        tables.show(table, title)
    return out.getvalue()


def blocks(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Headings and lines of each printed table, which must be closed on the right: nothing is cropped."""
    for block in text.split("┏")[1:]:
        lines = block.splitlines()
        assert lines[0].endswith("┓") and lines[-1].endswith("┘") and lines[-1].startswith("└")
        head, body = (
            [[cell.strip() for cell in line.split(bar)[1:-1]] for line in lines if line.startswith(bar)]
            for bar in ("┃", LINE)
        )
        yield [" ".join(filter(None, words)) for words in zip(*head)], body


def said(text: str) -> str:
    return " ".join(text.partition("┏")[0].split())


METHODS = Table(
    ("direction", "method", "stage", "label-free", "last (not usable at all)", "gain over source-only"),
    (
        ("a→b", "gast", "stage1", "48.1 ± 1.8 (40.1 ± 1.8)", "47.9 ± 1.3 (39.8 ± 1.4)", ""),
        ("a→b", "gast", "stage2", "49.0 ± 2.9 (39.0 ± 2.2)", "50.5 ± 1.8 (40.5 ± 0.9)", "-2.5 [-3.7, -1.4]"),
        ("a→b", "mlsp", "stage2", "41.3 ± 2.7 (34.3 ± 3.0)", "41.5 ± 2.8 (34.1 ± 2.9)", "+0.1 [-1.0, +1.2]"),
    ),
)


def test_a_table_that_fits_is_printed_as_it_is() -> None:
    text = printed(METHODS, 140)
    assert list(blocks(text)) == [(list(METHODS.headings), [list(row) for row in METHODS.rows])]
    assert said(text) == ""


def test_a_wide_table_says_once_what_all_rows_share_and_goes_on_below_beside_what_tells_rows_apart() -> None:
    text = printed(METHODS, 75)
    assert said(text) == "in every row: direction a→b"
    first, second = blocks(text)
    assert first[0] == ["method", "stage", "label-free", "last (not usable at all)"]
    assert first[1] == [list(row[1:5]) for row in METHODS.rows]
    assert second == (["method", "stage", "gain over source-only"], [[row[1], row[2], row[5]] for row in METHODS.rows])


def test_rows_that_are_all_the_same_are_still_rows() -> None:
    table = Table(("first", "second"), (("x" * 30, "y"), ("x" * 30, "y")))
    text = printed(table, 30, "a title")
    assert said(text) == "a title" and sum("y" in row for _, body in blocks(text) for row in body) == 2


def test_an_empty_column_is_not_said_as_if_a_value_followed() -> None:
    table = Table(("name", "score", "gain"), (("a" * 20, "1", ""), ("b" * 20, "1", "")))
    assert said(printed(table, 30)) == "in every row: score 1"


def test_one_row_wider_than_the_terminal_keeps_all_its_columns() -> None:
    table = Table(tuple(f"column{n}" for n in range(20)), (tuple(f"value{n}" for n in range(20)),))
    found = list(blocks(printed(table, 60)))
    assert len(found) > 1
    assert {cell for _, body in found for row in body for cell in row} == set(table.rows[0])


def test_cells_are_broken_but_never_cropped_where_not_even_one_column_fits() -> None:
    table = Table(("a long name", "score"), (("x" * 50, "12345"), ("y" * 50, "67890")))
    ((_, body),) = blocks(printed(table, 30))
    assert "".join(row[0] for row in body) == "x" * 50 + "y" * 50
    assert [row[1] for row in body if row[1]] == ["12345", "67890"]


WORDS = st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=4).map(" ".join)


@given(
    st.integers(2, 9).flatmap(
        lambda n: st.tuples(
            st.lists(WORDS, min_size=n, max_size=n),
            st.lists(st.tuples(*[st.text("abc", min_size=1, max_size=9)] * n), min_size=1, max_size=5, unique=True),
        )
    ),
    st.integers(30, 140),
)
def test_nothing_is_lost_at_any_width(given: tuple[list[str], list[tuple[str, ...]]], width: int) -> None:
    headings, rows = [f"h{n} {words}" for n, words in enumerate(given[0])], given[1]
    text = printed(Table(tuple(headings), tuple(rows)), width)
    found: dict[str, list[str]] = {heading.split()[0]: [] for heading in headings}
    for head, body in blocks(text):
        for heading, *cells in zip(head, *body):
            found[heading.split()[0]] = list(cells)
    for heading, *cells in zip(headings, *rows):
        shown = "".join(found[heading.split()[0]])
        assert shown == "".join(cells) or f"{heading} {cells[0]}" in said(text)


@pytest.mark.parametrize("width", [70, 100, 140, 200])
def test_no_committed_table_is_cropped(width: int) -> None:
    files = sorted(RESULTS.rglob("*.csv"))
    assert len(files) > 20
    for file in files:
        headings, *rows = csv.reader(file.open(encoding="utf-8"))
        table = Table(tuple(headings), tuple(map(tuple, rows)))
        assert sum(len(body) >= len(rows) for _, body in blocks(printed(table, width))) > 0, file
