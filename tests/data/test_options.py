from __future__ import annotations

from tuner.config import SearchConfig, resolve
from tuner.data.options import READ_KEYS, ReadOptions


def test_names_and_defaults_are_those_of_the_search():
    assert set(READ_KEYS) <= set(SearchConfig.model_fields)
    assert ReadOptions.of(SearchConfig()) == ReadOptions()
    assert ReadOptions().given == {}


def test_given_are_those_that_differ():
    assert ReadOptions.of(resolve({"image_size": 32, "trials": 2}, None)).given == {"image_size": 32}
