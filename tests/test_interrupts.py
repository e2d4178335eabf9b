from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tuner import interrupts

IN_A_CALLBACK = """
import os, signal, sys, weakref
from tuner import interrupts

class Thing: pass

interrupts.install()
thing = Thing()
watched = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{name}))
del thing
print("went on", flush=True)
try:
    interrupts.check()
except (interrupts.Terminated, KeyboardInterrupt) as error:
    print(type(error).__name__)
"""


@pytest.fixture
def _installed() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts.install()
    yield
    interrupts.install()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("number", "exception"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, interrupts.Terminated)],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_signal_raises_at_once_and_again_when_asked(number: int, exception: type[BaseException]) -> None:
    interrupts.check()
    with pytest.raises(exception):
        os.kill(os.getpid(), number)
    with pytest.raises(exception):
        interrupts.check()
    interrupts.install()
    interrupts.check()


@pytest.mark.parametrize(("name", "raised"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")])
def test_a_signal_that_python_swallows_is_not_lost(name: str, raised: str) -> None:
    """As it happened: in the callback of a weak reference, the exception of a handler is printed and ignored."""
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK.format(name=name)], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split("\n")[:2] == ["went on", raised]
    assert "Exception ignored in" in ended.stderr
