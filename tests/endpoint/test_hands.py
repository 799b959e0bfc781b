"""Who may move the presenter's hands: rights by the log alone, at members without sockets (rows G10, G11)."""

import runpy
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Self, cast

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from endpoint import events
from endpoint.errors import MalformedContent, NotAllowed
from endpoint.hands import Button, Input, InputEvent, Key, Move, Pointer, Shape, Text, encode, parse_input_untrusted, parse_pointer_untrusted
from endpoint.messages import Request, Verb
from endpoint.present import OnAir, Presenter
from endpoint.remote_control import Borrower, Lender
from endpoint.screen.picture import ScreenError
from endpoint.session import Session
from endpoint.watch import Showing, Watcher
from tests.endpoint.room import Room
from wire.ids import EVERYONE, Channel, ParticipantId
from wire.packet import parse_packet_untrusted

ANA, BEN = ParticipantId(2), ParticipantId(3)
HELLO = Input(-1, [Move(3, 4), Key(0x61, True), Key(0x61, False), Text("né中")])


def presented() -> Room:
    """Olga presents; Ana and Ben are here."""
    room = Room()
    room.admitted(2, "Ana")
    room.admitted(3, "Ben")
    room.organizer.chair.appoint(room.organizer.me, room.now)
    room.run()
    return room


def test_G10_hands_that_were_lent_reach_the_presenter_alone() -> None:
    room = presented()
    olga, ana, ben = room.organizer, room.members[ANA], room.members[BEN]
    olga.chair.lend(ana.me, room.now)
    room.run()
    assert [e.participant for e in room.events(ben, events.ControlChanged)] == [ana.me]
    ana.handle(HELLO)
    room.run()
    assert room.events(olga, events.InputReceived) == [events.InputReceived(ana.me, HELLO)]
    assert not room.events(ben, events.InputReceived)
    assert not any("né中".encode() in packet for packet in room.wire)


def test_G10_a_modified_client_without_the_grant_is_dropped_by_name() -> None:
    room = presented()
    ben = room.members[BEN]
    with pytest.raises(NotAllowed):
        ben.handle(HELLO)
    ben.state.control = ben.me  # it believes what it likes
    ben.handle(HELLO)
    room.run()
    assert not room.events(room.organizer, events.InputReceived)
    assert room.organizer.dropped["no-right"] == 1


@pytest.mark.parametrize("ending", ["taken back", "lent to another", "presenter changes", "she leaves"])
def test_G11_the_next_event_after_the_end_of_a_grant_is_ignored(ending: str) -> None:
    room = presented()
    olga, ana, ben = room.organizer, room.members[ANA], room.members[BEN]
    olga.chair.lend(ana.me, room.now)
    room.run()
    match ending:
        case "taken back":
            olga.chair.lend(EVERYONE, room.now)
        case "lent to another":
            olga.chair.lend(ben.me, room.now)
        case "presenter changes":
            olga.chair.appoint(ben.me, room.now)
        case "she leaves":
            olga.chair.dismiss(ana.me, room.now)
    assert olga.state.control != ana.me
    ana.handle(HELLO)  # sealed before she hears of it
    room.run()
    assert not any(room.events(member, events.InputReceived) for member in room.members.values())


def test_G11_input_of_an_older_grant_is_not_executed_under_a_new_one() -> None:
    room = presented()
    olga, ana = room.organizer, room.members[ANA]
    olga.chair.lend(ana.me, room.now)
    room.run()
    late: list[bytes] = []

    def hold(_: ParticipantId, packet: bytes) -> list[bytes]:
        if parse_packet_untrusted(packet).channel != Channel.INPUT:
            return [packet]
        late.append(packet)
        return []

    room.meddle = hold
    ana.handle(HELLO)
    room.run()
    room.meddle = None
    olga.chair.lend(EVERYONE, room.now)
    olga.chair.lend(ana.me, room.now)
    room.run()
    olga.receive_untrusted(late[0], room.now)
    assert olga.dropped["no-right"] == 1
    ana.handle(HELLO)
    room.run()
    assert len(room.events(olga, events.InputReceived)) == 1


def test_a_presenter_who_does_not_organize_lends_by_asking() -> None:
    room = presented()
    olga, ana, ben = room.organizer, room.members[ANA], room.members[BEN]
    olga.chair.appoint(ana.me, room.now)
    room.run()
    ben.request(Request(Verb.CONTROL, ben.me), room.now)
    room.run()
    assert olga.state.control == EVERYONE  # nobody lends what another presents
    ana.request(Request(Verb.CONTROL, ben.me), room.now)
    room.run()
    ben.handle(HELLO)
    room.run()
    assert [e.participant for e in room.events(ana, events.InputReceived)] == [ben.me]
    ana.request(Request(Verb.CONTROL, EVERYONE), room.now)
    room.run()
    assert ben.state.control == EVERYONE


def test_the_pointer_reaches_all_and_only_the_presenters_counts() -> None:
    room = presented()
    olga, ana, ben = room.organizer, room.members[ANA], room.members[BEN]
    shape = Shape(2, 1, 0, 0, b"12345678")
    olga.point(Pointer(10, 20, True, shape.identity, shape))
    room.run()
    seen = room.events(ana, events.PointerMoved) + room.events(ben, events.PointerMoved)
    assert [(e.participant, e.pointer.x, e.pointer.pixels) for e in seen] == [(olga.me, 10, shape)] * 2
    ana.state.presenter = ana.me
    ana.point(Pointer(0, 0, True))
    room.run()
    assert ben.dropped["cursor-without-right"] == 1
    with pytest.raises(NotAllowed):
        ben.point(Pointer(0, 0, True))


@pytest.mark.parametrize("goes", ["the grant", "the picture"])
async def test_G10_what_hands_did_is_sent_or_counted(goes: str, autojump_clock: trio.testing.MockClock) -> None:
    """`do` has taken it: if it can no longer be sent it is not gone without a word, and is not sent later."""
    sent: list[Input] = []
    state = SimpleNamespace(control=ANA)
    session = cast("Session", SimpleNamespace(state=state, me=ANA, handle=sent.append))
    watcher = cast("Watcher", SimpleNamespace(showing=Showing.LIVE, shown=7))
    borrower = Borrower(session, watcher)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(borrower.run)
        borrower.do(Text("at once"))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(70):
            borrower.do(Text(str(number)))
        if goes == "the grant":
            state.control = EVERYONE
        else:
            watcher.showing = Showing.PAUSED
        await trio.sleep(2.0)
        assert borrower.lost == 70
        state.control, watcher.showing = ANA, Showing.LIVE
        borrower.do(Text("anew"))
        await trio.sleep(2.0)
        nursery.cancel_scope.cancel()
    assert [hands.events for hands in sent if hands.events] == [[Text("at once")], [Text("anew")]]


async def test_G10_a_window_that_closes_lets_go_of_what_was_held_in_it(autojump_clock: trio.testing.MockClock) -> None:
    """Alt-F4: the key goes down in the viewer's window, and comes up where no window of ours hears it."""
    sent: list[InputEvent] = []
    session = cast("Session", SimpleNamespace(state=SimpleNamespace(control=ANA), me=ANA, handle=lambda hands: sent.extend(hands.events)))
    borrower = Borrower(session, cast("Watcher", SimpleNamespace(showing=Showing.LIVE, shown=7)))
    alt, button = Key(0xFFE9, True), Button(1, True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(borrower.run)
        borrower.do(alt)
        await trio.sleep(2.0)
        assert borrower.held
        borrower.do(button)  # not sent yet
        borrower.let_go()
        await trio.sleep(2.0)
        assert sent[:2] == [alt, button]
        assert set(sent[2:]) == {Key(0xFFE9, False), Button(1, False)}
        assert not borrower.held
        nursery.cancel_scope.cancel()


class Slow:
    """A touch for which everything takes a minute."""

    held = True

    def __init__(self) -> None:
        self.begun = self.ended = self.released = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    async def act(self, event: InputEvent) -> None:
        self.begun += 1
        await trio.sleep(60)
        self.ended += 1

    def release(self) -> None:
        self.released += 1

    async def local(self) -> bool:
        await trio.sleep_forever()
        return False


async def test_G11_what_is_being_done_stops_when_the_hands_are_taken_back(autojump_clock: trio.testing.MockClock) -> None:
    heard: list[Callable[[events.Event], None]] = []
    state = SimpleNamespace(presenter=BEN, control=ANA)
    session = cast("Session", SimpleNamespace(state=state, me=BEN, listen=heard.append, lend=lambda participant: None))
    presenter = cast("Presenter", SimpleNamespace(on_air=OnAir.LIVE, listeners=[], stale=lambda shown, now: False))
    touch = Slow()
    lender = Lender(session, presenter, touch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lender.run)
        await trio.testing.wait_all_tasks_blocked()
        heard[0](events.InputReceived(ANA, Input(0, [Text("中" * 256), Text("b"), Text("c")])))
        await trio.testing.wait_all_tasks_blocked()
        lender.take_back()
        await trio.sleep(300)
        assert (touch.begun, touch.ended, lender.done) == (1, 0, 0)
        assert lender.dropped["input-too-late"] == 3
        assert touch.released
        nursery.cancel_scope.cancel()


class Gone(Slow):
    """A touch whose display goes away while something is held."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = trio.Event()

    def release(self) -> None:
        raise ScreenError("display-lost", "The display has gone away.")

    async def local(self) -> bool:
        await self.lost.wait()
        raise ScreenError("display-lost", "The display has gone away.")


async def test_G11_hands_whose_display_is_gone_end_by_name_and_nothing_else_ends(autojump_clock: trio.testing.MockClock) -> None:
    heard: list[Callable[[events.Event], None]] = []
    state = SimpleNamespace(presenter=BEN, control=ANA)
    session = cast("Session", SimpleNamespace(state=state, me=BEN, listen=heard.append, lend=lambda participant: None))
    presenter = cast("Presenter", SimpleNamespace(on_air=OnAir.LIVE, listeners=[], stale=lambda shown, now: False))
    touch = Gone()
    lender = Lender(session, presenter, touch)
    async with trio.open_nursery() as nursery:

        async def lend() -> None:
            with pytest.raises(ScreenError) as refusal:
                await lender.run()
            assert refusal.value.name == "display-lost"

        nursery.start_soon(lend)
        await trio.testing.wait_all_tasks_blocked()
        heard[0](events.ControlChanged(ANA, "Ana"))  # raises nothing into whoever tells
        touch.lost.set()
    heard[0](events.ControlChanged(ANA, "Ana"))
    heard[0](events.InputReceived(ANA, Input(0, [Text("a")])))
    assert lender.dropped["input-while-not-live"] == 1


def test_the_vectors_are_what_the_code_makes() -> None:
    folder = Path(__file__).parent.parent / "vectors"
    made = runpy.run_path(str(folder / "generate_hands.py"))["vectors"]()
    assert (folder / "hands.json").read_text() == made, "a format changed: say why, then run tests/vectors/generate_hands.py"


@given(st.binary(max_size=200))
def test_bytes_of_a_stranger_raise_one_error_alone(content: bytes) -> None:
    for parse in (parse_input_untrusted, parse_pointer_untrusted):
        with suppress(MalformedContent):
            parse(content)


@pytest.mark.parametrize(
    "shape",
    [Shape(2, 2, 0, 0, bytes(8)), Shape(3600, 3600, 0, 0, bytes(16)), Shape(1, 2, 0, 0, bytes(8))],
    ids=["too few pixels", "claims much", "another identity"],
)
def test_a_shape_that_is_not_what_it_says_is_refused(shape: Shape) -> None:
    with pytest.raises(MalformedContent):
        parse_pointer_untrusted(encode(Pointer(0, 0, True, b"identity", shape)))


def test_the_largest_shape_fits_its_channel() -> None:
    import secrets

    from endpoint.channel import MAX_MESSAGE

    shape = Shape(60, 60, 59, 59, secrets.token_bytes(4 * 3600))
    pointer = Pointer(-32768, 32767, True, shape.identity, shape)
    assert parse_pointer_untrusted(encode(pointer)) == pointer
    assert len(encode(pointer)) <= MAX_MESSAGE[Channel.CURSOR]
