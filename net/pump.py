"""The pump: one task that serves every link of a server. It decides which link is served when; how, `net.pumped`.

    accepted, TLS done ──adopt──▶ Pumped ──┐          a stream is in a task of its own only until its handshake is over,
                                           ▼          and again for its farewell
    epoll ──readable──▶ Pumped.read    ▸ on_turn ▸    Pumped.write ◀──writable, wake, send

Waking a task costs more than writing a record, so links have no tasks: the pump has an epoll of its own, and sleeps until that is readable.
A turn takes what every readable link has, lets the owner decide (`on_turn`), and writes what is ready; of each link a bounded piece, then
others have theirs. Links that are ahead of their pace rest until it has caught up. While links are busy the pump waits for them by itself, not
through trio's scheduler, and lets other tasks run every `OTHERS` seconds.
"""

import math
import os
import select
from collections.abc import Callable
from typing import Final

import trio

from net.connection import CLOSE_WITHIN, STALLED
from net.pumped import IN, OUT, OnEnd, Pumped, PumpHandler
from net.stream import TlsStream
from wire.errors import CloseReason, LinkClosed
from wire.link import Side

TICK: Final = 0.1
"""Seconds between two looks at the links' clocks."""
EVENTS: Final = 1024
"""Links that are looked at in one turn."""
LINGER: Final = 0.002
"""Seconds that the pump waits for the next event by itself: while links are busy, it comes within that, and the way through trio's scheduler
is a tenth of what a packet to a hundred links costs. Nothing else in the program runs meanwhile."""
LINGER_AGAIN: Final = 10 * LINGER
"""Seconds after a wait in vain until the next such wait: so what it may cost others is bounded."""
IDLE: Final = 0.0001
"""Seconds from which on a wait was one."""
OTHERS: Final = 0.01
"""Seconds after which the program's other tasks have a turn, however busy the links are."""


class Pump:
    """All links of one server. `run` serves them until it is cancelled, or `stop`ped and the last one is gone."""

    def __init__(self, on_turn: Callable[[float], float | None] = lambda now: None) -> None:
        """`on_turn(now)` is called in every turn, after what was readable has been read: the owner writes what has gathered. It returns the
        time at which it wants to be called again at the latest, if there is one."""
        self.links: dict[int, Pumped] = {}  # by descriptor
        self._on_turn = on_turn
        self._epoll = select.epoll()
        self._kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._kick, IN)
        self._ready: dict[Pumped, None] = {}
        self._more: dict[Pumped, None] = {}  # what they had was more than one turn takes
        self._resting: dict[Pumped, None] = {}
        self._ended: list[Pumped] = []
        self._awake = False  # in a turn, or certain to have one
        self.slept = False  # there was nothing to do before this turn
        self._waited_from = 0.0
        self._others_at = 0.0  # when the program's other tasks are due
        self._linger_at = 0.0  # when it may be worth to wait without them again
        self._stopping = False
        self._over = trio.Event()

    def adopt(self, stream: TlsStream, side: Side, handler: PumpHandler, on_end: OnEnd = lambda one, why: None) -> Pumped:
        """The link over this stream, which belongs to the pump from now on. Nothing is delivered before the next turn. `on_end` is called
        once, after the handler is gone."""
        one = Pumped(self, stream.detach(), side, handler, on_end)
        self.links[one.descriptor] = one
        self._epoll.register(one.descriptor, one.interest())
        self.look_at(one)  # what came with the end of the handshake is in OpenSSL's hands already
        return one

    def wake(self) -> None:
        """There will be a turn."""
        if not self._awake:
            self._awake = True
            os.eventfd_write(self._kick, 1)

    def stop(self, reason: CloseReason) -> None:
        """Close every link for this reason, and end with the last one."""
        self._stopping = True
        for one in list(self.links.values()):
            one.close(reason)
        self.wake()

    async def run(self) -> None:
        """Serve. What the network or another side does ends links, never the pump."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tick)
                again: float | None = None
                while not self._stopping or self.links:
                    events = await self._wait(again)
                    again = self._turn(events, nursery)
                nursery.cancel_scope.deadline = trio.current_time() + 2 * CLOSE_WITHIN  # farewells are shorter than that
                self._over.set()
        finally:
            self._awake = True  # nobody can wake it any more
            for one in list(self.links.values()):
                one.end(LinkClosed(CloseReason.SHUTDOWN, remote=False))
                one.leave()
                one.close_now()
            self.links.clear()
            trio.lowlevel.notify_closing(self._epoll.fileno())
            self._epoll.close()
            os.close(self._kick)

    async def _wait(self, again: float | None) -> list[tuple[int, int]]:
        """Until a link has something, the owner wants a turn (`again`), or somebody has called `wake`. What the links have."""
        self._waited_from = now = trio.current_time()
        if now >= self._others_at:
            await trio.lowlevel.checkpoint()
            self._others_at = trio.current_time() + OTHERS
            return self._epoll.poll(0, EVENTS)
        if self._ready or self._more or self._ended:
            return self._epoll.poll(0, EVENTS)
        if now >= self._linger_at:
            within = LINGER if again is None else max(0.0, min(LINGER, again - now))
            events = self._epoll.poll(within, EVENTS)
            if events or within < LINGER:
                return events
            self._linger_at = now + LINGER_AGAIN
        self._awake = False
        with trio.move_on_at(math.inf if again is None else again):
            await trio.lowlevel.wait_readable(self._epoll.fileno())
        self._awake = True
        self._others_at = trio.current_time() + OTHERS
        return self._epoll.poll(0, EVENTS)

    def _turn(self, events: list[tuple[int, int]], nursery: trio.Nursery) -> float | None:
        now = trio.current_time()
        self.slept = now - self._waited_from > IDLE
        links = self.links
        more, self._more = self._more, {}
        for descriptor, what in events:
            one = links.get(descriptor)
            if one is None:
                if descriptor == self._kick:
                    os.eventfd_read(self._kick)
                continue
            if what & OUT:
                self._ready[one] = None
            if what & ~OUT and not one.closing:
                more[one] = None
        for one in [one for one in self._resting if one.paid_until <= now]:
            self._rested(one)
            more[one] = None  # the rest of a record is in OpenSSL's hands, and the socket says nothing of it
        for one in more:
            if not (one.closing or one.paused or one.resting) and one.read(now):
                self._more[one] = None
        again = self._on_turn(now)
        ready, self._ready = self._ready, {}
        for one in ready:
            if not one.closing and one.write(now):
                self._ready[one] = None
        ended, self._ended = self._ended, []
        for one in ended:
            if links.pop(one.descriptor, None) is not None:
                self._epoll.unregister(one.descriptor)
                self._more.pop(one, None)
                self._ready.pop(one, None)
                self._resting.pop(one, None)
                one.leave()
                nursery.start_soon(one.farewell)
        for one in self._resting:
            again = one.paid_until if again is None else min(again, one.paid_until)
        return again

    async def _tick(self) -> None:
        """Every link's clock. If it comes late, our own process has slept: what others said meanwhile waits to be read."""
        due = trio.current_time()
        while not self._over.is_set():
            now = trio.current_time()
            slept = now - due if now - due > STALLED else 0.0
            for one in list(self.links.values()):
                if (one.due <= now or slept) and not one.closing:
                    one.tick(now, slept)
            due = now + TICK
            with trio.move_on_at(due):
                await self._over.wait()

    # --- for its links ---

    def ready(self, one: Pumped) -> None:
        """It has something to write."""
        if not one.blocked:
            self._ready[one] = None
            self.wake()

    def watch(self, one: Pumped) -> None:
        """What it waits for has changed."""
        if one.descriptor in self.links and not one.closing:
            self._epoll.modify(one.descriptor, one.interest())

    def rest(self, one: Pumped) -> None:
        """It is ahead of its pace: what it says next is read when that is over."""
        self._resting[one] = None
        one.resting = True
        self.watch(one)

    def _rested(self, one: Pumped) -> None:
        del self._resting[one]
        one.resting = False
        self.watch(one)

    def look_at(self, one: Pumped) -> None:
        """OpenSSL may hold bytes of which its socket says nothing."""
        self._more[one] = None
        self.wake()

    def ended(self, one: Pumped) -> None:
        self._ended.append(one)
        self.wake()
