"""Whole meetings by the command line: real programs, a real display, nothing left behind."""

import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio
from PIL import Image

from endpoint.cluster import run_cluster, start_server
from endpoint.screen.x11 import X11Source
from endpoint.screen.xvfb import xvfb_desktop
from tests.endpoint.cli.programs import WITHIN, Place, Program, alive, children, place
from tests.needs import needs

XTERM = ["xterm", "-geometry", "60x10+40+30", "-bg", "white", "-fg", "navy", "-e", "sh", "-c"]


async def joined(here: Place, name: str, *arguments: str) -> Program:
    guest = await here.start("join", "--name", name, "--picture", f"{name}.png", *arguments)
    await guest.event("session")
    return guest


def same(path: Path, rgb: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bool:
    if not path.exists():
        return False
    with Image.open(path) as image:
        return np.array_equal(np.asarray(image.convert("RGB")), rgb)


async def test_G20_guests_by_id_and_by_link_chat_and_see_the_same_pixels(tmp_path: Path) -> None:
    needs("Xvfb", package="xvfb")
    needs("xterm", package="xterm")
    async with xvfb_desktop(640, 400, programs=[]) as display, X11Source(display) as source, place(tmp_path) as here:
        up = await here.start("up", "--title", "Weekly", "--name", "Olga", "--share", "desktop", "--display", display)
        meeting = await up.event("meeting")
        await up.event("on-air", state="on air")
        number = f"{str(meeting['meeting_id'])[:3]}-{str(meeting['meeting_id'])[3:6]}-{str(meeting['meeting_id'])[6:]}"
        assert (meeting["title"], meeting["badge"]) == ("Weekly", "operator-proof")
        assert meeting["password"].count("-") == 3

        # by ID with a password file; by the link as the first line of standard input; a wrong password
        ana = await joined(here, "Ana", number, "--password-file", here.secret("words", meeting["password"]))
        ben = await here.start("join", "--name", "Ben", "--picture", "Ben.png")
        await ben.write(meeting["link"])
        session = await ben.event("session")
        assert (session["badge"], session["words"]) == ("operator-proof", meeting["words"])
        assert ana.all("session")[0]["badge"].startswith("operator-proof unless")
        wrong = await here.start("join", number, "--password-file", here.secret("wrong", "not-the-right-words"))
        assert await wrong.ended() == 1
        await wrong.until(lambda: b"parley: wrong-secret: " in wrong.stderr)
        assert wrong.all("error")[0]["name"] == "wrong-secret"
        await up.event("join-refused", reason="wrong-secret")

        # the screen changes under their eyes
        async with trio.open_nursery() as drawing:
            command = [*XTERM, "echo 'some text'; sleep 100"]
            drawing.start_soon(partial(trio.run_process, command, env={**here.environment(), "DISPLAY": display}, check=False))
            with trio.fail_after(WITHIN):
                while len(np.unique(source.grab()[0][:, :, 0])) < 3:
                    await source.wait()
            for guest, picture in ((ana, "Ana.png"), (ben, "Ben.png")):  # each says when it has written its picture
                await guest.until(lambda picture=picture: same(tmp_path / picture, source.grab()[0][:, :, 2::-1]))  # type: ignore[misc]
            drawing.cancel_scope.cancel()

        # everyone writes to everyone, in one order for each writer
        everyone = {"Olga": up, "Ana": ana, "Ben": ben}
        for line in range(3):
            for name, program in everyone.items():
                await program.tell("chat", text=f"{name} says {line}")
        for program in everyone.values():
            await program.until(lambda program=program: len(program.chat()) == 9)  # type: ignore[misc]
            for name in everyone:
                assert [text for said, text in program.chat() if said == name] == [f"{name} says {line}" for line in range(3)]

        # the organizer's hand
        await up.tell("mute", name="Ben")
        await ben.event("chat-right", allowed=False)
        await ben.tell("chat", text="unheard")
        await ben.event("refused", name="not-allowed")
        await ben.tell("mute", name="Ana")
        await ben.until(lambda: len(ben.all("refused")) == 2)
        await up.tell("pause")
        await ana.event("watching", state="paused by the presenter")
        await up.tell("dismiss", name="Ben")
        assert await ben.ended() == 1
        assert ben.all("error")[0]["name"] in ("dismissed", "revoked")
        await ana.event("member-left", name="Ben", dismissed=True)
        late = await here.start("join", number, "--password-file", str(tmp_path / "words"))
        await late.event("must-wait")
        await up.event("knock")
        await up.tell("turn-away", name=str(up.all("knock")[0]["name"]))
        assert await late.ended() == 1
        assert late.all("error")[0]["name"] == "turned-away"
        await up.tell("unlock")
        await up.event("done", do="unlock")  # or who comes next still knocks
        slides = tmp_path / "slides"
        slides.mkdir()
        Image.new("RGB", (1280, 720), (10, 120, 200)).save(slides / "1.png")
        cleo = await joined(here, "Cleo", number, "--password-file", str(tmp_path / "words"), "--share", str(slides))

        # another one presents: the organizer sees it like everyone else
        await up.tell("present", name="Cleo")
        await cleo.event("presenter", name="Cleo")
        await cleo.tell("share")
        await cleo.event("on-air", state="on air")
        await up.until(lambda: up.all("on-air")[-1]["state"] == "off")
        plain = np.full((720, 1280, 3), (10, 120, 200), np.uint8)
        await ana.until(lambda: same(tmp_path / "Ana.png", plain))
        await up.until(lambda: same(tmp_path / f"parley-{meeting['meeting_id']}.png", plain))
        await ana.tell("nonsense")
        await ana.event("refused", name="command-unknown")

        # the end is the organizer's signed word, and nothing is left
        assert len(here.runs) == 1
        servers = children(up.process.pid)
        assert sum(" mcs " in f" {command} " for command in servers.values()) == 2
        for secret in (meeting["password"], meeting["link"]):
            assert all(secret not in command for command in servers.values())
        up.process.send_signal(signal.SIGINT)
        assert await up.ended() == 0
        await ana.event("ended")
        assert await ana.ended() == 0
        assert here.runs == []
        assert [command for number, command in servers.items() if alive(number, command)] == []
        assert b"Traceback" not in up.stderr + ana.stderr + ben.stderr


async def test_runs_beside_each_other_and_after_a_kill_leave_nothing(tmp_path: Path) -> None:
    needs("Xvfb", package="xvfb")
    slides = tmp_path / "slides"
    slides.mkdir()
    Image.new("RGB", (64, 36), (10, 120, 200)).save(slides / "1.png")
    async with place(tmp_path) as here:
        first, second = [await here.start("up", "--share", share) for share in ("xvfb", str(slides))]
        meetings = [await up.event("meeting") for up in (first, second)]
        assert meetings[0]["meeting_id"] != meetings[1]["meeting_id"]
        assert len(here.runs) == 2
        password = here.secret("words", meetings[1]["password"])

        # two run here: which one is meant has to be said
        unsaid = await here.start("join", "--password-file", password)
        assert await unsaid.ended() == 1
        ana = await joined(here, "Ana", str(meetings[1]["meeting_id"]), "--password-file", password)

        # kill -9: nobody can tidy up, so everything ends by itself, and the next run removes the rest
        orphans = children(first.process.pid)
        assert len(orphans) >= 3
        watched = []
        for number in orphans:
            with suppress(ProcessLookupError):  # a short-lived one, of the desktop's clock
                watched.append(os.pidfd_open(number))
        first.process.kill()
        await first.ended()
        with trio.fail_after(WITHIN):
            for process in watched:
                await trio.lowlevel.wait_readable(process)  # it has ended
                os.close(process)
        assert len(here.runs) == 2
        third = await here.start("up", "--share", str(slides))
        await third.event("meeting")
        assert len(here.runs) == 2

        # a relay dies under a meeting: it is told by name, it comes back, nothing is lost
        await second.until(lambda: [said for said in second.all("link") if said["node"]])
        node = [said["node"] for said in second.all("link") if said["node"]][-1]
        victim = next(number for number, command in children(second.process.pid).items() if f"/{node} " in f"{command} ")
        os.kill(victim, signal.SIGKILL)
        await second.until(lambda: any(node in said["text"] and "started again" in said["text"] for said in second.all("note")))
        await ana.tell("chat", text="through the fall")
        await second.until(lambda: ("Ana", "through the fall") in second.chat())
        await second.until(lambda: any("runs again" in said["text"] for said in second.all("note")))

        # SIGTERM is as good as Ctrl-C
        second.process.send_signal(signal.SIGTERM)
        third.process.send_signal(signal.SIGTERM)
        assert (await second.ended(), await third.ended(), await ana.ended()) == (0, 0, 0)
        assert here.runs == []


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--share", "desktop", "--display", ":987"), "no-display"),
        (("--share", "desktop"), "no-display"),
        (("--share", "/nowhere/at/all"), "no-pictures"),
        (("--display", ":987"), "no-display"),
    ],
)
async def test_what_cannot_be_shared_is_refused_before_anything_starts(tmp_path: Path, arguments: tuple[str, ...], name: str) -> None:
    async with place(tmp_path) as here:
        up = await here.start("up", *arguments)
        assert await up.ended() == 1
        await up.until(lambda: up.stderr.endswith(b"\n"))
        assert up.stderr.startswith(f"parley: {name}: ".encode())
        assert up.stderr.count(b"\n") == 1
        assert [said["name"] for said in up.all("error")] == [name]
        assert here.runs == []


async def test_a_meeting_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        lost = await here.start("join", "123-456-789", "--password-file", here.secret("words", "a-b-c-d"))
        assert await lost.ended() == 1
        await lost.until(lambda: lost.stderr.startswith(b"parley: manager-unknown: "))


async def test_G02_G04_a_scheduled_meeting_waits_opens_and_is_ended_from_elsewhere(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    Image.new("RGB", (64, 36), (10, 120, 200)).save(slides / "1.png")
    servers = tmp_path / "servers"
    servers.mkdir()
    async with place(tmp_path) as here, run_cluster(servers, ("mcs-1",)) as cluster:
        key = here.secret("key", cluster.key)
        (tmp_path / "config" / "parley").mkdir(parents=True)
        (tmp_path / "config" / "parley" / "parley.toml").write_text(f'manager = "{cluster.site}"\nca = "{cluster.ca}"\nkey_file = "{key}"\n')
        schedule = await here.start("schedule", "--title", "Later")
        assert await schedule.ended() == 0
        meeting = await schedule.event("meeting")
        number = str(meeting["meeting_id"])
        kept = trio.Path(meeting["kept"])
        assert (await kept.stat()).st_mode & 0o777 == 0o600

        # who has the link waits; who typed the ID alone learns nothing
        early = await here.start("join", "--name", "Ana", "--link-file", here.secret("link", meeting["link"]))
        await early.until(lambda: any("not opened" in said["text"] for said in early.all("note")))
        stranger = await here.start("join", number, "--password-file", here.secret("words", meeting["password"]))
        assert await stranger.ended() == 1
        assert stranger.all("error")[0]["name"] == "meeting-unavailable"

        host = await here.start("host", number, "--name", "Olga", "--share", str(slides))
        await early.event("watching", state="live")
        await early.event("picture")
        assert early.all("session")[0]["title"] == "Later"
        assert (tmp_path / f"parley-{number}.png").exists()

        # a manager that dies is not needed by a running session
        await cluster.servers["manager"].stop()
        await early.tell("chat", text="without a manager")
        await host.until(lambda: host.chat() == [("Ana", "without a manager")])
        unreachable = await here.start("end", number, as_json=False)
        assert await unreachable.ended() == 1
        await unreachable.until(lambda: unreachable.stderr.startswith(b"parley: manager-unreachable: "))
        manager = cluster.servers["manager"]
        cluster.servers["manager"] = await start_server(cluster.nursery, "manager", manager.again, manager.log_path, None, manager.again)

        end = await here.start("end", number, as_json=False)
        assert await end.ended() == 0, end.stderr
        assert (await host.ended(), await early.ended()) == (0, 0), host.stderr
        assert not await kept.exists()
        again = await here.start("host", number, "--share", str(slides))
        assert await again.ended() == 1
        await again.until(lambda: again.stderr.startswith(b"parley: meeting-not-kept: "))
