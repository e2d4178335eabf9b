"""Fixtures that several wings share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets that lie beside the repository, not in it."""
    folder = Path(__file__).resolve().parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not beside the repository (../shared/data)")
    return folder.resolve()
