"""The tile codec: exact whatever is drawn, cheap where nothing is, and safe against a hostile presenter."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.screen import codec
from endpoint.screen.codec import Decoder, Encoder
from endpoint.screen.picture import Picture, Rect, ScreenError, blank, words

sizes = st.tuples(st.integers(1, 200), st.integers(1, 150))


@st.composite
def rects(draw: st.DrawFn, width: int, height: int) -> Rect:
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return Rect(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))


def scribble(picture: Picture, rect: Rect, seed: int) -> None:
    """Fill with a colour, with noise, or with a few dots."""
    rng = np.random.default_rng(seed)
    part = picture[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width, :3]
    match seed % 3:
        case 0:
            part[:] = rng.integers(0, 256, 3, np.uint8)
        case 1:
            part[:] = rng.integers(0, 256, part.shape, np.uint8)
        case _:
            part[rng.integers(0, rect.height, 3), rng.integers(0, rect.width, 3)] = rng.integers(0, 256, 3, np.uint8)


@settings(deadline=None)
@given(st.data(), sizes)
def test_B06_every_update_leaves_the_viewer_with_the_same_pixels(data: st.DataObject, size: tuple[int, int]) -> None:
    width, height = size
    picture, encoder, decoder = blank(width, height), Encoder(), Decoder()
    scribble(picture, Rect(0, 0, width, height), data.draw(st.integers(0, 99)))
    decoder.load(encoder.snapshot(picture))
    assert np.array_equal(decoder.picture, picture)
    fresh = True
    for _ in range(data.draw(st.integers(1, 8))):
        before = picture.copy()
        damage = data.draw(st.lists(rects(width, height), max_size=4))
        for rect in damage:
            scribble(picture, rect, data.draw(st.integers(0, 2**32)))
        false_damage = data.draw(st.lists(rects(width, height), max_size=2))
        restart = fresh or data.draw(st.booleans())
        update = encoder.update(picture, data.draw(st.sampled_from([None, damage + false_damage])), restart=restart)
        assert not encoder.owed
        if update is None:
            assert np.array_equal(picture, before)
            continue
        fresh = False
        drawn = decoder.apply(update, restart=restart)
        assert np.array_equal(decoder.picture, picture)
        inside = np.zeros((height, width), bool)
        for x, y, w, h in drawn:
            assert not inside[y : y + h, x : x + w].any(), "rectangles overlap"
            inside[y : y + h, x : x + w] = True
        assert not (words(before) != words(picture))[~inside].any()


def test_B06_a_latecomer_and_a_level_viewer_see_the_same() -> None:
    picture, encoder, level, late = blank(300, 200), Encoder(), Decoder(), Decoder()
    level.load(encoder.snapshot(picture))
    for seed in range(6):
        scribble(picture, Rect(10 * seed, 5 * seed, 50, 40), seed)
        update = encoder.update(picture, None, restart=seed in (0, 4))
        assert update is not None
        level.apply(update, restart=seed in (0, 4))
        if seed == 3:
            scribble(picture, Rect(0, 0, 300, 200), 7)  # on the screen, but not yet sent
            late.load(encoder.snapshot())
            assert np.array_equal(late.picture, level.picture)
        elif seed > 3:
            late.apply(update, restart=seed == 4)
        assert seed == 3 or np.array_equal(level.picture, picture)
    assert np.array_equal(late.picture, picture)


def test_what_was_on_the_screen_before_costs_little() -> None:
    page, other, encoder = blank(400, 300), blank(400, 300), Encoder()
    scribble(page, Rect(0, 0, 400, 300), 1)
    encoder.snapshot(other)
    first = encoder.update(page, None, restart=True)
    encoder.update(other, None, restart=False)
    again = encoder.update(page, None, restart=False)
    assert first is not None
    assert again is not None
    assert len(first) > 300_000
    assert len(again) < 1_000


def test_false_damage_costs_nothing() -> None:
    picture, encoder = blank(400, 300), Encoder()
    encoder.snapshot(picture)
    assert encoder.update(picture, [Rect(0, 0, 400, 300)], restart=True) is None
    picture[100, 100] = 9, 8, 7, 255
    update = encoder.update(picture, [Rect(-50, -50, 5000, 5000)], restart=True)
    assert update is not None
    assert decoder_after(blank(400, 300)).apply(update, restart=True) == [Rect(100, 100, 1, 1)]


def decoder_after(picture: Picture) -> Decoder:
    decoder = Decoder()
    decoder.load(Encoder().snapshot(picture))
    return decoder


def test_noise_larger_than_an_update_comes_in_portions() -> None:
    picture, encoder, decoder = blank(3840, 2160), Encoder(), Decoder()
    decoder.load(encoder.snapshot(picture))
    scribble(picture, Rect(0, 0, 3840, 2160), 1)
    updates = []
    restart = True
    while restart or encoder.owed:
        update = encoder.update(picture, None if restart else [], restart=restart)
        assert update is not None
        assert len(update) <= codec.MAX_UPDATE_BYTES
        decoder.apply(update, restart=restart)
        updates.append(len(update))
        restart = False
    assert len(updates) == 2
    assert np.array_equal(decoder.picture, picture)


def test_another_geometry_needs_a_snapshot() -> None:
    encoder, decoder = Encoder(), Decoder()
    with pytest.raises(ScreenError) as refusal:
        encoder.update(blank(8, 8), None, restart=True)
    assert refusal.value.name == "no-snapshot"
    decoder.load(encoder.snapshot(blank(8, 8)))
    with pytest.raises(ScreenError) as refusal:
        encoder.update(blank(8, 9), None, restart=True)
    assert refusal.value.name == "geometry-changed"
    decoder.load(encoder.snapshot(blank(8, 9)))
    assert decoder.picture.shape == (9, 8, 4)


def test_the_first_update_after_a_snapshot_restarts() -> None:
    encoder, picture = Encoder(), blank(8, 8)
    encoder.snapshot(picture)
    picture[0, 0, 0] = 1
    with pytest.raises(ValueError, match="restarts"):
        encoder.update(picture, None, restart=False)


def test_a_screen_that_is_too_large_is_refused_by_name() -> None:
    with pytest.raises(ScreenError) as refusal:
        Encoder().snapshot(np.zeros((1, 7681, 4), np.uint8))
    assert refusal.value.name == "screen-too-large"
    with pytest.raises(ScreenError) as refusal:
        Decoder().load(codec._SNAPSHOT_HEADER.pack(1, 65535, 65535) + b"x")
    assert refusal.value.name == "screen-too-large"
    noise = np.random.default_rng(1).integers(0, 256, (4320, 7680, 4), np.uint8)
    with pytest.raises(ScreenError) as refusal:
        Encoder().snapshot(noise)
    assert refusal.value.name == "screen-too-large"


def test_the_picture_is_read_only() -> None:
    decoder = decoder_after(blank(4, 4))
    with pytest.raises(ValueError, match="read-only"):
        decoder.picture[0, 0, 0] = 1


# --- a hostile presenter ---


def recorded() -> tuple[bytes, list[bytes]]:
    picture, encoder = blank(96, 80), Encoder()
    scribble(picture, Rect(0, 0, 96, 80), 2)
    snapshot, updates = encoder.snapshot(picture), []
    for seed in range(3):
        scribble(picture, Rect(8 * seed, 9, 30, 20), seed)
        update = encoder.update(picture, None, restart=seed == 0)
        assert update is not None
        updates.append(update)
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


@settings(deadline=None, max_examples=400)
@given(st.one_of(mutations(SNAPSHOT), st.binary(max_size=200)))
def test_a_hostile_snapshot_raises_one_error(body: bytes) -> None:
    decoder = Decoder()
    refusal = refused(lambda: decoder.load(body))
    if refusal:
        assert refusal in {"bad-snapshot", "screen-too-large"}
        assert refused(lambda: decoder.apply(UPDATES[0], restart=True)) == "no-snapshot"


@settings(deadline=None, max_examples=400)
@given(st.data(), st.integers(0, 2), st.booleans())
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


def test_a_bomb_is_not_decompressed() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    packed = bomb.compress(bytes(200 << 20)) + bomb.flush()
    one_pixel = codec._UPDATE_HEADER.pack(1, 1) + np.array([0, 0, 1, 1], ">u2").tobytes()
    declared = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    tracemalloc.start()
    try:
        for attack in (packed, declared):
            decoder = decoder_after(blank(8, 8))
            with pytest.raises(ScreenError) as refusal:
                decoder.apply(one_pixel + attack, restart=True)
            assert refusal.value.name == "bad-update"
            with pytest.raises(ScreenError) as refusal:
                decoder.load(codec._SNAPSHOT_HEADER.pack(1, 8, 8) + attack)
            assert refusal.value.name == "bad-snapshot"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_window_larger_than_agreed_is_refused() -> None:
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(3, window_log=codec.WINDOW_LOG + 1)
    ).compressobj()
    body = codec._UPDATE_HEADER.pack(1, 1) + np.array([0, 0, 1, 1], ">u2").tobytes() + wide.compress(b"abc")
    with pytest.raises(ScreenError) as refusal:
        decoder_after(blank(8, 8)).apply(body + wide.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK), restart=True)
    assert refusal.value.name == "bad-update"


@pytest.mark.parametrize(
    "numbers",
    [[0, 0, 0, 1], [0, 0, 1, 0], [8, 0, 1, 1], [0, 8, 1, 1], [7, 7, 2, 1], [65535, 65535, 65535, 65535], [0, 1, 8, 8]],
)
def test_rectangles_outside_of_the_screen_are_refused(numbers: list[int]) -> None:
    with pytest.raises(ScreenError, match="rectangle") as refusal:
        decoder_after(blank(8, 8)).apply(codec._UPDATE_HEADER.pack(1, 1) + np.array(numbers, ">u2").tobytes() + bytes(99), restart=True)
    assert refusal.value.name == "bad-update"


def test_more_pixels_than_an_update_may_hold_are_refused_before_memory_is_taken() -> None:
    decoder = decoder_after(blank(3000, 1000))
    body = codec._UPDATE_HEADER.pack(1, 2) + np.array([0, 0, 3000, 1000] * 2, ">u2").tobytes()
    with pytest.raises(ScreenError, match="more pixels"):
        decoder.apply(body, restart=True)
