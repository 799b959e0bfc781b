"""The organizer's role comes to a guest, whose program dies by SIGKILL: it is taken up again, and ended by a second Ctrl-C. Real processes."""

import signal
from pathlib import Path

import trio
from PIL import Image

from endpoint.cluster import run_cluster
from tests.endpoint.cli.programs import Place, Program, place


def organizers(program: Program) -> list[str]:
    """Who organizes, one after the other, as the program says."""
    return [said["name"] for said in program.all("organizer")]


async def guest(here: Place, name: str, link: str) -> Program:
    program = await here.start("join", "--name", name, "--link-file", link)
    await program.event("session")
    return program


async def interrupt(program: Program) -> None:
    """Ctrl-C, until it has asked whether that is meant, or has ended."""
    asked = asks(program)
    program.process.send_signal(signal.SIGINT)
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await program.ended()
            nursery.cancel_scope.cancel()

        nursery.start_soon(end)
        await program.until(lambda: asks(program) > asked)
        nursery.cancel_scope.cancel()


def asks(program: Program) -> int:
    return sum("Ctrl-C again" in said["text"] for said in program.all("note"))


async def test_G08_a_guest_that_became_the_organizer_survives_its_death(tmp_path: Path) -> None:
    (servers := tmp_path / "servers").mkdir()
    async with place(tmp_path) as here, run_cluster(servers, ("mcs-1", "mcs-2")) as cluster:
        where = ("--manager", cluster.site, "--ca", str(cluster.ca))
        key = here.secret("key", cluster.key)
        meeting = await (await here.start("schedule", "--title", "Passing", *where, "--key-file", key)).event("meeting")
        number, link = str(meeting["meeting_id"]), here.secret("link", meeting["link"])
        (tmp_path / "config" / "parley").mkdir(parents=True)
        (tmp_path / "config" / "parley" / "parley.toml").write_text(f'ca = "{cluster.ca}"\n')
        (slides := tmp_path / "slides").mkdir()
        Image.new("RGB", (64, 36), (10, 120, 200)).save(slides / "1.png")
        twins = [await here.start("host", number, "--name", "Olga", "--share", str(slides), "--key-file", key) for _ in range(2)]
        for twin in twins:
            await twin.until(lambda twin=twin: twin.all("session") or twin.all("error"))  # type: ignore[misc]
        (olga,), (refused,) = [twin for twin in twins if twin.all("session")], [twin for twin in twins if twin.all("error")]
        assert refused.all("error")[0]["name"] == "already-hosted"
        assert await refused.ended() == 1
        ana = await guest(here, "Ana", link)
        ben = await guest(here, "Ben", link)
        await olga.tell("hand-over", name="Ana")
        await ana.event("chair-offered")
        await ana.tell("accept")
        await ana.event("done", do="accept", answer="You are the organizer.")
        await ben.event("organizer", name="Ana")
        await ana.tell("mute", name="Ben")
        await ben.event("chat-right", allowed=False)
        book = tmp_path / "state" / "parley" / "meetings" / f"{number}.chair"
        assert book.stat().st_mode & 0o777 == 0o600
        assert not any(word in book.read_bytes() for word in (b"Ana", b"Ben", b"Olga")), "sealed"

        ana.process.kill()
        await ana.process.wait()
        again = await guest(here, "Ana", link)
        await again.event("note", text="You organized this session when your program died: you are back in it as its organizer.")
        await ben.until(lambda: organizers(ben) == ["Ana", "Ana"])
        await ben.tell("chat", text="muted")
        await ben.event("refused")
        here_now = [who for who in again.all("roster")[0]["people"] if who["presence"] != "left"]
        assert [(who["name"], who["organizer"]) for who in here_now] == [("Ana", True), ("Olga", False), ("Ben", False)]
        cleo = await guest(here, "Cleo", link)  # the chain from the meeting key still leads to her
        await again.tell("present", name="Cleo")
        await ben.event("presenter", name="Cleo")

        # a death in the middle of a second death's return: the office is with whoever wrote last
        again.process.kill()
        await again.process.wait()
        third = await guest(here, "Ana", link)
        await cleo.event("organizer", name="Ana")
        await cleo.tell("chat", text="we are still here")
        await third.event("chat", text="we are still here")

        await interrupt(third)
        await cleo.tell("chat", text="not over")
        await third.event("chat", text="not over")
        while third.process.returncode is None:  # two that are close together: on a busy machine each may be taken for a first one
            await interrupt(third)
        assert third.process.returncode == 0
        for program in (olga, ben, cleo):
            await program.event("ended")
        assert not await trio.Path(book).exists()
