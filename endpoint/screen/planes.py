"""Pixels into planes and back: G, B−G, R−G, one byte a pixel each, all pixels' G first.

Text and surfaces are grey or evenly coloured, so two of the planes are nearly constant. Photographs have neighbours that
resemble one another instead: `left` stores each byte as its difference from the one to its left, which takes a third
off what zstd makes of them, and costs text a tenth.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from endpoint.screen.picture import OPAQUE, Rect, Words

Bytes = NDArray[np.uint8]

_STRIPE = 16384
"""Pixels that are turned into planes at a time: the work stays in the processor's first caches."""


def size(rects: Sequence[Rect]) -> int:
    """How many bytes the planes of these rectangles have."""
    return 3 * sum(rect.area for rect in rects)


def split(pixels: Words, rects: Sequence[Rect], *, left: bool = False) -> Bytes:
    """The planes of the pixels in `rects`, one rectangle after the other."""
    planes = np.empty(size(rects), np.uint8)
    green, blue, red = planes.reshape(3, -1)
    for where, flat, shape in _stripes(rects):
        words = pixels[where].ravel()
        g = (words >> np.uint32(8)).astype(np.uint8)
        if not left:
            green[flat] = g
            np.subtract(words.astype(np.uint8), g, out=blue[flat])
            np.subtract((words >> np.uint32(16)).astype(np.uint8), g, out=red[flat])
            continue
        for plane, values in (
            (green, g),
            (blue, words.astype(np.uint8) - g),
            (red, (words >> np.uint32(16)).astype(np.uint8) - g),
        ):
            rows, out = values.reshape(shape), plane[flat].reshape(shape)
            out[:, 0] = rows[:, 0]
            np.subtract(rows[:, 1:], rows[:, :-1], out=out[:, 1:])
    return planes


def join(planes: Bytes, rects: Sequence[Rect], into: Words, *, left: bool = False) -> None:
    """The reverse: draw the planes' pixels into a picture."""
    green, blue, red = planes.reshape(3, -1)
    for where, flat, shape in _stripes(rects):
        g, b, r = green[flat], blue[flat], red[flat]
        if left:
            g, b, r = (np.add.accumulate(part.reshape(shape), axis=1, dtype=np.uint8).ravel() for part in (g, b, r))
        pixels = (r + g).astype(np.uint32)
        pixels <<= np.uint32(8)
        pixels |= g
        pixels <<= np.uint32(8)
        pixels |= b + g
        pixels |= OPAQUE
        into[where] = pixels.reshape(shape)


def _stripes(rects: Sequence[Rect]) -> Iterator[tuple[tuple[slice, slice], slice, tuple[int, int]]]:
    """(where in the picture, where in a plane, shape), a few rows at a time."""
    at = 0
    for x, y, width, height in rects:
        step = max(1, _STRIPE // width)
        for top in range(y, y + height, step):
            rows = min(step, y + height - top)
            yield (slice(top, top + rows), slice(x, x + width)), slice(at, at + rows * width), (rows, width)
            at += rows * width
