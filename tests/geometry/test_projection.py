import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from isthmus.geometry.projection import (
    camera_projection,
    distort,
    in_box,
    inside,
    inverse_rigid,
    move,
    project,
    quaternion_matrix,
    rigid,
    undistortion_map,
    visible,
)

K = np.array([[500.0, 0, 320], [0, 480, 200], [0, 0, 1]])
FORWARD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


@given(st.lists(st.floats(-10, 10), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 1e-3))
def test_a_quaternion_gives_scipys_rotation(quaternion: list[float]) -> None:
    expected = Rotation.from_quat(quaternion, scalar_first=True).as_matrix()
    np.testing.assert_allclose(quaternion_matrix(quaternion), expected, atol=1e-12)
    np.testing.assert_allclose(quaternion_matrix(-np.array(quaternion)), expected, atol=1e-12)


@pytest.mark.parametrize("bad", [[0, 0, 0, 0], [1, 0, 0], [1, 0, 0, np.nan], [[1, 0, 0, 0]]])
def test_what_is_no_quaternion_is_an_error(bad: list) -> None:
    with pytest.raises(ValueError, match="a quaternion is four finite numbers"):
        quaternion_matrix(bad)


def test_a_motion_and_back() -> None:
    g = np.random.default_rng(0)
    motion = rigid(g.normal(size=4), g.normal(size=3))
    np.testing.assert_allclose(motion @ inverse_rigid(motion), np.eye(4), atol=1e-12)
    points = g.normal(size=(20, 3)).astype(np.float32)
    for point, moved in zip(points, move(points, motion)):
        np.testing.assert_allclose(moved, (motion @ np.append(point.astype(float), 1))[:3], atol=1e-12)
    np.testing.assert_array_equal(rigid(motion[:3, :3], motion[:3, 3]), motion)
    with pytest.raises(ValueError, match="three finite numbers"):
        rigid([1, 0, 0, 0], [0, 0, np.inf])


def test_points_lie_where_a_hand_calculation_puts_them() -> None:
    projection = camera_projection(K, FORWARD)
    # Ten metres ahead, two to the left, one down.
    pixels, depth = project(np.array([[10.0, 2, -1], [-10, 2, -1], [0, 1, 1]]), projection)
    np.testing.assert_allclose(pixels[0], [200 + 480 * 1 / 10, 320 - 500 * 2 / 10])
    assert depth.tolist() == [10, -10, 0]
    assert np.isnan(pixels[1:]).all()


def test_three_by_four_intrinsics_keep_their_last_column() -> None:
    p2 = np.concatenate([K, [[45.0], [0.2], [0.003]]], axis=1)
    point = np.array([10.0, 2, -1, 1])
    np.testing.assert_allclose(camera_projection(p2, FORWARD) @ point, p2 @ FORWARD @ point)
    with pytest.raises(ValueError, match=r"found \(2, 2\)"):
        camera_projection(np.eye(2), FORWARD)


def test_visible_points_are_before_the_camera_and_in_the_image() -> None:
    g = np.random.default_rng(1)
    points = g.uniform(-20, 20, (500, 3)).astype(np.float32)
    projection = camera_projection(K, FORWARD)
    kept, pixels = visible(points, projection, (400, 640))
    assert 10 < kept.sum() < 400 and pixels.dtype == np.float32
    found = iter(pixels)
    for point, here in zip(points.astype(float), kept):
        u, v, w = projection @ np.append(point, 1)
        expected = w > 0 and 0 <= v / w < 400 and 0 <= u / w < 640
        assert here == expected
        if here:
            np.testing.assert_allclose(next(found), [v / w, u / w], rtol=1e-5, atol=1e-4)


def test_rounding_to_float32_puts_no_point_on_the_far_border() -> None:
    projection = camera_projection(np.eye(3), np.eye(4))
    points = np.array([[1600 - 1e-9, 5, 1], [1599.5, 5, 1], [0, 0, 1]])
    kept, pixels = visible(points, projection, (900, 1600))
    assert kept.tolist() == [False, True, True]
    assert inside(pixels, (900, 1600)).all()


def test_no_points_and_none_visible() -> None:
    projection = camera_projection(K, FORWARD)
    for points in (np.zeros((0, 3), np.float32), np.array([[-1.0, 0, 0]])):
        kept, pixels = visible(points, projection, (400, 640))
        assert kept.shape == (len(points),) and not kept.any() and pixels.shape == (0, 2)


def test_distortion_follows_its_formula_and_vanishes_without_coefficients() -> None:
    x, y = 0.3, -0.2
    k1, k2, p1, p2, k3 = -0.13, 0.02, 0.002, -0.001, 0.4
    r2 = x**2 + y**2
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    expected = [
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    ]
    np.testing.assert_allclose(distort(np.array([x, y]), (k1, k2, p1, p2, k3)), expected)
    np.testing.assert_array_equal(distort(np.array([[x, y]]), (0, 0, 0, 0)), [[x, y]])
    with pytest.raises(ValueError, match="found 3"):
        distort(np.zeros((1, 2)), (1, 2, 3))


def test_the_undistortion_map_goes_from_the_straight_to_the_bent_image() -> None:
    coefficients = (-0.2, 0.05, 0.001, 0.002, 0.0)
    wanted = K + np.array([[30.0, 0, -5], [0, 20, 4], [0, 0, 0]])
    places = undistortion_map((30, 40), K, coefficients, wanted)
    for row, column in itertools.product((0, 7, 29), (0, 13, 39)):
        ray = np.linalg.solve(wanted, [column, row, 1])
        bent = distort(ray[:2] / ray[2], coefficients)
        u, v, _ = K @ [*bent, 1]
        np.testing.assert_allclose(places[:, row, column], [v, u])
    same = undistortion_map((30, 40), K, (0, 0, 0, 0), K)
    np.testing.assert_allclose(same, np.mgrid[:30, :40], atol=1e-9)


def test_a_box_holds_the_points_between_its_faces() -> None:
    g = np.random.default_rng(2)
    motion = rigid(g.normal(size=4), [3, -2, 1])
    own = g.uniform(-3, 3, (400, 3))
    expected = (np.abs(own) <= [2, 1, 0.5]).all(axis=1)
    assert 5 < expected.sum() < 100
    np.testing.assert_array_equal(in_box(move(own, motion), motion, [4, 2, 1]), expected)
    assert in_box(np.array([[2.0, 1, 0.5]]), np.eye(4), [4, 2, 1]).all()
