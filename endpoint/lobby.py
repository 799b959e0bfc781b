"""The organizer's hall between the door (`endpoint.reception`) and the session: who is admitted next, and who waits to be let in. Sans-IO.

    a guest's secret matched ─▶ (knocking is on: it waits until the organizer's person lets it in) ─▶ the next batch
    batch: `admit` under the old epoch ─▶ ratchet ─▶ group key to each newcomer on channel 0, and where the log can be read

After a dismissal knocking is on: a new ticket is easily had, and whoever was dismissed knows the password. It ends when the organizer
changes the password, or says so.
"""

from typing import TYPE_CHECKING, Final

from crypto.errors import CryptoError
from crypto.srp import Verifier
from endpoint import events, log
from endpoint.errors import IllegalEntry, JoinBusy, MalformedHandshake, TurnedAway, WrongSecret
from endpoint.handshake import HostSide
from endpoint.log import Member
from endpoint.messages import GroupKey, Waiting, encode
from endpoint.reception import Reception
from endpoint.text import Crowd
from wire.control import Admitted
from wire.ids import ParticipantId, next_epoch

if TYPE_CHECKING:
    from endpoint.chair import Chair

BATCH_EVERY: Final = 0.25
"""Seconds between admits: the first newcomer after a pause comes in at once, those behind it together."""
GATHER: Final = 1.75
"""Seconds more while others are at the door and answer: each admit costs every member a signature and a key, so a full hall comes in by few
of them."""
MAX_WAITING: Final = 256
"""Guests who wait to be let in; more are told to come again."""


class Lobby:
    """Owned by the chair. The `House` behind the reception."""

    def __init__(self, chair: "Chair", verifier: Verifier, chain: list[bytes], now: float) -> None:
        self._chair = chair
        member = chair.member
        self.reception = Reception(
            member.session, member.me, verifier, (member.signing, member.exchange), self, member.out.append, member.dropped, chain
        )
        self.waiting: dict[ParticipantId, HostSide] = {}  # until the organizer's person decides
        self._newcomers: dict[ParticipantId, HostSide] = {}
        self._batch_at = now
        self._names: Crowd | None = None  # of all members, until one of them is gone or is called otherwise

    def names_changed(self) -> None:
        self._names = None

    @property
    def batch_due(self) -> float | None:
        """When newcomers can be admitted."""
        if not self._newcomers or self._chair.rekeying.under_way:
            return None
        return max(self._batch_at, min(self._batch_at + GATHER, self.reception.busy_until))

    # for the reception

    def may_enter(self, guest: ParticipantId) -> None:
        state = self._chair.state
        if not self._chair.current:
            raise MalformedHandshake("the chair has passed while its proof was checked: it asks the next one")
        if guest in state.ever or guest in self._newcomers or guest in self.waiting:
            raise MalformedHandshake("an admitted participant asks again")
        if state.ended or state.locked:
            raise TurnedAway
        if state.knock and len(self.waiting) >= MAX_WAITING:
            raise JoinBusy

    def proved(self, guest: ParticipantId, side: HostSide, now: float) -> None:
        if self._chair.state.knock:
            self._knocks(guest, side)
        else:
            self._newcomers[guest] = side
            self.admit(now)

    def refused(self, guest: ParticipantId, error: MalformedHandshake | WrongSecret | CryptoError) -> None:
        if isinstance(error, WrongSecret):
            self._chair.events.append(events.JoinRefused(guest, error.name))
        else:
            self._chair.member.drop(error, guest)

    # what the organizer's person decides

    def let_in(self, guest: ParticipantId, now: float) -> None:
        """Raises IllegalEntry if nobody of that ID waits."""
        side = self.waiting.pop(guest, None)
        if side is None:
            raise IllegalEntry("nobody of that name waits")
        self._newcomers[guest] = side
        self.admit(now)

    def let_all_in(self, now: float) -> None:
        """Knocking ends: who waits has proved the secret."""
        self._newcomers |= self.waiting
        self.waiting.clear()
        self.admit(now)

    def turn_away(self, guest: ParticipantId, now: float) -> None:
        """Raises IllegalEntry if nobody of that ID waits."""
        side = self.waiting.pop(guest, None)
        if side is None:
            raise IllegalEntry("nobody of that name waits")
        self._chair.keyring.drop_peer(guest, now, 0.0)
        self.reception.turn_away(side)

    def gone(self, guest: ParticipantId, now: float) -> None:
        """Whoever waited has no link any more."""
        if self.waiting.pop(guest, None) is not None:
            self._chair.keyring.drop_peer(guest, now, 0.0)
            self._chair.events.append(events.KnockEnded(guest))

    def close(self, now: float) -> None:
        """The door is closed: whoever is on the way has to come again."""
        for side in self._newcomers.values():
            self.reception.turn_away(side)
        self._newcomers.clear()
        for guest in list(self.waiting):
            self.turn_away(guest, now)

    def hold(self) -> None:
        """Knocking is on: whoever is on the way waits."""
        held, self._newcomers = self._newcomers, {}
        for guest, side in held.items():
            self._knocks(guest, side)

    def _knocks(self, guest: ParticipantId, side: HostSide) -> None:
        self.waiting[guest] = side
        self._chair.keyring.set_key_channel(guest, side.kek)
        self._chair.say_key(guest, Waiting())
        self._chair.events.append(events.Knocked(guest, side.name))

    # admission

    def admit(self, now: float) -> None:
        """The next batch, if it is time."""
        chair, state = self._chair, self._chair.state
        due = self.batch_due
        if due is None or now < due or state.ended:
            return
        self._batch_at = now + BATCH_EVERY
        batch = [self._newcomers.pop(guest) for guest in list(self._newcomers)[: log.MAX_BATCH]]
        names = self._names = self._names or Crowd(member.name for member in state.members.values())
        members: list[Member] = []
        for side in batch:
            name = names.distinct(side.name)
            members.append(Member(side.hello.participant, side.hello.role, name, side.hello.signing_key, side.hello.exchange_key))
        chair.write(log.Admit(members, next_epoch(state.epoch)), now)
        chair.out.append(Admitted([member.id for member in members]))
        key, roster = encode(GroupKey(state.epoch, chair.keyring.group_key)), encode(chair.roster.now(now))  # the same for all of them
        for side in batch:
            guest = ParticipantId(side.hello.participant)
            chair.keyring.set_key_channel(guest, side.kek)
            chair.forget(guest)
            chair.say_encoded(guest, key)
            chair.say_encoded(guest, roster)
