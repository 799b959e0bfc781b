"""What other people wrote, made fit to be shown: no control characters, nothing that turns the writing direction, nothing invisible.

Receivers do this, not senders: a modified client does not clean its own lines.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

MAX_NAME: Final = 64
_KEPT_FORMAT: Final = frozenset("\u200c\u200d")  # joiners: Persian, Indic scripts and composed emoji need them
_DROPPED: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn"))
_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and symbols that show nothing: Hangul fillers, the empty Braille cell
_NO_WIDTH: Final = frozenset("\u034f\u180b\u180c\u180d\u200c\u200d")
_SELECTORS: Final = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_LATIN_SHAPES: Final = str.maketrans("авеніјкморстухѕһԁԛԝαβεζηικμνορτυχϳ", "abehijkmopctyxshdqwabezhikmnoptuxj")  # Cyrillic, Greek; lower case


def clean_line(text: str) -> str:
    """One line: tabs, line breaks and other white space become single spaces, control, bidirectional and invisible characters go."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if character.isspace() or category in ("Zl", "Zp") or character in _BLANK:
            kept.append(" ")
        elif category not in _DROPPED or character in _KEPT_FORMAT:
            kept.append(character)
    return " ".join("".join(kept).split())


@lru_cache(maxsize=1 << 15)  # a hall is told about, member by member
def clean_name(text: str, otherwise: str = "Guest") -> str:
    """A display name: one clean line of 1 to `MAX_NAME` characters."""
    name = clean_line(unicodedata.normalize("NFC", text))[:MAX_NAME].strip("\u200c\u200d ")
    return name or otherwise


class Crowd:
    """The names that are taken, as readers see them. One for a batch of newcomers: it looks at each name of a full hall once."""

    def __init__(self, names: Iterable[str]) -> None:
        self._seen = {_looks(name) for name in names}
        self._numbers: dict[str, int] = {}  # the last one tried behind what many are called

    def distinct(self, name: str) -> str:
        """The name, with a number behind it if another one looks the same to a reader. It is taken from now on."""
        looks = _looks(name)
        candidate, number = name, self._numbers.get(looks, 1)
        while _looks(candidate) in self._seen:
            number += 1
            suffix = f" ({number})"
            candidate = name[: MAX_NAME - len(suffix)] + suffix
        self._numbers[looks] = number
        self._seen.add(_looks(candidate))
        return candidate


@lru_cache(maxsize=1 << 15)
def _looks(text: str) -> str:
    """What a reader sees, roughly: case, compatibility forms, what has no width, and letters of other scripts with a Latin shape do not
    count."""
    seen = unicodedata.normalize("NFKC", text).casefold().translate(_LATIN_SHAPES)
    return "".join(c for c in seen if c not in _NO_WIDTH and not _SELECTORS.match(c))
