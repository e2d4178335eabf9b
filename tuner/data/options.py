"""How the user wants data to be read; what is not given is found by looking, and said."""

from __future__ import annotations

import dataclasses
from typing import Any

from tuner.config import SearchConfig

__all__ = ["READ_KEYS", "ReadOptions"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """The options of a search that decide how its data is read, under their names and with their defaults there.

    A new one is a field here and in `SearchConfig`; `sources` says which forms of data it means something for.
    """

    kind: str = "auto"
    target: str | None = None
    task: str = "auto"
    image_size: int | None = None

    @classmethod
    def of(cls, config: SearchConfig) -> ReadOptions:
        """Those of a configuration."""
        return cls(**{name: getattr(config, name) for name in READ_KEYS})

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


READ_KEYS = tuple(field.name for field in dataclasses.fields(ReadOptions))
