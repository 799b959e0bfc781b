"""Sign-ins of browsers, and the lock-out that failures bring. Rules over the store; no HTTP.

    password right ──▶ factor ──▶ enrol ──▶ password ──▶ complete        each stage only if it is due (`stage_of`)

A sign-in is 256 random bits in a cookie; the store has its SHA-256. It ends when it was idle too long, when it is too old, when it is
revoked, and with its account. Each step that proves something gives it fresh bits, so a cookie that was planted before opens nothing.

Lock-out: a try counts as a failure before it is judged, and is taken back if it was right, so that many at once are no more than one after
the other. `FREE` failures cost nothing, then each next one doubles the time, from `FIRST` to `LONGEST` seconds, in which even the right
password is refused. It is counted per e-mail typed, with an account or without, and per address, and forgotten after a success (of that
e-mail) or a day.
"""

import secrets
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, delete, select

from manager import accounts
from manager.accounts import Account
from manager.callers import ALL_SCOPES, Caller, Login, Stage
from manager.errors import AddressNotAllowed, SignInNeeded
from manager.hidden import Hidden
from manager.store import accounts as accounts_table
from manager.store import lockouts, logins
from manager.throttle import bucket_of

COOKIE_BYTES: Final = 32
FREE: Final = {b"m": 5, b"c": 5, b"a": 20}
"""Failures without a consequence: of an e-mail, of an account's codes, of an address (many people may share one)."""
FIRST: Final = 15.0
LONGEST: Final = 3600.0
FORGOTTEN_AFTER: Final = 86_400.0
TOUCHED_EVERY: Final = 60.0
"""Seconds between two notes of a sign-in's last use."""
FACTOR_WITHIN: Final = 900.0
"""Seconds for the steps of signing in."""
MAX_LOGINS: Final = 50
"""Of one account; the one used longest ago goes."""


def mail_subject(email: str) -> bytes:
    """What failures of this e-mail are counted under. A hash, so that the table lists nobody."""
    return b"m" + sha256(b"parley lock-out mail" + email.encode("utf-8", "surrogatepass")).digest()[1:]


def address_subject(address: str) -> bytes:
    return b"a" + sha256(b"parley lock-out address" + bucket_of(address).encode()).digest()[1:]


def code_subject(account: int) -> bytes:
    """Apart from the password's, so that who knows that cannot clear the count of guessed codes by signing in."""
    return b"c" + sha256(b"parley lock-out code" + account.to_bytes(8, "big")).digest()[1:]


def locked_for(db: Connection, subjects: Iterable[bytes], now: float) -> float:
    """Seconds until the next try counts; 0.0: now."""
    until = db.execute(select(lockouts.c.until).where(lockouts.c.subject.in_(list(subjects)))).scalars()
    return max([0.0, *(float(moment) - now for moment in until)])


def fail(db: Connection, subjects: Iterable[bytes], now: float) -> None:
    """Count a failure."""
    db.execute(delete(lockouts).where(lockouts.c.failed_at < now - FORGOTTEN_AFTER))
    for subject in subjects:
        row = db.execute(select(lockouts).where(lockouts.c.subject == subject).with_for_update()).one_or_none()
        failures = 1 if row is None else row.failures + 1
        beyond = failures - FREE[subject[:1]]
        until = now + min(LONGEST, FIRST * 2 ** min(beyond, 30)) if beyond >= 0 else 0.0
        if row is None:
            db.execute(lockouts.insert().values(subject=subject, failures=failures, failed_at=now, until=until))
        else:
            db.execute(lockouts.update().where(lockouts.c.subject == subject).values(failures=failures, failed_at=now, until=until))


def take_back(db: Connection, subject: bytes) -> None:
    """One failure that was none after all."""
    chosen = (lockouts.c.subject == subject) & (lockouts.c.failures > 0)
    db.execute(lockouts.update().where(chosen).values(failures=lockouts.c.failures - 1, until=0.0))


def forgive(db: Connection, subjects: Iterable[bytes]) -> None:
    """Forget the failures."""
    db.execute(delete(lockouts).where(lockouts.c.subject.in_(list(subjects))))


def stage_of(account: Account, proved_factor: bool, now: float) -> Stage:
    """What is due next."""
    if account.has_factor and not proved_factor:
        return Stage.FACTOR
    if account.factor_required and not account.has_factor:
        return Stage.ENROL
    days = account.policy.password_days
    if days and account.password_at is not None and now - account.password_at > days * 86_400:
        return Stage.PASSWORD
    return Stage.COMPLETE


def begin(db: Connection, account: Account, proved_factor: bool, address: str, agent: str, now: float) -> tuple[Hidden, Caller]:
    """A new sign-in: what goes into the cookie, and who it is."""
    cookie = Hidden(secrets.token_bytes(COOKIE_BYTES))
    stage = stage_of(account, proved_factor, now)
    result = db.execute(
        logins.insert().values(
            account_id=account.id,
            digest=sha256(cookie.reveal()).digest(),
            stage=stage.value,
            address=address[:64],
            agent=_printable(agent)[:200],
            created_at=now,
            used_at=now,
            proved_at=now,
        )
    )
    (number,) = result.inserted_primary_key or (0,)
    _bound(db, account.id)
    login = Login(int(number), stage, now, now, now, address[:64], _printable(agent)[:200], csrf_of(cookie))
    return cookie, Caller(account, address, ALL_SCOPES, login)


def advance(db: Connection, caller: Caller, proved_factor: bool, now: float) -> tuple[Hidden, Caller]:
    """The same sign-in at its next stage, under fresh bits; the old ones are worthless."""
    assert caller.login is not None
    account = accounts.account_of(db, caller.account.id)
    db.execute(delete(logins).where(logins.c.id == caller.login.id))
    return begin(db, account, proved_factor, caller.address, caller.login.agent, now)


def caller_of_cookie(db: Connection, cookie: Hidden, address: str, now: float) -> tuple[Caller, bool]:
    """Who is signed in, and whether its use is to be noted (`touch`). Raises `SignInNeeded`, `AddressNotAllowed`."""
    digest = sha256(cookie.reveal()).digest()
    row = db.execute(_caller_by_digest(), {"digest_of_cookie": digest}).one_or_none()
    if not compare_digest(digest, bytes(32) if row is None else row.digest) or row is None or not row.active:
        raise SignInNeeded
    account = accounts.account_from(row)
    stage = Stage(row.stage)
    policy = account.policy
    idle = policy.idle_minutes * 60 if stage is Stage.COMPLETE else FACTOR_WITHIN
    if now - row.used_at > idle or now - row.login_at > policy.absolute_hours * 3600:
        raise SignInNeeded
    if not policy.allows(address):
        raise AddressNotAllowed
    if stage is Stage.COMPLETE:
        stage = stage_of(account, True, now)  # what an administrator has asked for since then
    login = Login(row.login_id, stage, row.login_at, row.used_at, row.proved_at, row.address, row.agent, csrf_of(cookie))
    return Caller(account, address, ALL_SCOPES, login), now - row.used_at > TOUCHED_EVERY


@cache
def _caller_by_digest() -> Select[Any]:
    """Built once: every page asks it, and composing it costs as much as running it."""
    query = accounts.select_accounts().add_columns(
        logins.c.id.label("login_id"),
        logins.c.digest,
        logins.c.stage,
        logins.c.address,
        logins.c.agent,
        logins.c.created_at.label("login_at"),
        logins.c.used_at,
        logins.c.proved_at,
    )
    return query.join(logins, logins.c.account_id == accounts_table.c.id).where(logins.c.digest == bindparam("digest_of_cookie"))


def touch(db: Connection, login: int, address: str, now: float) -> None:
    db.execute(logins.update().where(logins.c.id == login).values(used_at=now, address=address[:64]))


def proved(db: Connection, login: int, now: float) -> None:
    """The person has shown who it is, just now."""
    db.execute(logins.update().where(logins.c.id == login).values(proved_at=now, used_at=now))


def proved_at(db: Connection, login: int) -> float:
    """When the person last showed who it is; 0.0 if the sign-in has ended."""
    return float(db.execute(select(logins.c.proved_at).where(logins.c.id == login)).scalar_one_or_none() or 0.0)


def logins_of(db: Connection, account: Account, now: float) -> list[Login]:
    """Those that have not ended, the last used first."""
    oldest = now - account.policy.absolute_hours * 3600
    idle = now - account.policy.idle_minutes * 60
    alive = (logins.c.account_id == account.id) & (logins.c.created_at >= oldest) & (logins.c.used_at >= idle)
    return [_login(row) for row in db.execute(select(logins).where(alive).order_by(logins.c.used_at.desc(), logins.c.id.desc()))]


def end(db: Connection, account: int, login: int) -> bool:
    """Whether there was such a sign-in of this account."""
    return db.execute(delete(logins).where((logins.c.account_id == account) & (logins.c.id == login))).rowcount > 0


def end_all(db: Connection, account: int, but: int | None = None) -> int:
    """How many were ended."""
    chosen = logins.c.account_id == account
    return db.execute(delete(logins).where(chosen if but is None else chosen & (logins.c.id != but))).rowcount


def end_old(db: Connection, now: float) -> None:
    """Forget what no policy lets anybody use any more, with the addresses and browsers that it names."""
    db.execute(delete(logins).where((logins.c.used_at < now - 31 * 86_400) | (logins.c.created_at < now - 366 * 86_400)))


def csrf_of(cookie: Hidden) -> str:
    return sha256(b"parley csrf" + cookie.reveal()).hexdigest()


def cookie_text(cookie: Hidden) -> str:
    """64 hex digits."""
    return cookie.reveal().hex()


def parse_cookie_untrusted(text: str) -> Hidden:
    """Raises `SignInNeeded`."""
    try:
        cookie = bytes.fromhex(text)
    except ValueError:
        raise SignInNeeded from None
    if len(cookie) != COOKIE_BYTES or cookie.hex() != text:
        raise SignInNeeded
    return Hidden(cookie)


def _login(row: Row[Any]) -> Login:
    return Login(row.id, Stage(row.stage), row.created_at, row.used_at, row.proved_at, row.address, row.agent)


def _bound(db: Connection, account: int) -> None:
    kept = select(logins.c.id).where(logins.c.account_id == account).order_by(logins.c.used_at.desc(), logins.c.id.desc()).limit(MAX_LOGINS)
    numbers = list(db.execute(kept).scalars())
    if len(numbers) == MAX_LOGINS:
        db.execute(delete(logins).where((logins.c.account_id == account) & logins.c.id.not_in(numbers)))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
