"""A real manager's site, a real Chromium, and how people use both.

The site is served in the test's own trio loop; what a person does is a plain function over Playwright's synchronous pages, in a thread.
"""

import email
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import trio
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Response, ViewportSize, sync_playwright
from sqlalchemy import Connection

from manager import links, signin
from manager.accounts import AccountRole, account_by_email, add_account
from manager.house import House
from manager.links import Purpose
from manager.passwords import make_verifier
from manager.store import Store
from tests.needs import needs

SHOTS = os.environ.get("PARLEY_SCREENSHOTS", "")
"""A folder for pictures of the main pages, such as docs/site; without it none is taken."""
LOOKS = {"": ("light", 1200, 780), "-dark": ("dark", 1200, 780), "-phone": ("light", 390, 844)}
DESK: ViewportSize = {"width": 1200, "height": 780}
CHROMIUM = "/usr/bin/chromium"
PASSWORD = "Marsh4-lantern-otter"
ZONE = "Europe/Paris"


@dataclass
class Clock:
    """Time that tests may move."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Served:
    """A site that is served at `address`."""

    address: str
    house: House
    store: Store
    mail: Path
    clock: Clock
    pages: list[str] = field(default_factory=list)

    async def person(self, story: Callable[..., None], **how: Any) -> None:
        """Run what a person does in a browser of its own."""

        def run() -> None:
            with chromium() as browser:
                story(Person(self, browser, **how))

        needs("chromium", package="chromium")
        await trio.to_thread.run_sync(run)

    def add(self, name: str, mail: str, role: AccountRole = AccountRole.ORGANIZER, zone: str = ZONE) -> None:
        """An account with `PASSWORD`, without going through its pages."""
        self.store.write_now(add_account, mail, name, role, self.clock(), verifier=VERIFIER, zone=zone)

    def sign_in(self, mail: str) -> str:
        """A cookie of this account, without the cost of its password."""

        def begin(db: Connection) -> str:
            account = account_by_email(db, mail)
            assert account is not None
            return signin.cookie_text(signin.begin(db, account, True, "127.0.0.1", "tests", self.clock())[0])

        return self.store.write_now(begin)

    def one_time_link(self, mail: str, role: AccountRole) -> str:
        """What `parley manager add-admin` prints."""
        bits = self.store.write_now(links.make_link, Purpose.INVITE, mail, self.clock(), role=role)
        return links.address_of(self.address, Purpose.INVITE, bits)

    def letter(self, to: str) -> Message:
        """The newest letter to somebody. Waits until it is there."""
        for _ in range(200):
            found = [
                email.message_from_bytes(path.read_bytes()) for path in sorted(self.mail.glob("*.eml"), key=lambda p: p.stat().st_mtime_ns)
            ]
            mine = [letter for letter in found if letter["to"] == to]
            if mine:
                return mine[-1]
            time.sleep(0.05)
        raise AssertionError(f"no letter to {to}")

    def link_to(self, to: str) -> str:
        """The link in the newest letter to somebody."""
        match = re.search(r"http://\S+", words_of(self.letter(to)))
        assert match, "no link in the letter"
        return match[0]


AXE = Axe()
COLOURS = {"runOnly": ["color-contrast"]}
"""What a change of colours can break."""
GRAVE = ("serious", "critical")
VERIFIER = make_verifier(PASSWORD)


def words_of(letter: Message) -> str:
    part = next(part for part in letter.walk() if part.get_content_type() == "text/plain")
    body = part.get_payload(decode=True)
    assert isinstance(body, bytes)
    return body.decode()


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Person:
    """Somebody at a browser. Every script error, failed load and refusal of the policy fails the test, at `close` or earlier."""

    def __init__(self, site: Served, browser: Browser, *, zone: str = ZONE, language: str = "en-GB", **how: Any) -> None:
        self.site = site
        self.browser = browser
        self.context: BrowserContext = browser.new_context(
            base_url=site.address,
            timezone_id=zone,
            locale=language,
            permissions=["clipboard-read", "clipboard-write"],
            bypass_csp=False,
            viewport=DESK,
            **how,
        )
        self.context.set_default_timeout(60_000)
        self.wrong: list[str] = []
        self.loaded: list[Response] = []
        self.page: Page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda message: self.wrong.append(message.text) if "Content Security" in message.text else None)
        self.page.on("response", lambda response: self.loaded.append(response))

    def go(self, path: str) -> None:
        self.page.goto(path)
        assert not self.wrong, self.wrong

    def type(self, **fields: str) -> None:
        """By the fields' ids."""
        for name, text in fields.items():
            self.page.fill(f"#{name}", text)

    def press(self, button: str) -> None:
        """A button by its words, and wait for what comes."""
        self.page.get_by_role("button", name=button, exact=True).click()
        self.page.wait_for_load_state()
        assert not self.wrong, self.wrong

    def agree(self, button: str) -> None:
        """A button that asks whether one is sure."""
        self.page.get_by_role("button", name=button, exact=True).first.click()
        self.page.locator("dialog button.danger").click()
        self.page.wait_for_load_state()

    def sees(self, words: str) -> None:
        self.page.get_by_text(words).first.wait_for()

    def at(self, path: str) -> None:
        """The address is that path, soon."""
        self.page.wait_for_url(f"**{path}")

    def signed_in(self, mail: str) -> None:
        """As if the password had been typed."""
        self.context.add_cookies([{"name": "parley", "value": self.site.sign_in(mail), "url": self.site.address}])

    def sign_in(self, mail: str, password: str = PASSWORD) -> None:
        self.go("/sign-in")
        self.type(email=mail, password=password)
        self.press("Sign in")

    def main_page(self, name: str) -> None:
        """A main page, as it stands: nothing serious for axe, in light and dark; light enough; and its pictures, if they are wanted."""
        for scheme, asked in (("light", {}), ("dark", COLOURS)):
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]  # both are its words
            found = AXE.run(self.page, options=asked).response["violations"]
            serious = [f"{one['id']}: {node['html'][:200]}" for one in found if one["impact"] in GRAVE for node in one["nodes"]]
            assert not serious, f"{name}, {scheme}: {serious}"
        self.fits(name)
        if SHOTS:
            for look, (scheme, width, height) in LOOKS.items():
                self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # both are its words
                self.page.set_viewport_size({"width": width, "height": height})
                self.page.screenshot(path=f"{SHOTS}/{name}{look}.png", full_page=True)
            self.page.set_viewport_size(DESK)
        self.page.emulate_media(color_scheme="light")

    def fits(self, name: str) -> None:
        """A phone shows the page without scrolling sideways."""
        self.page.set_viewport_size({"width": 360, "height": 740})
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        self.page.set_viewport_size(DESK)
        assert wide <= 0, f"{name} is {wide} pixels too wide for a phone"

    def error(self, name: str) -> str:
        """What stands beside a field."""
        return self.page.inner_text(f"#{name}-error")

    def clipboard(self) -> str:
        text = self.page.evaluate("navigator.clipboard.readText()")
        assert isinstance(text, str)
        return text
