"""The screen of an X11 display, or a part of it.

XDamage says where something was drawn (delta rectangles: each area once, without asking), MIT-SHM hands out these
areas alone through a segment that the server writes and we read. One round trip a grab. Order keeps changes from being
lost: collect the reported damage, tell the server to forget it, then fetch the pixels. What is drawn in between is in
the pixels already, or is reported again.

A desktop, a monitor and a region are cut from the root window, which shows whatever is there. A window is taken from its own memory
(Composite), so that nothing that covers it is shared with it; it must not be of an excluded program, and is black while it is called like one.
Programs that are excluded are black wherever they stand, or may still be seen (`x11_hidden`): where that is, and what the pixels are, is
asked under one server grab, so there is no moment between the two in which a window could move or appear.

Without shared memory (a display on another machine, another IPC namespace) the pixels come through the connection.
`grab` waits for the server, as any program that draws on it does; a server that hangs holds its presenter up.
"""

import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

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
from endpoint.screen.x11_display import Display
from endpoint.screen.x11_hidden import Hidden
from endpoint.screen.x11_windows import Windows

log = structlog.get_logger()

MANY_RECTS = 12
"""More damaged rectangles than this are fetched as one."""
TRIES = 4
"""A screen that changes its size between question and answer is asked again so often."""

_DELTA_RECTANGLES = 1
_Z_PIXMAP = 2
_ALL_PLANES = 0xFFFFFFFF
_CONFIGURE_NOTIFY = 22
_DESTROY_NOTIFY, _MAP_NOTIFY = 17, 19
_LAST_CORE = 36
"""Events below are the core protocol's."""
_STRUCTURE_NOTIFY, _SUBSTRUCTURE_NOTIFY = 1 << 17, 1 << 19
_EVENT_MASK = 1 << 11
_AUTOMATIC = 0
_SCREEN_CHANGE = 1
_REGION: Final = re.compile(r"(\d{1,5})x(\d{1,5})\+(\d{1,5})\+(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Part:
    """What of a display is shared. `kind`: desktop, monitor, window or region; `name`: which one."""

    kind: str = "desktop"
    name: str = ""


def parse_part(text: str) -> Part | None:
    """`desktop`, `monitor:HDMI-1`, `monitor:2`, `window:TITLE`, `window:0x1400003`, `region:800x600+100+50`; None if it is none of these.

    Raises ScreenError `no-such-region`.
    """
    kind, _, name = text.partition(":")
    if text == "desktop" or (kind in ("monitor", "window", "region") and name):
        if kind == "region" and not _REGION.fullmatch(name):
            raise ScreenError("no-such-region", f"A region is WIDTHxHEIGHT+X+Y, such as region:800x600+100+50, not “{name}”.")
        return Part(kind, name)
    return None


def parse_excluded(names: Sequence[str]) -> tuple[str, ...]:
    """Programs, as `Window.is_called` knows them; `window:` before a name, as before one that is shared, says the same.

    Raises ScreenError `cannot-exclude`.
    """
    for name in names:
        if name == "desktop" or name.startswith(("monitor:", "region:")):
            raise ScreenError(
                "cannot-exclude",
                f"What is excluded is a program, by a name of its windows, such as --exclude KeePassXC; “{name}” is none. "
                "To keep a part of the desktop out of sight, share another part of it.",
            )
    return tuple(bare for name in names if (bare := name.removeprefix("window:").strip()))


class Anchor(NamedTuple):
    """Where the shared picture is: its pixel (0, 0) is (x, y) of this window."""

    window: int
    x: int
    y: int
    width: int
    height: int


class X11Source:
    """A part of a display as `source.Source`. display: ":0"; None means $DISPLAY. excluded: names of programs that are never shown."""

    def __init__(self, display: str | None = None, part: Part | None = None, excluded: Sequence[str] = ()) -> None:
        """Raises ScreenError `cannot-exclude`."""
        self.part = part or Part()
        self.excluded = parse_excluded(excluded)
        self._display = Display(display)
        self._connection: Any = None
        self._damage: Any = None  # the DAMAGE extension
        self._composite: Any = None
        self._shm: Any = None  # MIT-SHM, or None where it is refused
        self._windows: Windows | None = None
        self._secret: Hidden | None = None  # where excluded programs are, if there are any
        self._window = 0  # the one that is shared, or the root
        self._drawable = 0  # where its pixels are
        self._title = ""
        self._origin = (0, 0)  # of the picture in `_drawable`
        self._damage_id = self._segment_id = 0
        self._segment: Segment | None = None
        self._picture: Picture = blank(1, 1)
        self._rects: list[Rect] = []  # damage reported and not yet fetched, within the picture
        self._hidden: list[Rect] = []  # what is black now
        self._whole = True  # nothing fetched yet in this geometry
        self._measure = False  # the geometry may have changed
        self._remapped = False  # the shared window has memory of another kind since it was shown again

    @property
    def display(self) -> str:
        return self._display.name

    @property
    def name(self) -> str:
        width, height = self.geometry
        what = {
            "desktop": f"desktop {self.display}",
            "monitor": f"monitor {self._title or self.part.name}",
            "window": f"window “{self._title or self.part.name}”",
            "region": f"a region of {self.display}",
        }[self.part.kind]
        without = f", without {' and '.join(self.excluded)}" if self.excluded else ""
        return f"{what}, {width} × {height}{without}"

    @property
    def geometry(self) -> tuple[int, int]:
        height, width = self._picture.shape[:2]
        return width, height

    @property
    def anchor(self) -> Anchor:
        """Where the picture is on the display."""
        if self._window == self._drawable:
            return Anchor(self._window, *self._origin, *self.geometry)
        return Anchor(self._window, 0, 0, *self.geometry)

    @property
    def origin(self) -> Rect:
        """The shared part, in pixels of the display. Raises ScreenError `display-lost`."""
        with self._display.errors():
            window, x, y, width, height = self.anchor
            at = self._connection.core.TranslateCoordinates(window, self._display.root, x, y).reply()
        return Rect(at.dst_x, at.dst_y, width, height)

    async def __aenter__(self) -> Self:
        """Raises ScreenError `no-display`, `unsupported-display`, `screen-too-large`, `no-such-monitor`, `no-such-window`, `window-excluded`,
        `no-such-region`."""
        await self._display.open()
        self._connection = self._display.connection
        try:
            with self._display.errors():
                self._prepare()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    async def wait(self) -> None:
        """Return when something was drawn, at once if it was so before. Raises ScreenError `display-lost`, `window-closed`."""
        await trio.lowlevel.checkpoint()
        while True:
            with self._display.errors():
                self._drain()
                clears = self._secret.clears if self._secret else math.inf
                if self._rects or self._whole or self._measure or trio.current_time() >= clears:
                    return
            with trio.move_on_at(clears):
                await self._display.readable()

    def grab(self) -> tuple[Picture, list[Rect] | None]:
        """See `Source.grab`. Raises ScreenError `display-lost`, `window-closed`, `screen-too-large`."""
        with self._display.errors():
            for _ in range(TRIES):
                self._drain()
                if self._measure:
                    self._adopt_geometry()
                with self._still():
                    hidden = self._blackened()
                    whole, wanted = self._whole, self._plan(hidden)
                    if not wanted:
                        return self._picture, []
                    self._damage.Subtract(self._damage_id, 0, 0)
                    try:
                        self._fetch(wanted)
                    except (self._display.x.xproto.MatchError, self._display.x.xproto.DrawableError):  # it has become smaller this moment
                        self._rects, self._measure = wanted, True  # the server has forgotten them
                        continue
                self._hidden = hidden
                target = words(self._picture)
                for r in hidden:
                    target[r.y : r.y + r.height, r.x : r.x + r.width] = OPAQUE
                self._whole = False
                return self._picture, None if whole else wanted
        raise ScreenError("display-lost", "The screen changes its size all the time. Share it again when it is at rest.")

    # --- the connection ---

    def _prepare(self) -> None:
        display, x, setup = self._display, self._connection, self._connection.get_setup()
        screen = display.screen
        packing = {form.depth: form for form in setup.pixmap_formats}.get(screen.root_depth)
        visuals = [v for depth in screen.allowed_depths for v in depth.visuals if v.visual_id == screen.root_visual]
        masks = [(v.red_mask, v.green_mask, v.blue_mask) for v in visuals]
        if screen.root_depth not in (24, 32) or masks != [(0xFF0000, 0xFF00, 0xFF)]:
            raise display.unsupported(f"has {screen.root_depth}-bit colours")
        if packing is None or packing.bits_per_pixel != 32 or setup.image_byte_order != 0 or sys.byteorder != "little":
            raise display.unsupported("packs its pixels in another way")
        self._shm, self._damage = display.optional("shm"), display.optional("damage")
        if self._damage is None:
            raise display.unsupported("does not say what changes on it")
        self._damage.QueryVersion(1, 1).reply()
        self._windows = Windows(display)
        self._window = self._drawable = display.root
        if self.part.kind == "window":
            found = self._windows.find(self.part.name)
            self._window, self._drawable, self._title = found.id, 0, found.title
            if self.excluded and self._windows.programs(self.excluded).own(found.id):
                raise ScreenError(
                    "window-excluded",
                    f"The window “{found.title}” belongs to a program that is never shown ({', '.join(self.excluded)}). "
                    "Share another window, or take its name out of --exclude.",
                )
            self._composite = display.extension("composite")
            self._composite.QueryVersion(0, 4).reply()
            self._composite.RedirectWindowChecked(self._window, _AUTOMATIC).check()
        elif self.part.kind == "monitor":
            randr = display.extension("randr")
            randr.QueryVersion(1, 5).reply()
            randr.SelectInput(display.root, _SCREEN_CHANGE)
        if self.excluded and self.part.kind != "window":
            self._secret = Hidden(self._windows, self.excluded)
        mask = _STRUCTURE_NOTIFY | (_SUBSTRUCTURE_NOTIFY if self._secret else 0)
        x.core.ChangeWindowAttributes(self._window, _EVENT_MASK, [mask])
        self._damage_id = x.generate_id()
        self._damage.CreateChecked(self._damage_id, self._window, _DELTA_RECTANGLES).check()
        self._adopt_geometry()

    def _close(self) -> None:
        self._drop_segment()
        self._display.close()
        self._connection = None

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Nothing else happens on the display meanwhile, if that matters: no program is heard but us."""
        if not self.excluded:
            yield
            return
        self._connection.core.GrabServer()
        try:
            yield
        finally:
            self._connection.core.UngrabServer()
            self._connection.flush()

    # --- damage ---

    def _drain(self) -> None:
        ox, oy = self._origin if self._window == self._drawable else (0, 0)
        while (event := self._connection.poll_for_event()) is not None:
            kind = event.response_type & 0x7F
            if isinstance(event, self._display.module("damage").NotifyEvent):
                area = event.area
                self._rects.append(Rect(area.x - ox, area.y - oy, area.width, area.height))
            elif self._secret is not None and kind < _LAST_CORE and getattr(event, "window", self._window) != self._window:
                self._secret.heard(event, trio.current_time())
            elif kind == _CONFIGURE_NOTIFY and event.window == self._window:
                self._measure = self._measure or self.part.kind in ("monitor", "region") or (event.width, event.height) != self.geometry
            elif kind == _DESTROY_NOTIFY and event.window == self._window:
                raise ScreenError("window-closed", f"The window “{self._title}” has been closed. Share something else.")
            elif kind == _MAP_NOTIFY and event.window == self._window and self.part.kind == "window":
                self._measure = self._remapped = True
            elif type(event).__name__ == "ScreenChangeNotifyEvent":
                self._measure = True

    def _blackened(self) -> list[Rect]:
        """Where excluded programs stand in the picture, or may still be seen."""
        width, height = self.geometry
        if self._secret is not None:
            self._secret.look()
            self._drain()  # what happened before the server was grabbed
            ox, oy = self._origin
            placed = (Rect(x - ox, y - oy, w, h).clipped(width, height) for x, y, w, h in self._secret.places(trio.current_time()))
            return [rect for rect in placed if rect is not None]
        if self.excluded and self._windows is not None and self._windows.programs(self.excluded).own(self._window):
            return [Rect(0, 0, width, height)]  # what a shared window is called may change
        return []

    def _plan(self, hidden: list[Rect]) -> list[Rect]:
        """What to fetch: the damage within the picture, as one rectangle if that is hardly more."""
        width, height = self.geometry
        rects, self._rects = self._rects, []
        if self._whole:
            return [Rect(0, 0, width, height)]
        if hidden != self._hidden:
            rects = [*rects, *self._hidden, *hidden]
        inside = [rect for rect in (rect.clipped(width, height) for rect in rects) if rect is not None]
        if len(inside) > 1:
            around = bounding(inside)
            if len(inside) > MANY_RECTS or 2 * sum(rect.area for rect in inside) > around.area:
                return [around]
        return inside

    def _adopt_geometry(self) -> None:
        drawable, frame = self._frame()
        self._measure = False
        same = (frame.x, frame.y) == self._origin and (frame.width, frame.height) == self.geometry and drawable == self._drawable
        if same and self._segment is not None:
            return
        check_geometry(frame.width, frame.height)
        self._drawable, self._origin = drawable, (frame.x, frame.y)
        self._picture = blank(frame.width, frame.height)
        self._whole = True
        self._hidden = []
        self._drop_segment()
        if self._shm is not None:
            self._share_segment(4 * frame.width * frame.height)

    def _frame(self) -> tuple[int, Rect]:
        """The drawable, and what of it is shared. Raises ScreenError `no-such-monitor`, `no-such-region`."""
        root = self._display.root
        size = self._connection.core.GetGeometry(self._window).reply()
        whole = Rect(0, 0, size.width, size.height)
        if self.part.kind == "desktop":
            return root, whole
        if self.part.kind == "window":
            return self._named_pixmap((size.width, size.height)), Rect(size.border_width, size.border_width, size.width, size.height)
        if self.part.kind == "monitor":
            assert self._windows is not None
            monitors = self._windows.monitors()
            for number, monitor in enumerate(monitors, 1):
                if self.part.name in (monitor.name, str(number)) and (inside := monitor.area.clipped(*whole[2:])):
                    self._title = monitor.name
                    return root, inside
            there = ", ".join(f"{number} ({monitor.name})" for number, monitor in enumerate(monitors, 1)) or "none"
            raise ScreenError("no-such-monitor", f"There is no monitor “{self.part.name}” on {self.display}. There are: {there}.")
        found = _REGION.fullmatch(self.part.name)
        assert found is not None
        width, height, x, y = map(int, found.groups())
        region = Rect(x, y, width, height).clipped(*whole[2:])
        if region is None:
            raise ScreenError("no-such-region", f"The region {self.part.name} is outside of the screen, {size.width} × {size.height}.")
        return root, region

    def _named_pixmap(self, size: tuple[int, int]) -> int:
        """A window's own memory, as it is now; the former one while the window is not shown."""
        if self._drawable and size == self.geometry and not self._remapped:
            return self._drawable
        self._remapped = False
        pixmap = self._connection.generate_id()
        try:
            self._composite.NameWindowPixmapChecked(self._window, pixmap).check()
        except self._display.x.Error:
            if self._drawable:
                return self._drawable
            raise ScreenError("no-such-window", f"The window “{self._title}” is not shown now. Bring it up, then share it.") from None
        if self._drawable:
            self._connection.core.FreePixmap(self._drawable)
        return int(pixmap)

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
        except (OSError, self._display.x.Error) as error:
            why = type(error).__name__
        log.info("shared-memory-refused", display=self.display, why=why)
        self._drop_segment()
        self._shm = None

    def _drop_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _fetch(self, rects: list[Rect]) -> None:
        """Bring these areas of the picture up to date. All are asked for before the first answer is awaited."""
        ox, oy = self._origin
        target = words(self._picture)
        parts = [target[r.y : r.y + r.height, r.x : r.x + r.width] for r in rects]
        offsets = [0]
        for rect in rects:
            offsets.append(offsets[-1] + 4 * rect.area)
        cookies = [
            self._shm.GetImage(
                self._drawable, rect.x + ox, rect.y + oy, rect.width, rect.height, _ALL_PLANES, _Z_PIXMAP, self._segment_id, offset
            )
            if self._segment is not None
            else self._connection.core.GetImage(_Z_PIXMAP, self._drawable, rect.x + ox, rect.y + oy, rect.width, rect.height, _ALL_PLANES)
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
