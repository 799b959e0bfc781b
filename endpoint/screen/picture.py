"""What a picture of a screen is, which part of it is meant, and how large either may be.

A picture is an array of height × width × 4 bytes in the order B, G, R, 255: what X11 hands out, so that no frame is
ever converted. The fourth byte is always 255. Two framebuffers are therefore equal when `numpy.array_equal` says so,
and a pixel can be compared as one 32-bit word.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_WIDTH = 7680
MAX_HEIGHT = 4320
MAX_BYTES = 4 * MAX_WIDTH * MAX_HEIGHT
MAX_GATHERED = 64
"""Rectangles that are looked at one by one."""

OPAQUE = np.uint32(0xFF000000)
"""The fourth byte of every pixel, in a word of a little-endian machine."""

Picture = NDArray[np.uint8]
"""Shape (height, width, 4), C-contiguous; B, G, R, 255."""

Words = NDArray[np.uint32]
"""The same memory with one word per pixel; shape (height, width)."""


class ScreenError(Exception):
    """Why a screen cannot be shared, sent or shown.

    `name` is for programs, logs and tests. `sentence` is for a person and says what to do. The names:

    no picture of it     no-display, display-lost, unsupported-display, no-pictures, missing-xvfb,
                         no-such-monitor, no-such-window, no-such-region, window-closed,
                         window-excluded, cannot-exclude
    codec, sender        screen-too-large, geometry-changed, no-snapshot
    codec, receiver      bad-snapshot, bad-update, screen-too-large, no-snapshot
    viewer, slides       cannot-write-picture
    """

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(f"{name}: {sentence}")
        self.name = name
        self.sentence = sentence


@contextmanager
def bare_screen_errors() -> Iterator[None]:
    """Around a nursery: a ScreenError of its tasks comes out as it is, the first of several, if nothing else went wrong with it."""
    try:
        yield
    except BaseExceptionGroup as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if not isinstance(found, ScreenError) or group.split(ScreenError)[1] is not None:
            raise
        raise found from None


class Rect(NamedTuple):
    """A part of a picture, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int

    @property
    def area(self) -> int:
        return self.width * self.height

    def clipped(self, width: int, height: int) -> "Rect | None":
        """The part of it within a picture of that size; None if there is none."""
        left, top = max(self.x, 0), max(self.y, 0)
        right, bottom = min(self.x + self.width, width), min(self.y + self.height, height)
        if right <= left or bottom <= top:
            return None
        return Rect(left, top, right - left, bottom - top)


def bounding(rects: Sequence[Rect]) -> Rect:
    """The smallest rectangle around all of `rects`; there must be one at least."""
    left, top = min(r.x for r in rects), min(r.y for r in rects)
    right, bottom = max(r.x + r.width for r in rects), max(r.y + r.height for r in rects)
    return Rect(left, top, right - left, bottom - top)


def gathered(rects: Sequence[Rect], more: Sequence[Rect]) -> list[Rect]:
    """Both; where these are too many, one around them all."""
    both = [*rects, *more]
    return both if len(both) <= MAX_GATHERED else [bounding(both)]


def check_geometry(width: int, height: int) -> None:
    """Refuse what no side could hold. Raises ScreenError `screen-too-large`."""
    if not (1 <= width <= MAX_WIDTH and 1 <= height <= MAX_HEIGHT):
        raise ScreenError(
            "screen-too-large",
            f"The screen is {width} × {height}; from 1 × 1 to {MAX_WIDTH} × {MAX_HEIGHT} can be shared. Choose another resolution.",
        )


def blank(width: int, height: int) -> Picture:
    """A black picture."""
    check_geometry(width, height)
    picture = np.zeros((height, width, 4), np.uint8)
    picture[:, :, 3] = 255
    return picture


def words(picture: Picture) -> Words:
    """The picture's own memory, a word per pixel. Raises ValueError for an array that is no picture."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 4 or not picture.flags.c_contiguous:
        raise ValueError("a picture is a contiguous array of height × width × 4 bytes")
    view: Words = picture.view(np.uint32)[:, :, 0]
    return view
