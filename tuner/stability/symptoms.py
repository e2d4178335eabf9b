"""How a detector answers: findings, or why it could not judge."""

from __future__ import annotations

from tuner.records import Finding
from tuner.stability.signals import Signals

__all__ = ["NotAssessed", "graded", "require_channel", "symptom"]

# At most this many examples with a finding. Source: convention; more are counted in its evidence.
MAX_EXAMPLES = 5


class NotAssessed(Exception):
    """What this detector needs was not recorded; the message says what."""


def graded(value: float, *, start: float, end: float, low: float, high: float) -> float:
    """Severity `low` at value `start`, rising linearly to `high` at `end`."""
    share = (value - start) / (end - start)
    return float(low + (high - low) * min(1.0, max(0.0, share)))


def symptom(
    code: str,
    cause: str,
    *,
    severity: float,
    confidence: float,
    evidence: dict[str, float],
    where: str = "",
    examples: tuple[str, ...] = (),
) -> Finding:
    """A finding of a detector; it has no remedies, since those belong to causes (`tuner.stability.diagnosis`)."""
    return Finding(
        code=code,
        where=where,
        severity=round(severity, 3),
        confidence=round(confidence, 3),
        evidence={name: float(value) for name, value in evidence.items()},
        cause=cause,
        examples=examples[:MAX_EXAMPLES],
    )


def require_channel(signals: Signals, *names: str) -> dict[str, list[float]]:
    """The finite values of those probe channels that were recorded.

    Raises:
        NotAssessed: None of them was.
    """
    found = {name: values.tolist() for name in names if (values := signals.channel(name)) is not None}
    if not found:
        raise NotAssessed(f"no {' or '.join(names)} recorded")
    return found
