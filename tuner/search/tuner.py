"""`StabilityTuner`: a Keras Tuner `Tuner` whose trials are scored by error and stability together."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import numpy.typing as npt
from keras_tuner.engine import trial as trial_module

from tuner.data import labels
from tuner.data.label_sets import is_label_sets
from tuner.errors import ConfigError
from tuner.records import Outcome, Trace
from tuner.search import spaces
from tuner.search.adapting import Adapter
from tuner.search.failures import MAX_FAILURES_IN_A_ROW, check_failures
from tuner.search.halving import half_batch
from tuner.search.machine import available_memory_bytes, visible_gpus
from tuner.search.margins import measure_margin
from tuner.search.oracle import OBJECTIVE, StudyOracle
from tuner.search.pruning import PrunerName
from tuner.search.seeds import derive_seed
from tuner.search.study import Study
from tuner.stability.judgement import Judgement, ObjectiveName, chance_levels, choose_metric
from tuner.stability.margin import penalty
from tuner.store import RunFolder, atomic_path
from tuner.training import seedrun
from tuner.training.seedrun import Training, TrainingData
from tuner.training.session import release_memory

__all__ = ["StabilityTuner", "save_model"]

# Trained models that are kept, best first; the others can be trained again from their records.
NUM_KEPT_MODELS = 3


class StabilityTuner(keras_tuner.Tuner):
    """Search like any Keras Tuner `Tuner`; the objective is J, error and instability together.

    Records of every training (`record.json`, `trace.npz`) and the best models go to
    `directory/project_name/trials/`. Training stays in this process; the command line adds worker processes.

    Args:
        hypermodel: `keras_tuner.HyperModel` or `build(hp)` function that returns a compiled model.
        oracle: Any Keras Tuner oracle, whose objective becomes J; None: TPE over an Optuna study in the project folder.
        max_trials: Budget of the default oracle.
        seed: Search seed: proposals, initial weights and order follow from it.
        objective: `stable`; `constrained` (error among stable trials); `pareto` (error and instability apart, searched
            by `nsga2` without a pruner if the oracle is the default one); `val_loss` or `val_accuracy` alone.
        stability_weight: Weight of instability in `stable`.
        margin_weight: Weight of a small stability margin in the objective; above 0, every trial is swept.
        metric: `accuracy`, `balanced_accuracy`; of rows of several labels `mean_average_precision`, `macro_f1`; `loss`;
            or `auto` from the labels.
        adapt: Narrow the ranges that later trials are proposed from by what the causes of finished ones agree on; only
            with the default oracle.
        pruner: `asha`, `hyperband` or `median` end trials early that others are ahead of; only with the default oracle.
        ends_early: End trials as soon as their outcome is certain; one that over-fits is kept at its best epoch.
        guard: Roll a training back when its loss spikes, find out why, and go on (see `SpikeGuard`).
        probes: Record the probe channels of every training too (see `StabilityMonitor`).
        tuner_kwargs: Passed on to `keras_tuner.Tuner`: `directory`, `project_name`, `overwrite`, ...

    Example:
        tuner = StabilityTuner(build_model, max_trials=10, directory="runs", project_name="mine")
        tuner.search(x, y, validation_data=(x_val, y_val), epochs=20)
        best = tuner.get_best_hyperparameters()[0]
    """

    def __init__(
        self,
        hypermodel: Any,
        oracle: keras_tuner.Oracle | None = None,
        *,
        max_trials: int = 30,
        seed: int = 0,
        objective: ObjectiveName = "stable",
        stability_weight: float = 0.2,
        margin_weight: float = 0.0,
        metric: str = "auto",
        ends_early: bool = True,
        adapt: bool = True,
        pruner: PrunerName = "asha",
        guard: bool = False,
        probes: bool = False,
        **tuner_kwargs: Any,
    ) -> None:
        self.run_folder = RunFolder(
            Path(tuner_kwargs.get("directory") or ".") / (tuner_kwargs.get("project_name") or "untitled_project")
        )
        self._owns_study = oracle is None
        if oracle is None:
            # Before the study is opened: Keras Tuner would remove its file from under it.
            if tuner_kwargs.pop("overwrite", False):
                shutil.rmtree(self.run_folder.root, ignore_errors=True)
            self.run_folder.root.mkdir(parents=True, exist_ok=True)
            narrowed = Adapter(self.run_folder) if adapt else None
            is_pareto = objective == "pareto"
            study = Study(self.run_folder, algorithm="nsga2" if is_pareto else "tpe", seed=seed, is_pareto=is_pareto)
            pruner = "none" if is_pareto else pruner
            oracle = StudyOracle(study, max_trials=max_trials, adapt=narrowed, pruner=pruner)
        oracle.objective = OBJECTIVE
        # A failed training has a finite objective, so Keras Tuner's own failure count never grows; ours is below.
        oracle.max_consecutive_failed_trials = 10**9
        oracle.verbose = 0
        self.search_seed = seed
        self._objective_name: ObjectiveName = objective
        self._stability_weight = stability_weight
        self._margin_weight = margin_weight
        self._metric = metric
        self._ends_early = ends_early
        self._is_guarded = guard
        self._has_probes = probes
        self._ended: list[tuple[Outcome, str]] = []
        with contextlib.redirect_stdout(io.StringIO()):  # "Reloading Tuner from ..."
            super().__init__(oracle, hypermodel, **tuner_kwargs)

    def on_search_begin(self) -> None:
        """Put back what an earlier search in the same folder was running when it was stopped."""
        if self._owns_study:
            self.oracle.study.give_back(crashed=False)

    def run_trial(self, trial: trial_module.Trial, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """Train one configuration and score it.

        Args:
            trial: The configuration.
            fit_args: `x, y` as for `fit`.
            fit_kwargs: `validation_data` or `validation_split`, `epochs`, and what else goes to `fit`.

        Returns:
            `objective` (J), `stability`, and the last validation metrics; finite for every outcome.
        """
        number = int(trial.trial_id)
        hp = trial.hyperparameters
        data = self.training_data(
            hp, *fit_args, **_take(fit_kwargs, "validation_data", "validation_split", "class_weight")
        )
        judgement = self.judgement(data)
        epochs = int(hp.values.get("tuner/epochs", fit_kwargs.pop("epochs", 1)))
        fit_kwargs.pop("epochs", None)
        train = functools.partial(
            seedrun.train,
            self.hypermodel,
            hp,
            data=data,
            judgement=judgement,
            epochs=epochs,
            seed=derive_seed(self.search_seed, number, 0),
            trial=number,
            ends_early=self._ends_early,
            is_guarded=self._is_guarded,
            has_probes=self._has_probes,
            on_epoch=lambda epoch, trace: self.on_epoch(trial, epoch, trace, judgement),
            checkpoint_file=self.run_folder.checkpoint_file(number, 0),
            memory_bytes=None if visible_gpus() else available_memory_bytes(),
            **fit_kwargs,
        )
        training = self._train_in_memory(trial, train)
        if self._margin_weight:
            training = self._with_margin(training, hp, data=data, epochs=epochs, **fit_kwargs)
        self._keep(training)
        run = training.run
        if isinstance(self.oracle, StudyOracle):
            self.oracle.record_outcome(trial.trial_id, run.outcome, run.message, axes=judgement.axes(run))
        self._ended.append((run.outcome, run.message))
        release_memory()
        finite = {name: value for name, value in run.metrics.items() if np.isfinite(value)}
        return {OBJECTIVE.name: run.objective, "stability": run.score.stability} | finite

    def training_data(
        self,
        hp: keras_tuner.HyperParameters,
        x: npt.NDArray[Any] | None = None,
        y: npt.NDArray[Any] | None = None,
        *,
        validation_data: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None,
        validation_split: float = 0.0,
        class_weight: dict[int, float] | None = None,
    ) -> TrainingData:
        """What the configuration is trained on; override it to make the preprocessing a part of the search.

        Raises:
            ConfigError: There is no validation data, or the data are no arrays.
        """
        if not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray)):
            raise ConfigError(
                f"search(x, y, ...) needs NumPy arrays (got {type(x).__name__}, {type(y).__name__}). "
                "Convert them with numpy.asarray first."
            )
        if validation_data is None:
            if not 0 < validation_split < 1:
                raise ConfigError(
                    "search() needs validation_data=(x_val, y_val) or validation_split=0.2: both losses are judged."
                )
            cut = round(len(x) * (1 - validation_split))
            x, y, validation_data = x[:cut], y[:cut], (x[cut:], y[cut:])
        x_validation, y_validation = (np.asarray(part) for part in validation_data)
        return TrainingData(x, y, x_validation, y_validation, class_weight)

    def judgement(self, data: TrainingData) -> Judgement:
        """What the trials are held against, from the labels of the training part."""
        if is_label_sets(data.y):
            return self._held_against(data, data.y, num_classes=data.y.shape[1], is_multilabel=True)
        is_one_hot = data.y.ndim == 2 and data.y.shape[1] > 1
        y = np.argmax(data.y, axis=-1) if is_one_hot else data.y.reshape(-1)
        is_classes = is_one_hot or (y.min() >= 0 and labels.encode(y, task="auto", where="y").task == "classification")
        num_classes = int(y.max()) + 1 if is_classes else 0
        return self._held_against(data, y, num_classes=num_classes, is_multilabel=False)

    def _held_against(
        self, data: TrainingData, y: npt.NDArray[Any], *, num_classes: int, is_multilabel: bool
    ) -> Judgement:
        counts = np.bincount(y.astype(np.int64)) if num_classes and not is_multilabel else np.empty(0)
        metric: Any = choose_metric(counts, is_multilabel=is_multilabel) if self._metric == "auto" else self._metric
        if is_multilabel and "accuracy" in (metric, self._objective_name.removeprefix("val_")):
            raise ConfigError(
                "Accuracy does not fit rows of several labels. Use metric='auto' and objective='stable' or 'val_loss'."
            )
        chance_loss, chance_error = chance_levels(y, num_classes=num_classes, metric=metric)
        return Judgement(
            metric=metric,
            chance_loss=chance_loss,
            chance_error=chance_error,
            num_validation=len(data.y_validation),
            objective=self._objective_name,
            stability_weight=self._stability_weight,
            num_classes=num_classes,
            is_multilabel=is_multilabel,
        )

    def on_epoch(self, trial: trial_module.Trial, epoch: int, trace: Trace, judgement: Judgement) -> str:
        """Called after every epoch of every trial; reports to the study what the epoch was judged.

        Returns:
            Why the trial is pruned now; empty if it goes on.
        """
        if not isinstance(self.oracle, StudyOracle) or not trace.validation_loss.size:
            return ""
        return self.oracle.report_epoch(
            trial.trial_id,
            epoch,
            objective=judgement.judge(trace).objective,
            loss=float(trace.validation_loss[-1]),
            max_epochs=trace.planned_epochs,
        )

    def on_trial_end(self, trial: trial_module.Trial) -> None:
        """End the trial in the oracle; only then it cannot come back, and needs no checkpoint."""
        super().on_trial_end(trial)
        self.run_folder.checkpoint_file(int(trial.trial_id), 0).unlink(missing_ok=True)
        study = self.oracle.study if isinstance(self.oracle, StudyOracle) else None
        check_failures(study.last_finished(MAX_FAILURES_IN_A_ROW) if study else self._ended)

    def load_model(self, trial: trial_module.Trial) -> Any:
        """The trained model of a trial, if it is among the best that are kept.

        Raises:
            ConfigError: It is not.
        """
        file = self.run_folder.model_file(int(trial.trial_id), 0)
        if not file.is_file():
            raise ConfigError(
                f"The model of trial {trial.trial_id} was not kept (only the best {NUM_KEPT_MODELS} are). "
                "Build it again with tuner.hypermodel.build(hyperparameters) and train it."
            )
        return keras.models.load_model(file)

    def save(self) -> None:
        """Have Keras Tuner save its state, unless the study is the storage."""
        if not isinstance(self.oracle, StudyOracle):
            super().save()

    def _populate_initial_space(self) -> None:
        """Find the hyperparameters: like Keras Tuner, but never endlessly, and with one clear error."""
        self.oracle.update_space(spaces.discover(self.hypermodel, ()))

    def _train_in_memory(self, trial: trial_module.Trial, train: Callable[[], Training]) -> Training:
        """Train; what runs out of memory is tried once more, with half the batch and half the rate."""
        number, hp = int(trial.trial_id), trial.hyperparameters
        study = self.oracle.study if isinstance(self.oracle, StudyOracle) else None
        # Once already: its worker was killed for it.
        if not (study and study.num_out_of_memory(number)):
            training = train()
            if training.run.outcome is not Outcome.INFEASIBLE or not half_batch(hp.values):
                return training
            if study:
                study.note_out_of_memory(number)
            release_memory()
        hp.values |= half_batch(hp.values)
        training = train()
        told = f"Memory ran out, so it has half the batch ({hp.values['batch_size']} rows) and half the learning rate."
        return replace(training, run=replace(training.run, message=f"{told} {training.run.message}".strip()))

    def _with_margin(
        self, training: Training, hp: keras_tuner.HyperParameters, *, data: TrainingData, epochs: int, **fit_kwargs: Any
    ) -> Training:
        """The training with the weighted penalty of its margin in its objective; one without a model gets the most."""
        margin = None
        fit_kwargs.pop("data_findings", None)
        if training.model is not None:
            margin = measure_margin(
                self.run_folder,
                self.hypermodel,
                hp,
                trial=training.run.trial,
                data=data,
                judgement=self.judgement(data),
                epochs=epochs,
                seed=self.search_seed,
                **fit_kwargs,
            )
        added = self._margin_weight * penalty(margin.ratio if margin else None)
        return replace(training, run=replace(training.run, objective=training.run.objective + added))

    def _keep(self, training: Training) -> None:
        """Store the model if it is among the best so far, then the record; remove the models it displaces."""
        # Held: a model that another worker has stored, without its record yet, must not be removed as nobody's.
        with self.run_folder.exclusive("models"):
            self._keep_best(training)

    def _keep_best(self, training: Training) -> None:
        run = training.run
        best = [(run.objective, run.trial)] if training.model is not None else []
        for file in self.run_folder.trials_dir.glob("*/seed_0/model.keras"):
            best += [(kept.objective, kept.trial) for kept in self.run_folder.load_seed_runs(int(file.parts[-3]))[:1]]
        keep = {number for _, number in sorted(best)[:NUM_KEPT_MODELS]}
        if training.model is not None and run.trial in keep:
            save_model(training.model, self.run_folder.model_file(run.trial, run.seed_index))
        self.run_folder.save_seed_run(run, training.trace)
        fresh = self.run_folder.trials_dir.glob("*/seed_[1-9]*/model.keras")
        self.run_folder.keep_models(
            {(number, 0) for number in keep}
            | {(int(file.parts[-3]), int(file.parts[-2].removeprefix("seed_"))) for file in fresh}
        )

    def _try_run_and_update_trial(self, trial: trial_module.Trial, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Keras Tuner's own swallows every exception; what a training can raise has become a result in `run_trial`."""
        self._run_and_update_trial(trial, *fit_args, **fit_kwargs)
        trial.status = trial_module.TrialStatus.COMPLETED


def save_model(model: Any, file: Path) -> None:
    """Write a model as `.keras`, atomically."""
    with atomic_path(file) as temporary:
        model.save(temporary)


def _take(kwargs: dict[str, Any], *names: str) -> dict[str, Any]:
    """Remove and return some of the keyword arguments."""
    return {name: kwargs.pop(name) for name in names if name in kwargs}
