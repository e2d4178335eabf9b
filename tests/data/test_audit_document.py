"""docs/audit.md has a row for every check, with the thresholds of the code."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from tuner.data.audit.registry import CHECKS, Check

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit.md"
ROW = re.compile(r"^\| `(\w+)` \|(.*)\|$", re.MULTILINE)
THRESHOLD = re.compile(r"`([A-Z_]+)` = ([\d./]+)")


def rows() -> dict[str, str]:
    return dict(ROW.findall(DOCUMENT.read_text(encoding="utf-8")))


def test_every_check_has_a_row_and_no_other() -> None:
    assert sorted(rows()) == sorted(check.code for check in CHECKS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.code)
def test_thresholds_are_those_of_the_code(check: Check) -> None:
    module = sys.modules[check.run.__module__]
    for name, value in THRESHOLD.findall(rows()[check.code]):
        constant = getattr(module, name, None)
        assert constant is not None, f"{module.__name__} has no {name}"
        assert float(Fraction(value)) == pytest.approx(constant), name


def test_most_rows_name_a_threshold() -> None:
    """The pattern finds them: a row that says none is one whose check speaks of any case."""
    without = {code for code, row in rows().items() if not THRESHOLD.search(row)}
    assert all("| any |" in row or "| as for `" in row for code, row in rows().items() if code in without)


def test_every_check_says_what_it_looks_for() -> None:
    assert all((check.run.__doc__ or "").strip() for check in CHECKS)
