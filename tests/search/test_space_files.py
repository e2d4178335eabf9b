"""What can be said of the search space that a user names before its file is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.errors import SpaceError
from tuner.search.space_files import locate, require


def space(folder: Path, text: str) -> Path:
    file = folder / "mine.py"
    file.write_text(text, encoding="utf-8")
    return file


def test_ours_are_no_files(tmp_path: Path) -> None:
    assert locate("image", base_dir=tmp_path) is None
    require("image", base_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "told"), [("imgae", r"unknown.*Did you mean 'image'\?"), ("none.py:x", r"none\.py' does not exist")]
)
def test_what_is_not_there_is_named(name: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=told):
        require(name, base_dir=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "def build(hp): ...",
        "class build: ...",
        "build = None",
        "build: object = None",
        "other = build = None",
        "a, (build, c) = 1, (2, 3)",
        "import build",
        "import build.below",
        "import other as build",
        "from other import build",
        "from other import this as build",
        "from other import *",
        "try:\n    from other import build\nexcept ImportError:\n    pass",
        "if True:\n    def build(hp): ...",
        "for build in (): ...",
        "with open('x') as build: ...",
        "globals()['bui' + 'ld'] = None",
        "exec('build = None')",
        "if (build := 1): ...",
        "this is no Python",
        "\0",
    ],
)
def test_what_may_be_there_is_left_to_the_import(text: str, tmp_path: Path) -> None:
    file = space(tmp_path, text)
    assert locate("mine.py:build", base_dir=tmp_path) == (file, "build")
    require("mine.py:build", base_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "mine.py:biuld",
            r"has no object 'biuld'\. It defines: build, Space\. Did you mean 'build'\? Write --space mine",
        ),
        ("mine.py:", r"is a file, and the object in it is missing\. It defines: build, Space\. Write --space mine"),
        ("mine.py", r"is a file, and the object in it is missing\. It defines: build, Space\. Write --space mine"),
    ],
)
def test_an_object_that_is_not_there_is_named_with_those_that_are(name: str, told: str, tmp_path: Path) -> None:
    space(tmp_path, "import keras\n\ndef build(hp): ...\n\nclass Space: ...\n\ndef _hidden(): ...\n")
    with pytest.raises(SpaceError, match=told):
        require(name, base_dir=tmp_path)


def test_a_file_with_nothing_in_it(tmp_path: Path) -> None:
    space(tmp_path, "x = 1\n")
    with pytest.raises(SpaceError, match=r"has no object 'build'\. It defines nothing that could be one"):
        require("mine.py:build", base_dir=tmp_path)
