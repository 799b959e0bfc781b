"""Reports: which sessions there were, how many came, how long it took. Rules over the store; no HTTP.

The manager knows tickets, and no names: those are told inside the meeting, end to end. A ticket's holder attends once the organizer lets it
in, which relays say: tickets that were not used, and guests who were turned away, count for nothing. Who lost the link and came back is the
same participant; whose program was started anew has a new ticket, and counts again.
"""

import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from typing import Final

from sqlalchemy import Connection, case, func, select

from manager.accounts import Account
from manager.store import accounts, grants, meetings, sessions
from wire.ids import MeetingId, Role, format_meeting_id

LISTED: Final = 5000
HEADINGS: Final = ("meeting_id", "title", "organizer", "opened_at", "ended_at", "minutes", "attendees")


@dataclass(frozen=True, slots=True)
class SessionReport:
    """One session. `ended_at`: None while it runs. `attendees`: guests whom the organizer let in. Times in seconds since 1970."""

    meeting: MeetingId
    title: str
    organizer: int
    organizer_name: str
    opened_at: float
    ended_at: float | None
    attendees: int

    def minutes(self, now: float) -> float:
        """How long it took, or has taken until now."""
        return round(((now if self.ended_at is None else self.ended_at) - self.opened_at) / 60, 1)


def session_reports(db: Connection, begin: float, end: float, organizer: Account | None = None) -> list[SessionReport]:
    """Sessions that were opened in [begin, end), the newest first, at most `LISTED`; of one organizer, or of all."""
    let_in = (grants.c.role == Role.ATTENDEE.value) & grants.c.admitted_at.is_not(None)
    guests = func.coalesce(func.sum(case((let_in, 1), else_=0)), 0).label("guests")
    attended = select(grants.c.session_id, guests).group_by(grants.c.session_id).subquery()
    query = (
        select(
            meetings.c.number,
            meetings.c.title,
            meetings.c.organizer_id,
            accounts.c.name,
            sessions.c.opened_at,
            sessions.c.ended_at,
            func.coalesce(attended.c.guests, 0),
        )
        .join_from(sessions, meetings, meetings.c.id == sessions.c.meeting_id)
        .join(accounts, accounts.c.id == meetings.c.organizer_id)
        .outerjoin(attended, attended.c.session_id == sessions.c.id)
        .where((sessions.c.opened_at >= begin) & (sessions.c.opened_at < end))
    )
    if organizer is not None:
        query = query.where(meetings.c.organizer_id == organizer.id)
    rows = db.execute(query.order_by(sessions.c.opened_at.desc(), sessions.c.id).limit(LISTED))
    return [SessionReport(MeetingId(row[0]), row[1], row[2], row[3], row[4], row[5], int(row[6])) for row in rows]


def as_csv(reports: list[SessionReport], now: float) -> str:
    """RFC 4180, with a heading. Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(HEADINGS)
    for report in reports:
        writer.writerow(
            (
                format_meeting_id(report.meeting),
                _plain(report.title),
                _plain(report.organizer_name),
                _moment(report.opened_at),
                "" if report.ended_at is None else _moment(report.ended_at),
                report.minutes(now),
                report.attendees,
            )
        )
    return text.getvalue()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _plain(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
