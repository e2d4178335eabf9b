"""Errors a user can meet, and the exit code that each one ends the program with.

    TunerError                70  (never raised itself; anything else that escapes is our bug)
    |-- ConfigError            2  an option, a configuration file, a hyperparameter name or range
    |-- DataError              2  data that cannot be read or used as it is
    |-- SpaceError             2  a search space that cannot be found, loaded or built
    |-- BundleError            2  an exported bundle that is incomplete or was changed
    |-- RunError               2  a run folder that does not fit what is asked of it
    |-- AuditError             3  the data audit found severe faults
    `-- EnvironmentFault       4  storage, permissions, disk space, a missing package

A diverged training is none of these: it is a result (`tuner.records.Outcome`).
Every message says what is wrong (with the value), what was expected, and what to do.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator

__all__ = [
    "AuditError",
    "BundleError",
    "ConfigError",
    "DataError",
    "EnvironmentFault",
    "RunError",
    "SpaceError",
    "TunerError",
    "did_you_mean",
    "first_of",
    "memory_faults",
    "package_faults",
    "require_backend",
]

_OUR_PACKAGES = ("reports", "search_spaces", "tuner")


class TunerError(Exception):
    """Anything the user can mend; its message is printed without a traceback."""

    exit_code = 70


class ConfigError(TunerError):
    """An option, configuration key, hyperparameter name or range that is not valid."""

    exit_code = 2


class DataError(TunerError):
    """Data that cannot be read, or cannot be learned from, as it is."""

    exit_code = 2


class SpaceError(TunerError):
    """A search space that cannot be found, loaded or built."""

    exit_code = 2


class BundleError(TunerError):
    """An exported bundle that is incomplete, or whose files were changed."""

    exit_code = 2


class RunError(TunerError):
    """A run folder that is missing, or was made from other data or settings."""

    exit_code = 2


class AuditError(TunerError):
    """The data audit found faults so severe that a search would waste its time."""

    exit_code = 3


class EnvironmentFault(TunerError):
    """The machine, not the input: storage, permissions, disk space, a missing package."""

    exit_code = 4


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the nearest known name, or an empty string.

    Args:
        wrong: The name that was not recognised.
        known: The names that would have been.
    """
    matches = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def first_of(items: Iterable[str], *, most: int = 10, separator: str = ", ") -> str:
    """The items for a message; of many the first ones, and how many more there are.

    Args:
        items: Names or phrases.
        most: At most this many are shown.
        separator: Between them.
    """
    every = list(items)
    if len(every) > most:
        every[most:] = [f"and {len(every) - most:,} more"]
    return separator.join(every)


@contextlib.contextmanager
def package_faults() -> Iterator[None]:
    """Turn a package of others that is missing or broken into an `EnvironmentFault` that names it.

    Raises:
        EnvironmentFault: An import in the block failed, or Keras was told to use a backend that it does not have.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package in _OUR_PACKAGES:
            raise
        raise EnvironmentFault(
            f"The package {package or 'that was imported'!r} is missing or broken: {error}. "
            f"Install it where this program runs: {sys.executable} -m pip install {package or 'PACKAGE'}"
        ) from error
    except ValueError as error:
        # What importing Keras 3.15 raises for a backend that it does not know.
        if not str(error).startswith("Unable to import backend"):
            raise
        raise _no_backend(os.environ.get("KERAS_BACKEND", str(error))) from error


@contextlib.contextmanager
def memory_faults() -> Iterator[None]:
    """Turn memory that ran out into an `EnvironmentFault`; where a training met it, it is a result before that.

    Raises:
        EnvironmentFault: It ran out in the block.
    """
    try:
        yield
    except MemoryError as error:
        raise EnvironmentFault(
            f"Memory ran out: {str(error) or 'no more could be had'}. Use fewer --workers, give the program more "
            "memory, or give it less data; samples may be larger than the memory as .npy files or as folders of images "
            "and sounds."
        ) from error


def require_backend() -> None:
    """Check that the package is there that Keras is told to compute with, without importing it.

    Raises:
        EnvironmentFault: It is not.
    """
    name = os.environ.get("KERAS_BACKEND", "")
    if name and importlib.util.find_spec(name) is None:
        raise _no_backend(name)


def _no_backend(name: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"Keras has no backend {name!r}. Set KERAS_BACKEND (or the backend in ~/.keras/keras.json) to tensorflow, jax "
        "or torch, and have that package installed; or unset it."
    )
