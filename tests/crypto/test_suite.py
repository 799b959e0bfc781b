"""Row G34: the suite is compiled in. And every refusal has a name and a sentence, and no secret shows in a repr."""

import ast
import inspect
import re
import secrets
from pathlib import Path
from unittest import mock

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from srptools import constants

import crypto
from crypto import errors, keyring, replay, schedule, seal, signing, srp, suite
from crypto.errors import CryptoError
from crypto.schedule import StreamKeys

MODULES = (errors, keyring, replay, schedule, seal, signing, srp, suite)
SOURCES = sorted(Path(crypto.__file__).parent.glob("*.py"))


def test_the_group_is_the_one_of_rfc_5054() -> None:
    assert int(constants.PRIME_3072, 16) == suite.SRP_N
    assert int(constants.PRIME_3072_GEN, 16) == suite.SRP_G
    # RFC 3526, section 4, defines it: nothing up anybody's sleeve
    with gmpy2.context(gmpy2.get_context(), precision=4096):
        pi = int(gmpy2.floor(gmpy2.const_pi() * gmpy2.mpfr(2) ** 2942))
    assert 2**3072 - 2**3008 - 1 + 2**64 * (pi + 1690314) == suite.SRP_N
    assert gmpy2.is_prime(suite.SRP_N)
    assert gmpy2.is_prime(suite.SRP_N // 2)


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=4), st.lists(st.binary(max_size=6), min_size=1, max_size=4))
def test_framing_tells_every_two_lists_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (suite.framed(*one) == suite.framed(*other)) == (one == other)


def test_labels_are_all_different() -> None:
    labels = [value for name, value in vars(suite).items() if name.startswith("LABEL_")]
    assert len(labels) > 10
    assert len(set(labels)) == len(labels)


def test_G34_no_flag_file_or_variable_reaches_the_suite() -> None:
    allowed = {
        "base64",
        "collections",
        "cryptography",
        "crypto",
        "ctypes",  # the OpenSSL that Python itself is linked with
        "dataclasses",
        "functools",
        "gmpy2",
        "hashlib",
        "hmac",
        "importlib",  # where that is
        "secrets",
        "srptools",
        "typing",
        "unicodedata",
    }
    for source in SOURCES:
        tree = ast.parse(source.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, source
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] in allowed, source
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("open", "eval", "exec", "__import__", "input"), source


def test_G34_no_public_function_takes_a_parameter_of_the_suite() -> None:
    offered = re.compile(r"suite|cipher|hash_func|digest|algorithm|group$|prime|generator|bits|version", re.IGNORECASE)
    for module in MODULES:
        for name, thing in inspect.getmembers(module, lambda member: inspect.isfunction(member) or inspect.isclass(member)):
            if name.startswith("_") or thing.__module__ != module.__name__ or thing is srp.Arithmetic:
                continue
            functions = [thing] if inspect.isfunction(thing) else [f for _, f in inspect.getmembers(thing, inspect.isfunction)]
            for function in functions:
                if function.__module__ == module.__name__:
                    assert not [parameter for parameter in inspect.signature(function).parameters if offered.search(parameter)], function


def test_G34_a_downgrade_of_the_handshake_fails() -> None:
    secret = secrets.token_bytes(32)
    verifier = srp.make_verifier(1, secret, "words")
    for name, value in (("SUITE", 0), ("SUITE", 2), ("VERSION", 0), ("VERSION", 2)):
        host = srp.Host(verifier)
        with mock.patch.object(srp, name, value):
            guest = srp.Guest(1, secret, "words")
        th = schedule.transcript_hash(guest.public, host.public)
        m1 = guest.prove(verifier.salt, host.public, th)
        with pytest.raises(errors.BadProof):
            host.verify(guest.public, th, m1)
    # a smaller group's values do not even fit
    with pytest.raises(errors.BadLength):
        srp.Host(verifier).verify(bytes(127) + b"\5", bytes(32), bytes(32))


@pytest.mark.parametrize("first_byte", [0x00, 0x01, 0x10, 0x12, 0x21, 0xFF])
def test_G34_a_downgrade_of_a_packet_fails(first_byte: int) -> None:
    keys = StreamKeys.split(secrets.token_bytes(40))
    packet = seal.Sealer(keys).seal(b"\x11" + bytes(31), 0, b"hello")
    with pytest.raises(errors.BadTag):
        seal.Opener(keys).verify(bytes([first_byte]) + packet[1:])


def tree(root: type[CryptoError]) -> list[type[CryptoError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


def test_every_refusal_has_a_name_a_sentence_and_a_place_in_the_drawing() -> None:
    kinds = tree(CryptoError)
    assert len({kind.name for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.name)
        assert kind.sentence.endswith(".")
        assert str(kind()) == kind.sentence
        assert kind.__name__ in (errors.__doc__ or "")
        if not kind.__subclasses__():
            assert re.search(rf"{kind.__name__} +{kind.name} ", errors.__doc__ or "")


def test_a_wrong_secret_says_nothing_but_that() -> None:
    assert str(errors.BadProof()) == "The secret did not match. Check the password, or ask for the link again."


def test_no_secret_shows_in_a_repr() -> None:
    secret, password = secrets.token_bytes(32), "battery staple"
    verifier = srp.make_verifier(1, secret, password)
    host, guest = srp.Host(verifier), srp.Guest(1, secret, password)
    host.verify(guest.public, bytes(32), guest.prove(verifier.salt, host.public, bytes(32)))
    signer, exchange, group_key = signing.SigningKey.generate(), signing.ExchangeKey.generate(), schedule.new_group_key()
    ring = keyring.Keyring(1, 2)
    ring.install(1, group_key, 0.0)
    ring.advance(1, 0.0)
    ring.set_pair(3, secret)
    hidden = [secret, verifier.v, host.keys.kek, signer.seed, exchange.to_bytes(), group_key, host.keys.name.aes, host.keys.name.mac]
    things = [verifier, host, guest, host.keys, host.keys.name, host._derived, signer, exchange]
    things += [ring, ring.sealer(0, 2), ring._epochs, ring._peers]
    shown = " ".join(repr(thing) for thing in things)
    assert password not in shown
    for value in hidden:
        assert value.hex() not in shown
        assert repr(value)[2:-1] not in shown
