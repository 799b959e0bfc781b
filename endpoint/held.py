"""Packets that cannot be judged yet, because their sender, their epoch or their log index has not come here. Bounded in number and time.

Kept in order, stream by stream. An authentic packet that waits (`first`) holds up what follows in its stream; any other may be anybody's
and holds up nothing. When there are too many, the longest queue pays: who fills one crowds out nobody else.
"""

from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from typing import Final

from wire.ids import Stream

MAX_HELD: Final = 2048
HOLD_FOR: Final = 30.0
"""Seconds that a packet waits at most."""


class Outcome(Enum):
    """What became of a packet."""

    DONE = "done"  # taken or refused
    CHANGED = "changed"  # taken, and held packets may open now
    WAITS = "waits"  # nothing is known of it yet
    WAITS_FIRST = "waits first"  # authentic: what follows in its stream waits behind it


class Held:
    """Owned by a member. `dropped` counts by name."""

    __slots__ = ("_count", "_dropped", "_ordered", "_queues")

    def __init__(self, dropped: Counter[str]) -> None:
        self._dropped = dropped
        self._queues: dict[Stream, deque[tuple[float, bytes]]] = {}
        self._count = 0
        self._ordered: set[Stream] = set()  # streams whose held packets are authentic

    def __len__(self) -> int:
        return self._count

    def holds_up(self, stream: Stream) -> bool:
        """Whether the next packet of this stream has to wait behind others."""
        return stream in self._ordered

    def put(self, stream: Stream, packet: bytes, now: float, *, first: bool = False) -> None:
        self._queues.setdefault(stream, deque()).append((now, packet))
        if first:
            self._ordered.add(stream)
        self._count += 1
        if self._count > MAX_HELD:
            max(self._queues.values(), key=len).pop()
            self._count -= 1
            self._dropped["held-too-many"] += 1

    def expire(self, now: float) -> dict[Stream, bool]:
        """Drop what has waited too long. Of which streams (what stood behind it may be tried), and whether it was authentic."""
        expired: dict[Stream, bool] = {}
        for stream, waiting in list(self._queues.items()):
            while waiting and now - waiting[0][0] >= HOLD_FOR:
                waiting.popleft()
                self._count -= 1
                self._dropped["held-too-long"] += 1
                expired[stream] = stream in self._ordered
            if not waiting:
                del self._queues[stream]
                self._ordered.discard(stream)
        return expired

    def clear(self) -> None:
        self._queues.clear()
        self._ordered.clear()
        self._count = 0

    def retry(self, take: Callable[[bytes], Outcome]) -> None:
        """Try everything again, until nothing moves."""
        moved = True
        while moved and self._queues:
            moved = False
            for stream in list(self._queues):
                waiting, kept = self._queues.pop(stream), deque[tuple[float, bytes]]()
                self._ordered.discard(stream)
                while waiting:
                    outcome = take(waiting[0][1])
                    if outcome is Outcome.WAITS_FIRST:
                        self._ordered.add(stream)
                        break
                    held = waiting.popleft()
                    if outcome is Outcome.WAITS:
                        kept.append(held)
                    else:
                        self._count -= 1
                        moved = True
                if kept or waiting:
                    self._queues[stream] = kept + waiting
