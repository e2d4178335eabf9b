"""Search spaces: Keras Tuner `HyperModel`s that build plain Keras models.

They import keras and keras_tuner only, so this folder can be copied into a project of your own.
Importing this package, and listing the names in `SPACES`, imports neither.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["SPACES"]


class _LazySpaces(Mapping[str, type[Any]]):
    """Name to class; the module of a class (and with it Keras) is imported when the class is asked for."""

    def __init__(self, places: Mapping[str, tuple[str, str]]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> type[Any]:
        module, attribute = self._places[name]
        space: type[Any] = getattr(importlib.import_module(module), attribute)
        return space

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


SPACES: Mapping[str, type[Any]] = _LazySpaces(
    {
        "audio": ("search_spaces.audio", "AudioSpace"),
        "image": ("search_spaces.image", "ImageSpace"),
        "series": ("search_spaces.series", "SeriesSpace"),
        "text": ("search_spaces.text", "TextSpace"),
    }
)
