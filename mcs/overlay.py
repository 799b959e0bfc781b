"""Which node is linked to which, and where a session's packets go. Sans-IO: facts in, links to use out.

Every node knows the same facts, because whatever is news to a node it passes on to all its links:

    NodeState      of each node, by itself: addresses, region, its links with the class of their round-trip time, load
    NodeReaders    which nodes have readers of which session

A link counts when both of its ends say that it is up, at the worse of the two classes. From these facts alone each node computes the tree
of a session, so nodes that know the same use the same tree; nothing is elected, and repairing is computing again.

    the tree of a session    over the reachable nodes that have readers of it (others only where a way leads through them), from a root that
                             rendezvous hashing chooses: the nearest node not yet in it is attached to the nearest one in it, until all are.
                             Nobody gets more than `DEGREE` links while there is another way, and nobody hangs on a draining node, nor on a
                             fresh one: what everybody waits for would wait there behind minutes of what only that node lacks.

Round-trip times are measured privately (`net.path`) and published in classes of doubling width, and only when another class has held for
a while: a busy moment moves no tree. Since a far link costs more than any near one, two regions are joined by one far link.

Versions: a node's own facts carry (boot, serial). A node that hears of itself from a former life, with a clock that was ahead, takes a
higher boot. Facts of a boot that is over do not count.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from heapq import heappop, heappush
from typing import Final, NamedTuple

from msgspec.structs import replace

from wire.control import MAX_ENTRIES, Control, Membership, NodeInfo, NodeReaders, NodeState
from wire.ids import SessionId

DEGREE: Final = 4
"""Links of one node in one tree."""
NEAR: Final = 0.008
"""Seconds of round-trip time up to which a link is of class 0; each further class is twice as wide."""
WORST: Final = 12
SAMPLES: Final = 4
"""Measurements of which the least counts; as many in a row must say another class before it is published."""
MAX_NODES: Final = MAX_ENTRIES
MAX_SAID: Final = 1 << 17
"""Words of nodes on sessions that are kept, one for each session of each node: what one node says costs every other one memory."""
FORGET_AFTER: Final = 600.0
"""Seconds after which a node that nobody has a link to, and no manager names, is called no more."""
_DETOUR: Final = 1 << 20  # more than any way costs: for what is done only where nothing else is left

Version = tuple[int, int]


def rtt_class(rtt: float) -> int:
    """0 up to 8 ms, 1 up to 16 ms, 2 up to 32 ms …

    >>> [rtt_class(ms / 1000) for ms in (0.1, 8, 9, 100)]
    [0, 0, 1, 4]
    """
    return min(WORST, max(0, math.ceil(math.log2(max(rtt, 1e-6) / NEAR))))


def weight(session: SessionId, node: str) -> bytes:
    """The rendezvous weight of a node for a session; the smallest comes first."""
    return sha256(b"parley place 1" + session.to_bytes(8, "big") + node.encode()).digest()


class Said(NamedTuple):
    """What a node last said of one session."""

    version: Version
    readers: bool
    fresh: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """Who is linked to whom for one session. `links` is symmetric."""

    root: str
    links: dict[str, frozenset[str]]

    def edges(self) -> set[tuple[str, str]]:
        return {(a, b) for a, others in self.links.items() for b in others if a < b}


_NOBODY: Final[frozenset[str]] = frozenset()


class Overlay:
    """What this node knows of all nodes. Owned by the relay; no call waits."""

    def __init__(self, info: NodeInfo | str, boot: int = 1) -> None:
        """`boot`: a number that rises with every start of this node, its clock say."""
        info = info if isinstance(info, NodeInfo) else NodeInfo(info, [("127.0.0.1", 1)])
        self.me = info.node
        self.epoch = -1
        self.members: dict[str, NodeInfo] = {}  # by the manager's word
        self.linked: set[str] = set()
        self.ours: set[SessionId] = set()  # sessions of which this node has readers
        self.states: dict[str, NodeState] = {self.me: NodeState(info, boot, 0)}
        self.moved: set[SessionId] = set()  # sessions whose tree may have changed; taken by the relay
        self.all_moved = False  # the same of all sessions
        self.new_ways = False  # the same of all sessions, and nothing was lost: it may wait for what else comes up in the same moment
        self._readers: dict[SessionId, dict[str, Said]] = {}
        self._said = 0  # how many words that are
        self.refused = 0  # for want of room; taken by the relay
        self._classes: dict[str, int] = {}  # as published
        self._measured: dict[str, deque[float]] = {}
        self._other_class: dict[str, tuple[int, int]] = {}  # a class that is not published yet, and how often it was measured in a row
        self._serial = 0
        self._graph: dict[str, dict[str, int]] | None = None
        self._trees: dict[tuple[str, frozenset[str], frozenset[str]], Tree] = {}
        self._unseen: dict[str, float] = {}  # since when nobody says that it has a link to this node

    # --- the manager's word ---

    def learn(self, membership: Membership) -> bool:
        """The live relays. False if it is older than what is known. A manager that was set up anew counts from the beginning: the first
        membership of each link to a manager is `force`d by forgetting the epoch (`forget_epoch`)."""
        if membership.epoch <= self.epoch:
            return False
        self.epoch = membership.epoch
        self.members = {info.node: info for info in membership.nodes if info.node != self.me}
        return True

    def forget_epoch(self) -> None:
        self.epoch = -1

    # --- whom to call ---

    def known(self) -> dict[str, NodeInfo]:
        """All other nodes that may be there: what the manager names, and what nodes say of themselves. Which is newer nobody knows, where one
        that started anew has another address: it is called at both, at the manager's first."""
        found = dict(self.members)
        for node, state in self.states.items():
            if not state.left:
                named = found.get(node)
                both = state.info.addresses if named is None else list(dict.fromkeys([*named.addresses, *state.info.addresses]))
                found[node] = replace(state.info, addresses=both)
        for node, state in self.states.items():
            if state.left:
                found.pop(node, None)
        found.pop(self.me, None)
        return found

    def to_dial(self) -> list[NodeInfo]:
        """Nodes that this one calls and has no link to."""
        return [info for node, info in self.known().items() if node > self.me and node not in self.linked]

    def calls_us(self, node: str) -> bool:
        """Whether it is the other one's part to call."""
        return node < self.me

    def forget(self, now: float) -> None:
        """Nodes that nobody has had a link to for long are forgotten. Once in a while."""
        seen = {peer for node, state in self.states.items() if node in self._reachable() for peer, _ in state.peers} | self.linked
        seen |= self.members.keys() | {self.me}
        for node in self.states.keys() - seen:
            if now - self._unseen.setdefault(node, now) >= FORGET_AFTER:
                self._drop(node)
        self._unseen = {node: since for node, since in self._unseen.items() if node in self.states and node not in seen}

    def _drop(self, node: str) -> None:
        if self.states.pop(node, None) is not None:
            self._changed()
        for session, nodes in list(self._readers.items()):
            self._said -= nodes.pop(node, None) is not None
            if not nodes:
                del self._readers[session]

    # --- this node's own facts: each returns what is to be told to all ---

    @property
    def state(self) -> NodeState:
        return self.states[self.me]

    def link_up(self, node: str) -> None:
        self.linked.add(node)
        self._classes.setdefault(node, 0)
        self._publish(lost=False)

    def link_down(self, node: str) -> None:
        self.linked.discard(node)
        for known in (self._classes, self._measured, self._other_class):
            known.pop(node, None)
        self._publish()

    def measured(self, node: str, rtt: float) -> bool:
        """A round-trip time of a link that is up, in seconds. True if there is something new to tell."""
        if node not in self.linked:
            return False
        first = node not in self._measured
        times = self._measured.setdefault(node, deque(maxlen=SAMPLES))
        times.append(rtt)
        found, said = rtt_class(min(times)), self._classes[node]
        if found == said or rtt_class(min(times) * 1.25) == said or rtt_class(min(times) / 1.25) == said:
            self._other_class.pop(node, None)
            if not first or found == said:
                return False
        other, times_in_a_row = self._other_class.get(node, (found, 0))
        times_in_a_row = times_in_a_row + 1 if other == found else 1
        if not first and times_in_a_row < SAMPLES:
            self._other_class[node] = (found, times_in_a_row)
            return False
        self._other_class.pop(node, None)
        self._classes[node] = found
        self._publish(lost=False)
        return True

    def rtt(self, node: str) -> float | None:
        """The least of the last measurements, in seconds."""
        times = self._measured.get(node)
        return min(times) if times else None

    def set_info(self, info: NodeInfo) -> None:
        self._publish(info=info)

    def set_load(self, links: int, sessions: int) -> bool:
        """How busy this node is. True if that is worth telling: others show it, no tree depends on it."""
        if (links, sessions) == (self.state.links, self.state.sessions):
            return False
        self._serial += 1
        self.states[self.me] = replace(self.state, links=links, sessions=sessions, serial=self._serial)
        return True

    def drain(self) -> None:
        """Others shall not hang on this node, nor endpoints come to it."""
        self._publish(draining=True)

    def leave(self) -> None:
        """It stops."""
        self._publish(left=True, peers=[])

    def set_readers(self, session: SessionId, readers: bool, *, fresh: bool = False) -> NodeReaders | None:
        """Whether this node has readers of a session, and still lacks what others have of it. What is to be told, if that is new."""
        if readers == (session in self.ours) and fresh == self.fresh(session):
            return None
        (self.ours.add if readers else self.ours.discard)(session)
        self._serial += 1
        fact = NodeReaders(self.me, self.state.boot, self._serial, [session], readers, fresh)
        self._note_readers(fact, session)
        return fact

    def fresh(self, session: SessionId) -> bool:
        """Whether this node has said that it still lacks what others have."""
        said = self._readers.get(session, {}).get(self.me)
        return said is not None and said.fresh

    def _publish(self, *, lost: bool = True, **fields: object) -> None:
        self._serial += 1
        peers = [] if self.state.left or fields.get("left") else sorted((node, self._classes[node]) for node in self.linked)[:MAX_ENTRIES]
        self.states[self.me] = replace(self.state, serial=self._serial, **({"peers": peers} | fields))
        self._changed(lost=lost)

    # --- facts of all nodes ---

    def facts(self) -> list[Control]:
        """All that is known, for a node that was linked just now."""
        told: list[Control] = list(self.states.values())
        by_version: dict[tuple[str, Said], list[int]] = {}
        for session, nodes in self._readers.items():
            for node, said in nodes.items():
                by_version.setdefault((node, said), []).append(session)
        told += [
            NodeReaders(node, *said.version, sessions[at : at + MAX_ENTRIES], said.readers, said.fresh)
            for (node, said), sessions in by_version.items()
            for at in range(0, len(sessions), MAX_ENTRIES)
        ]
        return told

    def hear(self, fact: NodeState | NodeReaders) -> list[Control]:
        """A fact from another node. What of it is news here, to be passed on; about this node itself: what corrects it."""
        if (fact.info.node if isinstance(fact, NodeState) else fact.node) == self.me:
            return self._hear_of_me(fact)
        if isinstance(fact, NodeState):
            return [fact] if self._hear_state(fact) else []
        news = [session for session in map(SessionId, fact.sessions) if self._note_readers(fact, session)]
        return [replace(fact, sessions=list(news))] if news else []

    def _hear_state(self, state: NodeState) -> bool:
        node = state.info.node
        known = self.states.get(node)
        if known is None and len(self.states) >= MAX_NODES:
            return False
        if known is not None and (state.boot, state.serial) <= (known.boot, known.serial):
            return False
        ways = self._reachable().get(node, {}).keys()  # that count so far
        self.states[node] = state
        if known is None or replace(known, serial=0, links=0, sessions=0) != replace(state, serial=0, links=0, sessions=0):
            self._changed(lost=bool(ways) and (state.left or state.draining or not ways <= {peer for peer, _ in state.peers}))
        return True

    def _hear_of_me(self, fact: NodeState | NodeReaders) -> list[Control]:
        """An echo, or a word of a former life of this node that would outlive what it says now."""
        mine = self.state
        if (fact.boot, fact.serial) <= (mine.boot, self._serial):
            return []
        self._serial += 1
        self.states[self.me] = replace(mine, boot=max(fact.boot, mine.boot) + 1, serial=self._serial)
        self._changed()
        told: list[Control] = [self.state]
        for nodes in self._readers.values():
            self._said -= nodes.pop(self.me, None) is not None
        ours = sorted(self.ours)
        for at in range(0, len(ours), MAX_ENTRIES):
            again = NodeReaders(self.me, self.state.boot, self._serial, list(ours[at : at + MAX_ENTRIES]))
            for session in ours[at : at + MAX_ENTRIES]:
                self._note_readers(again, session)
            told.append(again)
        return told

    def _note_readers(self, fact: NodeReaders, session: SessionId) -> bool:
        known = self._readers.get(session, {}).get(fact.node)
        version = (fact.boot, fact.serial)
        if known is not None and version <= known.version:
            return False
        if known is None and self._said >= MAX_SAID and fact.node != self.me:
            self.refused += 1
            return False
        self._said += known is None
        self._readers.setdefault(session, {})[fact.node] = Said(version, fact.readers, fact.fresh)
        self.moved.add(session)
        return True

    def forget_session(self, session: SessionId) -> None:
        """It is over for all."""
        self._said -= len(self._readers.pop(session, ()))

    def _changed(self, *, lost: bool = True) -> None:
        self._graph = None
        self._trees.clear()
        if lost:
            self.all_moved = True
        else:
            self.new_ways = True

    # --- trees ---

    def sessions(self) -> Iterable[SessionId]:
        """All sessions that any node has said something of."""
        return self._readers.keys()

    def readers(self, session: SessionId) -> frozenset[str]:
        """The reachable nodes that have readers of a session."""
        return self._readers_of(session)[0]

    def _readers_of(self, session: SessionId) -> tuple[frozenset[str], frozenset[str]]:
        """The reachable nodes that have readers of a session, and the fresh ones among them."""
        graph = self._reachable()
        found = {
            node: said.fresh
            for node, said in self._readers.get(session, {}).items()
            if said.readers and node in graph and said.version[0] == self.states[node].boot
        }
        return frozenset(found), frozenset(node for node, fresh in found.items() if fresh)

    def neighbours(self, session: SessionId) -> frozenset[str]:
        """The nodes with which this one exchanges a session's packets."""
        tree = self.tree(session)
        return tree.links.get(self.me, _NOBODY) if tree else _NOBODY

    def tree(self, session: SessionId) -> Tree | None:
        """None where no node that can be reached has readers of the session."""
        readers, fresh = self._readers_of(session)
        if not readers:
            return None
        root = min(readers, key=lambda node: (self.states[node].draining, node in fresh, weight(session, node)))
        if (found := self._trees.get((root, readers, fresh))) is None:
            found = self._trees[root, readers, fresh] = self._grow(root, readers, fresh)
        return found

    def reachable(self) -> frozenset[str]:
        """This node, and all others to which links lead. What others last said of themselves is no news of them."""
        return frozenset(self._reachable())

    def _reachable(self) -> dict[str, dict[str, int]]:
        """What can be reached from here: for each node its links and their classes."""
        if self._graph is None:
            said = {node: dict(state.peers) for node, state in self.states.items() if not state.left}
            graph: dict[str, dict[str, int]] = {}
            todo = [self.me] if self.me in said else []
            while todo:
                node = todo.pop()
                if node not in graph:
                    peers = said[node]
                    graph[node] = {peer: max(c, said[peer][node]) for peer, c in peers.items() if peer in said and node in said[peer]}
                    todo += graph[node]
            self._graph = graph
        return self._graph

    def _grow(self, root: str, readers: frozenset[str], fresh: frozenset[str]) -> Tree:
        """Attach the nearest reader that is not in the tree yet, by the shortest way, until all are (Takahashi and Matsuyama, 1980)."""
        graph = self._reachable()
        leaves = fresh | {node for node in graph if self.states[node].draining}
        rank = {node: sha256(f"{root}/{node}".encode()).digest() for node in graph}
        depth = {root: 0}
        links: dict[str, set[str]] = {root: set()}
        missing = set(readers) - {root}
        while missing:
            before: dict[str, str] = {}
            heap: list[tuple[int, int, bytes, str, str]] = []

            def reach(node: str, cost: int, deep: int, heap: list[tuple[int, int, bytes, str, str]] = heap) -> None:
                for peer, class_ in graph[node].items():
                    if peer not in depth:
                        heappush(heap, (cost + (1 << class_), deep + 1, rank[node] + rank[peer], peer, node))

            for node, deep in depth.items():
                reach(node, _DETOUR if len(links[node]) >= DEGREE or (node in leaves and len(depth) > 1) else 0, deep)
            while True:
                cost, deep, _, node, parent = heappop(heap)
                if node in before:
                    continue
                before[node] = parent
                if node in missing:
                    break
                reach(node, cost + (_DETOUR if node in leaves else 0), deep)
            way = [node]
            while way[-1] not in depth:
                way.append(before[way[-1]])
            for parent, child in zip(way[:0:-1], way[-2::-1], strict=True):
                depth[child] = depth[parent] + 1
                links.setdefault(child, set()).add(parent)
                links[parent].add(child)
                missing.discard(child)
        return Tree(root, {node: frozenset(others) for node, others in links.items()})
