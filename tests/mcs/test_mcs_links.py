"""One real relay over TLS: who is let in, and that a bad link ends alone, by name."""

import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mcs import limits
from mcs.bucket import Bucket
from mcs.node import Node
from mcs.session import Session
from net import pki
from net.dial import dial
from net.tls import TlsRefused, client_context
from tests.mcs.raw import Cluster, FakeManager, Meeting, RawEndpoint, packet, settled
from tests.mcs.simulation import PortGroup
from wire.control import (
    VERSION,
    Admitted,
    Control,
    End,
    Facts,
    FactsAck,
    Fetch,
    Grant,
    Have,
    Hello,
    Membership,
    NodeHello,
    NodeInfo,
    Office,
    Presence,
    Revoke,
    Taken,
    Want,
    encode_control,
)
from wire.errors import CloseReason
from wire.frame import MAX_BODY
from wire.ids import Channel, ParticipantId, SessionId
from wire.packet import MAX_PACKET, Flag


class Desk:
    """One relay, one meeting: the organizer and 2 are there; 2 and 3 are admitted."""

    def __init__(self, cluster: Cluster, node: Node, meeting: Meeting, manager: FakeManager) -> None:
        self.cluster, self.node, self.meeting, self.manager = cluster, node, meeting, manager
        self.address = node.addresses[0]
        self.organizer: RawEndpoint
        self.two: RawEndpoint

    async def still_works(self) -> None:
        """The others have noticed nothing."""
        number = self.two.send(Channel.CHAT)
        await self.organizer.until(lambda: number in self.organizer.got(Channel.CHAT, 2))


@asynccontextmanager
async def desk(cluster: Cluster) -> AsyncIterator[Desk]:
    manager, meeting = FakeManager(), Meeting()
    async with cluster.running("relay-a", manager=manager) as (node,):
        await manager.tell(meeting.facts(serial=1))
        found = Desk(cluster, node, meeting, manager)
        async with cluster.member(found.address, meeting, 1) as found.organizer, cluster.member(found.address, meeting, 2) as found.two:
            found.organizer.say(Admitted([2, 3]))
            session = next(iter(node.relay.sessions.values()))
            await settled(lambda: {2, 3} <= session.admission.admitted)
            yield found


async def refused(desk: Desk, hello: Control, identity: pki.Identity | None = None) -> CloseReason:
    async with desk.cluster.link(desk.address, desk.meeting, 3, hello, identity) as caller:
        ended = await caller.end()
        assert ended.remote
        return ended.reason


async def test_G21_forged_and_foreign_tokens_are_refused_by_name(cluster: Cluster) -> None:
    async with desk(cluster) as found:
        hello, other = found.meeting.hello(3), Meeting()
        await found.manager.tell(other.facts(serial=2))

        def changed(**fields: object) -> Hello:
            known = {name: getattr(hello, name) for name in ("version", "session", "participant", "role", "token", "fresh", "have")}
            return Hello(**known | fields)

        for wrong in (
            changed(token=bytes(8)),
            changed(token=found.meeting.tokens[2]),
            changed(token=other.tokens[3]),
            changed(session=other.session),
            changed(session=1),
            changed(participant=2),
            changed(participant=99),
            changed(role=1),
        ):
            assert await refused(found, wrong) is CloseReason.TOKEN_REFUSED
        assert await refused(found, changed(version=VERSION + 1)) is CloseReason.VERSION_UNSUPPORTED
        await found.still_works()


async def test_G24_only_relays_of_the_cluster_are_taken_for_relays(cluster: Cluster) -> None:
    async with desk(cluster) as found:
        hello = NodeHello(VERSION, NodeInfo("relay-b", [("127.0.0.1", 1)]))
        assert await refused(found, hello) is CloseReason.CERTIFICATE_REQUIRED
        manager = NodeHello(VERSION, NodeInfo("manager-1", [("127.0.0.1", 1)]))
        assert await refused(found, manager, cluster.manager) is CloseReason.CERTIFICATE_WRONG_ROLE
        liar = NodeHello(VERSION, NodeInfo("relay-c", [("127.0.0.1", 1)]))
        assert await refused(found, liar, cluster.relays["relay-b"]) is CloseReason.CERTIFICATE_REFUSED
        assert await refused(found, found.meeting.hello(3), cluster.relays["relay-b"]) is CloseReason.MESSAGE_UNEXPECTED
        await found.still_works()


async def test_G24_a_foreign_relay_is_refused(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    where = tmp_path_factory.mktemp("foreign")
    ca = pki.create_ca(where / "ca", "home")
    foreign = pki.enrol(ca.parent, where / "relay-b", "mcs", "relay-b", ["127.0.0.1"])
    async with desk(cluster) as found:
        hello = NodeHello(VERSION, NodeInfo("relay-b", [("127.0.0.1", 1)]))
        reason = await refused(found, hello, foreign)
        assert reason is CloseReason.CERTIFICATE_REFUSED
        with pytest.raises(TlsRefused, match="certificate-foreign"):
            await dial([found.address], client_context(ca, None), server_kind="mcs")
        await found.still_works()


async def test_G24_a_relay_that_dials_a_relay_where_a_manager_should_be_turns_away(cluster: Cluster) -> None:
    manager = FakeManager()
    async with cluster.running("relay-a", manager=manager) as (node,), trio.open_nursery() as nursery:
        lost = Node(cluster.settings("relay-b", (node.addresses[0],)))
        await nursery.start(lost.run)
        await settled(lambda: node.closed)  # it comes, sees the certificate, and goes
        assert lost.relay.manager is None
        assert "relay-b" not in node.relay.nodes
        nursery.cancel_scope.cancel()


CHATTY = pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Admitted([2]), CloseReason.FORBIDDEN),
        (Revoke(1), CloseReason.FORBIDDEN),
        (End(), CloseReason.FORBIDDEN),
        (Office(3, []), CloseReason.FORBIDDEN),
        (Facts(serial=0, session=1, grants=[Grant(3, 1, bytes(8))]), CloseReason.MESSAGE_UNEXPECTED),
        (Membership(1, []), CloseReason.MESSAGE_UNEXPECTED),
        (Taken([]), CloseReason.MESSAGE_UNEXPECTED),
        (FactsAck(1), CloseReason.MESSAGE_UNEXPECTED),
        (Presence([], []), CloseReason.MESSAGE_UNEXPECTED),
        (Have([]), CloseReason.MESSAGE_UNEXPECTED),  # it is no newcomer
    ],
)


@CHATTY
async def test_what_an_attendee_may_not_say_ends_its_link_alone(cluster: Cluster, message: Control, reason: CloseReason) -> None:
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 3) as three:
        three.say(message)
        assert (await three.end()).reason is reason
        await found.still_works()


async def test_what_an_attendee_may_not_send_ends_its_link_alone(cluster: Cluster) -> None:
    async with desk(cluster) as found:
        session = found.meeting.session
        wrong = {
            packet(session, 3, 1, 0): CloseReason.FORBIDDEN,
            packet(session, 2, 2, 0): CloseReason.FORBIDDEN,
            packet(session + 1, 3, 2, 0): CloseReason.FORBIDDEN,
            packet(session, 3, 0, 0, to=2, flags=Flag.CLEAR | Flag.LAST): CloseReason.FORBIDDEN,
            packet(session, 3, 2, 0)[:40]: CloseReason.PACKET_MALFORMED,
            packet(session, 3, 2, 0, body=bytes(MAX_PACKET)): CloseReason.PACKET_MALFORMED,
            b"\x22" + packet(session, 3, 2, 0)[1:]: CloseReason.VERSION_UNSUPPORTED,
        }
        for body, reason in wrong.items():
            async with cluster.member(found.address, found.meeting, 3) as three:
                three.send_raw(body)
                assert (await three.end()).reason is reason
        await found.still_works()
        assert found.organizer.got(Channel.CHAT, 3) == []


async def test_until_admitted_only_channel_0_to_the_organizer_passes(cluster: Cluster) -> None:
    async with desk(cluster) as found:
        async with cluster.member(found.address, found.meeting, 4, found.meeting.hello(4, fresh=True)) as four:
            four.send_raw(packet(found.meeting.session, 4, 0, 1, to=1, flags=Flag.CLEAR | Flag.LAST, body=b"A"))
            four.send(Channel.KEY, to=1)
            await found.organizer.until(lambda: len(found.organizer.got(Channel.KEY, 4)) == 2)
            found.organizer.send_raw(packet(found.meeting.session, 1, 0, 2, to=4, flags=Flag.CLEAR | Flag.LAST, body=b"B"))
            found.organizer.send(Channel.LOG)
            found.organizer.send(Channel.KEY, to=4)
            await four.until(lambda: len(four.got(Channel.KEY)) == 2)
            assert four.got(Channel.LOG) == []
            four.say(Have([(1, 0, 1, -1)]))
            await four.until(lambda: four.got(Channel.LOG))
            four.send(Channel.CHAT)
            assert (await four.end()).reason is CloseReason.FORBIDDEN
        await found.still_works()


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (struct.pack("!IBBH", MAX_BODY + 1, 0, 0, 0), CloseReason.FRAME_TOO_LARGE),
        (struct.pack("!IBBH", 0, 0, 0, 1), CloseReason.FRAME_MALFORMED),
        (struct.pack("!IBBH", 0, 99, 0, 0), CloseReason.FRAME_UNKNOWN),
        (struct.pack("!IBBH", 1, Want.TYPE, 0, 0) + b"\xc1", CloseReason.MESSAGE_MALFORMED),
    ],
)
async def test_bytes_that_mean_nothing_end_their_link_alone(cluster: Cluster, garbage: bytes, reason: CloseReason) -> None:
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 3) as three:
        three.say_bytes(garbage)
        assert (await three.end()).reason is reason
        await found.still_works()


async def test_a_flood_ends_its_link_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.links.FLOOD_BURST", 20_000)
    monkeypatch.setattr("mcs.links.FLOOD_RATE", 1)
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 3) as three:
        for _ in range(40):
            three.send(Channel.SCREEN, body=bytes(1000))
        assert (await three.end()).reason is CloseReason.FLOOD
        await found.still_works()
        async with cluster.member(found.address, found.meeting, 3) as again:  # coming again gives nothing new
            again.send(Channel.SCREEN, body=bytes(1000))
            assert (await again.end()).reason is CloseReason.FLOOD


def test_what_a_guest_may_send_is_forgotten_when_it_has_gone_and_nothing_is_missing() -> None:
    session = Session(SessionId(5), Counter(), 0.0, PortGroup)
    floods = session.floods
    floods[ParticipantId(2)], floods[ParticipantId(3)] = Bucket(10, 100, 0.0), Bucket(10, 100, 0.0)
    assert floods[ParticipantId(3)].take(100, 0.0)
    session.tick(1.0)
    assert set(floods) == {3}
    session.tick(9.9)
    assert not floods[ParticipantId(3)].take(100, 9.9)
    session.tick(10.0)
    assert not floods


async def test_small_packets_flood_too(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.links.FLOOD_BURST", 20 * limits.ITEM_COST)
    monkeypatch.setattr("mcs.links.FLOOD_RATE", 1)
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 3) as three:
        for _ in range(21):
            three.send(Channel.CURSOR)
        assert (await three.end()).reason is CloseReason.FLOOD
        await found.still_works()


async def test_who_fetches_the_roster_again_and_again_floods(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts what they bring: otherwise a few bytes would keep a relay busy with megabytes."""
    monkeypatch.setattr("mcs.links.FLOOD_BURST", 100_000)
    monkeypatch.setattr("mcs.links.FLOOD_RATE", 1)
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 3) as three:
        last = [found.organizer.send(Channel.ROSTER, body=bytes(10_000)) for _ in range(3)][-1]
        await found.organizer.until(lambda: any(p[2:] == (Channel.ROSTER, last) for said in found.organizer.of(Taken) for p in said.taken))
        three.say(Fetch(0))
        await three.until(lambda: three.got(Channel.ROSTER, 1) == [0, 1, 2])
        for _ in range(3):
            three.say(Fetch(0))
        assert (await three.end()).reason is CloseReason.FLOOD
        await found.still_works()


async def test_handshake_packets_are_limited(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.links.CLEAR_BURST", 3)
    monkeypatch.setattr("mcs.links.CLEAR_RATE", 0)
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 4) as four:
        for number in range(6):
            four.send_raw(packet(found.meeting.session, 4, 0, number, to=1, flags=Flag.CLEAR | Flag.LAST))
        four.send(Channel.KEY, to=1)
        await found.organizer.until(lambda: len(found.organizer.got(Channel.KEY, 4)) == 4)
        assert found.node.relay.dropped["clear-rate"] == 3


async def test_two_links_per_participant_and_no_more(cluster: Cluster) -> None:
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 2):
        assert await refused(found, found.meeting.hello(2)) is CloseReason.TOO_MANY_LINKS
        await found.still_works()


async def test_a_node_has_room_for_so_many(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk(cluster) as found:
        monkeypatch.setattr("mcs.relay.MAX_LINKS", 2)
        assert await refused(found, found.meeting.hello(3)) is CloseReason.BUSY
        monkeypatch.setattr("mcs.relay.MAX_SESSIONS", 1)
        found.manager.say(Meeting().facts(serial=7))
        await found.manager.tell(found.meeting.facts(serial=8))
        assert ("relay-a", 7) not in found.manager.acked  # what is not taken is not acknowledged
        await found.still_works()


async def test_a_slow_reader_is_cut_by_name_and_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """It owes live packets for too long; the others get them all the same."""
    monkeypatch.setattr("mcs.session.OWED_BYTES", 50_000)
    monkeypatch.setattr("mcs.fanout.OWED_BYTES", 50_000)  # above it, what a reader owes is counted exactly
    monkeypatch.setattr("mcs.session.OWED_FOR", 0.1)
    monkeypatch.setattr("mcs.node.TICK", 0.1)
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 3) as three:
        three.connection.pause_reading()
        sent = 0
        while not found.node.closed:
            found.two.send(Channel.CHAT, body=bytes(8000))
            sent += 1
            await found.organizer.gets(Channel.CHAT, sent - 16)
        assert found.node.closed == {CloseReason.SLOW_READER: 1}
        await found.organizer.gets(Channel.CHAT, sent)


async def test_a_sender_waits_for_a_reader_and_no_longer_than_it_must(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.log.SENDER_BYTES", 50_000)
    monkeypatch.setattr("mcs.session.READER_PATIENCE", 0.3)
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 3) as three:
        three.connection.pause_reading()
        sent, session = 0, next(iter(found.node.relay.sessions.values()))
        while not session.waiting:
            found.two.send(Channel.CHAT, body=bytes(8000))
            sent += 1
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(10):
            found.two.send(Channel.CHAT, body=bytes(8000))
        found.organizer.send(Channel.LOG)  # who is not over its share does not wait
        await found.two.until(lambda: found.two.got(Channel.LOG))
        assert session.waiting
        await found.organizer.gets(Channel.CHAT, sent + 10)
        await settled(lambda: found.node.closed == {CloseReason.SLOW_READER: 1})


async def test_after_a_cut_everything_lacked_comes_exactly_once(cluster: Cluster) -> None:
    async with desk(cluster) as found:
        async with cluster.member(found.address, found.meeting, 3) as three:
            for _ in range(30):
                found.two.send(Channel.CHAT)
                found.organizer.send(Channel.LOG)
                found.two.send(Channel.WHISPER, to=3)
            await three.until(lambda: len(three.packets) >= 20)
            had = list(three.packets)
            have = three.have()
        for _ in range(10):
            found.two.send(Channel.CHAT)
            found.two.send(Channel.WHISPER, to=3)
        async with cluster.member(found.address, found.meeting, 3, found.meeting.hello(3, have)) as again:
            found.organizer.send(Channel.LOG)
            await again.until(lambda: 30 in again.got(Channel.LOG) and 39 in again.got(Channel.CHAT) and 39 in again.got(Channel.WHISPER))
            whole = had + again.packets
            for channel, last in ((Channel.LOG, 30), (Channel.CHAT, 39), (Channel.WHISPER, 39)):
                assert [h.counter for h, _ in whole if h.channel == channel] == list(range(last + 1))


async def test_the_welcome_says_what_the_node_has(cluster: Cluster) -> None:
    async with desk(cluster) as found:
        for _ in range(3):
            found.organizer.send(Channel.LOG)
        found.organizer.send(Channel.KEY, to=3)
        found.two.send(Channel.CHAT)
        await found.two.until(lambda: found.two.of(Taken) and len(found.two.got(Channel.LOG)) == 3)
        await found.organizer.until(lambda: found.organizer.of(Taken))
        async with cluster.member(found.address, found.meeting, 3) as three, cluster.member(found.address, found.meeting, 2) as two:
            assert (three.welcome.key_counter, three.welcome.log_counter, three.welcome.office) == (0, 2, 1)
            assert three.welcome.taken == []
            assert (two.welcome.key_counter, two.welcome.taken) == (-1, [(2, 0, 2, 0)])


async def test_a_long_have_vector_comes_in_parts(cluster: Cluster) -> None:
    async with desk(cluster) as found:
        for _ in range(3):
            found.two.send(Channel.CHAT)
        await found.organizer.gets(Channel.CHAT, 3)
        filler = [(sender, 0, 2, 5) for sender in range(1000, 2000)]
        hello = found.meeting.hello(3, filler, more=True)
        async with cluster.link(found.address, found.meeting, 3, hello) as three:
            three.say(Have(filler, more=True))
            three.say(Have([(2, 0, 2, 1)]))
            assert await three.gets(Channel.CHAT, 1) == [2]


async def test_repetitions_are_dropped_and_acknowledged_and_a_gap_ends_its_link(cluster: Cluster) -> None:
    """Nothing that follows a gap is dropped in silence: its sender begins again with what it still holds."""
    async with desk(cluster) as found:
        for counter in (0, 1, 1, 0, 3):
            found.two.send(Channel.CHAT, counter=counter)
        await found.organizer.until(lambda: found.organizer.got(Channel.CHAT) == [0, 1])
        assert (await found.two.end()).reason is CloseReason.LOST
        dropped = found.node.relay.dropped
        assert (dropped["repeated"], dropped["gap"]) == (2, 1)
        async with cluster.member(found.address, found.meeting, 2) as two:
            assert two.welcome.taken == [(2, 0, Channel.CHAT, 1)]
            two.send(Channel.CHAT, counter=2)
            two.send(Channel.CHAT, counter=3)
            await found.organizer.until(lambda: found.organizer.got(Channel.CHAT) == [0, 1, 2, 3])


async def test_a_relay_that_was_started_anew_waits_for_the_roll(cluster: Cluster) -> None:
    """It knows the grants, from the manager, but only the organizer can say who was admitted. Until then nobody is cut for speaking."""
    manager, meeting = FakeManager(), Meeting()
    async with cluster.running("relay-a", manager=manager) as (node,):
        await manager.tell(meeting.facts(serial=1))
        (address,) = node.addresses
        async with cluster.member(address, meeting, 2) as two, cluster.member(address, meeting, 3) as three:
            two.send(Channel.CHAT, counter=7)
            three.send(Channel.CHAT, counter=3)
            await settled(lambda: node.relay.dropped["roll-unknown"] == 2)
            async with cluster.member(address, meeting, 1) as one:
                one.say(Admitted([2]))
                assert (await two.end()).reason is CloseReason.LOST
                async with cluster.member(address, meeting, 2) as two_again:
                    two_again.send(Channel.CHAT, counter=7)
                    assert await one.gets(Channel.CHAT, 1) == [7]
                three.send(Channel.CHAT, counter=4)
                assert (await three.end()).reason is CloseReason.FORBIDDEN


async def test_a_want_goes_to_the_presenter_and_its_snapshot_to_who_wanted(cluster: Cluster) -> None:
    async with desk(cluster) as found, cluster.member(found.address, found.meeting, 3) as three:
        found.two.send(Channel.SCREEN)
        await three.until(lambda: three.got(Channel.SCREEN))
        three.say(Want(1))
        await found.two.until(lambda: found.two.of(Want))
        assert found.organizer.of(Want) == []
        found.two.send(Channel.SNAPSHOT, flags=0)
        found.two.send(Channel.SNAPSHOT)
        found.two.send(Channel.SCREEN)
        await three.until(lambda: three.got(Channel.SCREEN) == [0, 1])
        assert three.got(Channel.SNAPSHOT) == [0, 1]
        await found.organizer.until(lambda: found.organizer.got(Channel.SCREEN) == [0, 1])
        assert found.organizer.got(Channel.SNAPSHOT) == []
        async with cluster.member(found.address, found.meeting, 3) as late:
            late.say(Want(1))
            await late.until(lambda: late.got(Channel.SCREEN))
            assert (late.got(Channel.SNAPSHOT), late.got(Channel.SCREEN)) == ([0, 1], [1])
        assert len(found.two.of(Want)) == 1


async def test_the_office_hears_who_comes_and_goes_and_everybody_who_holds_it(cluster: Cluster) -> None:
    async with desk(cluster) as found:
        async with cluster.member(found.address, found.meeting, 3):
            await found.organizer.until(lambda: any(3 in p.here for p in found.organizer.of(Presence)))
        await found.organizer.until(lambda: any(3 in p.away for p in found.organizer.of(Presence)))
        found.organizer.say(Office(2, [3]))
        await found.two.until(lambda: found.two.of(Office))
        assert found.two.of(Office) == [Office(2, [3])]
        await found.two.until(lambda: any({1, 2} <= set(p.here) for p in found.two.of(Presence)))
        await found.manager.until(lambda: any(isinstance(f, Facts) and (f.office, f.term) == (2, 2) for f in found.manager.heard))
        found.organizer.send(Channel.LOG)
        assert (await found.organizer.end()).reason is CloseReason.FORBIDDEN


async def test_G35_who_falls_silent_is_away_within_four_seconds(cluster: Cluster, mock_clock: MockClock) -> None:
    """Its link is up, and it says nothing: a frozen machine, a line that was cut."""
    mock_clock.rate = 1.0
    async with desk(cluster) as found:
        stream = await dial([found.address], client_context(cluster.ca, None), server_kind="mcs", cluster="home")
        try:
            began = trio.current_time()
            await stream.send_all(encode_control(found.meeting.hello(3)))
            await found.organizer.until(lambda: any(3 in p.here for p in found.organizer.of(Presence)))
            mock_clock.rate = 0.0
            while not any(3 in p.away for p in found.organizer.of(Presence)) and trio.current_time() < began + 10:
                mock_clock.jump(0.1)
                await trio.testing.wait_all_tasks_blocked(0.005)
            assert 3.0 <= trio.current_time() - began <= 4.0
        finally:
            mock_clock.rate = 1.0
            stream.close_now()


async def test_an_orderly_stop_is_told(cluster: Cluster) -> None:
    async with desk(cluster) as found:
        found.node.stop()
        assert (await found.two.end()).reason is CloseReason.SHUTDOWN


def test_limits_fit_together() -> None:
    assert limits.SENDER_BYTES < limits.OWED_BYTES
    assert limits.READER_PATIENCE < limits.KEEP_FOR
    assert limits.CLEAR_SIZE < MAX_PACKET
