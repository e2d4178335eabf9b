"""The supervisor: workers that end well, report an error, meet a bug or die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from tuner.config import SearchConfig
from tuner.errors import EnvironmentFault, SpaceError, TunerError
from tuner.records import Outcome
from tuner.search import crew, study, supervisor
from tuner.search.crew import worker_log
from tuner.search.study import Study, load_trials
from tuner.search.supervisor import WorkerBug, WornOut, run_worker, supervise
from tuner.search.worker import MAX_GROWTH_BYTES, Growth, OutOfRoom
from tuner.stability.score import failed_objective
from tuner.store import RunFolder

ROOT = Path(__file__).parents[2]
SetWorker = Callable[[str], None]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "a run's folder", SearchConfig(trials=3, workers=1))


@pytest.fixture
def set_worker(set_program: SetWorker, monkeypatch: pytest.MonkeyPatch) -> SetWorker:
    """Puts a shell script in the place of the worker's Python; its last argument is the run folder."""
    monkeypatch.setattr(supervisor, "POLL_S", 0.02)
    monkeypatch.setattr(supervisor, "TICK_S", 0.02)
    return set_program


def run(folder: RunFolder, on_tick: Callable[[], None] = lambda: None, *, deadline: float | None = None) -> None:
    supervise(folder, deadline=deadline, on_tick=on_tick)


# --- how a worker ends -------------------------------------------------------------------------------------------


def test_a_worker_that_is_done_ends_the_search(folder: RunFolder, set_worker: SetWorker) -> None:
    set_worker("echo done >> started; exit 0")
    ticks: list[int] = []
    run(folder, lambda: ticks.append(1))
    assert (folder.root.parent / "started").read_text() == "done\n"
    assert ticks


def test_a_display_that_takes_long_is_shown_less_often(
    folder: RunFolder, set_worker: SetWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_worker("sleep 0.5")
    monkeypatch.setattr(supervisor, "TICK_FRAC", 0.0001)
    ticks: list[int] = []
    run(folder, lambda: ticks.append(sum(range(200_000))))
    assert len(ticks) == 2  # At the start, and when the worker has ended.


def test_a_worker_that_has_grown_is_followed_by_another_as_often_as_it_takes(
    folder: RunFolder, set_worker: SetWorker
) -> None:
    set_worker("echo started >> starts; [ $(wc -l < starts) -gt 12 ] && exit 0; exit 76")
    run(folder)
    assert len((folder.root.parent / "starts").read_text().splitlines()) == 13
    assert Study(folder).num_finished() == 0


NVIDIA_SMI = """
case "$*" in
*memory*) printf '0, GPU-a, 1000, 8000\\n1, GPU-b, 5000, 8000\\n' ;;
*) printf '0\\n1\\n' ;;
esac
"""


@pytest.mark.parametrize(
    ("workers", "trials", "are_all_done", "expected"),
    [
        ("auto", 16, True, [4, 1]),
        ("auto", 7, True, [2, 1]),
        ("auto", 6, True, [1, 1]),
        ("auto", 16, False, [1, 1]),
        (2, 16, True, [1, 1]),
    ],
)
def test_cards_with_room_get_more_workers_while_trials_are_left(
    tmp_path: Path,
    set_worker: SetWorker,
    monkeypatch: pytest.MonkeyPatch,
    workers: Literal["auto"] | int,
    trials: int,
    are_all_done: bool,
    expected: list[int],
) -> None:
    """Of the driver's program there is a stand-in alone."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{NVIDIA_SMI}", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(crew, "num_cores", lambda: 8)
    monkeypatch.setattr(supervisor, "TICK_FRAC", 1e9)
    folder = RunFolder.create(tmp_path / "run", SearchConfig(trials=trials, workers=workers))
    set_worker(
        'echo "$CUDA_VISIBLE_DEVICES $TF_FORCE_GPU_ALLOW_GROWTH" >> cards; while [ ! -e done ]; do sleep 0.02; done'
    )

    def finish_trials() -> None:
        there = len(list(folder.logs_dir.glob("worker-*.log"))) if are_all_done else 1
        for number in range(there):
            study = Study(folder, worker=number)
            trial = study.ask(trials)
            if trial is None:
                (tmp_path / "done").touch()
                return
            study.describe(trial.number, {"rate": 0.5})
            study.finish(trial.number, 0.1, outcome=Outcome.COMPLETED)

    run(folder, finish_trials)
    cards = [line.split(" ") for line in (tmp_path / "cards").read_text().splitlines()]
    assert [sum(card == name for card, _ in cards) for name in ("0", "1")] == expected
    assert {is_growing for _, is_growing in cards} == {"true" if workers == "auto" else ""}


def test_the_worker_is_told_folder_and_deadline(folder: RunFolder, set_worker: SetWorker) -> None:
    set_worker('for word in "$@"; do echo "$word"; done')
    run(folder, deadline=1234567890.25)
    assert worker_log(folder).read_text().splitlines() == [
        "-m",
        "tuner",
        "worker",
        "--until",
        "1234567890.25",
        "--number",
        "0",
        "--",
        str(folder.root),
    ]


def test_a_bug_is_not_tried_again(folder: RunFolder, set_worker: SetWorker) -> None:
    set_worker("echo start >> started; echo 'ValueError: some bug' >&2; exit 70")
    study = Study(folder)
    study.ask(3)
    with pytest.raises(WorkerBug, match=r"bug of the program.*exit code 70(.|\n)*ValueError: some bug") as caught:
        run(folder)
    assert caught.value.exit_code == 70
    assert (folder.root.parent / "started").read_text() == "start\n"
    assert load_trials(folder)[0].outcome is Outcome.WAITING


@pytest.mark.parametrize("kind", [SpaceError, EnvironmentFault])
def test_a_reported_error_passes_through_as_what_it_is(
    folder: RunFolder, set_worker: SetWorker, monkeypatch: pytest.MonkeyPatch, kind: type[TunerError]
) -> None:
    report = json.dumps({"type": kind.__name__, "message": "unknown hyperparameter 'x'"})
    monkeypatch.setenv("REPORT", report)
    error_file = folder.logs_dir / "worker-0.error.json"
    set_worker(f'printf \'%s\' "$REPORT" > "{error_file}"; exit {kind.exit_code}')
    with pytest.raises(kind, match=r"^unknown hyperparameter 'x'$"):
        run(folder)
    # An old report is not taken for the next worker's.
    set_worker("exit 0")
    run(folder)


class Script:
    """What a fake worker does, decided in this process: a segmentation fault, or exit 0, when told to."""

    TEXT = "while :; do [ -e die ] && rm die && kill -${SIGNAL:-11} $$; [ -e done ] && exit 0; sleep 0.02; done"

    def __init__(
        self,
        folder: RunFolder,
        *,
        crashing: int,
        total: int,
        outcome: Outcome = Outcome.COMPLETED,
        hyperparameters: dict[str, Any] | None = None,
    ) -> None:
        self._hyperparameters = hyperparameters or {}
        self._study = Study(folder)
        self._folder = folder
        self._crashing = crashing
        self._total = total
        self._outcome = outcome

    def tick(self) -> None:
        """Work on the next trial: the first ones take the worker down, the others end."""
        if any(trial.outcome is Outcome.RUNNING for trial in load_trials(self._folder)):
            return
        trial = self._study.ask(self._total)
        if trial is None:
            (self._folder.root.parent / "done").touch()
        elif trial.number < self._crashing:
            self._study.describe(trial.number, self._hyperparameters)
            (self._folder.root.parent / "die").touch()
        else:
            self._study.finish(trial.number, 1.0, outcome=self._outcome)


def test_a_trial_that_kills_its_worker_twice_is_ended_and_the_search_goes_on(
    folder: RunFolder, set_worker: SetWorker
) -> None:
    set_worker("echo start >> started; echo 'out of memory' >&2; " + Script.TEXT)
    run(folder, Script(folder, crashing=1, total=3).tick)
    trials = load_trials(folder)
    assert [trial.outcome for trial in trials] == [Outcome.CRASHED, Outcome.COMPLETED, Outcome.COMPLETED]
    assert trials[0].objective == failed_objective(0.0, weight=0.2)
    assert "signal 11 (Segmentation fault)" in trials[0].message
    assert "out of memory" in trials[0].message
    assert (folder.root.parent / "started").read_text() == "start\n" * 3


CRASH = """Fatal Python error: Segmentation fault

Current thread 0x00007f6a09c3bb80 (most recent call first):
  File "space.py", line 3 in build
  File "tuner.py", line 4 in run

Extension modules: numpy (total: 1)
"""


@pytest.mark.parametrize(("signal_number", "is_told"), [(11, True), (9, False)])
def test_where_the_interpreter_crashed_is_told(
    folder: RunFolder,
    set_worker: SetWorker,
    monkeypatch: pytest.MonkeyPatch,
    signal_number: int,
    is_told: bool,
) -> None:
    monkeypatch.setenv("SIGNAL", str(signal_number))
    set_worker(f"cat >&2 <<'end'\n{CRASH}end\n{Script.TEXT}")
    run(folder, Script(folder, crashing=1, total=2).tick)
    message = load_trials(folder)[0].message
    told = '  Fatal Python error: Segmentation fault\n  File "space.py", line 3 in build\n'
    assert (told.replace("  File", "    File") in message) is is_told
    assert ("Extension modules" in message) is not is_told


def test_a_worker_that_crashes_says_where(folder: RunFolder) -> None:
    """A real crash, in a process of its own."""
    script = "import os\nfrom pathlib import Path\nimport sys\nfrom tuner.search import supervisor, worker\n"
    script += "def crash(*_, **__):\n    os.abort()\n"
    script += "worker.work = crash\nsupervisor.run_worker(supervisor.RunFolder(Path(sys.argv[1])))\n"
    command = [sys.executable, "-c", script, str(folder.root)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in ended.stderr
    assert "in crash" in ended.stderr


@pytest.mark.parametrize("crashing", [3, 99])
def test_trials_that_kill_their_workers_one_after_the_other_end_the_search_when_five_did(
    folder: RunFolder, set_worker: SetWorker, crashing: int
) -> None:
    set_worker(Script.TEXT)
    script = Script(folder, crashing=crashing, total=4)
    if crashing == 3:
        run(folder, script.tick)
        assert [trial.outcome for trial in load_trials(folder)] == [Outcome.CRASHED] * 3 + [Outcome.COMPLETED]
        return
    script = Script(folder, crashing=crashing, total=99)
    with pytest.raises(SpaceError, match=r"5 trials in a row failed for the same reason: It ended by signal 11"):
        run(folder, script.tick)


@pytest.mark.parametrize(
    ("signal_number", "outcome", "deaths"),
    [(11, Outcome.CRASHED, study.MAX_ATTEMPTS), (9, Outcome.CRASHED, study.MAX_KILLS)],
)
def test_a_kill_from_outside_says_less_of_a_trial_than_a_crash(
    folder: RunFolder,
    set_worker: SetWorker,
    monkeypatch: pytest.MonkeyPatch,
    signal_number: int,
    outcome: Outcome,
    deaths: int,
) -> None:
    monkeypatch.setenv("SIGNAL", str(signal_number))
    set_worker("echo start >> started; " + Script.TEXT)
    run(folder, Script(folder, crashing=1, total=2).tick)
    assert [trial.outcome for trial in load_trials(folder)] == [outcome, Outcome.COMPLETED]
    assert (folder.root.parent / "started").read_text() == "start\n" * (deaths + 1)


@pytest.mark.parametrize(
    ("hyperparameters", "deaths"), [({"batch_size": 64, "learning_rate": 0.1}, 2), ({"batch_size": 64}, 1)]
)
def test_a_trial_that_the_kernel_kills_for_its_memory_has_one_more_try_if_its_batch_can_be_halved(
    folder: RunFolder,
    set_worker: SetWorker,
    monkeypatch: pytest.MonkeyPatch,
    hyperparameters: dict[str, Any],
    deaths: int,
) -> None:
    monkeypatch.setenv("SIGNAL", "9")
    kills = iter(range(1000))  # The kernel's counter, which rises.
    monkeypatch.setattr(supervisor, "num_memory_kills", lambda: next(kills))
    set_worker("echo start >> started; " + Script.TEXT)
    run(folder, Script(folder, crashing=1, total=2, hyperparameters=hyperparameters).tick)
    trials = load_trials(folder)
    assert [trial.outcome for trial in trials] == [Outcome.INFEASIBLE, Outcome.COMPLETED]
    assert "because memory ran out" in trials[0].message
    assert (folder.root.parent / "started").read_text() == "start\n" * (deaths + 1)


def test_the_search_gives_up_when_workers_die_in_a_row(
    folder: RunFolder, set_worker: SetWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_worker("echo start >> started; kill -11 $$")
    with pytest.raises(EnvironmentFault, match=r"died 4 times in a row\. It ended by signal 11"):
        run(folder)
    assert (folder.root.parent / "started").read_text() == "start\n" * supervisor.MAX_DEATHS_IN_A_ROW
    monkeypatch.setattr(supervisor, "MAX_DEATHS_IN_A_ROW", 1)
    set_worker("exit 9")
    with pytest.raises(EnvironmentFault, match=r"died 1 times in a row\. It ended with exit code 9"):
        run(folder)


def test_workers_that_finish_trials_between_their_deaths_may_die_often(
    folder: RunFolder, set_worker: SetWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A diverged trial is a result like any other.
    monkeypatch.setattr(supervisor, "MAX_DEATHS_IN_A_ROW", 2)
    set_worker("touch alive; while :; do [ -e die ] && rm alive die && kill -9 $$; [ -e done ] && exit 0; done")
    study = Study(folder)
    numbers: list[int] = []

    def tick() -> None:
        alive, done, die = (folder.root.parent / name for name in ("alive", "done", "die"))
        if len(numbers) == 4:
            done.touch()
        elif alive.exists() and not die.exists():
            trial = study.ask(99)
            assert trial is not None
            numbers.append(trial.number)
            study.finish(trial.number, 1.0, outcome=Outcome.DIVERGED)
            die.touch()

    run(folder, tick)
    assert numbers == [0, 1, 2, 3]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, ValueError])
def test_leaving_early_ends_the_worker_and_puts_its_trial_back(
    folder: RunFolder, set_worker: SetWorker, exception: type[BaseException]
) -> None:
    set_worker("echo $$ > pid; exec sleep 60")
    pid_file = folder.root.parent / "pid"

    def tick() -> None:
        if pid_file.exists() and pid_file.read_text().endswith("\n"):
            Study(folder).ask(3)
            raise exception

    with pytest.raises(exception):
        run(folder, tick)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    assert [trial.outcome for trial in load_trials(folder)] == [Outcome.WAITING]


def test_a_worker_that_does_not_listen_is_killed(
    folder: RunFolder, set_worker: SetWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "STOP_GRACE_S", 0.1)
    set_worker("trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done")
    pid_file = folder.root.parent / "pid"

    def tick() -> None:
        if pid_file.exists() and pid_file.read_text().endswith("\n"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, tick)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_trials_of_a_supervisor_that_was_killed_are_put_back_at_the_start(
    folder: RunFolder, set_worker: SetWorker
) -> None:
    Study(folder).ask(3)
    set_worker("exit 0")
    run(folder)
    assert [trial.outcome for trial in load_trials(folder)] == [Outcome.WAITING]


# --- several workers ---------------------------------------------------------------------------------------------


@pytest.fixture
def shared_folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "shared", SearchConfig(trials=3, workers=2))


def test_each_worker_has_its_number_its_log_and_one_thread(
    shared_folder: RunFolder, set_worker: SetWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    set_worker('echo "$5 threads $OMP_NUM_THREADS $TF_NUM_INTRAOP_THREADS"')
    run(shared_folder)
    assert [worker_log(shared_folder, number).read_text() for number in (0, 1)] == [
        "0 threads 1 1\n",
        "1 threads 1 1\n",
    ]
    # One alone has all cores.
    shared_folder.save_config(SearchConfig(trials=3, workers=1))
    worker_log(shared_folder).unlink()
    run(shared_folder)
    assert worker_log(shared_folder).read_text().split() == [
        "0",
        "threads",
        *os.environ.get("TF_NUM_INTRAOP_THREADS", "").split(),
    ]


def test_only_the_trial_of_the_worker_that_died_is_put_back(shared_folder: RunFolder, set_worker: SetWorker) -> None:
    set_worker(
        'echo $5 >> started; while :; do [ -e "die-$5" ] && rm "die-$5" && kill -9 $$; [ -e done ] && exit 0; '
        "sleep 0.02; done"
    )
    here = shared_folder.root.parent
    seen: list[list[tuple[Outcome, int | None]]] = []

    def tick() -> None:
        trials = [(trial.outcome, trial.worker) for trial in load_trials(shared_folder)]
        if not trials:
            for worker in (0, 1):
                Study(shared_folder, worker=worker).ask(3)
            (here / "die-1").touch()
        elif trials[1][0] is Outcome.WAITING:
            seen.append(trials)
            (here / "done").touch()

    run(shared_folder, tick)
    assert seen[0] == [(Outcome.RUNNING, 0), (Outcome.WAITING, None)]
    assert sorted((here / "started").read_text().split()) == ["0", "1", "1"]


def test_what_one_worker_reports_ends_the_others(
    shared_folder: RunFolder, set_worker: SetWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORT", json.dumps({"type": "SpaceError", "message": "no such space"}))
    error_file = shared_folder.logs_dir / "worker-1.error.json"
    set_worker(
        f"if [ $5 = 0 ]; then echo $$ > pid; exec sleep 60; fi; while [ ! -e pid ]; do sleep 0.02; done; "
        f"printf '%s' \"$REPORT\" > '{error_file}'; exit 2"
    )
    with pytest.raises(SpaceError, match="no such space"):
        run(shared_folder)
    with pytest.raises(ProcessLookupError):
        os.kill(int((shared_folder.root.parent / "pid").read_text()), 0)


def test_workers_may_die_in_a_row_as_often_each(shared_folder: RunFolder, set_worker: SetWorker) -> None:
    set_worker("echo start >> started; kill -11 $$")
    with pytest.raises(EnvironmentFault, match=r"Workers died 8 times in a row"):
        run(shared_folder)


# --- the worker's side -------------------------------------------------------------------------------------------


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Has the worker's work fail with an exception."""
    monkeypatch.setattr(supervisor, "end_with_parent", lambda: None)

    def fail_with(error: BaseException) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr("tuner.search.worker.work", fail)

    return fail_with


def reported(folder: RunFolder) -> dict[str, str]:
    return dict(json.loads((folder.logs_dir / "worker-0.error.json").read_text()))


def test_a_worker_that_leaves_work_undone_says_that_another_one_must_do_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "end_with_parent", lambda: None)
    monkeypatch.setattr("tuner.search.worker.work", lambda *_, **__: False)
    with pytest.raises(WornOut, match="has grown since its first training") as raised:
        run_worker(folder)
    assert raised.value.exit_code == 76
    assert not (folder.logs_dir / "worker-0.error.json").exists()
    monkeypatch.setattr("tuner.search.worker.work", lambda *_, **__: True)
    run_worker(folder)


@pytest.mark.parametrize(("grown_bytes", "is_full"), [(MAX_GROWTH_BYTES, False), (MAX_GROWTH_BYTES + 1, True)])
def test_growth_counts_from_the_first_training_on(
    monkeypatch: pytest.MonkeyPatch, grown_bytes: int, *, is_full: bool
) -> None:
    held = iter([10**8, 10**9, 10**9 + grown_bytes])
    monkeypatch.setattr("tuner.search.worker.own_memory_bytes", lambda: next(held))
    growth = Growth()
    # Before the first training nothing is loaded yet.
    growth.check()
    growth.check()
    with pytest.raises(OutOfRoom) if is_full else contextlib.nullcontext():
        growth.check()


def test_where_nobody_says_what_a_process_holds_it_never_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.search.worker.own_memory_bytes", lambda: None)
    growth = Growth()
    for _ in range(4):
        growth.check()


def test_the_worker_writes_down_what_the_user_can_mend(folder: RunFolder, work: Any) -> None:
    work(SpaceError("no such space"))
    with pytest.raises(SpaceError):
        run_worker(folder)
    assert reported(folder) == {"type": "SpaceError", "message": "no such space"}


def test_a_missing_package_is_a_fault_of_the_environment(folder: RunFolder, work: Any) -> None:
    work(ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow.python"))
    with pytest.raises(EnvironmentFault, match=r"'tensorflow' is missing or broken.*-m pip install tensorflow"):
        run_worker(folder)
    assert reported(folder)["type"] == "EnvironmentFault"


def test_an_unknown_backend_of_keras_is_a_fault_of_the_environment(folder: RunFolder, work: Any, monkeypatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    work(ValueError("Unable to import backend : nonsense"))
    with pytest.raises(EnvironmentFault, match=r"Keras has no backend 'nonsense'\. Set KERAS_BACKEND"):
        run_worker(folder)


def test_memory_that_ran_out_beside_a_training_is_a_fault_of_the_environment(folder: RunFolder, work: Any) -> None:
    work(MemoryError("Unable to allocate 15.3 MiB"))
    with pytest.raises(EnvironmentFault, match=r"Memory ran out: Unable to allocate 15\.3 MiB\. Use fewer --workers"):
        run_worker(folder)
    assert reported(folder)["type"] == "EnvironmentFault"


@pytest.mark.parametrize("error", [ImportError("cannot import name 'x'", name="tuner.search"), ValueError("bug")])
def test_a_bug_of_ours_is_reported_as_nothing_else(folder: RunFolder, work: Any, error: Exception) -> None:
    work(error)
    with pytest.raises(type(error)):
        run_worker(folder)
    assert not (folder.logs_dir / "worker-0.error.json").exists()


def test_a_full_disk_under_the_study_is_a_fault_of_the_environment(folder: RunFolder, work: Any) -> None:
    import sqlite3

    from sqlalchemy.exc import OperationalError

    work(OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")))
    with pytest.raises(TunerError, match=r"study\.db.*database or disk is full"):
        run_worker(folder)
    assert reported(folder)["type"] == "EnvironmentFault"
