"""Small data sets for the tests of the audit, and what it finds in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.data.audit import audit
from tuner.data.dataset import Dataset
from tuner.data.split import Split, make_split
from tuner.records import DataSpec, Finding

NAMES = ("a", "b", "c", "d")

Array = npt.NDArray[Any]


def normal(count: int = 400, *, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(5, 2, (count, len(NAMES)))


def table(
    x: Array, y: Array, *, task: str = "classification", form: str = "table", split: Split | None = None, **fields: Any
) -> tuple[Dataset, Split]:
    class_names = tuple(map(str, range(int(y.max()) + 1))) if task == "classification" else ()
    names = NAMES if x.ndim == 2 and x.shape[1] == len(NAMES) else ()
    spec = DataSpec(form, "series", task, x.shape[1:], class_names, "y", names)
    dataset = Dataset("t", spec, x, y, tuple(f"row {row}" for row in range(len(x))), **fields)
    return dataset, split or make_split(y, task=task, seed=0)


def found(dataset: Dataset, split: Split) -> dict[str, Finding]:
    return {finding.code: finding for finding in audit(dataset, split)}
