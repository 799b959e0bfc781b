"""Two hosts on a line with delay, loss and cuts, for tests and benchmarks. Linux, root; packages iproute2.

    with Line("faults") as line:
        line.set(delay=0.1, loss=0.05)           each direction; or set("ab", cut=True), set("ba", rate=250_000)
        subprocess.Popen(line.inside("a", "python", …))

The hosts are network namespaces of this process alone, `NAME-PID-a` (10.77.0.1) and `NAME-PID-b` (10.77.0.2), each with a TUN device. One
process holds both devices: what it reads from one it writes to the other, later or never. Packets of one direction keep their order. A
process enters a namespace before it opens its device, and keeps the device after it has left, so nothing needs to stand between the hosts.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

ADDRESSES: Final = {"a": "10.77.0.1", "b": "10.77.0.2"}
QUEUE: Final = 20_000
"""Packets on the way in one direction; more are lost, as on any line."""
WAIT: Final = 0.2
"""Seconds that a packet waits at most until a slow line is free; then it is lost."""
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


class Line:
    """Two hosts and the line between them. The namespaces are gone at the end."""

    def __init__(self, name: str) -> None:
        self.hosts = {side: f"{name}-{os.getpid()}-{side}" for side in ADDRESSES}
        self._carrier: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._remove()
        try:
            for host in self.hosts.values():
                subprocess.run(["ip", "netns", "add", host], check=True)
                subprocess.run(["ip", "-n", host, "link", "set", "lo", "up"], check=True)
            command = [sys.executable, __file__, self.hosts["a"], self.hosts["b"]]
            self._carrier = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._carrier.stdout is not None
            if self._carrier.stdout.readline() != b"ready\n":
                raise RuntimeError("the line could not be made: root and /dev/net/tun are needed")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._carrier is not None:
            self._carrier.kill()
            self._carrier.wait()
            for pipe in (self._carrier.stdin, self._carrier.stdout):
                if pipe is not None:
                    pipe.close()
        self._remove()

    def _remove(self) -> None:
        for host in self.hosts.values():
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)

    def set(self, way: str = "", *, delay: float = 0.0, jitter: float = 0.0, loss: float = 0.0, rate: float = 0.0, cut: bool = False) -> None:
        """`way`: "ab", "ba", or both. Seconds and probabilities; `rate` in bytes a second, 0: any. What is on its way already arrives."""
        assert self._carrier is not None
        assert self._carrier.stdin is not None
        assert self._carrier.stdout is not None
        rules = {"way": way, "delay": delay, "jitter": jitter, "loss": loss, "rate": rate, "cut": cut}
        self._carrier.stdin.write(json.dumps(rules).encode() + b"\n")
        self._carrier.stdin.flush()
        self._carrier.stdout.readline()  # it is done

    def inside(self, side: str, *command: str) -> list[str]:
        """The command, to be run on one of the hosts."""
        return ["ip", "netns", "exec", self.hosts[side], *command]


def _open(namespace: str, address: str) -> int:
    """A TUN device in a namespace; its descriptor works from anywhere."""
    with (Path("/run/netns") / namespace).open() as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"line0", _IFF_TUN | _IFF_NO_PI))
    for words in (("addr", "add", f"{address}/24", "dev", "line0"), ("link", "set", "line0", "up", "txqueuelen", "5000")):
        subprocess.run(["ip", *words], check=True)
    return tun


def _carry(a: int, b: int) -> None:
    """Until standard input ends."""
    rules: dict[int, dict[str, float]] = {a: {}, b: {}}
    out = {a: b, b: a}
    names = {"ab": [a], "ba": [b], "": [a, b]}
    due: list[tuple[float, int, int, bytes]] = []
    on_the_way, latest, serial = {a: 0, b: 0}, {a: 0.0, b: 0.0}, 0
    free = {a: 0.0, b: 0.0}  # when a slow line has sent what waits for it
    poll = select.epoll()
    for descriptor in (0, a, b):
        poll.register(descriptor, select.EPOLLIN)
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, _, source, packet = heapq.heappop(due)
            on_the_way[source] -= 1
            with suppress(OSError):
                os.write(out[source], packet)
        for descriptor, _ in poll.poll(max(0.0, due[0][0] - time.monotonic()) if due else 1.0):
            if descriptor == 0:
                line = sys.stdin.readline()
                if not line:
                    return
                said = json.loads(line)
                for side in names[said["way"]]:
                    rules[side] = said
                print("done", flush=True)
                continue
            rule = rules[descriptor]
            for _ in range(256):
                try:
                    packet = os.read(descriptor, 65_536)
                except BlockingIOError:
                    break
                if rule.get("cut") or on_the_way[descriptor] >= QUEUE or random.random() < rule.get("loss", 0.0):
                    continue
                now = time.monotonic()
                start = max(now, free[descriptor])
                if start - now > WAIT:
                    continue
                free[descriptor] = start + len(packet) / rule["rate"] if rule.get("rate") else now
                when = max(now, free[descriptor]) + rule.get("delay", 0.0) + random.random() * rule.get("jitter", 0.0)
                when = latest[descriptor] = max(when, latest[descriptor])
                serial += 1
                on_the_way[descriptor] += 1
                heapq.heappush(due, (when, serial, descriptor, packet))


if __name__ == "__main__":
    _carry(_open(sys.argv[1], ADDRESSES["a"]), _open(sys.argv[2], ADDRESSES["b"]))
