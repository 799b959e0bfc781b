"""Key changes, at the organizer. Sans-IO.

    leave, dismissal, a new organizer, an hour: a fresh group key to each remaining member on channel 0
                              ─▶ when the relay has taken them all: `epoch`, under the old epoch, commits

One change at a time. While it runs no batch is admitted, and leaves wait for the next one; a dismissal wraps the same epoch anew for those
who remain, and the entry's digest chooses.
"""

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from crypto.schedule import group_key_digest, new_group_key
from endpoint import log
from endpoint.log import Cuts
from endpoint.messages import GroupKey
from endpoint.rules import CUT_CHANNELS
from wire.control import Position, Revoke
from wire.have import HaveVector
from wire.ids import Channel, ParticipantId, Stream, next_epoch

if TYPE_CHECKING:
    from endpoint.chair import Chair

MAX_IN_FLIGHT: Final = 64
"""Lines of a leaver that may arrive after its goodbye."""


@dataclass(slots=True)
class _Change:
    epoch: int
    key: bytes = field(repr=False)
    untaken: dict[Stream, int]  # the wrapped keys that no relay has taken yet


class Rekeying:
    """Owned by the chair."""

    def __init__(self, chair: "Chair") -> None:
        self._chair = chair
        self._change: _Change | None = None
        self._leavers: dict[ParticipantId, Cuts] = {}  # with their last counters, as they say

    @property
    def under_way(self) -> bool:
        return self._change is not None

    def leaves(self, participant: ParticipantId, cuts: Cuts) -> None:
        """It said goodbye, or was away for too long: out with the next change."""
        self._leavers.setdefault(participant, cuts)

    def stays_out(self, participant: ParticipantId) -> None:
        """It is out already."""
        self._leavers.pop(participant, None)

    def let_go(self, now: float) -> None:
        """Write those off who left, and change the key; not while another change is under way."""
        chair, state = self._chair, self._chair.state
        present = {p: cuts for p, cuts in self._leavers.items() if p in state.members and p != chair.me}
        if not present or self._change is not None or state.ended:
            return
        leavers = dict(islice(present.items(), log.MAX_BATCH))
        self._leavers = {p: cuts for p, cuts in present.items() if p not in leavers}
        cuts: Cuts = []
        for participant, claimed in leavers.items():
            applied: dict[int, int] = {channel: chair.applied(participant, channel) for channel in CUT_CHANNELS}
            for _, channel, counter in claimed:
                if channel in applied:  # its last lines may still be on their way here, but not many
                    applied[channel] = min(max(applied[channel], counter), applied[channel] + MAX_IN_FLIGHT)
            cuts += [(participant, channel, counter) for channel, counter in applied.items() if counter >= 0]
        chair.write(log.Leave(list(leavers), cuts), now)
        for participant in leavers:
            chair.forget(participant)
            chair.out.append(Revoke(participant))
        self.change(now)

    def change(self, now: float) -> None:
        """A fresh key for everyone who is a member now."""
        chair = self._chair
        epoch, key = next_epoch(chair.state.epoch), new_group_key()
        untaken: dict[Stream, int] = {}
        wrapped = GroupKey(epoch, key)
        self._change = _Change(epoch, key, untaken)
        chair.member.keep_key(epoch, key)
        for member in chair.state.members:
            if member != chair.me:
                untaken[Stream(chair.me, member, Channel.KEY)] = chair.say_key(member, wrapped)
        self._commit(now)

    def taken(self, positions: list[Position], now: float) -> None:
        """The relay has our streams up to here."""
        if self._change is not None:
            has = HaveVector(positions)
            untaken = self._change.untaken
            for stream in [s for s, counter in untaken.items() if not has.lacks(s, counter)]:
                del untaken[stream]
            self._commit(now)

    def _commit(self, now: float) -> None:
        change = self._change
        if change is None or change.untaken or self._chair.state.ended:
            return
        self._change = None
        self._chair.write(log.EpochEntry(change.epoch, group_key_digest(change.key)), now)
        self._chair.key_changed(now)
        self.let_go(now)
