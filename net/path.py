"""How long the way to the other side of a TCP connection is, as the kernel sees it. A ping of our own measures two busy programs besides.

The kernel keeps the least round-trip time of the last five minutes (`tcpi_min_rtt`, linux/tcp.h, `net.ipv4.tcp_min_rtt_wlen`): a shorter way
shows at once, a longer one after that time. It does not wander with the load of either machine.

`nearest_first` asks it of several servers at once: whoever has to choose one knows no regions, and measures.
"""

import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import trio

from net.listener import Address

LOOK_WITHIN: Final = 1.0
"""Seconds for the first server to answer; without an answer nothing is known."""
ALIKE: Final = 0.008
"""Seconds of round-trip time that make no difference, beside twice the shortest one."""
MAX_LOOKS: Final = 32
"""Servers that are asked; the others count as far."""
Server = TypeVar("Server")
_MIN_RTT_AT: Final = 148
_UNKNOWN: Final = 0xFFFF_FFFF


def path_rtt(descriptor: int) -> float | None:
    """Seconds; None where the kernel does not say (not Linux, nothing measured, not connected)."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        sock = socket.socket(fileno=descriptor)
    except (OSError, ValueError):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, option, _MIN_RTT_AT + 4)
    except OSError:
        return None
    finally:
        sock.detach()  # it is not ours
    if len(info) < _MIN_RTT_AT + 4:
        return None
    (microseconds,) = struct.unpack_from("=I", info, _MIN_RTT_AT)
    return microseconds / 1e6 if 0 < microseconds < _UNKNOWN else None


async def nearest_first(servers: Sequence[Server], addresses: Callable[[Server], Sequence[Address]]) -> list[Server]:
    """The servers that are about as near as the nearest one, then the others, both in the order given.

    Takes one TCP connection to each, and about twice the way to the nearest: who has not answered by then is farther away. A server that
    does not answer is not left out; it may be for another reason.
    """
    if len(servers) < 2:
        return list(servers)
    began = trio.current_time()
    ways: dict[int, float] = {}

    async def look(number: int, address: Address) -> None:
        try:
            stream = await trio.open_tcp_stream(*address)
        except OSError:
            return
        elapsed = trio.current_time() - began
        patience.deadline = min(patience.deadline, began + 2 * elapsed + ALIKE)
        way = path_rtt(stream.socket.fileno()) or elapsed
        ways[number] = min(way, ways.get(number, way))
        await trio.aclose_forcefully(stream)

    with trio.move_on_after(LOOK_WITHIN) as patience:
        async with trio.open_nursery() as nursery:
            for number, server in enumerate(servers[:MAX_LOOKS]):
                for address in addresses(server):
                    nursery.start_soon(look, number, address)
    near = 2 * min(ways.values(), default=0.0) + ALIKE
    return [s for _, s in sorted(enumerate(servers), key=lambda item: ways.get(item[0], LOOK_WITHIN) > near)]
