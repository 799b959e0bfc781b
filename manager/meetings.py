"""Meetings: scheduling, finding, the invitation. Rules over the store; no HTTP.

    schedule ──▶ scheduled ──open──▶ open ──end──▶ ended          a session runs while the meeting is open; a meeting serves one session

A meeting ID is drawn from the system's generator, uniformly from the 900 million numbers of nine digits, and is nobody else's until 30
days after the end: an old link must not lead into another meeting.
"""

import secrets
import unicodedata
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, select
from sqlalchemy.exc import IntegrityError

from manager.accounts import Organizer
from manager.errors import RequestMalformed
from manager.hidden import INVITE_SIZE, NO_INVITE, Hidden
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


@dataclass(frozen=True, slots=True)
class Meeting:
    """A meeting as its organizer sees it."""

    id: int  # the store's, not the meeting ID
    number: MeetingId
    organizer: int
    title: str
    meeting_key: bytes
    invite: Hidden
    state: MeetingState
    created_at: float
    session: SessionId | None = field(default=None, repr=False)  # the running one
    primary_node: str | None = field(default=None, repr=False)


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
        raise RequestMalformed(f"a title has 1 to {MAX_TITLE} characters")
    joiners = "\u200c\u200d"  # several scripts, and emoji, are spelled with them
    if any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in joiners for c in cleaned):
        raise RequestMalformed("a title has no control or invisible formatting characters")
    return cleaned


def schedule(db: Connection, organizer: Organizer, title: str, meeting_key: bytes, now: float) -> Meeting:
    """A new meeting. Raises `RequestMalformed`."""
    title = clean_title(title)
    if len(meeting_key) != KEY_SIZE:
        raise RequestMalformed(f"a meeting key has {KEY_SIZE} bytes")
    invite = Hidden(secrets.token_bytes(INVITE_SIZE))
    while invite == NO_INVITE:
        invite = Hidden(secrets.token_bytes(INVITE_SIZE))
    for _ in range(_DRAWS):
        number = draw_meeting_id()
        _let_go(db, number, now)
        try:
            with db.begin_nested():
                result = db.execute(
                    meetings.insert().values(
                        number=number,
                        held=number,
                        organizer_id=organizer.id,
                        title=title,
                        meeting_key=meeting_key,
                        invite=invite,
                        state=MeetingState.SCHEDULED.value,
                        created_at=now,
                    )
                )
        except IntegrityError:
            continue  # the number is taken
        (key,) = result.inserted_primary_key or (0,)
        return Meeting(int(key), number, organizer.id, title, meeting_key, invite, MeetingState.SCHEDULED, now)
    raise AssertionError(f"{_DRAWS} draws of nine digits were all taken")


def list_meetings(db: Connection, organizer: Organizer) -> list[Meeting]:
    """The organizer's own, newest first, at most `LISTED`."""
    query = _select().where(meetings.c.organizer_id == organizer.id)
    return [_meeting(row) for row in db.execute(query.order_by(meetings.c.created_at.desc(), meetings.c.id.desc()).limit(LISTED))]


def find_meeting(db: Connection, number: MeetingId) -> Meeting | None:
    """The meeting that holds this number now."""
    row = db.execute(_select().where(meetings.c.held == number)).one_or_none()
    return None if row is None else _meeting(row)


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


def set_state(db: Connection, meeting: int, state: MeetingState, now: float) -> None:
    """Move a meeting along."""
    ended_at = now if state is MeetingState.ENDED else None
    db.execute(meetings.update().where(meetings.c.id == meeting).values(state=state.value, ended_at=ended_at))


def _let_go(db: Connection, number: MeetingId, now: float) -> None:
    """Free the number if the meeting that holds it ended long ago."""
    old = (meetings.c.held == number) & (meetings.c.ended_at < now - HELD_AFTER_END)
    db.execute(meetings.update().where(old).values(held=None))


def _select() -> Select[Any]:
    running = (sessions.c.meeting_id == meetings.c.id) & sessions.c.ended_at.is_(None)
    return select(meetings, sessions.c.id.label("session"), sessions.c.primary_node).outerjoin_from(meetings, sessions, running)


def _meeting(row: Row[Any]) -> Meeting:
    return Meeting(
        row.id,
        MeetingId(row.number),
        row.organizer_id,
        row.title,
        row.meeting_key,
        row.invite,
        MeetingState(row.state),
        row.created_at,
        None if row.session is None else SessionId(row.session),
        row.primary_node,
    )
