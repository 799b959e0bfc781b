"""A ticket is what a manager says; whatever it says instead is a ValueError."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.ticket import Ticket
from tests.endpoint.test_manager_api import TICKET

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*TICKET, "node", "addresses"]), inner, max_size=4),
    max_leaves=12,
)


def test_a_whole_ticket_is_read() -> None:
    ticket = Ticket.from_json_untrusted(TICKET)
    assert (ticket.role, ticket.meeting, ticket.meeting_key, ticket.secret) == (2, 123456789, bytes(32), b"\x5e" * 32)
    assert ticket.token.reveal() == bytes.fromhex("00112233445566ff")
    assert "5e5e" not in repr(ticket)
    assert "0011" not in repr(ticket)


@given(st.sampled_from(sorted(TICKET)), JSON)
@settings(max_examples=300, derandomize=True)
def test_a_field_of_any_kind_raises_value_error_alone(name: str, value: Any) -> None:
    for data in ({**TICKET, name: value}, {key: held for key, held in TICKET.items() if key != name}, value):
        try:
            Ticket.from_json_untrusted(data)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session", "1" + "0" * 16),
        ("session", "-1"),
        ("participant", 0),
        ("participant", 2**32),
        ("participant", json.loads("Infinity")),
        ("role", 9),
        ("token", "00"),
        ("secret", "00" * 31),
        ("meeting_key", "A" * 42),
        ("meeting_key", "☂" * 43),
        ("relays", []),
        ("relays", [{"node": "mcs-1", "addresses": []}]),
        ("relays", [{"node": "mcs-1", "addresses": [["127.0.0.1", 0]]}]),
        ("relays", [{"node": "mcs-1", "addresses": [["127.0.0.1", 65536]]}]),
        ("relays", [{"node": "mcs-1", "addresses": [["a" * 64 + ".example", 443]]}]),
        ("relays", [{"node": "mcs-1", "addresses": [["a\0b", 443]]}]),
        ("relays", [{"node": "mcs-1", "addresses": [["", 443]]}]),
        ("relays", [{"node": "mcs-1", "addresses": ["127.0.0.1:443"]}]),
        ("meeting_id", json.loads("-Infinity")),
    ],
)
def test_what_could_not_be_used_is_no_ticket(name: str, value: Any) -> None:
    with pytest.raises(ValueError):
        Ticket.from_json_untrusted({**TICKET, name: value})


def test_a_title_is_fit_to_be_shown() -> None:
    assert Ticket.from_json_untrusted({**TICKET, "title": "\u202eWeekly\u001b[2J\n"}).title == "Weekly[2J"
