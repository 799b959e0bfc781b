"""When meetings take place, against python-dateutil; and calendar entries as another program reads them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil import rrule
from hypothesis import given
from hypothesis import strategies as st
from icalendar import Calendar

from manager.accounts import ZONES
from manager.calendar import ANY_TIME, FORMAT, Repeat, Schedule, calendar_entry, check_schedule
from manager.errors import RequestMalformed

FREQUENCIES = {"day": rrule.DAILY, "week": rrule.WEEKLY, "month": rrule.MONTHLY}
ODD = [
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "America/St_Johns",
    "UTC",
]
moments = st.datetimes(datetime(2024, 1, 1), datetime(2035, 12, 31)).map(lambda moment: moment.replace(second=0, microsecond=0))
repeats = st.builds(Repeat, st.sampled_from(["day", "week", "month"]), st.integers(2, 40), st.integers(1, 13))


@given(moments, st.sampled_from(ODD), repeats)
def test_repetitions_are_those_of_rfc_5545(starts: datetime, zone: str, repeat: Repeat) -> None:
    schedule = check_schedule(starts.strftime(FORMAT), zone, 30, repeat)
    rule = rrule.rrule(FREQUENCIES[repeat.every], dtstart=starts, count=repeat.times, interval=repeat.interval)
    expected = [moment.replace(tzinfo=ZoneInfo(zone)).timestamp() for moment in rule]
    assert [begin for begin, _ in schedule.occurrences()] == expected


@pytest.mark.parametrize(
    ("zone", "starts", "universal"),
    [
        ("Europe/Paris", "2026-03-28T15:00", ["2026-03-28T14:00", "2026-03-29T13:00", "2026-03-30T13:00"]),
        (
            "Europe/Paris",
            "2026-03-28T02:30",
            ["2026-03-28T01:30", "2026-03-29T01:30", "2026-03-30T00:30"],
        ),  # skipped
        ("Europe/Paris", "2026-10-24T02:30", ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"]),  # twice: the first
        ("America/New_York", "2026-11-01T01:30", ["2026-11-01T05:30", "2026-11-02T06:30", "2026-11-03T06:30"]),
        ("Asia/Kathmandu", "2026-01-01T00:00", ["2025-12-31T18:15", "2026-01-01T18:15", "2026-01-02T18:15"]),
    ],
)
def test_the_wall_clock_holds_where_a_zone_changes(zone: str, starts: str, universal: list[str]) -> None:
    schedule = check_schedule(starts, zone, 60, Repeat("day", 3))
    assert [datetime.fromtimestamp(begin, UTC).strftime(FORMAT) for begin, _ in schedule.occurrences()] == universal


@pytest.mark.parametrize(
    ("starts", "zone", "minutes", "field"),
    [
        ("2026-02-29T10:00", "UTC", 60, "starts"),
        ("2026-13-01T10:00", "UTC", 60, "starts"),
        ("26-01-01T10:00", "UTC", 60, "starts"),
        ("2026-1-1T10:00", "UTC", 60, "starts"),
        ("2026-01-01 10:00", "UTC", 60, "starts"),
        ("2026-01-01T10:00Z", "UTC", 60, "starts"),
        ("1999-12-31T10:00", "UTC", 60, "starts"),
        ("2100-01-01T10:00", "UTC", 60, "starts"),
        ("２０２６-01-01T10:00", "UTC", 60, "starts"),
        ("2026-01-01T10:00", "Europe/paris", 60, "zone"),
        ("2026-01-01T10:00", "../../etc/passwd", 60, "zone"),
        ("2026-01-01T10:00", "", 60, "zone"),
        ("2026-01-01T10:00", "UTC", 0, "minutes"),
        ("2026-01-01T10:00", "UTC", 1441, "minutes"),
    ],
)
def test_a_bad_time_is_named_beside_its_field(starts: str, zone: str, minutes: int, field: str) -> None:
    with pytest.raises(RequestMalformed) as wrong:
        check_schedule(starts, zone, minutes)
    assert list(wrong.value.fields) == [field]


@given(st.text(max_size=20), st.text(max_size=20), st.integers())
def test_a_time_raises_its_one_error(starts: str, zone: str, minutes: int) -> None:
    try:
        check_schedule(starts, zone, minutes)
    except RequestMalformed as wrong:
        fields = set(wrong.fields)
    else:
        fields = set()
    assert fields <= {"starts", "zone", "minutes"}


def read(content: bytes) -> Any:
    """As icalendar reads it, whose types are wide."""
    assert all(len(line) <= 75 for line in content.split(b"\r\n"))
    assert content.endswith(b"\r\n")
    assert b"\n" not in content.replace(b"\r\n", b"")
    return Calendar.from_ical(content)


def entry(schedule: Schedule, **more: object) -> bytes:
    words: dict[str, object] = {"uid": "u@parley", "sequence": 3, "title": "Weekly", "link": "https://h/j/123456789/0123"}
    words |= {"description": "x", "changed_at": 1.8e9}
    return calendar_entry(schedule, **(words | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("zone", [*ODD, *sorted(ZONES)[::60]])
def test_an_entry_means_the_same_moment_in_every_zone(zone: str) -> None:
    """As read by a program that knows no zones but the entry's own VTIMEZONE."""
    schedule = check_schedule("2026-03-05T09:30", zone, 45, Repeat("week", 40))
    calendar = read(entry(schedule))
    (event,) = calendar.walk("VEVENT")
    wall = event["DTSTART"].dt.replace(tzinfo=None)
    rule = rrule.rrulestr(event["RRULE"].to_ical().decode(), dtstart=wall)
    zones = calendar.walk("VTIMEZONE")
    theirs = ZoneInfo("UTC") if zone == "UTC" else zones[0].to_tz(lookup_tzid=False)
    read_moments = [moment.replace(tzinfo=theirs).timestamp() for moment in rule]
    assert read_moments == [begin for begin, _ in schedule.occurrences()]
    assert event["DURATION"].dt == timedelta(minutes=45)


def test_updates_and_the_cancellation_are_versions_of_one_entry() -> None:
    first, second = (next(iter(read(entry(ANY_TIME, sequence=at)).walk("VEVENT"))) for at in (0, 1))
    assert (first["UID"], int(first["SEQUENCE"]), int(second["SEQUENCE"])) == (second["UID"], 0, 1)
    calendar = read(entry(ANY_TIME, sequence=2, method="CANCEL"))
    (event,) = calendar.walk("VEVENT")
    assert (str(calendar["METHOD"]), str(event["STATUS"]), int(event["SEQUENCE"])) == ("CANCEL", "CANCELLED", 2)


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=200))
def test_a_title_cannot_break_out_of_its_line(title: str) -> None:
    calendar = read(entry(ANY_TIME, title=title, organizer=(title[:64], "ann@example.org"), guests=["bob@example.org"]))
    (event,) = calendar.walk("VEVENT")
    assert len(calendar.walk()) == 3  # calendar, event, alarm
    assert str(event["UID"]) == "u@parley"
    assert str(event["ATTENDEE"]) == "mailto:bob@example.org"
