from __future__ import annotations

import re
from pathlib import Path

import pytest

from tuner.grammar import counted, verb

ROOT = Path(__file__).parents[1]
# Nouns that stand behind `counted` in the program, as literals.
NOUNS = sorted(
    {
        noun
        for folder in ("tuner", "reports")
        for file in (ROOT / folder).rglob("*.py")
        for noun in re.findall(r"counted\([^\"']*?, [\"']([\w ]+)[\"']", file.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize(
    ("number", "nouns", "does", "of", "told"),
    [
        (1, "rows", "", None, "1 row"),
        (0, "rows", "are", None, "0 rows are"),
        (2, "rows", "were", None, "2 rows were"),
        (12_345, "files", "have", None, "12,345 files have"),
        (1, "nameless empty columns", "were", None, "1 nameless empty column was"),
        (1, "classes", "have", 2, "1 of 2 classes has"),
        (1, "images", "are", 1, "1 of 1 image is"),
        (1, "series", "hold", None, "1 series holds"),
        (1, "single batches", "", None, "1 single batch"),
    ],
)
def test_a_count_its_noun_and_its_verb_agree(number: int, nouns: str, does: str, of: int | None, told: str) -> None:
    assert counted(number, nouns, does, of=of) == told


def test_regular_and_irregular_verbs() -> None:
    assert [verb(1, many) for many in ("have", "are", "reach", "count", "lack")] == [
        "has",
        "is",
        "reaches",
        "counts",
        "lacks",
    ]
    assert verb(0, "have") == verb(2, "have") == "have"


def test_each_noun_of_the_program_is_given_in_the_plural() -> None:
    nouns = [noun for noun in NOUNS if noun not in ("are", "have")]
    assert len(nouns) > 30
    assert [noun for noun in nouns if not noun.endswith("s")] == []
    assert [noun for noun in nouns if counted(1, noun).endswith(("che", "she", "sse", "xe", "ie"))] == []
