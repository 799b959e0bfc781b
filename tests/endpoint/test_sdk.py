"""The lines of docs/sdk.md, against a real manager and real relays."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from PIL import Image

from endpoint import sdk
from endpoint.cluster import run_cluster
from endpoint.errors import ManagerRefused, NoManager, SessionOver, WrongSecret
from endpoint.invitation import Badge, Invitation
from endpoint.sdk import single_errors
from endpoint.session import Session
from wire.ids import MeetingId

DOCUMENT = Path(__file__).parents[2] / "docs" / "sdk.md"
WITHIN = 180.0


async def test_the_documented_lines_host_join_chat_and_receive_frames(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(code) == 1
    names: dict[str, Any] = {}
    exec(compile(code[0], str(DOCUMENT), "exec"), names)
    main = cast(Callable[[str, Path, str, Path], Awaitable[int]], names["main"])
    slides = tmp_path / "slides"
    slides.mkdir()
    Image.new("RGB", (1280, 720), (90, 90, 90)).save(slides / "1.png")
    with trio.fail_after(WITHIN):
        async with run_cluster(tmp_path, ("mcs-1", "mcs-2")) as cluster:
            assert await main(cluster.site, cluster.ca, cluster.key, slides) == 90
            await _refusals(cluster.site, cluster.ca, cluster.key)


async def _refusals(site: str, ca: Path, key: str) -> None:
    """In the same cluster, since starting one costs seconds."""
    meeting = await sdk.schedule(site, "Second", ca=ca, key=key, password="")
    assert meeting.invitation.badge is Badge.IMPERSONABLE
    assert "seed" not in repr(meeting)
    with pytest.raises(ManagerRefused) as early:
        async with sdk.join(meeting.invitation, "Early", ca=ca):
            raise AssertionError("it is not open")
    assert early.value.name == "not-open-yet"
    async with sdk.host(meeting, ca=ca, key=key) as session:
        wrong = Invitation(meeting.invitation.meeting, site, meeting.invitation.invite, "wrong", meeting.invitation.expected)
        with pytest.raises(WrongSecret):  # itself, not in a group
            async with sdk.join(wrong, "Mallory", ca=ca):
                raise AssertionError("a wrong password got in")
        async with sdk.join(meeting.invitation, "Ana", ca=ca) as ana:
            await session.end()
            await ana.until(lambda: ana.state.ended)
            with pytest.raises(SessionOver):
                await ana.chat("too late")
    await _cancelled(site, ca, key)


async def _cancelled(site: str, ca: Path, key: str) -> None:
    """A host whose block is cancelled ends the session by its signed word all the same; a guest is written off at once."""
    meeting = await sdk.schedule(site, "Third", ca=ca, key=key)
    async with trio.open_nursery() as nursery:
        hosting = trio.CancelScope()

        async def host(task_status: trio.TaskStatus[Session]) -> None:
            with hosting:
                async with sdk.host(meeting, ca=ca, key=key) as session:
                    task_status.started(session)
                    await trio.sleep_forever()

        olga: Session = await nursery.start(host)
        async with sdk.join(meeting.invitation, "Ana", ca=ca) as ana:
            with trio.CancelScope() as leaving:
                async with sdk.join(meeting.invitation, "Ben", ca=ca):
                    await ana.until(lambda: len(ana.state.members) == 3)
                    leaving.cancel()
                    await trio.lowlevel.checkpoint()
            await ana.until(lambda: len(ana.state.members) == 2)
            hosting.cancel()
            await ana.until(lambda: ana.state.ended)
        assert olga.over


async def test_a_meeting_without_a_manager_is_refused_by_name() -> None:
    with pytest.raises(NoManager):
        async with sdk.join(Invitation(MeetingId(123456789)), "Ana", ca="nowhere"):
            pass


def test_one_error_comes_out_of_its_groups_and_two_stay_together() -> None:
    with pytest.raises(KeyError), single_errors():
        raise BaseExceptionGroup("", [ExceptionGroup("", [KeyError("deep")])])
    with pytest.raises(ExceptionGroup), single_errors():
        raise ExceptionGroup("", [KeyError(), ValueError()])
