"""Passwords of accounts: what is asked of them, how guessable one is, and the verifier that is kept.

Asked: eight characters or more, a letter and a digit, and none of the passwords that everybody tries first. The meter is zxcvbn's, 0 to 4.

Kept: Argon2id (RFC 9106) over NFC, 64 MiB and three passes, so that a guess from a stolen database costs as much memory and time as
a sign-in. Verifying an absent account takes the same work as a present one: `DUMMY` is verified instead. The work is done in threads, at
most `HASHING` at once and `WAITING` in line behind them, so that a flood of sign-ins costs the event loop nothing and memory a known amount.
"""

import os
import unicodedata
from typing import Final

import trio
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from manager.errors import RequestMalformed, Throttled

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 256
"""Characters, after NFC."""
MEMORY: Final = 64 * 1024
"""KiB."""
PASSES: Final = 3
HASHING: Final = max(1, min(4, len(os.sched_getaffinity(0)) - 1))
"""Hashes at once: a core stays with the event loop. More than four would cost more memory than they are worth."""
WAITING: Final = 64
_METERED: Final = 72
"""Characters that the meter looks at: its work grows faster than their number."""
_COMMON: Final = frozenset(FREQUENCY_LISTS["passwords"])
_HASHER: Final = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY, parallelism=1)
DUMMY: Final = f"$argon2id$v=19$m={MEMORY},t={PASSES},p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""A verifier of nothing, of the same cost as every other."""


def check_password(password: str, *about: str) -> str:
    """The password in NFC. `about`: what others know of the person, which a password must not be. Raises `RequestMalformed`."""
    password = unicodedata.normalize("NFC", password)
    if len(password) < MIN_LENGTH:
        raise RequestMalformed("a password has at least 8 characters")
    if len(password) > MAX_LENGTH:
        raise RequestMalformed("a password has at most 256 characters")
    if not (any(c.isalpha() for c in password) and any(c.isdigit() for c in password)):
        raise RequestMalformed("a password has a letter and a digit at least")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in password):
        raise RequestMalformed("a password has no control characters")
    folded = password.casefold()
    if folded in _COMMON or folded in {word.casefold() for word in about}:
        raise RequestMalformed("this password is one of the first that anybody would try")
    return password


def strength(password: str, *about: str) -> int:
    """0 (guessed at once) to 4 (safe from a stolen database), for the meter."""
    if not password:
        return 0
    return int(zxcvbn(unicodedata.normalize("NFC", password)[:_METERED], user_inputs=[word for word in about if word])["score"])


def make_verifier(password: str) -> str:
    """Argon2id in its own notation, with a fresh salt. Costs 64 MiB and tenths of a second."""
    return _HASHER.hash(unicodedata.normalize("NFC", password))


def verify(verifier: str | None, password: str) -> bool:
    """Whether the password is the verifier's; for None the same work, and False."""
    try:
        right = _HASHER.verify(verifier or DUMMY, unicodedata.normalize("NFC", password)[: 2 * MAX_LENGTH])
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False
    return right and verifier is not None


class Hashing:
    """`make_verifier`, `verify` and `strength` in threads. Raises `Throttled` when too many wait already."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(HASHING)
        self._meter = trio.CapacityLimiter(1)  # anybody may ask it, and a long word costs it tenths of a second

    async def make_verifier(self, password: str) -> str:
        self._room(self._limiter)
        return await trio.to_thread.run_sync(make_verifier, password, limiter=self._limiter)

    async def verify(self, verifier: str | None, password: str) -> bool:
        self._room(self._limiter)
        return await trio.to_thread.run_sync(verify, verifier, password, limiter=self._limiter)

    async def strength(self, password: str, *about: str) -> int:
        self._room(self._meter)
        return await trio.to_thread.run_sync(strength, password, *about, limiter=self._meter)

    def _room(self, limiter: trio.CapacityLimiter) -> None:
        if limiter.statistics().tasks_waiting >= WAITING:
            raise Throttled(retry_after=2.0)
