"""The pump over real TLS: what `net.connection` promises of a link holds for one that has no task of its own."""

import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from net.connection import Connection
from net.pump import Pump
from net.pumped import WRITE, Group, Pumped
from net.stream import TlsStream
from tests.net.cluster import PATIENCE, Cluster
from wire.control import VERSION, Control, Hello, Want, Welcome
from wire.errors import CloseReason, LinkClosed, UnexpectedMessage
from wire.frame import PACKET, Frame, encode_frame
from wire.link import PING_EVERY, Side

HELLO = Hello(VERSION, 1, 2, 2, bytes(8), False, [])


async def becomes(true: Callable[[], object]) -> None:
    """Until something is true that has no way to tell."""
    with trio.fail_after(PATIENCE):
        while not true():
            await trio.testing.wait_all_tasks_blocked(0.005)


class Far:
    """The other side: a connection with tasks of its own."""

    def __init__(self, frames: list[bytes] | None = None) -> None:
        self.packets: list[bytes] = []
        self.messages: list[Control] = []
        self.closed: LinkClosed | None = None
        self.connection: Connection
        self.frames = deque(frames or [])
        self._news = trio.Event()

    def received(self, item: Frame | Control) -> None:
        if isinstance(item, Frame):
            self.packets.append(item.body)
        else:
            self.messages.append(item)
        self._news.set()

    def pull(self, budget: int) -> bytes | None:
        return self.frames.popleft() if self.frames else None

    async def until(self, true: Callable[[], object]) -> None:
        with trio.fail_after(PATIENCE):
            while not true():
                self._news = trio.Event()
                await self._news.wait()

    async def run(self, stream: TlsStream) -> None:
        self.connection = Connection(stream, Side.CALLER, self)
        self.connection.send(HELLO)
        self.closed = await self.connection.run()
        self._news.set()


class Near:
    """This side: what the pump calls."""

    def __init__(self) -> None:
        self.link: Pumped
        self.packets_: list[bytes] = []
        self.messages: list[Control] = []
        self.out: deque[bytes] = deque()
        self.batches = 0
        self.was_behind = 0
        self.missed = 0
        self.ended: LinkClosed | None = None
        self.was_gone = 0
        self.raises: Exception | None = None

    def received(self, item: Control) -> None:
        self.messages.append(item)
        if isinstance(item, Hello):
            self.link.send(Welcome(VERSION, "near", -1, -1, []))
        elif self.raises is not None:
            raise self.raises

    def packets(self, frames: list[Frame]) -> None:
        self.batches += 1
        self.packets_ += [frame.body for frame in frames]
        self.out.extend(encode_frame(PACKET, frame.body, 1) for frame in frames)
        self.link.wake()

    def pull(self, budget: int) -> bytes | None:
        if not self.out or len(self.out[0]) > budget:
            return None
        return self.out.popleft()

    def behind(self, missed: int) -> None:
        self.was_behind += 1
        self.missed = missed

    def gone(self) -> None:
        self.was_gone += 1
        if isinstance(self.raises, ZeroDivisionError):  # a defect there, too, keeps nobody from learning of the end
            raise self.raises

    def on_end(self, one: Pumped, why: LinkClosed) -> None:
        self.ended = why


@asynccontextmanager
async def pumped(cluster: Cluster, *fars: Far, pump: Pump | None = None) -> AsyncIterator[tuple[Pump, list[Near]]]:
    """A pump with a link to each of these, all of them welcomed."""
    pump = pump or Pump()
    nears: list[Near] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        for far in fars:
            theirs, ours = await cluster.stream_pair()
            near = Near()
            near.link = pump.adopt(ours, Side.CALLEE, near, near.on_end)
            nears.append(near)
            nursery.start_soon(far.run, theirs)
            await far.until(lambda far=far: far.messages)  # type: ignore[misc]
        yield pump, nears
        nursery.cancel_scope.cancel()


async def test_both_directions_full_and_in_order(cluster: Cluster) -> None:
    """64 MiB there and back again: neither direction waits for the other."""
    packets = [bytes((i % 251,)) * 16_000 for i in range(4096)]
    far = Far([encode_frame(PACKET, packet) for packet in packets])
    async with pumped(cluster, far) as (_, (near,)):
        far.connection.wake()
        with trio.fail_after(2 * PATIENCE):
            await far.until(lambda: len(far.packets) == len(packets))
        assert far.packets == packets
        assert near.batches < len(packets)  # what comes together is handed over together


@pytest.mark.parametrize("at_once", [1, 5])
async def test_a_group_gets_the_same_bytes_and_a_full_socket_costs_the_others_nothing(cluster: Cluster, at_once: int) -> None:
    fars = [Far() for _ in range(4)]
    async with pumped(cluster, *fars) as (_, nears):
        group = Group()
        for near in nears:
            group.add(near.link)
        fars[0].connection.pause_reading()
        frame = encode_frame(PACKET, bytes(WRITE - 8))
        written = 0
        while not nears[0].was_behind:
            group.write([frame] * at_once, trio.current_time())
            written += at_once
            await fars[3].until(lambda: len(fars[3].packets) == written)  # noqa: B023
        assert len(group) == 3
        assert nears[0].link.blocked
        assert nears[0].missed < at_once
        for far in fars[1:]:
            await far.until(lambda far=far: len(far.packets) == written)  # type: ignore[misc]
        nears[0].out.extend([frame] * nears[0].missed)
        nears[0].out.append(encode_frame(PACKET, b"what it pulls by itself"))
        fars[0].connection.resume_reading()
        await fars[0].until(lambda: len(fars[0].packets) == written + 1)  # it was given the record that did not fit
        assert fars[0].packets[-1] == b"what it pulls by itself"
        assert not nears[0].link.blocked


async def test_whose_pings_are_answered_is_not_pinged(cluster: Cluster) -> None:
    """One exchange a second is enough for both sides, also of a link whose group has nothing to write."""
    far = Far()
    async with pumped(cluster, far) as (_, (near,)):
        group = Group()
        group.add(near.link)
        before = trio.current_time()
        group.write([encode_frame(PACKET, b"the only one")], before)
        await far.until(lambda: far.packets)
        near.link.send(Want(1))
        await far.until(lambda: len(far.messages) == 2)
        due = near.link.link.deadline()
        near.link.tick(before, 0.0)
        assert near.link.link.deadline() == due > before + PING_EVERY
        near.link.tick(due + PING_EVERY, 0.0)  # but one that says nothing is
        await becomes(lambda: near.link.rtt is not None)


@pytest.mark.parametrize(
    ("raises", "reason"),
    [
        (UnexpectedMessage("no"), CloseReason.MESSAGE_UNEXPECTED),
        (LinkClosed(CloseReason.FORBIDDEN, remote=False), CloseReason.FORBIDDEN),
        (ZeroDivisionError(), CloseReason.INTERNAL),
    ],
    ids=["violation", "refusal", "defect"],
)
async def test_what_a_handler_raises_ends_its_link_alone_by_name(cluster: Cluster, raises: Exception, reason: CloseReason) -> None:
    far, other = Far(), Far()
    async with pumped(cluster, far, other) as (pump, (near, still)):
        near.raises = raises
        far.connection.send(Want(1))
        await far.until(lambda: far.closed)
        assert far.closed is not None
        assert (far.closed.reason, far.closed.remote) == (reason, True)
        assert near.ended is not None
        assert (near.ended.reason, near.ended.remote, near.was_gone) == (reason, False, 1)
        still.out.append(encode_frame(PACKET, b"on"))
        still.link.wake()
        await other.until(lambda: other.packets)
        assert list(pump.links.values()) == [still.link]


async def test_the_other_sides_reason_and_a_lost_link_are_told_apart(cluster: Cluster) -> None:
    leaves, vanishes = Far(), Far()
    async with pumped(cluster, leaves, vanishes) as (pump, (first, second)):
        leaves.connection.close(CloseReason.LEFT)
        vanishes.connection._stream.close_now()  # type: ignore[attr-defined]
        await becomes(lambda: not pump.links)
        assert first.ended is not None
        assert second.ended is not None
        assert (first.ended.reason, first.ended.remote) == (CloseReason.LEFT, True)
        assert second.ended.reason is CloseReason.LOST


async def test_a_silent_link_is_closed_although_it_is_written_to(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wire.link.SILENT_AFTER", 0.5)
    monkeypatch.setattr("net.pump.TICK", 0.05)
    pump = Pump()
    theirs, ours = await cluster.stream_pair()
    near = Near()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        near.link = pump.adopt(ours, Side.CALLEE, near, near.on_end)
        group = Group()
        group.add(near.link)
        with trio.fail_after(PATIENCE):
            while near.ended is None:  # the other side takes everything and says nothing
                group.write([encode_frame(PACKET, b"x")], trio.current_time())
                await theirs.receive_some()
        assert near.ended.reason is CloseReason.SILENT
        nursery.cancel_scope.cancel()
    theirs.close_now()


async def test_pausing_holds_one_sender_back(cluster: Cluster) -> None:
    far, other = Far(), Far()
    async with pumped(cluster, far, other) as (_, (near, second)):
        near.link.pause_reading()
        far.connection.send(Want(1))
        other.connection.send(Want(2))
        await becomes(lambda: len(second.messages) >= 2)
        assert len(near.messages) == 1
        near.link.resume_reading()
        await becomes(lambda: len(near.messages) >= 2)


async def test_a_link_ahead_of_its_pace_is_not_read_for_a_moment_and_loses_nothing(cluster: Cluster) -> None:
    far, other = Far(), Far()
    async with pumped(cluster, far, other) as (pump, (near, second)):
        near.link.pace = 0.01  # a second
        for number in range(300):
            far.frames.append(encode_frame(PACKET, b"%d" % number))
        far.connection.wake()
        await becomes(lambda: near.packets_)
        assert near.link.resting
        taken = len(near.packets_)
        far.connection.send(Want(1))
        other.connection.send(Want(2))
        await becomes(lambda: len(second.messages) == 2)
        assert (len(near.packets_), len(near.messages)) == (taken, 1)
        near.link.pace, near.link.paid_until = 1e6, 0.0
        pump.wake()
        await becomes(lambda: len(near.packets_) == 300 and len(near.messages) == 2)
        assert near.packets_ == [b"%d" % number for number in range(300)]
        await becomes(lambda: not near.link.resting)


async def test_what_is_read_in_bites_is_whole(cluster: Cluster) -> None:
    """The rest of a TLS record that was read in part is in OpenSSL's hands: the socket says nothing of it."""
    far = Far()
    async with pumped(cluster, far) as (_, (near,)):
        near.link.pace = 1e6
        packets = [bytes((i,)) * 5000 for i in range(30)]
        far.frames.extend(encode_frame(PACKET, packet) for packet in packets)
        far.connection.wake()
        await becomes(lambda: len(near.packets_) == len(packets))
        assert near.packets_ == packets


async def test_other_tasks_have_their_turn_however_busy_the_links_are() -> None:
    pump, always = Pump(), os.eventfd(1)
    pump._epoll.register(always)  # something always comes
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        with trio.fail_after(PATIENCE):
            for _ in range(3):
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    os.close(always)


async def test_stopping_tells_every_link(cluster: Cluster) -> None:
    fars = [Far() for _ in range(3)]
    async with pumped(cluster, *fars) as (pump, nears):
        pump.stop(CloseReason.SHUTDOWN)
        for far in fars:
            await far.until(lambda far=far: far.closed)  # type: ignore[misc]
            assert far.closed is not None
            assert far.closed.reason is CloseReason.SHUTDOWN
        assert [near.was_gone for near in nears] == [1, 1, 1]
