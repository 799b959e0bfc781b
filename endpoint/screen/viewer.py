"""What shows a screen: one interface, whatever the platform. Windows are `endpoint.screen.pane`'s; here is a viewer without one.

It keeps a PNG file of the screen fresh.

`show` only notes that there is something new. `run` takes a copy when the last file is old enough, and a thread writes
it beside the file and renames it: who looks at the file sees a whole picture. However fast the screen changes, one
picture is on its way at most, and the next one is the newest. The file is the user's alone: it shows a meeting.

The PNG is made here with numpy and zlib, which both let other threads run; Pillow takes twice as long and holds up the
program meanwhile.
"""

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
import trio

from endpoint.hands import Pointer, Shape
from endpoint.screen.picture import Picture, Rect, ScreenError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Caption:
    """What a viewer says beside the picture. `state` is one of `endpoint.watch.Showing`; `lent`: mouse and keyboard are ours; `notice`: the
    last thing worth a line."""

    title: str
    presenter: str
    state: str
    badge: str
    lent: bool = False
    notice: str = ""


class Viewer(Protocol):
    """Something that shows a screen. Each call only notes what is new; what waits is merged, never queued."""

    def show(self, picture: Picture, rects: Sequence[Rect]) -> None:
        """The screen has changed in `rects`. The picture may go on changing."""

    def point(self, pointer: Pointer | None, shape: Shape | None) -> None:
        """Where the presenter's pointer is, and how it looks (None: unknown)."""

    def caption(self, caption: Caption) -> None:
        """What is true beside the picture."""

    async def run(self) -> None:
        """Show it, until cancelled or closed by its person."""


def _log_trouble(trouble: ScreenError) -> None:
    log.warning(trouble.name, sentence=trouble.sentence)


class PngViewer:
    """Keeps `path` fresh, at most `per_second` times a second.

    report: called once when the picture cannot be written (ScreenError `cannot-write-picture`), and again only after
    it could be in between. Nothing ends because of that; it is tried again with the next picture.
    """

    def __init__(self, path: Path, per_second: float = 2.0, report: Callable[[ScreenError], None] = _log_trouble) -> None:
        self._path = path
        self._pause = 1.0 / per_second
        self._report = report
        self._picture: Picture | None = None  # the decoder's own, shown and not yet written
        self._news = trio.Event()
        self.written = 0
        self.failed = 0
        self.trouble: ScreenError | None = None

    def show(self, picture: Picture, rects: Sequence[Rect]) -> None:
        """The screen has changed in `rects`. The picture may go on changing: it is copied when its turn comes."""
        if rects:
            self._picture = picture
            self._news.set()

    def point(self, pointer: Pointer | None, shape: Shape | None) -> None:
        """A file shows none."""

    def caption(self, caption: Caption) -> None:
        """A file says nothing."""

    async def run(self) -> None:
        """Write pictures until cancelled; what is not written then is written before it ends."""
        try:
            while True:
                await self._news.wait()
                await self._write()
                await trio.sleep(self._pause)
        finally:
            await self.finish()

    async def finish(self) -> None:
        """Write what is not written, cancelled or not."""
        if self._picture is not None:
            with trio.CancelScope(shield=True):
                await self._write()

    async def _write(self) -> None:
        assert self._picture is not None
        picture, self._picture = self._picture.copy(), None
        self._news = trio.Event()
        try:
            await trio.to_thread.run_sync(_write_png, self._path, picture)
        except OSError as error:
            self.failed += 1
            if self.trouble is None:
                self.trouble = ScreenError(
                    "cannot-write-picture",
                    f"The picture of the screen cannot be written to {self._path}: {error.strerror}. "
                    "Make room there or name another file; the meeting goes on.",
                )
                self._report(self.trouble)
        else:
            self.trouble = None
            self.written += 1


def _write_png(path: Path, picture: Picture) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(png(picture))
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def png(picture: Picture) -> bytes:
    """The picture as an RGB PNG file, each row as its difference from the one above (PNG 1.2, section 6.4)."""
    height, width = picture.shape[:2]
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 2  # the filter "up"
    rgb, body = picture[:, :, 2::-1], rows[:, 1:].reshape(height, width, 3)
    body[0] = rgb[0]
    np.subtract(rgb[1:], rgb[:-1], out=body[1:])
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows.data, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))) for kind, data in chunks
    )
