"""Export of the best configuration as a bundle; prediction with a bundle; training it again."""

from __future__ import annotations

import importlib.metadata
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jinja2
import keras
import keras_tuner
import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline

import tuner
from tuner.bundle import Bundle, BundleConfig, check_bundle, read_config, write_config, write_manifest
from tuner.config import SearchConfig
from tuner.data import cache, pipelines, sources, split, transformers
from tuner.data.cache import Part, Prepared
from tuner.errors import BundleError, DataError, RunError
from tuner.records import DatasetRecord, DataSpec, SeedRun, TrialRecord
from tuner.search import setup, spaces
from tuner.search.study import load_trials
from tuner.search.tuner import save_model
from tuner.search.worker import discover_space, judgement_of, preprocessing_choices, training_data
from tuner.stability.judgement import Judgement
from tuner.stability.ranking import best_trial, median_seed_run
from tuner.store import RunFolder, atomic_open, read_json, storage_errors, write_json, write_text
from tuner.training import seedrun
from tuner.training.seedrun import Training, TrainingData

__all__ = ["export_bundle", "predict_file", "train_again"]

# Rows that are predicted at a time.
PREDICT_BATCH_ROWS = 512
_VERSIONS = ("tensorflow", "keras", "scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "pillow", "skops")


def export_bundle(folder: RunFolder, output: Path, *, trial: int | None = None) -> list[str]:
    """Write the best configuration of a run (or a given trial) as a bundle.

    The test part is touched here and nowhere else: the test metrics go into the bundle and the model card.

    Args:
        folder: The run.
        output: Folder of the bundle; made if need be, must be empty.
        trial: Number of another trial.

    Returns:
        What was done, in lines for the user.

    Raises:
        RunError: No trial can be exported, or the output folder is not empty.
    """
    with storage_errors(output):
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise RunError(f"{str(output)!r} exists and is not empty. Give -o a new folder, or remove it first.")
        output.mkdir(parents=True, exist_ok=True)
    record = _chosen(folder, trial)
    run = median_seed_run(record)
    model = _trained_model(folder, record, run)
    dataset = folder.load_dataset()
    prepared = _prepared(folder, dataset, record)
    test = evaluate(model, cache.test_part(folder.data_dir, prepared, dataset.spec), judgement_of(folder), prepared.target_scaler)
    notes = _note_test_use(folder, run, test)
    config = _bundle_config(folder, dataset, record, run, test)
    _write_bundle(output, config, model=model, prepared=prepared, space_file=folder.space_file, notes=notes)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in test.items())
    return [
        f"Bundle of trial {record.number} written to {output} (not confirmed on fresh seeds).",
        f"On the test part, which the search never saw: {figures}",
        *notes,
        f"Next:   python -m tuner predict {output} DATA -o predictions.csv",
        f"        python {output / 'train.py'} DATA   (stand-alone, without this package)",
    ]


def evaluate(model: Any, part: Part, judgement: Judgement, target_scaler: Any | None) -> dict[str, float]:
    """Metrics of a model on one part, computed from its predictions.

    Args:
        model: Trained.
        part: Prepared samples and labels.
        judgement: Says whether it is classification.
        target_scaler: Undoes the scaling of a regression target, so that errors are in the user's unit.
    """
    outputs = _outputs(model, part.x)
    if not judgement.num_classes:
        truth, predicted = (target_scaler.inverse_transform(np.reshape(values, (-1, 1))).ravel() for values in (part.y, outputs))  # type: ignore[union-attr]
        residual = truth - predicted
        return {
            "rmse": float(np.sqrt(np.mean(residual**2))),
            "mae": float(np.mean(np.abs(residual))),
            "r2": float(1 - np.sum(residual**2) / max(np.sum((truth - truth.mean()) ** 2), math.ulp(1.0))),
        }
    answers = outputs.argmax(axis=1)
    recalls = [float(np.mean(answers[part.y == code] == code)) for code in np.unique(part.y)]
    picked = outputs[np.arange(len(part.y)), part.y]
    return {
        "accuracy": float(np.mean(answers == part.y)),
        "balanced_accuracy": float(np.mean(recalls)),
        "log_loss": float(-np.mean(np.log(np.maximum(picked, 1e-7)))),
    }


def predict_file(bundle_root: Path, data: str, output: Path) -> int:
    """Predict a file or folder with a bundle.

    Args:
        bundle_root: The bundle.
        data: Samples in the form of the training data; labels may be there and are ignored.
        output: CSV: `row`, `prediction`, and for classes one probability column each.

    Returns:
        Number of rows.

    Raises:
        BundleError: The bundle is incomplete or was changed.
        DataError: The data does not fit the bundle.
    """
    import pandas as pd

    bundle = check_bundle(bundle_root)
    config = read_config(bundle.config_file)
    x, rows = sources.load_features(data, config.data)
    pipeline = pipelines.load(bundle.pipeline_file)
    model = _load_model(bundle.model_file)
    outputs = _outputs(model, pipeline.transform(x))
    if config.data.task == "regression":
        scaler = pipelines.load(bundle.target_scaler_file)
        columns = {"row": rows, "prediction": scaler.inverse_transform(outputs.reshape(-1, 1)).ravel()}
    else:
        names = np.asarray(config.data.class_names)
        columns = {"row": rows, "prediction": names[outputs.argmax(axis=1)]}
        columns |= {f"p_{name}": outputs[:, code] for code, name in enumerate(config.data.class_names)}
    with atomic_open(output) as stream:
        pd.DataFrame(columns).to_csv(stream, index=False)
    return len(rows)


def train_again(config_file: Path, data: str | None, *, seed: int | None, output: Path | None) -> dict[str, Any]:
    """Train an exported configuration again, on its own data or other data of the same form.

    Args:
        config_file: A bundle, or its config.yaml.
        data: Path of the data; None for where the search read it.
        seed: Another seed than the exported one.
        output: Folder for the result as a new bundle, or None.

    Returns:
        Outcome, metrics, stability and seconds by name.

    Raises:
        DataError: The data does not fit the configuration.
    """
    config = read_config(config_file)
    base = config_file if config_file.is_dir() else config_file.parent
    seed = config.seed if seed is None else seed
    with tempfile.TemporaryDirectory(prefix="tuner-train-") as workspace:
        folder, dataset = _workspace(config, data or config.source, Path(workspace))
        hypermodel = spaces.load(config.space, dataset.spec, num_train=dataset.num_train, epochs=config.epochs, base_dir=base)
        training = _train(folder, dataset, hypermodel, config, seed=seed)
        run = training.run
        result: dict[str, Any] = {
            "outcome": str(run.outcome),
            "seed": seed,
            **{f"{name}": value for name, value in run.metrics.items()},
            "stability": run.score.stability,
            "seconds": round(run.seconds, 1),
        }
        if run.message:
            result["message"] = run.message
        if output is not None and training.model is not None:
            prepared = cache.prepared(folder.data_dir, dataset.spec, {k: str(v) for k, v in config.hyperparameters.items()})
            test = evaluate(training.model, cache.test_part(folder.data_dir, prepared, dataset.spec), judgement_of(folder), prepared.target_scaler)
            again = _again(config, dataset, run, test, source=data or config.source, seed=seed)
            with storage_errors(output):
                output.mkdir(parents=True, exist_ok=True)
            _write_bundle(output, again, model=training.model, prepared=prepared, space_file=base / "space.py", notes=[])
            result |= {f"test_{name}": value for name, value in test.items()} | {"bundle": str(output)}
    return result


def _chosen(folder: RunFolder, number: int | None) -> TrialRecord:
    trials = load_trials(folder)
    chosen = best_trial(trials) if number is None else next((trial for trial in trials if trial.number == number), None)
    if chosen is None:
        known = ", ".join(str(trial.number) for trial in trials if trial.seed_runs) or "none"
        what = "No trial of this run" if number is None else f"Trial {number}"
        raise RunError(f"{what} can be exported from {str(folder.root)!r}. Finished trials: {known}.")
    if chosen.outcome.is_failed or not chosen.seed_runs:
        raise RunError(f"Trial {chosen.number} has no model to export: {chosen.message or chosen.outcome.meaning}")
    return chosen


def _trained_model(folder: RunFolder, record: TrialRecord, run: SeedRun) -> Any:
    """The stored model, or the same training once more if it was not among the kept ones."""
    file = folder.model_file(record.number, run.seed_index)
    if file.is_file():
        return _load_model(file)
    config, dataset = folder.load_config(), folder.load_dataset()
    hypermodel, _ = discover_space(folder)
    training = seedrun.train(
        hypermodel,
        _hyperparameters(record.hyperparameters),
        data=training_data(folder, dataset, record.hyperparameters),
        judgement=judgement_of(folder),
        epochs=config.epochs,
        seed=run.seed,
        trial=record.number,
        seed_index=run.seed_index,
    )
    if training.model is None:
        raise RunError(f"Trial {record.number} failed when it was trained again for the export: {training.run.message or training.run.outcome.meaning}")
    return training.model


def _hyperparameters(values: dict[str, Any]) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


def _prepared(folder: RunFolder, dataset: DatasetRecord, record: TrialRecord) -> Prepared:
    names = {choice.name for choice in preprocessing_choices(dataset)}
    params = {name: str(value) for name, value in record.hyperparameters.items() if name in names}
    return cache.prepared(folder.data_dir, dataset.spec, params)


def _note_test_use(folder: RunFolder, run: SeedRun, test: dict[str, float]) -> list[str]:
    """Remember what was judged on the test part; say so when it is another trial than before."""
    file = folder.root / "test.json"
    used: dict[str, dict[str, float]] = read_json(file, dict[str, dict[str, float]]) if file.is_file() else {}
    key = f"{run.trial}/{run.seed_index}"
    others = sorted(set(used) - {key})
    write_json(file, used | {key: test})
    if not others:
        return []
    return [
        f"The test part was used before, for trial {', '.join(name.split('/')[0] for name in others)}: "
        "do not choose between them by their test results, or the figure is too good."
    ]


def _bundle_config(folder: RunFolder, dataset: DatasetRecord, record: TrialRecord, run: SeedRun, test: dict[str, float]) -> BundleConfig:
    config = folder.load_config()
    return BundleConfig(
        run=str(folder.root),
        trial=record.number,
        source=config.data,
        fingerprint=dataset.fingerprint,
        data=dataset.spec,
        space=_bundled_space(config, dataset.spec),
        hyperparameters=record.hyperparameters,
        epochs=config.epochs,
        seed=run.seed,
        split_seed=config.seed,
        metric=dataset.metric,
        stability_weight=config.stability_weight,
        validation={name: value for name, value in run.metrics.items() if math.isfinite(value)},
        test=test,
        stability=run.score.stability,
        versions=_versions(),
    )


def _again(config: BundleConfig, dataset: DatasetRecord, run: SeedRun, test: dict[str, float], *, source: str | None, seed: int) -> BundleConfig:
    import dataclasses

    return dataclasses.replace(
        config,
        source=source,
        fingerprint=dataset.fingerprint,
        data=dataset.spec,
        seed=seed,
        validation={name: value for name, value in run.metrics.items() if math.isfinite(value)},
        test=test,
        stability=run.score.stability,
        versions=_versions(),
    )


def _bundled_space(config: SearchConfig, spec: DataSpec) -> str:
    """The space as the bundle names it: a user's file travels along as space.py."""
    if config.space is None:
        return spec.kind
    return f"space.py:{config.space.rpartition(':')[2]}" if ":" in config.space else config.space


def _versions() -> dict[str, str]:
    found = {"tuner": tuner.__version__}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _workspace(config: BundleConfig, source: str | None, root: Path) -> tuple[RunFolder, DatasetRecord]:
    """A run folder with the data of a configuration, read and split as the search did."""
    spec = config.data
    task_of_a_table = spec.task if spec.form in ("table", "npz") else "auto"
    search_config = SearchConfig(
        data=source,
        target=spec.target,
        task=task_of_a_table,
        kind=spec.kind if spec.form == "npz" else "auto",
        image_size=max(spec.input_shape[:2]) if spec.form == "image_folder" else None,
        metric=config.metric,  # type: ignore[arg-type]
        seed=config.split_seed,
        stability_weight=config.stability_weight,
        epochs=config.epochs,
    )
    data = setup.read_data(search_config)
    found = data.record.spec
    if (found.task, found.input_shape, found.class_names) != (spec.task, spec.input_shape, spec.class_names):
        raise DataError(
            f"{source!r} does not fit the configuration: it has samples of shape {found.input_shape} and {found.num_classes} "
            f"classes, the configuration was made for {spec.input_shape} and {spec.num_classes}. Start a new search for it."
        )
    folder = RunFolder.create(root, search_config)
    cache.save_raw(folder.data_dir, data.dataset, data.split)
    folder.save_dataset(data.record)
    return folder, data.record


def _train(folder: RunFolder, dataset: DatasetRecord, hypermodel: keras_tuner.HyperModel, config: BundleConfig, *, seed: int) -> Training:
    return seedrun.train(
        hypermodel,
        _hyperparameters(config.hyperparameters),
        data=training_data(folder, dataset, config.hyperparameters),
        judgement=judgement_of(folder),
        epochs=config.epochs,
        seed=seed,
        trial=config.trial,
    )


def _write_bundle(output: Path, config: BundleConfig, *, model: Any, prepared: Prepared, space_file: Path, notes: list[str]) -> None:
    bundle = Bundle(output)
    save_model(model, bundle.model_file)
    with storage_errors(output):
        for file in (bundle.pipeline_file, bundle.target_scaler_file):
            if (prepared.folder / file.name).is_file():
                shutil.copyfile(prepared.folder / file.name, file)
        shutil.copyfile(Path(transformers.__file__), bundle.preprocessing_file)
        if config.space.startswith("space.py:"):
            shutil.copyfile(space_file, bundle.space_file)
    write_config(bundle.config_file, config)
    unfitted = pipelines.build(config.data, {name: str(value) for name, value in config.hyperparameters.items()})
    values = {
        "config": config,
        "pipeline": _constructor_text(unfitted),
        "imports": _train_script_imports(unfitted, task=config.data.task, form=config.data.form),
        "split": split,
        "batch_size": config.hyperparameters.get("batch_size", 32),
        "is_weighted": config.hyperparameters.get("balance") == "class_weights",
        "one_hot": seedrun.wants_one_hot(model),
        "notes": notes,
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["pystring"] = repr
    for template, file in (("train.py.j2", bundle.train_file), ("card.md.j2", bundle.card_file)):
        write_text(file, templates.get_template(template).render(values))
    needed = ("tensorflow", "keras", "scikit-learn", "numpy", "pandas", "pyarrow", "pillow")
    write_text(bundle.requirements_file, "".join(f"{name}=={config.versions[name]}\n" for name in needed if name in config.versions))
    write_manifest(output)


def _constructor_text(estimator: Any, *, indent: str = "") -> str:
    """The Python expression that makes an unfitted estimator, one step a line."""
    inner = indent + "    "
    if isinstance(estimator, Pipeline):
        steps = "".join(f"{inner}({name!r}, {_constructor_text(step, indent=inner)}),\n" for name, step in estimator.steps)
        return f"Pipeline([\n{steps}{indent}])"
    if isinstance(estimator, transformers.PerChannel):
        return f"PerChannel({_constructor_text(estimator.transformer, indent=indent)}, seed={estimator.seed})"
    return " ".join(str(estimator.__repr__(N_CHAR_MAX=10**6)).split())


def _estimator_imports(estimator: Any) -> list[str]:
    """The import lines that the expression needs."""
    found = [estimator, *(value for value in estimator.get_params(deep=True).values() if hasattr(value, "get_params"))]
    names: dict[str, set[str]] = {}
    for item in found:
        module = type(item).__module__
        public = "preprocessing" if module.startswith("tuner.") else ".".join(part for part in module.split(".") if not part.startswith("_"))
        names.setdefault(public, set()).add(type(item).__name__)
    return [f"from {module} import {', '.join(sorted(classes))}" for module, classes in sorted(names.items())]


def _train_script_imports(estimator: Any, *, task: str, form: str) -> dict[str, list[str]]:
    """The import lines of train.py: of installed packages, and of what lies beside it."""
    lines = _estimator_imports(estimator)
    installed = [line for line in lines if "from preprocessing" not in line]
    installed.append("from sklearn.model_selection import train_test_split")
    if task == "regression":
        installed.append("from sklearn.preprocessing import StandardScaler as TargetScaler")
    installed += {
        "digits": ["from sklearn.datasets import load_digits"],
        "image_folder": ["from PIL import Image, ImageOps"],
    }.get(form, [])
    return {"installed": sorted(installed), "beside": [line for line in lines if "from preprocessing" in line]}


def _load_model(file: Path) -> Any:
    """Read a model; Keras's safe mode stays on, so that no code in the file runs.

    Raises:
        BundleError: It cannot be read.
    """
    try:
        return keras.models.load_model(file)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BundleError(
            f"{str(file)!r} cannot be loaded by Keras {keras.__version__}: {error}. "
            "Install the versions in the bundle's requirements.txt, or export it again."
        ) from error


def _outputs(model: Any, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Probabilities of each class, shape (rows, classes), or numbers, shape (rows, 1), whatever the model ends with."""
    raw = np.asarray(model.predict(x, batch_size=PREDICT_BATCH_ROWS, verbose=0), dtype=np.float64)
    loss = model.loss
    name = str(loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", "")))
    is_classifier = "crossentropy" in name or "focal" in name or "kl_divergence" in name
    if not is_classifier:
        return raw.reshape(len(x), -1)
    if bool(getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits", False))):
        raw = _sigmoid(raw) if raw.shape[-1] == 1 else _softmax(raw)
    return np.concatenate([1 - raw, raw], axis=1) if raw.shape[-1] == 1 else raw


def _sigmoid(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    from scipy.special import expit

    return np.asarray(expit(values))


def _softmax(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    from scipy.special import softmax

    return np.asarray(softmax(values, axis=-1))
