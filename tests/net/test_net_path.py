"""The kernel's own measurement of a connection's way, and who is near by it."""

import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from net.path import ALIKE, LOOK_WITHIN, nearest_first, path_rtt

Way = Callable[[str, int], Awaitable[trio.SocketStream]]


def test_the_kernel_knows_the_way_of_a_connection_and_the_socket_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as caller:
        called, _ = server.accept()
        with called:
            caller.sendall(b"there")
            assert called.recv(5) == b"there"
            called.sendall(b"back")
            rtt = path_rtt(caller.fileno())
            assert rtt is not None
            assert 0 < rtt < 1
            assert caller.recv(4) == b"back"


def test_what_is_no_connection_has_no_way() -> None:
    assert path_rtt(-1) is None
    with open("/dev/null") as file:
        assert path_rtt(file.fileno()) is None


async def test_G36_servers_that_are_alike_keep_their_order_and_who_does_not_answer_comes_last() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        ports = [server.getsockname()[1] for server in (closed, two, one)]
        assert await nearest_first(ports, lambda port: [("127.0.0.1", port)]) == [ports[1], ports[2], ports[0]]
        assert await nearest_first(ports[:1], lambda port: [("127.0.0.1", port)]) == ports[:1]


@pytest.mark.parametrize(
    ("ways", "order", "takes"),
    [
        pytest.param([0.1, 0.02, 0.03, 0.05], [1, 2, 0, 3], 2 * 0.02 + ALIKE, id="near-before-far"),
        pytest.param([0.004, 0.001, 0.009], [0, 1, 2], 0.009, id="all-alike"),
        pytest.param([5.0, 5.0], [0, 1], LOOK_WITHIN, id="nobody-in-time"),
    ],
)
async def test_G36_near_servers_come_before_far_ones_and_nobody_waits_for_these(
    ways: list[float], order: list[int], takes: float, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Ways of another length than loopback's, with a clock that is set; the connections are real."""
    connect: Way = trio.open_tcp_stream

    async def far(host: str, port: int) -> trio.SocketStream:
        await trio.sleep(ways[number[port]])
        return await connect(host, port)

    monkeypatch.setattr("net.path.trio.open_tcp_stream", far)
    monkeypatch.setattr("net.path.path_rtt", lambda _: None)
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in ways]
    number = {server.getsockname()[1]: at for at, server in enumerate(servers)}
    try:
        began = trio.current_time()
        found = await nearest_first(list(number), lambda port: [("127.0.0.1", port)])
        assert [number[port] for port in found] == order
        assert trio.current_time() - began == pytest.approx(takes, abs=0.001)
    finally:
        for server in servers:
            server.close()
