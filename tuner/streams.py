"""Standard error that outlives its reader: `search 2>&1 | tee log` goes on when `tee` is gone."""

from __future__ import annotations

import io
import os
import sys

__all__ = ["outlive_readers"]


class _Enduring(io.TextIOWrapper):
    """Text to a file descriptor; after the reader has gone, to nowhere."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._turn_away()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._turn_away()

    def _turn_away(self) -> None:
        """Have the descriptor lead nowhere, for the worker processes and libraries too."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def outlive_readers() -> None:
    """Make standard error such a stream, unless it is closed."""
    stream = sys.stderr
    if isinstance(stream, io.TextIOWrapper):
        sys.stderr = _Enduring(
            stream.buffer, stream.encoding, stream.errors, line_buffering=True, write_through=stream.write_through
        )
