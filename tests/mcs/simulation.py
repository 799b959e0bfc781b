"""Relays without sockets: the real relay, session and node-link code, links as queues of bytes, a clock that is set by hand."""

from collections import Counter
from itertools import count

from mcs.fanout import Reader
from mcs.links import NodeLink
from mcs.overlay import weight
from mcs.relay import Relay
from mcs.session import Session
from tests.mcs.raw import Meeting, packet
from wire.control import Control, Position, decode_control_untrusted
from wire.errors import CloseReason
from wire.frame import PACKET, Frame, FrameDecoder
from wire.ids import ParticipantId, SessionId
from wire.packet import PacketHeader, parse_packet_untrusted

BUDGET = 400
"""Bytes that a link carries at a time: small, so that links break in the middle of things."""


class PortGroup:
    """Ports that are given the same bytes; one that is `blocked` leaves with the first record."""

    def __init__(self) -> None:
        self.members: dict[Port, None] = {}

    def write(self, records: list[bytes], now: float) -> None:
        for port in list(self.members):
            for missed, data in zip(reversed(range(len(records))), records, strict=True):
                port.take(data)
                if port.blocked:
                    del self.members[port]
                    port.session.behind(port, missed)
                    break


class Port:
    """An endpoint's link: it takes what its reader brings."""

    def __init__(self, participant: int, session: Session, reader: Reader, now: float) -> None:
        self.participant = ParticipantId(participant)
        self.session = session
        self.reader = reader
        self.opened_at = now
        self.owing_since: float | None = None
        self.closing = False
        self.closed: CloseReason | None = None
        self.said: list[Control] = []
        self.packets: list[PacketHeader] = []
        self.paused = False
        self.blocked = False  # its socket is full

    def join(self, group: PortGroup) -> None:
        group.members[self] = None

    def part(self, group: PortGroup) -> None:
        group.members.pop(self, None)

    def send(self, message: Control) -> None:
        self.said.append(message)

    def wake(self) -> None: ...

    def close(self, reason: CloseReason, detail: str = "") -> None:
        self.closing, self.closed = True, self.closed or reason

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def take(self, data: bytes) -> None:
        self.packets += [parse_packet_untrusted(f.body) for f in FrameDecoder().feed_untrusted(data)]

    def pull(self) -> None:
        """What a link does whose socket takes more."""
        feed, self.blocked = self.session.feed, False
        if self not in feed.own and self.reader.direct:
            self.take(b"".join(self.reader.pull_direct()))
        while self in feed.trailing:
            if data := feed.next_for(self, 16_384):
                self.take(data)
        if self in feed.own:
            while frames := self.reader.pull(16_384):
                self.take(b"".join(frames))
            feed.offer(self)

    def of(self, kind: type[Control]) -> list[Control]:
        return [m for m in self.said if isinstance(m, kind)]


class HalfLink:
    """One direction of a link between two relays, and what stands for its connection."""

    def __init__(self, relay: Relay, to: str) -> None:
        self.link = NodeLink(relay, self, to)  # type: ignore[arg-type]  # it needs `wake` and `close` of a connection
        self.on_the_way: list[bytes] = []
        self.up = True
        self.frozen = False  # nothing is written
        self.packets: Counter[PacketHeader] = Counter()  # that ever crossed it

    def wake(self) -> None: ...

    def close(self, reason: CloseReason, detail: str = "") -> None:
        self.up = False

    def write(self) -> bool:
        data = None if self.frozen else self.link.pull(BUDGET)
        if data:
            self.on_the_way.append(data)
        return bool(data)


class Net:
    """Some relays, one meeting, participants that stay where they are."""

    def __init__(self, places: dict[int, str], nodes: list[str]) -> None:
        self.now = 0.0
        self.boots = 1
        # the first node is the root of the session's tree
        session = next(s for s in count(1) if min(nodes, key=lambda node: weight(SessionId(s), node)) == nodes[0])
        self.meeting = Meeting(session, organizer=1, attendees=tuple(p for p in places if p != 1))
        self.relays = {node: Relay(node, lambda: self.now, PortGroup) for node in nodes}
        self.links: dict[tuple[str, str], HalfLink] = {}
        self.places = dict(places)
        self.ports: dict[int, Port] = {}
        self.counters: Counter[tuple[int, int, int]] = Counter()
        for relay in self.relays.values():
            relay.facts(self.meeting.facts())
        for a in nodes:
            for b in nodes:
                if a < b:
                    self.connect(a, b)
        for participant, node in places.items():
            self.ports[participant] = self.attach(participant, node)

    def kill(self, node: str) -> None:
        """The node and everything in it is gone."""
        for a, b in [link for link in self.links if link[0] == node]:
            self.cut(a, b)
        del self.relays[node]

    def start(self, node: str) -> None:
        """It comes back with nothing but what the manager says."""
        self.boots += 1
        self.relays[node] = Relay(node, lambda: self.now, PortGroup, boot=self.boots)
        self.relays[node].facts(self.meeting.facts())

    def attach(self, participant: int, node: str, have: list[Position] | None = None) -> Port:
        self.places[participant] = node

        def make(session: Session, reader: Reader) -> Port:
            return Port(participant, session, reader, self.now)

        port = self.relays[node].enter(self.meeting.hello(participant), have or [], make)
        assert isinstance(port, Port)
        return port

    def send(self, sender: int, channel: int, to: int = 0, flags: int = 8) -> None:
        key = (sender, to, channel)
        body = packet(self.meeting.session, sender, channel, self.counters[key], to=to, flags=flags)
        self.counters[key] += 1
        self.bring(sender, body)

    def bring(self, sender: int, body: bytes) -> None:
        """A packet comes on a participant's link. Nothing is read any more of one that ends, as by the pump."""
        port = self.ports[sender]
        if not port.closing:
            self.relays[self.places[sender]].packets(port.session, port, [Frame(PACKET, 0, body)], lambda size: True)

    def say(self, sender: int, message: Control) -> None:
        port = self.ports[sender]
        self.relays[self.places[sender]].message(port.session, port, message)

    # --- links between relays ---

    def connect(self, a: str, b: str) -> None:
        if (a, b) not in self.links:
            for here, there in ((a, b), (b, a)):
                self.links[here, there] = HalfLink(self.relays[here], there)
            for here, there in ((a, b), (b, a)):
                self.links[here, there].link.up()

    def cut(self, a: str, b: str) -> None:
        """What was on the way is gone."""
        for here, there in ((a, b), (b, a)):
            half = self.links.pop((here, there), None)
            if half is not None:
                half.link.gone()

    def carry(self, a: str, b: str, number: int) -> bool:
        """Write on the link from a to b, and let some of what is on the way arrive. True if anything moved."""
        half = self.links.get((a, b))
        if half is None:
            return False
        self.relays[a].fan_out(self.now)  # as in every turn of a pump, before it writes
        moved = half.write()
        arriving, half.on_the_way = half.on_the_way[:number], half.on_the_way[number:]
        back = self.links[b, a].link
        for frame in FrameDecoder().feed_untrusted(b"".join(arriving)):
            if frame.type == PACKET:
                half.packets[parse_packet_untrusted(frame.body)] += 1
                back.packets([frame])
            else:
                back.received(decode_control_untrusted(frame))
        return moved or bool(arriving)

    def settle(self, seconds: int = 1) -> None:
        """Everything moves, and time passes."""
        for _ in range(seconds):
            for _ in range(20):
                for relay in self.relays.values():
                    relay.fan_out(self.now)
                    relay.flush()
                moved = True
                while moved:
                    moved = sum(self.carry(a, b, 1 << 30) for a, b in list(self.links)) > 0
                self.now += 0.05
            for relay in self.relays.values():
                relay.tick()
        for relay in self.relays.values():
            relay.fan_out(self.now + 1.0)
        for port in self.ports.values():
            port.pull()
