"""What has moved: rectangles of the old picture that stand elsewhere in the new one, pixel for pixel.

    candidates   where could it have gone?          strips: rows of narrow columns that occur once in both pictures (scrolling)
                                                    windows: 16 pixels in a row, hashed at every place of the old picture (anything else)
    rectangle    what does this offset explain?     +1 for each pixel that it makes right, −1 for each that it makes wrong; the
                                                    rectangle of the greatest sum, found on samples along either axis

A rectangle need not be perfect: what it gets wrong is corrected by the pixels that follow. A wrong guess therefore costs bytes, never
exactness. All copies read the picture as it was, so that their order means nothing.

Hashes only propose, so they may be cheap: 32 bits, wrapping.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from endpoint.screen.layout import Copy
from endpoint.screen.picture import Rect, Words

MOST: Final = 4
"""Copies of one update."""
WORTH: Final = 2048
"""Pixels that a copy must put right."""
_STRIPS: Final = 6
_STRIP: Final = 32
_ENOUGH: Final = 0.8
"""The share of what changed that scrolling must explain, or other ways are looked for."""
_WINDOW: Final = 16
_ANCHORS: Final = 128
_VOTES: Final = 4
_SAMPLE: Final = 4
"""Every so many columns (rows) are looked at to find the rows (columns) of a rectangle."""
_LINE: Final = 16
_WIDE: Final = 512
"""Columns from which on half as many of them say enough about the rows."""
_LEAST_STRIPE: Final = 8
"""Rows that are moved at a time; fewer are not worth a step of their own."""
_BLOCK: Final = 96
"""Rows that are hashed together, so that they stay in the processor's cache."""
_LARGEST: Final = 1 << 20
"""Windows are not looked for in larger areas."""

_rng = np.random.default_rng(20_011)
_WEIGHTS: Final = _rng.integers(1, 1 << 32, _STRIP, np.uint32) | np.uint32(1)
_MULTIPLIERS: Final = tuple(int(number) | 1 for number in _rng.integers(1 << 20, 1 << 32, 4))

Offset = tuple[int, int]
Flags = NDArray[np.bool_]


def moved(new: Words, old: Words, box: Rect) -> list[Copy]:
    """Copies that make `old` more like `new` within `box`, where most of the change is. They read `old` as it is."""
    copies: list[Copy] = []
    x, y, w, h = box
    now, predicted = new[y : y + h, x : x + w], old[y : y + h, x : x + w]
    sample = _Sample(now, predicted, box)
    offsets = list(_strips(new, old, box))
    offset, gain = sample.promising(offsets, old)
    if gain < _ENOUGH * sample.wrong:
        offsets += _windows(new, old, predicted, box)
        offset, gain = sample.promising(offsets, old)
    while gain >= WORTH:
        into = _explained(new, old, predicted, box, offset)
        offsets.remove(offset)
        if into is not None:
            copy = Copy(into.x - offset[0], into.y - offset[1], into)
            copies.append(copy)
            sample.take(copy, old)
            if len(copies) == MOST or sample.wrong < 8 * WORTH:
                break
            if len(copies) == 1:
                predicted = predicted.copy()
            target = np.s_[into.y - y : into.y - y + into.height, into.x - x : into.x - x + into.width]
            predicted[target] = old[copy.y : copy.y + into.height, copy.x : copy.x + into.width]
        offset, gain = sample.promising(offsets, old)
    return copies


def make(screen: Words, copies: Sequence[Copy]) -> None:
    """Make these copies in a picture, each of the picture as it was."""
    if len(copies) == 1:
        _shift(screen, copies[0])
        return
    parts = [screen[copy.y : copy.y + copy.into.height, copy.x : copy.x + copy.into.width].copy() for copy in copies]
    for (_, _, (x, y, w, h)), part in zip(copies, parts, strict=True):
        screen[y : y + h, x : x + w] = part


def _shift(screen: Words, copy: Copy) -> None:
    """One copy, in stripes that do not overlap their source and are not read after they were written: half the memory's work."""
    x, y, w, h = copy.into
    step = abs(y - copy.y)
    if step < _LEAST_STRIPE:
        step = h
    tops = range(0, h, step)
    for top in tops if y < copy.y else reversed(tops):
        rows = min(step, h - top)
        screen[y + top : y + top + rows, x : x + w] = screen[copy.y + top : copy.y + top + rows, copy.x : copy.x + w]


class _Sample:
    """Every fourth pixel of every fourth row of the box: what is there, and what the copies so far make of it."""

    def __init__(self, now: Words, predicted: Words, box: Rect) -> None:
        self._now = now[::_SAMPLE, ::_SAMPLE].copy()
        self._predicted = predicted[::_SAMPLE, ::_SAMPLE].copy()
        self._box = box
        self._differ = self._now != self._predicted

    @property
    def wrong(self) -> int:
        """About how many pixels differ still."""
        return int(np.count_nonzero(self._differ)) * _SAMPLE * _SAMPLE

    def promising(self, offsets: list[Offset], old: Words) -> tuple[Offset, int]:
        """The offset that makes most pixels right, and about how many these are."""
        best = (0, 0), 0
        for offset in offsets:
            rows, columns, source = self._shifted(self._box, offset, old)
            right = self._now[rows, columns] == source
            right &= self._differ[rows, columns]
            gain = int(np.count_nonzero(right)) * _SAMPLE * _SAMPLE
            if gain > best[1]:
                best = offset, gain
        return best

    def take(self, copy: Copy, old: Words) -> None:
        rows, columns, source = self._shifted(copy.into, (copy.into.x - copy.x, copy.into.y - copy.y), old)
        self._predicted[rows, columns] = source
        self._differ = self._now != self._predicted

    def _shifted(self, into: Rect, offset: Offset, old: Words) -> tuple[slice, slice, Words]:
        """The sampled rows and columns of `into` that come from within the screen, and the pixels there."""
        height, width = old.shape
        rows = _sampled(max(into.y, offset[1]), min(into.y + into.height, height + offset[1]), self._box.y)
        columns = _sampled(max(into.x, offset[0]), min(into.x + into.width, width + offset[0]), self._box.x)
        top, left = self._box.y + rows.start * _SAMPLE - offset[1], self._box.x + columns.start * _SAMPLE - offset[0]
        down, across = (rows.stop - rows.start) * _SAMPLE, (columns.stop - columns.start) * _SAMPLE
        return rows, columns, old[top : top + down : _SAMPLE, left : left + across : _SAMPLE]


def _sampled(first: int, end: int, origin: int) -> slice:
    """Which samples, counted from `origin`, lie within first … end; none if there are none."""
    start = -(-(first - origin) // _SAMPLE)
    return slice(start, max(start, -(-(end - origin) // _SAMPLE)))


def _overlap(new: Words, old: Words, predicted: Words, box: Rect, offset: Offset) -> tuple[Words, Words, Words]:
    """Of the part of `box` that comes from within the screen: how it is, where it would come from, how it is without."""
    height, width = old.shape
    dx, dy = offset
    left, right = max(box.x, dx), min(box.x + box.width, width + dx)
    top, bottom = max(box.y, dy), min(box.y + box.height, height + dy)
    if right <= left or bottom <= top:
        left = right = box.x
        top = bottom = box.y
        dx = dy = 0
    return (
        new[top:bottom, left:right],
        old[top - dy : bottom - dy, left - dx : right - dx],
        predicted[top - box.y : bottom - box.y, left - box.x : right - box.x],
    )


# --- candidates -------------------------------------------------------------------------------------------------------


def _strips(new: Words, old: Words, box: Rect) -> Iterator[Offset]:
    """Offsets straight up or down, the likeliest first."""
    x, y, w, h = box
    if h < 16 or w < _STRIP:
        return
    count = max(1, min(_STRIPS, w // _STRIP))
    lefts = np.linspace(x, x + w - _STRIP, count).astype(int).tolist()
    votes: Counter[int] = Counter()
    for left in lefts:
        part = np.s_[y : y + h, left : left + _STRIP]
        before, after = _rows(old[part]), _rows(new[part])
        differs = before != after
        if not differs.any():
            continue
        for offset in _matches(before, after):
            votes[offset] += 1
    del votes[0]
    for offset, seen in votes.most_common(2):
        if seen >= _VOTES:
            yield 0, offset


def _rows(strip: Words) -> Words:
    hashes: Words = np.einsum("ij,j->i", strip, _WEIGHTS)
    return hashes


def _matches(before: Words, after: Words) -> list[int]:
    """How far each row moved that occurs once before and once after."""
    values, first, counts = np.unique(before, return_index=True, return_counts=True)
    once, where = values[counts == 1], first[counts == 1]
    values, first, counts = np.unique(after, return_index=True, return_counts=True)
    again, there = values[counts == 1], first[counts == 1]
    if not len(once) or not len(again):
        return []
    at = np.searchsorted(once, again)
    at[at == len(once)] = 0
    same = once[at] == again
    offsets: list[int] = (there[same] - where[at[same]]).tolist()
    return offsets


def _windows(new: Words, old: Words, predicted: Words, box: Rect) -> Iterator[Offset]:
    """Any offset, the likeliest first: rare windows of the new picture, found again in the old one."""
    x, y, w, h = box
    if w < 2 * _WINDOW or h < 16 or box.area > _LARGEST:
        return
    step = max(3, h // 24) | 1  # odd: in every second row of the old picture, half of the anchors are found, however far it moved
    rows = np.arange(step // 2, h, step)
    sampled = new[y : y + h, x : x + w][rows]
    hashes = _rolling(sampled)
    changed = (sampled != predicted[rows])[:, : hashes.shape[1]]
    busy = changed & (sampled[:, : hashes.shape[1]] != sampled[:, 1 : hashes.shape[1] + 1])
    places = np.flatnonzero(busy.ravel())
    if len(places) > 4096:
        places = places[:: len(places) // 4096 + 1]
    values, first, counts = np.unique(hashes.ravel()[places], return_index=True, return_counts=True)
    rare = np.flatnonzero(counts == 1)
    if len(rare) > _ANCHORS:
        rare = rare[np.linspace(0, len(rare) - 1, _ANCHORS).astype(int)]
    if len(rare) < _VOTES:
        return
    anchors, spots = values[rare], places[first[rare]]
    yield from _found(old[y : y + h, x : x + w], anchors, rows[spots // hashes.shape[1]], spots % hashes.shape[1])


def _found(pixels: Words, anchors: Words, rows: NDArray[Any], columns: NDArray[Any]) -> Iterator[Offset]:
    """Offsets from where the windows of `pixels` hash to the anchors' values to where the anchors are; `anchors` rise."""
    table = np.zeros(1 << 16, np.bool_)
    table[anchors >> np.uint32(16)] = True
    moves: list[NDArray[Any]] = []
    for top in range(0, len(pixels), _BLOCK):
        hashes = _rolling(pixels[top : top + _BLOCK : 2])
        flat = hashes.ravel()
        near = np.flatnonzero(table[flat >> np.uint32(16)])
        which = np.searchsorted(anchors, flat[near])
        which[which == len(anchors)] = 0
        same = anchors[which] == flat[near]
        near, which = near[same], which[same]
        down, across = np.divmod(near, hashes.shape[1])
        moves.append((rows[which] - top - 2 * down) * (1 << 16) + columns[which] - across)
    offsets, votes = np.unique(np.concatenate(moves), return_counts=True)
    for at in np.argsort(votes)[::-1][:3].tolist():
        dy = round(int(offsets[at]) / (1 << 16))
        dx = int(offsets[at]) - dy * (1 << 16)
        if votes[at] >= _VOTES and (dx or dy):
            yield dx, dy


def _rolling(pixels: Words) -> Words:
    """A hash of the 16 pixels that begin at each place of each row; shape (rows, width − 15)."""
    hashes = pixels
    for level, multiplier in enumerate(_MULTIPLIERS):
        reach = 1 << level
        hashes = hashes[:, :-reach] * np.uint32(multiplier) + hashes[:, reach:]
    return np.ascontiguousarray(hashes)


# --- the rectangle ----------------------------------------------------------------------------------------------------


def _explained(new: Words, old: Words, predicted: Words, box: Rect, offset: Offset) -> Rect | None:
    """The rectangle in which an offset makes most right and least wrong; None if that is not WORTH it."""
    now, before, without = _overlap(new, old, predicted, box, offset)
    top, left = max(box.y, offset[1]), max(box.x, offset[0])
    first, last, across, end = 0, now.shape[0], 0, now.shape[1]
    gain = 0
    for _ in range(2):
        columns = np.s_[first:last:_SAMPLE, across:end]
        start, stop, gain = _best(_down(now[columns], before[columns], without[columns]))
        if not gain:
            return None
        across, end = across + start, across + stop
        rows = np.s_[first:last, across:end]
        start, stop, gain = _best(_across(now[rows], before[rows], without[rows]))
        if not gain:
            return None
        if stop - start > _ENOUGH * (last - first):
            first, last = first + start, first + stop
            break  # the columns would come out the same
        first, last = first + start, first + stop
    if gain * _SAMPLE < WORTH:
        return None
    return Rect(left + across, top + first, end - across, last - first)


def _down(now: Words, before: Words, without: Words) -> NDArray[np.int32]:
    """For each column: the pixels that are right with the offset, less those that are right without it."""
    scores = (now == before).view(np.int8) - (now == without).view(np.int8)
    sums: NDArray[np.int32] = np.add.reduce(scores, axis=0, dtype=np.int32)
    return sums


def _across(now: Words, before: Words, without: Words) -> NDArray[np.int32]:
    """The same for each row, in a quarter of its columns: runs as long as a line of the processor's cache. (Wide rows: an eighth, for two.)"""
    spread = 2 * _SAMPLE if now.shape[1] >= _WIDE else _SAMPLE
    if now.shape[1] >= _SAMPLE * _LINE:
        now, before, without = (_lines(part, spread) for part in (now, before, without))
    scores = (now == before).view(np.int8) - (now == without).view(np.int8)
    sums: NDArray[np.int32] = np.add.reduce(scores.reshape(len(scores), -1), axis=1, dtype=np.int32)
    return sums * (spread // _SAMPLE)


def _lines(part: Words, spread: int) -> Words:
    """One line of each `spread` lines of each row."""
    rows, step = part.strides
    shape, strides = (len(part), part.shape[1] // (spread * _LINE), _LINE), (rows, spread * _LINE * step, step)
    return np.lib.stride_tricks.as_strided(part, shape, strides, writeable=False)


def _best(scores: NDArray[np.int32]) -> tuple[int, int, int]:
    """(first, end, sum) of the run with the greatest sum, as long as can be: what says nothing may be right where no sample was."""
    sums = np.concatenate(([0], np.cumsum(scores)))
    rises = sums - np.minimum.accumulate(sums)
    end = len(sums) - 1 - int(np.argmax(rises[::-1]))
    first = int(np.argmin(sums[: end + 1]))
    return first, end, int(sums[end] - sums[first])
