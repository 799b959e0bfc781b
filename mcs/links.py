"""Between connections and the relay: what each kind of link says and is owed.

    accepted:  `Caller` ──Hello──▶ `EndpointLink`      (no certificate: an endpoint; one in reserve becomes it when it is needed)
                        ──NodeHello──▶ `NodeLink`      (an mcs certificate of this cluster)
    dialled:   `NodeLink`, `ManagerLink`               (they say NodeHello first)

Each is the `net.pumped.PumpHandler` of one link: `received` and `packets` decide at once, `pull` brings the next bytes.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

from mcs.bucket import Bucket
from mcs.fanout import Reader
from mcs.limits import (
    CLEAR_BURST,
    CLEAR_RATE,
    CLEAR_SIZE,
    DIRECT_BYTES,
    FLOOD_BURST,
    FLOOD_RATE,
    ITEM_COST,
    MAX_HAVE_PARTS,
    MAX_SESSIONS,
    MAX_STREAMS,
    NODE_OUTBOX,
    OFFICE_CLEAR_BURST,
    OFFICE_CLEAR_RATE,
    PACE,
    SEGMENT,
)
from mcs.relay import Relay
from mcs.session import Session
from net.path import path_rtt
from net.pki import PeerName
from net.pumped import Group, Pumped
from wire.control import (
    VERSION,
    Control,
    Crl,
    Facts,
    FactsAck,
    Fetch,
    Have,
    Hello,
    Membership,
    NodeHave,
    NodeHello,
    NodeInfo,
    NodePresence,
    NodeWelcome,
    Position,
    encode_control,
)
from wire.errors import CloseReason, LinkClosed, UnexpectedMessage, UnsupportedVersion
from wire.frame import Frame
from wire.ids import ParticipantId, SessionId


class Role(Protocol):
    """What a link has turned out to be."""

    label: str

    def received(self, item: Control) -> None: ...
    def packets(self, frames: list[Frame]) -> None: ...
    def pull(self, budget: int) -> bytes | None: ...
    def behind(self, missed: int) -> None: ...
    def gone(self) -> None: ...


class EndpointLink:
    """A participant's link; the session's `EndpointPort`."""

    def __init__(self, relay: Relay, connection: Pumped, session: Session, reader: Reader) -> None:
        assert reader.participant is not None
        now = trio.current_time()
        self.participant: ParticipantId = reader.participant
        self.reader = reader
        self.opened_at = now
        self.owing_since: float | None = None
        self.label = f"participant {self.participant}"
        self._relay = relay
        self._connection = connection
        connection.pace = PACE
        self._session = session
        self._flood = session.floods.setdefault(self.participant, Bucket(FLOOD_RATE, FLOOD_BURST, now))
        self._clear = Bucket(CLEAR_RATE, CLEAR_BURST, now)
        self._office_clear = Bucket(OFFICE_CLEAR_RATE, OFFICE_CLEAR_BURST, now)
        self._start: list[Position] = []
        self._parts = 0

    # --- as a handler ---

    def received(self, item: Control) -> None:
        cost = 16 * len(item.have) if isinstance(item, Have) else 0
        self._pay(max(cost, ITEM_COST))
        if isinstance(item, Have):
            self._parts += 1
            if self._parts > MAX_HAVE_PARTS:
                raise UnexpectedMessage("the have-vector does not end")
            self._start += item.have
            if not item.more:
                self._relay.start(self._session, self, self._start)
                self._start = []
        else:
            self._relay.message(self._session, self, item)
            if isinstance(item, Fetch):  # a few bytes bring megabytes
                self._pay(sum(len(entry.frame) for entry in self.reader.fetched))

    def packets(self, frames: list[Frame]) -> None:
        self._pay(sum(max(len(frame.body), ITEM_COST) for frame in frames))
        self._relay.packets(self._session, self, frames, self._may_clear)

    def _pay(self, cost: int) -> None:
        if not self._flood.take(cost, trio.current_time()):
            self._flood.empty()
            raise LinkClosed(CloseReason.FLOOD, remote=False)

    def pull(self, budget: int) -> bytes | None:
        reader, feed = self.reader, self._session.feed
        if self not in feed.own:
            direct = reader.pull_direct() if reader.direct else []
            return b"".join(direct) if direct else feed.next_for(self, budget) if self in feed.trailing else None
        frames = reader.pull(budget, at_least_one=budget >= SEGMENT)
        if reader.lost:
            self._session.say_lost(self, reader.lost)
            reader.lost = []
        if reader.skipped:
            reader.skipped = False
            self._relay.ask(self._session, reader.want_epoch)
        if frames:
            return frames[0] if len(frames) == 1 else b"".join(frames)
        feed.offer(self)
        return None

    def behind(self, missed: int) -> None:
        self._session.behind(self, missed)

    def gone(self) -> None:
        self._relay.leave(self._session, self)

    def _may_clear(self, size: int) -> bool:
        bucket = self._office_clear if self.participant == self._session.admission.office else self._clear
        return size <= CLEAR_SIZE and bucket.take(1, trio.current_time())

    # --- as a port ---

    @property
    def closing(self) -> bool:
        return self._connection.closing

    @property
    def blocked(self) -> bool:
        return self._connection.blocked

    def join(self, group: Group) -> None:
        group.add(self._connection)

    def part(self, group: Group) -> None:
        group.discard(self._connection)

    def send(self, message: Control) -> None:
        self._connection.send(message)

    def wake(self) -> None:
        self._connection.wake()

    def close(self, reason: CloseReason, detail: str = "") -> None:
        self._connection.close(reason, detail)

    def pause(self) -> None:
        self._connection.pause_reading()

    def resume(self) -> None:
        self._connection.resume_reading()


class NodeLink:
    """A link to another node; every session's `NodePort` there. Its messages wait in a queue of their own: after a long absence they are
    many. They go before packets."""

    def __init__(self, relay: Relay, connection: Pumped, node: str) -> None:
        self.node = node
        self.label = f"node {node}"
        self._relay = relay
        self._connection = connection
        self._outbox: deque[bytes] = deque()
        self._outbox_size = 0
        self._ready: dict[SessionId, None] = {}  # sessions that may have packets for it, the longest unserved first
        self._have: dict[SessionId, list[Position]] = {}  # have-vectors that are not complete yet

    def packets(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._relay.node_packet(self, frame)

    def received(self, item: Control) -> None:
        if isinstance(item, NodeHave) and item.readers:
            session = SessionId(item.session)
            parts = self._have.setdefault(session, [])
            parts += item.have
            if sum(map(len, self._have.values())) > MAX_STREAMS or len(self._have) > MAX_SESSIONS:
                raise UnexpectedMessage("have-vectors do not end")
            if not item.more:
                del self._have[session]
                self._relay.node_have(self, session, parts)
        else:
            self._relay.node_message(self, item)

    def pull(self, budget: int) -> bytes | None:
        out: list[bytes] = []
        size = 0
        while self._outbox and (not out or size + len(self._outbox[0]) <= budget):
            out.append(self._outbox.popleft())
            size += len(out[-1])
            self._outbox_size -= len(out[-1])
        while self._ready and not self._outbox:
            session_id = next(iter(self._ready))
            del self._ready[session_id]
            frames, more = self._pull_session(session_id, budget - size, at_least_one=not out)
            out += frames
            size += sum(map(len, frames))
            if more:
                self._ready[session_id] = None
                if not frames or size >= budget:
                    break
        return b"".join(out) if out else None

    def _pull_session(self, session_id: SessionId, budget: int, *, at_least_one: bool) -> tuple[list[bytes], bool]:
        """Frames of one session, and whether there are more."""
        session = self._relay.sessions.get(session_id)
        carrier = session.carriers.get(self.node) if session else None
        if session is None or carrier is None or carrier.port is not self:
            return [], False
        reader = carrier.reader
        frames = reader.pull(budget, at_least_one=at_least_one)
        if reader.skipped:
            reader.skipped = False
            self._relay.ask(session, reader.want_epoch)
        more = reader.pending()
        if carrier.unanswered and not more:
            carrier.unanswered = False
            frames.append(encode_control(NodePresence(session_id, [], [])))
        return frames, more

    def behind(self, missed: int) -> None:
        """It is in no group."""

    def measure(self) -> None:
        """Once a second: how long is the way. Where the kernel does not tell, the last keep-alive's ping must do."""
        if not self._connection.closing and (rtt := path_rtt(self._connection.descriptor) or self._connection.rtt) is not None:
            self._relay.measured(self.node, rtt)

    def gone(self) -> None:
        self._relay.node_down(self)

    def up(self) -> None:
        self._relay.node_up(self)

    def send(self, message: Control) -> None:
        frame = encode_control(message)
        self._outbox.append(frame)
        self._outbox_size += len(frame)
        if self._outbox_size > NODE_OUTBOX:
            self._connection.close(CloseReason.SLOW_READER, "too many messages wait for this node")
        self._connection.wake()

    def send_clear(self, frame: bytes) -> bool:
        """A handshake packet, framed. False if there is no room: its sender repeats it."""
        if self._outbox_size + len(frame) > DIRECT_BYTES:
            return False
        self._outbox.append(frame)
        self._outbox_size += len(frame)
        self._connection.wake()
        return True

    def wake(self, session: SessionId) -> None:
        self._ready.setdefault(session)
        self._connection.wake()

    def close(self, reason: CloseReason, detail: str = "") -> None:
        self._connection.close(reason, detail)


class ManagerLink:
    """The dialled link to the manager: membership and facts come, load and outcomes go."""

    def __init__(self, relay: Relay, connection: Pumped, on_membership: Callable[[Membership], None]) -> None:
        self.label = "manager"
        self._relay = relay
        self._connection = connection
        self._on_membership = on_membership

    def packets(self, frames: list[Frame]) -> None:
        raise UnexpectedMessage("a packet from the manager")

    def received(self, item: Control) -> None:
        match item:
            case Membership():
                self._on_membership(item)
            case Crl():
                self._relay.on_crl(item.crl)
            case Facts():
                if self._relay.facts(item) and item.serial:
                    self.send(FactsAck(item.serial))
            case _:
                raise UnexpectedMessage(f"{type(item).__name__} from the manager")

    def pull(self, budget: int) -> bytes | None:
        return None

    def behind(self, missed: int) -> None:
        """It is in no group."""

    def up(self) -> None:
        self._relay.manager_up(self)

    def gone(self) -> None:
        self._relay.manager_down(self)

    def send(self, message: Control) -> None:
        self._connection.send(message)


class Caller:
    """An accepted link: nobody yet, then an endpoint or another node."""

    connection: Pumped  # set by whoever makes both

    def __init__(self, relay: Relay, me: PeerName, peer: PeerName | None, on_known: Callable[[], None]) -> None:
        """`on_known` is called once: when the link is somebody's, or gone."""
        self.role: Role | None = None
        self._on_known: Callable[[], None] | None = on_known
        self._relay = relay
        self._me = me
        self._peer = peer
        self._hello: Hello | None = None
        self._reserved: Session | None = None  # its participant has a link elsewhere, and this one in reserve
        self._have: list[Position] = []
        self._parts = 0

    @property
    def node(self) -> str:
        """The name of a relay; "": somebody else."""
        return self._peer.node if self._peer is not None and self._peer.kind == "mcs" else ""

    @property
    def label(self) -> str:
        if self.role is None and self._hello is not None and self._hello.standby:
            return f"participant {self._hello.participant}, in reserve"
        return self.role.label if self.role else "stranger"

    def packets(self, frames: list[Frame]) -> None:
        if self.role is None:
            raise UnexpectedMessage("a packet from somebody who has not said who it is")
        self.role.packets(frames)

    def behind(self, missed: int) -> None:
        if self.role is not None:
            self.role.behind(missed)

    def received(self, item: Control) -> None:
        if self.role is not None:
            self.role.received(item)
        elif isinstance(item, Hello) and self._hello is None:
            self._greeted(item)
        elif isinstance(item, Have) and self._hello is not None:
            self._greeted_on(item)
        elif isinstance(item, NodeHello) and self._hello is None:
            self._greeted_by_node(item)
        else:
            raise UnexpectedMessage(f"{type(item).__name__} from somebody who has not said who it is")

    def pull(self, budget: int) -> bytes | None:
        return self.role.pull(budget) if self.role else None

    def gone(self) -> None:
        self._known()
        self._release()
        if self.role is not None:
            self.role.gone()

    # --- in reserve ---

    @property
    def closing(self) -> bool:
        return self.connection.closing

    def close(self, reason: CloseReason, detail: str = "") -> None:
        self.connection.close(reason, detail)

    def _release(self) -> None:
        if self._reserved is not None:
            self._relay.release(self._reserved, self)
            self._reserved = None

    # --- who it is ---

    def _known(self) -> None:
        if self._on_known is not None:
            self._on_known()
            self._on_known = None

    def _greeted(self, hello: Hello) -> None:
        if self._peer is not None:
            raise UnexpectedMessage("a server does not take part in sessions")
        self._hello, self._have = hello, list(hello.have)
        if not hello.more:
            self._enter(hello)
        elif hello.standby:
            self._reserved = self._relay.reserve(hello, self)
            self._known()

    def _greeted_on(self, part: Have) -> None:
        self._parts += 1
        if self._parts > MAX_HAVE_PARTS:
            raise UnexpectedMessage("the have-vector does not end")
        self._have += part.have
        if not part.more and self._hello is not None:
            self._enter(self._hello)

    def _enter(self, hello: Hello) -> None:
        def make_port(session: Session, reader: Reader) -> EndpointLink:
            link = self.role = EndpointLink(self._relay, self.connection, session, reader)
            return link

        self._release()
        self._relay.enter(hello, self._have, make_port)
        self._have = []
        self._known()

    def _greeted_by_node(self, hello: NodeHello) -> None:
        peer = self._peer
        if peer is None:
            raise LinkClosed(CloseReason.CERTIFICATE_REQUIRED, remote=False)
        if peer.kind != "mcs":
            raise LinkClosed(CloseReason.CERTIFICATE_WRONG_ROLE, remote=False)
        if peer.cluster != self._me.cluster or peer.node != hello.info.node or peer.node == self._me.node:
            raise LinkClosed(CloseReason.CERTIFICATE_REFUSED, remote=False, detail="the node is not who its certificate names")
        if hello.version != VERSION:
            raise UnsupportedVersion
        link = self.role = NodeLink(self._relay, self.connection, peer.node)
        self.connection.send(NodeWelcome(VERSION, self._me.node))
        self._known()
        link.up()


class Dialled:
    """A link to another server that this node called. `role` is what it becomes when the other side has welcomed us."""

    connection: Pumped  # set by whoever makes both

    def __init__(self, me: NodeInfo, expected: str | None, make_role: Callable[[Pumped], NodeLink | ManagerLink]) -> None:
        """`expected`: the name that the other side must have; None: any."""
        self.welcomed = False
        self._role: NodeLink | ManagerLink | None = None
        self._me = me
        self._expected = expected
        self._make_role = make_role

    @property
    def node(self) -> str:
        """The name of a relay; "": a manager."""
        return self._expected or ""

    @property
    def label(self) -> str:
        return self._role.label if self._role else self._expected or "server"

    def greet(self) -> None:
        self.connection.send(NodeHello(VERSION, self._me))

    def packets(self, frames: list[Frame]) -> None:
        if self._role is None:
            raise UnexpectedMessage("a packet before the welcome")
        self._role.packets(frames)

    def behind(self, missed: int) -> None:
        """Links between servers are in no group."""

    def received(self, item: Control) -> None:
        if self._role is not None:
            self._role.received(item)
        elif isinstance(item, NodeWelcome):
            if item.version != VERSION:
                raise UnsupportedVersion
            if self._expected is not None and item.node != self._expected:
                raise LinkClosed(CloseReason.CERTIFICATE_REFUSED, remote=False, detail="another server than the one that was called")
            self.welcomed = True
            self._role = self._make_role(self.connection)
            self._role.up()
        else:
            raise UnexpectedMessage(f"{type(item).__name__} before the welcome")

    def pull(self, budget: int) -> bytes | None:
        return self._role.pull(budget) if self._role else None

    def gone(self) -> None:
        if self._role is not None:
            self._role.gone()
