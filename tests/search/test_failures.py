from __future__ import annotations

from pathlib import Path

import pytest

from tuner.config import SearchConfig
from tuner.errors import SpaceError
from tuner.records import Outcome
from tuner.search.failures import MAX_FAILURES_IN_A_ROW, check_failures
from tuner.search.study import Study
from tuner.store import RunFolder

ERROR = (Outcome.ERROR, "ValueError: no")


def test_five_failures_in_a_row_end_a_search_and_four_do_not() -> None:
    check_failures([ERROR] * (MAX_FAILURES_IN_A_ROW - 1))
    with pytest.raises(
        SpaceError, match=r"5 trials in a row failed for the same reason: ValueError: no\. Mend the search"
    ):
        check_failures([ERROR] * MAX_FAILURES_IN_A_ROW)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.DIVERGED, Outcome.PRUNED, Outcome.NOT_LEARNING])
def test_a_result_between_them_begins_the_count_anew(outcome: Outcome) -> None:
    check_failures([*[ERROR] * 4, (outcome, ""), *[ERROR] * 4])


def test_different_reasons_are_not_called_the_same() -> None:
    last = [*[ERROR] * 3, (Outcome.CRASHED, "It ended by signal 11"), (Outcome.INFEASIBLE, "no memory.")]
    with pytest.raises(SpaceError, match=r"5 trials in a row failed, the last with: no memory\."):
        check_failures(last)


def test_the_failures_of_all_workers_count_in_the_order_in_which_they_ended(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", SearchConfig())
    workers = [Study(folder, worker=number) for number in (0, 1)]
    for worker in (0, 1, 0, 1, 0, 1):
        assert workers[worker].ask(9) is not None
    for number in (1, 0, 2, 4, 3, 5):
        outcome = Outcome.COMPLETED if number == 1 else Outcome.ERROR
        workers[number % 2].finish(number, 1.0, outcome=outcome, message=f"trial {number}")
    assert [told for _, told in workers[0].last_finished(5)] == [f"trial {number}" for number in (0, 2, 4, 3, 5)]
    assert workers[0].last_finished(6)[0] == (Outcome.COMPLETED, "trial 1")
