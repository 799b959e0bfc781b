"""What goes out, in which order, and what goes out again: against a relay that is a have-vector."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.outbox import MAX_KEPT, MAX_RESERVE, RESERVE_FOR, Outbox
from wire.frame import FrameDecoder
from wire.have import HaveVector
from wire.ids import EVERYONE, Channel, Epoch, ParticipantId, SessionId
from wire.packet import HEADER_SIZE, MAX_PACKET, PRIORITY, RELIABLE_CHANNELS, UNICAST_CHANNELS, Flag, pack_header, parse_packet_untrusted

ME, OTHER = ParticipantId(7), ParticipantId(8)


def packet(channel: int, counter: int, size: int = 40, flags: int = Flag.LAST) -> bytes:
    recipient = OTHER if channel in UNICAST_CHANNELS else EVERYONE
    epoch = Epoch(0 if recipient else 1)
    return pack_header(flags, channel, SessionId(1), ME, recipient, epoch, counter) + bytes((counter % 256,)) * size


def drained(outbox: Outbox, budget: int = 16_384) -> list[bytes]:
    decoder, packets = FrameDecoder(), []
    while data := outbox.pull(budget):
        packets += [frame.body for frame in decoder.feed_untrusted(data)]
    assert outbox.queued_bytes == 0
    return packets


def test_the_urgent_goes_first_and_each_queue_keeps_its_order() -> None:
    outbox = Outbox()
    sent = [packet(channel, counter) for counter in range(3) for channel in (5, 9, 8, 6, 7, 4, 3, 2, 1, 0)]
    for each in sent:
        outbox.push(each, 0.0)
    out = drained(outbox)
    assert sorted(out) == sorted(sent)
    lanes = [PRIORITY[parse_packet_untrusted(each).channel] for each in out]
    assert lanes == sorted(lanes)
    for lane in set(lanes):
        assert [p for p in out if PRIORITY[p[2]] == lane] == [p for p in sent if PRIORITY[p[2]] == lane]


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 5, 9]), st.integers(1, MAX_PACKET - HEADER_SIZE)), min_size=1, max_size=20),
    st.integers(1, 40_000),
)
@settings(max_examples=60, derandomize=True)
def test_a_pull_gives_whole_frames_within_its_budget_or_one(sizes: list[tuple[int, int]], budget: int) -> None:
    outbox = Outbox()
    for counter, (channel, size) in enumerate(sizes):
        outbox.push(packet(channel, counter, max(size, 20)), 0.0)
    seen = 0
    while data := outbox.pull(budget):
        frames = list(FrameDecoder().feed_untrusted(data))
        assert sum(len(frame.body) + 8 for frame in frames) == len(data), "no frame is cut"
        assert len(frames) == 1 or len(data) <= budget
        seen += len(frames)
    assert seen == len(sizes)


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, int]]:
    steps = st.sampled_from(["push", "push", "push", "pull", "taken", "relink", "relink elsewhere"])
    return [(step, draw(st.integers(0, 9))) for step in draw(st.lists(steps, max_size=60))]


@given(stories())
@settings(max_examples=150, derandomize=True)
def test_G13_every_reliable_packet_arrives_once_and_byte_for_byte_whatever_links_break(story: list[tuple[str, int]]) -> None:
    """Two relays that get what is pulled while they are linked, and take a packet if it is next in its stream."""
    outbox = Outbox()
    counters = dict.fromkeys((0, 1, 2, 5, 6), -1)
    sent: list[bytes] = []
    relays: tuple[list[bytes], list[bytes]] = ([], [])
    vectors = (HaveVector(), HaveVector())
    linked = 0

    def pull(budget: int) -> None:
        data = outbox.pull(budget)
        for frame in FrameDecoder().feed_untrusted(data or b""):
            header = parse_packet_untrusted(frame.body)
            if header.channel in RELIABLE_CHANNELS and vectors[linked].note(header.stream, header.counter):
                relays[linked].append(frame.body)

    for step, number in story:
        if step == "push":
            channel = list(counters)[number % len(counters)]
            counters[channel] += 1
            sent.append(packet(channel, counters[channel], 20 + number))
            outbox.push(sent[-1], 0.0)
        elif step == "pull":
            pull(200)
        elif step == "taken":
            outbox.taken(vectors[linked].positions(), 0.0)
        else:
            linked = 1 - linked if step == "relink elsewhere" else linked
            outbox.relink(vectors[linked].positions(), 0.0)
        assert outbox.queued_bytes == sum(len(frame) for lane in outbox._lanes for frame in lane)
        assert outbox.kept_bytes == sum(len(kept.frame) for kept in outbox._kept)
    outbox.relink(vectors[linked].positions(), 0.0)
    while outbox.queued_bytes:
        pull(16_384)
    reliable = [each for each in sent if each[2] in RELIABLE_CHANNELS]
    for channel in (0, 1, 2):
        assert [p for p in relays[linked] if p[2] == channel] == [p for p in reliable if p[2] == channel]
    outbox.taken(vectors[linked].positions(), 0.0)
    assert outbox.kept_bytes == 0


def test_a_reconnect_owes_exactly_what_was_not_taken_and_no_screen() -> None:
    outbox = Outbox()
    chat = [packet(2, counter) for counter in range(4)]
    screen, clear = packet(5, 0), packet(0, 1, flags=Flag.CLEAR | Flag.LAST)
    for each in (*chat, screen, clear):
        outbox.push(each, 0.0)
    outbox.pull(100)  # one is on its way, and lost with the link
    assert outbox.relink([(ME, EVERYONE, Channel.CHAT, 1)], 1.0), "screen was dropped: its viewers need a snapshot"
    assert drained(outbox) == chat[2:]
    assert not outbox.relink([(ME, EVERYONE, Channel.CHAT, 3)], 2.0)
    assert drained(outbox) == []


def test_what_was_taken_stays_in_reserve_for_a_relay_that_lacks_it() -> None:
    outbox = Outbox()
    chat = [packet(2, counter) for counter in range(3)]
    for counter, each in enumerate(chat):
        outbox.push(each, float(counter))
    assert drained(outbox) == chat
    outbox.taken([(ME, EVERYONE, Channel.CHAT, 2)], 5.0)
    assert outbox.kept_bytes == 0
    outbox.relink([], 10.0)  # a relay that knows nothing
    assert drained(outbox) == chat
    outbox.taken([(ME, EVERYONE, Channel.CHAT, 2)], 11.0)
    outbox.relink([], RESERVE_FOR + 1.5)  # the first two are too old by now
    assert drained(outbox) == chat[2:]


def test_what_was_taken_goes_before_what_was_not_to_a_relay_that_lacks_both() -> None:
    outbox = Outbox()
    chat = [packet(2, counter) for counter in range(4)]
    for each in chat:
        outbox.push(each, 0.0)
    drained(outbox)
    outbox.taken([(ME, EVERYONE, Channel.CHAT, 1)], 0.0)
    outbox.relink([], 1.0)
    assert drained(outbox) == chat


def test_the_reserve_and_what_is_kept_are_bounded() -> None:
    outbox = Outbox()
    size = 16_000
    for counter in range(2 * MAX_RESERVE // size):
        outbox.push(packet(8, counter, size), 0.0)
        outbox.taken([(ME, EVERYONE, Channel.FILE, counter)], 0.0)
        assert not outbox.congested
    drained(outbox)
    outbox.relink([], 0.0)
    again = drained(outbox)
    assert 0.9 * MAX_RESERVE < sum(map(len, again)) <= MAX_RESERVE
    counter = parse_packet_untrusted(again[-1]).counter
    while not outbox.congested:
        counter += 1
        outbox.push(packet(8, counter, size), 0.0)
    assert outbox.kept_bytes < MAX_KEPT + 2 * size
    outbox.taken([(ME, EVERYONE, Channel.FILE, counter)], 0.0)
    assert not outbox.congested


def test_the_screens_backlog_counts_what_is_not_written() -> None:
    outbox = Outbox()
    for counter in range(3):
        outbox.push(packet(5, counter, 1000), 0.0)
    outbox.push(packet(2, 0), 0.0)
    assert outbox.screen_backlog == 3 * (1000 + HEADER_SIZE + 8)
    drained(outbox)
    assert outbox.screen_backlog == 0
    assert outbox.pull(16_384) is None


@pytest.mark.parametrize("channel", sorted(RELIABLE_CHANNELS))
def test_clear_packets_are_the_handshakes_own_business(channel: int) -> None:
    outbox = Outbox()
    outbox.push(packet(channel, 0), 0.0)
    assert outbox.kept_bytes > 0
    outbox.push(packet(0, 1, flags=Flag.CLEAR | Flag.LAST), 0.0)
    kept = outbox.kept_bytes
    outbox.relink([], 0.0)
    assert outbox.kept_bytes == kept == len(packet(channel, 0)) + 8


def test_what_no_relay_has_taken_is_kept_however_long_that_takes() -> None:
    outbox = Outbox()
    outbox.push(packet(2, 0), 0.0)
    outbox.relink([], 10 * RESERVE_FOR)
    assert drained(outbox) == [packet(2, 0)]
    outbox.push(packet(5, 0), 10 * RESERVE_FOR)
    assert outbox.relink([(ME, EVERYONE, Channel.CHAT, 0)], 10 * RESERVE_FOR)
    assert drained(outbox) == []


def test_what_was_taken_does_not_congest_and_what_this_relay_lacks_is_owed() -> None:
    outbox = Outbox()
    outbox.push(packet(2, 0), 0.0)
    outbox.taken([(ME, EVERYONE, Channel.CHAT, 0)], 0.0)
    assert outbox.kept_bytes == 0
    outbox.relink([], 1.0)
    assert outbox.kept_bytes > 0
    outbox.taken([(ME, EVERYONE, Channel.CHAT, 0)], 2.0)
    assert outbox.kept_bytes == 0
