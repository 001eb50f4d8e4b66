import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.data.derived_edges import image_edges
from isthmus.data.image_store import prepare_images
from isthmus.data.readers.yaleb_faces import YaleBFaces, faces_file, fold, yaleb_subjects
from isthmus.errors import DataError

DATA = os.environ.get("ISTHMUS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="Yale B faces: set ISTHMUS_DATA to the data directory")

SUBJECTS = ("yaleB01", "yaleB02", "yaleB03", "yaleB04")


def arrays() -> dict[str, Any]:
    """Four people of 20 x 18 pixels under three lights."""
    g = np.random.default_rng(0)
    normal = g.normal(size=(4, 20, 18, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return {
        "image": g.integers(0, 256, (4, 3, 20, 18), dtype=np.uint8),
        "normal": normal.astype(np.float16),
        "mask": g.random((4, 20, 18)) < 0.9,
        "light_az_el": np.array([[-20, 10], [0, -20], [70, 45]]),
        "light_domain": np.array(["front", "front", "side"]),
        "subject": np.array(SUBJECTS),
    }


def write(folder: Path, **changed: Any) -> Path:
    np.savez(folder / "faces.npz", **{name: array for name, array in (arrays() | changed).items() if array is not None})
    return folder / "faces.npz"


def faces(path: Path, **options: Any) -> YaleBFaces:
    return YaleBFaces(path, test_subjects=("yaleB03",), val_subjects=("yaleB02",), **options)


def test_a_person_stays_in_one_part_and_lights_are_chosen(tmp_path: Path) -> None:
    path = write(tmp_path)
    samples = list(faces(path).samples())
    assert [s.group for s in samples] == [subject for subject in SUBJECTS for _ in range(3)]
    assert [s.part for s in samples[::3]] == ["train", "val", "test", "train"]
    assert [s.name for s in samples[:3]] == ["yaleB01/-020+10", "yaleB01/+000-20", "yaleB01/+070+45"]
    front, side = list(faces(path, lights="front").samples()), list(faces(path, lights="side").samples())
    assert (len(front), len(side)) == (8, 4)
    assert {s.name for s in front} | {s.name for s in side} == {s.name for s in samples}
    assert side[0].name == "yaleB01/+070+45"


def test_labels_follow_the_file_and_turn_y_and_z_around(tmp_path: Path) -> None:
    raw = arrays()
    for number, sample in enumerate(faces(write(tmp_path)).samples()):
        person, light = divmod(number, 3)
        for channel in range(3):
            np.testing.assert_array_equal(sample.image[..., channel], raw["image"][person, light])
        for y, x in np.ndindex(20, 18):
            nx, ny, nz = raw["normal"][person, y, x]
            expected = (nx, -ny, -nz) if raw["mask"][person, y, x] else (0, 0, 0)
            assert tuple(sample.labels["normals"][y, x]) == expected
        np.testing.assert_array_equal(sample.labels["edges"], image_edges(sample.image))
        assert sample.labels["normals"].dtype == np.float16


def test_every_person_is_tested_in_exactly_one_fold() -> None:
    for folds in (3, 4):
        parts = [fold(SUBJECTS, folds, k) for k in range(folds)]
        assert sorted(s for test, _ in parts for s in test) == sorted(SUBJECTS)
        assert sorted(s for _, val in parts for s in val) == sorted(SUBJECTS)
        assert not any(set(test) & set(val) for test, val in parts)
    for folds, held_out in ((2, 0), (5, 0), (3, 3), (3, -1)):
        with pytest.raises(DataError, match=r"folds|held_out"):
            fold(SUBJECTS, folds, held_out)


def test_people_that_are_not_there_or_in_two_parts_and_bad_lights_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(DataError, match=r"test_subjects and val_subjects: .* found 'yaleB01' in both"):
        YaleBFaces(path, test_subjects=("yaleB01",), val_subjects=("yaleB01",))
    with pytest.raises(DataError, match=r"lights: expected one of front, side, all, found 'back'"):
        faces(path, lights="back")
    reader = YaleBFaces(path, test_subjects=("yaleB1",), val_subjects=())
    with pytest.raises(DataError, match=r"test_subjects: expected some of yaleB01 to yaleB04, found 'yaleB1'; did you"):
        list(reader.samples())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask": None}, r"faces\.npz: expected the arrays image, .*mask"),
        ({"image": np.zeros((4, 3, 20, 18), np.float32)}, r"image: expected uint8 \(4, 3, 20, 18\), found float32"),
        ({"normal": np.zeros((4, 20, 17, 3), np.float16)}, r"normal: .* found float16 \(4, 20, 17, 3\)"),
        ({"mask": np.zeros((4, 20, 18), np.uint8)}, r"mask: expected bool"),
        ({"light_az_el": np.zeros((2, 2), np.int64)}, r"light_az_el: expected int64 \(3, 2\)"),
        ({"light_domain": np.array(["front", "front", "back"])}, "light_domain: expected front or side, found 'back'"),
        ({"light_domain": np.array(["front"])}, "light_domain: expected 3 names"),
        ({"subject": np.array(SUBJECTS[:3])}, "subject: expected 4 names"),
        ({"subject": np.array(["yaleB01", *SUBJECTS[:3]])}, "subject: expected 4 different names"),
        ({"image": np.array([{}], dtype=object)}, "allow_pickle"),
        ({"image": np.zeros((20, 18), np.uint8)}, "expected uint8"),
    ],
)
def test_a_file_that_is_not_the_faces_is_an_error(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, **changed)
    with pytest.raises(DataError, match=message):
        list(faces(path).samples())


def test_a_cut_off_file_and_no_file_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"faces\.npz: expected the arrays"):
        list(faces(path).samples())
    with pytest.raises(DataError, match="none: expected the file of Yale B faces, found no file"):
        faces(tmp_path / "none").fingerprint()
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    with pytest.raises(DataError, match="expected the environment variable ISTHMUS_DATA"):
        yaleb_subjects()


def test_the_fingerprint_follows_file_parts_and_lights(tmp_path: Path) -> None:
    path = write(tmp_path)
    first = faces(path).fingerprint()
    assert faces(path).fingerprint() == first
    assert faces(path, lights="side").fingerprint() != first
    assert YaleBFaces(path, test_subjects=("yaleB03",), val_subjects=()).fingerprint() != first
    os.utime(path, (1, 1))
    assert faces(path).fingerprint() != first


@needs_data
def test_the_real_faces_are_prepared_without_a_skip(tmp_path: Path) -> None:
    subjects = yaleb_subjects()
    assert len(subjects) == 28
    test, val = fold(subjects, 4, 0)
    store = prepare_images(YaleBFaces(test_subjects=test, val_subjects=val), tmp_path, None)
    assert len(store) == 448 and store.size == (96, 84) and store.skipped == () and store.present.all()
    assert len(set(zip(store.groups, store.parts.tolist()))) == 28


@needs_data
def test_real_normals_shade_the_images_in_this_frame_and_in_no_other() -> None:
    with np.load(faces_file(None), allow_pickle=False) as archive:
        lights, albedo = archive["light_dir"], archive["albedo"].astype(np.float32)
    frames = [(right, down) for right in (1, -1) for down in (1, -1)]
    agreement: dict[tuple[int, int], list[float]] = {frame: [] for frame in frames}
    samples = list(YaleBFaces(test_subjects=(), val_subjects=(), lights="all").samples())
    for number in range(0, len(samples), 23):
        person, light = divmod(number, 16)
        x, y, z = lights[light]
        normals = samples[number].labels["normals"].astype(np.float32)
        valid = (normals != 0).any(axis=2)
        for right, down in frames:
            # The file's directions point up and towards the camera.
            shading = np.maximum(normals @ np.array([right * x, -down * y, -z]), 0) * albedo[person]
            same = np.corrcoef(shading[valid], samples[number].image[..., 0][valid])[0, 1]
            agreement[right, down].append(same)
    means = {frame: np.mean(values) for frame, values in agreement.items()}
    assert means.pop((1, 1)) > 0.95
    assert max(means.values()) < 0.9


@needs_data
def test_real_noses_have_a_left_and_a_right_side_and_cheeks_face_outward() -> None:
    reader = YaleBFaces(test_subjects=(), val_subjects=(), lights="front")
    normals = np.mean([s.labels["normals"].astype(np.float32) for s in reader.samples()], axis=0)
    # The nose is about the middle column of the picture, between a third and a half of its height.
    assert normals[30:48, 33:38, 0].mean() < -0.25 and normals[30:48, 46:51, 0].mean() > 0.25
    assert normals[40:80, 4:14, 0].mean() < -0.3 and normals[40:80, 70:80, 0].mean() > 0.3
    # The bridge looks up, what is under the nose and under the lower lip looks down; all looks at the camera.
    assert normals[..., 2].mean() < -0.6 and (normals[..., 2] < 0).mean() > 0.999
    lower_lip = normals[74:90, 36:48, 1].mean(axis=1)
    assert lower_lip.max() > 0.15
