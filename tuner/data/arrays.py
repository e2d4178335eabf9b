"""Reader of NumPy arrays: `x` and `y`, or `x_train`, `y_train`, `x_test`, `y_test` as Keras ships them (`x_val` too).

Whole numbers in `y` are class codes, one-hot rows too; other rows of 0 and 1 are several labels. `class_names` names
them. Without `--kind` the shape of `x`
decides, first rule that fits:

- (n, height, width, channels): images.
- (n, steps): series of one channel.
- (n, a, b) in uint8, or with both sides at least `MIN_IMAGE_SIDE_PX` and at most `MAX_IMAGE_ASPECT` apart:
  grey images.
- (n, steps, channels): any other; series.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import columns, label_sets, labels, roles, room
from tuner.data.archives import ARRAY_SUFFIXES, load, load_samples
from tuner.data.dataset import Dataset
from tuner.data.options import ReadOptions
from tuner.errors import DataError, did_you_mean, first_of
from tuner.grammar import counted
from tuner.records import DataSpec, Kind

__all__ = ["ARRAY_SUFFIXES", "assemble", "read", "read_features", "read_labelled"]

# A 3-D array of other numbers than uint8 is taken for grey images from this side on, unless it is longer than wide
# by this factor. Source: convention; scikit-learn's digits have 8 px, sensor series rarely as many channels as steps.
MIN_IMAGE_SIDE_PX = 8
MAX_IMAGE_ASPECT = 2.0

_PAIRS = (("x", "y"), ("x_train", "y_train"), ("x_validation", "y_validation"), ("x_test", "y_test"))
_EXPECTED = "x and y, or x_train, y_train, x_test and y_test (and x_val, y_val)"

Array = npt.NDArray[Any]


def read(path: Path, options: ReadOptions) -> Dataset:
    """Read samples and targets.

    Args:
        path: A .npz file, or a .npy file with others beside it.
        options: `kind` and `task`; `group` names an array of codes or names, one for each sample.

    Raises:
        DataError: The keys, shapes or values are not usable.
    """
    archive, notes = load(path)
    dataset = assemble(archive, path, kind=options.kind, task=options.task, group=options.group)
    return dataclasses.replace(dataset, notes=(*notes, *dataset.notes))


def assemble(archive: dict[str, Array], path: Path, *, kind: str, task: str, group: str | None = None) -> Dataset:
    """A data set of arrays.

    Args:
        archive: `x` and `y`, or `x_train`, `y_train` and those of test or validation; and maybe `class_names`.
        path: Names them in messages.
        kind: `auto`, `image` or `series`.
        task: `auto`, `classification`, `multilabel` or `regression`.
        group: Name of an array that says what must stay together.

    Raises:
        DataError: The keys, shapes or values are not usable.
    """
    parts = _pairs(archive, path, task)
    _check_pairs(parts, path)
    notes = [f"Ignored in {path.name!r}: {', '.join(sorted(extra))}."] if (extra := _extra(archive) - {group}) else []
    x = room.joined([samples for _, samples, _ in parts])
    y = np.concatenate([targets for _, _, targets in parts]) if len(parts) > 1 else parts[0][2]
    part_of = np.repeat([name.partition("_")[2] for name, _, _ in parts], [len(samples) for _, samples, _ in parts])
    groups = _groups(archive, group, path, num_rows=len(parts[0][1])) if group else None
    row_names = [f"{name}[{row}]" for name, samples, _ in parts for row in range(len(samples))]

    missing = labels.is_missing(y)
    if missing.any():
        notes += columns.without_target(~missing, "samples")
        groups = None if groups is None else groups[~missing[: len(groups)]]
        x, y, part_of = room.taken(x, np.flatnonzero(~missing)), y[~missing], part_of[~missing]
        row_names = [name for name, is_gone in zip(row_names, missing.tolist(), strict=True) if not is_gone]
    encoded = _encoded(
        y, task, where=f"{parts[0][0].replace('x', 'y', 1)} of {path.name!r}", names=_class_names(archive)
    )
    x, found_kind, kind_notes = _samples(x, kind=kind, path=path)
    reading = {"group": group} if group else {}
    spec = DataSpec("npz", found_kind, encoded.task, tuple(x.shape[1:]), encoded.class_names, reading=reading)
    given = {part: np.flatnonzero(part_of == part) for part in ("validation", "test")}
    if groups is not None:
        # Rows of given parts have no group but their own.
        groups = np.append(groups, groups.max() + 1 + np.arange(len(x) - len(groups)))
    return Dataset(
        name=path.stem,
        spec=spec,
        x=x,
        y=encoded.y,
        row_names=tuple(row_names),
        test_rows=given["test"] if len(given["test"]) else None,
        validation_rows=given["validation"] if len(given["validation"]) else None,
        groups=groups,
        notes=(*notes, *kind_notes, *encoded.notes),
    )


def _groups(archive: dict[str, Array], name: str, path: Path, *, num_rows: int) -> roles.Codes:
    """Codes of the rows to learn from, by an array that the user named."""
    if name not in archive:
        raise DataError(
            f"{path.name!r} has no array {name!r}. Its keys: {_keys(archive)}.{did_you_mean(name, archive)} Give one "
            "of them with --group."
        )
    values = archive[name]
    if values.shape not in ((num_rows,), (num_rows, 1)):
        raise DataError(
            f"--group {name}: it has shape {values.shape}; one value for each of the {num_rows:,} samples to learn "
            "from was expected. Save it so, or name another array."
        )
    return roles.codes(values.ravel())


def read_features(path: Path, spec: DataSpec) -> tuple[Array, tuple[str, ...]]:
    """Read samples to predict: `x`, or `x_test`, or the only array of the file.

    Args:
        path: A .npz or .npy file.
        spec: How the training data was read.

    Raises:
        DataError: There is no such array, or its samples have another shape.
    """
    archive = load_samples(path)
    usual: list[str] = [name for name in ("x", "x_test") if name in archive]
    candidates = usual or list(archive)
    if len(candidates) != 1 and not usual:
        raise DataError(f"{path.name!r} has the keys {_keys(archive)}; to predict, it needs an array named x.")
    key = candidates[0]
    x = _fitting(archive[key], key, path, spec)
    return x, tuple(f"{key}[{row}]" for row in range(len(x)))


def _fitting(x: Array, key: str, path: Path, spec: DataSpec) -> Array:
    """Samples in the shape of the training data."""
    x = _numeric(x, key, path)
    if spec.kind == "image" and len(spec.input_shape) == 3 and spec.input_shape[-1] == 1 and x.ndim == 3:
        x = x[..., np.newaxis]
    if x.ndim != len(spec.input_shape) + 1 or x.shape[1:] != spec.input_shape or len(x) == 0:
        raise DataError(
            f"{key} of {path.name!r} has shape {x.shape}; (samples, {', '.join(map(str, spec.input_shape))}) was "
            "expected, as in training. Bring the samples to that shape."
        )
    return _compact(x)


def read_labelled(path: Path, spec: DataSpec) -> tuple[Array, Array, tuple[str, ...], tuple[str, ...]]:
    """Read another archive with its targets: a validation or test part. Samples without one are left out and told.

    Args:
        path: A .npz file with `x` and `y`, or `x_test` and `y_test`, or `x_train` and `y_train`.
        spec: How the training data was read.

    Raises:
        DataError: Arrays are missing or do not fit, or a label is not one of the training data.
    """
    archive, _ = load(path)
    name = next((y for x, y in (_PAIRS[0], *_PAIRS[:0:-1]) if x in archive and y in archive), None)
    if name is None:
        raise DataError(f"{path.name!r} has the keys {_keys(archive)}; a part needs x and y. Add the one that misses.")
    x = _fitting(archive[name.replace("y", "x")], name.replace("y", "x"), path, spec)
    is_sets = spec.task == "multilabel"
    y = _targets(archive[name], name, path, is_sets=is_sets)
    _check_pairs([(name.replace("y", "x"), x, y)], path)
    present = ~labels.is_missing(y)
    if not present.any():
        raise DataError(f"{name} of {path.name!r} has no target that is a number. Fill them in.")
    where, names = f"{name} of {path.name!r}", _class_names(archive)
    if is_sets:
        codes = _sets_like(
            label_sets.from_rows(y[present], where=where, names=names), spec, where, is_named=bool(names)
        )
    else:
        codes = labels.encode_like(y[present], spec, where=where, names=names)
    row_names = tuple(f"{name.replace('y', 'x')}[{row}]" for row in np.flatnonzero(present))
    x = x if present.all() else room.taken(x, np.flatnonzero(present))
    return x, codes, row_names, columns.without_target(present, "samples")


def _class_names(archive: dict[str, Array]) -> tuple[str, ...]:
    return tuple(map(str, archive["class_names"].ravel())) if "class_names" in archive else ()


def _keys(archive: dict[str, Array]) -> str:
    return ", ".join(sorted(archive)) or "none"


def _extra(archive: dict[str, Array]) -> set[str]:
    used = {name for pair in (_PAIRS[:1] if "x" in archive else _PAIRS[1:]) for name in pair}
    return set(archive) - used - {"class_names"}


def _encoded(y: Array, task: str, *, where: str, names: tuple[str, ...]) -> labels.Labels:
    """One class or number for each sample, or several labels."""
    if y.ndim == 1:
        return labels.encode(y, task=task, where=where, names=names)
    found = label_sets.from_rows(y, where=where, names=names)
    if task != "auto":
        return found
    note = (
        f"Task: multilabel, because {where} holds 0 and 1 in {y.shape[1]} columns, {found.y.sum(axis=1).mean():.1f} "
        "times 1 in a row on average. For classes, save one code for each sample."
    )
    return dataclasses.replace(found, notes=(note,))


def _sets_like(found: labels.Labels, spec: DataSpec, where: str, *, is_named: bool) -> Array:
    """Rows of several labels with the columns in the order of the training data."""
    if is_named and set(found.class_names) == set(spec.class_names):
        return found.y[:, [found.class_names.index(name) for name in spec.class_names]]
    if is_named or found.y.shape[1] != spec.num_classes:
        raise DataError(
            f"{where} has the labels {first_of(found.class_names)}; those of the training data were expected: "
            f"{first_of(spec.class_names)}. Save the same columns, with class_names."
        )
    return found.y


def _pairs(archive: dict[str, Array], path: Path, task: str) -> list[tuple[str, Array, Array]]:
    """The (name, samples, targets) of the file: one pair, or the training pair and those of other parts."""
    first, *others = _PAIRS[:1] if "x" in archive or "y" in archive else _PAIRS[1:]
    wanted = [first, *(pair for pair in others if set(pair) & set(archive))]
    missing = [name for pair in wanted for name in pair if name not in archive]
    if missing:
        hints = "".join(did_you_mean(name, set(archive) - {"class_names"}) for name in missing[:1])
        raise DataError(
            f"{path.name!r} has no {' and no '.join(map(repr, missing))}. Its keys: {_keys(archive)}; expected: "
            f"{_EXPECTED}.{hints} Write it with np.savez_compressed(file, x=..., y=...)."
        )
    # By all of them together: a few test rows may happen to have one label each.
    is_sets = _are_sets([archive[y] for _, y in wanted], task)
    return [(x, archive[x], _targets(archive[y], y, path, is_sets=is_sets)) for x, y in wanted]


def _are_sets(targets: list[Array], task: str) -> bool:
    """Whether targets are rows of several labels."""
    if task != "auto":
        return task == "multilabel"
    if any(y.ndim != 2 or y.dtype.kind not in "biuf" or y.shape[1] != targets[0].shape[1] for y in targets):
        return False
    y = np.concatenate(targets)
    return label_sets.is_label_sets(y[~labels.is_missing(y)])


def _targets(y: Array, name: str, path: Path, *, is_sets: bool) -> Array:
    """One target a sample: columns of one are flattened, one-hot rows become codes; or rows of several labels."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if is_sets and y.ndim == 2 and y.dtype.kind in "biuf":
        return y
    if y.ndim == 2 and y.dtype.kind in "biuf":
        is_one_hot = bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1))
        if is_one_hot:
            return np.asarray(y.argmax(axis=1))
    if y.ndim != 1 or y.dtype.kind not in "biufUS":
        raise DataError(
            f"{name} of {path.name!r} has shape {y.shape} and type {y.dtype}; one class or number a sample, shape "
            "(samples,), one-hot rows, or rows of 0 and 1 for several labels were expected. Several numbers at once "
            "are not supported."
        )
    return y


def _check_pairs(parts: list[tuple[str, Array, Array]], path: Path) -> None:
    problems = [
        f"{name} has {counted(len(x) if x.ndim else 0, 'samples')}, {name.replace('x', 'y', 1)} has {len(y):,}"
        for name, x, y in parts
        if x.ndim == 0 or len(x) != len(y)
    ]
    if problems:
        raise DataError(
            f"{path.name!r}: {'; '.join(problems)}. Every sample needs one target: save pairs of equal length."
        )
    if len(parts[0][1]) == 0:
        raise DataError(f"{path.name!r}: {parts[0][0]} is empty. Save at least a few samples of each class.")
    for name, x, _ in parts[1:]:
        if x.shape[1:] != parts[0][1].shape[1:]:
            raise DataError(
                f"{path.name!r}: samples of x_train have shape {parts[0][1].shape[1:]}, those of {name} {x.shape[1:]}. "
                "Bring both to the same shape."
            )


def _samples(x: Array, *, kind: str, path: Path) -> tuple[Array, Kind, list[str]]:
    """Samples in their final shape and type, their kind, and what was decided."""
    x = _numeric(x, "x", path)
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise DataError(
            f"The samples of {path.name!r} have shape {x.shape[1:]}; images (height, width[, channels]) or series "
            "(steps[, channels]) were expected. Reshape x."
        )
    found = _kind(x) if kind == "auto" else kind
    if found == "image" and x.ndim == 2:
        raise DataError(
            f"The samples of {path.name!r} have shape {x.shape[1:]}, which is no image. Reshape x to (samples, height, "
            "width[, channels]), or use --kind series."
        )
    if found == "series" and x.ndim == 4:
        raise DataError(
            f"The samples of {path.name!r} have shape {x.shape[1:]}, which is no series. Reshape x to (samples, "
            "steps[, channels]), or use --kind image."
        )
    if found == "image" and x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] > 4:
        raise DataError(
            f"The samples of {path.name!r} have shape {x.shape[1:]}: their channels seem to stand first, but (height, "
            "width, channels) is expected. Save np.moveaxis(x, 1, -1)."
        )
    notes = []
    if kind == "auto" and x.ndim == 3:
        shown = "x".join(map(str, x.shape[1:]))
        meaning = "a grey image" if found == "image" else "a series of steps x channels"
        notes.append(f"Each {shown} sample was taken for {meaning} (--kind changes it).")
    if found == "image" and x.ndim == 3:
        x = x[..., np.newaxis]
    return _compact(x), "image" if found == "image" else "series", notes


def _kind(x: Array) -> str:
    if x.ndim != 3:
        return "image" if x.ndim == 4 else "series"
    short, long = sorted(x.shape[1:])
    is_picture = short >= MIN_IMAGE_SIDE_PX and long <= MAX_IMAGE_ASPECT * short
    return "image" if x.dtype == np.uint8 or is_picture else "series"


def _numeric(x: Array, name: str, path: Path) -> Array:
    if x.dtype.kind not in "biuf":
        raise DataError(f"{name} of {path.name!r} has type {x.dtype}; numbers were expected. Convert it before saving.")
    if x.dtype.kind == "f" and not any(np.isfinite(piece).any() for piece in room.pieces(x)):
        raise DataError(f"{name} of {path.name!r} has no finite value at all. Check how it was written.")
    return x


def _compact(x: Array) -> Array:
    """uint8 stays; everything else becomes float32, and float64 keeps its precision in tables of one channel."""
    if x.dtype == np.uint8 or x.dtype == np.float32:
        return x
    if x.dtype == bool:
        return room.joined([x], np.uint8)
    return room.joined([x], np.float64 if x.ndim == 2 else np.float32)
