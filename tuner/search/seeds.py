"""Seeds: every random number of a study follows from its search seed."""

from __future__ import annotations

import numpy as np

__all__ = ["derive_seed"]


def derive_seed(search_seed: int, *path: int) -> int:
    """Seed of one part of a study, such as (trial number, seed index).

    Args:
        search_seed: The study's seed.
        path: Where in the study; different paths give independent seeds.

    Returns:
        A seed in [0, 2**31).
    """
    return int(np.random.SeedSequence(search_seed, spawn_key=path).generate_state(1)[0]) & 0x7FFF_FFFF
