"""Options of the command line: those of a search and of reading data from the configuration, those of batch jobs."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tuner.config import SearchConfig, resolve
from tuner.data.options import READ_KEYS
from tuner.errors import ConfigError

__all__ = ["config_from", "is_given", "job_options", "read_options", "search_options"]

# Options with another name, or a form that the type does not tell.
_REPEATED = ("range", "fix")


def is_given(context: click.Context, name: str) -> bool:
    """Whether the user gave this option."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def search_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each field of the configuration; its help is the field's description."""
    for name in reversed(SearchConfig.model_fields):
        if name == "data":
            command = click.argument("data", required=False)(command)
            continue
        command = _field_option(name)(command)
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path), help="YAML file with the same options as keys."
    )(command)


def read_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that decide how data is read."""
    for name in reversed(READ_KEYS):
        command = _field_option(name)(command)
    return command


def _field_option(name: str) -> Callable[..., Any]:
    field = SearchConfig.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    help_text = field.description
    if name in _REPEATED:
        return click.option(flag, name, multiple=True, metavar="NAME=VALUE", help=help_text)
    if field.annotation is bool and field.default:
        return click.option(f"--no-{flag.removeprefix('--')}", name, flag_value=False, default=True, help=help_text)
    if field.annotation is bool:
        return click.option(flag, name, is_flag=True, help=help_text)
    if name == "baseline":
        return click.option(flag, name, metavar="FILE|NAME=VALUE,...", help=help_text)
    if name == "workers":
        return click.option(flag, name, metavar="N|auto", default=field.default, show_default=True, help=help_text)
    if name == "time_limit":
        return click.option(flag, name, metavar="TIME", help=help_text)
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    kind: Any = click.Choice(choices) if choices else _scalar(field.annotation)
    shown = field.default is not None and not (choices and field.default == "auto")
    return click.option(flag, name, type=kind, default=field.default, show_default=shown, help=help_text)


def _scalar(annotation: Any) -> type:
    options = [option for option in typing.get_args(annotation) or (annotation,) if option is not type(None)]
    return typing.cast(type, options[0])


def config_from(context: click.Context, options: dict[str, Any], file: Path | None) -> SearchConfig:
    """The configuration that was asked for: flag > file > default.

    Raises:
        ConfigError: A value is not valid.
    """
    given = {name: value for name, value in options.items() if is_given(context, name)}
    for name in _REPEATED:
        if name in given:
            given[name] = dict(_pair(f"--{name}", text) for text in given[name])
    return resolve(given, file)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        example = "learning_rate=1e-4:1e-2" if option == "--range" else "optimizer=adam"
        raise ConfigError(f"{option} {text!r} is not of the form NAME=VALUE. Write it like {option} {example}")
    return name.strip(), value.strip()


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What each batch job gets."""
    rows: list[tuple[str, Any, Any, str]] = [
        ("jobs", click.IntRange(1, 10_000), 2, "Number of jobs (pods); each runs --workers of its own."),
        ("cpus", click.IntRange(min=1), 4, "Cores of each job."),
        ("gpus", click.IntRange(min=0), 0, "GPUs of each job."),
        ("memory", str, None, "Memory of each job, as 16G."),
        ("time", str, None, "Slurm: time limit of each job, as 04:00:00; it then queues again."),
        ("partition", str, None, "Slurm: partition."),
        ("account", str, None, "Slurm: account."),
        ("qos", str, None, "Slurm: quality of service."),
        ("constraint", str, None, "Slurm: features that nodes must have."),
        ("module", str, (), "Slurm: module to load; repeatable."),
        ("venv", str, None, "Slurm: virtual environment to activate; by default the one of this command."),
        ("container", str, None, "Slurm: image that Apptainer runs the workers in."),
        ("sbatch-line", str, (), "Slurm: one more #SBATCH directive, as --mail-type=END; repeatable."),
        ("image", str, None, "Kubernetes: image of this program (docs/cluster.md)."),
        ("claim", str, None, "Kubernetes: PersistentVolumeClaim that holds the run folder."),
        ("mount", str, None, "Kubernetes: where its volume appears; by default the folder that the run lies in."),
        ("secret", str, None, "Kubernetes: NAME:KEY of the secret with the database's password."),
        ("namespace", str, None, "Kubernetes: namespace; by default kubectl's own."),
    ]
    for name, kind, default, text in reversed(rows):
        # `--time` is a column of the data for `search`.
        flag = "--job-time" if name == "time" else f"--{name}"
        multiple = isinstance(default, tuple)
        command = click.option(
            flag, f"job_{name.replace('-', '_')}", type=kind, default=default, multiple=multiple, help=text
        )(command)
    return command
