"""The work of one worker process: the run's search space, oracle and tuner, trial after trial."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import time
from typing import Any

import keras
import keras_tuner
from keras_tuner.engine import trial as trial_module

from tuner.records import Trace
from tuner.search.adapting import Adapter
from tuner.search.confirm import confirm
from tuner.search.context import discover_space, judgement_of, training_data
from tuner.search.grid import check_grid
from tuner.search.machine import own_memory_bytes
from tuner.search.margins import apply_swept_range
from tuner.search.oracle import StudyOracle
from tuner.search.plan import plan_confirmation
from tuner.search.ranges import baseline_space
from tuner.search.study import Study
from tuner.search.tuner import StabilityTuner
from tuner.stability.judgement import Judgement
from tuner.store import RunFolder, write_json
from tuner.training.seedrun import StopTraining, TrainingData
from tuner.training.session import configure

__all__ = ["MAX_GROWTH_BYTES", "Growth", "OutOfRoom", "work"]

# How often a worker that has no trial left to run looks whether the others are done.
WAIT_S = 1.0


# A worker that has grown by so much since its first training was done makes room for a new one. Source: measured, 1 to
# 13 MB a training of a small CNN with TensorFlow 2.21 (docs/performance.md); a new worker takes some seconds.
MAX_GROWTH_BYTES = 1_000_000_000


class OutOfTime(StopTraining):
    """The time limit was reached in the middle of a trial, which goes back to the queue."""


class OutOfRoom(StopTraining):
    """This process has grown; what is left is for another one."""


class Growth:
    """How much this process has grown since its first training was done."""

    def __init__(self) -> None:
        self._num_asked = 0
        self._first_bytes: int | None = None

    def check(self) -> None:
        """Ask before every training.

        Raises:
            OutOfRoom: It has grown by too much.
        """
        self._num_asked += 1
        held = own_memory_bytes()
        if self._num_asked == 1 or held is None:
            return
        if self._first_bytes is None:
            self._first_bytes = held
        if held - self._first_bytes > MAX_GROWTH_BYTES:
            raise OutOfRoom


def work(folder: RunFolder, *, number: int = 0, deadline: float | None = None, only_confirm: bool = False) -> bool:
    """Run trials until the budget is used up, then confirm the finalists; or stop when the deadline has passed.

    Args:
        folder: A run that is set up.
        number: Of this worker; others may work on the same run.
        deadline: Unix time in seconds, or None.
        only_confirm: Carry out the confirmation that is planned in the folder, and nothing else.

    Returns:
        Whether there is nothing left to do, or no time; else another process should go on, for this one has grown.

    Raises:
        TunerError: The space or the storage is at fault.
    """
    try:
        _work(folder, number, deadline, only_confirm=only_confirm)
    except OutOfRoom:
        return False
    return True


def _work(folder: RunFolder, number: int, deadline: float | None, *, only_confirm: bool) -> None:
    growth = Growth()
    config = folder.load_config()
    write_json(folder.environment_file, folder.load_environment() | _environment())
    configure(precision=config.precision, jit=config.jit)
    hypermodel, space = discover_space(folder)
    # What was imported stays; looking through it after every training took 0.27 s (measured).
    gc.freeze()
    if not only_confirm:
        if config.lr_range == "auto":
            space = apply_swept_range(folder, hypermodel, space)
        study = Study.of_run(folder, worker=number)
        _search(folder, hypermodel, space, study=study, deadline=deadline, growth=growth)
        while _wait_for_others(study, deadline):
            _search(folder, hypermodel, space, study=study, deadline=deadline, growth=growth)
        if config.confirm and not _is_late(deadline):
            with folder.exclusive("plan"):
                plan_confirmation(folder, top=config.confirm)

    def is_late() -> bool:
        growth.check()
        return _is_late(deadline)

    confirm(folder, hypermodel, worker=number, is_late=is_late)


def _wait_for_others(study: Study, deadline: float | None) -> bool:
    """Wait until no other worker runs a trial any more; True as soon as one of them was put back, for this worker."""
    while not _is_late(deadline):
        study.put_back_lapsed()
        if study.num_waiting():
            return True
        if not study.num_running():
            return False
        time.sleep(WAIT_S)
    return False


def _search(
    folder: RunFolder,
    hypermodel: keras_tuner.HyperModel,
    space: keras_tuner.HyperParameters,
    *,
    study: Study,
    deadline: float | None,
    growth: Growth,
) -> None:
    config = folder.load_config()
    if config.algorithm == "grid":
        check_grid(space, trials=config.trials, num_others=bool(config.baseline))
    adapter = Adapter(folder) if config.adapt else None
    oracle = StudyOracle(
        study,
        max_trials=config.trials,
        hyperparameters=space,
        adapt=adapter,
        pruner=config.pruner,
        baseline=baseline_space(space, config.baseline) if config.baseline else None,
        target=config.target_objective,
    )
    tuner = StudyTuner(hypermodel, oracle, folder=folder, deadline=deadline, growth=growth)
    try:
        tuner.search(epochs=config.epochs, data_findings=folder.load_dataset().findings)
    except OutOfTime:
        study.give_back(crashed=False, worker=study.worker)


class StudyTuner(StabilityTuner):
    """The tuner of a run: data and judgement come from the run folder, the preprocessing is searched too."""

    def __init__(
        self,
        hypermodel: keras_tuner.HyperModel,
        oracle: StudyOracle,
        *,
        folder: RunFolder,
        deadline: float | None,
        growth: Growth,
    ) -> None:
        config = folder.load_config()
        self._deadline = deadline
        self._growth = growth
        self._dataset = folder.load_dataset()
        self._judgement = judgement_of(folder)
        self._study = oracle.study
        super().__init__(
            hypermodel,
            oracle,
            seed=config.seed,
            margin_weight=config.margin_weight,
            guard=config.guard,
            probes=config.probes,
            directory=str(folder.root.parent),
            project_name=folder.root.name,
        )

    def training_data(self, hp: keras_tuner.HyperParameters, *_: Any, **__: Any) -> TrainingData:
        """Arrays of the run folder."""
        return training_data(self.run_folder, self._dataset, dict(hp.values))

    def judgement(self, data: TrainingData) -> Judgement:
        """The run's."""
        return self._judgement

    def on_trial_begin(self, trial: trial_module.Trial) -> None:
        """Start clean: an interrupted attempt may have left more than what the trial goes on from."""
        self.run_folder.clear_trial(int(trial.trial_id))

    def on_epoch(self, trial: trial_module.Trial, epoch: int, trace: Trace, judgement: Judgement) -> str:
        """Report the epoch, and stop at the deadline (unless no trial has finished yet: then this one is finished)."""
        reason = super().on_epoch(trial, epoch, trace, judgement)
        if not reason and _is_late(self._deadline) and self._study.best_numbers(1):
            raise OutOfTime
        return reason

    def pre_create_trial(self) -> None:
        """Start no trial after the deadline, but for the first one, and none in a process that has grown."""
        self._growth.check()
        if _is_late(self._deadline) and self._study.best_numbers(1):
            raise OutOfTime

    def _populate_initial_space(self) -> None:
        """The space was discovered, and the user's ranges applied, before."""


def _is_late(deadline: float | None) -> bool:
    return deadline is not None and time.time() > deadline


def _environment() -> dict[str, str]:
    """Versions and hardware, for the report and the bundle; the command of the search stands there already."""
    packages = ("tensorflow", "keras", "keras-tuner", "optuna", "scikit-learn", "numpy", "pandas", "skops")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    devices = (
        [f"{device}" for device in keras.distribution.list_devices()] if keras.backend.backend() != "torch" else []
    )
    return {
        "python": platform.python_version(),
        **{name: version for name in packages if (version := _version(name))},
        "backend": keras.backend.backend(),
        "devices": ", ".join(devices),
        "platform": platform.platform(),
        "processor": f"{os.cpu_count()} cores, {platform.machine()}",
        "memory": f"{memory_gib:.1f} GiB",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
