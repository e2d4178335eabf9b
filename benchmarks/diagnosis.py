"""How often a faulty training is flagged, a healthy one is not, and the right cause is named: on the zoo of real ones.

    python -m benchmarks.diagnosis [--half tune|report|both] [--seeds 3] [--workers 2] [--save FILE.npz] [--resume]
    python -m benchmarks.diagnosis --load tests/golden/zoo.npz

`--save` writes what was trained after every twenty trainings; `--resume` goes on with such a file.

Constants of detectors and causes were tuned on the half `tune`; figures are claimed for the half `report` only, whose
trainings have other data sets, seeds, networks and strengths of the faults (`benchmarks.zoo.exhibits`). Flagged: a
finding of the training, of the check of the model or of the audit of the data is an alarm. The causes told are those of
the diagnosis with an alarm behind them, then the audit's own alarms, then other causes; right is the one that was put
in.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.score_contract import table
from tuner.records import Finding, HyperparameterValue, Trace
from tuner.stability.detectors import ALARM_SEVERITY, detect
from tuner.stability.diagnosis import diagnose

__all__ = ["Answer", "Figures", "Recording", "answer", "figures", "load", "save"]

# What a training leaves behind is stored as logarithms in half precision: steps of 0.1 % are finer than any threshold.
LOSSES = ("step_loss", "grad_norm", "train_loss", "validation_loss")
# A recording that is interrupted loses at most so many trainings.
SAVED_EVERY = 20
# Faults of the data that the audit names by itself, and the cause that each one is.
AUDITED_CAUSES = {
    "missing_values": "missing_values",
    "infinite_values": "missing_values",
    "sentinel_values": "missing_values",
    "outliers": "outliers",
    "skew": "skew",
    "class_imbalance": "class_imbalance",
    "conflicting_labels": "wrong_labels",
    "label_errors": "wrong_labels",
    "leaking_copies": "train_validation_mismatch",
}


@dataclass(frozen=True, eq=False)
class Recording:
    """All that the tuner knows of one finished training of its own.

    Attributes:
        name: Of the specimen.
        cause: Code of the right cause; empty for a healthy training.
        half: `tune` or `report`.
        source: Data set.
    """

    name: str
    cause: str
    half: str
    source: str
    seed: int
    trace: Trace
    hyperparameters: dict[str, HyperparameterValue]
    data_findings: tuple[Finding, ...]
    model_findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Answer:
    """What the tuner says of a recording: alarms of the training, alarms of data and model, causes in order."""

    recording: Recording
    alarms: tuple[str, ...]
    static_alarms: tuple[str, ...]
    causes: tuple[str, ...]

    @property
    def is_flagged(self) -> bool:
        """Whether anything about it is an alarm."""
        return bool(self.alarms or self.static_alarms)


@dataclass(frozen=True)
class Figures:
    """Shares in [0, 1]: of faulty runs flagged, of healthy runs flagged, of faulty runs with the right cause."""

    recall: float
    recall_by_trace: float
    false_alarms: float
    false_alarms_by_trace: float
    top_1: float
    top_2: float


def answer(recording: Recording) -> Answer:
    """Diagnose a recording as a run of our own is diagnosed."""
    detection = detect(recording.trace)
    causes = diagnose(
        detection.findings,
        trace=recording.trace,
        hyperparameters=recording.hyperparameters,
        data_findings=recording.data_findings,
        model_findings=recording.model_findings,
    )
    audited = [found for found in recording.data_findings if _is_alarm(found)]
    told = [
        *(cause.code for cause in causes if _is_alarm(cause)),
        *(AUDITED_CAUSES[found.code] for found in audited if found.code in AUDITED_CAUSES),
        *(cause.code for cause in causes),
    ]
    return Answer(
        recording,
        tuple(finding.code for finding in detection.alarms),
        tuple(finding.code for finding in (*audited, *filter(_is_alarm, recording.model_findings))),
        tuple(dict.fromkeys(told)),
    )


def _is_alarm(finding: Finding) -> bool:
    return finding.severity > ALARM_SEVERITY


def figures(answers: Sequence[Answer]) -> Figures:
    """The figures of some answers, faulty and healthy."""
    faulty = [found for found in answers if found.recording.cause]
    healthy = [found for found in answers if not found.recording.cause]
    return Figures(
        recall=float(np.mean([found.is_flagged for found in faulty])),
        recall_by_trace=float(np.mean([bool(found.alarms) for found in faulty])),
        false_alarms=float(np.mean([found.is_flagged for found in healthy])),
        false_alarms_by_trace=float(np.mean([bool(found.alarms) for found in healthy])),
        top_1=float(np.mean([found.recording.cause in found.causes[:1] for found in faulty])),
        top_2=float(np.mean([found.recording.cause in found.causes[:2] for found in faulty])),
    )


# --- Recordings in a file


def save(recordings: Sequence[Recording], file: Path) -> None:
    """Write recordings compactly."""
    parts: dict[str, list[Any]] = {name: [] for name in (*LOSSES, "learning_rate", "channels")}
    described = []
    for recording in recordings:
        trace = recording.trace
        for name in LOSSES:
            with np.errstate(divide="ignore"):
                parts[name].append(np.log(getattr(trace, name)).astype("float16"))
        parts["learning_rate"].append(np.asarray(trace.learning_rate, dtype="float32"))
        parts["channels"].append(np.ravel(list(trace.channels.values())).astype("float32"))
        described.append(
            {
                "about": [recording.name, recording.cause, recording.half, recording.source, recording.seed],
                "hyperparameters": recording.hyperparameters,
                "data_findings": [_short(finding) for finding in recording.data_findings],
                "model_findings": [_short(finding) for finding in recording.model_findings],
                "steps_per_epoch": trace.steps_per_epoch,
                "planned_epochs": trace.planned_epochs,
                "chance_loss": trace.chance_loss,
                "channels": list(trace.channels),
                "events": trace.events,
            }
        )
    # One array of all recordings for each name: a file of thousands of arrays is mostly headers.
    arrays = {name: np.concatenate(values) for name, values in parts.items()}
    lengths = np.array([[len(value) for value in values] for values in parts.values()])
    np.savez_compressed(file, described=np.array(json.dumps(described)), lengths=lengths, **arrays)


def load(file: Path) -> list[Recording]:
    """Read recordings."""
    with np.load(file) as archive:
        rows = json.loads(str(archive["described"]))
        parts = {
            name: np.split(archive[name].astype(float), np.cumsum(lengths)[:-1])
            for name, lengths in zip((*LOSSES, "learning_rate", "channels"), archive["lengths"], strict=True)
        }
    return [
        _recording({name: values[number] for name, values in parts.items()}, row) for number, row in enumerate(rows)
    ]


def _recording(arrays: dict[str, Any], row: dict[str, Any]) -> Recording:
    losses = {name: np.exp(arrays[name]) for name in LOSSES}
    channels = arrays["channels"].reshape(len(row["channels"]), -1) if row["channels"] else ()
    rate = arrays["learning_rate"]
    trace = Trace(
        **losses,
        learning_rate=rate,
        seconds=np.zeros(len(rate)),
        steps_per_epoch=row["steps_per_epoch"],
        planned_epochs=row["planned_epochs"],
        chance_loss=row["chance_loss"],
        channels=dict(zip(row["channels"], channels, strict=True)),
        events=tuple((int(step), str(kind)) for step, kind in row["events"]),
    )
    findings = ([Finding(*values, "") for values in row[name]] for name in ("data_findings", "model_findings"))
    return Recording(*row["about"], trace, row["hyperparameters"], *map(tuple, findings))


def _short(finding: Finding) -> tuple[str, str, float, float, dict[str, float]]:
    evidence = {name: float(f"{value:.3g}") for name, value in finding.evidence.items()}
    return finding.code, "", round(finding.severity, 3), round(finding.confidence, 3), evidence


# --- The benchmark


def record_all(
    halves: Sequence[str], *, seeds: int, workers: int, known: Sequence[Recording], file: Path | None
) -> list[Recording]:
    """Train what is not known of the zoo, in several processes of one thread each.

    Args:
        halves: `tune`, `report`, or both.
        seeds: Trainings of each specimen and half.
        workers: Number of processes.
        known: Recordings of an earlier run.
        file: Where to keep what was trained so far.
    """
    from benchmarks.zoo import exhibits

    recordings = {(one.half, one.name, one.seed): one for one in known}
    asked = [
        (half, one.specimen.name, one.seed)
        for seed in range(seeds)
        for half in halves
        for one in exhibits(half, seeds=seeds)
        if one.seed % 100 == seed
    ]
    missing = [task for task in asked if task not in recordings]
    context = multiprocessing.get_context("spawn")
    for start in range(0, len(missing), SAVED_EVERY):
        tasks = missing[start : start + SAVED_EVERY]
        # New processes each time, as Keras grows; the `max_tasks_per_child` of the pool itself hangs (CPython 3.11).
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
            for number, (task, recording) in enumerate(zip(tasks, pool.map(_train, tasks), strict=True), start=1):
                recordings[task] = recording
                print(f"\r{start + number} of {len(missing)} trainings", end="", file=sys.stderr, flush=True)
        if file is not None:
            save(list(recordings.values()), file)
    print(file=sys.stderr)
    return [recordings[task] for task in asked]


def _train(task: tuple[str, str, int]) -> Recording:
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from benchmarks import zoo

    half, name, seed = task
    exhibits = zoo.exhibits("tune" if half == "tune" else "report", seeds=seed % 100 + 1)
    return zoo.record(next(one for one in exhibits if (one.specimen.name, one.seed) == (name, seed)))


def print_figures(half: str, answers: Sequence[Answer]) -> None:
    """The figures of one half."""
    found = figures(answers)
    num_faulty = sum(bool(one.recording.cause) for one in answers)
    print(f"Half `{half}`: {num_faulty} faulty and {len(answers) - num_faulty} healthy trainings\n")
    rows = [
        ("faulty runs flagged", f"{found.recall:.2f}", f"{found.recall_by_trace:.2f}"),
        ("healthy runs flagged", f"{found.false_alarms:.3f}", f"{found.false_alarms_by_trace:.3f}"),
        ("right cause first", f"{found.top_1:.2f}", ""),
        ("right cause among the first two", f"{found.top_2:.2f}", ""),
    ]
    table(("", "training, data and model", "training alone"), rows)


def print_confusion(answers: Sequence[Answer]) -> None:
    """First cause told by the cause that was put in."""
    told = collections.Counter(
        (one.recording.cause, (*one.causes, "none")[0]) for one in answers if one.recording.cause
    )
    right = sorted({cause for cause, _ in told})
    names = [*right, *sorted({first for _, first in told} - set(right))]
    print("First cause told (columns, by number), by the cause that was put in (rows)\n")
    header = ("", *(str(number) for number in range(1, len(names) + 1)))
    rows = [
        (f"{number} {cause.replace('_', ' ')}", *(told[cause, first] or "" for first in names))
        for number, cause in enumerate(names, start=1)
    ]
    table(header, rows)


def print_misses(answers: Sequence[Answer]) -> None:
    """Every training that was judged wrong."""
    for one in answers:
        about = one.recording
        is_right = about.cause in one.causes[:2] and one.is_flagged if about.cause else not one.is_flagged
        if not is_right:
            alarms, causes = (
                ", ".join(codes) or "none" for codes in ((*one.alarms, *one.static_alarms), one.causes[:3])
            )
            print(f"- {about.name} ({about.cause or 'healthy'}, {about.source}, {about.seed}): {alarms}; {causes}")
    print()


def main() -> None:
    """Train the zoo, or read recordings of it, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("tune", "report", "both"), default="both")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each specimen and half")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--save", type=Path, help="write the recordings to this file")
    parser.add_argument("--resume", action="store_true", help="keep the trainings that the file of --save has")
    parser.add_argument("--load", type=Path, help="read recordings instead of training")
    arguments = parser.parse_args()
    halves = ("tune", "report") if arguments.half == "both" else (arguments.half,)
    if arguments.load:
        recordings = load(arguments.load)
    else:
        has_known = arguments.resume and arguments.save is not None and arguments.save.is_file()
        known = load(arguments.save) if has_known else []
        recordings = record_all(
            halves, seeds=arguments.seeds, workers=arguments.workers, known=known, file=arguments.save
        )
    answers = [answer(recording) for recording in recordings]
    for half in halves:
        of_half = [one for one in answers if one.recording.half == half]
        if of_half:
            print_figures(half, of_half)
            print_confusion(of_half)
            print_misses(of_half)


if __name__ == "__main__":
    main()
