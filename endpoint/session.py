"""A running session: what a program holds in its hand. Joins a member's state machine to relays, threads and time.

    async with Session.open(member, ticket, tls) as session:
        await session.until_joined()
        await session.chat("hello")
        async for event in session.events(): …

Its nursery owns four tasks: the link (dials the ticket's relays, stays with the one that answers, moves on when it is lost), the one in
reserve (`endpoint.reserve`), the clock (`tick`), and one for each costly step, in a worker thread. Everything else is synchronous: whatever
arrives runs through the member and out again before anything else happens.

The session opens no listening port; it only dials.
"""

import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
import trio
from OpenSSL import SSL

from crypto.srp import make_verifier
from endpoint.chair import Chair
from endpoint.errors import Congested, EndpointError, JoinTimeout, NoRelay, NotAllowed, SessionOver
from endpoint.events import Dropped, Event, InputReceived, LinkChanged, PointerMoved, Removed, ScreenGap, ScreenMessage, SnapshotWanted
from endpoint.guest import Guest
from endpoint.hands import Input, Pointer
from endpoint.job import Job
from endpoint.member import Member
from endpoint.messages import Request, ScreenKind, Verb
from endpoint.outbox import Outbox
from endpoint.reserve import RESERVE_EVERY, Reserve
from endpoint.state import State
from endpoint.ticket import RelayAddress, Ticket
from net.connection import Connection
from net.dial import Unreachable, dial
from net.path import nearest_first
from net.tls import TlsRefused
from wire.control import VERSION, Control, End, Have, Hello, Position, Taken, Want, Welcome
from wire.errors import SENTENCES, CloseReason, LinkClosed, UnexpectedMessage
from wire.frame import Frame
from wire.ids import EVERYONE, Channel, ParticipantId, Role
from wire.link import Side
from wire.packet import Flag

log = structlog.get_logger()

MAX_EVENTS: Final = 4096
"""Events that wait for a program that does not read them; more are counted in `missed`."""
MAX_DROPPED: Final = MAX_EVENTS // 4
"""Events that may wait before another `Dropped` is counted and not told."""
TICK: Final = 1.0
"""Seconds between two looks at the clock. What is due sooner, a batch of newcomers, says so; the chair looks more often."""
CHAIR_TICK: Final = 0.25
FIRST_RETRY: Final = 0.1
LONGEST_RETRY: Final = 2.0
STEADY: Final = 5.0
"""Seconds after which a link was a good one: when it is lost, the next one is tried in haste."""
UNSENT: Final = 16_384
"""Bytes that wait for the line below us: what is more urgent goes before all others, and a screen that is behind knows it."""
DIAL_WITHIN: Final = 4.0
"""Seconds for one relay to answer before the next one is tried."""
GOODBYE_WITHIN: Final = 3.0
"""Seconds for what is still owed when leaving or ending."""
REFUSALS: Final = 5
"""Times in a row that all relays may refuse a newcomer's ticket before it counts as dead: a relay that has just started may not know it yet."""
REFUSED_FOR: Final = 120.0
"""Seconds that they may refuse a member's: a relay that was started anew while no manager runs. Afterwards the organizer has written it off."""
THREADS: Final = 4
"""For the costly steps of all sessions of a process: they free the interpreter, and more threads than cores help nobody."""
_threads: Final = trio.lowlevel.RunVar[trio.CapacityLimiter]("session_threads")
DIALS: Final = 64
"""Links that a process dials at once: of a thousand handshakes that all begin in the same moment, all would end too late."""
_dials: Final = trio.lowlevel.RunVar[trio.CapacityLimiter]("session_dials")
_FINAL: Final = frozenset((CloseReason.REVOKED, CloseReason.ENDED, CloseReason.VERSION_UNSUPPORTED))


class Session:
    """One member's session. Made by `open`; its methods are called from the same trio run."""

    def __init__(self, member: Member, ticket: Ticket, tls: SSL.Context) -> None:
        self.member = member
        self.ticket = ticket
        self.missed = 0  # events that nobody read in time
        self.admission_cpu = 0.0  # seconds of CPU from guests' first messages to their admission
        self.bytes_sent = 0
        self.bytes_received = 0
        self._tls = tls
        self._outbox = Outbox()
        self._connection: Connection | None = None
        self._reserve: Reserve[RelayAddress] | None = None
        self._relays: list[RelayAddress] = []  # the ticket's, near ones first
        self._node = ""
        self._up = False
        self._sink, self._source = trio.open_memory_channel[Event](MAX_EVENTS)
        self._listeners: list[Callable[[Event], None]] = []
        self._changed = trio.Event()  # set, and replaced, whenever anything has happened
        self._nursery: trio.Nursery | None = None
        self._tasks = trio.CancelScope(shield=True)
        self._closing = False
        self._leaving = False  # our own wish: that the relay then closes the link is no news

    @classmethod
    @asynccontextmanager
    async def open(cls, member: Member, ticket: Ticket, tls: SSL.Context) -> AsyncIterator["Session"]:
        """Run the session while the block runs. Leaving the block leaves the session: a guest says goodbye, an organizer ends it.

        A cancelled block leaves in order too, within `GOODBYE_WITHIN`: the tasks that carry the goodbye are not cancelled with it.
        """
        session = cls(member, ticket, tls)
        async with trio.open_nursery() as around:
            around.start_soon(session._run)  # not `start`: cancelled there, it would wait for tasks that nobody cancels
            try:
                yield session
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + GOODBYE_WITHIN):
                    if member.organizes:
                        await session.end()
                    else:
                        await session.leave()
                session._tasks.cancel()

    async def _run(self) -> None:
        """The session's own tasks, out of reach of a cancelled block."""
        with self._tasks:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._keep_linked)
                nursery.start_soon(self._keep_reserve)
                nursery.start_soon(self._keep_time)
                self._settle()

    # what a program asks and says

    @property
    def state(self) -> State:
        """Who is here, who organizes, who presents: this member's copy of the truth."""
        return self.member.state

    @property
    def me(self) -> ParticipantId:
        return self.member.me

    @property
    def node(self) -> str:
        """The relay of our link; "" while there is none."""
        return self._node if self._up else ""

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip to our relay; None while there is no link."""
        return self._connection.rtt if self._connection is not None and self._up else None

    @property
    def over(self) -> bool:
        """Nothing more will happen: ended, left, dismissed or refused for good."""
        return self._closing or self.state.ended or (isinstance(self.member, Guest) and self.member.failure is not None)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call this for every event, at once and synchronously. For features; a program reads `events`."""
        self._listeners.append(listener)

    def events(self) -> AsyncIterator[Event]:
        """What happens, in order (screen messages excepted: those go to listeners alone). May be left and taken up again."""
        return self._source

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; it is asked again whenever something has happened."""
        while not condition():
            await self._changed.wait()

    async def until_joined(self) -> None:
        """Wait until this side is in. Raises the `JoinError` that says why it is not, `SessionOver`, `NoRelay`."""
        await self.until(lambda: self.member.joined or self.over)
        if isinstance(self.member, Guest) and self.member.failure is not None:
            raise self.member.failure
        if not self.member.joined:
            raise SessionOver

    async def chat(self, text: str) -> None:
        """A line to all. Waits while the network takes less than is said. Raises TooLong, NotAllowed, SessionOver."""
        while True:
            await self.until(lambda: not self._outbox.congested or self.over)
            if self.over:
                raise SessionOver
            try:
                self.member.chat(text)
            except Congested:
                await self._changed.wait()
                continue
            break
        self._settle()
        await trio.lowlevel.checkpoint()

    async def leave(self) -> None:
        """Say goodbye, after everything said before has been taken; bounded in time."""
        if self.member.joined and not self.member.organizes and not self.over:
            self._leaving = True
            with trio.move_on_after(GOODBYE_WITHIN / 2):
                await self.until(lambda: not self._outbox.kept_bytes or self.over)
            with trio.move_on_after(GOODBYE_WITHIN / 2):
                if not self.over:
                    self.member.leave(trio.current_time())
                    self._settle()
                    await self.until(lambda: (self._up and not self._outbox.kept_bytes) or self.over)
        self._close(CloseReason.LEFT)

    async def end(self) -> None:
        """The organizer ends the session: the signed last entry, then the relays are told. Raises NotAllowed for others."""
        if not self._closing and not self.state.ended:
            self.member.chair.end(trio.current_time())
            self._settle()
            with trio.move_on_after(GOODBYE_WITHIN / 2):
                await self.until(lambda: (self._up and not self._outbox.kept_bytes) or self._closing)
            if self._connection is not None and self._up:
                self._connection.send(End())
                with trio.move_on_after(GOODBYE_WITHIN / 3):
                    await self.until(lambda: not self._up)
        self._close(CloseReason.ENDED)

    def act(self, deed: Callable[[Chair, float], None]) -> None:
        """An act of the organizer, `session.act(lambda chair, now: chair.appoint(ana, now))`. Raises NotAllowed, IllegalEntry."""
        deed(self.member.chair, trio.current_time())
        self._settle()

    async def change_password(self, password: str) -> None:
        """The organizer's: newcomers need this one from now on, and knocking ends. Raises NotAllowed."""
        if not self.member.organizes:
            raise NotAllowed("Only the organizer may do that.")
        verifier = await trio.to_thread.run_sync(make_verifier, self.ticket.session, self.ticket.secret, password)
        self.member.chair.change_password(verifier, trio.current_time())  # who held the chair before the thread may not hold it now
        self._settle()

    # what every member may ask

    async def whisper(self, recipient: ParticipantId, text: str) -> None:
        """A line to one member; `WhisperRead` confirms it. Raises TooLong, NotAllowed, Congested, SessionOver."""
        await self.until(lambda: not self._outbox.congested or self.over)
        self.member.whisper(recipient, text)
        self._settle()

    def ask(self, verb: Verb, participant: ParticipantId = EVERYONE, text: str = "") -> None:
        """A request to the organizer: to present, for control, a raised hand, another name. Raises Congested, SessionOver."""
        if self.member.organizes:
            raise NotAllowed("You are the organizer: you need not ask.")
        self.member.request(Request(verb, participant, text), trio.current_time())
        self._settle()

    def accept_chair(self) -> None:
        """Become the organizer, as was offered. Raises NotAllowed."""
        self.member.heir.accept(trio.current_time())
        self._settle()

    def decline_chair(self) -> None:
        """Raises NotAllowed."""
        self.member.heir.decline(trio.current_time())
        self._settle()

    def take_over(self) -> None:
        """A successor's: organize, since nothing was heard of the organizer for 60 s. `OrganizerChanged` says when. Raises NotAllowed."""
        self.member.heir.take_over(trio.current_time())
        self._settle()

    # the screen's side

    @property
    def may_show(self) -> bool:
        """Whether a screen message would be taken now: we present, and there is a link."""
        return self.state.presenter == self.me and self._up and self.member.may_seal

    @property
    def screen_backlog(self) -> int:
        """Bytes of screen that the network has not taken yet."""
        return self._outbox.screen_backlog

    @property
    def screen_counter(self) -> int:
        """The last channel-5 counter that we have sealed."""
        return self.member.channels.last(Channel.SCREEN)

    def point(self, pointer: Pointer) -> None:
        """Where our pointer is, to all. Raises NotAllowed."""
        self.member.point(pointer)
        self._settle()

    def handle(self, hands: Input) -> None:
        """Our hands on the presenter's machine. Raises NotAllowed."""
        self.member.handle(hands)
        self._settle()

    def lend(self, participant: ParticipantId) -> None:
        """The presenter lends mouse and keyboard, or (0) takes them back: by an entry of the organizer, who is asked for it.

        Raises NotAllowed, IllegalEntry, Congested, SessionOver.
        """
        if self.state.presenter != self.me:
            raise NotAllowed("Only the presenter lends mouse and keyboard.")
        now = trio.current_time()
        if self.member.organizes:
            self.member.chair.lend(participant, now)
        else:
            self.member.request(Request(Verb.CONTROL, participant), now)
        self._settle()

    def show(self, kind: ScreenKind, update: bytes = b"", *, restart: bool = False) -> None:
        """One screen update to all. Raises NotAllowed."""
        self.member.screen_packets(bytes((kind,)) + update, restart=restart)
        self._settle()

    def drop_screen(self) -> bool:
        """Forget screen packets that no link has taken yet; whether there were any."""
        return self._outbox.drop_screen()

    def show_whole(self, snapshot: bytes) -> None:
        """The whole screen, for those who lack it. Raises NotAllowed."""
        self.member.screen_packets(snapshot, restart=True, snapshot=True)
        self._settle()

    def want_screen(self) -> None:
        """Ask for a snapshot; lost without a link, so ask again."""
        epoch = self.member.keyring.current
        if self._connection is not None and self._up and epoch is not None:
            self._connection.send(Want(epoch))

    # inside: everything that happens ends here

    def _settle(self) -> None:
        """Carry what the member has to say to where it belongs."""
        member = self.member
        self._outbox.let_log(member.relay_office == member.me)
        if not member.organizes and not self.state.ended and member.stood_up:
            self._outbox.forget_log()
        while member.out:
            item = member.out.popleft()
            if isinstance(item, bytes):
                self._outbox.push(item, trio.current_time())
            elif self._connection is not None and self._up:
                self._connection.send(item)
        while member.jobs and self._nursery is not None:
            self._nursery.start_soon(self._work, member.jobs.popleft())
        if self._connection is not None:
            self._connection.wake()
        while member.events:
            self._tell(member.events.popleft())
        self._changed.set()
        self._changed = trio.Event()

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)
        if isinstance(event, Dropped) and self._sink.statistics().current_buffer_used >= MAX_DROPPED:
            self.missed += 1  # rubbish is cheap to make: it must not take the place of what counts
        elif not isinstance(event, ScreenMessage | SnapshotWanted | ScreenGap | PointerMoved | InputReceived):
            try:
                self._sink.send_nowait(event)
            except trio.WouldBlock:
                self.missed += 1
            except trio.BrokenResourceError:
                pass

    async def _work(self, job: Job) -> None:
        """A costly step in a thread, then its outcome here."""

        def timed() -> tuple[Any, float]:
            began = time.thread_time()
            try:
                outcome = job.work()
            except Exception as error:
                outcome = error
            return outcome, time.thread_time() - began

        outcome, cost = await trio.to_thread.run_sync(timed, limiter=_limiter(_threads, THREADS))
        began = time.thread_time()
        if isinstance(outcome, Exception):
            job.failed(outcome, trio.current_time())
        else:
            job.done(outcome, trio.current_time())
        self.admission_cpu += cost + time.thread_time() - began
        self._settle()

    async def _keep_time(self) -> None:
        while True:
            now = trio.current_time()
            self.member.tick(now)
            if self.member.out or self.member.events or self.member.jobs:
                self._settle()
            if self._connection is not None and self._up and self._connection.rtt is not None:
                self.member.report_link(self._connection.rtt, now)
            due, pace = self.member.batch_due(), CHAIR_TICK if self.member.organizes else TICK
            await trio.sleep(pace if due is None else min(pace, max(0.0, due - now)))

    def _close(self, reason: CloseReason) -> None:
        self._closing = True
        if self._connection is not None:
            self._connection.close(reason)
        if self._reserve is not None:
            self._reserve.connection.close(reason)
        self._sink.close()
        self._changed.set()
        self._changed = trio.Event()

    # the link

    async def _keep_linked(self) -> None:
        """One link after the other. The relay that was lost comes last next time: it may be what failed, and all have what is owed.

        The ticket names the session's relay first, and healthy ones alone; those far away stand behind those that are near (`net.path`)."""
        async with _limiter(_dials, DIALS):
            self._relays = await nearest_first(self.ticket.relays, lambda relay: relay.addresses)
        relays = list(self._relays)
        retry, refused, refused_since, reached = FIRST_RETRY, 0, math.inf, False
        give_up = trio.current_time() + (self.member.patience if isinstance(self.member, Guest) else math.inf)
        while not self.over:
            reserve, self._reserve = self._reserve, None
            if reserve is not None and reserve.over:
                reserve = None
            relay = reserve.relay if reserve else relays[0]
            relays.remove(relay)
            relays.append(relay)
            began = trio.current_time()
            closed = await self._serve(relay, reserve)
            if self._closing:
                return
            reached = reached or closed is not None
            if not (reached or self.member.joined) and isinstance(self.member, Guest) and trio.current_time() >= give_up:
                self.member.failure = NoRelay()
                self._close(CloseReason.LOST)
                return
            if closed is not None and closed.reason in _FINAL:
                self._give_up(closed)
                return
            if closed is None or closed.reason is not CloseReason.TOKEN_REFUSED:
                refused, refused_since = 0, math.inf
            else:
                refused, refused_since = refused + 1, min(refused_since, began)
            patience = REFUSED_FOR if self.member.joined else 0.0
            if refused >= REFUSALS * len(relays) and trio.current_time() - refused_since >= patience:
                self._give_up(LinkClosed(CloseReason.TOKEN_REFUSED, remote=True))
                return
            if trio.current_time() - began >= STEADY:
                retry = FIRST_RETRY
            elif relay is self._relays[-1]:
                self._tell(LinkChanged("", f"{NoRelay.sentence} It is tried again."))
            if self._reserve is None or self._reserve.over:
                await trio.sleep(retry)
            retry = min(1.5 * retry, LONGEST_RETRY)

    async def _dial(self, relay: RelayAddress) -> Connection | None:
        try:
            async with _limiter(_dials, DIALS):
                stream = await dial(
                    relay.addresses, self._tls, server_kind="mcs", cluster=self.ticket.cluster, timeout=DIAL_WITHIN, unsent=UNSENT
                )
        except (Unreachable, TlsRefused) as error:
            log.info("relay-unreachable", node=relay.node, why=str(error))
            return None
        return Connection(stream, Side.CALLER, self)

    async def _serve(self, relay: RelayAddress, reserve: Reserve[RelayAddress] | None) -> LinkClosed | None:
        """One link, until it ends; None if there was none."""
        connection = reserve.connection if reserve else await self._dial(relay)
        if connection is None:
            return None
        self._connection = connection
        self._node = relay.node
        if reserve is None:
            self._hello(connection)
            closed = await connection.run()
        else:
            self._say_have(connection, self.member.have.parts())
            closed = await reserve.ended()
        was_up, self._connection, self._up = self._up, None, False
        self.member.unlinked()
        if not (self._closing or self._leaving):
            log.info("link-closed", node=relay.node, reason=closed.reason.value, remote=closed.remote)
            if was_up and closed.reason not in _FINAL:
                self._tell(LinkChanged("", SENTENCES[closed.reason]))
        self._settle()
        return closed

    def _hello(self, connection: Connection, *, standby: bool = False) -> None:
        member, ticket = self.member, self.ticket
        fresh = isinstance(member, Guest) and not member.joined
        parts = [] if standby else member.have.parts()
        first, more = ([], True) if standby else (parts[0], len(parts) > 1)
        token, role = ticket.token.reveal(), Role(ticket.role)
        connection.send(Hello(VERSION, ticket.session, ticket.participant, role, token, fresh, first, more, standby))
        self._say_have(connection, parts[1:])

    @staticmethod
    def _say_have(connection: Connection, parts: list[list[Position]]) -> None:
        for number, part in enumerate(parts, 1):
            connection.send(Have(part, more=number < len(parts)))

    async def _keep_reserve(self) -> None:
        """While there is a link, another one to the next relay, in reserve. `_keep_linked` takes it."""
        tries = 0
        while not self.over:
            await trio.sleep(RESERVE_EVERY * random.uniform(0.5, 1.0))  # noqa: S311  # spreads callers, decides nothing
            others = [relay for relay in self._relays if relay.node != self._node]
            if not (self._up and self.member.joined and others) or (self._reserve is not None and not self._reserve.over):
                continue
            relay = others[tries % len(others)]
            tries += 1  # it will be another one's turn, should this one fail
            connection = await self._dial(relay)
            if connection is None:
                continue
            self._hello(connection, standby=True)
            self._reserve = reserve = Reserve(relay, connection)
            assert self._nursery is not None
            self._nursery.start_soon(reserve.run)

    def received(self, item: Frame | Control) -> None:
        """For `net.connection`: a packet or a message from the relay."""
        now = trio.current_time()
        if isinstance(item, Frame):
            self.bytes_received += len(item.body)
            if self.member.organizes and len(item.body) > 1 and item.body[1] & Flag.CLEAR:
                began = time.thread_time()
                self.member.receive_untrusted(item.body, now)
                self.admission_cpu += time.thread_time() - began
            else:
                self.member.receive_untrusted(item.body, now)
        elif isinstance(item, Welcome):
            self._welcomed(item, now)
        elif isinstance(item, Taken):
            self._outbox.taken(item.taken, now)
            self.member.taken(item.taken, now)
        elif isinstance(item, Want):
            self.member.events.append(SnapshotWanted())
        elif isinstance(item, Hello | Have):
            raise UnexpectedMessage
        else:
            self.member.control(item, now)
        self._settle()

    def _welcomed(self, welcome: Welcome, now: float) -> None:
        self._up = True
        member = self.member
        self._outbox.let_log(welcome.office == member.me)
        self._outbox.relink(welcome.taken, now)
        member.taken(welcome.taken, now)
        member.linked(ParticipantId(welcome.office), welcome.key_counter, welcome.log_counter, now)
        self._tell(LinkChanged(self._node))

    def pull(self, budget: int) -> bytes | None:
        """For `net.connection`: what goes out next."""
        data = self._outbox.pull(budget)
        if data:
            self.bytes_sent += len(data)
            self._changed.set()
            self._changed = trio.Event()
        return data

    def _give_up(self, closed: LinkClosed) -> None:
        if self.state.ended or self._leaving:
            self._close(closed.reason)
            return
        if isinstance(self.member, Guest) and not self.member.joined:
            self.member.failure = _refusal(closed)
        self._tell(Removed(closed.reason.value, SENTENCES[closed.reason]))
        self._close(closed.reason)


def _refusal(closed: LinkClosed) -> EndpointError:
    """Why a join ended with its link."""
    if closed.reason is CloseReason.ENDED:
        return SessionOver()
    return JoinTimeout(SENTENCES[closed.reason])


def _limiter(which: trio.lowlevel.RunVar[trio.CapacityLimiter], size: int) -> trio.CapacityLimiter:
    """The run's, made at its first use."""
    try:
        return which.get()
    except LookupError:
        limiter = trio.CapacityLimiter(size)
        which.set(limiter)
        return limiter
