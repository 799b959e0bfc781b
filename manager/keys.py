"""API keys, and the accounts of programs that have nothing else. Rules over the store; no HTTP.

A key is 256 random bits, so its SHA-256 resists any dictionary as it is and a slow hash would buy nothing (passwords, which people
choose, are another matter). It is shown once, when it is made, and kept nowhere.
"""

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select

from manager import accounts
from manager.accounts import AccountRole
from manager.callers import ORGANIZER_SCOPES, Caller, Scope
from manager.errors import KeyRefused, OrganizerExists, OrganizerUnknown, RequestMalformed
from manager.hidden import Hidden
from manager.store import accounts as accounts_table
from manager.store import tokens

KEY_BYTES: Final = 32
MAX_KEYS: Final = 50
"""Of one account."""
USED_EVERY: Final = 60.0
"""Seconds between two notes of a key's last use: one write a minute, not one a request."""
PREFIX: Final = "parley_"
"""So that people, and scanners for leaked keys, see what it is."""
_KEY: Final = re.compile(rf"{PREFIX}([A-Za-z0-9_-]{{43}})", re.ASCII)
PROGRAM: Final = "program"
"""The name of the key that `add_organizer` makes."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is shown of a key. `expires_at`: None is never."""

    id: int
    name: str
    scopes: frozenset[Scope]
    created_at: float
    used_at: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Program:
    """An account with a key and without an e-mail address."""

    id: int
    name: str
    active: bool = True


def make_key(
    db: Connection, account: int, name: str, scopes: Iterable[Scope], now: float, expires_at: float | None = None
) -> tuple[ApiKey, Hidden]:
    """A new key, and what is shown of it from now on. Show the key itself with `key_text`, the only time. Raises `RequestMalformed`."""
    try:
        name = accounts.clean_name(name)
    except RequestMalformed as wrong:
        raise RequestMalformed(fields={"name": wrong.detail}) from None
    chosen = frozenset(scopes)
    if not chosen:
        raise RequestMalformed(fields={"scopes": "a key needs one scope at least"})
    if db.execute(select(func.count()).select_from(tokens).where(tokens.c.account_id == account)).scalar_one() >= MAX_KEYS:
        raise RequestMalformed(fields={"name": "an account has 50 keys at most; remove one first"})
    key = Hidden(secrets.token_bytes(KEY_BYTES))
    result = db.execute(
        tokens.insert().values(
            account_id=account,
            name=name,
            digest=sha256(key.reveal()).digest(),
            scopes=" ".join(sorted(chosen)),
            created_at=now,
            expires_at=expires_at,
        )
    )
    (number,) = result.inserted_primary_key or (0,)
    return ApiKey(int(number), name, chosen, now, None, expires_at), key


def keys_of(db: Connection, account: int) -> list[ApiKey]:
    """The newest first."""
    rows = db.execute(select(tokens).where(tokens.c.account_id == account).order_by(tokens.c.id.desc()))
    return [ApiKey(row.id, row.name, frozenset(map(Scope, row.scopes.split())), row.created_at, row.used_at, row.expires_at) for row in rows]


def remove_key(db: Connection, account: int, key: int) -> None:
    """It opens nothing from now on. Raises `KeyRefused` if it is not the account's."""
    if db.execute(delete(tokens).where((tokens.c.account_id == account) & (tokens.c.id == key))).rowcount == 0:
        raise KeyRefused


def remove_keys(db: Connection, account: int) -> int:
    """All of an account: a thief of its password may have made one. How many there were."""
    return db.execute(delete(tokens).where(tokens.c.account_id == account)).rowcount


def caller_of_key(db: Connection, key: Hidden, address: str, now: float) -> tuple[Caller, int | None]:
    """Who calls with this key, and the key's number if its use is to be noted (`note_use`). Raises `KeyRefused`.

    The index finds the digest in variable time, which tells a caller nothing: nobody can choose a key by its digest's first bytes. The
    answer rests on the comparison, which is constant.
    """
    digest = sha256(key.reveal()).digest()
    query = accounts.select_accounts().add_columns(
        tokens.c.id.label("key_id"), tokens.c.digest, tokens.c.scopes, tokens.c.used_at.label("key_used_at"), tokens.c.expires_at
    )
    row = db.execute(query.join(tokens, tokens.c.account_id == accounts_table.c.id).where(tokens.c.digest == digest)).one_or_none()
    if not compare_digest(digest, bytes(32) if row is None else row.digest) or row is None:
        raise KeyRefused
    if not row.active or (row.expires_at is not None and row.expires_at <= now):
        raise KeyRefused
    fresh = row.key_used_at is not None and now - row.key_used_at < USED_EVERY
    return Caller(accounts.account_from(row), address, frozenset(map(Scope, row.scopes.split()))), None if fresh else row.key_id


def note_use(db: Connection, key: int, now: float) -> None:
    db.execute(tokens.update().where(tokens.c.id == key).values(used_at=now))


def key_text(key: Hidden) -> str:
    """The key as people copy it: `parley_` and 43 characters."""
    return PREFIX + urlsafe_b64encode(key.reveal()).rstrip(b"=").decode()


def parse_key_untrusted(text: str) -> Hidden:
    """A key as a caller sent it. Raises `KeyRefused`."""
    match = _KEY.fullmatch(text)
    if match is None:
        raise KeyRefused
    return Hidden(urlsafe_b64decode(match[1] + "="))


def add_organizer(db: Connection, name: str, now: float) -> Hidden:
    """A program's account, or a removed one again; returns its key, the only time. Raises `OrganizerExists`, `RequestMalformed` (the name)."""
    if name != name.strip():
        raise RequestMalformed("a name has no space at an end")
    name = accounts.clean_name(name)
    row = db.execute(select(accounts_table.c.id, accounts_table.c.active).where(_program(name))).one_or_none()
    if row is None:
        number = accounts.add_account(db, None, name, AccountRole.ORGANIZER, now).id
    elif row.active:
        raise OrganizerExists
    else:
        number = row.id
        db.execute(accounts_table.update().where(accounts_table.c.id == number).values(active=True))
    return make_key(db, number, PROGRAM, ORGANIZER_SCOPES, now)[1]


def remove_organizer(db: Connection, name: str) -> None:
    """Its keys open nothing from now on; the meetings stay. Raises `OrganizerUnknown`."""
    row = db.execute(select(accounts_table.c.id).where(_program(name) & accounts_table.c.active)).one_or_none()
    if row is None:
        raise OrganizerUnknown
    db.execute(accounts_table.update().where(accounts_table.c.id == row.id).values(active=False))
    db.execute(delete(tokens).where(tokens.c.account_id == row.id))


def list_organizers(db: Connection) -> list[Program]:
    """All accounts of programs, by name."""
    query = select(accounts_table.c.id, accounts_table.c.name, accounts_table.c.active)
    rows = db.execute(query.where(accounts_table.c.email.is_(None) & accounts.alive()).order_by(accounts_table.c.name))
    return [Program(row.id, row.name, row.active) for row in rows]


def _program(name: str) -> ColumnElement[bool]:
    return and_(accounts_table.c.email.is_(None), accounts_table.c.name == name, accounts.alive())
