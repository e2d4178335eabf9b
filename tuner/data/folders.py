"""Folders of files: finding those of each class, and reading them in threads.

Every sub-folder of the root is a class, at any depth below. What is passed over is said: hidden and system files,
files of other types, empty sub-folders, and files that cannot be read, each with its reason.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tuner import grammar
from tuner.data import room, watching
from tuner.data.labels import Labels
from tuner.errors import DataError, first_of
from tuner.grammar import counted, verb

__all__ = [
    "MAX_NAMED",
    "PART_OF_NAME",
    "ClassFiles",
    "Readable",
    "files_below",
    "find",
    "is_junk",
    "passed_over",
    "suffixes_below",
    "to_predict",
]

# What systems leave in folders; hidden files (leading dot) are passed over as well.
JUNK_NAMES = ("thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "icon\r")

# Names, in lower case, of folders and files that hold the parts of a data set rather than its classes.
PART_OF_NAME = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

# With a larger share of unreadable files, something else is wrong than a few damaged ones. Source: convention.
MAX_UNREADABLE_FRAC = 0.1

# At most this many files are named in a message.
MAX_NAMED = 20

Item = TypeVar("Item")
Result = TypeVar("Result")
Value = TypeVar("Value", bound=np.generic)


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

    @property
    def target(self) -> None:
        """No column: the folders are the classes."""
        return None

    @property
    def reading(self) -> dict[str, str]:
        """Nothing is needed to read other folders the same."""
        return {}

    def encoded(self, files: Sequence[Path]) -> Labels:
        """The classes of those files that could be read.

        Raises:
            DataError: No file of some class could.
        """
        return Labels("classification", self.codes(files), self.class_names, ())

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
    folders = [entry for entry in entries if entry.is_dir() and not is_junk(entry.name)]
    if not folders and noun == "tables":
        raise _tables_alone(root, [entry for entry in entries if entry.suffix.lower() in suffixes])
    if not folders:
        raise DataError(
            f"Folder {str(root)!r} has no sub-folders (it holds {_found(entries)}). Expected: one sub-folder of {noun} "
            "for each class, such as cats/ and dogs/; or a table labels.csv beside the files, with their names and "
            "labels (or --labels FILE); or give a single .npz, .csv, .tsv or .parquet file."
        )
    if {folder.name.lower() for folder in folders} <= PART_OF_NAME.keys():
        names = ", ".join(folder.name for folder in folders)
        raise DataError(
            f"Folder {str(root)!r} holds parts of a data set ({names}), but none to learn from. Call that one train, "
            f"or give it alone, such as {str(folders[0])!r}; it is split into training, validation and test."
        )
    found = _find_in_classes(root, folders, [entry for entry in entries if not entry.is_dir()], suffixes, noun)
    if len(found.class_names) < 2:
        (only,) = found.class_names
        below = [entry for entry in (root / only).iterdir() if entry.is_dir() and not is_junk(entry.name)]
        hint = f" Did you mean {str(root / only)!r}?" if below else ""
        raise DataError(
            f"{str(root)!r} has {noun} of one class only, {only!r}. A classifier needs at least two: one sub-folder "
            f"for each.{hint}"
        )
    return found


def _tables_alone(root: Path, files: list[Path]) -> DataError:
    """The error for tables side by side: of each, it is not known what it is."""
    first = next((file for file in files if "train" in file.stem.lower()), files[0])
    return DataError(
        f"Folder {str(root)!r} holds {counted(len(files), 'tables')} and no sub-folders: {_named(root, files)}. Give "
        f"one as DATA, such as {str(first)!r}, and others of its form with --validation and --test (or call them "
        "train, val and test). If each is one series, put them into class folders, or beside them a table of their "
        "targets that has `target` or `label` in its name."
    )


def _find_in_classes(
    root: Path, folders: list[Path], loose: list[Path], suffixes: tuple[str, ...], noun: str
) -> ClassFiles:
    files: list[Path] = []
    others, empty, num_junk = [file for file in loose if not is_junk(file.name)], [], len(loose)
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
        notes.append(f"{_no_such(len(others), noun, where=' in a class folder')} ignored: {_named(root, others)}.")
    if empty:
        notes.append(f"Sub-folders without {noun} were ignored: {', '.join(empty)}.")
    if num_junk:
        notes.append(f"{counted(num_junk, 'hidden or system files', 'were')} ignored.")
    return ClassFiles(root, tuple(files), tuple(notes))


def files_below(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], list[Path], int]:
    """Files of some types, other files, and the number of hidden and system files, at any depth."""
    wanted: list[Path] = []
    others: list[Path] = []
    num_junk = 0
    for parent, folder_names, file_names in os.walk(folder, onerror=_refuse_folder):
        folder_names[:] = sorted(name for name in folder_names if not is_junk(name))
        # Links to folders are not followed: they may lead in a circle.
        others += [Path(parent, name) for name in folder_names if os.path.islink(Path(parent, name))]
        for name in sorted(file_names):
            if is_junk(name):
                num_junk += 1
            else:
                (wanted if name.lower().endswith(suffixes) else others).append(Path(parent, name))
    return wanted, others, num_junk


def _refuse_folder(error: OSError) -> None:
    """Raise for a folder that may not be read, whose files would be missing without a word."""
    raise DataError(
        f"Folder {str(error.filename)!r} cannot be read: {error.strerror}. Change its permissions, or move it."
    ) from error


def suffixes_below(folder: Path) -> Counter[str]:
    """Number of files below a folder by suffix, in lower case."""
    return Counter(file.suffix.lower() for file in files_below(folder, ())[1])


class Readable:
    """Files, of which those that cannot be read are left out and listed; too many of them are refused.

    Attributes:
        files: Those that could be read so far.
        problems: Why each of the others could not.
    """

    def __init__(self, root: Path, files: Iterable[Path], *, noun: str) -> None:
        """Begin with all.

        Args:
            root: Files are named from here on.
            files: To be read.
            noun: What they are, in the plural, for messages.
        """
        self.files = list(files)
        self.problems: dict[Path, str] = {}
        self._root, self._noun, self._count = root, noun, len(self.files)

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the files below the root, with forward slashes."""
        return tuple(file.relative_to(self._root).as_posix() for file in self.files)

    @property
    def unreadable(self) -> dict[str, str]:
        """Why each of the other files could not be read, by its path below the root."""
        return {file.relative_to(self._root).as_posix(): problem for file, problem in self.problems.items()}

    @property
    def note(self) -> str:
        """What was left out, with the reasons; empty if nothing was."""
        return (
            f"{self._summary} cannot be read and {verb(len(self.problems), 'were')} left out:\n{self._listed}"
            if self.problems
            else ""
        )

    def each(self, function: Callable[[Path], Result | str]) -> list[Result]:
        """Results of a function for those files for which it does not return, as text, why they cannot be read.

        It is called in threads: decoders let go of the interpreter while they work.

        Raises:
            DataError: Too many files cannot be read.
        """
        with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
            results = list(self._told(pool.map(function, self.files)))
        self.leave_out({file: found for file, found in zip(self.files, results, strict=True) if isinstance(found, str)})
        return [result for result in results if not isinstance(result, str)]

    def one_by_one(self) -> Iterator[Path]:
        """The files, where each has to know what the ones before it held."""
        return self._told(iter(self.files))

    def _told(self, items: Iterator[Item]) -> Iterator[Item]:
        """One item for each file; the watcher is told when the next one is asked for."""
        total = len(self.files)
        for number, item in enumerate(items, start=1):
            yield item
            watching.tell(f"reading {self._noun}", number, total)

    def into(self, x: npt.NDArray[Value], function: Callable[[Path], npt.NDArray[Value] | str]) -> npt.NDArray[Value]:
        """The rows of an array, each filled from its start with the result of a function, as `each` calls it.

        Args:
            x: One row for each file; it is changed.
            function: Gives a sample that is no longer than a row, or the reason why it cannot.

        Raises:
            DataError: Too many files cannot be read.
        """
        row_of = {file: row for row, file in enumerate(self.files)}

        def fill(file: Path) -> int | str:
            sample = function(file)
            if isinstance(sample, str):
                return sample
            x[row_of[file], : len(sample)] = sample
            return row_of[file]

        kept = self.each(fill)
        return x if len(kept) == len(x) else room.taken(x, np.array(kept, np.int64))

    def leave_out(self, problems: Mapping[Path, str]) -> None:
        """Leave out some files.

        Args:
            problems: Why each of them cannot be read.

        Raises:
            DataError: Too many files cannot be read.
        """
        self.problems |= problems
        self.files = [file for file in self.files if file not in problems]
        if len(self.problems) > MAX_UNREADABLE_FRAC * self._count:
            raise DataError(
                f"{self._summary} in {str(self._root)!r} cannot be read. Replace or remove:\n{self._listed}"
            )

    @property
    def _summary(self) -> str:
        return counted(len(self.problems), self._noun, of=self._count)

    @property
    def _listed(self) -> str:
        lines = (f"{name}: {problem}" for name, problem in self.unreadable.items())
        return "  " + first_of(lines, most=MAX_NAMED, separator="\n  ")


def to_predict(path: Path, suffixes: tuple[str, ...], *, noun: str) -> Readable:
    """A file, or all of some types below a folder; a few that cannot be read may be left out, as in training.

    Raises:
        DataError: The folder holds no such files.
    """
    root = path if path.is_dir() else path.parent
    files = files_below(path, suffixes)[0] if path.is_dir() else [path]
    if not files:
        raise DataError(f"{str(path)!r} holds no {noun}. Expected: files ending in {', '.join(suffixes)}.")
    return Readable(root, files, noun=noun)


def passed_over(folder: Path, suffixes: tuple[str, ...], *, noun: str) -> list[str]:
    """The note on files of other types below a folder of samples to predict; none if there are no such files."""
    others = files_below(folder, suffixes)[1]
    return [f"{_no_such(len(others), noun)} ignored: {_named(folder, others)}."] if others else []


def _no_such(number: int, nouns: str, *, where: str = "") -> str:
    """The beginning of a sentence on files of other types."""
    files = f"{counted(number, 'files')} that {verb(number, 'are')} no {grammar.noun(number, nouns)}"
    return f"{files}{where} {verb(number, 'were')}"


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems leave behind."""
    return name.startswith(".") or name.lower() in JUNK_NAMES


def _found(files: Sequence[Path]) -> str:
    kinds = Counter(file.suffix.lower() or "no suffix" for file in files if not is_junk(file.name))
    return ", ".join(f"{count} x {suffix}" for suffix, count in kinds.most_common(3)) or "nothing but hidden files"


def _named(root: Path, files: Sequence[Path]) -> str:
    return first_of((file.relative_to(root).as_posix() for file in files), most=MAX_NAMED)
