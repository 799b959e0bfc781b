"""Log entries: what is signed is what is read; whatever else comes is refused by one family of errors."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.signing import SigningKey
from endpoint import log
from endpoint.errors import ForgedEntry, LogError, MalformedEntry
from wire.ids import SessionId

KEY = SigningKey.from_seed(bytes(range(32)))
OTHER = SigningKey.from_seed(bytes(32))
PREVIOUS = log.genesis(SessionId(7))


def member(i: int, name: str = "Ana") -> log.Member:
    return log.Member(i, 2, name, bytes(32), bytes(32))


ID, U32, HASH = st.integers(1, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(min_size=32, max_size=32)
SIGNATURE, NAME = st.binary(min_size=64, max_size=64), st.text(min_size=1, max_size=64)
CUTS = st.lists(st.tuples(ID, st.integers(0, 255), st.integers(-1, 2**63 - 1)), max_size=4)
MEMBER = st.builds(log.Member, ID, st.integers(0, 255), NAME, HASH, HASH)
ENTRIES: st.SearchStrategy[log.Fields] = st.one_of(
    st.builds(log.Open, st.binary(min_size=8, max_size=8), HASH, MEMBER, U32),
    st.builds(log.Admit, st.lists(MEMBER, max_size=3), U32, U32, st.binary(max_size=32)),
    st.builds(log.Leave, st.lists(ID, min_size=1, max_size=4), CUTS),
    st.builds(log.Dismiss, ID, CUTS),
    st.builds(log.Presenter, U32),
    st.builds(log.Control, U32),
    st.builds(log.Chat, U32, st.booleans(), CUTS),
    st.builds(log.Lock, st.booleans()),
    st.builds(log.Knock, st.booleans()),
    st.builds(log.Rename, ID, NAME),
    st.builds(log.EpochEntry, U32, HASH),
    st.builds(log.HandOver, ID, HASH, HASH, SIGNATURE, U32),
    st.builds(log.Successors, st.lists(st.tuples(ID, HASH), max_size=16)),
    st.builds(log.TakeOver, ID, U32),
    st.builds(log.Yield, HASH, SIGNATURE),
    st.just(log.End()),
)
"""Every kind, with every field anywhere within its limits."""
HEARTBEATS = st.builds(log.Heartbeat, U32, HASH, st.integers(0, 2**63 - 1), st.integers(0, 253_402_300_799_999), CUTS, st.lists(ID, max_size=4))


def test_the_strategy_knows_every_kind() -> None:
    assert len(get_args(log.Fields)) == 16 == len(ENTRIES.original_strategies)  # type: ignore[attr-defined]


@given(fields=ENTRIES, index=U32, counter=st.integers(0, 2**63 - 1))
@settings(max_examples=120, derandomize=True)
def test_every_entry_is_read_as_it_was_signed(fields: log.Fields, index: int, counter: int) -> None:
    signed = log.sign_entry(KEY, index, PREVIOUS, counter, fields)
    parsed = log.parse_log_untrusted(signed.wire, KEY.public, counter)
    assert isinstance(parsed, log.SignedEntry)
    assert parsed.entry == log.Entry(index, PREVIOUS, counter, fields)
    assert (parsed.hash, parsed.wire) == (signed.hash, signed.wire)
    with pytest.raises(ForgedEntry):
        log.parse_log_untrusted(signed.wire, OTHER.public, counter)
    with pytest.raises(ForgedEntry):
        log.parse_log_untrusted(signed.wire, KEY.public, counter + 1)


@given(HEARTBEATS)
@settings(max_examples=50, derandomize=True)
def test_every_heartbeat_is_read_as_it_was_signed(beat: log.Heartbeat) -> None:
    assert log.parse_log_untrusted(log.sign_heartbeat(KEY, beat), KEY.public, beat.counter) == beat


@given(st.binary(max_size=300))
@settings(max_examples=300, derandomize=True)
def test_any_bytes_raise_log_errors_alone(content: bytes) -> None:
    for author in (KEY.public, None, b"short"):
        with pytest.raises(LogError):
            log.parse_log_untrusted(content, author, 0)


@given(fields=ENTRIES, data=st.data())
@settings(max_examples=200, derandomize=True)
def test_a_mutated_entry_raises_log_errors_alone(fields: log.Fields, data: st.DataObject) -> None:
    wire = bytearray(log.sign_entry(KEY, 3, PREVIOUS, 9, fields).wire)
    at = data.draw(st.integers(0, len(wire) - 1))
    cut, byte = data.draw(st.sampled_from([0, 1, 5])), data.draw(st.integers(1, 255))
    wire[at] ^= byte
    del wire[at + 1 : at + 1 + cut]
    with pytest.raises(LogError):
        log.parse_log_untrusted(bytes(wire), KEY.public, 9)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-1, 2**64 - 1) | st.binary(max_size=40),
        lambda inner: st.lists(inner, max_size=5),
        max_leaves=20,
    )
)
@settings(max_examples=200, derandomize=True)
def test_a_signed_body_of_any_shape_raises_log_errors_alone(value: object) -> None:
    """The organizer itself writes nonsense: its signature is right."""
    body = msgspec.msgpack.encode(value)
    for kind, label in ((0, b"parley entry 1"), (1, b"parley beat 1")):
        content = bytes((kind,)) + KEY.sign(label, body) + body
        with pytest.raises(MalformedEntry):
            log.parse_log_untrusted(content, KEY.public, 0)


def test_deep_nesting_is_refused_by_name() -> None:
    body = b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(MalformedEntry):
        log.parse_log_untrusted(b"\0" + KEY.sign(b"parley entry 1", body) + body, KEY.public, 0)


def test_an_opening_is_believed_by_the_key_inside_and_nothing_else_is() -> None:
    organizer = log.Member(1, 1, "Olga", KEY.public, bytes(32))
    opening = log.sign_entry(KEY, 0, PREVIOUS, 0, log.Open(bytes(8), KEY.public, organizer, 1))
    assert log.parse_log_untrusted(opening.wire, None, 0)
    with pytest.raises(ForgedEntry):
        log.parse_log_untrusted(log.sign_entry(OTHER, 0, PREVIOUS, 0, log.Open(bytes(8), KEY.public, organizer, 1)).wire, None, 0)
    with pytest.raises(ForgedEntry):
        log.parse_log_untrusted(log.sign_entry(KEY, 1, PREVIOUS, 0, log.Lock(True)).wire, None, 0)
    with pytest.raises(ForgedEntry):
        log.parse_log_untrusted(log.sign_heartbeat(KEY, log.Heartbeat(0, PREVIOUS, 0, 0, [])), None, 0)


@pytest.mark.parametrize(
    "fields",
    [
        log.Presenter(2**32),
        log.Presenter(-1),
        log.Rename(1, ""),
        log.Rename(1, "x" * 65),
        log.Chat(1, False, [(1, 2, 2**63)]),
        log.Leave([], []),
        log.Leave(list(range(1, log.MAX_BATCH + 2)), []),
        log.Admit([member(1)] * (log.MAX_BATCH + 1), 2),
        log.EpochEntry(1, bytes(31)),
    ],
    ids=lambda fields: type(fields).__name__,
)
def test_nobody_signs_what_nobody_could_read(fields: log.Fields) -> None:
    with pytest.raises(MalformedEntry):
        log.sign_entry(KEY, 1, PREVIOUS, 0, fields)


def test_the_largest_admission_and_the_longest_list_of_cuts_can_be_read() -> None:
    admit = log.Admit([member(2**32 - 1 - i, "\U0001f600" * 64) for i in range(log.MAX_BATCH)], 2)
    chat = log.Chat(0, False, [(2**32 - 1 - i, 2, 2**63 - 1) for i in range(log.MAX_MEMBERS)])
    for fields in (admit, chat):
        wire = log.sign_entry(KEY, 1, PREVIOUS, 0, fields).wire
        assert len(wire) <= log.MAX_ENTRY
        assert log.parse_log_untrusted(wire, KEY.public, 0)
