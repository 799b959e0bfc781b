"""The whole story in a real browser: first administrator, invitation, second factors, a meeting, its guests, reports, deletion."""

import re
from base64 import b64decode

import pyotp
from sqlalchemy import Connection

from manager.accounts import AccountRole
from manager.policy import Policy, set_policy
from manager.store import meetings
from tests.manager.site.browser import PASSWORD, Person, Served, words_of

ROOMS = r"/j/[1-9]\d{8}/[0-9a-f]{16}"


def number(link: str) -> str:
    """As people type it."""
    digits = link.partition("/j/")[2][:9]
    return f" {digits[:3]} {digits[3:6]}-{digits[6:]}"


def open_all(db: Connection) -> None:
    """As if their organizers had opened all meetings."""
    db.execute(meetings.update().values(state="open"))


async def test_G01_G20_from_the_first_administrator_to_a_guest(site: Served) -> None:
    first = site.one_time_link("ada@example.org", AccountRole.INTERNAL_ADMIN)
    links: list[str] = []

    def ada(ada: Person) -> None:
        ada.go(first)
        assert "#" not in ada.page.url, "the secret stays in the address"
        ada.type(name="Ada Admin", password=PASSWORD)
        ada.press("Begin")
        ada.at("/meetings")
        ada.main_page("meetings-empty")
        ada.go("/admin/invitations")
        ada.type(email="olga@example.org", name="Olga")
        ada.press("Invite")
        ada.sees("The invitation is on its way.")
        ada.main_page("invitations")

    def olga(olga: Person) -> None:
        olga.go(site.link_to("olga@example.org"))
        olga.type(name="Olga Organizer", password=PASSWORD)
        olga.press("Begin")
        olga.at("/meetings")
        olga.page.get_by_role("link", name="Schedule a meeting").first.click()
        olga.type(title="Harbour planning", date="2026-12-24", time="15:00")
        olga.page.select_option("#zone", "Asia/Tokyo")
        olga.page.select_option("#every", "week")
        olga.type(times="4")
        olga.main_page("schedule")
        olga.press("Schedule")
        olga.sees("Thursday 24 December 2026, 07:00")  # in Paris
        olga.sees("Thursday 24 December 2026, 15:00 (Asia/Tokyo)")
        olga.main_page("meeting")
        link = olga.page.inner_text("#link")
        assert re.fullmatch(rf"{site.address}{ROOMS}#[a-z]+-[a-z]+-[a-z]+-[a-z]+\.", link), link
        links.append(link)
        olga.press("Copy the link")
        assert olga.clipboard() == link
        olga.page.get_by_role("button", name="Copy as text").click()
        assert link in olga.clipboard()
        mail = olga.page.get_by_role("link", name="Write a mail").get_attribute("href")
        assert mail is not None
        assert mail.startswith("mailto:?subject=Harbour%20planning&body=")
        with olga.page.expect_download() as download:
            olga.page.get_by_role("link", name="For the calendar").click()
        entry = download.value.path().read_bytes()
        assert link in entry.replace(b"\r\n ", b"").decode()
        assert b"DTSTART;TZID=Asia/Tokyo:20261224T150000" in entry
        assert all(len(line) <= 75 for line in entry.split(b"\r\n"))
        olga.type(guests="bob@example.org, carol@example.org")
        olga.press("Send")
        olga.sees("The invitations are on their way.")
        olga.page.get_by_role("link", name="Meetings", exact=True).click()
        olga.main_page("meetings")

    def guest(guest: Person) -> None:
        guest.go(links[0])
        guest.sees("The password is in your link")
        guest.sees("not open yet")
        guest.press("Copy the link")
        assert guest.clipboard() == links[0]
        guest.main_page("join")
        guest.press("Français")
        guest.sees("Le mot de passe est dans votre lien")
        assert guest.page.url == links[0], "a change of language loses the password"
        guest.press("English")
        guest.sees("not open yet")
        site.store.write_now(open_all)
        guest.page.reload()
        guest.sees("open now")
        guest.go("/join")
        guest.type(id="12-34")
        guest.press("Continue")
        assert "nine digits" in guest.error("id")
        guest.type(id=number(links[0]))
        guest.press("Continue")
        guest.press("Is it open?")
        guest.sees("open now")
        guest.go("/j/999999999")
        guest.press("Is it open?")
        guest.sees("not available now")
        guest.fits("join, not available")
        guest.press("Français")
        guest.press("Est-elle ouverte ?")  # Playwright takes every kind of space for one
        guest.sees("pas disponible")
        guest.fits("join in French, not available")

    await site.person(ada)
    await site.person(olga)
    await site.person(guest)
    bare, _, password = links[0].partition("#")
    letter = site.letter("bob@example.org")
    assert bare in words_of(letter)
    assert password.rstrip(".") not in letter.as_string()
    calendar = next(part for part in letter.walk() if part.get_content_type() == "text/calendar")
    assert b"METHOD:REQUEST" in b64decode(str(calendar.get_payload()))


async def test_a_chosen_password_outlives_a_refusal_and_stays_with_its_meeting(site: Served) -> None:
    site.add("Olga", "olga@example.org")

    def olga(olga: Person) -> None:
        olga.signed_in("olga@example.org")
        olga.go("/meetings/new")
        olga.type(title="First")
        olga.press("Schedule")
        olga.sees("The meeting is scheduled.")
        first, link = olga.page.url, olga.page.inner_text("#link")
        assert "#" in link
        olga.go("/meetings/new")
        olga.page.get_by_label("My own").check()
        olga.type(**{"own-password": "grey heron 7", "title": "Second", "date": ""})
        olga.press("Schedule")
        assert "Choose a day" in olga.error("date")
        assert olga.page.input_value("#own-password") == "grey heron 7"
        olga.press("Schedule")
        assert olga.page.input_value("#own-password") == "grey heron 7"
        olga.go(first)
        assert olga.page.inner_text("#link") == link, "one meeting's password in another one's link"
        olga.go("/meetings/new")
        olga.page.get_by_label("My own").check()
        olga.type(**{"own-password": "grey heron 7", "title": "Second", "date": ""})
        olga.press("Schedule")
        olga.type(date="2030-12-24")
        olga.press("Schedule")
        olga.sees("The meeting is scheduled.")
        assert olga.page.inner_text("#link").endswith("#grey%20heron%207.")

    await site.person(olga)


async def test_a_form_sent_after_the_sign_in_has_ended_is_sent_again(site: Served) -> None:
    site.add("Olga", "olga@example.org")

    def olga(olga: Person) -> None:
        olga.signed_in("olga@example.org")
        olga.go("/meetings/new")
        olga.page.get_by_label("My own").check()
        olga.type(**{"own-password": "grey heron 7", "title": "Harbour & “quay”"})
        olga.context.clear_cookies()
        olga.press("Schedule")
        olga.sees("Your sign-in has ended")
        olga.main_page("sign-in-ended")
        assert olga.page.locator('form[action="/language"]').count() == 0, "what leads away in this tab loses what was typed"
        with olga.context.expect_page() as opened:
            olga.page.get_by_role("link", name="Sign in, in a new tab").click()
        tab = opened.value
        tab.fill("#email", "olga@example.org")
        tab.fill("#password", PASSWORD)
        tab.get_by_role("button", name="Sign in", exact=True).click()
        tab.wait_for_url("**/meetings")
        tab.close()
        olga.press("Send again")
        olga.sees("The meeting is scheduled.")
        olga.sees("Harbour & “quay”")
        assert olga.page.inner_text("#link").endswith("#grey%20heron%207."), "and the password that never left this browser is there still"

    await site.person(olga)


async def test_a_second_factor_of_every_kind(site: Served) -> None:
    site.add("Olga Organizer", "olga@example.org")

    def olga(olga: Person) -> None:
        olga.signed_in("olga@example.org")
        olga.go("/account/factors")
        olga.press("Set up an app")
        olga.main_page("authenticator")
        app = pyotp.TOTP(olga.page.locator("output.code").inner_text())
        olga.type(code="12345")
        olga.press("Turn the app on")
        assert "not the one" in olga.error("code")
        app = pyotp.TOTP(olga.page.locator("output.code").inner_text())
        olga.type(code=app.now())
        olga.press("Turn the app on")
        codes = olga.page.locator(".codes li").all_inner_texts()
        assert len(codes) == 10
        olga.press("Sign out")
        olga.sign_in("olga@example.org")
        olga.at("/sign-in/second")
        olga.main_page("second-step")
        olga.type(code="000000")
        olga.press("Continue")
        assert "did not match" in olga.error("code")
        olga.type(code=codes[0])
        olga.press("Continue")
        olga.at("/meetings")
        devtools = olga.context.new_cdp_session(olga.page)
        devtools.send("WebAuthn.enable")
        authenticator = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True}
        devtools.send(
            "WebAuthn.addVirtualAuthenticator", {"options": authenticator | {"isUserVerified": True, "automaticPresenceSimulation": True}}
        )
        olga.go("/account/factors")
        olga.type(name="My laptop")
        olga.press("Add a passkey")
        olga.page.get_by_role("heading", name="My laptop").wait_for()
        olga.main_page("factors")
        olga.press("Sign out")
        olga.sign_in("olga@example.org")
        olga.press("Use a passkey")
        olga.at("/meetings")
        site.clock.ahead += 3600
        olga.go("/account/factors")
        olga.at("/account/prove?next=/account/factors")
        olga.press("Use a passkey")
        olga.at("/account/factors")
        olga.agree("Remove the app")
        olga.sees("Removed.")

    await site.person(olga)


async def test_an_administrator_rules_and_a_person_leaves(site: Served) -> None:
    site.add("Ada Admin", "ada@example.org", AccountRole.INTERNAL_ADMIN)
    site.add("Olga Organizer", "olga@example.org")

    def ada(ada: Person) -> None:
        ada.signed_in("ada@example.org")
        ada.go("/admin/users")
        ada.main_page("users")
        ada.page.get_by_role("link", name="Olga Organizer").click()
        ada.page.get_by_label("Whisper to one").uncheck()
        ada.page.get_by_label("Must have a second factor").check()
        ada.main_page("user")
        ada.press("Save")
        ada.sees("Saved.")
        assert not ada.page.get_by_label("Whisper to one").is_checked()
        ada.go("/admin/policy")
        ada.page.get_by_label("Strangers may make an account").check()
        ada.type(networks="192.0.2.0/24")
        ada.press("Save")
        assert "lock yourself out" in ada.error("networks")
        assert ada.page.input_value("#networks") == "192.0.2.0/24"
        ada.type(networks="")
        ada.main_page("policy")
        ada.press("Save")
        ada.sees("Saved.")
        ada.go("/admin/audit")
        ada.sees("account-changed")
        ada.main_page("audit")
        ada.go("/admin/nodes")
        ada.main_page("nodes")
        ada.go("/admin/reports")
        ada.main_page("reports")
        with ada.page.expect_download() as download:
            ada.page.get_by_role("link", name="CSV").click()
        assert download.value.path().read_text().startswith("meeting_id,title,organizer")

    def olga(olga: Person) -> None:
        olga.sign_in("olga@example.org")
        olga.at("/account/factors")
        olga.sees("Your administrators ask for a second factor.")
        olga.go("/meetings")
        olga.at("/account/factors")
        olga.press("Set up an app")
        olga.type(code=pyotp.TOTP(olga.page.locator("output.code").inner_text()).now())
        olga.press("Turn the app on")
        olga.go("/meetings/new")
        assert olga.page.get_by_label("Whisper to one").count() == 0, "what was turned off is not offered"
        olga.go("/account/keys")
        olga.type(name="My laptop")
        olga.main_page("keys")
        olga.press("Make a key")
        assert olga.page.inner_text("#new-key").startswith("parley_")
        olga.go("/account/sign-ins")
        olga.sees("this one")
        olga.main_page("sign-ins")
        olga.go("/account")
        olga.main_page("profile")
        olga.go("/account/data")
        with olga.page.expect_download() as download:
            olga.page.get_by_role("link", name="Download").click()
        assert "olga@example.org" in download.value.path().read_text()
        olga.agree("Delete my account")
        olga.sees("The account is deleted.")
        olga.sign_in("olga@example.org")
        olga.sees("That did not match.")
        olga.main_page("sign-in")

    await site.person(ada)
    await site.person(olga)


async def test_a_stranger_signs_up_and_forgets_the_password(site: Served) -> None:
    def stranger(tom: Person) -> None:
        tom.go("/")
        tom.main_page("home")
        assert tom.page.get_by_role("link", name="Make an account").count() == 0
        tom.go("/sign-up")
        tom.type(email="tom@example.org")
        tom.press("Send the link")
        tom.sees("Accounts are made by invitation here")

    await site.person(stranger)
    site.store.write_now(set_policy, Policy(sign_up=True))

    def welcome(tom: Person) -> None:
        tom.go("/sign-up")
        tom.type(email="tom")
        tom.press("Send the link")
        assert tom.error("email")
        assert tom.page.input_value("#email") == "tom"
        tom.type(email="tom@example.org")
        tom.main_page("sign-up")
        tom.press("Send the link")
        tom.sees("Look into your mail")
        tom.go(site.link_to("tom@example.org"))
        tom.type(name="Tom", password="password1")
        tom.press("Begin")
        assert "first that anybody would try" in tom.error("password")
        assert tom.page.input_value("#name") == "Tom"
        tom.type(password=PASSWORD)
        tom.sees("Very good")
        tom.press("Begin")
        tom.at("/meetings")
        tom.press("Sign out")
        tom.go("/forgot")
        tom.type(email="tom@example.org")
        tom.press("Send the link")
        tom.sees("If there is an account")
        link = site.link_to("tom@example.org")
        tom.go(link)
        tom.type(password="Another-9-lantern")
        tom.press("Change the password")
        tom.at("/meetings")
        tom.press("Sign out")
        tom.go(link)
        tom.type(password="Another-9-lantern")
        tom.press("Change the password")
        assert "used already" in tom.error("token")
        tom.sign_in("tom@example.org")
        tom.sees("That did not match.")

    await site.person(welcome)
