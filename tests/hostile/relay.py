"""A hostile relay: it has every packet and no key."""

from itertools import pairwise

from endpoint.guest import Guest
from endpoint.handshake import clear_packet, place
from endpoint.member import Member
from endpoint.messages import Hello1, Offer2, encode, parse_handshake_untrusted
from tests.hostile.scene import Attack, Scene, header_of
from wire.ids import Channel, ParticipantId
from wire.packet import HEADER_SIZE, Flag


class FlipsEveryByte(Attack):
    """Changes a packet, one byte after the other, whatever it holds."""

    detected = ("version-unsupported", "packet-malformed", "misdelivered", "flags-wrong", "bad-tag", "held-too-long")

    def mount(self, scene: Scene) -> None:
        line = scene.sent(Channel.CHAT, scene.eve)[-1]
        for place_, bit in ((i, bit) for i in range(len(line)) for bit in (1, 2, 128)):
            altered = bytearray(line)
            altered[place_] ^= bit
            scene.deliver(bytes(altered))
        scene.room.run(31.0, step=1.0)


class Truncates(Attack):
    """Cuts a packet short, at every length."""

    detected = ("packet-malformed", "bad-tag")

    def mount(self, scene: Scene) -> None:
        line = scene.sent(Channel.CHAT, scene.eve)[-1]
        scene.deliver(*(line[:size] for size in range(len(line))))


class Replays(Attack):
    """Sends again what was sent before, all of it."""

    detected = ("replayed",)

    def mount(self, scene: Scene) -> None:
        for sender in (scene.olga, scene.ana, scene.ben, scene.eve):
            for channel in (Channel.LOG, Channel.CHAT, Channel.SCREEN, Channel.SNAPSHOT):
                scene.deliver(*scene.sent(channel, sender))


class Reorders(Attack):
    """Lets a later chat line overtake an earlier one."""

    detected = ("gap", "withheld")

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def mount(self, scene: Scene) -> None:
        waiting: dict[ParticipantId, bytes] = {}

        def late(to: ParticipantId, packet: bytes) -> list[bytes]:
            if packet[2] != Channel.CHAT or to == scene.olga.me:
                return [packet]
            if to not in waiting:
                waiting[to] = packet
                return []
            return [packet, waiting[to]]

        scene.room.meddle = late
        scene.eve.chat("first")
        scene.eve.chat("second")
        scene.room.run()
        scene.room.meddle = None
        scene.room.run(30.0, step=1.0)


class SplicesSessions(Attack):
    """Brings packets of another session of the same organizer, as they are and under this session's number."""

    detected = ("misdelivered", "bad-tag")

    def mount(self, scene: Scene) -> None:
        other = Scene()
        line = other.sent(Channel.CHAT, other.eve)[-1]
        scene.deliver(line, line[:4] + scene.room.session.to_bytes(8, "big") + line[12:])


class SplicesStreams(Attack):
    """Moves a packet to another channel, sender, counter."""

    detected = ("bad-tag", "flags-wrong")

    def mount(self, scene: Scene) -> None:
        line = scene.sent(Channel.CHAT, scene.eve)[-1]
        scene.deliver(line[:2] + bytes((Channel.FILE,)) + line[3:])
        scene.deliver(line[:2] + bytes((Channel.LOG,)) + line[3:])
        scene.deliver(line[:12] + scene.ben.me.to_bytes(4, "big") + line[16:], to=[scene.olga, scene.ana])
        scene.deliver(line[:12] + scene.ana.me.to_bytes(4, "big") + line[16:], to=[scene.ben])
        scene.deliver(line[:24] + (header_of(line).counter + 1).to_bytes(8, "big") + line[32:])


class SplicesEpochs(Attack):
    """Gives a packet of one epoch the number of another one that is open."""

    detected = ("bad-tag",)

    def mount(self, scene: Scene) -> None:
        line, epoch = scene.sent(Channel.CHAT, scene.eve)[-1], header_of(scene.sent(Channel.CHAT, scene.eve)[-1]).epoch
        scene.room.admitted(40, "Dora")  # a join: the next epoch begins, the one before is still open
        assert scene.ben.keyring.current == epoch + 1
        scene.deliver(line[:20] + (epoch + 1).to_bytes(4, "big") + line[24:])


class DropsOneEntry(Attack):
    """Keeps one entry of the log from everyone."""

    detected = ("gap", "withheld")

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def mount(self, scene: Scene) -> None:
        scene.room.meddle = lambda to, packet: [] if packet[2] == Channel.LOG else [packet]
        scene.olga.chair.lock(True, scene.room.now)
        scene.room.run()
        scene.room.meddle = None
        scene.olga.chair.lock(False, scene.room.now)
        scene.room.run(30.0, step=1.0)


class WithholdsTheLog(Attack):
    """Keeps the log and all heartbeats from everyone."""

    detected = ("organizer-missing",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def mount(self, scene: Scene) -> None:
        scene.room.meddle = lambda to, packet: [] if packet[2] == Channel.LOG else [packet]
        scene.room.run(20.0, step=1.0)


class WithholdsAKey(Attack):
    """Keeps a new group key from everyone after a dismissal, so that they go on under the old one: nobody seals under it."""

    detected = ("withheld",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def mount(self, scene: Scene) -> None:
        scene.room.meddle = lambda to, packet: [] if packet[2] == Channel.KEY else [packet]
        scene.olga.chair.dismiss(scene.eve.me, scene.room.now)
        scene.room.run(5.0, step=1.0)
        assert not scene.ana.may_seal
        assert not scene.ben.may_seal
        scene.room.meddle = None
        scene.room.run(90.0, step=1.0)


class SwallowsALine(Attack):
    """Keeps one chat line from everyone but the organizer."""

    detected = ("withheld",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def mount(self, scene: Scene) -> None:
        scene.room.meddle = lambda to, packet: [] if packet[2] == Channel.CHAT and to != scene.olga.me else [packet]
        scene.eve.chat("swallowed")
        scene.room.run()
        scene.room.meddle = None
        scene.room.run(30.0, step=1.0)


class RollsTheScreenBack(Attack):
    """Shows an old snapshot and old updates again, to viewers who have newer ones."""

    detected = ("replayed",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga, scene.ben]

    def mount(self, scene: Scene) -> None:
        old = scene.sent(Channel.SNAPSHOT, scene.ana) + scene.sent(Channel.SCREEN, scene.ana)
        scene.ana.screen_packets(b"newer", restart=True, snapshot=True)
        scene.room.run()
        scene.deliver(*old)


class SkipsAnUpdate(Attack):
    """Leaves one screen update out: what follows does not continue what is shown."""

    detected = ("screen-gap",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga, scene.ben]

    def mount(self, scene: Scene) -> None:
        scene.room.meddle = lambda to, packet: [] if packet[2] == Channel.SCREEN else [packet]
        scene.ana.screen_packets(b"\0left out", restart=False)
        scene.room.run()
        scene.room.meddle = None
        scene.ana.screen_packets(b"\0later", restart=False)
        scene.room.run()


def _swap(scene: Scene, number: int, swap: bytes) -> Guest:
    """A guest joins while the relay puts another signing key into that handshake message."""

    def meddle(to: ParticipantId, packet: bytes) -> list[bytes]:
        header = header_of(packet)
        if not header.flags & Flag.CLEAR or place(header.counter)[1] != number:
            return [packet]
        message = parse_handshake_untrusted(packet[HEADER_SIZE:])
        assert isinstance(message, Hello1 | Offer2)
        kept = {field: getattr(message, field) for field in message.__struct_fields__} | {"signing_key": swap}
        return [clear_packet(header.session, header.sender, header.recipient, number, 0, encode(type(message)(**kept)))]

    scene.room.meddle = meddle
    scene.newcomer = scene.room.guest(50, "Newcomer")
    scene.room.run(1.0)
    assert not scene.newcomer.joined
    assert scene.newcomer.me not in scene.olga.state.members
    return scene.newcomer


class SwapsAGuestsKeys(Attack):
    """Puts a signing key of its own into a guest's first message, to be listed in its place."""

    detected = ("wrong-secret",)

    def at(self, scene: Scene) -> list[Member]:
        assert scene.newcomer is not None
        return [scene.olga, scene.newcomer]

    def mount(self, scene: Scene) -> None:
        _swap(scene, 1, scene.eve.signing.public)


class SwapsTheOrganizersKey(Attack):
    """Puts a signing key of its own into the organizer's answer."""

    detected = ("wrong-secret",)

    def at(self, scene: Scene) -> list[Member]:
        assert scene.newcomer is not None
        return [scene.olga, scene.newcomer]

    def mount(self, scene: Scene) -> None:
        _swap(scene, 2, scene.eve.signing.public)


class JoinsAgainForAMember(Attack):
    """Says the recorded handshake of a member once more, to have it admitted a second time."""

    detected = ("handshake-malformed",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga]

    def mount(self, scene: Scene) -> None:
        said = [p for p in scene.room.wire if p[1] & Flag.CLEAR and header_of(p).sender == scene.eve.me]
        assert [place(header_of(p).counter)[1] for p in said] == [1, 3]
        for one, other in pairwise([*said, *said]):
            scene.olga.receive_untrusted(one, scene.room.now)
            scene.olga.receive_untrusted(other, scene.room.now)
        scene.room.run()


class FillsTheDoor(Attack):
    """Sends rubbish as handshakes of participants that nobody knows."""

    detected = ("handshake-malformed", "handshake-late")

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga]

    def mount(self, scene: Scene) -> None:
        for participant in range(1000, 1200):
            for number in (1, 2, 3, 4):
                packet = clear_packet(scene.room.session, ParticipantId(participant), scene.olga.me, number, 0, bytes(range(200)))
                scene.olga.receive_untrusted(packet, scene.room.now)
        assert not scene.olga.jobs, "none of it costs a power"
        scene.room.run()
