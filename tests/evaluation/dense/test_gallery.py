import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor, nn

from dense_testing import CLASSES, Few
from isthmus.data.image_store import ImageStore, prepare_images
from isthmus.evaluation.dense.gallery import (
    WIDTH,
    Block,
    Pick,
    Predictor,
    address,
    blocks,
    image_scores,
    image_worth,
    picks,
    score_text,
)
from isthmus.evaluation.dense.pictures import HATCH, Look, enlarged, error_picture, errors, palette
from isthmus.evaluation.dense.scores import Measured, image_groups, only, shared_tasks
from isthmus.methods.base import Method
from isthmus.tasks.build_dense import dense_task
from isthmus.tasks.dense import DenseTask
from isthmus.training.dense.monitor import measure


class ByNumber(Method):
    """Predicts from the colour of an image, which in :class:`Few` is its number, the same everywhere in it."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.shift = shift

    def forward(self, *_: Any) -> Any:
        raise AssertionError("no training here")

    def predict(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        image = inputs["image"]
        number = (255 * image[:, :1]).round() + self.shift
        hot = nn.functional.one_hot(number[:, 0].long() % len(CLASSES), len(CLASSES)).permute(0, 3, 1, 2).float()
        angle = 0.3 * number
        return {
            "segmentation": 9 * hot,
            "depth": 1 + number / 10,
            "normals": torch.cat([angle.cos(), angle.sin(), 0 * angle], dim=1),
        }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return prepare_images(Few(test=5), tmp_path_factory.mktemp("few"), None)


def tasks() -> dict[str, DenseTask]:
    return {
        "segmentation": dense_task("segmentation", CLASSES),
        "depth": dense_task("depth"),
        "normals": dense_task("normals"),
    }


def predictor(store: ImageStore, shift: int = 0) -> Predictor:
    rows, known = store.indices("test"), tasks()
    present = {name: store.present[:, list(store.tasks).index(name)] for name in known}
    method = ByNumber(shift)
    with torch.no_grad():
        statistics = measure(method.predict, store, rows, known, present)
    return Predictor(method, Measured(1, known, statistics, image_groups(store, rows)))


def picture(address: str) -> np.ndarray:
    head, _, content = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def plain(rgb: np.ndarray) -> np.ndarray:
    """What :func:`enlarged` does to a small picture."""
    factor = WIDTH // rgb.shape[1]
    return np.kron(rgb, np.ones((factor, factor, 1), dtype=np.uint8))


CHOSEN = [Pick(0, "best of this run"), Pick(3, ""), Pick(4, "worst of this run")]


@pytest.fixture(scope="module")
def found(store: ImageStore) -> dict[str, Block]:
    runs = [predictor(store), predictor(store, 1), Predictor(None, predictor(store).measured)]
    return {block.task.name: block for block in blocks(store, store.indices("test"), CHOSEN, runs)}


class TestBlocks:
    def test_rows_are_the_chosen_images_of_the_test_part(self, store: ImageStore, found: dict[str, Block]) -> None:
        rows = store.indices("test")
        for block in found.values():
            assert [row.name for row in block.rows] == [store.names[rows[pick.position]] for pick in CHOSEN]
            assert [row.why for row in block.rows] == [pick.why for pick in CHOSEN]
            for row, pick in zip(block.rows, CHOSEN):
                assert (picture(row.image) == np.asarray(store.images[rows[pick.position]])[0, 0]).all()

    def test_truth_is_the_label_with_a_hatch_where_there_is_none(
        self, store: ImageStore, found: dict[str, Block]
    ) -> None:
        for row, pick in zip(found["segmentation"].rows, CHOSEN):
            label = np.asarray(store.labels("segmentation")[store.indices("test")[pick.position]])
            shown = picture(row.truth.picture)
            factor = WIDTH // label.shape[1]
            for value in range(len(CLASSES)):
                inside = np.kron(label == value, np.ones((factor, factor), dtype=bool))
                assert (shown[inside] == palette(CLASSES)[value]).all()
            nothing = np.kron(label == 255, np.ones((factor, factor), dtype=bool))
            assert nothing.any() and {tuple(colour) for colour in shown[nothing].tolist()} == set(HATCH)

    def test_predictions_stand_in_their_run_s_column(self, store: ImageStore, found: dict[str, Block]) -> None:
        rows = store.indices("test")
        for row, pick in zip(found["segmentation"].rows, CHOSEN):
            number = int(np.asarray(store.images[rows[pick.position]])[0, 0, 0])
            for run in (0, 1):
                cell = row.predictions[run]
                assert cell is not None
                assert (picture(cell.picture) == palette(CLASSES)[(number + run) % len(CLASSES)]).all()
            assert row.predictions[2] is None and row.errors[2] is None  # a run that cannot be shown

    def test_depths_are_on_one_scale_and_errors_on_another(self, store: ImageStore, found: dict[str, Block]) -> None:
        rows = store.indices("test")[[pick.position for pick in CHOSEN]]
        task, truth = dense_task("depth"), np.stack([np.asarray(store.labels("depth")[row]) for row in rows])
        valid = truth > 0
        look = Look.of(task, truth, valid)
        numbers = np.array([np.asarray(store.images[row])[0, 0, 0] for row in rows], dtype=np.float32)
        wrong = [errors(task, np.ones_like(truth) * (1 + (numbers + run) / 10)[:, None, None], truth) for run in (0, 1)]
        largest = np.percentile(np.concatenate([each[valid] for each in wrong]), 98)
        for index, row in enumerate(found["depth"].rows):
            cells = [*row.predictions[:2], *row.errors[:2]]
            values = [np.full(truth.shape[1:], 1 + (numbers[index] + run) / 10) for run in (0, 1)]
            expected = [look.picture(each) for each in values]
            expected += [error_picture(each[index], largest, valid[index]) for each in wrong]
            for cell, rgb in zip(cells, expected):
                assert cell is not None
                np.testing.assert_allclose(picture(cell.picture), plain(rgb), atol=3)
            np.testing.assert_allclose(
                picture(row.truth.picture), plain(look.picture(truth[index], valid[index])), atol=3
            )
        bars = {bar.title: bar for bar in found["depth"].bars}
        assert bars["depth"].low == f"{look.low:.3g} m" and bars["depth"].high == f"{look.high:.3g} m"
        assert bars["error"].high == f"{largest:.3g} m or more"

    def test_caption_is_the_score_of_that_image_and_the_best_is_marked(
        self, store: ImageStore, found: dict[str, Block]
    ) -> None:
        runs = [predictor(store), predictor(store, 1)]
        for name, block in found.items():
            scores = np.array([image_scores(run.measured, name) for run in runs])
            for row, pick in zip(block.rows, CHOSEN):
                ours = scores[:, pick.position]
                best = ours.max() if block.task.higher_is_better else ours.min()
                for run in (0, 1):
                    cell = row.predictions[run]
                    assert cell is not None and cell.caption == score_text(block.task, ours[run])
                    assert cell.best == (ours[run] == best)

    def test_legend_names_every_class_and_maps_without_classes_have_bars(self, found: dict[str, Block]) -> None:
        assert found["segmentation"].classes == [
            (name, f"rgb({r}, {g}, {b})") for name, (r, g, b) in zip(CLASSES, palette(CLASSES).tolist())
        ]
        assert not found["segmentation"].bars and all(cell is None for cell in found["segmentation"].rows[0].errors)
        assert [bar.title for bar in found["normals"].bars] == ["error"] and found["normals"].bars[
            0
        ].high == "60° or more"

    def test_image_without_the_label_is_all_hatched_and_has_no_score(self, tmp_path: Path) -> None:
        class Unlabelled(Few):
            def samples(self):  # type: ignore[no-untyped-def]
                for sample in super().samples():
                    if sample.name == "test/0":
                        del sample.labels["depth"]
                    yield sample

            def fingerprint(self) -> dict[str, Any]:
                return {**super().fingerprint(), "reader": "unlabelled"}

        store = prepare_images(Unlabelled(), tmp_path, None)
        shown = {b.task.name: b for b in blocks(store, store.indices("test"), [Pick(0, "")], [predictor(store)])}
        (row,) = shown["depth"].rows
        assert row.truth.caption == "no label" and row.predictions[0] is not None and row.predictions[0].caption == ""
        assert {tuple(c) for c in picture(row.truth.picture).reshape(-1, 3).tolist()} == set(HATCH)
        assert row.errors[0] is not None
        assert {tuple(c) for c in picture(row.errors[0].picture).reshape(-1, 3).tolist()} == set(HATCH)


def hand_made(depth: list[float], miou: list[float], groups: list[str]) -> Measured:
    """Images with given depth errors (NaN: no label) and shares of right pixels in two classes."""
    known: dict[str, DenseTask] = {"segmentation": dense_task("segmentation", ("a", "b")), "depth": dense_task("depth")}
    counts = [0.0 if np.isnan(error) else 1.0 for error in depth]
    statistics = {
        "segmentation": np.array([[100 * share, 100 * (1 - share), 0, 100] for share in miou]),
        "depth": np.array([[np.nan_to_num(e) * n, 0, 0, n, 0] for e, n in zip(depth, counts)]),
    }
    return Measured(1, known, statistics, np.array(groups))


class TestPicks:
    depth = [1.0, 3.0, 2.0, 5.0, 4.0, 6.0, 2.5]  # noqa: RUF012
    share = [0.5, 0.1, 0.9, 0.3, 0.2, 0.05, 0.95]  # noqa: RUF012

    def test_worth_is_the_mean_rank_over_tasks(self) -> None:
        found = image_worth(hand_made(self.depth, self.share, list("aabbccd")))
        ranks = [stats.rankdata(self.share) - 1, stats.rankdata([-d for d in self.depth]) - 1]
        np.testing.assert_allclose(found, np.mean(ranks, axis=0) / 6)

    def test_missing_labels_leave_a_task_out(self) -> None:
        found = image_worth(hand_made([np.nan] * 7, self.share, list("aabbccd")))
        np.testing.assert_allclose(found, (stats.rankdata(self.share) - 1) / 6)
        one = image_worth(hand_made([np.nan, *self.depth[1:]], self.share, list("aabbccd")))
        assert one[0] == pytest.approx((stats.rankdata(self.share)[0] - 1) / 6)

    def test_best_and_worst_are_shown_and_the_rest_is_spread_over_groups(self) -> None:
        one = hand_made(self.depth, self.share, list("aabbccd"))
        chosen = picks(one, 4)
        why = {pick.position: pick.why for pick in chosen}
        worth = image_worth(one)
        assert why[int(worth.argmax())] == "best of this run" and why[int(worth.argmin())] == "worst of this run"
        assert len(chosen) == 4 and [pick.position for pick in chosen] == sorted(why)
        assert {one.groups[pick.position] for pick in chosen} >= {"a", "d"}

    @pytest.mark.parametrize("count", [1, 2, 6, 20])
    def test_no_image_comes_twice_and_none_is_invented(self, count: int) -> None:
        chosen = [pick.position for pick in picks(hand_made(self.depth, self.share, ["a"] * 7), count)]
        assert len(set(chosen)) == len(chosen) and set(chosen) <= set(range(7))
        assert len(chosen) == max(2, min(count, 7))

    def test_a_single_image(self) -> None:
        assert [pick.position for pick in picks(hand_made([1.0], [0.5], ["a"]))] == [0]


def test_scores_of_single_images(store: ImageStore) -> None:
    ours = predictor(store).measured
    rows = store.indices("test")
    for position, row in enumerate(rows):
        label = np.asarray(store.labels("depth")[row])
        number = int(np.asarray(store.images[row])[0, 0, 0])
        expected = np.abs(1 + number / 10 - label[label > 0]).mean()
        assert image_scores(ours, "depth")[position] == pytest.approx(expected, rel=1e-5)


def test_score_with_its_name_and_unit() -> None:
    assert score_text(dense_task("segmentation", CLASSES), 0.31415) == "mIoU 31.4 %"
    assert score_text(dense_task("depth"), 0.75493) == "aErr 0.755 m"
    assert score_text(dense_task("normals"), 31.42) == "mErr 31.4°"


def test_tasks_that_two_runs_share(store: ImageStore) -> None:
    ours = predictor(store).measured
    fewer = only(ours, ["normals", "depth"])
    assert list(fewer.tasks) == ["normals", "depth"] and set(fewer.statistics) == {"normals", "depth"}
    assert [list(each.tasks) for each in shared_tasks(ours, fewer)] == [["depth", "normals"]] * 2


def test_pictures_on_a_page_are_small() -> None:
    large = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    shown = picture(address(large, photograph=True))
    assert shown.shape == (132, WIDTH, 3)
    np.testing.assert_array_equal(plain(large[:8, :12]), enlarged(large[:8, :12], WIDTH))
    assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", address(large))
