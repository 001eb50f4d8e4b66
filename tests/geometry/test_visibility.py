import numpy as np
import pytest

from isthmus.errors import DataError
from isthmus.geometry.visibility import hidden_point_removal


def directions(count: int, rng: np.random.Generator) -> np.ndarray:
    rays = rng.normal(size=(count, 3))
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def test_hidden_point_removal_keeps_the_front_of_a_sphere() -> None:
    points = directions(2000, np.random.default_rng(0))
    eye = np.array([4.0, 0.0, 0.0])
    visible = hidden_point_removal(points, eye)
    kept = np.zeros(len(points), dtype=bool)
    kept[visible] = True
    # From 4 radii away the horizon of a unit sphere lies at x = 1 / 4.
    assert kept[points[:, 0] > 0.25].mean() > 0.98
    assert not kept[points[:, 0] < 0.0].any()
    assert kept[points[:, 0] < 0.25].mean() < 0.1


def test_hidden_point_removal_hides_a_small_ball_behind_a_dense_wall() -> None:
    rng = np.random.default_rng(0)
    wall = np.stack([np.zeros(3000), rng.uniform(-1, 1, 3000), rng.uniform(-1, 1, 3000)], axis=1)
    ball = directions(200, rng) * 0.2 + [-1.0, 0, 0]
    visible = hidden_point_removal(np.concatenate([wall, ball]), np.array([3.0, 0, 0]), exponent=2.0)
    assert (visible >= 3000).sum() <= 5
    assert (visible < 3000).sum() > 2500


def test_hidden_point_removal_refuses_what_has_no_hull() -> None:
    with pytest.raises(DataError, match="convex hull"):
        hidden_point_removal(np.zeros((3, 3)), np.array([1.0, 0, 0]))
