"""A session's packets at one node: append-only rings of framed packets, read by cursors.

One ring per queue of the write order, so that a cursor is one index and level readers stand at the same one:

    KEYS    channels 0, 1, 10    TALK    channels 2, 3, 4        FILES    channel 8        SCREEN    channels 5 and 9

and, for the *latest* channels 6 and 7, the newest packet of each stream. Indexes are absolute and never reused. What is dropped before
its time leaves an empty slot; `Ring.gone` remembers, per stream, where and up to which counter, so that a reader that comes upon it, or
that resumes from index 0, learns what it can no longer get.

Reliable channels take only the next counter of a stream; the others only a rising one. A stream of which nothing is known starts
anywhere: the node is new to the session, and the sender has forgotten what was taken elsewhere.

Retention (`mcs.limits`): 0–4 and 10 by age and by bytes per sender, 8 by bytes, 5 by bytes and from the last whole snapshot on, 9 the last
whole snapshot. A snapshot is whole from its first packet (the one after a LAST, or behind a gap) to its LAST without a gap; it is of use
while every channel-5 packet after its first one is there.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from enum import IntEnum, StrEnum
from typing import Final

from mcs.limits import (
    FILE_BYTES,
    KEEP_FOR,
    LATEST_STREAMS,
    MAX_STREAMS,
    OFFICE_BYTES,
    SCREEN_BYTES,
    SENDER_BYTES,
    SNAPSHOT_BYTES,
)
from wire.frame import PACKET, encode_frame
from wire.have import HaveVector
from wire.ids import Channel, ParticipantId, Stream
from wire.packet import LAST, RELIABLE_CHANNELS, PacketHeader


class Queue(IntEnum):
    """The rings."""

    KEYS = 0
    TALK = 1
    FILES = 2
    SCREEN = 3


RING_OF: Final[dict[int, Queue]] = {
    Channel.KEY: Queue.KEYS,
    Channel.LOG: Queue.KEYS,
    Channel.ROSTER: Queue.KEYS,
    Channel.CHAT: Queue.TALK,
    Channel.WHISPER: Queue.TALK,
    Channel.INPUT: Queue.TALK,
    Channel.FILE: Queue.FILES,
    Channel.SCREEN: Queue.SCREEN,
    Channel.SNAPSHOT: Queue.SCREEN,
}
FETCHED: Final = int(Channel.ROSTER)
_FOR_WHO_ASKS: Final = frozenset((Channel.SNAPSHOT, Channel.ROSTER))
SOME: Final = 256
RELIABLE_QUEUES: Final = (Queue.KEYS, Queue.TALK, Queue.FILES)


class Verdict(StrEnum):
    """What the log says of a packet; everything but `TAKEN` is a drop, counted under this word."""

    TAKEN = "taken"
    REPEATED = "repeated"
    GAP = "gap"
    TORN = "snapshot-torn"  # part of a snapshot that is of no use any more, or too large
    STREAMS = "too-many-streams"


class Entry:
    """One framed packet. Immutable but for `gone`."""

    __slots__ = ("at", "counter", "epoch", "first", "frame", "gap_after", "gone", "index", "last", "offset", "public", "seq", "stream", "via")

    def __init__(self, frame: bytes, header: PacketHeader, stream: Stream, at: float, seq: int, via: str) -> None:
        self.frame = frame  # header and body, as written to every reader
        self.stream = stream
        self.public = stream.recipient == 0 and stream.channel not in _FOR_WHO_ASKS  # what every level reader gets, but for its sender
        self.counter = header.counter
        self.epoch = header.epoch
        self.last = bool(header.flags & LAST)
        self.at = at
        self.seq = seq  # order of arrival over all rings
        self.via = via  # the node that it came from; "": an endpoint's link of this node
        self.index = -1
        self.offset = 0  # bytes appended to the ring before it
        self.first = False  # the first packet of a snapshot
        self.gap_after = -1  # channel 5: the index of the packet before the gap in front of this one
        self.gone = False


class Snapshot:
    """Where a snapshot stands in the screen ring. `whole` once its last packet is there."""

    __slots__ = ("epoch", "first", "last", "size", "stream", "whole")

    def __init__(self, entry: Entry) -> None:
        self.stream = entry.stream
        self.first = self.last = entry.index
        self.epoch = entry.epoch
        self.size = 0
        self.whole = False


class Ring:
    """Entries under absolute indexes. `base` is the first index that is still there, `head` the next one."""

    __slots__ = ("_slots", "_start", "base", "drops", "gone", "head", "last_gone", "size", "total")

    def __init__(self) -> None:
        self._slots: list[Entry | None] = []
        self._start = 0  # of the live part of `_slots`
        self.base = 0
        self.head = 0
        self.size = 0  # bytes held
        self.total = 0  # bytes ever appended
        self.gone: dict[Stream, tuple[int, int]] = {}  # stream → index and counter of its last entry that was dropped
        self.last_gone = -1  # the highest index that was dropped
        self.drops = 0  # how many were

    def append(self, entry: Entry) -> None:
        entry.index = self.head
        self.head += 1
        entry.offset = self.total
        self.size += len(entry.frame)
        self.total += len(entry.frame)
        self._slots.append(entry)

    def get(self, index: int) -> Entry | None:
        """The entry at an index; None where it is gone. `index` < `head`."""
        return self._slots[self._start + index - self.base] if index >= self.base else None

    def some(self, index: int) -> list[Entry | None]:
        """The entries from an index on, `SOME` at most."""
        at = self._start + max(index, self.base) - self.base
        return self._slots[at : at + SOME]

    def oldest(self) -> Entry | None:
        return self._slots[self._start] if self._start < len(self._slots) else None

    def entries(self) -> Iterator[Entry]:
        """What is there, oldest first. The ring must not change meanwhile."""
        for at in range(self._start, len(self._slots)):
            if (entry := self._slots[at]) is not None:
                yield entry

    def drop(self, entry: Entry) -> None:
        """Forget one entry, wherever it stands."""
        if entry.gone:
            return
        entry.gone = True
        self._slots[self._start + entry.index - self.base] = None
        self.size -= len(entry.frame)
        index, slots = entry.index, self._slots
        if index > self.last_gone:
            self.last_gone = index
            self.gone[entry.stream] = (index, entry.counter)
        elif index > self.gone.get(entry.stream, (-1, -1))[0]:
            self.gone[entry.stream] = (index, entry.counter)
        self.drops += 1
        start = self._start
        while start < len(slots) and slots[start] is None:
            start += 1
        self.base += start - self._start
        self._start = start
        if self._start > 64 and self._start * 2 > len(self._slots):
            del self._slots[: self._start]
            self._start = 0


class Latest:
    """The newest entry of each stream, the longest unmoved first."""

    __slots__ = ("entries", "seq")

    def __init__(self) -> None:
        self.seq = 0  # of the newest
        self.entries: OrderedDict[Stream, Entry] = OrderedDict()

    def put(self, entry: Entry) -> None:
        self.seq = entry.seq
        self.entries[entry.stream] = entry
        self.entries.move_to_end(entry.stream)
        if len(self.entries) > LATEST_STREAMS:
            self.entries.popitem(last=False)

    def after(self, seq: int) -> Entry | None:
        """The first entry that came after this sequence number."""
        found = None
        for entry in reversed(self.entries.values()):
            if entry.seq <= seq:
                break
            found = entry
        return found


class Purse:
    """What a sender has here of channels 0–4, oldest first, and how many bytes that is."""

    __slots__ = ("entries", "kept")

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.kept = 0


class SessionLog:
    """All packets of a session that this node still has. Owned by its `Session`."""

    __slots__ = (
        "_before",
        "_purses",
        "_rising",
        "_rosters",
        "_seq",
        "_streams_of",
        "_torn",
        "building",
        "former",
        "have",
        "latest",
        "rings",
        "screen_sender",
        "snapshot",
    )

    def __init__(self) -> None:
        self.have = HaveVector()  # reliable streams
        self.rings = tuple(Ring() for _ in Queue)
        self.latest: dict[int, Latest] = {Channel.CURSOR: Latest(), Channel.VOICE: Latest()}
        self.snapshot: Snapshot | None = None  # whole, and every screen packet after its first one is there
        self.building: Snapshot | None = None
        self.former: Snapshot | None = None  # the whole one before
        self.screen_sender: ParticipantId | None = None  # of the last packet on channel 5 or 9
        self._seq = 0
        self._rising: dict[Stream, int] = {}  # the other streams: the last counter
        self._streams_of: dict[ParticipantId, set[Stream]] = {}
        self._before: dict[Stream, int] = {}  # channel 5: the index of the last packet
        self._torn: dict[Stream, bool] = {}  # channel 9: the snapshot under way is not collected
        self._purses: dict[tuple[ParticipantId, bool], Purse] = {}  # channels 0–4, 10; True: the office's 0, 1 and 10
        self._rosters: deque[Entry] = deque()  # channel 10, for who asks: in the order of the ring

    @property
    def seq(self) -> int:
        """The sequence number of the last entry."""
        return self._seq

    def append(self, header: PacketHeader, body: bytes, hops: int, now: float, *, via: str = "", office: bool = False) -> Verdict:
        """Take a packet in, if it is new in its stream. `via`: the node that it came from, if it came from one; `office`: the sender holds
        the office."""
        stream, counter = header.stream, header.counter
        reliable = header.channel in RELIABLE_CHANNELS
        known = self.have.last(stream) if reliable else self._rising.get(stream, -1)
        if counter <= known:
            return Verdict.REPEATED
        fresh = known < 0
        if fresh and len(self.have) + len(self._rising) >= MAX_STREAMS:
            return Verdict.STREAMS
        if reliable and not fresh and counter != known + 1:
            return Verdict.GAP
        self._seq += 1
        entry = Entry(encode_frame(PACKET, body, hops), header, stream, now, self._seq, via)
        if reliable:
            self.have.jump(stream, counter)
            if fresh:
                self._streams_of.setdefault(stream.sender, set()).add(stream)
            self._append_reliable(entry, office)
        else:
            self._rising[stream] = counter
            if header.channel in self.latest:
                self.latest[header.channel].put(entry)
            elif not self._append_screen(entry, known, fresh):
                return Verdict.TORN
        return Verdict.TAKEN

    def taken_of(self, sender: ParticipantId) -> list[tuple[int, int, int, int]]:
        """What this node has of a participant's own streams."""
        return [(*stream, self.have.last(stream)) for stream in self._streams_of.get(sender, ())]

    def screens(self) -> list[tuple[int, int, int, int]]:
        """Where the presenter's screen stands."""
        presenter = self.screen_sender
        return [(*s, counter) for s, counter in self._rising.items() if s.channel == Channel.SCREEN and s.sender == presenter]

    # --- channels 0–4, 8 ---

    def _append_reliable(self, entry: Entry, office: bool) -> None:
        queue = RING_OF[entry.stream.channel]
        ring = self.rings[queue]
        ring.append(entry)
        if queue is Queue.FILES:
            while ring.size > FILE_BYTES and (oldest := ring.oldest()) is not None:
                ring.drop(oldest)
            return
        key = (entry.stream.sender, office and queue is Queue.KEYS)
        purse = self._purses.get(key)
        if purse is None:
            purse = self._purses[key] = Purse()
        purse.entries.append(entry)
        purse.kept += len(entry.frame)
        if entry.stream.channel == FETCHED:
            self._rosters.append(entry)
        if key[1]:
            while purse.kept > OFFICE_BYTES:
                self._drop_oldest(purse)

    def fetched(self, stream: Stream, counter: int) -> list[Entry]:
        """What is here of a stream of channel 10, from a counter on. It takes as long as that is."""
        found: list[Entry] = []
        for entry in reversed(self._rosters):
            if entry.stream == stream:
                if entry.counter < counter:
                    break
                if not entry.gone:
                    found.append(entry)
        return found[::-1]

    def over(self, sender: ParticipantId) -> bool:
        """Whether a sender has more than its share of channels 0–4 here."""
        purse = self._purses.get((sender, False))
        return purse is not None and purse.kept > SENDER_BYTES

    def make_room(self, sender: ParticipantId, floors: Sequence[int]) -> bool:
        """Drop a sender's oldest packets over its share, as far as they stand below the floors (by ring: the lowest cursor of any
        linked reader). True if the sender may go on."""
        purse = self._purses.get((sender, False))
        while purse is not None and purse.kept > SENDER_BYTES:
            oldest = purse.entries[0]
            if oldest.index >= floors[RING_OF[oldest.stream.channel]]:
                return False
            self._drop_oldest(purse)
        return True

    def oldest_of(self, sender: ParticipantId) -> Entry:
        """The oldest packet of a sender's share. Only while it is `over`."""
        return self._purses[sender, False].entries[0]

    def _drop_oldest(self, purse: Purse) -> None:
        entry = purse.entries.popleft()
        purse.kept -= len(entry.frame)
        self.rings[RING_OF[entry.stream.channel]].drop(entry)
        while self._rosters and self._rosters[0].gone:
            self._rosters.popleft()

    def expire(self, now: float, screen_floor: int) -> None:
        """Drop what is too old, and of the screen what stands before the last snapshot and below the floor (the lowest cursor of
        any reader that follows it)."""
        for key, purse in list(self._purses.items()):
            while purse.entries and now - purse.entries[0].at >= KEEP_FOR:
                self._drop_oldest(purse)
            if not purse.entries:
                del self._purses[key]
        screen = self.rings[Queue.SCREEN]
        floor = min(screen_floor, self.snapshot.first if self.snapshot else 0)
        while (oldest := screen.oldest()) is not None and oldest.index < floor:
            screen.drop(oldest)
        if self.former is not None and self.former.first < floor:
            self.former = None

    # --- channels 5 and 9 ---

    def _append_screen(self, entry: Entry, known: int, fresh: bool) -> bool:
        screen, stream = self.rings[Queue.SCREEN], entry.stream
        if self.screen_sender != stream.sender:  # another one presents: the former picture is of no use
            self.screen_sender = stream.sender
            self.former = self.snapshot = None
            self._abandon()
        if stream.channel == Channel.SNAPSHOT:
            taken = self._append_snapshot(entry, known, fresh)
            self._shrink(screen)
            return taken
        screen.append(entry)
        if not fresh and entry.counter != known + 1:
            self._note_gap(entry, self._before[stream])
        self._before[stream] = entry.index
        self._shrink(screen)
        return True

    def _note_gap(self, entry: Entry, before: int) -> None:
        """Something is missing in front of this screen packet. A snapshot in between covers it; one before it is of no more use."""
        entry.gap_after = before
        if self.snapshot and self.snapshot.first < before:
            self.snapshot = None
        if self.building and self.building.first < before:
            self._abandon()

    def _abandon(self) -> None:
        """The snapshot under way is of no use: what is still to come of it is torn."""
        if self.building is not None:
            self._torn[self.building.stream] = True
            self.building = None

    def _append_snapshot(self, entry: Entry, known: int, fresh: bool) -> bool:
        screen, stream = self.rings[Queue.SCREEN], entry.stream
        under_way = self.building is not None
        if not fresh and entry.counter != known + 1:  # a presenter stops in the middle only in front of another one, and so does a node
            under_way = False
            self._abandon()
            self._torn[stream] = False
        if self._torn.get(stream, False):
            self._torn[stream] = not entry.last
            return False
        screen.append(entry)
        if not under_way:
            entry.first = True
            self.building = Snapshot(entry)
        building = self.building
        assert building is not None
        building.last = entry.index
        building.size += len(entry.frame)
        if building.size > SNAPSHOT_BYTES:
            self._abandon()
            self._torn[stream] = not entry.last
        elif entry.last:
            building.whole = True
            self.former, self.snapshot, self.building = self.snapshot, building, None
        return True

    def _shrink(self, screen: Ring) -> None:
        """Drop the oldest screen packets over the bound. The snapshot before the last one stays as long as there is room: a slow reader may
        still be reading it. A snapshot behind which updates are missing is of no more use."""
        while screen.size > SCREEN_BYTES + sum(s.size for s in (self.former, self.snapshot, self.building) if s):
            entry = next(e for e in screen.entries() if not self._is_kept(e))
            if self.former is not None and self.former.first <= entry.index:
                self.former = None
            if self.snapshot is not None and self.snapshot.first < entry.index:
                self.snapshot = None
            if self.building is not None and self.building.first < entry.index:
                self._abandon()
            screen.drop(entry)

    def _is_kept(self, entry: Entry) -> bool:
        return entry.stream.channel == Channel.SNAPSHOT and any(
            s is not None and s.stream == entry.stream and s.first <= entry.index <= s.last for s in (self.snapshot, self.building)
        )

    def newest_epoch(self) -> int:
        """The epoch of the newest screen packet; 0 if there is none."""
        screen = self.rings[Queue.SCREEN]
        entry = screen.get(screen.head - 1) if screen.head > screen.base else None
        return entry.epoch if entry else 0

    def snapshot_for(self, epoch: int, after: int) -> Snapshot | None:
        """A snapshot at this epoch or later that begins after the index `after`: whole, or on its way."""
        for snapshot in (self.snapshot, self.building):
            if snapshot is not None and snapshot.epoch >= epoch and snapshot.first > after:
                return snapshot
        return None
