"""What a former self of ours left undone: said over a link in its name, by the process that comes after it.

    its journal ──▶ its participant ID and token ──▶ hello ──▶ the relay says who holds the office
        it does      what it had sealed and no relay has taken, byte for byte; then `Office` for whoever is next
        another one  there is nothing to do

A relay lets nobody but the office's holder pass the office on, and our holder died. Nothing is sealed here, so no counter is used
twice: a token is all that is needed, and packets that exist already.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio
from OpenSSL import SSL

from endpoint.errors import NoRelay
from endpoint.journal import Saved, Seat
from endpoint.ticket import RelayAddress, Ticket
from net.connection import Connection
from net.dial import Unreachable, dial
from net.tls import TlsRefused
from wire.control import VERSION, Control, Hello, Office, Taken, Welcome
from wire.errors import CloseReason
from wire.frame import PACKET, Frame, encode_frame
from wire.have import HaveVector
from wire.ids import EVERYONE, ParticipantId
from wire.link import Side
from wire.packet import parse_packet_untrusted

log = structlog.get_logger()

WITHIN: Final = 20.0
"""Seconds in which a relay has to be reached, all told."""
ONE_WITHIN: Final = 4.0
"""Seconds for one link."""
AGAIN_AFTER: Final = 0.5
_REFUSALS: Final = frozenset((CloseReason.TOKEN_REFUSED, CloseReason.REVOKED, CloseReason.ENDED))


async def pass_on(saved: Saved, ticket: Ticket, tls: SSL.Context, to: ParticipantId, packets: Sequence[bytes] = ()) -> bool:
    """Have the relays let `to` write the log, after `packets`, if one of our former selves (`saved.seats`) may still say so. The successors
    that the relays know are named anew by whoever writes the log next. A relay that names who organized before us is asked again: it may
    not have heard yet that the chair came to us.

    True: `to` holds the office. False: it is not ours to give. Raises NoRelay if none has answered in time.
    """
    passing = {EVERYONE, saved.before, *(seat.participant for seat in saved.seats)}
    answered = False
    with trio.move_on_after(WITHIN):
        while True:
            for relay in ticket.relays:
                for seat in reversed(saved.seats):
                    holder = await _errand(relay, seat, ticket, tls, to, packets)
                    if holder == to:
                        return True
                    if holder is not None and holder not in passing:
                        return False
                    answered = answered or holder is not None
            await trio.sleep(AGAIN_AFTER)
    if not answered:
        raise NoRelay
    return False


async def _errand(
    relay: RelayAddress, seat: Seat, ticket: Ticket, tls: SSL.Context, to: ParticipantId, packets: Sequence[bytes]
) -> ParticipantId | None:
    """One link. Who holds the office at its end, by the relay's word; 0: it does not let us say anything. None: no word."""
    errand = _Errand(packets)
    with trio.move_on_after(ONE_WITHIN):
        try:
            stream = await dial(relay.addresses, tls, server_kind="mcs", cluster=ticket.cluster, timeout=ONE_WITHIN)
        except (Unreachable, TlsRefused) as error:
            log.info("relay-unreachable", node=relay.node, why=str(error))
            return None
        connection = Connection(stream, Side.CALLER, errand)
        connection.send(Hello(VERSION, ticket.session, seat.participant, seat.role, seat.token, fresh=True, have=[]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(errand.run, connection)
            await errand.until(lambda: errand.office != EVERYONE)
            if errand.office == seat.participant:
                errand.send()
                connection.wake()
                await errand.until(lambda: not errand.owed)
                if not errand.over:
                    connection.send(Office(to, []))
                await errand.until(lambda: errand.office != seat.participant)
            connection.close(CloseReason.LEFT)
    return errand.office if errand.office != EVERYONE or errand.refused else None


class _Errand:
    """Owned by its link."""

    def __init__(self, packets: Sequence[bytes]) -> None:
        self.office = EVERYONE
        self.over = False
        self.refused = False
        self._packets = [(parse_packet_untrusted(packet), packet) for packet in packets]
        self._taken = HaveVector()
        self._frames: deque[bytes] = deque()
        self._changed = trio.Event()

    @property
    def owed(self) -> list[bytes]:
        """The packets that this relay lacks."""
        return [packet for header, packet in self._packets if self._taken.lacks(header.stream, header.counter)]

    def send(self) -> None:
        self._frames.extend(encode_frame(PACKET, packet) for packet in self.owed)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Or until the link is over."""
        while not (condition() or self.over):
            await self._changed.wait()

    async def run(self, connection: Connection) -> None:
        closed = await connection.run()
        log.info("errand-over", reason=closed.reason.value, remote=closed.remote)
        self.over = True
        self.refused = closed.remote and closed.reason in _REFUSALS
        self._tell()

    def received(self, item: Frame | Control) -> None:
        """For `net.connection`."""
        match item:
            case Welcome():
                self._taken.merge(item.taken)
                self.office = ParticipantId(item.office)
            case Taken():
                self._taken.merge(item.taken)
            case Office():
                self.office = ParticipantId(item.participant)
            case _:
                pass
        self._tell()

    def pull(self, budget: int) -> bytes | None:
        """For `net.connection`."""
        return self._frames.popleft() if self._frames else None

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
