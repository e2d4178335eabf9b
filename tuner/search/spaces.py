"""Finds a search space by name or FILE.py:OBJECT, learns its hyperparameters, and lists them."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import logging
import sys
import sysconfig
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import keras
import keras_tuner
from keras_tuner.engine import hyperparameters as kinds

from search_spaces import SPACES
from tuner.data import pipelines
from tuner.errors import SpaceError
from tuner.records import DataSpec
from tuner.search import space_files
from tuner.search.machine import available_memory_bytes
from tuner.search.ranges import apply_ranges, is_possible, value_text
from tuner.training.memory import bounded_weights
from tuner.training.seedrun import require_compiled

__all__ = ["SpaceRow", "apply_ranges", "build_model", "describe", "discover", "follows_shape", "load", "names"]

_LOG = logging.getLogger(__name__)

# Builds that finding the conditional hyperparameters may take. Source: one for each conditional scope; a network of 30
# conditional layers has 30. Beyond it the rest is found during the search, as Keras Tuner does.
MAX_DISCOVERY_BUILDS = 100
# An Int that ends here or below is taken for a count of layers. Source: convention; widths start at 16 or more.
MAX_COUNT = 15

# Chosen values by name to what a space may be told of the data.
_FactsOf = Callable[[Mapping[str, Any]], dict[str, object]]


class PreprocessingChoice(Protocol):
    """One option of the preprocessing, as `tuner.data.choices.Choice` has it."""

    @property
    def name(self) -> str:
        """Of the hyperparameter."""

    @property
    def values(self) -> tuple[str, ...]:
        """All of them."""

    @property
    def default(self) -> str:
        """One of the values."""


@dataclass(frozen=True)
class SpaceRow:
    """One hyperparameter for a table, or for JSON.

    Attributes:
        type: `float`, `int`, `choice`, `boolean` or `fixed`.
        range: In words, as `--range` takes it: `0.0001:0.03`, `adam,sgd`.
        scale: `linear`, `log`, `reverse_log`, or empty where there is none.
        low, high: Bounds of a float or int, else None.
        values: All values of a choice, boolean or fixed one, else empty.
        active_when: `num_blocks=2,3,4 and ...`; empty if always.
    """

    name: str
    type: str
    range: str
    scale: str
    default: bool | int | float | str
    active_when: str
    low: float | None = None
    high: float | None = None
    values: tuple[bool | int | float | str, ...] = ()


def names() -> list[str]:
    """The names of the spaces that come with the program."""
    return list(SPACES)


def load(space: str | None, spec: DataSpec, *, num_train: int, epochs: int, base_dir: Path) -> Any:
    """Find a search space and make it fit the data.

    A class gets those of `input_shape`, `vocabulary_size` (of text, else 0), `task`, `num_classes`, `num_train` and
    `epochs` that its constructor names; a function gets them after `hp`. Some choices of the preprocessing change the
    shape of a sample: a class or function that asks for the shape gets, for each configuration, the one that results.
    The folder of a user's file is searched for its own imports.

    Args:
        space: A name, `FILE.py:OBJECT`, or None for the kind's own space.
        spec: How the data was read.
        num_train: Samples in the training part.
        epochs: Budget of one training.
        base_dir: Where a relative FILE is looked for.

    Returns:
        A `keras_tuner.HyperModel`.

    Raises:
        SpaceError: Unknown name, missing file or object, a file that fails to import, an object of the wrong type.
    """

    def facts_of(values: Mapping[str, Any]) -> dict[str, object]:
        params = {key: str(value) for key, value in values.items()}
        return {
            "input_shape": pipelines.output_shape(spec, params),
            "vocabulary_size": pipelines.vocabulary_size(spec, params),
            "task": spec.task,
            "num_classes": spec.num_classes,
            "num_train": num_train,
            "epochs": epochs,
        }

    name = space or spec.kind
    place = space_files.locate(name, base_dir=base_dir)
    if place is None:
        return _fitted(SPACES[name], facts_of, name=name)
    file, object_name = place
    found = _attribute(_imported(file), object_name, file=file)
    return found if isinstance(found, keras_tuner.HyperModel) else _fitted(found, facts_of, name=name)


def follows_shape(hypermodel: Any) -> bool:
    """Whether a space that `load` returned fits its models to the shape that a configuration's preprocessing gives."""
    return isinstance(hypermodel, _FittedSpace)


class _FittedSpace(keras_tuner.HyperModel):
    """A class or function made anew for every shape of the samples."""

    def __init__(self, make: Callable[[Mapping[str, object]], Any], facts_of: _FactsOf) -> None:
        super().__init__()
        self._make = make
        self._facts_of = facts_of
        self._made: dict[tuple[object, ...], Any] = {}
        self._at({})

    def _at(self, values: Mapping[str, Any]) -> Any:
        facts = self._facts_of(values)
        key = tuple(facts.values())
        if key not in self._made:
            self._made[key] = self._make(facts)
        return self._made[key]

    def build(self, hp: Any) -> Any:
        return self._at(hp.values).build(hp)

    def declare_hyperparameters(self, hp: Any) -> None:
        self._at(hp.values).declare_hyperparameters(hp)

    def fit(self, hp: Any, model: Any, *args: Any, **fit_kwargs: Any) -> Any:
        return self._at(hp.values).fit(hp, model, *args, **fit_kwargs)


def _fitted(found: Any, facts_of: _FactsOf, *, name: str) -> Any:
    """A class or function as a HyperModel; fitted to each shape if it asks for the shape."""

    def make(facts: Mapping[str, object]) -> Any:
        return _as_hypermodel(found, facts, name=name)

    is_space = _is_function(found) or (inspect.isclass(found) and issubclass(found, keras_tuner.HyperModel))
    asks = is_space and "input_shape" in inspect.signature(found).parameters
    return _FittedSpace(make, facts_of) if asks else make(facts_of({}))


def _imported(file: Path) -> ModuleType:
    """Execute a Python file as a module of a name of its own."""
    resolved = file.resolve()
    module_name = f"tuner_user_space_{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}"
    module_spec = importlib.util.spec_from_file_location(module_name, resolved)
    if module_spec is None or module_spec.loader is None:
        raise SpaceError(f"Search space file {str(file)!r} is no Python file. Expected FILE.py:OBJECT.")
    module = importlib.util.module_from_spec(module_spec)
    if str(resolved.parent) not in sys.path:
        sys.path.append(str(resolved.parent))
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything; a script may call sys.exit
        del sys.modules[module_name]
        raise SpaceError(
            f"Search space file {str(file)!r} cannot be imported: {_described(error, files=[resolved])}. "
            "Mend it, then run the same command again."
        ) from error
    return module


def _attribute(module: ModuleType, name: str, *, file: Path) -> Any:
    found = vars(module)
    if name and name in found:
        return found[name]
    candidates = [known for known, value in found.items() if not known.startswith("_") and _is_candidate(value, module)]
    raise space_files.missing_object(file, name, candidates=candidates)


def _is_candidate(value: object, module: ModuleType) -> bool:
    if isinstance(value, keras_tuner.HyperModel):
        return True
    is_own = getattr(value, "__module__", None) == module.__name__
    is_space = inspect.isclass(value) and issubclass(value, keras_tuner.HyperModel)
    return is_own and (is_space or inspect.isfunction(value))


def _as_hypermodel(found: Any, facts: Mapping[str, object], *, name: str) -> Any:
    if inspect.isclass(found) and issubclass(found, keras_tuner.HyperModel):
        return _constructed(found, facts, name=name)
    if _is_function(found):
        return _FunctionSpace(found, _arguments(found, facts, name=name, is_function=True))
    kind = f"the class {found.__name__}" if inspect.isclass(found) else f"an object of type {type(found).__name__}"
    raise SpaceError(f"Search space {name!r} is {kind}. Expected {space_files.EXPECTED}.")


def _is_function(found: object) -> bool:
    return inspect.isroutine(found) or isinstance(found, functools.partial)


class _FunctionSpace(keras_tuner.HyperModel):
    """A function `build(hp)` as a HyperModel."""

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, object]) -> None:
        super().__init__()
        self._function = function
        self._arguments = dict(arguments)

    def build(self, hp: Any) -> Any:
        return self._function(hp, **self._arguments)


def _constructed(space: type[Any], facts: Mapping[str, object], *, name: str) -> Any:
    arguments = _arguments(space, facts, name=name, is_function=False)
    try:
        return space(**arguments)
    except Exception as error:  # the user's constructor may raise anything
        raise SpaceError(
            f"Search space {name!r} does not fit this data: {_described(error)}. "
            f"Choose another with --space (known: {', '.join(SPACES)}), or mend it."
        ) from error


def _arguments(
    function: Callable[..., Any], facts: Mapping[str, object], *, name: str, is_function: bool
) -> dict[str, object]:
    """Those facts that a callable names as parameters; what else it requires is an error."""
    parameters = list(inspect.signature(function).parameters.values())
    by_name = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    if is_function:
        if not parameters or parameters[0].kind == inspect.Parameter.KEYWORD_ONLY:
            raise SpaceError(f"Search space {name!r} takes no hyperparameters. Expected a function build(hp).")
        by_name = [each for each in by_name if each is not parameters[0]]
    missing = [each.name for each in by_name if each.default is each.empty and each.name not in facts]
    if missing:
        raise SpaceError(
            f"Search space {name!r} requires {', '.join(missing)}, which the program does not know. "
            f"It can give {', '.join(facts)}; give the others a default."
        )
    return {each.name: facts[each.name] for each in by_name if each.name in facts}


def discover(hypermodel: Any, preprocessing: Sequence[PreprocessingChoice]) -> Any:
    """Find all hyperparameters of a search: those of the preprocessing first, then the model's.

    The model is built once with the defaults, then once for every conditional scope that was not active so far. A scope
    that nothing can activate is left out. One more build tries the upper ends of small integers, since
    `for i in range(hp.Int("layers", 1, 3))` declares more there.

    Args:
        hypermodel: A `keras_tuner.HyperModel`.
        preprocessing: Choices of the data pipeline.

    Returns:
        A `keras_tuner.HyperParameters` whose values are the defaults.

    Raises:
        SpaceError: The space cannot be built, or has no hyperparameters.
    """
    space = kinds.HyperParameters()
    try:
        _refuse_shared_names(hypermodel, preprocessing)
        for choice in preprocessing:
            space.Choice(choice.name, list(choice.values), default=choice.default)
        hypermodel.declare_hyperparameters(space)
        with bounded_weights(available_memory_bytes()):
            unreachable = _explore(hypermodel, space)
            _try_upper_ends(hypermodel, space)
    finally:
        keras.utils.clear_session()
    kept = [hp for hp in space.space if hp.conditions not in unreachable]
    for hp in space.space:
        if hp.conditions in unreachable:
            _LOG.info("Hyperparameter %s is left out: no values make it active (%s).", hp.name, _conditions_text(hp))
    if len(kept) == len(preprocessing):
        raise SpaceError(
            "The search space has no hyperparameters. Declare some in build(hp), such as "
            'hp.Float("learning_rate", 1e-4, 1e-2, sampling="log").'
        )
    result = kinds.HyperParameters()
    result.merge(kept)
    return result


def build_model(hypermodel: Any, hp: Any) -> Any:
    """Build one model of a space, and make sure that it can be trained.

    Args:
        hypermodel: A `keras_tuner.HyperModel`.
        hp: A `keras_tuner.HyperParameters` with the values.

    Returns:
        A compiled `keras.Model`.

    Raises:
        SpaceError: `build` raised, or returned something else; it names the line of the user's code.
    """
    try:
        model = hypermodel.build(hp)
    except Exception as error:  # the user's code may raise anything
        values = ", ".join(f"{name}={value_text(value)}" for name, value in hp.values.items())
        raise SpaceError(
            f"build(hp) of the search space raised {_described(error)}. "
            f"The hyperparameters were: {values or 'none yet'}. Mend it, or exclude these values with --range."
        ) from error
    try:
        return require_compiled(model)
    except TypeError as error:
        raise SpaceError(str(error)) from error


def _refuse_shared_names(hypermodel: Any, preprocessing: Sequence[PreprocessingChoice]) -> None:
    """A model that declares a name of the preprocessing would silently be given the pipeline's value."""
    if not preprocessing:
        return
    alone = kinds.HyperParameters()
    hypermodel.declare_hyperparameters(alone)
    build_model(hypermodel, alone)
    declared = {hp.name for hp in alone.space}
    shared = [choice.name for choice in preprocessing if choice.name in declared]
    if shared:
        raise SpaceError(
            f"The search space declares {', '.join(map(repr, shared))}, which the preprocessing declares, too. "
            f"Rename it in build(hp), for example to 'model_{shared[0]}'."
        )


def _explore(hypermodel: Any, space: Any) -> list[Any]:
    """Build until every conditional scope was active or has been tried; returns the scopes that never were."""
    waiting: deque[list[Any]] = deque([[]])
    seen: list[list[Any]] = [[]]
    active: list[list[Any]] = []
    num_builds = 0
    while waiting and num_builds < MAX_DISCOVERY_BUILDS:
        scope = waiting.popleft()
        values = None if scope in active else _activating_values(space, scope)
        if values is None:
            continue
        hp = space.copy()
        hp.values = values
        build_model(hypermodel, hp)
        num_builds += 1
        space.merge(hp.space, overwrite=False)
        active += [found for found in hp.active_scopes if found not in active]
        for found in hp.inactive_scopes:
            if found not in seen:
                seen.append(found)
                waiting.append(found)
    return [scope for scope in seen if scope and scope not in active and scope not in waiting]


def _activating_values(space: Any, scope: Sequence[Any]) -> dict[str, Any] | None:
    """Values under which all conditions of a scope hold, with defaults everywhere else; None if there are none."""
    wanted: dict[str, list[Any]] = {}
    # Keras Tuner opens a scope only where its parent was declared: the conditions name every ancestor.
    for condition in scope:
        variants = [hp for hp in space.space if hp.name == condition.name]
        options = [value for value in condition.values if any(is_possible(hp, value) for hp in variants)]
        wanted[condition.name] = [value for value in options if value in wanted.get(condition.name, options)]
        if not wanted[condition.name]:
            return None
    values: dict[str, Any] = {}
    for hp in space.space:
        if hp.name not in values and all(condition.is_active(values) for condition in hp.conditions):
            options = wanted.get(hp.name, [hp.default])
            values[hp.name] = hp.default if hp.default in options else options[0]
    return values


def _try_upper_ends(hypermodel: Any, space: Any) -> None:
    """Add what the model declares at the upper ends of its small integers; a failure there is a trial's to report."""
    ends = {hp.name: hp.max_value for hp in space.space if isinstance(hp, kinds.Int) and hp.max_value <= MAX_COUNT}
    if not ends:
        return
    hp = space.copy()
    hp.values |= {name: end for name, end in ends.items() if name in hp.values}
    for each in hp.space:
        if hp.is_active(each):
            hp.values.setdefault(each.name, each.default)
    try:
        build_model(hypermodel, hp)
    except SpaceError as error:
        _LOG.info("The largest network of the space cannot be built: %s", error)
        return
    space.merge(hp.space, overwrite=False)


def _described(error: BaseException, *, files: Sequence[Path] = ()) -> str:
    """An exception with the line of the user's code that it came from."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frame = _user_frame(error, files=files)
    return f"{text.splitlines()[0]} ({frame.filename}, line {frame.lineno}: {frame.line})" if frame else text


def _user_frame(error: BaseException, *, files: Sequence[Path]) -> traceback.FrameSummary | None:
    """The innermost frame of the given files, or else of any file that is not installed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) in files]
    installed = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
    foreign = [
        frame
        for frame in frames
        if not frame.filename.startswith((*installed, "<")) and Path(frame.filename) != Path(__file__)
    ]
    return next(reversed(own or foreign), None)


def describe(space: Any) -> list[SpaceRow]:
    """List the hyperparameters of a space, in the order they were declared.

    Args:
        space: A `keras_tuner.HyperParameters`.
    """
    return [_row(hp) for hp in space.space]


def _row(hp: Any) -> SpaceRow:
    is_number = isinstance(hp, kinds.Float | kinds.Int)
    values = () if is_number else tuple(hp.values)
    steps = f" step {value_text(hp.step)}" if is_number and hp.step not in (None, 1) else ""
    bounds = f"{value_text(hp.min_value)}:{value_text(hp.max_value)}{steps}" if is_number else ""
    return SpaceRow(
        name=hp.name,
        type=type(hp).__name__.lower(),
        range=bounds or ",".join(map(value_text, values)),
        scale=hp.sampling if is_number else "",
        default=hp.default,
        active_when=_conditions_text(hp),
        low=hp.min_value if is_number else None,
        high=hp.max_value if is_number else None,
        values=values,
    )


def _conditions_text(hp: Any) -> str:
    return " and ".join(f"{each.name}={','.join(map(value_text, each.values))}" for each in hp.conditions)
