"""One port for every kind of caller, and strangers who cost nothing."""

import errno
import socket

import pytest
import trio
import trio.testing

from net.dial import dial, probe
from net.http import serve_asgi
from net.listener import ANSWER, PROBE, Address, ListenError, PortInUse, addresses, listen, serve_tls
from net.stream import TlsStream
from net.tls import HTTP, client_context, server_context
from tests.net.cluster import PATIENCE, Cluster


async def echo(stream: TlsStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def talk(address: Address, *parts: bytes) -> bytes:
    """What a plain TCP caller hears who says this and then waits for the end."""
    heard = b""
    stream = await trio.open_tcp_stream(*address)
    async with stream:
        try:
            for part in parts:
                await stream.send_all(part)
                await trio.testing.wait_all_tasks_blocked(0.01)
            async for data in stream:
                heard += data
        except trio.BrokenResourceError:
            pass
    return heard


async def test_G30_a_probe_is_plain_short_lived_and_holds_no_identifier(cluster: Cluster) -> None:
    """A capture of a whole probe, both directions: two fixed words, the same for everybody, then the end."""
    captured: list[bytes] = []

    async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            captured.append(bytes(data))
            await sink.send_all(data)
        await sink.send_eof()

    async def capture(caller: trio.SocketStream) -> None:
        async with caller, await trio.open_tcp_stream(*address) as server, trio.open_nursery() as nursery:
            nursery.start_soon(copy, caller, server)
            nursery.start_soon(copy, server, caller)

    async with cluster.serving(echo) as address, trio.open_nursery() as nursery:
        (wire,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, capture, [wire])
        with trio.fail_after(PATIENCE):
            for _ in range(2):
                assert await probe(wire.socket.getsockname())
        nursery.cancel_scope.cancel()
    assert captured == [PROBE, ANSWER] * 2 == [b"parley?\n", b"parley!\n"] * 2


async def test_a_probe_may_come_byte_by_byte(cluster: Cluster) -> None:
    async with cluster.serving(echo) as address:
        with trio.fail_after(PATIENCE):
            assert await talk(address, *(bytes((byte,)) for byte in PROBE)) == ANSWER


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"parley!\n", b"pppppppp", b"SSH-2.0-x\r\n"])
async def test_who_says_anything_else_hears_nothing(cluster: Cluster, said: bytes) -> None:
    async with cluster.serving(echo) as address:
        with trio.fail_after(PATIENCE):
            assert await talk(address, said) == b""
            assert await probe(address)


async def test_nobody_answers_a_probe_where_no_server_of_ours_is() -> None:
    async def other(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 mail.example.org ESMTP\r\n" * 10)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, other, [listener])
        address = listener.socket.getsockname()
        assert not await probe(address)
        nursery.cancel_scope.cancel()
    assert not await probe(address)


async def test_frames_and_http_are_told_apart_on_one_port(cluster: Cluster) -> None:
    async def frames(stream: TlsStream) -> None:
        await stream.send_all(b"frames " + stream.alpn.encode())

    async def http(stream: TlsStream) -> None:
        await stream.send_all(b"http " + stream.alpn.encode())

    async with trio.open_nursery() as nursery:
        listeners = await listen("127.0.0.1", 0)

        async def serve(task_status: trio.TaskStatus[list[Address]]) -> None:
            await serve_tls(listeners, server_context(cluster.relay, ask_peer=True), frames, http=http, task_status=task_status)

        called = await nursery.start(serve)
        with trio.fail_after(PATIENCE):
            async with await dial(called, cluster.caller(), server_kind="mcs") as stream:
                assert await stream.receive_some() == b"frames parley/1"
            async with await dial(called, client_context(cluster.ca, None, HTTP), server_kind="mcs") as stream:
                assert await stream.receive_some() == b"http http/1.1"
            nursery.cancel_scope.cancel()


async def test_http_callers_are_closed_where_there_is_no_http(cluster: Cluster) -> None:
    async with cluster.serving(echo) as address:
        with trio.fail_after(PATIENCE):
            async with await dial([address], client_context(cluster.ca, None, HTTP), server_kind="mcs") as stream:
                assert await stream.receive_some() == b""


async def test_a_port_in_use_is_named_and_the_person_is_told_what_to_do() -> None:
    (listener,) = await listen("127.0.0.1", 0)
    with listener.socket:
        ((host, port),) = addresses([listener])
        assert port > 0
        with pytest.raises(PortInUse, match="choose another port") as refused:
            await listen(host, port)
        assert str(refused.value).startswith("port-in-use: ")


async def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:0"):
        await listen("192.0.2.1", 0)
    with pytest.raises(ListenError):
        await listen("no-such-host.invalid", 0)


async def test_a_port_is_free_again_right_after_its_server_was_stopped(cluster: Cluster) -> None:
    async with cluster.serving(echo) as address:
        stream = await dial([address], cluster.caller(), server_kind="mcs")
    async with stream:  # its other end is gone, in a state in which the kernel remembers the port
        (again,) = await listen(*address)
        again.socket.close()


async def test_a_handler_that_fails_ends_its_own_stream_alone(cluster: Cluster) -> None:
    async def handler(stream: TlsStream) -> None:
        if (await stream.receive_some()) == b"fail":
            raise RuntimeError("a defect")
        await echo(stream)

    async with cluster.serving(handler) as address:
        with trio.fail_after(PATIENCE):
            good = await dial([address], cluster.caller(), server_kind="mcs")
            bad = await dial([address], cluster.caller(), server_kind="mcs")
            async with good, bad:
                await good.send_all(b"hello")
                await bad.send_all(b"fail")
                assert await bad.receive_some() == b""
                await good.send_all(b"hello")
                assert await good.receive_some() == b"hello"


async def test_slow_handshakes_are_bounded_and_the_oldest_gives_way(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    """Callers that send one byte and wait fill all the room; somebody in good faith gets in all the same, within seconds."""
    loris = 4
    async with cluster.serving(echo, max_handshakes=loris) as address:
        held = []
        for _ in range(loris * 3):
            held.append(await trio.open_tcp_stream(*address))
            await held[-1].send_all(b"\x16")
        with trio.fail_after(PATIENCE):
            async with await dial([address], cluster.caller(), server_kind="mcs", timeout=PATIENCE) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
        assert trio.current_time() < 10  # sooner than patience with all of them would have been
        for tcp in held:
            await tcp.aclose()


async def test_an_unfinished_handshake_ends_although_there_is_room(cluster: Cluster, autojump_clock: trio.testing.MockClock) -> None:
    for said in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"parl"):
        async with cluster.serving(echo) as address:
            stream = await trio.open_tcp_stream(*address)
            async with stream:
                began = trio.current_time()
                if said:
                    await stream.send_all(said)
                with trio.move_on_after(60) as scope:
                    try:
                        while await stream.receive_some(100):  # an alert may come first
                            pass
                    except trio.BrokenResourceError:
                        pass
                assert not scope.cancelled_caught
                assert 9 <= trio.current_time() - began <= 15


async def test_running_out_of_descriptors_pauses_accepting_and_ends_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    failures = [errno.EMFILE, errno.ENOBUFS]
    accept = trio.SocketListener.accept

    async def short_of_descriptors(self: trio.SocketListener) -> trio.SocketStream:
        if failures:
            raise OSError(failures.pop(), "none left")
        return await accept(self)

    monkeypatch.setattr(trio.SocketListener, "accept", short_of_descriptors)
    async with cluster.serving(echo) as address:
        await trio.sleep(1)
        assert failures == []
        assert await talk(address, PROBE) == ANSWER


async def test_the_https_listener_answers_probes_too(cluster: Cluster) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("never called")

    context = server_context(cluster.manager, ask_peer=False, alpn=(HTTP,))
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serve_asgi, app, await listen("127.0.0.1", 0), context)
        assert await probe(address)
        nursery.cancel_scope.cancel()


async def test_ipv6_and_ipv4_are_served_alike(cluster: Cluster) -> None:
    if not socket.has_ipv6:
        pytest.fail("this Python was built without IPv6")
    async with trio.open_nursery() as nursery:
        listeners = await listen("localhost", 0)

        async def serve(task_status: trio.TaskStatus[list[Address]]) -> None:
            await serve_tls(listeners, server_context(cluster.relay, ask_peer=True), echo, task_status=task_status)

        for address in await nursery.start(serve):
            async with await dial([address], cluster.caller(), server_kind="mcs") as stream:
                assert stream.remote_address == address
        nursery.cancel_scope.cancel()
