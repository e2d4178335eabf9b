"""A run as TensorBoard reads it: one folder a trial, its curves as scalars and its configuration as HParams."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tuner.errors import RunError, package_faults
from tuner.records import FINISHED_OUTCOMES, TrialRecord
from tuner.search.study import load_trials
from tuner.store import RunFolder, storage_errors

__all__ = ["write_tensorboard"]


def write_tensorboard(folder: RunFolder, output: Path) -> int:
    """Write the finished trials of a run as event files, which `tensorboard --logdir OUTPUT` shows.

    Args:
        folder: A run, with finished trials or without.
        output: Folder for them; made if need be, and refused if something is in it.

    Returns:
        How many trials were written.

    Raises:
        RunError: The folder is not empty.
        EnvironmentFault: The package tensorboard is missing, or the folder cannot be written.
    """
    with package_faults():
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    if output.is_dir() and any(output.iterdir()):
        raise RunError(f"{str(output)!r} is not empty, and TensorBoard would show both. Name a new folder.")
    trials = [trial for trial in load_trials(folder) if trial.outcome in FINISHED_OUTCOMES]
    with storage_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        for trial in trials:
            writer = EventFileWriter(str(output / f"trial_{trial.number:04d}"))
            for event in _events(trial, _curves(folder, trial)):
                writer.add_event(event)
            writer.close()
    return len(trials)


def _curves(folder: RunFolder, trial: TrialRecord) -> dict[str, Iterable[float]]:
    """By epoch; those of the trace, or what was reported of a trial that left none."""
    curves: dict[str, Iterable[float]] = {"objective by epoch": trial.epoch_objectives}
    try:
        trace = folder.load_trace(trial.number, 0)
    except RunError:
        return curves | {"val_loss": trial.epoch_losses}
    curves |= {"loss": trace.train_loss, "val_loss": trace.validation_loss, "learning_rate": trace.learning_rate}
    return curves | {f"val_{name}": values for name, values in trace.metrics.items()}


def _events(trial: TrialRecord, curves: Mapping[str, Iterable[float]]) -> Iterator[Any]:
    """Configuration first, as the HParams tab wants it, then the curves, then the results."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import summary_v2

    started = trial.started or 0.0
    hyperparameters = {name: value for name, value in trial.hyperparameters.items() if value is not None}
    configuration = summary_v2.hparams_pb(
        hyperparameters, trial_id=f"trial_{trial.number:04d}", start_time_secs=int(started)
    )
    yield Event(wall_time=started, step=0, summary=configuration)
    for name, values in curves.items():
        for epoch, value in enumerate(values, start=1):
            yield _scalar(name, float(value), step=epoch, at=started)
    own = trial.search_run
    results = {"objective": trial.objective, "stability": trial.stability, "error": own.error if own else None}
    for name, result in results.items():
        if result is not None and math.isfinite(result):
            yield _scalar(name, result, step=max(1, len(trial.epoch_losses)), at=trial.finished or started)


def _scalar(tag: str, value: float, *, step: int, at: float) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Event(wall_time=at, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
