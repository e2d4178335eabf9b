"""What the user may set: validated once, unknown keys refused, all mistakes reported together.

The order of precedence is command line, then configuration file, then default. The resolved result is
stored in the run folder.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
import ruamel.yaml

from tuner.database import check_url
from tuner.errors import ConfigError, did_you_mean
from tuner.records import JitName, MetricName, PrecisionName

__all__ = ["RESUMABLE_KEYS", "SearchConfig", "dump_config", "dump_yaml", "load_file", "load_resolved", "resolve"]

# Options that may change when a run goes on: budgets, processes, and where the same data now lies. The others decide
# the numbers.
RESUMABLE_KEYS = ("data", "trials", "time_limit", "target_objective", "confirm", "force", "workers")

# Options of version 1 of the file; a later version keeps reading it.
SCHEMA_VERSION = 1

# Worker processes on one machine; a larger number is taken for a mistake. Source: convention.
MAX_WORKERS = 1024

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SearchConfig(pydantic.BaseModel):
    """Everything that decides a search. The field descriptions are the help texts of the command line."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    data: str | None = pydantic.Field(
        None,
        description="Folder of class folders, .npz, .csv, .tsv or .parquet; by default scikit-learn's digits.",
    )
    kind: Literal["auto", "image", "series", "text", "audio"] = pydantic.Field(
        "auto", description="Kind of data; guessed and said by default."
    )
    target: str | None = pydantic.Field(
        None, description="Target column of a table, or A,B for several labels; guessed and said by default."
    )
    task: Literal["auto", "classification", "multilabel", "regression"] = pydantic.Field(
        "auto", description="What to learn; guessed from the target and said by default."
    )
    label_sep: str | None = pydantic.Field(
        None,
        description="Separator of a column that holds several labels: one character, tab, or space. Found by default.",
    )
    labels: str | None = pydantic.Field(
        None,
        description="Table of the files of a folder and their labels; by default labels.csv among them, if any.",
    )
    image_size: int | None = pydantic.Field(
        None,
        ge=8,
        le=1024,
        description="Side in pixels to which a folder of images is resized; by default its usual size, at most 64.",
    )
    sample_rate: int | None = pydantic.Field(
        None,
        ge=1000,
        le=192_000,
        description="Rate in Hz to which sound is resampled; by default its usual rate, at most 16000.",
    )
    series_id: str | None = pydantic.Field(
        None, description="Column of a long table that says which series a row belongs to."
    )
    time: str | None = pydantic.Field(
        None, description="Column that says when a row was measured; rows are put in order."
    )
    window: int | None = pydantic.Field(
        None, ge=2, description="Cut a recording in time into windows of this many rows."
    )
    stride: int | None = pydantic.Field(
        None, ge=1, description="Rows from the start of one window to the next; by default half a window."
    )
    group: str | None = pydantic.Field(
        None,
        description="What must stay on one side of the split: a column; for files `folder`, or `part2` of their names.",
    )
    split: Literal["auto", "random", "time"] = pydantic.Field(
        "auto", description="How rows are dealt to training, validation and test; said by default."
    )
    text: str | None = pydantic.Field(
        None, description="Column of a table that holds text to learn from; A,B joins several. Found by default."
    )
    drop: str | None = pydantic.Field(None, description="Columns of a table to leave out: A,B.")
    sep: str | None = pydantic.Field(
        None, description="Separator of a table: one character, tab, or space for any run of spaces. Found by default."
    )
    decimal: Literal["auto", ".", ","] = pydantic.Field(
        "auto", description="Decimal mark of a table: . or , and found by default."
    )
    na: str | None = pydantic.Field(
        None, description="Values of a table that stand for a missing one: -200,-999,? (empty cells always do)."
    )
    encoding: str | None = pydantic.Field(
        None, description="Encoding of a table, such as cp1252 or gb18030. Found by default."
    )
    validation: str | None = pydantic.Field(
        None, description="Data to validate on, of the same form as DATA. By default 15 % of DATA."
    )
    test: str | None = pydantic.Field(
        None, description="Data for the one test at the export, of the same form as DATA. By default 15 % of DATA."
    )
    space: str | None = pydantic.Field(
        None, description="Search space: a name, or FILE.py:OBJECT; by default the kind's own."
    )
    range: dict[str, str] = pydantic.Field(
        default_factory=dict,
        description="NAME=LOW:HIGH narrows a hyperparameter; NAME=A,B,C narrows a choice. Repeatable.",
    )
    fix: dict[str, str] = pydantic.Field(
        default_factory=dict, description="NAME=VALUE fixes a hyperparameter. Repeatable."
    )
    lr_range: Literal["space", "auto"] = pydantic.Field(
        "space",
        description="Range of the learning rate: the space's own, or auto, measured by sweeps on this data.",
    )
    trials: int = pydantic.Field(30, ge=1, description="Number of configurations to try.")
    epochs: int = pydantic.Field(20, ge=1, description="Epochs of each trial.")
    time_limit: float | None = pydantic.Field(
        None,
        gt=0,
        description="Stop after this time: 90s, 30m, 2h. The running trial is put back, and the same command goes on.",
    )
    metric: Literal["auto", MetricName] = pydantic.Field(
        "auto",
        description="What to judge by: accuracy, balanced_accuracy (default from 3:1 unequal classes on); of several "
        "labels mean_average_precision (default) or macro_f1; or loss.",
    )
    objective: Literal["stable", "constrained", "pareto", "val_loss", "val_accuracy"] = pydantic.Field(
        "stable",
        description="What is minimised: error and instability together, the error among trials of stability 0.8 or "
        "more, both apart (the Pareto front), or one number alone.",
    )
    stability_weight: float = pydantic.Field(
        0.2, ge=0, le=10, description="Weight of instability in the objective `stable`."
    )
    margin_weight: float = pydantic.Field(
        0.0,
        ge=0,
        le=10,
        description="Weight of a small stability margin in the objective; above 0, each trial is swept.",
    )
    adapt: bool = pydantic.Field(
        True,
        description="Do not narrow the ranges of later trials by what made earlier ones unstable.",
    )
    algorithm: Literal["tpe", "random", "grid", "nsga2", "cmaes", "gp", "qmc"] = pydantic.Field(
        "tpe",
        description="How configurations are proposed; grid tries all combinations, of ranges without steps both ends "
        "and the middle.",
    )
    baseline: dict[str, str] = pydantic.Field(
        default_factory=dict,
        description="Your own configuration, tried after the default one: a YAML file, or NAME=VALUE,NAME=VALUE.",
    )
    target_objective: float | None = pydantic.Field(
        None, description="End the search when a trial has an objective of this or less."
    )
    pruner: Literal["asha", "hyperband", "median", "none"] = pydantic.Field(
        "asha",
        description="End trials early that others are ahead of at the same epoch; none trains all to the end.",
    )
    confirm: int = pydantic.Field(
        3, ge=0, le=100, description="Train this many finalists again on three fresh seeds each at the end; 0 for none."
    )
    guard: bool = pydantic.Field(
        False, description="Roll a training back when its loss spikes, find out why, and go on at a cured rate."
    )
    probes: bool = pydantic.Field(
        False,
        description="Record what the finer detectors need as well: size of updates, gradients by layer, dead units, "
        "recall of each class.",
    )
    precision: PrecisionName = pydantic.Field(
        "float32",
        description="Numbers that layers compute in: mixed_bfloat16 keeps the weights in float32 and computes in half "
        "the bits, faster on GPUs that have it and slower on most CPUs.",
    )
    jit: JitName = pydantic.Field(
        "auto",
        description="Compile with XLA: auto does on a GPU. Each architecture takes longer to compile, each step less.",
    )
    workers: Literal["auto"] | int = pydantic.Field(
        "auto",
        description="Worker processes: a number, or auto for one on each core, or GPU (more on a GPU with room). Only"
        " with 1 are the same trials proposed every time.",
    )
    storage: str | None = pydantic.Field(
        None,
        description="PostgreSQL database for workers on several machines: postgresql://USER@HOST/DATABASE, the password"
        " in PGPASSWORD or ~/.pgpass. By default a file in the run folder.",
    )
    seed: int = pydantic.Field(0, ge=0, lt=2**31, description="Decides split, proposals, initial weights and order.")
    force: bool = pydantic.Field(False, description="Search even if the data audit found severe faults.")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_pareto(cls, values: object) -> object:
        """The Pareto front has defaults of its own: no pruner can compare trials by two numbers."""
        if not isinstance(values, Mapping) or values.get("objective") != "pareto":
            return values
        return {"algorithm": "nsga2", "pruner": "none"} | dict(values)

    @property
    def is_pareto(self) -> bool:
        """Whether error and instability are minimised apart."""
        return self.objective == "pareto"

    @pydantic.model_validator(mode="after")
    def _no_pruner_of_pareto(self) -> SearchConfig:
        if self.is_pareto and self.pruner != "none":
            raise ValueError(
                f"objective pareto compares trials by two numbers, so no pruner can (got pruner {self.pruner!r}); "
                "leave --pruner out"
            )
        if self.is_pareto and self.algorithm in ("cmaes", "gp"):
            raise ValueError(
                f"algorithm {self.algorithm!r} minimises one number, and objective pareto has two; "
                "use nsga2, tpe, random, qmc or grid"
            )
        return self

    @pydantic.field_validator("time_limit", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value) if isinstance(value, str) else None
        return float(match[1]) * _SECONDS[match[2]] if match else value

    @pydantic.field_validator("workers", mode="before")
    @classmethod
    def _number_of_workers(cls, value: object) -> object:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*", value) else value
        if number == "auto" or (type(number) is int and 1 <= number <= MAX_WORKERS):
            return number
        raise ValueError(f"expected a number of processes from 1 to {MAX_WORKERS}, or auto")

    @pydantic.field_validator("storage")
    @classmethod
    def _storage_url(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value)

    @pydantic.field_validator("text", "drop", "na", mode="before")
    @classmethod
    def _joined(cls, value: object) -> object:
        """A list of the configuration file, or a number, as the command line would have it."""
        values = value if isinstance(value, list | tuple) else [value]
        is_plain = all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in values)
        return ",".join(map(str, values)) if is_plain else value

    @pydantic.field_validator("range", mode="before")
    @classmethod
    def _range_texts(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {name: _range_text(bounds) for name, bounds in value.items()}

    @pydantic.field_validator("baseline", mode="before")
    @classmethod
    def _baseline_texts(cls, value: object) -> object:
        return _baseline(value) if isinstance(value, str) else cls._fixed_texts(value)

    @pydantic.field_validator("fix", mode="before")
    @classmethod
    def _fixed_texts(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {name: fixed if isinstance(fixed, str) else str(fixed) for name, fixed in value.items()}


def _range_text(bounds: object) -> object:
    """`[low, high]` of numbers becomes `low:high`; a list of other values becomes `a,b,c`."""
    if not isinstance(bounds, list | tuple):
        return bounds
    numeric = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds)
    return ":".join(map(str, bounds)) if numeric and len(bounds) == 2 else ",".join(map(str, bounds))


def _baseline(text: str) -> dict[str, str]:
    """A configuration written out as `NAME=VALUE,NAME=VALUE`, or the YAML file that holds one.

    Raises:
        ValueError: It is neither.
    """
    if "=" in text and not Path(text).is_file():
        pairs = [pair.partition("=") for pair in text.split(",")]
        if all(name.strip() and equals and value.strip() for name, equals, value in pairs):
            return {name.strip(): value.strip() for name, _, value in pairs}
        raise ValueError(f"{text!r} is not of the form NAME=VALUE,NAME=VALUE")
    try:
        content = load_file(Path(text))
    except ConfigError as error:
        raise ValueError(str(error)) from error
    # The config.yaml of a bundle has the configuration one level down.
    content = content.get("hyperparameters", content)
    if not isinstance(content, dict) or not all(isinstance(value, str | int | float) for value in content.values()):
        raise ValueError(f"{text!r} must hold `name: value` lines, one for each hyperparameter")
    return {str(name): str(value).lower() if isinstance(value, bool) else str(value) for name, value in content.items()}


def resolve(flags: Mapping[str, Any], file: Path | None) -> SearchConfig:
    """Merge command line, file and defaults into one validated configuration.

    Args:
        flags: Only the options that were given on the command line, by field name.
        file: A YAML file with the same keys, or None.

    Raises:
        ConfigError: The file cannot be read, or any value is not valid; all mistakes are named at once.
    """
    values = load_file(file) if file else {}
    for name, value in flags.items():
        values[name] = _merged(values.get(name, {}), value) if isinstance(value, dict) else value
    return _validated(values, where=f"{str(file)!r} and the command line" if file else "the command line")


def load_file(file: Path) -> dict[str, Any]:
    """Read a YAML configuration file into plain values, its `space:` section spread into space, range and fix.

    Raises:
        ConfigError: It cannot be read or is not a mapping.
    """
    try:
        content = ruamel.yaml.YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"Configuration file {str(file)!r} cannot be read: {error.strerror}. Give --config an existing file."
        ) from error
    except (ruamel.yaml.error.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"Configuration file {str(file)!r} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"Configuration file {str(file)!r} must hold `key: value` lines, such as `trials: 30`.")
    content.pop("schema_version", None)
    return _spread_space(content)


def _spread_space(content: dict[str, Any]) -> dict[str, Any]:
    """`space: {name: image, learning_rate: [1e-4, 1e-2], optimizer: adam}` means space, range and fix."""
    section = content.get("space")
    if not isinstance(section, dict):
        return content
    ranges = {name: value for name, value in section.items() if name != "name" and _is_range(value)}
    fixed = {name: value for name, value in section.items() if name != "name" and not _is_range(value)}
    return content | {
        "space": section.get("name"),
        "range": _merged(ranges, content.get("range", {})),
        "fix": _merged(fixed, content.get("fix", {})),
    }


def _merged(first: object, second: object) -> object:
    """Two mappings as one, the second winning; what is no mapping stays as it is, for the validation to name."""
    if not isinstance(first, dict):
        return first
    return first | second if isinstance(second, dict) else second


def _is_range(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and (":" in value or "," in value))


def load_resolved(file: Path) -> SearchConfig:
    """Read a configuration that `dump_config` wrote."""
    return _validated(load_file(file), where=repr(str(file)))


def dump_config(config: SearchConfig) -> str:
    """The configuration as YAML text that `load_resolved`, and `--config`, read back."""
    return dump_yaml({"schema_version": SCHEMA_VERSION} | config.model_dump())


def dump_yaml(content: dict[str, Any]) -> str:
    """Plain values as readable YAML text; escaped where the readable form would not read back the same.

    YAML folds the line breaks of Unicode (U+0085 and others), which a label or path may hold.
    """
    for allow_unicode in (True, False):
        stream = io.StringIO()
        yaml = ruamel.yaml.YAML()
        yaml.default_flow_style = False
        yaml.allow_unicode = allow_unicode
        yaml.dump(content, stream)
        if ruamel.yaml.YAML(typ="safe", pure=True).load(stream.getvalue()) == content:
            break
    return stream.getvalue()


def _validated(values: Mapping[str, Any], where: str) -> SearchConfig:
    try:
        return SearchConfig.model_validate(values)
    except pydantic.ValidationError as error:
        problems = "\n".join(f"  {_describe(detail)}" for detail in error.errors())
        raise ConfigError(f"Invalid configuration in {where}:\n{problems}") from error


def _describe(detail: Any) -> str:
    """One mistake of a pydantic error as a line: the key, the value, what was expected."""
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"unknown key {name!r}.{did_you_mean(name, SearchConfig.model_fields)}"
    if name == "time_limit" and detail["type"] == "float_parsing":
        return f"time_limit: {detail['input']!r} is not a time. Write 90s, 30m, 2h or 1d."
    if name == "storage":
        # What was given may hold a password.
        return f"storage: {detail['msg']}."
    return f"{name}: {detail['msg']} (got {detail['input']!r})."
