"""One session at one node: its log, who reads it here, who is where, who waits, and what the presenter must be asked.

Synchronous, driven by three calls: packets (`append`), `flush` soon after something changed (what may wait 50 ms for company: `Taken`,
`Presence`, wants, senders that may go on), `tick` every second (ages, slow readers, what must be said again). What leaves goes through
ports: what the session needs of a link (`EndpointPort`, `NodePort`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, TypeVar

from mcs.admission import Admission
from mcs.bucket import Bucket
from mcs.fanout import Reader, Screen
from mcs.feed import Feed, Group, Port
from mcs.gaps import Gaps
from mcs.limits import (
    ANSWER_WITHIN,
    ASK_AGAIN,
    AWAY_AFTER,
    END_GRACE,
    END_WITHIN,
    IDLE_LOG,
    OWED_BYTES,
    OWED_FOR,
    READER_PATIENCE,
    WANT_AGAIN,
)
from mcs.log import RING_OF, Queue, SessionLog, Verdict
from mcs.wants import Wants
from wire.control import MAX_ENTRIES, Control, Lost, NodeHave, NodePresence, NodeWant, Office, Position, Presence, Taken, Want, Welcome
from wire.control import VERSION as CONTROL_VERSION
from wire.errors import CloseReason
from wire.have import HaveVector
from wire.ids import Channel, ParticipantId, SessionId, Stream
from wire.packet import PacketHeader

T = TypeVar("T")
_ALL: Final = 1 << 62  # an index beyond every ring


class EndpointPort(Port, Protocol):
    """A link of a participant, as the session sees it."""

    participant: ParticipantId
    opened_at: float
    owing_since: float | None  # owned by the session: since when it owes too much

    def send(self, message: Control) -> None: ...
    def close(self, reason: CloseReason, detail: str = "") -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class ReservePort(Protocol):
    """A link of a participant that is not needed yet."""

    @property
    def closing(self) -> bool: ...
    def close(self, reason: CloseReason, detail: str = "") -> None: ...


class NodePort(Protocol):
    """A link to another node."""

    node: str

    def send(self, message: Control) -> None: ...
    def send_clear(self, frame: bytes) -> bool: ...
    def measure(self) -> None: ...
    def wake(self, session: SessionId) -> None: ...
    def close(self, reason: CloseReason, detail: str = "") -> None: ...


class Carrier:
    """Another node that wants the session's packets from here, and what it is owed."""

    __slots__ = ("port", "reader", "unanswered")

    def __init__(self, port: NodePort, reader: Reader) -> None:
        self.port = port
        self.reader = reader
        self.unanswered = True  # it asked, and was not told yet that it has everything; owned by the link


class Source:
    """Another node that is asked for the session's packets: a neighbour in its tree."""

    __slots__ = ("answered", "asked", "asked_at", "here", "port")

    def __init__(self, port: NodePort) -> None:
        self.port = port
        self.here: set[ParticipantId] = set()  # participants with a link there or behind it, as it says
        self.asked: float | None = None  # when; None: it has still to be
        self.answered = False  # it has brought all that it had when it was asked
        self.asked_at = float("-inf")  # when it was last asked again because of a gap


class Session:
    """Owned by the relay; all fields change only in its calls."""

    def __init__(self, session: SessionId, dropped: Counter[str], now: float, make_group: Callable[[], Group]) -> None:
        self.id = session
        self.admission = Admission(session)
        self.log = SessionLog()
        self.feed: Feed[EndpointPort] = Feed(self.log, make_group())
        self._make_group = make_group
        self.dropped = dropped
        self.ports: dict[ParticipantId, list[EndpointPort]] = {}
        self.reserves: dict[ReservePort, ParticipantId] = {}  # owned by the relay
        self.carriers: dict[str, Carrier] = {}
        self.sources: dict[str, Source] = {}
        self.used_at = now  # when something was last learned of it, or a link was there
        self.office_seen_at = now
        self._moved: dict[ParticipantId, float] = {}  # whose presence changed since it was last said, and when
        self._taken: dict[ParticipantId, set[Stream]] = {}  # what is to be acknowledged
        self.waiting: dict[ParticipantId, float] = {}  # senders over their share, since when
        self._gaps = Gaps()  # what other nodes are asked for
        self.unheard: set[ParticipantId] = set()  # links whose packets were dropped while nobody could say that they are admitted
        self.wants = Wants()
        self.floods: dict[ParticipantId, Bucket] = {}  # what each may still send here; owned by its links, and a new link changes nothing
        self._noted: tuple[int, ...] | None = (
            None  # channel to recipient of the last packet: what follows from it has been seen to, until the next `fan_out`
        )
        self._noted_via = ""
        self._spoke: set[ParticipantId] = set()  # whose packets for everybody own readers have not been woken for
        self._over: set[ParticipantId] = set()  # who may have more than its share here now

    # --- who is here ---

    @property
    def links(self) -> int:
        return sum(map(len, self.ports.values()))

    @property
    def deserted(self) -> bool:
        """Nobody has a link here, not even one in reserve."""
        return not self.ports and not self.reserves

    def links_of(self, participant: ParticipantId) -> int:
        """How many it has here, those in reserve counted in."""
        reserves = [port for port, owner in self.reserves.items() if owner == participant]
        return sum(not port.closing for port in (*self.ports.get(participant, []), *reserves))

    def all_ports(self) -> Iterator[EndpointPort]:
        return (port for ports in self.ports.values() for port in ports)

    def attach(self, port: EndpointPort, now: float) -> None:
        """A link comes up. Its reader is in place."""
        self.used_at = now
        ports = self.ports.setdefault(port.participant, [])
        ports.append(port)
        self._noted = None
        self.feed.attach(port)
        if len(ports) == 1:
            self._note_moved([port.participant], now)
        if self.admission.ended:
            self._only_log(port)
        elif port.participant == self.admission.office:
            self._say_presence([port], self.everybody())
        if port.participant in self.waiting:
            port.pause()

    def detach(self, port: EndpointPort, now: float) -> None:
        """A link is gone."""
        self.used_at = now
        ports = self.ports.get(port.participant, [])
        if port in ports:
            ports.remove(port)
            self.feed.detach(port)
        if not ports and self.ports.pop(port.participant, None) is not None:
            self._note_moved([port.participant], now)
            self._taken.pop(port.participant, None)
            self.unheard.discard(port.participant)

    def is_here(self, participant: ParticipantId) -> bool:
        """Whether it has a link, at any node."""
        return participant in self.ports or any(participant in source.here for source in self.sources.values())

    def everybody(self, but: str = "") -> set[ParticipantId]:
        """Who has a link at any node, those behind one node left out."""
        return set(self.ports).union(*(source.here for node, source in self.sources.items() if node != but))

    def welcome(self, participant: ParticipantId, node: str) -> tuple[Welcome, list[Taken]]:
        """The answer to a hello, and the rest of what does not fit into it."""
        office, have = self.admission.office, self.log.have
        taken = self.log.taken_of(participant)
        welcome = Welcome(
            version=CONTROL_VERSION,
            node=node,
            key_counter=have.last(Stream(office, participant, Channel.KEY)),
            log_counter=have.last(Stream(office, ParticipantId(0), Channel.LOG)),
            taken=taken[:MAX_ENTRIES],
            office=office,
        )
        return welcome, [Taken(part) for part in _parts(taken[MAX_ENTRIES:])]

    def carry(self, port: NodePort, have: Iterable[Position]) -> Carrier:
        """Another node asks for the session: it gets all it lacks and what comes. Asked again, it starts over from its have-vector."""
        self._noted = None
        reliable, screen = list[Position](), HaveVector()
        for position in have:
            if position[2] == Channel.SCREEN:
                screen.merge([position])
            else:
                reliable.append(position)
        carrier = self.carriers.get(port.node)
        if carrier is None or carrier.port is not port:
            carrier = self.carriers[port.node] = Carrier(port, Reader(self.log, None, self.dropped, port.node))
            carrier.reader.start(reliable)
            if not carrier.reader.resume_screen(screen):
                carrier.reader.start_from_snapshot()
        else:
            carrier.reader.start(reliable)
        carrier.unanswered = True
        for part in _ids(self.everybody(but=port.node)):
            port.send(NodePresence(self.id, part, []))
        port.wake(self.id)
        return carrier

    def stop_carrying(self, node: str) -> None:
        """It wants no more, or its link is gone."""
        self.carriers.pop(node, None)

    def link_to(self, ports: Iterable[NodePort], now: float) -> None:
        """The neighbours in the session's tree: those that are new are asked for what this node lacks, others are asked for no more."""
        wanted = {port.node: port for port in ports}
        for node, source in list(self.sources.items()):
            if wanted.get(node) is not source.port:
                del self.sources[node]
                self._note_moved(source.here, now)
                source.port.send(NodeHave(self.id, [], readers=False))
        for node, port in wanted.items():
            if node not in self.sources:
                self.sources[node] = Source(port)
                self._gaps.clear()  # it may fill them
        self._ask_sources(now)

    def _ask_sources(self, now: float) -> bool:
        """Neighbours that are new are asked one after the other: what the first brings, the next need not bring again. True if some wait."""
        bringing = [source.asked for source in self.sources.values() if source.asked is not None and not source.answered]
        for source in self.sources.values():
            if source.asked is None:
                if bringing and now - min(bringing) < ANSWER_WITHIN:
                    return True
                source.asked = now
                bringing.append(now)
                self.say_have(source.port)
        return False

    @property
    def fed(self) -> bool:
        """A neighbour has brought all that it had, or there is none: nothing is known to be lacking here."""
        return not self.sources or any(source.answered for source in self.sources.values())

    def node_presence(self, source: Source, here: Iterable[int], away: Iterable[int], now: float) -> None:
        """What another node says of its own links, and of those behind it. Nobody at all: it has brought what it was asked for."""
        if not here and not away:
            source.answered = True
            self._ask_sources(now)
            return
        came, went = set(map(ParticipantId, here)), set(map(ParticipantId, away))
        self._note_moved((came - source.here) | (went & source.here), now - AWAY_AFTER)  # that node has waited already
        source.here = (source.here | came) - went

    def office_passed(self, now: float) -> None:
        """Everybody learns who organizes now, and its holder who is here."""
        self.office_seen_at = now
        for port in self.all_ports():
            port.send(Office(self.admission.office, list(self.admission.successors)))
        self._say_presence(self.ports.get(self.admission.office, []), self.everybody())

    def _note_moved(self, participants: Iterable[ParticipantId], now: float) -> None:
        for participant in participants:
            self._moved.setdefault(participant, now)

    def _say_presence(self, ports: list[EndpointPort], moved: set[ParticipantId]) -> None:
        here = _ids(p for p in moved if self.is_here(p))
        away = _ids(p for p in moved if not self.is_here(p))
        for port in ports:
            for part in here:
                port.send(Presence(part, []))
            for part in away:
                port.send(Presence([], part))

    # --- packets ---

    def append(self, header: PacketHeader, body: bytes, hops: int, now: float, *, via: str = "") -> Verdict:
        """Take a packet into the log; `fan_out` brings it to its readers. `via`: the node that it came from, if it came from one."""
        verdict = self.log.append(header, body, hops, now, via=via, office=header.sender == self.admission.office)
        if verdict is Verdict.TAKEN and header[1:5] == self._noted and via == self._noted_via:
            return verdict  # the same readers as the packet before it
        stream = header.stream
        if verdict in (Verdict.TAKEN, Verdict.REPEATED) and stream.sender in self.ports and stream.channel in _ACKNOWLEDGED:
            self._taken.setdefault(stream.sender, set()).add(stream)
        if verdict is not Verdict.TAKEN:
            self.dropped[verdict] += 1
            return verdict
        self._note(stream, via)
        if stream.channel != Channel.SNAPSHOT:
            self._noted, self._noted_via = header[1:5], via
        return verdict

    def fetch(self, port: EndpointPort, counter: int) -> None:
        """A reader asks for the roster that the office has left here."""
        self.feed.aside(port)
        port.reader.fetch(Stream(self.admission.office, ParticipantId(0), Channel.ROSTER), counter)
        port.wake()

    def _note(self, stream: Stream, via: str) -> None:
        """Packets of this stream have come: whom they concern. Once for those that come together."""
        for port in self.ports.get(stream.sender, ()):  # what it has sent is not for it
            self.feed.aside(port)
        if stream.recipient:
            for port in self.ports.get(stream.recipient, ()):
                self.feed.aside(port)
                port.wake()
        else:
            self._spoke.add(stream.sender)
        for node, carrier in self.carriers.items():
            if node != via:
                carrier.port.wake(self.id)
        if stream.channel in _SHARED:
            self._over.add(stream.sender)
        if stream.channel == Channel.SNAPSHOT:
            self.wants.answered(self.log)

    def fan_out(self, now: float) -> float | None:
        """What has come goes to its readers. Returns when to come again, if something gathers."""
        self._noted = None
        again = self.feed.spread(now)
        if self._spoke:
            alone = next(iter(self._spoke)) if len(self._spoke) == 1 else None
            for port in self.feed.own:
                if port.participant != alone:
                    port.wake()
            self._spoke.clear()
        for sender in self._over:
            if sender not in self.waiting and self.log.over(sender):
                self._hold_back(sender, now)
        self._over.clear()
        return again

    def behind(self, port: EndpointPort, missed: int) -> None:
        """A link does not take what all get: the last `missed` segments are still to come."""
        self.feed.behind(port, missed)

    def gap(self, stream: Stream, counter: int, now: float) -> bool:
        """A packet leaves a gap: ask the neighbours. True once it has stood for so long that it counts as lost; go on then."""
        self._noted = None
        if not self._gaps.met(stream, counter, self.log.have, now):
            self._ask_again(now)
            return False
        self.log.have.jump(stream, counter - 1)
        for port in self.all_ports():
            if stream.recipient in (0, port.participant) and port.participant != stream.sender and port.reader.started:
                port.send(Lost([(*stream, counter - 1)]))
        self.dropped["lost"] += 1
        return True

    def _ask_again(self, now: float) -> None:
        """For what is missing here."""
        for source in self.sources.values():
            if now - source.asked_at >= ASK_AGAIN:
                source.asked_at = now
                self.say_have(source.port)

    def say_have(self, port: NodePort) -> None:
        """This node wants the session's packets, and lacks what it does not list. Where its screen stands is listed too: if the other one
        still has what follows, nobody needs a snapshot."""
        have = HaveVector(self.log.have.positions())
        have.merge(self.log.screens())
        parts = have.parts()
        for number, part in enumerate(parts, 1):
            port.send(NodeHave(self.id, part, more=number < len(parts)))

    def say_lost(self, port: EndpointPort, lost: list[Position]) -> None:
        for part in _parts(lost):
            port.send(Lost(part))

    # --- senders that wait ---

    def _readers(self) -> Iterator[Reader]:
        """Those that have a place of their own."""
        yield from (port.reader for port in self.feed.own if not port.closing)
        yield from (carrier.reader for carrier in self.carriers.values())

    def _floors(self) -> list[int]:
        """By ring: the lowest cursor of any linked reader."""
        floors = self.feed.floors()
        for reader in self._readers():
            for queue in (Queue.KEYS, Queue.TALK):
                floors[queue] = min(floors[queue], reader.floor(queue))
        return floors

    def _hold_back(self, sender: ParticipantId, now: float) -> None:
        if self.log.make_room(sender, self._floors()):
            return
        if sender == self.admission.office:  # never waits: who is behind loses, and resumes from another node or asks again
            self.log.make_room(sender, [_ALL] * len(Queue))
            return
        self.waiting[sender] = now
        for port in self.ports.get(sender, []):
            port.pause()

    def _let_go(self, now: float) -> None:
        """Senders whose packets have been read go on; readers that kept one waiting for too long are cut."""
        for sender, since in list(self.waiting.items()):
            patient = now - since < READER_PATIENCE
            if not patient:
                self.feed.spread(now, at_once=True)
            while not self.log.make_room(sender, self._floors()) and not patient:
                oldest = self.log.oldest_of(sender)
                queue = RING_OF[oldest.stream.channel]
                for port in list(self.all_ports()):
                    if not port.closing and (self.feed.cursors(port) or port.reader.cursors)[queue] <= oldest.index:
                        port.close(CloseReason.SLOW_READER, "others had to wait for it")
                for carrier in self.carriers.values():  # a node finds the gap by itself, and asks
                    carrier.reader.cursors[queue] = max(carrier.reader.cursors[queue], oldest.index + 1)
            if not self.log.over(sender):
                del self.waiting[sender]
                for port in self.ports.get(sender, []):
                    port.resume()

    # --- wants ---

    def want(self, port: EndpointPort, epoch: int, now: float) -> bool:
        """A reader wants a snapshot. True if it is served from the log; else the presenter is asked."""
        self.feed.aside(port)
        if port.reader.want(epoch):
            return True
        self.ask(epoch, now)
        return False

    def ask(self, epoch: int, now: float) -> None:
        """The presenter is asked for a snapshot of this epoch."""
        self.wants.merge(epoch, self.log.rings[Queue.SCREEN].head)
        self._say_want(now)

    def node_want(self, node: str, epoch: int, now: float) -> None:
        """A reader behind another node wants one. A snapshot that has just begun here is on its way there."""
        for snapshot in (self.log.building, self.log.snapshot):
            first = self.log.rings[Queue.SCREEN].get(snapshot.first) if snapshot else None
            if snapshot and first and first.via != node and snapshot.epoch >= epoch and now - first.at < WANT_AGAIN:
                return
        presenter = self.log.screen_sender
        if presenter is None or presenter in self.ports or any(presenter in s.here for n, s in self.sources.items() if n != node):
            self.ask(epoch, now)
        elif self.wants.heard_again(epoch):  # whoever showed something last does not answer: perhaps somebody here presents now
            self._say_to_all(epoch)

    def _say_want(self, now: float) -> None:
        """To the last one who showed something; if nobody did, or it does not answer, to all who may."""
        epoch, again = self.wants.due(now)
        if epoch is None:
            return
        presenter = self.log.screen_sender
        if presenter is None or again or not self.is_here(presenter):
            self._say_to_all(epoch)
        else:
            for port in self.ports.get(presenter, []):
                port.send(Want(epoch))
        if presenter not in self.ports or again:
            behind = [source for source in self.sources.values() if presenter in source.here and not again]
            for source in behind or self.sources.values():
                source.port.send(NodeWant(self.id, epoch))

    def _say_to_all(self, epoch: int) -> None:
        for port in self.all_ports():
            if port.participant in self.admission.admitted:
                port.send(Want(epoch))

    def _want_again(self, now: float) -> None:
        """Readers that still wait, whatever became of their want."""
        wanting = [r.want_epoch for r in self._readers() if r.screen is Screen.WANTING]
        if wanting and not self.wants.open:
            self.ask(max(wanting), now)
        self._say_want(now)

    # --- the end, and revocations ---

    def end(self) -> None:
        """Everything but what is owed of the log stops; `flush` closes the links."""
        for port in self.all_ports():
            self._only_log(port)
        for reserve in self.reserves:
            reserve.close(CloseReason.ENDED)

    def _only_log(self, port: EndpointPort) -> None:
        self.feed.aside(port)
        port.reader.only_log = True
        port.wake()

    def _close_ended(self, now: float) -> None:
        ended_at = self.admission.ended_at
        for port in list(self.all_ports()) if ended_at is not None else []:
            since = now - max(port.opened_at, ended_at or 0.0)
            if since >= END_WITHIN or (since >= END_GRACE and not port.reader.pending()):
                port.close(CloseReason.ENDED)

    def close_revoked(self) -> None:
        for participant in self.admission.revoked & set(self.ports):
            for port in list(self.ports[participant]):
                port.close(CloseReason.REVOKED)
        for reserve, participant in list(self.reserves.items()):
            if participant in self.admission.revoked:
                reserve.close(CloseReason.REVOKED)

    def close_unheard(self) -> None:
        """Whose packets were dropped, and who turns out to be admitted, begins again: then nothing is missing. Of this link nothing is read
        any more: in a log that knows nothing of its streams they would begin with what is said now."""
        for participant in self.unheard & self.admission.admitted:
            for port in list(self.ports.get(participant, [])):
                port.close(CloseReason.LOST, "what was sent before the organizer was here has to be sent again")
            self.unheard.discard(participant)

    # --- time ---

    def flush(self, now: float) -> bool:
        """Say what has gathered. True if there is more to look after soon."""
        self._noted = None
        for participant, streams in self._taken.items():
            positions: list[Position] = [(*stream, self.log.have.last(stream)) for stream in streams]
            for port in self.ports.get(participant, []):
                for part in _parts(positions):
                    port.send(Taken(part))
        self._taken.clear()
        self._flush_presence(now)
        self._let_go(now)
        self._say_want(now)
        self._close_ended(now)
        asking = self._ask_sources(now)
        return asking or bool(self.waiting or self._moved) or self.wants.unsaid or (self.admission.ended and bool(self.ports))

    def _flush_presence(self, now: float) -> None:
        """Who came is told at once. Who went may be back in a moment, by another way."""
        ready = {p for p, since in self._moved.items() if now - since >= AWAY_AFTER or self.is_here(p)}
        for participant in ready:
            del self._moved[participant]
        if not ready:
            return
        self._say_presence(self.ports.get(self.admission.office, []), ready)
        for node, carrier in self.carriers.items():
            here = {p for p in ready if p in self.ports or any(p in s.here for n, s in self.sources.items() if n != node)}
            for ids in _ids(here):
                carrier.port.send(NodePresence(self.id, ids, []))
            for ids in _ids(ready - here):
                carrier.port.send(NodePresence(self.id, [], ids))

    def tick(self, now: float) -> None:
        """Once a second."""
        if not self.deserted:
            self.used_at = now
        if self.is_here(self.admission.office):
            self.office_seen_at = now
        if not self.admission.ended:  # what an ended session has is read until it is forgotten
            following = [r.floor(Queue.SCREEN) for r in self._readers() if r.screen in (Screen.LEVEL, Screen.SNAPSHOT)]
            self.log.expire(now, min((*following, self.feed.floors()[Queue.SCREEN])))
        for port in list(self.all_ports()):
            self._judge(port, now)
        if self._gaps.asking(self.log.have, now):
            self._ask_again(now)
        self._want_again(now)
        for participant in [p for p, bucket in self.floods.items() if p not in self.ports and bucket.full(now)]:
            del self.floods[participant]
        if now - self.used_at >= IDLE_LOG and not self.carriers and not self.admission.ended:
            self.log = SessionLog()
            self._gaps.clear()
            self.feed = Feed(self.log, self._make_group())

    def _judge(self, port: EndpointPort, now: float) -> None:
        """A reader that owes too much for too long is cut."""
        if port not in self.feed.own or not port.reader.started or port.reader.owed() <= OWED_BYTES:
            port.owing_since = None
        elif port.owing_since is None:
            port.owing_since = now
        elif now - port.owing_since >= OWED_FOR:
            port.close(CloseReason.SLOW_READER)


_SHARED: Final = frozenset((Channel.KEY, Channel.LOG, Channel.CHAT, Channel.WHISPER, Channel.INPUT))
"""The channels of which a sender has a share."""
_ACKNOWLEDGED: Final = _SHARED | {Channel.FILE, Channel.ROSTER}


def _parts(whole: list[T]) -> list[list[T]]:
    """In lists that fit into one message each."""
    return [whole[at : at + MAX_ENTRIES] for at in range(0, len(whole), MAX_ENTRIES)]


def _ids(participants: Iterable[ParticipantId]) -> list[list[int]]:
    return _parts(sorted(map(int, participants)))
