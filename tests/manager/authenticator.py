"""A passkey in software (WebAuthn level 2, ES256, no attestation): what a browser and its authenticator answer to the site's options."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_bytes
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40  # flags of the authenticator's data (6.1)


def text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Authenticator:
    """One key for one site. `count`: how often it has signed; an authenticator without a counter always says 0."""

    origin: str
    counts: bool = True
    count: int = 0
    flags: int = PRESENT | VERIFIED
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    credential: bytes = field(default_factory=lambda: token_bytes(32))

    def create(self, options: str) -> str:
        """What `navigator.credentials.create` gives, as JSON."""
        asked = json.loads(options)
        point = self.key.public_key().public_numbers()
        cose = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")})
        said = self._said(asked["rp"]["id"], ATTESTED) + bytes(16) + len(self.credential).to_bytes(2, "big") + self.credential + cose
        attested = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": said})
        client = self._client("webauthn.create", asked)
        return self._answer(clientDataJSON=text(client), attestationObject=text(attested))

    def get(self, options: str, **changed: Any) -> str:
        """What `navigator.credentials.get` gives, as JSON; `changed`: of what the browser says in `clientDataJSON`."""
        asked = json.loads(options)
        self.count += self.counts
        said, client = self._said(asked["rpId"]), self._client("webauthn.get", asked, **changed)
        signature = self.key.sign(said + sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._answer(clientDataJSON=text(client), authenticatorData=text(said), signature=text(signature))

    def _said(self, host: str, flags: int = 0) -> bytes:
        return sha256(host.encode()).digest() + bytes([self.flags | flags]) + self.count.to_bytes(4, "big")

    def _client(self, kind: str, asked: dict[str, Any], **changed: Any) -> bytes:
        challenge = text(urlsafe_b64decode(asked["challenge"] + "=="))
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False} | changed).encode()

    def _answer(self, **response: str) -> str:
        name = text(self.credential)
        return json.dumps({"id": name, "rawId": name, "type": "public-key", "response": response, "clientExtensionResults": {}})
