"""What all level readers of a session get: one cursor for them all, and the same bytes.

    own ──nothing left to bring──▶ level ──its socket is full──▶ trailing ──all segments read──▶ level
     ▲                               │                               │
     └── a packet of or to it, a want, a gap, the end; or segments that it had still to read are gone ──┘

A *level* reader has no place of its own: it is in the group, and what goes to everybody is gathered once, in the write order, into segments
that are written to every member's link (`Group`). A segment is immutable, aligned to frames and at most one TLS record. A *trailing* reader
is between two of the segments, which are kept for a while, so that a socket that is full for a moment costs nothing but its own write. All
others read the log by themselves (`mcs.fanout.Reader.pull`): newcomers, readers that resume or want a snapshot, the sender of what is to be
written and the recipient of what is for one alone, until they have nothing left.

A write to all costs nearly the same for one packet and for some, so there is an allowance of them: one in `HOLD` seconds in the long run,
`WRITES` at once. While it lasts, every packet goes out at once: what people do never uses it up. In a stream that does, one packet waits for
the next, for `HOLD` seconds at most, or until a segment is full: of 500 packets a second each third one, for 2 ms.
"""

from collections import deque
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from mcs.bucket import Bucket
from mcs.fanout import Reader
from mcs.limits import BURST, HOLD, SEGMENT, TRAIL_BYTES, WRITES
from mcs.log import RING_OF, Entry, Queue, SessionLog
from wire.ids import Channel

_NONE: Final = 1 << 62  # an index beyond every ring
_LATEST: Final = (Channel.VOICE, Channel.CURSOR)  # in the write order


class Group(Protocol):
    """Links that are written the same bytes (`net.pumped.Group`). A link that does not take them leaves it and says `Feed.behind`."""

    def write(self, records: list[bytes], now: float) -> None: ...


class Port(Protocol):
    """A reader's link."""

    reader: Reader

    @property
    def blocked(self) -> bool: ...
    @property
    def closing(self) -> bool: ...
    def wake(self) -> None: ...
    def join(self, group: Any) -> None: ...
    def part(self, group: Any) -> None: ...


P = TypeVar("P", bound=Port)


class Mark(NamedTuple):
    """A place in the log: between two segments."""

    number: int  # of the segment that follows
    cursors: tuple[int, ...]
    latest: dict[int, int]
    last_update: int


class Segment:
    """Bytes for every reader, and the place behind them."""

    __slots__ = ("data", "end")

    def __init__(self, data: bytes, end: Mark) -> None:
        self.data = data
        self.end = end


class Feed(Generic[P]):
    """Owned by its session."""

    def __init__(self, log: SessionLog, group: Group) -> None:
        self.own: dict[P, None] = {}
        self.trailing: dict[P, Mark] = {}
        self.level: dict[P, None] = {}
        self.seq = log.seq  # of the log, up to which everything has been gathered
        self._group = group
        self._log = log
        self._cursors = [ring.head for ring in log.rings]
        self._latest: dict[int, int] = dict.fromkeys(_LATEST, log.seq)
        self._last_update = -1
        self._segments: deque[Segment] = deque()
        self._first = 0  # number of the oldest segment that is kept
        self._kept = 0  # bytes
        self._joining: dict[P, None] = {}  # own readers with nothing left, which the feed has still to catch up with
        self._allowance = Bucket(1 / HOLD, WRITES, 0.0)  # of writes that need not wait for company
        self._held_until: float | None = None
        self._seen = log.seq  # of the log, when it was last asked whether to wait

    # --- who stands where ---

    def attach(self, port: P) -> None:
        self.own[port] = None

    def detach(self, port: P) -> None:
        self.own.pop(port, None)
        self.trailing.pop(port, None)
        self._joining.pop(port, None)
        if port in self.level:
            del self.level[port]
            port.part(self._group)

    def aside(self, port: P) -> None:
        """It reads by itself from now on, from where it stands."""
        if port in self.own:
            return
        mark = self.trailing.pop(port, None)
        if mark is None:
            del self.level[port]
            port.part(self._group)
            mark = self.mark()
        port.reader.place(mark.cursors, mark.latest, mark.last_update)
        self.own[port] = None

    def behind(self, port: P, missed: int) -> None:
        """Its socket is full, and it has left the group. It has, or will have, all that was written to the group but the last `missed`
        segments."""
        if port in self.level:
            del self.level[port]
            self.trailing[port] = self._segments[-1 - missed].end if missed else self.mark()

    def offer(self, port: P) -> None:
        """An own reader has nothing left to bring."""
        if not port.reader.settled or port not in self.own:
            return
        if self.seq == self._log.seq:
            self._join(port)
        else:
            self._joining[port] = None

    def _join(self, port: P) -> None:
        self._joining.pop(port, None)
        self.own.pop(port, None)
        self.trailing.pop(port, None)
        self.level[port] = None
        port.join(self._group)

    def cursors(self, port: P) -> tuple[int, ...] | None:
        """Where a reader that has no place of its own stands; None: it has one."""
        mark = self.trailing.get(port)
        return mark.cursors if mark is not None else tuple(self._cursors) if port in self.level else None

    def floor(self, port: P, queue: Queue) -> int:
        """The index of the first entry that a reader still needs."""
        cursors = self.cursors(port)
        return port.reader.floor(queue) if cursors is None else cursors[queue]

    def floors(self) -> list[int]:
        """By ring: the lowest index that any reader that has no place of its own still needs."""
        places = [mark.cursors for port, mark in self.trailing.items() if not port.closing]
        return [min(of_ring) for of_ring in zip(self._cursors, *places, strict=True)] if self.level or places else [_NONE] * len(Queue)

    def mark(self, ahead: int = 0) -> Mark:
        """Where level readers stand, or will when so many more segments are kept."""
        return Mark(self._first + len(self._segments) + ahead, tuple(self._cursors), self._latest.copy(), self._last_update)

    # --- what they get ---

    def next_for(self, port: P, budget: int) -> bytes | None:
        """The next segment of a trailing reader. It is level after the last one, and reads by itself if the next one is gone."""
        number = self.trailing[port].number - self._first
        if number == len(self._segments):
            self._join(port)
            return None
        segment = self._segments[number]
        if len(segment.data) > budget:
            return None
        self.trailing[port] = segment.end
        return segment.data

    def spread(self, now: float, *, at_once: bool = False) -> float | None:
        """Write what has come since the last time. Returns when to come again, if it is too early."""
        log = self._log
        if log.seq == self.seq:
            return None
        if not self.level and not self.trailing:
            self._jump()
            return None
        if any(at <= ring.last_gone for at, ring in zip(self._cursors, log.rings, strict=True)):
            self._dissolve()
            return None
        if not at_once and self._waits(now):
            return self._held_until
        segments: list[bytes] = []
        while data := self._gather():
            self._keep(data)
            segments.append(data)
            if len(segments) == BURST:
                self._group.write(segments, now)
                segments = []
        if segments:
            self._group.write(segments, now)
        if self._peek() is None:
            self._caught_up()
        else:
            self._dissolve()
        return None

    def _waits(self, now: float) -> bool:
        """Whether what has come is held for company (until `_held_until` at most). A packet finds a write in the allowance and takes with it
        what was held; a timer that did so would write one packet late and save nothing."""
        came, self._seen = self._log.seq != self._seen, self._log.seq
        if came and self._allowance.take(1, now):
            return False
        if self._held_until is None:
            self._held_until = now + HOLD
        if now < self._held_until and self._pending() < SEGMENT:
            return True
        if not self._allowance.take(1, now):
            self._allowance.empty()
        return False

    def _pending(self) -> int:
        """Bytes, those for single readers counted in."""
        return sum(ring.total - self._offset(queue) for queue, ring in enumerate(self._log.rings))

    def _offset(self, queue: int) -> int:
        ring, at = self._log.rings[queue], self._cursors[queue]
        entry = ring.get(at) if ring.base <= at < ring.head else None
        return entry.offset if entry else ring.total

    def _keep(self, data: bytes) -> None:
        self._segments.append(Segment(data, self.mark(ahead=1)))
        self._kept += len(data)
        while self._kept > TRAIL_BYTES:
            self._kept -= len(self._segments.popleft().data)
            self._first += 1
            for port in [port for port, mark in self.trailing.items() if mark.number < self._first]:
                self.aside(port)

    def _gather(self) -> bytes:
        """The next segment; b"" if there is none, or what comes next follows a gap."""
        out: list[bytes] = []
        size = self._gather_ring(Queue.KEYS, out, 0)
        size = self._gather_ring(Queue.TALK, out, size)
        while (entry := self._peek()) is not None:
            if size + len(entry.frame) > SEGMENT and out:
                break
            if entry.gap_after >= 0:  # whether they miss anything, each of them knows for itself
                break
            out.append(entry.frame)
            size += len(entry.frame)
            self._commit(entry)
        return out[0] if len(out) == 1 else b"".join(out)

    def _gather_ring(self, queue: Queue, out: list[bytes], size: int) -> int:
        """What fits of a ring that goes before all that follows it. Returns the bytes gathered; more than `SEGMENT`: no more may follow."""
        ring, at = self._log.rings[queue], self._cursors[queue]
        while at < ring.head and size < SEGMENT:
            for entry in ring.some(at):
                if entry is not None and entry.public:
                    size += len(entry.frame)
                    if size > SEGMENT and out:
                        self._cursors[queue] = at
                        return size
                    out.append(entry.frame)
                at += 1
        self._cursors[queue] = at
        return size

    def _peek(self) -> Entry | None:
        """The next entry of what goes behind keys and talk."""
        rings, cursors = self._log.rings, self._cursors
        for channel in _LATEST:
            latest, seen = self._log.latest[channel], self._latest[channel]
            if seen < latest.seq and (entry := latest.after(seen)):
                return entry
        files = self._peek_ring(Queue.FILES) if cursors[Queue.FILES] < rings[Queue.FILES].head else None
        screen = self._peek_ring(Queue.SCREEN) if cursors[Queue.SCREEN] < rings[Queue.SCREEN].head else None
        if files and screen:
            return files if files.seq < screen.seq else screen
        return files or screen

    def _peek_ring(self, queue: Queue) -> Entry | None:
        """What is for everybody; snapshots are for those who want them, and these read by themselves."""
        ring, at = self._log.rings[queue], self._cursors[queue]
        while at < ring.head:
            entry = ring.get(at)
            if entry is not None and entry.public:
                self._cursors[queue] = at
                return entry
            at += 1
        self._cursors[queue] = at
        return None

    def _commit(self, entry: Entry) -> None:
        channel = entry.stream.channel
        if entry.index < 0:
            self._latest[channel] = entry.seq
            return
        self._cursors[RING_OF[channel]] = entry.index + 1
        if channel == Channel.SCREEN:
            self._last_update = entry.index

    def _dissolve(self) -> None:
        """Something was dropped before they came to it, or is missing: everybody reads by itself, and will be level again."""
        for port in (*self.level, *self.trailing):
            self.aside(port)
            port.wake()
        self._jump()

    def _jump(self) -> None:
        """Nobody stands here: the next ones begin at the end of the log."""
        self._first += len(self._segments)
        self._segments.clear()
        self._kept = 0
        self._cursors = [ring.head for ring in self._log.rings]
        self._latest = dict.fromkeys(_LATEST, self._log.seq)
        self._last_update = -1
        self._caught_up()

    def _caught_up(self) -> None:
        self.seq = self._log.seq
        self._held_until = None
        for port in list(self._joining):
            if port.reader.settled and not port.blocked and not port.closing:
                self._join(port)
        self._joining.clear()
