"""Dialling: the race over addresses, and probes.

All addresses of a server are tried, each a little after the one before (RFC 8305, "Happy Eyeballs"): the next one starts when the last has
failed or has not finished within `STAGGER`. The first that finishes its TLS handshake *and* names the wanted kind of server in its
certificate wins; the others are closed. Where a dial ends for TLS reasons, that is what the caller is told: it says more than "unreachable".
"""

import socket
from collections.abc import Sequence
from typing import Final

import trio
from OpenSSL import SSL

from net.listener import ANSWER, PROBE, Address
from net.pki import Kind
from net.stream import TlsStream
from net.tap import Tap
from net.tls import TlsRefused, check_peer
from wire.errors import ParleyError

STAGGER: Final = 0.25
"""Seconds before the next address joins the race (RFC 8305, 5)."""
KNOCK_EVERY: Final = 0.1
"""Seconds between two knocks at one address."""
DIAL_WITHIN: Final = 10.0
"""Seconds for the whole race."""


class Unreachable(ParleyError):
    name = "unreachable"
    sentence = "No address of this server answers; is it running, and does the network let you reach it?"


async def dial(
    addresses: Sequence[Address],
    context: SSL.Context,
    *,
    server_kind: Kind | None,
    cluster: str | None = None,
    timeout: float = DIAL_WITHIN,  # noqa: ASYNC109  # of the race; the caller's patience is its own cancel scope
    tap: Tap | None = None,
    unsent: int | None = None,
) -> TlsStream:
    """The first stream to a server of this kind and cluster (None: any server of the cluster CA) at one of these (host, port)s.

    unsent: bytes that the kernel may hold without having sent them, where it can be told so (TCP_NOTSENT_LOWAT). On a slow line it holds
    megabytes else, which nothing more urgent can overtake and nobody can take back.

    Raises `TlsRefused` or `Unreachable`.
    """
    stream = await _Race(addresses, context, server_kind, cluster, tap).run(timeout)
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if unsent is not None and option is not None:
        stream.socket.setsockopt(socket.IPPROTO_TCP, option, unsent)
    return stream


async def knock(addresses: Sequence[Address], *, within: float) -> bool:
    """Whether any of these addresses takes a TCP connection, called again every `KNOCK_EVERY` seconds for as long as none does.

    What is lost on a line that is down is the first packet, and the kernel repeats that only after one, three and seven seconds; so a line
    that is whole again is noticed at once, and no handshake is begun before. False when all have refused, or after `within` seconds.
    """
    answered = False

    async def call(address: Address, refused: set[Address], over: trio.CancelScope) -> None:
        nonlocal answered
        try:
            stream = await trio.open_tcp_stream(*address)
        except OSError:
            refused.add(address)
            if len(refused) == len(set(addresses)):
                over.cancel()
        else:
            answered = True
            await trio.aclose_forcefully(stream)
            over.cancel()

    with trio.move_on_after(within):
        async with trio.open_nursery() as nursery:
            refused: set[Address] = set()
            while addresses:
                for address in addresses:
                    nursery.start_soon(call, address, refused, nursery.cancel_scope)
                await trio.sleep(KNOCK_EVERY)
    return answered


async def probe(address: Address, *, timeout: float = 2.0) -> bool:  # noqa: ASYNC109  # as above
    """Whether a Parley server answers there. A plain, short connection; it carries nothing about anybody."""
    received = b""
    with trio.move_on_after(timeout):
        try:
            async with await trio.open_tcp_stream(*address) as stream:
                await stream.send_all(PROBE)
                async for part in stream:
                    received += part
                    if len(received) > len(ANSWER):
                        break
        except (OSError, trio.BrokenResourceError):
            return False
    return received == ANSWER


class _Race:
    """One dial. All fields are owned by the tasks of `run`'s nursery, and change without an `await` in between."""

    def __init__(self, addresses: Sequence[Address], context: SSL.Context, kind: Kind | None, cluster: str | None, tap: Tap | None) -> None:
        self._addresses = list(addresses)
        self._context = context
        self._kind = kind
        self._cluster = cluster
        self._tap = tap
        self._winner: TlsStream | None = None
        self._refused: TlsRefused | None = None
        self._failures: list[str] = []

    async def run(self, within: float) -> TlsStream:
        try:
            with trio.move_on_after(within) as patience:
                async with trio.open_nursery() as nursery:
                    for address in self._addresses:
                        over = trio.Event()
                        nursery.start_soon(self._try, address, over, nursery.cancel_scope)
                        with trio.move_on_after(STAGGER):
                            await over.wait()
        except BaseException:
            if self._winner is not None:
                self._winner.close_now()
            raise
        if self._winner is not None:
            return self._winner
        if self._refused is not None:
            raise self._refused
        if patience.cancelled_caught:
            self._failures.append("no answer in time")
        tried = ", ".join(f"{host}:{port}" for host, port in self._addresses) or "no address"
        raise Unreachable(f"{Unreachable.sentence} Tried {tried}: {'; '.join(dict.fromkeys(self._failures)) or 'nothing'}.")

    async def _try(self, address: Address, over: trio.Event, race: trio.CancelScope) -> None:
        host, port = address
        try:
            tcp = await trio.open_tcp_stream(host, port)
            recorder = self._tap.record(f"to-{host}-{port}") if self._tap else None
            stream = await TlsStream.connect(tcp.socket, self._context, server_name=host, tap=recorder)
            if self._winner is not None:  # another one finished in the same moment
                stream.close_now()
                return
            try:
                if self._kind is not None or self._cluster is not None:
                    check_peer(stream.peer, kind=self._kind, cluster=self._cluster)
            except TlsRefused:
                await stream.aclose()
                raise
            self._winner = stream
            race.cancel()
        except TlsRefused as refused:
            self._refused = self._refused or refused
        except OSError as error:
            self._failures.append(_words(error))
        finally:
            over.set()


def _words(error: OSError) -> str:
    """trio groups what each address of a host answered; the first is enough for a person."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup) and isinstance(cause.exceptions[0], OSError):
        error = cause.exceptions[0]
    return error.strerror or str(error)
