"""A ticket: what the manager gives to whoever may try to join or to organize. It opens no packet; the password does."""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from endpoint.text import clean_line
from wire.control import Address
from wire.ids import MeetingId, ParticipantId, Role, RoleToken, SessionId


@dataclass(frozen=True, slots=True)
class RelayAddress:
    node: str
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Ticket:
    session: SessionId
    participant: ParticipantId
    role: Role
    token: RoleToken
    secret: bytes = field(repr=False)  # 32 bytes, the manager's contribution to the SRP password
    meeting: MeetingId
    title: str
    meeting_key: bytes  # Ed25519
    relays: tuple[RelayAddress, ...]
    cluster: str
    features: frozenset[str] | None = None  # what this meeting may offer, such as chat; None: everything

    @classmethod
    def from_json_untrusted(cls, data: Any) -> "Ticket":
        """Raises ValueError for anything that is no ticket."""
        try:
            key = base64.urlsafe_b64decode(data["meeting_key"] + "=" * (-len(data["meeting_key"]) % 4))
            secret = bytes.fromhex(data["secret"])
            relays = tuple(RelayAddress(str(relay["node"]), tuple(map(_address, relay["addresses"]))) for relay in data["relays"])
            ticket = cls(
                SessionId(int(data["session"], 16)),
                ParticipantId(int(data["participant"])),
                Role(data["role"]),
                RoleToken(bytes.fromhex(data["token"])),
                secret,
                MeetingId(int(data["meeting_id"])),
                clean_line(str(data["title"])),
                key,
                relays,
                str(data["cluster"]),
                None if data.get("features") is None else frozenset(map(str, data["features"])),
            )
        except (KeyError, TypeError, AttributeError, OverflowError, binascii.Error) as error:
            raise ValueError(f"no ticket: {type(error).__name__}") from None
        if not relays or not all(relay.addresses for relay in relays):
            raise ValueError("no ticket: it names no relay")
        if len(key) != 32 or len(secret) != 32 or not 0 < ticket.participant < 1 << 32 or not 0 <= ticket.session < 1 << 64:
            raise ValueError("no ticket: a field has the wrong size")
        return ticket


def _address(pair: tuple[Any, Any]) -> Address:
    """What can be dialled. Raises ValueError, TypeError."""
    host, port = str(pair[0]), int(pair[1])
    if not (host and host.isprintable() and 0 < port < 1 << 16 and len(pair) == 2):
        raise ValueError("no address")
    host.encode("idna")
    return host, port
