"""Ctrl-C and SIGTERM as exceptions that do not get lost.

Python calls a signal's handler between any two instructions of the main thread. Where that is a destructor, or the
callback of a weak reference, it prints the exception that the handler raises and goes on ("Exception ignored in ...").
So what arrived is remembered too, and a loop that runs for long asks for it.
"""

from __future__ import annotations

import signal
import types
from typing import NoReturn

__all__ = ["Terminated", "check", "install"]


class Terminated(BaseException):
    """SIGTERM arrived."""


_EXCEPTIONS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
_arrived: list[int] = []


def install() -> None:
    """Have both signals raise from now on, `KeyboardInterrupt` and `Terminated`."""
    _arrived.clear()
    for number in _EXCEPTIONS:
        signal.signal(number, _on_signal)


def check() -> None:
    """Raise again what has arrived; for a loop, which is left by it."""
    if _arrived:
        raise _EXCEPTIONS[_arrived[-1]]


def _on_signal(number: int, frame: types.FrameType | None) -> NoReturn:
    _arrived.append(number)
    raise _EXCEPTIONS[number]
