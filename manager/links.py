"""One-time links: the invitation of an account, the confirmation of an address, a forgotten password. Rules over the store; no HTTP.

A link is 256 random bits; the store has its SHA-256. They stand behind the `#` of an address, which browsers send to no server; the page
there posts them. Each counts once, and a new one voids the older ones of its purpose and address.

    /welcome#BITS   choose name and password: of an account that somebody invited          `invite`
                    or of one that somebody asked for                                      `sign-up`
    /confirm#BITS   an account's new address is real, while it is signed in                `email`
    /reset#BITS     choose a new password                                                  `reset`

Whoever asks for an account says an address and nothing else: a password that was chosen before the mailbox has spoken would be anybody's.
"""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, delete, select

from manager.accounts import AccountRole
from manager.errors import LinkWorthless
from manager.hidden import Hidden
from manager.store import links

SIZE: Final = 32
DAY: Final = 86_400.0


class Purpose(StrEnum):
    INVITE = "invite"
    SIGN_UP = "sign-up"
    EMAIL = "email"
    RESET = "reset"


LIVES: Final = {Purpose.INVITE: 7 * DAY, Purpose.SIGN_UP: DAY, Purpose.EMAIL: DAY, Purpose.RESET: 3600.0}
"""Seconds."""
PATHS: Final = {Purpose.INVITE: "/welcome", Purpose.SIGN_UP: "/welcome", Purpose.EMAIL: "/confirm", Purpose.RESET: "/reset"}


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is about. `account`: of an existing account."""

    id: int
    purpose: Purpose
    email: str
    name: str
    role: AccountRole
    account: int | None
    created_at: float
    expires_at: float


def make_link(
    db: Connection,
    purpose: Purpose,
    email: str,
    now: float,
    *,
    name: str = "",
    role: AccountRole = AccountRole.ORGANIZER,
    account: int | None = None,
) -> Hidden:
    """The bits of a new link; `link_text` says them."""
    db.execute(delete(links).where(((links.c.purpose == purpose.value) & (links.c.email == email)) | (links.c.expires_at < now)))
    bits = Hidden(secrets.token_bytes(SIZE))
    db.execute(
        links.insert().values(
            digest=sha256(bits.reveal()).digest(),
            purpose=purpose.value,
            account_id=account,
            email=email,
            name=name,
            role=role.value,
            created_at=now,
            expires_at=now + LIVES[purpose],
        )
    )
    return bits


def find_link(db: Connection, bits: Hidden, now: float) -> Link:
    """What it is about, without using it up. Raises `LinkWorthless`."""
    row = db.execute(select(links).where(links.c.digest == sha256(bits.reveal()).digest())).one_or_none()
    if row is None or row.expires_at <= now:
        raise LinkWorthless
    role, purpose = AccountRole(row.role), Purpose(row.purpose)
    return Link(row.id, purpose, row.email, row.name, role, row.account_id, row.created_at, row.expires_at)


def use_link(db: Connection, bits: Hidden, now: float, *purposes: Purpose) -> Link:
    """What it is about; it counts once. Raises `LinkWorthless`."""
    link = find_link(db, bits, now)
    if link.purpose not in purposes or db.execute(delete(links).where(links.c.id == link.id)).rowcount == 0:
        raise LinkWorthless
    return link


def invited(db: Connection, now: float) -> list[Link]:
    """Invitations that nobody has taken up yet, the newest first."""
    query = select(links).where((links.c.purpose == Purpose.INVITE.value) & (links.c.expires_at > now)).order_by(links.c.id.desc())
    return [
        Link(row.id, Purpose.INVITE, row.email, row.name, AccountRole(row.role), row.account_id, row.created_at, row.expires_at)
        for row in db.execute(query)
    ]


def withdraw(db: Connection, number: int) -> Link | None:
    """Void an invitation; what it was."""
    found = next((link for link in invited(db, 0.0) if link.id == number), None)
    if found is not None:
        db.execute(delete(links).where(links.c.id == number))
    return found


def address_of(site: str, purpose: Purpose, bits: Hidden) -> str:
    """The whole link."""
    return f"{site}{PATHS[purpose]}#{link_text(bits)}"


def link_text(bits: Hidden) -> str:
    """43 characters."""
    return urlsafe_b64encode(bits.reveal()).rstrip(b"=").decode()


def parse_link_untrusted(text: str) -> Hidden:
    """What stood behind the `#`, or a whole link. Raises `LinkWorthless`."""
    bits = text.strip().rpartition("#")[2]
    try:
        decoded = urlsafe_b64decode(bits.encode("ascii") + b"=")
    except (ValueError, UnicodeError):
        raise LinkWorthless from None
    if len(decoded) != SIZE or link_text(Hidden(decoded)) != bits:
        raise LinkWorthless
    return Hidden(decoded)
