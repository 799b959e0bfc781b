"""A real session to attack: Olga organizes, Ana presents, Ben listens, Eve is a member with a modified client. Members without sockets; the
relay is `tests.endpoint.room`, which an attack may turn into a hostile one.

    class Attack     one way to attack; its docstring is what the threat model says of it
      at             who must notice: every honest member, unless it says otherwise
      detected       the names under which each of them must have counted it
      mount(scene)   do it
      lost           who does not go on afterwards: the attacker, or somebody who was shown another log

`test_attacks.py` mounts each, looks for the names, and sees that the session goes on.
"""

import random
from collections import Counter
from collections.abc import Iterable
from typing import ClassVar

from crypto.keyring import Keyring
from endpoint import events
from endpoint.channel import Channels
from endpoint.guest import Guest
from endpoint.member import Member
from endpoint.organizer import Organizer
from tests.endpoint.room import Room
from wire.ids import EVERYONE, Channel, Epoch, ParticipantId
from wire.packet import Flag, PacketHeader, pack_header, parse_packet_untrusted


class Scene:
    """The session, with a past: chat, screen, several epochs."""

    def __init__(self) -> None:
        self.room = room = Room()
        self.olga: Organizer = room.organizer
        self.olga.wall_ms = lambda: int(room.now * 1000)  # or its heartbeats would seem to lag behind a clock that runs ahead
        self.ana, self.ben, self.eve = room.admitted(2, "Ana"), room.admitted(3, "Ben"), room.admitted(4, "Eve")
        self.olga.chair.appoint(self.ana.me, room.now)
        room.run()
        self.ana.screen_packets(b"whole", restart=True, snapshot=True)
        for member in (self.olga, self.ana, self.ben, self.eve):
            member.chat(f"hello from {member.me}")
            room.run()
        self.ana.screen_packets(b"\0first", restart=True)
        room.run(6.0)
        self.newcomer: Guest | None = None

    @property
    def honest(self) -> list[Member]:
        return [self.olga, self.ana, self.ben]

    def counted(self, member: Member) -> Counter[str]:
        """What a member has noticed, by name: what it dropped, what it was told, why its join failed."""
        found = Counter(member.dropped)
        for event in [*self.room.seen[member.me], *member.events]:
            if isinstance(event, events.JoinRefused):
                found[event.reason] += 1
            elif isinstance(event, events.OrganizerMissing) and event.missing:
                found["organizer-missing"] += 1
        if isinstance(member, Guest) and member.failure is not None:
            found[member.failure.name] += 1
        return found

    def sent(self, channel: int, sender: Member, recipient: ParticipantId = EVERYONE) -> list[bytes]:
        """Recorded packets of one stream."""
        found: list[bytes] = []
        for packet in self.room.wire:
            header = parse_packet_untrusted(packet)
            if (header.channel, header.sender, header.recipient) == (channel, sender.me, recipient) and not header.flags & Flag.CLEAR:
                found.append(packet)
        return found

    def deliver(self, *packets: bytes, to: Iterable[Member] | None = None) -> None:
        """As a relay does, to every honest member but the one that it claims to be from."""
        for packet in packets:
            for member in self.honest if to is None else to:
                if len(packet) < 16 or int.from_bytes(packet[12:16], "big") != member.me:
                    member.receive_untrusted(packet, self.room.now)
        self.room.run()

    def goes_on(self, without: Iterable[Member] = ()) -> None:
        """Everything works: chat, screen, the log, a change of key, a newcomer; and all have the same log and key."""
        room = self.room
        room.meddle = None
        room.run(40.0, step=1.0)
        members, office = [member for member in self.honest if member not in list(without)], room.members[room.office]
        words = {member: f"still here {member.me} {random.random()}" for member in members}
        for member in members:
            member.chat(words[member])
            room.run()
        self.ana.screen_packets(b"again", restart=True, snapshot=True)
        self.ana.screen_packets(b"\0next", restart=True)
        office.chair.knock(False, room.now)
        room.run(1.0)
        late = room.guest(90, "Late")
        room.run(1.0)
        late.chat("late, and in")
        office.chair.dismiss(late.me, room.now)
        room.run(1.0)
        for member in members:
            heard = [text for _, text in room.chat(member)]
            assert [text for text in heard if text.startswith("still here")] == list(words.values()), member
            assert (member.state.head, member.state.epoch) == (office.state.head, office.state.epoch)
            assert member.keyring.group_key == office.keyring.group_key
            assert member.may_seal
        for viewer in [member for member in members if member is not self.ana]:
            assert room.events(viewer, events.ScreenMessage)[-1].content == b"\0next"


class Attack:
    detected: ClassVar[tuple[str, ...]]

    def at(self, scene: Scene) -> list[Member]:
        return scene.honest

    def lost(self, scene: Scene) -> list[Member]:
        return []

    def mount(self, scene: Scene) -> None:
        raise NotImplementedError


class Forger:
    """Seals in the name of `victim`, under the keys of its streams, from the group key that `member` holds. What is signed it signs with the
    member's own key, having no other."""

    def __init__(self, room: Room, member: Member, victim: ParticipantId) -> None:
        assert member.keyring.current is not None
        self.keyring = Keyring(room.session, victim)
        self.keyring.install(member.keyring.current, member.keyring.group_key, room.now)
        self.keyring.advance(member.keyring.current, room.now)
        self.channels = Channels(room.session, victim, member.signing, self.keyring, member)
        self.room, self.victim = room, victim

    def packet(self, channel: int, counter: int, plaintext: bytes = b"forged", *, last: bool = False) -> bytes:
        epoch, sealer = self.keyring.sealer(EVERYONE, channel)
        flags = Flag.LAST if last else Flag(0)
        return sealer.seal(pack_header(flags, channel, self.room.session, self.victim, EVERYONE, Epoch(epoch), counter), counter, plaintext)

    def message(self, channel: int, content: bytes, after: int = -1) -> list[bytes]:
        """A message as the victim would send it next, after that counter; the signature is the member's."""
        sealer = self.keyring.sealer(EVERYONE, channel)[1]
        while sealer.last < after:
            self.packet(channel, sealer.last + 1)
        return self.channels.seal(channel, content, restart=channel == Channel.SNAPSHOT)


def header_of(packet: bytes) -> PacketHeader:
    return parse_packet_untrusted(packet)
