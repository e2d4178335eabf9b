"""What a log of a training says, epoch by epoch, and the traces that come of it.

A log may hold several trainings one after the other, epochs that are missing or written twice, and validation only
now and then. Here that becomes one trace for each training, with a note for the user on each decision.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.errors import DataError
from tuner.grammar import counted, verb
from tuner.records import Finding, FloatArray, Trace
from tuner.stability.signals import running_median

__all__ = ["Column", "ForeignLog", "History", "foreign_logs", "listed"]

# A part of a log with fewer epochs cannot be judged alone. Source: as in the stability score.
MIN_PART_EPOCHS = 4
# Parts of a log that are judged; of more, the last ones. Source: convention.
MAX_PARTS = 20
# Up to this share of epochs without validation the value before stands in for it; from there on the epochs with
# validation are judged on their own, because repeated values look calmer than they are. Source: convention.
MAX_FILLED_FRAC = 0.25
# Names shown in a message. Source: convention.
MAX_LISTED = 12

# A loss beyond this is as good as infinite. Source: convention; ratios and ranges of losses stay finite.
MAX_LOSS = 1e100
# An accuracy whose median of so many epochs never gets beyond this multiple of its lowest, and whose mean of the last
# third not beyond that one of the first, has not risen. Source: convention; single epochs of a net that guesses ten
# digits had 0.083 to 0.126 (tests/stability/test_logs.py).
FLAT_ACCURACY_FACTOR, FLAT_ACCURACY_GROWTH, ACCURACY_MEDIAN = 1.5, 1.2, 3
# A lower accuracy is not that of a guess. Source: convention; a million classes.
MIN_ACCURACY = 1e-6
# A first loss beyond this multiple of the loss of guessing is an explosion, no chance level; of an accuracy so low that
# it is that of a guess among several classes, and of any other, which may be that of a trained network. Source:
# convention; measured with rates 600 and 300 times too high, the first epoch of a digits net had 278 and 2.9, guessing
# has 2.3; a good network at an accuracy of 0.4 among 100 classes has 2.5 times what guessing between two has.
LOW_ACCURACY, EXPLODED_LOW_FACTOR, EXPLODED_FACTOR = 0.2, 1.1, 5.0

ACCURACY_NAMES = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy", "binary_accuracy")
LEARNING_RATE_NAMES = ("learning_rate", "lr")


@dataclass(frozen=True)
class Column:
    """One column of a log.

    Attributes:
        values: NaN where nothing was recorded, and where NaN was; shape (rows,).
        is_recorded: Which of the two; shape (rows,).
    """

    values: FloatArray
    is_recorded: np.ndarray

    def at(self, rows: np.ndarray) -> Column:
        """The column at these rows."""
        return Column(self.values[rows], self.is_recorded[rows])


@dataclass(frozen=True)
class History:
    """What a log says, before it is known which of its columns is the loss.

    Attributes:
        name: Of the log, for the user.
        epochs: Number of the epoch as written in each row; shape (rows,).
        columns: By name, without the epoch.
        planned_epochs: If the log says so.
        text_columns: Columns that hold no numbers.
        notes: What the reader decided.
    """

    name: str
    epochs: np.ndarray
    columns: Mapping[str, Column]
    planned_epochs: int | None = None
    text_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignLog:
    """One training that was not made here, or not just now.

    Attributes:
        name: File, folder, part of a log, or trial.
        notes: What was assumed or decided when it was read; a sentence each.
        metrics: Names of the other columns that were seen.
        offset: Was added to the losses of the trace because some were negative; else 0.
        is_ours: Whether it is of a search of this program.
        findings, causes: What the search recorded of it, knowing its hyperparameters, data and model; else empty.
    """

    name: str
    trace: Trace
    notes: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    offset: float = 0.0
    is_ours: bool = False
    findings: tuple[Finding, ...] = ()
    causes: tuple[Finding, ...] = ()


def foreign_logs(
    history: History, *, loss_column: str | None = None, val_column: str | None = None
) -> tuple[ForeignLog, ...]:
    """The trainings of a log, in its order.

    Args:
        history: The log.
        loss_column: Column of the training loss; by default `loss`.
        val_column: Column of the validation loss; by default `val_` and the name of the loss, or `val_loss`.

    Raises:
        DataError: There is no such column, or nothing in it.
    """
    loss_name = _loss_name(history, loss_column)
    val_name = _val_name(history, val_column, loss_name)
    notes = [*history.notes]
    rows = np.flatnonzero(history.columns[loss_name].is_recorded)
    if not rows.size:
        raise DataError(
            f"{history.name!r} has no epoch with a value in column {loss_name!r}. "
            "Let the training finish at least one epoch, then diagnose it again."
        )
    if rows.size < history.epochs.size:
        count = history.epochs.size - rows.size
        notes.append(f"{counted(count, 'rows')} without a training loss {verb(count, 'are')} left out.")
    parts = _parts(history, rows, loss_name, notes)
    names = [_part_name(history.name, number, len(parts)) for number in range(1, len(parts) + 1)]
    chances = _chance_losses([history.columns[loss_name].values[part] for part in parts])
    logs: list[ForeignLog] = []
    for part, name, chance in zip(parts, names, chances, strict=True):
        logs += _logs_of_part(replace(history, name=name, notes=tuple(notes)), part, chance, (loss_name, val_name))
    return tuple(logs)


def listed(names: Iterable[str]) -> str:
    """Names for a message, not too many."""
    every = list(names)
    more = f" and {len(every) - MAX_LISTED} more" if len(every) > MAX_LISTED else ""
    return (", ".join(name[:60] for name in every[:MAX_LISTED]) or "none") + more


# --- Columns


def _loss_name(history: History, asked: str | None) -> str:
    """Column of the training loss."""
    if asked is not None:
        return _asked_name(history, asked, "--loss-column")
    found = next((name for name in history.columns if name.lower() == "loss"), None)
    if found is not None:
        return found
    if "loss" in (name.lower() for name in history.text_columns):
        raise DataError(
            f"Column 'loss' of {history.name!r} holds no numbers. Write the loss of each epoch as a number."
        )
    if not history.columns:
        raise DataError(f"{history.name!r} has no column of numbers, so it is no log of a training.")
    near = _near_loss(history.columns)
    hint = f" Did you mean --loss-column {near!r}?" if near else " Name it with --loss-column NAME."
    raise DataError(f"{history.name!r} has no column 'loss'. Columns of numbers: {listed(history.columns)}.{hint}")


def _val_name(history: History, asked: str | None, loss_name: str) -> str | None:
    """Column of the validation loss, if there is one."""
    if asked is not None:
        return _asked_name(history, asked, "--val-column")
    lowered = {name.lower(): name for name in history.columns}
    return lowered.get(f"val_{loss_name.lower()}") or lowered.get("val_loss")


def _asked_name(history: History, asked: str, option: str) -> str:
    if asked in history.columns:
        return asked
    near = difflib.get_close_matches(asked, list(history.columns), n=1)
    what = "holds no numbers" if asked in history.text_columns else "is no column"
    hint = f" Did you mean {option} {near[0]!r}?" if near else ""
    raise DataError(
        f"{option} {asked!r} {what} of {history.name!r}. Columns of numbers: {listed(history.columns)}.{hint}"
    )


def _near_loss(names: Iterable[str]) -> str | None:
    """The name that most looks like a training loss."""
    likely = [name for name in names if "loss" in name.lower()]
    return min(likely, key=lambda name: ("val" in name.lower() or "test" in name.lower(), len(name)), default=None)


# --- Parts


def _parts(history: History, rows: np.ndarray, loss_name: str, notes: list[str]) -> list[np.ndarray]:
    """Rows of each training in the log: it starts anew where the epochs do."""
    rows = _without_copies(history, rows, notes)
    epochs = history.epochs[rows]
    parts: list[list[int]] = []
    num_replaced = 0
    for row, epoch in zip(rows.tolist(), epochs.tolist(), strict=True):
        if not parts or epoch <= history.epochs[parts[-1][0]]:
            parts.append([])
        while parts[-1] and history.epochs[parts[-1][-1]] >= epoch:
            parts[-1].pop()
            num_replaced += 1
        parts[-1].append(row)
    if num_replaced:
        notes.append(
            f"The training was resumed; of {counted(num_replaced, 'epochs')} written again the later row counts."
        )
    losses = [history.columns[loss_name].values[part] for part in parts]
    if len(parts) > 1 and all(len(part) < MIN_PART_EPOCHS for part in parts) and _is_one_training(losses):
        notes.append(
            f"The epochs start anew {counted(len(parts) - 1, 'times')}; the parts are too short to be judged alone "
            "and each begins where the one before ended, so they count as one training."
        )
        parts = [[row for part in parts for row in part]]
    elif len(parts) > 1:
        notes.append(
            f"The epochs start anew {counted(len(parts) - 1, 'times')}: {len(parts)} trainings in one log, "
            "each judged on its own."
        )
    else:
        _note_gaps(history.epochs[parts[0]], notes)
    if len(parts) > MAX_PARTS:
        notes.append(f"Only the last {MAX_PARTS} of its {len(parts)} trainings are judged.")
    return [np.asarray(part) for part in parts[-MAX_PARTS:]]


def _without_copies(history: History, rows: np.ndarray, notes: list[str]) -> np.ndarray:
    """Leave out rows that repeat the row before them in every number."""
    if rows.size < 2:
        return rows
    is_copy = history.epochs[rows][1:] == history.epochs[rows][:-1]
    for column in history.columns.values():
        values = column.values[rows]
        is_copy &= (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    if is_copy.any():
        notes.append(f"Of {counted(int(is_copy.sum()), 'rows')} written twice one counts.")
    return rows[np.concatenate(([True], ~is_copy))]


def _is_one_training(losses: Sequence[FloatArray]) -> bool:
    """Whether each part goes on where the one before ended."""
    return all(_continues(before, after) for before, after in itertools.pairwise(losses))


def _continues(before: FloatArray, after: FloatArray) -> bool:
    """Whether a training starts nearer to where another ended than to where that one started."""
    first, last, start = before[0], before[-1], after[0]
    if not (math.isfinite(last) and math.isfinite(first) and math.isfinite(start)):
        return not math.isfinite(last) and not math.isfinite(start)
    return bool(abs(start - last) <= abs(start - first))


def _note_gaps(epochs: np.ndarray, notes: list[str]) -> None:
    missing = int(epochs[-1] - epochs[0] + 1 - epochs.size)
    steps = np.unique(np.diff(epochs))
    if missing and steps.size == 1:
        notes.append(f"The log has every {steps[0]}th epoch (or counts steps); its rows count as epochs here.")
    elif missing:
        gap = int(np.argmax(np.diff(epochs) > 1))
        notes.append(
            f"Epochs are missing ({missing:,}), the first after epoch {epochs[gap]} of the log; "
            "epochs are counted by the rows that are there."
        )


def _part_name(name: str, number: int, count: int) -> str:
    return name if count == 1 else f"{name}, training {number} of {count}"


def _chance_losses(losses: Sequence[FloatArray]) -> list[float]:
    """What stands for the chance level of each part: its first loss, or that of the part that it goes on from."""
    chances: list[float] = []
    for number, values in enumerate(losses):
        if number and _continues(losses[number - 1], values) and chances[-1] > values[0]:
            chances.append(chances[-1])
        else:
            finite = values[np.abs(values) <= MAX_LOSS]
            chances.append(float(finite[0]) if finite.size else math.nan)
    return chances


# --- Traces


def _logs_of_part(history: History, rows: np.ndarray, chance: float, names: tuple[str, str | None]) -> list[ForeignLog]:
    """One training as one log; as two if only some of its epochs were validated."""
    loss_name, val_name = names
    missing = np.zeros(rows.size, dtype=bool) if val_name is None else ~history.columns[val_name].is_recorded[rows]
    share = float(missing.mean())
    if val_name is None or missing.all():
        return [_log(history, rows, chance, (loss_name, None))]
    if share <= MAX_FILLED_FRAC:
        return [_log(history, rows, chance, names)]
    note = f"Only {rows.size - int(missing.sum())} of {rows.size} epochs were validated"
    whole = replace(history, notes=(*history.notes, f"{note}; those are judged apart."))
    sparse = replace(
        history,
        name=f"{history.name}, validated epochs",
        notes=(*history.notes, f"{note}: here only those, counted by themselves."),
    )
    return [_log(whole, rows, chance, (loss_name, None)), _log(sparse, rows[~missing], chance, names)]


def _log(history: History, rows: np.ndarray, chance: float, names: tuple[str, str | None]) -> ForeignLog:
    loss_name, val_name = names
    notes = [*history.notes]
    columns = {name: column.at(rows) for name, column in history.columns.items()}
    train = _bounded(columns[loss_name].values)
    validation = np.empty(0) if val_name is None else _bounded(_filled(columns[val_name], notes))
    offset = _offset(train, validation)
    if offset:
        notes.append(
            f"Some losses are negative, so rises are judged from {-offset:.4g} up: "
            f"the losses of the evidence are {offset:.4g} higher than those of the log."
        )
    lowest = min((float(loss) for loss in (*train, *validation) if math.isfinite(loss)), default=math.inf)
    guessing = _guessing_loss(columns, chance, lowest)
    if guessing is not None and not offset:
        chance_loss = guessing
        notes.append(
            f"The accuracy never rose; guessing has a loss of {guessing:.4g}, which stands for the chance level."
        )
    else:
        chance_loss = _usable_chance(chance + offset, train + offset)
        notes.append(_chance_note(chance_loss - offset, starts=float(train[0])))
    notes.append(
        f"'{loss_name}' may include regularisation terms (L1, L2), as Keras logs it, and is the mean over an epoch: "
        "single steps cannot be judged."
    )
    others = tuple(name for name in columns if name not in (loss_name, val_name))
    rate = next((columns[name] for name in others if name.lower() in LEARNING_RATE_NAMES), None)
    trace = Trace(
        step_loss=np.empty(0),
        grad_norm=np.empty(0),
        train_loss=train + offset,
        validation_loss=validation + offset,
        learning_rate=np.empty(0) if rate is None else rate.values,
        seconds=np.empty(0),
        steps_per_epoch=1,
        planned_epochs=max(rows.size, history.planned_epochs or 0),
        chance_loss=chance_loss,
        metrics={name.removeprefix("val_"): columns[name].values for name in others if name.startswith("val_")},
    )
    return ForeignLog(history.name, trace, tuple(notes), others, offset)


def _bounded(losses: FloatArray) -> FloatArray:
    """The losses, infinite where they are too large to be calculated with."""
    return np.where(np.abs(losses) > MAX_LOSS, np.copysign(np.inf, losses), losses)


def _filled(column: Column, notes: list[str]) -> FloatArray:
    """Validation losses, with the one before where there is none; at the start, the first."""
    if column.is_recorded.all():
        return column.values
    notes.append(
        f"{counted(int((~column.is_recorded).sum()), 'epochs')} without a validation loss: the one before stands in."
    )
    last = np.maximum.accumulate(np.where(column.is_recorded, np.arange(column.values.size), -1))
    return np.asarray(column.values[np.where(last < 0, int(np.argmax(column.is_recorded)), last)])


def _offset(train: FloatArray, validation: FloatArray) -> float:
    """What makes all losses positive: the lowest then lies as high as the range of the losses. 0 if they are."""
    losses = np.concatenate((train, validation))
    finite = losses[np.isfinite(losses)]
    if not finite.size or finite.min() >= 0:
        return 0.0
    low, high = np.quantile(finite, (0.0, 0.9))
    return float(high - low or abs(low)) - float(low)


def _guessing_loss(columns: Mapping[str, Column], first_loss: float, lowest: float) -> float | None:
    """Cross-entropy of a constant answer as good as the accuracy says, if the first loss was an explosion above it.

    None if there is no accuracy, if it rose, or if the first loss may be that of chance. A network of so low an
    accuracy has learned nothing: a lowest loss below that of guessing means that it answered worse than a guess.
    """
    known = {name.lower(): column for name, column in columns.items()}
    column = next((known[name] for name in ACCURACY_NAMES if name in known), None)
    values = np.empty(0) if column is None else column.values[np.isfinite(column.values)]
    if not values.size or not MIN_ACCURACY <= values.min() <= values.max() < 1 or _has_risen(values):
        return None
    share = float(np.median(values))
    others = max(1 / share - 1, 1.0)
    loss = -share * math.log(share) - (1 - share) * math.log((1 - share) / others)
    is_low = share <= LOW_ACCURACY
    if first_loss <= (EXPLODED_LOW_FACTOR if is_low else EXPLODED_FACTOR) * loss:
        return None
    return min(loss, lowest) if is_low and lowest > 0 else loss


def _has_risen(accuracy: FloatArray) -> bool:
    medians = running_median(accuracy, ACCURACY_MEDIAN)[min(ACCURACY_MEDIAN, accuracy.size) - 1 :]
    third = -(-accuracy.size // 3)
    growth = float(np.mean(accuracy[-third:])) / float(np.mean(accuracy[:third]))
    lowest_before = np.minimum.accumulate(medians)
    return bool((medians >= FLAT_ACCURACY_FACTOR * lowest_before).any()) or growth >= FLAT_ACCURACY_GROWTH


def _usable_chance(chance: float, train: FloatArray) -> float:
    if math.isfinite(chance) and chance > 0:
        return chance
    positive = train[np.isfinite(train) & (train > 0)]
    return float(positive.max()) if positive.size else 1.0


def _chance_note(chance: float, *, starts: float) -> str:
    if chance == starts:
        return f"The chance level is not known here: the loss of the first epoch, {chance:.4g}, stands for it."
    return f"The chance level is not known here: a loss of {chance:.4g}, seen before, stands for it."
