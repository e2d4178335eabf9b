"""How the user wants data to be read; what is not given is found by looking, and said."""

from __future__ import annotations

import dataclasses
from typing import Any

from tuner.config import SearchConfig
from tuner.records import DataSpec

__all__ = ["READ_KEYS", "ReadOptions"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """The options of a search that decide how its data is read, under their names and with their defaults there.

    A new one is a field here and in `SearchConfig`; `sources` says which forms of data it means something for.
    """

    kind: str = "auto"
    target: str | None = None
    task: str = "auto"
    label_sep: str | None = None
    labels: str | None = None
    image_size: int | None = None
    sample_rate: int | None = None
    series_id: str | None = None
    time: str | None = None
    window: int | None = None
    stride: int | None = None
    group: str | None = None
    split: str = "auto"
    text: str | None = None
    drop: str | None = None
    sep: str | None = None
    decimal: str = "auto"
    na: str | None = None
    encoding: str | None = None
    validation: str | None = None
    test: str | None = None

    @classmethod
    def of(cls, config: SearchConfig) -> ReadOptions:
        """Those of a configuration."""
        return cls(**{name: getattr(config, name) for name in READ_KEYS})

    @classmethod
    def repeating(cls, spec: DataSpec) -> ReadOptions:
        """Those that read other data in the way that `spec` describes."""
        known = {name: value for name, value in spec.reading.items() if name in READ_KEYS}
        described = {"kind": spec.kind, "task": spec.task, "target": spec.target, "sample_rate": spec.sample_rate_hz}
        if spec.form == "image_folder":
            described["image_size"] = max(spec.input_shape[:2])
        return cls.of(SearchConfig.model_validate(described | known))

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


READ_KEYS = tuple(field.name for field in dataclasses.fields(ReadOptions))
