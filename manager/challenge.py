"""Proof of work: what a stranger's browser pays for a guess. No store, no HTTP.

    challenge = base64url(expiry u64 ‖ 16 random bytes ‖ first 16 bytes of HMAC-SHA256(a key of this process, expiry ‖ random))
    solved by any nonce of at most 32 printable characters for which SHA-256(challenge ‖ ":" ‖ nonce) begins with `BITS` zero bits

65,536 hashes on average: a tenth of a second for a browser, and no more than that for everybody who is honest, but an afternoon of many
machines for who would try all IDs. A challenge lives `LIVES` seconds and counts once. Nothing is kept of those that are not solved.
"""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final

from manager.errors import ChallengeFailed, Throttled

BITS: Final = 16
LIVES: Final = 120.0
MAX_SPENT: Final = 100_000
"""Solved challenges that are remembered until they expire."""
MAX_NONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Proof:
    """A challenge and what solves it."""

    challenge: str
    nonce: str


class Challenges:
    """`clock`: seconds since 1970."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._spent: dict[bytes, float] = {}  # until when, the oldest first

    def make(self) -> str:
        """A fresh challenge, 56 characters or less."""
        body = int(self._clock() + LIVES).to_bytes(8, "big") + secrets.token_bytes(16)
        return urlsafe_b64encode(body + self._tag(body)).rstrip(b"=").decode()

    def spend(self, proof: Proof) -> None:
        """Use it up. Raises `ChallengeFailed`, and `Throttled` if too many were solved of late."""
        now = self._clock()
        try:
            decoded = urlsafe_b64decode(proof.challenge.encode("ascii") + b"==")
            work = sha256(f"{proof.challenge}:{proof.nonce}".encode()).digest()
        except (ValueError, UnicodeError):
            raise ChallengeFailed from None
        body, tag = decoded[:24], decoded[24:]
        until = int.from_bytes(body[:8], "big")
        if len(decoded) != 40 or len(proof.nonce) > MAX_NONCE or not compare_digest(tag, self._tag(body)) or until <= now:
            raise ChallengeFailed
        if int.from_bytes(work, "big") >> (256 - BITS) or body in self._spent:
            raise ChallengeFailed
        while self._spent and next(iter(self._spent.values())) <= now:
            del self._spent[next(iter(self._spent))]
        if len(self._spent) >= MAX_SPENT:
            raise Throttled(retry_after=LIVES)
        self._spent[body] = now + LIVES

    def _tag(self, body: bytes) -> bytes:
        return hmac_digest(self._key, b"parley challenge" + body, "sha256")[:16]


def solve(challenge: str) -> Proof:
    """Do the work: tens of milliseconds of a core, for a thread."""
    begin, nonce = sha256(f"{challenge}:".encode()), 0
    while True:
        state = begin.copy()
        state.update(str(nonce).encode())
        if int.from_bytes(state.digest()[:4], "big") >> (32 - BITS) == 0:
            return Proof(challenge, str(nonce))
        nonce += 1
