"""The kernel's own measurement of a connection's way."""

import socket

from net.path import path_rtt


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
