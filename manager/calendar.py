"""When a meeting takes place, and its calendar entry. Pure: `now` is an argument.

A time is what a clock on the wall of a zone shows, and a repetition keeps to that clock: 15:00 stays 15:00 when the zone's offset changes.
A time that a zone skips is taken with the offset before the gap, one that it has twice is the first (RFC 5545, 3.3.5). A month without the
day is passed over (3.3.10).

The entry is RFC 5545 with its own VTIMEZONE, one UID for life, SEQUENCE counted up by each change, and CANCEL at the end. What the manager
writes has the meeting ID and the invitation, never a password; an organizer's own program adds the fragment.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import icalendar
import msgspec
from icalendar import Alarm, Calendar, Event, vCalAddress, vDuration, vRecur, vText
from msgspec import Meta

from manager.accounts import clean_zone
from manager.errors import Fields, RequestMalformed

MAX_MINUTES: Final = 24 * 60
MAX_TIMES: Final = 366
FIRST_YEAR, LAST_YEAR = 2000, 2100
FORMAT: Final = "%Y-%m-%dT%H:%M"
PRODUCT: Final = "-//Parley//Parley//EN"
Method = Literal["PUBLISH", "REQUEST", "CANCEL"]


class Repeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every `interval` days, weeks or months, `times` in all."""

    every: Literal["day", "week", "month"]
    times: Annotated[int, Meta(ge=2, le=MAX_TIMES)]
    interval: Annotated[int, Meta(ge=1, le=99)] = 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """`starts`: on the wall of `zone`, without an offset; None: at any time."""

    starts: datetime | None = None
    zone: str = "UTC"
    minutes: int = 60
    repeat: Repeat | None = None

    def occurrences(self) -> Iterator[tuple[float, float]]:
        """Begin and end of each, seconds since 1970, in order."""
        if self.starts is None:
            return
        zone = ZoneInfo(self.zone)
        for local in self._local():
            begin = local.replace(tzinfo=zone).timestamp()
            yield begin, begin + self.minutes * 60

    def next(self, now: float) -> tuple[float, float] | None:
        """The occurrence that runs, or the next one; None when all are over."""
        return next((times for times in self.occurrences() if times[1] > now), None)

    def over(self, now: float) -> bool:
        """Whether no occurrence runs or comes any more; never, at any time."""
        return now >= _end(self)

    def _local(self) -> Iterator[datetime]:
        assert self.starts is not None
        repeat = self.repeat
        yield self.starts
        if repeat is None:
            return
        given, step = 1, 0
        while given < repeat.times:
            step += repeat.interval
            if repeat.every == "month":
                month = self.starts.month - 1 + step
                try:
                    local = self.starts.replace(year=self.starts.year + month // 12, month=month % 12 + 1)
                except ValueError:
                    continue  # no such day in this month
            else:
                local = self.starts + timedelta(days=step * (7 if repeat.every == "week" else 1))
            given += 1
            yield local


@lru_cache(4096)
def _end(schedule: Schedule) -> float:
    """Of the last occurrence. Lists of meetings ask far more often than schedules change."""
    return max((end for _, end in schedule.occurrences()), default=math.inf)


ANY_TIME: Final = Schedule()


def check_schedule(starts: str | None, zone: str = "UTC", minutes: int = 60, repeat: Repeat | None = None) -> Schedule:
    """From what was typed: `starts` is YYYY-MM-DDTHH:MM, or empty. Raises `RequestMalformed` with `starts`, `zone`, `minutes`, `repeat`."""
    check = Fields()
    moment = None
    with check("starts"):
        moment = _moment(starts) if starts else None
    with check("zone"):
        clean_zone(zone)
    with check("minutes"):
        if not 1 <= minutes <= MAX_MINUTES:
            raise RequestMalformed("a meeting takes 1 to 1440 minutes")
    with check("repeat"):
        if repeat is not None and not starts:
            raise RequestMalformed("a meeting without a time does not repeat")
    check.finish()
    return Schedule(moment, zone, minutes, repeat)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.strptime(text, FORMAT)  # a wall clock's time; its zone stands beside it
    except ValueError:
        raise RequestMalformed("a time looks like 2026-03-01T15:00") from None
    if not (text.isascii() and len(text) == 16):  # strptime takes other scripts' digits, and fewer
        raise RequestMalformed("a time looks like 2026-03-01T15:00")
    if not FIRST_YEAR <= moment.year < LAST_YEAR:
        raise RequestMalformed("a time lies between 2000 and 2099, such as 2026-03-01T15:00")
    return moment


def calendar_entry(
    schedule: Schedule,
    *,
    uid: str,
    sequence: int,
    title: str,
    link: str,
    description: str,
    changed_at: float,
    method: Method = "PUBLISH",
    organizer: tuple[str, str] | None = None,
    guests: list[str] | None = None,
) -> bytes:
    """An iCalendar object of one meeting, UTF-8 with CRLF. `organizer`: name and e-mail. A meeting at any time has an entry of one hour at
    the moment of its last change, since an entry must have a time."""
    calendar = Calendar()
    calendar.add("prodid", PRODUCT)
    calendar.add("version", "2.0")
    calendar.add("calscale", "GREGORIAN")
    calendar.add("method", method)
    event = Event()
    changed = datetime.fromtimestamp(int(changed_at), UTC)
    event.add("uid", uid)
    event.add("sequence", sequence)
    event.add("dtstamp", changed)
    event.add("last-modified", changed)
    zone = ZoneInfo(schedule.zone)
    starts = changed if schedule.starts is None else schedule.starts.replace(tzinfo=UTC if schedule.zone == "UTC" else zone)
    event.add("dtstart", starts)
    event.add("duration", vDuration(timedelta(minutes=schedule.minutes)))
    repeat = schedule.repeat
    if repeat is not None:
        frequency = {"day": "DAILY", "week": "WEEKLY", "month": "MONTHLY"}[repeat.every]
        event.add("rrule", vRecur({"freq": frequency, "interval": repeat.interval, "count": repeat.times}))
    event.add("summary", title)
    event.add("description", description)
    event.add("url", link)
    event.add("location", link)
    event.add("status", "CANCELLED" if method == "CANCEL" else "CONFIRMED")
    if organizer is not None:
        event.add("organizer", _person(*organizer))
    for guest in guests or ():
        person = _person("", guest)
        person.params["RSVP"] = vText("TRUE")
        event.add("attendee", person, encode=False)
    if method != "CANCEL":
        alarm = Alarm()
        alarm.add("action", "DISPLAY")
        alarm.add("description", title)
        alarm.add("trigger", timedelta(minutes=-10))
        event.add_component(alarm)
    calendar.add_component(event)
    if starts.tzinfo is not UTC:
        last = max((begin for begin, _ in schedule.occurrences()), default=starts.timestamp())
        first_day = (starts - timedelta(days=366)).date()
        last_day = datetime.fromtimestamp(last + 366 * 86_400, UTC).date()
        calendar.add_component(icalendar.Timezone.from_tzinfo(zone, schedule.zone, first_day, last_day))
        calendar.subcomponents.reverse()  # definitions before use
    return bytes(calendar.to_ical())


def _person(name: str, email: str) -> vCalAddress:
    person = vCalAddress(f"mailto:{email}")
    if name:
        person.params["CN"] = vText(name)
    return person
