"""What other people wrote, made fit to be shown: no control characters, nothing that turns the writing direction, nothing invisible.

Receivers do this, not senders: a modified client does not clean its own lines.
"""

import unicodedata
from typing import Final

MAX_NAME: Final = 64
_KEPT_FORMAT: Final = frozenset("\u200c\u200d")  # joiners: Persian, Indic scripts and composed emoji need them
_DROPPED: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn"))


def clean_line(text: str) -> str:
    """One line: tabs, line breaks and other white space become single spaces, control, bidirectional and invisible characters go."""
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if character.isspace() or category in ("Zl", "Zp"):
            kept.append(" ")
        elif category not in _DROPPED or character in _KEPT_FORMAT:
            kept.append(character)
    return " ".join("".join(kept).split())


def clean_name(text: str, otherwise: str = "Guest") -> str:
    """A display name: one clean line of 1 to `MAX_NAME` characters."""
    name = clean_line(unicodedata.normalize("NFC", text))[:MAX_NAME].strip("\u200c\u200d ")
    return name or otherwise


def distinct_name(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if another one looks the same to a reader (case and compatibility forms do not count)."""

    def looks(text: str) -> str:
        return unicodedata.normalize("NFKC", text).casefold()

    seen = {looks(other) for other in taken}
    candidate, number = name, 1
    while looks(candidate) in seen:
        number += 1
        suffix = f" ({number})"
        candidate = name[: MAX_NAME - len(suffix)] + suffix
    return candidate
