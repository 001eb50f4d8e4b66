import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import ks_2samp

from isthmus.data.derived_edges import image_edges
from isthmus.data.images import ImageSample
from isthmus.data.simulators.face_light import FaceLight
from isthmus.data.simulators.face_paint import EYE_PART, FACE_PARTS, HAIR, LIP, NOSE, Gaze, simple_look
from isthmus.data.simulators.face_render import FaceLayers, Head
from isthmus.data.simulators.face_shape import EXPRESSION_MODES, IDENTITY_MODES, KEYPOINTS, keypoints, shaped, template
from isthmus.data.simulators.face_view import Framing, Pose, View, viewed
from isthmus.data.simulators.faces import POSES, Domain, SimulatedFaces
from isthmus.data.simulators.render import Camera
from isthmus.errors import DataError

COUNTS = {"train": 6, "val": 2, "test": 2}
AT = {name: i for i, name in enumerate(KEYPOINTS)}


@pytest.fixture(scope="module")
def made() -> dict[str, list[ImageSample]]:
    domains: tuple[Domain, ...] = ("source", "target")
    return {domain: list(SimulatedFaces(**COUNTS, views=2, domain=domain).samples()) for domain in domains}


def digest(sample: ImageSample) -> bytes:
    return sample.image.tobytes() + b"".join(sample.labels[task].tobytes() for task in sorted(sample.labels))


def mean_head(pose: Pose, size: tuple[int, int] = (96, 96), **modes: float) -> Head:
    """A bald, symmetric head 1.2 m ahead, in the middle of the picture."""
    look = simple_look(np.random.default_rng(0))._replace(hair=None)
    turn = np.diag([1.0, -1.0, -1.0]) @ pose.matrix()
    camera = Camera(np.zeros(3), np.eye(3), 120 * size[0] / 26, size)
    view = View(pose, turn, np.array([0, 0, 120]) - turn @ np.array([0, -1.2, 2.0]), camera)
    identity = np.array([modes.get(mode, 0.0) for mode in IDENTITY_MODES])
    expression = np.array([modes.get(mode, 0.0) for mode in EXPRESSION_MODES])
    return Head(identity, expression, look, Gaze(1.0, 0.0, 0.0, modes.get("mouth_open", 0.0)), view)


def pixels(head: Head) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of each keypoint, and how much nearer it is than what is seen there or at the next pixels."""
    layers, camera = head.layers(), head.view.camera
    x, y, z = head.view.seen(head.points).T
    rows = np.floor(camera.size[0] / 2 + camera.focal * y / z).astype(int)
    columns = np.floor(camera.size[1] / 2 + camera.focal * x / z).astype(int)
    around = np.array([layers.depth[r - 1 : r + 2, c - 1 : c + 2].ravel() for r, c in zip(rows, columns)]) - z[:, None]
    return rows, columns, around[np.arange(len(z)), np.abs(around).argmin(axis=1)]


def test_counts_parts_names_and_groups(made: dict[str, list[ImageSample]]) -> None:
    for samples in made.values():
        assert [sample.part for sample in samples] == ["train"] * 6 + ["val"] * 2 + ["test"] * 2
        assert len({sample.name for sample in samples}) == len(samples)
        assert [s.group for s in samples[::2]] == [f"person-{n:05d}" for n in (0, 3, 6, 1, 2)]
        assert samples[0].group == samples[1].group
        assert samples[2].name == "train/person-00003-0"


def test_labels_are_in_their_encodings(made: dict[str, list[ImageSample]]) -> None:
    for sample in made["source"] + made["target"]:
        assert sample.image.shape == (96, 96, 3) and sample.image.dtype == np.uint8
        normals, points, parts, edges = (sample.labels[t] for t in ("normals", "keypoints", "segmentation", "edges"))
        assert normals.shape == (96, 96, 3) and normals.dtype == np.float16
        assert points.shape == (21, 3) and points.dtype == np.float32
        assert parts.shape == edges.shape == (96, 96) and parts.dtype == edges.dtype == np.uint8
        assert parts.max() < len(FACE_PARTS) and set(np.unique(edges)) <= {0, 1}
        np.testing.assert_array_equal(edges, image_edges(sample.image))
        labelled = np.isfinite(points)
        assert (labelled.all(axis=1) == labelled.any(axis=1)).all() and labelled[:, 0].sum() >= 12
        assert np.nanmin(points[:, :2]) >= 0 and np.nanmax(points[:, :2]) <= 1
        assert abs(np.nanmean(points[:, 2])) < 1e-6
        assert 0.02 < (normals != 0).any(axis=2).mean() < 0.6


def test_normals_are_unit_vectors_towards_the_camera_on_the_face_alone(made: dict[str, list[ImageSample]]) -> None:
    for sample in made["source"] + made["target"]:
        normals = sample.labels["normals"].astype(np.float64)
        on = (normals != 0).any(axis=2)
        np.testing.assert_allclose(np.linalg.norm(normals[on], axis=1), 1, atol=2e-3)
        assert not np.isin(sample.labels["segmentation"][on], (0, HAIR)).any()
        # A ray at the picture's border runs up to a tenth aside, so a visible z may just exceed 0.
        assert normals[on][:, 2].max() < 0.15 and (normals[on][:, 2] < 0).mean() > 0.99


@pytest.mark.parametrize("pose", [Pose(0, 0, 0), Pose(50, 10, -8)])
def test_normals_are_those_of_the_depth_map(pose: Pose) -> None:
    head = mean_head(pose, (256, 256), smile_left=0.7, nose_width=1.5, cheeks=-1.0)
    layers, camera = head.layers(), head.view.camera
    assert (np.einsum("hwi,hwi->hw", layers.normals, rays(camera)) <= 1e-9).all()
    place = rays(camera) * layers.depth[..., None]
    with np.errstate(invalid="ignore"):
        down, right = np.gradient(place, axis=(0, 1))
        flat = np.cross(down, right)
        flat /= np.linalg.norm(flat, axis=2, keepdims=True)
        jump = np.maximum(np.abs(down[..., 2]), np.abs(right[..., 2]))
    with np.errstate(invalid="ignore"):
        # Where the surface is steep, or ends, differences over two pixels say nothing.
        inner = layers.face & np.isfinite(jump) & (jump < 0.25)
    cosine = np.einsum("ni,ni->n", flat[inner], layers.normals[inner])
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    assert inner.sum() > 0.7 * layers.face.sum()
    assert np.median(angle) < 1.5 and np.quantile(angle, 0.95) < 9


def rays(camera: Camera) -> np.ndarray:
    """Vectors (H, W, 3) through the pixels' centres with z = 1."""
    rows, columns = np.mgrid[: camera.size[0], : camera.size[1]] + 0.5
    x, y = (columns - camera.size[1] / 2) / camera.focal, (rows - camera.size[0] / 2) / camera.focal
    return np.stack([x, y, np.ones_like(x)], axis=2)


def test_visible_keypoints_lie_on_the_surface_and_in_their_parts() -> None:
    for modes in (
        {},
        {"smile_left": 1.0, "smile_right": 1.0},
        {"mouth_open": 0.8, "eye_spacing": 2.0, "jaw_width": -2},
    ):
        head = mean_head(Pose(8, -5, 4), (192, 192), **modes)
        rows, columns, behind = pixels(head)
        part = head.layers().part[rows, columns]
        seen = [i for i, name in enumerate(KEYPOINTS) if not name.endswith("ear")]
        assert np.abs(behind[seen]).max() < 0.25, [KEYPOINTS[i] for i in seen if abs(behind[i]) >= 0.25]
        for name, wanted in {"nose_tip": NOSE, "upper_lip": LIP, "lower_lip": LIP, "nose_bridge": NOSE}.items():
            assert part[AT[name]] == wanted, name
        assert part[AT["left_eye_centre"]] == part[AT["right_eye_centre"]] == EYE_PART
        assert FACE_PARTS[part[AT["chin"]]] == "skin"


def test_the_far_ear_is_labelled_though_hidden() -> None:
    head = mean_head(Pose(60, 0, 0))
    behind = pixels(head)[2]
    # The nose points to the right of the picture: the person's left ear is on the far side.
    assert behind[AT["left_ear"]] < -3 and behind[AT["right_ear"]] > -0.5
    assert np.isfinite(head.view.keypoints(head.points)).all()


def test_up_down_left_and_right_are_the_persons(made: dict[str, list[ImageSample]]) -> None:
    for sample in made["target"]:
        u, v, z = sample.labels["keypoints"].T
        assert u[AT["left_eye_centre"]] > u[AT["right_eye_centre"]]
        assert u[AT["left_mouth_corner"]] > u[AT["right_mouth_corner"]]
        assert v[AT["nose_bridge"]] < v[AT["nose_tip"]] < v[AT["lower_lip"]] < v[AT["chin"]]
        assert z[AT["nose_tip"]] < z[AT["left_eye_outer"]] < z[AT["left_ear"]]


def test_pictures_follow_their_parts(made: dict[str, list[ImageSample]]) -> None:
    """What is labelled as lip is redder than the skin around it, and what is labelled as brow is darker."""
    redder, darker = [], []
    for sample in made["source"]:
        parts, image = sample.labels["segmentation"], sample.image.astype(float)
        skin = parts == FACE_PARTS.index("skin")
        share = image[..., 0] / image.sum(axis=2)
        redder.append(share[parts == LIP].mean() - share[skin].mean())
        darker.append(image[skin].mean() - image[parts == FACE_PARTS.index("brow")].mean())
    assert np.median(redder) > 0.02 and np.median(darker) > 20


def test_a_symmetric_head_turned_the_other_way_is_the_mirror_image() -> None:
    one, other = mean_head(Pose(35, 7, 5)), mean_head(Pose(-35, 7, -5))
    a, b = one.layers(), other.layers()
    assert (a.part == b.part[:, ::-1]).mean() > 0.998
    both = a.face & b.face[:, ::-1]
    apart = np.abs(a.normals[both] - (b.normals[:, ::-1] * [-1, 1, 1])[both]).max(axis=1)
    # Cells of the mesh are cut along one of their diagonals, which shows where the surface bends most.
    assert np.quantile(apart, 0.95) < 0.03 and apart.max() < 0.3
    p, q = one.view.keypoints(one.points), other.view.keypoints(other.points)
    swapped = {"left": "right", "right": "left"}
    for name, i in AT.items():
        first, _, rest = name.partition("_")
        partner = f"{swapped.get(first, first)}_{rest}" if rest else name
        np.testing.assert_allclose(p[i], q[AT[partner]] * [-1, 1, 1] + [1, 0, 0], atol=2e-3, err_msg=name)


def test_angles_turn_the_head_where_they_say() -> None:
    turned = (
        Pose(20, 0, 0).matrix() @ [0, 0, 1],
        Pose(0, 20, 0).matrix() @ [0, 0, 1],
        Pose(0, 0, 20).matrix() @ [0, 1, 0],
    )
    s, c = np.sin(np.radians(20)), np.cos(np.radians(20))
    np.testing.assert_allclose(turned, [[s, 0, c], [0, s, c], [s, c, 0]], atol=1e-12)
    pose = Pose(33, -12, 7)
    reference = Rotation.from_euler("ZYX", [-pose.roll, pose.yaw, -pose.pitch], degrees=True).as_matrix()
    np.testing.assert_allclose(pose.matrix(), reference, atol=1e-12)


def test_keypoint_depth_has_the_scale_of_columns() -> None:
    """From far away a label is the head itself, turned, shrunk and shifted: all distances keep their ratios."""
    head = mean_head(Pose(25, -10, 6), (96, 128))
    camera = Camera(np.zeros(3), np.eye(3), 1e5 * 96 / 26, (96, 128))
    far = head.view._replace(shift=head.view.shift + np.array([0, 0, 1e5 - 120]), camera=camera)
    label = far.keypoints(head.points).astype(float) * [1, 96 / 128, 1]
    across = lambda p: np.linalg.norm(p[:, None] - p[None], axis=2)[np.triu_indices(len(p), 1)]  # noqa: E731
    ratio = across(label) / across(head.points)
    np.testing.assert_allclose(ratio, 96 / 26 / 128, rtol=1e-3)


def test_what_leaves_the_picture_is_not_labelled() -> None:
    view = viewed(Pose(0, 0, 0), "face", (96, 84), np.random.default_rng(0))
    label = view.keypoints(mean_head(Pose(0, 0, 0)).points)
    assert np.isnan(label[[AT["left_ear"], AT["right_ear"]]]).all()
    assert np.isfinite(label[[AT["nose_tip"], AT["left_eye_centre"], AT["upper_lip"]]]).all()


def test_light_changes_the_picture_and_not_the_geometry(made: dict[str, list[ImageSample]]) -> None:
    domains: tuple[Domain, ...] = ("source", "target")
    for domain in domains:
        before = made[domain][1]
        after = SimulatedFaces(**COUNTS, views=2, domain=domain, light_seed=1).sample("train", 1)
        for task in ("normals", "keypoints", "segmentation"):
            np.testing.assert_array_equal(before.labels[task], after.labels[task])
        assert np.abs(before.image.astype(int) - after.image).mean() > 3


def test_a_lamp_lights_the_side_that_faces_it() -> None:
    head = mean_head(Pose(0, 0, 0))
    normals, face = head.layers().normals, head.layers().face
    for towards in ((0.8, 0.0, -0.6), (-0.8, 0.0, -0.6), (0.0, -0.6, -0.8)):
        light = FaceLight((0.0,) * 3, (0.0,) * 3, ((towards, (1.0, 1.0, 1.0)),))
        picture, exposure = head.picture(light, np.zeros((96, 96, 3)), (0.5, 0.5, 0.5))
        skin = face & (head.layers().part == FACE_PARTS.index("skin"))
        expected = np.maximum(normals[skin] @ np.array(towards), 0)
        assert np.corrcoef(picture[skin].mean(axis=1), expected)[0, 1] > 0.85
        assert exposure > 0


def test_both_sources_show_the_same_people_and_differ_in_pose_alone() -> None:
    turned, frontal = SimulatedFaces(**COUNTS), SimulatedFaces(**COUNTS, domain="source-frontal")
    a, b = turned.scene("train", 1), frontal.scene("train", 1)
    np.testing.assert_array_equal(a.head.points, b.head.points)
    assert (a.head.look, a.light, a.clothes) == (b.head.look, b.light, b.clothes)
    assert a.head.view.pose != b.head.view.pose
    other = SimulatedFaces(**COUNTS, domain="target").scene("train", 1)
    assert np.abs(other.head.points - b.head.points).max() > 0.1


def test_poses_are_distributed_as_documented() -> None:
    domains: tuple[Domain, ...] = ("source", "source-frontal", "target")
    drawn = {d: np.array([SimulatedFaces(domain=d).pose("train", i) for i in range(600)]) for d in domains}
    yaw, pitch, roll = drawn["source"].T
    assert np.abs(yaw).max() <= 65 and abs(yaw.std() / (65 / np.sqrt(3)) - 1) < 0.08
    assert abs(pitch.std() / 14 - 0.95) < 0.1 and abs(roll.std() / 9 - 0.95) < 0.1
    for domain in ("source-frontal", "target"):
        yaw, pitch, roll = drawn[domain].T
        assert np.abs(yaw).max() <= 22.5 and abs(yaw.std() / 9 - 0.95) < 0.1
        assert abs(pitch.std() / 6 - 0.95) < 0.1 and abs(roll.std() / 4 - 0.95) < 0.1
        assert abs(yaw.mean()) < 1.2
    for axis in range(3):
        assert ks_2samp(drawn["source-frontal"][:, axis], drawn["target"][:, axis]).pvalue > 0.005
        assert ks_2samp(drawn["source"][:, axis], drawn["target"][:, axis]).pvalue < 1e-6
    assert POSES["source-frontal"] == POSES["target"]


def test_an_image_does_not_depend_on_how_many_are_made(made: dict[str, list[ImageSample]]) -> None:
    alone = SimulatedFaces(train=1, val=0, test=0, views=2)
    assert digest(alone.sample("test", 1)) == digest(made["source"][-1])
    assert digest(alone.sample("train", 3)) == digest(made["source"][3])


def test_an_image_is_the_same_bit_for_bit_in_another_process(made: dict[str, list[ImageSample]]) -> None:
    code = (
        "import hashlib; from isthmus.data.simulators.faces import SimulatedFaces as F;"
        "s = F(train=9, val=0, test=0, views=2, domain='target').sample('train', 5);"
        "whole = s.image.tobytes() + b''.join(s.labels[t].tobytes() for t in sorted(s.labels));"
        "print(hashlib.sha256(whole).hexdigest())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == hashlib.sha256(digest(made["target"][5])).hexdigest()


def test_faces_of_another_seed_person_part_or_view_differ(made: dict[str, list[ImageSample]]) -> None:
    images = [made["source"][i] for i in (0, 1, 2, 6, 8)]
    images.append(SimulatedFaces(**COUNTS, views=2, seed=1).sample("train", 0))
    assert len({s.image.tobytes() for s in images}) == len({s.labels["normals"].tobytes() for s in images}) == 6


def test_modes_move_what_they_name() -> None:
    def moved(**modes: float) -> dict[str, np.ndarray]:
        weights = [np.array([modes.get(mode, 0.0) for mode in names]) for names in (IDENTITY_MODES, EXPRESSION_MODES)]
        return dict(zip(KEYPOINTS, keypoints(shaped(*weights)) - keypoints(template().mean)))

    smile = moved(smile_left=1.0)
    assert (smile["left_mouth_corner"][:2] > 0.3).all() and np.abs(smile["right_mouth_corner"]).max() < 0.01
    opened = moved(mouth_open=1.0)
    assert opened["lower_lip"][1] < -1.5 and opened["chin"][1] < -1.0 and abs(opened["upper_lip"][1]) < 0.3
    lifted = moved(brow_up_right=1.0)
    assert lifted["right_brow_outer"][1] > 0.2 and abs(lifted["left_brow_outer"][1]) < 0.01
    assert moved(nose_depth=1.0)["nose_tip"][2] > 0.2
    assert moved(eye_spacing=1.0)["left_eye_centre"][0] > 0.1 > -0.1 > moved(eye_spacing=1.0)["right_eye_centre"][0]


def test_framing_grey_and_size(made: dict[str, list[ImageSample]]) -> None:
    close = SimulatedFaces(**COUNTS, size=(96, 84), framing="face", grey=True, domain="source-frontal").sample(
        "train", 0
    )
    assert close.image.shape == (96, 84, 3)
    assert (close.image == close.image[..., :1]).all()
    whole = SimulatedFaces(**COUNTS, domain="source-frontal").sample("train", 0)
    share = [(s.labels["normals"] != 0).any(axis=2).mean() for s in (whole, close)]
    assert share[1] > 0.7 > 0.4 > share[0]
    small = SimulatedFaces(**COUNTS, views=2, size=(48, 48)).sample("train", 0)
    np.testing.assert_allclose(small.labels["keypoints"], made["source"][0].labels["keypoints"], atol=1e-6)


def test_target_is_harder_to_read_than_source(made: dict[str, list[ImageSample]]) -> None:
    """Behind a source face lies one colour, behind a target face anything."""
    spread = {
        domain: np.median([s.image[s.labels["segmentation"] == 0].std(axis=0).mean() for s in samples])
        for domain, samples in made.items()
    }
    assert spread["target"] > 2 * spread["source"]
    assert all(10 < s.image.mean() < 245 and s.image.std() > 5 for s in made["target"])


def test_fingerprint_is_json_and_changes_with_every_argument() -> None:
    base = SimulatedFaces()
    assert (base.train, base.val, base.test, base.size) == (1200, 200, 400, (96, 96))
    framing: Framing = "face"
    others = [
        SimulatedFaces(train=1),
        SimulatedFaces(val=1),
        SimulatedFaces(test=1),
        SimulatedFaces(seed=1),
        SimulatedFaces(size=(48, 64)),
        SimulatedFaces(views=2),
        SimulatedFaces(domain="target"),
        SimulatedFaces(domain="source-frontal"),
        SimulatedFaces(framing=framing),
        SimulatedFaces(grey=True),
        SimulatedFaces(light_seed=1),
    ]
    assert len({json.dumps(reader.fingerprint()) for reader in (base, *others)}) == 12
    assert json.dumps(base.fingerprint()) == json.dumps(SimulatedFaces().fingerprint())


def test_tasks_name_keypoints_in_pairs() -> None:
    tasks = SimulatedFaces().tasks
    assert tasks == {"normals": (), "keypoints": KEYPOINTS, "segmentation": FACE_PARTS, "edges": ()}
    assert len(set(KEYPOINTS)) == 21
    left = {name.removeprefix("left_") for name in KEYPOINTS if name.startswith("left_")}
    assert left == {name.removeprefix("right_") for name in KEYPOINTS if name.startswith("right_")}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train", -1),
        ("val", 1.5),
        ("seed", -1),
        ("views", 0),
        ("size", (8, 96)),
        ("domain", "photo"),
        ("framing", "feet"),
        ("grey", 1),
        ("light_seed", -1),
    ],
)
def test_bad_arguments_are_named_in_one_line(field: str, value: object) -> None:
    with pytest.raises(DataError, match=rf"SimulatedFaces\.{field}: expected .*, found .*") as error:
        SimulatedFaces(**{field: value})
    assert "\n" not in str(error.value)


def test_no_images_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="SimulatedFaces: expected at least one"):
        SimulatedFaces(train=0, val=0, test=0)


def test_nothing_but_background_is_seen_past_the_head() -> None:
    layers: FaceLayers = mean_head(Pose(0, 0, 0)).layers()
    assert np.isinf(layers.depth[:8, :8]).all() and not layers.part[:8, :8].any()
    assert not layers.normals[layers.part == 0].any()
