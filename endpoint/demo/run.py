"""The demo's story: one meeting, start to end, and what must be true of it.

manager and two relays, tapped ▸ organizer on mcs-1 presents a real desktop ▸ Ana on mcs-1, Ben on mcs-2 ▸ all chat ▸ a joiner with a wrong
password and a relay with a wrong certificate are refused ▸ Lena joins late, on mcs-2 ▸ keys are pressed and timed ▸ the desktop comes to
rest ▸ framebuffers are compared, pixel for pixel ▸ the end ▸ taps and disks are searched for canaries.
"""

import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import trio

from crypto.signing import SigningKey, fingerprint
from endpoint.cluster import HOST, Cluster, run_cluster
from endpoint.demo import taps
from endpoint.demo.desktop import SIZE, TERMINAL, Keyboard, canary_pixels
from endpoint.errors import EndpointError
from endpoint.manager_api import ManagerApi
from endpoint.screen.x11 import X11Source
from endpoint.screen.xvfb import xvfb_desktop
from endpoint.words import new_password
from net.pki import create_ca, enrol

LINES: Final = 20
"""Chat lines of each member."""
PRESSES: Final = 60
PRESS_EVERY: Final = 0.12
ANA: Final = "Ana Attendee"
BEN: Final = "Ben Attendee"
"""Names long enough to be searched for: three letters stand anywhere by chance."""
WITHIN: Final = 30.0
"""Seconds for each step of the story."""
_MAX_LINE: Final = 1 << 20


class DemoFailed(EndpointError):
    name = "demo-failed"
    sentence = "The demo could not be carried through."


@dataclass(slots=True)
class Verdict:
    """What came out. The demo is sound if nothing stands in `wrong`."""

    figures: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # what was seen, for a person

    def require(self, held: bool, what: str) -> None:
        (self.told if held else self.wrong).append(what)


class MemberProcess:
    """A member in a process of its own; what it says is kept in `said`."""

    def __init__(self, name: str, process: trio.Process, log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._heard = trio.Event()
        self.silent = False

    async def listen(self) -> None:
        assert self.process.stdout is not None
        pending = b""
        async for part in self.process.stdout:
            *lines, pending = (pending + part).split(b"\n")
            if len(pending) > _MAX_LINE:
                break
            self.said += [msgspec.json.decode(line) for line in lines]
            self._heard.set()
            self._heard = trio.Event()
        self.silent = True
        self._heard.set()

    def heard(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.said if line["event"] == event]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        with trio.move_on_after(WITHIN):
            while not condition():
                if self.silent:
                    raise self.failed(f"ended before: {what}")
                await self._heard.wait()
            return
        raise self.failed(f"did not come to: {what}")

    def failed(self, how: str) -> DemoFailed:
        return DemoFailed(f"{self.name} {how}. It said {self.said[-1:]} and logged {self.log_path.read_text()[-2000:]}")

    async def wait(self, event: str, count: int = 1) -> dict[str, Any]:
        """The `count`th time that it says this."""
        await self.until(lambda: len(self.heard(event)) >= count, event)
        return self.heard(event)[count - 1]

    async def do(self, **order: object) -> None:
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send_all(msgspec.json.encode(order) + b"\n")
        except trio.BrokenResourceError:
            raise self.failed("is gone") from None


class Story:
    """Everything that the steps share."""

    def __init__(self, nursery: trio.Nursery, directory: Path, cluster: Cluster, display: str, verdict: Verdict) -> None:
        self.nursery = nursery
        self.directory = directory
        self.cluster = cluster
        self.display = display
        self.verdict = verdict
        self.password = new_password()
        self.meeting_key = SigningKey.generate()
        self.plan: dict[str, object] = {}
        self.members: dict[str, MemberProcess] = {}
        self.sent: list[tuple[str, str]] = []  # name, text
        self.mark = secrets.token_hex(6)  # part of every line, so that it can be searched for

    async def schedule(self) -> None:
        cluster = self.cluster
        async with ManagerApi.connect(cluster.site, cluster.ca, cluster.key) as manager:
            made = await manager.schedule("The demo", self.meeting_key.public)
        self.plan = {"site": cluster.site, "ca": str(cluster.ca), "meeting": made.meeting, "invite": made.invite}

    async def start(self, name: str, **more: object) -> MemberProcess:
        log_path = self.directory / f"{name}.log"
        with log_path.open("wb") as log_file:
            command = [sys.executable, "-m", "endpoint.demo.member"]
            run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log_file, check=False)
            member = MemberProcess(name, await self.nursery.start(run), log_path)
        self.nursery.start_soon(member.listen)
        await member.do(**self.plan, name=name, **more)
        return member

    async def host(self, **more: object) -> None:
        """More: what else the organizer's process is told."""
        secret = {"key": self.cluster.key, "seed": self.meeting_key.seed.hex(), "password": self.password}
        organizer = await self.start("Olga Organizer", role="host", node="mcs-1", display=self.display, **secret, **more)
        self.members["Olga Organizer"] = organizer
        await organizer.wait("open")

    async def join(self, name: str, node: str) -> None:
        guest = await self.start(name, role="join", node=node, password=self.password, expected=fingerprint(self.meeting_key.public))
        self.members[name] = guest
        await guest.wait("whole")

    async def chat(self, names: list[str], lines: int) -> None:
        """Everybody talks at once."""

        async def talk(name: str) -> None:
            for _ in range(lines):
                text = f"{name} says {self.mark} {len(self.sent)}"
                self.sent.append((name, text))
                await self.members[name].do(do="chat", text=text)
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(talk, name)

    async def refused_guest(self) -> None:
        eve = await self.start("Eve", role="join", password=new_password(), expected=fingerprint(self.meeting_key.public))
        refused = await eve.wait("refused")
        self.verdict.require(refused["name"] == "wrong-secret", f"a joiner with a wrong password is refused: {refused['name']}")
        self.verdict.require(not any("Eve" in str(m.heard("roster")) for m in self.members.values()), "nobody saw that joiner on the list")

    async def refused_relay(self) -> None:
        """A relay whose certificate another authority has signed."""
        foreign = self.directory / "foreign"
        await trio.to_thread.run_sync(create_ca, foreign / "ca", "local")
        await trio.to_thread.run_sync(enrol, foreign / "ca", foreign / "mcs-3", "mcs", "mcs-3", [HOST])
        # it trusts our CA, so that only the manager has a reason to refuse
        (foreign / "mcs-3" / "ca.crt").write_bytes(self.cluster.ca.read_bytes())
        relay = await self.cluster.start_relay("mcs-3", foreign / "mcs-3")
        reason = ""
        with trio.move_on_after(WITHIN):
            while not reason:
                await trio.sleep(0.1)
                for line in relay.log_path.read_text().splitlines():
                    if "certificate-" in line:
                        reason = next(word for word in line.split('"') if word.startswith("certificate-"))
        self.verdict.require(
            reason in ("certificate-refused", "certificate-foreign"), f"a relay with a foreign certificate is refused: {reason or 'it was not'}"
        )
        await relay.stop()
        del self.cluster.servers["mcs-3"]

    async def press_keys(self) -> None:
        """Time from the key press on the presenter's desktop to the changed pixel in an attendee's framebuffer."""
        guest = self.members[BEN]
        await guest.do(do="trace", on=True)
        await guest.wait("trace")
        keyboard = Keyboard(self.display)
        took: list[float] = []
        try:
            keyboard.focus()
            for number in range(PRESSES):
                seen = len(guest.heard("pixel"))
                pressed = time.monotonic()
                keyboard.press("\n" if number % 20 == 19 else "parley"[number % 6])
                await guest.until(lambda: len(guest.heard("pixel")) > seen, "a key on its screen")  # noqa: B023  # awaited at once
                took.append(1000 * (guest.heard("pixel")[seen]["at"] - pressed))
                await trio.sleep(PRESS_EVERY)
        finally:
            keyboard.close()
        await guest.do(do="trace", on=False)
        await guest.wait("trace", 2)
        self.verdict.figures["key_to_pixel_ms_p50"] = round(statistics.median(took), 1)
        self.verdict.figures["key_to_pixel_ms_p95"] = round(statistics.quantiles(took, n=20)[-1], 1)

    async def compare(self, names: list[str]) -> None:
        """Every framebuffer against a fresh capture of the presenter's desktop."""
        async with X11Source(self.display) as source:
            truth = source.grab()[0].copy()
        equal = True
        for number in range(50):  # the last update may still be on its way
            equal = True
            for name in names:
                path = self.directory / f"{name}.npy"
                await self.members[name].do(do="picture", path=str(path))
                await self.members[name].wait("picture", number + 1)
                equal = equal and np.array_equal(np.load(path), truth)
            if equal:
                break
            await trio.sleep(0.1)
        self.verdict.figures["exact"] = int(equal)
        self.verdict.require(equal, f"{len(names)} framebuffers equal the desktop, pixel for pixel")

    def judge_chat(self, late: str, before: int) -> None:
        """Every line at everyone exactly once, each sender's in order; the late one has none from before."""
        lost = doubled = 0
        in_order = True
        for name, member in self.members.items():
            expected = self.sent[before:] if name == late else self.sent
            got = [(line["name"], line["text"]) for line in member.heard("chat")]
            counts = Counter(got)
            lost += sum(1 for line in expected if not counts[line])
            doubled += sum(count - 1 for count in counts.values() if count > 1)
            for sender in self.members:
                in_order = in_order and [g for g in got if g[0] == sender] == [e for e in expected if e[0] == sender]
        self.verdict.figures |= {"chat_sent": len(self.sent), "chat_lost": lost, "chat_doubled": doubled}
        self.verdict.require(not lost and not doubled, f"{len(self.sent)} chat lines reached everyone exactly once")
        self.verdict.require(in_order, "in the order of their senders, and nothing from before for the late one")

    def search(self, tap: Path) -> None:
        """Canaries in what the servers received and in what they keep."""
        wanted = taps.canaries({"chat": self.mark, "password": self.password, **{name: name for name in self.members}}, canary_pixels())
        places = [tap, *(self.cluster.directory / name for name in self.cluster.servers), *(s.log_path for s in self.cluster.servers.values())]
        directories = [place for place in places if place.is_dir()] + [self.cluster.directory]
        size = sum(len(content) for _, content in taps.everything([tap]))
        found = taps.find(wanted, directories)
        self.verdict.figures["canaries_found"] = len(found)
        self.verdict.require(not found, f"no canary in {size >> 10} KiB of taps and the servers' disks" + "".join(f"; {f}" for f in found[:5]))
        self.verdict.require(size > 1 << 16, "the taps recorded the meeting")


async def run_demo() -> Verdict:
    """The whole story. Raises DemoFailed, ServerFailed, ScreenError."""
    verdict = Verdict()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-demo-")))
        tap = directory / "tap"
        display = await stack.enter_async_context(xvfb_desktop(*SIZE, programs=[TERMINAL]))
        nursery = await stack.enter_async_context(trio.open_nursery())
        cluster = await stack.enter_async_context(run_cluster(directory / "cluster", tap=tap))
        story = Story(nursery, directory, cluster, display, verdict)
        painter = await trio.lowlevel.open_process(
            [sys.executable, "-m", "endpoint.demo.desktop", display], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            await _tell(story, painter, tap)
        finally:
            painter.kill()
            for member in story.members.values():
                if member.process.returncode is None:
                    member.process.kill()
        nursery.cancel_scope.cancel()
    return verdict


async def _tell(story: Story, painter: trio.Process, tap: Path) -> None:
    assert painter.stdin is not None
    assert painter.stdout is not None
    await painter.stdout.receive_some()
    await story.schedule()
    await story.host()
    early = [ANA, BEN]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(story.join, ANA, "mcs-1")
        nursery.start_soon(story.join, BEN, "mcs-2")
    await story.chat([*early, "Olga Organizer"], LINES)
    for name in [*early, "Olga Organizer"]:
        member = story.members[name]
        await member.until(lambda m=member: len(m.heard("chat")) >= len(story.sent), "all early chat")  # type: ignore[misc]
    before = len(story.sent)
    await story.refused_guest()
    await story.refused_relay()
    late = "Lena Latecomer"
    await story.join(late, "mcs-2")
    everyone = [*early, late, "Olga Organizer"]
    await story.chat(everyone, LINES)
    for name in everyone:
        member, expected = story.members[name], len(story.sent) - (before if name == late else 0)
        await member.until(lambda m=member, e=expected: len(m.heard("chat")) >= e, "all chat")  # type: ignore[misc]
    await painter.stdin.aclose()  # the square stops where it is
    await story.press_keys()
    await trio.sleep(0.3)
    await story.compare([*early, late, "Olga Organizer"])
    story.judge_chat(late, before)
    story.verdict.figures["join_ms_p50"] = round(statistics.median(story.members[n].heard("whole")[0]["ms"] for n in [*early, late]), 1)
    organizer = story.members["Olga Organizer"]
    await organizer.do(do="cost")
    cost = await organizer.wait("cost")
    story.verdict.figures["admission_cpu_ms"] = round(1000 * cost["admission_cpu"] / max(1, cost["judged"]), 2)
    await organizer.do(do="end")
    for name in [*early, late]:
        await story.members[name].wait("ended")
    story.verdict.require(True, "the end reached everyone")
    await trio.to_thread.run_sync(story.search, tap)


def report(verdict: Verdict) -> str:
    """The last line of `--json`."""
    return json.dumps({"figures": verdict.figures})
