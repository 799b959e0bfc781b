"""The presenter's acts on the wire: start, pause, resume, stop (row G9)."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Self, cast

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from endpoint.cli.attend import _share
from endpoint.cli.faces import Face
from endpoint.cli.room import Room as CommandLine
from endpoint.events import ScreenMessage
from endpoint.messages import ScreenKind
from endpoint.pace import FIRST_BACKLOG, FIRST_RATE, LEAST, MAX_BACKLOG, MIN_BACKLOG, SWALLOWED, TRUST_AFTER, Pace
from endpoint.present import OnAir, Presenter
from endpoint.screen.picture import Picture, Rect, ScreenError, blank
from endpoint.session import Session
from endpoint.watch import Showing, Watcher
from tests.endpoint.room import Room
from tests.endpoint.screen.test_screen_codec import film
from tests.endpoint.test_session import Net, net, running, ticket_of, until  # noqa: F401  # a fixture
from wire.control import Want
from wire.errors import CloseReason
from wire.ids import Channel
from wire.packet import parse_packet_untrusted


class Restless:
    """A source on which something is drawn all the time."""

    name = "restless"
    geometry = (64, 48)

    def __init__(self) -> None:
        self.picture: Picture = blank(*self.geometry)
        self.grabs = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    async def wait(self) -> None:
        await trio.sleep(0.02)

    def grab(self) -> tuple[Picture, list[Rect] | None]:
        self.grabs += 1
        self.picture[self.grabs % 48, :, :3] = self.grabs % 251
        return self.picture, [Rect(0, self.grabs % 48, 64, 1)]


class Filming(Restless):
    """A film: at its best half a megabyte a second."""

    geometry = (320, 256)

    def __init__(self) -> None:
        super().__init__()
        self.frames = film(*self.geometry)

    async def wait(self) -> None:
        await trio.sleep(0.1)

    def grab(self) -> tuple[Picture, list[Rect] | None]:
        self.picture[:] = next(self.frames)
        return self.picture, None


def screens(net: Net) -> list[int]:  # noqa: F811
    """The channels of what the relay has got of the screen."""
    found = (parse_packet_untrusted(packet).channel for packet in net.relays["a"].packets)
    return [channel for channel in found if channel in (Channel.SCREEN, Channel.CURSOR, Channel.SNAPSHOT)]


@pytest.fixture
def presented() -> Room:
    room = Room()
    room.organizer.chair.appoint(room.organizer.me, room.now)
    room.run()
    return room


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No threads: no time of a test's clock passes in one."""

    async def run(work: Callable[..., object], *arguments: object) -> object:
        await trio.lowlevel.checkpoint()
        return work(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run)


@asynccontextmanager
async def presenting(
    net: Net,  # noqa: F811
    room: Room,
    source: Restless,
    changed: Callable[[], None] = lambda: None,
    report: Callable[[ScreenError], None] = lambda trouble: None,
) -> AsyncIterator[tuple[Session, Presenter]]:
    """The organizer, on air for some frames already."""
    net.relays["a"].office = room.organizer.me
    async with running(room.organizer, ticket_of(room, 1)) as (session, _), trio.open_nursery() as nursery:
        presenter = Presenter(session, source, changed, report=report)
        nursery.start_soon(presenter.run)
        await until(lambda: presenter.frames > 3)
        yield session, presenter
        nursery.cancel_scope.cancel()


async def test_G09_nothing_leaves_before_the_act_while_paused_and_after_the_end(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
) -> None:
    net.relays["a"].office = presented.organizer.me
    lights: list[OnAir] = []
    async with running(presented.organizer, ticket_of(presented, 1)) as (session, _), trio.open_nursery() as nursery:
        presenter = Presenter(session, Restless(), started=False)
        presenter.listeners.append(lambda: lights.append(presenter.on_air))
        nursery.start_soon(presenter.run)
        await until(lambda: session.may_show)
        await trio.sleep(5.0)
        assert screens(net) == []  # being named presenter starts nothing
        presenter.start()
        await until(lambda: len(screens(net)) > 20)
        presenter.pause()
        await trio.sleep(0.05)
        paused = len(screens(net))
        await trio.sleep(30.0)
        assert len(screens(net)) == paused, "not one more packet of the screen leaves"
        presenter.resume()
        await until(lambda: len(screens(net)) > paused + 20)
        presenter.stop()
        await trio.sleep(0.05)
        stopped = len(screens(net))
        await trio.sleep(30.0)
        assert len(screens(net)) == stopped
        assert lights == [OnAir.LIVE, OnAir.PAUSED, OnAir.LIVE, OnAir.OFF]
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("at_once")
async def test_G02_a_slow_link_gets_worse_film_and_fewer_frames_and_never_an_old_picture(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
) -> None:
    relay = net.relays["a"]
    relay.rate = 60_000
    sealed: dict[int, float] = {}  # the last packet of each frame, and when it was made
    sessions: list[Session] = []

    def shown() -> None:
        for session in sessions:
            sealed.setdefault(session.screen_counter, trio.current_time())

    async with presenting(net, presented, Filming(), shown) as (session, presenter):
        sessions.append(session)
        start, ages = trio.current_time(), list[float]()
        while trio.current_time() < start + 20:
            relay.packets.clear()
            await until(lambda: relay.packets)
            now = trio.current_time()
            headers = [parse_packet_untrusted(packet) for packet in relay.packets]
            made = [sealed[h.counter] for h in headers if h.channel == Channel.SCREEN and h.counter in sealed]
            ages += [now - at for at in made if now > start + 5]
    assert max(ages) < 1.0
    assert sorted(ages)[len(ages) // 2] < 0.2
    assert len(ages) > 15 * 4, "it still moves"
    assert presenter.skipped


@pytest.mark.usefixtures("at_once")
async def test_G09_what_a_pause_drops_does_not_count_as_what_the_line_takes(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
) -> None:
    """A line that stands still for a moment, in which its presenter pauses: nothing was sent then, and nothing can be said of its rate."""
    async with presenting(net, presented, Filming()) as (_, presenter):
        rate = presenter._pace.rate
        net.relays["a"].rate = 8000
        await until(lambda: presenter.skipped > 0)
        presenter.pause()
        presenter.resume()
        await trio.testing.wait_all_tasks_blocked()
        assert presenter._pace.rate >= rate
        net.relays["a"].rate = math.inf
        shown = presenter.frames
        await until(lambda: presenter.frames > shown + 20)


async def test_G09_stopped_and_started_in_one_breath_is_on_air(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
) -> None:
    async with presenting(net, presented, Restless()) as (_, presenter):
        presenter.stop()
        presenter.start()
        shown = presenter.frames
        await until(lambda: presenter.frames > shown + 3)
        assert presenter.on_air is OnAir.LIVE


async def cut(net: Net, session: Session) -> None:  # noqa: F811
    """Every relay goes, the one in reserve too, and can be dialled no more."""
    for relay in net.relays.values():
        relay.reachable = False
        if relay.link is not None:
            relay.link.close(CloseReason.LOST)
    await until(lambda: not session.node)


async def mended(net: Net, session: Session) -> None:  # noqa: F811
    net.relays["a"].reachable = True
    await until(lambda: session.node)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("act", "kind", "light"),
    [(Presenter.pause, ScreenKind.PAUSED, OnAir.PAUSED), (Presenter.stop, ScreenKind.STOPPED, OnAir.OFF)],
    ids=["pause", "stop"],
)
async def test_G09_the_last_word_is_said_again_by_a_new_link_and_to_who_asks(
    net: Net,  # noqa: F811
    presented: Room,
    act: Callable[[Presenter], None],
    kind: ScreenKind,
    light: OnAir,
    autojump_clock: MockClock,
) -> None:
    """The line dies at the moment of the pause; and somebody joins, or comes back, while it lasts."""
    relay = net.relays["a"]
    ana = presented.admitted(2, "Ana")
    presented.run()

    def words() -> list[tuple[int, bytes]]:
        """What Ana reads of the screen: only words, or it would not be one byte."""
        for packet in relay.packets:
            ana.receive_untrusted(packet, trio.current_time())
        relay.packets.clear()
        heard = [event for event in ana.events if isinstance(event, ScreenMessage)]
        ana.events.clear()
        return [(Channel.SNAPSHOT if event.snapshot else Channel.SCREEN, event.content) for event in heard]

    async with presenting(net, presented, Restless()) as (session, presenter):
        await cut(net, session)
        relay.packets.clear()
        act(presenter)
        assert presenter.on_air is light
        await trio.sleep(10.0)
        assert relay.packets == []
        await mended(net, session)
        await trio.sleep(10.0)
        # a gap, for Ana, which makes it ask
        assert [packet[2] for packet in relay.packets if packet[2] in (Channel.SCREEN, Channel.CURSOR, Channel.SNAPSHOT)] == [Channel.SCREEN]
        relay.packets.clear()
        assert relay.link is not None
        for _ in range(3):  # wants that come in one breath have one answer
            relay.link.send(Want(session.member.keyring.current or 0))
        await trio.sleep(10.0)
        assert words() == [(Channel.SNAPSHOT, bytes((kind,)))]
        assert presenter.on_air is light
        presenter.resume() if kind is ScreenKind.PAUSED else presenter.start()
        shown = presenter.frames
        await until(lambda: presenter.frames > shown + 3)
        assert relay.of(Channel.SNAPSHOT), "who asked meanwhile gets the picture"
        relay.packets.clear()
        relay.link.send(Want(session.member.keyring.current or 0))
        await until(lambda: relay.of(Channel.SNAPSHOT))
        assert len(relay.of(Channel.SNAPSHOT)[0]) > 200, "a picture, not a word"


@pytest.mark.usefixtures("at_once")
async def test_G09_who_loses_the_right_without_a_line_is_off_air_and_shares_again_by_another_act(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
) -> None:
    ana = presented.admitted(2, "Ana")
    presented.run()
    async with presenting(net, presented, Restless()) as (session, presenter):
        await cut(net, session)
        session.act(lambda chair, now: chair.appoint(ana.me, now))
        assert (presenter.on_air, presenter.started) == (OnAir.OFF, False)
        session.act(lambda chair, now: chair.appoint(session.me, now))
        await mended(net, session)
        net.relays["a"].packets.clear()
        await trio.sleep(10.0)
        assert screens(net) == []
        assert presenter.on_air is OnAir.OFF


class Closing(Restless):
    """A window that is closed after a while, and opened again."""

    async def __aenter__(self) -> Self:
        self.grabs = 0
        return self

    async def wait(self) -> None:
        await super().wait()
        if self.grabs > 5:
            raise ScreenError("window-closed", "The window has been closed. Share something else.")


async def test_G09_a_source_that_is_gone_is_a_named_error_and_the_light_goes_out(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
) -> None:
    """It is told, the meeting goes on, and /share tries again."""
    net.relays["a"].office = presented.organizer.me
    told: list[str] = []
    async with running(presented.organizer, ticket_of(presented, 1)) as (session, _), trio.open_nursery() as nursery:
        presenter = Presenter(session, Closing())
        with pytest.raises(ScreenError) as refusal:
            await presenter.run()
        assert refusal.value.name == "window-closed"
        assert (presenter.on_air, presenter.started) == (OnAir.OFF, False)
        room, face = SimpleNamespace(session=session, presenter=presenter, hosting=True), SimpleNamespace(say=told.append)
        nursery.start_soon(_share, cast("CommandLine", room), cast("Face", face))
        await trio.sleep(5.0)
        assert presenter.on_air is OnAir.OFF
        for turn in (1, 2):
            presenter.start()
            session.act(lambda organizer, now: organizer.appoint(session.me, now))
            await until(partial(lambda turn: len(told) == turn, turn))
            assert told[-1].startswith("window-closed: ")
            assert (presenter.on_air, session.state.presenter) == (OnAir.OFF, 0)
        assert not session.over
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("at_once")
async def test_G09_a_screen_that_is_too_large_to_send_as_a_whole_is_told_and_tried_again(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A photograph in 8K, say: who sees the screen goes on seeing it, who does not gets it as soon as it can be sent."""
    relay, most = net.relays["a"], "endpoint.screen.encoder.MAX_SNAPSHOT_BYTES"
    told: list[str] = []
    async with presenting(net, presented, Restless(), report=lambda trouble: told.append(trouble.name)) as (session, presenter):

        async def until_frames(more: int) -> None:
            shown = presenter.frames
            await until(lambda: presenter.frames > shown + more)

        def snapshots() -> int:
            return len(relay.of(Channel.SNAPSHOT))

        monkeypatch.setattr(most, 10)
        before, link = snapshots(), relay.link
        assert link is not None
        link.send(Want(session.member.keyring.current or 0))
        await until_frames(300)
        assert (told, snapshots(), presenter.on_air) == (["screen-too-large"], before, OnAir.LIVE)
        monkeypatch.setattr(most, 1 << 20)
        await until(lambda: snapshots() > before)
        await until_frames(3)
        monkeypatch.setattr(most, 10)  # and now from the start
        presenter.stop()
        before, frames = snapshots(), presenter.frames
        presenter.start()
        await until(lambda: len(told) == 2)
        await trio.sleep(10.0)
        assert (told, presenter.frames, presenter.on_air) == (2 * ["screen-too-large"], frames, OnAir.LIVE)
        monkeypatch.setattr(most, 1 << 20)
        await until(lambda: snapshots() > before)
        await until_frames(3)
        assert not session.over


def test_a_line_of_which_nothing_is_known_is_taken_for_a_slow_one_until_it_shows_that_it_is_not() -> None:
    pace = Pace()
    assert (pace.rate, pace.backlog) == (FIRST_RATE, FIRST_BACKLOG)
    pace.tick(10.0, 1000, 0)
    pace.tick(10.02, 1000 + SWALLOWED, 0)  # a kernel may have swallowed that
    pace.tick(10.04, 100_000, 50_000)  # something waits: it is not known how fast that leaves
    assert (pace.rate, pace.guessed) == (FIRST_RATE, True)
    pace.tick(10.6, 160_000, 0)  # it has kept up
    assert (pace.rate, pace.guessed) == (2 * FIRST_RATE, True)
    pace.tick(12.0, 161_000, 0)  # with next to nothing
    assert pace.rate == 2 * FIRST_RATE
    pace.tick(12.5, 161_000 + SWALLOWED + 1_000_000, 0)
    assert pace.rate == 4_000_000
    pace.tick(12.52, 20_000_000, 0)
    assert (pace.rate, pace.guessed) == (math.inf, False)
    pace = Pace(pace)  # another link
    pace.tick(13.0, 0, 0)
    assert (pace.rate, pace.guessed) == (math.inf, False)
    pace = Pace()
    pace.measured(60_000, 2.0, 11.0)
    assert (pace.rate, pace.guessed) == (30_000, False)
    pace.measured(16_000, 0.01, 12.0)  # one write
    assert pace.rate == 30_000


def test_the_pace_follows_the_line_down_at_once_and_up_again_in_time() -> None:
    pace = Pace()
    pace.measured(100_000, 1.0, 50.0)
    assert (pace.rate, pace.backlog) == (100_000, 25_000)
    pace.measured(300_000, 1.0, 51.0)
    assert pace.rate == 200_000
    pace.measured(20_000, 1.0, 52.0)
    assert (pace.rate, pace.backlog) == (20_000, MIN_BACKLOG)
    pace.measured(0, 0.0, 53.0)
    assert pace.rate == LEAST
    pace.tick(53.0 + TRUST_AFTER / 2, 0, 0)
    assert pace.rate == LEAST
    pace.tick(50.0, 0, 0)  # a clock that goes back
    assert pace.rate == LEAST
    pace.tick(53.0 + 20 * TRUST_AFTER, 0, 0)
    assert 50 * LEAST < pace.rate < 100 * LEAST
    pace.tick(53.0 + 1000 * TRUST_AFTER, 0, 0)
    assert pace.rate == math.inf
    pace.measured(7_000_000, 1.0, 9000.0)
    assert pace.backlog == MAX_BACKLOG


def test_a_line_counts_as_no_slower_than_what_it_takes() -> None:
    pace = Pace()
    pace.measured(8000, 1.0, 13.0)
    pace.tick(13.5, 1_000_000, 0)
    pace.tick(14.0, 1_200_000, 0)  # half a second: a socket's buffer may have swallowed it
    assert pace.rate == 8000
    pace.tick(15.5, 1_400_000, 0)
    assert pace.rate == 200_000
    pace.measured(8000, 1.0, 16.0)
    pace.tick(16.5, 9_000_000, 0)  # what left before the line was too slow does not count
    pace.tick(17.5, 9_000_000, 0)
    assert pace.rate == 8000
    pace.tick(18.5, 18_000_000, 0)
    assert pace.rate == math.inf


class Films(Filming):
    """A still screen for a second, then a film on all of it."""

    geometry = (640, 352)

    async def wait(self) -> None:
        await trio.sleep(1 / 30)

    def grab(self) -> tuple[Picture, list[Rect] | None]:
        self.grabs += 1
        if self.grabs > 30:
            self.picture[:] = next(self.frames)
        return self.picture, None


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("rate", [125_000, math.inf], ids=["slow", "fast"])
async def test_G02_the_first_film_fits_a_line_of_which_nothing_is_known(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
    rate: float,
) -> None:
    """It was as large as on the fastest line, and everything waited for it."""
    relay = net.relays["a"]
    relay.rate = rate
    async with presenting(net, presented, Films()) as (session, presenter):
        start, oldest = trio.current_time(), 0.0
        waits: float | None = None  # since when something does
        while trio.current_time() < start + 4.0:
            now = trio.current_time()
            waits = None if not session.screen_backlog else now if waits is None else waits
            oldest = max(oldest, 0.0 if waits is None else now - waits)
            await trio.sleep(0.01)
        assert presenter.frames > 40
        assert oldest < 2.0
        assert (presenter._encoder._quality == 0) == (rate == math.inf)


@pytest.mark.usefixtures("at_once")
async def test_G02_after_a_stall_a_fast_line_is_soon_used_again(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
) -> None:
    async with presenting(net, presented, Filming()) as (_, presenter):
        net.relays["a"].rate = 20_000
        with trio.fail_after(20):
            await until(lambda: presenter._pace.rate < 30_000)
        net.relays["a"].rate = math.inf
        await trio.sleep(8.0)
        assert presenter._pace.rate > 100_000


async def test_G09_what_no_link_has_taken_is_dropped_by_a_pause(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
) -> None:
    async with presenting(net, presented, Restless()) as (session, presenter):
        for _ in range(20):  # more than one turn of the link takes
            session.show_whole(bytes(200_000))
        presenter.pause()
        assert session.screen_backlog < 1000  # the last word alone
        assert not presenter.stale(session.screen_counter, trio.current_time())
        assert not presenter.stale(session.screen_counter - 2, trio.current_time())
        assert presenter.stale(-1, trio.current_time() + 60)


async def test_G09_who_misses_what_a_pause_dropped_sees_that_it_is_a_pause(
    net: Net,  # noqa: F811
    presented: Room,
    autojump_clock: MockClock,
) -> None:
    ana = presented.admitted(2, "Ana")
    presented.run()
    wanted: list[bool] = []
    session_of_ana = SimpleNamespace(
        state=ana.state, me=ana.me, member=ana, listen=lambda listener: None, want_screen=lambda: wanted.append(True)
    )
    watcher = Watcher(cast("Session", session_of_ana))

    def showing() -> Showing:
        return watcher.showing

    def see(packets: list[bytes], *, wants: bool) -> None:
        """As the relay brings it: snapshots go to who wants one."""
        for packet in packets:
            if wants or parse_packet_untrusted(packet).channel == Channel.SCREEN:
                ana.receive_untrusted(packet, trio.current_time())
        while ana.events:
            watcher._heard(ana.events.popleft())

    packets = net.relays["a"].packets
    async with presenting(net, presented, Restless()) as (session, presenter):
        see(packets, wants=True)
        assert showing() is Showing.LIVE
        before = len(packets)
        session.show(ScreenKind.UPDATE, bytes(2_000_000))  # more than the link takes at once
        presenter.pause()
        await trio.sleep(1.0)
        of_pause = packets[before:]
        wanted.clear()
        see(of_pause, wants=False)
        assert wanted  # a gap
        see([packet for packet in of_pause if parse_packet_untrusted(packet).channel == Channel.SNAPSHOT], wants=True)
        assert showing() is Showing.PAUSED
        before = len(packets)
        presenter.resume()
        await until(lambda: presenter.frames > 8)
        see(packets[before:], wants=True)
        assert showing() is Showing.LIVE
        assert np.array_equal(watcher.picture[:, 0, 0] > 0, np.asarray(presenter.picture)[:, 0, 0] > 0)
