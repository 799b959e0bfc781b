"""The viewer's window and the on-air window on a real X server: exact pixels, hands, and what is clicked."""

import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pygame
import pytest
import trio

from endpoint.cli.panes import picture_age
from endpoint.hands import Button, InputEvent, Key, Move, Text
from endpoint.screen.inbox import HEARD, Inbox
from endpoint.screen.pane import Light, LightPane, WindowViewer
from endpoint.screen.picture import MAX_GATHERED, Rect, blank, bounding
from endpoint.screen.viewer import Caption
from endpoint.screen.window import STATES
from endpoint.screen.x11 import X11Source
from endpoint.screen.x11_touch import X11Touch
from endpoint.screen.x11_windows import Window, Windows
from endpoint.screen.xvfb import xvfb_desktop
from endpoint.watch import Showing
from tests.needs import needs

PATIENCE = 30.0


@pytest.fixture
async def display() -> AsyncIterator[str]:
    needs("Xvfb", package="xvfb")
    async with xvfb_desktop(1000, 700, []) as name:
        yield name


async def eventually(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110  # another process, which tells nobody
            await trio.sleep(0.05)


async def test_G02_the_window_shows_every_pixel_and_reports_hands_while_they_are_lent(display: str, tmp_path: Path) -> None:
    picture = blank(640, 400)
    picture[:, :, :3] = np.random.default_rng(1).integers(0, 256, (400, 640, 3), np.uint8)
    heard: list[InputEvent] = []
    viewer = WindowViewer(tmp_path, heard.append, display=display)
    live = Caption("Meeting", "Ana", "live", "operator-proof")
    async with trio.open_nursery() as nursery, X11Source(display) as screen, X11Touch(display) as touch:
        nursery.start_soon(viewer.run)
        viewer.show(picture, [Rect(0, 0, 640, 400)])
        viewer.caption(live)
        left, top = (1000 - 640) // 2, (700 - 434) // 2

        def shown() -> bool:
            return np.array_equal(screen.grab()[0][top : top + 400, left : left + 640], picture)

        await eventually(shown)
        picture[100:120, 50:90, :3] = 7
        viewer.show(picture, [Rect(50, 100, 40, 20)])
        await eventually(shown)
        await touch.act(Move(left + 20, top + 30))
        viewer.caption(Caption("Meeting", "Ana", "live", "operator-proof", lent=True))
        await trio.sleep(0.3)
        for event in (Move(left + 60, top + 70), Button(1, True), Button(1, False), Text("é")):
            await touch.act(event)
        await eventually(lambda: Text("é") in heard)
        assert Move(60, 70) in heard
        assert heard.index(Button(1, True)) < heard.index(Button(1, False))
        viewer.caption(Caption("Meeting", "Ana", "paused by the presenter", "operator-proof", lent=True))
        await trio.sleep(0.3)
        before = len(heard)
        await touch.act(Text("x"))
        await touch.act(Key(0xFFC9, True))  # F12 saves a picture
        await touch.act(Key(0xFFC9, False))
        await eventually(lambda: len(list(tmp_path.glob("parley-*.png"))) == 1)
        assert len(heard) == before
        nursery.cancel_scope.cancel()
    viewer.close()


async def test_G02_a_picture_larger_than_its_window_by_keyboard(display: str, tmp_path: Path) -> None:
    """Actual size, moved with the arrows, and back."""
    picture = blank(1600, 1200)
    picture[:, :, :3] = np.random.default_rng(2).integers(0, 256, (1200, 1600, 3), np.uint8)
    viewer = WindowViewer(tmp_path, lambda event: None, display=display)
    left, top, width, height = 92, 35, 816, 595  # of what the picture may take in a window of nine tenths of the display
    async with trio.open_nursery() as nursery, X11Source(display) as screen, X11Touch(display) as touch:
        nursery.start_soon(viewer.run)
        viewer.show(picture, [Rect(0, 0, 1600, 1200)])
        viewer.caption(Caption("Meeting", "Ana", "live", "operator-proof"))

        async def press(keysym: int) -> None:
            for down in (True, False):
                await touch.act(Key(keysym, down))

        def windowed(x: int) -> bool:
            return np.array_equal(screen.grab()[0][top : top + height, left : left + width], picture[:height, x : x + width])

        def fitted() -> bool:
            """The word that it is live, at the lower left of a window of that size."""
            word = screen.grab()[0][top + height : top + height + 34, left + 10 : left + 60, 2::-1]
            return bool((word == STATES["live"][1]).all(axis=2).any())

        await eventually(fitted)
        await touch.act(Move(left + 300, top + 300))
        assert not windowed(0)
        await press(ord("1"))
        await eventually(lambda: windowed(0))
        await press(0xFF53)  # right
        await eventually(lambda: windowed(80))
        await press(ord("0"))
        await eventually(lambda: not windowed(80))
        nursery.cancel_scope.cancel()
    viewer.close()
    viewer.show(picture, [Rect(0, 0, 1, 1)])  # one more may come while the session takes its leave


async def test_G02_full_screen_and_back_with_whole_pixels_whatever_the_size(display: str, tmp_path: Path) -> None:
    """With a window manager: F11 there and back, Escape back, another size by the manager's hand; every pixel stays a whole square."""
    needs("openbox", package="openbox")
    picture = blank(160, 100)
    picture[:, :, :3] = np.random.default_rng(3).integers(0, 256, (100, 160, 3), np.uint8)
    viewer = WindowViewer(tmp_path, lambda event: None, display=display)
    manager = await trio.lowlevel.open_process(["openbox"], env={**os.environ, "DISPLAY": display}, stderr=subprocess.DEVNULL)
    try:
        async with trio.open_nursery() as nursery, X11Source(display) as screen, X11Touch(display) as touch:
            windows = Windows(screen._display)

            def window() -> Window | None:
                return next((each for each in windows.all() if each.title.endswith("– Parley")), None)

            def stands() -> Rect:
                """Where the picture's room and bar are, without the manager's frame."""
                found, core = window(), screen._connection.core
                assert found is not None
                at = core.TranslateCoordinates(found.id, screen._display.root, 0, 0).reply()
                size = core.GetGeometry(found.id).reply()
                return Rect(at.dst_x, at.dst_y, size.width, size.height)

            def shows(times: int, room: Rect) -> bool:
                """The whole picture in the middle of it, each pixel as a square of so many."""
                large = picture.repeat(times, axis=0).repeat(times, axis=1)
                height, width = large.shape[:2]
                left, top = room.x + (room.width - width) // 2, room.y + (room.height - height) // 2
                return np.array_equal(screen.grab()[0][top : top + height, left : left + width], large)

            def windowed(times: int) -> bool:
                x, y, width, height = stands()
                return shows(times, Rect(x, y, width, height - 34))

            def focused() -> bool:
                found = window()
                return found is not None and screen._connection.core.GetInputFocus().reply().focus == found.id

            async def press(keysym: int) -> None:
                await eventually(focused)
                for down in (True, False):
                    await touch.act(Key(keysym, down))

            nursery.start_soon(viewer.run)
            viewer.show(picture, [Rect(0, 0, 160, 100)])
            viewer.caption(Caption("Meeting", "Ana", "live", "operator-proof"))
            await eventually(lambda: window() is not None and windowed(2))
            before, whole = stands(), Rect(0, 0, 1000, 700)
            for leave in (0xFFC8, 0xFF1B):  # F11, Escape
                await press(0xFFC8)
                await eventually(lambda: stands() == whole and shows(6, whole))
                await press(ord("1"))
                await eventually(lambda: shows(1, whole))
                await press(ord("0"))
                await eventually(lambda: shows(6, whole))
                await press(leave)
                await eventually(lambda: stands() == before and windowed(2))
            found = window()
            assert found is not None
            screen._connection.core.ConfigureWindow(found.id, 12, [820, 560])
            await eventually(lambda: stands()[2:] == (820, 560) and windowed(5))
            picture[20:40, 30:60, :3] = 9
            viewer.show(picture, [Rect(30, 20, 30, 20)])
            await eventually(lambda: windowed(5))
            nursery.cancel_scope.cancel()
    finally:
        manager.kill()
        await manager.wait()
        viewer.close()


async def test_G02_every_state_is_told_over_the_picture(display: str, tmp_path: Path) -> None:
    picture = blank(640, 400)
    picture[:, :, :3] = 200
    viewer = WindowViewer(tmp_path, lambda event: None, display=display)
    left, top = (1000 - 640) // 2, (700 - 434) // 2
    cards: set[bytes] = set()  # each state has one of its own
    async with trio.open_nursery() as nursery, X11Source(display) as screen:
        nursery.start_soon(viewer.run)
        viewer.show(picture, [Rect(0, 0, 640, 400)])
        for state in [*(showing.value for showing in Showing), Showing.LIVE.value]:
            viewer.caption(Caption("Meeting", "Ana", state, "operator-proof"))
            live, chip = state == Showing.LIVE.value, STATES[state][1]

            def told(live: bool = live, chip: tuple[int, int, int] = chip) -> bool:
                """The word at the lower left in its colour, and a veil over the picture unless it is live."""
                shown = screen.grab()[0][top : top + 434, left : left + 640]
                card = shown[:400].tobytes()
                word = bool((shown[400:, 10:60, 2::-1] == chip).all(axis=2).any())
                if word and live == bool((shown[:400, :, :3] == 200).all()) and (live or card not in cards):
                    cards.add(card)
                    return True
                return False

            await eventually(told)
        nursery.cancel_scope.cancel()
    viewer.close()


async def test_G09_the_light_says_and_asks(display: str) -> None:
    asked: list[str] = []
    pane = LightPane(asked.append, Rect(0, 0, 500, 700), display)
    async with trio.open_nursery() as nursery, X11Source(display) as screen, X11Touch(display) as touch:
        pane.show(Light("on air", "desktop :0", 3, "12 kB/s", ""))
        nursery.start_soon(pane.run)

        def colour() -> tuple[int, ...]:
            return tuple(int(v) for v in screen.grab()[0][14, 513, :3])

        await eventually(lambda: colour() == (58, 60, 222))  # red, beside what is shared
        for event in (Move(512 + 40, 12 + 98), Button(1, True), Button(1, False)):
            await touch.act(event)
        await eventually(lambda: asked == ["pause"])
        pane.show(Light("paused", "desktop :0", 3, "", ""))
        await eventually(lambda: colour() == (60, 178, 236))
        nursery.cancel_scope.cancel()


def test_what_is_said_to_a_slow_window_is_merged_and_never_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.init()
    try:
        inbox = Inbox()
        for turn in range(1000):
            inbox.put({"size": [640, 400], "rects": [[turn % 600, 5, 10, 10]], "pointer": [turn, 0, True]})
        inbox.put({"caption": "new"})
        assert len(pygame.event.get(HEARD)) == 1
        facts = inbox.take()
        assert facts is not None
        assert (facts["size"], facts["pointer"], facts["caption"]) == ([640, 400], [999, 0, True], "new")
        assert len(facts["rects"]) <= MAX_GATHERED
        assert bounding(facts["rects"]) == Rect(0, 5, 609, 10)
        assert inbox.take() == {}
        inbox.put({"pointer": [1, 1, True]})
        assert len(pygame.event.get(HEARD)) == 1
    finally:
        pygame.display.quit()


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", "3", '{"touch": [99]}', '{"touch": 1}', '{"touch": [5, ""]}', "[" * 60_000, "x" * 70_000], ids=range(8)
)
async def test_a_window_that_says_what_nobody_understands_is_closed_and_ends_nothing_else(line: str, tmp_path: Path) -> None:
    program = tmp_path / "babbler.py"
    program.write_text(f"import sys\nprint({line!r}, flush=True)\nsys.stdin.read()\n")
    viewer = WindowViewer(tmp_path)
    viewer._module = "babbler"
    with trio.fail_after(PATIENCE), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        await viewer.run()
    assert viewer.closed.is_set()
    viewer.close()


@pytest.mark.parametrize(
    ("waiting", "own", "others", "said"),
    [
        (0.0, None, [], "not connected"),
        (0.0, 0.02, [], "pictures leave <0.1 s late"),
        (0.0, 0.02, [0.01, 0.4], "slowest picture ~0.3 s old"),
        (1.5, 0.2, [0.2], "slowest picture ~1.7 s old"),
    ],
)
def test_the_light_says_how_old_the_slowest_picture_is(waiting: float, own: float | None, others: list[float], said: str) -> None:
    assert picture_age(waiting, own, others) == said
