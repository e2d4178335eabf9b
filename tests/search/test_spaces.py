"""Finding, discovering and describing search spaces, ours and the user's."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import pytest

from tuner.data import pipelines
from tuner.errors import SpaceError
from tuner.records import DataSpec
from tuner.search import spaces

IMAGES = DataSpec("digits", "image", "classification", (8, 8, 1), ("a", "b", "c"))
TABLE = DataSpec("table", "series", "regression", (12,), target="y", feature_names=tuple("abcdefghijkl"))

USER_FILE = """
    import keras
    import keras_tuner

    SETTINGS = {"a": 1}

    def build(hp):
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
        model.add(keras.layers.Dense(hp.Int("units", 8, 32), activation="relu"))
        model.add(keras.layers.Dense(3, activation="softmax"))
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
        return model

    def build_for(hp, input_shape, *, num_classes, width=4):
        model = keras.Sequential([keras.Input(input_shape), keras.layers.Flatten()])
        model.add(keras.layers.Dense(hp.Int("units", width, 32)))
        model.add(keras.layers.Dense(num_classes))
        model.compile(loss="mse")
        return model

    def takes_more(hp, vocabulary): ...
    def takes_nothing(): ...

    class Plain(keras_tuner.HyperModel):
        def build(self, hp):
            return build(hp)

    class Fitted(keras_tuner.HyperModel):
        def __init__(self, input_shape, epochs, *, seed=3):
            super().__init__()
            self.facts = (input_shape, epochs, seed)

        def build(self, hp):
            model = build(hp)
            model.name = "_".join(map(str, (*self.facts[0], *self.facts[1:])))
            return model

    class Broken(keras_tuner.HyperModel):
        def __init__(self):
            raise RuntimeError("no such device")

    class Other: ...

    ready = Plain()
    other = Other()
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
"""


@dataclass(frozen=True)
class Option:
    name: str
    values: tuple[str, ...]
    default: str


SCALER = Option("scaler", ("standard", "minmax"), "minmax")


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "my_space.py"
    file.write_text(textwrap.dedent(USER_FILE), encoding="utf-8")
    return file


def write(folder: Path, source: str) -> Path:
    file = folder / "my_space.py"
    file.write_text(textwrap.dedent(source), encoding="utf-8")
    return file


def load(space: str | None, spec: DataSpec = IMAGES, *, base_dir: Path = Path()) -> Any:
    return spaces.load(space, spec, num_train=500, epochs=4, base_dir=base_dir)


@functools.cache
def compiled_model() -> Any:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    return model


class Space(keras_tuner.HyperModel):
    """A space from a function of hp, whose model does not matter."""

    def __init__(self, declare: Any) -> None:
        super().__init__()
        self.declare = declare
        self.num_builds = 0

    def build(self, hp: Any) -> Any:
        self.num_builds += 1
        result = self.declare(hp)
        return compiled_model() if result is None else result


def names_of(space: Any) -> list[str]:
    return [hp.name for hp in space.space]


# --- load ---


def test_names() -> None:
    assert spaces.names() == ["audio", "image", "series", "text"]


SOUNDS = DataSpec("audio_folder", "audio", "classification", (4000,), ("yes", "no"), sample_rate_hz=8000)
TEXTS = DataSpec("text_table", "text", "classification", (), ("ham", "spam"))


@pytest.mark.parametrize(
    ("spec", "input_shape", "output_shape"),
    [
        (IMAGES, (None, 8, 8, 1), (None, 3)),
        (TABLE, (None, 12, 1), (None, 1)),
        (DataSpec("npz", "series", "regression", (20, 3)), (None, 20, 3), (None, 1)),
        (SOUNDS, (None, *pipelines.output_shape(SOUNDS, {})), (None, 2)),
        (TEXTS, (None, *pipelines.output_shape(TEXTS, {})), (None, 2)),
    ],
    ids=["image", "table", "series", "audio", "text"],
)
def test_default_space_is_the_kinds_own(spec: DataSpec, input_shape: Any, output_shape: Any) -> None:
    model = load(None, spec).build(keras_tuner.HyperParameters())
    assert (model.input_shape, model.output_shape) == (input_shape, output_shape)


def test_a_model_has_the_shape_that_its_preprocessing_gives() -> None:
    hp = keras_tuner.HyperParameters()
    hp.values["front_end"] = "wave"
    assert load(None, SOUNDS).build(hp).input_shape == (None, 4000, 1)


def test_only_what_asks_for_the_shape_follows_it(user_file: Path) -> None:
    follows = {
        name: spaces.follows_shape(load(f"{user_file}:{name}"))
        for name in ("build", "build_for", "Plain", "Fitted", "ready")
    }
    assert follows == {"build": False, "build_for": True, "Plain": False, "Fitted": True, "ready": False}
    assert spaces.follows_shape(load(None))


def test_unknown_name() -> None:
    with pytest.raises(
        SpaceError,
        match=r"'imgae' is unknown. Expected one of audio, image, series, text, or FILE.py:OBJECT.*'image'\?",
    ):
        load("imgae")


def test_a_space_of_another_kind() -> None:
    with pytest.raises(SpaceError, match=r"'image' does not fit this data: .*input_shape=\(12, 1\) must be 3 positive"):
        load("image", TABLE)


def test_function_class_and_instance_of_a_file(user_file: Path) -> None:
    for name in ("build", "Plain", "ready"):
        hypermodel = load(f"my_space.py:{name}", base_dir=user_file.parent)
        assert isinstance(hypermodel, keras_tuner.HyperModel)
        assert names_of(spaces.discover(hypermodel, [])) == ["units"]


def test_absolute_path(user_file: Path) -> None:
    assert load(f"{user_file}:build").build(keras_tuner.HyperParameters()).output_shape == (None, 3)


def test_a_function_gets_the_facts_it_names(user_file: Path) -> None:
    model = load(f"{user_file}:build_for").build(keras_tuner.HyperParameters())
    assert (model.input_shape, model.output_shape) == ((None, 8, 8, 1), (None, 3))


def test_a_class_gets_the_facts_it_names(user_file: Path) -> None:
    assert load(f"{user_file}:Fitted").build(keras_tuner.HyperParameters()).name == "8_8_1_4_3"


def test_a_file_finds_modules_beside_it(user_file: Path) -> None:
    (user_file.parent / "layers_of_mine.py").write_text("def build(hp): ...\n", encoding="utf-8")
    user_file.write_text("from layers_of_mine import build\n", encoding="utf-8")
    assert isinstance(load(f"{user_file}:build"), keras_tuner.HyperModel)


def test_two_files_of_one_name_do_not_meet(user_file: Path) -> None:
    second = user_file.parent / "second"
    second.mkdir()
    (second / "my_space.py").write_text("def other_build(hp): ...\n", encoding="utf-8")
    load(f"{user_file}:build")
    assert isinstance(load(f"{second / 'my_space.py'}:other_build"), keras_tuner.HyperModel)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "biuld",
            r"has no object 'biuld'. It defines: build, .*Did you mean 'build'\? Write --space my_space.py:OBJECT",
        ),
        (
            "",
            "the object in it is missing. It defines: build, build_for, .*, Plain, Fitted, Broken, ready",
        ),
        ("SETTINGS", "is an object of type dict. Expected a keras_tuner.HyperModel"),
        ("Other", "is the class Other. Expected"),
        ("other", "is an object of type Other. Expected"),
        ("network", "is an object of type Sequential. Expected"),
        ("takes_more", "requires vocabulary, which the program does not know. It can give input_shape, voc"),
        ("takes_nothing", r"takes no hyperparameters. Expected a function build\(hp\)"),
        (
            "Broken",
            r"does not fit this data: RuntimeError: no such device \(.*my_space.py, line 40: raise RuntimeError",
        ),
    ],
)
def test_wrong_objects(user_file: Path, name: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        load(f"{user_file}:{name}")


def test_a_file_without_an_object_named(user_file: Path) -> None:
    with pytest.raises(SpaceError, match=r"is a file, and the object in it is missing. It defines: build, "):
        load(str(user_file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"nothing.py' does not exist. Give --space an existing FILE.py:OBJECT"):
        load("nothing.py:build", base_dir=tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ny = 1 / 0\n", r"ZeroDivisionError: division by zero \(.*my_space.py, line 2: y = 1 / 0\)"),
        ("def build(hp:\n", r"SyntaxError: .*my_space.py, line 1"),
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(.*line 2"),
        ("raise ValueError\n", r"cannot be imported: ValueError \(.*line 1"),
    ],
)
def test_a_file_that_fails(user_file: Path, source: str, message: str) -> None:
    user_file.write_text(source, encoding="utf-8")
    with pytest.raises(SpaceError, match=message):
        load(f"{user_file}:build")


def test_a_file_that_defines_nothing(user_file: Path) -> None:
    user_file.write_text("import keras_tuner\nfrom keras_tuner import HyperModel\n", encoding="utf-8")
    with pytest.raises(SpaceError, match="It defines nothing that could be one"):
        load(f"{user_file}:build")


def test_a_file_that_is_no_python(tmp_path: Path) -> None:
    (tmp_path / "space.txt").write_text("", encoding="utf-8")
    with pytest.raises(SpaceError, match="is no Python file"):
        load("space.txt:build", base_dir=tmp_path)


# --- discover ---


@pytest.mark.parametrize(("spec", "count"), [(IMAGES, 27), (TABLE, 26), (SOUNDS, 27), (TEXTS, 28)])
def test_our_spaces_are_found_completely(spec: DataSpec, count: int) -> None:
    space = spaces.discover(load(None, spec), [SCALER])
    assert names_of(space)[0] == "scaler"
    assert {"l1", "l2", "filters_1", "filters_4", "kernel_4", "dropout"} <= set(names_of(space))
    assert len(set(names_of(space))) == len(names_of(space)) == count
    assert space.values["scaler"] == "minmax"
    assert space.values["num_blocks"] == (1 if spec is TEXTS else 3)
    assert "filters_4" not in space.values


def test_nested_scopes_are_activated() -> None:
    seen: list[Any] = []

    def declare(hp: Any) -> None:
        hp.Boolean("a")
        with hp.conditional_scope("a", [True]):
            b = hp.Choice("b", ["x", "y", "z"])
            with hp.conditional_scope("b", ["y", "z"]):
                c = hp.Int("c", 1, 40)
                with hp.conditional_scope("c", [41, 40]):
                    if b == "y" and c == 40:
                        seen.append(hp.Float("d", 0, 1, default=0.5))

    hypermodel = Space(declare)
    space = spaces.discover(hypermodel, [])
    assert names_of(space) == ["a", "b", "c", "d"]
    assert space.values == {"a": False}
    assert seen == [0.5]
    assert hypermodel.num_builds == 4


def test_a_scope_with_conditions_that_exclude_each_other_is_left_out() -> None:
    def declare(hp: Any) -> None:
        hp.Choice("a", ["x", "y"])
        with hp.conditional_scope("a", ["x"]):
            hp.Float("b", 0, 1)
        with hp.conditional_scope("a", ["y"]):
            hp.Float("c", 0, 1)

    assert names_of(spaces.discover(Space(declare), [])) == ["a", "b", "c"]


def test_a_scope_that_nothing_activates_is_left_out_without_looping() -> None:
    def declare(hp: Any) -> None:
        hp.Choice("a", ["x", "y"])
        with hp.conditional_scope("a", ["z"]):
            hp.Float("never", 0, 1)

    hypermodel = Space(declare)
    assert names_of(spaces.discover(hypermodel, [])) == ["a"]
    assert hypermodel.num_builds == 1


def test_a_growing_space_ends_at_the_limit_of_builds() -> None:
    def declare(hp: Any) -> None:
        number = len(hp.space)
        hp.Boolean(f"a{number}")
        with hp.conditional_scope(f"a{number}", [True]):
            hp.Float(f"b{number}", 0, 1)

    hypermodel = Space(declare)
    spaces.discover(hypermodel, [])
    assert hypermodel.num_builds == spaces.MAX_DISCOVERY_BUILDS


def test_layers_in_a_plain_loop_are_found() -> None:
    def declare(hp: Any) -> None:
        for number in range(hp.Int("layers", 1, 3)):
            hp.Int(f"units_{number}", 8, 64)

    space = spaces.discover(Space(declare), [])
    assert names_of(space) == ["layers", "units_0", "units_1", "units_2"]
    assert space.values["layers"] == 1


@pytest.mark.parametrize(("end", "expected"), [(15, 15), (16, 1)])
def test_only_small_integers_are_taken_for_counts(end: int, expected: int) -> None:
    largest = 0

    def declare(hp: Any) -> None:
        nonlocal largest
        largest = max(largest, hp.Int("layers", 1, end))

    spaces.discover(Space(declare), [])
    assert largest == expected


def test_a_largest_network_that_fails_is_for_the_trials_to_report() -> None:
    def declare(hp: Any) -> None:
        if hp.Int("layers", 1, 3) == 3:
            raise ValueError("too small an input")

    assert names_of(spaces.discover(Space(declare), [])) == ["layers"]


def test_declared_hyperparameters_are_found() -> None:
    class Declaring(Space):
        def declare_hyperparameters(self, hp: Any) -> None:
            hp.Float("early", 0, 1)

    assert names_of(spaces.discover(Declaring(lambda hp: None), [SCALER])) == ["scaler", "early"]


def test_a_name_of_the_preprocessing_is_refused() -> None:
    hypermodel = Space(lambda hp: hp.Choice("scaler", ["big", "small"]) and None)
    with pytest.raises(
        SpaceError, match=r"declares 'scaler', which the preprocessing declares, too. Rename it .*'model_scaler'"
    ):
        spaces.discover(hypermodel, [SCALER])


def test_no_hyperparameters() -> None:
    with pytest.raises(
        SpaceError, match=r'has no hyperparameters. Declare some in build\(hp\), such as hp.Float\("learning_rate"'
    ):
        spaces.discover(Space(lambda hp: None), [SCALER])


def test_an_exception_in_build_names_the_line(user_file: Path) -> None:
    write(
        user_file.parent,
        """
        import keras

        def build(hp):
            units = hp.Int("units", 8, 32)
            return keras.layers.Dense(-units)
        """,
    )
    with pytest.raises(
        SpaceError, match=r"raised ValueError: .*my_space.py, line 6: return keras.layers.Dense"
    ) as caught:
        spaces.discover(load(f"{user_file}:build"), [])
    assert "The hyperparameters were: units=8." in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (3, "returned an object of type int. Expected a compiled keras.Model"),
        (keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), r"not compiled. Call model.compile\("),
    ],
)
def test_what_build_returns(returned: object, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        spaces.discover(Space(lambda hp: returned), [])


def test_build_that_forgets_to_return(user_file: Path) -> None:
    user_file.write_text("def build(hp):\n    hp.Int('units', 1, 2)\n", encoding="utf-8")
    with pytest.raises(SpaceError, match=r"returned an object of type NoneType.*does it end with `return model`"):
        spaces.discover(load(f"{user_file}:build"), [])


# --- describe ---


def test_rows() -> None:
    hp = keras_tuner.HyperParameters()
    hp.Float("rate", 1e-4, 1e-2, sampling="log", default=1e-3)
    hp.Int("units", 32, 128, step=32)
    hp.Boolean("use_l2")
    with hp.conditional_scope("use_l2", [True]):
        hp.Int("depth", 1, 3)
        with hp.conditional_scope("depth", [2, 3]):
            hp.Choice("kind", ["a", "b"], default="b")
    hp.Fixed("version", 3)
    rows = spaces.describe(hp)
    assert [(row.name, row.type, row.range, row.scale, row.default, row.active_when) for row in rows] == [
        ("rate", "float", "0.0001:0.01", "log", 1e-3, ""),
        ("units", "int", "32:128 step 32", "linear", 32, ""),
        ("use_l2", "boolean", "true,false", "", False, ""),
        ("depth", "int", "1:3", "linear", 1, "use_l2=true"),
        ("kind", "choice", "a,b", "", "b", "use_l2=true and depth=2,3"),
        ("version", "fixed", "3", "", 3, ""),
    ]
    assert (rows[0].low, rows[0].high, rows[0].values) == (1e-4, 1e-2, ())
    assert json.loads(json.dumps([dataclasses.asdict(row) for row in rows]))[4]["values"] == ["a", "b"]
