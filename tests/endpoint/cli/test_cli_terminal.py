"""The terminal that a person sits at: the prompt without echo, the live region, keys."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio
from PIL import Image

from endpoint.cli.slides import make_slides
from endpoint.screen.pictures import PicturesSource
from tests.endpoint.cli.programs import WITHIN, Place, place

_TAKE_TERMINAL = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass
class Terminal:
    """A program on a terminal of its own, 120 × 40."""

    process: trio.Process
    keys: trio.lowlevel.FdStream
    raw: str = ""
    _changed: trio.Event = field(default_factory=trio.Event)

    async def read(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # EIO: the other side has gone; or we closed it
            async for part in self.keys:
                self.raw += part.decode(errors="replace")
                self._changed.set()
                self._changed = trio.Event()

    @property
    def text(self) -> str:
        """Everything ever shown, without the terminal's orders."""
        return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", self.raw)

    async def until(self, *words: str) -> None:
        """Until all of them have been shown."""
        with trio.move_on_after(WITHIN):
            while not all(word in self.text for word in words):
                await self._changed.wait()
            return
        raise AssertionError(f"{words} are not shown: {self.text[-3000:]}")

    async def type(self, keys: str) -> None:
        await self.keys.send_all(keys.encode())

    async def ended(self) -> int:
        with trio.fail_after(WITHIN):
            return await self.process.wait()


async def sit_down(here: Place, *arguments: str) -> tuple[Terminal, int]:
    """The terminal, and a descriptor of it to look at its settings."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-c", _TAKE_TERMINAL, sys.executable, "-P", "-m", "endpoint.cli", *arguments]
    environment = {**here.environment(), "TERM": "xterm-256color"}
    process = await trio.lowlevel.open_process(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=here.directory, env=environment)
    seat = Terminal(process, trio.lowlevel.FdStream(ours))
    here.nursery.start_soon(seat.read)
    return seat, theirs


def echoes(descriptor: int) -> bool:
    return bool(termios.tcgetattr(descriptor)[3] & termios.ECHO)


async def test_a_meeting_at_two_terminals(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    Image.new("RGB", (64, 36), (10, 120, 200)).save(slides / "1.png")
    async with place(tmp_path) as here:
        up, theirs = await sit_down(here, "up", "--title", "[b]Weekly[/b]", "--name", "Olga", "--share", str(slides))
        await up.until(" ● ON AIR ", "via mcs-", "here (1)    1 Olga  you, organizer, presents", "operator-proof")
        link = re.search(r"https://\S+", up.text)
        number = re.search(r"\d{3}-\d{3}-\d{3}  \[b\]Weekly\[/b\]", up.text)
        assert link
        assert number

        # the prompt shows nothing of the link, and takes Ctrl-C
        gone, gone_theirs = await sit_down(here, "join", number[0][:11])
        await gone.until("Password, or the whole link")
        assert not echoes(gone_theirs)
        await gone.type("half-a-pass\x03")
        assert await gone.ended() == 130
        assert echoes(gone_theirs)
        assert "half" not in gone.text

        ana, ana_theirs = await sit_down(here, "join", "--name", "Ana", "--picture", "ana.png")
        await ana.until("Password, or the whole link")
        await ana.type(link[0] + "\r")
        await ana.until(" ● LIVE ", "1 Olga  organizer, presents", "2 Ana  you", "type to chat", "ana.png")
        assert link[0] not in ana.text
        await ana.type("hallo [red]wörld[/red]\x7f\x7f!\r")
        await up.until("Ana: hallo [red]wörld[/re!")
        await up.type("/who\r/pause\r/nonsense\r")
        await up.until(" ‖ PAUSED ", "> /who", "command-unknown: ")
        await ana.until(" ‖ PAUSED ")
        await up.type("/resume\r/lock\r/help\r/link\r")
        await up.until("/dismiss NAME", "locked")
        await ana.type("/mute Olga\r/help\r")
        await ana.until("not-allowed: Only the organizer", "leave the meeting")
        assert "/dismiss" not in ana.text
        await ana.type("/leave\r")
        assert await ana.ended() == 0
        assert echoes(ana_theirs)
        await up.until("Ana has left.")
        await up.type("\x03")  # Ctrl-C
        assert await up.ended() == 0
        await up.until("The meeting has ended.")
        assert here.runs == []
        assert echoes(theirs)
        for descriptor in (theirs, gone_theirs, ana_theirs):
            os.close(descriptor)


async def test_a_closed_terminal_ends_the_meeting(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    Image.new("RGB", (64, 36), (10, 120, 200)).save(slides / "1.png")
    async with place(tmp_path) as here:
        up, theirs = await sit_down(here, "up", "--share", str(slides))
        await up.until(" ● ON AIR ")
        os.close(theirs)
        await up.keys.aclose()  # the kernel says SIGHUP, and whatever is written from now on fails
        assert await up.ended() == 0
        assert here.runs == []


async def test_output_that_is_no_terminal_is_plain_lines(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    Image.new("RGB", (64, 36), (10, 120, 200)).save(slides / "1.png")
    async with place(tmp_path) as here:
        long_enough = "8"  # to be on air on a busy machine
        command = [sys.executable, "-P", "-m", "endpoint.cli", "up", "--share", str(slides), "--for", long_enough]
        done = await trio.run_process(
            command, stdin=b"hello\n/who\n/nonsense\n", capture_stdout=True, capture_stderr=True, cwd=tmp_path, env=here.environment()
        )
        text = done.stdout.decode()
        assert "\x1b" not in text
        for words in ("Meeting   ", "Link      https://", ": hello\n", "command-unknown: ", "sharing: on air\n", "The meeting has ended.\n"):
            assert words in text
        assert b"Traceback" not in done.stderr


async def test_our_own_slides_are_pictures(tmp_path: Path) -> None:
    async with PicturesSource(await trio.to_thread.run_sync(make_slides, tmp_path / "slides")) as source:
        picture, _ = source.grab()
    assert source.geometry == (1280, 720)
    assert len({int(pixel) for pixel in picture[:, :, 0].flat}) > 10  # letters
    assert len({path.name for path in (tmp_path / "slides").iterdir()}) == 3
