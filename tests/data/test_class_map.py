from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.data.class_map import ClassMap, nearest
from isthmus.errors import RecipeError

NAMES = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


def test_equal_names_map_to_themselves_in_the_recipes_order() -> None:
    labels = ClassMap(("sofa", "bed")).apply(("bed", "sofa"))
    assert labels.tolist() == [1, 0]
    assert labels.dtype == np.int64


def test_merge_and_drop_do_what_they_say() -> None:
    mapping = ClassMap(("cabinet", "sofa"), {"dresser": "cabinet", "night_stand": "cabinet"}, ("toilet",))
    assert mapping.apply(("dresser", "night_stand", "sofa", "toilet")).tolist() == [0, 0, 1, -1]


def test_merge_wins_over_an_equal_name() -> None:
    assert ClassMap(("table", "desk"), {"table": "desk"}).apply(("table", "desk")).tolist() == [1, 1]


@pytest.mark.parametrize("drop", ["*", ("*",), ("toilet", "*")])
def test_a_star_drops_every_class_that_is_not_mapped(drop: Any) -> None:
    mapping = ClassMap(("sofa",), {"couch": "sofa"}, drop)
    assert mapping.apply(("couch", "toilet", "bath")).tolist() == [0, -1, -1]


def test_a_class_that_is_neither_mapped_nor_dropped_names_the_nearest_spelling() -> None:
    with pytest.raises(RecipeError, match=r"'Bathtub' of the data set is neither.*did you mean 'bathtub'"):
        ClassMap(("bathtub", "sofa")).apply(("Bathtub", "sofa"))


@pytest.mark.parametrize(
    ("field", "arguments"), [("merge", {"merge": {"night_stnd": "cabinet"}}), ("drop", {"drop": ("night_stnd", "*")})]
)
def test_a_misspelt_name_is_an_error_even_where_all_others_are_dropped(field: str, arguments: dict[str, Any]) -> None:
    mapping = ClassMap(("cabinet",), **{"drop": "*", **arguments})
    with pytest.raises(RecipeError, match=rf"^{field}: 'night_stnd'.*did you mean 'night_stand'"):
        mapping.apply(("cabinet", "night_stand"))


def test_only_a_source_must_have_every_class_of_the_recipe() -> None:
    mapping = ClassMap(("plant", "sofa"))
    assert mapping.apply(("sofa",)).tolist() == [1]
    with pytest.raises(RecipeError, match="source has nothing for 'plant'"):
        mapping.apply(("sofa",), source=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ()}, "at least one class"),
        ({"classes": ("a", "b", "a")}, "repeated 'a'"),
        ({"classes": ("sofa",), "merge": {"couch": "soffa"}}, "'soffa'.*did you mean 'sofa'"),
        ({"classes": ("sofa",), "merge": {"couch": "sofa"}, "drop": ("couch",)}, "'couch' in both"),
        ({"classes": ("sofa",), "drop": "couch"}, "expected a list of classes"),
    ],
)
def test_a_map_that_contradicts_itself_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ClassMap(**arguments)


@given(NAMES, NAMES, st.data())
def test_every_native_class_gets_the_label_of_its_own_target(
    classes: list[str], native: list[str], data: st.DataObject
) -> None:
    decided = {name: data.draw(st.sampled_from([*classes, None]), label=name) for name in native}
    mapping = ClassMap(
        tuple(classes),
        {name: target for name, target in decided.items() if target is not None},
        tuple(name for name, target in decided.items() if target is None),
    )
    labels = mapping.apply(native)
    for name, label in zip(native, labels):
        assert (classes[label] if label >= 0 else None) == decided[name]
    complete = set(labels) >= set(range(len(classes)))
    if complete:
        assert np.array_equal(mapping.apply(native, source=True), labels)
    else:
        with pytest.raises(RecipeError):
            mapping.apply(native, source=True)


@given(NAMES, NAMES)
def test_a_star_never_maps_a_class_that_the_recipe_does_not_have(classes: list[str], native: list[str]) -> None:
    labels = ClassMap(tuple(classes), drop="*").apply(native)
    assert [label >= 0 for label in labels] == [name in classes for name in native]


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert nearest("zebra", ("sofa", "bed")) == ""
