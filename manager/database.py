"""How a database is opened, and what its failures are called.

SQLite: write-ahead log, `BEGIN IMMEDIATE` for writes (a deferred one could fail half-way, when its turn to write comes), foreign keys
on, `secure_delete` on so that erased tokens leave the file, and `synchronous = FULL`: with NORMAL a kill loses nothing, but a power cut
may take back the last commits, and "your meeting is scheduled" has then been said already.
PostgreSQL: the same tables by another URL; nothing but `_sqlite` below is special to one of them.

Failures become `StoreUnavailable`, with a cause for the log and never with the values that were being written.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from manager.errors import Refusal, SettingsMalformed, StoreCause, StoreUnavailable

BUSY_SECONDS: Final = 5.0
"""How long a writer waits for a program outside this one (a backup, `add-organizer`)."""
READERS: Final = 4
"""Reading transactions at once."""


def open_engine(location: str, *, busy_seconds: float = BUSY_SECONDS, foreign_keys: bool = True) -> Engine:
    """An engine whose errors show no values. `foreign_keys` off is for migrations, which rebuild tables."""
    path = sqlite_path(location)
    if path is None:
        try:
            return create_engine(location, hide_parameters=True, pool_pre_ping=True, pool_size=READERS + 1, max_overflow=2)
        except (ArgumentError, ImportError):
            raise SettingsMalformed("the store's URL names a database whose driver is not installed") from None
    with named_failures():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # the log beside it takes over its mode
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
    engine = create_engine(
        f"sqlite:///{path}", hide_parameters=True, pool_size=READERS + 1, max_overflow=2, connect_args={"timeout": busy_seconds}
    )
    _sqlite(engine, foreign_keys)
    return engine


def _sqlite(engine: Engine, foreign_keys: bool) -> None:
    """What SQLite has to be told on each connection, and how its transactions begin."""

    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        assert isinstance(connection, sqlite3.Connection)  # the URL says so
        connection.isolation_level = None  # `begin` below, and not the driver, begins transactions
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def begin(db: Connection) -> None:
        connection = db.connection.dbapi_connection
        assert isinstance(connection, sqlite3.Connection)  # not by way of `db`: this is half of what a small read costs there
        connection.execute("BEGIN IMMEDIATE" if db.get_execution_options().get("parley_write") else "BEGIN")


def sqlite_path(location: str) -> Path | None:
    """The file behind a location, None if another kind of database is. Raises `SettingsMalformed`."""
    if "://" not in location:
        return Path(location).absolute()
    try:
        url = make_url(location)
    except ArgumentError:
        raise SettingsMalformed("the store is neither a path nor a URL of a database") from None
    return Path(url.database or "").absolute() if url.get_backend_name() == "sqlite" else None


_SQLITE_CAUSES: Final = {
    sqlite3.SQLITE_BUSY: StoreCause.LOCKED,
    sqlite3.SQLITE_LOCKED: StoreCause.LOCKED,
    sqlite3.SQLITE_FULL: StoreCause.FULL,
    sqlite3.SQLITE_READONLY: StoreCause.READ_ONLY,
    sqlite3.SQLITE_PERM: StoreCause.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: StoreCause.UNREACHABLE,
    sqlite3.SQLITE_CORRUPT: StoreCause.DAMAGED,
    sqlite3.SQLITE_NOTADB: StoreCause.DAMAGED,
}


_POSTGRES_CAUSES: Final = {
    "08": StoreCause.UNREACHABLE,  # by the class of its SQLSTATE
    "28": StoreCause.UNREACHABLE,
    "3D": StoreCause.UNREACHABLE,
    "40": StoreCause.LOCKED,
    "53": StoreCause.FULL,
    "55": StoreCause.LOCKED,
    "57": StoreCause.UNREACHABLE,
    "XX": StoreCause.DAMAGED,
    "25006": StoreCause.READ_ONLY,
    "42501": StoreCause.READ_ONLY,
    "53300": StoreCause.UNREACHABLE,
}


@contextmanager
def named_failures() -> Iterator[None]:
    """What goes wrong inside leaves as a refusal: of a rule as it is, of the database or the disk as `StoreUnavailable`."""
    try:
        yield
    except (Refusal, AssertionError):
        raise
    except DBAPIError as error:
        raise StoreUnavailable(_cause(error)) from None
    except PoolTimeout:
        raise StoreUnavailable(StoreCause.LOCKED) from None
    except SQLAlchemyError:
        raise StoreUnavailable(StoreCause.FAILED) from None
    except sqlite3.Error as error:
        raise StoreUnavailable(_cause(error)) from None
    except PermissionError:
        raise StoreUnavailable(StoreCause.READ_ONLY) from None
    except OSError as error:
        raise StoreUnavailable(StoreCause.FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreCause.UNREACHABLE) from None


def _cause(error: BaseException) -> StoreCause:
    """By the database's code. A failure may bring others behind it (a savepoint that is gone already): the first one counts."""
    cause = StoreCause.FAILED
    at: BaseException | None = error
    while at is not None:
        origin = getattr(at, "orig", at)
        code, state = getattr(origin, "sqlite_errorcode", None), getattr(origin, "sqlstate", None)
        if isinstance(code, int):
            cause = _SQLITE_CAUSES.get(code & 0xFF, cause)
        elif isinstance(state, str):
            cause = _POSTGRES_CAUSES.get(state, _POSTGRES_CAUSES.get(state[:2], cause))
        elif isinstance(at, OperationalError):
            cause = StoreCause.UNREACHABLE  # no answer, hence no state
        at = at.__context__
    return cause
