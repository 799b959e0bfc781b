"""Control messages: every one makes the round trip, another msgpack library agrees, and what is malformed raises only its name."""

import contextlib
import struct
import typing
from typing import Annotated, Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import control
from wire.control import MAX_ENTRIES, MESSAGES, Control, Error, Grant, Have, Hello, decode_control_untrusted, encode_control
from wire.errors import CloseReason, LocalMisuse, MalformedMessage, UnknownFrameType
from wire.frame import HEADER_SIZE, PACKET, Frame, FrameDecoder

u64 = st.integers(0, 2**64 - 1)
_U64 = control.U64


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """What a field of this type may hold, from its declaration."""
    if annotation is _U64:
        return u64
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        base, *metas = typing.get_args(annotation)
        limits = {
            name: getattr(meta, name) for meta in metas for name in ("ge", "le", "min_length", "max_length") if getattr(meta, name) is not None
        }
        if base is int:
            return st.integers(limits.get("ge", 0), limits.get("le", 2**63 - 1))
        if base is str:
            return st.text(min_size=limits.get("min_length", 0), max_size=limits["max_length"])
        if base is bytes:
            return st.binary(min_size=limits.get("min_length", 0), max_size=limits["max_length"])
        assert typing.get_origin(base) is list
        return st.lists(values(typing.get_args(base)[0]), min_size=limits.get("min_length", 0), max_size=min(limits["max_length"], 5))
    if origin is tuple:
        return st.tuples(*(values(part) for part in typing.get_args(annotation)))
    if annotation is bool:
        return st.booleans()
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return messages_of(annotation)
    raise AssertionError(f"no strategy for {annotation}")


def messages_of(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__})


any_message = st.sampled_from(MESSAGES).flatmap(messages_of)


def frame_of(message: Control) -> Frame:
    (frame,) = FrameDecoder().feed_untrusted(encode_control(message))
    return frame


def plain(value: Any) -> Any:
    """The message as the other library sees it: lists of lists."""
    if isinstance(value, msgspec.Struct):
        return [plain(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


@given(any_message)
def test_every_message_makes_the_round_trip(message: Control) -> None:
    frame = frame_of(message)
    assert frame.type == message.TYPE
    assert frame.hops == 0
    assert decode_control_untrusted(frame) == message


@given(any_message)
def test_an_independent_msgpack_agrees_in_both_directions(message: Control) -> None:
    body = frame_of(message).body
    assert msgpack.unpackb(body) == plain(message)
    assert msgpack.packb(plain(message)) == body


@given(any_message, st.lists(st.integers(0, 5) | st.text(max_size=5), min_size=1, max_size=4))
def test_a_longer_array_is_legal_so_that_fields_can_be_appended(message: Control, more: list[object]) -> None:
    body = msgpack.packb([*plain(message), *more])
    assert decode_control_untrusted(Frame(message.TYPE, 0, body)) == message


@given(any_message, st.data())
def test_a_truncated_message_is_malformed(message: Control, data: st.DataObject) -> None:
    body = frame_of(message).body
    kept = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(MalformedMessage):
        decode_control_untrusted(Frame(message.TYPE, 0, body[:kept]))


@settings(max_examples=300)
@given(
    st.integers(0, 255),
    st.binary(max_size=64)
    | st.recursive(st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=9), lambda inner: st.lists(inner, max_size=8)).map(
        msgpack.packb
    ),
)
def test_a_strangers_body_raises_only_a_wire_error(kind: int, body: bytes) -> None:
    with contextlib.suppress(MalformedMessage, UnknownFrameType):
        assert type(decode_control_untrusted(Frame(kind, 0, body))) in MESSAGES


@pytest.mark.parametrize("message", MESSAGES)
def test_deep_nesting_is_malformed(message: type[Control]) -> None:
    for opening in (b"\x91", b"\x81\x01", b"\xdd\x00\x00\x00\x01"):
        with pytest.raises(MalformedMessage):
            decode_control_untrusted(Frame(message.TYPE, 0, opening * 100_000))
        with pytest.raises(MalformedMessage):
            decode_control_untrusted(Frame(message.TYPE, 0, b"\x9f" + opening * 100_000))


@pytest.mark.parametrize("length", [0xFFFF_FFFF, 0x7FFF_FFFF])
def test_a_promised_giant_costs_nothing(length: int) -> None:
    for opening in (b"\xdd", b"\xdf", b"\xc6", b"\xdb"):
        with pytest.raises(MalformedMessage):
            decode_control_untrusted(Frame(Have.TYPE, 0, b"\x91" + opening + struct.pack("!I", length)))


def test_lists_over_their_limit_are_malformed() -> None:
    assert decode_control_untrusted(Frame(Have.TYPE, 0, msgpack.packb([[[1, 0, 2, 0]] * MAX_ENTRIES])))
    with pytest.raises(MalformedMessage):
        decode_control_untrusted(Frame(Have.TYPE, 0, msgpack.packb([[[1, 0, 2, 0]] * (MAX_ENTRIES + 1)])))


@pytest.mark.parametrize(
    "fields",
    [
        [256, 1, 1, 1, b"8 bytes!", True, []],  # a version of nine bits
        [1, -1, 1, 1, b"8 bytes!", True, []],
        [1, 1, 2**32, 1, b"8 bytes!", True, []],
        [1, 1, 1, 1, b"7 bytes", True, []],
        [1, 1, 1, 1, b"nine byte", True, []],
        [1, 1, 1, 1, "8 bytes!", True, []],  # text for bytes
        [1, 1, 1, 1, b"8 bytes!", 1, []],  # a number for a truth
        [1, 1, 1, 1, b"8 bytes!", True, [[1, 0, 2, -2]]],
        [1, 1, 1, 1, b"8 bytes!", True, [[1, 0, 2]]],
        [1, 1, 1, 1, b"8 bytes!", True, [[1, 0, 2, 0, 0]]],
        [1, 1, 1, 1, b"8 bytes!", True],
        {"version": 1},
    ],
)
def test_fields_outside_their_limits_are_malformed(fields: object) -> None:
    with pytest.raises(MalformedMessage):
        decode_control_untrusted(Frame(Hello.TYPE, 0, msgpack.packb(fields)))


def test_types_that_no_message_has_are_unknown() -> None:
    known = {message.TYPE for message in MESSAGES}
    assert len(known) == len(MESSAGES)
    assert PACKET not in known
    for kind in set(range(256)) - known:
        with pytest.raises(UnknownFrameType):
            decode_control_untrusted(Frame(kind, 0, b"\x90"))


def test_what_cannot_be_encoded_is_our_own_misuse() -> None:
    with pytest.raises(LocalMisuse):
        encode_control(Have([(1, 0, 2, 2**64)]))
    with pytest.raises(LocalMisuse):
        encode_control(Error("x" * (1 << 20)))


def test_an_unknown_reason_counts_as_internal() -> None:
    assert Error("something-of-tomorrow").close_reason is CloseReason.INTERNAL
    assert all(Error(reason.value).close_reason is reason for reason in CloseReason)


def test_G21_tokens_and_sessions_hide_from_repr() -> None:
    hello = Hello(1, 0x1122_3344_5566_7788, 7, 2, b"\xaa\xbb\xcc\xdd\xee\xff\x00\x11", True, [])
    grant = Grant(7, 2, hello.token)
    for text in (repr(hello), str(hello), f"{hello}", repr(grant)):
        assert repr(hello.token) not in text
        assert str(hello.session) not in text
        assert "aabb" not in text


@pytest.mark.parametrize("message", MESSAGES)
def test_a_frame_is_header_and_body_alone(message: type[Control]) -> None:
    assert HEADER_SIZE == 8
    assert message.__struct_config__.frozen
    assert message.__struct_config__.array_like
