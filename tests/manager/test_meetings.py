"""Meetings: their numbers, their titles, and what a stranger may learn."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from manager import keys, meetings, tickets
from manager.accounts import Account
from manager.errors import RequestMalformed
from manager.hidden import NO_INVITE, Hidden
from manager.meetings import HELD_AFTER_END, MeetingState, Standing
from manager.store import Store
from tests.manager.support import account_of_key
from wire.ids import MEETING_IDS, MeetingId


def chi_square(counts: list[int], expected: float) -> float:
    return sum((count - expected) ** 2 / expected for count in counts)


def test_G19_meeting_ids_are_uniform() -> None:
    """Of the real generator, so the bounds are those that chance passes once in 10^9 runs (8 standard deviations)."""
    drawn = [meetings.draw_meeting_id() for _ in range(60_000)]
    assert all(number in MEETING_IDS for number in drawn)
    bins = Counter((number - MEETING_IDS.start) * 100 // len(MEETING_IDS) for number in drawn)
    assert chi_square([bins[b] for b in range(100)], 600) < 99 + 8 * (2 * 99) ** 0.5
    for place in range(1, 9):
        digits = Counter(str(number)[place] for number in drawn)
        assert chi_square([digits[d] for d in "0123456789"], 6_000) < 9 + 12 * (2 * 9) ** 0.5
    first = Counter(str(number)[0] for number in drawn)
    assert chi_square([first[d] for d in "123456789"], 60_000 / 9) < 8 + 12 * (2 * 8) ** 0.5
    steps = Counter((after - before) % 2 for before, after in pairwise(drawn))
    assert chi_square([steps[0], steps[1]], 59_999 / 2) < 40


def test_G19_a_number_is_drawn_again_when_it_is_taken(store: Store, organizer: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([111_111_111, 111_111_111, 111_111_111, 222_222_222, 111_111_111])
    monkeypatch.setattr(meetings, "draw_meeting_id", lambda: MeetingId(next(numbers)))
    first = store.write_now(meetings.schedule, organizer, "one", bytes(32), 1.0)
    second = store.write_now(meetings.schedule, organizer, "two", bytes(32), 1.0)
    assert (first.number, second.number) == (111_111_111, 222_222_222)
    store.write_now(meetings.set_state, first.id, MeetingState.ENDED, 10.0)
    late = 10.0 + HELD_AFTER_END
    monkeypatch.setattr(meetings, "_DRAWS", 1)
    numbers = iter([111_111_111, 111_111_111])
    with pytest.raises(AssertionError, match="taken"):
        store.write_now(meetings.schedule, organizer, "three", bytes(32), late)
    third = store.write_now(meetings.schedule, organizer, "three", bytes(32), late + 1)
    assert third.number == first.number
    found = store.read_now(meetings.find_meeting, third.number)
    assert found is not None
    assert found.title == "three"
    assert [m.title for m in store.read_now(meetings.list_meetings, organizer)] == ["three", "two", "one"]
    stale = store.read_now(meetings.standing, third.number, first.invite)
    assert stale == (Standing.UNAVAILABLE, None)  # an old link does not lead into another's meeting


def test_G18_a_look_up_takes_the_same_steps_through_an_index_whatever_there_is(sqlite_store: Store) -> None:
    work: list[tuple[str, Any]] = []
    event.listen(sqlite_store.engine, "before_cursor_execute", lambda _, __, statement, values, *___: work.append((statement, values)))
    sqlite_store.read_now(meetings.find_meeting, MeetingId(123_456_789))
    query, values = work[-1]
    with sqlite_store.engine.connect() as db:
        steps = [str(row[3]) for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values)]
    assert len(steps) == 2
    assert all(step.startswith("SEARCH") and "INDEX" in step for step in steps)


def test_organizers_see_their_own_meetings_alone(store: Store, organizer: Account) -> None:
    key = store.write_now(keys.add_organizer, "bob", 1.0)
    bob = store.read_now(account_of_key, key)
    store.write_now(meetings.schedule, organizer, "ann's", bytes(32), 1.0)
    assert [m.title for m in store.read_now(meetings.list_meetings, organizer)] == ["ann's"]
    assert store.read_now(meetings.list_meetings, bob) == []


@pytest.mark.parametrize("state", ["scheduled", "open", "ended"])
@pytest.mark.parametrize("shown", ["right", "wrong", "zero", "none"])
def test_G18_standing(store: Store, organizer: Account, state: str, shown: str) -> None:
    meeting = store.write_now(meetings.schedule, organizer, "x", bytes(32), 1.0)
    if state != "scheduled":
        ticket = store.write_now(tickets.open_meeting, organizer, meeting.number, tickets.draw_session_id(), "relay-1", 2.0)
        if state == "ended":
            store.write_now(tickets.end_session, organizer, ticket.session, 3.0)
    invite = {"right": meeting.invite, "wrong": Hidden(b"\1" * 8), "zero": NO_INVITE, "none": None}[shown]
    standing, seen = store.read_now(meetings.standing, meeting.number, invite)
    expected = {
        ("scheduled", "right"): Standing.NOT_OPEN_YET,
        ("open", "right"): Standing.OPEN,
        ("open", "none"): Standing.OPEN,
    }.get((state, shown), Standing.UNAVAILABLE)
    assert standing is expected
    assert (seen is not None) == (standing is Standing.OPEN)
    absent = MeetingId(MEETING_IDS.start + (meeting.number + 1) % len(MEETING_IDS))
    assert store.read_now(meetings.standing, absent, invite) == (Standing.UNAVAILABLE, None)


@pytest.mark.parametrize("title", ["", "   ", "x" * 201, "a\nb", "a\x00", "a\u202eb", "\u2066x\u2069", "a\u2028b", "\ufeffx"])
def test_a_bad_title_is_refused(title: str) -> None:
    with pytest.raises(RequestMalformed):
        meetings.clean_title(title)


@pytest.mark.parametrize("title", ["Weekly", "会议", "اجتماع", "👩‍💻", "é", "x" * 200])
def test_a_title_may_be_in_any_script(title: str) -> None:
    assert meetings.clean_title(f" {title} ") == title


@given(st.text())
def test_cleaning_a_title_twice_changes_nothing(title: str) -> None:
    try:
        cleaned = meetings.clean_title(title)
    except RequestMalformed:
        return
    assert meetings.clean_title(cleaned) == cleaned


def test_a_meeting_key_has_its_size(store: Store, organizer: Account) -> None:
    with pytest.raises(RequestMalformed):
        store.write_now(meetings.schedule, organizer, "x", bytes(31), 1.0)


def test_G21_secrets_hide(store: Store, organizer: Account) -> None:
    meeting = store.write_now(meetings.schedule, organizer, "x", bytes(32), 1.0)
    assert meeting.invite.reveal().hex() not in repr(meeting)
    assert repr(meeting.invite.reveal()) not in repr(meeting)
