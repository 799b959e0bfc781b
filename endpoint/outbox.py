"""What this side still has to send, in the order in which it goes out. Sans-IO.

Packets wait in queues by priority (key and log, then chat and hands, then voice, cursor, then the screen); within a queue they keep their
order. Reliable packets are kept until the relay says that it has taken them; after a reconnect exactly those go out again, byte for
byte. Screen packets are not kept: after a reconnect the viewers get a snapshot.

Log and roster (channels 1 and 10) go out only while the relay takes them from us (`let_log`): they are the office's alone, and before a
chair has passed, or after somebody has taken it over, a relay would end the link for it.

Taken is not read: a relay can die with the only copy. So what was taken stays here in reserve as long as a relay itself would keep it, and a
relay that lacks it (started anew, or never reached by the other one) gets it after its welcome. What is in no reserve any more is lost. The
roster is in none: it is made anew for another relay.
"""

from collections import deque
from typing import Final, NamedTuple

from wire.control import Position
from wire.frame import HEADER_SIZE, PACKET, encode_frame
from wire.have import HaveVector
from wire.ids import Channel, Stream
from wire.packet import PRIORITY, RELIABLE_CHANNELS, Flag, parse_packet_untrusted

MAX_KEPT: Final = 4 << 20
"""Bytes of reliable packets that no relay has taken yet; beyond it this side is congested and takes no more text."""
MAX_RESERVE: Final = 1 << 20
"""Bytes of those that a relay has taken."""
RESERVE_FOR: Final = 120.0
"""Seconds since they were sealed, after which they leave the reserve."""
_LANES: Final = max(PRIORITY) + 1
_OFFICE: Final = frozenset((Channel.LOG, Channel.ROSTER))
_CHANNEL_AT: Final = HEADER_SIZE + 2
"""Where a frame says its packet's channel."""


class _Kept(NamedTuple):
    number: int  # in the order of sealing
    stream: Stream
    counter: int
    frame: bytes
    sealed_at: float


class Outbox:
    """Owned by its session."""

    __slots__ = ("_kept", "_lanes", "_log_open", "_number", "_reserve", "_reserve_bytes", "kept_bytes", "queued_bytes")

    def __init__(self) -> None:
        self._lanes: tuple[deque[bytes], ...] = tuple(deque() for _ in range(_LANES))
        self._kept: deque[_Kept] = deque()
        self._reserve: deque[_Kept] = deque()
        self._reserve_bytes = 0
        self._number = 0
        self._log_open = True
        self.kept_bytes = 0
        self.queued_bytes = 0

    def push(self, packet: bytes, now: float) -> None:
        header = parse_packet_untrusted(packet)
        frame = encode_frame(PACKET, packet)
        if self._log_open or header.channel not in _OFFICE:
            self._lanes[PRIORITY[header.channel]].append(frame)
            self.queued_bytes += len(frame)
        # clear packets stand outside the streams: whoever shakes hands repeats them itself
        if header.channel in RELIABLE_CHANNELS and not header.flags & Flag.CLEAR:
            self._number += 1
            self._kept.append(_Kept(self._number, header.stream, header.counter, frame, now))
            self.kept_bytes += len(frame)

    def let_log(self, allowed: bool) -> None:
        """Whether the relay takes channel 1 from us. What it has not taken waits meanwhile, and is sent in order then."""
        if allowed == self._log_open:
            return
        self._log_open = allowed
        self._requeue()

    def _requeue(self) -> None:
        """Everything that is kept, and may go out, from its beginning."""
        lane = self._lanes[PRIORITY[Channel.LOG]]
        lane.clear()
        for item in self._kept:
            if PRIORITY[item.stream.channel] == PRIORITY[Channel.LOG] and (self._log_open or item.stream.channel not in _OFFICE):
                lane.append(item.frame)
        self.queued_bytes = sum(len(frame) for queue in self._lanes for frame in queue)

    def forget_log(self) -> None:
        """What we wrote into the log and no relay has taken is void: somebody else organizes."""
        gone = [item for item in self._kept if item.stream.channel in _OFFICE]
        self._kept = deque(item for item in self._kept if item.stream.channel not in _OFFICE)
        self.kept_bytes -= sum(len(item.frame) for item in gone)
        self._requeue()

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

    def taken(self, positions: list[Position], now: float) -> None:
        """The relay has our streams up to here."""
        has = HaveVector(positions)
        owed: deque[_Kept] = deque()
        for item in self._kept:
            if has.lacks(item.stream, item.counter):
                owed.append(item)
            else:
                self.kept_bytes -= len(item.frame)
                if item.stream.channel != Channel.ROSTER:
                    self._reserve.append(item)
                    self._reserve_bytes += len(item.frame)
        self._kept = owed
        while self._reserve and (self._reserve_bytes > MAX_RESERVE or now - self._reserve[0].sealed_at >= RESERVE_FOR):
            self._reserve_bytes -= len(self._reserve.popleft().frame)

    def relink(self, positions: list[Position], now: float) -> bool:
        """A new link, to a relay that has this of ours: what it lacks goes out again, all else is dropped.

        True if screen packets were among what was dropped.
        """
        screen = bool(self._lanes[PRIORITY[Channel.SCREEN]])
        for lane in self._lanes:
            lane.clear()
        self.taken([], now)  # what is too old by now stays behind
        self._kept = deque(sorted([*self._reserve, *self._kept]))
        self.kept_bytes += self._reserve_bytes
        self._reserve.clear()
        self._reserve_bytes = self.queued_bytes = 0
        self.taken(positions, now)
        for item in self._kept:
            if self._log_open or item.stream.channel not in _OFFICE:
                self._lanes[PRIORITY[item.stream.channel]].append(item.frame)
                self.queued_bytes += len(item.frame)
        return screen

    def drop_screen(self) -> bool:
        """Forget pictures and pointers that wait (files share their lane and stay); whether there were pictures."""
        dropped = 0
        for channel in (Channel.SCREEN, Channel.CURSOR):
            lane = self._lanes[PRIORITY[channel]]
            kept = [frame for frame in lane if frame[_CHANNEL_AT] not in (Channel.SCREEN, Channel.SNAPSHOT, Channel.CURSOR)]
            size = sum(map(len, lane)) - sum(map(len, kept))
            lane.clear()
            lane.extend(kept)
            self.queued_bytes -= size
            dropped += size if channel == Channel.SCREEN else 0
        return dropped > 0

    @property
    def congested(self) -> bool:
        return self.kept_bytes >= MAX_KEPT

    @property
    def screen_backlog(self) -> int:
        """Bytes of screen packets not yet written."""
        return sum(map(len, self._lanes[PRIORITY[Channel.SCREEN]]))
