"""One's own account: profile, password, factors, sign-ins, API keys, export, deletion. Rules, hashing and mail, joined. No HTTP.

What would let a thief of a cookie stay (factors, keys, e-mail, deletion) needs a proof that is at most `PROOF_LASTS` old: password and,
where there is one, second factor. `ProofNeeded` says so, `prove` gives it. A new password always asks for both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Connection

from manager import accounts, audit, factors, keys, links, meetings, signin
from manager.callers import Caller, Login, Scope, Stage
from manager.desk import Desk
from manager.entrance import SignedIn
from manager.errors import Fields, ProofNeeded, RequestMalformed, SignInLocked, SignInNeeded, SignInRefused
from manager.factors import Passkey, TotpSetup
from manager.hidden import Hidden
from manager.keys import ApiKey
from manager.letters import account_letter
from manager.links import Purpose
from manager.mail import Mail
from manager.passwords import Hashing, check_password
from manager.seal import Seal
from manager.store import Store

PROOF_LASTS: Final = 900.0
"""Seconds."""
MAX_KEY_DAYS: Final = 3650


@dataclass(frozen=True, slots=True)
class Security:
    """What a page shows of one's factors."""

    has_totp: bool
    passkeys: list[Passkey]
    recovery_codes_left: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """`recovery_codes`: to be shown once; empty if the account had a factor before. `signed_in`: the cookie from now on."""

    recovery_codes: list[str] = field(repr=False)
    signed_in: SignedIn


class Own:
    """Made once. `site`: https://HOST[:PORT], where the pages are. `clock`: seconds since 1970."""

    def __init__(self, store: Store, desk: Desk, mail: Mail, hashing: Hashing, seal: Seal, site: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._desk = desk
        self._mail = mail
        self._hashing = hashing
        self._seal = seal
        self._site = site
        self._host = urlsplit(site).hostname or ""
        self._clock = clock

    async def change_profile(self, caller: Caller, *, name: str | None = None, zone: str | None = None, language: str | None = None) -> Caller:
        """Change what is given; the caller as it is now. Raises `RequestMalformed` (its fields)."""
        caller.require(Scope.ACCOUNT_WRITE)
        account = await self._store.write(accounts.change, caller.account.id, name=name, zone=zone, language=language)
        return Caller(account, caller.address, caller.scopes, caller.login)

    # proof and password

    async def prove(self, caller: Caller, password: str, code: str = "") -> None:
        """Show again who one is: it holds for `PROOF_LASTS`. Without a factor, no code is asked for. Raises `SignInRefused`, `SignInLocked`."""
        login = caller.at(Stage.COMPLETE)
        await self._check(caller, password, code)
        await self._store.write(signin.proved, login.id, self._clock())

    async def change_password(self, caller: Caller, current: str, new: str, code: str = "", *, keep_keys: bool = False) -> SignedIn:
        """A new password; every other sign-in ends, and every API key unless they are kept.

        Raises `SignInRefused`, `SignInLocked`, `RequestMalformed` (the new one).
        """
        caller.at(Stage.COMPLETE, Stage.PASSWORD)
        account = caller.account
        check = Fields()
        with check("new"):
            new = check_password(new, account.email or "", account.name)
            if new == current:
                raise RequestMalformed("the new password is the old one")
        check.finish()
        await self._check(caller, current, code)
        verifier = await self._hashing.make_verifier(new)
        cookie, after = await self._store.write(_change_password, caller, verifier, keep_keys, self._clock())
        self._tell(caller, "password")
        return SignedIn(signin.cookie_text(cookie), after)

    async def _check(self, caller: Caller, password: str, code: str) -> None:
        account = caller.account
        verifier = await self._store.write(_try_password, account.id, self._clock())
        right = await self._hashing.verify(verifier, password)
        if not await self._store.write(_judge_password, caller, right, code, self._seal, self._clock()):
            raise SignInRefused

    # second factors

    async def security(self, caller: Caller) -> Security:
        caller.at(Stage.COMPLETE, Stage.ENROL)
        return await self._store.look(_security, caller.account.id)

    async def begin_totp(self, caller: Caller) -> TotpSetup:
        """A key for an authenticator; `finish_totp` keeps it. Raises `ProofNeeded`."""
        login = self._fresh(caller, Stage.COMPLETE, Stage.ENROL)
        return await self._store.write(factors.begin_totp, caller.account, login.id, self._seal)

    async def finish_totp(self, caller: Caller, code: str) -> Enrolled:
        """Raises `RequestMalformed` (the code), `ProofNeeded`."""
        self._fresh(caller, Stage.COMPLETE, Stage.ENROL)
        return self._enrolled(caller, *await self._store.write(_finish_totp, caller, code, self._seal, self._clock()))

    async def begin_passkey(self, caller: Caller) -> str:
        """JSON for `navigator.credentials.create`. Raises `ProofNeeded`."""
        login = self._fresh(caller, Stage.COMPLETE, Stage.ENROL)
        return await self._store.write(factors.begin_passkey, caller.account, login.id, self._host)

    async def finish_passkey(self, caller: Caller, answer: str, name: str) -> Enrolled:
        """`answer`: the browser's, in JSON. Raises `RequestMalformed` (`passkey`, `name`), `ProofNeeded`."""
        self._fresh(caller, Stage.COMPLETE, Stage.ENROL)
        made = await self._store.write(_finish_passkey, caller, answer, name, self._host, self._site, self._clock())
        return self._enrolled(caller, *made)

    async def remove_totp(self, caller: Caller) -> None:
        """Raises `ProofNeeded`."""
        self._fresh(caller, Stage.COMPLETE)
        await self._store.write(_remove_totp, caller, self._clock())
        self._tell(caller, "factor-removed")

    async def remove_passkey(self, caller: Caller, passkey: int) -> None:
        """Raises `ProofNeeded`. Removing it again changes nothing."""
        self._fresh(caller, Stage.COMPLETE)
        if await self._store.write(_remove_passkey, caller, passkey, self._clock()):
            self._tell(caller, "factor-removed")

    async def new_recovery_codes(self, caller: Caller) -> list[str]:
        """Ten, to be shown once; the earlier ones are void. Raises `ProofNeeded`, `RequestMalformed` without a factor."""
        self._fresh(caller, Stage.COMPLETE)
        if not caller.account.has_factor:
            raise RequestMalformed("recovery codes stand in for a second factor; set one up first")
        return await self._store.write(_new_recovery_codes, caller, self._clock())

    # sign-ins and keys

    async def logins(self, caller: Caller) -> list[Login]:
        """Where one is signed in, the last used first."""
        caller.require(Scope.ACCOUNT_READ)
        return await self._store.look(signin.logins_of, caller.account, self._clock())

    async def end_login(self, caller: Caller, login: int) -> None:
        """End one sign-in. Ending it again changes nothing."""
        caller.require(Scope.ACCOUNT_WRITE)
        await self._store.write(_end_login, caller, login, self._clock())

    async def end_other_logins(self, caller: Caller) -> int:
        """End all but this one; how many."""
        caller.require(Scope.ACCOUNT_WRITE)
        return await self._store.write(_end_others, caller, self._clock())

    async def keys(self, caller: Caller) -> list[ApiKey]:
        """API keys, the newest first."""
        caller.require(Scope.ACCOUNT_READ)
        return await self._store.look(keys.keys_of, caller.account.id)

    async def make_key(self, caller: Caller, name: str, scopes: list[str], days: int | None = None) -> tuple[ApiKey, str]:
        """A new key and its text, shown once. A key of a key has no more than that one's scopes. Raises `RequestMalformed`, `ProofNeeded`."""
        self._fresh(caller, Stage.COMPLETE)
        check = Fields()
        with check("scopes"):
            if not set(scopes) <= set(Scope):
                raise RequestMalformed(f"scopes are {', '.join(Scope)}")
        with check("days"):
            if days is not None and not 1 <= days <= MAX_KEY_DAYS:
                raise RequestMalformed("a key lives 1 to 3650 days, or for ever")
        check.finish()
        made, key = await self._store.write(_make_key, caller, name, [Scope(scope) for scope in scopes], days, self._clock())
        return made, keys.key_text(key)

    async def remove_key(self, caller: Caller, key: int) -> None:
        """It opens nothing from now on. Raises `KeyRefused` for one that is not there."""
        caller.require(Scope.ACCOUNT_WRITE)
        await self._store.write(_remove_key, caller, key, self._clock())

    # the account as a whole

    async def change_email(self, caller: Caller, email: str) -> None:
        """A letter goes to the new address, and the change is made when it is confirmed. Raises `RequestMalformed`, `ProofNeeded`."""
        self._fresh(caller, Stage.COMPLETE)
        check = Fields()
        with check("email"):
            email = accounts.clean_email(email)
        check.finish()
        account = caller.account
        bits = await self._store.write(_change_email, caller, email, self._clock())
        self._tell(caller, "email")
        if bits is not None:
            link = links.address_of(self._site, Purpose.EMAIL, bits)
            self._mail.post(account_letter(Purpose.EMAIL, account.language, email, site=self._site, link=link, name=account.name))

    async def export(self, caller: Caller) -> dict[str, Any]:
        """Everything that is kept about this person, as JSON values. No verifier, no key."""
        caller.require(Scope.ACCOUNT_READ)
        return await self._store.read(_export, caller, self._clock())

    async def delete(self, caller: Caller) -> None:
        """Delete the account: running meetings end, the others are cancelled. Raises `ProofNeeded`, `LastAdministrator`."""
        self._fresh(caller, Stage.COMPLETE)
        await self._desk.delete_account(caller, caller.account.id, rules=False)

    def _fresh(self, caller: Caller, *stages: Stage) -> Login:
        login = caller.at(*stages)
        if self._clock() - login.proved_at > PROOF_LASTS:
            raise ProofNeeded
        return login

    def _enrolled(self, caller: Caller, codes: list[str], cookie: Hidden, after: Caller) -> Enrolled:
        self._tell(caller, "factor-added")
        return Enrolled(codes, SignedIn(signin.cookie_text(cookie), after))

    def _tell(self, caller: Caller, what: str) -> None:
        account = caller.account
        if account.email is not None:
            link = f"{self._site}/forgot"
            self._mail.post(
                account_letter("changed", account.language, account.email, site=self._site, link=link, name=account.name, what=what)
            )


def _subject(caller: Caller) -> str:
    return f"account {caller.account.id}"


def _try_password(db: Connection, account: int, now: float) -> str | None:
    subject = signin.code_subject(account)
    locked = signin.locked_for(db, [subject], now)
    if locked > 0:
        raise SignInLocked(retry_after=locked)
    signin.fail(db, [subject], now)
    return accounts.verifier_of(db, account)


def _judge_password(db: Connection, caller: Caller, right: bool, code: str, seal: Seal, now: float) -> bool:
    """The code is looked at only if the password is right, and a fresh passkey stands in for one."""
    account, login = caller.account, caller.login
    if login is None:
        raise SignInNeeded
    if right and account.has_factor:
        by_passkey = not account.has_totp and not code and now - signin.proved_at(db, login.id) <= PROOF_LASTS
        try:
            right = by_passkey or bool(factors.prove_code(db, account.id, code, seal, now))
        except SignInRefused:
            right = False
    if right:
        signin.forgive(db, [signin.code_subject(account.id)])
    else:
        audit.record(db, caller.by, "proof-refused", _subject(caller), now)
    return right


def _change_password(db: Connection, caller: Caller, verifier: str, keep_keys: bool, now: float) -> tuple[Hidden, Caller]:
    accounts.set_password(db, caller.account.id, verifier, now)
    removed = 0 if keep_keys else keys.remove_keys(db, caller.account.id)
    audit.record(db, caller.by, "password-changed", _subject(caller), now, f"{removed} keys removed")
    signin.end_all(db, caller.account.id, None if caller.login is None else caller.login.id)
    return signin.advance(db, caller, True, now)


def _security(db: Connection, account: int) -> Security:
    found = accounts.account_of(db, account)
    return Security(found.has_totp, factors.passkeys_of(db, account), factors.recovery_codes_left(db, account))


def _finish_totp(db: Connection, caller: Caller, code: str, seal: Seal, now: float) -> tuple[list[str], Hidden, Caller]:
    assert caller.login is not None
    codes = factors.finish_totp(db, caller.account, caller.login.id, code, seal, now)
    audit.record(db, caller.by, "factor-added", _subject(caller), now, "totp")
    return codes, *signin.advance(db, caller, True, now)


def _finish_passkey(
    db: Connection, caller: Caller, answer: str, name: str, host: str, site: str, now: float
) -> tuple[list[str], Hidden, Caller]:
    assert caller.login is not None
    codes = factors.finish_passkey(db, caller.account, caller.login.id, answer, name, host, site, now)
    audit.record(db, caller.by, "factor-added", _subject(caller), now, "passkey")
    return codes, *signin.advance(db, caller, True, now)


def _remove_totp(db: Connection, caller: Caller, now: float) -> None:
    factors.remove_totp(db, caller.account.id)
    audit.record(db, caller.by, "factor-removed", _subject(caller), now, "totp")


def _remove_passkey(db: Connection, caller: Caller, passkey: int, now: float) -> bool:
    if not factors.remove_passkey(db, caller.account.id, passkey):
        return False
    audit.record(db, caller.by, "factor-removed", _subject(caller), now, "passkey")
    return True


def _new_recovery_codes(db: Connection, caller: Caller, now: float) -> list[str]:
    audit.record(db, caller.by, "recovery-codes-made", _subject(caller), now)
    return factors.new_recovery_codes(db, caller.account.id)


def _end_login(db: Connection, caller: Caller, login: int, now: float) -> None:
    if signin.end(db, caller.account.id, login):
        audit.record(db, caller.by, "sign-in-revoked", _subject(caller), now)


def _end_others(db: Connection, caller: Caller, now: float) -> int:
    ended = signin.end_all(db, caller.account.id, None if caller.login is None else caller.login.id)
    if ended:
        audit.record(db, caller.by, "sign-in-revoked", _subject(caller), now, f"{ended} others")
    return ended


def _make_key(db: Connection, caller: Caller, name: str, scopes: list[Scope], days: int | None, now: float) -> tuple[ApiKey, Hidden]:
    made = keys.make_key(db, caller.account.id, name, scopes, now, None if days is None else now + days * 86_400)
    audit.record(db, caller.by, "key-made", f"key {made[0].id}", now, " ".join(sorted(scopes)))
    return made


def _remove_key(db: Connection, caller: Caller, key: int, now: float) -> None:
    keys.remove_key(db, caller.account.id, key)
    audit.record(db, caller.by, "key-removed", f"key {key}", now)


def _change_email(db: Connection, caller: Caller, email: str, now: float) -> Hidden | None:
    """None: the address has an account already, which is told to nobody."""
    audit.record(db, caller.by, "email-asked", _subject(caller), now)
    if accounts.account_by_email(db, email) is not None:
        return None
    return links.make_link(db, Purpose.EMAIL, email, now, name=caller.account.name, account=caller.account.id)


def _export(db: Connection, caller: Caller, now: float) -> dict[str, Any]:
    account = caller.account
    return {
        "account": {
            "id": account.id,
            "email": account.email,
            "name": account.name,
            "role": account.role.value,
            "zone": account.zone,
            "language": account.language,
            "created_at": account.created_at,
            "features": sorted(account.features),
        },
        "passkeys": [{"name": key.name, "created_at": key.created_at, "used_at": key.used_at} for key in factors.passkeys_of(db, account.id)],
        "has_totp": account.has_totp,
        "keys": [{"name": key.name, "scopes": sorted(key.scopes), "created_at": key.created_at} for key in keys.keys_of(db, account.id)],
        "sign_ins": [
            {"address": login.address, "agent": login.agent, "created_at": login.created_at, "used_at": login.used_at}
            for login in signin.logins_of(db, account, now)
        ],
        "meetings": [
            {"meeting_id": meeting.number, "title": meeting.title, "state": meeting.state.value, "created_at": meeting.created_at}
            for meeting in meetings.list_meetings(db, account)
        ],
        "log": [{"at": made.at, "act": made.act, "address": made.address, "detail": made.detail} for made in audit.records_by(db, account.id)],
    }
