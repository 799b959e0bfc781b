"""What operators do to running relays: cast one out, add one, look at them, drain one. Real sockets, certificates and processes."""

import io
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace as change
from rich.console import Console

from mcs.metrics import prometheus, response, status
from mcs.node import Node
from mcs.status import show_overlay, show_status
from net import pki
from net.revocation import FILE
from tests.mcs.processes import relay_process
from tests.mcs.raw import Cluster, FakeManager, Meeting, settled
from wire.control import Admitted, NodeInfo, NodeState
from wire.errors import CloseReason


@asynccontextmanager
async def unmanaged(cluster: Cluster, *names: str) -> AsyncIterator[list[Node]]:
    """Relays without a manager: each but the first knows the first one's address."""
    async with trio.open_nursery() as nursery:
        nodes: list[Node] = []
        for name in names:
            node = Node(replace(cluster.settings(name), peers=(nodes[0].addresses[0],) if nodes else (), metrics_port=0))
            await nursery.start(node.run)
            nodes.append(node)
        await settled(lambda: all(len(node.relay.nodes) == len(names) - 1 for node in nodes))
        yield nodes
        nursery.cancel_scope.cancel()


def relays(cluster: Cluster, *names: str) -> None:
    for name in names:
        cluster.relays[name] = pki.enrol(cluster.ca.parent, cluster.where / name, "mcs", name, ["127.0.0.1"])


async def test_G35_a_node_joins_by_its_certificate_and_one_address_without_a_manager(cluster: Cluster) -> None:
    relays(cluster, "relay-c")
    meeting = Meeting()
    async with unmanaged(cluster, "relay-b", "relay-a", "relay-c") as (first, second, third):
        assert all(sorted(node.relay.overlay.known()) != [] for node in (first, second, third))
        first.relay.facts(meeting.facts())  # what the manager said while it was there
        await settled(lambda: third.relay.sessions)
        async with cluster.member(third.addresses[0], meeting, 1) as organizer, cluster.member(second.addresses[0], meeting, 2) as guest:
            organizer.say(Admitted([2]))
            organizer.send(2)
            assert await guest.gets(2, 1) == [0]


async def test_G24_a_revoked_relay_loses_its_links_and_is_refused_by_name(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.node.REVOKED_AGAIN", 0.1)
    relays(cluster, "relay-x")
    async with unmanaged(cluster, "relay-b", "relay-a", "relay-x") as (first, second, third):
        pki.revoke(cluster.ca.parent, "relay-x")
        shutil.copy(cluster.ca.parent / "ca.crl", cluster.where / "relay-a" / FILE)  # one of them is told
        await settled(lambda: set(first.relay.nodes) == {"relay-a"} and set(second.relay.nodes) == {"relay-b"})
        assert first.closed[CloseReason.CERTIFICATE_REVOKED] >= 1
        assert (cluster.where / "relay-b" / FILE).exists()  # it is kept for the next start
        refused = first.closed[CloseReason.CERTIFICATE_REVOKED] + second.closed[CloseReason.CERTIFICATE_REVOKED]
        await settled(lambda: first.closed[CloseReason.CERTIFICATE_REVOKED] + second.closed[CloseReason.CERTIFICATE_REVOKED] > refused)
        assert not third.relay.nodes
        assert third.closed[CloseReason.CERTIFICATE_REVOKED] >= 1  # the other side says why
        assert any("relay-x" in sentence and "(certificate-revoked)" in sentence for sentence in status(first)["wrong"])


async def test_metrics_and_the_picture_of_the_overlay(cluster: Cluster) -> None:
    meeting = Meeting()
    async with unmanaged(cluster, "relay-b", "relay-a") as (first, second):
        first.relay.facts(meeting.facts())
        await settled(lambda: second.relay.sessions)
        async with cluster.member(first.addresses[0], meeting, 1) as organizer, cluster.member(second.addresses[0], meeting, 2) as guest:
            organizer.say(Admitted([2]))
            organizer.send(2)
            await guest.gets(2, 1)
            await settled(lambda: status(first)["trees"][0]["people"] == 2)
            async with await trio.open_tcp_stream("127.0.0.1", first.metrics_port) as stream:
                await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b"".join([part async for part in stream])
            assert b"200 OK" in answer
            assert b'\nparley_packets_taken_total{from="endpoint"} 1\n' in answer
            assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in prometheus(first).splitlines())
            picture = status(first)
            assert f"{meeting.session}" not in json.dumps(picture)
            (tree,) = picture["trees"]
            assert (tree["edges"], tree["people"]) == ([("relay-a", "relay-b")], 2)
            assert picture["wrong"] == []
            console = Console(record=True, width=200, file=io.StringIO())
            show_status(picture, console)
            show_overlay(picture, console)
            shown = console.export_text()
            assert "nothing is wrong" in shown
            assert "relay-a–relay-b" in shown
    for junk in (b"", b"POST /metrics HTTP/1.1\r\n\r\n", b"GET /other", b"\xff\x00"):
        assert response(first, junk).startswith(b"HTTP/1.1 404")


async def test_a_relay_that_is_parted_says_what_is_wrong(cluster: Cluster) -> None:
    async with unmanaged(cluster, "relay-b", "relay-a") as (first, second):
        second.stop()
        await settled(lambda: not first.relay.nodes)
        assert status(first)["wrong"] == []  # it has left in order
        first.relay.overlay.hear(change(second.relay.overlay.state, serial=1 << 40, left=False))  # as if it had not
        stale = change(second.relay.overlay.state, serial=1 << 41, left=False, peers=[("relay-b", 0), ("relay-c", 0)])  # its last word
        first.relay.overlay.hear(stale)
        here = f"relay-a (127.0.0.1:{second.addresses[0][1]}) is not linked from here (server-stopping);"
        assert status(first)["wrong"] == [f"{here} nobody sees it."]
        assert status(first)["nodes"]["relay-a"]["peers"] == {}
        dead = NodeState(NodeInfo("relay-c", [("127.0.0.1", 9)]), 1, 1, [("relay-a", 0)])  # two dead ones do not vouch for each other
        first.relay.overlay.hear(dead)
        assert f"{here} nobody sees it." in status(first)["wrong"]
        first.relay.overlay.link_up("relay-c")
        first.relay.overlay.hear(change(dead, serial=2, peers=[("relay-a", 0), ("relay-b", 0)]))
        assert f"{here} others see it (relay-c)." in status(first)["wrong"]
        first.relay.overlay.hear(NodeState(NodeInfo("relay-d", [("127.0.0.1", 9)]), 1, 1, [], links=7))
        console = Console(record=True, width=100, file=io.StringIO())
        show_overlay(status(first), console)
        rows = {words[0]: words for line in console.export_text().splitlines() if (words := line.split())}
        assert rows["relay-b"][-3:] == ["all", "but", "relay-a"]
        assert rows["relay-a"][2:5] == ["not", "linked", "here"]
        assert rows["relay-d"][2:] == ["gone", "–", "–", "–", "–"]  # what it last said is no news


async def test_B04_a_drained_relay_sends_its_sessions_elsewhere_without_a_lost_packet(cluster: Cluster, tmp_path: Path) -> None:
    manager, meeting = FakeManager(), Meeting()
    async with cluster.managed(manager) as address, relay_process(cluster, "relay-a", address, tmp_path) as doomed, \
            relay_process(cluster, "relay-b", address, tmp_path) as other:  # fmt: skip
        await manager.until(lambda: len(manager.nodes) == 2)
        await manager.tell(meeting.facts(7))
        async with cluster.member(other.address, meeting, 2) as guest:
            async with cluster.member(doomed.address, meeting, 1) as organizer:
                organizer.say(Admitted([2]))
                for _ in range(200):
                    organizer.send(2, body=bytes(500))
                doomed.kill(signal.SIGUSR2)
                assert (await organizer.end()).reason is CloseReason.SHUTDOWN
            async with cluster.member(other.address, meeting, 1) as organizer:
                taken = {tuple(position[:3]): position[3] for position in organizer.welcome.taken}.get((1, 0, 2), -1)
                for counter in range(taken + 1, 200):
                    organizer.send(2, counter=counter, body=bytes(500))
                assert await guest.gets(2, 200) == list(range(200))
            assert await doomed.ended() == 0
        log = doomed.log.read_text()
        assert '"drained"' in log
        assert "drain-waits" not in log


async def test_a_draining_relay_lets_nobody_in(cluster: Cluster) -> None:
    meeting = Meeting()
    async with unmanaged(cluster, "relay-b", "relay-a") as (first, second):
        first.relay.facts(meeting.facts())
        first.relay.drain()
        async with cluster.link(first.addresses[0], meeting, 1) as endpoint:
            assert (await endpoint.end()).reason is CloseReason.BUSY
        await settled(lambda: second.relay.overlay.states["relay-b"].draining)
