"""Tickets: sessions, participant IDs, role tokens; and the facts about them that relays are told. Rules over the store; no HTTP.

Everything is drawn from the system's generator. A participant ID is the key of its grant's row, and rows stay, so none is used twice in
a session. What ends, ends here first: the session's secret and every token are erased in the transaction that ends it, then the relays
are told.

The *office* is the participant who may write the session's log. An organizer's ticket moves it, with a higher term: a restarted
organizer comes as a new participant of the same session. An office that was handed over to somebody else stays there (it cannot be
undone), and the former organizer comes back as an attendee.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, select, text

from manager.accounts import Account, features_left
from manager.errors import MeetingEnded, MeetingKeyMissing, MeetingUnavailable, ParticipantUnknown, SessionFull, SessionUnknown
from manager.hidden import SECRET_SIZE, Hidden
from manager.meetings import Meeting, MeetingState, find_meeting, session_over, set_state
from manager.store import accounts, grants, meetings, policies, sessions
from wire.control import MAX_ENTRIES, Facts, Grant
from wire.ids import MeetingId, ParticipantId, Role, RoleToken, SessionId

MAX_GRANTS: Final = 20_000
"""Tickets of one session: a bound on what a flood of tickets can store, and no more than relays hold."""
ABANDONED_AFTER: Final = 7 * 86_400.0
"""Seconds without a new ticket after which a session counts as over: its organizer is gone for good, and nobody else can end it."""


# what each ticket asks, built once: composing a statement costs as much as running it
_RUNNING: Final = (
    select(
        sessions.c.secret,
        sessions.c.office,
        sessions.c.term,
        sessions.c.granted,
        accounts.c.features,
        select(policies.c.value).scalar_subquery().label("policy"),
    )
    .join_from(sessions, meetings, meetings.c.id == sessions.c.meeting_id)
    .join(accounts, accounts.c.id == meetings.c.organizer_id)
    .where((sessions.c.id == bindparam("session")) & sessions.c.ended_at.is_(None))
    .with_for_update(of=sessions)
)
_INSERT_GRANT: Final = text(
    "INSERT INTO grants (session_id, participant, role, token, issued_at) "
    "VALUES (:session_id, :participant, :role, :token, :issued_at) ON CONFLICT DO NOTHING"
).bindparams(*(bindparam(name, type_=grants.c[name].type) for name in ("session_id", "participant", "role", "token", "issued_at")))
_COUNT_GRANT: Final = (
    sessions.update()
    .where(sessions.c.id == bindparam("session"))
    .values({name: bindparam(f"new_{name}") for name in ("office", "term", "granted", "primary_node", "used_at")})
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What an endpoint needs to join, but the relays' addresses. `told`: the facts that make it valid at a relay."""

    meeting: MeetingId
    title: str
    meeting_key: bytes
    session: SessionId = field(repr=False)
    participant: ParticipantId
    role: Role
    token: RoleToken
    secret: Hidden
    told: Facts = field(repr=False)
    features: frozenset[str]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a relay's facts meant. `ended`: they ended the session. `over`: it had ended before, and the relay did not know."""

    known: bool
    ended: bool = False
    over: bool = False


def draw_session_id() -> SessionId:
    """64 bits, never 0."""
    return SessionId(secrets.randbelow((1 << 64) - 1) + 1)


def open_meeting(db: Connection, organizer: Account, number: MeetingId, session: SessionId, node: str, now: float) -> Ticket:
    """The organizer's ticket. Opens the meeting with this new session ID on this node, or joins the session that runs.

    Raises `MeetingUnavailable` (absent, or another organizer's), `MeetingEnded`, `MeetingKeyMissing`, `SessionFull`.
    """
    meeting = find_meeting(db, number)
    if meeting is None or meeting.organizer != organizer.id:
        raise MeetingUnavailable
    if meeting.state.over:
        raise MeetingEnded
    if meeting.meeting_key is None:
        raise MeetingKeyMissing
    if meeting.session is None:
        db.execute(
            sessions.insert().values(
                id=session,
                meeting_id=meeting.id,
                secret=Hidden(secrets.token_bytes(SECRET_SIZE)),
                office=0,
                term=0,
                granted=0,
                primary_node=node,
                opened_at=now,
                used_at=now,
            )
        )
        set_state(db, meeting.id, MeetingState.OPEN, now)
    else:
        session = meeting.session
    return _grant(db, meeting, session, Role.ATTENDEE if _handed_over(db, session) else Role.ORGANIZER, node, now)


def admit_guest(db: Connection, meeting: Meeting, node: str, now: float) -> Ticket:
    """An attendee's ticket for the session that ran when the meeting was looked up. Raises `MeetingUnavailable`, `SessionFull`."""
    if meeting.session is None:
        raise MeetingUnavailable
    return _grant(db, meeting, meeting.session, Role.ATTENDEE, node, now)


def _grant(db: Connection, meeting: Meeting, session: SessionId, role: Role, node: str, now: float) -> Ticket:
    row = db.execute(_RUNNING, {"session": session}).one_or_none()
    if row is None:
        raise MeetingUnavailable
    if row.granted >= MAX_GRANTS:
        raise SessionFull
    token = RoleToken(secrets.token_bytes(RoleToken.SIZE))
    participant = _new_participant(db, session, role, token, now)
    office, term = (participant, int(row.term) + 1) if role is Role.ORGANIZER else (0, 0)
    changes = {"office": office or row.office, "term": term or row.term, "granted": row.granted + 1, "primary_node": node, "used_at": now}
    db.execute(_COUNT_GRANT, {"session": session} | {f"new_{name}": value for name, value in changes.items()})
    told = Facts(0, session, grants=[Grant(participant, role.value, token.reveal())], office=office, term=term)
    assert meeting.meeting_key is not None  # it could not have been opened
    features = features_left(row.features, row.policy) - meeting.features_off
    return Ticket(meeting.number, meeting.title, meeting.meeting_key, session, participant, role, token, row.secret, told, features)


def _new_participant(db: Connection, session: SessionId, role: Role, token: RoleToken, now: float) -> ParticipantId:
    """Draw until the store takes it: the key of the table is what keeps an ID from being used twice."""
    while True:
        participant = ParticipantId(secrets.randbelow(0xFFFF_FFFF) + 1)
        values = {"session_id": session, "participant": participant, "role": role.value, "token": Hidden(token.reveal()), "issued_at": now}
        if db.execute(_INSERT_GRANT, values).rowcount:
            return participant


def _handed_over(db: Connection, session: SessionId) -> bool:
    """Whether the office is no organizer's any more."""
    holder = select(grants.c.role).join(sessions, (sessions.c.id == grants.c.session_id) & (sessions.c.office == grants.c.participant))
    role = db.execute(holder.where(sessions.c.id == session)).scalar_one_or_none()
    return role is not None and role != Role.ORGANIZER


def end_session(db: Connection, organizer: Account, session: SessionId, now: float) -> bool:
    """The organizer ends its session; False if it had ended already. Raises `SessionUnknown`, also once the office has passed to somebody
    else: it is not this account's session any more."""
    if _own(db, organizer, session) and _handed_over(db, session):
        raise SessionUnknown
    return _end(db, session, now)


def revoke(db: Connection, organizer: Account, session: SessionId, participant: ParticipantId, now: float) -> Facts:
    """A participant's token is worth nothing from now on; what to tell the relays. Raises `SessionUnknown`, `ParticipantUnknown`."""
    if not _own(db, organizer, session) or _handed_over(db, session):
        raise SessionUnknown
    known = (grants.c.session_id == session) & (grants.c.participant == participant)
    if db.execute(select(grants.c.participant).where(known)).one_or_none() is None:
        raise ParticipantUnknown
    _revoke(db, session, [participant], now)
    return Facts(0, session, revoked=[participant])


def learn(db: Connection, facts: Facts, now: float) -> Learnt:
    """Keep what a relay says: whom the organizer let in, revoked participants, a moved office, the end.

    Facts about sessions that never were change nothing.
    """
    session = SessionId(facts.session)
    row = db.execute(select(sessions.c.term, sessions.c.ended_at).where(sessions.c.id == session).with_for_update()).one_or_none()
    if row is None:
        return Learnt(known=False)
    if facts.admitted:
        _admitted(db, session, facts.admitted, now)
    if row.ended_at is not None:
        return Learnt(known=True, over=not facts.ended)
    if facts.revoked:
        _revoke(db, session, facts.revoked, now)
    if facts.office and facts.term > row.term:
        db.execute(sessions.update().where(sessions.c.id == session).values(office=facts.office, term=facts.term))
    ended = facts.ended and _end(db, session, now)
    return Learnt(known=True, ended=ended)


def ended_facts(session: SessionId) -> Facts:
    """What every relay is told at the end."""
    return Facts(0, session, ended=True)


def running_sessions(db: Connection) -> list[SessionId]:
    """What a relay that connects must be told of."""
    return [SessionId(session) for session in db.execute(select(sessions.c.id).where(sessions.c.ended_at.is_(None))).scalars()]


def end_abandoned(db: Connection, now: float) -> list[SessionId]:
    """End the sessions that nobody has asked a ticket of for `ABANDONED_AFTER`."""
    unused = sessions.c.ended_at.is_(None) & (sessions.c.used_at < now - ABANDONED_AFTER)
    abandoned = [SessionId(session) for session in db.execute(select(sessions.c.id).where(unused)).scalars()]
    for session in abandoned:
        _end(db, session, now)
    return abandoned


def end_sessions_of(db: Connection, organizer: int, now: float) -> list[SessionId]:
    """End every running session of an account that goes."""
    query = select(sessions.c.id).join(meetings, meetings.c.id == sessions.c.meeting_id)
    running = [
        SessionId(session)
        for session in db.execute(query.where((meetings.c.organizer_id == organizer) & sessions.c.ended_at.is_(None))).scalars()
    ]
    for session in running:
        _end(db, session, now)
    return running


def facts_of(db: Connection, session: SessionId) -> list[Facts]:
    """All that a relay must know of one session, in parts of at most `MAX_ENTRIES`."""
    row = db.execute(select(sessions).where(sessions.c.id == session)).one_or_none()
    if row is None:
        return []
    if row.ended_at is not None:
        return [ended_facts(session)]
    rows = db.execute(select(grants).where(grants.c.session_id == session).order_by(grants.c.participant)).all()
    given = [Grant(r.participant, r.role, r.token.reveal()) for r in rows if r.revoked_at is None]
    revoked = [int(r.participant) for r in rows if r.revoked_at is not None]
    return [
        Facts(
            0,
            session,
            grants=given[at : at + MAX_ENTRIES],
            revoked=revoked[at : at + MAX_ENTRIES],
            office=row.office,
            term=row.term,
        )
        for at in range(0, max(len(given), len(revoked), 1), MAX_ENTRIES)
    ]


def _own(db: Connection, organizer: Account, session: SessionId) -> bool:
    """Whether the organizer's session runs. Raises `SessionUnknown` if it is not the organizer's."""
    own = (sessions.c.id == session) & (meetings.c.organizer_id == organizer.id)
    row = db.execute(select(sessions.c.ended_at).join(meetings, meetings.c.id == sessions.c.meeting_id).where(own)).one_or_none()
    if row is None:
        raise SessionUnknown
    return row.ended_at is None


def _end(db: Connection, session: SessionId, now: float) -> bool:
    running = (sessions.c.id == session) & sessions.c.ended_at.is_(None)
    meeting = db.execute(select(sessions.c.meeting_id).where(running)).scalar_one_or_none()
    if meeting is None:
        return False
    db.execute(sessions.update().where(running).values(ended_at=now, secret=None))
    _erase(db, grants.c.session_id == session)
    session_over(db, meeting, now)
    return True


def _admitted(db: Connection, session: SessionId, participants: Iterable[int], now: float) -> None:
    chosen = (grants.c.session_id == session) & grants.c.participant.in_(list(participants)) & grants.c.admitted_at.is_(None)
    db.execute(grants.update().where(chosen).values(admitted_at=now))


def _revoke(db: Connection, session: SessionId, participants: Iterable[int], now: float) -> None:
    chosen = (grants.c.session_id == session) & grants.c.participant.in_(list(participants)) & grants.c.revoked_at.is_(None)
    db.execute(grants.update().where(chosen).values(revoked_at=now, token=None))


def _erase(db: Connection, chosen: ColumnElement[bool]) -> None:
    db.execute(grants.update().where(chosen).values(token=None))
