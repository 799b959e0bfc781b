"""The clear packet header: what a relay may read, and nothing more. (Multicast packet security layer, MPSL.)

    0 version<<4|suite u8   1 flags u8   2 channel u8   3 reserved u8 = 0
    4 session u64   12 sender u32   16 recipient u32 (0 = everyone)   20 epoch u32 = term u8 ‖ number u24   24 counter u64
    32 ciphertext …   then HMAC-SHA1, 20 bytes, over header ‖ ciphertext

A clear packet (flag 16; handshake, channel 0 alone) has its message instead of ciphertext and tag.
"""

import struct
from enum import Enum, IntFlag
from typing import Final, NamedTuple

from wire.errors import MalformedPacket, UnsupportedVersion
from wire.ids import Channel, Epoch, ParticipantId, SessionId, Stream

VERSION: Final = 1
SUITE: Final = 1
VERSION_SUITE: Final = VERSION << 4 | SUITE
HEADER: Final = struct.Struct("!BBBBQIIIQ")
HEADER_SIZE: Final = HEADER.size
TAG_SIZE: Final = 20
MAX_PACKET: Final = 16 * 1024 - 8
"""Bytes of a whole packet; senders cut longer messages. With its frame header it fills one TLS record and no more."""
MAX_CONTENT: Final = MAX_PACKET - HEADER_SIZE - TAG_SIZE


class Flag(IntFlag):
    COMPRESSED = 1
    SIGNED = 2
    RESTART = 4  # the compression stream begins anew
    LAST = 8  # the last packet of a message
    CLEAR = 16  # handshake: neither encrypted nor authenticated by a key


# plain numbers for whoever looks at every packet: an operation on an IntFlag costs more than all the rest
LAST: Final = int(Flag.LAST)
CLEAR: Final = int(Flag.CLEAR)
_CLEAR_MESSAGE: Final = int(Flag.CLEAR | Flag.LAST)


class Delivery(Enum):
    """How relays treat a channel."""

    RELIABLE = "reliable"  # never dropped, replayed on resume
    REFRESHABLE = "refreshable"  # a slow reader skips, then wants a snapshot
    LATEST = "latest"  # only the newest matters
    SNAPSHOT = "snapshot"  # only to readers that want it
    FETCHED = "fetched"  # never dropped between sender and relays; to readers that ask for it, as often as they do


DELIVERY: Final[dict[int, Delivery]] = {
    Channel.KEY: Delivery.RELIABLE,
    Channel.LOG: Delivery.RELIABLE,
    Channel.CHAT: Delivery.RELIABLE,
    Channel.WHISPER: Delivery.RELIABLE,
    Channel.INPUT: Delivery.RELIABLE,
    Channel.SCREEN: Delivery.REFRESHABLE,
    Channel.CURSOR: Delivery.LATEST,
    Channel.VOICE: Delivery.LATEST,
    Channel.FILE: Delivery.RELIABLE,
    Channel.SNAPSHOT: Delivery.SNAPSHOT,
    Channel.ROSTER: Delivery.FETCHED,
}
RELIABLE_CHANNELS: Final = frozenset(c for c, d in DELIVERY.items() if d in (Delivery.RELIABLE, Delivery.FETCHED))
"""Channels whose counters leave no gap: relays say what they have of them, and senders keep the rest."""
SIGNED_CHANNELS: Final = frozenset((Channel.CHAT, Channel.WHISPER, Channel.INPUT, Channel.SCREEN, Channel.FILE, Channel.SNAPSHOT))
"""Channels whose messages carry their sender's signature on the last packet: a missing one is refused."""
UNICAST_CHANNELS: Final = frozenset((Channel.KEY, Channel.WHISPER, Channel.INPUT))
"""Channels that always name one recipient; the others go to everyone."""
PRIORITY: Final[tuple[int, ...]] = (0, 0, 1, 1, 1, 4, 3, 2, 4, 4, 0)
"""By channel: smaller is written first. Screen, file and snapshot share one queue, so a snapshot and the updates that continue it keep
their order; so do keys, log and roster."""


class PacketHeader(NamedTuple):
    """The clear header, decoded."""

    flags: int
    channel: int
    session: SessionId
    sender: ParticipantId
    recipient: ParticipantId
    epoch: Epoch
    counter: int

    @property
    def stream(self) -> Stream:
        return Stream(self.sender, self.recipient, self.channel)


def pack_header(
    flags: int,
    channel: int,
    session: SessionId,
    sender: ParticipantId,
    recipient: ParticipantId,
    epoch: Epoch,
    counter: int,
) -> bytes:
    """The 32 bytes in front of every packet."""
    return HEADER.pack(VERSION_SUITE, flags, channel, 0, session, sender, recipient, epoch, counter)


def parse_packet_untrusted(packet: bytes | memoryview) -> PacketHeader:
    """The header of a whole packet, with everything checked that needs no key and no state.

    Raises `MalformedPacket` (length, reserved bits, unknown channel or flag, flags that exclude each other, a recipient where none may
    be or none where one must) or `UnsupportedVersion`.
    """
    size = len(packet)
    if not HEADER_SIZE < size <= MAX_PACKET:
        raise MalformedPacket
    version, flags, channel, reserved, session, sender, recipient, epoch, counter = HEADER.unpack_from(packet)
    if version != VERSION_SUITE:
        raise UnsupportedVersion
    if reserved or flags > 31 or channel > 10 or sender == 0 or (epoch == 0) != (recipient != 0):
        raise MalformedPacket
    if (recipient != 0) != (channel in UNICAST_CHANNELS) or recipient == sender:
        raise MalformedPacket
    if flags & CLEAR:
        if channel != Channel.KEY or flags != _CLEAR_MESSAGE:
            raise MalformedPacket
    elif size < HEADER_SIZE + TAG_SIZE:
        raise MalformedPacket
    return PacketHeader._make((flags, channel, session, sender, recipient, epoch, counter))  # half the price of the constructor
