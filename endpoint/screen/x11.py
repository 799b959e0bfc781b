"""The screen of an X11 display.

XDamage says where something was drawn (delta rectangles: each area once, without asking), MIT-SHM hands out these
areas alone through a segment that the server writes and we read. One round trip a grab. Order keeps changes from being
lost: collect the reported damage, tell the server to forget it, then fetch the pixels. What is drawn in between is in
the pixels already, or is reported again.

Without shared memory (a display on another machine, another IPC namespace) the pixels come through the connection.
`grab` waits for the server, as any program that draws on it does; a server that hangs holds its presenter up.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import numpy as np
import structlog
import trio

from endpoint.screen.picture import (
    MAX_HEIGHT,
    MAX_WIDTH,
    OPAQUE,
    Picture,
    Rect,
    ScreenError,
    blank,
    bounding,
    check_geometry,
    words,
)
from endpoint.screen.shm import Segment

log = structlog.get_logger()

CONNECT_SECONDS = 10.0
MANY_RECTS = 12
"""More damaged rectangles than this are fetched as one."""
TRIES = 4
"""A screen that changes its size between question and answer is asked again so often."""

_DELTA_RECTANGLES = 1
_Z_PIXMAP = 2
_ALL_PLANES = 0xFFFFFFFF
_CONFIGURE_NOTIFY = 22
_STRUCTURE_NOTIFY = 1 << 17
_EVENT_MASK = 1 << 11


class X11Source:
    """A display's whole root window, as `source.Source`. display: ":0"; None means $DISPLAY."""

    def __init__(self, display: str | None = None) -> None:
        self._display = display or os.environ.get("DISPLAY", "")
        self._x: Any = None  # the xcffib module
        self._connection: Any = None
        self._damage: Any = None  # the DAMAGE extension
        self._shm: Any = None  # MIT-SHM, or None where it is refused
        self._root = self._damage_id = self._segment_id = 0
        self._segment: Segment | None = None
        self._picture: Picture = blank(1, 1)
        self._rects: list[Rect] = []  # damage reported and not yet fetched
        self._whole = True  # nothing fetched yet in this geometry
        self._measure = False  # the root window has changed its size

    @property
    def name(self) -> str:
        width, height = self.geometry
        return f"desktop {self._display}, {width} × {height}"

    @property
    def geometry(self) -> tuple[int, int]:
        height, width = self._picture.shape[:2]
        return width, height

    async def __aenter__(self) -> Self:
        """Raises ScreenError `no-display`, `unsupported-display`, `screen-too-large`."""
        if not self._display:
            raise ScreenError(
                "no-display",
                "There is no display to share: DISPLAY is not set. Run this on a desktop, name one with --display, "
                "or share a folder of pictures.",
            )
        with trio.move_on_after(CONNECT_SECONDS):
            await trio.to_thread.run_sync(self._connect, abandon_on_cancel=True)
        if self._connection is None:
            raise self._no_display("it does not answer")
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    async def wait(self) -> None:
        """Return when something was drawn, at once if it was so before. Raises ScreenError `display-lost`."""
        await trio.lowlevel.checkpoint()
        while True:
            with self._errors():
                self._drain()
                if self._rects or self._whole or self._measure:
                    return
                readable = self._connection.get_file_descriptor()
            await trio.lowlevel.wait_readable(readable)

    def grab(self) -> tuple[Picture, list[Rect] | None]:
        """See `Source.grab`. Raises ScreenError `display-lost`, `screen-too-large`."""
        with self._errors():
            for _ in range(TRIES):
                self._drain()
                if self._measure:
                    self._adopt_geometry()
                whole, wanted = self._whole, self._plan()
                if not wanted:
                    return self._picture, []
                self._damage.Subtract(self._damage_id, 0, 0)
                try:
                    self._fetch(wanted)
                except self._x.xproto.MatchError:  # the root window is smaller than it was a moment ago
                    self._measure = True
                    continue
                self._whole = False
                return self._picture, None if whole else wanted
        raise ScreenError("display-lost", "The screen changes its size all the time. Share it again when it is at rest.")

    # --- the connection ---

    def _connect(self) -> None:
        try:
            import xcffib
            import xcffib.damage
            import xcffib.shm
            import xcffib.xproto
        except (ImportError, OSError) as error:
            raise ScreenError("no-display", f"Displays cannot be reached without libxcb ({error}). Install the package libxcb1.") from None
        self._x = xcffib
        try:
            self._connection = xcffib.connect(self._display)  # type: ignore[no-untyped-call]  # as all of xcffib
        except xcffib.XcffibException:
            raise self._no_display("no server is there, or it refuses us") from None

    def _no_display(self, why: str) -> ScreenError:
        return ScreenError(
            "no-display",
            f"The display {self._display} cannot be opened: {why}. Check DISPLAY and XAUTHORITY, or name another one with --display.",
        )

    def _unsupported(self, what: str) -> ScreenError:
        return ScreenError("unsupported-display", f"The display {self._display} {what}. Use one with 24-bit colours and XDamage.")

    def _prepare(self) -> None:
        x, setup = self._connection, self._connection.get_setup()
        screen = setup.roots[x.pref_screen]
        self._root = screen.root
        packing = {form.depth: form for form in setup.pixmap_formats}.get(screen.root_depth)
        visuals = [v for depth in screen.allowed_depths for v in depth.visuals if v.visual_id == screen.root_visual]
        masks = [(v.red_mask, v.green_mask, v.blue_mask) for v in visuals]
        if screen.root_depth not in (24, 32) or masks != [(0xFF0000, 0xFF00, 0xFF)]:
            raise self._unsupported(f"has {screen.root_depth}-bit colours")
        if packing is None or packing.bits_per_pixel != 32 or setup.image_byte_order != 0 or sys.byteorder != "little":
            raise self._unsupported("packs its pixels in another way")
        for extension in (self._x.damage.key, self._x.shm.key):
            present = x.core.QueryExtension(len(extension.name), extension.name).reply().present
            if present and extension is self._x.damage.key:
                self._damage = x(extension)
            elif present:
                self._shm = x(extension)
        if self._damage is None:
            raise self._unsupported("does not say what changes on it")
        self._damage.QueryVersion(1, 1).reply()
        x.core.ChangeWindowAttributes(self._root, _EVENT_MASK, [_STRUCTURE_NOTIFY])
        self._damage_id = x.generate_id()
        self._damage.CreateChecked(self._damage_id, self._root, _DELTA_RECTANGLES).check()
        self._adopt_geometry()

    def _close(self) -> None:
        self._drop_segment()
        if self._connection is not None:
            with suppress(self._x.XcffibException):  # lost already: nobody can wait on it
                trio.lowlevel.notify_closing(self._connection.get_file_descriptor())
            self._connection.disconnect()
            self._connection = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What the X library raises, by our name."""
        if self._connection is None:
            raise ScreenError("display-lost", "The display is closed. Share it again.")
        try:
            yield
        except self._x.ConnectionException:
            raise ScreenError("display-lost", f"The display {self._display} has gone away. Start it again, then share it again.") from None
        except self._x.Error as error:
            raise ScreenError("display-lost", f"The display {self._display} refuses to show itself ({type(error).__name__}).") from None

    # --- damage ---

    def _drain(self) -> None:
        while (event := self._connection.poll_for_event()) is not None:
            if isinstance(event, self._x.damage.NotifyEvent):
                area = event.area
                self._rects.append(Rect(area.x, area.y, area.width, area.height))
            elif event.response_type & 0x7F == _CONFIGURE_NOTIFY and event.window == self._root:
                self._measure = self._measure or (event.width, event.height) != self.geometry

    def _plan(self) -> list[Rect]:
        """What to fetch: the damage within the screen, as one rectangle if that is hardly more."""
        width, height = self.geometry
        rects, self._rects = self._rects, []
        if self._whole:
            return [Rect(0, 0, width, height)]
        inside = [rect for rect in (rect.clipped(width, height) for rect in rects) if rect is not None]
        if len(inside) > 1:
            around = bounding(inside)
            if len(inside) > MANY_RECTS or 2 * sum(rect.area for rect in inside) > around.area:
                return [around]
        return inside

    def _adopt_geometry(self) -> None:
        answer = self._connection.core.GetGeometry(self._root).reply()
        self._measure = False
        if (answer.width, answer.height) == self.geometry and self._segment is not None:
            return
        check_geometry(answer.width, answer.height)
        self._picture = blank(answer.width, answer.height)
        self._whole = True
        self._drop_segment()
        if self._shm is not None:
            self._share_segment(4 * answer.width * answer.height)

    # --- pixels ---

    def _share_segment(self, size: int) -> None:
        """Attach a segment on both sides, or go on without one."""
        assert size <= 4 * MAX_WIDTH * MAX_HEIGHT
        try:
            self._segment = Segment(size)
            self._segment_id = self._connection.generate_id()
            self._shm.AttachChecked(self._segment_id, self._segment.id, False).check()
            if self._segment.holders() >= 2:
                return
            why = "another namespace"
        except (OSError, self._x.Error) as error:
            why = type(error).__name__
        log.info("shared-memory-refused", display=self._display, why=why)
        self._drop_segment()
        self._shm = None

    def _drop_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _fetch(self, rects: list[Rect]) -> None:
        """Bring these areas of the picture up to date. All are asked for before the first answer is awaited."""
        target = words(self._picture)
        parts = [target[r.y : r.y + r.height, r.x : r.x + r.width] for r in rects]
        offsets = [0]
        for rect in rects:
            offsets.append(offsets[-1] + 4 * rect.area)
        cookies = [
            self._shm.GetImage(self._root, *rect, _ALL_PLANES, _Z_PIXMAP, self._segment_id, offset)
            if self._segment is not None
            else self._connection.core.GetImage(_Z_PIXMAP, self._root, *rect, _ALL_PLANES)
            for rect, offset in zip(rects, offsets, strict=False)
        ]
        try:
            for part, offset in zip(parts, offsets, strict=False):
                answer = self._connection.wait_for_reply(cookies[0].sequence)
                del cookies[0]
                if self._segment is not None:
                    self._segment.copy_to(part, offset)
                else:
                    pixels = np.frombuffer(answer.buf, np.uint32, math.prod(part.shape), 32)
                    np.bitwise_or(pixels.reshape(part.shape), OPAQUE, out=part)
        finally:
            for cookie in cookies:
                cookie.discard_reply()
