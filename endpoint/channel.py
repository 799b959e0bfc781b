"""Messages ⇄ sealed packets: the one user of the keyring. Sans-IO; `now` is an argument.

A message is one or more packets of one stream; flag LAST stands on the last one. Its payloads together are

    key, log, cursor,     content
    roster
    signed channels       log index u32 ‖ first 16 bytes of that entry's hash ‖ content, where the last packet's plaintext begins
                          with the Ed25519 signature over framed("parley sig 1", MSG)
    MSG                   SHA-256(framed("parley msg 1", base, header 1, payload 1, …)); `base` is empty, but on channel 5 the MSG of
                          the update before, so that updates form a chain (32 zero bytes at its beginning)
    snapshot (channel 9)  content = channel-5 counter i64 (-1: no update yet) and base, 32 bytes, that it continues at ‖ picture

COMPRESSED on the last packet says that content is one zstd frame that declares its size (not on channels 5 and 9, whose content is the
codec's own, nor on 7). RESTART stands on every packet of its message, on channels 5 and 9 alone.

Opening goes in the order of docs/protocol.md: form → roster → key → MAC → counter → decrypt → whole message → signature → right →
decompress. A stream's replay state moves only after the last authenticity check, so parts that are collected move nothing: every member
can make a group's MAC. An authentic message that is refused for lack of right still moves it. What cannot be judged yet (`UnknownSender`,
`UnknownEpoch`, `LaterIndex`) changes nothing, so it can be tried again.
"""

import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import zstandard

from crypto.errors import EpochClosed
from crypto.keyring import Keyring
from crypto.replay import Replay, StrictlyNext, StrictlyRising, Window
from crypto.signing import MessageHash, SigningKey, verify
from crypto.suite import LABEL_SIGNATURE
from endpoint.errors import (
    Fork,
    LaterIndex,
    MalformedContent,
    MessageTooLarge,
    Misdelivered,
    NeedsSnapshot,
    NoRight,
    NotInOffice,
    UnknownSender,
    WrongFlags,
)
from wire.ids import EVERYONE, Channel, Epoch, ParticipantId, SessionId, Stream
from wire.packet import (
    HEADER_SIZE,
    MAX_CONTENT,
    RELIABLE_CHANNELS,
    SIGNED_CHANNELS,
    Flag,
    PacketHeader,
    pack_header,
    parse_packet_untrusted,
)

SIGNATURE_SIZE: Final = 64
INDEX: Final = struct.Struct("!I16s")
"""The prefix of signed payloads: log index, head."""
CONTINUES: Final = struct.Struct("!q32s")
"""The prefix of a snapshot: the channel-5 counter and base that it continues at."""
NO_BASE: Final = bytes(32)
COMPRESS_FROM: Final = 512
"""Bytes; shorter contents go as they are."""

MAX_MESSAGE: Final[dict[int, int]] = {
    Channel.KEY: 1 << 16,  # an estate with the longest chain
    Channel.LOG: 1 << 20,
    Channel.CHAT: MAX_CONTENT,
    Channel.WHISPER: MAX_CONTENT,
    Channel.INPUT: MAX_CONTENT,
    Channel.SCREEN: 16 << 20,
    Channel.CURSOR: MAX_CONTENT,
    Channel.VOICE: MAX_CONTENT,
    Channel.FILE: MAX_CONTENT,
    Channel.SNAPSHOT: 64 << 20,
    Channel.ROSTER: 8 << 20,  # a snapshot of the state of ten thousand members
}
"""Bytes of a message, its signature included, before and after decompression."""
_SINGLE: Final = frozenset(channel for channel, size in MAX_MESSAGE.items() if size == MAX_CONTENT)
"""Channels whose messages are one packet: nothing unauthentic is ever buffered for them."""
_CHAINED: Final = Channel.SCREEN
_UNCOMPRESSED: Final = frozenset((Channel.SCREEN, Channel.VOICE, Channel.SNAPSHOT))
_RESTARTING: Final = frozenset((Channel.SCREEN, Channel.SNAPSHOT))


@dataclass(frozen=True, slots=True)
class Message:
    """One authentic message. `counter` is its last packet's; `index` the log index that a signed one names, else -1."""

    sender: ParticipantId
    recipient: ParticipantId
    channel: int
    counter: int
    content: bytes = field(repr=False)
    index: int = -1
    restart: bool = False


class Roster(Protocol):
    """What opening needs to know of the session's state."""

    @property
    def index(self) -> int:
        """Of the last entry applied."""

    def signing_key(self, sender: ParticipantId) -> bytes | None:
        """Ed25519, of a member or one that was; None: not on the roster."""

    def head_at(self, index: int) -> bytes | None: ...

    def may_send(self, sender: ParticipantId, channel: int, index: int, counter: int) -> bool: ...

    def check_log(self, sender: ParticipantId, content: bytes, counter: int) -> None:
        """Authenticate a message of channel 1 that begins in this packet by its own signature. Raises LogError, NotInOffice."""


@dataclass(slots=True)
class _Incoming:
    """One stream as its receiver sees it."""

    replay: Replay
    joined_late: bool = False  # passed-over packets may precede the first that opens
    first: int | None = None  # counter of the first packet of the message being collected; None: none is
    last: int = -1  # and of the last one so far
    parts: list[tuple[bytes, bytes]] = field(default_factory=list)  # header, payload; empty if it is too large
    size: int = 0

    def drop(self) -> None:
        self.first = None
        self.parts.clear()
        self.size = 0


class Channels:
    """One member's streams, outgoing and incoming."""

    def __init__(self, session: SessionId, me: ParticipantId, key: SigningKey, keyring: Keyring, roster: Roster) -> None:
        self.session = session
        self.me = me
        self.keyring = keyring
        self._key = key
        self._roster = roster
        self.limits = dict(MAX_MESSAGE)  # of what arrives; who expects less may say so
        self._incoming: dict[Stream, _Incoming] = {}
        self._start: dict[Stream, int] = {}
        self._begun: dict[Stream, None] = {}  # others' public reliable streams: few have any
        self._elders: frozenset[ParticipantId] = frozenset()  # who was here before us
        self._base = NO_BASE  # MSG of our last screen update
        self._chain: dict[ParticipantId, tuple[int, bytes]] = {}  # per presenter: last counter, base

    # outgoing

    def last(self, channel: int, recipient: ParticipantId = EVERYONE) -> int:
        """The last counter sealed in this stream; -1: none. Raises CryptoError without a key."""
        return self.keyring.sealer(recipient, channel)[1].last

    def seal(self, channel: int, content: bytes, recipient: ParticipantId = EVERYONE, *, restart: bool = False) -> list[bytes]:
        """The packets of one message, in order.

        Raises MessageTooLarge, or CryptoError if there is no key for the stream.
        """
        signed = channel in SIGNED_CHANNELS
        flags = Flag.RESTART if restart else Flag(0)
        if len(content) > MAX_MESSAGE[channel] - (SIGNATURE_SIZE + INDEX.size if signed else 0):
            raise MessageTooLarge
        if channel not in _UNCOMPRESSED and len(content) >= COMPRESS_FROM:
            smaller = zstandard.ZstdCompressor(level=3).compress(content)
            if len(smaller) < len(content):
                content, flags = smaller, flags | Flag.COMPRESSED
        if signed:
            head = self._roster.head_at(self._roster.index)
            content = INDEX.pack(self._roster.index, (head or NO_BASE)[:16]) + content
        # the last packet needs room for the signature, so it is cut first
        room = MAX_CONTENT - (SIGNATURE_SIZE if signed else 0)
        whole = max(0, -(-(len(content) - room) // MAX_CONTENT))
        pieces = [content[i * MAX_CONTENT : (i + 1) * MAX_CONTENT] for i in range(whole)] + [content[whole * MAX_CONTENT :]]
        epoch, sealer = self.keyring.sealer(recipient, channel)
        digest = MessageHash(self._base if channel == _CHAINED else b"")
        packets: list[bytes] = []
        for piece in pieces:
            is_last = len(packets) == whole
            marks = flags | Flag.LAST | (Flag.SIGNED if signed else 0) if is_last else flags & Flag.RESTART
            counter = sealer.last + 1
            header = pack_header(marks, channel, self.session, self.me, recipient, Epoch(epoch), counter)
            if signed:
                digest.update(header, piece)
                if is_last:
                    piece = self._key.sign(LABEL_SIGNATURE, digest.digest()) + piece
            packets.append(sealer.seal(header, counter, piece))
        if channel == _CHAINED:
            self._base = digest.digest()
        return packets

    def seal_snapshot(self, picture: bytes) -> list[bytes]:
        """The whole screen, for readers that lack it; our next update continues it."""
        return self.seal(Channel.SNAPSHOT, CONTINUES.pack(self.last(Channel.SCREEN), self._base) + picture, restart=True)

    # incoming

    def begin_at(self, start: dict[Stream, int], members: Iterable[ParticipantId]) -> None:
        """A newcomer's: the streams of those who were here before begin after the counters named, and their packets before the first
        that opens are passed over."""
        self._start = start
        self._begun.update(dict.fromkeys(start))
        self._elders = frozenset(members)
        for stream, counter in start.items():
            incoming = self._incoming.get(stream)
            if incoming is not None and incoming.replay.last < counter:
                del self._incoming[stream]  # a resync: what lies between is not coming any more

    def expect(self, stream: Stream, counter: int) -> None:
        """Of this stream, its packets from here on, strictly in order: those of channel 10 that somebody has named."""
        self._incoming[stream] = _Incoming(StrictlyNext(counter - 1))

    def counter(self, stream: Stream) -> int:
        """The last counter of a stream that was accepted, or that a snapshot passed over; -1: none."""
        incoming = self._incoming.get(stream)
        return incoming.replay.last if incoming else self._start.get(stream, -1)

    def begun(self, channels: Collection[int]) -> list[tuple[Stream, int]]:
        """Others' public streams of these channels that have begun here, and their last counters."""
        known = [(stream, self.counter(stream)) for stream in self._begun if stream.channel in channels and stream.sender != self.me]
        return [(stream, counter) for stream, counter in known if counter >= 0]

    def go_on(self, stream: Stream, counter: int = -1) -> None:
        """What is missing of a reliable stream, up to `counter` at least, is lost: like a newcomer, take whatever comes next and is
        authentic."""
        incoming = self._incoming.get(stream) or self._new_stream(stream)
        incoming.drop()
        self._note_begun(stream)
        incoming.replay, incoming.joined_late = StrictlyRising(max(counter, incoming.replay.last)), True

    def shown(self, sender: ParticipantId) -> int:
        """The channel-5 counter of this presenter up to which its screen has come here; -1: nothing has."""
        return self._chain.get(sender, (-1, NO_BASE))[0]

    def forget(self, sender: ParticipantId) -> None:
        """Nothing more of this sender is expected: drop what was collected of unfinished messages."""
        for stream, incoming in self._incoming.items():
            if stream.sender == sender:
                incoming.drop()
        self._chain.pop(sender, None)

    def open_untrusted(self, packet: bytes, now: float) -> Message | None:
        """The message that this packet completes; None if it is not the last of its message, or of before our time.

        Raises WireError (form), MessageError, LogError or CryptoError, each named; after `UnknownSender`, `UnknownEpoch` and
        `LaterIndex` the same packet may be tried again.
        """
        header = parse_packet_untrusted(packet)
        if header.session != self.session or header.recipient not in (EVERYONE, self.me) or header.flags & Flag.CLEAR:
            raise Misdelivered
        _check_flags(header)
        key = self._roster.signing_key(header.sender)
        if key is None and header.channel != Channel.LOG:  # an organizer that comes back is nobody yet: its entry says who it is
            raise UnknownSender
        stream = header.stream
        incoming = self._incoming.get(stream)
        if incoming is None:
            incoming = self._new_stream(stream, keep=key is not None)
        try:
            opener = self.keyring.opener(header.sender, header.recipient, header.channel, header.epoch, now, keep=key is not None)
        except EpochClosed:
            if incoming.joined_late:
                return None  # sealed before we came
            raise
        opener.verify(packet)
        if incoming.first is None or header.counter != incoming.last + 1:
            incoming.replay.check(header.counter)
            incoming.drop()  # a message begins: of the one before, something was skipped
        plaintext = opener.decrypt(packet, header.counter)
        return self._collect(packet[:HEADER_SIZE], header, plaintext, incoming, key or b"")

    def _new_stream(self, stream: Stream, *, keep: bool = True) -> _Incoming:
        incoming = _Incoming(_replay(stream.channel))
        if stream.channel == Channel.LOG:  # one writer, and all its packets open from the start on
            incoming.replay = StrictlyNext(self._start.get(stream, -1))
        elif stream.sender in self._elders and stream.recipient == EVERYONE and stream.channel in RELIABLE_CHANNELS:
            # strictly rising until the first packet opens, strictly next from there
            incoming.replay = StrictlyRising(self._start.get(stream, -1))
            incoming.joined_late = True
        if keep:
            self._incoming[stream] = incoming
        return incoming

    def _collect(self, raw: bytes, header: PacketHeader, plaintext: bytes, incoming: _Incoming, key: bytes) -> Message | None:
        """Add one authentic packet to its message. (The MAC is the group's: who sent it is known only with the signature.)"""
        channel = header.channel
        first = header.counter if incoming.first is None else incoming.first
        if not header.flags & Flag.LAST:
            if channel != Channel.KEY and not self._roster.may_send(header.sender, channel, self._roster.index, header.counter):
                if channel == Channel.LOG:
                    raise NotInOffice
                raise NoRight(f"channel {channel}, participant {header.sender}")  # nothing of strangers is collected
            incoming.first, incoming.last = first, header.counter
            incoming.size += len(plaintext)
            if incoming.size <= self.limits[channel]:
                incoming.parts.append((raw, plaintext))
            else:
                incoming.parts.clear()
            return None
        if incoming.size + len(plaintext) > self.limits[channel]:
            incoming.drop()
            raise MessageTooLarge
        signature = b""
        if channel in SIGNED_CHANNELS:
            signature, plaintext = plaintext[:SIGNATURE_SIZE], plaintext[SIGNATURE_SIZE:]
        parts = [*incoming.parts, (raw, plaintext)]
        content = b"".join(payload for _, payload in parts)
        try:
            message = self._authenticate(header, first, parts, content, signature, key)
        except (LaterIndex, NotInOffice):
            raise  # the same packet comes again
        except Exception as error:
            incoming.drop()
            if isinstance(error, Fork):  # which is authentic
                self._note_begun(header.stream)
                self._accept(incoming, first, header.counter)
            raise
        incoming.drop()
        self._incoming[header.stream] = incoming
        self._note_begun(header.stream)
        self._accept(incoming, first, header.counter)
        if channel in SIGNED_CHANNELS and not self._roster.may_send(header.sender, channel, message.index, header.counter):
            raise NoRight(f"channel {channel}, participant {header.sender}, counter {header.counter}", certain=True, index=message.index)
        if header.flags & Flag.COMPRESSED:
            content = _decompress_untrusted(message.content, self.limits[channel])
            message = Message(message.sender, message.recipient, channel, message.counter, content, message.index, message.restart)
        return message

    def _authenticate(
        self,
        header: PacketHeader,
        first: int,
        parts: list[tuple[bytes, bytes]],
        content: bytes,
        signature: bytes,
        key: bytes,
    ) -> Message:
        """`first`: counter of the message's first packet."""
        channel, sender = header.channel, header.sender
        index = -1
        if channel == Channel.LOG:
            plain = _decompress_untrusted(content, MAX_MESSAGE[channel]) if header.flags & Flag.COMPRESSED else content
            self._roster.check_log(sender, plain, first)
        elif channel in SIGNED_CHANNELS:
            if len(content) < INDEX.size:
                raise MalformedContent
            base = b""
            if channel == _CHAINED:
                counter, base = self._chain.get(sender, (-1, NO_BASE))
                if counter + 1 != first:
                    raise NeedsSnapshot
            digest = MessageHash(base)
            for raw, payload in parts:
                digest.update(raw, payload)
            verify(key, signature, LABEL_SIGNATURE, digest.digest())
            index, head = INDEX.unpack_from(content)
            content = content[INDEX.size :]
            if index > self._roster.index:
                raise LaterIndex
            ours = self._roster.head_at(index)
            if ours is not None and ours[:16] != head:
                raise Fork(f"participant {sender} at index {index}")
            if channel == _CHAINED:
                self._chain[sender] = (header.counter, digest.digest())
            elif channel == Channel.SNAPSHOT:
                content = self._follow(sender, content)
        return Message(sender, header.recipient, channel, header.counter, content, index, bool(header.flags & Flag.RESTART))

    def _follow(self, sender: ParticipantId, content: bytes) -> bytes:
        """An authentic snapshot: updates go on from where it says, never from further back than we are."""
        if len(content) < CONTINUES.size:
            raise MalformedContent
        counter, base = CONTINUES.unpack_from(content)
        if counter < self._chain.get(sender, (-1, NO_BASE))[0]:
            raise NeedsSnapshot("older than what is shown")
        self._chain[sender] = (counter, base)
        screen = self._incoming.setdefault(Stream(sender, EVERYONE, Channel.SCREEN), _Incoming(StrictlyRising()))
        screen.drop()
        if counter > screen.replay.last:
            screen.replay.accept(counter)
        return content[CONTINUES.size :]

    def _note_begun(self, stream: Stream) -> None:
        if stream.recipient == EVERYONE and stream.channel in RELIABLE_CHANNELS:
            self._begun[stream] = None

    def _accept(self, incoming: _Incoming, first: int, last: int) -> None:
        """A message is authentic: so are all its packets."""
        for counter in range(first, last + 1):
            incoming.replay.accept(counter)
        if incoming.joined_late:
            incoming.replay, incoming.joined_late = StrictlyNext(last), False


def _replay(channel: int) -> Replay:
    if channel in (Channel.KEY, Channel.SCREEN, Channel.CURSOR, Channel.SNAPSHOT):
        return StrictlyRising()
    return Window() if channel == Channel.VOICE else StrictlyNext()


def _check_flags(header: PacketHeader) -> None:
    """What each channel requires. Raises WrongFlags."""
    flags, channel = header.flags, header.channel
    if flags & Flag.RESTART and channel not in _RESTARTING:
        raise WrongFlags
    if not flags & Flag.LAST:
        if channel in _SINGLE or flags & (Flag.SIGNED | Flag.COMPRESSED):
            raise WrongFlags
        return
    if bool(flags & Flag.SIGNED) != (channel in SIGNED_CHANNELS):
        raise WrongFlags
    if flags & Flag.COMPRESSED and channel in _UNCOMPRESSED:
        raise WrongFlags


def _decompress_untrusted(content: bytes, limit: int) -> bytes:
    """One zstd frame of a declared size within `limit`, and nothing behind it. zstandard ignores `max_output_size` when a frame declares its
    size: so that is checked first, and an undeclared size refused. Raises MessageTooLarge, MalformedContent."""
    try:
        declared = zstandard.frame_content_size(content) if content.startswith(zstandard.FRAME_HEADER) else -1
        if declared < 0:
            raise MalformedContent
        if declared > limit:
            raise MessageTooLarge
        frame = zstandard.ZstdDecompressor(max_window_size=1 << 23)
        with frame.stream_reader(content) as reader:
            plain = reader.read(declared + 1)
        if len(plain) == declared:  # so its size is bounded, and it may be read once more: is it all there is?
            whole = frame.decompressobj()
            whole.decompress(content)
            if whole.eof and not whole.unused_data:
                return bytes(plain)
    except zstandard.ZstdError:
        pass
    raise MalformedContent
