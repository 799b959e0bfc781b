"""The real manager with real relays: a ticket is worth what it should be, at each of them."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from mcs.node import Node
from mcs.settings import Settings
from net.connection import Connection
from net.dial import dial
from net.tls import client_context
from tests.manager.support import WITHIN, Manage, Running
from wire.control import VERSION, Control, End, Hello, Welcome
from wire.errors import CloseReason, LinkClosed
from wire.frame import Frame
from wire.link import Side


class Guest:
    """An endpoint's link, as far as the greeting."""

    def __init__(self) -> None:
        self.connection: Connection
        self.welcome = trio.Event()
        self.ended: LinkClosed | None = None

    def received(self, item: Frame | Control) -> None:
        if isinstance(item, Welcome):
            self.welcome.set()

    def pull(self, budget: int) -> bytes | None:
        return None


async def start_relays(manager: Running, *names: str) -> dict[str, Node]:
    relays = {}
    for name in names:
        settings = Settings(identity=Path(manager.pki.root / name), listen=(("127.0.0.1", 0),), managers=(("127.0.0.1", manager.node_port),))
        relays[name] = Node(settings)
        await manager.nursery.start(relays[name].run)
    return relays


async def eventually(holds: Callable[[], Awaitable[object]]) -> None:
    """For what nothing announces: ask again until it holds."""
    with trio.fail_after(WITHIN):
        while not await holds():
            await trio.lowlevel.checkpoint()


async def until_live(manager: Running, auth: dict[str, str], relays: int) -> dict[str, Any]:
    """The ticket of a new meeting, once it names so many relays."""
    meeting = await manager.schedule(auth)
    tickets: list[dict[str, Any]] = []

    async def named() -> bool:
        answer = await manager.http.post(f"/meetings/{meeting['meeting_id']}/open", headers=auth)
        tickets.append(answer.json())
        return answer.status_code == 200 and len(tickets[-1]["relays"]) == relays

    await eventually(named)
    return tickets[-1]


async def greet(manager: Running, relay: dict[str, Any], ticket: dict[str, Any], **changes: Any) -> CloseReason | Guest:
    """Say hello at a relay: the guest if it is welcome, else the reason."""
    t = ticket | changes
    guest = Guest()
    addresses = [(host, port) for host, port in relay["addresses"]]
    stream = await dial(addresses, client_context(manager.pki.ca, None), server_kind="mcs", cluster=ticket["cluster"])
    guest.connection = Connection(stream, Side.CALLER, guest)
    hello = Hello(VERSION, int(t["session"], 16), t["participant"], t["role"], bytes.fromhex(t["token"]), True, [])
    guest.connection.send(hello)
    over = trio.Event()

    async def run() -> None:
        guest.ended = await guest.connection.run()
        over.set()
        guest.welcome.set()

    manager.nursery.start_soon(run)
    with trio.fail_after(WITHIN):
        await guest.welcome.wait()
    return guest if guest.ended is None else guest.ended.reason


async def test_G21_a_ticket_opens_every_relay_and_a_forged_one_none(manage: Manage) -> None:
    async with manage() as manager:
        await start_relays(manager, "relay-1", "relay-2")
        auth = await manager.add_organizer()
        host, other = await until_live(manager, auth, 2), await until_live(manager, auth, 2)
        ask = {"meeting_id": host["meeting_id"]}
        guest, dismissed = [(await manager.http.post("/tickets", json=ask)).json() for _ in range(2)]
        revoked = {"participant": dismissed["participant"]}
        await manager.http.post(f"/sessions/{host['session']}/revoke", json=revoked, headers=auth)
        for relay in host["relays"]:
            for ticket in (host, guest):
                assert isinstance(await greet(manager, relay, ticket), Guest)
            forged = [
                {"token": "0" * 16},
                {"token": host["token"]},
                {"token": other["token"], "participant": other["participant"], "role": 1},
                {"role": 1},
                {"session": other["session"]},
                {"participant": host["participant"]},
            ]
            for changes in forged:
                assert await greet(manager, relay, guest, **changes) is CloseReason.TOKEN_REFUSED, changes
            assert await greet(manager, relay, dismissed) is CloseReason.REVOKED


async def test_G04_the_organizer_ends_the_session_at_its_relay(manage: Manage) -> None:
    async with manage() as manager:
        await start_relays(manager, "relay-1")
        auth = await manager.add_organizer()
        host = await until_live(manager, auth, 1)
        organizer = await greet(manager, host["relays"][0], host)
        assert isinstance(organizer, Guest)
        organizer.connection.send(End())

        async def ended() -> bool:  # the relay tells the manager, nobody tells the caller
            return bool((await manager.http.get("/meetings", headers=auth)).json()["meetings"][0]["state"] == "ended")

        await eventually(ended)
        refused = await manager.http.post("/tickets", json={"meeting_id": host["meeting_id"]})
        assert refused.json()["name"] == "meeting-unavailable"


@pytest.mark.parametrize("fresh", ["relay-1", "relay-2"], ids=["the same relay, restarted", "another one"])
async def test_tickets_outlive_manager_and_relay(manage: Manage, fresh: str) -> None:
    async with manage() as manager:
        await start_relays(manager, "relay-1")
        auth = await manager.add_organizer()
        host = await until_live(manager, auth, 1)
    async with manage() as manager:
        await start_relays(manager, fresh)
        again = await until_live(manager, auth, 1)
        assert [relay["node"] for relay in again["relays"]] == [fresh]

        async def welcome() -> bool:  # its facts are on their way, behind the new session's
            return isinstance(await greet(manager, again["relays"][0], host), Guest)

        await eventually(welcome)
