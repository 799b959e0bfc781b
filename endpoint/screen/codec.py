"""Pixels into bytes and back, exactly: a snapshot of the whole screen, then updates of what changed.

The encoder keeps a copy of what the viewers have. An update compares the damaged tiles with that copy, joins the
changed ones to rectangles, and sends their pixels as three planes, G, B−G, R−G: text and surfaces are grey or evenly
coloured, so two of the planes are nearly constant. The planes of all updates pass through one zstd stream, flushed at
each update, so that what was on the screen before costs almost nothing when it comes again. `restart=True` begins a
new stream; after a snapshot the next update must.

A decoder reads what a stranger sent. It looks at every rectangle first, so it knows how many bytes must come, and
reads exactly these through a stream that cannot give more. A hostile presenter can draw nonsense and nothing else.

docs/screen.md has the bytes. No I/O and no clock here.
"""

import struct
from collections.abc import Iterator, Sequence

import numpy as np
import zstandard
from numpy.typing import NDArray

from endpoint.screen.picture import (
    OPAQUE,
    Picture,
    Rect,
    ScreenError,
    Words,
    blank,
    check_geometry,
    words,
)

FORMAT = 1
TILE = 64
"""Changes are looked for in squares of so many pixels."""

MAX_UPDATE_BYTES = 16 << 20
MAX_SNAPSHOT_BYTES = 64 << 20
MAX_UPDATE_PIXELS = 5_000_000
"""Of one update: their planes fit into MAX_UPDATE_BYTES even if zstd gains nothing."""
MAX_RECTS = 8192
"""Of one update; the largest screen has 8,160 tiles."""

WINDOW_LOG = 23
"""A receiver needs at most this window, 8 MiB, for either kind of stream."""
SNAPSHOT_LEVEL = 1
UPDATE_LEVEL = 3

_SNAPSHOT_HEADER = struct.Struct(">BHH")
_UPDATE_HEADER = struct.Struct(">BH")
_RECT = np.dtype(">u2")

_STRIPE = 16384
"""Pixels that are turned into planes at a time: the work stays in the processor's first caches."""
_TIGHTEN = 1 << 18
"""Rectangles up to so many pixels are cut down to what really changed in them."""

_Bytes = NDArray[np.uint8]


class Encoder:
    """The presenter's side. Owned by one task; `update` may be called in any thread, but in one at a time."""

    def __init__(self) -> None:
        self._reference: Picture | None = None  # what a viewer has that got everything up to now
        self._owed: list[Rect] = []  # changed, but left out of the last update
        self._updates = zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters.from_level(UPDATE_LEVEL, window_log=WINDOW_LOG)
        )
        self._stream: zstandard.ZstdCompressionObj | None = None  # None: the next update must restart

    @property
    def owed(self) -> bool:
        """Whether the last update left changes out because it was full. Then call `update` again, damage or not."""
        return bool(self._owed)

    def snapshot(self, picture: Picture | None = None) -> bytes:
        """The whole screen, on its own: the first picture, or another geometry, or a picture for a latecomer.

        Without an argument it is the picture that level viewers have: use that when there are any, since they do not
        read snapshots and must not be left behind. The next update is relative to it and has restart=True.

        Raises ScreenError `screen-too-large` (geometry, or more than MAX_SNAPSHOT_BYTES), `no-snapshot` when there is
        no picture yet.
        """
        if picture is None:
            picture = self._reference
        if picture is None:
            raise ScreenError("no-snapshot", "There is no picture of the screen yet. Share a screen first.")
        height, width = picture.shape[:2]
        check_geometry(width, height)
        planes = np.empty(3 * width * height, np.uint8)
        source = words(picture)
        whole = Rect(0, 0, width, height)
        if picture is self._reference:
            _split(source, source, [whole], planes)
        else:
            reference = blank(width, height) if not self._has(picture) else self._reference
            assert reference is not None
            _split(source, words(reference), [whole], planes)
            self._reference = reference
            self._owed = []
        compressor = zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters.from_level(
                SNAPSHOT_LEVEL, source_size=len(planes), window_log=min(WINDOW_LOG, 21)
            )
        )
        self._stream = None
        body = _SNAPSHOT_HEADER.pack(FORMAT, width, height) + compressor.compress(planes.data)
        if len(body) > MAX_SNAPSHOT_BYTES:
            raise ScreenError(
                "screen-too-large",
                f"A picture of this screen takes {len(body) >> 20} MiB; {MAX_SNAPSHOT_BYTES >> 20} MiB can be sent. Choose a lower resolution.",
            )
        return body

    def update(self, picture: Picture, damage: Sequence[Rect] | None, *, restart: bool) -> bytes | None:
        """What changed since the picture given last; None if nothing did.

        damage: where to look; None means everywhere. It may be too large, at the cost of looking; changes outside of
        it are not seen. restart: begin a new compression stream, as the first update after a snapshot must.

        One update holds at most MAX_UPDATE_PIXELS pixels: `owed` says whether something was left for the next one.

        Raises ScreenError `no-snapshot` before any snapshot, `geometry-changed` when this picture needs one.
        """
        if self._reference is None:
            raise ScreenError("no-snapshot", "An update needs a snapshot before it. Send a snapshot first.")
        if not self._has(picture):
            raise ScreenError("geometry-changed", "The screen has another size now. Send a snapshot of it.")
        if self._stream is None and not restart:
            raise ValueError("the first update after a snapshot restarts the compression")
        new, old = words(picture), words(self._reference)
        look = None if damage is None else [*damage, *self._owed]
        rects, self._owed = _portion(_changes(new, old, look))
        if not rects:
            return None
        planes = np.empty(3 * sum(rect.area for rect in rects), np.uint8)
        _split(new, old, rects, planes)
        if restart or self._stream is None:
            self._stream = self._updates.compressobj()
        head = _UPDATE_HEADER.pack(FORMAT, len(rects)) + np.array(rects, _RECT).tobytes()
        packed = self._stream.compress(planes.data) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        update = head + packed
        assert len(update) <= MAX_UPDATE_BYTES
        return update

    def _has(self, picture: Picture) -> bool:
        return self._reference is not None and self._reference.shape == picture.shape


class Decoder:
    """A viewer's side. `load` and `apply` read untrusted bytes and raise ScreenError alone.

    After an error the picture stays what it was, and only a snapshot helps.
    """

    def __init__(self) -> None:
        self._picture: Picture | None = None
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
        self._level = False  # whether an update may be applied
        self._stream: _BoundedStream | None = None  # None: the next update must restart

    @property
    def picture(self) -> Picture:
        """The screen as it is now: a read-only view that `apply` changes and `load` may replace.

        Raises ScreenError `no-snapshot` before the first one.
        """
        if self._picture is None:
            raise ScreenError("no-snapshot", "No picture has arrived yet. Wait for the presenter's next snapshot.")
        view = self._picture.view()
        view.flags.writeable = False
        return view

    def load(self, snapshot: bytes) -> None:
        """Take the whole screen from a snapshot. Raises ScreenError `bad-snapshot` or `screen-too-large`."""
        self._level, self._stream = False, None
        width, height, planes = _open_snapshot_untrusted(self._decompressor, snapshot)
        if self._picture is None or self._picture.shape != (height, width, 4):
            self._picture = blank(width, height)
        _join(planes, [Rect(0, 0, width, height)], words(self._picture))
        self._level = True

    def apply(self, update: bytes, *, restart: bool) -> list[Rect]:
        """Draw an update; the rectangles that it drew. Raises ScreenError `bad-update` or `no-snapshot`."""
        if not self._level or self._picture is None:
            raise ScreenError("no-snapshot", "An update needs a snapshot before it. Wait for the next snapshot.")
        self._level = False
        height, width = self._picture.shape[:2]
        rects, packed = _read_rects_untrusted(update, width, height)
        if restart:
            self._stream = _BoundedStream(self._decompressor)
        if self._stream is None:
            raise _bad_update("it continues a compression stream that never began")
        planes = self._stream.read_untrusted(packed, 3 * sum(rect.area for rect in rects))
        _join(planes, rects, words(self._picture))
        self._level = True
        return rects


# --- what changed ---------------------------------------------------------------------------------------------------


def _changes(new: Words, old: Words, look: Sequence[Rect] | None) -> list[Rect]:
    """Disjoint rectangles that cover every difference within `look` (None: everywhere), and little else."""
    height, width = new.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    looked = np.full((rows, columns), look is None)
    for rect in look or ():
        inside = rect.clipped(width, height)
        if inside is not None:
            x, y, w, h = inside
            looked[y // TILE : -(-(y + h) // TILE), x // TILE : -(-(x + w) // TILE)] = True
    changed = np.zeros_like(looked)
    padded = np.zeros(columns * TILE, np.uint32)
    for row in np.flatnonzero(looked.any(axis=1)):
        found = np.flatnonzero(looked[row])
        first, last = int(found[0]), int(found[-1]) + 1
        part = np.s_[row * TILE : (row + 1) * TILE, first * TILE : last * TILE]
        differs = np.bitwise_or.reduce(new[part] ^ old[part], axis=0)
        span = padded[: (last - first) * TILE]
        span[: len(differs)] = differs
        span[len(differs) :] = 0
        changed[row, first:last] = span.reshape(-1, TILE).any(axis=1)
    changed &= looked
    return [_tightened(rect, new, old) for rect in _joined(changed, width, height)]


def _joined(changed: NDArray[np.bool_], width: int, height: int) -> Iterator[Rect]:
    """Runs of changed tiles, equal runs below one another taken together, as rectangles of pixels."""

    def rect(first: int, last: int, top: int, bottom: int) -> Rect:
        x, y = first * TILE, top * TILE
        return Rect(x, y, min(last * TILE, width) - x, min(bottom * TILE, height) - y)

    growing: dict[tuple[int, int], int] = {}  # run of columns → the row where its rectangle begins
    for row, tiles in enumerate([*changed, np.zeros(changed.shape[1], np.bool_)]):
        edges = np.flatnonzero(np.diff(tiles.astype(np.int8), prepend=0, append=0)).tolist()
        runs = set(zip(edges[::2], edges[1::2], strict=True))
        for run in [run for run in growing if run not in runs]:
            yield rect(*run, growing.pop(run), row)
        for run in runs:
            growing.setdefault(run, row)


def _tightened(rect: Rect, new: Words, old: Words) -> Rect:
    if rect.area > _TIGHTEN:
        return rect
    x, y, w, h = rect
    differs = new[y : y + h, x : x + w] != old[y : y + h, x : x + w]
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return Rect(x + left, y + top, right - left, bottom - top)


def _portion(rects: Sequence[Rect]) -> tuple[list[Rect], list[Rect]]:
    """As many pixels as one update may hold, and the rest."""
    taken: list[Rect] = []
    room = MAX_UPDATE_PIXELS
    for at, rect in enumerate(rects):
        rows = min(rect.height, room // rect.width)
        if rows:
            taken.append(Rect(rect.x, rect.y, rect.width, rows))
            room -= rect.width * rows
        if rows < rect.height:
            return taken, [Rect(rect.x, rect.y + rows, rect.width, rect.height - rows), *rects[at + 1 :]]
    return taken, []


# --- pixels and planes ----------------------------------------------------------------------------------------------


def _stripes(rects: Sequence[Rect]) -> Iterator[tuple[tuple[slice, slice], slice, tuple[int, int]]]:
    """(where in the picture, where in a plane, shape), a few rows at a time."""
    at = 0
    for x, y, width, height in rects:
        step = max(1, _STRIPE // width)
        for top in range(y, y + height, step):
            rows = min(step, y + height - top)
            yield (slice(top, top + rows), slice(x, x + width)), slice(at, at + rows * width), (rows, width)
            at += rows * width


def _split(new: Words, old: Words, rects: Sequence[Rect], planes: _Bytes) -> None:
    """Write the pixels of `rects` into `planes` as G ‖ B−G ‖ R−G, and into `old`."""
    green, blue, red = planes.reshape(3, -1)
    for where, flat, _ in _stripes(rects):
        pixels = new[where]
        old[where] = pixels
        pixels = pixels.ravel()
        g = (pixels >> np.uint32(8)).astype(np.uint8)
        green[flat] = g
        np.subtract(pixels.astype(np.uint8), g, out=blue[flat])
        np.subtract((pixels >> np.uint32(16)).astype(np.uint8), g, out=red[flat])


def _join(planes: _Bytes, rects: Sequence[Rect], into: Words) -> None:
    """The reverse: draw the planes' pixels into a picture."""
    green, blue, red = planes.reshape(3, -1)
    for where, flat, shape in _stripes(rects):
        g = green[flat]
        pixels = (red[flat] + g).astype(np.uint32)
        pixels <<= np.uint32(8)
        pixels |= g
        pixels <<= np.uint32(8)
        pixels |= blue[flat] + g
        pixels |= OPAQUE
        into[where] = pixels.reshape(shape)


# --- a stranger's bytes ---------------------------------------------------------------------------------------------


def _bad_update(why: str) -> ScreenError:
    return ScreenError("bad-update", f"A screen update cannot be read ({why}). Waiting for a new snapshot.")


def _bad_snapshot(why: str) -> ScreenError:
    return ScreenError("bad-snapshot", f"A snapshot of the screen cannot be read ({why}). Waiting for another.")


def _read_rects_untrusted(update: bytes, width: int, height: int) -> tuple[list[Rect], bytes]:
    """The rectangles of an update, all of them within the screen and within the limits, and what follows them."""
    if not _UPDATE_HEADER.size <= len(update) <= MAX_UPDATE_BYTES:
        raise _bad_update(f"{len(update)} bytes")
    form, count = _UPDATE_HEADER.unpack_from(update)
    end = _UPDATE_HEADER.size + 4 * _RECT.itemsize * count
    if form != FORMAT:
        raise _bad_update(f"format {form} is not known here")
    if not 1 <= count <= MAX_RECTS or len(update) < end:
        raise _bad_update(f"{count} rectangles in {len(update)} bytes")
    numbers = np.frombuffer(update, _RECT, 4 * count, _UPDATE_HEADER.size).reshape(count, 4).astype(np.int64)
    x, y, w, h = numbers.T
    if w.min() < 1 or h.min() < 1 or (x + w).max() > width or (y + h).max() > height:
        raise _bad_update("a rectangle lies outside of the screen")
    if int((w * h).sum()) > MAX_UPDATE_PIXELS:
        raise _bad_update("more pixels than an update may hold")
    return [Rect(*row) for row in numbers.tolist()], update[end:]


def _open_snapshot_untrusted(decompressor: zstandard.ZstdDecompressor, snapshot: bytes) -> tuple[int, int, _Bytes]:
    """Width, height and the planes of a snapshot. Nothing is allocated before its declared sizes agree."""
    if not _SNAPSHOT_HEADER.size <= len(snapshot) <= MAX_SNAPSHOT_BYTES:
        raise _bad_snapshot(f"{len(snapshot)} bytes")
    form, width, height = _SNAPSHOT_HEADER.unpack_from(snapshot)
    if form != FORMAT:
        raise _bad_snapshot(f"format {form} is not known here")
    check_geometry(width, height)
    frame = snapshot[_SNAPSHOT_HEADER.size :]
    size = 3 * width * height
    try:
        declared = zstandard.get_frame_parameters(frame).content_size
        if declared != size:
            raise _bad_snapshot(f"it declares {declared} bytes for {width} × {height} pixels")
        planes = decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _bad_snapshot(str(error)) from None
    if len(planes) != size:
        raise _bad_snapshot(f"{len(planes)} bytes for {width} × {height} pixels")
    return width, height, np.frombuffer(planes, np.uint8)


class _BoundedStream:
    """One zstd stream, from which each update must give exactly the bytes that its rectangles need.

    zstandard has a reader that fills a buffer of ours, so nothing is ever decompressed that has no place. But it takes
    an empty read for the end of the stream, for good. So its source raises when an update's bytes are used up, which
    leaves the reader where it is, ready for the next update. (`readinto` would lose its count when that happens;
    `readinto1` returns before it asks again.)
    """

    class _UsedUp(Exception):
        pass

    def __init__(self, decompressor: zstandard.ZstdDecompressor) -> None:
        self._packed = b""
        self._reader = decompressor.stream_reader(self)  # type: ignore[arg-type]  # it only calls read()

    def read(self, _: int) -> bytes:
        """For the reader alone: all bytes of the update, once."""
        if not self._packed:
            raise self._UsedUp
        packed, self._packed = self._packed, b""
        return packed

    def read_untrusted(self, packed: bytes, size: int) -> _Bytes:
        """`size` bytes out of `packed`, all of it and no more. Raises ScreenError `bad-update`."""
        planes = np.empty(size + 1, np.uint8)  # room for one byte too many, to see it
        self._packed, got = packed, 0
        try:
            while got <= size:
                more = self._reader.readinto1(planes[got:])
                if not more:
                    raise _bad_update("the compression stream ends within it")
                got += more
        except self._UsedUp:
            if got == size:
                return planes[:size]
        except zstandard.ZstdError as error:
            raise _bad_update(str(error)) from None
        raise _bad_update("its rectangles need more or fewer bytes than there are")
