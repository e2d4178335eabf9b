"""How our callbacks behave in anyone's training: they warn once and step aside, they never break it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["harmless"]


def harmless(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose exceptions make its object step aside for good; from then on it does nothing and returns None.

    Args:
        hook: Method of a class with `is_aside` and `TASK`, what it does to a training.
    """

    @functools.wraps(hook)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_aside:
            return None
        try:
            return hook(self, *args, **kwargs)
        except Exception as error:
            if not self.is_aside:
                self.is_aside = True
                warnings.warn(
                    f"{type(self).__name__} cannot {self.TASK} this training and steps aside "
                    f"({type(error).__name__}: {error}). The training goes on without it.",
                    stacklevel=2,
                )
            return None

    return guarded
