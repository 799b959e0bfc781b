"""The session log and its readers against a naive oracle: everything in one list, everybody's wishes looked up in it."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcs import limits
from mcs.fanout import Reader
from mcs.fanout import Screen as Following
from mcs.log import Queue, SessionLog, Verdict
from tests.mcs.raw import packet
from wire.control import Position
from wire.frame import FrameDecoder
from wire.ids import Channel, ParticipantId, Stream
from wire.packet import UNICAST_CHANNELS, Flag, PacketHeader, parse_packet_untrusted

SESSION = 5
RELIABLE = (0, 1, 2, 3, 4, 8, 10)


def headers(frames: list[bytes]) -> list[PacketHeader]:
    return [parse_packet_untrusted(frame.body) for frame in FrameDecoder().feed_untrusted(b"".join(frames))]


class World:
    """A log, and beside it everything that was ever taken, in order."""

    def __init__(self) -> None:
        self.log = SessionLog()
        self.dropped: Counter[str] = Counter()
        self.taken: list[tuple[PacketHeader, bool]] = []
        self.last: dict[Stream, int] = {}

    def append(self, sender: int, channel: int, to: int, step: int = 1, *, local: bool = True, now: float = 0.0, size: int = 8) -> Verdict:
        """`step`: 1 the next counter of the stream, 0 a repetition, 2 a gap."""
        stream = Stream(ParticipantId(sender), ParticipantId(to), channel)
        counter = max(0, self.last.get(stream, -1) + step)
        body = packet(SESSION, sender, channel, counter, to=to, body=bytes(size))
        header = parse_packet_untrusted(body)
        verdict = self.log.append(header, body, 1, now, via="" if local else "b")
        if verdict is Verdict.TAKEN:
            self.last[stream] = counter
            self.taken.append((header, local))
        return verdict


class Expected:
    """A reader, and what the oracle says it gets of reliable streams."""

    def __init__(self, world: World, participant: int | None, have: dict[Stream, int]) -> None:
        self.world, self.me, self.have = world, participant, have
        self.live_from = len(world.taken)
        self.got: list[PacketHeader] = []
        self.reader = Reader(world.log, ParticipantId(participant) if participant else None, world.dropped, "" if participant else "b")
        positions: list[Position] = [(*stream, counter) for stream, counter in have.items()]
        self.reader.start(positions)

    def pull(self, budget: int) -> None:
        self.got += [h for h in headers(self.reader.pull(budget)) if h.channel in RELIABLE]

    def expected(self) -> Iterator[PacketHeader]:
        for at, (header, local) in enumerate(self.world.taken):
            seen = (local or at < self.live_from) if self.me is None else header.sender != self.me and header.recipient in (0, self.me)
            if header.channel == Channel.ROSTER and self.me is not None:
                continue  # it has not asked
            if seen and header.channel in RELIABLE and header.counter > self.have.get(header.stream, -1):
                yield header

    def check(self) -> None:
        while frames := self.reader.pull(100_000):
            self.got += [h for h in headers(frames) if h.channel in RELIABLE]
        expected = list(self.expected())
        assert Counter(self.got) == Counter(expected)  # every one exactly once
        for queue in ((0, 1, 10), (2, 3, 4), (8,)):  # and within each ring, so within each stream, in the order of arrival
            assert [h for h in self.got if h.channel in queue] == [h for h in expected if h.channel in queue]


@st.composite
def addressed(draw: st.DrawFn) -> tuple[int, int, int]:
    sender, channel = draw(st.integers(1, 3)), draw(st.integers(0, 10))
    others = [p for p in (1, 2, 3) if p != sender]
    return sender, channel, draw(st.sampled_from(others)) if channel in UNICAST_CHANNELS else 0


STEP = st.one_of(
    st.tuples(st.just("append"), addressed(), st.sampled_from([1, 1, 1, 1, 0, 2]), st.booleans()),
    st.tuples(st.just("join"), st.sampled_from([None, 1, 2, 3]), st.randoms(use_true_random=False)),
    st.tuples(st.just("pull"), st.integers(0, 9), st.integers(1, 400)),
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=60))
def test_every_reader_gets_what_it_lacks_exactly_once_in_order(steps: list[tuple[object, ...]]) -> None:
    world, readers = World(), list[Expected]()
    for step in steps:
        match step:
            case ("append", (int(sender), int(channel), int(to)), int(move), bool(local)):
                stream = Stream(ParticipantId(sender), ParticipantId(to), channel)
                last = world.last.get(stream, -1)
                verdict = world.append(sender, channel, to, move, local=local)
                if move == 0 and last >= 0:
                    assert verdict is Verdict.REPEATED
                elif move == 2 and channel in RELIABLE and last >= 0:
                    assert verdict is Verdict.GAP
                elif channel != Channel.SNAPSHOT:
                    assert verdict is Verdict.TAKEN
            case ("join", participant, random):
                have = {s: random.randint(-1, c + 3) for s, c in world.last.items() if random.random() < 0.5}  # type: ignore[attr-defined]
                readers.append(Expected(world, participant if isinstance(participant, int) else None, have))
            case ("pull", int(which), int(budget)) if readers:
                readers[which % len(readers)].pull(budget)
    for reader in readers:
        reader.check()
        assert not reader.reader.lost


@settings(max_examples=200)
@given(st.lists(STEP, max_size=60), st.data())
def test_what_was_dropped_is_reported_lost_and_nothing_else(steps: list[tuple[object, ...]], data: st.DataObject) -> None:
    """The same with prunes: per stream, what a reader got and what it was told is lost make up what it lacked, in order."""
    world, readers = World(), list[Expected]()
    lost: dict[int, dict[Stream, int]] = {}
    for now, step in enumerate(steps):
        match step:
            case ("append", (int(sender), int(channel), int(to)), int(_), bool(local)):
                world.append(sender, channel, to, 1, local=local, now=float(now))
            case ("join", participant, _):
                readers.append(Expected(world, participant if isinstance(participant, int) else None, {}))
            case ("pull", int(which), int(budget)) if readers:
                readers[which % len(readers)].pull(budget)
        if data.draw(st.integers(0, 9), label="prune") == 0:
            world.log.expire(now + limits.KEEP_FOR - data.draw(st.integers(0, 20), label="age"), 1 << 60)
    for number, one in enumerate(readers):
        while frames := one.reader.pull(100_000):
            one.got += [h for h in headers(frames) if h.channel in RELIABLE]
        lost[number] = {Stream(ParticipantId(s), ParticipantId(r), c): counter for s, r, c, counter in one.reader.lost}
        expected = list(one.expected())
        for stream in {h.stream for h in expected}:
            got = [h.counter for h in one.got if h.stream == stream]
            wished = [h.counter for h in expected if h.stream == stream]
            missing = sorted(set(wished) - set(got))
            assert got == sorted(set(got))
            assert set(got) <= set(wished)
            if missing and one.me is not None:
                assert lost[number][stream] >= missing[-1]
            if stream in lost[number]:
                assert missing


def test_a_newcomer_gets_channel_0_alone_until_it_starts() -> None:
    world = World()
    for _ in range(3):
        world.append(1, 0, 2)
        world.append(1, 1, 0)
        world.append(3, 2, 0)
    reader = Reader(world.log, ParticipantId(2), world.dropped)
    assert [(h.channel, h.counter) for h in headers(reader.pull(10_000))] == [(0, 0), (0, 1), (0, 2)]
    world.append(1, 0, 2)
    world.append(1, 5, 0)
    reader.start([(1, 0, 1, 0), (3, 0, 2, 1)])
    assert [(h.channel, h.counter) for h in headers(reader.pull(10_000))] == [(1, 1), (1, 2), (0, 3), (2, 2)]


def test_a_newcomer_gets_no_updates_of_a_picture_that_it_has_not() -> None:
    world = Screen()
    early = Reader(world.log, ParticipantId(3), world.dropped)
    early.start([], newcomer=True)
    world.piece(last=True)
    world.update()
    assert [h.channel for h in headers(early.pull(10_000))] == [5]  # nobody showed anything when it came
    late = Reader(world.log, ParticipantId(2), world.dropped)
    late.start([], newcomer=True)
    world.update()
    world.append(1, 6, 0)
    assert [h.channel for h in headers(late.pull(10_000))] == [6]
    assert late.want(1)
    assert [h.channel for h in headers(late.pull(10_000))] == [9, 5, 5]


def test_what_is_urgent_goes_first_and_each_queue_keeps_its_order() -> None:
    world = World()
    reader = Reader(world.log, ParticipantId(9), world.dropped)
    reader.start([])
    for channel in (8, 5, 6, 7, 2, 1, 5, 8):
        world.append(1, channel, 0)
    assert [h.channel for h in headers(reader.pull(10_000))] == [1, 2, 7, 6, 8, 5, 5, 8]


def test_of_latest_channels_only_the_newest_of_each_stream() -> None:
    world = World()
    reader = Reader(world.log, ParticipantId(9), world.dropped)
    world.append(1, 6, 0)
    reader.start([])
    for _ in range(3):
        world.append(1, 6, 0)
        world.append(2, 6, 0)
        world.append(9, 6, 0)
    assert [(h.sender, h.counter) for h in headers(reader.pull(10_000))] == [(1, 3), (2, 2)]
    assert reader.pull(10_000) == []


def test_a_pull_keeps_to_its_budget_but_brings_one_frame_at_least() -> None:
    world = World()
    reader = Reader(world.log, ParticipantId(9), world.dropped)
    reader.start([])
    for _ in range(4):
        world.append(1, 2, 0, size=100)
    frame = 8 + 32 + 100 + 20
    assert len(reader.pull(1)) == 1
    assert len(reader.pull(1, at_least_one=False)) == 0
    assert len(reader.pull(2 * frame)) == 2
    assert len(reader.pull(2 * frame)) == 1


def test_a_stream_of_which_nothing_is_known_starts_anywhere() -> None:
    world = World()
    assert world.append(1, 2, 0, step=58) is Verdict.TAKEN
    assert world.append(1, 2, 0, step=2) is Verdict.GAP
    assert world.append(1, 2, 0) is Verdict.TAKEN


def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.log.MAX_STREAMS", 2)
    world = World()
    assert [world.append(s, 2, 0) for s in (1, 2, 3, 1)] == [Verdict.TAKEN, Verdict.TAKEN, Verdict.STREAMS, Verdict.TAKEN]


def test_a_senders_share_goes_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.log.SENDER_BYTES", 1000)
    world = World()
    for number in range(20):
        world.append(1, 2, 0, size=100)
        if number < 10:
            world.append(2, 2, 0, size=10)
    assert world.log.over(ParticipantId(1))
    assert not world.log.over(ParticipantId(2))
    floors = [0] * len(Queue)
    assert not world.log.make_room(ParticipantId(1), floors)
    floors[Queue.TALK] = world.log.rings[Queue.TALK].head
    assert world.log.make_room(ParticipantId(1), floors)
    reader = Reader(world.log, ParticipantId(9), world.dropped)
    reader.start([])
    got = headers(reader.pull(100_000))
    assert [h.counter for h in got if h.sender == 2] == list(range(10))
    left = [h.counter for h in got if h.sender == 1]
    assert left == list(range(20 - len(left), 20))
    assert reader.lost == [(1, 0, 2, left[0] - 1)]


def test_the_offices_log_is_no_part_of_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.log.SENDER_BYTES", 1000)
    log = SessionLog()
    for counter in range(50):
        body = packet(SESSION, 1, 1, counter, body=bytes(100))
        log.append(parse_packet_untrusted(body), body, 1, 0.0, office=True)
    assert not log.over(ParticipantId(1))


def test_of_a_roster_there_is_what_has_not_gone() -> None:
    world, ana, olga = World(), ParticipantId(2), Stream(ParticipantId(1), ParticipantId(0), Channel.ROSTER)
    for at in range(6):
        world.append(1, Channel.ROSTER, 0, now=float(at))
        world.append(1, Channel.LOG, 0, now=float(at))
        world.append(2, Channel.ROSTER, 0, now=float(at))  # of another office, before or after
    reader = Reader(world.log, ana, world.dropped)
    for first, there in ((0, [0, 1, 2, 3, 4, 5]), (4, [4, 5]), (6, [])):
        reader.fetch(olga, first)
        assert [entry.counter for entry in reader.fetched] == there
    world.log.expire(limits.KEEP_FOR + 3.0, 1 << 60)
    reader.fetch(olga, 0)
    assert [entry.counter for entry in reader.fetched] == [4, 5]
    world.log.expire(limits.KEEP_FOR + 9.0, 1 << 60)
    reader.fetch(olga, 0)
    assert not reader.fetched
    assert not world.log._rosters


def test_files_keep_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.log.FILE_BYTES", 1000)
    world = World()
    for _ in range(20):
        world.append(1, 8, 0, size=100)
    reader = Reader(world.log, ParticipantId(9), world.dropped)
    reader.start([])
    assert [h.counter for h in headers(reader.pull(100_000))] == list(range(14, 20))
    assert reader.lost == [(1, 0, 8, 13)]


# --- the screen ---


class Viewer:
    """A reader of the screen that keeps a picture: the counter up to which it is right; None: none."""

    def __init__(self, world: "Screen", participant: int | None) -> None:
        self.reader = Reader(world.log, ParticipantId(participant) if participant else None, world.dropped, "" if participant else "b")
        self.reader.start([])
        self.picture: int | None = None
        self.collecting: int | None = None  # where the snapshot that arrives goes on
        self.after: list[int] = []  # updates since that snapshot's first packet
        self.highest = -1

    def take(self, frames: list[bytes]) -> None:
        for frame in FrameDecoder().feed_untrusted(b"".join(frames)):
            header = parse_packet_untrusted(frame.body)
            if header.channel == Channel.SNAPSHOT:
                first, goes_on = frame.body[32], int.from_bytes(frame.body[33:37], "big")
                if first:
                    self.collecting, self.after, self.picture = goes_on, [], None
                assert self.collecting == goes_on  # a snapshot comes from its first packet on, and none in between
                if header.flags & Flag.LAST:
                    self.picture, self.collecting = goes_on - 1, None
                    for counter in self.after:
                        self._apply(counter)
            else:
                assert header.counter > self.highest  # never a second time
                self.highest = header.counter
                if self.collecting is not None:
                    self.after.append(header.counter)
                elif self.picture is not None:
                    self._apply(header.counter)

    def drain(self) -> None:
        while frames := self.reader.pull(100_000):
            self.take(frames)

    def _apply(self, counter: int) -> None:
        if self.picture is not None and self.reader.participant is None and counter > self.picture + 1:
            self.picture = None  # another node finds out by itself
        if self.picture is not None:
            assert counter == self.picture + 1  # without a gap: what is skipped is skipped until the next snapshot
            self.picture = counter


class Screen(World):
    """A presenter."""

    def __init__(self) -> None:
        super().__init__()
        self.updates = -1
        # A gap before the first update looks like a beginning, and one after a snapshot like one in front of it: a relay cannot tell,
        # since only the members can read where a snapshot goes on. They want again.
        self.is_update_newest = False
        self.snapshots = -1
        self.goes_on: int | None = None  # of the snapshot under way

    def update(self, size: int = 50) -> None:
        self.updates += 1
        self.is_update_newest = True
        body = packet(SESSION, 1, 5, self.updates, body=bytes(size))
        assert self.log.append(parse_packet_untrusted(body), body, 1, 0.0) is Verdict.TAKEN

    def piece(self, *, last: bool, size: int = 100, epoch: int = 1) -> None:
        self.snapshots += 1
        self.is_update_newest = False
        first = self.goes_on is None
        self.goes_on = self.updates + 1 if self.goes_on is None else self.goes_on
        content = bytes([first]) + self.goes_on.to_bytes(4, "big") + bytes(size)
        body = packet(SESSION, 1, 9, self.snapshots, body=content, flags=Flag.LAST if last else 0, epoch=epoch)
        assert self.log.append(parse_packet_untrusted(body), body, 1, 0.0) in (Verdict.TAKEN, Verdict.TORN)
        if last:
            self.goes_on = None


SCREEN_STEP = st.one_of(
    st.tuples(st.just("update"), st.integers(1, 300)),
    st.tuples(st.just("update"), st.integers(1, 300)),
    st.tuples(st.just("piece"), st.booleans()),
    st.tuples(st.just("miss"), st.just(0)),
    st.tuples(st.just("join"), st.sampled_from([2, 3, None])),
    st.tuples(st.just("want"), st.integers(0, 9)),
    st.tuples(st.just("pull"), st.integers(0, 9), st.integers(1, 2000)),
    st.tuples(st.just("expire"), st.just(0)),
)


@settings(max_examples=500)
@given(st.lists(SCREEN_STEP, max_size=80))
def test_every_viewer_has_a_picture_without_gaps(steps: list[tuple[object, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcs.log.SCREEN_BYTES", 2000)
        world, viewers = Screen(), list[Viewer]()
        for step in steps:
            match step:
                case ("update", int(size)):
                    world.update(size)
                case ("piece", bool(last)):
                    world.piece(last=last)
                case ("miss", _) if world.is_update_newest:
                    world.updates += 1  # it never came here
                case ("join", participant):
                    viewers.append(Viewer(world, participant if isinstance(participant, int) else None))
                case ("want", int(which)) if viewers:
                    viewers[which % len(viewers)].reader.want(1)
                case ("pull", int(which), int(budget)) if viewers:
                    viewer = viewers[which % len(viewers)]
                    viewer.take(viewer.reader.pull(budget))
                case ("expire", _):
                    world.log.expire(0.0, min((v.reader.floor(Queue.SCREEN) for v in viewers), default=1 << 60))
            screen = world.log.rings[Queue.SCREEN]
            assert screen.size <= 2000 + sum(s.size for s in (world.log.former, world.log.snapshot, world.log.building) if s)
        if world.goes_on is not None:
            world.piece(last=True)
        for viewer in viewers:  # whoever wants and is answered ends with the presenter's picture
            reader = viewer.reader
            if reader.participant is None:
                continue
            reader.want(1)
            world.update()
            viewer.drain()
            if reader.screen is not Following.LEVEL:  # what it was given from the ring was outrun, or there was nothing
                assert reader.screen is Following.WANTING
                world.piece(last=False)
                world.update()
                world.piece(last=True)
                viewer.drain()
            assert viewer.picture == world.updates


def viewer_of(world: Screen) -> Viewer:
    return Viewer(world, 2)


def test_level_readers_never_get_a_snapshot() -> None:
    world = Screen()
    viewer = viewer_of(world)
    for _ in range(3):
        world.update()
        world.piece(last=False)
        world.piece(last=True)
        world.update()
    assert [h.channel for h in headers(viewer.reader.pull(100_000))] == [5] * 6


def test_a_want_is_served_from_the_ring_once() -> None:
    world = Screen()
    world.update()
    world.piece(last=False, epoch=7)
    world.update()
    world.piece(last=True, epoch=7)
    world.update()
    viewer = viewer_of(world)
    assert not viewer.reader.want(8)  # of an earlier epoch
    viewer = viewer_of(world)
    assert viewer.reader.want(7)
    assert [(h.channel, h.counter) for h in headers(viewer.reader.pull(100_000))] == [(9, 0), (5, 1), (9, 1), (5, 2)]
    assert not viewer.reader.want(7)  # that one did not help
    world.update()
    assert viewer.reader.pull(100_000) == []
    world.piece(last=True, epoch=6)
    assert viewer.reader.pull(100_000) == []
    world.piece(last=True, epoch=7)
    world.update()
    assert [(h.channel, h.counter) for h in headers(viewer.reader.pull(100_000))] == [(9, 3), (5, 4)]


def test_a_snapshot_that_updates_have_outrun_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.log.SCREEN_BYTES", 1000)
    world = Screen()
    world.piece(last=True)
    for _ in range(30):
        world.update()
    assert not viewer_of(world).reader.want(0)


def test_a_reader_that_falls_behind_skips_and_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.log.SCREEN_BYTES", 1000)
    world = Screen()
    viewer = viewer_of(world)
    for _ in range(30):
        world.update()
    assert viewer.reader.pull(100_000) == []
    assert viewer.reader.skipped
    assert viewer.reader.want_epoch == 1
    assert world.dropped == {"skipped": 1}


def test_after_a_gap_in_the_screen_a_reader_wants() -> None:
    world = Screen()
    viewer = viewer_of(world)
    world.update()
    world.updates += 1
    world.update()
    assert [h.counter for h in headers(viewer.reader.pull(100_000))] == [0]
    assert viewer.reader.skipped
    assert world.dropped == {"screen-gap": 1}
    world.piece(last=True)
    world.update()
    assert [(h.channel, h.counter) for h in headers(viewer.reader.pull(100_000))] == [(9, 0), (5, 3)]


def test_a_gap_that_a_snapshot_covers_costs_level_readers_that_snapshot_and_others_nothing() -> None:
    world = Screen()
    level, wanting = viewer_of(world), viewer_of(world)
    world.update()
    level.drain()
    wanting.drain()
    wanting.reader.want(1)
    world.updates += 1
    world.piece(last=True)
    world.update()
    for viewer in (level, wanting):
        assert [(h.channel, h.counter) for h in headers(viewer.reader.pull(100_000))] == [(9, 0), (5, 2)]
        assert not viewer.reader.skipped
    assert world.dropped == {"screen-gap": 1}


def test_what_follows_a_gap_is_the_beginning_of_a_snapshot() -> None:
    """Its presenter's former link, or the relay at its other end, was lost in the middle of one."""
    log = SessionLog()

    def append(counter: int, flags: int = 0, via: str = "") -> Verdict:
        body = packet(SESSION, 1, 9, counter, flags=flags)
        return log.append(parse_packet_untrusted(body), body, 1, 0.0, via=via)

    def whole() -> tuple[int, int] | None:
        found = log.snapshot
        ring = log.rings[Queue.SCREEN]
        ends = [ring.get(index) for index in (found.first, found.last)] if found else []
        return (ends[0].counter, ends[1].counter) if ends and ends[0] and ends[1] else None

    assert append(3) is Verdict.TAKEN  # the node is new
    assert append(4, Flag.LAST) is Verdict.TAKEN
    assert whole() == (3, 4)
    assert append(5) is Verdict.TAKEN
    assert append(8) is Verdict.TAKEN
    assert append(9, Flag.LAST) is Verdict.TAKEN
    assert whole() == (8, 9)
    assert append(20, via="b") is Verdict.TAKEN
    assert append(21, Flag.LAST, via="b") is Verdict.TAKEN
    assert whole() == (20, 21)


def test_a_snapshot_that_will_never_be_whole_is_wanted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.log.SCREEN_BYTES", 1000)
    world = Screen()
    world.piece(last=False)
    viewer = viewer_of(world)
    assert viewer.reader.want(1)
    viewer.drain()
    for _ in range(30):
        world.update()
        viewer.drain()
    assert viewer.reader.skipped
    world.piece(last=True)  # of the one that was outrun
    assert viewer.reader.pull(100_000) == []
    world.piece(last=True)
    assert [(h.channel, h.counter) for h in headers(viewer.reader.pull(100_000))] == [(9, 2)]


def test_a_snapshot_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.log.SNAPSHOT_BYTES", 500)
    world = Screen()
    for _ in range(4):
        world.piece(last=False)
    assert world.log.building is None
    body = packet(SESSION, 1, 9, 4, flags=Flag.LAST)
    assert world.log.append(parse_packet_untrusted(body), body, 1, 0.0) is Verdict.TORN
    assert world.log.snapshot is None


def test_another_presenters_picture_replaces_the_former() -> None:
    world = Screen()
    world.piece(last=True)
    body = packet(SESSION, 2, 5, 0)
    world.log.append(parse_packet_untrusted(body), body, 1, 0.0)
    assert not Viewer(world, 3).reader.want(0)
    assert world.log.screen_sender == 2


def test_the_picture_before_the_last_snapshot_goes_when_read() -> None:
    world = Screen()
    for _ in range(5):
        world.update()
        world.piece(last=True)
    world.log.expire(0.0, 1 << 60)
    assert [(e.stream.channel, e.counter) for e in world.log.rings[Queue.SCREEN].entries()] == [(9, 4)]
