"""What the chair owes others when something happens at a bad moment: a proof under way, a full disk, a member that asks without end."""

import os
from pathlib import Path

import pytest

from endpoint import events
from endpoint.errors import NotAllowed
from endpoint.job import Job
from endpoint.journal import Journal, JournalError
from endpoint.messages import Request, Verb
from tests.endpoint.test_chair import agree, hall, handed, restarting
from wire.ids import ParticipantId
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


def full_disk(journal: Journal) -> None:
    """Every write fails from now on, with the kernel's own error."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._descriptor)
    os.close(full)


def test_a_full_disk_ends_the_way_back_and_not_the_session(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    room, olga, (ana, ben, _) = restarting(path)
    assert olga.chair.journal is not None
    full_disk(olga.chair.journal)
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
    journal = olga.chair.journal
    assert journal is not None
    os.link(path, tmp_path / "another name")
    journal.forget()
    assert (tmp_path / "another name").read_bytes() == b""
    assert Journal.begin(path, room.meeting_key.seed, room.session)[1] is None


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
