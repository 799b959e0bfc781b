"""How long from a key to its picture, how many pictures a second, what a late member costs: glass to glass, through everything.

    python benchmarks/glass.py [--json] [--quick] [--only keys,fps,page,late,idle,hands,slow]

One meeting of real processes on loopback: a manager that issues the session, two relays, SRP, sealed packets; a presenter on an Xvfb desktop
of 1920 × 1080 and two attendees, one on each relay. Times are CLOCK_MONOTONIC, read in the processes that see the event.

    key_to_pixel_ms       XTEST key press on the presenter's desktop → drawn in an attendee's picture
    fps_terminal          pictures a second at the slower attendee: lines running through xterm, and vim scrolling; the smaller one
    fps_page              the same while Chromium scrolls a page of the Python documentation
    late_join_ms          a third attendee, from asking the manager for a ticket to the whole picture
    late_join_bytes_others  what came down another attendee's link for it while the screen stood still (begun just after a heartbeat, which
                          comes every five seconds anyway): the log's entry, the pointer anew; restart_bytes: what the next key costs
                          more than a key did before, since the compression began anew
    idle_packets_per_s    screen and pointer packets of a still desktop; idle_cpu_percent: of the presenter's process
    slow_key_to_pixel_ms  the same as the first, while beside it a film is played, 30 pictures a second, and the presenter's line carries
                          LINE bytes a second; slow_kb_per_s: what it carried, slow_fps: pictures a second at an attendee
    input_to_effect_ms    an attendee who was lent the keyboard: its key → the picture of the effect in its own picture

Needs the Debian packages xvfb, xterm, vim, chromium and python3.11-doc.
"""

import argparse
import json
import logging
import math
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from crypto.signing import fingerprint
from endpoint.chair import HEARTBEAT_EVERY
from endpoint.cluster import run_cluster
from endpoint.demo.desktop import TERMINAL, Keyboard
from endpoint.demo.run import MemberProcess, Story, Verdict
from endpoint.hands import Key, Move, Text, Wheel
from endpoint.screen.x11_display import Display
from endpoint.screen.x11_touch import X11Touch
from endpoint.screen.xvfb import xvfb_desktop
from net.process import configure_logging
from tests.endpoint.screen.test_screen_codec import film

SIZE: Final = (1920, 1080)
ANA, BEN, LENA = "Ana Attendee", "Ben Attendee", "Lena Latecomer"
PAGE: Final = "/usr/share/doc/python3.11/html/library/stdtypes.html"
SOURCE: Final = Path(__file__).parent.parent / "endpoint" / "channel.py"
NEEDS: Final = {"Xvfb": "xvfb", "xterm": "xterm", "vim": "vim", "chromium": "chromium"}
_POINTER_ROOT: Final = 1
LINE: Final = 125_000.0
"""Bytes a second of a slow line: 1 Mbit/s."""
LINES: Final = "import time\nfor n in range(10**6): print(n, 'the quick brown fox jumps over a dog', n * n, flush=True); time.sleep(1/60)"
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Glass:
    """One meeting, and what is measured in it."""

    def __init__(self, story: Story, display: str, quick: bool) -> None:
        self.story = story
        self.display = display
        self.seconds = 3.0 if quick else 6.0
        self.presses = 30 if quick else 120
        self.figures: dict[str, float] = {}

    async def ask(self, member_name: str, event: str, **order: object) -> dict[str, Any]:
        member = self.story.members[member_name]
        seen = len(member.heard(event))
        await member.do(**order)
        return await member.wait(event, seen + 1)

    async def figures_of(self, name: str) -> dict[str, Any]:
        return await self.ask(name, "figures", do="figures")

    def put(self, name: str, took: list[float]) -> None:
        self.figures[f"{name}_p50"] = round(statistics.median(took), 1)
        self.figures[f"{name}_p95"] = round(statistics.quantiles(took, n=20)[-1], 1)

    async def pixels_after(self, member: MemberProcess, act: Any) -> float:
        """When the member drew something for the first time after `act`; 0 if it did not."""
        seen = len(member.heard("pixel"))
        await act()
        await member.until(lambda: len(member.heard("pixel")) > seen, "a change on its screen")
        return float(member.heard("pixel")[seen]["at"])

    async def keys(self, name: str = "key_to_pixel_ms") -> None:
        ben, keyboard = self.story.members[BEN], Keyboard(self.display)
        await self.ask(BEN, "trace", do="trace", on=True)
        keyboard.focus()
        took = []
        for number in range(self.presses):
            began = 0.0

            async def press(number: int = number) -> None:
                nonlocal began
                began = time.monotonic()
                keyboard.press("\n" if number % 20 == 19 else "parley"[number % 6])
                await trio.lowlevel.checkpoint()

            drawn = await self.pixels_after(ben, press)
            took.append(1000 * (drawn - began))
            await trio.sleep(0.06)
        keyboard.close()
        await self.ask(BEN, "trace", do="trace", on=False)
        self.put(name, took)

    async def hands(self) -> None:
        """Ben is lent the keyboard; his pointer is over the terminal, which has the keys."""
        await self.ask("Olga Organizer", "lent", do="lend", name=BEN)
        await self.story.members[BEN].until(lambda: any(e["name"] == BEN for e in self.story.members[BEN].heard("control")), "the grant")
        await self.keys_go_to(100, 100)
        await trio.sleep(1.5)  # the presses before were the person's own: hers go first
        await self.ask(BEN, "trace", do="trace", on=True)
        took = []
        ben = self.story.members[BEN]
        for number in range(self.presses):
            handed = len(ben.heard("handed"))
            event = [4, 0xFF0D, True] if number % 20 == 19 else [5, "parley"[number % 6]]
            drawn = await self.pixels_after(ben, partial(ben.do, do="hands", events=[event, [4, 0xFF0D, False]]))
            took.append(1000 * (drawn - (await ben.wait("handed", handed + 1))["at"]))
            await trio.sleep(0.06)
        await self.ask(BEN, "trace", do="trace", on=False)
        self.figures["hands_dropped"] = float(sum((await self.ask("Olga Organizer", "hands", do="hands"))["dropped"].values()))
        await self.ask("Olga Organizer", "lent", do="lend", name="")
        self.put("input_to_effect_ms", took)

    async def slow(self) -> None:
        """On a slow line: see `measure`. A film takes all of it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, self.display)
            await trio.sleep(8.0)  # until the line is known
            host, ben, began = await self.figures_of("Olga Organizer"), await self.figures_of(BEN), time.monotonic()
            await self.keys("slow_key_to_pixel_ms")
            span = time.monotonic() - began
            self.figures["slow_kb_per_s"] = round(((await self.figures_of("Olga Organizer"))["bytes"] - host["bytes"]) / span / 1000, 1)
            self.figures["slow_fps"] = round(((await self.figures_of(BEN))["frames"] - ben["frames"]) / span, 1)
            nursery.cancel_scope.cancel()

    async def rate(self, name: str) -> float:
        """Pictures a second at the slower attendee, while something moves."""
        await trio.sleep(1.0)
        before = [await self.figures_of(member) for member in (ANA, BEN)]
        host = await self.figures_of("Olga Organizer")
        await trio.sleep(self.seconds)
        after = [await self.figures_of(member) for member in (ANA, BEN)]
        now = await self.figures_of("Olga Organizer")
        rates = [(b["frames"] - a["frames"]) / (b["at"] - a["at"]) for a, b in zip(before, after, strict=True)]
        self.figures[f"fps_{name}"] = round(min(rates), 1)
        self.figures[f"kb_per_s_{name}"] = round((now["bytes"] - host["bytes"]) / (now["at"] - host["at"]) / 1000, 1)
        return float(min(rates))

    async def fps(self) -> None:
        rates = []
        with self.program("xterm", "-geometry", "150x60+700+60", "-fa", "Monospace", "-fs", "11", "-e", sys.executable, "-c", LINES):
            rates.append(await self.rate("xterm"))
        vim = (
            "xterm",
            "-geometry",
            "150x60+700+60",
            "-fa",
            "Monospace",
            "-fs",
            "11",
            "-T",
            "vim",
            "-e",
            "vim",
            "-u",
            "NONE",
            "-R",
            str(SOURCE),
        )
        with self.program(*vim):
            await trio.sleep(1.0)
            await self.keys_go_to(900, 300)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.press_on)
                rates.append(await self.rate("vim"))
                nursery.cancel_scope.cancel()
        self.figures["fps_terminal"] = round(min(rates), 1)

    async def page(self) -> None:
        profile = tempfile.mkdtemp(prefix="parley-glass-")
        flags = (
            "--no-sandbox",
            "--no-first-run",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            "--window-size=1900,1040",
            "--window-position=0,0",
        )
        try:
            with self.program("chromium", *flags, f"--app=file://{PAGE}"):
                await trio.sleep(6.0)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.wheel_on)
                    await self.rate("page")
                    nursery.cancel_scope.cancel()
        finally:
            shutil.rmtree(profile, ignore_errors=True)

    async def press_on(self) -> None:
        """Ctrl-E in vim, sixty a second; at the end of the file back to its beginning."""
        async with X11Touch(self.display) as touch:
            for number in range(1 << 20):
                if number % 300 == 299:
                    await touch.act(Text("gg"))
                else:
                    for event in (Key(0xFFE3, True), Key(ord("e"), True), Key(ord("e"), False), Key(0xFFE3, False)):
                        await touch.act(event)
                await trio.sleep(1 / 60)

    async def keys_go_to(self, x: int, y: int) -> None:
        """The pointer goes there, and keys go to the window under it: there is no window manager."""
        display = Display(self.display)
        await display.open()
        display.connection.core.SetInputFocusChecked(1, _POINTER_ROOT, 0).check()
        display.close()
        async with X11Touch(self.display) as touch:
            await touch.act(Move(x, y))

    async def wheel_on(self) -> None:
        async with X11Touch(self.display) as touch:
            await touch.act(Move(900, 500))
            for number in range(1 << 20):
                await touch.act(Wheel(0, 1 if number % 600 < 300 else -1))
                await trio.sleep(1 / 30)

    @contextmanager
    def program(self, *command: str) -> Iterator[None]:
        quiet = subprocess.DEVNULL
        running = subprocess.Popen(command, env={**os.environ, "DISPLAY": self.display}, stdout=quiet, stderr=quiet, process_group=0)
        try:
            yield
        finally:
            os.killpg(running.pid, 15)
            running.wait()

    async def one_key(self) -> int:
        """Bytes on Ben's link for one key."""
        before = (await self.figures_of(BEN))["bytes"]
        keyboard = Keyboard(self.display)
        keyboard.focus()
        keyboard.press("x")
        await trio.sleep(0.5)
        keyboard.close()
        return int((await self.figures_of(BEN))["bytes"] - before)

    async def beat(self) -> None:
        """Wait for the organizer's heartbeat: nothing else comes while the screen stands still, and it not again for five seconds."""
        before = now = (await self.figures_of(BEN))["bytes"]
        with trio.fail_after(3 * HEARTBEAT_EVERY):
            while now == before:
                await trio.sleep(0.05)
                now = (await self.figures_of(BEN))["bytes"]

    async def late(self) -> None:
        await trio.sleep(2.0)
        usual = min([await self.one_key() for _ in range(5)])  # sometimes a letter and the cursor come in two updates
        took, others, restarts = [], [], []
        for number in range(1 if self.seconds < 5 else 3):
            name = f"{LENA} {number}"
            await self.beat()
            before = (await self.figures_of(BEN))["bytes"]
            story = self.story
            guest = await story.start(name, role="join", node="mcs-2", password=story.password, expected=fingerprint(story.meeting_key.public))
            story.members[name] = guest
            took.append((await guest.wait("whole"))["ms"])
            await trio.sleep(1.0)
            others.append((await self.figures_of(BEN))["bytes"] - before)
            restarts.append(await self.one_key() - usual)
            await trio.sleep(0.5)
        self.figures["late_join_ms"] = round(statistics.median(took), 1)
        self.figures["late_join_bytes_others"] = round(statistics.median(others))
        self.figures["restart_bytes"] = min(restarts)
        self.figures["key_bytes"] = usual

    async def idle(self) -> None:
        await trio.sleep(3.0)
        pid = self.story.members["Olga Organizer"].process.pid
        before, cpu, began = await self.figures_of("Olga Organizer"), ticks(pid), time.monotonic()
        await trio.sleep(4 * self.seconds)
        span = time.monotonic() - began
        used = (ticks(pid) - cpu) / TICKS
        after = await self.figures_of("Olga Organizer")
        self.figures["idle_packets_per_s"] = round((after["packets"] - before["packets"]) / span, 2)
        self.figures["idle_cpu_percent"] = round(100 * used / span, 2)


def ticks(pid: int) -> int:
    """CPU of a process so far, in clock ticks: /proc/PID/stat, fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def play(display: str) -> None:
    """A film of 480 × 320 on the right of a display."""
    screen = Display(display)
    await screen.open()
    core, window, context = screen.connection.core, screen.connection.generate_id(), screen.connection.generate_id()
    core.CreateWindow(24, window, screen.root, 1300, 500, 480, 320, 0, 1, 0, 512, [True])
    core.CreateGC(context, window, 0, [])
    core.MapWindow(window)
    try:
        for picture in film(480, 320):
            for top in range(0, 320, 64):  # a request has a bound
                part = picture[top : top + 64].tobytes()
                core.PutImage(2, window, context, 480, 64, 0, top, 0, 24, len(part), part)
            screen.connection.flush()
            await trio.sleep(1 / 30)
    finally:
        screen.close()


async def carry(to: int, *, task_status: trio.TaskStatus[int]) -> None:
    """A line to a port of this host: `LINE` bytes a second go there, and any number comes back. Says its own port."""

    async def one_way(source: trio.SocketStream, sink: trio.SocketStream, rate: float) -> None:
        free = trio.current_time()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while part := await source.receive_some(2048):
                free = max(free, trio.current_time()) + len(part) / rate
                await trio.sleep_until(free)
                await sink.send_all(part)

    async def both(caller: trio.SocketStream) -> None:
        async with caller, await trio.open_tcp_stream("127.0.0.1", to) as relay, trio.open_nursery() as nursery:
            nursery.start_soon(one_way, caller, relay, LINE)
            nursery.start_soon(one_way, relay, caller, math.inf)

    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # what waits, waits at the sender
    task_status.started(listener.socket.getsockname()[1])
    await trio.serve_listeners(both, [listener])


async def measure(quick: bool, steps: list[str], slow: bool) -> dict[str, float]:
    """One meeting, and these steps in it. slow: the presenter has a slow line to its relay."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-glass-")))
        display = await stack.enter_async_context(xvfb_desktop(*SIZE, programs=[TERMINAL]))
        nursery = await stack.enter_async_context(trio.open_nursery())
        cluster = await stack.enter_async_context(run_cluster(directory / "cluster"))
        story = Story(nursery, directory, cluster, display, Verdict())
        try:
            await story.schedule()
            way = {"way": ("127.0.0.1", await nursery.start(carry, cluster.servers["mcs-1"].ready["port"]))} if slow else {}
            await story.host(**way)
            await story.join(ANA, "mcs-1")
            await story.join(BEN, "mcs-2")
            await trio.sleep(2.0)
            glass = Glass(story, display, quick)
            for step in steps:
                await getattr(glass, step)()
        finally:
            for member in story.members.values():
                if member.process.returncode is None:
                    member.process.kill()
        nursery.cancel_scope.cancel()
    return glass.figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the figures as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer keys, shorter scenes")
    parser.add_argument("--only", default="keys,fps,page,late,idle,hands,slow", help="which of them")
    arguments = parser.parse_args()
    only = set(arguments.only.split(","))
    missing = [package for program, package in NEEDS.items() if shutil.which(program) is None]
    if "page" in only and not Path(PAGE).exists():
        missing.append("python3.11-doc")
    if missing:
        sys.exit(f"install the Debian packages {' '.join(missing)}")
    configure_logging(json=False, level=logging.WARNING)
    figures: dict[str, float] = {}
    for steps, slow in ((("keys", "idle", "late", "hands", "fps", "page"), False), (("slow",), True)):
        if wanted := [step for step in steps if step in only]:
            figures |= trio.run(measure, arguments.quick, wanted, slow)
    for name, figure in figures.items():
        print(f"{name:28} {figure:>10g}")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
