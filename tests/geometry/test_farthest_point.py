import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.geometry import farthest_point
from isthmus.geometry.farthest_point import farthest_point_order


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def slow_order(points: np.ndarray, count: int, start: int) -> list[int]:
    taken = [start]
    while len(taken) < count:
        to_taken = np.linalg.norm(points[:, None] - points[taken][None], axis=-1).min(axis=1)
        taken.append(int(to_taken.argmax()))
    return taken


def test_every_step_takes_the_farthest_point():
    points = torch.randn(20, 30, 3, dtype=torch.float64)  # more clouds than fit one block
    order = farthest_point_order(points, 12)
    for cloud, found in zip(points.numpy(), order.tolist()):
        start = int(np.linalg.norm(cloud - cloud.mean(0), axis=1).argmax())
        assert found == slow_order(cloud, 12, start)


def test_given_start_comes_first():
    points, start = torch.randn(3, 25, 3, dtype=torch.float64), torch.tensor([4, 0, 24])
    order = farthest_point_order(points, 8, start)
    for cloud, found, first in zip(points.numpy(), order.tolist(), start.tolist()):
        assert found == slow_order(cloud, 8, first)


def test_the_path_of_other_devices_gives_the_same_order():
    points = torch.randn(5, 40, 3)
    start = torch.arange(5)
    expected = farthest_point_order(points, 40, start)
    assert torch.equal(farthest_point._order_on_device(points, 40, start), expected)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 40), seed=st.integers(0, 10**6), data=st.data())
def test_a_shorter_order_is_a_prefix_and_a_whole_one_takes_every_point_once(size, seed, data):
    points = torch.randn(1, size, 3, generator=torch.Generator().manual_seed(seed))
    whole = farthest_point_order(points, size)[0].tolist()
    assert sorted(whole) == list(range(size))
    count = data.draw(st.integers(1, size))
    assert farthest_point_order(points, count)[0].tolist() == whole[:count]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_order_follows_a_permutation_and_ignores_a_rotation(seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(1, 30, 3, dtype=torch.float64, generator=generator)
    order = farthest_point_order(points, 10)[0]
    shuffle = torch.randperm(30, generator=generator)
    assert torch.equal(shuffle[farthest_point_order(points[:, shuffle], 10)[0]], order)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator)).Q
    assert torch.equal(farthest_point_order(points @ rotation, 10)[0], order)


def test_repeated_points_come_last():
    distinct = torch.randn(1, 10, 3)
    order = farthest_point_order(torch.cat([distinct, distinct], dim=1), 10)
    assert sorted(i % 10 for i in order[0].tolist()) == list(range(10))


def test_arguments_that_do_not_fit_are_named():
    points = torch.zeros(2, 5, 3)
    with pytest.raises(ValueError, match=r"between 1 and the 5 points .* found 6"):
        farthest_point_order(points, 6)
    with pytest.raises(ValueError, match=r"start must be int64 \(2,\)"):
        farthest_point_order(points, 2, torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"start must lie in \[0, 5\), found 0 to 5"):
        farthest_point_order(points, 2, torch.tensor([0, 5]))
    with pytest.raises(ValueError, match=r"points must be \(B, N, 3\)"):
        farthest_point_order(torch.zeros(5, 3), 2)
