"""Runs whose study is in a real PostgreSQL: trials, locks, races, restarts, faults; the password is nowhere."""

from __future__ import annotations

import inspect
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy

from tests import postgresql
from tuner import database
from tuner.config import SearchConfig, resolve
from tuner.database import check_url, close_databases, open_database
from tuner.errors import ConfigError, EnvironmentFault
from tuner.records import Outcome
from tuner.search.setup import discard_if_unused
from tuner.search.study import Study, load_trials
from tuner.store import RunFolder


@pytest.fixture
def folder(server: postgresql.Server, tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", SearchConfig(storage=server.url()))


def finish(study: Study, count: int) -> list[int]:
    numbers = []
    for _ in range(count):
        trial = study.ask(100)
        assert trial is not None
        study.propose(trial.number, {})
        study.report(trial.number, 0, objective=0.5, loss=0.5)
        study.finish(trial.number, 1.0, outcome=Outcome.COMPLETED)
        numbers.append(trial.number)
    return numbers


# --- URLs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["postgresql://h/d", "postgres://u@h:5432/d?sslmode=require", "postgresql+psycopg:///d"]
)
def test_urls_of_postgresql_are_taken_as_they_are(url: str) -> None:
    assert check_url(url) == SearchConfig(storage=url).storage == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://u@h/d", r"expected postgresql://"),
        ("sqlite:///x.db", r"expected postgresql://.*file in the run folder"),
        ("host/d", r"expected postgresql://"),
        ("postgresql://u@h", r"names no database"),
        ("postgresql://u:hidden@h/d", r"PGPASSWORD or in the file ~/\.pgpass"),
        ("postgresql://u:@h/d", r"PGPASSWORD"),
        ("postgresql://u@h/d?password=hidden", r"PGPASSWORD"),
    ],
)
def test_other_urls_and_passwords_are_refused_and_not_repeated(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        resolve({"storage": url}, None)
    assert "hidden" not in str(caught.value)


# --- trials ------------------------------------------------------------------------------------------------------


def test_a_run_has_its_trials_in_the_database_and_no_password_in_its_folder(
    server: postgresql.Server, folder: RunFolder
) -> None:
    assert load_trials(folder) == []
    assert finish(Study(folder), 2) == [0, 1]
    assert [(trial.number, trial.objective) for trial in load_trials(folder)] == [(0, 1.0), (1, 1.0)]
    assert not folder.study_file.exists()
    for file in folder.root.rglob("*"):
        assert not file.is_file() or postgresql.PASSWORD not in file.read_text(encoding="utf-8")


def test_runs_in_one_database_do_not_see_each_other(server: postgresql.Server, tmp_path: Path) -> None:
    config = SearchConfig(storage=server.url())
    folders = [RunFolder.create(tmp_path / name / "run", config) for name in ("a", "b")]
    for count, each in enumerate(folders, start=1):
        finish(Study(each), count)
    assert [len(load_trials(each)) for each in folders] == [1, 2]
    # Made again under the same name: an older study of that name has nothing to do with it.
    assert load_trials(RunFolder.create(folders[1].root, config)) == []


def test_a_run_that_was_never_begun_leaves_no_study(server: postgresql.Server, folder: RunFolder) -> None:
    Study(folder)
    storage = open_database(server.url()).storage
    shared = folder.load_shared_study()
    assert shared is not None
    assert shared.name in [study.study_name for study in storage.get_all_studies()]
    discard_if_unused(folder)
    assert shared.name not in [study.study_name for study in storage.get_all_studies()]
    assert not folder.root.exists()


def test_many_processes_that_start_at_once_make_the_tables_once(server: postgresql.Server, tmp_path: Path) -> None:
    with open_database(server.url()).engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE DATABASE fresh")
    folder = RunFolder.create(tmp_path / "run", SearchConfig(storage=server.url("fresh")))
    code = (
        "import sys; from pathlib import Path; from tuner.search.study import Study; from tuner.store import RunFolder;"
        "from tuner.records import Outcome; study = Study(RunFolder(Path(sys.argv[1])), worker=int(sys.argv[2]));"
        "trial = study.ask(2); trial and study.finish(trial.number, 1.0, outcome=Outcome.COMPLETED)"
    )
    started = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(folder.root), str(number)])
        for number in range(3)
    ]
    assert [process.wait(120) for process in started] == [0] * 3
    trials = load_trials(folder)
    assert [trial.outcome for trial in trials] == [Outcome.COMPLETED] * 2
    assert len({trial.worker for trial in trials}) == 2


def test_many_workers_that_ask_at_once_share_the_budget(folder: RunFolder) -> None:
    Study(folder)

    def work(worker: int) -> list[int]:
        study, mine = Study(folder, worker=worker), []
        while trial := study.ask(9):
            mine.append(trial.number)
            study.finish(trial.number, 0.0, outcome=Outcome.COMPLETED)
        return mine

    with ThreadPoolExecutor(4) as pool:
        numbers = [number for mine in pool.map(work, range(4)) for number in mine]
    assert sorted(numbers) == list(range(9))


# --- locks -------------------------------------------------------------------------------------------------------


def test_one_holds_a_name_at_a_time_and_other_names_are_free(folder: RunFolder) -> None:
    inside, most = 0, 0

    def work(_: int) -> None:
        nonlocal inside, most
        with folder.exclusive("study"):
            inside += 1
            most = max(most, inside)
            with folder.exclusive("models"):
                time.sleep(0.02)
            inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))
    assert most == 1
    assert not (folder.workers_dir / "study.lock").exists()


def test_a_holder_that_is_killed_has_let_go(folder: RunFolder) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tuner.store import RunFolder;\n"
        "with RunFolder(Path(sys.argv[1])).exclusive('study'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, str(folder.root)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout as stream:
        assert stream.readline() == b"held\n"
        holder.kill()
        with folder.exclusive("study"):
            pass
    holder.wait()


def test_a_silent_holder_loses_the_name_and_a_live_one_keeps_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SILENCE_S", 1)
    # Suspended: nothing is heard of it. Alive: it is heard in time.
    for ping_s, is_kept in ((60.0, False), (0.3, True)):
        monkeypatch.setattr(database, "PING_S", ping_s)
        close_databases()
        entered = threading.Event()

        def enter(event: threading.Event = entered) -> None:
            with folder.exclusive("study"):
                event.set()

        with folder.exclusive("study"):
            other = threading.Thread(target=enter)
            other.start()
            assert entered.wait(2.5) is not is_kept
        other.join(10)
        assert entered.is_set()


# --- restarts ----------------------------------------------------------------------------------------------------


def test_a_restart_of_the_database_between_and_within_calls_is_survived(
    server: postgresql.Server, folder: RunFolder
) -> None:
    study = Study(folder)
    finish(study, 1)
    server.restart()
    with study.proposing():
        server.restart()
        finish(study, 1)
    server.stop()
    starting = threading.Timer(1.0, server.start)
    starting.start()
    finish(study, 1)
    starting.join()
    assert [trial.outcome for trial in load_trials(folder)] == [Outcome.COMPLETED] * 3


def test_a_connection_that_ends_in_the_middle_of_a_transaction_has_it_made_again(
    server: postgresql.Server, folder: RunFolder
) -> None:
    study = Study(folder)
    (number,) = finish(study, 1)
    engine = open_database(server.url()).engine
    ended = []

    @sqlalchemy.event.listens_for(engine, "before_cursor_execute")
    def end_once(connection: sqlalchemy.Connection, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT trials") and not ended:
            ended.append(connection.connection.dbapi_connection)
            ended[0].close()  # type: ignore[union-attr]

    assert study.best_numbers(1) == [number]
    assert ended


def test_every_call_of_a_trial_is_made_again(server: postgresql.Server) -> None:
    """Optuna's cache calls the storage behind it by names that another version may change."""
    from optuna.storages import _cached_storage

    called = set(re.findall(r"_backend\.(\w+)", inspect.getsource(_cached_storage)))
    # Never called here: there are no heartbeats of Optuna's, and a study is deleted by hand.
    called -= {"delete_study", "record_heartbeat", "_get_stale_trial_ids"}
    assert called <= vars(type(open_database(server.url()).storage)).keys()


def test_patience_with_a_database_that_stays_away_ends_with_a_clear_error(
    server: postgresql.Server, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_trials(folder)
    monkeypatch.setattr(database, "PATIENCE_S", 0.5)
    server.stop()
    try:
        with pytest.raises(EnvironmentFault, match=r"cannot be used: .*(refused|closed).*Check host and port"):
            load_trials(folder)
    finally:
        server.start()


# --- faults ------------------------------------------------------------------------------------------------------


def opened(url: str, root: Path) -> None:
    close_databases()
    Study(RunFolder.create(root, SearchConfig(storage=url)))


def test_each_fault_of_a_database_is_told_with_what_to_do(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nowhere = f"postgresql://tuner@127.0.0.1:{port}/postgres"
    with pytest.raises(EnvironmentFault, match=rf"{nowhere}' cannot be used: .*refused.*psql"):
        opened(nowhere, tmp_path / "a")
    with pytest.raises(EnvironmentFault, match=r"host.invalid.*Check host and port"):
        opened("postgresql://tuner@host.invalid/postgres", tmp_path / "b")
    with pytest.raises(EnvironmentFault, match=r'database "nil" does not exist\. .*createdb nil'):
        opened(server.url("nil"), tmp_path / "c")
    monkeypatch.setenv("PGPASSWORD", "wrong one")
    with pytest.raises(EnvironmentFault, match=r"password authentication failed.*PGPASSWORD") as caught:
        opened(server.url(), tmp_path / "d")
    assert "wrong one" not in str(caught.value)
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(EnvironmentFault, match=r"no password supplied.*PGPASSWORD"):
        opened(server.url(), tmp_path / "e")


def test_the_password_may_stand_in_a_file_of_the_user(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSWORD")
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{server.port}:*:tuner:{postgresql.PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    opened(server.url(), tmp_path / "run")
    file.chmod(0o644)
    with pytest.raises(EnvironmentFault, match="mode 600"):
        opened(server.url(), tmp_path / "other")


def test_a_study_of_another_version_of_optuna_is_a_fault(server: postgresql.Server, folder: RunFolder) -> None:
    Study(folder)
    engine = open_database(server.url()).engine
    with engine.begin() as connection:
        (version,) = connection.exec_driver_sql("SELECT version_num FROM alembic_version").one()
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    try:
        close_databases()
        with pytest.raises(EnvironmentFault, match=r"version.*Install the same version"):
            load_trials(folder)
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
        engine.dispose()


def test_without_psycopg_the_extra_is_named(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'stable-cnn-tuner\[postgresql\]'"):
        opened(server.url(), tmp_path / "run")


def test_the_command_line_ends_with_the_code_of_the_contract(server: postgresql.Server, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tuner", "search", "--trials", "1", "--run", str(tmp_path / "run"), *arguments]
        environment = os.environ | {"PGPASSWORD": "wrong one", "TF_CPP_MIN_LOG_LEVEL": "3"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    refused = run("--storage", server.url().replace("@", ":hidden@"))
    assert refused.returncode == 2
    assert "PGPASSWORD" in refused.stderr
    assert "hidden" not in refused.stderr + refused.stdout
    wrong = run("--storage", server.url())
    assert wrong.returncode == 4, wrong.stderr
    assert "password authentication failed" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert not (tmp_path / "run").exists()
