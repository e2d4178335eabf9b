"""Numeric series of several channels, from whatever tables they come: their channels, and one array of all of them.

Samples have the shape (n, steps, channels); what is shorter than the longest ends in NaN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuner.data import columns, labels, padding
from tuner.data.dataset import Dataset
from tuner.data.frames import listed
from tuner.data.options import ReadOptions
from tuner.errors import DataError, first_of
from tuner.grammar import counted
from tuner.records import DataSpec, Form

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["assembled", "channels_of", "description", "fitted", "names_of"]

# Options that must be known to read other files the same way.
_REPEATED = ("series_id", "time", "window", "stride", "group", "split", "sep", "decimal", "na", "encoding", "drop")

Array = npt.NDArray[Any]


def channels_of(
    frame: pd.DataFrame, path: Path, *, only: Sequence[str] = ()
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """The columns, or only some, as float64 (rows, channels), and their names."""
    missing = [name for name in only if name not in frame.columns]
    if missing:
        raise DataError(
            f"{path.name!r} has no column {listed(missing)}, which the model was trained on. Its columns: "
            f"{listed(list(map(str, frame.columns)))}. Name the columns as in training."
        )
    features = frame[list(only)] if only else frame
    problems = [
        f"column {name!r} holds {str(features[name].dropna().iloc[0])!r}"
        for name in map(str, features.columns)
        if columns.has_text(features[name])
    ]
    if problems:
        raise DataError(
            f"{path.name!r} has columns that are no numbers: {first_of(problems, separator='; ')}. Leave them out "
            "with --drop, or say what they are with --time, --series-id, --group or --target."
        )
    if not features.shape[1]:
        raise DataError(f"{path.name!r} has no column left to learn from. Give it columns of numbers.")
    return features.to_numpy(dtype=np.float64, na_value=np.nan), list(map(str, features.columns))


def names_of(like: DataSpec | None) -> tuple[str, ...]:
    """The channels of other data, which must be there; none for whatever there is."""
    return like.feature_names if like else ()


def description(
    form: Form, channels: Sequence[str], target: str | None, options: ReadOptions, *, reading: Mapping[str, str]
) -> DataSpec:
    """A description without what follows from the samples: task, classes, shape."""
    asked = {name: str(value) for name, value in options.given.items() if name in _REPEATED}
    return DataSpec(
        form, "series", "classification", (), target=target, feature_names=tuple(channels), reading={**reading, **asked}
    )


def assembled(
    sequences: Mapping[str, Array],
    *,
    encoded: labels.Labels,
    spec: DataSpec,
    name: str,
    notes: Sequence[str],
    groups: npt.NDArray[np.int64] | None,
    order: npt.NDArray[np.float64] | None = None,
    like: DataSpec | None = None,
) -> Dataset:
    """A data set of series of different lengths, by name."""
    lengths = {name: float(len(sequence)) for name, sequence in sequences.items()}
    if like is not None:
        _refuse_lengths(sequences, like, name)
    length = like.input_shape[0] if like else int(padding.common_length(np.array(list(lengths.values()))))
    length_note = padding.note(lengths, length, noun="series", unit="steps")
    return Dataset(
        name=name,
        spec=dataclasses.replace(
            spec,
            input_shape=(length, len(spec.feature_names)),
            task=encoded.task,
            class_names=encoded.class_names,
            is_padded=min(lengths.values()) < length,
        ),
        x=padding.padded(list(sequences.values()), length),
        y=encoded.y,
        row_names=tuple(sequences),
        groups=groups,
        order=order,
        notes=(*notes, *filter(None, [length_note]), *encoded.notes),
    )


def fitted(
    sequences: Mapping[str, Array], spec: DataSpec, path: Path, notes: list[str]
) -> tuple[Array, tuple[str, ...]]:
    """Series to predict, at the length of the training data; other lengths only where that had different ones, too."""
    _refuse_lengths(sequences, spec, path.name)
    lengths = {name: float(len(sequence)) for name, sequence in sequences.items()}
    notes += padding.cut_note(lengths, spec.input_shape[0], noun="series", unit="steps")
    return padding.padded(list(sequences.values()), spec.input_shape[0]), tuple(sequences)


def _refuse_lengths(sequences: Mapping[str, Array], spec: DataSpec, source: str) -> None:
    length = spec.input_shape[0]
    wrong = {name: len(sequence) for name, sequence in sequences.items() if len(sequence) != length}
    if wrong and not spec.is_padded:
        name, found = next(iter(wrong.items()))
        raise DataError(
            f"{source!r}: {counted(len(wrong), 'series', 'have')} another length than the {length} steps of the "
            f"training data, such as {name!r} with {found}. Cut or resample them to {length} steps."
        )
