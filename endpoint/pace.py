"""How much of a screen the presenter's own line takes: measured when it falls behind, trusted a little more while it does not. Sans-IO.

A line tells its rate only when it is the bottleneck: so the rate is what left from the moment at which frames began to be skipped until half of
what waited was gone. A line that has never been too slow begins with a careful guess, and counts as boundless as soon as it has taken frames
as fast as that; one that was too slow, and now keeps up, counts as a little faster every `TRUST_AFTER` seconds, so that pictures get better
until it says no again. And it counts as no slower than what it has taken in a second: a line that stood still for a moment has nothing to earn
back, it only has to be used.

From the rate follow how many bytes may wait before frames are skipped, which bounds the age of what a viewer sees, and how large the
encoder makes what it can make smaller: frames of film, and pieces of what is refined.
"""

from math import inf
from typing import Final

AGE: Final = 0.25
"""Seconds of the link's rate that may wait before frames are skipped."""
MIN_BACKLOG: Final = 8 << 10
MAX_BACKLOG: Final = 256 << 10
FIRST_BACKLOG: Final = 64 << 10
"""Bytes that may wait on a link that has never been too slow."""
FIRST_RATE: Final = 125_000.0
"""Bytes a second that a link counts as which nothing is known of: 1 Mbit/s."""
PROBE: Final = 0.5
USED: Final = 0.25
"""Seconds in which it took this part of what it counts as, and kept up, and counts as twice as fast."""
SWALLOWED: Final = 48 << 10
"""Bytes that a connection takes at once, whatever the line: TCP's first window, what the kernel holds unsent, what is being written."""
TRUST_AFTER: Final = 4.0
TRUST: Final = 1.25
WINDOW: Final = 1.0
"""Seconds over which what has left is counted, at least: what a socket swallows at once is little of it."""
BOUNDLESS: Final = 8e6
"""Bytes a second from which on a link is not what limits a screen."""
LEAST: Final = 1000.0
"""Bytes a second that a line counts as, whatever was measured: nothing grows from nothing."""
_BRIEFLY: Final = 0.005


class Pace:
    """Of one link. Another one begins with what was known of the one before: the line that both leave by is the same, as a rule. Times are
    seconds on any scale."""

    def __init__(self, former: "Pace | None" = None) -> None:
        self.rate: float = former.rate if former else FIRST_RATE  # bytes a second
        self.guessed: bool = former.guessed if former else True  # nothing is known yet
        self._last = 0, -inf  # bytes that had left at the last tick, and when that was
        self._doubted_at: float = former._doubted_at if former else 0.0  # when the rate was last measured, or raised
        self._counted: tuple[int, float] | None = None  # bytes that had left, and when; the window begins there

    @property
    def backlog(self) -> int:
        """Bytes that may wait before frames are skipped."""
        return FIRST_BACKLOG if self.rate == inf or self.guessed else int(min(MAX_BACKLOG, max(MIN_BACKLOG, AGE * self.rate)))

    def measured(self, sent: int, seconds: float, now: float) -> None:
        """So many bytes left in that time, while more waited all along."""
        rate = max(sent / max(seconds, _BRIEFLY), LEAST)
        if sent < SWALLOWED:
            self.rate = min(rate, self.rate)  # so little says nothing good of a line
        else:
            self.rate = rate if self.guessed else min(rate, (self.rate + rate) / 2)  # bad news counts at once
        self.guessed = False
        self._doubted_at = now
        self._counted = None
        self._judge()

    def tick(self, now: float, left: int, waiting: int) -> None:
        """A frame is due; so many bytes have left through the link by now, all in all, and so many wait."""
        if self._counted is None:
            self._counted = left, now
        if self.guessed:
            self._probe(now, left, waiting)
            return
        if (seconds := now - self._counted[1]) >= WINDOW:
            taken = (left - self._counted[0]) / seconds
            self._counted = left, now
            if taken > self.rate:
                self.rate, self._doubted_at = taken, now
                self._judge()
        while self.rate < inf and now - self._doubted_at >= TRUST_AFTER:
            self.rate *= TRUST
            self._doubted_at += TRUST_AFTER
            self._judge()

    def _probe(self, now: float, left: int, waiting: int) -> None:
        """Nothing is known of the line but that it keeps up with what it is given."""
        assert self._counted is not None
        seconds, taken = now - self._counted[1], left - self._counted[0]
        if waiting == 0:
            lately = (left - self._last[0] - SWALLOWED) / max(now - self._last[1], _BRIEFLY)
            self.rate = max(self.rate, lately)
            if seconds >= PROBE and taken >= USED * self.rate * seconds:
                self.rate *= 2
            self._judge()
        if seconds >= PROBE:
            self._counted = left, now
        self._last = left, now

    def _judge(self) -> None:
        if self.rate >= BOUNDLESS:
            self.rate, self.guessed = inf, False
