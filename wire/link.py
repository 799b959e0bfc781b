"""A link's life, without a socket: frames in and out, a table of what is legal when, keep-alive with `now`.

    caller: OPENING ──Hello──▶ GREETING ──Welcome──▶ UP ──Error──▶ CLOSED
    callee:          Hello               Welcome

The caller speaks first. In GREETING the rest of a long have-vector passes (caller to callee). Anything that `LEGAL` does not list is
`message-unexpected`. A greeting is short, but for that of a link in reserve (`Hello.standby`): it lasts until the caller has said all of its
have-vector, and is not answered before. Keep-alive runs in every state: a ping when nothing was sent for a second, from the caller
every five seconds in any case, to know the round trip; and a link on which nothing arrived for three seconds is `silent`; any byte that
arrives counts, so a large frame on a slow line does not end it. Pings without end are a `flood`.

Use: feed what the socket brought into `receive_untrusted` and take all that it gives, hand messages to `send`, write what `data_to_send`
returns, call `tick` no later than `deadline`.
"""

import math
from collections.abc import Iterator
from enum import Enum
from typing import Final

from wire.control import (
    Control,
    Error,
    Have,
    Hello,
    NodeHello,
    NodeWelcome,
    Ping,
    Pong,
    Welcome,
    decode_control_untrusted,
    encode_control,
)
from wire.errors import CloseReason, Flood, LinkClosed, LocalMisuse, UnexpectedMessage
from wire.frame import HEADER, HEADER_SIZE, PACKET, Frame, FrameDecoder

PING_EVERY: Final = 1.0
"""Seconds without anything sent before a ping goes out."""
MEASURE_EVERY: Final = 5.0
"""Seconds without a ping after which the caller sends one, whatever else it sends: a busy link has a round-trip time, too."""
SILENT_AFTER: Final = 3.0
"""Seconds without an inbound byte before a link counts as dead."""
GREETING_WITHIN: Final = 10.0
"""Seconds from the first byte to `Welcome`."""
KEEP_ALIVES: Final = 100
"""Pings and pongs that come within a second, from which on they are a flood. One is due."""

_PINGS: Final = {HEADER_SIZE + size: HEADER.pack(size, Ping.TYPE, 0, 0) for size in range(2, 11)}
"""By the size of a whole ping: how it begins."""
_PONG: Final = bytes([Pong.TYPE])


class Side(Enum):
    CALLER = "caller"
    CALLEE = "callee"


class LinkState(Enum):
    OPENING = "opening"
    GREETING = "greeting"
    UP = "up"
    CLOSED = "closed"


class _Kind(Enum):
    HELLO = "hello"
    WELCOME = "welcome"
    HAVE = "have"
    KEEP_ALIVE = "keep-alive"
    ERROR = "error"
    OTHER = "other"  # packets and every other message


_KINDS: Final[dict[type[Control], _Kind]] = {
    Hello: _Kind.HELLO,
    NodeHello: _Kind.HELLO,
    Welcome: _Kind.WELCOME,
    NodeWelcome: _Kind.WELCOME,
    Have: _Kind.HAVE,
    Ping: _Kind.KEEP_ALIVE,
    Pong: _Kind.KEEP_ALIVE,
    Error: _Kind.ERROR,
}

_BY_CALLER: Final = {
    (LinkState.OPENING, _Kind.HELLO): LinkState.GREETING,
    (LinkState.GREETING, _Kind.HAVE): LinkState.GREETING,
}
_BY_CALLEE: Final = {(LinkState.GREETING, _Kind.WELCOME): LinkState.UP}
_BY_BOTH: Final = {
    (LinkState.OPENING, _Kind.KEEP_ALIVE): LinkState.OPENING,
    (LinkState.GREETING, _Kind.KEEP_ALIVE): LinkState.GREETING,
    (LinkState.UP, _Kind.KEEP_ALIVE): LinkState.UP,
    (LinkState.UP, _Kind.HAVE): LinkState.UP,
    (LinkState.UP, _Kind.OTHER): LinkState.UP,
    (LinkState.OPENING, _Kind.ERROR): LinkState.CLOSED,
    (LinkState.GREETING, _Kind.ERROR): LinkState.CLOSED,
    (LinkState.UP, _Kind.ERROR): LinkState.CLOSED,
}
LEGAL: Final = {Side.CALLER: _BY_BOTH | _BY_CALLER, Side.CALLEE: _BY_BOTH | _BY_CALLEE}
"""By the side that speaks: (state, kind) → state."""


class Link:
    """One side of one link. Not thread-safe; owned by its connection."""

    __slots__ = (
        *("_alive", "_alive_since", "_decoder", "_greet_by", "_heard", "_measure_at", "_out", "_pong", "_sent"),
        *("other", "owed", "rtt", "side", "state"),
    )

    def __init__(self, side: Side, now: float) -> None:
        self.side = side
        self.other = Side.CALLEE if side is Side.CALLER else Side.CALLER
        self.state = LinkState.OPENING
        self.rtt: float | None = None  # seconds, of the last ping
        self.owed = 0  # bytes queued and not yet taken by `data_to_send`; its bound is the owner's business
        self._decoder = FrameDecoder()
        self._out: list[bytes] = []
        self._pong: Pong | None = None  # the answer to the last ping alone: a flood of pings queues nothing
        self._heard = self._sent = now
        self._measure_at = now + PING_EVERY
        self._alive, self._alive_since = 0, now  # pings and pongs since then
        self._greet_by = now + GREETING_WITHIN  # endless: in reserve

    def send(self, message: Control, now: float) -> None:
        """Queue a message. Raises `LocalMisuse` if it is not legal now."""
        self._advance(self.side, _KINDS.get(type(message), _Kind.OTHER), LocalMisuse)
        self._note_reserve(message, now)
        self._queue(message)
        self._sent = now

    def packet_sent(self, now: float) -> None:
        """Something else was written to the stream at this time: no ping is due for a while."""
        self._sent = max(self._sent, now)

    @property
    def wants_to_send(self) -> bool:
        """Whether `data_to_send` has anything."""
        return self._pong is not None or bool(self._out)

    def data_to_send(self) -> bytes:
        """Everything queued, once. Control messages are few and small: whoever owns the link writes them before packets."""
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self._out.insert(0, encode_control(pong))
        data = b"".join(self._out)
        self._out.clear()
        self.owed = 0
        return data

    def receive_untrusted(self, data: bytes | bytearray, now: float) -> Iterator[Frame | Control]:
        """What the peer's bytes mean, item by item as it is asked for: packets as frames, messages typed. Pings are answered here and not
        returned. What stands before a violation is delivered, however the stream was cut.

        An `Error` is the last item there ever is: the peer has ended the link. The iterator raises a `WireError`: the peer broke the
        protocol; say so with `refuse` and close.
        """
        if self.state is LinkState.CLOSED:
            raise LocalMisuse("the link is closed")
        self._heard = now
        return self._items(data, now)

    def _items(self, data: bytes | bytearray, now: float) -> Iterator[Frame | Control]:
        for frame in self._decoder.feed_untrusted(data):
            if frame.type == PACKET:
                self._advance(self.other, _Kind.OTHER, UnexpectedMessage)
                yield frame
                continue
            message = self._message(frame, now)
            if message is not None:
                yield message
                if isinstance(message, Error):
                    return  # whatever follows means nothing

    def _message(self, frame: Frame, now: float) -> Control | None:
        """A message, if it is for the owner of the link."""
        message = decode_control_untrusted(frame)
        self._advance(self.other, _KINDS.get(type(message), _Kind.OTHER), UnexpectedMessage)
        self._note_reserve(message, now)
        if isinstance(message, Ping):
            self._pong = Pong(message.stamp)
        elif isinstance(message, Pong):
            self.rtt = max(0.0, now - message.stamp / 1e6)
        else:
            return message
        self._count_keep_alive(now)
        return None

    def _count_keep_alive(self, now: float) -> None:
        """Nobody but the link sees pings, so it judges how many there are. Raises `Flood`."""
        if now - self._alive_since >= PING_EVERY:
            self._alive, self._alive_since = 0, now
        self._alive += 1
        if self._alive > KEEP_ALIVES:
            raise Flood

    def receive_batches_untrusted(self, data: bytes, now: float) -> Iterator[list[Frame] | Control]:
        """The same as `receive_untrusted`, with packets that stand next to each other in one list: for who handles many."""
        if self.state is LinkState.CLOSED:
            raise LocalMisuse("the link is closed")
        self._heard = now
        return self._batches(data, now)

    def _batches(self, data: bytes, now: float) -> Iterator[list[Frame] | Control]:
        for run in self._decoder.runs_untrusted(data):
            if run[0].type == PACKET:
                if self.state is not LinkState.UP:  # where they are legal; to ask the table for every packet costs as much as to cut it
                    self._advance(self.other, _Kind.OTHER, UnexpectedMessage)
                yield run
            elif (message := self._message(run[0], now)) is not None:
                yield message
                if isinstance(message, Error):
                    return  # whatever follows means nothing

    def answer_untrusted(self, data: bytes, now: float) -> bytes | None:
        """What to write at once, if these bytes are one ping and nothing else waits: nearly all that an idle link brings, and by this way at a
        third of the price. None: they are for `receive_batches_untrusted`. Raises the same errors."""
        if data[:HEADER_SIZE] != _PINGS.get(len(data)) or self.state is not LinkState.UP or self._decoder.buffered or self.wants_to_send:
            return None
        decode_control_untrusted(Frame(Ping.TYPE, 0, data[HEADER_SIZE:]))
        self._heard = self._sent = now
        self._count_keep_alive(now)
        return data[:4] + _PONG + data[5:]

    def excuse_silence(self, now: float) -> None:
        """This side does not read just now (back-pressure), so it cannot judge whether the other one is silent."""
        self._heard = now

    def slept(self, seconds: float, now: float) -> None:
        """This side has done nothing for so long: what the other one said meanwhile waits to be read. That time does not count as its silence,
        the time before it does."""
        self._heard = min(now, self._heard + seconds)

    def tick(self, now: float) -> None:
        """Keep-alive. Raises `LinkClosed` (silent, hello-timeout)."""
        if now >= self._heard + SILENT_AFTER:
            self.state = LinkState.CLOSED
            raise LinkClosed(CloseReason.SILENT, remote=False)
        if self.state is not LinkState.UP and now >= self._greet_by:
            self.state = LinkState.CLOSED
            raise LinkClosed(CloseReason.HELLO_TIMEOUT, remote=False)
        if now >= self._ping_at() and self.state is not LinkState.CLOSED:
            self.send(Ping(int(now * 1e6)), now)
            self._measure_at = now + MEASURE_EVERY

    def _ping_at(self) -> float:
        due = self._sent + PING_EVERY
        return min(due, self._measure_at) if self.side is Side.CALLER and self.state is LinkState.UP else due

    def deadline(self) -> float:
        """When `tick` has something to do."""
        return min(self._heard + SILENT_AFTER, self._ping_at())

    def refuse(self, reason: CloseReason, detail: str = "") -> None:
        """Queue the error that ends this link; nothing else is legal afterwards."""
        if self.state is not LinkState.CLOSED:
            self._queue(Error(reason.value, detail[:512]))
            self.state = LinkState.CLOSED

    def _queue(self, message: Control) -> None:
        data = encode_control(message)
        self._out.append(data)
        self.owed += len(data)

    def _note_reserve(self, message: Control, now: float) -> None:
        """Whether the greeting has been put off, and when it goes on. Raises `UnexpectedMessage` if the callee does not wait for that."""
        if isinstance(message, Hello):
            if message.standby and message.more:
                self._greet_by = math.inf
        elif self.state is LinkState.GREETING and isinstance(message, Have) and not message.more and self._greet_by == math.inf:
            self._greet_by = now + GREETING_WITHIN
        elif isinstance(message, Welcome) and self._greet_by == math.inf:
            raise UnexpectedMessage("a welcome before the have-vector was said")

    def _advance(self, speaker: Side, kind: _Kind, illegal: type[UnexpectedMessage] | type[LocalMisuse]) -> None:
        after = LEGAL[speaker].get((self.state, kind))
        if after is None:
            raise illegal(f"{kind.value} while {self.state.value}")
        self.state = after
