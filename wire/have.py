"""Have-vectors: what a reader has of each reliable stream. The one mechanism of late join, reconnect, fail-over and tree repair.

A vector maps a stream to its last contiguous counter; a stream that is not listed is lacked from its first packet on.
"""

from collections.abc import Iterable, Iterator

from wire.control import MAX_ENTRIES, Position
from wire.ids import ParticipantId, Stream


class HaveVector:
    """What somebody has. Owned by whoever holds it; `note` is its only mutation beside `merge`."""

    __slots__ = ("_last",)

    def __init__(self, positions: Iterable[Position] = ()) -> None:
        self._last: dict[Stream, int] = {}
        self.merge(positions)

    def __len__(self) -> int:
        return len(self._last)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._last)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HaveVector) and self._last == other._last

    __hash__ = None  # type: ignore[assignment]  # it changes

    def last(self, stream: Stream) -> int:
        """The last contiguous counter; -1: nothing."""
        return self._last.get(stream, -1)

    def lacks(self, stream: Stream, counter: int) -> bool:
        return counter > self._last.get(stream, -1)

    def note(self, stream: Stream, counter: int) -> bool:
        """Take one packet in. True if it is the next of its stream; False (and nothing changes) if it is a repetition or leaves a gap."""
        if counter != self._last.get(stream, -1) + 1:
            return False
        self._last[stream] = counter
        return True

    def jump(self, stream: Stream, counter: int) -> None:
        """Go on at `counter` + 1, whatever lies between: a gap that nobody can fill, or a newcomer's start. Never goes back."""
        if counter > self._last.get(stream, -1):
            self._last[stream] = counter

    def merge(self, positions: Iterable[Position]) -> None:
        """The higher counter of each stream."""
        for sender, recipient, channel, counter in positions:
            self.jump(Stream(ParticipantId(sender), ParticipantId(recipient), channel), counter)

    def discard(self, stream: Stream) -> None:
        self._last.pop(stream, None)

    def positions(self) -> list[Position]:
        return [(s.sender, s.recipient, s.channel, counter) for s, counter in self._last.items()]

    def parts(self) -> list[list[Position]]:
        """The vector in lists of at most `MAX_ENTRIES`; at least one list, which may be empty."""
        whole = self.positions()
        return [whole[at : at + MAX_ENTRIES] for at in range(0, len(whole), MAX_ENTRIES)] or [[]]
