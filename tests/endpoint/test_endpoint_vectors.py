"""The vectors of endpoints are what the code makes, speak of everything, and can be read with other libraries than ours."""

import hashlib
import hmac
import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgpack
import pytest
import zstandard
from Crypto.Cipher import AES
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa

from endpoint import log, messages
from wire.ids import Channel

VECTORS = Path(__file__).parent.parent / "vectors"
DOCUMENTS: dict[str, str] = {
    name: text
    for script in ("generate_endpoint.py", "generate_packets.py")
    for name, text in runpy.run_path(str(VECTORS / script))["documents"]().items()
}
LOG, MESSAGES, HANDSHAKE, SEALED = (
    json.loads(DOCUMENTS[f"{name}.json"]) for name in ("endpoint-log", "endpoint-messages", "packets-handshake", "packets-sealed")
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_vectors_are_what_the_code_makes(name: str) -> None:
    assert (VECTORS / name).read_text() == DOCUMENTS[name], "a format changed: say why, then run the generator in tests/vectors"


def test_no_vector_is_left_over() -> None:
    assert {path.name for pattern in ("endpoint-*.json", "packets-*.json") for path in VECTORS.glob(pattern)} == set(DOCUMENTS)


# a second implementation: other libraries, definitions from docs/protocol.md


def framed(label: bytes, *parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in (label, *parts))


def unhex(value: str) -> bytes:
    return bytes.fromhex(value)


def plain(value: object) -> object:
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def signed_by(person: dict[str, Any], message: bytes, signature: bytes) -> None:
    """Raises ValueError if it is not."""
    key = ECC.import_key(b"0*0\x05\x06\x03+ep\x03!\x00" + unhex(person["ed25519"]))
    eddsa.new(key, "rfc8032").verify(message, signature)


def people(document: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {person["id"]: person for person in document["people"]}


def expand(prk: bytes, label: bytes, *parts: bytes, size: int) -> bytes:
    blocks, block = b"", b""
    for number in range(1, 3):
        block = hmac.digest(prk, block + framed(label, *parts) + bytes((number,)), "sha256")
        blocks += block
    return blocks[:size]


def opened(keys: bytes, packet: bytes) -> bytes:
    salt, aes, mac = keys[:4], keys[4:20], keys[20:]
    assert hmac.digest(mac, packet[:-20], "sha1") == packet[-20:]
    return AES.new(aes, AES.MODE_CTR, nonce=salt + packet[24:32], initial_value=1).decrypt(packet[32:-20])


def test_B02_the_log_is_a_chain_that_another_library_follows() -> None:
    person = people(LOG)
    session = unhex(LOG["session"])
    previous = hashlib.sha256(framed(b"parley log 1", session)).digest()
    for index, case in enumerate(LOG["entries"]):
        body = unhex(case["body"])
        value = msgpack.unpackb(body)
        assert plain(value) == case["value"]
        assert (value[0], value[1]) == (index, previous)
        assert unhex(case["signed"]) == framed(b"parley entry 1", body)
        assert unhex(case["wire"]) == b"\0" + unhex(case["signature"]) + body
        signed_by(person[1], framed(b"parley entry 1", body), unhex(case["signature"]))
        previous = hashlib.sha256(framed(b"parley entry 1", body)).digest()
        assert previous.hex() == case["hash"]
    for case in LOG["heartbeats"]:
        wire = unhex(case["wire"])
        assert wire[0] == 1
        signed_by(person[1], framed(b"parley beat 1", wire[65:]), wire[1:65])
        assert plain(msgpack.unpackb(wire[65:])) == case["value"]


def test_every_kind_of_entry_and_every_message_has_a_vector() -> None:
    assert {case["kind"] for case in LOG["entries"] + LOG["unserved"]} == {kind.__name__ for kind in get_args(log.Fields)}
    assert {case["message"] for case in MESSAGES["key_messages"]} == {kind.__name__ for kind in get_args(messages.KeyMessage)}
    tags = {message["value"][0] for case in HANDSHAKE["cases"] for message in case["messages"]}
    assert tags | {5} == set(range(1, len(get_args(messages.Handshake)) + 1))
    assert {case["channel"] for case in SEALED["messages"]} == set(Channel)
    assert {case["error"] for case in LOG["refused"]} == {"entry-malformed", "entry-forged", "log-broken", "entry-illegal"}


def test_a_newcomer_judges_late_lines_as_those_who_were_there() -> None:
    """The snapshot was made after entry 7; Ann was silenced at 6 and may chat again since 7."""
    by_log = {tuple(row[:4]): row[4] for row in LOG["rights"]}
    assert [by_log[2, 2, index, 7] for index in (1, 2, 3, 5)] == [False] * 4
    assert MESSAGES["snapshot"]["rights"] == [[2, 2, index, 7, index >= 7] for index in range(9)]
    assert [2, 1, 7] in MESSAGES["snapshot"]["state"]["since"]


def test_the_log_snapshot_is_signed_by_the_organizer() -> None:
    case = MESSAGES["snapshot"]
    state, start = unhex(case["state_bytes"]), unhex(case["start_bytes"])
    assert unhex(case["signed"]) == framed(b"parley snap 1", unhex(LOG["session"]), state, start)
    signed_by(people(LOG)[1], unhex(case["signed"]), unhex(case["signature"]))
    assert plain(msgpack.unpackb(state)) == list(case["state"].values())


def test_a_roster_is_named_by_the_digest_of_what_it_shows() -> None:
    shown = [unhex(case["content"]) for case in MESSAGES["roster"]]
    assert {case["message"] for case in MESSAGES["roster"]} == {kind.__name__ for kind in get_args(messages.ShownLog)}
    assert [plain(msgpack.unpackb(content)) for content in shown] == [case["value"] for case in MESSAGES["roster"]]
    (named,) = [case["value"] for case in MESSAGES["key_messages"] if case["message"] == "Roster"]
    assert named[5] == {"hex": hashlib.sha256(framed(b"parley shown 1", *shown)).hexdigest()}
    _, entries, _ = msgpack.unpackb(shown[1])
    assert msgpack.unpackb(entries[0][65:])[1] == msgpack.unpackb(unhex(MESSAGES["snapshot"]["state_bytes"]))[1], "it follows"


@pytest.mark.parametrize("case", HANDSHAKE["cases"], ids=lambda case: case["name"].replace(" ", "-"))
def test_G22_a_join_message_by_message(case: dict[str, Any]) -> None:
    message1, message2, message3, message4 = (unhex(message["body"]) for message in case["messages"])
    for message in case["messages"]:
        packet = unhex(message["packet"])
        assert plain(msgpack.unpackb(unhex(message["body"]))) == message["value"]
        assert packet[:2] == b"\x11\x18"
        assert int.from_bytes(packet[24:32], "big") == 4 * case["try"] + message["number"]
        assert packet[32:] == unhex(message["body"])
    th = hashlib.sha256(framed(b"parley th 1", message1, message2)).digest()
    prk = hmac.digest(th, hashlib.sha256(unhex(case["S"])).digest(), "sha256")
    assert (th.hex(), prk.hex()) == (case["TH"], case["PRK"])
    m1 = hmac.digest(expand(prk, b"kc guest", size=32), th, "sha256")
    m2 = hmac.digest(expand(prk, b"kc host", size=32), th + m1, "sha256")
    assert msgpack.unpackb(message3)[1] == m1
    assert msgpack.unpackb(message4)[1] == m2
    signed_by(people(HANDSHAKE)[1], framed(b"parley host 1", th, m1, m2), msgpack.unpackb(message4)[3])
    assert expand(prk, b"kek", size=32).hex() == case["kek"]
    assert opened(expand(prk, b"name", size=40), bytes(32) + unhex(case["name_sealed"])).hex() == case["name_sent"]
    for secret in (case["password"], case["display_name"], case["name_sent"]):
        assert not secret or all(secret.encode() not in unhex(message["packet"]) for message in case["messages"])


def prks() -> Iterator[tuple[tuple[int, bool], bytes]]:
    """By (epoch, whether it is channel 0 or 10), each computed from what stands before it."""
    group_key = unhex(SEALED["epochs"][0]["group_key"])
    for epoch in SEALED["epochs"]:
        if epoch["by"] == "wrapped":
            group_key = unhex(epoch["group_key"])
            assert hashlib.sha256(framed(b"parley gk 1", group_key)).hexdigest() == epoch["digest"]
        assert group_key.hex() == epoch["group_key"]
        prk = hmac.digest(framed(b"parley mpsl 1", unhex(SEALED["session"]), epoch["epoch"].to_bytes(4, "big")), group_key, "sha256")
        assert prk.hex() == epoch["prk"]
        yield (epoch["epoch"], False), prk
        group_key = expand(prk, b"ratchet", size=16)
    roster = SEALED["roster"]
    prk = hmac.digest(
        framed(b"parley roster 1", unhex(SEALED["session"]), roster["epoch"].to_bytes(4, "big")), unhex(roster["roster_key"]), "sha256"
    )
    assert prk.hex() == roster["prk"]
    yield (roster["epoch"], True), prk
    yield (0, True), unhex(SEALED["kek"]["prk"])
    yield (0, False), unhex(SEALED["pair"]["prk"])


def test_G26_G27_G28_every_channel_opens_with_other_libraries() -> None:
    keys_of = dict(prks())
    previous: dict[tuple[int, int, int], int] = {}
    for case in SEALED["messages"]:
        stream = (case["sender"], case["recipient"], case["channel"])
        parts = (case["sender"].to_bytes(4, "big"), case["recipient"].to_bytes(4, "big"), case["channel"].to_bytes(1, "big"))
        keys = expand(keys_of[case["epoch"], case["channel"] in (0, 10)], b"stream", *parts, size=40)
        assert keys.hex() == "".join(case["stream_keys"][name] for name in ("salt", "aes", "mac"))
        payloads = [opened(keys, unhex(packet["packet"])) for packet in case["packets"]]
        assert payloads[-1].hex() == case["packets"][-1]["plaintext"]
        if "signature" in case:
            signature, payloads[-1] = payloads[-1][:64], payloads[-1][64:]
            headers = [unhex(packet["packet"])[:32] for packet in case["packets"]]
            hashed = [part for pair in zip(headers, payloads, strict=True) for part in pair]
            msg = hashlib.sha256(framed(b"parley msg 1", unhex(case["base"]), *hashed)).digest()
            assert (msg.hex(), signature.hex()) == (case["msg"], case["signature"])
            signed_by(people(SEALED)[case["sender"]], framed(b"parley sig 1", msg), signature)
        content = b"".join(payloads)
        if "signature" in case:
            assert content[:20] == case["index"].to_bytes(4, "big") + unhex(case["head"])[:16]
            assert case["head"] == SEALED["log"][case["index"]]
            content = content[20:]
        if case["compressed"]:
            content = zstandard.ZstdDecompressor().decompress(content)
        assert content.hex() == case["content"]
        for packet in case["packets"]:
            began = 4 if stream == (1, 0, 1) else 0  # entry 4 names the packet that it begins in
            assert packet["counter"] == previous.get(stream, began - 1) + 1, "counters go on across epochs"
            previous[stream] = packet["counter"]


def test_a_receiver_takes_each_step_as_the_vectors_say() -> None:
    """The outcomes were computed by the code; here they are held against what the steps' names promise."""
    (case,) = SEALED["received"]
    outcomes = {step["name"]: step["outcome"] for step in case["steps"]}
    promised = {
        "one bit is flipped": "bad-tag",
        "the flag SIGNED is gone": "flags-wrong",
        "for another session": "misdelivered",
        "the second line before the first": "gap",
        "the first line again": "replayed",
        "a line of Ann's, at the counter that is due, signed by Cleo": "bad-signature",
        "a line under a later epoch": "unknown-epoch",
        "part 3, and 2 is lost": "screen-gap",
        "an update that continues nothing": "screen-gap",
        "a screen of somebody who does not present": "no-right",
        "a line that names entry 7, which is not here yet": "index-later",
        "a line of somebody who was shown another entry 3": "fork",
        "part 1": "collected",
        "the whole screen again, part 1": "collected",
    }
    assert outcomes == {name: promised.get(name, "message") for name in outcomes}
    assert set(promised) <= set(outcomes)
