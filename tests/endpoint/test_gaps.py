"""What is lost for good is lost alone: every stream goes on behind it, at every member."""

from collections.abc import Callable

from crypto.schedule import group_prk, stream_keys
from crypto.seal import Sealer
from endpoint import events
from tests.endpoint.room import Room
from wire.ids import EVERYONE, Channel, Epoch, ParticipantId, Stream
from wire.packet import Flag, PacketHeader, pack_header, parse_packet_untrusted


def lose(room: Room, at: ParticipantId, which: Callable[[PacketHeader], bool]) -> None:
    """What this member would get of these is gone."""
    room.meddle = lambda to, packet: [] if to == at and which(parse_packet_untrusted(packet)) else [packet]


def texts(room: Room, member: ParticipantId) -> list[str]:
    return [text for _, text in room.chat(room.members[member])]


def test_a_line_that_the_organizer_lost_silences_nobody() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ana.chat("one")
    room.run(1.0)
    lose(room, room.organizer.me, lambda header: header.channel == Channel.CHAT)
    ana.chat("two")
    room.run(1.0)
    room.meddle = None
    ana.chat("three")
    ana.chat("four")
    room.run(1.0)
    assert texts(room, room.organizer.me) == ["one", "three", "four"]
    assert texts(room, ben.me) == ["one", "two", "three", "four"]
    assert room.organizer.dropped["gap"] == 1


def test_a_line_that_nobody_has_is_missing_everywhere_and_the_rest_goes_on() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ana.chat("one")
    room.run(6.0)
    room.meddle = lambda to, packet: [] if parse_packet_untrusted(packet).channel == Channel.CHAT else [packet]
    ana.chat("two")
    room.run(1.0)
    room.meddle = None
    ana.chat("three")
    room.run(20.0)
    ana.chat("four")
    room.run(1.0)
    assert texts(room, room.organizer.me) == ["one", "three", "four"]
    assert texts(room, ben.me)[-1] == "four"


def test_a_member_that_lost_a_log_entry_asks_and_goes_on() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.run(6.0)  # a heartbeat: from here on Ben's log is strictly in order
    lose(room, ben.me, lambda header: header.channel == Channel.LOG)
    room.organizer.chair.appoint(ana.me, room.now)
    room.run(0.5)
    room.meddle = None
    room.run(20.0)
    assert ben.state.presenter == ana.me
    assert [event.participant for event in room.events(ben, events.PresenterChanged)] == [ana.me]
    room.organizer.chair.appoint(EVERYONE, room.now)
    room.run(1.0)
    assert ben.state.presenter == 0
    assert ben.dropped["withheld"] == 1


def test_a_forged_gap_skips_nothing() -> None:
    """Any member can make what only the group's key proves; with a relay's help it arrives. The signature decides where a stream goes on."""
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ana.chat("one")
    room.run(1.0)
    stream = Stream(ana.me, EVERYONE, Channel.CHAT)
    epoch, _ = ben.keyring.sealer(EVERYONE, Channel.CHAT)
    sealer = Sealer(stream_keys(group_prk(room.session, epoch, ben.keyring.group_key), *stream), (1 << 40) - 1)
    header = pack_header(Flag.LAST | Flag.SIGNED, Channel.CHAT, room.session, ana.me, EVERYONE, Epoch(epoch), 1 << 40)
    room.organizer.receive_untrusted(sealer.seal(header, 1 << 40, bytes(100)), room.now)
    assert room.organizer.dropped["gap"] == 1
    assert room.organizer.channels.counter(stream) == 0
    ana.chat("two")
    room.run(1.0)
    assert texts(room, room.organizer.me) == ["one", "two"]
