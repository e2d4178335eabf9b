from __future__ import annotations

import pytest

from tuner.errors import EnvironmentFault, first_of, require_backend


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2, and 1 more"), (2003, "0, 1, 2, and 2,000 more")],
)
def test_of_many_items_the_first_are_named_and_the_rest_counted(count: int, shown: str) -> None:
    assert first_of(map(str, range(count)), most=3) == shown


def test_a_list_of_lines() -> None:
    assert first_of("abc", most=2, separator="\n  ") == "a\n  b\n  and 1 more"


@pytest.mark.parametrize("name", ["", "tensorflow", "jax"])
def test_a_backend_that_is_there_is_none_to_speak_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", name)
    require_backend()


def test_a_backend_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    with pytest.raises(EnvironmentFault, match=r"no backend 'nonsense'\. Set KERAS_BACKEND .* to tensorflow, jax or"):
        require_backend()
