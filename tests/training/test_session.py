from __future__ import annotations

import random

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from search_spaces.image import ImageSpace
from tuner.training import programs
from tuner.training.seedrun import build_model
from tuner.training.session import configure, release_memory, set_random_seed


@pytest.fixture
def cleared(monkeypatch):
    """How often TensorFlow dropped its compiled functions."""
    library, count = context.pywrap_tfe, []
    clear = library.TFE_ContextClearCaches
    monkeypatch.setattr(library, "TFE_ContextClearCaches", lambda handle: (count.append(1), clear(handle)))
    return count


def drawn(seed_with):
    """Numbers of all sources after seeding."""
    seed_with(7)
    return [
        random.random(),
        np.random.random(),
        keras.ops.convert_to_numpy(keras.random.uniform((3,))).tolist(),
        keras.ops.convert_to_numpy(keras.layers.Dense(2).kernel_initializer((2, 2))).tolist(),
        tf.random.uniform((3,)).numpy().tolist(),
        next(iter(tf.data.Dataset.range(50).shuffle(50))).numpy(),
    ]


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_numbers_are_those_of_keras_own_function(monkeypatch, is_kept):
    monkeypatch.setattr(programs, "num_kept", lambda: int(is_kept))
    expected = drawn(keras.utils.set_random_seed)
    for _ in range(3):
        assert drawn(set_random_seed) == expected


def test_compiled_functions_stay_while_there_are_shared_programs(monkeypatch, cleared):
    set_random_seed(1)
    assert len(cleared) == 1
    monkeypatch.setattr(programs, "num_kept", lambda: 1)
    set_random_seed(2)
    release_memory()
    set_random_seed(2)
    assert len(cleared) == 1
    monkeypatch.setattr(programs, "num_kept", lambda: 0)
    set_random_seed(3)
    release_memory()
    assert len(cleared) == 3


def test_they_are_dropped_once_an_operation_remembers_random_numbers(monkeypatch, cleared):
    monkeypatch.setattr(programs, "num_kept", lambda: 1)
    keras.utils.set_random_seed(1)
    first = tf.random.uniform((2,)).numpy()
    cleared.clear()
    set_random_seed(1)
    assert cleared
    np.testing.assert_array_equal(tf.random.uniform((2,)).numpy(), first)


def test_names_begin_anew(monkeypatch):
    monkeypatch.setattr(programs, "num_kept", lambda: 1)
    set_random_seed(1)
    keras.layers.Dense(1)
    release_memory()
    assert keras.layers.Dense(1).name == "dense"


@pytest.fixture
def _default_session():
    yield
    configure(precision="float32", jit="auto")


def built():
    space = ImageSpace((8, 8, 1), task="classification", num_classes=3, num_train=90, epochs=2)
    return build_model(space, keras_tuner.HyperParameters())


@pytest.mark.usefixtures("_default_session")
def test_layers_compute_in_half_the_bits_and_weights_and_outputs_do_not():
    configure(precision="mixed_bfloat16", jit="auto")
    model = built()
    assert model.get_layer("conv_1").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert model.get_layer("output").compute_dtype == "float32"
    configure(precision="float32", jit="auto")
    assert built().get_layer("conv_1").compute_dtype == "float32"


@pytest.mark.usefixtures("_default_session")
@pytest.mark.parametrize(("jit", "expected"), [("on", True), ("off", False)])
def test_models_are_compiled_as_asked(jit, expected):
    as_keras_decides = built().jit_compile
    configure(precision="float32", jit=jit)
    assert built().jit_compile is expected
    configure(precision="float32", jit="auto")
    assert built().jit_compile == as_keras_decides


def test_a_model_of_a_user_that_runs_eagerly_is_left_alone():
    class Eager(keras_tuner.HyperModel):
        def build(self, hp):
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse", run_eagerly=True)
            return model

    configure(precision="float32", jit="on")
    try:
        assert not build_model(Eager(), keras_tuner.HyperParameters()).jit_compile
    finally:
        configure(precision="float32", jit="auto")
