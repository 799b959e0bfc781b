"""The four messages of a join, both sides, sans-IO. docs/protocol.md, "Joining".

    1 guest → organizer   version, session, participant, role, A, Ed25519 key, X25519 key, nonce
    2 organizer → guest   salt, B, the organizer's keys, nonce
    3 guest → organizer   M1, sealed name
    4 organizer → guest   M2, chain of hand-overs, signature over framed("parley host 1", TH, M1, M2)

They travel in clear packets of channel 0 whose counter is 4·try + number. TH = hash of messages 1 and 2 as they travelled. The guest
checks the organizer's signature before it checks M2, against the key at the end of the chain that leads there from the meeting key
(`endpoint.succession`): everyone who knows the password could play the host, so the password alone does not tell who the organizer is.

The costly steps (`HostSide.judge`, `GuestSide.begin`, `GuestSide.prove`) are plain functions that a worker thread can
run; they touch nothing but their own object.
"""

import secrets
from dataclasses import dataclass, field
from typing import Final

from crypto.errors import BadProof, CryptoError
from crypto.schedule import transcript_hash
from crypto.signing import WEAK_EXCHANGE, ExchangeKey, SigningKey, verify
from crypto.srp import Guest, Host, Verifier
from crypto.suite import LABEL_HOST, VERSION
from endpoint.errors import MalformedHandshake, WrongOrganizer, WrongSecret
from endpoint.messages import Hello1, Offer2, Proof3, Proof4, encode, parse_handshake_untrusted
from endpoint.succession import follow_chain_untrusted
from endpoint.text import clean_name
from wire.ids import UNICAST_EPOCH, Channel, ParticipantId, Role, SessionId
from wire.packet import Flag, pack_header

TRIES: Final = 3
"""Proofs that one participant may offer."""


def clear_packet(session: SessionId, sender: ParticipantId, recipient: ParticipantId, number: int, attempt: int, body: bytes) -> bytes:
    """One handshake message (`number` 1 to 4) as a clear packet."""
    return pack_header(Flag.CLEAR | Flag.LAST, Channel.KEY, session, sender, recipient, UNICAST_EPOCH, 4 * attempt + number) + body


def place(counter: int) -> tuple[int, int]:
    """(try, message number) of a clear packet's counter.

    >>> place(1), place(4), place(5)
    ((0, 1), (0, 4), (1, 1))
    """
    return (counter - 1) // 4, (counter - 1) % 4 + 1


@dataclass(slots=True)
class GuestSide:
    """One try of a guest. Fields behind the first four are filled as the handshake goes on."""

    session: SessionId
    me: ParticipantId
    meeting_key: bytes  # where the chain of organizers begins
    signing: SigningKey = field(repr=False)
    exchange: ExchangeKey = field(repr=False)
    secret: bytes = field(repr=False)
    password: str = field(repr=False)
    name: str
    message1: bytes = b""
    message3: bytes = b""
    offer: Offer2 | None = None
    _srp: Guest | None = field(default=None, repr=False)
    _th: bytes = b""
    _m1: bytes = b""

    def begin(self) -> bytes:
        """Message 1. Costs a modular power."""
        self._srp = Guest(self.session, self.secret, self.password)
        self.message1 = encode(
            Hello1(
                VERSION,
                self.session.to_bytes(8, "big"),
                self.me,
                Role.ATTENDEE,
                self._srp.public,
                self.signing.public,
                self.exchange.public,
                secrets.token_bytes(16),
            )
        )
        return self.message1

    def prove(self, message2: bytes) -> bytes:
        """Message 3 in answer to message 2. Costs two powers. Raises MalformedHandshake, WrongSecret."""
        offer = parse_handshake_untrusted(message2)
        if not isinstance(offer, Offer2) or self._srp is None:
            raise MalformedHandshake
        self._th = transcript_hash(self.message1, message2)
        try:
            self._m1 = self._srp.prove(offer.salt, offer.public, self._th)
        except CryptoError:
            raise MalformedHandshake from None
        self.offer = offer
        self.message3 = encode(Proof3(self._m1, self._srp.seal_name(clean_name(self.name).encode())))
        return self.message3

    def finish(self, message4: bytes) -> bytes:
        """The KEK: channel 0's PRK with the organizer. Raises MalformedHandshake, WrongOrganizer, WrongSecret."""
        answer = parse_handshake_untrusted(message4)
        if not isinstance(answer, Proof4) or self._srp is None or self.offer is None:
            raise MalformedHandshake
        if follow_chain_untrusted(self.session, self.meeting_key, answer.chain) != self.offer.signing_key:
            raise WrongOrganizer
        try:
            verify(self.offer.signing_key, answer.signature, LABEL_HOST, self._th, self._m1, answer.proof)
        except CryptoError:
            raise WrongOrganizer from None
        try:
            self._srp.check(answer.proof)
        except CryptoError:
            raise WrongSecret from None
        return self._srp.keys.kek


@dataclass(slots=True)
class HostSide:
    """One try of one guest, at the organizer."""

    verifier: Verifier = field(repr=False)
    signing: SigningKey = field(repr=False)
    exchange: ExchangeKey = field(repr=False)
    attempt: int
    hello: Hello1
    message1: bytes
    chain: list[bytes] = field(default_factory=list)  # from the meeting key to `signing`
    message2: bytes = b""
    message3: bytes = b""
    message4: bytes = b""
    name: str = ""
    kek: bytes = field(default=b"", repr=False)
    _srp: Host | None = field(default=None, repr=False)

    def offer(self) -> bytes:
        """Message 2. Costs a tenth of a power: not worth a thread."""
        self._srp = Host(self.verifier)
        self.message2 = encode(Offer2(self.verifier.salt, self._srp.public, self.signing.public, self.exchange.public, secrets.token_bytes(16)))
        return self.message2

    def judge(self, message3: bytes) -> bytes:
        """Message 4, if the proof is right: then `name` and `kek` are known. Costs two powers.

        Raises MalformedHandshake, WrongSecret.
        """
        proof = parse_handshake_untrusted(message3)
        if not isinstance(proof, Proof3) or self._srp is None:
            raise MalformedHandshake
        th = transcript_hash(self.message1, self.message2)
        try:
            self._srp.verify(self.hello.public, th, proof.proof)
            name = self._srp.open_name(proof.name)
        except BadProof:
            raise WrongSecret from None
        except CryptoError:
            raise MalformedHandshake from None
        m2 = self._srp.prove()
        self.name = clean_name(name.decode("utf-8", "replace"))
        self.kek = self._srp.keys.kek
        self.message3 = message3
        self.message4 = encode(Proof4(m2, self.chain, self.signing.sign(LABEL_HOST, th, proof.proof, m2)))
        self._srp, self.message1, self.message2 = None, b"", b""  # a thousand of these may wait to be admitted
        return self.message4


def check_hello(hello: Hello1, session: SessionId, participant: ParticipantId) -> None:
    """The cheap checks of message 1. Raises MalformedHandshake."""
    if hello.version != VERSION or hello.session != session.to_bytes(8, "big") or hello.participant != participant:
        raise MalformedHandshake
    if hello.role != Role.ATTENDEE or hello.exchange_key in WEAK_EXCHANGE:
        raise MalformedHandshake
