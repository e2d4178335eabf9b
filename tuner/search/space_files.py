"""Where the search space is that a user names: one of ours, or an object in a file of the user's. No Keras."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from search_spaces import SPACES
from tuner.errors import SpaceError, did_you_mean

__all__ = ["EXPECTED", "locate", "missing_object", "require"]

EXPECTED = "a keras_tuner.HyperModel (class or instance) or a function build(hp)"


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


def require(name: str, *, base_dir: Path) -> None:
    """Check that there is such a search space, as far as that can be seen without running the file.

    Raises:
        SpaceError: There is no such space or file, or nothing in the file has the name of the object.
    """
    place = locate(name, base_dir=base_dir)
    if place is None:
        return
    file, object_name = place
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError, OSError):
        # Told by the import, with the line.
        return
    bound = {*_bound_names(body)}
    if "*" in bound or (object_name and object_name in bound):
        return
    definitions = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    raise missing_object(file, object_name, candidates=[name for name in definitions if not name.startswith("_")])


def missing_object(file: Path, name: str, *, candidates: list[str]) -> SpaceError:
    """The error for an object that is not in its file.

    Args:
        file: The user's.
        name: Of the object; may be empty.
        candidates: Names of what could be meant.
    """
    listed = f"It defines: {', '.join(candidates)}." if candidates else "It defines nothing that could be one."
    wrong = f"has no object {name!r}" if name else "is a file, and the object in it is missing"
    return SpaceError(
        f"Search space {str(file)!r} {wrong}. {listed}{did_you_mean(name, candidates)} "
        f"Write --space {file.name}:OBJECT, where OBJECT is {EXPECTED}."
    )


def _bound_names(body: list[ast.stmt]) -> Iterator[str]:
    """Names that statements bind, those in branches and loops included; `*` for what cannot be known."""
    for statement in body:
        for node in ast.walk(statement):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    yield name
                case ast.Name(id=name, ctx=ast.Store()):
                    yield name
                case ast.Name(id="globals" | "exec" | "setattr" | "vars"):
                    yield "*"
                case ast.Import(names=names) | ast.ImportFrom(names=names):
                    yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
                case _:
                    continue
