"""The run folder: every path in it is built here, and every write is atomic.

    runs/<name>/
        config.yaml         what was asked for, resolved
        environment.json    versions, hardware, command
        study.db            the Optuna study, or
        storage.json        the database that it is in, and its name there
        jobs.json, job.sh   the batch jobs that were submitted, and the last one's script
        data/               dataset.json, split and arrays, one folder per distinct fitted pipeline
        trials/<number>/seed_<n>/   record.json, trace.npz, model.keras (best few only); checkpoint.npz while it trains
        trials/<number>/margin.json which of the sweeps belongs to the trial
        margins/            one learning-rate sweep for each distinct configuration but for its rate
        rate_range.json     learning-rate range that sweeps proposed, with --lr-range auto
        logs/               one log file per worker
        workers/            what workers hold at the moment: <number>.json a part of the confirmation, *.lock the rest
        confirm.json        which trials are trained again on fresh seeds
        adaptation.json     which ranges the search narrowed by itself, and why
        report.html
        quarantine/         damaged files, each at its place below it
        test.json           what the test part was used for, once something was exported
        space.py            copy of the user's search space, if it is one

A file is written under a temporary name in the same folder, flushed to the disk, then renamed: a reader
(and a process that was killed half-way) sees the old file or the new one, never a part of one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import secrets
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import filelock
import numpy as np
import numpy.typing as npt
import pydantic

from tuner.config import SearchConfig, dump_config, load_resolved
from tuner.database import open_database
from tuner.errors import EnvironmentFault, RunError
from tuner.records import (
    Adaptation,
    BatchJobs,
    Claim,
    ConfirmPlan,
    DatasetRecord,
    RateRange,
    RateSweep,
    SeedRun,
    SharedStudy,
    StabilityMargin,
    SweptTrial,
    Trace,
)

__all__ = [
    "RunFolder",
    "atomic_open",
    "atomic_path",
    "read_arrays",
    "read_json",
    "read_trace",
    "storage_errors",
    "write_arrays",
    "write_json",
    "write_text",
]

Record = TypeVar("Record")
Default = TypeVar("Default")

CHECKPOINT_NAME = "checkpoint.npz"

# How long the lock of a run is waited for. Source: convention; who only looks holds it for some milliseconds.
LOCK_WAIT_S = 0.5
# What a write can fail of that is no fault of ours; ENOENT is a parent that cannot be made, as in /proc.
_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ENVIRONMENT_ERRNOS = (
    *_FULL_ERRNOS,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.EIO,
)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn "disk full" and "permission denied" into an `EnvironmentFault` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in _ENVIRONMENT_ERRNOS and not isinstance(error, FileExistsError | NotADirectoryError):
            raise
        reason = error.strerror or str(error)
        is_full = error.errno in _FULL_ERRNOS
        raise EnvironmentFault(
            f"Cannot write {str(path)!r}: {reason}. Everything written so far is intact. "
            f"{'Free some space' if is_full else 'Choose a folder that you may write to'}, then run the same command "
            "again."
        ) from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file name that becomes `path` when the block, which writes it, ends without an error.

    Args:
        path: Where the file appears; its folder is made if need be. The temporary name has the same suffix.

    Raises:
        EnvironmentFault: The disk is full or the folder may not be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not mkstemp: its files are private, and a run folder or report may be shared.
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_open(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears at `path`, complete, when the block ends without an error.

    Args:
        path: Where the file appears.
        mode: `w` for UTF-8 text or `wb` for bytes.

    Raises:
        EnvironmentFault: The disk is full or the folder may not be written.
    """
    with atomic_path(path) as temporary, open(temporary, mode, encoding=None if "b" in mode else "utf-8") as stream:
        yield stream
        stream.flush()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_open(path) as stream:
        stream.write(text)


def write_json(path: Path, record: object) -> None:
    """Write a record (or plain values) as JSON, atomically. Infinity and NaN become strings."""
    adapter = pydantic.TypeAdapter(Any, config={"ser_json_inf_nan": "strings"})
    plain = _encodable(adapter.dump_python(record, mode="json"))
    write_text(path, adapter.dump_json(plain, indent=2).decode() + "\n")


def _encodable(value: Any) -> Any:
    """The value with `?` for what UTF-8 cannot hold: file names in other encodings have lone surrogates."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value


# Made once for each type: making one takes far longer than reading a record, and a display reads every second.
_adapter: Callable[[Any], pydantic.TypeAdapter[Any]] = functools.cache(pydantic.TypeAdapter)


def read_json(path: Path, record_type: type[Record]) -> Record:
    """Read a record that `write_json` wrote.

    Raises:
        RunError: The file is missing, truncated or does not hold such a record.
    """
    try:
        record: Record = _adapter(record_type).validate_json(path.read_bytes())
        return record
    except FileNotFoundError as error:
        raise RunError(
            f"{str(path)!r} is missing. Run the same search again to go on, or start a new --run."
        ) from error
    except (pydantic.ValidationError, UnicodeDecodeError) as error:
        raise RunError(
            f"{str(path)!r} does not hold a valid {record_type.__name__}: it was cut short or edited. "
            "Delete that file, then run the same command again."
        ) from error


def _read_optional(path: Path, record_type: type[Record], default: Default) -> Record | Default:
    """A record, or what stands for one that is missing or damaged (`search.quarantine` names those)."""
    try:
        return read_json(path, record_type) if path.is_file() else default
    except RunError:
        return default


class RunFolder:
    """One run folder.

    Args:
        root: Its path; `create` makes it, `open` checks that it is one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_file = root / "config.yaml"
        self.environment_file = root / "environment.json"
        self.study_file = root / "study.db"
        self.storage_file = root / "storage.json"
        self.jobs_file = root / "jobs.json"
        self.data_dir = root / "data"
        self.dataset_file = self.data_dir / "dataset.json"
        self.trials_dir = root / "trials"
        self.margins_dir = root / "margins"
        self.rate_range_file = root / "rate_range.json"
        self.logs_dir = root / "logs"
        self.quarantine_dir = root / "quarantine"
        self.workers_dir = root / "workers"
        self.lock_file = root / ".lock"
        self.confirm_file = root / "confirm.json"
        self.adaptation_file = root / "adaptation.json"
        self.ending_file = root / "ending.json"
        self.report_file = root / "report.html"
        self.test_file = root / "test.json"
        self.space_file = root / "space.py"

    @classmethod
    def create(cls, root: Path, config: SearchConfig) -> RunFolder:
        """Make the folder and store the configuration in it."""
        folder = cls(root)
        # First: a folder without it is taken for someone else's.
        folder.save_config(config)
        with storage_errors(root):
            # What was measured on other data or settings, before the first trial.
            shutil.rmtree(folder.margins_dir, ignore_errors=True)
            for file in (folder.rate_range_file, folder.adaptation_file, folder.ending_file, folder.storage_file):
                file.unlink(missing_ok=True)
            if config.storage:
                # Several runs may share a database, and a folder may be made again under the same name.
                name = f"{_encodable(root.absolute().name)}-{secrets.token_hex(4)}"
                write_json(folder.storage_file, SharedStudy(config.storage, name))
            folder.trials_dir.mkdir(exist_ok=True)
            folder.logs_dir.mkdir(exist_ok=True)
        return folder

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """Open an existing run folder.

        Raises:
            RunError: There is no run at that path.
        """
        folder = cls(root)
        if not os.path.isfile(folder.config_file):
            known = sorted(str(path.parent) for path in root.parent.glob("*/trials")) if root.parent.is_dir() else []
            hint = (
                f"Runs beside it: {', '.join(known[-5:])}." if known else "Start one with: python -m tuner search DATA"
            )
            raise RunError(f"{str(root)!r} is not a run folder (it has no config.yaml). {hint}")
        return folder

    def save_config(self, config: SearchConfig) -> None:
        """Store the resolved configuration."""
        write_text(self.config_file, dump_config(config))

    def load_config(self) -> SearchConfig:
        """Read the resolved configuration back."""
        return load_resolved(self.config_file)

    @contextlib.contextmanager
    def lock(self, *, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """Hold the folder for the one process that supervises it.

        Args:
            wait_s: How long another one may hold it yet, such as one that only looks whether it is held.

        Raises:
            RunError: Another process holds it.
        """
        lock = filelock.FileLock(str(self.lock_file))
        try:
            with storage_errors(self.root):
                lock.acquire(timeout=wait_s)
        except filelock.Timeout as error:
            raise RunError(
                f"Another search is working on {str(self.root)!r}. Wait for it (python -m tuner status {self.root}), "
                "stop it with Ctrl-C, or use another --run."
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def exclusive(self, what: str) -> Iterator[None]:
        """Hold one thing that the workers share while it is read and changed; others wait. A dead holder has let go.

        Workers on several machines meet in their database: locks on files of a network file system do not hold.

        Args:
            what: `study`, `models` or another name of one's own.
        """
        if shared := self.load_shared_study():
            with open_database(shared.url).exclusive(f"{shared.name}/{what}"):
                yield
            return
        file = self.workers_dir / f"{what}.lock"
        with storage_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(str(file))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Whether a process supervises the run now."""
        try:
            with self.lock(wait_s=0.0):
                return False
        except RunError:
            return True

    def discard(self) -> None:
        """Remove what a run puts into its folder, and the folder if nothing else is in it."""
        for folder in (
            self.data_dir,
            self.trials_dir,
            self.margins_dir,
            self.logs_dir,
            self.workers_dir,
            self.quarantine_dir,
        ):
            shutil.rmtree(folder, ignore_errors=True)
        files = (self.config_file, self.environment_file, self.study_file, self.space_file, self.lock_file)
        for file in (
            *files,
            *(self.root / f"{self.study_file.name}-{log}" for log in ("wal", "shm")),
            self.rate_range_file,
            self.adaptation_file,
            self.ending_file,
            self.storage_file,
            self.jobs_file,
        ):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.root.rmdir()

    def load_shared_study(self) -> SharedStudy | None:
        """The database of the study; None if it is a file of the run."""
        return read_json(self.storage_file, SharedStudy) if self.storage_file.is_file() else None

    def load_jobs(self) -> list[BatchJobs]:
        """The arrays of batch jobs that were submitted for the run, oldest first."""
        return read_json(self.jobs_file, list[BatchJobs]) if self.jobs_file.is_file() else []

    def save_jobs(self, jobs: list[BatchJobs]) -> None:
        """Store which arrays of batch jobs were submitted."""
        write_json(self.jobs_file, jobs)

    def save_dataset(self, record: DatasetRecord) -> None:
        """Store what the run knows of its data."""
        write_json(self.dataset_file, record)

    def load_dataset(self) -> DatasetRecord:
        """Read what the run knows of its data."""
        return read_json(self.dataset_file, DatasetRecord)

    def load_confirm_plan(self) -> ConfirmPlan | None:
        """Which trials are confirmed; None before the search came to that."""
        return _read_optional(self.confirm_file, ConfirmPlan, None)

    def claim_file(self, worker: int) -> Path:
        """What a worker has taken of the confirmation."""
        return self.workers_dir / f"{worker}.json"

    def load_claims(self) -> list[Claim]:
        """What the workers have taken of the confirmation, by their number."""
        claims = []
        for file in self.workers_dir.glob("[0-9]*.json"):
            # It may have been given back in between.
            with contextlib.suppress(RunError):
                claims.append(read_json(file, Claim))
        return sorted(claims, key=lambda claim: claim.worker)

    def load_adaptation(self) -> Adaptation:
        """Which ranges the search has narrowed; no step before it did."""
        return _read_optional(self.adaptation_file, Adaptation, Adaptation())

    def load_ending(self) -> str:
        """Why the search ended before its budget was used up; empty if it did not."""
        return _read_optional(self.ending_file, str, "")

    def load_environment(self) -> dict[str, str]:
        """Versions, hardware and command of the last start; empty before the first worker started."""
        return _read_optional(self.environment_file, dict[str, str], {})

    def seed_run_dir(self, trial: int, seed_index: int) -> Path:
        """Folder of one seed run."""
        return self.trials_dir / f"{trial:04d}" / f"seed_{seed_index}"

    def model_file(self, trial: int, seed_index: int) -> Path:
        """The trained model of a seed run; only the best few are kept."""
        return self.seed_run_dir(trial, seed_index) / "model.keras"

    def checkpoint_file(self, trial: int, seed_index: int) -> Path:
        """State of a seed run after its last epoch; only while it is not finished."""
        return self.seed_run_dir(trial, seed_index) / CHECKPOINT_NAME

    def remove_checkpoints(self, *, besides: Collection[int] = ()) -> None:
        """Remove the checkpoints of the trainings that the search chooses by.

        Args:
            besides: Numbers of the trials that are not finished.
        """
        for file in self.trials_dir.glob(f"*/seed_0/{CHECKPOINT_NAME}"):
            if int(file.parts[-3]) not in besides:
                file.unlink(missing_ok=True)

    def save_seed_run(self, run: SeedRun, trace: Trace) -> None:
        """Write trace and record of a finished seed run, the record last: where it exists, all is there."""
        folder = self.seed_run_dir(run.trial, run.seed_index)
        write_trace(folder / "trace.npz", trace)
        write_json(folder / "record.json", run)

    def load_seed_runs(self, trial: int, faults: list[str] | None = None) -> tuple[SeedRun, ...]:
        """All finished seed runs of a trial, in the order of their index; damaged records are left out.

        Args:
            trial: Its number.
            faults: Gets a sentence for each damaged record.
        """
        runs: list[SeedRun] = []
        for file in sorted((self.trials_dir / f"{trial:04d}").glob("seed_*/record.json")):
            try:
                runs.append(read_json(file, SeedRun))
            except RunError as error:
                if faults is not None:
                    faults.append(str(error))
        return tuple(sorted(runs, key=lambda run: run.seed_index))

    def num_trained(self) -> int:
        """Number of finished seed runs."""
        return sum(1 for _ in self.trials_dir.glob("*/seed_*/record.json"))

    def load_trace(self, trial: int, seed_index: int) -> Trace:
        """The trace of one finished seed run."""
        return read_trace(self.seed_run_dir(trial, seed_index) / "trace.npz")

    def sweep_file(self, key: str) -> Path:
        """One learning-rate sweep, shared by all trials that differ in their rate alone."""
        return self.margins_dir / f"{key}.json"

    def swept_file(self, trial: int) -> Path:
        """Which sweep belongs to a trial."""
        return self.trials_dir / f"{trial:04d}" / "margin.json"

    def load_margin(self, trial: int) -> StabilityMargin | None:
        """The stability margin of a trial; None if it was not, or could not be, measured."""
        file = self.swept_file(trial)
        swept = _read_optional(file, SweptTrial, None)
        sweep = _read_optional(self.sweep_file(swept.sweep), RateSweep, None) if swept and swept.sweep else None
        return StabilityMargin(sweep, swept.peak_rate) if swept and sweep else None

    def load_rate_range(self) -> RateRange | None:
        """The learning-rate range that sweeps proposed; None if none was asked for, or they are not done."""
        return _read_optional(self.rate_range_file, RateRange, None)

    def keep_models(self, keep: set[tuple[int, int]]) -> None:
        """Remove the stored models of all seed runs but these (trial, seed index)."""
        for file in self.trials_dir.glob("*/seed_*/model.keras"):
            if (int(file.parts[-3]), int(file.parts[-2].removeprefix("seed_"))) not in keep:
                file.unlink(missing_ok=True)

    def clear_trial(self, trial: int) -> None:
        """Remove what an interrupted trial left behind, before it runs again; what it goes on from stays."""
        for file in (self.trials_dir / f"{trial:04d}").rglob("*"):
            if file.is_file() and file.name != CHECKPOINT_NAME:
                file.unlink(missing_ok=True)


def write_trace(path: Path, trace: Trace) -> None:
    """Write a trace as a compressed NumPy archive, atomically."""
    arrays: dict[str, Any] = {
        name: getattr(trace, name) for name in _TRACE_ARRAYS + _TRACE_NUMBERS if getattr(trace, name) is not None
    }
    arrays |= {f"metric/{name}": values for name, values in trace.metrics.items()}
    arrays |= {f"channel/{name}": values for name, values in trace.channels.items()}
    arrays |= {"events": np.array(json.dumps(trace.events))} if trace.events else {}
    with atomic_open(path, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays by name as a NumPy archive, atomically; not compressed, which would take most of the time."""
    with atomic_open(path, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes the names for options


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read what `write_arrays` wrote.

    Raises:
        RunError: The file is missing or damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return dict(archive)
    except _DAMAGE as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}. The rest of the run is not affected.") from error


def read_trace(path: Path) -> Trace:
    """Read a trace that `write_trace` wrote.

    Raises:
        RunError: The file is missing or damaged.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            fields: dict[str, Any] = {name: archive[name] for name in _TRACE_ARRAYS}
            fields |= {name: archive[name].item() for name in _TRACE_NUMBERS}
            fields["metrics"] = _read_group(archive, "metric/")
            # Traces written before there were probes have none of these.
            fields["channels"] = _read_group(archive, "channel/")
            events = json.loads(archive["events"].item()) if "events" in archive.files else []
            fields["events"] = tuple((int(step), str(kind)) for step, kind in events)
            return Trace(**fields)
    except _DAMAGE as error:
        raise RunError(f"Trace {str(path)!r} cannot be read: {error}. The rest of the run is not affected.") from error


def _read_group(archive: Any, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): archive[name] for name in archive.files if name.startswith(prefix)}


# What reading an archive raises that was cut short, or in which bytes were changed.
_DAMAGE = (
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
_TRACE_ARRAYS = ("step_loss", "grad_norm", "train_loss", "validation_loss", "learning_rate", "seconds")
_TRACE_NUMBERS = ("steps_per_epoch", "planned_epochs", "chance_loss")
