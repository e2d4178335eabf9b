"""A PostgreSQL database where workers on many machines meet: connections that survive its restart, and locks.

The password is never part of a URL here: libpq takes it from PGPASSWORD or from ~/.pgpass.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tuner.errors import EnvironmentFault

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

__all__ = ["Database", "check_url", "close_databases", "database_fault", "open_database", "patient", "storage_class"]

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
DRIVER = "postgresql+psycopg"
# How long a connection that was lost is tried again before the worker gives up, in seconds. Source: convention; a
# server that is updated and restarted is back within a minute or two.
PATIENCE_S = 300.0
# Longest pause between two tries.
MAX_PAUSE_S = 10.0
# How long one try to connect may take.
CONNECT_TIMEOUT_S = 10
# A holder of a lock that was silent for so long (its machine died, it is suspended) loses it: the server ends its
# session. A live one is heard every PING_S.
SILENCE_S = 60
PING_S = 15.0
# Workers and when they were last heard of, for `tuner.leases`; beside Optuna's own tables.
_WORKERS_TABLE = """
CREATE TABLE IF NOT EXISTS tuner_workers (
    token text PRIMARY KEY, study text NOT NULL, number integer NOT NULL, host text NOT NULL, job text NOT NULL,
    started timestamptz NOT NULL DEFAULT now(), beat timestamptz NOT NULL DEFAULT now(),
    steady_since timestamptz NOT NULL DEFAULT now(), trial integer, seed_index integer)
"""
# In what SQLAlchemy keeps with a connection: the checks of its transaction (`Database.fenced`).
_CHECKED = "tuner_checked"
# What a server says that will let us in later.
_PASSING = ("too many clients", "connection slots", "starting up", "shutting down", "in recovery mode")


def check_url(text: str) -> str:
    """Return the URL of a PostgreSQL database as it was given.

    Raises:
        ValueError: It is another one, or holds a password, which others could then read.
    """
    parts = urlsplit(text)
    example = "postgresql://USER@HOST:5432/DATABASE"
    if parts.scheme not in SCHEMES:
        raise ValueError(
            f"expected {example}; without the option, the study is a file in the run folder (workers on several "
            "machines need locks that only a database server has)"
        )
    if parts.password is not None or any(name in ("password", "sslpassword") for name, _ in parse_qsl(parts.query)):
        raise ValueError(
            f"a password in the URL can be read by others. Write {example}, and set the password in the environment "
            "variable PGPASSWORD or in the file ~/.pgpass (mode 600, a line HOST:PORT:DATABASE:USER:PASSWORD)"
        )
    if not parts.path.strip("/"):
        raise ValueError(f"the URL names no database: expected {example}")
    return text


def database_fault(url: str, error: BaseException) -> EnvironmentFault:
    """What went wrong with a database, and what to do."""
    lines = str(error.__cause__ or error).split("(Background on this error")[0].split()
    reason = " ".join(lines).strip().rstrip(".?")
    name = urlsplit(url).path.strip("/")
    if "version" in reason and isinstance(error, RuntimeError):
        advice = "Install the same version of this program on every machine."
    elif "password" in reason or "authentication" in reason:
        advice = (
            "Set the password in the environment variable PGPASSWORD, or in ~/.pgpass (mode 600, a line "
            "HOST:PORT:DATABASE:USER:PASSWORD)."
        )
    elif "does not exist" in reason:
        advice = f"Correct the URL, or have the database made: createdb {name}"
    elif "permission denied" in reason:
        advice = "The user needs the right to make tables there: GRANT CREATE ON SCHEMA public TO the user."
    else:
        advice = (
            f"Check host and port, and that this machine ({socket.gethostname()}) may reach them, as the workers' "
            f"machines must: psql {url!r}"
        )
    return EnvironmentFault(f"The database {url!r} cannot be used: {reason}. {advice}")


class Database:
    """One database, with Optuna's tables in it. Use `open_database`, which keeps one for the whole process.

    Args:
        url: Without a password.

    Raises:
        SQLAlchemyError: The server cannot be reached, or refuses.
        RuntimeError: Another version of Optuna made the tables.
    """

    def __init__(self, url: str) -> None:
        import sqlalchemy

        self._url = sqlalchemy.make_url(url).set(drivername=DRIVER)
        dialect: Any = self._url.get_dialect()
        self._dialect = dialect(dbapi=dialect.import_dbapi())
        self._was_connected = False
        pool = sqlalchemy.QueuePool(self._connect, pre_ping=True, pool_size=1, max_overflow=-1)
        bare = sqlalchemy.create_engine(self._url, creator=self._connect, poolclass=sqlalchemy.NullPool)
        # The first worker makes the tables while the others wait.
        with _held(bare, "tuner/schema"):
            try:
                self.storage = storage_class()(self._url.render_as_string(), {"pool": pool})
                with self.storage.engine.begin() as connection:
                    connection.exec_driver_sql(_WORKERS_TABLE)
            except BaseException:
                pool.dispose()
                raise
        # What was just read is not to keep a transaction open.
        self.storage.remove_session()
        self.engine: sqlalchemy.Engine = self.storage.engine
        # Token of the lease that this process holds.
        self.lease: str | None = None

    @contextlib.contextmanager
    def exclusive(self, what: str) -> Iterator[None]:
        """Hold a name in this database; others wait. A holder that is dead, or silent for SILENCE_S, has let go.

        If the connection is lost in between, the name is free again and the block goes on: every step in it must
        leave the study whole by itself.
        """
        with _held(self.engine, what):
            yield

    @contextlib.contextmanager
    def fenced(self, check: Callable[[sqlalchemy.Connection, bool], None]) -> Iterator[None]:
        """Have `check`, which may raise, begin every transaction of this process while the block runs.

        It is told whether the transaction is about to write or to take a lock, and then asked again if it was not
        before: a check that locks a row has the transaction wait for the disk, which one that only reads need not.
        """
        import sqlalchemy

        def begin(connection: sqlalchemy.Connection) -> None:
            connection.info[_CHECKED] = ()

        def execute(connection: sqlalchemy.Connection, cursor: object, statement: str, *_: object) -> None:
            # The check itself comes by here.
            checked, is_writing = connection.info.get(_CHECKED, ()), not _only_reads(statement)
            if is_writing not in checked and True not in checked:
                connection.info[_CHECKED] = (*checked, is_writing)
                check(connection, is_writing)

        sqlalchemy.event.listen(self.engine, "begin", begin)
        sqlalchemy.event.listen(self.engine, "before_cursor_execute", execute)
        try:
            yield
        finally:
            sqlalchemy.event.remove(self.engine, "begin", begin)
            sqlalchemy.event.remove(self.engine, "before_cursor_execute", execute)

    def _connect(self) -> Any:
        """A new connection; patient when there was one before, or the server is only busy."""
        started, pause = time.monotonic(), 0.1
        args, options = self._dialect.create_connect_args(self._url)
        while True:
            try:
                connection = self._dialect.connect(
                    *args,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    application_name="tuner",
                    options=f"-c idle_in_transaction_session_timeout={SILENCE_S}s",
                    **options,
                )
                self._was_connected = True
                return connection
            except self._dialect.loaded_dbapi.OperationalError as error:
                is_passing = self._was_connected or any(text in str(error) for text in _PASSING)
                if not is_passing or time.monotonic() - started > PATIENCE_S:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_S)


_opened: dict[str, Database] = {}
_opening = threading.Lock()


def open_database(url: str) -> Database:
    """The database of that URL; of a process there is one, which keeps a connection open.

    Raises:
        EnvironmentFault: It cannot be used.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with _opening:
            if url not in _opened:
                _opened[url] = Database(url)
            return _opened[url]
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f"For {url!r} the package psycopg is needed. Install it: pip install 'stable-cnn-tuner[postgresql]'"
        ) from error
    except (SQLAlchemyError, RuntimeError) as error:
        raise database_fault(url, error) from error


def close_databases() -> None:
    """Close the connections of this process; those that others of its threads use, when these are done."""
    while _opened:
        _, database = _opened.popitem()
        database.engine.dispose()


@contextlib.contextmanager
def _held(engine: sqlalchemy.Engine, what: str) -> Iterator[None]:
    """Hold an advisory lock of a transaction: it ends with its session, also behind a pooler, and never outlives it."""
    connection = patient(lambda: _locked(engine, what))()
    is_done = threading.Event()
    pinging = threading.Thread(target=_ping, args=(connection, is_done), daemon=True)
    pinging.start()
    try:
        yield
    finally:
        is_done.set()
        pinging.join()
        _let_go(connection)


def _locked(engine: sqlalchemy.Engine, what: str) -> sqlalchemy.Connection:
    import sqlalchemy

    connection = engine.connect()
    try:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))"), {"what": what})
    except BaseException:
        connection.close()
        raise
    return connection


def _let_go(connection: sqlalchemy.Connection) -> None:
    from sqlalchemy.exc import SQLAlchemyError

    # Lost connections have let go already.
    with contextlib.suppress(SQLAlchemyError):
        connection.commit()
    with contextlib.suppress(SQLAlchemyError):
        connection.close()


def _ping(connection: sqlalchemy.Connection, is_done: threading.Event) -> None:
    """Tell the server that the holder is alive, until it is done or the connection is lost."""
    from sqlalchemy.exc import SQLAlchemyError

    with contextlib.suppress(SQLAlchemyError):
        while not is_done.wait(PING_S):
            connection.exec_driver_sql("SELECT 1")


def patient(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call of one transaction, made again when its connection was lost; connecting has a patience of its own."""

    @functools.wraps(call)
    def made_again(*args: Any, **options: Any) -> Any:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        started, pause = time.monotonic(), 0.1
        is_repeated = False
        while True:
            try:
                return call(*args, **options)
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
                if not _is_disconnect(error) or time.monotonic() - started > PATIENCE_S:
                    raise
            except optuna.exceptions.UpdateFinishedTrialError:
                # The first try ended the trial, and only the answer was lost.
                if not is_repeated:
                    raise
                return True
            is_repeated = True
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_S)

    return made_again


def _is_disconnect(error: BaseException) -> bool:
    from sqlalchemy.exc import PendingRollbackError

    # Optuna wraps what SQLAlchemy raises, and where it takes the error of a statement for SQLite's, asks again.
    return any(
        isinstance(each, PendingRollbackError) or bool(getattr(each, "connection_invalidated", False))
        for each in (error, error.__cause__)
    )


def _only_reads(statement: str) -> bool:
    return statement.lstrip().upper().startswith("SELECT") and "pg_advisory" not in statement


@functools.cache
def storage_class() -> type[optuna.storages.RDBStorage]:
    """Optuna's storage whose calls are made again when the connection was lost. Each is one transaction."""
    from optuna.storages import RDBStorage

    names = {name for name in vars(RDBStorage) if name.startswith(("create_new", "get_", "set_"))}
    # What Optuna's cache in front of it calls too.
    names |= {"_create_new_trial", "_get_best_trial_id", "_get_trials", "_set_trial_param"}
    made_again = {name: patient(getattr(RDBStorage, name)) for name in names}
    return type("PatientStorage", (RDBStorage,), made_again)
