"""The overlay and the sessions on it, without sockets: links break in the middle of things, and nothing is lost or doubled."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcs.limits import ECHO_FOR, IDLE_SESSION
from mcs.overlay import Overlay
from tests.mcs.raw import packet
from tests.mcs.simulation import Net
from wire.control import Admitted, Facts, Fetch, Lost, Membership, NodeHave, NodeInfo, NodeReaders, Office, Presence, Revoke, Taken, Want
from wire.errors import CloseReason, LinkClosed, UnexpectedMessage
from wire.frame import MAX_HOPS, PACKET, Frame
from wire.ids import ParticipantId, SessionId

NODES = ["a", "b", "c"]
PLACES = {1: "a", 2: "a", 3: "b", 4: "b", 5: "c"}
PAIR = st.sampled_from([("a", "b"), ("a", "c"), ("b", "c")])
STEP = st.one_of(
    st.tuples(st.just("chat"), st.integers(1, 5)),
    st.tuples(st.just("whisper"), st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.just("log"), st.just(1)),
    st.tuples(st.just("carry"), PAIR, st.booleans(), st.integers(0, 3)),
    st.tuples(st.just("carry"), PAIR, st.booleans(), st.integers(0, 3)),
    st.tuples(st.just("cut"), PAIR),
    st.tuples(st.just("connect"), PAIR),
    st.tuples(st.just("time"), st.just(1)),
)


def net(places: dict[int, str] | None = None) -> Net:
    found = Net(places or PLACES, sorted(set((places or PLACES).values())))
    found.settle()
    found.say(1, Admitted([p for p in found.places if p != 1]))
    found.settle()
    return found


@settings(max_examples=150)
@given(st.lists(STEP, max_size=60))
def test_nothing_is_lost_or_doubled_while_links_break_and_heal(steps: list[tuple[object, ...]]) -> None:
    world = net()
    sent: Counter[tuple[int, int, int]] = Counter()
    for step in steps:
        match step:
            case ("chat", int(sender)):
                world.send(sender, 2)
                sent[sender, 0, 2] += 1
            case ("whisper", int(sender), int(to)) if sender != to:
                world.send(sender, 3, to)
                sent[sender, to, 3] += 1
            case ("log", _):
                world.send(1, 1)
                sent[1, 0, 1] += 1
            case ("carry", (str(a), str(b)), bool(back), int(number)):
                world.carry(*((b, a) if back else (a, b)), number)
            case ("cut", (str(a), str(b))):
                world.cut(a, b)
            case ("connect", (str(a), str(b))):
                world.connect(a, b)
            case ("time", _):
                world.settle()
    for a, b in (("a", "b"), ("a", "c"), ("b", "c")):
        world.connect(a, b)
    world.settle(2)
    for me, port in world.ports.items():
        assert port.of(Lost) == []
        got = Counter[tuple[int, int, int]]()
        for header in port.packets:
            assert header.counter == got[header.stream]  # in order, each once
            got[header.stream] += 1
        assert got == Counter({s: n for s, n in sent.items() if s[0] != me and s[1] in (0, me)})


def test_G25_a_packet_crosses_each_tree_link_once_with_seven_nodes_and_sixty_endpoints() -> None:
    world = net({participant: f"n{participant % 7}" for participant in range(1, 61)})
    tree = world.relays["n0"].overlay.tree(SessionId(world.meeting.session))
    assert tree is not None
    assert {len(tree.links), len(tree.edges()) + 1} == {7}
    before = sum(half.packets.total() for half in world.links.values())
    for _ in range(10):
        for sender in (1, 2, 3):
            world.send(sender, 2)
            world.send(sender, 5)
    world.settle()
    for link, half in world.links.items():
        assert not half.packets or tuple(sorted(link)) in tree.edges()
    for a, b in tree.edges():  # in one direction or the other, whatever the number of readers behind it
        both = world.links[a, b].packets + world.links[b, a].packets
        assert set(both.values()) == {1}
        assert len(both) == 60
    assert sum(half.packets.total() for half in world.links.values()) - before == 60 * 6
    assert all(len(port.packets) == 20 * (2 if me in (1, 2, 3) else 3) for me, port in world.ports.items())
    assert not any(relay.dropped["repeated"] for relay in world.relays.values())


def test_a_snapshot_wanted_at_another_node_crosses_once_for_all_who_want_it() -> None:
    world = net()
    world.send(1, 5)
    world.settle()
    for me in (3, 4):
        world.say(me, Want(1))
    world.settle()
    assert world.ports[1].of(Want) == [Want(1)]
    world.send(1, 9, flags=0)
    world.send(1, 9)
    world.send(1, 5)
    world.settle()
    for me in (2, 3, 4, 5):
        assert [h.counter for h in world.ports[me].packets if h.channel == 9] == ([0, 1] if me in (3, 4) else [])
        assert [h.counter for h in world.ports[me].packets if h.channel == 5] == [0, 1]
    assert world.links["a", "b"].packets.total() == 4


def test_a_roster_is_brought_to_who_asks_at_any_node_and_to_nobody_else() -> None:
    world = net()
    for _ in range(3):
        world.send(1, 10)
        world.send(1, 2)
    world.settle()
    assert not any(h.channel == 10 for port in world.ports.values() for h in port.packets)
    world.say(2, Fetch(0))
    world.say(4, Fetch(1))
    world.say(5, Fetch(7))
    world.settle()
    got = {me: [h.counter for h in port.packets if h.channel == 10] for me, port in world.ports.items()}
    assert got == {1: [], 2: [0, 1, 2], 3: [], 4: [1, 2], 5: []}
    world.say(2, Fetch(2))
    world.send(1, 10)  # comes to nobody who has asked before
    world.settle()
    assert [h.counter for h in world.ports[2].packets if h.channel == 10] == [0, 1, 2, 2]
    assert all(len([h for h in world.ports[me].packets if h.channel == 2]) == 3 for me in (2, 3, 4, 5))
    assert all(not port.of(Lost) for port in world.ports.values())


def test_a_want_that_is_not_answered_is_said_again_to_all_who_may_present() -> None:
    world = net()
    world.send(1, 5)
    world.settle()
    world.say(4, Want(1))
    world.settle()
    assert [me for me, port in world.ports.items() if port.of(Want)] == [1]
    world.settle(6)
    assert len(world.ports[1].of(Want)) >= 2
    assert world.ports[5].of(Want)
    world.send(5, 9, flags=8)  # another one presents now
    world.settle()
    assert [h.counter for h in world.ports[4].packets if h.channel == 9] == [0]


def test_a_gap_that_no_node_fills_is_lost_after_a_while() -> None:
    world = net()
    world.send(1, 2)
    world.settle()
    world.counters[1, 0, 2] += 5
    relay, session = world.relays["b"], world.ports[3].session
    carrier = session.carriers["a"]
    for second in range(8):
        relay.node_packet(carrier.port, Frame(PACKET, 1, packet(world.meeting.session, 1, 2, 6)))
        world.settle()
        assert second >= 5 or not world.ports[3].of(Lost)
    assert world.ports[3].of(Lost) == [Lost([(1, 0, 2, 5)])]
    assert [h.counter for h in world.ports[3].packets] == [0, 6]
    assert relay.dropped["lost"] == 1


def test_B04_a_sender_that_comes_back_with_a_gap_is_heard_again() -> None:
    """It was elsewhere while the nodes were parted, and holds no longer what it said there."""
    world = net()
    world.send(1, 2)
    world.settle()
    for node in ("b", "c"):
        world.cut("a", node)
    world.counters[1, 0, 2] += 5
    closed = []
    for _ in range(8):
        try:
            world.send(1, 2)
        except LinkClosed as why:
            closed.append(why.reason)
            world.counters[1, 0, 2] -= 1  # it begins again
        world.settle()
    assert set(closed) == {CloseReason.LOST}
    assert [h.counter for h in world.ports[2].packets] == [0, *range(6, 14 - len(closed))]
    assert world.ports[2].of(Lost) == [Lost([(1, 0, 2, 5)])]


@pytest.mark.parametrize("silent", [True, False])
def test_B04_what_came_behind_a_gap_is_not_lost_with_it(silent: bool) -> None:
    """Its sender comes back by another relay, holds no longer what it said before, and has said more while the nodes were parted."""
    world = net()
    world.send(5, 2)
    world.settle()
    for node in "ab":
        world.cut(node, "c")
    world.counters[5, 0, 2] = 5
    world.kill("c")
    world.start("c")
    world.relays["c"].facts(Facts(0, world.meeting.session, admitted=[5]))
    world.ports[5] = world.attach(5, "c")
    for _ in range(3):
        world.send(5, 2)
    world.settle()
    for node in "ab":
        world.connect(node, "c")
    for _ in range(15):
        world.settle()
        if not silent:
            world.send(5, 2)
    world.settle()
    for participant in (1, 2, 3, 4):
        assert [h.counter for h in world.ports[participant].packets] == [0, *range(5, world.counters[5, 0, 2])]
        assert world.ports[participant].of(Lost) == [Lost([(5, 0, 2, 4)])]


def test_B04_a_gap_that_a_new_neighbour_may_fill_is_not_lost_yet() -> None:
    world = net()
    world.send(5, 2)
    world.settle()
    for node in "ab":
        world.cut(node, "c")
    world.send(5, 2)
    world.settle()
    relay, session = world.relays["b"], world.ports[3].session
    later = Frame(PACKET, 1, packet(world.meeting.session, 5, 2, 2))
    relay.node_packet(session.carriers["a"].port, later)
    world.settle(7)
    world.connect("b", "c")
    for _ in range(100):
        if "c" in session.sources:
            break
        for here, there in list(world.links):
            world.carry(here, there, 1 << 30)
        relay.flush()
        world.now += 0.01
    assert "c" in session.sources
    relay.node_packet(session.carriers["a"].port, later)  # the other one is still to bring what is missing
    world.settle()
    world.send(5, 2)
    world.settle()
    assert [h.counter for h in world.ports[3].packets] == [0, 1, 2]
    assert world.ports[3].of(Lost) == []


def test_B04_what_was_said_before_the_roll_was_known_comes_before_what_is_said_after_it() -> None:
    """A relay that was started anew drops it, and reads no more of its sender's link once the roll has come."""
    world = net({1: "a", 2: "b", 3: "b"})
    world.cut("a", "b")
    world.kill("b")
    world.start("b")
    world.ports[2] = world.attach(2, "b")
    world.send(2, 2)
    assert world.relays["b"].dropped["roll-unknown"] == 1
    world.connect("a", "b")
    world.settle()
    assert world.ports[2].closed is CloseReason.LOST
    world.send(2, 2)
    world.settle()
    assert world.ports[1].packets == []
    world.relays["b"].leave(world.ports[2].session, world.ports[2])
    world.ports[2] = world.attach(2, "b")
    world.counters.clear()
    for _ in range(2):
        world.send(2, 2)
    world.settle()
    assert [h.counter for h in world.ports[1].packets] == [0, 1]


def test_what_a_node_lacks_it_asks_for_again() -> None:
    world = net()
    world.send(1, 2)
    world.settle()
    world.send(1, 2)
    world.carry("a", "b", 0)
    world.links["a", "b"].on_the_way.clear()  # as if another node had brought it, and died
    world.send(1, 2)
    world.settle(2)
    assert [h.counter for h in world.ports[3].packets] == [0, 1, 2]
    assert world.relays["b"].dropped["gap"] == 1
    assert world.ports[3].of(Lost) == []


def test_what_a_dead_node_had_passed_to_one_comes_from_there() -> None:
    world = net()
    world.send(1, 2)
    world.settle()
    world.send(1, 2)
    world.carry("a", "c", 1)
    for node in ("b", "c"):
        world.cut("a", node)
    world.settle()
    assert [h.counter for h in world.ports[3].packets] == [0, 1]


def test_a_handshake_that_runs_in_a_circle_is_dropped() -> None:
    world = net()
    session = world.ports[3].session
    world.relays["b"].node_packet(session.carriers["a"].port, Frame(PACKET, MAX_HOPS, packet(world.meeting.session, 1, 0, 0, to=3, flags=24)))
    world.settle()
    assert world.ports[3].packets == []
    assert world.relays["b"].dropped["too-many-hops"] == 1


def test_hops_that_an_endpoint_makes_up_mean_nothing() -> None:
    world = net()
    body = packet(world.meeting.session, 1, 0, 0, to=3, flags=24)
    world.relays["a"].packets(world.ports[1].session, world.ports[1], [Frame(PACKET, 255, body)], lambda size: True)
    world.settle()
    assert [(h.sender, h.recipient) for h in world.ports[3].packets] == [(1, 3)]


def test_a_handshake_that_comes_again_is_known_for_a_while_and_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that says handshakes without end costs neither memory nor time that grows."""
    monkeypatch.setattr("mcs.relay.MAX_ECHOES", 100)
    world = net()
    relay, port = world.relays["b"], world.ports[3].session.carriers["a"].port
    say = [Frame(PACKET, 1, packet(world.meeting.session, 1, 0, 0, to=3, flags=24, body=b"%d" % number)) for number in range(1000)]
    for frame in (*say, say[-1], say[-100]):
        relay.node_packet(port, frame)
    assert relay.dropped["echo"] == 2
    relay.node_packet(port, say[0])  # one of the old ones passes once more
    assert relay.dropped["echo"] == 2
    assert len(relay._echoes) == 100
    world.now += ECHO_FOR
    relay.node_packet(port, say[-1])
    assert relay.dropped["echo"] == 2
    assert len(relay._echoes) == 1


def test_B04_what_was_handed_on_from_dying_relay_to_dying_relay_is_whole() -> None:
    """One after the other is started anew, filled by a neighbour, and fills the next."""
    world = net()
    deaths = 2 * MAX_HOPS
    for death in range(deaths):
        world.send(1, 2)
        world.settle()
        node = NODES[death % 3]
        world.kill(node)
        world.start(node)
        for other in set(NODES) - {node}:
            world.connect(*sorted((node, other)))
        for participant in [p for p, place in world.places.items() if place == node]:
            world.ports[participant] = world.attach(participant, node)
        world.settle()
    for participant in (2, 3, 4, 5):
        assert [h.counter for h in world.ports[participant].packets] == list(range(deaths))
        assert world.ports[participant].of(Lost) == []
    assert not any(relay.dropped["gap"] for relay in world.relays.values())


def test_a_handshake_reaches_its_recipient_wherever_it_is_and_no_other_node() -> None:
    world = net()
    world.send(3, 0, to=1, flags=24)
    world.send(1, 0, to=5, flags=24)
    world.settle()
    assert [(h.sender, h.recipient) for h in world.ports[1].packets] == [(3, 1)]
    assert [(h.sender, h.recipient) for h in world.ports[5].packets] == [(1, 5)]
    assert (world.links["b", "a"].packets.total(), world.links["a", "c"].packets.total()) == (1, 1)
    assert sum(half.packets.total() for half in world.links.values()) == 2
    assert [p.packets for p in (world.ports[2], world.ports[3], world.ports[4])] == [[], [], []]


def test_facts_spread_without_a_manager_and_to_a_node_that_was_away() -> None:
    world = net()
    world.cut("a", "b")
    world.cut("b", "c")
    world.say(1, Revoke(4))
    world.say(1, Office(5, [2]))
    world.settle()
    assert world.ports[4].closed is None
    assert world.ports[5].of(Office) == [Office(5, [2])]
    world.connect("b", "c")
    world.settle()
    assert world.ports[4].closed is CloseReason.REVOKED
    assert world.ports[3].of(Office) == [Office(5, [2])]
    states = [relay.sessions[SessionId(world.meeting.session)].admission for relay in world.relays.values()]
    assert {(s.office, s.term, frozenset(s.revoked)) for s in states} == {(5, 2, frozenset({4}))}


def test_the_manager_learns_outcomes_and_never_grants() -> None:
    world, heard = net(), list[Facts]()

    class Manager:
        def send(self, message: Facts) -> None:
            heard.append(message)

    world.relays["a"].manager_up(Manager())  # type: ignore[arg-type]  # it takes facts alone
    world.say(1, Revoke(4))
    world.say(1, Admitted([9]))
    assert [(f.office, f.revoked, f.grants) for f in heard] == [(1, [], []), (0, [4], []), (0, [], [])]
    assert heard[-1].admitted == [9]
    world.relays["b"].manager_up(Manager())  # type: ignore[arg-type]  # as above
    told = len(heard)
    world.say(1, Admitted([10]))
    assert [f.admitted for f in heard[told:]] == [[10]]  # by the node that heard it, once


def test_presence_is_the_union_over_nodes() -> None:
    world = net()

    def away(participant: int) -> bool:
        said = [m for m in world.ports[1].said if isinstance(m, Presence)]
        return any(participant in m.away for m in said)

    port = world.ports[3]
    world.relays["b"].leave(port.session, port)
    world.settle()
    assert away(3)
    assert not away(4)
    world.cut("a", "c")
    world.settle()
    assert not away(5)  # there is a way over the other node
    world.cut("b", "c")
    world.settle()
    assert away(5)


def test_a_node_without_readers_gets_nothing() -> None:
    world = net({1: "a", 2: "b"})
    port = world.ports.pop(2)
    world.relays["b"].leave(port.session, port)
    world.settle(2)
    world.send(1, 2)
    world.send(1, 5)
    world.settle()
    assert world.links["a", "b"].packets.total() == 0
    world.ports[2] = world.attach(2, "b")
    world.settle()
    assert [h.channel for h in world.ports[2].packets] == [2]
    assert world.links["a", "b"].packets.total() == 1


def test_taken_names_what_the_node_has() -> None:
    world = net()
    for _ in range(3):
        world.send(3, 2)
    world.settle()
    assert world.ports[3].of(Taken) == [Taken([(3, 0, 2, 2)])]


def test_sessions_are_forgotten_in_time() -> None:
    world = net({1: "a", 2: "b"})
    world.relays["a"].facts(Facts(serial=0, session=world.meeting.session, ended=True))
    world.settle(4)
    assert {p.closed for p in world.ports.values()} == {CloseReason.ENDED}
    for participant, port in world.ports.items():
        world.relays[world.places[participant]].leave(port.session, port)
    world.ports.clear()
    world.settle()
    assert all(relay.sessions for relay in world.relays.values())
    world.now += 600
    world.settle()
    assert not any(relay.sessions for relay in world.relays.values())


def test_a_session_is_not_forgotten_while_it_goes_on_elsewhere() -> None:
    """Somebody may come from there, days later."""
    world = net({1: "a", 2: "a", 3: "b"})
    port = world.ports.pop(3)
    world.relays["b"].leave(port.session, port)
    world.settle()
    world.now += IDLE_SESSION
    world.settle()
    assert world.relays["b"].sessions
    world.ports[3] = world.attach(3, "b")
    world.send(1, 2)
    world.settle()
    assert [h.counter for h in world.ports[3].packets] == [0]


def test_what_one_node_says_of_sessions_costs_every_other_one_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.overlay.MAX_SAID", 50)
    world = net()
    relay, link = world.relays["b"], world.links["b", "a"].link
    for ghost in range(10):
        link.received(NodeReaders(f"ghost-{ghost}", 1, 1, list(range(10, 20))))
    assert sum(len(nodes) for nodes in relay.overlay._readers.values()) == 50
    assert relay.dropped["too-many-sessions"] == 100 - (50 - len(NODES))
    world.send(1, 2)
    world.settle()
    assert [h.counter for h in world.ports[3].packets] == [0]


def test_a_have_vector_of_a_node_that_does_not_end_ends_its_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.links.MAX_STREAMS", 10)
    link = net().links["b", "a"].link
    part = NodeHave(1, [(1, 0, 2, 0)] * 5, more=True)
    link.received(part)
    link.received(part)
    with pytest.raises(UnexpectedMessage, match="do not end"):
        link.received(part)


@pytest.mark.parametrize(("me", "called"), [("a", ["b", "c"]), ("b", ["c"]), ("c", [])])
def test_of_two_nodes_the_smaller_name_calls(me: str, called: list[str]) -> None:
    overlay = Overlay(me)
    infos = [NodeInfo(node, [("127.0.0.1", 1)]) for node in NODES]
    assert overlay.learn(Membership(3, infos))
    assert [info.node for info in overlay.to_dial()] == called
    for node in called:
        overlay.link_up(node)
    assert overlay.to_dial() == []
    assert not overlay.learn(Membership(3, []))
    overlay.forget_epoch()
    assert overlay.learn(Membership(1, []))


def test_G25_two_regions_are_joined_by_one_long_link() -> None:
    nodes = [f"{region}{number}" for region in ("east", "west") for number in (1, 2, 3)]
    overlays = {node: Overlay(node) for node in nodes}
    for here, overlay in overlays.items():
        for there in nodes:
            if there != here:
                overlay.link_up(there)
                overlay.measured(there, 0.0002 if here[:4] == there[:4] else 0.09)
    facts = [overlay.set_readers(SessionId(9), True) for overlay in overlays.values()]
    for overlay in overlays.values():
        for other in overlays.values():
            overlay.hear(other.state)
        for fact in facts:
            assert fact is not None
            overlay.hear(fact)
    trees = [overlay.tree(SessionId(9)) for overlay in overlays.values()]
    assert all(tree == trees[0] for tree in trees)
    assert trees[0] is not None
    assert sum(a[:4] != b[:4] for a, b in trees[0].edges()) == 1


def test_a_busy_moment_moves_no_tree_and_a_new_way_does() -> None:
    overlay = Overlay("a")
    overlay.link_up("b")
    assert not overlay.measured("b", 0.001)
    assert not any(overlay.measured("b", rtt) for rtt in (0.05, 0.05, 0.001, 0.05))
    assert [overlay.measured("b", 0.05) for _ in range(8)].count(True) == 1
    assert overlay.state.peers == [("b", 3)]
    assert not overlay.measured("nobody", 0.001)


def parted(root: str) -> Net:
    """Five nodes; a and b are cut off from the others, each says something, and all lines are back."""
    world = Net(dict(enumerate("abcde", 1)), [root, *(node for node in "abcde" if node != root)])
    world.say(1, Admitted([2, 3, 4, 5]))
    world.settle()
    lines = [(a, b) for a in "ab" for b in "cde"]
    for line in lines:
        world.cut(*line)
    world.settle()
    for participant in world.places:
        for _ in range(20):
            world.send(participant, 2)
    world.settle()
    for line in lines:
        world.connect(*line)
        for here, there in list(world.links):
            world.carry(here, there, 1 << 30)
        for relay in world.relays.values():
            relay.flush()
        world.now += 0.01
    return world


@pytest.mark.parametrize("root", ["a", "c"])
def test_B04_what_is_owed_after_a_partition_comes_once_though_several_could_bring_it(root: str) -> None:
    world = parted(root)
    world.settle()
    assert [len(port.packets) for port in world.ports.values()] == [80] * 5
    assert [relay.dropped["repeated"] for relay in world.relays.values()] == [0] * 5


def test_B04_a_neighbour_that_brings_nothing_keeps_the_next_ones_waiting_for_a_moment_only() -> None:
    world = parted("a")
    (frozen, *_) = sorted(node for node in "cde" if (node, "a") in world.links)
    world.links[frozen, "a"].frozen = True
    world.settle()
    assert {header.sender for header in world.ports[1].packets} == {2, 3, 4, 5}


def test_B04_nothing_hangs_on_a_relay_that_was_started_anew_until_it_has_everything() -> None:
    world = Net(dict(enumerate("aabc", 1)), list("abc"))  # a is the root
    world.say(1, Admitted([2, 3, 4]))
    world.settle()
    for participant in (3, 4):
        for _ in range(50):
            world.send(participant, 2)
    world.settle()
    session = SessionId(world.meeting.session)

    def roots() -> set[str]:
        return {tree.root for relay in world.relays.values() if (tree := relay.overlay.tree(session)) is not None}

    assert roots() == {"a"}
    world.kill("a")
    world.settle()
    heir = roots()
    assert heir in ({"b"}, {"c"})
    world.start("a")
    for other in "bc":
        world.connect("a", other)
    world.settle()
    assert roots() == heir  # it has no readers
    world.links["b", "a"].frozen = world.links["c", "a"].frozen = True  # what it lacks is long on its way
    world.ports[1] = world.attach(1, "a")
    world.settle()
    assert roots() == heir
    world.send(3, 2)
    world.settle()
    assert world.ports[4].packets[-1].counter == 50, "the others do not wait for it"
    world.links["b", "a"].frozen = world.links["c", "a"].frozen = False
    world.settle()
    assert roots() == {"a"}
    assert [header.sender for header in world.ports[1].packets].count(ParticipantId(3)) == 51
