"""A house with a clock of its own, and people in it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pyotp

from manager import links
from manager.accounts import AccountRole
from manager.callers import Caller
from manager.entrance import SignedIn
from manager.house import House, furnish
from manager.mail import Letter
from manager.nodes import Nodes
from manager.seal import Seal
from manager.settings import load_settings
from manager.store import Store
from net.pki import PeerName

PASSWORD = "correct horse 7"
HERE = "192.0.2.7"
BEGIN = 1_800_000_000.0


@dataclass
class Village:
    """`letters`: everything that was posted."""

    house: House
    store: Store
    seal: Seal
    now: float = BEGIN
    letters: list[Letter] = field(default_factory=list)

    def link(self) -> str:
        """What stood behind the `#` in the last letter."""
        found = re.search(r"#([A-Za-z0-9_-]{43})\b", self.letters[-1].text)
        assert found is not None, self.letters[-1].kind
        return found[1]

    async def join(self, email: str, role: AccountRole = AccountRole.ORGANIZER, password: str = PASSWORD) -> Caller:
        """A new account, signed in."""
        bits = self.store.write_now(links.make_link, links.Purpose.INVITE, email, self.now, role=role)
        return (await self.house.entrance.accept(links.link_text(bits), email.partition("@")[0].title(), password, HERE, "test")).caller

    async def sign_in(self, email: str, password: str = PASSWORD, address: str = HERE) -> SignedIn:
        return await self.house.entrance.sign_in(email, password, address, "test")

    async def totp(self, caller: Caller) -> pyotp.TOTP:
        """A second factor for the account, set up; its codes are for `now`."""
        code = pyotp.TOTP((await self.house.own.begin_totp(caller)).key)
        await self.house.own.finish_totp(caller, code.at(self.now))
        self.now += 30  # a code counts once
        return code


@asynccontextmanager
async def village(store: Store, *, seal: Seal | None = None, **settings: Any) -> AsyncIterator[Village]:
    made: list[Village] = []
    seal = seal or Seal()
    chosen = load_settings(None, site="https://meet.example.org", sign_in_burst=1000, sign_ins_burst=1000, **settings)
    house = furnish(store, Nodes(PeerName("home", "manager", "m"), store, lambda: made[0].now), chosen, lambda: made[0].now, seal=seal)
    made.append(Village(house, store, seal))
    with patch.object(house.mail, "post", made[0].letters.append):  # what is posted is looked at here; test_mail delivers
        yield made[0]
