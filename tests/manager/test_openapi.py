"""The API's description and the API are one: examples, answers, refusals, and what schemathesis makes up."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from manager import desk, entrance, openapi
from manager.accounts import AccountRole
from manager.api import create_app
from manager.callers import Scope
from manager.keys import key_text, make_key
from manager.operations import OPERATIONS, WORDS, Operation
from manager.store import Store
from net.http import serve_asgi
from net.listener import addresses, listen
from tests.manager.people import Village, village

ROOT = Path(__file__).parent.parent.parent


def ids(operation: Operation) -> str:
    return operation.name


def test_the_document_in_docs_is_the_one_that_is_served() -> None:
    assert (ROOT / "docs" / "openapi.json").read_text() == openapi.text(), "run `python -m manager.openapi`"


@pytest.mark.parametrize("operation", [op for op in OPERATIONS if op.example], ids=ids)
def test_every_example_is_taken(operation: Operation) -> None:
    assert msgspec.json.decode(json.dumps(operation.example), type=operation.takes)


def test_every_body_has_an_example_and_every_word_matches_its_own() -> None:
    assert all(re.fullmatch(word.pattern, word.example) for word in WORDS.values())
    assert [op.name for op in OPERATIONS if op.takes.__name__ != "Nothing" and not op.example] == []
    assert len({op.name for op in OPERATIONS}) == len(OPERATIONS)


@pytest.fixture
async def called(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Village, str, dict[str, str]]]:
    """The API in clear on a free port, and an internal administrator's key with every scope."""
    monkeypatch.setattr(desk, "REFUSED_AFTER", 0.0)
    monkeypatch.setattr(entrance, "ANSWERED_AFTER", 0.0)
    limits: dict[str, Any] = {f"{name}_{kind}": 1e6 for name in ("call", "calls", "stranger", "strangers") for kind in ("rate", "burst")}
    async with village(sqlite_store, **limits) as v:
        root = await v.join("root@example.org", AccountRole.INTERNAL_ADMIN)
        key = sqlite_store.write_now(make_key, root.account.id, "all", list(Scope), v.now)[1]
        listeners = await listen("127.0.0.1", 0)
        base = f"http://127.0.0.1:{addresses(listeners)[0][1]}"
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_asgi, create_app(v.house), listeners, None, grace=0.1))
            yield v, base, {"authorization": f"Bearer {key_text(key)}"}
            nursery.cancel_scope.cancel()


ENDING = ("sign_out", "delete_own_account", "change_password", "end_sign_in", "delete_account", "sign_account_out")
"""What may end the caller's own sign-in: called by somebody who may be lost."""


@pytest.mark.parametrize("ending", [False, True], ids=["going on", "ending"])
async def test_schemathesis_finds_nothing(called: tuple[Village, str, dict[str, str]], tmp_path: Path, ending: bool) -> None:
    """Bounded: a few examples of each operation, always the same ones."""
    v, base, _ = called
    assert {operation.name for operation in OPERATIONS} >= set(ENDING)
    await v.join("lost@example.org", AccountRole.INTERNAL_ADMIN)
    signed_in = await v.sign_in("lost@example.org" if ending else "root@example.org")
    chosen = [word for name in ENDING for word in ("--include-operation-id" if ending else "--exclude-operation-id", name)]
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{base}/api/v1/openapi.json", "--seed", "7", "--generation-deterministic"),
        *("--max-examples", "4", "--phases", "examples,fuzzing", "--no-color", "--request-timeout", "10", *chosen),
        *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"),
        *("--header", f"Authorization: Bearer session_{signed_in.cookie}"),
    ]
    result = await trio.run_process(command, cwd=tmp_path, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    assert result.returncode == 0, result.stdout.decode()[-6000:]


async def test_an_idempotency_key_does_it_once(called: tuple[Village, str, dict[str, str]]) -> None:
    v, base, auth = called
    async with httpx.AsyncClient(base_url=f"{base}/api/v1", headers=auth, trust_env=False) as http:
        keyed = {"Idempotency-Key": "one"}
        first = await http.post("/meetings", json={"title": "x"}, headers=keyed)
        again = await http.post("/meetings", json={"title": "x"}, headers=keyed)
        assert (first.status_code, first.content) == (again.status_code, again.content)
        assert again.headers["idempotent-replayed"] == "true"
        other = await http.post("/meetings", json={"title": "y"}, headers=keyed)
        assert (other.status_code, other.json()["name"]) == (409, "idempotency-conflict")
        refused = await http.post("/meetings", json={"title": ""}, headers={"Idempotency-Key": "two"})
        assert refused.status_code == 422  # and the key is free again
        assert (await http.post("/meetings", json={"title": "z"}, headers={"Idempotency-Key": "two"})).status_code == 201
        assert len((await http.get("/meetings")).json()["meetings"]) == 2
        v.now += 86_401
        assert (await http.post("/meetings", json={"title": "y"}, headers=keyed)).status_code == 201
        assert (await http.post("/meetings", json={"title": "y"}, headers={"Idempotency-Key": "x" * 65})).status_code == 422


async def test_a_key_does_what_its_scopes_say_and_no_more(called: tuple[Village, str, dict[str, str]], sqlite_store: Store) -> None:
    """Every operation with a scope, called with a key that has all the others."""
    v, base, _ = called
    async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
        for scope in Scope:
            key = sqlite_store.write_now(make_key, 1, f"all but {scope}", [other for other in Scope if other is not scope], v.now)[1]
            auth = {"authorization": f"Bearer {key_text(key)}"}
            for operation in (op for op in OPERATIONS if op.scope is scope):
                path = re.sub(r"\{(\w+)\}", lambda found: WORDS[found[1]].example, operation.path)
                answer = await http.request(operation.method, path, json=operation.example or None, headers=auth)
                assert (answer.status_code, answer.json()["name"], answer.json()["detail"]) == (403, "scope-missing", scope.value), (
                    operation.name
                )


async def test_G14_an_organizer_reaches_nothing_of_the_administration(called: tuple[Village, str, dict[str, str]], sqlite_store: Store) -> None:
    v, base, _ = called
    ann = await v.join("ann@example.org")
    key = sqlite_store.write_now(make_key, ann.account.id, "all", list(Scope), v.now)[1]
    auth = {"authorization": f"Bearer {key_text(key)}"}
    async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
        for operation in (op for op in OPERATIONS if "/admin/" in op.path):
            path = re.sub(r"\{(\w+)\}", lambda found: WORDS[found[1]].example, operation.path)
            answer = await http.request(operation.method, path, json=operation.example or None, headers=auth)
            assert (answer.status_code, answer.json()["name"]) == (403, "not-permitted"), operation.name
            anonymous = await http.request(operation.method, path, json=operation.example or None)
            assert anonymous.status_code == 401


async def test_signing_in_and_scheduling_by_the_api_alone(called: tuple[Village, str, dict[str, str]]) -> None:
    v, base, auth = called
    async with httpx.AsyncClient(base_url=f"{base}/api/v1", trust_env=False) as http:
        invited = await http.post("/admin/invitations", json={"email": "bob@example.org"}, headers=auth)
        assert invited.status_code == 201, invited.text
        body = {"link": v.link(), "name": "", "password": "short"}
        wrong = await http.post("/links/accept", json=body)
        assert (wrong.status_code, set(wrong.json()["fields"])) == (422, {"name", "password"})
        made = await http.post("/links/accept", json=body | {"name": "Bob", "password": "mill tundra 7"})
        assert made.json()["stage"] == "complete"
        token = {"authorization": f"Bearer {made.json()['token']}"}
        meeting = await http.post("/meetings", json={"title": "x", "starts": "2030-01-01T10:00", "zone": "Asia/Tokyo"}, headers=token)
        assert meeting.json()["begins_at"] == 1893459600.0
        number = meeting.json()["meeting_id"]
        assert (await http.post(f"/meetings/{number}/open", headers=token)).json()["name"] == "meeting-key-missing"
        entry = await http.get(f"/meetings/{number}/entry.ics", headers=token)
        assert entry.headers["content-type"] == "text/calendar; charset=utf-8"
        assert b"TZID:Asia/Tokyo" in entry.content
        edited = await http.patch(f"/meetings/{number}", json={"title": "y"}, headers=token)
        assert (edited.json()["title"], edited.json()["starts"]) == ("y", "2030-01-01T10:00")
        cancelled = await http.post(f"/meetings/{number}/cancel", headers=token)
        assert (cancelled.json()["state"], cancelled.json()["coming"]) == ("cancelled", False)
        assert b"STATUS:CANCELLED" in (await http.get(f"/meetings/{number}/entry.ics", headers=token)).content
        await http.post("/sign-out", headers=token)
        assert (await http.get("/meetings", headers=token)).status_code == 401
