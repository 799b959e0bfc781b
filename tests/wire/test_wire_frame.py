"""Frames: the same stream means the same, however it is cut; what is no frame raises exactly the named error."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import FrameTooLarge, MalformedFrame, WireError
from wire.frame import HEADER, HEADER_SIZE, MAX_BODY, Frame, FrameDecoder, encode_frame

frames = st.lists(st.builds(Frame, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=300)), max_size=8)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def outcome(pieces: list[bytes]) -> tuple[list[Frame], type[WireError] | None, int]:
    """Frames, the error that ended it, bytes still waiting for the rest of a frame."""
    decoder = FrameDecoder()
    received: list[Frame] = []
    for piece in pieces:
        try:
            for frame in decoder.feed_untrusted(piece):
                received.append(frame)  # one by one, so that what stands before an error is kept
        except WireError as error:
            return received, type(error), 0
    return received, None, decoder.buffered


@given(frames, st.lists(st.integers(0, 10_000)))
def test_frames_arrive_however_the_stream_is_cut(sent: list[Frame], places: list[int]) -> None:
    data = b"".join(encode_frame(f.type, f.body, f.hops) for f in sent)
    assert outcome(cut(data, places)) == (sent, None, 0)
    assert outcome([data[i : i + 1] for i in range(len(data))]) == (sent, None, 0)


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000)))
def test_any_bytes_mean_the_same_however_they_are_cut(data: bytes, places: list[int]) -> None:
    whole = outcome([data])
    assert outcome(cut(data, places)) == whole
    assert outcome([data[i : i + 1] for i in range(len(data))]) == whole


@given(frames, st.binary(max_size=30), st.lists(st.integers(0, 10_000)))
def test_what_stands_before_an_error_is_delivered_however_the_stream_is_cut(sent: list[Frame], rest: bytes, places: list[int]) -> None:
    data = b"".join(encode_frame(f.type, f.body, f.hops) for f in sent) + HEADER.pack(0, 0, 0, 7) + rest
    assert outcome([data]) == outcome(cut(data, places)) == (sent, MalformedFrame, 0)


def test_an_iterator_that_is_left_early_loses_nothing() -> None:
    decoder = FrameDecoder()
    first = next(iter(decoder.feed_untrusted(encode_frame(1, b"a") + encode_frame(2, b"b"))))
    assert [first, *decoder.feed_untrusted(b"")] == [Frame(1, 0, b"a"), Frame(2, 0, b"b")]


@given(frames, st.binary(min_size=1, max_size=50), st.integers(0, 10_000))
def test_a_truncated_frame_waits_and_is_never_delivered(sent: list[Frame], body: bytes, place: int) -> None:
    last = encode_frame(1, body)
    kept = last[: place % len(last)]
    data = b"".join(encode_frame(f.type, f.body, f.hops) for f in sent) + kept
    assert outcome([data]) == (sent, None, len(kept))


@pytest.mark.parametrize("length", [MAX_BODY + 1, 0xFFFF_FFFF])
def test_an_oversized_frame_is_refused_by_its_header_alone(length: int) -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameTooLarge):
        list(decoder.feed_untrusted(HEADER.pack(length, 0, 0, 0)))


def test_the_largest_frame_is_legal_and_one_byte_more_cannot_be_encoded() -> None:
    data = encode_frame(0, bytes(MAX_BODY))
    decoder = FrameDecoder()
    assert list(decoder.feed_untrusted(data[:-1])) == []
    assert decoder.buffered == HEADER_SIZE + MAX_BODY - 1
    assert [len(frame.body) for frame in decoder.feed_untrusted(data[-1:])] == [MAX_BODY]
    assert decoder.buffered == 0
    with pytest.raises(FrameTooLarge):
        encode_frame(0, bytes(MAX_BODY + 1))


@pytest.mark.parametrize("reserved", [1, 0x100, 0xFFFF])
def test_reserved_bits_are_refused(reserved: int) -> None:
    with pytest.raises(MalformedFrame):
        list(FrameDecoder().feed_untrusted(HEADER.pack(0, 0, 0, reserved)))


def test_a_body_does_not_change_with_the_buffer_it_came_in() -> None:
    data = bytearray(encode_frame(0, b"abc"))
    (frame,) = FrameDecoder().feed_untrusted(memoryview(data))
    data[:] = bytes(len(data))
    assert frame.body == b"abc"


@given(
    st.one_of(st.binary(max_size=200), frames.map(lambda sent: b"".join(encode_frame(f.type % 3, f.body, f.hops) for f in sent))),
    st.lists(st.integers(0, 10_000)),
)
def test_runs_are_the_same_frames_with_packets_together(data: bytes, places: list[int]) -> None:
    decoder, received, runs, error = FrameDecoder(), list[Frame](), list[list[Frame]](), None
    pieces = cut(data, places)
    try:
        for piece in pieces:
            before = len(runs)
            for run in decoder.runs_untrusted(piece):
                runs.append(run)
                received += run
            one_read = runs[before:]
            for first, second in itertools.pairwise(one_read):
                assert first[0].type or second[0].type  # nothing that belongs together is apart
    except WireError as refused:
        error = type(refused)
    assert all(len(run) == 1 or not any(frame.type for frame in run) for run in runs)
    assert (received, error, 0 if error else decoder.buffered) == outcome(pieces)
