"""What a session's presenter must be asked: all wants of all readers as one.

The highest epoch counts. It is said at once, but not more often than `WANT_EVERY`, and again after `WANT_AGAIN` while nothing answers. It
is answered by a snapshot of that epoch or a later one that began after the want was raised.
"""

from mcs.limits import WANT_AGAIN, WANT_EVERY
from mcs.log import SessionLog


class Wants:
    """Owned by its `Session`."""

    __slots__ = ("_after", "_epoch", "_heard", "_said", "_said_at")

    def __init__(self) -> None:
        self._epoch: int | None = None  # of the want that is open
        self._after = 0  # the screen index from which on an answer may begin
        self._said = False
        self._said_at = float("-inf")
        self._heard = -1  # the last epoch that another node wanted in vain

    @property
    def open(self) -> bool:
        return self._epoch is not None

    @property
    def unsaid(self) -> bool:
        return self._epoch is not None and not self._said

    def merge(self, epoch: int, head: int) -> None:
        """One more. `head`: the next index of the screen ring."""
        if self._epoch is None or epoch > self._epoch:
            self._epoch, self._after, self._said = epoch, head, False

    def answered(self, log: SessionLog) -> None:
        """A part of a snapshot has come."""
        self._heard = -1
        if self._epoch is not None and log.snapshot_for(self._epoch, self._after - 1) is not None:
            self._epoch = None

    def due(self, now: float) -> tuple[int | None, bool]:
        """The epoch that must be said now, and whether it was said before in vain. It counts as said."""
        if self._epoch is None or now - self._said_at < (WANT_AGAIN if self._said else WANT_EVERY):
            return None, False
        again, self._said, self._said_at = self._said, True, now
        return self._epoch, again

    def heard_again(self, epoch: int) -> bool:
        """Another node wants this; True if it said so before and nothing has come since."""
        again, self._heard = epoch == self._heard, epoch
        return again
