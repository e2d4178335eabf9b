"""Arrays as tensors: small ones are copied; large ones that lie in a memory-mapped file are read there.

So the data of a training may be larger than the memory: the kernel brings in the pages that a batch needs, and lets
them go again. Nothing runs in Python for it, and the batches hold the same numbers either way. JAX and torch need none
of this: Keras takes their batches from NumPy arrays, memory-mapped ones included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.room import MAX_IN_MEMORY_BYTES

__all__ = ["MAX_COPIED_BYTES", "tensor"]

# Largest array that is copied into memory, which takes the disk, or network, of its file out of the training.
MAX_COPIED_BYTES = MAX_IN_MEMORY_BYTES

# Where a tensor has to begin. Source: Eigen's EIGEN_MAX_ALIGN_BYTES with AVX512; NumPy's files pad their header to it.
ALIGNMENT_BYTES = 64


class _Lent:
    """A read-only array as one that DLPack hands out; it keeps the array, and so the file's mapping, alive.

    NumPy refuses to hand out what may not be written to. Tensors are never written to.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def tensor(array: npt.NDArray[Any]) -> Any:
    """A TensorFlow tensor of the same numbers.

    Args:
        array: Of any type that TensorFlow knows; a `np.memmap` of more than `MAX_COPIED_BYTES` is not copied, if it
            lies in one piece.
    """
    import tensorflow as tf

    if not _is_read_in_place(array):
        return tf.constant(np.asarray(array))
    return tf.experimental.dlpack.from_dlpack(np.asarray(_Lent(array)).__dlpack__())


def _is_read_in_place(array: npt.NDArray[Any]) -> bool:
    return (
        isinstance(array, np.memmap)
        and array.nbytes > MAX_COPIED_BYTES
        and array.flags.c_contiguous
        and array.dtype.isnative
        and array.ctypes.data % ALIGNMENT_BYTES == 0
    )
