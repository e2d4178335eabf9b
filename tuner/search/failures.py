"""When a search gives up: trial after trial fails, so the space or the machine is at fault, not a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.errors import SpaceError
from tuner.records import Outcome

__all__ = ["MAX_FAILURES_IN_A_ROW", "check_failures"]

# A search ends when so many trials fail one after the other, whichever workers ran them. Source: convention; where
# every other configuration fails, five given trials all do once in 32 times.
MAX_FAILURES_IN_A_ROW = 5

# A diverged training is a result.
_FAILURES = (Outcome.ERROR, Outcome.CRASHED, Outcome.INFEASIBLE)


def check_failures(last: Sequence[tuple[Outcome, str]]) -> None:
    """End the search if trial after trial failed.

    Args:
        last: Outcome and message of the trials that ended last, the newest last.

    Raises:
        SpaceError: They all failed.
    """
    last = last[-MAX_FAILURES_IN_A_ROW:]
    if len(last) < MAX_FAILURES_IN_A_ROW or not all(outcome in _FAILURES for outcome, _ in last):
        return
    outcome, message = last[-1]
    is_same = len({told.splitlines()[0] if told else "" for _, told in last}) == 1
    raise SpaceError(
        f"{MAX_FAILURES_IN_A_ROW} trials in a row failed{' for the same reason' if is_same else ', the last with'}: "
        f"{(message or outcome.meaning).rstrip('.')}. Mend the search space (build or fit) or its ranges, then start a "
        "new search; the worker's log has more."
    )
