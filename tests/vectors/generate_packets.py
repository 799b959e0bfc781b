"""Write the vectors of joins and of sealed packets: `python tests/vectors/generate_packets.py`. Deterministic: same code, same bytes.

    packets-handshake.json   whole joins from fixed randomness, message by message, with every value in between
    packets-sealed.json      sealed messages of every channel under three epochs, and how a receiver takes them, in order

As in generate_endpoint.py: hex, numbers, and a `value` for what a msgpack body means. Compressed contents come from one version of zstd; a
sender need not make the same bytes. tests/endpoint/test_endpoint_vectors.py regenerates and compares.
"""

import json
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Final
from unittest import mock

import msgspec

from crypto import schedule, srp
from crypto.errors import CryptoError
from crypto.keyring import Keyring
from crypto.seal import Opener
from crypto.signing import fingerprint
from crypto.suite import SRP_N, framed
from endpoint import log, messages
from endpoint.channel import CONTINUES, NO_BASE, Channels
from endpoint.errors import EndpointError
from endpoint.handshake import GuestSide, HostSide, clear_packet
from endpoint.text import clean_name
from tests.vectors.generate_endpoint import (
    ANN,
    BOB,
    CHAIN,
    CLEO,
    EXCHANGE,
    MEETING_KEY,
    ORGANIZER,
    SESSION,
    SIGNING,
    TIME,
    Case,
    log_snapshot,
    people,
    replayed,
    seeded,
    value_of,
)  # fmt: skip
from wire.errors import WireError
from wire.ids import EVERYONE, Channel, ParticipantId
from wire.packet import HEADER_SIZE, SIGNED_CHANNELS, Flag, parse_packet_untrusted

HERE: Final = Path(__file__).parent

# the handshake


def join(name: str, password: str, display_name: str, attempt: int) -> Case:
    secret, salt = seeded("session secret", 32), seeded("salt", 16)
    verifier = srp.make_verifier(SESSION, secret, password, salt)
    a, b = (int.from_bytes(seeded(f"{name} {letter}", 32), "big") for letter in "ab")
    nonces = [seeded(f"{name} nonce {i}", 16) for i in (1, 2)]
    guest = GuestSide(SESSION, ANN, MEETING_KEY, SIGNING[ANN], EXCHANGE[ANN], secret, password, display_name)
    with (
        mock.patch.object(srp.Arithmetic, "generate_client_private", return_value=a),
        mock.patch.object(srp.Arithmetic, "generate_server_private", return_value=b),
        mock.patch.object(secrets, "token_bytes", side_effect=nonces),
    ):
        message1 = guest.begin()
        hello = messages.parse_handshake_untrusted(message1)
        assert isinstance(hello, messages.Hello1)
        host = HostSide(verifier, SIGNING[ORGANIZER], EXCHANGE[ORGANIZER], attempt, hello, message1)
        message2 = host.offer()
    message3 = guest.prove(message2)
    message4 = host.judge(message3)
    kek = guest.finish(message4)
    assert kek == host.kek
    proof3, proof4 = messages.parse_handshake_untrusted(message3), messages.parse_handshake_untrusted(message4)
    assert isinstance(proof3, messages.Proof3)
    assert isinstance(proof4, messages.Proof4)
    th = schedule.transcript_hash(message1, message2)

    # what stands in between, once more, from its definition
    n = SRP_N
    x = int.from_bytes(
        sha256(salt + sha256(srp.identity(SESSION).encode() + b":" + secret + srp.normal_password(password)).digest()).digest(), "big"
    )
    k = int.from_bytes(sha256(n.to_bytes(384, "big") + (5).to_bytes(384, "big")).digest(), "big")
    offer = guest.offer
    assert offer is not None
    u = int.from_bytes(sha256(hello.public + offer.public).digest(), "big")
    premaster = pow(int.from_bytes(offer.public, "big") - k * pow(5, x, n), a + u * x, n).to_bytes(384, "big")
    prk = schedule.extract(th, sha256(premaster).digest())
    keys = schedule.StreamKeys.split(schedule.expand(prk, b"name", size=40))
    bodies = [(ANN, ORGANIZER, 1, message1), (ORGANIZER, ANN, 2, message2), (ANN, ORGANIZER, 3, message3), (ORGANIZER, ANN, 4, message4)]
    return {
        "name": name,
        "try": attempt,
        "session_secret": secret.hex(),
        "password": password,
        "display_name": display_name,
        "salt": salt.hex(),
        "v": verifier.v.hex(),
        "a": f"{a:x}",
        "b": f"{b:x}",
        "A": hello.public.hex(),
        "B": offer.public.hex(),
        "messages": [
            {
                "number": number,
                "sender": sender,
                "recipient": recipient,
                "counter": 4 * attempt + number,
                "value": value_of(body),
                "body": body.hex(),
                "packet": clear_packet(SESSION, sender, recipient, number, attempt, body).hex(),
            }
            for sender, recipient, number, body in bodies
        ],
        "TH": th.hex(),
        "S": premaster.hex(),
        "PRK": prk.hex(),
        "kc_guest": schedule.expand(prk, b"kc guest", size=32).hex(),
        "kc_host": schedule.expand(prk, b"kc host", size=32).hex(),
        "M1": proof3.proof.hex(),
        "M2": proof4.proof.hex(),
        "host_signed": framed(b"parley host 1", th, proof3.proof, proof4.proof).hex(),
        "host_signature": proof4.signature.hex(),
        "name_keys": {"salt": keys.salt.hex(), "aes": keys.aes.hex(), "mac": keys.mac.hex()},
        "name_sent": clean_name(display_name).encode().hex(),
        "name_sealed": proof3.name.hex(),
        "kek": kek.hex(),
    }


def handshakes() -> Case:
    whole = join("four words", "correct horse battery staple", "Zoë", 0)
    bodies = {message["number"]: bytes.fromhex(message["body"]) for message in whole["messages"]}
    malformed = [
        ("nothing", b""),
        ("an unknown tag", messages.encode([9])),
        ("no array", messages.encode(1)),
        ("cut", bodies[1][:-1]),
        ("a byte behind it", bodies[2] + b"\xc0"),
        ("A of 383 bytes", messages.encode([*msgspec.msgpack.decode(bodies[1])[:5], bytes(383), *msgspec.msgpack.decode(bodies[1])[6:]])),
        ("no signature", messages.encode(msgspec.msgpack.decode(bodies[4])[:3])),
        ("a name that is too short to be sealed", messages.encode([3, bytes(32), bytes(20)])),
    ]
    for name, body in malformed:
        try:
            messages.parse_handshake_untrusted(body)
        except EndpointError:
            continue
        raise AssertionError(name)
    return {
        "what": "the four messages of a join: tagged msgpack arrays in clear packets of channel 0 (flags CLEAR and LAST, epoch 0, counter = 4 ·"
        " try + number, no tag). TH is over `body` of messages 1 and 2. `name_sealed` = ciphertext ‖ tag under name_keys with counter 0"
        " and a header of 32 zero bytes. `refused` may stand in place of message 2 or 4. `malformed`: bodies that are "
        "handshake-malformed.",
        "session": f"{SESSION:016x}",
        "people": people()[:2],
        "meeting_key": MEETING_KEY.hex(),
        "fingerprint": fingerprint(MEETING_KEY),
        "cases": [
            whole,
            join("no password, the third try", "", " \u202eA\u0301nn\n", 2),
            join("another alphabet", "пароль \u212b", "名前", 0),
        ],
        "refused": [
            {"reason": reason, "number": number, "body": messages.encode(messages.Refused4(reason)).hex(),
             "packet": clear_packet(SESSION, ORGANIZER, ANN, number, 0, messages.encode(messages.Refused4(reason))).hex()}
            for reason, number in (("wrong-secret", 4), ("join-busy", 2), ("turned-away", 2), ("turned-away", 4))
        ],
        "malformed": [{"name": name, "body": body.hex()} for name, body in malformed],
    }  # fmt: skip


# packets


class Roster:
    """What a member knows after some entries of the log above."""

    def __init__(self, entries: int) -> None:
        self.state = replayed(entries)

    @property
    def index(self) -> int:
        return self.state.index

    def signing_key(self, sender: ParticipantId) -> bytes | None:
        known = self.state.known(sender)
        return known.signing_key if known else None

    def head_at(self, index: int) -> bytes | None:
        return self.state.head_at(index)

    def may_send(self, sender: ParticipantId, channel: int, index: int, counter: int) -> bool:
        return self.state.may_send(sender, channel, index, counter)

    def check_log(self, sender: ParticipantId, content: bytes, counter: int) -> None:
        log.parse_log_untrusted(content, MEETING_KEY, counter)


GROUP_KEY_2: Final = seeded("gk 2", 16)
GROUP_KEY_3: Final = schedule.ratchet(schedule.group_prk(SESSION, 2, GROUP_KEY_2))
GROUP_KEY_4: Final = seeded("gk 4", 16)
GROUP_KEYS: Final = {2: GROUP_KEY_2, 3: GROUP_KEY_3, 4: GROUP_KEY_4}
KEK: Final = seeded("kek of Ann and the organizer", 32)
PAIR: Final = schedule.pair_prk(SESSION, ANN, EXCHANGE[ANN].public, BOB, EXCHANGE[BOB].public, EXCHANGE[ANN].shared(EXCHANGE[BOB].public))


ROSTER_KEY: Final = seeded("roster key", 16)


def prk_of(packet: bytes) -> bytes:
    header = parse_packet_untrusted(packet)
    if header.channel == Channel.ROSTER:
        return schedule.roster_prk(SESSION, header.epoch, ROSTER_KEY)
    if header.channel == Channel.KEY:
        return KEK
    return PAIR if header.recipient else schedule.group_prk(SESSION, header.epoch, GROUP_KEYS[header.epoch])


class Sender:
    """One member's channels, with every key that the vectors use; `messages` collects what it seals."""

    def __init__(self, me: ParticipantId, entries: int) -> None:
        self.me = me
        self.roster = Roster(entries)
        self.keyring = Keyring(SESSION, me)
        self.keyring.install(2, GROUP_KEY_2, 0.0)
        self.keyring.advance(2, 0.0)
        self.keyring.set_roster(2, ROSTER_KEY)
        self.keyring.set_key_channel(ORGANIZER if me == ANN else ANN, KEK)
        self.keyring.set_pair(BOB if me == ANN else ANN, PAIR)
        self.channels = Channels(SESSION, me, SIGNING[me], self.keyring, self.roster)
        self.base = NO_BASE

    def case(self, name: str, channel: int, content: bytes, recipient: ParticipantId = EVERYONE, *, restart: bool = False) -> Case:
        return self.described(name, content, self.channels.seal(channel, content, recipient, restart=restart))

    def snapshot(self, name: str, picture: bytes) -> Case:
        content = CONTINUES.pack(self.channels.last(Channel.SCREEN), self.base) + picture
        return self.described(name, content, self.channels.seal_snapshot(picture))

    def described(self, name: str, content: bytes, packets: list[bytes]) -> Case:
        """The message taken apart with the definitions of docs/protocol.md, not with the code that made it."""
        last = parse_packet_untrusted(packets[-1])
        signed = last.channel in SIGNED_CHANNELS
        base = self.base if last.channel == Channel.SCREEN else b""
        keys = schedule.stream_keys(prk_of(packets[-1]), last.sender, last.recipient, last.channel)
        hashed, taken, signature = [base], [], b""
        for packet in packets:
            opener = Opener(keys)
            opener.verify(packet)
            header = parse_packet_untrusted(packet)
            plaintext = payload = opener.decrypt(packet, header.counter)
            if signed and packet is packets[-1]:
                signature, payload = plaintext[:64], plaintext[64:]
            hashed += [packet[:HEADER_SIZE], payload]
            taken.append({"counter": header.counter, "flags": header.flags, "header": packet[:HEADER_SIZE].hex()})
            if packet is packets[-1]:
                taken[-1]["plaintext"] = plaintext.hex()
            taken[-1]["packet"] = packet.hex()
        msg = sha256(framed(b"parley msg 1", *hashed)).digest()
        if last.channel == Channel.SCREEN:
            self.base = msg
        return {
            "name": name,
            "channel": last.channel,
            "sender": last.sender,
            "recipient": last.recipient,
            "epoch": last.epoch,
            "content": content.hex(),
            "compressed": bool(last.flags & Flag.COMPRESSED),
            "stream_keys": {"salt": keys.salt.hex(), "aes": keys.aes.hex(), "mac": keys.mac.hex()},
            **({"index": self.roster.index, "head": self.roster.state.head.hex(), "base": base.hex(), "msg": msg.hex()} if signed else {}),
            **({"signed": framed(b"parley sig 1", msg).hex(), "signature": signature.hex()} if signed else {}),
            "packets": taken,
        }


def packets() -> Case:
    ann, olga, bob = Sender(ANN, 4), Sender(ORGANIZER, 4), Sender(BOB, 5)
    olga.keyring.resume(EVERYONE, Channel.LOG, 3)  # entry 4 names the packet that it begins in
    line = messages.encode(messages.ChatLine("hello", TIME))
    long = messages.encode(messages.ChatLine("the same again and again, " * 40, TIME))
    update = bytes((messages.ScreenKind.UPDATE,)) + seeded("an update", 40)
    large = bytes((messages.ScreenKind.UPDATE,)) + seeded("a large update", 32_700)
    made = [
        olga.case("a group key, wrapped", Channel.KEY, messages.encode(messages.GroupKey(4, GROUP_KEY_4)), ANN),
        olga.case("a log snapshot, compressed", Channel.ROSTER, messages.encode(log_snapshot())),
        ann.case("the snapshot is applied", Channel.KEY, messages.encode(messages.Started()), ORGANIZER),
        olga.case("a log entry", Channel.LOG, CHAIN[4].wire),
        olga.case("a heartbeat", Channel.LOG, log.sign_heartbeat(SIGNING[ORGANIZER], log.Heartbeat(4, CHAIN[4].hash, 5, TIME, []))),
        ann.case("chat", Channel.CHAT, line),
        ann.case("a chat line that is worth compressing", Channel.CHAT, long),
        ann.case("a whisper to Bob", Channel.WHISPER, line, BOB),
        bob.case("input to Ann, who presents; its content is not defined yet", Channel.INPUT, b"click", ANN),
        ann.snapshot("the whole screen, before any update", seeded("a picture", 200)),
        ann.case("an update", Channel.SCREEN, update, restart=True),
        ann.case("an update of three packets", Channel.SCREEN, large),
        ann.snapshot("the whole screen of two packets, in the middle of the updates", seeded("another picture", 16_400)),
        ann.case("the update behind it", Channel.SCREEN, update, restart=True),
        ann.case("the presenter pauses", Channel.SCREEN, bytes((messages.ScreenKind.PAUSED,))),
        ann.case("a cursor; its content is not defined yet", Channel.CURSOR, b"cursor"),
        ann.case("voice; its content is not defined yet", Channel.VOICE, b"voice " * 100),
        ann.case("a piece of a file; its content is not defined yet", Channel.FILE, b"file"),
    ]
    ann.keyring.ratchet_to(3, 1.0)
    made.append(ann.case("chat after somebody joined: counters go on", Channel.CHAT, line))
    ann.keyring.install(4, GROUP_KEY_4, 2.0)
    ann.keyring.advance(4, 2.0)
    made.append(ann.case("chat after somebody left", Channel.CHAT, line))
    made.append(ann.case("and a screen update", Channel.SCREEN, update))
    return {
        "what": "messages as sealed packets. plaintext of a packet = payload (given for the last one; the others are filled); the last packet "
        "of a signed message has its signature 64 in front. payloads together = content, in signed messages behind log index u32 and "
        "the first 16 bytes of `head`; a compressed content is one zstd frame. msg = SHA-256(framed('parley msg 1', base, header 1, "
        "payload 1, …)); `signed` = framed('parley sig 1', msg). Keys of channel 0: `kek`; of channels 3 and 4: `pair`; of channel "
        "10: `roster`; of all others the PRK of the epoch. `received`: what a member (`me`; log applied up to `index`) makes of packets in "
        "this order (of `messages`, by name and part from 0 on, or their own): its outcome is `message` (complete, with its content), "
        "`collected` (more packets to come) or the name of the refusal.",
        "session": f"{SESSION:016x}",
        "people": people(),
        "log": [entry.hash.hex() for entry in CHAIN],
        "epochs": [
            {"epoch": 2, "by": "given", "group_key": GROUP_KEY_2.hex(), "prk": schedule.group_prk(SESSION, 2, GROUP_KEY_2).hex()},
            {"epoch": 3, "by": "ratchet from 2", "group_key": GROUP_KEY_3.hex(), "prk": schedule.group_prk(SESSION, 3, GROUP_KEY_3).hex()},
            {"epoch": 4, "by": "wrapped", "group_key": GROUP_KEY_4.hex(), "prk": schedule.group_prk(SESSION, 4, GROUP_KEY_4).hex(),
             "digest": schedule.group_key_digest(GROUP_KEY_4).hex()},
        ],
        "roster": {"epoch": 2, "roster_key": ROSTER_KEY.hex(), "prk": schedule.roster_prk(SESSION, 2, ROSTER_KEY).hex()},
        "kek": {"between": [ORGANIZER, ANN], "prk": KEK.hex()},
        "pair": {"between": [ANN, BOB], "shared": EXCHANGE[ANN].shared(EXCHANGE[BOB].public).hex(), "prk": PAIR.hex()},
        "messages": made,
        "received": received(made),
    }  # fmt: skip


def received(made: list[Case]) -> list[Case]:
    """Bob receives: in order, twice, out of order, altered."""

    def sealed(name: str) -> list[bytes]:
        (found,) = [case for case in made if case["name"] == name]
        return [bytes.fromhex(packet["packet"]) for packet in found["packets"]]

    chat, compressed, later, last = (
        sealed(name)[0]
        for name in ("chat", "a chat line that is worth compressing", "chat after somebody joined: counters go on", "chat after somebody left")
    )
    large, paused = sealed("an update of three packets"), sealed("the presenter pauses")
    stranger = Sender(CLEO, 4).channels.seal(Channel.SCREEN, b"\0I do not present", restart=True)
    ahead = Sender(CLEO, 8).channels.seal(Channel.CHAT, messages.encode(messages.ChatLine("I am ahead", TIME)))[0]
    forger = Channels(SESSION, ANN, SIGNING[CLEO], Sender(ANN, 4).keyring, Roster(4))  # Cleo derives Ann's stream keys from the group's
    forged = [forger.seal(Channel.CHAT, messages.encode(messages.ChatLine("I resign", TIME)))[0] for _ in range(3)][2]
    two_faced = Sender(ORGANIZER, 4)
    two_faced.roster.state.heads[3] = bytes(32)
    forked = two_faced.channels.seal(Channel.CHAT, messages.encode(messages.ChatLine("another history", TIME)))[0]
    flipped = chat[:40] + bytes((chat[40] ^ 1,)) + chat[41:]
    unsigned = chat[:1] + b"\x08" + chat[2:]
    steps = [
        ("one bit is flipped", flipped), ("the flag SIGNED is gone", unsigned),
        ("for another session", chat[:4] + bytes(8) + chat[12:]), ("the second line before the first", compressed),
        ("the first line", chat), ("the first line again", chat),
        ("now the second", compressed),
        ("a line of Ann's, at the counter that is due, signed by Cleo", forged), ("a line under a later epoch", later),
        ("whole screen", sealed("the whole screen, before any update")[0]), ("its update", sealed("an update")[0]),
        ("part 1", large[0]), ("part 3, and 2 is lost", large[2]), ("an update that continues nothing", sealed("the update behind it")[0]),
        ("the whole screen again, part 1", sealed("the whole screen of two packets, in the middle of the updates")[0]),
        ("part 2", sealed("the whole screen of two packets, in the middle of the updates")[1]),
        ("the update that it names", sealed("the update behind it")[0]),
        ("and the next", paused[0]), ("a screen of somebody who does not present", stranger[0]),
        ("a line that names entry 7, which is not here yet", ahead), ("a line of somebody who was shown another entry 3", forked),
        ("a line under epoch 4", last),
    ]  # fmt: skip
    known: dict[bytes, Case] = {
        bytes.fromhex(packet["packet"]): {"message": case["name"], "part": part} for case in made for part, packet in enumerate(case["packets"])
    }
    receiver = Sender(BOB, 4)
    outcomes = []
    for name, packet in steps:
        if name == "a line under epoch 4":
            receiver.keyring.ratchet_to(3, 1.0)
            receiver.keyring.install(4, GROUP_KEY_4, 2.0)
            receiver.keyring.advance(4, 2.0)
            outcomes.append({"name": "epochs 3 and 4 are committed; the line of before", **known[later], **outcome(receiver, later)})
        outcomes.append({"name": name, **known.get(packet, {"packet": packet.hex()}), **outcome(receiver, packet)})
    return [{"me": BOB, "index": receiver.roster.index, "steps": outcomes}]


def outcome(receiver: Sender, packet: bytes) -> Case:
    try:
        message = receiver.channels.open_untrusted(packet, 2.0)
    except (EndpointError, CryptoError, WireError) as error:
        return {"outcome": error.name}
    return {"outcome": "collected"} if message is None else {"outcome": "message", "content": message.content.hex()}


def documents() -> dict[str, str]:
    """File name → text."""
    parts = {"handshake": handshakes(), "sealed": packets()}
    return {f"packets-{name}.json": json.dumps(part, indent=1, ensure_ascii=False) + "\n" for name, part in parts.items()}


if __name__ == "__main__":
    for file, text in documents().items():
        (HERE / file).write_text(text)
