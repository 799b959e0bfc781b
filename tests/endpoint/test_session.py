"""A session over links that are made of memory, with a relay that does as it is told. Time is a test's."""

import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
import trio.testing
from OpenSSL import SSL
from trio.testing import MockClock

from endpoint import events
from endpoint.errors import JoinTimeout, NoRelay, NotAllowed, SessionOver
from endpoint.guest import JOIN_WITHIN, Guest
from endpoint.messages import ScreenKind
from endpoint.organizer import Organizer
from endpoint.session import GOODBYE_WITHIN, MAX_EVENTS, REFUSALS, REFUSED_FOR, Session
from endpoint.ticket import RelayAddress, Ticket
from net.connection import Connection
from net.dial import Unreachable
from tests.endpoint.room import Room
from wire.control import Control, End, Have, Hello, Taken, Want, Welcome
from wire.errors import SENTENCES, CloseReason
from wire.frame import Frame
from wire.have import HaveVector
from wire.ids import EVERYONE, Channel, Role, Stream
from wire.link import GREETING_WITHIN, LinkState, Side
from wire.packet import Flag, parse_packet_untrusted

TLS = SSL.Context(SSL.TLS_METHOD)
A, B = RelayAddress("relay-a", (("a", 1),)), RelayAddress("relay-b", (("b", 1),))


@dataclass
class Relay:
    """One relay. `refuses`: how it answers a hello; `reachable`: whether it can be dialled; `taking`: whether it says what it has."""

    name: str
    has: HaveVector = field(default_factory=HaveVector)
    hellos: list[Hello] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)
    messages: list[Control] = field(default_factory=list)
    link: Connection | None = None
    reachable: bool = True
    taking: bool = True
    refuses: CloseReason | None = None
    office: int = 0
    counters: tuple[int, int] = (-1, -1)
    mute: bool = False  # its machine is frozen: neither reads nor writes
    rate: float = math.inf  # bytes a second that the way to it takes

    def received(self, item: Frame | Control) -> None:
        assert self.link is not None
        if isinstance(item, Hello):
            self.hellos.append(item)
            if self.refuses is not None:
                self.link.close(self.refuses)
                return
            if not item.standby:
                self.welcome(item)
        elif isinstance(item, Have) and self.link.link.state is LinkState.GREETING:
            self.welcome(self.hellos[-1])
        elif isinstance(item, Frame):
            self.packets.append(item.body)
            header = parse_packet_untrusted(item.body)
            self.has.note(header.stream, header.counter)
            if self.taking:
                self.take()
        else:
            self.messages.append(item)

    def welcome(self, hello: Hello) -> None:
        assert self.link is not None
        office = self.office or (hello.participant if hello.role == Role.ORGANIZER else 0)
        self.link.send(Welcome(1, self.name, *self.counters, self.has.positions(), office))

    def take(self) -> None:
        assert self.link is not None
        self.link.send(Taken(self.has.positions()))

    def pull(self, budget: int) -> bytes | None:
        return None

    def of(self, channel: int) -> list[bytes]:
        return [packet for packet in self.packets if packet[2] == channel]


class Freezing(trio.abc.Stream):
    """A relay's end of a link."""

    def __init__(self, stream: trio.abc.Stream, relay: Relay) -> None:
        self._stream, self._relay = stream, relay

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._relay.mute:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._relay.mute:
            await trio.sleep_forever()
        data = await self._stream.receive_some(max_bytes)
        await trio.sleep(len(data) / self._relay.rate)
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass
class Net:
    relays: dict[str, Relay]
    nursery: trio.Nursery
    dialled: list[str] = field(default_factory=list)
    far: set[str] = field(default_factory=set)

    async def nearest_first(self, relays: Sequence[RelayAddress], _: object) -> list[RelayAddress]:
        await trio.lowlevel.checkpoint()
        return sorted(relays, key=lambda relay: relay.addresses[0][0] in self.far)

    async def dial(self, addresses: Sequence[tuple[str, int]], *_: Any, **__: Any) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        relay = self.relays[addresses[0][0]]
        self.dialled.append(relay.name)
        if not relay.reachable:
            raise Unreachable
        ours, theirs = trio.testing.lockstep_stream_pair()
        relay.link = Connection(Freezing(theirs, relay), Side.CALLEE, relay)
        self.nursery.start_soon(relay.link.run)
        return ours


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> Net:
    made = Net({"a": Relay("relay-a"), "b": Relay("relay-b")}, nursery)
    monkeypatch.setattr("endpoint.session.dial", made.dial)
    monkeypatch.setattr("endpoint.session.nearest_first", made.nearest_first)
    return made


def ticket_of(room: Room, participant: int, role: Role = Role.ATTENDEE) -> Ticket:
    return replace(room.ticket(participant, role), relays=(A, B))


def joined(presenting: bool = False) -> tuple[Room, Guest]:
    """A guest that is in already: what a session adds is its link."""
    room = Room()
    ana = room.admitted(2, "Ana")
    if presenting:
        room.organizer.chair.appoint(ana.me, room.now)
        room.run()
    room.unlink(ana.me)
    return room, ana


@asynccontextmanager
async def running(member: Guest | Organizer, ticket: Ticket) -> AsyncIterator[tuple[Session, list[events.Event]]]:
    """The member's room was in the past; a session's clock goes on behind it."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(1001.0)
    told: list[events.Event] = []
    async with Session.open(member, ticket, TLS) as session:
        session.listen(told.append)
        yield session, told


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(300):
        while not condition():  # noqa: ASYNC110  # half of what is waited for has no event, and no time passes
            await trio.sleep(0.01)


# links


async def test_a_reconnect_sends_again_exactly_what_was_not_taken(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    a, b = net.relays["a"], net.relays["b"]
    async with running(ana, ticket_of(room, 2)) as (session, told):
        await until(lambda: session.node == "relay-a")
        await session.chat("taken")
        await until(lambda: len(a.of(Channel.CHAT)) == 1)
        a.taking = False
        await session.chat("received, not taken")
        await session.chat("received, not taken either")
        await until(lambda: len(a.of(Channel.CHAT)) == 3)
        assert a.link is not None
        b.has.merge([(ana.me, EVERYONE, Channel.CHAT, 0)])  # what the first relay had passed on
        a.reachable = False
        a.link.close(CloseReason.SHUTDOWN)
        await session.chat("said without a link")
        await until(lambda: session.node == "relay-b")
        await until(lambda: len(b.of(Channel.CHAT)) == 3)
        assert b.of(Channel.CHAT)[:2] == a.of(Channel.CHAT)[1:], "byte for byte"
        assert [parse_packet_untrusted(p).counter for p in b.of(Channel.CHAT)] == [1, 2, 3]
        assert b.hellos[0].have == ana.have.positions()
        assert not b.hellos[0].fresh
    links = [event for event in told if isinstance(event, events.LinkChanged)]
    assert [event.node for event in links] == ["relay-a", "", "relay-b"]


async def test_nothing_new_is_sealed_before_the_counters_of_the_welcome_are_here(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    a = net.relays["a"]
    a.office = room.organizer.me
    a.counters = (
        ana.have.last(Stream(room.organizer.me, ana.me, Channel.KEY)),
        ana.have.last(Stream(room.organizer.me, EVERYONE, Channel.LOG)) + 1,
    )
    room.organizer.chair.lock(True, room.now)
    (entry,) = [item for item in room.organizer.out if isinstance(item, bytes)]
    async with running(ana, ticket_of(room, 2)) as (session, _):
        await until(lambda: session.node)
        await session.chat("after the entry")
        await trio.sleep(1.0)
        assert a.of(Channel.CHAT) == []
        session.received(Frame(0, 1, entry))
        await until(lambda: a.of(Channel.CHAT))
        assert ana.state.locked


async def test_a_relay_that_breaks_the_protocol_is_left_and_asked_again(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    a = net.relays["a"]
    async with running(ana, ticket_of(room, 2)) as (session, _):
        await until(lambda: session.node == "relay-a")
        first = a.link
        assert first is not None
        first.link._queue(Hello(1, room.session, 1, 1, bytes(8), False, []))  # no relay says hello to an endpoint
        first.wake()
        await until(lambda: session.node == "relay-b")
        for noise in (b"", b"\0" * 40, b"\x11" * 60):
            session.received(Frame(0, 1, noise))
        assert session.node == "relay-b", "what is no packet is dropped; the link stays"
        await session.chat("still here")
        await until(lambda: net.relays["b"].of(Channel.CHAT))


async def test_G36_a_guest_goes_to_the_near_relay_and_keeps_the_far_one_in_reserve(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    net.far = {"a"}
    async with running(ana, ticket_of(room, 2)) as (session, _):
        await until(lambda: session.node == "relay-b")
        await until(lambda: [hello.standby for hello in net.relays["a"].hellos] == [True])


async def test_B04_the_link_in_reserve_is_used_without_another_call(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    a, b = net.relays["a"], net.relays["b"]
    async with running(ana, ticket_of(room, 2)) as (session, told):
        await until(lambda: [hello.standby for hello in b.hellos] == [True])
        assert told[-1] == events.LinkChanged("relay-a")
        await trio.sleep(GREETING_WITHIN + 1)  # a link in reserve waits for as long as it must
        await session.chat("said")
        await until(lambda: a.of(Channel.CHAT))
        assert b.packets == []
        a.reachable, dialled = False, len(net.dialled)
        assert a.link is not None
        a.link.close(CloseReason.SHUTDOWN)
        await until(lambda: b.of(Channel.CHAT))
        assert b.of(Channel.CHAT) == a.of(Channel.CHAT)
        assert net.dialled[dialled:] == []
        assert told[-1] == events.LinkChanged("relay-b")
        await until(lambda: "relay-a" in net.dialled[dialled:])  # and another one in reserve


async def test_a_relay_that_is_gone_without_a_word_is_left(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    a = net.relays["a"]
    async with running(ana, ticket_of(room, 2)) as (session, told):
        await until(lambda: session.node == "relay-a")
        began = trio.current_time()
        a.mute = True
        await session.chat("into the void")
        await until(lambda: session.node == "relay-b")
        assert 2.9 < trio.current_time() - began < 5.0
        await until(lambda: net.relays["b"].of(Channel.CHAT))
    assert [event.reason for event in told if isinstance(event, events.LinkChanged) and not event.node] == [SENTENCES[CloseReason.SILENT]]


# refusals


async def test_G21_a_ticket_that_every_relay_refuses_ends_the_join_by_name(net: Net, autojump_clock: MockClock) -> None:
    room = Room()
    guest = Guest(room.ticket(5), room.password, "Eve")
    for relay in net.relays.values():
        relay.refuses = CloseReason.TOKEN_REFUSED
    async with running(guest, ticket_of(room, 5)) as (session, told):
        with pytest.raises(JoinTimeout, match="does not know this ticket"):
            with trio.fail_after(300):
                await session.until_joined()
        assert session.over
        with pytest.raises(SessionOver):
            await session.chat("anyone?")
    assert len(net.dialled) == 2 * REFUSALS
    assert [event.reason for event in told if isinstance(event, events.Removed)] == ["token-refused"]


async def test_a_member_outlives_relays_that_do_not_know_it_yet(net: Net, autojump_clock: MockClock) -> None:
    """Both were started anew while no manager runs: they learn of the member from the other's, or when the manager is back."""
    room, ana = joined()
    for relay in net.relays.values():
        relay.refuses = CloseReason.TOKEN_REFUSED
    async with running(ana, ticket_of(room, 2)) as (session, told):
        began = trio.current_time()
        await trio.sleep(REFUSED_FOR / 2)
        assert not session.over
        net.relays["b"].refuses = None
        await until(lambda: session.node == "relay-b")
        net.relays["b"].refuses = CloseReason.TOKEN_REFUSED
        assert net.relays["b"].link is not None
        net.relays["b"].link.close(CloseReason.SHUTDOWN)
        await until(lambda: session.over)
        assert trio.current_time() - began > REFUSED_FOR * 1.4
    assert [event.reason for event in told if isinstance(event, events.Removed)] == ["token-refused"]


@pytest.mark.parametrize("reason", [CloseReason.REVOKED, CloseReason.ENDED, CloseReason.VERSION_UNSUPPORTED])
async def test_a_final_refusal_is_believed_at_once(net: Net, autojump_clock: MockClock, reason: CloseReason) -> None:
    room, ana = joined()
    net.relays["a"].refuses = reason
    async with running(ana, ticket_of(room, 2)) as (session, told):
        await until(lambda: session.over)
    assert net.dialled == ["relay-a"]
    assert [event.reason for event in told if isinstance(event, events.Removed)] == [reason.value]


async def test_a_join_that_reaches_no_relay_is_given_up_by_name(net: Net, autojump_clock: MockClock) -> None:
    room = Room()
    for relay in net.relays.values():
        relay.reachable = False
    guest = Guest(room.ticket(5), room.password, "Ana")
    async with running(guest, ticket_of(room, 5)) as (session, _):
        began = trio.current_time()
        with pytest.raises(NoRelay):
            with trio.fail_after(300):
                await session.until_joined()
        assert JOIN_WITHIN <= trio.current_time() - began < JOIN_WITHIN + 5


async def test_a_member_that_reaches_no_relay_goes_on_trying(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    for relay in net.relays.values():
        relay.reachable = False
    async with running(ana, ticket_of(room, 2)) as (session, told):
        await trio.sleep(200.0)
        assert not session.over
        assert 60 < len(net.dialled) < 400, "with patience, not in a circle"
        net.relays["b"].reachable = True
        await until(lambda: session.node == "relay-b")
    assert sum(isinstance(event, events.LinkChanged) and event.reason.startswith(NoRelay.sentence) for event in told) > 0


async def test_a_link_without_an_organizer_ends_the_join_by_name(net: Net, autojump_clock: MockClock) -> None:
    room = Room()
    guest = Guest(room.ticket(5), room.password, "Ana")
    async with running(guest, ticket_of(room, 5)) as (session, _):
        with pytest.raises(JoinTimeout):
            with trio.fail_after(300):
                await session.until_joined()
    assert net.relays["a"].hellos[0].fresh


# bounds


async def test_chat_waits_while_the_network_takes_nothing(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    a = net.relays["a"]
    a.taking = False
    said = 0
    async with running(ana, ticket_of(room, 2)) as (session, _):
        await until(lambda: session.node)
        chance = random.Random(1)
        line = "".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(3900))
        with trio.move_on_after(5.0) as patience:
            for _ in range(2000):
                await session.chat(f"{said} {line}")
                said += 1
        assert patience.cancelled_caught
        assert 300 < said < 600, "four megabytes that nobody has taken"
        a.taking = True
        a.take()
        with trio.fail_after(5.0):
            await session.chat("and on it goes")


async def test_a_line_that_nobody_will_take_ends_with_the_session(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    for relay in net.relays.values():
        relay.reachable = False
    async with running(ana, ticket_of(room, 2)) as (session, _):
        for number in range(256):
            await session.chat(f"{number}")
        async with trio.open_nursery() as nursery:

            async def say() -> None:
                with pytest.raises(SessionOver):
                    await session.chat("one too many waits")

            nursery.start_soon(say)
            await trio.sleep(1.0)
            net.relays["a"].reachable = True
            net.relays["a"].refuses = CloseReason.REVOKED


async def test_the_screens_backlog_is_what_the_network_has_not_taken(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined(presenting=True)
    a = net.relays["a"]
    async with running(ana, ticket_of(room, 2)) as (session, told):
        await until(lambda: session.may_show)
        assert a.link is not None
        a.link.pause_reading()
        await trio.sleep(1.0)
        session.show_whole(bytes(200_000))
        session.show(ScreenKind.UPDATE, bytes(100_000), restart=True)
        await trio.sleep(1.0)
        assert session.screen_backlog > 200_000
        await session.chat("text overtakes pictures")
        a.link.resume_reading()
        await until(lambda: session.screen_backlog == 0)
        await until(lambda: a.of(Channel.CHAT))
        assert len([p for p in a.of(Channel.SNAPSHOT) if p[1] & Flag.LAST]) == 1
        first_chat = next(number for number, packet in enumerate(a.packets) if packet[2] == Channel.CHAT)
        assert first_chat < len(a.packets) - 10
        a.link.send(Want(2))
        await until(lambda: any(isinstance(event, events.SnapshotWanted) for event in told))
        for relay in net.relays.values():
            relay.reachable = False
            assert relay.link is not None
            relay.link.close(CloseReason.SHUTDOWN)
        await until(lambda: not session.may_show)
        with pytest.raises(NotAllowed):
            session.show(ScreenKind.PAUSED)


async def test_events_that_nobody_reads_are_bounded_and_counted(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    async with running(ana, ticket_of(room, 2)) as (session, _):
        await until(lambda: session.node)
        for _ in range(MAX_EVENTS + 10):
            await session.chat("x")
        assert session.missed >= 10
        seen = 0
        async for event in session.events():
            seen += isinstance(event, events.ChatReceived)
            if seen == 3000:
                break
        await session.chat("and again there is room")
        missed = session.missed
        await session.chat("twice")
        assert session.missed == missed


# leaving


async def test_G13_leaving_says_goodbye_after_everything_else(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    a = net.relays["a"]
    async with running(ana, ticket_of(room, 2)) as (session, told):
        await until(lambda: session.node)
        await session.chat("last words")
    assert [packet[2] for packet in a.packets] == [Channel.CHAT, Channel.KEY]
    assert [event for event in told if isinstance(event, events.Removed)] == []
    room.link(ana.me)
    for packet in a.packets:
        room._take(ana.me, packet)
    room.run()
    assert ana.me not in room.organizer.state.members
    assert room.chat(room.organizer) == [("Ana", "last words")]


async def test_leaving_a_network_that_is_gone_takes_bounded_time(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    net.relays["a"].taking = False
    async with running(ana, ticket_of(room, 2)) as (session, _):
        await until(lambda: session.node)
        await session.chat("never taken")
        began = trio.current_time()
    assert trio.current_time() - began <= GOODBYE_WITHIN + 0.1


async def test_G04_ending_says_the_signed_word_first_and_then_tells_the_relay(net: Net, autojump_clock: MockClock) -> None:
    room = Room()
    room.unlink(room.organizer.me)
    a = net.relays["a"]
    a.has.merge(room.has.positions())
    async with running(room.organizer, ticket_of(room, 1, Role.ORGANIZER)) as (session, _):
        await until(lambda: session.node)
        session.act(lambda organizer, now: organizer.lock(True, now))
        await until(lambda: len(a.of(Channel.LOG)) == 1)
        with pytest.raises(NotAllowed):
            await Session(Guest(room.ticket(9), "", "x"), room.ticket(9), TLS).end()
    assert len(a.of(Channel.LOG)) >= 2
    assert isinstance(a.messages[-1], End)
    assert session.over
    assert room.organizer.state.ended


async def test_a_cancelled_block_leaves_in_order_too(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    a = net.relays["a"]
    with trio.CancelScope() as scope:
        async with running(ana, ticket_of(room, 2)) as (session, _):
            await until(lambda: session.node)
            scope.cancel()
            await trio.sleep_forever()
    assert [packet[2] for packet in a.packets] == [Channel.KEY], "the goodbye"


async def test_a_session_that_is_cancelled_while_it_opens_ends(net: Net, autojump_clock: MockClock) -> None:
    room, ana = joined()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with running(ana, ticket_of(room, 2)):
            await trio.sleep_forever()
    assert scope.cancelled_caught
