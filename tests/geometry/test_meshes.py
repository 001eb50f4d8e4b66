import numpy as np
import pytest

from isthmus.geometry.meshes import Mesh, box, rotation, surface_points, tube, turned


def test_a_box_has_its_volume_by_the_divergence_theorem_and_so_outward_normals() -> None:
    a, b, c = (box(2.0, 3.0, 0.5, 1.0, -4.0, 2.0).vertices[box(2.0, 3.0, 0.5).faces[:, i]] for i in range(3))
    assert np.einsum("fi,fi->", a, np.cross(b, c)) / 6 == pytest.approx(2.0 * 3.0 * 0.5)


def test_a_turned_profile_has_the_area_of_a_cylinder() -> None:
    mesh = turned([(0.5, 0.0), (0.5, 2.0)], segments=200)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(2 * np.pi * 0.5 * 2.0 + 2 * np.pi * 0.25, rel=1e-3)


@pytest.mark.parametrize("end", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -2, 3)])
def test_a_tube_keeps_its_radius_in_every_direction(end: tuple[float, float, float]) -> None:
    direction = np.array(end) / np.linalg.norm(end)
    ring = tube(np.array([[0, 0, 0], end]), 0.1, sides=8).vertices.reshape(4, 8, 3)[1]
    assert np.allclose(ring @ direction, 0)
    assert np.allclose(np.linalg.norm(ring, axis=1), 0.1)


def test_rotations_turn_counter_clockwise_about_each_axis() -> None:
    for axis in range(3):
        second, third = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
        assert np.allclose(rotation(axis, 90) @ second, third)
        assert np.allclose(rotation(axis, 90) @ np.eye(3)[axis], np.eye(3)[axis])


def test_points_fall_on_the_surface_in_proportion_to_area() -> None:
    points = surface_points(box(3.0, 1.0, 1.0), 20000, np.random.default_rng(0))
    on_ends = np.isclose(np.abs(points[:, 0]), 1.5, atol=1e-5).mean()
    assert points.dtype == np.float32
    assert on_ends == pytest.approx(2 / 14, abs=0.01)
    top = points[np.isclose(points[:, 2], 1.0, atol=1e-5)]
    quarters = np.histogram2d(top[:, 0], top[:, 1], bins=2)[0] / len(top)
    assert np.allclose(quarters, 0.25, atol=0.03), "points crowd in a part of one face"


def test_a_mesh_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="area"):
        surface_points(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), 10, np.random.default_rng(0))
