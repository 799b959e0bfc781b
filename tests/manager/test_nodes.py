"""The link to relays: who is let in, what relays are told, what is kept of what they say."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from manager import links, nodes, tickets
from manager.accounts import AccountRole
from manager.store import Store
from net.connection import Connection
from net.dial import dial
from net.pki import revoke
from net.tls import client_context
from tests.manager.support import WITHIN, FakeRelay, Manage, Pki, Running, hello_of
from wire.control import Control, Crl, Facts, FactsAck, Load, Membership, NodeHello, NodeWelcome, encode_control
from wire.errors import CloseReason
from wire.ids import SessionId
from wire.link import Side


def names(membership: Membership) -> list[str]:
    return [info.node for info in membership.nodes]


async def refusal_of(manager: Running, relay: FakeRelay) -> CloseReason:
    await relay.until(lambda r: r.ended)
    assert relay.ended is not None
    assert relay.ended.remote
    return relay.ended.reason


async def test_a_relay_is_welcomed_and_everybody_learns_of_it(manage: Manage) -> None:
    async with manage() as manager:
        first = await manager.relay("relay-1")
        second = await manager.relay("relay-2")
        await first.until(lambda r: len(r.memberships) == 2)
        assert [names(m) for m in first.memberships] == [["relay-1"], ["relay-1", "relay-2"]]
        assert first.memberships[0].epoch < first.memberships[1].epoch == second.memberships[0].epoch
        assert isinstance(first.said[0], NodeWelcome)
        assert first.said[0].node == "manager-1"


async def test_the_epoch_rises_and_members_stay_across_a_restart(manage: Manage) -> None:
    async with manage() as manager:
        await manager.relay("relay-1")
        auth = await manager.add_organizer()
        await manager.open(auth, await manager.schedule(auth))
        second = await manager.relay("relay-2")
        await second.until(lambda r: r.facts)  # by then it is in the store
        before = second.memberships[-1]
    async with manage() as manager:
        after = (await manager.relay("relay-1")).memberships[-1]
        assert after.epoch > before.epoch
        assert names(after) == ["relay-1", "relay-2"]  # relay-2 is on its way back: no reason to part from it


async def test_a_relay_that_stays_away_is_no_member(manage: Manage, monkeypatch: pytest.MonkeyPatch) -> None:
    async with manage() as manager:
        first, second = await manager.relay("relay-1"), await manager.relay("relay-2")
        await first.until(lambda r: len(r.memberships) == 2)
        monkeypatch.setattr(nodes, "LINGER", 0.0)
        second.connection.close(CloseReason.LOST)
        await first.until(lambda r: names(r.memberships[-1]) == ["relay-1"])
        assert first.memberships[-1].epoch > first.memberships[-2].epoch


async def test_administrators_see_how_every_relay_is(manage: Manage, monkeypatch: pytest.MonkeyPatch) -> None:
    async with manage() as manager:
        store = Store(manager.settings.store)
        bits = store.write_now(links.make_link, links.Purpose.INVITE, "ann@example.org", time.time(), role=AccountRole.INTERNAL_ADMIN)
        store.close()
        taken = {"link": links.link_text(bits), "name": "Ann", "password": "correct horse 7"}
        token = (await manager.http.post("/links/accept", json=taken)).json()["token"]

        async def seen() -> dict[str, Any]:
            answer = await manager.http.get("/admin/nodes", headers={"authorization": f"Bearer {token}"})
            return {node["node"]: node for node in answer.json()["nodes"]}

        first, second, third = [await manager.relay(name) for name in ("relay-1", "relay-2", "relay-3")]
        for relay, load in ((first, Load(7, 2)), (second, Load(1, 1, True))):
            relay.connection.send(load)
            relay.connection.send(Facts(9, SessionId(1)))  # acknowledged when what was said before it has been read
            await relay.until(lambda r: any(isinstance(message, FactsAck) for message in r.said))
        third.connection.close(CloseReason.LOST)
        await third.until(lambda r: r.ended)
        with trio.fail_after(WITHIN):
            while (found := await seen())["relay-3"]["state"] != "away":
                pass  # the manager has not read the end of that link yet
        assert {name: node["state"] for name, node in found.items()} == {"relay-1": "connected", "relay-2": "draining", "relay-3": "away"}
        one = found["relay-1"]
        assert (one["links"], one["sessions"], one["addresses"]) == (7, 2, [["127.0.0.1", 8200]])
        assert one["linked_at"] <= one["heard_at"] <= time.time() < one["certificate_ends_at"]
        assert found["relay-3"]["certificate_ends_at"] is None
        monkeypatch.setattr(nodes, "ACK_WITHIN", 0.0)
        first.silent = True
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        await manager.http.post(f"/meetings/{meeting['meeting_id']}/open", headers=auth)
        assert (await seen())["relay-1"]["state"] == "silent"


async def test_a_relay_that_says_goodbye_leaves_at_once(manage: Manage) -> None:
    async with manage() as manager:
        first, second = await manager.relay("relay-1"), await manager.relay("relay-2")
        second.connection.close(CloseReason.SHUTDOWN)
        await first.until(lambda r: len(r.memberships) == 3)
        assert names(first.memberships[-1]) == ["relay-1"]


async def test_G24_a_revoked_relay_is_cut_and_refused_and_every_relay_is_told(manage: Manage, pki: Pki, tmp_path: Path) -> None:
    directory = tmp_path / "identity"
    async with manage(identity=str(shutil.copytree(pki.root / "manager", directory))) as manager:
        doomed, other = await manager.relay("relay-3"), await manager.relay("relay-2")
        revoke(manager.pki.root / "ca", "relay-3")
        shutil.copy(manager.pki.root / "ca" / "ca.crl", directory)
        assert await refusal_of(manager, doomed) is CloseReason.CERTIFICATE_REVOKED
        await other.until(lambda r: any(isinstance(message, Crl) for message in r.said))
        again = await manager.connect("relay-3")
        assert await refusal_of(manager, again) is CloseReason.CERTIFICATE_REVOKED


async def test_a_draining_relay_gets_no_new_session(manage: Manage) -> None:
    async with manage() as manager:
        first, second = await manager.relay("relay-1"), await manager.relay("relay-2", links=50)
        first.connection.send(Load(0, 0, draining=True))
        await trio.testing.wait_all_tasks_blocked(0.05)
        auth = await manager.add_organizer()
        ticket = await manager.open(auth, await manager.schedule(auth))
        assert ticket["relays"][0]["node"] == "relay-2"
        assert second.facts


async def test_G24_the_name_in_the_hello_must_be_the_certificates(manage: Manage) -> None:
    async with manage() as manager:
        relay = await manager.connect("relay-1", hello=hello_of("relay-2"))
        assert await refusal_of(manager, relay) is CloseReason.CERTIFICATE_WRONG_ROLE
        assert relay.memberships == []


async def test_G24_a_manager_is_no_relay(manage: Manage) -> None:
    async with manage() as manager:
        relay = await manager.connect("relay-1", identity=manager.pki.manager)
        assert await refusal_of(manager, relay) is CloseReason.CERTIFICATE_WRONG_ROLE
        assert relay.said == []


async def test_G24_no_certificate_no_relay(manage: Manage) -> None:
    async with manage() as manager:
        relay = FakeRelay("relay-1")
        context = client_context(manager.pki.ca, None)
        stream = await dial([("127.0.0.1", manager.node_port)], context, server_kind="manager", cluster="home")
        relay.connection = Connection(stream, Side.CALLER, relay)
        relay.connection.send(hello_of("relay-1"))
        why = await relay.connection.run()
        assert (why.reason, why.remote, relay.said) == (CloseReason.CERTIFICATE_REQUIRED, True, [])


async def test_another_version_is_refused(manage: Manage) -> None:
    async with manage() as manager:
        relay = await manager.connect("relay-1", hello=hello_of("relay-1", version=2))
        assert await refusal_of(manager, relay) is CloseReason.VERSION_UNSUPPORTED


@pytest.mark.parametrize("message", [Membership(1, []), NodeHello(1, hello_of("relay-1").info)], ids=["membership", "second hello"])
async def test_what_a_relay_does_not_say_ends_its_link(manage: Manage, message: Control) -> None:
    async with manage() as manager:
        relay = await manager.relay("relay-1")
        relay.connection.link._out.append(encode_control(message))  # past our own side's check
        relay.connection.wake()
        assert await refusal_of(manager, relay) is CloseReason.MESSAGE_UNEXPECTED


async def test_a_newer_link_takes_the_place_of_an_older_one(manage: Manage) -> None:
    async with manage() as manager:
        old = await manager.relay("relay-1")
        new = await manager.relay("relay-1")
        assert await refusal_of(manager, old) is CloseReason.TOO_MANY_LINKS
        auth = await manager.add_organizer()
        await manager.open(auth, await manager.schedule(auth))
        assert len(new.facts) == 1


async def test_a_relay_that_connects_is_told_of_every_running_session(manage: Manage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_ENTRIES", 3)
    async with manage() as manager:
        relay = await manager.relay("relay-1")
        auth = await manager.add_organizer()
        sessions: dict[int, list[dict[str, Any]]] = {}
        for _ in range(2):
            meeting = await manager.schedule(auth)
            given = [await manager.open(auth, meeting)]
            for _ in range(4):
                answer = await manager.http.post("/tickets", json={"meeting_id": meeting["meeting_id"]})
                given.append(answer.json())
            sessions[int(given[0]["session"], 16)] = given
        over = await manager.open(auth, await manager.schedule(auth))
        await manager.http.post(f"/sessions/{over['session']}/end", headers=auth)
        gone = next(iter(sessions))
        await manager.http.post(f"/sessions/{gone:016x}/revoke", json={"participant": sessions[gone][4]["participant"]}, headers=auth)
        assert len(relay.facts) == 10 + 2 + 1
    async with manage() as manager:  # also after a restart
        relay = await manager.relay("relay-2")
        await relay.until(lambda r: len(r.facts) == 4)
        for session, given in sessions.items():
            facts = [f for f in relay.facts if f.session == session]
            told = {(g.participant, g.role, g.token.hex()) for f in facts for g in f.grants}
            kept = given[:4] if session == gone else given
            assert told == {(t["participant"], t["role"], t["token"]) for t in kept}
            assert {(f.office, f.term) for f in facts} == {(given[0]["participant"], 1)}
            assert [p for f in facts for p in f.revoked] == ([given[4]["participant"]] if session == gone else [])
        relay.connection.send(Facts(9, int(over["session"], 16), office=over["participant"], term=1))  # it has missed the end
        await relay.until(lambda r: r.facts[-1].ended and r.facts[-1].session == int(over["session"], 16))


async def test_G04_a_relay_ends_the_session(manage: Manage) -> None:
    async with manage() as manager:
        first, second = await manager.relay("relay-1"), await manager.relay("relay-2")
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        ticket = await manager.open(auth, meeting)
        first.connection.send(Facts(77, int(ticket["session"], 16), ended=True))
        await first.until(lambda r: FactsAck(77) in r.said)
        await second.until(lambda r: r.facts[-1].ended)
        listed = (await manager.http.get("/meetings", headers=auth)).json()["meetings"]
        assert [m["state"] for m in listed] == ["ended"]
        answer = await manager.http.post("/tickets", json={"meeting_id": meeting["meeting_id"], "invite": meeting["invite"]})
        assert answer.json()["name"] == "meeting-unavailable"


async def test_many_facts_are_all_acknowledged_in_order(manage: Manage) -> None:
    async with manage() as manager:
        relay = await manager.relay("relay-1")
        for serial in range(1, 1001):
            relay.connection.send(Facts(serial, 5, revoked=[1]) if serial % 4 == 0 else Facts(serial, 5, admitted=[1]))
        await relay.until(lambda r: FactsAck(1000) in r.said)
        assert [m.serial for m in relay.said if isinstance(m, FactsAck)] == list(range(1, 1001))


async def test_a_session_lives_on_the_least_loaded_relay_and_stays(manage: Manage) -> None:
    async with manage() as manager:
        busy, idle = await manager.relay("relay-1", links=50), await manager.relay("relay-2", links=3)
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        assert order(await manager.open(auth, meeting)) == ["relay-2", "relay-1"]
        idle.connection.send(Load(500, 1))
        busy.connection.send(Facts(1, 1))
        await busy.until(lambda r: FactsAck(1) in r.said)
        assert order(await manager.open(auth, meeting)) == ["relay-2", "relay-1"]
        idle.connection.close(CloseReason.SHUTDOWN)
        await busy.until(lambda r: len(r.memberships) == 3)
        assert order(await manager.open(auth, meeting)) == ["relay-1"]


def order(ticket: dict[str, Any]) -> Sequence[str]:
    return [relay["node"] for relay in ticket["relays"]]


async def test_a_relay_that_does_not_acknowledge_stands_behind(manage: Manage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ACK_WITHIN", 1.0)
    async with manage() as manager:
        deaf = await manager.relay("relay-1", silent=True)
        await manager.relay("relay-2", links=100)
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        assert order(await manager.open(auth, meeting)) == ["relay-2", "relay-1"]
        assert order(await manager.open(auth, meeting)) == ["relay-2"]  # passed over for a while
        monkeypatch.setattr(nodes, "SILENCE", 0.0)
        deaf.silent = False
        with trio.fail_after(60):
            while len(order(await manager.open(auth, meeting))) < 2:
                pass


async def test_no_relay_no_ticket(manage: Manage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ACK_WITHIN", 0.1)
    async with manage() as manager:
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        for _ in range(2):
            answer = await manager.http.post(f"/meetings/{meeting['meeting_id']}/open", headers=auth)
            assert (answer.status_code, answer.json()["name"]) == (503, "no-relay")
            assert int(answer.headers["retry-after"]) >= 1
            await manager.relay("relay-1", silent=True)


async def test_a_receipt_waits_for_whom_it_should() -> None:
    receipt = nodes.Receipt()
    receipt.waiting |= {"a", "b"}
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receipt.wait, "a")
            await trio.testing.wait_all_tasks_blocked()
            receipt.settle("b", acked=True)
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            receipt.settle("a", acked=False)
        await receipt.wait("a")
        await receipt.wait(None)
    assert receipt.acked == {"b"}
