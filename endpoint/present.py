"""Presenting: from a source of pictures to sealed screen messages. Runs when the log names this member as the presenter.

    source.wait ─▶ grab ─▶ encoder.update ─▶ session.show        a frame leaves as soon as something was drawn
    a relay says `want` ─▶ the picture that level viewers have, as a snapshot; the next update restarts the compression for all

When the network takes less than is drawn, frames are skipped and never queued: nothing is grabbed while more waits than the link takes in a
quarter of a second (`endpoint.pace`), and the encoder hears the link's rate, to which it fits film and the refining of it.
Sharing is an explicit act: `start`. Being named presenter starts nothing. Pausing drops what was not sent yet, sends one last word, and then
nothing of the screen until `resume`; `stop` ends the share, as another presenter does, and only `start` begins another one. A new link says
the last word again, since the old one may have died with it; and who wants the screen meanwhile hears it, one byte in the place of a snapshot.

The pointer travels beside the picture: a packet when it has moved, a whole one with its shape when it rests.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from enum import Enum
from functools import partial
from typing import Final

import structlog
import trio

from endpoint.errors import EndpointError
from endpoint.events import Event, LinkChanged, PresenterChanged, Removed, SessionEnded, SnapshotWanted
from endpoint.messages import ScreenKind
from endpoint.pace import Pace
from endpoint.screen.encoder import Encoder
from endpoint.screen.picture import Picture, Rect, ScreenError, bare_screen_errors
from endpoint.screen.source import PointerSource, Source
from endpoint.session import Session

log = structlog.get_logger()

FRAME_EVERY: Final = 1 / 60
"""Seconds between two frames at least; the first one after a pause leaves at once."""
LARGE: Final = 60_000
"""Damaged pixels from which on a frame is encoded in a thread: smaller ones cost less than the way there and back."""
SNAPSHOT_PACE: Final = 2 << 20
"""Bytes of snapshots a second: one of a text screen follows the other at once, one of a photo after two seconds at most."""
LONGEST_PACE: Final = 2.0
STALE: Final = 2.0
"""Seconds after which hands on a screen that has changed in between do not count."""
REST: Final = 0.3
"""Seconds without motion after which a pointer rests."""
REST_FOR: Final = 1.0
HEAR_FOR: Final = 0.02
"""Seconds: so often, and so long, a source is heard while nothing is shared."""
WORD_EVERY: Final = 0.25
"""Seconds between two answers to those who want a screen that is not sent."""


class OnAir(Enum):
    OFF = "off"
    LIVE = "on air"
    PAUSED = "paused"


def _log_trouble(trouble: ScreenError) -> None:
    log.warning(trouble.name, sentence=trouble.sentence)


class Presenter:
    """Shares one source in one session. `on_air` says what is true on the wire; `frames` and `bytes` count what left.

    report: called once when the whole screen cannot be sent (ScreenError `screen-too-large`), and again only after it could be in between.
    Nothing ends because of that: who is level goes on, and it is tried again.
    """

    def __init__(
        self,
        session: Session,
        source: Source,
        changed: Callable[[], None] = lambda: None,
        *,
        pointer: PointerSource | None = None,
        started: bool = True,
        report: Callable[[ScreenError], None] = _log_trouble,
    ) -> None:
        self.on_air = OnAir.OFF
        self.started = started  # the presenter's person has said so
        self.listeners: list[Callable[[], None]] = []  # called when `on_air` has changed
        self.frames = 0
        self.bytes = 0
        self.snapshots = 0
        self.skipped = 0  # frames that were drawn and never grabbed, because the network was behind
        self.picture: Picture | None = None  # what the viewers have or are about to have
        self._session = session
        self._source = source
        self._pointer = pointer
        self._changed = changed
        self._report = report
        self._trouble = False  # reported
        self._sent: deque[tuple[int, float]] = deque()  # channel-5 counters and when they were sealed: those of the last seconds
        self._point_again = True
        self._encoder = Encoder()
        self._pace = Pace()
        self._wanted = True
        self._restart = True
        self._wake = trio.Event()
        self._turned = trio.Event()  # set, and replaced, when `on_air` has changed or the share was started
        self._shape: tuple[int, ...] = ()
        self._broken = False  # level viewers cannot go on from what they have
        self._word: ScreenKind | None = None  # the last one, while nothing of the screen is sent
        self._snapshot_at = 0.0
        session.listen(self._heard)

    def pause(self) -> None:
        """Not one more screen packet leaves after this call returns, until `resume`."""
        if self.on_air is OnAir.LIVE:
            if self._session.drop_screen():
                self._broken = True  # viewers lack what was dropped, so they want a snapshot: the relay has the word alone for them
                if self._session.may_show:
                    self._session.show_whole(bytes((ScreenKind.PAUSED,)))
            self._fall_silent(ScreenKind.PAUSED, OnAir.PAUSED)

    def resume(self) -> None:
        if self.on_air is OnAir.PAUSED:
            self._word = None
            self._set(OnAir.LIVE)
            self._say(ScreenKind.RESUMED)

    def start(self) -> None:
        """Share from now on, as soon as this member presents."""
        self.started = True
        self._wake.set()
        self._turn()

    def stop(self) -> None:
        """The share ends; not one more screen packet leaves after the last word, until `start`."""
        self.started = False
        if self.on_air is not OnAir.OFF:
            self._session.drop_screen()
            self._broken = True
            self._fall_silent(ScreenKind.STOPPED, OnAir.OFF)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; it is asked again whenever `on_air` has changed, and after `start`."""
        while not condition():
            await self._turned.wait()

    def _turn(self) -> None:
        self._turned.set()
        self._turned = trio.Event()

    def stale(self, shown: int, now: float) -> bool:
        """Whether who saw the screen up to this channel-5 counter lacks something that was sent more than `STALE` seconds ago."""
        return next((now - at > STALE for counter, at in self._sent if counter > shown), False)

    async def run(self) -> None:
        """Share whenever this member is the presenter, until cancelled. Raises ScreenError if the source fails: the share is over then.

        It may be run again: that waits for another `start`.
        """
        session = self._session
        try:
            with bare_screen_errors():
                async with self._source, AsyncExitStack() as stack, trio.open_nursery() as nursery:
                    if self._pointer is not None:
                        nursery.start_soon(self._share_pointer, await stack.enter_async_context(self._pointer))
                    while not session.over:
                        await self._may_begin()
                        if session.over:
                            break
                        self._wanted = self._restart = True
                        if self.on_air is OnAir.OFF:
                            self._word = None
                            self._set(OnAir.LIVE)
                        await self._share()
                    nursery.cancel_scope.cancel()
        except ScreenError:
            self.started = False
            raise
        finally:
            if self.on_air is not OnAir.OFF:
                self._fall_silent(ScreenKind.STOPPED, OnAir.OFF)

    async def _may_begin(self) -> None:
        """Until this member presents, has a link, and its person wants to share; or all is over."""
        session = self._session
        while not (session.over or (session.may_show and self.started)):
            self._wake = trio.Event()
            if session.may_show:
                await self._rest(self._wake.wait)
            else:
                await self._rest(lambda: session.until(lambda: session.may_show or session.over))

    async def _rest(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait, for a second at most. What the source has to tell meanwhile is heard: else it would gather, and its end be news hours later."""
        with trio.move_on_after(REST_FOR):
            await wait()
            return
        with trio.move_on_after(HEAR_FOR):
            await self._source.wait()

    async def _share_pointer(self, pointer: PointerSource) -> None:
        """Where the pointer is, while the picture is shared."""
        moving = True
        while True:
            if moving and not self._point_again:
                with trio.move_on_after(REST) as patience:
                    await pointer.wait()
                moving = not patience.cancelled_caught
                whole = again = not moving
            else:
                with trio.move_on_after(REST):  # a whole one may be wanted meanwhile
                    await pointer.wait()
                    moving = True
                whole, again = False, self._point_again
            if (moving or again) and self.on_air is OnAir.LIVE and self._session.may_show:
                self._session.point(pointer.look(whole=whole))
                self._point_again = False
            await trio.sleep(FRAME_EVERY)

    async def _share(self) -> None:
        """Until the right or the link is gone, or the person stops."""
        session = self._session
        last = 0.0
        while session.may_show and self.started and self.on_air is not OnAir.OFF:  # it may have been stopped and started again meanwhile
            await self._something()
            if self.on_air is not OnAir.LIVE or not session.may_show:
                continue
            if session.screen_backlog > self._pace.backlog:
                self.skipped += 1
                await self._fall_behind()
                continue
            await trio.sleep_until(last + FRAME_EVERY)
            last = trio.current_time()
            try:
                await self._frame()
            except EndpointError:
                self._broken = True  # the encoder is ahead of the viewers
                return  # the right, the link or the session ended in between

    async def _fall_behind(self) -> None:
        """Until half of what waits has left: the one time at which the link says how fast it is."""
        session, pace, began = self._session, self._pace, trio.current_time()
        before, enough = session.bytes_sent, min(session.screen_backlog, pace.backlog) // 2
        await session.until(lambda: session.screen_backlog <= enough or not session.may_show)
        now = trio.current_time()
        if pace is self._pace and session.may_show and not self._broken:  # what a pause or another link has dropped was not sent
            pace.measured(session.bytes_sent - before, now - began, now)

    async def _something(self) -> None:
        """Wait until something was drawn, somebody lacks the screen, or the state has changed."""
        self._wake = trio.Event()
        if self.on_air is OnAir.PAUSED:
            await self._rest(self._wake.wait)
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
        if self._broken and self._trouble and trio.current_time() < self._snapshot_at:
            return  # nobody is level, and the whole was too large a moment ago
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
        self._pace.tick(trio.current_time(), self._session.bytes_sent, self._session.screen_backlog)
        self._encoder.rate = self._pace.rate
        encode = partial(self._encoder.update, picture, damage, restart=self._restart, now=trio.current_time())
        if damage is not None and sum(rect.area for rect in damage) < LARGE and self._encoder.due is None:
            return encode()
        return await trio.to_thread.run_sync(encode)

    async def _snapshot(self, picture: Picture | None) -> None:
        """The whole screen; `None`: the picture that level viewers have."""
        try:
            snapshot = await trio.to_thread.run_sync(self._encoder.snapshot, picture)
        except ScreenError as error:
            self._broken = self._broken or picture is not None  # who is level stays so
            self._snapshot_at = trio.current_time() + LONGEST_PACE
            if not self._trouble:
                self._trouble = True
                self._report(error)
            return
        self._restart, self._trouble = True, False
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
        self._note_sent()
        if kind is ScreenKind.UPDATE:
            self._restart = False
            self.frames += 1
            self.bytes += len(update)
            self._changed()

    def _note_sent(self) -> None:
        now = trio.current_time()
        self._sent.append((self._session.screen_counter, now))
        while len(self._sent) > 1 and now - self._sent[1][1] > STALE:  # the newest of those that are old says enough
            self._sent.popleft()

    def _say(self, kind: ScreenKind) -> None:
        if self._session.may_show:
            self._session.show(kind)
            self._note_sent()

    def _fall_silent(self, word: ScreenKind, on_air: OnAir) -> None:
        """Nothing of the screen leaves after this word."""
        self._word = word
        self._say(word)
        self._set(on_air)

    def _answer(self) -> None:
        """Who wants a screen that is not sent hears why."""
        now = trio.current_time()
        if self._word is not None and self._session.may_show and now >= self._snapshot_at:
            self._session.show_whole(bytes((self._word,)))
            self._snapshot_at = now + WORD_EVERY

    def _set(self, on_air: OnAir) -> None:
        if on_air is not self.on_air:
            self.on_air = on_air
            self._wake.set()
            self._changed()
            self._turn()
            for listener in self.listeners:
                listener()

    def _heard(self, event: Event) -> None:
        if isinstance(event, SnapshotWanted):
            self._wanted = self._point_again = True
            self._wake.set()
            self._answer()
        elif isinstance(event, PresenterChanged | LinkChanged | SessionEnded | Removed):
            if isinstance(event, LinkChanged):
                self._pace = Pace(self._pace)
                if self._word is not None:  # the link that is gone may have died with it
                    self._say(self._word)
            elif self.on_air is not OnAir.OFF and self._session.state.presenter != self._session.me:
                self.started, self._word = False, None  # to share again is another act
                self._set(OnAir.OFF)
            self._wake.set()
