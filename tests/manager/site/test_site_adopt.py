"""A meeting that was scheduled on a page gets its key from the endpoint that will host it."""

import time

import pytest

from endpoint import sdk
from endpoint.errors import MalformedLink, ManagerRefused
from endpoint.invitation import Badge, Invitation, parse_invitation_untrusted
from manager import keys, meetings
from manager.accounts import AccountRole, add_account
from manager.callers import ORGANIZER_SCOPES
from manager.store import Store
from tests.manager.support import Manage


async def test_G01_a_meeting_of_the_site_is_adopted_by_the_endpoint_that_hosts_it(manage: Manage) -> None:
    async with manage(site="https://meet.example.org") as manager:
        store = Store(manager.settings.store)
        olga = store.write_now(add_account, "olga@example.org", "Olga", AccountRole.ORGANIZER, time.time())
        _, bits = store.write_now(keys.make_key, olga.id, "laptop", ORGANIZER_SCOPES, time.time())
        made = store.write_now(meetings.schedule, olga, "Harbour", None, time.time())
        invite = made.invite.reveal().hex()
        link = parse_invitation_untrusted(f"https://meet.example.org/j/{made.number}/{invite}#drastic-bag-bubble-%C3%A9t%C3%A9.")
        assert (link.password, link.expected, link.badge) == ("drastic-bag-bubble-été", None, Badge.UNLESS_INVITEE)
        site = f"https://localhost:{manager.api_port}"
        key = keys.key_text(bits)
        adopted = await sdk.adopt(link, site, ca=manager.pki.ca, key=key)
        assert (adopted.title, adopted.invitation.password, adopted.invitation.invite) == ("Harbour", link.password, invite)
        assert adopted.invitation.link().rpartition(".")[0] == link.link().rpartition(".")[0], "guests get the pages' address, as before"
        assert adopted.manager == site, "and it is hosted at the API's"
        typed = await sdk.adopt(Invitation(made.number, password=link.password), site, ca=manager.pki.ca, key=key)
        assert typed.invitation.site == link.site, "for who typed the meeting ID, too"
        assert adopted.invitation.badge is Badge.OPERATOR_PROOF
        found = store.read_now(meetings.find_meeting, made.number)
        assert found is not None
        assert found.meeting_key is not None
        again = await sdk.adopt(link, site, ca=manager.pki.ca, key=key)
        assert again.seed != adopted.seed, "the endpoint that adopted it last is the one"
        store.write_now(meetings.cancel, olga, made.number, time.time())
        with pytest.raises(ManagerRefused) as refused:
            await sdk.adopt(link, site, ca=manager.pki.ca, key=key)
        assert refused.value.name == "meeting-ended"
        store.close()


@pytest.mark.parametrize(
    ("pages", "shown"), [("https://meet.example.org", True), ("http://localhost:8080", False)], ids=["public", "here-alone"]
)
async def test_G01_the_link_of_a_meeting_leads_guests_to_the_pages(manage: Manage, pages: str, shown: bool) -> None:
    """Unless nobody reaches them from another machine: then to the API, as `parley join` takes it."""
    async with manage(site=pages) as manager:
        api = f"https://localhost:{manager.api_port}"
        key = str((await manager.add_organizer())["authorization"]).removeprefix("Bearer ")
        made = await sdk.schedule(api, "Harbour", ca=manager.pki.ca, key=key)
        assert (made.invitation.site, made.manager) == (pages if shown else api, api)
        assert made.invitation.badge is Badge.OPERATOR_PROOF


@pytest.mark.parametrize(
    "fragment", [".", "words", "words.abc", "%ff.", "x" * 300 + "."], ids=["bare-dot", "no-dot", "short", "no-utf8", "long"]
)
def test_half_links_are_refused(fragment: str) -> None:
    with pytest.raises(MalformedLink):
        parse_invitation_untrusted(f"https://h/j/123456789/0123456789abcdef#{fragment}")
