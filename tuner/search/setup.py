"""Setting up a run: data read, split and audited, run folder made, or an unfinished one found again."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.config import RESUMABLE_KEYS, SearchConfig
from tuner.data import audit, cache, choices, room, sources, split, tables
from tuner.data.options import ReadOptions
from tuner.data.sources import Dataset
from tuner.data.split import Split
from tuner.data.transformers.channels import is_value
from tuner.database import open_database
from tuner.errors import AuditError, ConfigError, RunError, TunerError, require_backend
from tuner.records import DatasetRecord, DataSpec, Finding
from tuner.search import space_files
from tuner.stability.judgement import chance_levels, choose_metric
from tuner.store import RunFolder, atomic_open, storage_errors, write_json
from tuner.tasks import TASKS

__all__ = ["choose_folder", "describe_dataset", "discard_if_unused", "note_start", "prepare", "read_data"]

RUNS_DIR = Path("runs")
# A repository that takes longer to say its state is left out.
GIT_TIMEOUT_S = 10.0


@dataclasses.dataclass(frozen=True)
class _Read:
    """The data of a run as read, with everything that follows from it."""

    dataset: Dataset
    split: Split
    record: DatasetRecord


def read_data(config: SearchConfig, *, before: Callable[[str, int, int], None] | None = None) -> _Read:
    """Read, split and audit the data of a configuration.

    Args:
        config: Of the search.
        before: As for `audit.audit`.

    Raises:
        DataError: The data cannot be read or learned from.
        ConfigError: The metric does not fit the task.
    """
    dataset = sources.load(config.data, ReadOptions.of(config))
    parts = split.split_dataset(dataset, seed=config.seed)
    dataset = tables.without_unseen_words(dataset, parts.train)
    findings = audit.audit(dataset, parts, before=before)
    return _Read(dataset, parts, describe_dataset(config, dataset, parts, findings=findings))


def describe_dataset(
    config: SearchConfig, dataset: Dataset, parts: Split, *, findings: tuple[Finding, ...]
) -> DatasetRecord:
    """What a run knows of its data.

    Raises:
        ConfigError: The metric does not fit the task.
    """
    spec = dataset.spec
    y_train = dataset.y[parts.train]

    def counts_of(y: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if y.ndim == 2:
            return np.asarray(y.sum(axis=0), np.int64)
        return np.bincount(y.astype(np.int64), minlength=spec.num_classes) if spec.num_classes else np.empty(0, int)

    _refuse_metric(config, spec)
    # By the training part, like everything that is learned from the data.
    metric = (
        choose_metric(counts_of(y_train), is_multilabel=spec.task == "multilabel")
        if config.metric == "auto"
        else config.metric
    )
    # The target of a regression is scaled to variance 1 before training.
    chance_loss, chance_error = (
        chance_levels(y_train, num_classes=spec.num_classes, metric=metric) if spec.num_classes else (1.0, 1.0)
    )
    return DatasetRecord(
        source=config.data or "scikit-learn digits",
        spec=spec,
        fingerprint=split.fingerprint(dataset.x, dataset.y, parts),
        num_train=len(parts.train),
        num_validation=len(parts.validation),
        num_test=len(parts.test),
        class_counts=tuple(counts_of(dataset.y).tolist()),
        num_features_missing=_num_features_missing(dataset),
        chance_loss=chance_loss,
        chance_error=chance_error,
        metric=metric,
        proposed=choices.proposals(spec, dataset.x, rows=parts.train, findings=audit.propose(dataset, parts)),
        notes=(*dataset.notes, *parts.notes),
        findings=findings,
    )


def _refuse_metric(config: SearchConfig, spec: DataSpec) -> None:
    """Refuse a metric or an objective that means nothing for the task."""
    suited = TASKS[spec.task].metrics
    asked = "accuracy" if config.objective == "val_accuracy" else config.metric
    if asked in ("auto", "loss") or asked in suited:
        return
    option = f"--objective {config.objective}" if config.objective == "val_accuracy" else f"--metric {config.metric}"
    what = {"multilabel": "several labels", "regression": "numbers"}.get(spec.task, "classes")
    raise ConfigError(
        f"{option} does not fit {what} (task {spec.task}). Use --metric {' or '.join([*suited, 'loss'])}"
        f"{' --objective stable' if config.objective == 'val_accuracy' else ''}."
    )


def prepare(
    config: SearchConfig, root: Path, *, before: Callable[[str, int, int], None] | None = None
) -> tuple[RunFolder, DatasetRecord]:
    """Make the run folder, or check that the existing one is of the same data and settings.

    Args:
        config: Of the search.
        root: The folder.
        before: As for `audit.audit`.

    Returns:
        The folder, with the data in it, and what is known of the data.

    Raises:
        RunError: The folder holds a run of other data or settings, or another process works on it.
        SpaceError: There is no such search space.
        AuditError: The audit found severe faults and `force` is not set.
        EnvironmentFault: The folder or the database cannot be used.
    """
    folder = RunFolder(root)
    _refuse_early(folder, config)
    data = read_data(config, before=before)
    severe = [finding for finding in data.record.findings if finding.severity >= audit.SEVERE]
    if severe and not config.force:
        listed = "\n".join(f"  {finding.code}: {finding.cause}" for finding in severe)
        raise AuditError(f"The data has severe faults:\n{listed}\nMend them, or search all the same with --force.")
    with storage_errors(root):
        _refuse_foreign(folder)
        root.mkdir(parents=True, exist_ok=True)
    # Held while it is written: a search that is refused must not change the settings of the one that runs.
    with folder.lock():
        if folder.config_file.is_file() and _has_begun(folder, config):
            _check_same_data(folder, data.record)
            folder.save_config(config)
            # The budget may have grown; a search that is at its end says so again.
            folder.ending_file.unlink(missing_ok=True)
        else:
            folder = RunFolder.create(root, config)
            _copy_space(config, folder)
            cache.save_raw(folder.data_dir, data.dataset, data.split)
            # Last: where this file is, the data is complete.
            folder.save_dataset(data.record)
    return folder, data.record


def _refuse_early(folder: RunFolder, config: SearchConfig) -> None:
    """Refuse what can be known before the data are read, which may take long."""
    require_backend()
    if config.storage:
        # A run that names a wrong one would be of no use, and in the way of the right one.
        open_database(config.storage)
    with storage_errors(folder.root):
        is_there, has_space = folder.config_file.is_file(), folder.space_file.is_file()
    if config.space and not has_space:
        space_files.require(config.space, base_dir=Path())
    if is_there:
        with folder.lock():
            pass


def note_start(folder: RunFolder, arguments: Sequence[str]) -> None:
    """Keep the command of a search, and the state of the repository that it was started in, if it was one.

    Args:
        folder: The run.
        arguments: Of the command line, after the name of the program.
    """
    environment = {"command": shlex.join(["python", "-m", "tuner", *arguments])}
    if state := _git_state():
        environment["git"] = state
    known: dict[str, str] = {}
    with contextlib.suppress(RunError):  # A damaged file is written anew.
        known = folder.load_environment()
    write_json(folder.environment_file, known | environment)


def _git_state() -> str:
    """The commit of the working directory, with `-dirty` behind it where files differ; empty if there is none."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True).stdout.strip()
    return ""


def _refuse_foreign(folder: RunFolder) -> None:
    """Refuse a folder that holds something else than what a start of ours that was killed may have left."""
    root = folder.root
    if folder.config_file.is_file() or not root.is_dir():
        return
    if all(item.name == folder.lock_file.name or item.name.startswith(".config.") for item in root.iterdir()):
        return
    raise RunError(f"{str(root)!r} exists and is no run folder. Give --run an empty or new folder.")


def _has_begun(folder: RunFolder, config: SearchConfig) -> bool:
    """Whether a run has trials, which other settings would not fit; before the first one it may be set up anew.

    Raises:
        RunError: The settings are others.
    """
    from tuner.search.study import load_trials

    differences = _differences(folder.load_config(), config, ignore=RESUMABLE_KEYS)
    space_file = _space_file(config)
    if space_file is not None and folder.space_file.is_file():
        with storage_errors(space_file):
            is_changed = space_file.read_bytes() != folder.space_file.read_bytes()
        differences += [f"space: {str(space_file)!r} has been edited"] if is_changed else []
    if not (folder.dataset_file.is_file() and load_trials(folder)):
        return False
    if differences:
        listed = "\n".join(f"  {line}" for line in differences)
        raise RunError(
            f"Run {str(folder.root)!r} was started with other settings:\n{listed}\n"
            "Give the same settings to go on with it (trials and time-limit may grow), or use a new --run."
        )
    return True


def discard_if_unused(folder: RunFolder) -> None:
    """Remove a run folder in which no trial was ever proposed: its start was refused, and the next one begins anew."""
    from tuner.search.study import delete_study, load_trials

    with contextlib.suppress(RunError), folder.lock():
        if not load_trials(folder):
            delete_study(folder)
            folder.discard()


def _copy_space(config: SearchConfig, folder: RunFolder) -> None:
    """Keep a copy of the user's search space with the run; the bundle carries it."""
    file = _space_file(config)
    if file is not None:
        with atomic_open(folder.space_file, "wb") as stream:
            stream.write(file.read_bytes())


def _space_file(config: SearchConfig) -> Path | None:
    """The file of the user's search space, if there is one."""
    file = Path(config.space.rpartition(":")[0]) if config.space and ":" in config.space else None
    return file if file is not None and file.is_file() else None


def choose_folder(config: SearchConfig, *, runs_dir: Path = RUNS_DIR) -> tuple[Path, bool]:
    """The folder for a search whose user named none: the newest unfinished run of the same search, or a new one.

    Returns:
        The path, and whether it is a run to go on with.
    """
    from tuner.search.plan import is_finished

    candidates = sorted(runs_dir.glob("*/config.yaml"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in candidates:
        folder = RunFolder(file.parent)
        try:
            if _differences(folder.load_config(), config, ignore=("force", "time_limit", "confirm", "workers")):
                continue
            if not is_finished(folder, config):
                return folder.root, True
        except TunerError:
            continue
    name = (Path(config.data).resolve().stem or "data") if config.data else "digits"
    return _unused(runs_dir / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"), False


def _unused(path: Path) -> Path:
    """The path, with a number behind it if it is taken."""
    taken, number = path, 2
    while taken.exists():
        taken, number = path.with_name(f"{path.name}-{number}"), number + 1
    return taken


def _differences(old: SearchConfig, new: SearchConfig, *, ignore: tuple[str, ...]) -> list[str]:
    return [
        f"{name.replace('_', '-')}: {getattr(old, name)!r} then, {getattr(new, name)!r} now"
        for name in SearchConfig.model_fields
        if name not in ignore and getattr(old, name) != getattr(new, name)
    ]


def _check_same_data(folder: RunFolder, record: DatasetRecord) -> None:
    stored = folder.load_dataset()
    if stored.fingerprint != record.fingerprint:
        raise RunError(
            f"Run {str(folder.root)!r} was made from other data (fingerprint {stored.fingerprint[:8]}..., "
            f"now {record.fingerprint[:8]}...). Use a new --run, or delete the old one."
        )


def _num_features_missing(dataset: Dataset) -> int:
    x = dataset.x
    if not np.issubdtype(x.dtype, np.floating) or dataset.spec.kind == "audio":
        return 0
    is_missing = np.zeros(x.shape[-1], bool)
    for piece in room.pieces(x):
        # The padding behind the end of a series is not missing.
        values = piece[is_value(piece)] if dataset.spec.is_padded else piece
        is_missing |= np.isnan(values).any(axis=tuple(range(values.ndim - 1)))
    return int(is_missing.sum())
