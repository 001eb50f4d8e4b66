from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from frame_runs import by_hand, changed, small
from frame_testing import CLASSES, Frames, frame

from isthmus.data.frames import NO_LABEL, Frame
from isthmus.data.randomness import Progress
from isthmus.errors import DataError
from isthmus.methods.cross_modal import LABEL, CrossModal
from isthmus.training.engine import train
from isthmus.training.frames.problem import FrameProblem
from isthmus.training.recipe import PseudoLabelSpec

START = Progress(0, 0, 0, 4)
SIZE = (20, 24)
SMALL = {"image_network__width": 0.125, "point_network__channels": 4, "point_network__levels": 2}


def frames(seed: int, part: dict[str, int], size: tuple[int, int] | None = SIZE, version: int = 0) -> Frames:
    """Frames of 10 to 14 points whose numbers begin at ``seed``."""
    numbers = [name for name, count in part.items() for _ in range(count)]
    return Frames(tuple(frame(seed + i, 10 + i % 5, size, name) for i, name in enumerate(numbers)), version=version)


def without(given: Frames, *classes: int) -> Frames:
    """Points of these classes lose their labels."""
    kept = []
    for each in given.given:
        assert isinstance(each, Frame)
        kept.append(
            each._replace(labels=np.where(np.isin(each.labels, classes), NO_LABEL, each.labels).astype(np.uint8))
        )
    return replace(given, given=tuple(kept), version=given.version + 10)


PARTS = {"train": 5, "val": 2, "test": 2}


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Frames, Frames]:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    found = frames(0, PARTS), frames(100, PARTS, version=1)
    by_hand(monkeypatch, *found)
    return found


def problem(row: str = "source-only", **changes: object) -> FrameProblem:
    return FrameProblem(small(f"{row}/streets-light", **{**SMALL, **changes}))


def labels_of(row: str, **changes: object) -> dict[str, set[str]]:
    found = problem(row, **changes)
    return {name: set(stream.labels) for name, stream in found.streams(found.build_method()).items()}


def test_a_method_sees_source_labels_and_an_oracle_the_targets(data: tuple[Frames, Frames]) -> None:
    assert labels_of("source-only") == {"source": {LABEL}}
    assert labels_of("oracle") == {"target": {LABEL}}
    assert labels_of("xmuda") == labels_of("min-entropy") == labels_of("pl") == {"source": {LABEL}, "target": set()}


def test_only_training_frames_are_trained_on(data: tuple[Frames, Frames]) -> None:
    found = problem("xmuda")
    for stream in found.streams(found.build_method()).values():
        seen = {row for step in range(5) for row in stream.batch(START._replace(step=step), step).sample_id.tolist()}
        assert seen == set(range(5))


def test_counts_and_shares_are_of_source_training_labels(data: tuple[Frames, Frames]) -> None:
    found, expected = problem("fcns-in-the-wild"), np.zeros(len(CLASSES), dtype=int)
    shares: list[list[float]] = [[] for _ in CLASSES]
    for each in data[0].given[:5]:
        known = [label for label in each.labels.tolist() if label != NO_LABEL]
        for index in range(len(CLASSES)):
            expected[index] += known.count(index)
            if known.count(index):
                shares[index].append(known.count(index) / len(known))
    assert found.counts.tolist() == expected.tolist()
    kept = found.build_method().state_dict()["shares_mean"]
    assert kept.tolist() == pytest.approx([float(np.mean(each)) for each in shares])


def test_what_a_run_is_told_of_its_data(data: tuple[Frames, Frames]) -> None:
    found = problem()
    assert found.description() == {"classes": list(CLASSES), "size": list(SIZE)}
    assert found.stores.keys() == {"source", "target"} and found.stores["source"] != found.stores["target"]
    assert found.accounts()[0].startswith("source: 9 frames, 106 points, 0 left out")
    assert tuple(found.tasks) == ("2D", "3D", "average") and found.tested is found.target


def test_classes_have_to_agree(monkeypatch: pytest.MonkeyPatch, data: tuple[Frames, Frames]) -> None:
    by_hand(monkeypatch, data[0], replace(data[1], classes=("road", "car", "bush")))
    with pytest.raises(DataError, match="expected the classes of the source, road, car, tree, found road, car, bush"):
        problem()


def test_the_2d_stream_needs_images(monkeypatch: pytest.MonkeyPatch, data: tuple[Frames, Frames]) -> None:
    by_hand(monkeypatch, data[0], frames(100, PARTS, None, version=3))
    with pytest.raises(DataError, match=r"expected images for the 2D stream, found sweeps alone; set streams: \[3D\]"):
        problem()
    problem(streams=["3D"])


@pytest.mark.parametrize("row", ["source-only", "oracle"])
def test_something_to_learn_from_is_needed(
    row: str, monkeypatch: pytest.MonkeyPatch, data: tuple[Frames, Frames], tmp_path: Path
) -> None:
    bare = [without(each, 0, 1, 2) for each in data]
    by_hand(monkeypatch, *((bare[0], data[1]) if row == "source-only" else (data[0], bare[1])))
    recipe = small(f"{row}/streets-light", **SMALL)
    with pytest.raises(DataError, match=r"expected labelled frames to train on \(part 'train'\), found none"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("domain", ["source", "target"])
def test_a_crop_larger_than_the_images_is_refused_before_training(domain: str, data: tuple[Frames, Frames]) -> None:
    found = problem(**{f"{domain}__augment__crop": [20, 25]})
    with pytest.raises(DataError, match=rf"{domain}.augment.crop: expected at most the images' 20 x 24, found 20 x 25"):
        found.check()
    problem(**{f"{domain}__augment__crop": [20, 24]}).check()


@pytest.mark.parametrize("row", ["fcns-in-the-wild", "cmal-pl", "clan"])
def test_classes_that_a_domain_or_a_part_lacks_and_frames_without_labels(
    row: str, monkeypatch: pytest.MonkeyPatch, data: tuple[Frames, Frames], tmp_path: Path
) -> None:
    """The source has no tree in training, its validation no car; the target's test part has roads alone."""
    source, target = data
    train_part = without(replace(source, given=source.given[:5]), 2).given
    bare = (train_part[0]._replace(labels=None), *train_part[1:])
    held_out = without(replace(source, given=source.given[5:]), 1).given
    roads = without(replace(target, given=target.given[7:]), 1, 2).given
    by_hand(
        monkeypatch,
        replace(source, given=(*bare, *held_out), version=5),
        replace(target, given=(*target.given[:7], *roads), version=6),
    )
    run = train(small(f"{row}/streets-light", (2, 2), **SMALL), tmp_path / "run")
    assert run.finished
    last = run.weights("last")
    assert last["class_weights"].isfinite().all() and last["class_weights"][2] == last["class_weights"].max()
    assert all(value.isfinite().all() for name, value in last.items() if "shares" not in name)
    scores = [row["score/source-val"] for row in run.rows("metrics") if "score/source-val" in row]
    assert scores and all(np.isfinite(scores))


def test_an_oracle_needs_no_source_label(monkeypatch: pytest.MonkeyPatch, data: tuple[Frames, Frames]) -> None:
    by_hand(monkeypatch, without(data[0], 0, 1, 2), data[1])
    found = problem("oracle")
    found.check()
    assert found.build_method().class_weights.tolist() == [1.0, 1.0, 1.0]


def test_pseudo_labels_reach_the_points_they_were_made_for(data: tuple[Frames, Frames], tmp_path: Path) -> None:
    found = problem("cmal-pl")
    method = found.build_method().eval()
    assert isinstance(method, CrossModal)
    with torch.no_grad():
        account = found.write_pseudo_labels(method.predict, PseudoLabelSpec(class_share=0.5), tmp_path / "labels.npz")
    streams = found.streams(method)
    found.use_pseudo_labels(tmp_path / "labels.npz", streams)
    total = sum(len(each.points) for each in data[1].given[:5])
    assert account.startswith(f"pseudo-labels of {total} points: ")
    batch = replace(streams["target"], augment=lambda batch, random: batch).batch(START, 0)
    assert batch.labels.keys() == {"pseudo_2D", "pseudo_3D"}
    with torch.no_grad():
        predictions = method.predict(batch.inputs)
    for stream in ("2D", "3D"):
        valid, labels = batch.valid[f"pseudo_{stream}"], batch.labels[f"pseudo_{stream}"]
        assert valid.any() and not (valid[:, 0] & ~batch.inputs["present_points"]).any()
        assert torch.equal(labels[valid], predictions[stream].argmax(dim=1)[valid])


def test_rows_of_other_seeds_start_from_other_weights(data: tuple[Frames, Frames]) -> None:
    one = problem().build_method().state_dict()
    again, other = problem().build_method().state_dict(), problem(seed=1).build_method().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not all(torch.equal(value, other[name]) for name, value in one.items())
    assert changed(small("source-only/streets-light"), seed=1).seed == 1
