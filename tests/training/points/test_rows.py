"""Every row of the point-cloud tables is built and trained, in all of its stages, on tiny simulated data."""

from pathlib import Path

import pytest
import torch

from isthmus.errors import RecipeError
from isthmus.evaluation.load import load_method
from isthmus.training.engine import train
from isthmus.training.points.recipe import PointRecipe
from isthmus.training.points.rows import CONTROLS, GATED, HOSTS, MAIN_HOST, PART_ROWS, ROWS, VARIANTS
from isthmus.training.presets import named
from isthmus.training.recipe import override, parse

NEEDS = {"pcgrad": "torchjd", "cagrad": "cvxpy", "upgrad": "quadprog"}


def tiny(name: str, *more: tuple[str, str]) -> PointRecipe:
    """Two steps of every stage on a few small clouds; of many rounds the first two."""
    row = name.rpartition("/")[2]
    if row in NEEDS:
        pytest.importorskip(NEEDS[row], reason=f"{NEEDS[row]} is an optional extra")
    values = named(name).model_dump(mode="json")
    values["stages"] = values["stages"][:3]
    changes = {"points": 48, "batch_size": 6, "network.width": 0.125, "log_every": 1, "evaluate_every": 2}
    changes |= {f"stages.{index}.steps": 2 for index in range(len(values["stages"]))}
    if name.startswith("segda/"):
        domains = {"source": "standing", "target": "scan"}
        changes |= {"network.k": 6, **domains}
    changes |= {f"{d}.data.{part}": 8 for d in ("source", "target") for part in ("train", "val", "test")}
    if row in ("pointdan", "dfan"):
        changes |= {"method.nodes": 8, "method.neighbours": 12}
    for index, stage in enumerate(values["stages"]):
        if stage["pseudo_labels"] is not None and stage["pseudo_labels"]["graph"] is not None:
            where = f"stages.{index}.pseudo_labels"
            changes |= {f"{where}.refresh_every": 1, f"{where}.graph.steps": 2}
    recipe = parse(override(values, [*((field, str(value)) for field, value in changes.items()), *more]))
    assert isinstance(recipe, PointRecipe)
    return recipe


@pytest.mark.parametrize("name", [*(f"sim/{row}" for row in ROWS), *(f"segda/{row}" for row in PART_ROWS)])
def test_a_row_is_trained_in_all_its_stages(name: str, cache: Path, tmp_path: Path) -> None:
    recipe = tiny(name)
    run = train(recipe, tmp_path / "run")
    assert run.finished
    weights = run.weights("last")
    assert all(value.isfinite().all() for key, value in weights.items() if "memory" not in key)
    logits = load_method(run, "last").predict({"points": torch.rand(2, 48, 3)})[recipe.predicts]
    assert logits.shape == ((2, 10) if recipe.predicts == "class" else (2, 8, 1, 48)) and logits.isfinite().all()
    assert bool(list(run.rows("gate"))) == (getattr(recipe.method, "gate", None) is not None)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("word", "kind"), [("none", None), ("skewness", "skewness"), ("random", "random")])
def test_any_host_takes_any_gate_on_either_network(host: str, word: str, kind: str | None) -> None:
    for network in ("pointnet", "dgcnn"):
        recipe = tiny(f"smdsb/{host}", ("network", network), ("method.gate", word))
        assert recipe.network.kind == network
        assert (None if recipe.method.gate is None else recipe.method.gate.kind) == kind  # type: ignore[union-attr]


@pytest.mark.parametrize("host", HOSTS)
def test_a_gated_host_is_the_host_but_for_its_gate(host: str) -> None:
    for setting in ("sim", "real/m2r", "virtual/w2m", "pointda/scannet2shapenet", "pointda-pointnet/scannet2shapenet"):
        plain, gated = named(f"{setting}/{host}"), named(f"{setting}/{GATED}{host}")
        assert plain.method.gate is None and gated.method.gate.kind == "skewness"  # type: ignore[attr-defined]
        changed = gated.method.model_copy(update={"gate": None})  # type: ignore[attr-defined]
        assert gated.model_copy(update={"name": plain.name, "method": changed}) == plain
        assert (plain.method_name, gated.method_name) == (host, f"smdsb/{host}")


def test_a_row_without_a_setting_is_on_simulated_objects() -> None:
    for row in ("dann", "pointdan", "dfan", *(f"{GATED}{host}" for host in HOSTS)):
        assert named(row) == named(f"sim/{row}").model_copy(update={"name": row})


def test_what_is_inferred_is_marked_in_tables() -> None:
    assert named("dfan").method_name == named("pointda/modelnet2scannet/dfan").method_name == "dfan (inferred)"


def test_controls_differ_from_their_host_by_what_they_are_named_after() -> None:
    host = named("sim/defrec-pcm").method.model_dump()  # type: ignore[attr-defined]
    for row, changes in CONTROLS.items():
        own = named(f"sim/{row}").method.model_dump()  # type: ignore[attr-defined]
        assert {field for field in own if own[field] != host[field]} == set(changes)


def test_variants_differ_from_the_gated_main_host_by_what_they_are_named_after() -> None:
    gated = named(f"sim/{GATED}{MAIN_HOST}")
    for variant, changes in VARIANTS.items():
        recipe = named(f"sim/{variant}")
        own, plain = recipe.method.model_dump(), gated.method.model_dump()  # type: ignore[attr-defined]
        assert {field for field in own if own[field] != plain[field]} == set(changes) - (
            {"gate"} if own["gate"] == plain["gate"] else set()
        )
        assert recipe.stages == gated.stages and recipe.method_name == variant
        assert own["gate"]["keep_end"] is not None or own["gate"]["keep"] == 0.8


def test_a_domain_of_bodies_can_be_named_by_one_word() -> None:
    values = named("segda/defrec").model_dump(mode="json")
    recipe = parse(override(values, [("source", "shrec07"), ("target", "posed")]))
    assert recipe.source.data.name == "shrec07" and recipe.source.train_on == ("train", "val", "test")
    assert recipe.target.data.domain == "posed" and recipe.setting == "shrec07→bodies-posed"
    refined = parse(override(values, [("target", "posed"), ("target.data.train", "7")]))
    assert (refined.target.data.domain, refined.target.data.train) == ("posed", 7)
    with pytest.raises(RecipeError, match=r"target: .*one of faust, shrec07, standing.*found 'pose'"):
        parse(override(values, [("target", "pose")]))


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("segda/defrec", [("predicts", "class")], "source.data.kind: 'human_seg' does not go with predicts 'class'"),
        ("segda/defrec", [("method", "{kind: pointdan}")], "method.kind: 'pointdan' does not go with predicts 'parts'"),
        ("segda/defrec", [("method.label_smoothing", "0.1")], "label_smoothing: is for predicts 'class'"),
        ("sim/defrec", [("network", "{kind: dgcnn-segmentation}")], "'dgcnn-segmentation' is for predicts 'parts'"),
        ("sim/dann", [("stages", "[{steps: 2}, {name: b, steps: 2, pseudo_labels: {refresh_every: 1, graph: {}}}]")],
         "which 'self-distillation' alone obeys"),
        ("sim/sm-dsb", [("method.gating.unlabelled", "prediction")], "self-distillation alone has more"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(name: str, changes: list[tuple[str, str]], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        parse(override(named(name).model_dump(mode="json"), changes))
