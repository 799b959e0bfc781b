"""What the manager's tests share: a cluster's certificates, a relay's side of the link to the manager, a manager that runs."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import sqlalchemy
import trio

from manager import keys
from manager.accounts import Account
from manager.hidden import Hidden
from manager.settings import Settings
from manager.store import Store
from net.connection import Connection
from net.dial import dial
from net.pki import Identity
from net.tls import client_context
from wire.control import VERSION, Control, Facts, FactsAck, Load, Membership, NodeHello, NodeInfo, NodeWelcome
from wire.errors import LinkClosed
from wire.frame import Frame
from wire.link import Side

MEETING_KEY: Final = "A" * 43
WITHIN: Final = 60.0
"""Seconds after which a test that waits has failed."""


@dataclass
class Pki:
    """A cluster's certificates, made once."""

    root: Path
    manager: Identity
    relays: dict[str, Identity]

    @property
    def ca(self) -> Path:
        return self.manager.ca_path


@dataclass
class FakeRelay:
    """A relay's side of the link to the manager. Acknowledges facts unless `silent`."""

    name: str
    connection: Connection = field(init=False)
    silent: bool = False
    said: list[Control] = field(default_factory=list)
    ended: LinkClosed | None = None
    _changed: trio.Event = field(default_factory=trio.Event)

    def received(self, item: Frame | Control) -> None:
        assert isinstance(item, Control)
        self.said.append(item)
        if isinstance(item, Facts) and item.serial and not self.silent:
            self.connection.send(FactsAck(item.serial))
        self._change()

    def pull(self, budget: int) -> bytes | None:
        return None

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    @property
    def facts(self) -> list[Facts]:
        return [message for message in self.said if isinstance(message, Facts)]

    @property
    def memberships(self) -> list[Membership]:
        return [message for message in self.said if isinstance(message, Membership)]

    async def until(self, holds: Callable[["FakeRelay"], object]) -> None:
        with trio.fail_after(WITHIN):
            while not holds(self):
                await self._changed.wait()

    async def run(
        self,
        port: int,
        identity: Identity,
        hello: NodeHello | None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        context = client_context(identity.ca_path, identity)
        stream = await dial([("127.0.0.1", port)], context, server_kind="manager", cluster="home")
        self.connection = Connection(stream, Side.CALLER, self)
        if hello is not None:
            self.connection.send(hello)
        task_status.started()
        self.ended = await self.connection.run()
        self._change()


def hello_of(name: str, port: int = 8200, version: int = VERSION) -> NodeHello:
    return NodeHello(version, NodeInfo(name, [("127.0.0.1", port)]))


def account_of_key(db: sqlalchemy.Connection, key: Hidden) -> Account:
    """Whose key this is. Raises `KeyRefused`."""
    return keys.caller_of_key(db, key, "", 1.0)[0].account


class Running:
    """A manager that serves, and what tests do with it."""

    def __init__(self, nursery: trio.Nursery, pki: Pki, settings: Settings, api_port: int, node_port: int, http: httpx.AsyncClient) -> None:
        self.nursery = nursery
        self.pki = pki
        self.settings = settings
        self.api_port = api_port
        self.node_port = node_port
        self.http = http

    async def connect(self, name: str, *, identity: Identity | None = None, hello: NodeHello | None = None, silent: bool = False) -> FakeRelay:
        """A relay that has said hello."""
        relay = FakeRelay(name, silent=silent)
        await self.nursery.start(relay.run, self.node_port, identity or self.pki.relays[name], hello or hello_of(name))
        return relay

    async def relay(self, name: str, *, links: int = 0, silent: bool = False) -> FakeRelay:
        """A relay that is live and has said how busy it is."""
        relay = await self.connect(name, silent=silent)
        await relay.until(lambda r: r.memberships)
        assert isinstance(relay.said[0], NodeWelcome)
        relay.connection.send(Load(links, 0))
        return relay

    async def add_organizer(self, name: str = "ann") -> dict[str, str]:
        """Headers of a new organizer."""

        def add() -> str:
            store = Store(self.settings.store)
            try:
                return keys.key_text(store.write_now(keys.add_organizer, name, 1.0))
            finally:
                store.close()

        return {"authorization": f"Bearer {await trio.to_thread.run_sync(add)}"}

    async def schedule(self, auth: dict[str, str], title: str = "Weekly") -> dict[str, Any]:
        answer = await self.http.post("/meetings", json={"title": title, "meeting_key": MEETING_KEY}, headers=auth)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def open(self, auth: dict[str, str], meeting: dict[str, Any]) -> dict[str, Any]:
        answer = await self.http.post(f"/meetings/{meeting['meeting_id']}/open", headers=auth)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


Manage = Callable[..., AbstractAsyncContextManager[Running]]
