"""Passkeys: what opens an account is this key, on this site, for this challenge, and not copied. Real signatures, no browser."""

import json
from collections.abc import Callable

import pytest

from manager.callers import Caller, Stage
from manager.entrance import SignedIn
from manager.errors import RequestMalformed, SignInLocked, SignInRefused
from manager.store import Store
from tests.manager.authenticator import PRESENT, Authenticator
from tests.manager.people import Village, village

SITE = "https://meet.example.org"


async def enrolled(v: Village, email: str = "ann@example.org", *, counts: bool = True) -> Authenticator:
    """A new account with one passkey."""
    caller = await v.join(email)
    key = Authenticator(SITE, counts=counts)
    await v.house.own.finish_passkey(caller, key.create(await v.house.own.begin_passkey(caller)), "laptop")
    return key


async def half(v: Village, email: str = "ann@example.org") -> Caller:
    """Signed in with the password; the factor is due."""
    caller = (await v.sign_in(email)).caller
    assert caller.login is not None
    assert caller.login.stage is Stage.FACTOR
    return caller


async def enter(v: Village, key: Authenticator, email: str = "ann@example.org", **changed: str) -> SignedIn:
    caller = await half(v, email)
    return await v.house.entrance.use_passkey(caller, key.get(await v.house.entrance.ask_passkey(caller), **changed))


@pytest.mark.parametrize("counts", [True, False], ids=["with a counter", "without one"])
async def test_R5_a_passkey_opens_its_account_again_and_again(store: Store, counts: bool) -> None:
    async with village(store) as v:
        key = await enrolled(v, counts=counts)
        for _ in range(3):
            signed_in = await enter(v, key)
            assert signed_in.caller.login is not None
            assert signed_in.caller.login.stage is Stage.COMPLETE


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": "https://meet.example.org.evil.example"},
        {"origin": "http://meet.example.org"},
        {"challenge": "A" * 43},
        {"type": "webauthn.create"},
    ],
    ids=["another site", "in clear", "another challenge", "another ceremony"],
)
async def test_R5_what_was_signed_for_something_else_opens_nothing(sqlite_store: Store, changed: dict[str, str]) -> None:
    async with village(sqlite_store) as v:
        key = await enrolled(v)
        with pytest.raises(SignInRefused):
            await enter(v, key, **changed)
        await enter(v, key)


async def test_R5_an_answer_counts_once(sqlite_store: Store) -> None:
    async with village(sqlite_store) as v:
        key = await enrolled(v, counts=False)
        caller = await half(v)
        answer = key.get(await v.house.entrance.ask_passkey(caller))
        await v.house.entrance.use_passkey(caller, answer)
        again = await half(v)
        with pytest.raises(SignInRefused):  # no challenge is under way
            await v.house.entrance.use_passkey(again, answer)
        await v.house.entrance.ask_passkey(again)
        with pytest.raises(SignInRefused):
            await v.house.entrance.use_passkey(again, answer)


async def test_R5_a_cloned_key_is_noticed_by_its_counter(sqlite_store: Store) -> None:
    async with village(sqlite_store) as v:
        key = await enrolled(v)
        await enter(v, key)
        clone = Authenticator(SITE, count=key.count - 1, key=key.key, credential=key.credential)
        with pytest.raises(SignInRefused):
            await enter(v, clone)
        await enter(v, key)


def _another_key(key: Authenticator) -> Authenticator:
    return Authenticator(SITE, credential=key.credential)


def _another_name(key: Authenticator) -> Authenticator:
    return Authenticator(SITE, key=key.key)


def _nobody_there(key: Authenticator) -> Authenticator:
    return Authenticator(SITE, key=key.key, credential=key.credential, flags=0)


@pytest.mark.parametrize("other", [_another_key, _another_name, _nobody_there])
async def test_R5_another_key_opens_nothing(sqlite_store: Store, other: Callable[[Authenticator], Authenticator]) -> None:
    async with village(sqlite_store) as v:
        key = await enrolled(v)
        with pytest.raises(SignInRefused):
            await enter(v, other(key))


async def test_R5_a_passkey_opens_no_other_account(sqlite_store: Store) -> None:
    async with village(sqlite_store) as v:
        key = await enrolled(v)
        await enrolled(v, "ben@example.org")
        with pytest.raises(SignInRefused):
            await enter(v, key, "ben@example.org")


async def test_R5_a_removed_passkey_opens_nothing(sqlite_store: Store) -> None:
    async with village(sqlite_store) as v:
        key = await enrolled(v)
        caller = (await enter(v, key)).caller
        second = Authenticator(SITE)
        made = await v.house.own.finish_passkey(caller, second.create(await v.house.own.begin_passkey(caller)), "phone")
        assert made.recovery_codes == []  # there are some already
        caller = made.signed_in.caller
        first = next(one for one in (await v.house.own.security(caller)).passkeys if one.name == "laptop")
        await v.house.own.remove_passkey(caller, first.id)
        with pytest.raises(SignInRefused):
            await enter(v, key)
        await enter(v, second)


async def test_R5_without_verification_a_passkey_is_still_a_second_factor(sqlite_store: Store) -> None:
    """It is asked for, and not every key can; the password has been shown before."""
    async with village(sqlite_store) as v:
        key = await enrolled(v)
        key.flags = PRESENT
        await enter(v, key)


async def test_R5_guesses_of_passkeys_lock_the_factor(sqlite_store: Store) -> None:
    async with village(sqlite_store) as v:
        key = await enrolled(v)
        for _ in range(5):
            with pytest.raises(SignInRefused):
                await enter(v, _another_key(key))
        with pytest.raises(SignInLocked):
            await enter(v, key)


@pytest.mark.parametrize(("origin", "flags"), [("https://evil.example", PRESENT), (SITE, 0)], ids=["another site", "nobody there"])
async def test_R5_a_foreign_registration_is_refused_beside_the_field(sqlite_store: Store, origin: str, flags: int) -> None:
    async with village(sqlite_store) as v:
        caller = await v.join("ann@example.org")
        answer = Authenticator(origin, flags=flags).create(await v.house.own.begin_passkey(caller))
        with pytest.raises(RequestMalformed) as caught:
            await v.house.own.finish_passkey(caller, answer, "laptop")
        assert list(caught.value.fields) == ["passkey"]
        assert not (await v.house.own.security(caller)).passkeys


async def test_R5_one_passkey_is_registered_once_and_by_one_account(sqlite_store: Store) -> None:
    async with village(sqlite_store) as v:
        key = await enrolled(v)
        ben = await v.join("ben@example.org")
        with pytest.raises(RequestMalformed):
            await v.house.own.finish_passkey(ben, key.create(await v.house.own.begin_passkey(ben)), "mine")
        await enter(v, key)


@pytest.mark.parametrize("answer", ["", "{}", "[]", "null", "[" * 5000, json.dumps({"id": 1}), "\ud800"])
async def test_R5_what_is_no_answer_is_refused_by_name(sqlite_store: Store, answer: str) -> None:
    async with village(sqlite_store) as v:
        await enrolled(v)
        caller = await half(v)
        await v.house.entrance.ask_passkey(caller)
        with pytest.raises(SignInRefused):
            await v.house.entrance.use_passkey(caller, answer)
        ben = await v.join("ben@example.org")
        await v.house.own.begin_passkey(ben)
        with pytest.raises(RequestMalformed):
            await v.house.own.finish_passkey(ben, answer, "laptop")
