"""The same kill and the same stall for nats-server, for `benchmarks/faults.py`: a full cluster of it, without TLS, and clients that come
back at once to the next server. What was published while a client was away, or was inside the server that died, is gone: nobody keeps it."""

import contextlib
import json
import socket
import subprocess
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import trio

SERVERS = 5
CLIENTS = 20
RATE = 10.0  # of each client
BODY = 180


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Client:
    def __init__(self, number: int, ports: list[int], rate: float) -> None:
        self.number, self.ports, self.rate = number, ports[number % len(ports) :] + ports[: number % len(ports)], rate
        self.sent = 0
        self.sent_at, self.got_at = array("d"), array("d")
        self.got: dict[int, set[int]] = {}
        self.doubled = 0
        self.quiet = False
        self.stalled: trio.Event | None = None  # it reads nothing until then
        self._stream: trio.SocketStream | None = None
        self._writing = trio.Lock()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            if self.rate:
                nursery.start_soon(self.publish)
            while True:
                port = self.ports[0]
                self.ports.append(self.ports.pop(0))
                with contextlib.suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        await stream.send_all(b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\nSUB m 1\r\n')
                        self._stream = stream
                        await self.read(stream)
                self._stream = None
                await trio.sleep(0.02)

    async def read(self, stream: trio.SocketStream) -> None:
        data = b""
        while part := await stream.receive_some():
            if self.stalled is not None:
                await self.stalled.wait()
            data += part
            while b"\r\n" in data:
                line, _, rest = data.partition(b"\r\n")
                if line.startswith(b"PING"):
                    async with self._writing:
                        await stream.send_all(b"PONG\r\n")
                elif line.startswith(b"MSG"):
                    size = int(line.rsplit(b" ", 1)[1])
                    if len(rest) < size + 2:
                        break
                    self.take(rest[:size])
                    rest = rest[size + 2 :]
                data = rest

    def take(self, body: bytes) -> None:
        sender, number, at = body[:BODY].split()[:3]
        known = self.got.setdefault(int(sender), set())
        if int(number) in known:
            self.doubled += 1
        known.add(int(number))
        self.sent_at.append(float(at))
        self.got_at.append(time.monotonic())

    async def publish(self) -> None:
        began = time.monotonic() + 2.0
        while not self.quiet:
            await trio.sleep(max(0.0, began + self.sent / self.rate - time.monotonic()))
            body = f"{self.number} {self.sent} {time.monotonic()!r} ".encode().ljust(BODY)
            self.sent += 1
            if (stream := self._stream) is not None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async with self._writing:
                        await stream.send_all(b"PUB m %d\r\n%s\r\n" % (len(body), body))


def gaps_ms(clients: list[Client], moments: list[float]) -> list[float]:
    """For each kill and client, the longest that it heard nothing around the kill."""
    found = []
    for client in clients:
        got = np.array(client.got_at)
        for moment in moments:
            around = got[(got >= moment - 0.5) & (got <= moment + 2.5)]
            found.append(float(np.diff(around).max() * 1000) if len(around) > 1 else 3000.0)
    return found


class Servers:
    """A cluster in which everyone is linked with everyone."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.ports = free_ports(2 * SERVERS)
        self.running = [self._start(at) for at in range(SERVERS)]

    def _start(self, at: int) -> "subprocess.Popen[bytes]":
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in self.ports[SERVERS:])
        command = ["nats-server", "-a", "127.0.0.1", "-p", str(self.ports[at])]
        command += ["--cluster_name", "c", "--cluster", f"nats://127.0.0.1:{self.ports[SERVERS + at]}", "--routes", routes]
        with (Path(self.where) / f"nats-{at}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, at: int) -> None:
        self.running[at].kill()
        self.running[at].wait()

    def start(self, at: int) -> None:
        self.running[at] = self._start(at)

    def end(self) -> None:
        for at in range(SERVERS):
            self.kill(at)


def stall(rounds: int, seconds: float, clients: int = 200) -> dict[str, Any]:
    """One of many stops reading, in rounds as in `benchmarks.faults.stall`."""

    async def main(where: str) -> dict[str, Any]:
        servers = Servers(where)
        members = [Client(number, servers.ports[:SERVERS], 20.0 if number == 0 else 0.0) for number in range(clients)]
        windows: dict[str, list[tuple[float, float]]] = {"calm": [], "control": [], "stalled": []}
        try:
            await trio.sleep(2.0)
            async with trio.open_nursery() as nursery:
                for member in members:
                    nursery.start_soon(member.run)
                await trio.sleep(5.0)
                for _ in range(rounds):
                    for kind, found in windows.items():
                        began, over = time.monotonic(), trio.Event()
                        members[-1].stalled = over if kind == "stalled" else None
                        await trio.sleep(seconds)
                        found.append((began, time.monotonic()))
                        over.set()
                    members[-1].stalled = None
                    await trio.sleep(2.0)
                nursery.cancel_scope.cancel()
        finally:
            servers.end()
        sent, got = (np.concatenate([np.array(getattr(m, which)) for m in members[1:-1]]) for which in ("sent_at", "got_at"))
        p99s = {
            kind: float(np.percentile(np.concatenate([(got - sent)[(sent >= a) & (sent < b)] for a, b in found]), 99) * 1000)
            for kind, found in windows.items()
        }
        calm = (p99s["calm"] + p99s["control"]) / 2
        return {
            "nats_stall_others_p99_ratio": round(p99s["stalled"] / calm, 3),
            "nats_stall_control_p99_ratio": round(p99s["control"] / p99s["calm"], 3),
            "nats_stall_p99_ms": round(p99s["stalled"], 1),
        }

    with tempfile.TemporaryDirectory() as where:
        return trio.run(main, where)


def kill(rounds: int) -> dict[str, Any]:
    async def main(where: str) -> dict[str, Any]:
        servers = Servers(where)
        clients = [Client(number, servers.ports[:SERVERS], RATE) for number in range(CLIENTS)]
        moments = []
        try:
            await trio.sleep(2.0)
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.run)
                await trio.sleep(4.0)
                for _ in range(rounds):
                    for at in range(SERVERS):
                        moments.append(time.monotonic())
                        servers.kill(at)
                        await trio.sleep(0.7)
                        servers.start(at)
                        await trio.sleep(2.3)
                for client in clients:
                    client.quiet = True
                await trio.sleep(1.0)
                nursery.cancel_scope.cancel()
        finally:
            servers.end()
        lost = sum(other.sent - len(client.got.get(other.number, ())) for client in clients for other in clients if other is not client)
        heard = gaps_ms(clients, moments)
        return {
            "nats_kill_lost": lost, "nats_kill_of": sum(client.sent for client in clients) * (CLIENTS - 1), "nats_kill_kills": len(moments),
            "nats_kill_gap_ms_p99": round(float(np.percentile(heard, 99)), 1),
        }  # fmt: skip

    with tempfile.TemporaryDirectory() as where:
        return trio.run(main, where)


if __name__ == "__main__":
    print(json.dumps(kill(1)))
