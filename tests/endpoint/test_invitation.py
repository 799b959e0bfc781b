"""Links and typed IDs: what goes in comes out; what is neither is `link-malformed`. The words beside them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.signing import SigningKey, fingerprint
from endpoint.errors import MalformedLink, WrongOrganizer
from endpoint.guest import Guest
from endpoint.invitation import MAX_PASSWORD, Badge, Invitation, invitation_for, parse_invitation_untrusted
from endpoint.words import COMPARED_WORDS, PASSWORD_WORDS, comparison_words, new_password
from tests.endpoint.room import Room
from wire.ids import MeetingId

SITES = st.sampled_from(["https://parley.example", "https://127.0.0.1:8443", "https://[::1]:1", "http://localhost"])
PASSWORDS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_PASSWORD)
KEYS = st.binary(min_size=32, max_size=32)


@given(
    meeting=st.integers(100_000_000, 999_999_999),
    site=SITES,
    invite=st.none() | st.binary(min_size=8, max_size=8).map(bytes.hex),
    password=PASSWORDS,
    key=KEYS,
)
@settings(max_examples=300, derandomize=True)
def test_B01_a_link_comes_back_whole(meeting: int, site: str, invite: str | None, password: str | None, key: bytes) -> None:
    invitation = Invitation(MeetingId(meeting), site, invite, password, fingerprint(key))
    link = invitation.link()
    assert link.isascii()
    assert parse_invitation_untrusted(f"  {link}\n") == invitation
    before, _, fragment = link.partition("#")
    assert fragment
    assert Invitation(MeetingId(meeting), site, invite).link() == before, "the password stands in the fragment alone, which no server gets"


@given(
    st.text(max_size=80)
    | st.builds("https://h/j/{}".format, st.text(max_size=60))
    | st.builds("h/j/123456789/{}#{}".format, st.text(), st.text())
)
@settings(max_examples=400, derandomize=True)
def test_anything_else_is_malformed_by_name(text: str) -> None:
    try:
        parsed = parse_invitation_untrusted(text)
    except MalformedLink:
        return
    assert 100_000_000 <= parsed.meeting <= 999_999_999
    assert parsed.password is None or 1 <= len(parsed.password) <= MAX_PASSWORD


def test_a_cut_link_is_told_from_a_whole_one() -> None:
    link = Invitation(MeetingId(123456789), "https://h", "0123456789abcdef", "four-words-of-it", fingerprint(bytes(32))).link()
    whole = parse_invitation_untrusted(link)
    for end in range(len("https://h/j/"), len(link)):
        try:
            cut = parse_invitation_untrusted(link[:end])
        except MalformedLink:
            continue
        assert cut.expected is None, "a link without its end never looks whole"
        assert cut != whole
    with pytest.raises(MalformedLink, match="copy the whole link"):
        parse_invitation_untrusted(link[:-1])


def test_B01_the_badge_says_no_more_than_is_true() -> None:
    whole = Invitation(MeetingId(123456789), "https://h", None, "words", "f" * 26)
    assert whole.badge is Badge.OPERATOR_PROOF
    assert Invitation(MeetingId(123456789), password="words").badge is Badge.UNLESS_INVITEE
    for without in (
        Invitation(MeetingId(123456789)),
        Invitation(MeetingId(123456789), expected="f" * 26),
        Invitation(MeetingId(123456789), password=""),
    ):
        assert without.badge is Badge.IMPERSONABLE
    assert "words" not in repr(whole)


def test_B01_the_organizers_link_names_its_key_and_no_other() -> None:
    room = Room()
    link = invitation_for(MeetingId(123456789), "https://h", "0" * 16, room.password, room.meeting_key.public).link()
    parsed = parse_invitation_untrusted(link)
    assert parsed.password == room.password
    room.guest(2, "Ana", password=parsed.password, expected=parsed.expected)
    with pytest.raises(WrongOrganizer):
        Guest(room.ticket(3), room.password, "Ben", expected=fingerprint(SigningKey.generate().public))


def test_words_are_drawn_afresh_and_comparison_words_are_the_keys() -> None:
    passwords = {new_password() for _ in range(50)}
    assert len(passwords) == 50
    assert all(len(password.split("-")) == PASSWORD_WORDS for password in passwords)
    ours = comparison_words(bytes(32))
    assert ours == comparison_words(bytes(32)) != comparison_words(bytes(31) + b"\1")
    assert len(ours.split()) == COMPARED_WORDS
