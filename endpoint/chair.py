"""The chair: what the organizer's endpoint does besides being a member. It writes the log, admits guests and changes keys. Sans-IO.

    a person's act, a member's request, time ─▶ `write`: sign, journal, send under the present epoch, apply
    guests ─▶ `endpoint.lobby` ─▶ admit        leavers, dismissals ─▶ `endpoint.rekey` ─▶ epoch

A member holds at most one (`Member.chair`), as long as the log names it: from its opening, from a hand-over to it or its take-over, until
the log names another. Whoever sits down anew issues a fresh group key; its channel 0 runs under the pairs' keys.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from crypto.keyring import Keyring
from crypto.srp import Verifier
from crypto.suite import LABEL_SNAPSHOT
from endpoint import events, log
from endpoint.errors import IllegalEntry, MalformedHandshake, NotAllowed
from endpoint.job import Job
from endpoint.journal import Journal, JournalError
from endpoint.lobby import Lobby
from endpoint.log import Cut, Cuts, Fields, Heartbeat, SignedEntry, sign_entry, sign_heartbeat
from endpoint.messages import (
    MAX_CHAIN,
    Accept,
    Asked,
    Estate,
    GroupKey,
    KeyMessage,
    LogSnapshot,
    Offer,
    Request,
    Resync,
    Started,
    Status,
    Succession,
    Verb,
    Yielded,
    encode,
)
from endpoint.rekey import Rekeying
from endpoint.roster import ASK_AGAIN, Shown
from endpoint.rules import CUT_CHANNELS
from endpoint.state import State
from endpoint.text import Crowd, clean_name
from wire.control import MAX_ENTRIES, Admitted, Control, Office, Position, Presence, Revoke
from wire.have import HaveVector
from wire.ids import EVERYONE, Channel, ParticipantId, Stream, next_epoch
from wire.packet import MAX_CONTENT, PacketHeader

if TYPE_CHECKING:
    from endpoint.member import Member

HEARTBEAT_EVERY: Final = 5.0
NEWS_EVERY: Final = 0.5
"""Seconds between two heartbeats that say who went away and who is back: every member checks a signature for each."""
AWAY_FOR: Final = 120.0
"""Seconds without a link before a member counts as left."""
RESYNC_EVERY: Final = 5.0
"""Seconds between two rosters for one member: each is read whole."""
REQUEST_EVERY: Final = 0.5
REQUESTS_AT_ONCE: Final = 20
"""Seconds between two requests of one member in the long run, and how many may come together: each may become an entry, for good."""


class Chair:
    """Owned by its member. The acts raise IllegalEntry if the rules do not allow them, NotAllowed after the end."""

    def __init__(self, member: "Member", verifier: Verifier, chain: list[bytes], now: float) -> None:
        self.member = member
        self.me = member.me
        self.chain = chain  # from the meeting key to ours, for newcomers
        self.verifier = verifier
        self.rtt: dict[ParticipantId, float] = {}  # seconds between each member and its relay, as it says
        self.rekeying = Rekeying(self)
        self.lobby = Lobby(self, verifier, chain, now)
        self.roster = Shown(self)
        self._said_at = now  # the last heartbeat
        self._news = False  # somebody went away, or came back, since
        self._beaten: dict[tuple[ParticipantId, int], int] = {}  # counters that the last heartbeats named
        self._absent_since: dict[ParticipantId, float] = dict.fromkeys(member.away, now)
        self._resynced: dict[ParticipantId, float] = {}  # when each member got the roster again
        self._busy_until: dict[ParticipantId, float] = {}  # with the requests of each member, `REQUEST_EVERY` a piece
        self._ask_again: list[ParticipantId] = []  # who asked for the roster while there was no key to give
        self._heir: ParticipantId | None = None  # who was offered the chair
        self._owed: deque[tuple[int, bytes]] = deque()  # counter and packet of channel 1 that no relay has taken; for the journal alone
        member.channels.limits[Channel.KEY] = MAX_CONTENT  # members ask in one packet: nothing larger is collected of each

    @property
    def current(self) -> bool:
        """Whether the log still names us. What a thread was busy with may come back to a chair that has passed."""
        return self.member.organizes and self.member.chair is self

    @property
    def state(self) -> State:
        return self.member.state

    @property
    def out(self) -> deque[bytes | Control]:
        return self.member.out

    @property
    def events(self) -> deque[events.Event]:
        return self.member.events

    @property
    def keyring(self) -> Keyring:
        return self.member.keyring

    @property
    def jobs(self) -> deque[Job]:
        """Costly steps of handshakes, for threads."""
        return self.lobby.reception.jobs

    def sit_down(self, now: float) -> None:
        """The log names us: everyone gets a fresh key, under the pairs' keys, and successors what they need from us."""
        for member in list(self.state.members):
            if member != self.me:
                self.member.pair_key_channel(member)
                self._absent_since.setdefault(member, now)  # until the relay says who is here
        self.rekeying.change(now)
        if self.state.successors:
            self.name_successors(list(self.state.successors), now)
        self._beat(now)

    # the organizer's acts

    def appoint(self, participant: ParticipantId, now: float) -> None:
        """Who presents from here on; 0: nobody."""
        if participant != self.state.presenter:
            self.write(log.Presenter(participant), now)

    def lend(self, participant: ParticipantId, now: float) -> None:
        """Who holds the presenter's mouse and keyboard from here on; 0: the presenter alone. The presenter's wish."""
        if participant or self.state.control:
            self.write(log.Control(participant), now)

    def allow_chat(self, participant: ParticipantId, allowed: bool, now: float) -> None:
        """Of one participant, or (0) of everybody without a setting of its own."""
        silenced = [participant] if participant else list(self.state.members)
        self.write(log.Chat(participant, allowed, [] if allowed else self.cuts(silenced, (Channel.CHAT,))), now)

    def lock(self, locked: bool, now: float) -> None:
        """Nobody else comes in while it is locked."""
        if locked != self.state.locked:
            self.write(log.Lock(locked), now)
            if locked:
                self.lobby.close(now)

    def knock(self, required: bool, now: float) -> None:
        """Whether newcomers wait to be let in one by one. Who waits when it ends comes in."""
        if required != self.state.knock:
            self.write(log.Knock(required), now)
            if required:
                self.lobby.hold()
            else:
                self.lobby.let_all_in(now)

    def let_in(self, guest: ParticipantId, now: float) -> None:
        self.lobby.let_in(guest, now)

    def turn_away(self, guest: ParticipantId, now: float) -> None:
        self.lobby.turn_away(guest, now)

    def change_password(self, verifier: Verifier, now: float) -> None:
        """Newcomers need the new one from now on: whoever was dismissed does not know it, so knocking ends. Who waits has to come again."""
        self.verifier = verifier
        self.lobby.reception.change_verifier(verifier)
        self._keep(lambda journal: journal.verifier(verifier.to_bytes()))
        self.lobby.close(now)
        self.knock(False, now)
        self._inform_successors()

    def rename(self, participant: ParticipantId, name: str, now: float) -> None:
        """A name that nobody else has."""
        others = Crowd(member.name for member in self.state.members.values() if member.id != participant)
        self.write(log.Rename(participant, others.distinct(clean_name(name))), now)

    def dismiss(self, participant: ParticipantId, now: float) -> None:
        """Gone at once, for everyone; the key changes; from now on newcomers wait to be let in."""
        self.write(log.Dismiss(participant, self.cuts([participant], CUT_CHANNELS)), now)
        self.out.append(Revoke(participant))
        self.rekeying.stays_out(participant)
        self.forget(participant)
        self.lobby.hold()
        self.rekeying.change(now)

    def end(self, now: float) -> None:
        """The signed last entry. The session tells the relays `End` when they have taken it."""
        if self.state.ended:
            return
        self.write(log.End(), now)
        if self.member.journal is not None:
            self.member.journal.forget()

    # the chair's own way

    def hand_over(self, participant: ParticipantId, now: float) -> None:
        """Offer the chair; when the member accepts, it is the organizer, for good. Another offer takes this one back."""
        if participant == self.me or participant not in self.state.members:
            raise IllegalEntry("not another member")
        if len(self.chain) + 2 > MAX_CHAIN:
            raise NotAllowed("The chair has passed too often in this session; end it and open another one.")
        self._heir = participant
        self.say_key(participant, Estate(self.verifier.to_bytes(), self.chain))
        self._offer()

    def take_back_offer(self) -> None:
        self._heir = None

    def _offer(self) -> None:
        assert self._heir is not None
        self.say_key(self._heir, Offer(self.state.head, next_epoch(self.state.epoch)))

    def _accepted(self, sender: ParticipantId, accept: Accept, now: float) -> None:
        if sender != self._heir:
            raise NotAllowed("nothing was offered")
        if accept.previous != self.state.head:
            self._offer()  # the log has moved meanwhile
            return
        heir = self.state.members[sender]
        epoch = next_epoch(self.state.epoch)
        self.write(log.HandOver(sender, heir.signing_key, heir.exchange_key, accept.signature, epoch), now)

    def name_successors(self, participants: list[ParticipantId], now: float) -> None:
        """Who may take over after 60 s without us. Each gets what it needs for that, sealed."""
        known: list[tuple[int, bytes]] = [(i, self.state.members[i].signing_key) for i in participants if i in self.state.members]
        if len(known) != len(participants):
            raise IllegalEntry("not a member")
        entry = self.write(log.Successors(known), now)
        self._named = entry.wire
        self._inform_successors()
        self.out.append(Office(self.me, list(self.state.successors)))

    _named = b""  # the `successors` entry

    def _inform_successors(self) -> None:
        if self._named:
            for successor in self.state.successors:
                self.say_key(successor, Estate(self.verifier.to_bytes(), [*self.chain, self._named]))

    # links

    def greet(self) -> None:
        """A new link: say again what a relay must know and may have missed."""
        self.roster.begin_anew()  # no relay may have it any more
        self.out.append(Office(self.me, list(self.state.successors)))
        members: list[int] = [member for member in self.state.members if member != self.me]
        for at in range(0, len(members), MAX_ENTRIES):
            self.out.append(Admitted(members[at : at + MAX_ENTRIES]))
        self.out.extend(Revoke(participant) for participant in self.state.departed)

    def receive_clear_untrusted(self, header: PacketHeader, body: bytes, now: float) -> None:
        try:
            self.lobby.reception.receive_untrusted(header, body, now)
        except MalformedHandshake as error:
            self.member.drop(error, header.sender)

    # what all parts of the chair use

    def write(self, fields: Fields, now: float) -> SignedEntry:
        """Sign, send under the present epoch, apply. Raises IllegalEntry, MalformedEntry before anything has changed."""
        member, state = self.member, self.state
        if state.ended:
            raise NotAllowed("The session has ended.")
        if not self.current:
            raise NotAllowed("Somebody else organizes this session now.")
        needed = _feature(fields)
        if needed is not None and member.features is not None and needed not in member.features:
            raise NotAllowed(f"An administrator, or whoever scheduled this meeting, has turned {needed} off for it.")
        counter = member.channels.last(Channel.LOG) + 1
        signed = sign_entry(member.signing, state.index + 1, state.head, counter, fields)
        problem = state.refuses(signed)
        if problem:
            raise IllegalEntry(problem)
        packets = self._seal(signed.wire)
        member.apply(signed, now)
        if self.current and not state.ended:
            self._keep(lambda journal: journal.entry(signed.wire, self.keyring.current or 0, self.keyring.group_key))
        elif not state.ended:  # a hand-over: until a relay has it, it is nowhere else; and no relay takes it before what precedes it
            self._keep(lambda journal: journal.passed(state.organizer, [packet for _, packet in self._owed]))
        self.out.extend(packets)
        self.roster.note(signed)
        if not isinstance(fields, log.Admit):
            self.lobby.names_changed()
        return signed

    def _seal(self, content: bytes) -> list[bytes]:
        """The packets of an entry or a heartbeat."""
        channels = self.member.channels
        packets = channels.seal(Channel.LOG, content)
        if self.member.journal is not None:
            self._owed.extend(enumerate(packets, channels.last(Channel.LOG) + 1 - len(packets)))
        return packets

    def _keep(self, write: Callable[[Journal], None]) -> None:
        """On disk, before it is sent. A disk that takes nothing more ends the way back after a crash, not the session: an entry that was
        applied here and not sent would."""
        member = self.member
        if member.journal is None:
            return
        try:
            write(member.journal)
        except JournalError as error:
            member.journal.forget()
            member.journal = None
            member.drop(error)

    def snapshot(self, cuts: Cuts) -> LogSnapshot:
        """State and start as they are now."""
        state, start = encode(self.state.snapshot()), encode(cuts)
        return LogSnapshot(state, start, self.member.signing.sign(LABEL_SNAPSHOT, self.member.session.to_bytes(8, "big"), state, start))

    def cuts(self, participants: list[ParticipantId], channels: tuple[int, ...]) -> Cuts:
        """The counters applied of their streams; streams that have not begun are left out."""
        cuts: list[Cut] = []
        for participant in participants:
            for channel in channels:
                counter = self.applied(participant, channel)
                if counter >= 0:
                    cuts.append((participant, channel, counter))
        return cuts

    def all_cuts(self, channels: tuple[int, ...]) -> Cuts:
        """The same of every member: those who have spoken are few."""
        own = self.cuts([self.me], channels)
        begun = self.member.channels.begun(channels)
        return own + [(stream.sender, stream.channel, counter) for stream, counter in begun if stream.sender in self.state.members]

    def applied(self, participant: ParticipantId, channel: int) -> int:
        if participant == self.me:
            return self.member.channels.last(channel)
        return self.member.channels.counter(Stream(participant, EVERYONE, channel))

    def say_key(self, member: ParticipantId, message: KeyMessage) -> int:
        """One message on channel 0; the counter of its last packet."""
        return self.say_encoded(member, encode(message))

    def say_encoded(self, member: ParticipantId, message: bytes) -> int:
        """The same of a message that many are told."""
        packets = self.member.channels.seal(Channel.KEY, message, member)
        self.out.extend(packets)
        return self.member.channels.last(Channel.KEY, member)

    def forget(self, participant: ParticipantId) -> None:
        """It is new here, or out: nothing is held against it."""
        self._absent_since.pop(participant, None)
        self.rtt.pop(participant, None)
        self._busy_until.pop(participant, None)

    def key_changed(self, now: float) -> None:
        """A change is through: what waited for it goes on."""
        waiting, self._ask_again = self._ask_again, []
        for member in waiting:
            if member in self.state.members:
                self._bring_up_to_date(member, now)
        self.lobby.admit(now)

    # what members ask

    def key_message(self, sender: ParticipantId, message: KeyMessage, now: float) -> None:
        """On the organizer's channel 0 members ask."""
        if isinstance(message, Started):
            self.lobby.reception.started(sender)
            return
        if sender not in self.state.members:
            raise NotAllowed("not a member")
        match message:
            case Resync():
                if now - self._resynced.get(sender, -RESYNC_EVERY) < RESYNC_EVERY:
                    self.member.dropped["resync-hasty"] += 1
                    return
                self._resynced[sender] = now
                if self.state.epoch != self.keyring.current:
                    self._ask_again.append(sender)  # a term has begun, and its first key is on its way
                else:
                    self._bring_up_to_date(sender, now)
            case Request():
                busy_for = max(0.0, self._busy_until.get(sender, now) - now)
                if busy_for > (REQUESTS_AT_ONCE - 1) * REQUEST_EVERY and message.verb != Verb.LEAVE:
                    self.member.dropped["request-hasty"] += 1
                    return
                self._busy_until[sender] = now + busy_for + REQUEST_EVERY
                self._asked_for(sender, message, now)
            case Accept():
                self._accepted(sender, message, now)
            case Yielded():
                self.write(log.Yield(message.take_over, message.signature), now)
            case Status():
                self.rtt[sender] = message.rtt_ms / 1000
            case _:
                raise NotAllowed("only the organizer says that")

    def _bring_up_to_date(self, member: ParticipantId, now: float) -> None:
        if self.chain:
            self.say_key(member, Succession(self.chain))
        self.say_key(member, GroupKey(self.state.epoch, self.keyring.group_key))
        self.say_key(member, self.roster.now(now, ASK_AGAIN))  # it may ask because no relay has what it was told of

    def _asked_for(self, sender: ParticipantId, request: Request, now: float) -> None:
        """What members may cause is decided here at once; what needs the person becomes a `Wish`."""
        verb, target = request.verb, ParticipantId(request.participant)
        if verb == Verb.LEAVE:
            self.rekeying.leaves(sender, [cut for cut in request.cuts if cut[0] == sender][:4])
            self.rekeying.let_go(now)
        elif verb == Verb.PRESENT and sender == self.state.presenter:
            if not target or target in self.state.members:
                self.appoint(target, now)
        elif verb == Verb.CONTROL and sender == self.state.presenter:
            if not target or (target in self.state.members and target != sender):
                self.lend(target, now)
        elif verb == Verb.RENAME and clean_name(request.text) and clean_name(request.text) != self.state.members[sender].name:
            self.rename(sender, request.text, now)
        elif verb == Verb.DECLINE and sender == self._heir:
            self._heir = None
            self.events.append(events.OfferDeclined(sender, self.member.name(sender)))
        elif verb in (Verb.ASK_PRESENT, Verb.ASK_CONTROL, Verb.RAISE_HAND):
            self.events.append(events.Wish(sender, self.member.name(sender), Verb(verb).name.lower().replace("_", "-")))
            if verb == Verb.ASK_CONTROL and self.state.presenter not in (EVERYONE, self.me, sender):
                self.say_key(self.state.presenter, Asked(sender))
        else:
            raise NotAllowed("a wish that nobody serves")

    # time and presence

    def control(self, message: Control, now: float) -> None:
        """What the relay says beside packets."""
        if isinstance(message, Presence) and not self.state.ended:
            for participant in map(ParticipantId, message.here):
                self._absent_since.pop(participant, None)
            for participant in map(ParticipantId, message.away):
                if participant in self.state.members and participant != self.me:
                    self._absent_since.setdefault(participant, now)
                else:
                    self.lobby.gone(participant, now)
            self._show_presence(now)

    def _show_presence(self, now: float) -> None:
        away = frozenset(self._absent_since) & self.state.members.keys()
        if away != self.member.away:
            self.member.away = away
            self.events.append(events.PresenceChanged(away))
            self._news = True
            if now >= self._said_at + NEWS_EVERY:
                self._beat(now)

    def taken(self, positions: list[Position], now: float) -> None:
        """The relay has our streams up to here."""
        if self._owed:
            has, log_stream = HaveVector(positions), Stream(self.me, EVERYONE, Channel.LOG)
            while self._owed and not has.lacks(log_stream, self._owed[0][0]):
                self._owed.popleft()
        self.rekeying.taken(positions, now)

    def tick(self, now: float) -> None:
        if self.state.ended:
            return
        self.lobby.reception.tick(now)
        for participant, since in list(self._absent_since.items()):
            if now - since >= AWAY_FOR and participant in self.state.members:
                self.rekeying.leaves(participant, [])
        self.rekeying.let_go(now)
        if self.keyring.due(now) and not self.rekeying.under_way:
            self.rekeying.change(now)
        self.lobby.admit(now)
        if now >= self._said_at + (NEWS_EVERY if self._news else HEARTBEAT_EVERY):
            self._beat(now)

    def _beat(self, now: float) -> None:
        self._said_at, self._news = now, False
        member = self.member
        moved: Cuts = []
        for participant, channel, counter in self.all_cuts(CUT_CHANNELS):
            if self._beaten.get((ParticipantId(participant), channel)) != counter:
                self._beaten[ParticipantId(participant), channel] = counter
                moved.append((participant, channel, counter))
        counter = member.channels.last(Channel.LOG) + 1
        beat = Heartbeat(self.state.index, self.state.head, counter, member.wall_ms(), moved, sorted(member.away))
        if moved:
            self._keep(lambda journal: journal.counters(moved))
        self.out.extend(self._seal(sign_heartbeat(member.signing, beat)))


def _feature(fields: Fields) -> str | None:
    """What the ticket must offer for such an entry; taking away needs nothing."""
    match fields:
        case log.Presenter(participant) if participant:
            return "screen"
        case log.Control(participant) if participant:
            return "remote-control"
        case log.Chat(allowed=True):
            return "chat"
    return None
