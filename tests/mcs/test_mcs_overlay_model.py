"""The overlay against a naive oracle: many nodes, links that break and heal, nodes that come, die and come back, facts in any order.

`Facts` looks at knowledge alone: what connected nodes compute, and how soon they agree. `Packets` runs whole relays with members that
move, as our endpoints do, and counts what arrives.
"""

from collections import Counter
from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from mcs.overlay import DEGREE, Overlay, Tree, rtt_class
from tests.mcs.raw import packet
from tests.mcs.simulation import Net, Port
from wire.control import Admitted, Control, NodeInfo, NodeReaders, NodeState, Position, Welcome
from wire.errors import CloseReason, LinkClosed
from wire.ids import SessionId

NODES = tuple("abcdefg")
SESSIONS = tuple(map(SessionId, (1, 2, 3)))
NODE = st.sampled_from(NODES)
SESSION = st.sampled_from(SESSIONS)


def is_tree(tree: Tree) -> bool:
    """Connected and without a circle."""
    seen, todo = set[str](), [tree.root]
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += tree.links[node]
    return seen == set(tree.links) and len(tree.edges()) == len(seen) - 1


class Facts(RuleBasedStateMachine):
    """Nodes that only tell each other facts. What is on its way over a link arrives in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.boots = count(1)
        self.nodes: dict[str, Overlay] = {}
        self.up: set[frozenset[str]] = set()
        self.parted: set[str] = set()  # the nodes on one side of a partition
        self.on_the_way: list[tuple[str, str, Control]] = []
        self.readers: dict[str, set[SessionId]] = {}
        self.rtt: dict[frozenset[str], float] = {}

    @initialize()
    def begin(self) -> None:
        for node in NODES[:4]:
            self.start(node)
        self.settle()

    # --- what happens ---

    def start(self, node: str) -> None:
        self.nodes[node] = Overlay(NodeInfo(node, [("127.0.0.1", 1)], "north" if node < "d" else "south"), next(self.boots))
        self.readers[node] = set()
        for other in list(self.nodes):
            if other != node:
                self.link(node, other)

    def link(self, a: str, b: str) -> None:
        if (a in self.parted) != (b in self.parted) or frozenset((a, b)) in self.up:
            return
        self.up.add(frozenset((a, b)))
        for here, there in ((a, b), (b, a)):
            self.nodes[here].link_up(there)
            self.tell(here, self.nodes[here].facts(), only=there)
        for node in (a, b):
            self.tell(node, [self.nodes[node].state])

    def unlink(self, a: str, b: str) -> None:
        if frozenset((a, b)) not in self.up:
            return
        self.up.discard(frozenset((a, b)))
        self.on_the_way = [(x, y, fact) for x, y, fact in self.on_the_way if {x, y} != {a, b}]
        for here, there in ((a, b), (b, a)):
            if here in self.nodes:
                self.nodes[here].link_down(there)
                self.tell(here, [self.nodes[here].state])

    def tell(self, node: str, facts: list[Control], only: str = "", but: str = "") -> None:
        to = [only] if only else [n for link in self.up if node in link for n in link if n not in (node, but)]
        self.on_the_way += [(node, other, fact) for fact in facts for other in to]

    def deliver(self, a: str, b: str, fact: Control) -> None:
        assert isinstance(fact, NodeState | NodeReaders)
        about = fact.info.node if isinstance(fact, NodeState) else fact.node
        self.tell(b, self.nodes[b].hear(fact), but="" if about == b else a)

    def round(self) -> None:
        """Everything that is on its way arrives; what is told meanwhile is the next round's."""
        arriving, self.on_the_way = self.on_the_way, []
        for a, b, fact in arriving:
            self.deliver(a, b, fact)

    def settle(self) -> int:
        rounds = 0
        while self.on_the_way:
            self.round()
            rounds += 1
        return rounds

    @rule(node=NODE)
    def joins(self, node: str) -> None:
        if node not in self.nodes:
            self.start(node)

    @rule(node=NODE)
    def dies(self, node: str) -> None:
        if node in self.nodes and len(self.nodes) > 1:
            del self.nodes[node]
            self.parted.discard(node)
            for other in list(self.nodes):
                self.unlink(node, other)

    @rule(node=NODE)
    def leaves(self, node: str) -> None:
        if node in self.nodes and len(self.nodes) > 1:
            self.nodes[node].leave()
            self.tell(node, [self.nodes[node].state])
            self.dies(node)

    @rule(node=NODE, clock=st.integers(1, 3))
    def comes_back_with_its_clock_behind(self, node: str, clock: int) -> None:
        if node in self.nodes and len(self.nodes) > 1:
            self.dies(node)
            self.boots = count(clock)
            self.start(node)

    @rule(a=NODE, b=NODE)
    def breaks(self, a: str, b: str) -> None:
        self.unlink(a, b)

    @rule(side=st.sets(NODE, min_size=1, max_size=4))
    def parts(self, side: set[str]) -> None:
        self.parted = side & self.nodes.keys()
        for link in list(self.up):
            if len(link & self.parted) == 1:
                self.unlink(*sorted(link))

    @rule()
    def heals(self) -> None:
        self.parted = set()
        for a in sorted(self.nodes):
            for b in sorted(self.nodes):
                if a < b:
                    self.link(a, b)

    @rule(node=NODE, session=SESSION, readers=st.booleans())
    def has_readers(self, node: str, session: SessionId, readers: bool) -> None:
        if node in self.nodes:
            (self.readers[node].add if readers else self.readers[node].discard)(session)
            fact = self.nodes[node].set_readers(session, readers)
            self.tell(node, [fact] if fact else [])

    @rule(a=NODE, b=NODE, rtt=st.sampled_from((0.001, 0.02, 0.1)))
    def measures(self, a: str, b: str, rtt: float) -> None:
        if frozenset((a, b)) in self.up and a != b:
            self.rtt[frozenset((a, b))] = rtt
            for here, there in ((a, b), (b, a)):
                for _ in range(12):
                    if self.nodes[here].measured(there, rtt):
                        self.tell(here, [self.nodes[here].state])

    @rule(node=NODE)
    def drains(self, node: str) -> None:
        if node in self.nodes:
            self.nodes[node].drain()
            self.tell(node, [self.nodes[node].state])

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def some_facts_arrive(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.on_the_way) - 1))
        self.deliver(*self.on_the_way.pop(at))

    @rule(data=st.data())
    def all_arrive_in_some_order(self, data: st.DataObject) -> None:
        while self.on_the_way:
            self.on_the_way = list(data.draw(st.permutations(self.on_the_way))) if len(self.on_the_way) < 8 else self.on_the_way[::-1]
            self.round()
        self.judge()

    # --- what must hold ---

    def components(self) -> list[set[str]]:
        left, found = set(self.nodes), []
        while left:
            seen, todo = set[str](), [min(left)]
            while todo:
                node = todo.pop()
                if node not in seen:
                    seen.add(node)
                    todo += [n for link in self.up if node in link for n in link - {node}]
            found.append(seen)
            left -= seen
        return found

    def judge(self) -> None:
        """When everything has arrived, connected nodes agree, and on what the oracle allows."""
        for component in self.components():
            for session in SESSIONS:
                readers = {node for node in component if session in self.readers[node]}
                trees = [self.nodes[node].tree(session) for node in sorted(component)]
                assert all(tree == trees[0] for tree in trees)
                tree = trees[0]
                if tree is None:
                    assert not readers
                    continue
                assert is_tree(tree)
                assert readers <= set(tree.links) <= component
                assert all(frozenset(edge) in self.up for edge in tree.edges())
                whole = all(frozenset((a, b)) in self.up for a in component for b in component if a < b)
                assert self.nodes[min(component)].readers(session) == readers
                assert set(tree.links) == readers or not whole or self.rtt
                sound = not any(self.nodes[node].state.draining for node in component)
                if whole and sound and set(tree.links) == readers:
                    assert max(map(len, tree.links.values())) <= DEGREE
                if whole and sound and all(frozenset((a, b)) in self.rtt for a in component for b in component if a < b):
                    self.judge_length(component, tree)
                for node in tree.links.keys() if whole and len(readers) > 1 else ():
                    assert not self.nodes[node].state.draining or len(tree.links[node]) == 1 or tree.root == node

    def judge_length(self, component: set[str], tree: Tree) -> None:
        """Where distances make regions, as many far links as it takes to join them."""
        cost = {link: rtt_class(rtt) for link, rtt in self.rtt.items()}
        if any(link not in self.up for link in cost) or len(tree.links) != len(component) or len(component) > DEGREE:
            return
        shortest = sum(sorted(1 << cost[frozenset(edge)] for edge in tree.edges()))
        assert shortest <= sum(1 << cost[frozenset(edge)] for edge in naive_tree(sorted(component), cost))

    @invariant()
    def no_node_thinks_in_circles(self) -> None:
        for overlay in self.nodes.values():
            for session in SESSIONS:
                tree = overlay.tree(session)
                assert tree is None or is_tree(tree)

    def teardown(self) -> None:
        """Two rounds after a change of a quiet, whole overlay, all agree. (A node whose clock is behind needs one more, to hear of itself.)"""
        self.boots = count(1000)
        self.heals()
        self.settle()
        self.judge()
        if len(self.nodes) > 1:
            self.dies(max(self.nodes))
            self.rounds_then_judge(2)
        side = set(sorted(self.nodes)[: len(self.nodes) // 2])
        self.parts(side)
        self.rounds_then_judge(2)
        self.heals()
        self.rounds_then_judge(2)
        for node in NODES:
            self.joins(node)
            self.has_readers(node, SESSIONS[0], True)
        self.rounds_then_judge(2)
        self.comes_back_with_its_clock_behind("a", 0)
        self.has_readers("a", SESSIONS[1], True)
        self.settle()
        self.judge()

    def rounds_then_judge(self, rounds: int) -> None:
        for _ in range(rounds):
            self.round()
        self.judge()
        self.settle()


def naive_tree(nodes: list[str], cost: dict[frozenset[str], int]) -> list[tuple[str, str]]:
    """Kruskal: the least tree over all nodes, whatever its degree."""
    group = {node: {node} for node in nodes}
    edges = []
    for a, b in sorted(((a, b) for a in nodes for b in nodes if a < b), key=lambda edge: cost[frozenset(edge)]):
        if group[a] is not group[b]:
            edges.append((a, b))
            joined = group[a] | group[b]
            for node in joined:
                group[node] = joined
    return edges


class Member:
    """Keeps what it said, and knows what it has: what our endpoints do."""

    def __init__(self, node: str) -> None:
        self.node: str | None = node
        self.port: Port | None = None
        self.sent: dict[tuple[int, int], list[bytes]] = {}  # (recipient, channel) → packets by counter
        self.forgot: Counter[tuple[int, int]] = Counter()  # (recipient, channel) → how many of them, from the first on, it holds no more
        self.got: Counter[tuple[int, int, int]] = Counter()


PLACES = {1: "a", 2: "a", 3: "b", 4: "c", 5: "d"}


class Packets(RuleBasedStateMachine):
    """Whole relays. Nodes die, links break, members come again elsewhere and bring what their new node lacks."""

    endpoints = Bundle("endpoints")

    def __init__(self) -> None:
        super().__init__()
        self.net = Net(PLACES, list("abcd"))
        self.net.settle()
        self.net.say(1, Admitted([2, 3, 4, 5]))
        self.net.settle()
        self.members = {p: Member(node) for p, node in PLACES.items()}
        for p, member in self.members.items():
            member.port = self.net.ports[p]
        self.read()

    @initialize(target=endpoints)
    def everybody(self) -> object:
        return multiple(*PLACES)

    @rule(sender=endpoints, channel=st.sampled_from((2, 3)), to=st.sampled_from(tuple(PLACES)))
    def says(self, sender: int, channel: int, to: int) -> None:
        member = self.members[sender]
        recipient = to if channel == 3 else 0
        if recipient != sender:
            kept = member.sent.setdefault((recipient, channel), [])
            kept.append(packet(self.net.meeting.session, sender, channel, len(kept), to=recipient))
            self.push(sender, kept[-1])

    def push(self, sender: int, body: bytes) -> None:
        port = self.members[sender].port
        if port is not None:
            try:
                self.net.bring(sender, body)
            except LinkClosed as closed:
                if closed.reason is not CloseReason.LOST or not any(self.members[sender].forgot.values()):
                    raise
                port.close(closed.reason)

    @rule(sender=endpoints)
    def forgets(self, sender: int) -> None:
        """What a relay has taken leaves a sender's reserve: it is too old, or too much."""
        member = self.members[sender]
        if member.port is not None and not member.port.closing:
            for _, recipient, channel, counter in member.port.session.log.taken_of(member.port.participant):
                if channel in (2, 3):
                    member.forgot[recipient, channel] = counter + 1

    @rule(pair=st.sampled_from([(a, b) for a in "abcd" for b in "abcd" if a != b]), number=st.integers(0, 3))
    def moves_on(self, pair: tuple[str, str], number: int) -> None:
        self.net.carry(*pair, number)

    @rule(seconds=st.integers(1, 2))
    def time_passes(self, seconds: int) -> None:
        self.net.settle(seconds)

    @rule(a=st.sampled_from("abcd"), b=st.sampled_from("abcd"))
    def breaks(self, a: str, b: str) -> None:
        if a != b:
            self.net.cut(a, b)

    @rule(side=st.sets(st.sampled_from("abcd"), min_size=1, max_size=2))
    def parts(self, side: set[str]) -> None:
        for a in side:
            for b in set("abcd") - side:
                self.net.cut(a, b)

    @rule()
    def heals(self) -> None:
        alive = sorted(self.net.relays)
        for a in alive:
            for b in alive:
                if a < b:
                    self.net.connect(a, b)

    @rule(node=st.sampled_from("abcd"))
    def dies(self, node: str) -> None:
        if len(self.net.relays) < 2 or node not in self.net.relays:
            return
        self.read()
        self.net.kill(node)
        for participant, member in self.members.items():
            if self.net.places[participant] == node:
                member.port = None
                self.net.ports.pop(participant, None)

    @rule(node=st.sampled_from("abcd"))
    def comes_back_empty(self, node: str) -> None:
        if node not in self.net.relays:
            self.net.start(node)
            self.heals()

    @rule(participant=endpoints, node=st.sampled_from("abcd"))
    def dials(self, participant: int, node: str) -> None:
        """A member without a link, or that changes its node, calls one that lives."""
        if node not in self.net.relays:
            return
        member = self.members[participant]
        self.read()
        if member.port is not None:
            self.net.relays[self.net.places[participant]].leave(member.port.session, member.port)
        have: list[Position] = [(*stream, number - 1) for stream, number in member.got.items()]
        port = self.net.attach(participant, node, have)
        self.net.ports[participant] = member.port = port
        (welcome,) = port.of(Welcome)
        assert isinstance(welcome, Welcome)
        if participant == 1:  # as our organizer does after each welcome
            self.net.say(1, Admitted([2, 3, 4, 5]))
        taken = {(r, c): counter for _, r, c, counter in welcome.taken}
        for stream, kept in member.sent.items():
            for body in kept[max(taken.get(stream, -1) + 1, member.forgot[stream]) :]:
                self.push(participant, body)

    def read(self) -> None:
        """Members take what their links bring: each packet once, in order; what is left out, its sender holds no more."""
        for participant, port in self.net.ports.items():
            port.pull()
            member = self.members[participant]
            for header in port.packets:
                if header.channel in (2, 3):
                    stream = (header.sender, header.recipient, header.channel)
                    got, forgot = member.got[stream], self.members[header.sender].forgot[header.recipient, header.channel]
                    assert got <= header.counter <= max(got, forgot), (participant, stream, got, header.counter)
                    member.got[stream] = header.counter + 1
            port.packets.clear()

    @invariant()
    def nothing_comes_twice(self) -> None:
        self.read()

    def teardown(self) -> None:
        """All is healed, everybody has a link: everything that was ever said is everywhere it belongs."""
        for node in "abcd":
            self.comes_back_empty(node)
        self.heals()
        self.net.settle(2)
        for participant, member in self.members.items():
            if member.port is None or member.port.closing:
                self.dials(participant, "abcd"[participant % 4])
        self.net.settle(8)
        for _ in range(12):
            for participant in [p for p, port in self.net.ports.items() if port.closing]:  # cut by name: they come again
                self.dials(participant, "abcd"[participant % 4])
            self.net.settle()
        self.net.settle(8)
        self.read()
        trees = [relay.overlay.tree(SessionId(self.net.meeting.session)) for relay in self.net.relays.values()]
        assert trees[0] is not None
        assert set(trees[0].links) == {self.net.places[p] for p in self.members}
        assert all(tree == trees[0] for tree in trees)
        for node, relay in self.net.relays.items():
            session = relay.sessions[SessionId(self.net.meeting.session)]
            assert set(session.carriers) == set(session.sources) == trees[0].links.get(node, frozenset())
        for me, member in self.members.items():
            for sender, other in self.members.items():
                for (to, channel), kept in other.sent.items():
                    if sender != me and to in (0, me) and other.forgot[to, channel] < len(kept):
                        assert member.got[sender, to, channel] == len(kept), (me, sender, channel)


TestFacts = Facts.TestCase
TestFacts.settings = settings(max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestPackets = Packets.TestCase
TestPackets.settings = settings(max_examples=120, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
