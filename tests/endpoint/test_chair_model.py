"""Whole meetings against a naive oracle: whatever is delayed, said twice, lost with a link, or dies, there is one history.

The oracle keeps the hash of every entry that any member ever applied, by place. Two hashes at one place are a fork, and may be only where
somebody took over: whoever stood on the branch that lost is out (`superseded`), and at the end all who are in agree on everything.
"""

from collections import defaultdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto.errors import CryptoError
from endpoint import events
from endpoint.errors import EndpointError
from endpoint.member import Member
from tests.endpoint.room import Room
from wire.ids import ParticipantId

NAMES = ("Ana", "Ben", "Cleo", "Dora")
MOVES = st.one_of(
    st.tuples(st.just("link"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("unlink"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("unlink"), st.just(0), st.just(0)),
    st.tuples(st.just("offer"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("accept"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("name"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("take over"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("hand over"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("coup"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("chat"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("mute"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("appoint"), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(st.just("dismiss"), st.just(4), st.just(4)),
    st.tuples(st.just("leave"), st.just(4), st.just(4)),
    st.tuples(st.just("kill"), st.integers(3, 4), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([1, 6, 30, 65]), st.just(0)),
)


class Story:
    def __init__(self, twice: bool, late: bool) -> None:
        self.room = room = Room()
        room.organizer.wall_ms = lambda: int(1000 * room.now)
        self.people: list[Member] = [room.organizer, *(room.admitted(at, name) for at, name in enumerate(NAMES, 2))]
        for member in self.people:
            member.wall_ms = room.organizer.wall_ms
        self.dead: set[ParticipantId] = set()
        self.history: dict[int, set[bytes]] = defaultdict(set)
        self.twice, self.late = twice, late
        self.delayed: list[tuple[ParticipantId, bytes]] = []
        room.meddle = self.meddle
        self.number = 0

    def meddle(self, to: ParticipantId, packet: bytes) -> list[bytes]:
        """Every third packet comes twice, every fifth after the others."""
        self.number += 1
        if self.late and self.number % 5 == 0:
            self.delayed.append((to, packet))
            return []
        return [packet, packet] if self.twice and self.number % 3 == 0 else [packet]

    def move(self, what: str, who: int, whom: int) -> None:
        room, member, other = self.room, self.people[who] if who < 5 else self.people[0], self.people[min(whom, 4)]
        gone = member.me in self.dead
        organizers = [m for m in self.people if m.organizes and m.me not in self.dead]
        match what:
            case "wait":
                room.run(float(who), step=1.0)
            case "link" if not gone and member.me not in room.linked:
                room.link(member.me)
            case "unlink" if not gone and member.me in room.linked:
                room.unlink(member.me)
            case "kill" if not gone and member.me in room.members and not member.organizes:
                room.kill(member.me)
                self.dead.add(member.me)
            case "accept" if not gone:
                member.heir.accept(room.now)
            case "take over" if not gone:
                member.heir.take_over(room.now)
            case "hand over":
                self.move("offer", 0, who)
                room.run(0.5)
                self.move("accept", who, 0)
            case "coup":
                self.move("name", who, who)
                room.run(0.5)
                for organizer in organizers:
                    room.unlink(organizer.me)
                room.run(66.0, step=3.0)
                self.move("take over", who, 0)
                room.run(3.0)
            case "chat" if not gone:
                member.chat(f"line {self.number}")
            case "leave" if not gone and not member.organizes:
                member.leave(room.now)
            case "offer" | "name" | "mute" | "appoint" | "dismiss":
                for organizer in organizers:
                    chair = organizer.chair
                    if what == "offer":
                        chair.hand_over(other.me, room.now)
                    elif what == "name":
                        chair.name_successors([m for m in {member.me, other.me} if m != organizer.me], room.now)
                    elif what == "mute":
                        chair.allow_chat(other.me, who % 2 == 0, room.now)
                    elif what == "appoint":
                        chair.appoint(other.me, room.now)
                    else:
                        chair.dismiss(other.me, room.now)

    def settle(self) -> None:
        room = self.room
        room.run(1.0, step=0.5)
        while self.delayed:
            to, packet = self.delayed.pop(0)
            if to in room.linked and to in room.members:
                room.members[to].receive_untrusted(packet, room.now)
        room.run(0.5, step=0.5)
        for member in self.people:
            for index in range(member.state.first_index, member.state.index + 1):
                head = member.state.head_at(index)
                if head is not None:
                    self.history[index].add(head)


@given(st.lists(MOVES, max_size=9), st.booleans(), st.booleans())
@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_G05_one_history_whatever_is_late_twice_lost_or_dead(moves: list[tuple[str, int, int]], twice: bool, late: bool) -> None:
    story = Story(twice, late)
    room = story.room
    for move in moves:
        try:
            story.move(*move)
        except (EndpointError, CryptoError):
            continue  # refused by name
        finally:
            story.settle()
    story.late = False
    for member in story.people:  # everybody comes back, and all that is on its way arrives
        if member.me not in story.dead and member.me not in room.linked and member.me in room.members:
            room.link(member.me)
    story.settle()
    room.run(20.0, step=1.0)
    story.settle()
    took_over = [e for m in story.people for e in room.events(m, events.OrganizerChanged) if e.took_over]
    forks = [index for index, heads in story.history.items() if len(heads) > 1]
    assert not forks or took_over, "only a take-over begins a branch"
    alive = [m for m in story.people if m.joined and m.me not in story.dead and m.me in room.linked and not m.state.ended]
    office = room.members.get(room.office)
    following = [m for m in alive if m.state.organizer == room.office and m.me in (office.state.members if office else ())]
    if office is not None and office.organizes and office in alive:
        assert len({(m.state.index, m.state.head) for m in following}) == 1
        assert len({m.keyring.group_key for m in following}) == 1
        snapshots = {m.state.head: m.state.snapshot() for m in following}
        assert all(m.state.snapshot() == snapshots[m.state.head] for m in following)
    for member in alive:
        if member.organizes and member.me != room.office:
            assert took_over, "two organizers only while a take-over is not seen yet"
