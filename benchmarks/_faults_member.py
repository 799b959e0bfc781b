"""Members for `benchmarks/faults.py`: a process with some of them. What they say and how they come back is the product's own code
(`wire`, `net`, `endpoint.outbox`); what stands inside their packets is not sealed, so that twenty of them fit beside five relays.

Standard input: one line of JSON, then `stop`. At the end a pickle with everything that arrived, and when, goes to the file that it names.
Times are CLOCK_MONOTONIC, the same in all processes of a machine.
"""

import json
import pickle
import random
import struct
import sys
import time
from array import array
from hashlib import blake2b
from typing import Any

import trio
from OpenSSL import SSL

from endpoint.outbox import Outbox
from endpoint.reserve import RESERVE_EVERY, Reserve
from net.connection import Connection
from net.dial import Unreachable, dial
from net.tls import TlsRefused, client_context
from wire.control import VERSION, Admitted, Control, Have, Hello, Lost, Position, Taken, Want, Welcome
from wire.frame import Frame
from wire.have import HaveVector
from wire.ids import Channel, Epoch, ParticipantId, SessionId, Stream
from wire.link import Side
from wire.packet import HEADER_SIZE, TAG_SIZE, UNICAST_CHANNELS, Flag, pack_header, parse_packet_untrusted

UPDATE = 6000
SNAPSHOT = 40_000
PIECE = 15_000
BODY = 160
_STAMP = struct.Struct(">d16s")
RELIABLE = frozenset((0, 1, 2, 4))


class Member:
    """One of the meeting. `log`, `keys`, `chat`, `input`: packets a second that it says."""

    def __init__(self, settings: dict[str, Any], number: int, tls: SSL.Context) -> None:
        self.settings, self.number, self.tls = settings, number, tls
        self.organizer = number == 1
        self.outbox = Outbox()
        self.have = HaveVector()
        self.sent: dict[tuple[int, int, int], int] = {}
        self.sent_at, self.got_at, self.channels = array("d"), array("d"), array("b")
        self.frames_sent, self.frames_got = array("d"), array("d")
        self.doubled = self.gaps = self.lost = self.inexact = 0
        self.links: list[tuple[float, float, str, str]] = []  # up, down, node, why
        self.connection: Connection | None = None
        self.reserve: Reserve[Any] | None = None
        self.node = ""
        self.up = False
        self.closing = False
        self._state = bytes(16)
        self._frame = -1
        self._broken = False
        self._wanted = 0.0
        self._snapshot = b""
        self._snapshots = 0

    async def run(self) -> None:
        relays = list(self.settings["relays"])
        at = self.settings.get("home", {}).get(str(self.number), self.number % len(relays))
        relays = relays[at:] + relays[:at]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.say)
            if self.number == self.settings["presenter"]:
                nursery.start_soon(self.present)
            nursery.start_soon(self.keep_reserve, nursery, relays)
            while not self.closing:
                reserve, self.reserve = self.reserve, None
                at = reserve.relay if reserve and not reserve.over else relays[0]
                relays.remove(at)
                relays.append(at)
                node, address = self.node, _ = at
                began, self.up = time.monotonic(), False
                why = await (self.link(tuple(address)) if reserve is None or reserve.over else self.promote(reserve))
                if self.up:
                    self.links.append((began, time.monotonic(), node, why))
                self.up, self.connection = False, None
                if self.reserve is None or self.reserve.over:
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()

    async def dial(self, address: tuple[str, int]) -> Connection:
        stream = await dial([address], self.tls, server_kind="mcs", cluster="home", timeout=4.0)
        return Connection(stream, Side.CALLER, self)

    async def link(self, address: tuple[str, int]) -> str:
        try:
            self.connection = connection = await self.dial(address)
        except (Unreachable, TlsRefused) as error:
            return str(error)
        parts = self.have.parts()
        connection.send(self.hello(parts[0], more=len(parts) > 1))
        self.say_have(connection, parts[1:])
        return str((await connection.run()).reason)

    async def promote(self, reserve: Reserve[Any]) -> str:
        self.connection = reserve.connection
        self.say_have(reserve.connection, self.have.parts())
        return str((await reserve.ended()).reason)

    async def keep_reserve(self, nursery: trio.Nursery, relays: list[Any]) -> None:
        """As `endpoint.session` does."""
        tries = 0
        while not self.closing:
            await trio.sleep(RESERVE_EVERY * random.uniform(0.5, 1.0))
            others = [relay for relay in relays if relay[0] != self.node]
            if not self.up or not others or (self.reserve is not None and not self.reserve.over):
                continue
            relay = others[tries % len(others)]
            tries += 1
            try:
                connection = await self.dial(tuple(relay[1]))
            except (Unreachable, TlsRefused):
                continue
            connection.send(self.hello([], more=True, standby=True))
            self.reserve = Reserve(relay, connection)
            nursery.start_soon(self.reserve.run)

    def hello(self, have: list[Position], **flags: bool) -> Hello:
        role, token = 1 if self.organizer else 2, bytes.fromhex(self.settings["tokens"][str(self.number)])
        return Hello(VERSION, self.settings["session"], self.number, role, token, False, have, **flags)

    @staticmethod
    def say_have(connection: Connection, parts: list[list[Position]]) -> None:
        for at, part in enumerate(parts, 1):
            connection.send(Have(part, more=at < len(parts)))

    # --- as a handler ---

    def pull(self, budget: int) -> bytes | None:
        return self.outbox.pull(budget)

    def received(self, item: Frame | Control) -> None:
        now = trio.current_time()
        if isinstance(item, Frame):
            self.take(item.body)
        elif isinstance(item, Welcome):
            self.up = True
            if self.organizer and self.connection:
                self.connection.send(Admitted([int(number) for number in self.settings["tokens"]]))
            self.outbox.relink(item.taken, now)
            if self.connection:
                self.connection.wake()
        elif isinstance(item, Taken):
            self.outbox.taken(item.taken, now)
        elif isinstance(item, Lost):
            self.lost += len(item.streams)
            self.have.merge(item.streams)
        elif isinstance(item, Want) and self.number == self.settings["presenter"]:
            self.show_whole()

    def take(self, body: bytes) -> None:
        header, now = parse_packet_untrusted(body), time.monotonic()
        if header.channel in RELIABLE:
            last = self.have.last(header.stream)
            if header.counter <= last:
                self.doubled += 1
                return
            self.gaps += header.counter - last - 1
            self.have.jump(header.stream, header.counter)
            self.sent_at.append(_STAMP.unpack_from(body, HEADER_SIZE)[0])
            self.got_at.append(now)
            self.channels.append(header.channel)
        elif header.channel == Channel.SCREEN:
            self.follow(body, header.counter, now)
        elif header.channel == Channel.SNAPSHOT:
            self._snapshot += body[HEADER_SIZE:-TAG_SIZE]
            if header.flags & Flag.LAST:
                frame, state = struct.unpack_from(">q16s", self._snapshot)
                self._snapshot = b""
                if frame >= self._frame:
                    self._frame, self._state, self._broken = frame, state, False

    # --- the screen: every picture follows from the one before and the update ---

    def follow(self, body: bytes, counter: int, now: float) -> None:
        if counter <= self._frame:
            return
        if counter != self._frame + 1 or self._broken:
            self._broken = True
            if now - self._wanted > 1.0 and self.connection and self.up:
                self._wanted = now
                self.connection.send(Want(1))
            return
        sent, picture = _STAMP.unpack_from(body, HEADER_SIZE)
        self._frame, self._state = counter, self.after(self._state, body)
        if self._state == picture:
            self.frames_sent.append(sent)
            self.frames_got.append(now)
        else:
            self.inexact += 1

    @staticmethod
    def after(state: bytes, body: bytes) -> bytes:
        return blake2b(state + body[HEADER_SIZE + _STAMP.size : -TAG_SIZE], digest_size=16).digest()

    async def present(self) -> None:
        began = self.settings["begin"]
        for number in range(1 << 60):
            await trio.sleep(max(0.0, began + number / self.settings["frames"] - time.monotonic()))
            if not self.up:
                continue
            pixels = random.randbytes(UPDATE)
            self._frame += 1
            self._state = blake2b(self._state + pixels, digest_size=16).digest()
            self.push(Channel.SCREEN, 0, self._frame, _STAMP.pack(time.monotonic(), self._state) + pixels)

    def show_whole(self) -> None:
        whole = struct.pack(">q16s", self._frame, self._state) + bytes(SNAPSHOT)
        for at in range(0, len(whole), PIECE):
            last = Flag.LAST if at + PIECE >= len(whole) else 0
            self.push(Channel.SNAPSHOT, 0, self._snapshots, whole[at : at + PIECE], flags=Flag.RESTART | last)
            self._snapshots += 1

    # --- what is said ---

    def push(self, channel: int, to: int, counter: int, content: bytes, flags: int = Flag.LAST) -> None:
        epoch = Epoch(0 if channel in UNICAST_CHANNELS else 1)
        session, me = SessionId(self.settings["session"]), ParticipantId(self.number)
        packet = pack_header(flags, channel, session, me, ParticipantId(to), epoch, counter) + content + bytes(TAG_SIZE)
        self.outbox.push(packet, trio.current_time())
        if self.connection:
            self.connection.wake()

    def tell(self, channel: int, to: int = 0) -> None:
        stream = (self.number, to, channel)
        counter = self.sent[stream] = self.sent.get(stream, -1) + 1
        self.push(channel, to, counter, _STAMP.pack(time.monotonic(), b"") + bytes(BODY))

    async def say(self) -> None:
        rates: dict[str, dict[str, float]] = self.settings["rates"]
        others = [int(n) for n in self.settings["tokens"] if int(n) != self.number]
        async with trio.open_nursery() as nursery:
            for name, rate in rates.get(str(self.number), rates.get("*", {})).items():
                nursery.start_soon(self.say_on, {"log": 1, "key": 0, "chat": 2, "input": 4}[name], rate, others)

    async def say_on(self, channel: int, rate: float, others: list[int]) -> None:
        begin = self.settings["begin"] + random.random() / rate
        for number in range(1 << 60):
            await trio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            if self.settings.get("quiet"):
                return
            self.tell(channel, {0: random.choice(others), 4: self.settings["presenter"]}.get(channel, 0))

    def report(self) -> dict[str, Any]:
        have = {tuple(stream): self.have.last(Stream(*stream)) for stream in self.have}
        return {key: getattr(self, key) for key in ("number", "sent", "sent_at", "got_at", "channels", "frames_sent", "frames_got")} | {
            "have": have, "doubled": self.doubled, "gaps": self.gaps, "lost": self.lost, "inexact": self.inexact, "links": self.links,
        }  # fmt: skip


async def main() -> None:
    lines = iter(sys.stdin.readline, "")
    settings = json.loads(next(lines))
    tls = client_context(settings["ca"], None)
    members = [Member(settings, number, tls) for number in settings["members"]]
    async with trio.open_nursery() as nursery:
        for member in members:
            nursery.start_soon(member.run)
        while (word := await trio.to_thread.run_sync(lambda: next(lines, "stop").strip(), abandon_on_cancel=True)) != "stop":
            if word == "quiet":
                settings["quiet"] = True
        nursery.cancel_scope.cancel()
    await trio.Path(settings["report"]).write_bytes(pickle.dumps([member.report() for member in members]))


if __name__ == "__main__":
    trio.run(main)
