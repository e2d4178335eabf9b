"""Adaptation of a running search: the ranges that its next trial is proposed from, and the record of how they moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tuner.records import Adaptation, AdaptationStep, TrialRecord
from tuner.stability.adaptation import Evidence, SearchRange, narrowed_ranges
from tuner.store import RunFolder, write_json

__all__ = ["Adapter"]


class Adapter:
    """Says which ranges the next trial of a run is proposed from.

    Args:
        folder: The run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._evidence = Evidence({})

    def __call__(
        self, number: int, ranges: Mapping[str, SearchRange], trials: Iterable[TrialRecord]
    ) -> dict[str, tuple[float, float]]:
        """The ranges for the next trial that are narrower than those given; written down when they change.

        They follow from the finished trials alone, so a search that was stopped goes on as if it had not been.

        Args:
            number: Of the trial that is about to be proposed.
            ranges: What may be narrowed, by hyperparameter.
            trials: The finished ones.

        Returns:
            Name to (low, high).
        """
        if self._evidence.ranges != ranges:
            self._evidence = Evidence(ranges)
        self._evidence.add(trials)
        found = self._evidence.narrowings()
        with self._folder.exclusive("adaptation"):
            record = self._folder.load_adaptation()
            current = record.steps[-1].ranges if record.steps else ()
            if found != current:
                write_json(self._folder.adaptation_file, Adaptation((*record.steps, AdaptationStep(number, found))))
        return narrowed_ranges(ranges, found)
