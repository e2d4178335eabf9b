"""How our callbacks behave in anyone's training: they warn once and step aside, they never break it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["harmless"]


def harmless(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose exceptions make its object step aside for good; from then on it does nothing and returns None.

    Args:
        hook: Method of a class with `is_aside` and `step_aside(error)`.
    """

    @functools.wraps(hook)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_aside:
            return None
        try:
            return hook(self, *args, **kwargs)
        except Exception as error:
            self.step_aside(error)
            return None

    return guarded
