"""Which relay a session lives on. Pure: loads in, an order out.

A session's primary stays while it is live, so that its members meet on one node. Otherwise the least loaded live relay is first; where
loads are equal, rendezvous hashing of (session, node) decides, so that new sessions spread and every manager decides alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from wire.ids import SessionId


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """How busy a live relay is: links and sessions, as it last said, with what has been placed on it since."""

    node: str
    links: int = 0
    sessions: int = 0


def weight(session: SessionId, node: str) -> bytes:
    """The rendezvous weight of a node for a session; the smallest comes first."""
    return sha256(b"parley place 1" + session.to_bytes(8, "big") + node.encode()).digest()


def place(session: SessionId, live: Iterable[NodeLoad], primary: str | None = None) -> list[str]:
    """All live relays by name, the session's first one first; empty if none is live."""
    order = sorted(live, key=lambda n: (n.node != primary, n.links, n.sessions, weight(session, n.node), n.node))
    return [n.node for n in order]
