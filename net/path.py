"""How long the way to the other side of a TCP connection is, as the kernel sees it. A ping of our own measures two busy programs besides.

The kernel keeps the least round-trip time of the last five minutes (`tcpi_min_rtt`, linux/tcp.h, `net.ipv4.tcp_min_rtt_wlen`): a shorter way
shows at once, a longer one after that time. It does not wander with the load of either machine.
"""

import socket
import struct
from typing import Final

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
