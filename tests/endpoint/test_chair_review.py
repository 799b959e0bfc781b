"""What the chair owes others when something happens at a bad moment: a proof under way, a full disk, a member that asks without end."""

import os
from pathlib import Path

import pytest

from crypto.signing import SigningKey
from endpoint import events, log
from endpoint.errors import ForgedEntry, NotAllowed, NotInOffice
from endpoint.job import Job
from endpoint.journal import Journal, JournalError
from endpoint.messages import Request, Verb
from tests.endpoint.test_chair import agree, hall, handed, journalled, restarting
from wire.ids import Channel, ParticipantId
from wire.packet import Flag, parse_packet_untrusted


def test_a_proof_that_is_checked_while_the_chair_passes_admits_nobody_at_the_former_organizer() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    olga, held = room.organizer, list[Job]()

    def slow(to: ParticipantId, packet: bytes) -> list[bytes]:
        """Its thread is still busy with message 3."""
        header = parse_packet_untrusted(packet)
        if to == olga.me and header.flags & Flag.CLEAR and header.counter % 4 == 3:
            olga.receive_untrusted(packet, room.now)
            held.extend(olga.jobs)
            olga.jobs.clear()
            return []
        return [packet]

    room.meddle = slow
    cleo = room.guest(4, "Cleo")
    room.run()
    assert len(held) == 1
    room.meddle = None
    room.unlink(cleo.me)
    handed(room, ana)
    held[0].done(held[0].work(), room.now)
    room.run(1.0)
    agree(olga, ana, ben)
    room.link(cleo.me)
    room.run(5.0)
    assert cleo.joined
    assert cleo.state.organizer == ana.me
    agree(olga, ana, ben, cleo)


def test_a_chair_that_has_passed_writes_nothing() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    former = room.organizer.chair
    handed(room, ana)
    index = room.organizer.state.index
    with pytest.raises(NotAllowed):
        former.lock(True, room.now)
    assert room.organizer.state.index == index
    agree(room.organizer, ana, ben)


def test_entries_that_died_with_the_organizer_leave_nobody_behind(tmp_path: Path) -> None:
    """Written down and sent to no relay: who comes back goes on after them, and the others begin again there."""
    room, olga, (ana, ben, cleo) = restarting(tmp_path / "journal")
    olga.chair.name_successors([cleo.me], room.now)
    ben.chat("before")
    room.run(6.0)
    room.unlink(olga.me)
    olga.chair.appoint(ana.me, room.now)
    olga.chair.allow_chat(ben.me, False, room.now)
    assert olga.journal is not None
    olga.journal.close()
    room.kill(olga.me)
    back = journalled(room, tmp_path / "journal", 11)
    assert ana.state.index < back.state.index, "nobody can have what nobody sent"
    room.run(20.0, step=1.0)
    agree(back, ana, ben, cleo)
    assert {m.state.snapshot() == back.state.snapshot() for m in (ana, ben, cleo)} == {True}
    assert ana.state.presenter == ana.me
    assert [e.participant for e in room.events(ana, events.OrganizerChanged)] == [back.me]
    with pytest.raises(NotAllowed):
        ben.chat("I may not")
    ana.chat("after")
    back.chair.allow_chat(ben.me, True, room.now)
    room.run(1.0)
    ben.chat("again")
    room.run(6.0)
    assert room.chat(cleo) == [("Ben", "before"), ("Ana", "after"), ("Ben", "again")]
    room.kill(back.me)
    room.run(65.0, step=1.0)
    cleo.heir.take_over(room.now)
    room.run(5.0, step=1.0)
    agree(ana, ben, cleo)
    assert ana.state.organizer == cleo.me


def test_nobody_but_the_organizers_key_names_who_came_back(tmp_path: Path) -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    state = ben.state
    for key in (SigningKey.generate(), ana.signing):
        signature = bytes(64)
        fields = log.HandOver(77, state.organizer_key, ana.exchange.public, signature, state.epoch + 1)
        entry = log.sign_entry(key, state.index + 5, bytes(32), 0, fields)
        with pytest.raises((ForgedEntry, NotInOffice)):
            ben.heir.judge_untrusted(ParticipantId(77), entry.wire, room.now)
        fields = log.HandOver(77, key.public, ana.exchange.public, signature, state.epoch + 1)
        entry = log.sign_entry(key, state.index + 5, bytes(32), 0, fields)
        with pytest.raises((ForgedEntry, NotInOffice)):
            ben.heir.judge_untrusted(ParticipantId(77), entry.wire, room.now)
    room.run(30.0, step=1.0)
    agree(room.organizer, ana, ben)
    assert not ben.dropped["withheld"]


def test_a_line_that_crosses_the_loss_of_the_right_is_dropped_and_nobody_is_blamed() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    olga = room.organizer
    held: list[tuple[ParticipantId, bytes]] = []

    def slow(to: ParticipantId, packet: bytes) -> list[bytes]:
        """Ana hears nothing of the log for a while."""
        late = to == ana.me and parse_packet_untrusted(packet).channel == Channel.LOG
        held.extend([(to, packet)] if late else [])
        return [] if late else [packet]

    room.meddle = slow
    olga.chair.allow_chat(ana.me, False, room.now)
    ana.chat("while it was taken")
    room.run()
    for member in (olga, ben):
        assert room.chat(member) == []
        assert not member.refused
        assert not room.events(member, events.Dropped)
        assert member.dropped["no-right-late"] == 1
    for number in range(70):  # a modified client, that never looks at the log again
        ana.chat(f"line {number}")
    room.run()
    assert 1 <= olga.refused[ana.me] <= 10


def full_disk(journal: Journal) -> None:
    """Every write fails from now on, with the kernel's own error."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._descriptor)
    os.close(full)


def test_a_full_disk_ends_the_way_back_and_not_the_session(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    room, olga, (ana, ben, _) = restarting(path)
    assert olga.journal is not None
    full_disk(olga.journal)
    olga.chair.appoint(ana.me, room.now)
    ana.chat("still here")
    room.run(6.0)
    agree(olga, ana, ben)
    assert ben.state.presenter == ana.me
    assert [e.name for e in room.events(olga, events.Dropped)] == [JournalError.name], "told once"
    assert not path.exists(), "nothing is taken up from a file that lacks an entry"
    olga.chair.lock(True, room.now)
    room.run()
    agree(olga, ana, ben)


def test_a_journal_that_cannot_be_removed_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    room, olga, _ = restarting(path)
    journal = olga.journal
    assert journal is not None
    os.link(path, tmp_path / "another name")
    journal.forget()
    assert (tmp_path / "another name").read_bytes() == b""
    assert Journal.read(path, room.meeting_key.seed) is None


def test_a_member_cannot_fill_the_log_with_its_requests() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    before = room.organizer.state.index
    for number in range(200):
        ana.request(Request(Verb.RENAME, text=f"Ana {number}"), room.now)
        ben.request(Request(Verb.RAISE_HAND), room.now)
    room.run()
    assert room.organizer.state.index - before == 20
    assert len(room.events(room.organizer, events.Wish)) == 20
    assert room.organizer.dropped["request-hasty"] == 360
    room.run(2.0)
    ana.request(Request(Verb.RENAME, text="Ana"), room.now)
    ben.leave(room.now)
    room.run()
    assert room.organizer.name(ana.me) == "Ana"
    assert ben.me not in room.organizer.state.members, "a goodbye is always heard"
