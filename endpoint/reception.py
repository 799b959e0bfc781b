"""The organizer's door: handshakes under way, tries, answers that are repeated, and work for threads. Sans-IO.

    message 1 ─cheap checks─▶ message 2 ──▶ message 3 ─job: judge─▶ message 4, and the guest is `proved` to the organizer

Cheap checks come first, everything is bounded, and a failure costs its guest a try and nobody else anything. One participant ID is
admitted once, whatever the manager says, so whoever has been a member cannot ask again. Message 2 is made at once (a quarter of a
millisecond, from a table); a proof costs a modular power and goes to a thread, where it frees the interpreter for the others.
"""

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from crypto.errors import CryptoError
from crypto.signing import ExchangeKey, SigningKey
from crypto.srp import Verifier
from endpoint.errors import JoinBusy, MalformedHandshake, TurnedAway, WrongSecret
from endpoint.handshake import TRIES, HostSide, check_hello, clear_packet, place
from endpoint.job import Job
from endpoint.messages import Hello1, Refused4, encode, parse_handshake_untrusted
from wire.ids import ParticipantId, SessionId
from wire.packet import PacketHeader

MAX_OPEN: Final = 2_048
"""Handshakes under way, some 3 KB each: a full hall may arrive at once."""
MAX_COMPUTING: Final = 8
"""Proofs in worker threads."""
HANDSHAKE_WITHIN: Final = 30.0
"""Seconds from message 1 to message 3 for which a guest is sure of its place: as long as it tries. Behind that the oldest gives way when there
is no room. Guests whose machine is slow, or that are a thousand on one, need longer, and one that was forgotten would wait for nothing."""
ANSWER_FOR: Final = 120.0
"""Seconds that message 4 is repeated to a guest who has not said `Started`, and that an unanswered message 2 is remembered at most."""
NEXT_TRY_AFTER: Final = 1.0
"""Seconds before one guest may begin another try: each costs us a modular power."""
ANSWERED_WITHIN: Final = 1.0
"""Seconds for which the others' admission waits for one more answer."""
CROWD: Final = 8
"""Guests at the door: so many do not all fall silent."""
MAX_TRY: Final = 1 << 32
MAX_REMEMBERED: Final = 20_000
"""Participants whose tries are counted."""


class House(Protocol):
    """What the door needs of the organizer behind it."""

    def may_enter(self, guest: ParticipantId) -> None:
        """Raises MalformedHandshake (was a member already) or TurnedAway (the door is closed)."""

    def proved(self, guest: ParticipantId, side: HostSide, now: float) -> None:
        """The secret matched and message 4 is said: admit it with the next batch."""

    def refused(self, guest: ParticipantId, error: MalformedHandshake | WrongSecret | CryptoError) -> None:
        """Its handshake ended."""


@dataclass(slots=True)
class _Handshake:
    side: HostSide
    since: float
    busy: bool = False  # a job has it


class Reception:
    """Owned by the organizer; `jobs` is taken by whoever runs threads."""

    def __init__(
        self,
        session: SessionId,
        me: ParticipantId,
        verifier: Verifier,
        keys: tuple[SigningKey, ExchangeKey],
        house: House,
        say: Callable[[bytes], None],
        dropped: Counter[str],
        chain: list[bytes] | None = None,
    ) -> None:
        """`say` takes clear packets, `dropped` counts by name; `chain` leads from the meeting key to ours."""
        self._chain = chain or []
        self.jobs: deque[Job] = deque()
        self.judged = 0  # proofs that were checked, right or wrong
        self._session = session
        self._me = me
        self._verifier = verifier
        self._keys = keys
        self._house = house
        self._say = say
        self._dropped = dropped
        self._open: dict[ParticipantId, _Handshake] = {}
        self._computing = 0
        self._waiting: deque[Job] = deque()
        self._heard_at = -math.inf  # when a handshake has last moved on
        self._failures: dict[ParticipantId, int] = {}
        self._answers: dict[ParticipantId, _Handshake] = {}

    def receive_untrusted(self, header: PacketHeader, body: bytes, now: float) -> None:
        """A clear packet. Raises MalformedHandshake; every other refusal goes to the guest."""
        guest = header.sender
        attempt, number = place(header.counter)
        if attempt >= MAX_TRY:
            raise MalformedHandshake
        try:
            if number == 1:
                self._asked(guest, attempt, body, now)
            elif number == 3:
                self._proof(guest, attempt, body)
            else:
                raise MalformedHandshake
        except (JoinBusy, TurnedAway, WrongSecret) as error:
            self._refuse(guest, attempt, number + 1, error.name)

    def change_verifier(self, verifier: Verifier) -> None:
        """The password is another one from now on: whoever is under way with the former one has to begin anew, with its tries back."""
        self._verifier = verifier
        self._failures.clear()
        for guest, held in list(self._open.items()):
            del self._open[guest]
            self._refuse(guest, held.side.attempt, 4, WrongSecret.name)

    @property
    def busy_until(self) -> float:
        """Until when the guests whose handshakes are under way may be ready. For one that says nothing any more nobody waits; a crowd is given
        time as long as any of it is heard."""
        if self._computing:
            return math.inf
        if not self._open:
            return -math.inf
        newest = next(reversed(self._open.values())).since
        return ANSWERED_WITHIN + (max(newest, self._heard_at) if len(self._open) >= CROWD else newest)

    def started(self, guest: ParticipantId) -> None:
        """It is in: message 4 need not be repeated any more."""
        self._answers.pop(guest, None)

    def turn_away(self, side: HostSide) -> None:
        """The door was closed before it could be admitted: it has to come again."""
        guest = ParticipantId(side.hello.participant)
        self._answers.pop(guest, None)
        self._refuse(guest, side.attempt, 4, TurnedAway.name)

    def tick(self, now: float) -> None:
        """Forget who takes too long."""
        for guest, held in list(self._open.items()):
            if not held.busy and now - held.since >= ANSWER_FOR:
                del self._open[guest]
        for guest, answer in list(self._answers.items()):
            if now - answer.since >= ANSWER_FOR:
                del self._answers[guest]

    def _asked(self, guest: ParticipantId, attempt: int, body: bytes, now: float) -> None:
        held = self._open.get(guest)
        if held is not None and held.side.attempt == attempt:
            if held.side.message1 == body:
                self._clear(guest, held.side, 2, held.side.message2)
            return
        if held is not None and (held.busy or now - held.since < NEXT_TRY_AFTER):
            self._dropped["handshake-hasty"] += 1
            return
        self._house.may_enter(guest)
        if self._failures.get(guest, 0) >= TRIES:
            raise WrongSecret
        if held is None and len(self._open) >= MAX_OPEN:
            self._make_room(now)
        hello = parse_handshake_untrusted(body)
        if not isinstance(hello, Hello1) or (held is not None and attempt < held.side.attempt):
            raise MalformedHandshake
        check_hello(hello, self._session, guest)
        side = HostSide(self._verifier, *self._keys, attempt, hello, body, self._chain)
        self._open[guest] = _Handshake(side, now)
        self._heard_at = now
        self._clear(guest, side, 2, side.offer())

    def _make_room(self, now: float) -> None:
        """Forget the oldest handshake that is not sure of its place any more. Raises JoinBusy."""
        for guest, held in self._open.items():
            if not held.busy and now - held.since >= HANDSHAKE_WITHIN:
                del self._open[guest]
                return
        raise JoinBusy

    def _proof(self, guest: ParticipantId, attempt: int, body: bytes) -> None:
        answered = self._answers.get(guest)
        if answered is not None and answered.side.attempt == attempt and answered.side.message3 == body:
            self._clear(guest, answered.side, 4, answered.side.message4)
            return
        held = self._open.get(guest)
        if held is None and guest in self._failures:
            raise WrongSecret  # said before, and lost on the way
        if held is None or held.side.attempt != attempt or held.busy:
            self._dropped["handshake-late"] += 1
            return
        held.busy = True
        self.judged += 1
        side = held.side
        self._compute(
            Job(lambda: side.judge(body), lambda message4, then: self._proved(guest, side, message4, then), self._failed(guest, side))
        )

    def _proved(self, guest: ParticipantId, side: HostSide, message4: bytes, now: float) -> None:
        held = self._open.get(guest)
        if held is None or held.side is not side:
            return
        del self._open[guest]
        self._heard_at = now
        try:
            self._house.may_enter(guest)  # much may have happened since it asked
        except TurnedAway as error:
            self._refuse(guest, side.attempt, 4, error.name)
            return
        except MalformedHandshake:
            return
        held.since = now
        self._answers[guest] = held
        self._clear(guest, side, 4, message4)
        self._house.proved(guest, side, now)

    def _failed(self, guest: ParticipantId, side: HostSide) -> Callable[[Exception, float], None]:
        def failed(error: Exception, now: float) -> None:
            held = self._open.get(guest)
            if held is not None and held.side is side:
                del self._open[guest]
            if not isinstance(error, WrongSecret | MalformedHandshake | CryptoError):
                raise error
            if isinstance(error, WrongSecret):
                if len(self._failures) >= MAX_REMEMBERED:
                    self._failures.pop(next(iter(self._failures)))
                self._failures[guest] = self._failures.get(guest, 0) + 1
                self._refuse(guest, side.attempt, 4, error.name)
            self._house.refused(guest, error)

        return failed

    def _clear(self, guest: ParticipantId, side: HostSide, number: int, body: bytes) -> None:
        self._say(clear_packet(self._session, self._me, guest, number, side.attempt, body))

    def _refuse(self, guest: ParticipantId, attempt: int, number: int, reason: str) -> None:
        self._say(clear_packet(self._session, self._me, guest, number, attempt, encode(Refused4(reason))))

    def _compute(self, job: Job) -> None:
        """Hand a job to the threads, at most `MAX_COMPUTING` at once, first come first served."""

        def finished() -> None:
            self._computing -= 1
            if self._waiting:
                self._compute(self._waiting.popleft())

        def done(outcome: bytes, then: float) -> None:
            finished()
            job.done(outcome, then)

        def failed(error: Exception, then: float) -> None:
            finished()
            job.failed(error, then)

        if self._computing >= MAX_COMPUTING:
            self._waiting.append(job)  # bounded by MAX_OPEN
            return
        self._computing += 1
        self.jobs.append(Job(job.work, done, failed))
