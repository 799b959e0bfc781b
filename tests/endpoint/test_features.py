"""What an administrator turns off reaches the meeting by the tickets, and the chair keeps to it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from endpoint import events
from endpoint.errors import NotAllowed
from endpoint.journal import Saved
from endpoint.organizer import Organizer
from endpoint.ticket import Ticket
from tests.endpoint.room import Room
from tests.endpoint.test_manager_api import TICKET
from wire.ids import EVERYONE, Role


def organizer(features: frozenset[str] | None) -> Organizer:
    room = Room()
    ticket = replace(room.ticket(9, Role.ORGANIZER), features=features)
    return Organizer(ticket, Saved.fresh(room.session, room.meeting_key, room.organizer.chair.verifier), room.now, name="Olga")


def test_G14_a_feature_that_is_off_cannot_be_given_by_the_chair() -> None:
    olga = organizer(frozenset({"whisper"}))
    assert not olga.state.chat_default
    acts: tuple[Callable[[], object], ...] = (
        lambda: olga.chair.appoint(olga.me, 1.0),
        lambda: olga.chair.lend(olga.me, 1.0),
        lambda: olga.chair.allow_chat(EVERYONE, True, 1.0),
        lambda: olga.chair.allow_chat(olga.me, True, 1.0),
    )
    for act in acts:
        with pytest.raises(NotAllowed, match="turned"):
            act()


@pytest.mark.parametrize("features", [None, frozenset({"chat", "screen", "remote-control"})])
def test_G14_what_is_on_can_be_given(features: frozenset[str] | None) -> None:
    olga = organizer(features)
    assert olga.state.chat_default
    olga.chair.appoint(olga.me, 1.0)
    assert olga.state.presenter == olga.me


def test_G13_G14_whispers_that_are_off_are_neither_sent_nor_shown() -> None:
    room = Room()
    ana, ben = (room.admitted(number, name) for number, name in enumerate(("Ana", "Ben"), 2))
    ben.features = frozenset({"chat"})
    with pytest.raises(NotAllowed, match="turned whispers off"):
        ben.whisper(ana.me, "psst")
    ana.whisper(ben.me, "a modified client sends all the same")
    ana.whisper(room.organizer.me, "where it is on")
    room.run()
    assert not room.events(ben, events.WhisperReceived)
    assert [heard.text for heard in room.events(room.organizer, events.WhisperReceived)] == ["where it is on"]


def test_G14_a_ticket_says_what_the_meeting_may_offer() -> None:
    assert Ticket.from_json_untrusted(TICKET).features is None
    assert Ticket.from_json_untrusted(TICKET | {"features": ["chat"]}).features == frozenset({"chat"})
    for wrong in (5, True):
        with pytest.raises(ValueError, match="no ticket"):
            Ticket.from_json_untrusted(TICKET | {"features": wrong})
