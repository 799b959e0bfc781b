"""Which counters of a stream may come next. One policy per class of channel (protocol.md section 3, "Opening").

    StrictlyNext     reliable channels: last + 1 and nothing else, so a gap is always seen
    StrictlyRising   channels 0, 5, 6, 9: anything newer, skipped ones never come back
    Window           channel 7: the newest 1,024 in any order, each once (RFC 3711, section 3.3.2)

`check` decides and changes nothing; `accept` makes the counter taken, after the last authenticity check, and raises like
`check` would, so that no mistake of a caller can turn a counter back. `last` is the highest counter taken, -1 before any;
a newcomer starts at what a snapshot names.
"""

from typing import Final, Protocol

from crypto.errors import Gap, Replayed

WINDOW: Final = 1024


class Replay(Protocol):
    """What every policy can do."""

    @property
    def last(self) -> int:
        """The highest counter taken, -1 before any."""

    def check(self, counter: int) -> None:
        """Raise Replayed or Gap if the counter may not come now. Changes nothing."""

    def accept(self, counter: int) -> None:
        """Take the counter. Raises as `check` does."""


class StrictlyNext:
    """`last` + 1 alone: an older one is Replayed, a later one leaves a Gap."""

    __slots__ = ("last",)

    def __init__(self, last: int = -1) -> None:
        self.last = last

    def check(self, counter: int) -> None:
        if counter != self.last + 1:
            raise Replayed if counter <= self.last else Gap

    def accept(self, counter: int) -> None:
        self.check(counter)
        self.last = counter


class StrictlyRising:
    """Anything above `last`; the rest is Replayed."""

    __slots__ = ("last",)

    def __init__(self, last: int = -1) -> None:
        self.last = last

    def check(self, counter: int) -> None:
        if counter <= self.last:
            raise Replayed

    def accept(self, counter: int) -> None:
        self.check(counter)
        self.last = counter


class Window:
    """Each counter once, as long as it is above `last` - size; what is taken twice or is older is Replayed."""

    __slots__ = ("_taken", "last", "size")

    def __init__(self, last: int = -1, size: int = WINDOW) -> None:
        self.last = last
        self.size = size
        # bit i: the counter last - i is taken. A start at a given counter counts all before it as taken.
        self._taken = (1 << size) - 1

    def check(self, counter: int) -> None:
        behind = self.last - counter
        if behind >= 0 and (behind >= self.size or self._taken >> behind & 1):
            raise Replayed

    def accept(self, counter: int) -> None:
        self.check(counter)
        ahead = counter - self.last
        if ahead <= 0:
            self._taken |= 1 << -ahead
        elif ahead >= self.size:
            self._taken, self.last = 1, counter  # also keeps a leap of 2^60 from shifting by that much
        else:
            self._taken = (self._taken << ahead | 1) & (1 << self.size) - 1
            self.last = counter
