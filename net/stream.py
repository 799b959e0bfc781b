"""A trio stream over pyOpenSSL on the non-blocking socket.

OpenSSL reads and writes the socket itself; this file only waits. Both directions share one SSL object, in one thread, and never wait for
each other: a writer waits until the socket is writable, a reader until it is readable. (With memory buffers between OpenSSL and the socket,
a reader has to flush what TLS wants to say, and does so under the writer's lock: when both directions are full, both sides stop for ever.)
In TLS 1.3 reading needs to write, or the reverse, only around a key update, which OpenSSL sends along with the next write.

OpenSSL writes in part and allows the buffer to move, but a write that would have blocked must be repeated with the same bytes. So a
`send_all` that was cancelled in the middle leaves the stream unusable for sending, as the trio contract has it.

Closing says `close_notify`, then waits for the other side to close, at most `LINGER` seconds: a socket that is closed while bytes are on
their way to it answers with a reset, and that would destroy what was sent last, the error frame that says why.
"""

import socket
from types import TracebackType
from typing import Final, Protocol

import trio
from OpenSSL import SSL

from net.pki import PeerName, peer_name_of
from net.tls import TlsReason, TlsRefused, Verdict, refusal

HANDSHAKE_WITHIN: Final = 10.0
"""Seconds for a whole handshake."""
LINGER: Final = 1.0
"""Seconds that closing waits for the other side."""
READ: Final = 65_536
"""Bytes that one `receive_some` returns at most, unless told."""
RECORD: Final = 16_384
"""Bytes of plaintext in a full TLS record (RFC 8446, 5.1)."""


class Recorder(Protocol):
    """Takes every byte that a stream receives, after TLS (`net.tap`)."""

    def __call__(self, data: bytes) -> None: ...


class TlsStream(trio.abc.Stream):
    """One TLS connection, after its handshake. One task may send and one may receive at a time.

    `peer`: who the other side is by its certificate, None if it showed none. `alpn`: the chosen protocol, "" if none was.
    `remote_address`: host and port of the other side.
    """

    def __init__(self, sock: trio.socket.SocketType, tls: SSL.Connection, *, tap: Recorder | None = None) -> None:
        self.socket = sock
        self.peer: PeerName | None = None
        self.alpn = ""
        self.remote_address = _address_of(sock)
        self._tls = tls
        self._tap = tap
        self._sending = _OneAtATime("another task is sending on this stream")
        self._receiving = _OneAtATime("another task is receiving on this stream")
        self._closed = False
        self._detached = False  # the socket is another stream's
        self._finished = False  # the other side has said that it sends no more
        self._broken = False  # nothing more can be sent: an error, or a cancelled write

    @classmethod
    async def connect(
        cls,
        sock: trio.socket.SocketType,
        context: SSL.Context,
        *,
        server_name: str | None = None,
        timeout: float = HANDSHAKE_WITHIN,  # noqa: ASYNC109  # a protocol deadline with a name of its own, not the caller's patience
        tap: Recorder | None = None,
    ) -> "TlsStream":
        """The caller's side of the handshake on a connected socket, which is this stream's from now on, whatever happens.

        `server_name` is said to the server (RFC 6066) unless it is an address. Raises `TlsRefused`.
        """
        tls = SSL.Connection(context, sock)  # type: ignore[arg-type]  # it needs only `fileno`
        tls.set_connect_state()
        if server_name and not _is_address(server_name):
            tls.set_tlsext_host_name(server_name.encode("idna"))
        return await cls(sock, tls, tap=tap)._handshake(timeout)

    @classmethod
    async def accept(
        cls,
        sock: trio.socket.SocketType,
        context: SSL.Context,
        *,
        timeout: float = HANDSHAKE_WITHIN,  # noqa: ASYNC109  # as above
        tap: Recorder | None = None,
    ) -> "TlsStream":
        """The called side of the handshake on an accepted socket, which is this stream's from now on. Raises `TlsRefused`."""
        tls = SSL.Connection(context, sock)  # type: ignore[arg-type]  # as above
        tls.set_accept_state()
        return await cls(sock, tls, tap=tap)._handshake(timeout)

    async def _handshake(self, within: float) -> "TlsStream":
        verdict = Verdict()
        self._tls.set_app_data(verdict)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with trio.move_on_after(within) as scope:
                await self._until_done()
            if scope.cancelled_caught:
                raise TlsRefused(TlsReason.TIMEOUT, remote=True)
            self.alpn = self._tls.get_alpn_proto_negotiated().decode("latin-1")
            certificate = self._tls.get_peer_certificate(as_cryptography=True)
            if certificate is not None:
                self.peer = peer_name_of(certificate)
                if self.peer is None:
                    raise TlsRefused(TlsReason.WRONG_ROLE, remote=False, detail="The certificate names no server of a cluster.")
        except (SSL.Error, TlsRefused) as error:
            refused = error if isinstance(error, TlsRefused) else refusal(error, verdict)
            self._broken = True
            if refused.reason in (TlsReason.LOST, TlsReason.TIMEOUT):
                self.close_now()
            else:
                await self.aclose()  # with a little patience: our alert must arrive
            raise refused from None
        except OSError:
            self.close_now()
            raise TlsRefused(TlsReason.LOST, remote=True) from None
        except BaseException:
            self.close_now()
            raise
        return self

    async def _until_done(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            try:
                self._tls.do_handshake()
            except SSL.WantReadError:
                await trio.lowlevel.wait_readable(self.socket.fileno())
            except SSL.WantWriteError:
                await trio.lowlevel.wait_writable(self.socket.fileno())
            else:
                return

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._may_send()
            whole = memoryview(data).cast("B")
            sent = 0
            self._broken = True  # until all is written: a cancelled write cannot be taken up by another
            while sent < len(whole):
                try:
                    sent += self._tls.send(whole[sent:])
                except SSL.WantWriteError:
                    await trio.lowlevel.wait_writable(self.socket.fileno())
                except SSL.WantReadError:
                    await trio.lowlevel.wait_readable(self.socket.fileno())
                except SSL.Error as error:
                    raise self.failed(error) from None
                if self._closed:  # while waiting: the descriptor may be somebody else's by now, so OpenSSL must not touch it again
                    raise trio.ClosedResourceError
            self._broken = False

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._may_send()
            await trio.lowlevel.wait_writable(self.socket.fileno())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is None:
            max_bytes = READ
        elif max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            await trio.lowlevel.checkpoint_if_cancelled()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError
                data = self._read(max_bytes)
                if data is not None:
                    break
                await trio.lowlevel.wait_readable(self.socket.fileno())
            await trio.lowlevel.cancel_shielded_checkpoint()  # bytes were taken: nothing may interrupt their delivery
        if self._tap is not None:
            self._tap(data)
        return data

    def _read(self, max_bytes: int) -> bytes | None:
        """What is there now, a few records at a time; b"" at the end; None if there is nothing."""
        parts: list[bytes] = []
        size = 0
        while size < max_bytes:
            try:
                part = self._tls.recv(min(max_bytes - size, RECORD))
            except (SSL.WantReadError, SSL.WantWriteError):
                break
            except SSL.ZeroReturnError:
                self._finished = True
                break
            except SSL.Error as error:
                if parts:
                    break  # it is said again with the next read
                raise self.failed(error) from None
            parts.append(part)
            size += len(part)
        if parts or self._finished:
            return b"".join(parts)
        return None

    async def aclose(self) -> None:
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        descriptor = self.socket.fileno()
        trio.lowlevel.notify_closing(descriptor)  # whoever waits on the socket learns it now
        try:
            self._say_goodbye()
            with trio.move_on_after(LINGER):
                await self._drain()
        finally:
            self.socket.close()

    def detach(self) -> "TlsStream":
        """The same connection as a new stream; this one is closed from now on, without a word to anybody. For an owner that shall outlive
        whoever accepted it."""
        if self._closed:
            raise trio.ClosedResourceError
        heir = TlsStream(self.socket, self._tls, tap=self._tap)
        heir.peer, heir.alpn, heir.remote_address, heir._broken = self.peer, self.alpn, self.remote_address, self._broken
        self._closed = self._detached = True
        return heir

    @property
    def tls(self) -> SSL.Connection:
        """For `net.pumped`, which calls OpenSSL itself while it owns the stream."""
        return self._tls

    @property
    def tap(self) -> "Recorder | None":
        return self._tap

    def close_now(self) -> None:
        """Close at once, without a word to the other side. Never waits, so it works against a peer that has stopped reading."""
        if not self._detached:
            self._closed = True
            self.socket.close()

    def _say_goodbye(self) -> None:
        try:
            if not self._broken:
                self._tls.shutdown()
            self.socket.shutdown(socket.SHUT_WR)
        except (SSL.Error, OSError):
            pass  # the other side is gone already, or its buffers are full: it will learn from the end of the stream

    async def _drain(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._finished:
            try:
                if not await self.socket.recv(READ):
                    return
            except (OSError, trio.ClosedResourceError):  # reset by the other side, or `close_now` was impatient
                return

    def _may_send(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._broken:
            raise trio.BrokenResourceError

    def failed(self, error: SSL.Error) -> trio.BrokenResourceError | trio.ClosedResourceError:
        """OpenSSL's error in trio's words; a refusal of the other side is a `TlsRefused`. Nothing more can be sent."""
        self._broken = True
        if self._closed:
            return trio.ClosedResourceError()
        if isinstance(error, (SSL.SysCallError, SSL.ZeroReturnError)):
            return trio.BrokenResourceError("the connection was lost")
        verdict = self._tls.get_app_data()
        return refusal(error, verdict if isinstance(verdict, Verdict) else Verdict())


class _OneAtATime:
    """Two tasks in one direction are a defect of ours."""

    __slots__ = ("_busy", "_message")

    def __init__(self, message: str) -> None:
        self._message = message
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(self._message)
        self._busy = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._busy = False


def _address_of(sock: trio.socket.SocketType) -> tuple[str, int]:
    try:
        host, port, *_ = sock.getpeername()
    except (OSError, ValueError):  # gone already, or no internet socket
        return ("?", 0)
    return (str(host), int(port))


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
