"""The TLS stream keeps trio's contract, both directions never wait for each other, and last words arrive."""

import functools
import select
import socket
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from net.dial import dial
from net.pki import PeerName
from net.stream import RECORD, TlsStream
from net.tap import Recording, Tap
from net.tls import TlsReason, TlsRefused
from tests.net.cluster import PATIENCE, Cluster

MIB = 1 << 20


async def drain(stream: TlsStream) -> int:
    size = 0
    while data := await stream.receive_some():
        size += len(data)
    return size


async def send_for_ever(stream: TlsStream, size: int = RECORD) -> None:
    while True:
        await stream.send_all(bytes(size))


async def until_clogged(stream: TlsStream) -> None:
    """Send until the kernel takes no more for now, without leaving a write half done."""
    while select.select([], [stream.socket], [], 0)[1]:
        await stream.send_all(bytes(1000))


async def test_the_stream_keeps_trios_contract(cluster: Cluster) -> None:
    with trio.fail_after(PATIENCE * 3):
        await trio.testing.check_two_way_stream(cluster.stream_pair, None)


async def test_both_sides_know_each_other(cluster: Cluster) -> None:
    async with cluster.both_ends() as (caller, called):
        assert caller.peer == PeerName("home", "mcs", "relay-1")
        assert called.peer == PeerName("home", "manager", "manager-1")
        assert caller.alpn == called.alpn == "parley/1"
        assert caller.remote_address == called.socket.getsockname()[:2]
        assert called.remote_address == caller.socket.getsockname()[:2]


async def test_64_mib_both_ways_at_once(cluster: Cluster) -> None:
    """Both directions are full all the time. A reader that had to wait for the writer would stop both sides for ever."""
    one, two = await cluster.stream_pair()
    size = 64 * MIB
    received: dict[TlsStream, int] = {}
    block = bytes(range(256)) * 4096  # 1 MiB

    async def send(stream: TlsStream) -> None:
        for _ in range(size // len(block)):
            await stream.send_all(block)

    async def receive(stream: TlsStream) -> None:
        count = 0
        while count < size:
            data = await stream.receive_some()
            start = count % 256
            assert data[:256] == (block[:512])[start : start + len(data[:256])]
            count += len(data)
        received[stream] = count

    async with one, two:
        with trio.fail_after(PATIENCE * 3):
            async with trio.open_nursery() as nursery:
                for stream in (one, two):
                    nursery.start_soon(send, stream)
                    nursery.start_soon(receive, stream)
    assert received == {one: size, two: size}


async def test_64_mib_through_an_echo(cluster: Cluster) -> None:
    """One task that reads and writes on the other side: its writer blocks while we write, so we must be reading meanwhile."""
    caller, called = await cluster.stream_pair()
    size = 64 * MIB

    async def echo() -> None:
        while data := await called.receive_some():
            await called.send_all(data)

    async def send() -> None:
        await caller.send_all(bytes(size))

    async with caller, called:
        with trio.fail_after(PATIENCE * 3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo)
                nursery.start_soon(send)
                count = 0
                while count < size:
                    count += len(await caller.receive_some())
                nursery.cancel_scope.cancel()
    assert count == size


async def test_a_cancelled_write_cannot_be_taken_up_by_another(cluster: Cluster) -> None:
    caller, called = await cluster.stream_pair()
    async with called:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_for_ever, caller)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.BrokenResourceError):
            await caller.send_all(b"x")
        with trio.fail_after(PATIENCE):
            await caller.aclose()


async def test_a_stuck_writer_is_woken_by_closing(cluster: Cluster) -> None:
    caller, called = await cluster.stream_pair()

    async def expect_the_end() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await send_for_ever(caller)

    async with called:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_the_end)
                await trio.testing.wait_all_tasks_blocked(0.05)
                caller.close_now()


async def test_closing_is_cut_short_without_a_word(cluster: Cluster) -> None:
    """An orderly close waits for the other side; whoever has no patience closes under it."""
    async with cluster.both_ends() as (caller, _), trio.open_nursery() as nursery:
        nursery.start_soon(caller.aclose)
        await trio.testing.wait_all_tasks_blocked()
        caller.close_now()


async def test_a_closed_stream_touches_no_descriptor_that_others_got(cluster: Cluster) -> None:
    """The kernel gives the number of a closed socket to the next one; what TLS still had to say must not go there."""
    caller, called = await cluster.stream_pair()
    number = caller.socket.fileno()
    async with trio.open_nursery() as nursery:

        async def expect_the_end() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await send_for_ever(caller)

        nursery.start_soon(expect_the_end)
        await trio.testing.wait_all_tasks_blocked(0.05)
        while not select.select([], [caller.socket], [], 0)[1]:  # now the writer is about to be woken, …
            await called.receive_some()
        caller.close_now()  # … and at this very moment its socket is closed
        one, two = socket.socketpair()
        with one, two:
            assert number in (one.fileno(), two.fileno())
            await trio.testing.wait_all_tasks_blocked()
            for end in (one, two):
                end.setblocking(False)
                with pytest.raises(BlockingIOError):
                    end.recv(1)
    called.close_now()


async def test_a_clogged_stream_waits_until_it_might_not_block(cluster: Cluster) -> None:
    caller, called = await cluster.stream_pair()
    waited = False

    async def wait() -> None:
        nonlocal waited
        await caller.wait_send_all_might_not_block()
        waited = True

    async with called, caller:
        with trio.fail_after(PATIENCE):
            await until_clogged(caller)
            async with trio.open_nursery() as reading:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait)
                    await trio.testing.wait_all_tasks_blocked()
                    assert not waited
                    with pytest.raises(trio.BusyResourceError):
                        await caller.send_all(b"x")
                    reading.start_soon(drain, called)
                assert waited
                reading.cancel_scope.cancel()


async def test_the_last_words_arrive_although_the_other_side_is_sending(cluster: Cluster) -> None:
    """A socket that is closed over unread bytes answers with a reset, which would destroy what was sent before."""
    for _ in range(20):
        caller, called = await cluster.stream_pair()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:

                async def talk(stream: TlsStream = caller) -> None:
                    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                        await send_for_ever(stream, 1000)

                async def say_why_and_close(stream: TlsStream = called) -> None:
                    await stream.receive_some(10)
                    await stream.send_all(b"this is why")
                    await stream.aclose()

                nursery.start_soon(talk)
                nursery.start_soon(say_why_and_close)
                assert await caller.receive_some() == b"this is why"
                assert await caller.receive_some() == b""
                await caller.aclose()


async def test_a_truncated_stream_is_no_orderly_end(cluster: Cluster) -> None:
    caller, called = await cluster.stream_pair()
    async with caller:
        await called.send_all(b"half")
        called.close_now()  # no close_notify: somebody may have cut the line
        assert await caller.receive_some() == b"half"
        with pytest.raises(trio.BrokenResourceError):
            await caller.receive_some()


async def test_bytes_behind_tls_are_an_error_by_name(cluster: Cluster) -> None:
    async with cluster.both_ends() as (caller, called):
        await called.socket.send(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that no key has sealed
        with pytest.raises(TlsRefused) as refused:
            await caller.receive_some()
        assert refused.value.reason is TlsReason.PROTOCOL
        with trio.fail_after(PATIENCE), pytest.raises(trio.BrokenResourceError):  # our alert says so over there
            await drain(called)


async def test_reading_takes_no_more_than_asked_for_and_loses_nothing(cluster: Cluster) -> None:
    async with cluster.both_ends() as (caller, called):
        data = bytes(range(256)) * 300
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.send_all, data)
            received = b""
            for size in (1, 7, 16_384, 16_385, 100_000):
                part = await called.receive_some(size)
                assert 1 <= len(part) <= size
                received += part
            while len(received) < len(data):
                received += await called.receive_some()
        assert received == data


async def test_a_cancelled_read_loses_nothing(cluster: Cluster) -> None:
    async with cluster.both_ends() as (caller, called):
        for i in range(50):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(functools.partial(called.receive_some, 1))
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            await caller.send_all(bytes((i,)))
            assert await called.receive_some() == bytes((i,))


async def test_a_handshake_has_a_deadline(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    """The other side has connected and says nothing."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        tcp = await trio.open_tcp_stream(*listener.socket.getsockname())
        with pytest.raises(TlsRefused) as refused:
            await TlsStream.connect(tcp.socket, cluster.caller())
    assert refused.value.reason is TlsReason.TIMEOUT
    assert trio.current_time() >= 10
    assert tcp.socket.fileno() == -1


async def test_a_handshake_that_is_cut_off_is_named(cluster: Cluster) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:

        async def hang_up() -> None:
            accepted = await listener.accept()
            await accepted.receive_some(10)
            await accepted.aclose()

        nursery.start_soon(hang_up)
        tcp = await trio.open_tcp_stream(*listener.socket.getsockname())
        with trio.fail_after(PATIENCE), pytest.raises(TlsRefused) as refused:
            await TlsStream.connect(tcp.socket, cluster.caller())
    assert refused.value.reason is TlsReason.LOST


async def test_a_tap_holds_every_byte_that_was_received(cluster: Cluster, tmp_path: Path) -> None:
    tap = Tap(tmp_path / "tap")

    async def echo(stream: TlsStream) -> None:
        while data := await stream.receive_some():
            await stream.send_all(data)

    data = bytes(range(256)) * 100
    async with cluster.serving(echo) as address, await dial([address], cluster.caller(), server_kind="mcs", tap=tap) as stream:
        await stream.send_all(data)
        received = b""
        while len(received) < len(data):
            received += await stream.receive_some()
        recordings = list(tap.directory.iterdir())
        assert [file.read_bytes() for file in recordings] == [data]
        assert recordings[0].stat().st_mode & 0o777 == 0o600


def test_a_tap_has_a_file_for_each_link_and_none_for_silence(tmp_path: Path) -> None:
    tap = Tap(tmp_path / "tap")
    one, two, silent = tap.record("../../etc/passwd"), tap.record("::1"), tap.record("silent")
    for data in (b"a", b"", b"b"):
        one(data)
    two(b"c")
    silent(b"")
    assert sorted(file.read_bytes() for file in (tmp_path / "tap").iterdir()) == [b"ab", b"c"]
    assert one.path.parent == tap.directory


def test_a_tap_on_a_full_disk_ends_alone() -> None:
    recording = Recording(Path("/dev/full"))
    with structlog.testing.capture_logs() as logged:
        recording(b"one")
        recording(b"two")
    assert [(entry["event"], entry["reason"]) for entry in logged] == [("tap-ended", "No space left on device")]
