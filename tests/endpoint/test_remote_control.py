"""Hands from another process, through a relay, on real programs (rows G9, G10, G11)."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from endpoint.cluster import run_cluster
from endpoint.demo.run import MemberProcess, Story, Verdict
from endpoint.hands import Key
from endpoint.screen.x11_display import Display
from endpoint.screen.x11_touch import TAKE_BACK, X11Touch
from endpoint.screen.x11_windows import Windows
from endpoint.screen.xvfb import xvfb_desktop
from tests.needs import needs

PATIENCE = 30.0
OLGA, BEN = "Olga Organizer", "Ben Attendee"
PAGE = """<!doctype html><meta charset=utf-8><title>empty</title><body style="margin:0">
<textarea autofocus style="width:99vw;height:98vh" oninput="document.title = 'typed ' + this.value"></textarea>"""


async def eventually(holds: Callable[[], bool]) -> None:
    """Of another program on the display, which tells nobody when it has come so far."""
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110  # there is no event
            await trio.sleep(0.05)


class Meeting:
    """Olga shares her desktop, Ben watches: each a process."""

    def __init__(self, story: Story, display: str, typed: int) -> None:
        self.story, self.display, self.typed = story, display, typed
        self.got = b""

    @property
    def olga(self) -> MemberProcess:
        return self.story.members[OLGA]

    @property
    def ben(self) -> MemberProcess:
        return self.story.members[BEN]

    async def lend(self, name: str) -> None:
        told = len(self.ben.heard("control"))
        await self.olga.do(do="lend", name=name)
        await self.ben.wait("control", told + 1)

    async def hands(self, *events: list[object]) -> bool:
        """Whether Ben believes that he may."""
        told = len(self.ben.heard("handed"))
        await self.ben.do(do="hands", events=list(events))
        return bool((await self.ben.wait("handed", told + 1))["active"])

    async def until_typed(self, end: str) -> str:
        with trio.fail_after(PATIENCE):
            while not self.got.endswith(end.encode()):
                await trio.lowlevel.wait_readable(self.typed)
                self.got += os.read(self.typed, 4096)
        text, self.got = self.got.decode(), b""
        return text

    async def until_hands_count(self) -> None:
        """Point until the presenter's machine does it: hands on it do not count for a while after its own person's."""
        before = (await self.done())["done"]
        with trio.fail_after(PATIENCE):
            while (await self.done())["done"] == before:
                await self.hands([1, 100, 100])

    async def done(self) -> dict[str, object]:
        told = len(self.olga.heard("hands"))
        await self.olga.do(do="hands")
        return await self.olga.wait("hands", told + 1)


@pytest.fixture
async def meeting(tmp_path: Path) -> AsyncIterator[Meeting]:
    needs("Xvfb", package="xvfb")
    needs("xterm", package="xterm")
    pipe = tmp_path / "typed"
    os.mkfifo(pipe)
    typed = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    shell = f"stty raw -echo; exec tee {pipe}"
    command = ["env", "LC_ALL=C.UTF-8", "xterm", "-u8", "-geometry", "60x20+0+0", "-e", "sh", "-c", shell]
    async with xvfb_desktop(1000, 700, [command]) as display, trio.open_nursery() as nursery, run_cluster(tmp_path / "cluster") as cluster:
        story = Story(nursery, tmp_path, cluster, display, Verdict())
        await story.schedule()
        await story.host()
        await story.join(BEN, "mcs-2")
        try:
            yield Meeting(story, display, typed)
        finally:
            for member in story.members.values():
                member.process.kill()
            nursery.cancel_scope.cancel()
            os.close(typed)


async def test_G10_G11_hands_type_in_a_real_terminal_until_they_are_taken_back(meeting: Meeting) -> None:
    assert not await meeting.hands([5, "nobody lent me this"])
    await meeting.lend(BEN)
    assert await meeting.hands([1, 100, 100], [5, "Hello né 中文 😀."])
    assert await meeting.until_typed(".") == "Hello né 中文 😀."
    async with X11Touch(meeting.display) as person:  # another program moves the same display: the person at it
        await person.act(Key(TAKE_BACK, True))
        await person.act(Key(TAKE_BACK, False))
        await meeting.ben.wait("control", 2)
    assert not await meeting.hands([5, "too late"])
    await meeting.lend(BEN)
    await meeting.until_hands_count()  # the person's hands rest
    assert await meeting.hands([4, 0xFFE1, True], [5, "x."])  # Shift goes down and stays
    await meeting.until_typed(".")
    await meeting.olga.do(do="pause")
    await meeting.ben.wait("control", 4)
    assert (await meeting.done())["holder"] == 0
    await meeting.olga.do(do="resume")
    async with X11Touch(meeting.display) as person:
        for down in (True, False):
            await person.act(Key(ord("a"), down))
    assert (await meeting.until_typed("a"))[-1:] == "a"  # Shift was let go with the grant


async def test_G10_stale_hands_and_a_dead_holder_leave_nothing_down(meeting: Meeting) -> None:
    await meeting.lend(BEN)
    assert await meeting.hands([1, 100, 100], [4, 0xFFE1, True], [5, "y."])
    await meeting.until_typed(".")
    meeting.ben.process.kill()
    display = Display(meeting.display)
    await display.open()
    await eventually(lambda: not display.connection.core.QueryPointer(display.root).reply().mask & 1)  # Shift
    display.close()


async def test_G10_hands_type_in_a_real_browser(meeting: Meeting, tmp_path: Path) -> None:
    needs("chromium", package="chromium")
    page = tmp_path / "page.html"
    page.write_text(PAGE)
    flags = ["--no-sandbox", "--no-first-run", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=600,400"]
    command = ["chromium", *flags, "--window-position=380,280", f"--app=file://{page}"]
    display = Display(meeting.display)
    await display.open()
    windows = Windows(display)
    async with trio.open_nursery() as nursery:
        environment = {**os.environ, "DISPLAY": meeting.display}
        browser = await trio.lowlevel.open_process(command, env=environment, stdout=-3, stderr=-3, process_group=0)
        try:
            await eventually(lambda: bool(windows.programs(["empty"]).areas))
            await meeting.lend(BEN)
            await meeting.hands([1, 700, 500], [2, 1, True], [2, 1, False])
            await trio.sleep(0.5)
            text = "Aé ñ中€ done"
            await meeting.hands([5, text])
            await eventually(lambda: bool(windows.programs([f"typed {text}"]).areas))
            # Ctrl-A, and one letter over it
            await meeting.hands([4, 0xFFE3, True], [4, ord("a"), True], [4, ord("a"), False], [4, 0xFFE3, False], [5, "Z"])
            await eventually(lambda: bool(windows.programs(["typed Z"]).areas))
        finally:
            os.killpg(browser.pid, 9)
            await browser.wait()
            nursery.cancel_scope.cancel()
    display.close()
