"""The rivals of the point-cloud tables as recipes: they are built, trained, resumed, predicted with and exported."""

import pytest
import torch

from isthmus.data.randomness import Progress
from isthmus.errors import RecipeError
from isthmus.evaluation.points.export import export_run
from isthmus.losses.weightings.gradvac import GradVac
from isthmus.losses.weightings.torchjd import Aggregated
from isthmus.losses.weightings.uncertainty import Uncertainty
from isthmus.methods.self_supervised import SelfSupervised
from isthmus.training.engine import train
from isthmus.training.points.build import build_method, build_streams, open_domains
from isthmus.training.presets import named
from isthmus.training.recipe import Recipe, override, parse

ROWS = ("dann", "pointdan", "dfan", "pcgrad", "cagrad", "upgrad", "gradvac", "uncertainty", "random-freeze")
NEEDS = {"pcgrad": "torchjd", "cagrad": "cvxpy", "upgrad": "quadprog"}


def recipe(row: str, *more: tuple[str, str]) -> Recipe:
    if row in NEEDS:
        pytest.importorskip(NEEDS[row], reason=f"{NEEDS[row]} is an optional extra")
    changes = {"points": 48, "batch_size": 6, "network.width": 0.125, "log_every": 1, "evaluate_every": 2,
               "checkpoint_every": 1}  # fmt: skip
    changes |= {f"{d}.data.{part}": 12 for d in ("source", "target") for part in ("train", "val", "test")}
    values = named(f"sim/{row}").model_dump(mode="json")
    changes |= {f"stages.{index}.steps": 2 for index in range(len(values["stages"]))}
    if row in ("pointdan", "dfan"):
        changes |= {"method.nodes": 8, "method.neighbours": 12}
    return parse(override(values, [*((k, str(v)) for k, v in changes.items()), *more]))


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_trained_in_its_stages(row, tmp_path):
    run = train(recipe(row), tmp_path / "run")
    assert run.finished
    stages = [stage.name for stage in run.recipe.stages]
    assert stages == (["stage1"] if row in ("dann", "pointdan", "dfan") else ["stage1", "stage2"])
    weights = run.weights("last")
    assert all(torch.isfinite(value).all() for value in weights.values() if value.is_floating_point())


@pytest.mark.parametrize("row", ["dann", "pointdan", "dfan", "gradvac"])
def test_a_killed_run_ends_as_one_that_was_not(row, tmp_path, monkeypatch):
    plain = train(recipe(row), tmp_path / "plain").weights("last")
    from isthmus.training import engine

    whole = engine._Training._checkpoint

    def dies(self, stage, step):
        whole(self, stage, step)
        if (stage, step) == (0, 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(engine._Training, "_checkpoint", dies)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(row), tmp_path / "killed")
    resumed = train(recipe(row), tmp_path / "killed", resume=True).weights("last")
    assert plain.keys() == resumed.keys()
    assert all(torch.equal(plain[name], resumed[name]) for name in plain)


def test_each_row_has_the_weighting_that_it_is_named_after():
    for row, kind in (("pcgrad", Aggregated), ("gradvac", GradVac), ("uncertainty", Uncertainty)):
        method = build_method(recipe(row))
        assert isinstance(method, SelfSupervised) and isinstance(method.weighting, kind)
        assert method.weighting.tasks == ("class", "defrec")
        assert {id(p) for p in method.shared_parameters()} == {id(p) for p in method.network.encoder.parameters()}
    assert build_method(recipe("random-freeze")).weighting is None


def test_losses_of_both_domains_are_one_row_of_a_weighting():
    wanted = recipe("pcgrad")
    method = build_method(wanted)
    streams = build_streams(wanted, open_domains(wanted), method)
    progress = Progress(0, 0, 0, 2)
    losses = method({name: stream.batch(progress, 0) for name, stream in streams.items()}, progress)
    assert {method.weighting.task_of(name) for name in losses} == {"class", "defrec"}
    assert sum(method.weighting.task_of(name) == "defrec" for name in losses) == 2


@pytest.mark.parametrize("row", ["pointdan", "dfan"])
def test_a_rival_is_exported_though_it_searches_nodes(row, tmp_path):
    run = train(recipe(row), tmp_path / "run")
    report = export_run(run, formats=("pt2",), rule="last")
    assert max(report.differences.values()) <= 1e-4


def test_combining_gradients_under_loss_scaling_is_refused():
    with pytest.raises(RecipeError, match=r"method\.weighting: 'pcgrad' combines"):
        recipe("pcgrad", ("engine.precision", "16-mixed"))
    recipe("uncertainty", ("engine.precision", "16-mixed"))
