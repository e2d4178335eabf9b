"""Options: precedence, all mistakes at once, the `space:` section, and what a run folder stores."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.config import RESUMABLE_KEYS, SearchConfig, dump_config, load_file, load_resolved, resolve
from tuner.errors import ConfigError

WriteFile = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    """Writes a configuration file."""

    def write_file(text: str) -> Path:
        file = tmp_path / "search.yaml"
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return write_file


# --- precedence --------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_contract() -> None:
    config = resolve({}, None)
    assert (config.trials, config.epochs, config.time_limit) == (30, 20, None)
    assert (config.objective, config.stability_weight, config.algorithm, config.seed) == ("stable", 0.2, "tpe", 0)
    assert (config.kind, config.task, config.metric) == ("auto", "auto", "auto")
    assert (config.data, config.target, config.space, config.range, config.fix) == (None, None, None, {}, {})
    assert config.force is False


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(write: WriteFile) -> None:
    config = resolve({"trials": 3}, write("trials: 5\nepochs: 7\n"))
    assert (config.trials, config.epochs, config.seed) == (3, 7, 0)


def test_ranges_of_flag_and_file_are_merged_name_by_name(write: WriteFile) -> None:
    file = write(
        """
        range: {dropout: [0, 0.5], l2: "1e-5:1e-3"}
        fix: {optimizer: adam}
        """
    )
    config = resolve({"range": {"dropout": "0.1:0.2"}, "fix": {"batch_size": "32"}}, file)
    assert config.range == {"dropout": "0.1:0.2", "l2": "1e-5:1e-3"}
    assert config.fix == {"optimizer": "adam", "batch_size": "32"}


# --- the file ----------------------------------------------------------------------------------------------------


def test_the_space_section_means_space_range_and_fix(write: WriteFile) -> None:
    config = resolve(
        {},
        write(
            """
            space:
              name: image
              learning_rate: [1e-4, 1e-2]
              optimizer: adam
              batch_size: [16, 32, 64]
              kernel_1: ["3", "5"]
              dropout: "0.1:0.3"
              batch_norm: true
            """
        ),
    )
    assert config.space == "image"
    assert config.range == {
        "learning_rate": "0.0001:0.01",
        "batch_size": "16,32,64",
        "kernel_1": "3,5",
        "dropout": "0.1:0.3",
    }
    assert config.fix == {"optimizer": "adam", "batch_norm": "True"}


def test_a_space_section_without_name_leaves_the_kinds_own_space(write: WriteFile) -> None:
    config = resolve({}, write("space: {dropout: 0.2}"))
    assert (config.space, config.fix) == (None, {"dropout": "0.2"})


def test_a_space_may_be_a_plain_name(write: WriteFile) -> None:
    assert resolve({}, write("space: my_space.py:build")).space == "my_space.py:build"


def test_numbers_in_exponent_form_are_numbers(write: WriteFile) -> None:
    # YAML 1.1 readers take 1e-3 for text.
    config = resolve({}, write("stability_weight: 1e-3\nfix: {learning_rate: 1e-3}\n"))
    assert config.stability_weight == 0.001
    assert float(config.fix["learning_rate"]) == 0.001


def test_yes_and_no_are_text_in_yaml_1_2(write: WriteFile) -> None:
    assert resolve({}, write("fix: {balance: none, answer: no}")).fix == {"balance": "none", "answer": "no"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trials: 5\ntrials: 6\n", r"is not valid YAML: .*duplicate key \"trials\""),
        ("trials: [1, 2\n", r"is not valid YAML"),
        ("- trials\n- 5\n", r"must hold `key: value` lines, such as `trials: 30`"),
        ("just text\n", r"must hold `key: value` lines"),
        ("", r"must hold `key: value` lines"),
        ("a: !!python/object/apply:os.system ['true']\n", r"is not valid YAML"),
        ("a: &x [*x]\n", r"unknown key 'a'"),
        ("1: 2\n", r"1"),
        ("trials: {a: 1}\n", r"trials: .*integer"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(write: WriteFile, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.compile(message, re.DOTALL)):
        resolve({}, write(text))


@pytest.mark.parametrize("value", ["null", "5", "adam", "[a, b]"])
@pytest.mark.parametrize("key", ["range", "fix"])
@pytest.mark.parametrize("has_section", [False, True])
@pytest.mark.parametrize("has_flag", [False, True])
def test_a_range_that_is_no_mapping_is_one_clear_mistake(
    write: WriteFile, key: str, value: str, *, has_section: bool, has_flag: bool
) -> None:
    text = f"{key}: {value}\n" + ("space: {dropout: 0.1, l2: [1, 2]}\n" if has_section else "")
    with pytest.raises(ConfigError, match=rf"{key}: .*dictionary"):
        resolve({key: {"optimizer": "adam"}} if has_flag else {}, write(text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'.*none\.yaml' cannot be read: No such file.*Give --config"):
        resolve({}, tmp_path / "none.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        resolve({}, tmp_path)


@pytest.mark.parametrize("content", [b"trials: \xff\xfe\n", b"\x00\x01", b"\x89PNG\r\n\x1a\n"])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "binary.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_file(tmp_path / "binary.yaml")


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_with_the_nearest_known_one(write: WriteFile) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'trails'\. Did you mean 'trials'\?"):
        resolve({}, write("trails: 5"))


def test_a_key_like_none_is_refused_without_a_guess(write: WriteFile) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'zzzzzz'\.$"):
        resolve({}, write("zzzzzz: 5"))


def test_all_mistakes_are_named_at_once(write: WriteFile) -> None:
    file = write("trials: 0\nepochs: many\nalgorithm: bayes\nseeed: 1\n")
    with pytest.raises(ConfigError) as caught:
        resolve({"stability_weight": 11.0}, file)
    message = str(caught.value)
    assert str(file) in message
    assert "the command line" in message
    for part in (
        "trials: ",
        "(got 0)",
        "epochs: ",
        "(got 'many')",
        "algorithm: ",
        "'tpe', 'random', 'grid', 'nsga2', 'cmaes', 'gp' or 'qmc'",
        "(got 'bayes')",
        "'seeed'",
        "Did you mean 'seed'",
        "stability_weight: ",
        "(got 11.0)",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("trials", (1,), (0, -1, 2.5, None)),
        ("epochs", (1,), (0, "x")),
        ("image_size", (8, 1024, None), (7, 1025)),
        ("stability_weight", (0, 10), (-0.001, 10.001, math.nan, math.inf)),
        ("seed", (0, 2**31 - 1), (-1, 2**31)),
        ("workers", ("auto", 1, 1024), (0, 1025, "some", "", 2.5, True, None)),
        ("time_limit", (0.001, None), (0, -1, math.nan)),
        ("kind", ("auto", "image", "series"), ("images", "")),
        ("objective", ("stable", "val_loss", "val_accuracy"), ("loss",)),
        ("data", ("x", None), (5, ["x"])),
    ],
)
def test_both_sides_of_each_limit(name: str, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    for value in good:
        assert getattr(resolve({name: value}, None), name) == value
    for value in bad:
        with pytest.raises(ConfigError, match=rf"{name}: "):
            resolve({name: value}, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("30m", 1800.0),
        ("2h", 7200.0),
        (" 1.5 h ", 5400.0),
        ("1d", 86400.0),
        (45, 45.0),
        (0.5, 0.5),
    ],
)
def test_time_limits(text: object, seconds: float) -> None:
    assert resolve({"time_limit": text}, None).time_limit == seconds


@pytest.mark.parametrize("text", ["soon", "2 hours", "1h30m", "-5m", "m", "", "2H"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match=r"time_limit: .* is not a time\. Write 90s, 30m, 2h or 1d\."):
        resolve({"time_limit": text}, None)


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"time_limit: .*greater than 0"):
        resolve({"time_limit": "0s"}, None)


# --- what is stored ----------------------------------------------------------------------------------------------

PRINTABLE = st.text(min_size=1)
# Names of hyperparameters. YAML's line breaks of old, such as NEL, do not survive in a key.
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1)
CONFIGS = st.builds(
    SearchConfig,
    data=st.none() | PRINTABLE,
    kind=st.sampled_from(["auto", "image", "series"]),
    target=st.none() | st.text(),
    image_size=st.none() | st.integers(8, 1024),
    space=st.none() | PRINTABLE,
    range=st.dictionaries(NAMES, st.text(), max_size=3),
    fix=st.dictionaries(NAMES, st.text(), max_size=3),
    trials=st.integers(1, 10**6),
    time_limit=st.none() | st.floats(1e-300, math.inf),
    stability_weight=st.floats(0, 10),
    seed=st.integers(0, 2**31 - 1),
    force=st.booleans(),
)
TRAPS = [
    "null",
    "~",
    "true",
    "yes",
    "1e-3",
    "0x10",
    "1:30",
    "#no comment",
    "a: b",
    "- x",
    "'",
    '"',
    "",
    " x ",
    "*a",
    "!b",
]


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=CONFIGS)
def test_what_is_stored_reads_back_the_same(tmp_path: Path, config: SearchConfig) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_resolved(file) == config


@pytest.mark.parametrize("text", TRAPS)
def test_text_that_looks_like_yaml_reads_back_as_text(tmp_path: Path, text: str) -> None:
    config = SearchConfig(data=text, target=text, fix={"a": text, "b" + text: "1"})
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_resolved(file) == config
    assert resolve({}, file) == config


def test_the_stored_file_has_a_schema_version() -> None:
    assert dump_config(SearchConfig()).startswith("schema_version: 1\n")


def test_resumable_keys_are_options() -> None:
    assert set(RESUMABLE_KEYS) < set(SearchConfig.model_fields)


def test_a_baseline_is_written_out_or_a_file(write: WriteFile) -> None:
    file = write("learning_rate: 0.01\nuse_l2: true\noptimizer: sgd\n")
    expected = {"learning_rate": "0.01", "use_l2": "true", "optimizer": "sgd"}
    for told in (str(file), "learning_rate=0.01, use_l2=true,optimizer=sgd", expected):
        config = resolve({"baseline": told}, None)
        assert config.baseline == expected
        assert resolve(config.model_dump(), None).baseline == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.yaml", "baseline: .*'missing.yaml' cannot be read"),
        ("learning_rate=0.01,sgd", "baseline: .*'learning_rate=0.01,sgd' is not of the form NAME=VALUE,NAME=VALUE"),
    ],
)
def test_a_baseline_that_is_neither_is_refused(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"baseline": given}, None)


def test_the_front_has_defaults_of_its_own_and_takes_no_pruner(write: WriteFile) -> None:
    chosen = resolve({"objective": "pareto"}, None)
    assert (chosen.algorithm, chosen.pruner, chosen.is_pareto) == ("nsga2", "none", True)
    assert resolve({}, None).algorithm == "tpe"
    assert resolve({"algorithm": "tpe"}, write("objective: pareto")).algorithm == "tpe"
    with pytest.raises(ConfigError, match=r"no pruner can \(got pruner 'asha'\); leave --pruner out"):
        resolve({"objective": "pareto", "pruner": "asha"}, None)
    with pytest.raises(ConfigError, match=r"algorithm 'cmaes' minimises one number.*use nsga2, tpe"):
        resolve({"objective": "pareto", "algorithm": "cmaes"}, None)
