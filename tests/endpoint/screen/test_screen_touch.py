"""Hands on a real X server: every character, modifiers, wheel, drag; and who used the machine."""

import os
import signal
import socket
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from endpoint.cli.panes import place_of
from endpoint.hands import Button, Key, Move, Text, Wheel
from endpoint.screen.picture import Rect
from endpoint.screen.x11 import Part, X11Source
from endpoint.screen.x11_display import Display
from endpoint.screen.x11_pointer import X11Pointer
from endpoint.screen.x11_touch import TAKE_BACK, X11Touch
from endpoint.screen.xvfb import xvfb_desktop
from tests.endpoint.screen.test_screen_parts import Program, arrange, region
from tests.needs import needs

PATIENCE = 30.0
SHIFT, CONTROL, LEFT = 0xFFE1, 0xFFE3, 0xFF51
MANY = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 60))  # more than any keyboard has spare keys


@pytest.fixture
async def display() -> AsyncIterator[str]:
    needs("Xvfb", package="xvfb")
    async with xvfb_desktop(640, 480, []) as name:
        yield name


class Typed:
    """What arrives in an xterm, byte by byte."""

    def __init__(self, path: Path) -> None:
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.got = b""

    async def until(self, end: str) -> str:
        with trio.fail_after(PATIENCE):
            while not self.got.endswith(end.encode()):
                await trio.lowlevel.wait_readable(self.reader)
                self.got += os.read(self.reader, 4096)
        text, self.got = self.got.decode(), b""
        return text


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[tuple[str, Typed]]:
    """A display that is all xterm, and what is typed there. Programs get keys where the pointer is: there is no window manager."""
    needs("Xvfb", package="xvfb")
    needs("xterm", package="xterm")
    pipe = tmp_path / "typed"
    os.mkfifo(pipe)
    typed = Typed(pipe)
    shell = f"stty raw -echo; printf ready > {pipe}; exec cat > {pipe}"
    command = ["env", "LC_ALL=C.UTF-8", "xterm", "-u8", "-geometry", "100x40+0+0", "-e", "sh", "-c", shell]
    async with xvfb_desktop(640, 480, [command]) as display:
        await typed.until("ready")
        yield display, typed
    os.close(typed.reader)


async def test_G10_any_text_arrives_as_it_is(terminal: tuple[str, Typed]) -> None:
    display, typed = terminal
    async with X11Touch(display) as touch:
        await touch.act(Move(300, 200))
        for text in ("Hello, World! ~{}|\\^`", "né à ß ñ € œ Ж 中文 😀 ÅΩ", MANY, "aAbB"):
            await touch.act(Text(text + "."))
            assert await typed.until(".") == text + "."
        await touch.act(Text("line\n"))
        assert await typed.until("\r") == "line\r"


async def test_G10_keys_modifiers_and_what_is_held(terminal: tuple[str, Typed]) -> None:
    display, typed = terminal
    async with X11Touch(display) as touch:
        await touch.act(Move(300, 200))
        for event in (Key(CONTROL, True), Key(ord("c"), True), Key(ord("c"), False), Key(CONTROL, False), Key(LEFT, True), Key(LEFT, False)):
            await touch.act(event)
        assert await typed.until("\x1b[D") == "\x03\x1b[D"
        await touch.act(Key(SHIFT, True))
        assert touch.held
        await touch.act(Text("a1A"))  # Shift is lifted where the text needs it
        assert await typed.until("A") == "a1A"
        touch.release()
        assert not touch.held
        await touch.act(Key(ord("x"), True))
        await touch.act(Key(ord("x"), False))
        assert await typed.until("x") == "x"
        await touch.act(Key(0x0100_4E2D, True))
        await touch.act(Key(0x0100_4E2D, False))
        assert await typed.until("中") == "中"


async def test_G10_caps_lock_does_not_turn_text_round(terminal: tuple[str, Typed]) -> None:
    display, typed = terminal
    async with X11Touch(display) as touch:
        await touch.act(Move(300, 200))
        for down in (True, False):
            await touch.act(Key(0xFFE5, down))
        await touch.act(Text("aBc."))
        assert await typed.until(".") == "aBc."
        for down in (True, False):
            await touch.act(Key(0xFFE5, down))


async def test_G10_hands_are_where_the_shared_monitor_is(display: str) -> None:
    program = Program(display, "target", 0xFF0000)
    arrange(program, left=Rect(0, 0, 200, 480), right=Rect(200, 40, 440, 400))
    window = program.window(Rect(300, 100, 100, 100))
    program.core.ChangeWindowAttributes(window, 1 << 11, [1 << 2 | 1 << 3])
    program.sync()
    async with X11Source(display, Part("monitor", "right")) as source, X11Pointer(source) as pointer:
        picture, _ = source.grab()
        assert region(picture, Rect(100, 60, 100, 100)) == {0xFF0000}
        async with X11Touch(display, place_of(source)) as touch:
            for event in (Move(110, 70), Button(1, True), Button(1, False), Move(-150, 100), Move(110, 420)):  # the last two: not on it
                await touch.act(event)
        with trio.fail_after(PATIENCE):
            await pointer.wait()
        seen = pointer.look(whole=False)
        assert (seen.x, seen.y, seen.visible) == (110, 70, True)
    program.sync()
    events = []
    while (event := program.connection.poll_for_event()) is not None:
        if "Button" in type(event).__name__:
            events.append((event.root_x, event.root_y, event.event_x, event.event_y))
    assert events == [(310, 110, 10, 10)] * 2
    program.close()


async def test_G10_pointer_wheel_and_drag_reach_a_window(display: str) -> None:
    program = Program(display, "target", 0xFF0000)
    window = program.window(Rect(100, 50, 300, 200))
    program.core.ChangeWindowAttributes(window, 1 << 11, [1 << 2 | 1 << 3 | 1 << 6])
    program.sync()
    async with X11Source(display, Part("region", "400x300+100+50")) as source, X11Pointer(source) as pointer:
        dx, dy = source.anchor[1:3]
        async with X11Touch(display, lambda x, y: (x + dx, y + dy)) as touch:
            for event in (Move(10, 20), Button(1, True), Move(60, 70), Button(1, False), Wheel(0, 2), Wheel(-1, -1), Button(3, True)):
                await touch.act(event)
            assert touch.held
            with trio.fail_after(PATIENCE):
                await pointer.wait()
            at = pointer.look(whole=True)
            assert (at.x, at.y, at.visible) == (60, 70, True)
            assert at.pixels is not None
            assert at.shape == at.pixels.identity
    program.sync()
    seen = []
    while (event := program.connection.poll_for_event()) is not None:
        kind = type(event).__name__.removesuffix("Event")
        seen.append((kind, event.detail if "Button" in kind else (event.event_x, event.event_y)))
    presses = [detail for kind, detail in seen if kind == "ButtonPress"]
    assert presses == [1, 5, 5, 4, 6, 3]
    assert ("MotionNotify", (60, 70)) in seen
    assert seen[-1] == ("ButtonRelease", 3)  # let go when the hands were taken away
    program.close()


async def test_G10_the_persons_own_hands_are_told_from_ours(display: str) -> None:
    async with X11Touch(display) as ours, X11Touch(display) as person, trio.open_nursery() as nursery:
        found: list[bool] = []

        async def watch() -> None:
            found.append(await ours.local())

        nursery.start_soon(watch)
        await ours.act(Text("abcé"))
        await ours.act(Button(1, True))
        await ours.act(Button(1, False))
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert found == []
        await person.act(Button(1, True))
        with trio.fail_after(PATIENCE):
            while not found:
                await trio.testing.wait_all_tasks_blocked(0.01)
        await person.act(Button(1, False))
        assert found == [False]
        with trio.fail_after(PATIENCE):
            await person.act(Key(TAKE_BACK, True))
            while not await ours.local():
                pass


async def test_spare_keys_are_empty_again(display: str) -> None:
    def borne(program: Program) -> set[int]:
        setup = program.connection.get_setup()
        first, last = setup.min_keycode, setup.max_keycode
        return set(program.core.GetKeyboardMapping(first, last - first + 1).reply().keysyms)

    program = Program(display, "reader", 0)
    before = borne(program)
    async with X11Touch(display) as touch:
        await touch.act(Text("中"))
        assert 0x0100_4E2D in borne(program)
    assert borne(program) == before
    program.close()


async def test_G10_the_last_act_is_done_though_the_connection_closes_behind_it(display: str) -> None:
    """A busy server that finds a request and the end of its connection together reads neither."""
    watching = Display(display)
    await watching.open()
    with socket.socket(fileno=os.dup(watching.connection.get_file_descriptor())) as end:
        (server,) = struct.unpack_from("i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    async with X11Touch(display) as touch:
        os.kill(server, signal.SIGSTOP)
        later = threading.Timer(0.2, os.kill, (server, signal.SIGCONT))
        later.start()
        await touch.act(Move(123, 45))
    later.join()
    at = watching.connection.core.QueryPointer(watching.root).reply()
    assert (at.root_x, at.root_y) == (123, 45)
    watching.close()
