"""Who wants the chair, or what two members say to each other: former organizers, would-be successors, listeners."""

from typing import ClassVar

from crypto.signing import SigningKey
from endpoint import events, log
from endpoint.handshake import clear_packet, place
from endpoint.log import SignedEntry, sign_entry
from endpoint.member import Member
from endpoint.messages import GroupKey, Proof4, Succession, encode, parse_handshake_untrusted
from endpoint.pulse import RESYNC_AFTER
from endpoint.rules import LABEL_ACCEPT, accept_parts
from endpoint.state import State
from tests.endpoint.pair import craft
from tests.hostile.scene import Attack, Forger, Scene, header_of
from wire.control import Office
from wire.ids import Channel, Epoch, ParticipantId, Stream
from wire.packet import HEADER_SIZE, Flag


def _entry(scene: Scene, key: SigningKey, fields: log.Fields, counter: int) -> bytes:
    state = scene.ben.state
    return sign_entry(key, state.index + 1, state.head, counter, fields).wire


def _next_term(scene: Scene) -> Epoch:
    return Epoch(((scene.ben.state.epoch >> 24) + 1) << 24)


class ForgesAHandOver(Attack):
    """Eve writes in her own name that the chair was handed to her, with her own signatures alone."""

    detected: ClassVar = ("entry-forged",)

    def mount(self, scene: Scene) -> None:
        eve = scene.eve
        fields = log.HandOver(eve.me, eve.signing.public, eve.exchange.public, bytes(64), Epoch(scene.ben.state.epoch + 1))
        scene.deliver(Forger(scene.room, eve, eve.me).packet(Channel.LOG, 0, _entry(scene, eve.signing, fields, 0), last=True))
        assert {member.state.organizer for member in scene.honest} == {scene.olga.me}


class CommandsAfterwards(Attack):
    """Olga handed the chair to Ana, and goes on to dismiss Ben over a relay that lets it pass."""

    detected: ClassVar = ("no-right",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def lost(self, scene: Scene) -> list[Member]:
        return [scene.olga]

    def mount(self, scene: Scene) -> None:
        room, olga = scene.room, scene.olga
        olga.chair.hand_over(scene.ana.me, room.now)
        room.run()
        scene.ana.heir.accept(room.now)
        room.run(1.0)
        entry = _entry(scene, room.meeting_key, log.Dismiss(scene.ben.me, []), olga.channels.last(Channel.LOG) + 1)
        scene.deliver(*olga.channels.seal(Channel.LOG, entry))
        assert scene.ben.me in scene.ana.state.members


class TakesOverUnnamed(Attack):
    """Eve takes the chair over after a minute's silence, which a relay fakes; nobody has named her a successor."""

    detected: ClassVar = ("entry-illegal",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def mount(self, scene: Scene) -> None:
        scene.room.meddle = lambda to, packet: [] if packet[2] in (Channel.LOG, Channel.KEY) else [packet]
        scene.room.run(70.0, step=1.0)
        scene.room.meddle = None
        entry = _entry(scene, scene.eve.signing, log.TakeOver(scene.eve.me, _next_term(scene)), 0)
        scene.deliver(Forger(scene.room, scene.eve, scene.eve.me).packet(Channel.LOG, 0, entry, last=True), to=self.at(scene))
        assert scene.ben.state.organizer == scene.olga.me


class TakesOverTooEarly(Attack):
    """Eve is a successor, and claims the chair while the organizer is heard: it waits, and is gone after its time."""

    detected: ClassVar = ("held-too-long",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def mount(self, scene: Scene) -> None:
        scene.olga.chair.name_successors([scene.eve.me], scene.room.now)
        scene.room.run(6.0)
        entry = _entry(scene, scene.eve.signing, log.TakeOver(scene.eve.me, _next_term(scene)), 0)
        scene.deliver(Forger(scene.room, scene.eve, scene.eve.me).packet(Channel.LOG, 0, entry, last=True), to=self.at(scene))
        assert scene.ben.state.organizer == scene.olga.me
        scene.room.run(35.0, step=1.0)


def _to_herself(scene: Scene, key: SigningKey, liar: Member, index: int) -> SignedEntry:
    """A hand-over to her at some place that is to come."""
    epoch, before = Epoch(scene.ben.state.epoch + 9), State(scene.room.session, key.public, head=bytes(32))
    fields = log.HandOver(liar.me, liar.signing.public, liar.exchange.public, bytes(64), epoch)
    accepted = liar.signing.sign(LABEL_ACCEPT, *accept_parts(before, fields))
    return sign_entry(key, index, before.head, 0, log.HandOver(liar.me, liar.signing.public, liar.exchange.public, accepted, epoch))


def _shows(scene: Scene, liar: Member, *chain: bytes) -> None:
    """A relay says that she writes the log, Ben asks her how that came, and she answers. He follows nobody."""
    room, ben = scene.room, scene.ben
    rightful = ben.state.organizer
    ben.control(Office(liar.me, []), room.now)
    room.run(RESYNC_AFTER + 2.0, step=1.0)
    liar.pair_key_channel(ben.me)
    liar._send(Channel.KEY, encode(Succession(list(chain))), ben.me)
    room.run(1.0)
    assert ben._host is None
    assert ben.state.organizer == rightful
    ben.control(Office(rightful, []), room.now)


class ComesBackByAChain(Attack):
    """Olga handed the chair to Ana. A relay names Olga again, and she shows Ben, who asks, another hand-over under the meeting's key, to
    herself."""

    detected: ClassVar = ("organizer-wrong",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ben]

    def lost(self, scene: Scene) -> list[Member]:
        return [scene.olga]

    def mount(self, scene: Scene) -> None:
        room, olga = scene.room, scene.olga
        olga.chair.hand_over(scene.ana.me, room.now)
        room.run()
        scene.ana.heir.accept(room.now)
        room.run(1.0)
        _shows(scene, olga, _to_herself(scene, room.meeting_key, olga, scene.ben.state.index + 50).wire)


class ComesBackAsAStranger(Attack):
    """Olga handed the chair to Ana. A relay names somebody whom nobody admitted, and Olga answers Ben, who asks, as if an organizer had come
    back as that one: with all keys that she ever had, the group's too."""

    detected: ClassVar = ("bad-tag",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ben]

    def mount(self, scene: Scene) -> None:
        room, olga, ben = scene.room, scene.olga, scene.ben
        olga.chair.hand_over(scene.ana.me, room.now)
        room.run()
        scene.ana.heir.accept(room.now)
        room.run(1.0)
        ben.control(Office(99, []), room.now)
        room.run(RESYNC_AFTER + 2.0, step=1.0)
        liar = Member(room.session, ParticipantId(99), room.meeting_key.public, room.meeting_key, olga.exchange)
        liar.state = ben.state
        liar.pair_key_channel(ben.me)
        key = encode(GroupKey(ben.state.epoch, ben.keyring.group_key))
        for packet in liar.channels.seal(Channel.KEY, key, ben.me):
            ben.receive_untrusted(packet, room.now)
        assert ben._host is None
        ben.control(Office(scene.ana.me, []), room.now)


class ShowsHerFormerRight(Attack):
    """Eve was a successor once and is none now; after a minute's silence, which a relay fakes, she shows Ben a chain with what named her."""

    detected: ClassVar = ("organizer-wrong",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ben]

    def mount(self, scene: Scene) -> None:
        room, eve, ben = scene.room, scene.eve, scene.ben
        scene.olga.chair.name_successors([eve.me], room.now)
        named = scene.olga.chair._named
        scene.olga.chair.name_successors([], room.now)
        room.run(1.0)
        room.meddle = lambda to, packet: [] if header_of(packet).sender == scene.olga.me else [packet]
        room.run(70.0, step=1.0)
        entry = sign_entry(eve.signing, ben.state.index + 50, bytes(32), 0, log.TakeOver(eve.me, _next_term(scene)))
        _shows(scene, eve, named, entry.wire)
        room.meddle = None


class HidesATakeOver(Attack):
    """Eve is a successor, and the organizer is heard: her chain goes on from a take-over by a hand-over to herself, as if that needed no
    silence."""

    detected: ClassVar = ("not-allowed",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ben]

    def mount(self, scene: Scene) -> None:
        room, eve, index = scene.room, scene.eve, scene.ben.state.index
        scene.olga.chair.name_successors([eve.me], room.now)
        room.run(1.0)
        took = sign_entry(eve.signing, index + 50, bytes(32), 0, log.TakeOver(eve.me, _next_term(scene)))
        _shows(scene, eve, scene.olga.chair._named, took.wire, _to_herself(scene, eve.signing, eve, index + 51).wire)


class BreaksTheChain(Attack):
    """A relay puts something else into the chain of organizers that a newcomer gets."""

    detected: ClassVar = ("organizer-wrong",)

    def at(self, scene: Scene) -> list[Member]:
        assert scene.newcomer is not None
        return [scene.newcomer]

    def mount(self, scene: Scene) -> None:
        said = scene.sent(Channel.LOG, scene.olga)[0]

        def meddle(to: ParticipantId, packet: bytes) -> list[bytes]:
            header = header_of(packet)
            if not header.flags & Flag.CLEAR or place(header.counter)[1] != 4:
                return [packet]
            answer = parse_handshake_untrusted(packet[HEADER_SIZE:])
            assert isinstance(answer, Proof4)
            forged = encode(Proof4(answer.proof, [said[:200]], answer.signature))
            return [clear_packet(header.session, header.sender, header.recipient, 4, 0, forged)]

        scene.room.meddle = meddle
        scene.newcomer = scene.room.guest(51, "Newcomer")
        scene.room.run(1.0)


class ListensToAWhisper(Attack):
    """A relay gives Ana's whisper to Ben to everyone else, the organizer too, and once more with their numbers on it."""

    detected: ClassVar = ("misdelivered", "bad-tag")

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga]

    def mount(self, scene: Scene) -> None:
        scene.ana.whisper(scene.ben.me, "between us")
        scene.room.run()
        (whisper,) = scene.sent(Channel.WHISPER, scene.ana, scene.ben.me)
        for other in (scene.olga, scene.eve):
            scene.deliver(whisper, whisper[:16] + other.me.to_bytes(4, "big") + whisper[20:], to=[other])
        assert not any(b"between us" in packet for packet in scene.room.wire)
        heard = {member.me for member in scene.room.members.values() if scene.room.events(member, events.WhisperReceived)}
        assert scene.ben.me in heard <= {scene.ana.me, scene.ben.me}


class ForgesAWhisper(Attack):
    """Eve whispers to Ben in Ana's name, with every key that she has."""

    detected: ClassVar = ("bad-tag",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ben]

    def mount(self, scene: Scene) -> None:
        scene.eve.whisper(scene.ben.me, "I am Ana")
        scene.room.run()
        own = craft(scene.eve, Channel.WHISPER, b"I am Ana", Flag.LAST | Flag.SIGNED, scene.ben.me)
        scene.deliver(own[:12] + scene.ana.me.to_bytes(4, "big") + own[16:], to=[scene.ben])
        assert scene.ben.channels.counter(Stream(scene.ana.me, scene.ben.me, Channel.WHISPER)) == -1
