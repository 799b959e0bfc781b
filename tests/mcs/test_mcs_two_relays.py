"""Two real relays and a manager, over TLS: what goes where, and what is refused."""

from contextlib import AsyncExitStack

from msgspec.structs import replace

from tests.mcs.raw import Cluster, FakeManager, Meeting, RawEndpoint, settled
from wire.control import Admitted, End, Facts, Have, Presence, Revoke, Taken, Welcome
from wire.errors import CloseReason
from wire.ids import ParticipantId, SessionId, Stream


class Room:
    """A meeting over two relays: organizer and 2 on the first, 3 and 4 on the second."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.manager = FakeManager()
        self.meeting = Meeting()
        self.stack = AsyncExitStack()
        self.members: dict[int, RawEndpoint] = {}

    async def __aenter__(self) -> "Room":
        self.nodes = await self.stack.enter_async_context(self.cluster.running("relay-a", "relay-b", manager=self.manager))
        await self.manager.tell(self.meeting.facts(serial=1))
        for participant, node in ((1, 0), (2, 0), (3, 1), (4, 1)):
            await self.join(participant, node)
        organizer = self.members[1]
        organizer.say(Admitted([2, 3, 4]))
        await organizer.until(lambda: {p for said in organizer.of(Presence) for p in said.here} >= {2, 3, 4})
        sessions = [node.relay.sessions[SessionId(self.meeting.session)] for node in self.nodes]
        await settled(lambda: all({2, 3, 4} <= session.admission.admitted for session in sessions))
        return self

    async def join(self, participant: int, node: int) -> RawEndpoint:
        address = self.nodes[node].addresses[0]
        member = await self.stack.enter_async_context(self.cluster.member(address, self.meeting, participant))
        self.members[participant] = member
        return member

    async def __aexit__(self, *error: object) -> None:
        await self.stack.aclose()


async def test_G25_one_copy_crosses_the_link_between_two_relays(cluster: Cluster) -> None:
    async with Room(cluster) as room:
        one, two, three, four = (room.members[p] for p in (1, 2, 3, 4))
        for _ in range(20):
            two.send(2)
        one.send(1)
        for reader in (one, three, four):
            assert await reader.gets(2, 20) == list(range(20))
        await three.until(lambda: three.got(1))
        a, b = (node.relay for node in room.nodes)
        assert (a.passed["endpoint"], a.passed["node"], b.passed["endpoint"], b.passed["node"]) == (21, 0, 0, 21)
        assert two.got(2) == []  # never its own
        assert set(three.hops) == {2}
        assert set(one.hops) == {1}
        await two.until(lambda: two.of(Taken))
        await two.until(lambda: two.of(Taken)[-1].taken == [(2, 0, 2, 19)])


async def test_unicast_reaches_its_recipient_alone(cluster: Cluster) -> None:
    async with Room(cluster) as room:
        room.members[2].send(3, to=3)
        room.members[2].send(2)
        await room.members[3].until(lambda: room.members[3].got(3) and room.members[3].got(2))
        await room.members[4].until(lambda: room.members[4].got(2))
        assert room.members[4].got(3) == []
        await room.members[1].until(lambda: room.members[1].got(2))
        assert room.members[1].got(3) == []


async def test_G07_a_revoked_participant_is_cut_everywhere_and_stays_out(cluster: Cluster) -> None:
    async with Room(cluster) as room:
        room.members[1].say(Revoke(3))
        assert (await room.members[3].end()).reason is CloseReason.REVOKED
        async with cluster.link(room.nodes[0].addresses[0], room.meeting, 3) as again:
            assert (await again.end()).reason is CloseReason.REVOKED
        await room.manager.until(lambda: any(isinstance(m, Facts) and m.revoked == [3] for m in room.manager.heard))


async def test_G04_the_end_closes_every_link_after_the_log(cluster: Cluster) -> None:
    async with Room(cluster) as room:
        for _ in range(5):
            room.members[1].send(1)
        room.members[1].say(End())
        for member in room.members.values():
            assert (await member.end()).reason is CloseReason.ENDED
            assert member.participant == 1 or member.got(1) == [0, 1, 2, 3, 4]
        async with cluster.link(room.nodes[1].addresses[0], room.meeting, 3, room.meeting.hello(3, [(1, 0, 1, 2)])) as late:
            assert (await late.end()).reason is CloseReason.ENDED
            assert late.got(1) == [3, 4]
        await room.manager.until(lambda: any(isinstance(m, Facts) and m.ended for m in room.manager.heard))


async def test_B04_a_link_in_reserve_keeps_the_session_ready_at_its_relay(cluster: Cluster) -> None:
    manager, meeting = FakeManager(), Meeting()
    async with cluster.running("relay-a", "relay-b", manager=manager) as (first, second):
        await manager.tell(meeting.facts(serial=1))
        reserve_hello = replace(meeting.hello(2, more=True), standby=True)
        async with (
            cluster.member(first.addresses[0], meeting, 1) as one,
            cluster.link(second.addresses[0], meeting, 2, reserve_hello) as reserve,
        ):
            session = SessionId(meeting.session)
            for _ in range(5):
                one.send(1)
            await settled(lambda: second.relay.sessions[session].log.have.last(Stream(ParticipantId(1), ParticipantId(0), 1)) == 4)
            assert (second.relay.links, reserve.controls, reserve.packets) == (1, [], [])
            await settled(lambda: not one.of(Presence) or 2 not in one.of(Presence)[-1].here)
            first.stop()
            assert (await one.end()).reason is CloseReason.SHUTDOWN
            reserve.say(Have([(1, 0, 1, 2)]))
            await reserve.until(lambda: reserve.of(Welcome))
            assert await reserve.gets(1, 2) == [3, 4]
            assert second.relay.links == 1
        await settled(lambda: second.relay.links == 0)


async def test_links_in_reserve_are_admitted_like_others_and_end_with_their_participant(cluster: Cluster) -> None:
    async with Room(cluster) as room:
        address, hello = room.nodes[0].addresses[0], replace(room.meeting.hello(3, more=True), standby=True)
        async with cluster.link(address, room.meeting, 3, replace(hello, token=bytes(8))) as forged:
            assert (await forged.end()).reason is CloseReason.TOKEN_REFUSED
        async with cluster.link(address, room.meeting, 3, hello) as one, cluster.link(address, room.meeting, 3, hello) as two:
            await settled(lambda: len(room.nodes[0].relay.sessions[SessionId(room.meeting.session)].reserves) == 2)
            async with cluster.link(address, room.meeting, 3, hello) as three:
                assert (await three.end()).reason is CloseReason.TOO_MANY_LINKS
            room.members[1].say(Revoke(3))
            for cut in (one, two, room.members[3]):
                assert (await cut.end()).reason is CloseReason.REVOKED
