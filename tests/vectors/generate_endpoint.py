"""Write the vectors of what endpoints say to each other: `python tests/vectors/generate_endpoint.py`. Deterministic: same code, same bytes.

For a second implementation in another language. Bytes are lower-case hex; 64-bit integers are 16 hex digits, smaller ones and counters
numbers. A `value` is what a msgpack body means, with bytes as {"hex": …}. The words are those of docs/protocol.md.

    endpoint-log.json         a chain of log entries of every kind, heartbeats, what they come to, who may send, what is refused
    endpoint-messages.json    what stands inside packets: key messages, the log snapshot, chat, screen
    endpoint-invitation.json  links and typed IDs, comparison words, names that look equal

generate_packets.py writes joins and sealed packets. tests/endpoint/test_endpoint_vectors.py regenerates and compares both, and reads them with
other libraries, as a second implementation would.
"""

import json
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any, Final

import msgspec

from crypto import schedule
from crypto.signing import ExchangeKey, SigningKey, fingerprint
from crypto.suite import framed
from endpoint import log, messages
from endpoint.errors import EndpointError, MalformedLink
from endpoint.invitation import Invitation, parse_invitation_untrusted
from endpoint.state import Snapshot, State
from endpoint.text import Crowd, clean_name
from endpoint.words import comparison_words
from wire.ids import MeetingId, ParticipantId, SessionId

HERE: Final = Path(__file__).parent
SESSION: Final = SessionId(0x0123456789ABCDEF)
SESSION_BYTES: Final = SESSION.to_bytes(8, "big")
ORGANIZER, ANN, BOB, CLEO = (ParticipantId(i) for i in (1, 2, 0x80000001, 4))
TIME: Final = 1_700_000_000_000

Case = dict[str, Any]


def seeded(name: str, size: int) -> bytes:
    """Bytes that look random and never change."""
    return shake_256(b"parley vectors " + name.encode()).digest(size)


def plain(value: Any) -> Any:
    """A msgpack value as JSON."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def value_of(body: bytes) -> Any:
    return plain(msgspec.msgpack.decode(body))


SIGNING: Final = {i: SigningKey.from_seed(seeded(f"ed {i}", 32)) for i in (ORGANIZER, ANN, BOB, CLEO)}
EXCHANGE: Final = {i: ExchangeKey.from_bytes(seeded(f"x {i}", 32)) for i in (ORGANIZER, ANN, BOB, CLEO)}
MEETING_KEY: Final = SIGNING[ORGANIZER].public


def member(participant: ParticipantId, name: str) -> log.Member:
    return log.Member(participant, 1 if participant == ORGANIZER else 2, name, SIGNING[participant].public, EXCHANGE[participant].public)


def people() -> list[Case]:
    return [
        {
            "id": i,
            "ed25519_seed": SIGNING[i].seed.hex(),
            "ed25519": SIGNING[i].public.hex(),
            "x25519_secret": EXCHANGE[i].to_bytes().hex(),
            "x25519": EXCHANGE[i].public.hex(),
        }
        for i in SIGNING
    ]


# the log

LEGAL: Final[tuple[tuple[str, log.Fields], ...]] = (
    ("the session opens", log.Open(SESSION_BYTES, MEETING_KEY, member(ORGANIZER, "Olga"), 1)),
    ("two guests in one batch", log.Admit([member(ANN, "Ann"), member(BOB, "Bób ☂")], 2)),
    ("a third, and two hundred that are listed by digest alone", log.Admit([member(CLEO, "Cleo")], 3, 200, seeded("others", 32))),
    ("Ann presents", log.Presenter(ANN)),
    ("Bob gets her mouse and keyboard", log.Control(BOB)),
    ("they are taken back", log.Control(0)),
    ("Ann is silenced; her lines up to 6 count", log.Chat(ANN, False, [(ANN, 2, 6)])),
    ("Ann may chat again", log.Chat(ANN, True, [])),
    (
        "everybody without a setting of its own is silenced; Bob's stream has no cut, so none of his lines counts",
        log.Chat(0, False, [(CLEO, 2, 0)]),
    ),
    ("nobody else comes in", log.Lock(True)),
    ("guests wait for the organizer", log.Knock(True)),
    ("they do not", log.Knock(False)),
    ("Cleo has another name", log.Rename(CLEO, "Cleopatra")),
    ("Cleo may take over, then Bob", log.Successors([(CLEO, SIGNING[CLEO].public), (BOB, SIGNING[BOB].public)])),
    ("Bob leaves", log.Leave([BOB], [(BOB, 2, 3), (BOB, 8, 2**40)])),
    ("a new group key", log.EpochEntry(4, schedule.group_key_digest(seeded("gk 4", 16)))),
    ("Cleo is dismissed: knocking is on", log.Dismiss(CLEO, [(CLEO, 2, 1)])),
    ("nobody presents", log.Presenter(0)),
    ("the end", log.End()),
)


def chain() -> list[log.SignedEntry]:
    entries: list[log.SignedEntry] = []
    previous = log.genesis(SESSION)
    for index, (_, fields) in enumerate(LEGAL):
        entries.append(log.sign_entry(SIGNING[ORGANIZER], index, previous, index, fields))
        previous = entries[-1].hash
    return entries


CHAIN: Final = chain()


def entry_case(name: str, entry: log.SignedEntry) -> Case:
    fields = entry.entry.fields
    return {
        "name": name,
        "kind": type(fields).__name__,
        "index": entry.entry.index,
        "previous": entry.entry.previous.hex(),
        "value": value_of(entry.body),
        "body": entry.body.hex(),
        "signed": framed(b"parley entry 1", entry.body).hex(),
        "hash": sha256(framed(b"parley entry 1", entry.body)).hexdigest(),
        "signature": entry.signature.hex(),
        "wire": entry.wire.hex(),
    }


def snapshot_value(state: State) -> Any:
    names = [field.name for field in msgspec.structs.fields(Snapshot)]
    return dict(zip(names, value_of(messages.encode(state.snapshot())), strict=True))


def log_error(content: bytes, *, at: int = 1) -> str:
    """The name by which a member that has applied the first `at` entries refuses this message of channel 1."""
    state = replayed(at)
    try:
        parsed = log.parse_log_untrusted(content, state.organizer_key if at else None, at)
        assert isinstance(parsed, log.SignedEntry)
        state.apply(parsed)
    except EndpointError as error:
        return error.name
    raise AssertionError("this entry should have been refused")


def replayed(entries: int) -> State:
    state = State.genesis(SESSION, MEETING_KEY)
    for entry in CHAIN[:entries]:
        state.apply(entry)
    return state


def logs() -> Case:
    key = SIGNING[ORGANIZER]
    at = 4
    head = CHAIN[at - 1].hash
    accept = framed(
        b"parley accept 1", SESSION_BYTES, head, ANN.to_bytes(4, "big"), SIGNING[ANN].public, EXCHANGE[ANN].public, (4).to_bytes(4, "big")
    )
    hand_over = log.HandOver(ANN, SIGNING[ANN].public, EXCHANGE[ANN].public, SIGNING[ANN].sign(b"parley accept 1", *parts_of(accept)), 4)
    unserved = [
        ("a hand-over to Ann, which she accepts", log.sign_entry(key, at, head, at, hand_over)),
        ("Ann takes over: she signs", log.sign_entry(SIGNING[ANN], at, head, at, log.TakeOver(ANN, 0x01000000))),
        (
            "the organizer yields to a take-over",
            log.sign_entry(
                key, at, head, at, log.Yield(seeded("take-over", 32), key.sign(b"parley yield 1", SESSION_BYTES, seeded("take-over", 32)))
            ),
        ),
    ]
    good = log.sign_entry(key, 1, CHAIN[0].hash, 1, log.Lock(True))

    def raw(value: Any) -> bytes:
        body = msgspec.msgpack.encode(value)
        return b"\0" + key.sign(b"parley entry 1", body) + body

    def signed(fields: log.Fields, at: int = 1) -> bytes:
        return log.sign_entry(key, at, CHAIN[at - 1].hash, at, fields).wire

    def opening(fields: log.Open, by: ParticipantId = ORGANIZER) -> bytes:
        return log.sign_entry(SIGNING[by], 0, log.genesis(SESSION), 0, fields).wire

    previous = CHAIN[0].hash
    refused = [
        ("signed by somebody else", 1, log.sign_entry(SIGNING[ANN], 1, previous, 1, log.Lock(True)).wire),
        ("one bit of the signature", 1, good.wire[:9] + bytes((good.wire[9] ^ 1,)) + good.wire[10:]),
        ("an entry signed as a heartbeat", 1, b"\1" + good.wire[1:]),
        ("an unknown message kind", 1, b"\2" + good.wire[1:]),
        ("no body", 1, good.wire[:65]),
        ("cut", 1, good.wire[:-1]),
        ("a byte behind it", 1, good.wire + b"\xc0"),
        ("an unknown kind of entry", 1, raw([1, previous, 1, [17]])),
        ("a field too many", 1, raw([1, previous, 1, [8, True, 0]])),
        ("a field too few", 1, raw([1, previous, 1, [8]])),
        ("a fifth element", 1, raw([1, previous, 1, [8, True], 0])),
        ("no counter", 1, raw([1, previous, [8, True]])),
        ("a short hash", 1, raw([1, previous[:31], 1, [8, True]])),
        ("an index below 0", 1, raw([-1, previous, 1, [8, True]])),
        ("participant 0 renamed", 1, raw([1, previous, 1, [10, 0, "x"]])),
        ("a name of 65 characters", 1, raw([1, previous, 1, [10, 1, "x" * 65]])),
        ("a cut below -1", 1, raw([1, previous, 1, [7, 1, False, [[1, 2, -2]]]])),
        ("a cut above 2^63 - 1", 1, raw([1, previous, 1, [7, 1, False, [[1, 2, 2**63]]]])),
        ("another index", 1, log.sign_entry(key, 2, previous, 1, log.Lock(True)).wire),
        ("another predecessor", 1, log.sign_entry(key, 1, bytes(32), 1, log.Lock(True)).wire),
        ("said at another counter", 1, log.sign_entry(key, 1, previous, 2, log.Lock(True)).wire),
        ("a second opening", 1, signed(CHAIN[0].entry.fields)),
        ("an opening of another session", 0, opening(log.Open(bytes(8), MEETING_KEY, member(ORGANIZER, "O"), 1))),
        ("an opening in epoch 2", 0, opening(log.Open(SESSION_BYTES, MEETING_KEY, member(ORGANIZER, "O"), 2))),
        ("an opening without the meeting key", 0, opening(log.Open(SESSION_BYTES, MEETING_KEY, member(ANN, "A"), 1), ANN)),
        ("a participant ID comes twice", 2, signed(log.Admit([member(ANN, "Ann")], 3), 2)),
        ("an epoch is left out", 1, signed(log.Admit([member(ANN, "Ann")], 3))),
        ("the term of an epoch changes", 1, signed(log.EpochEntry(0x01000002, bytes(32)))),
        ("nobody is admitted", 1, signed(log.Admit([], 2))),
        ("the organizer leaves", 1, signed(log.Leave([ORGANIZER], []))),
        ("the organizer is dismissed", 1, signed(log.Dismiss(ORGANIZER, []))),
        ("a stranger presents", 1, signed(log.Presenter(ANN))),
        ("control, and nobody presents", 2, signed(log.Control(ANN), 2)),
        ("the presenter gets control", 4, signed(log.Control(ANN), 4)),
        ("a stranger is silenced", 1, signed(log.Chat(ANN, False, []))),
        ("a stranger may take over", 1, signed(log.Successors([(ANN, SIGNING[ANN].public)]))),
        ("an entry after the end", len(CHAIN), signed(log.Lock(False), len(CHAIN))),
    ]  # fmt: skip
    beats = [
        ("nothing moved", log.Heartbeat(3, CHAIN[3].hash, 4, TIME, [])),
        ("two streams moved, one member is away", log.Heartbeat(3, CHAIN[3].hash, 4, TIME + 5000, [(ANN, 2, 6), (BOB, 8, 2**40)], [BOB])),
    ]
    end = replayed(len(CHAIN))
    streams = [(i, channel) for i in (ORGANIZER, ANN, BOB, CLEO, ParticipantId(99)) for channel in (2, 5, 8, 9)]
    asked = [(i, c, index, counter) for i, c in streams for index in (0, 1, 2, 3, 5, 6, 7, 8, 13, 14, 16, 17) for counter in (0, 1, 6, 7)]
    before_end = replayed(len(CHAIN) - 1)
    return {
        "what": "channel 1: wire = 0 u8 ‖ signature 64 ‖ body for an entry, 1 u8 ‖ signature 64 ‖ body for a heartbeat. hash = SHA-256(signed);"
        " the signature is Ed25519 over `signed`. `entries` is one legal log. `unserved` have bytes and are refused as entry-illegal. "
        "`refused`: after `applied` entries of the log this message, whose packet has the counter `applied`, is refused by this name, and "
        "nothing changes. `rights`: whether a "
        "packet that names `index` counts, after all entries but the end; [participant, channel, index, counter, counts].",
        "session": f"{SESSION:016x}",
        "people": people(),
        "genesis": {"signed": framed(b"parley log 1", SESSION_BYTES).hex(), "previous": log.genesis(SESSION).hex()},
        "entries": [entry_case(name, entry) for (name, _), entry in zip(LEGAL, CHAIN, strict=True)],
        "accept_signed": accept.hex(),
        "unserved": [entry_case(name, entry) | {"applied": at} for name, entry in unserved],
        "heartbeats": [
            {"name": name, "value": value_of(messages.encode(beat)), "wire": log.sign_heartbeat(key, beat).hex()} for name, beat in beats
        ],
        "refused": [{"name": name, "applied": at, "wire": wire.hex(), "error": log_error(wire, at=at)} for name, at, wire in refused],
        "state_before_end": snapshot_value(before_end),
        "state": snapshot_value(end),
        "rights": [[*question, before_end.may_send(*question)] for question in asked],
    }


def parts_of(framed_bytes: bytes) -> list[bytes]:
    """The parts of a framed list, without its label."""
    parts, at = [], 0
    while at < len(framed_bytes):
        size = int.from_bytes(framed_bytes[at : at + 4], "big")
        parts.append(framed_bytes[at + 4 : at + 4 + size])
        at += 4 + size
    return parts[1:]


# what stands inside packets


def log_snapshot() -> messages.LogSnapshot:
    """After the entry in which Ann may chat again: she was silenced in between."""
    state = messages.encode(replayed(8).snapshot())
    start = messages.encode([(ANN, 2, 6), (CLEO, 2, 0)])
    return messages.LogSnapshot(state, start, SIGNING[ORGANIZER].sign(b"parley snap 1", SESSION_BYTES, state, start))


def contents() -> Case:
    snapshot = log_snapshot()
    shown: list[messages.ShownLog] = [snapshot, messages.LogSequel([CHAIN[8].wire], [(ANN, 2, 8)])]
    digest = sha256(framed(b"parley shown 1", *map(messages.encode, shown))).digest()
    newcomer = State.from_snapshot(SESSION, MEETING_KEY, msgspec.msgpack.decode(snapshot.state, type=Snapshot))
    key_messages: list[tuple[str, messages.KeyMessage]] = [
        ("the key of epoch 4", messages.GroupKey(4, seeded("gk 4", 16))),
        ("where the log can be read", messages.Roster(4, seeded("roster key", 16), 17, 23, digest, 11)),
        ("the log is here", messages.Started()),
        ("key and roster again", messages.Resync()),
        ("a leaver's last word and its counters", messages.Request(messages.Verb.LEAVE, cuts=[(ANN, 2, 6)])),
        ("Bob shall present", messages.Request(messages.Verb.PRESENT, BOB)),
        ("a hand is up", messages.Request(messages.Verb.RAISE_HAND)),
        ("another name, please", messages.Request(messages.Verb.RENAME, text="Anna")),
        ("what a successor needs", messages.Estate(seeded("verifier", 400), [seeded("an entry", 120)])),
        ("the chair is offered", messages.Offer(CHAIN[7].hash, 4)),
        ("and taken", messages.Accept(CHAIN[7].hash, seeded("accept", 64))),
        ("a take-over is accepted", messages.Yielded(seeded("take-over", 32), seeded("yield", 64))),
        ("wait until you are let in", messages.Waiting()),
        ("Bob asks for mouse and keyboard", messages.Asked(BOB)),
        ("our round trip", messages.Status(23)),
        ("how the chair came here", messages.Succession([bytes(range(80)), bytes(range(90))])),
    ]
    return {
        "what": "contents of channel 0 after the handshake (tagged arrays), chat (channels 2 and 3), the kinds of channel 5, and what "
        "channel 10 shows (`roster`; its digest stands in the message that names it). `snapshot` takes the log snapshot in it apart: its "
        "signature is Ed25519 by the organizer over `signed`. `rights`: whether a packet counts at a newcomer that begins there; the same "
        "as at those who have the whole log.",
        "key_messages": [
            {
                "name": name,
                "message": type(message).__name__,
                "value": value_of(messages.encode(message)),
                "content": messages.encode(message).hex(),
            }
            for name, message in key_messages
        ],
        "roster": [
            {"message": type(message).__name__, "value": value_of(messages.encode(message)), "content": messages.encode(message).hex()}
            for message in shown
        ],
        "verbs": {verb.name.lower().replace("_", "-"): int(verb) for verb in messages.Verb},
        "snapshot": {
            "state": snapshot_value(replayed(8)),
            "state_bytes": snapshot.state.hex(),
            "start": value_of(snapshot.start),
            "start_bytes": snapshot.start.hex(),
            "signed": framed(b"parley snap 1", SESSION_BYTES, snapshot.state, snapshot.start).hex(),
            "signature": snapshot.signature.hex(),
            "rights": [[ANN, 2, index, 7, newcomer.may_send(ANN, 2, index, 7)] for index in range(9)],
        },
        "chat": [
            {"value": value_of(messages.encode(line)), "content": messages.encode(line).hex()}
            for line in (messages.ChatLine("hello", TIME), messages.ChatLine("Grüße 👋🏽 العربية", 0))
        ],
        "screen_kinds": {kind.name.lower(): int(kind) for kind in messages.ScreenKind},
    }


# links, words, names


def invitations() -> Case:
    f = fingerprint(MEETING_KEY)
    site, invite = "https://parley.example", "0123456789abcdef"
    whole = [
        Invitation(MeetingId(123456789), site, invite, "correct-horse-battery-staple", f),
        Invitation(MeetingId(987654321), "https://127.0.0.1:8443", invite, "Grüße, 100% #.?/", f),
        Invitation(MeetingId(100000000), "https://[2001:db8::1]", invite, None, f),
        Invitation(MeetingId(999999999), site, None, None, None),
    ]
    typed = ["123456789", "123-456-789", " 123 456 789\n", "123.456.789", "parley.example/j/123456789", f"{site}/j/123456789/{invite}"]
    wrong = [
        "", "12345678", "1234567890", "023456789", "12345678a", "１２３４５６７８９",
        f"{site}/j/12345678", f"{site}/j/023456789", f"{site}/j/123456789/{invite[:-1]}",
        f"{site}/j/123456789/{invite.upper()}", f"{site}/j/123456789/{invite}#password", f"{site}/j/123456789/{invite}#password.{f[:-1]}",
        f"{site}/j/123456789/{invite}#%ff.{f}", f"{site}/j/123456789/{invite}#{'x' * 257}.{f}", f"ftp://parley.example/j/123456789/{invite}",
        f"https://user@parley.example/j/123456789/{invite}", f"https:///j/123456789/{invite}", f"https://parley.example:port/j/123456789/{invite}",
    ]  # fmt: skip
    for text in wrong:
        try:
            parse_invitation_untrusted(text)
        except MalformedLink:
            continue
        raise AssertionError(text)

    def parts(invitation: Invitation) -> Case:
        return {
            "meeting": invitation.meeting,
            "site": invitation.site,
            "invite": invitation.invite,
            "password": invitation.password,
            "fingerprint": invitation.expected,
            "badge": invitation.badge.value,
        }

    names = [
        ("Ana", []),
        ("Ana", ["Ana"]),
        ("ANA", ["ana"]),
        ("Ana", ["Ana", "Ana (2)"]),
        ("А\u043dа", ["AHA"]),
        ("An\u200da", ["Ana"]),
        ("x" * 64, ["x" * 64]),
    ]
    return {
        "what": "links: https://HOST/j/MEETING/INVITE#PASSWORD.F with the password percent-encoded in UTF-8 (letters, digits and -._~ stand as "
        "they are); what people type; what is link-malformed. words: six of BIP-39's English list, 11 bits each from the first on, of "
        "SHA-256 of `hashed`. names: what the organizer calls a newcomer when others are there.",
        "links": [{"link": invitation.link(), **parts(invitation)} for invitation in whole],
        "typed": [{"text": text, **parts(parse_invitation_untrusted(text))} for text in typed],
        "refused": wrong,
        "fingerprint": {"meeting_key": MEETING_KEY.hex(), "hashed": framed(b"parley org 1", MEETING_KEY).hex(), "fingerprint": f},
        "words": [
            {"meeting_key": key.hex(), "hashed": framed(b"parley words 1", key).hex(), "words": comparison_words(key)}
            for key in (MEETING_KEY, bytes(32), b"\xff" * 32)
        ],
        "clean_names": [
            {"name": name, "clean": clean_name(name)} for name in ("Ana", "\u202eAna\u0007", "  A \t\n b ", "e\u0301", "", "\u3164", "é" * 70)
        ],
        "distinct_names": [{"name": name, "taken": taken, "distinct": Crowd(taken).distinct(name)} for name, taken in names],
    }


def documents() -> dict[str, str]:
    """File name → text."""
    parts = {"log": logs(), "messages": contents(), "invitation": invitations()}
    return {f"endpoint-{name}.json": json.dumps(part, indent=1, ensure_ascii=False) + "\n" for name, part in parts.items()}


if __name__ == "__main__":
    for file, text in documents().items():
        (HERE / file).write_text(text)
