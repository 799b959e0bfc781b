"""What the manager's site and API carry, what a sign-in costs the others, what a stranger learns, and what a kill loses.

    site_rps               signed-in requests of the page of meetings (20 of them) a second and core of the server, on eight kept connections
    floor_rps              as many bytes from an application that does nothing, behind the same listener and HTTP server: what is left to gain.
                           Both are medians of slices that take turns, since the speed of a shared core changes by half within seconds
    page_kb                the heaviest of the main pages with everything that it loads, kilobytes as they cross the network
    ticket_rps             guests' tickets a second and core, each acknowledged by a relay before it is answered
    signin_loop_lag_ms_p99 how late the event loop wakes up a task while 16 people sign in again and again: 5 ms sleeps, what comes on top
    id_timing_p_value      Kolmogorov-Smirnov: times of answers to guesses of real meeting IDs (not open, ended) against absent ones. A value
                           below 0.01 says that the two differ. 100,000 guesses, in random order, each through the whole API
    invite_timing_p_value  the same of guesses that come with an invitation, a wrong one: half of the 100,000
    acknowledged_lost      meetings whose 201 a client has read and that are not there after one of 100 × SIGKILL of a manager under load

Rates are of the server process's CPU, all threads. `--database postgresql` starts one (Debian's `postgresql`), as the tests do;
`--only page,ticket` chooses among page, ticket, signin, timing and kill; `--quick` shortens.
"""

import argparse
import json
import os
import random
import re
import secrets
import signal
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
import trio

from manager import desk, keys, links, meetings, tickets
from manager.__main__ import serve
from manager.accounts import AccountRole
from manager.api import create_app
from manager.errors import Refusal
from manager.hidden import Hidden
from manager.house import furnish
from manager.nodes import Nodes
from manager.settings import Settings, load_settings
from manager.site.web import SESSION
from manager.store import Store
from net.http import serve_asgi
from net.listener import listen
from net.pki import Identity, PeerName, create_ca, enrol
from tests.manager.postgres import running_postgres
from tests.manager.support import FakeRelay, hello_of
from wire.ids import MEETING_IDS, MeetingId

PASSWORD: Final = "mill tundra orbit 7"
CONNECTIONS: Final = 8
SLICES: Final = 5
PAGE: Final = 8_000
"""Bytes of the page of meetings, about."""
UNBOUND: Final = 1e9
"""Throttles off: what the server can do is asked, not what it allows."""


def open_settings(location: str, root: Path) -> Settings:
    rates = {f"{name}_{kind}": UNBOUND for name in ("stranger", "strangers", "guest", "guests", "call", "calls") for kind in ("rate", "burst")}
    rates |= {f"{name}_{kind}": UNBOUND for name in ("sign_in", "sign_ins") for kind in ("rate", "burst")}
    ports = {"api_port": 0, "node_port": 0, "web_port": 0}
    return load_settings(None, store=location, identity=str(root / "manager"), mail_folder=str(root / "mail"), **ports, **rates)


def cpu_of(pid: int) -> float:
    """Seconds of CPU that all threads of a process have used."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # it has just ended
    return total / 1e9


@contextmanager
def child(work: Callable[[int], None]) -> Iterator[tuple[int, int]]:
    """A forked process that does the work with the writing end of a pipe: its number, and the reading end. Killed at the end."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            work(writing)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        yield pid, reading
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)


class Connection:
    """One kept HTTP/1.1 connection; the smallest client that measures the server and not itself."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = b""

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body."""
        await self._stream.send_all(request)
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self._more()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        size = int(length[1]) if length else 0
        while len(rest) < size:
            rest += await self._more()
        self._buffer = rest[size:]
        return int(head[9:12]), head, rest[:size]

    async def _more(self) -> bytes:
        got = await self._stream.receive_some(65_536)
        if not got:
            raise EOFError("the server closed a kept connection")
        return bytes(got)


def api_tls(root: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=str(root / "ca" / "ca.crt"))
    tls.check_hostname = False
    return tls


async def over_tls(port: int, tls: ssl.SSLContext) -> Connection:
    return Connection(trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), tls, server_hostname="localhost"))


def request(method: str, path: str, body: object = None, **headers: str) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if content or method != "GET":  # as browsers do it
        lines += [f"Content-Length: {len(content)}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def rate(pid: int, ask: Callable[[], Awaitable[Connection]], what: bytes, expected: int, seconds: float) -> float:
    """Answers per second of the server's CPU."""
    done, late = 0, trio.current_time() + 0.5
    used = [0.0]

    async def one(connection: Connection) -> None:
        nonlocal done
        while trio.current_time() < late + seconds:
            status, _, content = await connection.ask(what)
            assert status == expected, (status, content[:300])
            if trio.current_time() > late:
                if not used[0]:
                    used[0] = cpu_of(pid)
                done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(one, await ask())
    return done / (cpu_of(pid) - used[0])


def served(settings: Settings, writing: int) -> None:
    """A manager as it runs, which says where."""

    def ready(api_port: int, node_port: int, site: str) -> None:
        os.write(writing, json.dumps([api_port, node_port, int(site.rpartition(":")[2])]).encode() + b"\n")

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    trio.run(partial(serve, settings, ready=ready))


def pages_and_tickets(location: str, root: Path, chosen: set[str], seconds: float) -> dict[str, float]:
    """site_rps, page_kb, ticket_rps."""
    store = Store(location)
    bits = store.write_now(links.make_link, links.Purpose.INVITE, "ann@example.org", time.time(), role=AccountRole.INTERNAL_ADMIN)
    store.close()
    with child(partial(served, open_settings(location, root))) as (pid, reading), child(bare) as (floor_pid, floor_reading):
        ports = json.loads(os.read(reading, 200))
        floor = floor_pid, json.loads(os.read(floor_reading, 100))
        return trio.run(_ask_pages_and_tickets, bits, pid, ports, floor, root, chosen, seconds)


async def _ask_pages_and_tickets(
    bits: Hidden, pid: int, ports: list[int], floor: tuple[int, int], root: Path, chosen: set[str], seconds: float
) -> dict[str, float]:
    figures: dict[str, float] = {}
    api_port, node_port, site_port = ports
    tls = api_tls(root)

    async def site() -> Connection:
        return Connection(await trio.open_tcp_stream("127.0.0.1", site_port))

    async def api() -> Connection:
        return await over_tls(api_port, tls)

    first = await api()
    taken = {"link": links.link_text(bits), "name": "Ann", "password": PASSWORD}
    status, _, content = await first.ask(request("POST", "/api/v1/links/accept", taken))
    assert status == 201, content
    token = json.loads(content)["token"]
    auth = {"Authorization": f"Bearer {token}"}
    made: dict[str, Any] = {}
    for at in range(20):
        body = {"title": f"Weekly {at}", "starts": "2030-03-01T15:00", "zone": "Europe/Paris", "meeting_key": "A" * 43}
        made = json.loads((await first.ask(request("POST", "/api/v1/meetings", body | {"repeat": {"every": "week", "times": 20}}, **auth)))[2])
    cookie = {"Cookie": f"{SESSION}={token.removeprefix('session_')}"}
    if "page" in chosen:
        weights = {path: await weight(await site(), path, cookie) for path in ("/", "/meetings", "/sign-in", "/account", "/admin/users")}
        figures["page_kb"] = max(weights.values()) / 1000
        figures |= await site_and_floor(pid, site, floor, request("GET", "/meetings", **cookie), seconds)
    if "ticket" in chosen:
        relay = FakeRelay("relay-1")
        async with trio.open_nursery() as nursery:
            identity = Identity.in_directory(root / "relay-1")
            await nursery.start(relay.run, node_port, identity, hello_of("relay-1"))
            await relay.until(lambda r: r.memberships)
            number = made["meeting_id"]
            status, _, content = await (await api()).ask(request("POST", f"/api/v1/meetings/{number}/open", **auth))
            assert status == 200, content
            guest = request("POST", "/api/v1/tickets", {"meeting_id": number, "invite": made["invite"]})
            figures["ticket_rps"] = await rate(pid, api, guest, 200, seconds)
            nursery.cancel_scope.cancel()
    return figures


async def site_and_floor(
    pid: int, site: Callable[[], Awaitable[Connection]], floor: tuple[int, int], page: bytes, seconds: float
) -> dict[str, float]:
    """site_rps, floor_rps."""

    async def nothing() -> Connection:
        return Connection(await trio.open_tcp_stream("127.0.0.1", floor[1]))

    rates: dict[str, list[float]] = {"site_rps": [], "floor_rps": []}
    for _ in range(SLICES):
        rates["site_rps"].append(await rate(pid, site, page, 200, seconds / SLICES))
        rates["floor_rps"].append(await rate(floor[0], nothing, page, 200, seconds / SLICES))
    return {name: float(np.median(found)) for name, found in rates.items()}


def bare(writing: int) -> None:
    """Serves `PAGE` bytes, whatever is asked, and says where."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % PAGE)]})
            await send({"type": "http.response.body", "body": bytes(PAGE)})

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            where = await nursery.start(partial(serve_asgi, app, await listen("127.0.0.1", 0), None))
            os.write(writing, json.dumps(where[0][1]).encode())

    trio.run(main)


async def weight(connection: Connection, path: str, cookie: dict[str, str]) -> int:
    """Bytes of a page with its styles, scripts and pictures, heads included."""
    status, head, content = await connection.ask(request("GET", path, Accept_Encoding="gzip", **cookie))
    if status in (302, 303):
        return len(head)
    assert status == 200, (path, status)
    total = len(head) + len(content)
    for found in sorted(set(re.findall(r'(?:src|href)="(/static/[^"]+)"', content.decode()))):
        _, head, content = await connection.ask(request("GET", found, Accept_Encoding="gzip"))
        total += len(head) + len(content)
    return total


async def sign_in_lag(location: str, root: Path, seconds: float) -> dict[str, float]:
    """signin_loop_lag_ms_p99."""
    store = Store(location)
    house = furnish(
        store, Nodes(PeerName("home", "manager", "m"), store, time.time), open_settings(location, root), time.time, "https://localhost"
    )
    lags: list[float] = []
    signed_in = [0]
    bits = store.write_now(links.make_link, links.Purpose.INVITE, "ann@example.org", time.time())
    await house.entrance.accept(links.link_text(bits), "Ann", PASSWORD, "192.0.2.1")

    async def person(number: int) -> None:
        while True:
            try:
                await house.entrance.sign_in("ann@example.org", PASSWORD, f"192.0.2.{number}")
            except Refusal:
                await trio.sleep(0.01)  # locked while another is judged
            else:
                signed_in[0] += 1

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(person, number)
        await trio.sleep(1.0)
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            due = time.perf_counter() + 0.005
            await trio.sleep(0.005)
            lags.append(time.perf_counter() - due)
        nursery.cancel_scope.cancel()
    store.close()
    return {"signin_loop_lag_ms_p99": float(np.percentile(lags, 99)) * 1000, "signins_per_second": signed_in[0] / (seconds + 1)}


async def id_timing(location: str, root: Path, guesses: int) -> dict[str, float]:
    """id_timing_p_value, invite_timing_p_value."""
    store = Store(location)
    settings = open_settings(location, root)
    api = create_app(furnish(store, Nodes(PeerName("home", "manager", "m"), store, time.time), settings, time.time, "https://localhost"))
    key = store.write_now(keys.add_organizer, "ann", 1.0)
    organizer = store.read_now(keys.caller_of_key, key, "", 1.0)[0].account
    real = []
    for at in range(1000):
        meeting = store.write_now(meetings.schedule, organizer, f"meeting {at}", bytes(32), 1.0)
        if at % 2:
            ticket = store.write_now(tickets.open_meeting, organizer, meeting.number, tickets.draw_session_id(), "relay-1", 2.0)
            store.write_now(tickets.end_session, organizer, ticket.session, 3.0)
        real.append(meeting.number)
    taken = set(real)
    absent = [MeetingId(number) for number in random.sample(MEETING_IDS, 2000) if number not in taken][:1000]
    kinds = [(False, absent), (True, real)]
    order = [(is_real, with_invite, number) for is_real, some in kinds for with_invite in (False, True) for number in some] * (guesses // 4000)
    random.shuffle(order)
    times: dict[tuple[bool, bool], list[float]] = {(is_real, with_invite): [] for is_real in (False, True) for with_invite in (False, True)}
    waiting = iter(order)

    async def guesser() -> None:
        for is_real, with_invite, number in waiting:
            invite = {"invite": secrets.token_hex(8)} if with_invite else {}
            body = json.dumps({"meeting_id": number} | invite).encode()
            began = time.perf_counter()
            assert await answered(api, body) == 404
            times[is_real, with_invite].append(time.perf_counter() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(24):  # fewer than would make the answer later than its moment, which is where a difference could hide
            nursery.start_soon(guesser)
    store.close()
    figures: dict[str, float] = {"id_guesses": len(order)}
    for name, with_invite in (("id", False), ("invite", True)):
        there, nowhere = np.array(times[True, with_invite]), np.array(times[False, with_invite])
        figures[f"{name}_timing_p_value"] = kolmogorov_smirnov(there, nowhere)
        figures[f"{name}_median_difference_us"] = float(np.median(there) - np.median(nowhere)) * 1e6
    return figures | {"id_late_share": float(np.mean(np.concatenate(list(times.values())) > 2 * desk.REFUSED_AFTER))}


async def answered(api: Any, body: bytes) -> int:
    """The status of one call, without a socket: everything that could depend on the ID is behind it."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "https", "path": "/api/v1/tickets",
        "raw_path": b"/api/v1/tickets", "root_path": "", "query_string": b"", "headers": [(b"content-type", b"application/json")],
        "client": ("192.0.2.1", 1), "server": ("localhost", 443),
    }  # fmt: skip
    statuses: list[int] = []
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await trio.sleep_forever()
        asked = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await api(scope, receive, send)
    return statuses[0]


def kolmogorov_smirnov(a: "np.ndarray[Any, Any]", b: "np.ndarray[Any, Any]") -> float:
    """The two-sided p-value that both samples are of one distribution (asymptotic, Kolmogorov 1933)."""
    everything = np.sort(np.concatenate([a, b]))
    distance = np.max(
        np.abs(np.searchsorted(np.sort(a), everything, "right") / len(a) - np.searchsorted(np.sort(b), everything, "right") / len(b))
    )
    root = np.sqrt(len(a) * len(b) / (len(a) + len(b)))
    x = (root + 0.12 + 0.11 / root) * distance
    terms = np.arange(1, 101)
    return float(np.clip(2 * np.sum((-1.0) ** (terms - 1) * np.exp(-2 * (terms * x) ** 2)), 0.0, 1.0)) if x > 0.2 else 1.0


def kills(location: str, root: Path, times: int) -> dict[str, float]:
    """acknowledged_lost. Clients schedule on four kept connections and note each meeting once its 201 is read; then the manager dies."""
    store = Store(location)
    key = keys.key_text(store.write_now(keys.add_organizer, "ann", 1.0))
    store.close()
    settings = open_settings(location, root)
    acknowledged: list[int] = []
    for _ in range(times):
        with child(partial(served, settings)) as (pid, reading):
            port = json.loads(os.read(reading, 200))[0]
            trio.run(_schedule_until_killed, pid, port, root, key, acknowledged)
    store = Store(location)
    with store.engine.connect() as db:
        kept = {int(number) for number in db.exec_driver_sql("SELECT number FROM meetings").scalars()}
    store.close()
    return {"acknowledged_lost": len(set(acknowledged) - kept), "acknowledged": len(acknowledged), "kills": times}


async def _schedule_until_killed(pid: int, port: int, root: Path, key: str, acknowledged: list[int]) -> None:
    tls = api_tls(root)
    asking = request("POST", "/api/v1/meetings", {"title": "kept", "meeting_key": "A" * 43}, Authorization=f"Bearer {key}")
    begun = trio.Event()

    async def client() -> None:
        connection = await over_tls(port, tls)
        with suppress(trio.BrokenResourceError, EOFError):  # the kill
            while True:
                status, _, content = await connection.ask(asking)
                assert status == 201, content
                acknowledged.append(int(json.loads(content)["meeting_id"]))
                begun.set()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(client)
        await begun.wait()
        await trio.sleep(random.uniform(0.02, 0.2))
        os.kill(pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="page,ticket,signin,timing,kill")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    arguments = parser.parse_args()
    chosen = set(arguments.only.split(","))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parley-site-")))
        create_ca(root / "ca", "home")
        enrol(root / "ca", root / "manager", "manager", "manager-1", ["127.0.0.1", "localhost"])
        enrol(root / "ca", root / "relay-1", "mcs", "relay-1", ["127.0.0.1"])
        if arguments.database == "postgresql":
            fresh = stack.enter_context(running_postgres()).fresh
        else:
            numbers = iter(range(100))

            def fresh() -> str:
                return str(root / f"{next(numbers)}.db")

        if "kill" in chosen:
            figures |= kills(fresh(), root, 10 if arguments.quick else 100)
        if chosen & {"page", "ticket"}:
            figures |= pages_and_tickets(fresh(), root, chosen, 3.0 if arguments.quick else 10.0)
        if "signin" in chosen:
            figures |= trio.run(sign_in_lag, fresh(), root, 3.0 if arguments.quick else 15.0)
        if "timing" in chosen:
            figures |= trio.run(id_timing, fresh(), root, 4_000 if arguments.quick else 100_000)
    for name, value in figures.items():
        print(f"{name:28} {value:12.4g}")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
