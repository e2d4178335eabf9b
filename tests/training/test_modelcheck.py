from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest
from keras import layers

from search_spaces.image import ImageSpace
from search_spaces.series import SeriesSpace
from tuner.stability.detectors import ALARM_SEVERITY
from tuner.training import modelcheck
from tuner.training.modelcheck import check_model

Crossentropy = keras.losses.SparseCategoricalCrossentropy


def model_of(*middle, shape=(8,), units=3, activation="softmax", loss="sparse_categorical_crossentropy"):
    """A sequential model that ends in a dense layer, compiled."""
    outputs = [layers.Dense(units, activation=activation)]
    model = keras.Sequential([keras.Input(shape), *middle, *outputs])
    model.compile(loss=loss)
    return model


def codes(model, **numbers) -> list[str]:
    return [finding.code for finding in check_model(model, **numbers)]


# --- output and loss


@pytest.mark.parametrize(
    ("activation", "loss", "expected"),
    [
        ("softmax", Crossentropy(from_logits=True), ["softmax_with_from_logits"]),
        ("sigmoid", keras.losses.BinaryCrossentropy(from_logits=True), ["softmax_with_from_logits"]),
        (None, "sparse_categorical_crossentropy", ["logits_without_from_logits"]),
        (None, "binary_crossentropy", ["logits_without_from_logits"]),
        ("relu", "categorical_crossentropy", ["activation_loss_mismatch", "logits_without_from_logits"]),
        ("sigmoid", "sparse_categorical_crossentropy", ["activation_loss_mismatch"]),
        ("softmax", "mse", ["activation_loss_mismatch"]),
        ("softmax", "sparse_categorical_crossentropy", []),
        ("softmax", Crossentropy(), []),
        (None, Crossentropy(from_logits=True), []),
        ("softmax", keras.losses.KLDivergence(), []),
        ("sigmoid", "binary_crossentropy", []),
    ],
)
def test_output_and_loss(activation, loss, expected):
    assert sorted(codes(model_of(activation=activation, loss=loss), num_classes=3)) == expected


def test_softmax_over_one_unit_is_constant():
    (finding,) = check_model(model_of(units=1, loss="mse"), num_classes=0)
    assert finding.code == "activation_loss_mismatch"
    assert finding.severity >= 0.9
    assert "always 1" in finding.cause


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", ["activation_loss_mismatch"]), ("sigmoid", ["activation_loss_mismatch"]), (None, []), ("selu", [])],
)
def test_outputs_that_keep_numbers_from_part_of_the_scale(activation, expected):
    assert codes(model_of(units=1, activation=activation, loss="mean_absolute_error"), num_classes=0) == expected


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Softmax(), ["softmax_with_from_logits"]),
        (layers.Activation("softmax"), ["softmax_with_from_logits"]),
        (layers.Reshape((3,)), []),
        (layers.Lambda(lambda x: x), []),
    ],
)
def test_the_last_activation_counts_wherever_it_stands(layer, expected):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3), layer])
    model.compile(loss=Crossentropy(from_logits=True))
    assert codes(model, num_classes=3) == expected


def test_functional_models_and_plain_operations_are_read():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.ops.softmax(layers.Dense(3)(inputs)))
    model.compile(loss=Crossentropy(from_logits=True))
    assert codes(model, num_classes=3) == ["softmax_with_from_logits"]


def test_models_inside_a_model_are_read():
    body = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.BatchNormalization()])
    inputs = keras.Input((8,))
    head = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3, activation="softmax")])
    model = keras.Model(inputs, head(body(inputs)))
    model.compile(loss=Crossentropy(from_logits=True))
    assert codes(model, num_classes=3) == ["softmax_with_from_logits", "double_normalisation"]


@pytest.mark.parametrize(
    ("units", "activation", "loss", "numbers", "is_wrong"),
    [
        (2, "softmax", "sparse_categorical_crossentropy", {"num_classes": 3}, True),
        (3, "softmax", "sparse_categorical_crossentropy", {"num_classes": 3}, False),
        (4, "softmax", "sparse_categorical_crossentropy", {"num_classes": 3}, False),
        (1, "sigmoid", "binary_crossentropy", {"num_classes": 3}, True),
        (1, "sigmoid", "binary_crossentropy", {"num_classes": 2}, False),
        (3, "sigmoid", "binary_crossentropy", {"num_classes": 3}, False),
        (3, None, "mse", {"num_classes": 0}, True),
        (3, None, "mse", {"num_classes": 0, "num_targets": 3}, False),
        (2, "softmax", "sparse_categorical_crossentropy", {}, False),
    ],
)
def test_output_units(units, activation, loss, numbers, is_wrong):
    found = codes(model_of(units=units, activation=activation, loss=loss), **numbers)
    assert ("wrong_output_units" in found) is is_wrong


# --- inputs


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        (0.0, 1.0, []),
        (0.5, 0.3, []),
        (2.9, 9.9, []),
        (3.1, 1.0, ["unscaled_input"]),
        (0.0, 10.1, ["unscaled_input"]),
        (33.0, 78.0, ["unscaled_input"]),
        (0.0, np.nan, []),
    ],
)
def test_inputs_that_are_not_scaled(mean, deviation, expected):
    assert codes(model_of(), num_classes=3, input_mean=mean, input_std=deviation) == expected


@pytest.mark.parametrize(
    ("deviation", "expected"),
    [(70.0, []), (26.0, []), (25.0, ["double_normalisation"]), (0.3, ["double_normalisation"])],
)
def test_scaling_inside_the_model_is_reckoned_with(deviation, expected):
    model = model_of(layers.Rescaling(1 / 255), layers.Flatten(), shape=(4, 4, 1))
    assert codes(model, num_classes=3, input_mean=0.0, input_std=deviation) == expected


def test_a_normalization_layer_is_reckoned_with():
    layer = layers.Normalization(mean=100.0, variance=70.0**2)
    assert codes(model_of(layer), num_classes=3, input_mean=100.0, input_std=70.0) == []
    assert codes(model_of(layer), num_classes=3, input_mean=0.0, input_std=1.0) == ["double_normalisation"]


@pytest.mark.parametrize("layer", [layers.BatchNormalization(), layers.LayerNormalization()])
def test_a_network_that_normalises_its_inputs_takes_any(layer):
    assert codes(model_of(layer), num_classes=3, input_mean=1e3, input_std=1e3) == []


def test_codes_of_words_have_no_scale():
    model = model_of(layers.Embedding(5000, 4), layers.GlobalAveragePooling1D(), shape=(20,))
    assert codes(model, num_classes=3, input_mean=700.0, input_std=900.0) == []


# --- layers


def test_two_normalisations_in_a_row():
    twice = model_of(layers.Dense(4), layers.BatchNormalization(), layers.LayerNormalization())
    assert codes(twice, num_classes=3) == ["double_normalisation"]
    apart = model_of(layers.BatchNormalization(), layers.Dense(4), layers.BatchNormalization())
    assert codes(apart, num_classes=3) == []


@pytest.mark.parametrize(
    ("middle", "expected"),
    [
        ([layers.Dropout(0.3), layers.Dense(4), layers.BatchNormalization()], ["dropout_before_batch_norm"]),
        ([layers.Dropout(0.05), layers.Dense(4), layers.BatchNormalization()], []),
        ([layers.Dropout(0.3, noise_shape=(None, 1)), layers.Dense(4), layers.BatchNormalization()], []),
        ([layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.3)], []),
    ],
)
def test_dropout_before_batch_normalisation(middle, expected):
    assert codes(model_of(*middle), num_classes=3) == expected


@pytest.mark.parametrize("value", ["zeros", "ones"])
def test_constant_weights(value):
    (finding,) = check_model(model_of(layers.Dense(4, kernel_initializer=value)), num_classes=3)
    assert finding.code == "constant_initialiser"
    assert finding.severity > ALARM_SEVERITY


def test_constant_weights_that_do_no_harm():
    last = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4), layers.Dense(3, "softmax", kernel_initializer="zeros")]
    )
    last.compile(loss="sparse_categorical_crossentropy")
    inputs = keras.Input((8,))
    branch = layers.Add()([inputs, layers.Dense(8, kernel_initializer="zeros")(inputs)])
    added = keras.Model(inputs, layers.Dense(3, activation="softmax")(branch))
    added.compile(loss="sparse_categorical_crossentropy")
    frozen = model_of(layers.Dense(4, kernel_initializer="ones", trainable=False))
    assert [codes(model, num_classes=3) for model in (last, added, frozen)] == [[], [], []]


@pytest.mark.parametrize(("scale", "is_large"), [(2.0, False), (10.0, False), (100.0, True)])
def test_initial_weights_that_blow_up_the_signal(scale, is_large):
    keras.utils.set_random_seed(0)
    stack = [
        layers.Dense(32, activation="relu", kernel_initializer=keras.initializers.VarianceScaling(scale))
        for _ in range(4)
    ]
    assert ("large_initial_weights" in codes(model_of(*stack), num_classes=3)) is is_large


@pytest.mark.parametrize(("gain", "is_large"), [(1.0, False), (1.45, False), (1.6, True)])
def test_recurrence_that_amplifies(gain, is_large):
    layer = layers.SimpleRNN(8, recurrent_initializer=keras.initializers.Orthogonal(gain))
    assert ("large_initial_weights" in codes(model_of(layer, shape=(5, 2)), num_classes=3)) is is_large


@pytest.mark.parametrize(("number", "severities"), [(11, []), (12, [0.2]), (18, [0.3]), (24, [0.4])])
def test_deep_plain_stacks(number, severities):
    stack = [layers.Dense(4, activation="relu") for _ in range(number)]
    assert [finding.severity for finding in check_model(model_of(*stack), num_classes=3)] == severities


def test_deep_stacks_with_a_way_around_or_normalisation_are_no_plain_ones():
    inputs = x = keras.Input((4,))
    for _ in range(20):
        x = layers.Add()([x, layers.Dense(4, activation="relu")(x)])
    around = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    around.compile(loss="sparse_categorical_crossentropy")
    normalised = model_of(*[layer for _ in range(20) for layer in (layers.Dense(4), layers.BatchNormalization())])
    assert [codes(model, num_classes=3) for model in (around, normalised)] == [[], []]


@pytest.mark.parametrize(
    ("activation", "number", "is_saturating"), [("sigmoid", 2, False), ("sigmoid", 3, True), ("tanh", 5, False)]
)
def test_hidden_sigmoids_in_a_row(activation, number, is_saturating):
    stack = [layers.Dense(4, activation=activation) for _ in range(number)]
    assert ("saturating_activations" in codes(model_of(*stack), num_classes=3)) is is_saturating


@pytest.mark.parametrize(("number", "is_behind"), [(8, False), (9, True)])
def test_convolutions_that_see_the_whole_input_before_they_begin(number, is_behind):
    # Each 3 x 3 adds 2: the ninth begins with a field of 17, which is twice 8 and more.
    stack = [layers.Conv2D(2, 3, padding="same") for _ in range(number)]
    model = model_of(*stack, layers.GlobalAveragePooling2D(), shape=(8, 8, 1))
    found = [finding for finding in check_model(model, num_classes=3) if "receptive" in finding.code]
    assert bool(found) is is_behind
    assert all(finding.severity <= ALARM_SEVERITY for finding in found)


@pytest.mark.parametrize(("num_train", "is_far"), [(4, True), (5, False), (None, False)])
def test_parameters_and_samples(num_train, is_far):
    # 8 x 100 + 100 + 100 x 3 + 3 = 1,203 parameters.
    found = codes(model_of(layers.Dense(100, activation="relu")), num_classes=3, num_train=num_train)
    assert ("too_many_parameters" in found) is is_far


# --- healthy models, and models of unusual kinds


@pytest.mark.parametrize("num_classes", [10, 0])
@pytest.mark.parametrize(
    ("space", "shape"), [(ImageSpace, (28, 28, 1)), (ImageSpace, (8, 8, 1)), (ImageSpace, (64, 64, 3)),
                         (SeriesSpace, (140, 1)), (SeriesSpace, (9, 1)), (SeriesSpace, (7, 1))]
)  # fmt: skip
def test_the_default_of_every_space_has_no_finding(space, shape, num_classes):
    task = "classification" if num_classes else "regression"
    hypermodel = space(shape, task=task, num_classes=num_classes, num_train=1000, epochs=5)
    model = hypermodel.build(keras_tuner.HyperParameters())
    assert codes(model, num_classes=num_classes, num_train=1000, input_mean=0.0, input_std=1.0) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "VGG16"])
def test_the_networks_of_keras_have_no_alarm(name):
    model = getattr(keras.applications, name)(weights=None, classes=10, input_shape=(64, 64, 3))
    model.compile(loss="sparse_categorical_crossentropy")
    mean, deviation = (118.0, 62.0) if name == "EfficientNetB0" else (0.0, 1.0)
    found = check_model(model, num_classes=10, num_train=50_000, input_mean=mean, input_std=deviation)
    assert [finding.code for finding in found if finding.severity > ALARM_SEVERITY] == []


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs)


def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


def test_models_of_unusual_kinds_are_judged_by_what_they_tell():
    subclassed = Subclassed()
    subclassed.compile(loss="sparse_categorical_crossentropy")
    inputs = keras.Input((8,))
    two = keras.Model(inputs, {"a": layers.Dense(3)(inputs), "b": layers.Dense(1)(inputs)})
    two.compile(loss={"a": Crossentropy(from_logits=True), "b": "mse"})
    unbuilt = keras.Sequential([layers.Dense(3)])
    unbuilt.compile(loss="mse")
    models = (subclassed, two, unbuilt, model_of(activation=None, loss=own_loss), "no model")
    numbers = {"num_classes": 3, "num_train": 10, "input_mean": 0.0, "input_std": 1.0}
    assert [codes(model, **numbers) for model in models] == [[]] * len(models)


def test_a_check_that_breaks_is_left_out(monkeypatch):
    def broken(subject):
        raise RuntimeError("a model like no other")

    monkeypatch.setattr(modelcheck, "CHECKS", (broken, modelcheck.logits))
    assert codes(model_of(loss=Crossentropy(from_logits=True)), num_classes=3) == ["softmax_with_from_logits"]


def test_nothing_of_the_model_is_changed():
    model = model_of(layers.Dense(4, kernel_initializer="zeros"), layers.BatchNormalization())
    weights = [weight.copy() for weight in model.get_weights()]
    config = model.get_config()
    check_model(model, num_classes=3, num_train=10, input_mean=0.0, input_std=1.0)
    assert model.get_config() == config
    assert all(np.array_equal(*pair) for pair in zip(weights, model.get_weights(), strict=True))


def labels_model(activation, loss, units=4):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(units, activation=activation)])
    model.compile(loss=loss)
    return model


@pytest.mark.parametrize(
    ("activation", "loss", "units", "expected"),
    [
        ("sigmoid", "binary_crossentropy", 4, []),
        (None, keras.losses.BinaryCrossentropy(from_logits=True), 4, []),
        ("sigmoid", keras.losses.BinaryCrossentropy(label_smoothing=0.1), 4, []),
        ("softmax", "binary_crossentropy", 4, ["activation_loss_mismatch"]),
        ("softmax", "categorical_crossentropy", 4, ["activation_loss_mismatch"]),
        ("sigmoid", "binary_crossentropy", 3, ["wrong_output_units"]),
    ],
)
def test_several_labels_need_one_sigmoid_each(activation, loss, units, expected):
    found = check_model(labels_model(activation, loss, units), num_classes=4, is_multilabel=True)
    assert [finding.code for finding in found] == expected


def test_softmax_over_classes_is_no_fault_of_one_label_each():
    assert not check_model(labels_model("softmax", "categorical_crossentropy"), num_classes=4)
