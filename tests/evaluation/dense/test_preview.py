import numpy as np
import pytest

from isthmus.data.readers.class_names import NYU13
from isthmus.evaluation.dense.pictures import Look, palette
from isthmus.evaluation.dense.preview import GAP, PANEL, Panel, legend, number, preview, title
from isthmus.tasks.build_dense import dense_task


def panels(count: int) -> list[Panel]:
    values = np.zeros((30, 40), dtype=np.uint8)
    values[:, 20:] = 4
    return [Panel(Look(dense_task("segmentation", NYU13)), values)] * count


@pytest.mark.parametrize(("predictions", "columns", "rows"), [(1, 2, 1), (2, 3, 1), (3, 2, 2), (5, 3, 2)])
def test_pictures_stand_in_full_rows(predictions: int, columns: int, rows: int) -> None:
    found = preview(np.full((30, 40, 3), 90, np.uint8), panels(predictions))
    width = 40 * (PANEL // 40)
    assert found.shape[1] == columns * (width + GAP) + GAP
    image = (found == 90).all(axis=-1)
    assert image.sum() >= width * 30 * (PANEL // 40)
    bed = (found == palette(NYU13)[0]).all(axis=-1)
    assert bed.sum() >= predictions * width / 2 * 30 * (PANEL // 40)
    tops = np.flatnonzero(np.diff(np.r_[False, (bed.sum(axis=1) > 100)].astype(int)) == 1)
    assert len(tops) == (rows if predictions > 1 else 1)


def test_legend_has_every_class_with_its_colour() -> None:
    found = legend(Look(dense_task("segmentation", NYU13)))
    for colour in palette(NYU13):
        assert (found == colour).all(axis=-1).sum() > 50


def test_words_and_numbers() -> None:
    assert title("inverse_depth") == "Inverse depth" and title(dense_task("depth")) == "Depth"
    assert [number(value) for value in (0.0, 1.23456, 65.535, 0.00001)] == ["0", "1.23", "65.5", "1.0e-05"]
