"""The search spaces as `python -m tuner spaces` lists them, preprocessing included."""

from __future__ import annotations

from pathlib import Path

from tuner.data import choices
from tuner.records import DataSpec
from tuner.search import spaces
from tuner.search.spaces import SpaceRow

__all__ = ["describe_spaces"]

# Data that the listed spaces are built for: typical sizes; a search adapts batch size and depth to its own.
_EXAMPLES = {
    "image": DataSpec("npz", "image", "classification", (32, 32, 3), tuple(map(str, range(10)))),
    "audio": DataSpec(
        "audio_folder", "audio", "classification", (8000,), tuple(map(str, range(10))), sample_rate_hz=8000
    ),
    "text": DataSpec("text_table", "text", "classification", (), tuple(map(str, range(10)))),
    "series": DataSpec("table", "series", "classification", (128,), tuple(map(str, range(10)))),
}
_NUM_TRAIN, _EPOCHS = 10_000, 20
# Classes unequal enough for every choice of the preprocessing to be offered.
_IMBALANCE = 4.0


def describe_spaces(name: str | None) -> dict[str, list[SpaceRow]]:
    """The hyperparameters of one space, or of all that come with the program, by name of the space.

    Args:
        name: A space, `FILE.py:OBJECT`, or None for all.

    Raises:
        SpaceError: There is no such space, or it cannot be built.
    """
    described = {}
    for space in [name] if name else spaces.names():
        spec = _EXAMPLES.get(space, _EXAMPLES["image"])
        hypermodel = spaces.load(space, spec, num_train=_NUM_TRAIN, epochs=_EPOCHS, base_dir=Path.cwd())
        offered = choices.offered(spec, has_missing=True, imbalance=_IMBALANCE)
        described[space] = spaces.describe(spaces.discover(hypermodel, offered))
    return described
