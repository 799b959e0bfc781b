"""The organizer: a member that writes the log, admits guests and changes keys. Sans-IO.

    `endpoint.reception`: a guest's secret matched ─▶ waiting for the next batch
    batch: `admit` under the old epoch ─▶ ratchet ─▶ group key and snapshot to each newcomer on channel 0

    leave, dismissal, an hour: the entry works at once ─▶ a fresh group key to each remaining member on channel 0
                               ─▶ when the relay has taken them all: `epoch`, under the old epoch, commits

While a key change is under way no batch is admitted and leaves wait for the next change; a dismissal wraps the same epoch anew for those
who remain, and the entry's digest chooses.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from crypto.errors import CryptoError
from crypto.schedule import group_key_digest, new_group_key
from crypto.signing import ExchangeKey, SigningKey
from crypto.srp import Verifier
from crypto.suite import LABEL_SNAPSHOT
from endpoint import events, log
from endpoint.errors import IllegalEntry, MalformedHandshake, NotAllowed, TurnedAway, WrongSecret
from endpoint.handshake import HostSide
from endpoint.job import Job
from endpoint.log import Cut, Cuts, Fields, Heartbeat, SignedEntry, sign_entry, sign_heartbeat
from endpoint.member import Member
from endpoint.messages import (
    GroupKey,
    KeyMessage,
    LogSnapshot,
    Request,
    Resync,
    Started,
    Verb,
    encode,
)
from endpoint.reception import Reception
from endpoint.text import Crowd, clean_name
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
MAX_IN_FLIGHT: Final = 64
"""Lines of a leaver that may arrive after its goodbye."""
_PUBLIC_RELIABLE: Final = tuple(sorted(c for c in RELIABLE_CHANNELS if c in (Channel.LOG, Channel.CHAT, Channel.FILE)))


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
        self.reception = Reception(self.session, self.me, verifier, (key, self.exchange), self, self.out.append, self.dropped)
        self.channels.limits[Channel.KEY] = MAX_CONTENT  # members ask in one packet: nothing larger is collected of each
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

    @property
    def jobs(self) -> deque[Job]:
        """Costly steps of handshakes, for threads."""
        return self.reception.jobs

    # the organizer's acts; each raises IllegalEntry if the rules do not allow it, NotAllowed after the end

    def appoint(self, participant: ParticipantId, now: float) -> None:
        """Who presents from here on; 0: nobody."""
        if participant != self.state.presenter:
            self._write(log.Presenter(participant), now)

    def lend(self, participant: ParticipantId, now: float) -> None:
        """Who holds the presenter's mouse and keyboard from here on; 0: the presenter alone. The presenter's wish."""
        if participant or self.state.control:
            self._write(log.Control(participant), now)

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
        try:
            self.reception.receive_untrusted(header, body, now)
        except MalformedHandshake as error:
            self._drop(error, header.sender)

    # for `reception`

    def may_enter(self, guest: ParticipantId) -> None:
        if guest in self.state.ever or any(side.hello.participant == guest for side in self._newcomers):
            raise MalformedHandshake("an admitted participant asks again")
        if self.state.ended or self.state.locked or self.state.knock:
            raise TurnedAway

    def proved(self, guest: ParticipantId, side: HostSide, now: float) -> None:
        self._newcomers.append(side)
        self._admit_batch(now)

    def refused(self, guest: ParticipantId, error: MalformedHandshake | WrongSecret | CryptoError) -> None:
        if isinstance(error, WrongSecret):
            self.events.append(events.JoinRefused(guest, error.name))
        else:
            self._drop(error, guest)

    # admission

    def _turn_away(self) -> None:
        """The door is closed now: whoever waits for the next batch has to come again."""
        while self._newcomers:
            self.reception.turn_away(self._newcomers.popleft())

    def _admit_batch(self, now: float) -> None:
        if not self._newcomers or now < self._batch_at or self._rekey is not None or self.state.ended:
            return
        self._batch_at = now + BATCH_EVERY
        batch = [self._newcomers.popleft() for _ in range(min(len(self._newcomers), log.MAX_BATCH))]
        names = Crowd(member.name for member in self.state.members.values())
        members = []
        for side in batch:
            name = names.distinct(side.name)
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
            self.reception.started(sender)
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
        elif verb == Verb.CONTROL and sender == self.state.presenter:
            target = ParticipantId(request.participant)
            if not target or (target in self.state.members and target != sender):
                self.lend(target, now)
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
        self.reception.tick(now)
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
