"""Processes that load Keras before they are wanted: told to be a worker, never wanted, or dead by then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.config import SearchConfig
from tuner.leases import LEASE_VARIABLE
from tuner.search import standby
from tuner.search.crew import worker_log
from tuner.search.machine import environments_of
from tuner.search.parent import SUPERVISOR_VARIABLE
from tuner.search.standby import Standby, start_process
from tuner.search.supervisor import supervise
from tuner.store import RunFolder

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = [{"THREADS": "1"}, {"THREADS": "1"}]


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "num_cores", lambda: 4)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_that_waits_becomes_what_it_is_told_to_be(tmp_path: Path) -> None:
    """A real one: it loads Keras."""
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    with Standby([{}]) as waiting:
        process = waiting.order(["status", str(tmp_path / "none")], {}, more={"A": "b"}, log=log)
        assert process is not None
        assert waiting.order(["--version"], {}, more={}, log=log) is None
    assert process.wait(120) == 2
    first, rest = log.read_text().split("\n", 1)
    assert first == "before"
    assert rest.startswith("RunError: ")
    assert str(tmp_path / "none") in rest


TOLD = """
import os, sys, types
from tuner.search import standby
standby.load_keras = lambda: None
sys.modules["tuner.search.worker"] = types.ModuleType("worker")
arguments = standby.await_order()
print(arguments, os.environ["TUNER_LEASE"], repr(sys.stdin.read()))
os.write(2, b"an error")
"""


def test_an_order_brings_its_arguments_environment_and_log(tmp_path: Path) -> None:
    order = {"arguments": ["worker", "x"], "environment": {"TUNER_LEASE": "abc"}, "log": str(tmp_path / "log")}
    done = subprocess.run(
        [sys.executable, "-c", TOLD], cwd=ROOT, input=json.dumps(order), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["['worker', 'x'] abc ''", "an error"]


@pytest.mark.parametrize("backend", ["", "nonsense"])
def test_a_process_that_is_not_wanted_ends_without_a_word(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend:
        monkeypatch.setenv("KERAS_BACKEND", backend)
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "standby"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphaned workers on Linux only")
@pytest.mark.parametrize("arguments", [["worker", "run"], ["standby"]])
def test_a_process_whose_parent_died_while_it_started_ends_at_once(arguments: list[str], tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", SearchConfig())
    started = subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=tmp_path,
        env=os.environ | {SUPERVISOR_VARIABLE: "1", "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
        capture_output=True,
        stdin=subprocess.PIPE,
    )
    assert started.returncode == -signal.SIGKILL


def test_the_order_holds_command_environment_and_log(tmp_path: Path, set_program: Callable[[str], None]) -> None:
    set_program('echo "$* $THREADS" > started.$$; cat > order.$$')
    with Standby(ENVIRONMENTS) as waiting:
        orders = [
            waiting.order([f"worker {n}"], {"THREADS": "1"}, more={"L": str(n)}, log=tmp_path / "log") for n in range(3)
        ]
        assert orders[2] is None
        pids = [process.pid for process in orders[:2] if process]
        assert [process.wait(20) for process in orders[:2] if process] == [0, 0]
    assert [(tmp_path / f"started.{pid}").read_text() for pid in pids] == ["-m tuner standby 1\n"] * 2
    told = [json.loads((tmp_path / f"order.{pid}").read_text()) for pid in pids]
    assert told == [
        {"arguments": [f"worker {n}"], "environment": {"L": str(n)}, "log": str(tmp_path / "log")} for n in range(2)
    ]


def test_only_a_process_with_the_same_environment_is_taken(tmp_path: Path, set_program: Callable[[str], None]) -> None:
    set_program("exec sleep 60")
    with Standby(ENVIRONMENTS) as waiting:
        assert waiting.order(["worker"], {"THREADS": "2"}, more={}, log=tmp_path / "log") is None
        process = waiting.order(["worker"], {"THREADS": "1"}, more={}, log=tmp_path / "log")
        assert process is not None
    assert process.poll() is None
    process.kill()
    process.wait()


@pytest.mark.parametrize("is_left_early", [False, True])
def test_those_without_an_order_end_when_the_block_is_left(
    is_left_early: bool, tmp_path: Path, set_program: Callable[[str], None]
) -> None:
    set_program("echo $$ > pid.$$.new; mv pid.$$.new pid.$$; exec sleep 60")
    try:
        with Standby(ENVIRONMENTS):
            while len(files := list(tmp_path.glob("pid.*[0-9]"))) < 2:
                time.sleep(0.02)
            if is_left_early:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert not any(is_alive(int(file.read_text())) for file in files)


def test_one_that_has_died_is_not_taken(tmp_path: Path, set_program: Callable[[str], None]) -> None:
    set_program("exec sleep 60")
    with Standby(ENVIRONMENTS) as waiting:
        for _, process in waiting._waiting[:1]:
            process.kill()
            process.wait()
        process = waiting.order(["worker"], {"THREADS": "1"}, more={}, log=tmp_path / "log")
        assert process is not None
        assert process.poll() is None
        assert waiting.order(["worker"], {"THREADS": "1"}, more={}, log=tmp_path / "log") is None
    process.kill()
    process.wait()


@pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 1), (3, 2), (9, 2)])
def test_one_core_is_left_to_the_process_that_starts_them(
    cores: int, expected: int, set_program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_program("exec sleep 60")
    monkeypatch.setattr(standby, "num_cores", lambda: cores)
    with Standby(ENVIRONMENTS) as waiting:
        assert len(waiting._waiting) == expected


def test_where_no_process_can_be_started_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with Standby(ENVIRONMENTS) as waiting:
        assert waiting.order(["worker"], {"THREADS": "1"}, more={}, log=tmp_path / "log") is None


def test_a_search_gives_its_workers_orders_and_starts_those_that_are_missing(
    tmp_path: Path, set_program: Callable[[str], None]
) -> None:
    folder = RunFolder.create(tmp_path / "run", SearchConfig(trials=3, workers=2))
    set_program(f'[ "$3" = standby ] && exec cat > order; echo "$* ${LEASE_VARIABLE}"')
    with Standby(environments_of(folder.load_config())[:1]) as waiting:
        supervise(folder, on_tick=lambda: None, standby=waiting, deadline=5.0)
    order = json.loads((tmp_path / "order").read_text())
    assert order["arguments"] == ["worker", "--until", "5.0", "--number", "0", "--", str(folder.root)]
    assert order["log"] == str(worker_log(folder, 0))
    *words, lease = worker_log(folder, 1).read_text().split()
    assert words == ["-m", "tuner", "worker", "--until", "5.0", "--number", "1", "--", str(folder.root)]
    assert set(order["environment"]) == {LEASE_VARIABLE}
    assert len({lease, order["environment"][LEASE_VARIABLE]}) == 2


def test_a_started_process_sees_its_environment_and_nothing_on_standard_input(
    tmp_path: Path, set_program: Callable[[str], None]
) -> None:
    set_program('echo "$* $A $TF_CPP_MIN_LOG_LEVEL $(cat)"')
    with (tmp_path / "log").open("wb") as log:
        process = start_process(["worker"], {"A": "b"}, output=log)
    assert process.wait(20) == 0
    quiet = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")
    assert (tmp_path / "log").read_text().split() == ["-m", "tuner", "worker", "b", quiet]
