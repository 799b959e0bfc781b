"""TLS on every hop: one version, one suite, and certificates that are checked on both sides."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
from OpenSSL import SSL

from net import pki
from net.connection import Connection
from net.dial import dial
from net.http import serve_asgi
from net.listener import Address, listen
from net.stream import TlsStream
from net.tls import HTTP, TlsReason, TlsRefused, check_peer, client_context, server_context
from tests.net.cluster import PATIENCE, Cluster
from wire.control import Control
from wire.errors import CloseReason, LinkClosed
from wire.frame import Frame
from wire.link import Side

SUITES_OF_TLS13 = (  # all that RFC 8446, B.4 and OpenSSL know
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
)
OLD_VERSIONS = {"1.0": SSL.TLS1_VERSION, "1.1": SSL.TLS1_1_VERSION, "1.2": SSL.TLS1_2_VERSION}


class Quiet:
    """A handler that hears and says nothing."""

    def received(self, item: Frame | Control) -> None:
        pass

    def pull(self, budget: int) -> bytes | None:
        return None


async def echo(stream: TlsStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def hello_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})


def scan(address: Address, prepare: Callable[[SSL.Context], None], alpn: bytes) -> str | None:
    """One handshake of a client that is no part of Parley: version and suite, or None if the server refused."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    prepare(context)
    context.set_alpn_protos([alpn])
    with socket.create_connection(address) as sock:
        tls = SSL.Connection(context, sock)
        tls.set_connect_state()
        try:
            tls.do_handshake()
        except SSL.Error:
            return None
        found = f"{tls.get_protocol_version_name()} {tls.get_cipher_name()}"
        tls.shutdown()
        return found


def only_suite(suite: str) -> Callable[[SSL.Context], None]:
    return lambda context: context.set_tls13_ciphersuites(suite.encode())


def only_version(version: int) -> Callable[[SSL.Context], None]:
    def prepare(context: SSL.Context) -> None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)

    return prepare


async def scan_all(address: Address, alpn: bytes) -> dict[str, str | None]:
    attempts = {suite: only_suite(suite) for suite in SUITES_OF_TLS13} | {v: only_version(number) for v, number in OLD_VERSIONS.items()}
    attempts["anything"] = lambda context: context.set_tls13_ciphersuites(":".join(reversed(SUITES_OF_TLS13)).encode())
    with trio.fail_after(PATIENCE):
        return {name: await trio.to_thread.run_sync(scan, address, prepare, alpn) for name, prepare in attempts.items()}


ONE = "TLSv1.3 TLS_AES_128_GCM_SHA256"
WANTED = dict.fromkeys((*SUITES_OF_TLS13, *OLD_VERSIONS)) | {"TLS_AES_128_GCM_SHA256": ONE, "anything": ONE}


async def test_G23_a_scanner_finds_one_suite_on_the_frame_listener(cluster: Cluster) -> None:
    async with cluster.serving(echo) as address:
        assert await scan_all(address, b"parley/1") == WANTED
        assert await scan_all(address, b"http/1.1") == WANTED


async def test_G23_a_scanner_finds_one_suite_on_the_https_listener(cluster: Cluster) -> None:
    context = server_context(cluster.manager, ask_peer=False, alpn=(HTTP,))
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serve_asgi, hello_app, await listen("127.0.0.1", 0), context)
        assert await scan_all(address, b"http/1.1") == WANTED
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", [*OLD_VERSIONS, *SUITES_OF_TLS13[1:]])
async def test_G23_our_callers_offer_nothing_else_either(cluster: Cluster, name: str) -> None:
    """A server that would like another suite or version gets no connection from us."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    (only_version(OLD_VERSIONS[name]) if name in OLD_VERSIONS else only_suite(name))(context)
    context.use_certificate_chain_file(str(cluster.relay.cert_path))
    context.use_privatekey_file(str(cluster.relay.key_path))
    async with cluster.serving(echo, context=context) as address:
        with pytest.raises(TlsRefused) as refused:
            await dial([address], cluster.caller(), server_kind="mcs")
    assert refused.value.reason is TlsReason.UNSUPPORTED


async def test_no_session_outlives_its_check(cluster: Cluster) -> None:
    """Nothing is resumed: a certificate is checked at every handshake."""

    def twice(address: Address) -> list[bool]:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_alpn_protos([b"parley/1"])
        session: SSL.Session | None = None
        masters = []
        for _ in range(2):
            with socket.create_connection(address) as sock:
                tls = SSL.Connection(context, sock)
                if session is not None:
                    tls.set_session(session)
                tls.set_connect_state()
                tls.do_handshake()
                tls.send(b"x")
                tls.recv(1)  # whatever ticket there is has arrived before
                masters.append(tls.get_peer_cert_chain() is not None)  # a resumed handshake carries no chain
                session = tls.get_session()
                tls.shutdown()
        return masters

    async with cluster.serving(echo) as address:
        with trio.fail_after(PATIENCE):
            assert await trio.to_thread.run_sync(twice, address) == [True, True]


@pytest.mark.parametrize(
    ("who", "found", "told"),
    [
        ("none", TlsReason.REQUIRED, CloseReason.CERTIFICATE_REQUIRED),
        ("manager", TlsReason.WRONG_ROLE, CloseReason.CERTIFICATE_WRONG_ROLE),
        ("foreign", TlsReason.FOREIGN, CloseReason.CERTIFICATE_REFUSED),
        ("expired", TlsReason.EXPIRED, CloseReason.CERTIFICATE_REFUSED),
        ("early", TlsReason.NOT_YET_VALID, CloseReason.CERTIFICATE_REFUSED),
    ],
)
async def test_G24_a_caller_without_the_right_certificate_is_refused_by_name(
    cluster: Cluster, who: str, found: TlsReason, told: CloseReason
) -> None:
    """The called server knows why; the caller's link ends with the same reason, said by the other side."""
    identity: pki.Identity | None = None if who == "none" else getattr(cluster, who)
    reasons: list[TlsReason] = []
    ended: list[LinkClosed] = []
    admitted: list[TlsStream] = []

    async def node_port(stream: TlsStream) -> None:
        connection = Connection(stream, Side.CALLEE, Quiet())
        try:
            check_peer(stream.peer, kind="mcs", cluster="home")
            admitted.append(stream)
        except TlsRefused as refused:
            reasons.append(refused.reason)
            connection.close(refused.close_reason, refused.args[0])
        ended.append(await connection.run())

    with trio.fail_after(PATIENCE):
        async with cluster.serving(node_port) as address:
            stream = await dial([address], cluster.caller(identity), server_kind="mcs", cluster="home")
            closed = await Connection(stream, Side.CALLER, Quiet()).run()
    assert (closed.reason, closed.remote) == (told, True)
    assert admitted == []
    if reasons:  # judged after the handshake; the others are judged within it, before any handler
        assert reasons == [found]
        assert ended[0].reason is told


async def test_G24_the_listener_counts_refused_callers_by_name(cluster: Cluster) -> None:
    reasons = []
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    context = server_context(cluster.relay, ask_peer=True)
    with trio.fail_after(PATIENCE):
        async with listener:
            for identity in (cluster.foreign, cluster.expired, cluster.early):
                async with trio.open_nursery() as nursery:

                    async def call(identity: pki.Identity = identity) -> None:
                        tcp = await trio.open_tcp_stream(*listener.socket.getsockname())
                        stream = await TlsStream.connect(tcp.socket, cluster.caller(identity))
                        with pytest.raises(TlsRefused) as told:  # the first read brings the alert
                            await stream.receive_some()
                        assert told.value.remote
                        stream.close_now()

                    nursery.start_soon(call)
                    accepted = await listener.accept()
                    with pytest.raises(TlsRefused) as refused:
                        await TlsStream.accept(accepted.socket, context)
                    reasons.append((refused.value.reason, refused.value.remote))
    assert reasons == [(TlsReason.FOREIGN, False), (TlsReason.EXPIRED, False), (TlsReason.NOT_YET_VALID, False)]


@pytest.mark.parametrize(
    ("who", "kind", "found"),
    [
        ("relay", "manager", TlsReason.WRONG_ROLE),
        ("manager", "mcs", TlsReason.WRONG_ROLE),
        ("foreign", "mcs", TlsReason.FOREIGN),
        ("expired", "mcs", TlsReason.EXPIRED),
        ("early", "mcs", TlsReason.NOT_YET_VALID),
    ],
)
async def test_G24_a_server_without_the_right_certificate_is_refused_by_name(
    cluster: Cluster, who: str, kind: pki.Kind, found: TlsReason
) -> None:
    async with cluster.serving(echo, identity=getattr(cluster, who)) as address:
        for identity in (None, cluster.relay):  # an endpoint, and another server
            with trio.fail_after(PATIENCE), pytest.raises(TlsRefused) as refused:
                await dial([address], cluster.caller(identity), server_kind=kind, cluster="home")
            assert refused.value.reason is found
            assert not refused.value.remote


async def test_G24_a_server_of_another_cluster_with_our_ca_is_refused(cluster: Cluster) -> None:
    async with cluster.serving(echo) as address:
        with pytest.raises(TlsRefused) as refused:
            await dial([address], cluster.caller(), server_kind="mcs", cluster="elsewhere")
    assert refused.value.reason is TlsReason.WRONG_CLUSTER


async def test_a_skewed_clock_is_named_and_the_person_is_told_to_check_it(cluster: Cluster) -> None:
    async with cluster.serving(echo, identity=cluster.early) as address:
        with pytest.raises(TlsRefused, match="clock") as refused:
            await dial([address], cluster.caller(), server_kind="mcs")
    assert str(refused.value).startswith("certificate-not-yet-valid: ")


def test_every_refusal_has_a_sentence_and_a_word_for_links() -> None:
    for reason in TlsReason:
        refused = TlsRefused(reason, remote=False)
        assert refused.args[0].endswith((".", "?"))
        assert str(refused).startswith(f"{reason}: ")
        assert isinstance(refused.close_reason, CloseReason)


def test_a_key_of_another_certificate_is_said_at_the_start(cluster: Cluster) -> None:
    mixed = pki.Identity(cluster.relay.cert_path, cluster.manager.key_path, cluster.ca)
    with pytest.raises(pki.PkiUnreadable, match="do not belong together"):
        server_context(mixed, ask_peer=True)
    with pytest.raises(pki.PkiUnreadable):
        client_context(cluster.relay.key_path, None)


async def test_what_does_not_speak_tls_is_named(cluster: Cluster) -> None:
    async def http_server(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, http_server, listeners)
        with trio.fail_after(PATIENCE), pytest.raises(TlsRefused) as refused:
            await dial([listeners[0].socket.getsockname()[:2]], cluster.caller(), server_kind="mcs")
        nursery.cancel_scope.cancel()
    assert refused.value.reason is TlsReason.NOT_TLS


async def test_a_listener_without_our_protocol_is_named(cluster: Cluster) -> None:
    context = server_context(cluster.relay, ask_peer=False, alpn=(HTTP,))
    async with cluster.serving(echo, context=context) as address:
        with trio.fail_after(PATIENCE), pytest.raises(TlsRefused) as refused:
            await dial([address], cluster.caller(), server_kind="mcs")
    assert refused.value.reason is TlsReason.UNSUPPORTED
