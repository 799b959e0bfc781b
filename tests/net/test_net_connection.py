"""A connection's life and ends, over streams in memory with a clock that jumps; the last ones over real TLS."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import structlog
import trio
from trio.testing import MockClock, memory_stream_pair

from net.connection import CLOSE_WITHIN, MAX_OWED, WRITE, Connection
from net.dial import dial
from net.stream import TlsStream
from tests.net.cluster import PATIENCE, Cluster
from wire.control import Control, Error, Have, Hello, Ping, Want, Welcome, decode_control_untrusted, encode_control
from wire.errors import CloseReason, LinkClosed, LocalMisuse, MalformedPacket
from wire.frame import PACKET, Frame, FrameDecoder, encode_frame
from wire.link import GREETING_WITHIN, PING_EVERY, SILENT_AFTER, LinkState, Side

HELLO = Hello(1, 5, 7, 2, b"8 bytes!", True, [])
WELCOME = Welcome(1, "relay-1", -1, -1, [])


@dataclass
class Party:
    """A handler with a queue to write and a list of what it heard; answers a hello like a server."""

    queue: deque[bytes] = field(default_factory=deque)
    heard: list[Frame | Control] = field(default_factory=list)
    connection: Connection | None = None
    fail_with: BaseException | None = None

    def received(self, item: Frame | Control) -> None:
        self.heard.append(item)
        if self.connection is not None and isinstance(item, Hello):
            self.connection.send(WELCOME)
        if self.fail_with is not None and item == Want(666):
            raise self.fail_with

    def pull(self, budget: int) -> bytes | None:
        if isinstance(self.fail_with, ZeroDivisionError):
            raise self.fail_with
        return self.queue.popleft() if self.queue else None

    @property
    def packets(self) -> list[bytes]:
        return [item.body for item in self.heard if isinstance(item, Frame)]


@dataclass
class Pair:
    caller: Connection
    callee: Connection
    at_caller: Party
    at_callee: Party
    ends: dict[str, LinkClosed]

    async def until_up(self) -> None:
        while self.caller.link.state is not LinkState.UP:
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def connected(caller_end: trio.abc.Stream, callee_end: trio.abc.Stream) -> AsyncIterator[Pair]:
    """Two connections that have greeted each other. On leaving, both have ended."""
    at_caller, at_callee = Party(), Party()
    pair = Pair(Connection(caller_end, Side.CALLER, at_caller), Connection(callee_end, Side.CALLEE, at_callee), at_caller, at_callee, {})
    at_callee.connection = pair.callee
    async with trio.open_nursery() as nursery:

        async def run(name: str, connection: Connection) -> None:
            pair.ends[name] = await connection.run()

        nursery.start_soon(run, "caller", pair.caller)
        nursery.start_soon(run, "callee", pair.callee)
        pair.caller.send(HELLO)
        await pair.until_up()
        yield pair


def in_memory() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    return memory_stream_pair()


class Raw:
    """The other end of a connection, spoken by hand."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._decoder = FrameDecoder()

    async def say(self, *messages: Control) -> None:
        await self.stream.send_all(b"".join(encode_control(message) for message in messages))

    async def hear_until_the_end(self) -> list[Control]:
        heard = []
        while data := await self.stream.receive_some(65_536):
            heard += [decode_control_untrusted(frame) for frame in self._decoder.feed_untrusted(data)]
        return heard


async def test_messages_and_packets_pass_in_both_directions(autojump_clock: MockClock) -> None:
    async with connected(*in_memory()) as pair:
        pair.at_caller.queue += [encode_frame(PACKET, b"one"), encode_frame(PACKET, b"two", hops=2)]
        pair.caller.wake()
        pair.caller.send(Want(3))
        pair.at_callee.queue.append(encode_frame(PACKET, b"three"))
        pair.callee.wake()
        await trio.sleep(0.1)
        assert pair.at_callee.heard == [HELLO, Want(3), Frame(PACKET, 0, b"one"), Frame(PACKET, 2, b"two")]
        assert pair.at_caller.heard == [WELCOME, Frame(PACKET, 0, b"three")]
        pair.caller.close(CloseReason.LEFT, "good-bye")
    assert (pair.ends["caller"].reason, pair.ends["caller"].remote) == (CloseReason.LEFT, False)
    assert (pair.ends["callee"].reason, pair.ends["callee"].remote) == (CloseReason.LEFT, True)
    assert pair.ends["callee"].args[0] == "good-bye"


async def test_nothing_is_pulled_before_the_greeting_is_over() -> None:
    ours, theirs = memory_stream_pair()
    party = Party(queue=deque([encode_frame(PACKET, b"early")]))
    connection = Connection(ours, Side.CALLER, party)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        connection.send(HELLO)
        assert await theirs.receive_some() == encode_control(HELLO)
        await trio.testing.wait_all_tasks_blocked()
        assert len(party.queue) == 1
        await theirs.send_all(encode_control(WELCOME))
        assert await theirs.receive_some() == encode_frame(PACKET, b"early")
        nursery.cancel_scope.cancel()


async def test_bytes_that_arrive_as_the_link_is_closed_are_nobodys_defect() -> None:
    """The reader has them already, and cannot be cancelled any more, when somebody closes the link."""
    ours, theirs = memory_stream_pair()
    party = Party()

    taking, take = ours.receive_stream, ours.receive_stream.receive_some

    async def receive_some(max_bytes: int | None = None) -> bytearray:
        data = await take(max_bytes)
        connection.close(CloseReason.LEFT)
        return data

    connection = Connection(ours, Side.CALLEE, party)
    with structlog.testing.capture_logs() as logged:
        taking.receive_some = receive_some  # type: ignore[method-assign]  # the moment is the test
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            await theirs.send_all(encode_control(HELLO))
            assert [type(message) for message in await Raw(theirs).hear_until_the_end()] == [Error]
    assert party.heard == []
    assert [entry["event"] for entry in logged] == []


async def test_a_write_fills_one_record_and_no_more() -> None:
    """Control messages count towards the budget that the handler is told."""
    budgets: list[int] = []

    class Asked(Party):
        def pull(self, budget: int) -> bytes | None:
            budgets.append(budget)
            return super().pull(budget)

    ours, theirs = memory_stream_pair()
    connection = Connection(ours, Side.CALLEE, Asked())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        await theirs.send_all(encode_control(HELLO))
        await trio.testing.wait_all_tasks_blocked()
        connection.send(WELCOME)
        await trio.testing.wait_all_tasks_blocked()
        assert budgets == [WRITE - len(encode_control(WELCOME)), WRITE]
        nursery.cancel_scope.cancel()


async def test_an_idle_link_lives_for_ever_and_measures_its_round_trip(autojump_clock: MockClock) -> None:
    async with connected(*in_memory()) as pair:
        await trio.sleep(600)
        assert pair.ends == {}
        assert pair.caller.rtt == pytest.approx(0)
        assert pair.callee.rtt == pytest.approx(0)
        assert pair.at_caller.heard == [WELCOME]  # pings are nobody's business
        pair.callee.close(CloseReason.ENDED)


async def test_a_half_open_peer_is_noticed_after_three_seconds(autojump_clock: MockClock) -> None:
    """It takes everything and never says a word: a cable was pulled, a process is frozen."""
    ours, _theirs = memory_stream_pair()
    connection = Connection(ours, Side.CALLER, Party())
    connection.send(HELLO)
    closed = await connection.run()
    assert (closed.reason, closed.remote) == (CloseReason.SILENT, False)
    assert trio.current_time() == pytest.approx(SILENT_AFTER)


async def test_our_own_sleep_is_not_the_other_sides_silence(mock_clock: MockClock) -> None:
    """This process was frozen for ten seconds; what the other side said meanwhile waits in the socket."""
    ours, theirs = memory_stream_pair()
    connection = Connection(ours, Side.CALLER, Party())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        connection.send(HELLO)
        await Raw(theirs).say(WELCOME)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            mock_clock.jump(10)
            await trio.testing.wait_all_tasks_blocked()
            assert not connection.closing
            await Raw(theirs).say(Ping(1))
        for _ in range(4):  # awake again, it judges as ever
            mock_clock.jump(1)
            await trio.testing.wait_all_tasks_blocked()
        assert connection.closing
        nursery.cancel_scope.cancel()


async def test_a_caller_who_never_says_hello_is_let_go(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    raw = Raw(theirs)
    ended: list[LinkClosed] = []
    connection = Connection(ours, Side.CALLEE, Party())
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            ended.append(await connection.run())
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        while True:
            await raw.say(Ping(1))
            await trio.sleep(PING_EVERY)
    assert ended[0].reason is CloseReason.HELLO_TIMEOUT
    assert trio.current_time() == pytest.approx(GREETING_WITHIN)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\xff" * 8, CloseReason.FRAME_TOO_LARGE),
        (b"\x00\x00\x00\x00\x05\x00\x00\x01", CloseReason.FRAME_MALFORMED),
        (encode_frame(99, b""), CloseReason.FRAME_UNKNOWN),
        (encode_frame(Want.TYPE, b"\xc1"), CloseReason.MESSAGE_MALFORMED),
        (encode_control(HELLO), CloseReason.MESSAGE_UNEXPECTED),
    ],
)
async def test_a_violation_is_answered_by_its_name_and_what_stood_before_it_counts(
    autojump_clock: MockClock, said: bytes, reason: CloseReason
) -> None:
    ours, theirs = memory_stream_pair()
    party = Party()
    party.connection = connection = Connection(ours, Side.CALLEE, party)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, encode_control(HELLO))
        ended: list[LinkClosed] = []

        async def run() -> None:
            ended.append(await connection.run())

        nursery.start_soon(run)
        await trio.sleep(0.1)
        await theirs.send_all(encode_control(Want(1)) + encode_frame(PACKET, b"sealed") + said + encode_control(Want(2)))
        heard = await Raw(theirs).hear_until_the_end()
    assert party.heard == [HELLO, Want(1), Frame(PACKET, 0, b"sealed")]
    assert [type(message) for message in heard] == [Welcome, Error]
    last = heard[-1]
    assert isinstance(last, Error)
    assert last.close_reason is reason
    assert (ended[0].reason, ended[0].remote) == (reason, False)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (MalformedPacket("odd"), CloseReason.PACKET_MALFORMED),
        (LinkClosed(CloseReason.FORBIDDEN, remote=False), CloseReason.FORBIDDEN),
        (RuntimeError("a defect"), CloseReason.INTERNAL),
        (LocalMisuse("a defect"), CloseReason.INTERNAL),
    ],
)
async def test_what_a_handler_raises_ends_the_link_by_name(autojump_clock: MockClock, raised: Exception, reason: CloseReason) -> None:
    async with connected(*in_memory()) as pair:
        pair.at_callee.fail_with = raised
        pair.caller.send(Want(666))
    assert (pair.ends["callee"].reason, pair.ends["callee"].remote) == (reason, False)
    assert (pair.ends["caller"].reason, pair.ends["caller"].remote) == (reason, True)


async def test_a_defect_in_pull_ends_the_link_too(autojump_clock: MockClock) -> None:
    async with connected(*in_memory()) as pair:
        pair.at_callee.fail_with = ZeroDivisionError()
        pair.callee.wake()
    assert pair.ends["caller"].reason is CloseReason.INTERNAL


async def test_a_vanished_peer_is_lost(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.aclose_forcefully, theirs)
        closed = await Connection(ours, Side.CALLER, Party()).run()
    assert (closed.reason, closed.remote) == (CloseReason.LOST, False)


async def test_the_first_reason_counts_and_nothing_is_delivered_after_it(autojump_clock: MockClock) -> None:
    async with connected(*in_memory()) as pair:
        pair.callee.close(CloseReason.REVOKED)
        pair.callee.close(CloseReason.FLOOD)
        pair.callee.send(Want(1))  # lost like anything else on a closed line
        pair.caller.send(Want(2))
        assert pair.callee.closing
    assert pair.ends["callee"].reason is CloseReason.REVOKED
    assert pair.ends["caller"].reason is CloseReason.REVOKED
    assert pair.at_callee.heard == [HELLO]


async def test_a_connection_that_is_closed_before_it_runs_still_says_why(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    connection = Connection(ours, Side.CALLEE, Party())
    connection.close(CloseReason.BUSY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        assert await Raw(theirs).hear_until_the_end() == [Error("busy")]


async def test_last_words_take_a_bounded_time(autojump_clock: MockClock) -> None:
    """The other side reads nothing any more."""
    ours, theirs = memory_stream_pair()
    ours.send_stream.send_all_hook = trio.sleep_forever
    party = Party()
    connection = Connection(ours, Side.CALLEE, party)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, encode_control(HELLO))
        nursery.start_soon(connection.run)
        await trio.sleep(0.5)
        connection.close(CloseReason.SHUTDOWN)
    assert trio.current_time() == pytest.approx(0.5 + CLOSE_WITHIN)


async def test_words_of_the_other_side_are_made_harmless(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    connection = Connection(ours, Side.CALLER, Party())
    await Raw(theirs).say(Error("busy", "\x1b[31mred\u202eder\x07 words"))
    closed = await connection.run()
    assert closed.args[0] == "[31mredder words"


async def test_too_many_messages_for_a_slow_reader_end_the_link(autojump_clock: MockClock) -> None:
    async with connected(*in_memory()) as pair:
        big = Have([(2**32 - 1, 2**32 - 1, 255, 2**63 - 1)] * 1024)
        count = 0
        while not pair.caller.closing:
            pair.caller.send(big)
            count += 1
        assert count == MAX_OWED // len(encode_control(big)) + 1
    assert pair.ends["caller"].reason is CloseReason.SLOW_READER


async def test_a_flood_of_pings_ends_its_link_by_name_and_queues_nothing(autojump_clock: MockClock) -> None:
    async with connected(*in_memory()) as pair:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await pair.caller._stream.send_all(encode_control(Ping(1)) * 1000)
        assert pair.callee.link.owed == 0
    assert pair.ends["callee"].reason is CloseReason.FLOOD


async def test_pausing_holds_this_sender_back_and_does_not_call_it_silent(autojump_clock: MockClock) -> None:
    async with connected(*in_memory()) as pair:
        pair.callee.pause_reading()
        pair.caller.send(Want(1))  # the read that was waiting already
        await trio.sleep(0.1)
        pair.caller.send(Want(2))
        await trio.sleep(60)
        assert pair.at_callee.heard == [HELLO, Want(1)]
        assert pair.ends == {}
        pair.callee.resume_reading()
        await trio.sleep(0.1)
        assert pair.at_callee.heard == [HELLO, Want(1), Want(2)]
        pair.callee.close(CloseReason.ENDED)


async def test_a_peer_that_dies_while_paused_is_noticed_after_resuming(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    party = Party()
    connection = Connection(ours, Side.CALLEE, party)
    ended: list[LinkClosed] = []

    async def run() -> None:
        ended.append(await connection.run())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, encode_control(HELLO))
        nursery.start_soon(run)
        await trio.sleep(0.5)
        connection.send(WELCOME)
        connection.pause_reading()
        await trio.sleep(60)
        assert ended == []
        connection.resume_reading()
        resumed = trio.current_time()
    assert ended[0].reason is CloseReason.SILENT
    assert trio.current_time() - resumed <= SILENT_AFTER


async def test_a_writer_in_the_middle_of_a_write_is_not_behind_with_its_pings(autojump_clock: MockClock) -> None:
    """The other side takes our bytes slowly, but it speaks: the link lives, and no pings pile up."""
    ours, theirs = memory_stream_pair()
    party = Party(queue=deque([encode_frame(PACKET, b"x" * 100)]))
    connection = Connection(ours, Side.CALLEE, party)

    async def slow() -> None:
        if not party.queue:  # the packet itself is being written
            await trio.sleep(30)

    async with trio.open_nursery() as nursery:
        await theirs.send_all(encode_control(HELLO))
        nursery.start_soon(connection.run)
        await trio.testing.wait_all_tasks_blocked()
        ours.send_stream.send_all_hook = slow
        connection.send(WELCOME)
        for _ in range(25):
            await theirs.send_all(encode_control(Ping(1)))
            await trio.sleep(1)
        assert not connection.closing
        assert connection.link.owed == 0
        nursery.cancel_scope.cancel()


async def test_cancelling_leaves_no_open_stream() -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Connection(ours, Side.CALLER, Party()).run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await theirs.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


async def test_over_real_tls_both_directions_full_and_in_order(cluster: Cluster) -> None:
    count = 2000
    packets = [bytes((i % 251,)) * 8000 for i in range(count)]
    framed = [encode_frame(PACKET, packet) for packet in packets]
    ends: dict[str, LinkClosed] = {}

    class Sender(Party):
        def received(self, item: Frame | Control) -> None:
            super().received(item)
            if len(self.heard) == count + 1:  # the greeting and all packets
                self.done.set()

        done: trio.Event

    async def run(name: str, connection: Connection) -> None:
        ends[name] = await connection.run()

    async with cluster.both_ends() as (one, two):
        at_caller, at_callee = Sender(deque(framed)), Sender(deque(framed))
        at_caller.done, at_callee.done = trio.Event(), trio.Event()
        caller, callee = Connection(one, Side.CALLER, at_caller), Connection(two, Side.CALLEE, at_callee)
        at_callee.connection = callee
        with trio.fail_after(PATIENCE * 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, "caller", caller)
                nursery.start_soon(run, "callee", callee)
                caller.send(HELLO)
                await at_caller.done.wait()
                await at_callee.done.wait()
                caller.close(CloseReason.LEFT)
    assert at_caller.packets == at_callee.packets == packets
    assert (ends["callee"].reason, ends["callee"].remote) == (CloseReason.LEFT, True)


async def test_over_real_tls_the_reason_arrives_although_we_are_sending(cluster: Cluster) -> None:
    """A relay refuses in the middle of our upload: we hear its reason, never only a reset."""
    closed: list[LinkClosed] = []

    class Endless(Party):
        def pull(self, budget: int) -> bytes | None:
            return encode_frame(PACKET, bytes(budget - 8))

    async def relay(stream: TlsStream) -> None:
        party = Party()
        party.connection = connection = Connection(stream, Side.CALLEE, party)
        with trio.move_on_after(0.05) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run)
                await trio.sleep_forever()
        assert scope.cancelled_caught

    async def refusing_relay(stream: TlsStream) -> None:
        class Refuse(Party):
            def received(self, item: Frame | Control) -> None:
                super().received(item)
                if isinstance(item, Frame):
                    raise LinkClosed(CloseReason.FORBIDDEN, remote=False)

        party = Refuse()
        party.connection = connection = Connection(stream, Side.CALLEE, party)
        await connection.run()

    with trio.fail_after(PATIENCE):
        for handler in (relay, refusing_relay, refusing_relay, refusing_relay):
            async with cluster.serving(handler) as address:
                connection = Connection(await dial([address], cluster.caller(), server_kind="mcs"), Side.CALLER, Endless())
                connection.send(HELLO)
                closed.append(await connection.run())
    assert [(end.reason, end.remote) for end in closed] == [(CloseReason.LOST, False)] + [(CloseReason.FORBIDDEN, True)] * 3
