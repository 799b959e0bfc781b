"""One link of a pump: reads, decides, writes, ends.

    readable ──SSL_read──▶ Link ──▶ PumpHandler.received / packets
    writable ──SSL_write── Link's own messages, then PumpHandler.pull
    Group.write ──SSL_write of the same records, link after link: what all level readers get

OpenSSL is called directly. Nothing here queues packets: a handler brings the next bytes when its link takes them, and only a link whose
socket is full has something of its own, the record that it could not write, and an EPOLLOUT. A write that would have blocked is repeated with
the same bytes, as OpenSSL demands. A turn reads at most `READ` bytes of a link, of one that is ahead of its pace nothing for a moment and then
little, and writes it at most `TURN`.

A link ends as one of `net.connection` does: once, for one named reason, with an error frame if this side decides, and then with a bounded
wait for the other side to close. For that it leaves the pump and is a task again. When it is served, `net.pump` says.
"""

import math
import select
from collections.abc import Callable
from socket import IPPROTO_TCP, TCP_CORK
from typing import Any, Final, Protocol

import structlog
import trio
from OpenSSL import SSL
from OpenSSL._util import ffi, lib  # what `OpenSSL.SSL` itself stands on; its methods cost a tenth to a half more than the call

from net.connection import CLOSE_WITHIN, MAX_OWED
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
BITE: Final = 4096
"""Bytes that are read at once of a link that is new, or was ahead of its pace: others wait for a fraction of a millisecond at most. Twice as
many the next time, up to `READ`, while it is not ahead."""
LEEWAY: Final = 0.008
"""Seconds by which a link may be ahead of its pace."""

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
_BLOCKED: Final = frozenset((lib.SSL_ERROR_WANT_WRITE, lib.SSL_ERROR_WANT_READ))

_BUFFER: Final = ffi.new("char[]", RECORD)  # of every read: a pump is one task

log = structlog.get_logger()


class Owner(Protocol):
    """What a link asks of its pump."""

    slept: bool

    def ready(self, one: "Pumped") -> None:
        """It has something to write."""
        ...

    def watch(self, one: "Pumped") -> None:
        """What it waits for has changed."""
        ...

    def rest(self, one: "Pumped") -> None:
        """It is ahead of its pace: what it says next is read when that is over."""
        ...

    def look_at(self, one: "Pumped") -> None:
        """OpenSSL may hold bytes of which its socket says nothing."""
        ...

    def ended(self, one: "Pumped") -> None:
        """It has a reason to end."""
        ...


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


OnEnd = Callable[["Pumped", LinkClosed], None]


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

    def __init__(self, pump: Owner, stream: TlsStream, side: Side, handler: PumpHandler, on_end: OnEnd) -> None:
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
            try:
                self._handler.gone()
            finally:
                self._on_end(self, self._why)  # who called waits for this, to call again
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
        return (0 if self.paused or self.resting else IN) | (OUT if self._owed else 0)


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
