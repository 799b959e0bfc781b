"""The whole story in a real browser: first administrator, invitation, second factors, a meeting, its guests, reports, deletion."""

import re

import pyotp

from manager.accounts import AccountRole
from tests.manager.site.browser import PASSWORD, Person, Served


async def test_the_first_administrator_invites_an_organizer_who_schedules(site: Served) -> None:
    link = site.one_time_link("ada@example.org", AccountRole.INTERNAL_ADMIN)

    def ada(ada: Person) -> None:
        ada.go(link)
        assert "#" not in ada.page.url, "the secret stays in the address"
        ada.type(name="Ada Admin", password=PASSWORD)
        ada.press("Begin")
        ada.at("/meetings")
        ada.sees("Nothing is planned")
        ada.page.get_by_role("link", name="Administration").click()
        ada.page.get_by_role("link", name="Invitations").click()
        ada.type(email="olga@example.org", name="Olga")
        ada.press("Invite")
        ada.sees("The invitation is on its way.")
        ada.sees("olga@example.org")

    await site.person(ada)

    def olga(olga: Person) -> None:
        olga.go(site.link_to("olga@example.org"))
        olga.type(name="Olga Organizer", password=PASSWORD)
        olga.press("Begin")
        olga.at("/meetings")
        olga.go("/account/factors")
        olga.press("Set up an app")
        key = olga.page.locator("output.code").inner_text()
        code = pyotp.TOTP(key)
        olga.type(code=code.now())
        olga.press("Turn the app on")
        codes = olga.page.locator(".codes li").all_inner_texts()
        assert len(codes) == 10
        olga.press("Sign out")
        olga.sign_in("olga@example.org")
        olga.at("/sign-in/second")
        olga.type(code=codes[0])
        olga.press("Continue")
        olga.at("/meetings")
        olga.page.get_by_role("link", name="Schedule a meeting").first.click()
        olga.type(title="Harbour planning", date="2026-12-24", time="15:00")
        olga.page.select_option("#zone", "Asia/Tokyo")
        olga.page.select_option("#every", "week")
        olga.type(times="4")
        olga.press("Schedule")
        olga.sees("The meeting is scheduled.")
        olga.sees("Thursday 24 December 2026, 07:00")  # in Paris
        olga.sees("Thursday 24 December 2026, 15:00 (Asia/Tokyo)")
        olga.main_page("meeting")
        shown = olga.page.inner_text("#link")
        assert re.fullmatch(rf"{site.address}/j/[1-9]\d{{8}}/[0-9a-f]{{16}}#[a-z]+-[a-z]+-[a-z]+-[a-z]+\.", shown), shown

    await site.person(olga)
