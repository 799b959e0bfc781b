"""A real session to attack: relays, a manager and members that speak TLS to each other. Hostile are a relay between a member and its own,
with a certificate of the cluster, and the manager, which says what it likes.

    member ──TLS──▶ HostileRelay ──TLS──▶ relay-a ──▶ relay-b        its `meddle` sees each frame on its way to the member
"""

import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing
from OpenSSL import SSL

from crypto.signing import SigningKey
from crypto.srp import make_verifier
from endpoint.guest import Guest
from endpoint.journal import Saved
from endpoint.member import Member
from endpoint.organizer import Organizer
from endpoint.session import Session
from endpoint.ticket import RelayAddress, Ticket
from net.dial import dial
from net.listener import Address, listen, serve_tls
from net.pki import Identity, enrol
from net.stream import TlsStream
from net.tls import client_context, server_context
from tests.endpoint.room import PASSWORD
from tests.mcs.raw import Cluster, FakeManager
from wire.control import Facts, Grant
from wire.frame import Frame, FrameDecoder, encode_frame
from wire.ids import MeetingId, ParticipantId, Role, RoleToken, SessionId

Meddler = Callable[[Frame], list[Frame]]


class HostileRelay:
    """`meddle` says what goes on to the member instead of each frame; `cut` ends all links."""

    def __init__(self, behind: Address, tls: SSL.Context) -> None:
        self.meddle: Meddler = lambda frame: [frame]
        self._behind, self._tls = behind, tls
        self._links: set[trio.CancelScope] = set()

    def cut(self) -> None:
        for link in self._links:
            link.cancel()

    async def serve(self, stream: TlsStream) -> None:
        relay = await dial([self._behind], self._tls, server_kind="mcs", cluster="home")
        try:
            with trio.CancelScope() as link:
                self._links.add(link)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, stream, relay, lambda frame: [frame])
                    nursery.start_soon(self._pump, relay, stream, lambda frame: self.meddle(frame))
        finally:
            self._links.discard(link)
            await trio.aclose_forcefully(relay)

    async def _pump(self, one: TlsStream, other: TlsStream, meddle: Meddler) -> None:
        decoder = FrameDecoder()
        try:
            while data := await one.receive_some():
                frames = [passed for frame in decoder.feed_untrusted(data) for passed in meddle(frame)]
                await other.send_all(b"".join(encode_frame(frame.type, frame.body, frame.hops) for frame in frames))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.cut()


@dataclass
class RealScene:
    """Olga organizes; who else is there says each attack."""

    cluster: Cluster
    manager: FakeManager
    relays: list[RelayAddress]
    nursery: trio.Nursery
    over: trio.Event = field(default_factory=trio.Event)
    key: SigningKey = field(default_factory=SigningKey.generate)
    session: SessionId = field(default_factory=lambda: SessionId(secrets.randbits(63) | 1))
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    serial: int = 0
    telling: trio.Lock = field(default_factory=trio.Lock)
    participants: Iterator[int] = field(default_factory=lambda: itertools.count(2))
    sessions: dict[str, Session] = field(default_factory=dict)

    async def tell(self, *grants: Grant, office: int = 0, term: int = 0) -> None:
        """The manager's word to every relay."""
        async with self.telling:
            self.serial += 1
            await self.manager.tell(Facts(self.serial, self.session, list(grants), office=office, term=term))

    async def ticket(self, participant: int, relays: list[RelayAddress], role: Role = Role.ATTENDEE) -> Ticket:
        token = secrets.token_bytes(8)
        first = role is Role.ORGANIZER
        await self.tell(Grant(participant, role, token), office=participant if first else 0, term=1 if first else 0)
        return Ticket(
            self.session, ParticipantId(participant), role, RoleToken(token), self.secret, MeetingId(123456789), "Real",
            self.key.public, tuple(relays), "home",
        )  # fmt: skip

    async def come(self, member: Member, ticket: Ticket, name: str) -> Session:
        session: Session = await self.nursery.start(self._stay, member, ticket)
        self.sessions[name] = session
        return session

    async def _stay(self, member: Member, ticket: Ticket, task_status: trio.TaskStatus[Session]) -> None:
        """In a task of its own: guests may come side by side."""
        async with Session.open(member, ticket, client_context(self.cluster.ca, None)) as session:
            await session.until_joined()
            task_status.started(session)
            await self.over.wait()

    async def organizer(self) -> Session:
        ticket = await self.ticket(1, self.relays, Role.ORGANIZER)
        verifier = await trio.to_thread.run_sync(make_verifier, self.session, self.secret, PASSWORD)
        organizer = Organizer(ticket, Saved.fresh(self.session, self.key, verifier), trio.current_time(), name="Olga")
        return await self.come(organizer, ticket, "Olga")

    async def guest(self, name: str, *, through: HostileRelay | None = None) -> Session:
        relays = [await self._address(through)] if through else self.relays
        ticket = await self.ticket(next(self.participants), relays)
        return await self.come(Guest(ticket, PASSWORD, name), ticket, name)

    def hostile_relay(self) -> HostileRelay:
        return HostileRelay(self.relays[0].addresses[0], client_context(self.cluster.ca, None))

    async def _address(self, hostile: HostileRelay) -> RelayAddress:
        identity = self.cluster.where / "hostile"
        if not identity.exists():
            enrol(self.cluster.ca.parent, identity, "mcs", "hostile", ["127.0.0.1"])
        listeners = await listen("127.0.0.1", 0)
        context = server_context(Identity.in_directory(identity), ask_peer=False)

        async def serve(task_status: trio.TaskStatus[list[Address]]) -> None:
            await serve_tls(listeners, context, hostile.serve, task_status=task_status)

        return RelayAddress("hostile", tuple(await self.nursery.start(serve)))


@asynccontextmanager
async def real_scene(cluster: Cluster) -> AsyncIterator[RealScene]:
    manager = FakeManager()
    async with cluster.running("relay-a", "relay-b", manager=manager) as nodes, trio.open_nursery() as nursery:
        relays = [RelayAddress(node.me.node, tuple(node.addresses)) for node in nodes]
        scene = RealScene(cluster, manager, relays, nursery)
        yield scene
        scene.over.set()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
