"""Watching: from authentic screen messages to a framebuffer that equals the presenter's, pixel for pixel.

    PresenterChanged, Joined ──▶ want ──▶ snapshot ──▶ LIVE ──updates──▶ LIVE
                                  ▲                     │ a gap, an update that cannot be drawn, a new link
                                  └─────────────────────┘

Messages are drawn as they arrive, synchronously, so what `picture` shows is what has arrived.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

import structlog
import trio

from endpoint.events import Event, Joined, LinkChanged, PointerMoved, PresenterChanged, ScreenGap, ScreenMessage, SessionEnded
from endpoint.hands import Pointer, Shape
from endpoint.messages import ScreenKind
from endpoint.screen.decoder import Decoder
from endpoint.screen.picture import Picture, Rect, ScreenError
from endpoint.session import Session
from wire.ids import EVERYONE, ParticipantId

log = structlog.get_logger()

ASK_AGAIN: Final = 3.0
"""Seconds without the snapshot that was asked for."""
MAX_SHAPES: Final = 64
"""Shapes of the pointer that are remembered."""


class Showing(Enum):
    """What a viewer tells its person."""

    NOBODY = "nobody presents"
    WAITING = "waiting for the presenter's screen"
    LIVE = "live"
    PAUSED = "paused by the presenter"
    ENDED = "ended"


class Watcher:
    """One member's view of the screen. `drawn` is called with the picture and the rectangles that changed."""

    def __init__(
        self,
        session: Session,
        drawn: Callable[[Picture, Sequence[Rect]], None] = lambda picture, rects: None,
        pointed: Callable[[], None] = lambda: None,
    ) -> None:
        self.showing = Showing.NOBODY
        self.frames = 0
        self.first_whole_at: float | None = None  # trio's clock
        self.shown = -1  # the last channel-5 counter that `picture` shows
        self.pointer: Pointer | None = None  # the presenter's, the newest
        self.shape: Shape | None = None  # and how it looks, as far as we know
        self._shapes: dict[bytes, Shape] = {}
        self.refused = 0  # messages that could not be drawn
        self._session = session
        self._drawn = drawn
        self._pointed = pointed
        self._decoder = Decoder()
        self._presenter: ParticipantId = EVERYONE
        self._asked_at: float | None = None
        session.listen(self._heard)
        if session.member.joined:
            self._follow(session.state.presenter)

    def also(self, drawn: Callable[[Picture, Sequence[Rect]], None], pointed: Callable[[], None]) -> None:
        """Tell these too."""
        first, then = self._drawn, self._pointed

        def both(picture: Picture, rects: Sequence[Rect]) -> None:
            first(picture, rects)
            drawn(picture, rects)

        def each() -> None:
            then()
            pointed()

        self._drawn, self._pointed = both, each

    @property
    def picture(self) -> Picture:
        """The framebuffer, read-only. Raises ScreenError `no-snapshot` before the first snapshot."""
        return self._decoder.picture

    async def run(self) -> None:
        """Ask again for what does not come, until cancelled."""
        while True:
            await trio.sleep(1.0)
            if self._asked_at is not None and trio.current_time() - self._asked_at >= ASK_AGAIN:
                self._want()

    def _follow(self, presenter: ParticipantId) -> None:
        self._presenter = presenter
        self._asked_at = None
        self.shown, self.pointer, self.shape = -1, None, None
        self._shapes.clear()
        if presenter in (EVERYONE, self._session.me):
            self.showing = Showing.NOBODY
        else:
            self.showing = Showing.WAITING
            self._want()

    def _want(self) -> None:
        self._asked_at = trio.current_time()
        self._session.want_screen()

    def _heard(self, event: Event) -> None:
        match event:
            case Joined():
                self._follow(self._session.state.presenter)
            case PresenterChanged():
                self._follow(event.participant)
            case ScreenMessage() if event.participant == self._presenter:
                self._draw(event)
            case PointerMoved() if event.participant == self._presenter:
                self._point(event.pointer)
            case ScreenGap() if event.participant == self._presenter and self._asked_at is None:
                self._want()
            case LinkChanged() if event.node and self._presenter not in (EVERYONE, self._session.me) and self._session.member.joined:
                self._want()
            case SessionEnded():
                self.showing = Showing.ENDED
                self._asked_at = None
            case _:
                pass

    def _point(self, pointer: Pointer) -> None:
        if pointer.pixels is not None:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            self._shapes[pointer.shape] = pointer.pixels
        self.pointer, self.shape = pointer, self._shapes.get(pointer.shape)
        self._pointed()

    def _draw(self, message: ScreenMessage) -> None:
        try:
            if message.snapshot and message.content == bytes((ScreenKind.PAUSED,)):  # in the place of a picture that nobody shows now
                self._decoder.forget()
                self._asked_at = None
                self.showing = Showing.PAUSED
                rects = []
            elif message.snapshot:
                self._decoder.load(message.content)
                height, width = self._decoder.picture.shape[:2]
                rects = [Rect(0, 0, width, height)]
                self._asked_at = None
                self.first_whole_at = self.first_whole_at or trio.current_time()
                self.showing = Showing.LIVE
            else:
                rects = self._update(message)
        except ScreenError as error:
            self.refused += 1
            log.warning("screen-refused", name=error.name, participant=message.participant)
            if self._asked_at is None:
                self._want()
            return
        self.shown = message.counter
        if rects:
            self.frames += 1
            self._drawn(self._decoder.picture, rects)

    def _update(self, message: ScreenMessage) -> list[Rect]:
        kind = message.content[0] if message.content else -1
        if kind == ScreenKind.UPDATE:
            self.showing = Showing.LIVE
            return self._decoder.apply(message.content[1:], restart=message.restart)
        if kind == ScreenKind.PAUSED:
            self.showing = Showing.PAUSED
        elif kind == ScreenKind.RESUMED:
            self.showing = Showing.LIVE if self._decoder.level and self._asked_at is None else Showing.WAITING
        elif kind == ScreenKind.STOPPED:
            self.showing = Showing.WAITING
        elif kind == ScreenKind.RESIZED:
            self.showing = Showing.WAITING
            if self._asked_at is None:
                self._want()
        else:
            raise ScreenError("bad-update", "A screen message of an unknown kind; update this program.")
        return []
