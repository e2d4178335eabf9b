"""tuner: search for a CNN that trains without loss spikes and without train/validation divergence.

The names below are loaded when they are first used, so that `import tuner` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.records import Trace
    from tuner.search.tuner import StabilityTuner
    from tuner.stability.examination import diagnose
    from tuner.stability.score import score
    from tuner.training.guard import SpikeGuard
    from tuner.training.modelcheck import check_model
    from tuner.training.monitor import StabilityMonitor

__version__ = "0.1.0"

__all__ = [
    "SpikeGuard",
    "StabilityMonitor",
    "StabilityTuner",
    "Trace",
    "__version__",
    "check_model",
    "diagnose",
    "score",
]

_HOMES = {
    "SpikeGuard": "tuner.training.guard",
    "StabilityMonitor": "tuner.training.monitor",
    "StabilityTuner": "tuner.search.tuner",
    "Trace": "tuner.records",
    "check_model": "tuner.training.modelcheck",
    "diagnose": "tuner.stability.examination",
    "score": "tuner.stability.score",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
