"""A whole cluster on this machine, as child processes: a fresh CA, one manager on embedded SQLite, relays on free ports.

For `parley up` and `parley demo`. The servers are started as programs of their own, so nothing of them is loaded here; each holds a pipe to
us and ends when it closes, however we end. What a server says it says as JSON lines: `ready` on standard output, its log on standard error,
which goes to a file beside its data.
"""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from endpoint.errors import EndpointError
from endpoint.sdk import single_errors
from net.pki import create_ca, enrol

log = structlog.get_logger()

START_WITHIN: Final = 60.0
"""Seconds: a server takes two of a core, and a busy machine gives it little."""
STOP_WITHIN: Final = 5.0
RESTARTS: Final = 3
"""Times that one server is started again after it died."""
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
    again: Sequence[str] = ()
    """The command that starts it anew under the same ports."""

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
    """Made by `run_cluster`. `site` and `ca` are what an endpoint needs; `key` is the organizer's API key; `pages` is for browsers."""

    directory: Path
    site: str
    pages: str
    node_port: int
    ca: Path
    key: str = field(repr=False)
    servers: dict[str, Server]
    nursery: trio.Nursery = field(repr=False)

    async def start_relay(self, name: str, identity: Path, tap: Path | None = None) -> Server:
        command = ["mcs", "--identity", str(identity), "--manager", f"{HOST}:{self.node_port}", "--listen"]
        server = await start_server(self.nursery, name, [*command, f"{HOST}:0"], self.directory / f"{name}.log", tap)
        server.again = [*command, f"{HOST}:{server.ready['port']}"]
        self.servers[name] = server
        return server

    async def keep_running(self, told: Callable[[str], None]) -> None:
        """Start whatever dies again, under its old ports, until cancelled. `told`: a sentence for a person about each.

        The session goes on meanwhile: over another relay, and without the manager.
        """
        async with trio.open_nursery() as nursery:
            for server in list(self.servers.values()):
                nursery.start_soon(self._keep_running, server, told)

    async def _keep_running(self, server: Server, told: Callable[[str], None]) -> None:
        for _ in range(RESTARTS):
            code = await server.process.wait()
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            log.warning("server-died", server=server.name, code=code)
            told(f"{server.name} ended {how}; it is started again.")
            try:
                server = await start_server(self.nursery, server.name, server.again, server.log_path, None, again=server.again)
            except ServerFailed as error:
                told(str(error))
                return
            self.servers[server.name] = server
            told(f"{server.name} runs again.")
        await server.process.wait()
        told(f"{server.name} has ended {RESTARTS + 1} times and stays down; its log is {server.log_path}.")

    def enrol_relay(self, name: str) -> Path:
        enrol(self.directory / "ca", self.directory / name, "mcs", name, [HOST, "localhost"])
        return self.directory / name


@asynccontextmanager
async def run_cluster(directory: Path, relays: Sequence[str] = ("mcs-1", "mcs-2"), *, tap: Path | None = None) -> AsyncIterator[Cluster]:
    """Run manager and relays in a private, empty directory while the block runs. Raises ServerFailed, PkiError.

    `tap`: record what each server receives, after TLS, in folders below this one.
    """

    def enrol_all() -> None:
        create_ca(directory / "ca", "local")
        enrol(directory / "ca", directory / "manager", "manager", "manager-1", [HOST, "localhost"])
        for name in relays:
            enrol(directory / "ca", directory / name, "mcs", name, [HOST, "localhost"])

    await trio.to_thread.run_sync(enrol_all)
    store = f"sqlite:///{directory / 'manager' / 'parley.db'}"
    servers: dict[str, Server] = {}
    async with trio.open_nursery() as nursery:
        command = ["manager", "serve", "--store", store, "--identity", str(directory / "manager")]
        try:
            free = [*command, "--api-port", "0", "--node-port", "0", "--web-port", "0"]
            manager = await start_server(nursery, "manager", free, directory / "manager.log", None if tap is None else tap / "manager")
            api, port = int(str(manager.ready["api_port"])), int(str(manager.ready["node_port"]))
            pages = str(manager.ready["site"])
            manager.again = [*command, "--api-port", str(api), "--node-port", str(port), "--web-port", pages.rpartition(":")[2]]
            servers["manager"] = manager
            cluster = Cluster(directory, f"https://{HOST}:{api}", pages, port, directory / "ca" / "ca.crt", "", servers, nursery)

            async def add_organizer() -> None:
                cluster.key = await _new_key(store)

            with single_errors():
                async with trio.open_nursery() as starting:  # each costs a second of a core: side by side
                    starting.start_soon(add_organizer)
                    for name in relays:
                        starting.start_soon(cluster.start_relay, name, directory / name, None if tap is None else tap / name)
            yield cluster
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as stopping:
                    for server in servers.values():
                        stopping.start_soon(server.stop)
            nursery.cancel_scope.cancel()


async def _new_key(store: str) -> str:
    """An organizer's API key. It comes through a pipe and stands in no command line. Raises ServerFailed."""
    command = [sys.executable, "-P", "-m", "manager", "add-organizer", "local", "--store", store, "--json"]
    made = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    if made.returncode:
        raise ServerFailed(f"The manager's store cannot be made: {made.stderr.decode(errors='replace').strip()[:300]}")
    return str(json.loads(made.stdout)["key"])


async def start_server(
    nursery: trio.Nursery, name: str, command: Sequence[str], log_path: Path, tap: Path | None, again: Sequence[str] = ()
) -> Server:
    """`python -m COMMAND…` as a child that ends with us; returns when it says that it is ready. Raises ServerFailed."""
    more = ["--json", "--log-json", "--exit-with-parent", *(["--tap", str(tap)] if tap else [])]
    with log_path.open("ab") as log_file:
        run = partial(
            trio.run_process,
            [sys.executable, "-P", "-m", *command, *more],
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
    return Server(name, process, log_path, ready, again)
