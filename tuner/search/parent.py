"""The tie of a worker process to its supervisor: it ends when that dies, however it dies."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

__all__ = ["SUPERVISOR_VARIABLE", "end_with_parent"]

# Tells a worker whose child it is.
SUPERVISOR_VARIABLE = "TUNER_SUPERVISOR_PID"

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """On Linux, have the kernel end this process when the one that started it dies."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(SUPERVISOR_VARIABLE, str(os.getppid())) != str(os.getppid()):
        # It died before the call above, while this process was starting.
        os.kill(os.getpid(), signal.SIGKILL)
