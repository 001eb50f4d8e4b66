import numpy as np
import pytest

from isthmus.data.simulators import rays
from isthmus.data.simulators.render import (
    Camera,
    Lamp,
    Lighting,
    Piece,
    Scene,
    Sun,
    automatic_exposure,
    borders,
    developed,
    looking,
    placed,
)
from isthmus.data.simulators.textures import PATTERNS, Paint, smooth_noise, surface_colours
from isthmus.geometry.meshes import Mesh, ball, box, rotated

GREY = Paint((0.5, 0.5, 0.5), mottle=0.0)
DARK = Lighting(sky=(0, 0, 0), ground=(0, 0, 0))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def wall(y: float, half: float = 50.0) -> Mesh:
    return Mesh(
        np.array([[-half, y, -half], [half, y, -half], [half, y, half], [-half, y, half]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
    )


def cluttered(rng: np.random.Generator) -> list[Piece]:
    pieces = [Piece(box(20, 20, 0.1, z=-0.1), 0, GREY), Piece(wall(6), 1, GREY, instance=1)]
    for i in range(6):
        x, y = rng.uniform(-2, 2), rng.uniform(1, 5)
        solid = box(0.6, 0.5, 0.8) if i % 2 else ball(0.7, 0.7, 0.7)
        pieces.append(placed(Piece(solid, 2, GREY, instance=i + 2), rng.uniform(0, 360), (x, y, 0.0)))
    return pieces


@pytest.mark.parametrize("plain", [False, True])
def test_rays_hit_a_plane_where_algebra_says(plain: bool, rng: np.random.Generator) -> None:
    triangles = wall(2.0).vertices[wall(2.0).faces]
    origins, directions = rng.uniform(-1, 1, (200, 3)), rng.normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    caster = rays.Rays(triangles, plain)
    distance, face = caster.first(origins, directions)
    with np.errstate(divide="ignore"):
        expected = (2.0 - origins[:, 1]) / directions[:, 1]
    hit = (expected > 0) & (np.abs(origins + expected[:, None] * directions)[:, [0, 2]] < 50).all(axis=1)
    assert hit.any() and not hit.all()
    np.testing.assert_allclose(distance[hit], expected[hit], rtol=1e-4)
    assert (face[hit] >= 0).all() and (face[~hit] == -1).all() and np.isinf(distance[~hit]).all()
    reach = np.where(hit, expected, 1.0) * np.where(np.arange(200) % 2, 1.01, 0.99)
    np.testing.assert_array_equal(caster.blocked(origins, directions, reach), hit & (np.arange(200) % 2 == 1))


def test_embree_and_numpy_see_the_same_scene(rng: np.random.Generator) -> None:
    if rays.EmbreeScene is None:
        pytest.skip("embreex is not installed on this machine")
    pieces = cluttered(rng)
    camera = looking((0, -2, 1.5), (0, 3, 0.5), 60, (24, 32))
    one, other = Scene(pieces).layers(camera), Scene(pieces, plain=True).layers(camera)
    assert (one.piece == other.piece).mean() > 0.995
    same = (one.piece == other.piece) & (one.piece >= 0)
    np.testing.assert_allclose(one.depth[same], other.depth[same], rtol=1e-4)


def test_a_wall_that_faces_the_camera_has_one_depth_and_normals_towards_it() -> None:
    layers = Scene([Piece(wall(3.0), 0, GREY)]).layers(looking((0, 0, 1), (0, 3, 1), 70, (32, 48)))
    np.testing.assert_allclose(layers.depth, 3.0, rtol=1e-5)
    np.testing.assert_allclose(layers.normals, np.broadcast_to([0, 0, -1.0], (32, 48, 3)), atol=1e-12)


def test_depth_of_the_floor_follows_from_height_and_row() -> None:
    camera = looking((0, 0, 1.5), (0, 5, 1.5), 60, (40, 40))
    layers = Scene([Piece(box(500, 500, 1, z=-1), 0, GREY)]).layers(camera)
    below = np.arange(20, 40) + 0.5 - 20
    np.testing.assert_allclose(layers.depth[20:, 7], 1.5 * camera.focal / below, rtol=1e-4)
    np.testing.assert_allclose(layers.normals[20:], np.broadcast_to([0, -1.0, 0], (20, 40, 3)), atol=1e-12)
    assert (layers.piece[:20] == -1).all() and np.isinf(layers.depth[:20]).all() and not layers.normals[:20].any()


@pytest.mark.parametrize("roll", [0.0, 10.0])
def test_normals_are_those_of_the_back_projected_points(roll: float, rng: np.random.Generator) -> None:
    camera = looking((0.3, -2, 1.7), (0, 3, 0.4), 65, (72, 96), roll)
    layers = Scene(cluttered(rng)).layers(camera)
    rows, columns = np.mgrid[:72, :96] + 0.5
    seen = np.stack([(columns - 48) / camera.focal, (rows - 36) / camera.focal, np.ones((72, 96))], axis=2)
    points = seen * np.where(np.isfinite(layers.depth), layers.depth, 0)[..., None]
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    found = np.cross(down, across)
    found /= np.maximum(np.linalg.norm(found, axis=2, keepdims=True), 1e-12)
    own = layers.normals
    flat = np.ones((70, 94), dtype=bool)
    for part in (own[:-2, 1:-1], own[2:, 1:-1], own[1:-1, :-2], own[1:-1, 2:]):
        flat &= (np.abs(part - own[1:-1, 1:-1]) < 1e-9).all(axis=2)
    for piece in (layers.piece[:-2, 1:-1], layers.piece[2:, 1:-1], layers.piece[1:-1, :-2], layers.piece[1:-1, 2:]):
        flat &= (piece == layers.piece[1:-1, 1:-1]) & (piece >= 0)
    assert flat.mean() > 0.5
    agreement = (found * own[1:-1, 1:-1]).sum(axis=2)[flat]
    # A neighbour may lie on a parallel face of the same thing; that is rare.
    assert np.quantile(agreement, 0.005) > 0.999
    np.testing.assert_allclose(np.linalg.norm(own[layers.piece >= 0], axis=1), 1, atol=1e-9)
    assert ((own * seen).sum(axis=2)[layers.piece >= 0] < 0).all()


def test_a_smaller_picture_of_the_same_view_is_as_wide() -> None:
    camera = looking((0, 0, 1), (1, 2, 0.5), 62, (96, 128))
    small = camera.scaled((24, 32))
    np.testing.assert_allclose(
        camera.rays(np.array([0.0]), np.array([0.0])), small.rays(np.array([0.0]), np.array([0.0])), atol=1e-12
    )


def test_the_camera_is_a_right_handed_frame_with_y_down() -> None:
    camera = looking((1, 2, 3), (4, -2, 2.5), 60, (10, 10))
    np.testing.assert_allclose(camera.turn @ camera.turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.turn) == pytest.approx(1)
    assert camera.turn[1, 2] < -0.9
    assert camera.turn[0, 2] == pytest.approx(0)


def shaded(pieces: list[Piece], light: Lighting, camera: Camera, seed: int = 0) -> np.ndarray:
    scene = Scene(pieces)
    return scene.picture(camera, scene.layers(camera), light, np.random.default_rng(seed))


def test_sunlight_follows_the_cosine_and_stops_at_what_stands_in_its_way() -> None:
    camera = looking((0, -4, 3), (0, 0, 0), 50, (48, 48))
    angle = np.radians(60)
    light = Lighting(
        sun=Sun((float(np.sin(angle)), 0.0, float(np.cos(angle))), (1, 1, 1)), sky=(0, 0, 0), ground=(0, 0, 0)
    )
    floor = Piece(box(20, 20, 1, z=-1), 0, GREY)
    np.testing.assert_allclose(shaded([floor], light, camera), 0.5 * 0.5, rtol=1e-4)
    roof = Piece(box(30, 30, 0.1, z=5), 0, GREY)
    assert not shaded([floor, roof], light, camera).any()
    np.testing.assert_allclose(shaded([floor, roof._replace(shadow=False)], light, camera), 0.25, rtol=1e-4)


def test_a_lamp_fades_with_the_square_of_its_distance() -> None:
    camera = looking((0, -3, 1), (0, 0, 1), 20, (9, 9))
    levels = []
    for distance in (1.0, 2.0):
        lamp = Lamp((0.0, -distance, 1.0), (1, 1, 1), 0.0)
        levels.append(
            shaded([Piece(wall(0), 0, GREY)], Lighting((lamp,), sky=(0, 0, 0), ground=(0, 0, 0)), camera)[4, 4, 0]
        )
    # 0.05 in the square of the distance keeps a lamp finite close by; rays start 1 mm above a surface.
    assert levels[0] == pytest.approx(0.5 / 1.05, rel=3e-3)
    assert levels[1] == pytest.approx(0.5 / 4.05, rel=3e-3)


def test_corners_are_darker_than_open_floor() -> None:
    camera = looking((0, -3, 2), (0, 0, 0), 60, (48, 64))
    pieces = [Piece(box(20, 20, 1, z=-1), 0, GREY), Piece(wall(0), 1, GREY)]
    scene = Scene(pieces)
    layers = scene.layers(camera)
    light = shaded(pieces, Lighting(sky=(1, 1, 1), ground=(1, 1, 1)), camera)[..., 0]
    floor = layers.piece == 0
    last = np.flatnonzero(floor[:, 32])
    assert light[last[0] + 1, 32] < 0.85 * light[last[-1], 32]
    assert light[last[-1], 32] == pytest.approx(0.5, rel=0.02)


def test_a_glowing_surface_needs_no_light() -> None:
    camera = looking((0, -3, 1), (0, 0, 1), 20, (8, 8))
    np.testing.assert_allclose(shaded([Piece(wall(0), 0, GREY._replace(glow=2.0))], DARK, camera), 1.0, rtol=1e-6)


def test_borders_lie_on_the_nearer_side_and_mirror_with_the_image(rng: np.random.Generator) -> None:
    thing, depth = rng.integers(0, 3, (12, 15)), rng.uniform(1, 5, (12, 15))
    found = borders(thing, depth)
    expected = np.zeros((12, 15), dtype=np.uint8)
    for y in range(12):
        for x in range(15):
            for i, j in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= i < 12 and 0 <= j < 15 and thing[i, j] != thing[y, x] and depth[y, x] <= depth[i, j]:
                    expected[y, x] = 1
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(borders(thing[:, ::-1], depth[:, ::-1]), found[:, ::-1])
    assert not borders(np.zeros((4, 4), dtype=int), np.full((4, 4), np.inf)).any()


def test_exposure_brings_the_geometric_mean_to_its_target(rng: np.random.Generator) -> None:
    light = np.repeat(rng.uniform(0.1, 2, (20, 20, 1)), 3, axis=2)
    exposed = light * automatic_exposure(light, 0.18)
    assert np.exp(np.log(exposed[..., 0]).mean()) == pytest.approx(0.18, rel=1e-6)


def test_development_is_srgb_below_the_highlights_and_never_falls() -> None:
    levels = np.linspace(0, 20, 5000)
    image = developed(np.repeat(levels[:, None, None], 3, axis=2), 1.0)[:, 0, 0]
    assert image.dtype == np.uint8
    assert (np.diff(image.astype(int)) >= 0).all() and image[-1] == 255
    # IEC 61966-2-1: linear 0.2140 is half of the scale.
    assert developed(np.full((1, 1, 3), 0.21404), 1.0)[0, 0, 0] in (127, 128)


def test_a_placed_piece_takes_its_pattern_along(rng: np.random.Generator) -> None:
    paint = Paint((0.9, 0.1, 0.1), (0.1, 0.1, 0.9), "stripes", 0.1)
    piece = Piece(box(1, 1, 1), 0, paint)
    camera = looking((0, -4, 1.2), (0, 0, 0.5), 40, (32, 32))
    light = Lighting(sky=(1, 1, 1), ground=(1, 1, 1))
    before = shaded([piece], light, camera)
    turn = rotated(Mesh(np.array([camera.eye, camera.eye + camera.turn[2]]), np.zeros((0, 3), int)), 2, 30).vertices
    shift = np.array([3.0, -2.0, 0.0])
    moved_camera = looking(turn[0] + shift, turn[1] + shift, 40, (32, 32))
    after = shaded([placed(piece, 30, shift)], light, moved_camera)
    # Rounding decides about a few rays along the outline.
    assert np.quantile(np.abs(before - after), 0.97) < 1e-3


@pytest.mark.parametrize("name", list(PATTERNS))
def test_patterns_mix_two_colours_and_fade_to_their_mean(name: str, rng: np.random.Generator) -> None:
    paints = [Paint((0, 0, 0), (1, 1, 1), name, 0.2, mottle=0.0)]
    n = 20000
    places = np.stack([rng.uniform(0, 40, n), np.zeros(n), rng.uniform(0, 40, n)], axis=1)
    arguments = (paints, np.zeros(n, dtype=np.int64), places, np.tile([0.0, 1.0, 0.0], (n, 1)), np.zeros((1, 3)))
    near = surface_colours(*arguments, np.full((1, 3), 40.0), np.full(n, 1e-4))
    assert near.min() >= 0 and near.max() <= 1
    if name == "plain":
        assert not near.any()
        return
    assert near.std() > 0.03
    if name not in ("blotches", "landscape"):
        far = surface_colours(*arguments, np.full((1, 3), 40.0), np.full(n, 1.0))
        assert far.std() < 1e-9
        assert far[0, 0] == pytest.approx(PATTERNS[name][1])
        # A surface's key decides how wide its stripes, windows, ... are: the constant is the mean over surfaces.
        assert abs(near.mean() - far[0, 0]) < 0.3


def test_noise_is_smooth_even_and_different_from_key_to_key(rng: np.random.Generator) -> None:
    u, v = rng.uniform(-50, 50, (2, 20000))
    one, near = smooth_noise(u, v, 3), smooth_noise(u + 1e-4, v, 3)
    assert np.abs(one - near).max() < 1e-3
    assert abs(one.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(one, smooth_noise(u, v, 4))[0, 1]) < 0.05
