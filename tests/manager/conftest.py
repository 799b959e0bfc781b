"""A real manager in this process, over real TLS, with relays that speak `wire.control` through `net`."""

import shutil
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import trio
from argon2 import PasswordHasher

from manager import desk, keys, passwords
from manager.__main__ import serve
from manager.accounts import Account
from manager.api import create_app
from manager.house import furnish
from manager.nodes import Nodes
from manager.settings import load_settings
from manager.store import Store
from net.pki import create_ca, enrol
from tests.manager.postgres import Postgres, running_postgres
from tests.manager.support import WITHIN, Manage, Pki, Running, account_of_key


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    root = tmp_path_factory.mktemp("pki")
    create_ca(root / "ca", "home")
    manager = enrol(root / "ca", root / "manager", "manager", "manager-1", ["127.0.0.1", "localhost"])
    names = ("relay-1", "relay-2", "relay-3")
    return Pki(root, manager, {name: enrol(root / "ca", root / name, "mcs", name, ["127.0.0.1"]) for name in names})


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(autouse=True)
def cheap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of the same kind that cost nothing, but where their cost is looked at. Managers in processes of their own have the real ones."""
    if "slow" not in request.node.name:
        hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        monkeypatch.setattr(passwords, "_HASHER", hasher)
        monkeypatch.setattr(passwords, "DUMMY", hasher.hash("nobody"))


@pytest.fixture(scope="session")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest tables, to be copied: making them takes ten times as long."""
    path = tmp_path_factory.mktemp("newest") / "manager.db"
    Store(str(path)).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path, newest: Path) -> str:
    """Of a fresh store, on either database."""
    if request.param == "sqlite":
        return str(shutil.copy(newest, tmp_path / "manager.db"))
    server: Postgres = request.getfixturevalue("postgres")
    return server.fresh()


@pytest.fixture
def store(location: str) -> Iterator[Store]:
    store = Store(location)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(tmp_path: Path, newest: Path) -> Iterator[Store]:
    store = Store(str(shutil.copy(newest, tmp_path / "manager.db")))
    yield store
    store.close()


@pytest.fixture
def organizer(store: Store) -> Account:
    key = store.write_now(keys.add_organizer, "ann", 1.0)
    return store.read_now(account_of_key, key)


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """Every event that was logged."""
    with structlog.testing.capture_logs() as events:
        yield events  # type: ignore[misc]  # mutable mappings, by their stub


@pytest.fixture
def manage(pki: Pki, tmp_path: Path) -> Manage:
    """`async with manage(setting=…) as manager`: a manager on free ports, its store in the test's directory."""

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[Running]:
        ours = {"store": str(tmp_path / "manager.db"), "identity": str(pki.root / "manager"), "api_port": 0, "node_port": 0, "web_port": 0}
        chosen = load_settings(None, **ours | settings)
        ports: list[int] = []
        async with trio.open_nursery() as nursery:
            started = trio.Event()

            def ready(api: int, node: int, site: str) -> None:
                ports.extend((api, node))
                started.set()

            nursery.start_soon(partial(serve, chosen, ready=ready))
            with trio.fail_after(WITHIN):
                await started.wait()
            context = ssl.create_default_context(cafile=str(pki.ca))
            base = f"https://127.0.0.1:{ports[0]}/api/v1"
            async with httpx.AsyncClient(verify=context, base_url=base, timeout=WITHIN, trust_env=False) as http:
                yield Running(nursery, pki, chosen, ports[0], ports[1], http)
            nursery.cancel_scope.cancel()

    return run


@pytest.fixture
async def app(sqlite_store: Store, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The application without TLS, called as an organizer, with a real store and no relay."""
    monkeypatch.setattr(desk, "REFUSED_AFTER", 0.0)
    key = sqlite_store.write_now(keys.add_organizer, "ann", 1.0)
    settings = load_settings(None, stranger_burst=1e6, strangers_burst=1e6)
    api = create_app(furnish(sqlite_store, Nodes(pki.manager.name, sqlite_store, time.time), settings, time.time))
    headers = {"authorization": f"Bearer {keys.key_text(key)}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="https://manager/api/v1", headers=headers) as client:
        yield client
