"""The bytes of an update and of a snapshot around what the compressors make: sections, rectangles, copies; packing and parsing.

    update    format u8 | section …            section   tag u8 | length u32 | body
                                               1 copies  2 film  3 still  4 pixels: each at most once, in this order

`parse_update_untrusted` looks at every number before anybody draws: rectangles within the screen, areas within what an
update may hold. docs/screen.md has the whole of it. No pixels here.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from endpoint.screen.picture import Rect, ScreenError

FORMAT: Final = 2
MAX_UPDATE_BYTES: Final = 16 << 20
MAX_SNAPSHOT_BYTES: Final = 64 << 20
MAX_UPDATE_PIXELS: Final = 5_000_000
"""Of one update's lossless sections: their planes fit into MAX_UPDATE_BYTES even if zstd gains nothing."""
MAX_FILM_PIXELS: Final = 3840 * 2160
"""Of one frame of film, as coded: half the width and height of the largest screen."""
MAX_RECTS: Final = 8192
"""Of one section; the largest screen has 8,160 tiles."""
MAX_COPIES: Final = 64
RECT_WORK: Final = 1000
"""Pixels that take as long as what one more rectangle takes."""
WINDOW_LOG: Final = 23
"""A receiver needs at most this window, 8 MiB, for any zstd frame."""
BAND: Final = 64
"""Rows of a snapshot that are coded together."""

COPIES, FILM, STILL, PIXELS = 1, 2, 3, 4

_SECTION = struct.Struct(">BI")
_COUNT = struct.Struct(">H")
_RECT = np.dtype(">u2")
_FILM = struct.Struct(">HHHHBBH")
SNAPSHOT_HEADER: Final = struct.Struct(">BHH")


class Copy(NamedTuple):
    """`into` becomes what stood at (x, y) before the update, in the same size."""

    x: int
    y: int
    into: Rect


@dataclass(frozen=True, slots=True)
class Film:
    """One VP9 frame: the picture of `region`, `scale` times smaller, painted in `paints` alone."""

    region: Rect
    scale: int
    begins: bool
    paints: tuple[Rect, ...]
    frame: bytes

    @property
    def coded(self) -> tuple[int, int]:
        """Width and height of the VP9 frame."""
        return -(-self.region.width // self.scale), -(-self.region.height // self.scale)


@dataclass(frozen=True, slots=True)
class Exact:
    """Rectangles whose planes lie in `packed`."""

    rects: tuple[Rect, ...]
    packed: bytes


@dataclass(frozen=True, slots=True)
class Update:
    """A parsed update. What is drawn: the copies, all from the picture before; then film, still, pixels, in this order."""

    copies: tuple[Copy, ...] = ()
    film: Film | None = None
    still: Exact | None = None
    pixels: Exact | None = None

    @property
    def work(self) -> int:
        """Pixels that are decoded, stretched, copied or painted for it; a rectangle costs as much as some, however small it is."""
        exact = sum(rect.area + RECT_WORK for part in (self.still, self.pixels) if part for rect in part.rects)
        film = 2 * self.film.region.area + RECT_WORK * len(self.film.paints) if self.film else 0
        return exact + film + sum(copy.into.area + RECT_WORK for copy in self.copies)

    @property
    def drawn(self) -> list[Rect]:
        """Where it draws."""
        rects = [copy.into for copy in self.copies]
        rects += self.film.paints if self.film else ()
        for exact in (self.still, self.pixels):
            rects += exact.rects if exact else ()
        return rects


def pack_update(update: Update) -> bytes:
    """Its bytes. The caller keeps the limits."""
    parts = [bytes((FORMAT,))]

    def section(tag: int, body: bytes) -> None:
        parts.extend((_SECTION.pack(tag, len(body)), body))

    if update.copies:
        numbers = [(copy.x, copy.y, *copy.into) for copy in update.copies]
        section(COPIES, np.array(numbers, _RECT).tobytes())
    if update.film is not None:
        film = update.film
        head = _FILM.pack(*film.region, film.scale, film.begins, len(film.paints))
        section(FILM, head + _packed_rects(film.paints) + film.frame)
    for tag, exact in ((STILL, update.still), (PIXELS, update.pixels)):
        if exact is not None:
            section(tag, _COUNT.pack(len(exact.rects)) + _packed_rects(exact.rects) + exact.packed)
    return b"".join(parts)


def _packed_rects(rects: Sequence[Rect]) -> bytes:
    return np.array(rects, _RECT).tobytes()


def bad_update(why: str) -> ScreenError:
    return ScreenError("bad-update", f"A screen update cannot be read ({why}). Waiting for a new snapshot.")


def bad_snapshot(why: str) -> ScreenError:
    return ScreenError("bad-snapshot", f"A snapshot of the screen cannot be read ({why}). Waiting for another.")


def parse_update_untrusted(body: bytes, width: int, height: int) -> Update:
    """The parts of an update for a screen of that size, every number looked at. Raises ScreenError `bad-update`."""
    if not 1 <= len(body) <= MAX_UPDATE_BYTES:
        raise bad_update(f"{len(body)} bytes")
    if body[0] != FORMAT:
        raise bad_update(f"format {body[0]} is not known here")
    sections = _sections_untrusted(body)
    copies: tuple[Copy, ...] = ()
    film = still = pixels = None
    if COPIES in sections:
        copies = _copies_untrusted(sections[COPIES], width, height)
    if FILM in sections:
        film = _film_untrusted(sections[FILM], width, height)
    if STILL in sections:
        still = _exact_untrusted(sections[STILL], width, height)
    if PIXELS in sections:
        pixels = _exact_untrusted(sections[PIXELS], width, height)
    area = sum(rect.area for exact in (still, pixels) if exact for rect in exact.rects)
    if area > MAX_UPDATE_PIXELS:
        raise bad_update("more pixels than an update may hold")
    return Update(copies, film, still, pixels)


def _sections_untrusted(body: bytes) -> dict[int, bytes]:
    sections: dict[int, bytes] = {}
    at, last = 1, 0
    while at < len(body):
        if len(body) - at < _SECTION.size:
            raise bad_update("cut off within a section's head")
        tag, length = _SECTION.unpack_from(body, at)
        at += _SECTION.size
        if not last < tag <= PIXELS:
            raise bad_update(f"section {tag} after {last}")
        if length > len(body) - at:
            raise bad_update("cut off within a section")
        sections[tag] = body[at : at + length]
        at, last = at + length, tag
    if not sections:
        raise bad_update("it is empty")
    return sections


def _rects_untrusted(numbers: bytes, width: int, height: int) -> tuple[Rect, ...]:
    table = np.frombuffer(numbers, _RECT).reshape(-1, 4).astype(np.int64)
    x, y, w, h = table.T
    if w.min() < 1 or h.min() < 1 or (x + w).max() > width or (y + h).max() > height:
        raise bad_update("a rectangle lies outside of the screen")
    return tuple(Rect(*row) for row in table.tolist())


def _copies_untrusted(body: bytes, width: int, height: int) -> tuple[Copy, ...]:
    count, rest = divmod(len(body), 12)
    if rest or not 1 <= count <= MAX_COPIES:
        raise bad_update(f"{len(body)} bytes of copies")
    table = np.frombuffer(body, _RECT).reshape(count, 6)
    into = _rects_untrusted(table[:, 2:].tobytes(), width, height)
    _rects_untrusted(table[:, [0, 1, 4, 5]].tobytes(), width, height)
    if sum(rect.area for rect in into) > width * height:
        raise bad_update("copies of more than the screen")
    return tuple(Copy(x, y, rect) for (x, y), rect in zip(table[:, :2].tolist(), into, strict=True))


def _film_untrusted(body: bytes, width: int, height: int) -> Film:
    if len(body) < _FILM.size:
        raise bad_update("a film without its head")
    x, y, w, h, scale, begins, count = _FILM.unpack_from(body)
    end = _FILM.size + 8 * count
    if scale not in (1, 2) or begins > 1 or not 1 <= count <= MAX_RECTS or len(body) <= end:
        raise bad_update("a film's head")
    region, *paints = _rects_untrusted(body[:8] + body[_FILM.size : end], width, height)
    if -(-w // scale) * -(-h // scale) > MAX_FILM_PIXELS:
        raise bad_update("a film of more pixels than one may have")
    for rect in paints:
        if rect.x < x or rect.y < y or rect.x + rect.width > x + w or rect.y + rect.height > y + h:
            raise bad_update("a film paints outside of its region")
    if sum(rect.area for rect in paints) > region.area:
        raise bad_update("a film paints more than its region")
    return Film(region, scale, bool(begins), tuple(paints), body[end:])


def _exact_untrusted(body: bytes, width: int, height: int) -> Exact:
    if len(body) < _COUNT.size:
        raise bad_update("pixels without their head")
    (count,) = _COUNT.unpack_from(body)
    end = _COUNT.size + 8 * count
    if not 1 <= count <= MAX_RECTS or len(body) < end:
        raise bad_update(f"{count} rectangles in {len(body)} bytes")
    return Exact(_rects_untrusted(body[_COUNT.size : end], width, height), body[end:])
