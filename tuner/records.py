"""The records that are written to a run folder or a bundle, and nothing else.

All are frozen dataclasses of plain values. `tuner.store` writes and reads them; a record that goes to
a file of its own has a `schema_version`.
"""

from __future__ import annotations

import enum
import statistics
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "FINISHED_OUTCOMES",
    "MIN_FRESH_RUNS",
    "Adaptation",
    "AdaptationStep",
    "BatchJobs",
    "Claim",
    "ConfirmPlan",
    "DataSpec",
    "DatasetRecord",
    "Finding",
    "FloatArray",
    "Form",
    "HyperparameterValue",
    "JitName",
    "Kind",
    "MetricName",
    "Narrowing",
    "Outcome",
    "PrecisionName",
    "RateRange",
    "RateSweep",
    "Remedy",
    "SeedRun",
    "SharedStudy",
    "StabilityMargin",
    "StabilityScore",
    "SweptTrial",
    "Task",
    "Trace",
    "TrialRecord",
]

FloatArray = npt.NDArray[np.floating[Any]]
HyperparameterValue = bool | int | float | str | None
Kind = Literal["image", "series", "text", "audio"]
Task = Literal["classification", "multilabel", "regression"]
# Of what layers compute in, and whether their step is compiled with XLA.
PrecisionName = Literal["float32", "mixed_bfloat16"]
JitName = Literal["auto", "on", "off"]
MetricName = Literal["accuracy", "balanced_accuracy", "mean_average_precision", "macro_f1", "loss"]
Form = Literal[
    "digits",
    "npz",
    "image_folder",
    "table",
    "text_table",
    "audio_folder",
    "long_table",
    "recording",
    "sequence_folder",
    "tfds",
]


class Outcome(enum.StrEnum):
    """How a trial or seed run ended, or where it stands. A diverged training is a result, never an exception."""

    COMPLETED = "completed"
    NOT_LEARNING = "not_learning"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    ERROR = "error"
    CRASHED = "crashed"
    INFEASIBLE = "infeasible"
    RUNNING = "running"
    WAITING = "waiting"

    @property
    def meaning(self) -> str:
        """What it means for the user, in a sentence, with the fix where there is one."""
        return _OUTCOME_MEANINGS[self]

    @property
    def is_failed(self) -> bool:
        """Whether no usable model came out of it."""
        return self in (Outcome.DIVERGED, Outcome.ERROR, Outcome.CRASHED, Outcome.INFEASIBLE)


_OUTCOME_MEANINGS = {
    Outcome.COMPLETED: "Trained to the end of its budget.",
    Outcome.NOT_LEARNING: "The loss never came below chance level. Try another learning rate or less regularisation.",
    Outcome.PRUNED: "Ended early: other trials were ahead at the same epoch. Search with --pruner none to train all of "
    "them to the end.",
    Outcome.DIVERGED: "Loss or gradient became NaN or infinite, or the loss rose and did not come back. Try a lower "
    "learning rate, clipping, or scaled inputs.",
    Outcome.ERROR: "Building or training the model raised an exception; the message says which.",
    Outcome.CRASHED: "The worker process died while it ran this trial; the log says how.",
    Outcome.INFEASIBLE: "It needs more memory than there is, also with half the batch if that can be had. Narrow the "
    "ranges that make models large (--range), or use fewer --workers.",
    Outcome.RUNNING: "Training now.",
    Outcome.WAITING: "Proposed, not started, or put back after an interruption.",
}

FINISHED_OUTCOMES = (
    Outcome.COMPLETED,
    Outcome.NOT_LEARNING,
    Outcome.PRUNED,
    Outcome.DIVERGED,
    Outcome.ERROR,
    Outcome.CRASHED,
    Outcome.INFEASIBLE,
)


@dataclass(frozen=True)
class Remedy:
    """One change that should help, as data: it can be shown, or applied to a configuration or a search space.

    Attributes:
        parameter: Name of a hyperparameter; others (`data`, `model`) are advice to the user.
        change: `x 0.3` multiplies the value of a configuration, `= adam` sets it; `upper <= x 0.5` and
            `lower >= x 2` bound the range of a search by a multiple of the present value, `upper <= 0.2` and
            `lower >= 0.2` by a number. Anything else is advice in words (see `tuner.stability.remedies`).
        reason: One sentence for the user.
    """

    parameter: str
    change: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """One problem, in data or in a training, with its evidence.

    Attributes:
        code: Stable name for machines, such as `missing_values`.
        where: Column, file, epoch or layer; empty for the whole.
        severity: In [0, 1]; from 0.9 on a search refuses to start.
        confidence: In [0, 1].
        evidence: Name to number.
        examples: A few row numbers, file names or epochs.
        cause: One sentence for the user.
        remedies: Cheapest first.
    """

    code: str
    where: str
    severity: float
    confidence: float
    evidence: dict[str, float]
    cause: str
    examples: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()


@dataclass(frozen=True)
class DataSpec:
    """How the data was read, so that `predict` and `train` read other data the same way.

    Attributes:
        form: Which reader.
        kind: Which family of network.
        task: What is learned.
        target: Target column of a table, or several as A,B; None elsewhere.
        feature_names: Columns of a table, in order; empty elsewhere.
        class_names: Label of each class code, or of each column of several labels; empty for regression.
        input_shape: Shape of one raw sample: (height, width, channels) for images, (steps,) for a table and for
            recorded sound, (steps, channels) for series, () for text.
        sample_rate_hz: Of sound, after it was read; None elsewhere.
        is_padded: Whether samples shorter than `input_shape` end in NaN in all channels.
        reading: Options by which the file was read, as the user would give them: `sep`, `decimal`, `na`, `encoding`,
            `series_id`, `time`, `window`, `stride`, `group`, `label_sep`; only those that are needed to read
            other files the same.
    """

    form: Form
    kind: Kind
    task: Task
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    target: str | None = None
    feature_names: tuple[str, ...] = ()
    sample_rate_hz: int | None = None
    is_padded: bool = False
    reading: dict[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes, or of labels; 0 for regression."""
        return len(self.class_names)


@dataclass(frozen=True)
class DatasetRecord:
    """What a run knows of its data: written once, when the run is set up.

    Attributes:
        source: Path or name that the user gave.
        fingerprint: sha256 over the values, labels and split; other data has another one.
        num_train, num_validation, num_test: Rows of each part.
        class_counts: Rows per class, or with each label, over all parts; empty for regression.
        num_features_missing: Features (or channels) with missing values.
        chance_loss: L0: label entropy of the training part in nats, of several labels its mean; for regression the
            variance of its target.
        chance_error: Error of the best constant answer under the study's metric; for regression the chance loss.
        metric: A key of `tuner.tasks.METRIC_TITLES`.
        notes: Decisions taken on the way that the user should know.
        proposed: Defaults of the preprocessing that these data ask for, by name.
    """

    source: str
    spec: DataSpec
    fingerprint: str
    num_train: int
    num_validation: int
    num_test: int
    class_counts: tuple[int, ...]
    num_features_missing: int
    chance_loss: float
    chance_error: float
    metric: MetricName
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    proposed: dict[str, str] = field(default_factory=dict)
    schema_version: int = 1


@dataclass(frozen=True)
class Trace:
    """What one training left behind: numbers only, so that it can be scored without Keras.

    Attributes:
        step_loss: Plain batch loss before each update: unsmoothed, unweighted, without regularisation terms;
            shape (steps,).
        grad_norm: Global gradient norm of each step; shape (steps,), or empty if not recorded.
        train_loss: Mean plain loss of each epoch; shape (epochs,).
        validation_loss: Plain validation loss of each epoch, or empty; shape (epochs,).
        metrics: Validation metrics of each epoch by name; each of shape (epochs,).
        learning_rate: At the end of each epoch; shape (epochs,).
        seconds: Wall time of each epoch; shape (epochs,).
        steps_per_epoch: n.
        planned_epochs: Epochs that the budget allowed.
        chance_loss: L0; the loss of the best constant answer.
        channels: Optional probes by name, each of shape (epochs,), NaN where an epoch was not probed. Known names:
            `update_ratio` (log10 of |weight change| / |weight| in a step), `layer_grad_ratio` (gradient norm of the
            first layer over the last's), `zero_frac` (share of activations that are zero, mean of the hidden layers),
            `dead_frac` (share of units that are zero for every sample, in the worst hidden layer),
            `class_recall_min` (lowest recall of a class), `input_mean` and `input_std` (of what the first layer with
            weights is fed), `regularisation_frac` (share of the total loss that is regularisation).
        events: (step, kind) of what was meant to happen, such as `warm_restart`, `resume` or `unfreezing`: running
            best and noise begin anew there, so that a scheduled rise is no fault.
    """

    step_loss: FloatArray
    grad_norm: FloatArray
    train_loss: FloatArray
    validation_loss: FloatArray
    learning_rate: FloatArray
    seconds: FloatArray
    steps_per_epoch: int
    planned_epochs: int
    chance_loss: float
    metrics: dict[str, FloatArray] = field(default_factory=dict)
    channels: dict[str, FloatArray] = field(default_factory=dict)
    events: tuple[tuple[int, str], ...] = ()

    @property
    def num_epochs(self) -> int:
        """Epochs that were finished."""
        return len(self.train_loss)


@dataclass(frozen=True)
class StabilityScore:
    """The stability of one trace, and its parts in nats of relative loss (see `tuner.stability.score`).

    A part that could not be judged is None and counts as nothing; `not_assessed` says why.

    Attributes:
        stability: S, in [-1, 1]: exp(-instability) for a run that learned, less for one that did not.
        instability: I, in [0, 5].
        drawdown: U, depth times time of the training loss above its running best.
        unrecovered: R, rise of the training loss that was still there at the end.
        validation_drawdown: V.
        validation_unrecovered: E.
        gap_growth: G, growth of (validation - training loss) / chance loss since the best validation epoch.
    """

    stability: float
    instability: float
    drawdown: float | None
    unrecovered: float | None
    validation_drawdown: float | None
    validation_unrecovered: float | None
    gap_growth: float | None
    not_assessed: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeedRun:
    """One training of one configuration; `trace.npz` lies beside it.

    Attributes:
        objective: J, minimised; finite for every outcome.
        error: 1 - metric at the end (smoothed over the last epochs), or the validation loss for regression.
        metrics: Validation loss and metrics of the last epoch that is kept.
        epochs: That its weights were trained for; the trace has more if later ones were thrown away.
        message: Why it failed or was ended early, else empty.
        ended_by: Code of the verdict that ended it (`divergence`, `not_learning`, `over_fitting`), else empty.
        is_feasible: Whether it keeps the constraint of the objective `constrained`.
        findings: What was unstable in it, worst first.
        causes: Why, most likely first, with remedies.
        split_seed: Of the fresh split of training and validation part that it was trained on; None: the run's own.
        program: Whether its compiled program was `built` or `reused` from a training before; empty: it had its own.
    """

    trial: int
    seed_index: int
    seed: int
    outcome: Outcome
    objective: float
    error: float | None
    score: StabilityScore
    metrics: dict[str, float]
    epochs: int
    steps_per_epoch: int
    num_parameters: int
    seconds: float
    message: str = ""
    ended_by: str = ""
    is_feasible: bool = True
    findings: tuple[Finding, ...] = ()
    causes: tuple[Finding, ...] = ()
    split_seed: int | None = None
    program: Literal["", "built", "reused"] = ""
    schema_version: int = 1


@dataclass(frozen=True)
class RateSweep:
    """Learning rates at which short sweeps broke; the same for all configurations that differ in their rate alone.

    Attributes:
        diverging_rates: One for each seed; None where it never diverged.
        highest_rate: Where the sweeps ended.
    """

    diverging_rates: tuple[float | None, ...]
    highest_rate: float
    seconds: float
    schema_version: int = 1

    @property
    def diverging_rate(self) -> float:
        """Geometric mean over the seeds; those that never diverged count as the end of the sweep."""
        return statistics.geometric_mean(rate or self.highest_rate for rate in self.diverging_rates)

    @property
    def is_bound(self) -> bool:
        """Whether a seed never diverged, so that the true rate is higher."""
        return None in self.diverging_rates


@dataclass(frozen=True)
class RateRange:
    """The learning-rate range of a search, from sweeps of a few of its configurations.

    Attributes:
        low, high: Its ends.
    """

    low: float
    high: float
    sweeps: tuple[RateSweep, ...]
    schema_version: int = 1


@dataclass(frozen=True)
class SweptTrial:
    """Which sweep belongs to a trial.

    Attributes:
        sweep: Its key; empty if the configuration could not be swept.
        peak_rate: Highest learning rate of the trial's training.
        message: Why it could not be swept, else empty.
    """

    sweep: str
    peak_rate: float
    message: str = ""
    schema_version: int = 1


@dataclass(frozen=True)
class StabilityMargin:
    """How far a configuration is from the rate at which it breaks; derived when read.

    Attributes:
        peak_rate: Highest learning rate of its training.
    """

    sweep: RateSweep
    peak_rate: float

    @property
    def ratio(self) -> float:
        """So many times higher the rate could be; a lower bound if `sweep.is_bound`."""
        return self.sweep.diverging_rate / self.peak_rate

    @property
    def text(self) -> str:
        """Such as `x37`, or `above x400` for a configuration that the sweep could not break."""
        return f"{'above ' if self.sweep.is_bound else ''}x{float(f'{self.ratio:.2g}'):g}"


# Fresh seeds from which on a configuration counts as confirmed: one training has no spread. Source: convention.
MIN_FRESH_RUNS = 2


@dataclass(frozen=True)
class ConfirmPlan:
    """Which trials are trained again on fresh seeds, and on how many.

    Attributes:
        finalists: Numbers of the trials, best first.
        seeds: Trainings of each, with seed indices 1, 2, ...
        fresh_split: Whether each of them draws its own training and validation part, too.
    """

    finalists: tuple[int, ...]
    seeds: int
    fresh_split: bool = False
    schema_version: int = 1


@dataclass(frozen=True)
class Claim:
    """The part of a confirmation that a worker has taken and nobody else may.

    Attributes:
        seed_index: Of the fresh training; None: the measurement of the stability margin.
    """

    worker: int
    trial: int
    seed_index: int | None
    schema_version: int = 1


@dataclass(frozen=True)
class SharedStudy:
    """Where the study of a run is, if it is not a file of the run folder.

    Attributes:
        url: Of the database, without a password.
        name: Of the study among those in it.
    """

    url: str
    name: str
    schema_version: int = 1


@dataclass(frozen=True)
class BatchJobs:
    """An array of batch jobs that run the workers of a run.

    Attributes:
        backend: Scheduler.
        number: Of the array, or name of the Job, as the scheduler calls it.
        version: Of the program that submitted it.
        namespace: Of Kubernetes; empty for kubectl's own.
        host: Machine that a local job runs on.
    """

    backend: Literal["slurm", "kubernetes", "local"]
    number: str
    num_jobs: int
    version: str
    namespace: str = ""
    host: str = ""
    schema_version: int = 1


@dataclass(frozen=True)
class Narrowing:
    """One bound that a search took back by itself.

    Attributes:
        parameter: The hyperparameter.
        side: Which end of its range.
        bound: Where the range ends now.
        whole: The range (low, high) that the user and the search space gave.
        cause: Code of the cause that the trials have in common.
        trials: Those that agree.
    """

    parameter: str
    side: Literal["upper", "lower"]
    bound: float
    whole: tuple[float, float]
    cause: str
    trials: tuple[int, ...]


@dataclass(frozen=True)
class AdaptationStep:
    """The ranges that differ from those given, from one trial on until the next step.

    Attributes:
        since: First trial that was proposed from them.
        ranges: What was narrowed; nothing if all are whole again.
    """

    since: int
    ranges: tuple[Narrowing, ...]


@dataclass(frozen=True)
class Adaptation:
    """How a search narrowed, and widened again, what it proposes from; the last step holds."""

    steps: tuple[AdaptationStep, ...] = ()
    schema_version: int = 1


@dataclass(frozen=True)
class TrialRecord:
    """One configuration as the study knows it, with its seed runs; derived when read, never stored.

    Attributes:
        hyperparameters: Active values by name.
        objective: J over the seed runs; None while it is unfinished.
        epoch_losses: Validation loss reported so far, epoch by epoch (for progress).
        epoch_objectives: J as it was judged after each of these epochs.
        started, finished: Unix time in seconds, or None.
        margin: Stability margin; None if it was not measured.
        faults: Records of it that are damaged and left out, a sentence each.
        is_baseline: Whether it is the user's own configuration.
        worker: Number of the worker that runs it, or ran it last; None before one did.
    """

    number: int
    outcome: Outcome
    hyperparameters: dict[str, HyperparameterValue]
    objective: float | None = None
    seed_runs: tuple[SeedRun, ...] = ()
    epoch_losses: tuple[float, ...] = ()
    epoch_objectives: tuple[float, ...] = ()
    started: float | None = None
    finished: float | None = None
    message: str = ""
    margin: StabilityMargin | None = None
    faults: tuple[str, ...] = ()
    is_baseline: bool = False
    worker: int | None = None

    @property
    def kept_epochs(self) -> int | None:
        """Epochs of the configuration, if the search found out that later ones over-fit; None: those of the search."""
        run = self.search_run
        return run.epochs if run is not None and run.ended_by == "over_fitting" else None

    @property
    def fresh_runs(self) -> tuple[SeedRun, ...]:
        """Seed runs of the confirmation: the search did not choose by them."""
        return tuple(run for run in self.seed_runs if run.seed_index > 0)

    @property
    def search_run(self) -> SeedRun | None:
        """The seed run that the search chose by; None if it left no record."""
        return next((run for run in self.seed_runs if run.seed_index == 0), None)

    @property
    def is_confirmed(self) -> bool:
        """Whether it was trained on fresh seeds, at least twice, and not all of these trainings failed."""
        fresh = self.fresh_runs
        return len(fresh) >= MIN_FRESH_RUNS and not all(run.outcome.is_failed for run in fresh)

    @property
    def judged_runs(self) -> tuple[SeedRun, ...]:
        """The seed runs to judge it by: the fresh ones once it is confirmed, else all there are."""
        return self.fresh_runs if self.is_confirmed else self.seed_runs

    @property
    def stability(self) -> float | None:
        """S of the worst seed run, or None while there is none."""
        return min((run.score.stability for run in self.judged_runs), default=None)
