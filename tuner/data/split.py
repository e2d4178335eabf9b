"""Training, validation and test rows: seeded, stratified, and without leaks.

What is known of the samples decides, in this order: parts that the user gave, time, groups and copies, classes. Where
neither time nor groups nor copies are known, the split is two plain calls of scikit-learn; where samples have several
labels each, of `stratification`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import duplicates
from tuner.data.dataset import Dataset
from tuner.data.stratification import draw_in_proportion
from tuner.errors import DataError, first_of
from tuner.grammar import counted, verb

__all__ = [
    "TEST_FRAC",
    "VALIDATION_FRAC",
    "Rows",
    "Split",
    "check_sizes",
    "fingerprint",
    "make_split",
    "min_class_size",
    "redraw",
    "split_dataset",
]

# Share of all rows for the test part; validation gets as many. Source: convention.
TEST_FRAC = 0.15

# Share for validation of what an existing test part leaves. Source: convention.
VALIDATION_FRAC = 0.15

# Fewest rows that a regression can be split into three parts with. Source: convention (7 + 1 + 2).
MIN_REGRESSION_ROWS = 10

# Groups are drawn like single rows if a part has room for at least this many of the largest one; else whole groups
# are chosen so that the parts come near to their sizes. Source: convention.
FEW_IN_PART = 3

_CHUNK_BYTES = 64 * 2**20

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of the three parts; none is in two, and those in none are named in the notes.

    Attributes:
        train: What pipelines and networks are fitted on.
        validation: What the search judges by.
        test: What only the export touches, once.
        notes: What was done beside two random draws.
        together: A code for each row of the data; rows of one code stay on one side. None: each row goes by itself.
        is_drawn: Whether training and validation part were drawn at random, so that they can be drawn anew.
    """

    train: Rows
    validation: Rows
    test: Rows
    notes: tuple[str, ...] = ()
    together: Rows | None = None
    is_drawn: bool = True


def split_dataset(dataset: Dataset, *, seed: int) -> Split:
    """Split a data set by what is known of it.

    Parts that it has stay as they are. Samples with a place in time are split in time, others at random, the groups
    that they belong to and copies of each other kept on one side.

    Args:
        dataset: As `sources.load` gave it.
        seed: Decides who goes where.

    Raises:
        DataError: There are too few rows or groups for that, or a part would lack classes.
    """
    spec = dataset.spec
    names = spec.class_names
    given = {"test_rows": dataset.test_rows, "validation_rows": dataset.validation_rows}
    if dataset.order is not None:
        parts = _in_time(dataset, **given)
    else:
        same = duplicates.copies(dataset)
        groups = _groups(dataset, same)
        parts = make_split(dataset.y, task=spec.task, seed=seed, groups=groups, **given)
        parts = dataclasses.replace(parts, together=groups)
        if dataset.groups is not None:
            parts = dataclasses.replace(parts, notes=(_group_note(dataset.groups, parts),))
        if same is not None:
            parts = _without_copies(parts, same, names=dataset.row_names)
    notes = _check_classes(dataset.y, parts, names) if names else ()
    is_drawn = dataset.order is None and dataset.validation_rows is None
    return dataclasses.replace(parts, notes=(*parts.notes, *notes), is_drawn=is_drawn)


def redraw(parts: Split, y: npt.NDArray[Any], *, task: str, names: Sequence[str], seed: int) -> Split:
    """Draw training and validation part anew from the rows of both; the test part stays as it is.

    Args:
        parts: What is there.
        y: Class codes, or values, of all rows.
        task: As for `make_split`.
        names: Of the classes.
        seed: Decides who goes where.

    Raises:
        DataError: They were not drawn at random, or a part would lack classes.
    """
    if not parts.is_drawn:
        raise DataError(
            "The training and validation part cannot be drawn anew: they are split in time, or the validation part was "
            "given. Confirm without --fresh-split."
        )
    rows = np.sort(np.concatenate([parts.train, parts.validation]))
    train, validation = _Drawer(y, task, seed, parts.together).draw(rows, len(parts.validation))
    drawn = dataclasses.replace(parts, train=np.asarray(train), validation=np.asarray(validation), notes=())
    if names:
        _check_classes(y, drawn, names)
    return drawn


def make_split(
    y: npt.NDArray[Any],
    *,
    task: str,
    seed: int,
    test_rows: Rows | None = None,
    validation_rows: Rows | None = None,
    groups: Rows | None = None,
) -> Split:
    """Split at random 70/15/15, or, where a test part exists already, the rest 85/15.

    Without groups these are plain calls of scikit-learn's `train_test_split`, which anyone can repeat:

        rest, test = train_test_split(rows, test_size=0.15, random_state=seed, stratify=y)
        train, validation = train_test_split(rest, test_size=len(test), random_state=seed, stratify=y[rest])

    With a test part of its own, only the second, with `test_size=0.15`; for regression, without `stratify`. Of several
    labels, each is split in proportion (see `stratification.draw_in_proportion`), and parts may be a few rows larger
    or smaller.

    Args:
        y: Class codes, or values; shape (rows,). Or 0 and 1 of several labels; (rows, labels).
        task: `classification` splits every class in proportion, `multilabel` every label.
        seed: Decides who goes where.
        test_rows: Rows of an existing test part, kept as they are.
        validation_rows: The same for validation.
        groups: A code for each row; rows of one code stay together.

    Raises:
        DataError: There are too few rows or groups for that.
    """
    taken = _joined(test_rows, validation_rows)
    check_sizes(y, task=task, test_rows=taken)
    rest = np.arange(len(y)) if taken is None else np.delete(np.arange(len(y)), taken)
    drawer = _Drawer(y, task, seed, groups)
    if test_rows is None:
        rest, test_rows = drawer.draw(rest, TEST_FRAC)
        validation_size: float | int = len(test_rows)
    else:
        validation_size = VALIDATION_FRAC
    if validation_rows is None:
        rest, validation_rows = drawer.draw(rest, validation_size)
    return _split(rest, validation_rows, test_rows)


def _split(train: Rows, validation: Rows, test: Rows, *notes: str) -> Split:
    train, validation, test = (np.asarray(part, np.int64) for part in (train, validation, test))
    return Split(train, validation, test, notes)


@dataclass(frozen=True, eq=False)
class _Drawer:
    """Draws a part of some rows: classes in proportion, groups as a whole."""

    y: npt.NDArray[Any]
    task: str
    seed: int
    groups: Rows | None

    def draw(self, rows: Rows, size: float | int) -> tuple[Rows, Rows]:
        """Divide rows into the rest and a part of a size, in rows or as a share."""
        labels = None if self.task == "regression" else self.y[rows]
        if self.groups is None:
            return self._random(rows, size, labels)
        _, first, codes, counts = np.unique(
            self.groups[rows], return_index=True, return_inverse=True, return_counts=True
        )
        if len(counts) < 2:
            raise DataError(_too_few_groups(len(counts)))
        frac = size if isinstance(size, float) else size / len(rows)
        if counts.max() > frac * len(rows) / FEW_IN_PART:
            return self._few_groups(rows, frac, codes, labels)
        # Copies have the same label, or one of them is wrong: any of them stands for the group.
        rest, part = self._random(np.arange(len(counts)), frac, None if labels is None else labels[first])
        return rows[np.isin(codes, rest)], rows[np.isin(codes, part)]

    def _random(self, rows: Rows, size: float | int, labels: npt.NDArray[Any] | None) -> tuple[Rows, Rows]:
        from sklearn.model_selection import train_test_split

        if labels is not None and labels.ndim == 2:
            rest, part = draw_in_proportion(
                labels, size if isinstance(size, float) else size / len(rows), seed=self.seed
            )
            return rows[rest], rows[part]
        if labels is not None:
            _refuse_rare(labels, size)
        rest, part = train_test_split(rows, test_size=size, random_state=self.seed, stratify=labels)
        return rest, part

    def _few_groups(self, rows: Rows, frac: float, codes: Rows, labels: npt.NDArray[Any] | None) -> tuple[Rows, Rows]:
        """Whole groups, chosen so that sizes and classes (of several labels, sizes alone) come near to their shares."""
        from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

        num_groups = int(codes.max()) + 1
        num_folds = int(np.clip(round(1 / frac), 2, num_groups))
        kind = StratifiedGroupKFold if labels is not None and labels.ndim == 1 else GroupKFold
        folds = kind(n_splits=num_folds, shuffle=True, random_state=self.seed)
        with warnings.catch_warnings():
            # A class with fewer rows than folds; classes that a part lacks are found afterwards.
            warnings.simplefilter("ignore", UserWarning)
            rest, part = next(folds.split(rows, labels, codes))
        return rows[rest], rows[part]


def _refuse_rare(labels: npt.NDArray[Any], size: float | int) -> None:
    """Refuse groups that cannot be drawn in proportion; single rows were checked before."""
    codes, counts = np.unique(labels, return_counts=True)
    num_part = math.ceil(size * len(labels)) if isinstance(size, float) else size
    if counts.min() < 2 or num_part < len(codes):
        raise DataError(
            f"Copies of each other counted once, some of the {len(codes)} classes have too few different samples "
            f"(the smallest has {int(counts.min())}) to be split into training, validation and test. Add samples, or "
            "merge or remove these classes."
        )


def _too_few_groups(count: int) -> str:
    return (
        f"Training, validation and test need at least one group each, and only {count} is left to divide. Choose "
        "another --group with at least three, or none."
    )


def _groups(dataset: Dataset, same: Rows | None) -> Rows | None:
    """Groups that the user named, joined where they share copies."""
    if same is None or dataset.groups is None:
        return same if dataset.groups is None else dataset.groups
    return duplicates.joined(same, dataset.groups)


def _group_note(groups: Rows, parts: Split) -> str:
    train, validation, test = (len(np.unique(groups[rows])) for rows in (parts.train, parts.validation, parts.test))
    return f"Split by groups (--group): {train:,} to train, {validation:,} to validate, {test:,} to test, none in two."


def _without_copies(parts: Split, same: Rows, *, names: Sequence[str]) -> Split:
    """Training rows that are copies of validation or test rows, which stand where they do because the user said so."""
    held = same[np.concatenate([parts.validation, parts.test])]
    is_copy = np.isin(same[parts.train], held)
    num_copies = len(same) - len(np.unique(same))
    if not is_copy.any():
        return dataclasses.replace(
            parts,
            notes=(
                *parts.notes,
                f"{counted(num_copies, 'samples')} {_are_copies(num_copies)} of others; copies are on one side of "
                "the split.",
            ),
        )
    if is_copy.all():
        raise DataError(
            f"All {len(is_copy):,} training samples are (nearly) copies of samples of the given parts. "
            "--validation and --test must hold other samples than DATA; without them, parts are split off."
        )
    shown = first_of(names[row] for row in parts.train[is_copy].tolist())
    num_left_out = int(is_copy.sum())
    note = (
        f"{counted(num_left_out, 'training samples')} {_are_copies(num_left_out)} of samples of the given parts and "
        f"{verb(num_left_out, 'are')} not learned from: {shown}."
    )
    return dataclasses.replace(parts, train=parts.train[~is_copy], notes=(*parts.notes, note))


def _are_copies(number: int) -> str:
    return "is (nearly) a copy" if number == 1 else "are (nearly) copies"


def _in_time(dataset: Dataset, *, test_rows: Rows | None, validation_rows: Rows | None) -> Split:
    """The earliest rows to train, the latest to test; those that reach into the next part in none."""
    order, taken = dataset.order, _joined(test_rows, validation_rows)
    if order is None:
        raise ValueError("a split in time needs Dataset.order")
    check_sizes(dataset.y, task="regression", test_rows=taken)
    rest = np.arange(len(order)) if taken is None else np.delete(np.arange(len(order)), taken)
    rest = rest[np.argsort(order[rest], kind="stable")]
    num_left_out = 0
    if test_rows is None:
        num_test = math.ceil(TEST_FRAC * len(rest))
        rest, test_rows, num_gone = _cut(rest, num_test, order, dataset.span)
        num_left_out += num_gone
        num_validation = num_test
    else:
        num_validation = math.ceil(VALIDATION_FRAC * len(rest))
    if validation_rows is None:
        rest, validation_rows, num_gone = _cut(rest, num_validation, order, dataset.span)
        num_left_out += num_gone
    notes = ["Split in time: the first rows to train, the next to validate, the last to test (--split)."]
    if num_left_out:
        notes.append(
            f"{counted(num_left_out, 'samples')} that {verb(num_left_out, 'reach')} across the borders of the parts "
            f"{verb(num_left_out, 'were')} left out."
        )
    return _split(rest, validation_rows, test_rows, *notes)


def _cut(rows: Rows, num_last: int, order: npt.NDArray[np.float64], span: float) -> tuple[Rows, Rows, int]:
    """The first rows, the last ones, and the number of those between that overlap with the last ones."""
    last = rows[-num_last:]
    first = rows[:-num_last]
    apart = first[order[first] + span <= order[last[0]]]
    if not len(apart):
        raise DataError(
            "A split in time leaves nothing to train on: all windows reach into the next part. Give a longer "
            "recording, or lower --window."
        )
    return apart, last, len(first) - len(apart)


def _joined(*given: Rows | None) -> Rows | None:
    present = [rows for rows in given if rows is not None]
    return np.concatenate(present) if present else None


def _check_classes(y: npt.NDArray[Any], parts: Split, names: Sequence[str]) -> tuple[str, ...]:
    """Refuse parts that cannot teach or judge; say which classes a part to judge by lacks."""
    notes = []
    if y.ndim == 2:
        return _check_labels(y, parts, names)
    for part, rows in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        found = np.unique(y[rows])
        lacking = first_of([names[code] for code in range(len(names)) if code not in found])
        if len(found) < 2 or (part == "training" and lacking):
            raise DataError(
                f"The {part} part would have {len(found)} of {len(names)} classes (without {lacking}), because of "
                "how rows follow each other in time or belong together. Give a longer recording or more groups, "
                "another --group or --seed, or parts of your own with --validation and --test."
            )
        if lacking:
            notes.append(f"The {part} part has no sample of class {lacking}.")
    return tuple(notes)


def _check_labels(y: npt.NDArray[Any], parts: Split, names: Sequence[str]) -> tuple[str, ...]:
    """Of several labels: refuse parts without any; say which labels a part lacks that others have."""
    notes = []
    for part, rows in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        has = y[rows].any(axis=0)
        if not has.any():
            raise DataError(
                f"The {part} part would have no sample with any label. Add samples with labels, or give another "
                "--group or --seed, or parts of your own with --validation and --test."
            )
        lacking = [names[label] for label in np.flatnonzero(y.any(axis=0) & ~has).tolist()]
        if lacking:
            notes.append(f"The {part} part has no sample with {first_of(lacking)}.")
    return tuple(notes)


def min_class_size(*, has_test_part: bool) -> int:
    """Fewest rows of a class outside an existing test part: one for training, one for each part to be split off."""
    return 2 if has_test_part else 3


def check_sizes(
    y: npt.NDArray[Any],
    *,
    task: str,
    test_rows: Rows | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Refuse data with too few rows, or classes with too few, to be split.

    Args:
        y: Class codes, rows of several labels, or values.
        task: Whether they are classes.
        test_rows: Rows of an existing test part.
        class_names: For the message; codes are shown without.

    Raises:
        DataError: Naming the classes that are too small.
    """
    rest = y if test_rows is None else np.delete(y, test_rows)
    if task != "classification":
        if len(rest) < MIN_REGRESSION_ROWS:
            raise DataError(
                f"The data has {counted(len(rest), 'rows')} to learn from; at least {MIN_REGRESSION_ROWS} are needed "
                "to split them into training, validation and test. Add more."
            )
        return
    codes = np.unique(y)
    counts = np.bincount(rest.astype(np.int64), minlength=int(codes.max()) + 1)[codes]
    names = [class_names[code] if class_names else str(code) for code in codes.tolist()]
    # Splitting off a part of fewer rows than there are classes cannot give each class one.
    frac = TEST_FRAC if test_rows is None else VALIDATION_FRAC
    if math.ceil(frac * len(rest)) < len(codes):
        about = int((len(codes) - 1) / frac)
        needed = next(size for size in itertools.count(about) if math.ceil(frac * size) >= len(codes))
        raise DataError(
            f"{counted(len(rest), 'samples', 'are')} too few for {len(codes):,} classes ({first_of(names)}): at least "
            f"{needed:,} are needed, so that training, validation and test each get some of every class. Add samples, "
            "merge classes, or choose another target; for a target that is a number, give --task regression."
        )
    least = min_class_size(has_test_part=test_rows is not None)
    small = [f"{name} has {count}" for name, count in zip(names, counts.tolist(), strict=True) if count < least]
    if small:
        raise DataError(
            f"Some classes have too few samples to be split into training, validation and test: {first_of(small)}; "
            f"each needs at least {least}. Add samples, merge these classes or remove them."
        )


def fingerprint(x: npt.NDArray[Any], y: npt.NDArray[Any], split: Split) -> str:
    """Sum of all values, targets and the split as sha256 hex; another data set or split has another one.

    It reads the samples in pieces, so a memory-mapped array stays on the disk.
    """
    digest = hashlib.sha256()
    for array in (x, y, split.train, split.validation, split.test):
        digest.update(f"{array.dtype.str} {array.shape};".encode())
        step = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), step):
            piece = array[start : start + step]
            is_text = piece.dtype == object
            digest.update("\0".join(map(str, piece)).encode() if is_text else np.ascontiguousarray(piece).data)
    return digest.hexdigest()
