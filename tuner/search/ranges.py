"""What the user sets for single hyperparameters: `--range` and `--fix`, applied to any Keras Tuner space.

    range  LOW:HIGH    Float, Int: new bounds, outside the old ones too. Choice of numbers: the listed values between.
           A,B,C       Float, Int: a choice of these. Choice: these of the listed values.
           VALUE       as fix
    fix    VALUE       Float, Int, choice of numbers: any value of that type. Words and booleans: one of the listed.

A hyperparameter that others depend on (`num_blocks`, `use_l2`) takes only values that its space knows, since the model
is written for those. Fixing a hyperparameter that exists only under a condition (`l2`) narrows its parents to the
values that bring it to life (`use_l2` becomes true); a range leaves the parents free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keras_tuner.engine import hyperparameters as kinds

from tuner.errors import ConfigError, did_you_mean

__all__ = ["apply_ranges", "baseline_space", "is_possible", "value_text"]

Value = bool | int | float | str

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


class _MistakeError(Exception):
    """One setting that cannot be applied; the message is complete."""


def apply_ranges(space: Any, *, ranges: Mapping[str, str], fixed: Mapping[str, str], option: str = "fix") -> Any:
    """Return a copy of a space in which the user's ranges and fixed values hold, and every default lies inside.

    Conditions and names stay as they are, so that a `build(hp)` meets the changed hyperparameters wherever it asks.

    Args:
        space: A `keras_tuner.HyperParameters`; it is not changed.
        ranges: Name to `LOW:HIGH`, `A,B,C` or `VALUE`.
        fixed: Name to `VALUE`.
        option: Which option fixes them, for the messages.

    Returns:
        A `keras_tuner.HyperParameters` whose values are the defaults.

    Raises:
        ConfigError: Unknown names, values that do not fit, settings that exclude each other; all are named at once.
    """
    mistakes = _misnamed(space, ranges=ranges, fixed=fixed, option=option)
    parents = {condition.name for hp in space.space for condition in hp.conditions}
    changed, fixed_names = [], list(fixed)
    for hp in space.space:
        try:
            changed.append(_changed(hp, ranges=ranges, fixed=fixed, is_parent=hp.name in parents, option=option))
        except _MistakeError as mistake:
            mistakes.append(str(mistake))
            changed.append(hp)
        if hp.name in ranges and isinstance(changed[-1], kinds.Fixed):
            fixed_names.append(hp.name)
    if not mistakes:
        for name in fixed_names:
            mistakes += _narrow_parents(changed, name)
    if mistakes:
        lines = "\n".join(f"  {mistake}" for mistake in dict.fromkeys(mistakes))
        raise ConfigError(f"Invalid settings of hyperparameters:\n{lines}")
    result = kinds.HyperParameters()
    result.merge(changed)
    return result


def baseline_space(space: Any, baseline: Mapping[str, str]) -> Any:
    """The space with nothing left but the user's own configuration, as its defaults.

    Args:
        space: With the user's ranges in it.
        baseline: Name to `VALUE`; what is not named keeps its default.

    Raises:
        ConfigError: Unknown names, or values that the search would not try; all are named at once.
    """
    fixed = apply_ranges(space, ranges={}, fixed=baseline, option="baseline")
    mistakes = [
        f"  --baseline {old.name}={baseline[old.name]}: the search covers {_values_text(old)}. Widen it with --range, "
        "or leave it out."
        for old, new in zip(space.space, fixed.space, strict=True)
        if old.name in baseline and not is_possible(old, new.value)
    ]
    if mistakes:
        raise ConfigError("Invalid settings of hyperparameters:\n" + "\n".join(mistakes))
    return fixed


def is_possible(hp: Any, value: object) -> bool:
    """Whether a hyperparameter can take a value.

    Args:
        hp: A `keras_tuner` hyperparameter of any type.
        value: A value of its type.
    """
    if isinstance(hp, kinds.Int) and hp.sampling == "linear":
        return (
            isinstance(value, int) and hp.min_value <= value <= hp.max_value and (value - hp.min_value) % hp.step == 0
        )
    if isinstance(hp, kinds.Float | kinds.Int):
        return isinstance(value, int | float) and bool(hp.min_value <= value <= hp.max_value)
    return value in hp.values


def value_text(value: object) -> str:
    """A value as it is written in `--fix` and in tables: `true`, `0.001`, `1e-05`, `adam`."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _misnamed(space: Any, *, ranges: Mapping[str, str], fixed: Mapping[str, str], option: str) -> list[str]:
    known = list(dict.fromkeys(hp.name for hp in space.space))
    mistakes = [
        f"--{word} {name}={text}: this space has no hyperparameter {name!r}.{did_you_mean(name, known)} "
        f"Known: {', '.join(known)}."
        for word, settings in (("range", ranges), (option, fixed))
        for name, text in settings.items()
        if name not in known
    ]
    twice = [name for name in ranges if name in fixed]
    return mistakes + [
        f"{name} has a range ({ranges[name]}) and is fixed (to {fixed[name]}). Keep one of the two." for name in twice
    ]


def _changed(hp: Any, *, ranges: Mapping[str, str], fixed: Mapping[str, str], is_parent: bool, option: str) -> Any:
    """The hyperparameter as the user wants it; itself, if nothing was said about it."""
    if hp.name in fixed:
        return _fixed(hp, fixed[hp.name], option=option, is_parent=is_parent)
    if hp.name not in ranges:
        return hp
    text = ranges[hp.name].strip()
    is_listed = isinstance(hp, kinds.Choice | kinds.Boolean) and text in [value_text(value) for value in hp.values]
    if is_listed or not ("," in text or ":" in text):
        return _fixed(hp, text, option="range", is_parent=is_parent)
    if isinstance(hp, kinds.Fixed):
        raise _MistakeError(
            f"--range {hp.name}={text}: the space itself fixes it to {value_text(hp.value)}. "
            f"It can only be fixed to another value: --fix {hp.name}=VALUE."
        )
    if "," in text:
        return _chosen(hp, text, is_parent=is_parent)
    return _bounded(hp, text, is_parent=is_parent)


def _fixed(hp: Any, text: str, *, option: str, is_parent: bool) -> Any:
    value = _parsed(hp, text, setting=f"--{option} {hp.name}={text}")
    must_be_known = is_parent or isinstance(value, bool | str)
    if must_be_known and not isinstance(hp, kinds.Fixed):
        _require_known(hp, [value], setting=f"--{option} {hp.name}={text}", is_parent=is_parent)
    if is_parent and isinstance(hp, kinds.Fixed) and value != hp.value:
        raise _MistakeError(
            f"--{option} {hp.name}={text}: the space itself fixes it to {value_text(hp.value)}, and others "
            "depend on it. Leave it out."
        )
    _require_positive(hp, [value], setting=f"--{option} {hp.name}={text}", is_zero_allowed=True)
    return kinds.Fixed(hp.name, value, conditions=hp.conditions)


def _chosen(hp: Any, text: str, *, is_parent: bool) -> Any:
    setting = f"--range {hp.name}={text}"
    parts = [part for part in text.split(",") if part.strip()]
    if not parts:
        raise _MistakeError(f"{setting}: no values. Write A,B,C or LOW:HIGH.")
    values = list(dict.fromkeys(_parsed(hp, part, setting=setting) for part in parts))
    if is_parent or isinstance(hp, kinds.Choice | kinds.Boolean):
        _require_known(hp, values, setting=setting, is_parent=is_parent)
    _require_positive(hp, values, setting=setting, is_zero_allowed=True)
    return _limited(hp, values)


def _bounded(hp: Any, text: str, *, is_parent: bool) -> Any:
    setting = f"--range {hp.name}={text}"
    parts = text.split(":")
    is_word = _value_type(hp) in (bool, str)
    if is_word or len(parts) != 2:
        expected = f"A,B,C of {_values_text(hp)}" if is_word else "LOW:HIGH, or A,B,C"
        raise _MistakeError(f"{setting}: expected {expected}.")
    low, high = (_parsed(hp, part, setting=setting) for part in parts)
    if low >= high:
        raise _MistakeError(
            f"{setting}: LOW must be less than HIGH. To have one value, write --fix {hp.name}={parts[0].strip()}."
        )
    if isinstance(hp, kinds.Choice):
        between = [value for value in hp.values if low <= value <= high]
        if not between:
            raise _MistakeError(f"{setting}: none of its values lies there. Expected some of {_values_text(hp)}.")
        return _limited(hp, between)
    if is_parent:
        _require_known(hp, [low, high], setting=setting, is_parent=True)
    _require_positive(hp, [low], setting=setting, is_zero_allowed=False)
    return _with_bounds(hp, low, high)


def _with_bounds(hp: Any, low: float, high: float) -> Any:
    """The same Float or Int between other bounds, its default moved to the nearest value there."""
    config = hp.get_config() | {"min_value": low, "max_value": high, "default": None}
    candidate = type(hp).from_config(config)
    has_steps = candidate.step is not None and not (isinstance(hp, kinds.Int) and candidate.step == 1)
    nearest = _nearest(hp.default, candidate.values) if has_steps else min(max(hp.default, low), high)
    return type(hp).from_config(candidate.get_config() | {"default": nearest})


def _limited(hp: Any, values: Sequence[Any]) -> Any:
    """The hyperparameter with a list of values: fixed if it is one, an Int where they are neighbours, else a choice."""
    if len(values) == 1:
        return kinds.Fixed(hp.name, values[0], conditions=hp.conditions)
    if isinstance(hp, kinds.Boolean):
        return hp
    if isinstance(hp, kinds.Int) and sorted(values) == list(range(min(values), max(values) + 1)):
        config = hp.get_config() | {"step": None}
        return _with_bounds(kinds.Int.from_config(config), min(values), max(values))
    is_ordered = hp.ordered if isinstance(hp, kinds.Choice) else True
    listed = list(values) if isinstance(hp, kinds.Choice) else sorted(values)
    default = _nearest(hp.default, listed)
    return kinds.Choice(hp.name, listed, ordered=is_ordered, default=default, conditions=hp.conditions)


def _nearest(value: Any, values: Iterable[Any]) -> Any:
    """The value itself where it is listed, else the nearest number, or the first word."""
    listed = list(values)
    if value in listed or isinstance(value, str):
        return value if value in listed else listed[0]
    return min(listed, key=lambda other: abs(other - value))


def _narrow_parents(changed: list[Any], name: str) -> list[str]:
    """Narrow, in place, what `name` depends on to the values under which it exists; its conditions name every ancestor.

    Where the same name is declared under several conditions, a parent is narrowed only if all of them name it.
    """
    variants = [hp for hp in changed if hp.name == name]
    mistakes = []
    for parent_name in dict.fromkeys(condition.name for condition in variants[0].conditions):
        needed = [_needed_values(hp, parent_name) for hp in variants]
        if not all(needed):
            continue
        allowed = [value for values in needed for value in values]
        mistakes += _narrow(changed, parent_name, allowed=allowed, child=name)
    return mistakes


def _needed_values(hp: Any, parent_name: str) -> list[Any]:
    return [value for condition in hp.conditions if condition.name == parent_name for value in condition.values]


def _narrow(changed: list[Any], name: str, *, allowed: Sequence[Any], child: str) -> list[str]:
    places = [index for index, hp in enumerate(changed) if hp.name == name]
    possible = {
        index: [value for value in dict.fromkeys(allowed) if is_possible(changed[index], value)] for index in places
    }
    if not any(possible.values()):
        needed = " or ".join(dict.fromkeys(map(value_text, allowed)))
        return [
            f"{child} is fixed and exists only with {name}={needed}, but {name} is set to "
            f"{_values_text(changed[places[0]])}. Drop one of the two settings."
        ]
    for index, values in possible.items():
        if values:
            changed[index] = _limited(changed[index], _in_order(changed[index], values))
    return []


def _in_order(hp: Any, values: Sequence[Any]) -> list[Any]:
    """A choice keeps the order in which its space lists it."""
    return [value for value in hp.values if value in values] if isinstance(hp, kinds.Choice) else list(values)


def _value_type(hp: Any) -> type:
    if isinstance(hp, kinds.Float):
        return float
    if isinstance(hp, kinds.Int):
        return int
    if isinstance(hp, kinds.Boolean):
        return bool
    return type(next(iter(hp.values)))


def _parsed(hp: Any, text: str, *, setting: str) -> Any:
    """The text as a value of the hyperparameter's type."""
    kind = _value_type(hp)
    parsers: dict[type, Callable[[str], Value | None]] = {bool: _boolean, int: _whole, float: _finite, str: str}
    value = parsers[kind](text.strip())
    if value is None:
        raise _MistakeError(f"{setting}: {text.strip()!r} is not {_TYPE_NAMES[kind]}. Expected {_values_text(hp)}.")
    return value


def _boolean(text: str) -> bool | None:
    return _BOOLEANS.get(text.lower())


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(text: str) -> int | None:
    value = _finite(text)
    return int(value) if value is not None and value.is_integer() else None


def _require_known(hp: Any, values: Sequence[Value], *, setting: str, is_parent: bool) -> None:
    wrong = [value for value in values if not is_possible(hp, value)]
    if wrong:
        why = " (others depend on it)" if is_parent and not isinstance(hp, kinds.Choice | kinds.Boolean) else ""
        listed = map(value_text, hp.values) if isinstance(hp, kinds.Choice) else []
        raise _MistakeError(
            f"{setting}: {value_text(wrong[0])} is not possible here{why}. Expected {_values_text(hp)}."
            f"{did_you_mean(value_text(wrong[0]), listed)}"
        )


def _require_positive(hp: Any, values: Sequence[Value], *, setting: str, is_zero_allowed: bool) -> None:
    """A logarithmic scale has no zero; a single value of zero is exact and allowed (no L2 at all)."""
    if getattr(hp, "sampling", "linear") == "linear":
        return
    if any(not isinstance(value, str) and (value < 0 or (value == 0 and not is_zero_allowed)) for value in values):
        expected = "0 or more" if is_zero_allowed else "LOW above 0"
        raise _MistakeError(f"{setting}: {hp.name} has a logarithmic scale. Expected {expected}.")


def _values_text(hp: Any) -> str:
    """What the hyperparameter can take now, in words."""
    if isinstance(hp, kinds.Fixed):
        return value_text(hp.value)
    if isinstance(hp, kinds.Choice | kinds.Boolean):
        return ", ".join(map(value_text, hp.values))
    steps = f" in steps of {value_text(hp.step)}" if hp.step not in (None, 1) else ""
    return f"{value_text(hp.min_value)} to {value_text(hp.max_value)}{steps}"
