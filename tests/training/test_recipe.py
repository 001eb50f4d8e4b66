import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import RecipeError
from isthmus.training.presets import RECIPES, named
from isthmus.training.recipe import Recipe, load, override, parse


def values() -> dict:
    return named("sim/sm-dsb").model_dump(mode="json")


def changed(*changes: tuple[str, str]) -> Recipe:
    return parse(override(values(), changes))


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_survives_the_trip_through_its_file(name: str, tmp_path) -> None:
    recipe = named(name)
    (tmp_path / "recipe.yaml").write_text(recipe.dump())
    assert load(tmp_path / "recipe.yaml") == recipe
    assert recipe.name == name


def test_any_field_can_be_set_by_its_dotted_name() -> None:
    recipe = changed(
        ("stages.1.steps", "7"), ("method.gate.keep", "0.3"), ("method.gating.saliency", "eval"),
        ("source.data.seed", "5"), ("classes", "[bed, chair]"), ("engine.devices", "2"),
    )  # fmt: skip
    assert recipe.stages[1].steps == 7 and recipe.stages[0] == named("sim/sm-dsb").stages[0]
    assert recipe.method.gate.keep == 0.3 and recipe.method.gating.saliency == "eval"
    assert recipe.source.data.seed == 5 and recipe.classes == ("bed", "chair") and recipe.engine.devices == 2


@pytest.mark.parametrize(("word", "kind"), [("none", None), ("random", "random"), ("skewness", "skewness")])
def test_a_gate_can_be_named_by_one_word(word: str, kind: str | None) -> None:
    gate = changed(("method.gate", word)).method.gate
    assert (gate.kind if gate else None) == kind


def test_a_word_can_be_refined_in_the_same_breath() -> None:
    assert changed(("method.gate", "random"), ("method.gate.keep", "0.5")).method.gate.keep == 0.5


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("method.gaet", "1", "unknown key 'gaet'; did you mean 'gate'"),
        ("stages.0.step", "1", "did you mean 'steps'"),
        ("pionts", "64", "did you mean 'points'"),
        ("points", "3", r"points: Input should be greater than or equal to 16, found 3"),
        ("stages.0.schedule", "cosin", "'constant', 'cosine', 'onecycle', 'step' or 'poly', found 'cosin'"),
        ("network.kind", "pointnt", "'pointnet', 'dgcnn'"),
        ("method.gate.keep", "1.5", "less than or equal to 1, found 1.5"),
        ("stages.7.steps", "5", "expected a position from 0 to 1, found '7'"),
        ("points.x", "5", "points: expected a group of fields, found the value 256"),
        ("engine.strategy", "fsdp", "gating.saliency 'eval'"),
        ("batch_size", "1", "BatchNorm cannot train on batches of 1"),
        ("stages.1.name", "stage1", "names of their own"),
        ("stages.0.pseudo_labels", "{}", "no trained model yet"),
        ("stages.0.warmup_steps", "100000", "warmup_steps: expected fewer than the stage's 400"),
        ("augment.scale", "[2, 1]", "expected 0 < low <= high"),
        ("classes", "[]", "classes: .*at least 1"),
        ("target.evaluate_on", "[]", "target.evaluate_on: .*at least 1"),
        ("network", "{kind: dgcnn, k: 300}", "network.k: expected at most the 256 points, found 300"),
        ("source.data", "{kind: unlabelled, root: x}", "a source needs labels"),
    ],
)
def test_a_mistake_is_one_clear_error(field: str, value: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        changed((field, value))


def test_settings_that_contradict_each_other_are_found_before_training() -> None:
    with pytest.raises(RecipeError, match="needs mixup"):
        changed(("method.mixup", "false"), ("method.gating.saliency_view", "mixed"))
    with pytest.raises(RecipeError, match="would never act"):
        changed(("method.pretext_on", "target"), ("stages", "[{steps: 5}]"))
    with pytest.raises(RecipeError, match="undoes the gate 'scaled'"):
        changed(("method.gate", "scaled"), ("method.gating.normaliser", "kept"))
    with pytest.raises(RecipeError, match="not used by method 'source-only'"):
        changed(("method", "{kind: source-only}"))


def containers(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), containers))
@settings(max_examples=100, deadline=None)
def test_no_value_whatever_raises_anything_but_a_recipe_error(value) -> None:
    for field in ("points", "method", "stages", "source"):
        try:
            parse({**values(), field: value})
        except RecipeError as error:
            assert field in str(error)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_recipe_is_named(text: str, tmp_path) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"broken\.yaml"):
        load(tmp_path / "broken.yaml")


def test_only_the_oracle_and_the_analysis_gate_use_target_labels() -> None:
    users = {name for name in RECIPES if named(name).uses_target_labels}
    named_so = {n for n in RECIPES if n.endswith(("/oracle", "/cosine-gate")) or n.startswith("oracle/")}
    assert users == named_so
    assert changed(("method.gate", "cosine")).uses_target_labels


def test_directions_are_short() -> None:
    assert named("sim/sm-dsb").setting == "sim-cad→sim-scan"
    assert named("virtual/w2m/sm-dsb").setting == "webcad→modelnet10*"


def test_a_dumped_recipe_is_plain_yaml() -> None:
    assert yaml.safe_load(named("sim/sm-dsb").dump())["method"]["gate"]["keep"] == 0.7
