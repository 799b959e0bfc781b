"""A link's life: two links back to back, a clock that is an argument, and every legal and illegal step."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wire.control import (
    MESSAGES,
    Control,
    End,
    Error,
    Have,
    Hello,
    NodeHello,
    NodeInfo,
    NodeWelcome,
    Ping,
    Pong,
    Want,
    Welcome,
    encode_control,
)
from wire.errors import CloseReason, Flood, LinkClosed, LocalMisuse, UnexpectedMessage, WireError
from wire.frame import PACKET, Frame, encode_frame
from wire.link import GREETING_WITHIN, KEEP_ALIVES, LEGAL, MEASURE_EVERY, PING_EVERY, SILENT_AFTER, Link, LinkState, Side

HELLO = Hello(1, 5, 7, 2, b"8 bytes!", True, [])
WELCOME = Welcome(1, "relay-1", -1, -1, [])
NODE_HELLO = NodeHello(1, NodeInfo("relay-1", [("127.0.0.1", 1)]))
NODE_WELCOME = NodeWelcome(1, "relay-2")
EXAMPLES: dict[str, Control] = {
    "hello": HELLO,
    "node hello": NODE_HELLO,
    "welcome": WELCOME,
    "node welcome": NODE_WELCOME,
    "have": Have([]),
    "ping": Ping(1),
    "pong": Pong(0),
    "error": Error("left"),
    "want": Want(1),
    "end": End(),
}


def hear(link: Link, data: bytes, now: float = 0.0) -> list[Frame | Control]:
    return list(link.receive_untrusted(data, now))


def collect(link: Link, pieces: list[bytes], heard: list[Frame | Control]) -> None:
    for piece in pieces:
        for item in link.receive_untrusted(piece, 0):
            heard.append(item)  # one by one, so that what stands before an error is kept


def pair(now: float = 0.0) -> tuple[Link, Link]:
    return Link(Side.CALLER, now), Link(Side.CALLEE, now)


def up(now: float = 0.0) -> tuple[Link, Link]:
    caller, callee = pair(now)
    caller.send(HELLO, now)
    assert hear(callee, caller.data_to_send(), now) == [HELLO]
    callee.send(WELCOME, now)
    assert hear(caller, callee.data_to_send(), now) == [WELCOME]
    assert caller.state is callee.state is LinkState.UP
    return caller, callee


def in_state(side: Side, state: LinkState) -> Link:
    """A link of this side that has come to this state in the ordinary way."""
    caller, callee = pair()
    if state is not LinkState.OPENING:
        caller.send(HELLO, 0)
        hear(callee, caller.data_to_send(), 0)
    if state in (LinkState.UP, LinkState.CLOSED):
        callee.send(WELCOME, 0)
        hear(caller, callee.data_to_send(), 0)
    link = caller if side is Side.CALLER else callee
    if state is LinkState.CLOSED:
        link.refuse(CloseReason.LEFT)
        link.data_to_send()
    return link


LEGAL_BY_HAND = {  # (speaker, state) → what may be said, as protocol.md tells it
    (Side.CALLER, LinkState.OPENING): {"hello", "node hello", "ping", "pong", "error"},
    (Side.CALLEE, LinkState.OPENING): {"ping", "pong", "error"},
    (Side.CALLER, LinkState.GREETING): {"have", "ping", "pong", "error"},
    (Side.CALLEE, LinkState.GREETING): {"welcome", "node welcome", "ping", "pong", "error"},
    (Side.CALLER, LinkState.UP): {"have", "ping", "pong", "error", "want", "end", "packet"},
    (Side.CALLEE, LinkState.UP): {"have", "ping", "pong", "error", "want", "end", "packet"},
    (Side.CALLER, LinkState.CLOSED): set(),
    (Side.CALLEE, LinkState.CLOSED): set(),
}


@pytest.mark.parametrize(("side", "state", "name"), [(*key, name) for key in LEGAL_BY_HAND for name in [*EXAMPLES]])
def test_saying_what_is_not_legal_is_our_misuse(side: Side, state: LinkState, name: str) -> None:
    link = in_state(side, state)
    if name in LEGAL_BY_HAND[side, state]:
        link.send(EXAMPLES[name], 0)
        assert link.data_to_send() == encode_control(EXAMPLES[name])
    else:
        with pytest.raises(LocalMisuse):
            link.send(EXAMPLES[name], 0)
        assert link.data_to_send() == b""
        assert link.state is state


@pytest.mark.parametrize(
    ("speaker", "state", "name"), [(*key, name) for key in LEGAL_BY_HAND if key[1] is not LinkState.CLOSED for name in [*EXAMPLES, "packet"]]
)
def test_hearing_what_is_not_legal_is_the_peers_doing(speaker: Side, state: LinkState, name: str) -> None:
    link = in_state(Side.CALLEE if speaker is Side.CALLER else Side.CALLER, state)
    data = encode_frame(PACKET, b"sealed") if name == "packet" else encode_control(EXAMPLES[name])
    if name not in LEGAL_BY_HAND[speaker, state]:
        with pytest.raises(UnexpectedMessage):
            hear(link, data, 0)
        return
    heard = hear(link, data, 0)
    if name == "packet":
        assert heard == [Frame(PACKET, 0, b"sealed")]
    else:
        assert heard == ([] if name in ("ping", "pong") else [EXAMPLES[name]])


def test_the_table_names_both_sides_and_nothing_leaves_closed() -> None:
    assert set(LEGAL) == set(Side)
    for table in LEGAL.values():
        assert not any(state is LinkState.CLOSED for state, _ in table)
    assert {type(message) for message in EXAMPLES.values()} <= set(MESSAGES)


def test_a_closed_link_takes_nothing() -> None:
    caller, callee = up()
    caller.refuse(CloseReason.LEFT)
    caller.refuse(CloseReason.FLOOD)  # the first reason counts
    (heard,) = hear(callee, caller.data_to_send(), 0)
    assert isinstance(heard, Error)
    assert heard.close_reason is CloseReason.LEFT
    assert caller.data_to_send() == b""
    for link in (caller, callee):
        assert link.state is LinkState.CLOSED
        with pytest.raises(LocalMisuse):
            hear(link, b"", 0)


def test_what_stands_before_an_error_counts_and_what_follows_it_does_not() -> None:
    _, callee = up()
    data = encode_control(Want(1)) + encode_control(Error("left")) + encode_control(Want(2)) + b"\xff" * 20
    assert hear(callee, data) == [Want(1), Error("left")]
    assert callee.state is LinkState.CLOSED


@pytest.mark.parametrize("bad", [b"\xff" * 20, encode_control(HELLO), encode_frame(99, b""), encode_frame(Want.TYPE, b"\xc1")])
def test_what_stands_before_a_violation_counts_however_the_stream_was_cut(bad: bytes) -> None:
    data = encode_control(Want(1)) + encode_frame(PACKET, b"sealed") + bad
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        _, callee = up()
        heard: list[Frame | Control] = []
        with pytest.raises(WireError):
            collect(callee, pieces, heard)
        assert heard == [Want(1), Frame(PACKET, 0, b"sealed")]


def test_a_long_have_vector_passes_before_the_welcome() -> None:
    caller, callee = pair()
    caller.send(Hello(1, 5, 7, 2, b"8 bytes!", False, [], more=True), 0)
    caller.send(Have([(1, 0, 2, 3)], more=True), 0)
    caller.send(Have([(2, 0, 2, 3)]), 0)
    assert [type(message) for message in hear(callee, caller.data_to_send(), 0)] == [Hello, Have, Have]
    with pytest.raises(LocalMisuse):
        callee.send(Have([]), 0)
    callee.send(WELCOME, 0)
    assert callee.state is LinkState.UP


def test_an_idle_link_is_pinged_every_second_and_measures_its_round_trip() -> None:
    caller, callee = up(100.0)
    assert caller.deadline() == 100.0 + PING_EVERY
    caller.tick(100.5)
    assert caller.data_to_send() == b""
    caller.tick(101.0)
    hear(callee, caller.data_to_send(), 101.1)
    hear(caller, callee.data_to_send(), 101.2)
    assert caller.rtt == pytest.approx(0.2)


def test_a_link_that_sends_packets_needs_no_ping() -> None:
    _, callee = up()
    callee.packet_sent(0.9)
    callee.tick(1.5)
    assert callee.data_to_send() == b""
    assert callee.deadline() == pytest.approx(1.9)


def test_a_caller_that_sends_packets_without_end_knows_its_round_trip() -> None:
    caller, callee = up()
    pings = []
    for at in (number / 4 for number in range(1, 50)):
        caller.packet_sent(at)
        caller.tick(at)
        assert caller.deadline() > at
        sent = caller.data_to_send()
        pings += [at] * (encode_control(Ping(int(at * 1e6))) in sent)
        hear(callee, sent, at + 0.1)
        callee.tick(at + 0.1)
        hear(caller, callee.data_to_send(), at + 0.2)
    assert pings == [1.0, 1.0 + MEASURE_EVERY, 1.0 + 2 * MEASURE_EVERY]
    assert caller.rtt == pytest.approx(0.2)


def test_what_was_written_long_ago_brings_no_ping_forward() -> None:
    _, callee = up()
    callee.packet_sent(0.9)
    callee.packet_sent(0.2)  # a group that has written nothing since
    assert callee.deadline() == pytest.approx(1.9)


def test_silence_closes_and_any_byte_counts_as_a_sign_of_life() -> None:
    caller, _ = up()
    large = encode_frame(PACKET, bytes(100_000))
    for i in range(10):  # a large frame on a slow line: ten bytes a second
        now = float(i + 1)
        assert hear(caller, large[10 * i : 10 * i + 10], now) == []
        caller.tick(now)
    caller.tick(10 + SILENT_AFTER - 0.001)
    with pytest.raises(LinkClosed) as closed:
        caller.tick(10 + SILENT_AFTER)
    assert closed.value.reason is CloseReason.SILENT
    assert not closed.value.remote
    assert caller.state is LinkState.CLOSED


def test_silence_is_excused_while_this_side_does_not_read() -> None:
    caller, _ = up()
    caller.excuse_silence(2.9)
    caller.tick(5.8)
    with pytest.raises(LinkClosed):
        caller.tick(5.9)


@pytest.mark.parametrize("side", Side)
def test_a_greeting_that_does_not_come_closes_although_there_are_pings(side: Side) -> None:
    link = Link(side, 0.0)
    for tenth in range(int(GREETING_WITHIN * 10)):
        now = tenth / 10
        hear(link, encode_control(Ping(1)), now)
        link.tick(now)
    with pytest.raises(LinkClosed) as closed:
        link.tick(GREETING_WITHIN)
    assert closed.value.reason is CloseReason.HELLO_TIMEOUT


def test_the_greeting_of_a_link_in_reserve_lasts_until_its_have_vector_is_said() -> None:
    caller, callee = Link(Side.CALLER, 0.0), Link(Side.CALLEE, 0.0)
    caller.send(Hello(1, 5, 7, 2, b"8 bytes!", False, [], more=True, standby=True), 0.0)
    hear(callee, caller.data_to_send(), 0.0)
    end = 3 * int(GREETING_WITHIN)
    for now in range(1, end):
        for one, other in ((caller, callee), (callee, caller)):
            one.tick(now)
            hear(other, one.data_to_send(), now)
    caller.send(Have([]), end)
    hear(callee, caller.data_to_send(), end)
    for now in range(end + 1, end + int(GREETING_WITHIN)):
        hear(caller, encode_control(Ping(1)), now)
        caller.tick(now)
    hear(caller, encode_control(Ping(1)), now)
    with pytest.raises(LinkClosed) as closed:  # now it must be answered
        caller.tick(end + GREETING_WITHIN)
    assert closed.value.reason is CloseReason.HELLO_TIMEOUT


def test_a_link_in_reserve_is_not_welcomed_before() -> None:
    caller = Link(Side.CALLER, 0.0)
    caller.send(Hello(1, 5, 7, 2, b"8 bytes!", False, [], more=True, standby=True), 0.0)
    with pytest.raises(UnexpectedMessage):
        hear(caller, encode_control(Welcome(1, "relay-a", -1, -1, [])), 0.1)


def test_only_the_time_that_this_side_slept_is_no_silence() -> None:
    caller, _ = up()
    for tenth in range(1, 29):  # breathless all the time: late by a tenth with every look
        caller.slept(0.05, tenth / 10)
        caller.tick(tenth / 10)
    caller.tick(4.3)
    with pytest.raises(LinkClosed) as closed:
        caller.tick(4.5)
    assert closed.value.reason is CloseReason.SILENT


def test_pings_that_are_answered_at_once_count_too() -> None:
    _, link = up()
    for _ in range(KEEP_ALIVES):
        assert link.answer_untrusted(encode_control(Ping(1)), 3.0)
    with pytest.raises(Flood):
        link.answer_untrusted(encode_control(Ping(1)), 3.0)


@pytest.mark.parametrize("batches", [False, True], ids=["frame by frame", "in batches"])
@pytest.mark.parametrize("message", [Ping(1), Pong(1)], ids=["pings", "pongs"])
def test_more_keep_alive_in_a_second_than_anybody_needs_is_a_flood(message: Control, batches: bool) -> None:
    link, data = Link(Side.CALLEE, 0.0), encode_control(message)
    receive = link.receive_batches_untrusted if batches else link.receive_untrusted
    for second in range(3):
        for _ in range(KEEP_ALIVES):
            assert list(receive(data, 1.0 + second)) == []
    with pytest.raises(Flood):
        list(receive(data, 3.5))


def test_many_pings_queue_one_answer() -> None:
    _, callee = up()
    for stamp in range(KEEP_ALIVES):
        hear(callee, encode_control(Ping(stamp)), 0)
    assert callee.owed == 0
    assert callee.data_to_send() == encode_control(Pong(KEEP_ALIVES - 1))


@given(st.integers(0, 2**64 - 1))
def test_a_ping_alone_is_answered_at_once_as_it_would_be_otherwise(stamp: int) -> None:
    (_, one), (_, other) = up(), up()
    ping = encode_control(Ping(stamp))
    assert list(other.receive_batches_untrusted(ping, 2.0)) == []
    assert one.answer_untrusted(ping, 2.0) == other.data_to_send() == encode_control(Pong(stamp))
    assert one.deadline() == 2.0 + PING_EVERY
    assert not one.wants_to_send


@given(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([encode_control(message) for message in EXAMPLES.values()]),
        st.integers(1, 17).map(lambda size: encode_control(Ping(2**64 - 1))[:size]),
        st.integers(0, 2**64 - 1).map(lambda stamp: 2 * encode_control(Ping(stamp))),
        st.integers(0, 2**64 - 1).map(lambda stamp: encode_control(Ping(stamp)) + b"\0"),
        st.binary(min_size=2, max_size=10).map(lambda body: encode_frame(Ping.TYPE, body)),
        st.integers(1, 255).map(lambda hops: encode_frame(Ping.TYPE, b"\x91\1", hops)),
    )
)
def test_only_a_ping_alone_is_answered_at_once_and_nothing_else_moves(data: bytes) -> None:
    _, link = up()
    try:
        answer = link.answer_untrusted(data, 2.0)
    except WireError as refused:
        with pytest.raises(type(refused)):
            list(link.receive_batches_untrusted(data, 2.0))
        return
    if answer is None:
        assert link.deadline() == PING_EVERY
    else:
        _, other = up()
        assert list(other.receive_batches_untrusted(data, 2.0)) == []
        assert len(other.data_to_send()) == len(answer)


def test_a_ping_is_not_answered_at_once_while_anything_else_is_under_way() -> None:
    ping = encode_control(Ping(1))
    _, link = up()
    assert list(link.receive_batches_untrusted(ping[:3], 0)) == []
    assert link.answer_untrusted(ping, 0) is None  # it is not the beginning of a frame
    _, link = up()
    link.send(Want(1), 0)
    assert link.answer_untrusted(ping, 0) is None
    assert Link(Side.CALLEE, 0).answer_untrusted(ping, 0) is None
    _, link = up()
    link.refuse(CloseReason.LEFT)
    assert link.answer_untrusted(ping, 0) is None


def test_what_is_owed_is_counted_until_it_is_taken() -> None:
    caller, _ = up()
    caller.send(Want(1), 0)
    caller.send(Want(2), 0)
    assert caller.owed == len(encode_control(Want(1)) + encode_control(Want(2)))
    assert caller.data_to_send() == encode_control(Want(1)) + encode_control(Want(2))
    assert caller.owed == 0


def test_a_pong_with_a_stamp_of_tomorrow_measures_nothing_odd() -> None:
    caller, _ = up()
    hear(caller, encode_control(Pong(2**64 - 1)), 1.0)
    assert caller.rtt == 0.0


class TwoLinks(RuleBasedStateMachine):
    """Two links with a line in between that delivers late, in pieces, or nothing: what arrives is what was sent, in order, and each
    side's state is never ahead of what it has heard."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.links = {side: Link(side, self.now) for side in Side}
        self.line = {side: bytearray() for side in Side}  # on the way *from* this side
        self.sent: dict[Side, list[Control | Frame]] = {side: [] for side in Side}
        self.heard: dict[Side, list[Control | Frame]] = {side: [] for side in Side}
        self.last_heard = dict.fromkeys(Side, 0.0)

    @rule(side=st.sampled_from(Side), name=st.sampled_from([*EXAMPLES, "packet"]), hops=st.integers(0, 3))
    def say(self, side: Side, name: str, hops: int) -> None:
        link = self.links[side]
        before = link.state
        legal = name in LEGAL_BY_HAND[side, before]
        if name == "packet":
            if legal:
                self.flush(side)  # control goes first
                self.line[side] += encode_frame(PACKET, b"sealed", hops)
                self.sent[side].append(Frame(PACKET, hops, b"sealed"))
                link.packet_sent(self.now)
            return
        try:
            link.send(EXAMPLES[name], self.now)
        except LocalMisuse:
            assert not legal
            assert link.state is before
            return
        assert legal
        if name not in ("ping", "pong"):
            self.sent[side].append(EXAMPLES[name])

    @rule(side=st.sampled_from(Side), reason=st.sampled_from(CloseReason))
    def refuse(self, side: Side, reason: CloseReason) -> None:
        if self.links[side].state is not LinkState.CLOSED:
            self.links[side].refuse(reason, "x" * 600)
            self.sent[side].append(Error(reason.value, "x" * 512))

    @rule(side=st.sampled_from(Side), size=st.integers(1, 200))
    def deliver(self, side: Side, size: int) -> None:
        self.flush(side)
        receiver = self.links[side].other
        link = self.links[receiver]
        piece = bytes(self.line[side][:size])
        del self.line[side][:size]
        if not piece or link.state is LinkState.CLOSED:
            return
        self.last_heard[receiver] = self.now
        self.heard[receiver] += hear(link, piece, self.now)  # a legal speaker is never unexpected

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0, 1.4, 3.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for side, link in self.links.items():
            if link.state is LinkState.CLOSED:
                continue
            silent = self.now >= self.last_heard[side] + SILENT_AFTER
            late = link.state is not LinkState.UP and self.now >= GREETING_WITHIN
            if silent or late:
                with pytest.raises(LinkClosed) as closed:
                    link.tick(self.now)
                assert closed.value.reason is (CloseReason.SILENT if silent else CloseReason.HELLO_TIMEOUT)
            else:
                link.tick(self.now)
                assert link.deadline() > self.now

    @precondition(lambda self: self.now > 0)
    @invariant()
    def a_live_link_is_never_ahead(self) -> None:
        caller, callee = self.links[Side.CALLER], self.links[Side.CALLEE]
        order = [LinkState.OPENING, LinkState.GREETING, LinkState.UP]
        if LinkState.CLOSED not in (caller.state, callee.state):
            assert order.index(callee.state) <= order.index(caller.state) + 1

    @invariant()
    def what_arrives_is_what_was_sent(self) -> None:
        for side, other in itertools.permutations(Side):
            assert self.heard[side] == self.sent[other][: len(self.heard[side])]

    def flush(self, side: Side) -> None:
        self.line[side] += self.links[side].data_to_send()
        assert self.links[side].owed == 0


TestTwoLinks = TwoLinks.TestCase
TestTwoLinks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
