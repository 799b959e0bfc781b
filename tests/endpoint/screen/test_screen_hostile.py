"""A hostile presenter: whatever arrives, one named error, nothing drawn, no memory taken that was not agreed."""

import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.screen import layout
from endpoint.screen.decoder import Decoder
from endpoint.screen.encoder import Encoder
from endpoint.screen.layout import Copy, Exact, Film, Update, pack_update
from endpoint.screen.picture import Picture, Rect, ScreenError, blank
from endpoint.screen.vp9 import FilmEncoder, check_frame_untrusted


def noise(width: int, height: int, seed: int) -> Picture:
    picture = blank(width, height)
    picture[:, :, :3] = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return picture


def decoder_after(picture: Picture) -> Decoder:
    decoder = Decoder()
    decoder.load(Encoder().snapshot(picture))
    return decoder


def recorded() -> tuple[bytes, list[bytes]]:
    """A snapshot and four updates, which have every kind of section between them."""
    picture, encoder = noise(96, 80, 2), Encoder()
    snapshot, updates = encoder.snapshot(picture), []
    stream = zstandard.ZstdCompressor().compressobj()
    film = FilmEncoder(40, 30, 40)
    for seed in range(4):
        pixels = stream.compress(bytes(3 * 12) + bytes([seed])[:0]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        updates.append(
            pack_update(
                Update(
                    (Copy(3, 4, Rect(5, 6, 20, 20)), Copy(0, 0, Rect(40, 40, 8, 9))) if seed != 1 else (),
                    Film(Rect(10, 10, 40, 30), 1, seed == 0, (Rect(10, 10, 30, 30),), film.encode(noise(40, 30, seed))) if seed != 3 else None,
                    Exact((Rect(1, 2, 8, 4),), zstandard.ZstdCompressor().compress(bytes(96))) if seed > 1 else None,
                    Exact((Rect(0, 0, 3, 2), Rect(9, 9, 6, 1)), pixels),
                )
            )
        )
    return snapshot, updates


SNAPSHOT, UPDATES = recorded()


def refused(act: Callable[[], object]) -> str | None:
    """The name of the refusal, if it was one."""
    try:
        act()
    except ScreenError as refusal:
        return refusal.name
    return None


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    body = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        match draw(st.integers(0, 3)):
            case 0:
                body[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del body[at : at + draw(st.integers(1, 40))]
            case 2:
                body[at:at] = draw(st.binary(min_size=1, max_size=40))
            case _:
                del body[at:]
    return bytes(body)


@settings(deadline=None, max_examples=200)
@given(st.one_of(mutations(SNAPSHOT), st.binary(max_size=200)))
def test_a_hostile_snapshot_raises_one_error(body: bytes) -> None:
    decoder = Decoder()
    refusal = refused(lambda: decoder.load(body))
    if refusal:
        assert refusal in {"bad-snapshot", "screen-too-large"}
        assert refused(lambda: decoder.apply(UPDATES[0], restart=True)) == "no-snapshot"


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(0, 3), st.booleans())
def test_a_hostile_update_raises_one_error_and_draws_nothing(data: st.DataObject, index: int, restart: bool) -> None:
    decoder = Decoder()
    decoder.load(SNAPSHOT)
    for at, update in enumerate(UPDATES[:index]):
        decoder.apply(update, restart=at == 0)
    before = decoder.picture.copy()
    body = data.draw(st.one_of(mutations(UPDATES[index]), st.binary(max_size=99)))
    refusal = refused(lambda: decoder.apply(body, restart=restart))
    if refusal:
        assert refusal == "bad-update"
        assert np.array_equal(decoder.picture, before)
        assert refused(lambda: decoder.apply(UPDATES[index], restart=index == 0)) == "no-snapshot"
    assert decoder.picture.shape == before.shape
    assert (decoder.picture[:, :, 3] == 255).all()


def pixels_update(rects: list[list[int]], packed: bytes, tag: int = layout.PIXELS) -> bytes:
    body = struct.pack(">H", len(rects)) + np.array(rects, ">u2").tobytes() + packed
    return bytes((layout.FORMAT,)) + struct.pack(">BI", tag, len(body)) + body


def test_a_bomb_is_not_decompressed() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    packed = bomb.compress(bytes(200 << 20)) + bomb.flush()
    declared = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    tracemalloc.start()
    try:
        for attack in (packed, declared):
            for tag in (layout.STILL, layout.PIXELS):
                with pytest.raises(ScreenError) as refusal:
                    decoder_after(blank(8, 8)).apply(pixels_update([[0, 0, 1, 1]], attack, tag), restart=True)
                assert refusal.value.name == "bad-update"
            with pytest.raises(ScreenError) as refusal:
                Decoder().load(layout.SNAPSHOT_HEADER.pack(layout.FORMAT, 8, 8) + b"\x00" + attack)
            assert refusal.value.name == "bad-snapshot"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_window_larger_than_agreed_is_refused() -> None:
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(3, window_log=layout.WINDOW_LOG + 1)
    ).compressobj()
    packed = wide.compress(b"abc") + wide.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(ScreenError) as refusal:
        decoder_after(blank(8, 8)).apply(pixels_update([[0, 0, 1, 1]], packed), restart=True)
    assert refusal.value.name == "bad-update"


OUTSIDE = [[0, 0, 0, 1], [0, 0, 1, 0], [8, 0, 1, 1], [0, 8, 1, 1], [7, 7, 2, 1], [65535, 65535, 65535, 65535], [0, 1, 8, 8]]


@pytest.mark.parametrize("numbers", OUTSIDE, ids=str)
def test_rectangles_outside_of_the_screen_are_refused(numbers: list[int]) -> None:
    inside = Rect(0, 0, 1, 1)
    bad = Rect(*numbers)
    frame = FilmEncoder(1, 1, 20).encode(noise(1, 1, 1))
    updates = {
        "pixels": pixels_update([numbers], bytes(99)),
        "still": pixels_update([numbers], bytes(99), layout.STILL),
        "copy into": pack_update(Update(copies=(Copy(0, 0, bad),))),
        "copy from": pack_update(Update(copies=(Copy(numbers[0], numbers[1], Rect(0, 0, max(numbers[2], 1), max(numbers[3], 1))),))),
        "film": pack_update(Update(film=Film(bad, 1, True, (inside,), frame))),
        "film paints": pack_update(Update(film=Film(inside, 1, True, (bad,), frame))),
    }
    if 0 in numbers[2:]:
        del updates["copy from"]
    for update in updates.values():
        with pytest.raises(ScreenError) as refusal:
            decoder_after(blank(8, 8)).apply(update, restart=True)
        assert refusal.value.name == "bad-update"


def test_more_pixels_than_an_update_may_hold_are_refused_before_memory_is_taken() -> None:
    decoder = decoder_after(blank(3000, 1000))
    with pytest.raises(ScreenError, match="more pixels"):
        decoder.apply(pixels_update([[0, 0, 3000, 1000]] * 2, b""), restart=True)


def test_copies_of_more_than_the_screen_are_refused() -> None:
    copies = tuple(Copy(0, 0, Rect(0, 0, 8, 5)) for _ in range(2))
    with pytest.raises(ScreenError, match="copies"):
        decoder_after(blank(8, 8)).apply(pack_update(Update(copies=copies)), restart=True)


@pytest.mark.parametrize(
    ("numbers", "scale", "accepted"),
    [((0, 0, 3840, 2160), 1, True), ((0, 0, 3841, 2160), 1, False), ((9, 9, 3840, 2161), 1, False), ((0, 0, 7680, 4320), 2, True)],
    ids=["4K", "wider", "higher", "8K-halved"],
)
def test_film_of_more_pixels_than_one_may_have_never_reaches_its_decoder(numbers: tuple[int, ...], scale: int, accepted: bool) -> None:
    region = Rect(*numbers)
    update = pack_update(Update(film=Film(region, scale, True, (region,), KEY)))
    refusal = refused(lambda: layout.parse_update_untrusted(update, 7680, 4320))
    assert refusal == (None if accepted else "bad-update")


def frames() -> list[bytes]:
    encoder = FilmEncoder(64, 48, 52)
    return [encoder.encode(noise(64, 48, seed)) for seed in range(3)]


KEY, NEXT, LAST = frames()


def with_bits(frame: bytes, at: int, bits: str) -> bytes:
    value = f"{int.from_bytes(frame[:24], 'big'):0192b}"
    value = value[:at] + bits + value[at + len(bits) :]
    return int(value, 2).to_bytes(24, "big") + frame[24:]


def test_frames_are_known_by_their_heads() -> None:
    assert check_frame_untrusted(KEY, (64, 48))
    assert not check_frame_untrusted(NEXT, (64, 48))


HEADS = {
    "no frame marker": with_bits(KEY, 0, "00"),
    "profile 0": with_bits(KEY, 2, "00"),
    "an earlier frame": with_bits(KEY, 4, "1"),
    "hidden": with_bits(KEY, 6, "0"),
    "no sync code": with_bits(KEY, 8, "00000000"),
    "4:2:0": with_bits(KEY, 36, "11"),
    "another width": with_bits(KEY, 39, "1" * 16),
    "a superframe": KEY + b"\xc0",
    "cut off": KEY[:5],
}


@pytest.mark.parametrize("frame", HEADS.values(), ids=[name.replace(" ", "-") for name in HEADS])
def test_film_of_another_shape_never_reaches_its_decoder(frame: bytes) -> None:
    decoder = decoder_after(blank(64, 48))
    film = Film(Rect(0, 0, 64, 48), 1, True, (Rect(0, 0, 64, 48),), frame)
    with pytest.raises(ScreenError, match="film") as refusal:
        decoder.apply(pack_update(Update(film=film)), restart=True)
    assert refusal.value.name == "bad-update"


def test_film_goes_on_only_where_it_began() -> None:
    region, other = Rect(0, 0, 64, 48), Rect(1, 0, 64, 48)
    for first, second, scale in ((None, region, 1), (region, other, 1), (region, region, 2)):
        decoder = decoder_after(blank(128, 96))
        if first is not None:
            decoder.apply(pack_update(Update(film=Film(first, 1, True, (first,), KEY))), restart=True)
        film = Film(second, scale, False, (second,), NEXT)
        with pytest.raises(ScreenError, match="never began"):
            decoder.apply(pack_update(Update(film=film)), restart=first is None)


def test_sections_come_once_and_in_order() -> None:
    one = pack_update(Update(copies=(Copy(0, 0, Rect(1, 1, 2, 2)),)))
    decoder_after(blank(8, 8)).apply(one, restart=True)
    for body in (one + one[1:], one + b"\x00", one[:-1], one[:4], bytes((2,)), bytes((1,)) + one[1:], bytes((2, 5, 0, 0, 0, 0))):
        with pytest.raises(ScreenError) as refusal:
            decoder_after(blank(8, 8)).apply(body, restart=True)
        assert refusal.value.name == "bad-update"
