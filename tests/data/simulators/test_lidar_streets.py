import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isthmus.data.frame_store import prepare_frames
from isthmus.data.frames import Frame
from isthmus.data.frames import frames as every_frame
from isthmus.data.simulators import lidar_layout
from isthmus.data.simulators.lidar_layout import COUNTRIES, street
from isthmus.data.simulators.lidar_light import glass, lit, moment, photograph
from isthmus.data.simulators.lidar_sensor import SENSORS, camera_on, pixels_of, pose, projection, surfaces, sweep
from isthmus.data.simulators.lidar_streets import HEADLIGHTS, LIDAR_DOMAINS, SimulatedLidarStreets, ready
from isthmus.data.simulators.lidar_things import BUILDING, PERSON, ROAD, SIDEWALK, STREET8, TERRAIN, VEGETATION, VEHICLE
from isthmus.data.simulators.render import Piece, Scene
from isthmus.data.simulators.rooms import stream
from isthmus.data.simulators.textures import Paint
from isthmus.data.simulators.vehicles import GLASS
from isthmus.errors import DataError
from isthmus.geometry.meshes import box
from reader_testing import check_frames_by_themselves

FRAMES = {"day": 8, "night": 8, "country-a": 8, "country-b": 8, "lidar64": 4, "lidar16": 4}


class Made(dict[str, list[Frame]]):
    """Two frames of each of the first streets of every domain, made when they are asked for."""

    def __missing__(self, domain: str) -> list[Frame]:
        reader = SimulatedLidarStreets(domain=domain, train=FRAMES[domain], val=0, test=0, views=2)
        self[domain] = list(every_frame(reader))
        return self[domain]


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


def shares(frames: list[Frame]) -> np.ndarray:
    counts = np.sum([np.bincount(frame.labels, minlength=8) for frame in frames], axis=0)
    return counts / counts.sum()


def brightness(frames: list[Frame]) -> float:
    return float(np.mean([frame.image.mean() for frame in frames]))


def elevations(points: np.ndarray) -> np.ndarray:
    own = points.astype(np.float64)
    return np.degrees(np.arcsin(own[:, 2] / np.linalg.norm(own, axis=1)))


def digest(frame: Frame) -> bytes:
    arrays = (frame.points, frame.pixels, frame.image, frame.labels, frame.intensity, frame.projection)
    return b"".join(array.tobytes() for array in arrays)


def test_frames_are_as_the_contract_says(made: Made) -> None:
    for domain in LIDAR_DOMAINS:
        frames = made[domain]
        for frame in frames:
            n = len(frame.points)
            assert 700 < n < 5000, domain
            assert frame.points.shape == (n, 3) and frame.points.dtype == np.float32
            assert frame.pixels.shape == (n, 2) and frame.pixels.dtype == np.float32
            assert frame.image.shape == (64, 112, 3) and frame.image.dtype == np.uint8
            assert frame.labels.shape == (n,) and frame.labels.dtype == np.uint8 and frame.labels.max() < 8
            assert frame.intensity.shape == (n,) and frame.intensity.dtype == np.float32
            assert frame.intensity.min() >= 0 and frame.intensity.max() <= 1
            assert frame.projection.shape == (3, 4) and frame.projection.dtype == np.float64
            assert (frame.pixels >= 0).all() and (frame.pixels < (64, 112)).all()
            assert np.isfinite(frame.points).all() and (frame.points[:, 0] > 0).all()
        names = set(np.unique(np.concatenate([frame.labels for frame in frames])))
        assert names >= set(range(8)) - {TERRAIN}, domain


def test_pixels_are_the_projected_points(made: Made) -> None:
    for domain in LIDAR_DOMAINS:
        for frame in made[domain]:
            own = np.concatenate([frame.points.astype(np.float64), np.ones((len(frame.points), 1))], axis=1)
            column, row, depth = frame.projection @ own.T
            np.testing.assert_allclose(frame.pixels, np.stack([row / depth, column / depth], axis=1), atol=1e-4)


def test_the_camera_looks_through_a_pixel_at_the_point_that_projects_there() -> None:
    car, sensor = pose(1.0, 5.0, 3.0, -1.0, 2.0), SENSORS["64"]
    camera = camera_on(car, (64, 112))
    points = np.array([[8.0, 1.0, -1.5], [30.0, -9.0, 2.0], [15.0, 4.0, 0.3]])
    pixels, depth = pixels_of(points, projection(car, camera, sensor))
    towards = car.at(sensor.mount) + points @ car.turn.T - camera.eye
    np.testing.assert_allclose(
        camera.rays(pixels[:, 0], pixels[:, 1]), towards / np.linalg.norm(towards, axis=1)[:, None]
    )
    np.testing.assert_allclose(depth, towards @ camera.turn[2])
    # Straight ahead at the camera's height, the optical axis is tilted down: above the middle row, near its column.
    ahead = np.array([[1000.0, 0.0, 0.0]])
    level = pose(0, 0, 0, 0, 0)
    (row, column), _ = (v[0] for v in pixels_of(ahead, projection(level, camera_on(level, (64, 112)), sensor)))
    assert 27 < row < 30 and abs(column - 56) < 0.1


def test_a_car_heads_along_y_with_x_forward_y_left_z_up() -> None:
    np.testing.assert_allclose(pose(0, 0, 0, 0, 0).turn, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    assert pose(0, 0, 10, 0, 0).turn[0, 0] < 0  # To the left of +y is -x.
    assert pose(0, 0, 0, 5, 0).turn[2, 0] > 0  # Nose up.
    assert pose(0, 0, 0, 0, 5).turn[2, 1] > 0  # Right side down, left side up.
    turn = pose(2, 3, 10, 5, 3).turn
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("domain", ["night", "country-b", "lidar16"])
def test_a_point_has_the_class_of_its_pixel_unless_it_is_hidden(domain: str) -> None:
    reader = SimulatedLidarStreets(domain=domain, train=6, val=0, test=0, views=3, range_noise=0.0)
    agree, inner, hidden = [], [], []
    for index in range(6):
        frame, classes = reader.frame("train", index), reader.pixel_classes("train", index)
        row, column = frame.pixels.astype(int).T
        agree.append(classes[row, column] == frame.labels)
        padded = np.pad(classes, 1, mode="edge")
        near = np.stack([padded[row + dy, column + dx] for dy in range(3) for dx in range(3)])
        inner.append((near == near[4]).all(axis=0))
        # Independent of projection and labels: what the camera meets along the ray through the pixel.
        _, _, built, car = reader._stand("train", index)
        camera = camera_on(car, reader.size)
        first, piece, _ = built.scene.first(camera.eye, camera.rays(*frame.pixels.astype(np.float64).T))
        there = car.at(reader.sensor.mount) + frame.points.astype(np.float64) @ car.turn.T
        far = np.linalg.norm(there - camera.eye, axis=1)
        # A ray may just miss an outline that the other sensor just hit, no more.
        assert (first > far + 0.05).mean() < 0.01
        hidden.append(first < far - 0.05)
        reached = np.abs(first - far) < 0.02
        assert reached.mean() > 0.9
        assert (built.scene.label[piece] == frame.labels)[reached].mean() > 0.995
    same, clear, behind = np.concatenate(agree), np.concatenate(inner), np.concatenate(hidden)
    assert same.mean() > 0.9
    assert same[clear & ~behind].mean() > 0.995 and (clear & ~behind).mean() > 0.6
    assert 0 < behind.mean() < 0.07


def test_night_changes_the_image_and_no_point() -> None:
    made = street(COUNTRIES["a"], stream(3, 1))
    car, images, clouds = pose(made.lane, 9.0, 0, 0, 0), [], []
    for hour in ("day", "night"):
        built = ready(made, moment(hour, stream(3, 2)), stream(3, 3))
        clouds.append(sweep(built.scene, built.surfaces, car, SENSORS["32"], stream(3, 4)))
        camera = camera_on(car, (64, 112))
        layers = built.scene.layers(camera)
        light = lit(built.now, made.lamps, car.at(HEADLIGHTS), car.turn[:, 0])
        picture = built.scene.picture(camera, layers, light, stream(3, 5), built.now.sky)
        images.append(photograph(picture, layers.depth, built.now, stream(3, 6)))
    for by_day, by_night in zip(*clouds):
        np.testing.assert_array_equal(by_day, by_night)
    assert images[1].mean() < 0.6 * images[0].mean()


def test_day_and_night_differ_in_brightness_only(made: Made) -> None:
    day, night = made["day"], made["night"]
    assert max(f.image.mean() for f in night) < min(f.image.mean() for f in day)
    assert brightness(night) < 0.6 * brightness(day)
    assert np.abs(shares(day) - shares(night)).sum() < 0.2
    counts = [np.mean([len(frame.points) for frame in frames]) for frames in (day, night)]
    assert abs(counts[0] / counts[1] - 1) < 0.1
    assert {f.group for f in day}.isdisjoint(f.group for f in night)
    assert not np.array_equal(day[0].points[:100], night[0].points[:100])


def test_dark_parts_of_night_images_are_noisier(made: Made) -> None:
    def roughness(frame: Frame) -> float:
        sky = frame.image[:8].astype(np.float64)
        return float(np.median(np.abs(np.diff(sky, axis=1))))

    assert np.median([roughness(f) for f in made["night"]]) > 3 * np.median([roughness(f) for f in made["day"]])


def test_countries_differ_in_classes_and_side_but_not_in_light_or_sensor(made: Made) -> None:
    a, b = made["country-a"], made["country-b"]
    share_a, share_b = shares(a), shares(b)
    assert share_b[PERSON] > 2 * share_a[PERSON]
    assert share_b[BUILDING] > 1.3 * share_a[BUILDING] and share_b[SIDEWALK] > 1.5 * share_a[SIDEWALK]
    assert share_a[VEGETATION] > 2 * share_b[VEGETATION] and share_a[ROAD] > 1.1 * share_b[ROAD]

    def nearer_right(frames: list[Frame]) -> bool:
        kerb = np.concatenate([f.points[np.isin(f.labels, [SIDEWALK, TERRAIN]), 1] for f in frames])
        return bool(np.median(-kerb[kerb < 0]) < np.median(kerb[kerb > 0]))

    assert nearer_right(a) and not nearer_right(b)
    assert abs(brightness(a) / brightness(b) - 1) < 0.2
    assert abs(len(np.concatenate([f.points for f in a])) / len(np.concatenate([f.points for f in b])) - 1) < 0.15


@pytest.mark.parametrize(("domain", "least"), [("day", 20), ("lidar64", 50), ("lidar16", 9)])
def test_points_lie_on_the_rings_of_the_sensor(made: Made, domain: str, least: int) -> None:
    sensor = SimulatedLidarStreets(domain=domain, train=1, val=0, test=0).sensor
    rings = np.linspace(sensor.lowest, sensor.highest, sensor.beams)
    up = elevations(np.concatenate([frame.points for frame in made[domain]]))
    nearest = np.abs(up[:, None] - rings).argmin(axis=1)
    np.testing.assert_allclose(up, rings[nearest], atol=1e-3)
    assert least <= len(np.unique(nearest)) <= sensor.beams


def test_lidars_differ_in_points_and_not_in_images(made: Made) -> None:
    many, few = made["lidar64"], made["lidar16"]
    assert np.mean([len(f.points) for f in many]) > 3 * np.mean([len(f.points) for f in few])
    assert abs(brightness(many) / brightness(few) - 1) < 0.2
    heights = [-np.median(np.concatenate([f.points[f.labels == ROAD, 2] for f in frames])) for frames in (many, few)]
    np.testing.assert_allclose(heights, [1.73, 2.1], atol=0.15)


def test_arguments_override_the_sensor() -> None:
    reader = SimulatedLidarStreets(domain="lidar64", train=1, val=0, test=0, beams=5, range_noise=0.3, dropout=0.0)
    assert reader.sensor == SENSORS["64"]._replace(beams=5, range_noise=0.3, dropout=0.0)
    up = elevations(reader.frame("train", 0).points)
    assert len(np.unique(np.round(up, 2))) <= 5


def board(far: float, paint: Paint, label: int = BUILDING) -> tuple[Scene, list[Piece]]:
    """A wall that fills the view, ``far`` metres from the LiDAR of a car at the origin."""
    pieces = [Piece(box(8 * far, 1.0, 8 * far, 0, 0.95 + far + 0.5, -4 * far), label, paint)]
    return Scene(pieces), pieces


def facing(far: float, paint: Paint, label: int = BUILDING, **changes: float) -> tuple[np.ndarray, int]:
    """Points within 4 degrees of straight ahead that come back from a board, and how many shots go there."""
    scene, pieces = board(far, paint, label)
    sensor = SENSORS["64"]._replace(beams=200, lowest=-4.0, highest=4.0, step=0.1, dropout=0.0, reach=1e4)
    sensor = sensor._replace(**changes)
    points = sweep(scene, surfaces(pieces), pose(0, 0, 0, 0, 0), sensor, stream(0, 9)).points
    shots = 200 * round(8 / sensor.step)
    return points[np.abs(np.degrees(np.arctan2(points[:, 1], points[:, 0]))) < 4], shots


def test_a_wall_is_as_far_as_it_is_and_noise_lies_along_the_ray() -> None:
    white = Paint((1.0, 1.0, 1.0))
    exact, shots = facing(10, white, range_noise=0.0)
    np.testing.assert_allclose(exact[:, 0], 10, atol=1e-4)
    assert len(exact) > 0.98 * shots
    noisy, _ = facing(10, white, range_noise=0.05)
    far, measured = np.linalg.norm(exact, axis=1), np.linalg.norm(noisy, axis=1)
    np.testing.assert_allclose(noisy / measured[:, None], exact / far[:, None], atol=1e-6)
    off = (measured - far) / 0.05
    assert abs(off.mean()) < 0.03 and abs(off.std() - 1) < 0.03


def test_returns_fade_with_distance_darkness_and_glass() -> None:
    white, dark = Paint((1.0, 1.0, 1.0)), Paint((0.0, 0.0, 0.0))
    found, shots = facing(100, white, range_noise=0.0, power=100.0)
    # At a distance of `power` a reflectance of 0.96 gives a signal a little below 1 (less so towards the corners).
    assert 0.44 < len(found) / shots < 0.49
    black, shots = facing(60, dark, range_noise=0.0)
    assert len(black) < len(facing(60, white, range_noise=0.0)[0])
    # Reflectance 0.06 at 60 m with 360 m of power: signal 2.16, probability 0.823.
    assert abs(len(black) / shots - 0.823) < 0.03
    pane, shots = facing(5, GLASS, VEHICLE, range_noise=0.0)
    assert abs(len(pane) / shots - 0.25) < 0.02
    assert glass(board(5, GLASS, VEHICLE)[1][0]) and not glass(board(5, white)[1][0])


def test_dropout_leaves_its_share_and_a_subset() -> None:
    made = street(COUNTRIES["a"], stream(3, 1))
    built, car = ready(made, moment("day", stream(3, 2)), stream(3, 3)), pose(made.lane, 9.0, 0, 0, 0)

    def points(dropout: float) -> np.ndarray:
        sensor = SENSORS["64"]._replace(dropout=dropout)
        return sweep(built.scene, built.surfaces, car, sensor, stream(3, 4)).points

    whole, part = points(0.0), points(0.3)
    assert abs(len(part) / len(whole) - 0.7) < 0.025
    assert {row.tobytes() for row in part} <= {row.tobytes() for row in whole}
    # Lost for no reason is independent of lost by weakness.
    weak, shots = facing(100, Paint((1.0, 1.0, 1.0)), power=100.0)
    both, _ = facing(100, Paint((1.0, 1.0, 1.0)), power=100.0, dropout=0.5)
    assert len(weak) < 0.5 * shots and abs(len(both) / len(weak) - 0.5) < 0.03


def test_a_frame_without_points_is_a_frame() -> None:
    frame = SimulatedLidarStreets(domain="day", train=1, val=0, test=0, dropout=1.0).frame("train", 0)
    assert frame.points.shape == (0, 3) and frame.pixels.shape == (0, 2) and frame.labels.shape == (0,)
    assert frame.image.shape == (64, 112, 3)


def test_a_street_without_vehicles_people_and_lamps_works(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = COUNTRIES["a"]._replace(parked=0.0, gap=1e6, bikes=0.0, crowd=0.0, lamps=(1e6, 1e6), trees=0.0, built=0.0)
    monkeypatch.setitem(lidar_layout.COUNTRIES, "a", empty)
    for domain in ("day", "night"):
        frame = SimulatedLidarStreets(domain=domain, train=1, val=0, test=0, seed=991).frame("train", 0)
        assert len(frame.points) > 700
        assert not np.isin(frame.labels, [VEHICLE, PERSON]).any()


def test_counts_parts_names_and_groups() -> None:
    frames = list(every_frame(SimulatedLidarStreets(domain="day", train=4, val=1, test=2, views=2, size=(16, 28))))
    assert [frame.part for frame in frames] == ["train"] * 4 + ["val"] + ["test"] * 2
    assert len({frame.name for frame in frames}) == len(frames)
    assert frames[2].name == "train/day-street-00003-0" and frames[2].group == "day-street-00003"
    by_group: dict[str, set[str]] = {}
    for frame in frames:
        by_group.setdefault(frame.group, set()).add(frame.part)
    assert len(by_group) == 2 + 1 + 1
    assert all(len(parts) == 1 for parts in by_group.values())


def test_views_move_forward_through_one_street() -> None:
    reader = SimulatedLidarStreets(domain="country-b", train=4, val=0, test=0, views=4)
    stands = [reader._stand("train", index) for index in range(4)]
    assert len({number for number, _, _, _ in stands}) == 1
    along = [car.place[1] for _, _, _, car in stands]
    assert along == sorted(along) and along[-1] - along[0] > 10


def test_a_frame_depends_on_nothing_but_its_place_and_its_domain() -> None:
    options = {"train": 4, "val": 1, "test": 1, "views": 2}
    frames = list(every_frame(SimulatedLidarStreets(domain="night", **options)))
    alone = SimulatedLidarStreets(domain="night", train=1, val=0, test=0, views=2)
    assert digest(alone.frame("train", 3)) == digest(frames[3])
    assert digest(alone.frame("test", 0)) == digest(frames[-1])
    code = (
        "import hashlib; from isthmus.data.simulators.lidar_streets import SimulatedLidarStreets as S;"
        "f = S(domain='night', train=9, val=0, test=0, views=2).frame('train', 3);"
        "a = (f.points, f.pixels, f.image, f.labels, f.intensity, f.projection);"
        "print(hashlib.sha256(b''.join(x.tobytes() for x in a)).hexdigest())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == hashlib.sha256(digest(frames[3])).hexdigest()
    others = [frames[0], frames[1], frames[2], frames[4], frames[5]]
    others.append(SimulatedLidarStreets(domain="night", seed=1, **options).frame("train", 0))
    others.append(SimulatedLidarStreets(domain="day", **options).frame("train", 0))
    assert len({digest(frame) for frame in others}) == len(others)


def test_no_street_is_in_two_domains() -> None:
    lanes = []
    for domain in LIDAR_DOMAINS:
        built = SimulatedLidarStreets(domain=domain, train=1, val=0, test=0)._stand("train", 0)[2]
        lanes.append(abs(built.street.lane))
    assert len(set(np.round(lanes, 6))) == len(lanes)


def test_fingerprint_is_json_and_changes_with_every_argument() -> None:
    base = {"domain": "day", "train": 3, "val": 2, "test": 1, "seed": 0, "size": (64, 112), "views": 4}
    others = {"domain": "country-a", "train": 4, "val": 3, "test": 2, "seed": 1, "size": (48, 84), "views": 2}
    others |= {"beams": 31, "range_noise": 0.5, "dropout": 0.5}
    prints = [json.dumps(SimulatedLidarStreets(**base).fingerprint())]
    for field, value in others.items():
        prints.append(json.dumps(SimulatedLidarStreets(**{**base, field: value}).fingerprint()))
    assert len(set(prints)) == len(prints)


def test_classes_are_the_same_in_all_domains() -> None:
    for domain in LIDAR_DOMAINS:
        assert SimulatedLidarStreets(domain=domain, train=1, val=0, test=0).classes == STREET8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("domain", "dusk"),
        ("train", -1),
        ("views", 0),
        ("size", (8, 112)),
        ("beams", 0),
        ("beams", 2.5),
        ("range_noise", -0.1),
        ("range_noise", float("nan")),
        ("dropout", 1.2),
        ("dropout", "much"),
    ],
)
def test_bad_arguments_are_named(field: str, value: object) -> None:
    with pytest.raises(DataError, match=field):
        SimulatedLidarStreets(**{"domain": "day", "train": 1, "val": 1, "test": 1, field: value})


def test_processes_forked_from_one_that_has_traced_rays_make_the_same_frames(tmp_path: Path) -> None:
    reader = SimulatedLidarStreets(domain="night", train=5, val=1, test=2, views=2, size=(16, 28))
    check_frames_by_themselves(reader)
    stores = [prepare_frames(reader, tmp_path / str(workers), None, workers=workers) for workers in (0, 2)]
    for file in stores[0].path.iterdir():
        assert (stores[1].path / file.name).read_bytes() == file.read_bytes()
