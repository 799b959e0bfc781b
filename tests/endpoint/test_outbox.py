"""What is sent again, to which relay."""

from endpoint.outbox import MAX_KEPT, MAX_RESERVE, RESERVE_FOR, Outbox
from wire.frame import FrameDecoder
from wire.ids import EVERYONE, FIRST_EPOCH, Channel, ParticipantId, SessionId
from wire.packet import TAG_SIZE, UNICAST_CHANNELS, Flag, pack_header, parse_packet_untrusted

ME = ParticipantId(7)
CHAT = (ME, EVERYONE, Channel.CHAT)


def packet(channel: int, counter: int, size: int = 10) -> bytes:
    to, epoch = (ParticipantId(1), 0) if channel in UNICAST_CHANNELS else (EVERYONE, FIRST_EPOCH)
    return pack_header(Flag.LAST, channel, SessionId(5), ME, to, epoch, counter) + bytes(size + TAG_SIZE)  # type: ignore[arg-type]


def sent(outbox: Outbox) -> list[tuple[int, int]]:
    """Channel and counter of everything that goes out now."""
    found = []
    while data := outbox.pull(1000):
        found += [parse_packet_untrusted(frame.body) for frame in FrameDecoder().feed_untrusted(data)]
    return [(header.channel, header.counter) for header in found]


def test_G22_a_relay_with_an_empty_log_gets_what_another_had_taken() -> None:
    outbox = Outbox()
    for counter in range(4):
        outbox.push(packet(Channel.CHAT, counter), 0.0)
        outbox.push(packet(Channel.KEY, counter), 0.0)
    assert len(sent(outbox)) == 8
    outbox.taken([(*CHAT, 2), (ME, 1, Channel.KEY, 3)], 1.0)
    outbox.relink([(*CHAT, 0)], 2.0)
    assert sent(outbox) == [(Channel.KEY, 0), (Channel.KEY, 1), (Channel.KEY, 2), (Channel.KEY, 3)] + [(Channel.CHAT, c) for c in (1, 2, 3)]
    outbox.relink([(*CHAT, 3), (ME, 1, Channel.KEY, 3)], 3.0)
    assert sent(outbox) == []


def test_what_was_taken_does_not_congest_and_what_this_relay_lacks_is_owed() -> None:
    outbox = Outbox()
    outbox.push(packet(Channel.CHAT, 0), 0.0)
    outbox.taken([(*CHAT, 0)], 0.0)
    assert outbox.kept_bytes == 0
    outbox.relink([], 1.0)
    assert outbox.kept_bytes > 0
    outbox.taken([(*CHAT, 0)], 2.0)
    assert outbox.kept_bytes == 0


def test_the_reserve_is_bounded_in_time_and_size() -> None:
    outbox = Outbox()
    outbox.push(packet(Channel.CHAT, 0), 0.0)
    outbox.push(packet(Channel.CHAT, 1), 50.0)
    outbox.taken([(*CHAT, 1)], 51.0)
    outbox.relink([], RESERVE_FOR)
    assert sent(outbox) == [(Channel.CHAT, 1)]

    outbox, number = Outbox(), 0
    while number * 10_000 < 2 * MAX_RESERVE:
        outbox.push(packet(Channel.CHAT, number, 10_000), 0.0)
        sent(outbox)
        outbox.taken([(*CHAT, number)], 0.0)
        number += 1
    outbox.relink([], 1.0)
    again = sent(outbox)
    assert again == [(Channel.CHAT, counter) for counter in range(number - len(again), number)]
    assert MAX_RESERVE - 20_000 < outbox.kept_bytes <= MAX_RESERVE < MAX_KEPT


def test_what_no_relay_has_taken_is_kept_however_long_that_takes() -> None:
    outbox = Outbox()
    outbox.push(packet(Channel.CHAT, 0), 0.0)
    outbox.relink([], 10 * RESERVE_FOR)
    assert sent(outbox) == [(Channel.CHAT, 0)]
    outbox.push(packet(Channel.SCREEN, 0), 10 * RESERVE_FOR)
    assert outbox.relink([(*CHAT, 0)], 10 * RESERVE_FOR)
    assert sent(outbox) == []
