"""How the log is shown to newcomers and to who resyncs: sealed once for all of them, and nothing of it believed for its MAC alone."""

import random
import statistics

import pytest
import zstandard

from crypto.errors import CryptoError
from crypto.keyring import Keyring
from endpoint import log, roster
from endpoint.errors import EndpointError
from endpoint.guest import Stage
from endpoint.messages import LogSequel, LogSnapshot, Resync, Roster, encode, parse_roster_untrusted
from endpoint.roster import Reading
from endpoint.state import State
from tests.endpoint.room import Room
from wire.ids import EVERYONE, Channel, ParticipantId
from wire.packet import Flag, parse_packet_untrusted

SNAP = b"parley snap 1"


def place(room: Room) -> Roster:
    """Where a reader would be sent now."""
    found = room.organizer.chair.roster.now(room.now)
    room.run()
    return found


def shown(room: Room, where: Roster) -> list[tuple[int, bytes]]:
    """The messages that it would find there, each with its counter. (In these rooms each has one packet.)"""
    ring = Keyring(room.session, 99)
    ring.set_roster(where.epoch, where.key)
    found: list[tuple[int, bytes]] = []
    for packet in room.ring:
        header = parse_packet_untrusted(packet)
        if header.channel == Channel.ROSTER and where.first <= header.counter <= where.last:
            opener = ring.opener(header.sender, EVERYONE, Channel.ROSTER, header.epoch, room.now)
            opener.verify(packet)
            plain = opener.decrypt(packet, header.counter)
            found.append((header.counter, zstandard.decompress(plain) if header.flags & Flag.COMPRESSED else plain))
    return found


def read(room: Room, where: Roster, contents: list[bytes]) -> State | str:
    """What a reader makes of these messages in the place of what was shown: the state, or the name of the refusal."""
    key = room.meeting_key.public
    reading = Reading(room.session, key, room.organizer.me, key, where, room.now)
    state = None
    try:
        for counter, content in zip(range(where.last - len(contents) + 1, where.last + 1), contents, strict=True):
            state = reading.take_untrusted(content, counter)
    except EndpointError as error:
        assert reading.take_untrusted(contents[-1], where.last) is None, "nothing that follows is read"
        return error.name
    assert state is not None
    return state


def meeting() -> Room:
    """A snapshot with a sequel: an admit, a lock, and lines of chat in between."""
    room = Room()
    ana = room.admitted(2, "Ana")
    ana.chat("one")
    room.run()
    room.admitted(3, "Ben")
    room.organizer.chair.lock(True, room.now)
    return room


def test_a_newcomer_costs_its_organizer_what_is_new_and_no_whole_roster() -> None:
    room = Room()
    sizes: list[int] = []
    for participant in range(2, 42):
        before = sum(map(len, room.wire))
        room.admitted(participant, f"Guest {participant}")
        sizes.append(sum(map(len, room.wire)) - before)
    usual = statistics.median(sizes[:10])
    assert statistics.median(sizes[30:]) <= usual + 16
    assert sum(size > usual + 512 for size in sizes) <= 6, "but for a snapshot each time that the hall has doubled"


def test_B02_readers_end_where_the_organizer_is() -> None:
    room = meeting()
    where = place(room)
    messages = shown(room, where)
    assert [type(parse_roster_untrusted(content)) for _, content in messages][:2] == [LogSnapshot, LogSequel]
    state = read(room, where, [content for _, content in messages])
    assert isinstance(state, State)
    assert state.snapshot() == room.organizer.state.snapshot()
    assert room.members[ParticipantId(3)].state.snapshot() == state.snapshot()


def test_B02_no_message_of_a_roster_can_be_another_one() -> None:
    """Whoever has the roster's key, each member, can make its packets."""
    room = meeting()
    where = place(room)
    contents = [content for _, content in shown(room, where)]
    snapshot = parse_roster_untrusted(contents[0])
    assert isinstance(snapshot, LogSnapshot)
    sequels = [parse_roster_untrusted(content) for content in contents[1:]]
    entries = [wire for sequel in sequels if isinstance(sequel, LogSequel) for wire in sequel.entries]
    session = room.session.to_bytes(8, "big")

    def signed(state: bytes, start: bytes = snapshot.start) -> bytes:
        return encode(LogSnapshot(state, start, room.meeting_key.sign(SNAP, session, state, start)))

    last = len(contents) - 1
    assert read(room, where, [encode(LogSnapshot(snapshot.state, snapshot.start, bytes(64))), *contents[1:]]) == "entry-forged"
    assert read(room, where, [encode(LogSnapshot(snapshot.state, encode([(2, 2, 9)]), snapshot.signature)), *contents[1:]]) == "entry-forged"
    for body in (b"", b"\xc1", encode([1, 2, 3]), b"\x91" * 3000):
        assert read(room, where, [signed(body), *contents[1:]]) == "entry-malformed"
    assert read(room, where, [signed(snapshot.state, b"\xc1"), *contents[1:]]) == "content-malformed"
    assert read(room, where, [signed(snapshot.state), *contents[1:last], encode(LogSequel([], [(2, 2, 2**62)]))]) == "entry-forged"
    assert read(room, where, contents[1:]) == "content-malformed"
    assert read(room, where, [contents[0], contents[0]]) == "content-malformed"
    assert read(room, where, [contents[0], *contents[2:]]) in ("log-broken", "entry-forged")
    assert read(room, where, [*contents[:last], encode(LogSequel(entries, []))]) == "log-broken"
    assert read(room, where, [contents[0], b"\xc1"]) == "content-malformed"
    forged = entries[0][:1] + bytes(64) + entries[0][65:]
    assert read(room, where, [contents[0], encode(LogSequel([forged], []))]) == "entry-forged"
    gone = log.sign_entry(room.meeting_key, 2, room.organizer.state.heads[1], 9, log.Leave([2], []))
    assert read(room, where, [contents[0], encode(LogSequel([gone.wire], []))]) == "entry-malformed"


def test_the_roster_of_another_session_is_none_here() -> None:
    room, elsewhere = meeting(), Room()
    other = elsewhere.organizer.chair.snapshot([])
    where = place(room)
    assert read(room, where, [encode(other)]) == "entry-forged"


@pytest.mark.parametrize("deed", ["leave", "dismiss"])
def test_G07_who_is_gone_opens_no_roster_that_comes_later(deed: str) -> None:
    room = Room()
    room.admitted(2, "Ana")
    ben = room.admitted(3, "Ben")
    known = place(room)
    if deed == "leave":
        ben.leave(room.now)
    else:
        room.organizer.chair.dismiss(ben.me, room.now)
    room.run(1.0)
    room.organizer.chair.knock(False, room.now)
    room.run()
    late = room.admitted(4, "Late")
    where = place(room)
    assert where.key != known.key
    assert where.first > known.last
    ring = Keyring(room.session, 99)
    ring.set_roster(where.epoch, known.key)
    for packet in room.ring:
        header = parse_packet_untrusted(packet)
        if header.channel == Channel.ROSTER and header.counter >= where.first:
            with pytest.raises(CryptoError):
                ring.opener(header.sender, EVERYONE, Channel.ROSTER, header.epoch, room.now).verify(packet)
    assert late.state.snapshot() == room.organizer.state.snapshot()


@pytest.mark.parametrize(("what", "again"), [("a minute is over", True), ("it has outgrown its snapshot", True), ("nothing", False)])
def test_a_roster_begins_anew_when_it_is_due(what: str, again: bool) -> None:
    room = Room()
    room.admitted(2, "Ana")
    before = place(room)
    if what == "a minute is over":
        room.run(roster.RENEW_AFTER)
    elif what == "it has outgrown its snapshot":
        for number in range(20):
            room.organizer.chair.rename(ParticipantId(2), f"Ana {number}", room.now)
        assert not room.organizer.chair.roster._unsaid, "nor is anything kept for nobody"
    room.admitted(3, "Ben")
    after = place(room)
    assert (after.first > before.last) == again
    assert room.members[ParticipantId(3)].state.snapshot() == room.organizer.state.snapshot()


def test_G22_who_finds_no_roster_asks_for_another() -> None:
    """The relay has lost it: it was started anew."""
    room = Room()
    room.admitted(2, "Ana")

    def lose(to: ParticipantId, packet: bytes) -> list[bytes]:
        return [] if packet[2] == Channel.ROSTER else [packet]

    room.meddle = lose
    ben = room.guest(3, "Ben")
    room.run(2.0)
    assert not ben.joined
    room.meddle = None
    room.run(roster.ASK_AGAIN + 1.0)
    assert ben.joined
    assert ben.state.snapshot() == room.organizer.state.snapshot()


def test_G22_what_every_relay_has_lost_is_not_named_again() -> None:
    """One packet of a roster is gone for good, and with it what follows: who asks again is shown another one."""
    room = Room()
    room.admitted(2, "Ana")
    lost: list[bytes] = []

    def lose(to: ParticipantId, packet: bytes) -> list[bytes]:
        if packet[2] == Channel.ROSTER and packet[24:32] in (lost or [packet[24:32]]):
            lost.append(packet[24:32])
            return []
        return [packet]

    room.meddle = lose
    ben = room.guest(3, "Ben")
    room.run(roster.ASK_AGAIN + 1.0)
    assert lost
    assert ben.joined


def test_G22_a_long_roster_on_a_slow_line_is_not_begun_again() -> None:
    room, chance = Room(), random.Random(7)
    hall = [log.Member(i, 2, f"{i}", chance.randbytes(32), chance.randbytes(32)) for i in range(100, 1100)]
    room.organizer.chair.write(log.Admit(hall, room.organizer.state.epoch + 1), room.now)
    line: list[bytes] = []
    room.meddle = lambda to, packet: line.append(packet) or [] if packet[2] == Channel.ROSTER else [packet]  # type: ignore[func-returns-value]
    ben = room.guest(3, "Ben")
    room.run()
    assert len(line) >= 4
    for packet in list(line):
        room.run(roster.ASK_AGAIN - 1.0)
        assert not ben.joined
        ben.receive_untrusted(packet, room.now)
    assert ben.joined
    assert not ben.dropped["withheld"], "it has not asked again"


def test_G22_who_loses_its_link_goes_on_reading_where_it_was() -> None:
    room = Room()
    room.admitted(2, "Ana")
    cut: list[bytes] = []

    def stop(to: ParticipantId, packet: bytes) -> list[bytes]:
        if packet[2] == Channel.ROSTER and cut:
            return []
        if packet[2] == Channel.ROSTER:
            cut.append(packet)
        return [packet]

    room.meddle = stop
    ben = room.guest(3, "Ben")
    room.run()
    assert cut
    assert not ben.joined
    room.unlink(ben.me)
    room.meddle = None
    room.link(ben.me)
    room.run()
    assert ben.joined


def test_B02_no_roster_takes_a_member_back_or_elsewhere() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    old = place(room)
    contents = shown(room, old)
    room.organizer.chair.lock(True, room.now)
    room.run()
    key = room.meeting_key.public
    reading = Reading(room.session, key, room.organizer.me, key, old, room.now)
    state = [reading.take_untrusted(content, counter) for counter, content in contents][-1]
    assert state is not None
    ana._adopt(state, reading, room.now)
    assert ana.dropped["snapshot-old"] == 1
    assert ana.state.locked
    state.heads[-1] = bytes(32)
    with pytest.raises(EndpointError, match="fork"):
        ana._adopt(state, reading, room.now)
    state = State.from_snapshot(room.session, key, room.organizer.state.snapshot())
    del state.members[ana.me]
    with pytest.raises(EndpointError, match="entry-malformed"):
        ana._adopt(state, reading, room.now)


def test_a_resync_reads_the_same_roster_as_newcomers_do() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    before = place(room)
    for member in (ana, ben):
        member._send(Channel.KEY, encode(Resync()), room.organizer.me)
    room.run()
    after = place(room)
    assert (after.first, after.last) == (before.first, before.last)
    assert ana.state.snapshot() == ben.state.snapshot() == room.organizer.state.snapshot()
    assert not ana.dropped


def test_who_gets_the_chair_waits_for_nobodys_roster() -> None:
    """No relay brought it; to ask oneself for another one would be the end of the program."""
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.organizer.chair.hand_over(ana.me, room.now)
    room.run()
    room.meddle = lambda to, packet: [] if packet[2] == Channel.ROSTER else [packet]
    ana._send(Channel.KEY, encode(Resync()), room.organizer.me)
    room.run()
    ana.heir.accept(room.now)
    room.run(2 * roster.ASK_AGAIN)
    assert ana.organizes
    assert ben.state.head == ana.state.head
    assert ben.keyring.group_key == ana.keyring.group_key


@pytest.mark.parametrize("comes", [True, False])
def test_G08_who_was_admitted_just_before_the_chair_passes_comes_in(comes: bool) -> None:
    """Its roster is on the way when the relay names another organizer, who would admit nobody twice."""
    room = Room()
    ana = room.admitted(2, "Ana")
    room.organizer.chair.hand_over(ana.me, room.now)
    room.run()
    late: list[bytes] = []
    room.meddle = lambda to, packet: late.append(packet) or [] if packet[2] == Channel.ROSTER else [packet]  # type: ignore[func-returns-value]
    ben = room.guest(3, "Ben")
    room.run()
    ana.heir.accept(room.now)
    room.run(1.0)
    assert room.office == ana.me
    room.meddle = None
    for packet in late if comes else []:
        ben.receive_untrusted(packet, room.now)
    room.run(roster.ASK_AGAIN + 1.0)
    assert ben.joined == comes
    assert ben.stage is (Stage.IN if comes else Stage.ASKING), "without it, it asks the next organizer"
    if comes:
        ben.chat("in")
        room.run()
        assert ben.state.organizer == ana.me
        assert room.chat(ana) == [("Ben", "in")]
