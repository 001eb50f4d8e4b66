import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from isthmus.geometry.transforms import rotate_z, unit_sphere


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-6, 1.0, 1e6]), shift=st.floats(-1e3, 1e3))
def test_unit_sphere_ignores_scale_and_position(seed, scale, shift):
    points = np.random.default_rng(seed).standard_normal((20, 3))
    found = unit_sphere(points * scale + shift * scale)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1).max(), 1, rtol=1e-6)
    np.testing.assert_allclose(found, unit_sphere(points), atol=1e-6)


def test_a_cloud_without_extent_is_centred_and_not_scaled():
    assert unit_sphere(np.full((4, 3), 7.0)).tolist() == [[0.0, 0.0, 0.0]] * 4


def test_unit_sphere_leaves_its_argument_alone():
    points = np.arange(6.0).reshape(2, 3)
    unit_sphere(points)
    assert points.tolist() == np.arange(6.0).reshape(2, 3).tolist()


@pytest.mark.parametrize("shape", [(0, 3), (5, 2), (5,)])
def test_unit_sphere_refuses_what_is_no_cloud(shape):
    with pytest.raises(ValueError, match=r"points must be \(n, 3\)"):
        unit_sphere(np.zeros(shape))


def test_rotate_z_equals_scipy():
    points, angle = torch.randn(4, 10, 3, dtype=torch.float64), torch.tensor([0.0, 0.3, -2.0, 7.0]).double()
    for cloud, turned, radians in zip(points, rotate_z(points, angle), angle.tolist()):
        expected = Rotation.from_euler("z", radians).apply(cloud.numpy())
        np.testing.assert_allclose(turned.numpy(), expected, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(first=st.floats(-10, 10), second=st.floats(-10, 10))
def test_two_turns_add_up(first, second):
    points = torch.randn(1, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, two = torch.tensor([first]).double(), torch.tensor([second]).double()
    torch.testing.assert_close(rotate_z(rotate_z(points, one), two), rotate_z(points, one + two))
    torch.testing.assert_close(rotate_z(points, one + 2 * math.pi), rotate_z(points, one))


def test_rotate_z_is_differentiable_in_points_and_angle():
    points = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    angle = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotate_z, (points, angle))


def test_rotate_z_needs_an_angle_for_each_cloud():
    with pytest.raises(ValueError, match=r"angle must be \(2,\)"):
        rotate_z(torch.zeros(2, 5, 3), torch.zeros(3))
