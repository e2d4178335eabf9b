from __future__ import annotations

import math
import shlex

import pytest

from reports.formats import MISSING, command, compact, count, duration, fixed, number, percent

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, MISSING),
        (0.0, "0"),
        (0.97123, "0.971"),
        (1.0, "1.00"),
        (-2.6184, f"{MINUS}2.62"),
        (0.0001, "0.000100"),
        (0.0000999, "9.99e-5"),
        (-1.5e-7, "-1.50e-7"),
        (12345.6, "12,346"),
        (999_999, "999,999"),
        (1_000_000, "1.00e6"),
        (math.nan, "NaN"),
        (math.inf, "infinite"),
        (-math.inf, f"{MINUS}infinite"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.5"), (5.0, "5"), (100.0, "100"), (0.590, "0.59"), (2e-7, "2.00e-7")]
)
def test_compact_drops_zeros_at_the_end_only(value: float, text: str) -> None:
    assert compact(value) == text


def test_fixed() -> None:
    assert [fixed(value) for value in (None, 0.0, -0.974, math.nan)] == [MISSING, "0.00", f"{MINUS}0.97", "NaN"]
    assert fixed(0.97, 3) == "0.970"
    assert fixed(-0.001) == "0.00"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, MISSING), (math.nan, MISSING), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.95, "10 s"), (59.4, "59 s"),
        (59.6, "1 m 00 s"), (80, "1 m 20 s"), (3599.6, "1 h 00 m"), (7500, "2 h 05 m"), (360000, "100 h 00 m"),
    ],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_counts_and_shares() -> None:
    assert (count(None), count(12345)) == (MISSING, "12,345")
    assert (percent(0.0994), percent(0.0996), percent(0.35)) == ("9.9 %", "10 %", "35 %")


def test_command_breaks_between_options_and_pastes_as_one() -> None:
    words = [
        "python",
        "-m",
        "tuner",
        "search",
        "my data",
        *[word for name in "abcdef" for word in ("--fix", f"{name * 9}=it's {name}")],
    ]
    text = command(words, width=60)
    lines = text.split("\n")
    assert len(lines) > 1
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert not any(line.removesuffix(" \\").endswith("--fix") for line in lines)
    assert shlex.split(text.replace("\\\n", " ")) == words


def test_command_keeps_negative_values_and_hostile_names() -> None:
    words = ["python", "-m", "tuner", "search", "$(rm -rf ~); '<b>'", "--fix", "bias=-1"]
    assert shlex.split(command(words)) == words
