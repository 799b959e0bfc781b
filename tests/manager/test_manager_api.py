"""The HTTP API over real TLS: who may what, what a stranger learns, and what bad input is called."""

import json
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from sqlalchemy import event

from manager import desk, diary, meetings, tickets
from manager.accounts import Account
from manager.api import MAX_BODY
from manager.hidden import Hidden
from manager.meetings import Standing
from manager.store import Store
from tests.manager.support import MEETING_KEY, Manage, Running
from wire.ids import MEETING_IDS, MeetingId

WRONG_INVITE = "00000000000000ff"


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and name of a refusal, whose form is checked."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"] == f"urn:parley:problem:{body['name']}"
    assert body["title"].endswith(".")
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, body["name"]


def alike(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All that a stranger sees of an answer but the date."""
    return answer.status_code, answer.content, [(k, v) for k, v in answer.headers.items() if k != "date"]


def absent(*taken: dict[str, Any]) -> int:
    number = MEETING_IDS.start
    while number in [meeting["meeting_id"] for meeting in taken]:
        number += 1
    return number


async def ask(manager: Running, number: int, invite: str | None = None, wait: str | None = None) -> httpx.Response:
    body: dict[str, Any] = {"meeting_id": number} | ({} if invite is None else {"invite": invite})
    return await manager.http.post("/tickets", json=body, params={} if wait is None else {"wait": wait})


async def test_G01_only_organizers_schedule(manage: Manage) -> None:
    async with manage() as manager:
        auth = await manager.add_organizer()
        body = {"title": "x", "meeting_key": MEETING_KEY}
        key = auth["authorization"].removeprefix("Bearer ")
        other = key[:-2] + ("A" if key[-2] != "A" else "E") + key[-1]
        for headers in (
            {},
            {"authorization": key},
            {"authorization": f"Basic {key}"},
            {"authorization": f"Bearer {other}"},
            {"authorization": "Bearer x"},
        ):
            for method, path in (("POST", "/meetings"), ("GET", "/meetings"), ("POST", "/meetings/123456789/open")):
                answer = await manager.http.request(method, path, json=body, headers=headers)
                assert problem(answer) == (401, "key-refused")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert (await manager.http.get("/meetings", headers=auth)).json() == {"meetings": []}
        meeting = await manager.schedule(auth, title="  Weekly ")
        assert meeting["title"] == "Weekly"
        assert meeting["meeting_id"] in MEETING_IDS
        assert len(bytes.fromhex(meeting["invite"])) == 8
        assert meeting["meeting_key"] == MEETING_KEY
        assert (await manager.http.get("/meetings", headers=auth)).json()["meetings"] == [meeting]


async def test_the_ticket_has_all_that_an_endpoint_needs(manage: Manage) -> None:
    async with manage() as manager:
        relay = await manager.relay("relay-1")
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        host = await manager.open(auth, meeting)
        guest = (await ask(manager, meeting["meeting_id"], meeting["invite"])).json()
        assert {name: host[name] for name in ("role", "meeting_id", "title", "meeting_key", "cluster", "relays")} == {
            "role": 1,
            "meeting_id": meeting["meeting_id"],
            "title": "Weekly",
            "meeting_key": MEETING_KEY,
            "cluster": "home",
            "relays": [{"node": "relay-1", "addresses": [["127.0.0.1", 8200]]}],
        }
        assert (guest["role"], guest["session"], guest["secret"]) == (2, host["session"], host["secret"])
        assert guest["participant"] != host["participant"]
        assert len(host["session"]) == 16
        assert len(host["secret"]) == 64
        granted = [(f.session, g.participant, g.role, g.token.hex()) for f in relay.facts for g in f.grants]  # before the answer
        assert granted == [(int(t["session"], 16), t["participant"], t["role"], t["token"]) for t in (host, guest)]
        assert [(f.office, f.term) for f in relay.facts] == [(host["participant"], 1), (0, 0)]


async def test_G20_link_and_typed_id_reach_the_same_session(manage: Manage) -> None:
    async with manage() as manager:
        await manager.relay("relay-1")
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        host = await manager.open(auth, meeting)
        for invite in (None, meeting["invite"]):
            assert (await ask(manager, meeting["meeting_id"], invite)).json()["session"] == host["session"]


async def test_G04_after_the_end_nobody_gets_in(manage: Manage) -> None:
    async with manage() as manager:
        relay = await manager.relay("relay-1")
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        host = await manager.open(auth, meeting)
        for _ in range(2):  # saying it twice changes nothing
            answer = await manager.http.post(f"/sessions/{host['session']}/end", headers=auth)
            assert (answer.status_code, answer.json()) == (200, {})
        assert relay.facts[-1].ended
        assert problem(await ask(manager, meeting["meeting_id"], meeting["invite"])) == (404, "meeting-unavailable")
        assert problem(await ask(manager, meeting["meeting_id"])) == (404, "meeting-unavailable")
        answer = await manager.http.post(f"/meetings/{meeting['meeting_id']}/open", headers=auth)
        assert problem(answer) == (409, "meeting-ended")
        answer = await manager.http.post(f"/sessions/{host['session']}/revoke", json={"participant": 1}, headers=auth)
        assert problem(answer) == (404, "session-unknown")


async def test_another_organizer_is_a_stranger(manage: Manage) -> None:
    async with manage() as manager:
        await manager.relay("relay-1")
        ann, bob = await manager.add_organizer("ann"), await manager.add_organizer("bob")
        meeting = await manager.schedule(ann)
        host = await manager.open(ann, meeting)
        theirs = await manager.http.post(f"/meetings/{meeting['meeting_id']}/open", headers=bob)
        nothing = await manager.http.post(f"/meetings/{absent(meeting)}/open", headers=bob)
        assert alike(theirs) == alike(nothing)
        assert problem(theirs) == (404, "meeting-unavailable")
        for path, body in (("end", None), ("revoke", {"participant": host["participant"]})):
            theirs = await manager.http.post(f"/sessions/{host['session']}/{path}", json=body, headers=bob)
            nothing = await manager.http.post(f"/sessions/{'1' * 16}/{path}", json=body, headers=bob)
            assert alike(theirs) == alike(nothing)
            assert problem(theirs) == (404, "session-unknown")


async def test_a_revoked_participant_is_told_to_the_relays(manage: Manage) -> None:
    async with manage() as manager:
        relay = await manager.relay("relay-1")
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        host = await manager.open(auth, meeting)
        guest = (await ask(manager, meeting["meeting_id"])).json()
        path = f"/sessions/{host['session']}/revoke"
        answer = await manager.http.post(path, json={"participant": guest["participant"]}, headers=auth)
        assert (answer.status_code, answer.json()) == (200, {})
        assert relay.facts[-1].revoked == [guest["participant"]]
        unknown = guest["participant"] % 0xFFFF_FFFF + 1
        assert problem(await manager.http.post(path, json={"participant": unknown}, headers=auth)) == (404, "participant-unknown")


async def test_G18_a_stranger_cannot_tell_absent_ended_and_not_yet_open_apart(manage: Manage) -> None:
    async with manage(stranger_burst=100) as manager:
        await manager.relay("relay-1")
        auth = await manager.add_organizer()
        scheduled, ended = await manager.schedule(auth), await manager.schedule(auth)
        host = await manager.open(auth, ended)
        await manager.http.post(f"/sessions/{host['session']}/end", headers=auth)
        seen = []
        for number in (absent(scheduled, ended), scheduled["meeting_id"], ended["meeting_id"]):
            for invite in (None, WRONG_INVITE, "0" * 16):
                for wait in (None, "3"):
                    asked = trio.current_time()
                    seen.append(alike(await ask(manager, number, invite, wait)))
                    assert trio.current_time() - asked >= desk.REFUSED_AFTER
        seen.append(alike(await ask(manager, ended["meeting_id"], ended["invite"])))
        assert len(seen) == 19
        assert all(answer == seen[0] for answer in seen)
        assert seen[0][0] == 404


def test_G18_the_work_for_a_stranger_is_the_same(store: Store, organizer: Account) -> None:
    meeting, ended = (store.write_now(meetings.schedule, organizer, "x", bytes(32), 1.0) for _ in range(2))
    ticket = store.write_now(tickets.open_meeting, organizer, ended.number, tickets.draw_session_id(), "relay-1", 2.0)
    store.write_now(tickets.end_session, organizer, ticket.session, 3.0)
    work: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda _, __, statement, *___: work.append(statement))
    nobody = MeetingId(absent({"meeting_id": meeting.number}, {"meeting_id": ended.number}))
    for invite in (None, Hidden(b"\1" * 8)):
        done = []
        for number in (nobody, meeting.number, ended.number):
            work.clear()
            assert store.read_now(meetings.standing, number, invite)[0] is Standing.UNAVAILABLE
            done.append(list(work))
        assert done[0] == done[1] == done[2]
        assert [word.split()[0] for word in done[0]] in (["BEGIN", "SELECT"], ["SELECT"])  # the second: PostgreSQL, whose driver begins


async def test_G19_enumeration_is_throttled_and_the_entitled_pass(manage: Manage) -> None:
    async with manage(stranger_rate=0.001, stranger_burst=3) as manager:
        await manager.relay("relay-1")
        auth = await manager.add_organizer()
        waiting, running = await manager.schedule(auth), await manager.schedule(auth)
        await manager.open(auth, running)
        for _ in range(10):  # an open meeting's ID costs nothing
            assert (await ask(manager, running["meeting_id"])).status_code == 200
        nobody = absent(waiting, running)
        for number, invite in ((nobody, None), (waiting["meeting_id"], None), (running["meeting_id"], WRONG_INVITE)):
            assert problem(await ask(manager, number, invite)) == (404, "meeting-unavailable")
        refused = []
        for number in (nobody, waiting["meeting_id"], running["meeting_id"]):
            for invite in (None, WRONG_INVITE):
                asked = trio.current_time()
                refused.append(await ask(manager, number, invite))
                # with an invitation the meeting is looked for first: what that took must not show
                assert invite is None or trio.current_time() - asked >= desk.REFUSED_AFTER
        assert all(problem(answer) == (429, "throttled") for answer in refused)
        assert all(int(answer.headers["retry-after"]) > 500 for answer in refused)
        assert len({answer.content for answer in refused}) == 1
        assert problem(await ask(manager, waiting["meeting_id"], waiting["invite"])) == (409, "not-open-yet")
        assert (await ask(manager, running["meeting_id"], running["invite"])).status_code == 200


async def test_tickets_are_throttled_too(manage: Manage) -> None:
    async with manage(guest_rate=0.001, guest_burst=2) as manager:
        await manager.relay("relay-1")
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        await manager.open(auth, meeting)
        answers = [await ask(manager, meeting["meeting_id"], meeting["invite"]) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]


async def test_an_entitled_guest_waits_until_the_organizer_opens(manage: Manage) -> None:
    async with manage() as manager:
        relay = await manager.relay("relay-1")
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        early = await ask(manager, meeting["meeting_id"], meeting["invite"])
        assert problem(early) == (409, "not-open-yet")
        assert early.headers["retry-after"] == "2"
        assert problem(await ask(manager, meeting["meeting_id"], meeting["invite"], "0.05")) == (409, "not-open-yet")
        answers: list[httpx.Response] = []

        async def wait() -> None:
            answers.append(await ask(manager, meeting["meeting_id"], meeting["invite"], "25"))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            with trio.move_on_after(5) as leaver:  # a guest who hangs up gets no ticket
                nursery.start_soon(hang_up_after, leaver, 0.3)
                await wait()
            host = await manager.open(auth, meeting)
        assert [answer.json()["session"] for answer in answers] == [host["session"]] * 3
        assert len([g for f in relay.facts for g in f.grants]) == 4


async def hang_up_after(scope: trio.CancelScope, seconds: float) -> None:
    await trio.sleep(seconds)
    scope.cancel()


async def test_no_more_guests_than_there_is_room_for_are_held(manage: Manage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MAX_WAITING", 0)
    async with manage() as manager:
        meeting = await manager.schedule(await manager.add_organizer())
        assert problem(await ask(manager, meeting["meeting_id"], meeting["invite"], "25")) == (409, "not-open-yet")


GOOD = {"title": "x", "meeting_key": MEETING_KEY}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/meetings", GOOD | {"password": "correct horse"}),
        ("/meetings", GOOD | {"passphrase": "correct horse"}),
        ("/meetings", GOOD | {"": 1}),
        ("/meetings", {"meeting_key": MEETING_KEY}),
        ("/meetings", GOOD | {"zone": "Mars/Olympus"}),
        ("/meetings", GOOD | {"starts": "2026-02-30T10:00"}),
        ("/meetings", GOOD | {"starts": "tomorrow"}),
        ("/meetings", GOOD | {"minutes": 0}),
        ("/meetings", GOOD | {"minutes": 1441}),
        ("/meetings", GOOD | {"repeat": {"every": "week", "times": 2}}),
        ("/meetings", GOOD | {"starts": "2026-03-01T10:00", "repeat": {"every": "year", "times": 2}}),
        ("/meetings", GOOD | {"features_off": ["telepathy"]}),
        ("/meetings", GOOD | {"title": 5}),
        ("/meetings", GOOD | {"title": None}),
        ("/meetings", GOOD | {"title": ""}),
        ("/meetings", GOOD | {"title": "x" * 201}),
        ("/meetings", GOOD | {"title": "\u202etxt"}),
        ("/meetings", GOOD | {"meeting_key": "A" * 42}),
        ("/meetings", GOOD | {"meeting_key": "A" * 43 + "="}),
        ("/meetings", GOOD | {"meeting_key": "A" * 42 + "B"}),
        ("/meetings", GOOD | {"meeting_key": "+" * 43}),
        ("/meetings", GOOD | {"meeting_key": "é" * 43}),
        ("/meetings", [GOOD]),
        ("/meetings", "x"),
        ("/tickets", {"meeting_id": 123456789, "password": "correct horse"}),
        ("/tickets", {"meeting_id": "123456789"}),
        ("/tickets", {"meeting_id": 12345678}),
        ("/tickets", {"meeting_id": 1234567890}),
        ("/tickets", {"meeting_id": 1 << 70}),
        ("/tickets", {"meeting_id": -123456789}),
        ("/tickets", {"meeting_id": True}),
        ("/tickets", {"meeting_id": 123456789.5}),
        ("/tickets", {"meeting_id": 123456789, "invite": "0" * 15}),
        ("/tickets", {"meeting_id": 123456789, "invite": "0" * 17}),
        ("/tickets", {"meeting_id": 123456789, "invite": "0" * 16 + "\n"}),
        ("/tickets", {"meeting_id": 123456789, "invite": "G" * 16}),
        ("/tickets", {"meeting_id": 123456789, "invite": "٠" * 16}),
        ("/tickets", {"meeting_id": 123456789, "invite": 0}),
        ("/tickets?wait=x", {"meeting_id": 123456789}),
        ("/tickets?wait=26", {"meeting_id": 123456789}),
        ("/tickets?wait=-1", {"meeting_id": 123456789}),
        ("/tickets?wait=nan", {"meeting_id": 123456789}),
        ("/tickets?wait=1&wait=2", {"meeting_id": 123456789}),
        ("/meetings/12345678/open", {}),
        ("/meetings/١٢٣٤٥٦٧٨٩/open", {}),
        ("/meetings/123456789/open", {"password": "x"}),
        ("/sessions/123/end", {}),
        ("/sessions/000000000000000G/end", {}),
        ("/sessions/0000000000000001/revoke", {"participant": 0}),
        ("/sessions/0000000000000001/revoke", {"participant": 1 << 32}),
        ("/sessions/0000000000000001/revoke", {}),
    ],
)
async def test_malformed_requests_are_named(app: httpx.AsyncClient, path: str, body: Any) -> None:
    answer = await app.post(path, json=body)
    assert problem(answer) == (422, "request-malformed")
    assert answer.json()["detail"]
    assert "correct horse" not in answer.text


@pytest.mark.parametrize(
    "content",
    [b"null", b"\xff", b'{"title": "\xff"}', b"{", b'{"title": "\\ud800"}', b"[" * 60_000, b"\xef\xbb\xbf{}", '{"title":"x"}'.encode("utf-16")],
)
async def test_what_is_no_json_is_named(app: httpx.AsyncClient, content: bytes) -> None:
    answer = await app.post("/meetings", content=content, headers={"content-type": "application/json"})
    assert problem(answer) == (422, "request-malformed")


async def test_too_much_is_named(manage: Manage) -> None:
    async with manage() as manager:
        auth = await manager.add_organizer()
        for size in (MAX_BODY, 40 * MAX_BODY):
            answer = await manager.http.post("/meetings", json=GOOD | {"title": "x" * size}, headers=auth)
            assert problem(answer) == (413, "request-too-large")
            answer = await manager.http.post("/nowhere", json={"title": "x" * size})
            assert problem(answer) == (404, "not-found")
        await manager.schedule(auth)


async def test_type_path_and_method_are_named(app: httpx.AsyncClient) -> None:
    for kind in ("text/plain", "", "application/x-www-form-urlencoded"):
        answer = await app.post("/meetings", content=json.dumps(GOOD), headers={"content-type": kind})
        assert problem(answer) == (415, "media-type-unsupported")
    answer = await app.post("/meetings", content=json.dumps(GOOD), headers={"content-type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 201
    for path in ("/", "/meeting", "/meetings/", "/meetings/1/2/open", "/../etc/passwd"):
        assert problem(await app.post(path, json={})) == (404, "not-found")
    answer = await app.delete("/meetings")
    assert problem(answer) == (405, "method-not-allowed")
    assert answer.headers["allow"]


async def test_health(app: httpx.AsyncClient) -> None:
    assert (await app.get("/health")).json() == {"status": "ok"}


async def test_a_store_that_cannot_be_written_is_named_and_recovers(
    manage: Manage, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr("manager.__main__.Store", partial(Store, busy_seconds=0.05))
    async with manage() as manager:
        auth = await manager.add_organizer()
        kept = await manager.schedule(auth)
        other = sqlite3.connect(manager.settings.store, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        answer = await manager.http.post("/meetings", json=GOOD, headers=auth)
        assert problem(answer) == (503, "store-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert "lock" not in answer.text  # the cause is the operator's business, and in the log
        assert [e["cause"] for e in logged if e["event"] == "store-unavailable"] == ["locked"]
        assert (await manager.http.get("/meetings", headers=auth)).json() == {"meetings": [kept]}
        other.execute("ROLLBACK")
        other.close()
        await manager.schedule(auth)


async def test_a_defect_is_told_as_one_and_logged(
    app: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, Any]]
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("canary of a defect")

    monkeypatch.setattr(diary.Diary, "meetings", broken)
    answer = await app.get("/meetings")
    assert problem(answer) == (500, "internal-error")
    assert "canary" not in answer.text
    assert [e["event"] for e in logged] == ["request-failed"]


async def test_G21_no_secret_is_logged(manage: Manage, logged: list[dict[str, Any]], tmp_path: Path) -> None:
    async with manage(stranger_burst=1) as manager:
        relay = await manager.relay("relay-1")
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth, title="canary of a title")
        host = await manager.open(auth, meeting)
        guest = (await ask(manager, meeting["meeting_id"], meeting["invite"])).json()
        for number, invite in ((absent(meeting), None), (meeting["meeting_id"], WRONG_INVITE)):
            await ask(manager, number, invite)
        await manager.http.post("/tickets", json={"meeting_id": meeting["meeting_id"], "password": "canary of a password"})
        await manager.http.post("/meetings", json=GOOD, headers={"authorization": auth["authorization"][:-1]})
        await manager.http.post(f"/sessions/{host['session']}/revoke", json={"participant": guest["participant"]}, headers=auth)
        await manager.http.post(f"/sessions/{host['session']}/end", headers=auth)
        shown = repr(relay.facts)
    text = repr(logged)
    assert "session-opened" in text
    secrets = [t[name] for t in (host, guest) for name in ("token", "secret", "session")]
    secrets += [auth["authorization"].removeprefix("Bearer parley_")[:-1], meeting["invite"], str(int(host["session"], 16)), "canary"]
    for secret in secrets:
        assert secret not in text
    for t in (host, guest):
        assert t["token"] not in shown
        assert repr(bytes.fromhex(t["token"]))[2:-1] not in text + shown
