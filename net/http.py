"""An ASGI application behind the one TLS configuration, served by Hypercorn's connection handler.

Python's own ssl module cannot restrict the suites of TLS 1.3, so Hypercorn gets neither listener nor context: `serve_tls` accepts, and each
finished `TlsStream` is handed to `hypercorn.trio.tcp_server.TCPServer` (its version is pinned for that), which speaks HTTP/1.1 on it.

Without a context the same is served in clear, to this machine alone (`PlainBeyondLoopback`): for a site at http://localhost.

The end is ours too. Hypercorn shields a send that does not get on from cancellation, so one client that has stopped reading could hold a
server up for ever. Here idle connections end at once, running requests have a grace period, and then the sockets are closed under them.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, Protocol, cast

import structlog
import trio
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState
from hypercorn.utils import wrap_app
from OpenSSL import SSL

from net.listener import Address, ListenError, addresses, serve_tls
from net.stream import TlsStream
from net.tap import Tap

GRACE: Final = 3.0
"""Seconds that running requests have when the server stops."""
KEEP_ALIVE: Final = 15
"""Seconds that an idle connection is kept."""
READ_WITHIN: Final = 60
"""Seconds without a byte from a client before its connection ends, so also the longest that a request may be waited for."""
MAX_DROPPED: Final = 8 << 20
"""Bytes of a body that nobody wants which are read all the same before the answer."""
DROP_WITHIN: Final = 5.0
MAX_WSGI_BODY: Final = 1 << 20

MAX_PLAIN: Final = 256
"""Connections in clear at once; the next ones wait in the kernel."""

log = structlog.get_logger()


class PlainBeyondLoopback(ListenError):
    name = "plain-beyond-loopback"
    sentence = "Without a certificate only this machine may be served; listen on 127.0.0.1, or name a certificate and its key."


class _Served(Protocol):
    """What must end with the server."""

    @property
    def remote_address(self) -> Address: ...

    def close_now(self) -> None: ...


async def serve_asgi(
    app: Any,
    listeners: Sequence[trio.SocketListener],
    context: SSL.Context | None,
    *,
    grace: float = GRACE,
    tap: Tap | None = None,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, then stop as described above. Starts with the real addresses, after the application's own start-up.

    `context`: `server_context(identity, ask_peer=False, alpn=(HTTP,))`, or None: in clear. Raises `PlainBeyondLoopback`.
    """
    await _Server(app, grace).serve(listeners, context, tap, task_status)


class _Server:
    def __init__(self, app: Any, grace: float) -> None:
        self._config = _configuration()
        self._app = wrap_app(_BodyFirst(app), MAX_WSGI_BODY, "asgi")
        self._context = WorkerContext(None)
        self._state: LifespanState = {}
        self._grace = grace
        self._stopping = trio.Event()
        self._all_gone = trio.Event()
        self._streams: set[_Served] = set()

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        context: SSL.Context | None,
        tap: Tap | None,
        task_status: trio.TaskStatus[list[Address]],
    ) -> None:
        lifespan = Lifespan(self._app, self._config, self._state)
        async with trio.open_nursery() as outer:
            # the application's own life, and every connection, go on through the grace period: they are shielded until it is over
            keeper: trio.Nursery = await outer.start(self._keep, lifespan)
            try:
                if context is None:
                    await self._serve_plain(listeners, keeper, task_status)
                else:
                    await serve_tls(
                        listeners, context, self._handle, http=self._handle, tap=tap, handler_nursery=keeper, task_status=task_status
                    )
            finally:
                self._stopping.set()

    async def _serve_plain(
        self, listeners: Sequence[trio.SocketListener], keeper: trio.Nursery, task_status: trio.TaskStatus[list[Address]]
    ) -> None:
        where = addresses(listeners)
        room = trio.CapacityLimiter(MAX_PLAIN)

        async def accept(listener: trio.SocketListener) -> None:
            while True:
                token = object()
                await room.acquire_on_behalf_of(token)
                try:
                    stream = _PlainStream(await listener.accept())
                except OSError as error:  # gone already, or no descriptors: they come back as connections end
                    log.warning("accept-failed", reason=error.strerror)
                    room.release_on_behalf_of(token)
                    await trio.sleep(0.1)
                    continue
                keeper.start_soon(self._handle_plain, stream, room, token)

        try:
            if not all(ip_address(host).is_loopback for host, _ in where):
                raise PlainBeyondLoopback
            async with trio.open_nursery() as nursery:
                for listener in listeners:
                    nursery.start_soon(accept, listener)
                task_status.started(where)
        finally:
            for listener in listeners:
                listener.socket.close()

    async def _handle_plain(self, stream: "_PlainStream", room: trio.CapacityLimiter, token: object) -> None:
        try:
            await self._serve_one(stream, stream)
        except Exception:
            log.exception("handler-failed", remote=stream.remote_address)
        finally:
            stream.close_now()
            room.release_on_behalf_of(token)

    async def _keep(self, lifespan: Lifespan, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as life:
                await life.start(lifespan.handle_lifespan)
                with suppress(
                    trio.BrokenResourceError, trio.ClosedResourceError
                ):  # the application has no use for a lifespan and says so by returning
                    await lifespan.wait_for_startup()
                async with trio.open_nursery() as connections:
                    task_status.started(connections)
                    await self._stopping.wait()
                    await self._context.terminated.set()
                    await self._close_by_force_after_the_grace(connections)
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await lifespan.wait_for_shutdown()
                life.cancel_scope.cancel()

    async def _close_by_force_after_the_grace(self, connections: trio.Nursery) -> None:
        if self._streams:
            with trio.move_on_after(self._grace):
                await self._all_gone.wait()
        for stream in tuple(self._streams):
            log.warning("closed-by-force", remote=stream.remote_address)
            stream.close_now()
        connections.cancel_scope.cancel()

    async def _handle(self, stream: TlsStream) -> None:
        await self._serve_one(stream, _AsSslStream(stream))

    async def _serve_one(self, stream: _Served, as_hypercorn: Any) -> None:
        self._streams.add(stream)
        state = cast("ConnectionState", self._state.copy())
        try:
            await TCPServer(self._app, self._config, self._context, state, as_hypercorn).run()
        finally:
            self._streams.discard(stream)
            if not self._streams and self._stopping.is_set():
                self._all_gone.set()


class _BodyFirst:
    """Answers wait until the request's body has come, and what the application did not read of it is dropped.

    Else a refusal of something too large is lost: a socket that is closed with bytes unread is reset, and the answer with it. And Hypercorn
    queues ten parts of a body and at the end of the answer waits for room to say that the request is over: for ever, if nobody reads. A
    client that sends more than `MAX_DROPPED`, or too slowly, is answered while it sends, and loses its connection.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not _may_have_body(scope["headers"]):
            await self._app(scope, receive, send)
            return
        whole = False

        async def receiving() -> Any:
            nonlocal whole
            message = await receive()
            whole = whole or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def drop(most: float) -> None:
            while not whole and most > 0:
                most -= len((await receiving()).get("body", b""))

        async def sending(message: Any) -> None:
            if whole:
                await send(message)
                return
            if message["type"] == "http.response.start":
                with trio.move_on_after(DROP_WITHIN):
                    await drop(MAX_DROPPED)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drop, math.inf)
                await send(message)
                nursery.cancel_scope.cancel()

        await self._app(scope, receiving, sending)


def _may_have_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """By RFC 9112, 6.3: a request without either has none. Most have none, and cost nothing here."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


class _HeadWithBody:
    """Sends the head of an answer together with what follows it: one system call and one TLS record instead of two.

    Hypercorn hands over head, body and end one after the other, and an empty end too, so a head that is held never stays. One without a length
    (a stream of events, an upgrade) is sent at once.
    """

    def __init__(self, send_all: Callable[[bytes], Awaitable[None]]) -> None:
        self._send_all = send_all
        self._head = b""

    async def __call__(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.") and data.endswith(b"\r\n\r\n") and b"\r\ncontent-length: " in data:
            self._head = data
            return
        data, self._head = self._head + data, b""
        if data:
            await self._send_all(data)


class _AsSslStream:
    """What `TCPServer` uses of a `trio.SSLStream`. The handshake is done already."""

    def __init__(self, stream: TlsStream) -> None:
        self.transport_stream = stream  # its `socket` is asked for both addresses
        self.receive_some = stream.receive_some
        self.send_all = _HeadWithBody(stream.send_all)
        self.aclose = stream.aclose
        self._alpn = stream.alpn

    async def do_handshake(self) -> None:
        await trio.lowlevel.checkpoint()

    def selected_alpn_protocol(self) -> str:
        return self._alpn


class _PlainStream:
    """What `TCPServer` uses of a `trio.SocketStream`; it takes what has no `do_handshake` for one."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self.receive_some = stream.receive_some
        self.send_all = _HeadWithBody(stream.send_all)
        self.aclose = stream.aclose
        self.remote_address: Address = stream.socket.getpeername()[:2]

    def close_now(self) -> None:
        self.socket.close()


class _Logger(Logger):
    """Hypercorn's words as events; no access log, since paths and addresses say who was where."""

    def __init__(self, config: Config) -> None:
        self._log = structlog.get_logger().bind(part="http")

    async def access(self, *_: object) -> None:
        pass

    async def critical(self, message: str, *_: object, **__: object) -> None:
        self._log.critical("http-server", message=message)

    async def error(self, message: str, *_: object, **__: object) -> None:
        self._log.error("http-server", message=message)

    async def warning(self, message: str, *_: object, **__: object) -> None:
        self._log.warning("http-server", message=message)

    async def info(self, message: str, *_: object, **__: object) -> None:
        self._log.info("http-server", message=message)

    async def debug(self, message: str, *_: object, **__: object) -> None:
        self._log.debug("http-server", message=message)

    async def exception(self, message: str, *_: object, **__: object) -> None:
        self._log.exception("http-server", message=message)


def _configuration() -> Config:
    config = Config()
    config.logger_class = _Logger
    config.include_server_header = False
    config.graceful_timeout = GRACE
    config.keep_alive_timeout = KEEP_ALIVE
    config.read_timeout = READ_WITHIN
    return config
