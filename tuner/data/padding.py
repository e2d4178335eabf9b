"""One length for samples of different lengths: shorter ones end in NaN, a few that are far longer are cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tuner.errors import first_of
from tuner.grammar import counted, verb

__all__ = ["LENGTH_QUANTILE", "MAX_LENGTH_RATIO", "common_length", "cut_note", "note", "padded"]

# The common length is that of this share of the samples ...
LENGTH_QUANTILE = 0.99

# ... if the longest one is longer by more than this factor. Source: convention; it bounds the padding.
MAX_LENGTH_RATIO = 1.5

# At most this many samples are named in a note.
MAX_NAMED = 20

Array = npt.NDArray[np.float64]


def common_length(lengths: Array) -> float:
    """The length that all samples get, in the unit of the lengths."""
    longest, usual = float(lengths.max()), float(np.quantile(lengths, LENGTH_QUANTILE, method="higher"))
    return usual if longest > MAX_LENGTH_RATIO * usual else longest


def padded(sequences: Sequence[Array], length: int) -> Array:
    """Sequences of shape (steps, channels) as one array (n, length, channels), cut or NaN at the end."""
    x = np.full((len(sequences), length, sequences[0].shape[1]), np.nan)
    for row, sequence in enumerate(sequences):
        x[row, : len(sequence)] = sequence[:length]
    return x


def note(lengths: dict[str, float], length: float, *, noun: str, unit: str) -> str:
    """What was done to which samples; empty if all have the same length.

    Args:
        lengths: Of each sample, by its name.
        length: The common one.
        noun: What the samples are, in the plural.
        unit: Of the lengths, such as `steps` or `s`.
    """
    values = np.array(list(lengths.values()))
    if values.min() == values.max() <= length:
        return ""
    text = (
        f"Length {_shown(values.min())} to {_shown(values.max())} {unit} (median {_shown(np.median(values))}); shorter "
        f"{noun} are padded"
    )
    cut = sorted((name for name in lengths if lengths[name] > length), key=lambda name: -lengths[name])
    if not cut:
        return f"{text}."
    named = first_of((f"{name} ({_shown(lengths[name])})" for name in cut), most=MAX_NAMED)
    return f"{text}, {len(cut):,} {verb(len(cut), 'were')} cut at the end to {_shown(length)} {unit}: {named}."


def cut_note(lengths: dict[str, float], length: float, *, noun: str, unit: str) -> list[str]:
    """What was cut of samples to predict; none if all have the length of the training data or less.

    Args:
        lengths: Of each sample, by its name.
        length: That of the training data.
        noun: What the samples are, in the plural.
        unit: Of the lengths, such as `steps` or `s`.
    """
    cut = [f"{name} ({_shown(found)})" for name, found in lengths.items() if found > length]
    if not cut:
        return []
    return [
        f"{counted(len(cut), noun, 'are', of=len(lengths))} longer than those of the training data, and "
        f"{verb(len(cut), 'were')} cut at the end to {_shown(length)} {unit}: {first_of(cut, most=MAX_NAMED)}."
    ]


def _shown(length: float) -> str:
    return f"{length:,.0f}" if length == round(length) else f"{length:,.2f}"
