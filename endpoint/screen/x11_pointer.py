"""The pointer of an X11 display: where it is in the shared picture, and how it looks.

XInput's raw motion says that it has moved, XFixes that it looks different; where it is then is asked once for each packet. A shape's pixels
come with its identity when it is new and when the pointer has come to rest (`endpoint.hands`).
"""

from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from endpoint.hands import MAX_SHAPE, Pointer, Shape
from endpoint.screen.x11 import X11Source
from endpoint.screen.x11_display import Display

_RAW_MOTION: Final = 1 << 17
_ALL_MASTERS: Final = 1
_CURSOR_CHANGED: Final = 1


class X11Pointer:
    """The pointer over a source's picture. Entered after its source."""

    def __init__(self, source: X11Source) -> None:
        self._source = source
        self._display = Display(source.display)
        self._fixes: Any = None
        self._shape: Shape | None = None
        self._identity = b""
        self._changed = True  # the shape may be another one

    async def __aenter__(self) -> Self:
        """Raises ScreenError `no-display`, `unsupported-display`."""
        display = self._display
        await display.open()
        try:
            with display.errors():
                self._fixes = display.extension("xfixes")
                self._fixes.QueryVersion(5, 0).reply()
                self._fixes.SelectCursorInput(display.root, _CURSOR_CHANGED)
                xinput = display.extension("xinput")
                xinput.XIQueryVersion(2, 2).reply()
                mask = display.module("xinput").EventMask.synthetic(_ALL_MASTERS, 1, [_RAW_MOTION])
                xinput.XISelectEventsChecked(display.root, 1, [mask]).check()
        except BaseException:
            display.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._display.close()

    async def wait(self) -> None:
        """Return when it has moved or looks different. Raises ScreenError `display-lost`."""
        while True:
            await self._display.readable()
            news = False
            with self._display.errors():
                while (event := self._display.connection.poll_for_event()) is not None:
                    news = True
                    self._changed = self._changed or type(event).__name__ == "CursorNotifyEvent"
            if news:
                return

    def look(self, *, whole: bool) -> Pointer:
        """Where it is now; with its pixels if they are new, or `whole` is wanted. Raises ScreenError `display-lost`."""
        window, left, top, width, height = self._source.anchor
        with self._display.errors():
            place = self._display.connection.core.QueryPointer(window).reply()
            fresh = self._changed
            if fresh:
                self._changed = False
                self._shape = self._looks()
                self._identity = self._shape.identity if self._shape else b""
        x, y = place.win_x - left, place.win_y - top
        visible = bool(place.same_screen) and 0 <= x < width and 0 <= y < height
        return Pointer(x, y, visible, self._identity, self._shape if whole or fresh else None)

    def _looks(self) -> Shape | None:
        image = self._fixes.GetCursorImage().reply()
        width, height = image.width, image.height
        if not 0 < width * height <= MAX_SHAPE:
            return None
        packed = np.array(list(image.cursor_image), np.uint32).reshape(height, width)
        channels = np.stack([packed >> shift & 0xFF for shift in (16, 8, 0, 24)], axis=2)
        alpha = np.maximum(channels[:, :, 3:], 1)
        channels[:, :, :3] = np.minimum(channels[:, :, :3] * 255 // alpha, 255)  # X premultiplies
        return Shape(width, height, min(image.xhot, width), min(image.yhot, height), channels.astype(np.uint8).tobytes())
