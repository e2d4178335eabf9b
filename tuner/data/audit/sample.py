"""What the checks look at: data, split, and a sample of rows and values that keeps every check to seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tuner.data.audit.vectors import vectors
from tuner.data.dataset import Dataset
from tuner.data.duplicates import digests
from tuner.data.split import Rows, Split
from tuner.data.transformers import LARGEST_INPUT
from tuner.data.transformers.channels import is_value
from tuner.grammar import counted, verb
from tuner.records import Finding, Remedy

__all__ = ["MAX_EXAMPLES", "SEVERE", "Array", "Columns", "Sample", "draw", "faulty", "graded", "share_text"]

# From this severity on a search refuses to start.
SEVERE = 0.9

# Rows (or values of a channel) that the statistics look at; more are drawn with a fixed seed. Source: convention; a
# share of 0.1 % is still seen in 20 of them.
MAX_ROWS = 20_000

# Values that a check may copy at a time, in rows of large images or wide tables. Source: convention; 80 MB in float64.
MAX_VALUES = 10_000_000

# Rows that cheap models are fitted on. Source: measured; label errors of 5,000 images take 2 s on one core.
MODEL_ROWS = 5_000

# Forms of data whose rows may follow each other in time; files of a folder, and what comes in fixed parts, do not.
_IN_ORDER = ("table", "text_table", "npz")

# At most this many examples with a finding.
MAX_EXAMPLES = 5

# Kinds whose single values say nothing: no statistics of columns are made of them.
_WITHOUT_COLUMNS = ("text", "audio")

Array = npt.NDArray[Any]
Columns = npt.NDArray[np.float64]
Measured = TypeVar("Measured")


@dataclass(frozen=True, eq=False)
class Sample:
    """What the checks look at.

    Attributes:
        dataset: All of it.
        split: Its parts.
        rows: The rows that the statistics were restricted to, in order.
        columns: Values by feature, NaN for missing or infinite; (rows, features). For images, and series of several
            channels, a feature is a channel.
        names: Of the features.
        digests: A digest of every sample, for finding copies.
    """

    dataset: Dataset
    split: Split
    rows: npt.NDArray[np.int64]
    columns: Columns
    names: tuple[str, ...]
    digests: npt.NDArray[np.bytes_]
    _measured: dict[Callable[[Sample], Any], Any] = field(default_factory=dict, repr=False)

    def once(self, measure: Callable[[Sample], Measured]) -> Measured:
        """What a function finds in this sample; it is called for the first of the checks that need it."""
        if measure not in self._measured:
            self._measured[measure] = measure(self)
        found: Measured = self._measured[measure]
        return found

    @cached_property
    def own_rows(self) -> Rows:
        """Rows of the file itself, in its order, without those of validation and test parts that were given."""
        given = [rows for rows in (self.dataset.test_rows, self.dataset.validation_rows) if rows is not None]
        return (
            np.setdiff1d(np.arange(len(self.dataset.x)), np.concatenate(given))
            if given
            else np.arange(len(self.dataset.x))
        )

    @cached_property
    def model_rows(self) -> Rows:
        """Rows for cheap models, drawn from all, in order."""
        rows = np.arange(len(self.dataset.x))
        if len(rows) <= MODEL_ROWS:
            return rows
        return np.sort(np.random.default_rng(0).choice(rows, MODEL_ROWS, replace=False))

    @cached_property
    def vectors(self) -> Columns:
        """Each of `model_rows` as a short vector."""
        return vectors(self.dataset, self.model_rows)

    @property
    def is_in_order(self) -> bool:
        """Whether the order of the rows may mean something that the split does not know of."""
        return self.dataset.spec.form in _IN_ORDER and self.dataset.order is None and self.split.is_drawn

    @property
    def has_row_values(self) -> bool:
        """Whether each row of `columns` is a sample."""
        return self.dataset.x.ndim == 2 and self.columns.shape[1] > 0

    def examples(self, rows: Array) -> tuple[str, ...]:
        """Names of the first of these rows."""
        return tuple(self.dataset.row_names[row] for row in rows[:MAX_EXAMPLES].tolist())

    def worst(self, badness: Array, is_bad: Array) -> tuple[str, ...]:
        """Names of the worst features, worst first."""
        order = [int(column) for column in np.argsort(-badness, kind="stable") if is_bad[column]]
        return tuple(self.names[column] for column in order[:MAX_EXAMPLES])


def draw(dataset: Dataset, split: Split, *, among: Rows | None = None) -> Sample:
    """Take the sample that the checks of a data set share; the same for the same data.

    Args:
        dataset: All of it.
        split: Its parts.
        among: Rows that statistics are restricted to; None for all.
    """
    x = dataset.x
    rows = np.arange(len(x)) if among is None else np.sort(among)
    if dataset.spec.kind in _WITHOUT_COLUMNS:
        return Sample(dataset, split, rows, np.empty((len(x), 0)), (), digests(x))
    generator = np.random.default_rng(0)
    num_rows = min(len(rows), MAX_ROWS, max(1, MAX_VALUES * len(x) // max(1, x.size)))
    if num_rows < len(rows):
        rows = np.sort(generator.choice(rows, num_rows, replace=False))
    values = x[rows] if len(rows) < len(x) else x
    if x.ndim > 2:
        # The padding behind the end of a series is not missing.
        values = values[is_value(values)] if dataset.spec.is_padded else values
        values = values.reshape(-1, x.shape[-1])
        if len(values) > MAX_ROWS:
            values = values[np.sort(generator.choice(len(values), MAX_ROWS, replace=False, shuffle=False))]
    columns = values.astype(np.float64)
    columns[np.abs(columns) > LARGEST_INPUT] = np.nan
    noun = "channel" if x.ndim > 2 else "step"
    names = dataset.spec.feature_names or tuple(f"{noun} {number}" for number in range(columns.shape[1]))
    return Sample(dataset, split, rows, columns, names, digests(x))


def faulty(
    sample: Sample,
    code: str,
    is_faulty: npt.NDArray[np.bool_],
    *,
    noun: str,
    rows: npt.NDArray[np.int64],
    badness: Array | None = None,
    severity: float,
    confidence: float = 0.9,
    cause: str,
    remedies: tuple[Remedy, ...],
    where: str = "",
    more: Mapping[str, float] | None = None,
) -> Finding:
    """A finding of samples that have a fault: their share and number, and the worst as examples.

    Args:
        sample: Of the audit.
        code, severity, confidence, remedies, where: Of the finding.
        is_faulty: Whether each of `rows` has the fault.
        noun: What they are, in the plural.
        rows: Those that were looked at.
        badness: How bad each of them is; None: as they stand.
        cause: The rest of the sentence that begins with their number; its verb, the first word, as behind many.
        more: Evidence beside that.
    """
    does, _, rest = cause.partition(" ")
    order = np.arange(len(rows)) if badness is None else np.argsort(-badness, kind="stable")
    return Finding(
        code=code,
        where=where,
        severity=severity,
        confidence=confidence,
        evidence={
            f"{noun}_frac": float(is_faulty.mean()),
            f"num_{noun}": float(np.count_nonzero(is_faulty)),
            **(more or {}),
            "num_rows_examined": float(len(rows)),
        },
        cause=f"{share_text(is_faulty, noun)} {verb(int(np.count_nonzero(is_faulty)), does)} {rest}.",
        examples=sample.examples(rows[order[is_faulty[order]]]),
        remedies=remedies,
    )


def graded(share: float, *, low: float, high: float) -> float:
    """Severity between `low` (share 0) and `high` (share 1)."""
    return float(low + (high - low) * min(1.0, max(0.0, share)))


def share_text(is_bad: npt.NDArray[np.bool_], noun: str) -> str:
    """Such as `3 of 1,000 images (0.3%)`, for the beginning of a sentence.

    Args:
        is_bad: Of each sample.
        noun: What they are, in the plural.
    """
    return f"{counted(int(np.count_nonzero(is_bad)), noun, of=len(is_bad))} ({is_bad.mean():.1%})"
