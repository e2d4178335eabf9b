"""`python -m tuner`."""

from __future__ import annotations

import sys

from tuner import interrupts, streams

__all__ = ["run"]


def run() -> None:
    """Run the command line; Ctrl-C, SIGTERM and a terminal that goes away are met from the first moment on."""
    interrupts.install()
    streams.outlive_readers()
    try:
        # It takes some tenths of a second.
        from tuner.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    except interrupts.Terminated:
        sys.exit(143)
    main()


if __name__ == "__main__":
    run()
