"""Whether a relay's memory stays flat over an hour's worth of packets.

The relay process and its links are those of `benchmarks/fanout.py`. One meeting with 20 receivers, an hour of it in about a minute: the time
is compressed, the number of packets is not. In every minute of the meeting

    720 screen updates of two packets       3,600 pointers       120 chat lines of 300 bytes
    a snapshot of the screen of 20 packets  10 people who come and go

and in the first 15 minutes an hour's log entries, 720. They go by age alone, after two minutes, and age is not compressed:
said one after the other they would look like a leak of 900 bytes each.

Memory is looked at after each minute of it. The relay keeps the last 1 MiB of what a sender says and 4 MiB of its screen, so it is full
after some minutes; what counts is what comes on top of that.

    hour_kb_first, hour_kb_last     the relay's resident memory after 15 minutes of the meeting, and at its end
    hour_growth_kb                  the highest of its last 15 minutes less the highest of the 15 before the half: flat if it is next to nothing
    hour_packets, hour_cpu_s        what was sent, and what the relay needed for it

Needs gcc and libssl-dev (Debian packages).
"""

import argparse
import contextlib
import json
import socket
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.fanout import SESSION, Bench, cpu, resident
from wire.control import VERSION, Hello, encode_control
from wire.frame import PACKET, encode_frame
from wire.ids import Channel, Epoch, ParticipantId, SessionId
from wire.packet import HEADER_SIZE, Flag, pack_header

RECEIVERS = 20
MINUTES = 60
VISITORS = 10  # a minute
PER_SECOND = 7_500  # packets; below what a relay calls a flood
_COUNTERS: Counter[int] = Counter()


def packet(channel: Channel, size: int, *, last: bool = True) -> bytes:
    """The next one of its stream, framed."""
    flags = Flag.LAST if last else Flag(0)
    header = pack_header(flags, channel, SessionId(SESSION), ParticipantId(1), ParticipantId(0), Epoch(1), _COUNTERS[channel])
    _COUNTERS[channel] += 1
    return encode_frame(PACKET, header + bytes(size - HEADER_SIZE))


def minute(number: int) -> Iterator[bytes]:
    """What is said in one minute, in its order; each entry in one write."""
    for tick in range(720):  # twelve a second
        yield packet(Channel.SCREEN, 3000, last=False) + packet(Channel.SCREEN, 1500)
        yield b"".join(packet(Channel.CURSOR, 90) for _ in range(5))
        if tick % 6 == 0:
            yield packet(Channel.CHAT, 300)
        if number < 15 and tick % 15 == 0:
            yield packet(Channel.LOG, 400)
        if tick == 360:
            yield b"".join(packet(Channel.SNAPSHOT, 16_000, last=part == 19) for part in range(20))


@contextlib.contextmanager
def entered(bench: Bench, port: int, participant: int) -> Iterator[ssl.SSLSocket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["parley/1"])
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as link:
        hello = Hello(VERSION, SESSION, participant, 1 if participant == 1 else 2, bench.tokens[participant], False, [])
        link.sendall(encode_control(hello))
        link.recv(65_536)
        yield link


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object of figures as the last line")
    arguments = parser.parse_args()
    memory: list[float] = []
    packets = 0
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), RECEIVERS + MINUTES * VISITORS)
        with bench.ours() as server, bench.links(server, 200, RECEIVERS), entered(bench, server.port, 1) as sender:
            visitors = iter(range(RECEIVERS + 2, RECEIVERS + 2 + MINUTES * VISITORS))
            spent = cpu(server.pid)
            for at in range(MINUTES):
                began, before = time.monotonic(), sum(_COUNTERS.values())
                for number, said in enumerate(minute(at)):
                    sender.settimeout(10)
                    sender.sendall(said)
                    if number % 150 == 0:
                        with contextlib.suppress(StopIteration), entered(bench, server.port, next(visitors)):
                            sender.settimeout(0)
                            with contextlib.suppress(ssl.SSLWantReadError):
                                sender.recv(65_536)  # what it has taken, and who is here
                    sent = sum(_COUNTERS.values()) - before
                    time.sleep(max(0.0, began + sent / PER_SECOND - time.monotonic()))
                packets += sum(_COUNTERS.values()) - before
                memory.append(resident(server.pid) / 1024)
            spent = cpu(server.pid) - spent
    figures = {
        "hour_kb_first": round(memory[14]),
        "hour_kb_last": round(memory[-1]),
        "hour_growth_kb": round(max(memory[-15:]) - max(memory[15:30])),
        "hour_packets": packets,
        "hour_cpu_s": round(spent, 1),
    }
    for name, value in figures.items():
        print(f"{name:16} {value:>10,}")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
