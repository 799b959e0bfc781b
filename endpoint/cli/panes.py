"""A session's windows and hands on this machine: the viewer, the on-air light, remote control. What `attend` runs beside the terminal.

The viewer opens when there is somebody to see and a display to see it on, and again with /view after its person has closed it. The light
stands as long as this side shares or has paused. Both only show and ask: what is true is the session's and the presenter's. Nothing here
ends a meeting; what fails is said once.
"""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from endpoint.cli.room import Room
from endpoint.errors import EndpointError
from endpoint.events import Event
from endpoint.present import OnAir
from endpoint.remote_control import Borrower, Lender
from endpoint.screen.pane import Light, LightPane, WindowViewer
from endpoint.screen.picture import Rect, ScreenError
from endpoint.screen.viewer import Caption
from endpoint.screen.x11 import X11Source
from endpoint.screen.x11_touch import X11Touch
from wire.ids import EVERYONE

EVERY: Final = 0.25
"""Seconds between two looks at what has no event of its own."""
FAREWELL: Final = 3.0
"""Seconds for which the viewer says that the meeting has ended, unless its person closes it."""
NO_WINDOW: Final = "There is no display here (DISPLAY is not set), so the screen is shown in no window; it is kept fresh in {}."
CLOSED: Final = "The window is closed; /view opens it again. The meeting goes on."


class Panes:
    """Owned by `endpoint.cli.attend`. say: a sentence for the person. windows: whether this side has any."""

    def __init__(self, room: Room, say: Callable[[str], None], *, windows: bool) -> None:
        self.borrower = Borrower(room.session, room.watcher)
        self.lender: Lender | None = None
        self._room = room
        self._say = say
        self._display = os.environ.get("DISPLAY", "") if windows else ""
        self._windows = windows
        self._viewer: WindowViewer | None = None
        self._light: LightPane | None = None
        self._wanted = trio.Event()  # the viewer's window
        self._behind_since: float | None = None
        if room.presenter is not None and isinstance(room.source, X11Source):
            self.lender = Lender(room.session, room.presenter, X11Touch(room.source.display, place_of(room.source)))
            room.lender = self.lender
        if self._display:
            self._viewer = WindowViewer(Path.cwd(), self.borrower.do, say, self._display)
            room.watcher.also(self._viewer.show, self._point)
        room.view = self.open_viewer

    def open_viewer(self) -> None:
        """Show the window, if it was closed. Raises ScreenError `no-display`."""
        if self._viewer is None:
            raise ScreenError("no-display", "There is no display here for a window.")
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        self._room.session.listen(self._heard)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.borrower.run)
                if self.lender is not None:
                    nursery.start_soon(self._lend)
                if self._viewer is not None:
                    nursery.start_soon(self._keep_viewer, self._viewer)
                    nursery.start_soon(self._keep_light)
                elif self._windows and self._room.presenter is None:
                    self._say(NO_WINDOW.format(self._room.picture))
                await self._look()
        finally:
            if self._viewer is not None:
                self._viewer.close()

    async def farewell(self) -> None:
        """The viewer says that the meeting has ended, for a moment."""
        if self._viewer is not None and self._viewer.open and self._room.session.state.ended:
            self._viewer.caption(self._caption())
            with trio.move_on_after(FAREWELL):
                await self._viewer.closed.wait()

    def _heard(self, event: Event) -> None:
        if self._viewer is not None and self._viewer.open:
            self._viewer.caption(self._caption())

    async def _lend(self) -> None:
        assert self.lender is not None
        try:
            await self.lender.run()
        except ScreenError as error:
            self._say(f"{error.name}: {error.sentence} Mouse and keyboard cannot be lent.")

    async def _keep_viewer(self, viewer: WindowViewer) -> None:
        """Open it when somebody else presents, and whenever it is asked for."""
        await self._room.session.until(lambda: bool(self._room.showing) and not self._own())
        while True:
            self._wanted = trio.Event()
            viewer.caption(self._caption())
            with suppress(ScreenError):  # there may be none yet
                viewer.show(self._room.watcher.picture, whole(self._room.watcher.picture.shape))
            self._point()
            try:
                await viewer.run()
            except OSError as error:
                self._say(f"The viewer's window cannot be opened: {error.strerror}.")
            self.borrower.let_go()
            self._say(CLOSED)
            await self._wanted.wait()

    async def _keep_light(self) -> None:
        """While this side shares."""
        presenter, source = self._room.presenter, self._room.source
        if presenter is None or source is None:
            return
        beside = Rect(0, 0, 0, 0)
        if isinstance(source, X11Source) and source.display != self._display:
            return  # it is another desktop that is shared: nobody sits at it
        while True:
            await presenter.until(lambda: presenter.on_air is not OnAir.OFF)
            if isinstance(source, X11Source):
                with suppress(ScreenError):  # it has gone this moment: whoever shares it says so
                    beside = source.origin
            self._light = LightPane(self._asked, beside, self._display)
            self._light.show(self._facts())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._light.run)  # if its person closes it, the terminal still says it
                await presenter.until(lambda: presenter.on_air is OnAir.OFF)
                nursery.cancel_scope.cancel()
            self._light = None

    async def _look(self) -> None:
        """Keep fresh what has no event of its own."""
        last: Light | None = None
        told: Caption | None = None
        if self._room.presenter is not None:
            self._room.presenter.listeners.append(self._relight)
        while True:
            if self._light is not None and (facts := self._facts()) != last:
                last = facts
                self._light.show(facts)
            if self._viewer is not None and self._viewer.open and (caption := self._caption()) != told:
                told = caption
                self._viewer.caption(caption)
            await trio.sleep(EVERY)

    def _relight(self) -> None:
        if self._light is not None:
            self._light.show(self._facts())

    def _point(self) -> None:
        if self._viewer is not None:
            self._viewer.point(self._room.watcher.pointer, self._room.watcher.shape)

    def _own(self) -> bool:
        return self._room.session.state.presenter == self._room.session.me

    def _caption(self) -> Caption:
        room = self._room
        return Caption(room.title, room.presenting, room.showing or "nobody presents", room.badge.value, self.borrower.active)

    def _facts(self) -> Light:
        room, session = self._room, self._room.session
        assert room.presenter is not None
        viewers = len(session.state.members) - 1 - len(session.member.away - {session.me})
        rate = room.rates()[0]
        now = trio.current_time()
        if not session.screen_backlog:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        waiting = 0.0 if self._behind_since is None else now - self._behind_since
        others = session.member.chair.rtt if session.member.organizes else {}
        behind = picture_age(waiting, session.rtt, [rtt for member, rtt in others.items() if member not in session.member.away])
        holder = self.lender.holder if self.lender else EVERYONE
        dropped = sum(self.lender.dropped.values()) if self.lender else 0
        return Light(
            room.on_air.value,
            room.source.name if room.source else "",
            viewers,
            f"{rate / 1e6:.1f} MB/s" if rate >= 1e6 else f"{rate / 1e3:.0f} kB/s",
            behind,
            session.member.name(holder) if holder else "",
            f"{dropped} remote input{'' if dropped == 1 else 's'} dropped" if dropped else "",
        )

    def _asked(self, what: str) -> None:
        presenter = self._room.presenter
        assert presenter is not None
        try:
            match what:
                case "pause":
                    presenter.pause()
                case "resume":
                    presenter.resume()
                case "stop":
                    presenter.stop()
                case "take-back" if self.lender is not None:
                    self.lender.take_back()
        except EndpointError as error:
            self._say(str(error))


def picture_age(waiting: float, own: float | None, others: Sequence[float]) -> str:
    """How old the slowest attendee's picture is, in words: what waits here, then half a round trip to our relay and half the longest one from a
    relay to a member, as it says itself. Seconds. Only an organizer hears of the others': without any the way to our relay alone is known."""
    if own is None:
        return "not connected"
    age = waiting + own / 2 + max(others, default=0.0) / 2
    steps = math.ceil(10 * age)  # coarse: a light that is captured itself must not change all the time
    how = f"{'<' if steps <= 1 else '~'}{max(steps, 1) / 10:.1f} s"  # an estimate: nobody tells which picture it has
    return f"slowest picture {how} old" if others else f"pictures leave {how} late"


def whole(shape: tuple[int, ...]) -> list[Rect]:
    return [Rect(0, 0, shape[1], shape[0])]


def place_of(source: X11Source) -> Callable[[int, int], tuple[int, int] | None]:
    """From a pixel of what is shared to one of its display; None: outside."""

    def place(x: int, y: int) -> tuple[int, int] | None:
        left, top, width, height = source.origin
        return (left + x, top + y) if 0 <= x < width and 0 <= y < height else None

    return place
