"""The session log's entries: their bytes, their hash chain, their signatures. What they mean is `endpoint.state`'s business.

    entry body   msgpack [index, previous hash, counter, [kind, field, field, …]]
    hash         SHA-256(framed("parley entry 1", body))
    signature    Ed25519 over framed("parley entry 1", body)
    on the wire  (channel 1)   0 u8 ‖ signature 64 ‖ body
    heartbeat    (channel 1)   1 u8 ‖ signature 64 over framed("parley beat 1", body) ‖ body, body = msgpack of `Heartbeat`

`counter` is that of the packet of channel 1 in which the message begins. Every member can make the channel's MAC: only this keeps one of them
from saying an old heartbeat again at a counter that is to come, which would shut out what the organizer says there.

Entries are read strictly: an array that is longer than its kind is refused, since a member that ignored a field would replay another state
than the rest. Heartbeats may grow. Names are counted in Unicode code points.

Entry 0 is `Open`; its previous hash is SHA-256(framed("parley log 1", session)), so no log continues another session's. Bytes are
verified and hashed as they arrive and never encoded anew, so an implementation in another language need not agree on anything but
msgpack.
"""

from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from crypto.errors import CryptoError
from crypto.signing import SigningKey, verify
from crypto.suite import LABEL_LOG, framed
from endpoint.errors import ForgedEntry, MalformedEntry
from wire.ids import SessionId

U8 = Annotated[int, Meta(ge=0, le=0xFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
Id = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
MemberName = Annotated[str, Meta(min_length=1, max_length=64)]
Counter = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TimeMs = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
"""Unix time in milliseconds, to the end of the year 9999: what every library can show."""
Cut = tuple[Id, U8, Annotated[int, Meta(ge=-1, le=2**63 - 1)]]
"""participant, channel, the last counter that the organizer had applied when a right ended."""
MAX_MEMBERS: Final = 20_000
MAX_SUCCESSORS: Final = 16
Cuts = Annotated[list[Cut], Meta(max_length=2 * MAX_MEMBERS)]

ENTRY: Final = 0
HEARTBEAT: Final = 1
SIGNATURE_SIZE: Final = 64
MAX_ENTRY: Final = 1 << 20
"""Bytes of one entry: an admit of a thousand members has about 150 KB."""
MAX_BATCH: Final = 1024
"""Members in one admit."""


class Member(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A participant's full entry: what everyone knows of whoever may send to all. It refers to nothing that could refer back, and a full hall
    has thousands: the collector need not look at them."""

    id: Id
    role: U8
    name: MemberName
    signing_key: PublicKey
    exchange_key: PublicKey


class Open(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    session: Annotated[bytes, Meta(min_length=8, max_length=8)]
    meeting_key: PublicKey
    organizer: Member
    epoch: U32


class Admit(Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Newcomers, and the epoch that everyone ratchets to. Members who may send on no public stream stand in `others` by digest alone."""

    members: Annotated[list[Member], Meta(max_length=MAX_BATCH)]
    epoch: U32
    others: U32 = 0
    others_digest: Annotated[bytes, Meta(max_length=32)] = b""


class Leave(Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """They said so, or were away for 120 s. The cuts are each leaver's last counters."""

    participants: Annotated[list[Id], Meta(min_length=1, max_length=MAX_BATCH)]
    cuts: Cuts


class Dismiss(Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """Gone at once; knocking is on from here."""

    participant: Id
    cuts: Cuts


class Presenter(Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True):
    """Who presents from here on; 0: nobody. Ends every control grant."""

    participant: U32


class Control(Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """Mouse and keyboard of the presenter's machine, lent to one participant; 0: taken back."""

    participant: U32


class Chat(Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True):
    """The right to chat to all: of one participant, or (participant 0) of everybody who has no setting of its own."""

    participant: U32
    allowed: bool
    cuts: Cuts


class Lock(Struct, frozen=True, array_like=True, tag=8, forbid_unknown_fields=True):
    locked: bool


class Knock(Struct, frozen=True, array_like=True, tag=9, forbid_unknown_fields=True):
    """Whether a newcomer waits until the organizer lets it in."""

    required: bool


class Rename(Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True):
    participant: Id
    name: MemberName


class EpochEntry(Struct, frozen=True, array_like=True, tag=11, forbid_unknown_fields=True):
    """Commits a new group key, which each member has got alone: its digest chooses among those."""

    epoch: U32
    digest: Hash


class HandOver(Struct, frozen=True, array_like=True, tag=12, forbid_unknown_fields=True):
    """From here on only the new organizer's key signs. `accept`: the signature by that key over framed("parley accept 1", session, previous
    hash, participant, signing key, exchange key, epoch)."""

    participant: Id
    signing_key: PublicKey
    exchange_key: PublicKey
    accept: Signature
    epoch: U32


class Successors(Struct, frozen=True, array_like=True, tag=13, forbid_unknown_fields=True):
    """Who may take over after 60 s without the organizer, each with its Ed25519 key: with the take-over, this entry proves the right to it
    to somebody who knows nothing else of the log."""

    participants: Annotated[list[tuple[Id, PublicKey]], Meta(max_length=MAX_SUCCESSORS)]


class TakeOver(Struct, frozen=True, array_like=True, tag=14, forbid_unknown_fields=True):
    """Signed by the successor. The epoch is the first number of the next term; the key that follows has the second."""

    participant: Id
    epoch: U32


class Yield(Struct, frozen=True, array_like=True, tag=15, forbid_unknown_fields=True):
    """The former organizer has seen the take-over, of which this is the hash, and accepts it: its signature over
    framed("parley yield 1", session, take-over)."""

    take_over: Hash
    signature: Signature


class End(Struct, frozen=True, array_like=True, tag=16, forbid_unknown_fields=True):
    pass


Fields = (
    Open
    | Admit
    | Leave
    | Dismiss
    | Presenter
    | Control
    | Chat
    | Lock
    | Knock
    | Rename
    | EpochEntry
    | HandOver
    | Successors
    | TakeOver
    | Yield
    | End
)


class Entry(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    index: U32
    previous: Hash
    counter: Counter
    fields: Fields


class Heartbeat(Struct, frozen=True, array_like=True):
    """The organizer lives: its head, its clock, the counters of public reliable streams that moved, who is away."""

    index: U32
    head: Hash
    counter: Counter
    time_ms: TimeMs
    counters: Cuts
    away: Annotated[list[Id], Meta(max_length=MAX_MEMBERS)] = []


class SignedEntry(Struct, frozen=True):
    """An entry together with the bytes that were signed."""

    entry: Entry
    body: bytes
    signature: bytes

    @property
    def hash(self) -> bytes:
        return entry_hash(self.body)

    @property
    def wire(self) -> bytes:
        return bytes((ENTRY,)) + self.signature + self.body


_ENTRY_LABEL: Final = b"parley entry 1"
_BEAT_LABEL: Final = b"parley beat 1"
_decode_entry: Final = msgspec.msgpack.Decoder(Entry).decode
_decode_heartbeat: Final = msgspec.msgpack.Decoder(Heartbeat).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def entry_hash(body: bytes) -> bytes:
    return sha256(framed(_ENTRY_LABEL, body)).digest()


def genesis(session: SessionId) -> bytes:
    """What entry 0 names as its predecessor."""
    return sha256(framed(LABEL_LOG, session.to_bytes(8, "big"))).digest()


def sign_entry(key: SigningKey, index: int, previous: bytes, counter: int, fields: Fields) -> SignedEntry:
    """Raises `MalformedEntry` for what no member could read."""
    entry = Entry(index, previous, counter, fields)
    body = _encode(entry)
    try:
        _decode_entry(body)
    except msgspec.ValidationError as error:
        raise MalformedEntry(str(error)[:200]) from None
    return SignedEntry(entry, body, key.sign(_ENTRY_LABEL, body))


def sign_heartbeat(key: SigningKey, beat: Heartbeat) -> bytes:
    """The heartbeat as it goes out on channel 1."""
    body = _encode(beat)
    return bytes((HEARTBEAT,)) + key.sign(_BEAT_LABEL, body) + body


def parse_log_untrusted(content: bytes, author: bytes | None, counter: int) -> SignedEntry | Heartbeat:
    """What a message of channel 1 says, its signature checked against the author's Ed25519 key, its place against
    the `counter` of the packet in which it began.

    `author` None: the author's key is inside (entry 0, which the caller compares with the meeting key).
    Raises `MalformedEntry`, `ForgedEntry`.
    """
    if author is None:
        claimed = peek_untrusted(content)
        if not (isinstance(claimed, Entry) and isinstance(claimed.fields, Open)):
            raise ForgedEntry
        author = claimed.fields.organizer.signing_key
    parsed = authenticate_untrusted(content, author)
    if parsed.counter != counter:
        raise ForgedEntry("said at another counter")
    return SignedEntry(parsed, content[1 + SIGNATURE_SIZE :], content[1 : 1 + SIGNATURE_SIZE]) if isinstance(parsed, Entry) else parsed


def peek_untrusted(content: bytes) -> Entry | Heartbeat:
    """What a message of channel 1 claims; nothing is checked but its form. Raises `MalformedEntry`."""
    return _read_untrusted(content)[0]


def read_entry_untrusted(content: bytes, author: bytes) -> SignedEntry:
    """An entry that is shown as a proof, wherever it was said; signed by `author`. Raises `MalformedEntry`, `ForgedEntry`."""
    parsed = authenticate_untrusted(content, author)
    if not isinstance(parsed, Entry):
        raise MalformedEntry
    return SignedEntry(parsed, content[1 + SIGNATURE_SIZE :], content[1 : 1 + SIGNATURE_SIZE])


def authenticate_untrusted(content: bytes, author: bytes) -> Entry | Heartbeat:
    """What `author` has said, wherever it belongs. Raises `MalformedEntry`, `ForgedEntry`."""
    parsed, label, signature, body = _read_untrusted(content)
    try:
        verify(author, signature, label, body)
    except CryptoError:
        raise ForgedEntry from None
    return parsed


def _read_untrusted(content: bytes) -> tuple[Entry | Heartbeat, bytes, bytes, bytes]:
    """What it says, the label of its signature, the signature, the signed bytes."""
    if not 1 + SIGNATURE_SIZE < len(content) <= MAX_ENTRY:
        raise MalformedEntry
    kind, signature, body = content[0], content[1 : 1 + SIGNATURE_SIZE], content[1 + SIGNATURE_SIZE :]
    label = {ENTRY: _ENTRY_LABEL, HEARTBEAT: _BEAT_LABEL}.get(kind)
    if label is None:
        raise MalformedEntry
    try:
        parsed: Entry | Heartbeat = _decode_entry(body) if kind == ENTRY else _decode_heartbeat(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedEntry(str(error)[:200]) from None
    return parsed, label, signature, body
