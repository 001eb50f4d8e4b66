import numpy as np
import pytest
import trimesh

from isthmus.data.simulators.depth_sensor import (
    IDEAL,
    Sensor,
    disturbed_depth,
    first_hits,
    first_hits_plain,
    pixel_rays,
    scan_mesh,
    standing_eyes,
    thinned,
    without_patches,
)
from isthmus.data.simulators.shapes import build_shape
from isthmus.errors import DataError
from isthmus.geometry.meshes import Mesh, box, join


def sphere(radius: float = 0.5, centre: tuple[float, float, float] = (0, 0, 0.5)) -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Mesh(np.array(ball.vertices) + centre, np.array(ball.faces))


def directions(count: int, rng: np.random.Generator) -> np.ndarray:
    rays = rng.normal(size=(count, 3))
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


# Ray casting


def test_rays_hit_a_sphere_where_geometry_says() -> None:
    eye = np.array([3.0, 0.0, 0.5])
    target = directions(500, np.random.default_rng(0)) * 0.3 + [0, 0, 0.5]
    rays = (target - eye) / np.linalg.norm(target - eye, axis=1, keepdims=True)
    distance, face = first_hits(sphere(), eye, rays)
    to_centre = np.array([0, 0, 0.5]) - eye
    along = rays @ to_centre
    expected = along - np.sqrt(along**2 - (to_centre @ to_centre - 0.25))
    assert (face >= 0).all()
    assert np.abs(distance - expected).max() < 0.01


def test_both_ray_casters_find_the_same_first_hits() -> None:
    mesh = join(build_shape("chair", np.random.default_rng(3), True))
    eye = np.array([1.5, -1.0, 1.5])
    rays = np.array([0, 0, 0.4]) + directions(1500, np.random.default_rng(1)) * 0.5 - eye
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    fast, slow = first_hits(mesh, eye, rays), first_hits_plain(mesh, eye, rays)
    agree = np.isclose(fast[0], slow[0], atol=1e-4) | (np.isinf(fast[0]) & np.isinf(slow[0]))
    assert np.isfinite(slow[0]).mean() > 0.2
    assert agree.mean() > 0.998, "only rays that graze an edge may differ"


def test_a_ray_into_the_void_hits_nothing() -> None:
    for cast in (first_hits, first_hits_plain):
        distance, face = cast(sphere(), np.array([0, 0, 5.0]), np.array([[0.0, 0.0, 1.0]]))
        assert np.isinf(distance).all()
        assert (face == -1).all()


# Scans


def test_every_point_of_a_scanned_sphere_faces_the_camera() -> None:
    eyes = np.array([[2.5, 0.0, 1.6]])
    cloud = scan_mesh(sphere(), np.random.default_rng(0), eyes=eyes, points=2000)
    normal = cloud - [0, 0, 0.5]
    assert len(cloud) == 2000
    assert np.abs(np.linalg.norm(normal, axis=1) - 0.5).max() < 0.01
    assert np.einsum("ni,ni->n", normal, eyes[0] - cloud).min() > -0.02
    assert normal[:, 0].max() > 0.4, "the near side must be seen"


def test_a_second_viewpoint_sees_what_the_first_cannot() -> None:
    both = scan_mesh(sphere(), np.random.default_rng(0), eyes=np.array([[3.0, 0, 0.5], [-3.0, 0, 0.5]]))
    assert both[:, 0].min() < -0.4
    assert both[:, 0].max() > 0.4


def test_a_box_behind_another_is_not_seen() -> None:
    front, behind = box(1.0, 0.2, 1.0, y=-1.0), box(0.5, 0.2, 0.5, y=0.0, z=0.1)
    scene = join([front, behind])
    cloud = scan_mesh(scene, np.random.default_rng(0), eyes=np.array([[0.0, -3.0, 0.5]]))
    assert len(cloud) > 500
    assert cloud[:, 1].max() < -0.85


def test_the_crop_keeps_to_the_loosened_box_and_the_share_of_surroundings() -> None:
    scene = join([sphere(), box(6, 6, 0.05, z=-0.05)])
    faces = len(sphere().faces)
    for seed in range(5):
        cloud = scan_mesh(
            scene, np.random.default_rng(seed), object_faces=faces, loosen=0.1, surroundings=(0.1, 0.25), points=1500
        )
        floor = cloud[:, 2] < 1e-3
        assert 0.05 < floor.mean() <= 0.26
        assert np.abs(cloud[:, :2]).max() <= 0.6 + 1e-5
    alone = scan_mesh(scene, np.random.default_rng(0), object_faces=faces, loosen=0.1, surroundings=(0.0, 0.0))
    assert np.abs(np.linalg.norm(alone - [0, 0, 0.5], axis=1) - 0.5).max() < 0.01


@pytest.mark.parametrize(("field", "value"), [("object_faces", 0), ("object_faces", 99), ("points", 0), ("rays", 0)])
def test_a_scan_refuses_senseless_arguments(field: str, value: int) -> None:
    with pytest.raises(DataError, match=f"{field}.*expected"):
        scan_mesh(box(1, 1, 1), np.random.default_rng(0), **{field: value})


def test_people_stand_outside_the_box_with_their_eyes_at_human_height() -> None:
    low, high = np.array([-1.0, -0.5, 0.0]), np.array([1.0, 0.5, 0.8])
    for seed in range(50):
        eyes = standing_eyes(low, high, 3, np.random.default_rng(seed), floor=-0.74, spread=80.0)
        assert ((eyes[:, 2] >= 1.2 - 0.74) & (eyes[:, 2] <= 1.8 - 0.74)).all()
        assert (np.linalg.norm(eyes[:, :2], axis=1) > np.linalg.norm([1.0, 0.5])).all()
        assert eyes[0, 1] < 0, "the first view is from the front"


def test_the_raster_frames_the_whole_box() -> None:
    low, high, eye = np.array([-0.3, -0.2, 0.0]), np.array([0.3, 0.2, 0.9]), np.array([1.0, -2.0, 1.5])
    rays, axis = pixel_rays(eye, low, high, 2500, np.random.default_rng(0))
    assert 2000 < rays.shape[0] * rays.shape[1] < 3000
    assert np.allclose(np.linalg.norm(rays, axis=2), 1)
    corners = trimesh.creation.box(bounds=[low, high]).vertices - eye
    flat = (rays / (rays @ axis)[..., None]).reshape(-1, 3)
    projected = corners / (corners @ axis)[:, None]
    pitch = np.linalg.norm(rays[0, 1] - rays[0, 0]) * 2
    assert (projected.min(axis=0) >= flat.min(axis=0) - pitch).all()
    assert (projected.max(axis=0) <= flat.max(axis=0) + pitch).all()


# Errors of the camera


def test_an_ideal_camera_changes_no_depth() -> None:
    depth = np.random.default_rng(0).uniform(1, 3, size=(20, 30))
    depth[3, 4] = np.inf
    assert np.array_equal(disturbed_depth(depth, IDEAL, np.random.default_rng(1)), depth)


@pytest.mark.parametrize("distance", [1.0, 2.0, 3.0])
def test_noise_grows_with_distance_as_measured_by_nguyen(distance: float) -> None:
    sensor = Sensor(noise=1.0, steps=0.0, flying=0.0)
    measured = disturbed_depth(np.full((300, 300), distance), sensor, np.random.default_rng(0))
    assert measured.std() == pytest.approx(0.0012 + 0.0019 * (distance - 0.4) ** 2, rel=0.02)
    assert measured.mean() == pytest.approx(distance, abs=1e-4)


@pytest.mark.parametrize(("distance", "step"), [(1.0, 0.0029), (3.0, 0.026)])
def test_depth_comes_in_the_steps_of_a_kinect(distance: float, step: float) -> None:
    sensor = Sensor(noise=0.0, steps=1.0, flying=0.0)
    depth = np.linspace(distance * 0.95, distance * 1.05, 20000)[None]
    levels = np.unique(disturbed_depth(depth, sensor, np.random.default_rng(0)))
    middle = np.searchsorted(levels, distance)
    assert levels[middle] - levels[middle - 1] == pytest.approx(step, rel=0.06)


def test_flying_points_lie_between_the_two_sides_of_an_edge() -> None:
    depth = np.full((40, 40), 1.0)
    depth[:, 20:] = 2.0
    measured = disturbed_depth(depth, Sensor(noise=0, steps=0, flying=1.0), np.random.default_rng(0))
    changed = ~np.isin(measured, (1.0, 2.0))
    assert changed.any()
    assert set(np.flatnonzero(changed.any(axis=0))) <= {0, 19, 20, 39}
    assert ((measured >= 1.0) & (measured <= 2.0)).all()


def test_pixels_are_lost_at_random_and_at_grazing_angles() -> None:
    eyes = np.array([[2.5, 0.0, 0.5]])
    whole = scan_mesh(sphere(), np.random.default_rng(0), eyes=eyes, points=100000, rays=4000)
    holed = scan_mesh(
        sphere(),
        np.random.default_rng(0),
        eyes=eyes,
        points=100000,
        rays=4000,
        sensor=Sensor(noise=0, steps=0, flying=0, dropout=0.3, grazing=0.5, registration=0),
    )
    towards = (eyes[0] - holed) / np.linalg.norm(eyes[0] - holed, axis=1, keepdims=True)
    incidence = np.einsum("ni,ni->n", (holed - [0, 0, 0.5]) / 0.5, towards)
    assert incidence.min() > 0.45
    # A disc of incidence above 0.5 holds 1 - 0.25 of the visible disc's pixels, less the dropout.
    assert len(holed) / len(whole) == pytest.approx(0.7 * 0.75, abs=0.05)


def test_patches_and_thinning_take_points_but_never_more_than_half_in_patches() -> None:
    cloud = np.random.default_rng(0).normal(size=(2000, 3))
    left = [len(without_patches(cloud, np.random.default_rng(seed))) for seed in range(40)]
    assert min(left) >= 1000
    assert len(set(left)) > 5
    thin = thinned(cloud, np.random.default_rng(1), strength=3.0)
    assert 0 < len(thin) < 2000
    assert set(map(tuple, thin)) <= set(map(tuple, cloud))
    assert len(thinned(np.zeros((0, 3)), np.random.default_rng(0))) == 0
    assert len(without_patches(np.zeros((0, 3)), np.random.default_rng(0))) == 0
