"""The site in clear on a free port of this machine, with a store of its own, its letters in a folder."""

import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from manager.api import create_app
from manager.house import furnish
from manager.nodes import Nodes
from manager.settings import load_settings
from manager.site.app import create_site
from manager.site.visit import Site
from manager.store import Store
from net.http import serve_asgi
from net.listener import addresses, listen
from net.pki import PeerName
from tests.manager.site.browser import Clock, Served


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Served]:
    listeners = await listen("127.0.0.1", 0)
    address = f"http://localhost:{addresses(listeners)[0][1]}"
    settings = load_settings(None, store=str(tmp_path / "manager.db"), mail_folder=str(tmp_path / "mail"), site=address, sign_in_burst=1e6)
    store, clock = Store(settings.store), Clock()
    house = furnish(store, Nodes(PeerName("home", "manager", "manager-1"), store, time.time), settings, clock)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.run)
            await nursery.start(partial(serve_asgi, create_site(Site(house, clock), create_app(house)), listeners, None, grace=0.1))
            yield Served(address, house, store, tmp_path / "mail", clock)
            nursery.cancel_scope.cancel()
    finally:
        store.close()
