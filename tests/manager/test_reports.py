"""A report of a session that was held: manager, relays and members as they are."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from endpoint import sdk
from endpoint.cluster import Cluster, run_cluster
from endpoint.errors import WrongSecret
from endpoint.invitation import Invitation

WITHIN = 60.0


async def reported(cluster: Cluster) -> dict[str, Any]:
    """The newest session, as its organizer is told."""
    auth = {"authorization": f"Bearer {cluster.key}"}
    async with httpx.AsyncClient(trust_env=False, base_url=cluster.pages, headers=auth) as http:
        found: dict[str, Any] = (await http.get("/api/v1/sessions")).json()["sessions"][0]
    return found


async def test_G14_attendance_is_who_was_let_in(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with run_cluster(tmp_path, ("mcs-1", "mcs-2")) as cluster:
            where: dict[str, Any] = {"ca": cluster.ca}
            meeting = await sdk.schedule(cluster.site, "Weekly", key=cluster.key, **where)
            given = meeting.invitation
            async with sdk.host(meeting, key=cluster.key, **where) as host:
                assert (await reported(cluster))["attendees"] == 0  # the organizer is no guest of its own
                wrong = Invitation(given.meeting, cluster.site, given.invite, "wrong", given.expected)
                with pytest.raises(WrongSecret):  # three tries, one ticket, nobody let in
                    async with sdk.join(wrong, "Mallory", **where):
                        raise AssertionError("a wrong password got in")
                async with sdk.join(given, "Ana", **where) as ana:
                    async with sdk.join(given, "Ben", **where):
                        await ana.until(lambda: len(ana.state.members) == 3)
                    await ana.until(lambda: len(ana.state.members) == 2)
                    page = Invitation(given.meeting, cluster.pages, given.invite, given.password, given.expected)
                    async with sdk.join(page, "Ben", **where):  # his program was started anew; by the site's link, in clear on this machine
                        await ana.until(lambda: len(ana.state.members) == 3)
                        await host.end()
                        await ana.until(lambda: ana.state.ended)
            while (report := await reported(cluster))["ended_at"] is None or report["attendees"] < 3:
                pass  # what relays say is on its way
            assert (report["title"], report["attendees"]) == ("Weekly", 3)
            assert report["opened_at"] < report["ended_at"]
