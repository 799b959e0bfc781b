"""A packet's way through the node: decided in one pass, synchronously, never waiting for a receiver.

    endpoint's link ──packet──▶ parse ▸ admission ▸ log ▸ wake readers (links here, neighbours in the session's tree)
    node's link     ──packet──▶ parse ▸ log ▸ wake readers (links here, the other neighbours)

Handshake packets pass beside the log, straight to their recipient's links, wherever these are. What links say (admitted, office, revoke,
end, have, want) and what nodes and the manager say (facts, have, want, presence) is merged into the session and passed on. Facts that
are new go to every node but the one that said so; a node that is linked anew gets all of them. So grants, admissions, office and
tombstones outlive the manager, and so does the overlay (`mcs.overlay`), whose facts travel in the same way. When they have moved, `flush`
asks each session's new neighbours for its packets, and lets go of those that are none any more.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from mcs.admission import Pass
from mcs.fanout import Reader
from mcs.feed import Group
from mcs.limits import ECHO_FOR, ENDED_SESSION, IDLE_SESSION, LINKS_PER_PARTICIPANT, MAX_LINKS, MAX_SESSIONS, NEW_WAYS_AFTER
from mcs.log import Verdict
from mcs.overlay import Overlay
from mcs.session import EndpointPort, NodePort, ReservePort, Session, Source
from wire.control import (
    Admitted,
    Control,
    Crl,
    End,
    Facts,
    Fetch,
    Hello,
    NodeHave,
    NodeInfo,
    NodePresence,
    NodeReaders,
    NodeState,
    NodeWant,
    Office,
    Position,
    Revoke,
    Want,
)
from wire.errors import CloseReason, LinkClosed, UnexpectedMessage
from wire.frame import MAX_HOPS, PACKET, Frame, encode_frame
from wire.ids import ParticipantId, SessionId
from wire.packet import CLEAR, PacketHeader, parse_packet_untrusted

log = structlog.get_logger()


MAX_ECHOES: Final = 65_536
"""Handshake packets that are remembered for `ECHO_FOR`; beyond it the oldest are forgotten early."""


class ManagerPort(Protocol):
    """The link to the manager, while there is one."""

    def send(self, message: Control) -> None: ...


class Relay:
    """All sessions of a node. Owned by the node; every call is one indivisible step."""

    def __init__(
        self,
        info: NodeInfo | str,
        clock: Callable[[], float],
        make_group: Callable[[], Group],
        on_change: Callable[[], None] = lambda: None,
        on_nodes: Callable[[], None] = lambda: None,
        boot: int = 1,
    ) -> None:
        """`make_group`: for links that are written the same bytes. `on_change`: `flush` is wanted within 50 ms. `on_nodes`: there may be
        another node to call, or one that is to be called no more. `boot`: a number that rises with every start of this node."""
        self.overlay = Overlay(info, boot)
        self.node = self.overlay.me
        self.sessions: dict[SessionId, Session] = {}
        self.nodes: dict[str, NodePort] = {}
        self.manager: ManagerPort | None = None
        self.links = 0
        self.dropped: Counter[str] = Counter()  # by reason
        self.passed: Counter[str] = Counter()  # packets taken, by where they came from
        self._clock = clock
        self._make_group = make_group
        self._news: dict[SessionId, Session] = {}  # sessions with packets that are not fanned out yet
        self._on_change = on_change
        self._on_nodes = on_nodes
        self._changed: dict[SessionId, Session] = {}
        self.crl = b""  # the newest list of revoked certificates, for nodes that are linked anew
        self.on_crl: Callable[[bytes], None] = lambda der: None  # one came from another server
        self._new_ways_at: float | None = None  # since when new ways wait to be used
        self._echoes: OrderedDict[int, float] = OrderedDict()  # handshake packets that came from nodes, and when; the newest last

    # --- endpoints ---

    def enter(self, hello: Hello, have: Iterable[Position], make_port: Callable[[Session, Reader], EndpointPort]) -> EndpointPort:
        """Let a caller in and welcome it. `make_port` builds its port around the session and reader. Raises `LinkClosed`: why not."""
        now = self._clock()
        participant = ParticipantId(hello.participant)
        session = self._admit(hello, now)
        reader = Reader(session.log, participant, self.dropped)
        if not hello.fresh:
            reader.start(have)
        port = make_port(session, reader)
        self.links += 1
        welcome, more = session.welcome(participant, self.node)
        for message in (welcome, *more):
            port.send(message)
        session.attach(port, now)
        port.wake()
        self._readers_moved(session, readers=True)
        self._change(session)
        return port

    def _admit(self, hello: Hello, now: float) -> Session:
        """The session that a caller may come into. Raises `LinkClosed`: why not."""
        session = self.sessions.get(SessionId(hello.session))
        refused = session.admission.enter(hello, now) if session else CloseReason.TOKEN_REFUSED
        if session is None or refused is not None:
            raise self._refusal(refused or CloseReason.TOKEN_REFUSED)
        if self.links >= MAX_LINKS or self.overlay.state.draining:
            raise self._refusal(CloseReason.BUSY)
        if session.links_of(ParticipantId(hello.participant)) >= LINKS_PER_PARTICIPANT:
            raise self._refusal(CloseReason.TOO_MANY_LINKS)
        return session

    def reserve(self, hello: Hello, port: ReservePort) -> Session:
        """A participant with a link elsewhere keeps one here in reserve: this node has the session's packets ready from now on. It is let in
        (`enter`) when it is needed. Raises `LinkClosed`: why not."""
        session = self._admit(hello, self._clock())
        if session.admission.ended:
            raise self._refusal(CloseReason.ENDED)
        session.reserves[port] = ParticipantId(hello.participant)
        self.links += 1
        self._readers_moved(session, readers=True)
        self._change(session)
        return session

    def release(self, session: Session, port: ReservePort) -> None:
        """It is in reserve no more: needed, or gone."""
        if session.reserves.pop(port, None) is not None:
            self.links -= 1

    def leave(self, session: Session, port: EndpointPort) -> None:
        self.links -= 1
        session.detach(port, self._clock())
        self._change(session)

    def packets(self, session: Session, port: EndpointPort, frames: Iterable[Frame], may_clear: Callable[[int], bool]) -> None:
        """Packets from an endpoint's link. `may_clear` takes from the link's allowance of handshake packets, and is asked with the size.

        Raises `WireError`, or `LinkClosed` (forbidden); what stands before the cause counts."""
        now = self._clock()
        self._change(session)
        self._news[session.id] = session
        passed, taken = None, 0  # the kind of packet that was allowed last: what follows it is mostly of the same
        try:
            for frame in frames:
                header = parse_packet_untrusted(frame.body)
                kind = header[1:5]  # channel, session, sender, recipient
                if kind != passed or header.flags & CLEAR:
                    passed = None
                    if not self._may_pass(session, port, header, frame, now, may_clear):
                        continue
                    passed = kind
                verdict = session.append(header, frame.body, 1, now)
                if verdict is Verdict.GAP:
                    if not session.gap(header.stream, header.counter, now):
                        raise LinkClosed(CloseReason.LOST, remote=False, detail="what came before this packet is missing here: begin again")
                    verdict = session.append(header, frame.body, 1, now)
                if verdict is Verdict.TAKEN:
                    taken += 1
        finally:
            self.passed["endpoint"] += taken

    def _may_pass(
        self, session: Session, port: EndpointPort, header: PacketHeader, frame: Frame, now: float, may_clear: Callable[[int], bool]
    ) -> bool:
        """Whether a packet from an endpoint's link is one for the log; then others of its kind that come with it are too."""
        verdict = session.admission.check(header, port.participant, now)
        if verdict is Pass.FORWARD:
            return True
        if verdict is Pass.CLEAR:
            if may_clear(len(frame.body)):
                self._clear(session, header, frame.body, 0)  # whatever its frame says: nobody has handed it on yet
            else:
                self.dropped["clear-rate"] += 1
        elif verdict is Pass.NOT_ADMITTED and not session.is_here(session.admission.office):
            self.dropped["roll-unknown"] += 1  # a relay that was started anew learns from the office alone who was admitted
            session.unheard.add(port.participant)
        elif verdict is Pass.OVER:
            self.dropped["session-ended"] += 1
        else:
            self.dropped["forbidden"] += 1
            raise LinkClosed(CloseReason.FORBIDDEN, remote=False, detail=verdict.value)
        return False

    def message(self, session: Session, port: EndpointPort, message: Control) -> None:
        """What an endpoint's link says. Raises `LinkClosed` (forbidden) or `UnexpectedMessage`."""
        now, by, admission = self._clock(), port.participant, session.admission
        try:
            match message:
                case Want():
                    if session.want(port, message.epoch, now):
                        port.wake()
                case Fetch():
                    session.fetch(port, message.counter)
                case Admitted():
                    self._learn(session, admission.admit(by, message.participants))
                case Revoke():
                    self._learn(session, admission.revoke(by, message.participant))
                case End():
                    self._learn(session, admission.end(by))
                case Office():
                    away_for = now - session.office_seen_at
                    self._learn(session, admission.pass_office(by, message.participant, message.successors, away_for))
                case _:
                    raise UnexpectedMessage(f"{type(message).__name__} from an endpoint")
        except PermissionError as error:
            self.dropped["forbidden"] += 1
            raise LinkClosed(CloseReason.FORBIDDEN, remote=False, detail=str(error)) from None
        self._change(session)

    def start(self, session: Session, port: EndpointPort, have: Iterable[Position]) -> None:
        """A newcomer's start vector is complete. Raises `UnexpectedMessage` if it is no newcomer."""
        if port.reader.started:
            raise UnexpectedMessage("a have-vector is said once")
        port.reader.start(have, newcomer=True)
        port.wake()

    def ask(self, session: Session, epoch: int) -> None:
        """A reader fell behind and wants a snapshot of this epoch."""
        session.ask(epoch, self._clock())
        self._change(session)

    # --- nodes ---

    def node_up(self, port: NodePort) -> None:
        """A link to another node is up: it learns everything that is known, and what this node lacks."""
        former = self.nodes.get(port.node)
        if former is not None:
            self.node_down(former)
            former.close(CloseReason.TOO_MANY_LINKS, "the same node has called anew")
        self.nodes[port.node] = port
        log.info("node-linked", node=port.node)
        self.overlay.link_up(port.node)
        for fact in (*self.overlay.facts(), *([Crl(self.crl)] if self.crl else [])):
            port.send(fact)
        self._spread([self.overlay.state], but=port.node)
        for session in self.sessions.values():
            for facts in session.admission.facts():
                port.send(facts)
        self._on_change()

    def node_down(self, port: NodePort) -> None:
        """It is gone. What it had not passed on yet, another one may have."""
        if self.nodes.get(port.node) is not port:
            return
        del self.nodes[port.node]
        self.overlay.link_down(port.node)
        self._spread([self.overlay.state])
        for session in self.sessions.values():
            if port.node in session.carriers or port.node in session.sources:
                session.stop_carrying(port.node)
                self._change(session)
        self._sync()
        self._on_change()

    def node_packet(self, port: NodePort, frame: Frame) -> None:
        """A packet from another node: for readers here, and behind the other neighbours. Raises `WireError`."""
        header = parse_packet_untrusted(frame.body)
        session = self.sessions.get(header.session)
        if session is None:
            self.dropped["no-session"] += 1
            return
        if header.flags & CLEAR:
            if frame.hops >= MAX_HOPS:
                self.dropped["too-many-hops"] += 1
            elif self._is_echo(frame.body):
                self.dropped["echo"] += 1
            else:
                self._clear(session, header, frame.body, frame.hops, via=port.node)
            return
        now = self._clock()
        # a log takes it once, so it runs in no circle; and while relays die and are filled anew, one after the other, it may come a long way
        hops = min(frame.hops + 1, MAX_HOPS)
        verdict = session.append(header, frame.body, hops, now, via=port.node)
        if verdict is Verdict.GAP and session.gap(header.stream, header.counter, now):
            verdict = session.append(header, frame.body, hops, now, via=port.node)
        if verdict is Verdict.TAKEN:
            self.passed["node"] += 1
        self._news[session.id] = session
        self._change(session)

    def node_have(self, port: NodePort, session_id: SessionId, have: Iterable[Position]) -> None:
        """Another node wants a session's packets (its whole have-vector, put together)."""
        session = self._session(session_id)
        if session is not None:
            session.carry(port, have)
            self._change(session)

    def node_message(self, port: NodePort, message: Control) -> None:
        """What another node says. Raises `UnexpectedMessage`."""
        match message:
            case Facts():
                self.facts(message, from_node=port.node)
                return
            case NodeState() | NodeReaders():
                self._hear(port, message)
                return
            case Crl():
                self.on_crl(message.crl)
                return
            case NodeHave(readers=False) | NodeWant() | NodePresence():
                pass
            case _:
                raise UnexpectedMessage(f"{type(message).__name__} from a node")
        session = self.sessions.get(SessionId(message.session))
        if session is None:
            self.dropped["no-session"] += 1
            return
        source = session.sources.get(port.node)
        match message:
            case NodeHave():
                session.stop_carrying(port.node)
            case NodeWant():
                session.node_want(port.node, message.epoch, self._clock())
            case NodePresence() if source is not None and source.port is port:
                session.node_presence(source, message.here, message.away, self._clock())
                self._fed(session)
            case _:
                self.dropped["not-asked"] += 1
        self._change(session)

    # --- the overlay ---

    def _hear(self, port: NodePort, fact: NodeState | NodeReaders) -> None:
        news = self.overlay.hear(fact)
        if self.overlay.refused:
            self.dropped["too-many-sessions"] += self.overlay.refused
            self.overlay.refused = 0
        ours = (fact.info.node if isinstance(fact, NodeState) else fact.node) == self.node
        self._spread(news, but="" if ours else port.node)
        if news and isinstance(fact, NodeState):
            self._on_nodes()
        if self.overlay.all_moved or self.overlay.new_ways:
            self._on_change()  # several facts of one change come together: once for all of them
        else:
            self._sync()

    def revoked(self, der: bytes) -> None:
        """There is a newer list of revoked certificates: every server learns of it."""
        self.crl = der
        self._spread([Crl(der)])
        if self.manager is not None:
            self.manager.send(Crl(der))

    def drain(self) -> None:
        """Nobody is let in any more, and no node hangs on this one."""
        self.overlay.drain()
        self._spread([self.overlay.state])
        self._on_change()

    def stopping(self) -> None:
        """The last word of this node: it is called no more."""
        self.overlay.leave()
        self._spread([self.overlay.state])

    @property
    def drained(self) -> bool:
        """Nobody has a link here, and the neighbours have everything."""
        carriers = (carrier for session in self.sessions.values() for carrier in session.carriers.values())
        return not self.links and not any(carrier.reader.pending() for carrier in carriers)

    def _spread(self, facts: Iterable[Control], but: str = "") -> None:
        for fact in facts:
            for node, port in self.nodes.items():
                if node != but:
                    port.send(fact)

    def _readers_moved(self, session: Session, *, readers: bool) -> None:
        if readers == (session.id in self.overlay.ours):
            return
        fresh = readers and bool(self.overlay.readers(session.id)) and not (session.sources and session.fed)
        self._say_readers(session, readers=readers, fresh=fresh)

    def _say_readers(self, session: Session, *, readers: bool, fresh: bool) -> None:
        fact = self.overlay.set_readers(session.id, readers, fresh=fresh)
        if fact is not None:
            self._spread([fact])
            self._link(session.id)

    def _fed(self, session: Session) -> None:
        """If this node was fresh in a session and has been brought everything, the others may hang on it from now on."""
        if session.fed and self.overlay.fresh(session.id):
            self._say_readers(session, readers=session.id in self.overlay.ours, fresh=False)

    def measured(self, node: str, rtt: float) -> None:
        """The round-trip time of a node's link, in seconds."""
        if self.overlay.measured(node, rtt):
            self._spread([self.overlay.state])
            self._on_change()

    def say_load(self) -> None:
        if self.overlay.set_load(self.links, len(self.overlay.ours)):
            self._spread([self.overlay.state])

    def _sync(self) -> None:
        """Sessions whose tree may have moved get the links that it says. What was lost is made good at once. New ways wait a moment for those
        that come with them: a line that heals brings several, and each would be asked for everything that is owed."""
        overlay, now = self.overlay, self._clock()
        if overlay.new_ways and not overlay.all_moved:
            self._new_ways_at = now if self._new_ways_at is None else self._new_ways_at
            if now - self._new_ways_at < NEW_WAYS_AFTER:
                self._on_change()
                return
        moved = list(overlay.sessions()) if overlay.all_moved or overlay.new_ways else list(overlay.moved)
        overlay.moved.clear()
        overlay.all_moved = overlay.new_ways = False
        self._new_ways_at = None
        for session_id in moved:
            self._link(session_id)

    def _link(self, session_id: SessionId) -> None:
        """The links that a session's tree says."""
        neighbours = [self.nodes[node] for node in sorted(self.overlay.neighbours(session_id)) if node in self.nodes]
        session = self._session(session_id) if neighbours else self.sessions.get(session_id)
        if session is not None and (neighbours or session.sources):
            session.link_to(neighbours, self._clock())
            self._change(session)

    # --- facts ---

    def facts(self, facts: Facts, from_node: str = "") -> bool:
        """What the manager or another node knows. False if there is no room for its session."""
        session = self._session(SessionId(facts.session))
        if session is None:
            return False
        self._learn(session, facts, from_node=from_node)
        return True

    def manager_up(self, port: ManagerPort) -> None:
        """The manager is there (again): it learns what it may have missed."""
        self.manager = port
        if self.crl:
            port.send(Crl(self.crl))
        for session in self.sessions.values():
            for facts in session.admission.facts():
                self._tell_manager(facts)

    def manager_down(self, port: ManagerPort) -> None:
        if self.manager is port:
            self.manager = None

    def _session(self, session_id: SessionId) -> Session | None:
        session = self.sessions.get(session_id)
        if session is None:
            if len(self.sessions) >= MAX_SESSIONS:
                self.dropped["too-many-sessions"] += 1
                return None
            session = self.sessions[session_id] = Session(session_id, self.dropped, self._clock(), self._make_group)
        return session

    def _learn(self, session: Session, facts: Facts, from_node: str = "") -> None:
        """Merge; what was new has its effects here and goes on to whoever may not know it."""
        now = self._clock()
        news = session.admission.merge(facts, now)
        if news is None:
            return
        session.used_at = now
        if news.revoked:
            session.close_revoked()
        if news.admitted:
            session.close_unheard()
        if news.office:
            session.office_passed(now)
        if news.ended:
            log.info("session-ended", links=session.links)
            session.end()
        self._spread([news], but=from_node)
        self._tell_manager(replace(news, admitted=[]) if from_node else news)  # who was let in is said by the node that heard it
        self._change(session)

    def _tell_manager(self, facts: Facts) -> None:
        """Who organizes a running session, who was let in or removed, whether it is over; grants are its own."""
        if self.manager is not None and (facts.office or facts.admitted or facts.revoked or facts.ended):
            self.manager.send(replace(facts, grants=[]))

    # --- handshakes ---

    def _is_echo(self, body: bytes) -> bool:
        """Whether this handshake packet has come from a node just now: while nodes do not agree on a tree yet, there may be circles."""
        now, key, echoes = self._clock(), hash(body), self._echoes
        known = key in echoes and now - echoes[key] < ECHO_FOR
        echoes[key] = now
        echoes.move_to_end(key)
        while len(echoes) > MAX_ECHOES or now - next(iter(echoes.values())) >= ECHO_FOR:
            echoes.popitem(last=False)
        return known

    def _clear(self, session: Session, header: PacketHeader, body: bytes, hops: int, *, via: str = "") -> None:
        """A handshake packet goes to its recipient's links at once and is never kept."""
        frame = encode_frame(PACKET, body, hops + 1)
        ports = session.ports.get(header.recipient, [])
        for port in ports:
            if port.reader.put_direct(frame):
                port.wake()
            else:
                self.dropped["clear-full"] += 1
        ways: list[Source] = [] if ports else [source for node, source in session.sources.items() if node != via]
        # who has just come is not announced yet, and its answer must not wait for that: then every neighbour gets it
        for source in [s for s in ways if header.recipient in s.here] or ways:
            if not source.port.send_clear(frame):
                self.dropped["clear-full"] += 1
        if not ports and not ways and not via:
            self.dropped["clear-nobody"] += 1

    # --- time ---

    def _change(self, session: Session) -> None:
        if not self._changed:
            self._on_change()
        self._changed[session.id] = session

    def fan_out(self, now: float) -> float | None:
        """What has come goes to its readers. Returns when to come again, if something gathers."""
        again: float | None = None
        for session in list(self._news.values()):
            at = session.fan_out(now)
            if at is None:
                del self._news[session.id]
            else:
                again = at if again is None else min(at, again)
        return again

    def flush(self) -> bool:
        """Say what has gathered since the last time. True if it must be called again soon."""
        self._sync()
        now = self._clock()
        changed, self._changed = self._changed, {}
        for session in changed.values():
            if session.flush(now):
                self._changed[session.id] = session
        return bool(self._changed)

    def tick(self) -> None:
        """Once a second."""
        now = self._clock()
        for session in list(self.sessions.values()):
            session.tick(now)
            admission = session.admission
            if session.deserted:
                self._readers_moved(session, readers=False)
            self._fed(session)  # nobody is left who could bring something
            ended = admission.ended_at is not None and now - admission.ended_at >= ENDED_SESSION
            idle = now - session.used_at >= IDLE_SESSION and not self.overlay.readers(session.id)  # elsewhere it may go on for days
            if session.deserted and (ended or idle):
                session.link_to([], now)
                del self.sessions[session.id]
                self._news.pop(session.id, None)
                self.overlay.forget_session(session.id)
        self.overlay.forget(now)

    def _refusal(self, reason: CloseReason) -> LinkClosed:
        self.dropped[reason] += 1
        return LinkClosed(reason, remote=False)
