"""How configurations are proposed: Optuna's samplers, made a function of (search seed, trial number, attempt).

The random state of Optuna's samplers is not in its storage, so a resumed search would propose other trials.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from tuner.errors import EnvironmentFault
from tuner.search.seeds import derive_seed

__all__ = ["AlgorithmName", "Draft", "Proposal", "require_packages"]

AlgorithmName = Literal["tpe", "random", "grid", "nsga2", "cmaes", "gp", "qmc"]

# Trials of one generation of `nsga2`; Optuna's 50 is more than a whole search. Source: convention; the default of 30
# trials is three generations.
POPULATION = 10

# What Optuna's samplers import beside Optuna itself.
_PACKAGES: dict[str, tuple[str, ...]] = {"cmaes": ("cmaes",), "gp": ("torch", "scipy"), "qmc": ("scipy",)}


def require_packages(algorithm: str) -> None:
    """Check that what an algorithm needs is installed.

    Raises:
        EnvironmentFault: It is not.
    """
    missing = [name for name in _PACKAGES.get(algorithm, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentFault(
            f"The algorithm {algorithm!r} needs {' and '.join(missing)}, which is not installed. Install it where this "
            f"program runs: {sys.executable} -m pip install {' '.join(missing)}; or search with --algorithm tpe."
        )


class _Suggesting(ABC):
    """What a search space asks for values, as it asks an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of some values."""
        return self._suggest(name, CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number."""
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    @abstractmethod
    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        """A value of the distribution."""


class Proposal(_Suggesting):
    """A trial that was asked for. It suggests the values that it has, and notes them to be stored all at once.

    Attributes:
        trial: As it was when it was asked for.
        number: Of the trial.
    """

    def __init__(self, trial: FrozenTrial) -> None:
        self.trial = trial
        self.number = trial.number
        self._given: dict[str, Any] = trial.system_attrs.get("fixed_params", {}) | trial.params
        self._params: dict[str, tuple[Any, BaseDistribution]] = {}
        self._stored = {*trial.params}

    @property
    def is_given(self) -> bool:
        """Whether it has values: it was put back, or given by the user."""
        return bool(self._given)

    def give(self, params: Mapping[str, Any]) -> Proposal:
        """Have it suggest these values."""
        self._given |= params
        return self

    def new_params(self) -> dict[str, tuple[Any, BaseDistribution]]:
        """Value and distribution of what it has suggested since the last call, and was not stored before."""
        found = {name: each for name, each in self._params.items() if name not in self._stored}
        self._stored |= {*found}
        return found

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._given:
            # A parameter that a model asked for only after its trial was proposed.
            random = optuna.samplers.RandomSampler(seed=derive_seed(0, self.number, zlib.crc32(name.encode())))
            self._given[name] = (
                _only(distribution)
                if distribution.single()
                # The random sampler looks at neither study nor trial.
                else random.sample_independent(cast(Any, None), self.trial, name, distribution)
            )
        self._params[name] = self._given[name], distribution
        return self._given[name]


class Draft(_Suggesting):
    """Stands in for an Optuna trial while its configuration is drawn, so that a duplicate can be drawn again.

    Args:
        study: With the history that the sampler learns from.
        trial: The trial that the configuration is for.
        algorithm: Which sampler.
        seed: Search seed.
        attempt: 0 for the first draw; others give other random numbers.
    """

    def __init__(
        self, study: optuna.Study, trial: FrozenTrial, *, algorithm: AlgorithmName, seed: int, attempt: int
    ) -> None:
        self._study = study
        self._trial = trial
        path = (trial.number, attempt) if attempt else (trial.number,)
        self._sampler_of: Callable[..., optuna.samplers.BaseSampler] = lambda *more: _sampler(
            algorithm, derive_seed(seed, *path, *more), search_seed=seed
        )
        relative = self._sampler_of()
        self._space = relative.infer_relative_search_space(study, trial)
        self._relative = relative.sample_relative(study, trial, self._space)

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if distribution.single():
            return distribution.to_external_repr(distribution.to_internal_repr(_only(distribution)))
        if name in self._relative and _contains(distribution, self._relative[name]):
            return self._relative[name]
        # A sampler for each name: the values do not depend on the order in which they are asked for.
        sampler = self._sampler_of(zlib.crc32(name.encode()))
        return sampler.sample_independent(self._study, self._trial, name, distribution)


def _only(distribution: Any) -> Any:
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low


def _contains(distribution: Any, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return bool(distribution.low <= value <= distribution.high)


def _sampler(algorithm: AlgorithmName, seed: int, *, search_seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # group=True, which conditional spaces need, and the last two samplers are marked experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if algorithm == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
        if algorithm == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if algorithm == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        if algorithm == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
        if algorithm == "qmc":
            # One sequence for the whole search; its place in it is stored in the study.
            return optuna.samplers.QMCSampler(
                scramble=True, seed=search_seed, warn_independent_sampling=False, warn_asynchronous_seeding=False
            )
        return optuna.samplers.RandomSampler(seed=seed)
