"""Seeds: every random number of a study follows from its search seed."""

from __future__ import annotations

import numpy as np

__all__ = ["NUM_FRESH_SEEDS", "derive_seed", "fresh_split_seed"]

# Fresh trainings of each finalist. Source: convention; the fewest that show a spread and survive one accident.
NUM_FRESH_SEEDS = 3

# First step of the path to the seeds of fresh splits; no trial has this number.
_FRESH_SPLITS = 2**31 - 1


def derive_seed(search_seed: int, *path: int) -> int:
    """Seed of one part of a study, such as (trial number, seed index).

    Args:
        search_seed: The study's seed.
        path: Where in the study; different paths give independent seeds.

    Returns:
        A seed in [0, 2**31).
    """
    return int(np.random.SeedSequence(search_seed, spawn_key=path).generate_state(1)[0]) & 0x7FFF_FFFF


def fresh_split_seed(search_seed: int, seed_index: int) -> int:
    """Seed of the split that all finalists are trained on for one fresh seed, so that they compare.

    Args:
        search_seed: The study's seed.
        seed_index: From 1.
    """
    return derive_seed(search_seed, _FRESH_SPLITS, seed_index)
