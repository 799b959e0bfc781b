"""What a terminal shows, with other people's worst names and lines."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from OpenSSL import SSL
from rich.cells import cell_len
from rich.console import Console, RenderableType

from endpoint import events
from endpoint.cli import view
from endpoint.cli.commands import Order, obey
from endpoint.cli.room import NameAmbiguous, NobodyOfThatName, Room
from endpoint.cli.view import View
from endpoint.errors import EndpointError
from endpoint.guest import Guest
from endpoint.invitation import Invitation, invitation_for
from endpoint.present import OnAir
from endpoint.screen.viewer import PngViewer
from endpoint.session import Session
from endpoint.watch import Showing, Watcher
from tests.endpoint import room as hall
from wire.ids import MeetingId, ParticipantId, Role

EVIL = "\x1b[2J\u202egnp.exe [red]Eve[/red] \u2066:smile:\x07"
CLEAN = "[2Jgnp.exe [red]Eve[/red] :smile:"


def drawn(text: RenderableType, width: int = 100) -> str:
    console = Console(width=width, record=True, force_terminal=True, highlight=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(text)
    return console.export_text(styles=False)


def a_room(meeting: hall.Room, *, host: bool = True, guest: Guest | None = None) -> Room:
    member = meeting.organizer if guest is None else guest
    ticket = replace(meeting.ticket(member.me, Role.ORGANIZER if host else Role.ATTENDEE), title=f"Weekly {EVIL}")
    session = Session(member, ticket, SSL.Context(SSL.TLS_METHOD))
    invitation = invitation_for(MeetingId(123456789), "https://meet.example", "0123456789abcdef", meeting.password, meeting.meeting_key.public)
    return Room(session, invitation, Watcher(session), PngViewer(Path("screen.png")), Path("screen.png"), trio.Event())


@pytest.fixture
def meeting() -> hall.Room:
    meeting = hall.Room("canyon-purse-alien-sound")
    meeting.admitted(2, EVIL)
    meeting.admitted(3, "Ana")
    meeting.admitted(4, "ana")
    return meeting


async def test_a_guest_sees_that_the_presenter_is_away_and_not_a_live_picture(meeting: hall.Room, monkeypatch: pytest.MonkeyPatch) -> None:
    ana, ben = meeting.members[ParticipantId(3)], ParticipantId(4)
    assert isinstance(ana, Guest)
    seat = a_room(meeting, host=False, guest=ana)
    monkeypatch.setattr(Session, "node", "mcs-1")
    meeting.organizer.wall_ms = lambda: int(1000 * meeting.now)

    def away(presenter: ParticipantId) -> bool:
        light = "○ AWAY" in drawn(view.status(View.of(seat, ""), 100))
        assert light == (seat.showing == "the presenter is away") == next(who.away for who in seat.people() if who.participant == presenter)
        assert light or seat.showing == "live"
        return light

    meeting.organizer.chair.appoint(ben, meeting.now)
    meeting.run()
    seat.watcher.showing = Showing.LIVE
    meeting.presence([], [ben])
    meeting.run(1)
    assert away(ben), "the organizer says so"
    meeting.presence([ben], [])
    meeting.run(1)
    assert not away(ben)

    meeting.organizer.chair.appoint(meeting.organizer.me, meeting.now)
    meeting.run()
    seat.watcher.showing = Showing.LIVE
    meeting.run(20)
    assert not away(meeting.organizer.me)
    meeting.unlink(meeting.organizer.me)
    meeting.run(20)
    assert away(meeting.organizer.me), "nobody says so"
    meeting.link(meeting.organizer.me)
    meeting.run(20)
    assert not away(meeting.organizer.me)


async def test_the_host_sees_all_that_guests_need(meeting: hall.Room) -> None:
    text = drawn(view.status(View.of(a_room(meeting), "typing"), 160), 160)
    for part in ("123-456-789", "https://meet.example/j/123456789/0123456789abcdef#", "canyon-purse-alien-sound", "operator-proof"):
        assert part in text
    assert "○ off air" in text
    assert "here (4)" in text
    assert "> typing" in text


async def test_a_link_that_does_not_fit_is_not_broken(meeting: hall.Room) -> None:
    text = drawn(view.status(View.of(a_room(meeting), None), 60), 60)
    assert "https://" not in text
    assert "/link" in text
    assert all(len(line) <= 60 for line in text.splitlines())


async def test_a_guest_is_shown_no_password_and_no_link(meeting: hall.Room) -> None:
    ana = meeting.members[next(p for p, m in meeting.organizer.state.members.items() if m.name == "Ana")]
    assert isinstance(ana, Guest)
    text = drawn(view.status(View.of(a_room(meeting, host=False, guest=ana), ""), 160), 160)
    assert "canyon" not in text
    assert "https://" not in text
    assert "Ana  you" in text


@pytest.mark.parametrize(("light", "shown"), [(OnAir.LIVE, "● ON AIR"), (OnAir.PAUSED, "‖ PAUSED"), (OnAir.OFF, "○ off")])
async def test_the_light_says_what_is_true(meeting: hall.Room, light: OnAir, shown: str) -> None:
    seen = replace(View.of(a_room(meeting), None), on_air=light)
    assert shown in drawn(view.status(seen, 100))


async def test_other_peoples_words_are_words_alone(meeting: hall.Room) -> None:
    room = a_room(meeting)
    text = drawn(view.status(View.of(room, None), 160), 160)
    text += drawn(view.invitation_text(room.invitation, room.title, room.words), 160)
    line = events.ChatReceived(room.session.me, "[bold]Eve", "[link=https://evil]x[/link] :boom:", 10**15, 0)
    shown = view.sentence(line, room)
    assert shown is not None
    text += drawn(shown)
    assert CLEAN in text
    assert "[bold]Eve: [link=https://evil]x[/link] :boom:" in text
    for character in "\x1b\x07\u202e\u2066":
        assert character not in text


async def test_equal_names_are_told_apart_and_found(meeting: hall.Room) -> None:
    room = a_room(meeting)
    assert [person.name for person in room.people()] == ["Olga", CLEAN, "Ana", "ana (2)"]
    assert room.find("Ana") == 3
    assert room.find("ana (") == 4
    assert room.find("[2J") == 2
    assert room.find("#4") == 4
    for missing in ("", "Zoe", "#9", "#"):
        with pytest.raises(NobodyOfThatName):
            room.find(missing)
    meeting.admitted(5, "Anabel")
    with pytest.raises(NameAmbiguous):
        room.find("an")


@pytest.mark.parametrize(
    ("do", "name", "text", "said"),
    [
        ("present", "Olga", "", "You present now."),
        ("present", "Ana Maria", "", "Ana Maria presents now."),
        ("whisper", "Ana Maria see you at ten", "", ""),
        ("whisper", "5", "see you at ten", ""),
        ("whisper", "Ana Maria", "", "nothing-said"),
        ("whisper", "", "", "nobody-of-that-name"),
        ("mute", "", "", "Write whose name is meant"),
        ("let-in", "all", "", "Nobody waits."),
        ("take", "", "", "Nobody has your mouse and keyboard."),
        ("pause", "", "", "nothing-shared"),
        ("share", "", "", "nothing-shared"),
        ("view", "", "", "There is no display here"),
    ],
    ids=lambda value: value.replace(" ", "-") or "none",
)
async def test_an_order_is_answered_by_what_is_true(meeting: hall.Room, do: str, name: str, text: str, said: str) -> None:
    meeting.admitted(5, "Ana Maria")
    room, heard = a_room(meeting), list[events.Event]()
    room.session.listen(heard.append)
    for person in room.people():
        room.number(person.participant)
    try:
        answer = await obey(room, Order(do, text, name)) or ""
    except EndpointError as error:
        answer = f"{error.name}: {error}"
    assert said in answer
    whispers = [(event.to, event.text) for event in heard if isinstance(event, events.WhisperReceived)]
    assert whispers == ([("Ana Maria", "see you at ten")] if do == "whisper" and not said else [])


async def test_every_event_has_its_words(meeting: hall.Room) -> None:
    room, who = a_room(meeting), meeting.organizer.me
    expected: list[tuple[events.Event, str]] = [
        (events.MemberJoined(who, "Ana"), "Ana is here."),
        (events.MemberLeft(who, "Ana"), "Ana has left."),
        (events.MemberLeft(who, "Ana", dismissed=True), "Ana was removed."),
        (events.PresenterChanged(ParticipantId(3), "Ana"), "Ana presents."),
        (events.PresenterChanged(who, "Olga"), "You present."),
        (events.PresenterChanged(ParticipantId(0), ""), "Nobody presents."),
        (events.OrganizerChanged(who, "Olga"), "You organize this session now, for good."),
        (events.OrganizerChanged(ParticipantId(3), "Ana"), "Ana organizes this session now."),
        (events.ChatRightChanged(who, allowed=False), "Olga may not chat any more."),
        (events.Wish(who, "Ana", "ask-present"), "Ana asks to present: /present 1."),
        (events.Wish(who, "Ana", "ask-control"), "Ana asks for mouse and keyboard"),
        (events.Wish(who, "Ana", "raise-hand"), "Ana raises a hand."),
        (events.ChatWithdrawn(who, "Ana", 3), "The last lines of Ana came too late and do not count."),
        (events.LinkChanged("mcs-1"), "Connected to mcs-1."),
        (events.OrganizerMissing(missing=True), "withholds"),
        (events.SessionEnded(), "The meeting has ended."),
        (events.Dropped("bad-tag", "It was altered.", who), "bad-tag (You): It was altered."),
    ]
    for event, words in expected:
        shown = view.sentence(event, room)
        assert shown is not None
        assert words in shown.plain
    assert view.sentence(events.Joined(), room) is None


async def test_who_presents_and_shares_nothing_is_told_why(meeting: hall.Room) -> None:
    meeting.organizer.chair.appoint(meeting.organizer.me, meeting.now)
    meeting.run()
    assert "you present, and have nothing to show: that takes --share" in drawn(view.status(View.of(a_room(meeting), None), 100))


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("typed", ["", "x" * 300, "中文" * 100])
async def test_it_fits_every_terminal(meeting: hall.Room, width: int, typed: str) -> None:
    text = drawn(view.status(View.of(a_room(meeting), typed), width), width)
    assert all(cell_len(line) <= width for line in text.splitlines())


def test_a_meeting_without_a_password_says_so() -> None:
    text = view.invitation_text(Invitation(MeetingId(123456789), "https://h", "0" * 16), "T", "w").plain
    assert "Password  none" in text
    assert "could impersonate" in text
