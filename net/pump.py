"""The pump: one task that reads and writes every link of a server.

    accepted, TLS done ──adopt──▶ Pumped ──┐          a stream is in a task of its own only until its handshake is over,
                                           ▼          and again for its farewell
    epoll ──readable──▶ SSL_read ──▶ Link ──▶ PumpHandler.received / packets
          ──writable──▶ ┐
    wake, send ─────────┴─ SSL_write ◀── Link's own messages, then PumpHandler.pull
    Group.write ────────── SSL_write of the same records, link after link        what all level readers get

Waking a task costs more than writing a record, so links have no tasks: the pump has an epoll of its own, and sleeps until that is readable.
A turn takes what every readable link has (at most `READ` bytes each; of one that is ahead of its pace nothing for a moment, and then
little), lets the owner decide (`on_turn`), and writes what is ready, at most `TURN` bytes a link. OpenSSL is called directly. Nothing here
queues packets: a handler brings the next bytes when its link takes them, and only a link whose socket is full has something of its own, the
record that it could not write, and an EPOLLOUT. A write that would have blocked is repeated with the same bytes, as OpenSSL demands.

A link ends as one of `net.connection` does: once, for one named reason, with an error frame if this side decides, and then with a bounded
wait for the other side to close. For that it leaves the pump and is a task again.
"""

import math
import os
import select
from collections.abc import Callable
from socket import IPPROTO_TCP, TCP_CORK
from typing import Any, Final, Protocol

import structlog
import trio
from OpenSSL import SSL
from OpenSSL._util import ffi, lib  # what `OpenSSL.SSL` itself stands on; its methods cost a tenth to a half more than the call

from net.connection import CLOSE_WITHIN, MAX_OWED, STALLED
from net.stream import READ, RECORD, TlsStream
from net.tls import TlsRefused
from wire.control import Control, Error
from wire.errors import CloseReason, LinkClosed, WireError
from wire.frame import Frame
from wire.link import Link, LinkState, Side

WRITE: Final = RECORD
"""Bytes of one write: one full TLS record. Four bytes more would cost a second record and a second system call."""
TURN: Final = 8 * WRITE
"""Bytes that one link is written in one turn; then others have theirs."""
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
BITE: Final = 4096
"""Bytes that are read at once of a link that is new, or was ahead of its pace: others wait for a fraction of a millisecond at most. Twice as
many the next time, up to `READ`, while it is not ahead."""
LEEWAY: Final = 0.008
"""Seconds by which a link may be ahead of its pace."""

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_BLOCKED: Final = frozenset((lib.SSL_ERROR_WANT_WRITE, lib.SSL_ERROR_WANT_READ))

_BUFFER: Final = ffi.new("char[]", RECORD)  # of every read: the pump is one task

log = structlog.get_logger()


class PumpHandler(Protocol):
    """What a pumped link is for. Every method is synchronous and never waits. A `WireError` or `LinkClosed` that `received`, `packets` or
    `pull` raises ends the link by that name."""

    def received(self, item: Control) -> None:
        """A message."""
        ...

    def packets(self, frames: list[Frame]) -> None:
        """Packets that came together, in order."""
        ...

    def pull(self, budget: int) -> bytes | None:
        """The next frame-aligned bytes to write, `budget` at most; None: nothing now, `wake` will tell. With a budget of a whole record,
        one frame at least, if there is any."""
        ...

    def behind(self, missed: int) -> None:
        """The link has left its group, because its socket is full. What it was given will be written; the last `missed` records of that
        write, and all that follow, it must pull."""
        ...

    def gone(self) -> None:
        """The link has ended. Called once."""
        ...


class Pumped:
    """One link that the pump owns. Made by `Pump.adopt`."""

    __slots__ = (
        "_bite",
        "_handler",
        "_on_end",
        "_owed",
        "_pump",
        "_readable",
        "_ssl",
        "_stream",
        "_why",
        "descriptor",
        "due",
        "group",
        "link",
        "mute_since",
        "pace",
        "paid_until",
        "paused",
        "remote_address",
        "resting",
    )

    def __init__(self, pump: "Pump", stream: TlsStream, side: Side, handler: PumpHandler, on_end: "OnEnd") -> None:
        self.link = Link(side, trio.current_time())
        self.remote_address = stream.remote_address
        self.descriptor: int = stream.socket.fileno()
        self.group: Group | None = None  # owned by the group
        self.due = 0.0  # when its clock has something to do, or earlier; owned by the pump, as the rest
        self.paused = False
        self.pace = math.inf  # frames and messages a second that are read at most; owned by the handler
        self.paid_until = 0.0  # when all that was read would have come at this pace
        self.resting = False  # ahead of its pace: not read for a moment
        self.mute_since: float | None = None  # when writing failed: what the other side said last may still wait to be read
        self._pump = pump
        self._stream = stream
        self._ssl: Any = stream.tls._ssl
        self._handler = handler
        self._on_end = on_end
        self._owed = b""  # what OpenSSL could not write, to be repeated
        self._bite = BITE  # bytes that are read in one turn
        self._why: LinkClosed | None = None

    # --- for its handler ---

    @property
    def rtt(self) -> float | None:
        """Seconds from the last ping to its answer; None before the first."""
        return self.link.rtt

    @property
    def closing(self) -> bool:
        """No more can be sent."""
        return self._why is not None

    @property
    def blocked(self) -> bool:
        """Its socket is full."""
        return bool(self._owed)

    def send(self, message: Control) -> None:
        """Queue a message; it goes before packets. After the end it is silently lost. Raises `LocalMisuse` if it is not legal now."""
        if self._why is not None:
            return
        self.link.send(message, trio.current_time())
        if self.link.owed > MAX_OWED:
            self.close(CloseReason.SLOW_READER, "too many messages wait for this reader")
        self.wake()

    def wake(self) -> None:
        """`pull` may have something again."""
        self._pump.ready(self)

    def close(self, reason: CloseReason, detail: str = "") -> None:
        """Say the reason to the other side (in bounded time), then end. The first reason counts."""
        if self._why is None:
            self.link.refuse(reason, detail)
            self.end(LinkClosed(reason, remote=False, detail=detail))

    def pause_reading(self) -> None:
        """Back-pressure on this sender alone: what was read already is still delivered, then nothing."""
        if not self.paused:
            self.paused = True
            self._pump.watch(self)

    def resume_reading(self) -> None:
        if self.paused:
            self.paused = False
            self._pump.watch(self)
            self._pump.look_at(self)

    # --- for the pump ---

    def end(self, why: LinkClosed) -> None:
        if self._why is None:
            self._why = why
            self._pump.ended(self)

    def read(self, now: float) -> bool:
        """Take what is there. True if there may be more."""
        parts: list[bytes] = []
        size, ended = 0, False
        limit = self._bite
        at_once = min(limit, RECORD)
        while size < limit:
            got = lib.SSL_read(self._ssl, _BUFFER, at_once)
            if got <= 0:
                ended = self._read_failed(got, after=bool(parts))
                break
            parts.append(ffi.buffer(_BUFFER, got)[:])
            size += got
            if got < at_once and self._pump.slept:
                break  # mostly that is all; whatever else is there, epoll says in the next turn
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            tap = self._stream.tap
            if tap is not None:
                tap(data)
            level = self.paid_until <= now
            items = self._deliver(data, now)
            self.paid_until = max(self.paid_until, now) + items / self.pace
            if self.paid_until > now + LEEWAY and self._why is None:
                self._bite = BITE
                self._pump.rest(self)
            elif size >= limit and level:
                self._bite = min(READ, 2 * limit)
        if ended:
            self.end(LinkClosed(CloseReason.LOST, remote=False))
        return size >= limit and self._why is None and not (self.paused or self.resting)

    def _read_failed(self, got: int, *, after: bool) -> bool:
        """Why nothing came: True if nothing more will. A refusal by name ends the link here."""
        code = lib.SSL_get_error(self._ssl, got)
        if code in _BLOCKED:
            return False
        if code == lib.SSL_ERROR_ZERO_RETURN:
            return True
        error = self._error(got)
        if isinstance(error, TlsRefused) and not after:
            self.end(LinkClosed(error.close_reason, remote=error.remote, detail=error.args[0]))
        return True

    def _error(self, result: int) -> BaseException:
        """OpenSSL's last error by name."""
        try:
            self._stream.tls._raise_ssl_error(self._ssl, result)
        except SSL.Error as error:
            return self._stream.failed(error)
        return trio.BrokenResourceError()

    def _deliver(self, data: bytes, now: float) -> int:
        """How many packets and messages these were."""
        handler, items = self._handler, 0
        try:
            if not self._owed and self.mute_since is None and (answer := self.link.answer_untrusted(data, now)) is not None:
                if (done := lib.SSL_write(self._ssl, ffi.from_buffer(answer), len(answer))) != len(answer):
                    self._stuck(done, answer, now)
                return 1
            for item in self.link.receive_batches_untrusted(data, now):
                items += 1
                if isinstance(item, list):
                    items += len(item) - 1
                    handler.packets(item)
                elif isinstance(item, Error):
                    detail = "".join(c for c in item.detail if c.isprintable())
                    self.end(LinkClosed(item.close_reason, remote=True, detail=detail))
                else:
                    handler.received(item)
                if self._why is not None:
                    return items
        except WireError as error:
            self.close(error.reason, error.args[0] if error.args else "")
        except LinkClosed as closed:
            self.close(closed.reason, closed.args[0])
        except Exception:
            self._defect()
        if self.link.wants_to_send:
            self.wake()
        return items

    def write(self, now: float) -> bool:
        """Write what there is. True if there is more that the socket would take."""
        size = 0
        while self.mute_since is None:
            if self._owed:
                data = self._owed
            else:
                data = self._next()
                if not data:
                    return False
            done = lib.SSL_write(self._ssl, ffi.from_buffer(data), len(data))
            if done != len(data):
                self._stuck(done, data, now)
                return False
            if self._owed:
                self._owed = b""
                self._pump.watch(self)
            self.link.packet_sent(now)
            size += done
            if size >= TURN:
                return True
        return False

    def _next(self) -> bytes:
        data = self.link.data_to_send()
        if self._why is not None or self.link.state is not LinkState.UP or len(data) >= WRITE:
            return data
        try:
            packets = self._handler.pull(WRITE - len(data))
        except LinkClosed as closed:
            self.close(closed.reason, closed.args[0])
            return b""  # the farewell writes it
        except Exception:
            self._defect()
            return b""
        return data + packets if packets else data

    def _stuck(self, done: int, data: bytes, now: float, missed: int = 0) -> None:
        """A write that did not take everything: the socket is full, or broken. `missed`: how many more of the group's records there were."""
        if done > 0:  # OpenSSL writes in parts of a record
            self._owed = data[done:]
        else:
            code = lib.SSL_get_error(self._ssl, done)
            if code not in _BLOCKED:
                self._error(done)
                self.mute_since = now
                self._owed = b""
                if self.group is not None:
                    self.group.discard(self)
                self._pump.watch(self)
                return
            self._owed = data
        self._pump.watch(self)
        if self.group is not None:
            self.group.discard(self)
            self._handler.behind(missed)

    def tick(self, now: float, slept: float) -> None:
        """Its clock: keep-alive. `slept`: seconds for which the pump did nothing."""
        link = self.link
        if self.paused:
            link.excuse_silence(now)
        elif slept:
            link.slept(slept, now)
        if self.group is not None:
            link.packet_sent(self.group.written_at)
        elif self._owed:
            link.packet_sent(now)  # a write in progress needs no ping behind it
        if self.mute_since is not None:
            if now - self.mute_since >= CLOSE_WITHIN:
                self.end(LinkClosed(CloseReason.LOST, remote=False))
            return
        try:
            link.tick(now)
        except LinkClosed as closed:
            self.end(closed)
            return
        if link.wants_to_send:
            self.wake()
        self.due = link.deadline()

    def _defect(self) -> None:
        """A defect in our own handler ends its link alone, and the log says what it was."""
        log.exception("handler-failed")
        self.close(CloseReason.INTERNAL)

    def leave(self) -> None:
        """It is over: the handler learns it."""
        if self.group is not None:
            self.group.discard(self)
        assert self._why is not None
        try:
            self._handler.gone()
            self._on_end(self, self._why)
        except Exception:
            log.exception("handler-failed")

    async def farewell(self) -> None:
        """The last words, in bounded time."""
        stream, why = self._stream, self._why
        assert why is not None
        try:
            words = b"" if why.remote or self.mute_since is not None else self._owed + self.link.data_to_send()
            if words:
                with trio.move_on_after(CLOSE_WITHIN):
                    await stream.send_all(words)
            if why.reason is CloseReason.FLOOD and not why.remote:  # closing reads what still comes; of this one nothing more is read
                await trio.sleep(CLOSE_WITHIN)
            elif why.reason is not CloseReason.SILENT:  # nobody is there to wait for
                with trio.move_on_after(CLOSE_WITHIN):
                    await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            stream.close_now()

    def close_now(self) -> None:
        """Without a word."""
        self._stream.close_now()

    def interest(self) -> int:
        """What to wait for."""
        return (0 if self.paused or self.resting else _IN) | (_OUT if self._owed else 0)


class Group:
    """Links that stand at the same place of the same bytes. What is written here goes to each of them at once; one whose socket is full
    leaves, and is told so (`PumpHandler.behind`).

    Several records go to one link before the next has its turn, and the kernel holds them together until the last (TCP_CORK): the way
    through its network layers is a fifth of a record's price, and is then gone once.
    """

    __slots__ = ("_members", "written_at")

    def __init__(self) -> None:
        self._members: dict[Pumped, tuple[Any, Callable[[int, int, int], None]]] = {}
        self.written_at = 0.0

    def __len__(self) -> int:
        return len(self._members)

    def add(self, one: Pumped) -> None:
        """A link whose socket takes more."""
        one.group = self
        self._members[one] = one._ssl, one._stream.socket.setsockopt

    def discard(self, one: Pumped) -> None:
        """Its last write in here is remembered: it may be long ago for the link itself."""
        if self._members.pop(one, None) is not None:
            one.group = None
            one.link.packet_sent(self.written_at)

    def write(self, records: list[bytes], now: float) -> None:
        """The same frame-aligned bytes to every member: records of at most `WRITE` bytes."""
        write = lib.SSL_write
        self.written_at = now
        if len(records) == 1:
            data = records[0]
            buffer, size = ffi.from_buffer(data), len(data)
            for one, (ssl, _) in list(self._members.items()):
                if (done := write(ssl, buffer, size)) != size:
                    one._stuck(done, data, now)
            return
        buffers = [
            (data, ffi.from_buffer(data), len(data), missed) for missed, data in zip(range(len(records) - 1, -1, -1), records, strict=True)
        ]
        for one, (ssl, set_option) in list(self._members.items()):
            set_option(IPPROTO_TCP, TCP_CORK, 1)
            for data, buffer, size, missed in buffers:
                if (done := write(ssl, buffer, size)) != size:
                    one._stuck(done, data, now, missed)
                    break
            set_option(IPPROTO_TCP, TCP_CORK, 0)


OnEnd = Callable[[Pumped, LinkClosed], None]


class Pump:
    """All links of one server. `run` serves them until it is cancelled, or `stop`ped and the last one is gone."""

    def __init__(self, on_turn: Callable[[float], float | None] = lambda now: None) -> None:
        """`on_turn(now)` is called in every turn, after what was readable has been read: the owner writes what has gathered. It returns the
        time at which it wants to be called again at the latest, if there is one."""
        self.links: dict[int, Pumped] = {}  # by descriptor
        self._on_turn = on_turn
        self._epoll = select.epoll()
        self._kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._kick, _IN)
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
            if what & _OUT:
                self._ready[one] = None
            if what & ~_OUT and not one.closing:
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
