"""The formats written down a second time: from protocol.md, with pycryptodome, PyPI `srp` and the standard library alone.

Everything in tests/vectors/crypto-*.json is recomputed here without a line of `crypto/`, then the two implementations talk.
"""

import hashlib
import hmac
import json
import secrets
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import srp._pysrp
from Crypto.Cipher import AES
from Crypto.Signature import eddsa

from crypto.errors import BadProof
from crypto.keyring import Keyring
from crypto.srp import Guest, Host, make_verifier

VECTORS = Path(__file__).parent.parent / "vectors"
Keys = tuple[bytes, bytes, bytes]


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"crypto-{name}.json").read_text())


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


# the second implementation


def framed(label: bytes, *parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in (label, *parts))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, secret, "sha256")


def expand(prk: bytes, info: bytes, size: int) -> bytes:
    output, block = b"", b""
    while len(output) < size:
        block = hmac.digest(prk, block + info + bytes([len(output) // 32 + 1]), "sha256")
        output += block
    return output[:size]


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def split(material: bytes) -> Keys:
    return material[:4], material[4:20], material[20:40]


def stream(prk: bytes, sender: int, recipient: int, channel: int) -> Keys:
    return split(expand(prk, framed(b"stream", u32(sender), u32(recipient), bytes([channel])), 40))


def crypt(keys: Keys, counter: bytes, data: bytes) -> bytes:
    return AES.new(keys[1], AES.MODE_CTR, nonce=keys[0] + counter, initial_value=1).encrypt(data)


def open_packet(keys: Keys, packet: bytes) -> bytes | None:
    body, tag = packet[:-20], packet[-20:]
    if len(packet) < 52 or hmac.digest(keys[2], body, "sha1") != tag:
        return None
    return crypt(keys, packet[24:32], body[32:])


def seal_packet(keys: Keys, header: bytes, plaintext: bytes) -> bytes:
    body = header + crypt(keys, header[24:32], plaintext)
    return body + hmac.digest(keys[2], body, "sha1")


def after_srp(th: bytes, premaster: int) -> dict[str, bytes]:
    """K = SHA-256(PAD(S)), then the confirmation."""
    prk = extract(th, sha256(premaster.to_bytes(384, "big")))
    m1 = hmac.digest(expand(prk, framed(b"kc guest"), 32), th, "sha256")
    m2 = hmac.digest(expand(prk, framed(b"kc host"), 32), th + m1, "sha256")
    return {"prk": prk, "M1": m1, "M2": m2, "name": expand(prk, framed(b"name"), 40), "kek": expand(prk, framed(b"kek"), 32)}


def keys_of(case: dict[str, Any]) -> Keys:
    return raw(case["salt"]), raw(case["aes"]), raw(case["mac"])


# the vectors


def test_framing() -> None:
    for case in vectors("framing")["cases"]:
        assert framed(raw(case["label"]), *map(raw, case["parts"])).hex() == case["framed"]


def test_schedule() -> None:
    document = vectors("schedule")
    for case in document["groups"]:
        prk = extract(framed(b"parley mpsl 1", raw(case["session"]), u32(case["epoch"])), raw(case["group_key"]))
        assert prk.hex() == case["prk"]
        assert expand(prk, framed(b"ratchet"), 16).hex() == case["next_group_key"]
        assert sha256(framed(b"parley gk 1", raw(case["group_key"]))).hex() == case["group_key_digest"]
        for wanted in case["streams"]:
            assert stream(prk, wanted["sender"], wanted["recipient"], wanted["channel"]) == keys_of(wanted)
    for case in document["rosters"]:
        prk = extract(framed(b"parley roster 1", raw(case["session"]), u32(case["epoch"])), raw(case["roster_key"]))
        assert prk.hex() == case["prk"]
        for wanted in case["streams"]:
            assert stream(prk, wanted["sender"], wanted["recipient"], wanted["channel"]) == keys_of(wanted)
    for case in document["pairs"]:
        low, high = sorted((case["a"], case["b"]), key=lambda end: end["id"])
        salt = framed(b"parley pair 1", raw(case["session"]), u32(low["id"]), raw(low["public"]), u32(high["id"]), raw(high["public"]))
        assert extract(salt, raw(case["shared"])).hex() == case["prk"]
        for wanted in case["streams"]:
            assert stream(raw(case["prk"]), wanted["sender"], wanted["recipient"], wanted["channel"]) == keys_of(wanted)
    for case in document["transcripts"]:
        assert sha256(framed(b"parley th 1", raw(case["message1"]), raw(case["message2"]))).hex() == case["th"]


def test_G28_packets() -> None:
    document = vectors("packet")
    keys = keys_of(document["keys"])
    for case in document["cases"]:
        assert raw(case["first_counter_block"]) == keys[0] + raw(case["counter"]) + u32(1)
        assert seal_packet(keys, raw(case["header"]), raw(case["plaintext"])).hex() == case["packet"]
        assert open_packet(keys, raw(case["packet"])) == raw(case["plaintext"])
    for case in document["refused"]:
        assert open_packet(keys, raw(case["packet"])) is None
        assert case["error"] == ("bad-length" if len(raw(case["packet"])) < 52 else "bad-tag")


def test_replay() -> None:
    for case in vectors("replay")["cases"]:
        taken, last = set[int](), case["start"]
        for step in case["steps"]:
            counter = int(step["counter"], 16)
            if case["policy"] == "window 1024":
                fresh = counter not in taken and counter > case["start"] and counter > last - 1024
            else:
                fresh = counter > last
            outcome = "accepted" if fresh else "replayed"
            if case["policy"] == "strictly next" and counter > last + 1:
                outcome = "gap"
            assert step["outcome"] == outcome
            if outcome == "accepted":
                taken.add(counter)
                last = max(last, counter)
            assert step["last"] == last


def test_messages() -> None:
    document = vectors("signing")
    for case in document["messages"]:
        parts = [raw(part) for packet in case["packets"] for part in (packet["header"], packet["payload"])]
        assert sha256(framed(b"parley msg 1", raw(case["base"]), *parts)).hex() == case["msg"]
        ed25519_verify(raw(document["public"]), raw(case["signature"]), framed(b"parley sig 1", raw(case["msg"])))
    for case in document["fingerprints"]:
        number = int.from_bytes(sha256(framed(b"parley org 1", raw(case["meeting_key"])))[:16], "big") << 2
        digits = "abcdefghijklmnopqrstuvwxyz234567"
        assert "".join(digits[number >> at & 31] for at in range(125, -1, -5)) == case["fingerprint"]


def ed25519_verify(public: bytes, signature: bytes, message: bytes) -> None:
    eddsa.new(eddsa.import_public_key(public), "rfc8032").verify(message, signature)


def test_G22_handshakes() -> None:
    document = vectors("srp")
    n, g = int(document["N"], 16), document["g"]
    for case in document["cases"]:
        identity = sha256(framed(b"parley srp 1", b"\1", b"\1", raw(case["session"]))).hex()
        assert identity == case["identity"]
        secret = raw(case["session_secret"]) + unicodedata.normalize("NFC", case["password"]).encode()
        x = int.from_bytes(sha256(raw(case["salt"]) + sha256(identity.encode() + b":" + secret)), "big")
        assert f"{x:x}" == case["x"]
        k = int.from_bytes(sha256(n.to_bytes(384, "big") + g.to_bytes(384, "big")), "big")
        v, a, b = pow(g, x, n), int(case["a"], 16), int(case["b"], 16)
        big_a, big_b = pow(g, a, n), (k * v + pow(g, b, n)) % n
        assert (f"{k:x}", v.to_bytes(384, "big").hex()) == (case["k"], case["v"])
        assert (big_a.to_bytes(384, "big").hex(), big_b.to_bytes(384, "big").hex()) == (case["A"], case["B"])
        u = int.from_bytes(sha256(raw(case["A"]) + raw(case["B"])), "big")
        premaster = pow(big_a * pow(v, u, n), b, n)
        assert (f"{u:x}", premaster.to_bytes(384, "big").hex()) == (case["u"], case["S"])
        th = sha256(framed(b"parley th 1", raw(case["message1"]), raw(case["message2"])))
        derived = after_srp(th, premaster)
        assert (th.hex(), derived["prk"].hex()) == (case["th"], case["prk"])
        assert (derived["M1"].hex(), derived["M2"].hex(), derived["kek"].hex()) == (case["M1"], case["M2"], case["kek"])
        keys = split(derived["name"])
        assert keys == keys_of(case["name_keys"])
        assert open_packet(keys, bytes(32) + raw(case["sealed_name"])) == raw(case["display_name"])
    zeros = document["cases"][-1]
    for field in ("salt", "session_secret", "A", "B", "S"):
        assert zeros[field].startswith("00"), field


# the two talk


def test_G28_packets_of_the_one_open_in_the_other() -> None:
    session, group_key = 77, secrets.token_bytes(16)
    ring = Keyring(session, 1)
    ring.install(1, group_key, 0.0)
    ring.advance(1, 0.0)
    prk = extract(framed(b"parley mpsl 1", session.to_bytes(8, "big"), u32(1)), group_key)
    for counter, size in enumerate([0, 1, 16, 1148, 16_332]):
        plaintext = secrets.token_bytes(size)
        header = b"\x11\x08\2\0" + session.to_bytes(8, "big") + u32(1) + u32(0) + u32(1) + counter.to_bytes(8, "big")
        epoch, sealer = ring.sealer(0, 2)
        packet = sealer.seal(header, counter, plaintext)
        assert open_packet(stream(prk, 1, 0, 2), packet) == plaintext
        theirs = seal_packet(stream(prk, 9, 0, 2), header, plaintext)
        opener = ring.opener(9, 0, 2, epoch, 0.0)
        opener.verify(theirs)
        assert opener.decrypt(theirs, counter) == plaintext


@pytest.fixture
def rfc5054() -> Iterator[None]:
    """PyPI `srp` pads k and u as RFC 5054 says only when told to, for the whole process."""
    srp._pysrp.rfc5054_enable()
    yield
    srp._pysrp.rfc5054_enable(False)


SESSION, PASSWORD = 0xABCDEF, "correct horse battery staple"


def group() -> dict[str, Any]:
    """Our group, which `srp` does not name."""
    return {"hash_alg": srp._pysrp.SHA256, "ng_type": srp._pysrp.NG_CUSTOM, "n_hex": vectors("srp")["N"].encode(), "g_hex": b"5"}


def credentials(password: str = PASSWORD) -> tuple[str, bytes, bytes]:
    secret = secrets.token_bytes(32)
    return sha256(framed(b"parley srp 1", b"\1", b"\1", SESSION.to_bytes(8, "big"))).hex(), secret, secret + password.encode()


# What PyPI `srp` does otherwise, and what the two tests below do about it:
# - it writes A, B and v without leading zeros: padded here to the 384 bytes that ours demand;
# - K is the hash of S without leading zeros, M1 and M2 are RFC 2945's over the identity: ours hash PAD(S) and bind the
#   transcript, so only S is taken from it;
# - its exponents have 2,048 bits, ours 256: no difference to the other side.


@pytest.mark.usefixtures("rfc5054")
@pytest.mark.parametrize("right", [True, False])
def test_G22_an_independent_guest_meets_our_host(right: bool) -> None:
    identity, secret, text = credentials()
    verifier = make_verifier(SESSION, secret, PASSWORD)
    host = Host(verifier)
    theirs = srp._pysrp.User(identity, text if right else text + b"!", **group())
    public = theirs.start_authentication()[1].rjust(384, b"\0")
    assert theirs.process_challenge(verifier.salt, host.public) is not None
    th = secrets.token_bytes(32)
    derived = after_srp(th, theirs.S)
    if right:
        host.verify(public, th, derived["M1"])
        assert host.prove() == derived["M2"]
        assert host.keys.kek == derived["kek"]
    else:
        with pytest.raises(BadProof):
            host.verify(public, th, derived["M1"])


@pytest.mark.usefixtures("rfc5054")
@pytest.mark.parametrize("right", [True, False])
def test_G22_our_guest_meets_an_independent_host(right: bool) -> None:
    identity, secret, text = credentials()
    guest = Guest(SESSION, secret, PASSWORD if right else "wrong")
    salt = secrets.token_bytes(16)
    x = srp._pysrp.gen_x(hashlib.sha256, salt, identity, text)
    v = pow(5, x, int(vectors("srp")["N"], 16)).to_bytes(384, "big")
    theirs = srp._pysrp.Verifier(identity, salt, v, guest.public, **group())
    th = secrets.token_bytes(32)
    m1 = guest.prove(salt, theirs.get_challenge()[1].rjust(384, b"\0"), th)
    theirs._derive_H_AMK()
    derived = after_srp(th, theirs.S)
    assert (m1 == derived["M1"]) == right
    if right:
        guest.check(derived["M2"])
        assert guest.keys.kek == derived["kek"]
    else:
        with pytest.raises(BadProof):
            guest.check(derived["M2"])
