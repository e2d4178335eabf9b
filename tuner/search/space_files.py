"""Where the search space is that a user names: one of ours, or an object in a file of the user's. No Keras."""

from __future__ import annotations

from pathlib import Path

from search_spaces import SPACES
from tuner.errors import SpaceError, did_you_mean

__all__ = ["locate"]


def locate(name: str, *, base_dir: Path) -> tuple[Path, str] | None:
    """The file and the name of the object in it, which may be missing; None for one of ours.

    Args:
        name: A name of ours, or `FILE.py:OBJECT`.
        base_dir: Where a relative FILE is looked for.

    Raises:
        SpaceError: Neither there is.
    """
    if name in SPACES:
        return None
    file_text, separator, object_name = name.rpartition(":")
    if not separator and not name.endswith(".py"):
        raise SpaceError(
            f"Search space {name!r} is unknown. Expected one of {', '.join(SPACES)}, or FILE.py:OBJECT."
            f"{did_you_mean(name, SPACES)}"
        )
    file = base_dir / (file_text if separator else name)
    if not file.is_file():
        raise SpaceError(f"Search space file {str(file)!r} does not exist. Give --space an existing FILE.py:OBJECT.")
    return file, object_name if separator else ""
