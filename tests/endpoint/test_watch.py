"""A viewer whose presenter asks for much work (row G2): its own loop goes on, what waits is bounded, and a snapshot brings it back."""

import threading
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import trio

from endpoint.events import PresenterChanged, ScreenMessage, SessionEnded
from endpoint.messages import ScreenKind
from endpoint.screen.decoder import Decoder
from endpoint.screen.encoder import Encoder
from endpoint.screen.layout import Copy, Exact, Update, pack_update
from endpoint.screen.picture import Picture, Rect, blank
from endpoint.session import Session
from endpoint.watch import LIGHT, MAX_WAITING, Showing, Watcher
from wire.ids import ParticipantId

ANA, BEN, ME = ParticipantId(1), ParticipantId(2), ParticipantId(3)
SIZE = (400, 300)
HEAVY = pack_update(Update(copies=(Copy(0, 0, Rect(0, 1, 400, 299)),)))
LITTLE = pack_update(Update(copies=(Copy(0, 0, Rect(0, 1, 20, 20)),)))


def screen(seed: int) -> Picture:
    picture = blank(*SIZE)
    picture[:, :, :3] = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3))
    return picture


class Watched:
    """A watcher of Ana's screen; a thread that draws a heavy update waits for `gate`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate, self.threads, self.wants, self.drawn = threading.Event(), set[int](), 0, trio.Event()
        genuine = Decoder.apply

        def apply(decoder: Decoder, update: bytes, *, restart: bool) -> list[Rect]:
            if update == HEAVY:
                self.threads.add(threading.get_ident())
                assert self.gate.wait(60)
            return genuine(decoder, update, restart=restart)

        def want() -> None:
            self.wants += 1

        monkeypatch.setattr(Decoder, "apply", apply)
        state = SimpleNamespace(presenter=ANA)
        session = SimpleNamespace(state=state, me=ME, member=SimpleNamespace(joined=True), listen=lambda heard: None, want_screen=want)
        self.watcher = Watcher(cast("Session", session), lambda picture, rects: self.drawn.set())
        self.counter = 0

    def snapshot(self, picture: Picture) -> None:
        self.watcher._heard(ScreenMessage(ANA, True, Encoder().snapshot(picture), False, self.counter))

    def word(self, kind: ScreenKind) -> None:
        """In the place of a snapshot."""
        self.watcher._heard(ScreenMessage(ANA, True, bytes((kind,)), True, self.counter))

    def update(self, update: bytes, *, restart: bool = False, kind: ScreenKind = ScreenKind.UPDATE, of: ParticipantId = ANA) -> None:
        self.counter += 1
        self.watcher._heard(ScreenMessage(of, False, bytes((kind,)) + update, restart, self.counter))

    async def until_shown(self, counter: int) -> None:
        with trio.fail_after(60):
            while self.watcher.shown < counter:
                self.drawn = trio.Event()
                await self.drawn.wait()


def moved(picture: Picture, *heights: int) -> Picture:
    """What copies one row down, of so many rows, make of it."""
    for height in heights:
        width = SIZE[0] if height == 299 else height
        picture[1 : 1 + height, :width] = picture[:height, :width].copy()
    return picture


async def test_G02_much_work_is_done_beside_the_loop_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watcher = watched.watcher
    assert SIZE[0] * SIZE[1] > LIGHT
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        watched.snapshot(screen(1))
        await watched.until_shown(0)
        watched.update(LITTLE, restart=True)
        assert watcher.shown == 1, "little work is done at once"
        watched.update(HEAVY)
        watched.update(LITTLE)
        watched.update(b"", kind=ScreenKind.PAUSED)
        await trio.lowlevel.checkpoint()  # the loop goes on; the thread stands
        assert (watcher.shown, watcher.showing) == (1, Showing.LIVE)
        watched.gate.set()
        await watched.until_shown(3)
        with trio.fail_after(60):
            while watcher.shown < 4:  # the pause draws nothing
                await trio.lowlevel.checkpoint()
        assert watcher.showing is Showing.PAUSED
        assert np.array_equal(watcher.picture, moved(screen(1), 20, 299, 20))
        assert threading.get_ident() not in watched.threads
        assert (watcher.refused, watcher.dropped) == (0, 0)
        nursery.cancel_scope.cancel()


async def test_G02_who_falls_behind_drops_what_waits_and_asks_for_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watcher = watched.watcher
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        watched.snapshot(screen(1))
        await watched.until_shown(0)
        wants = watched.wants
        watched.update(HEAVY, restart=True)
        await trio.testing.wait_all_tasks_blocked()  # the thread has it
        for _ in range(MAX_WAITING):
            watched.update(HEAVY)
        assert (watched.wants, watcher.dropped) == (wants, 0)
        for _ in range(5):
            watched.update(LITTLE)
        assert (watched.wants, watcher.dropped) == (wants + 1, MAX_WAITING + 5)
        watched.gate.set()
        await watched.until_shown(1)
        watched.update(LITTLE)
        assert watcher.shown == 1, "nothing is drawn on what lacks an update"
        watched.snapshot(screen(2))
        await watched.until_shown(watched.counter)
        watched.update(LITTLE, restart=True)
        assert np.array_equal(watcher.picture, moved(screen(2), 20))
        assert watcher.refused == 0
        nursery.cancel_scope.cancel()


async def test_G02_what_waits_too_long_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watcher = watched.watcher
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        watched.snapshot(screen(1))
        await watched.until_shown(0)
        watched.update(HEAVY, restart=True)
        await trio.testing.wait_all_tasks_blocked()
        watched.update(LITTLE)
        monkeypatch.setattr("endpoint.watch.MAX_AGE", 0.0)
        wants = watched.wants
        await trio.sleep(0.001)
        watched.update(LITTLE)
        assert (watched.wants, watcher.dropped, watcher._behind) == (wants + 1, 2, True)
        watched.gate.set()
        nursery.cancel_scope.cancel()


async def test_G02_what_one_presenter_sends_is_never_drawn_on_the_picture_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates of a share that has just begun may come before its first snapshot: relays bring snapshots to who asked alone."""
    watched = Watched(monkeypatch)
    watcher = watched.watcher
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        watched.snapshot(screen(1))
        await watched.until_shown(0)
        frames = watcher.frames
        watcher._heard(PresenterChanged(BEN, "Ben"))
        watched.update(LITTLE, restart=True, of=BEN)
        assert (watcher.showing, watcher.frames, watcher.refused) == (Showing.WAITING, frames, 1)
        nursery.cancel_scope.cancel()


async def test_G09_a_word_in_the_place_of_a_snapshot_tells_why_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watcher = watched.watcher
    seen: list[Showing] = []

    def see() -> Showing:
        seen.append(watcher.showing)
        return watcher.showing

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        watched.word(ScreenKind.PAUSED)  # who comes during a pause
        assert see() is Showing.PAUSED
        wants = watched.wants
        watched.update(b"", kind=ScreenKind.RESUMED)
        assert (see(), watched.wants) == (Showing.WAITING, wants + 1)
        watched.drawn = trio.Event()
        watched.snapshot(screen(1))
        with trio.fail_after(60):
            await watched.drawn.wait()
        assert see() is Showing.LIVE
        watched.word(ScreenKind.STOPPED)  # who has missed the end of the share
        assert see() is Showing.WAITING
        watched.update(LITTLE, restart=True)
        assert (see(), watcher.refused) == (Showing.WAITING, 1)
        nursery.cancel_scope.cancel()


async def test_G02_many_small_rectangles_are_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    rects = [Rect(x, 0, 1, 1) for x in range(400)]
    many = Update(copies=tuple(Copy(0, 0, rect) for rect in rects[:60])), Update(still=Exact(tuple(rects), b"anything"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watched.watcher.run)
        watched.snapshot(screen(1))
        await watched.until_shown(0)
        for update in many:
            assert watched.watcher._decoder.work(pack_update(update)) > LIGHT
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "events",
    [[PresenterChanged(BEN, "Ben")], [PresenterChanged(BEN, "Ben"), PresenterChanged(ANA, "Ana")], [SessionEnded()]],
    ids=["another-presenter", "another-and-back", "the-end"],
)
async def test_G02_what_a_thread_still_draws_does_not_tell_who_presents(
    events: list[PresenterChanged | SessionEnded], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    watcher = watched.watcher
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        watched.snapshot(screen(1))
        await watched.until_shown(0)
        watched.update(HEAVY, restart=True)
        await trio.testing.wait_all_tasks_blocked()
        for event in events:
            watcher._heard(event)
        showing = watcher.showing
        assert showing is not Showing.LIVE
        watched.gate.set()
        with trio.fail_after(60):
            while watcher._busy:
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert watcher.showing is showing
        nursery.cancel_scope.cancel()
