"""What an organizer keeps on disk while its session runs, so that it can come back after its program has died: sealed, append-only.

    file     "parley j" ‖ salt 16 ‖ record …
    record   length u32 ‖ packet, as on the wire: header 32 (label, counter 8), AES-CTR, HMAC-SHA1     key: HKDF from the seed
    content  the chair and its keys, first of all · entries of the log, each with the group key that holds after it · counters of members'
             streams · another verifier · the hand-over

The seed is the meeting key's; for who became the organizer later it is the session's secret, which the manager gives with a ticket and erases
at the end: such a file opens while its session runs, and only with a ticket.

An entry is on disk before it is sent, so no two entries of ours ever stand at one place of the log. Who hands the chair over writes the
sealed packets of that entry down instead, behind all that no relay has taken before it: whether a relay had taken them when the program
died or not, they and no others are said again (`endpoint.former`), and nobody begins a second log. A record that was cut off by the crash
is no record; any other damage means that there is nothing to come back to. The next process writes a fresh file under a fresh salt, so that
no counter is used twice. The file is locked while its organizer lives, and goes when the session ends; who wants to take a session up locks
it before it reads (`claimed`), so that of two programs one does.
"""

import fcntl
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

import msgspec
from msgspec import Struct

from crypto.errors import CryptoError
from crypto.schedule import StreamKeys, expand, extract
from crypto.seal import Opener, Sealer
from crypto.signing import ExchangeKey, SigningKey
from crypto.srp import Verifier
from crypto.suite import HEADER_SIZE, STREAM_KEYS_SIZE, framed
from endpoint.errors import EndpointError
from endpoint.log import Cuts
from wire.ids import SessionId

_MAGIC: Final = b"parley j"
_LABEL: Final = b"parley disk 1"
_HEADER: Final = b"parley journal 1".ljust(HEADER_SIZE - 8, b"\0")
_LENGTH: Final = struct.Struct("!I")
_SALT_SIZE: Final = 16
_MAX_RECORD: Final = 8 << 20  # a snapshot of the largest roster


class JournalError(EndpointError):
    name: ClassVar[str] = "journal-unusable"
    sentence: ClassVar[str] = "The session cannot be written down on this machine, so it could not be taken up again after a crash."


class AlreadyHosted(JournalError):
    name: ClassVar[str] = "already-hosted"
    sentence: ClassVar[str] = (
        "Another program on this machine hosts this meeting already: go on in that one, or end it there first. "
        "To be in the meeting a second time, join it as a guest."
    )


class Seat(Struct, frozen=True, array_like=True):
    """A participant of ours, and the token that lets it speak to relays."""

    participant: int
    role: int
    token: bytes

    def __repr__(self) -> str:
        return f"Seat({self.participant})"


class _Chair(Struct, frozen=True, array_like=True, tag=1):
    session: bytes
    seats: list[Seat]
    chain: list[bytes]
    seed: bytes
    exchange: bytes
    verifier: bytes
    snapshot: bytes
    epoch: int
    key: bytes
    before: int


class _Entry(Struct, frozen=True, array_like=True, tag=2):
    wire: bytes
    epoch: int
    key: bytes


class _Counters(Struct, frozen=True, array_like=True, tag=3):
    counters: Cuts


class _Verifier(Struct, frozen=True, array_like=True, tag=4):
    verifier: bytes


class Passed(Struct, frozen=True, array_like=True, tag=5):
    """The chair was handed over: to whom, and the packets that say so."""

    to: int
    packets: list[bytes]  # of channel 1, in order: what no relay had taken, the entry last


_Record = _Chair | _Entry | _Counters | _Verifier | Passed
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final[Callable[[bytes], _Record]] = msgspec.msgpack.Decoder(_Record).decode


@dataclass(slots=True)
class Saved:
    """What there is to come back to."""

    session: SessionId
    seats: list[Seat]  # our participants in this session, the newest last
    chain: list[bytes]
    seed: bytes = field(repr=False)  # of the key that signs the log
    exchange: bytes = field(repr=False)  # the X25519 key: members who cannot read on reach the next process by it
    verifier: bytes = field(repr=False)
    snapshot: bytes = b""  # the state from which `entries` go on; empty: they are the whole log
    entries: list[bytes] = field(default_factory=list)
    epoch: int = 0
    group_key: bytes = field(default=b"", repr=False)
    counters: dict[tuple[int, int], int] = field(default_factory=dict)  # by participant, channel: the last one applied
    passed: Passed | None = None
    before: int = 0  # who organized when the chair came to us: a relay that names that one still has not heard of us yet

    @classmethod
    def fresh(cls, session: SessionId, key: SigningKey, verifier: Verifier) -> Self:
        """Of a session that is about to be opened: nothing but its keys."""
        return cls(session, [], [], key.seed, ExchangeKey.generate().to_bytes(), verifier.to_bytes())

    @property
    def begun(self) -> bool:
        """Whether the session has been opened."""
        return bool(self.entries or self.snapshot)


class Claim:
    """One program's right to take a session up on this machine, or to open it. Made by `claimed`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def read(self, seed: bytes, session: SessionId | None = None) -> Saved | None:
        """What an earlier process left, of this session (None: of whatever session); None as well if it is damaged, or sealed under another
        seed. Raises JournalError."""
        try:
            with open(self._descriptor, "rb", closefd=False) as file:
                saved = _parse(file.read(), seed)
        except OSError as error:
            raise _unusable(self._path, error) from None
        return saved if saved is not None and session in (None, saved.session) else None


@contextmanager
def claimed(path: Path, *, create: bool = True) -> Iterator[Claim | None]:
    """Nobody else on this machine can read this journal while the block runs, nor afterwards if a journal was begun there. None if there is
    none, and none is to be made. Raises AlreadyHosted, JournalError."""
    try:
        descriptor = _lock(path, create=create)
    except BlockingIOError:
        raise AlreadyHosted from None
    except OSError as error:
        raise _unusable(path, error) from None
    if descriptor is None:
        yield None
        return
    try:
        yield Claim(path, descriptor)
    finally:
        with suppress(OSError):
            ours = os.fstat(descriptor)
            if not ours.st_size and _stands_at(ours, path):
                path.unlink()  # made for the claim alone
        os.close(descriptor)


def _lock(path: Path, *, create: bool) -> int | None:
    """The file that stands there, locked. Raises OSError."""
    if create:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands_at(os.fstat(descriptor), path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # meanwhile another program has put a newer one into its place, or taken it away


def _stands_at(file: os.stat_result, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(file, path.stat())
    return False


class Journal:
    """Owned by a member. Made by `begin`."""

    def __init__(self, path: Path, descriptor: int, sealer: Sealer) -> None:
        self._path = path
        self._descriptor = descriptor
        self._file = os.fstat(descriptor)
        self._sealer = sealer

    @staticmethod
    def read(path: Path, seed: bytes, session: SessionId | None = None) -> Saved | None:
        """What an earlier process left, for who does not take it up. Raises AlreadyHosted, JournalError."""
        with claimed(path, create=False) as claim:
            return claim.read(seed, session) if claim is not None else None

    @classmethod
    def begin(cls, path: Path, seed: bytes, saved: Saved) -> Self:
        """A fresh journal that goes on from there. Raises JournalError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                salt = secrets.token_bytes(_SALT_SIZE)
                os.write(descriptor, _MAGIC + salt)
                journal = cls(path, descriptor, Sealer(_keys(seed, salt)))
                journal._write_all(saved)
                part.replace(path)
            except BaseException:
                os.close(descriptor)
                part.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _unusable(path, error) from None
        return journal

    def _write_all(self, saved: Saved) -> None:
        session, key = saved.session.to_bytes(8, "big"), (saved.epoch, saved.group_key)
        chair = _Chair(session, saved.seats, saved.chain, saved.seed, saved.exchange, saved.verifier, saved.snapshot, *key, saved.before)
        counters = _Counters([(p, c, counter) for (p, c), counter in saved.counters.items()])
        self._write(chair, *(_Entry(wire, *key) for wire in saved.entries), counters, *([saved.passed] if saved.passed else []))

    def entry(self, wire: bytes, epoch: int, key: bytes) -> None:
        """An entry that is about to be sent, and the epoch and key that hold after it. Raises JournalError."""
        self._write(_Entry(wire, epoch, key))

    def counters(self, counters: Cuts) -> None:
        """How far members' streams are applied. Raises JournalError."""
        self._write(_Counters(counters))

    def verifier(self, verifier: bytes) -> None:
        """The password is another one. Raises JournalError."""
        self._write(_Verifier(verifier))

    def passed(self, to: int, packets: list[bytes]) -> None:
        """The hand-over that is about to be sent; nothing of ours follows it. Raises JournalError."""
        self._write(Passed(to, packets))

    def forget(self) -> None:
        """The session is over, or somebody else's."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)  # nothing of it may be taken up again, whatever becomes of its name
            with suppress(OSError):
                if _stands_at(self._file, self._path):  # another program's may have taken its place
                    self._path.unlink()
            self.close()

    def close(self) -> None:
        """Leave it for a process to come."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, *records: _Record) -> None:
        if self._descriptor < 0:
            return
        written = b""
        for record in records:
            counter = self._sealer.last + 1
            packet = self._sealer.seal(_HEADER + counter.to_bytes(8, "big"), counter, _encode(record))
            written += _LENGTH.pack(len(packet)) + packet
        whole = memoryview(written)
        try:
            while whole:
                whole = whole[os.write(self._descriptor, whole) :]
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise _unusable(self._path, error) from None


def _unusable(path: Path, error: OSError) -> JournalError:
    return JournalError(f"{path}: {error.strerror}. {JournalError.sentence}")


def _keys(seed: bytes, salt: bytes) -> StreamKeys:
    return StreamKeys.split(expand(extract(framed(_LABEL, salt), seed), b"journal", size=STREAM_KEYS_SIZE))


def _parse(content: bytes, seed: bytes) -> Saved | None:
    begin = len(_MAGIC) + _SALT_SIZE
    if content[: len(_MAGIC)] != _MAGIC or len(content) < begin:
        return None
    opener = Opener(_keys(seed, content[len(_MAGIC) : begin]))
    saved: Saved | None = None
    at, counter = begin, 0
    while at + _LENGTH.size <= len(content):
        (size,) = _LENGTH.unpack_from(content, at)
        packet = content[at + _LENGTH.size : at + _LENGTH.size + size]
        if len(packet) < size or size > _MAX_RECORD:
            break  # cut off by the crash
        try:
            opener.verify(packet)
            record = _decode(opener.decrypt(packet, counter))
        except (CryptoError, msgspec.MsgspecError):
            return None
        if packet[HEADER_SIZE - 8 : HEADER_SIZE] != counter.to_bytes(8, "big"):
            return None
        at, counter = at + _LENGTH.size + size, counter + 1
        match record:
            case _Chair():
                session = SessionId(int.from_bytes(record.session, "big"))
                saved = Saved(session, record.seats, record.chain, record.seed, record.exchange, record.verifier, record.snapshot)
                saved.epoch, saved.group_key, saved.before = record.epoch, record.key, record.before
            case _ if saved is None:
                return None
            case _Entry():
                saved.entries.append(record.wire)
                saved.epoch, saved.group_key = record.epoch, record.key
            case _Counters():
                saved.counters.update({(p, c): counter for p, c, counter in record.counters})
            case _Verifier():
                saved.verifier = record.verifier
            case Passed():
                saved.passed = record
    return saved if saved is not None and saved.begun else None
