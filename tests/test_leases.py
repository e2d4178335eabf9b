"""Leases in a real PostgreSQL: a dead worker's trial is taken within the stated time, a live one's never."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy

from tests import postgresql
from tuner import leases
from tuner.config import SearchConfig
from tuner.database import open_database
from tuner.leases import LEASE_S, LeaseLost
from tuner.records import Claim, ConfirmPlan, Outcome, SeedRun, StabilityScore
from tuner.search import confirm
from tuner.search.changes import change_trial
from tuner.search.plan import load_claims, take
from tuner.search.study import Study, load_trials
from tuner.store import RunFolder


@pytest.fixture
def folder(server: postgresql.Server, tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "run", SearchConfig(storage=server.url()))
    Study(folder)
    execute(folder, "DELETE FROM tuner_workers")
    return folder


def execute(folder: RunFolder, statement: str, **values: object) -> None:
    shared = folder.load_shared_study()
    assert shared is not None
    with open_database(shared.url).engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement), values | {"study": shared.name})


def add_worker(folder: RunFolder, token: str, *, age_s: float, number: int = 7) -> None:
    """Another worker, last heard of that long ago."""
    execute(
        folder,
        "INSERT INTO tuner_workers (token, study, number, host, job, beat, steady_since) VALUES (:token, :study, "
        ":number, 'elsewhere', '4711_1', now() - make_interval(secs => :age_s), now() - interval '1 h')",
        token=token,
        number=number,
        age_s=age_s,
    )


def become_steady(folder: RunFolder, for_s: float = LEASE_S + 1) -> None:
    """As if this worker had been heard of for so long."""
    execute(
        folder,
        "UPDATE tuner_workers SET steady_since = now() - make_interval(secs => :for_s) WHERE token = :token",
        token=leases.own(folder),
        for_s=for_s,
    )


def take_trial(folder: RunFolder, token: str) -> int:
    """A trial that the other worker runs."""
    study = Study(folder, worker=7)
    trial = study.ask(9)
    assert trial is not None
    study.describe(trial.number, {"rate": 0.5})
    change_trial(study._storage, trial.trial._trial_id, attrs={"lease": token})
    return trial.number


def test_a_worker_is_seen_while_it_lives(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(leases.LEASE_VARIABLE, "token")
    monkeypatch.setenv(leases.JOB_VARIABLE, "4711_0")
    assert leases.live(folder) == []
    with leases.hold(folder, 3):
        (worker,) = leases.live(folder)
        assert (worker.token, worker.number, worker.job, worker.claim) == ("token", 3, "4711_0", None)
        assert 0 <= worker.age_s < LEASE_S
        assert leases.own(folder) == "token"
    assert leases.live(folder) == []
    assert leases.own(folder) is None


def test_a_run_whose_study_is_a_file_has_no_leases(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", SearchConfig())
    with leases.hold(folder, 0):
        assert (leases.own(folder), leases.live(folder), leases.end_lapsed(folder)) == (None, [], 0)
        Study(folder).put_back_lapsed()


@pytest.mark.parametrize(("age_s", "is_taken"), [(LEASE_S - 5, False), (LEASE_S + 1, True)])
def test_what_a_silent_worker_did_is_put_back_after_the_stated_time(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, age_s: float, is_taken: bool
) -> None:
    # The clock of this machine does not matter.
    monkeypatch.setattr(time, "time", lambda: 1e12)
    add_worker(folder, "other", age_s=age_s)
    number = take_trial(folder, "other")
    with leases.hold(folder, 1):
        become_steady(folder)
        study = Study(folder, worker=1)
        study.put_back_lapsed()
        assert study.num_waiting() == is_taken
        trial = study.ask(9)
        assert trial is not None
        # The same trial again, and this worker's now.
        assert (trial.number == number) is is_taken
        assert {each.number: each.worker for each in load_trials(folder)}[trial.number] == 1
        study.put_back_lapsed()
        assert study.num_running() == (1 if is_taken else 2)


@pytest.mark.parametrize(("steady_s", "num_ended"), [(LEASE_S - 5, 0), (LEASE_S + 1, 1)])
def test_only_who_was_heard_of_all_the_time_may_take_others_for_dead(
    folder: RunFolder, steady_s: float, num_ended: int
) -> None:
    add_worker(folder, "other", age_s=1000)
    with leases.hold(folder, 1):
        assert leases.end_lapsed(folder) == 0
        become_steady(folder, steady_s)
        assert leases.end_lapsed(folder) == num_ended
    # A process without a lease of its own may not.
    add_worker(folder, "third", age_s=1000)
    assert leases.end_lapsed(folder) == 0


def test_a_gap_in_its_own_beats_makes_a_worker_wait_again(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage of the database everybody seems dead to the first one back."""
    monkeypatch.setattr(leases, "BEAT_S", 0.1)
    monkeypatch.setattr(leases, "LEASE_S", 1.0)
    with leases.hold(folder, 1):
        time.sleep(1.5)
        add_worker(folder, "dead", age_s=1000)
        assert leases.end_lapsed(folder) == 1
        # Not heard of for a while, and then again.
        execute(
            folder, "UPDATE tuner_workers SET beat = now() - interval '10 s' WHERE token = :t", t=leases.own(folder)
        )
        time.sleep(0.5)
        add_worker(folder, "live", age_s=1000)
        assert leases.end_lapsed(folder) == 0


def test_a_worker_in_the_middle_of_a_transaction_is_not_taken_for_dead(folder: RunFolder) -> None:
    add_worker(folder, "other", age_s=1000)
    shared = folder.load_shared_study()
    assert shared is not None
    with leases.hold(folder, 1):
        become_steady(folder)
        with open_database(shared.url).engine.begin() as connection:
            connection.exec_driver_sql("SELECT 1 FROM tuner_workers WHERE token = 'other' FOR KEY SHARE")
            assert leases.end_lapsed(folder) == 0
        assert leases.end_lapsed(folder) == 1


def test_a_worker_that_lost_its_lease_can_neither_report_nor_store_nor_finish(folder: RunFolder) -> None:
    study = Study(folder, worker=1)
    with pytest.raises(LeaseLost, match="taken for dead"), leases.hold(folder, 1):  # noqa: PT012
        trial = study.ask(9)
        assert trial is not None
        study.describe(trial.number, {"rate": 0.5})
        token = leases.own(folder)
        assert token is not None
        execute(folder, "DELETE FROM tuner_workers WHERE token = :token AND study = :study", token=token)
        with pytest.raises(LeaseLost):
            study.report(trial.number, 0, objective=0.1, loss=0.1)
        with pytest.raises(LeaseLost), folder.exclusive("models"):
            pytest.fail("held")
        study.finish(trial.number, 0.1, outcome=Outcome.COMPLETED)
    assert [(each.outcome, each.epoch_losses) for each in load_trials(folder)] == [(Outcome.RUNNING, ())]


def test_who_only_reads_locks_no_row(folder: RunFolder) -> None:
    """A row that is locked has the transaction wait for the disk when it ends."""
    shared = folder.load_shared_study()
    assert shared is not None
    database = open_database(shared.url)
    has_written = sqlalchemy.text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
    with leases.hold(folder, 1):
        with database.engine.begin() as connection:
            assert connection.execute(sqlalchemy.text("SELECT token FROM tuner_workers")).first() is not None
            assert connection.execute(has_written).scalar() is False
            connection.execute(sqlalchemy.text("UPDATE tuner_workers SET trial = NULL WHERE FALSE"))
            # Nothing was updated, but the lease stays as long as this transaction.
            assert connection.execute(has_written).scalar() is True
        with database.engine.begin() as connection:
            assert connection.execute(has_written).scalar() is False


WORKER = """
import sys, time
from pathlib import Path
from tuner import leases
from tuner.search.study import Study
from tuner.store import RunFolder
from tuner.records import Outcome

leases.BEAT_S, leases.LEASE_S = 0.2, 1.5
folder = RunFolder(Path(sys.argv[1]))
try:
    with leases.hold(folder, 7):
        study = Study(folder, worker=7)
        trial = study.ask(9)
        print("asked", flush=True)
        time.sleep(float(sys.argv[2]))
        study.report(trial.number, 0, objective=0.7, loss=0.7)
        study.finish(trial.number, 0.7, outcome=Outcome.COMPLETED)
except leases.LeaseLost as lost:
    sys.exit(lost.exit_code)
"""


@pytest.mark.parametrize("is_suspended", [True, False])
def test_a_suspended_worker_loses_its_trial_and_one_with_a_long_epoch_keeps_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, is_suspended: bool
) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.2)
    monkeypatch.setattr(leases, "LEASE_S", 1.5)
    command = [sys.executable, "-W", "ignore", "-c", WORKER, str(folder.root), "5"]
    with leases.hold(folder, 1), subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"asked\n"
        if is_suspended:
            os.kill(worker.pid, signal.SIGSTOP)
        time.sleep(3)
        study = Study(folder, worker=1)
        study.put_back_lapsed()
        assert (study.num_running(), study.num_waiting()) == ((0, 1) if is_suspended else (1, 0))
        if is_suspended:
            again = study.ask(9)
            assert again is not None
            study.finish(again.number, 0.2, outcome=Outcome.COMPLETED)
            os.kill(worker.pid, signal.SIGCONT)
        assert worker.wait(60) == (leases.LOST_EXIT_CODE if is_suspended else 0)
    (trial,) = load_trials(folder)
    assert (trial.number, trial.objective) == (0, 0.2 if is_suspended else 0.7)


def test_a_part_of_the_confirmation_is_free_when_the_lease_of_its_worker_has_ended(folder: RunFolder) -> None:
    study = Study(folder)
    with leases.hold(folder, 1):
        trial = study.ask(9)
        assert trial is not None
        study.describe(0, {"rate": 0.5})
        study.finish(0, 0.1, outcome=Outcome.COMPLETED)
        score = StabilityScore(0.9, 0.1, 0.0, 0.0, 0.0, 0.0, None)
        run = SeedRun(0, 0, 1, Outcome.COMPLETED, 0.0, 0.1, score, {}, 1, 1, 1, 1.0)
        assert run.trial == 0
        plan = ConfirmPlan((0,), 2)
        add_worker(folder, "other", age_s=0)
        execute(folder, "UPDATE tuner_workers SET trial = 0, seed_index = 1 WHERE token = 'other'")
        assert load_claims(folder) == [Claim(7, 0, 1)]
        assert take(folder, plan, 1) == Claim(1, 0, 2)
        assert load_claims(folder) == [Claim(1, 0, 2), Claim(7, 0, 1)]
        leases.release(folder)
        leases.end(folder, "other")
        assert load_claims(folder) == []
        assert take(folder, plan, 1) == Claim(1, 0, 1)


def test_a_confirmation_waits_for_what_others_have_taken(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(confirm, "WAIT_S", 0.0)
    monkeypatch.setattr(confirm, "take", lambda *_: asked.append(len(load_claims(folder))))
    monkeypatch.setattr(RunFolder, "load_confirm_plan", lambda _: ConfirmPlan((), 2))
    add_worker(folder, "other", age_s=0)
    execute(folder, "UPDATE tuner_workers SET trial = 0, seed_index = 1 WHERE token = 'other'")
    with leases.hold(folder, 1):
        is_late = lambda: len(asked) == 3 and leases.end(folder, "other") is not None  # noqa: E731
        confirm.confirm(folder, None, is_late=is_late, worker=1)
    assert asked == [1, 1, 1, 0]
