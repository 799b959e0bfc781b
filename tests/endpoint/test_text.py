"""What others wrote, fit to be shown; names that look equal, told apart."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint.text import MAX_NAME, Crowd, clean_line, clean_name

ANYTHING = st.text(st.characters(), max_size=90)  # surrogates, controls and unassigned ones too


@given(ANYTHING)
@settings(max_examples=300, derandomize=True)
def test_a_clean_line_has_nothing_that_moves_a_terminal(text: str) -> None:
    line = clean_line(text)
    for character in line:
        assert character == " " or character in "\u200c\u200d" or unicodedata.category(character)[0] not in "CZ", hex(ord(character))
    assert line == " ".join(line.split(" "))
    assert "  " not in line
    assert clean_line(line) == line


@pytest.mark.parametrize(
    "hidden",
    [
        "\x1b", "\x07", "\r", "\x00", "\x9b", "\x7f", "\u202e", "\u2066", "\u200e", "\u200b", "\u2060", "\ufeff", "\u00ad", "\u2028",
        "\ud800", "\U000e0041", "\u115f",
    ],
    ids=lambda c: f"U+{ord(c):04X}",
)  # fmt: skip
def test_each_dangerous_character_goes(hidden: str) -> None:
    assert hidden not in clean_line(f"a{hidden}b")
    assert clean_name(hidden) == "Guest"


@pytest.mark.parametrize("kept", ["👩\u200d👩\u200d👧", "می\u200cخواهم", "Grüße", "日本語", "e\u0301", "👋🏽"])
def test_what_people_write_stays(kept: str) -> None:
    assert clean_line(kept) == kept


@given(ANYTHING)
@settings(max_examples=200, derandomize=True)
def test_a_name_is_one_short_line_that_shows_something(text: str) -> None:
    name = clean_name(text)
    assert 1 <= len(name) <= MAX_NAME
    assert name == clean_name(name)
    assert name.strip("\u200c\u200d ")
    name.encode()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ana", "ana"),
        ("Ana", "ＡＮＡ"),
        ("Zoë", "Zoe\u0308"),
        ("Ana", "An\u200da"),
        ("Ana", "An\ufe0fa"),
        ("Ana", "Аnа"),  # Cyrillic А, а
        ("TOM", "ТОМ"),  # all Cyrillic
        ("Nova", "Νονα"[0] + "ova"),  # Greek Ν
        ("ﬁlip", "filip"),
        ("strasse", "Straße"),
    ],
)
def test_names_that_look_equal_are_told_apart(one: str, other: str) -> None:
    assert Crowd({one}).distinct(clean_name(other)) == f"{clean_name(other)} (2)"
    assert Crowd({one, f"{one} (2)"}).distinct(clean_name(other)).endswith(" (3)")


def test_names_that_look_different_stay() -> None:
    for name in ("Ana B", "Anna", "Αθηνά", "Борис", "名前"):
        assert Crowd({"Ana", "Boris"}).distinct(name) == name


@given(st.lists(ANYTHING, max_size=12))
@settings(max_examples=100, derandomize=True)
def test_any_crowd_gets_distinct_names_of_legal_length(wishes: list[str]) -> None:
    crowd, taken = Crowd(()), set[str]()
    for wish in wishes:
        name = crowd.distinct(clean_name(wish))
        assert name not in taken
        assert 1 <= len(name) <= MAX_NAME
        taken.add(name)
