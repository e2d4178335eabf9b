"""The diagnosis of one training, whatever it left behind: for scripts, and what reports are made of."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import DataError
from tuner.records import Finding, HyperparameterValue, Outcome, StabilityScore, Trace
from tuner.stability import diagnosis, logs
from tuner.stability.detectors import detect
from tuner.stability.history import ForeignLog, foreign_logs
from tuner.stability.jsonlog import parse_history
from tuner.stability.remedies import told
from tuner.stability.score import outcome_of, score

__all__ = ["Diagnosis", "diagnose", "diagnose_log"]


@dataclass(frozen=True)
class Diagnosis:
    """One training with what was found.

    Attributes:
        symptoms: What happened, worst first.
        causes: Why it probably happened, most likely first; with remedies.
        not_assessed: What could not be judged, with the reason.
    """

    log: ForeignLog
    score: StabilityScore
    outcome: Outcome
    symptoms: tuple[Finding, ...]
    causes: tuple[Finding, ...]
    not_assessed: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Symptoms, then causes."""
        return self.symptoms + self.causes

    def __str__(self) -> str:
        """What happened, why, and what to do, in lines of plain text."""
        number = self.log.trace.num_epochs
        epochs = f"{number} epoch{'' if number == 1 else 's'}"
        lines = [f"{self.log.name}: {epochs}, stability {self.score.stability:.2f}."]
        if not self.symptoms:
            lines.append("Nothing wrong was found in what could be assessed.")
        for finding in self.symptoms:
            place = f" ({finding.where})" if finding.where else ""
            lines.append(f"- {finding.code.replace('_', ' ')}{place}: {finding.cause}")
        for finding in self.causes:
            lines.append(f"Probable cause ({finding.confidence:.0%}): {finding.cause}")
            lines += [f"    {told(remedy)}. {remedy.reason}" for remedy in finding.remedies]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.log.notes)])


def diagnose(
    training: Any,
    *,
    hyperparameters: Mapping[str, HyperparameterValue] | None = None,
    data_findings: Sequence[Finding] = (),
    model_findings: Sequence[Finding] = (),
) -> Diagnosis:
    """Say what went wrong in a training, why, and what to change.

    Args:
        training: A `Trace`, anything that has one (a `StabilityMonitor`), what `fit` returned, its `history`, or the
            path of a log or a run. A log of several trainings: the worst of them.
        hyperparameters: Of the training, by name, as evidence; unknown names are ignored.
        data_findings: Of the data audit, as evidence.
        model_findings: Of `check_model`, as evidence.

    Raises:
        DataError: It cannot be read, or holds no losses.

    Example:
        >>> falling = [2.0 * 0.8**epoch for epoch in range(24)]
        >>> rising = [2.1 * 0.8 ** min(epoch, 6) * 1.05 ** max(0, epoch - 6) for epoch in range(24)]
        >>> found = diagnose({"loss": falling, "val_loss": rising})
        >>> found.symptoms[0].code, found.causes[0].remedies[0].parameter
        ('over_fitting', 'epochs')
    """
    given = (hyperparameters, tuple(data_findings), tuple(model_findings))
    found = [diagnose_log(log, *given) for log in _logs(training)]
    return min(found, key=lambda one: (-max((item.severity for item in one.symptoms), default=0), one.score.stability))


def diagnose_log(
    log: ForeignLog,
    hyperparameters: Mapping[str, HyperparameterValue] | None = None,
    data_findings: Sequence[Finding] = (),
    model_findings: Sequence[Finding] = (),
) -> Diagnosis:
    """Score a training, find its symptoms and name their causes; arguments as for `diagnose`.

    What a search recorded of a training of its own stands, unless other evidence is given: the search knew more.
    """
    detection = detect(log.trace)
    is_recorded = bool(log.findings) and not (hyperparameters or data_findings or model_findings)
    causes = (
        log.causes
        if is_recorded
        else diagnosis.diagnose(
            detection.findings,
            trace=log.trace,
            hyperparameters=hyperparameters,
            data_findings=data_findings,
            model_findings=model_findings,
        )
    )
    symptoms = log.findings if is_recorded else detection.findings
    if not log.trace.step_loss.size:
        symptoms = tuple(_by_epoch(finding) for finding in symptoms)
    result = score(log.trace)
    return Diagnosis(
        log=log,
        score=result,
        outcome=outcome_of(log.trace),
        symptoms=symptoms,
        causes=causes,
        not_assessed=tuple(dict.fromkeys((*result.not_assessed, *detection.not_assessed))),
    )


def _by_epoch(finding: Finding) -> Finding:
    """The finding of a log of epochs, in which no place is a step."""
    where, cause = (re.sub(r", step 1\b", "", text) for text in (finding.where, finding.cause))
    return dataclasses.replace(finding, where=where, cause=re.sub(r"\bstep(s?)\b", r"epoch\1", cause))


def _logs(training: Any) -> tuple[ForeignLog, ...]:
    if isinstance(training, str | PathLike):
        return logs.read(Path(training))
    trace = getattr(training, "trace", training)
    if isinstance(trace, Trace):
        return (ForeignLog("this training", trace, metrics=tuple(trace.metrics)),)
    history = getattr(training, "history", training)
    if not isinstance(history, Mapping):
        raise DataError(
            f"{type(training).__name__} is no training. Expected a Trace, a StabilityMonitor, what fit returned, a "
            "mapping of names to lists, or the path of a log."
        )
    planned = (getattr(training, "params", None) or {}).get("epochs")
    columns = {str(name): _as_list(values) for name, values in history.items()}
    found = {"history": columns, "epoch": list(getattr(training, "epoch", ())), "params": {"epochs": planned}}
    return foreign_logs(parse_history(found, "this training"))


def _as_list(values: Any) -> Any:
    """Numbers of any kind as a list of floats; anything else as it is."""
    try:
        return np.asarray(values, dtype=float).tolist()
    except (TypeError, ValueError):
        return values
