"""Reads a run folder, or what an audit found, and writes one self-contained HTML page.

- `page`: what is shown, in which order; the template fills in
- `summary`: the result in sentences
- `audit`: the data and what its audit found; also a page of its own
- `curves`, `landscape`: figures of the loss, figures of the hyperparameters
- `figures`: what all figures share
- `parameters`: hyperparameters as axes: scale, order, importance
- `standings`: what the record of a trial says: band of stability, error, parts of the instability
- `tradeoff`: figure of error against instability
- `tensorboard`: the same trials as TensorBoard reads them
- `formats`: numbers, times and commands as text
"""

from __future__ import annotations

from reports.page import write_report

__all__ = ["write_report"]
