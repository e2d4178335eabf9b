"""What a trial that ran out of memory tries instead: half the batch at half the rate. No Keras."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.records import HyperparameterValue

__all__ = ["half_batch"]


def half_batch(hyperparameters: Mapping[str, HyperparameterValue]) -> dict[str, HyperparameterValue]:
    """Half of `batch_size` and of `learning_rate`; empty for a configuration that has not both, or one row.

    Source: the linear scaling rule, Goyal et al. 2017 ("Accurate, large minibatch SGD"), section 2.1.
    """
    batch_size, rate = hyperparameters.get("batch_size"), hyperparameters.get("learning_rate")
    if not isinstance(batch_size, int) or not isinstance(rate, float) or batch_size < 2:
        return {}
    return {"batch_size": batch_size // 2, "learning_rate": rate / 2}
