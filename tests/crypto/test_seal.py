"""Packets: what is sealed opens once and unchanged, and nothing else opens at all (rows G27, G28)."""

import secrets
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import BadLength, BadTag, CounterReused, EpochClosed, KeyExhausted
from crypto.schedule import StreamKeys
from crypto.seal import Opener, Sealer
from crypto.suite import MAX_PACKETS

KEYS = StreamKeys.split(bytes(range(40)))
COUNTER = st.integers(0, 2**64 - 1)


def header(counter: int, front: bytes = bytes(24)) -> bytes:
    return front + counter.to_bytes(8, "big")


@given(st.binary(min_size=24, max_size=24), COUNTER, st.binary(max_size=600))
def test_what_is_sealed_opens_unchanged(front: bytes, counter: int, plaintext: bytes) -> None:
    packet = Sealer(KEYS).seal(header(counter, front), counter, plaintext)
    assert packet[:32] == header(counter, front)
    assert len(packet) == 52 + len(plaintext)
    opener = Opener(KEYS)
    opener.verify(packet)
    assert opener.decrypt(packet, counter) == plaintext


@given(st.binary(max_size=100), st.data())
def test_G28_any_flipped_bit_is_a_bad_tag(plaintext: bytes, data: st.DataObject) -> None:
    packet = bytearray(Sealer(KEYS).seal(header(5), 5, plaintext))
    bit = data.draw(st.integers(0, 8 * len(packet) - 1))
    packet[bit // 8] ^= 1 << bit % 8
    opener = Opener(KEYS)
    with pytest.raises(BadTag):
        opener.verify(bytes(packet))
    with pytest.raises(BadTag):
        opener.decrypt(bytes(packet), 5)


@given(st.binary(max_size=200))
def test_strangers_bytes_raise_nothing_but_the_named_errors(packet: bytes) -> None:
    with pytest.raises(BadLength if len(packet) < 52 else BadTag):
        Opener(KEYS).verify(packet)


@given(st.binary(max_size=64), st.integers(0, 115))
def test_a_truncated_packet_is_refused(plaintext: bytes, keep: int) -> None:
    packet = Sealer(KEYS).seal(header(1), 1, plaintext)
    if keep < len(packet):
        with pytest.raises(BadLength if keep < 52 else BadTag):
            Opener(KEYS).verify(packet[:keep])


@pytest.mark.parametrize("part", ["salt", "aes", "mac"])
def test_another_streams_keys_do_not_open_it(part: str) -> None:
    fields = {"salt": KEYS.salt, "aes": KEYS.aes, "mac": KEYS.mac}
    fields[part] = bytes(len(fields[part]))
    other = Opener(StreamKeys(**fields))
    packet = Sealer(KEYS).seal(header(1), 1, b"attack at dawn")
    if part == "mac":
        with pytest.raises(BadTag):
            other.verify(packet)
    else:
        other.verify(packet)
        assert other.decrypt(packet, 1) != b"attack at dawn"


def test_G28_a_bad_tag_is_rejected_before_anything_is_decrypted_or_decompressed() -> None:
    bomb = zlib.compress(bytes(10_000_000))
    packet = Sealer(KEYS).seal(header(1), 1, bomb)
    altered = packet[:-1] + bytes([packet[-1] ^ 1])
    opener = Opener(KEYS)
    with pytest.raises(BadTag):
        opener.verify(altered)
    with pytest.raises(BadTag):  # nothing to hand to a decompressor
        opener.decrypt(altered, 1)


def test_a_packet_is_decrypted_once_and_only_after_verify() -> None:
    sealer, opener = Sealer(KEYS), Opener(KEYS)
    one, two = sealer.seal(header(1), 1, b"one"), sealer.seal(header(2), 2, b"two")
    with pytest.raises(BadTag):
        opener.decrypt(one, 1)
    opener.verify(one)
    with pytest.raises(BadTag):
        opener.decrypt(two, 2)
    assert opener.decrypt(one, 1) == b"one"
    with pytest.raises(BadTag):
        opener.decrypt(one, 1)


@given(st.lists(st.one_of(COUNTER, st.integers(0, 10)), min_size=1, max_size=30))
def test_G27_a_sealer_never_uses_a_counter_twice(counters: list[int]) -> None:
    sealer = Sealer(KEYS)
    used: set[int] = set()
    for counter in counters:
        if counter > max(used, default=-1):
            sealer.seal(header(counter), counter, b"x")
            used.add(counter)
        else:
            with pytest.raises(CounterReused):
                sealer.seal(header(counter), counter, b"y")
        assert sealer.last == max(used)


def test_G27_a_sealer_that_continues_refuses_what_came_before() -> None:
    sealer = Sealer(KEYS, last=41)
    with pytest.raises(CounterReused):
        sealer.seal(header(41), 41, b"")
    sealer.seal(header(42), 42, b"")
    assert sealer.last == 42


def test_a_header_that_does_not_name_the_counter_is_refused() -> None:
    sealer = Sealer(KEYS)
    for bad in (header(2), header(1)[:-1], header(1) + b"\0", b""):
        with pytest.raises(BadLength):
            sealer.seal(bad, 1, b"")
    assert sealer.last == -1
    sealer.seal(header(1), 1, b"")


def test_a_spent_key_seals_nothing() -> None:
    sealer = Sealer(KEYS)
    assert sealer.packets_left == MAX_PACKETS == 2**32
    assert sealer.blocks_left == 2**40
    sealer.packets_left = 1
    sealer.seal(header(0), 0, b"the last one")
    with pytest.raises(KeyExhausted):
        sealer.seal(header(1), 1, b"")

    sealer = Sealer(KEYS)
    sealer.blocks_left = 2
    with pytest.raises(KeyExhausted):
        sealer.seal(header(0), 0, bytes(33))
    sealer.seal(header(0), 0, bytes(17))
    with pytest.raises(KeyExhausted):
        sealer.seal(header(1), 1, b"x")


def test_a_closed_sealer_seals_nothing() -> None:
    sealer = Sealer(KEYS)
    sealer.seal(header(0), 0, b"")
    sealer.close()
    sealer.close()
    with pytest.raises(EpochClosed):
        sealer.seal(header(1), 1, b"")
    assert sealer.last == 0
    assert not hasattr(sealer, "_aes")


def test_long_and_short_packets_take_turns_on_one_context() -> None:
    sealer, opener = Sealer(KEYS), Opener(KEYS)
    for counter, size in enumerate([0, 1, 15, 16, 17, 16_332, 3, 1 << 20, 0, 5]):
        plaintext = secrets.token_bytes(size)
        packet = sealer.seal(header(counter), counter, plaintext)
        opener.verify(packet)
        assert opener.decrypt(packet, counter) == plaintext
