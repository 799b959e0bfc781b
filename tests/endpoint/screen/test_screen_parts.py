"""A monitor, a window, a region; and programs that are never seen, whatever they do (row G9)."""

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import trio

from endpoint.screen import x11_hidden
from endpoint.screen.picture import Rect, ScreenError
from endpoint.screen.x11 import Part, X11Source, parse_part
from endpoint.screen.xvfb import xvfb_desktop
from tests.needs import needs

PATIENCE = 30.0
BACK, SECRET, OTHER = 0x2E4A62, 0x00FF00, 0xFF0000


@pytest.fixture
async def display() -> AsyncIterator[str]:
    needs("Xvfb", package="xvfb")
    async with xvfb_desktop(640, 480, []) as name:
        yield name


class Program:
    """A program with windows of one colour."""

    def __init__(self, display: str, name: str, colour: int) -> None:
        import xcffib
        import xcffib.xproto

        xcb: Any = xcffib
        self.connection = xcb.connect(display)
        self.core, self.root = self.connection.core, self.connection.get_setup().roots[0].root
        self.name, self.colour = name, colour

    def window(self, rect: Rect, *, named: bool = True, parent: int = 0, override: bool = False) -> int:
        window = self.connection.generate_id()
        self.core.CreateWindow(24, window, parent or self.root, *rect, 0, 1, 0, 2 | 512, [self.colour, override])
        if named:
            text = f"{self.name}\0{self.name.title()}\0".encode()
            self.core.ChangeProperty(0, window, self.atom("WM_CLASS"), 31, 8, len(text), text)
            self.core.ChangeProperty(0, window, self.atom("WM_NAME"), 31, 8, len(self.name), self.name.encode())
            self.core.ChangeProperty(0, window, self.atom("WM_STATE"), self.atom("WM_STATE"), 32, 2, [1, 0])
        self.core.MapWindow(window)
        self.sync()
        return int(window)

    def atom(self, name: str) -> int:
        return int(self.core.InternAtom(False, len(name), name).reply().atom)

    def move(self, window: int, x: int, y: int) -> None:
        self.core.ConfigureWindow(window, 3, [x, y])
        self.sync()

    def sync(self) -> None:
        self.core.GetInputFocus().reply()

    def close(self) -> None:
        self.connection.disconnect()


def colours(picture: Any) -> set[int]:
    return {int(word) & 0xFFFFFF for word in np.unique(picture.view(np.uint32))}


def region(picture: Any, rect: Rect) -> set[int]:
    return colours(np.ascontiguousarray(picture[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width]))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("desktop", Part()),
        ("monitor:2", Part("monitor", "2")),
        ("window:A title: with a colon", Part("window", "A title: with a colon")),
        ("region:10x20+3+4", Part("region", "10x20+3+4")),
        ("window:", None),
        ("pictures", None),
        ("/home/me/desktop", None),
    ],
)
def test_parts_are_named_in_words(text: str, part: Part | None) -> None:
    assert parse_part(text) == part


async def test_a_region_is_cut_from_the_screen_and_follows_it(display: str) -> None:
    program = Program(display, "paint", OTHER)
    async with X11Source(display, Part("region", "200x100+300+200")) as source:
        assert source.grab()[0].shape == (100, 200, 4)
        program.window(Rect(250, 150, 100, 100))
        with trio.fail_after(PATIENCE):
            await source.wait()
        picture, damage = source.grab()
        assert damage == [Rect(0, 0, 50, 50)]
        assert region(picture, Rect(0, 0, 50, 50)) == {OTHER}
        assert region(picture, Rect(50, 0, 150, 100)) == {BACK}
        assert source.anchor[1:3] == (300, 200)
    program.close()


def arrange(program: Program, **monitors: Rect) -> None:
    """Monitors side by side on one screen (RandR 1.5), as xrandr --setmonitor makes them; the first has the screen's output."""
    import xcffib.randr

    xcb: Any = xcffib
    randr = program.connection(xcb.randr.key)
    randr.QueryVersion(1, 5).reply()
    outputs = list(randr.GetScreenResources(program.root).reply().outputs)
    for old in [m.name for m in randr.GetMonitors(program.root, False).reply().monitors if not m.automatic]:
        randr.DeleteMonitorChecked(program.root, old).check()
    for name, (x, y, width, height) in monitors.items():
        described = program.atom(name), False, False, len(outputs), x, y, width, height, 100, 100, outputs
        randr.SetMonitorChecked(program.root, xcb.randr.MonitorInfo.synthetic(*described)).check()
        outputs = []


async def test_G09_one_of_two_monitors_is_shared_where_it_goes(display: str) -> None:
    program = Program(display, "paint", OTHER)
    arrange(program, left=Rect(0, 0, 320, 480), right=Rect(320, 0, 320, 480))
    program.window(Rect(400, 10, 50, 50))
    async with X11Source(display, Part("monitor", "right")) as source:
        picture, _ = source.grab()
        assert picture.shape == (480, 320, 4)
        assert region(picture, Rect(80, 10, 50, 50)) == {OTHER}
        assert "right" in source.name
        arrange(program, left=Rect(0, 0, 340, 480), right=Rect(340, 0, 300, 400))
        with trio.fail_after(PATIENCE):
            while source.grab()[0].shape != (400, 300, 4):
                await source.wait()
        assert region(source.grab()[0], Rect(60, 10, 50, 50)) == {OTHER}
        assert source.origin == Rect(340, 0, 300, 400)
    with pytest.raises(ScreenError, match=r"1 \(left\), 2 \(right\)") as refusal:
        async with X11Source(display, Part("monitor", "3")):
            pass
    assert refusal.value.name == "no-such-monitor"
    program.close()


async def test_a_window_is_shared_without_what_covers_it_wherever_it_goes(display: str) -> None:
    shared, cover = Program(display, "report", OTHER), Program(display, "diary", SECRET)
    window = shared.window(Rect(100, 100, 200, 150))
    async with X11Source(display, Part("window", "rep")) as source:
        assert colours(source.grab()[0]) == {OTHER}
        covering = cover.window(Rect(120, 120, 100, 300))
        assert colours(source.grab()[0]) == {OTHER}
        shared.move(window, 300, -50)
        cover.move(covering, 310, 0)
        assert colours(source.grab()[0]) == {OTHER}
        shared.core.ConfigureWindow(window, 12, [120, 90])
        shared.sync()
        with trio.fail_after(PATIENCE):
            await source.wait()
        picture, damage = source.grab()
        assert (picture.shape, damage) == ((90, 120, 4), None)
        assert colours(picture) == {OTHER}
        shared.core.DestroyWindow(window)
        shared.sync()

        async def follow() -> None:
            with trio.fail_after(PATIENCE):
                while True:
                    await source.wait()
                    source.grab()

        with pytest.raises(ScreenError) as refusal:
            await follow()
        assert refusal.value.name == "window-closed"
    with pytest.raises(ScreenError, match="diary") as refusal:
        async with X11Source(display, Part("window", "rep")):
            pass
    assert refusal.value.name == "no-such-window"
    shared.close()
    cover.close()


async def test_G09_an_excluded_program_is_black_with_its_menus_dialogs_and_frames(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x11_hidden, "LINGER", 0.0)
    manager, vault, other = Program(display, "wm", 0x888888), Program(display, "keepass", SECRET), Program(display, "paint", OTHER)
    frame = manager.window(Rect(50, 50, 220, 140), named=False, override=True)
    vault.window(Rect(10, 20, 200, 110), parent=frame)
    async with X11Source(display, excluded=["KeePass"]) as source:
        picture, _ = source.grab()
        assert region(picture, Rect(50, 50, 220, 140)) == {0}
        assert colours(picture) == {0, BACK}
        menu = vault.window(Rect(400, 300, 80, 90), named=False, override=True)  # without a name
        other.window(Rect(300, 20, 60, 60))
        picture, _ = source.grab()
        assert region(picture, Rect(400, 300, 80, 90)) == {0}
        assert region(picture, Rect(300, 20, 60, 60)) == {OTHER}
        vault.move(menu, 200, 300)
        source.grab()
        with trio.fail_after(PATIENCE):
            await source.wait()
        picture, _ = source.grab()
        assert region(picture, Rect(200, 300, 80, 90)) == {0}
        assert region(picture, Rect(400, 300, 80, 90)) == {BACK}
    for program in (manager, vault, other):
        program.close()


class Late:
    """Somebody who draws what the excluded program's windows show where they stand no more: a compositor, or a window that was covered."""

    def __init__(self, display: str) -> None:
        self.program = Program(display, "late", SECRET)
        self.pen = self.program.connection.generate_id()
        self.program.core.CreateGC(self.pen, self.program.root, 4 | 1 << 15, [SECRET, 1])  # over windows too

    def draws(self, *rects: Rect) -> None:
        import xcffib.xproto

        xcb: Any = xcffib
        for rect in rects:
            self.program.core.PolyFillRectangle(self.program.root, self.pen, 1, [xcb.xproto.RECTANGLE.synthetic(*rect)])
        self.program.sync()


async def test_G09_an_excluded_program_is_black_wherever_it_may_still_be_seen(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it stood, however long ago somebody looked, and wherever it has been since, however briefly."""
    vault, late = Program(display, "vault", SECRET), Late(display)
    here, there, elsewhere, size = (10, 10), (300, 10), (10, 200), (100, 100)
    window = vault.window(Rect(*here, *size))
    monkeypatch.setattr(x11_hidden, "LINGER", 0.0)
    async with X11Source(display, excluded=["vault"]) as source:
        source.grab()  # and nobody looks for a long time
        monkeypatch.setattr(x11_hidden, "LINGER", 60.0)
        vault.move(window, *there)
        vault.move(window, *elsewhere)
        menu = vault.window(Rect(400, 300, 50, 50), named=False, override=True)
        vault.core.DestroyWindow(menu)
        vault.sync()
        late.draws(Rect(*here, *size), Rect(*there, *size), Rect(400, 300, 50, 50))
        picture, _ = source.grab()
        assert colours(picture) == {0, BACK}
        for place in (here, there, elsewhere):
            assert region(picture, Rect(*place, *size)) == {0}
        vault.core.UnmapWindow(window)
        vault.core.MapWindow(window)
        vault.core.UnmapWindow(window)
        vault.sync()
        late.draws(Rect(*elsewhere, *size))
        assert colours(source.grab()[0]) == {0, BACK}
        vault.core.MapWindow(window)  # where it was put unseen
        vault.core.UnmapWindow(window)
        vault.sync()
        assert colours(source.grab()[0]) == {0, BACK}
    late.program.close()
    vault.close()


async def test_G09_places_where_an_excluded_program_stood_become_clear_by_themselves(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(x11_hidden, "LINGER", 0.3)
    vault = Program(display, "vault", SECRET)
    window = vault.window(Rect(300, 10, 100, 100))
    async with X11Source(display, excluded=["vault"]) as source:
        source.grab()
        vault.move(window, 10, 200)
        picture, _ = source.grab()
        assert region(picture, Rect(300, 10, 100, 100)) == region(picture, Rect(10, 200, 100, 100)) == {0}
        with trio.fail_after(PATIENCE):
            while region(picture, Rect(300, 10, 100, 100)) != {BACK}:
                await source.wait()
                picture, _ = source.grab()
        assert region(picture, Rect(10, 200, 100, 100)) == {0}
        with trio.move_on_after(1.0) as rest:  # and it is asked for no more where it stands
            await source.wait()
        assert rest.cancelled_caught
    vault.close()


@asynccontextmanager
async def compositor(display: str, command: str) -> AsyncIterator[None]:
    """One that draws what the root window shows; "" for none."""
    if not command:
        yield
        return
    needs(command, package=command)
    process = await trio.lowlevel.open_process([command], env={**os.environ, "DISPLAY": display})
    witness = Program(display, "witness", OTHER)
    try:
        with trio.fail_after(PATIENCE):
            while not witness.core.GetSelectionOwner(witness.atom("_NET_WM_CM_S0")).reply().owner:  # noqa: ASYNC110  # it tells nobody
                await trio.sleep(0.05)
        yield
    finally:
        witness.close()
        process.kill()
        await process.wait()


@pytest.mark.parametrize("command", ["", "xcompmgr"], ids=["bare", "composited"])
async def test_G09_no_frame_slips_through_while_excluded_windows_dance(display: str, command: str) -> None:
    """Another thread maps, moves and unmaps them as fast as it can; no picture ever holds one of their pixels."""
    vault, rng = Program(display, "vault", SECRET), random.Random(3)
    window = vault.window(Rect(10, 10, 150, 100))
    dancing = True

    def dance() -> None:
        menu = 0
        while dancing:
            vault.core.ConfigureWindow(window, 3, [rng.randrange(500), rng.randrange(400)])
            if menu:
                vault.core.DestroyWindow(menu)
            menu = vault.window(Rect(rng.randrange(600), rng.randrange(400), 60, 80), named=False, override=True)

    async with compositor(display, command), X11Source(display, excluded=["vault"]) as source, trio.open_nursery() as nursery:
        source.grab()
        nursery.start_soon(trio.to_thread.run_sync, dance)
        seen = 0
        try:
            for _ in range(60):
                with trio.fail_after(PATIENCE):
                    await source.wait()
                picture, damage = source.grab()
                seen += damage != []
                assert not (picture.view(np.uint32) == SECRET | 0xFF000000).any()
        finally:
            dancing = False
        assert seen > 20
    vault.close()


@pytest.mark.parametrize("name", ["monitor:2", "region:10x10+0+0", "desktop"])
def test_G09_what_is_no_program_cannot_be_excluded(name: str) -> None:
    with pytest.raises(ScreenError, match="--exclude KeePassXC") as refusal:
        X11Source(":0", excluded=["vault", name])
    assert refusal.value.name == "cannot-exclude"


async def test_G09_a_program_is_excluded_by_what_window_shares_it_by_too(display: str) -> None:
    vault = Program(display, "vault", SECRET)
    window = vault.window(Rect(10, 10, 100, 100))
    for name in ("window:Vault", f"window:{window:#x}", f"{window:#x}"):
        async with X11Source(display, excluded=[name]) as source:
            assert colours(source.grab()[0]) == {0, BACK}
    vault.close()


async def test_G09_a_shared_window_of_an_excluded_program_is_refused_or_black(display: str) -> None:
    manager, browser = Program(display, "wm", 0x888888), Program(display, "browser", OTHER)
    frame = manager.window(Rect(50, 50, 220, 140), named=False, override=True)
    window = browser.window(Rect(10, 20, 200, 110), parent=frame)
    diary = browser.window(Rect(300, 300, 50, 50))
    for excluded in (["browser"], ["window:browser"], [f"{diary:#x}"]):
        with pytest.raises(ScreenError, match="--exclude") as refusal:
            async with X11Source(display, Part("window", f"{window:#x}"), excluded):
                pass
        assert refusal.value.name == "window-excluded"
    async with X11Source(display, Part("window", f"{window:#x}"), ["bank"]) as source:
        assert colours(source.grab()[0]) == {OTHER}
        for title, seen in (("My Bank", 0), ("A page", OTHER)):
            browser.core.ChangeProperty(0, window, browser.atom("WM_NAME"), 31, 8, len(title), title.encode())
            browser.core.ClearArea(False, window, 0, 0, 5, 5)
            browser.sync()
            with trio.fail_after(PATIENCE):
                await source.wait()
            assert colours(source.grab()[0]) == {seen}
    for program in (manager, browser):
        program.close()
