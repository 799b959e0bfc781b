"""Tickets: what is unique, what moves the office, what the end erases, and what relays are told."""

import csv
from pathlib import Path

import pytest
from sqlalchemy import select

from manager import accounts, keys, meetings, reports, tickets
from manager.accounts import Account
from manager.calendar import Repeat, check_schedule
from manager.errors import MeetingEnded, MeetingUnavailable, ParticipantUnknown, SessionFull, SessionUnknown
from manager.meetings import Meeting, MeetingState
from manager.policy import FEATURES, Policy, set_policy
from manager.store import Store, grants, sessions
from manager.tickets import Ticket
from tests.manager.support import account_of_key
from wire.control import MAX_ENTRIES, Facts
from wire.ids import ParticipantId, Role, SessionId


@pytest.fixture
def meeting(store: Store, organizer: Account) -> Meeting:
    return store.write_now(meetings.schedule, organizer, "x", bytes(32), 1.0)


def opened(store: Store, organizer: Account, meeting: Meeting, node: str = "relay-1", now: float = 2.0) -> Ticket:
    return store.write_now(tickets.open_meeting, organizer, meeting.number, tickets.draw_session_id(), node, now)


def admitted(store: Store, meeting: Meeting, node: str = "relay-1") -> Ticket:
    found = store.read_now(meetings.find_meeting, meeting.number)
    assert found is not None
    return store.write_now(tickets.admit_guest, found, node, 3.0)


def test_tickets_of_one_session(store: Store, organizer: Account, meeting: Meeting) -> None:
    first = opened(store, organizer, meeting)
    guests = [admitted(store, meeting) for _ in range(5)]
    every = [first, *guests]
    assert {t.session for t in every} == {first.session}
    assert all(t.secret == first.secret for t in every)
    assert len({t.participant for t in every}) == len({t.token.reveal() for t in every}) == 6
    assert (first.role, first.told.office, first.told.term) == (Role.ORGANIZER, first.participant, 1)
    assert {(t.role, t.told.office, t.told.term) for t in guests} == {(Role.ATTENDEE, 0, 0)}
    assert [(g.participant, g.token) for g in first.told.grants] == [(first.participant, first.token.reveal())]


def test_a_restarted_organizer_takes_the_office_with_a_higher_term(store: Store, organizer: Account, meeting: Meeting) -> None:
    first, second = opened(store, organizer, meeting), opened(store, organizer, meeting, "relay-2")
    assert second.session == first.session
    assert second.secret == first.secret
    assert second.participant != first.participant
    assert (second.told.office, second.told.term) == (second.participant, 2)
    found = store.read_now(meetings.find_meeting, meeting.number)
    assert found is not None
    assert found.primary_node == "relay-2"


def test_an_office_that_was_handed_over_stays_there(store: Store, organizer: Account, meeting: Meeting) -> None:
    first, guest = opened(store, organizer, meeting), admitted(store, meeting)
    store.write_now(tickets.learn, Facts(1, first.session, office=guest.participant, term=2), 4.0)
    again = opened(store, organizer, meeting)
    assert (again.role, again.told.office) == (Role.ATTENDEE, 0)
    assert store.read_now(tickets.facts_of, first.session)[0].office == guest.participant
    with pytest.raises(SessionUnknown):  # it is not this account's to end any more, nor to cast anybody out of
        store.write_now(tickets.end_session, organizer, first.session, 5.0)
    with pytest.raises(SessionUnknown):
        store.write_now(tickets.revoke, organizer, first.session, guest.participant, 5.0)


def test_a_participant_id_is_drawn_again_when_it_was_used(
    store: Store, organizer: Account, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(store, organizer, meeting)
    store.write_now(tickets.revoke, organizer, first.session, first.participant, 3.0)
    draws = iter([first.participant - 1, first.participant - 1, 76])
    monkeypatch.setattr("manager.tickets.secrets.randbelow", lambda _: next(draws))
    assert admitted(store, meeting).participant == 77


def test_a_session_has_a_bounded_number_of_grants(store: Store, organizer: Account, meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_GRANTS", 3)
    opened(store, organizer, meeting)
    admitted(store, meeting)
    admitted(store, meeting)
    with pytest.raises(SessionFull):
        admitted(store, meeting)


def test_only_the_own_meeting_is_opened(store: Store, organizer: Account, meeting: Meeting) -> None:
    bob = store.read_now(account_of_key, store.write_now(keys.add_organizer, "bob", 1.0))
    with pytest.raises(MeetingUnavailable):
        opened(store, bob, meeting)
    ticket = opened(store, organizer, meeting)
    with pytest.raises(SessionUnknown):
        store.write_now(tickets.end_session, bob, ticket.session, 3.0)
    with pytest.raises(SessionUnknown):
        store.write_now(tickets.revoke, bob, ticket.session, ticket.participant, 3.0)
    with pytest.raises(SessionUnknown):
        store.write_now(tickets.end_session, organizer, SessionId(ticket.session ^ 1), 3.0)
    with pytest.raises(ParticipantUnknown):
        store.write_now(tickets.revoke, organizer, ticket.session, ParticipantId(ticket.participant ^ 1), 3.0)


def test_G04_the_end_erases_tokens_and_secret_and_refuses_what_comes_later(
    store: Store, organizer: Account, meeting: Meeting, tmp_path: Path
) -> None:
    first, guest = opened(store, organizer, meeting), admitted(store, meeting)
    stale = store.read_now(meetings.find_meeting, meeting.number)
    assert stale is not None
    assert store.write_now(tickets.end_session, organizer, first.session, 5.0)
    assert not store.write_now(tickets.end_session, organizer, first.session, 6.0)
    with pytest.raises(MeetingEnded):
        opened(store, organizer, meeting)
    with pytest.raises(MeetingUnavailable):
        store.write_now(tickets.admit_guest, stale, "relay-1", 7.0)  # looked up before the end
    with pytest.raises(SessionUnknown):
        store.write_now(tickets.revoke, organizer, first.session, guest.participant, 7.0)
    store.close()
    disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for gone in (first.secret.reveal(), first.token.reveal(), guest.token.reveal()):
        assert gone not in disk


def test_relays_are_told_all_of_a_session_in_parts(store: Store, organizer: Account, meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_ENTRIES", 4)
    first = opened(store, organizer, meeting)
    guests = [admitted(store, meeting) for _ in range(10)]
    store.write_now(tickets.revoke, organizer, first.session, guests[0].participant, 4.0)
    parts = store.read_now(tickets.facts_of, first.session)
    assert len(parts) == 3
    given = {(g.participant, g.role, g.token) for part in parts for g in part.grants}
    assert given == {(t.participant, t.role, t.token.reveal()) for t in [first, *guests[1:]]}
    assert [p for part in parts for p in part.revoked] == [guests[0].participant]
    assert {(part.office, part.term) for part in parts} == {(first.participant, 1)}
    assert MAX_ENTRIES == 1024


def test_G04_a_relay_may_say_that_the_session_is_over(store: Store, organizer: Account, meeting: Meeting) -> None:
    first, guest = opened(store, organizer, meeting), admitted(store, meeting)
    learnt = store.write_now(tickets.learn, Facts(1, first.session, revoked=[guest.participant]), 4.0)
    assert (learnt.known, learnt.ended, learnt.over) == (True, False, False)
    assert store.read_now(tickets.facts_of, first.session)[0].revoked == [guest.participant]
    assert store.write_now(tickets.learn, Facts(1, first.session, ended=True), 4.0).ended
    again = store.write_now(tickets.learn, Facts(1, first.session, ended=True), 4.0)
    assert (again.ended, again.over) == (False, False)
    assert store.write_now(tickets.learn, Facts(1, first.session, office=first.participant, term=1), 4.0).over
    assert not store.write_now(tickets.learn, Facts(1, first.session ^ 1, ended=True), 4.0).known
    assert store.read_now(tickets.facts_of, first.session) == [tickets.ended_facts(first.session)]
    assert store.read_now(tickets.running_sessions) == []
    with pytest.raises(MeetingEnded):
        opened(store, organizer, meeting)


def test_an_abandoned_session_ends(store: Store, organizer: Account, meeting: Meeting) -> None:
    first, late = opened(store, organizer, meeting), 3.0 + tickets.ABANDONED_AFTER
    admitted(store, meeting)  # at 3.0
    assert store.write_now(tickets.end_abandoned, late) == []
    assert store.write_now(tickets.end_abandoned, late + 1) == [first.session]
    assert store.write_now(tickets.end_abandoned, late + 1) == []
    assert store.read_now(meetings.list_meetings, organizer)[0].state is MeetingState.ENDED


def test_a_lower_term_changes_nothing(store: Store, organizer: Account, meeting: Meeting) -> None:
    first = opened(store, organizer, meeting)
    second = opened(store, organizer, meeting)
    for term in (1, 2):
        store.write_now(tickets.learn, Facts(1, first.session, office=first.participant, term=term), 4.0)
    assert store.read_now(tickets.facts_of, first.session)[0].office == second.participant


def test_G21_a_ticket_shows_no_secret(store: Store, organizer: Account, meeting: Meeting) -> None:
    ticket = opened(store, organizer, meeting)
    shown = repr(ticket) + str(ticket)
    for secret in (ticket.token.reveal(), ticket.secret.reveal(), ticket.session.to_bytes(8, "big")):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert str(ticket.session) not in shown


def test_session_ids_have_64_bits() -> None:
    drawn = {tickets.draw_session_id() for _ in range(2_000)}
    assert len(drawn) == 2_000
    for bit in range(64):
        assert 700 < sum(session >> bit & 1 for session in drawn) < 1_300  # 13 standard deviations


def test_one_session_runs_for_a_meeting(store: Store, organizer: Account, meeting: Meeting) -> None:
    opened(store, organizer, meeting)
    with store.engine.connect() as db:
        assert len(db.execute(select(sessions.c.id)).all()) == 1
        assert len(db.execute(select(grants.c.participant)).all()) == 1


def test_G01_a_meeting_that_repeats_is_open_again_next_time(store: Store, organizer: Account) -> None:
    """A new session each time, with its own secret, under one number; after the last one the meeting has ended."""
    when = check_schedule("2030-01-07T10:00", "Europe/Paris", 60, Repeat("week", 2))
    begins = [begin for begin, _ in when.occurrences()]
    meeting = store.write_now(meetings.schedule, organizer, "weekly", bytes(32), 1.0, when)
    secrets, states = [], []
    for begin in begins:
        ticket = store.write_now(tickets.open_meeting, organizer, meeting.number, tickets.draw_session_id(), "relay-1", begin)
        secrets.append(ticket.secret.reveal())
        store.write_now(tickets.end_session, organizer, ticket.session, begin + 3601)
        found = store.read_now(meetings.own_meeting, organizer, meeting.number)
        states.append((found.state, found.coming(begin + 3601)))
    assert states == [(MeetingState.SCHEDULED, True), (MeetingState.ENDED, False)]
    assert len(set(secrets)) == 2
    with pytest.raises(MeetingEnded):
        store.write_now(tickets.open_meeting, organizer, meeting.number, tickets.draw_session_id(), "relay-1", begins[1])


def test_G14_a_ticket_carries_what_administrators_and_organizer_left_on(store: Store, organizer: Account) -> None:
    store.write_now(set_policy, Policy(features_off=["recording"]))
    store.write_now(accounts.change, organizer.id, features_off=["remote-control"])
    account = store.read_now(accounts.account_of, organizer.id)
    meeting = store.write_now(meetings.schedule, account, "x", bytes(32), 1.0, features_off=["whisper"])
    ticket = store.write_now(tickets.open_meeting, account, meeting.number, tickets.draw_session_id(), "relay-1", 2.0)
    assert ticket.features == set(FEATURES) - {"recording", "remote-control", "whisper"}
    running = store.read_now(meetings.own_meeting, account, meeting.number)
    store.write_now(accounts.change, organizer.id, features_off=["chat"])  # at once, for tickets from now on
    guest = store.write_now(tickets.admit_guest, running, "relay-1", 3.0)
    assert guest.features == set(FEATURES) - {"recording", "chat", "whisper"}


def test_G14_a_report_matches_what_happened(store: Store, organizer: Account) -> None:
    meeting = store.write_now(meetings.schedule, organizer, "=cmd()", bytes(32), 1.0)
    ticket = store.write_now(tickets.open_meeting, organizer, meeting.number, tickets.draw_session_id(), "relay-1", 1000.0)
    running = store.read_now(meetings.own_meeting, organizer, meeting.number)
    guests = [store.write_now(tickets.admit_guest, running, "relay-1", 1010.0 + at).participant for at in range(5)]
    let_in: list[int] = [
        ticket.participant,
        *guests[:3],
        ParticipantId(99),
    ]  # of five guests three; the last is not ours
    for _ in range(2):  # two relays say it
        store.write_now(tickets.learn, Facts(1, ticket.session, admitted=let_in), 1020.0)
    store.write_now(tickets.end_session, organizer, ticket.session, 1900.0)
    (made,) = store.read_now(reports.session_reports, 0.0, 2000.0)
    assert (made.meeting, made.organizer, made.attendees, made.opened_at, made.ended_at) == (meeting.number, organizer.id, 3, 1000.0, 1900.0)
    assert made.minutes(0.0) == 15.0
    assert store.read_now(reports.session_reports, 1001.0, 2000.0) == []
    rows = list(csv.reader(reports.as_csv([made], 0.0).splitlines()))
    assert rows[1][1] == "'=cmd()"  # no spreadsheet takes it for a formula
    assert rows[1][3:] == ["1970-01-01T00:16:40Z", "1970-01-01T00:31:40Z", "15.0", "3"]
