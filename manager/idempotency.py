"""A call that is repeated with its key is done once: its first answer is given again. Rules over the store; no HTTP.

The key is taken before the work and the answer is written after it. What is killed in between leaves the key taken, and the caller is told to
look for itself: the work may be done, and doing it twice is what the key was to prevent.
"""

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, select

from manager.errors import IdempotencyConflict
from manager.hidden import Hidden
from manager.store import idempotency

REMEMBERED: Final = 86_400.0
"""Seconds."""
UNDER_WAY: Final = 60.0
"""Seconds after which a call that has not answered never will."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: bytes = field(repr=False)


def take(db: Connection, account: int, key: str, request: bytes, now: float) -> Answer | None:
    """None: do the work, then `keep` its answer. `request`: a hash of method, path and body. Raises `IdempotencyConflict`."""
    db.execute(delete(idempotency).where(idempotency.c.created_at < now - REMEMBERED))
    row = db.execute(select(idempotency).where(_mine(account, key))).one_or_none()
    if row is None:
        db.execute(idempotency.insert().values(account_id=account, key=key, request=request, created_at=now))
        return None
    if bytes(row.request) != request:
        raise IdempotencyConflict("it was another request's")
    if row.status is None:
        young = now - row.created_at < UNDER_WAY
        raise IdempotencyConflict(
            "that request is still under way" if young else "that request was broken off; look whether it was done",
            retry_after=1.0 if young else None,
        )
    return Answer(row.status, row.answer.reveal())


def keep(db: Connection, account: int, key: str, answer: Answer) -> None:
    db.execute(idempotency.update().where(_mine(account, key)).values(status=answer.status, answer=Hidden(answer.content)))


def give_up(db: Connection, account: int, key: str) -> None:
    """The work was refused: the key is free again."""
    db.execute(delete(idempotency).where(_mine(account, key) & idempotency.c.status.is_(None)))


def _mine(account: int, key: str) -> ColumnElement[bool]:
    return and_(idempotency.c.account_id == account, idempotency.c.key == key)
