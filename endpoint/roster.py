"""The log as a newcomer is shown it, and as who resyncs: sealed once for all of them. Sans-IO.

    organizer   LogSnapshot ─ LogSequel ─ LogSequel ─ …     channel 10: a snapshot of the state, then the entries since, as they are written
                     ▲ another snapshot: when a minute is over, the sequels outweigh the last one, or somebody who has the key is gone
    to each     Roster {key, from, to, digest, …}           channel 0
    reader      Fetch {from} ─▶ relay ─▶ what it has of channel 10 ─▶ exactly what the digest names

So what a guest costs its organizer does not grow with the hall: a few bytes of its own, and a share of a snapshot that thousands read. The
relay keeps the packets and gives them to who asks.

The stream has a key of its own, which only members are told; who leaves or is dismissed has it, so the next reader needs a new one. Whoever
has it can make packets, so nothing here is believed for its MAC: all of it must have the digest that the organizer has said to this reader
alone, and the organizer must have signed the snapshot and the last entry, to which those between are bound by their hashes.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec

from crypto.errors import CryptoError
from crypto.schedule import new_group_key
from crypto.signing import verify
from crypto.suite import LABEL_SHOWN, LABEL_SNAPSHOT, framed
from endpoint import log
from endpoint.errors import ForgedEntry, MalformedContent, MalformedEntry
from endpoint.log import Cuts, SignedEntry
from endpoint.messages import LogSequel, LogSnapshot, Roster, encode, parse_cuts_untrusted, parse_roster_untrusted
from endpoint.rules import CUT_CHANNELS
from endpoint.state import State, decode_snapshot
from wire.ids import EVERYONE, Channel, Epoch, ParticipantId, SessionId, Stream

if TYPE_CHECKING:
    from hashlib import _Hash as HASH

    from endpoint.chair import Chair

RENEW_AFTER: Final = 60.0
"""Seconds that a snapshot is continued. Relays keep packets for twice as long."""
MAX_SEQUELS: Final = 64
ASK_AGAIN: Final = 5.0
"""Seconds for a relay to bring more of the roster, before the organizer is asked for another one."""

_ENDS_THE_KEY: Final = (log.Leave, log.Dismiss, log.EpochEntry, log.HandOver, log.TakeOver)


class Shown:
    """The organizer's side. Owned by its chair."""

    def __init__(self, chair: "Chair") -> None:
        self._chair = chair
        self._key = b""  # empty: the next reader gets another snapshot
        self._epoch = Epoch(0)
        self._since = 0.0
        self._first = 0  # counter of the snapshot's first packet
        self._snapshot_size = 0
        self._sequels = 0
        self._sequel_size = 0
        self._unsaid: list[bytes] = []  # entries that nobody has been shown
        self._start: dict[tuple[int, int], int] = {}  # participant, channel: the counter that has been shown
        self._hash = _shown()

    def note(self, signed: SignedEntry) -> None:
        """An entry has been written."""
        if isinstance(signed.entry.fields, _ENDS_THE_KEY):
            self.begin_anew()
        elif self._key:
            self._unsaid.append(signed.wire)
            self._sequel_size += len(signed.body)
            if self._sequel_size > self._snapshot_size:
                self.begin_anew()  # outgrown; what nobody asks for is not kept

    def begin_anew(self) -> None:
        """What has been shown is not continued: its key is known to who must not read on, or no relay may have it any more."""
        self._key = b""
        self._unsaid.clear()
        self._chair.keyring.drop_roster()

    def now(self, now: float, renew_after: float = RENEW_AFTER) -> Roster:
        """Have the log up to here in the stream; what a reader must be told to find it. `renew_after`: seconds for which a snapshot serves."""
        if not self._key or self._sequels >= MAX_SEQUELS or now - self._since >= renew_after:
            self._begin(now)
        else:
            moved = self._moved()
            if self._unsaid or moved:
                self._say(LogSequel(self._unsaid, moved))
                self._sequels += 1
                self._unsaid = []
        channels = self._chair.member.channels
        last = channels.last(Channel.ROSTER)
        return Roster(self._epoch, self._key, self._first, last, self._hash.digest(), channels.last(Channel.LOG))

    def _begin(self, now: float) -> None:
        chair = self._chair
        self._key, self._epoch, self._since = new_group_key(), chair.state.epoch, now
        chair.keyring.set_roster(self._epoch, self._key)
        self._first = chair.member.channels.last(Channel.ROSTER) + 1
        self._sequels = self._sequel_size = 0
        self._unsaid, self._start, self._hash = [], {}, _shown()
        self._snapshot_size = self._say(chair.snapshot(self._moved()))

    def _moved(self) -> Cuts:
        """The counters of members' public reliable streams that have not been shown."""
        moved = [cut for cut in self._chair.all_cuts(CUT_CHANNELS) if self._start.get(cut[:2]) != cut[2]]
        self._start.update(((participant, channel), counter) for participant, channel, counter in moved)
        return moved

    def _say(self, message: LogSnapshot | LogSequel) -> int:
        content = encode(message)
        _hear(self._hash, content)
        self._chair.out.extend(self._chair.member.channels.seal(Channel.ROSTER, content))
        return len(content)


def _shown() -> "HASH":
    return sha256(framed(LABEL_SHOWN))


def _hear(shown: "HASH", content: bytes) -> None:
    """One message more: framed() of the whole list, continued."""
    shown.update(len(content).to_bytes(4, "big") + content)


@dataclass(slots=True)
class Reading:
    """What a reader has of the stream since a `Roster` named it."""

    session: SessionId
    meeting_key: bytes
    organizer: ParticipantId
    signing_key: bytes  # of the organizer, as the handshake has proved it, or the log says
    place: Roster
    heard_at: float  # when it was named, or has last moved on: a long one takes its time on a slow line
    state: State | None = None
    start: dict[Stream, int] = field(default_factory=dict)
    broken: bool = False  # it has shown something that nobody can follow
    _last: bytes = b""  # the last entry, as it was said
    _hash: "HASH" = field(default_factory=_shown)

    @property
    def stream(self) -> Stream:
        return Stream(self.organizer, EVERYONE, Channel.ROSTER)

    def take_untrusted(self, content: bytes, counter: int) -> State | None:
        """One message, and the counter of its last packet. The state, when it is complete.

        Raises MalformedContent, MalformedEntry, ForgedEntry, BrokenChain, IllegalEntry: then nothing that follows is read.
        """
        if self.broken:
            return None
        self.broken = True
        state = self._take_untrusted(content, counter)
        self.broken = False
        return state

    def _take_untrusted(self, content: bytes, counter: int) -> State | None:
        _hear(self._hash, content)
        message = parse_roster_untrusted(content)
        if isinstance(message, LogSnapshot):
            self._begin(message)
        elif self.state is None:
            raise MalformedContent("entries before the snapshot that they continue")
        else:
            for wire in message.entries:
                self._follow(self.state, wire)
            self._go_on(message.start)
        return self._complete() if counter >= self.place.last else None

    def _begin(self, message: LogSnapshot) -> None:
        if self.state is not None:
            raise MalformedContent("a second snapshot")
        try:
            verify(self.signing_key, message.signature, LABEL_SNAPSHOT, self.session.to_bytes(8, "big"), message.state, message.start)
        except CryptoError:
            raise ForgedEntry from None
        try:
            snapshot = decode_snapshot(message.state)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            raise MalformedEntry from None
        self._go_on(parse_cuts_untrusted(message.start))
        state = State.from_snapshot(self.session, self.meeting_key, snapshot)
        if state.organizer_key != self.signing_key or state.organizer != self.organizer:
            raise MalformedEntry("the snapshot of another organizer")
        self.state = state

    def _go_on(self, start: Cuts) -> None:
        self.start |= {Stream(ParticipantId(p), EVERYONE, c): counter for p, c, counter in start}

    def _follow(self, state: State, wire: bytes) -> None:
        said = log.peek_untrusted(wire)
        if not isinstance(said, log.Entry) or isinstance(said.fields, _ENDS_THE_KEY):
            raise MalformedEntry("not an entry that is shown")
        state.apply(SignedEntry(said, wire[1 + log.SIGNATURE_SIZE :], wire[1 : 1 + log.SIGNATURE_SIZE]))
        self._last = wire

    def _complete(self) -> State:
        state = self.state
        if state is None or self._hash.digest() != self.place.digest:
            raise ForgedEntry("not what the organizer shows")
        if self._last:
            log.read_entry_untrusted(self._last, self.signing_key)
        self.start[Stream(self.organizer, EVERYONE, Channel.LOG)] = self.place.log_counter
        return state
