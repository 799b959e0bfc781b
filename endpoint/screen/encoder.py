"""The presenter's side of the codec: pictures and damage in, bytes out. Exact where people read, film where it moves.

    damage ─▶ tiles that differ ─▶ copies of what moved ─▶ film for photographs and what moves ─▶ pixels, exactly, for the rest
                                                             └─ stood still for a moment ─▶ still: the same exactly

The encoder keeps a copy of what the viewers have, in which pixels that they have only approximately are marked. Whatever
it decides, what is left is found by comparing with that copy, so a wrong guess costs bytes and never a pixel.

The planes of all updates pass through one zstd stream, flushed at each update, so that what was on the screen before costs
almost nothing when it comes again. `restart=True` begins a new stream, and a new film; after a snapshot the next update must.

Pure: no I/O, and `now` (seconds, any origin, rising) is an argument. docs/screen.md has the bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import zstandard

from endpoint.screen import motion, planes
from endpoint.screen.changes import COLOUR, TILE, Grid, compare, drawn_anew, glanced, grid_of, joined, portion, tightened, touched
from endpoint.screen.classify import Classifier
from endpoint.screen.layout import (
    BAND,
    FORMAT,
    MAX_SNAPSHOT_BYTES,
    MAX_UPDATE_BYTES,
    MAX_UPDATE_PIXELS,
    SNAPSHOT_HEADER,
    WINDOW_LOG,
    Copy,
    Exact,
    Film,
    Update,
    pack_update,
)
from endpoint.screen.picture import Picture, Rect, ScreenError, Words, blank, bounding, check_geometry, words
from endpoint.screen.vp9 import HALF_QUALITIES, QUALITIES, FilmEncoder

SNAPSHOT_LEVEL: Final = 1
UPDATE_LEVEL: Final = 6
MOTION_TILES: Final = 6
"""Fewer changed tiles are not searched for motion."""
STILL_PIXELS: Final = 400_000
"""Of one update, so that what people do meanwhile does not wait behind a photograph."""
HALF: Final = 1_000_000
"""Where more pixels than this change together, film has half the width and height: it is the exact picture a moment later that counts."""
FRAME_SECONDS: Final = 0.12
"""Of the link's rate, for a frame of film: eight a second, whatever the link."""
STILL_SECONDS: Final = 0.25
"""The same for what one update makes exact of what stood still."""
BETTER_AFTER: Final = 4.0
"""Seconds in one quality until film gets better, where the link takes that; twice as long each time that it was too much."""
BETTER_WITHIN: Final = 32.0
WORSE_AFTER: Final = 1.0
BETTER_SOON: Final = 0.5
MUCH: Final = 2.0
"""Where a film began with a guess, it gets better after so long on a line that has turned out to be so many times as fast."""
_KEY: Final = 4.0
"""A film's first frame takes about so many times the bytes of another."""
_KEY_BYTES: Final = 1.0
"""Of a pixel of it at the best quality, at most, nearly always."""
_STEP: Final = 1.7
"""One quality of film takes about so many times the bytes of the next."""
_STILL_BYTES: Final = 1.2
"""Of a photograph's pixel, packed."""
_LEAST_STILL: Final = 8192
"""Pixels: one row of the widest screen, at least."""

_ALL = np.uint32(0xFFFFFFFF)
_PHOTO = 0.4
_STILL = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, window_log=20, hash_log=12, chain_log=6, search_log=1, min_match=7, target_length=0
)
"""Photographs repeat nothing but what is plain: a small table and long matches alone take a fifth less time than level 1, for fewer bytes."""


@dataclass
class _Filming:
    """The VP9 stream of one region."""

    region: Rect
    scale: int
    quality: int
    encoder: FilmEncoder
    canvas: Picture  # what was painted of the region; the rest stays grey and costs nothing, whatever stands there
    begun: bool = False  # whether its key frame has been made


class Encoder:
    """One screen. Owned by one task; `update` and `snapshot` may be called in any thread, but one at a time."""

    def __init__(self) -> None:
        self._reference: Picture | None = None  # what level viewers have; fourth byte 0: only approximately
        self._owed: list[Rect] = []  # changed, but left out of the last update
        self._updates = zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters.from_level(UPDATE_LEVEL, window_log=WINDOW_LOG)
        )
        self._stream: zstandard.ZstdCompressionObj | None = None  # begins with the first pixels after a restart
        self._fresh = True  # the next update must restart
        self._classifier = Classifier((1, 1))
        self._vague: Grid = np.zeros((1, 1), np.bool_)  # tiles that viewers have only approximately
        self._filming: _Filming | None = None
        self.rate = math.inf  # bytes a second that the link takes, as far as who sends knows; film and its refining are fitted to it
        self._quality = 0  # into vp9.QUALITIES
        self._chosen_at = -1e9  # when
        self._guessed_for: float | None = None  # at which rate, if it was a guess
        self._filmed_at = -1e9  # when film was sent last
        self._patience = BETTER_AFTER
        self._due: float | None = None

    @property
    def owed(self) -> bool:
        """Whether the last update left changes out because it was full. Then call `update` again, damage or not."""
        return bool(self._owed)

    @property
    def due(self) -> float | None:
        """When to call `update` again though nothing was drawn (on the scale of `now`): film that stands still is sent exactly."""
        return self._due

    @property
    def exact(self) -> bool:
        """Whether level viewers have every pixel of the last picture as it is."""
        return not self._owed and not self._vague.any()

    def snapshot(self, picture: Picture | None = None) -> bytes:
        """The whole screen, on its own: the first picture, or another geometry, or a picture for a latecomer.

        Without an argument it is the picture that level viewers have (in film, the picture that they see approximately): use
        that when there are any, since they do not read snapshots and must not be left behind. The next update is relative to it
        and has restart=True.

        Raises ScreenError `screen-too-large` (geometry, or more than MAX_SNAPSHOT_BYTES), `no-snapshot` when there is
        no picture yet.
        """
        if picture is None:
            picture = self._reference
        if picture is None:
            raise ScreenError("no-snapshot", "There is no picture of the screen yet. Share a screen first.")
        height, width = picture.shape[:2]
        check_geometry(width, height)
        body = _packed_snapshot(words(picture))
        if len(body) > MAX_SNAPSHOT_BYTES:
            raise ScreenError(
                "screen-too-large",
                f"A picture of this screen takes {len(body) >> 20} MiB; {MAX_SNAPSHOT_BYTES >> 20} MiB can be sent. Choose a lower resolution.",
            )
        if picture is not self._reference:
            self._adopt(picture)
        self._fresh = True
        return body

    def _adopt(self, picture: Picture) -> None:
        """All viewers begin anew with this picture."""
        height, width = picture.shape[:2]
        if not self._has(picture):
            self._reference = blank(width, height)
            self._classifier = Classifier(grid_of(width, height))
        assert self._reference is not None
        self._reference[:] = picture
        self._vague = np.zeros(grid_of(width, height), np.bool_)
        self._filming = None
        self._owed = []
        self._due = None

    def update(self, picture: Picture, damage: Sequence[Rect] | None, *, restart: bool, now: float) -> bytes | None:
        """What changed since the picture given last; None if nothing did.

        damage: where to look; None means everywhere. It may be too large, at the cost of looking; changes outside of
        it are not seen. restart: begin a new compression stream, as the first update after a snapshot must.

        One update holds a bounded number of pixels: `owed` says whether something was left for the next one, `due`
        when to ask for it.

        Raises ScreenError `no-snapshot` before any snapshot, `geometry-changed` when this picture needs one.
        """
        if self._reference is None:
            raise ScreenError("no-snapshot", "An update needs a snapshot before it. Send a snapshot first.")
        if not self._has(picture):
            raise ScreenError("geometry-changed", "The screen has another size now. Send a snapshot of it.")
        if self._fresh and not restart:
            raise ValueError("the first update after a snapshot restarts the compression")
        if restart:
            self._stream, self._filming = None, None
        new, old = words(picture), words(self._reference)
        height, width = new.shape
        look = touched(None if damage is None else [*damage, *self._owed], width, height)
        drawn = glanced(new, old, look)
        copies: list[Copy] = []
        moving = drawn & ~self._classifier.trusted
        if np.count_nonzero(moving) >= MOTION_TILES:
            copies = self._move(new, old, moving)
        if copies:
            look |= touched([copy.into for copy in copies], width, height)
            drawn, vague = compare(new, old, look)
            self._vague = (self._vague & ~look) | vague
        else:
            drawn |= drawn_anew(new, old, look & ~drawn)
        film, filmed = self._film(picture, new, old, drawn, now)
        still = self._still(new, old, now)
        if film is not None or still is not None:
            drawn = drawn_anew(new, old, drawn & ~filmed)
        pixels = self._pixels(new, old, drawn)
        self._due = None
        if self._vague.any():
            self._due = max(now, self._classifier.next_due(self._vague))
        update = Update(tuple(copies), film, still, pixels)
        if update == Update():
            return None
        self._fresh = False
        body = pack_update(update)
        assert len(body) <= MAX_UPDATE_BYTES
        return body

    def _has(self, picture: Picture) -> bool:
        return self._reference is not None and self._reference.shape == picture.shape

    def _move(self, new: Words, old: Words, drawn: Grid) -> list[Copy]:
        """Copies of what moved, made in `old` too."""
        height, width = new.shape
        box = bounding([rect for part in joined(drawn, width, height) if (rect := tightened(part, new, old, COLOUR))])
        copies = motion.moved(new, old, box)
        motion.make(old, copies)
        return copies

    def _film(self, picture: Picture, new: Words, old: Words, drawn: Grid, now: float) -> tuple[Film | None, Grid]:
        """A frame of film for the tiles that are film now, and which tiles it paints wholly; they become approximate in `old`."""
        height, width = new.shape
        tiles = self._classifier.film(new, drawn, now) if drawn.any() else drawn
        if not tiles.any():
            return None, tiles
        rects = list(joined(tiles, width, height))
        changed = [rect for part in rects if (rect := tightened(part, new, old, COLOUR))]
        begins = self._classifier.cover(changed, now)
        region = self._classifier.region
        assert region is not None
        paints = tuple(part for rect in rects if (part := _common(rect, region)))
        filming = self._filming
        scale = 2 if sum(rect.area for rect in paints) > HALF or region.area > 4 * HALF else 1
        if filming is None and now - self._filmed_at > BETTER_AFTER:
            self._guess(sum(rect.area for rect in paints) / scale**2, now)
        if begins or filming is None or filming.region != region or filming.quality != self._quality or filming.scale < scale:
            filming = self._filming = _begun(region, scale, self._quality)
        x, y, w, h = region
        for rect in paints:
            here = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
            filming.canvas[rect.y - y : rect.y - y + rect.height, rect.x - x : rect.x - x + rect.width] = picture[here]
        frame = filming.encoder.encode(filming.canvas)
        for rect in paints:
            where = np.s_[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]
            np.bitwise_and(new[where], COLOUR, out=old[where])
        self._vague |= tiles
        self._filmed_at = now
        begins, filming.begun = not filming.begun, True
        self._fit(len(frame) / (_KEY if begins else 1.0), now)
        within = np.zeros_like(tiles)
        within[-(-y // TILE) : (y + h) // TILE, -(-x // TILE) : (x + w) // TILE] = True
        if y + h == height:
            within[height // TILE :, -(-x // TILE) : (x + w) // TILE] = y <= height // TILE * TILE
        return Film(region, filming.scale, begins, paints, frame), tiles & within

    def _guess(self, pixels: float, now: float) -> None:
        """Choose the quality of a film whose first frame has so many pixels; as soon as there is one, better is known."""
        size, room = _KEY_BYTES * pixels / _KEY, FRAME_SECONDS * self.rate
        if size > room:
            steps = min(math.ceil(math.log(size / room, _STEP)), len(QUALITIES) - 1)
            self._quality, self._chosen_at, self._guessed_for = max(self._quality, steps), now, self.rate

    def _fit(self, size: float, now: float) -> None:
        """Choose the quality of the frames to come by the size of this one. Each change costs a key frame, so there is time between two."""
        room, waited, guessed_for = FRAME_SECONDS * self.rate, now - self._chosen_at, None
        if self.rate == math.inf:
            self._patience = BETTER_AFTER
        if size > room and waited >= WORSE_AFTER:
            steps = -math.ceil(math.log(size / room, _STEP))
            self._patience = min(2 * self._patience, BETTER_WITHIN)
        elif self._guessed_for is not None and self.rate >= MUCH * self._guessed_for and waited >= BETTER_SOON:
            steps, guessed_for = 1 if room < math.inf else len(QUALITIES), self.rate
        elif self._quality and _STEP * size < room and waited >= self._patience:
            steps = 1
        else:
            return
        self._quality = min(max(self._quality - steps, 0), len(QUALITIES) - 1)
        self._chosen_at, self._guessed_for = now, guessed_for

    def _still(self, new: Words, old: Words, now: float) -> Exact | None:
        """What stood still, exactly, as much of it as one update may hold."""
        tiles = self._classifier.due(self._vague, now)
        if not tiles.any():
            return None
        height, width = new.shape
        inexact = [rect for part in joined(tiles, width, height) if (rect := tightened(part, new, old, _ALL))]
        rects, rest = portion(inexact, int(max(_LEAST_STILL, min(STILL_PIXELS, STILL_SECONDS * self.rate / _STILL_BYTES))))
        left = touched(rest, width, height) & tiles
        self._vague &= ~tiles | left
        self._classifier.settled(tiles & ~left, now)
        return self._exact(new, old, rects) if rects else None

    def _pixels(self, new: Words, old: Words, drawn: Grid) -> Exact | None:
        """Whatever differs still, through the stream."""
        height, width = new.shape
        rects = [rect for part in joined(drawn, width, height) if (rect := tightened(part, new, old, COLOUR))]
        rects, self._owed = portion(rects, MAX_UPDATE_PIXELS - STILL_PIXELS)
        if not rects:
            return None
        body = planes.split(new, rects)
        _settle(new, old, rects)
        if self._stream is None:
            self._stream = self._updates.compressobj()
        packed = self._stream.compress(body.data) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        return Exact(tuple(rects), packed)

    def _exact(self, new: Words, old: Words, rects: list[Rect]) -> Exact:
        body = planes.split(new, rects, left=True)
        _settle(new, old, rects)
        return Exact(tuple(rects), zstandard.ZstdCompressor(compression_params=_STILL).compress(body.data))


def _begun(region: Rect, scale: int, quality: int) -> _Filming:
    quantiser = (QUALITIES if scale == 1 else HALF_QUALITIES)[quality]
    encoder = FilmEncoder(-(-region.width // scale), -(-region.height // scale), quantiser)
    canvas = np.full((region.height, region.width, 4), 128, np.uint8)
    return _Filming(region, scale, quality, encoder, canvas)


def _settle(new: Words, old: Words, rects: Sequence[Rect]) -> None:
    for x, y, w, h in rects:
        old[y : y + h, x : x + w] = new[y : y + h, x : x + w]


def _common(rect: Rect, region: Rect) -> Rect | None:
    """The part of a rectangle within a region."""
    left, top = max(rect.x, region.x), max(rect.y, region.y)
    right, bottom = min(rect.x + rect.width, region.x + region.width), min(rect.y + rect.height, region.y + region.height)
    return Rect(left, top, right - left, bottom - top) if right > left and bottom > top else None


def _packed_snapshot(pixels: Words) -> bytes:
    """The screen, band by band, so that each band is still in the cache when it is compressed."""
    height, width = pixels.shape
    bands = [Rect(0, top, width, min(BAND, height - top)) for top in range(0, height, BAND)]
    lefts = [_is_photo(pixels[band.y : band.y + band.height]) for band in bands]
    parameters = zstandard.ZstdCompressionParameters.from_level(SNAPSHOT_LEVEL, source_size=3 * width * height, window_log=21)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=3 * width * height)
    parts = [SNAPSHOT_HEADER.pack(FORMAT, width, height), bytes(lefts)]
    for band, left in zip(bands, lefts, strict=True):
        parts.append(stream.compress(planes.split(pixels, [band], left=left).data))
    parts.append(stream.flush())
    return b"".join(parts)


def _is_photo(band: Words) -> bool:
    """Whether differences to the left neighbour are the better way for these rows."""
    rows = band[::8]
    return bool(np.count_nonzero(rows[:, 1:] != rows[:, :-1]) > _PHOTO * rows.size)
