"""Pages of an organizer's meetings.

The password of a meeting is no part of this: scripts make it in the organizer's browser and put it behind the `#` of the link that these pages
show without it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from starlette.responses import Response

from manager.calendar import MAX_MINUTES, MAX_TIMES, Repeat, Schedule, check_schedule
from manager.errors import Fields, RequestMalformed
from manager.meetings import Meeting, MeetingState
from manager.site.forms import Form, whole_untrusted
from manager.site.languages import Language, languages
from manager.site.pages import meeting_number
from manager.site.visit import N_, Visit, bad
from wire.ids import MeetingId

REPEATS: Final = {"": None, "day": ("day", 1), "week": ("week", 1), "fortnight": ("week", 2), "month": ("month", 1)}
REPEAT_WORDS: Final = {
    "": N_("Once"),
    "day": N_("Every day"),
    "week": N_("Every week"),
    "fortnight": N_("Every two weeks"),
    "month": N_("Every month"),
}
OTHER_WORDS: Final = {"day": N_("Every %(count)d days"), "week": N_("Every %(count)d weeks"), "month": N_("Every %(count)d months")}
KEPT: Final = "kept"
"""A repetition that programs may ask for and the form does not offer: it stays as it is."""
FIELDS: Final = ("title", "date", "time", "minutes", "zone", "every", "times", "features")
LENGTHS: Final = (15, 30, 45, 60, 90, 120, 180, 240, 480)
FEATURES: Final = {
    "chat": N_("Chat to all"),
    "whisper": N_("Whisper to one"),
    "screen": N_("Share a screen"),
    "remote-control": N_("Hand over mouse and keyboard"),
    "files": N_("Send files"),
    "voice": N_("Voice"),
    "recording": N_("Recording"),
}
_WITH_PASSWORD: Final = N_("""You are invited to a meeting.

%(title)s
%(when)s

Join: {link}
Meeting ID: %(id)s
Password: {password}

Keep the link to yourself: it holds the password, which no server knows.
""")
_WITHOUT: Final = N_("""You are invited to a meeting.

%(title)s
%(when)s

Join: {link}
Meeting ID: %(id)s
""")


@dataclass(frozen=True, slots=True)
class Day:
    month: str
    day: int


@dataclass(frozen=True, slots=True)
class Told:
    """A schedule in the reader's words. `foreign`: the same time in its own zone, if that is another. `begins`: since 1970, 0 is any time."""

    when: str
    foreign: str
    repeats: str
    length: str
    day: Day | None
    begins: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A meeting as a page shows it. `sort`: where it stands among others."""

    number: MeetingId
    title: str
    state: str
    coming: bool
    has_key: bool
    told: Told
    sort: float


@dataclass(frozen=True, slots=True)
class Start:
    """What stands in the form before anything is typed."""

    title: str = ""
    timed: str = "yes"
    date: str = ""
    time: str = ""
    minutes: int = 60
    zone: str = "UTC"
    guess_zone: bool = False
    every: str = ""
    times: int = 10
    features_off: frozenset[str] = frozenset()


async def index(visit: Visit) -> Response:
    """Coming and past."""
    now = visit.site.clock()
    found = await visit.site.diary.meetings(visit.who)
    shown = [_shown(meeting, visit.language, visit.who.account.zone, now) for meeting in found]
    coming = sorted((meeting for meeting in shown if meeting.coming), key=lambda meeting: meeting.sort)
    past = sorted((meeting for meeting in shown if not meeting.coming), key=lambda meeting: -meeting.sort)
    return visit.render("meetings/list.html", coming=coming, past=past)


async def new(visit: Visit) -> Response:
    account = visit.who.account
    if visit.posted:
        form = await visit.read_form()
        with form.judging(*FIELDS):
            when = schedule_untrusted(form)
            off = sorted(account.features - set(form.all("features")))
            meeting = await visit.site.diary.schedule(visit.who, form.text("title"), when=when, features_off=off)
            return visit.done(f"/meetings/{meeting.number}", "scheduled")
    soon = datetime.fromtimestamp(visit.site.clock(), ZoneInfo(account.zone)) + timedelta(hours=1)
    start = Start(date=soon.date().isoformat(), time=f"{soon.hour:02}:00", zone=account.zone, guess_zone=account.zone == "UTC")
    return _form(visit, start, None)


async def edit(visit: Visit) -> Response:
    meeting = await visit.site.diary.meeting(visit.who, _number(visit))
    if visit.posted:
        form = await visit.read_form()
        with form.judging(*FIELDS):
            when = schedule_untrusted(form, meeting.schedule.repeat)
            have = visit.who.account.features
            off = sorted((have - set(form.all("features"))) | (meeting.features_off - have))  # what the form did not show stays off
            await visit.site.diary.edit(visit.who, meeting.number, title=form.text("title"), when=when, features_off=off)
            return visit.done(f"/meetings/{meeting.number}", "saved")
    when = meeting.schedule
    start = Start(
        title=meeting.title,
        timed="yes" if when.starts else "",
        date=when.starts.date().isoformat() if when.starts else "",
        time=when.starts.strftime("%H:%M") if when.starts else "",
        minutes=when.minutes,
        zone=when.zone,
        every=_every(when.repeat),
        times=when.repeat.times if when.repeat else 10,
        features_off=meeting.features_off,
    )
    return _form(visit, start, meeting)


async def show(visit: Visit) -> Response:
    """One meeting: its invitation, when it is, how it is opened."""
    return _show(visit, await visit.site.diary.meeting(visit.who, _number(visit)))


async def invite(visit: Visit) -> Response:
    """The server sends invitations, with ID and INVITE alone."""
    meeting = await visit.site.diary.meeting(visit.who, _number(visit))
    form = await visit.read_form()
    with form.judging("guests", otherwise="guests"):
        guests = form.text("guests").replace(",", " ").replace(";", " ").split()
        await visit.site.diary.invite(visit.who, meeting.number, guests)
        return visit.done(f"/meetings/{meeting.number}", "mailed")
    return _show(visit, meeting)


async def cancel(visit: Visit) -> Response:
    number = _number(visit)
    with visit.form.judging():
        await visit.site.diary.cancel(visit.who, number)
        return visit.done(f"/meetings/{number}", "cancelled")
    return _show(visit, await visit.site.diary.meeting(visit.who, number))


async def calendar(visit: Visit) -> Response:
    """The calendar entry; the page's script puts the whole link into it."""
    number = _number(visit)
    headers = {"content-disposition": f'attachment; filename="meeting-{number}.ics"'}
    return Response(await visit.site.diary.entry(visit.who, number), media_type="text/calendar; charset=utf-8", headers=headers)


def schedule_untrusted(form: Form, before: Repeat | None = None) -> Schedule:
    """When, from what was typed. `before`: how the meeting repeats, for `KEPT`. Raises `RequestMalformed` with the form's fields."""
    timed = form.text("timed") == "yes"
    date, time, every = form.text("date"), form.text("time"), form.text("every")
    check = Fields()
    minutes, repeat = 60, None
    if timed:
        with check("date"):
            if not date:
                raise RequestMalformed(N_("choose a day"))
        with check("time"):
            if not time:
                raise RequestMalformed(N_("choose a time"))
        with check("minutes"):
            minutes = whole_untrusted(form.text("minutes"), 1, MAX_MINUTES, N_("a meeting takes 1 to 1440 minutes"))
        with check("times"):
            if every not in REPEATS and not (every == KEPT and before):
                raise bad("every", N_("choose one of the list"))
            chosen = (before.every, before.interval) if every == KEPT and before else REPEATS[every]
            if chosen is not None:
                times = whole_untrusted(form.text("times"), 2, MAX_TIMES, N_("a meeting repeats 2 to 366 times"))
                repeat = Repeat(chosen[0], times, chosen[1])
    check.finish()
    try:
        return check_schedule(f"{date}T{time}" if timed else None, form.text("zone") or "UTC", minutes, repeat)
    except RequestMalformed as wrong:
        fields = {{"starts": "date", "repeat": "every"}.get(field, field): problem for field, problem in wrong.fields.items()}
        raise RequestMalformed(wrong.detail, fields=fields) from None


def _number(visit: Visit) -> MeetingId:
    return MeetingId(visit.number())


def _form(visit: Visit, start: Start, meeting: Meeting | None) -> Response:
    words = visit.language.duration
    lengths = [(minutes, words(minutes * 60)) for minutes in sorted({*LENGTHS, start.minutes})]
    have = visit.who.account.features
    repeat = None if meeting is None else meeting.schedule.repeat
    kept = [(KEPT, _how(repeat, visit.language))] if repeat and _every(repeat) == KEPT else []
    return visit.render(
        "meetings/edit.html",
        meeting=meeting,
        start=start,
        lengths=lengths,
        repeats=[(key, visit.say(said)) for key, said in REPEAT_WORDS.items()] + kept,
        features=[(feature, visit.say(said)) for feature, said in FEATURES.items() if feature in have],
    )


def _show(visit: Visit, meeting: Meeting) -> Response:
    shown = _shown(meeting, visit.language, visit.who.account.zone, visit.site.clock())
    words = {"title": meeting.title, "when": shown.told.foreign or shown.told.when, "id": meeting_number(meeting.number)}
    return visit.render(
        "meetings/show.html",
        meeting=shown,
        fresh=visit.noticed == "scheduled",
        link=visit.site.diary.link(meeting),
        invitation={
            "with_password": visit.say(_WITH_PASSWORD) % words,
            "without_password": visit.say(_WITHOUT) % words,
            "subject": meeting.title,
        },
    )


def _every(repeat: Repeat | None) -> str:
    return next((key for key, chosen in REPEATS.items() if chosen == (repeat and (repeat.every, repeat.interval))), KEPT)


def _how(repeat: Repeat, language: Language) -> str:
    every = _every(repeat)
    return language.say(OTHER_WORDS[repeat.every]) % {"count": repeat.interval} if every == KEPT else language.say(REPEAT_WORDS[every])


def _shown(meeting: Meeting, language: Language, zone: str, now: float) -> Shown:
    told = _told(meeting.schedule, language.code, zone, now // 60)
    return Shown(
        number=meeting.number,
        title=meeting.title,
        state=meeting.state.value,
        coming=meeting.coming(now),
        has_key=meeting.meeting_key is not None,
        told=told,
        sort=0.0 if meeting.state is MeetingState.OPEN else told.begins,
    )


@lru_cache(4096)
def _told(when: Schedule, code: str, zone: str, minute: float) -> Told:
    """Words for a schedule as of a minute since 1970. A list of meetings is read far more often than it changes."""
    language = languages()[code]
    words, foreign, day, begins = language.say(N_("Any time")), "", None, 0.0
    times = when.next(minute * 60) or next(iter(when.occurrences()), None)
    if times is not None:
        begins = times[0]
        there = datetime.fromtimestamp(begins, ZoneInfo(when.zone))
        here = there.astimezone(ZoneInfo(zone))
        words = language.when(here)
        if there.utcoffset() != here.utcoffset():
            foreign = f"{language.when(there)} ({when.zone.replace('_', ' ')})"
        day = Day(language.month(here), here.day)
    length = "" if when.starts is None else language.duration(when.minutes * 60)
    return Told(words, foreign, _repeats(when, language), length, day, begins)


def _repeats(when: Schedule, language: Language) -> str:
    if when.repeat is None:
        return ""
    return language.say(N_("%(how)s, %(times)d times")) % {"how": _how(when.repeat, language), "times": when.repeat.times}
