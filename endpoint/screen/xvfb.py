"""A desktop of our own: an X server without a monitor, for machines that have no desktop to share, and for tests.

The server picks a free display number itself and says it through a pipe. Server and programs die with us, however we
end: the kernel signals them when the thread that started them is gone (so it must be a thread that lives as long as
the desktop; this is the one that runs trio). Only this user's programs may connect: the server starts with a random cookie, which
we use once to admit the user by name, so that there is no authority file to keep or to leave behind.
"""

import os
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
import trio

from endpoint.screen.picture import ScreenError, check_geometry

log = structlog.get_logger()

START_SECONDS = 20.0
STOP_SECONDS = 5.0
SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108  # where X servers have their sockets; nothing is created there
STALE_SECONDS = 10.0
BACKGROUND = 0x2E4A62

COOKIE_KIND = b"MIT-MAGIC-COOKIE-1"

_CLOCK = r"""printf '\033[?25l\n\n     Parley shows this desktop of its own,\n     since there is none here to share.\n\n'
while :; do printf '\r     %s' "$(date '+%A, %d %B, %H:%M:%S')"; sleep 1; done"""
_LOOKS = "-geometry 72x12+90+90 -fa Monospace -fs 14 -bg #fdf6e3 -fg #073642 -title Parley"
WELCOME = ("xterm", *_LOOKS.split(), "-e", "sh", "-c", _CLOCK)


def available() -> bool:
    """Whether a desktop of our own can be started here."""
    return shutil.which("Xvfb") is not None


@asynccontextmanager
async def xvfb_desktop(
    width: int = 1280, height: int = 720, programs: Sequence[Sequence[str]] | None = None, *, depth: int = 24
) -> AsyncIterator[str]:
    """Start a desktop and give its display name, such as ":3"; end it when the block ends.

    programs: what runs on it, command lines; None means a welcome with a clock, where xterm is installed.

    Raises ScreenError `missing-xvfb`, `no-display` (the server does not start), `screen-too-large`.
    """
    check_geometry(width, height)
    if not available():
        raise ScreenError("missing-xvfb", "There is no desktop here, and none can be made: install the Debian package xvfb.")
    if programs is None:
        programs = [WELCOME] if shutil.which("xterm") else []
    _sweep()
    running: list[subprocess.Popen[bytes]] = []
    try:
        cookie = secrets.token_hex(16).encode()
        display = await _start_server(width, height, depth, cookie, running)
        await trio.to_thread.run_sync(_furnish, display, cookie, depth)
        for command in programs:
            running += [_spawn(command, {**os.environ, "DISPLAY": display})]
        log.info("desktop-started", display=display, width=width, height=height)
        yield display
    finally:
        with trio.CancelScope(shield=True):
            for process in reversed(running):
                await _stop(process)


def _spawn(command: Sequence[str], env: dict[str, str], pass_fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """A program in the background that is told to end when this thread ends, and does not hear our Ctrl-C."""
    guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    return subprocess.Popen(
        [*guard, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
        pass_fds=pass_fds,
        process_group=0,
    )


async def _start_server(width: int, height: int, depth: int, cookie: bytes, running: list[subprocess.Popen[bytes]]) -> str:
    """Start it with an authority file in memory, so that nobody gets in before we let them; ":3" or the like."""
    ours, theirs = os.pipe()
    authority = os.memfd_create("authority")
    try:
        os.write(authority, _authority(cookie))
        command = f"Xvfb -displayfd {theirs} -screen 0 {width}x{height}x{depth} -nolisten tcp -noreset".split()
        command += ["-auth", f"/proc/self/fd/{authority}"]
        running.append(_spawn(command, dict(os.environ), [theirs, authority]))
    finally:
        os.close(theirs)
        os.close(authority)
    number = b""
    try:
        with trio.move_on_after(START_SECONDS):
            while not number.endswith(b"\n"):
                await trio.lowlevel.wait_readable(ours)
                part = os.read(ours, 16)
                if not part:
                    break
                number += part
    finally:
        trio.lowlevel.notify_closing(ours)
        os.close(ours)
    if not number.strip().isdigit():
        raise ScreenError("no-display", "Xvfb does not start. Run `Xvfb -displayfd 1` to see why.")
    return f":{int(number)}"


def _authority(cookie: bytes) -> bytes:
    """An Xauthority file with one entry, for any host and any display (family 0xFFFF; see Xau(3))."""
    fields = (b"", b"", COOKIE_KIND, cookie)
    return b"\xff\xff" + b"".join(len(field).to_bytes(2, "big") + field for field in fields)


def _furnish(display: str, cookie: bytes, depth: int) -> None:
    """Let this user's programs in, and give the screen a colour."""
    import xcffib
    import xcffib.xproto

    xcb: Any = xcffib  # untyped
    name, data = xcb.ffi.new("char[]", COOKIE_KIND), xcb.ffi.new("char[]", cookie)
    auth = xcb.ffi.new("xcb_auth_info_t *", [len(COOKIE_KIND), name, len(cookie), data])
    connection = xcb.wrap(xcb.lib.xcb_connect_to_display_with_auth_info(display.encode(), auth, xcb.ffi.NULL))
    try:
        core, root = connection.core, connection.get_setup().roots[0].root
        me = b"localuser\0" + f"#{os.getuid()}".encode()
        insert, server_interpreted = xcb.xproto.HostMode.Insert, xcb.xproto.Family.ServerInterpreted
        core.ChangeHostsChecked(insert, server_interpreted, len(me), me).check()
        if depth == 24:
            core.ChangeWindowAttributes(root, xcb.xproto.CW.BackPixel, [BACKGROUND])
            core.ClearAreaChecked(False, root, 0, 0, 0, 0).check()
    finally:
        connection.disconnect()


async def _stop(process: subprocess.Popen[bytes]) -> None:
    watch = os.pidfd_open(process.pid)
    try:
        for act in (process.terminate, process.kill):
            if process.poll() is None:
                act()
                with trio.move_on_after(STOP_SECONDS):
                    await trio.lowlevel.wait_readable(watch)
        process.wait()
    finally:
        os.close(watch)


def _sweep() -> None:
    """Remove the sockets that our dead servers left: a killed server cannot do it."""
    for path in SOCKETS.glob("X*"):
        with suppress(OSError):
            found = path.lstat()
            if found.st_uid != os.getuid() or not stat.S_ISSOCK(found.st_mode):
                continue
            if time.time() - found.st_mtime < STALE_SECONDS:
                continue  # may be about to listen
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink()
