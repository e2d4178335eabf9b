"""What the tests of the repository itself read: its files, modules and documents."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def setup_cfg() -> configparser.ConfigParser:
    """setup.cfg, as the build reads it."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="session")
def tracked_files() -> list[Path]:
    """The files that git tracks or would add; without git, the test that asks for them is skipped."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout, so there is no list of its files: {error}")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
