"""Words for people: generated passwords, and the six words that two people compare by voice. BIP-39's English list, 2,048 words."""

import secrets
from functools import cache
from hashlib import sha256
from typing import Final

from mnemonic import Mnemonic

from crypto.suite import framed

PASSWORD_WORDS: Final = 4
"""44 bits. SRP makes that enough: a guess costs one failed join, three a ticket, and recorded traffic allows none."""
COMPARED_WORDS: Final = 6
"""66 bits of the meeting key's hash."""
_BITS: Final = 11


@cache
def _words() -> tuple[str, ...]:
    return tuple(Mnemonic("english").wordlist)


def new_password() -> str:
    """Four words, for example `canyon-purse-alien-sound`."""
    return "-".join(secrets.choice(_words()) for _ in range(PASSWORD_WORDS))


def comparison_words(meeting_key: bytes) -> str:
    """Six words of SHA-256(framed("parley words 1", meeting key)): the same at everyone whose organizer is the same."""
    number = int.from_bytes(sha256(framed(b"parley words 1", meeting_key)).digest(), "big")
    words = _words()
    return " ".join(words[number >> (256 - _BITS * (i + 1)) & (1 << _BITS) - 1] for i in range(COMPARED_WORDS))
