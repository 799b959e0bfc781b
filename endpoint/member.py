"""One member of a session: its copy of the log, its keys, its streams. Sans-IO: packets and `now` in; packets, messages and events out.

    received packet ──▶ channel.open ──┬─ key message ──▶ group keys, where the roster is; or (with the chair) what members ask
                                       ├─ roster ───────▶ the log as it stands, for a newcomer
                                       ├─ log entry ────▶ state ──▶ epochs, rights, events; then what was held is tried again
                                       ├─ heartbeat ────▶ presence, gaps
                                       └─ chat, screen, hands ─▶ events

What it says is in `endpoint.speaker`. Guest and organizer are how one comes in (`endpoint.guest`, `endpoint.organizer`); whoever the log
names organizer has the chair besides (`endpoint.chair`), and `endpoint.heir` is how that comes and goes. What cannot be judged yet, because
its sender, its epoch or its log index has not come here, is held (`endpoint.held`) and tried again when something has changed.
"""

from collections import deque
from collections.abc import Callable

from crypto.errors import CryptoError, EpochClosed, Gap, UnknownEpoch
from crypto.keyring import LEAVE_GRACE
from crypto.signing import ExchangeKey, SigningKey
from endpoint import events, log
from endpoint.chair import Chair
from endpoint.channel import MAX_MESSAGE, Message
from endpoint.errors import (
    EndpointError,
    ForgedEntry,
    Fork,
    LaterIndex,
    MalformedEntry,
    MessageError,
    Misdelivered,
    NeedsSnapshot,
    NoRight,
    NotAllowed,
    NotInOffice,
    UnknownSender,
)
from endpoint.hands import parse_input_untrusted, parse_pointer_untrusted
from endpoint.heir import Heir
from endpoint.held import Held, Outcome
from endpoint.job import Job
from endpoint.journal import Journal, Saved
from endpoint.log import Heartbeat, SignedEntry
from endpoint.messages import (
    GroupKey,
    KeyMessage,
    Resync,
    Roster,
    Succession,
    encode,
    parse_key_message_untrusted,
    parse_whisper_untrusted,
)
from endpoint.pulse import TAKE_OVER_AFTER, Pulse
from endpoint.rekey import MAX_IN_FLIGHT
from endpoint.roster import ASK_AGAIN, Reading
from endpoint.speaker import Speaker, unix_ms
from endpoint.state import State
from endpoint.text import clean_name
from wire.control import Control, Fetch, Office, Position
from wire.errors import ParleyError, WireError
from wire.have import HaveVector
from wire.ids import EVERYONE, Channel, ParticipantId, SessionId, Stream
from wire.packet import HEADER_SIZE, RELIABLE_CHANNELS, Flag, PacketHeader, parse_packet_untrusted

_HAD = RELIABLE_CHANNELS - {Channel.ROSTER}
"""Channels of which a relay must know what we have."""


class Member(Speaker):
    """Owned by one task; everything here is synchronous."""

    def __init__(
        self,
        session: SessionId,
        me: ParticipantId,
        meeting_key: bytes,
        signing: SigningKey,
        exchange: ExchangeKey,
        wall_ms: Callable[[], int] = unix_ms,
    ) -> None:
        super().__init__(session, me, meeting_key, signing, exchange, wall_ms)
        self.away: frozenset[ParticipantId] = frozenset()
        self.held = Held(self.dropped)
        self.pulse = Pulse(self.channels.counter)
        self.heir = Heir(self)
        self.now = 0.0  # of the call that is under way
        self.stood_up = False  # we organized, and do not any more
        self.journal: Journal | None = None  # of the last chair of ours, if it is written down
        self.begin_journal: Callable[[Saved], Journal] | None = None  # how, should the chair come to us
        self._chair: Chair | None = None
        self._jobs: deque[Job] = deque()
        self._handed = False  # the last chair of ours was handed over
        self._passing: int | None = None  # the channel-1 counter of our hand-over, until a relay has taken it: then the office goes on
        self._host: tuple[ParticipantId, bytes] | None = None  # the organizer that the handshake proved, before its snapshot is here
        self._reading: Reading | None = None  # the roster, while it comes
        self._log_item: SignedEntry | Heartbeat | None = None  # what `check_log` parsed last

    # the chair

    @property
    def organizes(self) -> bool:
        """Whether the log names us, as far as we know it."""
        return self._chair is not None

    def misses(self, participant: ParticipantId) -> bool:
        """Whether this one's line is down: the organizer says so of the others, and its own silence of itself."""
        return participant in self.away or (participant == self.state.organizer != self.me and self.pulse.missing)

    @property
    def chair(self) -> Chair:
        """Raises NotAllowed unless we organize."""
        if self._chair is None:
            raise NotAllowed("Only the organizer may do that.")
        return self._chair

    def take_chair(self, chair: Chair) -> None:
        self._chair, self._handed = chair, False
        self._host = self._reading = None  # what another one was to tell us

    @property
    def settled(self) -> bool:
        """Whether nothing of a chair of ours is left to be done, here or by a process to come."""
        return self.state.ended or (self._chair is None and self._passing is None)

    @property
    def jobs(self) -> deque[Job]:
        """Costly steps of handshakes, for threads."""
        return self._chair.jobs if self._chair is not None else self._jobs

    # the roster, for `channel`

    @property
    def index(self) -> int:
        return self.state.index

    def signing_key(self, sender: ParticipantId) -> bytes | None:
        if self._host and sender == self._host[0]:
            return self._host[1]
        member = self.state.known(sender)
        return member.signing_key if member else self.heir.key_of_unknown(sender)

    def head_at(self, index: int) -> bytes | None:
        return self.state.head_at(index)

    def may_send(self, sender: ParticipantId, channel: int, index: int, counter: int) -> bool:
        if channel == Channel.ROSTER:
            return self._reading is not None and sender == self._reading.organizer
        if channel == Channel.WHISPER and not self.whispers:
            return False
        if channel == Channel.WHISPER and self.me == self.state.organizer:
            return sender in self.state.members
        return self.state.may_send(sender, channel, index, counter)

    def check_log(self, sender: ParticipantId, content: bytes, counter: int) -> None:
        author = self.state.organizer_key
        if sender != self.state.organizer:
            author = self.heir.judge_untrusted(sender, content, self.now)
        elif self.keys.awaited:  # an `epoch` entry is the last word under its epoch: this was sealed by somebody who holds the old key
            raise ForgedEntry("under a key that was given up")
        self._log_item = log.parse_log_untrusted(content, author, counter)

    # links

    def linked(self, office: ParticipantId, key_counter: int, log_counter: int, now: float) -> None:
        super().linked(office, key_counter, log_counter, now)
        self._fetch()
        if office == self.me and self._handed and self._passing is None and not self.organizes and self.joined:
            self.out.append(Office(self.state.organizer, list(self.state.successors)))  # we have passed it on, and this relay does not know
        self._office_named(now)

    def control(self, message: Control, now: float) -> None:
        """What the relay says beside packets."""
        if isinstance(message, Office):
            self.relay_office = ParticipantId(message.participant)
            self._office_named(now)
        elif self._chair is not None:
            self._chair.control(message, now)

    def _office_named(self, now: float) -> None:
        """The relay says whom it lets write the log."""
        self.now = now
        if self.relay_office != self.me:
            return
        if self._chair is not None:
            self._chair.greet()
        else:
            self.heir.tick(now)

    def taken(self, positions: list[Position], now: float) -> None:
        """The relay has our streams up to here."""
        if self._chair is not None:
            self._chair.taken(positions, now)
        elif self._passing is not None and not HaveVector(positions).lacks(Stream(self.me, EVERYONE, Channel.LOG), self._passing):
            self._passing = None
            self.out.append(Office(self.state.organizer, list(self.state.successors)))

    def batch_due(self) -> float | None:
        """When waiting newcomers can be admitted."""
        return self._chair.lobby.batch_due if self._chair is not None else None

    # hearing something

    def receive_untrusted(self, packet: bytes, now: float) -> None:
        """Whatever the relay brought. Raises nothing: what is refused becomes a `Dropped` event with its name."""
        self.now = now
        try:
            header = parse_packet_untrusted(packet)
        except WireError as error:
            self.drop(error)
            return
        if header.session != self.session or header.recipient not in (EVERYONE, self.me) or header.sender == self.me:
            self.drop(Misdelivered())
        elif header.flags & Flag.CLEAR:
            self.receive_clear_untrusted(header, packet[HEADER_SIZE:], now)
        elif self.held.holds_up(header.stream):
            self.held.put(header.stream, packet, now)
        else:
            outcome = self._take(header, packet, now)
            if outcome is Outcome.CHANGED:
                self._retry(now)
            elif outcome is not Outcome.DONE:
                self.held.put(header.stream, packet, now, first=outcome is Outcome.WAITS_FIRST)
            self._flush(now)  # a heartbeat may have been what sealing waited for

    def receive_clear_untrusted(self, header: PacketHeader, body: bytes, now: float) -> None:
        """A handshake message; a member needs none any more."""
        if self._chair is not None:
            self._chair.receive_clear_untrusted(header, body, now)
        else:
            self.dropped["handshake-late"] += 1

    def tick(self, now: float) -> None:
        """Time passes: at least once a second."""
        self.now = now
        self.keyring.expire(now)
        expired = self.held.expire(now)
        for stream in [stream for stream, authentic in expired.items() if authentic]:
            self.drop(LaterIndex(), stream.sender)  # it knows of entries that nobody tells us of
        if expired:
            self._retry(now)
        if self._reading is not None and self._linked and now - self._reading.heard_at >= ASK_AGAIN:
            self._reading.heard_at = now  # no relay has it any more: another one is made
            self._resync()
        if self._chair is not None:
            self._chair.tick(now)
        elif self.joined and not self.state.ended:
            self._watch_organizer(now)

    def _watch_organizer(self, now: float) -> None:
        finding = self.pulse.tick(now, linked=self._linked)
        if finding.missing is not None:
            self.events.append(events.OrganizerMissing(finding.missing))
        for stream, counter in finding.lost:
            self.dropped["withheld"] += 1
            self.channels.go_on(stream, counter)
            self.have.jump(stream, counter)
        if finding.resync:
            self._resync()
        if len(self.held) and self.pulse.silent(now) >= TAKE_OVER_AFTER:
            self._retry(now)  # a take-over may be among it
        self.heir.tick(now)
        if self._host is not None and len(self.held):
            self._retry(now)  # somebody else is followed: what it said before may open

    def _resync(self) -> None:
        self.resync_with(self._host[0] if self._host else self.state.organizer)

    def follow(self, participant: ParticipantId, signing_key: bytes, exchange_key: bytes) -> None:
        """This participant has proved that it organizes, at a place of the log that we cannot reach: begin again where it says."""
        if self._host is None or self._host[0] != participant:
            self.heir.passed_by()
        self._host = participant, signing_key
        self.pair_key_channel(participant, exchange_key)

    def resync_with(self, participant: ParticipantId) -> None:
        """Ask somebody other than the organizer that we know."""
        if self._linked:
            self.dropped["withheld"] += 1
            try:
                self._send(Channel.KEY, encode(Resync()), participant)
            except CryptoError as error:  # whose key protects nothing: the next one to write the log is asked
                self.drop(error, participant)

    def _take(self, header: PacketHeader, packet: bytes, now: float) -> Outcome:
        """Open one packet, and do what it says."""
        message = None
        try:
            if header.recipient == self.me and header.channel != Channel.KEY:
                self._pair(header.sender)
            message = self.channels.open_untrusted(packet, now)
            if header.channel == Channel.ROSTER and self._reading is not None:
                self._reading.heard_at = now
        except (UnknownSender, UnknownEpoch):
            return Outcome.WAITS
        except NotInOffice as error:
            return self._not_in_office(error, header)
        except LaterIndex:
            return Outcome.WAITS_FIRST
        except NeedsSnapshot:
            self.dropped[NeedsSnapshot.name] += 1
            self.events.append(events.ScreenGap(header.sender))
        except (ParleyError, CryptoError) as error:
            if self._late(error, header):
                self.dropped[f"{error.name}-late"] += 1
            else:
                self._refuse(error, header.sender, certain=isinstance(error, Fork))
            if isinstance(error, Gap) and self._go_on(header, now):
                return self._take(header, packet, now)
        if header.channel in _HAD:  # had is what moved the stream, not what a header claims
            self.have.jump(header.stream, self.channels.counter(header.stream))
        try:
            changed = message is not None and self._dispatch(message, now)
        except (EndpointError, CryptoError) as error:
            self._refuse(error, header.sender, certain=header.channel != Channel.CURSOR)
            return Outcome.DONE
        return Outcome.CHANGED if changed else Outcome.DONE

    def _not_in_office(self, error: NotInOffice, header: PacketHeader) -> Outcome:
        """Whoever writes the log and does not organize may do so in a moment: it waits, and what is known already is passed over."""
        if error.passed_over or not self.joined:
            return Outcome.DONE
        return Outcome.WAITS

    def _late(self, error: ParleyError | CryptoError, header: PacketHeader) -> bool:
        """Whether it was right when it was sent, and nobody is to blame: a former presenter's picture, a former organizer's log, the lines
        that somebody said while its right to chat was taken."""
        if isinstance(error, NoRight) and header.channel == Channel.CHAT:
            known = error.certain and header.sender in self.state.members
            return known and self.state.may_send(header.sender, Channel.CHAT, error.index, header.counter - MAX_IN_FLIGHT)
        if isinstance(error, NoRight) and header.channel in (Channel.SCREEN, Channel.SNAPSHOT):
            return error.certain and self.state.presenter_at(error.index) == header.sender
        if isinstance(error, Gap) and self.organizes:  # a ring brings what former selves of ours wrote, from where our last key opens it
            return header.channel == Channel.LOG and header.sender in self.state.departed
        return isinstance(error, EpochClosed) and header.channel == Channel.LOG and header.sender != self.state.organizer

    def _refuse(self, error: ParleyError | CryptoError, sender: ParticipantId, *, certain: bool) -> None:
        certain = certain or (isinstance(error, MessageError) and error.certain)
        if certain and isinstance(error, NoRight):
            self.refused[sender] += 1
        self.drop(error, sender if certain else EVERYONE)

    def _go_on(self, header: PacketHeader, now: float) -> bool:
        """What is missing before this packet is lost: no relay leaves a gap but for that. True if its stream goes on here at once: where the
        organizer goes on, the others follow, by its heartbeat and a resync."""
        if header.recipient == self.me or (self._chair is not None and header.channel != Channel.LOG):
            self.channels.go_on(header.stream)
            return True
        if header.channel == Channel.LOG and header.sender == self.state.organizer:
            self.pulse.behind(now)
        return False

    def _retry(self, now: float) -> None:
        self.held.retry(lambda packet: self._take(parse_packet_untrusted(packet), packet, now))

    def _dispatch(self, message: Message, now: float) -> bool:
        channel = message.channel
        if channel == Channel.LOG:
            item = self._log_item
            assert item is not None
            if isinstance(item, Heartbeat):
                self._heartbeat(item, now)
                return False
            self.apply(item, now)
            return True
        if channel == Channel.KEY:
            before = self.state.index, self.keyring.current
            self._key_message(message.sender, parse_key_message_untrusted(message.content), now)
            return before != (self.state.index, self.keyring.current)
        if channel == Channel.ROSTER:
            return self._read(message, now)
        if channel == Channel.CHAT:
            self._chat_event(message.sender, message.content, message.counter)
        elif channel == Channel.WHISPER:
            self._whisper_heard(message.sender, parse_whisper_untrusted(message.content), message.counter)
        elif channel in (Channel.SCREEN, Channel.SNAPSHOT):
            shown = self.channels.shown(message.sender)
            self.events.append(events.ScreenMessage(message.sender, channel == Channel.SNAPSHOT, message.content, message.restart, shown))
        elif channel == Channel.CURSOR:
            if self.state.may_send(message.sender, channel, self.state.index, message.counter):
                self.events.append(events.PointerMoved(message.sender, parse_pointer_untrusted(message.content)))
            else:
                self.dropped["cursor-without-right"] += 1  # of a presenter a moment ago: no news
        elif channel == Channel.INPUT:
            self.events.append(events.InputReceived(message.sender, parse_input_untrusted(message.content)))
        else:
            self.dropped["channel-unserved"] += 1
        return False

    # the log

    def apply(self, signed: SignedEntry, now: float) -> None:
        """The next entry: state, keys, events. Raises BrokenChain, IllegalEntry."""
        state = self.state
        presenter, control, organizer, successors = state.presenter, state.control, state.organizer, list(state.successors)
        door = state.locked, state.knock
        fields = signed.entry.fields
        former_name = self.name(ParticipantId(fields.participant)) if isinstance(fields, log.Rename) else ""
        state.apply(signed)
        if isinstance(fields, log.Leave | log.Dismiss | log.Chat):
            for sender, cut in state.withdrawn():
                if self._shown.get(sender, -1) > cut:
                    self._shown[sender] = cut
                    self.events.append(events.ChatWithdrawn(sender, self.name(sender), cut))
        match fields:
            case log.Admit():
                if self.joined:
                    self.keyring.ratchet_to(fields.epoch, now)
                for member in fields.members:
                    if member.id != self.me:
                        self.events.append(events.MemberJoined(ParticipantId(member.id), clean_name(member.name)))
            case log.Leave():
                for participant in fields.participants:
                    self._gone(ParticipantId(participant), LEAVE_GRACE, now)
            case log.Dismiss():
                self._gone(ParticipantId(fields.participant), 0.0, now)
            case log.Chat():
                self.events.append(events.ChatRightChanged(ParticipantId(fields.participant), fields.allowed))
            case log.Rename():
                self.events.append(events.Renamed(ParticipantId(fields.participant), former_name, clean_name(fields.name)))
            case log.EpochEntry():
                self.keys.commit(fields.epoch, fields.digest, now)
                self.events.append(events.KeyChanged(fields.epoch))
            case log.HandOver() | log.TakeOver():
                self._organizer_changed(organizer, signed, now)
            case log.End():
                self._forget_keys()
                self.events.append(events.SessionEnded())
            case _:
                pass
        if (state.locked, state.knock) != door:
            self.events.append(events.DoorChanged(state.locked, state.knock))
        if state.successors != successors:
            self.events.append(events.SuccessorsChanged(tuple(state.successors)))
        self._tell_rights(presenter, control)

    def _tell_rights(self, presenter: ParticipantId, control: ParticipantId) -> None:
        """What has become another one since."""
        if self.state.presenter != presenter:
            presenter = self.state.presenter
            self.events.append(events.PresenterChanged(presenter, self.name(presenter) if presenter else ""))
        if self.state.control != control:
            control = self.state.control
            self.events.append(events.ControlChanged(control, self.name(control) if control else ""))

    def _organizer_changed(self, former: ParticipantId, signed: SignedEntry, now: float) -> None:
        """The chair has passed: to us, from us, or past us."""
        new, took_over = self.state.organizer, isinstance(signed.entry.fields, log.TakeOver)
        self.events.append(events.OrganizerChanged(new, self.name(new), took_over))
        self.pulse.begin(now)
        if former not in self.state.members and former != self.me:  # the same person, come back
            self.keyring.drop_peer(former, now, LEAVE_GRACE)
            self.channels.forget(former)
            self.away -= {former}
        if new == self.me:
            if self._chair is None:
                self.heir.sit_down(signed, former, now)
            return
        chair, self._chair = self._chair, None
        self.heir.passed_by()
        if self.joined:
            self.pair_key_channel(new)
        if chair is not None:
            self._stand_up(chair, signed, now)

    def _stand_up(self, chair: Chair, signed: SignedEntry, now: float) -> None:
        """We organized until now."""
        self.stood_up = isinstance(signed.entry.fields, log.TakeOver)
        if self.journal is not None and (self.stood_up or self.me not in self.state.members):
            self.journal.forget()
        self.channels.limits[Channel.KEY] = MAX_MESSAGE[Channel.KEY]
        if self.me not in self.state.members:
            self.removed("superseded", "Another program of yours has taken up this session.")
        elif isinstance(signed.entry.fields, log.TakeOver):
            self.heir.yields_to(signed, now)
        else:
            self._passing, self._handed = signed.entry.counter, True

    def _gone(self, participant: ParticipantId, grace: float, now: float) -> None:
        self.keyring.drop_peer(participant, now, grace)
        self.channels.forget(participant)
        self.away -= {participant}
        if participant == self.me:
            self.removed("dismissed" if grace == 0 else "left", "You are not in the session any more.")
            return
        self.events.append(events.MemberLeft(participant, self.name(participant), dismissed=grace == 0))
        unread = self._whispered.pop(participant, [])
        if unread:
            self.events.append(events.WhisperUndelivered(participant, self.name(participant), len(unread)))

    def removed(self, reason: str, sentence: str) -> None:
        """We are no member any more: every key goes."""
        self.stood_up = self.stood_up or self._chair is not None
        self._chair = None
        self.joined = False
        self._forget_keys()
        self.events.append(events.Removed(reason, sentence))

    def _forget_keys(self) -> None:
        self.keyring.forget()
        self.keys.clear()
        self._unsent.clear()
        self._reading = None

    def _heartbeat(self, beat: Heartbeat, now: float) -> None:
        ours = self.state.head_at(beat.index)
        if ours is not None and ours != beat.head:
            raise Fork("the organizer's heartbeat names another head")
        if beat.index != self.state.index:
            # Channel 1 is strictly in order, so the organizer's own stream names exactly what we have applied. Whoever has the group key
            # and a relay's help can put other signed bytes into its place: an old heartbeat proves nothing, a later one that we lack entries.
            self.dropped["heartbeat-elsewhere"] += 1
            if beat.index > self.state.index:
                self.pulse.behind(now)
            return
        self.pulse.beat(beat, self.me, now)
        away = frozenset(ParticipantId(i) for i in beat.away) & self.state.members.keys()
        if away != self.away:
            self.away = away
            self.events.append(events.PresenceChanged(away))

    # keys

    def _key_message(self, sender: ParticipantId, message: KeyMessage, now: float) -> None:
        """With the chair, members ask; without, only the organizer speaks."""
        if self._chair is not None:
            self._chair.key_message(sender, message, now)
            return
        self.heir.answered(sender)
        organizer = self._host[0] if self._host else self.state.organizer
        if isinstance(message, Succession):
            self.heir.shown(sender, message, now)
        elif sender != organizer:
            raise NotAllowed("keys come from the organizer")
        elif isinstance(message, GroupKey):
            self.keys.came(message, now)
        elif isinstance(message, Roster):
            self._find(sender, message, now)
        else:
            self.heir.key_message(message, now)

    def keep_key(self, epoch: int, key: bytes) -> None:
        """A key of our own making, until its entry."""
        self.keys.keep(epoch, key)

    # the roster

    def _find(self, sender: ParticipantId, place: Roster, now: float) -> None:
        """The organizer has said where the log can be read."""
        key = self._host[1] if self._host else self.state.organizer_key
        self._reading = Reading(self.session, self.state.meeting_key, sender, key, place, now)
        self.keyring.set_roster(place.epoch, place.key)
        self.channels.expect(self._reading.stream, place.first)
        if self._linked:
            self._fetch()

    def _fetch(self) -> None:
        if self._reading is not None:
            self.out.append(Fetch(self.channels.counter(self._reading.stream) + 1))

    def _read(self, message: Message, now: float) -> bool:
        """A part of the roster. Raises LogError, MessageError."""
        reading = self._reading
        if reading is None or message.sender != reading.organizer:
            raise NotAllowed("nobody has asked for this roster")
        state = reading.take_untrusted(message.content, message.counter)
        if state is None:
            return False
        self._adopt(state, reading, now)
        self._reading = None
        self.keyring.drop_roster()
        return True

    def _adopt(self, state: State, reading: Reading, now: float) -> None:
        """Begin, or begin again, where the roster ends. Raises MalformedEntry, Fork."""
        for index in range(state.first_index, state.index + 1):
            ours = self.state.head_at(index)
            if ours is not None and ours != state.head_at(index):
                raise Fork("the roster of another log")
        if state.index < self.state.index:
            self.dropped["snapshot-old"] += 1
            return
        if self.me not in state.members:
            raise MalformedEntry("the roster does not list us")
        if not self.joined or self.keyring.current != state.epoch:
            wrapped = self.keys.newest(state.epoch)
            if wrapped is None:
                raise MalformedEntry("the key of the roster's epoch did not come before it")
            self.keyring.install(state.epoch, wrapped, now)
            self.keyring.advance(state.epoch, now)
        self.keys.passed(state.epoch)
        first = not self.joined
        before = self.state
        for participant in [] if first else [i for i in before.members if i not in state.members]:
            self._gone(participant, LEAVE_GRACE, now)
        self.state = state
        self.channels.begin_at(reading.start, state.members)
        self.have.merge((*stream, counter) for stream, counter in reading.start.items())
        self.pulse.begin(now)
        self.joined = True
        self._host = None
        if not first:
            self._tell_what_changed(before)
        self._adopted(first, now)
        self._flush(now)

    def _tell_what_changed(self, before: State) -> None:
        """After a resync: events for what the missing entries did."""
        for member in self.state.members.values():
            if member.id not in before.members:
                self.events.append(events.MemberJoined(ParticipantId(member.id), clean_name(member.name)))
        if self.state.organizer != before.organizer:
            self.events.append(events.OrganizerChanged(self.state.organizer, self.name(self.state.organizer), took_over=False))
        self._tell_rights(before.presenter, before.control)

    def _adopted(self, first: bool, now: float) -> None:
        """For a guest: it is in."""
