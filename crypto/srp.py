"""SRP-6a between a guest and the organizer (the SRP host): both end with the same keys, or learn only that they do not.

    guest                                        organizer
    Guest(session, secret, password)             Host(verifier)
      .public  = A        ── message 1 ──▶
                          ◀── message 2 ──         .public = B, verifier.salt
      .prove(salt, B, TH) = M1
      .seal_name(name)    ── message 3 ──▶         .verify(A, TH, M1), .open_name(…)
      .check(M2)          ◀── message 4 ──         .prove() = M2
      .keys                                        .keys

RFC 5054's 3,072-bit group with SHA-256, 256-bit exponents, k and u padded as there. Ours are (protocol.md section 4):

    I    = SHA-256(framed("parley srp 1", version u8, suite u8, session u64)), used as lower-case hex
    P    = session secret (32 bytes) ‖ NFC(password) in UTF-8
    x    = SHA-256(salt ‖ SHA-256(hex(I) ‖ ":" ‖ P))
    K    = SHA-256(PAD(S))
    PRK  = HKDF-Extract(salt TH, K) ──expand──▶ "kc guest" 32, "kc host" 32, "name" 40, "kek" 32
    M1   = HMAC-SHA256(kc guest, TH)             M2 = HMAC-SHA256(kc host, TH ‖ M1)

The host proves nothing before the guest has: a stranger who asks learns nothing to test passwords against. Values, salts and
S keep their leading zeros everywhere: public values travel as 384 bytes, the salt as 16.

srptools does the arithmetic; its powers are replaced by those of `crypto.powers` (constant time in the exponent) where a guest's or the
password's exponent is used, and for S on both sides. Each of these frees the GIL, so `prove`, `verify` and `make_verifier` (1 to 4 ms
each) run in parallel in worker threads. Constructing a `Guest` costs one such power too. The host raises g and v, the same for all its
guests, to many exponents: both have a table (`FixedBase`), so constructing a `Host` costs a quarter of a millisecond.
"""

import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

import gmpy2
from srptools import SRPContext

from crypto.errors import BadLength, BadProof, BadPublicValue, BadTag, CounterReused
from crypto.powers import power
from crypto.schedule import StreamKeys, expand, extract
from crypto.seal import Opener, Sealer
from crypto.suite import (
    HASH_SIZE,
    HEADER_SIZE,
    LABEL_CONFIRM_GUEST,
    LABEL_CONFIRM_HOST,
    LABEL_KEK,
    LABEL_NAME,
    LABEL_SRP,
    PRK_SIZE,
    SESSION_SECRET_SIZE,
    SRP_EXPONENT_BITS,
    SRP_G,
    SRP_N,
    SRP_PUBLIC_SIZE,
    SRP_SALT_SIZE,
    STREAM_KEYS_SIZE,
    SUITE,
    VERSION,
    framed,
)

_NAME_HEADER = bytes(HEADER_SIZE)  # a name is sealed like packet 0 of a stream with this header, which is not sent


class FixedBase:
    """One base's powers with exponents of 256 bits, from a table: an eighth of the cost of a power (`width` 8), or a fifth (4).

    Row i holds blind · base^(digit · 2^(width·i)) for every digit, so each power is as many multiplications of full-size numbers, whatever its
    exponent: a digit of 0 costs what others cost, and a last factor takes the blinds out again.

    Where in the table it reads would tell the exponent to who watches this machine's caches from inside it. So rows are in an order that this
    table alone has: the number for a digit stands at the digit xor that of a secret mask, and an exponent is masked as a whole before
    anything depends on one digit. Who sees all reads of two powers learns the xor of their exponents. So it is for exponents that are public,
    or drawn for one power and forgotten.

    A table has 256 / width · 2^width numbers of the modulus' size, and takes as many multiplications to build: 50 ms and 3.5 MB for 8,
    6 ms and 0.4 MB for 4.
    """

    __slots__ = ("_digit", "_mask", "_modulus", "_rows", "_unblind", "_width")

    def __init__(self, base: int, modulus: int, width: int) -> None:
        """`modulus`: a prime."""
        self._modulus = gmpy2.mpz(modulus)
        self._width = width
        self._digit = (1 << width) - 1
        self._mask = mask = secrets.randbits(SRP_EXPONENT_BITS)
        self._rows: list[list[Any]] = []
        blind = gmpy2.mpz(secrets.randbelow(modulus - 2) + 2)
        step = gmpy2.mpz(base)
        for _ in range(SRP_EXPONENT_BITS // width):
            row = [blind]
            for _ in range(self._digit):
                row.append(row[-1] * step % self._modulus)
            self._rows.append([row[place ^ (mask & self._digit)] for place in range(len(row))])
            mask >>= width
            step = gmpy2.powmod(step, 1 << width, self._modulus)
        self._unblind = gmpy2.powmod(blind, -len(self._rows), self._modulus)

    def power(self, exponent: int) -> int:
        """base^exponent. Raises BadLength for more than 256 bits."""
        if exponent >> SRP_EXPONENT_BITS:
            raise BadLength
        product = self._unblind
        exponent ^= self._mask
        for row in self._rows:
            product = product * row[exponent & self._digit] % self._modulus
            exponent >>= self._width
        return int(product)


@cache
def _generator_powers() -> FixedBase:
    """g's table, for an organizer: once in a process."""
    return FixedBase(SRP_G, SRP_N, 8)


class Arithmetic(SRPContext):  # type: ignore[misc]  # srptools carries no type information
    """srptools' SRP-6a with every modular power done by `power`. Takes what `SRPContext` takes (tests: other groups)."""

    def get_common_password_verifier(self, password_hash: int) -> int:
        return power(self._gen, password_hash, self._prime)

    def get_client_public(self, *, client_private: int) -> int:
        return power(self._gen, client_private, self._prime)

    def get_server_public(self, *, password_verifier: int, server_private: int) -> int:
        return self.blind(password_verifier, power(self._gen, server_private, self._prime))

    def blind(self, password_verifier: int, half: int) -> int:
        """B = k·v + g^b, with g^b computed in advance."""
        return int((self._mult * password_verifier + half) % self._prime)

    def get_client_premaster_secret(self, *, password_hash: int, server_public: int, client_private: int, common_secret: int) -> int:
        hidden = server_public - self._mult * self.get_common_password_verifier(password_hash)
        return power(hidden, client_private + common_secret * password_hash, self._prime)

    def get_server_premaster_secret(
        self, *, password_verifier: int | FixedBase, server_private: int, client_public: int, common_secret: int
    ) -> int:
        if not isinstance(password_verifier, FixedBase):
            password_verifier = FixedBase(password_verifier, self._prime, 4)
        return power(client_public * password_verifier.power(common_secret), server_private, self._prime)


def _arithmetic(username: str = "", password: bytes = b"") -> Arithmetic:
    return Arithmetic(
        username,
        password,
        prime=f"{SRP_N:x}",
        generator=f"{SRP_G:x}",
        hash_func=hashlib.sha256,
        bits_random=SRP_EXPONENT_BITS,
        bits_salt=8 * SRP_SALT_SIZE,
    )


_HOST = _arithmetic()


def identity(session: int) -> str:
    """I, as the 64 hex digits that SRP hashes: the same for everyone in a session."""
    parts = (VERSION.to_bytes(1, "big"), SUITE.to_bytes(1, "big"), session.to_bytes(8, "big"))
    return hashlib.sha256(framed(LABEL_SRP, *parts)).hexdigest()


def normal_password(password: str) -> bytes:
    """NFC in UTF-8, so that it does not matter how a keyboard composes a letter. Raises BadProof for what is no text."""
    try:
        return unicodedata.normalize("NFC", password).encode()
    except UnicodeEncodeError:  # a lone surrogate: no keyboard types it, and it can match nothing
        raise BadProof from None


def _with_secrets(session: int, secret: bytes, password: str) -> Arithmetic:
    if len(secret) != SESSION_SECRET_SIZE:
        raise BadLength
    return _arithmetic(identity(session), secret + normal_password(password))


def _public_from_untrusted(value: bytes) -> int:
    """A or B in 1…N-1 from 384 bytes. Raises BadLength, BadPublicValue."""
    if len(value) != SRP_PUBLIC_SIZE:
        raise BadLength
    number = int.from_bytes(value, "big")
    if not 0 < number < SRP_N:
        raise BadPublicValue
    return number


def _padded(value: int) -> bytes:
    return value.to_bytes(SRP_PUBLIC_SIZE, "big")


@dataclass(frozen=True, slots=True)
class Verifier:
    """What the organizer keeps instead of the password: salt (16 bytes) and v (384). Whoever has it can try passwords."""

    salt: bytes
    v: bytes = field(repr=False)
    powers: FixedBase = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.salt) != SRP_SALT_SIZE or len(self.v) != SRP_PUBLIC_SIZE:
            raise BadLength
        object.__setattr__(self, "powers", FixedBase(int.from_bytes(self.v, "big"), SRP_N, 4))  # for all guests of the session
        _generator_powers()  # whoever has a verifier is about to be a host, and has just paid for a power in a thread

    def to_bytes(self) -> bytes:
        """salt ‖ v, 400 bytes, for sealing to disk or for a hand-over."""
        return self.salt + self.v

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`. Raises BadLength."""
        return cls(data[:SRP_SALT_SIZE], data[SRP_SALT_SIZE:])


def make_verifier(session: int, secret: bytes, password: str, salt: bytes | None = None) -> Verifier:
    """The verifier of a session's secret (32 bytes) and password, with a fresh salt unless one is given. Raises BadLength."""
    salt = secrets.token_bytes(SRP_SALT_SIZE) if salt is None else salt
    if len(salt) != SRP_SALT_SIZE:
        raise BadLength
    arithmetic = _with_secrets(session, secret, password)
    v = arithmetic.get_common_password_verifier(arithmetic.get_common_password_hash(salt))
    return Verifier(salt, _padded(v))


@dataclass(frozen=True, slots=True)
class HandshakeKeys:
    """What a handshake leaves: the keys that sealed the guest's name, and channel 0's PRK (32 bytes)."""

    name: StreamKeys = field(repr=False)
    kek: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Derived:
    """Both proofs and the keys, from the transcript and S."""

    guest_proof: bytes = field(repr=False)
    host_proof: bytes = field(repr=False)
    keys: HandshakeKeys = field(repr=False)

    @classmethod
    def make(cls, th: bytes, premaster: int) -> Self:
        if len(th) != HASH_SIZE:
            raise BadLength
        prk = extract(th, hashlib.sha256(_padded(premaster)).digest())
        m1 = hmac.digest(expand(prk, LABEL_CONFIRM_GUEST, size=HASH_SIZE), th, "sha256")
        m2 = hmac.digest(expand(prk, LABEL_CONFIRM_HOST, size=HASH_SIZE), th + m1, "sha256")
        name = StreamKeys.split(expand(prk, LABEL_NAME, size=STREAM_KEYS_SIZE))
        return cls(m1, m2, HandshakeKeys(name, expand(prk, LABEL_KEK, size=PRK_SIZE)))


def seal_name(keys: StreamKeys, name: bytes) -> bytes:
    """ciphertext ‖ tag. Once per key: `Guest.seal_name` sees to that."""
    return Sealer(keys).seal(_NAME_HEADER, 0, name)[HEADER_SIZE:]


def open_name(keys: StreamKeys, sealed: bytes) -> bytes:
    """The inverse of `seal_name`. Raises BadLength, BadTag."""
    opener = Opener(keys)
    packet = _NAME_HEADER + sealed
    opener.verify(packet)
    return opener.decrypt(packet, 0)


class Guest:
    """The joining side of one handshake. A second try takes a second `Guest`."""

    __slots__ = ("_a", "_arithmetic", "_checked", "_derived", "_name", "public")

    def __init__(self, session: int, secret: bytes, password: str) -> None:
        """Raises BadLength unless the session secret has 32 bytes."""
        self._arithmetic = _with_secrets(session, secret, password)
        self._a: int = self._arithmetic.generate_client_private()
        self.public = _padded(self._arithmetic.get_client_public(client_private=self._a))
        self._derived: _Derived | None = None
        self._name: tuple[bytes, bytes] | None = None
        self._checked = False

    def prove(self, salt: bytes, host_public: bytes, th: bytes) -> bytes:
        """M1 (32 bytes), from message 2's salt and B and the transcript hash.

        Raises BadLength, BadPublicValue: then the join ends.
        """
        if len(salt) != SRP_SALT_SIZE:
            raise BadLength
        public = _public_from_untrusted(host_public)
        arithmetic = self._arithmetic
        u = arithmetic.get_common_secret(public, int.from_bytes(self.public, "big"))
        if u == 0:
            raise BadPublicValue
        premaster = arithmetic.get_client_premaster_secret(
            password_hash=arithmetic.get_common_password_hash(salt),
            server_public=public,
            client_private=self._a,
            common_secret=u,
        )
        self._derived = _Derived.make(th, premaster)
        self._checked = False
        return self._derived.guest_proof

    def seal_name(self, name: bytes) -> bytes:
        """The display name for message 3, after `prove`. The same name gives the same bytes.

        Raises CounterReused for another name: the key is for one.
        """
        if self._derived is None:
            raise BadProof
        if self._name is None:
            self._name = (name, seal_name(self._derived.keys.name, name))
        if self._name[0] != name:
            raise CounterReused
        return self._name[1]

    def check(self, m2: bytes) -> None:
        """Make sure that the host knows the secret too. Raises BadProof."""
        if self._derived is None or not hmac.compare_digest(self._derived.host_proof, m2):
            raise BadProof
        self._checked = True

    @property
    def keys(self) -> HandshakeKeys:
        """The keys, once `check` has passed; before that BadProof."""
        if self._derived is None or not self._checked:
            raise BadProof
        return self._derived.keys


class Host:
    """The organizer's side of one handshake: answers one proof, right or wrong."""

    __slots__ = ("_b", "_derived", "_powers", "public")

    def __init__(self, verifier: Verifier) -> None:
        """Draws b. Costs a tenth of a power: g's table does the rest."""
        b: int = _HOST.generate_server_private()
        self._b: int | None = b
        self._powers = verifier.powers
        self._derived: _Derived | None = None
        self.public = _padded(_HOST.blind(int.from_bytes(verifier.v, "big"), _generator_powers().power(b)))

    def verify(self, guest_public: bytes, th: bytes, m1: bytes) -> None:
        """Check the guest's A (384 bytes) and M1 against the transcript hash.

        Raises BadLength, BadPublicValue, BadProof. Whatever happens, this Host checks no second proof: then it is BadProof.
        """
        b, self._b = self._b, None
        if b is None:
            raise BadProof
        public = _public_from_untrusted(guest_public)
        u = _HOST.get_common_secret(int.from_bytes(self.public, "big"), public)
        if u == 0:
            raise BadPublicValue
        premaster = _HOST.get_server_premaster_secret(password_verifier=self._powers, server_private=b, client_public=public, common_secret=u)
        derived = _Derived.make(th, premaster)
        if not hmac.compare_digest(derived.guest_proof, m1):
            raise BadProof
        self._derived = derived

    def _proven(self) -> _Derived:
        if self._derived is None:
            raise BadProof
        return self._derived

    def open_name(self, sealed: bytes) -> bytes:
        """The guest's display name, after `verify`. Raises BadProof before it, BadTag for what cannot be a name."""
        try:
            return open_name(self._proven().keys.name, sealed)
        except BadLength:
            raise BadTag from None

    def prove(self) -> bytes:
        """M2 (32 bytes), after `verify`; before that BadProof: no host proof before the guest's."""
        return self._proven().host_proof

    @property
    def keys(self) -> HandshakeKeys:
        """The keys, after `verify`; before that BadProof."""
        return self._proven().keys
