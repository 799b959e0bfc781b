"""What this side still has to send, in the order in which it goes out. Sans-IO.

Packets wait in queues by priority (key and log, then chat and hands, then voice, cursor, then the screen); within a queue they keep their
order. Reliable packets are kept until the relay says that it has taken them; after a reconnect exactly those go out again, byte for
byte. Screen packets are not kept: after a reconnect the viewers get a snapshot.
"""

from collections import deque
from typing import Final

from wire.control import Position
from wire.frame import PACKET, encode_frame
from wire.have import HaveVector
from wire.ids import Channel, Stream
from wire.packet import PRIORITY, RELIABLE_CHANNELS, Flag, parse_packet_untrusted

MAX_KEPT: Final = 4 << 20
"""Bytes of reliable packets that no relay has taken yet; beyond it this side is congested and takes no more text."""
_LANES: Final = max(PRIORITY) + 1


class Outbox:
    """Owned by its session."""

    __slots__ = ("_kept", "_lanes", "kept_bytes", "queued_bytes")

    def __init__(self) -> None:
        self._lanes: tuple[deque[bytes], ...] = tuple(deque() for _ in range(_LANES))
        self._kept: deque[tuple[Stream, int, bytes]] = deque()  # in the order of sealing
        self.kept_bytes = 0
        self.queued_bytes = 0

    def push(self, packet: bytes) -> None:
        header = parse_packet_untrusted(packet)
        frame = encode_frame(PACKET, packet)
        self._lanes[PRIORITY[header.channel]].append(frame)
        self.queued_bytes += len(frame)
        # clear packets stand outside the streams: whoever shakes hands repeats them itself
        if header.channel in RELIABLE_CHANNELS and not header.flags & Flag.CLEAR:
            self._kept.append((header.stream, header.counter, frame))
            self.kept_bytes += len(frame)

    def pull(self, budget: int) -> bytes | None:
        """About `budget` bytes of whole frames, most urgent first; None: nothing to send."""
        taken: list[bytes] = []
        size = 0
        for lane in self._lanes:
            while lane and (not taken or size + len(lane[0]) <= budget):
                frame = lane.popleft()
                taken.append(frame)
                size += len(frame)
            if size >= budget or lane:
                break
        self.queued_bytes -= size
        return b"".join(taken) if taken else None

    def taken(self, positions: list[Position]) -> None:
        """The relay has our streams up to here."""
        has = HaveVector(positions)
        owed: deque[tuple[Stream, int, bytes]] = deque()
        size = 0
        for item in self._kept:
            if has.lacks(item[0], item[1]):
                owed.append(item)
                size += len(item[2])
        self._kept, self.kept_bytes = owed, size

    def relink(self, positions: list[Position]) -> bool:
        """A new link, to a relay that has this of ours: what is owed goes out again, all else is dropped.

        True if screen packets were among what was dropped.
        """
        screen = bool(self._lanes[PRIORITY[Channel.SCREEN]])
        for lane in self._lanes:
            lane.clear()
        self.taken(positions)
        self.queued_bytes = 0
        for stream, _, frame in self._kept:
            self._lanes[PRIORITY[stream.channel]].append(frame)
            self.queued_bytes += len(frame)
        return screen

    @property
    def congested(self) -> bool:
        return self.kept_bytes >= MAX_KEPT

    @property
    def screen_backlog(self) -> int:
        """Bytes of screen packets not yet written."""
        return sum(map(len, self._lanes[PRIORITY[Channel.SCREEN]]))
