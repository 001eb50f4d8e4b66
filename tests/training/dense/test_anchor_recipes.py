"""The named anchor-task recipes: all are valid and can be built; tasks, taps and boundaries can be chosen."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from anchor_runs import small

from dense_testing import changed, total
from isthmus.cli import common
from isthmus.data.randomness import Progress
from isthmus.errors import IsthmusError
from isthmus.methods.adversarial import Adversarial
from isthmus.models.resnet_fpn import ResNetFPN
from isthmus.tasks.build_dense import dense_task
from isthmus.training.dense.anchor_presets import TAPS, anchor_recipes, anchor_rows, pairs
from isthmus.training.dense.build import build_method, build_reader, build_tasks
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import AdversarialSpec, DenseRecipe
from isthmus.training.engine import train
from isthmus.training.optimisation import build_optimizers, check_stages, freeze, set_learning_rate, training_mode
from isthmus.training.presets import named
from isthmus.training.recipe import StageSpec, parse
from isthmus.training.run import read_checkpoint

PRESETS = anchor_recipes()
CLASSES = {"segmentation": ("wall", "floor", "bed"), "keypoints": ("nose", "left_eye", "right_eye")}
BUILT = ("rooms", "faces", "yale", "sfs-facewarehouse")
"""Pairs that differ in what is built: tasks, masks, layers of networks and of discriminators."""


def test_the_promised_names_are_there() -> None:
    for pair in ("rooms", "faces", "sfs-facewarehouse", "suncg-nyud", "folder", "faces-frontal", "rooms-views1"):
        assert f"headfreeze/{pair}" in PRESETS and f"headfreeze-dann/{pair}" in PRESETS
    assert {f"mtl-both-dann-{tap}/rooms" for tap in TAPS} <= PRESETS.keys() and len(TAPS) == 8
    assert "mtl-both-advent/rooms" in PRESETS and "mtl-both-advent/faces" not in PRESETS


def test_every_preset_is_valid_and_survives_yaml() -> None:
    """The trip through YAML for every row and for every pair; tests/training/test_recipe.py does it with all."""
    assert len(PRESETS) > 250
    for name, make in PRESETS.items():
        recipe = make()
        row, _, pair = name.partition("/")
        assert type(recipe).model_validate(recipe.model_dump()) == recipe and recipe.name == name, name
        if pair == "rooms" or row == "headfreeze-dann":
            assert parse(yaml.safe_load(recipe.dump())) == recipe, name
        assert recipe.uses_target_labels == (row == "oracle"), name
        assert sum(stage.steps for stage in recipe.stages) == pairs()[pair]().steps, name
        frozen = [stage.frozen_after for stage in recipe.stages]
        assert frozen == ([None, "up2"] if row.startswith("headfreeze") else [None]), name
        assert recipe.augment.scales == (1.0,) and recipe.augment.flip == 0, name
        games = isinstance(recipe.method, AdversarialSpec)
        assert games == bool(anchor_rows()[row].adversary) == ("confusion" in recipe.rules), name


@pytest.mark.parametrize("pair", BUILT)
def test_every_row_can_be_built_and_names_what_is_there(pair: str) -> None:
    """Boundaries, taps, prefixes of optimisers: :func:`check_stages` and :func:`build_method` refuse what is not."""
    for row in anchor_rows():
        if f"{row}/{pair}" not in PRESETS:
            continue
        tiny: dict[str, object] = {"network__width": 0.0625, "network__decoder_channels": 16}
        recipe = PRESETS[f"{row}/{pair}"]()
        for index, _ in enumerate(getattr(recipe.method, "adversaries", ())):
            tiny[f"method__adversaries__{index}__hidden"] = 4
        recipe = changed(recipe, **tiny)
        tasks = {recipe.task(name): CLASSES.get(recipe.task(name), ()) for name in recipe.tasks}
        method = build_method(recipe, build_tasks(recipe, tasks))
        check_stages(method, recipe.stages)
        if isinstance(method, Adversarial):
            assert isinstance(recipe.method, AdversarialSpec)
            wanted = [each.tap.replace("main", "normals") for each in recipe.method.adversaries]
            assert [tap.name for tap in method.taps] == [w.replace("anchor", "segmentation") for w in wanted]


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_any_other_main_and_anchor_task_can_be_named(tmp_path: Path) -> None:
    recipe = common.changed(named("headfreeze/rooms"), common.parse_changes(["--main", "depth", "--anchor", "edges"]))
    assert isinstance(recipe, DenseRecipe)
    assert (recipe.main, recipe.anchor, recipe.tasks) == ("depth", "edges", ("main", "anchor"))
    run = train(small("headfreeze/rooms", (2, 2), main="depth", anchor="edges"), tmp_path / "run")
    heads = {key.split(".")[2] for key in run.weights("last") if key.startswith("network.heads.")}
    assert heads == {"depth", "edges"}
    files = {file.name for file in (run.path / "checkpoints").iterdir()}
    assert {"source.val-depth.pt", "source.val-edges.pt", "frozen.source-val.pt"} <= files
    row = next(row for row in run.rows("metrics") if row["stage"] == "frozen" and "learning_rate" in row)
    assert {"loss/depth/source", "loss/edges/source", "loss/edges/target"} <= row.keys()
    assert "loss/depth/target" not in row
    ratio = row["weighted/edges/target"] / row["loss/edges/target"]
    assert ratio == pytest.approx(pairs()["rooms"]().anchor_weight)


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("headfreeze", {"stages__1__frozen_after": "up4"}, r"frozen_after: .*one of stem, .*, up2, .*, found 'up4'"),
        ("headfreeze", {"stages__0__domains": ["sourc"]}, r"stages\.0\.domains\.0: .*'source' or 'target'"),
        ("mtl-source", {"stages__0__domains": ["target"]}, r"train\.domains: expected some of source, .*found target"),
        ("headfreeze", {"stages__1__start_from": "confusion"}, r"stages\.1\.start_from: .*, scratch, found 'conf"),
        ("headfreeze", {"main": "depht"}, r"tasks: expected some of .*depth, .*, found depht"),
        ("headfreeze", {"anchor": "edgs"}, r"tasks: expected some of .*edges, found edgs"),
        ("headfreeze", {"anchor": "normals"}, r"anchor: expected another task than main, found 'normals'"),
        ("mtl-both", {"target__labels__tasks": ["depth"]}, r"labels\.tasks: expected some of .*, found 'depth'"),
        ("mtl-both", {"task_weights": {"depth": 2.0}}, r"task_weights: expected some of .*, found 'depth'"),
        ("mtl-both-dann", {"target": None}, r"target: expected a second domain for adversaries .*, found none"),
        ("mtl-both-dann", {"method__adversaries__0__tap": "layer5"}, r"adversaries\.tap: .*, found 'layer5'"),
        ("mtl-both-dann", {"method__adversaries__0__tap": "output"}, r"adversaries\.tap: .*, found 'output'"),
        ("mtl-both-dann", {"method__adversaries__0__tap": "output/edges"}, r"adversaries\.tap: .*, found 'output/edg"),
        ("mtl-both-dann", {"method__adversaries__0__mask": "parts"}, r"adversaries\.mask: .*, found 'parts'"),
        ("mtl-both-dann", {"method__adversaries__0__label_noise": 0.7}, r"adversaries\.0\.label_noise: .*found 0\.7"),
        ("mtl-both-dann", {"method__adversaries__0__start": 1.0}, r"adversaries\.0\.start: .*found 1\.0"),
        (
            "mtl-both-dann-up3-out",
            {"method__adversaries__0__tap": "output/normals"},
            r"adversaries: expected taps of their own, found output/normals, output/normals",
        ),
        ("mtl-both-dann", {"method__adversaries": []}, r"adversaries: expected at least one, found none"),
        ("mtl-both-advent", {"anchor": "depth"}, r"self_information: .*task with classes, found 'output/depth'"),
        ("mtl-both-dann", {"stages__0__optimizers": {"adversary": "sgd"}}, r"optimizers: no part .*did you mean 'adv"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(
    name: str, changes: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(IsthmusError, match=complaint) as error:
        steps = (2, 2) if name == "headfreeze" else (2,)
        train(small(f"{name}/rooms", steps, **changes), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_entropy_maps_are_of_probabilities_and_heat_maps_are_none(tmp_path: Path) -> None:
    recipe = named("mtl-both-dann-out/faces")
    recipe = changed(recipe, method__adversaries__0__tap="output/anchor", method__adversaries__0__self_information=True)
    with pytest.raises(IsthmusError, match=r"self_information: .*task with classes, found 'output/keypoints'"):
        build_method(recipe, build_tasks(recipe, {"normals": (), "keypoints": CLASSES["keypoints"]}))


def test_the_best_confused_checkpoint_is_chosen(tmp_path: Path) -> None:
    """By the largest running accuracy of all discriminators, at least one half; of equal ones the last."""
    changes: dict[str, object] = {"method__adversaries__0__start": 0.3, "method__adversaries__1__start": 0.5}
    changes |= {"evaluate_every": 1, "seed": 1, "stages__0__learning_rate_scale": {"adversaries": 100.0}}
    changes |= {"stages__0__learning_rate": 1e-3, "augment__colour_shift": 0.0}
    run = train(small("mtl-both-dann-layer4-out/rooms", (8,), **changes), tmp_path / "run")
    accuracies = {}
    for row in run.rows("metrics"):
        if "learning_rate" in row:
            accuracies[row["step"]] = [value for key, value in row.items() if key.startswith("accuracy/")]
    scores = {row["step"]: row.get("score/confusion") for row in run.rows("metrics") if "score/source-val" in row}
    assert [len(accuracies[step]) for step in range(1, 9)] == [0, 0, 0, 1, 2, 2, 2, 2]
    expected = {step: -max(0.5, *found) if len(found) == 2 else None for step, found in accuracies.items()}
    assert scores == {step: pytest.approx(value) if value else None for step, value in expected.items()}
    known = {step: value for step, value in expected.items() if value is not None}
    best = max(step for step, value in known.items() if value == max(known.values()))
    assert len(set(known.values())) > 1 and best < 8
    assert read_checkpoint(run.weights_file("train", "confusion"))["step"] == best


def test_without_adversaries_nothing_is_chosen_by_confusion(tmp_path: Path) -> None:
    run = train(small("mtl-both/rooms", (2,)), tmp_path / "run")
    assert "confusion" not in run.recipe.rules
    assert not any("confusion" in key or "accuracy" in key for row in run.rows("metrics") for key in row)
    assert not list((run.path / "checkpoints").glob("*confusion*"))


def behind(boundary: str) -> set[str]:
    """Spelt out."""
    order = ["stem", "layer1", "layer2", "layer3", "layer4", "up1", "up2", "up3", "heads"]
    later = set(order[order.index(boundary) + 1 :])
    return later | ({"vectors"} if later else set())


@pytest.mark.parametrize("boundary", ResNetFPN.boundaries)
def test_everything_behind_any_boundary_can_be_frozen(boundary: str) -> None:
    """Steps as the engine makes them; statistics of BatchNorm count."""
    recipe = small("headfreeze/faces", (2, 2))
    problem = DenseProblem(recipe)
    method = problem.build_method()
    stage = StageSpec(**{**recipe.stages[1].model_dump(), "frozen_after": boundary, "learning_rate": 0.01})
    freeze(method, stage)
    optimizers = build_optimizers(method, stage)
    training_mode(method, stage)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    streams = problem.streams(method)
    set_learning_rate(optimizers, 0.01)
    for step in range(2):
        progress = Progress(0, 1, step, 2)
        total(method({name: stream.batch(progress, step) for name, stream in streams.items()}, progress)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    parts: dict[str, list[bool]] = {}
    for key, value in method.state_dict().items():
        parts.setdefault(key.split(".")[1], []).append(torch.equal(value, before[key]))
    still = {part for part, same in parts.items() if all(same)}
    assert still == behind(boundary)
    assert not [part for part, same in parts.items() if any(same) and part not in still]
    assert parts.keys() == {*ResNetFPN.boundaries, "vectors"}


def test_heat_maps_of_the_points_are_what_an_adversary_of_keypoints_is_shown() -> None:
    recipe = changed(
        small("mtl-both-dann-out/faces", (2,)), method__adversaries__0__tap="output/anchor",
    )  # fmt: skip
    problem = DenseProblem(recipe)
    method = problem.build_method()
    assert isinstance(method, Adversarial)
    points = len(problem.source.tasks["keypoints"])

    convolution = next(m for m in method.adversaries[0].modules() if isinstance(m, torch.nn.Conv2d))
    assert convolution.in_channels == points == dense_task("keypoints", problem.source.tasks["keypoints"]).channels
    progress = Progress(0, 0, 9, 10)
    batches = {name: stream.batch(progress, 0) for name, stream in problem.streams(method).items()}
    value = total(method(batches, progress))
    assert math.isfinite(float(value.detach())) and np.isfinite(method.measures().popitem()[1])


@pytest.mark.skipif(not os.environ.get("ISTHMUS_DATA"), reason="ISTHMUS_DATA does not name the data directory")
@pytest.mark.parametrize("name", ["yale", "rooms-views1", "rooms-views4"])
def test_the_real_pairs_name_persons_and_rooms_that_are_there(name: str) -> None:
    samples = list(build_reader(pairs()[name]().target.data).samples())
    parts = {part: {sample.group for sample in samples if sample.part == part} for part in ("train", "test")}
    assert all(parts.values()) and not parts["train"] & parts["test"]
