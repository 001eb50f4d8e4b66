import pytest

from isthmus.errors import DataError, IsthmusError
from isthmus.evaluation.points.label_sheet import OTHER, read_sheet, write_sheet

CLASSES = ("chair", "lamp", "table")


def test_a_sheet_goes_out_and_comes_back_in_any_order(tmp_path):
    file, names = tmp_path / "sheet.csv", ["a/1", 'b "two", 2', "ü"]
    write_sheet(file, names)
    assert file.read_text(encoding="utf-8").splitlines()[:2] == ["name,label", "a/1,"]
    with pytest.raises(IsthmusError, match="labels may be in it"):
        write_sheet(file, names)
    file.write_text('\ufeffname,label\nü, none \n"b ""two"", 2",lamp\n\na/1,table\n', encoding="utf-8")
    assert read_sheet(file, names, CLASSES).tolist() == [2, 1, OTHER]
    with pytest.raises(IsthmusError, match="found one twice"):
        write_sheet(tmp_path / "other.csv", ["a", "a"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name;label\n", "line 1: expected the columns name,label"),
        ("", "line 1: expected the columns name,label, found nothing"),
        ("name,label\na,chair\nb,chair\n", "line 3: name: .* found 'b' not among those"),
        ("name,label\na,chair\na,lamp\n", "line 3: name: .* found 'a' a second time"),
        ("name,label\na,chiar\n", "line 2: label: .* did you mean 'chair'"),
        ("name,label\na,chair,x\n", "line 2: expected 2 cells, found 3"),
        ("name,label\na,\n", "found 2 without, first 'a'"),
        ("name,label\na,chair\n", "found 1 without, first 'c'"),
    ],
)
def test_a_sheet_that_does_not_fit_is_refused_by_line(tmp_path, text, problem):
    file = tmp_path / "sheet.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=problem):
        read_sheet(file, ["a", "c"], CLASSES)
    with pytest.raises(DataError, match="readable CSV file"):
        read_sheet(tmp_path / "none.csv", ["a"], CLASSES)
