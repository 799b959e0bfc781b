"""The audit log: every sign-in and every administrative act. Append-only and hash-chained. Rules over the store; no HTTP.

Each record's digest covers the record and the digest before it, so nothing can be changed, taken out or put between without `verify`
naming the place; the database itself refuses to change or delete a record, too. What a chain cannot show is that its end was cut off: note
its head now and then (`parley manager audit`), and `verify` against it.

A record is written in the transaction of the act that it tells: neither is there without the other. It names people by their account's
number, never by name or e-mail, so that a deleted account leaves no trace of a person in what must not be changed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, select, text

from manager.errors import AuditBroken
from manager.store import audit

LABEL: Final = b"parley audit 1"
LISTED: Final = 100
"""Records in one list."""
START: Final = bytes(32)
"""What the first record's digest follows."""


@dataclass(frozen=True, slots=True)
class By:
    """Who acts: an account's number (None: nobody who is signed in) and the address it acts from ("": the command line)."""

    account: int | None
    address: str


@dataclass(frozen=True, slots=True)
class Record:
    """One act. `at`: seconds since 1970. `subject`: what it was done to, such as `account 17` or `meeting 123456789`."""

    number: int
    at: float
    account: int | None
    address: str
    act: str
    subject: str
    detail: str
    digest: bytes


def record(db: Connection, by: By, act: str, subject: str, now: float, detail: str = "") -> None:
    """Add a record to this transaction's chain."""
    if db.dialect.name == "postgresql":
        db.execute(text("LOCK TABLE audit IN EXCLUSIVE MODE"))  # one end of the chain at a time, until the commit; readers go on
    last = db.execute(select(audit.c.number, audit.c.digest).order_by(audit.c.number.desc()).limit(1)).one_or_none()
    number, before = (1, START) if last is None else (int(last.number) + 1, bytes(last.digest))
    made = Record(number, math.floor(now * 1000) / 1000, by.account, by.address[:64], act[:32], subject[:64], detail[:500], b"")
    db.execute(
        audit.insert().values(
            number=number,
            at=made.at,
            account_id=made.account,
            address=made.address,
            act=made.act,
            subject=made.subject,
            detail=made.detail,
            digest=chain(before, made),
        )
    )


def chain(before: bytes, made: Record) -> bytes:
    """SHA-256(label ‖ digest before ‖ the record's fields), each length-prefixed."""
    account = "" if made.account is None else str(made.account)
    fields = (str(made.number), f"{made.at:.3f}", account, made.address, made.act, made.subject, made.detail)
    parts = (LABEL, before, *(field.encode("utf-8", "surrogatepass") for field in fields))
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def records(db: Connection, before: int | None = None, most: int = LISTED) -> list[Record]:
    """The newest first; `before`: those with lower numbers alone."""
    query = select(audit).order_by(audit.c.number.desc()).limit(most)
    if before is not None:
        query = query.where(audit.c.number < before)
    return [Record(*row) for row in db.execute(query)]


def records_by(db: Connection, account: int, most: int = 1000) -> list[Record]:
    """What one account did, the newest first."""
    query = select(audit).where(audit.c.account_id == account).order_by(audit.c.number.desc()).limit(most)
    return [Record(*row) for row in db.execute(query)]


def head(db: Connection) -> tuple[int, bytes]:
    """Number and digest of the last record; to be noted elsewhere."""
    row = db.execute(select(audit.c.number, audit.c.digest).order_by(audit.c.number.desc()).limit(1)).one_or_none()
    return (0, START) if row is None else (int(row.number), bytes(row.digest))


def verify(db: Connection, noted: Iterable[tuple[int, bytes]] = ()) -> int:
    """How many records there are, after recomputing them all; `noted`: heads that were noted before. Raises `AuditBroken`."""
    expected = dict(noted)
    before, number = START, 0
    if expected.get(0, START) != START:
        raise AuditBroken("record 0 is not the one that was noted")
    for row in db.execution_options(yield_per=1000).execute(select(audit).order_by(audit.c.number)):
        made = Record(*row)
        number += 1
        if made.number != number:
            raise AuditBroken(f"record {number} is missing")
        if chain(before, made) != made.digest:
            raise AuditBroken(f"record {number} was changed")
        if expected.get(number, made.digest) != made.digest:
            raise AuditBroken(f"record {number} is not the one that was noted")
        before = made.digest
    if expected and max(expected) > number:
        raise AuditBroken(f"record {number + 1} is missing")
    return number
