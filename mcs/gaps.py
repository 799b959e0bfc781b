"""What is missing of a session's reliable streams at one node, and how long it is waited for.

A packet that leaves a gap is not taken, nor is what comes behind it: once the neighbours are asked, they bring all of that again. After
`LOST_AFTER` the stream goes on with the lowest counter that came behind the gap, and not with what is said meanwhile; after twice that with
any, since whoever had that one may be gone; after three times nobody is asked any more. It begins anew when some of it has come.
"""

from typing import Final, NamedTuple

from mcs.limits import LOST_AFTER
from wire.have import HaveVector
from wire.ids import Stream

_ASKED_FOR: Final = 3 * LOST_AFTER


class _Gap(NamedTuple):
    since: float
    after: int  # the last counter that is here
    lowest: int  # of those that came behind it


class Gaps:
    """Owned by its `Session`. `have`: what is here."""

    __slots__ = ("_gaps",)

    def __init__(self) -> None:
        self._gaps: dict[Stream, _Gap] = {}

    def clear(self) -> None:
        """Somebody is there who may fill them: they begin anew."""
        self._gaps.clear()

    def met(self, stream: Stream, counter: int, have: HaveVector, now: float) -> bool:
        """A packet leaves a gap. True if what is missing counts as lost, and the stream goes on with this packet."""
        self._judge(stream, have, now)
        gap = self._gaps.get(stream) or _Gap(now, have.last(stream), counter)
        if now - gap.since < (LOST_AFTER if counter <= gap.lowest else 2 * LOST_AFTER):
            self._gaps[stream] = gap._replace(lowest=min(gap.lowest, counter))
            return False
        del self._gaps[stream]
        return True

    def asking(self, have: HaveVector, now: float) -> bool:
        """Whether the neighbours are to be asked for something."""
        for stream in list(self._gaps):
            self._judge(stream, have, now)
        return any(now - gap.since < _ASKED_FOR for gap in self._gaps.values())

    def _judge(self, stream: Stream, have: HaveVector, now: float) -> None:
        """It is filled, or stands anew if some of it has come."""
        gap, last = self._gaps.get(stream), have.last(stream)
        if gap is not None and last != gap.after:
            if last >= gap.lowest:
                del self._gaps[stream]
            else:
                self._gaps[stream] = _Gap(now, last, gap.lowest)
