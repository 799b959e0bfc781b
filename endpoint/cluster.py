"""A whole cluster on this machine, as child processes: a fresh CA, one manager on embedded SQLite, relays on free ports.

For `parley up` and `parley demo`. The servers are started as programs of their own, so nothing of them is loaded here; each holds a pipe to
us and ends when it closes, however we end. What a server says it says as JSON lines: `ready` on standard output, its log on standard error,
which goes to a file beside its data.
"""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from endpoint.errors import EndpointError
from net.pki import create_ca, enrol

log = structlog.get_logger()

START_WITHIN: Final = 20.0
STOP_WITHIN: Final = 5.0
HOST: Final = "127.0.0.1"
_MAX_LINE: Final = 65_536


class ServerFailed(EndpointError):
    name = "server-failed"
    sentence = "A server of the cluster did not start; its log says why."


@dataclass(slots=True)
class Server:
    """One child process. `log_path`: what it logs."""

    name: str
    process: trio.Process
    log_path: Path
    ready: Mapping[str, object]

    async def stop(self) -> None:
        """Tell it to end, by closing the pipe that it watches; kill it if it does not."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        with trio.move_on_after(STOP_WITHIN):
            await self.process.wait()
        if self.process.returncode is None:
            log.warning("server-killed", server=self.name)
            self.process.kill()
            await self.process.wait()


@dataclass(slots=True)
class Cluster:
    """Made by `run_cluster`. `site` and `ca` are what an endpoint needs; `key` is the organizer's API key."""

    directory: Path
    site: str
    node_port: int
    ca: Path
    key: str = field(repr=False)
    servers: dict[str, Server]
    nursery: trio.Nursery = field(repr=False)

    async def start_relay(self, name: str, identity: Path, tap: Path | None = None) -> Server:
        command = ["mcs", "--identity", str(identity), "--listen", f"{HOST}:0", "--manager", f"{HOST}:{self.node_port}"]
        server = await start_server(self.nursery, name, command, self.directory / f"{name}.log", tap)
        self.servers[name] = server
        return server

    def enrol_relay(self, name: str) -> Path:
        enrol(self.directory / "ca", self.directory / name, "mcs", name, [HOST, "localhost"])
        return self.directory / name


@asynccontextmanager
async def run_cluster(directory: Path, relays: Sequence[str] = ("mcs-1", "mcs-2"), *, tap: Path | None = None) -> AsyncIterator[Cluster]:
    """Run manager and relays in a private, empty directory while the block runs. Raises ServerFailed, PkiError.

    `tap`: record what each server receives, after TLS, in folders below this one.
    """
    await trio.to_thread.run_sync(create_ca, directory / "ca", "local")
    await trio.to_thread.run_sync(enrol, directory / "ca", directory / "manager", "manager", "manager-1", [HOST, "localhost"])
    store = f"sqlite:///{directory / 'manager' / 'parley.db'}"
    made = await trio.run_process(
        [sys.executable, "-m", "manager", "add-organizer", "local", "--store", store, "--json"],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    if made.returncode:
        raise ServerFailed(f"The manager's store cannot be made: {made.stderr.decode(errors='replace').strip()[:300]}")
    servers: dict[str, Server] = {}
    async with trio.open_nursery() as nursery:
        command = ["manager", "serve", "--store", store, "--identity", str(directory / "manager"), "--api-port", "0", "--node-port", "0"]
        try:
            manager = await start_server(nursery, "manager", command, directory / "manager.log", None if tap is None else tap / "manager")
            servers["manager"] = manager
            site = f"https://{HOST}:{manager.ready['api_port']}"
            port = int(str(manager.ready["node_port"]))
            ca = directory / "ca" / "ca.crt"
            cluster = Cluster(directory, site, port, ca, str(json.loads(made.stdout)["key"]), servers, nursery)
            for name in relays:
                await cluster.start_relay(name, cluster.enrol_relay(name), None if tap is None else tap / name)
            yield cluster
        finally:
            with trio.CancelScope(shield=True):
                for server in reversed(list(servers.values())):
                    await server.stop()
            nursery.cancel_scope.cancel()


async def start_server(nursery: trio.Nursery, name: str, command: Sequence[str], log_path: Path, tap: Path | None) -> Server:
    """`python -m COMMAND…` as a child that ends with us; returns when it says that it is ready. Raises ServerFailed."""
    more = ["--json", "--log-json", "--exit-with-parent", *(["--tap", str(tap)] if tap else [])]
    with log_path.open("ab") as log_file:
        run = partial(
            trio.run_process,
            [sys.executable, "-m", *command, *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            check=False,
            process_group=0,  # Ctrl-C is ours: we end the servers, in order
        )
        process: trio.Process = await nursery.start(run)
    assert process.stdout is not None
    line = b""
    with trio.move_on_after(START_WITHIN):
        while b"\n" not in line and len(line) < _MAX_LINE:
            part = await process.stdout.receive_some()
            if not part:
                break
            line += part
    try:
        ready = json.loads(line)
    except ValueError:
        process.kill()
        words = (await trio.Path(log_path).read_text(errors="replace")).strip().splitlines()
        raise ServerFailed(f"{name} did not start: {words[-1] if words else 'it said nothing'}") from None
    log.info("server-ready", server=name, **{key: value for key, value in ready.items() if key.endswith("port")})
    return Server(name, process, log_path, ready)
