"""HTTPS through our own TLS: ordinary clients work, and the end comes in time whatever a client does."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from net.dial import dial
from net.http import PlainBeyondLoopback, serve_asgi
from net.listener import addresses, listen
from net.pki import PkiUnreadable
from net.stream import TlsStream
from net.tls import HTTP, client_context, server_context, web_context
from tests.net.cluster import PATIENCE, Cluster

GET = b"GET %s HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Events:
    """What the application does, for the test to wait on."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.asked = trio.Event()
        self.answer = trio.Event()

    def app(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
            self.log.append("start")
            yield {"greeting": "hello"}
            self.log.append("stop")

        async def about(request: Request) -> Response:
            client = request.client
            assert client is not None
            body = (await request.body()).decode()
            return JSONResponse({"scheme": request.url.scheme, "client": client.host, "greeting": request.state.greeting, "body": body})

        async def wait(_: Request) -> Response:
            self.asked.set()
            await self.answer.wait()
            self.log.append("answered")
            return PlainTextResponse("at last")

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            self.asked.set()
            while True:
                await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})

        async def fail(_: Request) -> Response:
            raise RuntimeError("a defect")

        return Starlette(
            routes=[Route("/about", about, methods=["GET", "POST"]), Route("/wait", wait), Mount("/endless", endless), Route("/fail", fail)],
            lifespan=lifespan,
        )


@asynccontextmanager
async def serving(cluster: Cluster, app: Any, *, grace: float = 3.0, clear: bool = False) -> AsyncIterator[int]:
    """The port. On leaving, the server is stopped and has ended."""
    context = None if clear else server_context(cluster.manager, ask_peer=False, alpn=(HTTP,))
    listeners = await listen("127.0.0.1", 0)

    async def serve(task_status: trio.TaskStatus[Any]) -> None:
        await serve_asgi(app, listeners, context, grace=grace, task_status=task_status)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield addresses(listeners)[0][1]
            nursery.cancel_scope.cancel()


def client(cluster: Cluster, port: int) -> httpx.AsyncClient:
    """An ordinary HTTPS client: Python's own ssl, host name checked."""
    return httpx.AsyncClient(verify=ssl.create_default_context(cafile=str(cluster.ca)), base_url=f"https://localhost:{port}")


async def plain(cluster: Cluster, port: int) -> TlsStream:
    """The same by hand."""
    return await dial([("127.0.0.1", port)], client_context(cluster.ca, None, HTTP), server_kind="manager")


async def test_an_ordinary_client_is_served_and_its_connection_kept(cluster: Cluster) -> None:
    events = Events()
    async with serving(cluster, events.app()) as port, client(cluster, port) as http:
        for body in ("", "x" * 100_000):
            answer = await http.post("/about", content=body)
            assert answer.json() == {"scheme": "https", "client": "127.0.0.1", "greeting": "hello", "body": body}
            assert "server" not in answer.headers
        assert events.log == ["start"]
    assert events.log == ["start", "stop"]


async def test_many_clients_at_once(cluster: Cluster) -> None:
    async with serving(cluster, Events().app()) as port, client(cluster, port) as http, trio.open_nursery() as nursery:

        async def ask(i: int) -> None:
            assert (await http.post("/about", content=str(i))).json()["body"] == str(i)

        for i in range(30):
            nursery.start_soon(ask, i)


async def test_a_defect_in_the_application_is_an_answer_and_the_server_goes_on(cluster: Cluster) -> None:
    async with serving(cluster, Events().app()) as port, client(cluster, port) as http:
        for _ in range(2):
            assert (await http.get("/fail")).status_code == 500
        assert (await http.get("/about")).status_code == 200


@pytest.mark.parametrize("said", [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000, b"POST /about HTTP/1.1\r\n: :\r\n\r\n"])
async def test_what_is_no_http_is_refused_with_a_number(cluster: Cluster, said: bytes) -> None:
    async with serving(cluster, Events().app()) as port, await plain(cluster, port) as stream:
        await stream.send_all(said)
        answer = await stream.receive_some()
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        assert await stream.receive_some() == b""


def certificate_error(error: BaseException | None) -> str:
    """What Python's ssl found, somewhere behind httpx's error."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return str(error)


async def test_a_client_that_does_not_know_the_ca_gets_nothing(cluster: Cluster) -> None:
    async with serving(cluster, Events().app()) as port:
        context = ssl.create_default_context(cafile=str(cluster.other_ca))
        async with httpx.AsyncClient(verify=context) as http:
            with pytest.raises(httpx.ConnectError) as foreign:
                await http.get(f"https://localhost:{port}/about")
        assert "self-signed" in certificate_error(foreign.value)
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=str(cluster.ca))) as http:
            with pytest.raises(httpx.ConnectError) as misnamed:
                await http.get(f"https://127.0.0.1:{port}/about", extensions={"sni_hostname": "elsewhere.example"})
        assert "elsewhere.example" in certificate_error(misnamed.value)


async def test_a_running_request_is_finished_within_the_grace_period(cluster: Cluster) -> None:
    events = Events()
    async with trio.open_nursery() as nursery:

        async def answer_after_the_stop() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            events.answer.set()

        async with serving(cluster, events.app(), grace=PATIENCE) as port:
            stream = await plain(cluster, port)
            await stream.send_all(GET % b"/wait")
            await events.asked.wait()
            nursery.start_soon(answer_after_the_stop)
        assert events.log == ["start", "answered", "stop"]
        async with stream:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_a_request_that_takes_too_long_is_cut_off_after_the_grace_period(cluster: Cluster) -> None:
    events = Events()
    async with trio.open_nursery() as nursery:

        async def ask(port: int) -> None:
            async with await plain(cluster, port) as stream:
                await stream.send_all(GET % b"/wait")
                with pytest.raises(trio.BrokenResourceError):
                    assert await stream.receive_some() != b""

        async with serving(cluster, events.app(), grace=0.1) as port:
            nursery.start_soon(ask, port)
            await events.asked.wait()
    assert events.log == ["start", "stop"]


async def test_a_client_that_has_stopped_reading_cannot_hold_the_server_up(cluster: Cluster) -> None:
    """Hypercorn shields its sends from cancellation; the socket is closed under them."""
    events = Events()
    async with serving(cluster, events.app(), grace=0.1) as port:
        stalled = await plain(cluster, port)
        await stalled.send_all(GET % b"/endless/")
        await events.asked.wait()
        await trio.testing.wait_all_tasks_blocked(0.1)
    stalled.close_now()
    assert events.log == ["start", "stop"]


async def test_idle_connections_end_at_once(cluster: Cluster) -> None:
    """A kept connection is nothing to wait for, and its client is told in order."""
    async with serving(cluster, Events().app(), grace=PATIENCE * 2) as port:
        stream = await plain(cluster, port)
        await stream.send_all(GET % b"/about")
        answer = b""
        while not answer.endswith((b"}", b"0\r\n\r\n")):
            answer += await stream.receive_some()
    async with stream:
        assert await stream.receive_some() == b""


async def test_an_application_that_cannot_start_leaves_no_open_port(cluster: Cluster) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    listeners = await listen("127.0.0.1", 0)
    with pytest.RaisesGroup(pytest.RaisesExc(Exception, match="no database"), flatten_subgroups=True):
        await serve_asgi(app, listeners, server_context(cluster.manager, ask_peer=False, alpn=(HTTP,)))
    assert listeners[0].socket.fileno() == -1


async def test_this_machine_is_served_in_clear(cluster: Cluster) -> None:
    events = Events()
    async with serving(cluster, events.app(), clear=True) as port, httpx.AsyncClient(base_url=f"http://localhost:{port}") as http:
        for body in ("", "x" * 100_000):
            answer = await http.post("/about", content=body)
            assert answer.json() == {"scheme": "http", "client": "127.0.0.1", "greeting": "hello", "body": body}
    assert events.log == ["start", "stop"]


async def test_a_client_in_clear_that_has_stopped_reading_cannot_hold_the_server_up(cluster: Cluster) -> None:
    events = Events()
    async with serving(cluster, events.app(), grace=0.1, clear=True) as port:
        stalled = await trio.open_tcp_stream("127.0.0.1", port)
        await stalled.send_all(GET % b"/endless/")
        await events.asked.wait()
        await trio.testing.wait_all_tasks_blocked(0.1)
    await stalled.aclose()
    assert events.log == ["start", "stop"]


async def test_other_machines_are_never_served_in_clear() -> None:
    listeners = await listen("0.0.0.0", 0)
    with pytest.RaisesGroup(PlainBeyondLoopback, flatten_subgroups=True):
        await serve_asgi(Events().app(), listeners, None)
    assert listeners[0].socket.fileno() == -1


def test_a_web_certificate_and_its_key_belong_together(cluster: Cluster) -> None:
    web_context(cluster.manager.cert_path, cluster.manager.key_path)
    for certificate, key in ((cluster.manager.cert_path, cluster.relay.key_path), (cluster.ca, "/nowhere")):
        with pytest.raises(PkiUnreadable):
            web_context(certificate, key)
