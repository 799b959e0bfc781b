"""How people come in: sign-in, second factor, sign-up, invitation, forgotten password. Rules, hashing and mail, joined. No HTTP.

Whether an account exists is told to nobody. A sign-in takes the same reads, the same hash and the same writes with an account and without
one; a sign-up or a forgotten password is answered `ANSWERED_AFTER` seconds from when its work began, whatever it was, and only the mailbox
learns more.

Pages and API call these methods. What they return for a cookie is `SignedIn.cookie`; each step that proves something returns a fresh one.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import structlog
import trio
from sqlalchemy import Connection

from manager import accounts, audit, factors, keys, links, signin
from manager.accounts import Account
from manager.audit import By
from manager.callers import Caller, Stage
from manager.errors import (
    AddressNotAllowed,
    Fields,
    MailFailed,
    RequestMalformed,
    SignInLocked,
    SignInNeeded,
    SignInRefused,
    SignUpClosed,
    StoreUnavailable,
    Throttled,
)
from manager.hidden import Hidden
from manager.letters import account_letter
from manager.links import Link, Purpose
from manager.mail import Letter, Mail
from manager.passwords import Hashing, check_password
from manager.policy import Policy, policy_of
from manager.seal import Seal
from manager.settings import Settings
from manager.store import Store
from manager.throttle import Rate, Throttle

ANSWERED_AFTER: Final = 0.25
"""Seconds; longer than the work takes."""
HOUR: Final = 3600.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SignedIn:
    """`cookie`: 64 hex digits, for the browser alone. `caller.login.stage` says what is due next."""

    cookie: str = field(repr=False)
    caller: Caller


class Entrance:
    """Made once. `site`: https://HOST[:PORT], where the pages are. `clock`: seconds since 1970."""

    def __init__(
        self, store: Store, mail: Mail, hashing: Hashing, seal: Seal, settings: Settings, site: str, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._mail = mail
        self._hashing = hashing
        self._seal = seal
        self._site = site
        self._host = urlsplit(site).hostname or ""
        self._clock = clock
        self._tries = Throttle(Rate(settings.sign_in_rate, settings.sign_in_burst), Rate(settings.sign_ins_rate, settings.sign_ins_burst))

    async def run(self) -> None:
        """Forget old sign-ins, at the start and every hour."""
        while True:
            with suppress(StoreUnavailable):
                await self._store.write(signin.end_old, self._clock())
            await trio.sleep(HOUR)

    async def policy(self) -> Policy:
        """What holds for everybody: whether strangers may sign up, for instance."""
        return await self._store.look(policy_of)

    async def caller_of_cookie(self, cookie: str, address: str) -> Caller:
        """Who is signed in, at whatever stage. Raises `SignInNeeded`, `AddressNotAllowed`."""
        bits = signin.parse_cookie_untrusted(cookie)
        caller, unnoted = await self._store.look(signin.caller_of_cookie, bits, address, self._clock())
        if unnoted and caller.login is not None:
            await self._store.write(signin.touch, caller.login.id, address, self._clock())
        return caller

    async def caller_of_key(self, key: str, address: str) -> Caller:
        """Whose API key this is. Raises `KeyRefused`."""
        bits = keys.parse_key_untrusted(key)
        caller, unnoted = await self._store.look(keys.caller_of_key, bits, address, self._clock())
        if unnoted is not None:
            await self._store.write(keys.note_use, unnoted, self._clock())
        return caller

    # sign-in

    async def sign_in(self, email: str, password: str, address: str, agent: str = "") -> SignedIn:
        """The first step. Raises `SignInRefused`, `SignInLocked`, `Throttled`, `AddressNotAllowed`, `RequestMalformed` (the e-mail's form)."""
        self._charge(address)
        check = Fields()
        with check("email"):
            email = accounts.clean_email(email)
        check.finish()
        subjects = (signin.mail_subject(email), signin.address_subject(address))
        tried = await self._store.write(_try_sign_in, email, subjects, By(None, address), self._clock())
        if tried is None:
            raise AddressNotAllowed
        account, verifier = tried
        right = await self._hashing.verify(verifier, password)
        begun = await self._store.write(_judge_sign_in, account, right, subjects, By(None, address), agent, self._clock())
        return _signed_in(begun)

    async def use_code(self, caller: Caller, code: str) -> SignedIn:
        """The second step, by TOTP or a recovery code. Raises `SignInRefused`, `SignInLocked`, `StepMissing`."""
        caller.at(Stage.FACTOR)
        await self._store.write(_try_code, caller.account.id, self._clock())
        return _signed_in(await self._store.write(_use_code, caller, code, self._seal, self._clock()))

    async def ask_passkey(self, caller: Caller) -> str:
        """JSON for `navigator.credentials.get`, at the second step or to prove oneself again."""
        login = caller.at(Stage.FACTOR, Stage.COMPLETE, Stage.PASSWORD)
        return await self._store.write(factors.ask_passkey, caller.account.id, login.id, self._host)

    async def use_passkey(self, caller: Caller, answer: str) -> SignedIn:
        """The second step, by passkey; `answer`: the browser's, in JSON. Raises as `use_code`."""
        caller.at(Stage.FACTOR, Stage.COMPLETE, Stage.PASSWORD)
        await self._store.write(_try_code, caller.account.id, self._clock())
        return _signed_in(await self._store.write(_use_passkey, caller, answer, self._host, self._site, self._clock()))

    async def sign_out(self, caller: Caller) -> None:
        """End this sign-in."""
        if caller.login is not None:
            await self._store.write(_sign_out, caller, caller.login.id, self._clock())

    # accounts that come into being

    async def sign_up(self, email: str, address: str, *, language: str = "en") -> None:
        """A letter goes to the address; `accept` makes the account. Raises `SignUpClosed`, `Throttled`, `RequestMalformed` (its fields)."""
        self._charge(address)
        if not (await self.policy()).sign_up:
            raise SignUpClosed
        check = Fields()
        with check("email"):
            email = accounts.clean_email(email)
        with check("language"):
            accounts.clean_language(language)
        check.finish()
        asked = trio.current_time()
        bits = await self._store.write(_sign_up, email, self._clock())
        if bits is None:
            letter = account_letter("exists", language, email, site=self._site, link=f"{self._site}/sign-in")
        else:
            link = links.address_of(self._site, Purpose.SIGN_UP, bits)
            letter = account_letter(Purpose.SIGN_UP, language, email, site=self._site, link=link)
        self._post_quietly(letter)
        await trio.sleep_until(asked + ANSWERED_AFTER)

    async def link(self, text: str) -> Link:
        """What a one-time link is about; it is not used up. Raises `LinkWorthless`."""
        return await self._store.look(links.find_link, links.parse_link_untrusted(text), self._clock())

    async def accept(
        self, text: str, name: str, password: str, address: str, agent: str = "", *, zone: str = "UTC", language: str = "en"
    ) -> SignedIn:
        """Take up an invitation or a sign-up: an account with this password, signed in. Raises `LinkWorthless`, `AccountExists`,
        `RequestMalformed` (its fields)."""
        bits = links.parse_link_untrusted(text)
        link = await self._store.look(links.find_link, bits, self._clock())
        _, name, password = _checked(link.email, name, password)
        verifier = await self._hashing.make_verifier(password)
        return _signed_in(await self._store.write(_accept, bits, name, verifier, zone, language, address, agent, self._clock()))

    async def confirm_email(self, caller: Caller, text: str) -> SignedIn:
        """The caller's new address is real. Who has the mailbox alone is not let in: the address may have been mistyped.

        Raises `LinkWorthless`, `AccountExists`, `StepMissing`, `SignInNeeded` for another account's link.
        """
        caller.at(Stage.COMPLETE)
        return _signed_in(await self._store.write(_confirm_email, caller, links.parse_link_untrusted(text), self._clock()))

    async def rate(self, password: str, email: str = "", name: str = "") -> tuple[int, str | None]:
        """How guessable a password is, 0 to 4, and what forbids it, if anything. Raises `Throttled`."""
        problem = None
        try:
            check_password(password, email, name)
        except RequestMalformed as wrong:
            problem = wrong.detail
        return await self._hashing.strength(password, email, name), problem

    # a forgotten password

    async def forgot(self, email: str, address: str) -> None:
        """A letter goes to the address if it has an account. Raises `Throttled`, `RequestMalformed` (the e-mail's form)."""
        self._charge(address)
        check = Fields()
        with check("email"):
            email = accounts.clean_email(email)
        check.finish()
        asked = trio.current_time()
        account, bits = await self._store.write(_forgot, email, By(None, address), self._clock())
        if account is not None:
            link = links.address_of(self._site, Purpose.RESET, bits)
            self._post_quietly(account_letter(Purpose.RESET, account.language, email, site=self._site, link=link, name=account.name))
        await trio.sleep_until(asked + ANSWERED_AFTER)

    async def reset(self, text: str, password: str, address: str, agent: str = "") -> SignedIn:
        """A new password, by a link of `forgot`; every other sign-in and every API key end. A second factor is still asked for.

        Raises `LinkWorthless`, `RequestMalformed` (the password).
        """
        bits = links.parse_link_untrusted(text)
        link = await self._store.look(links.find_link, bits, self._clock())
        check = Fields()
        with check("password"):
            password = check_password(password, link.email)
        check.finish()
        verifier = await self._hashing.make_verifier(password)
        return _signed_in(await self._store.write(_reset, bits, verifier, address, agent, self._clock()))

    def _charge(self, address: str) -> None:
        wait = self._tries.take(address, trio.current_time())
        if wait > 0:
            raise Throttled(retry_after=wait)

    def _post_quietly(self, letter: Letter) -> None:
        """A full queue is the operator's to see, not the asker's: it would tell that there was a letter."""
        try:
            self._mail.post(letter)
        except MailFailed:
            log.warning("mail-dropped", kind=letter.kind)


def _checked(email: str, name: str, password: str) -> tuple[str, str, str]:
    check = Fields()
    with check("email"):
        email = accounts.clean_email(email)
    with check("name"):
        name = accounts.clean_name(name)
    with check("password"):
        password = check_password(password, email, name)
    check.finish()
    return email, name, password


def _signed_in(begun: tuple[Hidden, Caller] | None) -> SignedIn:
    """Raises `SignInRefused` for None: the rule that says so must commit its count first."""
    if begun is None:
        raise SignInRefused
    cookie, caller = begun
    return SignedIn(signin.cookie_text(cookie), caller)


# rules


def _try_sign_in(db: Connection, email: str, subjects: tuple[bytes, ...], by: By, now: float) -> tuple[Account | None, str | None] | None:
    """None: nobody may sign in from there, which is said before any password is looked at: it must not tell which one is right."""
    if not policy_of(db).allows(by.address):
        audit.record(db, by, "sign-in-refused", "nobody", now, "address")
        return None
    locked = signin.locked_for(db, subjects, now)
    if locked > 0:
        raise SignInLocked(retry_after=locked)
    signin.fail(db, subjects, now)
    account = accounts.account_by_email(db, email)
    verifier = accounts.verifier_of(db, -1 if account is None else account.id)
    return account, verifier if account is not None and account.active else None


def _judge_sign_in(
    db: Connection, account: Account | None, right: bool, subjects: tuple[bytes, ...], by: By, agent: str, now: float
) -> tuple[Hidden, Caller] | None:
    if account is None or not right:
        audit.record(db, by, "sign-in-refused", "nobody" if account is None else f"account {account.id}", now)
        return None
    signin.forgive(db, subjects[:1])
    signin.take_back(db, subjects[1])
    by = By(account.id, by.address)
    cookie, caller = signin.begin(db, account, False, by.address, agent, now)
    assert caller.login is not None
    audit.record(db, by, "sign-in", f"account {account.id}", now, f"password, then {caller.login.stage}")
    return cookie, caller


def _try_code(db: Connection, account: int, now: float) -> None:
    subject = signin.code_subject(account)
    locked = signin.locked_for(db, [subject], now)
    if locked > 0:
        raise SignInLocked(retry_after=locked)
    signin.fail(db, [subject], now)


def _use_code(db: Connection, caller: Caller, code: str, seal: Seal, now: float) -> tuple[Hidden, Caller] | None:
    try:
        kind = factors.prove_code(db, caller.account.id, code, seal, now)
    except SignInRefused:
        audit.record(db, caller.by, "sign-in-refused", f"account {caller.account.id}", now, "code")
        return None
    return _proved(db, caller, kind, now)


def _use_passkey(db: Connection, caller: Caller, answer: str, host: str, site: str, now: float) -> tuple[Hidden, Caller] | None:
    assert caller.login is not None
    try:
        factors.prove_passkey(db, caller.account.id, caller.login.id, answer, host, site, now)
    except SignInRefused:
        audit.record(db, caller.by, "sign-in-refused", f"account {caller.account.id}", now, "passkey")
        return None
    return _proved(db, caller, "passkey", now)


def _proved(db: Connection, caller: Caller, kind: str, now: float) -> tuple[Hidden, Caller]:
    signin.forgive(db, [signin.code_subject(caller.account.id)])
    audit.record(db, caller.by, "second-factor", f"account {caller.account.id}", now, kind)
    return signin.advance(db, caller, True, now)


def _sign_out(db: Connection, caller: Caller, login: int, now: float) -> None:
    if signin.end(db, caller.account.id, login):
        audit.record(db, caller.by, "sign-out", f"account {caller.account.id}", now)


def _sign_up(db: Connection, email: str, now: float) -> Hidden | None:
    """None: there is an account. The same writes either way."""
    exists = accounts.account_by_email(db, email) is not None
    bits = links.make_link(db, Purpose.SIGN_UP, email, now)
    if exists:
        links.use_link(db, bits, now, Purpose.SIGN_UP)
    return None if exists else bits


def _accept(
    db: Connection, bits: Hidden, name: str, verifier: str, zone: str, language: str, address: str, agent: str, now: float
) -> tuple[Hidden, Caller]:
    link = links.use_link(db, bits, now, Purpose.INVITE, Purpose.SIGN_UP)
    account = accounts.add_account(db, link.email, name, link.role, now, verifier=verifier, zone=zone, language=language)
    how = "signed up" if link.purpose is Purpose.SIGN_UP else f"invited as {link.role}"
    audit.record(db, By(account.id, address), "account-made", f"account {account.id}", now, how)
    return signin.begin(db, account, False, address, agent, now)


def _confirm_email(db: Connection, caller: Caller, bits: Hidden, now: float) -> tuple[Hidden, Caller]:
    link = links.use_link(db, bits, now, Purpose.EMAIL)
    if link.account != caller.account.id:
        raise SignInNeeded
    accounts.set_email(db, link.account, link.email)
    audit.record(db, caller.by, "email-changed", f"account {link.account}", now)
    return signin.advance(db, caller, True, now)


def _forgot(db: Connection, email: str, by: By, now: float) -> tuple[Account | None, Hidden]:
    account = accounts.account_by_email(db, email)
    known = account is not None and account.active
    bits = links.make_link(db, Purpose.RESET, email, now, account=None if account is None else account.id)
    if not known:
        links.use_link(db, bits, now, Purpose.RESET)
    audit.record(db, by, "password-forgotten", f"account {account.id}" if account is not None else "nobody", now)
    return (account if known else None), bits


def _reset(db: Connection, bits: Hidden, verifier: str, address: str, agent: str, now: float) -> tuple[Hidden, Caller]:
    link = links.use_link(db, bits, now, Purpose.RESET)
    assert link.account is not None
    accounts.set_password(db, link.account, verifier, now)
    signin.end_all(db, link.account)
    signin.forgive(db, [signin.mail_subject(link.email)])
    removed = keys.remove_keys(db, link.account)
    audit.record(db, By(link.account, address), "password-changed", f"account {link.account}", now, f"by mail, {removed} keys removed")
    return signin.begin(db, accounts.account_of(db, link.account), False, address, agent, now)
