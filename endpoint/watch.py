"""Watching: from authentic screen messages to a framebuffer that equals the presenter's, pixel for pixel.

    PresenterChanged, Joined ──▶ want ──▶ snapshot ──▶ LIVE ──updates──▶ LIVE
                                  ▲                     │ a gap, an update that cannot be drawn, a new link
                                  └─────────────────────┘

What is little work is drawn as it arrives. The rest is drawn in a worker thread, one message at a time and in order, so that keys, chat
and heartbeats go on whatever a presenter asks for. What arrives meanwhile waits; a snapshot takes the place of all that waits, and
when too much does, or too long, all of it is dropped and a snapshot is asked for. `picture` may change while a thread draws; `drawn` is
called when it is done, always in trio's thread. Each presenter has a decoder of its own: what one has sent is never drawn on another's picture.
"""

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

import structlog
import trio

from endpoint.events import Event, Joined, LinkChanged, PointerMoved, PresenterChanged, ScreenGap, ScreenMessage, SessionEnded
from endpoint.hands import Pointer, Shape
from endpoint.messages import ScreenKind
from endpoint.screen.decoder import Decoder
from endpoint.screen.layout import MAX_SNAPSHOT_BYTES, MAX_UPDATE_BYTES, SNAPSHOT_HEADER
from endpoint.screen.picture import Picture, Rect, ScreenError, gathered
from endpoint.session import Session
from wire.ids import EVERYONE, ParticipantId

log = structlog.get_logger()

ASK_AGAIN: Final = 3.0
"""Seconds without the snapshot that was asked for."""
MAX_SHAPES: Final = 64
"""Shapes of the pointer that are remembered."""
MAX_WAITING: Final = 120
"""Messages that wait for the thread: two seconds of a lively screen."""
MAX_WAITING_BYTES: Final = MAX_SNAPSHOT_BYTES + 2 * MAX_UPDATE_BYTES
MAX_AGE: Final = 3.0
"""Seconds that one may wait: longer than the largest snapshot is drawn on a slow machine."""
LIGHT: Final = 60_000
"""Pixels of a message that is drawn without a thread: less work than some milliseconds."""
LIGHT_BYTES: Final = 4096
_WORDS: Final = (bytes((ScreenKind.PAUSED,)), bytes((ScreenKind.STOPPED,)))


class Showing(Enum):
    """What a viewer tells its person."""

    NOBODY = "nobody presents"
    WAITING = "waiting for the presenter's screen"
    LIVE = "live"
    PAUSED = "paused by the presenter"
    AWAY = "the presenter is away"  # the picture is from before its line was lost
    RECONNECTING = "reconnecting"  # or ours was
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
        self.dropped = 0  # messages that waited, and were overtaken by a snapshot or were too many
        self._session = session
        self._drawn = drawn
        self._pointed = pointed
        self._decoder = Decoder()
        self._presenter: ParticipantId = EVERYONE
        self._asked_at: float | None = None
        self._waiting: deque[tuple[float, ScreenMessage]] = deque()  # since when
        self._news = trio.Event()  # set when something waits
        self._busy = False  # a thread draws
        self._behind = False  # something was dropped: only a snapshot helps
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
        """The framebuffer, read-only; a thread may be drawing on it. Raises ScreenError `no-snapshot` before the first snapshot."""
        return self._decoder.picture

    async def run(self) -> None:
        """Draw what is much work, and ask again for what does not come, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work)
            while True:
                await trio.sleep(1.0)
                if self._asked_at is not None and trio.current_time() - self._asked_at >= ASK_AGAIN:
                    self._want()

    async def _work(self) -> None:
        """Draw what waits, each message in a thread. To cancel this waits for the thread: nobody else may have the decoder meanwhile."""
        while True:
            while not self._waiting:
                self._news = trio.Event()
                await self._news.wait()
            decoder, (_, message) = self._decoder, self._waiting.popleft()
            self._busy = True
            try:
                drawn = await trio.to_thread.run_sync(_decoded, decoder, message)
            finally:
                self._busy = False
            if decoder is self._decoder:  # else somebody else presents by now
                self._settle(message, drawn)

    def _follow(self, presenter: ParticipantId) -> None:
        self._presenter, self._decoder = presenter, Decoder()
        self._asked_at = None
        self.shown, self.pointer, self.shape = -1, None, None
        self._waiting.clear()
        self._behind = False
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
                self._take(event)
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

    def _take(self, message: ScreenMessage) -> None:
        """Draw it now if that is little work and nothing is before it; else it waits its turn."""
        if message.snapshot:
            self._asked_at = None  # what goes wrong from here on needs another one
            self._behind = False
            self.dropped += len(self._waiting)
            self._waiting.clear()
        elif self._behind and _is_update(message):
            self.dropped += 1
            return
        if not self._busy and not self._waiting and self._light(message):
            self._settle(message, _decoded(self._decoder, message))
            return
        now = trio.current_time()
        self._waiting.append((now, message))
        size = sum(len(each.content) for _, each in self._waiting)
        if len(self._waiting) > MAX_WAITING or size > MAX_WAITING_BYTES or now - self._waiting[0][0] > MAX_AGE:
            word = [each for each in self._waiting if not each[1].snapshot and not _is_update(each[1])][-1:]  # whether it is a pause, say
            self.dropped += len(self._waiting) - len(word)
            self._waiting = deque(word)
            self._behind = True
            log.info("screen-behind", participant=message.participant)
            if self._asked_at is None:
                self._want()
        self._news.set()

    def _light(self, message: ScreenMessage) -> bool:
        content = message.content
        if message.snapshot:
            if len(content) < SNAPSHOT_HEADER.size:
                return True  # a pause, or nothing that can be read
            _, width, height = SNAPSHOT_HEADER.unpack_from(content)
            return bool(width * height <= LIGHT)
        if not _is_update(message):
            return True
        return len(content) <= LIGHT_BYTES and self._decoder.work(content[1:]) <= LIGHT

    def _settle(self, message: ScreenMessage, drawn: list[Rect] | ScreenError) -> None:
        """It has been drawn, or refused."""
        try:
            if isinstance(drawn, ScreenError):
                raise drawn
            showing = self._meaning(message)
        except ScreenError as error:
            self.refused += 1
            log.warning("screen-refused", name=error.name, participant=message.participant)
            if self._asked_at is None and self.showing is not Showing.ENDED:
                self._want()
            return
        if self.showing is not Showing.ENDED:
            self.showing = showing
        self.shown = message.counter
        if drawn:
            self.frames += 1
            self._drawn(self._decoder.picture, gathered((), drawn))

    def _meaning(self, message: ScreenMessage) -> Showing:
        """What is true after it. Raises ScreenError `bad-update`."""
        kind = message.content[0] if message.content else -1
        if message.snapshot and not _is_word(message):
            self.first_whole_at = self.first_whole_at or trio.current_time()
            return Showing.LIVE
        if kind == ScreenKind.UPDATE:
            return Showing.LIVE
        if kind == ScreenKind.PAUSED:
            return Showing.PAUSED
        if kind == ScreenKind.STOPPED:
            return Showing.WAITING
        if kind == ScreenKind.RESUMED and self._decoder.level and self._asked_at is None:
            return Showing.LIVE
        if kind in (ScreenKind.RESUMED, ScreenKind.RESIZED):
            if self._asked_at is None:
                self._want()
            return Showing.WAITING
        raise ScreenError("bad-update", "A screen message of an unknown kind; update this program.")


def _is_update(message: ScreenMessage) -> bool:
    return not message.snapshot and message.content[:1] == bytes((ScreenKind.UPDATE,))


def _is_word(message: ScreenMessage) -> bool:
    """Whether it says in the place of a picture why there is none."""
    return message.snapshot and message.content in _WORDS


def _decoded(decoder: Decoder, message: ScreenMessage) -> list[Rect] | ScreenError:
    """What a decoder makes of it; in any thread, one at a time."""
    try:
        if _is_word(message):
            decoder.forget()
        elif message.snapshot:
            decoder.load(message.content)
            height, width = decoder.picture.shape[:2]
            return [Rect(0, 0, width, height)]
        elif _is_update(message):
            return decoder.apply(message.content[1:], restart=message.restart)
    except ScreenError as error:
        return error
    return []
