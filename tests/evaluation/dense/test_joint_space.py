import math
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dense_testing import NAMES, batch, mapping, rows, segnet, settled, tasks
from isthmus.data.image_augment import ImageAugment
from isthmus.evaluation.dense.joint_space import first_component, joint_space_maps
from isthmus.methods.mtpsl import MTPSL, JointSpaceOptions

CODES = {pair: number for number, pair in enumerate(permutations(NAMES, 2))}
"""Off-diagonal entries of the matrix of pairs, row by row."""


def method(**options: Any) -> MTPSL:
    torch.manual_seed(0)
    codes = None if options.get("condition") == "none" else 6
    network = mapping(codes, film_inputs=codes is not None)
    return settled(MTPSL(segnet(), tasks(), network, ImageAugment(), JointSpaceOptions(**options)), training=False)


@torch.no_grad()
def direct(method: MTPSL, image: Any, source: str, labels: Any, target: str, **options: Any) -> float:
    """One prediction and one label through the mapping network, each in a call of its own."""
    task, output = method.tasks[source], method.predict(image.inputs)[source]
    prediction = method.mapping.embed(source, task.prediction_map(output))
    label = method.mapping.embed(target, method.tasks[target].label_map(labels.labels[target], labels.valid[target]))
    condition = options.get("condition", "input-and-pair")
    forwards = torch.tensor([CODES[source, target]])
    backwards = forwards if condition == "pair" else torch.tensor([CODES[target, source]])
    if condition == "none":
        first, second = method.mapping(prediction, None), method.mapping(label, None)
    else:
        first, second = method.mapping(prediction, forwards), method.mapping(label, backwards)
    a, b = first[0].double().numpy(), second[0].double().numpy()
    if options.get("joint_space") == "map":
        dot, norms = (a * b).sum(axis=0), np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
        return float(np.mean(np.where(norms > 0, dot / np.maximum(norms, 1e-12), 0)))
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    "options", [{}, {"condition": "pair"}, {"condition": "none"}, {"condition": "pair", "joint_space": "map"}]
)
def test_cosines_are_those_of_direct_calls(options: dict[str, Any]) -> None:
    found, images = method(**options), batch(["SDN"] * 3)
    first, others = rows(images, slice(0, 1)), rows(images, slice(1, 3))
    maps = joint_space_maps(found, first, others)
    assert [(each.source, each.target) for each in maps] == list(CODES)
    for each in maps:
        expected = direct(found, first, each.source, first, each.target, **options)
        assert each.similarity == pytest.approx(expected, abs=1e-5)
        apart = [
            direct(found, first, each.source, rows(images, slice(i, i + 1)), each.target, **options) for i in (1, 2)
        ]
        assert each.elsewhere == pytest.approx(np.mean(apart), abs=1e-5)
    assert len({round(each.similarity, 6) for each in maps}) > 1


@torch.no_grad()
def test_maps_are_the_shared_component_of_features_less_what_all_labels_have_in_common() -> None:
    found, images = method(), batch(["SDN"] * 3)
    first, others = rows(images, slice(0, 1)), rows(images, slice(1, 3))
    (pair,) = [p for p in joint_space_maps(found, first, others) if (p.source, p.target) == ("depth", "normals")]
    task = found.tasks["depth"]
    prediction = found.mapping.embed("depth", task.prediction_map(found.predict(first.inputs)["depth"]))
    labels = found.mapping.embed(
        "normals", found.tasks["normals"].label_map(images.labels["normals"], images.valid["normals"])
    )
    there, back = CODES["depth", "normals"], CODES["normals", "depth"]
    features = found.mapping.features(torch.cat([prediction, labels]), torch.tensor([there, back, back, back]))
    expected = first_component(features[:2] - features[1:].mean(dim=0))
    np.testing.assert_allclose(np.stack([pair.prediction, pair.label]), expected, atol=1e-4)
    assert pair.prediction.shape == features.shape[2:]
    alone = {(p.source, p.target): p for p in joint_space_maps(found, first)}["depth", "normals"]
    np.testing.assert_allclose(np.stack([alone.prediction, alone.label]), first_component(features[:2]), atol=1e-4)
    assert alone.similarity == pytest.approx(pair.similarity, abs=1e-6) and math.isnan(alone.elsewhere)


def test_only_pairs_whose_target_has_a_label() -> None:
    found = joint_space_maps(method(), batch(["D"]), batch(["SN", "S"]))
    assert [(pair.source, pair.target) for pair in found] == [("segmentation", "depth"), ("normals", "depth")]
    assert all(math.isnan(pair.elsewhere) for pair in found)  # no other image has a depth label
    assert joint_space_maps(method(), batch([""])) == []


def test_labels_of_unlabelled_pixels_do_not_count() -> None:
    found, image = method(), batch(["SDN"])
    labels = dict(image.labels)
    labels["depth"] = torch.where(image.valid["depth"][:, None], labels["depth"], torch.tensor(99.0))
    spoilt = replace(image, labels=labels)
    for one, other in zip(joint_space_maps(found, image), joint_space_maps(found, spoilt)):
        assert one.similarity == other.similarity


class TestFirstComponent:
    def test_against_the_covariance_of_inner_places(self) -> None:
        features = (
            torch.randn(2, 5, 12, 14, generator=torch.Generator().manual_seed(0))
            * torch.tensor([1, 3, 1, 1, 1.0])[:, None, None]
        )
        found = first_component(features)
        places = features.double().numpy().transpose(0, 2, 3, 1)
        inner = places[:, 2:-2, 2:-2].reshape(-1, 5)
        direction = np.linalg.eigh(np.cov(inner.T))[1][:, -1]
        values = places @ direction
        if np.corrcoef((inner - inner.mean(axis=0)) @ direction, (inner - inner.mean(axis=0)).mean(axis=1))[0, 1] < 0:
            values = -values
        low, high = np.percentile(values[:, 2:-2, 2:-2], [1, 99])
        np.testing.assert_allclose(found, ((values - low) / (high - low)).clip(0, 1), atol=1e-5)
        assert found.dtype == np.float32

    def test_the_sign_does_not_depend_on_chance(self) -> None:
        features = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(1)) + 1
        np.testing.assert_allclose(first_component(features), first_component(features.flip(1)), atol=1e-5)

    def test_a_constant_map_has_no_colours(self) -> None:
        assert np.isfinite(first_component(torch.ones(2, 4, 6, 6))).all()


def test_maps_of_a_trained_run(runs: Any, tmp_path: Path) -> None:
    from isthmus.data.image_stream import read_batch
    from isthmus.evaluation.load import load_method
    from isthmus.training.dense.problem import DenseProblem

    problem, trained = DenseProblem(runs.mtpsl.recipe), load_method(runs.mtpsl)
    assert isinstance(trained, MTPSL)
    store = problem.source
    present = {name: store.present[:, list(store.tasks).index(name)] for name in problem.tasks}
    maps = joint_space_maps(trained, read_batch(store, store.indices("test")[:1], present, "test"))
    assert len(maps) == 12
    for each in maps:
        assert -1 <= each.similarity <= 1 and each.prediction.min() >= 0 and each.label.max() <= 1
