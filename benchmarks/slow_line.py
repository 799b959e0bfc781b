"""How long keys and chat wait behind a screen that is more than a reader's line carries.

One relay and one presenter on one host, one reader on the other; 20 ms of delay each way, and towards the reader `RATE` bytes a second. The
screen sends about three times as much, so the reader is always behind and skips; chat and keys are a few small packets a second.

    chat_ms_p50, chat_ms_p99, key_ms_p50, key_ms_p99    from saying to hearing
    screen_kb_s                                         what the reader got of the screen: the line is not left idle for it

Needs root, /dev/net/tun and iproute2.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import trio

from benchmarks._network import ADDRESSES, Line
from mcs.node import Node
from mcs.settings import Settings
from net import pki
from net.dial import dial
from net.tls import client_context
from tests.mcs.raw import Meeting, RawEndpoint
from wire.control import Admitted, Control, Want
from wire.frame import Frame
from wire.ids import Channel
from wire.packet import HEADER_SIZE, Flag

PORT = 7000
RATE = 250_000.0
PRESENTER, READER = 1, 2
FRAMES, PIECES, PIECE, SNAPSHOT = 12.0, 4, 15_000, 200_000
TALK = 7.0
KEYS_AMONG_TALK = 8
WARM = 5.0
_STAMP = struct.Struct(">d")


def meeting() -> Meeting:
    return Meeting(session=7, attendees=(READER,), tokens={})


class Presenter(RawEndpoint):
    """Shows, talks, and answers wants."""

    def received(self, item: Frame | Control) -> None:
        if isinstance(item, Want):
            for at in range(0, SNAPSHOT, PIECE):
                self.send(Channel.SNAPSHOT, body=bytes(PIECE), flags=Flag.LAST if at + PIECE >= SNAPSHOT else 0)
        super().received(item)

    async def show(self) -> None:
        began = trio.current_time()
        for number in range(1 << 60):
            await trio.sleep_until(began + number / FRAMES)
            for _ in range(PIECES):
                self.send(Channel.SCREEN, body=bytes(PIECE))

    async def talk(self) -> None:
        began = trio.current_time()
        for number in range(1 << 60):
            await trio.sleep_until(began + number / TALK)
            channel, to = (Channel.KEY, READER) if number % KEYS_AMONG_TALK == 0 else (Channel.CHAT, 0)
            self.send(channel, to=to, body=_STAMP.pack(time.monotonic()) + bytes(100))


class Reader(RawEndpoint):
    """Notes when what arrived."""

    def __init__(self, session: int, participant: int, token: bytes) -> None:
        super().__init__(session, participant, token)
        self.delays: dict[int, list[float]] = {Channel.CHAT: [], Channel.KEY: []}
        self.screen = 0

    def received(self, item: Frame | Control) -> None:
        if isinstance(item, Frame):
            channel = item.body[2]
            if channel in self.delays:
                self.delays[channel].append(time.monotonic() - _STAMP.unpack_from(item.body, HEADER_SIZE)[0])
            else:
                self.screen += len(item.body)


async def link(kind: type[RawEndpoint], where: Path, participant: int, nursery: trio.Nursery) -> RawEndpoint:
    endpoint = kind(meeting().session, participant, token := participant.to_bytes(8, "big"))
    one = meeting()
    one.tokens[participant] = token
    stream = await dial([(ADDRESSES["a"], PORT)], client_context(where / "ca" / "ca.crt", None), server_kind="mcs", cluster="home")
    nursery.start_soon(endpoint.run, stream, one.hello(participant))
    await trio.testing.wait_all_tasks_blocked()
    return endpoint


async def speak(where: Path) -> None:
    """The relay and the presenter, until killed."""
    one = meeting()
    one.tokens.update({p: p.to_bytes(8, "big") for p in (PRESENTER, READER)})
    node = Node(Settings(identity=where / "relay", listen=((ADDRESSES["a"], PORT),)))
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        node.relay.facts(one.facts())
        presenter = await link(Presenter, where, PRESENTER, nursery)
        assert isinstance(presenter, Presenter)
        presenter.say(Admitted([PRESENTER, READER]))
        print("ready", flush=True)
        nursery.start_soon(presenter.show)
        nursery.start_soon(presenter.talk)


async def listen(where: Path, seconds: float) -> None:
    async with trio.open_nursery() as nursery:
        reader = await link(Reader, where, READER, nursery)
        assert isinstance(reader, Reader)
        await trio.sleep(WARM)
        for delays in reader.delays.values():
            delays.clear()
        before = reader.screen
        await trio.sleep(seconds)
        if reader.closed is not None:
            raise RuntimeError(f"the reader's link has ended: {reader.closed}")
        figures = {"screen_kb_s": round((reader.screen - before) / seconds / 1000, 1)}
        for name, channel in (("chat", Channel.CHAT), ("key", Channel.KEY)):
            p50, p99 = np.percentile(reader.delays[channel], [50, 99])
            figures |= {f"{name}_ms_p50": round(1000 * p50, 1), f"{name}_ms_p99": round(1000 * p99, 1)}
        print(json.dumps(figures), flush=True)
        nursery.cancel_scope.cancel()


def measure(seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory, Line("slow") as line:
        where = Path(directory)
        ca = pki.create_ca(where / "ca", "home")
        pki.enrol(ca.parent, where / "relay", "mcs", "relay-1", [ADDRESSES["a"]])
        line.set("ab", delay=0.02, rate=RATE)
        line.set("ba", delay=0.02)
        command = [sys.executable, "-m", "benchmarks.slow_line", "--where", directory, "--seconds", str(seconds)]
        with subprocess.Popen(line.inside("a", *command, "--role", "speak"), stdout=subprocess.PIPE) as speaker:
            try:
                assert speaker.stdout is not None
                if speaker.stdout.readline() != b"ready\n":
                    raise RuntimeError("the relay did not start")
                out = subprocess.run(line.inside("b", *command, "--role", "listen"), stdout=subprocess.PIPE, check=True, timeout=seconds + 30)
            finally:
                speaker.kill()
        found: dict[str, float] = json.loads(out.stdout)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object of figures as the last line")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--role", choices=("speak", "listen"), help=argparse.SUPPRESS)
    parser.add_argument("--where", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        trio.run(speak, arguments.where) if arguments.role == "speak" else trio.run(listen, arguments.where, arguments.seconds)
        return
    figures = measure(arguments.seconds)
    for name, value in figures.items():
        print(f"{name:20} {value:>10,}")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
