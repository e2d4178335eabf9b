"""What the causes of finished trials agree on, as bounds of what later trials are proposed from.

A pure function of the finished trials: with other evidence the bounds move, or are gone again. A bound needs several
trials that were unstable, of one cause whose remedy is that bound; hardly any trial beyond it may speak against it; the
best trials so far are never beyond it; and a third of the range always stays.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuner.records import AdaptationStep, Narrowing, Outcome, TrialRecord
from tuner.stability.explanation import top_cause
from tuner.stability.ranking import STABLE
from tuner.stability.remedies import apply_remedies

__all__ = ["Evidence", "SearchRange", "adaptation_lines", "narrowed_ranges"]

# Trials that must blame the same for a bound. Source: convention; two may agree by chance, since causes are no proof.
MIN_AGREEING = 3
# Share of the trials beyond a bound that must blame it. Source: convention.
AGREEING_FRAC = 0.75
# Causes below this confidence blame nothing. Source: convention; above it the first cause is mostly right (tests of the
# diagnosis).
BLAMED_CONFIDENCE = 0.4
# Share of the trials with a usable model, at least one, that no bound may exclude. Source: convention.
BEST_FRAC = 0.25
# Share of a range, on its own scale, that always stays. Source: convention.
KEPT_FRAC = 1 / 3

_SIGNS: dict[Literal["upper", "lower"], float] = {"upper": 1.0, "lower": -1.0}


@dataclass(frozen=True)
class SearchRange:
    """The range of a number as the user and the search space have it.

    Attributes:
        is_log: Whether its scale is logarithmic; then `low` > 0.
        is_whole: Whether it takes whole numbers only.
    """

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False

    def at(self, frac: float) -> float:
        """The value at this share of the range, on its scale."""
        if self.is_log:
            return self.low * math.exp(frac * math.log(self.high / self.low))
        return self.low + frac * (self.high - self.low)

    def frac(self, value: float) -> float:
        """The share of the range, on its scale, that lies below a value."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class _Blame:
    """What the cause of one trial wants excluded, its own value included."""

    trial: int
    parameter: str
    side: Literal["upper", "lower"]
    bound: float
    cause: str


class Evidence:
    """What finished trials say of the ranges. It is kept, because with ten thousand trials to compare takes long.

    Args:
        ranges: What may be narrowed, by hyperparameter.
    """

    def __init__(self, ranges: Mapping[str, SearchRange]) -> None:
        self.ranges = dict(ranges)
        self._numbers: set[int] = set()
        self._usable: list[tuple[float, int]] = []
        self._sides = {(name, side): _Beyond(sign) for name in ranges for side, sign in _SIGNS.items()}

    def add(self, trials: Iterable[TrialRecord]) -> None:
        """Learn from trials, in any order; known ones, and those that left no training to explain, do not count."""
        for trial in trials:
            if trial.number not in self._numbers:
                self._numbers.add(trial.number)
                if _is_known(trial):
                    self._add(trial)

    def _add(self, trial: TrialRecord) -> None:
        if trial.outcome is Outcome.COMPLETED and trial.objective is not None:
            bisect.insort(self._usable, (trial.objective, trial.number))
        for (name, _), beyond in self._sides.items():
            if (value := _number(trial, name)) is not None:
                beyond.add(trial.number, value)
        if blame := _blame(trial, self.ranges):
            bound = _kept(blame.bound, blame.side, self.ranges[blame.parameter])
            self._sides[blame.parameter, blame.side].blame(trial.number, bound, blame.cause)

    def narrowings(self) -> tuple[Narrowing, ...]:
        """The bounds that the trials agree on, in the order of the ranges."""
        best = [number for _, number in self._usable[: math.ceil(BEST_FRAC * len(self._usable))]]
        found = []
        for (name, side), beyond in self._sides.items():
            if agreed := beyond.agreed(best):
                bound, cause, trials = agreed
                whole = (self.ranges[name].low, self.ranges[name].high)
                found.append(Narrowing(name, side, bound, whole=whole, cause=cause, trials=trials))
        return tuple(found)


class _Beyond:
    """The trials beyond each bound of one side of a range. Of the lower side all is mirrored: beyond is above.

    Args:
        sign: Of the side.
    """

    def __init__(self, sign: float) -> None:
        self._sign = sign
        self._values: dict[int, float] = {}
        self._sorted: list[float] = []
        self._causes: dict[int, str] = {}
        self._sorted_blaming: list[float] = []
        self._bounds: list[float] = []

    def add(self, trial: int, value: float) -> None:
        """A trial with that value."""
        self._values[trial] = self._sign * value
        bisect.insort(self._sorted, self._sign * value)

    def blame(self, trial: int, bound: float, cause: str) -> None:
        """One of them blames what lies beyond a bound."""
        self._causes[trial] = cause
        bisect.insort(self._sorted_blaming, self._values[trial])
        bisect.insort(self._bounds, self._sign * bound)

    def agreed(self, best: Iterable[int]) -> tuple[float, str, tuple[int, ...]] | None:
        """The narrowest bound that enough trials agree on, if there is one; its cause, and the trials that blame it.

        Args:
            best: Trials that no bound may exclude.
        """
        protected = max((self._values[number] for number in best if number in self._values), default=-math.inf)
        for bound in self._bounds[bisect.bisect_left(self._bounds, protected) :]:
            num_beyond = len(self._sorted) - bisect.bisect_right(self._sorted, bound)
            num_blaming = len(self._sorted_blaming) - bisect.bisect_right(self._sorted_blaming, bound)
            if num_blaming < MIN_AGREEING:
                break
            if num_blaming >= AGREEING_FRAC * num_beyond:
                who = sorted(number for number in self._causes if self._values[number] > bound)
                cause = Counter(self._causes[number] for number in who).most_common(1)[0][0]
                return self._sign * bound, cause, tuple(who)
        return None


def narrowed_ranges(ranges: Mapping[str, SearchRange], found: Iterable[Narrowing]) -> dict[str, tuple[float, float]]:
    """The ranges that are not whole any more, as (low, high)."""
    result: dict[str, tuple[float, float]] = {}
    for narrowing in found:
        whole = ranges[narrowing.parameter]
        low, high = result.get(narrowing.parameter, (whole.low, whole.high))
        if narrowing.side == "upper":
            result[narrowing.parameter] = (low, narrowing.bound)
        else:
            # Bounds that are fair one by one may leave too little between them.
            highest = whole.at(max(0.0, whole.frac(high) - KEPT_FRAC))
            highest = math.floor(highest) if whole.is_whole else highest
            result[narrowing.parameter] = (min(narrowing.bound, highest), high)
    return result


def adaptation_lines(step: AdaptationStep, before: AdaptationStep | None = None) -> list[str]:
    """What a step changes, in sentences for the user.

    Args:
        step: The step.
        before: The one before it, if there is one.
    """
    old = {(each.parameter, each.side): each for each in (before.ranges if before else ())}
    new = {(each.parameter, each.side): each for each in step.ranges}
    lines = [
        f"from trial {step.since} on {each.parameter} is searched {_words(each)}: trials {_listed(each.trials)} were "
        f"unstable beyond that, most likely because of: {each.cause.replace('_', ' ')}"
        for key, each in new.items()
        if key not in old or old[key].bound != each.bound
    ]
    return lines + [
        f"from trial {step.since} on {parameter} is searched {'up' if side == 'upper' else 'down'} to "
        f"{old[parameter, side].whole[side == 'upper']:g} again: later trials speak against the narrower range"
        for parameter, side in old
        if (parameter, side) not in new
    ]


def _words(narrowing: Narrowing) -> str:
    low, high = narrowing.whole
    verb = "only up to" if narrowing.side == "upper" else "only from"
    return f"{verb} {narrowing.bound:.3g} (the range is {low:g} to {high:g})"


def _listed(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}" if others else last


def _is_known(trial: TrialRecord) -> bool:
    trained = (Outcome.COMPLETED, Outcome.NOT_LEARNING, Outcome.PRUNED, Outcome.DIVERGED)
    return trial.outcome in trained and bool(trial.seed_runs)


def _is_unstable(trial: TrialRecord) -> bool:
    first = min(trial.seed_runs, key=lambda run: run.seed_index)
    was_ended = trial.outcome in (Outcome.NOT_LEARNING, Outcome.DIVERGED) or bool(first.ended_by)
    return was_ended or first.score.stability < STABLE


def _blame(trial: TrialRecord, ranges: Mapping[str, SearchRange]) -> _Blame | None:
    """The first remedy of the trial's cause that would have excluded it."""
    cause = top_cause(trial)
    if cause is None or cause.confidence < BLAMED_CONFIDENCE or not _is_unstable(trial):
        return None
    for remedy in cause.remedies:
        value = _number(trial, remedy.parameter)
        if value is None or remedy.parameter not in ranges:
            continue
        whole = {remedy.parameter: (ranges[remedy.parameter].low, ranges[remedy.parameter].high)}
        low, high = apply_remedies(whole, trial.hyperparameters, [remedy])[remedy.parameter]
        if value > high:
            return _Blame(trial.number, remedy.parameter, "upper", high, cause.code)
        if value < low:
            return _Blame(trial.number, remedy.parameter, "lower", low, cause.code)
    return None


def _kept(bound: float, side: Literal["upper", "lower"], whole: SearchRange) -> float:
    """The bound, moved outward to where a third of the range stays, and to a whole number."""
    if side == "upper":
        kept = max(bound, whole.at(KEPT_FRAC))
        return float(math.ceil(kept)) if whole.is_whole else kept
    kept = min(bound, whole.at(1 - KEPT_FRAC))
    return float(math.floor(kept)) if whole.is_whole else kept


def _number(trial: TrialRecord, name: str) -> float | None:
    value = trial.hyperparameters.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
