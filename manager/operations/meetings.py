"""Calls of organizers: meetings, invitations, sessions."""

from typing import Final

from msgspec import UNSET

from manager import api_types as t
from manager.calendar import check_schedule
from manager.callers import Scope
from manager.operations.said import meeting_key_untrusted, meeting_shown, report_shown, ticket_given
from manager.operations.table import Call, Text, operation
from wire.ids import ParticipantId

KEY: Final = "A" * 43
READ, WRITE, HOST = Scope.MEETINGS_READ, Scope.MEETINGS_WRITE, Scope.HOST


@operation(
    "POST", "/meetings", "Schedule a meeting.", takes=t.Schedule, gives=t.MeetingShown, status=201, scope=WRITE, replays=True,
    example={
        "title": "Weekly", "meeting_key": KEY, "starts": "2026-03-02T15:00", "zone": "Europe/Paris", "minutes": 45,
        "repeat": {"every": "week", "times": 10}, "features_off": ["recording"],
    },
)  # fmt: skip
async def schedule(call: Call) -> object:
    body: t.Schedule = call.body
    when = check_schedule(body.starts, body.zone, body.minutes, body.repeat)
    key = None if body.meeting_key is None else meeting_key_untrusted(body.meeting_key)
    made = await call.house.diary.schedule(call.caller, body.title, when=when, meeting_key=key, features_off=body.features_off)
    return meeting_shown(call, made)


@operation("GET", "/meetings", "One's meetings, the newest first, 500 at most.", gives=t.MeetingList, scope=READ)
async def list_meetings(call: Call) -> object:
    return t.MeetingList([meeting_shown(call, meeting) for meeting in await call.house.diary.meetings(call.caller)])


@operation("GET", "/meetings/{meeting}", "One meeting.", gives=t.MeetingShown, scope=READ)
async def show_meeting(call: Call) -> object:
    return meeting_shown(call, await call.house.diary.meeting(call.caller, call.meeting))


@operation(
    "PATCH", "/meetings/{meeting}", "Change a meeting.", takes=t.Edit, gives=t.MeetingShown, scope=WRITE, example={"title": "Every week"}
)
async def edit_meeting(call: Call) -> object:
    body: t.Edit = call.body
    when = None if body.starts is UNSET else check_schedule(body.starts, body.zone, body.minutes, body.repeat)
    edited = await call.house.diary.edit(call.caller, call.meeting, title=body.title, when=when, features_off=body.features_off)
    return meeting_shown(call, edited)


@operation("POST", "/meetings/{meeting}/cancel", "It will not take place.", gives=t.MeetingShown, scope=WRITE)
async def cancel_meeting(call: Call) -> object:
    return meeting_shown(call, await call.house.diary.cancel(call.caller, call.meeting))


@operation(
    "PUT", "/meetings/{meeting}/key", "The public meeting key, by the endpoint that will host.", takes=t.MeetingKey, gives=t.MeetingShown,
    scope=WRITE, example={"meeting_key": KEY},
)  # fmt: skip
async def set_meeting_key(call: Call) -> object:
    return meeting_shown(call, await call.house.diary.set_key(call.caller, call.meeting, meeting_key_untrusted(call.body.meeting_key)))


@operation("GET", "/meetings/{meeting}/entry.ics", "The calendar entry, RFC 5545, without a password.", gives="text/calendar", scope=READ)
async def meeting_entry(call: Call) -> object:
    entry = await call.house.diary.entry(call.caller, call.meeting)
    return Text(entry, "text/calendar; charset=utf-8", f"parley-{call.meeting}.ics")


@operation(
    "POST", "/meetings/{meeting}/invitations", "Letters to guests, with ID and invitation; of a cancelled meeting, its cancellation.",
    takes=t.Guests, gives=t.LettersSent, status=202, scope=WRITE, replays=True, example={"guests": ["bob@example.org"]},
)  # fmt: skip
async def invite_guests(call: Call) -> object:
    return t.LettersSent(await call.house.diary.invite(call.caller, call.meeting, call.body.guests))


@operation("POST", "/meetings/{meeting}/open", "The organizer's ticket: open the meeting, or come back to it.", gives=t.TicketGiven, scope=HOST)
async def open_meeting(call: Call) -> object:
    return ticket_given(await call.house.desk.open(call.caller, call.meeting))


@operation("GET", "/sessions", "One's own sessions: attendance and duration.", gives=t.SessionList, scope=READ, query=("from", "to"))
async def own_sessions(call: Call) -> object:
    return t.SessionList([report_shown(made, call.now) for made in await call.house.diary.sessions(call.caller, *call.period)])


@operation("POST", "/sessions/{session}/end", "End a session for everyone.", scope=HOST)
async def end_session(call: Call) -> object:
    await call.house.desk.end(call.caller, call.session)
    return t.Done()


@operation(
    "POST", "/sessions/{session}/revoke", "Make a participant's token worthless.", takes=t.Revoke, scope=HOST, example={"participant": 17}
)
async def revoke_participant(call: Call) -> object:
    await call.house.desk.revoke(call.caller, call.session, ParticipantId(call.body.participant))
    return t.Done()
