"""An organizer's meetings: schedule, edit, cancel, invite, calendar entries, reports. Rules and mail, joined. No HTTP.

What the manager makes of a link is `https://HOST/j/123456789/INVITE`: the password and the organizer's fingerprint belong behind a `#`, and are
added where they are known, in the organizer's browser or endpoint. No method here takes or gives a password.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection

from manager import accounts, audit, meetings, reports
from manager.calendar import ANY_TIME, Method, Schedule, calendar_entry
from manager.callers import Caller, Scope
from manager.errors import Fields, RequestMalformed
from manager.letters import meeting_letter
from manager.mail import Mail
from manager.meetings import Meeting, MeetingState
from manager.reports import SessionReport
from manager.store import Store
from wire.ids import MeetingId, format_meeting_id

MAX_GUESTS: Final = 100
"""Letters that one call sends."""

log = structlog.get_logger()


class Diary:
    """Made once. `site`: https://HOST[:PORT], where the pages are. `clock`: seconds since 1970."""

    def __init__(self, store: Store, mail: Mail, site: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._mail = mail
        self._site = site
        self._clock = clock

    async def schedule(
        self,
        caller: Caller,
        title: str,
        *,
        when: Schedule = ANY_TIME,
        meeting_key: bytes | None = None,
        features_off: list[str] | None = None,
    ) -> Meeting:
        """A new meeting; when it returns, the meeting outlives a power cut. Raises `RequestMalformed` (its fields)."""
        caller.require(Scope.MEETINGS_WRITE)
        meeting = await self._store.write(meetings.schedule, caller.account, title, meeting_key, self._clock(), when, features_off)
        log.info("meeting-scheduled", organizer=caller.account.id)
        return meeting

    async def meetings(self, caller: Caller) -> list[Meeting]:
        """All of the caller's, the newest first; `Meeting.coming(now)` parts those to come from the past ones."""
        caller.require(Scope.MEETINGS_READ)
        return await self._store.look(meetings.list_meetings, caller.account)

    async def meeting(self, caller: Caller, number: MeetingId) -> Meeting:
        """Raises `MeetingUnavailable`."""
        caller.require(Scope.MEETINGS_READ)
        return await self._store.look(meetings.own_meeting, caller.account, number)

    async def edit(
        self,
        caller: Caller,
        number: MeetingId,
        *,
        title: str | None = None,
        when: Schedule | None = None,
        features_off: list[str] | None = None,
    ) -> Meeting:
        """Change what is given; send its guests the new calendar entry (`invite`, `entry`).

        Raises `MeetingUnavailable`, `MeetingEnded`, `RequestMalformed`.
        """
        caller.require(Scope.MEETINGS_WRITE)
        return await self._store.write(meetings.edit, caller.account, number, self._clock(), title=title, when=when, features_off=features_off)

    async def cancel(self, caller: Caller, number: MeetingId) -> Meeting:
        """Raises `MeetingUnavailable`, `MeetingRunning`, `MeetingEnded`."""
        caller.require(Scope.MEETINGS_WRITE)
        return await self._store.write(meetings.cancel, caller.account, number, self._clock())

    async def set_key(self, caller: Caller, number: MeetingId, meeting_key: bytes) -> Meeting:
        """The public meeting key, 32 bytes, that the hosting endpoint has made. Raises as `cancel`, and `RequestMalformed`."""
        caller.require(Scope.MEETINGS_WRITE)
        return await self._store.write(meetings.set_key, caller.account, number, meeting_key, self._clock())

    def link(self, meeting: Meeting) -> str:
        """The link without its fragment."""
        return f"{self._site}/j/{meeting.number}/{meeting.invite.reveal().hex()}"

    async def entry(self, caller: Caller, number: MeetingId) -> bytes:
        """The meeting's calendar entry as it is now, a cancellation if it was cancelled. Raises `MeetingUnavailable`."""
        meeting = await self.meeting(caller, number)
        return self._entry(caller, meeting, "CANCEL" if meeting.state is MeetingState.CANCELLED else "PUBLISH", [])

    async def invite(self, caller: Caller, number: MeetingId, guests: list[str]) -> int:
        """A letter to each, with ID, invitation and calendar entry, or with its cancellation; how many.

        Raises `MeetingUnavailable`, `RequestMalformed` (`guests`), `MailFailed`.
        """
        caller.require(Scope.MEETINGS_WRITE)
        meeting = await self._store.look(meetings.own_meeting, caller.account, number)
        check = Fields()
        cleaned: list[str] = []
        with check("guests"):
            cleaned = list(dict.fromkeys(accounts.clean_email(guest) for guest in guests if guest.strip()))
            if not 1 <= len(cleaned) <= MAX_GUESTS:
                raise RequestMalformed("1 to 100 e-mail addresses at once")
        check.finish()
        await self._store.write(_note_invitations, caller, number, len(cleaned), self._clock())
        cancelled = meeting.state is MeetingState.CANCELLED
        account = caller.account
        for guest in cleaned:
            letter = meeting_letter(
                account.language,
                guest,
                cancelled=cancelled,
                title=meeting.title,
                organizer=account.name,
                when=_when(meeting.schedule, self._clock()),
                link=self.link(meeting),
                number=format_meeting_id(number),
                calendar=self._entry(caller, meeting, "CANCEL" if cancelled else "REQUEST", [guest]),
            )
            self._mail.post(letter)
        return len(cleaned)

    async def sessions(self, caller: Caller, begin: float, end: float) -> list[SessionReport]:
        """The caller's own sessions that were opened in [begin, end), seconds since 1970, the newest first."""
        caller.require(Scope.MEETINGS_READ)
        return await self._store.read(reports.session_reports, begin, end, caller.account)

    def _entry(self, caller: Caller, meeting: Meeting, method: Method, guests: list[str]) -> bytes:
        account, link = caller.account, self.link(meeting)
        return calendar_entry(
            meeting.schedule,
            uid=meeting.uid,
            sequence=meeting.sequence,
            title=meeting.title,
            link=link,
            description=f"{link}\n{format_meeting_id(meeting.number)}",
            changed_at=meeting.changed_at,
            method=method,
            organizer=None if account.email is None else (account.name, account.email),
            guests=guests,
        )


def _when(schedule: Schedule, now: float) -> str:
    """The next time, in the meeting's own zone and in UTC; "" for any time. Figures alone, so that every language reads it."""
    coming = schedule.next(now)
    if coming is None:
        return ""
    local = datetime.fromtimestamp(coming[0], ZoneInfo(schedule.zone))
    universal = datetime.fromtimestamp(coming[0], UTC)
    return f"{local:%Y-%m-%d %H:%M} {schedule.zone} ({universal:%Y-%m-%d %H:%M} UTC)"


def _note_invitations(db: Connection, caller: Caller, number: MeetingId, count: int, now: float) -> None:
    audit.record(db, caller.by, "guests-invited", f"meeting {number}", now, str(count))
