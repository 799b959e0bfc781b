"""Identifiers: what people type, what never shows."""

import contextlib
import doctest
import importlib
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wire
from wire.errors import SENTENCES, CloseReason, MalformedMeetingId, ParleyError, WireError
from wire.ids import MEETING_IDS, Epoch, MeetingId, RoleToken, format_meeting_id, next_epoch, parse_meeting_id_untrusted


@given(st.integers(MEETING_IDS.start, MEETING_IDS.stop - 1).map(MeetingId), st.sampled_from(("-", " ", ".", "", "·", "–", "\u00a0")))
def test_a_meeting_id_is_read_as_people_write_it(meeting: MeetingId, between: str) -> None:
    text = format_meeting_id(meeting)
    assert len(text) == 11
    assert parse_meeting_id_untrusted(text) == meeting
    assert parse_meeting_id_untrusted(f" {text.replace('-', between)}\n") == meeting


@given(st.text(max_size=20))
def test_any_text_is_a_meeting_id_or_malformed(text: str) -> None:
    with contextlib.suppress(MalformedMeetingId):
        assert parse_meeting_id_untrusted(text) in MEETING_IDS
    assert "123-456-789" in MalformedMeetingId.sentence


@pytest.mark.parametrize("text", ["", "12345678", "1234567890", "012345678", "12345678a", "١٢٣٤٥٦٧٨٩", "¹23456789", "+23456789", "1_2345678"])
def test_what_is_no_meeting_id_is_malformed(text: str) -> None:
    with pytest.raises(MalformedMeetingId):
        parse_meeting_id_untrusted(text)


def test_G21_a_role_token_is_compared_and_never_shown() -> None:
    token = RoleToken(b"\x01\x02\x03\x04\x05\x06\x07\x08")
    assert token == RoleToken(token.reveal())
    assert token != RoleToken(b"\x01\x02\x03\x04\x05\x06\x07\x09")
    assert token != token.reveal()
    for text in (repr(token), str(token), f"{token}"):
        assert text == "RoleToken(…)"
    for wrong in (b"", b"7 bytes", b"nine byte"):
        with pytest.raises(ValueError, match="8 bytes"):
            RoleToken(wrong)
    with pytest.raises(TypeError):
        {token}  # noqa: B018  # hashing is what is tried


def test_a_term_ends_with_its_numbers() -> None:
    assert next_epoch(Epoch(1)) == 2
    assert next_epoch(Epoch(0x0100_0000)) == 0x0100_0001
    with pytest.raises(OverflowError):
        next_epoch(Epoch(0x00FF_FFFF))


def test_every_reason_has_a_sentence_for_a_person() -> None:
    assert set(SENTENCES) == set(CloseReason)
    assert all(sentence.endswith((".", "?")) and len(sentence) > 10 for sentence in SENTENCES.values())


def test_every_wire_error_closes_with_its_own_name() -> None:
    errors = WireError.__subclasses__()
    assert len({error.reason for error in errors}) == len(errors) >= 7
    for error in errors:
        assert error.name == error.reason.value
        assert str(error()) == f"{error.name}: {error.sentence}"
        assert str(error("too odd")) == f"{error.name}: too odd"
        assert issubclass(error, ParleyError)


@pytest.mark.parametrize("module", [info.name for info in pkgutil.iter_modules(wire.__path__)])
def test_examples_in_docstrings_are_true(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"wire.{module}")).failed == 0
