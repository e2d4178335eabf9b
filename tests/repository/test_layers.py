"""Imports point downward only (docs/architecture.md); import-linter reads the contracts from setup.cfg."""

from __future__ import annotations

import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

LINT_IMPORTS = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports('setup.cfg', no_cache=True))"
PACKAGES = ("reports", "search_spaces", "tuner")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LINT_IMPORTS], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of the packages in which a test may break a rule."""
    for package in PACKAGES:
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "setup.cfg", tmp_path)
    return tmp_path


def test_imports_keep_to_the_layers(root: Path) -> None:
    result = lint_imports(root)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("tuner/errors.py", "import tuner.store", "Imports point downward only"),
        ("tuner/data/split.py", "import tuner.stability.score", "Imports point downward only"),
        ("tuner/training/seedrun.py", "import tuner.search.study", "Imports point downward only"),
        ("tuner/search/study.py", "import tuner.search.tuner", "No import cycles"),
        ("search_spaces/image.py", "import tuner.records", "Search spaces import nothing of ours"),
        ("tuner/stability/score.py", "import keras", "What serves status, report and submit never leads to Keras"),
        ("tuner/search/study.py", "import tuner.training.seedrun", "never leads to Keras"),
        ("tuner/cli.py", "import keras_tuner", "Keras is imported only where models are built"),
        ("search_spaces/image.py", "import tensorflow", "TensorFlow itself stays behind the training"),
    ],
)
def test_a_forbidden_import_is_found(copy: Path, file: str, line: str, contract: str) -> None:
    with (copy / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n\ndef late() -> None:\n    {line}\n")
    result = lint_imports(copy)
    broken = [text for text in result.stdout.splitlines() if " BROKEN" in text and contract in text]
    assert result.returncode == 1
    assert broken, result.stdout + result.stderr


def test_every_module_has_a_layer(root: Path, setup_cfg: ConfigParser) -> None:
    layers = setup_cfg["importlinter:contract:layers"]["layers"].replace("|", " ").replace(":", " ").split()
    modules = {file.stem for file in (root / "tuner").glob("*.py")} - {"__init__"}
    packages = {file.parent.name for file in (root / "tuner").glob("*/__init__.py")}
    assert sorted(f"tuner.{name}" for name in modules | packages) == sorted(set(layers) - {"reports"})
