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
    assert names & (HEAVY - {"plotly", "pandas"}) == set()


@pytest.mark.parametrize("command", ["", *sorted(cli.commands)])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    names, output = imported_modules("-m", "tuner", *command.split(), "--help", cwd=tmp_path)
    assert "Usage:" in output
    assert names & HEAVY == set()


def test_version_imports_nothing_heavy(tmp_path: Path) -> None:
    names, _ = imported_modules("-m", "tuner", "--version", cwd=tmp_path)
    assert names & HEAVY == set()


def test_modules_without_keras_import_none(root: Path, tmp_path: Path, setup_cfg: ConfigParser) -> None:
    """import-linter reads our imports; this also sees what our imports bring along from other packages."""
    with_keras = {"tuner.__main__", *setup_cfg["importlinter:contract:keras"]["allowed_importers"].split()}
    files = [
        *(root / "tuner").glob("*.py"),
        *(root / "tuner" / "data").glob("*.py"),
        *(root / "tuner" / "stability").glob("*.py"),
        *(root / "reports").glob("*.py"),
        *(root / "tuner" / "search" / f"{name}.py" for name in ("setup", "study", "supervisor")),
    ]
    modules = {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for file in files}
    names, _ = imported_modules("-c", f"import {', '.join(sorted(modules - with_keras))}", cwd=tmp_path)
    assert names & KERAS == set()


def test_the_check_sees_keras(tmp_path: Path) -> None:
    (tmp_path / "keras.py").touch()
    names, _ = imported_modules("-c", "import keras", cwd=tmp_path)
    assert names & KERAS == {"keras"}
