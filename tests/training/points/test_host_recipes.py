import pytest
import torch

from isthmus.data.batch import Batch
from isthmus.data.randomness import Progress
from isthmus.errors import RecipeError
from isthmus.methods.self_supervised import SelfSupervised
from isthmus.pretexts.combined import Combined
from isthmus.training.points.build import build_method
from isthmus.training.points.presets import point_recipes
from isthmus.training.points.recipe import PointRecipe
from isthmus.training.presets import named
from isthmus.training.recipe import override, parse

ROWS = [f"{gate}{host}" for host in ("gast", "gast-spst", "mlsp", "implicit") for gate in ("", "smdsb/")]


def small(name: str, *changes: tuple[str, str]) -> PointRecipe:
    recipe = parse(override(named(name).model_dump(mode="json"), [("network.width", "0.125"), *changes]))
    assert isinstance(recipe, PointRecipe)
    return recipe


def batches() -> dict[str, Batch]:
    made = {}
    for domain in ("source", "target"):
        points = torch.nn.functional.normalize(torch.randn(4, 48, 3), dim=-1)
        known = torch.full((4,), domain == "source")
        labels = {"class": torch.tensor([0, 1, 2, 3])}
        made[domain] = Batch(domain, {"points": points}, labels, {"class": known}, torch.arange(4))
    return made


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("network", ["pointnet", "dgcnn"])
def test_every_row_takes_a_step_on_either_network(row: str, network: str) -> None:
    options = [("network.kind", network)] + ([("network.k", "8")] if network == "dgcnn" else [])
    method = build_method(small(f"sim/{row}", *options))
    assert isinstance(method, SelfSupervised) and (method.gate is not None) == row.startswith("smdsb/")
    losses = method(batches(), Progress(0, 0, 0, 10))
    name = row.removeprefix("smdsb/").split("-")[0]
    assert sorted(losses) == sorted(f"{loss}/{domain}" for loss in ("class", name) for domain in ("source", "target"))
    total = sum(loss.coefficient * loss.sum / loss.weight for loss in losses.values() if loss.weight > 0)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.network.encoder.parameters())


def test_gast_weighs_classification_and_both_tasks_as_published() -> None:
    method = build_method(small("sim/gast"))
    assert isinstance(method, SelfSupervised) and isinstance(method.pretext, Combined)
    losses = method(batches(), Progress(0, 0, 0, 10))
    assert (losses["class/source"].coefficient, losses["gast/source"].coefficient) == (0.5, 1.0)
    assert method.pretext.weights == {"distortion": 0.5, "rotation": 0.2}
    assert set(method.measures()) == {"gast/distortion", "gast/rotation"}


def test_a_task_of_weight_nothing_is_left_out() -> None:
    method = build_method(small("sim/gast", ("method.pretext.rotation_weight", "0")))
    assert isinstance(method, SelfSupervised) and isinstance(method.pretext, Combined)
    assert list(method.pretext.parts) == ["distortion"]
    with pytest.raises(RecipeError, match="expected one of them greater than 0"):
        small("sim/gast", ("method.pretext.rotation_weight", "0"), ("method.pretext.distortion_weight", "0"))


def test_self_paced_rounds_ask_for_more_and_more_confidence() -> None:
    for recipe, second in ((named("sim/gast-spst"), 200), (named("pointda/modelnet2scannet/gast-spst"), 40_000)):
        first, *rounds = recipe.stages
        assert first.pseudo_labels is None and sum(stage.steps for stage in rounds) == second
        asked = [stage.pseudo_labels.min_confidence for stage in rounds if stage.pseudo_labels is not None]
        assert asked == pytest.approx([0.8, 0.805, 0.81, 0.815, 0.82, 0.825, 0.83, 0.835, 0.84, 0.845])
        assert not recipe.uses_target_labels


@pytest.mark.parametrize(
    ("name", "radius"),
    [("pointda/scannet2shapenet/mlsp", 0.12), ("real/m2r/mlsp", 0.135), ("virtual/w2m/smdsb/mlsp", 0.135)],
)
def test_mlsp_counts_within_the_radius_of_the_target(name: str, radius: float) -> None:
    assert point_recipes()[name]().method.pretext.radius == radius  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "radius"),
    [("segda/mlsp", 0.081), ("segda/smdsb/mlsp", 0.081), ("pointsegda/mit2faust/mlsp", 0.091),
     ("pointsegda/faust2mit/smdsb/mlsp", 0.124), ("pointsegda/mit2adobe/mlsp", 0.0872),
     ("pointsegda/mit2scape/mlsp", 0.115)],
)  # fmt: skip
def test_mlsp_labels_points_with_its_own_numbers(name: str, radius: float) -> None:
    spec = point_recipes()[name]().method
    task = build_method(small(name)).pretext  # type: ignore[attr-defined]
    assert (spec.weight, spec.class_weight, spec.mixup) == (1.0, 0.98, False)  # type: ignore[union-attr]
    assert (task.position_weight, task.normal_weight, task.cardinality_weight) == (0.02, 0.02, 0.02)
    assert (task.radius, task.radius_points, task.neighbours, task.mask_weight) == (radius, 2048, 10, 2.0)
    assert (task.bin_width, task.shift, task.min_points, task.absolute_weight) == (5.0, 10, 20, 0.05)
    assert (spec.gate is not None) == ("smdsb/" in name)  # type: ignore[union-attr]


def test_mlsp_classifies_clouds_with_the_numbers_that_it_had() -> None:
    task = build_method(small("sim/mlsp")).pretext  # type: ignore[attr-defined]
    assert (task.position_weight, task.normal_weight, task.cardinality_weight) == (0.5, 0.5, 0.05)
    assert (task.radius, task.radius_points, task.neighbours, task.mask_weight) == (0.135, 1024, 20, 27.0)
    assert (task.bin_width, task.shift, task.min_points) == (2.0, 0, 40)


def test_a_pretext_can_be_named_by_one_word() -> None:
    assert small("sim/defrec", ("method.pretext", "implicit")).method.pretext.kind == "implicit"  # type: ignore[union-attr]
