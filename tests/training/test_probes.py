from __future__ import annotations

import keras
import numpy as np
import pytest

from tuner.training.monitor import StabilityMonitor


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_the_update_ratio_of_plain_descent_is_rate_times_gradient_over_weights(steps_per_execution):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(1e-4), "mse", steps_per_execution=steps_per_execution)
    size = np.linalg.norm(model.get_weights()[0])
    monitor = StabilityMonitor(probes=True)
    model.fit(x, x[:, 0], epochs=1, verbose=0, callbacks=[monitor])
    expected = np.log10(1e-4 * np.median(monitor.trace.grad_norm) / size)
    assert monitor.trace.channels["update_ratio"][0] == pytest.approx(expected, abs=0.02)
