"""The handshake (row G22, core): the right secret agrees, everything else ends it, and nothing is given away before."""

import hashlib
import threading
from typing import Any, SupportsIndex
from unittest import mock

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import BadLength, BadProof, BadPublicValue, BadTag, CounterReused
from crypto.powers import OpenSsl, by_gmp, power
from crypto.schedule import transcript_hash
from crypto.srp import FixedBase, Guest, Host, Verifier, make_verifier, normal_password
from crypto.suite import SRP_N

SESSION = 0x1122334455667788
SECRET = bytes(range(32))
PASSWORD = "correct horse battery staple"
SALT = bytes(range(16))
VERIFIER = make_verifier(SESSION, SECRET, PASSWORD, SALT)


def transcript(guest: Guest, host: Host, salt: bytes = SALT) -> bytes:
    return transcript_hash(guest.public, salt + host.public)


def meet(guest: Guest, verifier: Verifier = VERIFIER) -> Host:
    """Run the host's half with a guest's proof; raises what the host raises."""
    host = Host(verifier)
    th = transcript(guest, host, verifier.salt)
    host.verify(guest.public, th, guest.prove(verifier.salt, host.public, th))
    return host


def test_G22_the_right_secret_agrees() -> None:
    guest = Guest(SESSION, SECRET, PASSWORD)
    host = meet(guest)
    guest.check(host.prove())
    assert guest.keys == host.keys
    assert len(guest.keys.kek) == 32
    # every handshake has keys of its own
    assert meet(Guest(SESSION, SECRET, PASSWORD)).keys != host.keys


@pytest.mark.parametrize(
    ("session", "secret", "password"),
    [
        (SESSION + 1, SECRET, PASSWORD),
        (SESSION, SECRET[:-1] + b"!", PASSWORD),
        (SESSION, bytes(1) + SECRET[:-1], PASSWORD),
        (SESSION, SECRET, PASSWORD + " "),
        (SESSION, SECRET, PASSWORD.upper()),
        (SESSION, SECRET, ""),
    ],
)
def test_G22_any_other_secret_is_refused(session: int, secret: bytes, password: str) -> None:
    with pytest.raises(BadProof):
        meet(Guest(session, secret, password))


def test_G22_public_values_and_proofs_show_nothing_of_the_password() -> None:
    password = "needle-needle-needle"
    verifier = make_verifier(SESSION, SECRET, password)
    guest, host = Guest(SESSION, SECRET, password), Host(verifier)
    th = transcript(guest, host, verifier.salt)
    m1 = guest.prove(verifier.salt, host.public, th)
    host.verify(guest.public, th, m1)
    wire = guest.public + verifier.salt + host.public + m1 + host.prove() + guest.seal_name(b"Ann")
    for trace in (password.encode(), hashlib.sha256(password.encode()).digest(), verifier.v, b"Ann"):
        assert trace not in wire


def test_composed_and_decomposed_letters_are_the_same_password() -> None:
    assert normal_password("caf\u00e9 \u212b") == normal_password("cafe\u0301 A\u030a") == "café Å".encode()
    verifier = make_verifier(SESSION, SECRET, "caf\u00e9", SALT)
    meet(Guest(SESSION, SECRET, "cafe\u0301"), verifier)


def test_what_is_no_text_is_a_wrong_secret() -> None:
    with pytest.raises(BadProof):
        Guest(SESSION, SECRET, "\ud800")
    with pytest.raises(BadProof):
        make_verifier(SESSION, SECRET, "\ud800")


def test_a_changed_transcript_is_refused() -> None:
    """TH binds participant, role and keys of both sides: who changes one of them changes TH."""
    guest, host = Guest(SESSION, SECRET, PASSWORD), Host(VERIFIER)
    m1 = guest.prove(SALT, host.public, transcript_hash(b"as sent", b""))
    with pytest.raises(BadProof):
        host.verify(guest.public, transcript_hash(b"as received", b""), m1)


def test_no_host_proof_before_the_guests() -> None:
    host = Host(VERIFIER)
    for attempt in (host.prove, lambda: host.keys, lambda: host.open_name(bytes(30))):
        with pytest.raises(BadProof):
            attempt()
    with pytest.raises(BadProof):
        host.verify(Guest(SESSION, SECRET, PASSWORD).public, bytes(32), bytes(32))
    with pytest.raises(BadProof):
        host.prove()


def test_a_host_checks_one_proof() -> None:
    guest, host = Guest(SESSION, SECRET, PASSWORD), Host(VERIFIER)
    th = transcript(guest, host)
    m1 = guest.prove(SALT, host.public, th)
    with pytest.raises(BadProof):
        host.verify(guest.public, th, bytes(32))
    with pytest.raises(BadProof):
        host.verify(guest.public, th, m1)


def test_no_two_hosts_share_a_public_value() -> None:
    assert len({Host(VERIFIER).public for _ in range(20)}) == 20


def test_a_guest_has_no_keys_before_the_hosts_proof() -> None:
    guest = Guest(SESSION, SECRET, PASSWORD)
    for attempt in (lambda: guest.keys, lambda: guest.check(bytes(32)), lambda: guest.seal_name(b"Ann")):
        with pytest.raises(BadProof):
            attempt()
    host = meet(guest)
    for bad in (bytes(32), host.prove()[:-1], b"", host.prove() + b"\0"):
        with pytest.raises(BadProof):
            guest.check(bad)
        with pytest.raises(BadProof):
            assert guest.keys
    guest.check(host.prove())
    assert guest.keys == host.keys


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (bytes(384), BadPublicValue),
        (SRP_N.to_bytes(384, "big"), BadPublicValue),
        ((SRP_N + 1).to_bytes(384, "big"), BadPublicValue),
        (b"\xff" * 384, BadPublicValue),
        (bytes(383), BadLength),
        (bytes(385), BadLength),
        (b"", BadLength),
    ],
    ids=["0", "N", "N+1", "2^3072-1", "short", "long", "empty"],
)
def test_values_outside_the_group_end_the_join(value: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        Guest(SESSION, SECRET, PASSWORD).prove(SALT, value, bytes(32))
    with pytest.raises(error):
        Host(VERIFIER).verify(value, bytes(32), bytes(32))


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_salt_of_another_length_ends_the_join(size: int) -> None:
    with pytest.raises(BadLength):
        Guest(SESSION, SECRET, PASSWORD).prove(bytes(size), Host(VERIFIER).public, bytes(32))
    with pytest.raises(BadLength):
        make_verifier(SESSION, SECRET, PASSWORD, bytes(size))


def test_other_wrong_lengths_are_named() -> None:
    with pytest.raises(BadLength):
        Guest(SESSION, SECRET[:-1], PASSWORD)
    with pytest.raises(BadLength):
        make_verifier(SESSION, SECRET + b"!", PASSWORD)
    with pytest.raises(BadLength):
        Guest(SESSION, SECRET, PASSWORD).prove(SALT, Host(VERIFIER).public, bytes(31))
    for data in (b"", VERIFIER.to_bytes()[:-1], VERIFIER.to_bytes() + b"\0"):
        with pytest.raises(BadLength):
            Verifier.from_bytes(data)


def test_a_verifier_survives_the_disk() -> None:
    assert len(VERIFIER.to_bytes()) == 400
    assert Verifier.from_bytes(VERIFIER.to_bytes()) == VERIFIER
    meet(Guest(SESSION, SECRET, PASSWORD), Verifier.from_bytes(VERIFIER.to_bytes()))
    # a fresh salt every time
    assert make_verifier(SESSION, SECRET, PASSWORD).salt != make_verifier(SESSION, SECRET, PASSWORD).salt


def test_a_name_is_sealed_once() -> None:
    guest = Guest(SESSION, SECRET, PASSWORD)
    host = meet(guest)
    sealed = guest.seal_name("Zoë".encode())
    assert sealed == guest.seal_name("Zoë".encode())
    assert host.open_name(sealed).decode() == "Zoë"
    with pytest.raises(CounterReused):
        guest.seal_name(b"Bob")
    for bad in (sealed[:-1], sealed + b"\0", b"", bytes(len(sealed))):
        with pytest.raises(BadTag):
            host.open_name(bad)


@pytest.mark.parametrize("zeros", [1, 2, 15])
def test_leading_zeros_are_kept(zeros: int) -> None:
    """Salt and session secret are bytes, not numbers (the public values and S: see the vectors, case `leading zeros`)."""
    salt, secret = bytes(zeros) + SALT[zeros:], bytes(zeros) + SECRET[zeros:]
    verifier = make_verifier(SESSION, secret, PASSWORD, salt)
    assert verifier.salt == salt
    assert len(verifier.v) == 384
    guest = Guest(SESSION, secret, PASSWORD)
    guest.check(meet(guest, verifier).prove())
    # the same number, other bytes
    assert verifier.v != make_verifier(SESSION, secret, PASSWORD, salt[zeros:] + bytes(zeros)).v


@settings(max_examples=15)
@given(st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32), st.text(max_size=20), st.binary(min_size=16, max_size=16))
def test_any_secret_agrees_with_itself(session: int, secret: bytes, password: str, salt: bytes) -> None:
    verifier = make_verifier(session, secret, password, salt)
    guest = Guest(session, secret, password)
    guest.check(meet(guest, verifier).prove())


@settings(max_examples=30)
@given(st.integers(-(2**3080), 2**3080), st.integers(1, 2**520), st.sampled_from((SRP_N, 2**127 - 1, 7)))
def test_powers_are_pythons(base: int, exponent: int, modulus: int) -> None:
    expected = pow(base, exponent, modulus)
    assert power(base, exponent, modulus) == expected
    assert OpenSsl().power(base % modulus, exponent, modulus) == expected
    assert by_gmp(base % modulus, exponent, modulus) == expected


def test_a_power_frees_the_gil_and_leaves_the_callers_context_alone() -> None:
    seen: list[bool] = []

    def spy(base: int, exponent: int, modulus: int) -> int:
        seen.append(gmpy2.get_context().allow_release_gil)
        return pow(base, exponent, modulus)

    before = gmpy2.get_context().allow_release_gil
    with mock.patch.object(gmpy2, "powmod_sec", spy):
        by_gmp(2, 3, 7)
    assert seen == [True]
    assert gmpy2.get_context().allow_release_gil == before


def test_handshakes_run_side_by_side_in_threads() -> None:
    hosts: list[Host] = []
    workers = [threading.Thread(target=lambda: hosts.append(meet(Guest(SESSION, SECRET, PASSWORD)))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len({host.keys.kek for host in hosts}) == 8


class Watched(list[int]):
    """A row of a table that notes where it is read."""

    def __init__(self, row: list[int], read: list[int]) -> None:
        super().__init__(row)
        self.read = read

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        assert isinstance(at, int)
        self.read.append(at)
        return super().__getitem__(at)


def test_a_table_of_powers_reads_where_its_mask_says() -> None:
    """The same exponent is read at other places of every table; each power reads once in every row."""
    exponent, places = 2**255 + 0x1234, []
    for _ in range(2):
        powers, read = FixedBase(5, SRP_N, 8), list[int]()
        powers._rows = [Watched(row, read) for row in powers._rows]
        assert powers.power(exponent) == pow(5, exponent, SRP_N)
        assert len(read) == 32
        places.append(read)
        digits = [exponent >> 8 * at & 255 for at in range(32)]
        assert [place ^ (powers._mask >> 8 * at & 255) for at, place in enumerate(read)] == digits
    assert places[0] != places[1]
    assert places[0] != digits


@given(st.sampled_from((4, 8)), st.integers(1, SRP_N - 1), st.integers(0, 2**256 - 1))
@settings(max_examples=30)
def test_a_table_of_powers_gives_what_pow_gives(width: int, base: int, exponent: int) -> None:
    powers = FixedBase(base, SRP_N, width)
    for each in (exponent, 0, 1, 2**256 - 1):
        assert powers.power(each) == pow(base, each, SRP_N)
    with pytest.raises(BadLength):
        powers.power(2**256)
