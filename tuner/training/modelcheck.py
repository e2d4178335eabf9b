"""Static checks of a compiled Keras model: what will go wrong before the first step is done.

Nothing is trained and nothing of the model is changed. What a model does not tell (a subclassed `call`, a loss of the
user's own) is not judged. Each check answers with at most one finding; its code reaches the diagnosis as `model:CODE`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np

from tuner.grammar import counted
from tuner.records import Finding, FloatArray, Remedy
from tuner.training.losses import BINARY_LOSSES, ends_with_logits, loss_name

__all__ = ["check_model"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Inputs further from mean 0 than this, or further from deviation 1 by this factor, are not scaled; the second also
# says when scaling was done twice. Source: as the probe of the inputs (`tuner.stability.probes`).
INPUT_MEAN, INPUT_STD_FACTOR = 3.0, 10.0
# Parameters for each sample: from here on it is told, and here it is sure. Source: convention; small image networks
# that generalise well have up to 100.
PARAMETERS_PER_SAMPLE, PARAMETERS_PER_SAMPLE_SURE = 300.0, 10_000.0
# Layers with weights one after the other, without normalisation and without a way around: told from, an alarm above.
# Source: VGG has 13 to 19 (its authors could not train 19 from scratch at first; Simonyan & Zisserman 2015, section
# 3.1), and He et al. 2016, figure 1, got worse from 20 on even with normalisation.
DEEP_PLAIN_LAYERS, DEEP_PLAIN_SURE = 13, 25
# Hidden sigmoids in a row. Source: Glorot & Bengio 2010 ("Understanding the difficulty of training deep feedforward
# networks"), section 3: three still train, four and five stand still for long or for ever.
SATURATING_LAYERS = 3
# Layers that see the whole input from every place before they begin: a receptive field of twice the input. Source:
# Richter et al. 2021 ("Should you go deeper?"): layers behind it do not add to accuracy.
SEES_ALL_FACTOR = 2.0
# Inputs shorter than this are seen as a whole by any two convolutions. Source: convention.
SHORT_INPUT = 8
# Size to which the initial weights blow up a signal, beyond what He initialisation gives. Source: convention; He,
# Glorot and LeCun stay within a factor of 2 to 3 over twenty layers.
LARGE_GAIN = 100.0
# Most by which a recurrent layer may amplify in one step. Source: orthogonal initialisation has 1, Glorot at most 2.
LARGE_RECURRENT_GAIN = 1.5
# Gain of a layer that keeps the size of the signal behind a ReLU. Source: He et al. 2015.
HE_GAIN = math.sqrt(2)
# Dropout weaker than this shifts no variance worth a line. Source: convention.
DROPOUT_FRAC = 0.1

CLASS_LOSSES = ("sparse_categorical_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy")
NUMBER_LOSSES = (
    "mean_squared_error", "mean_absolute_error", "huber", "log_cosh", "mean_squared_logarithmic_error",
    "mean_absolute_percentage_error",
)  # fmt: skip
NORMALISERS = (
    "BatchNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "UnitNormalization",
    "RMSNormalization",
)
# Layers that leave the output activation what it was.
TRANSPARENT = ("Reshape", "Flatten", "Identity", "Dropout")
# Outputs that are bounded to one side or two: no number beyond can be predicted.
BOUNDED = ("relu", "sigmoid", "softmax", "tanh", "softplus", "relu6", "hard_sigmoid", "exponential", "softsign")


@dataclass(frozen=True, eq=False)
class Vertex:
    """A layer (or operation) at one place of the model, with those that feed it."""

    layer: Any
    parents: tuple[Vertex, ...]

    @property
    def kind(self) -> str:
        """Name of its class."""
        return type(self.layer).__name__


@dataclass(frozen=True, eq=False)
class Subject:
    """What the checks look at.

    Attributes:
        vertices: In the order of the data; empty if the model does not tell.
        num_classes: Of several labels, their number; 0 for regression; None if not known.
        is_multilabel: Whether a sample has several labels, or none.
    """

    model: Any
    vertices: tuple[Vertex, ...]
    num_classes: int | None
    is_multilabel: bool
    num_targets: int
    num_train: int | None
    input_mean: float | None
    input_std: float | None

    @property
    def units(self) -> int | None:
        """Output units, if the model has a single output of one row for each sample."""
        shape = getattr(self.model, "output_shape", None)
        return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None

    @property
    def activation(self) -> str | None:
        """Name of the output activation; None if the model does not tell."""
        found = self.vertices[-1] if self.vertices and len(self.model.outputs) == 1 else None
        while found is not None and found.kind in TRANSPARENT:
            found = found.parents[0] if found.parents else None
        return None if found is None else _activation(found.layer)


def check_model(
    model: Any,
    *,
    num_classes: int | None = None,
    is_multilabel: bool = False,
    num_targets: int = 1,
    num_train: int | None = None,
    input_mean: float | None = None,
    input_std: float | None = None,
) -> tuple[Finding, ...]:
    """Check a compiled model; checks whose numbers are not given are left out.

    It never raises: a check that a model of an unusual kind breaks is left out, too.

    Args:
        model: Any compiled Keras model, before or after its training.
        num_classes: Of the labels; 0 for regression.
        is_multilabel: Whether a sample has several of them, or none, as rows of 0 and 1.
        num_targets: Numbers to predict for each sample, for regression.
        num_train: Samples in the training part.
        input_mean, input_std: Of all that the model is fed.

    Returns:
        Findings, worst first; none for a model without a known fault.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        >>> model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> [finding.code for finding in check_model(model, num_classes=3)]
        ['softmax_with_from_logits']
    """
    found: list[Finding] = []
    vertices = _or_nothing(_vertices, model) or ()
    subject = Subject(model, vertices, num_classes, is_multilabel, num_targets, num_train, input_mean, input_std)
    for check in CHECKS:
        finding = _or_nothing(check, subject)
        if finding is not None:
            found.append(finding)
    return tuple(sorted(found, key=lambda finding: -finding.severity))


def _or_nothing(function: Callable[[Any], T], argument: Any) -> T | None:
    try:
        return function(argument)
    except Exception:
        logger.debug("check %s does not fit this model", function.__name__, exc_info=True)
        return None


# --- Output and loss


def logits(subject: Subject) -> Finding | None:
    """Whether output and loss agree on what is handed over: probabilities or logits."""
    loss, activation = loss_name(subject.model), subject.activation
    if loss not in CLASS_LOSSES + BINARY_LOSSES or activation is None:
        return None
    are_probabilities = activation in ("softmax", "sigmoid", "hard_sigmoid")
    if ends_with_logits(subject.model):
        if not are_probabilities:
            return None
        return _finding(
            "softmax_with_from_logits",
            f"The output goes through {activation} and the loss, told from_logits=True, does it once more: the loss "
            "cannot come near zero, and gradients are small.",
            severity=0.6,
            remedies=(Remedy("model", "end with a linear layer, or set from_logits=False", "Once is enough."),),
        )
    if are_probabilities:
        return None
    return _finding(
        "logits_without_from_logits",
        f"The output is {activation}, but the loss, told from_logits=False, takes it for probabilities.",
        severity=0.8,
        remedies=(
            Remedy("model", "set from_logits=True, or end with softmax or sigmoid", "The loss is wrong as it is."),
        ),
    )


def output_units(subject: Subject) -> Finding | None:
    """Whether there is one output for each class or number."""
    units, classes, loss = subject.units, subject.num_classes, loss_name(subject.model)
    if units is None or classes is None:
        return None
    if loss in CLASS_LOSSES and 0 < units < max(2, classes):
        told = f"{counted(units, 'output units')} for {classes} classes: some labels have no output."
    elif subject.is_multilabel and loss in BINARY_LOSSES and units != classes:
        told = f"{counted(units, 'output units')} for {classes} labels: each needs one of its own."
    elif loss in BINARY_LOSSES and units == 1 and classes > 2:
        told = f"One output unit, as for two classes, for {classes} classes."
    elif loss in NUMBER_LOSSES and classes == 0 and units != subject.num_targets:
        told = (
            f"{counted(units, 'output units')} for {counted(subject.num_targets, 'numbers')}: the loss compares every "
            "unit with every number."
        )
    else:
        return None
    return _finding(
        "wrong_output_units",
        told,
        severity=0.85,
        evidence={"units": units, "num_classes": classes},
        remedies=(Remedy("model", f"end with {counted(classes or subject.num_targets, 'units')}", "One for each."),),
    )


def activation_and_loss(subject: Subject) -> Finding | None:
    """Output activations that do not fit the loss or the target."""
    loss, activation, units = loss_name(subject.model), subject.activation, subject.units
    severity = 0.6
    if activation == "softmax" and units == 1:
        told, severity = "Softmax over a single unit is always 1: the network cannot learn.", 0.9
    elif subject.is_multilabel and (activation == "softmax" or loss in CLASS_LOSSES):
        told, severity = "One class is made the right one, but a sample may have several labels, or none.", 0.9
    elif activation == "sigmoid" and loss in CLASS_LOSSES:
        told = "Sigmoid outputs do not add up to 1, as this loss takes for granted."
    elif (
        loss in CLASS_LOSSES + BINARY_LOSSES and activation in ("relu", "tanh") and not ends_with_logits(subject.model)
    ):
        told, severity = f"{activation} gives no probabilities, as this loss takes for granted.", 0.8
    elif loss in NUMBER_LOSSES and subject.num_classes == 0 and activation in BOUNDED:
        told, severity = f"A number is to be predicted, and {activation} keeps it from part of the scale.", 0.4
    elif loss in NUMBER_LOSSES and (subject.num_classes or 0) > 1 and activation in ("softmax", "sigmoid"):
        told, severity = f"{loss.replace('_', ' ')} behind {activation}: a sure mistake has hardly a gradient.", 0.3
    else:
        return None
    return _finding(
        "activation_loss_mismatch",
        told,
        severity=severity,
        confidence=0.8 if severity < 0.6 else 0.95,
        remedies=(
            Remedy(
                "model",
                "softmax with categorical, sigmoid with binary cross-entropy, a linear output for numbers",
                "Loss and output activation belong together.",
            ),
        ),
    )


# --- Inputs


def input_scale(subject: Subject) -> Finding | None:
    """Inputs of the wrong size behind the model's own scaling layers: never scaled, or scaled twice."""
    if subject.input_mean is None or subject.input_std is None or not math.isfinite(subject.input_std):
        return None
    mean, deviation, is_scaled, first = _behind_scaling(subject)
    if first in NORMALISERS:
        return None
    if is_scaled and deviation * INPUT_STD_FACTOR < 1:
        return _finding(
            "double_normalisation",
            f"The inputs have a standard deviation of {subject.input_std:.3g}, and the scaling inside the model makes "
            f"{deviation:.3g} of it: they are scaled twice.",
            severity=0.45,
            evidence={"input_std": subject.input_std, "scaled_std": deviation},
            remedies=(Remedy("model", "leave out the Rescaling or Normalization layer", "The data are scaled."),),
        )
    if abs(mean) <= INPUT_MEAN and deviation <= INPUT_STD_FACTOR:
        return None
    return _finding(
        "unscaled_input",
        f"The network is fed numbers of mean {mean:.3g} and standard deviation {deviation:.3g}; 0 and 1 are meant.",
        severity=0.5,
        evidence={"input_mean": mean, "input_std": deviation},
        remedies=(Remedy("scaler", "= standard", "Fitted on the training part: mean 0, deviation 1."),),
    )


def _behind_scaling(subject: Subject) -> tuple[float, float, bool, str]:
    """Mean and deviation behind the scaling layers at the start, whether there are any, and the layer behind them."""
    mean, deviation, is_scaled = subject.input_mean or 0.0, subject.input_std or 0.0, False
    for vertex in subject.vertices:
        if vertex.kind == "Rescaling":
            scale, offset = (float(np.mean(value)) for value in (vertex.layer.scale, vertex.layer.offset))
            mean, deviation, is_scaled = mean * scale + offset, deviation * abs(scale), True
        elif vertex.kind == "Normalization":
            centre, spread = _number(vertex.layer.mean), math.sqrt(_number(vertex.layer.variance))
            mean, deviation, is_scaled = (mean - centre) / max(spread, 1e-7), deviation / max(spread, 1e-7), True
        elif vertex.kind not in TRANSPARENT and not vertex.kind.startswith("Random"):
            # What words and codes mean does not lie in their size.
            return (0.0, 1.0, False, vertex.kind) if vertex.kind == "Embedding" else (
                mean, deviation, is_scaled, vertex.kind
            )  # fmt: skip
    return mean, deviation, is_scaled, ""


def normalised_twice(subject: Subject) -> Finding | None:
    """Two normalisation layers without anything between them."""
    for vertex in subject.vertices:
        if vertex.kind in NORMALISERS and any(parent.kind in NORMALISERS for parent in vertex.parents):
            return _finding(
                "double_normalisation",
                f"Layer {vertex.layer.name!r} normalises what the layer before it has just normalised.",
                severity=0.25,
                where=vertex.layer.name,
                remedies=(Remedy("model", "leave out one of the two", "The second has nothing to do."),),
            )
    return None


# --- Layers


def dropout_before_normalisation(subject: Subject) -> Finding | None:
    """Dropout on the way into a batch normalisation, whose statistics then differ between training and use."""
    for vertex in subject.vertices:
        if vertex.kind == "BatchNormalization" and (dropout := _dropout_before(vertex)) is not None:
            return _finding(
                "dropout_before_batch_norm",
                f"Dropout {dropout.layer.name!r} feeds {vertex.layer.name!r}: in use, without dropout, its inputs vary "
                "less than the statistics it learned (Li et al. 2019).",
                severity=0.25,
                where=dropout.layer.name,
                confidence=0.6,
                evidence={"rate": float(dropout.layer.rate)},
                remedies=(Remedy("model", "dropout behind the last normalisation", "Or none: both regularise."),),
            )
    return None


def _dropout_before(vertex: Vertex) -> Vertex | None:
    """The dropout from which a chain of single layers leads here; sums and normalisations end the chain."""
    while len(vertex.parents) == 1:
        vertex = vertex.parents[0]
        if vertex.kind in NORMALISERS:
            return None
        # Whole samples dropped (stochastic depth) scale a branch, not its units.
        if vertex.kind == "Dropout" and vertex.layer.noise_shape is None and vertex.layer.rate >= DROPOUT_FRAC:
            return vertex
    return None


def constant_kernel(subject: Subject) -> Finding | None:
    """Layers whose weights are all the same: their units do the same for ever."""
    kernels = [(vertex, kernel) for vertex in subject.vertices if (kernel := _kernel(vertex)) is not None]
    sums = {id(parent) for vertex in subject.vertices if vertex.kind == "Add" for parent in vertex.parents}
    # The last layer may start at zero: what feeds its units differs. So may a branch that is added to another.
    for vertex, kernel in kernels[:-1]:
        if kernel.size > 1 and np.ptp(kernel) == 0 and id(vertex) not in sums:
            return _finding(
                "constant_initialiser",
                f"All weights of layer {vertex.layer.name!r} are {kernel.flat[0]:g}: its units do the same for ever.",
                severity=0.85,
                where=vertex.layer.name,
                evidence={"value": float(kernel.flat[0])},
                remedies=(Remedy("model", "use He or Glorot initialisation", "Random weights make units differ."),),
            )
    return None


def large_initial_weights(subject: Subject) -> Finding | None:
    """Initial weights so large that signals, and gradients, grow from layer to layer or from step to step."""
    gains: dict[int, float] = {}
    for vertex in subject.vertices:
        recurrent = _recurrent_gain(vertex)
        if recurrent > LARGE_RECURRENT_GAIN:
            return _large(vertex, recurrent, f"amplifies {recurrent:.1f} times at every step of a sequence")
        gain = 1.0 if vertex.kind in NORMALISERS else max((gains[id(parent)] for parent in vertex.parents), default=1.0)
        kernel = _kernel(vertex)
        if kernel is not None and kernel.ndim > 1:
            fan_in = kernel.size / kernel.shape[-1]
            gain *= max(math.sqrt(fan_in * float(np.mean(kernel**2))) / HE_GAIN, 1e-9)
        gains[id(vertex)] = gain
        if gain > LARGE_GAIN:
            return _large(vertex, gain, f"makes signals {gain:,.0f} times larger than He initialisation would")
    return None


def _large(vertex: Vertex, gain: float, told: str) -> Finding:
    return _finding(
        "large_initial_weights",
        f"The initial weights are too large: layer {vertex.layer.name!r} {told}.",
        severity=0.6,
        where=vertex.layer.name,
        confidence=0.9,
        evidence={"gain": gain},
        remedies=(
            Remedy("model", "use He or Glorot initialisation", "Weights of the right size keep signals at theirs."),
        ),
    )


def _recurrent_gain(vertex: Vertex) -> float:
    """Largest factor by which one step of a plain recurrent layer can amplify; 0 for other layers."""
    if vertex.kind != "SimpleRNN" or not vertex.layer.built:
        return 0.0
    weights = keras.ops.convert_to_numpy(vertex.layer.cell.recurrent_kernel)
    return float(np.linalg.norm(weights, 2))


def deep_plain_stack(subject: Subject) -> Finding | None:
    """Many layers one after the other, without normalisation and without a way around them."""
    longest = _longest_chain(subject.vertices, lambda vertex: _kernel(vertex) is not None)
    if longest < DEEP_PLAIN_LAYERS:
        return None
    share = min(1.0, (longest - DEEP_PLAIN_LAYERS) / (DEEP_PLAIN_SURE - DEEP_PLAIN_LAYERS))
    return _finding(
        "deep_plain_stack",
        f"{longest} layers follow each other without normalisation and without a way around: gradients hardly pass.",
        severity=0.2 + 0.2 * share,
        confidence=0.6 + 0.3 * share,
        evidence={"num_layers": longest},
        remedies=(
            Remedy("batch_norm", "= true", "Keeps activations and gradients at the same size in every layer."),
            Remedy("model", "add residual connections, or use fewer layers", "A way around for the gradient."),
        ),
    )


def saturating_activations(subject: Subject) -> Finding | None:
    """Hidden sigmoids one after the other: each passes a quarter of the gradient at most."""
    hidden = subject.vertices[:-1]
    longest = _longest_chain(hidden, lambda vertex: _activation(vertex.layer) in ("sigmoid", "hard_sigmoid"))
    if longest < SATURATING_LAYERS:
        return None
    return _finding(
        "saturating_activations",
        f"{longest} layers with sigmoid follow each other: each passes a quarter of the gradient at most.",
        severity=0.35,
        confidence=0.8,
        evidence={"num_layers": longest},
        remedies=(Remedy("model", "use ReLU with He initialisation", "It passes the gradient whole."),),
    )


def _longest_chain(vertices: tuple[Vertex, ...], is_link: Callable[[Vertex], bool]) -> int:
    """Most links one after the other, without a normalisation between them and without a way around."""
    length: dict[int, int] = {}
    for vertex in vertices:
        before = min((length[id(parent)] for parent in vertex.parents), default=0)
        is_anew = vertex.kind in NORMALISERS or len(vertex.parents) > 1
        length[id(vertex)] = 0 if is_anew else before + is_link(vertex)
    return max(length.values(), default=0)


def receptive_field(subject: Subject) -> Finding | None:
    """Convolutions behind the point from which every place sees the whole input."""
    shape = getattr(subject.model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) < 3 or None in shape[1:-1]:
        return None
    size = max(shape[1:-1])
    if size < SHORT_INPUT:
        return None
    fields: dict[int, tuple[int, int]] = {}
    behind = []
    for vertex in subject.vertices:
        field, jump = max((fields[id(parent)] for parent in vertex.parents), default=(1, 1))
        kernel, stride, dilation = (_extent(vertex, name) for name in ("kernel_size", "strides", "dilation_rate"))
        if vertex.kind.endswith(("Pooling1D", "Pooling2D", "Pooling3D")) and not vertex.kind.startswith("Global"):
            kernel = _extent(vertex, "pool_size")
        elif kernel > 1 and field >= SEES_ALL_FACTOR * size:
            behind.append(vertex.layer.name)
        fields[id(vertex)] = (field + (kernel - 1) * dilation * jump, jump * stride)
    if not behind:
        return None
    return _finding(
        "receptive_field_larger_than_input",
        f"{counted(len(behind), 'convolutions', 'come')} after the point from which every place sees the whole input "
        f"({size}): they look at padding and at what was seen.",
        severity=0.2,
        where=behind[0],
        confidence=0.7,
        evidence={"num_layers": len(behind), "input_size": size},
        remedies=(Remedy("num_blocks", "upper <= x 0.75", "Fewer convolutions or poolings do the same."),),
    )


def _extent(vertex: Vertex, name: str) -> int:
    """Largest value over the axes of a setting such as `kernel_size`; 1 where the layer has none."""
    value = getattr(vertex.layer, name, None)
    return int(max(np.ravel(value))) if isinstance(value, int | tuple | list) and not isinstance(value, bool) else 1


def parameters_and_samples(subject: Subject) -> Finding | None:
    """Far more parameters than training samples."""
    if not subject.num_train or not subject.model.built:
        return None
    count = sum(math.prod(weight.shape) for weight in subject.model.trainable_weights)
    ratio = count / subject.num_train
    if ratio < PARAMETERS_PER_SAMPLE:
        return None
    sure = math.log(ratio / PARAMETERS_PER_SAMPLE) / math.log(PARAMETERS_PER_SAMPLE_SURE / PARAMETERS_PER_SAMPLE)
    return _finding(
        "too_many_parameters",
        f"{count:,} parameters for {subject.num_train:,} samples: enough to learn them by heart.",
        severity=0.25,
        confidence=round(0.5 + 0.4 * min(1.0, sure), 3),
        evidence={"num_parameters": count, "parameters_per_sample": ratio},
        remedies=(
            Remedy("model", "fewer layers or units, more regularisation or more data", "Watch for over-fitting."),
        ),
    )


CHECKS: tuple[Callable[[Subject], Finding | None], ...] = (
    logits,
    output_units,
    activation_and_loss,
    input_scale,
    normalised_twice,
    dropout_before_normalisation,
    constant_kernel,
    large_initial_weights,
    deep_plain_stack,
    saturating_activations,
    receptive_field,
    parameters_and_samples,
)


def _finding(
    code: str,
    cause: str,
    *,
    severity: float,
    confidence: float = 0.95,
    where: str = "",
    evidence: dict[str, float] | None = None,
    remedies: tuple[Remedy, ...] = (),
) -> Finding:
    numbers = {name: float(value) for name, value in (evidence or {}).items()}
    return Finding(code, where, round(severity, 3), confidence, numbers, cause, remedies=remedies)


# --- Reading the model


def _vertices(model: Any) -> tuple[Vertex, ...]:
    """All layers of a sequential or functional model, those of models inside it included, in the order of the data."""
    found: list[Vertex] = []
    _walk(model, (), found)
    return tuple(found)


def _walk(model: Any, sources: tuple[Vertex, ...], found: list[Vertex]) -> tuple[Vertex, ...]:
    """Append the layers of a model that is fed by `sources`; returns what its output comes from."""
    if isinstance(model, keras.Sequential):
        for layer in model.layers:
            sources = _place(layer, sources, found)
        return sources
    places: dict[int, tuple[Vertex, ...]] = {}
    for operation, parents in _operations(model):
        feeding = tuple(vertex for parent in parents for vertex in places.get(id(parent), ()))
        is_input = isinstance(operation, keras.layers.InputLayer)
        places[id(operation)] = sources if is_input else _place(operation, feeding, found)
    # Last in the list is what the model gives.
    outputs = places[id(model.outputs[0]._keras_history.operation)]
    for vertex in outputs:
        found.append(found.pop(found.index(vertex)))
    return outputs


def _place(layer: Any, sources: tuple[Vertex, ...], found: list[Vertex]) -> tuple[Vertex, ...]:
    if isinstance(layer, keras.Model):
        return _walk(layer, sources, found)
    found.append(Vertex(layer, sources))
    return (found[-1],)


def _operations(model: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Operations of a functional model with those that feed them, in the order of the data."""
    own = {id(operation) for operation in model.operations}
    for operation in model.operations:
        parents = [parent.operation for node in operation._inbound_nodes for parent in node.parent_nodes]
        yield operation, [parent for parent in parents if id(parent) in own]


def _activation(layer: Any) -> str | None:
    """Name of what a layer applies last; None if it does not tell."""
    kind = type(layer).__name__
    if hasattr(layer, "activation"):
        return getattr(layer.activation, "__name__", None)
    if kind in ("Softmax", "ReLU", "LeakyReLU", "Sigmoid", "Relu", "Tanh"):
        return {"LeakyReLU": "leaky_relu"}.get(kind, kind.lower())
    return None


def _kernel(vertex: Vertex) -> FloatArray | None:
    """The trainable kernel of a dense or convolutional layer, or None."""
    kernel = getattr(vertex.layer, "kernel", None)
    if kernel is None or not getattr(vertex.layer, "trainable", False) or vertex.kind == "Embedding":
        return None
    return np.asarray(keras.ops.convert_to_numpy(kernel), dtype="float32")


def _number(value: Any) -> float:
    return float(np.mean(keras.ops.convert_to_numpy(value)))
