"""A relay that sends anything at all to members of a running session, and the two promises that a whole session must keep."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from crypto.schedule import StreamKeys
from crypto.seal import Sealer
from endpoint import events
from endpoint.errors import IllegalEntry
from endpoint.guest import Guest
from endpoint.held import MAX_HELD
from endpoint.journal import Journal
from endpoint.member import Member
from endpoint.organizer import Organizer
from tests.endpoint.room import Room
from wire.ids import EVERYONE, Channel, ParticipantId, Role
from wire.packet import HEADER_SIZE, Flag, parse_packet_untrusted

MUTATIONS = 34_000
"""For each of three members: 10⁵ in all."""
ACCEPTED = (
    events.ChatReceived,
    events.ChatWithdrawn,
    events.MemberJoined,
    events.MemberLeft,
    events.PresenterChanged,
    events.ChatRightChanged,
    events.PresenceChanged,
    events.ScreenMessage,
    events.Joined,
    events.Removed,
    events.SessionEnded,
    events.Wish,
)


@dataclass
class Meeting:
    """A meeting with a past: several epochs, chat, screen, a reconnect, somebody who left and somebody who was refused."""

    room: Room
    ana: Guest
    ben: Guest


def meeting() -> Meeting:
    room = Room()
    ana, ben, cleo = room.admitted(2, "Ana"), room.admitted(3, "Ben"), room.admitted(4, "Cleo")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    ana.screen_packets(bytes(20_000), restart=True, snapshot=True)
    ana.screen_packets(b"\0" + bytes(40_000), restart=True)
    for number in range(6):
        (ana, ben, cleo, room.organizer)[number % 4].chat(f"line {number} " + "x" * 300 * number)
        room.run()
    cleo.leave(room.now)
    room.run(6.0)
    room.guest(9, "Eve", password="guess")
    room.run()
    room.unlink(ben.me)
    ben.chat("sealed later")
    ana.screen_packets(b"\0small", restart=False)
    room.run(1.0)
    room.link(ben.me)
    ana.screen_packets(b"for Ben, who was away", restart=True, snapshot=True)
    room.admitted(5, "Dora").chat("hello")
    room.run(6.0)
    assert len({parse_packet_untrusted(p).epoch for p in room.wire}) >= 5
    return Meeting(room, ana, ben)


def mutants(recorded: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Recorded packets, altered in every way that comes to mind; some not at all."""
    chance = random.Random(seed)
    headers = [(4, 8), (12, 4), (16, 4), (20, 4), (24, 8), (0, 1), (1, 1), (2, 1), (3, 1)]
    for _ in range(count):
        packet, other = bytearray(chance.choice(recorded)), chance.choice(recorded)
        match chance.randrange(10):
            case 0:
                pass  # again, as it was
            case 1 | 2:
                packet[chance.randrange(len(packet))] ^= 1 << chance.randrange(8)
            case 3:
                del packet[chance.randrange(len(packet)) :]
            case 4:
                packet += chance.randbytes(chance.randrange(1, 40))
            case 5:  # one header, another body
                packet[:HEADER_SIZE] = other[:HEADER_SIZE]
            case 6:  # one field of another header
                at, size = chance.choice(headers)
                packet[at : at + size] = other[at : at + size]
            case 7:  # one field, anything
                at, size = chance.choice(headers)
                packet[at : at + size] = chance.choice([bytes(size), b"\xff" * size, chance.randbytes(size)])
            case 8:  # a small step in a number
                at, size = chance.choice(headers[:5])
                value = int.from_bytes(packet[at : at + size], "big") + chance.choice([-2, -1, 1, 2])
                packet[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")
            case 9:
                packet[:] = chance.randbytes(chance.randrange(200))
        yield bytes(packet)


def state_of(member: Member) -> tuple[object, ...]:
    """All that a packet could change, but for what is counted and what waits."""
    state = member.state
    streams = {stream: incoming.replay.last for stream, incoming in member.channels._incoming.items() if incoming.replay.last >= 0}
    return state.index, state.head, member.keyring.current, dict(member.channels._chain), streams, sorted(member.have.positions()), member.away


@pytest.mark.parametrize("target", ["a member", "the presenter", "the organizer"])
def test_G26_a_hundred_thousand_altered_packets_change_nothing_and_the_session_goes_on(target: str) -> None:
    held = meeting()
    room = held.room
    member: Member = {"a member": held.ben, "the presenter": held.ana, "the organizer": room.organizer}[target]
    before = state_of(member)
    admitted = set(room.organizer.state.members)
    member.events.clear()
    for packet in mutants(list(room.wire), MUTATIONS, len(target)):
        member.receive_untrusted(packet, room.now)
        if isinstance(member, Guest):
            assert not member.jobs
    assert state_of(member) == before
    assert [event for event in member.events if isinstance(event, ACCEPTED)] == []
    assert sum(member.dropped.values()) > MUTATIONS // 2
    assert len(member.held) <= MAX_HELD
    member.events.clear()
    # at once, while thousands of packets that nobody sent still wait for keys that will never come
    for number, speaker in enumerate((held.ana, held.ben, room.organizer)):
        speaker.chat(f"still here {number}")
    held.ana.screen_packets(b"\0next", restart=False)
    room.run()
    room.organizer.chair.allow_chat(held.ben.me, False, room.now)
    room.run()
    for each in (held.ana, held.ben, room.organizer):
        assert sorted(text for _, text in room.chat(each))[-3:] == [f"still here {number}" for number in range(3)]
        assert not each.state.may_send(held.ben.me, Channel.CHAT, each.state.index, 2**40)
    assert room.events(held.ben, events.ScreenMessage)[-1].content == b"\0next"
    assert set(room.organizer.state.members) == admitted
    room.run(35.0, step=1.0)
    assert len(member.held) == 0, "and they are gone after their time"
    room.linked.add(ParticipantId(6))
    assert room.admitted(6, "Fay").joined


def test_G26_a_header_that_nobody_authenticated_changes_no_have_vector() -> None:
    """What a member says it has decides what it is sent after a reconnect: a relay must not be able to write it."""
    held = meeting()
    room, ben = held.room, held.ben
    before = sorted(ben.have.positions())
    for packet in list(room.wire):
        for flags in range(16):
            forged = bytearray(packet)
            forged[1] = flags
            forged[24:32] = (2**62).to_bytes(8, "big")
            ben.receive_untrusted(bytes(forged), room.now)
    assert sorted(ben.have.positions()) == before


def test_G26_one_forged_packet_holds_up_nobody() -> None:
    """In Ana's name, under an epoch that is not here yet: it waits, and Ana's own lines do not wait behind it."""
    held = meeting()
    room, ana, ben = held.room, held.ana, held.ben
    line = bytearray(next(p for p in room.wire if p[2] == Channel.CHAT and parse_packet_untrusted(p).sender == ana.me))
    line[20:24] = (99).to_bytes(4, "big")
    ben.receive_untrusted(bytes(line), room.now)
    assert len(ben.held) == 1
    ana.chat("not held up")
    room.run()
    assert room.chat(ben)[-1] == ("Ana", "not held up")
    room.run(31.0, step=1.0)
    assert ben.dropped["held-too-long"] == 1


def pairs_used(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[bytes, bytes, int]]:
    """Every key and counter that is sealed under from now on."""
    used: Counter[tuple[bytes, bytes, int]] = Counter()
    begin, seal = Sealer.__init__, Sealer.seal
    keys_of: dict[int, StreamKeys] = {}
    alive: list[Sealer] = []  # so that no id comes back

    def beginning(self: Sealer, keys: StreamKeys, last: int = -1) -> None:
        begin(self, keys, last)
        keys_of[id(self)] = keys
        alive.append(self)

    def sealing(self: Sealer, header: bytes, counter: int, plaintext: bytes) -> bytes:
        keys = keys_of[id(self)]
        packet = seal(self, header, counter, plaintext)
        used[keys.aes, keys.salt, counter] += 1
        return packet

    monkeypatch.setattr(Sealer, "__init__", beginning)
    monkeypatch.setattr(Sealer, "seal", sealing)
    return used


def test_G27_a_journal_that_is_taken_up_twice_shares_no_key_and_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it on another machine, or an old one brought back: each process has a participant ID of its own, and so other keys. Where the
    manager gives it one that was used, nothing is sealed."""
    room = Room()
    olga, ana = room.organizer, room.admitted(2, "Ana")
    path, seed = tmp_path / "journal", room.meeting_key.seed
    olga.begin_journal = lambda saved: Journal.begin(path, seed, saved)
    olga.heir._write_down(olga.chair, olga.chair.verifier.to_bytes(), EVERYONE)
    shutil.copy(path, tmp_path / "old")
    olga.chair.lock(True, room.now)
    room.run()
    assert olga.journal is not None
    olga.journal.close()
    shutil.copy(path, tmp_path / "copy")
    used = pairs_used(monkeypatch)
    for number, name in enumerate(("journal", "copy", "old"), 11):
        saved = Journal.read(tmp_path / name, seed, room.session)
        assert saved is not None
        again = Organizer(room.ticket(number, Role.ORGANIZER), saved, room.now, journal=Journal.begin(tmp_path / name, seed, saved))
        again.linked(again.me, -1, -1, room.now)
        again.chat("here I am again")
        again.tick(room.now + 6.0)
        for taken in (1, 2):
            sealed = used.total()
            with pytest.raises(IllegalEntry):
                Organizer(room.ticket(taken, Role.ORGANIZER), saved, room.now)
            assert used.total() == sealed
    assert len(used) > 12
    assert set(used.values()) == {1}
    assert ana.state.organizer == olga.me


def test_G27_no_key_and_counter_ever_meet_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every packet that anybody seals in a whole session: joins, leaves, a dismissal, an hourly change, reconnects, the end."""
    used = pairs_used(monkeypatch)
    held = meeting()
    room = held.room
    room.organizer.chair.dismiss(ParticipantId(5), room.now)
    room.run(1.0)
    room.run(3700.0, step=60.0)
    for number in range(5):
        room.unlink(held.ben.me)
        held.ben.chat(f"{number}")
        room.run(1.0)
        room.link(held.ben.me)
        room.run(1.0)
    room.organizer.chair.knock(False, room.now)
    for participant in (20, 21, 22):
        room.admitted(participant, "again").chat("hello")
        room.run(1.0)
    room.organizer.chair.end(room.now)
    room.run()
    sealed = [parse_packet_untrusted(p) for p in room.wire if not p[1] & Flag.CLEAR]
    assert len(sealed) > 60
    assert len(used) >= len(sealed)
    assert set(used.values()) == {1}
    places = Counter((h.sender, h.recipient, h.channel, h.epoch, h.counter) for h in sealed)
    assert set(places.values()) == {1}
    streams: dict[tuple[int, int, int], list[int]] = {}
    for h in sealed:
        streams.setdefault(h.stream, []).append(h.counter)
    for counters in streams.values():
        assert counters == list(range(len(counters))), "contiguous across epochs, so that a gap is always seen"
    assert len({h.epoch for h in sealed if h.recipient == EVERYONE}) >= 8


def test_B01_G22_nothing_that_a_server_sees_holds_a_secret_or_a_word() -> None:
    room = Room("canyon-purse-alien-sound")
    ana, ben = room.admitted(2, "Anastasia"), room.admitted(3, "Benjamin")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    picture = random.Random(7).randbytes(9000)
    ana.chat("the merger is on Thursday " * 40)
    ben.chat("understood")
    ana.screen_packets(picture, restart=True, snapshot=True)
    ana.screen_packets(b"\0" + picture, restart=True)
    room.run(1.0)
    secrets = [
        room.password.encode(),
        b"Anastasia",
        b"Benjamin",
        b"Olga",
        b"the merger",
        b"understood",
        picture[:16],
        picture[-16:],
        room.secret,
    ]
    secrets += [ana.keyring.group_key, room.meeting_key.seed, ana.signing.seed, ana.exchange.to_bytes()]
    seen = room.wire
    for packet in seen:
        for at in range(len(packet) - 4):
            if packet[at : at + 4] == zstandard.FRAME_HEADER:
                raise AssertionError("a zstd frame in the clear")
        for secret in secrets:
            assert secret not in packet
    assert len(seen) > 10
