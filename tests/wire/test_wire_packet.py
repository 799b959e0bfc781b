"""The clear packet header: every rule, over every value of the small fields, against a second statement of the rules."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import MalformedPacket, UnsupportedVersion
from wire.ids import Channel, Epoch, ParticipantId, SessionId
from wire.packet import (
    DELIVERY,
    HEADER,
    HEADER_SIZE,
    MAX_CONTENT,
    MAX_PACKET,
    PRIORITY,
    RELIABLE_CHANNELS,
    SIGNED_CHANNELS,
    TAG_SIZE,
    UNICAST_CHANNELS,
    VERSION_SUITE,
    Delivery,
    PacketHeader,
    pack_header,
    parse_packet_untrusted,
)

TAIL = bytes(TAG_SIZE)


def is_legal(flags: int, channel: int, sender: int, recipient: int, epoch: int, after_header: int) -> bool:
    """The rules of the header as a person would say them."""
    if not 0 <= channel <= 10 or flags >= 32 or sender == 0:
        return False
    to_one = channel in (0, 3, 4)
    if to_one and (recipient == 0 or recipient == sender or epoch != 0):
        return False
    if not to_one and (recipient != 0 or epoch == 0):
        return False
    if flags & 16:
        return channel == 0 and flags == 16 + 8 and after_header >= 1
    return after_header >= TAG_SIZE


def check(version_suite: int, flags: int, channel: int, reserved: int, sender: int, recipient: int, epoch: int, rest: bytes) -> None:
    packet = HEADER.pack(version_suite, flags, channel, reserved, 5, sender, recipient, epoch, 9) + rest
    if version_suite != VERSION_SUITE:
        with pytest.raises(UnsupportedVersion):
            parse_packet_untrusted(packet)
    elif reserved or not is_legal(flags, channel, sender, recipient, epoch, len(rest)):
        with pytest.raises(MalformedPacket):
            parse_packet_untrusted(packet)
    else:
        assert parse_packet_untrusted(packet) == PacketHeader(
            flags, channel, SessionId(5), ParticipantId(sender), ParticipantId(recipient), Epoch(epoch), 9
        )


def test_every_flag_channel_and_kind_of_address() -> None:
    for flags, channel in itertools.product(range(256), range(12)):
        for sender, recipient, epoch in itertools.product((0, 1, 2), (0, 1, 2), (0, 1)):
            for rest in (b"\0", TAIL[:-1], TAIL):
                packet = HEADER.pack(VERSION_SUITE, flags, channel, 0, 5, sender, recipient, epoch, 9) + rest
                try:
                    parse_packet_untrusted(packet)
                    legal = True
                except MalformedPacket:
                    legal = False
                assert legal == is_legal(flags, channel, sender, recipient, epoch, len(rest)), (flags, channel, sender, recipient, epoch)


def test_every_version_suite_and_reserved_byte_and_channel() -> None:
    for byte in range(256):
        check(byte, 8, 2, 0, 1, 0, 1, TAIL)
        check(VERSION_SUITE, 8, 2, byte, 1, 0, 1, TAIL)
        check(VERSION_SUITE, 8, byte, 0, 1, 0, 1, TAIL)


@pytest.mark.parametrize("size", [0, 1, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + TAG_SIZE - 1, MAX_PACKET + 1, MAX_PACKET * 2])
def test_lengths_outside_the_limits_are_malformed(size: int) -> None:
    packet = (pack_header(8, 2, SessionId(5), ParticipantId(1), ParticipantId(0), Epoch(1), 0) + bytes(MAX_PACKET * 2))[:size]
    with pytest.raises(MalformedPacket):
        parse_packet_untrusted(packet)


@pytest.mark.parametrize("size", [HEADER_SIZE + TAG_SIZE, MAX_PACKET])
def test_lengths_at_the_limits_are_legal(size: int) -> None:
    packet = (pack_header(8, 2, SessionId(5), ParticipantId(1), ParticipantId(0), Epoch(1), 0) + bytes(MAX_PACKET * 2))[:size]
    assert parse_packet_untrusted(packet).channel == Channel.CHAT
    assert MAX_CONTENT == MAX_PACKET - HEADER_SIZE - TAG_SIZE


@given(st.binary(max_size=80))
def test_any_bytes_raise_only_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket, UnsupportedVersion):
        assert parse_packet_untrusted(data).sender != 0


@given(
    st.sampled_from((2, 5, 9)),
    st.integers(0, 15),
    st.integers(0, 2**64 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
def test_packing_and_parsing_agree(channel: int, flags: int, session: int, sender: int, epoch: int, counter: int) -> None:
    header = PacketHeader(flags, channel, SessionId(session), ParticipantId(sender), ParticipantId(0), Epoch(epoch), counter)
    packed = pack_header(*header)
    assert len(packed) == HEADER_SIZE == 32
    assert parse_packet_untrusted(memoryview(packed + TAIL)) == header
    assert header.stream == (sender, 0, channel)


def test_the_tables_of_channels_speak_of_every_channel() -> None:
    assert set(DELIVERY) == set(Channel)
    assert len(PRIORITY) == len(Channel)
    whole = {channel for channel in Channel if DELIVERY[channel] in (Delivery.RELIABLE, Delivery.FETCHED)}
    assert whole == RELIABLE_CHANNELS == {0, 1, 2, 3, 4, 8, 10}
    assert sorted(SIGNED_CHANNELS) == [2, 3, 4, 5, 8, 9]
    assert sorted(UNICAST_CHANNELS) == [0, 3, 4]
    assert [sorted(c for c in Channel if PRIORITY[c] == level) for level in range(5)] == [[0, 1, 10], [2, 3, 4], [7], [6], [5, 8, 9]]
