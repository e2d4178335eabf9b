"""Adaptation of a running search: the ranges that its next trial is proposed from, and the record of how they moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuner.records import Adaptation, AdaptationStep, TrialRecord
from tuner.stability.adaptation import SearchRange, narrowed_ranges, narrowings
from tuner.store import RunFolder, write_json

__all__ = ["adapt"]


def adapt(
    folder: RunFolder, number: int, ranges: Mapping[str, SearchRange], trials: Iterable[TrialRecord]
) -> dict[str, tuple[float, float]]:
    """The ranges for the next trial that are narrower than those given; written down when they change.

    They follow from the finished trials alone, so a search that was stopped goes on as if it had not been.

    Args:
        folder: The run.
        number: Of the trial that is about to be proposed.
        ranges: What may be narrowed, by hyperparameter.
        trials: The finished ones.

    Returns:
        Name to (low, high).
    """
    with folder.exclusive("adaptation"):
        found = narrowings(trials, ranges)
        record = folder.load_adaptation()
        current = record.steps[-1].ranges if record.steps else ()
        if found != current:
            write_json(folder.adaptation_file, Adaptation((*record.steps, AdaptationStep(number, found))))
    return narrowed_ranges(ranges, found)
