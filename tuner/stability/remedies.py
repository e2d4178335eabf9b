"""Remedies as data: what `Remedy.change` says, applied to a configuration or to the ranges of a search.

    x 0.3               multiply the value of a configuration
    = adam              set it (true, false, a number or a word)
    upper <= x 0.5      no more than half of the present value in later trials
    lower >= x 2        no less than twice the present value
    upper <= 0.2        no more than 0.2
    lower >= 0.2        no less than 0.2

Anything else is advice in words, which nothing applies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tuner.records import HyperparameterValue, Remedy

__all__ = ["Change", "apply_remedies", "change_configuration", "parse_change", "told"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SCALE = re.compile(rf"x ({_NUMBER})")
_SET = re.compile(r"= (\S+)")
_BOUND = re.compile(rf"(upper <=|lower >=) (x )?({_NUMBER})")


@dataclass(frozen=True)
class Change:
    """A parsed `Remedy.change`.

    Attributes:
        kind: `scale` and `set` change a configuration, `upper` and `lower` bound a range.
        value: Factor, value or bound.
        is_relative: Whether a bound is a multiple of the present value.
    """

    kind: Literal["scale", "set", "upper", "lower"]
    value: HyperparameterValue
    is_relative: bool = False

    @property
    def is_weaker(self) -> bool:
        """Whether it makes the value smaller."""
        return self.kind == "upper" or (self.kind == "scale" and isinstance(self.value, float) and self.value < 1)


def parse_change(text: str) -> Change | None:
    """Parse a `Remedy.change`; None if it is advice in words.

    Example:
        >>> parse_change("upper <= x 0.5")
        Change(kind='upper', value=0.5, is_relative=True)
        >>> parse_change("correct these labels")
    """
    if match := _SCALE.fullmatch(text):
        return Change("scale", float(match[1]), is_relative=True)
    if match := _BOUND.fullmatch(text):
        return Change("upper" if match[1].startswith("upper") else "lower", float(match[3]), is_relative=bool(match[2]))
    match = _SET.fullmatch(text)
    return Change("set", _value(match[1])) if match else None


def told(remedy: Remedy) -> str:
    """A remedy in words, without its reason.

    Example:
        >>> told(Remedy("learning_rate", "x 0.3", "")), told(Remedy("dropout", "lower >= 0.2", ""))
        ('learning_rate x 0.3', 'dropout at least 0.2 in later trials')
    """
    change = parse_change(remedy.change)
    if change is None:
        return remedy.change if remedy.parameter in ("data", "model") else f"{remedy.parameter}: {remedy.change}"
    if change.kind in ("scale", "set"):
        return f"{remedy.parameter} {remedy.change}"
    limit = remedy.change.removeprefix("upper <= ").removeprefix("lower >= ")
    return f"{remedy.parameter} at {'most' if change.kind == 'upper' else 'least'} {limit} in later trials"


def _value(text: str) -> HyperparameterValue:
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(_NUMBER, text) else text


def change_configuration(
    current: Mapping[str, HyperparameterValue], remedies: Iterable[Remedy]
) -> dict[str, HyperparameterValue]:
    """Apply `x FACTOR` and `= VALUE` to the parameters that a configuration has; everything else stays.

    Whole numbers stay whole, and at least 1.

    Args:
        current: Values by name.
        remedies: In the order in which they apply.

    Example:
        >>> change_configuration({"learning_rate": 0.1}, [Remedy("learning_rate", "x 0.3", "")])
        {'learning_rate': 0.03}
    """
    changed = dict(current)
    for remedy in remedies:
        change = parse_change(remedy.change)
        if change is None or remedy.parameter not in changed:
            continue
        if change.kind == "set":
            changed[remedy.parameter] = change.value
        elif change.kind == "scale" and (value := _number(changed[remedy.parameter])) is not None:
            scaled = value * float(change.value or 0.0)
            is_whole = isinstance(changed[remedy.parameter], int)
            changed[remedy.parameter] = max(1, round(scaled)) if is_whole else scaled
    return changed


def apply_remedies(
    ranges: Mapping[str, tuple[float, float]],
    current: Mapping[str, HyperparameterValue],
    remedies: Iterable[Remedy],
) -> dict[str, tuple[float, float]]:
    """Narrow the numeric ranges of a search by the bounds that remedies give.

    A range never widens, and a bound that would leave nothing of it is not applied.

    Args:
        ranges: Name to (low, high).
        current: The configuration that the remedies are for.
        remedies: Any; only `upper <=` and `lower >=` of a parameter in `ranges` count.

    Raises:
        ValueError: A range is empty or not finite.

    Example:
        >>> apply_remedies(
        ...     {"learning_rate": (1e-4, 0.1)}, {"learning_rate": 0.08}, [Remedy("learning_rate", "upper <= x 0.5", "")]
        ... )
        {'learning_rate': (0.0001, 0.04)}
    """
    bad = [name for name, (low, high) in ranges.items() if not -math.inf < low <= high < math.inf]
    if bad:
        told = ", ".join(f"{name}={ranges[name]}" for name in bad)
        raise ValueError(f"Ranges must be (low, high), finite and low <= high: {told}. Correct them.")
    narrowed = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
    for remedy in remedies:
        change = parse_change(remedy.change)
        if change is None or change.kind not in ("upper", "lower") or remedy.parameter not in narrowed:
            continue
        bound = _bound(change, current.get(remedy.parameter))
        low, high = narrowed[remedy.parameter]
        if bound is not None and low <= bound <= high:
            narrowed[remedy.parameter] = (low, bound) if change.kind == "upper" else (bound, high)
    return narrowed


def _bound(change: Change, current: HyperparameterValue) -> float | None:
    value = float(change.value or 0.0)
    if not change.is_relative:
        return value
    present = _number(current)
    return None if present is None else present * value


def _number(value: HyperparameterValue) -> float | None:
    """The value as a number; None for words, booleans, and what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
