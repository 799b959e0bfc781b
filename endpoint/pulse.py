"""Whether the organizer is heard, and what its heartbeats show to be lacking here. Sans-IO.

    a fresh heartbeat     everything it names is here, or is waited for `RESYNC_AFTER` seconds: then a line counts as lost, and its stream
                          goes on; a log entry brings a resync
    none for 15 s         organizer unreachable, or withheld. What stops the log stops the heartbeats behind it, a lost entry or key too,
                          so a resync is asked for as well, once a minute: the organizer may be there all the time

Freshness is the difference of two clocks, judged against the best seen: clocks need not agree, and an old heartbeat that is played late
is not fresh.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from endpoint.log import Heartbeat
from wire.ids import EVERYONE, Channel, ParticipantId, Stream

MISSING_AFTER: Final = 15.0
"""Seconds without a fresh heartbeat before the organizer counts as unreachable, or withheld."""
RESYNC_AFTER: Final = 10.0
"""Seconds that a counter or an entry named in a heartbeat may be lacking."""
TAKE_OVER_AFTER: Final = 60.0
"""Seconds without a fresh heartbeat after which a named successor may take over, and members follow it."""
ASK_AGAIN: Final = 60.0
"""Seconds between two resyncs while no heartbeat comes: the organizer may be gone for long."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What has to be done now. `missing`: it changed to this; `lost`: streams that go on after this counter."""

    missing: bool | None = None
    lost: list[tuple[Stream, int]] = field(default_factory=list)
    resync: bool = False


class Pulse:
    """Owned by a member that does not organize. `counter` tells the last counter accepted of a stream."""

    __slots__ = ("_asked_at", "_behind_since", "_best_lag", "_counter", "_fresh_at", "_lacking", "_missing")

    def __init__(self, counter: Callable[[Stream], int]) -> None:
        self._counter = counter
        self._best_lag: float | None = None
        self._fresh_at = 0.0
        self._missing = False
        self._asked_at = -ASK_AGAIN
        self._behind_since: float | None = None  # since when log entries are known to be lacking
        self._lacking: dict[Stream, tuple[int, float]] = {}

    def silent(self, now: float) -> float:
        """Seconds since the organizer was last heard."""
        return now - self._fresh_at

    @property
    def missing(self) -> bool:
        """Whether the organizer cannot be reached, or is withheld, as the last tick found."""
        return self._missing

    def begin(self, now: float) -> None:
        """A snapshot was applied: all is as the organizer says."""
        self._fresh_at = now
        self._behind_since = None

    def behind(self, now: float) -> None:
        """Entries exist that are not here."""
        if self._behind_since is None:
            self._behind_since = now

    def beat(self, beat: Heartbeat, me: ParticipantId, now: float) -> None:
        """A heartbeat that names exactly the head that is here."""
        self._behind_since = None
        lag = now * 1000 - beat.time_ms
        self._best_lag = lag if self._best_lag is None else min(lag, self._best_lag)
        if lag - self._best_lag < MISSING_AFTER * 1000:
            self._fresh_at = now
        for participant, channel, counter in beat.counters:
            stream = Stream(ParticipantId(participant), EVERYONE, channel)
            if channel in (Channel.CHAT, Channel.FILE) and participant != me and self._counter(stream) < counter:
                self._lacking.setdefault(stream, (counter, now))

    def tick(self, now: float, *, linked: bool) -> Finding:
        """Without a link nothing can be asked, so nothing counts as lost."""
        missing = now - self._fresh_at >= MISSING_AFTER
        changed = missing if missing != self._missing else None
        self._missing = missing
        lost: list[tuple[Stream, int]] = []
        for stream, (counter, since) in list(self._lacking.items()):
            if self._counter(stream) >= counter:
                del self._lacking[stream]
            elif linked and now - since >= RESYNC_AFTER:
                del self._lacking[stream]
                lost.append((stream, counter))
        behind = self._behind_since is not None and now - self._behind_since >= RESYNC_AFTER
        resync = linked and (behind or (missing and now - self._asked_at >= ASK_AGAIN))
        if resync:
            self._behind_since, self._asked_at = None, now
        return Finding(changed, lost, resync)
