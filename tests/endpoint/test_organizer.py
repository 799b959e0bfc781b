"""The organizer at its door and with its keys: who comes in, when, at what price; how the key changes while everything else goes on."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto import srp
from crypto.schedule import group_key_digest
from endpoint import events, log, reception
from endpoint.errors import IllegalEntry, NotAllowed, WrongSecret
from endpoint.guest import Guest, Stage
from endpoint.handshake import TRIES, clear_packet, place
from endpoint.lobby import BATCH_EVERY
from endpoint.messages import Hello1, Proof3, Request, Resync, Roster, Verb, encode
from endpoint.reception import ANSWERED_WITHIN, HANDSHAKE_WITHIN, MAX_COMPUTING
from endpoint.rekey import MAX_IN_FLIGHT
from tests.endpoint.room import Room
from wire.control import Position
from wire.ids import EVERYONE, Channel, ParticipantId, Stream
from wire.packet import HEADER_SIZE, Flag, parse_packet_untrusted


def entries(room: "Written", kind: type) -> list[object]:
    """What the organizer has written, of one kind."""
    return [fields for fields in room.written if isinstance(fields, kind)]


class Written(Room):
    """A room that keeps what the organizer writes. `acknowledging`: whether its relay says what it has taken."""

    def __init__(self) -> None:
        self.written: list[log.Fields] = []
        self.acknowledging = True
        super().__init__()
        apply, taken = self.organizer.apply, self.organizer.taken

        def kept(signed: log.SignedEntry, now: float) -> None:
            self.written.append(signed.entry.fields)
            apply(signed, now)

        def said(positions: list[Position], now: float) -> None:
            if self.acknowledging:
                taken(positions, now)

        self.organizer.apply = kept  # type: ignore[method-assign]
        self.organizer.taken = said  # type: ignore[method-assign]

    def acknowledge(self) -> None:
        self.acknowledging = True
        self.organizer.taken(self.has.positions(), self.now)
        self.run()


# tries


def test_G22_three_wrong_proofs_and_the_ticket_is_worth_nothing() -> None:
    room = Room()
    for _ in range(TRIES):
        guest = room.guest(2, "Eve", password="guess")
        room.run()
        assert guest.failure is not None
        assert guest.failure.name == "wrong-secret"
    judged = room.organizer.chair.lobby.reception.judged
    right = room.guest(2, "Eve")
    room.run()
    assert right.failure is not None
    assert right.failure.name == "wrong-secret"
    assert room.organizer.chair.lobby.reception.judged == judged, "and costs nothing any more"
    assert room.admitted(3, "Ana").joined


def test_two_wrong_proofs_and_a_right_one() -> None:
    room = Room()
    for _ in range(TRIES - 1):
        room.guest(2, "Ana", password="typo")
        room.run()
    assert room.admitted(2, "Ana").joined


def test_a_refusal_that_is_lost_is_said_again() -> None:
    room = Room()
    lost: list[bytes] = []

    def lose_one(to: ParticipantId, packet: bytes) -> list[bytes]:
        if packet[1] & Flag.CLEAR and parse_packet_untrusted(packet).counter % 4 == 0 and not lost:
            lost.append(packet)
            return []
        return [packet]

    room.meddle = lose_one
    eve = room.guest(2, "Eve", password="guess")
    room.run(3.0)
    assert lost
    assert eve.failure is not None
    assert eve.failure.name == "wrong-secret"
    assert room.organizer.chair.lobby.reception.judged == 1


# messages


def clear(room: Room, sender: ParticipantId) -> list[bytes]:
    return [p for p in room.wire if p[1] & Flag.CLEAR and parse_packet_untrusted(p).sender == sender]


def test_a_repeated_message_gets_the_same_answer_byte_for_byte() -> None:
    room = Room()
    ana = room.guest(2, "Ana")
    room.meddle = lambda to, packet: [] if to == ana.me else [packet]
    room.run(2.5)
    asked, offered = clear(room, ana.me), clear(room, room.organizer.me)
    assert len(asked) == len(offered) == 2
    assert len(set(asked)) == len(set(offered)) == 1
    room.meddle = lambda to, packet: [] if to == ana.me and parse_packet_untrusted(packet).counter != 2 else [packet]
    room.run(4.5)
    answers = [p for p in clear(room, room.organizer.me) if parse_packet_untrusted(p).counter == 4]
    assert len(answers) >= 2
    assert len(set(answers)) == 1
    assert room.organizer.chair.lobby.reception.judged == 1
    assert len(room.organizer.state.members) == 2
    room.meddle = None
    room.link(ana.me)
    room.run(3.0)
    assert ana.joined


def test_another_message_1_or_3_of_the_same_try_is_not_answered() -> None:
    room = Room()
    ana = room.guest(2, "Ana")
    room.meddle = lambda to, packet: [] if to == ana.me else [packet]
    room.run()
    sent = len(clear(room, room.organizer.me))
    (message1,) = clear(room, ana.me)
    altered = message1[:-1] + bytes((message1[-1] ^ 1,))
    room.organizer.receive_untrusted(altered, room.now)
    room.organizer.receive_untrusted(clear_packet(room.session, ana.me, room.organizer.me, 3, 5, b"?"), room.now)
    room.run()
    assert len(clear(room, room.organizer.me)) == sent


def hello(room: Room, participant: int, attempt: int = 0) -> bytes:
    body = encode(
        Hello1(1, room.session.to_bytes(8, "big"), participant, 2, PUBLIC, bytes(32), b"x" * 32, random.Random(attempt).randbytes(16))
    )
    return clear_packet(room.session, ParticipantId(participant), room.organizer.me, 1, attempt, body)


PUBLIC = srp.Guest(1, bytes(32), "").public


def test_handshakes_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MAX_OPEN", 16)
    room = Room()
    organizer = room.organizer
    for participant in range(10, 26):
        organizer.receive_untrusted(hello(room, participant), room.now)
    assert len(organizer.out) == 16, "each got its message 2, at once"
    organizer.out.clear()
    organizer.receive_untrusted(hello(room, 9999), room.now)
    (refused,) = organizer.out
    assert isinstance(refused, bytes)
    assert b"join-busy" in refused
    organizer.out.clear()
    organizer.tick(room.now + HANDSHAKE_WITHIN)
    organizer.out.clear()
    organizer.receive_untrusted(hello(room, 9999), room.now + HANDSHAKE_WITHIN)
    (offered,) = organizer.out
    assert isinstance(offered, bytes)
    assert place(int.from_bytes(offered[24:32], "big")) == (0, 2), "who says nothing for so long is forgotten"


@pytest.mark.parametrize(("later", "full", "let_in"), [(60.0, False, True), (60.0, True, False), (reception.ANSWER_FOR, False, False)])
def test_a_slow_guest_is_forgotten_when_its_room_is_needed(later: float, full: bool, let_in: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MAX_OPEN", 1)
    room = Room()
    organizer, guest = room.organizer, Guest(room.ticket(2), room.password, "Ana")._side
    organizer.receive_untrusted(clear_packet(room.session, guest.me, organizer.me, 1, 0, guest.begin()), room.now)
    offered = organizer.out.pop()
    assert isinstance(offered, bytes)
    organizer.tick(room.now + later)
    if full:
        organizer.receive_untrusted(hello(room, 9999), room.now + later)
    proof = guest.prove(offered[HEADER_SIZE:])
    organizer.receive_untrusted(clear_packet(room.session, guest.me, organizer.me, 3, 0, proof), room.now + later)
    assert bool(organizer.jobs) == let_in
    assert organizer.dropped["handshake-late"] == (not let_in)


def test_proofs_that_compute_are_bounded_and_none_is_lost() -> None:
    room = Room()
    organizer = room.organizer
    guests = range(10, 10 + 2 * MAX_COMPUTING)
    for participant in guests:
        organizer.receive_untrusted(hello(room, participant), room.now)
    organizer.out.clear()
    proof = encode(Proof3(bytes(32), bytes(21)))
    for participant in guests:
        organizer.receive_untrusted(clear_packet(room.session, ParticipantId(participant), organizer.me, 3, 0, proof), room.now)
    judged = 0
    while organizer.jobs:
        assert len(organizer.jobs) <= MAX_COMPUTING
        job = organizer.jobs.popleft()
        with pytest.raises(WrongSecret) as refused:
            job.work()
        job.failed(refused.value, room.now)
        judged += 1
    assert judged == len(guests) == sum(isinstance(item, bytes) and b"wrong-secret" in item for item in organizer.out)


def test_one_guest_costs_no_more_than_a_power_a_second() -> None:
    room = Room()
    organizer = room.organizer
    for step in range(100):
        now = room.now + step * 0.05
        organizer.receive_untrusted(hello(room, 9, attempt=step), now)
    powers = sum(isinstance(item, bytes) for item in organizer.out)
    assert 1 <= powers <= 6
    assert organizer.dropped["handshake-hasty"] >= 94


@pytest.mark.parametrize("counter", [0, 2, 4, 5, 2**33 + 1, 2**63, 2**64 - 1, 2**64 - 3, 2**64 - 4])
def test_clear_packets_of_any_counter_raise_nothing(counter: int) -> None:
    room = Room()
    room.guest(2, "Eve", password="guess")
    room.run()  # she has failed once: her message 3 is answered even when nothing is under way
    room.linked.add(ParticipantId(2))
    whole = bytearray(hello(room, 2))
    whole[24:32] = counter.to_bytes(8, "big")
    room.organizer.receive_untrusted(bytes(whole), room.now)
    room.run()
    assert room.admitted(3, "Ana").joined


@given(
    st.integers(0, 12),
    st.binary(max_size=600) | st.lists(st.integers(0, 6) | st.binary(max_size=400) | st.text(max_size=9), max_size=9).map(encode),
)
@settings(max_examples=150, derandomize=True)
def test_G22_malformed_handshakes_leave_the_organizer_alive(counter: int, body: bytes) -> None:
    room = one_room()
    before = len(room.organizer.state.members), room.organizer.chair.lobby.reception.judged
    packet = clear_packet(room.session, ParticipantId(77), room.organizer.me, counter % 4 + 1, counter // 4, body)
    room.organizer.receive_untrusted(packet, room.now)
    room.organizer.out.clear()
    assert not room.organizer.jobs
    assert (len(room.organizer.state.members), room.organizer.chair.lobby.reception.judged) == before


_room: list[Room] = []


def one_room() -> Room:
    """One for all examples: it has to survive them together."""
    if not _room:
        _room.append(Room())
    return _room[0]


def test_and_alive_means_that_somebody_can_still_join() -> None:
    assert one_room().admitted(3, "Ana").joined


# batches, the key, the door


def test_many_joins_share_entries_and_ratchets() -> None:
    room = Written()
    guests = [room.guest(2 + i, f"Guest {i}") for i in range(12)]
    room.run(1.0)
    assert all(guest.joined for guest in guests)
    admits = entries(room, log.Admit)
    assert len(admits) <= 3
    assert len({(guest.state.head, guest.keyring.group_key) for guest in guests}) == 1
    assert guests[0].keyring.current == 1 + len(admits)
    assert len({member.name for member in room.organizer.state.members.values()}) == 13


def test_admissions_keep_their_distance() -> None:
    room = Written()
    times = []
    for i in range(6):
        room.admitted(2 + i, f"Guest {i}")
        times.append(room.now)
    assert all(later - earlier >= BATCH_EVERY for earlier, later in pairwise(times))


def test_whoever_falls_silent_at_the_door_holds_up_nobody() -> None:
    room = Written()
    silent = room.guest(2, "Sven")
    room.meddle = lambda to, packet: [] if to == silent.me else [packet]
    room.run(ANSWERED_WITHIN)
    room.admitted(3, "Ana")
    before = room.now
    room.admitted(4, "Ben")
    assert silent.stage is Stage.ASKING
    assert room.now - before <= BATCH_EVERY


def test_a_join_during_a_key_change_waits_until_it_is_over() -> None:
    """Trace: a join during a dismissal's two phases."""
    room = Written()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.acknowledging = False
    ben.leave(room.now)
    room.run()
    assert room.organizer.keyring.current == 3, "the change is not committed"
    cleo = room.guest(4, "Cleo")
    room.run(1.0)
    assert cleo.stage is Stage.KEYED
    assert not cleo.joined
    ana.chat("meanwhile")
    room.run()
    room.acknowledge()
    assert cleo.joined
    assert [type(fields) for fields in room.written[-3:]] == [log.Leave, log.EpochEntry, log.Admit]
    assert ana.keyring.current == cleo.keyring.current == 5
    ana.chat("welcome")
    room.run()
    assert room.chat(cleo) == [("Ana", "welcome")]
    assert room.chat(room.organizer)[-2:] == [("Ana", "meanwhile"), ("Ana", "welcome")]


@pytest.mark.parametrize("door", ["dismiss", "lock", "knock"])
def test_whoever_waits_when_the_door_closes_stays_outside(door: str) -> None:
    """Its password was right, and its ticket may be the dismissed one's second."""
    room = Written()
    room.admitted(2, "Ana")
    ben = room.admitted(3, "Ben")
    room.acknowledging = False
    ben.leave(room.now)
    room.run()
    cleo = room.guest(4, "Cleo")
    room.run(1.0)
    assert cleo.stage is Stage.KEYED
    if door == "lock":
        room.organizer.chair.lock(True, room.now)
    elif door == "knock":
        room.organizer.chair.knock(True, room.now)
    else:
        room.organizer.chair.dismiss(ParticipantId(2), room.now)
    room.run()
    if door == "lock":
        assert cleo.failure is not None
        assert cleo.failure.name == "turned-away"
    else:
        assert cleo.stage.value == Stage.WAITING.value, "until the organizer's person lets it in"
    room.acknowledge()
    room.run(1.0)
    assert ParticipantId(4) not in room.organizer.state.ever


def test_a_proof_that_is_judged_while_the_door_closes_is_turned_away() -> None:
    room = Room()
    cleo = room.guest(4, "Cleo")
    organizer = room.organizer
    room.meddle = lambda to, packet: [packet]
    late: list[Callable[[], None]] = []
    compute = organizer.chair.lobby.reception._compute

    def slow(job: object) -> None:
        if organizer.chair.lobby.reception.judged:
            late.append(lambda: compute(job))  # type: ignore[arg-type]
        else:
            compute(job)  # type: ignore[arg-type]

    organizer.chair.lobby.reception._compute = slow  # type: ignore[method-assign]
    room.run()
    assert cleo.stage is Stage.PROVEN
    organizer.chair.lock(True, room.now)
    for each in late:
        each()
    room.run()
    assert cleo.failure is not None
    assert cleo.failure.name == "turned-away"
    assert cleo.me not in organizer.state.ever


def test_a_locked_session_turns_away_and_opens_again() -> None:
    room = Room()
    room.organizer.chair.lock(True, room.now)
    room.run()
    early = room.guest(2, "Ana")
    room.run()
    assert early.failure is not None
    assert early.failure.name == "turned-away"
    room.organizer.chair.lock(False, room.now)
    assert room.admitted(2, "Ana").joined


def test_G07_a_second_dismissal_during_a_key_change_shuts_out_both() -> None:
    """The same epoch is wrapped anew without the second one, and the entry's digest chooses."""
    room = Written()
    ana, ben, cleo = room.admitted(2, "Ana"), room.admitted(3, "Ben"), room.admitted(4, "Cleo")
    room.acknowledging = False
    room.organizer.chair.dismiss(ben.me, room.now)
    room.run()
    first = {group_key_digest(key) for keys in cleo.keys._keys.values() for key in keys}
    assert len(first) == 1, "Cleo was given the key of the change in which she was still to stay"
    room.organizer.chair.dismiss(cleo.me, room.now)
    room.run()
    assert len(ana.keys._keys[5]) == 2
    room.acknowledge()
    (committed,) = entries(room, log.EpochEntry)
    assert isinstance(committed, log.EpochEntry)
    assert committed.epoch == 5
    assert committed.digest not in first
    assert group_key_digest(ana.keyring.group_key) == committed.digest == group_key_digest(room.organizer.keyring.group_key)
    ana.chat("just us")
    room.run()
    assert room.chat(room.organizer)[-1] == ("Ana", "just us")
    for gone in (ben, cleo):
        assert ("Ana", "just us") not in room.chat(gone)


def test_a_resync_in_the_middle_of_a_key_change_loses_no_key() -> None:
    """The key of the next epoch is here already; the organizer answers with the present one."""
    room = Written()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.acknowledging = False
    ben.leave(room.now)
    room.run()
    ana.say(Channel.KEY, encode(Resync()), room.organizer.me)
    room.run()
    assert ana.keyring.current == 3
    room.acknowledge()
    assert ana.keyring.current == 4
    assert ana.may_seal
    assert ana.keyring.group_key == room.organizer.keyring.group_key


def test_keys_may_be_ahead_of_the_log_by_more_than_one_change() -> None:
    room = Written()
    ana, ben, cleo = room.admitted(2, "Ana"), room.admitted(3, "Ben"), room.admitted(4, "Cleo")
    behind: list[bytes] = []

    def slow_log(to: ParticipantId, packet: bytes) -> list[bytes]:
        if to == ana.me and packet[2] == Channel.LOG:
            behind.append(packet)
            return []
        return [packet]

    room.meddle = slow_log
    ben.leave(room.now)
    room.run()
    cleo.leave(room.now)
    room.run()
    assert sorted(ana.keys._keys) == [5, 6]
    room.meddle = None
    for packet in behind:
        ana.receive_untrusted(packet, room.now)
    room.run()
    assert ana.keyring.current == 6
    assert ana.keyring.group_key == room.organizer.keyring.group_key
    assert ana.dropped["withheld"] == 0


def test_leaves_during_a_key_change_wait_for_the_next_one() -> None:
    room = Written()
    ana, ben, cleo = room.admitted(2, "Ana"), room.admitted(3, "Ben"), room.admitted(4, "Cleo")
    room.acknowledging = False
    ben.leave(room.now)
    room.run()
    cleo.leave(room.now)
    room.run()
    assert cleo.me in room.organizer.state.members
    room.acknowledge()
    assert cleo.me not in ana.state.members
    assert [type(fields) for fields in room.written[-4:]] == [log.Leave, log.EpochEntry, log.Leave, log.EpochEntry]
    assert ana.keyring.group_key == room.organizer.keyring.group_key


def test_the_key_changes_every_hour() -> None:
    room = Written()
    ana = room.admitted(2, "Ana")
    before = ana.keyring.group_key
    room.run(3540.0, step=30.0)
    assert entries(room, log.EpochEntry) == []
    room.run(90.0, step=30.0)
    assert len(entries(room, log.EpochEntry)) == 1
    assert ana.keyring.group_key == room.organizer.keyring.group_key != before
    ana.chat("still here")
    room.run()
    assert room.chat(room.organizer) == [("Ana", "still here")]


# leaving


def test_a_leavers_last_lines_count_even_if_they_arrive_behind_its_goodbye() -> None:
    room = Written()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    held: list[bytes] = []

    def delay_chat(to: ParticipantId, packet: bytes) -> list[bytes]:
        if to == room.organizer.me and packet[2] == Channel.CHAT:
            held.append(packet)
            return []
        return [packet]

    room.meddle = delay_chat
    for number in range(3):
        ben.chat(f"{number}")
    ben.leave(room.now)
    room.run()
    room.meddle = None
    (left,) = entries(room, log.Leave)
    assert isinstance(left, log.Leave)
    assert left.cuts == [(ben.me, Channel.CHAT, 2)]
    for packet in held:
        room.organizer.receive_untrusted(packet, room.now)
    room.run()
    assert [text for _, text in room.chat(room.organizer)] == ["0", "1", "2"] == [text for _, text in room.chat(ana)]


def test_a_leaver_cannot_claim_a_future() -> None:
    room = Written()
    room.admitted(2, "Ana")
    ben = room.admitted(3, "Ben")
    ben.request(
        Request(Verb.LEAVE, cuts=[(ben.me, Channel.CHAT, 2**62), (ParticipantId(2), Channel.CHAT, 0), (ben.me, Channel.LOG, 9)]), room.now
    )
    room.run()
    (left,) = entries(room, log.Leave)
    assert isinstance(left, log.Leave)
    assert left.cuts == [(ben.me, Channel.CHAT, MAX_IN_FLIGHT - 1)]


def test_more_leavers_than_an_entry_holds_are_written_off_in_several() -> None:
    room = Written()
    organizer = room.organizer
    crowd = range(10, 10 + log.MAX_BATCH + 76)
    for at in range(0, len(crowd), 1000):
        batch = [log.Member(i, 2, f"{i}", i.to_bytes(32, "big"), b"x" * 32) for i in crowd[at : at + 1000]]
        organizer.chair.write(log.Admit(batch, organizer.state.epoch + 1), room.now)
    for i in crowd:
        organizer.keyring.set_key_channel(i, bytes(32))
    room.presence([], list(crowd)[:600])
    room.presence([], list(crowd)[600:])
    room.run(125.0, step=5.0)
    leaves = [fields for fields in entries(room, log.Leave) if isinstance(fields, log.Leave)]
    assert [len(fields.participants) for fields in leaves] == [log.MAX_BATCH, 76]
    assert list(organizer.state.members) == [organizer.me]


def test_who_comes_back_within_two_minutes_has_not_left() -> None:
    room = Written()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.presence([], [ben.me])
    room.run(110.0, step=1.0)
    assert ana.away == {ben.me}
    room.presence([ben.me], [])
    room.run(30.0, step=1.0)
    assert ben.me in ana.state.members
    assert ana.away == frozenset()
    assert room.events(ana, events.PresenceChanged) == [events.PresenceChanged(frozenset({ben.me})), events.PresenceChanged(frozenset())]


def test_G35_away_shows_within_a_second_and_changes_no_key_and_120_s_are_a_leave_with_a_new_one() -> None:
    room = Written()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.run(6.0, step=0.25)
    epoch = ana.state.epoch
    room.presence([], [ben.me])
    room.run(0.75, step=0.25)
    assert ana.away == {ben.me}
    room.run(118.0, step=1.0)
    assert ben.me in ana.state.members
    assert ana.state.epoch == epoch
    room.run(3.0, step=0.5)
    assert ben.me not in ana.state.members
    assert ana.state.epoch != epoch


def test_a_participant_id_never_comes_back_not_even_after_leaving() -> None:
    room = Room()
    ben = room.admitted(3, "Ben")
    ben.leave(room.now)
    room.run()
    again = room.guest(3, "Ben")
    room.run(31.0, step=1.0)
    assert not again.joined
    assert room.admitted(4, "Ben").joined


# wishes


def test_G05_only_the_presenter_passes_the_screen_on() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ana.request(Request(Verb.PRESENT, ana.me), room.now)
    room.run()
    assert room.organizer.state.presenter == 0
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    ben.request(Request(Verb.PRESENT, ben.me), room.now)
    ana.request(Request(Verb.PRESENT, ParticipantId(99)), room.now)
    room.run()
    assert ben.state.presenter == ana.me
    ana.request(Request(Verb.PRESENT, ben.me), room.now)
    room.run()
    assert {m.state.presenter for m in (ana, ben, room.organizer)} == {ben.me}


def test_wishes_reach_the_organizers_person() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    for verb in (Verb.ASK_PRESENT, Verb.ASK_CONTROL, Verb.RAISE_HAND):
        ana.request(Request(verb), room.now)
    room.run()
    assert [wish.verb for wish in room.events(room.organizer, events.Wish)] == ["ask-present", "ask-control", "raise-hand"]


def test_keys_go_to_members_and_come_from_the_organizer_alone() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ben.leave(room.now)
    room.run()
    sent = len(room.wire)
    with pytest.raises(NotAllowed):
        room.organizer._key_message(ben.me, Resync(), room.now)
    with pytest.raises(NotAllowed):
        room.organizer._key_message(ana.me, Roster(1, bytes(16), 0, 0, bytes(32), 0), room.now)
    assert len(room.wire) == sent


def test_an_act_that_the_rules_forbid_changes_nothing() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    before = room.organizer.state.head, len(room.wire)
    acts: list[Callable[[], None]] = [
        lambda: room.organizer.chair.appoint(ParticipantId(99), room.now),
        lambda: room.organizer.chair.dismiss(room.organizer.me, room.now),
        lambda: room.organizer.chair.dismiss(ParticipantId(99), room.now),
        lambda: room.organizer.chair.allow_chat(ParticipantId(99), False, room.now),
    ]
    for act in acts:
        with pytest.raises(IllegalEntry):
            act()
    room.run()
    assert (room.organizer.state.head, len(room.wire)) == before
    room.organizer.chair.end(room.now)
    room.run()
    with pytest.raises(NotAllowed):
        room.organizer.chair.lock(True, room.now)
    late = room.guest(5, "Late")
    room.run()
    assert late.failure is not None
    assert ana.state.ended


def test_a_newcomer_is_told_where_every_stream_stands() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    for number in range(3):
        ana.chat(f"{number}")
    room.run()
    late = room.admitted(3, "Late")
    assert isinstance(late, Guest)
    assert late.channels.counter(Stream(ana.me, EVERYONE, Channel.CHAT)) == 2
    room.run(30.0, step=1.0)
    assert late.dropped["withheld"] == 0, "what came before its time is not missing"
