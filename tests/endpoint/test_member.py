"""A member by itself: what it believes of the organizer, what waits, what it may say."""

import pytest

from crypto.errors import CryptoError
from endpoint import events, log
from endpoint.errors import Congested, NotAllowed, SessionOver, TooLong
from endpoint.guest import Guest
from endpoint.held import HOLD_FOR, MAX_HELD, Held, Outcome
from endpoint.messages import MAX_TEXT, ChatLine, GroupKey, encode
from endpoint.pulse import MISSING_AFTER
from endpoint.speaker import MAX_UNSENT
from tests.endpoint.room import Room
from wire.ids import EVERYONE, Channel, ParticipantId, Stream


def two() -> tuple[Room, Guest, Guest]:
    room = Room()
    return room, room.admitted(2, "Ana"), room.admitted(3, "Ben")


def beat(room: Room, index: int, head: bytes, *, time_ms: int = 0) -> list[bytes]:
    """A heartbeat by the organizer's own key and stream, whatever it says."""
    organizer = room.organizer
    counter = organizer.channels.last(Channel.LOG) + 1
    return organizer.channels.seal(Channel.LOG, log.sign_heartbeat(room.meeting_key, log.Heartbeat(index, head, counter, time_ms, [])))


# heartbeats


def test_B02_a_heartbeat_that_names_another_head_is_a_fork() -> None:
    room, ana, _ = two()
    for packet in beat(room, ana.state.index, bytes(32)):
        ana.receive_untrusted(packet, room.now)
    assert ana.dropped["fork"] == 1
    assert ana.events[-1] == events.Dropped("fork", ana.events[-1].sentence, room.organizer.me)  # type: ignore[attr-defined]


def test_a_heartbeat_that_names_an_older_entry_of_ours_is_no_fork_and_no_sign_of_life() -> None:
    room, ana, _ = two()
    index = ana.state.index - 1
    head = ana.state.head_at(index) or b""
    room.organizer.chair._beat = lambda now: None  # type: ignore[method-assign]
    for _ in range(15):
        room.organizer.out.extend(beat(room, index, head))
        room.run(1.0, step=1.0)
    assert ana.dropped["fork"] == 0
    assert room.events(ana, events.OrganizerMissing) == [events.OrganizerMissing(True)]


def test_a_heartbeat_that_lags_is_no_sign_of_life() -> None:
    """A relay that delays everything by a minute shows an organizer that is not there."""
    room, ana, _ = two()
    room.organizer.wall_ms = lambda: int(room.now * 1000)
    room.run(11.0)
    delayed: list[tuple[float, bytes]] = []

    def late(to: ParticipantId, packet: bytes) -> list[bytes]:
        if to != ana.me:
            return [packet]
        delayed.append((room.now, packet))
        ready = [p for when, p in delayed if room.now - when >= MISSING_AFTER + 1]
        del delayed[: len(ready)]
        return ready

    room.meddle = late
    room.run(32.0, step=1.0)
    assert delayed
    assert room.events(ana, events.OrganizerMissing) == [events.OrganizerMissing(True)]
    room.meddle = None
    for _, packet in delayed:
        ana.receive_untrusted(packet, room.now)
    room.run(6.0)
    assert room.events(ana, events.OrganizerMissing)[-1] == events.OrganizerMissing(False)


# keys and snapshots


def test_B02_a_wrapped_key_that_no_entry_names_seals_and_opens_nothing() -> None:
    room, ana, _ = two()
    epoch = ana.state.epoch + 1
    other = GroupKey(epoch, bytes(16))
    room.organizer.chair.say_key(ana.me, other)
    room.run()
    assert ana.keyring.current == epoch - 1
    room.organizer.chair.rekeying.change(room.now)
    room.run()
    assert ana.keyring.current == epoch
    assert ana.keyring.group_key == room.organizer.keyring.group_key != bytes(16)


def test_keys_from_a_member_are_not_the_organizers() -> None:
    room, ana, ben = two()
    with pytest.raises(NotAllowed):
        ana._key_message(ben.me, GroupKey(9, bytes(16)), room.now)


def test_what_is_said_between_an_epoch_and_its_key_is_sealed_under_the_key() -> None:
    """The entry comes before the wrapped key: a slow channel 0."""
    room, ana, ben = two()
    cleo = room.admitted(4, "Cleo")
    withheld: list[bytes] = []

    def hold_keys(to: ParticipantId, packet: bytes) -> list[bytes]:
        if to == ana.me and packet[2] == Channel.KEY:
            withheld.append(packet)
            return []
        return [packet]

    room.meddle = hold_keys
    cleo.leave(room.now)
    room.run()
    assert ana.state.epoch == 5
    assert ana.keyring.current == 4
    assert not ana.may_seal
    ana.chat("under which key?")
    ben.chat("under the new one")
    room.run()
    assert ("Ana", "under which key?") not in room.chat(ben)
    assert ("Ben", "under the new one") not in room.chat(ana), "it waits for its key"
    room.meddle = None
    for packet in withheld:
        ana.receive_untrusted(packet, room.now)
    room.run()
    assert room.chat(ben)[-1] == ("Ana", "under which key?")
    assert sorted(room.chat(ana)) == [("Ana", "under which key?"), ("Ben", "under the new one")]
    assert {p[20:24] for p in room.ring if p[2] == Channel.CHAT} == {(5).to_bytes(4, "big")}


# saying


def test_what_waits_for_a_link_is_bounded_and_a_right_that_ends_ends_it() -> None:
    room, ana, ben = two()
    room.unlink(ana.me)
    for number in range(MAX_UNSENT):
        ana.chat(f"{number}")
    with pytest.raises(Congested):
        ana.chat("one too many")
    room.organizer.chair.allow_chat(ana.me, False, room.now)
    room.run()
    room.link(ana.me)
    room.run()
    assert room.chat(ben) == []
    assert len([d for d in room.events(ana, events.Dropped) if d.name == "not-allowed"]) == MAX_UNSENT
    with pytest.raises(NotAllowed):
        ana.chat("silent")


def test_a_line_is_one_clean_line_of_bounded_length() -> None:
    room, ana, ben = two()
    ana.chat("\x1b[2J two\nlines\u202e \t ")
    ana.chat(" \n ")
    ana.chat("x" * MAX_TEXT)
    with pytest.raises(TooLong):
        ana.chat("x" * (MAX_TEXT + 1))
    room.run()
    assert [text for _, text in room.chat(ben)] == ["[2J two lines", "x" * MAX_TEXT]


def test_a_modified_clients_line_is_cleaned_by_its_reader() -> None:
    room, ana, ben = two()
    for content in (
        encode(ChatLine("\x1b]0;owned\x07\u202eevil", 0)),
        b"\xc1",
        encode(["x" * (MAX_TEXT + 1), 0]),
        encode(["x", -1]),
        encode(["x", 2**63]),
    ):
        ana.out.extend(ana.channels.seal(Channel.CHAT, content))
    ana.chat("honest")
    room.run()
    assert [text for _, text in room.chat(ben)] == ["]0;ownedevil", "honest"]
    assert ben.dropped["content-malformed"] == 4


def test_only_the_presenter_says_anything_of_the_screen() -> None:
    room, ana, _ = two()
    with pytest.raises(NotAllowed):
        ana.screen_packets(b"x", restart=True)
    room.organizer.chair.appoint(ana.me, room.now)
    room.run()
    ana.screen_packets(b"\0x", restart=True)
    room.unlink(ana.me)
    with pytest.raises(NotAllowed):
        ana.screen_packets(b"\0y", restart=False)


def test_G04_after_the_end_nothing_is_said_and_nothing_is_opened() -> None:
    room, ana, ben = two()
    ana.chat("before")
    room.run()
    recorded = list(room.wire)
    room.organizer.chair.end(room.now)
    room.run()
    seen = len(room.seen[ben.me])
    for packet in recorded:
        ben.receive_untrusted(packet, room.now)
    room.run()
    assert not [e for e in room.seen[ben.me][seen:] if not isinstance(e, events.Dropped)]
    with pytest.raises(SessionOver):
        ana.chat("after")
    with pytest.raises(NotAllowed):
        ana.screen_packets(b"x", restart=True)
    for member in (ana, ben, room.organizer):
        with pytest.raises(CryptoError):
            _ = member.keyring.group_key


def test_G13_who_was_written_off_erases_its_keys() -> None:
    room, _, ben = two()
    room.presence([], [ben.me])
    room.run(125.0, step=1.0)  # the link was up after all, or again: it reads that it has left
    assert not ben.joined
    assert ben.keyring.current is None
    (removed,) = room.events(ben, events.Removed)
    assert removed.reason == "left"


# what waits


class Script:
    """What became of a packet, by its first byte; counted."""

    def __init__(self) -> None:
        self.says: dict[int, Outcome] = {}
        self.tried: list[int] = []

    def take(self, packet: bytes) -> Outcome:
        self.tried.append(packet[0])
        return self.says.get(packet[0], Outcome.WAITS)


ANA, BEN = (Stream(ParticipantId(i), EVERYONE, Channel.CHAT) for i in (2, 3))


def test_an_authentic_packet_holds_up_its_stream_and_others_hold_up_nothing() -> None:
    room = Room()
    held, script = Held(room.organizer.dropped), Script()
    held.put(ANA, b"\1", 0.0)
    assert not held.holds_up(ANA)
    held.put(ANA, b"\2", 0.0, first=True)
    held.put(ANA, b"\3", 0.0)
    held.put(BEN, b"\4", 0.0)
    assert held.holds_up(ANA)
    assert not held.holds_up(BEN)
    script.says = {2: Outcome.WAITS_FIRST, 3: Outcome.DONE, 4: Outcome.DONE}
    held.retry(script.take)
    assert 3 not in script.tried, "it stands behind what is authentic and waits"
    assert len(held) == 3
    script.says = {2: Outcome.CHANGED, 3: Outcome.DONE}
    held.retry(script.take)
    assert script.tried.index(2) < script.tried.index(3)
    assert len(held) == 1
    assert not held.holds_up(ANA)


def test_what_waits_is_bounded_in_number_and_time() -> None:
    room = Room()
    held = Held(room.organizer.dropped)
    for number in range(MAX_HELD + 50):
        held.put(ANA, b"a", number / 1000)
    held.put(BEN, b"b", 5.0)
    assert len(held) == MAX_HELD
    assert room.organizer.dropped["held-too-many"] == 51
    script = Script()
    script.says = {ord("b"): Outcome.DONE}
    held.retry(script.take)
    assert script.tried.count(ord("b")) == 1, "the crowd of one stream cost the other nothing"
    assert held.expire(HOLD_FOR + 10)
    assert len(held) == 0
    assert not held.expire(HOLD_FOR + 20)
