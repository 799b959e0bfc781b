"""A hostile member: Eve has the group key and runs what she likes; where she speaks in others' names, a relay helps her."""

from typing import ClassVar

import zstandard

from crypto.schedule import group_key_digest
from endpoint import events, log
from endpoint.hands import Input, Move, Pointer
from endpoint.hands import encode as encode_hands
from endpoint.log import sign_entry
from endpoint.member import Member
from endpoint.messages import ChatLine, encode
from tests.endpoint.pair import craft
from tests.hostile.scene import Attack, Forger, Scene, header_of
from wire.ids import EVERYONE, Channel, ParticipantId, Stream, next_epoch
from wire.packet import Flag

_WHOLE = Flag.LAST | Flag.SIGNED


def _due(member: Member, sender: Member, channel: int) -> int:
    """The last counter that a member had of a stream."""
    return member.channels.counter(Stream(sender.me, EVERYONE, channel))


class ForgesTheOrganizer(Attack):
    """Writes the log: an entry that makes her the presenter, under the group's MAC and her own signature."""

    detected = ("entry-forged",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def mount(self, scene: Scene) -> None:
        counter = _due(scene.ben, scene.olga, Channel.LOG) + 1
        state = scene.eve.state
        entry = sign_entry(scene.eve.signing, state.index + 1, state.head, counter, log.Presenter(scene.eve.me))
        scene.deliver(Forger(scene.room, scene.eve, scene.olga.me).packet(Channel.LOG, counter, entry.wire, last=True))
        assert scene.ben.state.presenter == scene.ana.me


class WritesUnderHerOwnName(Attack):
    """Sends an entry of the log as herself, in nobody's name."""

    detected = ("no-right",)

    def mount(self, scene: Scene) -> None:
        state = scene.eve.state
        entry = sign_entry(scene.eve.signing, state.index + 1, state.head, 0, log.Presenter(scene.eve.me))
        scene.deliver(Forger(scene.room, scene.eve, scene.eve.me).packet(Channel.LOG, 0, entry.wire, last=True))


class ForgesThePresenter(Attack):
    """Shows a screen in the presenter's name."""

    detected = ("bad-signature",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga, scene.ben]

    def mount(self, scene: Scene) -> None:
        forger = Forger(scene.room, scene.eve, scene.ana.me)
        last = _due(scene.ben, scene.ana, Channel.SNAPSHOT)
        picture = bytes(7) + b"\1" + bytes(32) + b"forged"
        scene.deliver(*forger.message(Channel.SNAPSHOT, picture, last))


class ForgesAMember(Attack):
    """Chats in Ben's name."""

    detected = ("bad-signature",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga, scene.ana]

    def mount(self, scene: Scene) -> None:
        forger = Forger(scene.room, scene.eve, scene.ben.me)
        scene.deliver(*forger.message(Channel.CHAT, encode(ChatLine("I resign", 0)), _due(scene.ana, scene.ben, Channel.CHAT)))


class ChatsWithoutTheRight(Attack):
    """Chats although she was silenced."""

    detected = ("no-right",)

    def mount(self, scene: Scene) -> None:
        scene.olga.chair.allow_chat(scene.eve.me, False, scene.room.now)
        scene.room.run()
        scene.eve.say(Channel.CHAT, encode(ChatLine("not silenced", 0)))
        scene.room.run()


class ShowsWithoutTheRight(Attack):
    """Shows a screen, and is not the presenter."""

    detected = ("no-right",)

    def mount(self, scene: Scene) -> None:
        scene.eve.out.extend(scene.eve.channels.seal_snapshot(b"mine"))
        scene.eve.out.extend(scene.eve.channels.seal(Channel.SCREEN, b"\0mine", restart=True))
        scene.room.run()


class PointsWithoutTheRight(Attack):
    """Moves a pointer on the shared screen, and is not the presenter."""

    detected = ("cursor-without-right",)

    def mount(self, scene: Scene) -> None:
        scene.eve.out.extend(scene.eve.channels.seal(Channel.CURSOR, encode_hands(Pointer(1, 1, True))))
        scene.room.run()


class TypesWithoutTheRight(Attack):
    """Sends mouse and keyboard to the presenter, who has lent her nothing."""

    detected = ("no-right",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana]

    def mount(self, scene: Scene) -> None:
        scene.eve.state.control = scene.eve.me
        scene.eve.handle(Input(0, [Move(1, 1)]))
        scene.room.run()


class TypesWithAnOldGrant(TypesWithoutTheRight):
    """Had the controls, and has them again; what was held back from the first time is executed no more."""

    def mount(self, scene: Scene) -> None:
        room, eve = scene.room, scene.eve
        scene.olga.chair.lend(eve.me, room.now)
        room.run()
        eve._pair(scene.ana.me)
        stale = eve.channels.seal(Channel.INPUT, encode_hands(Input(0, [Move(1, 1)])), scene.ana.me)
        for holder in (ParticipantId(0), eve.me):
            scene.olga.chair.lend(holder, room.now)
            room.run()
        scene.deliver(*stale, to=[scene.ana])


class BombsTheDecompressor(Attack):
    """A chat line of a few bytes that says it is twenty megabytes, and one that does not say."""

    detected = ("content-too-large", "content-malformed")

    def mount(self, scene: Scene) -> None:
        for size_said in (True, False):
            bomb = zstandard.ZstdCompressor(write_content_size=size_said).compress(bytes(20 << 20))
            scene.eve.out.append(craft(scene.eve, Channel.CHAT, bomb, _WHOLE | Flag.COMPRESSED))
        scene.room.run()


class BombsTheDecoder(Attack):
    """Arrays in arrays in arrays, and lengths that are not there."""

    detected = ("content-malformed",)

    def mount(self, scene: Scene) -> None:
        for bomb in (b"\x91" * 16_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b""):
            scene.eve.out.append(craft(scene.eve, Channel.CHAT, bomb, _WHOLE))
            scene.eve.out.append(craft(scene.eve, Channel.KEY, bomb, Flag.LAST, scene.olga.me))
        scene.room.run()


class LeavesOutTheSignature(Attack):
    """Sends a line without one, to be able to say later that it was not hers."""

    detected = ("flags-wrong",)

    def mount(self, scene: Scene) -> None:
        scene.deliver(Forger(scene.room, scene.eve, scene.eve.me).packet(Channel.CHAT, 1, b"unsigned", last=True))


class _Twice(Attack):
    """Remembers what the organizer signed."""

    def heard(self, scene: Scene) -> list[bytes]:
        said: list[bytes] = []
        check = scene.eve.check_log

        def listen(sender: ParticipantId, content: bytes, counter: int) -> None:
            said.append(content)
            check(sender, content, counter)

        scene.eve.check_log = listen  # type: ignore[method-assign]
        return said

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]


class SaysAnOldHeartbeat(_Twice):
    """The organizer's own heartbeat at a counter that is to come: its signature is right, and would shut the organizer out."""

    detected = ("entry-forged",)

    def mount(self, scene: Scene) -> None:
        said = self.heard(scene)
        scene.room.run(6.0)
        assert said[-1][0] == log.HEARTBEAT
        forger = Forger(scene.room, scene.eve, scene.olga.me)
        scene.deliver(forger.packet(Channel.LOG, _due(scene.ben, scene.olga, Channel.LOG) + 1, said[-1], last=True))


class SpoilsALargeMessage(Attack):
    """Puts a part into a screen update that is being collected: it costs this update."""

    detected = ("screen-gap",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga, scene.ben]

    def mount(self, scene: Scene) -> None:
        forger, far = Forger(scene.room, scene.eve, scene.ana.me), iter(range(1000, 2000))
        scene.room.meddle = lambda to, packet: [packet, forger.packet(Channel.SCREEN, next(far))] if packet[2] == 5 else [packet]
        scene.ana.screen_packets(b"\0" + bytes(40_000), restart=True)
        scene.room.run()
        scene.room.meddle = None
        scene.ana.screen_packets(b"\0later", restart=False)
        scene.room.run()


class BringsAKeyThatProtectsNothing(Attack):
    """Comes once more, with an exchange key with which nobody can share a secret: an organizer to come could tell her nothing, and would
    stop at her whenever it tells each member something."""

    detected = ("handshake-malformed",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga]

    def mount(self, scene: Scene) -> None:
        guest = scene.room.guest(66, "Eve again")
        guest.exchange.public = bytes(32)
        scene.room.run(1.0)
        assert guest.me not in scene.olga.state.members


class DismissedTalksOn(Attack):
    """Was dismissed, and talks on over a warm link under the key that she has."""

    detected = ("no-right",)

    def mount(self, scene: Scene) -> None:
        line = craft(scene.eve, Channel.CHAT, encode(ChatLine("still here", 0)), _WHOLE)
        scene.olga.chair.dismiss(scene.eve.me, scene.room.now)
        scene.room.run(1.0)
        scene.deliver(line)


class DismissedComesLater(DismissedTalksOn):
    """Was dismissed, and says under the old key what she likes, after it was closed."""

    detected = ("epoch-closed",)

    def mount(self, scene: Scene) -> None:
        line = craft(scene.eve, Channel.CHAT, encode(ChatLine("still here", 0)), _WHOLE)
        scene.olga.chair.dismiss(scene.eve.me, scene.room.now)
        scene.room.run(200.0, step=1.0)
        scene.deliver(line)


class DismissedAsksForTheKey(DismissedTalksOn):
    """Was dismissed, and asks the organizer for the new key over channel 0."""

    detected = ("epoch-closed",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga]

    def mount(self, scene: Scene) -> None:
        scene.eve._resync()
        (ask,) = [item for item in scene.eve.out if isinstance(item, bytes)]
        scene.eve.out.clear()
        scene.olga.chair.dismiss(scene.eve.me, scene.room.now)
        scene.room.run(1.0)
        scene.deliver(ask, to=[scene.olga])


class ShowsTwoLogs(Attack):
    """The organizer itself is dishonest, and a relay helps it: Ben is shown that Eve presents, the others that nobody does. Whoever hears
    a line of the other side names it."""

    detected: ClassVar[tuple[str, ...]] = ("fork",)

    def lost(self, scene: Scene) -> list[Member]:
        return [scene.ben]

    def fork(self, scene: Scene) -> None:
        room, olga = scene.room, scene.olga
        state = olga.state
        other = sign_entry(olga.signing, state.index + 1, state.head, olga.channels.last(Channel.LOG) + 1, log.Presenter(scene.eve.me))

        def two(to: ParticipantId, packet: bytes) -> list[bytes]:
            if to != scene.ben.me or packet[2] != Channel.LOG:
                return [packet]
            return [Forger(room, olga, olga.me).packet(Channel.LOG, header_of(packet).counter, other.wire, last=True)]

        room.meddle = two
        olga.chair.appoint(ParticipantId(0), room.now)
        room.run()
        room.meddle = None
        assert scene.ben.state.presenter == scene.eve.me

    def mount(self, scene: Scene) -> None:
        room, olga = scene.room, scene.olga
        self.fork(scene)
        for speaker in (scene.ana, scene.ben):
            speaker.chat("who presents?")
            room.run()
        olga.chair.appoint(scene.ana.me, room.now)
        room.run()


class ShowsTwoLogsAndTwoKeys(ShowsTwoLogs):
    """The same, and Ben has another group key from there on: nothing of the others' opens for him, nor of his for them, but whispers, whose
    keys are no organizer's to give."""

    detected: ClassVar[tuple[str, ...]] = ("bad-tag", "fork")

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ana, scene.ben]

    def mount(self, scene: Scene) -> None:
        room, olga, ana, ben = scene.room, scene.olga, scene.ana, scene.ben
        self.fork(scene)
        own, epoch = bytes(range(16)), next_epoch(olga.state.epoch)
        chosen = log.EpochEntry(epoch, group_key_digest(own))

        def two(to: ParticipantId, packet: bytes) -> list[bytes]:
            if to != ben.me or packet[2] not in (Channel.KEY, Channel.LOG):
                return [packet]
            if packet[2] == Channel.KEY:
                ben.keys.keep(epoch, own)
                return []
            counter = header_of(packet).counter
            entry = sign_entry(olga.signing, ben.state.index + 1, ben.state.head, counter, chosen)
            return [Forger(room, ben, olga.me).packet(Channel.LOG, counter, entry.wire, last=True)]

        room.meddle = two
        olga.chair.rekeying.change(room.now)
        room.run()
        room.meddle = None
        assert ben.keyring.group_key == own != ana.keyring.group_key
        for speaker, other in ((ana, ben), (ben, ana)):
            speaker.chat("who presents?")
            speaker.whisper(other.me, "can you hear me?")
            room.run()
        olga.chair.appoint(ana.me, room.now)
        room.run()


class ShowsAShorterLog(Attack):
    """The dishonest organizer and a relay keep the log's end from Ben: by heartbeats of its own there is nothing more. Who knows more and
    says anything makes him see it."""

    detected = ("index-later",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.ben]

    def mount(self, scene: Scene) -> None:
        room, olga = scene.room, scene.olga
        index, head = olga.state.index, olga.state.head

        def shorter(to: ParticipantId, packet: bytes) -> list[bytes]:
            if to != scene.ben.me or packet[2] != Channel.LOG:
                return [packet]
            counter = header_of(packet).counter
            beat = log.sign_heartbeat(olga.signing, log.Heartbeat(index, head, counter, olga.wall_ms(), []))
            return [Forger(room, olga, olga.me).packet(Channel.LOG, counter, beat, last=True)]

        room.meddle = shorter
        olga.chair.lock(True, room.now)
        room.run(6.0)
        scene.ana.chat("why is it locked?")
        room.run(32.0, step=1.0)
        assert not room.events(scene.ben, events.OrganizerMissing)
        told = [event.participant for event in room.events(scene.ben, events.Dropped) if event.name == "index-later"]
        assert told == [scene.ana.me]
        olga.chair.lock(False, room.now)
