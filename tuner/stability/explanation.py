"""Why trials of a search were unstable and what to change, in words, from the causes in their records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from tuner.records import Finding, HyperparameterValue, TrialRecord
from tuner.stability.detectors import ALARM_SEVERITY
from tuner.stability.remedies import change_configuration, parse_change, told

__all__ = ["PROBABLE_CONFIDENCE", "advice", "alarms", "explained", "frequent_causes", "top_cause", "words"]

# From here on a cause is told as probable. Source: convention; more likely than not.
PROBABLE_CONFIDENCE = 0.5


def words(finding: Finding) -> str:
    """The name of a symptom or cause: `learning rate too high`."""
    return finding.code.replace("_", " ")


def top_cause(trial: TrialRecord) -> Finding | None:
    """The most likely cause of a fault in the training that the search chose by; None if there was no fault."""
    causes = trial.search_run.causes if trial.search_run else ()
    return causes[0] if causes and causes[0].severity > ALARM_SEVERITY else None


def alarms(trial: TrialRecord) -> list[Finding]:
    """The faults in the training that the search chose by, worst first."""
    findings = trial.search_run.findings if trial.search_run else ()
    return [finding for finding in findings if finding.severity > ALARM_SEVERITY]


def advice(cause: Finding, hyperparameters: Mapping[str, HyperparameterValue]) -> str:
    """What to change in a configuration against a cause: its first remedy that is not for the ranges of a search.

    Args:
        cause: With its remedies.
        hyperparameters: The configuration.

    Example:
        >>> from tuner.records import Remedy
        >>> cause = Finding("too_high", "", 0.9, 0.9, {}, "", (), (Remedy("learning_rate", "x 0.3", ""),))
        >>> advice(cause, {"learning_rate": 0.1})
        'learning_rate 0.03 instead of 0.1'
    """
    for remedy in cause.remedies:
        change = parse_change(remedy.change)
        if (
            change is None
            or change.kind == "set"
            or (change.kind == "scale" and remedy.parameter not in hyperparameters)
        ):
            return told(remedy)
        if change.kind == "scale":
            old, new = hyperparameters[remedy.parameter], change_configuration(hyperparameters, [remedy])
            return f"{remedy.parameter} {_shown(new[remedy.parameter])} instead of {_shown(old)}"
    return ""


def explained(trial: TrialRecord) -> str:
    """Probable cause and first remedy of a trial in a few words; empty if there was no fault, or none is known."""
    cause = top_cause(trial)
    if cause is None:
        return ""
    change = advice(cause, trial.hyperparameters)
    return f"{_likelihood(cause.confidence)} {words(cause)}" + (f"; try {change}" if change else "")


def frequent_causes(trials: Iterable[TrialRecord]) -> list[tuple[str, str, list[int]]]:
    """Top causes, the most frequent first: how likely, the cause in words, and the numbers of its trials."""
    found: dict[str, dict[int, float]] = {}
    for trial in sorted(trials, key=lambda each: each.number):
        cause = top_cause(trial)
        if cause is not None:
            found.setdefault(words(cause), {})[trial.number] = cause.confidence
    listed = [(_likelihood(statistics.fmean(each.values())), cause, list(each)) for cause, each in found.items()]
    return sorted(listed, key=lambda item: -len(item[2]))


def _likelihood(confidence: float) -> str:
    return "probably" if confidence >= PROBABLE_CONFIDENCE else "perhaps"


def _shown(value: HyperparameterValue) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
