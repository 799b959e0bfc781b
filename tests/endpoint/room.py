"""A relay in a dict, for members without sockets: who is linked gets what a relay would pass, in order. Time is an argument."""

import secrets
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from crypto.signing import SigningKey, fingerprint
from crypto.srp import make_verifier
from endpoint import events
from endpoint.guest import Guest
from endpoint.journal import Saved
from endpoint.member import Member
from endpoint.organizer import Organizer
from endpoint.ticket import Ticket
from wire.control import Admitted, Control, End, Fetch, Have, Office, Presence, Revoke
from wire.have import HaveVector
from wire.ids import EVERYONE, Channel, MeetingId, ParticipantId, Role, RoleToken, SessionId, Stream
from wire.packet import RELIABLE_CHANNELS, Flag, parse_packet_untrusted

PASSWORD = "correct horse battery staple"
E = TypeVar("E", bound=events.Event)
Meddler = Callable[[ParticipantId, bytes], list[bytes]]


class Room:
    """One session. `meddle`, if set, sees every packet on its way to a member and says what arrives instead."""

    def __init__(self, password: str = PASSWORD) -> None:
        self.now = 1000.0
        self.session = SessionId(secrets.randbits(64))
        self.secret = secrets.token_bytes(32)
        self.meeting_key = SigningKey.generate()
        self.password = password
        self.members: dict[ParticipantId, Member] = {}
        self.office = ParticipantId(0)  # whom the relay lets write channel 1
        self.successors: list[int] = []  # whom it would let take the office
        self.office_gone_at: float | None = None
        self.withheld: dict[ParticipantId, list[bytes]] = defaultdict(list)  # channel 1 of others, as their outbox keeps it
        self.readers: dict[ParticipantId, HaveVector] = {}
        self.linked: set[ParticipantId] = set()
        self.silent: set[ParticipantId] = set()  # what they say does not leave their machine
        self.fresh: set[ParticipantId] = set()
        self.ring: list[bytes] = []
        self.has = HaveVector()
        self.seen: dict[ParticipantId, list[events.Event]] = defaultdict(list)
        self.wire: list[bytes] = []  # everything that a server saw
        self.meddle: Meddler | None = None
        verifier = make_verifier(self.session, self.secret, password)
        self.organizer = Organizer(self.ticket(1, Role.ORGANIZER), Saved.fresh(self.session, self.meeting_key, verifier), self.now, name="Olga")
        self.members[self.organizer.me] = self.organizer
        self.office = self.organizer.me
        self.link(self.organizer.me)
        self.run()

    def ticket(self, participant: int, role: Role = Role.ATTENDEE) -> Ticket:
        return Ticket(
            self.session, ParticipantId(participant), role, RoleToken(bytes(8)), self.secret, MeetingId(123456789), "Test",
            self.meeting_key.public, (), "test",
        )  # fmt: skip

    def guest(self, participant: int, name: str, password: str | None = None, expected: str | None = None) -> Guest:
        """A guest that has a ticket and a link; run() lets it in."""
        guest = Guest(
            self.ticket(participant), self.password if password is None else password, name,
            expected=fingerprint(self.meeting_key.public) if expected is None else expected,
        )  # fmt: skip
        self.members[guest.me] = guest
        self.fresh.add(guest.me)
        self.link(guest.me)
        return guest

    def admitted(self, participant: int, name: str) -> Guest:
        guest = self.guest(participant, name)
        self.run()
        assert guest.joined, guest.failure
        return guest

    def link(self, participant: ParticipantId) -> None:
        member = self.members[participant]
        self.linked.add(participant)
        self.readers[participant] = HaveVector(member.have.positions())
        office = self.office
        if participant == office:
            self.office_gone_at = None
        key = self.has.last(Stream(office, participant, Channel.KEY))
        member.taken([(*s, c) for s, c in self._has_of(participant)], self.now)
        member.linked(office, key, self.has.last(Stream(office, EVERYONE, Channel.LOG)), self.now)
        if participant == office:
            member.control(Presence(sorted(map(int, self.linked)), []), self.now)
        for packet in self.ring:
            self._deliver(participant, packet)

    def unlink(self, participant: ParticipantId) -> None:
        self.linked.discard(participant)
        self.members[participant].unlinked()
        if participant == self.office:
            self.office_gone_at = self.now

    def kill(self, participant: ParticipantId) -> Member:
        """Its process is gone, with everything that it had not sent."""
        self.unlink(participant)
        return self.members.pop(participant)

    def _has_of(self, participant: ParticipantId) -> list[tuple[Stream, int]]:
        return [(Stream(ParticipantId(s), ParticipantId(r), c), n) for s, r, c, n in self.has.positions() if s == participant]

    def pass_office(self, to: ParticipantId, successors: list[int]) -> None:
        """Everybody here learns whom the relay lets write channel 1."""
        self.office, self.successors = to, list(successors)
        self.office_gone_at = None if to in self.linked else self.now
        for participant in list(self.linked):
            self.members[participant].control(Office(to, list(successors)), self.now)
        if to in self.linked:
            here = sorted(map(int, self.linked))
            self.members[to].control(Presence(here, sorted(set(map(int, self.members)) - set(here))), self.now)
        waiting, self.withheld[to] = self.withheld[to], []
        for packet in waiting:
            self._take(to, packet)

    def run(self, seconds: float = 0.0, step: float = 0.25) -> None:
        """Let everything happen that can, then let time pass."""
        end = self.now + seconds
        self._settle()
        while self.now < end:
            self.now += step
            for member in self.members.values():
                member.tick(self.now)
            self._settle()

    def _settle(self) -> None:
        moving = True
        while moving:
            moving = False
            for participant, member in list(self.members.items()):
                while member.jobs:
                    moving = True
                    job = member.jobs.popleft()
                    try:
                        outcome = job.work()
                    except Exception as error:
                        job.failed(error, self.now)
                    else:
                        job.done(outcome, self.now)
                while member.out and participant not in self.silent and (participant in self.linked or not isinstance(member.out[0], bytes)):
                    moving = True
                    self._take(participant, member.out.popleft())
                self.seen[participant].extend(member.events)
                member.events.clear()
            office = self.members.get(self.office)
            if not moving and office is not None and office.batch_due() is not None:
                self.now = max(self.now, office.batch_due() or 0.0)
                office.tick(self.now)
                moving = bool(office.out)

    def _take(self, sender: ParticipantId, item: bytes | Control) -> None:
        if isinstance(item, Have):
            self.fresh.discard(sender)
            self.readers[sender].merge(item.have)
            for packet in self.ring:
                self._deliver(sender, packet)
            return
        if isinstance(item, Fetch):
            for packet in self.ring:
                header = parse_packet_untrusted(packet)
                if header.sender == self.office and header.channel == Channel.ROSTER and header.counter >= item.counter:
                    self._pass(sender, packet)
            return
        if isinstance(item, Revoke):
            self.linked.discard(ParticipantId(item.participant))
            return
        if isinstance(item, Office):
            empty = self.office_gone_at is not None and self.now - self.office_gone_at >= 60.0
            may = sender == self.office or (empty and sender in self.successors and item.participant == sender)
            if may and sender in self.linked and (item.participant, item.successors) != (self.office, self.successors):
                self.pass_office(ParticipantId(item.participant), item.successors)
            return
        if not isinstance(item, bytes):
            assert isinstance(item, Admitted | End)
            return
        header = parse_packet_untrusted(item)
        if header.channel in (Channel.LOG, Channel.ROSTER) and sender != self.office:
            if not self.members[sender].stood_up:
                self.withheld[sender].append(item)
            return
        self.wire.append(item)
        if header.flags & Flag.CLEAR:
            self._pass(header.recipient, item)
            return
        if header.channel in RELIABLE_CHANNELS:
            assert self.has.note(header.stream, header.counter), "a sender leaves no gap"
            self.ring.append(item)
        for participant in list(self.linked):
            if participant != sender:
                self._deliver(participant, item)
        if sender in self.members and sender in self.linked:
            self.members[sender].taken(self.has.positions(), self.now)

    def _deliver(self, participant: ParticipantId, packet: bytes) -> None:
        header = parse_packet_untrusted(packet)
        if header.sender == participant or header.recipient not in (EVERYONE, participant):
            return
        if (participant in self.fresh and header.channel != Channel.KEY) or header.channel == Channel.ROSTER:
            return
        if header.channel in RELIABLE_CHANNELS and not self.readers[participant].note(header.stream, header.counter):
            return
        self._pass(participant, packet)

    def _pass(self, participant: ParticipantId, packet: bytes) -> None:
        if participant not in self.linked:
            return
        for arrived in self.meddle(participant, packet) if self.meddle else [packet]:
            self.members[participant].receive_untrusted(arrived, self.now)

    def presence(self, here: list[int], away: list[int]) -> None:
        self.members[self.office].control(Presence(here, away), self.now)

    def events(self, member: Member, kind: type[E]) -> list[E]:
        return [event for event in self.seen[member.me] if isinstance(event, kind)]

    def chat(self, member: Member) -> list[tuple[str, str]]:
        return [(event.name, event.text) for event in self.events(member, events.ChatReceived)]
