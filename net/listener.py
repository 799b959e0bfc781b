"""One port for every kind of caller.

What a caller is shows in its first bytes, then in ALPN:

    0x16 …             a TLS hello     ALPN parley/1   a link of frames   → `handler`
                                       http/1.1, none  HTTP               → `http` (a browser's WebSocket enters here)
    "parley?\\n"        a probe         answered "parley!\\n" and closed: a plain, short connection that carries no identifier
    anything else      closed

A handshake is a stranger's chance to cost us something for nothing, so it is bounded in time and number: while there is room it has ten
seconds; when `MAX_HANDSHAKES` are unfinished, the oldest one has no more than one, and nothing is accepted until it is out of the way.
"""

import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from socket import MSG_PEEK, SHUT_WR
from typing import Final

import structlog
import trio
from OpenSSL import SSL

from net.stream import HANDSHAKE_WITHIN, TlsStream
from net.tap import Tap
from net.tls import FRAMES, TlsRefused
from wire.errors import ParleyError

PROBE: Final = b"parley?\n"
ANSWER: Final = b"parley!\n"
MAX_HANDSHAKES: Final = 256
HURRY: Final = 1.0
"""Seconds that an unfinished handshake has while there is no room for others."""
BACKLOG: Final = 1024
_TLS_HANDSHAKE: Final = 0x16  # content type of a TLS record (RFC 8446, 5.1)
_NO_DESCRIPTORS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))

Address = tuple[str, int]
StreamHandler = Callable[[TlsStream], Awaitable[object]]
log = structlog.get_logger()


class ListenError(ParleyError):
    name = "cannot-listen"
    sentence = "This address cannot be listened on; is it one of this machine's?"


class PortInUse(ListenError):
    name = "port-in-use"
    sentence = "Another program listens on this port; stop it, or choose another port."


class PortForbidden(ListenError):
    name = "port-forbidden"
    sentence = "Ports below 1024 need a privilege (CAP_NET_BIND_SERVICE); give it, or choose a higher port."


async def listen(host: str | None, port: int) -> list[trio.SocketListener]:
    """Listening sockets for this address; None is every address; port 0 is a free port for each of them.

    Raises `PortInUse`, `PortForbidden`, `ListenError`.
    """
    where = f"{host or '*'}:{port}"
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"Another program listens on {where}; stop it, or choose another port.") from None
        if error.errno == errno.EACCES:
            raise PortForbidden from None
        raise ListenError(f"{where} cannot be listened on ({error.strerror or error}).") from None
    return listeners


def addresses(listeners: Sequence[trio.SocketListener]) -> list[Address]:
    """The real addresses, ports included."""
    return [(str(name[0]), int(name[1])) for name in (listener.socket.getsockname() for listener in listeners)]


async def serve_tls(
    listeners: Sequence[trio.SocketListener],
    context: SSL.Context,
    handler: StreamHandler,
    *,
    http: StreamHandler | None = None,
    tap: Tap | None = None,
    handler_nursery: trio.Nursery | None = None,
    max_handshakes: int = MAX_HANDSHAKES,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; the listeners are closed then. Starts with the real addresses.

    `handler` gets every stream of frames, `http` every HTTP one (without it they are closed). A stream is closed when its handler is done.
    What a handler raises is logged and ends its own stream alone. `handler_nursery`: where handlers run, if they shall outlive the accepting.
    """
    door = _Door(context, handler, http, tap, max_handshakes)
    try:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(door.accept_from, listener, handler_nursery or nursery)
            task_status.started(addresses(listeners))
    finally:
        for listener in listeners:
            listener.socket.close()


class _Door:
    """What all listening sockets of one port share. Owned by `serve_tls`."""

    def __init__(self, context: SSL.Context, handler: StreamHandler, http: StreamHandler | None, tap: Tap | None, max_handshakes: int) -> None:
        self._context = context
        self._handler = handler
        self._http = http
        self._tap = tap
        self._max = max_handshakes
        self._unfinished: dict[trio.CancelScope, float] = {}  # since when, oldest first
        self._room = trio.lowlevel.ParkingLot()
        self.refused: Counter[str] = Counter()  # by reason

    async def accept_from(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        while True:
            await self._wait_for_room()
            try:
                accepted = await listener.accept()
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS:
                    raise
                log.warning("accept-failed", reason=errno.errorcode[error.errno])
                await trio.sleep(0.1)  # descriptors come back as links end
                continue
            now = trio.current_time()
            scope = trio.CancelScope(deadline=now + HANDSHAKE_WITHIN)
            self._unfinished[scope] = now
            nursery.start_soon(self._greet, accepted.socket, scope)

    async def _wait_for_room(self) -> None:
        while len(self._unfinished) >= self._max:
            oldest, since = next(iter(self._unfinished.items()))
            oldest.deadline = min(oldest.deadline, since + HURRY)
            await self._room.park()

    async def _greet(self, sock: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        stream: TlsStream | None = None
        caller = _address_of(sock)
        try:
            with scope:
                stream = await self._recognise(sock, caller)
        except TlsRefused as refused:
            self._refuse(refused.reason, caller, said_by="them" if refused.remote else "us", detail=refused.args[0])
        except OSError:
            self._refuse("caller-lost", caller)
        finally:
            del self._unfinished[scope]
            self._room.unpark()
            if stream is None:
                sock.close()
        if scope.cancelled_caught:
            self._refuse("handshake-timeout", caller)
        if stream is not None:
            await self._handle(stream)

    async def _recognise(self, sock: trio.socket.SocketType, caller: str) -> TlsStream | None:
        first = await sock.recv(1, MSG_PEEK)
        if first and first[0] == _TLS_HANDSHAKE:
            recorder = self._tap.record(caller) if self._tap else None
            return await TlsStream.accept(sock, self._context, tap=recorder)
        if first == PROBE[:1] and await _is_probe(sock):
            await sock.send(ANSWER)  # eight bytes fit into the empty buffer of a new connection
            sock.shutdown(SHUT_WR)
            await sock.recv(1)  # the caller closes first, so that nothing is reset on its way
        elif first:
            self._refuse("not-tls", caller)
        return None

    async def _handle(self, stream: TlsStream) -> None:
        handler = self._handler if stream.alpn == FRAMES.decode() else self._http
        try:
            if handler is None:
                self._refuse("no-such-protocol", ":".join(map(str, stream.remote_address)))
            else:
                await handler(stream)
        except Exception:
            log.exception("handler-failed", remote=stream.remote_address)
        finally:
            await stream.aclose()

    def _refuse(self, reason: str, caller: str, **more: object) -> None:
        self.refused[reason] += 1
        log.info("caller-refused", reason=str(reason), caller=caller, times=self.refused[reason], **more)


async def _is_probe(sock: trio.socket.SocketType) -> bool:
    received = b""
    while len(received) < len(PROBE):
        part = await sock.recv(len(PROBE) - len(received))
        if not part:
            return False
        received += part
    return received == PROBE


def _address_of(sock: trio.socket.SocketType) -> str:
    try:
        host, port, *_ = sock.getpeername()
    except OSError:  # gone already
        return "?"
    return f"{host}:{port}"
