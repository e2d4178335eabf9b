"""Telling how far the reading and predicting of much data is, to whoever listens; nothing if nobody does."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, Protocol

__all__ = ["MIN_TOLD_BYTES", "MIN_TOLD_WORKBOOK_BYTES", "Watcher", "opened", "tell", "watched"]

# Smaller files are read in a second, and in folders of many only their number is told. Source: measured; a table of
# 68 MB takes 2 s on one core.
MIN_TOLD_BYTES = 10_000_000
# An Excel workbook takes as long as a text of some 20 times its size (measured).
MIN_TOLD_WORKBOOK_BYTES = 500_000

# Read at a time of files that are told of.
BUFFER_BYTES = 2**18


class Watcher(Protocol):
    """Is told what is being done, such as `reading images`, how much of it is done, and of how much."""

    def __call__(self, doing: str, done: int, total: int, unit: str = "") -> None:
        """Hear of it; the unit follows the numbers."""


# Here, so that no reader has to hand it on.
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """While the block runs, tell a watcher of each file that is looked at or read, and of each piece of a large one.

    Args:
        watcher: Folders are gone through twice, and so are tables of text.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(doing: str, done: int, total: int, unit: str = "") -> None:
    """Tell the watcher, if there is one.

    Args:
        doing: What is being done.
        done: How much of it is, from 0 or 1 on.
        total: How much there is.
        unit: Of both.
    """
    watcher = _watcher.get()
    if watcher is not None:
        watcher(doing, done, total, unit)


def opened(path: Path, doing: str, *, least_bytes: int | None = None) -> BinaryIO:
    """A file to be read, of which the share that was read so far is told in per cent.

    Args:
        path: The file.
        doing: What is being done.
        least_bytes: Nothing is told of smaller files; None for `MIN_TOLD_BYTES`.
    """
    if path.stat().st_size < (MIN_TOLD_BYTES if least_bytes is None else least_bytes):
        return path.open("rb")
    return io.BufferedReader(_ToldFile(path, doing), BUFFER_BYTES)


class _ToldFile(io.FileIO):
    """A file that tells how much of it was read."""

    def __init__(self, path: Path, doing: str) -> None:
        super().__init__(path)
        self._doing = doing
        self._size = max(1, path.stat().st_size)
        self._num_read, self._told_percent = 0, -1

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and tell."""
        num_bytes = super().readinto(buffer)
        self._num_read += num_bytes
        percent = min(100, 100 * self._num_read // self._size)
        if percent > self._told_percent:
            self._told_percent = percent
            tell(self._doing, percent, 100, " %")
        return num_bytes
