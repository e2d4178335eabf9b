"""A PostgreSQL server of the tests: made, started, stopped and started again on a loopback port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

PASSWORD = "not$a'secret"
# Debian keeps the programs of the server out of PATH.
_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []
# The server refuses to run as root.
_RUNNER = "nobody"


def missing() -> str:
    """Why no server can be started here; empty if one can."""
    if _program("pg_ctl") is None or _program("initdb") is None:
        return "no PostgreSQL server is installed (Debian: postgresql)"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and runuser is not installed"
    return ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, reversed(_DEBIAN))]))


class Server:
    """One server with a database of its own, in a folder that is removed at the end.

    Args:
        max_connections: As in its configuration.
        is_safe: Whether every commit reaches the disk.
    """

    def __init__(self, *, max_connections: int = 100, is_safe: bool = False) -> None:
        self._options = f"-c max_connections={max_connections} -c fsync={'on' if is_safe else 'off'}"
        # Not below pytest's own folder, which another user may not enter.
        self._root = Path(tempfile.mkdtemp(prefix="tuner-postgresql-"))
        password_file = self._root / "password"
        password_file.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self._root, password_file):
                shutil.chown(path, _RUNNER)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", self._data, "-U", "tuner", "--auth=scram-sha-256", f"--pwfile={password_file}", "-N")

    @property
    def _data(self) -> str:
        return str(self._root / "data")

    def url(self, database: str = "postgres", *, user: str = "tuner") -> str:
        """Of a database, without the password."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' {self._options}"
        self._run("pg_ctl", "-D", self._data, "-o", options, "-l", str(self._root / "log"), "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def restart(self) -> None:
        """Stop as a crash does, and start again."""
        self.stop()
        self.start()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)

    def _run(self, name: str, *arguments: str) -> None:
        program = _program(name)
        assert program is not None
        command = [program, *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", _RUNNER, "--", *command]
        # No pipe: the server would hold it open.
        with open(os.devnull, "w") as nothing:
            done = subprocess.run(command, cwd="/", stdout=nothing, stderr=subprocess.STDOUT, timeout=60, check=False)
        assert done.returncode == 0, f"{name} ended with {done.returncode}"
