"""The organizer: a member that writes the log, admits guests and changes keys. Sans-IO.

    guest's message 1 ─cheap checks─▶ job: message 2 ──▶ message 3 ─job: judge─▶ message 4 ─▶ waiting for the next batch
    batch: `admit` under the old epoch ─▶ ratchet ─▶ group key and snapshot to each newcomer on channel 0

    leave, dismissal, an hour: the entry works at once ─▶ a fresh group key to each remaining member on channel 0
                               ─▶ when the relay has taken them all: `epoch`, under the old epoch, commits

While a key change is under way no batch is admitted and leaves wait for the next change; a dismissal wraps the same epoch anew for those
who remain, and the entry's digest chooses.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from crypto.errors import CryptoError
from crypto.schedule import group_key_digest, new_group_key
from crypto.signing import ExchangeKey, SigningKey
from crypto.srp import Verifier
from crypto.suite import LABEL_SNAPSHOT
from endpoint import events, log
from endpoint.errors import IllegalEntry, JoinBusy, MalformedHandshake, NotAllowed, TurnedAway, WrongSecret
from endpoint.handshake import TRIES, HostSide, check_hello, clear_packet, place
from endpoint.job import Job
from endpoint.log import Cut, Cuts, Fields, Heartbeat, SignedEntry, sign_entry, sign_heartbeat
from endpoint.member import Member
from endpoint.messages import (
    GroupKey,
    Hello1,
    KeyMessage,
    LogSnapshot,
    Refused4,
    Request,
    Resync,
    Started,
    Verb,
    encode,
    parse_handshake_untrusted,
)
from endpoint.text import clean_name, distinct_name
from endpoint.ticket import Ticket
from wire.control import MAX_ENTRIES, Admitted, Control, Office, Position, Presence, Revoke
from wire.have import HaveVector
from wire.ids import EVERYONE, FIRST_EPOCH, Channel, ParticipantId, Role, Stream, next_epoch
from wire.packet import MAX_CONTENT, RELIABLE_CHANNELS, PacketHeader

BATCH_EVERY: Final = 0.25
"""Seconds between admits: the first newcomer after a pause comes in at once, those behind it together."""
HEARTBEAT_EVERY: Final = 5.0
AWAY_FOR: Final = 120.0
"""Seconds without a link before a member counts as left."""
RESYNC_EVERY: Final = 5.0
"""Seconds between two snapshots for one member: each is as large as the roster."""
MAX_OPEN: Final = 256
"""Handshakes under way."""
MAX_COMPUTING: Final = 8
"""Handshakes in worker threads."""
HANDSHAKE_WITHIN: Final = 10.0
"""Seconds from message 1 to message 3."""
NEXT_TRY_AFTER: Final = 1.0
"""Seconds before one guest may begin another try: each costs us a modular power."""
MAX_TRY: Final = 1 << 32
MAX_IN_FLIGHT: Final = 64
"""Lines of a leaver that may arrive after its goodbye."""
MAX_REMEMBERED: Final = 20_000
"""Participants whose tries are counted."""
_PUBLIC_RELIABLE: Final = tuple(sorted(c for c in RELIABLE_CHANNELS if c in (Channel.LOG, Channel.CHAT, Channel.FILE)))


@dataclass(slots=True)
class _Handshake:
    side: HostSide
    since: float
    busy: bool = True  # a job has it


@dataclass(slots=True)
class _Rekey:
    """A key change under way."""

    epoch: int
    key: bytes = field(repr=False)
    untaken: dict[Stream, int]  # the wrapped keys that no relay has taken yet


class Organizer(Member):
    """Opens the session when constructed; `out` then holds its first entry."""

    def __init__(self, ticket: Ticket, key: SigningKey, verifier: Verifier, name: str, now: float) -> None:
        super().__init__(ticket.session, ticket.participant, key.public, key, ExchangeKey.generate())
        self.jobs: deque[Job] = deque()
        self.channels.limits[Channel.KEY] = MAX_CONTENT  # members ask in one packet: nothing larger is collected of each
        self._verifier = verifier
        self._handshakes: dict[ParticipantId, _Handshake] = {}
        self.judged = 0  # proofs that were checked, right or wrong
        self._computing = 0
        self._waiting_jobs: deque[Job] = deque()
        self._failures: dict[ParticipantId, int] = {}
        self._answers: dict[ParticipantId, _Handshake] = {}  # message 4 is repeated until `Started`
        self._newcomers: deque[HostSide] = deque()
        self._batch_at = now
        self._leavers: dict[ParticipantId, Cuts] = {}
        self._rekey: _Rekey | None = None
        self._beat_at = now + HEARTBEAT_EVERY
        self._beaten: dict[tuple[ParticipantId, int], int] = {}  # counters that the last heartbeats named
        self._absent_since: dict[ParticipantId, float] = {}
        self._resynced: dict[ParticipantId, float] = {}  # when each member got a snapshot again
        self.keyring.install(FIRST_EPOCH, new_group_key(), now)
        self.keyring.advance(FIRST_EPOCH, now)
        self.joined = True
        me = log.Member(self.me, Role.ORGANIZER, clean_name(name, "Organizer"), key.public, self.exchange.public)
        self._write(log.Open(self.session.to_bytes(8, "big"), key.public, me, FIRST_EPOCH), now)
        self.events.append(events.Joined())

    # the organizer's acts; each raises IllegalEntry if the rules do not allow it, NotAllowed after the end

    def appoint(self, participant: ParticipantId, now: float) -> None:
        """Who presents from here on; 0: nobody."""
        if participant != self.state.presenter:
            self._write(log.Presenter(participant), now)

    def allow_chat(self, participant: ParticipantId, allowed: bool, now: float) -> None:
        """Of one participant, or (0) of everybody without a setting of its own."""
        silenced = [participant] if participant else list(self.state.members)
        self._write(log.Chat(participant, allowed, [] if allowed else self._cuts(silenced, (Channel.CHAT,))), now)

    def lock(self, locked: bool, now: float) -> None:
        """Nobody else comes in while it is locked."""
        if locked != self.state.locked:
            self._write(log.Lock(locked), now)
            if locked:
                self._turn_away()

    def knock(self, required: bool, now: float) -> None:
        """Whether newcomers are turned away until this is taken back; a dismissal turns it on, since a new ticket is easily had."""
        if required != self.state.knock:
            self._write(log.Knock(required), now)
            if required:
                self._turn_away()

    def dismiss(self, participant: ParticipantId, now: float) -> None:
        """Gone at once, for everyone; the key changes."""
        self._write(log.Dismiss(participant, self._cuts([participant], (Channel.CHAT, Channel.FILE))), now)
        self.out.append(Revoke(participant))
        self._leavers.pop(participant, None)
        self._turn_away()
        self._change_key(now)

    def end(self, now: float) -> None:
        """The signed last entry. The session tells the relays `End` when they have taken it (`end_taken`)."""
        if self.state.ended:
            return
        self._write(log.End(), now)

    def greet(self) -> None:
        """A new link: say again what a relay must know and may have missed."""
        self.out.append(Office(self.me, list(self.state.successors)))
        members: list[int] = [member for member in self.state.members if member != self.me]
        for at in range(0, len(members), MAX_ENTRIES):
            self.out.append(Admitted(members[at : at + MAX_ENTRIES]))
        self.out.extend(Revoke(participant) for participant in self.state.departed)

    # packets

    def receive_clear_untrusted(self, header: PacketHeader, body: bytes, now: float) -> None:
        guest = header.sender
        attempt, number = place(header.counter)
        try:
            if attempt >= MAX_TRY:
                raise MalformedHandshake
            if number == 1:
                self._asked(guest, attempt, body, now)
            elif number == 3:
                self._proof(guest, attempt, body, now)
            else:
                raise MalformedHandshake
        except MalformedHandshake as error:
            self._drop(error, guest)
        except (JoinBusy, TurnedAway, WrongSecret) as error:
            self._refuse(guest, attempt, number + 1, error.name)

    def _asked(self, guest: ParticipantId, attempt: int, body: bytes, now: float) -> None:
        held = self._handshakes.get(guest)
        if held is not None and held.side.attempt == attempt:
            if held.side.message1 == body and held.side.message2:
                self._clear(guest, held.side, 2, held.side.message2)
            return
        if held is not None and (held.busy or now - held.since < NEXT_TRY_AFTER):
            self.dropped["handshake-hasty"] += 1
            return
        if guest in self.state.ever:
            raise MalformedHandshake("an admitted participant asks again")
        if self.state.ended or self.state.locked or self.state.knock:
            raise TurnedAway
        if self._failures.get(guest, 0) >= TRIES:
            raise WrongSecret
        if held is None and len(self._handshakes) >= MAX_OPEN:
            raise JoinBusy
        hello = parse_handshake_untrusted(body)
        if not isinstance(hello, Hello1) or (held is not None and attempt < held.side.attempt):
            raise MalformedHandshake
        check_hello(hello, self.session, guest)
        side = HostSide(self._verifier, self.signing, self.exchange, attempt, hello, body)
        self._handshakes[guest] = _Handshake(side, now)
        self._compute(Job(side.offer, lambda message2, then: self._offered(guest, side, message2), self._not_judged(guest, side)))

    def _offered(self, guest: ParticipantId, side: HostSide, message2: bytes) -> None:
        held = self._handshakes.get(guest)
        if held is not None and held.side is side:
            held.busy = False
            self._clear(guest, side, 2, message2)

    def _proof(self, guest: ParticipantId, attempt: int, body: bytes, now: float) -> None:
        answered = self._answers.get(guest)
        if answered is not None and answered.side.attempt == attempt and answered.side.message3 == body:
            self._clear(guest, answered.side, 4, answered.side.message4)
            return
        held = self._handshakes.get(guest)
        if held is None and guest in self._failures:
            raise WrongSecret  # said before, and lost on the way
        if held is None or held.side.attempt != attempt or held.busy or not held.side.message2:
            self.dropped["handshake-late"] += 1
            return
        held.busy = True
        self.judged += 1
        side = held.side
        self._compute(
            Job(lambda: side.judge(body), lambda message4, then: self._proved(guest, side, message4, then), self._not_judged(guest, side))
        )

    def _proved(self, guest: ParticipantId, side: HostSide, message4: bytes, now: float) -> None:
        held = self._handshakes.get(guest)
        if held is None or held.side is not side or self.state.ended:
            return
        del self._handshakes[guest]
        if guest in self.state.ever or any(other.hello.participant == guest for other in self._newcomers):
            return  # one participant ID is admitted once, whatever the manager says
        if self.state.locked or self.state.knock:  # since it asked
            self._refuse(guest, side.attempt, 4, TurnedAway.name)
            return
        self._answers[guest] = held
        held.since = now
        self._clear(guest, side, 4, message4)
        self._newcomers.append(side)
        self._admit_batch(now)

    def _not_judged(self, guest: ParticipantId, side: HostSide) -> Callable[[Exception, float], None]:
        def failed(error: Exception, now: float) -> None:
            held = self._handshakes.get(guest)
            if held is not None and held.side is side:
                del self._handshakes[guest]
            if isinstance(error, WrongSecret):
                if len(self._failures) >= MAX_REMEMBERED:
                    self._failures.pop(next(iter(self._failures)))
                self._failures[guest] = self._failures.get(guest, 0) + 1
                self._refuse(guest, side.attempt, 4, error.name)
                self.events.append(events.JoinRefused(guest, error.name))
            elif isinstance(error, MalformedHandshake | CryptoError):
                self._drop(error, guest)
            else:
                raise error

        return failed

    def _clear(self, guest: ParticipantId, side: HostSide, number: int, body: bytes) -> None:
        self.out.append(clear_packet(self.session, self.me, guest, number, side.attempt, body))

    def _refuse(self, guest: ParticipantId, attempt: int, number: int, reason: str) -> None:
        self.out.append(clear_packet(self.session, self.me, guest, number, attempt, encode(Refused4(reason))))

    def _compute(self, job: Job) -> None:
        """Hand a job to the threads, at most `MAX_COMPUTING` at once, first come first served."""

        def finished(then: float) -> None:
            self._computing -= 1
            if self._waiting_jobs:
                self._compute(self._waiting_jobs.popleft())

        def done(outcome: bytes, then: float) -> None:
            job.done(outcome, then)
            finished(then)

        def failed(error: Exception, then: float) -> None:
            job.failed(error, then)
            finished(then)

        if self._computing >= MAX_COMPUTING:
            self._waiting_jobs.append(job)  # bounded by MAX_OPEN
            return
        self._computing += 1
        self.jobs.append(Job(job.work, done, failed))

    # admission

    def _turn_away(self) -> None:
        """The door is closed now: whoever waits for the next batch has to come again."""
        for side in self._newcomers:
            guest = ParticipantId(side.hello.participant)
            self._answers.pop(guest, None)
            self._refuse(guest, side.attempt, 4, TurnedAway.name)
        self._newcomers.clear()

    def _admit_batch(self, now: float) -> None:
        if not self._newcomers or now < self._batch_at or self._rekey is not None or self.state.ended:
            return
        self._batch_at = now + BATCH_EVERY
        batch = [self._newcomers.popleft() for _ in range(min(len(self._newcomers), log.MAX_BATCH))]
        names = {member.name for member in self.state.members.values()}
        members = []
        for side in batch:
            name = distinct_name(side.name, names)
            names.add(name)
            members.append(log.Member(side.hello.participant, side.hello.role, name, side.hello.signing_key, side.hello.exchange_key))
        self._write(log.Admit(members, next_epoch(self.state.epoch)), now)
        self.out.append(Admitted([member.id for member in members]))
        snapshot = self._snapshot()
        for side in batch:
            guest = ParticipantId(side.hello.participant)
            self.keyring.set_key_channel(guest, side.kek)
            self._absent_since.pop(guest, None)
            self._say_key(guest, self._wrapped(self.state.epoch, self.keyring.group_key))
            self._say_key(guest, snapshot)

    def _snapshot(self) -> LogSnapshot:
        """State and start as they are now, for newcomers and for a resync."""
        state = encode(self.state.snapshot())
        start = encode(self._cuts(list(self.state.members), _PUBLIC_RELIABLE))
        return LogSnapshot(state, start, self.signing.sign(LABEL_SNAPSHOT, self.session.to_bytes(8, "big"), state, start))

    def _cuts(self, participants: list[ParticipantId], channels: tuple[int, ...]) -> Cuts:
        """The counters applied of their streams; streams that have not begun are left out."""
        cuts: list[Cut] = []
        for participant in participants:
            for channel in channels:
                counter = self._applied(participant, channel)
                if counter >= 0:
                    cuts.append((participant, channel, counter))
        return cuts

    def _applied(self, participant: ParticipantId, channel: int) -> int:
        if participant == self.me:
            return self.channels.last(channel)
        return self.channels.counter(Stream(participant, EVERYONE, channel))

    def _wrapped(self, epoch: int, key: bytes) -> GroupKey:
        return GroupKey(epoch, self.state.index, self.state.head, key)

    def _say_key(self, member: ParticipantId, message: KeyMessage) -> int:
        """One message on channel 0; the counter of its last packet."""
        self.out.extend(self.channels.seal(Channel.KEY, encode(message), member))
        return self.channels.last(Channel.KEY, member)

    # the log

    def _write(self, fields: Fields, now: float) -> SignedEntry:
        """Sign, send under the present epoch, apply. Raises IllegalEntry, MalformedEntry before anything has changed."""
        if self.state.ended:
            raise NotAllowed("The session has ended.")
        signed = sign_entry(self.signing, self.state.index + 1, self.state.head, self.channels.last(Channel.LOG) + 1, fields)
        problem = self.state.refuses(signed)
        if problem:
            raise IllegalEntry(problem)
        self.out.extend(self.channels.seal(Channel.LOG, signed.wire))
        self.apply(signed, now)
        return signed

    def _go_on(self, header: PacketHeader, now: float) -> bool:
        """Where the organizer goes on, the others follow."""
        self.channels.go_on(header.stream)
        return True

    def _key_message(self, sender: ParticipantId, message: KeyMessage, now: float) -> None:
        """On the organizer's channel 0 members ask."""
        if isinstance(message, Started):
            self._answers.pop(sender, None)
        elif sender not in self.state.members:
            raise NotAllowed("not a member")
        elif isinstance(message, Resync):
            if now - self._resynced.get(sender, -RESYNC_EVERY) < RESYNC_EVERY:
                self.dropped["resync-hasty"] += 1
                return
            self._resynced[sender] = now
            self._say_key(sender, self._wrapped(self.state.epoch, self.keyring.group_key))
            self._say_key(sender, self._snapshot())
        elif isinstance(message, Request):
            self._asked_for(sender, message, now)
        else:
            raise NotAllowed("only the organizer gives keys")

    def _asked_for(self, sender: ParticipantId, request: Request, now: float) -> None:
        verb = request.verb
        if verb == Verb.LEAVE:
            self._leavers[sender] = [cut for cut in request.cuts if cut[0] == sender][:4]
            self._let_go(now)
        elif verb == Verb.PRESENT and sender == self.state.presenter:
            target = ParticipantId(request.participant)
            if not target or target in self.state.members:
                self.appoint(target, now)
        elif verb in (Verb.ASK_PRESENT, Verb.ASK_CONTROL, Verb.RAISE_HAND):
            self.events.append(events.Wish(sender, self.name(sender), Verb(verb).name.lower().replace("_", "-")))
        else:
            raise NotAllowed("a wish that nobody serves")

    # keys

    def _let_go(self, now: float) -> None:
        """Write those off who left, and change the key; not while another change is under way."""
        present = {p: cuts for p, cuts in self._leavers.items() if p in self.state.members and p != self.me}
        if not present or self._rekey is not None or self.state.ended:
            return
        leavers = dict(islice(present.items(), log.MAX_BATCH))
        self._leavers = {p: cuts for p, cuts in present.items() if p not in leavers}
        cuts: Cuts = []
        for participant, claimed in leavers.items():
            applied: dict[int, int] = {channel: self._applied(participant, channel) for channel in (Channel.CHAT, Channel.FILE)}
            for _, channel, counter in claimed:
                if channel in applied:  # its last lines may still be on their way here, but not many
                    applied[channel] = min(max(applied[channel], counter), applied[channel] + MAX_IN_FLIGHT)
            cuts += [(participant, channel, counter) for channel, counter in applied.items() if counter >= 0]
        self._write(log.Leave(list(leavers), cuts), now)
        for participant in leavers:
            self._absent_since.pop(participant, None)
            self.out.append(Revoke(participant))
        self._change_key(now)

    def _change_key(self, now: float) -> None:
        epoch, key = next_epoch(self.state.epoch), new_group_key()
        untaken: dict[Stream, int] = {}
        self._rekey = _Rekey(epoch, key, untaken)
        self._keys[epoch] = [key]
        for member in self.state.members:
            if member != self.me:
                untaken[Stream(self.me, member, Channel.KEY)] = self._say_key(member, self._wrapped(epoch, key))
        self._commit(now)

    def taken(self, positions: list[Position], now: float) -> None:
        """The relay has our streams up to here."""
        if self._rekey is not None:
            has = HaveVector(positions)
            untaken = self._rekey.untaken
            for stream in [s for s, counter in untaken.items() if not has.lacks(s, counter)]:
                del untaken[stream]
            self._commit(now)

    def _commit(self, now: float) -> None:
        rekey = self._rekey
        if rekey is None or rekey.untaken or self.state.ended:
            return
        self._rekey = None
        self._write(log.EpochEntry(rekey.epoch, group_key_digest(rekey.key)), now)
        self._let_go(now)
        self._admit_batch(now)

    # time and presence

    def control(self, message: Control, now: float) -> None:
        """What the relay says beside packets."""
        if isinstance(message, Presence) and not self.state.ended:
            for participant in message.here:
                self._absent_since.pop(ParticipantId(participant), None)
            for participant in message.away:
                if participant in self.state.members and participant != self.me:
                    self._absent_since.setdefault(ParticipantId(participant), now)
            self._show_presence(now)

    def _show_presence(self, now: float) -> None:
        away = frozenset(self._absent_since) & self.state.members.keys()
        if away != self.away:
            self.away = away
            self.events.append(events.PresenceChanged(away))
            self._beat(now)

    def tick(self, now: float) -> None:
        super().tick(now)
        if self.state.ended:
            return
        for guest, held in list(self._handshakes.items()):
            if not held.busy and now - held.since >= HANDSHAKE_WITHIN:
                del self._handshakes[guest]
        for guest, answer in list(self._answers.items()):
            if now - answer.since >= AWAY_FOR:
                del self._answers[guest]
        for participant, since in list(self._absent_since.items()):
            if now - since >= AWAY_FOR and participant in self.state.members:
                self._leavers.setdefault(participant, [])
        self._let_go(now)
        if self.keyring.due(now) and self._rekey is None:
            self._change_key(now)
        self._admit_batch(now)
        if now >= self._beat_at:
            self._beat(now)

    def _beat(self, now: float) -> None:
        self._beat_at = now + HEARTBEAT_EVERY
        moved: Cuts = []
        for participant, channel, counter in self._cuts(list(self.state.members), (Channel.CHAT, Channel.FILE)):
            if self._beaten.get((ParticipantId(participant), channel)) != counter:
                self._beaten[ParticipantId(participant), channel] = counter
                moved.append((participant, channel, counter))
        counter = self.channels.last(Channel.LOG) + 1
        beat = Heartbeat(self.state.index, self.state.head, counter, self.wall_ms(), moved, sorted(self.away))
        self.out.extend(self.channels.seal(Channel.LOG, sign_heartbeat(self.signing, beat)))

    def batch_due(self) -> float | None:
        """When waiting newcomers can be admitted."""
        return self._batch_at if self._newcomers and self._rekey is None else None
