"""What a member says: chat, whispers, hands, pointers, screens, requests. Sans-IO.

Sealing waits where the protocol says so: after `welcome` until the channel-0 and channel-1 counters that it names are applied, and
between an epoch's entry and its key. What is said meanwhile stays plaintext in `_unsent` and is sealed afterwards, if the right still
holds. Hands and screens do not wait: what they did a while ago is not wanted any more.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from crypto.errors import CryptoError
from crypto.keyring import Keyring
from crypto.schedule import pair_prk
from crypto.signing import ExchangeKey, SigningKey
from endpoint import events
from endpoint.channel import Channels, Roster
from endpoint.errors import Congested, NotAllowed, SessionOver, TooLong
from endpoint.hands import Input, Pointer
from endpoint.messages import (
    MAX_TEXT,
    ChatLine,
    Read,
    Request,
    Status,
    Verb,
    Whisper,
    encode,
    parse_chat_untrusted,
    parse_whisper_untrusted,
)
from endpoint.state import State
from endpoint.text import clean_line, clean_name
from endpoint.wrapped import WrappedKeys
from wire.control import Control
from wire.errors import ParleyError
from wire.have import HaveVector
from wire.ids import EVERYONE, Channel, ParticipantId, SessionId, Stream

MAX_UNSENT: Final = 256
"""Messages that wait, unsealed, for a link or a key."""
FIRST_STATUS: Final = 5.0
STATUS_EVERY: Final = 30.0
"""Seconds between two words to the organizer about our link."""


def unix_ms() -> int:
    return int(time.time() * 1000)


class Speaker(Roster):
    """Half of a member (`endpoint.member`). Owned by one task; everything here is synchronous."""

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
        self.keys = WrappedKeys(self.keyring)
        self.channels = Channels(session, me, signing, self.keyring, self)
        self.have = HaveVector()
        self.out: deque[bytes | Control] = deque()  # sealed packets and control messages, in order; the session drains it
        self.events: deque[events.Event] = deque()  # likewise
        self.dropped: Counter[str] = Counter()  # by name
        self.refused: Counter[ParticipantId] = Counter()  # what each member sent, beyond doubt, without the right to
        self.joined = False
        self.features: frozenset[str] | None = None  # what our ticket lets the meeting offer; the chair keeps to it. None: everything
        self.wall_ms = wall_ms
        self.relay_office = EVERYONE  # whom our relay lets write the log, by its word
        self._paired: set[ParticipantId] = set()
        self._shown: dict[ParticipantId, int] = {}  # counter of each one's last chat line that was shown
        self._whispered: dict[ParticipantId, list[int]] = {}  # counters of our whispers that nobody has confirmed
        self._unsent: deque[tuple[int, bytes, ParticipantId]] = deque()
        self._linked = False
        self._welcome = (EVERYONE, -1, -1)  # the relay's office, and its counters of channels 0 and 1 that must be applied before we seal
        self._status: tuple[float, int] | None = None  # when we last told our round trip, and which

    # links

    def linked(self, office: ParticipantId, key_counter: int, log_counter: int, now: float) -> None:
        """A link is up; the node names its office, and its last counters of channels 0 and 1 for us."""
        self._linked = True
        self.relay_office = office
        self._welcome = (office, key_counter, log_counter)
        self._flush(now)

    def unlinked(self) -> None:
        self._linked = False

    @property
    def may_seal(self) -> bool:
        """Whether a message may be sealed now, or has to wait as plaintext."""
        office, key_counter, log_counter = self._welcome
        return (
            self.joined
            and not self.state.ended
            and self._linked
            and not self.keys.awaited
            and (
                self.me in (self.state.organizer, office)
                or (
                    self.have.last(Stream(office, self.me, Channel.KEY)) >= key_counter
                    and self.have.last(Stream(office, EVERYONE, Channel.LOG)) >= log_counter
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
        text = _line(text)
        if not text:
            return
        if self.joined and not self.state.may_send(self.me, Channel.CHAT, self.state.index, 2**63):
            raise NotAllowed("The organizer has taken the right to chat from you.")
        self.say(Channel.CHAT, encode(ChatLine(text, self.wall_ms())))

    def whisper(self, recipient: ParticipantId, text: str) -> None:
        """A line to one member, under the key of the two. Raises TooLong, NotAllowed, Congested, SessionOver."""
        text = _line(text)
        if not text:
            return
        if recipient == self.me or recipient not in self.state.members:
            raise NotAllowed("Nobody else of that name is here to whisper to.")
        if not self.whispers:
            raise NotAllowed("An administrator, or whoever scheduled this meeting, has turned whispers off for it.")
        if not self._may_whisper(self.me, recipient):
            raise NotAllowed("The organizer has taken the right to chat from you; you may still whisper to the organizer.")
        self.say(Channel.WHISPER, encode(Whisper(text, self.wall_ms())), recipient)

    @property
    def whispers(self) -> bool:
        """Whether this meeting offers them, by our ticket. Every member's says the same, so what comes all the same is dropped."""
        return self.features is None or "whisper" in self.features

    def _may_whisper(self, sender: ParticipantId, recipient: ParticipantId) -> bool:
        """Who may chat may whisper; and everybody to the organizer."""
        return recipient == self.state.organizer or self.state.may_send(sender, Channel.WHISPER, self.state.index, 2**63)

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

    def request(self, wish: Request, now: float) -> None:
        """Ask the organizer. Raises Congested, SessionOver."""
        self.say(Channel.KEY, encode(wish), self.state.organizer)

    def leave(self, now: float) -> None:
        """Say goodbye, with our last counters, so that everyone ends with the same chat."""
        if self.joined and not self.state.ended:
            last = self.channels.last(Channel.CHAT) if self.may_seal else -1
            self.request(Request(Verb.LEAVE, cuts=[(self.me, Channel.CHAT, last)]), now)

    def report_link(self, rtt: float, now: float) -> None:
        """Tell the organizer our round trip (seconds), at first and when it has become another one."""
        if self.state.organizer == self.me or not self.may_seal:
            return
        told_at, told = self._status = self._status or (now, -1)
        milliseconds = min(round(rtt * 1000), 1 << 31)
        moved = told < 0 or abs(milliseconds - told) >= max(10, told / 2)
        if moved and now - told_at >= (FIRST_STATUS if told < 0 else STATUS_EVERY):
            self._status = (now, milliseconds)
            self._send(Channel.KEY, encode(Status(milliseconds)), self.state.organizer)

    # keys of two

    def pair_prk(self, peer: ParticipantId, theirs: bytes = b"") -> bytes:
        """Of this member and ourselves; `theirs`: the key of somebody who is no member here yet. Raises CryptoError for a key that protects
        nothing."""
        theirs = theirs or self.state.members[peer].exchange_key
        return pair_prk(self.session, self.me, self.exchange.public, peer, theirs, self.exchange.shared(theirs))

    def _pair(self, peer: ParticipantId) -> None:
        """Have the keys of unicast streams with this member: made when first needed, since most pairs never speak."""
        if peer in self.state.members and peer not in self._paired:
            self._paired.add(peer)
            self.keyring.set_pair(peer, self.pair_prk(peer))

    def pair_key_channel(self, peer: ParticipantId, theirs: bytes = b"") -> None:
        """Channel 0 with this member runs under the key of the two: one of them organizes, and not since the other's join."""
        try:
            self.keyring.set_key_channel(peer, self.pair_prk(peer, theirs))
        except CryptoError as error:
            self.drop(error, peer)

    # inside

    def _send(self, channel: int, content: bytes, recipient: ParticipantId) -> None:
        if channel == Channel.WHISPER:
            self._pair(recipient)
        self.out.extend(self.channels.seal(channel, content, recipient))
        if channel == Channel.CHAT:
            self._chat_event(self.me, content, self.channels.last(Channel.CHAT))
        elif channel == Channel.WHISPER:
            said = parse_whisper_untrusted(content)
            if isinstance(said, Whisper):
                counter = self.channels.last(Channel.WHISPER, recipient)
                self._whispered.setdefault(recipient, []).append(counter)
                self._whisper_event(self.me, recipient, said, counter)

    def _whisper_event(self, sender: ParticipantId, recipient: ParticipantId, said: Whisper, counter: int) -> None:
        names = self.name(sender), self.name(recipient)
        self.events.append(events.WhisperReceived(sender, names[0], recipient, names[1], clean_line(said.text), said.time_ms, counter))

    def _whisper_heard(self, sender: ParticipantId, said: Whisper | Read, counter: int) -> None:
        if isinstance(said, Whisper):
            self._whisper_event(sender, self.me, said, counter)
            self._confirm(sender, counter)
        else:
            waiting = self._whispered.get(sender, [])
            self._whispered[sender] = [other for other in waiting if other > said.counter]
            self.events.append(events.WhisperRead(sender, said.counter))

    def _confirm(self, sender: ParticipantId, counter: int) -> None:
        """We have this member's whispers up to here."""
        if self.may_seal and not self._unsent:
            self._send(Channel.WHISPER, encode(Read(counter)), sender)
        elif len(self._unsent) < MAX_UNSENT:
            self._unsent.append((Channel.WHISPER, encode(Read(counter)), sender))

    def _flush(self, now: float) -> None:
        while self._unsent and self.may_seal:
            channel, content, recipient = self._unsent.popleft()
            if channel == Channel.CHAT and not self.state.may_send(self.me, channel, self.state.index, 2**63):
                self.drop(NotAllowed("The right to chat ended before this line could be sent."), self.me)
                continue
            if channel == Channel.WHISPER and recipient not in self.state.members:
                self.events.append(events.WhisperUndelivered(recipient, self.name(recipient), 1))
                continue
            self._send(channel, content, self.state.organizer if channel == Channel.KEY else recipient)

    def _chat_event(self, sender: ParticipantId, content: bytes, counter: int) -> None:
        line = parse_chat_untrusted(content)
        self._shown[sender] = counter
        self.events.append(events.ChatReceived(sender, self.name(sender), clean_line(line.text), line.time_ms, counter))

    def name(self, participant: ParticipantId) -> str:
        """A name that is fit to be shown."""
        member = self.state.known(participant)
        return clean_name(member.name) if member else f"participant {participant}"

    def drop(self, error: ParleyError | CryptoError, sender: ParticipantId = EVERYONE) -> None:
        """Refused by name; nothing else happens. `sender`: who it is beyond doubt."""
        self.dropped[error.name] += 1
        self.events.append(events.Dropped(error.name, error.sentence, sender))


def _line(text: str) -> str:
    """Raises TooLong."""
    text = clean_line(text)
    if len(text) > MAX_TEXT:
        raise TooLong
    return text
