"""Whole meetings against a naive oracle: whatever is delayed, said twice, lost on the way or with a link, or dies at any step and comes back
from its journal, there is one history.

The oracle keeps the hash of every entry that any member ever applied, by place. Two hashes at one place are a fork, and may be only where
somebody took over: whoever stood on the branch that lost is out (`superseded`), and at the end all who are in agree on everything.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto.errors import CryptoError
from endpoint import events
from endpoint.errors import EndpointError
from endpoint.journal import Journal, Seat
from endpoint.member import Member
from endpoint.organizer import Organizer
from tests.endpoint.room import Room
from wire.ids import EVERYONE, ParticipantId
from wire.packet import Flag, parse_packet_untrusted

NAMES = ("Ana", "Ben", "Cleo", "Dora")
_WHO = st.integers(0, 4)


def _moves(*names: str) -> st.SearchStrategy[tuple[str, int, int]]:
    return st.tuples(st.sampled_from(names), _WHO, _WHO)


MOVES = st.one_of(
    _moves("chat", "mute", "appoint", "chat", "link", "unlink"),
    _moves("offer", "accept", "name", "take over", "hand over", "coup"),
    _moves("silence", "speak", "kill", "restart", "crash", "die handing over", "leave", "dismiss"),
    st.tuples(st.just("wait"), st.sampled_from([1, 6, 30, 65]), st.just(0)),
)


class Story:
    def __init__(self, directory: Path, twice: bool = False, late: bool = False, lossy: bool = False) -> None:
        self.room = room = Room()
        self.directory = directory
        self.people: list[Member] = [room.organizer, *(room.admitted(at, name) for at, name in enumerate(NAMES, 2))]
        for who in range(5):
            self.bind(who)
        room.organizer.heir._write_down(room.organizer.chair, room.organizer.chair.verifier.to_bytes(), EVERYONE)
        self.dead: set[ParticipantId] = set()
        self.history: dict[int, set[bytes]] = defaultdict(set)
        self.twice, self.late, self.lossy = twice, late, lossy
        self.newest = 10  # participant
        self.delayed: list[tuple[ParticipantId, bytes]] = []
        room.meddle = self.meddle
        self.number = 0

    def meddle(self, to: ParticipantId, packet: bytes) -> list[bytes]:
        """Every third packet comes twice, every fifth after the others, every seventh never."""
        self.number += 1
        if self.lossy and self.number % 7 == 0 and not packet[1] & Flag.CLEAR:
            return []
        if self.late and self.number % 5 == 0:
            self.delayed.append((to, packet))
            return []
        return [packet, packet] if self.twice and self.number % 3 == 0 else [packet]

    # journals, and processes that come after one another

    def path(self, who: int) -> Path:
        return self.directory / str(who)

    def bind(self, who: int) -> None:
        member, room, path = self.people[who], self.room, self.path(who)
        member.wall_ms = lambda: int(1000 * room.now)
        seat = Seat(member.me, 2, bytes(8))
        member.begin_journal = lambda saved: Journal.begin(path, room.secret, replace(saved, seats=[*saved.seats, seat]))

    def kill(self, who: int) -> None:
        member = self.people[who]
        self.room.kill(member.me)
        self.dead.add(member.me)
        if member.journal is not None:
            member.journal.close()

    def restart(self, who: int) -> None:
        """As `endpoint.sdk` does: what was left undone is said by the former self, and its chair taken up again; or it is a guest."""
        room, path = self.room, self.path(who)
        self.newest += 1
        ticket, saved = room.ticket(self.newest), Journal.read(path, room.secret)
        if saved is not None and saved.passed is not None:
            self.pass_on(saved.seats, ParticipantId(saved.passed.to), saved.passed.packets)
        elif saved is not None:
            journal = Journal.begin(path, room.secret, replace(saved, seats=[*saved.seats, Seat(ticket.participant, 2, bytes(8))]))
            if self.pass_on(saved.seats, ticket.participant, []):
                self.people[who] = room.members[ticket.participant] = Organizer(ticket, saved, room.now, journal=journal)
                self.bind(who)
                room.link(ticket.participant)
                return
            journal.forget()
        self.people[who] = room.guest(self.newest, ["Olga", *NAMES][who])
        self.bind(who)

    def pass_on(self, seats: list[Seat], to: ParticipantId, packets: list[bytes]) -> bool:
        """`endpoint.former`, at this relay."""
        room, former = self.room, self.room.office
        if former not in {seat.participant for seat in seats}:
            return False
        for packet in packets:
            header = parse_packet_untrusted(packet)
            if room.has.lacks(header.stream, header.counter):
                room._take(former, packet)
        room.pass_office(to, [])
        return True

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
            case "kill" if not gone and member.me in room.members:
                self.kill(who)
            case "crash":
                victim = self.people.index(organizers[0]) if organizers and whom % 2 else who
                if self.people[victim].me in room.members:
                    self.kill(victim)
                    room.run(3.0, step=1.0)
                    self.restart(victim)
            case "restart" if gone:
                self.restart(who)
            case "silence":
                room.silent.add(member.me)
            case "speak":
                room.silent.discard(member.me)
            case "die handing over" if organizers:
                organizer = organizers[0]
                self.move("offer", 0, who)
                room.run(0.5)
                if whom % 2:
                    room.silent.add(organizer.me)
                else:
                    organizer.taken = lambda positions, now: None  # type: ignore[method-assign]  # the office stays
                self.move("accept", who, 0)
                room.run(0.5)
                room.silent.discard(organizer.me)
                self.kill(self.people.index(organizer))
                self.restart(self.people.index(organizer))
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


@given(st.lists(MOVES, min_size=8, max_size=24), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=90, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_G05_one_history_whatever_is_late_twice_lost_or_dead(moves: list[tuple[str, int, int]], twice: bool, late: bool, lossy: bool) -> None:
    with TemporaryDirectory() as directory:
        _follow(Story(Path(directory), twice, late, lossy), moves)


def _follow(story: Story, moves: list[tuple[str, int, int]]) -> None:
    room = story.room
    for move in moves:
        try:
            story.move(*move)
        except (EndpointError, CryptoError):
            continue  # refused by name
        finally:
            story.settle()
    story.late = story.lossy = False
    room.silent.clear()
    for member in story.people:  # everybody comes back, and all that is on its way arrives
        if member.me not in story.dead and member.me not in room.linked and member.me in room.members:
            room.link(member.me)
    story.settle()
    room.run(90.0, step=1.0)
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
