"""What members say inside sealed packets, and the four messages of a join. Typed msgpack arrays with limits.

    channel 0, organizer → member     GroupKey · Roster · Waiting · Estate · Offer · Asked · Succession
    channel 0, member → organizer     Started · Resync · Request · Accept · Yielded · Status
    channel 2                         ChatLine
    channel 3                         Whisper · Read
    channel 10                        LogSnapshot · LogSequel
    channel 5                         kind u8 (`ScreenKind`) ‖ the codec's update

A join's messages go in clear packets (flag CLEAR), counter = 4·try + message number: see `endpoint.handshake`.
"""

from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from endpoint.errors import MalformedContent, MalformedHandshake
from endpoint.log import MAX_ENTRY, U8, U32, Counter, Cuts, Hash, Id, PublicKey, Signature, TimeMs

MAX_TEXT: Final = 4000
"""Characters (Unicode code points) of a chat line."""
Proof = Annotated[bytes, Meta(min_length=32, max_length=32)]
SrpValue = Annotated[bytes, Meta(min_length=384, max_length=384)]
Nonce = Annotated[bytes, Meta(min_length=16, max_length=16)]
MAX_CHAIN: Final = 32
Chain = Annotated[list[Annotated[bytes, Meta(max_length=1024)]], Meta(max_length=MAX_CHAIN)]
"""What leads from the meeting key to the organizer's key of today (`endpoint.succession`): entries as on channel 1."""


class Hello1(Struct, frozen=True, array_like=True, tag=1):
    """guest → organizer: who would join, under which keys."""

    version: U8
    session: Annotated[bytes, Meta(min_length=8, max_length=8)]
    participant: U32
    role: U8
    public: SrpValue  # A
    signing_key: PublicKey
    exchange_key: PublicKey
    nonce: Nonce


class Offer2(Struct, frozen=True, array_like=True, tag=2):
    """organizer → guest."""

    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]
    public: SrpValue  # B
    signing_key: PublicKey
    exchange_key: PublicKey
    nonce: Nonce


class Proof3(Struct, frozen=True, array_like=True, tag=3):
    """guest → organizer: M1, and the display name sealed under a key of its own."""

    proof: Proof
    name: Annotated[bytes, Meta(min_length=21, max_length=320)]


class Proof4(Struct, frozen=True, array_like=True, tag=4):
    """organizer → guest: M2; the hand-overs since the meeting key; the current organizer's signature over
    framed("parley host 1", TH, M1, M2)."""

    proof: Proof
    chain: Chain
    signature: Signature


class Refused4(Struct, frozen=True, array_like=True, tag=5):
    """organizer → guest, instead of message 2 or 4: `wrong-secret`, `join-busy`, `turned-away`. Not authentic: a hint for the person."""

    reason: Annotated[str, Meta(max_length=32)]


Handshake = Hello1 | Offer2 | Proof3 | Proof4 | Refused4


class GroupKey(Struct, frozen=True, array_like=True, tag=1):
    """The key of an epoch. Wrapped by being an ordinary packet of channel 0. It says nothing of the log: the log names the key."""

    epoch: U32
    key: Annotated[bytes, Meta(min_length=16, max_length=16)]

    def __repr__(self) -> str:
        return f"GroupKey(epoch={self.epoch})"


class Roster(Struct, frozen=True, array_like=True, tag=2):
    """Where the log can be read as it stands: packets `first` to `last` of channel 10, under a key of its own, and the digest of the messages
    in them, SHA-256(framed("parley shown 1", message, …)). For a newcomer, and for who resyncs. `log_counter`: of channel 1, the last packet
    up to here."""

    epoch: Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]  # in those packets' headers
    key: Annotated[bytes, Meta(min_length=16, max_length=16)]
    first: Counter
    last: Counter
    digest: Hash
    log_counter: Counter

    def __repr__(self) -> str:
        return f"Roster(packets {self.first} to {self.last})"


class LogSnapshot(Struct, frozen=True, array_like=True, tag=1):
    """{state at log index n, `start`: the counter applied at n of each public reliable stream}, signed over framed("parley snap 1",
    session, state, start)."""

    state: bytes  # msgpack of `endpoint.state.Snapshot`
    start: bytes  # msgpack of `Cuts`: [participant, channel, counter]
    signature: Signature


class LogSequel(Struct, frozen=True, array_like=True, tag=2):
    """The entries that follow, as they were said on channel 1, and what has moved of `start` meanwhile."""

    entries: list[Annotated[bytes, Meta(max_length=MAX_ENTRY)]]
    start: Cuts


class Started(Struct, frozen=True, array_like=True, tag=3):
    """member → organizer: the log is here; message 4 need not be repeated any more."""


class Resync(Struct, frozen=True, array_like=True, tag=4):
    """member → organizer: group key and roster again."""


class Verb(IntEnum):
    LEAVE = 1
    PRESENT = 2  # the sender, or (participant not 0) the presenter's choice
    CONTROL = 3  # the presenter lends its hands to `participant`, or takes them back (0)
    ASK_PRESENT = 4
    ASK_CONTROL = 5
    RAISE_HAND = 6
    RENAME = 7  # to `text`
    DECLINE = 8  # the chair that was offered


class Request(Struct, frozen=True, array_like=True, tag=5):
    """member → organizer: a wish, authentic by the pair's key. `cuts`: a leaver's last counters."""

    verb: U8
    participant: U32 = 0
    text: Annotated[str, Meta(max_length=256)] = ""
    cuts: Cuts = []


class Estate(Struct, frozen=True, array_like=True, tag=6):
    """organizer → a member that may follow it: what the chair needs to admit newcomers. `chain` ends with the entry that names a successor."""

    verifier: Annotated[bytes, Meta(min_length=400, max_length=400)]  # salt 16 ‖ v 384
    chain: Chain

    def __repr__(self) -> str:
        return f"Estate(chain of {len(self.chain)})"


class Offer(Struct, frozen=True, array_like=True, tag=7):
    """organizer → member: would you take the chair, at this place of the log, with this epoch to come?"""

    previous: Hash
    epoch: U32


class Accept(Struct, frozen=True, array_like=True, tag=8):
    """member → organizer: yes. The signature that the `hand-over` entry carries."""

    previous: Hash
    signature: Signature


class Yielded(Struct, frozen=True, array_like=True, tag=9):
    """former organizer → the one that took over. The signature that the `yield` entry carries."""

    take_over: Hash
    signature: Signature


class Waiting(Struct, frozen=True, array_like=True, tag=10):
    """organizer → guest: the secret matched, and the organizer's person has to let it in."""


class Asked(Struct, frozen=True, array_like=True, tag=11):
    """organizer → presenter: a member asks for mouse and keyboard."""

    participant: Id


class Status(Struct, frozen=True, array_like=True, tag=12):
    """member → organizer: the round trip of its link, as it measures it."""

    rtt_ms: U32


class Succession(Struct, frozen=True, array_like=True, tag=13):
    """organizer → a member that resyncs: how its role came to it, for one that missed that."""

    chain: Chain


KeyMessage = GroupKey | Roster | Started | Resync | Request | Estate | Offer | Accept | Yielded | Waiting | Asked | Status | Succession
ShownLog = LogSnapshot | LogSequel


class ChatLine(Struct, frozen=True, array_like=True):
    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    time_ms: TimeMs  # the sender's clock


class Whisper(Struct, frozen=True, array_like=True, tag=1):
    """A line to one member."""

    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    time_ms: TimeMs  # the sender's clock


class Read(Struct, frozen=True, array_like=True, tag=2):
    """The reader's program has your whispers up to this counter."""

    counter: Counter


class ScreenKind(IntEnum):
    """The first byte of a channel-5 message."""

    UPDATE = 0
    PAUSED = 1
    RESUMED = 2
    STOPPED = 3
    RESIZED = 4  # nothing continues: whoever watches wants the snapshot that follows


encode: Final = msgspec.msgpack.Encoder().encode
_handshake: Final[msgspec.msgpack.Decoder[Handshake]] = msgspec.msgpack.Decoder(Handshake)
_key: Final[msgspec.msgpack.Decoder[KeyMessage]] = msgspec.msgpack.Decoder(KeyMessage)
_shown: Final[msgspec.msgpack.Decoder[ShownLog]] = msgspec.msgpack.Decoder(ShownLog)
_chat: Final = msgspec.msgpack.Decoder(ChatLine)
_whisper: Final[msgspec.msgpack.Decoder[Whisper | Read]] = msgspec.msgpack.Decoder(Whisper | Read)
_cuts: Final = msgspec.msgpack.Decoder(Cuts)
_REFUSED: Final = (msgspec.MsgspecError, RecursionError, ValueError)


def parse_handshake_untrusted(body: bytes) -> Handshake:
    """Raises MalformedHandshake."""
    try:
        return _handshake.decode(body)
    except _REFUSED:
        raise MalformedHandshake from None


def parse_key_message_untrusted(content: bytes) -> KeyMessage:
    """Raises MalformedContent."""
    try:
        return _key.decode(content)
    except _REFUSED:
        raise MalformedContent from None


def parse_roster_untrusted(content: bytes) -> ShownLog:
    """Raises MalformedContent."""
    try:
        return _shown.decode(content)
    except _REFUSED:
        raise MalformedContent from None


def parse_chat_untrusted(content: bytes) -> ChatLine:
    """Raises MalformedContent."""
    try:
        return _chat.decode(content)
    except _REFUSED:
        raise MalformedContent from None


def parse_whisper_untrusted(content: bytes) -> Whisper | Read:
    """Raises MalformedContent."""
    try:
        return _whisper.decode(content)
    except _REFUSED:
        raise MalformedContent from None


def parse_cuts_untrusted(content: bytes) -> Cuts:
    """Raises MalformedContent."""
    try:
        return _cuts.decode(content)
    except _REFUSED:
        raise MalformedContent from None
