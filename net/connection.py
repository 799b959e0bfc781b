"""A connection: a stream and a `wire.link.Link` in one nursery. Reader, writer and keep-alive live and die together.

    stream ──receive_some──▶ reader ──▶ Link ──▶ Handler.received       decided synchronously, item by item
    stream ◀──send_all────── writer ◀── Link's own messages, then Handler.pull
                             keep-alive ──▶ Link.tick

Nothing here queues packets: the writer pulls the next bytes when the stream takes them, so a slow reader costs only what its own handler
keeps for it. Control messages go before packets; of them at most `MAX_OWED` bytes are kept, then the link closes as `slow-reader`.

However it ends, `run` returns one `LinkClosed` that says why and who said so. An end that this side decides says an `error` frame first, and
waits for it at most `CLOSE_WITHIN` seconds.
"""

from typing import Final, Protocol

import structlog
import trio

from net.tls import TlsRefused
from wire.control import Control, Error
from wire.errors import CloseReason, LinkClosed, WireError
from wire.frame import Frame
from wire.link import Link, LinkState, Side

READ: Final = 65_536
"""Bytes that the reader takes at a time."""
WRITE: Final = 16_384
"""Bytes that the writer writes at a time: one full TLS record. Four bytes more would cost a second record and a second system call."""
MAX_OWED: Final = 4 << 20
"""Bytes of control messages that wait for the stream."""
CLOSE_WITHIN: Final = 1.0
"""Seconds for the last words."""
PAUSED_EVERY: Final = 1.0
"""Seconds between the excuses of a paused reader; less than `wire.link.SILENT_AFTER`."""
STALLED: Final = 0.5
"""Seconds too late at which our own process has been asleep (frozen, or out of breath): what the other side said meanwhile waits to be
read, so that time does not count as its silence."""

log = structlog.get_logger()


class Handler(Protocol):
    """What a connection is for. Both methods are synchronous and never wait."""

    def received(self, item: Frame | Control) -> None:
        """A packet (as its frame) or a message. A `WireError` or `LinkClosed` that it raises ends the link by that name."""
        ...

    def pull(self, budget: int) -> bytes | None:
        """The next frame-aligned bytes to write, about `budget` at most; None: nothing now, `wake` will tell."""
        ...


class Connection:
    """One link over one stream. `run` owns the stream from its start and closes it."""

    def __init__(self, stream: trio.abc.Stream, side: Side, handler: Handler) -> None:
        self.link = Link(side, trio.current_time())
        self._stream = stream
        self._handler = handler
        self._something = trio.Event()  # replaced by the writer when it has nothing to write
        self._reading = trio.Event()
        self._reading.set()
        self._writing = False  # owned by the writer
        self._why: LinkClosed | None = None  # set once, by `_end`
        self._nursery: trio.Nursery | None = None
        self._reader_scope = trio.CancelScope()

    @property
    def rtt(self) -> float | None:
        """Seconds from the last ping to its answer; None before the first."""
        return self.link.rtt

    @property
    def closing(self) -> bool:
        """No more can be sent."""
        return self._why is not None

    def send(self, message: Control) -> None:
        """Queue a message; it goes before packets. After the end it is silently lost, as it would be on the way.

        Raises `LocalMisuse` if it is not legal now.
        """
        if self._why is not None:
            return
        self.link.send(message, trio.current_time())
        if self.link.owed > MAX_OWED:
            self.close(CloseReason.SLOW_READER, "too many messages wait for this reader")
        self._something.set()

    def wake(self) -> None:
        """`Handler.pull` may have something again."""
        self._something.set()

    def close(self, reason: CloseReason, detail: str = "") -> None:
        """Say the reason to the other side (in bounded time), then end. The first reason counts."""
        if self._why is None:
            self.link.refuse(reason, detail)
            self._end(LinkClosed(reason, remote=False, detail=detail), last_words=CLOSE_WITHIN)

    def pause_reading(self) -> None:
        """Back-pressure on this sender alone: what was read already is still delivered (at most `READ` bytes), then nothing."""
        if self._reading.is_set():
            self._reading = trio.Event()

    def resume_reading(self) -> None:
        self._reading.set()

    async def run(self) -> LinkClosed:
        """Serve the link until it ends, and return why. Never raises for what the network or the other side does."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._why is not None:  # closed before it ran: the last words are all there is to do
                    nursery.cancel_scope.deadline = trio.current_time() + CLOSE_WITHIN
                nursery.start_soon(self._write)
                nursery.start_soon(self._read)
                nursery.start_soon(self._keep_alive)
            if self._why is None:
                raise AssertionError("a link ends for a reason")
            if self._why.reason is not CloseReason.SILENT:  # nobody is there to wait for
                with trio.move_on_after(CLOSE_WITHIN):
                    await self._stream.aclose()
            return self._why
        finally:
            self._nursery = None
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)  # waits for nothing; no effect if it is closed

    def _end(self, why: LinkClosed, *, last_words: float = 0.0) -> None:
        """The one place where a link ends. Without last words at once, else when the writer has written them."""
        if self._why is not None:
            return
        self._why = why
        self._something.set()
        self._reader_scope.cancel()
        if self._nursery is not None:
            if last_words:
                self._nursery.cancel_scope.deadline = trio.current_time() + last_words
            else:
                self._nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        with self._reader_scope:
            while self._why is None:
                await self._reading.wait()
                try:
                    data = await self._stream.receive_some(READ)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    self._lost(error)
                    return
                if not data:
                    self._lost()
                    return
                if self._why is None:  # it may have ended while these bytes were on their way up
                    self._deliver(data)

    def _deliver(self, data: bytes | bytearray) -> None:
        try:
            for item in self.link.receive_untrusted(data, trio.current_time()):
                if isinstance(item, Error):
                    detail = "".join(c for c in item.detail if c.isprintable())
                    self._end(LinkClosed(item.close_reason, remote=True, detail=detail))
                    return
                self._handler.received(item)
                if self._why is not None:
                    return
        except WireError as error:
            self.close(error.reason, error.args[0] if error.args else "")
        except LinkClosed as closed:
            self.close(closed.reason, closed.args[0])
        except Exception:
            self._defect()
        self._something.set()  # a ping may have to be answered

    def _lost(self, error: BaseException | None = None) -> None:
        if isinstance(error, TlsRefused):
            self._end(LinkClosed(error.close_reason, remote=error.remote, detail=error.args[0]))
        else:
            self._end(LinkClosed(CloseReason.LOST, remote=False))

    async def _write(self) -> None:
        try:
            while True:
                data = self._next()
                if data:
                    self._writing = True
                    await self._stream.send_all(data)
                    self._writing = False
                    self.link.packet_sent(trio.current_time())
                elif self._why is not None:
                    self._cancel()  # the last words are written
                    return
                else:
                    await self._something.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # what the other side said last (a refusal, an error frame) may still wait to be read, and says more than "lost"
            if self._why is None and not isinstance(error, TlsRefused):
                await trio.sleep(CLOSE_WITHIN)
            self._lost(error)
            self._cancel()

    def _cancel(self) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def _next(self) -> bytes:
        """What to write now. Replaces the event *before* it looks, so that no wake-up is lost."""
        self._something = trio.Event()
        data = self.link.data_to_send()
        if self._why is not None or self.link.state is not LinkState.UP or len(data) >= WRITE:
            return data
        try:
            packets = self._handler.pull(WRITE - len(data))
        except LinkClosed as closed:
            self.close(closed.reason, closed.args[0])
            return data + self.link.data_to_send()
        except Exception:
            self._defect()
            return data + self.link.data_to_send()
        return data + packets if packets else data

    async def _keep_alive(self) -> None:
        due = trio.current_time()
        while self._why is None:
            now = trio.current_time()
            if not self._reading.is_set():
                self.link.excuse_silence(now)
            elif now - due > STALLED:
                self.link.slept(now - due, now)
            if self._writing:
                self.link.packet_sent(now)  # a write in progress needs no ping behind it
            try:
                self.link.tick(now)
            except LinkClosed as closed:
                self._end(closed)
                return
            if self.link.owed:
                self._something.set()
            due = min(self.link.deadline(), now + PAUSED_EVERY)
            await trio.sleep_until(due)

    def _defect(self) -> None:
        """A defect in our own handler ends its link alone, and the log says what it was."""
        log.exception("handler-failed")
        self.close(CloseReason.INTERNAL)
