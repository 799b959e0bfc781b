"""What neighbours notice of a link that floods.

One relay (the real process): a session with 100 receivers, 500 packets of 1,200 bytes a second; and in another session somebody who sends
as fast as it can, the smallest packets that there are, large ones, or pings, and who comes again at once whenever it is cut. Rounds with and
without it alternate. The generator is that of `benchmarks/fanout.py`. Who floods has the time that relay and generator leave (SCHED_IDLE): a
real one is on another machine, and its own work takes nothing from the neighbours.

    flood_SIZE_p50_ratio, flood_SIZE_p99_ratio    the neighbours' latency, with ÷ without (medians of the rounds)
    flood_SIZE_p99_ms                             with it; quiet_p99_ms without
    flood_SIZE_cut_s                              from its first byte until the relay cut it (median); flood_SIZE_cuts a second
    flood_SIZE_mb_s                               what it could send

Needs gcc and libssl-dev.
"""

import argparse
import contextlib
import json
import os
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.fanout import SESSION, Bench, Load
from wire.control import VERSION, Error, Facts, Grant, Hello, Ping, decode_control_untrusted, encode_control
from wire.errors import CloseReason
from wire.frame import PACKET, FrameDecoder, encode_frame
from wire.ids import Channel, Epoch, ParticipantId, SessionId
from wire.packet import HEADER_SIZE, TAG_SIZE, Flag, pack_header

OTHER = SESSION + 1
SIZES = {"small": HEADER_SIZE + TAG_SIZE, "large": 16_000, "ping": 0}  # bytes of a packet; 0: no packets
CHUNK = 64 * 1024
SECONDS = 4.0
_COUNTER = struct.Struct("!Q")


class Neighbours(Bench):
    """The session of `fanout`, and another one beside it."""

    def facts(self) -> list[Facts]:
        return [*super().facts(), Facts(serial=2, session=OTHER, grants=[Grant(1, 1, bytes(8))], office=1, term=1)]


def flood(port: int, size: int, seconds: float) -> dict[str, float]:
    """Send *latest* packets, whose counters need only rise, or pings, until the time is over. Runs in a process of its own."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["parley/1"])
    header = pack_header(Flag.LAST, Channel.CURSOR, SessionId(OTHER), ParticipantId(1), ParticipantId(0), Epoch(1), 0)
    frame = encode_frame(PACKET, header + bytes(size - HEADER_SIZE)) if size else encode_control(Ping(1))
    chunk = bytearray(frame * (CHUNK // len(frame)))
    counter, sent, cuts = 0, 0, list[float]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as link:
            link.sendall(encode_control(Hello(VERSION, OTHER, 1, 1, bytes(8), False, [])))
            began = time.monotonic()
            with contextlib.suppress(OSError):
                while time.monotonic() < end:
                    counters = range(HEADER_SIZE, len(chunk), len(frame)) if size else ()  # they stand at the end of each packet's header
                    for at in counters:
                        counter += 1
                        _COUNTER.pack_into(chunk, at, counter)
                    link.sendall(chunk)
                    sent += len(chunk)
                continue
            if why_cut(link) is CloseReason.FLOOD:
                cuts.append(time.monotonic() - began)
    return {"cuts": len(cuts) / seconds, "cut_s": statistics.median(cuts) if cuts else seconds, "mb_s": sent / seconds / 1e6}


def why_cut(link: ssl.SSLSocket) -> CloseReason | None:
    """What the relay said last."""
    decoder = FrameDecoder()
    with contextlib.suppress(OSError):
        link.settimeout(2)
        while data := link.recv(CHUNK):
            for frame in decoder.feed_untrusted(data):
                if frame.type != PACKET and isinstance(said := decode_control_untrusted(frame), Error):
                    return said.close_reason
    return None


def latency(load: Load) -> tuple[float, float]:
    """The neighbours' median and 99th percentile, in milliseconds."""
    found = load.say(f"run 512 500 {int(500 * SECONDS)} {SECONDS}")
    if found["wrong"] or found["complete"] != found["receivers"]:
        raise RuntimeError(f"the neighbours lost something: {found}")
    load.server.sent += found["sent"]
    return found["p50_us"] / 1000, found["p99_us"] / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object of figures as the last line")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=list(SIZES), help="this flood (may be repeated)")
    parser.add_argument("--flood", nargs=2, metavar=("PORT", "SIZE"), type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.flood:
        port, size = arguments.flood
        print(json.dumps(flood(port, size, SECONDS + 1.0)))
        return
    figures: dict[str, float] = {}
    quiet: list[tuple[float, float]] = []
    names = arguments.only or list(SIZES)
    loud: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    said: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as directory:
        bench = Neighbours(Path(directory), 100)
        with bench.ours() as server, bench.links(server, 1200, 100) as load:
            latency(load)
            for _ in range(arguments.rounds):
                quiet.append(latency(load))
                for name in names:
                    command = [sys.executable, "-m", "benchmarks.flood", "--flood", str(server.port), str(SIZES[name])]
                    with subprocess.Popen(command, stdout=subprocess.PIPE) as flooder:
                        assert flooder.stdout is not None
                        time.sleep(0.7)  # it has to start
                        loud[name].append(latency(load))
                        said[name].append(json.loads(flooder.stdout.read()))
    figures["quiet_p99_ms"] = round(statistics.median(p99 for _, p99 in quiet), 2)
    for name, found in loud.items():
        for at, which in enumerate(("p50", "p99")):
            ratios = [with_it[at] / without[at] for with_it, without in zip(found, quiet, strict=True)]
            figures[f"flood_{name}_{which}_ratio"] = round(statistics.median(ratios), 2)
        figures[f"flood_{name}_p99_ms"] = round(statistics.median(p99 for _, p99 in found), 2)
        for key in ("cut_s", "cuts", "mb_s"):
            figures[f"flood_{name}_{key}"] = round(statistics.median(one[key] for one in said[name]), 2)
    for name, value in figures.items():
        print(f"{name:24} {value:>10,}")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
