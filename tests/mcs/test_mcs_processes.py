"""Relays as real processes: what they have loaded, and what their death costs."""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from net.listener import Address
from tests.mcs.processes import relay_process
from tests.mcs.raw import PATIENCE, Cluster, FakeManager, Meeting, RawEndpoint, settled
from wire.control import Admitted, Have, Want
from wire.errors import CloseReason
from wire.ids import Channel


async def test_G26_a_running_relay_has_no_module_that_could_open_a_packet(cluster: Cluster, tmp_path: Path) -> None:
    manager, meeting = FakeManager(), Meeting()
    async with cluster.managed(manager) as address:
        async with relay_process(cluster, "relay-a", address, tmp_path, "-X", "importtime") as relay:
            await manager.until(lambda: "relay-a" in manager.nodes)
            await manager.tell(meeting.facts(serial=1))
            async with cluster.member(relay.address, meeting, 1) as one, cluster.member(relay.address, meeting, 2) as two:
                one.send(Channel.LOG)
                await two.gets(Channel.LOG, 1)
                relay.kill(signal.SIGUSR1)
        loaded = {line.rsplit("|", 1)[1].strip() for line in relay.log.read_text().splitlines() if line.startswith("import time:")}
    packages = {name.split(".")[0] for name in loaded}
    assert {"mcs", "net", "wire"} <= packages
    assert not {"crypto", "endpoint", "manager", "srptools", "gmpy2", "zstandard"} & packages
    status = [json.loads(line) for line in relay.log.read_text().splitlines() if '"status"' in line]
    assert status[0]["passed"] == {"endpoint": 1}
    assert relay.process.returncode == 0
    text = relay.log.read_text()
    assert all(token.hex() not in text and repr(token) not in text for token in meeting.tokens.values())
    assert str(meeting.session) not in text
    assert f"{meeting.session:016x}" not in text


async def test_B04_a_killed_relay_loses_nothing_that_another_has(cluster: Cluster, tmp_path: Path) -> None:
    manager, meeting = FakeManager(), Meeting()
    async with (
        cluster.managed(manager) as address,
        relay_process(cluster, "relay-a", address, tmp_path) as a,
        relay_process(cluster, "relay-b", address, tmp_path) as b,
    ):
        await manager.until(lambda: len(manager.nodes) == 2)
        await manager.tell(meeting.facts(serial=1))
        async with cluster.member(b.address, meeting, 1) as one, cluster.member(b.address, meeting, 4) as four:
            async with cluster.member(a.address, meeting, 2) as two, cluster.member(a.address, meeting, 3) as three:
                one.say(Admitted([2, 3, 4]))
                one.send(Channel.LOG)
                await two.gets(Channel.LOG, 1)  # so the facts that went before it have arrived there too
                for _ in range(500):
                    two.send(Channel.CHAT)
                    four.send(Channel.CHAT)
                await three.until(lambda: len(three.got(Channel.CHAT)) > 300)
                await four.gets(Channel.CHAT, 200)
                a.kill()
                await two.end()
                await three.end()
            have, had = three.have(), list(three.packets)
            for _ in range(50):
                four.send(Channel.CHAT)
            async with (
                cluster.member(b.address, meeting, 2, meeting.hello(2, two.have())) as two_again,
                cluster.member(b.address, meeting, 3, meeting.hello(3, have)) as three_again,
            ):
                taken = next((c for s, r, channel, c in two_again.welcome.taken if (s, r, channel) == (2, 0, 2)), -1)
                for counter in range(taken + 1, 510):  # what was sealed goes out again, byte for byte
                    two_again.send(Channel.CHAT, counter=counter)
                await three_again.until(lambda: 509 in three_again.got(Channel.CHAT, 2) and 549 in three_again.got(Channel.CHAT, 4))
                await four.until(lambda: 509 in four.got(Channel.CHAT, 2))
                whole = had + three_again.packets
                assert [h.counter for h, _ in whole if (h.sender, h.channel) == (2, 2)] == list(range(510))
                assert [h.counter for h, _ in whole if (h.sender, h.channel) == (4, 2)] == list(range(550))
                assert four.got(Channel.CHAT, 2) == list(range(510))
        assert await a.ended() == -signal.SIGKILL


async def test_a_relay_that_starts_anew_is_told_everything_by_the_other(cluster: Cluster, tmp_path: Path) -> None:
    """Its ring is empty and the manager says nothing of the session: facts, log and picture come from the other relay."""
    manager, meeting = FakeManager(), Meeting()
    async with cluster.managed(manager) as address, relay_process(cluster, "relay-a", address, tmp_path) as a:
        async with relay_process(cluster, "relay-b", address, tmp_path) as b:
            await manager.until(lambda: len(manager.nodes) == 2)
            await manager.tell(meeting.facts(serial=1))
            await settled(lambda: "node-linked" in a.log.read_text())  # it has said where it is; it comes back elsewhere
            b.kill()
            await b.ended()
        async with cluster.member(a.address, meeting, 1) as one, cluster.member(a.address, meeting, 3) as three:
            one.say(Admitted([2, 3]))
            for _ in range(20):
                one.send(Channel.LOG)
            one.send(Channel.SNAPSHOT)
            one.send(Channel.SCREEN)
            await three.gets(Channel.SCREEN, 1)
            manager.facts.clear()
            async with relay_process(cluster, "relay-b", address, tmp_path) as b, patient_member(cluster, b.address, meeting, 2) as two:
                assert await two.gets(Channel.LOG, 20) == list(range(20))
                await two.gets(Channel.SCREEN, 1)
                async with cluster.member(b.address, meeting, 4, meeting.hello(4, fresh=True)) as four:
                    four.say(Have([]))
                    four.say(Want(1))
                    one.send(Channel.SCREEN)
                    assert await four.gets(Channel.SCREEN, 2) == [0, 1]
                    assert four.got(Channel.SNAPSHOT) == [0]
                    assert one.of(Want) == []


@asynccontextmanager
async def patient_member(cluster: Cluster, address: Address, meeting: Meeting, participant: int) -> AsyncIterator[RawEndpoint]:
    """Joins as soon as the relay knows its ticket."""
    deadline = trio.current_time() + PATIENCE
    while trio.current_time() < deadline:
        async with cluster.link(address, meeting, participant) as member:
            await member.said()
            if member.closed is None:
                yield member
                return
            assert member.closed.reason is CloseReason.TOKEN_REFUSED
    raise AssertionError("the relay was not told of the session")
