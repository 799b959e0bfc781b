"""Write the vectors of the end-to-end layer: `python tests/vectors/generate_crypto.py`. Deterministic: same code, same bytes.

For a second implementation in another language. Bytes are lower-case hex; 64-bit integers are 16 hex digits, smaller ones
numbers; SRP numbers are hex without leading zeros, and 384-byte hex where PAD is meant. `refused` cases name the error that
they must raise. tests/crypto/test_vectors.py regenerates and compares; test_independent.py recomputes them with other libraries.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

from crypto import replay, schedule, signing, srp, suite
from crypto.errors import CryptoError
from crypto.seal import Opener, Sealer

HERE: Final = Path(__file__).parent
SESSION: Final = 0x0123456789ABCDEF
ANN: Final = 0x00000002
BOB: Final = 0x80000001

Case = dict[str, Any]


def seeded(name: str, size: int) -> bytes:
    """Bytes that look random and never change."""
    return hashlib.shake_256(b"parley vectors " + name.encode()).digest(size)


def u64(value: int) -> str:
    return f"{value:016x}"


def stream_case(keys: schedule.StreamKeys) -> Case:
    return {"salt": keys.salt.hex(), "aes": keys.aes.hex(), "mac": keys.mac.hex()}


def header(channel: int, flags: int, sender: int, recipient: int, epoch: int, counter: int) -> bytes:
    head = bytes((suite.VERSION << 4 | suite.SUITE, flags, channel, 0)) + SESSION.to_bytes(8, "big")
    return head + b"".join(field.to_bytes(4, "big") for field in (sender, recipient, epoch)) + counter.to_bytes(8, "big")


# framing


def framing() -> Case:
    lists = [(b"", []), (b"parley org 1", []), (b"a", [b""]), (b"a", [b"b", b"c"]), (b"a", [b"bc"]), (b"ab", [b"c"]), (b"l", [bytes(300)])]
    return {
        "what": "framed(label, parts): u32 length and bytes of the label, then of each part",
        "cases": [
            {"label": label.hex(), "parts": [part.hex() for part in parts], "framed": suite.framed(label, *parts).hex()}
            for label, parts in lists
        ],
    }


# key schedule


def schedules() -> Case:
    groups = []
    for epoch, group_key in [(1, seeded("gk 1", 16)), (0x01000007, bytes(2) + seeded("gk 2", 14)), (0xFFFFFFFF, bytes(16))]:
        prk = schedule.group_prk(SESSION, epoch, group_key)
        streams = [(ANN, 0, 1), (ANN, 0, 2), (BOB, 0, 5), (1, 0, 9)]
        groups.append(
            {
                "session": u64(SESSION),
                "epoch": epoch,
                "group_key": group_key.hex(),
                "group_key_digest": schedule.group_key_digest(group_key).hex(),
                "prk": prk.hex(),
                "next_group_key": schedule.ratchet(prk).hex(),
                "streams": [
                    {"sender": s, "recipient": r, "channel": c, **stream_case(schedule.stream_keys(prk, s, r, c))} for s, r, c in streams
                ],
            }
        )
    roster_key = seeded("roster key", 16)
    prk = schedule.roster_prk(SESSION, 0x01000007, roster_key)
    roster = {
        "session": u64(SESSION),
        "epoch": 0x01000007,
        "roster_key": roster_key.hex(),
        "prk": prk.hex(),
        "streams": [{"sender": 1, "recipient": 0, "channel": 10, **stream_case(schedule.stream_keys(prk, 1, 0, 10))}],
    }
    ann, bob = signing.ExchangeKey.from_bytes(seeded("x ann", 32)), signing.ExchangeKey.from_bytes(seeded("x bob", 32))
    shared = ann.shared(bob.public)
    prk = schedule.pair_prk(SESSION, BOB, bob.public, ANN, ann.public, shared)
    pair = {
        "session": u64(SESSION),
        "a": {"id": ANN, "secret": ann.to_bytes().hex(), "public": ann.public.hex()},
        "b": {"id": BOB, "secret": bob.to_bytes().hex(), "public": bob.public.hex()},
        "shared": shared.hex(),
        "prk": prk.hex(),
        "streams": [
            {"sender": s, "recipient": r, "channel": c, **stream_case(schedule.stream_keys(prk, s, r, c))}
            for s, r, c in [(ANN, BOB, 3), (BOB, ANN, 3), (ANN, BOB, 4)]
        ],
    }
    return {
        "what": "group key, roster key, or X25519 secret of a pair, to PRK to the keys of one stream; the ratchet; the digest that the log "
        "names",
        "groups": groups,
        "rosters": [roster],
        "pairs": [pair],
        "transcripts": [
            {"message1": one.hex(), "message2": two.hex(), "th": schedule.transcript_hash(one, two).hex()}
            for one, two in [(b"message one", b"message two"), (b"", b""), (b"message onem", b"essage two")]
        ],
    }


# packets


def refusal(keys: schedule.StreamKeys, packet: bytes) -> str:
    try:
        Opener(keys).verify(packet)
    except CryptoError as error:
        return error.name
    raise AssertionError("this packet should have been refused")


def packets() -> Case:
    keys = schedule.stream_keys(schedule.group_prk(SESSION, 1, seeded("gk 1", 16)), ANN, 0, 2)
    cases: list[Case] = []
    for counter, size in [(0, 0), (1, 1), (2, 16), (3, 17), (0xFFFFFFFF, 1148), (2**63, 200), (2**64 - 1, 32)]:
        plaintext = seeded(f"plaintext {size}", size)
        clear = header(2, 8, ANN, 0, 1, counter)
        packet = Sealer(keys).seal(clear, counter, plaintext)
        cases.append(
            {
                "header": clear.hex(),
                "counter": u64(counter),
                "plaintext": plaintext.hex(),
                "first_counter_block": (keys.salt + counter.to_bytes(8, "big") + (1).to_bytes(4, "big")).hex(),
                "ciphertext": packet[suite.HEADER_SIZE : -suite.TAG_SIZE].hex(),
                "tag": packet[-suite.TAG_SIZE :].hex(),
                "packet": packet.hex(),
            }
        )
    good = Sealer(keys).seal(header(2, 8, ANN, 0, 1, 7), 7, b"sixteen or so bytes")
    flips = {"version": 0, "flags": 1, "channel": 2, "session": 11, "sender": 15, "epoch": 23, "counter": 31, "ciphertext": 32, "tag": -1}
    refused: list[Case] = []
    for name, at in flips.items():
        altered = bytearray(good)
        altered[at] ^= 1
        refused.append({"name": f"one bit of {name}", "packet": altered.hex(), "error": refusal(keys, bytes(altered))})
    for name, packet in [("one byte cut", good[:-1]), ("one byte more", good + b"\0"), ("no room for a tag", good[:51]), ("empty", b"")]:
        refused.append({"name": name, "packet": packet.hex(), "error": refusal(keys, packet)})
    return {
        "what": "header ‖ AES-128-CTR(plaintext) ‖ HMAC-SHA1(header ‖ ciphertext)",
        "keys": stream_case(keys),
        "cases": cases,
        "refused": refused,
    }


# replay


def replays() -> Case:
    def run(policy: replay.Replay, counters: list[int]) -> list[Case]:
        steps = []
        for counter in counters:
            try:
                policy.accept(counter)
                outcome = "accepted"
            except CryptoError as error:
                outcome = error.name
            steps.append({"counter": u64(counter), "outcome": outcome, "last": policy.last})
        return steps

    order = [0, 1, 1, 3, 2, 3, 0]
    window = [0, 5, 3, 3, 1026, 3, 4, 2049, 1026, 1025, 2049, 5000, 3976, 3977, 3977]
    return {
        "what": "which counters a stream takes, one after the other; `start` is the last counter taken before, -1 for none",
        "cases": [
            {"policy": "strictly next", "start": -1, "steps": run(replay.StrictlyNext(), order)},
            {"policy": "strictly next", "start": 41, "steps": run(replay.StrictlyNext(41), [41, 43, 42, 43])},
            {"policy": "strictly rising", "start": -1, "steps": run(replay.StrictlyRising(), [*order, 1000, 999])},
            {"policy": "window 1024", "start": -1, "steps": run(replay.Window(), window)},
            {"policy": "window 1024", "start": 7, "steps": run(replay.Window(7), [7, 6, 8, 8, 10, 9])},
        ],
    }


# signatures


def signatures() -> Case:
    key = signing.SigningKey.from_seed(seeded("ed ann", 32))
    messages: list[Case] = []
    previous = signing.FIRST_BASE
    for name, channel, payloads in [
        ("one packet", 2, [b"hello"]),
        ("an empty payload", 2, [b""]),
        ("the first update of a screen", 5, [seeded("tile", 40), seeded("tiles", 90), b"end"]),
        ("the update after it", 5, [b"next"]),
    ]:
        base = previous if channel == 5 else b""
        message = signing.MessageHash(base)
        parts = []
        for number, payload in enumerate(payloads):
            clear = header(channel, 8 | 2 if number == len(payloads) - 1 else 0, ANN, 0, 1, number)
            message.update(clear, payload)
            parts.append({"header": clear.hex(), "payload": payload.hex()})
        previous = message.digest() if channel == 5 else previous
        signature = key.sign(suite.LABEL_SIGNATURE, message.digest())
        messages.append({"name": name, "base": base.hex(), "packets": parts, "msg": message.digest().hex(), "signature": signature.hex()})
    low_order = ["00" * 32, "01" + "00" * 31, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"]
    low_order += ["e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"]
    return {
        "what": "MSG of a message's packets; Ed25519 over framed('parley sig 1', MSG); the fingerprint in a link; X25519 keys to refuse",
        "seed": key.seed.hex(),
        "public": key.public.hex(),
        "messages": messages,
        "fingerprints": [{"meeting_key": meeting.hex(), "fingerprint": signing.fingerprint(meeting)} for meeting in (key.public, bytes(32))],
        "weak_x25519_keys": low_order,
    }


# the handshake


@contextlib.contextmanager
def exponents(a: int, b: int) -> Iterator[None]:
    with (
        mock.patch.object(srp.Arithmetic, "generate_client_private", return_value=a),
        mock.patch.object(srp.Arithmetic, "generate_server_private", return_value=b),
    ):
        yield


def handshake(name: str, session: int, secret: bytes, password: str, salt: bytes, a: int, b: int) -> Case:
    verifier = srp.make_verifier(session, secret, password, salt)
    with exponents(a, b):
        guest, host = srp.Guest(session, secret, password), srp.Host(verifier)
    message1, message2 = b"message 1" + guest.public, b"message 2" + salt + host.public
    th = schedule.transcript_hash(message1, message2)
    m1 = guest.prove(salt, host.public, th)
    host.verify(guest.public, th, m1)
    sealed = guest.seal_name("Zoë".encode())
    guest.check(host.prove())

    # the steps in between, once more, from their definitions
    n = suite.SRP_N
    secret_text = secret + srp.normal_password(password)
    inner = hashlib.sha256(srp.identity(session).encode() + b":" + secret_text).digest()
    x = int.from_bytes(hashlib.sha256(salt + inner).digest(), "big")
    k = int.from_bytes(hashlib.sha256(n.to_bytes(384, "big") + (5).to_bytes(384, "big")).digest(), "big")
    u = int.from_bytes(hashlib.sha256(guest.public + host.public).digest(), "big")
    premaster = pow(int.from_bytes(host.public, "big") - k * pow(5, x, n), a + u * x, n).to_bytes(384, "big")
    key = hashlib.sha256(premaster).digest()
    prk = schedule.extract(th, key)
    return {
        "name": name,
        "session": u64(session),
        "session_secret": secret.hex(),
        "password": password,
        "password_nfc_utf8": srp.normal_password(password).hex(),
        "identity": srp.identity(session),
        "salt": salt.hex(),
        "x": f"{x:x}",
        "k": f"{k:x}",
        "v": verifier.v.hex(),
        "a": f"{a:x}",
        "A": guest.public.hex(),
        "b": f"{b:x}",
        "B": host.public.hex(),
        "u": f"{u:x}",
        "S": premaster.hex(),
        "K": key.hex(),
        "message1": message1.hex(),
        "message2": message2.hex(),
        "th": th.hex(),
        "prk": prk.hex(),
        "kc_guest": schedule.expand(prk, suite.LABEL_CONFIRM_GUEST, size=32).hex(),
        "kc_host": schedule.expand(prk, suite.LABEL_CONFIRM_HOST, size=32).hex(),
        "name_keys": stream_case(guest.keys.name),
        "kek": guest.keys.kek.hex(),
        "M1": m1.hex(),
        "M2": host.prove().hex(),
        "display_name": "Zoë".encode().hex(),
        "sealed_name": sealed.hex(),
    }


def handshakes() -> Case:
    def number(name: str, size: int = 32) -> int:
        return int.from_bytes(seeded(name, size), "big")

    n = suite.SRP_N
    zeros: dict[str, Any] = {
        # found by search, so that salt, session secret, a, A, B and S all begin with zero bytes
        "session": 0xA7,
        "secret": bytes(2) + hashlib.sha256(b"vector secret zeros").digest()[2:],
        "password": "café zero",
        "salt": bytes(2) + hashlib.sha256(b"vector salt zeros").digest()[:14],
        "a": int.from_bytes(hashlib.sha256(b"vector a 583").digest()[1:], "big"),
        "b": int.from_bytes(hashlib.sha256(b"vector b").digest(), "big") + 56776,
    }
    return {
        "what": "SRP-6a over RFC 5054's 3,072-bit group with SHA-256, its confirmation and its keys",
        "N": f"{n:x}",
        "g": suite.SRP_G,
        "cases": [
            handshake(
                "four words", SESSION, seeded("secret", 32), "correct horse battery staple", seeded("salt", 16), number("a"), number("b")
            ),
            handshake("no password", SESSION, seeded("secret", 32), "", seeded("salt", 16), number("a"), number("b")),
            handshake("typed in another Unicode form", 2**64 - 1, bytes(32), "cafe\u0301 \u212b", bytes(16), number("a 2"), number("b 2")),
            handshake("leading zeros", **zeros),
        ],
        "refused_public_values": [
            {"name": name, "value": value.hex(), "error": error}
            for name, value, error in [
                ("zero", bytes(384), "bad-public-value"),
                ("N", n.to_bytes(384, "big"), "bad-public-value"),
                ("N + 1", (n + 1).to_bytes(384, "big"), "bad-public-value"),
                ("all ones", b"\xff" * 384, "bad-public-value"),
                ("a byte short", bytes(382) + b"\x05", "bad-length"),
                ("a byte long", bytes(384) + b"\x05", "bad-length"),
                ("nothing", b"", "bad-length"),
            ]
        ],
    }


def documents() -> dict[str, str]:
    """File name → text."""
    contents = {
        "framing": framing(),
        "schedule": schedules(),
        "packet": packets(),
        "replay": replays(),
        "signing": signatures(),
        "srp": handshakes(),
    }
    return {f"crypto-{name}.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in contents.items()}


if __name__ == "__main__":
    for file, text in documents().items():
        (HERE / file).write_text(text)
