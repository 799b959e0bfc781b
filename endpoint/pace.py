"""How much of a screen the presenter's own line takes: measured when it falls behind, trusted a little more while it does not. Sans-IO.

A line tells its rate only when it is the bottleneck: so the rate is what left from the moment at which frames began to be skipped until half of
what waited was gone. Until a line has ever been too slow it counts as boundless; one that was, and now keeps up, counts as a little
faster every `TRUST_AFTER` seconds, so that pictures get better until it says no again. And it counts as no slower than what it has
taken in a second: a line that stood still for a moment has nothing to earn back, it only has to be used.

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
    """Of one link: another one has another. Times are seconds on any scale."""

    def __init__(self) -> None:
        self.rate = inf  # bytes a second
        self._doubted_at = 0.0  # when the rate was last measured, or raised
        self._counted: tuple[int, float] | None = None  # bytes that had left, and when; the window begins there

    @property
    def backlog(self) -> int:
        """Bytes that may wait before frames are skipped."""
        return FIRST_BACKLOG if self.rate == inf else int(min(MAX_BACKLOG, max(MIN_BACKLOG, AGE * self.rate)))

    def measured(self, sent: int, seconds: float, now: float) -> None:
        """So many bytes left in that time, while more waited all along."""
        rate = max(sent / max(seconds, _BRIEFLY), LEAST)
        self.rate = min(rate, (self.rate + rate) / 2)  # bad news counts at once
        self._doubted_at = now
        self._counted = None
        self._judge()

    def tick(self, now: float, left: int) -> None:
        """Time has passed, and so many bytes have left through the link by now, all in all."""
        if self._counted is None:
            self._counted = left, now
        elif (seconds := now - self._counted[1]) >= WINDOW:
            taken = (left - self._counted[0]) / seconds
            self._counted = left, now
            if taken > self.rate:
                self.rate, self._doubted_at = taken, now
                self._judge()
        while self.rate < inf and now - self._doubted_at >= TRUST_AFTER:
            self.rate *= TRUST
            self._doubted_at += TRUST_AFTER
            self._judge()

    def _judge(self) -> None:
        if self.rate >= BOUNDLESS:
            self.rate = inf
