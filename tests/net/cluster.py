"""A cluster with every kind of certificate, and a listener in one line."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio
from OpenSSL import SSL

from net import pki
from net.listener import Address, listen, serve_tls
from net.stream import TlsStream
from net.tls import client_context, server_context

HOSTS = ("127.0.0.1", "localhost")
PATIENCE = 20.0
"""Seconds after which a test has failed; nothing depends on how long anything takes below it."""


@dataclass(frozen=True)
class Cluster:
    ca: Path
    other_ca: Path
    relay: pki.Identity
    manager: pki.Identity
    foreign: pki.Identity  # a relay of the same name, from another CA
    expired: pki.Identity
    early: pki.Identity  # valid from tomorrow on

    @classmethod
    def create(cls, where: Path) -> "Cluster":
        now = datetime.now(UTC)
        ca = pki.create_ca(where / "ca", "home", now=now - timedelta(days=300))
        other = pki.create_ca(where / "other-ca", "home", now=now - timedelta(days=300))

        def enrol(name: str, kind: pki.Kind, *, from_ca: Path = ca, shift: int = 0) -> pki.Identity:
            return pki.enrol(from_ca.parent, where / name, kind, name, HOSTS, now=now + timedelta(days=shift))

        return cls(
            ca,
            other,
            enrol("relay-1", "mcs"),
            enrol("manager-1", "manager"),
            enrol("foreign", "mcs", from_ca=other),
            enrol("expired", "mcs", shift=-200),
            enrol("early", "mcs", shift=1),
        )

    @asynccontextmanager
    async def serving(
        self,
        handler: Callable[[TlsStream], Awaitable[object]],
        *,
        identity: pki.Identity | None = None,
        context: SSL.Context | None = None,
        max_handshakes: int = 256,
    ) -> AsyncIterator[Address]:
        """A real listener on a free port of this machine; `handler` gets its frame streams."""
        context = context or server_context(identity or self.relay, ask_peer=True)
        async with trio.open_nursery() as nursery:
            listeners = await listen("127.0.0.1", 0)

            async def serve(task_status: trio.TaskStatus[list[Address]]) -> None:
                await serve_tls(listeners, context, handler, max_handshakes=max_handshakes, task_status=task_status)

            (address,) = await nursery.start(serve)
            yield address
            nursery.cancel_scope.cancel()

    def caller(self, identity: pki.Identity | None = None, *, ca: Path | None = None) -> SSL.Context:
        return client_context(ca or self.ca, identity)

    async def stream_pair(self) -> tuple[TlsStream, TlsStream]:
        """Both ends of one TLS connection over a real socket: caller, called."""
        accepted: list[TlsStream] = []
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener, trio.open_nursery() as nursery:

            async def accept() -> None:
                tcp = await listener.accept()
                accepted.append(await TlsStream.accept(tcp.socket, server_context(self.relay, ask_peer=True)))

            nursery.start_soon(accept)
            tcp = await trio.open_tcp_stream(*listener.socket.getsockname())
            called = await TlsStream.connect(tcp.socket, self.caller(self.manager), server_name="localhost")
        return called, accepted[0]

    @asynccontextmanager
    async def both_ends(self) -> AsyncIterator[tuple[TlsStream, TlsStream]]:
        """The same, closed afterwards without ceremony."""
        one, two = await self.stream_pair()
        try:
            yield one, two
        finally:
            one.close_now()
            two.close_now()
