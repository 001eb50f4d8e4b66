from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from isthmus.evaluation.dense import features
from isthmus.evaluation.dense.features import FIXED, location_names, places, plane, sampled_features, shown_rows
from isthmus.evaluation.load import load_method
from isthmus.methods.multi_task import MultiTask
from isthmus.models.dense import DenseFeatures
from isthmus.tasks.depth import Depth
from isthmus.training.dense.problem import DenseProblem

from .conftest import AnchoredRuns, Runs


class TestPlane:
    def test_coordinates_are_those_of_an_independent_pca(self) -> None:
        generator = np.random.default_rng(0)
        source, target = generator.normal(size=(9, 5)), generator.normal(size=(7, 5)) * 2 + 1
        found, reference = plane(source, target), PCA(2)
        expected = reference.fit_transform(np.concatenate([source, target]))
        assert found is not None
        together = np.concatenate([found.source, found.target])
        np.testing.assert_allclose(np.abs(together), np.abs(expected), atol=1e-9)
        assert found.explained == pytest.approx(reference.explained_variance_ratio_.sum())
        assert (found.target.mean(axis=0) >= found.source.mean(axis=0)).all()

    def test_gap_is_a_distance_of_means_in_units_of_the_spread(self) -> None:
        source = np.array([[-1.0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]])
        found = plane(source, source + np.array([0, 0, 3.0]))
        assert found is not None and found.gap == pytest.approx(3) and found.chance == pytest.approx(np.sqrt(0.5))
        same = plane(source, source)
        assert same is not None and same.gap == 0

    def test_chance_is_what_samples_of_one_distribution_have(self) -> None:
        generator = np.random.default_rng(0)
        squares = []
        for _ in range(300):
            found = plane(generator.normal(size=(16, 30)), generator.normal(size=(16, 30)))
            assert found is not None
            squares.append(found.gap**2)
        assert np.sqrt(np.mean(squares)) == pytest.approx(found.chance, rel=0.08)

    def test_vectors_without_a_place_do_not_count(self) -> None:
        generator = np.random.default_rng(0)
        source, target = generator.normal(size=(5, 4)), generator.normal(size=(6, 4))
        holes = np.concatenate([target, np.full((2, 4), np.nan)])
        one, other = plane(source, target), plane(source, holes)
        assert one is not None and other is not None and len(other.target) == 6
        np.testing.assert_array_equal(one.target, other.target)

    def test_nothing_to_see(self) -> None:
        assert plane(np.zeros((5, 3)), np.zeros((5, 3))) is None
        assert plane(np.eye(3)[:2], np.eye(3)) is None


class Ramp(torch.nn.Module):
    """A network whose only tap says where it is: column and row of each of its pixels."""

    boundaries = ("grid", "heads")

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image: torch.Tensor) -> DenseFeatures:
        rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
        maps = torch.stack([columns, rows])[None] + image.mean(dim=(1, 2, 3), keepdim=True)
        return DenseFeatures({"depth": maps[:, :1]}, maps, {"grid": maps})


class TestSampling:
    def test_features_lie_between_the_centres_of_the_map(self) -> None:
        images = np.zeros((9, 16, 24, 3), dtype=np.uint8)
        images[3] = 255
        store: Any = SimpleNamespace(images=images)
        method = MultiTask(Ramp(), {"depth": Depth()})
        where = np.tile(np.array([[1.5 / 6, 2.5 / 4], [2 / 6, 1 / 4], [0, 0], [np.nan, 0.5]]), (9, 1, 1))
        found = sampled_features(method, store, np.arange(9), where, ["grid"])["grid"]
        assert found.shape == (9, 4, 2)
        np.testing.assert_allclose(found[0, :3], [[1, 2], [1.5, 0.5], [0, 0]], atol=1e-5)
        np.testing.assert_allclose(found[3, :3], [[2, 3], [2.5, 1.5], [1, 1]], atol=1e-5)
        assert np.isnan(found[:, 3]).all()

    def test_taps_of_a_trained_run(self, anchors: AnchoredRuns) -> None:
        method, problem = load_method(anchors.faces), DenseProblem(anchors.faces.recipe)
        assert features.has_taps(method) and isinstance(method, MultiTask)
        rows = shown_rows(problem.source)
        image = torch.from_numpy(np.array(problem.source.images[rows[2:3]])).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            expected = method.network(image).taps["up2"]
        height, width = expected.shape[2:]
        where = np.full((len(rows), 1, 2), [1.5 / width, 2.5 / height])
        found = sampled_features(method, problem.source, rows, where, ["up2"])["up2"]
        np.testing.assert_allclose(found[2, 0], expected[0, :, 2, 1], atol=1e-4)

    def test_other_networks_have_no_taps(self, runs: Runs) -> None:
        assert not features.has_taps(load_method(runs.multi)) and not features.has_taps(None)


class TestLocations:
    def test_keypoints_far_from_each_other_the_central_one_first(self, anchors: AnchoredRuns) -> None:
        problem = DenseProblem(anchors.faces.recipe)
        assert problem.target is not None
        names = location_names(problem.source, problem.target)
        assert len(set(names)) == 4 and set(names) < set(problem.source.tasks["keypoints"])
        assert "nose" in names[0]
        rows = shown_rows(problem.target)
        found = places(problem.target, rows, names)
        columns = [problem.target.tasks["keypoints"].index(name) for name in names]
        np.testing.assert_array_equal(found, np.array(problem.target.labels("keypoints")[rows])[:, columns, :2])

    def test_fixed_places_without_keypoints(self, anchors: AnchoredRuns) -> None:
        problem = DenseProblem(anchors.base.recipe)
        assert problem.target is not None
        names = location_names(problem.source, problem.target)
        assert names == list(FIXED)
        found = places(problem.source, np.arange(3), names)
        assert found.shape == (3, 4, 2) and (found[0] == found[2]).all() and tuple(found[1, 2]) == (0.5, 0.5)

    def test_rows_are_spread_over_the_test_part(self, anchors: AnchoredRuns) -> None:
        store = DenseProblem(anchors.base.recipe).source
        rows = shown_rows(store, 3)
        test = store.indices("test")
        np.testing.assert_array_equal(rows, test[[0, 2, 5]])
        np.testing.assert_array_equal(shown_rows(store), test)
