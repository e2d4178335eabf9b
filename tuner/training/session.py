"""The Keras session of this process: how its models compute, its seeds, and its memory between trainings.

`keras.utils.set_random_seed` and `keras.backend.clear_session` have TensorFlow drop every compiled function, because
random operations with a state of their own keep it there. A training that finds its program compiled would pay for it
again (measured, a small CNN: 0.8 to 1.2 s of 1.4 to 2.0 s until the first epoch is done). So here the compiled
functions stay while there are shared programs, whose random numbers have their state in variables, and as long as no
other operation has drawn a seed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import keras

from tuner.records import JitName, PrecisionName
from tuner.training import programs

__all__ = ["configure", "jit_of_models", "release_memory", "set_random_seed"]

_jit: JitName = "auto"


def configure(*, precision: PrecisionName, jit: JitName) -> None:
    """Decide how the models that are built in this process from now on compute.

    Args:
        precision: Of their layers; a layer that says its own keeps it.
        jit: Whether the step is compiled with XLA; `auto` leaves it to Keras, which does on a GPU.
    """
    global _jit
    keras.config.set_dtype_policy(precision)
    _jit = jit


def jit_of_models() -> bool | None:
    """Whether models are to be compiled with XLA; None: as Keras decides for each."""
    return None if _jit == "auto" else _jit == "on"


def set_random_seed(seed: int) -> None:
    """As Keras' own: Python, NumPy, Keras and the backend draw the same numbers after it.

    Args:
        seed: At least 0, below 2**32.
    """
    with _compiled_functions_kept():
        keras.utils.set_random_seed(seed)


def release_memory() -> None:
    """Forget the graphs of models that are no longer used; without it memory grows from trial to trial."""
    with _compiled_functions_kept():
        # It collects garbage, too.
        keras.backend.clear_session()


def _may_keep() -> bool:
    """Whether there are compiled functions worth keeping, and none that remembers random numbers."""
    if keras.backend.backend() != "tensorflow" or not programs.num_kept():
        return False
    from tensorflow.python.eager import context

    state = vars(context.context())
    seed, drawn_from = state.get("_seed"), state.get("_rng")
    # Operations with a state of their own draw a seed for it when they are run.
    return seed is not None and drawn_from is not None and drawn_from.getstate() == random.Random(seed).getstate()


@contextlib.contextmanager
def _compiled_functions_kept() -> Iterator[None]:
    """A block in which TensorFlow drops no compiled function, if they may be kept."""
    if not _may_keep():
        yield
        return
    from tensorflow.python.eager import context

    library = context.pywrap_tfe
    clear = library.TFE_ContextClearCaches
    library.TFE_ContextClearCaches = lambda handle: None
    try:
        yield
    finally:
        library.TFE_ContextClearCaches = clear
