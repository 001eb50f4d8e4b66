import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isthmus.data.clouds import Unreadable
from isthmus.data.frame_classes import protocol
from isthmus.data.frames import Frame
from isthmus.data.frames import frames as every_frame
from isthmus.data.readers.virtualkitti import CLASSES, SEQUENCES, WEATHERS, VirtualKITTI
from isthmus.errors import DataError
from reader_testing import check_frames_by_themselves


def tree(root: Path, sequences: tuple[str, ...] = SEQUENCES) -> Path:
    g = np.random.default_rng(0)
    for sequence in sequences:
        (root / "vkitti3d_npy" / sequence).mkdir(parents=True)
        for frame in ("00000", "00001"):
            cloud = np.concatenate(
                [
                    g.uniform(-2, 20, (300, 1)),
                    g.uniform(-8, 8, (300, 2)),
                    g.integers(0, 256, (300, 3)),
                    g.integers(0, 14, (300, 1)),
                ],
                axis=1,
            )
            np.save(root / "vkitti3d_npy" / sequence / f"{frame}.npy", cloud)
            for number, weather in enumerate(WEATHERS):
                folder = root / "vkitti_1.3.1_rgb" / sequence / weather
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((375, 1242, 3), number, np.uint8)).save(folder / f"{frame}.png")
    return root


def test_frames_follow_the_clouds_point_by_point(tmp_path: Path) -> None:
    frames = list(every_frame(VirtualKITTI(tree(tmp_path), points=None)))
    assert [f.name for f in frames] == [f"{s}/{f}" for s in SEQUENCES for f in ("00000", "00001")]
    assert {f.part for f in frames} == {"train"} and [f.group for f in frames[::2]] == list(SEQUENCES)
    for frame in frames:
        assert isinstance(frame, Frame)
        expected = []
        for x, y, z, _, _, _, number in np.load(tmp_path / "vkitti3d_npy" / f"{frame.name}.npy"):
            row, column = 187 - 725 * z / x, 620.5 - 725 * y / x
            if x > 0 and 0 <= row < 375 and 0 <= column < 1242:
                expected.append((x, y, z, row, column, protocol("virtualkitti-6").label(CLASSES[int(number)])))
        table = np.array(expected)
        assert 20 < len(table) < 280
        np.testing.assert_allclose(frame.points, table[:, :3], rtol=1e-6)
        np.testing.assert_allclose(frame.pixels, table[:, 3:5], atol=1e-2)
        assert frame.labels.tolist() == table[:, 5].tolist()


def test_a_drawn_subset_is_fixed_by_seed_and_name(tmp_path: Path) -> None:
    tree(tmp_path, ("0001",))
    every = {
        tuple(p)
        for f in every_frame(VirtualKITTI(tmp_path, sequences=("0001",), points=None))
        for p in f.points.tolist()
    }

    def drawn(seed: int) -> list[list[list[float]]]:
        return [
            f.points.tolist() for f in every_frame(VirtualKITTI(tmp_path, sequences=("0001",), points=15, seed=seed))
        ]

    first = drawn(0)
    assert drawn(0) == first and drawn(1) != first
    for points in first:
        assert len(points) == 15 and len({tuple(p) for p in points} & every) == 15


def test_the_weather_is_drawn_for_each_frame(tmp_path: Path) -> None:
    tree(tmp_path)
    reader = VirtualKITTI(tmp_path, weather=("fog", "rain"))
    seen = [int(f.image[0, 0, 0]) for f in every_frame(reader)]
    assert set(seen) == {1, 4} and [int(f.image[0, 0, 0]) for f in every_frame(reader)] == seen
    assert {int(f.image[0, 0, 0]) for f in every_frame(VirtualKITTI(tmp_path))} == {0}
    assert reader.fingerprint() != VirtualKITTI(tmp_path).fingerprint()


def test_sequences_can_validate(tmp_path: Path) -> None:
    frames = every_frame(VirtualKITTI(tree(tmp_path), validation_share=0.2))
    assert {f.group: f.part for f in frames} == dict.fromkeys(SEQUENCES, "train") | {"0020": "val"}


def test_broken_frames_are_listed_and_options_are_checked(tmp_path: Path) -> None:
    tree(tmp_path, ("0001",))
    np.save(tmp_path / "vkitti3d_npy" / "0001" / "00000.npy", np.zeros((3, 6)))
    (tmp_path / "vkitti_1.3.1_rgb" / "0001" / "clone" / "00001.png").unlink()
    first, second = every_frame(VirtualKITTI(tmp_path, sequences=("0001",)))
    assert (
        isinstance(first, Unreadable)
        and "00000.npy: expected points of 7 numbers, found an array (3, 6)" in first.reason
    )
    assert isinstance(second, Unreadable) and "00001.png: expected an image, found no file" in second.reason
    cloud = np.ones((3, 7))
    cloud[:, 6] = 14
    np.save(tmp_path / "vkitti3d_npy" / "0001" / "00000.npy", cloud * [9, 0, 0, 0, 0, 0, 1])
    assert "found 14 (of 3 points)" in next(iter(every_frame(VirtualKITTI(tmp_path, sequences=("0001",))))).reason
    with pytest.raises(DataError, match=r"0002: expected clouds \*\.npy, found none; name the sequences"):
        VirtualKITTI(tmp_path).fingerprint()
    for options, message in (
        ({"sequences": ("0003",)}, "sequences: expected some of 0001, .*found 0003"),
        ({"weather": ()}, "weather: expected some of clone, .*found none"),
        ({"points": 0}, "points: expected at least 1, found 0"),
        ({"protocol": "semantickitti-10"}, "protocol: expected one of virtualkitti-6"),
    ):
        with pytest.raises(DataError, match=message):
            VirtualKITTI(tmp_path, **options)


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    reader = VirtualKITTI(tree(tmp_path))
    first = reader.fingerprint()
    os.utime(tmp_path / "vkitti3d_npy" / "0020" / "00001.npy", (1, 1))
    assert reader.fingerprint() != first


def test_frames_do_not_depend_on_what_was_read_before(tmp_path: Path) -> None:
    check_frames_by_themselves(VirtualKITTI(tree(tmp_path), weather=("clone", "fog"), points=15))
