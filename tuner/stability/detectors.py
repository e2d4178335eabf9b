"""Detectors: what is wrong with a training, as findings; and the one verdict for everyone who must decide.

`detect` looks back on a training, or on what there is of it. `verdict` is asked after every epoch and says stop only
when the outcome is certain. Causes and remedies are the business of `tuner.stability.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuner.records import Finding, Trace
from tuner.stability import probes, spikes, trends, waves
from tuner.stability.score import first_failure
from tuner.stability.signals import Signals, read_signals
from tuner.stability.symptoms import NotAssessed

__all__ = ["ALARM_SEVERITY", "DETECTORS", "Detection", "Verdict", "detect", "verdict"]

# Findings above this severity are faults; others are good to know. Source: the scale of the data audit.
ALARM_SEVERITY = 0.3
# An unrecovered divergence is certain when it has lasted this long, in epochs. Source: convention; the design's "half
# an epoch" is where it is reported.
CERTAIN_DIVERGENCE_EPOCHS = 1.0

# A loss this many times above chance counts as lost, unless it is still falling from there. Source: the score.
EXPLODED_FACTOR = 1e6

DETECTORS: tuple[Callable[[Signals], tuple[Finding, ...]], ...] = (
    spikes.outlier_batch,
    spikes.loss_spike,
    spikes.gradient_spike,
    spikes.divergence,
    trends.not_learning,
    trends.too_slow,
    waves.oscillation,
    waves.same_order,
    trends.validation_spike,
    trends.over_fitting,
    trends.validation_never_learns,
    trends.huge_first_loss,
    trends.plateau,
    trends.noisy_batches,
    probes.step_too_large,
    probes.step_too_small,
    probes.vanishing_gradient,
    probes.exploding_gradient,
    probes.dead_units,
    probes.class_ignored,
    probes.unscaled_input,
    probes.regularisation_dominates,
)


@dataclass(frozen=True)
class Detection:
    """What the detectors say of one trace.

    Attributes:
        findings: Worst first.
        not_assessed: Detectors (and curves) that could not be judged, each with its reason.
    """

    findings: tuple[Finding, ...]
    not_assessed: tuple[str, ...]

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings that are faults, not just good to know."""
        return tuple(finding for finding in self.findings if finding.severity > ALARM_SEVERITY)


@dataclass(frozen=True)
class Verdict:
    """Whether to go on with a training, after an epoch.

    Attributes:
        should_stop: Only when the outcome is certain.
        code: `divergence`, `not_learning` or `over_fitting`, as in the findings; `go_on` otherwise.
        reason: One sentence for the user.
    """

    should_stop: bool
    code: str
    reason: str


def detect(trace: Trace) -> Detection:
    """Run all detectors on a trace.

    Args:
        trace: Of a training that ended, or of its epochs so far.

    Raises:
        ValueError: An array has more than one dimension, or a count is negative.
    """
    signals = read_signals(trace)
    findings: list[Finding] = []
    not_assessed = list(signals.not_assessed)
    for detector in DETECTORS:
        try:
            findings += detector(signals)
        except NotAssessed as reason:
            not_assessed.append(f"{detector.__name__} ({reason})")
    ordered = sorted(findings, key=lambda finding: (-finding.severity, -finding.confidence))
    return Detection(tuple(ordered), tuple(not_assessed))


def verdict(trace: Trace) -> Verdict:
    """Say after an epoch whether the outcome of a training is certain.

    Args:
        trace: Of the epochs so far.

    Raises:
        ValueError: An array has more than one dimension, or a count is negative.
    """
    signals = read_signals(trace)
    for judge in (_failure, _divergence, _no_learning, _over_fitting):
        try:
            found = judge(signals)
        except NotAssessed:
            continue
        if found is not None:
            return found
    return Verdict(False, "go_on", "Nothing is certain yet." if signals.num_epochs else "Nothing to judge yet.")


def _failure(signals: Signals) -> Verdict | None:
    step = first_failure(signals.trace)
    if step is None:
        return None
    losses = signals.trace.train_loss
    # A loss beyond all measure that is still falling from where it began may come down.
    if len(losses) and signals.chance_loss * EXPLODED_FACTOR < losses[-1] <= losses[0] < float("inf"):
        return None
    return Verdict(
        True, "divergence", f"The loss or its gradient became infinite or no number at {signals.place(step)}."
    )


def _divergence(signals: Signals) -> Verdict | None:
    found = spikes.find_divergence(signals)
    if found is None or found.is_recovered or found.is_falling:
        return None
    if found.num_steps < CERTAIN_DIVERGENCE_EPOCHS * signals.steps_per_epoch:
        return None
    return Verdict(True, "divergence", f"The loss left its best at {signals.place(found.step)} and did not come back.")


def _no_learning(signals: Signals) -> Verdict | None:
    best = trends.find_no_learning(signals)
    if best is None:
        return None
    return Verdict(
        True,
        "not_learning",
        f"After {signals.num_epochs} of {signals.planned_epochs} epochs the loss still stands at {best:.2f} of chance.",
    )


def _over_fitting(signals: Signals) -> Verdict | None:
    found = trends.find_over_fitting(signals)
    if found is None or not found.is_train_falling or found.rise_frac < trends.OVER_FITTING_LEVEL_FRAC:
        return None
    return Verdict(
        True,
        "over_fitting",
        f"The validation loss was lowest in epoch {found.best_epoch + 1} and, smoothed, has been above its best for "
        f"{found.num_epochs} epochs while the training loss fell.",
    )
