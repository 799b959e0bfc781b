"""What callers may ask for: rules, store, relays and waiting guests, joined. No HTTP.

A ticket is answered when its grant is in the store and the relay that it names first has acknowledged it.

A stranger (no invitation, or a wrong one) learns nothing from an ID: absent, ended and not yet open meetings take the same query, the same
comparison, the same throttle, and are answered at the same moment, `REFUSED_AFTER` seconds from the question, whatever the work took.
Who types the ID of an open meeting is let in and has cost nothing; each wrong guess costs a token of the guesser's address and of all
strangers together. The holder of the right invitation is told "not open yet", and waits here if that is wished.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import structlog
import trio
from sqlalchemy import Connection

from manager import accounts, audit, meetings, tickets
from manager.callers import Caller, Scope
from manager.challenge import Challenges, Proof
from manager.errors import MeetingEnded, MeetingKeyMissing, MeetingUnavailable, NoRelay, NotOpenYet, StoreUnavailable, Throttled
from manager.hidden import Hidden
from manager.meetings import Meeting, Standing
from manager.nodes import NodeHealth, Nodes
from manager.placement import place
from manager.settings import Settings
from manager.store import Store
from manager.throttle import Rate, Throttle
from wire.control import NodeInfo
from wire.ids import MeetingId, ParticipantId, SessionId

REFUSED_AFTER: Final = 0.05
"""Seconds from a stranger's question to its refusal."""
MAX_PATIENCE: Final = 25.0
"""Seconds that one request of a waiting guest is held."""
PROVEN: Final = 20
"""Strangers with a proof of work have a bucket of their own, so many times as large: who floods the other keeps no honest one out."""
MAX_WAITING: Final = 10_000
"""Guests held at once; the others are told to ask again."""
HOUR: Final = 3600.0
ASK_AGAIN: Final = 2.0
"""Seconds after which a guest who does not wait here asks again."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Admission:
    """A ticket with where to use it: the session's relay first."""

    ticket: tickets.Ticket
    relays: list[NodeInfo]
    cluster: str


class Desk:
    """One manager's desk. `clock`: seconds since 1970."""

    def __init__(self, store: Store, nodes: Nodes, settings: Settings, clock: Callable[[], float]) -> None:
        self._store = store
        self._nodes = nodes
        self._clock = clock
        self._waiting = _Waiting()
        self._strangers = Throttle(
            Rate(settings.stranger_rate, settings.stranger_burst), Rate(settings.strangers_rate, settings.strangers_burst)
        )
        self._proven = Throttle(
            Rate(settings.stranger_rate, settings.stranger_burst), Rate(PROVEN * settings.strangers_rate, PROVEN * settings.strangers_burst)
        )
        self._challenges = Challenges(clock)
        self._guests = Throttle(Rate(settings.guest_rate, settings.guest_burst), Rate(settings.guests_rate, settings.guests_burst))

    async def run(self) -> None:
        """End abandoned sessions, at the start and every hour."""
        while True:
            with suppress(StoreUnavailable):
                for session in await self._store.write(tickets.end_abandoned, self._clock()):
                    log.info("session-ended", by="nobody")
                    self._nodes.announce(tickets.ended_facts(session))
            await trio.sleep(HOUR)

    async def open(self, caller: Caller, number: MeetingId) -> Admission:
        """Open the meeting, or come back to it; waiting guests go on.

        Raises `MeetingUnavailable`, `MeetingEnded`, `MeetingKeyMissing`, `NoRelay`.
        """
        caller.require(Scope.HOST)
        organizer = caller.account
        meeting = await self._store.look(meetings.own_meeting, organizer, number)
        if meeting.state.over:
            raise MeetingEnded
        if meeting.meeting_key is None:
            raise MeetingKeyMissing
        running = meeting if meeting.session is not None else None
        session = tickets.draw_session_id() if running is None or running.session is None else running.session
        order = self._place(session, None if running is None else running.primary_node)
        ticket = await self._store.write(tickets.open_meeting, organizer, number, session, order[0] if order else "", self._clock())
        admission = await self._told(ticket, order)
        self._waiting.open(number)
        log.info("session-opened", organizer=organizer.id, node=order[0])
        return admission

    def challenge(self) -> str:
        """A fresh challenge for a stranger; `manager.challenge` says how it is solved."""
        return self._challenges.make()

    async def ticket(
        self, number: MeetingId, invite: Hidden | None, address: str, patience: float = 0.0, proof: Proof | None = None
    ) -> Admission:
        """A guest's ticket. `patience`: seconds to wait for the organizer, for who is entitled. `proof`: a stranger's work.

        Raises `MeetingUnavailable`, `NotOpenYet`, `Throttled`, `ChallengeFailed`, `NoRelay`, `SessionFull`.
        """
        meeting = await self._open_meeting(number, invite, address, patience, proof)
        assert meeting.session is not None
        order = self._place(meeting.session, meeting.primary_node)
        return await self._told(await self._store.write(tickets.admit_guest, meeting, order[0], self._clock()), order)

    async def look(self, number: MeetingId, invite: Hidden | None, address: str, patience: float = 0.0, proof: Proof | None = None) -> None:
        """Whether a ticket would be given now, for a page that a guest waits on: raises as `ticket` does, costs the same, and takes none."""
        await self._open_meeting(number, invite, address, patience, proof)

    async def _open_meeting(self, number: MeetingId, invite: Hidden | None, address: str, patience: float, proof: Proof | None) -> Meeting:
        asked = trio.current_time()
        strangers = self._strangers
        if proof is not None:
            self._challenges.spend(proof)
            strangers = self._proven
        if invite is None:
            self._charge(strangers, address)
        while True:
            with self._waiting.watch(number) as opened:  # before the look: an opening in between is not missed
                standing, meeting = await self._store.look(meetings.standing, number, invite)
                if standing is Standing.UNAVAILABLE:
                    await trio.sleep_until(asked + REFUSED_AFTER)  # first: when "too often" is said must not tell what the look found, either
                    if invite is not None:
                        self._charge(strangers, address)
                    raise MeetingUnavailable
                if meeting is not None:
                    break
                left = asked + min(patience, MAX_PATIENCE) - trio.current_time()
                if left <= 0 or self._waiting.full:
                    self._charge(self._guests, address)
                    raise NotOpenYet(retry_after=ASK_AGAIN)
                with trio.move_on_after(left):
                    await opened.wait()
        if invite is None:
            strangers.give_back(address, trio.current_time())
        self._charge(self._guests, address)
        return meeting

    async def end(self, caller: Caller, session: SessionId) -> None:
        """End the session: first in the store, then at the relays. Ending it again changes nothing. Raises `SessionUnknown`."""
        caller.require(Scope.HOST)
        organizer = caller.account
        if await self._store.write(tickets.end_session, organizer, session, self._clock()):
            log.info("session-ended", by="organizer", organizer=organizer.id)
        await self._nodes.tell(tickets.ended_facts(session))

    async def revoke(self, caller: Caller, session: SessionId, participant: ParticipantId) -> None:
        """Make a participant's token worthless. Raises `SessionUnknown`, `ParticipantUnknown`."""
        caller.require(Scope.HOST)
        facts = await self._store.write(tickets.revoke, caller.account, session, participant, self._clock())
        await self._nodes.tell(facts)

    async def delete_account(self, caller: Caller, number: int, *, rules: bool) -> None:
        """Delete an account, one that the caller `rules`, or its own: its sessions end, also at the relays. Raises `LastAdministrator`,
        `AccountUnknown`."""
        for session in await self._store.write(_delete_account, caller, number, rules, self._clock()):
            self._nodes.announce(tickets.ended_facts(session))

    def nodes(self) -> list[NodeHealth]:
        """The overlay's relays, by name."""
        return self._nodes.health()

    async def healthy(self) -> None:
        """Raises `StoreUnavailable`."""
        await self._store.read(lambda db: db.exec_driver_sql("SELECT 1"))

    def _place(self, session: SessionId, primary: str | None) -> list[str]:
        order = place(session, self._nodes.loads(), primary)
        if not order:
            raise NoRelay(retry_after=ASK_AGAIN)
        self._nodes.placed(order[0])
        return order

    async def _told(self, ticket: tickets.Ticket, order: list[str]) -> Admission:
        """Make the ticket valid at the relays. Who has not acknowledged it in time stands behind who has."""
        acked = await self._nodes.tell(ticket.told, order[0])
        if not acked:
            raise NoRelay(retry_after=ASK_AGAIN)
        if order[0] not in acked:
            order = sorted(order, key=lambda node: node not in acked)
        return Admission(ticket, self._nodes.infos(order), self._nodes.name.cluster)

    def _charge(self, throttle: Throttle, address: str) -> None:
        wait = throttle.take(address, trio.current_time())
        if wait > 0:
            raise Throttled(retry_after=wait)


def _delete_account(db: Connection, caller: Caller, number: int, rules: bool, now: float) -> list[SessionId]:
    """The sessions that ended with it."""
    if rules:
        accounts.ruled(db, caller.account, number)  # here and not before: it may have become an administrator's meanwhile
    ended = tickets.end_sessions_of(db, number, now)
    meetings.erase_of(db, number, now)
    accounts.erase(db, number, now)
    audit.record(db, caller.by, "account-deleted", f"account {number}", now)
    return ended


class _Waiting:
    """Guests who wait for a meeting to open."""

    def __init__(self) -> None:
        self._events: defaultdict[MeetingId, list[trio.Event]] = defaultdict(list)
        self._count = 0

    @property
    def full(self) -> bool:
        return self._count > MAX_WAITING

    @contextmanager
    def watch(self, number: MeetingId) -> Iterator[trio.Event]:
        event = trio.Event()
        self._events[number].append(event)
        self._count += 1
        try:
            yield event
        finally:
            self._count -= 1
            self._events[number].remove(event)
            if not self._events[number]:
                del self._events[number]

    def open(self, number: MeetingId) -> None:
        for event in self._events.get(number, ()):
            event.set()
