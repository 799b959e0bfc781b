"""The key schedule: from a group key, a pair's secret or a key-encrypting key to the keys of one stream.

    group key (16) ──extract, session ‖ epoch──▶ PRK ─┬─expand "stream" ‖ sender ‖ recipient ‖ channel──▶ salt 4 ‖ AES 16 ‖ MAC 20
    roster key(16) ──extract, session ‖ epoch──▶ PRK ─┤
    X25519(pair)   ──extract, both ends────────▶ PRK ─┤
    SRP            ──(see srp.py)──────────────▶ KEK ─┘
                                                 PRK ───expand "ratchet"──▶ the next epoch's group key

Extract and expand are HKDF-SHA256 (RFC 5869); salts and infos are framed (`suite.framed`). A PRK is 32 bytes. Every stream
has keys of its own, so equal counters of two streams never meet under one key.
"""

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from crypto.errors import BadLength
from crypto.suite import (
    AES_KEY_SIZE,
    GROUP_KEY_SIZE,
    LABEL_GROUP_KEY,
    LABEL_MPSL,
    LABEL_PAIR,
    LABEL_RATCHET,
    LABEL_ROSTER,
    LABEL_STREAM,
    LABEL_TRANSCRIPT,
    PRK_SIZE,
    PUBLIC_KEY_SIZE,
    SALT_SIZE,
    STREAM_KEYS_SIZE,
    framed,
)


@dataclass(frozen=True, slots=True)
class StreamKeys:
    """The keys of one stream: nonce salt (4 bytes), AES-128 key (16), HMAC-SHA1 key (20)."""

    salt: bytes = field(repr=False)
    aes: bytes = field(repr=False)
    mac: bytes = field(repr=False)

    @classmethod
    def split(cls, material: bytes) -> Self:
        """Cut 40 bytes of derived material into salt ‖ AES ‖ MAC."""
        if len(material) != STREAM_KEYS_SIZE:
            raise BadLength
        cut = SALT_SIZE + AES_KEY_SIZE
        return cls(material[:SALT_SIZE], material[SALT_SIZE:cut], material[cut:])


def extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract with SHA-256: 32 bytes."""
    return HKDF.extract(SHA256(), salt, secret)


def expand(prk: bytes, label: bytes, *parts: bytes, size: int) -> bytes:
    """HKDF-Expand with SHA-256 and a framed info: `size` bytes. Raises BadLength unless the PRK has 32 bytes."""
    if len(prk) != PRK_SIZE:
        raise BadLength
    return HKDFExpand(SHA256(), size, framed(label, *parts)).derive(prk)


def new_group_key() -> bytes:
    """Sixteen fresh random bytes."""
    return secrets.token_bytes(GROUP_KEY_SIZE)


def group_prk(session: int, epoch: int, group_key: bytes) -> bytes:
    """The PRK of one epoch. Raises BadLength unless the group key has 16 bytes."""
    if len(group_key) != GROUP_KEY_SIZE:
        raise BadLength
    return extract(framed(LABEL_MPSL, session.to_bytes(8, "big"), epoch.to_bytes(4, "big")), group_key)


def roster_prk(session: int, epoch: int, roster_key: bytes) -> bytes:
    """The PRK of the roster stream since an epoch. Raises BadLength unless the key has 16 bytes."""
    if len(roster_key) != GROUP_KEY_SIZE:
        raise BadLength
    return extract(framed(LABEL_ROSTER, session.to_bytes(8, "big"), epoch.to_bytes(4, "big")), roster_key)


def pair_prk(session: int, id_a: int, public_a: bytes, id_b: int, public_b: bytes, shared: bytes) -> bytes:
    """The PRK of two members' unicast streams: both compute the same, whichever of them is called `a`.

    `public_a` and `public_b` are their X25519 keys, `shared` the result of `ExchangeKey.shared`. Raises BadLength.
    """
    if len(public_a) != PUBLIC_KEY_SIZE or len(public_b) != PUBLIC_KEY_SIZE:
        raise BadLength
    (low, low_key), (high, high_key) = sorted([(id_a, public_a), (id_b, public_b)])
    salt = framed(LABEL_PAIR, session.to_bytes(8, "big"), low.to_bytes(4, "big"), low_key, high.to_bytes(4, "big"), high_key)
    return extract(salt, shared)


def stream_keys(prk: bytes, sender: int, recipient: int, channel: int) -> StreamKeys:
    """The keys of the stream (sender, recipient, channel) under a PRK."""
    parts = (sender.to_bytes(4, "big"), recipient.to_bytes(4, "big"), channel.to_bytes(1, "big"))
    return StreamKeys.split(expand(prk, LABEL_STREAM, *parts, size=STREAM_KEYS_SIZE))


def ratchet(prk: bytes) -> bytes:
    """The next epoch's group key (16 bytes) when somebody joins: who has it cannot compute the key before it."""
    return expand(prk, LABEL_RATCHET, size=GROUP_KEY_SIZE)


def group_key_digest(group_key: bytes) -> bytes:
    """What an `epoch` entry of the log names: 32 bytes that tell group keys apart and give none away."""
    if len(group_key) != GROUP_KEY_SIZE:
        raise BadLength
    return hashlib.sha256(framed(LABEL_GROUP_KEY, group_key)).digest()


def transcript_hash(message1: bytes, message2: bytes) -> bytes:
    """TH, 32 bytes: binds everything that both sides said before the proofs of a join."""
    return hashlib.sha256(framed(LABEL_TRANSCRIPT, message1, message2)).digest()
