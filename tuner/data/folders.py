"""Class folders: finding the files of each class, and reading them in threads.

Every sub-folder of the root is a class, at any depth below. What is passed over is said: hidden and system files,
files of other types, empty sub-folders, and files that cannot be read, each with its reason.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tuner.errors import DataError

__all__ = ["MAX_NAMED", "MAX_UNREADABLE_FRAC", "ClassFiles", "count", "files_below", "find", "in_threads", "unreadable"]

# What systems leave in folders; hidden files (leading dot) are passed over as well.
JUNK_NAMES = ("thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "icon\r")

# Names of folders that hold the parts of a data set rather than its classes.
PART_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}

# With a larger share of unreadable files, something else is wrong than a few damaged ones. Source: convention.
MAX_UNREADABLE_FRAC = 0.1

# At most this many files are named in a message.
MAX_NAMED = 20

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ClassFiles:
    """The files of all classes, in the order of their folders and names.

    Attributes:
        root: The folder that was given.
        files: Paths, `root` included.
        notes: What was passed over.
    """

    root: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the sub-folders with files, sorted."""
        return tuple(sorted({self.class_of(file) for file in self.files}))

    def class_of(self, file: Path) -> str:
        """Name of the class that a file belongs to."""
        return file.relative_to(self.root).parts[0]

    def codes(self, files: Sequence[Path]) -> npt.NDArray[np.int64]:
        """Class codes of those files that could be read.

        Raises:
            DataError: No file of some class could.
        """
        names = [self.class_of(file) for file in files]
        gone = sorted(set(self.class_names) - set(names))
        if gone:
            raise DataError(
                f"No file of {', '.join(map(repr, gone))} in {str(self.root)!r} can be read. Replace the files, or "
                "remove these folders."
            )
        codes = {name: code for code, name in enumerate(self.class_names)}
        return np.array([codes[name] for name in names], np.int64)

    def name_of(self, file: Path) -> str:
        """Path below the root, with forward slashes."""
        return file.relative_to(self.root).as_posix()


def find(root: Path, suffixes: tuple[str, ...], *, noun: str) -> ClassFiles:
    """All files of some types in the class folders of a folder.

    Args:
        root: Has one sub-folder for each class.
        suffixes: In lower case, with the dot.
        noun: What the files are, in the plural, for messages.

    Raises:
        DataError: There are no class folders or no such files, or fewer than two classes.
    """
    entries = sorted(root.iterdir())
    if not entries:
        raise DataError(f"Folder {str(root)!r} is empty. Expected: one sub-folder of {noun} for each class.")
    folders = [entry for entry in entries if entry.is_dir() and not _is_junk(entry.name)]
    if not folders:
        raise DataError(
            f"Folder {str(root)!r} has no sub-folders (it holds {_found(entries)}). Expected: one sub-folder of {noun} "
            "for each class, such as cats/ and dogs/; or give a single .npz, .csv, .tsv or .parquet file."
        )
    if {folder.name.lower() for folder in folders} <= PART_NAMES:
        names = ", ".join(folder.name for folder in folders)
        raise DataError(
            f"Folder {str(root)!r} holds parts of a data set ({names}), not classes. Give the one to learn from, such "
            f"as {str(folders[0])!r}; it is split into training, validation and test."
        )
    found = _find_in_classes(root, folders, [entry for entry in entries if not entry.is_dir()], suffixes, noun)
    if len(found.class_names) < 2:
        (only,) = found.class_names
        below = [entry for entry in (root / only).iterdir() if entry.is_dir() and not _is_junk(entry.name)]
        hint = f" Did you mean {str(root / only)!r}?" if below else ""
        raise DataError(
            f"{str(root)!r} has {noun} of one class only, {only!r}. A classifier needs at least two: one sub-folder "
            f"for each.{hint}"
        )
    return found


def _find_in_classes(
    root: Path, folders: list[Path], loose: list[Path], suffixes: tuple[str, ...], noun: str
) -> ClassFiles:
    files: list[Path] = []
    others, empty, num_junk = [file for file in loose if not _is_junk(file.name)], [], len(loose)
    num_junk -= len(others)
    for folder in folders:
        wanted, strange, junk = files_below(folder, suffixes)
        files += wanted
        others += strange
        num_junk += junk
        if not wanted:
            empty.append(folder.name)
    if not files:
        raise DataError(
            f"The sub-folders of {str(root)!r} hold no {noun}, but {_found(others)}. Expected: files ending in "
            f"{', '.join(suffixes)}."
        )
    notes = []
    if others:
        notes.append(
            f"{len(others):,} files that are no {noun} in a class folder were ignored: {_named(root, others)}."
        )
    if empty:
        notes.append(f"Sub-folders without {noun} were ignored: {', '.join(empty)}.")
    if num_junk:
        notes.append(f"{num_junk:,} hidden or system files were ignored.")
    return ClassFiles(root, tuple(files), tuple(notes))


def files_below(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[Path], int]:
    """Files of some types, other files, and the number of hidden and system files, at any depth."""
    wanted: list[Path] = []
    others: list[Path] = []
    num_junk = 0
    for parent, folder_names, file_names in os.walk(folder):
        folder_names[:] = sorted(name for name in folder_names if not _is_junk(name))
        for name in sorted(file_names):
            if _is_junk(name):
                num_junk += 1
            else:
                (wanted if name.lower().endswith(suffixes) else others).append(Path(parent, name))
    return wanted, others, num_junk


def count(folder: Path, suffixes: tuple[str, ...]) -> int:
    """Number of files of some types below a folder."""
    return len(files_below(folder, suffixes)[0])


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Call a function for each item; decoders let go of the interpreter while they work."""
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(function, items))


def unreadable(
    root: Path, problems: dict[Path, str], *, num_files: int, noun: str, most: float = MAX_UNREADABLE_FRAC
) -> str:
    """A note that lists the files that cannot be read, with the reasons; empty if there are none.

    Args:
        root: Files are named from here on.
        problems: Reason of each file.
        num_files: How many there are in all.
        noun: What the files are, in the plural.
        most: Largest share of them that may be left out.

    Raises:
        DataError: They are more.
    """
    if not problems:
        return ""
    lines = [
        f"  {file.relative_to(root).as_posix()}: {problem}" for file, problem in list(problems.items())[:MAX_NAMED]
    ]
    if len(problems) > MAX_NAMED:
        lines.append(f"  and {len(problems) - MAX_NAMED:,} more")
    listed = "\n".join(lines)
    if len(problems) > most * num_files:
        raise DataError(
            f"{len(problems):,} of {num_files:,} {noun} in {str(root)!r} cannot be read. Replace or remove:\n{listed}"
        )
    return f"{len(problems):,} of {num_files:,} {noun} cannot be read and were left out:\n{listed}"


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK_NAMES


def _found(files: Sequence[Path]) -> str:
    kinds = Counter(file.suffix.lower() or "no suffix" for file in files if not _is_junk(file.name))
    return ", ".join(f"{count} x {suffix}" for suffix, count in kinds.most_common(3)) or "nothing but hidden files"


def _named(root: Path, files: Sequence[Path]) -> str:
    more = f" and {len(files) - MAX_NAMED:,} more" if len(files) > MAX_NAMED else ""
    return ", ".join(file.relative_to(root).as_posix() for file in files[:MAX_NAMED]) + more
