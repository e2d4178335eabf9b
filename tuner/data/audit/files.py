"""Checks of the files that samples come from: what could not be read, and what is odd about those that could."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tuner.data.audit.sample import MAX_EXAMPLES, Array, Sample, faulty, graded
from tuner.grammar import counted, verb
from tuner.records import Finding, Remedy

__all__ = ["format_tells_label", "odd_aspect", "odd_size", "unreadable_files"]

# Side of an image (root of its area) over the median one, and width over height over the median of that, from which
# on it is odd; and how many interquartile ranges outside the quartiles it must lie (of their logarithms), so that
# pictures of all sizes are no fault. Source: convention; a portrait of 3:4 among landscapes of 4:3 is 1.8 apart, and
# Tukey's "far out" is 3 ranges.
ODD_SIZE_RATIO = 3.0
ODD_ASPECT_RATIO = 2.0
FAR_OUT_IQR = 3.0

# Share of the errors of the best constant guess that guessing the class by a property of the files avoids. Source:
# convention; half of one of two equal classes in a format of its own gives 0.5.
TELLING_FRAC = 0.2

# Files that a value of a property must have to count as more than chance. Source: convention.
MIN_WITH_VALUE = 10

# What is known of files, in words.
_PROPERTIES = {
    "format": "format",
    "mode": "colour mode",
    "orientation": "EXIF orientation",
    "width_px": "width",
    "height_px": "height",
    "rate_hz": "sample rate",
    "num_channels": "number of channels",
    "encoding": "encoding",
}

Numbers = npt.NDArray[np.float64]


def unreadable_files(sample: Sample) -> Finding | None:
    """Files that were left out because they cannot be read."""
    unreadable = sample.dataset.unreadable
    if not unreadable:
        return None
    count, total = len(unreadable), len(unreadable) + len(sample.dataset.x)
    return Finding(
        code="unreadable_files",
        where=next(iter(unreadable)),
        severity=graded(10 * count / total, low=0.3, high=0.6),
        confidence=1.0,
        evidence={"num_files": float(count), "files_frac": count / total},
        cause=f"{counted(count, 'files', of=total)} cannot be read and {verb(count, 'are')} missing from the data.",
        examples=tuple(f"{name}: {reason}" for name, reason in list(unreadable.items())[:MAX_EXAMPLES]),
        remedies=(Remedy("data", "copy these files again, or remove them", "The search goes on without them."),),
    )


def odd_size(sample: Sample) -> Finding | None:
    """Images far larger or smaller than the others: the same thing is seen at another scale, or another thing."""
    facts = sample.dataset.facts
    if "width_px" not in facts:
        return None
    sides = np.sqrt(facts["width_px"] * facts["height_px"])
    factor = _factors(sides)
    is_odd = _is_odd(factor, ODD_SIZE_RATIO)
    if not is_odd.any():
        return None
    farthest = _farthest(factor, is_odd)
    width, height = (int(facts[name][farthest]) for name in ("width_px", "height_px"))
    usual = float(np.nanmedian(sides))
    return _odd(
        sample,
        "odd_size",
        is_odd,
        factor=factor,
        most_severe=0.5,
        cause=f"are far from the usual size (side {usual:,.0f} px), the farthest {width:,} x {height:,}; all were "
        "resized",
        remedy=Remedy(
            "data", "look whether they show the same section", "After resizing, things in them differ in size."
        ),
        more={"median_side_px": usual},
    )


def odd_aspect(sample: Sample) -> Finding | None:
    """Images of another shape than the others: they are distorted when all get one size."""
    facts = sample.dataset.facts
    if "width_px" not in facts:
        return None
    factor = _factors(facts["width_px"] / facts["height_px"])
    is_odd = _is_odd(factor, ODD_ASPECT_RATIO)
    if not is_odd.any():
        return None
    ratio = _ratio(factor, is_odd)
    return _odd(
        sample,
        "odd_aspect",
        is_odd,
        factor=factor,
        most_severe=0.6,
        cause=f"are of another shape than the others, the farthest {ratio:.1f} times as wide or as high; resizing "
        "distorted them",
        remedy=Remedy("data", "crop them to the usual shape", "Then all things keep their proportions."),
    )


def _odd(
    sample: Sample,
    code: str,
    is_odd: npt.NDArray[np.bool_],
    *,
    factor: Numbers,
    most_severe: float,
    cause: str,
    remedy: Remedy,
    more: Mapping[str, float] | None = None,
) -> Finding:
    """A finding of images that are far from the others by a factor (its logarithm)."""
    return faulty(
        sample,
        code,
        is_odd,
        noun="images",
        rows=np.arange(len(is_odd)),
        badness=np.nan_to_num(np.abs(factor)),
        severity=graded(float(is_odd.mean()), low=0.25, high=most_severe),
        confidence=0.8,
        cause=cause,
        remedies=(remedy,),
        where=sample.dataset.row_names[_farthest(factor, is_odd)],
        more={"largest_ratio": _ratio(factor, is_odd), **(more or {})},
    )


def _factors(values: Numbers) -> Numbers:
    """Logarithm of each value over the median; NaN where it is not known."""
    return np.asarray(np.log(values / np.nanmedian(values)))


def _is_odd(factor: Numbers, least_ratio: float) -> npt.NDArray[np.bool_]:
    """Whether a factor is beyond a ratio, and far outside the quartiles of all."""
    low, high = np.nanquantile(factor, [0.25, 0.75])
    distance = np.maximum(low - factor, factor - high)
    is_far = np.nan_to_num(distance) > FAR_OUT_IQR * (high - low)
    return np.asarray(is_far & (np.nan_to_num(np.abs(factor)) > np.log(least_ratio)))


def _farthest(factor: Numbers, is_odd: npt.NDArray[np.bool_]) -> int:
    return int(np.where(is_odd, np.nan_to_num(np.abs(factor)), -1.0).argmax())


def _ratio(factor: Numbers, is_odd: npt.NDArray[np.bool_]) -> float:
    """Of the farthest to the median, or the other way round."""
    return float(np.exp(np.abs(factor[_farthest(factor, is_odd)])))


def format_tells_label(sample: Sample) -> Finding | None:
    """A property of the files by which classes can be told: a network may learn that instead of the content."""
    found = {name: _telling(sample, values) for name, values in sample.dataset.facts.items() if name in _PROPERTIES}
    if not found:
        return None
    worst = max(found, key=lambda name: found[name][0])
    telling, rows, value, label = found[worst]
    if telling < TELLING_FRAC:
        return None
    return Finding(
        code="format_tells_label",
        where=worst,
        severity=graded(telling, low=0.5, high=0.89),
        confidence=0.8,
        evidence={"telling_frac": telling},
        cause=f"The {_PROPERTIES[worst]} of the files tells classes apart ({telling:.0%} of the errors of a constant "
        f"guess fall away): files with {value} are mostly {label!r}.",
        examples=sample.examples(rows),
        remedies=(
            Remedy("data", "store all files alike", "Traces of how files were made are no property of what they show."),
        ),
    )


def _telling(sample: Sample, values: Array) -> tuple[float, npt.NDArray[np.int64], str, str]:
    """Share of errors avoided; rows, value and class of the value that is telling most.

    What each value means is learned on the training part and judged on the others: with many values, chance would do.
    """
    y, names = sample.dataset.y, sample.dataset.spec.class_names
    different, codes = np.unique(values, return_inverse=True)
    table = np.zeros((len(different), len(names)), np.int64)
    np.add.at(table, (codes[sample.split.train], y[sample.split.train]), 1)
    constant = int(table.sum(axis=0).argmax())
    is_frequent = table.sum(axis=1) >= MIN_WITH_VALUE
    guess = np.where(is_frequent, table.argmax(axis=1), constant)
    held_out = np.concatenate([sample.split.validation, sample.split.test])
    is_right, is_constant = guess[codes[held_out]] == y[held_out], y[held_out] == constant
    telling = float((is_right.sum() - is_constant.sum()) / max(1, len(held_out) - is_constant.sum()))
    gain = np.where(is_frequent, table.max(axis=1) - table[:, constant], -1)
    most = int(gain.argmax())
    rows = np.flatnonzero((codes == most) & (y == guess[most]))
    value = different[most]
    return telling, rows, f"{value:g}" if isinstance(value, float) else str(value), names[int(guess[most])]
