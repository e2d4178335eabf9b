"""How a process of this program loads Keras: when it needs it, in the order that takes least, and quietly."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

__all__ = ["keras_loaded", "load_keras"]


def load_keras() -> None:
    """Load Keras and what is slow to load behind it, and have its devices found.

    Raises:
        ImportError, ValueError: As `tuner.errors.package_faults` reads them.
    """
    # skops looks through every module that is loaded: 0.4 s before Keras, and 1.8 to 2.5 s behind it (measured).
    import skops.io  # noqa: F401

    import keras  # isort: skip

    keras.ops.zeros(1)


@contextlib.contextmanager
def keras_loaded() -> Iterator[None]:
    """A block with Keras, in which TensorFlow's start-up notes stay off the terminal; they show if the import fails.

    Its C++ libraries write to the file descriptor itself, before any setting of theirs is read.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            load_keras()
            yield
        except ImportError:
            notes.seek(0)
            os.write(terminal, notes.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
