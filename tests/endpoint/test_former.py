"""The organizer's program dies while it hands the chair over, at every step. There is never a second log: real manager, real relays."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from endpoint import former, sdk
from endpoint.cluster import Cluster, run_cluster
from endpoint.journal import Journal, JournalError
from endpoint.session import Session
from wire.control import Position
from wire.ids import EVERYONE, Channel, ParticipantId

WITHIN = 240.0


def mute(olga: Session) -> None:
    """Nothing of hers leaves the machine any more."""
    olga.pull = lambda budget: None  # type: ignore[method-assign]


def mute_from_a_heartbeat_on(olga: Session) -> None:
    """Nor did her last heartbeat, which precedes the entry in her stream: no relay takes the one without the other."""
    mute(olga)
    olga.act(lambda chair, now: chair._beat(now))


def deaf(olga: Session) -> None:
    """She does not learn that a relay has it, so the office does not pass."""

    def nothing(positions: list[Position], now: float) -> None:
        pass

    olga.member.taken = nothing  # type: ignore[method-assign]


DEATHS: dict[str, Callable[[Session], None]] = {
    "before it is sent": mute,
    "behind a heartbeat": mute_from_a_heartbeat_on,
    "before the office passes": deaf,
    "afterwards": lambda olga: None,
}


def kill(session: Session) -> None:
    """As SIGKILL would: nothing is said, and the file is left as it is."""
    assert session.member.journal is not None
    session.member.journal.close()
    session.member.journal = None
    session._closing = True
    session._tasks.cancel()


async def hand_over(cluster: Cluster, path: Path, death: Callable[[Session], None]) -> None:
    meeting = await sdk.schedule(cluster.site, "Passing", ca=cluster.ca, key=cluster.key)
    async with AsyncExitStack() as stack:
        olga = await stack.enter_async_context(sdk.host(meeting, ca=cluster.ca, key=cluster.key, name="Olga", journal=path))
        ana = await stack.enter_async_context(sdk.join(meeting.invitation, "Ana", ca=cluster.ca))
        ben = await stack.enter_async_context(sdk.join(meeting.invitation, "Ben", ca=cluster.ca))
        olga.act(lambda chair, now: chair.hand_over(ana.me, now))
        await ana.until(lambda: ana.member.heir.offered)
        death(olga)
        ana.accept_chair()
        await olga.until(lambda: not olga.member.organizes)
        if death not in (mute, mute_from_a_heartbeat_on):
            await ben.until(lambda: ben.state.organizer == ana.me)
        kill(olga)
        again = await stack.enter_async_context(sdk.host(meeting, ca=cluster.ca, key=cluster.key, name="Olga", journal=path))
        assert not again.member.organizes
        for session in (again, ana, ben):
            await session.until(lambda session=session: session.state.organizer == ana.me)  # type: ignore[misc]
        ana.act(lambda chair, now: chair.appoint(ben.me, now))
        for session in (again, ben):
            await session.until(lambda session=session: session.state.presenter == ben.me)  # type: ignore[misc]
        assert len({session.state.head_at(ana.state.index) for session in (again, ana, ben)}) == 1
        assert not any(session.member.dropped["fork"] + session.member.dropped["entry-illegal"] for session in (again, ana, ben))


async def test_G08_an_organizer_that_dies_while_it_hands_over_leaves_one_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(WITHIN):
        async with run_cluster(tmp_path, ("mcs-1", "mcs-2")) as cluster:
            for step, death in DEATHS.items():
                await hand_over(cluster, tmp_path / step, death)
            await _a_chair_that_came_back(cluster, tmp_path / "host", tmp_path / "guest")
            await _an_heir_that_dies_before_any_relay_knows(cluster, tmp_path / "heir", monkeypatch)


async def _a_chair_that_came_back(cluster: Cluster, host: Path, guest: Path) -> None:
    """To Ana, who dies and comes back; to Olga again, who dies and comes back; and somebody else's death takes nothing up."""
    meeting = await sdk.schedule(cluster.site, "There and back", ca=cluster.ca, key=cluster.key)
    async with AsyncExitStack() as stack:
        olga = await stack.enter_async_context(sdk.host(meeting, ca=cluster.ca, key=cluster.key, name="Olga", journal=host))
        ana = await stack.enter_async_context(sdk.join(meeting.invitation, "Ana", ca=cluster.ca, journal=guest))
        ben = await stack.enter_async_context(sdk.join(meeting.invitation, "Ben", ca=cluster.ca))
        await pass_to(olga, ana)
        await ana.change_password("another one")
        newer = replace(meeting.invitation, password="another one")
        kill(ana)
        ana = await stack.enter_async_context(sdk.join(newer, "somebody", ca=cluster.ca, journal=guest))
        assert ana.member.organizes
        assert ana.member.name(ana.me) == "Ana"
        await ben.until(lambda: ben.state.organizer == ana.me)
        with pytest.raises(JournalError):
            Journal.read(guest, ana.ticket.secret)
        cleo = await stack.enter_async_context(sdk.join(newer, "Cleo", ca=cluster.ca, journal=guest))
        assert not cleo.member.organizes, "who organizes on this machine is alive"
        await pass_to(ana, olga)
        kill(olga)
        olga = await stack.enter_async_context(sdk.host(meeting, ca=cluster.ca, key=cluster.key, name="Olga", journal=host))
        assert olga.member.organizes
        for session in (ana, ben, cleo):
            await session.until(lambda session=session: session.state.organizer == olga.me)  # type: ignore[misc]
        await olga.end()
        await cleo.until(lambda: cleo.state.ended)
    assert not await trio.Path(host).exists()
    assert not await trio.Path(guest).exists()


async def _an_heir_that_dies_before_any_relay_knows(cluster: Cluster, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log names Ana, the relays still name Olga: Ana's next process waits for them."""
    meeting = await sdk.schedule(cluster.site, "Early death", ca=cluster.ca, key=cluster.key)
    async with AsyncExitStack() as stack:
        olga = await stack.enter_async_context(sdk.host(meeting, ca=cluster.ca, key=cluster.key, name="Olga"))
        ana = await stack.enter_async_context(sdk.join(meeting.invitation, "Ana", ca=cluster.ca, journal=path))
        ben = await stack.enter_async_context(sdk.join(meeting.invitation, "Ben", ca=cluster.ca))
        taken, errand, answers = olga.member.taken, former._errand, []
        deaf(olga)
        olga.act(lambda chair, now: chair.hand_over(ana.me, now))
        await ana.until(lambda: ana.member.heir.offered)
        ana.accept_chair()
        await ana.until(lambda: ana.member.organizes)
        await olga.until(lambda: not olga.member.organizes)
        kill(ana)

        async def until_the_first_answer(*of: Any) -> ParticipantId | None:
            answers.append(await errand(*of))
            if len(answers) == 1:
                taken([(olga.me, EVERYONE, Channel.LOG, olga.member.channels.last(Channel.LOG))], trio.current_time())
                olga._settle()  # so the office passes
            return answers[-1]

        monkeypatch.setattr(former, "_errand", until_the_first_answer)
        ana = await stack.enter_async_context(sdk.join(meeting.invitation, "Ana", ca=cluster.ca, journal=path))
        assert answers[0] == olga.me
        assert ana.member.organizes
        for session in (olga, ben):
            await session.until(lambda session=session: session.state.organizer == ana.me)  # type: ignore[misc]


async def pass_to(organizer: Session, heir: Session) -> None:
    organizer.act(lambda chair, now: chair.hand_over(heir.me, now))
    await heir.until(lambda: heir.member.heir.offered)
    heir.accept_chair()
    await heir.until(lambda: heir.member.organizes)
    await organizer.until(lambda: organizer.member.settled)
