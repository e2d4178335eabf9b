"""The layout of an exported bundle, its manifest, and the check that nothing in it was changed. No Keras in here.

config.yaml         hyperparameters, epochs, data and pipeline settings, seeds, measured figures, versions
model.keras         the trained model, plain Keras layers
pipeline.skops      the fitted scikit-learn pipeline (target_scaler.skops beside it for regression)
preprocessing/      the transformers that scikit-learn does not have
train.py            stand-alone script that trains the configuration again
split.npz           rows of training, validation and test
series.csv          names and targets of the series, if the data is a folder of tables
labels.csv          names and targets of the files, if the data is a folder of files with a table of labels
requirements.txt    what train.py needs
README.md           model card
space.py            the user's search space, if it was one
manifest.json       sha256 of each file
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import ruamel.yaml

from tuner.config import dump_yaml
from tuner.errors import BundleError
from tuner.records import DataSpec, HyperparameterValue, JitName, PrecisionName
from tuner.store import write_text

__all__ = ["Bundle", "BundleConfig", "check_bundle", "read_config", "write_config", "write_manifest"]

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class BundleConfig:
    """Everything needed to train the configuration again, and what was measured.

    Attributes:
        run, trial: Where it comes from.
        source: Path of the data as the user gave it; None for scikit-learn's digits.
        space: Name of the search space, or FILE.py:OBJECT inside the bundle.
        hyperparameters: Of preprocessing and model.
        epochs: Of the training.
        planned_epochs: Epochs that schedules of the learning rate are made for: more, where the search found out that
            later ones over-fit; None: the same.
        seed: Of initial weights and order, of the exported weights.
        split_seed: Of the split, the search seed.
        validation, test: Metrics by name.
        stability: S of the exported training.
        fresh_errors: Validation error of each training on a fresh seed that did not fail; empty if not confirmed.
        num_fresh_failed: Trainings on fresh seeds that failed.
        margin: Stability margin in words, such as `x37`; empty if it was not measured.
        guard: Whether the training was to be rolled back at spikes, so that a repetition is, too.
        ends_early: Whether the training was to end as soon as its outcome is certain, so that a repetition does, too.
        precision, jit: How the model computes (`tuner.training.session.configure`).
    """

    run: str
    trial: int
    source: str | None
    fingerprint: str
    data: DataSpec
    space: str
    hyperparameters: dict[str, HyperparameterValue]
    epochs: int
    seed: int
    split_seed: int
    metric: str
    stability_weight: float
    validation: dict[str, float]
    test: dict[str, float]
    stability: float
    fresh_errors: tuple[float, ...] = ()
    num_fresh_failed: int = 0
    margin: str = ""
    planned_epochs: int | None = None
    guard: bool = False
    ends_early: bool = False
    precision: PrecisionName = "float32"
    jit: JitName = "auto"
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = 1


class Bundle:
    """Paths inside a bundle."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_file = root / "config.yaml"
        self.model_file = root / "model.keras"
        self.pipeline_file = root / "pipeline.skops"
        self.target_scaler_file = root / "target_scaler.skops"
        self.preprocessing_dir = root / "preprocessing"
        self.series_file = root / "series.csv"
        self.labels_file = root / "labels.csv"
        self.split_file = root / "split.npz"
        self.train_file = root / "train.py"
        self.requirements_file = root / "requirements.txt"
        self.card_file = root / "README.md"
        self.space_file = root / "space.py"
        self.manifest_file = root / MANIFEST


def write_config(file: Path, config: BundleConfig) -> None:
    """Write the configuration as YAML."""
    heading = "# Made by `python -m tuner export`. Train it again with: python -m tuner train config.yaml DATA\n"
    write_text(file, heading + dump_yaml(pydantic.TypeAdapter(BundleConfig).dump_python(config, mode="json")))


def read_config(file: Path) -> BundleConfig:
    """Read the configuration of a bundle.

    Args:
        file: `config.yaml`, or the folder of the bundle.

    Raises:
        BundleError: It is missing or not such a file.
    """
    file = file / "config.yaml" if file.is_dir() else file
    try:
        content: Any = ruamel.yaml.YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
        return pydantic.TypeAdapter(BundleConfig).validate_python(content)
    except OSError as error:
        raise BundleError(
            f"{str(file)!r} cannot be read: {error.strerror}. Give a bundle made by `python -m tuner export`, or its "
            "config.yaml."
        ) from error
    except (ruamel.yaml.error.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{str(file)!r} is not valid YAML: {error}. Export the bundle again.") from error
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'file'}: {detail['msg']}" for detail in error.errors()[:5]
        )
        raise BundleError(
            f"{str(file)!r} is not the configuration of a bundle ({problems}). Export the bundle again."
        ) from error


def write_manifest(root: Path) -> None:
    """Write the sums of all files; the last step of an export."""
    sums = {
        file.relative_to(root).as_posix(): _sha256(file)
        for file in sorted(root.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    write_text(root / MANIFEST, json.dumps({"schema_version": 1, "sha256": sums}, indent=2) + "\n")


def check_bundle(root: Path) -> Bundle:
    """Check that a bundle is complete and unchanged.

    Raises:
        BundleError: A file is missing, or does not match its sum.
    """
    if not os.path.isfile(root / MANIFEST):
        raise BundleError(
            f"{str(root)!r} is no bundle: it has no {MANIFEST}. Make one with: python -m tuner export RUN -o DIR"
        )
    try:
        sums: dict[str, str] = pydantic.TypeAdapter(dict[str, str]).validate_python(
            json.loads((root / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{str(root / MANIFEST)!r} is damaged. Export the bundle again.") from error
    missing = [name for name in sums if not (root / name).is_file()]
    changed = [name for name in sums if name not in missing and _sha256(root / name) != sums[name]]
    required = [name for name in ("config.yaml", "model.keras", "pipeline.skops") if name not in sums]
    # Files of other names, such as predictions, may be added; these two would be used.
    added = [name for name in ("target_scaler.skops", "space.py") if name not in sums and (root / name).exists()]
    problems = [f"{name} is missing" for name in missing + required]
    problems += [f"{name} was changed" for name in changed] + [f"{name} was added" for name in added]
    if problems:
        raise BundleError(f"Bundle {str(root)!r} cannot be trusted: {', '.join(problems)}. Export it again.")
    return Bundle(root)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
