"""Identifiers of the protocol, each a type of its own. See docs/protocol.md, "Names"."""

from enum import IntEnum
from hmac import compare_digest
from typing import Final, NamedTuple, NewType

MeetingId = NewType("MeetingId", int)
"""Nine digits, the first one not 0: what people type."""
SessionId = NewType("SessionId", int)
"""64 bits: one run of a meeting."""
ParticipantId = NewType("ParticipantId", int)
"""32 bits, never 0: one running endpoint in one session. A restart gets a new one; none is used twice."""
Epoch = NewType("Epoch", int)
"""32 bits: term u8 ‖ number u24. 0 stands on unicast packets."""

EVERYONE: Final = ParticipantId(0)
UNICAST_EPOCH: Final = Epoch(0)
FIRST_EPOCH: Final = Epoch(1)
MEETING_IDS: Final = range(100_000_000, 1_000_000_000)


class Role(IntEnum):
    """What a ticket says of its holder. Rights follow from the session log, never from this."""

    ORGANIZER = 1
    ATTENDEE = 2
    TECHNICIAN = 3  # reserved for remote support
    CUSTOMER = 4  # reserved for remote support


class Channel(IntEnum):
    """What a packet carries, and so how relays treat it (`wire.packet.DELIVERY`)."""

    KEY = 0
    LOG = 1
    CHAT = 2
    WHISPER = 3
    INPUT = 4
    SCREEN = 5
    CURSOR = 6
    VOICE = 7
    FILE = 8
    SNAPSHOT = 9
    ROSTER = 10


class Stream(NamedTuple):
    """One sequence of counters. They are contiguous from 0 across epochs, so a gap is always visible."""

    sender: ParticipantId
    recipient: ParticipantId
    channel: int


class RoleToken:
    """64 bits that prove one participant's role in one session to a relay. Never shown, compared in constant time."""

    __slots__ = ("_bytes",)
    SIZE: Final = 8

    def __init__(self, value: bytes) -> None:
        if len(value) != self.SIZE:
            raise ValueError(f"a role token has {self.SIZE} bytes")
        self._bytes = bytes(value)

    def reveal(self) -> bytes:
        """The token itself, for the one message that carries it."""
        return self._bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoleToken) and compare_digest(self._bytes, other._bytes)

    __hash__ = None  # type: ignore[assignment]  # a hash would be compared in variable time

    def __repr__(self) -> str:
        return "RoleToken(…)"


def next_epoch(epoch: Epoch) -> Epoch:
    """The epoch after this one, in the same term.

    >>> next_epoch(Epoch(0x0100_0007)) == 0x0100_0008
    True
    """
    if epoch & 0xFFFFFF == 0xFFFFFF:
        raise OverflowError("a term has 2**24 epochs")
    return Epoch(epoch + 1)


def format_meeting_id(meeting: MeetingId) -> str:
    """Nine digits as people read them: 123-456-789."""
    digits = f"{meeting:09d}"
    return f"{digits[:3]}-{digits[3:6]}-{digits[6:]}"


def parse_meeting_id_untrusted(text: str) -> MeetingId:
    """What a person typed as a meeting ID; dashes, dots and spaces are theirs to choose.

    Raises `MalformedMeetingId`.
    """
    from wire.errors import MalformedMeetingId

    digits = "".join(c for c in text if not c.isspace() and c not in "-.·–")
    if not (len(digits) == 9 and digits.isascii() and digits.isdecimal() and digits[0] != "0"):
        raise MalformedMeetingId
    return MeetingId(int(digits))
