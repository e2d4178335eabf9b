"""The causes that a diagnosis can name: the evidence for and against each, with its weight, and the remedies.

A weight in [0, 1] is how sure that piece of evidence alone, at full strength, would make of the cause. Source of all
weights: convention, ordered by what the design of the diagnosis lists, then checked on one half of the synthetic zoo
and reported on the other (tests/stability/test_diagnosis.py). They are no probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.records import Remedy

__all__ = ["CAUSES", "FACT_WORDS", "Cause"]


@dataclass(frozen=True)
class Cause:
    """One possible cause.

    Attributes:
        code: Stable name for machines.
        sentence: What is wrong, for the user.
        symptoms: Fact to weight; at least one of them must be there.
        support: Fact to weight; they count only together with a symptom.
        against: Fact to weight; each takes away that share.
        remedies: Cheapest first.
    """

    code: str
    sentence: str
    symptoms: Mapping[str, float]
    support: Mapping[str, float] = field(default_factory=dict)
    against: Mapping[str, float] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()


# What the facts are called in a sentence. `data:` and `model:` facts are findings of the audit and of the model check.
FACT_WORDS = {
    "recurring_spikes": "the loss jumped again and again",
    "single_spike": "the loss jumped once",
    "gradient_before_loss": "the gradient jumped just before the loss",
    "gradient_spike": "the gradient jumped",
    "step_too_large": "single steps change the weights a lot",
    "step_too_small": "single steps hardly change the weights",
    "oscillation": "the loss swings up and down",
    "runaway": "the loss rose before it was lost",
    "sudden_nan": "the loss became no number from one step to the next",
    "nan": "loss or gradient became no number",
    "unrecovered": "the loss left its best and never came back",
    "validation_spike": "the validation loss jumped",
    "getting_worse": "training and validation loss rose after their best",
    "not_learning": "the loss never came below chance",
    "too_slow": "the loss still fell at the end",
    "high_rate": "the learning rate is high for its optimizer",
    "low_rate": "the learning rate is low for its optimizer",
    "smooth": "the loss is smooth",
    "no_clipping": "gradients are not clipped",
    "exploding_gradient": "the gradient grows without limit",
    "vanishing_gradient": "the first layers get hardly any gradient",
    "dead_units": "many units are dead",
    "over_fitting": "validation loss rose while training loss fell",
    "validation_never_learns": "the validation loss never came below chance",
    "validation_better": "the validation loss is far below the training loss from the start",
    "regularisation_dominates": "most of the loss is regularisation",
    "strong_regularisation": "the regularisation is strong",
    "no_strong_regularisation": "no regularisation is strong",
    "plateau": "training and validation loss stand still, close together",
    "unscaled_input": "the inputs are not scaled",
    "huge_first_loss": "the first loss was huge",
    "outlier_batch": "single batches stood out",
    "class_ignored": "a class is hardly recognised",
    "noisy_batches": "batch losses differ a lot",
    "same_order": "every epoch repeats the same ups and downs",
    "small_batch": "batches are small",
    "deep": "the network is deep",
    "large_first_steps": "the first steps changed the weights a lot",
    "early_rise": "the loss rose with the first steps",
    "restless_above_chance": "the loss jumps about far above chance",
    "far_above_chance": "the loss stands far above chance",
    "exploded_start": "the loss of the first epoch was far above chance, and what came after it stayed at chance",
    "creeping_above_chance": "the loss creeps down from far above chance, epoch by epoch",
    "weak_first_layer": "the first layer gets a small part of the gradient",
    "memorising": "validation stood still before the training loss had fallen: labels are learned by heart",
    "model:softmax_with_from_logits": "softmax is applied twice",
    "model:logits_without_from_logits": "the loss takes logits for probabilities",
    "model:activation_loss_mismatch": "output activation and loss do not fit",
    "model:wrong_output_units": "the number of output units does not fit",
    "model:constant_initialiser": "all weights of a layer start equal",
    "model:large_initial_weights": "the initial weights are too large",
    "model:saturating_activations": "sigmoids follow each other",
    "model:deep_plain_stack": "many layers follow each other without normalisation or a way around",
    "model:too_many_parameters": "there are far more parameters than samples",
    "model:unscaled_input": "the inputs are not scaled",
    "float16": "numbers have 16 bits",
    "data:missing_values": "values are missing in the data",
    "data:infinite_values": "the data holds infinite numbers",
    "data:sentinel_values": "the data holds codes for missing values",
    "data:outliers": "the data holds outliers",
    "data:skew": "columns are skewed",
    "data:scale_spread": "columns have very different sizes",
    "data:class_imbalance": "classes have very different sizes",
    "data:few_samples": "classes have few samples",
    "data:conflicting_labels": "copies carry different labels",
    "data:leaking_copies": "copies stand on both sides of the split",
    "data:duplicates": "samples are there twice",
}

# Learning rates are multiplied by 0.3 to 0.5. Source: the design of the diagnosis.
_LOWER_RATE = (
    Remedy("learning_rate", "x 0.3", "Smaller steps do not jump out of the valley; the first thing to try."),
    Remedy("learning_rate", "upper <= x 0.5", "Later trials need not try rates that failed."),
)
_CLIP = Remedy("clip_norm", "= 1", "A single huge gradient can no longer throw the weights away.")
_WARM_UP = Remedy("warmup_frac", "lower >= 0.05", "The first steps are the most fragile ones.")
_NORMALISE = Remedy("batch_norm", "= true", "Keeps activations and gradients at the same size in every layer.")
_SHALLOWER = Remedy("num_blocks", "upper <= x 0.75", "Fewer layers for the gradient to pass.")
_REVIEW = Remedy("data", "look at the samples with the largest loss", "They are often wrong or broken.")

CAUSES: tuple[Cause, ...] = (
    Cause(
        "learning_rate_too_high",
        "The learning rate is probably too high",
        symptoms={
            "recurring_spikes": 0.6,
            "single_spike": 0.4,
            "gradient_before_loss": 0.4,
            "step_too_large": 0.7,
            "large_first_steps": 0.5,
            "early_rise": 0.6,
            "oscillation": 0.7,
            "runaway": 0.6,
            "unrecovered": 0.55,
            "restless_above_chance": 0.5,
            "far_above_chance": 0.3,
            "exploded_start": 0.4,
            "nan": 0.3,
            "validation_spike": 0.4,
            "getting_worse": 0.45,
            "not_learning": 0.2,
            "dead_units": 0.2,
        },
        support={"high_rate": 0.6, "no_clipping": 0.05},
        against={
            "low_rate": 0.7,
            "creeping_above_chance": 0.7,
            "data:outliers": 0.3,
            "data:missing_values": 0.3,
            "data:infinite_values": 0.4,
            "data:sentinel_values": 0.3,
            "huge_first_loss": 0.3,
            "exploding_gradient": 0.4,
            "model:large_initial_weights": 0.5,
            "step_too_small": 0.5,
            "small_batch": 0.4,
            "float16": 0.3,
        },
        remedies=(*_LOWER_RATE, _CLIP, _WARM_UP, Remedy("schedule", "= cosine", "A falling rate ends calmly.")),
    ),
    Cause(
        "learning_rate_too_low",
        "The learning rate is probably too low",
        symptoms={"too_slow": 0.5, "step_too_small": 0.6, "not_learning": 0.25, "creeping_above_chance": 0.5},
        support={"low_rate": 0.6, "smooth": 0.2},
        against={
            "high_rate": 0.7,
            "recurring_spikes": 0.5,
            "unrecovered": 0.7,
            "nan": 0.8,
            "restless_above_chance": 0.6,
            "far_above_chance": 0.6,
            "early_rise": 0.4,
            "regularisation_dominates": 0.5,
            "strong_regularisation": 0.5,
            "oscillation": 0.6,
            "dead_units": 0.5,
            "huge_first_loss": 0.5,
            "weak_first_layer": 0.4,
            "model:large_initial_weights": 0.5,
            "model:saturating_activations": 0.4,
            "model:deep_plain_stack": 0.4,
            "model:softmax_with_from_logits": 0.4,
            "model:logits_without_from_logits": 0.6,
        },
        remedies=(
            Remedy("learning_rate", "x 3", "The loss was still falling: larger steps get there sooner."),
            Remedy("learning_rate", "lower >= x 2", "Later trials need not try rates that crawl."),
            Remedy("epochs", "x 2", "Or more time."),
        ),
    ),
    Cause(
        "exploding_gradient",
        "The gradient explodes on its way back through the layers",
        symptoms={"exploding_gradient": 0.85, "model:large_initial_weights": 0.8, "gradient_spike": 0.1},
        support={"no_clipping": 0.2, "deep": 0.2},
        remedies=(
            _CLIP,
            _NORMALISE,
            Remedy("model", "use He or Glorot initialisation", "Weights of the right size keep gradients at theirs."),
            _SHALLOWER,
        ),
    ),
    Cause(
        "vanishing_gradient",
        "The gradient vanishes before it reaches the first layers, or units are dead",
        symptoms={
            "vanishing_gradient": 0.7,
            "dead_units": 0.75,
            "weak_first_layer": 0.6,
            "model:saturating_activations": 0.6,
            "model:constant_initialiser": 0.7,
            "not_learning": 0.15,
        },
        support={"deep": 0.1},
        against={
            "low_rate": 0.3,
            "high_rate": 0.6,
            "early_rise": 0.4,
            "unscaled_input": 0.4,
            "huge_first_loss": 0.3,
            "strong_regularisation": 0.6,
            "model:large_initial_weights": 0.6,
            "model:deep_plain_stack": 0.5,
        },
        remedies=(
            _NORMALISE,
            Remedy("model", "use ReLU with He initialisation, or leaky ReLU", "Sigmoid and tanh saturate; ReLU dies."),
            Remedy("learning_rate", "x 0.3", "Units die from steps that are too large."),
            _SHALLOWER,
        ),
    ),
    Cause(
        "over_fitting",
        "The network over-fits: it learns the training samples by heart",
        symptoms={"over_fitting": 0.8, "validation_never_learns": 0.2},
        support={"data:few_samples": 0.2, "model:too_many_parameters": 0.3},
        against={"validation_never_learns": 0.6, "memorising": 0.6, "unrecovered": 0.3},
        remedies=(
            Remedy("epochs", "stop at the best epoch and restore its weights", "Costs nothing."),
            Remedy("dropout", "lower >= 0.2", "Keeps single units from learning single samples."),
            Remedy("use_l2", "= true", "Keeps the weights small."),
            Remedy("l2", "lower >= 0.0001", "Weaker than that is hardly felt."),
            Remedy("data", "augment the samples, or get more", "The surest remedy, and the dearest."),
            Remedy("num_blocks", "upper <= x 1", "A larger network would over-fit sooner."),
        ),
    ),
    Cause(
        "over_regularised",
        "The regularisation is too strong: it keeps the network from learning",
        symptoms={"regularisation_dominates": 0.75, "plateau": 0.2, "not_learning": 0.3},
        support={"strong_regularisation": 0.7},
        against={
            "no_strong_regularisation": 0.6,
            "over_fitting": 0.8,
            "low_rate": 0.3,
            "high_rate": 0.3,
            "validation_never_learns": 0.5,
            "far_above_chance": 0.5,
        },
        remedies=(
            Remedy("l2", "x 0.1", "Weights may grow to the size that the task needs."),
            Remedy("l2", "upper <= x 0.3", "Later trials need not try as much."),
            Remedy("l1", "x 0.1", "Weights may grow to the size that the task needs."),
            Remedy("l1", "upper <= x 0.3", "Later trials need not try as much."),
            Remedy("dropout", "upper <= x 0.5", "More units take part in each step."),
        ),
    ),
    Cause(
        "no_scaling",
        "Inputs or target are not scaled",
        symptoms={"unscaled_input": 0.85, "huge_first_loss": 0.6, "model:unscaled_input": 0.5},
        support={"data:scale_spread": 0.3},
        against={
            "data:sentinel_values": 0.6,
            "data:outliers": 0.5,
            "data:class_imbalance": 0.5,
            "model:large_initial_weights": 0.7,
        },
        remedies=(
            Remedy("scaler", "= standard", "Fitted on the training part: mean 0, deviation 1."),
            Remedy("data", "scale the target too, for regression", "The first loss is the square of its size."),
        ),
    ),
    Cause(
        "outliers",
        "Single samples or batches lie far outside the rest",
        symptoms={"outlier_batch": 0.6, "single_spike": 0.3, "recurring_spikes": 0.2, "gradient_spike": 0.15},
        support={"data:outliers": 0.6},
        against={"step_too_large": 0.5, "gradient_before_loss": 0.3, "oscillation": 0.4, "high_rate": 0.3},
        remedies=(
            Remedy("outliers", "= clip", "Clips each column at three interquartile ranges."),
            Remedy("scaler", "= robust", "Scales by median and quartiles, which outliers do not move."),
            _CLIP,
            _REVIEW,
        ),
    ),
    Cause(
        "missing_values",
        "Missing values, or codes for them, reach the network",
        symptoms={
            "nan": 0.3,
            "sudden_nan": 0.2,
            "huge_first_loss": 0.15,
            "unscaled_input": 0.15,
            "single_spike": 0.1,
            "recurring_spikes": 0.1,
            "outlier_batch": 0.1,
        },
        support={"data:missing_values": 0.5, "data:infinite_values": 0.6, "data:sentinel_values": 0.8},
        against={"runaway": 0.5},
        remedies=(
            Remedy("imputer", "= median", "Fills the gaps."),
            Remedy("data", "replace codes such as -200 by empty cells, drop empty columns", "Codes are no values."),
        ),
    ),
    Cause(
        "skew",
        "Long tails: a few values are orders of magnitude larger than the others",
        symptoms={
            "huge_first_loss": 0.2,
            "outlier_batch": 0.2,
            "single_spike": 0.1,
            "recurring_spikes": 0.15,
            "gradient_spike": 0.15,
        },
        support={"data:skew": 0.6},
        remedies=(
            Remedy("skew", "= yeo-johnson", "Makes skewed columns symmetric."),
            Remedy("data", "take the logarithm of the target (log1p)", "For targets over several decades."),
        ),
    ),
    Cause(
        "class_imbalance",
        "The rare classes are ignored",
        symptoms={"class_ignored": 0.22, "plateau": 0.05, "not_learning": 0.05},
        support={"data:class_imbalance": 0.8, "data:few_samples": 0.2},
        against={"over_fitting": 0.2},
        remedies=(
            Remedy("balance", "= class_weights", "Rare classes weigh more."),
            Remedy("metric", "= balanced_accuracy", "Counts every class the same."),
            Remedy("data", "draw rare classes more often, or merge them", "If weights are not enough."),
        ),
    ),
    Cause(
        "wrong_labels",
        "Labels are probably wrong",
        symptoms={"memorising": 0.6, "validation_never_learns": 0.35, "not_learning": 0.05, "plateau": 0.05},
        support={"data:conflicting_labels": 0.6, "data:label_errors": 0.6},
        remedies=(_REVIEW, Remedy("model", "use label smoothing of 0.1", "A wrong label then pulls less.")),
    ),
    Cause(
        "train_validation_mismatch",
        "Training and validation part do not come from the same source, or share samples",
        symptoms={"validation_never_learns": 0.5, "validation_better": 0.25},
        support={"data:leaking_copies": 0.6, "data:duplicates": 0.2},
        against={"memorising": 0.5, "data:conflicting_labels": 0.3, "data:label_errors": 0.3},
        remedies=(
            Remedy("data", "keep one of each copy", "Then no copy stands on both sides."),
            Remedy("data", "split by group (person, device) or by time", "As the model will meet new data."),
        ),
    ),
    Cause(
        "too_deep",
        "The network is too deep or too large for this task",
        symptoms={
            "model:deep_plain_stack": 0.7,
            "vanishing_gradient": 0.4,
            "exploding_gradient": 0.3,
            "over_fitting": 0.1,
            "not_learning": 0.1,
        },
        support={"deep": 0.6, "model:too_many_parameters": 0.5},
        against={"model:large_initial_weights": 0.4},
        remedies=(
            Remedy("num_blocks", "x 0.5", "Half as deep is often as good, and stable."),
            _SHALLOWER,
            _NORMALISE,
            Remedy("model", "add residual connections", "If the depth is needed."),
        ),
    ),
    Cause(
        "too_small",
        "The network is too small for this task",
        symptoms={"plateau": 0.5, "class_ignored": 0.1},
        against={
            "regularisation_dominates": 0.8,
            "strong_regularisation": 0.6,
            "low_rate": 0.6,
            "high_rate": 0.6,
            "step_too_small": 0.5,
            "recurring_spikes": 0.4,
            "dead_units": 0.5,
            "model:deep_plain_stack": 0.5,
            "model:large_initial_weights": 0.5,
            "data:class_imbalance": 0.4,
        },
        remedies=(
            Remedy("dense_units", "x 2", "Wider first: it costs least."),
            Remedy("num_blocks", "lower >= x 1", "Smaller networks need not be tried."),
        ),
    ),
    Cause(
        "batch_too_small",
        "Batches are too small, or come in the same order each time",
        symptoms={"noisy_batches": 0.5, "same_order": 0.6, "recurring_spikes": 0.2, "single_spike": 0.1},
        support={"small_batch": 0.4},
        remedies=(
            Remedy("data", "shuffle the samples anew in every epoch", "Costs nothing; all later epochs then differ."),
            Remedy("batch_size", "x 2", "Noise falls with the root of the batch size."),
            Remedy("model", "average the weights (use_ema)", "The noise of single steps cancels out."),
        ),
    ),
    Cause(
        "numerics",
        "Arithmetic: a logarithm of zero, or a number beyond the range of its type",
        symptoms={
            "sudden_nan": 0.5,
            "nan": 0.15,
            "model:softmax_with_from_logits": 0.85,
            "model:logits_without_from_logits": 0.85,
            "model:activation_loss_mismatch": 0.7,
            "model:wrong_output_units": 0.5,
        },
        support={"float16": 0.6},
        against={"runaway": 0.7, "data:missing_values": 0.4, "data:infinite_values": 0.5, "high_rate": 0.3},
        remedies=(
            Remedy("model", "use from_logits=True and a linear last layer", "No logarithm of a rounded zero."),
            Remedy("model", "add a small constant below roots, logarithms and divisions", "None meets a zero."),
            Remedy("model", "train in float32, or use loss scaling", "16 bits end at 65,504."),
        ),
    ),
)
