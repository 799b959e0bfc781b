"""What an attacker tries besides guessing: stale links, stolen databases, other people's keys and cookies, foreign hosts."""

import re
import time
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
import trio
import trio.testing
from sqlalchemy import text

from manager import accounts, keys, passwords
from manager.accounts import AccountRole
from manager.api import create_app
from manager.callers import Scope
from manager.errors import LinkWorthless, SettingsMalformed, SignInNeeded, SignInRefused, Throttled
from manager.hidden import Hidden
from manager.house import furnish
from manager.nodes import Nodes
from manager.operations import OPERATIONS, WORDS, Operation
from manager.passwords import Hashing
from manager.seal import FILE, Seal
from manager.settings import load_settings
from manager.site.app import create_site
from manager.site.visit import Site
from manager.site.web import SESSION
from manager.store import Store
from net.pki import PeerName
from tests.manager.people import HERE, PASSWORD, village

KEY = Hidden(b"k" * 20)


async def test_G15_a_new_password_voids_what_was_sent_before(sqlite_store: Store) -> None:
    """Who was signed in for a while may have asked for another e-mail address: its letter must open nothing afterwards."""
    async with village(sqlite_store) as v:
        caller = await v.join("ann@example.org")
        await v.house.own.change_email(caller, "thief@example.net")
        planted = v.link()
        await v.house.own.change_password(caller, PASSWORD, "another horse 8")
        with pytest.raises(LinkWorthless):
            await v.house.entrance.confirm_email(caller, planted)


async def test_G15_a_mistyped_new_address_lets_nobody_in(sqlite_store: Store) -> None:
    """The mailbox may be a stranger's: its letter counts only together with a sign-in of the account itself."""
    async with village(sqlite_store) as v:
        caller, other = await v.join("ann@example.org"), await v.join("ben@example.org")
        await v.house.own.change_email(caller, "somebody@example.net")
        with pytest.raises(LinkWorthless):
            await v.house.entrance.accept(v.link(), "Somebody", PASSWORD, HERE)
        with pytest.raises(SignInNeeded):
            await v.house.entrance.confirm_email(other, v.link())
        after = await v.house.entrance.confirm_email(caller, v.link())  # the link is still good
        assert after.caller.account.email == "somebody@example.net"
        with pytest.raises(LinkWorthless):
            await v.house.entrance.confirm_email(after.caller, v.link())


async def test_G15_a_new_address_voids_letters_to_the_old_one(sqlite_store: Store) -> None:
    async with village(sqlite_store) as v:
        caller = await v.join("ann@example.org")
        await v.house.own.change_email(caller, "ann@example.net")
        confirm = v.link()
        await v.house.entrance.forgot("ann@example.org", HERE)
        reset = v.link()
        await v.house.entrance.confirm_email(caller, confirm)
        with pytest.raises(LinkWorthless):
            await v.house.entrance.reset(reset, "another horse 8", HERE)


async def test_G15_a_stolen_database_makes_no_code(sqlite_store: Store) -> None:
    async with village(sqlite_store) as v:
        caller = await v.join("ann@example.org")
        begun = await v.house.own.begin_totp(caller)
        raw = pyotp.TOTP(begun.key).byte_secret()
        pending = sqlite_store.read_now(lambda db: db.execute(text("SELECT totp FROM logins")).scalar_one())
        await v.house.own.finish_totp(caller, pyotp.TOTP(begun.key).at(v.now))
        kept = sqlite_store.read_now(lambda db: db.execute(text("SELECT totp FROM accounts")).scalar_one())
        assert raw not in pending
        assert raw not in kept
        signed_in = (await v.sign_in("ann@example.org")).caller
        v.now += 30
        code = pyotp.TOTP(begun.key).at(v.now)
    async with village(sqlite_store) as elsewhere:  # the same database, without the key that is beside the certificate
        elsewhere.now = v.now
        with pytest.raises(SignInRefused):
            await elsewhere.house.entrance.use_code(signed_in, code)


def test_a_sealed_key_is_of_one_account_and_one_directory(tmp_path: Path) -> None:
    seal = Seal.in_directory(tmp_path)
    sealed = seal.seal(KEY, 7)
    assert Seal.in_directory(tmp_path).open(sealed, 7) == KEY
    assert seal.open(sealed, 8) is None
    assert Seal().open(sealed, 7) is None
    for damaged in (b"", b"short", sealed.reveal()[:-1]):
        assert seal.open(Hidden(damaged), 7) is None
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / FILE).write_bytes(b"too short")
    with pytest.raises(SettingsMalformed, match="right file"):
        Seal.in_directory(tmp_path)
    with pytest.raises(SettingsMalformed, match="cannot be used"):
        Seal.in_directory(tmp_path / "absent")


async def test_the_meter_of_passwords_cannot_be_used_to_hold_the_manager_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """zxcvbn takes tenths of a second for a long word, and anybody may ask."""
    hashing, rated = Hashing(), trio.Event()

    def slow(password: str, *about: str) -> int:
        trio.from_thread.run_sync(rated.set)  # only from a thread
        trio.from_thread.run(trio.sleep_forever)
        return 0

    monkeypatch.setattr(passwords, "strength", slow)
    async with trio.open_nursery() as nursery:
        for _ in range(passwords.WAITING + 1):
            nursery.start_soon(hashing.strength, "correct horse 7")
        await rated.wait()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Throttled):
            await hashing.strength("correct horse 7")
        nursery.cancel_scope.cancel()


def browser(store: Store) -> httpx.AsyncClient:
    """A client of site and API, as they are served, without a socket."""
    settings = load_settings(None, site="http://localhost:8080")
    house = furnish(store, Nodes(PeerName("home", "manager", "m"), store, time.time), settings, time.time)
    served = create_site(Site(house, time.time), create_app(house))
    return httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://localhost:8080")


async def test_R7_the_api_takes_no_cookie(sqlite_store: Store) -> None:
    """Browsers send cookies with what other sites ask them to: an API that took them would need a defence against that."""
    async with village(sqlite_store) as v:
        v.now = time.time()
        signed_in = await v.house.entrance.sign_in((await v.join("ann@example.org")).account.email or "", PASSWORD, HERE)
    async with browser(sqlite_store) as client:
        headers = {"cookie": f"{SESSION}={signed_in.cookie}"}
        assert (await client.get("/account", headers=headers)).status_code == 200
        assert (await client.get("/api/v1/account", headers=headers)).status_code == 401
        made = await client.post("/api/v1/meetings", json={"title": "planted"}, headers=headers)
        assert made.status_code == 401
        token = {"authorization": f"Bearer session_{signed_in.cookie}"}
        assert (await client.get("/api/v1/account", headers=token)).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example/account?", "localhost:8080@evil.example", 'a"><script>'])
async def test_R7_a_host_header_leads_nowhere(sqlite_store: Store, host: str) -> None:
    async with browser(sqlite_store) as client:
        answer = await client.get("/account", headers={"host": host})
        assert answer.status_code == 303
        assert answer.headers["location"] == "/sign-in?next=/account"
        page = await client.get("/sign-in", headers={"host": host})
        assert "evil" not in page.text
        assert "<script>" not in page.text


async def test_idempotency_keys_of_two_accounts_do_not_meet(app: httpx.AsyncClient, sqlite_store: Store) -> None:
    other = {"authorization": f"Bearer {keys.key_text(sqlite_store.write_now(keys.add_organizer, 'bob', 1.0))}"}
    same = {"idempotency-key": "one"}
    first = await app.post("/meetings", json={"title": "Ann's"}, headers=same)
    second = await app.post("/meetings", json={"title": "Ann's"}, headers=same | other)
    again = await app.post("/meetings", json={"title": "Ann's"}, headers=same)
    assert first.status_code == second.status_code == 201
    assert first.json()["meeting_id"] != second.json()["meeting_id"]
    assert again.json() == first.json()


GUARDED = [operation for operation in OPERATIONS if operation.scope is not None or operation.people]


def call(operation: Operation) -> dict[str, Any]:
    """The operation's own example."""
    path = re.sub(r"\{(\w+)\}", lambda word: WORDS[word[1]].example, operation.path)
    return {"method": operation.method, "url": path} | ({"json": operation.example} if operation.example else {})


async def test_G14_every_call_asks_who_calls_and_what_for(sqlite_store: Store) -> None:
    """Nobody, a key without the scope, a key where a person is asked for, an organizer where an administrator is."""
    assert len(GUARDED) > 40
    async with village(sqlite_store) as v:
        v.now = time.time()
        person = await v.join("ann@example.org")
        weak = {
            scope: (await v.house.own.make_key(person, f"without {scope}", [other for other in Scope if other is not scope]))[1]
            for scope in Scope
        }
        every = (await v.house.own.make_key(person, "every", list(Scope)))[1]
    async with browser(sqlite_store) as client:

        async def said(operation: Operation, key: str | None) -> tuple[int, str]:
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            answer = await client.request(**call(operation), headers=headers)
            return answer.status_code, answer.json().get("name", "")

        for operation in GUARDED:
            assert await said(operation, None) == (401, "key-refused"), operation
            if operation.scope is not None:
                assert await said(operation, weak[operation.scope]) == (403, "scope-missing"), operation
            if operation.people:
                assert await said(operation, every) == (401, "sign-in-needed"), operation
            if operation.path.startswith("/api/v1/admin/"):
                assert await said(operation, every) == (403, "not-permitted"), operation


async def test_G14_an_external_administrator_sees_no_policy_audit_log_or_node(sqlite_store: Store) -> None:
    async with village(sqlite_store) as v:
        v.now = time.time()
        key = (await v.house.own.make_key(await v.join("eve@example.org", AccountRole.EXTERNAL_ADMIN), "all", list(Scope)))[1]
        await v.join("ida@example.org", AccountRole.INTERNAL_ADMIN)
        internal = sqlite_store.read_now(accounts.account_by_email, "ida@example.org")
        assert internal is not None
    async with browser(sqlite_store) as client:
        headers = {"authorization": f"Bearer {key}"}
        for path in ("policy", "audit", "audit/head", "nodes"):
            assert (await client.get(f"/api/v1/admin/{path}", headers=headers)).status_code == 403, path
        one = f"/api/v1/admin/accounts/{internal.id}"
        assert (await client.get(one, headers=headers)).status_code == 404
        assert (await client.patch(one, json={"active": False}, headers=headers)).status_code == 404
        assert (await client.delete(one, headers=headers)).status_code == 404
        for path in ("reset-factors", "sign-out"):
            assert (await client.post(f"{one}/{path}", headers=headers)).status_code == 404, path
        invitation = {"email": "x@example.org", "name": "X", "role": "external-admin"}
        assert (await client.post("/api/v1/admin/invitations", json=invitation, headers=headers)).status_code == 403
