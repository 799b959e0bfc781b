"""Control messages: everything that travels beside packets, each a frozen typed message with its limits.

    endpoint → relay     Hello (Have …) · Have · Want · Fetch · Admitted · Office · Revoke · End
    relay → endpoint     Welcome · Taken · Want · Office · Presence · Lost
    node ↔ node          NodeHello, NodeWelcome · Facts · NodeHave · NodeWant · NodePresence · NodeState · NodeReaders · Crl
    manager ↔ node       NodeHello, NodeWelcome · Membership · Facts, FactsAck · Load · Crl
    anybody              Ping · Pong · Error

A message is a frame (`wire.frame`) whose type is the message's `TYPE` and whose body is a msgpack array of its fields in the order of
their declaration. A longer array is legal and its rest is ignored, so that fields can be appended.
"""

from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta, Struct

from wire.errors import CloseReason, FrameTooLarge, LocalMisuse, MalformedMessage, UnknownFrameType
from wire.frame import Frame, encode_frame
from wire.ids import RoleToken
from wire.packet import MAX_PACKET

VERSION: Final = 1
MAX_ENTRIES: Final = 1024
"""Entries of one list in one message; longer lists go in parts."""

U8 = Annotated[int, Meta(ge=0, le=0xFF)]
U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
# msgspec's bounds are signed 64-bit, its integers are not: what is above is refused by `struct` or never found
U64 = Annotated[int, Meta(ge=0)]
Counter = Annotated[int, Meta(ge=-1)]
"""The last contiguous counter of a stream; -1: nothing."""
Token = Annotated[bytes, Meta(min_length=RoleToken.SIZE, max_length=RoleToken.SIZE)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Position = tuple[U32, U32, U8, Counter]
"""sender, recipient, channel, last contiguous counter."""
Positions = Annotated[list[Position], Meta(max_length=MAX_ENTRIES)]
Participants = Annotated[list[U32], Meta(max_length=MAX_ENTRIES)]
Address = tuple[Annotated[str, Meta(min_length=1, max_length=255)], U16]
"""Host (name, IPv4 or IPv6 without brackets) and TCP port."""


class Control(Struct, frozen=True, array_like=True):
    """A control message."""

    TYPE: ClassVar[int]


class Hello(Control, frozen=True, array_like=True):
    """Who calls, and what it has. `fresh`: a newcomer, who gets channel 0 alone until its first `Have`. `standby`: a second link in reserve,
    of which the have-vector (`more`) is not said before it is needed; until then the relay keeps the session's packets ready."""

    TYPE: ClassVar[int] = 1
    version: U8
    session: U64
    participant: U32
    role: U8
    token: Token
    fresh: bool
    have: Positions
    more: bool = False  # `Have` parts follow
    standby: bool = False

    def __repr__(self) -> str:
        return f"Hello(session=…, participant={self.participant}, role={self.role}, fresh={self.fresh})"


class Welcome(Control, frozen=True, array_like=True):
    """The link is up. `key_counter`, `log_counter`: the node's last counters of channels 0 and 1 for the caller; nothing new may be
    sealed before they are applied. `taken`: what the node has of the caller's own streams."""

    TYPE: ClassVar[int] = 2
    version: U8
    node: Name
    key_counter: Counter
    log_counter: Counter
    taken: Positions
    office: U32 = 0  # who organizes, as far as the node knows: whom a guest addresses. The handshake proves it, not this.
    max_packet: U32 = MAX_PACKET


class Error(Control, frozen=True, array_like=True):
    """The last message of a link that ends for a named reason."""

    TYPE: ClassVar[int] = 3
    reason: Annotated[str, Meta(max_length=64)]
    detail: Annotated[str, Meta(max_length=512)] = ""

    @property
    def close_reason(self) -> CloseReason:
        """The reason; one that this version does not know counts as `internal-error`."""
        try:
            return CloseReason(self.reason)
        except ValueError:
            return CloseReason.INTERNAL


class Have(Control, frozen=True, array_like=True):
    """A part of a have-vector: the rest of a hello's, or a newcomer's `start`."""

    TYPE: ClassVar[int] = 4
    have: Positions
    more: bool = False


class Ping(Control, frozen=True, array_like=True):
    """Keep-alive. The stamp is the sender's own business and comes back in `Pong`."""

    TYPE: ClassVar[int] = 5
    stamp: U64


class Pong(Control, frozen=True, array_like=True):
    TYPE: ClassVar[int] = 6
    stamp: U64


class Taken(Control, frozen=True, array_like=True):
    """What this node has of the receiver's own streams: it need not be kept any longer."""

    TYPE: ClassVar[int] = 7
    taken: Positions


class Lost(Control, frozen=True, array_like=True):
    """Packets that no node can bring: each stream goes on after the counter named here."""

    TYPE: ClassVar[int] = 8
    streams: Positions


class Want(Control, frozen=True, array_like=True):
    """A reader wants a snapshot of at least this epoch; a node says so to whoever presents."""

    TYPE: ClassVar[int] = 9
    epoch: U32


class Admitted(Control, frozen=True, array_like=True):
    """Said by the organizer's link: these may send to all from now on."""

    TYPE: ClassVar[int] = 10
    participants: Participants


class Office(Control, frozen=True, array_like=True):
    """Said by the holder's link (or a listed successor's, after 60 s of silence): who may write channel 1. A relay repeats it to every
    endpoint when it changes, so that a guest in the middle of a join begins anew with the new organizer."""

    TYPE: ClassVar[int] = 11
    participant: U32
    successors: Annotated[list[U32], Meta(max_length=16)]


class Revoke(Control, frozen=True, array_like=True):
    """Said by the office: this participant's links close, its token is dead in this session."""

    TYPE: ClassVar[int] = 12
    participant: U32


class End(Control, frozen=True, array_like=True):
    """Said by the office after the signed last entry: the session is over."""

    TYPE: ClassVar[int] = 13


class Presence(Control, frozen=True, array_like=True):
    """To the office: who has a link now and who has none. A server's word, therefore no more than a hint."""

    TYPE: ClassVar[int] = 14
    here: Participants
    away: Participants


class Fetch(Control, frozen=True, array_like=True):
    """A reader asks for the office's packets of channel 10 from this counter on, as far as they are here. Once each time."""

    TYPE: ClassVar[int] = 15
    counter: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class NodeInfo(Struct, frozen=True, array_like=True):
    """A relay as the manager knows it."""

    node: Name
    addresses: Annotated[list[Address], Meta(min_length=1, max_length=16)]
    region: Annotated[str, Meta(max_length=64)] = ""


class NodeHello(Control, frozen=True, array_like=True):
    """A server calls another one. Who it is stands in its certificate; this must agree with it."""

    TYPE: ClassVar[int] = 32
    version: U8
    info: NodeInfo


class NodeWelcome(Control, frozen=True, array_like=True):
    TYPE: ClassVar[int] = 33
    version: U8
    node: Name


class Membership(Control, frozen=True, array_like=True):
    """The live relays, from the manager. A higher epoch replaces a lower one."""

    TYPE: ClassVar[int] = 34
    epoch: U64
    nodes: Annotated[list[NodeInfo], Meta(max_length=MAX_ENTRIES)]


class Grant(Struct, frozen=True, array_like=True):
    """What one ticket gives its holder at a relay."""

    participant: U32
    role: U8
    token: Token

    def __repr__(self) -> str:
        return f"Grant(participant={self.participant}, role={self.role}, token=…)"


class Facts(Control, frozen=True, array_like=True):
    """What nodes know of a session. Every field adds to what is known; nothing is ever taken back, so order does not matter:
    `revoked` beats `grants`, `ended` beats all, and a higher `term` of the office beats a lower one.

    `serial` other than 0 asks for a `FactsAck`.
    """

    TYPE: ClassVar[int] = 35
    serial: U64
    session: U64
    grants: Annotated[list[Grant], Meta(max_length=MAX_ENTRIES)] = []
    admitted: Participants = []
    revoked: Participants = []
    office: U32 = 0
    successors: Annotated[list[U32], Meta(max_length=16)] = []
    term: U32 = 0  # how often the office has changed hands
    ended: bool = False


class FactsAck(Control, frozen=True, array_like=True):
    TYPE: ClassVar[int] = 36
    serial: U64


class NodeHave(Control, frozen=True, array_like=True):
    """A node has members of this session: it wants its packets from now on, and lacks all that is not listed here."""

    TYPE: ClassVar[int] = 37
    session: U64
    have: Positions
    more: bool = False
    readers: bool = True  # False: no members left here; send no more


class NodeWant(Control, frozen=True, array_like=True):
    TYPE: ClassVar[int] = 38
    session: U64
    epoch: U32


class NodePresence(Control, frozen=True, array_like=True):
    TYPE: ClassVar[int] = 39
    session: U64
    here: Participants
    away: Participants


class Load(Control, frozen=True, array_like=True):
    """To the manager, every few seconds: how busy a node is."""

    TYPE: ClassVar[int] = 40
    links: U32
    sessions: U32
    draining: bool = False  # no session shall begin there


class NodeState(Control, frozen=True, array_like=True):
    """What a node says of itself; every node passes what is news to it on to all others. A higher (boot, serial) replaces a lower one.

    `links`: the nodes that it has a link to, with the class of the round-trip time (`mcs.overlay.rtt_class`). `left`: it has stopped in order.
    """

    TYPE: ClassVar[int] = 41
    info: NodeInfo
    boot: U64  # rises with every start of this node
    serial: U64
    peers: Annotated[list[tuple[Name, U8]], Meta(max_length=MAX_ENTRIES)] = []
    links: U32 = 0  # of endpoints
    sessions: U32 = 0
    draining: bool = False
    left: bool = False


class NodeReaders(Control, frozen=True, array_like=True):
    """Which sessions a node has readers of; passed on like `NodeState`. For each session the highest serial of the node's last boot counts.

    `fresh`: it has still to be brought what the others have, so nothing should go through it."""

    TYPE: ClassVar[int] = 42
    node: Name
    boot: U64
    serial: U64
    sessions: Annotated[list[U64], Meta(max_length=MAX_ENTRIES)]
    readers: bool = True
    fresh: bool = False


class Crl(Control, frozen=True, array_like=True):
    """The cluster's revoked certificates: an X.509 CRL in DER, signed by the CA, so that it may come from anybody. The higher number counts."""

    TYPE: ClassVar[int] = 43
    crl: Annotated[bytes, Meta(min_length=1, max_length=512 * 1024)]


MESSAGES: Final[tuple[type[Control], ...]] = (
    Hello, Welcome, Error, Have, Ping, Pong, Taken, Lost, Want, Admitted, Office, Revoke, End, Presence,
    Fetch, NodeHello, NodeWelcome, Membership, Facts, FactsAck, NodeHave, NodeWant, NodePresence, Load,
    NodeState, NodeReaders, Crl,
)  # fmt: skip
_DECODERS: Final = {message.TYPE: msgspec.msgpack.Decoder(message) for message in MESSAGES}
_ENCODER: Final = msgspec.msgpack.Encoder()


def encode_control(message: Control) -> bytes:
    """The message as a frame. Raises `LocalMisuse` if it does not fit its own limits' encoding."""
    try:
        return encode_frame(message.TYPE, _ENCODER.encode(message))
    except (OverflowError, TypeError, FrameTooLarge) as error:  # too large by our own doing: not the peer's blame
        raise LocalMisuse(f"{type(message).__name__} cannot be encoded") from error


def decode_control_untrusted(frame: Frame) -> Control:
    """The typed message in a frame that is not a packet.

    Raises `UnknownFrameType` or `MalformedMessage`.
    """
    decoder = _DECODERS.get(frame.type)
    if decoder is None:
        raise UnknownFrameType
    try:
        return decoder.decode(frame.body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedMessage(str(error)[:200]) from None
