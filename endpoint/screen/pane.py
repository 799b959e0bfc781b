"""Windows of ours, each a process of its own: the viewer's, and the on-air light's.

A window system wants a program's main thread and its own way of waiting, and its libraries crash in their own ways; so a window is a child
(`endpoint.screen.window`, `endpoint.screen.light`) that holds no key and no link. Lines of JSON go both ways; pixels lie in memory that
both have mapped. A child ends when its standard input does, however we end; a window that is closed or crashes ends nothing here.

What waits for a slow child is merged, never queued, here and there (`endpoint.screen.inbox`): rectangles into one around them, a pointer
into the newest.
"""

import base64
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import structlog
import trio

from endpoint.hands import InputEvent, Pointer, Shape
from endpoint.screen.picture import MAX_BYTES, Picture, Rect, gathered
from endpoint.screen.viewer import Caption

log = structlog.get_logger()

_MAX_LINE: Final = 1 << 16


class Pane:
    """One window. `heard` gets each line that it says; `run` opens it and returns when it is closed."""

    def __init__(self, module: str, display: str | None = None) -> None:
        self.open = False
        self.closed = trio.Event()  # another one for each window
        self._module = module
        self._display = display
        self._memory: int | None = None  # a descriptor that the child inherits
        self._facts: dict[str, Any] = {}  # what is to be said, by kind; the newest of each
        self._news = trio.Event()

    def heard(self, line: dict[str, Any]) -> None:
        """Something that the person did there. What it says is taken as a stranger's: what cannot be read raises ValueError or KeyError."""

    def say(self, **facts: Any) -> None:
        self._facts |= facts
        self._news.set()

    async def run(self) -> None:
        """Until the window is closed, or this is cancelled."""
        env = {
            **os.environ,
            "PYGAME_HIDE_SUPPORT_PROMPT": "1",
            "SDL_VIDEO_X11_NET_WM_BYPASS_COMPOSITOR": "0",
            "SDL_FRAMEBUFFER_ACCELERATION": "0",  # OpenGL gains nothing for pictures of ours, and draws beside the mark when a size changes
            "SDL_MOUSE_FOCUS_CLICKTHROUGH": "1",  # the click that brings the focus counts: whoever presses "pause" does not press twice
        }
        if self._display:
            env["DISPLAY"] = self._display
        fds = [] if self._memory is None else [self._memory]
        command = [sys.executable, "-m", self._module, *map(str, fds)]
        start = partial(
            trio.lowlevel.open_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, pass_fds=fds, process_group=0
        )
        process = await start(stderr=subprocess.DEVNULL)
        self.open, self.closed = True, trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, process)
                await self._read(process)
                nursery.cancel_scope.cancel()
        finally:
            self.open = False
            self.closed.set()
            with trio.CancelScope(shield=True):
                if process.stdin is not None:
                    await process.stdin.aclose()
                with trio.move_on_after(1.0):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            log.info("window-closed", window=self._module, code=process.returncode)

    async def _write(self, process: trio.Process) -> None:
        assert process.stdin is not None
        while True:
            await self._news.wait()
            self._news = trio.Event()
            facts, self._facts = self._facts, {}
            try:
                await process.stdin.send_all(json.dumps(facts).encode() + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _read(self, process: trio.Process) -> None:
        assert process.stdout is not None
        held = b""
        async for part in process.stdout:
            *lines, held = (held + part).split(b"\n")
            if len(held) > _MAX_LINE:
                return
            for line in lines:
                try:
                    self.heard(msgspec.json.decode(line, type=dict[str, Any]))
                except (ValueError, KeyError, RecursionError) as error:  # msgspec's errors are ValueErrors
                    log.warning("window-incomprehensible", window=self._module, why=type(error).__name__)
                    return


class WindowViewer(Pane):
    """A window that shows the screen. touched: what the person does over the picture while `lent` says so; told: words for the person."""

    def __init__(
        self,
        folder: Path,
        touched: Callable[[InputEvent], None] = lambda event: None,
        told: Callable[[str], None] = lambda text: None,
        display: str | None = None,
    ) -> None:
        super().__init__("endpoint.screen.window", display)
        self._touched = touched
        self._told = told
        self._memory = os.memfd_create("parley-picture")
        os.ftruncate(self._memory, MAX_BYTES)  # only what a picture fills takes memory
        self._map = mmap.mmap(self._memory, MAX_BYTES)
        self._shape: Shape | None = None
        self._size = (0, 0)
        self._rects: list[Rect] = []
        self._folder = folder

    async def run(self) -> None:
        """See `Pane.run`. A window that is opened again knows nothing of the one before."""
        self._shape = None
        self.say(folder=str(self._folder))
        await super().run()

    def close(self) -> None:
        if self._memory is not None:
            self._map.close()
            os.close(self._memory)
            self._memory = None

    def show(self, picture: Picture, rects: Sequence[Rect]) -> None:
        """See `Viewer.show`."""
        if self._memory is None:  # closed: a session's last pictures may come behind its window
            return
        height, width = picture.shape[:2]
        if (width, height) != self._size:
            self._size, rects = (width, height), [Rect(0, 0, width, height)]
            self._rects = []
        target = np.frombuffer(self._map, np.uint8, 4 * width * height).reshape(height, width, 4)
        for x, y, w, h in rects:
            target[y : y + h, x : x + w] = picture[y : y + h, x : x + w]
        self._rects = gathered(self._rects if "rects" in self._facts else [], rects)
        self.say(size=self._size, rects=self._rects)

    def point(self, pointer: Pointer | None, shape: Shape | None) -> None:
        """See `Viewer.point`."""
        if shape is not None and shape is not self._shape:
            self._shape = shape
            pixels = base64.b64encode(shape.pixels).decode()
            self.say(shape=[shape.width, shape.height, shape.hot_x, shape.hot_y, pixels])
        self.say(pointer=[pointer.x, pointer.y, pointer.visible] if pointer else [0, 0, False])

    def caption(self, caption: Caption) -> None:
        """See `Viewer.caption`."""
        self.say(caption=asdict(caption))

    def heard(self, line: dict[str, Any]) -> None:
        if "touch" in line:
            self._touched(msgspec.convert(line["touch"], InputEvent))
        elif "told" in line:
            self._told(str(line["told"]))


@dataclass(frozen=True, slots=True)
class Light:
    """What the on-air window says. `state`: "on air", "paused", "off"; `holder`: who has mouse and keyboard, "" nobody."""

    state: str
    what: str
    viewers: int
    rate: str
    behind: str
    holder: str = ""
    note: str = ""


class LightPane(Pane):
    """The small window that says that something is shared, always on top. `asked` gets "pause", "resume", "stop", "take-back".

    beside: the shared part of the display, which the window keeps out of when there is room.
    """

    def __init__(self, asked: Callable[[str], None], beside: Rect, display: str | None = None) -> None:
        super().__init__("endpoint.screen.light", display)
        self._asked = asked
        self.say(beside=list(beside))

    def show(self, light: Light) -> None:
        self.say(light=asdict(light))

    def heard(self, line: dict[str, Any]) -> None:
        if "ask" in line:
            self._asked(str(line["ask"]))
