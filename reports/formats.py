"""Numbers, times and commands as text: three significant digits, times as 1 m 20 s."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

__all__ = ["MISSING", "command", "compact", "count", "duration", "evidence", "fixed", "number", "percent"]

MISSING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"

# Outside these limits a number is written with an exponent. Source: convention.
_PLAIN_FROM = 1e-4
_PLAIN_BELOW = 1e6
# Logarithms from here on are of factors beyond all measure.
_EXPONENT_LIMIT = 700.0


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits; a dash for None, words for what is not finite.

    Example:
        >>> number(0.97123), number(12345.6), number(0.0000123)
        ('0.971', '12,346', '1.23e-5')
    """
    if value is None:
        return MISSING
    if math.isnan(value):
        return "NaN"
    sign = _MINUS if value < 0 else ""
    size = abs(value)
    if math.isinf(size):
        return f"{sign}infinite"
    if size == 0:
        return "0"
    if not _PLAIN_FROM <= size < _PLAIN_BELOW:
        mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
        power = int(exponent)
        return f"{sign}{mantissa}e{_MINUS if power < 0 else ''}{abs(power)}".replace(_MINUS, "-")
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{sign}{size:,.{decimals}f}"


def fixed(value: float | None, decimals: int = 2) -> str:
    """A number with so many decimals, for columns that are compared from row to row."""
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{value:z.{decimals}f}".replace("-", _MINUS)


def compact(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, without the zeros at its end."""
    text = number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def count(value: int | None) -> str:
    """A whole number with thousands separated."""
    return MISSING if value is None else f"{value:,}"


def percent(share: float) -> str:
    """A share as whole per cent, with one digit more below ten."""
    return f"{100 * share:.1f} %" if abs(share) < 0.0995 else f"{100 * share:.0f} %"


def evidence(name: str, value: float) -> str:
    """A piece of evidence of a finding, with its name, as a reader takes it in.

    Example:
        >>> evidence("rise_frac", 0.25), evidence("gap_nats", 0.02), evidence("num_epochs", 4), evidence("is_finite", 0)
        ('rise 25 %', 'gap 2.0 %', 'epochs 4', 'not finite')
    """
    words = name.replace("_", " ")
    if words.startswith("is "):
        return words.removeprefix("is ") if value else f"not {words.removeprefix('is ')}"
    if words.endswith(" frac") and math.isfinite(value):
        return f"{words.removesuffix(' frac')} {percent(value)}".replace("-", _MINUS)
    # A difference of logarithms is a change by so many per cent, up to one that is better told as a factor.
    if words.endswith(" nats") and abs(value) < 1:
        return f"{words.removesuffix(' nats')} {percent(math.expm1(value))}".replace("-", _MINUS)
    if words.endswith(" nats"):
        return f"{words.removesuffix(' nats')} x {compact(math.exp(value))}" if value < _EXPONENT_LIMIT else words
    return f"{words.removeprefix('num ')} {compact(value)}"


def duration(seconds: float | None) -> str:
    """A time that a person reads at a glance.

    Example:
        >>> duration(8.25), duration(80), duration(7500)
        ('8.2 s', '1 m 20 s', '2 h 05 m')
    """
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02d} m"


def command(words: Sequence[str], width: int = 96) -> str:
    """A shell command, quoted, broken after options into lines that paste as one."""
    lines: list[str] = []
    line = ""
    for group in _groups(words):
        if line and len(line) + 1 + len(group) > width:
            lines.append(line)
            line = "    " + group
        else:
            line = f"{line} {group}".strip() if not line.startswith("    ") else f"{line} {group}"
    return " \\\n".join([*lines, line])


def _groups(words: Sequence[str]) -> list[str]:
    """Quoted words, an option joined with its value, so that no line ends between them."""
    groups: list[str] = []
    for word in words:
        if groups and groups[-1].startswith("-") and " " not in groups[-1] and not word.startswith("--"):
            groups[-1] += f" {shlex.quote(word)}"
        else:
            groups.append(shlex.quote(word))
    return groups
