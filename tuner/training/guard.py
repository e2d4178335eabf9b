"""Prompt corrective action: what the guard does while a training runs, so that a spike does not end it.

* Updates that are not finite are never applied (`tuner.training.gate`).
* After a certain spike (`tuner.stability.alarm`) the model goes back to the last good checkpoint, in memory. Where the
  guard can deal the batches once more (`tuner.training.order`), it probes half the rate against skipping the batch and
  goes on with what cured (`tuner.training.replay`). In anyone else's `fit`, whose batches it does not see, it cuts the
  rate at the end of the epoch.
* After three such actions another spike ends the training, with its cause.

A healthy training has the same numbers with and without it. The trace keeps the losses of the first passage, so a spike
that was cured stays on the record.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tuner.grammar import counted, verb
from tuner.records import Finding, FloatArray, Remedy, Trace
from tuner.stability.alarm import MAX_RELATIVE_LOSS, ROLLBACK, Alarm, end_level, find_alarm, is_at_chance
from tuner.stability.detectors import Verdict
from tuner.training.gate import Checkpoint, UpdateGate, restore, snapshot
from tuner.training.hooks import harmless
from tuner.training.monitor import StabilityMonitor
from tuner.training.order import Deal
from tuner.training.replay import Attempt, Cause, Cure, Passage, Replay, find_cure, is_same_step

__all__ = ["SpikeGuard"]

# A training is ended at the spike after this many. Source: the design (at most three times).
MAX_ACTIONS = 3
# At the end of an epoch, without probes, the rate is cut to this share. Source: the design (x 0.3 to 0.5); three cuts
# make up for a rate 37 times too high.
CUT_FACTOR = 0.3
# Between epochs' ends the losses are looked at every so many steps. Source: the design ("every few hundred").
CHECK_STEPS = 256
# A probe over fewer steps says little, and no checkpoint is taken sooner after another. Source: convention; ten times
# what an alarm needs.
MIN_PROBE_STEPS = 50
# Checkpoints that are kept: a spike may be certain only after the next was taken. Source: convention.
MAX_CHECKPOINTS = 3
# The learning rate was raised by the user's schedule, and what was best before no longer counts. Source: convention;
# a warm restart is x 10 and more.
RESTART_RATE_FACTOR = 3.0
# Rows of a bad batch that are named. Source: convention.
MAX_TOLD_ROWS = 64

# After a rollback the loss stands at chance level: no rise of its own.
STILL_LOST = Alarm(0, 1.0)

logger = logging.getLogger(__name__)


class SpikeGuard(keras.callbacks.Callback):
    """Keras callback that rolls a training back when its loss spikes or diverges, and cuts the learning rate.

    Use it in any `fit` with an optimizer; schedules are scaled too, `optimizer.learning_rate` keeps showing the rate
    without the cut. After the training the optimizer is as it was, at its own rate. A `ModelCheckpoint` of whole models
    that is written *during* the training holds a variable of the guard among the optimizer's.

    Args:
        monitor: The `StabilityMonitor` of the same `fit`, if there is one; else it has its own.
        chance_loss: Loss of the best constant answer, rows weighing what they weigh in `fit`; None: the monitor's.

    Attributes:
        findings: What it did and why, oldest first.
        failure: Why it ended the training; empty if it did not.
        is_aside: Whether it met something that it cannot guard, and let the training go on alone.

    Example:
        >>> guard = SpikeGuard()
        >>> model.fit(x, y, callbacks=[guard])  # doctest: +SKIP
    """

    TASK = "guard"

    def __init__(self, monitor: StabilityMonitor | None = None, *, chance_loss: float | None = None) -> None:
        super().__init__()
        self._given_chance_loss = chance_loss
        self.findings: tuple[Finding, ...] = ()
        self.failure = ""
        self.is_aside = False
        self._monitor = monitor or StabilityMonitor()
        self._own = self._monitor if monitor is None else None
        self._gate: UpdateGate | None = None
        self._deal: Deal | None = None
        self._replay: Replay | None = None
        self._orders: dict[int, npt.NDArray[np.int64]] = {}
        self._checkpoints: list[tuple[int, Checkpoint]] = []
        self._events: list[tuple[int, str]] = []
        self._scales: list[float] = []
        self._bad_rows: set[int] = set()
        self._scale = 1.0
        self._num_actions = 0
        self._has_just_acted = False
        self._first_step = self._since = self._checked = 0
        self._rate = math.inf
        self._is_gap_explained = False

    def replay_from(self, deal: Deal) -> None:
        """Give it the batches of the coming `fit`, so that it can probe (see `reshuffle_every_epoch`)."""
        self._deal = deal

    def trace_of(self, trace: Trace) -> Trace:
        """A trace of the monitor with what the guard did: events, scaled rates, and losses that the gate took.

        A loss that was not finite, and did no harm, counts as the worst loss there is: 1e12 times chance.
        """
        scales = np.ones(trace.num_epochs)
        scales[: len(self._scales)] = self._scales[: trace.num_epochs]
        events = tuple(sorted({*trace.events, *self._events}))
        trace = replace(trace, events=events, learning_rate=trace.learning_rate * scales[: len(trace.learning_rate)])
        if self.failure or self.is_aside:
            return trace
        return _without_gaps(trace)

    @property
    def trace(self) -> Trace:
        """What its monitor recorded, with what the guard did."""
        return self.trace_of(self._monitor.trace)

    @property
    def verdict(self) -> Verdict | None:
        """What it says after an epoch; None: nothing, the detectors may judge.

        After an epoch in which it went back the losses are those of a passage that no longer counts.
        """
        if self.failure:
            return Verdict(True, "divergence", self.failure)
        if self._has_just_acted:
            return Verdict(False, "go_on", "The training went back to a checkpoint in this epoch.")
        return None

    def set_model(self, model: Any) -> None:
        """Install the gate; before any recorder, which comes with `set_params`, so that it stays inside of it."""
        super().set_model(model)
        self._install()
        if self._own is not None:
            self._own.set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        """Pass them on."""
        super().set_params(params)
        if self._own is not None:
            self._own.set_params(params)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Take the first checkpoint."""
        if self._own is not None:
            self._own.on_train_begin(logs)
        self._begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Pass it on."""
        self._has_just_acted = False
        if self._own is not None:
            self._own.on_epoch_begin(epoch, logs)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Pass it on."""
        if self._own is not None:
            self._own.on_test_begin(logs)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Pass it on."""
        if self._own is not None:
            self._own.on_test_end(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the epoch, unless that was done before its validation."""
        if self._own is not None:
            self._own.on_epoch_end(epoch, logs)
        if self._replay is None:
            self._check()
        self._scales.append(self._scale)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave the model as it was."""
        self._tell_gated()
        if self._own is not None:
            self._own.detach()
        self.detach()

    def detach(self) -> None:
        """Leave the model as it was before the training; done by itself at the end of one."""
        if self._gate is not None:
            self._gate.remove()
        self._gate = self._replay = self._deal = None
        self._orders, self._checkpoints = {}, []

    @harmless
    def _install(self) -> None:
        if self._gate is None and self.model is not None:
            self._gate = UpdateGate(self.model, scale=self._scale)

    @harmless
    def _begin(self) -> None:
        if self._gate is None:
            raise RuntimeError("it was not given its model before the training")
        self._first_step = self._since = self._checked = len(self._losses())
        self._rate = math.inf
        self._keep(self._first_step)
        if self._deal is not None and keras.backend.backend() == "tensorflow" and not self._monitor.is_aside:
            self._watch(self._deal, self._gate)

    def _watch(self, deal: Deal, gate: UpdateGate) -> None:
        """Look at the losses within epochs: after every call of the training function, which does many steps."""
        model = self.model
        train_function = model.train_function
        self._replay = Replay(
            deal, model, train_function=train_function, gate=gate, read_losses=self._monitor.weighted_losses
        )
        done = 0

        def watched(iterator: Any) -> Any:
            nonlocal done
            logs = train_function(iterator)
            epoch, before = divmod(done, deal.num_batches)
            done += min(model.steps_per_execution, deal.num_batches - before)
            self._after_call(self._first_step + done, epoch, deal)
            return logs

        model.train_function = watched

    @harmless
    def _after_call(self, step: int, epoch: int, deal: Deal) -> None:
        self._orders.setdefault(epoch, deal.order)
        is_end_of_epoch = (step - self._first_step) % deal.num_batches == 0
        if self._replay is not None and (is_end_of_epoch or step - self._checked >= CHECK_STEPS):
            self._check()

    @harmless
    def _check(self) -> None:
        """Look at the losses so far, and act if there is an alarm."""
        if self.failure or self._monitor.is_aside:
            return
        losses = self._losses()
        self._note_restart()
        self._checked = len(losses)
        judged = losses[self._since :]
        alarm = find_alarm(
            judged,
            chance_loss=self._chance_loss(losses),
            steps_per_epoch=self._steps_per_epoch,
            is_weighted=self._monitor.is_weighted,
        )
        if alarm is None and self._replay is not None and not self._is_gap_explained:
            alarm = _first_gap(judged)
        if alarm is None and self._is_still_lost(judged, losses):
            alarm = STILL_LOST
        if alarm is not None:
            self._act(losses, alarm)
        elif self._replay is None or len(losses) - self._checkpoints[-1][0] >= MIN_PROBE_STEPS:
            self._keep(len(losses))

    def _is_still_lost(self, judged: FloatArray, losses: FloatArray) -> bool:
        """Whether after a rollback without probes nothing is learned: the cut was too small."""
        finite = losses[np.isfinite(losses)]
        if self._replay is not None or self._num_actions == 0 or self._monitor.is_weighted or not finite.size:
            return False
        # Where L0 is a guess, the loss of the initial weights is the surer one.
        chance_loss = self._given_chance_loss or float(finite[0])
        return is_at_chance(end_level(judged, chance_loss=chance_loss, steps_per_epoch=self._steps_per_epoch))

    def _act(self, losses: FloatArray, alarm: Alarm) -> None:
        start, now = self._since + alarm.start, len(losses)
        good = [found for found in self._checkpoints if found[0] < start] or self._checkpoints[:1]
        at, checkpoint = good[-1]
        if self._replay is not None and now - at < MIN_PROBE_STEPS:
            return
        if self._num_actions == MAX_ACTIONS:
            self._give_up(checkpoint, start=start, alarm=alarm, why=f"that is after {MAX_ACTIONS} corrections")
        elif self._replay is None:
            scale = self._scale * CUT_FACTOR
            self.findings += (self._finding("unknown", start=start, at=at, alarm=alarm, scale=scale),)
            self._go_on_from(checkpoint, now=now, scale=scale)
        else:
            passage = Passage(
                before=losses[self._since : at] if at < start else np.empty(0),
                losses=losses[at:],
                alarm=replace(alarm, start=max(0, start - at)),
                chance_loss=self._chance_loss(losses),
                steps_per_epoch=self._steps_per_epoch,
                is_birth=at == 0,
                is_weighted=self._monitor.is_weighted,
            )
            self._probe(self._replay, passage, checkpoint, at=at)

    def _probe(self, replay: Replay, passage: Passage, checkpoint: Checkpoint, *, at: int) -> None:
        """Find out what cures, and go on with it."""
        first, now = at - self._first_step, at + len(passage.losses)
        present = self._snapshot()

        def repeat(scale: float, skipped: Collection[int]) -> Attempt:
            steps = range(first, now - self._first_step)
            attempt = replay.run(checkpoint, steps, orders=self._orders, scale=scale, skipped=skipped)
            if 0 not in skipped and not is_same_step(attempt.losses[0], passage.losses[0]):
                raise RuntimeError(f"step {first} has loss {attempt.losses[0]} when repeated, not {passage.losses[0]}")
            return attempt

        try:
            cure = find_cure(passage, repeat, scale=self._scale)
        except Exception:
            self._set(present, scale=self._scale)
            raise
        start = at + passage.alarm.start
        if passage.is_isolated:
            self._is_gap_explained = True
        if cure.winner is None and not passage.is_isolated:
            why = f"neither a lower rate nor leaving out the batch cured it ({cure.num_replays} tries)"
            self._give_up(checkpoint, start=start, alarm=passage.alarm, why=why)
            return
        scale = self._scale if cure.winner is None else cure.winner.scale
        rows = self._rows(first, cure.winner.skipped) if cure.winner and cure.cause == "data" else ()
        self.findings += (
            self._finding(cure.cause, start=start, at=at, alarm=passage.alarm, scale=scale, cure=cure, rows=rows),
        )
        if passage.is_isolated and cure.cause != "learning_rate":
            # The gate did what the cure would do.
            self._set(present, scale=self._scale)
        elif cure.winner is not None:
            self._go_on_from(cure.winner.state, now=now, scale=scale)

    def _go_on_from(self, checkpoint: Checkpoint, *, now: int, scale: float) -> None:
        self._num_actions += 1
        self._has_just_acted = True
        self._set(checkpoint, scale=scale)
        self._events.append((now, ROLLBACK))
        self._since, self._checkpoints = now, [(now, checkpoint)]
        logger.warning("SpikeGuard: %s", self.findings[-1].cause)

    def _give_up(self, checkpoint: Checkpoint, *, start: int, alarm: Alarm, why: str) -> None:
        self._set(checkpoint, scale=self._scale)
        self.failure = f"{_symptom(alarm, self._place(start))}, and {why}."
        last = self.findings[-1].code if self.findings else ""
        told = {
            "guard_data": " The corrections before found bad batches: look at the data.",
            "guard_learning_rate": " The corrections before found the learning rate too high.",
        }.get(last, "")
        self.findings += (
            Finding(
                code="guard_gave_up",
                where=self._place(start),
                severity=1.0,
                confidence=0.9,
                evidence={"num_rollbacks": float(self._num_actions), "rate_scale": self._scale} | _factor(alarm),
                cause=f"{self.failure}{told} The weights are those of the last good checkpoint.",
                examples=tuple(f"row {row}" for row in sorted(self._bad_rows)[:MAX_TOLD_ROWS]),
                remedies=(Remedy("learning_rate", "x 0.1", "A much lower rate tells whether the rate is the cause."),),
            ),
        )
        logger.warning("SpikeGuard ends the training: %s", self.findings[-1].cause)
        self.model.stop_training = True

    @harmless
    def _tell_gated(self) -> None:
        """A finding for the updates that were not applied."""
        num_gated = int(np.sum(~np.isfinite(self._losses()[self._first_step :])))
        if num_gated and not self.is_aside:
            self.findings += (
                Finding(
                    code="guard_not_finite",
                    where="",
                    severity=0.4,
                    confidence=1.0,
                    evidence={"num_updates": float(num_gated)},
                    cause=f"{counted(num_gated, 'updates', 'were')} infinite or no number, and "
                    f"{verb(num_gated, 'were')} not applied.",
                    remedies=(Remedy("data", "look for infinite and absurd values", "One such value spoils a batch."),),
                ),
            )

    def _finding(
        self,
        cause: Cause,
        *,
        start: int,
        at: int,
        alarm: Alarm,
        scale: float,
        cure: Cure | None = None,
        rows: tuple[int, ...] = (),
    ) -> Finding:
        evidence = {"first_step": float(start), "checkpoint_step": float(at), "rate_scale": scale} | _factor(alarm)
        if cure is not None:
            evidence |= {
                "is_cured_by_half_rate": float(cure.is_cured_by_half),
                "is_cured_by_skipping": float(cure.is_cured_by_skip),
                "num_replays": float(cure.num_replays),
            }
        code, told, remedies = _told(cause, scale=scale, cure=cure)
        return Finding(
            code=code,
            where=self._place(start),
            severity=0.6,
            confidence=0.9 if cure is not None and cause != "unknown" else 0.5,
            evidence=evidence,
            cause=f"{_symptom(alarm, self._place(start))}. {told}",
            examples=tuple(f"row {row}" for row in rows[:MAX_TOLD_ROWS]),
            remedies=remedies,
        )

    # What the rest of it stands on.

    def _losses(self) -> FloatArray:
        """What is minimised: class weights trade one class for another, so that the plain loss may rise soundly."""
        return self._monitor.weighted_losses()

    @property
    def _steps_per_epoch(self) -> int:
        return self._deal.num_batches if self._deal is not None else max(1, self._monitor.trace.steps_per_epoch)

    def _chance_loss(self, losses: FloatArray) -> float:
        """L0, or the first loss where that is lower: of a foreign training L0 is a guess from its first epoch."""
        finite = losses[np.isfinite(losses)]
        if self._monitor.is_weighted and finite.size:
            return self._given_chance_loss or float(np.mean(finite[: self._steps_per_epoch]))
        chance_loss = self._given_chance_loss or self._monitor.trace.chance_loss
        return min(chance_loss, float(finite[0]) if finite.size else math.inf)

    def _note_restart(self) -> None:
        """What was best before the user's schedule raised the rate no longer counts."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if rate > RESTART_RATE_FACTOR * self._rate:
            self._since = max(self._since, self._checked)
        self._rate = rate

    def _snapshot(self) -> Checkpoint:
        return [] if self._gate is None else snapshot(self._gate.variables())

    def _keep(self, step: int) -> None:
        self._checkpoints = [*self._checkpoints, (step, self._snapshot())][-MAX_CHECKPOINTS:]
        if self._deal is not None:
            oldest = (self._checkpoints[0][0] - self._first_step) // self._deal.num_batches
            self._orders = {epoch: order for epoch, order in self._orders.items() if epoch >= oldest}

    def _set(self, checkpoint: Checkpoint, *, scale: float) -> None:
        restore(checkpoint)
        self._scale = scale
        if self._gate is not None:
            self._gate.scale.assign(scale)

    def _place(self, step: int) -> str:
        epoch, step = divmod(step, self._steps_per_epoch)
        return f"epoch {epoch + 1}, step {step + 1}"

    def _rows(self, first: int, skipped: Collection[int]) -> tuple[int, ...]:
        """The rows of steps that were skipped."""
        if self._deal is None:
            return ()
        by_epoch: dict[int, set[int]] = {}
        for step in skipped:
            epoch, batch = divmod(first + step, self._deal.num_batches)
            by_epoch.setdefault(epoch, set()).update(self._deal.rows(self._orders[epoch], batch).tolist())
        # One bad row is in the bad batches of all epochs.
        for rows in by_epoch.values():
            self._bad_rows = self._bad_rows & rows or rows
        return tuple(sorted(self._bad_rows))


def _told(cause: Cause, *, scale: float, cure: Cure | None) -> tuple[str, str, tuple[Remedy, ...]]:
    """Code, sentence and remedies for a cause."""
    lower = Remedy("learning_rate", f"x {scale:.3g}", "The training went on at this share of its rate.")
    if cause == "data":
        is_half_enough = cure is not None and cure.is_cured_by_half
        other = "at half the rate the batch still stands out" if is_half_enough else "half the rate did not"
        return (
            "guard_data",
            f"From the checkpoint before, leaving out the batch cured it, and {other}: the data is the cause.",
            (Remedy("data", "look at these rows", "A batch with one of them sends the loss up."),),
        )
    if cause == "learning_rate":
        return (
            "guard_learning_rate",
            f"From the checkpoint before, the same batches at {scale:.3g} times the rate were sound: the learning rate "
            "is the cause.",
            (lower, Remedy("learning_rate", "upper <= x 0.5", "At the full rate the loss spiked.")),
        )
    if cure is not None:
        return "guard_unexplained", "Neither a lower rate nor leaving out the batch cured it.", ()
    return (
        "guard_rollback",
        f"The weights went back to the checkpoint before, and the rate to {scale:.3g} times what it was.",
        (lower,),
    )


def _symptom(alarm: Alarm, place: str) -> str:
    if alarm == STILL_LOST:
        return f"The loss stayed at chance level from {place} on"
    jump = f"to {alarm.factor:.1f} times what it was" if alarm.is_finite else "beyond all numbers"
    return f"The loss went {jump} at {place}"


def _factor(alarm: Alarm) -> dict[str, float]:
    return {"factor": alarm.factor} if alarm.is_finite else {}


def _first_gap(losses: FloatArray) -> Alarm | None:
    """The first loss that is not finite."""
    gaps = np.flatnonzero(~np.isfinite(losses))
    return Alarm(int(gaps[0]), math.inf) if gaps.size else None


def _without_gaps(trace: Trace) -> Trace:
    """What is not finite, and was kept from the weights or rolled back, as the worst there is."""
    worst = MAX_RELATIVE_LOSS * (abs(trace.chance_loss) or 1.0)
    steps = np.where(np.isfinite(trace.step_loss), trace.step_loss, worst)
    norms = np.where(np.isfinite(trace.grad_norm), trace.grad_norm, np.finfo(np.float32).max)
    per_epoch = max(1, trace.steps_per_epoch)
    touched = {int(step) // per_epoch for step in np.flatnonzero(~np.isfinite(trace.step_loss))}
    touched |= {(step - 1) // per_epoch for step, kind in trace.events if kind == ROLLBACK}

    def mended(losses: FloatArray) -> FloatArray:
        is_lost = ~np.isfinite(losses) & np.isin(np.arange(len(losses)), list(touched))
        return np.where(is_lost, worst, losses)

    return replace(
        trace,
        step_loss=steps,
        grad_norm=norms,
        train_loss=mended(trace.train_loss),
        validation_loss=mended(trace.validation_loss),
    )
