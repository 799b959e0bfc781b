"""A link in reserve: up, with its hello said but for the have-vector, so that nothing passes on it yet.

A session has one link that it uses and, where its ticket names several relays, one in reserve at another relay. That relay gets the session's
packets from the others meanwhile. When the first link is lost, the have-vector goes out on the second, and nobody dials.
"""

from typing import Final, Generic, TypeVar

import trio

from net.connection import Connection
from wire.errors import LinkClosed

RESERVE_EVERY: Final = 1.0
"""Seconds at most between two looks whether there is a link in reserve."""
Relay = TypeVar("Relay")


class Reserve(Generic[Relay]):
    """One connection that is run by a task of its own, whoever uses it."""

    __slots__ = ("_closed", "_over", "connection", "relay")

    def __init__(self, relay: Relay, connection: Connection) -> None:
        self.relay = relay
        self.connection = connection
        self._closed: LinkClosed | None = None
        self._over = trio.Event()

    @property
    def over(self) -> bool:
        return self._closed is not None

    async def run(self) -> None:
        """Until the link ends."""
        self._closed = await self.connection.run()
        self._over.set()

    async def ended(self) -> LinkClosed:
        """Why it ended, once it has."""
        await self._over.wait()
        assert self._closed is not None
        return self._closed
