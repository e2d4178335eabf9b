"""What stands between a gradient and the weights: updates that are not finite are not applied, and the rate is scaled.

The gate sits in `optimizer.apply`, as the recorder of the gradient norm does (`tuner.training.monitor`), so that it is
part of the compiled step. The rate is scaled by a variable while an update is applied, and only there: schedules and
callables are scaled like a plain rate, and callbacks that read and set `optimizer.learning_rate` see their own numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tuner.training.replacement import Replacement

__all__ = ["Checkpoint", "UpdateGate", "restore", "snapshot"]

# Variables with their values, in memory.
Checkpoint = list[tuple[Any, npt.NDArray[Any]]]


def snapshot(variables: list[Any]) -> Checkpoint:
    """The present values of variables."""
    return [(variable, np.array(keras.ops.convert_to_numpy(variable.value))) for variable in variables]


def restore(checkpoint: Checkpoint) -> None:
    """Give variables the values of a checkpoint."""
    for variable, value in checkpoint:
        variable.assign(value)


class UpdateGate:
    """Gates and scales the updates of one model's optimizer; installed before the training function is compiled.

    The numbers of a training whose updates are all finite are the same with and without it, to the last bit.

    Args:
        model: Compiled.
        scale: Factor on the learning rate to begin with.

    Raises:
        TypeError: The model has no optimizer, or is trained on several devices at once.
    """

    def __init__(self, model: Any, *, scale: float) -> None:
        if model.optimizer is None:
            raise TypeError("the model was compiled without an optimizer")
        if getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1) > 1:
            raise TypeError("the model is trained on several devices at once")
        self._model = model
        # Mixed precision wraps the optimizer, and takes what is not finite there as its sign to scale less.
        self._optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        with keras.name_scope(self._optimizer.name):
            self.scale = self._optimizer.add_variable(
                shape=(), initializer=keras.initializers.Constant(scale), dtype="float32", name="guard_scale"
            )
        self._is_installed = True
        self._replaced = Replacement(self._optimizer, "apply", self._gated)

    def variables(self) -> list[Any]:
        """What a step of the training changes: weights, states of layers and seeds, variables of the optimizer.

        Not the learning rate, which belongs to the user's callbacks, nor metrics.
        """
        rate = getattr(self._optimizer, "_learning_rate", None)
        left_out = {id(variable) for variable in (self.scale, rate, *self._model.metrics_variables)}
        candidates = {id(variable): variable for variable in (*self._model.variables, *self._model.optimizer.variables)}
        return [variable for key, variable in candidates.items() if key not in left_out]

    def remove(self) -> None:
        """Leave the optimizer as it was; what is compiled from now on has no gate."""
        self._is_installed = False
        self._replaced.undo()
        variables = self._optimizer._variables
        del variables[next(index for index, variable in enumerate(variables) if variable is self.scale)]
        self._model.train_function = None

    def _gated(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        def gated(grads: Any, trainable_variables: Any = None) -> Any:
            if not self._is_installed:
                return apply(grads, trainable_variables)
            grads = list(grads)
            variables = None if trainable_variables is None else list(trainable_variables)
            if variables is not None and not self._optimizer.built:
                self._optimizer.build(variables)
            self._apply_if(_is_finite(grads), lambda: apply(grads, variables))
            return self._optimizer.iterations

        return gated

    def _apply_if(self, is_finite: Any, update: Callable[[], Any]) -> None:
        if keras.backend.backend() == "tensorflow":
            # A branch of its own for the rate as it is: TensorFlow's optimiser of graphs multiplies in another order
            # when there is a factor (measured: AdamW under a schedule with clipping, the 7th digit).
            is_scaled = keras.ops.not_equal(self.scale.value, 1.0)
            keras.ops.cond(
                is_finite,
                lambda: keras.ops.cond(is_scaled, lambda: self._scaled(update), lambda: _only(update)),
                lambda: None,
            )
            return
        # Elsewhere a branch must not assign: the update is made, and taken back.
        changed = [*self._optimizer._trainable_variables, *self._optimizer.variables]
        before = [variable.value for variable in changed]
        self._scaled(update)
        for variable, value in zip(changed, before, strict=True):
            variable.assign(keras.ops.where(is_finite, variable.value, value))

    def _scaled(self, update: Callable[[], Any]) -> None:
        def scaled(rate: Callable[[], Any]) -> Callable[[], Any]:
            return lambda: keras.ops.multiply(rate(), self.scale.value)

        replaced = Replacement(self._optimizer, "_get_current_learning_rate", scaled)
        try:
            update()
        finally:
            replaced.undo()


def _only(update: Callable[[], Any]) -> None:
    """Without its result: both sides of a branch must return the same."""
    update()


def _is_finite(grads: Any) -> Any:
    """Whether the sum of squares of all gradients is finite: a norm beyond 1e19 overflows later if not here."""
    squares = [
        keras.ops.sum(keras.ops.square(keras.ops.cast(getattr(grad, "values", grad), "float32")))
        for grad in grads
        if grad is not None
    ]
    return keras.ops.isfinite(sum(squares[1:], squares[0])) if squares else True
