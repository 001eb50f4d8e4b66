"""Recipes for dense prediction: files, short fields, mistakes that are one clear error."""

import re
from pathlib import Path

import pytest
import yaml

from dense_testing import tiny
from isthmus.cli.common import changed, parse_changes
from isthmus.errors import DataError, RecipeError
from isthmus.training.dense.build import build_method, build_tasks
from isthmus.training.dense.presets import LABELS, ROWS, dense_recipes
from isthmus.training.dense.problem import DenseProblem
from isthmus.training.dense.recipe import DenseRecipe
from isthmus.training.engine import train
from isthmus.training.optimisation import check_stages
from isthmus.training.presets import named
from isthmus.training.recipe import load, parse

PRESETS = dense_recipes()
PROMISED = [
    *(f"mtpsl/{data}-{labels}" for data in ("nyuv2", "rooms", "streets") for labels in ("onelabel", "random", "full")),
    *(f"mtpsl/cityscapes-{labels}" for labels in ("onelabel", "1to9", "9to1")),
    "mtpsl/pascal-onelabel", "mtpsl/pascal-random", "mtpsl/views1-onelabel", "mtpsl-uncertainty/nyuv2-full",
    "x-task/nyuv2-full", "mtan/cityscapes-onelabel",
]  # fmt: skip


def of(name: str, *arguments: str) -> DenseRecipe:
    """A named recipe with command-line changes."""
    result = changed(named(name), parse_changes(list(arguments)))
    assert isinstance(result, DenseRecipe)
    return result


@pytest.mark.parametrize("name", PROMISED)
def test_the_promised_names_are_there(name: str) -> None:
    assert name in PRESETS


def test_presets_survive_the_trip_through_their_files(tmp_path: Path) -> None:
    """Some of them; tests/training/test_recipe.py does it with all."""
    for name in PROMISED:
        recipe = PRESETS[name]()
        (tmp_path / "recipe.yaml").write_text(recipe.dump())
        assert load(tmp_path / "recipe.yaml") == recipe and recipe.name == name, name


def test_every_preset_is_valid_and_says_what_its_name_says() -> None:
    assert len(PRESETS) > 600
    for name, make in PRESETS.items():
        recipe = make()
        row, _, setting = name.partition("/")
        assert isinstance(recipe, DenseRecipe) and parse(recipe.model_dump(mode="json")) == recipe, name
        assert recipe.method_name == row and recipe.source.labels == LABELS[setting.rpartition("-")[2]], name
        assert recipe.weighting == ROWS[row].weighting and recipe.views == ROWS[row].views, name
        if not ROWS[row].released:
            assert recipe.method == ROWS[row].method, name


@pytest.mark.parametrize("row", sorted({name.partition("/")[0] for name in PRESETS}))
def test_every_row_of_a_table_can_be_built(row: str) -> None:
    """Stages name parts that exist (FiLM's rate, the maps of x-task), and options fit their networks."""
    if row in ("nash-mtl", "upgrad", "pcgrad", "cagrad"):
        pytest.importorskip("torchjd", reason="TorchJD is an optional extra: pip install 'isthmus[mtl]'")
    for solver in {"nash-mtl": ("ecos",), "upgrad": ("qpsolvers", "quadprog")}.get(row, ()):
        pytest.importorskip(solver, reason=f"{solver} is an optional extra: pip install 'isthmus[mtl-gpl]'")
    for data, narrow in (("nyuv2", {"width": 0.0625}), ("pascal", {"width": 0.0625, "aspp_channels": 8})):
        if f"{row}/{data}-full" not in PRESETS:
            continue
        values = PRESETS[f"{row}/{data}-full"]().model_dump(mode="json")
        recipe = parse({**values, "network": {**values["network"], **narrow}})
        assert isinstance(recipe, DenseRecipe)
        available = {task: ("a", "b", "c") if task in ("segmentation", "parts") else () for task in recipe.tasks}
        check_stages(build_method(recipe, build_tasks(recipe, available)), recipe.stages)


def test_a_mapping_network_without_a_condition_has_no_tables() -> None:
    """Also in the paper's variant, whose input layers would be modulated as well."""
    recipe = of("mtpsl/rooms-full", "--method.condition", "none", "--network.width", "0.125")
    assert recipe.method.film_inputs
    available = {name: ("a", "b") if name == "segmentation" else () for name in recipe.tasks}
    method = build_method(recipe, build_tasks(recipe, available))
    assert not any("film" in name for name, _ in method.named_parameters())


def test_the_released_variant_weighs_its_terms_as_the_released_scripts_do() -> None:
    """2 for NYUv2, 1 for Cityscapes; FiLM at ten times, and a tenth of, the rate."""
    for labels in ("onelabel", "full"):
        nyu, city = named(f"mtpsl-released/nyuv2-{labels}"), named(f"mtpsl-released/cityscapes-{labels}")
        assert nyu.method.weight == 2.0 and city.method.weight == 1.0
        assert nyu.method.regulariser == city.method.regulariser == 0.5
        assert nyu.stages[0].learning_rate_scale == {"mapping.film": 10.0}
        assert city.stages[0].learning_rate_scale == {"mapping.film": 0.1}
        assert (nyu.batch_size, city.batch_size) == (2, 8)
        assert nyu.augment.flip == 0 and city.augment.flip == 0.5
    for variant in ("no-cond", "no-reg"):
        assert named(f"mtpsl-released-{variant}/cityscapes-onelabel").method.weight == 1.0


def test_short_fields_stand_for_those_of_the_only_domain() -> None:
    recipe = of("mtpsl/nyuv2-onelabel", "--data.root", "/data/nyu", "--labels.seed=7", "--size", "[96, 128]")
    assert recipe.source.data.root == Path("/data/nyu") and recipe.source.data.dataset == "nyuv2"
    assert recipe.source.labels.seed == 7 and recipe.source.labels.setting == "one"
    assert recipe.source.size == (96, 128)
    same = of(
        "mtpsl/nyuv2-onelabel", "--source.data.root", "/data/nyu", "--source.labels.seed=7", "--source.size=[96, 128]"
    )
    assert same == recipe
    changed = of("mtpsl/rooms-onelabel", "--labels", "{setting: ratio, ratio: '8:1:1'}")
    assert changed.source.labels.ratio == (8.0, 1.0, 1.0)
    filed = of("mtpsl/rooms-onelabel", "--labels.setting", "file", "--labels.file", "mine.json")
    assert filed.source.labels.file == Path("mine.json") and filed.setting == "rooms, mine"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--data.roots", "x"), "unknown key 'roots'; did you mean 'root'?"),
        (("--labels.sed", "1"), "unknown key 'sed'; did you mean 'seed'?"),
        (("--labls.seed", "1"), "unknown key 'labls'"),
        (("--sizes", "[96, 128]"), "unknown key 'sizes'"),
        (("--size", "[96]"), r"source\.size"),
        (("--size", "[4, 128]"), r"source\.size\.0: .*greater than or equal to 8, found 4"),
        (("--labels.setting", "two"), r"source\.labels\.setting: .* 'ratio' or 'file', found 'two'"),
        (("--labels.setting", "file"), r"source\.labels: file: expected a file with setting 'file' only, found None"),
        (("--labels.setting", "ratio"), r"source\.labels: ratio: expected proportions with setting 'ratio'"),
        (("--labels.ratio", "[9, 1]"), r"source\.labels: ratio: expected proportions with setting 'ratio'"),
        (("--labels", "{setting: ratio, ratio: '9:x'}"), r"source\.labels\.ratio"),
        (("--labels", "{setting: ratio, ratio: [9, -1]}"), r"source\.labels\.ratio\.1: .*greater than or equal to 0"),
        (("--network.stages", "6"), r"network\.segnet\.stages: .*less than or equal to 5, found 6"),
        (("--network.kind", "segnett"), "network: .*'segnet', 'mtan', 'resnet-aspp'"),
        (("--network.widths", "1"), "unknown key 'widths'; did you mean 'width'?"),
        (("--method.condition", "pairs"), r"method\.mtpsl\.condition: .* 'pair' or 'none', found 'pairs'"),
        (("--method.weights", "1"), "unknown key 'weights'; did you mean 'weight'?"),
        (("--method.weight", "-1"), r"method\.mtpsl\.weight: .*greater than or equal to 0, found -1"),
        (("--weighting", "gradnrom"), r"weighting: .*'gradnorm'"),
        (("--weighting", "{kind: dwa, temprature: 1}"), "unknown key 'temprature'; did you mean 'temperature'?"),
        (("--task_weights", "{depth: 0}"), r"task_weights\.depth: .*greater than 0, found 0"),
        (("--augment.scales", "[0.5]"), r"augment\.scales\.0: .*greater than or equal to 1"),
        (("--augment.scales", "[]"), r"augment\.scales: .*at least 1"),
        (("--augment.normals", "normalise"), r"augment\.normals: .*'renormalise' or 'interpolate'"),
        (("--stages.0.pseudo_labels", "{}"), r"stages\.0\.pseudo_labels"),
        (("--stages.0.start_from", "label-free"), r"stages\.0\.start_from"),
        (("--stages.0.schedule", "step"), r"stages\.0: decay_every: expected it with schedule 'step' only, found None"),
        (("--weighting", "mgda", "--engine.precision", "16-mixed"), r"weighting\.kind: 'mgda' combines gradients"),
        (("--method", "{kind: x-task}"), "stages: method 'x-task' learns its maps in the first"),
        (("--method", "{kind: single-task}", "--weighting", "dwa"), r"weighting\.kind: single tasks have nothing"),
        (("--measure-test", "never"), r"measure_test: .*'always' or 'chosen', found 'never'"),
        (("--method.gate", "skewness"), "unknown key 'gate'"),
        (("--points", "64"), "unknown key 'points'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_error_that_names_the_field(arguments: tuple[str, ...], complaint: str) -> None:
    name = "mtpsl/nyuv2-onelabel" if "--data.roots" in arguments else "mtpsl/rooms-onelabel"
    with pytest.raises(RecipeError, match=complaint) as error:
        of(name, *arguments)
    assert str(error.value).startswith(f"{name}: ")


def test_all_mistakes_of_a_recipe_come_at_once() -> None:
    with pytest.raises(RecipeError) as error:
        of("mtpsl/rooms-onelabel", "--labels.setting", "two", "--network.stages", "9", "--batch_size", "0")
    for field in ("source.labels.setting", "network.segnet.stages", "batch_size"):
        assert re.search(rf"^.*{field}: ", str(error.value), re.MULTILINE), field


def test_the_kind_of_a_recipe_decides_which_fields_it_has() -> None:
    values = named("mtpsl/rooms-onelabel").model_dump(mode="json")
    with pytest.raises(RecipeError, match="kind: expected one of points, dense, frames, found 'dens'"):
        parse({**values, "kind": "dens"})
    with pytest.raises(RecipeError, match=r"unknown key 'tasks'; valid keys: kind, name, .*, points,"):
        parse({**values, "kind": "points"})
    with pytest.raises(RecipeError, match="method"):
        parse({**named("sim/sm-dsb").model_dump(mode="json"), "kind": "dense"})
    without = {key: value for key, value in values.items() if key != "kind"}
    with pytest.raises(RecipeError):  # an old recipe without a kind is one of clouds
        parse(without)


def test_tasks_and_counted_classes_are_checked_against_the_data() -> None:
    recipe = tiny("multi-task/rooms-full")
    for changes, complaint in (
        ({"tasks": ["segmentation", "parts"]}, "tasks: expected some of segmentation, depth, .*, found parts"),
        ({"counted_classes": ["bed", "bath"]}, "counted_classes: expected some of bed, books, .*, found 'bath'"),
    ):
        with pytest.raises(RecipeError, match=complaint):
            DenseProblem(parse({**recipe.model_dump(mode="json"), **changes}))  # type: ignore[arg-type]


def test_a_missing_data_set_is_named_before_a_run_has_begun(tmp_path: Path) -> None:
    recipe = of("mtpsl/nyuv2-onelabel", "--data.root", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=str(tmp_path / "nowhere")):
        train(recipe, tmp_path / "run")
    assert not list((tmp_path / "run").glob("metrics*"))


def test_a_dumped_recipe_is_plain_yaml() -> None:
    values = yaml.safe_load(named("mtpsl/nyuv2-onelabel").dump())
    assert values["kind"] == "dense" and values["source"]["data"]["root"] == "nyuv2"
    assert values["method"]["condition"] == "input-and-pair" and values["tasks"] == ["segmentation", "depth", "normals"]
