"""One tool that searches a job's space in a process of its own; `benchmarks/search_speed.py` starts and times them.

    python -m benchmarks.rivals TOOL JOB.json

Every tool trains models of the same search space on the same prepared arrays. A job that lists configurations has each
of them trained once, in full; without a list, a tool proposes and prunes as its documentation shows. What it finished
is appended to the job's `out` file, one JSON line a trial.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner

from tuner.search.context import discover_space, hyperparameters_of, training_data
from tuner.store import RunFolder
from tuner.training.losses import wants_one_hot
from tuner.training.seedrun import TrainingData

METRIC = "val_accuracy"
# One in so many configurations of a bracket goes on. Source: Keras Tuner's default.
FACTOR = 3


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch, with its validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.best = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> Clock:
        """Keras Tuner trains with copies of its callbacks."""
        return self

    def on_train_begin(self, logs: object = None) -> None:
        """Start the clock."""
        self._last = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self.best = max(self.best, float((logs or {})[METRIC]))
        self._last = now


class WithLabels(keras_tuner.HyperModel):  # type: ignore[misc]
    """A search space whose models get labels in the form that they were compiled for."""

    def __init__(self, inner: keras_tuner.HyperModel) -> None:
        super().__init__()
        self._inner = inner

    def build(self, hp: keras_tuner.HyperParameters) -> Any:
        """The model of the space."""
        return self._inner.build(hp)

    def fit(self, hp: keras_tuner.HyperParameters, model: Any, x: Any, y: Any, **kwargs: Any) -> Any:
        """Train it, with the labels one-hot if it wants them."""
        if wants_one_hot(model):
            x_validation, y_validation = kwargs["validation_data"]
            num_classes = model.output_shape[-1]
            kwargs["validation_data"] = (x_validation, keras.utils.to_categorical(y_validation, num_classes))
            y = keras.utils.to_categorical(y, num_classes)
        return self._inner.fit(hp, model, x, y, **kwargs)


class Job:
    """What is searched, and where to note what was found.

    Args:
        file: JSON with `folder` (a run whose data is prepared), `configurations` (or null), `trials`, `epochs`, `seed`,
            `out`, and `share`, [i, n]: every n-th configuration from the i-th on.
    """

    def __init__(self, file: Path) -> None:
        told = json.loads(file.read_text(encoding="utf-8"))
        self.folder = RunFolder(Path(told["folder"]))
        self.out = Path(told["out"])
        self.epochs, self.trials, self.seed = int(told["epochs"]), int(told["trials"]), int(told["seed"])
        first, step = told["share"]
        self.configurations: list[dict[str, Any]] | None = (
            told["configurations"] and told["configurations"][first::step]
        )
        hypermodel, self.space = discover_space(self.folder)
        self.hypermodel = WithLabels(hypermodel)
        self.data: TrainingData = training_data(self.folder, self.folder.load_dataset(), self.space.values)

    @property
    def fit_arguments(self) -> dict[str, Any]:
        """What `search` and `fit` are given."""
        data = self.data
        validation = (data.x_validation, data.y_validation)
        return {"x": data.x, "y": data.y, "validation_data": validation, "epochs": self.epochs, "verbose": 0}

    def train(
        self, hp: keras_tuner.HyperParameters, *callbacks: keras.callbacks.Callback, clock: Clock | None = None
    ) -> float:
        """Train one configuration as a plain loop does, and note it; the best validation accuracy."""
        keras.backend.clear_session()
        clock = clock or Clock()
        model = self.hypermodel.build(hp)
        try:
            self.hypermodel.fit(hp, model, **self.fit_arguments, callbacks=[clock, *callbacks])
        finally:
            self.note(hp, clock)
        return clock.best

    def note(self, hp: keras_tuner.HyperParameters, clock: Clock) -> None:
        """Append a trial; of several lines with the same values, the last one counts."""
        line = {"at": time.time(), "values": dict(hp.values), "value": clock.best, "epoch_seconds": clock.seconds}
        with self.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def listed(self) -> Iterator[keras_tuner.HyperParameters]:
        """The configurations of the job."""
        return map(hyperparameters_of, self.configurations or ())


def bare(job: Job) -> None:
    """`model.fit` in a loop."""
    for hp in job.listed():
        keras.utils.set_random_seed(job.seed)
        job.train(hp)


def keras_tuner_search(job: Job, oracle: keras_tuner.Oracle) -> None:
    """Keras Tuner's own loop around an oracle."""

    class Noted(keras_tuner.Tuner):  # type: ignore[misc]
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
            clock = Clock()
            kwargs["callbacks"] = [*kwargs.pop("callbacks", []), clock]
            result = super().run_trial(trial, *args, **kwargs)
            job.note(trial.hyperparameters, clock)
            return result

    tuner = Noted(oracle, job.hypermodel, directory=str(job.out.parent), project_name="kt", overwrite=True)
    tuner.search(**job.fit_arguments)


class _Listed(keras_tuner.Oracle):  # type: ignore[misc]
    """Keras Tuner's oracle that goes through a list."""

    def __init__(self, configurations: list[dict[str, Any]]) -> None:
        super().__init__(objective=METRIC, max_trials=len(configurations))
        self._configurations = configurations

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next of the list."""
        return {"status": "RUNNING", "values": dict(self._configurations[int(trial_id)])}


def keras_tuner_listed(job: Job) -> None:
    """Keras Tuner, the given trials."""
    keras_tuner_search(job, _Listed(job.configurations or []))


def keras_tuner_random(job: Job) -> None:
    """Keras Tuner's `RandomSearch`."""
    oracle = keras_tuner.oracles.RandomSearchOracle(objective=METRIC, max_trials=job.trials, seed=job.seed)
    keras_tuner_search(job, oracle)


def keras_tuner_bayesian(job: Job) -> None:
    """Keras Tuner's `BayesianOptimization`."""
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(objective=METRIC, max_trials=job.trials, seed=job.seed)
    keras_tuner_search(job, oracle)


def keras_tuner_hyperband(job: Job) -> None:
    """Keras Tuner's `Hyperband`, one iteration of all brackets."""
    tuner = keras_tuner.Hyperband(
        job.hypermodel,
        objective=METRIC,
        max_epochs=job.epochs,
        factor=FACTOR,
        seed=job.seed,
        directory=str(job.out.parent),
        project_name="hyperband",
        overwrite=True,
    )
    inner = tuner.run_trial

    def run_trial(trial: Any, *args: Any, **kwargs: Any) -> Any:
        clock = Clock()
        result = inner(trial, *args, **kwargs | {"callbacks": [*kwargs.get("callbacks", []), clock]})
        job.note(trial.hyperparameters, clock)
        return result

    tuner.run_trial = run_trial
    tuner.search(**job.fit_arguments)


def optuna_search(job: Job) -> None:
    """Optuna's TPE and median pruner with its callback for Keras; or the given trials."""
    import optuna
    from optuna_integration import KerasPruningCallback

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    configurations = job.configurations

    def objective(trial: optuna.Trial) -> float:
        if configurations is not None:
            hp = hyperparameters_of(configurations[trial.number])
            return job.train(hp)
        return job.train(_asked(job.space, trial), KerasPruningCallback(trial, METRIC))

    pruner = optuna.pruners.NopPruner() if configurations is not None else optuna.pruners.MedianPruner()
    sampler = optuna.samplers.TPESampler(seed=job.seed)
    storage = f"sqlite:///{job.out.parent / 'optuna.db'}"
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner, storage=storage)
    study.optimize(objective, n_trials=job.trials)


def _asked(space: keras_tuner.HyperParameters, trial: Any) -> keras_tuner.HyperParameters:
    """A configuration of the space, each active value asked of an Optuna trial."""
    asked = space.copy()
    asked.values = {}
    for each in asked.space:
        if not asked.is_active(each):
            continue
        kind = type(each).__name__
        if kind == "Fixed":
            value = each.value
        elif kind in ("Choice", "Boolean"):
            value = trial.suggest_categorical(each.name, list(each.values))
        elif kind == "Int":
            value = trial.suggest_int(each.name, each.min_value, each.max_value, step=each.step)
        else:
            value = trial.suggest_float(each.name, each.min_value, each.max_value, log=each.sampling == "log")
        asked.values[each.name] = value
    return asked


def ray_search(job: Job) -> None:
    """Ray Tune, one trial a core: ASHA over as many random configurations as trials, or the given trials."""
    import ray
    from ray import tune

    file = Path(sys.argv[2]).resolve()
    configurations = job.configurations or [
        dict(random_configuration(job.space, seed=job.seed * 1000 + number).values) for number in range(job.trials)
    ]

    def trainable(config: dict[str, Any]) -> None:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        # Ray pickles what it finds in the main module by value, which a cache does not stand.
        from benchmarks.rivals import Clock, job_of_process

        inner, clock = job_of_process(file), Clock()
        hp = hyperparameters_of(configurations[config["index"]])

        def told(epoch: int, logs: dict[str, Any] | None = None) -> None:
            # A trial that Ray stops, also because it is done, does not return from its report.
            inner.note(hp, clock)
            tune.report({METRIC: float((logs or {})[METRIC])})

        inner.train(hp, keras.callbacks.LambdaCallback(on_epoch_end=told), clock=clock)

    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    scheduler = None
    if job.configurations is None:
        scheduler = tune.schedulers.ASHAScheduler(max_t=job.epochs)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"index": tune.grid_search(list(range(len(configurations))))},
        tune_config=tune.TuneConfig(metric=METRIC, mode="max", scheduler=scheduler, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(job.out.parent / "ray"), verbose=0),
    )
    tuner.fit()


@functools.cache
def job_of_process(file: Path) -> Job:
    """Read once in each of Ray's processes."""
    return Job(file)


def random_configuration(space: keras_tuner.HyperParameters, *, seed: int) -> keras_tuner.HyperParameters:
    """A configuration of the space, all active values drawn by Keras Tuner."""
    drawn = space.copy()
    drawn.values = {}
    for offset, each in enumerate(drawn.space):
        if drawn.is_active(each):
            drawn.values[each.name] = each.random_sample(seed * 100 + offset)
    return drawn


TOOLS: dict[str, Callable[[Job], None]] = {
    "bare": bare,
    "keras_tuner": keras_tuner_listed,
    "keras_tuner_random": keras_tuner_random,
    "keras_tuner_bayesian": keras_tuner_bayesian,
    "keras_tuner_hyperband": keras_tuner_hyperband,
    "optuna": optuna_search,
    "ray": ray_search,
}

if __name__ == "__main__":
    TOOLS[sys.argv[1]](Job(Path(sys.argv[2])))
