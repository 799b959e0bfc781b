"""Presenting: from a source of pictures to sealed screen messages. Runs when the log names this member as the presenter.

    source.wait ─▶ grab ─▶ encoder.update ─▶ session.show        a frame leaves as soon as something was drawn
    a relay says `want` ─▶ the picture that level viewers have, as a snapshot; the next update restarts the compression for all

When the network takes less than is drawn, frames are skipped and never queued: nothing is grabbed while more than `MAX_BACKLOG` waits.
Sharing is an explicit act (`run` is called), pausing sends one last word and then nothing until `resume`.
"""

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Final

import structlog
import trio

from endpoint.errors import EndpointError
from endpoint.events import Event, LinkChanged, PresenterChanged, SnapshotWanted
from endpoint.messages import ScreenKind
from endpoint.screen.encoder import Encoder
from endpoint.screen.picture import Picture, Rect
from endpoint.screen.source import Source
from endpoint.session import Session

log = structlog.get_logger()

MAX_BACKLOG: Final = 256 << 10
"""Bytes of screen that may wait for the network before frames are skipped."""
FRAME_EVERY: Final = 1 / 60
"""Seconds between two frames at least; the first one after a pause leaves at once."""
LARGE: Final = 60_000
"""Damaged pixels from which on a frame is encoded in a thread: smaller ones cost less than the way there and back."""
SNAPSHOT_PACE: Final = 2 << 20
"""Bytes of snapshots a second: one of a text screen follows the other at once, one of a photo after two seconds at most."""
LONGEST_PACE: Final = 2.0


class OnAir(Enum):
    OFF = "off"
    LIVE = "on air"
    PAUSED = "paused"


class Presenter:
    """Shares one source in one session. `on_air` says what is true on the wire; `frames` and `bytes` count what left."""

    def __init__(self, session: Session, source: Source, changed: Callable[[], None] = lambda: None) -> None:
        self.on_air = OnAir.OFF
        self.frames = 0
        self.bytes = 0
        self.snapshots = 0
        self.skipped = 0  # frames that were drawn and never grabbed, because the network was behind
        self.picture: Picture | None = None  # what the viewers have or are about to have
        self._session = session
        self._source = source
        self._changed = changed
        self._encoder = Encoder()
        self._wanted = True
        self._restart = True
        self._wake = trio.Event()
        self._shape: tuple[int, ...] = ()
        self._broken = False  # level viewers cannot go on from what they have
        self._snapshot_at = 0.0
        session.listen(self._heard)

    def pause(self) -> None:
        """Not one more screen packet leaves after this call returns, until `resume`."""
        if self.on_air is OnAir.LIVE:
            self._say(ScreenKind.PAUSED)
            self._set(OnAir.PAUSED)

    def resume(self) -> None:
        if self.on_air is OnAir.PAUSED:
            self._set(OnAir.LIVE)
            self._say(ScreenKind.RESUMED)

    async def run(self) -> None:
        """Share whenever this member is the presenter, until cancelled. Raises ScreenError if the source fails."""
        session = self._session
        try:
            async with self._source:
                while not session.over:
                    await session.until(lambda: session.may_show or session.over)
                    if session.over:
                        return
                    self._wanted = self._restart = True
                    if self.on_air is OnAir.OFF:
                        self._set(OnAir.LIVE)
                    await self._share()
        finally:
            if self.on_air is not OnAir.OFF and session.may_show:
                self._say(ScreenKind.STOPPED)
            self._set(OnAir.OFF)

    async def _share(self) -> None:
        """Until the right or the link is gone."""
        session = self._session
        last = 0.0
        while session.may_show:
            await self._something()
            if self.on_air is OnAir.PAUSED or not session.may_show:
                continue
            if session.screen_backlog > MAX_BACKLOG:
                self.skipped += 1
                self._encoder.slower(trio.current_time())
                await session.until(lambda: session.screen_backlog <= MAX_BACKLOG // 2 or not session.may_show)
                continue
            await trio.sleep_until(last + FRAME_EVERY)
            last = trio.current_time()
            try:
                await self._frame()
            except EndpointError:
                self._broken = True  # the encoder is ahead of the viewers
                return  # the right, the link or the session ended in between
        if session.state.presenter != session.me:
            self._set(OnAir.OFF)

    async def _something(self) -> None:
        """Wait until something was drawn, somebody lacks the screen, or the state has changed."""
        self._wake = trio.Event()
        if self.on_air is OnAir.PAUSED:
            await self._wake.wait()
            return
        if (self._wanted and trio.current_time() >= self._snapshot_at) or self._encoder.owed:
            await trio.lowlevel.checkpoint()
            return
        async with trio.open_nursery() as nursery:

            async def first(wait: Callable[[], object]) -> None:
                await wait()  # type: ignore[misc]  # an async function
                nursery.cancel_scope.cancel()

            nursery.start_soon(first, self._source.wait)
            nursery.start_soon(first, self._wake.wait)
            if self._wanted:
                nursery.start_soon(first, lambda: trio.sleep_until(self._snapshot_at))
            if (due := self._encoder.due) is not None:
                nursery.start_soon(first, lambda: trio.sleep_until(due))

    async def _frame(self) -> None:
        """One look at the source: an update for those who are level, then a snapshot if somebody lacks the screen."""
        picture, damage = self._source.grab()
        if self.picture is None or self._broken or picture.shape != self._shape:
            if self.picture is not None:
                self._show(ScreenKind.RESIZED)
            self.picture, self._shape, self._broken = picture, picture.shape, False
            await self._snapshot(picture)
            return
        self.picture = picture
        update = await self._encoded(picture, damage)
        if update is not None:
            self._show(ScreenKind.UPDATE, update)
        if self._wanted and trio.current_time() >= self._snapshot_at:
            await self._snapshot(None)

    async def _encoded(self, picture: Picture, damage: list[Rect] | None) -> bytes | None:
        encode = partial(self._encoder.update, picture, damage, restart=self._restart, now=trio.current_time())
        if damage is not None and sum(rect.area for rect in damage) < LARGE and self._encoder.due is None:
            return encode()
        return await trio.to_thread.run_sync(encode)

    async def _snapshot(self, picture: Picture | None) -> None:
        """The whole screen; `None`: the picture that level viewers have."""
        snapshot = await trio.to_thread.run_sync(self._encoder.snapshot, picture)
        self._restart = True
        if self.on_air is not OnAir.LIVE:
            return
        self._session.show_whole(snapshot)
        self._wanted = False
        self.snapshots += 1
        self.bytes += len(snapshot)
        self._snapshot_at = trio.current_time() + min(LONGEST_PACE, len(snapshot) / SNAPSHOT_PACE)
        self._changed()

    def _show(self, kind: ScreenKind, update: bytes = b"") -> None:
        if self.on_air is not OnAir.LIVE:
            # paused while a thread was encoding: the viewers miss this update, so they begin anew after the pause
            self._broken = True
            return
        self._session.show(kind, update, restart=self._restart and kind is ScreenKind.UPDATE)
        if kind is ScreenKind.UPDATE:
            self._restart = False
            self.frames += 1
            self.bytes += len(update)
            self._changed()

    def _say(self, kind: ScreenKind) -> None:
        if self._session.may_show:
            self._session.show(kind)

    def _set(self, on_air: OnAir) -> None:
        if on_air is not self.on_air:
            self.on_air = on_air
            self._wake.set()
            self._changed()

    def _heard(self, event: Event) -> None:
        if isinstance(event, SnapshotWanted):
            self._wanted = True
            self._wake.set()
        elif isinstance(event, PresenterChanged | LinkChanged):
            self._wake.set()
