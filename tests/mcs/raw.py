"""Raw parties: an endpoint and a manager that speak frames and nothing more, and relays of a cluster to speak to.

A raw endpoint seals nothing: its packets have a header, a payload that names them, and a tag of zeros. For a relay that is all the same.
"""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio
import trio.testing

from mcs.node import Node
from mcs.settings import Settings
from net import pki
from net.connection import Connection
from net.dial import dial
from net.listener import Address, listen, serve_tls
from net.stream import TlsStream
from net.tls import client_context, server_context
from wire.control import (
    VERSION,
    Control,
    Facts,
    FactsAck,
    Grant,
    Hello,
    Membership,
    NodeHello,
    NodeInfo,
    NodeWelcome,
    Position,
    Welcome,
)
from wire.errors import LinkClosed
from wire.frame import PACKET, Frame, encode_frame
from wire.ids import Epoch, ParticipantId, SessionId
from wire.link import Side
from wire.packet import TAG_SIZE, UNICAST_CHANNELS, Flag, PacketHeader, pack_header, parse_packet_untrusted

PATIENCE = 60.0
"""Seconds after which a test has failed; nothing depends on how long anything takes below it."""
C = TypeVar("C", bound=Control)


async def settled(true: Callable[[], object]) -> None:
    """Until something is true of a relay in this process, which has no way to tell."""
    with trio.fail_after(PATIENCE):
        while not true():
            await trio.testing.wait_all_tasks_blocked(0.005)


def packet(
    session: int, sender: int, channel: int, counter: int, *, to: int = 0, body: bytes = b"", flags: int = Flag.LAST, epoch: int | None = None
) -> bytes:
    """A packet as a relay sees one."""
    unicast = channel in UNICAST_CHANNELS
    header = pack_header(
        flags,
        channel,
        SessionId(session),
        ParticipantId(sender),
        ParticipantId(to),
        Epoch(0 if unicast else 1 if epoch is None else epoch),
        counter,
    )
    return header + (body or f"{sender}/{channel}/{counter}".encode()) + bytes(0 if flags & Flag.CLEAR else TAG_SIZE)


class RawEndpoint:
    """One link of an endpoint. What arrives is kept in order."""

    def __init__(self, session: int, participant: int, token: bytes) -> None:
        self.session = session
        self.participant = participant
        self.token = token
        self.packets: list[tuple[PacketHeader, bytes]] = []
        self.hops: list[int] = []
        self.controls: list[Control] = []
        self.closed: LinkClosed | None = None
        self.connection: Connection
        self._out: list[bytes] = []
        self._counters: dict[tuple[int, int], int] = {}
        self._news = trio.Event()

    # --- as a handler ---

    def received(self, item: Frame | Control) -> None:
        if isinstance(item, Frame):
            self.packets.append((parse_packet_untrusted(item.body), item.body))
            self.hops.append(item.hops)
        else:
            self.controls.append(item)
        self._news.set()

    def pull(self, budget: int) -> bytes | None:
        out, self._out = b"".join(self._out[:64]), self._out[64:]
        return out or None

    # --- speaking ---

    def say(self, message: Control) -> None:
        self.connection.send(message)

    def say_bytes(self, frames: bytes) -> None:
        self._out.append(frames)
        self.connection.wake()

    def send_raw(self, body: bytes) -> None:
        self._out.append(encode_frame(PACKET, body))
        self.connection.wake()

    def send(self, channel: int, *, to: int = 0, body: bytes = b"", counter: int | None = None, **more: int) -> int:
        """The next packet of a stream (or the one with this counter)."""
        number = self._counters.get((to, channel), -1) + 1 if counter is None else counter
        self._counters[to, channel] = number
        self.send_raw(packet(self.session, self.participant, channel, number, to=to, body=body, **more))
        return number

    # --- hearing ---

    async def until(self, true: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not true():
                self._news = trio.Event()
                if self.closed is not None:
                    raise AssertionError(f"the link has ended: {self.closed}")
                await self._news.wait()

    async def said(self) -> None:
        """Until the relay has welcomed or refused it."""
        with trio.fail_after(PATIENCE):
            while self.closed is None and not self.of(Welcome):
                self._news = trio.Event()
                await self._news.wait()

    async def end(self) -> LinkClosed:
        """Why the link ended."""
        with trio.fail_after(PATIENCE):
            while self.closed is None:
                self._news = trio.Event()
                await self._news.wait()
        return self.closed

    def of(self, kind: type[C]) -> list[C]:
        return [c for c in self.controls if isinstance(c, kind)]

    def got(self, channel: int, sender: int | None = None) -> list[int]:
        """The counters that arrived on a channel, in order."""
        return [h.counter for h, _ in self.packets if h.channel == channel and sender in (None, h.sender)]

    async def gets(self, channel: int, number: int) -> list[int]:
        """So many packets on a channel; the counters of all that came."""
        await self.until(lambda: len(self.got(channel)) >= number)
        return self.got(channel)

    def have(self) -> list[Position]:
        last: dict[tuple[int, int, int], int] = {}
        for header, _ in self.packets:
            if header.channel in (0, 1, 2, 3, 4, 8) and not header.flags & Flag.CLEAR:
                last[header.sender, header.recipient, header.channel] = header.counter
        return [(*stream, counter) for stream, counter in last.items()]

    @property
    def welcome(self) -> Welcome:
        return self.of(Welcome)[0]

    async def run(self, stream: TlsStream, hello: Control) -> None:
        self.connection = Connection(stream, Side.CALLER, self)
        self.connection.send(hello)
        self.closed = await self.connection.run()
        self._news.set()


@dataclass
class Meeting:
    """A session as a manager hands it out."""

    session: int = field(default_factory=lambda: secrets.randbits(63))
    organizer: int = 1
    attendees: tuple[int, ...] = (2, 3, 4)
    tokens: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for participant in (self.organizer, *self.attendees):
            self.tokens[participant] = secrets.token_bytes(8)

    def role(self, participant: int) -> int:
        return 1 if participant == self.organizer else 2

    def facts(self, serial: int = 0) -> Facts:
        grants = [Grant(p, self.role(p), token) for p, token in self.tokens.items()]
        return Facts(serial=serial, session=self.session, grants=grants, office=self.organizer, term=1)

    def hello(self, participant: int, have: list[Position] | None = None, *, fresh: bool = False, more: bool = False) -> Hello:
        role, token = self.role(participant), self.tokens[participant]
        return Hello(
            version=VERSION,
            session=self.session,
            participant=participant,
            role=role,
            token=token,
            fresh=fresh,
            have=have or [],
            more=more,
        )


class FakeManager:
    """Says membership and facts to every relay that calls, and keeps what it hears."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.heard: list[Control] = []
        self.facts: list[Facts] = []
        self.epoch = 0
        self.acked: set[tuple[str, int]] = set()
        self._connections: dict[str, Connection] = {}
        self._news = trio.Event()

    async def serve(self, stream: TlsStream) -> None:
        manager, name = self, stream.peer.node if stream.peer else ""

        class Handler:
            def received(self, item: Frame | Control) -> None:
                assert not isinstance(item, Frame)
                manager._hear(name, item)

            def pull(self, budget: int) -> bytes | None:
                return None

        connection = self._connections[name] = Connection(stream, Side.CALLEE, Handler())
        await connection.run()
        self._connections.pop(name, None)

    def _hear(self, name: str, item: Control) -> None:
        self.heard.append(item)
        match item:
            case NodeHello():
                self.nodes[name] = item.info
                self.epoch += 1
                self._connections[name].send(NodeWelcome(VERSION, "manager-1"))
                for connection in self._connections.values():
                    connection.send(Membership(self.epoch, list(self.nodes.values())))
                for facts in self.facts:
                    self._connections[name].send(facts)
            case FactsAck():
                self.acked.add((name, item.serial))
        self._news.set()

    def say(self, facts: Facts) -> None:
        self.facts.append(facts)
        for connection in self._connections.values():
            connection.send(facts)

    async def tell(self, facts: Facts) -> None:
        """To every relay; returns when all have acknowledged."""
        self.say(facts)
        await self.until(lambda: all((name, facts.serial) in self.acked for name in self._connections))

    async def until(self, true: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not true():
                self._news = trio.Event()
                await self._news.wait()


@dataclass
class Cluster:
    """CA and identities of two relays and a manager, and wrong ones."""

    where: Path
    ca: Path
    manager: pki.Identity
    relays: dict[str, pki.Identity]

    @classmethod
    def create(cls, where: Path) -> "Cluster":
        ca = pki.create_ca(where / "ca", "home")
        hosts = ["127.0.0.1"]
        relays = {name: pki.enrol(ca.parent, where / name, "mcs", name, hosts) for name in ("relay-a", "relay-b")}
        return cls(where, ca, pki.enrol(ca.parent, where / "manager-1", "manager", "manager-1", hosts), relays)

    def settings(self, name: str, managers: tuple[Address, ...] = ()) -> Settings:
        return Settings(identity=self.relays[name].cert_path.parent, listen=(("127.0.0.1", 0),), managers=managers)

    @asynccontextmanager
    async def managed(self, manager: FakeManager) -> AsyncIterator[Address]:
        """The node port of a manager."""
        listeners = await listen("127.0.0.1", 0)
        context = server_context(self.manager, ask_peer=True)
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[list[Address]]) -> None:
                await serve_tls(listeners, context, manager.serve, task_status=task_status)

            (address,) = await nursery.start(serve)
            yield address
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def running(self, *names: str, manager: FakeManager | None = None) -> AsyncIterator[list[Node]]:
        """Relays in this process, linked to each other through a manager of their own. They listen on real sockets."""
        manager = manager or FakeManager()
        async with self.managed(manager) as address, trio.open_nursery() as nursery:
            nodes = [Node(self.settings(name, (address,))) for name in names]
            for node in nodes:
                await nursery.start(node.run)
            await manager.until(lambda: len(manager.nodes) == len(names))
            await settled(lambda: all(len(node.relay.nodes) == len(names) - 1 for node in nodes))
            yield nodes
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def link(
        self, address: Address, meeting: Meeting, participant: int, hello: Control | None = None, identity: pki.Identity | None = None
    ) -> AsyncIterator[RawEndpoint]:
        """A link that has said hello. It is cut, not closed, at the end."""
        endpoint = RawEndpoint(meeting.session, participant, meeting.tokens.get(participant, bytes(8)))
        stream = await dial([address], client_context(self.ca, identity), server_kind="mcs", cluster="home")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.run, stream, hello or meeting.hello(participant))
            await trio.testing.wait_all_tasks_blocked()
            yield endpoint
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def member(self, address: Address, meeting: Meeting, participant: int, hello: Hello | None = None) -> AsyncIterator[RawEndpoint]:
        """A link that is up."""
        async with self.link(address, meeting, participant, hello) as endpoint:
            await endpoint.until(lambda: endpoint.of(Welcome))
            yield endpoint
