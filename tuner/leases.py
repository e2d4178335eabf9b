"""Leases: which workers of a run are alive, when they run on machines whose processes nobody else can see.

A worker has a row in its database and renews it while it lives. Where the row is gone, whoever asks may put back what
the worker did; the worker itself, should it still be there (it was suspended, or cut off), is refused by every later
transaction. All times are the server's, so clocks that differ do not matter. A run whose study is a file has no leases:
there the supervisor sees every death at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tuner.database import Database, open_database, patient
from tuner.errors import TunerError
from tuner.records import Claim, SharedStudy
from tuner.store import RunFolder

__all__ = ["LEASE_VARIABLE", "LeaseLost", "LiveWorker", "claim", "end", "end_lapsed", "hold", "live", "own", "release"]

# How often a worker renews its lease, and how old it may be before the worker counts as dead, in seconds. Source:
# convention; eight renewals may be late or lost, and what a dead worker did is idle for a minute and a half.
BEAT_S = 10.0
LEASE_S = 90.0
# Tells a worker the lease that its supervisor gave it, and the batch job that it runs in.
LEASE_VARIABLE = "TUNER_LEASE"
JOB_VARIABLE = "TUNER_JOB"

# How the process of a worker ends that has lost its lease; its supervisor starts another one.
LOST_EXIT_CODE = 75


class LeaseLost(TunerError):
    """This worker was silent for so long that others took it for dead; what it was doing is no longer its own."""

    exit_code = LOST_EXIT_CODE


@dataclass(frozen=True)
class LiveWorker:
    """A worker that holds a lease.

    Attributes:
        token: Of its lease.
        age_s: Since it was last heard of.
        job: Batch job; empty if it runs in none.
    """

    token: str
    number: int
    host: str
    job: str
    age_s: float
    claim: Claim | None


@contextlib.contextmanager
def hold(folder: RunFolder, number: int) -> Iterator[None]:
    """Hold a lease while the block runs, renewed by a thread of its own; nothing for a study that is a file.

    Args:
        folder: The run.
        number: Of this worker.

    Raises:
        LeaseLost: From every access to the database, once it is lost.
    """
    shared = folder.load_shared_study()
    if shared is None:
        yield
        return
    database = open_database(shared.url)
    token = os.environ.get(LEASE_VARIABLE) or secrets.token_hex(8)
    _insert(database, shared, token, number)
    is_done = threading.Event()
    beating = threading.Thread(target=_beat, args=(database, token, is_done), daemon=True)
    try:
        with database.fenced(lambda connection, is_writing: _check(connection, token, is_writing=is_writing)):
            # Ends before the fence does, which SQLAlchemy cannot take away while another thread passes it.
            beating.start()
            try:
                database.lease = token
                yield
            finally:
                is_done.set()
                beating.join()
    finally:
        database.lease = None
        end(folder, token)


def own(folder: RunFolder) -> str | None:
    """Token of the lease that this process holds."""
    shared = folder.load_shared_study()
    return open_database(shared.url).lease if shared else None


def live(folder: RunFolder) -> list[LiveWorker]:
    """The workers that hold a lease, by number; empty for a study that is a file."""
    rows = _run(
        folder,
        "SELECT token, number, host, job, extract(epoch FROM now() - beat), trial, seed_index FROM tuner_workers "
        "WHERE study = :study ORDER BY number, started",
    )
    return [
        LiveWorker(token, number, host, job, float(age_s), None if trial is None else Claim(number, trial, seed_index))
        for token, number, host, job, age_s, trial, seed_index in rows
    ]


def end(folder: RunFolder, token: str) -> None:
    """End the lease of a worker that is known to be dead, or done."""
    _run(folder, "DELETE FROM tuner_workers WHERE study = :study AND token = :token RETURNING 1", token=token)


def end_lapsed(folder: RunFolder) -> int:
    """End the leases of workers that were not heard of for LEASE_S; returns how many.

    Only a worker that itself was heard of without a gap for that long may do so: after an outage of the database or
    of the network, the first one back must not take the others for dead. A row that a transaction of its worker holds
    is left alone.
    """
    rows = _run(
        folder,
        "DELETE FROM tuner_workers WHERE token IN (SELECT token FROM tuner_workers WHERE study = :study "
        "AND beat < now() - make_interval(secs => :lease_s) FOR UPDATE SKIP LOCKED) AND EXISTS (SELECT 1 FROM "
        "tuner_workers WHERE token = :own AND steady_since < now() - make_interval(secs => :lease_s)) RETURNING 1",
        own=own(folder),
        lease_s=LEASE_S,
    )
    return len(rows)


def claim(folder: RunFolder, trial: int, seed_index: int | None) -> None:
    """Note which part of a confirmation this worker has taken."""
    statement = (
        "UPDATE tuner_workers SET trial = :trial, seed_index = :seed_index WHERE study = :study AND token = :own"
    )
    _run(folder, f"{statement} RETURNING 1", own=own(folder), trial=trial, seed_index=seed_index)


def release(folder: RunFolder) -> None:
    """Let others have what this worker had taken of a confirmation."""
    statement = "UPDATE tuner_workers SET trial = NULL, seed_index = NULL WHERE study = :study AND token = :own"
    _run(folder, f"{statement} RETURNING 1", own=own(folder))


def _insert(database: Database, shared: SharedStudy, token: str, number: int) -> None:
    statement = (
        "INSERT INTO tuner_workers (token, study, number, host, job) VALUES (:token, :study, :number, :host, :job) "
        # Made again after the answer was lost.
        "ON CONFLICT (token) DO UPDATE SET beat = now() RETURNING 1"
    )
    values = {"token": token, "study": shared.name, "number": number, "host": socket.gethostname()}
    _execute(database, statement, values | {"job": os.environ.get(JOB_VARIABLE, "")})


def _beat(database: Database, token: str, is_done: threading.Event) -> None:
    """Renew a lease until it is done or lost; what else goes wrong, the worker meets itself."""
    from sqlalchemy.exc import SQLAlchemyError

    statement = (
        "UPDATE tuner_workers SET steady_since = CASE WHEN now() - beat < make_interval(secs => :gap_s) "
        "THEN steady_since ELSE now() END, beat = now() WHERE token = :token RETURNING 1"
    )
    while not is_done.wait(BEAT_S):
        with contextlib.suppress(SQLAlchemyError):
            try:
                _execute(database, statement, {"token": token, "gap_s": 3 * BEAT_S})
            except LeaseLost:
                return


def _check(connection: Any, token: str, *, is_writing: bool) -> None:
    """Refuse a transaction of a worker that has lost its lease; nobody can end it while one that writes lasts."""
    import sqlalchemy

    lock = "FOR KEY SHARE" if is_writing else ""
    statement = sqlalchemy.text(f"SELECT 1 FROM tuner_workers WHERE token = :token {lock}")
    if connection.execute(statement, {"token": token}).first() is None:
        raise LeaseLost(
            f"This worker was not heard of for {LEASE_S:.0f} s and was taken for dead: it was suspended, or cut off "
            "from its database. Another one goes on with its trial."
        )


def _run(folder: RunFolder, statement: str, **values: Any) -> list[Any]:
    shared = folder.load_shared_study()
    return _execute(open_database(shared.url), statement, values | {"study": shared.name}) if shared else []


def _execute(database: Database, statement: str, values: dict[str, Any]) -> list[Any]:
    import sqlalchemy

    def once() -> list[Any]:
        with database.engine.begin() as connection:
            return list(connection.execute(sqlalchemy.text(statement), values))

    done: list[Any] = patient(once)()
    return done
