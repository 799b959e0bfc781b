"""What a reader gets next: cursors into one log, and the rules of who sees what.

A reader is an endpoint's link, or what another node is owed of one session. It holds one index per ring; readers that are level hold the
same ones. `pull` collects frames up to a budget, in the write order (`wire.packet.PRIORITY`): handshake, keys and log, talk, voice,
pointer, then screen, snapshot and files in order of arrival.

    reliable    every packet visible to the reader that its have-vector lacks, in ring order; then live. Resuming is: all cursors
                to the first packet that is lacked, a have-vector in hand. What was dropped before the reader came to it is reported as lost.
    latest      from now on; only the newest of each stream
    screen      OFF ──start──▶ LEVEL ◀──snapshot's LAST── SNAPSHOT ◀──first packet of a snapshot── WANTING ◀──want, skip, gap── any

Visible to an endpoint: what is for everyone or for it, never its own; of channel 10 what it asks for (`fetch`), once each time. Visible to a
node: what did not come from there; in catching up, everything that its have-vector lacks. A newcomer (`fresh`) sees channel 0 alone until
`start`, and what it fetches.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from mcs.limits import DIRECT_BYTES, OWED_BYTES
from mcs.log import FETCHED, RELIABLE_QUEUES, RING_OF, Entry, Queue, SessionLog, Snapshot
from wire.control import Position
from wire.have import HaveVector
from wire.ids import Channel, ParticipantId, Stream


class Screen(Enum):
    """Where a reader stands with the screen channels."""

    OFF = "off"
    LEVEL = "level"
    WANTING = "wanting"
    SNAPSHOT = "snapshot"


class Reader:
    """One reader of one session's log. Owned by the link that writes what it pulls."""

    __slots__ = (
        "_checked",
        "_dropped",
        "_last_update",
        "_latest",
        "_level_at",
        "_live_from",
        "_log",
        "_reading",
        "_served",
        "_since",
        "cursors",
        "direct",
        "direct_size",
        "fetched",
        "have",
        "lost",
        "node",
        "only_log",
        "participant",
        "screen",
        "skipped",
        "started",
        "want_epoch",
    )

    def __init__(self, log: SessionLog, participant: ParticipantId | None, dropped: Counter[str], node: str = "") -> None:
        """`participant`: None for another node, which `node` names. Nothing is visible but channel 0 until `start`."""
        self._log = log
        self._dropped = dropped
        self.participant = participant
        self.node = node
        self.started = False
        self.only_log = False  # the session has ended: channel 1 and nothing else
        self._level_at = -1  # the log's sequence number at which nothing was left to bring
        self.have: HaveVector = HaveVector()  # what it has beyond its cursors
        self.cursors = [ring.head for ring in log.rings]
        self.cursors[Queue.KEYS] = 0
        self._live_from = [ring.head for ring in log.rings]
        self._latest = dict.fromkeys(log.latest, log.seq)
        self.lost: list[Position] = []  # to be said as `Lost`; taken by the link
        self.direct: deque[bytes] = deque()  # handshake packets, framed
        self.direct_size = 0
        self.fetched: deque[Entry] = deque()  # of channel 10, asked for
        self.screen = Screen.OFF
        self.want_epoch = 0
        self.skipped = False  # it fell behind and wants by itself; taken by the link
        self._served = -1  # the first index of the newest snapshot that it was given
        self._last_update = -1  # the index of the last channel-5 packet that it was given
        self._checked = [0 for _ in log.rings]  # drops of each ring that were looked at
        self._reading: Snapshot | None = None
        self._since = 0  # the screen index from which it has read on

    # --- where it begins ---

    def start(self, positions: Iterable[Position], *, newcomer: bool = False) -> None:
        """From here on it gets all that it lacks: a resume, or a newcomer's `start`. Of the screen: from now on, but a newcomer has no
        picture that updates could continue; if there is one, it gets none of it until it wants it, and then the snapshot in the ring."""
        had = self.have if not self.started else HaveVector()  # a newcomer's channel 0 has been sent already
        had.merge(positions)
        self._level_at = -1
        self.have = had
        self.started = True
        for queue in RELIABLE_QUEUES:
            self.cursors[queue] = 0
            self._live_from[queue] = self._log.rings[queue].head
        self._skip_what_it_has()
        if self.screen is Screen.OFF and not (newcomer and self._log.screen_sender is not None):
            self.screen = Screen.LEVEL
            self.cursors[Queue.SCREEN] = self._since = self._log.rings[Queue.SCREEN].head

    def _skip_what_it_has(self) -> None:
        """Move the cursors to the first packet that it lacks. How many those are follows from the counters, so they are looked for from the
        end: who was away for a second costs what was said in it, not what the ring keeps. Where not all are found, some are gone."""
        owed = [0 for _ in self._log.rings]
        for stream in self._log.have:
            if self._concerns(stream):
                owed[RING_OF[stream.channel]] += max(0, self._log.have.last(stream) - self.have.last(stream))
        for queue in RELIABLE_QUEUES:
            ring, left = self._log.rings[queue], owed[queue]
            at = ring.head
            while left and at > ring.base:
                at -= 1
                entry = ring.get(at)
                if entry is not None and self._concerns(entry.stream) and self.have.lacks(entry.stream, entry.counter):
                    left -= 1
            if not left:
                self.cursors[queue] = at

    def _concerns(self, stream: Stream) -> bool:
        """Whether packets of this stream are for this reader."""
        if self.participant is None:
            return True
        return stream.sender != self.participant and stream.recipient in (0, self.participant) and stream.channel != FETCHED

    def start_from_snapshot(self) -> None:
        """For a node that begins to carry the session: the last snapshot and what follows it, if there is one."""
        snapshot = self._log.snapshot
        first = self._log.rings[Queue.SCREEN].get(snapshot.first) if snapshot else None
        if snapshot is not None and first is not None and first.via != self.node:
            self._give(snapshot)

    def resume_screen(self, have: HaveVector) -> bool:
        """For a node that had the screen up to here by another way: go on right behind it. False if what follows is not here any more."""
        ring = self._log.rings[Queue.SCREEN]
        for entry in ring.entries():
            stream = entry.stream
            if stream.channel == Channel.SCREEN and stream.sender == self._log.screen_sender and have.lacks(stream, entry.counter):
                if have.last(stream) < 0 or entry.counter != have.last(stream) + 1:
                    return False
                self.screen, self._reading = Screen.LEVEL, None
                self.cursors[Queue.SCREEN] = self._since = entry.index
                return True
        return any(have.last(stream) >= 0 for stream in have)  # it has everything

    def want(self, epoch: int) -> bool:
        """It wants a snapshot. True if the log has one for it; False if the presenter must be asked.

        A snapshot is given once: who wants again was not helped by it. Nor would one help that begins before updates which the reader
        was given already: they would come a second time.
        """
        self._level_at = -1
        if self.screen is Screen.SNAPSHOT and self._reading is not None and self._reading.epoch >= epoch:
            return True  # it is being given one
        snapshot = self._log.snapshot_for(epoch, max(self._served, self._last_update))
        if snapshot is not None:
            self._give(snapshot)
            return True
        self.want_epoch = max(epoch, self.want_epoch) if self.screen is Screen.WANTING else epoch
        self.screen, self._reading = Screen.WANTING, None
        self.cursors[Queue.SCREEN] = self._log.rings[Queue.SCREEN].head
        return False

    def _give(self, snapshot: Snapshot) -> None:
        self.screen, self._reading = Screen.SNAPSHOT, snapshot
        self._served = self._since = self.cursors[Queue.SCREEN] = snapshot.first

    # --- what it gets ---

    def fetch(self, stream: Stream, counter: int) -> None:
        """Bring what is here of a stream of channel 10, from a counter on. Asked again, it begins again."""
        self.fetched = deque(self._log.fetched(stream, counter))
        self._level_at = -1

    def put_direct(self, frame: bytes) -> bool:
        """Queue a handshake packet. False if there is no room: its sender repeats it."""
        if self.direct_size + len(frame) > DIRECT_BYTES:
            return False
        self.direct.append(frame)
        self.direct_size += len(frame)
        return True

    def pull(self, budget: int, *, at_least_one: bool = True) -> list[bytes]:
        """The next frames, together at most `budget` bytes, though one that is larger goes alone unless `at_least_one` is off."""
        if self._level_at == self._log.seq and not self.direct:
            return []
        out: list[bytes] = []
        size = 0
        while self.direct and not self.only_log and ((at_least_one and not out) or size + len(self.direct[0]) <= budget):
            frame = self.direct.popleft()
            self.direct_size -= len(frame)
            out.append(frame)
            size += len(frame)
        while (entry := self._peek()) is not None:
            if size + len(entry.frame) > budget and (out or not at_least_one):
                break
            out.append(entry.frame)
            size += len(entry.frame)
            self._commit(entry)
        else:
            self._settle()
            self._level_at = self._log.seq
        return out

    def pull_direct(self) -> list[bytes]:
        """Handshake packets, which reach a reader that has no place of its own too."""
        frames = list(self.direct)
        self.direct.clear()
        self.direct_size = 0
        return frames

    @property
    def settled(self) -> bool:
        """Whether nothing was left to bring at the log's end, and nothing sets it apart from other level readers."""
        return (
            self._level_at == self._log.seq
            and self.started
            and not self.only_log
            and self.screen is Screen.LEVEL
            and not (len(self.have) or self.direct or self.fetched or self.lost or self.skipped)
        )

    def place(self, cursors: Sequence[int], latest: Mapping[int, int], last_update: int) -> None:
        """It reads by itself again, from here on. Its own cursors still say where it did so last."""
        if last_update >= self.cursors[Queue.SCREEN]:  # it was given that one, and did not come after it
            self._last_update = last_update
        self.cursors = list(cursors)
        self._latest = dict(latest)
        self._checked = [-1 for _ in self._log.rings]
        self._level_at = -1

    def pending(self) -> bool:
        """Whether `pull` would bring anything."""
        return bool(self.direct and not self.only_log) or self._peek() is not None

    def floor(self, queue: Queue) -> int:
        """The index of the first entry that it still needs."""
        if queue is Queue.SCREEN:
            self._peek_screen()
        else:
            self._peek_ring(queue)
        return self.cursors[queue]

    def owed(self) -> int:
        """Bytes of live channel 0–4 packets that wait for this reader; exact only above `OWED_BYTES`."""
        total = 0
        for queue in (Queue.KEYS, Queue.TALK):
            ring = self._log.rings[queue]
            at = max(self.cursors[queue], self._live_from[queue], ring.base)
            entry = ring.get(at) if at < ring.head else None
            total += ring.total - entry.offset if entry else 0
        if total <= OWED_BYTES:
            return total
        total = 0
        for queue in (Queue.KEYS, Queue.TALK):
            ring = self._log.rings[queue]
            for at in range(max(self.cursors[queue], self._live_from[queue], ring.base), ring.head):
                entry = ring.get(at)
                total += len(entry.frame) if entry and self._sees(entry, queue) else 0
        return total

    def _peek(self) -> Entry | None:
        """The next entry in the write order. Cursors move over what the reader does not see."""
        rings, cursors, latest = self._log.rings, self.cursors, self._log.latest  # most of them have nothing: asked without a call
        if cursors[Queue.KEYS] < rings[Queue.KEYS].head and (entry := self._peek_ring(Queue.KEYS)):
            return entry
        if self.only_log:
            return None
        if self.fetched:
            return self.fetched[0]
        if cursors[Queue.TALK] < rings[Queue.TALK].head and (entry := self._peek_ring(Queue.TALK)):
            return entry
        for channel in (Channel.VOICE, Channel.CURSOR):
            if self._latest[channel] < latest[channel].seq and (entry := self._peek_latest(channel)):
                return entry
        files = self._peek_ring(Queue.FILES) if cursors[Queue.FILES] < rings[Queue.FILES].head else None
        screen = self._peek_screen() if cursors[Queue.SCREEN] < rings[Queue.SCREEN].head or self._reading else None
        if files and screen:
            return files if files.seq < screen.seq else screen
        return files or screen

    def _commit(self, entry: Entry) -> None:
        """It has been written."""
        stream = entry.stream
        if stream.channel == FETCHED and self.participant is not None:
            self.fetched.popleft()
            return
        if stream.channel in self._latest:
            self._latest[stream.channel] = entry.seq
            return
        if stream.channel in (Channel.SCREEN, Channel.SNAPSHOT):
            self.cursors[Queue.SCREEN] = entry.index + 1
            if stream.channel == Channel.SCREEN:
                self._last_update = entry.index
            elif entry.last:
                self.screen, self._reading = Screen.LEVEL, None
            return
        queue = RING_OF[stream.channel]
        self.cursors[queue] = entry.index + 1
        if not self.started or len(self.have):
            self.have.jump(stream, entry.counter)

    def _settle(self) -> None:
        """Nothing is left to bring: only what the reader has and the log has not yet is worth remembering."""
        if not self.started or self.only_log or not len(self.have):
            return
        for stream in list(self.have):
            if self.have.last(stream) <= self._log.have.last(stream):
                self.have.discard(stream)

    def _sees(self, entry: Entry, queue: Queue) -> bool:
        """Whether an entry of a reliable ring is for this reader."""
        stream = entry.stream
        if self.participant is None:
            if entry.via == self.node and entry.index >= self._live_from[queue]:
                return False  # it came from there
        elif not self._concerns(stream):
            return False
        if self.only_log and stream.channel != Channel.LOG:
            return False
        if not self.started and stream.channel != Channel.KEY:
            return False
        return not len(self.have) or self.have.lacks(stream, entry.counter)

    def _peek_ring(self, queue: Queue) -> Entry | None:
        ring = self._log.rings[queue]
        if not self.started and queue is not Queue.KEYS:
            self.cursors[queue] = ring.head
            return None
        at = self.cursors[queue]
        if at <= ring.last_gone and self._checked[queue] != ring.drops:
            self._checked[queue] = ring.drops
            self._report_lost(queue, at)
        at = max(at, ring.base)
        head = ring.head
        while at < head:
            entry = ring.get(at)
            if entry is not None and self._sees(entry, queue):
                self.cursors[queue] = at
                return entry
            at += 1
        self.cursors[queue] = at
        return None

    def _report_lost(self, queue: Queue, cursor: int) -> None:
        """What the ring no longer has and this reader lacks. Each loss is said once."""
        ring = self._log.rings[queue]
        for stream, (index, counter) in ring.gone.items():
            if index < cursor or not self._concerns(stream):
                continue
            if not self.started or not self.have.lacks(stream, counter):
                continue
            self.have.jump(stream, counter)
            if self.participant is not None:
                self.lost.append((*stream, counter))
                self._dropped["lost"] += 1

    def _peek_latest(self, channel: Channel) -> Entry | None:
        if not self.started:
            self._latest[channel] = self._log.seq
            return None
        newest = self._log.latest[channel]
        while (entry := newest.after(self._latest[channel])) is not None:
            if entry.stream.sender != self.participant and (self.participant is not None or entry.via != self.node):
                return entry
            self._latest[channel] = entry.seq
        return None

    # --- the screen ---

    def _peek_screen(self) -> Entry | None:
        ring = self._log.rings[Queue.SCREEN]
        at = self.cursors[Queue.SCREEN]
        if self.screen is Screen.OFF:
            self.cursors[Queue.SCREEN] = ring.head
            return None
        if (at <= ring.last_gone and self._missed(at)) or self._torn():
            self._dropped["skipped"] += 1
            self._fall_back(self._log.newest_epoch())
            at = self.cursors[Queue.SCREEN]
        at = max(at, ring.base)
        while at < ring.head:
            entry = ring.get(at)
            if entry is not None and self._lacks_before(entry):
                self._dropped["screen-gap"] += 1
                self._fall_back(entry.epoch)
                at = self.cursors[Queue.SCREEN]
                continue
            if entry is not None and self._follows(entry):
                self.cursors[Queue.SCREEN] = at
                return entry
            at += 1
        self.cursors[Queue.SCREEN] = at
        return None

    def _missed(self, cursor: int) -> bool:
        """Whether something that this reader would have got has left the ring."""
        gone = self._log.rings[Queue.SCREEN].gone
        if self.screen is Screen.SNAPSHOT:
            return any(index >= cursor for index, _ in gone.values())
        return self.screen is Screen.LEVEL and any(
            index >= cursor and stream.channel == Channel.SCREEN and stream.sender != self.participant for stream, (index, _) in gone.items()
        )

    def _torn(self) -> bool:
        """Whether the snapshot that it is being given will never be whole."""
        return self._reading is not None and not self._reading.whole and self._reading is not self._log.building

    def _fall_back(self, epoch: int) -> None:
        """An own want on the reader's behalf."""
        self.screen, self._reading = Screen.WANTING, None
        self.want_epoch = 0
        self.skipped = not self.want(epoch)

    def _lacks_before(self, entry: Entry) -> bool:
        """Whether this update continues one that the node never got. Another node finds out by itself."""
        return (
            entry.gap_after >= self._since
            and self.screen in (Screen.LEVEL, Screen.SNAPSHOT)
            and self.participant is not None
            and entry.stream.sender != self.participant
        )

    def _follows(self, entry: Entry) -> bool:
        """Whether a screen packet is for this reader now; the moment at which its state moves on."""
        if entry.stream.sender == self.participant or (self.participant is None and entry.via == self.node):
            return False
        wanted = self.participant is None or (self.screen is Screen.WANTING and entry.epoch >= self.want_epoch)
        if entry.first and wanted and self.screen is not Screen.SNAPSHOT:
            self.screen = Screen.SNAPSHOT
            self._reading = self._log.snapshot_for(0, entry.index - 1)
            self._served = self._since = entry.index
            return True
        if self.screen is Screen.WANTING:
            return False
        if entry.stream.channel == Channel.SNAPSHOT:
            return self.screen is Screen.SNAPSHOT and entry.index >= self._served
        return True
