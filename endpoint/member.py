"""One member of a session: its copy of the log, its keys, its streams. Sans-IO: packets and `now` in; packets, messages and events out.

    received packet ──▶ channel.open ──┬─ key message ──▶ group keys, snapshot
                                       ├─ log entry ────▶ state ──▶ epochs, rights, events; then what was held is tried again
                                       ├─ heartbeat ────▶ presence, gaps
                                       └─ chat, screen ─▶ events

Guest and organizer are members that can do more (`endpoint.guest`, `endpoint.organizer`). What cannot be judged yet, because its sender,
its epoch or its log index has not come here, is held (`endpoint.held`) and tried again when something has changed.

Sealing waits where the protocol says so: after `welcome` until the channel-0 and channel-1 counters that it names are applied, and
between an epoch's entry and its key. What is said meanwhile stays plaintext in `_unsent` and is sealed afterwards.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

import msgspec

from crypto.errors import CryptoError, Gap, UnknownEpoch
from crypto.keyring import LEAVE_GRACE, Keyring
from crypto.schedule import group_key_digest, pair_prk
from crypto.signing import ExchangeKey, SigningKey, verify
from crypto.suite import LABEL_SNAPSHOT
from endpoint import events, log
from endpoint.channel import Channels, Message
from endpoint.errors import (
    Congested,
    EndpointError,
    ForgedEntry,
    Fork,
    LaterIndex,
    MalformedEntry,
    Misdelivered,
    NeedsSnapshot,
    NotAllowed,
    SessionOver,
    TooLong,
    UnknownSender,
)
from endpoint.hands import Input, Pointer, parse_input_untrusted, parse_pointer_untrusted
from endpoint.held import Held, Outcome
from endpoint.log import Heartbeat, SignedEntry
from endpoint.messages import (
    MAX_TEXT,
    ChatLine,
    GroupKey,
    KeyMessage,
    LogSnapshot,
    Request,
    Resync,
    encode,
    parse_chat_untrusted,
    parse_cuts_untrusted,
    parse_key_message_untrusted,
)
from endpoint.pulse import Pulse
from endpoint.state import Snapshot, State
from endpoint.text import clean_line, clean_name
from wire.control import Control
from wire.errors import ParleyError, WireError
from wire.have import HaveVector
from wire.ids import EVERYONE, Channel, ParticipantId, SessionId, Stream
from wire.packet import HEADER_SIZE, RELIABLE_CHANNELS, Flag, PacketHeader, parse_packet_untrusted

MAX_UNSENT: Final = 256
"""Messages that wait, unsealed, for a link or a key."""
MAX_KEYS: Final = 4
"""Wrapped keys kept for one epoch, and epochs that they are kept for: the newest ones."""
_decode_snapshot: Final = msgspec.msgpack.Decoder(Snapshot).decode


def unix_ms() -> int:
    return int(time.time() * 1000)


class Member:
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
        self.session = session
        self.me = me
        self.signing = signing
        self.exchange = exchange
        self.state = State.genesis(session, meeting_key)
        self.keyring = Keyring(session, me)
        self.channels = Channels(session, me, signing, self.keyring, self)
        self.have = HaveVector()
        self.out: deque[bytes | Control] = deque()  # sealed packets and control messages, in order; the session drains it
        self.events: deque[events.Event] = deque()  # likewise
        self.dropped: Counter[str] = Counter()  # by name
        self.away: frozenset[ParticipantId] = frozenset()
        self.joined = False
        self.wall_ms = wall_ms
        self._host: tuple[ParticipantId, bytes] | None = None  # the organizer that the handshake proved, before its snapshot is here
        self._log_item: SignedEntry | Heartbeat | None = None  # what `check_log` parsed last
        self.held = Held(self.dropped)
        self.pulse = Pulse(self.channels.counter)
        self._paired: set[ParticipantId] = set()
        self._shown: dict[ParticipantId, int] = {}  # counter of each one's last chat line that was shown
        self._unsent: deque[tuple[int, bytes, ParticipantId]] = deque()
        self._linked = False
        self._welcome = (-1, -1)  # counters of channels 0 and 1 that must be applied before we seal
        self._keys: dict[int, list[bytes]] = {}  # wrapped keys that no entry has chosen yet, by epoch
        self._awaited: tuple[int, bytes] | None = None  # epoch and digest of an entry whose key is not here

    # the roster, for `channel`

    @property
    def index(self) -> int:
        return self.state.index

    def signing_key(self, sender: ParticipantId) -> bytes | None:
        if self._host and sender == self._host[0]:
            return self._host[1]
        member = self.state.known(sender)
        return member.signing_key if member else None

    def head_at(self, index: int) -> bytes | None:
        return self.state.head_at(index)

    def may_send(self, sender: ParticipantId, channel: int, index: int, counter: int) -> bool:
        return self.state.may_send(sender, channel, index, counter)

    def check_log(self, content: bytes, counter: int) -> None:
        if self._awaited is not None:  # an `epoch` entry is the last word under its epoch: this was sealed by somebody who holds the old key
            raise ForgedEntry("under a key that was given up")
        self._log_item = log.parse_log_untrusted(content, self.state.organizer_key, counter)

    # links

    def linked(self, key_counter: int, log_counter: int, now: float) -> None:
        """A link is up; the node names its last counters of channels 0 and 1 for us."""
        self._linked = True
        self._welcome = (key_counter, log_counter)
        self._flush(now)

    def unlinked(self) -> None:
        self._linked = False

    @property
    def may_seal(self) -> bool:
        """Whether a message may be sealed now, or has to wait as plaintext."""
        organizer = self.state.organizer
        return (
            self.joined
            and not self.state.ended
            and self._linked
            and self._awaited is None
            and (
                organizer == self.me
                or (
                    self.have.last(Stream(organizer, self.me, Channel.KEY)) >= self._welcome[0]
                    and self.have.last(Stream(organizer, EVERYONE, Channel.LOG)) >= self._welcome[1]
                )
            )
        )

    # saying something

    def say(self, channel: int, content: bytes, recipient: ParticipantId = EVERYONE) -> None:
        """Send a message, or keep it until it may be sealed. Raises Congested, SessionOver."""
        if self.state.ended:
            raise SessionOver
        if self.may_seal and not self._unsent:
            self._send(channel, content, recipient)
        elif len(self._unsent) >= MAX_UNSENT:
            raise Congested
        else:
            self._unsent.append((channel, content, recipient))

    def chat(self, text: str) -> None:
        """A line to all. Raises TooLong, NotAllowed, Congested, SessionOver."""
        text = clean_line(text)
        if not text:
            return
        if len(text) > MAX_TEXT:
            raise TooLong
        if self.joined and not self.state.may_send(self.me, Channel.CHAT, self.state.index, 2**63):
            raise NotAllowed("The organizer has taken the right to chat from you.")
        self.say(Channel.CHAT, encode(ChatLine(text, self.wall_ms())))

    def screen_packets(self, content: bytes, *, restart: bool, snapshot: bool = False) -> None:
        """One screen message; the presenter's. Raises NotAllowed unless this member presents and may seal."""
        if self.state.presenter != self.me or not self.may_seal:
            raise NotAllowed
        if snapshot:
            self.out.extend(self.channels.seal_snapshot(content))
        else:
            self.out.extend(self.channels.seal(Channel.SCREEN, content, restart=restart))

    def point(self, pointer: Pointer) -> None:
        """Where the presenter's pointer is. Raises NotAllowed unless this member presents and may seal."""
        if self.state.presenter != self.me or not self.may_seal:
            raise NotAllowed
        self.out.extend(self.channels.seal(Channel.CURSOR, encode(pointer)))

    def handle(self, hands: Input) -> None:
        """Input for the presenter's machine. Raises NotAllowed unless this member holds the controls and may seal: nothing waits, since
        what a hand did a while ago is not wanted any more."""
        if self.state.control != self.me or not self.may_seal:
            raise NotAllowed("The presenter has not lent you mouse and keyboard.")
        self._pair(self.state.presenter)
        self.out.extend(self.channels.seal(Channel.INPUT, encode(hands), self.state.presenter))

    def _pair(self, peer: ParticipantId) -> None:
        """Have the keys of unicast streams with this member: made when first needed, since most pairs never speak."""
        member = self.state.members.get(peer)
        if member is not None and peer not in self._paired:
            self._paired.add(peer)
            shared = self.exchange.shared(member.exchange_key)
            self.keyring.set_pair(peer, pair_prk(self.session, self.me, self.exchange.public, peer, member.exchange_key, shared))

    def request(self, wish: Request, now: float) -> None:
        """Ask the organizer. Raises Congested, SessionOver."""
        self.say(Channel.KEY, encode(wish), self.state.organizer)

    def _send(self, channel: int, content: bytes, recipient: ParticipantId) -> None:
        packets = self.channels.seal(channel, content, recipient)
        self.out.extend(packets)
        if channel == Channel.CHAT:
            counter = self.channels.last(Channel.CHAT)
            self._chat_event(self.me, content, counter)

    def _flush(self, now: float) -> None:
        while self._unsent and self.may_seal:
            channel, content, recipient = self._unsent.popleft()
            if channel == Channel.CHAT and not self.state.may_send(self.me, channel, self.state.index, 2**63):
                self._drop(NotAllowed("The right to chat ended before this line could be sent."), self.me)
                continue
            self._send(channel, content, recipient)

    # hearing something

    def receive_untrusted(self, packet: bytes, now: float) -> None:
        """Whatever the relay brought. Raises nothing: what is refused becomes a `Dropped` event with its name."""
        try:
            header = parse_packet_untrusted(packet)
        except WireError as error:
            self._drop(error)
            return
        if header.session != self.session or header.recipient not in (EVERYONE, self.me) or header.sender == self.me:
            self._drop(Misdelivered())
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
        self.dropped["handshake-late"] += 1

    def tick(self, now: float) -> None:
        """Time passes: at least once a second."""
        self.keyring.expire(now)
        if self.held.expire(now):
            self._retry(now)
        if self.state.ended or not self.joined or self.state.organizer == self.me:
            return
        finding = self.pulse.tick(now, linked=self._linked)
        if finding.missing is not None:
            self.events.append(events.OrganizerMissing(finding.missing))
        for stream, counter in finding.lost:
            self.dropped["withheld"] += 1
            self.channels.go_on(stream, counter)
            self.have.jump(stream, counter)
        if finding.resync:
            self._resync()

    def _resync(self) -> None:
        self.dropped["withheld"] += 1
        self._send(Channel.KEY, encode(Resync()), self.state.organizer)

    def _take(self, header: PacketHeader, packet: bytes, now: float) -> Outcome:
        """Open one packet, and do what it says."""
        message = None
        try:
            if header.recipient == self.me and header.channel != Channel.KEY:
                self._pair(header.sender)
            message = self.channels.open_untrusted(packet, now)
        except (UnknownSender, UnknownEpoch):
            return Outcome.WAITS
        except LaterIndex:
            return Outcome.WAITS_FIRST
        except NeedsSnapshot:
            self.dropped[NeedsSnapshot.name] += 1
            self.events.append(events.ScreenGap(header.sender))
        except (ParleyError, CryptoError) as error:
            self._drop(error, header.sender)
            if isinstance(error, Gap) and self._go_on(header, now):
                return self._take(header, packet, now)
        if header.channel in RELIABLE_CHANNELS:  # had is what moved the stream, not what a header claims
            self.have.jump(header.stream, self.channels.counter(header.stream))
        try:
            changed = message is not None and self._dispatch(message, now)
        except (EndpointError, CryptoError) as error:
            self._drop(error, header.sender)
            return Outcome.DONE
        return Outcome.CHANGED if changed else Outcome.DONE

    def _go_on(self, header: PacketHeader, now: float) -> bool:
        """What is missing before this packet is lost: no relay leaves a gap but for that. True if its stream goes on here at once; public
        ones do so where the organizer went on, by its heartbeat and a resync."""
        if header.recipient == self.me:
            self.channels.go_on(header.stream)
            return True
        if header.channel == Channel.LOG:
            self.pulse.behind(now)
        return False

    def _retry(self, now: float) -> None:
        self.held.retry(lambda packet: self._take(parse_packet_untrusted(packet), packet, now))

    def _drop(self, error: ParleyError | CryptoError, sender: ParticipantId = EVERYONE) -> None:
        self.dropped[error.name] += 1
        self.events.append(events.Dropped(error.name, error.sentence, sender))

    def _dispatch(self, message: Message, now: float) -> bool:
        channel = message.channel
        if channel == Channel.LOG:
            item = self._log_item
            if message.sender != self.state.organizer:
                raise ForgedEntry("not the organizer's stream")
            if isinstance(item, Heartbeat):
                self._heartbeat(item, now)
                return False
            assert item is not None
            self.apply(item, now)
            return True
        if channel == Channel.KEY:
            before = self.state.index, self.keyring.current
            self._key_message(message.sender, parse_key_message_untrusted(message.content), now)
            return before != (self.state.index, self.keyring.current)
        if channel == Channel.CHAT:
            self._chat_event(message.sender, message.content, message.counter)
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

    def _chat_event(self, sender: ParticipantId, content: bytes, counter: int) -> None:
        line = parse_chat_untrusted(content)
        self._shown[sender] = counter
        self.events.append(events.ChatReceived(sender, self.name(sender), clean_line(line.text), line.time_ms, counter))

    def name(self, participant: ParticipantId) -> str:
        """A name that is fit to be shown."""
        member = self.state.known(participant)
        return clean_name(member.name) if member else f"participant {participant}"

    # the log

    def apply(self, signed: SignedEntry, now: float) -> None:
        """The next entry: state, keys, events. Raises BrokenChain, IllegalEntry."""
        presenter, control = self.state.presenter, self.state.control
        self.state.apply(signed)
        fields = signed.entry.fields
        if isinstance(fields, log.Leave | log.Dismiss | log.Chat):
            for sender, cut in self.state.withdrawn():
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
            case log.EpochEntry():
                self._awaited = (fields.epoch, fields.digest)
                self._choose_key(now)
            case log.End():
                self.keyring.forget()
                self._unsent.clear()
                self._keys.clear()
                self.events.append(events.SessionEnded())
            case _:
                pass
        if self.state.presenter != presenter:
            presenter = self.state.presenter
            self.events.append(events.PresenterChanged(presenter, self.name(presenter) if presenter else ""))
        if self.state.control != control:
            control = self.state.control
            self.events.append(events.ControlChanged(control, self.name(control) if control else ""))

    def _gone(self, participant: ParticipantId, grace: float, now: float) -> None:
        self.keyring.drop_peer(participant, now, grace)
        self.channels.forget(participant)
        self.away -= {participant}
        if participant == self.me:
            self.keyring.forget()
            self.joined = False
            self.events.append(events.Removed("dismissed" if grace == 0 else "left", "You are not in the session any more."))
            return
        self.events.append(events.MemberLeft(participant, self.name(participant), dismissed=grace == 0))

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
        """On a guest's channel 0 only the organizer speaks."""
        organizer = self._host[0] if self._host else self.state.organizer
        if sender != organizer:
            raise NotAllowed("keys come from the organizer")
        if isinstance(message, GroupKey):
            ours = self.state.head_at(message.index)
            if ours is not None and ours != message.head:
                raise Fork("a group key under another head")
            keys = self._keys.setdefault(message.epoch, [])
            keys.append(message.key)
            del keys[:-MAX_KEYS]
            while len(self._keys) > MAX_KEYS:
                del self._keys[min(self._keys)]
            self._choose_key(now)
        elif isinstance(message, LogSnapshot):
            self._adopt(sender, message, now)

    def _choose_key(self, now: float) -> None:
        """The entry's digest chooses among the keys that came for its epoch."""
        if self._awaited is None:
            return
        epoch, digest = self._awaited
        for key in self._keys.get(epoch, ()):
            if group_key_digest(key) == digest:
                self.keyring.install(epoch, key, now)
                self.keyring.advance(epoch, now)
                self._awaited = None
                self._keys = {number: keys for number, keys in self._keys.items() if number > epoch}
                return

    def _adopt(self, sender: ParticipantId, message: LogSnapshot, now: float) -> None:
        """Begin, or begin again, at the organizer's snapshot. Raises MalformedEntry, MalformedContent, ForgedEntry, Fork."""
        key = self._host[1] if self._host else self.state.organizer_key
        try:
            verify(key, message.signature, LABEL_SNAPSHOT, self.session.to_bytes(8, "big"), message.state, message.start)
        except CryptoError:
            raise ForgedEntry from None
        try:
            snapshot = _decode_snapshot(message.state)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            raise MalformedEntry from None
        start = {Stream(ParticipantId(p), EVERYONE, c): counter for p, c, counter in parse_cuts_untrusted(message.start)}
        ours = self.state.head_at(snapshot.index)
        if ours is not None and ours != snapshot.head:
            raise Fork("a snapshot of another log")
        if snapshot.index < self.state.index:
            self.dropped["snapshot-old"] += 1
            return
        state = State.from_snapshot(self.session, self.state.meeting_key, snapshot)
        if self.me not in state.members or state.organizer_key != key or state.organizer != sender:
            raise MalformedEntry
        wrapped = self._keys.get(state.epoch, [])
        if not self.joined or self.keyring.current != state.epoch:
            if not wrapped:
                raise MalformedEntry("the key of the snapshot's epoch did not come before it")
            self.keyring.install(state.epoch, wrapped[-1], now)
            self.keyring.advance(state.epoch, now)
        self._keys = {number: keys for number, keys in self._keys.items() if number > state.epoch}
        self._awaited = None
        first = not self.joined
        before = self.state
        for participant in [] if first else [i for i in before.members if i not in state.members]:
            self._gone(participant, LEAVE_GRACE, now)
        self.state = state
        self.channels.begin_at(start, state.members)
        self.have.merge((*stream, counter) for stream, counter in start.items())
        self.pulse.begin(now)
        self.joined = True
        if not first:
            self._tell_what_changed(before)
        self._adopted(first, now)
        self._flush(now)

    def _tell_what_changed(self, before: State) -> None:
        """After a resync: events for what the missing entries did."""
        for member in self.state.members.values():
            if member.id not in before.members:
                self.events.append(events.MemberJoined(ParticipantId(member.id), clean_name(member.name)))
        presenter = self.state.presenter
        if presenter != before.presenter:
            self.events.append(events.PresenterChanged(presenter, self.name(presenter) if presenter else ""))
        control = self.state.control
        if control != before.control:
            self.events.append(events.ControlChanged(control, self.name(control) if control else ""))

    def _adopted(self, first: bool, now: float) -> None:
        """For a guest: it is in."""
