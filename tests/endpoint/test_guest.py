"""A guest at a door that others hold: what it believes, what it refuses, and by which name."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.schedule import transcript_hash
from crypto.signing import ExchangeKey, SigningKey, fingerprint
from crypto.srp import Host, make_verifier
from crypto.suite import LABEL_HOST
from endpoint import events
from endpoint.errors import WrongOrganizer, WrongSecret
from endpoint.guest import JOIN_WITHIN, Guest, Stage
from endpoint.handshake import clear_packet, place
from endpoint.messages import Hello1, Offer2, Proof3, Proof4, Refused4, encode, parse_handshake_untrusted
from endpoint.organizer import Organizer
from tests.endpoint.room import Room
from wire.control import Office
from wire.ids import ParticipantId
from wire.packet import HEADER_SIZE, Flag, parse_packet_untrusted


def number(packet: bytes) -> int:
    """Of a handshake message; 0 for other packets."""
    return place(parse_packet_untrusted(packet).counter)[1] if packet[1] & Flag.CLEAR else 0


def rewriting(of: int, change: Callable[[list[object]], list[object]]) -> Callable[[ParticipantId, bytes], list[bytes]]:
    """A relay that changes one message of the handshake: clear packets have no tag."""

    def meddle(to: ParticipantId, packet: bytes) -> list[bytes]:
        if number(packet) != of:
            return [packet]
        return [packet[:HEADER_SIZE] + encode(change(msgspec.msgpack.decode(packet[HEADER_SIZE:])))]

    return meddle


def replacing(index: int, value: object) -> Callable[[list[object]], list[object]]:
    return lambda fields: [*fields[:index], value, *fields[index + 1 :]]


def refused(room: Room, guest: Guest) -> str:
    room.run(JOIN_WITHIN + 2)
    assert not guest.joined
    assert guest.me not in room.organizer.state.ever
    assert guest.failure is not None
    (removed,) = room.events(guest, events.Removed)
    assert removed.reason == guest.failure.name
    return guest.failure.name


# a relay that swaps keys


@pytest.mark.parametrize(("field", "name"), [(5, "signing key"), (6, "signing key"), (7, "exchange key"), (8, "nonce")])
def test_G22_a_relay_that_swaps_keys_in_message_1_ends_the_join(field: int, name: str) -> None:
    room = Room()
    mine = {6: SigningKey.generate().public, 7: ExchangeKey.generate().public, 8: bytes(16), 5: (b"\1" * 384)}[field]
    room.meddle = rewriting(1, replacing(field, mine))
    assert refused(room, room.guest(2, "Ana")) == "wrong-secret"


@pytest.mark.parametrize(("field", "value", "name"), [
    (1, bytes(16), "wrong-secret"),  # the salt
    (2, b"\1" * 384, "wrong-secret"),  # B
    (2, bytes(384), "handshake-malformed"),  # B = 0 would make S known to everyone
    (2, b"\xff" * 384, "handshake-malformed"),
    (3, SigningKey.from_seed(bytes(32)).public, "wrong-secret"),  # whose it should be is known with message 4
    (4, ExchangeKey.from_bytes(b"\1" * 32).public, "wrong-secret"),
    (5, bytes(16), "wrong-secret"),  # the nonce
], ids=["salt", "B", "B of 0", "B of N and more", "signing key", "exchange key", "nonce"])  # fmt: skip
def test_G22_a_relay_that_swaps_keys_in_message_2_ends_the_join(field: int, value: bytes, name: str) -> None:
    room = Room()
    room.meddle = rewriting(2, replacing(field, value))
    assert refused(room, room.guest(2, "Ana")) == name


def test_G22_a_public_value_of_zero_in_message_1_opens_nothing() -> None:
    room = Room()
    room.meddle = rewriting(1, replacing(5, bytes(384)))
    assert refused(room, room.guest(2, "Ana")) in ("wrong-secret", "join-timeout")


@pytest.mark.parametrize(("field", "value"), [(1, bytes(32)), (2, [b"a hand-over"]), (3, bytes(64))], ids=["M2", "chain", "signature"])
def test_G22_an_altered_message_4_is_not_the_organizers(field: int, value: object) -> None:
    """M2 and the signature stand under the signature. The organizer has admitted the guest by then; the guest does not believe it."""
    room = Room()
    room.meddle = rewriting(4, replacing(field, value))
    guest = room.guest(2, "Ana")
    room.run(3.0)
    assert isinstance(guest.failure, WrongOrganizer)
    assert not guest.joined


def test_a_name_that_a_relay_altered_admits_nobody() -> None:
    room = Room()
    room.meddle = rewriting(3, lambda fields: [*fields[:2], bytes(30)])
    assert refused(room, room.guest(2, "Ana")) == "join-timeout"


# somebody else plays the host


class Impostor:
    """Knows the password and the session's secret, as every guest does, and not the meeting key."""

    def __init__(self, room: Room, signing: SigningKey, *, shown: bytes) -> None:
        self.room, self.signing, self.shown = room, signing, shown
        self.verifier = make_verifier(room.session, room.secret, room.password)
        self.message1 = self.message2 = b""
        self.host: Host | None = None

    def meddle(self, to: ParticipantId, packet: bytes) -> list[bytes]:
        if to != self.room.organizer.me or not number(packet):
            return [packet]
        header = parse_packet_untrusted(packet)
        attempt, step = place(header.counter)
        body = self.answer(step, packet[HEADER_SIZE:])
        back = clear_packet(self.room.session, self.room.organizer.me, header.sender, step + 1, attempt, body)
        self.room.members[header.sender].receive_untrusted(back, self.room.now)
        return []

    def answer(self, step: int, body: bytes) -> bytes:
        message = parse_handshake_untrusted(body)
        if isinstance(message, Hello1):
            self.message1, self.host = body, Host(self.verifier)
            self.message2 = encode(Offer2(self.verifier.salt, self.host.public, self.shown, ExchangeKey.generate().public, bytes(16)))
            self.public = message.public
            return self.message2
        assert isinstance(message, Proof3)
        assert self.host is not None
        th = transcript_hash(self.message1, self.message2)
        self.host.verify(self.public, th, message.proof)
        m2 = self.host.prove()
        return encode(Proof4(m2, [], self.signing.sign(LABEL_HOST, th, message.proof, m2)))


@pytest.mark.parametrize("claims", [True, False])
def test_B01_who_knows_the_password_and_not_the_meeting_key_is_no_organizer(claims: bool) -> None:
    room = Room()
    own = SigningKey.generate()
    impostor = Impostor(room, own, shown=room.meeting_key.public if claims else own.public)
    room.meddle = impostor.meddle
    ana = room.guest(2, "Ana")
    room.run(3.0)
    assert isinstance(ana.failure, WrongOrganizer)
    assert ana.keyring.current is None


def test_B01_the_same_with_the_meeting_key_would_be_believed() -> None:
    """So that the test above fails for its reason alone."""
    room = Room()
    impostor = Impostor(room, room.meeting_key, shown=room.meeting_key.public)
    room.meddle = impostor.meddle
    ana = room.guest(2, "Ana")
    room.run()
    assert ana.stage is Stage.KEYED


def test_B01_a_manager_that_names_its_own_key_is_found_out_by_the_link() -> None:
    room = Room()
    own = SigningKey.generate()
    false = replace(room.ticket(2), meeting_key=own.public)
    with pytest.raises(WrongOrganizer):
        Guest(false, room.password, "Ana", expected=fingerprint(room.meeting_key.public))
    typed = Guest(false, room.password, "Ana")  # by ID, without F: the words are what tells
    assert typed.state.meeting_key == own.public


# hints and noise


def spoof(room: Room, guest: Guest, reason: str, step: int = 2, sender: int | None = None, attempt: int = 0) -> None:
    organizer = room.organizer.me if sender is None else ParticipantId(sender)
    guest.receive_untrusted(clear_packet(room.session, organizer, guest.me, step, attempt, encode(Refused4(reason))), room.now)


def test_a_spoofed_refusal_is_no_more_than_a_hint_before_the_join_and_nothing_after_it() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    for reason in ("wrong-secret", "turned-away", "join-busy", "anything"):
        spoof(room, ana, reason)
    assert ana.joined
    assert ana.failure is None
    ben = Guest(room.ticket(3), room.password, "Ben")
    ben.linked(ParticipantId(0), -1, -1, room.now)
    ben.office(room.organizer.me, room.now)
    for reason, sender, attempt in (("anything", None, 0), ("", None, 0), ("wrong-secret", 99, 0), ("wrong-secret", None, 7)):
        spoof(room, ben, reason, sender=sender, attempt=attempt)
        assert ben.failure is None, reason
    spoof(room, ben, "wrong-secret")
    assert isinstance(ben.failure, WrongSecret)


def test_a_busy_organizer_is_asked_again_by_itself() -> None:
    room = Room()
    busy = [True]

    def crowd(to: ParticipantId, packet: bytes) -> list[bytes]:
        if to == room.organizer.me and number(packet) == 1 and busy[0]:
            spoof(room, ana, "join-busy")
            return []
        return [packet]

    room.meddle = crowd
    ana = room.guest(2, "Ana")
    room.run(3.0)
    assert not ana.joined
    assert ana.failure is None
    busy[0] = False
    room.run(5.0)
    assert ana.joined


@given(
    st.integers(1, 5),
    st.binary(max_size=500) | st.lists(st.integers(0, 6) | st.binary(max_size=400) | st.text(max_size=9), max_size=9).map(encode),
)
@settings(max_examples=150, derandomize=True)
def test_G22_noise_in_the_organizers_name_raises_nothing_and_ends_nothing(step: int, body: bytes) -> None:
    room, ana = asking()
    ana.receive_untrusted(clear_packet(room.session, room.organizer.me, ana.me, step, 0, body), room.now)
    while ana.jobs:
        job = ana.jobs.popleft()
        try:
            job.work()
        except Exception as error:
            job.failed(error, room.now)
    assert ana.failure is None or ana.failure.name in ("handshake-malformed", "organizer-wrong", "wrong-secret", "turned-away")
    assert not ana.joined


_prepared: list[tuple[Room, bytes]] = []


def asking() -> tuple[Room, Guest]:
    """A guest that has sent message 1 (made once: it costs a power)."""
    if not _prepared:
        room = Room()
        room.meddle = lambda to, packet: []
        room.guest(2, "Ana")
        room.run()
        _prepared.append((room, b""))
    room = _prepared[0][0]
    ana = room.members[ParticipantId(2)]
    assert isinstance(ana, Guest)
    if ana.stage is not Stage.ASKING or ana.failure:
        room.guest(2, "Ana")
        room.run()
        ana = room.members[ParticipantId(2)]
        assert isinstance(ana, Guest)
    return room, ana


# time, and an office that changes


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_a_lost_message_is_repeated(lost: int) -> None:
    room = Room()
    seen: list[int] = []

    def lose_the_first(to: ParticipantId, packet: bytes) -> list[bytes]:
        first = number(packet) == lost and lost not in seen
        seen.append(number(packet))
        return [] if first else [packet]

    room.meddle = lose_the_first
    ana = room.guest(2, "Ana")
    room.run(5.0)
    assert ana.joined, ana.stage


def test_an_organizer_that_never_answers_is_given_up_by_name() -> None:
    room = Room()
    room.meddle = lambda to, packet: []
    ana = room.guest(2, "Ana")
    room.run(JOIN_WITHIN - 1)
    assert ana.failure is None
    room.run(2.0)
    assert ana.failure is not None
    assert ana.failure.name == "join-timeout"
    said = [p for p in room.wire if parse_packet_untrusted(p).sender == ana.me]
    room.run(10.0)
    assert [p for p in room.wire if parse_packet_untrusted(p).sender == ana.me] == said, "and says nothing more"


def test_a_relay_that_knows_no_organizer_is_given_up_by_name() -> None:
    room = Room()
    ana = Guest(room.ticket(2), room.password, "Ana")
    ana.linked(ParticipantId(0), -1, -1, room.now)
    ana.office(ParticipantId(0), room.now)
    ana.tick(room.now + JOIN_WITHIN - 1)
    assert ana.failure is None
    ana.tick(room.now + JOIN_WITHIN)
    assert ana.failure is not None
    assert ana.failure.name == "join-timeout"


def test_a_changed_office_begins_the_try_anew_and_nobody_counts_it() -> None:
    room = Room()
    ana = Guest(room.ticket(2), room.password, "Ana")
    room.members[ana.me] = ana
    room.fresh.add(ana.me)
    room.linked.add(ana.me)
    room.readers[ana.me] = type(room.has)()
    ana.linked(ParticipantId(0), -1, -1, room.now)
    ana.office(ParticipantId(99), room.now)  # a relay that has not heard of the new one
    (job,) = ana.jobs
    ana.jobs.clear()
    ana.control(Office(room.organizer.me, []), room.now)
    job.done(job.work(), room.now)  # the older try's message 1 comes out of its thread late
    assert not ana.out
    job.failed(ValueError("whatever it was"), room.now)
    room.run()
    assert ana.joined
    counters = {parse_packet_untrusted(p).counter for p in room.wire if p[1] & Flag.CLEAR}
    assert counters == {5, 6, 7, 8}, "the second try"
    assert not room.organizer.chair.lobby.reception._failures


def test_the_office_cannot_restart_what_has_failed_or_is_in() -> None:
    room = Room()
    eve = room.guest(2, "Eve", password="guess")
    room.run()
    for member in (eve, room.admitted(3, "Ana")):
        stage = member.stage
        member.control(Office(ParticipantId(77), []), room.now)
        assert member.stage is stage
        assert not member.jobs


def test_what_a_join_needed_is_forgotten_afterwards() -> None:
    room = Room("swordfish swordfish")
    ana = room.admitted(2, "Ana")
    assert ana._password == ""
    assert "swordfish" not in repr(ana.__dict__)
    assert room.secret.hex() not in repr(ana.__dict__)


def test_a_member_says_goodbye_once_it_is_in_and_not_before() -> None:
    room = Room()
    ana = Guest(room.ticket(2), room.password, "Ana")
    ana.leave(room.now)
    assert not ana.out
    ben = room.admitted(3, "Ben")
    ben.leave(room.now)
    room.run()
    assert ben.me not in room.organizer.state.members
    assert not isinstance(ben, Organizer)
