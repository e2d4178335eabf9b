"""The one rule that orders trials, for status, report and export alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from tuner.records import FINISHED_OUTCOMES, MIN_FRESH_RUNS, Outcome, SeedRun, TrialRecord

__all__ = ["MAX_BEHIND_NATS", "STABLE", "best_trial", "finalists", "median_seed_run", "pareto_front", "rank", "rivals"]

# A trial this far behind the best objective (2.7 times its error) does not overtake it on other seeds, and is not
# trained again. Source: convention.
MAX_BEHIND_NATS = 1.0
# A configuration is called stable from this score on. Source: convention; I <= 0.22, "22 % above its best all along".
STABLE = 0.8


def rank(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Finished trials, best first: confirmed ones, then the others by objective, then pruned ones, failed ones last.

    Confirmed trials are ordered by the share of fresh trainings that failed, then by mean error plus one standard
    deviation of the others. Under the objective `constrained`, fresh trainings that broke the constraint count as
    failed here, and trials most of whose trainings broke it stand behind all that kept it.

    Args:
        trials: In any order; unfinished ones are left out.
    """
    finished = [trial for trial in trials if trial.outcome in FINISHED_OUTCOMES]
    return sorted(finished, key=_order)


def finalists(trials: Iterable[TrialRecord], count: int) -> list[TrialRecord]:
    """The best rivals by the objective of the search alone: what a confirmation trains again.

    Args:
        trials: In any order.
        count: At most this many.
    """
    return sorted(rivals(trials), key=lambda trial: (_objective(trial), trial.number))[:count]


def rivals(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials that learned and are not hopelessly behind the best objective, best first."""
    usable = [trial for trial in rank(trials) if trial.outcome is Outcome.COMPLETED]
    best = min(map(_objective, usable), default=0.0)
    return [trial for trial in usable if _objective(trial) <= best + MAX_BEHIND_NATS]


def pareto_front(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials that learned and that no other one beats in error and in instability at once, the lowest error first.

    By the training of the search itself, which all of them have.
    """
    known = list(trials)
    points = {trial.number: point for trial in known if (point := _point(trial)) is not None}
    front = [trial for trial in known if trial.number in points and not _is_beaten(points[trial.number], points)]
    return sorted(front, key=lambda trial: (points[trial.number], trial.number))


def best_trial(trials: Iterable[TrialRecord]) -> TrialRecord | None:
    """The best trial that was trained to its end and did not fail, or None."""
    usable = [trial for trial in rank(trials) if not trial.outcome.is_failed and trial.outcome is not Outcome.PRUNED]
    return usable[0] if usable else None


def median_seed_run(trial: TrialRecord) -> SeedRun:
    """The seed run whose weights stand for the trial: the (lower) median by objective, failed ones left out.

    Those that were trained on a fresh split stand for nobody: exported is what learned from the run's own split.

    Raises:
        ValueError: The trial has no seed run that did not fail.
    """
    own = [run for run in trial.seed_runs if run.split_seed is None and not run.outcome.is_failed]
    usable = [run for run in own if run in trial.judged_runs] or own
    runs = sorted(usable, key=lambda run: (run.objective, run.seed_index))
    if not runs:
        raise ValueError(f"trial {trial.number} has no finished seed run")
    return runs[(len(runs) - 1) // 2]


def _point(trial: TrialRecord) -> tuple[float, float] | None:
    own = trial.search_run
    if trial.outcome is not Outcome.COMPLETED or own is None or own.error is None:
        return None
    return own.error, own.score.instability


def _is_beaten(point: tuple[float, float], points: Mapping[int, tuple[float, float]]) -> bool:
    return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points.values())


def _order(trial: TrialRecord) -> tuple[int, float, float, int]:
    is_refuted = not trial.is_confirmed and len(trial.fresh_runs) >= MIN_FRESH_RUNS
    if trial.outcome.is_failed or is_refuted or not _is_feasible(trial):
        return (3, 0.0, _mean_objective(trial), trial.number)
    if trial.outcome is Outcome.PRUNED:
        return (2, 0.0, _objective(trial), trial.number)
    if trial.is_confirmed:
        return (0, _broken_frac(trial.fresh_runs), _pessimistic_error(trial), trial.number)
    return (1, 0.0, _objective(trial), trial.number)


def _is_feasible(trial: TrialRecord) -> bool:
    """Whether most of its trainings kept the constraint; there is none under most objectives."""
    runs = trial.judged_runs
    return sum(run.is_feasible for run in runs) > len(runs) / 2 if runs else True


def _broken_frac(runs: Sequence[SeedRun]) -> float:
    return sum(run.outcome.is_failed or not run.is_feasible for run in runs) / len(runs)


def _objective(trial: TrialRecord) -> float:
    return math.inf if trial.objective is None else trial.objective


def _mean_objective(trial: TrialRecord) -> float:
    """Over the trainings it is judged by; the search's own if there are none."""
    return statistics.fmean(run.objective for run in trial.judged_runs) if trial.judged_runs else _objective(trial)


def _pessimistic_error(trial: TrialRecord) -> float:
    """Mean error of the fresh trainings plus one standard deviation; one alone has no spread."""
    errors = [run.error for run in trial.fresh_runs if run.error is not None]
    return statistics.fmean(errors) + (statistics.stdev(errors) if len(errors) > 1 else 0.0)
