"""Messages and sealed packets: what arrives whole, and every way in which it does not."""

import random
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import CryptoError
from endpoint import log
from endpoint.channel import CONTINUES, MAX_MESSAGE, NO_BASE, SIGNATURE_SIZE, Channels, Message
from endpoint.errors import EndpointError, MessageTooLarge
from tests.endpoint.pair import ANN, BOB, EVE, OLGA, SESSION, SIGNING, Log, Peer, recipient
from wire.errors import WireError
from wire.ids import EVERYONE, Channel, ParticipantId, SessionId, Stream
from wire.packet import MAX_CONTENT, MAX_PACKET, SIGNED_CHANNELS, Flag

CONTENT_CHANNELS = [c for c in Channel if c != Channel.LOG]
MULTIPLE = [Channel.KEY, Channel.SCREEN, Channel.SNAPSHOT, Channel.ROSTER]
RELIABLE = [Channel.KEY, Channel.LOG, Channel.CHAT, Channel.WHISPER, Channel.INPUT, Channel.FILE]


def pair() -> tuple[Peer, Peer]:
    """Ann, who presents and holds Bob's hands as well, and Bob."""
    story = Log.meeting()
    ann, bob = Peer(ANN, story), Peer(BOB, story)
    bob.state.control = ann.state.control = ANN
    return ann, bob


def outcome(peer: Peer | Channels, packet: bytes, now: float = 0.0) -> str | bytes | None:
    """The content, None while more is to come, or the name of the refusal. Anything else that is raised is a defect."""
    channels = peer.channels if isinstance(peer, Peer) else peer
    try:
        message = channels.open_untrusted(packet, now)
    except (EndpointError, CryptoError, WireError) as error:
        return error.name
    return None if message is None else message.content


def sealed(peer: Peer, channel: int, content: bytes) -> list[bytes]:
    if channel == Channel.SNAPSHOT:
        return peer.channels.seal_snapshot(content)
    return peer.channels.seal(channel, content, recipient(channel), restart=channel == Channel.SCREEN)


# what arrives


@given(
    channel=st.sampled_from(CONTENT_CHANNELS),
    size=st.sampled_from(
        [0, 1, 511, 512, 3999, MAX_CONTENT - SIGNATURE_SIZE - 20, *range(MAX_CONTENT - 90, MAX_CONTENT + 90, 7), 2 * MAX_CONTENT, 50_000]
    ),
    packs=st.booleans(),
)
@settings(max_examples=120, derandomize=True)
def test_G28_what_is_sealed_arrives_whole_on_every_channel(channel: Channel, size: int, packs: bool) -> None:
    ann, bob = pair()
    one = bytes(size) if packs else random.Random(size).randbytes(size)
    for content in (one, one[::-1]):  # the second one continues the first
        try:
            packets = sealed(ann, channel, content)
        except MessageTooLarge:
            assert channel not in MULTIPLE
            return
        assert max(map(len, packets)) <= MAX_PACKET
        assert [outcome(bob, packet) for packet in packets] == [None] * (len(packets) - 1) + [content]


@pytest.mark.parametrize("channel", [c for c in CONTENT_CHANNELS if c not in MULTIPLE])
def test_a_message_for_one_packet_has_a_limit(channel: Channel) -> None:
    ann, bob = pair()
    rest = SIGNATURE_SIZE + 20 if channel in SIGNED_CHANNELS else 0
    largest = random.Random(1).randbytes(MAX_CONTENT - rest)
    (packet,) = sealed(ann, channel, largest)
    assert len(packet) == MAX_PACKET
    assert outcome(bob, packet) == largest
    with pytest.raises(MessageTooLarge):
        sealed(ann, channel, largest + b"x")


@pytest.mark.parametrize(("members", "parts"), [(1, 1), (200, 2), (1000, 7)])
def test_a_log_entry_of_any_size_arrives(members: int, parts: int) -> None:
    story = Log.meeting()
    olga, bob = Peer(OLGA, story), Peer(BOB, story)
    chance = random.Random(members)
    newcomers = [log.Member(100 + i, 2, chance.randbytes(20).hex(), chance.randbytes(32), chance.randbytes(32)) for i in range(members)]
    for _ in range(2):
        counter = olga.channels.last(Channel.LOG) + 1
        entry = log.sign_entry(SIGNING[OLGA], 3, story.entries[-1].hash, counter, log.Admit(newcomers, 3))
        packets = olga.channels.seal(Channel.LOG, entry.wire)
        assert len(packets) >= parts
        assert [outcome(bob, packet) for packet in packets] == [None] * (len(packets) - 1) + [entry.wire]


def test_contents_that_gain_nothing_go_as_they_are() -> None:
    ann, _ = pair()
    for content, flag in ((bytes(511), 0), (bytes(512), 1), (random.Random(1).randbytes(512), 0)):
        (packet,) = sealed(ann, Channel.CHAT, content)
        assert packet[1] & Flag.COMPRESSED == flag
    for channel in (Channel.SCREEN, Channel.SNAPSHOT, Channel.VOICE):
        assert not sealed(ann, channel, bytes(2000))[-1][1] & Flag.COMPRESSED


# order


def five(channel: Channel) -> tuple[Peer, list[bytes], list[bytes]]:
    ann, bob = pair()
    contents = [bytes((i,)) * 9 for i in range(5)]
    if channel == Channel.LOG:
        olga = Peer(OLGA, ann.story)
        beats = [log.sign_heartbeat(SIGNING[OLGA], log.Heartbeat(2, ann.state.head, i, i, [])) for i in range(5)]
        return bob, beats, [olga.channels.seal(Channel.LOG, beat)[0] for beat in beats]
    if channel == Channel.SCREEN:
        contents = contents[:1]
    return bob, contents, [sealed(ann, channel, content)[0] for content in contents]


@pytest.mark.parametrize("channel", RELIABLE[1:])
def test_G26_a_reliable_stream_takes_the_next_packet_and_no_other(channel: Channel) -> None:
    bob, contents, packets = five(channel)
    steps = [(1, "gap"), (0, contents[0]), (0, "replayed"), (2, "gap"), (1, contents[1]), (4, "gap"), (2, contents[2]), (3, contents[3])]
    for number, expected in steps:
        assert outcome(bob, packets[number]) == expected


@pytest.mark.parametrize("channel", [Channel.KEY, Channel.CURSOR, Channel.SNAPSHOT])
def test_a_rising_stream_never_goes_back(channel: Channel) -> None:
    bob, contents, packets = five(channel)
    if channel == Channel.SNAPSHOT:
        contents = [content[0:] for content in contents]
    for number, expected in [(1, contents[1]), (0, "replayed"), (1, "replayed"), (4, contents[4]), (3, "replayed")]:
        assert outcome(bob, packets[number]) == expected


def test_voice_may_be_late_within_its_window() -> None:
    bob, contents, packets = five(Channel.VOICE)
    for number, expected in [(3, contents[3]), (1, contents[1]), (1, "replayed"), (0, contents[0]), (4, contents[4]), (3, "replayed")]:
        assert outcome(bob, packets[number]) == expected


# splices: a packet of somewhere else


def alter(packet: bytes, at: int, size: int, value: int) -> bytes:
    return packet[:at] + value.to_bytes(size, "big") + packet[at + size :]


@pytest.mark.parametrize("channel", list(Channel))
@pytest.mark.parametrize(
    ("field", "at", "size", "value"),
    [
        ("session", 4, 8, 9),
        ("sender", 12, 4, EVE),
        ("sender unknown", 12, 4, 77),
        ("epoch", 20, 4, 1),
        ("epoch ahead", 20, 4, 9),
        ("counter", 24, 8, 3),
    ],
    ids=lambda value: str(value),
)
def test_G26_a_spliced_packet_is_refused_by_name(channel: Channel, field: str, at: int, size: int, value: int) -> None:
    bob, contents, packets = five(channel)
    bob.state.control = EVE
    altered = alter(packets[0], at, size, value)
    names = {"session": "misdelivered", "sender unknown": "sender-unknown"}
    if recipient(channel) == EVERYONE:
        names |= {"epoch": "epoch-closed", "epoch ahead": "epoch-closed" if channel == Channel.ROSTER else "unknown-epoch"}
    else:
        names |= {"epoch": "packet-malformed", "epoch ahead": "packet-malformed"}
    if channel == Channel.LOG:
        names["sender unknown"] = "bad-tag"  # an organizer that comes back is unknown, and its entry says who it is
    assert outcome(bob, altered) == names.get(field, "bad-tag")
    bob.state.control = ANN
    assert outcome(bob, packets[0]) == contents[0], "and it changed nothing"


@pytest.mark.parametrize("channel", list(Channel))
def test_G26_a_packet_of_one_stream_means_nothing_in_another(channel: Channel) -> None:
    bob, contents, packets = five(channel)
    for other in Channel:
        if other == channel:
            continue
        to = BOB if other in (Channel.KEY, Channel.WHISPER, Channel.INPUT) else EVERYONE
        moved = alter(alter(packets[0], 2, 1, other), 16, 4, to)
        moved = alter(moved, 20, 4, 0 if to else 2)
        moved = alter(moved, 1, 1, Flag.LAST | (Flag.SIGNED if other in SIGNED_CHANNELS else 0))
        assert outcome(bob, moved) == "bad-tag", other
    assert outcome(bob, packets[0]) == contents[0]


def test_G12_G26_a_whisper_is_for_its_two_ends_alone() -> None:
    ann, bob = pair()
    eve = Peer(EVE, ann.story)
    (packet,) = sealed(ann, Channel.WHISPER, b"for Bob")
    assert outcome(eve, packet) == "misdelivered"
    assert outcome(eve, alter(packet, 16, 4, EVE)) == "bad-tag"
    assert outcome(bob, alter(alter(packet, 12, 4, BOB), 16, 4, ANN)) == "misdelivered"
    assert outcome(bob, packet) == b"for Bob"


def test_G26_another_session_with_the_same_keys_shares_nothing() -> None:
    story = Log.meeting()
    elsewhere = Peer(ANN, story, session=SessionId(SESSION + 1))
    bob = Peer(BOB, story)
    (packet,) = sealed(elsewhere, Channel.CHAT, b"hello")
    assert outcome(bob, packet) == "misdelivered"
    assert outcome(bob, alter(packet, 4, 8, SESSION)) == "bad-tag"


@pytest.mark.parametrize("channel", list(Channel))
def test_G26_every_cut_and_every_flipped_bit_is_named_and_changes_nothing(channel: Channel) -> None:
    bob, contents, packets = five(channel)
    packet = packets[0]
    for end in range(len(packet)):
        assert outcome(bob, packet[:end]) in ("packet-malformed", "bad-tag", "bad-length")
    assert outcome(bob, packet + b"\0") == "bad-tag"
    for at in range(len(packet)):
        for bit in (1, 0x80):
            assert isinstance(outcome(bob, packet[:at] + bytes((packet[at] ^ bit,)) + packet[at + 1 :]), str)
    assert outcome(bob, packet) == contents[0]


# flags


def legal(channel: Channel, flags: int) -> bool:
    """The sentence of docs/protocol.md, "Packets", about one packet that is not clear."""
    last, signed = bool(flags & Flag.LAST), channel in SIGNED_CHANNELS
    if flags & Flag.RESTART and channel not in (Channel.SCREEN, Channel.SNAPSHOT):
        return False
    if not last:
        return channel in (Channel.LOG, *MULTIPLE) and not flags & (Flag.SIGNED | Flag.COMPRESSED)
    if flags & Flag.COMPRESSED and channel in (Channel.SCREEN, Channel.SNAPSHOT, Channel.VOICE):
        return False
    return bool(flags & Flag.SIGNED) == signed


@pytest.mark.parametrize("channel", list(Channel))
@pytest.mark.parametrize("flags", range(16))
def test_G26_each_channel_takes_its_own_flags_and_no_others(channel: Channel, flags: int) -> None:
    """Sealed and signed as it should be, so that nothing but the flags can be wrong."""
    ann, bob = pair()
    sender = Peer(OLGA, ann.story) if channel == Channel.LOG else ann
    content = b"content"
    if channel == Channel.LOG:
        content = log.sign_heartbeat(SIGNING[OLGA], log.Heartbeat(2, ann.state.head, 0, 0, []))
    elif channel == Channel.SNAPSHOT:
        content = CONTINUES.pack(-1, NO_BASE) + content
    if flags & Flag.COMPRESSED:
        content = zstandard.compress(content)
    result = outcome(bob, sender.craft(channel, content, flags, recipient(channel)))
    if not legal(channel, flags):
        assert result == "flags-wrong"
    else:
        assert result is None if not flags & Flag.LAST else isinstance(result, bytes)


# compression


def bomb(size: int) -> bytes:
    return zstandard.compress(bytes(size))


def undeclared(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(content)


def claiming(content: bytes, size: int) -> bytes:
    """A frame whose header lies about its size: single segment, content size of eight bytes, then the blocks of an honest frame."""
    honest = undeclared(content)
    descriptor = honest[4]
    assert descriptor >> 6 == 0
    assert not descriptor & 0x20
    blocks = honest[4 + 2 :]  # magic, descriptor, window
    return honest[:4] + bytes((0xC0 | descriptor & 0x1F, honest[5])) + size.to_bytes(8, "little") + blocks


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a bomb", bomb(100 << 20), "content-too-large"),
        ("a little too much", bomb(MAX_CONTENT + 1), "content-too-large"),
        ("undeclared", undeclared(b"hello"), "content-malformed"),
        ("an undeclared bomb", undeclared(bytes(1 << 20)), "content-malformed"),
        ("more than declared", claiming(bytes(9000), 9), "content-malformed"),
        ("a bomb behind a small claim", claiming(bytes(64 << 20), 9), "content-malformed"),
        ("less than declared", claiming(bytes(9), 9000), "content-malformed"),
        ("two frames", bomb(9) + bomb(9), "content-malformed"),
        ("a skippable frame behind it", bomb(9) + b"\x50\x2a\x4d\x18\x01\x00\x00\x00x", "content-malformed"),
        ("something behind it", bomb(9) + b"x", "content-malformed"),
        ("cut", bomb(9000)[:-1], "content-malformed"),
        ("no frame", b"no frame at all", "content-malformed"),
        ("nothing", b"", "content-malformed"),
        ("a skippable frame", b"\x50\x2a\x4d\x18\x01\x00\x00\x00x", "content-malformed"),
        ("a dictionary is needed", bytes.fromhex("28b52ffd2301020304"), "content-malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)  # fmt: skip
def test_G28_what_does_not_decompress_is_refused_and_the_stream_goes_on(name: str, content: bytes, error: str) -> None:
    ann, bob = pair()
    assert len(content) < MAX_CONTENT - 84
    packet = ann.craft(Channel.CHAT, content, Flag.COMPRESSED | Flag.SIGNED | Flag.LAST)
    assert outcome(bob, packet) == error, name
    assert outcome(bob, sealed(ann, Channel.CHAT, b"next")[0]) == b"next"


def test_a_window_that_would_take_much_memory_is_refused() -> None:
    ann, bob = pair()
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=MAX_MESSAGE[Channel.KEY])
    frame = compressor.compress(bytes(MAX_MESSAGE[Channel.KEY])) + compressor.flush()
    result = outcome(bob, ann.craft(Channel.KEY, frame, Flag.COMPRESSED | Flag.LAST, BOB))
    assert result in ("content-malformed", bytes(MAX_MESSAGE[Channel.KEY])), "within the window's limit, or refused"


def test_G28_nothing_unauthentic_is_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = pair()
    packet = ann.craft(Channel.CHAT, bomb(5000), Flag.COMPRESSED | Flag.SIGNED | Flag.LAST, signer=SIGNING[EVE])
    called: list[bytes] = []
    monkeypatch.setattr("endpoint.channel._decompress_untrusted", lambda content, limit: called.append(content))
    assert outcome(bob, packet) == "bad-signature"
    assert outcome(bob, packet[:-1] + bytes((packet[-1] ^ 1,))) == "bad-tag"
    assert called == []


# size


@pytest.mark.parametrize("channel", [Channel.ROSTER, Channel.SCREEN, Channel.SNAPSHOT])
def test_a_message_that_grows_too_large_is_dropped_as_a_whole(channel: Channel) -> None:
    ann, bob = pair()
    bob.channels.limits[channel] = 60_000
    packets = sealed(ann, channel, random.Random(1).randbytes(100_000))
    outcomes = [outcome(bob, packet) for packet in packets]
    assert outcomes == [None] * (len(packets) - 1) + ["content-too-large"]
    assert sum(len(payload) for incoming in bob.channels._incoming.values() for _, payload in incoming.parts) == 0
    packets = sealed(ann, Channel.SNAPSHOT if channel == Channel.SCREEN else channel, b"next")
    assert outcome(bob, packets[0]) == ("gap" if channel == Channel.ROSTER else b"next")  # who reads a roster asks for another


def test_nothing_is_collected_of_somebody_who_may_not_send() -> None:
    ann, bob = pair()
    eve = Peer(EVE, ann.story)
    for channel in (Channel.SCREEN, Channel.SNAPSHOT, Channel.LOG):
        part = eve.craft(channel, bytes(1000), 0)
        assert outcome(bob, part) == ("not-in-office" if channel == Channel.LOG else "no-right")
    assert not any(incoming.parts for incoming in bob.channels._incoming.values())


# what waits


def test_a_packet_of_a_sender_that_is_not_here_yet_may_be_tried_again() -> None:
    story = Log.meeting()
    newcomer = ParticipantId(9)
    ann, bob = Peer(ANN, story), Peer(BOB, story, 1)
    bob.state.members.pop(ParticipantId(9), None)
    (packet,) = sealed(ann, Channel.CHAT, b"hello")
    for _ in range(3):
        assert outcome(bob, packet) == "sender-unknown"
    bob.read()
    assert outcome(bob, packet) == b"hello"
    assert newcomer not in bob.state.members


def test_a_packet_of_a_later_epoch_may_be_tried_again() -> None:
    ann, bob = pair()
    ann.keyring.ratchet_to(3, 0.0)
    (packet,) = sealed(ann, Channel.CHAT, b"hello")
    for _ in range(3):
        assert outcome(bob, packet) == "unknown-epoch"
    bob.keyring.ratchet_to(3, 0.0)
    assert outcome(bob, packet) == b"hello"


@pytest.mark.parametrize("size", [10, 40_000])
def test_a_packet_that_names_a_later_entry_may_be_tried_again(size: int) -> None:
    story = Log.meeting()
    bob = Peer(BOB, story)
    story.write(log.Lock(True))
    ann = Peer(ANN, story)
    content = random.Random(1).randbytes(size)
    packets = sealed(ann, Channel.SNAPSHOT, content)
    assert [outcome(bob, packet) for packet in packets[:-1]] == [None] * (len(packets) - 1)
    for _ in range(3):
        assert outcome(bob, packets[-1]) == "index-later"
    bob.read()
    assert outcome(bob, packets[-1]) == content
    assert outcome(bob, packets[-1]) == "replayed"


def test_an_old_epoch_opens_for_a_while_and_then_never() -> None:
    ann, bob = pair()
    chat, cursor = sealed(ann, Channel.CHAT, b"late")[0], sealed(ann, Channel.CURSOR, b"late")[0]
    bob.keyring.ratchet_to(3, 100.0)
    assert outcome(bob, cursor, 106.0) == "epoch-closed"
    assert outcome(bob, chat, 279.0) == b"late"
    bob.keyring.expire(281.0)
    assert outcome(bob, sealed(ann, Channel.CHAT, b"later")[0], 281.0) == "epoch-closed"


# who sent it


def test_B02_two_histories_meet_as_a_fork_and_the_stream_goes_on() -> None:
    ours, theirs = Log.meeting(), Log.meeting()
    ours.write(log.Lock(True))
    theirs.write(log.Knock(True))
    ann, bob = Peer(ANN, theirs), Peer(BOB, ours)
    assert outcome(bob, sealed(ann, Channel.CHAT, b"one")[0]) == "fork"
    assert outcome(bob, sealed(ann, Channel.CHAT, b"two")[0]) == "fork"
    assert bob.channels.counter(Stream(ANN, EVERYONE, Channel.CHAT)) == 1


@pytest.mark.parametrize("channel", [c for c in SIGNED_CHANNELS if c not in (Channel.WHISPER, Channel.INPUT)])
def test_B03_who_has_the_group_key_can_sign_for_nobody_else(channel: int) -> None:
    ann, bob = pair()
    forger = Peer(ANN, ann.story)
    content = CONTINUES.pack(-1, NO_BASE) + b"forged" if channel == Channel.SNAPSHOT else b"forged"
    forged = forger.craft(channel, content, Flag.SIGNED | Flag.LAST, signer=SIGNING[EVE])
    assert outcome(bob, forged) == "bad-signature"
    (genuine,) = sealed(ann, Channel(channel), b"genuine")
    assert outcome(bob, genuine) == b"genuine", "the forgery took no counter"


def test_B03_every_packet_of_a_long_message_is_under_its_signature() -> None:
    """Eve has the group key: she exchanges the first part of Ann's update for one of hers, MAC and all."""
    ann, bob = pair()
    packets = sealed(ann, Channel.SNAPSHOT, bytes(40_000))
    forger = Peer(ANN, ann.story)
    packets[0] = forger.craft(Channel.SNAPSHOT, b"another beginning", Flag.RESTART)
    assert [outcome(bob, packet) for packet in packets] == [None, None, "bad-signature"]
    assert outcome(bob, sealed(ann, Channel.SNAPSHOT, b"again")[0]) == b"again"


# the screen's chain


def test_an_update_with_a_gap_needs_a_snapshot_and_then_goes_on() -> None:
    ann, bob = pair()
    assert outcome(bob, sealed(ann, Channel.SNAPSHOT, b"whole")[0]) == b"whole"
    for missing in range(3):
        large = sealed(ann, Channel.SCREEN, random.Random(missing).randbytes(40_000))
        assert len(large) == 3
        outcomes = [outcome(bob, packet) for number, packet in enumerate(large) if number != missing]
        assert outcomes[-1] in (None, "screen-gap", "bad-signature")
        assert not any(isinstance(each, bytes) for each in outcomes), "never a part of an update"
        assert outcome(bob, sealed(ann, Channel.SCREEN, b"continues nothing")[0]) == "screen-gap"
        assert outcome(bob, sealed(ann, Channel.SNAPSHOT, b"again")[0]) == b"again"
        assert outcome(bob, sealed(ann, Channel.SCREEN, b"next")[0]) == b"next"


def test_an_update_continues_exactly_the_one_before() -> None:
    """Two presenters' programs with one key: the counters fit, the history does not."""
    ann, bob = pair()
    twin = Peer(ANN, ann.story)
    assert outcome(bob, sealed(ann, Channel.SCREEN, b"first")[0]) == b"first"
    sealed(twin, Channel.SCREEN, b"another first")
    assert outcome(bob, sealed(twin, Channel.SCREEN, b"second of the other")[0]) == "bad-signature"
    assert outcome(bob, sealed(ann, Channel.SCREEN, b"second")[0]) == b"second"


def test_an_older_snapshot_never_takes_a_viewer_back() -> None:
    ann, bob = pair()
    old = sealed(ann, Channel.SNAPSHOT, b"old")[0]
    for content in (b"one", b"two"):
        assert outcome(bob, sealed(ann, Channel.SCREEN, content)[0]) == content
    assert outcome(bob, old) == "screen-gap"
    assert outcome(bob, sealed(ann, Channel.SCREEN, b"three")[0]) == b"three", "and it took nothing away"
    behind = ann.craft(Channel.SNAPSHOT, CONTINUES.pack(0, NO_BASE) + b"behind", Flag.SIGNED | Flag.LAST)
    assert outcome(bob, behind) == "screen-gap"


def test_updates_that_a_snapshot_holds_already_are_not_drawn_again() -> None:
    ann, bob = pair()
    held = [sealed(ann, Channel.SCREEN, content)[0] for content in (b"one", b"two")]
    assert outcome(bob, sealed(ann, Channel.SNAPSHOT, b"both")[0]) == b"both"
    assert [outcome(bob, packet) for packet in held] == ["replayed", "replayed"]
    assert outcome(bob, sealed(ann, Channel.SCREEN, b"three")[0]) == b"three"


# a newcomer


@given(start=st.integers(-1, 6), old=st.integers(0, 4), lost=st.integers(0, 3))
@settings(max_examples=60, derandomize=True)
def test_a_newcomers_streams_begin_at_start_and_are_strict_from_the_first_that_opens(start: int, old: int, lost: int) -> None:
    """Ann has sent; the organizer had applied `start`; `old` lines went out under an epoch that the newcomer never had."""
    story = Log.meeting()
    ann, late = Peer(ANN, story, epoch=1), Peer(BOB, story)
    for number in range(start + 1 + old):
        sealed(ann, Channel.CHAT, bytes((number,)))
    lines = []
    ann.keyring.install(2, late.keyring.group_key, 0.0)
    ann.keyring.advance(2, 0.0)
    lines = [sealed(ann, Channel.CHAT, bytes((number,)))[0] for number in range(6)]
    late.channels.begin_at({Stream(ANN, EVERYONE, Channel.CHAT): start} if start >= 0 else {}, late.state.members)
    results = [outcome(late, line) for line in lines[lost:]]
    assert results == [bytes((number,)) for number in range(lost, 6)]
    assert outcome(late, lines[-1]) == "replayed"
    sealed(ann, Channel.CHAT, b"lost")
    assert outcome(late, sealed(ann, Channel.CHAT, b"behind")[0]) == "gap"


def test_packets_of_before_a_newcomers_time_are_passed_over_in_silence() -> None:
    story = Log.meeting()
    ann, late = Peer(ANN, story, epoch=1), Peer(BOB, story)
    early = sealed(ann, Channel.CHAT, b"early")[0]
    late.channels.begin_at({}, late.state.members)
    assert late.channels.open_untrusted(early, 0.0) is None
    assert late.channels.counter(Stream(ANN, EVERYONE, Channel.CHAT)) == -1, "what cannot be opened moves nothing"


# rights and what arrived when: everybody ends with the same chat


def interleavings(draw: st.DrawFn, streams: list[list[bytes]]) -> list[bytes]:
    """One order in which a member may get these streams; each keeps its own."""
    left = [list(stream) for stream in streams if stream]
    order = []
    while left:
        stream = left[draw(st.integers(0, len(left) - 1))]
        order.append(stream.pop(0))
        left = [each for each in left if each]
    return order


class Reader:
    """A member that holds what it cannot judge, applies entries, shows lines, and withdraws those beyond a cut."""

    def __init__(self, me: ParticipantId, story: Log) -> None:
        self.peer = Peer(me, Log())
        self.peer.story = story
        self.chat: dict[ParticipantId, dict[int, bytes]] = {}
        self.held: list[bytes] = []

    def take(self, item: bytes | log.SignedEntry) -> None:
        if isinstance(item, log.SignedEntry):
            self.peer.state.apply(item)
            for sender, cut in self.peer.state.withdrawn():
                self.chat[sender] = {counter: line for counter, line in self.chat.get(sender, {}).items() if counter <= cut}
        else:
            self.held.append(item)
        self._retry()

    def _retry(self) -> None:
        waiting, self.held = self.held, []
        for packet in waiting:
            try:
                message: Message | None = self.peer.channels.open_untrusted(packet, 0.0)
            except (EndpointError, CryptoError) as error:
                if error.name in ("index-later", "gap", "sender-unknown"):
                    self.held.append(packet)
                continue
            assert message is not None
            self.chat.setdefault(message.sender, {})[message.counter] = message.content
        if len(self.held) < len(waiting):
            self._retry()


ACTS: list[Callable[[Log, dict[ParticipantId, int]], log.Fields]] = [
    lambda story, last: log.Chat(ANN, False, [(ANN, 2, last[ANN])]),
    lambda story, last: log.Chat(ANN, True, []),
    lambda story, last: log.Chat(0, False, [(ANN, 2, last[ANN]), (EVE, 2, last[EVE])]),
    lambda story, last: log.Chat(0, True, []),
    lambda story, last: log.Leave([EVE], [(EVE, 2, last[EVE])]),
]


@given(st.data())
@settings(max_examples=150, derandomize=True)
def test_G06_B2_whatever_arrives_when_everybody_ends_with_the_same_chat(data: st.DataObject) -> None:
    """Ann and Eve write, following the log late or not at all; the organizer takes rights away with cuts anywhere."""
    story = Log.meeting()
    writers = {i: Peer(i, story) for i in (ANN, EVE)}
    lines: dict[ParticipantId, list[bytes]] = {ANN: [], EVE: []}
    gone = False
    for number in range(data.draw(st.integers(1, 14))):
        step = data.draw(st.sampled_from(["say", "say", "say", "read", "act"]))
        writer = data.draw(st.sampled_from([ANN, EVE]))
        if step == "say":
            lines[writer].append(writers[writer].channels.seal(Channel.CHAT, bytes((number,)))[0])
        elif step == "read":
            writers[writer].read()
        else:
            act = data.draw(st.sampled_from(ACTS[:4] if gone else ACTS))
            last = {i: data.draw(st.integers(-1, len(sent) - 1)) for i, sent in lines.items()}
            fields = act(story, last)
            gone = gone or isinstance(fields, log.Leave)
            story.write(fields)
    ends = []
    for _ in range(3):
        reader = Reader(BOB, story)
        later = story.entries[3:]
        for entry in story.entries[:3]:
            reader.take(entry)
        for item in interleavings(data.draw, [later, lines[ANN], lines[EVE]]):  # type: ignore[arg-type, list-item]
            reader.take(item)
        assert reader.held == []
        ends.append({sender: chat for sender, chat in reader.chat.items() if chat})
    assert ends[0] == ends[1] == ends[2]
