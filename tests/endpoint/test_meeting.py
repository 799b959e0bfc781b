"""Whole meetings in memory: join, chat, keys, leave, end."""

from collections import Counter

import pytest

from crypto.errors import BadTag, CryptoError
from crypto.keyring import Keyring
from endpoint import events
from endpoint.channel import Channels
from endpoint.errors import IllegalEntry, NotAllowed, SessionOver, WrongOrganizer
from endpoint.guest import Stage
from endpoint.messages import ChatLine, encode
from tests.endpoint.room import Room
from wire.ids import EVERYONE, Channel, ParticipantId, Stream
from wire.packet import parse_packet_untrusted


def same_log(*members: object) -> bool:
    return len({(m.state.index, m.state.head) for m in members}) == 1  # type: ignore[attr-defined]


def test_G22_a_guest_with_the_password_is_admitted() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    assert [member.name for member in ana.state.members.values()] == ["Olga", "Ana"]
    assert same_log(ana, room.organizer)
    assert room.events(room.organizer, events.MemberJoined)[0].name == "Ana"


def test_G22_a_wrong_password_is_refused_by_name_and_locks_nobody_out() -> None:
    room = Room()
    eve = room.guest(2, "Eve", password="guess")
    room.run()
    assert eve.stage is Stage.FAILED
    assert eve.failure is not None
    assert eve.failure.name == "wrong-secret"
    assert room.events(room.organizer, events.JoinRefused)[0].reason == "wrong-secret"
    assert room.admitted(3, "Ana").joined


def test_G22_neither_password_nor_name_crosses_the_wire() -> None:
    room = Room("swordfish swordfish")
    room.admitted(2, "Anastasia")
    everything = b"".join(room.wire)
    assert b"swordfish" not in everything
    assert b"Anastasia" not in everything


def test_B01_the_link_names_the_organizer_whatever_the_manager_says() -> None:
    room = Room()
    with pytest.raises(WrongOrganizer):
        room.guest(2, "Ana", expected="a" * 26)


def test_G12_chat_reaches_everyone_once_and_in_order() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    for number in range(20):
        (ana, ben, room.organizer)[number % 3].chat(f"line {number}")
        room.run()
    lines = [f"line {number}" for number in range(20)]
    for member in (ana, ben, room.organizer):
        assert [text for _, text in room.chat(member)] == lines


def test_G02_a_late_member_hears_only_what_comes_from_then_on() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    ana.chat("before")
    room.run()
    late = room.admitted(3, "Late")
    ana.chat("after")
    room.run()
    assert room.chat(late) == [("Ana", "after")]


def test_joins_ratchet_the_key_and_leaves_change_it() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    assert room.organizer.keyring.current == ana.keyring.current == ben.keyring.current == 3
    before = ana.keyring.group_key
    ben.leave(room.now)
    room.run()
    assert ben.me not in ana.state.members
    assert ana.keyring.current == 4
    assert ana.keyring.group_key == room.organizer.keyring.group_key != before
    assert room.events(ana, events.MemberLeft)[0].name == "Ben"


def test_G13_a_leaver_can_open_nothing_that_comes_later() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ben.leave(room.now)
    room.run()
    sent = len(room.wire)
    ana.chat("without Ben")
    room.run()
    for packet in room.wire[sent:]:
        with pytest.raises(CryptoError):
            ben.keyring.opener(ana.me, EVERYONE, Channel.CHAT, 4, room.now).verify(packet)
    assert ("Ana", "without Ben") not in room.chat(ben)


def test_B05_each_of_many_leaves_changes_the_key_and_leaves_nobody_behind() -> None:
    """With thousands of members `benchmarks/join.py` measures it."""
    room = Room()
    here = [room.admitted(participant, f"Guest {participant}") for participant in range(2, 34)]
    keys = {room.organizer.keyring.group_key}
    for number in range(8):
        gone, speaker = here.pop(number * 3), here[-1 - number]
        before, kept = len(room.wire), Keyring(room.session, 99)  # what a modified client of the leaver's keeps
        kept.install(gone.state.epoch, gone.keyring.group_key, room.now)
        kept.advance(gone.state.epoch, room.now)
        if number % 4 == 3:
            room.organizer.chair.dismiss(gone.me, room.now)
        else:
            gone.leave(room.now)
        room.run()
        told: Counter[int] = Counter()
        for packet in room.wire[before:]:
            told[parse_packet_untrusted(packet).recipient] += len(packet)
        assert max(told[EVERYONE] + told[member.me] for member in here) <= 450, "bytes on each one's link"
        speaker.chat(f"without {number} more")
        room.run()
        stay = [room.organizer, *here]
        assert {member.keyring.group_key for member in stay} == {room.organizer.keyring.group_key}
        assert room.organizer.keyring.group_key not in keys
        keys.add(room.organizer.keyring.group_key)
        assert all(room.chat(member)[-1] == (speaker.name(speaker.me), f"without {number} more") for member in stay)
        line = parse_packet_untrusted(room.wire[-1])
        assert (line.channel, line.epoch) == (Channel.CHAT, room.organizer.state.epoch)
        kept.ratchet_to(line.epoch, room.now)
        with pytest.raises(BadTag):
            kept.opener(speaker.me, EVERYONE, Channel.CHAT, line.epoch, room.now).verify(room.wire[-1])
    assert not any(member.dropped for member in here)


def test_G06_a_silenced_member_is_dropped_by_every_receiver() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.organizer.chair.allow_chat(ana.me, False, room.now)
    room.run()
    with pytest.raises(NotAllowed):
        ana.chat("hello?")
    ana.state.chat[ana.me] = True  # a modified client
    ana.state._chat.clear()
    ana.state._ended.clear()
    ana.chat("hello!")
    room.run()
    for member in (ben, room.organizer):
        assert room.chat(member) == []
        assert member.dropped["no-right"] == 1
    room.organizer.chair.allow_chat(ana.me, True, room.now)
    room.run()
    ana.chat("again")
    room.run()
    assert room.chat(ben) == [("Ana", "again")]


def test_G04_the_end_drops_every_key() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    room.organizer.chair.end(room.now)
    room.run()
    assert ana.state.ended
    assert room.events(ana, events.SessionEnded)
    for member in (ana, room.organizer):
        assert member.keyring.current is None
        with pytest.raises(SessionOver):
            member.chat("anyone?")


def test_two_joins_in_one_batch_while_a_third_chats() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    ben, cleo = room.guest(3, "Ben"), room.guest(4, "Cleo")
    for number in range(5):
        ana.chat(f"{number}")
    room.run(1.0)
    assert ben.joined
    assert cleo.joined
    assert [text for _, text in room.chat(room.organizer)] == ["0", "1", "2", "3", "4"]
    ana.chat("both here")
    room.run()
    assert room.chat(ben)[-1] == room.chat(cleo)[-1] == ("Ana", "both here")


def test_a_member_away_for_two_minutes_has_left() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.unlink(ben.me)
    room.presence([], [ben.me])
    room.run(1.0)
    assert ana.away == {ben.me}
    room.run(125.0, step=1.0)
    assert ben.me not in ana.state.members
    assert ana.keyring.current == room.organizer.keyring.current == 4


def test_what_is_said_without_a_link_is_sealed_afterwards() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.unlink(ana.me)
    ana.chat("later")
    room.run(1.0)
    assert room.chat(ben) == []
    room.link(ana.me)
    room.run()
    assert room.chat(ben) == [("Ana", "later")]


def test_sealing_waits_for_a_heartbeat_that_the_welcome_names() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.unlink(ana.me)
    ana.chat("while away")
    room.run(6.0)  # a heartbeat goes by, and nothing else
    room.link(ana.me)
    ana.chat("back")
    room.run()
    assert room.chat(ben) == [("Ana", "while away"), ("Ana", "back")]


def test_a_join_waits_for_the_key_change_that_is_under_way() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.organizer.chair.dismiss(ben.me, room.now)
    room.run()
    assert ana.keyring.current == 4
    assert ana.state.knock
    cleo = room.guest(4, "Cleo")
    room.run(2.0)
    assert not cleo.joined
    room.organizer.chair.let_in(cleo.me, room.now)
    room.run(1.0)
    assert cleo.joined


def test_G07_a_dismissed_members_key_opens_nothing_later() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.organizer.chair.dismiss(ben.me, room.now)
    room.run()
    room.organizer.chat("he is gone")
    room.run()
    assert room.chat(ana) == [("Olga", "he is gone")]
    assert room.chat(ben) == []
    assert room.organizer.keyring.current == 4
    assert ben.keyring.current != 4


def test_G07_a_dismissed_member_that_knows_of_it_is_heard_no_more() -> None:
    """A modified client keeps its keys and names the very entry that removed it; a relay lets the line through."""
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ben.keyring.forget = lambda: None  # type: ignore[method-assign]
    room.organizer.chair.dismiss(ben.me, room.now)
    room.run()
    (packet,) = ben.channels.seal(Channel.CHAT, encode(ChatLine("I am still here", 0)))
    for member in (ana, room.organizer):
        member.receive_untrusted(packet, room.now)
        room.run()
        assert room.chat(member) == []
        assert member.dropped["no-right"] == 1


def test_equal_names_are_told_apart() -> None:
    room = Room()
    first, second = room.admitted(2, "Ana"), room.admitted(3, "\u202eAna\u0007")
    assert [m.name for m in first.state.members.values()] == ["Olga", "Ana", "Ana (2)"]
    assert second.joined


def test_G26_a_flipped_bit_anywhere_is_refused_by_name() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    captured: list[bytes] = []
    room.meddle = lambda to, packet: captured.append(packet) or [] if to == ben.me else [packet]  # type: ignore[func-returns-value]
    ana.chat("exactly this")
    room.run()
    (packet,) = captured
    for position in range(len(packet)):
        ben.receive_untrusted(packet[:position] + bytes((packet[position] ^ 1,)) + packet[position + 1 :], room.now)
    room.run()
    assert room.chat(ben) == []
    assert sum(ben.dropped.values()) + len(ben.held) >= len(packet) - 2
    ben.held.clear()
    ben.receive_untrusted(packet, room.now)
    room.run()
    assert room.chat(ben) == [("Ana", "exactly this")]
    ben.receive_untrusted(packet, room.now)
    assert ben.dropped["replayed"] == 1


def test_B03_a_member_with_the_group_key_cannot_forge_another() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    eve = room.admitted(4, "Eve")
    # Eve seals in Ana's name, under the keys of Ana's stream: she has the group key, so the MAC is right
    anas = Keyring(room.session, ana.me)
    assert eve.keyring.current is not None
    anas.install(eve.keyring.current, eve.keyring.group_key, room.now)
    anas.advance(eve.keyring.current, room.now)
    (packet,) = Channels(room.session, ana.me, eve.signing, anas, eve).seal(Channel.CHAT, encode(ChatLine("I resign", 0)))
    ben.receive_untrusted(packet, room.now)
    room.run()
    assert room.chat(ben) == []
    assert ben.dropped["bad-signature"] == 1
    ana.chat("I do not")
    room.run()
    assert room.chat(ben) == [("Ana", "I do not")]


def test_B02_a_member_cannot_write_the_log() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    from endpoint import log

    entry = log.sign_entry(ana.signing, ben.state.index + 1, ben.state.head, 0, log.Presenter(ana.me))
    for packet in ana.channels.seal(Channel.LOG, entry.wire):
        ben.receive_untrusted(packet, room.now)
    room.run()
    assert ben.state.presenter == 0
    assert ben.dropped["no-right"] == 1
    assert ben.refused[ana.me] == 1


def test_the_presenter_alone_is_shown() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    assert room.events(ben, events.PresenterChanged)[-1].name == "Ana"
    ana.screen_packets(b"whole screen", restart=True, snapshot=True)
    ana.screen_packets(b"\0update", restart=True)
    with pytest.raises(NotAllowed):
        ben.screen_packets(b"me too", restart=True)
    room.run()
    shown = room.events(ben, events.ScreenMessage)
    assert [(m.snapshot, m.content) for m in shown] == [(True, b"whole screen"), (False, b"\0update")]
    ana.leave(room.now)
    room.run()
    assert room.events(ben, events.PresenterChanged)[-1].participant == 0


def test_a_skipped_update_needs_a_snapshot() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    ana.screen_packets(b"s", restart=True, snapshot=True)
    room.run()
    room.meddle = lambda to, packet: [] if to == ben.me else [packet]
    ana.screen_packets(b"\0lost", restart=True)
    room.run()
    room.meddle = None
    ana.screen_packets(b"\0after", restart=False)
    room.run()
    assert len(room.events(ben, events.ScreenMessage)) == 1
    assert room.events(ben, events.ScreenGap)
    ana.screen_packets(b"again", restart=True, snapshot=True)
    ana.screen_packets(b"\0next", restart=True)
    room.run()
    assert [m.content for m in room.events(ben, events.ScreenMessage)] == [b"s", b"again", b"\0next"]


def test_a_big_update_is_cut_and_put_together() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    big = bytes(range(256)) * 1000
    ana.screen_packets(big, restart=True, snapshot=True)
    ana.screen_packets(b"\0" + big, restart=True)
    room.run()
    assert [m.content for m in room.events(ben, events.ScreenMessage)] == [big, b"\0" + big]
    assert max(map(len, room.wire)) <= 16384


def test_an_organizer_that_is_silent_or_withheld_is_told() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    room.meddle = lambda to, packet: []
    room.run(20.0, step=1.0)
    assert room.events(ana, events.OrganizerMissing) == [events.OrganizerMissing(True)]


def test_a_withheld_chat_line_is_noticed_and_the_member_goes_on() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ana.chat("first")
    room.run()
    room.meddle = lambda to, p: [] if to == ben.me and p[2] == Channel.CHAT else [p]
    ana.chat("withheld")
    room.run()
    room.meddle = None
    room.run(25.0, step=1.0)
    assert ben.dropped["withheld"] == 1
    assert ben.channels.counter(Stream(ana.me, EVERYONE, Channel.CHAT)) == 1  # goes on at the organizer's counter
    ana.chat("third")
    room.run()
    assert room.chat(ben) == [("Ana", "first"), ("Ana", "third")]


def test_a_participant_id_is_admitted_once() -> None:
    room = Room()
    room.admitted(2, "Ana")
    twin = room.guest(2, "Twin")
    room.run(31.0, step=1.0)
    assert not twin.joined
    assert ParticipantId(2) in room.organizer.state.members


def test_nothing_is_sealed_after_the_end() -> None:
    room = Room()
    ana = room.admitted(2, "Ana")
    room.organizer.chair.appoint(room.organizer.me, room.now)
    room.organizer.chair.end(room.now)
    room.run()
    for member in (room.organizer, ana):
        assert not member.may_seal
        with pytest.raises(SessionOver):
            member.chat("too late")
        with pytest.raises(NotAllowed):
            member.screen_packets(b"\x01", restart=True)


def test_G07_after_a_dismissal_everybody_knocks_until_the_organizer_says_otherwise() -> None:
    room = Room()
    mallory = room.admitted(2, "Mallory")
    room.organizer.chair.dismiss(mallory.me, room.now)
    again = room.guest(3, "Mallory again")
    room.run(40.0, step=1.0)
    assert again.stage is Stage.WAITING
    (knocked,) = room.events(room.organizer, events.Knocked)
    assert (knocked.participant, knocked.name) == (again.me, "Mallory again")
    ben = room.guest(4, "Ben")
    room.run(1.0)
    room.organizer.chair.let_in(ben.me, room.now)
    room.organizer.chair.turn_away(again.me, room.now)
    room.run(1.0)
    assert ben.joined
    assert again.failure is not None
    assert again.failure.name == "turned-away"
    with pytest.raises(IllegalEntry):
        room.organizer.chair.let_in(again.me, room.now)
    cleo = room.guest(5, "Cleo")
    room.run(1.0)
    assert cleo.stage is Stage.WAITING
    room.organizer.chair.knock(False, room.now)
    room.run(1.0)
    assert cleo.joined, "who waits when knocking ends comes in"
    room.admitted(6, "Dora")
