"""The manager's functions, put together: what pages, API and command line stand on. No HTTP.

entrance        sign-in, sign-up, one-time links           administration  accounts, policy, reports, audit log, nodes
own             one's own account                          desk            tickets, opening, ending
diary           an organizer's meetings
"""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from manager.administration import Administration
from manager.desk import Desk
from manager.diary import Diary
from manager.entrance import Entrance
from manager.mail import Mail
from manager.nodes import Nodes
from manager.own import Own
from manager.passwords import Hashing
from manager.seal import Seal
from manager.settings import Settings
from manager.store import Store


@dataclass(frozen=True, slots=True)
class House:
    """Made by `furnish`. `store` is for what no function is: the idempotency of calls."""

    settings: Settings
    site: str
    store: Store
    clock: Callable[[], float]
    entrance: Entrance
    own: Own
    diary: Diary
    administration: Administration
    desk: Desk
    mail: Mail

    async def run(self) -> None:
        """What goes on beside the calls: letters, sessions and sign-ins that nobody uses. Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.mail.run)
            nursery.start_soon(self.desk.run)
            nursery.start_soon(self.entrance.run)


def furnish(
    store: Store, nodes: Nodes, settings: Settings, clock: Callable[[], float], site: str | None = None, seal: Seal | None = None
) -> House:
    """`site`: https://HOST[:PORT] of the pages, if not the settings'. `seal`: of TOTP keys; None: a fresh one. Raises `SettingsMalformed`."""
    where = site or settings.site
    mail, hashing, seal = Mail(settings), Hashing(), seal or Seal()
    desk = Desk(store, nodes, settings, clock)
    return House(
        settings,
        where,
        store,
        clock,
        Entrance(store, mail, hashing, seal, settings, where, clock),
        Own(store, desk, mail, hashing, seal, where, clock),
        Diary(store, mail, where, clock),
        Administration(store, desk, mail, where, clock),
        desk,
        mail,
    )
