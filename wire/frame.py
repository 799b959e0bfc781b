"""Frames: how a byte stream is cut.

    0 length u32 (of the body)   4 type u8   5 hops u8   6 reserved u16 = 0   8 body …

Type 0 is a packet (`wire.packet`); the others are control messages (`wire.control`). What a relay may change on the way, the number of
hops, stands here and never in the packet, which is authenticated end to end.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from wire.errors import FrameTooLarge, MalformedFrame

HEADER: Final = struct.Struct("!IBBH")
HEADER_SIZE: Final = HEADER.size
MAX_BODY: Final = 1 << 20
"""Bytes; a larger frame closes the link."""
PACKET: Final = 0
"""The frame type of packets."""
MAX_HOPS: Final = 16
"""More hops than any tree has. A handshake packet with so many runs in a circle and is dropped; others, which logs take once, count no
further."""


class Frame(NamedTuple):
    """One frame. `body` is immutable and owned by the receiver."""

    type: int
    hops: int
    body: bytes


def encode_frame(kind: int, body: bytes, hops: int = 0) -> bytes:
    """Header and body as they go out. Raises `FrameTooLarge` over `MAX_BODY`."""
    if len(body) > MAX_BODY:
        raise FrameTooLarge
    return HEADER.pack(len(body), kind, hops, 0) + body


class FrameDecoder:
    """Cuts a stranger's bytes into frames, however they arrive.

    Holds at most one incomplete frame, so at most `MAX_BODY` + header bytes (plus the read that is being fed).
    """

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes of the incomplete frame."""
        return len(self._pending)

    def feed_untrusted(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames that `data` completes, in order, each cut when it is asked for: what stands before an error is delivered, however
        the stream was cut.

        The iterator raises `FrameTooLarge` or `MalformedFrame`; the decoder is of no use afterwards.
        """
        self._pending += data
        return self._cut()

    def runs_untrusted(self, data: bytes) -> Iterator[list[Frame]]:
        """The same frames and the same errors, in lists: packets that stand next to each other together, every other frame by itself."""
        source = bytes(self._pending) + data if self._pending else data
        offset, end = 0, len(source)
        run: list[Frame] = []
        new, unpack = tuple.__new__, HEADER.unpack_from
        try:
            while end - offset >= HEADER_SIZE:
                length, kind, hops, reserved = unpack(source, offset)
                if length > MAX_BODY or reserved:
                    if run:
                        yield run
                    raise FrameTooLarge if length > MAX_BODY else MalformedFrame
                start = offset + HEADER_SIZE
                if end - start < length:
                    break
                offset = start + length
                frame = new(Frame, (kind, hops, source[start:offset]))  # a third of the price of the constructor
                if kind == PACKET:
                    run.append(frame)
                    continue
                if run:
                    yield run
                    run = []
                yield [frame]
            if run:
                yield run
        finally:
            self._pending = bytearray(source[offset:])

    def _cut(self) -> Iterator[Frame]:
        pending = self._pending
        offset, end = 0, len(pending)
        try:
            while end - offset >= HEADER_SIZE:
                length, kind, hops, reserved = HEADER.unpack_from(pending, offset)
                if length > MAX_BODY:
                    raise FrameTooLarge
                if reserved:
                    raise MalformedFrame
                if end - offset < HEADER_SIZE + length:
                    break
                start = offset + HEADER_SIZE
                offset = start + length
                yield Frame(kind, hops, bytes(pending[start:offset]))
        finally:
            del pending[:offset]
