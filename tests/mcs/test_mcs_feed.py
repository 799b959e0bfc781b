"""What level readers share, against a naive oracle: links that stall and come back, and whatever else sets a reader apart."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcs import limits
from mcs.session import Session
from tests.mcs.simulation import Net, Port
from wire.control import Admitted, Want
from wire.frame import FrameDecoder
from wire.ids import Channel

PEOPLE = (1, 2, 3, 4)
WHO = st.sampled_from(PEOPLE)
STEP = st.one_of(
    st.tuples(st.just("chat"), WHO, st.integers(1, 5)),
    st.tuples(st.just("whisper"), WHO, WHO),
    st.tuples(st.just("log"), st.just(1)),
    st.tuples(st.just("cursor"), WHO),
    st.tuples(st.just("screen"), st.just(2), st.booleans()),
    st.tuples(st.just("snapshot"), st.just(2)),
    st.tuples(st.just("want"), WHO),
    st.tuples(st.just("stall"), WHO),
    st.tuples(st.just("drain"), WHO),
    st.tuples(st.just("turn"), st.sampled_from([0.0, 0.001, 0.01])),
)


def meeting(people: tuple[int, ...] = PEOPLE) -> tuple[Net, Session]:
    """One relay; everybody is there, admitted and level."""
    net = Net(dict.fromkeys(people, "a"), ["a"])
    net.say(1, Admitted(list(people)))
    net.settle()
    net.settle()
    session = net.ports[1].session
    assert set(session.feed.level) == set(net.ports.values())
    return net, session


def turn(net: Net, seconds: float = 0.01) -> None:
    """One turn of a pump: what has come is fanned out, what is woken is written."""
    net.now += seconds
    net.relays["a"].fan_out(net.now)


def counters(port: Port, channel: int) -> list[int]:
    return [h.counter for h in port.packets if h.channel == channel]


@settings(max_examples=200, deadline=None)
@given(st.lists(STEP, max_size=60), st.sampled_from([(200, 1800), (limits.SEGMENT, 600), (limits.SEGMENT, limits.TRAIL_BYTES)]))
def test_everybody_gets_everything_once_in_order_whoever_stalls(steps: list[tuple[object, ...]], sizes: tuple[int, int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcs.feed.SEGMENT", sizes[0])
        patch.setattr("mcs.feed.TRAIL_BYTES", sizes[1])
        net, _ = meeting()
        sent: Counter[tuple[int, int, int]] = Counter()
        for step in steps:
            match step:
                case ("chat", int(who), int(times)):
                    for _ in range(times):
                        net.send(who, Channel.CHAT)
                    sent[who, 0, Channel.CHAT] += times
                case ("whisper", int(who), int(to)) if who != to:
                    net.send(who, Channel.WHISPER, to)
                    sent[who, to, Channel.WHISPER] += 1
                case ("log", int(who)):
                    net.send(who, Channel.LOG)
                    sent[who, 0, Channel.LOG] += 1
                case ("cursor", int(who)):
                    net.send(who, Channel.CURSOR)
                case ("screen", int(who), bool(gap)):
                    net.counters[who, 0, Channel.SCREEN] += gap
                    net.send(who, Channel.SCREEN)
                case ("snapshot", int(who)):
                    net.send(who, Channel.SNAPSHOT)
                case ("want", int(who)):
                    net.say(who, Want(1))
                case ("stall", int(who)):
                    net.ports[who].blocked = True
                case ("drain", int(who)):
                    net.ports[who].pull()
                case ("turn", float(seconds)):
                    turn(net, seconds)
        net.settle()
        net.settle()
        for me, port in net.ports.items():
            got = Counter[tuple[int, int, int]]()
            newest: dict[tuple[int, int, int], int] = {}
            for header in port.packets:
                assert header.sender != me
                assert header.recipient in (0, me)
                if header.channel in (Channel.CURSOR, Channel.SCREEN, Channel.SNAPSHOT):
                    assert header.counter > newest.get(header.stream, -1)
                    newest[header.stream] = header.counter
                else:
                    assert header.counter == got[header.stream]
                    got[header.stream] += 1
            assert got == Counter({s: n for s, n in sent.items() if s[0] != me and s[1] in (0, me)})
            for who in PEOPLE:
                last = net.counters[who, 0, Channel.CURSOR] - 1
                assert who == me or newest.get((who, 0, Channel.CURSOR), -1) == last


def test_level_readers_are_written_the_same_bytes_in_records() -> None:
    net, session = meeting()
    written: list[bytes] = []
    group = session.feed._group
    group.write = lambda records, now: written.extend(records)  # type: ignore[method-assign]
    for _ in range(300):
        net.send(1, Channel.CHAT)
    turn(net)
    assert len(written) > 1
    assert all(len(data) <= limits.SEGMENT for data in written)
    assert all(len(data) > limits.SEGMENT - 200 for data in written[:-1])
    assert sum(len(list(FrameDecoder().feed_untrusted(data))) for data in written) == 300  # each ends with a frame
    assert net.ports[1] not in session.feed.level  # who sent it does not get it


def pace(net: Net, packets: int, every: float) -> list[int]:
    """A packet every so often, and for each whether it went out when it came: how many are missing at a reader behind each."""
    missing = []
    for _ in range(packets):
        again = net.relays["a"].fan_out(net.now)
        end = net.now + every
        while again is not None and again < end:  # the pump comes again in time
            net.now = again
            again = net.relays["a"].fan_out(net.now)
        net.now = end
        net.send(1, Channel.CHAT)
        net.relays["a"].fan_out(net.now)
        missing.append(net.counters[1, 0, Channel.CHAT] - len(counters(net.ports[3], Channel.CHAT)))
    return missing


def test_what_people_do_never_waits() -> None:
    net, _ = meeting()
    assert not any(pace(net, 500, 1.01 * limits.HOLD))
    assert not any(pace(net, int(limits.WRITES) - 1, 0.0))  # as many at once
    turn(net, (limits.WRITES + 1) * limits.HOLD)
    assert not any(pace(net, int(limits.WRITES), 0.0))


def test_of_a_steady_stream_a_third_waits_for_the_next_packet() -> None:
    net, _ = meeting()
    pace(net, 100, limits.HOLD / 1.5)
    found = pace(net, 300, limits.HOLD / 1.5)
    assert set(found) == {0, 1}  # never two in a row
    assert sum(found) == pytest.approx(100, abs=2)
    turn(net, limits.HOLD)
    assert len(counters(net.ports[3], Channel.CHAT)) == 400  # the last one has waited long enough
    turn(net, 2 * limits.HOLD)
    assert pace(net, 1, 0.0) == [0]


def test_under_load_packets_gather_for_a_while_or_until_a_segment_is_full() -> None:
    net, session = meeting()
    for _ in range(int(limits.WRITES)):
        net.send(1, Channel.CHAT)
        turn(net, 0.0)
    seen = len(counters(net.ports[3], Channel.CHAT))
    net.send(1, Channel.CHAT)
    again = net.relays["a"].fan_out(net.now)
    assert again is not None
    assert again == pytest.approx(net.now + limits.HOLD)
    assert net.relays["a"].fan_out(net.now + limits.HOLD / 2) == again  # a turn for something else
    assert len(counters(net.ports[3], Channel.CHAT)) == seen
    assert net.relays["a"].fan_out(again) is None
    assert len(counters(net.ports[3], Channel.CHAT)) == seen + 1
    sent = 0
    while len(counters(net.ports[3], Channel.CHAT)) == seen + 1:
        net.send(1, Channel.CHAT)
        net.relays["a"].fan_out(again)
        sent += 1
    assert sent > 10
    assert len(counters(net.ports[3], Channel.CHAT)) == seen + 1 + sent
    assert session.feed.level


def test_a_stalled_reader_leaves_and_comes_back_without_a_gap() -> None:
    net, session = meeting()
    two = net.ports[2]
    two.blocked = True
    for _ in range(50):
        net.send(1, Channel.CHAT)
        turn(net)
    assert two in session.feed.trailing
    assert counters(two, Channel.CHAT) == [0]
    assert counters(net.ports[3], Channel.CHAT) == list(range(50))
    two.pull()
    assert two in session.feed.level
    assert counters(two, Channel.CHAT) == list(range(50))


def test_a_reader_far_behind_reads_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.feed.TRAIL_BYTES", 1000)
    net, session = meeting()
    two = net.ports[2]
    two.blocked = True
    for _ in range(50):
        net.send(1, Channel.CHAT)
        turn(net)
    assert two in session.feed.own
    two.pull()
    assert counters(two, Channel.CHAT) == list(range(50))
    assert two in session.feed.level


def test_a_gap_in_the_screen_sends_everybody_to_look_for_itself() -> None:
    net, session = meeting()
    net.send(2, Channel.SCREEN)
    turn(net)
    net.counters[2, 0, Channel.SCREEN] += 1
    net.send(2, Channel.SCREEN)
    turn(net)
    assert not session.feed.level
    net.settle()
    assert net.relays["a"].dropped["screen-gap"] == 3  # each of those who lack it
    assert len(net.ports[2].of(Want)) == 1  # and one snapshot for all
    net.send(2, Channel.SNAPSHOT)
    net.settle()
    for me in (1, 3, 4):
        assert counters(net.ports[me], Channel.SNAPSHOT) == [0]
        assert counters(net.ports[me], Channel.SCREEN) == [0]


def test_B04_memory_stays_flat_over_an_hour_of_packets() -> None:
    """What is held after an hour is what was held after ten minutes."""
    net, session = meeting((1, 2))
    relay, held = net.relays["a"], list[tuple[int, int, int]]()
    for second in range(3600):
        for channel in (Channel.CHAT, Channel.LOG, Channel.CURSOR, Channel.SCREEN, *([Channel.SNAPSHOT] if second % 60 == 0 else [])):
            net.send(1, channel)
        net.now += 1.0
        relay.fan_out(net.now)
        relay.flush()
        relay.tick()
        for port in net.ports.values():
            port.pull()
            port.packets.clear()
            port.said.clear()
        if second % 600 == 599:
            rings, feed = session.log.rings, session.feed
            held.append((sum(ring.size for ring in rings), sum(len(ring._slots) for ring in rings), feed._kept))
    sizes, slots, kept = zip(*held, strict=True)
    assert max(sizes) <= 1.02 * sizes[0]  # the numbers in the packets get longer
    assert max(slots) <= 2 * slots[0]
    assert max(kept) <= limits.TRAIL_BYTES
