"""What a relay lets pass, as a matrix; and facts that arrive in any order."""

from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcs import limits
from mcs.admission import Admission, Pass
from wire.control import VERSION, Facts, Grant, Hello
from wire.errors import CloseReason
from wire.ids import EVERYONE, Channel, Epoch, ParticipantId, SessionId
from wire.packet import UNICAST_CHANNELS, Flag, PacketHeader

SESSION = SessionId(77)
OFFICE, ADMITTED, GUEST, STRANGER = map(ParticipantId, (1, 2, 3, 9))
TOKENS = {p: bytes([p] * 8) for p in (OFFICE, ADMITTED, GUEST)}


def admission() -> Admission:
    known = Admission(SESSION)
    grants = [Grant(p, 1 if p == OFFICE else 2, token) for p, token in TOKENS.items()]
    known.merge(Facts(serial=0, session=SESSION, grants=grants, admitted=[ADMITTED], office=OFFICE, successors=[ADMITTED], term=1), 0.0)
    return known


def hello(participant: int, token: bytes | None = None, role: int | None = None, version: int = VERSION) -> Hello:
    return Hello(
        version=version,
        session=SESSION,
        participant=participant,
        role=role if role is not None else 1 if participant == OFFICE else 2,
        token=token if token is not None else TOKENS[ParticipantId(participant)],
        fresh=False,
        have=[],
    )


def header(sender: int, channel: int, to: int = 0, flags: int = 0, session: int = SESSION) -> PacketHeader:
    return PacketHeader(flags, channel, SessionId(session), ParticipantId(sender), ParticipantId(to), Epoch(0 if to else 1), 0)


MATRIX = [
    (by, channel, to)
    for by, channel, to in product((OFFICE, ADMITTED, GUEST), Channel, (OFFICE, ADMITTED, GUEST, EVERYONE))
    if by != to and (channel in UNICAST_CHANNELS) == (to != EVERYONE)  # wire.packet refuses the others
]


@pytest.mark.parametrize(("by", "channel", "to"), MATRIX)
def test_what_each_may_send(by: ParticipantId, channel: Channel, to: ParticipantId) -> None:
    offices = (Channel.LOG, Channel.ROSTER)
    may = {OFFICE: True, ADMITTED: channel not in offices, GUEST: channel == Channel.KEY and to == OFFICE}[by]
    found = admission().check(header(by, channel, to), by, 0.0)
    assert (found is Pass.FORWARD) == may
    if not may:
        assert found is (Pass.NOT_OFFICE if channel in offices else Pass.NOT_ADMITTED)


@pytest.mark.parametrize(("by", "to"), [(a, b) for a, b in product((OFFICE, ADMITTED, GUEST), repeat=2) if a != b])
def test_handshakes_pass_to_and_from_the_office_alone(by: ParticipantId, to: ParticipantId) -> None:
    found = admission().check(header(by, 0, to, Flag.CLEAR | Flag.LAST), by, 0.0)
    assert found is (Pass.CLEAR if OFFICE in (by, to) else Pass.NOT_HANDSHAKE)


def test_nobody_speaks_for_others_or_in_another_session() -> None:
    known = admission()
    assert known.check(header(ADMITTED, Channel.CHAT), OFFICE, 0.0) is Pass.FOREIGN
    assert known.check(header(OFFICE, Channel.CHAT, session=78), OFFICE, 0.0) is Pass.FOREIGN


def test_G21_tokens_that_are_refused() -> None:
    known = admission()
    refused = CloseReason.TOKEN_REFUSED
    assert known.enter(hello(ADMITTED), 0.0) is None
    assert known.enter(hello(ADMITTED, token=bytes(8)), 0.0) is refused
    assert known.enter(hello(ADMITTED, token=TOKENS[GUEST]), 0.0) is refused  # somebody else's
    assert known.enter(hello(ADMITTED, role=1), 0.0) is refused  # an organizer's role for an attendee's token
    assert known.enter(hello(STRANGER, token=bytes(8)), 0.0) is refused  # equal to what an unknown one is compared with
    assert known.enter(hello(ADMITTED, version=VERSION + 1), 0.0) is CloseReason.VERSION_UNSUPPORTED


def test_G21_no_token_stands_in_a_representation() -> None:
    known = admission()
    token = TOKENS[ADMITTED]
    shown = repr(known.grants) + repr(known.facts()) + repr(hello(ADMITTED))
    assert repr(token) not in shown
    assert token.hex() not in shown


def test_a_revoked_token_stays_dead() -> None:
    known = admission()
    facts = known.revoke(OFFICE, ADMITTED)
    assert known.merge(facts, 0.0) is not None
    assert known.enter(hello(ADMITTED), 0.0) is CloseReason.REVOKED
    assert known.enter(hello(ADMITTED, token=bytes(8)), 0.0) is CloseReason.TOKEN_REFUSED
    known.merge(Facts(serial=0, session=SESSION, grants=[Grant(ADMITTED, 2, bytes(8))]), 0.0)
    assert known.enter(hello(ADMITTED), 0.0) is CloseReason.REVOKED


def test_only_the_office_says_these() -> None:
    for by in (ADMITTED, GUEST, STRANGER):
        known = admission()
        with pytest.raises(PermissionError):
            known.admit(by, [GUEST])
        with pytest.raises(PermissionError):
            known.revoke(by, GUEST)
        with pytest.raises(PermissionError):
            known.end(by)
        if by in known.successors:
            assert known.merge(known.pass_office(by, by, [], limits.SUCCESSOR_AFTER - 1), 0.0) is None, "it claims too early, and may ask again"
        else:
            with pytest.raises(PermissionError):
                known.pass_office(by, by, [], limits.SUCCESSOR_AFTER - 1)
    with pytest.raises(PermissionError):
        admission().revoke(OFFICE, OFFICE)


def test_the_office_that_is_said_again_raises_no_term() -> None:
    known = admission()
    known.merge(known.pass_office(OFFICE, OFFICE, [ADMITTED], 0.0), 0.0)
    term = known.term
    assert known.merge(known.pass_office(OFFICE, OFFICE, [ADMITTED], 0.0), 0.0) is None
    assert (known.office, known.term) == (OFFICE, term)


def test_the_office_passes_by_its_holder_or_to_a_successor_after_a_minute() -> None:
    known = admission()
    known.merge(known.pass_office(OFFICE, ADMITTED, [], 0.0), 0.0)
    assert (known.office, known.term) == (ADMITTED, 2)
    assert known.check(header(OFFICE, Channel.LOG), OFFICE, 0.0) is Pass.NOT_OFFICE
    known = admission()
    known.merge(known.pass_office(ADMITTED, ADMITTED, [GUEST], limits.SUCCESSOR_AFTER), 0.0)
    assert (known.office, known.term, known.successors) == (ADMITTED, 2, (GUEST,))
    with pytest.raises(PermissionError):
        admission().pass_office(GUEST, GUEST, [], limits.SUCCESSOR_AFTER)


def test_G04_an_ended_session_takes_nothing_and_is_readable_for_two_minutes() -> None:
    known = admission()
    known.merge(known.end(OFFICE), 100.0)
    assert known.check(header(OFFICE, Channel.CHAT), OFFICE, 100.0) is Pass.OVER
    assert known.check(header(OFFICE, Channel.LOG), OFFICE, 100.0) is Pass.FORWARD  # its last entries may still be on their way
    assert known.check(header(OFFICE, Channel.LOG), OFFICE, 100.0 + limits.END_GRACE) is Pass.OVER
    assert known.enter(hello(ADMITTED), 219.9) is None
    assert known.enter(hello(ADMITTED), 220.0) is CloseReason.ENDED
    assert known.enter(hello(ADMITTED, token=bytes(8)), 220.0) is CloseReason.TOKEN_REFUSED
    with pytest.raises(PermissionError):
        known.admit(OFFICE, [GUEST])


def state(known: Admission) -> tuple[object, ...]:
    return (known.grants, known.admitted, known.revoked, known.office, known.term, known.ended)


FACTS = st.builds(
    Facts,
    serial=st.just(0),
    session=st.just(int(SESSION)),
    grants=st.lists(st.builds(lambda p: Grant(p, 2, bytes([p] * 8)), st.integers(1, 5)), max_size=3),
    admitted=st.lists(st.integers(1, 5), max_size=3),
    revoked=st.lists(st.integers(1, 5), max_size=2),
    office=st.integers(0, 3),
    successors=st.just([]),
    term=st.integers(0, 3),
    ended=st.booleans(),
)


@given(st.lists(FACTS, max_size=4))
def test_the_order_of_facts_does_not_matter(facts: list[Facts]) -> None:
    states = []
    for order in permutations(facts):
        known = Admission(SESSION)
        for one in order:
            known.merge(one, 0.0)
        states.append(state(known))
    assert all(s == states[0] for s in states)


@given(st.lists(FACTS, max_size=6))
def test_news_are_all_that_another_needs_and_are_news_once(facts: list[Facts]) -> None:
    known, told, anew = Admission(SESSION), Admission(SESSION), Admission(SESSION)
    for one in facts:
        news = known.merge(one, 0.0)
        if news is not None:
            assert told.merge(news, 0.0) is not None
        assert known.merge(one, 0.0) is None
    for part in known.facts():
        anew.merge(part, 0.0)
    assert state(known) == state(told) == state(anew)


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcs.admission.MAX_GRANTS", 5)
    known = admission()
    grants = [Grant(p, 2, bytes(8)) for p in range(10, 20)]
    known.merge(Facts(serial=0, session=SESSION, grants=grants, admitted=list(range(10, 20)), revoked=list(range(10, 20))), 0.0)
    assert (len(known.grants), len(known.admitted), len(known.revoked)) == (5, 5, 5)


def test_many_grants_travel_in_parts() -> None:
    known = Admission(SESSION)
    for at in range(0, 3000, 1000):
        known.merge(Facts(serial=0, session=SESSION, grants=[Grant(p, 2, bytes(8)) for p in range(at + 1, at + 1001)]), 0.0)
    parts = known.facts()
    assert [len(p.grants) for p in parts] == [1024, 1024, 952]
