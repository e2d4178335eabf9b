"""No tracked file names a folder of anyone's machine, or a package registry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# In pieces, so that this file passes its own check.
HOMES = "|".join(["/" + "home/", "/" + "Users/", "/" + "root/", "/" + "work/", "/" + "tmp/w/", r"[A-Z]:\\+Users\\+"])
MACHINE_PATH = re.compile(rf"(?<![\w.~-])(?:{HOMES})[\w.-]+")
REGISTRY = re.compile(
    "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.(?:org|com)", "deb" + r"\.debian\.org"])
)


def offences(files: list[Path], pattern: re.Pattern[str], root: Path) -> list[str]:
    """File, line and match of each place where the pattern occurs in a text file."""
    found = []
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{file.relative_to(root)}:{n}: {m[0]}" for n, line in enumerate(lines, 1) for m in pattern.finditer(line)
        ]
    return found


def test_no_path_of_a_machine(tracked_files: list[Path], root: Path) -> None:
    assert offences(tracked_files, MACHINE_PATH, root) == []


def test_no_registry_host(tracked_files: list[Path], root: Path) -> None:
    assert offences(tracked_files, REGISTRY, root) == []


def test_nothing_generated_is_tracked(tracked_files: list[Path], root: Path) -> None:
    generated = {"__pycache__", ".venv", "runs", "build", "dist", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
    assert [str(file) for file in tracked_files if generated & set(file.relative_to(root).parts)] == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("open('/" + "home/anna/data.csv')", True),
        ("cd /" + "root/project", True),
        ("C:" + "\\Users\\anna", True),
        ("see https://example.org/" + "home/page", False),
        ("the home/folder of a user", False),
        ("tests/framework/file.py", False),
    ],
)
def test_the_check_finds_paths(text: str, *, is_found: bool, tmp_path: Path) -> None:
    file = tmp_path / "note.md"
    file.write_text(text, encoding="utf-8")
    assert bool(offences([file], MACHINE_PATH, tmp_path)) is is_found
