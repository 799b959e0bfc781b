"""Meetings: scheduling, finding, the invitation. Rules over the store; no HTTP.

    schedule ──▶ scheduled ──open──▶ open ──end──▶ ended          a session runs while the meeting is open
                  │   ▲                │
               cancel  └──── end ───────┘                           while a repetition has occurrences left
                  ▼
              cancelled

The meeting key is made by the endpoint that will host, and may come later than the meeting itself: one that was scheduled on a page has
none until `set_key`, and cannot be opened before.

A meeting ID is drawn from the system's generator, uniformly from the 900 million numbers of nine digits, and is nobody else's until 30
days after the end: an old link must not lead into another meeting.
"""

import json
import secrets
import unicodedata
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from functools import cache, lru_cache
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, bindparam, select
from sqlalchemy.exc import IntegrityError

from manager.accounts import Account
from manager.calendar import ANY_TIME, FORMAT, Repeat, Schedule
from manager.errors import Fields, MeetingEnded, MeetingRunning, MeetingUnavailable, RequestMalformed
from manager.hidden import INVITE_SIZE, NO_INVITE, Hidden
from manager.policy import FEATURES, check_features
from manager.store import meetings, sessions
from wire.ids import MEETING_IDS, MeetingId, SessionId

HELD_AFTER_END: Final = 30 * 86_400.0
"""Seconds for which an ended meeting keeps its number."""
MAX_TITLE: Final = 200
"""Characters, after NFC."""
KEY_SIZE: Final = 32
LISTED: Final = 500
"""Meetings in one list, newest first."""
_DRAWS: Final = 100


class MeetingState(StrEnum):
    SCHEDULED = "scheduled"
    OPEN = "open"
    ENDED = "ended"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        return self in (MeetingState.ENDED, MeetingState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Meeting:
    """A meeting as its organizer sees it. `features_off`: what the organizer turned off for it. `uid`, `sequence`: of its calendar entry."""

    id: int  # the store's, not the meeting ID
    number: MeetingId
    organizer: int
    title: str
    meeting_key: bytes | None
    invite: Hidden
    state: MeetingState
    schedule: Schedule
    features_off: frozenset[str]
    uid: str
    sequence: int
    created_at: float
    changed_at: float
    ended_at: float | None = None
    session: SessionId | None = field(default=None, repr=False)  # the running one
    primary_node: str | None = field(default=None, repr=False)

    def coming(self, now: float) -> bool:
        """Whether it runs or may still take place: the others are past."""
        if self.state is not MeetingState.SCHEDULED:
            return self.state is MeetingState.OPEN
        return not self.schedule.over(now)


class Standing(Enum):
    """What somebody who asks for a meeting may learn."""

    UNAVAILABLE = "unavailable"
    NOT_OPEN_YET = "not-open-yet"
    OPEN = "open"


def draw_meeting_id() -> MeetingId:
    """A meeting ID from the system's generator, uniform over all of them."""
    return MeetingId(MEETING_IDS.start + secrets.randbelow(len(MEETING_IDS)))


def clean_title(title: str) -> str:
    """The title in NFC, without space around it. Raises `RequestMalformed`: empty, too long, or with characters that do not print.

    Control, bidirectional and other invisible formatting characters could make a title look like something that it is not.
    """
    cleaned = unicodedata.normalize("NFC", title).strip()
    if not 0 < len(cleaned) <= MAX_TITLE:
        raise RequestMalformed("a title has 1 to 200 characters")
    joiners = "\u200c\u200d"  # several scripts, and emoji, are spelled with them
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in joiners for c in cleaned):
        raise RequestMalformed("a title has no control or invisible formatting characters")
    return cleaned


def schedule(
    db: Connection,
    organizer: Account,
    title: str,
    meeting_key: bytes | None,
    now: float,
    when: Schedule = ANY_TIME,
    features_off: list[str] | None = None,
) -> Meeting:
    """A new meeting. Raises `RequestMalformed`."""
    check = Fields()
    with check("title"):
        title = clean_title(title)
    with check("meeting_key"):
        if meeting_key is not None and len(meeting_key) != KEY_SIZE:
            raise RequestMalformed(f"a meeting key has {KEY_SIZE} bytes")
    with check("features_off"):
        off = check_features(features_off or [])
    check.finish()
    invite = Hidden(secrets.token_bytes(INVITE_SIZE))
    while invite == NO_INVITE:
        invite = Hidden(secrets.token_bytes(INVITE_SIZE))
    for _ in range(_DRAWS):
        number = draw_meeting_id()
        _let_go(db, number, now)
        try:
            with db.begin_nested():
                db.execute(
                    meetings.insert().values(
                        number=number,
                        held=number,
                        organizer_id=organizer.id,
                        title=title,
                        meeting_key=meeting_key,
                        invite=invite,
                        state=MeetingState.SCHEDULED.value,
                        features=json.dumps(sorted(off)),
                        uid=f"{uuid.uuid4()}@parley",
                        sequence=0,
                        created_at=now,
                        changed_at=now,
                        **_columns(when),
                    )
                )
        except IntegrityError:
            continue  # the number is taken
        made = find_meeting(db, number)
        assert made is not None
        return made
    raise AssertionError(f"{_DRAWS} draws of nine digits were all taken")


def edit(
    db: Connection,
    organizer: Account,
    number: MeetingId,
    now: float,
    *,
    title: str | None = None,
    when: Schedule | None = None,
    features_off: list[str] | None = None,
) -> Meeting:
    """Change what is given; its calendar entry is a new version of itself. Raises `MeetingUnavailable`, `MeetingEnded`, `RequestMalformed`."""
    meeting = own_meeting(db, organizer, number)
    if meeting.state.over:
        raise MeetingEnded
    check = Fields()
    values: dict[str, Any] = {"sequence": meeting.sequence + 1, "changed_at": now}
    with check("title"):
        values |= {} if title is None else {"title": clean_title(title)}
    with check("features_off"):
        values |= {} if features_off is None else {"features": json.dumps(sorted(check_features(features_off)))}
    check.finish()
    values |= {} if when is None else _columns(when)
    db.execute(meetings.update().where(meetings.c.id == meeting.id).values(values))
    return own_meeting(db, organizer, number)


def cancel(db: Connection, organizer: Account, number: MeetingId, now: float) -> Meeting:
    """It will not take place. Raises `MeetingUnavailable`, `MeetingRunning`, `MeetingEnded`; cancelling again changes nothing."""
    meeting = own_meeting(db, organizer, number)
    if meeting.state is MeetingState.OPEN:
        raise MeetingRunning
    if meeting.state is MeetingState.ENDED:
        raise MeetingEnded
    if meeting.state is MeetingState.SCHEDULED:
        values = {"state": MeetingState.CANCELLED.value, "ended_at": now, "changed_at": now, "sequence": meeting.sequence + 1}
        db.execute(meetings.update().where(meetings.c.id == meeting.id).values(values))
    return own_meeting(db, organizer, number)


def set_key(db: Connection, organizer: Account, number: MeetingId, meeting_key: bytes, now: float) -> Meeting:
    """The key that the hosting endpoint has made; a later one counts, until the meeting opens. Raises as `cancel`, and `RequestMalformed`."""
    meeting = own_meeting(db, organizer, number)
    if len(meeting_key) != KEY_SIZE:
        raise RequestMalformed(fields={"meeting_key": f"a meeting key has {KEY_SIZE} bytes"})
    if meeting.state.over:
        raise MeetingEnded
    if meeting.meeting_key != meeting_key:
        if meeting.state is MeetingState.OPEN:
            raise MeetingRunning
        db.execute(meetings.update().where(meetings.c.id == meeting.id).values(meeting_key=meeting_key, changed_at=now))
    return own_meeting(db, organizer, number)


def own_meeting(db: Connection, organizer: Account, number: MeetingId) -> Meeting:
    """Raises `MeetingUnavailable` if it is absent, or another's."""
    meeting = find_meeting(db, number)
    if meeting is None or meeting.organizer != organizer.id:
        raise MeetingUnavailable
    return meeting


def list_meetings(db: Connection, organizer: Account) -> list[Meeting]:
    """The organizer's own, newest first, at most `LISTED`."""
    return [_meeting(row) for row in db.execute(_own(), {"organizer": organizer.id})]


@cache
def _own() -> Select[Any]:
    query = _select().where(meetings.c.organizer_id == bindparam("organizer"))
    return query.order_by(meetings.c.created_at.desc(), meetings.c.id.desc()).limit(LISTED)


def find_meeting(db: Connection, number: MeetingId) -> Meeting | None:
    """The meeting that holds this number now."""
    row = db.execute(_by_number(), {"number": number}).one_or_none()
    return None if row is None else _meeting(row)


@cache
def _by_number() -> Select[Any]:
    return _select().where(meetings.c.held == bindparam("number"))


def standing(db: Connection, number: MeetingId, invite: Hidden | None) -> tuple[Standing, Meeting | None]:
    """What who asks with this invitation, or none, may learn; the meeting only if it is open to them.

    One query and one comparison, whatever there is: absent, ended and not yet open are the same work for a stranger.
    A wrong invitation opens nothing, not even what a typed ID would: such a link is stale, and may name a number that is another's now.
    """
    meeting = find_meeting(db, number)
    right = (invite or NO_INVITE) == (NO_INVITE if meeting is None else meeting.invite)
    if meeting is None or not (right or invite is None):
        return Standing.UNAVAILABLE, None
    if meeting.state is MeetingState.OPEN:
        return Standing.OPEN, meeting
    if meeting.state is MeetingState.SCHEDULED and right:
        return Standing.NOT_OPEN_YET, None
    return Standing.UNAVAILABLE, None


def session_over(db: Connection, meeting: int, now: float) -> None:
    """Its session has ended: the meeting too, unless it comes again."""
    row = db.execute(_select().where(meetings.c.id == meeting)).one()
    when = _meeting(row).schedule
    again = when.repeat is not None and when.next(now) is not None
    set_state(db, meeting, MeetingState.SCHEDULED if again else MeetingState.ENDED, now)


def erase_of(db: Connection, organizer: int, now: float) -> None:
    """Its organizer's account is deleted: no meeting of it can be opened or read any more. Its running sessions have been ended before."""
    own = meetings.c.organizer_id == organizer
    db.execute(meetings.update().where(own & meetings.c.ended_at.is_(None)).values(state=MeetingState.CANCELLED.value, ended_at=now))
    db.execute(meetings.update().where(own).values(title="(deleted)", meeting_key=None, changed_at=now))


def set_state(db: Connection, meeting: int, state: MeetingState, now: float) -> None:
    """Move a meeting along."""
    ended_at = now if state.over else None
    db.execute(meetings.update().where(meetings.c.id == meeting).values(state=state.value, ended_at=ended_at))


def _let_go(db: Connection, number: MeetingId, now: float) -> None:
    """Free the number if the meeting that holds it ended long ago."""
    old = (meetings.c.held == number) & (meetings.c.ended_at < now - HELD_AFTER_END)
    db.execute(meetings.update().where(old).values(held=None))


@cache
def _select() -> Select[Any]:
    """What `_meeting` reads, in its order. Built once: composing it costs as much as running it."""
    running = (sessions.c.meeting_id == meetings.c.id) & sessions.c.ended_at.is_(None)
    m = meetings.c
    columns = (m.id, m.number, m.organizer_id, m.title, m.meeting_key, m.invite, m.state, m.starts, m.zone, m.minutes, m.repeat, m.features)
    rest = (m.uid, m.sequence, m.created_at, m.changed_at, m.ended_at, sessions.c.id.label("session"), sessions.c.primary_node)
    return select(*columns, *rest).outerjoin_from(meetings, sessions, running)


def _columns(when: Schedule) -> dict[str, Any]:
    return {
        "starts": None if when.starts is None else when.starts.strftime(FORMAT),
        "zone": when.zone,
        "minutes": when.minutes,
        "repeat": "" if when.repeat is None else msgspec.json.encode(when.repeat).decode(),
    }


@lru_cache(4096)
def _schedule_of(starts: str | None, zone: str, minutes: int, repeat: str) -> Schedule:
    """From its columns. Lists are read far more often than they change."""
    moment = None if starts is None else datetime.fromisoformat(starts)
    return Schedule(moment, zone, minutes, msgspec.json.decode(repeat, type=Repeat) if repeat else None)


@lru_cache(256)
def _features_of(text: str) -> frozenset[str]:
    return frozenset(json.loads(text)) & frozenset(FEATURES)


def _meeting(row: Row[*tuple[Any, ...]]) -> Meeting:
    # by position: by name it would be most of what a list costs
    number, meeting_id, organizer, title, key, invite, state, starts, zone, minutes, repeat, features, *rest = row
    uid, sequence, created_at, changed_at, ended_at, session, primary_node = rest
    return Meeting(
        id=number,
        number=MeetingId(meeting_id),
        organizer=organizer,
        title=title,
        meeting_key=key,
        invite=invite,
        state=_STATES[state],
        schedule=_schedule_of(starts, zone, minutes, repeat),
        features_off=_features_of(features),
        uid=uid,
        sequence=sequence,
        created_at=created_at,
        changed_at=changed_at,
        ended_at=ended_at,
        session=None if session is None else SessionId(session),
        primary_node=primary_node,
    )


_STATES: Final = {state.value: state for state in MeetingState}
