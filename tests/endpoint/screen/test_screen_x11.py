"""Capture from real X servers: pixel for pixel, whatever draws, and nothing left behind."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from endpoint.screen import x11, xvfb
from endpoint.screen.decoder import Decoder
from endpoint.screen.encoder import Encoder
from endpoint.screen.picture import Rect, ScreenError
from endpoint.screen.x11 import X11Source
from endpoint.screen.xvfb import xvfb_desktop
from tests.needs import needs

PATIENCE = 30.0


@pytest.fixture
async def display() -> AsyncIterator[str]:
    """An empty desktop."""
    needs("Xvfb", package="xvfb")
    async with xvfb_desktop(640, 480, []) as name:
        yield name


class Painter:
    """Another program on the same display."""

    def __init__(self, display: str) -> None:
        import xcffib
        import xcffib.randr
        import xcffib.xproto

        xcb: Any = xcffib
        self.rectangle = xcb.xproto.RECTANGLE
        self.connection = xcb.connect(display)
        self.core = self.connection.core
        self.root = self.connection.get_setup().roots[0].root
        self.randr = self.connection(xcb.randr.key)
        self.window, self.gc = self.connection.generate_id(), self.connection.generate_id()
        self.core.CreateWindow(24, self.window, self.root, 50, 60, 300, 200, 0, 1, 0, 2, [0x335577])
        self.core.CreateGC(self.gc, self.window, 0, [])
        self.core.MapWindow(self.window)
        self.sync()

    def sync(self) -> None:
        self.core.GetInputFocus().reply()

    def fill(self, colour: int, x: int, y: int, width: int, height: int) -> None:
        self.core.ChangeGC(self.gc, 4, [colour])
        self.core.PolyFillRectangle(self.window, self.gc, 1, [self.rectangle.synthetic(x, y, width, height)])

    def scribble(self, rng: random.Random) -> None:
        """One of the things that programs do."""
        match rng.randrange(4):
            case 0 | 1:
                self.fill(rng.randrange(1 << 24), *(rng.randrange(1, 150) for _ in range(4)))
            case 2:
                self.core.CopyArea(self.window, self.window, self.gc, *(rng.randrange(100) for _ in range(6)))
            case _:
                self.core.ConfigureWindow(self.window, 3, [rng.randrange(300), rng.randrange(250)])


@contextmanager
def painter(display: str) -> Iterator[Painter]:
    program = Painter(display)
    try:
        yield program
    finally:
        program.connection.disconnect()


class Sharing:
    """A source, an encoder and a viewer in a row."""

    def __init__(self, source: X11Source) -> None:
        self.source, self.encoder, self.decoder = source, Encoder(), Decoder()
        self.restart = True
        self.decoder.load(self.encoder.snapshot(source.grab()[0]))

    def step(self) -> None:
        picture, damage = self.source.grab()
        update = self.encoder.update(picture, damage, restart=self.restart, now=0.0)
        if update is not None:
            self.decoder.apply(update, restart=self.restart)
            self.restart = False

    async def until_equal(self, display: str) -> None:
        """Follow the screen until the viewer has what a new source sees."""
        with trio.fail_after(PATIENCE):
            while True:
                self.step()
                async with X11Source(display) as fresh:
                    if np.array_equal(fresh.grab()[0], self.decoder.picture):
                        return
                await self.source.wait()


async def test_G02_B06_the_viewer_has_the_pixels_of_a_desktop_where_programs_run(tmp_path: Path) -> None:
    needs("Xvfb", package="xvfb")
    needs("xterm", package="xterm")
    done = tmp_path / "done"
    os.mkfifo(done)
    reader = os.open(done, os.O_RDONLY | os.O_NONBLOCK)
    shell = f"seq 300; echo done > {done}; sleep 1000"
    rng = random.Random(1)
    try:
        async with xvfb_desktop(800, 600, [["xterm", "-geometry", "40x20+300+200", "-e", "sh", "-c", shell]]) as display:
            with painter(display) as program:
                async with X11Source(display) as source:
                    sharing = Sharing(source)
                    for _ in range(150):
                        for _ in range(rng.randrange(1, 6)):
                            program.scribble(rng)
                        program.connection.flush()
                        sharing.step()
                    with trio.fail_after(PATIENCE):
                        await trio.lowlevel.wait_readable(reader)
                    await sharing.until_equal(display)
                    assert (sharing.decoder.picture[:, :, 3] == 255).all()
    finally:
        os.close(reader)


async def test_without_shared_memory_the_pixels_are_the_same(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(size: int) -> None:
        raise PermissionError(size)

    with painter(display) as program:
        async with X11Source(display) as shared:
            monkeypatch.setattr(x11, "Segment", refused)
            async with X11Source(display) as source:
                assert np.array_equal(source.grab()[0], shared.grab()[0])
                sharing, rng = Sharing(source), random.Random(2)
                for _ in range(50):
                    program.scribble(rng)
                    program.sync()
                    await source.wait()
                    sharing.step()
                    picture, _ = shared.grab()
                    assert np.array_equal(picture, source.grab()[0])


async def test_a_small_change_is_a_small_grab(display: str) -> None:
    with painter(display) as program:
        async with X11Source(display) as source:
            _, damage = source.grab()
            assert damage is None
            assert source.grab()[1] == []
            program.fill(0xFF0000, 10, 20, 30, 5)
            program.sync()
            with trio.fail_after(PATIENCE):
                await source.wait()
            picture, damage = source.grab()
            assert damage == [Rect(60, 80, 30, 5)]
            assert picture[80, 60].tolist() == [0, 0, 255, 255]


async def test_nothing_drawn_means_no_news(display: str) -> None:
    async with X11Source(display) as source, trio.open_nursery() as nursery:
        await source.wait()
        source.grab()
        nursery.start_soon(source.wait)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(nursery.child_tasks) == 1
        with painter(display):
            with trio.fail_after(PATIENCE):
                while nursery.child_tasks:
                    await trio.lowlevel.checkpoint()


async def test_another_resolution_brings_a_whole_picture(display: str) -> None:
    with painter(display) as program:
        async with X11Source(display) as source:
            sharing = Sharing(source)
            assert source.geometry == (640, 480)
            resize(program, 400, 300)
            with trio.fail_after(PATIENCE):
                await source.wait()
            picture, damage = source.grab()
            assert (source.geometry, damage, picture.shape) == ((400, 300), None, (300, 400, 4))
            with pytest.raises(ScreenError) as refusal:
                sharing.encoder.update(picture, damage, restart=False, now=0.0)
            assert refusal.value.name == "geometry-changed"
            sharing = Sharing(source)
            program.fill(0xABCDEF, 1, 1, 40, 40)
            program.sync()
            await sharing.until_equal(display)


def resize(program: Painter, width: int, height: int) -> None:
    """What xrandr does: take the monitor away, then change the screen's size."""
    resources = program.randr.GetScreenResources(program.root).reply()
    now = resources.config_timestamp
    program.randr.SetCrtcConfig(resources.crtcs[0], 0, now, 0, 0, 0, 1, 0, []).reply()
    program.randr.SetScreenSizeChecked(program.root, width, height, width, height).check()


@pytest.mark.parametrize("name", [":32000", "no.such.host.invalid:0", "nonsense"])
async def test_a_missing_display_is_refused_by_name(name: str) -> None:
    with pytest.raises(ScreenError, match="--display") as refusal:
        async with X11Source(name):
            pass
    assert refusal.value.name == "no-display"


async def test_no_display_at_all_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(ScreenError, match="DISPLAY is not set") as refusal:
        async with X11Source(None):
            pass
    assert refusal.value.name == "no-display"


async def test_a_display_of_few_colours_is_refused_by_name() -> None:
    needs("Xvfb", package="xvfb")
    async with xvfb_desktop(320, 200, [], depth=16) as display:
        with pytest.raises(ScreenError, match="16-bit") as refusal:
            async with X11Source(display):
                pass
    assert refusal.value.name == "unsupported-display"


async def test_a_display_that_goes_away_is_named() -> None:
    needs("Xvfb", package="xvfb")
    async with AsyncExitStack() as server, AsyncExitStack() as ours:
        display = await server.enter_async_context(xvfb_desktop(320, 200, []))
        source = await ours.enter_async_context(X11Source(display))
        source.grab()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.aclose)
            with pytest.raises(ScreenError) as refusal, trio.fail_after(PATIENCE):
                await source.wait()
        assert refusal.value.name == "display-lost"
        with pytest.raises(ScreenError) as refusal:
            source.grab()
        assert refusal.value.name == "display-lost"


async def test_without_xvfb_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ScreenError, match="package xvfb") as refusal:
        async with xvfb_desktop():
            pass
    assert refusal.value.name == "missing-xvfb"


async def test_nobody_gets_into_our_desktop_before_we_admit_them() -> None:
    needs("Xvfb", package="xvfb")
    running: list[subprocess.Popen[bytes]] = []
    try:
        display = await xvfb._start_server(320, 200, 24, b"a secret", running)
        with pytest.raises(ScreenError) as refusal:
            async with X11Source(display):
                pass
        assert refusal.value.name == "no-display"
        xvfb._furnish(display, b"a secret", 24)
        async with X11Source(display):
            pass
    finally:
        for process in running:
            await xvfb._stop(process)


HOLDER = """
import trio
from endpoint.screen.x11 import X11Source
from endpoint.screen.xvfb import xvfb_desktop
async def main():
    async with xvfb_desktop(320, 200) as display, X11Source(display) as source:
        source.grab()
        print("ready", display, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


def started_holder() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, bufsize=0)


async def test_kill_9_of_the_holder_leaves_nothing() -> None:
    needs("Xvfb", package="xvfb")
    needs("setpriv", package="util-linux")
    holder = started_holder()
    try:
        assert holder.stdout is not None
        line = b""
        with trio.fail_after(PATIENCE):
            while b"ready" not in line:
                await trio.lowlevel.wait_readable(holder.stdout)
                line = holder.stdout.readline()
                assert line, "the holder has ended"
        display = line.split()[1].decode()
        path = xvfb.SOCKETS / f"X{display[1:]}"
        server = os.pidfd_open(server_process(path))
        assert str(holder.pid) in segments()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(server)
    os.close(server)
    assert not path.exists()
    assert str(holder.pid) not in segments()


def server_process(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return int.from_bytes(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)


def segments() -> set[str]:
    """The processes that made the shared memory segments that exist."""
    columns, *rows = (line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines())
    return {row[columns.index("cpid")] for row in rows}


def test_the_sockets_of_dead_servers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xvfb, "SOCKETS", tmp_path)
    alive = socket.socket(socket.AF_UNIX)
    with alive, socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as young:
        for server, number in ((alive, 1), (dead, 2), (young, 3)):
            server.bind(str(tmp_path / f"X{number}"))
        alive.listen()
        for number in (1, 2):
            os.utime(tmp_path / f"X{number}", (0, 0))
        (tmp_path / "X4").write_text("no socket")
        xvfb._sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X1", "X3", "X4"]
