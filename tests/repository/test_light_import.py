"""What only shows, lists or explains starts at once: it never imports TensorFlow, Keras or scikit-learn."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from tuner.cli import cli

# Keras takes seconds, the others some tenths of a second each.
KERAS = {"keras", "keras_tuner", "tensorflow", "jax", "torch"}
HEAVY = KERAS | {"sklearn", "optuna", "pandas", "plotly", "scipy"}


def imported_modules(*arguments: str, cwd: Path) -> tuple[set[str], str]:
    """Run Python and return the top-level names of the modules that it imported, and its standard output."""
    command = [sys.executable, "-X", "importtime", *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    names = re.findall(r"^import time:\s*\d+ \|\s*\d+ \|\s*([\w.]+)$", result.stderr, flags=re.MULTILINE)
    assert "site" in names
    return {name.partition(".")[0] for name in names}, result.stdout


@pytest.mark.parametrize("package", ["tuner", "tuner.cli", "search_spaces"])
def test_packages_import_nothing_heavy(package: str, tmp_path: Path) -> None:
    names, _ = imported_modules("-c", f"import {package}", cwd=tmp_path)
    assert names & HEAVY == set()


def test_reports_import_what_draws_and_nothing_that_trains(tmp_path: Path) -> None:
    names, _ = imported_modules("-c", "import reports", cwd=tmp_path)
    assert names & (HEAVY - {"plotly", "pandas", "scipy"}) == set()


@pytest.mark.parametrize("command", ["", *sorted(cli.commands)])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    names, output = imported_modules("-m", "tuner", *command.split(), "--help", cwd=tmp_path)
    assert "Usage:" in output
    assert names & HEAVY == set()


def test_version_imports_nothing_heavy(tmp_path: Path) -> None:
    names, _ = imported_modules("-m", "tuner", "--version", cwd=tmp_path)
    assert names & HEAVY == set()


def test_light_modules_bring_no_keras(root: Path, tmp_path: Path, setup_cfg: ConfigParser) -> None:
    """import-linter reads our imports; this also sees what other packages bring along, and the packages above."""
    light = setup_cfg["importlinter:contract:light"]["source_modules"].split()
    files = sorted(file for package in ("reports", "tuner") for file in (root / package).rglob("*.py"))
    modules = [".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for file in files]
    chosen = [name for name in modules if any(name == top or name.startswith(f"{top}.") for top in light)]
    assert len(chosen) > len(light)
    in_search = ["tuner.search.setup", "tuner.search.supervisor"]
    names, _ = imported_modules("-c", f"import {', '.join([*chosen, *in_search])}", cwd=tmp_path)
    assert names & KERAS == set()


def test_the_check_sees_keras(tmp_path: Path) -> None:
    (tmp_path / "keras.py").touch()
    names, _ = imported_modules("-c", "import keras", cwd=tmp_path)
    assert names & KERAS == {"keras"}
