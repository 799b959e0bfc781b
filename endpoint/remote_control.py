"""Remote control: hands of a participant on the presenter's machine. The grant is an entry of the signed log.

    Borrower (who holds the controls)                       Lender (who presents)
    viewer ─▶ do(event) ─▶ session.handle ──channel 4──▶ judged at once ─▶ queue ─▶ touch.act

The lender drops, counts and shows what does not count: of who has no grant (the channel refuses that before), while nothing is live, of who
acts on a screen that is older than `STALE`, while the person at the machine uses its own mouse or keyboard, or more than can be done. A grant
ends with the presenter's share (pause, stop, another presenter) and when its holder leaves; the key of its own takes it back at any moment,
before the log says so. What is held down is let go then, when either link dies, and when its holder has said nothing for `SILENT`.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
import trio

from endpoint.errors import EndpointError
from endpoint.events import ControlChanged, Event, InputReceived, LinkChanged, PresenceChanged, PresenterChanged
from endpoint.hands import MAX_EVENTS, Button, Input, InputEvent, Key, Move
from endpoint.present import OnAir, Presenter
from endpoint.screen.picture import ScreenError, bare_screen_errors
from endpoint.screen.touch import Touch
from endpoint.session import Session
from endpoint.watch import Showing, Watcher
from wire.ids import EVERYONE, ParticipantId

log = structlog.get_logger()

QUIET: Final = 1.0
"""Seconds without local input before remote hands move again."""
SILENT: Final = 3.0
"""Seconds without a word of who holds something down, before it is let go."""
SAY_HELD: Final = 1.0
"""Seconds between two words that something is still held."""
MAX_WAITING: Final = 256
"""Events that wait to be done."""


class Lender:
    """The presenter's side. `dropped` counts what did not count, by reason; `changed` is called when something to be shown has changed."""

    def __init__(self, session: Session, presenter: Presenter, touch: Touch, changed: Callable[[], None] = lambda: None) -> None:
        self.dropped: Counter[str] = Counter()
        self.done = 0
        self._session = session
        self._presenter = presenter
        self._touch = touch
        self._changed = changed
        self._put, self._take = trio.open_memory_channel[InputEvent](MAX_WAITING)
        self._taken_back = False  # by the key; until the next grant
        self._local_at = float("-inf")
        self._heard_at = float("-inf")
        self._ready = False
        self._acting: trio.CancelScope | None = None  # what is being done
        session.listen(self._heard)
        presenter.listeners.append(self._light_changed)

    @property
    def holder(self) -> ParticipantId:
        """Who moves this machine's mouse and keyboard now; 0: its own person alone."""
        mine = self._session.state.presenter == self._session.me and not self._taken_back
        return self._session.state.control if mine else EVERYONE

    def take_back(self) -> None:
        """At once here; the log says it to all."""
        self._taken_back = True
        self._drop_waiting()
        if self._session.state.presenter == self._session.me and self._session.state.control:
            with suppress(EndpointError):  # the session is over, and the grant with it
                self._session.lend(EVERYONE)
        self._changed()

    async def run(self) -> None:
        """Do what counts, until cancelled. Raises ScreenError."""
        try:
            with bare_screen_errors():
                async with self._touch, trio.open_nursery() as nursery:
                    self._ready = True
                    nursery.start_soon(self._act)
                    nursery.start_soon(self._watch_person)
                    nursery.start_soon(self._watch_silence)
        finally:
            self._ready = False

    def judge(self, sender: ParticipantId, hands: Input, now: float) -> str:
        """Why this does not count; "" if it does."""
        if sender != self.holder:
            return "input-of-no-grant"
        if not self._ready or self._presenter.on_air is not OnAir.LIVE:
            return "input-while-not-live"
        if self._presenter.stale(hands.shown, now):
            return "input-for-stale-screen"
        if now - self._local_at < QUIET:
            return "input-during-local"
        if self._put.statistics().current_buffer_used + len(hands.events) > MAX_WAITING:
            return "input-too-much"
        return ""

    def _heard(self, event: Event) -> None:
        match event:
            case InputReceived():
                now = trio.current_time()
                reason = self.judge(event.participant, event.input, now)
                if reason:
                    self.dropped[reason] += 1
                    self._changed()
                    return
                self._heard_at = now
                for item in event.input.events:
                    self._put.send_nowait(item)
            case ControlChanged() | PresenterChanged():
                self._taken_back = False
                self._drop_waiting()
                self._changed()
            case LinkChanged(node=""):
                self._drop_waiting()
            case PresenceChanged() if self._session.state.control in event.away:
                self._drop_waiting()
            case _:
                pass

    def _light_changed(self) -> None:
        if self._presenter.on_air is not OnAir.LIVE and self.holder:
            self.take_back()

    def _drop_waiting(self) -> None:
        """Nothing of before is done any more, and nothing stays down."""
        with suppress(trio.WouldBlock):
            while True:
                self._take.receive_nowait()
                self.dropped["input-too-late"] += 1
        if self._acting is not None:
            self._acting.cancel()
        if self._ready and self._touch.held:
            with suppress(ScreenError):  # the display has gone, and what was held with it
                self._touch.release()

    async def _act(self) -> None:
        async for event in self._take:
            if not self.holder:
                self.dropped["input-too-late"] += 1
                continue
            with trio.CancelScope() as self._acting:
                await self._touch.act(event)
            if self._acting.cancelled_caught:  # a long text, say, in the middle
                self.dropped["input-too-late"] += 1
                self._touch.release()
            else:
                self.done += 1
            self._acting = None

    async def _watch_person(self) -> None:
        while True:
            key = await self._touch.local()
            self._local_at = trio.current_time()
            if self.holder:  # local hands win at once, over what waits and what is being done too
                self._drop_waiting()
            if key and self.holder:
                self.take_back()

    async def _watch_silence(self) -> None:
        while True:
            await trio.sleep(SAY_HELD)
            if self._touch.held and trio.current_time() - self._heard_at >= SILENT:
                log.info("hands-silent", holder=self.holder)
                self._drop_waiting()


class Borrower:
    """The holder's side: what a viewer reports, on its way to the presenter. Motion is thinned: the newest place wins."""

    def __init__(self, session: Session, watcher: Watcher) -> None:
        self._session = session
        self._watcher = watcher
        self._waiting: list[InputEvent] = []
        self._news = trio.Event()
        self.held: set[int] = set()  # keysyms, and buttons as negative numbers
        self.lost = 0  # events that were taken by `do` and never sent

    @property
    def active(self) -> bool:
        """Whether the presenter's mouse and keyboard are ours, and what we see is live."""
        return self._session.state.control == self._session.me and self._watcher.showing is Showing.LIVE

    def do(self, event: InputEvent) -> None:
        """Something that our person did over the picture."""
        if not self.active:
            self._lose()
            return
        if isinstance(event, Move) and self._waiting and isinstance(self._waiting[-1], Move):
            self._waiting[-1] = event
        elif len(self._waiting) >= MAX_WAITING:
            self.lost += 1
        else:
            self._waiting.append(event)
        self._news.set()

    def let_go(self) -> None:
        """Our person's hands are off, its window is gone, say: nothing stays down that nobody would ever let go."""
        self._note_held(self._waiting)
        for what in list(self.held):
            self.do(Key(what, False) if what > 0 else Button(-what, False))

    async def run(self) -> None:
        """Send what comes, until cancelled: at once, then what gathers meanwhile together; and once a second that something is held."""
        while True:
            with trio.move_on_after(SAY_HELD):
                await self._news.wait()
            self._news = trio.Event()
            events, self._waiting = self._waiting[:MAX_EVENTS], self._waiting[MAX_EVENTS:]
            if self._waiting:
                self._news.set()
            if not self.active:
                self.lost += len(events)
                self._lose()
                self.held.clear()
            elif events or self.held:
                self._note_held(events)
                try:
                    self._session.handle(Input(self._watcher.shown, events))
                except EndpointError:
                    self.lost += len(events)
            await trio.sleep(1 / 120)

    def _lose(self) -> None:
        """The grant or the live picture went before it could be sent: nothing of it counts for another one."""
        self.lost += len(self._waiting)
        self._waiting.clear()

    def _note_held(self, events: list[InputEvent]) -> None:
        for event in events:
            if isinstance(event, Key | Button):
                what = event.keysym if isinstance(event, Key) else -event.button
                (self.held.add if event.down else self.held.discard)(what)
