"""Every refusal of the end-to-end layer, by name.

    CryptoError
    ├── BadLength           bad-length          a packet, key, proof or value of a size that cannot be
    ├── PacketRefused
    │   ├── BadTag          bad-tag             altered on its way, or sealed under another key
    │   ├── Replayed        replayed            this counter was taken before
    │   ├── Gap             gap                 something before it is missing
    │   ├── UnknownEpoch    unknown-epoch       its key is not known yet: it may wait
    │   ├── EpochClosed     epoch-closed        its key was given up: it will never open
    │   └── NoSuchStream    no-such-stream      no stream can have this epoch, recipient and channel
    ├── BadSignature        bad-signature       not from whom it claims to be
    ├── JoinRefused
    │   ├── BadProof        wrong-secret        the secret did not match; nothing more is said
    │   └── BadPublicValue  bad-public-value    an SRP value outside its group
    ├── WeakKey             weak-key            an X25519 key that would make the shared secret known to all
    ├── CounterReused       counter-reused      sealing would repeat a (key, counter) pair
    └── KeyExhausted        key-exhausted       2^32 packets or 2^40 blocks: a fresh key is due

`name` is the same word in the log, the metric and the message; `sentence` tells a person what happened and what to do.
"""


class CryptoError(Exception):
    """Root of the tree. Carries no bytes of keys, packets or secrets."""

    name: str = "crypto-error"
    sentence: str = "Something in the encrypted part of the meeting did not fit."

    def __str__(self) -> str:
        return self.sentence


class BadLength(CryptoError):
    name = "bad-length"
    sentence = "What arrived has an impossible length; it was dropped. If this repeats, update both programs."


class PacketRefused(CryptoError):
    """A packet is not opened."""

    name = "packet-refused"
    sentence = "A packet was refused."


class BadTag(PacketRefused):
    name = "bad-tag"
    sentence = "A packet was altered on its way, or sealed under another key; it was dropped."


class Replayed(PacketRefused):
    name = "replayed"
    sentence = "A packet arrived that had been taken before; it was dropped."


class Gap(PacketRefused):
    name = "gap"
    sentence = "Something before this packet is missing, so it was dropped; what is missing is asked for again."


class UnknownEpoch(PacketRefused):
    name = "unknown-epoch"
    sentence = "The key of this packet is not known yet; it waits until the key has come."


class EpochClosed(PacketRefused):
    name = "epoch-closed"
    sentence = "The key of this packet was given up; it cannot be opened or sealed any more."


class NoSuchStream(PacketRefused):
    name = "no-such-stream"
    sentence = "No stream can have this epoch, recipient and channel; the packet was dropped."


class BadSignature(CryptoError):
    name = "bad-signature"
    sentence = "The signature does not fit: this does not come from whom it claims to come from. It was dropped."


class JoinRefused(CryptoError):
    """A handshake ends."""

    name = "join-refused"
    sentence = "The join was refused."


class BadProof(JoinRefused):
    name = "wrong-secret"
    sentence = "The secret did not match. Check the password, or ask for the link again."


class BadPublicValue(JoinRefused):
    name = "bad-public-value"
    sentence = "The other side sent a value that no honest program sends; the join was ended."


class WeakKey(CryptoError):
    name = "weak-key"
    sentence = "The other side sent a key that protects nothing; it was refused."


class CounterReused(CryptoError):
    name = "counter-reused"
    sentence = "Sealing was refused, since it would use a counter twice under one key. Leave and join again."


class KeyExhausted(CryptoError):
    name = "key-exhausted"
    sentence = "The key has sealed as much as it may; wait for the fresh one."
