"""Where two pictures differ: a grid of tiles, and rectangles that cover every difference and little else.

What viewers have only approximately (out of film) is marked in the presenter's copy of their picture: the fourth byte of such a pixel is 0
instead of 255. So a comparison of whole words finds what is not exact, one of three bytes finds what was drawn anew, and no
search for moved pixels ever finds an approximate one.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from endpoint.screen.picture import OPAQUE, Rect, Words

TILE = 64
"""Changes are looked for in squares of so many pixels."""
COLOUR = np.uint32(0x00FFFFFF)

_SPARSE = 8
"""Every so many rows of a tile are looked at for a glance."""
_TIGHTEN = 1 << 18
"""Rectangles up to so many pixels are cut down to what really changed in them."""

Grid = NDArray[np.bool_]
"""A flag per tile; shape (rows, columns)."""


def grid_of(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of the grid of a screen."""
    return -(-height // TILE), -(-width // TILE)


def touched(rects: Sequence[Rect] | None, width: int, height: int) -> Grid:
    """The tiles that these rectangles touch; None: all."""
    grid = np.full(grid_of(width, height), rects is None)
    for rect in rects or ():
        inside = rect.clipped(width, height)
        if inside is not None:
            x, y, w, h = inside
            grid[y // TILE : -(-(y + h) // TILE), x // TILE : -(-(x + w) // TILE)] = True
    return grid


def drawn_anew(new: Words, old: Words, look: Grid) -> Grid:
    """Which of the tiles in `look` were drawn anew."""
    return _drawn(new, old, look, 1)


def glanced(new: Words, old: Words, look: Grid) -> Grid:
    """The same at a glance, by a few rows of each tile: what is found is so, some is not found."""
    return _drawn(new, old, look, _SPARSE)


def _drawn(new: Words, old: Words, look: Grid, step: int) -> Grid:
    found = np.zeros_like(look)
    for row, first, last in runs(look):
        if _differ(new, old, row, first, last, step):
            found[row, first:last] = _differences(new, old, row, first, last, step) & COLOUR
    return found


def compare(new: Words, old: Words, look: Grid) -> tuple[Grid, Grid]:
    """Of the tiles in `look`: which were drawn anew, and which the viewers have only approximately."""
    drawn, vague = np.zeros_like(look), np.zeros_like(look)
    for row, first, last in runs(look):
        if _differ(new, old, row, first, last, 1):
            words = _differences(new, old, row, first, last, 1)
            drawn[row, first:last] = words & COLOUR
            vague[row, first:last] = words & OPAQUE
    return drawn, vague


def _differ(new: Words, old: Words, row: int, first: int, last: int, step: int) -> bool:
    """Whether anything in a run does, in every `step`th row: the quickest question, and often the last."""
    part = np.s_[row * TILE : (row + 1) * TILE : step, first * TILE : last * TILE]
    return bool((new[part] != old[part]).any())


def _differences(new: Words, old: Words, row: int, first: int, last: int, step: int) -> Words:
    """For each tile of a run: the bits in which any of its pixels differ, in every `step`th row."""
    part = np.s_[row * TILE : (row + 1) * TILE : step, first * TILE : last * TILE]
    differs: Words = np.bitwise_or.reduce(new[part] ^ old[part], axis=0)
    span = np.zeros((last - first) * TILE, np.uint32)
    span[: len(differs)] = differs
    words: Words = np.bitwise_or.reduce(span.reshape(-1, TILE), axis=1)
    return words


def runs(tiles: Grid) -> Iterator[tuple[int, int, int]]:
    """Neighbours in a row of the grid: (row, first column, column after the last), from the top, left to right."""
    edges = np.diff(tiles.astype(np.int8), prepend=0, append=0, axis=1)
    rows, columns = np.nonzero(edges)
    yield from zip(rows[::2].tolist(), columns[::2].tolist(), columns[1::2].tolist(), strict=True)


def joined(tiles: Grid, width: int, height: int) -> Iterator[Rect]:
    """Runs of tiles, equal runs below one another taken together, as rectangles of pixels."""

    def rect(first: int, last: int, top: int, bottom: int) -> Rect:
        x, y = first * TILE, top * TILE
        return Rect(x, y, min(last * TILE, width) - x, min(bottom * TILE, height) - y)

    growing: dict[tuple[int, int], int] = {}  # run of columns → the row where its rectangle begins
    found: dict[int, set[tuple[int, int]]] = {}
    for row, first, last in runs(tiles):
        found.setdefault(row, set()).add((first, last))
    for row in range(len(tiles) + 1):
        here = found.get(row, set())
        for run in [run for run in growing if run not in here]:
            yield rect(*run, growing.pop(run), row)
        for run in sorted(here):
            growing.setdefault(run, row)


def tightened(rect: Rect, new: Words, old: Words, mask: np.uint32) -> Rect | None:
    """The part of a rectangle in which the pixels differ in the bits of `mask`; None: they do not."""
    if rect.area > _TIGHTEN:
        return rect
    x, y, w, h = rect
    differs = new[y : y + h, x : x + w] ^ old[y : y + h, x : x + w]
    differs &= mask
    across = np.flatnonzero(np.bitwise_or.reduce(differs, axis=0))
    if not len(across):
        return None
    left, right = int(across[0]), int(across[-1]) + 1
    down = np.flatnonzero(np.bitwise_or.reduce(differs[:, left:right], axis=1))
    top, bottom = int(down[0]), int(down[-1]) + 1
    return Rect(x + left, y + top, right - left, bottom - top)


def portion(rects: Sequence[Rect], room: int) -> tuple[list[Rect], list[Rect]]:
    """The first rectangles, up to so many pixels, and the rest; one of them is cut in two if need be."""
    taken: list[Rect] = []
    for at, rect in enumerate(rects):
        rows = min(rect.height, room // rect.width)
        if rows:
            taken.append(Rect(rect.x, rect.y, rect.width, rows))
            room -= rect.width * rows
        if rows < rect.height:
            return taken, [Rect(rect.x, rect.y + rows, rect.width, rect.height - rows), *rects[at + 1 :]]
    return taken, []
