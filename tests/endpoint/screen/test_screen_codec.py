"""The screen codec: exact whatever is drawn, cheap where nothing is, film only for a moment."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.screen import encoder, layout
from endpoint.screen.changes import COLOUR
from endpoint.screen.decoder import Decoder
from endpoint.screen.encoder import Encoder
from endpoint.screen.layout import parse_update_untrusted
from endpoint.screen.picture import OPAQUE, Picture, Rect, ScreenError, blank, words

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


def text(picture: Picture, seed: int) -> None:
    """Lines of something like letters, dark on white."""
    rng = np.random.default_rng(seed)
    picture[:, :, :3] = 255
    for top in range(4, picture.shape[0] - 12, 16):
        letters = rng.integers(0, 6, (10, picture.shape[1] // 3)) == 0
        picture[top : top + 10, : letters.shape[1]][letters] = (20, 20, 60, 255)


def photograph(width: int, height: int, seed: int = 1) -> Picture:
    """Smooth colours with grain: what a camera makes of a wall."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:height, 0:width]
    picture = blank(width, height)
    for channel, (a, b) in enumerate(rng.uniform(20, 90, (3, 2))):
        picture[:, :, channel] = 128 + 80 * np.sin(down / a + seed) * np.cos(across / b) + rng.normal(0, 3, (height, width))
    return picture


def film(width: int, height: int) -> Iterator[Picture]:
    """The same wall, filmed with grain that is another in each frame: no two alike, and as many bytes in all of them."""
    rng, wall = np.random.default_rng(3), photograph(width, height)
    pictures = [wall.copy() for _ in range(5)]
    for picture in pictures:
        picture[:, :, :3] = np.clip(wall[:, :, :3] + rng.normal(0, 9, (height, width, 3)), 0, 255)
    return itertools.cycle(pictures)


class Pair:
    """An encoder and the viewer who got all of it."""

    def __init__(self, picture: Picture) -> None:
        self.encoder, self.decoder, self.restart, self.now = Encoder(), Decoder(), True, 100.0
        self.decoder.load(self.encoder.snapshot(picture))
        self.sent: list[bytes] = []

    def show(self, picture: Picture, damage: list[Rect] | None = None, *, restart: bool = False) -> bytes | None:
        self.restart = self.restart or restart
        update = self.encoder.update(picture, damage, restart=self.restart, now=self.now)
        if update is not None:
            self.drawn = self.decoder.apply(update, restart=self.restart)
            self.restart = False
            self.sent.append(update)
        return update

    def settle(self, picture: Picture) -> float:
        """What a presenter does while nothing is drawn; how many seconds it took until all was exact."""
        start = self.now
        while self.encoder.owed or self.encoder.due is not None:
            self.now = max(self.now + 1 / 60, self.encoder.due or 0.0)
            self.show(picture, [])
        return self.now - start

    def has(self, picture: Picture) -> bool:
        return np.array_equal(self.decoder.picture, picture)


@settings(deadline=None, max_examples=60)
@given(st.data(), sizes)
def test_B06_every_update_leaves_the_viewer_with_the_same_pixels(data: st.DataObject, size: tuple[int, int]) -> None:
    width, height = size
    picture = blank(width, height)
    scribble(picture, Rect(0, 0, width, height), data.draw(st.integers(0, 99)))
    pair = Pair(picture)
    assert pair.has(picture)
    for _ in range(data.draw(st.integers(1, 8))):
        before = pair.decoder.picture.copy()
        damage = data.draw(st.lists(rects(width, height), max_size=4))
        for rect in damage:
            scribble(picture, rect, data.draw(st.integers(0, 2**32)))
        false_damage = data.draw(st.lists(rects(width, height), max_size=2))
        update = pair.show(picture, data.draw(st.sampled_from([None, damage + false_damage])), restart=data.draw(st.booleans()))
        pair.now += data.draw(st.sampled_from([0.01, 0.1, 0.5, 5.0]))
        if pair.encoder.exact:
            assert pair.has(picture)
        if update is not None:
            inside = np.zeros((height, width), bool)
            for x, y, w, h in pair.drawn:
                inside[y : y + h, x : x + w] = True
            assert not (words(before) != words(pair.decoder.picture))[~inside].any()
    assert pair.settle(picture) <= 1.0
    assert pair.has(picture)


def test_B06_a_latecomer_and_a_level_viewer_see_the_same() -> None:
    picture, late = blank(300, 200), Decoder()
    pair = Pair(picture)
    for seed in range(6):
        scribble(picture, Rect(10 * seed, 5 * seed, 50, 40), seed)
        update = pair.show(picture, restart=seed == 4)
        assert update is not None
        if seed == 3:
            scribble(picture, Rect(0, 0, 300, 200), 8)  # on the screen, but not yet sent
            late.load(pair.encoder.snapshot())
            assert np.array_equal(late.picture, pair.decoder.picture)
        elif seed > 3:
            late.apply(update, restart=seed == 4)
            assert pair.has(picture)
    assert np.array_equal(late.picture, picture)


def test_what_was_on_the_screen_before_costs_little() -> None:
    page, other = blank(400, 300), blank(400, 300)
    scribble(page, Rect(0, 0, 400, 300), 1)
    page[:, :, 1] = page[:, :, 2] = page[:, :, 0] & 1  # noise, but not of many colours
    pair = Pair(other)
    first = pair.show(page)
    pair.show(other)
    again = pair.show(page)
    assert first is not None
    assert again is not None
    assert len(again) < len(first) / 20


def test_false_damage_costs_nothing() -> None:
    picture = blank(400, 300)
    pair = Pair(picture)
    assert pair.show(picture, [Rect(0, 0, 400, 300)]) is None
    picture[100, 100] = 9, 8, 7, 255
    pair.show(picture, [Rect(-50, -50, 5000, 5000)])
    assert pair.drawn == [Rect(100, 100, 1, 1)]
    assert len(pair.sent[0]) < 40


def parsed(update: bytes | None, picture: Picture) -> layout.Update:
    assert update is not None
    height, width = picture.shape[:2]
    return parse_update_untrusted(update, width, height)


@pytest.mark.parametrize("by", [1, 7, 40, -3, -64], ids=str)
def test_scrolled_text_is_copied(by: int) -> None:
    page = blank(640, 480)
    text(page, 1)
    pair = Pair(page)
    moved = page.copy()
    text(moved, 2)
    if by > 0:
        moved[by:] = page[:-by]
    else:
        moved[:by] = page[-by:]
    update = parsed(pair.show(moved), moved)
    assert pair.has(moved)
    assert any(copy.into.y - copy.y == by and copy.into.x == copy.x for copy in update.copies)
    assert len(pair.sent[0]) < 6000


def test_a_window_that_moves_over_another_is_copied() -> None:
    under, window = blank(700, 500), blank(300, 200)
    text(under, 1)
    text(window, 2)
    first, second = under.copy(), under.copy()
    first[100:300, 150:450] = window
    second[111:311, 139:439] = window
    pair = Pair(first)
    update = parsed(pair.show(second), second)
    assert pair.has(second)
    assert any((copy.into.x - copy.x, copy.into.y - copy.y) == (-11, 11) for copy in update.copies)


def test_film_is_approximate_for_less_than_a_second() -> None:
    pair = Pair(blank(800, 600))
    picture = blank(800, 600)
    frame = photograph(512, 384)
    for turn in range(12):
        picture[100:484, 130:642] = np.roll(frame, 3 * turn, axis=1)
        pair.now += 1 / 12
        update = parsed(pair.show(picture, [Rect(130, 100, 512, 384)]), picture)
        assert update.film is not None
        assert not pair.has(picture)
        difference = pair.decoder.picture.astype(int) - picture
        assert np.abs(difference[100:484, 130:642]).mean() < 4
        difference[100:484, 130:642] = 0
        assert not difference.any()
    assert not pair.encoder.exact
    assert pair.settle(picture) < 1.0
    assert pair.encoder.exact
    assert pair.has(picture)


def test_text_in_the_middle_of_film_stays_exact() -> None:
    picture = photograph(768, 640)
    text(label := blank(128, 128), 3)
    picture[256:384, 320:448] = label
    pair = Pair(blank(768, 640))
    pair.decoder.load(pair.encoder.snapshot(picture))
    for turn in range(5):
        picture[:192] = np.roll(picture[:192], 5, axis=1)
        picture[448:] = np.roll(picture[448:], 5, axis=1)
        pair.now += 0.1
        pair.show(picture, [Rect(0, 0, 768, 192), Rect(0, 448, 768, 192)])
        assert turn == 0 or not pair.encoder.exact
        assert np.array_equal(pair.decoder.picture[192:448], picture[192:448])
    pair.settle(picture)
    assert pair.has(picture)


def test_a_latecomer_joins_a_film() -> None:
    picture = photograph(640, 512)
    pair, late = Pair(blank(640, 512)), Decoder()
    for turn in range(6):
        picture = np.roll(picture, 4, axis=1)
        pair.now += 0.1
        if turn == 3:
            late.load(pair.encoder.snapshot())
        update = pair.show(picture, restart=turn == 3)
        assert update is not None
        if turn >= 3:
            late.apply(update, restart=turn == 3)
            assert np.array_equal(late.picture, pair.decoder.picture)
    while pair.encoder.due is not None:
        pair.now = max(pair.now + 1 / 60, pair.encoder.due)
        if (update := pair.show(picture, [])) is not None:
            late.apply(update, restart=False)
    assert np.array_equal(late.picture, picture)


def test_a_slow_link_makes_film_worse_and_a_fast_one_better_again() -> None:
    pictures, pair = film(320, 256), Pair(blank(320, 256))

    def frame() -> int:
        pair.now += 0.5
        return len(pair.show(next(pictures)) or b"")

    good = [frame() for _ in range(5)][-1]
    pair.encoder.rate = good / 3 / encoder.FRAME_SECONDS
    bad = [frame() for _ in range(8)]
    assert max(bad[-4:]) < good / 3
    pair.encoder.rate = math.inf
    again = [frame() for _ in range(40)]
    assert min(again[-4:]) > good / 2


def test_two_films_far_apart_are_filmed_at_their_full_size_and_what_lies_between_costs_nothing() -> None:
    """A page with two of them: one region covers both, and a text between them."""
    picture, one, grain = blank(1600, 900), film(320, 256), np.random.default_rng(5).integers(0, 256, (300, 800, 3))
    pictures = []
    for frame in itertools.islice(one, 4):
        picture[64:320, 64:384] = picture[576:832, 1216:1536] = frame
        pictures.append(picture.copy())
    for picture in pictures:
        picture[340:560, 400:1200, :3] = 255 * (grain[:220] > 200)  # two colours: text, as it were
    pair = Pair(pictures[0])
    for picture in pictures[1:]:
        pair.now += 0.1
        pair.show(picture)
    shown = [parse_update_untrusted(update, 1600, 900).film for update in pair.sent]
    assert all(film is not None and film.scale == 1 for film in shown)
    alone = Pair(pictures[0][:320, :384].copy())
    for picture in pictures[1:]:
        alone.now += 0.1
        alone.show(np.ascontiguousarray(picture[:320, :384]))
    assert sum(map(len, pair.sent)) < 2.2 * sum(map(len, alone.sent))


def test_on_a_slow_link_film_is_made_exact_in_small_pieces() -> None:
    rate = 50_000
    picture, pair = photograph(512, 512), Pair(blank(512, 512))
    pair.encoder.rate = rate
    pair.show(picture)
    pieces = []
    while pair.encoder.due is not None:
        pair.now = max(pair.now + 0.1, pair.encoder.due)
        pieces.append(len(pair.show(picture, []) or b""))
    assert pair.has(picture)
    assert max(pieces) < 1.5 * encoder.STILL_SECONDS * rate


def test_noise_larger_than_an_update_comes_in_portions() -> None:
    picture = blank(3840, 2160)
    pair = Pair(picture)
    scribble(picture, Rect(0, 0, 3840, 2160), 1)
    picture[:, :, :3] &= 1  # eight colours: no film
    pair.show(picture)
    while pair.encoder.owed:
        pair.show(picture, [])
    assert 2 <= len(pair.sent) <= 3
    assert max(map(len, pair.sent)) <= layout.MAX_UPDATE_BYTES
    assert pair.has(picture)


def test_another_geometry_needs_a_snapshot() -> None:
    encoder, decoder = Encoder(), Decoder()
    with pytest.raises(ScreenError) as refusal:
        encoder.update(blank(8, 8), None, restart=True, now=0.0)
    assert refusal.value.name == "no-snapshot"
    decoder.load(encoder.snapshot(blank(8, 8)))
    with pytest.raises(ScreenError) as refusal:
        encoder.update(blank(8, 9), None, restart=True, now=0.0)
    assert refusal.value.name == "geometry-changed"
    decoder.load(encoder.snapshot(blank(9, 70)))
    assert decoder.picture.shape == (70, 9, 4)
    with pytest.raises(ValueError, match="restarts"):
        encoder.update(blank(9, 70), None, restart=False, now=0.0)


def test_the_same_geometry_begins_anew_with_a_snapshot() -> None:
    picture = photograph(640, 512)
    pair = Pair(blank(640, 512))
    pair.show(picture)
    assert not pair.encoder.exact
    pair.decoder.load(pair.encoder.snapshot(picture))
    assert pair.encoder.exact
    assert pair.encoder.due is None
    assert pair.has(picture)


def test_a_screen_that_is_too_large_is_refused_by_name() -> None:
    with pytest.raises(ScreenError) as refusal:
        Encoder().snapshot(np.zeros((1, 7681, 4), np.uint8))
    assert refusal.value.name == "screen-too-large"
    with pytest.raises(ScreenError) as refusal:
        Decoder().load(layout.SNAPSHOT_HEADER.pack(layout.FORMAT, 65535, 65535) + b"x")
    assert refusal.value.name == "screen-too-large"
    noise = np.random.default_rng(1).integers(0, 256, (4320, 7680, 4), np.uint8)
    with pytest.raises(ScreenError) as refusal:
        Encoder().snapshot(noise)
    assert refusal.value.name == "screen-too-large"


def test_the_picture_is_read_only() -> None:
    decoder = Pair(blank(4, 4)).decoder
    with pytest.raises(ValueError, match="read-only"):
        decoder.picture[0, 0, 0] = 1


def test_a_film_that_fills_a_large_screen_is_coded_at_half_its_size() -> None:
    picture = photograph(1277, 801)
    pair = Pair(blank(1277, 801))
    update = parsed(pair.show(picture), picture)
    assert update.film is not None
    assert update.film.scale == 2
    assert update.film.coded == (639, 401)
    assert not pair.encoder.exact
    assert np.abs(pair.decoder.picture.astype(int) - picture).mean() < 6
    assert pair.settle(picture) < 1.0
    assert pair.has(picture)


def test_what_is_approximate_is_marked_by_the_fourth_byte() -> None:
    assert int(COLOUR) ^ int(OPAQUE) == 0xFFFFFFFF


def test_a_film_that_fills_a_4k_screen_is_within_what_a_decoder_takes() -> None:
    sender, decoder, picture, rng = Encoder(), Decoder(), blank(3840, 2160), np.random.default_rng(4)
    decoder.load(sender.snapshot(picture))
    picture[:, :, :3] = rng.integers(0, 32, (2160, 3840, 3), np.uint8)
    update = sender.update(picture, None, restart=True, now=100.0)
    assert update is not None
    parsed = layout.parse_update_untrusted(update, 3840, 2160)
    assert parsed.film is not None
    width, height = parsed.film.coded
    assert width * height <= layout.MAX_FILM_PIXELS
    assert parsed.film.region.area > layout.MAX_FILM_PIXELS // 2, "it does fill the screen"
    decoder.apply(update, restart=True)


@pytest.mark.parametrize("side", [(1, 1), (7680, 4320)], ids=["least", "largest"])
def test_film_at_half_its_size_is_within_what_a_decoder_takes_on_any_screen(side: tuple[int, int]) -> None:
    film = layout.Film(Rect(0, 0, *side), 2, True, (Rect(0, 0, *side),), b"")
    assert film.coded[0] * film.coded[1] <= layout.MAX_FILM_PIXELS
    assert 4 * encoder.HALF <= layout.MAX_FILM_PIXELS, "a larger region is halved"
