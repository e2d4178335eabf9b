"""From symptoms to causes and remedies.

Correlation is not a cause: a diagnosis weighs what speaks for and against each cause, says so, and never claims more
than its evidence. Every piece of evidence is a named fact of a strength in [0, 1]; `tuner.stability.causes` holds the
weights. The confidence of a cause is a noisy-or:

    symptoms  = 1 - product of (1 - weight * strength) over its symptoms
    support   = the same over its supporting facts, times min(1, symptoms / 0.25): alone they say nothing
    confident = (1 - (1 - symptoms) * (1 - support)) * product of (1 - weight * strength) over what speaks against it
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tuner.records import Finding, FloatArray, HyperparameterValue, Remedy, Trace
from tuner.stability.causes import CAUSES, FACT_WORDS, Cause
from tuner.stability.detectors import ALARM_SEVERITY
from tuner.stability.remedies import parse_change
from tuner.stability.score import first_failure
from tuner.stability.signals import MIN_STEPS, Signals, read_signals, running_median, spread_of
from tuner.stability.symptoms import graded

__all__ = ["diagnose"]

# Causes below this confidence are not told. Source: convention; what nothing but one weak symptom speaks for.
TOLD_CONFIDENCE = 0.15
# Symptoms as strong as this let supporting facts count in full. Source: convention.
GATE = 0.25
# Usual rates: (no longer low from here, high from here). Source: Keras' defaults (adam, rmsprop 1e-3, sgd 1e-2) times
# and over ten; a decade beyond is full strength.
USUAL_RATES = {"sgd": (1e-3, 1e-1)}
USUAL_RATE = (1e-4, 1e-2)
# Strength of regularisation: (starts to count, full). Source: convention; the upper half of our own spaces' ranges.
STRONG_REGULARISATION = {"l1": (1e-4, 1e-3), "l2": (1e-3, 1e-2), "dropout": (0.4, 0.7)}
# Blocks or layers of a deep network. Source: convention; from there on plain stacks without shortcuts get worse (He et
# al. 2016, figure 1: 20 against 56 layers).
DEEP_BLOCKS = (6.0, 12.0)
# Samples of a small batch: full strength, none. Source: convention.
SMALL_BATCH = (2.0, 32.0)
# The loss had risen by this factor in the steps before it was lost: it ran away. Source: the divergence rule (x2).
RUNAWAY_NATS, RUNAWAY_STEPS = math.log(2), 3
# Validation loss below the training loss by this factor in every epoch. Source: convention; dropout makes 0.8 to 0.9.
VALIDATION_BETTER_FACTOR = 0.6
# A median noise below this is smooth, in nats. Source: convention.
SMOOTH_NATS = 0.15
# Rise of the loss above its very first value and so many standard deviations, in the first epoch: starts to count,
# full. A median of so many steps. Source: the tuning half of the zoo (benchmarks/diagnosis.py); healthy trainings fall.
RISE_NATS, RISE_SIGMAS, FIRST_STEPS = (math.log(1.2), math.log(2.5)), 3.0, 5
# log10 of |weight change| / |weight| of a step in the first epochs: starts to count, full. Source: the tuning half of
# the zoo; healthy trainings stay below -2.
FIRST_UPDATE_LOG10, FIRST_EPOCHS = (-2.0, -1.5), 3
# -log10 of the gradient norm of the first layer over the last's: starts to count, full. Source: the tuning half of the
# zoo, between usual (0.2 to 4) and vanishing (1e-3).
WEAK_LAYER = (1.0, 2.0)
# Best validation loss, as a share of chance, and gap to the training loss of the same epoch, of labels that are learned
# by heart. Source: the tuning half of the zoo.
MEMORISING_LEVEL_FRAC, MEMORISING_GAP_FRAC = 0.75, 0.12
# Values far outside their column's quartiles from which on they are a tail, no outliers; what is left of the other
# explanation. Source: the tuning half of the zoo: 0.2 to 0.4 % where rows were moved out, 5 to 15 % of skewed columns.
LONG_TAIL_FRAC, SEEN_TWICE = 0.02, 0.4
# A loss that ends this far above chance has been thrown there; from twice chance on for certain, unless it still falls:
# by so much from the middle to the last third of the epochs. Source: convention.
ABOVE_CHANCE_NATS, FAR_ABOVE_CHANCE_NATS = math.log(1.2), math.log(2)
STILL_FALLING_NATS = 0.05
# It was not thrown there but started there, if it fell in this share of so many epochs or more, by no more than this in
# all. Source: convention; 7 falls in 7 epochs have a chance of 1 in 128 where the loss goes up and down.
CREEPING_FRAC, CREEPING_EPOCHS, CREEPING_NATS = 0.9, 7, math.log(2)
# A first epoch this far above chance, of a training that ends at chance: its first steps were far too large. Source:
# convention; a network that starts with huge outputs, but at a sound rate, learns after it.
EXPLODED_NATS = math.log(5)
# Spread of such a loss from epoch to epoch: starts to count, full. Source: the tuning half of the zoo.
RESTLESS_NATS = (0.02, 0.2)


def diagnose(
    findings: Sequence[Finding],
    *,
    trace: Trace,
    hyperparameters: Mapping[str, HyperparameterValue] | None = None,
    data_findings: Sequence[Finding] = (),
    model_findings: Sequence[Finding] = (),
) -> tuple[Finding, ...]:
    """Name the causes of what the detectors found.

    Args:
        findings: Of `detect`; without any, and without an alarm about the model, there is nothing to explain.
        trace: That they were found in.
        hyperparameters: Of the training, by name; unknown names are ignored.
        data_findings: Of the data audit.
        model_findings: Of the static check of the model.

    Returns:
        Causes of faults first, then of what is good to know; each most likely first. Severity is that of the worst
        finding that speaks for it, `evidence` holds what each fact contributed (negative: against), remedies are the
        cheapest first.

    Raises:
        ValueError: The trace cannot be judged (see `detect`).
    """
    if not findings and not any(finding.severity > ALARM_SEVERITY for finding in model_findings):
        return ()
    given = dict(hyperparameters or {})
    facts = _facts(findings, trace, given, data_findings=data_findings, model_findings=model_findings)
    severities = _severities(findings)
    severities |= {f"data:{finding.code}": finding.severity for finding in data_findings}
    severities |= {f"model:{finding.code}": finding.severity for finding in model_findings}
    found = [told for cause in CAUSES if (told := _judged(cause, facts, severities, given)) is not None]
    return tuple(sorted(found, key=lambda finding: (finding.severity <= ALARM_SEVERITY, -finding.confidence)))


def _judged(
    cause: Cause,
    facts: Mapping[str, float],
    severities: Mapping[str, float],
    hyperparameters: Mapping[str, HyperparameterValue],
) -> Finding | None:
    symptoms = _noisy_or(cause.symptoms, facts)
    support = _noisy_or(cause.support, facts) * min(1.0, symptoms / GATE)
    confidence = (1 - (1 - symptoms) * (1 - support)) * (1 - _noisy_or(cause.against, facts))
    present = [name for name in cause.symptoms if facts.get(name, 0.0) > 0]
    if confidence < TOLD_CONFIDENCE or not present:
        return None
    supporting = [name for name in cause.support if facts.get(name, 0.0) > 0]
    opposing = {name: -weight * facts[name] for name, weight in cause.against.items() if facts.get(name, 0.0) > 0}
    present.sort(key=lambda name: -cause.symptoms[name] * facts[name])
    told = "; ".join(FACT_WORDS.get(name, name.replace("_", " ")) for name in [*present, *supporting])
    return Finding(
        code=cause.code,
        where="",
        severity=max(severities.get(name, 0.0) for name in (*present, *supporting)),
        confidence=round(confidence, 3),
        evidence={name: round(cause.symptoms[name] * facts[name], 3) for name in present}
        | {name: round(cause.support[name] * facts[name], 3) for name in supporting}
        | {name: round(value, 3) for name, value in opposing.items()},
        cause=f"{cause.sentence}: {told}.",
        remedies=tuple(remedy for remedy in cause.remedies if _is_useful(remedy, hyperparameters)),
    )


def _noisy_or(weights: Mapping[str, float], facts: Mapping[str, float]) -> float:
    return 1.0 - math.prod(1.0 - weight * facts.get(name, 0.0) for name, weight in weights.items())


def _is_useful(remedy: Remedy, hyperparameters: Mapping[str, HyperparameterValue]) -> bool:
    """Not what is set already, no multiple of what the configuration lacks, no less of a regulariser that is weak.

    Where none is strong, any may be to blame; with an L1 of 6e-4 beside an L2 of 1e-6, it is L1.
    """
    change = parse_change(remedy.change)
    if change is None or not hyperparameters:
        return True
    value = hyperparameters.get(remedy.parameter)
    if change.kind == "set":
        return value != change.value
    strengths = _regularisation_strengths(hyperparameters)
    if change.is_weaker and strengths.get(remedy.parameter) == 0 and any(strengths.values()):
        return False
    return not change.is_relative or remedy.parameter == "epochs" or value not in (None, 0)


def _facts(
    findings: Sequence[Finding],
    trace: Trace,
    hyperparameters: Mapping[str, HyperparameterValue],
    *,
    data_findings: Sequence[Finding],
    model_findings: Sequence[Finding],
) -> dict[str, float]:
    """Strength of every fact that holds."""
    signals = read_signals(trace)
    facts = {finding.code: finding.confidence for finding in findings}
    facts |= {f"data:{finding.code}": finding.confidence for finding in data_findings}
    facts |= {f"model:{finding.code}": finding.confidence for finding in model_findings}
    facts |= _long_tails(data_findings)
    for finding in findings:
        facts |= _finer(finding)
    if first_failure(trace) is not None and "nan" in facts:
        facts["runaway" if _ran_away(signals) else "sudden_nan"] = 0.9
    facts |= _trace_facts(signals) | _early_facts(signals) | _hyperparameter_facts(hyperparameters)
    if "regularisation_dominates" in facts:
        # Measured, so whatever it stands at is strong for this network.
        facts.pop("no_strong_regularisation", None)
    return {name: min(1.0, max(0.0, strength)) for name, strength in facts.items() if strength > 0}


def _long_tails(data_findings: Iterable[Finding]) -> dict[str, float]:
    """Skew and outliers are one thing seen twice: many values far outside are a long tail, a few are outliers."""
    found = {finding.code: finding for finding in data_findings}
    if not {"skew", "outliers"} <= set(found):
        return {}
    is_tail = found["outliers"].evidence.get("outlier_frac", 0.0) >= LONG_TAIL_FRAC
    weaker = found["outliers" if is_tail else "skew"]
    return {f"data:{weaker.code}": SEEN_TWICE * weaker.confidence}


def _finer(finding: Finding) -> dict[str, float]:
    """Facts that lie in the numbers of a finding."""
    evidence, strength = finding.evidence, finding.confidence
    match finding.code:
        case "loss_spike":
            return {"single_spike" if evidence.get("num_spikes", 1) < 2 else "recurring_spikes": strength}
        case "gradient_spike" if evidence.get("num_before_loss_spike", 0) > 0:
            return {"gradient_before_loss": strength}
        case "divergence" if not evidence.get("is_finite", 1.0):
            return {"nan": strength}
        case "divergence" if not evidence.get("is_recovered", 0.0):
            return {"unrecovered": strength}
        case "divergence":
            return {"single_spike": strength}
    return {}


# Facts that a finding stands behind under another name, for the severity of a cause.
_FINDING_OF_FACT = {
    "single_spike": ("loss_spike", "divergence"),
    "recurring_spikes": ("loss_spike",),
    "gradient_before_loss": ("gradient_spike",),
    "nan": ("divergence",),
    "sudden_nan": ("divergence",),
    "runaway": ("divergence",),
    "unrecovered": ("divergence",),
    "memorising": ("over_fitting", "validation_never_learns"),
    "restless_above_chance": ("not_learning",),
    "far_above_chance": ("not_learning",),
    "exploded_start": ("not_learning",),
    "creeping_above_chance": ("not_learning",),
    "weak_first_layer": ("not_learning",),
}


def _severities(findings: Iterable[Finding]) -> dict[str, float]:
    by_code: dict[str, float] = {}
    for finding in findings:
        by_code[finding.code] = max(by_code.get(finding.code, 0.0), finding.severity)
    renamed = {fact: max(by_code.get(code, 0.0) for code in codes) for fact, codes in _FINDING_OF_FACT.items()}
    return by_code | renamed


def _ran_away(signals: Signals) -> bool:
    """Whether the loss had risen before it stopped being a number."""
    steps = signals.steps
    if len(steps) < MIN_STEPS:
        losses = signals.train
        return len(losses) >= 2 and float(losses[-1] - losses.min()) > RUNAWAY_NATS
    before = signals.smooth[: -RUNAWAY_STEPS - 1]
    return float(np.median(steps[-RUNAWAY_STEPS:]) - before[-signals.window :].min()) > RUNAWAY_NATS


def _early_facts(signals: Signals) -> dict[str, float]:
    """What the first steps and epochs say: later on a lost training may look calm."""
    facts: dict[str, float] = {}
    steps = signals.steps[: 1 + max(MIN_STEPS, signals.steps_per_epoch)]
    if len(steps):
        highest = float(running_median(steps[1:], FIRST_STEPS)[FIRST_STEPS - 1 :].max())
        rise = highest - float(steps[0]) - RISE_SIGMAS * float(np.median(signals.noise))
        facts["early_rise"] = graded(rise, start=RISE_NATS[0], end=RISE_NATS[1], low=0.0, high=1.0)
    ratios = signals.channel("update_ratio")
    if ratios is not None:
        largest = float(ratios[:FIRST_EPOCHS].max())
        facts["large_first_steps"] = graded(
            largest, start=FIRST_UPDATE_LOG10[0], end=FIRST_UPDATE_LOG10[1], low=0.0, high=1.0
        )
    layers = signals.channel("layer_grad_ratio")
    if layers is not None:
        facts["weak_first_layer"] = graded(
            -math.log10(max(float(np.median(layers)), 1e-12)), start=WEAK_LAYER[0], end=WEAK_LAYER[1], low=0.0, high=1.0
        )
    return facts


def _trace_facts(signals: Signals) -> dict[str, float]:
    facts: dict[str, float] = {}
    if len(signals.noise) and float(np.median(signals.noise)) < SMOOTH_NATS:
        facts["smooth"] = 1.0
    count = min(len(signals.train), len(signals.validation))
    if count >= 3:
        gap = signals.validation[:count] - signals.train[:count]
        if float(gap.max()) < math.log(VALIDATION_BETTER_FACTOR):
            facts["validation_better"] = 0.7
        if _is_memorising(signals.train[:count], signals.validation[:count]):
            facts["memorising"] = 0.9
    train = signals.train
    if len(train) >= 4 and train[0] >= EXPLODED_NATS and abs(float(np.median(train[-3:]))) < ABOVE_CHANCE_NATS:
        facts["exploded_start"] = 1.0
    return facts | _facts_above_chance(signals.train)


def _facts_above_chance(train: FloatArray) -> dict[str, float]:
    """What a loss says that ends far above chance: it jumps about there, stays, or creeps down from where it began."""
    level = float(np.median(train[-3:])) if len(train) >= 2 else -math.inf
    if level <= ABOVE_CHANCE_NATS:
        return {}
    if _is_creeping(train):
        return {"creeping_above_chance": 1.0}
    facts: dict[str, float] = {}
    if len(train) >= 4:
        start, end = RESTLESS_NATS
        facts["restless_above_chance"] = graded(spread_of(train), start=start, end=end, low=0.0, high=1.0)
    third = max(1, len(train) // 3)
    if float(np.median(train[-2 * third : -third]) - np.median(train[-third:])) < STILL_FALLING_NATS:
        facts["far_above_chance"] = graded(level, start=ABOVE_CHANCE_NATS, end=FAR_ABOVE_CHANCE_NATS, low=0.0, high=1.0)
    return facts


def _is_creeping(train: FloatArray) -> bool:
    falls = np.diff(train) < 0
    return bool(
        len(falls) >= CREEPING_EPOCHS and falls.mean() >= CREEPING_FRAC and train[0] - train[-1] <= CREEPING_NATS
    )


def _is_memorising(train: FloatArray, validation: FloatArray) -> bool:
    """Whether validation was best while training stood as high, and training fell alone from there."""
    best = int(np.argmin(validation))
    levels = np.exp(train)
    level = math.exp(float(validation[best]))
    return bool(
        level > MEMORISING_LEVEL_FRAC
        and level - levels[best] < MEMORISING_GAP_FRAC
        and level - levels[-1] > 2 * MEMORISING_GAP_FRAC
    )


def _hyperparameter_facts(hyperparameters: Mapping[str, HyperparameterValue]) -> dict[str, float]:
    facts: dict[str, float] = {}
    rate = _positive(hyperparameters.get("learning_rate"))
    if rate is not None:
        low, high = USUAL_RATES.get(str(hyperparameters.get("optimizer", "adam")).lower(), USUAL_RATE)
        facts["high_rate"] = graded(math.log10(rate / high), start=-0.5, end=0.5, low=0.0, high=1.0)
        facts["low_rate"] = graded(math.log10(low / rate), start=-0.5, end=0.5, low=0.0, high=1.0)
    if strengths := _regularisation_strengths(hyperparameters):
        facts["strong_regularisation"] = max(strengths.values())
    is_known = any(name in hyperparameters for name in STRONG_REGULARISATION)
    facts["no_strong_regularisation"] = float(is_known and not any(strengths.values()))
    depth = _positive(hyperparameters.get("num_blocks") or hyperparameters.get("num_layers"))
    if depth is not None:
        facts["deep"] = graded(depth, start=DEEP_BLOCKS[0], end=DEEP_BLOCKS[1], low=0.0, high=1.0)
    batch_size = _positive(hyperparameters.get("batch_size"))
    if batch_size is not None:
        facts["small_batch"] = graded(batch_size, start=SMALL_BATCH[0], end=SMALL_BATCH[1], low=1.0, high=0.0)
    if hyperparameters.get("clip_norm") == 0:
        facts["no_clipping"] = 1.0
    if "float16" in str(hyperparameters.get("precision", hyperparameters.get("dtype", ""))):
        facts["float16"] = 1.0
    return facts


def _regularisation_strengths(hyperparameters: Mapping[str, HyperparameterValue]) -> dict[str, float]:
    """How strong each regulariser of a configuration is, in [0, 1]."""
    found: dict[str, float] = {}
    for name, (start, end) in STRONG_REGULARISATION.items():
        value = _positive(hyperparameters.get(name))
        if value is not None and hyperparameters.get(f"use_{name}", True):
            found[name] = graded(value, start=start, end=end, low=0.0, high=1.0)
    return found


def _positive(value: HyperparameterValue) -> float | None:
    """The value if it is a finite number above 0, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        return None
    return float(value)
