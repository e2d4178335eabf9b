"""Damaged files of a run: found, named, and set aside, so that the rest goes on. No Keras.

Only what can be done without, or made again, is set aside. Without its configuration, data or study a run cannot go on:
these stay where they are, and reading them says what is wrong.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tuner.errors import RunError, first_of
from tuner.records import Adaptation, Claim, ConfirmPlan, RateRange, RateSweep, SeedRun, SweptTrial
from tuner.store import RunFolder, read_json, storage_errors

__all__ = ["find_damaged", "named", "quarantine"]

# More damaged files than this are counted, not named.
MAX_NAMED = 10


def find_damaged(folder: RunFolder) -> list[Path]:
    """The files of a run, and the folders of prepared data, that were cut short or changed, by path."""
    return sorted(
        path for pattern, is_sound in _CHECKS.items() for path in folder.root.glob(pattern) if not is_sound(path)
    )


def quarantine(folder: RunFolder, damaged: list[Path]) -> str:
    """Move them to the run's `quarantine/`, each at its place below it; returns a sentence on it, empty for none.

    Args:
        folder: A run that this process holds.
        damaged: Of `find_damaged`.

    Raises:
        EnvironmentFault: The folder may not be written.
    """
    for path in damaged:
        target = folder.quarantine_dir / path.relative_to(folder.root)
        # Damaged before: the newest counts.
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            number = sum(1 for _ in target.parent.glob(f"{target.name}*"))
            path.rename(target.with_name(f"{target.name}.{number}" if number else target.name))
    return f"{named(folder, damaged)} Moved to {folder.quarantine_dir}; the rest goes on." if damaged else ""


def named(folder: RunFolder, damaged: list[Path]) -> str:
    """The damaged files in a sentence; empty for none."""
    paths = first_of((str(path.relative_to(folder.root)) for path in damaged), most=MAX_NAMED)
    return f"Damaged, and not used: {paths}." if damaged else ""


def _holds(record_type: Any) -> Callable[[Path], bool]:
    def is_sound(path: Path) -> bool:
        try:
            read_json(path, record_type)
        except RunError:
            # One that is gone was given back, or removed, in between.
            return not path.is_file()
        return True

    return is_sound


def _is_archive(path: Path) -> bool:
    """Whether it ends as an archive does; what is wrong inside is found, and named, when it is read."""
    return zipfile.is_zipfile(path) or not path.is_file()


def _is_prepared(path: Path) -> bool:
    try:
        for file in path.glob("*.npy"):
            np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return not path.is_dir()
    return all(zipfile.is_zipfile(file) for file in path.glob("*.skops"))


_CHECKS: dict[str, Callable[[Path], bool]] = {
    "trials/*/seed_*/record.json": _holds(SeedRun),
    "trials/*/seed_*/crashes.json": _holds(int),
    "trials/*/seed_*/trace.npz": _is_archive,
    "trials/*/seed_*/checkpoint.npz": _is_archive,
    "trials/*/seed_*/model.keras": _is_archive,
    "trials/*/margin.json": _holds(SweptTrial),
    "margins/*.json": _holds(RateSweep),
    "workers/[0-9]*.json": _holds(Claim),
    "adaptation.json": _holds(Adaptation),
    "confirm.json": _holds(ConfirmPlan),
    "rate_range.json": _holds(RateRange),
    "ending.json": _holds(str),
    "environment.json": _holds(dict[str, str]),
    "data/**/prepared/[!.]*": _is_prepared,
}
