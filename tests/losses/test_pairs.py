import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.losses.pairs import cross_task_pairs, pair_code


def by_hand(present: list[list[bool]]) -> dict[tuple[int, int, int], int]:
    """(image, source, target) to |U_n|, in three loops."""
    found = {}
    for n, labels in enumerate(present):
        everything = all(labels)
        sources = [s for s, has in enumerate(labels) if everything or not has]
        for s in sources:
            for t, has in enumerate(labels):
                if has and s != t:
                    found[n, s, t] = len(sources)
    return found


def compared(present: list[list[bool]]) -> dict[tuple[int, int, int], int]:
    pairs = cross_task_pairs(torch.tensor(present, dtype=torch.bool).reshape(len(present), -1))
    keys = list(zip(pairs.sample.tolist(), pairs.source.tolist(), pairs.target.tolist()))
    assert len(set(keys)) == len(keys) == len(pairs), "a pair comes twice"
    return dict(zip(keys, pairs.sources.tolist()))


tables = st.integers(2, 5).flatmap(
    lambda tasks: st.lists(st.lists(st.booleans(), min_size=tasks, max_size=tasks), min_size=1, max_size=6)
)


@given(tables)
@settings(max_examples=200, deadline=None)
def test_pairs_are_those_of_three_loops(present: list[list[bool]]) -> None:
    assert compared(present) == by_hand(present)


def test_every_unlabelled_task_is_compared_with_every_labelled_one() -> None:
    assert compared([[True, False, True, False]]) == {(0, 1, 0): 2, (0, 1, 2): 2, (0, 3, 0): 2, (0, 3, 2): 2}


def test_an_image_with_all_labels_compares_all_ordered_pairs() -> None:
    assert compared([[True, True, True]]) == {(0, s, t): 3 for s in range(3) for t in range(3) if s != t}


def test_an_image_without_any_label_has_no_pair() -> None:
    assert compared([[False, False, False], [True, False, False]]) == {(1, 1, 0): 2, (1, 2, 0): 2}
    assert not compared([[False, False], [False, False]])


def test_a_single_task_has_no_pair() -> None:
    assert not compared([[True], [False]])


def test_codes_number_the_entries_of_a_beside_its_diagonal_row_by_row() -> None:
    for tasks in range(2, 8):
        ordered = [(s, t) for s in range(tasks) for t in range(tasks) if s != t]
        first, second = torch.tensor(ordered).T
        assert pair_code(first, second, tasks).tolist() == list(range(tasks * (tasks - 1)))
        assert (pair_code(first, second, tasks) != pair_code(second, first, tasks)).all()  # A is not symmetric
