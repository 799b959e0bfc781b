"""Accounts: who there is, what role and features each has. Rules over the store; no HTTP.

An account is a person's, with an e-mail address to sign in with, or a program's, with API keys alone (`parley manager add-organizer`).
Rows stay after a deletion, emptied, since meetings and the audit log name them by number.

    organizer        schedules and opens meetings
    external-admin   besides, rules the organizers: the administrator of those who use the installation
    internal-admin   besides, rules everybody, the policy, the nodes, and reads the audit log: whoever runs the installation
"""

import json
import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, Final
from zoneinfo import available_timezones

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, func, select

from manager.errors import AccountExists, AccountUnknown, Fields, LastAdministrator, NotPermitted, RequestMalformed
from manager.policy import Policy, check_features, read_policy
from manager.store import accounts, idempotency, links, logins, passkeys, policies, recovery_codes, tokens

MAX_NAME: Final = 64
MAX_EMAIL: Final = 254
LANGUAGES: Final = ("en", "fr")
LISTED: Final = 1000
_LOCAL: Final = re.compile(r"[^\s@\x00-\x1f\x7f\"(),:;<>\[\\\]]{1,64}")
_DOMAIN: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)
ZONES: Final = frozenset(available_timezones()) - {"Factory", "localtime"}


class AccountRole(StrEnum):
    ORGANIZER = "organizer"
    EXTERNAL_ADMIN = "external-admin"
    INTERNAL_ADMIN = "internal-admin"

    @property
    def administers(self) -> bool:
        return self is not AccountRole.ORGANIZER


@dataclass(frozen=True, slots=True)
class Account:
    """`features`: what it has, after policy and administrators. `features_off`: what was turned off for this account."""

    id: int
    email: str | None
    name: str
    role: AccountRole
    active: bool
    features: frozenset[str]
    features_off: frozenset[str]
    has_password: bool
    has_totp: bool
    passkeys: int
    factor_required: bool  # by the policy, or for this account
    factor_required_here: bool  # for this account
    password_at: float | None
    zone: str
    language: str
    created_at: float
    policy: Policy = field(repr=False)

    @property
    def has_factor(self) -> bool:
        return self.has_totp or self.passkeys > 0

    def may_rule(self, other: "Account") -> bool:
        """Whether it may change that account's role, features and life."""
        return self.role is AccountRole.INTERNAL_ADMIN or (
            self.role is AccountRole.EXTERNAL_ADMIN and other.role is AccountRole.ORGANIZER and other.email is not None
        )


def clean_name(name: str) -> str:
    """A person's or a thing's name in NFC. Raises `RequestMalformed`."""
    cleaned = unicodedata.normalize("NFC", name).strip()
    joiners = "\u200c\u200d"  # several scripts, and emoji, are spelled with them
    if not 0 < len(cleaned) <= MAX_NAME:
        raise RequestMalformed("a name has 1 to 64 characters")
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in joiners for c in cleaned):
        raise RequestMalformed("a name has no control or invisible formatting characters")
    return cleaned


def clean_email(text: str) -> str:
    """An e-mail address in the one form that it is kept and compared in. Raises `RequestMalformed`."""
    local, at, domain = unicodedata.normalize("NFC", text).strip().rpartition("@")
    try:
        domain = domain.encode("idna").decode().lower()
        local.encode()
    except UnicodeError:
        domain = ""
    cleaned = f"{local.casefold()}@{domain}"
    invisible = any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in local)
    dots = local.startswith(".") or local.endswith(".") or ".." in local
    if not at or invisible or dots or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain) or len(cleaned) > MAX_EMAIL:
        raise RequestMalformed("an e-mail address looks like ann@example.org")
    return cleaned


def clean_zone(zone: str) -> str:
    """Raises `RequestMalformed`."""
    if zone not in ZONES:
        raise RequestMalformed("a zone is one of the IANA database, such as Europe/Paris")
    return zone


def clean_language(language: str) -> str:
    """Raises `RequestMalformed`."""
    if language not in LANGUAGES:
        raise RequestMalformed(f"languages are {', '.join(LANGUAGES)}")
    return language


def add_account(
    db: Connection,
    email: str | None,
    name: str,
    role: AccountRole,
    now: float,
    *,
    verifier: str | None = None,
    zone: str = "UTC",
    language: str = "en",
) -> Account:
    """A new account; `verifier` as `passwords` makes it. Raises `AccountExists`, `RequestMalformed`."""
    check = Fields()
    with check("email"):
        email = None if email is None else clean_email(email)
    with check("name"):
        name = clean_name(name)
    with check("zone"):
        zone = clean_zone(zone)
    with check("language"):
        language = clean_language(language)
    check.finish()
    taken = (accounts.c.email == email) if email is not None else (accounts.c.email.is_(None) & (accounts.c.name == name) & alive())
    if db.execute(select(accounts.c.id).where(taken)).first() is not None:
        raise AccountExists
    result = db.execute(
        accounts.insert().values(
            email=email,
            name=name,
            role=role.value,
            active=True,
            password=verifier,
            password_at=None if verifier is None else now,
            totp_step=0,
            factor_required=False,
            features="[]",
            zone=zone,
            language=language,
            created_at=now,
        )
    )
    (key,) = result.inserted_primary_key or (0,)
    return account_of(db, int(key))


def account_of(db: Connection, number: int) -> Account:
    """Raises `AccountUnknown`."""
    row = db.execute(_by_number(), {"number": number}).one_or_none()
    if row is None:
        raise AccountUnknown
    return account_from(row)


@cache
def _by_number() -> Select[Any]:
    return select_accounts().where((accounts.c.id == bindparam("number")) & alive())


def account_by_email(db: Connection, email: str) -> Account | None:
    """`email` in normal form."""
    row = db.execute(select_accounts().where(accounts.c.email == email)).one_or_none()
    return None if row is None else account_from(row)


def list_accounts(db: Connection, by: Account, search: str = "") -> list[Account]:
    """Those whom `by` may rule, by name; at most `LISTED`. Raises `NotPermitted`."""
    if not by.role.administers:
        raise NotPermitted
    query = select_accounts().where(alive())
    if by.role is AccountRole.EXTERNAL_ADMIN:
        query = query.where((accounts.c.role == AccountRole.ORGANIZER.value) & accounts.c.email.is_not(None))
    if search:
        like = "%" + re.sub(r"([\\%_])", r"\\\1", search.casefold()[:MAX_EMAIL]) + "%"
        query = query.where(func.lower(accounts.c.name).like(like, escape="\\") | accounts.c.email.like(like, escape="\\"))
    return [account_from(row) for row in db.execute(query.order_by(func.lower(accounts.c.name), accounts.c.id).limit(LISTED))]


def ruled(db: Connection, by: Account, number: int) -> Account:
    """An account that `by` may rule. Raises `AccountUnknown`, also for one that it may not see."""
    if not by.role.administers:
        raise NotPermitted
    account = account_of(db, number)
    if not by.may_rule(account):
        raise AccountUnknown
    return account


def change(
    db: Connection,
    number: int,
    *,
    name: str | None = None,
    role: AccountRole | None = None,
    active: bool | None = None,
    features_off: list[str] | None = None,
    factor_required: bool | None = None,
    zone: str | None = None,
    language: str | None = None,
) -> Account:
    """Change what is given. A deactivated account is signed out. Raises `RequestMalformed`, `LastAdministrator`, `AccountUnknown`."""
    before = account_of(db, number)
    check = Fields()
    values: dict[str, Any] = {}
    with check("name"):
        values |= {} if name is None else {"name": clean_name(name)}
    with check("zone"):
        values |= {} if zone is None else {"zone": clean_zone(zone)}
    with check("language"):
        values |= {} if language is None else {"language": clean_language(language)}
    with check("features_off"):
        values |= {} if features_off is None else {"features": json.dumps(sorted(check_features(features_off)))}
    check.finish()
    values |= {} if role is None else {"role": role.value}
    values |= {} if active is None else {"active": active}
    values |= {} if factor_required is None else {"factor_required": factor_required}
    if (role is not None and role is not AccountRole.INTERNAL_ADMIN) or active is False:
        _keep_an_administrator(db, before)
    if values:
        db.execute(accounts.update().where(accounts.c.id == number).values(values))
    if active is False:
        db.execute(delete(logins).where(logins.c.account_id == number))
    return account_of(db, number)


def set_password(db: Connection, number: int, verifier: str, now: float) -> None:
    """A verifier as `passwords` makes it. Links that were sent for the account, to whatever address, are void."""
    db.execute(delete(links).where(links.c.account_id == number))
    db.execute(accounts.update().where(accounts.c.id == number).values(password=verifier, password_at=now))


def set_email(db: Connection, number: int, email: str) -> Account:
    """`email` in normal form. Links that were sent for the account, to the old address too, are void. Raises `AccountExists`."""
    if db.execute(select(accounts.c.id).where(accounts.c.email == email)).first() is not None:
        raise AccountExists
    db.execute(delete(links).where(links.c.account_id == number))
    db.execute(accounts.update().where(accounts.c.id == number).values(email=email))
    return account_of(db, number)


def verifier_of(db: Connection, number: int) -> str | None:
    return db.execute(select(accounts.c.password).where(accounts.c.id == number)).scalar_one_or_none()


def erase(db: Connection, number: int, now: float) -> None:
    """Delete an account: nothing of the person stays but its number. Its meetings are `meetings.erase_of`'s. Raises `LastAdministrator`."""
    _keep_an_administrator(db, account_of(db, number))
    for table in (tokens, logins, passkeys, recovery_codes, links, idempotency):
        db.execute(delete(table).where(table.c.account_id == number))
    db.execute(
        accounts.update()
        .where(accounts.c.id == number)
        .values(
            email=None,
            name="(deleted)",
            role=AccountRole.ORGANIZER.value,
            active=False,
            password=None,
            password_at=None,
            totp=None,
            totp_step=0,
            features="[]",
            zone="UTC",
            language="en",
            deleted_at=now,
        )
    )


def _keep_an_administrator(db: Connection, account: Account) -> None:
    others = alive() & (accounts.c.role == AccountRole.INTERNAL_ADMIN.value) & accounts.c.active & (accounts.c.id != account.id)
    if account.role is AccountRole.INTERNAL_ADMIN and account.active and db.execute(select(accounts.c.id).where(others)).first() is None:
        raise LastAdministrator


def alive() -> ColumnElement[bool]:
    """The condition that an account was not deleted."""
    return accounts.c.deleted_at.is_(None)


def select_accounts() -> Select[Any]:
    """What `account_from` reads; more columns may be added."""
    keys = select(func.count()).select_from(passkeys).where(passkeys.c.account_id == accounts.c.id).scalar_subquery()
    return select(accounts, keys.label("passkeys"), select(policies.c.value).scalar_subquery().label("policy"))


@lru_cache(256)
def features_left(off: str, policy: str | None) -> frozenset[str]:
    """The features of an account, from its column and the policy's."""
    return read_policy(policy).features(frozenset(json.loads(off)))


def account_from(row: Row[Any]) -> Account:
    """An account from a row of `select_accounts`."""
    policy = read_policy(row.policy)
    role = AccountRole(row.role)
    required = {"optional": False, "administrators": role.administers, "everyone": True}[policy.second_factor]
    return Account(
        id=row.id,
        email=row.email,
        name=row.name,
        role=role,
        active=row.active,
        features=features_left(row.features, row.policy),
        features_off=frozenset(json.loads(row.features)),
        has_password=row.password is not None,
        has_totp=row.totp is not None,
        passkeys=row.passkeys,
        factor_required=(required or row.factor_required) and row.email is not None,
        factor_required_here=row.factor_required,
        password_at=row.password_at,
        zone=row.zone,
        language=row.language,
        created_at=row.created_at,
        policy=policy,
    )
