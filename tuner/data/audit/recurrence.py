"""Whether file names carry speakers, patients or videos that a random split puts on both sides.

A part of the names is believed to name such a group if samples of one class that share it resemble each other: for
most samples the nearest neighbour of the same class then has the same part, which for a running number it has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from tuner.data import roles
from tuner.data.audit.sample import Sample, graded
from tuner.data.transformers import LogMel
from tuner.records import Finding, Remedy

__all__ = ["group_leak"]

# Files that are compared; of more, some are drawn with a fixed seed. Source: convention; a second or two.
MAX_COMPARED = 2000

# Fewest groups that a split by groups can deal to three parts.
MIN_GROUPS = 3

# Share of the samples, beyond chance, whose nearest neighbour of the same class shares the part. Source: measured on
# the Free Spoken Digit Dataset: speakers 0.99, running numbers of recordings -0.03 (tests/data/test_audit_sounds.py).
RECURRING_FRAC = 0.4

# Pixels a side by which images are compared.
_GRID_PX = 16

# Mel bands by whose mean and deviation over time sounds are compared.
_MELS = 32

Codes = npt.NDArray[np.int64]
Features = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Candidate:
    """What may name a group: the value of `--group`, and the value that each file has."""

    group: str
    values: npt.NDArray[np.object_]


def group_leak(sample: Sample) -> Finding | None:
    """Samples of one speaker, patient or video on both sides of the split, as the names of their files tell."""
    dataset = sample.dataset
    if dataset.spec.form not in ("image_folder", "audio_folder") or dataset.groups is not None:
        return None
    candidates = [each for each in _candidates(dataset.row_names) if len(_leaked(sample, each))]
    if not candidates:
        return None
    rows = _compared(len(dataset.x))
    features = _of_sounds(sample, rows) if dataset.spec.kind == "audio" else _of_images(sample, rows)
    neighbour = _neighbours(features, dataset.y[rows])
    skill = [_recurrence(each.values[rows], neighbour, dataset.y[rows]) for each in candidates]
    best = int(np.argmax(skill))
    if skill[best] < RECURRING_FRAC:
        return None
    return _finding(sample, candidates[best], skill[best])


def _finding(sample: Sample, candidate: _Candidate, skill: float) -> Finding:
    leaked = _leaked(sample, candidate)
    num_held_out = len(sample.split.validation) + len(sample.split.test)
    values = sorted(set(candidate.values.tolist()))
    shown = ", ".join(values[:3]) + (" ..." if len(values) > 3 else "")
    return Finding(
        code="group_leak",
        where=candidate.group,
        severity=graded(len(leaked) / max(1, num_held_out), low=0.5, high=0.8),
        confidence=min(1.0, 0.5 + skill / 2),
        evidence={
            "num_groups": float(len(values)),
            "leaked_frac": len(leaked) / max(1, num_held_out),
            "recurring_frac": skill,
        },
        cause=f"The names of the files carry {len(values):,} groups ({candidate.group}: {shown}), such as speakers, "
        f"whose samples resemble each other; {len(leaked) / max(1, num_held_out):.0%} of the validation and test "
        "samples are of groups that the training part has, too, so results look better than they are on new ones.",
        examples=sample.examples(leaked),
        remedies=(
            Remedy(
                "group",
                candidate.group,
                f"--group {candidate.group} keeps each group on one side of the split, as for a speaker never heard.",
            ),
        ),
    )


def _candidates(names: tuple[str, ...]) -> list[_Candidate]:
    """Folders below those of the classes, and parts of the names that all files have, if they recur."""
    folders = np.array([str(PurePosixPath(name).parent) for name in names], object)
    found = [_Candidate("folder", folders)] if any("/" in folder for folder in folders) else []
    parts = [roles.parts_of_name(name) for name in names]
    found += [
        _Candidate(f"part{place + 1}", np.array([each[place] for each in parts], object))
        for place in range(min(map(len, parts), default=0))
    ]
    return [each for each in found if MIN_GROUPS <= len(set(each.values.tolist())) <= len(names) / 2]


def _leaked(sample: Sample, candidate: _Candidate) -> Codes:
    """Validation and test rows whose value the training part has, too."""
    held_out = np.concatenate([sample.split.validation, sample.split.test])
    train = set(candidate.values[sample.split.train].tolist())
    return held_out[[value in train for value in candidate.values[held_out].tolist()]]


def _compared(num_rows: int) -> Codes:
    rows = np.arange(num_rows)
    if num_rows > MAX_COMPARED:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_COMPARED, replace=False))
    return rows


def _of_sounds(sample: Sample, rows: Codes) -> Features:
    """Level and variation of each mel band."""
    x, rate_hz = sample.dataset.x[rows], sample.dataset.spec.sample_rate_hz or 16_000
    bands = LogMel(sample_rate_hz=rate_hz, num_mels=_MELS, hop_ms=20.0).fit(x).transform(x)
    return np.concatenate([np.nanmean(bands, axis=1), np.nanstd(bands, axis=1)], axis=1).astype(np.float64)


def _of_images(sample: Sample, rows: Codes) -> Features:
    """A grid of pixels with their colours."""
    height, width = sample.dataset.x.shape[1:3]
    grid = sample.dataset.x[:, :: max(1, height // _GRID_PX), :: max(1, width // _GRID_PX)][rows]
    return grid.reshape(len(grid), -1).astype(np.float64)


def _neighbours(features: Features, y: Codes) -> Codes:
    """The row that is nearest to each one among those of its class; its own where it is the only one."""
    deviation = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    found = np.arange(len(y))
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        if len(rows) < 2:
            continue
        square = np.square(scaled[rows]).sum(axis=1)
        distance = square[:, np.newaxis] + square - 2 * scaled[rows] @ scaled[rows].T
        np.fill_diagonal(distance, np.inf)
        found[rows] = rows[distance.argmin(axis=1)]
    return found


def _recurrence(values: npt.NDArray[np.object_], neighbour: Codes, y: Codes) -> float:
    """How far beyond chance the nearest neighbour of the same class shares the value; 1: always."""
    codes = roles.codes(values.tolist())
    together = codes * (int(y.max()) + 1) + y
    _, inverse, counts = np.unique(together, return_inverse=True, return_counts=True)
    class_counts = np.bincount(y)[y]
    expected = float(np.mean((counts[inverse] - 1) / np.maximum(1, class_counts - 1)))
    is_alone = neighbour == np.arange(len(neighbour))
    found = float(np.mean((codes == codes[neighbour]) & ~is_alone))
    return (found - expected) / (1 - expected) if expected < 1 else 0.0
