"""What a delivered packet costs a relay, beside nats-server with TLS and beside the least that C over OpenSSL can do.

The real relay process, Debian's `nats-server` and `fanout_relay.c` serve the same generator (`fanout_load.c`) in interleaved rounds: one
sender, and receivers of which most count TLS records and five decrypt, check the order and sample the latency. TLS 1.3,
TLS_AES_128_GCM_SHA256 for all. What counts is the server's CPU time, of all its threads (/proc/PID/task/*/schedstat), for each packet that
a receiver was given; ratios are medians of the rounds' ratios, so a busy machine disturbs both sides alike.

    *saturated*   a window of packets in flight, as many as go          *paced*   500 packets a second (150 at 16 KB), one write each

    ratio_sat_SIZE, ratio_paced_SIZE    ours ÷ nats-server, 100 receivers; SIZE in bytes of the packet (16384: the largest, 16,376)
    p50_ratio_…, p99_ratio_…            the same of the latency, median and 99th percentile; of ours in microseconds beside it
    c_ratio_sat_1200, c_ratio_paced_1200    ours ÷ C
    scale_1000_over_100                 our cost of a packet at 1,000 receivers ÷ at 100, saturated; us_sat_1200_xN at N receivers
    idle_link_kb, nats_idle_link_kb     memory of a link that is idle, over 2,000 links
    handshakes_per_cpu_s                full handshakes; nats_resumed_per_cpu_s: resumed ones; ours never are (docs/protocol.md)

Needs gcc and libssl-dev, and nats-server for the ratios (Debian packages).
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import trio

from net import pki
from net.connection import Connection
from net.listener import listen, serve_tls
from net.stream import TlsStream
from net.tls import server_context
from wire.control import VERSION, Control, Facts, FactsAck, Grant, Hello, NodeHello, NodeWelcome, Position, Welcome, encode_control
from wire.frame import PACKET, Frame, encode_frame
from wire.ids import Epoch, ParticipantId, SessionId
from wire.link import Side
from wire.packet import HEADER_SIZE, MAX_PACKET, TAG_SIZE, Flag, pack_header

HERE = Path(__file__).parent
SESSION = 0x5EED
DECRYPTING = 5
CHAT = 2
COUNTER_AT = 24
STAMP_AT = HEADER_SIZE
SIZES = {200: 200, 1200: 1200, 16384: MAX_PACKET}
RATES = {200: 500.0, 1200: 500.0, 16384: 150.0}
WINDOWS = {200: 1024, 1200: 512, 16384: 48}
SATURATED_BYTES = 24 << 20  # of one run: below what a relay calls a flood
SATURATED_PACKETS = 14_000  # the same, with the warm-up before it
PACED_SECONDS = 2.5


def build(name: str, where: Path) -> Path:
    if shutil.which("gcc") is None or not Path("/usr/include/openssl/ssl.h").exists():
        sys.exit("gcc or libssl-dev is missing (Debian packages): the generator of this benchmark is compiled.")
    target = where / name
    subprocess.run(["gcc", "-O2", "-o", str(target), str(HERE / f"{name}.c"), "-lssl", "-lcrypto"], check=True)
    return target


def cpu(pid: int) -> float:
    """Seconds of CPU of all threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def line_of(stream: IO[bytes] | None) -> dict[str, Any]:
    assert stream is not None
    line = stream.readline()
    if not line:
        raise RuntimeError("the generator has ended")
    found: dict[str, Any] = json.loads(line)
    return found


class Manager(threading.Thread):
    """What a relay needs of a manager: the grants of one session."""

    def __init__(self, identity: pki.Identity, facts: list[Facts]) -> None:
        super().__init__(daemon=True)
        self.identity, self.facts = identity, facts
        self.port = 0
        self.ready, self.known = threading.Event(), threading.Event()
        self.acknowledged = 0

    def run(self) -> None:
        trio.run(self._serve)

    async def _serve(self) -> None:
        listeners = await listen("127.0.0.1", 0)
        self.port = listeners[0].socket.getsockname()[1]
        self.ready.set()
        await serve_tls(listeners, server_context(self.identity, ask_peer=True), self._link)

    async def _link(self, stream: TlsStream) -> None:
        manager = self

        class Handler:
            def received(self, item: Frame | Control) -> None:
                if isinstance(item, NodeHello):
                    for message in (NodeWelcome(VERSION, "manager-1"), *manager.facts):
                        connection.send(message)
                elif isinstance(item, FactsAck):
                    manager.acknowledged += 1
                    if manager.acknowledged == len(manager.facts):
                        manager.known.set()

            def pull(self, budget: int) -> bytes | None:
                return None

        connection = Connection(stream, Side.CALLEE, Handler())
        await connection.run()


class Server:
    """A process under test."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        self.name, self.process, self.port = name, process, port
        self.sent = 0  # packets, so the next counter of the sender's stream

    @property
    def pid(self) -> int:
        return self.process.pid


class Bench:
    """Certificates, programs, servers."""

    def __init__(self, where: Path, receivers: int) -> None:
        self.where = where
        self.load = build("fanout_load", where)
        ca = pki.create_ca(where / "ca", "bench")
        self.relay_id = pki.enrol(ca.parent, where / "relay", "mcs", "relay-1", ["127.0.0.1"])
        self.manager_id = pki.enrol(ca.parent, where / "manager", "manager", "manager-1", ["127.0.0.1"])
        self.receivers = receivers
        self.participants = [*range(2, receivers + 2), 1]  # the sender comes last: it organizes
        self.tokens = {p: p.to_bytes(8, "big") for p in self.participants}

    def facts(self) -> list[Facts]:
        grants = [Grant(p, 1 if p == 1 else 2, self.tokens[p]) for p in self.participants]
        parts = [grants[at : at + 1000] for at in range(0, len(grants), 1000)]
        return [Facts(serial=n, session=SESSION, grants=part, office=1, term=1) for n, part in enumerate(parts, 1)]

    @contextlib.contextmanager
    def ours(self) -> Iterator[Server]:
        manager = Manager(self.manager_id, self.facts())
        manager.start()
        manager.ready.wait(10)
        command = [sys.executable, "-m", "mcs", "--json", "--log-json", "--exit-with-parent", "--listen", "127.0.0.1:0"]
        command += ["--identity", str(self.relay_id.cert_path.parent), "--manager", f"127.0.0.1:{manager.port}"]
        with self._running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=HERE.parent) as process:
            port = line_of(process.stdout)["addresses"][0][1]
            if not manager.known.wait(20):
                raise RuntimeError("the relay did not take its grants")
            yield Server("parley", process, port)

    @contextlib.contextmanager
    def nats(self) -> Iterator[Server]:
        port = free_port()
        config = self.where / "nats.conf"
        key = self.relay_id
        config.write_text(
            f'listen: "127.0.0.1:{port}"\nmax_payload: 1MB\ntls {{ cert_file: "{key.cert_path}", key_file: "{key.key_path}", timeout: 10,\n'
            ' cipher_suites: ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"] }\n'
        )
        with self._running(["nats-server", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_for_port(port)
            yield Server("nats", process, port)

    @contextlib.contextmanager
    def plain_c(self) -> Iterator[Server]:
        welcome = self.where / "welcome"
        welcome.write_bytes(encode_control(Welcome(VERSION, "c", -1, -1, [])))
        command = [str(build("fanout_relay", self.where)), str(self.relay_id.cert_path), str(self.relay_id.key_path), str(welcome)]
        with self._running(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield Server("c", process, int(process.stdout.readline()))

    @contextlib.contextmanager
    def _running(self, command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(command, **options)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def links(self, server: Server, size: int, receivers: int, decrypting: int = DECRYPTING) -> Iterator["Load"]:
        body = SIZES.get(size, size)
        packet = pack_header(Flag.LAST, CHAT, SessionId(SESSION), ParticipantId(1), ParticipantId(0), Epoch(1), 0) + bytes(body - HEADER_SIZE)
        assert len(packet) >= STAMP_AT + 8 + TAG_SIZE
        preambles = []
        for participant in (*self.participants[:receivers], 1):
            if server.name == "nats":
                last = b"" if participant == 1 else b"SUB x 1\r\n"
                preambles.append(b'CONNECT {"verbose":false,"pedantic":false,"tls_required":true}\r\n' + last + b"PING\r\n")
                message = b"PUB x %d\r\n" % len(packet) + packet + b"\r\n"
            else:
                preambles.append(encode_control(self.hello(participant, server.sent)))
                message = encode_frame(PACKET, packet)
        files = [self.where / "preambles", self.where / "message"]
        files[0].write_bytes(b"".join(struct.pack("!I", len(p)) + p for p in preambles))
        files[1].write_bytes(message)
        command = [str(self.load), "127.0.0.1", str(server.port), server.name, str(receivers), str(min(decrypting, receivers))]
        command += [*map(str, files), str(COUNTER_AT), str(STAMP_AT), str(server.sent)]
        with self._running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            line_of(process.stdout)
            yield Load(server, process, size, receivers)

    def hello(self, participant: int, sent: int) -> Hello:
        """What a link says first. `sent`: packets of the sender that it has."""
        have: list[Position] = [(1, 0, CHAT, sent - 1)] if sent else []
        return Hello(VERSION, SESSION, participant, 1 if participant == 1 else 2, self.tokens[participant], False, have)

    def handshakes(self, server: Server, number: int, *, resume: bool = False) -> tuple[float, int]:
        """Per second of the server's CPU, and how many were resumed."""
        command = [str(self.load), "127.0.0.1", str(server.port), server.name, "handshakes", str(number), *(["resume"] if resume else [])]
        before = cpu(server.pid)
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        time.sleep(0.2)
        return number / (cpu(server.pid) - before), found["resumed"]


class Run(NamedTuple):
    """Microseconds: of CPU for each delivered packet, and from saying to hearing."""

    cost: float
    p50: float
    p99: float


class Load:
    """Links to one server, and runs over them."""

    def __init__(self, server: Server, process: subprocess.Popen[bytes], size: int, receivers: int) -> None:
        self.server, self.process, self.size, self.receivers = server, process, size, receivers

    def run(self, *, paced: bool, seconds: float = PACED_SECONDS) -> Run:
        body = SIZES.get(self.size, self.size)
        rate = RATES.get(self.size, 500.0) if paced else 0.0
        packets = int(rate * seconds) if paced else min(SATURATED_BYTES // body, SATURATED_PACKETS)
        before = cpu(self.server.pid)
        found = self.say(f"run {WINDOWS.get(self.size, 512)} {rate} {packets} {seconds}")
        spent = cpu(self.server.pid) - before
        self.server.sent += found["sent"]
        if found["wrong"] or found["complete"] != found["receivers"]:
            raise RuntimeError(f"{self.server.name} did not deliver: {found}")
        return Run(1e6 * spent / (found["sent"] * self.receivers), found["p50_us"], found["p99_us"])

    def idle(self, seconds: float) -> float:
        """The server's CPU meanwhile."""
        before = cpu(self.server.pid)
        self.say(f"idle {seconds}")
        return cpu(self.server.pid) - before

    def say(self, what: str) -> dict[str, Any]:
        """A word to the generator, and its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(what.encode() + b"\n")
        self.process.stdin.flush()
        return line_of(self.process.stdout)


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for_port(port: int) -> None:
    import socket

    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("the server does not listen")


def compare(bench: Bench, servers: list[Server], size: int, *, paced: bool, rounds: int, figures: dict[str, float]) -> None:
    """All servers in turn, `rounds` times."""
    how = "paced" if paced else "sat"
    runs: dict[str, list[Run]] = {server.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            with bench.links(server, size, 100) as load:
                load.run(paced=paced, seconds=0.5)
                runs[server.name].append(load.run(paced=paced))
    for name, found in runs.items():
        figures[f"{name}_us_{how}_{size}"] = round(statistics.median(one.cost for one in found), 3)
    ours = runs["parley"]
    for name, prefix in (("nats", ""), ("c", "c_")):
        if name in runs and (prefix == "" or size == 1200):
            figures[f"{prefix}ratio_{how}_{size}"] = round(statistics.median(a.cost / b.cost for a, b in zip(ours, runs[name], strict=True)), 3)
    for at, which in ((1, "p50"), (2, "p99")):
        figures[f"{which}_us_{how}_{size}"] = round(statistics.median(one[at] for one in ours))
        if "nats" in runs:
            ratios = [a[at] / b[at] for a, b in zip(ours, runs["nats"], strict=True)]
            figures[f"{which}_ratio_{how}_{size}"] = round(statistics.median(ratios), 3)


def scale(bench: Bench, ours: Server, rounds: int, figures: dict[str, float]) -> None:
    costs: dict[int, list[float]] = {}
    for _ in range(rounds):
        for receivers in (1, 10, 100, 500, 1000):
            with bench.links(ours, 1200, receivers) as load:
                load.run(paced=False, seconds=0.5)
                costs.setdefault(receivers, []).append(load.run(paced=False).cost)
            time.sleep(1.0)  # for what a link may send at once
    for receivers, found in costs.items():
        figures[f"us_sat_1200_x{receivers}"] = round(statistics.median(found), 3)
    pairs = zip(costs[1000], costs[100], strict=True)
    figures["scale_1000_over_100"] = round(statistics.median(a / b for a, b in pairs), 3)


def idle(bench: Bench, servers: list[Server], figures: dict[str, float]) -> None:
    """In fresh processes: one that has had many links has memory left for more."""
    for name in [server.name for server in servers]:
        with bench.nats() if name == "nats" else bench.ours() as server:
            _idle(bench, server, "" if name == "parley" else f"{name}_", figures)


def _idle(bench: Bench, server: Server, prefix: str, figures: dict[str, float]) -> None:
    before = resident(server.pid)
    with bench.links(server, 1200, 1999) as load:
        load.idle(2.0)
        figures[f"{prefix}idle_link_kb"] = round((resident(server.pid) - before) / 2000 / 1024, 1)
        figures[f"{prefix}idle_link_cpu_us_per_s"] = round(1e6 * load.idle(5.0) / 5 / 2000, 1)


def shake_hands(bench: Bench, servers: list[Server], figures: dict[str, float]) -> None:
    for server in servers:
        prefix = "" if server.name == "parley" else f"{server.name}_"
        figures[f"{prefix}handshakes_per_cpu_s"] = round(bench.handshakes(server, 300)[0])
        if server.name == "nats":
            rate, resumed = bench.handshakes(server, 300, resume=True)
            figures["nats_resumed_per_cpu_s"] = round(rate) if resumed > 200 else 0


SCENARIOS = ("sat", "paced", "scale", "idle", "handshakes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object of figures as the last line")
    parser.add_argument("--quick", action="store_true", help="one round of each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario (may be repeated)")
    parser.add_argument("--size", action="append", type=int, choices=list(SIZES), help="this size (may be repeated)")
    parser.add_argument("--alone", action="store_true", help="our relay without the others")
    arguments = parser.parse_args()
    scenarios, sizes = arguments.only or SCENARIOS, arguments.size or list(SIZES)
    rounds = 1 if arguments.quick else arguments.rounds
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        bench = Bench(Path(directory), 2000)
        ours = stack.enter_context(bench.ours())
        servers = [ours]
        if not arguments.alone:
            servers.append(stack.enter_context(bench.plain_c()))
            if shutil.which("nats-server"):
                servers.append(stack.enter_context(bench.nats()))
            else:
                print("no comparison: nats-server is missing (Debian package)")
        peers = [server for server in servers if server.name != "c"]
        steps: dict[str, Callable[[], None]] = {
            "scale": lambda: scale(bench, ours, 1 if arguments.quick else 3, figures),
            "idle": lambda: idle(bench, peers, figures),
            "handshakes": lambda: shake_hands(bench, peers, figures),
        }
        for name in scenarios:
            if name in steps:
                steps[name]()
            else:
                for size in sizes:
                    compare(bench, servers, size, paced=name == "paced", rounds=rounds, figures=figures)
    for name, value in figures.items():
        print(f"{name:28} {value:>12,}")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
