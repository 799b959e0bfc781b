"""The one suite of Parley. It is frozen: nothing here can be set, negotiated or overridden (row G34).

A later suite gets another number, other labels and other code. Packet headers carry `VERSION` and `SUITE` in their first
byte, under the authentication tag; the SRP identity and every label are bound to them too, so a downgrade fails wherever
it is tried.

Every hash, signature and key-derivation input of the protocol is *framed*: a label, then the parts, each behind its length.
Two different lists of parts can therefore never give the same input, and no input of one purpose is one of another.
"""

from typing import Final

VERSION: Final = 1
SUITE: Final = 1

# packets, in bytes: header ‖ ciphertext ‖ tag
HEADER_SIZE: Final = 32
TAG_SIZE: Final = 20  # HMAC-SHA1, not truncated

# keys, in bytes
GROUP_KEY_SIZE: Final = 16
PRK_SIZE: Final = 32
SALT_SIZE: Final = 4
AES_KEY_SIZE: Final = 16
MAC_KEY_SIZE: Final = 20
STREAM_KEYS_SIZE: Final = SALT_SIZE + AES_KEY_SIZE + MAC_KEY_SIZE
HASH_SIZE: Final = 32
PUBLIC_KEY_SIZE: Final = 32  # Ed25519 and X25519
SIGNATURE_SIZE: Final = 64

# when a key is spent (protocol.md section 3)
MAX_PACKETS: Final = 2**32
MAX_BLOCKS: Final = 2**40
MAX_AGE: Final = 3600.0  # seconds

# SRP-6a (RFC 5054, appendix A, 3,072 bits) with SHA-256
SRP_N: Final = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"
    "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05"
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB"
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    "3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33"
    "A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7"
    "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864"
    "D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2"
    "08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
    16,
)
SRP_G: Final = 5
SRP_PUBLIC_SIZE: Final = 384
SRP_SALT_SIZE: Final = 16
SRP_EXPONENT_BITS: Final = 256
SESSION_SECRET_SIZE: Final = 32

# labels; one purpose each
LABEL_MPSL: Final = b"parley mpsl 1"  # group key → PRK
LABEL_ROSTER: Final = b"parley roster 1"  # roster key → PRK
LABEL_PAIR: Final = b"parley pair 1"  # X25519 secret of two members → PRK
LABEL_STREAM: Final = b"stream"  # PRK → stream keys
LABEL_RATCHET: Final = b"ratchet"  # PRK → the next group key
LABEL_GROUP_KEY: Final = b"parley gk 1"  # the hash of a group key that the log names
LABEL_SRP: Final = b"parley srp 1"  # the SRP identity I
LABEL_TRANSCRIPT: Final = b"parley th 1"  # TH, over messages 1 and 2 of a join
LABEL_CONFIRM_GUEST: Final = b"kc guest"
LABEL_CONFIRM_HOST: Final = b"kc host"
LABEL_NAME: Final = b"name"
LABEL_KEK: Final = b"kek"
LABEL_MESSAGE: Final = b"parley msg 1"  # MSG, over the packets of one message
LABEL_SIGNATURE: Final = b"parley sig 1"  # what is signed about MSG
LABEL_HOST: Final = b"parley host 1"  # the organizer's signature in message 4 of a join
LABEL_SHOWN: Final = b"parley shown 1"  # the hash of what the roster stream shows
LABEL_SNAPSHOT: Final = b"parley snap 1"  # the organizer's signature of a log snapshot
LABEL_LOG: Final = b"parley log 1"  # log entries and their chain
LABEL_ORGANIZER: Final = b"parley org 1"  # fingerprint of a meeting key


def framed(label: bytes, *parts: bytes) -> bytes:
    """Join a label and parts unambiguously: u32 length ‖ label, then u32 length ‖ part for each part, big-endian.

    Integers among the parts are given as bytes of their wire size (session 8, participant 4, epoch 4, channel 1, counter 8).
    """
    pieces = [len(label).to_bytes(4, "big"), label]
    for part in parts:
        pieces.append(len(part).to_bytes(4, "big"))
        pieces.append(part)
    return b"".join(pieces)
