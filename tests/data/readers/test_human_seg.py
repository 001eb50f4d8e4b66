import os
from pathlib import Path

import numpy as np
import pytest

from isthmus.data.clouds import HUMAN_PARTS
from isthmus.data.readers.human_seg import HumanSeg
from isthmus.errors import DataError

real = pytest.mark.skipif(
    not os.environ.get("ISTHMUS_DATA"), reason="needs the real bodies: set ISTHMUS_DATA to the data directory"
)

UPPER_ARM, FOOT, HEAD, LOWER_LEG = (HUMAN_PARTS.index(name) for name in ("upperarm", "foot", "head", "lowerleg"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Both files with random shapes: FAUST's ten people in one pose each, two models of SHREC."""
    folder = tmp_path / "human_seg"
    folder.mkdir()
    write(folder / "faust100_8parts.npz", [f"tr_reg_{i:03d}" for i in range(10)], subject=np.arange(10))
    write(folder / "shrec07_lpsb_human10_8parts.npz", ["1", "7"])
    return tmp_path


def write(path: Path, names: list[str], **changes: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "points": rng.uniform(-1, 1, (len(names), 64, 3)).astype(np.float16),
        "point_labels": rng.integers(0, 8, (len(names), 64)).astype(np.int8),
        "names": np.array(names),
        "parts": np.array(HUMAN_PARTS),
        **changes,
    }
    np.savez(path, **arrays)


def test_people_are_dealt_out_whole(tree: Path) -> None:
    found = list(HumanSeg("faust", tree).samples())
    assert [sample.part for sample in found] == ["train"] * 7 + ["val"] + ["test"] * 2
    assert [sample.group for sample in found] == [f"person{i}" for i in range(10)]
    assert found[0].label == -1 and found[0].point_labels is not None and found[0].point_labels.dtype == np.uint8


def test_points_are_turned_upright_and_to_the_front(tree: Path) -> None:
    raw = np.load(tree / "human_seg/faust100_8parts.npz")["points"].astype(np.float32)
    x, y, z = raw[4].T
    np.testing.assert_array_equal(list(HumanSeg("faust", tree).samples())[4].points, np.stack([x, -z, y], axis=1))
    raw = np.load(tree / "human_seg/shrec07_lpsb_human10_8parts.npz")["points"].astype(np.float32)
    one, seven = HumanSeg("shrec07", tree).samples()
    x, y, z = raw[0].T  # looks to the back: half a turn
    np.testing.assert_allclose(one.points, np.stack([-x, z, y], axis=1), atol=1e-6)
    x, y, z = raw[1].T  # looks to +x: a quarter turn clockwise
    np.testing.assert_allclose(seven.points, np.stack([-z, -x, y], axis=1), atol=1e-6)


def test_files_that_are_not_what_they_should_be_are_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree / "human_seg/shrec07_lpsb_human10_8parts.npz"
    write(path, ["1"], parts=np.array(HUMAN_PARTS[::-1]))
    with pytest.raises(DataError, match=r"parts: expected head, torso, .* found foot, lowerleg"):
        list(HumanSeg("shrec07", tree).samples())
    write(path, ["1"], point_labels=np.zeros((1, 63), np.int8))
    with pytest.raises(DataError, match=r"point_labels: expected shape \(1, 64\) .* found \(1, 63\)"):
        list(HumanSeg("shrec07", tree).samples())
    np.savez(path, points=np.zeros((1, 4, 3)))
    with pytest.raises(DataError, match="expected the arrays points, point_labels, names, parts, found"):
        list(HumanSeg("shrec07", tree).samples())
    path.unlink()
    with pytest.raises(DataError, match="expected the set 'shrec07', found no file"):
        HumanSeg("shrec07", tree).fingerprint()
    with pytest.raises(DataError, match="name: expected one of faust, shrec07, found 'tosca'"):
        HumanSeg("tosca")  # type: ignore[arg-type]
    monkeypatch.delenv("ISTHMUS_DATA", raising=False)
    with pytest.raises(DataError, match="expected the environment variable ISTHMUS_DATA"):
        HumanSeg("faust").fingerprint()


@real
@pytest.mark.parametrize(("name", "counts"), [("faust", (70, 10, 20)), ("shrec07", (6, 2, 2))])
def test_the_real_bodies_stand_upright_with_all_parts(name: str, counts: tuple[int, int, int]) -> None:
    found = list(HumanSeg(name).samples())  # type: ignore[arg-type]
    parts = [sample.part for sample in found]
    assert tuple(parts.count(part) for part in ("train", "val", "test")) == counts
    for sample in found:
        assert sample.points.shape == (2048, 3) and set(sample.point_labels.tolist()) == set(range(8))
        assert np.ptp(sample.points[:, 2]) > 1.2
        heights = [sample.points[sample.point_labels == part, 2].mean() for part in (HEAD, LOWER_LEG, FOOT)]
        assert heights[0] > heights[1] + 0.8 and heights[0] > heights[2] + 1.1, sample.name


@real
@pytest.mark.parametrize("name", ["faust", "shrec07"])
def test_the_real_bodies_face_the_front(name: str) -> None:
    shoulders, toes = [], []
    for sample in HumanSeg(name).samples():  # type: ignore[arg-type]
        arms = sample.points[sample.point_labels == UPPER_ARM, :2]
        right = arms[:, 0] < np.median(arms[:, 0])
        x, y = arms[~right].mean(axis=0) - arms[right].mean(axis=0)
        shoulders.append(abs(np.degrees(np.arctan2(y, x))))
        foot, leg = (sample.points[sample.point_labels == part].mean(axis=0) for part in (FOOT, LOWER_LEG))
        toes.append(foot[1] - leg[1])
    # One of FAUST's ten poses turns the shoulders, and legs that bend put feet behind them in others.
    assert np.mean(np.array(shoulders) < 35) >= (0.9 if name == "faust" else 1.0)
    assert np.median(toes) < -0.03
