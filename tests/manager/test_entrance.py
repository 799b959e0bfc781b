"""Coming in: passwords, lock-out, factors, links; and that nobody learns who has an account."""

from typing import Any

import pyotp
import pytest
import trio
from sqlalchemy import Connection, event, select

from manager import accounts, audit, entrance, passwords, signin
from manager.accounts import AccountRole
from manager.callers import Stage
from manager.errors import (
    AddressNotAllowed,
    KeyRefused,
    LinkWorthless,
    ProofNeeded,
    RequestMalformed,
    SignInLocked,
    SignInNeeded,
    SignInRefused,
    SignUpClosed,
    StepMissing,
)
from manager.policy import Policy, set_policy
from manager.store import Store, logins
from tests.manager.people import HERE, PASSWORD, Village, village

INTERNAL = AccountRole.INTERNAL_ADMIN


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("abcdef7", "8 characters"),
        ("abcdefgh", "letter and a digit"),
        ("12345678", "letter and a digit"),
        ("password1", "first that anybody"),
        ("ann@example.org", "letter and a digit"),
        ("Ann2@example.org", "first that anybody"),
        ("x1" * 129, "256"),
        ("abcdef7\x00", "control"),
        ("", "8 characters"),
        ("correct horse 7", None),
        ("пароль-é-7", None),
        ("a1" * 128, None),
    ],
    ids=lambda value: str(value)[:20].encode("ascii", "replace").decode(),
)
def test_G15_R4_the_policy_of_passwords(password: str, problem: str | None) -> None:
    if problem is None:
        assert passwords.check_password(password, "ann2@example.org") == password
    else:
        with pytest.raises(RequestMalformed, match=problem):
            passwords.check_password(password, "ann2@example.org")


def test_R4_the_meter_shows() -> None:
    assert passwords.strength("") == 0
    assert passwords.strength("password1") == 0
    assert passwords.strength("mill tundra orbit 7 fence") == 4
    assert passwords.strength("ann.example7", "ann.example") < passwords.strength("ann.example7")
    assert passwords.strength("x1" * 5000) in range(5)


def test_G17_R3_a_verifier_is_slow_and_salted() -> None:
    first, second = (passwords.make_verifier(PASSWORD) for _ in range(2))
    assert first != second
    assert first.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert first.split("$")[:4] == passwords.DUMMY.split("$")[:4]  # an absent account costs the same
    assert passwords.verify(first, PASSWORD)
    assert passwords.verify(passwords.make_verifier("e\u0301 horse 7"), "é horse 7")  # NFC
    for verifier in (first, None, passwords.DUMMY):
        assert not passwords.verify(verifier, "correct horse 8")


async def test_G15_signing_in_by_e_mail(store: Store) -> None:
    async with village(store) as v:
        await v.join("ann@example.org")
        signed_in = await v.sign_in(" ANN@Example.ORG ")
        caller = await v.house.entrance.caller_of_cookie(signed_in.cookie, HERE)
        assert (caller.account.email, caller.login and caller.login.stage) == ("ann@example.org", Stage.COMPLETE)
        assert signed_in.cookie not in repr(signed_in)
        for email, password in (("ann@example.org", "wrong"), ("bob@example.org", PASSWORD)):
            with pytest.raises(SignInRefused):
                await v.sign_in(email, password)
        await v.house.entrance.sign_out(caller)
        with pytest.raises(SignInNeeded):
            await v.house.entrance.caller_of_cookie(signed_in.cookie, HERE)


@pytest.mark.parametrize("email", ["ann@example.org", "nobody@example.org"])
async def test_G16_R7_lock_out_grows_and_the_right_password_waits(store: Store, email: str) -> None:
    """The same answers at the same tries, with an account and without."""
    async with village(store) as v:
        await v.join("ann@example.org")
        waits = []
        for _ in range(8):
            try:
                await v.sign_in(email, "wrong horse 1")
            except SignInLocked as locked:
                waits.append(locked.retry_after or 0.0)
                with pytest.raises(SignInLocked):
                    await v.sign_in(email)  # the right password, for one of them
                v.now += waits[-1]
            except SignInRefused:
                pass
        assert waits == [signin.FIRST, 2 * signin.FIRST, 4 * signin.FIRST][: len(waits)]
        assert len(waits) >= 1
        await v.join("bob@example.org")
        await v.sign_in("bob@example.org")  # others are not locked
        v.now += signin.LONGEST
        if email == "ann@example.org":
            await v.sign_in(email)
            with pytest.raises(SignInRefused):  # forgotten: the count begins anew
                await v.sign_in(email, "wrong horse 1")


async def test_G16_R7_an_address_is_locked_whatever_names_it_tries(store: Store) -> None:
    async with village(store) as v:
        await v.join("ann@example.org")
        for at in range(signin.FREE[b"a"]):
            with pytest.raises(SignInRefused):
                await v.sign_in(f"user{at}@example.org")
        with pytest.raises(SignInLocked):
            await v.sign_in("ann@example.org")
        await v.sign_in("ann@example.org", address="198.51.100.9")


async def test_G16_many_tries_at_once_are_no_more_than_one_after_the_other(store: Store) -> None:
    async with village(store) as v:
        await v.join("ann@example.org")
        outcomes: list[type[Exception]] = []

        async def guess() -> None:
            try:
                await v.sign_in("ann@example.org", "wrong horse 1")
            except (SignInRefused, SignInLocked) as refusal:
                outcomes.append(type(refusal))

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(guess)
        assert outcomes.count(SignInRefused) == signin.FREE[b"m"]


async def test_G18_a_sign_in_does_the_same_work_with_an_account_and_without(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async with village(sqlite_store) as v:
        await v.join("ann@example.org")
        work: list[str] = []
        event.listen(sqlite_store.engine, "before_cursor_execute", lambda _, __, statement, *___: work.append(statement))
        verify = passwords.verify

        def noted(verifier: str | None, password: str) -> bool:
            work.append(f"hash of {(verifier or passwords.DUMMY).split('$')[3]}")
            return verify(verifier, password)

        monkeypatch.setattr(passwords, "verify", noted)
        done = []
        for email, address in (("ann@example.org", "192.0.2.1"), ("nobody@example.org", "192.0.2.2")):
            work.clear()
            with pytest.raises(SignInRefused):
                await v.sign_in(email, "wrong horse 1", address)
            done.append(list(work))
        assert done[0] == done[1]
        assert f"hash of {passwords.DUMMY.split('$')[3]}" in done[0]


@pytest.mark.parametrize("call", ["forgot", "sign_up"])
async def test_G18_the_mailbox_alone_learns_whether_there_is_an_account(store: Store, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with village(store) as v:
        await v.join("ann@example.org")
        store.write_now(set_policy, Policy(sign_up=True))
        monkeypatch.setattr(entrance, "ANSWERED_AFTER", 0.0)
        kinds = []
        for email in ("ann@example.org", "nobody@example.org"):
            v.letters.clear()
            if call == "forgot":
                await v.house.entrance.forgot(email, HERE)
            else:
                await v.house.entrance.sign_up(email, HERE)
            kinds.append([letter.kind for letter in v.letters])
        assert kinds == ([["reset"], []] if call == "forgot" else [["exists"], ["sign-up"]])


async def test_sign_up_needs_the_policy_and_the_mailbox_chooses_the_password(store: Store) -> None:
    """Who asks for an account with somebody else's address chooses nothing of it."""
    async with village(store) as v:
        with pytest.raises(SignUpClosed):
            await v.house.entrance.sign_up("ann@example.org", HERE)
        store.write_now(set_policy, Policy(sign_up=True))
        with pytest.raises(RequestMalformed) as wrong:
            await v.house.entrance.sign_up("ann", HERE, language="xx")
        assert set(wrong.value.fields) == {"email", "language"}
        await v.house.entrance.sign_up("ann@example.org", HERE)
        with pytest.raises(SignInRefused):
            await v.sign_in("ann@example.org")
        with pytest.raises(RequestMalformed) as wrong:
            await v.house.entrance.accept(v.link(), "", "short", HERE)
        assert set(wrong.value.fields) == {"name", "password"}
        signed_in = await v.house.entrance.accept(v.link(), "Ann", PASSWORD, HERE, zone="Europe/Paris")
        assert signed_in.caller.account.zone == "Europe/Paris"
        await v.sign_in("ann@example.org")
        with pytest.raises(LinkWorthless):
            await v.house.entrance.accept(v.link(), "Ann", PASSWORD, HERE)


async def test_a_forgotten_password_is_chosen_anew_and_ends_every_sign_in(store: Store) -> None:
    async with village(store) as v:
        await v.join("ann@example.org")
        before = await v.sign_in("ann@example.org")
        await v.house.entrance.forgot("ann@example.org", HERE)
        first = v.link()
        await v.house.entrance.forgot("ann@example.org", HERE)
        with pytest.raises(LinkWorthless):  # a newer one voids it
            await v.house.entrance.reset(first, "another horse 8", HERE)
        with pytest.raises(RequestMalformed):
            await v.house.entrance.reset(v.link(), "short", HERE)
        await v.house.entrance.reset(v.link(), "another horse 8", HERE)
        with pytest.raises(LinkWorthless):
            await v.house.entrance.reset(v.link(), "another horse 9", HERE)
        with pytest.raises(SignInNeeded):
            await v.house.entrance.caller_of_cookie(before.cookie, HERE)
        with pytest.raises(SignInRefused):
            await v.sign_in("ann@example.org")
        await v.sign_in("ann@example.org", "another horse 8")
        await v.house.entrance.forgot("ann@example.org", HERE)
        v.now += 3601
        with pytest.raises(LinkWorthless):
            await v.house.entrance.reset(v.link(), "another horse 9", HERE)


@pytest.mark.parametrize("way", ["changed", "changed, keys kept", "reset"])
async def test_a_new_password_removes_what_the_old_one_may_have_made(sqlite_store: Store, way: str) -> None:
    async with village(sqlite_store) as v:
        caller, other = await v.join("ann@example.org"), await v.join("ben@example.org")
        (_, mine), (_, theirs) = [await v.house.own.make_key(c, "laptop", ["meetings:read"]) for c in (caller, other)]
        if way == "reset":
            await v.house.entrance.forgot("ann@example.org", HERE)
            await v.house.entrance.reset(v.link(), "another horse 8", HERE)
        else:
            await v.house.own.change_password(caller, PASSWORD, "another horse 8", keep_keys=way == "changed, keys kept")
        if way == "changed, keys kept":
            await v.house.entrance.caller_of_key(mine, HERE)
        else:
            with pytest.raises(KeyRefused):
                await v.house.entrance.caller_of_key(mine, HERE)
        await v.house.entrance.caller_of_key(theirs, HERE)


async def test_R5_a_second_factor_is_asked_for_and_a_code_counts_once(store: Store) -> None:
    async with village(store) as v:
        code = await v.totp(await v.join("ann@example.org"))
        half = await v.sign_in("ann@example.org")
        for attempt in (v.house.diary.meetings, v.house.own.logins, v.house.own.begin_totp):
            with pytest.raises(StepMissing):
                await attempt(half.caller)
        for wrong in ("000000", "", "12345", code.at(v.now - 90), code.at(v.now + 90)):
            with pytest.raises((SignInRefused, SignInLocked)):
                await v.house.entrance.use_code(half.caller, wrong)
            v.now += signin.LONGEST // 30 * 30
            half = await v.sign_in("ann@example.org")
        whole = await v.house.entrance.use_code(half.caller, code.at(v.now))
        with pytest.raises(SignInNeeded):  # fresh bits
            await v.house.entrance.caller_of_cookie(half.cookie, HERE)
        assert await v.house.diary.meetings(whole.caller) == []
        again = await v.sign_in("ann@example.org")
        with pytest.raises(SignInRefused):
            await v.house.entrance.use_code(again.caller, code.at(v.now))


async def test_R5_an_enforced_factor_must_be_set_up_first(store: Store) -> None:
    async with village(store) as v:
        root = await v.join("root@example.org", INTERNAL)
        ann = await v.join("ann@example.org")
        await v.house.administration.change_account(root, ann.account.id, factor_required=True)
        half = await v.sign_in("ann@example.org")
        assert half.caller.login is not None
        assert half.caller.login.stage is Stage.ENROL
        with pytest.raises(StepMissing):
            await v.house.diary.meetings(half.caller)
        await v.totp(half.caller)
        assert (await v.sign_in("ann@example.org")).caller.login.stage is Stage.FACTOR  # type: ignore[union-attr]
        await v.house.administration.set_policy(root, Policy(second_factor="everyone"))
        assert (await v.sign_in("root@example.org")).caller.login.stage is Stage.ENROL  # type: ignore[union-attr]


async def test_R5_changing_the_password_asks_for_the_factor(store: Store) -> None:
    async with village(store) as v:
        code = await v.totp(await v.join("ann@example.org"))
        caller = (await v.house.entrance.use_code((await v.sign_in("ann@example.org")).caller, code.at(v.now))).caller
        v.now += 30
        for current, given in ((PASSWORD, ""), (PASSWORD, "000000"), ("wrong horse 1", code.at(v.now))):
            with pytest.raises(SignInRefused):
                await v.house.own.change_password(caller, current, "another horse 8", given)
        changed = await v.house.own.change_password(caller, PASSWORD, "another horse 8", code.at(v.now))
        assert changed.caller.login is not None
        assert changed.caller.login.stage is Stage.COMPLETE
        assert v.letters[-1].kind == "changed"


async def test_recovery_codes_count_once_and_stand_in_for_a_lost_factor(store: Store) -> None:
    async with village(store) as v:
        caller = await v.join("ann@example.org")
        code = (await v.house.own.begin_totp(caller)).key
        enrolled = await v.house.own.finish_totp(caller, pyotp.TOTP(code).at(v.now))
        assert len(set(enrolled.recovery_codes)) == 10
        half = await v.sign_in("ann@example.org")
        await v.house.entrance.use_code(half.caller, enrolled.recovery_codes[3].upper().replace("-", " "))
        again = await v.sign_in("ann@example.org")
        with pytest.raises(SignInRefused):
            await v.house.entrance.use_code(again.caller, enrolled.recovery_codes[3])
        whole = await v.house.entrance.use_code(again.caller, enrolled.recovery_codes[4])
        assert (await v.house.own.security(whole.caller)).recovery_codes_left == 8
        fresh = await v.house.own.new_recovery_codes(whole.caller)
        assert not set(fresh) & set(enrolled.recovery_codes)


async def test_R4_an_old_password_must_be_changed(store: Store) -> None:
    async with village(store) as v:
        await v.join("ann@example.org")
        store.write_now(set_policy, Policy(password_days=30, absolute_hours=24))
        v.now += 31 * 86_400
        half = await v.sign_in("ann@example.org")
        assert half.caller.login is not None
        assert half.caller.login.stage is Stage.PASSWORD
        with pytest.raises(RequestMalformed):
            await v.house.own.change_password(half.caller, PASSWORD, PASSWORD)
        changed = await v.house.own.change_password(half.caller, PASSWORD, "another horse 8")
        assert await v.house.diary.meetings(changed.caller) == []


async def test_R7_sign_ins_end_when_idle_when_old_and_when_revoked(store: Store) -> None:
    async with village(store) as v:
        await v.join("ann@example.org")
        store.write_now(set_policy, Policy(idle_minutes=10, absolute_hours=1))
        idle, kept = await v.sign_in("ann@example.org"), await v.sign_in("ann@example.org")
        for _ in range(7):
            v.now += 500
            await v.house.entrance.caller_of_cookie(kept.cookie, HERE)
        with pytest.raises(SignInNeeded):
            await v.house.entrance.caller_of_cookie(idle.cookie, HERE)
        v.now += 500
        with pytest.raises(SignInNeeded):
            await v.house.entrance.caller_of_cookie(kept.cookie, HERE)
        first, second = await v.sign_in("ann@example.org"), await v.sign_in("ann@example.org")
        listed = await v.house.own.logins(second.caller)
        assert [login.id for login in listed] == [second.caller.login.id, first.caller.login.id]  # type: ignore[union-attr]
        await v.house.own.end_login(second.caller, first.caller.login.id)  # type: ignore[union-attr]
        with pytest.raises(SignInNeeded):
            await v.house.entrance.caller_of_cookie(first.cookie, HERE)


async def test_R7_old_sign_ins_are_forgotten_with_their_addresses(store: Store) -> None:
    async with village(store) as v:
        await v.join("ann@example.org")
        v.now += 32 * 86_400
        fresh = await v.sign_in("ann@example.org")
        assert fresh.caller.login is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(v.house.run)
            with trio.fail_after(60):
                while await store.read(_logins) != [fresh.caller.login.id]:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


def _logins(db: Connection) -> list[int]:
    return list(db.execute(select(logins.c.id)).scalars())


async def test_R7_addresses_that_are_not_allowed(store: Store) -> None:
    async with village(store) as v:
        await v.join("ann@example.org")
        inside = await v.sign_in("ann@example.org")
        store.write_now(set_policy, Policy(networks=["10.0.0.0/8", "2001:db8::/32"]))
        for address in ("10.1.2.3", "2001:db8::1", "::ffff:10.0.0.1"):
            await v.sign_in("ann@example.org", address=address)
        for address in (HERE, "2001:db9::1", "nonsense", ""):
            with pytest.raises(AddressNotAllowed):
                await v.sign_in("ann@example.org", address=address)
        with pytest.raises(AddressNotAllowed):
            await v.house.entrance.caller_of_cookie(inside.cookie, HERE)
        for email, password in (("ann@example.org", "wrong horse 1"), ("nobody@example.org", PASSWORD)):
            with pytest.raises(AddressNotAllowed):  # the same as with the right password: it would tell which one that is
                await v.sign_in(email, password)
        refused = [record for record in store.read_now(audit.records) if record.act == "sign-in-refused"]
        assert [(record.detail, record.address) for record in refused[:2]] == [("address", HERE), ("address", HERE)]


async def test_what_changes_an_account_needs_a_fresh_proof(store: Store) -> None:
    async with village(store) as v:
        caller = await v.join("ann@example.org")
        v.now += 901
        own = v.house.own
        stale: list[Any] = [lambda: own.begin_totp(caller), lambda: own.make_key(caller, "x", ["host"]), lambda: own.delete(caller)]
        for act in stale:
            with pytest.raises(ProofNeeded):
                await act()
        with pytest.raises(SignInRefused):
            await own.prove(caller, "wrong horse 1")
        await own.prove(caller, PASSWORD)
        fresh = (await v.sign_in("ann@example.org")).caller
        made, key = await own.make_key(fresh, "build", ["meetings:read"], 1)
        assert made.name == "build"
        assert (await v.house.entrance.caller_of_key(key, HERE)).account.email == "ann@example.org"
        v.now += 86_401
        with pytest.raises(KeyRefused):
            await v.house.entrance.caller_of_key(key, HERE)


async def test_G37_every_sign_in_and_administrative_act_is_in_the_log(store: Store) -> None:
    async with village(store) as v:
        root = await v.join("root@example.org", INTERNAL)
        with pytest.raises(SignInRefused):
            await v.sign_in("root@example.org", "wrong horse 1")
        with pytest.raises(SignInRefused):
            await v.sign_in("nobody@example.org", "wrong horse 1")
        await v.sign_in("root@example.org")
        await v.house.administration.invite(root, "ann@example.org", "Ann")
        ann = (await v.house.entrance.accept(v.link(), "Ann", PASSWORD, HERE)).caller
        await v.house.administration.change_account(root, ann.account.id, features_off=["whisper"])
        await v.house.administration.set_policy(root, Policy(sign_up=True))
        await v.house.administration.end_logins(root, ann.account.id)
        await v.house.administration.delete_account(root, ann.account.id)
        acts = [made.act for made in reversed(store.read_now(audit.records))]
        assert acts == [
            *("account-made", "sign-in-refused", "sign-in-refused", "sign-in", "account-invited", "account-made"),
            *("account-changed", "policy-changed", "sign-in-revoked", "account-deleted"),
        ]
        told = repr(store.read_now(audit.records))
        assert "ann@example.org" not in told  # by number: it outlives the account
        assert store.read_now(audit.verify) == len(acts)


def test_G37_as_many_records_are_shown_as_were_asked_for(sqlite_store: Store) -> None:
    def act(db: Connection) -> int:
        for _ in range(130):
            audit.record(db, audit.By(None, ""), "sign-in", "nobody", 1.0)
        return len(audit.records(db, None, 120))

    assert sqlite_store.write_now(act) == 120


async def test_G17_a_dump_holds_verifiers_alone(sqlite_store: Store, tmp_path: Any) -> None:
    async with village(sqlite_store) as v:
        caller = await v.join("ann@example.org", INTERNAL, "canary horse 7")
        signed_in = await v.sign_in("ann@example.org", "canary horse 7")
        _, key = await v.house.own.make_key(signed_in.caller, "build", ["host"])
        await v.house.administration.invite(caller, "bob@example.org")
        codes = (await v.house.own.finish_totp(caller, await _code(v, caller))).recovery_codes
        sqlite_store.close()
        dump = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
        assert b"$argon2id$" in dump
        for secret in ("canary horse 7", signed_in.cookie, key, v.letters[0].text[-45:-2], *codes):
            assert secret.encode() not in dump
        assert bytes.fromhex(signed_in.cookie) not in dump


async def _code(v: Village, caller: Any) -> str:
    return pyotp.TOTP((await v.house.own.begin_totp(caller)).key).at(v.now)


async def test_G21_no_secret_is_logged(store: Store, logged: list[dict[str, Any]]) -> None:
    async with village(store) as v:
        store.write_now(set_policy, Policy(sign_up=True))
        await v.house.entrance.sign_up("canary@example.org", HERE)
        signed_in = await v.house.entrance.accept(v.link(), "Canary", "canary horse 7", HERE)
        await v.house.diary.schedule(signed_in.caller, "canary title")
        with pytest.raises(SignInRefused):
            await v.sign_in("canary@example.org", "canary horse 8")
        told = repr(logged) + repr(signed_in) + repr(v.letters)
        assert "canary horse" not in told
        assert v.link() not in told
        assert signed_in.cookie not in told
        assert "canary@example.org" not in repr(logged)


@pytest.mark.parametrize(
    "email",
    [
        *("", "ann", "@example.org", "ann@", "a b@example.org", "ann@exa mple.org", "ann@-x.org", ".ann@x.org", "a..b@x.org"),
        *("ann@x.org\n.evil", "ann\u202e@x.org", "a" * 65 + "@x.org", "ann@" + "x" * 64 + ".org", "<ann@x.org>", "ann@x.org, bob@x.org"),
        *('"ann"@x.org', "ann@x..org", "\ud800@x.org"),
    ],
    ids=lambda email: email[:12].encode("unicode_escape").decode(),
)
def test_what_is_no_e_mail_address_is_named(email: str) -> None:
    with pytest.raises(RequestMalformed):
        accounts.clean_email(email)


@pytest.mark.parametrize(
    "email", ["ann@example.org", "ann+tag@exämple.org", "ännchen@example.org", "a.b-c_d'e@sub.example.co.uk", "ann@localhost"]
)
def test_an_e_mail_address_has_one_form(email: str) -> None:
    once = accounts.clean_email(email.upper() if email.isascii() else email)
    assert accounts.clean_email(once) == once
    assert once == once.lower()
