"""Organizers and their API keys. Rules over the store; no HTTP.

A key is 256 random bits, so its SHA-256 resists any dictionary as it is and a slow hash would buy nothing (passwords, which people
choose, are another matter). It is shown once, when it is made, and kept nowhere.
"""

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from sqlalchemy import Connection, select

from manager.errors import KeyRefused, OrganizerExists, OrganizerUnknown, RequestMalformed
from manager.hidden import Hidden
from manager.store import organizers

KEY_BYTES: Final = 32
PREFIX: Final = "parley_"
"""So that people, and scanners for leaked keys, see what it is."""
_KEY: Final = re.compile(rf"{PREFIX}([A-Za-z0-9_-]{{43}})", re.ASCII)
_NAME: Final = re.compile(r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]{0,62}[^\s\x00-\x1f\x7f])?")


@dataclass(frozen=True, slots=True)
class Organizer:
    """Who may schedule and open meetings."""

    id: int
    name: str
    active: bool = True


def add_organizer(db: Connection, name: str, now: float) -> Hidden:
    """A new organizer, or a removed one again; returns its key, the only time. Show it with `key_text`.

    Raises `OrganizerExists`, `RequestMalformed` (the name).
    """
    if not _NAME.fullmatch(name):
        raise RequestMalformed("an organizer's name has 1 to 64 characters, none of them a control character, no space at an end")
    key = Hidden(secrets.token_bytes(KEY_BYTES))
    digest = sha256(key.reveal()).digest()
    row = db.execute(select(organizers.c.id, organizers.c.key_digest).where(organizers.c.name == name)).one_or_none()
    if row is None:
        db.execute(organizers.insert().values(name=name, key_digest=digest, created_at=now))
    elif row.key_digest is None:
        db.execute(organizers.update().where(organizers.c.id == row.id).values(key_digest=digest))
    else:
        raise OrganizerExists
    return key


def remove_organizer(db: Connection, name: str) -> None:
    """The key opens nothing from now on; the meetings stay. Raises `OrganizerUnknown`."""
    active = (organizers.c.name == name) & organizers.c.key_digest.is_not(None)
    if db.execute(organizers.update().where(active).values(key_digest=None)).rowcount == 0:
        raise OrganizerUnknown


def list_organizers(db: Connection) -> list[Organizer]:
    """All, by name."""
    rows = db.execute(select(organizers.c.id, organizers.c.name, organizers.c.key_digest).order_by(organizers.c.name))
    return [Organizer(row.id, row.name, row.key_digest is not None) for row in rows]


def organizer_of_key(db: Connection, key: Hidden) -> Organizer:
    """Whose key this is. Raises `KeyRefused`.

    The index finds the digest in variable time, which tells a caller nothing: nobody can choose a key by its digest's first bytes. The
    answer rests on the comparison, which is constant.
    """
    digest = sha256(key.reveal()).digest()
    row = db.execute(select(organizers).where(organizers.c.key_digest == digest)).one_or_none()
    if not compare_digest(digest, bytes(32) if row is None else row.key_digest) or row is None:
        raise KeyRefused
    return Organizer(row.id, row.name)


def key_text(key: Hidden) -> str:
    """The key as people copy it: `parley_` and 43 characters."""
    return PREFIX + urlsafe_b64encode(key.reveal()).rstrip(b"=").decode()


def parse_key_untrusted(text: str) -> Hidden:
    """A key as a caller sent it. Raises `KeyRefused`."""
    match = _KEY.fullmatch(text)
    if match is None:
        raise KeyRefused
    return Hidden(urlsafe_b64decode(match[1] + "="))
