"""Whole stories, told move by move: those of the design's list that need no second relay and no hand-over."""

from endpoint import events, log
from endpoint.member import Member
from tests.endpoint.room import Room
from wire.ids import EVERYONE, Channel, ParticipantId, Stream
from wire.packet import parse_packet_untrusted


def final_chat(room: Room, member: Member) -> dict[ParticipantId, list[str]]:
    """What stands on this member's screen in the end: what was shown and not withdrawn."""
    shown: dict[ParticipantId, dict[int, str]] = {}
    for event in room.seen[member.me]:
        if isinstance(event, events.ChatReceived):
            shown.setdefault(event.participant, {})[event.counter] = event.text
        elif isinstance(event, events.ChatWithdrawn):
            lines = shown.get(event.participant, {})
            shown[event.participant] = {counter: text for counter, text in lines.items() if counter <= event.counter}
    return {sender: [lines[counter] for counter in sorted(lines)] for sender, lines in shown.items() if lines}


def pictures(room: Room, member: Member) -> list[bytes]:
    return [message.content for message in room.events(member, events.ScreenMessage)]


def test_G06_a_mute_with_a_cut_while_the_muted_is_away_with_sealed_and_with_queued_lines() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ana.chat("heard by all")
    room.run()
    ana.chat("sealed, and on its way when the link broke")
    owed = list(ana.out)
    ana.out.clear()
    room.unlink(ana.me)
    ana.chat("queued")
    assert not ana.out, "nothing is sealed without a link"
    room.organizer.chair.allow_chat(ana.me, False, room.now)
    room.run(1.0)
    ana.out.extend(owed)  # what is owed goes out again, byte for byte
    room.link(ana.me)
    room.run(1.0)
    for member in (ana, ben, room.organizer):
        assert final_chat(room, member) == {ana.me: ["heard by all"]}
    (withdrawn,) = room.events(ana, events.ChatWithdrawn)
    assert (withdrawn.participant, withdrawn.counter) == (ana.me, 0), "she saw her own line; it is taken back"
    assert [dropped.name for dropped in room.events(ana, events.Dropped)] == ["not-allowed"]
    assert ben.dropped["no-right-late"] == room.organizer.dropped["no-right-late"] == 1
    room.organizer.chair.allow_chat(ana.me, True, room.now)
    room.run()
    ana.chat("again")
    room.run()
    for member in (ana, ben, room.organizer):
        assert final_chat(room, member) == {ana.me: ["heard by all", "again"]}


def test_G06_a_line_that_crosses_a_mute_is_withdrawn_where_it_was_shown() -> None:
    """Ben gets Ana's line before the mute, the organizer after it: its cut leaves the line out."""
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ana.chat("counts")
    room.run()
    late: list[bytes] = []

    def slow_to_the_organizer(to: ParticipantId, packet: bytes) -> list[bytes]:
        if to == room.organizer.me and packet[2] == Channel.CHAT:
            late.append(packet)
            return []
        return [packet]

    room.meddle = slow_to_the_organizer
    ana.chat("crosses")
    room.run()
    assert final_chat(room, ben) == {ana.me: ["counts", "crosses"]}
    room.organizer.chair.allow_chat(ana.me, False, room.now)
    room.run()
    room.meddle = None
    room.organizer.receive_untrusted(late[0], room.now)
    room.run()
    for member in (ana, ben, room.organizer):
        assert final_chat(room, member) == {ana.me: ["counts"]}


def test_G02_a_late_join_while_the_ring_holds_earlier_epochs() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    for number in range(3):
        ana.chat(f"early {number}")
    room.run()
    ben.leave(room.now)
    room.run()
    ana.chat("under the third epoch")
    room.run()
    epochs = {parse_packet_untrusted(p).epoch for p in room.ring if p[2] == Channel.CHAT}
    assert len(epochs) == 2
    late = room.guest(4, "Late")
    ana.chat("while it joins")
    room.run(1.0)
    assert late.joined
    ana.chat("and afterwards")
    room.run()
    assert final_chat(room, late)[ana.me][-1] == "and afterwards"
    assert not {"early 0", "early 1", "early 2", "under the third epoch"} & set(final_chat(room, late)[ana.me])
    assert not late.dropped.keys() & {"epoch-closed", "gap", "bad-tag", "replayed"}
    assert room.chat(room.organizer)[-1] == ("Ana", "and afterwards")


def test_G02_a_late_join_while_a_snapshot_is_in_flight_for_another() -> None:
    """The one who comes later gets the snapshot that was made for the first, or a later one; both end with the same screen."""
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    ana.screen_packets(b"\0first", restart=True)
    room.run()
    ana.screen_packets(b"whole 1", restart=True, snapshot=True)
    flying: list[bytes] = [p for p in ana.out if isinstance(p, bytes)]
    ana.out.clear()
    cleo = room.guest(4, "Cleo")
    room.run(1.0)
    assert cleo.joined
    for packet in flying:  # sealed under the epoch before Cleo's
        for member in (ben, cleo):
            member.receive_untrusted(packet, room.now)
    ana.screen_packets(b"\0update", restart=True)
    room.run()
    assert pictures(room, ben) == [b"\0first", b"whole 1", b"\0update"]
    assert pictures(room, cleo) == [], "it cannot open what was sealed before it came, and asks for its own"
    assert room.events(cleo, events.ScreenGap)
    ana.screen_packets(b"whole 2", restart=True, snapshot=True)
    ana.screen_packets(b"\0next", restart=True)
    room.run()
    for member in (ben, cleo):
        assert pictures(room, member)[-2:] == [b"whole 2", b"\0next"]


def test_a_slow_viewer_that_skips_and_returns() -> None:
    room = Room()
    ana, ben, cleo = room.admitted(2, "Ana"), room.admitted(3, "Ben"), room.admitted(4, "Cleo")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    ana.screen_packets(b"whole", restart=True, snapshot=True)
    room.run()
    skipping = [False]
    room.meddle = lambda to, packet: [] if skipping[0] and to == ben.me and packet[2] == Channel.SCREEN else [packet]
    for number in range(30):
        skipping[0] = 5 <= number < 20
        ana.screen_packets(b"\0%d" % number, restart=False)
        if number == 21:  # Ben wanted it
            ana.screen_packets(b"again", restart=True, snapshot=True)
        room.run()
    level = [b"whole", *(b"\0%d" % number for number in range(22)), b"again", *(b"\0%d" % number for number in range(22, 30))]
    assert pictures(room, cleo) == level
    assert pictures(room, ben) == [*level[:6], b"again", *level[-8:]]
    assert len(room.events(ben, events.ScreenGap)) == 2
    ana.chat("and chat was never touched")
    room.run()
    assert room.chat(ben) == [("Ana", "and chat was never touched")]


def test_G05_a_presenter_change_with_updates_in_flight() -> None:
    """Updates of the former presenter that arrive behind the entry are dropped by everyone, wherever they were."""
    room = Room()
    ana, ben, cleo = room.admitted(2, "Ana"), room.admitted(3, "Ben"), room.admitted(4, "Cleo")
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    ana.screen_packets(b"whole", restart=True, snapshot=True)
    room.run()
    late: list[tuple[ParticipantId, bytes]] = []
    room.meddle = lambda to, p: late.append((to, p)) or [] if to != ana.me and p[2] == Channel.SCREEN else [p]  # type: ignore[func-returns-value]
    ana.screen_packets(b"\0in flight", restart=True)
    ana.screen_packets(b"\0" + bytes(40_000), restart=False)
    room.organizer.chair.appoint(ben.me, room.now)
    room.run()
    room.meddle = None
    for to, packet in late:
        room.members[to].receive_untrusted(packet, room.now)
    ben.screen_packets(b"Ben's", restart=True, snapshot=True)
    ben.screen_packets(b"\0Ben's update", restart=True)
    room.run()
    assert pictures(room, cleo) == [b"whole", b"Ben's", b"\0Ben's update"]
    assert cleo.dropped["no-right"] >= 2
    for member in (ana, ben, cleo, room.organizer):
        assert member.state.presenter == ben.me


def test_G05_concurrent_claims_have_one_winner_everywhere() -> None:
    room = Room()
    members = [room.admitted(2 + i, f"{i}") for i in range(4)]
    for turn in range(8):
        room.organizer.chair.appoint(members[turn % 4].me, room.now)
        room.organizer.chair.appoint(members[(turn * 3 + 1) % 4].me, room.now)
    room.run()
    winners = {m.state.presenter for m in (*members, room.organizer)}
    assert len(winners) == 1
    last = [[e.participant for e in room.events(m, events.PresenterChanged)] for m in members]
    assert all(each == last[0] for each in last), "everybody saw the same changes in the same order"


def test_G13_leave_and_rejoin_under_the_same_name() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    ben.chat("first life")
    ben.leave(room.now)
    room.run()
    again = room.admitted(4, "Ben")
    again.chat("second life")
    room.run()
    assert [m.name for m in ana.state.members.values()] == ["Olga", "Ana", "Ben"], "the name is free again"
    assert final_chat(room, ana) == {ParticipantId(3): ["first life"], ParticipantId(4): ["second life"]}
    assert final_chat(room, again) == {ParticipantId(4): ["second life"]}
    assert ben.keyring.current is None
    twin = room.admitted(5, "ben")
    assert twin.state.members[twin.me].name == "ben (2)"


def test_G04_the_end_while_members_are_away() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    room.unlink(ben.me)
    ben.chat("never sent")
    room.organizer.chat("goodbye")
    room.run()
    room.organizer.chair.end(room.now)
    room.run(1.0)
    assert ana.state.ended
    assert not ben.state.ended
    room.run(60.0, step=1.0)
    room.link(ben.me)  # an ended session stays readable for 120 s
    room.run(1.0)
    assert ben.state.ended
    assert room.chat(ben) == [("Olga", "goodbye")]
    assert room.events(ben, events.SessionEnded)
    for member in (ana, ben, room.organizer):
        assert member.keyring.current is None
        assert not member.may_seal
    assert ("Ben", "never sent") not in room.chat(ana)


def test_two_minutes_and_two_epochs_away_and_back_within_the_ring() -> None:
    """Away for 100 s: others come and go meanwhile. What was said under each epoch is read, in order, and nothing is missing."""
    room = Room()
    ana, ben, cleo = room.admitted(2, "Ana"), room.admitted(3, "Ben"), room.admitted(4, "Cleo")
    room.unlink(ben.me)
    ana.chat("one")
    room.run(30.0, step=1.0)
    cleo.leave(room.now)
    room.run(30.0, step=1.0)
    ana.chat("two")
    dora = room.admitted(5, "Dora")
    dora.chat("three")
    room.run(40.0, step=1.0)
    ben.chat("four")
    room.link(ben.me)
    room.run(1.0)
    assert [text for _, text in room.chat(ben)] == ["one", "two", "three", "four"] == [text for _, text in room.chat(room.organizer)]
    assert ben.keyring.current == room.organizer.keyring.current
    assert not ben.dropped.keys() & {"gap", "withheld", "unknown-epoch", "epoch-closed"}


def test_G03_every_change_reaches_everybody_in_the_same_order() -> None:
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    cleo = room.admitted(4, "Cleo")
    room.organizer.chair.appoint(cleo.me, room.now)
    room.organizer.chair.allow_chat(ben.me, False, room.now)
    room.organizer.chair.appoint(ana.me, room.now)
    cleo.leave(room.now)
    room.run()
    room.organizer.chair.allow_chat(ParticipantId(0), False, room.now)
    room.run()
    kinds = (events.MemberLeft, events.PresenterChanged, events.ChatRightChanged)
    seen = [[e for e in room.seen[m.me] if isinstance(e, kinds)] for m in (ana, ben, room.organizer)]
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 5
    assert len({m.state.head for m in (ana, ben, room.organizer)}) == 1


def test_B02_a_server_that_equivocates_is_named_by_every_member() -> None:
    """The organizer's program itself shows Ben another log than Ana; as soon as they hear each other, both say so."""
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    for member, fields in ((ana, log.Lock(True)), (ben, log.Knock(True))):
        entry = log.sign_entry(room.meeting_key, member.state.index + 1, member.state.head, 99, fields)
        member.apply(entry, room.now)
    ana.chat("do you see what I see?")
    ben.chat("no")
    room.run()
    assert ben.dropped["fork"] == ana.dropped["fork"] == 1
    assert [e.name for e in room.events(ben, events.Dropped)] == ["fork"] == [e.name for e in room.events(ana, events.Dropped)]


def test_a_newcomers_start_is_what_the_organizer_had_applied() -> None:
    """A line that the organizer had not applied at the snapshot, and others had: the newcomer gets it, as they did."""
    room = Room()
    ana, ben = room.admitted(2, "Ana"), room.admitted(3, "Ben")
    late_chat: list[bytes] = []
    room.meddle = lambda to, p: late_chat.append(p) or [] if to == room.organizer.me and p[2] == Channel.CHAT else [p]  # type: ignore[func-returns-value]
    ana.chat("the organizer is behind")
    room.run()
    cleo = room.guest(4, "Cleo")
    room.run(1.0)
    room.meddle = None
    for packet in late_chat:
        room.organizer.receive_untrusted(packet, room.now)
    ana.chat("all are level")
    room.run()
    assert cleo.channels.counter(Stream(ana.me, EVERYONE, Channel.CHAT)) == 1
    assert final_chat(room, ben) == final_chat(room, room.organizer) == {ana.me: ["the organizer is behind", "all are level"]}
    assert final_chat(room, cleo) == {ana.me: ["all are level"]}, "sealed before its epoch: it was not there"
