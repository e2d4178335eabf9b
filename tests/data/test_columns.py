from __future__ import annotations

import pandas as pd
import pytest

from tuner.data.columns import DATE_FRAC, is_date, is_free_text, text_rows

DATES = [
    "2015-02-04 17:51:00",
    "2015-02-04",
    "2015-02-04T17:51:00.123Z",
    "2015-02-04 17:51:00+01:00",
    "10/03/2004",
    "3/10/04",
    "10.03.2004 18:00",
    "18.00.00",
    "18:30",
    "6:30 PM",
    "10-Mar-2004",
    "Mar 10, 2004",
]
NO_DATES = ["12.5", "2004", "may", "192.168.1.1", "a 10/03/2004", "1.2.3.4", "555-1234", "10:1"]


@pytest.mark.parametrize("cell", DATES)
def test_dates_and_times_are_known(cell):
    assert is_date(pd.Series([cell, None, cell]))


@pytest.mark.parametrize("cell", NO_DATES)
def test_other_cells_are_no_dates(cell):
    assert not is_date(pd.Series([cell, cell]))


def test_a_few_dates_may_be_damaged():
    assert DATE_FRAC == 0.95
    assert is_date(pd.Series(["2015-02-04"] * 19 + ["?"]))
    assert not is_date(pd.Series(["2015-02-04"] * 18 + ["?"] * 1))


def test_types_tell_dates_from_numbers():
    assert is_date(pd.Series(pd.date_range("2026-01-01", periods=3)))
    assert is_date(pd.Series(pd.to_timedelta([1, 2], unit="s")))
    assert not is_date(pd.Series([20260101, 20260102]))
    assert not is_date(pd.Series([None, None], dtype=object))


def test_text_is_what_is_no_number():
    assert text_rows(pd.Series(["1", "x", None, "inf", "1e3", "y"])).tolist() == [1, 5]
    assert not len(text_rows(pd.Series([1.0, None])))


def test_free_text_is_neither_few_words_nor_dates():
    assert not is_free_text(pd.Series([f"w{row % 20}" for row in range(50)]))
    assert is_free_text(pd.Series([f"w{row % 21}" for row in range(50)]))
    assert not is_free_text(pd.Series(pd.date_range("2026-01-01", periods=50).astype(str)))
