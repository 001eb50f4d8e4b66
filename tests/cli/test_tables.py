import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from isthmus.cli import tables
from isthmus.evaluation.tables import Table

LINE = "│"


def printed(table: Table, width: int, title: str | None = None) -> str:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "console", Console(file=out, width=width))
        tables.show(table, title)
    return out.getvalue()


def cells(text: str) -> list[list[str]]:
    """The cells of each printed line of a body."""
    return [[cell.strip() for cell in line.split(LINE)[1:-1]] for line in text.splitlines() if line.startswith(LINE)]


METHODS = Table(
    ("direction", "method", "stage", "label-free", "last", "gain over source-only"),
    (
        ("a→b", "gast", "stage1", "48.1 ± 1.8 (40.1 ± 1.8)", "47.9 ± 1.3 (39.8 ± 1.4)", ""),
        ("a→b", "gast", "stage2", "49.0 ± 2.9 (39.0 ± 2.2)", "50.5 ± 1.8 (40.5 ± 0.9)", "-2.5 [-3.7, -1.4]"),
        ("a→b", "mlsp", "stage2", "41.3 ± 2.7 (34.3 ± 3.0)", "41.5 ± 2.8 (34.1 ± 2.9)", "+0.1 [-1.0, +1.2]"),
    ),
)


def test_a_table_that_fits_is_printed_as_it_is() -> None:
    text = printed(METHODS, 130)
    assert cells(text) == [list(row) for row in METHODS.rows]
    assert "a→b:" not in text


def test_a_wide_table_says_once_what_all_rows_share_and_goes_on_below_beside_what_tells_rows_apart() -> None:
    text = printed(METHODS, 80)
    assert text.startswith("direction a→b:\n")
    first = [list(row[1:5]) for row in METHODS.rows]
    second = [[row[1], row[2], row[5]] for row in METHODS.rows]
    assert cells(text) == first + second
    assert max(map(len, text.splitlines())) <= 80


def test_one_row_wider_than_the_terminal_keeps_all_its_columns() -> None:
    table = Table(tuple(f"column{n}" for n in range(20)), (tuple(f"value{n}" for n in range(20)),))
    found = cells(printed(table, 60))
    assert len(found) > 1
    assert {cell for row in found for cell in row} == {f"value{n}" for n in range(20)}


@given(
    st.integers(1, 8).flatmap(
        lambda n: st.lists(st.tuples(*[st.text("abc", min_size=1, max_size=12)] * n), min_size=1, max_size=5)
    ),
    st.integers(40, 120),
)
def test_no_cell_is_lost_or_broken_at_any_width(rows: list[tuple[str, ...]], width: int) -> None:
    numbered = [(str(n), *row) for n, row in enumerate(rows)]
    text = printed(Table(tuple(f"h{n}" for n in range(len(numbered[0]))), tuple(numbered)), width)
    said, body = " ".join(text.partition("┏")[0].split()), cells(text)
    assert max(map(len, text.splitlines())) <= width
    for row in numbered:
        shown = [cell for line in body if line[0] == row[0] for cell in line[1:]]
        said_or_shown = [cell for cell in row[1:] if cell in shown or f" {cell}" in said]
        assert said_or_shown == list(row[1:])
