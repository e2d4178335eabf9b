"""Counts in sentences: `1 row is`, `2 rows are`. Nouns and verbs are given as they stand behind many."""

from __future__ import annotations

__all__ = ["counted", "noun", "verb"]

_SINGULAR_NOUNS = {"batches": "batch", "classes": "class", "series": "series"}
_SINGULAR_VERBS = {"are": "is", "were": "was", "have": "has", "cannot": "cannot"}


def counted(number: int, nouns: str, does: str = "", *, of: int | None = None) -> str:
    """A count, what is counted, and what it does.

    Args:
        number: How many.
        nouns: In the plural; words may stand before the noun.
        does: The verb behind it, as behind many.
        of: How many there are in all, if that is to be said.

    Example:
        >>> counted(1, "empty rows"), counted(2000, "classes"), counted(1, "series", "have", of=7)
        ('1 empty row', '2,000 classes', '1 of 7 series has')
    """
    what = noun(number if of is None else of, nouns)
    return f"{number:,}{'' if of is None else f' of {of:,}'} {what}{does and f' {verb(number, does)}'}"


def noun(number: int, many: str) -> str:
    """A noun behind a count.

    Args:
        number: How many there are.
        many: The noun in the plural; words may stand before it.

    Example:
        >>> noun(1, "sounds"), noun(2, "sounds"), noun(1, "rare classes")
        ('sound', 'sounds', 'rare class')
    """
    if number != 1:
        return many
    before, space, last = many.rpartition(" ")
    return f"{before}{space}{_SINGULAR_NOUNS.get(last, last.removesuffix('s'))}"


def verb(number: int, many: str) -> str:
    """A verb behind a count.

    Args:
        number: How many do it.
        many: The verb as it stands behind many.

    Example:
        >>> verb(1, "are"), verb(2, "are"), verb(1, "hold"), verb(1, "reach")
        ('is', 'are', 'holds', 'reaches')
    """
    if number != 1:
        return many
    return _SINGULAR_VERBS.get(many, f"{many}{'es' if many.endswith(('ch', 'sh', 's', 'x')) else 's'}")
