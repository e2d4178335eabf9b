"""What several files of these tests start in the place of a worker."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def set_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script, which runs in `tmp_path`, in the place of this program's Python."""

    def put(script: str) -> None:
        file = tmp_path / "python"
        file.write_text(f'#!/bin/sh\ncd "{tmp_path}"\n{script}\n', encoding="utf-8")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return put
