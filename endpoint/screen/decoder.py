"""A viewer's side of the codec: a stranger's bytes in, a picture out.

Everything is parsed and decompressed before the first pixel is drawn, and each number is looked at before memory is taken for it: how
many bytes must come out of a stream follows from its rectangles, and exactly these are read through a reader that cannot give
more. How much work an update may ask for is bounded as well (`layout`). A hostile presenter can draw nonsense and nothing else. After
an error the picture stays what it was.

docs/screen.md has the bytes. No I/O and no clock here.
"""

import numpy as np
import zstandard

from endpoint.screen import motion, planes
from endpoint.screen.layout import (
    BAND,
    FORMAT,
    MAX_SNAPSHOT_BYTES,
    SNAPSHOT_HEADER,
    WINDOW_LOG,
    Exact,
    Film,
    Update,
    bad_snapshot,
    bad_update,
    parse_update_untrusted,
)
from endpoint.screen.picture import Picture, Rect, ScreenError, blank, check_geometry, words
from endpoint.screen.vp9 import FilmDecoder


class Decoder:
    """One viewer. `load` and `apply` read untrusted bytes and raise ScreenError alone.

    After an error the picture stays what it was, and only a snapshot helps.
    """

    def __init__(self) -> None:
        self._picture: Picture | None = None
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)  # of whole frames; a stream has its own
        self._level = False  # whether an update may be applied
        self._stream: _BoundedStream | None = None  # begins with the first pixels after a restart
        self._begun = False  # whether an update since the snapshot has restarted
        self._film: tuple[Rect, int] | None = None  # region and scale of the film that goes on
        self._film_decoder = FilmDecoder()

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

    @property
    def level(self) -> bool:
        """Whether an update may be applied."""
        return self._level

    def work(self, update: bytes) -> int:
        """How many pixels `apply` would decode, copy and paint for it, about; 0 for what it refuses at the first look."""
        if not self._level or self._picture is None:
            return 0
        height, width = self._picture.shape[:2]
        try:
            return parse_update_untrusted(update, width, height).work
        except ScreenError:
            return 0

    def forget(self) -> None:
        """The presenter has gone on without this picture: only a snapshot helps."""
        self._level = False

    def load(self, snapshot: bytes) -> None:
        """Take the whole screen from a snapshot. Raises ScreenError `bad-snapshot` or `screen-too-large`."""
        self._level, self._begun, self._stream, self._film = False, False, None, None
        self._picture = _open_snapshot_untrusted(self._decompressor, snapshot)
        self._level = True

    def apply(self, update: bytes, *, restart: bool) -> list[Rect]:
        """Draw an update; the rectangles that it drew. Raises ScreenError `bad-update` or `no-snapshot`."""
        if not self._level or self._picture is None:
            raise ScreenError("no-snapshot", "An update needs a snapshot before it. Wait for the next snapshot.")
        self._level = False
        height, width = self._picture.shape[:2]
        parsed = parse_update_untrusted(update, width, height)
        if restart:
            self._stream, self._film, self._begun = None, None, True
        if not self._begun:
            raise bad_update("it continues a compression stream that never began")
        film = self._frame_untrusted(parsed.film) if parsed.film else None
        still = self._still_untrusted(parsed.still) if parsed.still else None
        pixels = self._pixels_untrusted(parsed.pixels) if parsed.pixels else None
        self._draw(parsed, film, still, pixels)
        self._level = True
        return parsed.drawn

    def _frame_untrusted(self, film: Film) -> Picture:
        if film.begins:
            self._film = film.region, film.scale
            self._film_decoder.begin()
        if self._film != (film.region, film.scale):
            raise bad_update("a film goes on that never began")
        return self._film_decoder.decode_untrusted(film.frame, film.coded, (film.region.width, film.region.height))

    def _still_untrusted(self, still: Exact) -> planes.Bytes:
        need = planes.size(still.rects)
        try:
            return _decompress_untrusted(self._decompressor, still.packed, need)
        except zstandard.ZstdError as error:
            raise bad_update(str(error)) from None

    def _pixels_untrusted(self, pixels: Exact) -> planes.Bytes:
        if self._stream is None:
            self._stream = _BoundedStream()
        return self._stream.read_untrusted(pixels.packed, planes.size(pixels.rects))

    def _draw(self, update: Update, film: Picture | None, still: planes.Bytes | None, pixels: planes.Bytes | None) -> None:
        assert self._picture is not None
        screen = words(self._picture)
        motion.make(screen, update.copies)
        if update.film is not None and film is not None:
            left, top = update.film.region.x, update.film.region.y
            for x, y, w, h in update.film.paints:
                self._picture[y : y + h, x : x + w, :3] = film[y - top : y - top + h, x - left : x - left + w, :3]
        if update.still is not None and still is not None:
            planes.join(still, update.still.rects, screen, left=True)
        if update.pixels is not None and pixels is not None:
            planes.join(pixels, update.pixels.rects, screen)


# --- a stranger's bytes ---------------------------------------------------------------------------------------------


def _decompress_untrusted(decompressor: zstandard.ZstdDecompressor, frame: bytes, size: int) -> planes.Bytes:
    """Exactly `size` bytes out of one frame that declares them and ends with it. Raises ZstdError, ScreenError."""
    declared = zstandard.get_frame_parameters(frame).content_size
    if declared != size:
        raise bad_update(f"a frame declares {declared} bytes where {size} are needed")
    body = decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    if len(body) != size:
        raise bad_update(f"a frame holds {len(body)} bytes where {size} are needed")
    return np.frombuffer(body, np.uint8)


def _open_snapshot_untrusted(decompressor: zstandard.ZstdDecompressor, snapshot: bytes) -> Picture:
    """The picture of a snapshot. Nothing is allocated before its declared sizes agree."""
    if not SNAPSHOT_HEADER.size <= len(snapshot) <= MAX_SNAPSHOT_BYTES:
        raise bad_snapshot(f"{len(snapshot)} bytes")
    form, width, height = SNAPSHOT_HEADER.unpack_from(snapshot)
    if form != FORMAT:
        raise bad_snapshot(f"format {form} is not known here")
    check_geometry(width, height)
    count = -(-height // BAND)
    lefts = snapshot[SNAPSHOT_HEADER.size : SNAPSHOT_HEADER.size + count]
    if len(lefts) != count or max(lefts) > 1:
        raise bad_snapshot("its bands")
    try:
        body = _decompress_untrusted(decompressor, snapshot[SNAPSHOT_HEADER.size + count :], 3 * width * height)
    except (zstandard.ZstdError, ScreenError) as error:
        raise bad_snapshot(str(error)) from None
    picture = blank(width, height)
    screen = words(picture)
    at = 0
    for band, left in enumerate(lefts):
        rect = Rect(0, band * BAND, width, min(BAND, height - band * BAND))
        planes.join(body[at : at + 3 * rect.area], [rect], screen, left=bool(left))
        at += 3 * rect.area
    return picture


class _UsedUp(Exception):
    """All bytes of an update have been read."""


class _Feed:
    """What the reader of a stream reads from: the bytes of one update, once."""

    def __init__(self) -> None:
        self.packed = b""

    def read(self, _: int) -> bytes:
        if not self.packed:
            raise _UsedUp
        packed, self.packed = self.packed, b""
        return packed


class _BoundedStream:
    """One zstd stream, from which each update must give exactly the bytes that its rectangles need.

    zstandard has a reader that fills a buffer of ours, so nothing is ever decompressed that has no place. But it takes
    an empty read for the end of the stream, for good. So its source raises when an update's bytes are used up, which
    leaves the reader where it is, ready for the next update. (`readinto` would lose its count when that happens;
    `readinto1` returns before it asks again.) The source is an object of its own, because zstandard's readers take no part in
    Python's collection of cycles: one that led back here would keep each stream's window for ever.
    """

    def __init__(self) -> None:
        self._feed = _Feed()
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
        self._reader = decompressor.stream_reader(self._feed)  # type: ignore[arg-type]  # it only calls read()

    def read_untrusted(self, packed: bytes, size: int) -> planes.Bytes:
        """`size` bytes out of `packed`, all of it and no more. Raises ScreenError `bad-update`."""
        body = np.empty(size + 1, np.uint8)  # room for one byte too many, to see it
        self._feed.packed, got = packed, 0
        try:
            while got <= size:
                more = self._reader.readinto1(body[got:])
                if not more:
                    raise bad_update("the compression stream ends within it")
                got += more
        except _UsedUp:
            if got == size:
                return body[:size]
        except zstandard.ZstdError as error:
            raise bad_update(str(error)) from None
        raise bad_update("its rectangles need more or fewer bytes than there are")
