"""The mutual-TLS link to every relay: who is live, what they are told, what they say.

    relay ──NodeHello──▶ manager      the name must be the certificate's, the certificate an mcs's of this cluster
    relay ◀──NodeWelcome, Membership, then Facts of every running session, one after the other, each acknowledged
    relay ◀──Facts──                  new grants, revocations, ends, as they happen
    relay ──FactsAck, Load, Facts──▶  a relay's facts are in the store before they are acknowledged

A relay is *live* while its link is up. It stays a *member* for `LINGER` seconds longer, also across a restart of the manager (members are
in the store), because a lost link to the manager is no reason for relays to part from each other. A membership's epoch is the number of
this start ‖ a count, so it rises for ever.

Facts only add, so their order does not matter, and a relay that connects in the middle of anything ends up knowing all. A relay that says
something of a session that has ended is told so. A relay that does not acknowledge (it has no room, or is stuck) is passed over by tickets
for `SILENCE` seconds; whether its link is alive is for keep-alive to say.

Revoked certificates (`net.revocation`) lose their links and are refused; the list goes to every relay, and may come from any.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio
from msgspec.structs import replace
from sqlalchemy import Connection as Db
from sqlalchemy import select

from manager import tickets
from manager.errors import StoreUnavailable
from manager.placement import NodeLoad
from manager.store import Store, next_value, nodes
from net.connection import Connection
from net.pki import PeerName, PkiUnreadable
from net.revocation import Revocations, serial_of
from net.stream import TlsStream
from net.tls import TlsReason, TlsRefused, check_peer
from wire.control import MAX_ENTRIES, VERSION, Control, Crl, Facts, FactsAck, Load, Membership, NodeHello, NodeInfo, NodeWelcome
from wire.errors import CloseReason, LinkClosed, UnexpectedMessage, UnsupportedVersion
from wire.frame import Frame
from wire.ids import SessionId
from wire.link import Side

ACK_WITHIN: Final = 2.0
"""Seconds that a ticket waits for its relay."""
SILENCE: Final = 10.0
"""Seconds for which unacknowledged facts are remembered."""
LINGER: Final = 15.0
"""Seconds for which a relay without a link stays a member."""
UNREAD: Final = 256
"""Facts from one relay that wait for the store before its reading pauses."""

log = structlog.get_logger()


class NodeState(StrEnum):
    """Of a member, as this manager sees it."""

    CONNECTED = "connected"
    DRAINING = "draining"
    """It is being emptied: no session begins there."""
    SILENT = "silent"
    """Its link is up, and it does not acknowledge."""
    AWAY = "away"
    """Without a link for some seconds; then it is no member any more."""


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """One member. `links`: people and nodes attached to it. Times in seconds since 1970: since when it is linked, when it last said how busy it
    is, when its certificate ends; None where that is not known."""

    node: str
    state: NodeState
    links: int
    sessions: int
    addresses: list[tuple[str, int]]
    linked_at: float | None = None
    heard_at: float | None = None
    certificate_ends_at: float | None = None


class Receipt:
    """Who has acknowledged one telling, who may still."""

    __slots__ = ("_changed", "acked", "waiting")

    def __init__(self) -> None:
        self.acked: set[str] = set()
        self.waiting: set[str] = set()
        self._changed = trio.Event()

    def settle(self, node: str, *, acked: bool) -> None:
        self.waiting.discard(node)
        if acked:
            self.acked.add(node)
        self._changed.set()

    async def wait(self, first: str | None) -> None:
        """Until `first` has acknowledged; until anybody has, if it is gone; until everybody has or is gone, if it is None."""
        while self.waiting and first not in self.acked and (first is None or first in self.waiting or not self.acked):
            self._changed = trio.Event()
            await self._changed.wait()


class NodeLink:
    """One relay's link; the handler of its connection. Owned by the task in `Nodes.serve`."""

    def __init__(self, nodes: "Nodes", stream: TlsStream, peer: PeerName) -> None:
        self.peer = peer
        self.connection = Connection(stream, Side.CALLEE, self)
        self.remote_address = stream.remote_address
        self.serial = serial_of(stream)
        certificate = stream.tls.get_peer_certificate(as_cryptography=True)
        self.certificate_ends_at = None if certificate is None else certificate.not_valid_after_utc.timestamp()
        self.linked_at: float | None = None
        self.heard_at: float | None = None
        self.greeted = trio.Event()
        self.load = NodeLoad(peer.node)
        self.placed = 0  # tickets since the last load
        self.draining = False
        self.unread: deque[Facts] = deque()
        self.readable = trio.Event()
        self._nodes = nodes
        self._serial = 0
        self._unacked: dict[int, tuple[float, Receipt]] = {}  # by serial, oldest first

    def received(self, item: Frame | Control) -> None:
        match item:
            case NodeHello() if not self.greeted.is_set():
                if item.version != VERSION:
                    raise UnsupportedVersion
                if item.info.node != self.peer.node:
                    said = f"the hello names another node than the certificate, which is {self.peer.node}'s"
                    raise LinkClosed(CloseReason.CERTIFICATE_WRONG_ROLE, remote=False, detail=said)
                self._nodes.welcome(self, item.info)
                self.greeted.set()
            case Crl():
                self._nodes.learn_crl(item.crl)
            case Load():
                self.load = NodeLoad(self.peer.node, item.links, item.sessions)
                self.draining = item.draining
                self.placed = 0
                self.heard_at = self._nodes.now
            case FactsAck():
                _, receipt = self._unacked.pop(item.serial, (0.0, None))
                if receipt is not None:
                    receipt.settle(self.peer.node, acked=True)
            case Facts():
                self.unread.append(item)
                self.readable.set()
                if len(self.unread) >= UNREAD:
                    self.connection.pause_reading()
            case _:
                raise UnexpectedMessage(type(item).__name__)

    def pull(self, budget: int) -> bytes | None:
        return None  # there are no packets on this link

    def tell(self, facts: Facts, receipt: Receipt) -> None:
        """Send facts; the receipt learns when they are acknowledged, or that the link is gone."""
        if self.connection.closing:
            return
        self._serial += 1
        self._unacked[self._serial] = trio.current_time(), receipt
        receipt.waiting.add(self.peer.node)
        self.connection.send(replace(facts, serial=self._serial))

    @property
    def deaf(self) -> bool:
        """It has left facts unacknowledged for longer than a ticket waits."""
        oldest, _ = next(iter(self._unacked.values()), (math.inf, None))
        return trio.current_time() - oldest > ACK_WITHIN

    def forget(self, before: float = math.inf) -> None:
        """What was told until then is not acknowledged any more."""
        late = [serial for serial, (since, _) in self._unacked.items() if since < before]
        for serial in late:
            _, receipt = self._unacked.pop(serial)
            receipt.settle(self.peer.node, acked=False)
        if late:
            log.warning("facts-unacknowledged", node=self.peer.node, times=len(late))


class Nodes:
    """All relays. Its fields change without an `await` in between."""

    def __init__(self, name: PeerName, store: Store, clock: Callable[[], float], directory: Path | None = None) -> None:
        """`directory`: where the manager's certificate is, and the list of revoked ones; None: there is none. Raises `PkiUnreadable`."""
        self.name = name
        self._revocations = Revocations(directory, self._revoked) if directory else None
        self._store = store
        self._clock = clock
        self._live: dict[str, NodeLink] = {}
        self._members: dict[str, NodeInfo] = {}
        self._gone: dict[str, float] = {}  # members without a link, since when
        self._epoch = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the membership. Started when relays may be served. Raises `StoreUnavailable` before that alone."""
        self._epoch = await self._store.write(next_value, "starts") << 32
        for info in await self._store.read(remembered_nodes):
            self._members[info.node] = info
            self._gone[info.node] = trio.current_time()
        task_status.started()
        while True:
            await trio.sleep(1.0)
            if self._revocations is not None:
                self._revocations.look()
            now = trio.current_time()
            for link in self._live.values():
                link.forget(now - SILENCE)
            late = [node for node, since in self._gone.items() if now - since >= LINGER]
            if late:
                await self._forget(late)

    async def serve(self, stream: TlsStream) -> None:
        """One relay, from its TLS handshake to the end of its link."""
        peer = stream.peer or PeerName(self.name.cluster, "mcs", "?")
        link = NodeLink(self, stream, peer)
        try:
            check_peer(stream.peer, kind="mcs", cluster=self.name.cluster)
            if self._revocations is not None and self._revocations.revoked(link.serial):
                raise TlsRefused(TlsReason.REVOKED, remote=False)
        except TlsRefused as refused:
            link.connection.close(refused.close_reason, refused.args[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._greet, link)
            nursery.start_soon(self._learn, link)
            why = await link.connection.run()
            nursery.cancel_scope.cancel()
        link.forget()
        if self._live.get(peer.node) is link:
            del self._live[peer.node]
            self._gone[peer.node] = trio.current_time()
        log.info("node-link-ended", node=str(peer), reason=str(why.reason), remote=why.remote, detail=why.args[0])
        if why.remote and why.reason is CloseReason.SHUTDOWN and peer.node in self._gone:
            await self._forget([peer.node])

    def welcome(self, link: NodeLink, info: NodeInfo) -> None:
        """A relay is live from now on. Raises `LinkClosed` if there are too many."""
        node = info.node
        if node not in self._members and len(self._members) >= MAX_ENTRIES:
            raise LinkClosed(CloseReason.BUSY, remote=False, detail=f"there are {MAX_ENTRIES} relays already")
        former = self._live.get(node)
        if former is not None:
            log.warning("node-twice", node=node, remote_address=link.remote_address, former=former.remote_address)
            former.connection.close(CloseReason.TOO_MANY_LINKS, "a newer link of this node has taken its place")
        self._live[node] = link
        link.linked_at = self.now
        self._gone.pop(node, None)
        changed = self._members.get(node) != info
        self._members[node] = info
        link.connection.send(NodeWelcome(VERSION, self.name.node))
        if changed:
            self._epoch += 1
        self._send_membership(self._live.values() if changed else [link])
        if self._revocations is not None and self._revocations.der:
            link.connection.send(Crl(self._revocations.der))
        log.info("node-live", node=node, live=len(self._live))

    def learn_crl(self, der: bytes) -> None:
        """A relay's list of revoked certificates."""
        try:
            if self._revocations is not None and self._revocations.learn_untrusted(der):
                self._revocations.keep()
        except PkiUnreadable as error:
            log.warning("revocations-unreadable", why=str(error))

    def _revoked(self) -> None:
        """A newer list: who stands on it is cut, the others are told."""
        assert self._revocations is not None
        for link in list(self._live.values()):
            if self._revocations.revoked(link.serial):
                link.connection.close(CloseReason.CERTIFICATE_REVOKED)
            else:
                link.connection.send(Crl(self._revocations.der))

    def loads(self) -> list[NodeLoad]:
        """The live relays that answer, with what was placed on each since it last said how busy it is; all, if none answers. Relays that are
        being drained come last: where nothing else is left."""
        answering = [link for link in self._live.values() if not link.deaf] or list(self._live.values())
        live = [link for link in answering if not link.draining] or answering
        return [NodeLoad(link.load.node, link.load.links + link.placed, link.load.sessions) for link in live]

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def health(self) -> list[NodeHealth]:
        """All members, by name."""
        return [self._health(node, self._live.get(node)) for node in sorted(self._members)]

    def _health(self, node: str, link: NodeLink | None) -> NodeHealth:
        where = [(host, port) for host, port in self._members[node].addresses]
        if link is None:
            return NodeHealth(node, NodeState.AWAY, 0, 0, where)
        state = NodeState.SILENT if link.deaf else NodeState.DRAINING if link.draining else NodeState.CONNECTED
        return NodeHealth(node, state, link.load.links, link.load.sessions, where, link.linked_at, link.heard_at, link.certificate_ends_at)

    def placed(self, node: str) -> None:
        """A ticket sends its holder there."""
        if node in self._live:
            self._live[node].placed += 1

    def infos(self, names: Iterable[str]) -> list[NodeInfo]:
        """What members say of themselves, in this order."""
        return [self._members[name] for name in names if name in self._members]

    async def tell(self, facts: Facts, first: str | None = None) -> frozenset[str]:
        """Tell every live relay, and wait (see `Receipt.wait`), `ACK_WITHIN` seconds at most. Who has acknowledged until then."""
        receipt = self.announce(facts)
        with trio.move_on_after(ACK_WITHIN):
            await receipt.wait(first)
        return frozenset(receipt.acked)

    def announce(self, facts: Facts) -> Receipt:
        """Tell every live relay, without waiting."""
        receipt = Receipt()
        for link in list(self._live.values()):
            link.tell(facts, receipt)
        return receipt

    async def _greet(self, link: NodeLink) -> None:
        """Bring a new relay up to date."""
        await link.greeted.wait()
        try:
            await self._store.write(remember_node, self._members[link.peer.node])
            for session in await self._store.read(tickets.running_sessions):
                for facts in await self._store.read(tickets.facts_of, session):
                    receipt = Receipt()
                    link.tell(facts, receipt)
                    with trio.move_on_after(SILENCE):
                        await receipt.wait(link.peer.node)
                    if not receipt.acked:
                        return  # it has no room: it learns of a session with that session's next ticket
        except StoreUnavailable:
            link.connection.close(CloseReason.BUSY, "the manager cannot reach its store")

    async def _learn(self, link: NodeLink) -> None:
        """Keep what a relay says, then acknowledge it."""
        while True:
            link.readable = trio.Event()
            while link.unread:
                said = list(link.unread)
                link.unread.clear()
                try:
                    learnt = await self._store.write(_learn_all, said, self._clock())
                except StoreUnavailable:
                    return link.connection.close(CloseReason.BUSY, "the manager cannot reach its store")
                for facts, what in zip(said, learnt, strict=True):
                    over = tickets.ended_facts(SessionId(facts.session))
                    if what.ended:
                        log.info("session-ended", by=link.peer.node)
                        self.announce(over)
                    elif what.over:
                        link.tell(over, Receipt())
                    if facts.serial:
                        link.connection.send(FactsAck(facts.serial))
            link.connection.resume_reading()
            await link.readable.wait()

    async def _forget(self, names: list[str]) -> None:
        """These are members no longer. The store follows when it can: a name too many in it costs one `LINGER` after a restart."""
        for node in names:
            self._gone.pop(node, None)
            self._members.pop(node, None)
        self._epoch += 1
        self._send_membership(self._live.values())
        log.info("nodes-gone", nodes=names, live=len(self._live))
        with suppress(StoreUnavailable):
            for node in names:
                if node not in self._members:
                    await self._store.write(forget_node, node)

    def _send_membership(self, links: Iterable[NodeLink]) -> None:
        message = Membership(self._epoch, [self._members[node] for node in sorted(self._members)])
        for link in list(links):
            link.connection.send(message)


def _learn_all(db: Db, said: list[Facts], now: float) -> list[tickets.Learnt]:
    """A rule: all that a relay has said meanwhile, in one transaction."""
    return [tickets.learn(db, facts, now) for facts in said]


def remember_node(db: Db, info: NodeInfo) -> None:
    """A rule: this relay is a member."""
    blob = msgspec.msgpack.encode(info)
    if db.execute(nodes.update().where(nodes.c.name == info.node).values(info=blob)).rowcount == 0:
        db.execute(nodes.insert().values(name=info.node, info=blob))


def forget_node(db: Db, name: str) -> None:
    """A rule: this relay is a member no longer."""
    db.execute(nodes.delete().where(nodes.c.name == name))


def remembered_nodes(db: Db) -> list[NodeInfo]:
    """A rule: the members of last time."""
    return [msgspec.msgpack.decode(blob, type=NodeInfo) for blob in db.execute(select(nodes.c.info)).scalars()]
