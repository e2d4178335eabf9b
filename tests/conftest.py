"""Fixtures that several wings share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgresql


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets that lie beside the repository, not in it."""
    folder = Path(__file__).resolve().parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not beside the repository (../shared/data)")
    return folder.resolve()


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A small real search that a user typed, with what it printed; its run is `finished_run`."""
    root = tmp_path_factory.mktemp("finished")
    command = [
        sys.executable,
        "-m",
        "tuner",
        "search",
        "--trials",
        "2",
        "--epochs",
        "2",
        "--confirm",
        "1",
        "--workers",
        "1",
        "--run",
        str(root / "run"),
    ]
    return subprocess.run(
        [*command, "--json", "--events", str(root / "events.jsonl")],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="session")
def finished_run(finished_search: subprocess.CompletedProcess[str]) -> Path:
    """Run folder of a small real search (digits, two trials of two epochs). Read only: change a `finished_copy`."""
    assert finished_search.returncode in (0, 1), finished_search.stderr
    return Path(finished_search.args[finished_search.args.index("--run") + 1])


@pytest.fixture
def finished_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of `finished_run` that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "finished"))


@pytest.fixture(scope="module")
def postgresql_server() -> Iterator[postgresql.Server]:
    """A PostgreSQL of the module's own."""
    pytest.importorskip("psycopg")
    if reason := postgresql.missing():
        pytest.skip(reason)
    made = postgresql.Server()
    made.start()
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def server(postgresql_server: postgresql.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[postgresql.Server]:
    """A PostgreSQL whose password is in the environment; what a test opens in it is closed."""
    from tuner.database import close_databases

    monkeypatch.setenv("PGPASSWORD", postgresql.PASSWORD)
    yield postgresql_server
    close_databases()
