"""A hostile manager: it makes tickets as it likes, and has the session secret; it has no password, unless an invitee helps it."""

from dataclasses import replace

from crypto.signing import SigningKey, fingerprint
from crypto.srp import make_verifier
from endpoint.errors import WrongOrganizer
from endpoint.guest import Guest
from endpoint.journal import Saved
from endpoint.member import Member
from endpoint.organizer import Organizer
from tests.endpoint.room import PASSWORD
from tests.hostile.scene import Attack, Scene
from wire.ids import ParticipantId, Role
from wire.packet import Flag


class Manager(Attack):
    """Most of these meet a newcomer."""

    def at(self, scene: Scene) -> list[Member]:
        assert scene.newcomer is not None
        return [scene.newcomer]


class GivesOneIdToTwo(Manager):
    """Gives two guests one participant ID: two senders under it would share a keystream."""

    detected = ("handshake-malformed",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga]

    def mount(self, scene: Scene) -> None:
        room = scene.room
        twin = Guest(room.ticket(scene.ben.me), PASSWORD, "Twin", expected=fingerprint(room.meeting_key.public))
        room.members[scene.ben.me], twin._office = twin, scene.olga.me
        twin.linked(ParticipantId(0), -1, -1, room.now)
        twin._begin(room.now)
        room.run(1.0)
        room.members[scene.ben.me] = scene.ben
        assert not twin.joined


class HandsOutAWrongSecret(Manager):
    """Gives a guest another session secret than the organizer."""

    detected = ("wrong-secret",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga, *super().at(scene)]

    def mount(self, scene: Scene) -> None:
        room = scene.room
        secret, room.secret = room.secret, bytes(32)
        scene.newcomer = room.guest(60, "Newcomer")
        room.secret = secret
        room.run(1.0)


class NamesAnotherKey(Manager):
    """Puts a key of its own into the ticket: with the link, F does not fit, and nothing is sent at all."""

    detected = ("organizer-wrong",)

    def mount(self, scene: Scene) -> None:
        ticket = replace(scene.room.ticket(61), meeting_key=SigningKey.generate().public)
        scene.newcomer = Guest(scene.room.ticket(61), PASSWORD, "Newcomer")
        try:
            Guest(ticket, PASSWORD, "Newcomer", expected=fingerprint(scene.room.meeting_key.public))
        except WrongOrganizer as error:
            scene.newcomer.failure = error


class PlaysTheOrganizer(Manager):
    """With a relay, and the password from an invitee: answers a newcomer as the organizer would."""

    detected = ("organizer-wrong",)

    def mount(self, scene: Scene) -> None:
        room = scene.room
        verifier = make_verifier(room.session, room.secret, PASSWORD)
        key = SigningKey.generate()
        ticket = replace(room.ticket(70, Role.ORGANIZER), meeting_key=key.public)
        impostor = Organizer(ticket, Saved.fresh(room.session, key, verifier), room.now, name="Olga")
        newcomer = scene.newcomer = Guest(room.ticket(62), PASSWORD, "Newcomer", expected=fingerprint(room.meeting_key.public))
        newcomer.linked(ParticipantId(0), -1, -1, room.now)
        newcomer.office(impostor.me, room.now)
        for _ in range(4):
            for one, other in ((newcomer, impostor), (impostor, newcomer)):
                while one.jobs:
                    job = one.jobs.popleft()
                    try:
                        job.done(job.work(), room.now)
                    except WrongOrganizer as error:
                        job.failed(error, room.now)
                for packet in [item for item in one.out if isinstance(item, bytes) and item[1] & Flag.CLEAR]:
                    other.receive_untrusted(packet, room.now)
                one.out.clear()
        assert not newcomer.joined


class GuessesThePassword(Manager):
    """Makes itself tickets and tries one password after the other."""

    detected = ("wrong-secret",)

    def at(self, scene: Scene) -> list[Member]:
        return [scene.olga]

    def mount(self, scene: Scene) -> None:
        reception = scene.olga.chair.lobby.reception
        before = reception.judged
        for number in range(5):
            scene.room.guest(80 + number, "Guesser", password=f"guess {number}")
            scene.room.run(1.0)
        assert scene.counted(scene.olga)["wrong-secret"] == reception.judged - before == 5
        assert {ParticipantId(80 + number) for number in range(5)}.isdisjoint(scene.olga.state.members)
