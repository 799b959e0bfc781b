"""Signatures and pair keys: what is covered, and which keys are refused."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import BadLength, BadSignature, WeakKey
from crypto.schedule import pair_prk
from crypto.signing import FIRST_BASE, SMALL_ORDER, WEAK_EXCHANGE, ExchangeKey, MessageHash, SigningKey, fingerprint, verify
from crypto.suite import LABEL_HOST, LABEL_MESSAGE, LABEL_SIGNATURE, framed

KEY = SigningKey.from_seed(bytes(range(32)))
# the points of small order, RFC 7748 section 6.1 and its twist, and their forms above the prime
LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def test_a_signature_holds_for_its_key_label_and_parts_alone() -> None:
    signature = KEY.sign(LABEL_SIGNATURE, b"one", b"two")
    verify(KEY.public, signature, LABEL_SIGNATURE, b"one", b"two")
    for public, label, parts in [
        (SigningKey.generate().public, LABEL_SIGNATURE, [b"one", b"two"]),
        (KEY.public, LABEL_HOST, [b"one", b"two"]),
        (KEY.public, LABEL_SIGNATURE, [b"onetwo"]),
        (KEY.public, LABEL_SIGNATURE, [b"two", b"one"]),
        (KEY.public, LABEL_SIGNATURE, [b"one", b"two", b""]),
    ]:
        with pytest.raises(BadSignature):
            verify(public, signature, label, *parts)


@given(st.integers(0, 511))
def test_any_flipped_bit_of_a_signature_is_refused(bit: int) -> None:
    signature = bytearray(KEY.sign(LABEL_SIGNATURE, b"m"))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSignature):
        verify(KEY.public, bytes(signature), LABEL_SIGNATURE, b"m")


@given(st.binary(max_size=70), st.binary(max_size=130))
def test_strangers_keys_and_signatures_raise_the_one_error(public: bytes, signature: bytes) -> None:
    for key, signed in [(public, signature), (public[:32].ljust(32, b"\0"), signature[:64].ljust(64, b"\0"))]:
        with pytest.raises(BadSignature):
            verify(key, signed, LABEL_SIGNATURE, public + signature + b"!")


def test_keys_survive_the_disk() -> None:
    signer, exchange = SigningKey.generate(), ExchangeKey.generate()
    assert SigningKey.from_seed(signer.seed).public == signer.public
    assert ExchangeKey.from_bytes(exchange.to_bytes()).public == exchange.public
    with pytest.raises(BadLength):
        SigningKey.from_seed(bytes(31))
    with pytest.raises(BadLength):
        ExchangeKey.from_bytes(bytes(33))


@given(st.sampled_from([b"", FIRST_BASE, bytes(range(32))]), st.lists(st.binary(max_size=80), max_size=5))
def test_the_hash_of_a_message_is_the_framed_list_of_its_packets(base: bytes, payloads: list[bytes]) -> None:
    message = MessageHash(base)
    parts = [base]
    for number, payload in enumerate(payloads):
        header = number.to_bytes(32, "big")
        message.update(header, payload)
        parts += [header, payload]
        assert message.digest() == hashlib.sha256(framed(LABEL_MESSAGE, *parts)).digest()
    assert message.digest() == hashlib.sha256(framed(LABEL_MESSAGE, *parts)).digest()


def test_the_hash_of_a_message_takes_only_headers_and_bases() -> None:
    with pytest.raises(BadLength):
        MessageHash(bytes(31))
    with pytest.raises(BadLength):
        MessageHash().update(bytes(31), b"")


@pytest.mark.parametrize("public", LOW_ORDER, ids=bytes.hex)
def test_a_key_that_makes_the_secret_known_is_refused(public: bytes) -> None:
    with pytest.raises(WeakKey):
        ExchangeKey.generate().shared(public)


def test_the_exchange_keys_that_protect_nothing_are_listed_in_all_their_forms() -> None:
    assert set(LOW_ORDER) | {public[:31] + bytes((public[31] | 128,)) for public in LOW_ORDER} == WEAK_EXCHANGE
    for public in WEAK_EXCHANGE:
        with pytest.raises(WeakKey):
            ExchangeKey.generate().shared(public)


@given(st.binary(max_size=70))
def test_strangers_exchange_keys_raise_nothing_else(public: bytes) -> None:
    key = ExchangeKey.from_bytes(bytes(range(32)))
    if len(public) != 32:
        with pytest.raises(BadLength):
            key.shared(public)
    elif public not in LOW_ORDER:
        assert len(key.shared(public)) == 32


def test_both_ends_of_a_pair_derive_the_same_and_nobody_else() -> None:
    ann, bob = ExchangeKey.generate(), ExchangeKey.generate()
    shared = ann.shared(bob.public)
    assert shared == bob.shared(ann.public)
    prk = pair_prk(9, 2, ann.public, 7, bob.public, shared)
    assert prk == pair_prk(9, 7, bob.public, 2, ann.public, shared)
    others = [
        pair_prk(8, 2, ann.public, 7, bob.public, shared),
        pair_prk(9, 3, ann.public, 7, bob.public, shared),
        pair_prk(9, 2, bob.public, 7, ann.public, shared),
        pair_prk(9, 2, ann.public, 7, bob.public, bytes(32)),
    ]
    assert prk not in others
    with pytest.raises(BadLength):
        pair_prk(9, 2, ann.public[:-1], 7, bob.public, shared)


def test_a_fingerprint_is_26_letters_and_digits() -> None:
    one = fingerprint(KEY.public)
    assert len(one) == 26
    assert one == one.lower()
    assert one.isalnum()
    assert one != fingerprint(bytes(32))
    with pytest.raises(BadLength):
        fingerprint(KEY.public + b"\0")


def _double(y: int, x: int) -> tuple[int, int]:
    """Twice a point of edwards25519, affine (RFC 8032, section 5.1.4 with Z = 1)."""
    p, d = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19)
    xy = d * x * x * y * y % p
    return (y * y + x * x) * pow(1 - xy, -1, p) % p, 2 * x * y * pow(1 + xy, -1, p) % p


def test_keys_of_small_order_are_what_they_are_said_to_be() -> None:
    p, d = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19)
    for key in SMALL_ORDER:
        y = int.from_bytes(key, "little") % p
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        if x * x % p != square:
            x = x * pow(2, (p - 1) // 4, p) % p
        assert x * x % p == square, "a point of the curve"
        for _ in range(3):
            y, x = _double(y, x)
        assert (y, x) == (1, 0), "eight times it is nothing"


@pytest.mark.parametrize("key", sorted(SMALL_ORDER), ids=lambda key: key.hex()[:8])
@pytest.mark.parametrize("sign", [0, 128])
def test_a_key_under_which_a_signature_says_nothing_is_refused(key: bytes, sign: int) -> None:
    """R = r·B, S = r is a signature of every message, eighth by eighth, under such a key."""
    key = key[:31] + bytes((key[31] | sign,))
    r = SigningKey.generate()
    identity = bytes((1,)) + bytes(31)
    for signature in (identity + bytes(32), r.public + bytes(32)):
        for number in range(32):
            with pytest.raises(BadSignature):
                verify(key, signature, b"parley", bytes((number,)))
