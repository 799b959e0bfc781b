"""A member and a relay work together: she has the group key, it lets pass what she seals in another's name. Nothing that they say is believed,
and nothing that others say is lost for it once the relay is an honest one again.
"""

from itertools import count

from endpoint import events, log
from endpoint.guest import Guest
from tests.endpoint.room import Room
from tests.hostile.scene import Forger
from wire.ids import EVERYONE, Channel, Epoch, ParticipantId, Stream
from wire.packet import Flag, pack_header


def meeting() -> tuple[Room, Guest, Guest]:
    room = Room()
    ben, eve = room.admitted(2, "Ben"), room.admitted(3, "Eve")
    return room, ben, eve


def test_a_forged_first_part_takes_no_counter_of_the_log() -> None:
    room, ben, eve = meeting()
    forger = Forger(room, eve, room.organizer.me)
    stream = Stream(room.organizer.me, EVERYONE, Channel.LOG)
    due = ben.channels.counter(stream) + 1
    for counter in range(due, due + 50):
        ben.receive_untrusted(forger.packet(Channel.LOG, counter), room.now)
    assert ben.channels.counter(stream) == ben.have.last(stream) == due - 1
    room.organizer.chair.appoint(ben.me, room.now)
    room.run()
    assert ben.state.presenter == ben.me


def test_a_forged_part_of_a_screen_shuts_out_no_later_one() -> None:
    room, ben, eve = meeting()
    ana = room.admitted(4, "Ana")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    forger = Forger(room, eve, ana.me)
    for channel in (Channel.SCREEN, Channel.SNAPSHOT):
        ben.receive_untrusted(forger.packet(channel, 2**62), room.now)
    ana.screen_packets(bytes(40_000), restart=True, snapshot=True)
    ana.screen_packets(b"\0update", restart=True)
    room.run()
    assert [m.snapshot for m in room.events(ben, events.ScreenMessage)] == [True, False]


def test_a_forged_part_in_the_middle_of_an_update_costs_that_update_alone() -> None:
    room, ben, eve = meeting()
    ana = room.admitted(4, "Ana")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    forger = Forger(room, eve, ana.me)
    ana.screen_packets(b"whole", restart=True, snapshot=True)
    room.run()
    far = count(1000)
    room.meddle = lambda to, packet: [packet, forger.packet(Channel.SCREEN, next(far))] if to == ben.me and packet[2] == 5 else [packet]
    ana.screen_packets(b"\0" + bytes(40_000), restart=True)
    room.run()
    room.meddle = None
    ana.screen_packets(b"again", restart=True, snapshot=True)
    ana.screen_packets(b"\0next", restart=True)
    room.run()
    assert [m.content for m in room.events(ben, events.ScreenMessage)] == [b"whole", b"again", b"\0next"]


def test_what_the_organizer_signed_is_not_said_again_at_another_counter() -> None:
    """The old heartbeat's signature is right, and so is the forger's MAC."""
    room, ben, eve = meeting()
    heard: list[bytes] = []
    check = eve.check_log
    eve.check_log = lambda sender, content, counter: (heard.append(content), check(sender, content, counter))[1]  # type: ignore[method-assign,func-returns-value]
    room.run(6.0)
    assert heard[-1][0] == log.HEARTBEAT
    forger = Forger(room, eve, room.organizer.me)
    stream = Stream(room.organizer.me, EVERYONE, Channel.LOG)
    last = ben.channels.counter(stream)
    ben.receive_untrusted(forger.packet(Channel.LOG, last + 1, heard[-1], last=True), room.now)
    assert ben.dropped["entry-forged"] == 1
    assert ben.channels.counter(stream) == last
    late = room.guest(5, "Late")
    room.run()
    assert late.joined
    late.receive_untrusted(Forger(room, room.organizer, room.organizer.me).packet(Channel.LOG, 2**62, heard[-1], last=True), room.now)
    room.organizer.chair.appoint(late.me, room.now)
    room.run()
    assert late.state.presenter == ben.state.presenter == late.me


def test_no_entry_is_taken_between_a_key_change_and_its_key() -> None:
    """A dismissed member seals the next admission under the key that he still has, before the new key is here."""
    room, ben, eve = meeting()
    entries: list[bytes] = []
    check = ben.check_log
    ben.check_log = lambda sender, content, counter: (entries.append(content), check(sender, content, counter))[1]  # type: ignore[method-assign,func-returns-value]
    cleo = room.admitted(6, "Cleo")
    old = Forger(room, eve, room.organizer.me)
    withheld: list[bytes] = []

    def late_key(to: ParticipantId, packet: bytes) -> list[bytes]:
        if to == cleo.me and packet[2] == Channel.KEY:
            withheld.append(packet)
            return []
        return [packet]

    room.meddle = late_key
    room.organizer.chair.dismiss(eve.me, room.now)
    room.run()
    assert cleo.state.epoch == ben.keyring.current
    assert cleo.keyring.current != cleo.state.epoch
    room.organizer.chair.knock(False, room.now)
    dora = room.admitted(7, "Dora")
    counter = cleo.channels.counter(Stream(room.organizer.me, EVERYONE, Channel.LOG)) + 1
    for number, entry in enumerate(entries[-2:]):  # the door opens again; Dora comes in
        cleo.receive_untrusted(old.packet(Channel.LOG, counter + number, entry, last=True), room.now)
    assert cleo.state.epoch != dora.state.epoch
    room.meddle = None
    for packet in withheld:
        cleo.receive_untrusted(packet, room.now)
    room.run()
    assert cleo.keyring.current == ben.keyring.current
    assert cleo.keyring.group_key == ben.keyring.group_key


def test_only_the_organizer_collects_parts_of_the_log_and_members_none_of_its_key_channel() -> None:
    """Buffers: a member can leave no half of a large message with everybody."""
    room, ben, eve = meeting()
    ben.receive_untrusted(Forger(room, eve, eve.me).packet(Channel.LOG, 0), room.now)
    assert len(ben.held) == 1, "a part of the log waits, as a packet among packets: its writer may organize in a moment"
    assert not any(incoming.parts for incoming in ben.channels._incoming.values())
    _, sealer = eve.keyring.sealer(room.organizer.me, Channel.KEY)
    for _ in range(40):
        counter = sealer.last + 1
        header = pack_header(Flag(0), Channel.KEY, room.session, eve.me, room.organizer.me, Epoch(0), counter)
        room.organizer.receive_untrusted(sealer.seal(header, counter, bytes(16_000)), room.now)
    (collected,) = [i for s, i in room.organizer.channels._incoming.items() if s == Stream(eve.me, room.organizer.me, Channel.KEY)]
    assert sum(len(payload) for _, payload in collected.parts) <= 16_384


def test_G06_an_index_that_falls_counts_the_same_for_all() -> None:
    """A modified client names an older entry than before: who was there and who came later must judge alike."""
    room, ben, _ = meeting()
    ana = room.admitted(4, "Ana")
    older = ana.state.index
    room.organizer.chair.lock(True, room.now)
    room.organizer.chair.lock(False, room.now)
    room.run()
    ana.chat("one")
    room.run()
    late = room.admitted(5, "Late")
    room.organizer.chair.lock(True, room.now)
    room.run()
    ana.chat("two")
    newest, heads = ana.state.index, ana.state.heads
    ana.state.index = older + 1
    ana.chat("three")
    ana.state.index, ana.state.heads = newest, heads
    ana.chat("four")
    room.run()
    assert room.chat(late) == [("Ana", "two"), ("Ana", "three"), ("Ana", "four")]
    assert room.chat(ben) == [("Ana", "one"), *room.chat(late)] == room.chat(room.organizer)
