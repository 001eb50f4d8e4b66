"""Every named recipe of LiDAR and camera builds, and impossible ones are refused by the name of their field."""

import numpy as np
import pytest
import torch
from frame_runs import changed, small

from isthmus.errors import RecipeError
from isthmus.losses.class_statistics import ClassShares
from isthmus.methods.cross_modal import AVERAGE
from isthmus.methods.dscml import ALIGNED, DsCML, game_name
from isthmus.methods.fcns_in_the_wild import FCNsInTheWild
from isthmus.models.point_discriminator import ChunkDiscriminator, PointDiscriminator
from isthmus.training.frames.build import build_method, class_weights, prediction_tasks
from isthmus.training.frames.presets import PSEUDO_LABELLED, frame_recipes, pairs
from isthmus.training.frames.recipe import FrameRecipe
from isthmus.training.presets import named
from isthmus.training.recipe import parse

RECIPES = frame_recipes()
TABLE = (
    "source-only", "oracle", "target-statistics", "min-entropy", "pl", "fcns-in-the-wild", "cycada-features",
    "adapt-segnet", "clan", "deep-coral", "log-coral",
    "xmuda", "xmuda-pl", "cml", "cml-classifier", "scml", "scml-released", "dscml", "dscml-3x3", "dscml-mean",
    "dscml-none", "dscml-probabilities", "dscml-pl", "cmal", "cmal-3x3", "cmal-same", "cmal-both", "cmal-literal",
    "cmal-released", "cmal-pl",
)  # fmt: skip
ONE_STREAM = (*TABLE[:11],)
CLASSES = tuple("abcde")
COUNTS = np.array([5000, 10, 400, 0, 77])


def test_the_table_is_there_for_every_pair() -> None:
    for name in pairs():
        rows = {recipe.split("/")[0] for recipe in RECIPES if recipe.split("/")[1] == name}
        assert rows == set(TABLE if pairs()[name]().streams == ("2D", "3D") else ONE_STREAM), name
    assert {name for name in pairs() if len(pairs()[name]().streams) == 1} == {
        "sweeps-ika", "sweeps-semantickitti", "camvid",
    }  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_is_valid_and_survives_a_file(name: str) -> None:
    recipe = named(name)
    assert isinstance(recipe, FrameRecipe) and recipe.name == name and recipe.method_name == name.split("/")[0]
    assert parse(recipe.model_dump(mode="json")) == recipe
    assert recipe.uses_target_labels == name.startswith("oracle/")
    stages = 2 if recipe.method_name in PSEUDO_LABELLED else 1
    assert len(recipe.stages) == stages
    if stages == 2:
        labels = recipe.stages[1].pseudo_labels
        assert labels is not None and (labels.class_share, labels.sure, labels.min_confidence) == (0.5, 0.9, 0.0)


@pytest.mark.parametrize(
    "name",
    [*(f"{row}/streets-light" for row in TABLE), *(f"{r}/{p}" for p in ("sweeps-ika", "camvid") for r in ONE_STREAM)],
)
def test_every_row_builds_its_method(name: str) -> None:
    recipe = small(name)
    shares = ClassShares(*torch.full((3, 5), 0.1, dtype=torch.float64))
    method = build_method(recipe, CLASSES, COUNTS, shares)
    assert tuple(method.network.streams) == recipe.streams
    names = (*recipe.streams, AVERAGE) if len(recipe.streams) > 1 else recipe.streams
    assert tuple(method.tasks) == tuple(prediction_tasks(recipe, CLASSES)) == names
    assert method.class_weights.min() == 1 and method.class_weights.isfinite().all()
    row = name.split("/")[0]
    assert method.uses_target == (row not in ("source-only", "oracle", "pl"))
    again = build_method(recipe, CLASSES, COUNTS, shares).state_dict()
    assert all(torch.equal(value, again[key]) or "accuracy" in key for key, value in method.state_dict().items())


def dscml(row: str) -> DsCML:
    found = build_method(small(f"{row}/streets-light"), CLASSES, COUNTS)
    assert isinstance(found, DsCML)
    return found


def test_rows_of_the_ablations_are_what_they_are_called() -> None:
    patches = {row: dscml(row).network.patch for row in ("cml", "scml", "scml-released", "dscml")}
    assert patches["cml"] is None and patches["dscml"].offset is not None
    assert [(patches[row].offset, patches[row].border) for row in ("scml", "scml-released")] == [
        (None, "replicate"), (None, "zeros"),
    ]  # fmt: skip
    assert dscml("scml-released").halved and dscml("scml-released").network.extremes.keys() == {"max", "min"}
    assert not dscml("dscml").halved and not dscml("dscml").network.extremes
    assert [dscml(row).terms for row in ("dscml", "dscml-mean", "dscml-none")] == ["max-min", "mean", "none"]
    assert dscml("dscml-probabilities").network.pooled == "probabilities"
    for row, alignment in (("cmal", "crossed"), ("cmal-same", "same"), ("cmal-both", "both")):
        games = dscml(row).adversaries
        assert list(games) == [game_name(*each) for each in ALIGNED[alignment]]
        assert all(isinstance(each.discriminator, ChunkDiscriminator) for each in games.values())
        assert {each.game for each in games.values()} == {"non-saturating"}
    assert {each.game for each in dscml("cmal-literal").adversaries.values()} == {"literal"}
    assert not dscml("dscml").adversaries
    assert [dscml(row).network.patch.size for row in ("dscml", "dscml-3x3", "cmal-3x3")] == [5, 3, 3]
    assert [dscml(row).student for row in ("cml", "cml-classifier")] == ["mimicry", "classifier"]
    released = dscml("cmal-released")
    assert released.mimicry_shown and released.halved and not dscml("cmal").mimicry_shown
    weights = {name: (each.weight, each.sides) for name, each in released.adversaries.items()}
    assert weights == {game_name("2D", "3D"): (0.05, (0.1, 0.2)), game_name("3D", "2D"): (0.07, (0.1, 0.2))}
    assert {(each.weight, each.sides) for each in dscml("cmal").adversaries.values()} == {(0.05, (0.5, 0.5))}


def test_pseudo_labels_train_again_from_scratch_and_discriminators_slowly() -> None:
    for name, recipe in ((name, named(name)) for name in RECIPES):
        row = name.split("/")[0]
        starts = [stage.start_from for stage in recipe.stages]
        assert starts == (["last", "scratch"] if row in PSEUDO_LABELLED else ["last"]), name
        method = PSEUDO_LABELLED.get(row, row)
        against = method.startswith("cmal") or method in ("adapt-segnet", "clan", "cycada-features", "fcns-in-the-wild")
        assert all((stage.learning_rate_scale == {"adversaries": 0.1}) == against for stage in recipe.stages), name


def test_discriminators_fit_what_they_are_shown() -> None:
    for row, widths in (("adapt-segnet", {"2D": 5, "3D": 5}), ("cycada-features", {"2D": 8, "3D": 4})):
        games = build_method(small(f"{row}/streets-light"), CLASSES, COUNTS).adversaries
        assert {name: each.discriminator.layers[0].in_features for name, each in games.items()} == widths
        assert all(isinstance(each.discriminator, PointDiscriminator) for each in games.values())


def test_class_weights_are_xmudas() -> None:
    """log(5 n / n_c) over the least; its published weights come from counts in these proportions."""
    weights = class_weights(COUNTS).tolist()
    plain = [np.log(5 * COUNTS.sum() / count) if count else 0.0 for count in COUNTS]
    plain[3] = max(plain)
    assert weights == pytest.approx([each / min(plain) for each in plain], rel=1e-6)
    assert class_weights(np.zeros(3, dtype=np.int64)).tolist() == [1.0, 1.0, 1.0]
    off = build_method(small("source-only/streets-light", class_weights="none"), CLASSES, COUNTS)
    assert off.class_weights.tolist() == [1.0] * 5


def test_statistics_of_the_source_are_kept_with_the_weights() -> None:
    shares = ClassShares(*torch.rand(3, 5, dtype=torch.float64))
    method = build_method(small("fcns-in-the-wild/streets-light"), CLASSES, COUNTS, shares)
    assert isinstance(method, FCNsInTheWild) and torch.equal(method.state_dict()["shares_mean"], shares.mean)
    blank = build_method(small("fcns-in-the-wild/streets-light"), CLASSES, COUNTS)
    blank.load_state_dict(method.state_dict())  # as predicting does, without the data


def test_weights_of_imitation_are_the_published_ones() -> None:
    for pair, weights in (
        ("usa-singapore", (1.0, 0.1)),
        ("day-night", (1.0, 0.1)),
        ("a2d2-semantickitti", (0.1, 0.01)),
    ):
        for row in ("xmuda", "dscml", "cmal"):
            method = named(f"{row}/{pair}").method
            assert (method.source_weight, method.target_weight) == weights
    for pair, weights, games, sides in (
        ("usa-singapore", (0.8, 0.1), {"2D": 0.07, "3D": 0.05}, (0.1, 0.2)),
        ("day-night", (0.6, 0.1), {"2D": 0.07, "3D": 0.05}, (0.1, 0.2)),
        ("a2d2-semantickitti", (0.05, 0.001), {"2D": 0.07, "3D": 0.07}, (0.1, 0.15)),
    ):
        method = named(f"cmal-released/{pair}").method
        assert (method.source_weight, method.target_weight) == weights
        assert (method.adversary_weights, method.adversary.sides) == (games, sides)
        method = named(f"scml-released/{pair}").method
        assert (method.source_weight, method.target_weight) == weights


def test_protocols_have_settings_of_their_own() -> None:
    """So that no table mixes them."""
    settings = [named(f"source-only/{name}").setting for name in pairs()]
    assert len(set(settings)) == len(settings)


def test_networks_of_a_missing_stream_need_no_weights() -> None:
    recipe = small("source-only/sweeps-ika", image_network__weights="/nowhere/resnet.pth")
    build_method(recipe, CLASSES, COUNTS)


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        ("xmuda", {"streams": ["3D"]}, "streams: method 'xmuda' needs 2D and 3D, found '3D'"),
        ("dscml", {"streams": ["2D"]}, "streams: method 'dscml' needs 2D and 3D, found '2D'"),
        ("source-only", {"streams": ["3D", "3D"]}, "streams: expected each once"),
        ("source-only", {"streams": []}, "streams"),
        ("dscml", {"method__patch__size": 4}, "patch.size.*expected an odd number, found 4"),
        ("dscml", {"method__patch__size": 17}, "patch.size"),
        ("dscml", {"method__variant": "released"}, "patch.offsets: expected 'zero' with variant 'released'"),
        ("cml", {"method__pooled": "probabilities"}, "pooled: expected 'features' without a patch"),
        ("dscml", {"method__mimicry_shown": True}, "alignment: expected one with mimicry_shown"),
        ("cmal", {"method__mimicry_shown": True, "method__terms": "none"}, "mimicry_shown: nothing trains"),
        ("pl", {"stages__1__keep_optimizer": True}, "stages.1.*keep_optimizer: its moments"),
        ("clan", {"method__adversary__game": "literal"}, "adversary: clan weighs points"),
        ("clan", {"method__adversary__discriminator": "chunks"}, "adversary: clan weighs points"),
        ("cmal", {"method__adversary__game": "reversal"}, "adversary.game"),
        ("cmal", {"method__alignment": "twisted"}, "alignment"),
        ("min-entropy", {"method__weight": -1}, "method.*weight"),
        ("source-only", {"point_network__voxel_size": 0}, "point_network.voxel_size"),
        ("source-only", {"image_network__dropout": 1.0}, "image_network.dropout"),
        ("source-only", {"source__data__domain": "dusk"}, "source.data.*domain"),
        ("source-only", {"target__augment__flip": 1.5}, "target.augment.flip"),
        ("source-only", {"stages__0__pseudo_labels": {"class_share": 0.5}}, "stages.0.pseudo_labels"),
        ("source-only", {"method__kind": "unheard-of"}, "method"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(row: str, changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        changed(named(f"{row}/streets-light"), **changes)


def test_a_method_of_ones_own_is_handed_over_as_an_object() -> None:
    recipe = small("source-only/streets-light", method={"kind": "custom", "name": "mine"})
    with pytest.raises(RecipeError, match="method: 'mine' is of the user's own making"):
        build_method(recipe, CLASSES, COUNTS)
