from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from tuner.data import watching
from tuner.data.sources import load


@pytest.fixture
def told():
    """What is told, in order."""
    found = []
    with watching.watched(lambda doing, done, total, unit="": found.append((doing, done, total, unit))):
        yield found


def frame(num_rows):
    values = np.random.default_rng(0).normal(size=(num_rows, 4)).round(5)
    return pd.DataFrame(values, columns=list("abcd")).assign(label=["x", "y"] * (num_rows // 2))


def of(told, doing):
    return [done for found, done, total, unit in told if found == doing and (total, unit) == (100, " %")]


@pytest.mark.parametrize(
    ("suffix", "num_rows", "doings"), [("csv", 40_000, ["checking", "reading"]), ("xlsx", 4000, ["reading"])]
)
def test_how_far_a_large_table_is_read_is_told(told, tmp_path, monkeypatch, suffix, num_rows, doings):
    monkeypatch.setattr(watching, "MIN_TOLD_BYTES", 10_000)
    monkeypatch.setattr(watching, "MIN_TOLD_WORKBOOK_BYTES", 10_000)
    monkeypatch.setattr(watching, "BUFFER_BYTES", 20_000)
    file = tmp_path / f"t.{suffix}"
    table = frame(num_rows)
    table.to_csv(file, index=False) if suffix == "csv" else table.to_excel(file, index=False)
    assert len(load(str(file)).x) == num_rows
    assert {doing for doing, *_ in told} == {f"{doing} t.{suffix}" for doing in doings}
    for doing in doings:
        percents = of(told, f"{doing} t.{suffix}")
        assert percents[-1] == 100
        assert len(percents) > 3
        assert all(before < after for before, after in pairwise(percents))


def test_nothing_is_told_of_a_small_table(told, tmp_path):
    frame(40).to_csv(tmp_path / "t.csv", index=False)
    load(str(tmp_path / "t.csv"))
    assert told == []


def test_nobody_need_listen(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"x" * 1000)
    with watching.opened(tmp_path / "t.csv", "reading", least_bytes=1) as file:
        assert len(file.read()) == 1000
