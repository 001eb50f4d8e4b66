from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.augment import Augment
from isthmus.data.order import Order
from isthmus.data.randomness import Progress, shuffled
from isthmus.data.stream import Stream


def visited(length: int, count: int, seed: int, purpose: str) -> np.ndarray:
    """The first ``count`` samples: one permutation after the other."""
    epochs = range(-(-count // length))
    return np.concatenate([shuffled(length, seed=seed, epoch=e, purpose=purpose) for e in epochs])[:count]


@given(length=st.integers(1, 13), size=st.integers(1, 9), world=st.integers(1, 3), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_global_batches_are_one_permutation_after_the_other_and_ranks_partition_them(
    length: int, size: int, world: int, seed: int
) -> None:
    order, steps = Order(length, "source"), 6
    found = [order.at(t, size, seed, rank=rank, world=world) for t in range(steps) for rank in range(world)]
    assert all(len(each) == size for each in found)
    assert np.array_equal(np.concatenate(found), visited(length, steps * size * world, seed, "source"))


def test_every_sample_comes_once_per_epoch_in_another_order_each_time() -> None:
    order = Order(10, "source")
    epochs = np.concatenate([order.at(t, 4, 0) for t in range(10)]).reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    expected = Order(7, "source").at(5, 4, 1).tolist()
    order = Order(7, "source")
    for position, seed in ((9, 1), (0, 2), (5, 2), (4, 1)):
        order.at(position, 4, seed)
    assert order.at(5, 4, 1).tolist() == expected
    assert Order(7, "target").at(5, 4, 1).tolist() != expected and order.at(5, 4, 2).tolist() != expected


def test_streams_of_clouds_go_by_it() -> None:
    """Point clouds are visited as they were before images had the same order."""
    rows = np.array([3, 5, 6, 9, 11, 12, 20])
    points = np.arange(30 * 4 * 3, dtype=np.float32).reshape(30, 4, 3)
    store = SimpleNamespace(path=Path("store"), size=4, points=points)
    stream = Stream("target", store, rows, 3, 4, Augment(rotate=False, jitter=0.0))  # type: ignore[arg-type]
    ids = [stream.batch(Progress(8, 1, t, 9), t, rank=rank, world=2).sample_id for t in range(4) for rank in (0, 1)]
    assert torch.cat(ids).tolist() == rows[visited(7, 24, 8, "target")].tolist()
