"""One attribute of one object, replaced for a while: how recording gets into Keras models without a subclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Replacement"]


class Replacement:
    """A method of one object in another form, until `undo`.

    Args:
        owner: The object; its class stays as it is.
        name: The method.
        wrap: Given the present method, the one to take its place.
    """

    def __init__(self, owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._owner, self._name = owner, name
        self._previous = vars(owner).get(name)
        self._present = wrap(getattr(owner, name))
        setattr(owner, name, self._present)

    @property
    def owner(self) -> Any:
        """The object whose method is replaced."""
        return self._owner

    def undo(self) -> None:
        """Leave the object as it was, unless somebody else has replaced the method since."""
        if vars(self._owner).get(self._name) is not self._present:
            return
        delattr(self._owner, self._name)
        if self._previous is not None:
            setattr(self._owner, self._name, self._previous)
