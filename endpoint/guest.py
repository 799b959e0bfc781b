"""A guest: joins by SRP with the organizer, then is a member. Sans-IO.

    PREPARING ─job─▶ ASKING (message 1) ──2──▶ PROVING ─job─▶ PROVEN (message 3) ──4──▶ KEYED ──group key, roster────▶ IN
                        ▲                                                                │ ▲
                        └──────────── another organizer, no answer for a while ◀─────────┘ WAITING to be let in

Messages 1 and 3 are repeated until they are answered: clear packets are not kept by relays, and the organizer may be away for a moment.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

from crypto.errors import CryptoError
from crypto.signing import ExchangeKey, SigningKey, fingerprint
from endpoint import events
from endpoint.errors import EndpointError, JoinBusy, JoinInterrupted, JoinTimeout, MalformedHandshake, TurnedAway, WrongOrganizer, WrongSecret
from endpoint.handshake import TRIES, GuestSide, clear_packet, place
from endpoint.job import Job
from endpoint.member import Member
from endpoint.messages import KeyMessage, Refused4, Started, Waiting, encode, parse_handshake_untrusted
from endpoint.roster import ASK_AGAIN
from endpoint.ticket import Ticket
from wire.control import Have
from wire.ids import EVERYONE, Channel, ParticipantId
from wire.packet import PacketHeader

REPEAT_EVERY: Final = 2.0
"""Seconds until an unanswered message goes out again."""
JOIN_WITHIN: Final = 30.0
"""Seconds from the first link to the roster's end, unless the guest has more patience."""


class Stage(Enum):
    PREPARING = "preparing"
    ASKING = "asking"
    PROVING = "proving"
    PROVEN = "proven"
    KEYED = "keyed"
    WAITING = "waiting"  # to be let in
    IN = "in"
    FAILED = "failed"


class Guest(Member):
    """`failure` says why a join ended; `stage` where it stands."""

    def __init__(self, ticket: Ticket, password: str, name: str, *, expected: str | None = None, patience: float = JOIN_WITHIN) -> None:
        """`expected`: the fingerprint F of the link; `patience`: seconds to get in. Raises WrongOrganizer if the ticket names another key."""
        super().__init__(ticket.session, ticket.participant, ticket.meeting_key, SigningKey.generate(), ExchangeKey.generate())
        if expected is not None and fingerprint(ticket.meeting_key) != expected:
            raise WrongOrganizer
        self.features = ticket.features
        self.stage = Stage.PREPARING
        self.failure: EndpointError | None = None
        self.patience = patience
        self._ticket = ticket
        self._password = password
        self._name = name
        self._office = EVERYONE
        self._try = -1
        self._let_in = False  # by an earlier organizer: then we may be a member already, whom nobody admits again under this ticket
        self._proofs = 0  # of all tries
        self._side = self._new_side()
        self._repeat: bytes | None = None  # the packet that waits for its answer
        self._repeat_at = 0.0
        self._give_up_at: float | None = None

    def _new_side(self) -> GuestSide:
        return GuestSide(
            self.session, self.me, self.state.meeting_key, self.signing, self.exchange, self._ticket.secret, self._password, self._name
        )

    def _office_named(self, now: float) -> None:
        self.office(self.relay_office, now)
        super()._office_named(now)

    def _key_message(self, sender: ParticipantId, message: KeyMessage, now: float) -> None:
        if isinstance(message, Waiting) and self._host and sender == self._host[0] and self.stage is Stage.KEYED:
            self.stage = Stage.WAITING
            self._repeat = None
            self.events.append(events.MustWait())
        else:
            super()._key_message(sender, message, now)

    def office(self, organizer: ParticipantId, now: float) -> None:
        """Whom to ask, by the relay's word; the handshake proves it. A changed one means that the try starts anew; we prove ourselves to no
        more than `TRIES` of them."""
        if self._give_up_at is None:
            self._give_up_at = now + self.patience
        if organizer in (EVERYONE, self.me, self._office) or self.stage in (Stage.IN, Stage.FAILED):
            return
        if self._reading is not None and now - self._reading.heard_at < ASK_AGAIN:
            return  # we are a member already, whom nobody admits again: the roster may still come, and `tick` looks again
        self._office = organizer
        self._give_up_at = now + self.patience if self.stage is Stage.WAITING else self._give_up_at
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._try += 1
        self._let_in = self._let_in or self._host is not None
        self._host = self._reading = None
        self._side = self._new_side()
        self._repeat = None
        self.stage = Stage.PREPARING
        side = self._side
        self.jobs.append(Job(side.begin, lambda body, then: self._sent(side, 1, body, Stage.ASKING, then), self._unable(side)))

    def _sent(self, side: GuestSide, number: int, body: bytes, stage: Stage, now: float) -> None:
        if side is not self._side or self.stage is Stage.FAILED:
            return  # a newer try has begun
        self.stage = stage
        self._repeat = clear_packet(self.session, self.me, self._office, number, self._try, body)
        self._repeat_at = now + REPEAT_EVERY
        self.out.append(self._repeat)

    def _unable(self, side: GuestSide) -> Callable[[Exception, float], None]:
        """What a job's failure means: nothing, if a newer try has begun."""
        return lambda error, now: self._failed(error, now) if side is self._side else None

    def _failed(self, error: Exception, now: float) -> None:
        if self.stage in (Stage.IN, Stage.FAILED):
            return
        if isinstance(error, CryptoError):
            error = MalformedHandshake(error.name)
        if not isinstance(error, EndpointError):
            raise error
        self.failure = error
        self.stage = Stage.FAILED
        self._repeat = None
        self.events.append(events.Removed(error.name, error.sentence))

    def receive_clear_untrusted(self, header: PacketHeader, body: bytes, now: float) -> None:
        if self.organizes:
            super().receive_clear_untrusted(header, body, now)
            return
        attempt, number = place(header.counter)
        if header.sender != self._office or attempt != self._try or self.joined:
            self.dropped["handshake-late"] += 1
            return
        side = self._side
        try:
            message = parse_handshake_untrusted(body)
            if isinstance(message, Refused4):
                self._refused(message.reason, now)
            elif number == 2 and self.stage is Stage.ASKING:
                self._proofs += 1
                if self._proofs > TRIES:  # whoever made message 2 can test one password with each: a relay may name organizers without end
                    raise JoinTimeout("too many have answered as the organizer")
                self.stage = Stage.PROVING
                self._repeat = None
                self.jobs.append(
                    Job(lambda: side.prove(body), lambda sent, then: self._sent(side, 3, sent, Stage.PROVEN, then), self._unable(side))
                )
            elif number == 4 and self.stage is Stage.PROVEN:
                kek = side.finish(body)
                assert side.offer is not None
                self.keyring.set_key_channel(header.sender, kek)
                self._host = (header.sender, side.offer.signing_key)
                self.stage = Stage.KEYED  # message 3 goes on until the log is here: message 4's answer may be lost behind it
                self._retry(now)  # what follows message 4 may have come before it
            else:
                self.dropped["handshake-late"] += 1
        except MalformedHandshake as error:
            self.drop(error)  # anybody on the way may have made it: it ends nothing
        except EndpointError as error:
            self._failed(error, now)

    def _refused(self, reason: str, now: float) -> None:
        """A hint that is not authentic. `join-busy` is tried again by itself."""
        if reason == WrongSecret.name:
            self._failed(WrongSecret(), now)
        elif reason == TurnedAway.name:
            self._failed(TurnedAway(), now)
        elif reason == JoinBusy.name:
            self._repeat_at = now + 2 * REPEAT_EVERY

    def tick(self, now: float) -> None:
        if self._reading is not None:
            self.office(self.relay_office, now)
        super().tick(now)
        if self.stage in (Stage.IN, Stage.FAILED):
            return
        if self.stage is not Stage.WAITING and self._give_up_at is not None and now >= self._give_up_at:
            self._failed(JoinInterrupted() if self._let_in else JoinTimeout(), now)
        elif self._repeat is not None and now >= self._repeat_at and self._linked:
            self._repeat_at = now + REPEAT_EVERY
            self.out.append(self._repeat)

    def _adopted(self, first: bool, now: float) -> None:
        """The log is here. A newcomer tells the relay where its streams start."""
        if not first:
            return
        self.stage = Stage.IN
        self._repeat = None
        self._password = ""
        self._host = None
        parts = self.have.parts()
        for number, part in enumerate(parts, 1):
            self.out.append(Have(part, more=number < len(parts)))
        self.out.extend(self.channels.seal(Channel.KEY, encode(Started()), self.state.organizer))
        self.events.append(events.Joined())
