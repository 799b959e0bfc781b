"""How the chair passes: hand-over, successors and take-over, a restart. Whole meetings in memory, killed at every moment that matters."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from crypto.signing import ExchangeKey, SigningKey
from crypto.srp import make_verifier
from endpoint import events, log
from endpoint.errors import EndpointError, IllegalEntry, JoinInterrupted, NotAllowed, WrongOrganizer
from endpoint.guest import JOIN_WITHIN, Guest, Stage
from endpoint.heir import MAX_UNKNOWN
from endpoint.journal import AlreadyHosted, Journal, JournalError, Saved, claimed
from endpoint.member import Member
from endpoint.messages import GroupKey, Request, Succession, Verb, encode
from endpoint.organizer import Organizer
from endpoint.succession import follow_chain_untrusted
from tests.endpoint.room import Room
from wire.control import Office
from wire.ids import EVERYONE, Channel, ParticipantId, Role, SessionId, Stream, next_epoch
from wire.packet import Flag, parse_packet_untrusted


def hall(*names: str) -> tuple[Room, list[Guest]]:
    room = Room()
    room.organizer.wall_ms = lambda: int(1000 * room.now)
    return room, [room.admitted(number, name) for number, name in enumerate(names, 2)]


def agree(*members: Member) -> None:
    assert len({(m.state.index, m.state.head, m.state.organizer) for m in members}) == 1
    assert len({m.keyring.group_key for m in members}) == 1


def handed(room: Room, to: Guest) -> None:
    room.members[room.office].chair.hand_over(to.me, room.now)
    room.run()
    assert to.heir.offered
    to.heir.accept(room.now)
    room.run(1.0)


def test_G08_the_chair_passes_and_everything_goes_on() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    olga = room.organizer
    old_key = olga.keyring.group_key
    handed(room, ana)
    assert ana.organizes
    assert not olga.organizes
    assert room.office == ana.me, "the holder told the relay"
    agree(olga, ana, ben)
    assert ana.keyring.group_key != old_key, "whoever sits down issues a fresh key"
    ana.chair.appoint(ben.me, room.now)
    ana.chair.allow_chat(olga.me, False, room.now)
    room.run()
    assert ben.state.presenter == ben.me
    with pytest.raises(NotAllowed):
        olga.chat("I am not heard")
    cleo = room.admitted(4, "Cleo")  # by Ana, whose chain it checks against the meeting key
    assert cleo.state.organizer == ana.me
    dora = room.admitted(5, "Dora")
    ben.leave(room.now)
    room.run(1.0)
    agree(olga, ana, cleo, dora)
    olga.leave(room.now)  # the session outlives the former organizer's leaving
    room.run(1.0)
    cleo.chat("still here")
    room.run()
    assert room.chat(dora)[-1] == room.chat(ana)[-1] == ("Cleo", "still here")
    agree(ana, cleo, dora)


def test_G08_the_former_organizers_commands_are_rejected_by_everyone_and_it_is_named() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    olga = room.organizer
    handed(room, ana)
    with pytest.raises(NotAllowed):
        olga.chair.dismiss(ben.me, room.now)
    for fields in (log.Dismiss(ben.me, []), log.Presenter(olga.me), log.End()):  # a modified client, with a relay's help
        entry = log.sign_entry(room.meeting_key, olga.state.index + 1, olga.state.head, olga.channels.last(Channel.LOG) + 1, fields)
        for packet in olga.channels.seal(Channel.LOG, entry.wire):
            for member in (ana, ben):
                member.receive_untrusted(packet, room.now)
    room.run()
    for member in (ana, ben):
        assert member.refused[olga.me] == member.dropped["no-right"] >= 1
        assert ben.me in member.state.members
        assert not member.state.ended
    assert {e.participant for e in room.events(ana, events.Dropped) if e.name == "no-right"} == {olga.me}


def test_G08_it_cannot_be_undone_but_it_can_be_handed_on() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    for heir in (ana, ben, ana):
        handed(room, heir)
    agree(room.organizer, ana, ben)
    late = room.admitted(7, "Late")
    assert late.state.organizer == ana.me
    chain = ana.chair.chain
    assert len(chain) == 3
    key = room.meeting_key.public
    assert follow_chain_untrusted(room.session, key, chain) == ana.signing.public
    for broken in (chain[1:], [chain[0], chain[2]], [chain[1], chain[0]], [*chain, chain[2]], [chain[0][:-1], *chain[1:]], [b"", *chain]):
        with pytest.raises(WrongOrganizer):
            follow_chain_untrusted(room.session, key, broken)
    with pytest.raises(WrongOrganizer):
        follow_chain_untrusted(room.session, SigningKey.generate().public, chain)


def test_a_chair_that_is_declined_stays_where_it_is() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    with pytest.raises(NotAllowed):
        ana.heir.accept(room.now)
    with pytest.raises(IllegalEntry):
        room.organizer.chair.hand_over(room.organizer.me, room.now)
    room.organizer.chair.hand_over(ana.me, room.now)
    room.run()
    ana.heir.decline(room.now)
    room.run()
    assert [e.name for e in room.events(room.organizer, events.OfferDeclined)] == ["Ana"]
    assert room.organizer.organizes
    room.organizer.chair.hand_over(ana.me, room.now)
    room.organizer.chair.hand_over(ben.me, room.now)
    room.run()
    ana.heir.accept(room.now)
    room.run()
    assert room.organizer.organizes, "the second offer took the first one back"
    assert ana.state.organizer == room.organizer.me


def test_the_log_may_move_between_offer_and_answer() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    room.organizer.chair.hand_over(ana.me, room.now)
    room.run()
    room.organizer.chair.lock(True, room.now)
    room.run()
    ana.heir.accept(room.now)
    room.run(1.0)
    assert ana.organizes
    agree(room.organizer, ana, ben)


def test_a_hand_over_while_a_member_is_cut_off_for_100_s() -> None:
    room, (ana, ben, cleo) = hall("Ana", "Ben", "Cleo")
    room.unlink(cleo.me)
    cleo.chat("while I was away")
    handed(room, ana)
    ben.chat("under Ana's key")
    room.run(100.0, step=1.0)
    room.link(cleo.me)
    room.run(2.0)
    agree(room.organizer, ana, ben, cleo)
    assert room.chat(cleo) == [("Ben", "under Ana's key"), ("Cleo", "while I was away")]
    assert room.chat(ana) == room.chat(cleo)
    assert not cleo.dropped.keys() & {"gap", "withheld", "bad-tag", "no-right"}


def test_a_relay_that_names_the_new_organizer_before_the_log_does_is_not_answered_back() -> None:
    """Ana hears of her office first; told on, it would travel to and fro between her and Olga until the entry comes."""
    room, (ana, ben) = hall("Ana", "Ben")
    late: list[bytes] = []
    room.organizer.chair.hand_over(ana.me, room.now)
    room.run()
    room.meddle = lambda to, p: late.append(p) or [] if to == ana.me and p[2] == Channel.LOG else [p]  # type: ignore[func-returns-value]
    ana.heir.accept(room.now)
    room.run(1.0)
    assert room.office == ana.me
    assert not ana.organizes
    room.meddle = None
    for packet in late:
        ana.receive_untrusted(packet, room.now)
    room.run(1.0)
    agree(room.organizer, ana, ben)


def test_a_typed_id_guest_after_a_hand_over() -> None:
    """It knows no fingerprint; the key of the ticket, and so the words to compare, are the meeting's and stay the same."""
    room, (ana,) = hall("Ana")
    handed(room, ana)
    typed = Guest(room.ticket(5), room.password, "Typed")
    room.members[typed.me] = typed
    room.fresh.add(typed.me)
    room.link(typed.me)
    room.run(1.0)
    assert typed.joined
    assert typed.state.meeting_key == room.meeting_key.public
    assert typed.state.organizer == ana.me


def test_the_waiting_room_goes_on_after_a_hand_over() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    room.organizer.chair.dismiss(ben.me, room.now)
    room.run()
    cleo = room.guest(5, "Cleo")
    room.run(1.0)
    assert cleo.stage is Stage.WAITING
    handed(room, ana)
    room.run(5.0)
    assert cleo.stage is Stage.WAITING, "it asks the new organizer by itself"
    assert ana.state.knock
    ana.chair.let_in(cleo.me, room.now)
    room.run(1.0)
    assert cleo.joined


def with_successor() -> tuple[Room, Organizer, list[Guest]]:
    room, guests = hall("Ana", "Ben", "Cleo")
    room.organizer.chair.name_successors([guests[0].me], room.now)
    room.run()
    return room, room.organizer, guests


def test_G08_a_successor_takes_over_after_a_minute_of_silence_and_not_before() -> None:
    room, olga, (ana, ben, cleo) = with_successor()
    assert room.events(ben, events.SuccessorsChanged)[-1].participants == (ana.me,)
    room.kill(olga.me)
    room.run(50.0, step=1.0)
    with pytest.raises(NotAllowed):
        ana.heir.take_over(room.now)
    with pytest.raises(NotAllowed):
        ben.heir.take_over(room.now)
    room.run(15.0, step=1.0)
    assert ben.state.organizer == olga.me, "nobody takes over by itself: a relay can feign silence"
    ana.heir.take_over(room.now)
    room.run(5.0, step=1.0)
    for member in (ana, ben, cleo):
        assert member.state.organizer == ana.me
        assert member.state.epoch >> 24 == 1
    agree(ana, ben, cleo)
    late = room.admitted(9, "Late")  # with what the organizer had left her
    assert late.state.organizer == ana.me
    ana.chair.dismiss(olga.me, room.now)
    room.run(1.0)
    late.chat("on we go")
    room.run()
    assert room.chat(ben)[-1] == ("Late", "on we go")


def test_who_comes_between_a_take_over_and_the_yield_follows_that_too() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    olga = room.organizer
    olga.chair.name_successors([ana.me], room.now)
    room.run(6.0)
    room.unlink(olga.me)
    room.run(65.0, step=1.0)
    ana.heir.take_over(room.now)
    room.run(3.0)
    dora = room.admitted(7, "Dora")
    room.link(olga.me)
    room.run(6.0)
    ana.chair.lock(True, room.now)
    room.run(1.0)
    assert not ana.state.contested
    agree(ana, ben, dora, olga)
    assert dora.state.snapshot() == ana.state.snapshot()
    assert not dora.dropped["entry-illegal"]


def test_a_take_over_at_65_s_and_the_former_organizer_back_at_90_s_yields() -> None:
    room, olga, (ana, ben, cleo) = with_successor()
    room.unlink(olga.me)
    room.run(65.0, step=1.0)
    ana.heir.take_over(room.now)
    room.run(25.0, step=1.0)
    room.link(olga.me)
    room.run(2.0)
    assert not olga.organizes
    agree(olga, ana, ben, cleo)
    assert not ana.state.contested, "signed by Olga, written by Ana"
    assert room.office == ana.me
    olga.chat("welcome, Ana")
    room.run()
    assert room.chat(cleo)[-1] == ("Olga", "welcome, Ana")


def test_a_former_organizer_with_unsent_entries_joins_anew() -> None:
    room, olga, (ana, ben, _) = with_successor()
    room.unlink(olga.me)
    olga.chair.lock(True, room.now)  # nobody ever sees it
    room.run(65.0, step=1.0)
    ana.heir.take_over(room.now)
    room.run(25.0, step=1.0)
    room.link(olga.me)
    room.run(2.0)
    assert [e.reason for e in room.events(olga, events.Removed)] == ["superseded"]
    assert olga.keyring.current is None
    assert not ana.state.locked
    assert not ana.state.contested
    again = room.admitted(9, "Olga")
    agree(ana, ben, again)


def test_a_successor_that_was_unnamed_has_no_claim() -> None:
    room, olga, (ana, ben, cleo) = with_successor()
    olga.chair.name_successors([ben.me], room.now)
    room.run()
    room.unlink(olga.me)
    room.run(65.0, step=1.0)
    with pytest.raises(NotAllowed):
        ana.heir.take_over(room.now)
    fields = log.TakeOver(ana.me, 1 << 24)  # a modified client, with a relay's help
    entry = log.sign_entry(ana.signing, ana.state.index + 1, ana.state.head, 0, fields)
    for packet in ana.channels.seal(Channel.LOG, entry.wire):
        for member in (ben, cleo):
            member.receive_untrusted(packet, room.now)
    room.run(1.0)
    assert ben.state.organizer == cleo.state.organizer == olga.me
    ben.heir.take_over(room.now)
    room.run(5.0, step=1.0)
    assert cleo.state.organizer == ben.me


def test_nobody_follows_a_take_over_who_hears_the_organizer() -> None:
    room, olga, (ana, ben, _) = with_successor()
    entry = log.sign_entry(ana.signing, ana.state.index + 1, ana.state.head, 0, log.TakeOver(ana.me, 1 << 24))
    for packet in ana.channels.seal(Channel.LOG, entry.wire):
        ben.receive_untrusted(packet, room.now)
    room.run(70.0, step=1.0)
    assert ben.state.organizer == olga.me
    olga.chair.lock(True, room.now)
    room.run()
    agree(olga, ben)


def test_of_two_take_overs_at_one_place_the_same_wins_everywhere() -> None:
    """Two halves of the network, each with a successor: the higher ID's branch is the session, here as at the relays."""
    room, (ana, ben, cleo) = hall("Ana", "Ben", "Cleo")
    room.organizer.chair.name_successors([ana.me, ben.me], room.now)
    room.run()
    room.kill(room.organizer.me)
    room.run(65.0, step=1.0)
    for member in (ana, ben, cleo):
        room.unlink(member.me)
    said = {}
    for taker in (ana, ben):
        entry = log.sign_entry(taker.signing, taker.state.index + 1, taker.state.head, 0, log.TakeOver(taker.me, 1 << 24))
        said[taker.me] = taker.channels.seal(Channel.LOG, entry.wire)
        taker.apply(entry, room.now)
    for packet in said[ana.me]:
        cleo.receive_untrusted(packet, room.now)
    assert cleo.state.organizer == ana.me
    for packet in said[ben.me]:
        for member in (cleo, ana):
            member.receive_untrusted(packet, room.now)
    for packet in said[ana.me]:
        ben.receive_untrusted(packet, room.now)
    room.run()
    assert ben.state.organizer == ben.me
    for loser in (ana, cleo):
        assert [e.reason for e in room.events(loser, events.Removed)] == ["superseded"]


def test_G08_a_member_that_missed_a_hand_over_everywhere_asks_who_writes_now_how_that_came() -> None:
    room, (ana, ben, cleo) = hall("Ana", "Ben", "Cleo")
    room.meddle = lambda to, packet: [] if to == ben.me and packet[2] in (Channel.LOG, Channel.KEY) else [packet]
    handed(room, ana)
    handed(room, cleo)
    cleo.chair.appoint(ana.me, room.now)
    room.run()
    room.meddle = None
    room.run(30.0, step=1.0)
    agree(ana, ben, cleo, room.organizer)
    assert [e.participant for e in room.events(ben, events.OrganizerChanged)] == [cleo.me]
    assert not ben.refused, "nobody is blamed for what a relay lost"
    ben.chat("here again")
    cleo.chair.allow_chat(ben.me, False, room.now)
    room.run(1.0)
    assert room.chat(ana) == [("Ben", "here again")]
    agree(ana, ben, cleo)


def test_G08_a_chain_is_followed_from_the_meetings_key_beyond_our_log_to_whoever_shows_it_and_no_other() -> None:
    room, (ana, ben, cleo) = hall("Ana", "Ben", "Cleo")
    handed(room, ana)
    chain = ana.chair.chain
    room.run(6.0)
    for liar, shown in ((cleo, chain), (cleo, []), (cleo, chain * 2), (room.organizer, chain), (room.organizer, [])):
        ben.control(Office(liar.me, []), room.now)  # a relay that lies
        room.run(12.0, step=1.0)
        assert Stream(ben.me, liar.me, Channel.KEY) in [parse_packet_untrusted(packet).stream for packet in room.wire], "it is asked"
        with suppress(EndpointError):
            ben.heir.shown(liar.me, Succession(shown), room.now)
        assert ben.state.organizer == ana.me
    ben.chat("where I was")
    room.run(5.0)
    agree(ana, ben, cleo)
    assert not any(member.refused for member in (room.organizer, ana, ben, cleo)), "nobody is blamed for what a relay says"
    handed(room, cleo)
    ben.control(Office(ana.me, []), room.now)
    room.run(1.0)
    with pytest.raises(NotAllowed):
        ben.heir.shown(ana.me, Succession(chain), room.now)  # hers is over
    agree(cleo, ben, ana)


def journalled(room: Room, path: Path, participant: int = 1) -> Organizer:
    """The organizer's next process."""
    ticket, seed = room.ticket(participant, Role.ORGANIZER), room.meeting_key.seed
    saved = Journal.read(path, seed, room.session)
    if saved is None:
        verifier = make_verifier(room.session, room.secret, room.password)
        fresh = Saved.fresh(room.session, room.meeting_key, verifier)
        organizer = Organizer(ticket, fresh, room.now, name="Olga", journal=Journal.begin(path, seed, fresh))
    else:
        organizer = Organizer(ticket, saved, room.now, journal=Journal.begin(path, seed, saved))
    room.members[organizer.me] = room.organizer = organizer
    if saved is not None:
        room.linked.discard(room.office)
        room.pass_office(organizer.me, [])
    room.link(organizer.me)
    room.run(1.0)
    return organizer


def restarting(path: Path) -> tuple[Room, Organizer, list[Guest]]:
    """A session whose organizer keeps a journal."""
    room = Room()
    room.kill(room.organizer.me)
    room.ring.clear()
    room.has = type(room.has)()
    room.session = type(room.session)(secrets.randbits(64))
    room.office = ParticipantId(1)
    organizer = journalled(room, path)
    return room, organizer, [room.admitted(number, name) for number, name in ((2, "Ana"), (3, "Ben"), (4, "Cleo"))]


def test_the_organizer_killed_and_restarted_after_20_s_with_joins_waiting_and_one_member_away(tmp_path: Path) -> None:
    room, olga, (ana, ben, cleo) = restarting(tmp_path / "journal")
    olga.chair.appoint(olga.me, room.now)
    ana.chat("before")
    room.run(6.0)
    room.unlink(cleo.me)
    assert olga.journal is not None
    olga.journal.close()
    room.kill(olga.me)
    dora = room.guest(5, "Dora")
    room.run(20.0, step=1.0)
    ben.chat("while nobody organizes")
    room.run()
    back = journalled(room, tmp_path / "journal", 11)
    room.run(5.0)
    assert dora.joined
    assert not room.events(back, events.Dropped), "what its former self wrote, and had heard, is no news"
    assert [m.name for m in back.state.members.values() if m.id == back.me] == ["Olga"]
    assert olga.me not in back.state.members
    assert back.state.presenter == back.me, "rights go on"
    room.link(cleo.me)
    room.run(2.0)
    agree(back, ana, ben, cleo, dora)
    assert room.chat(cleo) == [("Ana", "before"), ("Ben", "while nobody organizes")]
    assert not room.events(ana, events.ChatWithdrawn)
    back.chair.allow_chat(ana.me, False, room.now)
    room.run()
    assert not room.events(ben, events.ChatWithdrawn), "what counted before the restart counts"
    with pytest.raises(JournalError):
        Journal.read(tmp_path / "journal", room.meeting_key.seed)
    back.chair.end(room.now)
    room.run()
    assert not (tmp_path / "journal").exists()
    assert ana.state.ended


def _commits(olga: Organizer, room: Room) -> None:
    """Every member has the next key, and no relay takes the entry that it holds from."""
    untaken = olga.taken
    olga.taken = lambda positions, now: None  # type: ignore[method-assign]
    olga.chair.rekeying.change(room.now)
    room.run()
    room.silent.add(olga.me)
    untaken(room.has.positions(), room.now)


def _commits_what_a_relay_lost(olga: Organizer, room: Room) -> None:
    """The relay that had taken the keys died with them."""
    room.silent.add(olga.me)
    olga.chair.rekeying.change(room.now)
    change = olga.chair.rekeying._change
    assert change is not None
    olga.taken([(*stream, counter) for stream, counter in change.untaken.items()], room.now)


def _admits(olga: Organizer, room: Room) -> None:
    """A guest, with the ratchet's next key: twice."""
    room.silent.add(olga.me)
    for number in (7, 8):
        keys = SigningKey.generate().public, ExchangeKey.generate().public
        newcomer = log.Member(number, Role.ATTENDEE, f"Guest {number}", *keys)
        olga.chair.write(log.Admit([newcomer], next_epoch(olga.state.epoch)), room.now)


@pytest.mark.parametrize("dies_after", [_commits, _commits_what_a_relay_lost, _admits], ids=["epoch", "lost-keys", "admits"])
def test_members_go_on_with_an_organizer_whose_last_key_reached_nobody(tmp_path: Path, dies_after: Callable[[Organizer, Room], None]) -> None:
    """Its hand-over to itself stands under that key. They reach it by the key that it has with each of them."""
    room, olga, (ana, ben, cleo) = restarting(tmp_path / "journal")
    room.run(6.0)
    room.unlink(cleo.me)
    index, epoch = olga.state.index, olga.state.epoch
    dies_after(olga, room)
    assert olga.state.index > index == ana.state.index
    assert olga.state.epoch > epoch == ana.state.epoch
    assert olga.journal is not None
    olga.journal.close()
    room.kill(olga.me)
    room.silent.clear()
    back = journalled(room, tmp_path / "journal", 11)
    room.run(30.0, step=1.0)
    room.link(cleo.me)
    room.run(30.0, step=1.0)
    agree(back, ana, ben, cleo)
    ben.chat("here we are")
    back.chair.appoint(ana.me, room.now)
    room.run(1.0)
    agree(back, ana, ben, cleo)
    assert (ben.state.organizer, cleo.state.presenter) == (back.me, ana.me)
    for member in (back, ana, cleo):
        assert room.chat(member)[-1] == ("Ben", "here we are")
    assert not any(member.refused for member in (back, ana, ben, cleo))


def test_an_unknown_office_is_followed_for_the_organizers_own_key_alone() -> None:
    """A relay names somebody that nobody admitted, who knows everything that is public, and the group's key."""
    room, (ana, ben) = hall("Ana", "Ben")
    ben.control(Office(ParticipantId(99), []), room.now)
    room.run(15.0, step=1.0)
    liar = Member(room.session, ParticipantId(99), room.meeting_key.public, SigningKey.generate(), ExchangeKey.generate())
    liar.state = ana.state
    liar.pair_key_channel(ben.me)
    for packet in liar.channels.seal(Channel.KEY, encode(GroupKey(next_epoch(ben.state.epoch), bytes(16))), ben.me):
        ben.receive_untrusted(packet, room.now)
    assert ben.dropped["bad-tag"] == 1
    room.organizer.chair.lock(True, room.now)
    room.run(1.0)
    agree(room.organizer, ana, ben)


def test_a_relay_that_names_strangers_without_end_is_asked_no_more() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    for stranger in range(100, 130):
        ben.control(Office(stranger, []), room.now)
        room.run(12.0, step=1.0)
    asked = {parse_packet_untrusted(packet).recipient for packet in room.wire} - {EVERYONE, ana.me, ben.me, room.organizer.me}
    assert asked == set(range(100, 100 + MAX_UNKNOWN))
    assert ben.dropped["office-unknown"]
    ben.control(Office(room.organizer.me, []), room.now)
    room.organizer.chair.lock(True, room.now)
    room.run(1.0)
    agree(room.organizer, ana, ben)


def test_a_guest_whose_roster_never_came_before_a_hand_over_needs_another_ticket() -> None:
    """It is a member, whom the new organizer admits no second time."""
    room, (ben,) = hall("Ben")
    room.meddle = lambda to, packet: [] if (to, packet[2]) == (3, Channel.ROSTER) else [packet]
    ana = room.guest(3, "Ana")
    room.run(1.0)
    assert (ana.stage, ana.me in ben.state.members) == (Stage.KEYED, True)
    room.organizer.chair.hand_over(ben.me, room.now)
    room.run()
    ben.heir.accept(room.now)
    room.run(JOIN_WITHIN + 1, step=1.0)
    assert isinstance(ana.failure, JoinInterrupted)
    room.meddle = None
    again = room.admitted(9, "Ana")
    room.run(6.0)
    agree(ben, again, room.organizer)


def test_of_two_programs_one_may_take_a_session_up(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal"
    with claimed(path, create=False) as nothing:
        assert nothing is None
    with claimed(path) as claim:
        assert claim is not None
        assert claim.read(bytes(32)) is None
        with pytest.raises(AlreadyHosted), claimed(path):
            pass
    assert list(path.parent.iterdir()) == []
    session, key = SessionId(1), SigningKey.generate()
    fresh = Saved.fresh(session, key, make_verifier(session, bytes(32), "words"))
    fresh.entries.append(b"an entry")
    with claimed(path):
        journal = Journal.begin(path, key.seed, fresh)
        with pytest.raises(AlreadyHosted), claimed(path, create=False):
            pass
    with pytest.raises(AlreadyHosted), claimed(path):
        pass
    journal.close()
    with claimed(path) as claim:
        assert claim is not None
        again = claim.read(key.seed, session)
        assert again is not None
        assert again.exchange == fresh.exchange


def test_a_journal_that_was_cut_off_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    room, olga, _ = restarting(path)
    assert olga.journal is not None
    olga.journal.close()
    seed, whole = room.meeting_key.seed, path.read_bytes()
    assert b"Olga" not in whole, "sealed"
    saved = Journal.read(path, seed)
    assert saved is not None
    assert len(saved.entries) == olga.state.index + 1
    path.write_bytes(whole[:-10])
    cut = Journal.read(path, seed)
    assert cut is not None
    assert saved.entries[: len(cut.entries)] == cut.entries
    for damaged in (whole[:60] + bytes((whole[60] ^ 1,)) + whole[61:], b"", b"parley j", whole[:20]):
        path.write_bytes(damaged)
        assert Journal.read(path, seed) is None
    path.write_bytes(whole)
    assert Journal.read(path, bytes(32)) is None, "another key's"
    assert Journal.read(path, seed, SessionId(room.session ^ 1)) is None, "another session's"


def test_the_former_participant_of_a_restarted_organizer_writes_nothing_any_more(tmp_path: Path) -> None:
    room, olga, (ana, _, _) = restarting(tmp_path / "journal")
    assert olga.journal is not None
    olga.journal.close()
    room.unlink(olga.me)
    back = journalled(room, tmp_path / "journal", 11)
    room.link(olga.me)
    room.run(1.0)
    assert [e.reason for e in room.events(olga, events.Removed)] == ["superseded"]
    assert ana.state.organizer == back.me


# what members ask


def test_G12_a_whisper_is_for_one_and_opens_for_nobody_else() -> None:
    room, (ana, ben, cleo) = hall("Ana", "Ben", "Cleo")
    ana.whisper(ben.me, "only for you")
    room.run()
    (heard,) = room.events(ben, events.WhisperReceived)
    assert (heard.name, heard.text) == ("Ana", "only for you")
    (packet,) = [p for p in room.wire if p[2] == Channel.WHISPER and Stream(ana.me, ben.me, 3) == _stream(p)]
    for other in (cleo, room.organizer):
        former = other.me
        other.me = other.channels.me = ben.me  # a relay delivers it, and a modified client tries
        other.receive_untrusted(packet, room.now)
        other.me = other.channels.me = former
        assert not room.events(other, events.WhisperReceived)
        assert not [e for e in other.events if isinstance(e, events.WhisperReceived)]
    assert room.events(ana, events.WhisperRead)[-1].counter == heard.counter


def _stream(packet: bytes) -> Stream:
    return parse_packet_untrusted(packet).stream


def test_G12_a_whisper_to_someone_away_arrives_or_is_shown_as_undelivered() -> None:
    room, (ana, ben, cleo) = hall("Ana", "Ben", "Cleo")
    room.unlink(ben.me)
    ana.whisper(ben.me, "when you are back")
    ana.whisper(cleo.me, "you are here")
    room.run(10.0, step=1.0)
    assert not [e for e in room.events(ana, events.WhisperRead) if e.participant == ben.me]
    room.link(ben.me)
    room.run(1.0)
    assert [e.text for e in room.events(ben, events.WhisperReceived)] == ["when you are back"]
    assert [e for e in room.events(ana, events.WhisperRead) if e.participant == ben.me]
    room.unlink(ben.me)
    ana.whisper(ben.me, "one")
    ana.whisper(ben.me, "two")
    room.run()
    room.presence([], [ben.me])
    room.run(125.0, step=1.0)
    assert [(e.name, e.lines) for e in room.events(ana, events.WhisperUndelivered)] == [("Ben", 2)]
    with pytest.raises(NotAllowed):
        ana.whisper(ben.me, "three")


def test_G06_who_may_not_chat_whispers_to_the_organizer_alone() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    room.organizer.chair.allow_chat(ana.me, False, room.now)
    room.run()
    with pytest.raises(NotAllowed):
        ana.whisper(ben.me, "psst")
    ana._may_whisper = lambda sender, recipient: True  # type: ignore[method-assign]  # a modified client
    ana.whisper(ben.me, "psst")
    ana.whisper(room.organizer.me, "why?")
    room.run()
    assert not room.events(ben, events.WhisperReceived)
    assert ben.refused[ana.me] == 1
    assert [e.text for e in room.events(room.organizer, events.WhisperReceived)] == ["why?"]


def test_G05_members_ask_and_the_organizers_endpoint_decides() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    for verb in (Verb.ASK_PRESENT, Verb.RAISE_HAND):
        ana.request(Request(verb), room.now)
    ben.request(Request(Verb.PRESENT, ben.me), room.now)  # who does not present may not choose
    ben.request(Request(Verb.CONTROL, ben.me), room.now)
    ben.request(Request(Verb.RENAME, text="Ana"), room.now)
    room.run()
    assert [(e.name, e.verb) for e in room.events(room.organizer, events.Wish)] == [("Ana", "ask-present"), ("Ana", "raise-hand")]
    assert room.organizer.state.presenter == EVERYONE
    assert ana.state.members[ben.me].name == "Ana (2)"
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    ben.request(Request(Verb.ASK_CONTROL), room.now)
    room.run()
    assert [e.verb for e in room.events(ana, events.Wish)] == ["ask-control"], "it is the presenter's to grant"
    ana.request(Request(Verb.CONTROL, ben.me), room.now)
    room.run()
    assert ben.state.control == ben.me
    ana.request(Request(Verb.PRESENT, ben.me), room.now)
    room.run()
    assert (ben.state.presenter, ben.state.control) == (ben.me, EVERYONE)


def test_G07_a_changed_password_ends_knocking_and_the_old_one_opens_nothing() -> None:
    room, (ana, ben) = hall("Ana", "Ben")
    room.organizer.chair.dismiss(ben.me, room.now)
    room.run()
    waiting = room.guest(5, "Waiting")
    room.run(1.0)
    room.organizer.chair.change_password(make_verifier(room.session, room.secret, "another"), room.now)
    room.run(1.0)
    assert waiting.failure is not None
    assert waiting.failure.name == "turned-away"
    assert not ana.state.knock
    old = room.guest(6, "Ben again")
    room.run(1.0)
    assert old.failure is not None
    assert old.failure.name == "wrong-secret"
    room.password = "another"
    room.admitted(7, "Cleo")


def test_the_round_trip_of_members_reaches_the_organizer_and_costs_little() -> None:
    room, (ana,) = hall("Ana")
    for second in range(100):
        ana.report_link(0.023, room.now)
        room.run(1.0, step=1.0)
        if second == 60:
            assert room.organizer.chair.rtt == {ana.me: 0.023}
    sent = [p for p in room.wire if p[2] == Channel.KEY and not p[1] & Flag.CLEAR and _stream(p).sender == ana.me]
    assert len(sent) == 2, "started, and one word about the link"
