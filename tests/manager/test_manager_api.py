"""The HTTP API over real TLS: who may what, and what a stranger learns."""

from tests.manager.support import Manage


async def test_a_whole_meeting(manage: Manage) -> None:
    async with manage() as manager:
        relay = await manager.relay("relay-1")
        auth = await manager.add_organizer()
        meeting = await manager.schedule(auth)
        ticket = await manager.open(auth, meeting)
        guest = await manager.http.post("/tickets", json={"meeting_id": meeting["meeting_id"]})
        assert guest.status_code == 200
        print(ticket, guest.json(), relay.said)
        ended = await manager.http.post(f"/sessions/{ticket['session']}/end", headers=auth)
        assert ended.status_code == 200
        assert relay.facts[-1].ended
