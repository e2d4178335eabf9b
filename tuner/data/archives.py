"""Named arrays from NumPy's files: those of a .npz archive, or .npy files side by side (`x.npy` and `y.npy`).

A large .npy file is mapped into memory and read piece by piece, so it may be larger than that; a .npz file is read as a
whole.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data import room
from tuner.errors import DataError

__all__ = ["ARRAY_SUFFIXES", "SAMPLES", "TARGETS", "load", "load_samples", "samples_in"]

ARRAY_SUFFIXES = (".npz", ".npy")

# What arrays of samples and of targets are called, and the parts that they belong to.
SAMPLES = ("x", "samples", "features", "images", "data")
TARGETS = ("y", "targets", "labels")
_PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}

Array = npt.NDArray[Any]


def load(path: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    """All arrays by name, and notes; samples and targets get the names `x_train` and so on, whatever they have.

    Args:
        path: A .npz file, or a .npy file of samples, beside which the others of its set lie.

    Raises:
        DataError: It cannot be read, holds Python objects, or a .npy file has no targets beside it.
    """
    if path.suffix.lower() == ".npy":
        files = _neighbours(path)
        note = f"Read together: {', '.join(sorted(file.name for file in files.values()))}."
        return {name: _read(file)["x"] for name, file in files.items()}, (note,)
    arrays = _read(path)
    usual = {name: _usual_name(name) for name in arrays}
    taken = {name: found for name, found in usual.items() if found == name or list(usual.values()).count(found) == 1}
    strange = {name: found for name, found in taken.items() if found not in (name, name.lower())}
    named = ", ".join(f"{name} for {found}" for name, found in strange.items())
    notes = (f"Taken in {path.name!r}: {named}.",) if strange else ()
    return {taken.get(name, name): array for name, array in arrays.items()}, notes


def samples_in(folder: Path) -> Path | None:
    """The .npy file of samples to learn from in a folder that holds a set of arrays; None if it holds none."""
    files = {_usual_name(file.stem): file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".npy"}
    return files.get("x_train", files.get("x"))


def load_samples(path: Path) -> dict[str, Array]:
    """The arrays that predictions may be made from: those of a .npz file, or the one of a .npy file.

    Raises:
        DataError: It cannot be read, or holds Python objects.
    """
    return load(path)[0] if path.suffix.lower() == ".npz" else _read(path)


def _usual_name(name: str) -> str:
    """`x_validation` for `X_val` or `val_images`; other names as they are."""
    return "_".join(filter(None, _split(name) or (name,)))


def _split(name: str) -> tuple[str, str] | None:
    """`x` or `y`, and the part or an empty text, of what an array is called; None for other names."""
    words = re.split(r"[_\-. ]+", name.lower())
    parts = [word for word in words if word in _PARTS]
    kinds = ["x" if word in SAMPLES else "y" for word in words if word in (*SAMPLES, *TARGETS)]
    if len(words) != len(parts) + len(kinds) or len(kinds) != 1 or len(parts) > 1:
        return None
    return kinds[0], _PARTS[parts[0]] if parts else ""


def _neighbours(path: Path) -> dict[str, Path]:
    """The files of a set of arrays: the targets beside the samples, other parts, names of classes and groups."""
    given = _split(path.stem)
    files = sorted(file for file in path.parent.iterdir() if file.suffix.lower() == ".npy" and file.is_file())
    found: dict[str, Path] = {}
    for file in files:
        found.setdefault(_usual_name(file.stem), file)
    if given is None or given[0] != "x" or "_".join(filter(None, ("y", given[1]))) not in found:
        expected = "y.npy" if given is None or not given[1] else f"y_{given[1]}.npy"
        raise DataError(
            f"{path.name!r} is one array, and its targets are missing. Expected: x.npy with {expected} beside it (or "
            "x_train.npy, y_train.npy, x_test.npy, y_test.npy). Save them, or write both into one file with "
            "np.savez(file, x=..., y=...)."
        )
    found["_".join(filter(None, given))] = path
    return found


def _read(path: Path) -> dict[str, Array]:
    """The arrays of one file; a single one is called x."""
    try:
        with path.open("rb") as stream:
            # A large array stays in its file; NumPy maps none of an archive.
            is_mapped = path.suffix.lower() == ".npy" and path.stat().st_size > room.MAX_IN_MEMORY_BYTES
            archive = np.load(path if is_mapped else stream, "r" if is_mapped else None, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                if path.suffix.lower() == ".npz":
                    raise DataError(
                        f"{path.name!r} holds a single array, not an archive. Save it with np.savez(x=..., y=...), or "
                        "call it x.npy and put y.npy beside it."
                    )
                return {"x": archive}
            return {name: archive[name] for name in archive.files}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path.name!r} cannot be read as a NumPy archive: {error}. It may be cut short: copy it again, or write "
            "it with np.savez_compressed(file, x=..., y=...)."
        ) from error
    except ValueError as error:
        if _is_foreign(path):
            raise DataError(
                f"{path.name!r} is no file of NumPy, whatever its name says. Write it with np.savez_compressed(file, "
                "x=..., y=...)."
            ) from error
        reason = f"{str(error).partition(' If you trust')[0].rstrip('.')}."
        raise DataError(
            f"{path.name!r} cannot be read: {reason} Plain arrays of numbers (or text for the targets) are expected; "
            "arrays of Python objects could run code and are refused. Save them with a numeric dtype."
        ) from error


def _is_foreign(path: Path) -> bool:
    """Whether a file begins neither like an array nor like an archive of NumPy."""
    with path.open("rb") as stream:
        return not stream.read(6).startswith((b"\x93NUMPY", b"PK"))
