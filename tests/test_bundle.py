"""The bundle: its configuration reads back the same, and no changed file goes unseen."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.bundle import BundleConfig, check_bundle, read_config, write_config, write_manifest
from tuner.errors import BundleError
from tuner.records import DataSpec

FILES = {"config.yaml": "a: 1\n", "model.keras": "model", "pipeline.skops": "pipeline", "README.md": "card"}
CONFIG = BundleConfig(
    run="runs/x",
    trial=3,
    source="data.csv",
    fingerprint="0" * 64,
    data=DataSpec("table", "series", "classification", (4,), ("no", "1e-3"), "y", ("p", "q: r", "#s", "")),
    space="series",
    hyperparameters={"rate": 1e-05, "blocks": 2, "l2?": False, "optimizer": "adam", "odd": "1e-5", "none": None},
    epochs=20,
    seed=2**31 - 1,
    split_seed=0,
    metric="accuracy",
    stability_weight=0.2,
    validation={"val_loss": 0.5},
    test={"accuracy": 0.9},
    stability=0.95,
    versions={"python": "3.11", "keras": "3.15.10"},
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with the files that every bundle has, and some in a folder of their own."""
    root = tmp_path / "my bundle #1"
    root.mkdir()
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "more").mkdir()
    (root / "more" / "größe.txt").write_text("x")
    write_manifest(root)
    return root


# --- the manifest ------------------------------------------------------------------------------------------------


def test_an_untouched_bundle_passes(bundle: Path) -> None:
    assert check_bundle(bundle).root == bundle
    sums = json.loads((bundle / "manifest.json").read_text())
    assert sums["schema_version"] == 1
    assert sums["sha256"].keys() == {*FILES, "more/größe.txt"}
    # Of "model", by sha256sum.
    assert sums["sha256"]["model.keras"] == "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"


@pytest.mark.parametrize("name", [*FILES, "more/größe.txt"])
def test_a_changed_file_is_named(bundle: Path, name: str) -> None:
    file = bundle / name
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=rf"cannot be trusted: {re.escape(name)} was changed\. Export it again"):
        check_bundle(bundle)


@pytest.mark.parametrize("name", [*FILES, "more/größe.txt"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"cannot be trusted: {re.escape(name)} is missing"):
        check_bundle(bundle)


def test_all_that_is_wrong_is_named_at_once(bundle: Path) -> None:
    (bundle / "model.keras").write_text("other")
    (bundle / "README.md").unlink()
    with pytest.raises(BundleError) as caught:
        check_bundle(bundle)
    assert "README.md is missing, model.keras was changed" in str(caught.value)


@pytest.mark.parametrize("name", ["config.yaml", "model.keras", "pipeline.skops"])
def test_what_every_bundle_has_must_be_in_the_manifest(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["sha256"][name]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        check_bundle(bundle)


@pytest.mark.parametrize("name", ["target_scaler.skops", "space.py"])
def test_a_file_that_would_be_used_but_is_not_in_the_manifest_is_named(bundle: Path, name: str) -> None:
    (bundle / name).write_text("x")
    with pytest.raises(BundleError, match=rf"{re.escape(name)} was added"):
        check_bundle(bundle)


def test_other_files_may_be_added(bundle: Path) -> None:
    (bundle / "predictions.csv").write_text("x")
    (bundle / "__pycache__").mkdir()
    check_bundle(bundle)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"sha256": null}', b'{"sha256": {"a": 1}}', b"\xff\xfe", b'{"sha256": "x"}'],
)
def test_a_damaged_manifest_is_named(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json' is damaged\. Export the bundle again"):
        check_bundle(bundle)


@pytest.mark.parametrize("name", ["none", "file.txt", "."])
def test_what_is_no_bundle_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(BundleError, match=r"is no bundle: it has no manifest\.json\. Make one with: python -m tuner"):
        check_bundle(tmp_path / name)


def test_a_manifest_that_points_out_of_the_bundle_is_refused(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["sha256"]["../outside"] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="outside"):
        check_bundle(bundle)


# --- the configuration -------------------------------------------------------------------------------------------


def test_the_configuration_reads_back_the_same(tmp_path: Path) -> None:
    write_config(tmp_path / "config.yaml", CONFIG)
    assert read_config(tmp_path / "config.yaml") == CONFIG
    assert read_config(tmp_path) == CONFIG
    values = read_config(tmp_path).hyperparameters
    assert {name: type(value) for name, value in values.items()} == {
        name: type(value) for name, value in CONFIG.hyperparameters.items()
    }


# YAML's line breaks of old, such as NEL, do not survive in a key.
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")))
VALUES = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text() | st.none()


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hyperparameters=st.dictionaries(NAMES, VALUES, max_size=4),
    source=st.none() | st.text(),
    names=st.lists(st.text(), max_size=3).map(tuple),
    test=st.dictionaries(NAMES, st.floats(allow_nan=False), max_size=3),
)
def test_any_configuration_reads_back_the_same(
    tmp_path: Path, hyperparameters: dict[str, Any], source: str | None, names: tuple[str, ...], test: dict[str, float]
) -> None:
    config = dataclasses.replace(
        CONFIG,
        hyperparameters=hyperparameters,
        source=source,
        test=test,
        data=dataclasses.replace(CONFIG.data, class_names=names),
    )
    write_config(tmp_path / "config.yaml", config)
    read = read_config(tmp_path / "config.yaml")
    assert read == config
    assert [type(value) for value in read.hyperparameters.values()] == [type(v) for v in hyperparameters.values()]


def test_figures_that_are_no_numbers_read_back(tmp_path: Path) -> None:
    write_config(tmp_path / "config.yaml", dataclasses.replace(CONFIG, test={"a": math.nan, "b": math.inf}))
    test = read_config(tmp_path).test
    assert math.isnan(test["a"])
    assert test["b"] == math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the configuration of a bundle"),
        ("trials: 5\nepochs: 3\n", r"is not the configuration of a bundle \(.*Field required"),
        ("a: [1,", "is not valid YAML"),
        ("- a\n", "is not the configuration of a bundle"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BundleError, match=message):
        read_config(tmp_path / "config.yaml")


def test_a_wrong_value_is_named(tmp_path: Path) -> None:
    write_config(tmp_path / "config.yaml", CONFIG)
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("epochs: 20", "epochs: many"))
    with pytest.raises(BundleError, match=r"\(epochs: .*integer.*\)\. Export the bundle again"):
        read_config(tmp_path)


def test_a_missing_or_binary_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.yaml' cannot be read: No such file"):
        read_config(tmp_path)
    with pytest.raises(BundleError, match=r"none\.yaml' cannot be read"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="is not valid YAML"):
        read_config(tmp_path)
