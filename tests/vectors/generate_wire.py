"""Write the vectors of the outer layer: `python tests/vectors/generate_wire.py`. Deterministic: same code, same bytes.

For a second implementation in another language. Bytes are lower-case hex; 64-bit integers are 16 hex digits, smaller ones numbers.

    frames     a byte stream and what it means: frames, or the name of the error that closes the link
    control    each message: its frame, and its body as the msgpack value that it is (bytes as {"hex": …})
    refused    frames of malformed messages, with the name of the error
    packets    32 bytes of clear header and what stands in them, or the name of the error

tests/wire/test_wire_vectors.py regenerates and compares.
"""

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from wire import control as c
from wire.errors import WireError
from wire.frame import HEADER as FRAME_HEADER
from wire.frame import MAX_BODY, Frame, FrameDecoder, encode_frame
from wire.ids import Epoch, ParticipantId, SessionId
from wire.packet import HEADER, TAG_SIZE, VERSION_SUITE, Flag, pack_header, parse_packet_untrusted

HERE: Final = Path(__file__).parent
SESSION: Final = 0x0123456789ABCDEF
TOKEN: Final = bytes.fromhex("00112233445566ff")
ADDRESSES: Final = [("192.0.2.7", 8200), ("2001:db8::7", 443), ("relay.example.org", 80)]
POSITIONS: Final = [(1, 0, 1, 41), (2, 0, 2, -1), (2, 0x80000001, 3, 2**40), (0xFFFFFFFF, 0, 8, 2**63 - 1)]

Case = dict[str, Any]

MESSAGES: Final[tuple[c.Control, ...]] = (
    c.Hello(1, SESSION, 7, 2, TOKEN, True, []),
    c.Hello(1, 2**64 - 1, 0xFFFFFFFF, 255, TOKEN, False, POSITIONS, more=True),
    c.Hello(1, SESSION, 7, 2, TOKEN, False, [], more=True, standby=True),
    c.Welcome(1, "relay-1", -1, 12, [(7, 0, 2, 3)]),
    c.Error("token-refused", "ask for a new ticket"),
    c.Error("left"),
    c.Have(POSITIONS),
    c.Have([], more=True),
    c.Ping(0),
    c.Ping(2**64 - 1),
    c.Pong(1_000_000),
    c.Taken([(7, 0, 2, 3)]),
    c.Lost([(9, 0, 2, 70)]),
    c.Want(0x01000002),
    c.Fetch(70),
    c.Admitted([7, 8, 9]),
    c.Office(1, [2, 3]),
    c.Revoke(8),
    c.End(),
    c.Presence([1, 7], [8]),
    c.NodeHello(1, c.NodeInfo("relay-1", ADDRESSES, "eu")),
    c.NodeWelcome(1, "relay-2"),
    c.Membership(3, [c.NodeInfo("relay-1", ADDRESSES, "eu"), c.NodeInfo("relay-2", [("192.0.2.8", 8200)])]),
    c.Facts(5, SESSION, [c.Grant(7, 2, TOKEN)], [7], [8], 1, [2], 4, ended=False),
    c.Facts(0, SESSION, ended=True),
    c.FactsAck(5),
    c.NodeHave(SESSION, POSITIONS, more=True, readers=True),
    c.NodeHave(SESSION, [], readers=False),
    c.NodeWant(SESSION, 2),
    c.NodePresence(SESSION, [1], []),
    c.Load(1000, 12),
    c.Load(3, 1, draining=True),
    c.NodeState(c.NodeInfo("relay-1", [("192.0.2.1", 8200)], "eu"), 1_700_000_000, 3, [("relay-2", 0), ("relay-3", 4)], 1000, 12),
    c.NodeState(c.NodeInfo("relay-1", [("192.0.2.1", 8200)]), 1_700_000_000, 4, draining=True, left=True),
    c.NodeReaders("relay-1", 1_700_000_000, 5, [SESSION]),
    c.NodeReaders("relay-1", 1_700_000_000, 6, [SESSION], readers=False),
    c.Crl(b"DER"),
)


def u64(value: int) -> str:
    return f"{value:016x}"


def plain(value: Any) -> Any:
    """A message as JSON: arrays, numbers as they are (64-bit ones may exceed a double), bytes as {"hex": …}."""
    if isinstance(value, msgspec.Struct):
        return [plain(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def frame_cases() -> list[Case]:
    two = encode_frame(0, b"sealed", hops=3) + encode_frame(5, b"\x91\x00")
    streams = {
        "two frames": two,
        "an empty body": encode_frame(255, b""),
        "an unfinished header": two + two[:7],
        "an unfinished body": two + two[:-1][:12],
        "over the limit": two + FRAME_HEADER.pack(MAX_BODY + 1, 0, 0, 0),
        "reserved bits": two + FRAME_HEADER.pack(0, 0, 0, 1) + two,
    }
    return [frame_case(name, stream) for name, stream in streams.items()]


def frame_case(name: str, stream: bytes) -> Case:
    decoder = FrameDecoder()
    frames: list[Case] = []
    case: Case = {"name": name, "stream": stream.hex(), "frames": frames}
    try:
        for frame in decoder.feed_untrusted(stream):
            frames.append({"type": frame.type, "hops": frame.hops, "body": frame.body.hex()})
    except WireError as error:
        return case | {"refused": error.name}
    return case | {"waiting": decoder.buffered}


def control_cases() -> list[Case]:
    return [{"message": type(m).__name__, "type": m.TYPE, "frame": c.encode_control(m).hex(), "body": plain(m)} for m in MESSAGES]


def refused_cases() -> list[Case]:
    hello = msgspec.msgpack.encode(MESSAGES[0])
    bodies = {
        "truncated": (1, hello[:-1]),
        "bytes behind the message": (1, hello + b"\x00"),
        "a field too few": (5, b"\x90"),
        "a map": (5, b"\x81\x00\x00"),
        "a participant of 33 bits": (12, msgspec.msgpack.encode([2**32])),
        "a counter below -1": (4, msgspec.msgpack.encode([[[1, 0, 2, -2]]])),
        "a token of seven bytes": (1, msgspec.msgpack.encode([1, 5, 7, 2, TOKEN[:7], True, []])),
        "text for a token": (1, msgspec.msgpack.encode([1, 5, 7, 2, "8 bytes!", True, []])),
        "a list over its limit": (10, msgspec.msgpack.encode([[1] * (c.MAX_ENTRIES + 1)])),
        "an unknown type": (200, b"\x90"),
    }
    cases = []
    for name, (kind, body) in bodies.items():
        try:
            c.decode_control_untrusted(Frame(kind, 0, body))
        except WireError as error:
            cases.append({"name": name, "frame": encode_frame(kind, body).hex(), "refused": error.name})
        else:
            raise AssertionError(f"{name} was not refused")
    return cases


def packet_cases() -> list[Case]:
    def header(flags: int, channel: int, recipient: int, epoch: int, counter: int, sender: int = 7) -> bytes:
        return pack_header(flags, channel, SessionId(SESSION), ParticipantId(sender), ParticipantId(recipient), Epoch(epoch), counter)

    tag = bytes(TAG_SIZE)
    packets = {
        "the first chat line": header(Flag.SIGNED | Flag.LAST, 2, 0, 1, 0) + tag,
        "a packet in the middle of a screen update": header(Flag.COMPRESSED, 5, 0, 0x01000002, 2**64 - 1) + tag,
        "a restart of the compression": header(Flag.COMPRESSED | Flag.SIGNED | Flag.RESTART | Flag.LAST, 5, 0, 1, 9) + tag,
        "a key packet": header(Flag.LAST, 0, 9, 0, 3) + tag,
        "a handshake packet": header(Flag.CLEAR | Flag.LAST, 0, 9, 0, 1) + b"A",
        "no body": header(Flag.LAST, 2, 0, 1, 0),
        "a shortened tag": header(Flag.LAST, 2, 0, 1, 0) + tag[:-1],
        "another version": bytes((0x21,)) + header(Flag.LAST, 2, 0, 1, 0)[1:] + tag,
        "another suite": bytes((0x12,)) + header(Flag.LAST, 2, 0, 1, 0)[1:] + tag,
        "an unknown flag": header(32, 2, 0, 1, 0) + tag,
        "an unknown channel": header(Flag.LAST, 11, 0, 1, 0) + tag,
        "reserved bits": HEADER.pack(VERSION_SUITE, 8, 2, 1, SESSION, 7, 0, 1, 0) + tag,
        "no sender": header(Flag.LAST, 2, 0, 1, 0, sender=0) + tag,
        "chat to one on the channel for all": header(Flag.LAST, 2, 9, 0, 0) + tag,
        "a whisper to everyone": header(Flag.LAST, 3, 0, 1, 0) + tag,
        "a whisper to oneself": header(Flag.LAST, 3, 7, 0, 0) + tag,
        "unicast under a group epoch": header(Flag.LAST, 3, 9, 1, 0) + tag,
        "multicast without an epoch": header(Flag.LAST, 2, 0, 0, 0) + tag,
        "a clear packet on another channel": header(Flag.CLEAR | Flag.LAST, 3, 9, 0, 0) + tag,
        "a clear packet that is signed": header(Flag.CLEAR | Flag.SIGNED | Flag.LAST, 0, 9, 0, 0) + tag,
    }
    return [packet_case(name, packet) for name, packet in packets.items()]


def packet_case(name: str, packet: bytes) -> Case:
    case: Case = {"name": name, "packet": packet.hex()}
    try:
        h = parse_packet_untrusted(packet)
    except WireError as error:
        return case | {"refused": error.name}
    fields = {"flags": h.flags, "channel": h.channel, "session": u64(h.session), "sender": h.sender}
    return case | fields | {"recipient": h.recipient, "epoch": h.epoch, "counter": u64(h.counter)}


def documents() -> dict[str, str]:
    """File name → text."""
    document = {"frames": frame_cases(), "control": control_cases(), "refused": refused_cases(), "packets": packet_cases()}
    return {"wire.json": json.dumps(document, indent=1) + "\n"}


if __name__ == "__main__":
    for name, text in documents().items():
        (HERE / name).write_text(text)
