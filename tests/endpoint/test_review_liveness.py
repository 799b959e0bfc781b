"""What is lost, late or sent to be in the way: members find back into the session, and nobody pays for what a single one does."""

from collections import deque
from itertools import count

from OpenSSL import SSL

from crypto.srp import make_verifier
from endpoint import events
from endpoint.guest import Guest, Stage
from endpoint.handshake import TRIES, HostSide, clear_packet, place
from endpoint.held import MAX_HELD
from endpoint.messages import Hello1, Resync, encode, parse_handshake_untrusted
from endpoint.session import MAX_EVENTS, Session
from tests.endpoint.room import Room
from wire.control import Office, Revoke
from wire.ids import EVERYONE, Channel, Epoch, ParticipantId, Stream
from wire.packet import Flag, pack_header, parse_packet_untrusted


def clear_number(packet: bytes) -> int:
    header = parse_packet_untrusted(packet)
    return place(header.counter)[1] if header.flags & Flag.CLEAR else 0


def test_G22_a_lost_message_4_delays_a_join_and_ends_none() -> None:
    """Relays do not keep clear packets. Group key and snapshot are here before the message that lets them open."""
    room = Room()
    lost: list[bytes] = []

    def lose_the_first(to: ParticipantId, packet: bytes) -> list[bytes]:
        if clear_number(packet) == 4 and not lost:
            lost.append(packet)
            return []
        return [packet]

    room.meddle = lose_the_first
    ana = room.guest(2, "Ana")
    room.run(3.0)
    assert lost
    assert ana.joined, ana.stage


def test_a_log_entry_that_died_with_a_relay_is_made_up_for() -> None:
    room = Room()
    room.organizer.wall_ms = lambda: int(1000 * room.now)
    ben = room.admitted(2, "Ben")
    room.run(6.0)
    room.meddle = lambda to, packet: [] if packet[2] == Channel.LOG else [packet]
    room.organizer.chair.appoint(ben.me, room.now)
    room.run()
    room.meddle = None
    room.run(30.0, step=0.5)
    assert ben.state.presenter == ben.me
    assert ben.state.head == room.organizer.state.head
    assert [e.missing for e in room.events(ben, events.OrganizerMissing)] == [True, False]


def test_a_group_key_that_died_with_a_relay_is_asked_for_again() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.meddle = lambda to, packet: [] if to == ben.me and packet[2] == Channel.KEY else [packet]
    ana.leave(room.now)
    room.run()
    room.meddle = None
    assert ben.keyring.current != room.organizer.keyring.current
    room.run(30.0, step=0.5)
    assert ben.keyring.group_key == room.organizer.keyring.group_key
    ben.chat("here again")
    room.run()
    assert room.chat(room.organizer) == [("Ben", "here again")]


def test_who_hears_nothing_asks_once_a_minute() -> None:
    """The organizer may be gone for long; what is owed to it must not pile up."""
    room = Room()
    ben = room.admitted(2, "Ben")
    room.meddle = lambda to, packet: [] if to == ben.me else [packet]
    before = len(room.wire)
    room.run(100.0, step=1.0)
    asked = [p for p in room.wire[before:] if p[2] == Channel.KEY and parse_packet_untrusted(p).sender == ben.me]
    assert len(asked) == 2


def test_what_one_member_has_others_hold_crowds_out_nobody_else() -> None:
    """Mallory names an epoch that nobody has: each of her packets waits. Ana's line, a moment ahead of the log, has to wait too."""
    room = Room()
    ana, ben, mallory = room.admitted(2, "Ana"), room.admitted(3, "Ben"), room.admitted(4, "Mallory")
    for counter in range(MAX_HELD + 100):
        header = pack_header(Flag.LAST | Flag.SIGNED, Channel.CHAT, room.session, mallory.me, EVERYONE, Epoch(0xFFFFFF), counter)
        ben.receive_untrusted(header + bytes(100), room.now)
    late: list[bytes] = []
    room.meddle = lambda to, packet: late.append(packet) or [] if to == ben.me and packet[2] == Channel.LOG else [packet]  # type: ignore[func-returns-value]
    room.organizer.chair.lock(True, room.now)
    room.run()
    ana.chat("I know more than you")
    room.run()
    assert room.chat(ben) == []
    room.meddle = None
    for packet in late:
        ben.receive_untrusted(packet, room.now)
    room.run()
    assert room.chat(ben) == [("Ana", "I know more than you")]
    assert len(ben.held) <= MAX_HELD


def test_what_is_held_is_not_tried_again_for_every_wish_of_a_member() -> None:
    room = Room()
    mallory = room.admitted(4, "Mallory")
    header = pack_header(Flag.LAST | Flag.SIGNED, Channel.CHAT, room.session, mallory.me, EVERYONE, Epoch(0xFFFFFF), 0)
    room.organizer.receive_untrusted(header + bytes(100), room.now)
    tried: list[float] = []
    retry = room.organizer._retry
    room.organizer._retry = lambda now: (tried.append(now), retry(now))[1]  # type: ignore[method-assign,func-returns-value]
    for packet in mallory.channels.seal(Channel.KEY, encode(Resync()), room.organizer.me):
        room.organizer.receive_untrusted(packet, room.now)
    assert not tried


def test_a_member_that_asks_for_snapshots_all_the_time_gets_one_in_a_while() -> None:
    room = Room()
    mallory = room.admitted(4, "Mallory")
    before = len(room.wire)
    for _ in range(50):
        mallory._resync()
    room.run()
    answers = [p for p in room.wire[before:] if p[2] == Channel.KEY and parse_packet_untrusted(p).sender == room.organizer.me]
    assert len(answers) == 2  # the key and the snapshot, once
    assert room.organizer.dropped["resync-hasty"] == 49


def test_a_dismissal_without_a_link_reaches_the_relay_with_the_next_one() -> None:
    room = Room()
    mallory = room.admitted(4, "Mallory")
    organizer = room.organizer
    room.unlink(organizer.me)
    organizer.chair.dismiss(mallory.me, room.now)
    organizer.out = deque(item for item in organizer.out if isinstance(item, bytes))  # without a link, control messages go nowhere
    organizer.chair.greet()
    assert Revoke(mallory.me) in organizer.out


def test_B01_a_relay_that_changes_the_office_again_and_again_gets_no_more_than_three_proofs() -> None:
    """Each proof lets whoever knows the session secret (the manager) test one password."""
    room = Room()
    room.meddle = lambda to, packet: []  # the true organizer hears nothing
    guest = Guest(room.ticket(2), room.password, "Ana")
    verifier = make_verifier(room.session, room.secret, "a guess")
    proofs, office = 0, count(100)
    guest.linked(ParticipantId(0), -1, -1, room.now)
    for _ in range(20):
        liar = ParticipantId(next(office))
        guest.control(Office(liar, []), room.now)
        for _ in range(2):
            while guest.jobs:
                job = guest.jobs.popleft()
                job.done(job.work(), room.now)
            while guest.out:
                packet = guest.out.popleft()
                assert isinstance(packet, bytes)
                attempt, number = place(parse_packet_untrusted(packet).counter)
                body = packet[32:]
                if number == 1:
                    hello = parse_handshake_untrusted(body)
                    assert isinstance(hello, Hello1)
                    message2 = HostSide(verifier, room.meeting_key, room.organizer.exchange, attempt, hello, body).offer()
                    guest.receive_untrusted(clear_packet(room.session, liar, guest.me, 2, attempt, message2), room.now)
                else:
                    proofs += 1
    assert proofs == TRIES
    assert guest.stage is Stage.FAILED
    assert guest.failure is not None
    assert guest.failure.name == "join-timeout"


def test_a_member_that_was_removed_begins_no_new_join_by_a_relays_word() -> None:
    room = Room()
    ben = room.admitted(2, "Ben")
    room.organizer.chair.dismiss(ben.me, room.now)
    room.run()
    assert not ben.joined
    ben.office(ParticipantId(77), room.now)
    assert not ben.jobs


def test_the_chat_of_a_leaver_ends_the_same_for_who_resynced() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ana.chat("one")
    room.run()
    ben._resync()
    room.run()
    ana.chat("two")
    ana.leave(room.now)
    room.run()
    assert room.chat(ben) == room.chat(room.organizer) == [("Ana", "one"), ("Ana", "two")]
    assert ben.channels.counter(Stream(ana.me, EVERYONE, Channel.CHAT)) == 1


async def test_rubbish_takes_no_room_from_what_a_program_has_to_hear() -> None:
    room = Room()
    ben = room.admitted(2, "Ben")
    session = Session(ben, room.ticket(2), SSL.Context(SSL.TLS_METHOD))
    for _ in range(2 * MAX_EVENTS):
        session._tell(events.Dropped("bad-tag", "A packet was altered on its way.", EVERYONE))
    session._tell(events.SessionEnded())
    session._sink.close()
    told = [event async for event in session.events()]
    assert told[-1] == events.SessionEnded()
    assert len(told) - 1 + session.missed == 2 * MAX_EVENTS


def test_a_line_that_nobody_can_take_makes_nobody_ask_for_a_snapshot() -> None:
    """A modified client sends a line with a broken signature, then good ones: the organizer goes on, and so do the others, by themselves."""
    room = Room()
    room.organizer.wall_ms = lambda: int(1000 * room.now)
    ben, mallory = room.admitted(2, "Ben"), room.admitted(3, "Mallory")
    ana = room.admitted(4, "Ana")
    ana.chat("before")
    mallory.chat("good")
    room.run()
    signing, mallory.channels._key = mallory.channels._key, ana.signing
    mallory.chat("bad")
    mallory.channels._key = signing
    mallory.chat("good again")
    room.run()
    before = len(room.wire)
    room.run(30.0, step=0.5)
    assert [p for p in room.wire[before:] if p[2] == Channel.KEY] == []
    mallory.chat("at last")
    room.run()
    assert room.chat(ben)[-1] == room.chat(room.organizer)[-1] == ("Mallory", "at last")
    ana.leave(room.now)
    room.run()
    assert ana.me in ben.state.departed
