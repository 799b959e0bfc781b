"""The manager's tables, and short transactions over them.

A *rule* is a plain function whose first argument is a database connection; `Store.look`, `Store.read` and `Store.write` run one in a
transaction, and nothing else of the manager touches the database. It changes nothing but the database, since it may be run twice.

    look    finds some rows by an index. SQLite: at once, in the event loop, for it waits for nobody (the write-ahead log); else as `read`
    read    whatever grows with the installation, in a thread
    write   in a thread; on the disk when it has returned. One writer at a time, in order of arrival (a limiter of its own, so that writers
            queue here and do not sleep in SQLite's busy handler); readers run beside it

A look takes 0.2 ms. In a thread it took 0.4, and as much again in the event loop, since two threads that both want the interpreter hand it
to and fro between cores: a page with two of them cost 4 to 7 ms more, and most where the machine was idle.

What is kept of secrets, and why: of a password its Argon2id verifier; of API keys, sign-ins, one-time links and recovery codes, which are
drawn at random, the SHA-256 alone, since they are only ever compared; TOTP keys sealed (`manager.seal`), since codes are computed from
them; invitations in clear, since their organizer sees them again and they open nothing by themselves; role tokens and session secrets in
clear while the session runs, since later tickets carry the secret and a relay that connects must be told every token, and erased when it
ends (SQLite's write-ahead log holds the erased pages until its next checkpoint).
"""

import fcntl
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import structlog
import trio
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeDecorator

from manager import migrations
from manager.database import BUSY_SECONDS, READERS, named_failures, open_engine, sqlite_path
from manager.errors import StoreInUse, StoreUnavailable
from manager.hidden import Hidden

TOGETHER: Final = 64
"""Writes in one transaction: a commit waits for the disk once for all of them."""

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")


class Unsigned64(TypeDecorator[int]):
    """64 bits without a sign, as eight big-endian bytes: no database has such an integer."""

    impl = LargeBinary(8)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.to_bytes(8, "big")

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> int | None:
        return None if value is None else int.from_bytes(value, "big")


class HiddenBytes(TypeDecorator[Hidden]):
    """Secret bytes: `Hidden` on this side."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Hidden | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.reveal()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Hidden | None:
        return None if value is None else Hidden(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("email", String(254), unique=True),  # normal form; null: a program's account, or a deleted one
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("password", String(200)),  # an Argon2id verifier; null: none chosen yet
    Column("password_at", Double),
    Column("totp", HiddenBytes),  # the shared key, sealed; null: none
    Column("totp_step", BigInteger, nullable=False),  # the last time step that was used: a code counts once
    Column("factor_required", Boolean, nullable=False),
    Column("features", String(1000), nullable=False),  # JSON list: what an administrator turned off
    Column("zone", String(64), nullable=False),
    Column("language", String(16), nullable=False),
    Column("created_at", Double, nullable=False),  # every time is in seconds since 1970, UTC
    Column("deleted_at", Double),
    CheckConstraint("role IN ('organizer', 'external-admin', 'internal-admin')", name="role"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("scopes", String(200), nullable=False),  # words
    Column("created_at", Double, nullable=False),
    Column("used_at", Double),
    Column("expires_at", Double),
)

logins = Table(
    "logins",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("stage", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("agent", String(200), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
    Column("proved_at", Double, nullable=False),  # the last time that the person proved who it is
    Column("challenge", HiddenBytes),  # of a passkey's ceremony under way
    Column("totp", HiddenBytes),  # a TOTP key that is shown, and not proved yet; sealed
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("credential", LargeBinary(1023), nullable=False, unique=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("name", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double),
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("digest", LargeBinary(32), primary_key=True),
)

links = Table(  # one-time links: invitation, confirmation, forgotten password
    "links",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("purpose", String(16), nullable=False),
    Column("account_id", ForeignKey("accounts.id"), index=True),
    Column("email", String(254), nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)

lockouts = Table(
    "lockouts",
    metadata,
    Column("subject", LargeBinary(32), primary_key=True),  # a hash: of an address, or of an e-mail, whether it has an account or not
    Column("failures", Integer, nullable=False),
    Column("failed_at", Double, nullable=False),
    Column("until", Double, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(4000), nullable=False),  # JSON of manager.policy.Policy
)

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("account_id", Integer),  # who did it; no foreign key: a record outlives what it speaks of
    Column("address", String(64), nullable=False),
    Column("act", String(32), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("detail", String(500), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("request", LargeBinary(32), nullable=False),  # a hash of method, path and body
    Column("status", SmallInteger),  # null: under way
    Column("answer", HiddenBytes),
    Column("created_at", Double, nullable=False),
)

meetings = Table(
    "meetings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", Integer, nullable=False),  # the meeting ID; may come back long after the end, hence no primary key
    Column("held", Integer, unique=True),  # the number again, as long as nobody else may have it
    Column("organizer_id", ForeignKey("accounts.id"), nullable=False, index=True),
    Column("title", String(200), nullable=False),
    Column("meeting_key", LargeBinary(32)),  # null: the endpoint that will host has not made it yet
    Column("invite", HiddenBytes(8), nullable=False),
    Column("state", String(16), nullable=False),
    Column("starts", String(16)),  # local time, YYYY-MM-DDTHH:MM; null: any time
    Column("zone", String(64), nullable=False),
    Column("minutes", Integer, nullable=False),
    Column("repeat", String(200), nullable=False),  # JSON of manager.calendar.Repeat, or ""
    Column("features", String(1000), nullable=False),  # JSON list: what the organizer turned off
    Column("uid", String(64), nullable=False),  # of the calendar entry
    Column("sequence", Integer, nullable=False),  # its version
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("ended_at", Double),
    CheckConstraint("state IN ('scheduled', 'open', 'ended', 'cancelled')", name="state"),
    CheckConstraint("(state IN ('ended', 'cancelled')) = (ended_at IS NOT NULL)", name="ended"),
    CheckConstraint("number BETWEEN 100000000 AND 999999999", name="number"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Unsigned64, primary_key=True),
    Column("meeting_id", ForeignKey("meetings.id"), nullable=False),
    Column("secret", HiddenBytes(32)),  # null: ended
    Column("office", BigInteger, nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("granted", Integer, nullable=False),  # how many grants there are
    Column("primary_node", String(64), nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),  # the last ticket
    Column("ended_at", Double),
    CheckConstraint("(secret IS NULL) = (ended_at IS NOT NULL)", name="erased"),
    Index("ix_sessions_meeting_id", "meeting_id"),
    Index("uq_sessions_running", "meeting_id", unique=True, sqlite_where=text("ended_at IS NULL"), postgresql_where=text("ended_at IS NULL")),
)

grants = Table(
    "grants",
    metadata,
    Column("session_id", ForeignKey("sessions.id"), primary_key=True),
    Column("participant", BigInteger, primary_key=True, autoincrement=False),  # the key: never used twice in a session
    Column("role", SmallInteger, nullable=False),
    Column("token", HiddenBytes(8)),  # null: the session has ended, or the grant was revoked
    Column("issued_at", Double, nullable=False),
    Column("admitted_at", Double),  # when the organizer let its holder in, as a relay said; null: not yet, or never
    Column("revoked_at", Double),
)

nodes = Table(
    "nodes",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("info", LargeBinary, nullable=False),  # msgpack of wire.control.NodeInfo
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)


class Store:
    """One database. `location` is a path of a SQLite file or a SQLAlchemy URL.

    Construction opens the file, with mode 0600, and brings its tables up to date. `claim`: be the one manager that serves it, since waiting
    guests and connected relays are known to one process alone; the claim dies with the process, however that dies. Short visits, such as
    `add-organizer`, claim nothing. Raises `StoreUnavailable`, `StoreInUse`, `SettingsMalformed`.
    """

    def __init__(self, location: str, *, claim: bool = False, busy_seconds: float = BUSY_SECONDS) -> None:
        path = sqlite_path(location)
        self._claim = _claim(path) if claim and path else None
        try:
            migrations.upgrade(location, busy_seconds=busy_seconds)
            self.engine = open_engine(location, busy_seconds=busy_seconds)
            self._glance = open_engine(location, busy_seconds=0.0).connect() if path else None
        except BaseException:
            self._give_up()
            raise
        self._writer = trio.CapacityLimiter(1)
        self._readers = trio.CapacityLimiter(READERS)
        self._turn = trio.Lock()
        self._waiting: deque[_Write] = deque()

    def close(self) -> None:
        """Close every connection and give up the claim."""
        if self._glance is not None:
            self._glance.close()
            self._glance.engine.dispose()
        self.engine.dispose()
        self._give_up()

    def _give_up(self) -> None:
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def read_now(self, rule: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the rule finds, in one transaction of this thread. Raises its refusals and `StoreUnavailable`."""
        with named_failures(), self.engine.connect() as db:
            return rule(db, *args, **kwargs)

    def write_now(self, rule: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the rule does, in one transaction of this thread: all of it is on the disk at return, or nothing. Raises as `read_now`."""
        with named_failures(), self.engine.execution_options(parley_write=True).begin() as db:
            return rule(db, *args, **kwargs)

    async def look(self, rule: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`read_now`, for a rule that finds a few hundred rows at most by an index. Where that cannot be done at once, in a thread."""
        await trio.lowlevel.checkpoint()
        if self._glance is not None:
            try:
                with named_failures():
                    try:
                        return rule(self._glance, *args, **kwargs)
                    finally:
                        self._glance.rollback()
            except StoreUnavailable:
                pass  # said below, where a lock of another program is waited for, too
        return await self.read(rule, *args, **kwargs)

    async def read(self, rule: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`read_now` in a thread."""
        return await self._in_thread(lambda: self.read_now(rule, *args, **kwargs), self._readers)

    async def write(self, rule: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `write_now`, in a thread; what waits meanwhile goes into one transaction together, each part whole or not at all."""
        mine = _Write(lambda db: rule(db, *args, **kwargs))
        self._waiting.append(mine)
        try:
            async with self._turn:
                if not mine.taken:
                    some = [self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))]
                    for write in some:
                        write.taken = True
                    await self._in_thread(lambda: self._write_together(some), self._writer)
        finally:
            if not mine.taken:  # cancelled in the queue
                self._waiting.remove(mine)
        if mine.error is not None:
            raise mine.error
        return mine.result  # type: ignore[no-any-return]  # of `rule`, a few lines above

    def _write_together(self, some: "list[_Write]") -> None:
        """One transaction. A rule's refusal takes back its own part; what goes wrong with the database takes back all.

        Few rules refuse, and savepoints cost a fifth of a small rule: so they are there only in a second go, after a first without was refused.
        """
        try:
            with named_failures():
                try:
                    with self.engine.execution_options(parley_write=True).begin() as db:
                        for write in some:
                            write.result = write.rule(db)
                except SQLAlchemyError:
                    raise
                except Exception:
                    if len(some) == 1:
                        raise
                    self._write_each(some)
        except Exception as error:
            for write in some:
                write.error = write.error or error
            if isinstance(error, StoreUnavailable):
                raise

    def _write_each(self, some: "list[_Write]") -> None:
        with self.engine.execution_options(parley_write=True).begin() as db:
            for write in some:
                try:
                    with db.begin_nested():
                        write.result = write.rule(db)
                except SQLAlchemyError:
                    raise
                except Exception as error:
                    write.error = error

    async def _in_thread(self, work: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=limiter)
        except StoreUnavailable as error:
            log.warning("store-unavailable", cause=str(error.cause), sentence=error.detail)
            raise


@dataclass(slots=True, eq=False)
class _Write:
    """A rule in the queue. Owned by the task that asked until it is `taken`, by the one whose turn it is then."""

    rule: Callable[[Connection], Any]
    taken: bool = False
    result: Any = None
    error: Exception | None = None


def _claim(path: Path) -> int:
    with named_failures():
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreInUse from None
    return descriptor


def next_value(db: Connection, name: str) -> int:
    """Count a counter up, from 1: it rises also across restarts."""
    row = db.execute(counters.select().where(counters.c.name == name)).one_or_none()
    value = 1 if row is None else int(row.value) + 1
    if row is None:
        db.execute(counters.insert().values(name=name, value=value))
    else:
        db.execute(counters.update().where(counters.c.name == name).values(value=value))
    return value
