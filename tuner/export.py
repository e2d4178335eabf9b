"""Export of the best configuration of a run as one bundle."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.metadata
import io
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from sklearn.pipeline import FeatureUnion, Pipeline

import tuner
from tuner.bundle import Bundle, BundleConfig, write_config, write_manifest
from tuner.config import SearchConfig
from tuner.data import archives, audio, cache, frames, label_sets, pipelines, split, transformers
from tuner.data.cache import Prepared
from tuner.errors import BundleError, RunError
from tuner.inference import evaluate, load_model
from tuner.records import DatasetRecord, DataSpec, Outcome, SeedRun, TrialRecord
from tuner.search.context import discover_space, hyperparameters_of, judgement_of, prepared_data, training_data
from tuner.search.study import load_trials
from tuner.search.tuner import save_model
from tuner.stability.ranking import best_trial, median_seed_run
from tuner.store import RunFolder, read_json, storage_errors, write_json, write_text
from tuner.tasks import TASKS
from tuner.training import seedrun
from tuner.training.losses import wants_one_hot
from tuner.training.seedrun import Training
from tuner.training.session import configure
from tuner.wording import PROGRAM

__all__ = [
    "bundle_config",
    "export_bundle",
    "finite",
    "package_versions",
    "refuse_occupied",
    "train_configuration",
    "write_bundle",
]

logger = logging.getLogger(__name__)

# Packages whose versions a bundle names, and those of them that train.py needs.
_SCRIPT_PACKAGES = (
    "tensorflow",
    "keras",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "openpyxl",
    "pillow",
    "soundfile",
)
_PACKAGES = (*_SCRIPT_PACKAGES, "skops")


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
    refuse_occupied(output)
    record = _chosen(folder, trial)
    run = median_seed_run(record)
    dataset = folder.load_dataset()
    config = bundle_config(folder, dataset, record, run)
    model = _trained_model(folder, dataset, config, run)
    prepared = prepared_data(folder, dataset, record.hyperparameters)
    test_parts = cache.test_parts(folder.data_dir, prepared, dataset.spec)
    test = evaluate(model, test_parts, target_scaler=prepared.target_scaler)
    notes = _note_test_use(folder, run, test)
    write_bundle(
        output,
        dataclasses.replace(config, test=test),
        model=model,
        prepared=prepared,
        space_file=folder.space_file,
        data_dir=folder.data_dir,
        notes=notes,
    )
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in test.items())
    return [
        f"Bundle of trial {record.number} written to {output} ({_confirmation(record)}).",
        f"On the test part, which the search never saw: {figures}",
        *notes,
        f"Next:   {PROGRAM} predict {output} DATA -o predictions.csv",
        f"        python {output / 'train.py'} DATA   (stand-alone, without this package)",
    ]


def write_bundle(
    output: Path,
    config: BundleConfig,
    *,
    model: Any,
    prepared: Prepared,
    space_file: Path,
    data_dir: Path,
    notes: Sequence[str] = (),
) -> None:
    """Write a bundle; it appears complete or not at all.

    Args:
        output: Its folder; must not exist, or be empty.
        config: What it says of itself.
        model: Trained, plain Keras.
        prepared: Holds the fitted pipeline.
        space_file: Copied if the configuration names a space of the user's.
        data_dir: Where the data of its run lies, whose split is copied.
        notes: For the model card.

    Raises:
        RunError: The folder is not empty.
        EnvironmentFault: It cannot be written.
    """
    refuse_occupied(output)
    with _appearing_folder(output) as temporary:
        bundle = Bundle(temporary)
        save_model(model, bundle.model_file)
        for file in (bundle.pipeline_file, bundle.target_scaler_file):
            if (prepared.folder / file.name).is_file():
                shutil.copyfile(prepared.folder / file.name, file)
        shutil.copytree(
            Path(transformers.__file__).parent, bundle.preprocessing_dir, ignore=shutil.ignore_patterns("__pycache__")
        )
        if config.space.startswith("space.py:"):
            shutil.copyfile(space_file, bundle.space_file)
        write_config(bundle.config_file, config)
        _, y, rows = cache.load_raw(data_dir)
        if _is_listed(config.data):
            listing = bundle.labels_file if "labels" in config.data.reading else bundle.series_file
            files = _listed_files(config.data, cache.load_row_names(data_dir), rows)
            write_text(listing, _listed_text(y, files, config.data))
        np.savez(bundle.split_file, train=rows.train, validation=rows.validation, test=rows.test)
        for file, text in _rendered(bundle, config, model=model, num_rows=len(y), notes=notes).items():
            write_text(file, text)
        write_manifest(temporary)


def train_configuration(
    config: BundleConfig, hypermodel: Any, *, folder: RunFolder, dataset: DatasetRecord
) -> Training:
    """Train a configuration as its bundle says.

    Args:
        config: Of the bundle.
        hypermodel: A `keras_tuner.HyperModel`, which builds its model.
        folder, dataset: The run that has the data.
    """
    configure(precision=config.precision, jit=config.jit)
    return seedrun.train(
        hypermodel,
        hyperparameters_of(config.hyperparameters),
        data=training_data(folder, dataset, config.hyperparameters),
        judgement=judgement_of(folder),
        epochs=config.epochs,
        seed=config.seed,
        trial=config.trial,
        is_guarded=config.guard,
        ends_early=config.ends_early,
    )


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are numbers."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that matter to a bundle."""
    found = {"tuner": tuner.__version__}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def refuse_occupied(output: Path) -> None:
    """Refuse a folder that holds something, before the work is done.

    Raises:
        RunError: It exists and is not empty.
    """
    with storage_errors(output):
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise RunError(f"{str(output)!r} exists and is not empty. Give -o a new folder, or remove it first.")


@contextlib.contextmanager
def _appearing_folder(output: Path) -> Iterator[Path]:
    """A temporary folder that becomes `output` when the block ends without an error."""
    output = output.resolve()  # "." cannot be replaced
    with storage_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
        try:
            yield temporary
            temporary.chmod(0o755)
            os.replace(temporary, output)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _chosen(folder: RunFolder, number: int | None) -> TrialRecord:
    trials = load_trials(folder)
    chosen = best_trial(trials) if number is None else next((trial for trial in trials if trial.number == number), None)
    if chosen is None:
        known = ", ".join(str(trial.number) for trial in trials if trial.seed_runs) or "none"
        what = "No trial of this run" if number is None else f"Trial {number}"
        raise RunError(f"{what} can be exported from {str(folder.root)!r}. Finished trials: {known}.")
    if chosen.outcome is Outcome.PRUNED or chosen.outcome.is_failed or not chosen.seed_runs:
        raise RunError(f"Trial {chosen.number} has no model to export: {chosen.message or chosen.outcome.meaning}")
    return chosen


def _trained_model(folder: RunFolder, dataset: DatasetRecord, config: BundleConfig, run: SeedRun) -> Any:
    """The stored model, or the same training once more if it was not among the kept ones, or is damaged."""
    file = folder.model_file(run.trial, run.seed_index)
    if file.is_file():
        try:
            return load_model(file)
        except BundleError as error:
            logger.warning("The stored model is not used, and trained again: %s", error)
    hypermodel, _ = discover_space(folder)
    training = train_configuration(config, hypermodel, folder=folder, dataset=dataset)
    if training.model is None:
        raise RunError(
            f"Trial {run.trial} failed when it was trained again for the export: "
            f"{training.run.message or training.run.outcome.meaning}"
        )
    return training.model


def _note_test_use(folder: RunFolder, run: SeedRun, test: dict[str, float]) -> list[str]:
    """Remember what was judged on the test part; say so when it is another trial than before."""
    used = read_json(folder.test_file, dict[str, dict[str, float]]) if folder.test_file.is_file() else {}
    key = f"{run.trial}/{run.seed_index}"
    others = sorted({name.partition("/")[0] for name in used if name != key}, key=int)
    write_json(folder.test_file, used | {key: test})
    if not others:
        return []
    return [
        f"The test part was used before, for trial {', '.join(others)}: do not choose between them by their test "
        "results, or the figure is too good."
    ]


def bundle_config(folder: RunFolder, dataset: DatasetRecord, record: TrialRecord, run: SeedRun) -> BundleConfig:
    """What one seed run of a trial was trained with and what came of it; all but the test metrics."""
    config = folder.load_config()
    fresh = record.fresh_runs if record.is_confirmed else ()
    return BundleConfig(
        run=str(folder.root),
        trial=record.number,
        source=config.data,
        fingerprint=dataset.fingerprint,
        data=dataset.spec,
        space=_bundled_space(config, dataset.spec),
        hyperparameters=record.hyperparameters,
        epochs=record.kept_epochs or config.epochs,
        planned_epochs=config.epochs,
        guard=config.guard,
        # So do trials; fresh trainings do not, and one that over-fitted is planned to end where it was best.
        ends_early=run.seed_index == 0 and record.kept_epochs is None,
        precision=config.precision,
        jit=config.jit,
        seed=run.seed,
        split_seed=config.seed,
        metric=dataset.metric,
        stability_weight=config.stability_weight,
        validation=finite(run.metrics),
        test={},
        stability=run.score.stability,
        fresh_errors=tuple(each.error for each in fresh if each.error is not None),
        num_fresh_failed=sum(each.outcome.is_failed for each in fresh),
        margin=record.margin.text if record.margin else "",
        versions=package_versions(),
    )


def _confirmation(record: TrialRecord) -> str:
    if not record.is_confirmed:
        return "not confirmed on fresh seeds"
    if all(run.split_seed is not None for run in record.fresh_runs):
        return f"confirmed on {len(record.fresh_runs)} fresh splits; these are the weights of the search's own training"
    return f"confirmed on {len(record.fresh_runs)} fresh seeds; these are the weights of the median one"


def _bundled_space(config: SearchConfig, spec: DataSpec) -> str:
    """The space as the bundle names it: a user's file travels along as space.py."""
    if config.space is None:
        return spec.kind
    return f"space.py:{config.space.rpartition(':')[2]}" if ":" in config.space else config.space


def _is_listed(spec: DataSpec) -> bool:
    """Whether the bundle names each file with its target: it cannot be seen from where the file lies."""
    return spec.form == "sequence_folder" or "labels" in spec.reading


def _listed_files(spec: DataSpec, names: Sequence[str], rows: split.Split) -> list[str]:
    """The file of each sample: below DATA, or for those of parts of their own, with the whole path."""
    main = spec.reading.get("train_part")
    files = [f"{main}/{name}" if main else name for name in names]
    for part, rows_of in (("validation", rows.validation), ("test", rows.test)):
        folder = _part_folder(spec, part)
        if folder is not None:
            for row in rows_of.tolist():
                files[row] = f"{folder}/{names[row].removeprefix(f'{Path(folder).name}:')}"
    return files


def _part_folder(spec: DataSpec, part: str) -> str | None:
    """Where a part of its own lies: below DATA, or if it was named outright and DATA has parts, with the whole path."""
    beside = spec.reading.get(f"{part}_part")
    named = spec.reading.get(part)
    if named is not None and ("train_part" in spec.reading or _is_listed(spec)):
        return Path(named).resolve().as_posix()
    return named or beside


def _listed_text(y: npt.NDArray[Any], names: Sequence[str], spec: DataSpec) -> str:
    """Names and targets of the files of a folder as CSV; of several labels a column of 0 and 1 for each."""
    header: tuple[str, ...] = ("row", "target")
    cells = [(spec.class_names[code],) if spec.class_names else (code,) for code in y.tolist()] if y.ndim == 1 else y
    if spec.task == "multilabel":
        header = ("row", *spec.class_names)
    stream = io.StringIO()
    lines = [(name, *targets) for name, targets in zip(names, cells, strict=True)]
    csv.writer(stream, lineterminator="\n").writerows([header, *lines])
    return stream.getvalue()


def _rendered(
    bundle: Bundle, config: BundleConfig, *, model: Any, num_rows: int, notes: Sequence[str]
) -> dict[Path, str]:
    """Training script, model card and requirements."""
    unfitted = pipelines.build(config.data, {name: str(value) for name, value in config.hyperparameters.items()})
    values = {
        "config": config,
        "task": TASKS[config.data.task],
        "pipeline": _constructor_text(unfitted),
        "imports": _script_imports(unfitted, config.data),
        "split": split,
        "num_rows": num_rows,
        "archives": archives,
        "audio": audio,
        "is_series": config.data.form in ("long_table", "recording", "sequence_folder"),
        "is_listed": _is_listed(config.data),
        "is_table": config.data.form in ("table", "text_table"),
        "read_csv": frames.csv_options(config.data.reading),
        "has_label_lists": "label_sep" in config.data.reading,
        "label_separator": label_sets.separator_of(config.data.reading.get("label_sep", "")),
        "parts": {part: path for part in ("validation", "test") if (path := _part_folder(config.data, part))},
        "train_part": config.data.reading.get("train_part"),
        "batch_size": config.hyperparameters.get("batch_size", 32),
        "is_weighted": config.hyperparameters.get("balance") == "class_weights",
        "is_oversampled": config.hyperparameters.get("balance") == "oversample",
        "one_hot": wants_one_hot(model),
        "notes": notes,
    }
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["pystring"] = repr
    needed = [name for name in _SCRIPT_PACKAGES if name in config.versions]
    return {
        bundle.train_file: templates.get_template("train.py.j2").render(values),
        bundle.card_file: templates.get_template("card.md.j2").render(values),
        bundle.requirements_file: "".join(f"{name}=={config.versions[name]}\n" for name in needed),
    }


def _constructor_text(estimator: Any, *, indent: str = "") -> str:
    """The Python expression that makes an unfitted estimator, one step a line."""
    inner = indent + "    "
    if isinstance(estimator, Pipeline | FeatureUnion):
        steps = estimator.steps if isinstance(estimator, Pipeline) else estimator.transformer_list
        lines = [f"{inner}({name!r}, {_constructor_text(step, indent=inner)}),\n" for name, step in steps]
        return f"{type(estimator).__name__}([\n{''.join(lines)}{indent}])"
    if isinstance(estimator, transformers.PerChannel):
        inside = _constructor_text(estimator.transformer, indent=indent)
        return f"PerChannel({inside}, padding={estimator.padding!r}, seed={estimator.seed})"
    return " ".join(str(estimator.__repr__(N_CHAR_MAX=10**6)).split())


def _script_imports(estimator: Any, spec: DataSpec) -> dict[str, list[str]]:
    """The import lines of train.py: of installed packages, and of what lies beside it."""
    parts = [estimator, *(value for value in estimator.get_params(deep=True).values() if hasattr(value, "get_params"))]
    modules: dict[str, set[str]] = {"sklearn.model_selection": {"train_test_split"}}
    if spec.task == "regression":
        modules["sklearn.preprocessing"] = {"StandardScaler"}
    if spec.form == "digits":
        modules["sklearn.datasets"] = {"load_digits"}
    if spec.form == "image_folder":
        modules["PIL"] = {"Image", "ImageOps"}
    if spec.form == "audio_folder":
        modules["scipy.signal"] = {"resample_poly"}
    for part in parts:
        modules.setdefault(_public_module(type(part)), set()).add(type(part).__name__)
    lines = {module: f"from {module} import {', '.join(sorted(found))}" for module, found in sorted(modules.items())}
    beside = lines.pop("preprocessing", None)
    return {"installed": list(lines.values()), "beside": [beside] if beside else []}


def _public_module(kind: type) -> str:
    """Where the class is imported from in train.py: `sklearn.impute`, not `sklearn.impute._base`."""
    if kind.__module__.startswith("tuner."):
        return "preprocessing"
    return ".".join(part for part in kind.__module__.split(".") if not part.startswith("_"))
