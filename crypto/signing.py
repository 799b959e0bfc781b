"""Who sent it: Ed25519 signatures (RFC 8032), X25519 pair secrets (RFC 7748), and what a signature covers.

A group's authentication tag shows only that *some* member sealed a packet. So whatever matters is signed inside the
ciphertext. A message is one or more packets; its signature covers

    MSG = SHA-256(framed("parley msg 1", base, header 1, payload 1, header 2, payload 2, …))

where a payload is a plaintext without the signature, and `base` chains screen updates: the MSG before, empty elsewhere.
Signatures are made over `framed(label, …)`, never over bare bytes, so one purpose's signature is worth nothing in another.
"""

import base64
import hashlib
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from crypto.errors import BadLength, BadSignature, WeakKey
from crypto.suite import (
    HASH_SIZE,
    HEADER_SIZE,
    LABEL_MESSAGE,
    LABEL_ORGANIZER,
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    framed,
)

SMALL_ORDER: Final = frozenset(
    bytes.fromhex(y)
    for y in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
"""Ed25519 keys, without the sign bit, for which one signature can be right for many messages: the points of order 1, 2, 4 and 8."""
WEAK_EXCHANGE: Final = frozenset(
    (u + sign).to_bytes(32, "little")
    for sign in (0, 1 << 255)
    for u in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        2**255 - 20,
        2**255 - 19,
        2**255 - 18,
    )
)
"""X25519 keys with which nobody can share a secret (`ExchangeKey.shared` raises WeakKey): the points of order 1, 2, 4 and 8 of the curve and
of its twist, in all their forms."""
FIRST_BASE: Final = bytes(HASH_SIZE)  # the base of the very first message on a chained channel


class SigningKey:
    """An Ed25519 key: a member's identity in one session, or the meeting key."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """A fresh key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key of a 32-byte seed. Raises BadLength."""
        if len(seed) != PUBLIC_KEY_SIZE:
            raise BadLength
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for sealing to disk."""
        return self._key.private_bytes_raw()

    def sign(self, label: bytes, *parts: bytes) -> bytes:
        """The signature (64 bytes) over `framed(label, *parts)`."""
        return self._key.sign(framed(label, *parts))

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"


def verify(public: bytes, signature: bytes, label: bytes, *parts: bytes) -> None:
    """Check a signature over `framed(label, *parts)`. Raises BadSignature, for a key or signature of a wrong size too, and for a key under
    which a signature says nothing: RFC 8032 lets them pass, but what is signed here must have one meaning (a hand-over of one session,
    say, must not be one of the next)."""
    if len(public) != PUBLIC_KEY_SIZE or len(signature) != SIGNATURE_SIZE or public[:31] + bytes((public[31] & 127,)) in SMALL_ORDER:
        raise BadSignature
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, framed(label, *parts))
    except InvalidSignature:
        raise BadSignature from None


class ExchangeKey:
    """An X25519 key, fresh for every participant; an organizer that comes back after a crash keeps it under its new ID."""

    __slots__ = ("_key", "public")

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """A fresh key."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, secret: bytes) -> Self:
        """The key of 32 secret bytes. Raises BadLength."""
        if len(secret) != PUBLIC_KEY_SIZE:
            raise BadLength
        return cls(X25519PrivateKey.from_private_bytes(secret))

    def to_bytes(self) -> bytes:
        """The 32 secret bytes, for sealing to disk."""
        return self._key.private_bytes_raw()

    def shared(self, peer_public: bytes) -> bytes:
        """The 32-byte secret shared with the owner of a key.

        Raises BadLength, and WeakKey if the result is all zero (RFC 7748, section 6.1): such a key is known to everyone.
        """
        if len(peer_public) != PUBLIC_KEY_SIZE:
            raise BadLength
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:  # cryptography's way to say: all zero
            raise WeakKey from None

    def __repr__(self) -> str:
        return f"ExchangeKey(public={self.public.hex()})"


class MessageHash:
    """MSG of one message, fed packet by packet. `base` is empty, or the 32-byte MSG before on a chained channel."""

    __slots__ = ("_hash",)

    def __init__(self, base: bytes = b"") -> None:
        if len(base) not in (0, HASH_SIZE):
            raise BadLength
        self._hash = hashlib.sha256(framed(LABEL_MESSAGE, base))

    def update(self, header: bytes, payload: bytes) -> None:
        """Add one packet: its 32-byte header and its plaintext without the signature. Raises BadLength."""
        if len(header) != HEADER_SIZE:
            raise BadLength
        # framed() of the whole list, continued: each part behind its length
        self._hash.update(len(header).to_bytes(4, "big") + header + len(payload).to_bytes(4, "big"))
        self._hash.update(payload)

    def digest(self) -> bytes:
        """MSG so far, 32 bytes; more packets may follow."""
        return self._hash.digest()


def fingerprint(meeting_key: bytes) -> str:
    """F of a link: 26 letters and digits, base32 of the first 128 bits of the meeting key's hash. Raises BadLength."""
    if len(meeting_key) != PUBLIC_KEY_SIZE:
        raise BadLength
    digest = hashlib.sha256(framed(LABEL_ORGANIZER, meeting_key)).digest()
    return base64.b32encode(digest[:16]).decode("ascii").rstrip("=").lower()
