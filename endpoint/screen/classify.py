"""Which parts of a screen are film: photographs and what moves, which lossless coding takes too many bytes for.

A tile *looks like a photograph* when most neighbours in a row differ and hardly a colour comes twice; text, however dense, has
its background. Film begins when many such tiles change at once, or a few change again and again; a tile that was
film stays it while it moves, until it has looked otherwise for several changes. When a tile has stood still for
STILL_AFTER seconds it is due to be sent exactly; one that goes on and off waits a little longer. So nothing flaps.

No pixels are coded here and no clock is read: `now` is an argument.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from endpoint.screen.changes import TILE, Grid, runs
from endpoint.screen.picture import Rect, Words

BEGIN_TILES: Final = 20
"""So many tiles that look like photographs and change together become film at once."""
BEGIN_CHANGES: Final = 4
"""Fewer of them do when they have changed so often within some seconds."""
BEGIN_FEW: Final = 4
STILL_AFTER: Final = 0.55
"""Seconds without a change until a tile is sent exactly."""
FLAPPING_AFTER: Final = 0.65
"""The same for a tile that has come back from standing still lately."""
DORMANT: Final = 2.0
"""Seconds after which a region in which nothing moved is forgotten."""

_DIFFER: Final = 0.45
_WEAK_DIFFER: Final = 0.15
_COLOURS: Final = 0.35
_WEAK_COLOURS: Final = 0.12
_TRUST: Final = 4
_ROWS: Final = 2
"""Of a tile at the screen's lower edge, at least, of those that are looked at: fewer tell nothing."""


class Classifier:
    """The state of one screen's tiles. Owned by its encoder."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._changed = np.full(shape, -1e9)  # when a tile was last film
        self._trust = np.zeros(shape, np.int8)  # how much a tile is film
        self._often = np.zeros(shape, np.float32)  # photographic changes lately
        self._flapping = np.zeros(shape, np.float64)  # until when a tile counts as going on and off
        self._decayed = 0.0
        self.region: Rect | None = None  # what is filmed
        self._moved = -1e9  # when something in it was film last

    def film(self, pixels: Words, changed: Grid, now: float) -> Grid:
        """Which of the changed tiles are film now. `region` covers them, and the film that goes on."""
        self._forget(now)
        photo = looks_like_photographs(pixels, changed)
        self._often[photo] += 1
        trusted = changed & (self._trust > 0)
        self._trust[trusted & ~photo] -= 1
        seeds = photo | trusted
        count = int(np.count_nonzero(photo))
        again = int(np.count_nonzero(photo & (self._often >= BEGIN_CHANGES)))
        if not trusted.any() and count < BEGIN_TILES and again < BEGIN_FEW:
            return np.zeros_like(changed)
        self._trust[photo] = _TRUST
        self._changed[seeds] = now
        self._moved = now
        return seeds

    @property
    def trusted(self) -> Grid:
        """The tiles that were film lately: nobody looks for what has moved there."""
        return self._trust > 0

    def due(self, vague: Grid, now: float) -> Grid:
        """Which of the approximate tiles have stood still long enough to be sent exactly."""
        return vague & (now >= self._ready())

    def next_due(self, vague: Grid) -> float:
        """When the next of them will have; infinity if there is none."""
        return float(self._ready()[vague].min()) if vague.any() else float("inf")

    def settled(self, tiles: Grid, now: float) -> None:
        """These tiles have been sent exactly."""
        self._flapping[tiles] = now + 3.0

    def cover(self, rects: list[Rect], now: float) -> bool:
        """Let `region` cover these rectangles; whether it changed, so that the film begins anew."""
        left, top = min(r.x for r in rects), min(r.y for r in rects)
        right, bottom = max(r.x + r.width for r in rects), max(r.y + r.height for r in rects)
        old = self.region
        if old is not None:
            if left >= old.x and top >= old.y and right <= old.x + old.width and bottom <= old.y + old.height:
                return False
            left, top = min(left, old.x), min(top, old.y)
            right, bottom = max(right, old.x + old.width), max(bottom, old.y + old.height)
        self.region = Rect(left, top, right - left, bottom - top)
        return True

    def _ready(self) -> NDArray[np.float64]:
        ready: NDArray[np.float64] = self._changed + np.where(self._flapping > self._changed, FLAPPING_AFTER, STILL_AFTER)
        return ready

    def _forget(self, now: float) -> None:
        if now - self._decayed > 1.0:
            self._often *= 0.5
            self._decayed = now
        if self.region is not None and now - self._moved > DORMANT:
            self.region = None
            self._trust[:] = 0


def looks_like_photographs(pixels: Words, tiles: Grid) -> Grid:
    """Which of these tiles do, judged on every fourth row; and what lies between them and is not plain."""
    strong, weak = np.zeros_like(tiles), np.zeros_like(tiles)
    for row, first, last in runs(tiles):
        band = pixels[row * TILE : (row + 1) * TILE : 4, first * TILE : last * TILE]
        if len(band) >= _ROWS:
            strong[row, first:last], weak[row, first:last] = _judge(band)
    if strong.any():
        rows, columns = strong.shape
        padded = np.pad(strong, 1).astype(np.int8)
        around = np.zeros_like(strong, np.int8)
        for down in range(3):
            for right in range(3):
                around += padded[down : down + rows, right : right + columns]
        strong |= weak & (around >= 4)
    return strong


def _judge(band: Words) -> tuple[Grid, Grid]:
    """A run of tiles, the last of which may be cut off: which look like photographs, and which are not plain at least."""
    band = np.ascontiguousarray(band)
    rows, width = band.shape
    count = -(-width // TILE)
    wide = np.full(count, TILE)
    wide[-1] -= count * TILE - width
    unlike = np.zeros(band.shape, np.bool_)  # its next neighbour; in the last column the next row's first, which is as good
    np.not_equal(band.ravel()[1:], band.ravel()[:-1], out=unlike.ravel()[:-1])
    across = np.zeros(count * TILE, np.uint8)
    np.add.reduce(unlike.view(np.uint8), axis=0, dtype=np.uint8, out=across[:width])
    differ = across.reshape(-1, TILE).sum(axis=1) / (rows * wide)
    sample = band[::2, ::4]
    if width % TILE:  # the last pixel again and again: no colour more
        sample = np.pad(sample, ((0, 0), (0, count * TILE // 4 - sample.shape[1])), mode="edge")
    tiles = sample.reshape(len(sample), count, -1).transpose(1, 0, 2)
    colours = np.zeros(count)
    busy = differ > _WEAK_DIFFER
    ordered = np.sort(tiles[busy].reshape(-1, len(sample) * TILE // 4), axis=1)
    colours[busy] = (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1) / (len(sample) * wide[busy] / 4)
    return (differ > _DIFFER) & (colours > _COLOURS), busy & (colours > _WEAK_COLOURS)
