"""Data that lie in parts side by side, as many data sets are shared: `train/ val/ test/`, or `train.csv test.csv`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.data.folders import PART_OF_NAME, is_junk
from tuner.errors import DataError

__all__ = ["Layout", "find"]


@dataclass(frozen=True)
class Layout:
    """Where the parts of a folder lie.

    Attributes:
        root: The folder.
        parts: `train`, and `validation` or `test` or both, each a folder or a file in `root`.
        ignored: Names of what else lies in it.
    """

    root: Path
    parts: dict[str, Path]
    ignored: tuple[str, ...]

    @property
    def note(self) -> str:
        """What was found, for the user."""
        names = ", ".join(f"{self.parts[part].name} ({part})" for part in ("validation", "test") if part in self.parts)
        rest = f" Ignored: {', '.join(self.ignored)}." if self.ignored else ""
        return (
            f"{self.root.name!r} holds parts: learned from {self.parts['train'].name}, beside it {names}. To split "
            f"{self.parts['train'].name} alone, give it as DATA.{rest}"
        )


def find(root: Path, suffixes: tuple[str, ...]) -> Layout | None:
    """The parts of a folder whose sub-folders, or else whose files, are all named for one; None if it has no such ones.

    Args:
        root: A folder.
        suffixes: Of the files that may be parts.

    Raises:
        DataError: A part is there twice.
    """
    entries = sorted(entry for entry in root.iterdir() if not is_junk(entry.name))
    found = [entry for entry in entries if entry.is_dir()]
    if not found:
        found = [entry for entry in entries if entry.suffix.lower() in suffixes]
    names = [_part_of(entry) for entry in found]
    if "train" not in names or len(names) < 2 or "" in names:
        return None
    twice = [entry.name for entry, name in zip(found, names, strict=True) if names.count(name) > 1]
    if twice:
        raise DataError(
            f"{str(root)!r} holds {' and '.join(twice)}, which are the same part. One of each was expected: train, "
            "val, test. Join them, or move one away."
        )
    parts = dict(zip(names, found, strict=True))
    return Layout(root, parts, tuple(entry.name for entry in entries if entry not in found))


def _part_of(entry: Path) -> str:
    """The part that a folder or file is named for, or an empty text."""
    return PART_OF_NAME.get((entry.name if entry.is_dir() else entry.stem).lower(), "")
