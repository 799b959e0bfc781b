"""What it costs to bring ten, a hundred, a thousand members into a session, to dismiss one, and to change the key for all.

A real manager, a real relay and a real organizer, each a process of its own, and guests (`--crowds` says how many) that share a process for
each core; every SRP exchange, signature, key and TLS link is real. CPU is the organizer process' own, everything counted. Two more measurements
have no sockets: an organizer against recorded guests, and the cost of a member among ten thousand.

    admissions_per_cpu_s            members admitted per second of the organizer's CPU, in the storm of a thousand
    storm_1000_s                    a thousand guests with tickets dial at once; until the last is in
    storm_1000_tickets_s            what their thousand tickets took before that
    storm_1000_organizer_s          the organizer alone: every message of the guests is recorded and comes at once
    join_bytes_per_member           bytes (frames) on the link of a member who is in already, for each one who joins; the worst crowd
    dismiss_cpu_ms_1000             organizer's CPU from the dismissal to its committed key; the median of five
    dismiss_bytes_per_member_1000   bytes (frames) on each remaining member's link for it, heartbeats left out
    rekey_all_ms_1000               from the dismissal until every remaining member seals under the new key; the median of five
    organizer_kb_per_member         what the organizer's process has grown by
    cost_10000_over_1000            organizer's CPU per member among ten thousand, over the same among one thousand, both in this run

Guests have four times the patience here that they have elsewhere, so that a machine that is busy with other things is seen in the seconds; who
does not get in all the same is counted, as `storm_1000_outside`. `storm_1000_*_cpu_s` say where the seconds went: organizer, relay, guests.

Bounds: ≥ 220, ≤ 12, –, ≤ 5, ≤ 300, ≤ 60, ≤ 450, ≤ 1000, ≤ 8, ≤ 1.2. Published elsewhere: minutes of key traffic for 200 users (matrix-js-sdk
issue 5486); end-to-end encryption that switches itself off above 20 + 5 (jitsi-meet issue 9832).
"""

import argparse
import gc
import json
import logging
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import structlog
import trio

from crypto import srp
from crypto.keyring import Keyring
from crypto.signing import ExchangeKey, SigningKey
from crypto.srp import Verifier, make_verifier
from endpoint import handshake
from endpoint.cluster import Cluster, run_cluster
from endpoint.errors import EndpointError
from endpoint.guest import JOIN_WITHIN, Guest
from endpoint.handshake import GuestSide, HostSide, clear_packet, place
from endpoint.invitation import Invitation, parse_invitation_untrusted
from endpoint.journal import Saved
from endpoint.manager_api import ManagerApi
from endpoint.messages import Hello1, Offer2, encode, parse_handshake_untrusted
from endpoint.organizer import Organizer
from endpoint.sdk import Meeting, host, schedule
from endpoint.session import THREADS, Session
from endpoint.ticket import Ticket
from net.process import configure_logging
from net.tls import client_context
from wire.control import Control, Taken
from wire.frame import Frame
from wire.ids import Channel, MeetingId, ParticipantId, Role, RoleToken, SessionId
from wire.packet import HEADER_SIZE, Flag, parse_packet_untrusted

FRAME_HEADER: Final = 8
PASSWORD: Final = "correct horse battery staple"
DISMISSALS: Final = 5
PATIENCE: Final = 4 * JOIN_WITHIN
CORES: Final = os.cpu_count() or 1
SETTLED: Final = 2.0
"""Seconds until what a storm has left is done."""

log = structlog.get_logger()

# the organizer, a process of its own


def rss_kb() -> float:
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise OSError("no VmRSS")


async def organize(orders: AsyncIterator[dict[str, Any]]) -> None:
    """Orders and answers are JSON lines: {"do": "mark"} · {"do": "dismiss", "participant": …} · {"do": "end"}."""
    first = await anext(orders)
    invitation = parse_invitation_untrusted(first["link"])
    meeting = Meeting(invitation, "join", bytes.fromhex(first["seed"]), invitation.site)
    async with host(meeting, ca=first["ca"], key=first["key"]) as session:
        organizer = session.member
        assert isinstance(organizer, Organizer)
        await session.until(lambda: bool(session.node))
        say(ready=True)
        async for order in orders:
            if order["do"] == "mark":
                say(cpu=cpu_here(), rss=rss_kb(), sent=session.bytes_sent)
            elif order["do"] == "dismiss":
                say(**await dismiss(session, ParticipantId(order["participant"])))
            elif order["do"] == "end":
                break
    say(ended=True)


async def dismiss(session: Session, participant: ParticipantId) -> dict[str, float]:
    """When it began, and what it cost until the new key was committed."""
    epoch, cpu, began = session.state.epoch, time.process_time(), time.monotonic()
    session.act(lambda o, now: o.dismiss(participant, now))
    await session.until(lambda: session.state.epoch > epoch)
    await trio.sleep(0.1)  # and what is sent for it
    cost = time.process_time() - cpu
    session.act(lambda o, now: o.knock(False, now))
    return {"cpu": cost, "began": began}


# a process for each part


def say(**answer: object) -> None:
    print(json.dumps(answer), flush=True)


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncIterator[dict[str, Any]]:
    pending = b""
    async for part in stream:
        *lines, pending = (pending + part).split(b"\n")
        for line in lines:
            yield json.loads(line)


def cpu_here() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Child:
    """A process of this file that takes orders and answers each."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._answers = _lines(process.stdout)

    async def ask(self, **order: object) -> dict[str, Any]:
        await self._stdin.send_all(json.dumps(order).encode() + b"\n")
        return await anext(self._answers)

    @classmethod
    @asynccontextmanager
    async def start(cls, part: str, **first: object) -> AsyncIterator["Child"]:
        async with trio.open_nursery() as nursery:
            command = [sys.executable, "-P", __file__, "--part", part]
            child = cls(await nursery.start(partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)))
            await child.ask(**first)
            yield child
            await child.ask(do="end")
            await child._stdin.aclose()


async def ask_all(children: list[Child], **order: object) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery:

        async def ask(child: Child) -> None:
            answers.append(await child.ask(**order))

        for child in children:
            nursery.start_soon(ask, child)
    return answers


# the guests of one process


class Seat(Session):
    """A guest that counts what its link brings, by kind."""

    def __init__(self, member: Guest, ticket: Ticket, tls: Any) -> None:
        super().__init__(member, ticket, tls)
        self.frames = 0

    def received(self, item: Frame | Control) -> None:
        if isinstance(item, Frame):
            self.frames += FRAME_HEADER + len(item.body)
        super().received(item)


class Crowd:
    """Guests that share a process, and nothing else."""

    def __init__(self, link: Invitation, ca: Path) -> None:
        self.link, self.ca = link, ca
        self.tickets: list[Ticket] = []
        self.seats: list[Seat] = []
        self._tls = client_context(ca, None)
        self._epoch, self._frames = 0, dict[Seat, int]()

    async def join(self, nursery: trio.Nursery) -> dict[str, object]:
        """All at once, until the last one is in or has given up."""
        outcomes = list[bool]()
        all_done = trio.Event()

        async def sit(ticket: Ticket, number: int) -> None:
            guest = Guest(ticket, PASSWORD, f"Guest {number}", patience=PATIENCE)
            async with Seat.open(guest, ticket, self._tls) as session:
                assert isinstance(session, Seat)
                try:
                    await session.until_joined()
                    self.seats.append(session)
                except EndpointError as error:
                    log.warning("outside", guest=number, why=error.name, at=guest.stage.value)
                outcomes.append(guest.joined)
                if len(outcomes) == len(self.tickets):
                    all_done.set()
                await self._read(session)

        for number, ticket in enumerate(self.tickets):
            nursery.start_soon(sit, ticket, number)
        await all_done.wait()
        return {"at": time.monotonic(), "outside": outcomes.count(False), "seats": [seat.me for seat in self.seats]}

    async def _read(self, session: Session) -> None:
        """As a program does, but for all at once."""
        source = session.events()
        assert isinstance(source, trio.MemoryReceiveChannel)
        while True:
            await trio.sleep(1.0)
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    source.receive_nowait()

    def watch(self, gone: ParticipantId) -> dict[str, object]:
        """Somebody will be dismissed."""
        self.seats = [seat for seat in self.seats if seat.me != gone]
        self._epoch = max((seat.state.epoch for seat in self.seats), default=0)
        self._frames = {seat: seat.frames for seat in self.seats}
        return {}

    async def keyed(self) -> dict[str, object]:
        """When all who remain seal under the key that followed, and what that has brought to each."""
        for seat in self.seats:
            await seat.until(partial(seals_after, seat, self._epoch))
        return {"at": time.monotonic(), "bytes": [seat.frames - was for seat, was in self._frames.items()]}


async def guests(orders: AsyncIterator[dict[str, Any]]) -> None:
    """Orders and answers are JSON lines: {"do": "tickets", "count": …} · "join" · "mark" · "watch" · "keyed" · "end"."""
    gc.set_threshold(500_000, 20, 100)  # a guest has a process of its own elsewhere: the collector walks one, and not hundreds
    first = await anext(orders)
    crowd = Crowd(parse_invitation_untrusted(first["link"]), Path(first["ca"]))
    say(ready=True)
    async with trio.open_nursery() as nursery:
        async for order in orders:
            match order["do"]:
                case "tickets":
                    crowd.tickets = await tickets_for(crowd.link, crowd.ca, order["count"])
                    say(ready=True)
                case "join":
                    say(**await crowd.join(nursery))
                case "mark":
                    say(cpu=cpu_here(), frames=sum(seat.frames for seat in crowd.seats))
                case "watch":
                    say(**crowd.watch(ParticipantId(order["gone"])))
                case "keyed":
                    say(**await crowd.keyed())
                case _:
                    break
        for seat in crowd.seats:
            seat.state.ended = True  # no goodbye: what follows is measured elsewhere
        nursery.cancel_scope.cancel()
    say(ended=True)


async def tickets_for(link: Invitation, ca: Path, count: int) -> list[Ticket]:
    """From the manager, eight at a time."""
    made: list[Ticket] = []
    async with trio.open_nursery() as nursery:

        async def fetch(number: int) -> None:
            async with ManagerApi.connect(link.site, ca) as api:
                made.extend([await api.ticket(link.meeting, link.invite, patience=30.0) for _ in range(number)])

        for part in range(8):
            nursery.start_soon(fetch, count // 8 + (part < count % 8))
    return made


async def part(name: str) -> None:
    orders = _lines(trio.lowlevel.FdStream(0))
    await (organize(orders) if name == "organizer" else guests(orders))


def seals_after(seat: Seat, epoch: int) -> bool:
    current = seat.member.keyring.current
    return current is not None and current > epoch and seat.member.may_seal


# a meeting of them


async def meetings(sizes: list[int], figures: dict[str, float]) -> None:
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="parley-join-") as name:
            async with run_cluster(Path(name), ["mcs-1"]) as cluster, AsyncExitStack() as stack:
                meeting = await schedule(cluster.site, "join", ca=cluster.ca, key=cluster.key, password=PASSWORD)
                order = {"link": meeting.invitation.link(), "ca": str(cluster.ca)}
                organizer = await stack.enter_async_context(Child.start("organizer", seed=meeting.seed.hex(), key=cluster.key, **order))
                first, *crowds = [await stack.enter_async_context(Child.start("guests", **order)) for _ in range(1 + CORES)]
                await one_meeting(size, cluster, organizer, first, crowds, figures)


def cpu_of(process: int) -> float:
    """Seconds of CPU of another process, all its threads."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def one_meeting(size: int, cluster: Cluster, organizer: Child, first: Child, crowds: list[Child], figures: dict[str, float]) -> None:
    relay = cluster.servers["mcs-1"].process.pid
    began = time.monotonic()
    for number, child in enumerate(crowds):
        await child.ask(do="tickets", count=size // len(crowds) + (number < size % len(crowds)))
    figures[f"storm_{size}_tickets_s"] = round(time.monotonic() - began, 2)
    await first.ask(do="tickets", count=1)
    await first.ask(do="join")  # one who is in already
    await trio.sleep(0.5)
    frames, before = (await first.ask(do="mark"))["frames"], await organizer.ask(do="mark")
    own, carried = sum(answer["cpu"] for answer in await ask_all(crowds, do="mark")), cpu_of(relay)
    began = time.monotonic()
    joined = await ask_all(crowds, do="join")
    figures[f"storm_{size}_s"] = round(max(answer["at"] for answer in joined) - began, 2)
    after = await organizer.ask(do="mark")
    outside = sum(answer["outside"] for answer in joined)
    cpu = after["cpu"] - before["cpu"]
    figures[f"storm_{size}_outside"] = outside
    figures[f"admissions_per_cpu_s_{size}"] = round((size - outside) / cpu)
    figures[f"storm_{size}_organizer_cpu_s"] = round(cpu, 2)
    figures[f"storm_{size}_guests_cpu_s"] = round(sum(answer["cpu"] for answer in await ask_all(crowds, do="mark")) - own, 2)
    figures[f"storm_{size}_relay_cpu_s"] = round(cpu_of(relay) - carried, 2)
    figures[f"storm_{size}_organizer_sent_mb"] = round((after["sent"] - before["sent"]) / 1e6, 2)
    await trio.sleep(0.5)
    figures[f"join_bytes_per_member_{size}"] = round(((await first.ask(do="mark"))["frames"] - frames) / size)
    await trio.sleep(SETTLED)
    grown = (await organizer.ask(do="mark"))["rss"] - before["rss"]
    figures[f"organizer_kb_per_member_{size}"] = round(grown / size, 1)
    await dismissals(size, [seat for answer in joined for seat in answer["seats"]], organizer, [first, *crowds], figures)


async def dismissals(size: int, seats: list[ParticipantId], organizer: Child, children: list[Child], figures: dict[str, float]) -> None:
    cpu, spent, bytes_each = [], [], []
    for _ in range(DISMISSALS):
        await trio.sleep(0.3)
        gone = seats.pop()
        await ask_all(children, do="watch", gone=gone)
        answer = await organizer.ask(do="dismiss", participant=gone)
        keyed = await ask_all(children, do="keyed")
        cpu.append(1000 * answer["cpu"])
        spent.append(1000 * (max(child["at"] for child in keyed) - answer["began"]))
        bytes_each.append(statistics.median(each for child in keyed for each in child["bytes"]))
    figures[f"dismiss_cpu_ms_{size}"] = round(statistics.median(cpu), 1)
    figures[f"dismiss_bytes_per_member_{size}"] = round(min(bytes_each))
    figures[f"rekey_all_ms_{size}"] = round(statistics.median(spent))


# without sockets


class Hall:
    """An organizer without a session around it, and what every one of its guests will say."""

    def __init__(self) -> None:
        self.session, self.secret = SessionId(secrets.randbits(63) | 1), secrets.token_bytes(32)
        self.key = SigningKey.generate()
        self.verifier: Verifier = make_verifier(self.session, self.secret, PASSWORD)
        ticket = Ticket(
            self.session, ParticipantId(1), Role.ORGANIZER, RoleToken(bytes(8)), self.secret, MeetingId(123456789), "", self.key.public, (), ""
        )
        self.organizer = Organizer(ticket, Saved.fresh(self.session, self.key, self.verifier), 0.0, name="Olga")
        self.organizer.linked(self.organizer.me, -1, -1, 0.0)
        self.organizer.out.clear()

    def guest(self, number: int) -> GuestSide:
        exchange = ExchangeKey.generate()
        return GuestSide(
            self.session, ParticipantId(number), self.key.public, SigningKey.generate(), exchange, self.secret, PASSWORD, f"Guest {number}"
        )

    def packet(self, guest: GuestSide, number: int, body: bytes) -> bytes:
        return clear_packet(self.session, guest.me, self.organizer.me, number, 0, body)


def batches(total: int, size: int) -> Iterator[range]:
    for first in range(0, total, size):
        yield range(first, min(first + size, total))


def cost_per_member(total: int) -> float:
    """Milliseconds of the organizer's CPU for each of so many members, who come twenty at a time. One thread, so that its clock is right."""
    hall, spent, now = Hall(), 0.0, 0.0
    organizer = hall.organizer
    taken: dict[tuple[int, int, int], int] = {}
    with ThreadPoolExecutor(2) as pool:
        for numbers in batches(total, 20):
            now += 0.3
            guests = [hall.guest(2 + number) for number in numbers]
            firsts = list(pool.map(GuestSide.begin, guests))
            began = time.thread_time()
            for guest, body in zip(guests, firsts, strict=True):
                organizer.receive_untrusted(hall.packet(guest, 1, body), now)
            offers = {parse_packet_untrusted(p).recipient: p[HEADER_SIZE:] for p in organizer.out if isinstance(p, bytes) and p[1] & Flag.CLEAR}
            organizer.out.clear()
            spent += time.thread_time() - began
            thirds = list(pool.map(GuestSide.prove, guests, [offers[guest.me] for guest in guests]))
            began = time.thread_time()
            for guest, body in zip(guests, thirds, strict=True):
                organizer.receive_untrusted(hall.packet(guest, 3, body), now)
            while organizer.jobs:
                job = organizer.jobs.popleft()
                job.done(job.work(), now)
            organizer.tick(now + 0.25)
            sent = [item for item in organizer.out if isinstance(item, bytes)]
            organizer.out.clear()
            for packet in sent:
                header = parse_packet_untrusted(packet)
                if not header.flags & Flag.CLEAR:
                    taken[header.stream] = header.counter
            organizer.control(Taken([(*stream, counter) for stream, counter in taken.items()][-64:]), now)
            organizer.events.clear()
            spent += time.thread_time() - began
            keyed = {parse_packet_untrusted(p).recipient for p in sent if p[2] == Channel.KEY and not p[1] & Flag.CLEAR}
            assert keyed == {guest.me for guest in guests}, "each of them got a key"
            answers = {parse_packet_untrusted(p).recipient: p[HEADER_SIZE:] for p in sent if p[1] & Flag.CLEAR}
            ring = Keyring(hall.session, guests[0].me)  # and one of them looks whether it opens
            ring.set_key_channel(organizer.me, guests[0].finish(answers[guests[0].me]))
            wrapped = next(p for p in sent if p[2] == Channel.KEY and not p[1] & Flag.CLEAR and p[19] == guests[0].me & 0xFF)
            ring.opener(organizer.me, guests[0].me, Channel.KEY, 0, now).verify(wrapped)
    assert len(organizer.state.members) == total + 1
    return 1000 * spent / total


def recorded_storm(total: int) -> float:
    """Seconds of the clock for an organizer with its threads, when every guest answers at once: their messages were made before, to halves
    and nonces that were drawn before."""
    hall = Hall()
    guests = [hall.guest(2 + number) for number in range(total)]
    halves: dict[int, tuple[int, bytes]] = {}
    draw = srp.Arithmetic.generate_server_private
    proofs: dict[int, bytes] = {}

    def record(guest: GuestSide) -> None:
        hello = parse_handshake_untrusted(guest.begin())
        assert isinstance(hello, Hello1)
        b, nonce = draw(srp._HOST), secrets.token_bytes(16)
        side = HostSide(hall.verifier, hall.key, hall.organizer.exchange, 0, hello, guest.message1)
        public = srp._padded(srp._HOST.blind(int.from_bytes(hall.verifier.v), srp._generator_powers().power(b)))
        offer = encode(Offer2(hall.verifier.salt, public, hall.key.public, side.exchange.public, nonce))
        proofs[guest.me] = guest.prove(offer)
        halves[guest.me] = b, nonce

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(record, guests))
    exponents, nonces = zip(*(halves[guest.me] for guest in guests), strict=True)

    async def storm() -> float:
        organizer = hall.organizer
        limiter = trio.CapacityLimiter(THREADS)
        began = time.monotonic()
        async with trio.open_nursery() as nursery:

            async def work(job: Any) -> None:
                job.done(await trio.to_thread.run_sync(job.work, limiter=limiter), trio.current_time())
                settle()

            def settle() -> None:
                while organizer.jobs:
                    nursery.start_soon(work, organizer.jobs.popleft())
                while organizer.out:
                    item = organizer.out.popleft()
                    if isinstance(item, bytes) and item[1] & Flag.CLEAR:
                        header = parse_packet_untrusted(item)
                        if place(header.counter)[1] == 2:
                            guest = guests[header.recipient - 2]
                            organizer.receive_untrusted(hall.packet(guest, 3, proofs[guest.me]), trio.current_time())
                organizer.events.clear()

            with (
                mock.patch.object(srp.Arithmetic, "generate_server_private", side_effect=exponents),
                mock.patch.object(handshake, "secrets", mock.Mock(token_bytes=mock.Mock(side_effect=nonces))),
            ):
                for guest in guests:
                    organizer.receive_untrusted(hall.packet(guest, 1, guest.message1), trio.current_time())
            settle()
            while len(organizer.state.members) <= total:
                await trio.sleep(0.05)
                organizer.tick(trio.current_time())
                settle()
        return time.monotonic() - began

    return trio.run(storm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object of figures as the last line")
    parser.add_argument("--crowds", default="10,100,1000", help="members, by comma; empty: none")
    parser.add_argument("--hall", type=int, default=10_000, help="members of the largest meeting without sockets; 0: none")
    parser.add_argument("--part", choices=["organizer", "guests"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure_logging(json=True, level=logging.WARNING)
    if arguments.part:
        trio.run(part, arguments.part)
        return
    figures: dict[str, float] = {}
    sizes = [int(size) for size in arguments.crowds.split(",") if size]
    trio.run(meetings, sizes, figures)
    if sizes:
        largest = max(sizes)
        figures["admissions_per_cpu_s"] = figures[f"admissions_per_cpu_s_{largest}"]
        figures["organizer_kb_per_member"] = figures[f"organizer_kb_per_member_{largest}"]
        figures["join_bytes_per_member"] = max(figures[f"join_bytes_per_member_{size}"] for size in sizes)
    if arguments.hall:
        storm = min(arguments.hall, 1000)
        figures[f"storm_{storm}_organizer_s"] = round(recorded_storm(storm), 2)
        small = cost_per_member(storm)
        large = cost_per_member(arguments.hall)
        figures[f"organizer_ms_per_member_{storm}"] = round(small, 2)
        figures[f"organizer_ms_per_member_{arguments.hall}"] = round(large, 2)
        figures[f"cost_{arguments.hall}_over_{storm}"] = round(large / small, 2)
    for name, value in figures.items():
        print(f"{name:36} {value:>12,}")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
