"""The user's ranges and fixed values, on spaces of every type of hyperparameter."""

from __future__ import annotations

from typing import Any

import keras
import keras_tuner
import pytest
from keras_tuner.engine import hyperparameters as kinds

from search_spaces import SPACES
from tuner.errors import ConfigError
from tuner.search.ranges import apply_ranges, is_possible, value_text


def small_space() -> Any:
    """One of each type, and a chain of conditions: deep -> depth -> width_2."""
    space = keras_tuner.HyperParameters()
    space.Float("rate", 1e-4, 1e-2, sampling="log", default=1e-3)
    space.Float("drop", 0.0, 0.5, step=0.1, default=0.2)
    space.Int("units", 32, 128, step=32, default=64)
    space.Choice("optimizer", ["adam", "sgd", "rmsprop"], default="adam")
    space.Choice("batch", [16, 32, 64], default=32)
    space.Fixed("version", 3)
    space.Boolean("deep", default=False)
    with space.conditional_scope("deep", [True]):
        space.Int("depth", 1, 4, default=2)
        with space.conditional_scope("depth", [2, 3, 4]):
            space.Choice("width_2", [8, 16])
    return space


def applied(ranges: dict[str, str] | None = None, fixed: dict[str, str] | None = None, *, space: Any = None) -> Any:
    return apply_ranges(space or small_space(), ranges=ranges or {}, fixed=fixed or {})


def find(space: Any, name: str) -> Any:
    return next(hp for hp in space.space if hp.name == name)


def values_of(space: Any, name: str) -> list[Any]:
    return list(find(space, name).values)


def test_nothing_asked_changes_nothing() -> None:
    space = small_space()
    assert applied(space=space).get_config() == space.get_config()


def test_the_given_space_stays_as_it_was() -> None:
    space = small_space()
    before = space.get_config()
    applied({"rate": "1e-3:1e-2"}, {"width_2": "8"}, space=space)
    assert space.get_config() == before


def test_bounds_of_a_float_keep_its_scale() -> None:
    hp = find(applied({"rate": "1e-6:10"}), "rate")
    assert (type(hp), hp.min_value, hp.max_value, hp.sampling, hp.default) == (kinds.Float, 1e-6, 10.0, "log", 1e-3)


@pytest.mark.parametrize(("text", "default"), [("2e-3:1", 2e-3), ("1e-6:1e-5", 1e-5), ("1e-4:1", 1e-3)])
def test_default_moves_to_the_nearest_value_inside(text: str, default: float) -> None:
    space = applied({"rate": text})
    assert find(space, "rate").default == pytest.approx(default)
    assert space.get("rate") == pytest.approx(default)


def test_bounds_with_steps_keep_the_steps() -> None:
    assert values_of(applied({"units": "64:256"}), "units") == [64, 96, 128, 160, 192, 224, 256]
    space = applied({"units": "100:164", "drop": "0.3:0.5"})
    assert find(space, "units").default == 100
    assert find(space, "drop").default == pytest.approx(0.3)


def test_lists() -> None:
    space = applied(
        {"optimizer": "sgd, rmsprop", "batch": "64,16", "rate": "1e-3,1e-4", "units": "10,50", "deep": "true,no"}
    )
    assert values_of(space, "optimizer") == ["sgd", "rmsprop"]
    assert space.get("optimizer") == "sgd"
    assert values_of(space, "batch") == [64, 16]
    assert values_of(space, "rate") == [1e-4, 1e-3]
    assert space.get("rate") == 1e-3
    assert values_of(space, "units") == [10, 50]
    assert space.get("units") == 50
    assert isinstance(find(space, "deep"), kinds.Boolean)


def test_bounds_of_a_choice_of_numbers_pick_the_listed_ones() -> None:
    assert values_of(applied({"batch": "20:100"}), "batch") == [32, 64]


def test_neighbouring_whole_numbers_stay_an_int() -> None:
    space = applied({"depth": "2,3"})
    assert isinstance(find(space, "depth"), kinds.Int)
    assert values_of(space, "depth") == [2, 3]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rate", "5", 5.0),
        ("rate", "0", 0.0),
        ("drop", "0.25", 0.25),
        ("units", "1e3", 1000),
        ("batch", "256", 256),
        ("optimizer", "sgd", "sgd"),
        ("deep", "yes", True),
        ("deep", "OFF", False),
        ("version", "4", 4),
    ],
)
def test_fixing(name: str, text: str, value: object) -> None:
    space = applied(fixed={name: text})
    hp = find(space, name)
    assert isinstance(hp, kinds.Fixed)
    assert space.get(name) == value
    assert type(space.get(name)) is type(value)


def test_a_range_of_one_value_fixes() -> None:
    space = applied({"optimizer": "sgd", "width_2": "16"})
    assert isinstance(find(space, "optimizer"), kinds.Fixed)
    assert space.get("deep") is True


def test_words_with_colons_and_commas_are_values() -> None:
    space = keras_tuner.HyperParameters()
    space.Choice("augment", ["none", "flip:h", "flip,shift"])
    assert applied({"augment": "flip:h"}, space=space).get("augment") == "flip:h"
    assert applied(fixed={"augment": "flip,shift"}, space=space).get("augment") == "flip,shift"


def test_fixing_brings_all_ancestors_to_life() -> None:
    space = applied(fixed={"width_2": "16"})
    assert space.values["deep"] is True
    assert values_of(space, "depth") == [2, 3, 4]
    assert space.get("width_2") == 16
    assert [condition.name for condition in find(space, "width_2").conditions] == ["deep", "depth"]


def test_a_range_leaves_the_parents_free() -> None:
    space = applied({"depth": "2:3"})
    assert isinstance(find(space, "deep"), kinds.Boolean)
    assert space.get("deep") is False
    assert "depth" not in space.values


def test_a_parent_with_gaps_becomes_a_choice() -> None:
    space = keras_tuner.HyperParameters()
    space.Int("depth", 1, 5)
    with space.conditional_scope("depth", [1, 4, 5, 9]):
        space.Int("width", 1, 8)
    narrowed = applied(fixed={"width": "2"}, space=space)
    assert isinstance(find(narrowed, "depth"), kinds.Choice)
    assert values_of(narrowed, "depth") == [1, 4, 5]


def test_a_name_declared_under_every_value_of_a_parent_narrows_nothing() -> None:
    space = keras_tuner.HyperParameters()
    space.Choice("kind", ["mlp", "cnn", "rnn"])
    for kind in ("mlp", "cnn"):
        with space.conditional_scope("kind", [kind]):
            space.Int("units", 8, 64)
    narrowed = applied(fixed={"units": "10"}, space=space)
    assert values_of(narrowed, "kind") == ["mlp", "cnn"]
    assert [hp.value for hp in narrowed.space if hp.name == "units"] == [10, 10]


def test_a_name_with_and_without_a_condition_narrows_nothing() -> None:
    space = keras_tuner.HyperParameters()
    space.Boolean("deep")
    space.Int("units", 8, 64)
    with space.conditional_scope("deep", [True]):
        space.Int("units", 8, 128)
    assert isinstance(find(applied(fixed={"units": "10"}, space=space), "deep"), kinds.Boolean)


@pytest.mark.parametrize(
    ("ranges", "fixed", "message"),
    [
        (
            {"rte": "1:2"},
            {},
            r"--range rte=1:2: this space has no hyperparameter 'rte'. Did you mean 'rate'\? Known: rate, ",
        ),
        ({}, {"zzz": "1"}, r"--fix zzz=1: this space has no hyperparameter 'zzz'. Known: "),
        ({"rate": "1e-3:1e-2"}, {"rate": "1"}, r"rate has a range \(1e-3:1e-2\) and is fixed \(to 1\). Keep one"),
        ({"rate": "1:0.1"}, {}, "LOW must be less than HIGH. To have one value, write --fix rate=1."),
        ({"rate": "0.1:0.1"}, {}, "LOW must be less than HIGH"),
        ({"rate": "0:1"}, {}, "rate has a logarithmic scale. Expected LOW above 0"),
        ({"rate": "-1,1"}, {}, "rate has a logarithmic scale. Expected 0 or more"),
        ({}, {"rate": "-0.1"}, "rate has a logarithmic scale. Expected 0 or more"),
        ({"rate": "a:b"}, {}, "'a' is not a number. Expected 0.0001 to 0.01"),
        ({"rate": "nan:1"}, {}, "'nan' is not a number"),
        ({}, {"rate": "inf"}, "'inf' is not a number"),
        ({"rate": "1:2:3"}, {}, "expected LOW:HIGH, or A,B,C"),
        ({"rate": ":1"}, {}, "'' is not a number"),
        ({"rate": ","}, {}, "no values. Write A,B,C or LOW:HIGH"),
        ({"units": "1.5:3"}, {}, "'1.5' is not a whole number. Expected 32 to 128 in steps of 32"),
        ({"optimizer": "adam:sgd"}, {}, "expected A,B,C of adam, sgd, rmsprop"),
        ({"optimizer": "adam,sdg"}, {}, r"sdg is not possible here. Expected adam, sgd, rmsprop. Did you mean 'sgd'\?"),
        ({}, {"optimizer": "adm"}, r"adm is not possible here. Expected adam, sgd, rmsprop. Did you mean 'adam'\?"),
        ({"batch": "16,17"}, {}, "17 is not possible here. Expected 16, 32, 64"),
        ({"batch": "1:2"}, {}, "none of its values lies there. Expected some of 16, 32, 64"),
        ({"deep": "0:1"}, {}, "expected A,B,C of true, false"),
        ({}, {"deep": "maybe"}, "'maybe' is not true or false"),
        (
            {"version": "1:5"},
            {},
            "the space itself fixes it to 3. It can only be fixed to another value: --fix version=VALUE",
        ),
        ({"depth": "1:5"}, {}, r"5 is not possible here \(others depend on it\). Expected 1 to 4"),
        ({"depth": "4,7"}, {}, r"7 is not possible here \(others depend on it\)"),
        ({}, {"depth": "0"}, r"0 is not possible here \(others depend on it\)"),
        (
            {},
            {"depth": "2", "deep": "false"},
            "depth is fixed and exists only with deep=true, but deep is set to false",
        ),
        (
            {"depth": "1"},
            {"width_2": "8"},
            "width_2 is fixed and exists only with depth=2 or 3 or 4, but depth is set to 1",
        ),
    ],
)
def test_mistakes(ranges: dict[str, str], fixed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        applied(ranges, fixed)


def test_a_parent_that_the_space_fixes_stays() -> None:
    space = keras_tuner.HyperParameters()
    space.Fixed("kind", "cnn")
    with space.conditional_scope("kind", ["cnn"]):
        space.Int("units", 8, 64)
    assert applied(fixed={"kind": "cnn"}, space=space).get("kind") == "cnn"
    with pytest.raises(ConfigError, match=r"the space itself fixes it to cnn, and others depend on it. Leave it out"):
        applied(fixed={"kind": "mlp"}, space=space)


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        applied({"rate": "1:0", "nothing": "1:2"}, {"optimizer": "adm", "units": "x"})
    assert len(str(caught.value).splitlines()) == 5


def test_both_sides_of_what_a_hyperparameter_takes() -> None:
    space = small_space()
    assert [is_possible(find(space, "units"), value) for value in (0, 32, 33, 128, 160)] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert [is_possible(find(space, "rate"), value) for value in (9e-5, 1e-4, 1e-2, 2e-2)] == [False, True, True, False]
    assert is_possible(find(space, "optimizer"), "sgd")
    assert not is_possible(find(space, "version"), 4)


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (1e-5, "1e-05"), (0.0003, "0.0003"), (3, "3"), ("a", "a")])
def test_values_are_written_as_they_are_typed(value: object, text: str) -> None:
    assert value_text(value) == text


def test_a_model_built_from_the_changed_space_has_the_changed_values() -> None:
    image = SPACES["image"]((8, 8, 1), task="classification", num_classes=3, num_train=1000, epochs=2)
    declared = keras_tuner.HyperParameters()
    image.build(declared)
    space = applied(
        {"learning_rate": "0.5:1", "num_blocks": "1:2"},
        {"l2": "1e-4", "l1": "0", "filters_2": "24", "batch_norm": "no", "schedule": "constant", "warmup_frac": "0"},
        space=declared,
    )
    hp = space.copy()
    model = image.build(hp)
    assert model.optimizer.get_config()["learning_rate"] == pytest.approx(0.5)
    assert model.get_layer("conv_2").filters == 24
    assert isinstance(model.get_layer("conv_2").kernel_regularizer, keras.regularizers.L2)
    assert not any(layer.name.startswith("norm_") for layer in model.layers)
    assert len(hp.space) == len(space.space), "build() must find everything declared already"
