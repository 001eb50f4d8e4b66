import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.partial_labels import partial_labels, read_partial_labels, write_partial_labels
from isthmus.errors import DataError

NYU = ("segmentation", "depth", "normals")
FIVE = ("segmentation", "parts", "saliency", "normals", "edges")


def everything(count: int, tasks: int) -> np.ndarray:
    return np.ones((count, tasks), bool)


def some(count: int, tasks: int, seed: int, share: float = 0.6) -> np.ndarray:
    return np.random.default_rng(seed).random((count, tasks)) < share


def test_full_keeps_every_label_in_an_array_of_its_own() -> None:
    available = some(20, 3, 0)
    kept = partial_labels("full", NYU, available, seed=0)
    np.testing.assert_array_equal(kept, available)
    kept[:] = False
    assert available.any()


def test_one_label_of_nyuv2_gives_each_task_the_same_265_images_as_the_published_list() -> None:
    kept = partial_labels("one", NYU, everything(795, 3), seed=0)
    assert kept.sum(axis=0).tolist() == [265, 265, 265]
    assert (kept.sum(axis=1) == 1).all()


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 60), tasks=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_with_all_labels_the_totals_of_one_differ_by_at_most_one(count: int, tasks: int, seed: int) -> None:
    kept = partial_labels("one", [str(task) for task in range(tasks)], everything(count, tasks), seed=seed)
    totals = kept.sum(axis=0)
    assert (kept.sum(axis=1) == 1).all()
    assert totals.max() - totals.min() <= 1


def best_by_trying_all(available: np.ndarray, ratio: np.ndarray) -> float:
    """Smallest sum of squared distances from the exact proportions over all choices of one label per image."""
    rows = [np.flatnonzero(row) for row in available if row.any()]
    wanted = len(rows) * ratio / ratio.sum()
    totals = (np.bincount(choice, minlength=len(ratio)) for choice in itertools.product(*rows))
    return min(float(((total - wanted) ** 2).sum()) for total in totals)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 6),
    ratio=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    share=st.floats(0.2, 1),
    seed=st.integers(0, 10**6),
)
def test_totals_are_as_close_to_the_ratio_as_any_choice_could_make_them(
    count: int, ratio: list[int], share: float, seed: int
) -> None:
    available = some(count, len(ratio), seed, share)
    tasks = [str(task) for task in range(len(ratio))]
    kept = partial_labels("ratio", tasks, available, ratio=ratio, seed=seed)
    assert (kept <= available).all()
    np.testing.assert_array_equal(kept.sum(axis=1), available.any(axis=1))
    shares = np.array(ratio, float)
    wanted = available.any(axis=1).sum() * shares / shares.sum()
    found = float(((kept.sum(axis=0) - wanted) ** 2).sum())
    assert found == pytest.approx(best_by_trying_all(available, shares) if available.any() else 0, abs=1e-9)


@pytest.mark.parametrize(
    ("available", "ratio", "seed", "totals"),
    [
        (["1110", "0000", "0010", "1010", "0111", "1000"], (5, 9, 8, 9), 0, [1, 1, 2, 1]),
        (["0011", "0010", "1100", "0100", "1001", "1001", "0100"], (3, 7, 3, 5), 34, [1, 3, 1, 2]),
        (["1101", "1001", "1110", "0010", "0111"], (4, 6, 1, 2), 36, [1, 2, 1, 1]),
        # Here a second image must not be passed on.
        (["1010", "0110", "1100", "1011", "0110"], (7, 9, 7, 2), 122, [1, 2, 1, 1]),
    ],
)
def test_images_are_passed_on_where_choosing_one_by_one_is_not_enough(
    available: list[str], ratio: tuple[int, ...], seed: int, totals: list[int]
) -> None:
    table = np.array([[digit == "1" for digit in row] for row in available])
    kept = partial_labels("ratio", ("a", "b", "c", "d"), table, ratio=ratio, seed=seed)
    assert kept.sum(axis=0).tolist() == totals
    np.testing.assert_array_equal(kept.sum(axis=1), table.any(axis=1))


def test_nine_to_one_on_cityscapes_is_exact() -> None:
    kept = partial_labels("ratio", ("segmentation", "inverse_depth"), everything(2970, 2), ratio=(9, 1), seed=4)
    assert kept.sum(axis=0).tolist() == [2673, 297]
    kept = partial_labels("ratio", ("segmentation", "inverse_depth"), everything(2975, 2), ratio=(1, 9), seed=4)
    assert kept.sum(axis=0).tolist() in ([297, 2678], [298, 2677])


def test_a_share_of_zero_gets_only_what_nothing_else_can_take() -> None:
    available = everything(10, 2)
    available[3] = [False, True]
    kept = partial_labels("ratio", ("a", "b"), available, ratio=(1, 0), seed=0)
    assert np.flatnonzero(kept[:, 1]).tolist() == [3]


def test_a_task_that_few_images_have_gets_them_all_and_the_rest_stays_balanced() -> None:
    available = everything(100, 4)
    available[7:, 1] = False
    totals = partial_labels("one", ("a", "b", "c", "d"), available, seed=1).sum(axis=0)
    assert totals.tolist() == [31, 7, 31, 31]


def test_pascals_one_label_is_balanced_although_most_images_lack_parts() -> None:
    available = everything(4998, 5)
    available[1700:, 1] = False
    totals = partial_labels("one", FIVE, available, seed=0).sum(axis=0)
    assert sorted(totals.tolist()) == [999, 999, 1000, 1000, 1000]


def test_every_choice_of_one_is_equally_likely() -> None:
    counts: Counter[bytes] = Counter()
    for seed in range(3000):
        counts[partial_labels("one", NYU, everything(3, 3), seed=seed).tobytes()] += 1
    # Six permutations, 500 each expected; five standard deviations of a binomial are 102.
    assert len(counts) == 6
    assert all(abs(count - 500) < 102 for count in counts.values())


def test_random_follows_the_stated_distribution() -> None:
    kept = partial_labels("random", ("a", "b", "c", "d"), everything(12000, 4), seed=0)
    numbers = kept.sum(axis=1)
    assert numbers.min() == 1 and numbers.max() == 3
    for size in (1, 2, 3):
        rows = kept[numbers == size]
        assert abs(len(rows) - 4000) < 260
        subsets = Counter(map(tuple, rows.tolist()))
        expected = len(rows) / len(list(itertools.combinations(range(4), size)))
        assert len(subsets) == len(list(itertools.combinations(range(4), size)))
        assert all(abs(count - expected) < 5 * expected**0.5 for count in subsets.values())


def test_random_on_nyuv2_is_like_the_published_list() -> None:
    # Published: 405 images with one label, 390 with two, 392 / 408 / 385 labels of the tasks.
    kept = partial_labels("random", NYU, everything(795, 3), seed=0)
    assert abs((kept.sum(axis=1) == 1).sum() - 405) < 70
    assert (np.abs(kept.sum(axis=0) - [392, 408, 385]) < 70).all()


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 40), tasks=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_random_keeps_one_at_least_and_never_all_of_several(count: int, tasks: int, seed: int) -> None:
    available = some(count, tasks, seed)
    kept = partial_labels("random", [str(task) for task in range(tasks)], available, seed=seed)
    assert (kept <= available).all()
    for has, keeps in zip(available.sum(axis=1), kept.sum(axis=1)):
        assert min(has, 1) <= keeps <= max(has - 1, min(has, 1))


@pytest.mark.parametrize("setting", ["one", "random"])
def test_the_draw_depends_on_the_seed_alone(setting: Any) -> None:
    np.random.seed(0)
    first = partial_labels(setting, NYU, everything(50, 3), seed=3)
    np.random.seed(1)
    np.testing.assert_array_equal(partial_labels(setting, NYU, everything(50, 3), seed=3), first)
    assert not np.array_equal(partial_labels(setting, NYU, everything(50, 3), seed=4), first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"setting": "on"}, "setting: expected one of full, one, random, ratio, found 'on'; did you mean 'one'"),
        ({"available": np.ones((4, 2), bool)}, r"available: expected bool of shape \(n, 3\) .* found bool \(4, 2\)"),
        ({"available": np.ones((4, 3))}, "found float64"),
        ({"setting": "ratio"}, "ratio: expected one number per task for 'ratio'"),
        ({"ratio": (1, 1, 1)}, "ratio: expected none for 'one'"),
        ({"setting": "ratio", "ratio": (9, 1)}, r"ratio: expected 3 numbers .* found \[9, 1\]"),
        ({"setting": "ratio", "ratio": (1, -1, 1)}, "3 numbers"),
        ({"setting": "ratio", "ratio": (1, float("nan"), 1)}, "3 numbers"),
        ({"setting": "ratio", "ratio": (0, 0, 0)}, "not all 0"),
    ],
)
def test_arguments_that_do_not_fit_are_errors(arguments: dict[str, Any], message: str) -> None:
    given_arguments: dict[str, Any] = {"setting": "one", "tasks": NYU, "available": everything(4, 3), "seed": 0}
    with pytest.raises(DataError, match=message):
        partial_labels(**(given_arguments | arguments))


def test_what_was_drawn_comes_back_from_a_file(tmp_path: Path) -> None:
    names = [f"train/{row}" for row in range(30)]
    kept = partial_labels("random", NYU, everything(30, 3), seed=0)
    path = tmp_path / "labels.json"
    write_partial_labels(path, names, NYU, kept, note={"setting": "random"})
    np.testing.assert_array_equal(read_partial_labels(path, names, NYU), kept)
    np.testing.assert_array_equal(read_partial_labels(path, names[5:9], NYU[::-1], known=names), kept[5:9, ::-1])
    with pytest.raises(DataError, match="26 that it does not have"):
        read_partial_labels(path, names[5:9], NYU)
    with pytest.raises(DataError, match="expected no file to be there"):
        write_partial_labels(path, names, NYU, ~kept)
    write_partial_labels(path, names, NYU, ~kept, overwrite=True)
    np.testing.assert_array_equal(read_partial_labels(path, names, NYU), ~kept)


def test_published_files_are_told_by_their_suffix(tmp_path: Path) -> None:
    weights = torch.tensor([[1, 0, 0], [0, 1, 1]], dtype=torch.float32)
    torch.save({"labels_weights": weights}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    names = ["train/1", "train/0"]
    kept = read_partial_labels(tmp_path / "a.pth", names, ("normals", "segmentation", "depth"))
    assert kept.tolist() == [[True, False, True], [False, True, False]]
    with pytest.raises(DataError, match=r"a\.pth: tasks: expected segmentation, depth, normals or segmentation, inv"):
        read_partial_labels(tmp_path / "a.pth", names, ("segmentation", "edges"))
    with pytest.raises(DataError, match=r"labels_weights: expected a tensor of shape \(N, 2\)"):
        read_partial_labels(tmp_path / "a.pth", names, ("segmentation", "inverse_depth"))
    lists = {"semseg": ["x"], "human_parts": [], "sal": ["x"], "normals": [], "edge": ["y"]}
    np.save(tmp_path / "a.npy", lists, allow_pickle=True)
    assert read_partial_labels(tmp_path / "a.npy", ["y", "x"], FIVE).tolist() == [
        [False, False, False, False, True],
        [True, False, True, False, False],
    ]
    for name in ("a.txt", "a"):
        with pytest.raises(DataError, match=r"expected a \.json, \.pth or \.npy file"):
            read_partial_labels(tmp_path / name, names, NYU)
    with pytest.raises(DataError, match=r"expected a name that ends in \.json"):
        write_partial_labels(tmp_path / "b.txt", names, NYU, everything(2, 3))
