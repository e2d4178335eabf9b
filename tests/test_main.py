"""The process from its first moment on: signals while it still loads, a reader that goes away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Stands for a signal that arrives while the command line is imported.
INTERRUPTED = """
import sys
from tuner import __main__, interrupts

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "tuner.cli":
            raise {exception}

sys.meta_path.insert(0, Finder())
__main__.run()
"""
WRITING = """
import subprocess
import sys
from tuner import streams

streams.outlive_readers()
print("first", file=sys.stderr)
sys.stdin.read()  # until the reader is gone
for _ in range(3):
    print("more " * 10_000, file=sys.stderr, flush=True)
    sys.stderr.write("x")
subprocess.run([sys.executable, "-c", "import os; os.write(2, b'from a child')"], check=True)
print("done")
"""


@pytest.mark.parametrize(("exception", "code"), [("KeyboardInterrupt", 130), ("interrupts.Terminated", 143)])
def test_a_signal_while_the_program_loads_ends_it_without_a_traceback(exception: str, code: int) -> None:
    script = INTERRUPTED.format(exception=exception)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")


def test_a_program_outlives_the_reader_of_its_standard_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "first\n"
    process.stderr.close()
    process.stderr = None
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n")


def test_closed_standard_error_stays_closed() -> None:
    script = "import sys\nfrom tuner import streams\nstreams.outlive_readers()\nassert sys.stderr is None"
    done = subprocess.run(f"{sys.executable} -c '{script}' 2>&-", shell=True, cwd=ROOT, check=False)
    assert done.returncode == 0
