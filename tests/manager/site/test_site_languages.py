"""Every sentence in every language, and dates as people write them."""

from datetime import UTC, datetime
from string import Formatter

import pytest

from manager.site.languages import LANGUAGES, Language, catalogue, choose, languages, said, untranslated, zone_options

OTHERS = [code for code in LANGUAGES if code != "en"]


def placeholders(text: str) -> set[str]:
    """What is filled in: %(name)s and {name}."""
    named = {part.partition(")")[0] for part in text.split("%(")[1:]}
    return named | {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("code", OTHERS)
def test_nothing_is_untranslated(code: str) -> None:
    known = catalogue(code)
    missing = sorted({str(words) for words, _ in said() if known.get(words if isinstance(words, str) else words[0]) is None})
    assert not missing, "run `make words`, and translate what it adds"
    assert not untranslated(known)


@pytest.mark.parametrize("code", OTHERS)
def test_translations_fill_in_the_same(code: str) -> None:
    for message in catalogue(code):
        ids = message.id if isinstance(message.id, tuple | list) else [message.id]
        strings = message.string if isinstance(message.string, tuple | list) else [message.string]
        for text in strings:
            assert placeholders(text or "") == placeholders(ids[-1]), ids


@pytest.mark.parametrize(
    ("chosen", "accepted", "code"),
    [
        (None, "", "en"),
        (None, "fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        (None, "de,fr;q=0.2,en;q=0.1", "fr"),
        (None, "en;q=0.3,fr;q=0.7", "fr"),
        ("fr", "en", "fr"),
        ("xx", "fr", "fr"),
        (None, "*;q=x,,;;q=1,\x00" * 100, "en"),
        (None, "de", "en"),
    ],
    ids=["nothing", "region", "second-best", "weighed", "chosen", "unknown", "rubbish", "none-of-ours"],
)
def test_a_language_is_chosen_or_negotiated(chosen: str | None, accepted: str, code: str) -> None:
    assert choose(chosen, accepted).code == code


def test_dates_are_told_in_each_language() -> None:
    moment = datetime(2026, 12, 24, 15, 0, tzinfo=UTC)
    assert [language.when(moment) for language in languages().values()] == ["Thursday 24 December 2026, 15:00", "jeudi 24 décembre 2026, 15:00"]
    french = Language("fr")
    assert (french.duration(5400), french.duration(40), french.duration(0)) == ("1\u00a0h 30\u00a0min", "40\u00a0s", "0\u00a0s")
    assert french.ago(-180) == "il y a 3 minutes"
    options = zone_options("fr", "Asia/Tokyo")
    assert '<option value="Asia/Tokyo" selected>Asia/Tokyo – Japon</option>' in options
    assert options.count("<option ") > 300
    assert options.count(" selected") == 1
