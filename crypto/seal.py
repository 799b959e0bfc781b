"""Sealing and opening the packets of one stream: AES-128-CTR, then HMAC-SHA1 over header ‖ ciphertext (row G28).

    packet        = header 32 ‖ ciphertext ‖ tag 20
    counter block = salt 4 ‖ counter 8 ‖ block 4, block from 1        (the shape of RFC 3686)

A `Sealer` never seals two packets under one counter: counters only rise, and a closed sealer seals nothing (row G27). An
`Opener` decrypts only the packet that it has verified last, so nothing of an unauthentic packet is ever decrypted, let
alone decompressed. Which counter may come is `replay.py`'s decision, between `verify` and `decrypt`.

What makes it fast: one AES context per stream, re-aimed with `reset_nonce` instead of a new key schedule, and copies of the
two SHA-1 states that have eaten HMAC's padded key (RFC 2104) instead of two more blocks per packet.
"""

import hashlib
from hmac import compare_digest

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from crypto.errors import BadLength, BadTag, CounterReused, EpochClosed, KeyExhausted
from crypto.schedule import StreamKeys
from crypto.suite import HEADER_SIZE, MAX_BLOCKS, MAX_PACKETS, TAG_SIZE

_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
_FIRST_BLOCK = b"\x00\x00\x00\x01"
_COUNTER = slice(HEADER_SIZE - 8, HEADER_SIZE)
_AUTHENTIC = slice(0, -TAG_SIZE)
_CIPHERTEXT = slice(HEADER_SIZE, -TAG_SIZE)
_TAG = slice(-TAG_SIZE, None)
_OVERHEAD = HEADER_SIZE + TAG_SIZE


class _Stream:
    """What both directions share: the AES context and the two halves of HMAC."""

    __slots__ = ("_aes", "_new_inner", "_new_outer", "_salt")

    def __init__(self, keys: StreamKeys) -> None:
        self._salt = keys.salt
        # CTR encrypts and decrypts alike. The first nonce is never used: reset_nonce comes before every packet.
        self._aes = Cipher(AES(keys.aes), CTR(bytes(16))).encryptor()
        block = keys.mac.ljust(64, b"\x00")
        self._new_inner = hashlib.sha1(block.translate(_INNER_PAD), usedforsecurity=False).copy
        self._new_outer = hashlib.sha1(block.translate(_OUTER_PAD), usedforsecurity=False).copy

    def _tag(self, body: bytes) -> bytes:
        inner = self._new_inner()
        inner.update(body)
        outer = self._new_outer()
        outer.update(inner.digest())
        return outer.digest()


class Sealer(_Stream):
    """Seals one stream's packets. `last` is the last counter that was sealed, -1 before the first one.

    A stream that continues (a new epoch, a restarted organizer) starts its sealer at the last counter used.
    """

    __slots__ = ("blocks_left", "closed", "last", "packets_left")

    def __init__(self, keys: StreamKeys, last: int = -1) -> None:
        super().__init__(keys)
        self.last = last
        self.packets_left = MAX_PACKETS
        self.blocks_left = MAX_BLOCKS  # of 16 bytes
        self.closed = False

    def seal(self, header: bytes, counter: int, plaintext: bytes) -> bytes:
        """Return header ‖ ciphertext ‖ tag.

        `header` is the 32 bytes of the clear packet header; its last eight are `counter`.
        Raises CounterReused unless the counter is above every one before, KeyExhausted after 2^32 packets or 2^40 blocks,
        EpochClosed after `close`, BadLength for a header that is not 32 bytes or names another counter.
        """
        blocks = (len(plaintext) + 15) >> 4
        if counter <= self.last or self.packets_left <= 0 or blocks > self.blocks_left:
            raise self._refusal(counter)
        count = counter.to_bytes(8, "big")
        if len(header) != HEADER_SIZE or header[_COUNTER] != count:
            raise BadLength
        self.last = counter
        self.packets_left -= 1
        self.blocks_left -= blocks
        aes = self._aes
        aes.reset_nonce(self._salt + count + _FIRST_BLOCK)
        body = header + aes.update(plaintext)
        return body + self._tag(body)

    def close(self) -> None:
        """Seal nothing any more, and let go of the key."""
        if not self.closed:
            self.closed = True
            self.packets_left = 0
            del self._aes, self._new_inner, self._new_outer, self._salt

    def _refusal(self, counter: int) -> CounterReused | EpochClosed | KeyExhausted:
        if self.closed:
            return EpochClosed()
        return CounterReused() if counter <= self.last else KeyExhausted()


class Opener(_Stream):
    """Opens one stream's packets: `verify`, then the caller's replay check, then `decrypt`."""

    __slots__ = ("_verified",)

    def __init__(self, keys: StreamKeys) -> None:
        super().__init__(keys)
        self._verified: bytes | None = None

    def verify(self, packet: bytes) -> None:
        """Check the tag in constant time. Raises BadLength for less than header and tag, else BadTag. Changes no counter."""
        if len(packet) < _OVERHEAD:
            raise BadLength
        if not compare_digest(self._tag(packet[_AUTHENTIC]), packet[_TAG]):
            raise BadTag
        self._verified = packet

    def decrypt(self, packet: bytes, counter: int) -> bytes:
        """Return the plaintext of the packet just verified, once; `counter` is its header's. Raises BadTag for any other."""
        if packet is not self._verified:
            raise BadTag
        self._verified = None
        aes = self._aes
        aes.reset_nonce(self._salt + counter.to_bytes(8, "big") + _FIRST_BLOCK)
        return aes.update(packet[_CIPHERTEXT])
