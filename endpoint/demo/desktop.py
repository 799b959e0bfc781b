"""What happens on the demo's desktop: a terminal that echoes keys, and a painter that shows known pixels and moves.

The painter is a process of its own (`python -m endpoint.demo.desktop DISPLAY`): it draws the bitmap of `canary_pixels`, which is searched
for in everything that the servers saw, and one square that wanders until standard input ends.
"""

import os
import random
import sys
from typing import Any, Final

import numpy as np
import trio

from endpoint.screen.picture import Picture

SIZE: Final = (1280, 720)
TERMINAL: Final = ("xterm", "-geometry", "80x24+40+40", "-fa", "Monospace", "-fs", "11", "-b", "4", "-e", "cat")
TERMINAL_AREA: Final = (40, 40, 700, 560)  # x, y, width, height: all lines of the terminal, and nothing else is drawn there
PAINTED: Final = (800, 100)
BITMAP: Final = 96
SQUARE: Final = 48
_MOVES_EVERY: Final = 0.04
_KEY_PRESS, _KEY_RELEASE = 2, 3
_Z_PIXMAP: Final = 2


def canary_pixels() -> Picture:
    """96 × 96 pixels that look like nothing else: bytes B, G, R, 255."""
    noise = random.Random("parley canary").randbytes(BITMAP * BITMAP * 4)  # noqa: S311  # it must be known, not secret
    pixels = np.frombuffer(noise, np.uint8).reshape(BITMAP, BITMAP, 4).copy()
    pixels[:, :, 3] = 255
    return pixels


class Keyboard:
    """Presses keys on a display, as a person at it would (XTEST)."""

    def __init__(self, display: str) -> None:
        import xcffib
        import xcffib.xproto
        import xcffib.xtest

        x: Any = xcffib.connect(display)  # type: ignore[no-untyped-call]  # as all of xcffib
        self._x = x
        self._xtest: Any = self._x(xcffib.xtest.key)
        setup = self._x.get_setup()
        self._root = setup.roots[0].root
        first, count = setup.min_keycode, setup.max_keycode - setup.min_keycode + 1
        mapping = self._x.core.GetKeyboardMapping(first, count).reply()
        per = mapping.keysyms_per_keycode
        self._codes = {mapping.keysyms[i * per]: first + i for i in reversed(range(count))}

    def focus(self) -> bool:
        """Give the keys to the first window on the display; False if there is none yet."""
        windows = [w for w in self._x.core.QueryTree(self._root).reply().children if self._mapped(w)]
        for window in windows:
            if self._wide(window):
                self._x.core.SetInputFocusChecked(1, window, 0).check()
                return True
        return False

    def _mapped(self, window: int) -> bool:
        return bool(self._x.core.GetWindowAttributes(window).reply().map_state == 2)

    def _wide(self, window: int) -> bool:
        shape = self._x.core.GetGeometry(window).reply()
        return bool(shape.width > 300 and shape.x < 100)

    def press(self, character: str) -> None:
        """One key down and up. Keysyms of ASCII are its codes; "\\n" is Return."""
        code = self._codes[0xFF0D if character == "\n" else ord(character)]
        for kind in (_KEY_PRESS, _KEY_RELEASE):
            self._xtest.FakeInput(kind, code, 0, self._root, 0, 0, 0)
        self._x.flush()

    def close(self) -> None:
        self._x.disconnect()


async def paint(display: str) -> None:
    """Draw the bitmap, then move the square about until standard input ends."""
    import xcffib
    import xcffib.xproto

    x: Any = xcffib.connect(display)  # type: ignore[no-untyped-call]  # as all of xcffib
    screen = x.get_setup().roots[0]
    window, context = x.generate_id(), x.generate_id()
    left, top = PAINTED
    width, height = 400, 400
    values = [screen.white_pixel, 1]
    xproto: Any = xcffib.xproto
    x.core.CreateWindow(
        screen.root_depth, window, screen.root, left, top, width, height, 0, xproto.WindowClass.InputOutput, screen.root_visual,
        xproto.CW.BackPixel | xproto.CW.OverrideRedirect, values,
    )  # fmt: skip
    x.core.MapWindow(window)
    x.core.CreateGC(context, window, xproto.GC.Foreground, [0x0060C0])
    x.flush()
    await trio.sleep(0.2)
    pixels = canary_pixels().tobytes()
    x.core.PutImage(_Z_PIXMAP, window, context, BITMAP, BITMAP, 10, 10, 0, screen.root_depth, len(pixels), pixels)
    x.flush()
    print("painting", flush=True)  # noqa: T201  # tells the parent
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            while True:
                await trio.lowlevel.wait_readable(0)
                if not os.read(0, 64):
                    nursery.cancel_scope.cancel()
                    return

        nursery.start_soon(stop)
        step = 0
        while True:
            old, step = step, step + 1
            at = [(150 + 7 * n % 190, 150 + 5 * n % 190) for n in (old, step)]
            x.core.ClearArea(False, window, *at[0], SQUARE, SQUARE)
            x.core.PolyFillRectangle(window, context, 1, [xproto.RECTANGLE.synthetic(*at[1], SQUARE, SQUARE)])
            x.flush()
            await trio.sleep(_MOVES_EVERY)
    await trio.sleep_forever()  # the window stays until this process is ended


if __name__ == "__main__":
    trio.run(paint, sys.argv[1])
